"""Metropolis updates in site order: a flip of cost dE is accepted with probability min(1, exp(-beta dE)).

Metropolis et al., J. Chem. Phys. 21, 1087 (1953). Where beta times the typical field of a site is below
`HEAT_BATH_BELOW`, that site takes the heat-bath probability instead. Metropolis in a fixed order accepts nearly
every flip there, so it turns all spins over in every sweep and randomises nothing: at beta = 0, or for spins without
any interaction, the relative sign of two spins would never change. The choice depends on beta and the site only,
never on the state, so every update keeps the Boltzmann law.

Each sweep ends with one heat-bath update of a site chosen at random, which is not counted. Metropolis in a fixed
order alone may never leave a set of states, as flips of no cost are all accepted; with this update every set that is
never left contains, with each state, all states that differ in one spin, so it is everything.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

from mc.kernels import heatbath
from mc.kernels.local_field import local_field
from mc.kernels.random_streams import advance, uniform

# Measured tau_int of the energy in sweeps, Metropolis / heat bath, where beta * typical field = 0.25: 2.1 / 0.54 (2D
# Ising), 1.1 / 0.53 (3D Gaussian glass), 0.86 / 0.53 (SK, N = 128); they are equal near 0.5 for all three.
HEAT_BATH_BELOW = 0.4
CELLS = 16  # of the table, per unit of beta dE
RANGE = 40  # beyond it the exponential is taken
EXPONENTIAL = np.exp(-np.arange(RANGE * CELLS + 2) / CELLS)


@njit(cache=True, nogil=True, error_model="numpy")
def below_exp(u, x):
    """Whether the uniform number u is below exp(-x), x >= 0; exp is taken only for u between two table entries."""
    if x < RANGE:
        cell = np.uint32(x * CELLS)
        if u >= EXPONENTIAL[cell]:
            return False
        if u < EXPONENTIAL[cell + np.uint32(1)]:
            return True
    return u < math.exp(-x)


@njit(cache=True, nogil=True, error_model="numpy")
def sweep_replica(spins, beta, stream, start, coupling, others, typical, n_sweeps):
    """n_sweeps sweeps of one replica (N,) int8 in place; returns (number of flips, change of the energy)."""
    s0, s1, s2, s3 = stream[0], stream[1], stream[2], stream[3]
    accepted = 0
    change = 0.0
    for _ in range(n_sweeps):
        for visit in range(spins.shape[0] + 1):
            site, stirs = visit, visit == spins.shape[0]
            if stirs:
                word, s0, s1, s2, s3 = advance(s0, s1, s2, s3)
                site = np.int64(uniform(word) * spins.shape[0])
            cost = 2.0 * np.float64(spins[site]) * local_field(site, spins, start, coupling, others)
            if stirs or beta * typical[site] < HEAT_BATH_BELOW:
                word, s0, s1, s2, s3 = advance(s0, s1, s2, s3)
                flip = heatbath.flips(uniform(word), beta * cost)
            elif cost <= 0.0:
                flip = True
            else:
                word, s0, s1, s2, s3 = advance(s0, s1, s2, s3)
                flip = below_exp(uniform(word), beta * cost)
            if flip:
                spins[site] = -spins[site]
                change += cost
                accepted += not stirs
    stream[0], stream[1], stream[2], stream[3] = s0, s1, s2, s3
    return accepted, change


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def sweep(spins, energies, betas, streams, start, coupling, others, typical, n_sweeps):
    """n_sweeps Metropolis sweeps of every replica, in place, replicas shared among threads.

    spins (R, N) int8; energies (R,) float64, kept up to date; betas (R,) in 1 / energy unit; streams (R, 4) uint64;
    start, coupling, others from `local_field.kernel_arrays`, typical (N,) from `local_field.typical_fields`. Returns
    the number of flips of each replica, (R,) int64. The result does not depend on the number of threads.
    """
    accepted = np.zeros(spins.shape[0], np.int64)
    for replica in prange(spins.shape[0]):
        count, change = sweep_replica(
            spins[replica], betas[replica], streams[replica], start, coupling, others, typical, n_sweeps
        )
        accepted[replica] = count
        energies[replica] += change
    return accepted
