"""The ordered Markov boundary: which spins drawn before it a spin still depends on, for any graph and any order.

Spins are drawn one after the other. Given all that is drawn, spin n depends only on the past spins that have an
interaction with it, or are joined to it by a path of future spins: summing these out couples all that they touch
(arXiv:2606.22984, eq. 11-13). With open edges in row-major order these are the last L sites of a square, the last
L^2 of a cube; a periodic slowest axis adds the first row or layer, and a long-range model keeps the whole past.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mc.hamiltonian import Hamiltonian


@dataclass(frozen=True, eq=False)
class Boundary:
    """The boundaries of all spins; spins are named by their place in the order.

    start: (N + 1,) int64. past: (nnz,) int64; those of spin n are past[start[n]:start[n + 1]], ascending.
    """

    start: np.ndarray
    past: np.ndarray

    def of(self, n: int) -> np.ndarray:
        """The past spins that the n-th spin depends on, ascending."""
        return self.past[self.start[n] : self.start[n + 1]]

    @property
    def sizes(self) -> np.ndarray:
        """Number of spins in every boundary, (N,)."""
        return np.diff(self.start)


def ordered_boundary(hamiltonian: Hamiltonian, order: np.ndarray) -> Boundary:
    """The ordered Markov boundary of every spin of a Hamiltonian whose sites are drawn in `order` (N,).

    Spins are eliminated from the last to the first. Eliminating spin c links all of its boundary to the latest spin
    of it, so the boundary of n is its past neighbours and what is left of the boundaries whose latest spin is n. Time
    and memory are those of the result. For generic couplings every member counts; special ones may decouple some.

    Raises ValueError when `order` does not name every site once.
    """
    n_spins = hamiltonian.n_spins
    order = np.asarray(order)
    if order.shape != (n_spins,) or not np.array_equal(np.sort(order), np.arange(n_spins)):
        raise ValueError(f"order: shape {order.shape}, but every one of the {n_spins} sites is to be named once")
    place = np.empty(n_spins, np.int64)
    place[order] = np.arange(n_spins)
    begin, neighbours = _past_neighbours(hamiltonian, place)
    boundaries: list[np.ndarray] = [np.empty(0, np.int64)] * n_spins
    inherited: list[list[np.ndarray]] = [[] for _ in range(n_spins)]
    for n in range(n_spins - 1, -1, -1):
        own = neighbours[begin[n] : begin[n + 1]]
        boundaries[n] = np.unique(np.concatenate([own, *inherited[n]])) if inherited[n] else own
        inherited[n].clear()
        if len(boundaries[n]) > 1:
            inherited[boundaries[n][-1]].append(boundaries[n][:-1])
    start = np.zeros(n_spins + 1, np.int64)
    np.cumsum([len(boundary) for boundary in boundaries], out=start[1:])
    return Boundary(start, np.concatenate(boundaries))


def _past_neighbours(hamiltonian: Hamiltonian, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Spins of the past that share an interaction with each spin: starts (N + 1,) and places, ascending."""
    n_spins = hamiltonian.n_spins
    pairs = [np.empty(0, np.int64)]
    for order, (sites, _) in hamiltonian.interactions.items():
        places = np.sort(place[sites], axis=1)
        pairs += [places[:, b] * n_spins + places[:, a] for b in range(order) for a in range(b)]
    later, earlier = np.divmod(np.unique(np.concatenate(pairs)), n_spins)
    return np.searchsorted(later, np.arange(n_spins + 1)), earlier
