"""Metropolis sweeps of one replica of unconstrained vector spins under the loss energy, with all its parts kept.

    E = (1/2) sum_i |s_i - R f_i / |f_i||^2,    f_i = x_i + sum_j J_ij s_j

J is taken as it is, asymmetric and with its diagonal. Honkoop (Leiden 2025), eq. 3.4, with the factor 1/2 of its
code, which recomputes E, O(N^2 D), for each trial. Moving s_k by d changes every f_i by J_ik d, hence

    |f_i|^2 by 2 J_ik f_i.d + J_ik^2 |d|^2    and    s_i.f_i by J_ik s_i.d, that of k by J_kk (s_k.d + |d|^2) + f_k.d,

so the products of d with all s_i and f_i give the new energy, O(N D). Where f_i is zero there is no target, and
R f_i / |f_i| counts as zero.

Arrays of all functions, C-contiguous float64: spins s and targets f (before they are normalised) (N, D), changed in
place; couplings_T (N, N), the transpose of J; fields x (N, D). Energies in units of J, beta in 1/J. Nothing is
checked.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from mc.kernels.gaussian import FAST, dot, fill_normals
from mc.kernels.loss_sites import (
    BATCH,
    ROWS,
    W,
    accept,
    energy_of_targets,
    fill_table,
    move_targets,
    prepare,
    product,
    table_width,
    take_targets,
    trial,
)
from mc.kernels.sphere import FLIP, GLOBAL, LOCAL, PERPENDICULAR, accepts, choose, rotate


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def target_fields(spins, fields, couplings_T, out):
    """f_i = x_i + sum_j J_ij s_j of spins (N, D) into out (N, D)."""
    n_spins, n_components = spins.shape
    for i in range(n_spins):
        for k in range(n_components):
            out[i, k] = fields[i, k]
    for j in range(n_spins):
        for i in range(n_spins):
            coupling = couplings_T[j, i]
            for k in range(n_components):
                out[i, k] += coupling * spins[j, k]


@njit(cache=True, nogil=True, error_model="numpy")
def loss_energy(spins, targets, radius):
    """E of spins (N, D) with their targets f (N, D); radius R > 0."""
    doubled = 0.0
    for i in range(spins.shape[0]):
        square = dot(targets[i], targets[i])
        scale = radius / math.sqrt(square) if square > 0.0 else 0.0
        for k in range(spins.shape[1]):
            doubled += (spins[i, k] - scale * targets[i, k]) ** 2
    return 0.5 * doubled


@njit(cache=True, nogil=True, error_model="numpy")
def metropolis_sweep(spins, targets, couplings_T, beta, radius, step, shares, state):
    """A trial of every spin, in order: (energy change, accepted moves, tried moves), the last two of LOCAL ones.

    shares (4,) float64, probabilities of the proposals: LOCAL s + step n, with n normal, so that step is the standard
    deviation of a component; GLOBAL a fresh s, normal with variance R^2 / D a component, accepted by Metropolis and
    Hastings (Biometrika 57, 97 (1970)); FLIP -s; PERPENDICULAR a turn of s by an angle step * normal. Turns
    are not counted: hot spins take them at any step, and a step that grew with them would stop LOCAL moves. beta > 0,
    radius R > 0, state (4,) uint64 the stream.
    """
    n_spins, n_components = spins.shape
    spread = radius / math.sqrt(n_components)
    width = table_width(n_spins)
    numbers = np.empty((2 * n_components + ROWS) * width + W)
    begin = fill_table(spins, targets, numbers)
    energy = energy_of_targets(numbers, begin, width, n_components, radius)
    moves, kinds = np.zeros((BATCH + 1, n_components)), np.zeros(BATCH, np.int64)
    total, accepted, tried = 0.0, 0, 0
    for first in range(0, n_spins, BATCH):
        for m in range(min(BATCH, n_spins - first)):
            kinds[m] = choose(shares, state)
            propose(kinds[m], spins[first + m], step, spread, moves[m], state)
        prepare(numbers, begin, width, couplings_T, first, moves)
        waiting = BATCH  # an accepted move that the targets have not seen, or none
        for m in range(min(BATCH, n_spins - first)):
            site, kind = first + m, kinds[m]
            length = product(moves, m, m)
            along, new_energy = trial(numbers, begin, width, n_components, m, site, length, radius)
            change = along + 0.5 * length + (new_energy - energy)
            cost = beta * change
            if kind == GLOBAL:  # (|s'|^2 - |s|^2) / (2 spread^2): by what the proposal prefers s to s'
                cost -= (along + 0.5 * length) / spread**2
            stepped = kind == LOCAL
            tried += stepped
            if accepts(cost, state):
                total += change
                accepted += stepped
                energy = new_energy
                for k in range(n_components):
                    spins[site, k] += moves[m, k]
                accept(numbers, begin, width, moves, m, site)
                if waiting < BATCH:
                    move_targets(numbers, begin, width, moves, waiting, m)
                    waiting = BATCH
                else:
                    waiting = m
        if waiting < BATCH:
            move_targets(numbers, begin, width, moves, waiting, BATCH)
    take_targets(numbers, begin, width, targets)
    return total, accepted, tried


@njit(cache=True, nogil=True, error_model="numpy")
def propose(kind, spin, step, spread, move, state):
    """s' - s of a proposal for a spin s (D,) into move (D,); spread: standard deviation of a component of GLOBAL."""
    if kind == FLIP:
        for k in range(spin.shape[0]):
            move[k] = -2.0 * spin[k]
        return
    if kind == PERPENDICULAR:
        rotate(spin, move, step, state)
    else:
        fill_normals(move, state)
    for k in range(spin.shape[0]):
        if kind == LOCAL:
            move[k] *= step
        elif kind == GLOBAL:
            move[k] = spread * move[k] - spin[k]
        else:
            move[k] -= spin[k]
