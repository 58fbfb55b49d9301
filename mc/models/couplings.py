"""Disorder that stays the same for ever: couplings and fields from a seed.

Random numbers are raw 64-bit words of PCG64, whose stream NumPy promises to keep, and the arithmetic is ours: +-J
from the top bit, Gaussian numbers by the inverse normal distribution function. Values are rounded to multiples of
2^-32, so that a last bit of somebody's math library cannot change a fingerprint, and sums of them are exact.
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri

RESOLUTION = 2.0**-32
BONDS, FIELDS, GRAPH = 0, 1, 2  # one independent stream for each use of a seed


def raw_words(seed: int, stream: int, count: int) -> np.ndarray:
    """`count` raw words (count,) uint64 of stream `stream` of a disorder seed."""
    return np.random.PCG64(np.random.SeedSequence([seed, stream])).random_raw(count)


def signs(words: np.ndarray) -> np.ndarray:
    """+1.0 or -1.0 from the top bit of each word."""
    return np.where(words >> np.uint64(63), 1.0, -1.0)


def normals(words: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """Gaussian numbers of standard deviation `scale`, one a word."""
    uniform = ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    return np.round(scale * ndtri(uniform) / RESOLUTION) * RESOLUTION


def deal(J: str | float, seed: int, count: int, scale: float = 1.0) -> np.ndarray:
    """`count` couplings of kind J: "ferro" (+scale), "bimodal" (+-scale), "gaussian" or a number.

    Raises ValueError for another word.
    """
    if isinstance(J, str):
        if J == "ferro":
            return np.full(count, scale)
        if J == "bimodal":
            return scale * signs(raw_words(seed, BONDS, count))
        if J == "gaussian":
            return normals(raw_words(seed, BONDS, count), scale)
        raise ValueError(f"J={J}: bimodal, gaussian, ferro or a number is needed")
    return np.full(count, float(J) * scale)


def fields(h: str | float, seed: int, n_spins: int) -> np.ndarray:
    """Fields (n_spins,) from h = a number, or "gauss:SIGMA"."""
    if isinstance(h, str):
        kind, _, width = h.partition(":")
        try:
            sigma = float(width)
        except ValueError:
            sigma = float("nan")
        if kind != "gauss" or not np.isfinite(sigma) or sigma < 0:
            raise ValueError(f"h={h}: a number or gauss:SIGMA is needed")
        return normals(raw_words(seed, FIELDS, n_spins), sigma)
    if not np.isfinite(h):
        raise ValueError(f"h={h}: a finite number is needed")
    return np.full(n_spins, float(h))


def field_interaction(h: str | float, seed: int, n_spins: int) -> tuple[np.ndarray, np.ndarray]:
    """The fields as an interaction of order one: sites (n_spins, 1), couplings (n_spins,)."""
    return np.arange(n_spins)[:, None], fields(h, seed, n_spins)
