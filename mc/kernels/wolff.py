"""Wolff cluster updates of ferromagnets on any graph: all J > 0, two-spin interactions, no field.

A cluster grows from a random site through parallel neighbours with probability 1 - exp(-2 beta J) and is flipped.
Wolff, Phys. Rev. Lett. 62, 361 (1989).

With one J for all bonds, growth has no branch that depends on a spin or a random number, as each would be predicted
wrong every third time:

* sites are taken from a queue in the order in which they came, so that a processor works on several at once;
* a neighbour whose bond is closed is replaced by the site itself, which is in the cluster already; the place is then
  written, and put at the end of the queue, whatever was there: the end moves on only where a spin joined;
* one random word decides four or six bonds (`open_bonds`).
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

from mc.kernels.local_field import energy
from mc.kernels.metropolis import below_exp
from mc.kernels.random_streams import advance, uniform

U0, U1, U2, U3, U4, U5, U64 = (np.uint64(number) for number in (0, 1, 2, 3, 4, 5, 64))
# The highest bit of each of the parts into which a random word is split, one part a bond.
FOUR = tuple(np.uint64(1 << bit) for bit in (15, 31, 47, 63))
SIX = tuple(np.uint64(1 << bit) for bit in (9, 19, 29, 39, 49, 59))


@njit(cache=True, nogil=True)
def all_equal(coupling):
    """Whether all couplings are equal; looks at each, as a loop without an exit is many times faster."""
    different = False
    for term in range(coupling.shape[0]):
        different |= coupling[term] != coupling[0]
    return not different


@njit(cache=True, nogil=True)
def common_degree(start):
    """The number of terms of each site, or 0 where it varies."""
    irregular = False
    for site in range(start.shape[0]):
        irregular |= start[site] != start[1] * site
    return 0 if irregular else start[1]


@njit(cache=True, nogil=True)
def threshold(beta, strength):
    """The probability 1 - exp(-2 beta J) of an open bond between parallel spins, in units of 2^-64, rounded down."""
    probability = -math.expm1(-2.0 * beta * strength)
    return np.uint64(probability * 2.0**64) if probability < 1.0 else ~U0


@njit(cache=True, nogil=True)
def open_bonds(limit, parts, s0, s1, s2, s3):
    """One bond for each of `parts`, open with probability limit / 2^64: (bits of `parts` where open, s0, s1, s2, s3).

    parts: FOUR or SIX; other bits of the result mean nothing. The bits of a part below its highest decide its bond.
    Where they equal the upper bits of the limit, another word is compared with the next bits of the limit, and so on:
    no bit of the limit is lost. Once in 8192 calls it takes more than one word for FOUR, once in 85 for SIX.
    """
    width = U64 // np.uint64(len(parts))
    highest = U0
    for part in parts:
        highest |= part
    one, lower = highest >> (width - U1), highest - (highest >> (width - U1))
    word, s0, s1, s2, s3 = advance(s0, s1, s2, s3)
    # No borrow passes from one part to the next: highest bit + bits of the limit - bits of the word is positive.
    bonds = ((limit >> (U64 - width + U1)) * one | highest) - (word & lower)
    undecided = ~((bonds & lower) + lower) & highest
    while undecided:
        limit <<= width - U1
        word, s0, s1, s2, s3 = advance(s0, s1, s2, s3)
        digits = ((limit >> (U64 - width + U1)) * one | highest) - (word & lower)
        bonds &= digits | ~undecided
        undecided &= ~((digits & lower) + lower)
        if limit == U0:
            bonds &= ~undecided
            undecided = U0
    return bonds, s0, s1, s2, s3


@njit(cache=True, nogil=True)
def grow(spins, old, new, limit, parts, start, others, queue, head, tail, s0, s1, s2, s3):
    """Grow the cluster of the sites queue[head:tail], whose spins are `new` already, through bonds to spins `old`.

    limit: see `threshold`. parts: FOUR or SIX, the bonds decided at once; either will do for any graph with as many
    terms. start: None says that each site has just as many neighbours, which is faster by a quarter. queue: int32;
    growth stops before a site whose neighbours may not find room. Spins that join become `new` and enter the queue.
    Returns (head, tail, s0, s1, s2, s3), head and tail uint64.
    """
    count = np.uint64(len(parts))
    width = U64 // count
    room, last = np.uint64(queue.shape[0]), np.uint64(others.shape[0]) - count
    highest = U0
    for part in parts:
        highest |= part
    while head < tail:
        site = np.uint32(queue[head])
        if start is None:
            term = np.uint64(site) * count
            end = term + count
        else:
            term, end = np.uint64(start[site]), np.uint64(start[np.uint64(site) + U1])
        if tail + (end - term) >= room:  # a part without a bond writes behind all that join
            break
        head += U1
        while term < end:
            bonds, s0, s1, s2, s3 = open_bonds(limit, parts, s0, s1, s2, s3)
            if end - term < count:  # the terms that follow belong to other sites, or do not exist
                bonds &= highest >> (width * (count - (end - term)))
                if term > last:
                    bonds <<= width * (term - last)
                    term = last
            other_0, other_1 = np.uint32(others[term]), np.uint32(others[term + U1])
            other_2, other_3 = np.uint32(others[term + U2]), np.uint32(others[term + U3])
            place_0 = other_0 if bonds & parts[0] else site
            place_1 = other_1 if bonds & parts[1] else site
            place_2 = other_2 if bonds & parts[2] else site
            place_3 = other_3 if bonds & parts[3] else site
            was_0, was_1, was_2, was_3 = spins[place_0], spins[place_1], spins[place_2], spins[place_3]
            place_4, place_5, was_4, was_5 = site, site, new, new
            if len(parts) == 6:
                other_4, other_5 = np.uint32(others[term + U4]), np.uint32(others[term + U5])
                place_4 = other_4 if bonds & parts[4 % len(parts)] else site
                place_5 = other_5 if bonds & parts[5 % len(parts)] else site
                was_4, was_5 = spins[place_4], spins[place_5]
                spins[place_4] = spins[place_5] = new
            spins[place_0] = spins[place_1] = spins[place_2] = spins[place_3] = new
            queue[tail] = place_0
            tail += np.uint64(was_0 == old)
            queue[tail] = place_1
            tail += np.uint64(was_1 == old)
            queue[tail] = place_2
            tail += np.uint64(was_2 == old)
            queue[tail] = place_3
            tail += np.uint64(was_3 == old)
            if len(parts) == 6:
                queue[tail] = place_4
                tail += np.uint64(was_4 == old)
                queue[tail] = place_5
                tail += np.uint64(was_5 == old)
            term += count
    return head, tail, s0, s1, s2, s3


@njit(cache=True, nogil=True)
def grow_uneven(spins, old, new, beta, start, coupling, others, queue, head, tail, s0, s1, s2, s3):
    """As `grow`, for any couplings and without the need of more room than N sites."""
    while head < tail:
        site = np.uint32(queue[head])
        head += U1
        for term in range(start[site], start[np.uint64(site) + U1]):
            other = np.uint32(others[term])
            if spins[other] == old:
                word, s0, s1, s2, s3 = advance(s0, s1, s2, s3)
                if not below_exp(uniform(word), 2.0 * beta * coupling[term]):
                    spins[other] = new
                    queue[tail] = other
                    tail += U1
    return tail, s0, s1, s2, s3


@njit(cache=True, nogil=True)
def grow_any(spins, old, new, even, degree, beta, limit, start, coupling, others, queue, head, tail, s0, s1, s2, s3):
    """The whole cluster of queue[head:tail] by the fastest way: (end of the queue, s0, s1, s2, s3).

    even: whether all couplings are equal, then limit: their `threshold`; degree: see `common_degree`.
    """
    if even and degree == 4:
        head, tail, s0, s1, s2, s3 = grow(
            spins, old, new, limit, FOUR, None, others, queue, head, tail, s0, s1, s2, s3
        )
    elif even and degree == 6:
        head, tail, s0, s1, s2, s3 = grow(
            spins, old, new, limit, SIX, None, others, queue, head, tail, s0, s1, s2, s3
        )
    elif even and others.shape[0] >= 4:
        head, tail, s0, s1, s2, s3 = grow(
            spins, old, new, limit, FOUR, start, others, queue, head, tail, s0, s1, s2, s3
        )
    return grow_uneven(spins, old, new, beta, start, coupling, others, queue, head, tail, s0, s1, s2, s3)


@njit(cache=True, nogil=True)
def update_replica(spins, beta, stream, start, coupling, others, stack, n_clusters, n_flips):
    """Flip clusters of one replica (N,) int8 until at least n_clusters clusters and n_flips spins are flipped.

    stack: room for N sites, int32. Returns (clusters, flipped spins). A rule that stops after n_flips spins looks at
    the state, so it is for the warm-up only; with n_flips = 0 the number of clusters is fixed and the law is kept.
    """
    s0, s1, s2, s3 = stream[0], stream[1], stream[2], stream[3]
    even, degree = all_equal(coupling), common_degree(start)
    limit = threshold(beta, coupling[0]) if coupling.shape[0] else U0
    clusters = 0
    flipped = 0
    while clusters < n_clusters or flipped < n_flips:
        word, s0, s1, s2, s3 = advance(s0, s1, s2, s3)
        seed = np.int32(uniform(word) * spins.shape[0])
        old = spins[seed]
        new = np.int8(-old)
        spins[seed] = new  # a flipped spin is its own mark of belonging to the cluster
        stack[0] = seed
        tail, s0, s1, s2, s3 = grow_any(
            spins, old, new, even, degree, beta, limit, start, coupling, others, stack, U0, U1, s0, s1, s2, s3
        )
        flipped += np.int64(tail)
        clusters += 1
    stream[0], stream[1], stream[2], stream[3] = s0, s1, s2, s3
    return clusters, flipped


@njit(cache=True, nogil=True, parallel=True)
def update(spins, energies, betas, streams, constant, start, coupling, others, n_updates):
    """n_updates clusters of every replica, in place, replicas shared among threads.

    spins (R, N) int8; energies (R,) float64, computed anew at the end; betas (R,) >= 0; streams (R, 4) uint64;
    constant: of the Hamiltonian; start, coupling, others from `local_field.kernel_arrays`. Returns the summed
    cluster sizes, (R,) int64. The caller makes sure that the model is a ferromagnet (`is_ferromagnet`).
    """
    sizes = np.zeros(spins.shape[0], np.int64)
    for replica in prange(spins.shape[0]):
        stack = np.empty(spins.shape[1], np.int32)
        _, flipped = update_replica(
            spins[replica], betas[replica], streams[replica], start, coupling, others, stack, n_updates, 0
        )
        sizes[replica] = flipped
        energies[replica] = energy(spins[replica], constant, start, coupling, others)
    return sizes
