"""What every update rule asks of an energy function: the field on a spin, and the energy of a state.

Kernels read three arrays (`kernel_arrays`): the terms of site i are start[i]:start[i + 1], with strengths coupling
(n_terms,) float64 and other sites in `others`, where -1 ends a product. `others` is (n_terms,) when no interaction
has more than two spins, else (n_terms, width): Numba compiles each case by itself, and without the inner loop over
columns the field of a bond model takes half the time.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from mc.hamiltonian import InteractionTable


def kernel_arrays(table: InteractionTable) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(start, coupling, others) of a Hamiltonian as the kernels want them, others flat for bonds and fields."""
    others = table.others[:, 0] if table.others.shape[1] == 1 else table.others
    return table.start, table.coupling, np.ascontiguousarray(others)


def typical_fields(start: np.ndarray, coupling: np.ndarray) -> np.ndarray:
    """Root mean square over random states of the field on each site, sqrt(sum of J^2), shape (N,) float64.

    It says where Metropolis gives way to the heat bath (`mc.kernels.metropolis`), so it is 0, which is always, for a
    site of two terms equally strong. Half the flips of a ring of such sites cost nothing; accepting all of these in a
    fixed order never reaches the Boltzmann law.
    """
    owner = np.repeat(np.arange(len(start) - 1), np.diff(start))
    squares = np.bincount(owner, weights=coupling**2, minlength=len(start) - 1)
    two = np.flatnonzero(np.diff(start) == 2)
    squares[two[np.abs(coupling[start[two]]) == np.abs(coupling[start[two] + 1])]] = 0.0
    return np.sqrt(squares)


@njit(cache=True, nogil=True)
def product_of(term, spins, others):
    """Product of the other spins of a term, +1 or -1; +1 for a field."""
    if others.ndim == 1:
        other = others[term]
        # The cast tells the compiler that the index is not negative (it would count from the end otherwise).
        return np.int64(1) if other < 0 else np.int64(spins[np.uint32(other)])
    product = np.int64(1)
    for column in range(others.shape[1]):
        other = others[term, column]
        if other < 0:
            break
        product *= spins[np.uint32(other)]
    return product


@njit(cache=True, nogil=True)
def local_field(site, spins, start, coupling, others):
    """Field f = sum over the terms of `site` of J prod of the other spins: flipping the spin changes E by 2 s f.

    spins: (N,) int8. Returns float64 in the energy unit of the couplings.
    """
    field = 0.0
    for term in range(start[site], start[site + 1]):
        field += coupling[term] * np.float64(product_of(term, spins, others))
    return field


@njit(cache=True, nogil=True)
def energy(spins, constant, start, coupling, others):
    """Energy of one state (N,) int8, float64; an exact sum where couplings are multiples of 2^-32 (all our models).

    Each interaction is listed once for each of its sites, its other sites in ascending order: it counts where the
    owner is the smallest.
    """
    total = constant
    for site in range(spins.shape[0]):
        field = 0.0
        for term in range(start[site], start[site + 1]):
            first = others[term] if others.ndim == 1 else others[term, 0]
            if first < 0 or first > site:
                field += coupling[term] * np.float64(product_of(term, spins, others))
        total -= np.float64(spins[site]) * field
    return total
