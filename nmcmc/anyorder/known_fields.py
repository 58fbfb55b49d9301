"""Local fields from the known spins alone: the physics prior of any subset, and the heat-bath law of a whole state.

A term of a site counts where all its other spins are known: an unknown one is 0 in the product. Along an order, known
means drawn before.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from mc.hamiltonian import Hamiltonian
from mc.kernels.local_field import kernel_arrays, local_field


class KnownFields:
    """Fields f in the energy unit: ln p(+)/p(-) of a spin, given the known ones and no others, is 2 beta f."""

    def __init__(self, hamiltonian: Hamiltonian):
        self._table, self._arrays = hamiltonian.table, kernel_arrays(hamiltonian.table)

    def along(self, spins: np.ndarray, rank: np.ndarray) -> np.ndarray:
        """(n, N) float64 for states (n, N) of +-1: at each site from those of lower rank (n, N)."""
        return _along(np.ascontiguousarray(spins, np.int8), np.ascontiguousarray(rank, np.int32), *self._table)

    def given(self, partial: np.ndarray) -> np.ndarray:
        """(n, N) float64 for partial states (n, N), 0 where nothing is known: from all other known spins."""
        return _given(np.ascontiguousarray(partial, np.int8), *self._arrays)

    def at(self, partial: np.ndarray, site: int) -> np.ndarray:
        """(n,) float64 at one site of partial states (n, N)."""
        return self.at_each(partial, np.full(len(partial), site))

    def at_each(self, partial: np.ndarray, sites: np.ndarray) -> np.ndarray:
        """(n,) float64 at a site of its own, `sites` (n,), of each partial state (n, N)."""
        return _at_each(np.ascontiguousarray(partial, np.int8), np.asarray(sites, np.int64), *self._arrays)


@njit(cache=True, nogil=True)
def _along(spins, rank, start, coupling, others):
    fields = np.zeros(spins.shape)
    for state in range(spins.shape[0]):
        for site in range(spins.shape[1]):
            own, field = rank[state, site], 0.0
            for term in range(start[site], start[site + 1]):
                product = np.int64(1)
                for column in range(others.shape[1]):
                    other = others[term, column]
                    if other < 0:
                        break
                    if rank[state, other] >= own:
                        product = np.int64(0)
                        break
                    product *= spins[state, other]
                field += coupling[term] * product
            fields[state, site] = field
    return fields


@njit(cache=True, nogil=True)
def _given(partial, start, coupling, others):
    fields = np.zeros(partial.shape)
    for state in range(partial.shape[0]):
        for site in range(partial.shape[1]):
            fields[state, site] = local_field(site, partial[state], start, coupling, others)
    return fields


@njit(cache=True, nogil=True)
def _at_each(partial, sites, start, coupling, others):
    fields = np.zeros(partial.shape[0])
    for state in range(partial.shape[0]):
        fields[state] = local_field(sites[state], partial[state], start, coupling, others)
    return fields
