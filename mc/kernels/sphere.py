"""Sweeps of one replica of vector spins of fixed norm R under the bilinear energy, with every local field kept.

    E = - (1/2) sum_{i != j} K_ij s_i.s_j - sum_i x_i.s_i,    l_i = x_i + sum_j K_ij s_j,    |s_i| = R

K is symmetric with a zero diagonal, so spin i does not enter its own field, and s_i -> s_i' changes E by
-(s_i' - s_i).l_i: O(D) for a proposal, O(N D) for a spin that has changed. Sites are visited in order.

Arrays of all functions, C-contiguous float64: spins and local (N, D), changed in place; exchange K (N, N); scratch of
at least D numbers; state (4,) uint64, the random stream. Energies in units of J, beta in 1/J. Nothing is checked.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from mc.kernels.gaussian import FAST, dot, draw_vmf, fill_normals, next_normal, uniform_direction
from mc.kernels.random_streams import next_uniform

LOCAL, GLOBAL, FLIP, PERPENDICULAR = 0, 1, 2, 3  # proposals, in the order of their shares


@njit(cache=True, nogil=True, error_model="numpy")
def choose(shares, state):
    """A proposal by its share; shares (4,) float64, probabilities that add up to 1."""
    if shares[LOCAL] >= 1.0:
        return LOCAL
    u = next_uniform(state)
    for kind in range(3):
        u -= shares[kind]
        if u < 0.0:
            return kind
    return PERPENDICULAR if shares[PERPENDICULAR] > 0.0 else LOCAL


@njit(cache=True, nogil=True, error_model="numpy")
def accepts(cost, state):
    """Whether a uniform number is below exp(-cost): Metropolis et al., J. Chem. Phys. 21, 1087 (1953)."""
    return cost <= 0.0 or next_uniform(state) < math.exp(-cost)


@njit(cache=True, nogil=True, error_model="numpy")
def rotate(spin, new, step, state):
    """A proposal PERPENDICULAR: spin (D,) turned by an angle step * normal towards a uniform perpendicular direction.

    new (D,) takes the result. The norm is kept, and the reverse turn has the same density. A spin zero stays.
    """
    fill_normals(new, state)
    square = dot(spin, spin)
    if square == 0.0:
        new[:] = 0.0
        return
    along = dot(new, spin) / square
    for k in range(spin.shape[0]):
        new[k] -= along * spin[k]
    angle = step * next_normal(state)
    across = dot(new, new)
    sine = math.sin(angle) * math.sqrt(square / across) if across > 0.0 else 0.0
    cosine = math.cos(angle)
    for k in range(spin.shape[0]):
        new[k] = cosine * spin[k] + sine * new[k]


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def replace(spins, local, exchange, site, new):
    """Put `new` (D,) in the place of a spin, and add what that changes to the local fields; `new` becomes s' - s."""
    n_spins, n_components = spins.shape
    for k in range(n_components):
        change = new[k] - spins[site, k]
        spins[site, k] = new[k]
        new[k] = change
    for i in range(n_spins):
        coupling = exchange[site, i]
        for k in range(n_components):
            local[i, k] += coupling * new[k]


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def energy_change(spins, local, site, new):
    """-(s' - s).l of a site, s' in `new` (D,)."""
    change = 0.0
    for k in range(new.shape[0]):
        change += (spins[site, k] - new[k]) * local[site, k]
    return change


@njit(cache=True, nogil=True, error_model="numpy")
def heatbath_sweep(spins, local, exchange, beta, radius, state, scratch):
    """Every spin drawn anew from its law in its local field, von Mises-Fisher; returns the energy change."""
    n_spins, n_components = spins.shape
    new = scratch[:n_components]
    total = 0.0
    for site in range(n_spins):
        draw_vmf(new, local[site], beta, radius, state)
        total += energy_change(spins, local, site, new)
        replace(spins, local, exchange, site, new)
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def metropolis_sweep(spins, local, exchange, beta, radius, step, shares, state, scratch):
    """A trial of every spin: (energy change, accepted moves, tried moves), the last two of those with a step.

    shares (4,) float64: probabilities of the proposals, all symmetric on the sphere:
    LOCAL s' ~ s + step R n / sqrt(D), n normal, brought back to norm R; GLOBAL any direction; FLIP -s;
    PERPENDICULAR a turn of s by an angle step * normal. LOCAL and PERPENDICULAR have a step and are counted.
    """
    n_spins, n_components = spins.shape
    new = scratch[:n_components]
    width = step * radius / math.sqrt(n_components)
    total, accepted, tried = 0.0, 0, 0
    for site in range(n_spins):
        kind = choose(shares, state)
        if kind == LOCAL:
            fill_normals(new, state)
            square = _displaced(spins, site, width, new)
            if square == 0.0:
                continue
            scale = radius / math.sqrt(square)
            for k in range(n_components):
                new[k] *= scale
        elif kind == GLOBAL:
            uniform_direction(new, radius, state)
        elif kind == FLIP:
            for k in range(n_components):
                new[k] = -spins[site, k]
        else:
            rotate(spins[site], new, step, state)
        change = energy_change(spins, local, site, new)
        stepped = kind in (LOCAL, PERPENDICULAR)
        tried += stepped
        if accepts(beta * change, state):
            total += change
            accepted += stepped
            replace(spins, local, exchange, site, new)
    return total, accepted, tried


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def _displaced(spins, site, width, new):
    """new = s + width * new; returns its squared norm."""
    square = 0.0
    for k in range(new.shape[0]):
        moved = spins[site, k] + width * new[k]
        new[k] = moved
        square += moved * moved
    return square


@njit(cache=True, nogil=True, error_model="numpy")
def overrelax_sweep(spins, local, exchange):
    """Every spin reflected about its local field, s' = 2 (s.l) l / |l|^2 - s, which keeps the energy.

    A spin with a zero field stays. Returns the energy change, which is rounding. Brown and Woch, Phys. Rev. Lett. 58,
    2394 (1987); Creutz, Phys. Rev. D 36, 515 (1987).
    """
    n_spins, n_components = spins.shape
    new = np.empty(n_components)
    total = 0.0
    for site in range(n_spins):
        field, spin = local[site], spins[site]
        square = dot(field, field)
        if square == 0.0:
            continue
        twice = 2.0 * dot(spin, field) / square
        for k in range(n_components):
            new[k] = twice * field[k] - spin[k]
        total += energy_change(spins, local, site, new)
        replace(spins, local, exchange, site, new)
    return total


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def local_fields(spins, fields, exchange, out):
    """x_i + sum_j K_ij s_j of spins (N, D) into out (N, D); fields x (N, D), any matrix K (N, N)."""
    n_spins, n_components = spins.shape
    for i in range(n_spins):
        for k in range(n_components):
            out[i, k] = fields[i, k]
        for j in range(n_spins):
            coupling = exchange[i, j]
            for k in range(n_components):
                out[i, k] += coupling * spins[j, k]


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def bilinear_energy(spins, fields, local):
    """E = -(1/2) sum_i s_i.(l_i + x_i), with local l and fields x (N, D)."""
    total = 0.0
    for i in range(spins.shape[0]):
        for k in range(spins.shape[1]):
            total += spins[i, k] * (local[i, k] + fields[i, k])
    return -0.5 * total


@njit(cache=True, nogil=True, error_model="numpy")
def renormalise(spins, radius):
    """Bring every spin of spins (N, D) back to the norm R, which rounding leaves; none may be zero."""
    for i in range(spins.shape[0]):
        scale = radius / math.sqrt(dot(spins[i], spins[i]))
        for k in range(spins.shape[1]):
            spins[i, k] *= scale
