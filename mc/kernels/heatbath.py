"""Heat bath (Gibbs sampling, Glauber rates): each spin is drawn anew from its law given all others, in site order.

A spin in the field f is flipped with probability 1 / (1 + exp(2 beta s f)). Glauber, J. Math. Phys. 4, 294 (1963).
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

from mc.kernels.local_field import local_field
from mc.kernels.random_streams import advance, uniform

CELLS = 16  # of the table, per unit of beta dE
RANGE = 40  # beyond it the exponential is taken
FLIP_PROBABILITY = 1.0 / (1.0 + np.exp(np.arange(-RANGE * CELLS, RANGE * CELLS + 2) / CELLS))


@njit(cache=True, nogil=True, error_model="numpy")
def flips(u, x):
    """Whether the uniform number u is below 1 / (1 + exp(x)).

    A table bounds the probability from both sides, and only a number between the bounds (one in about a hundred)
    asks for the exponential.
    """
    if abs(x) < RANGE:
        cell = np.uint32((x + RANGE) * CELLS)
        if u >= FLIP_PROBABILITY[cell]:
            return False
        if u < FLIP_PROBABILITY[cell + np.uint32(1)]:
            return True
    return u * (1.0 + math.exp(x)) < 1.0


@njit(cache=True, nogil=True, error_model="numpy")
def sweep_replica(spins, beta, stream, start, coupling, others, n_sweeps):
    """n_sweeps sweeps of one replica (N,) int8 in place; returns (number of flips, change of the energy)."""
    s0, s1, s2, s3 = stream[0], stream[1], stream[2], stream[3]
    accepted = 0
    change = 0.0
    for _ in range(n_sweeps):
        for site in range(spins.shape[0]):
            cost = 2.0 * np.float64(spins[site]) * local_field(site, spins, start, coupling, others)
            word, s0, s1, s2, s3 = advance(s0, s1, s2, s3)
            if flips(uniform(word), beta * cost):
                spins[site] = -spins[site]
                change += cost
                accepted += 1
    stream[0], stream[1], stream[2], stream[3] = s0, s1, s2, s3
    return accepted, change


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def sweep(spins, energies, betas, streams, start, coupling, others, n_sweeps):
    """n_sweeps heat-bath sweeps of every replica, in place, replicas shared among threads.

    spins (R, N) int8; energies (R,) float64, kept up to date; betas (R,) in 1 / energy unit; streams (R, 4) uint64;
    start, coupling, others from `local_field.kernel_arrays`. Returns the number of flips of each replica, (R,) int64.
    The result does not depend on the number of threads.
    """
    accepted = np.zeros(spins.shape[0], np.int64)
    for replica in prange(spins.shape[0]):
        count, change = sweep_replica(
            spins[replica], betas[replica], streams[replica], start, coupling, others, n_sweeps
        )
        accepted[replica] = count
        energies[replica] += change
    return accepted
