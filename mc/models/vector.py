"""The vector-spin glass behind the transformer: spins in R^D with dense couplings, symmetric or not, and a field."""

from __future__ import annotations

import math

import numpy as np

from mc.models import couplings
from mc.models.attention import attention_couplings, tokens_of_norm
from mc.models.npz import read_npz
from mc.vector.hamiltonian import LARGEST, VectorHamiltonian

MOST_NUMBERS = 50_000_000  # of J, and of x: what a laptop holds
COUPLING = ("symmetric", "asymmetric")
COUPLINGS = ("gaussian", "bimodal", "ferro", "attention")


def vector(
    N: int | None = None,
    D: int | None = None,
    *,
    J: str | float = "gaussian",
    coupling: str = "asymmetric",
    h: float | None = None,
    seed: int = 0,
    path: str | None = None,
    energy: str = "bilinear",
    pairs: str = "once",
) -> VectorHamiltonian:
    """N spins in R^D, J_ij of mean 0 and variance 1/N, each with a Gaussian field x_i of norm R = sqrt(D/2 - 1).

    Honkoop, "Statistical Physics of Transformers" (Leiden 2025), eq. 2.14 and appendix; `mc.vector.hamiltonian`.

    J: "gaussian", "bimodal" (+-1/sqrt(N)), "ferro" or a number (times 1/sqrt(N)); "attention": those of an attention
    block with Gaussian weights of variance 1/D, whose tokens are the fields (`mc.models.attention`). coupling:
    "asymmetric" takes J as it is, its diagonal too; "symmetric" mirrors its upper triangle and clears the diagonal.
    h: x is multiplied by h / R, so that h is the norm of such fields (default: x as it is; 0 for none). seed: of J
    and x.
    path: an .npz file with arrays `x` (N, D) and `J` (N, N) instead of N, D, J and seed; or with the weights `W_Q`
    and `W_K` (D, d_k), perhaps `bias_Q` (d_k,), of an attention head instead of `J`, which is then made of the tokens
    x, brought to norm R.
    energy: "bilinear" (spins of fixed norm) or "loss" (free norms). pairs: "once" or "ordered".

    Raises ValueError for missing or impossible sizes, words, or files, and keys that do not go together.
    """
    if coupling not in COUPLING:
        raise ValueError(f"coupling={coupling}: {' or '.join(COUPLING)} is needed")
    if h is not None and not (math.isfinite(h) and h >= 0):
        raise ValueError(f"h={h}: a finite number of at least 0 is needed, the norm of the fields")
    if path is not None:
        for key, value, absent in (("N", N, None), ("D", D, None), ("J", J, "gaussian"), ("seed", seed, 0)):
            if value != absent:
                raise ValueError(f"vector: path= brings x and J along; leave {key}= out")
        parameters = dict(path=str(path), coupling=coupling)
        x, strengths = _from_file(path)
    else:
        _require_sizes(N, D)
        parameters = dict(N=N, D=D, J=J, coupling=coupling, seed=seed)
        x = couplings.normals(couplings.raw_words(seed, couplings.FIELDS, N * D)).reshape(N, D)
        x = _rounded(tokens_of_norm(x))
        if isinstance(J, str) and J not in COUPLINGS:
            raise ValueError(f"J={J}: {', '.join(COUPLINGS)} or a number is needed")
        if J == "attention":
            weights = couplings.normals(couplings.raw_words(seed, couplings.BONDS, 2 * D * D), 1.0 / math.sqrt(D))
            strengths = _rounded(attention_couplings(x, *weights.reshape(2, D, D)))
        else:
            strengths = _rounded(couplings.deal(J, seed, N * N, 1.0 / math.sqrt(N))).reshape(N, N)
    if coupling == "symmetric":
        strengths = np.triu(strengths, 1)
        strengths = strengths + strengths.T
    if h is not None:
        if x.shape[1] < 3:
            raise ValueError(f"vector: path={path}: D={x.shape[1]}: at least 3 components are needed, as R > 0")
        x = x * (h / math.sqrt(0.5 * x.shape[1] - 1.0))
        parameters["h"] = h
    for key, value, default in (("energy", energy, "bilinear"), ("pairs", pairs, "once")):
        if value != default:
            parameters[key] = value
    try:
        return VectorHamiltonian(x, strengths, energy, pairs, "vector", parameters)
    except ValueError as error:
        raise ValueError(f"vector: {f'path={path}: ' if path else ''}{error}") from None


def _rounded(values: np.ndarray) -> np.ndarray:
    """Multiples of 2^-32, as Gaussian couplings are: a last bit of a math library must not change a fingerprint."""
    return np.round(values / couplings.RESOLUTION) * couplings.RESOLUTION


def _require_sizes(N: int | None, D: int | None) -> None:
    for key, value, least in (("N", N, 1), ("D", D, 3)):
        if value is None:
            raise ValueError(f"vector: no size; give N= and D=, or path=FILE.npz ({key} is missing)")
        if value < least:
            raise ValueError(f"vector: {key}={value}: an integer of at least {least} is needed")
    if max(N * N, N * D) > MOST_NUMBERS:
        raise ValueError(
            f"vector: N={N}, D={D}: dense couplings do not fit; N^2 and N D of at most {MOST_NUMBERS} do"
        )


def _from_file(path: str) -> tuple[np.ndarray, np.ndarray]:
    """x and J of an .npz file, J perhaps made of attention weights."""
    arrays = read_npz("vector", path)
    attention = "J" not in arrays and {"W_Q", "W_K"} <= arrays.keys()
    needed = {"x": "(N, D)"} | ({"W_Q": "(D, d_k)", "W_K": "(D, d_k)"} if attention else {"J": "(N, N)"})
    for key, axes in needed.items():
        if key not in arrays:
            others = "x (N, D) and J (N, N), or W_Q and W_K (D, d_k), are needed"
            raise ValueError(f"vector: path={path} has no array {key}; {others}")
        _require_numbers(path, key, arrays[key], axes)
    if {"J", "W_Q"} <= arrays.keys():
        raise ValueError(
            f"vector: path={path} has J and attention weights, which make another J; leave one of them out"
        )
    if not attention:
        n = len(arrays["x"])
        if arrays["J"].shape != (n, n):
            raise ValueError(f"vector: path={path}: J is {arrays['J'].shape}, {(n, n)} is needed for {n} spins")
        return arrays["x"].astype(np.float64), arrays["J"].astype(np.float64)
    if "bias_Q" in arrays:
        _require_numbers(path, "bias_Q", arrays["bias_Q"], "(d_k,)")
    try:
        x = tokens_of_norm(arrays["x"])
        return x, attention_couplings(x, arrays["W_Q"], arrays["W_K"], bias_Q=arrays.get("bias_Q"))
    except ValueError as error:
        raise ValueError(f"vector: path={path}: {error}") from None


def _require_numbers(path: str, key: str, array: np.ndarray, axes: str) -> None:
    if array.ndim != len(axes.strip("(,)").split(",")) or array.dtype.kind not in "iuf":
        found = f"{array.dtype} {array.shape}"
        raise ValueError(f"vector: path={path}: {key} is {found}, real numbers {axes} are needed")
    if not (np.abs(array.astype(np.float64)) <= LARGEST).all():
        raise ValueError(f"vector: path={path}: {key}: NaN or infinite numbers, or ones beyond {LARGEST:g}")
