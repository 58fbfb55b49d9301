"""Wolff cluster updates of ferromagnets on any graph: all J > 0, two-spin interactions, no field.

A cluster grows from a random site through parallel neighbours with probability 1 - exp(-2 beta J) and is flipped.
Wolff, Phys. Rev. Lett. 62, 361 (1989).
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

from mc.kernels.local_field import energy
from mc.kernels.random_streams import advance, uniform


@njit(cache=True, nogil=True)
def update_replica(spins, beta, stream, start, coupling, others, stack, n_clusters, n_flips):
    """Flip clusters of one replica (N,) int8 until at least n_clusters clusters and n_flips spins are flipped.

    stack: room for N sites, int32. Returns (clusters, flipped spins). A rule that stops after n_flips spins looks at
    the state, so it is for the warm-up only; with n_flips = 0 the number of clusters is fixed and the law is kept.
    """
    s0, s1, s2, s3 = stream[0], stream[1], stream[2], stream[3]
    strength = 0.0
    probability = 0.0
    clusters = 0
    flipped = 0
    while clusters < n_clusters or flipped < n_flips:
        word, s0, s1, s2, s3 = advance(s0, s1, s2, s3)
        seed = np.int32(uniform(word) * spins.shape[0])
        old = spins[seed]
        spins[seed] = -old  # a flipped spin is its own mark of belonging to the cluster
        stack[0] = seed
        depth = 1
        while depth > 0:
            depth -= 1
            site = stack[depth]
            flipped += 1
            for term in range(start[site], start[site + 1]):
                other = others[term]
                if spins[np.uint32(other)] == old:
                    if coupling[term] != strength:  # equal couplings, the usual case, take one exponential in all
                        strength = coupling[term]
                        probability = -math.expm1(-2.0 * beta * strength)
                    word, s0, s1, s2, s3 = advance(s0, s1, s2, s3)
                    if uniform(word) < probability:
                        spins[np.uint32(other)] = -old
                        stack[depth] = other
                        depth += 1
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
