"""Local energies l_i = s_i f_i of one replica, kept up to date through flips, for interactions of any order.

A flip of spin i costs 2 l_i, so a proposal costs one look at l_i. It turns the sign of J prod s of every interaction
of i, so each other spin j of such an interaction has its l_j changed by -2 J prod s (the product before the flip).
All are whole numbers of steps of a power of two: sums are exact, nothing drifts, and l depends on the spins alone,
whatever led there. A step is at most 2^-51 of the largest sum of |J| on a site (2^-60 of that over all sites, where
this is more): couplings are rounded as float64 would round their sums, and multiples of 2^-32 not at all in any but
huge systems.

A replica is two arrays: down (N,) int64, 0 for spin +1 and -1 (all bits) for spin -1, and local (N,) int64, l_i in
steps. (x ^ down) - down is x times the spin.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from mc.hamiltonian import InteractionTable

FIELD_BITS, TERMS_BITS = 52, 61  # sums of |J| in steps stay below 2^52 on a site, below 2^61 over all sites and terms
U1, U2, U3 = np.uint64(1), np.uint64(2), np.uint64(3)


class Terms(NamedTuple):
    """The terms of each site, sorted by order; K is the highest order, at least 4.

    Those of order k are first[i, k - 1]:first[i, k] of site i; their other sites, k - 1 a term, begin at
    place[i, k - 1] of `others`.
    """

    first: np.ndarray  # (N, K + 1) uint64
    place: np.ndarray  # (N, K + 1) uint64
    doubled: np.ndarray  # (terms,) int64, 2 J in steps
    others: np.ndarray  # (all other sites,) uint32


def unit_of(table: InteractionTable) -> int:
    """Such b that a step of 2^-b is as fine as the sums allow."""
    owner = np.repeat(np.arange(len(table.start) - 1), np.diff(table.start))
    strength = np.abs(table.coupling)
    largest = np.bincount(owner, strength, 1).max()
    return min(FIELD_BITS - math.frexp(largest)[1], TERMS_BITS - math.frexp(strength.sum())[1])


def terms_of(table: InteractionTable, bits: int) -> Terms:
    """The terms of a Hamiltonian with couplings in steps of 2^-bits."""
    n_spins = len(table.start) - 1
    orders = 1 + (table.others >= 0).sum(axis=1)
    highest = max(4, int(orders.max(initial=0)))
    owner = np.repeat(np.arange(n_spins), np.diff(table.start))
    sorted_terms = np.lexsort((orders, owner))  # the table is so already; this says that it must be
    orders, others = orders[sorted_terms], table.others[sorted_terms]
    counts = np.bincount(owner * highest + orders - 1, minlength=n_spins * highest).reshape(n_spins, highest)

    def ends(sizes):
        """Where runs of such sizes begin and end, (N, K + 1), one after the other."""
        stops = np.cumsum(sizes).reshape(sizes.shape)
        return np.concatenate([stops[:, :1] - sizes[:, :1], stops], axis=1).astype(np.uint64)

    return Terms(
        first=ends(counts),
        place=ends(counts * np.arange(highest)),
        doubled=2 * np.rint(np.ldexp(table.coupling[sorted_terms], bits)).astype(np.int64),
        others=others[others >= 0].astype(np.uint32),
    )


@njit(cache=True, nogil=True, error_model="numpy")
def flip(site, local, down, terms):
    """Flip spin `site` (uint64) and bring the local energies up to date."""
    first, place, doubled, others = terms
    own, at = down[site], place[site, 1]
    local[site] = -local[site]
    down[site] = ~own
    for term in range(first[site, 1], first[site, 2]):
        a = np.uint64(others[at])
        sign = own ^ down[a]
        local[a] -= (doubled[term] ^ sign) - sign
        at += U1
    for term in range(first[site, 2], first[site, 3]):
        a, b = np.uint64(others[at]), np.uint64(others[at + U1])
        sign = own ^ down[a] ^ down[b]
        change = (doubled[term] ^ sign) - sign
        local[a] -= change
        local[b] -= change
        at += U2
    for term in range(first[site, 3], first[site, 4]):
        a, b, c = np.uint64(others[at]), np.uint64(others[at + U1]), np.uint64(others[at + U2])
        sign = own ^ down[a] ^ down[b] ^ down[c]
        change = (doubled[term] ^ sign) - sign
        local[a] -= change
        local[b] -= change
        local[c] -= change
        at += U3
    for order in range(np.uint64(5), np.uint64(first.shape[1])):
        rest = order - U1
        for term in range(first[site, rest], first[site, order]):
            sign = own
            for column in range(rest):
                sign ^= down[np.uint64(others[at + column])]
            change = (doubled[term] ^ sign) - sign
            for column in range(rest):
                local[np.uint64(others[at + column])] -= change
            at += rest


@njit(cache=True, nogil=True, error_model="numpy")
def fill(local, down, terms):
    """Local energies anew from the spins; returns the sum over interactions of J prod s, each once, in steps."""
    first, place, doubled, others = terms
    by_order = np.zeros(first.shape[1], np.int64)  # each interaction once for each of its sites, twice its value
    for i in range(down.shape[0]):
        site, field = np.uint64(i), np.int64(0)
        for order in range(U1, np.uint64(first.shape[1])):
            at, rest, own = place[site, order - U1], order - U1, np.int64(0)
            for term in range(first[site, rest], first[site, order]):
                sign = down[site]
                for column in range(rest):
                    sign ^= down[np.uint64(others[at + column])]
                own += (doubled[term] ^ sign) - sign
                at += rest
            by_order[order] += own
            field += own
        local[site] = field >> np.int64(1)
    result = np.int64(0)
    for order in range(1, first.shape[1]):
        result += by_order[order] // order
    return result >> np.int64(1)


@njit(cache=True, nogil=True)
def load_signs(down, row):
    """A row of bits (words,) uint64 as signs (N,) int64."""
    for site in range(down.shape[0]):
        down[site] = np.int64((row[site // 64] >> np.uint64(site % 64)) & U1) - np.int64(1)


@njit(cache=True, nogil=True)
def store_signs(down, row):
    """Signs (N,) int64 as a row of bits (words,) uint64."""
    row[:] = np.uint64(0)
    for site in range(down.shape[0]):
        row[site // 64] |= np.uint64(down[site] + 1) << np.uint64(site % 64)
