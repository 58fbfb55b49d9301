"""Spins as tokens: which spins are drawn together, and in which order. Every prior and network receives this."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mc.hamiltonian import Hamiltonian
from mc.lattice import Lattice

MAX_SPINS_A_TOKEN = 12  # a head of 2^12 outputs is the largest that pays (Bialas et al., arXiv:2604.27738, fig. 4)
MAX_SPINS_A_GROUP = 62  # of heads that go spin by spin: a token is still an int64
DEFAULT_SPINS_A_TOKEN = 8


@dataclass(frozen=True, eq=False)
class Tokens:
    """The generation order: token j holds the spins at `sites[j]`, drawn together.

    sites: (n_tokens, k) int64, a permutation of all sites. Bit m (of weight 2^m) of token j is the spin at
    sites[j, m], 0 for -1 and 1 for +1 (arXiv:2604.27738).
    patch: shape of a token on the lattice, or None for groups of a graph.
    lattice: the lattice, or None.
    """

    sites: np.ndarray
    patch: tuple[int, ...] | None = None
    lattice: Lattice | None = None

    def __post_init__(self):
        sites = np.array(self.sites, dtype=np.int64)
        if sites.ndim != 2 or not np.array_equal(np.sort(sites, axis=None), np.arange(sites.size)):
            raise ValueError("tokens: sites must name every spin once, shape (n_tokens, k)")
        if sites.shape[1] > MAX_SPINS_A_GROUP:
            raise ValueError(
                f"tokens: {sites.shape[1]} spins a token, at most {MAX_SPINS_A_GROUP}; choose a smaller patch="
            )
        sites.setflags(write=False)
        object.__setattr__(self, "sites", sites)

    @property
    def n_tokens(self) -> int:
        return self.sites.shape[0]

    @property
    def k(self) -> int:
        """Spins a token."""
        return self.sites.shape[1]

    @property
    def vocabulary(self) -> int:
        """2^k; ValueError where no head of that many outputs is worth its time."""
        if self.k > MAX_SPINS_A_TOKEN:
            raise ValueError(
                f"tokens: {self.k} spins a token would need 2^{self.k} outputs; at most {MAX_SPINS_A_TOKEN} spins, "
                "choose a smaller patch=, or net.head=spin with prior=belief"
            )
        return 2**self.k

    @property
    def n_spins(self) -> int:
        return self.sites.size

    @property
    def first_site(self) -> int:
        """The spin drawn first; the canonical frame of a Z2-symmetric model has it at -1."""
        return int(self.sites[0, 0])

    @cached_property
    def table(self) -> np.ndarray:
        """Spins of every token value, (vocabulary, k) int8."""
        values = np.arange(self.vocabulary)[:, None] >> np.arange(self.k)
        return (2 * (values & 1) - 1).astype(np.int8)

    def encode(self, spins: np.ndarray) -> np.ndarray:
        """Token values (..., n_tokens) int64 of states (..., n_spins)."""
        bits = np.asarray(spins)[..., self.sites] > 0  # (..., n_tokens, k)
        return bits @ (1 << np.arange(self.k))

    def decode(self, values: np.ndarray) -> np.ndarray:
        """States (..., n_spins) int8 of token values (..., n_tokens)."""
        values = np.asarray(values)
        spins = np.empty((*values.shape[:-1], self.n_spins), dtype=np.int8)
        spins[..., self.sites] = self.table[values]
        return spins


def patch_tokens(lattice: Lattice, patch: tuple[int, ...]) -> Tokens:
    """Patches of a lattice in raster order, each filled row-major.

    patch: sizes along the last axes, (rows, columns) or (layers, rows, columns); missing leading axes count 1.
    Raises ValueError when it does not divide the lattice.
    """
    full = (1,) * (lattice.dimension - len(patch)) + tuple(patch)
    shape = "x".join(map(str, lattice.shape))
    if len(full) != lattice.dimension or any(
        p < 1 or length % p for p, length in zip(full, lattice.shape, strict=True)
    ):
        raise ValueError(f"patch={'x'.join(map(str, patch))} does not divide the {shape} lattice")
    blocks = np.arange(lattice.n_sites).reshape(
        [n for p, L in zip(full, lattice.shape, strict=True) for n in (L // p, p)]
    )
    axes = [*range(0, 2 * lattice.dimension, 2), *range(1, 2 * lattice.dimension, 2)]
    return Tokens(blocks.transpose(axes).reshape(-1, int(np.prod(full))), full, lattice)


def group_tokens(n_spins: int, k: int) -> Tokens:
    """Groups of k consecutive spins of a graph; ValueError when k does not divide n_spins."""
    if k < 1 or n_spins % k:
        raise ValueError(f"patch={k} does not divide the {n_spins} spins into groups")
    return Tokens(np.arange(n_spins).reshape(-1, k))


def tokens_for(hamiltonian: Hamiltonian, patch: tuple[int, ...] | None = None, rows: bool = False) -> Tokens:
    """Tokens of a Hamiltonian: patches on a lattice, groups on a graph; a sensible size when `patch` is None.

    rows: of a single row by default, for a prior that goes row by row.

    The default is the largest token of at most 8 spins, on a lattice the one with the fewest rows not above its
    columns: wide patches train better than tall ones (arXiv:2604.27738).
    """
    lattice = hamiltonian.lattice
    if lattice is None:
        if patch is not None and len(patch) != 1:
            raise ValueError(f"patch={'x'.join(map(str, patch))}: a graph takes one number, the spins of a group")
        sizes = [k for k in range(1, DEFAULT_SPINS_A_TOKEN + 1) if hamiltonian.n_spins % k == 0]
        return group_tokens(hamiltonian.n_spins, patch[0] if patch else sizes[-1])
    if patch is not None:
        return patch_tokens(lattice, patch)
    return patch_tokens(lattice, _default_patch(lattice.shape, rows))


def _default_patch(shape: tuple[int, ...], rows: bool) -> tuple[int, ...]:
    if rows:
        shape = (1,) * (len(shape) - 1) + shape[-1:]
    axes = [[p for p in range(1, DEFAULT_SPINS_A_TOKEN + 1) if length % p == 0] for length in shape]
    choices = [p for p in np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(shape)).tolist()
               if np.prod(p) <= DEFAULT_SPINS_A_TOKEN]  # fmt: skip
    # Most spins first, then the most compact shape, then wide rather than tall.
    return tuple(max(choices, key=lambda p: (np.prod(p), -sum(p), p[::-1])))
