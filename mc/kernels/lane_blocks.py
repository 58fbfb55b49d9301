"""What `mc.kernels.float_lanes` does to a block: 16 or 32 lanes, the spins of a site one vector.

Vector code needs the number of lanes when it is compiled, so each function exists for both.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from mc.kernels.lane_streams import LOG2_E, advance, metropolis_levels, mixed_levels
from mc.kernels.vectors import as_type, multiply_add, read, select, splat, to_type, write

ZERO, ONE = np.float32(0.0), np.float32(1.0)
SIGN = np.uint32(2**31)
I1 = np.int64(1)
U31, U32 = np.uint64(31), np.uint64(32)
HALF_WORD = np.uint64(2**32 - 1)


def _sweep(lanes):
    @njit(cache=True, nogil=True)
    def sweep(spins, streams, beta, first, bonds, n_sweeps, flipped):
        """n_sweeps sweeps of a block, spins (N, lanes) float32 and streams (4, lanes) uint32, in place.

        Its lanes have beta[first : first + lanes]; their flips are counted in `flipped` unless that is empty.
        bonds: cutoff, field, start, coupling and other of `FloatLanes`.
        """
        cutoff, field, start, coupling, other = bonds
        hottest = np.float32(beta[first : first + lanes].min())
        scale = to_type(read(beta, first, lanes) * splat(-2.0 * LOG2_E, lanes), np.float32)
        zero = splat(ZERO, lanes)
        s0, s1 = read(streams, 0, lanes), read(streams, lanes, lanes)
        s2, s3 = read(streams, 2 * lanes, lanes), read(streams, 3 * lanes, lanes)
        counting = len(flipped) > 0
        if counting:
            flipped[first : first + lanes] = 0
        for _ in range(n_sweeps):
            for site in range(len(field)):
                words, s0, s1, s2, s3 = advance(s0, s1, s2, s3)
                if hottest < cutoff[site]:
                    betas = to_type(read(beta, first, lanes), np.float32)
                    levels = mixed_levels(words, betas < splat(cutoff[site], lanes))
                else:
                    levels = metropolis_levels(words)
                local = splat(field[site], lanes)
                for term in range(start[site], start[site + 1]):
                    neighbours = read(spins, np.int64(other[term]) * lanes, lanes)
                    local = multiply_add(splat(coupling[term], lanes), neighbours, local)
                own = read(spins, site * lanes, lanes)
                flip = levels <= local * (own * scale)
                write(spins, site * lanes, select(flip, zero - own, own))
                if counting:
                    flips = read(flipped, first, lanes)
                    write(flipped, first, select(flip, flips + splat(I1, lanes), flips))
        write(streams, 0, s0)
        write(streams, lanes, s1)
        write(streams, 2 * lanes, s2)
        write(streams, 3 * lanes, s3)

    return sweep


def _sum(lanes):
    @njit(cache=True, nogil=True)
    def sum_energies(spins, bonds, energy, first):
        """Energies of a block, float64, into energy[first : first + lanes].

        bonds: all_up, sites, bond and exact_field of `FloatLanes`. The energy of all spins up is corrected where two
        spins of a bond differ, and where a spin in a field is down.
        """
        all_up, sites, bond, field = bonds
        lost = splat(0.0, lanes)
        for number in range(len(bond)):
            differ = read(spins, np.int64(sites[number, 0]) * lanes, lanes) != read(
                spins, np.int64(sites[number, 1]) * lanes, lanes
            )
            lost = select(differ, lost + splat(bond[number], lanes), lost)
        for site in range(len(field)):
            if field[site] != 0.0:
                down = read(spins, site * lanes, lanes) < splat(ZERO, lanes)
                lost = select(down, lost + splat(field[site], lanes), lost)
        write(energy, first, splat(all_up, lanes) + lost + lost)

    return sum_energies


def _store(lanes):
    @njit(cache=True, nogil=True)
    def store(spins, rows):
        """Copy the spins of a block to rows of bits (lanes, words) uint64."""
        halves = np.empty(lanes, np.uint32)
        rows[:] = 0
        for begin in range(0, len(spins), 32):
            word = splat(np.uint32(0), lanes)
            for bit in range(min(32, len(spins) - begin)):
                down = as_type(read(spins, (begin + bit) * lanes, lanes), np.uint32) & splat(SIGN, lanes)
                word = word | ((down ^ splat(SIGN, lanes)) >> splat(np.uint32(31 - bit), lanes))
            write(halves, 0, word)
            for lane in range(lanes):
                rows[lane, begin // 64] |= np.uint64(halves[lane]) << np.uint64(begin % 64)

    return store


def _load(lanes):
    @njit(cache=True, nogil=True)
    def load(spins, rows):
        """Replace the spins of a block by rows of bits (lanes, words) uint64."""
        halves = np.empty(lanes, np.uint32)
        one = as_type(splat(ONE, lanes), np.uint32)
        for begin in range(0, len(spins), 32):
            for lane in range(lanes):
                halves[lane] = np.uint32((rows[lane, begin // 64] >> np.uint64(begin % 64)) & HALF_WORD)
            word = read(halves, 0, lanes) ^ splat(np.uint32(HALF_WORD), lanes)
            for bit in range(min(32, len(spins) - begin)):
                down = (word << splat(np.uint32(31 - bit), lanes)) & splat(SIGN, lanes)
                write(spins, (begin + bit) * lanes, as_type(down | one, np.float32))

    return load


sweep_16, sweep_32 = _sweep(16), _sweep(32)
sum_16, sum_32 = _sum(16), _sum(32)
store_16, store_32 = _store(16), _store(32)
load_16, load_32 = _load(16), _load(32)
