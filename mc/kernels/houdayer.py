"""Houdayer's cluster move of two replicas of one Hamiltonian at one temperature.

Houdayer, Eur. Phys. J. B 22, 479 (2001); on any graph: Zhu, Ochoa, Katzgraber, Phys. Rev. Lett. 115, 077201 (2015).
With the site overlap q_i = s_i^a s_i^b, a random site with q = -1 is chosen, and the connected cluster of sites with
q = -1 around it is exchanged between the replicas. Sites are connected where they share an interaction.

Why the product law exp(-beta (E_a + E_b)) is kept. An interaction has either all or none of its q = -1 sites in the
cluster. Where it has all of them, the exchange makes its product in replica a the former one in replica b and the
other way round; where none, neither changes. So E_a + E_b does not change, whatever the orders, signs and fields. Nor
does any q_i: the same cluster, of size c, is chosen in both directions, with probability c / (number of q = -1
sites) each. The exchange is its own inverse, so the move is in detailed balance with probability 1 of acceptance.

Without a field and other odd interactions, q = +1 serves as well as q = -1: it is the same move with one replica
turned over before and back afterwards, which costs no energy. The sign with fewer sites is taken (q = -1 in a tie),
as its clusters are less likely to span the system. This choice too depends only on the number of q = -1 sites, which
the move keeps. The replica has to be turned back: left as it is, q would never be mostly negative.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from mc.kernels.overlaps import popcount
from mc.kernels.random_streams import next_uniform

U0, U1, U56 = np.uint64(0), np.uint64(1), np.uint64(56)
LOWEST_BITS = np.uint64(0x0102040810204080)  # a product with it has the lowest bits of the eight bytes in its highest


@njit(cache=True, nogil=True)
def n_different(row_a, row_b):
    """Number of sites with q = -1."""
    count = 0
    for word in range(row_a.shape[0]):
        count += popcount(row_a[word] ^ row_b[word])
    return count


@njit(cache=True, nogil=True)
def minority_fraction(row_a, row_b, n_spins, symmetric):
    """Fraction of sites with q = -1, or with the rarer sign of q where `symmetric`: where this move may choose from.

    row_a, row_b: rows of bits (words,) uint64. Near the percolation threshold of the graph and beyond, the move
    exchanges nearly all of these sites and helps little.
    """
    count = n_different(row_a, row_b)
    return min(count, n_spins - count) / n_spins if symmetric else count / n_spins


@njit(cache=True, nogil=True)
def chosen_site(row, rank):
    """Site of the set bit number `rank` (from 0, below the number of set bits) of a row (words,) uint64."""
    word = 0
    while rank >= popcount(row[word]):
        rank -= popcount(row[word])
        word += 1
    bits = row[word]
    for _ in range(rank):
        bits &= bits - U1
    return 64 * word + popcount((bits & (~bits + U1)) - U1)


@njit(cache=True, nogil=True)
def take_cluster(site, count, open_sites, stack, start, others):
    """Clear the bytes of the cluster of `site` in open_sites (1: may be joined); returns the cluster's size.

    count: number of open sites, where growth may stop. No branch depends on an open site, as it would often be
    predicted wrong: a neighbour is written to the end of the queue in any case, and the end moves on where it was
    open. When all N sites are in the cluster, what is written over the last of them is read no more.
    """
    open_sites[site] = 0
    stack[0] = site
    head, tail, last = U0, U1, np.uint64(stack.shape[0] - 1)
    while head < tail and tail < np.uint64(count):
        own = np.uint32(stack[head])
        head += U1
        for term in range(np.uint64(start[own]), np.uint64(start[np.uint64(own) + U1])):
            if others.ndim == 1:
                other = others[term]
                place = own if other < 0 else np.uint32(other)
                stack[min(tail, last)] = place
                tail += np.uint64(open_sites[place])
                open_sites[place] = 0
            else:
                for column in range(others.shape[1]):
                    other = others[term, column]
                    place = own if other < 0 else np.uint32(other)
                    stack[min(tail, last)] = place
                    tail += np.uint64(open_sites[place])
                    open_sites[place] = 0
    return np.int64(tail)


@njit(cache=True, nogil=True)
def move(row_a, row_b, start, others, n_spins, symmetric, stream, stack):
    """One move of two replicas, in place; returns the number of sites exchanged, 0 where there is none to choose.

    row_a, row_b: rows of bits (words,) uint64 (`mc.kernels.batch`). start, others: from `local_field.kernel_arrays`,
    for interactions of any order. symmetric: E(-s) = E(s) (`Hamiltonian.is_z2_symmetric`). stream (4,) uint64.
    stack: room for N sites, int32. The energies of the replicas change, their sum does not.
    """
    n_words = row_a.shape[0]
    count = n_different(row_a, row_b)
    turned = U0
    if symmetric and 2 * count > n_spins:
        count = n_spins - count
        turned = ~U0
    if count == 0:
        return 0
    candidates, open_words = np.empty(n_words, np.uint64), np.empty(8 * n_words, np.uint64)
    open_sites = open_words.view(np.uint8)
    for word in range(n_words):
        candidates[word] = row_a[word] ^ row_b[word] ^ turned
    if n_spins & 63:
        candidates[n_words - 1] &= (U1 << np.uint64(n_spins & 63)) - U1
    for word in range(n_words):
        bits = candidates[word]
        for bit in range(64):
            open_sites[64 * word + bit] = np.uint8((bits >> np.uint64(bit)) & U1)
    site = chosen_site(candidates, np.int64(next_uniform(stream) * count))
    size = take_cluster(site, count, open_sites, stack[:n_spins], start, others)
    for word in range(n_words):
        left = U0
        for part in range(8):
            left |= ((open_words[8 * word + part] * LOWEST_BITS) >> U56) << np.uint64(8 * part)
        row_a[word] ^= candidates[word] ^ left
        row_b[word] ^= candidates[word] ^ left
    return size
