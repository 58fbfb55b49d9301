"""Interactions that hold two given spins of opposite sign: what a swap of the two leaves as it is.

Flipping spins i and j costs 2 l_i + 2 l_j, less what interactions of both contribute to either sum: their products
stay. With w the sum of J prod s over these, a swap costs 2 (l_i + l_j - 2 w). (l: see `mc.kernels.local_energies`.)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from mc.hamiltonian import Hamiltonian

U1, U2 = np.uint64(1), np.uint64(2)


class SharedTerms(NamedTuple):
    """Interactions by pair of sites; W is the highest order less 2, at least 2.

    Sites i and j share the interactions shared[p]:shared[p + 1], p = pair[i, j], of strength `strength` and with W
    further sites each, N where there are fewer. Pair 0 shares none.
    """

    pair: np.ndarray  # (N, N) uint32
    shared: np.ndarray  # (pairs + 2,) uint64
    strength: np.ndarray  # (entries,) int64, 2 J in steps
    further: np.ndarray  # (2 entries,) uint32, or (entries, W) for W > 2: Numba compiles each case by itself


def shared_terms(hamiltonian: Hamiltonian, bits: int) -> SharedTerms:
    """The table of a Hamiltonian with couplings in steps of 2^-bits."""
    n_spins, room = hamiltonian.n_spins, max(hamiltonian.max_order - 2, 2)
    keys, strengths, rests = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros((0, room), np.uint32)]
    for order, (sites, couplings) in hamiltonian.interactions.items():
        whole = 2 * np.rint(np.ldexp(couplings, bits)).astype(np.int64)
        for a in range(order):
            for b in range(a + 1, order):
                rest = np.full((len(sites), room), n_spins, np.uint32)
                rest[:, : order - 2] = np.delete(sites, (a, b), axis=1)
                keys.append(sites[:, a] * np.int64(n_spins) + sites[:, b])
                strengths.append(whole)
                rests.append(rest)
    key = np.concatenate(keys)
    by_pair = np.argsort(key, kind="stable")
    found, counts = np.unique(key, return_counts=True)
    pair = np.zeros((n_spins, n_spins), np.uint32)
    low, high = np.divmod(found, n_spins)
    pair[low, high] = pair[high, low] = 1 + np.arange(len(found))
    rest = np.concatenate(rests)[by_pair]
    return SharedTerms(
        pair=pair,
        shared=np.concatenate([[0, 0], np.cumsum(counts)]).astype(np.uint64),
        strength=np.concatenate(strengths)[by_pair],
        further=rest.reshape(-1) if room == 2 else rest,
    )


@njit(cache=True, nogil=True, error_model="numpy")
def twice_shared(i, j, down, pair, shared, strength, further):
    """2 w of two sites (uint64) of opposite spins, in steps; down (N + 1,) int64, the last one 0."""
    number, result = np.uint64(pair[i, j]), np.int64(0)
    for entry in range(shared[number], shared[number + U1]):
        if further.ndim == 1:
            at = U2 * entry
            sign = down[np.uint64(further[at])] ^ down[np.uint64(further[at + U1])]
        else:
            sign = np.int64(0)
            for column in range(further.shape[1]):
                sign ^= down[np.uint64(further[entry, column])]
        result -= (strength[entry] ^ sign) - sign
    return result
