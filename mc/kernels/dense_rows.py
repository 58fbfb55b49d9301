"""What `mc.kernels.dense` does to one replica: a sweep, the rows of flipped spins, the energy.

A replica is two arrays over the sites, padded to a multiple of 16: down int32, 0 for spin +1 and -1 (all bits) for
spin -1, and sums int32, the field of the other spins on each site in steps of that site. x ^ down - down is x times
the spin. Sums of int32 wrap, so doubled couplings may, as long as the fields themselves fit.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from mc.kernels.lane_streams import LOG2_E, advance, metropolis_levels, mixed_levels
from mc.kernels.vectors import as_type, bits, lowest, multiply_add, read, splat, to_type, total, write

W = 16  # sites that are decided together
SIGN = np.int32(-(2**31))
I1 = np.int32(1)
U0, U1, ALL = np.uint64(0), np.uint64(1), np.uint64(2**64 - 1)
ZERO, HALF = np.float32(0.0), 0.5


@njit(cache=True, nogil=True)
def times_spins(x, down):
    """float32 vector x times the spins of a vector down."""
    return as_type(as_type(x, np.int32) ^ (down & splat(SIGN, down)), np.float32)


@njit(cache=True, nogil=True)
def add_row(sums, down, matrix, i):
    """Bring sums up to date after spin i, which has its new value, was flipped; matrix is 2 J in steps of columns."""
    spin, row = splat(down[i], W), i * len(sums)
    for j in range(0, len(sums), W):
        write(sums, j, read(sums, j, W) + (read(matrix, row + j, W) ^ spin) - spin)


@njit(cache=True, nogil=True)
def add_rows(sums, down, matrix, a, b):
    """`add_row` of two spins at once, which reads and writes the sums once."""
    spin_a, spin_b = splat(down[a], W), splat(down[b], W)
    row_a, row_b = a * len(sums), b * len(sums)
    both = spin_a + spin_b
    for j in range(0, len(sums), W):
        first = (read(matrix, row_a + j, W) ^ spin_a) - both
        write(sums, j, read(sums, j, W) + first + (read(matrix, row_b + j, W) ^ spin_b))


@njit(cache=True, nogil=True)
def add_flipped(sums, down, matrix, begin, flipped):
    """`add_row` of the spins begin + l where bit l of `flipped` is set."""
    while flipped != U0:
        a = begin + lowest(flipped)
        flipped &= flipped - U1
        if flipped == U0:
            add_row(sums, down, matrix, a)
        else:
            add_rows(sums, down, matrix, a, begin + lowest(flipped))
            flipped &= flipped - U1


@njit(cache=True, nogil=True)
def sweep_replica(down, sums, streams, beta, n_spins, law, couplings, n_sweeps):
    """n_sweeps sweeps of a replica and its streams (4, 16) uint32 in place; returns the flips of the last sweep.

    law: largest_cutoff, cutoff, step and field of `DenseFields`; couplings: its matrix and near.
    """
    largest_cutoff, cutoff, step, field = law
    matrix, near = couplings
    scale = splat(np.float32(-2.0 * LOG2_E * beta), W)
    betas = splat(np.float32(beta), W)
    some_heat_bath = np.float32(beta) < largest_cutoff
    s0, s1, s2, s3 = read(streams, 0, W), read(streams, W, W), read(streams, 2 * W, W), read(streams, 3 * W, W)
    flips = 0
    for _ in range(n_sweeps):
        flips = 0
        for j in range(0, len(sums), W):
            words, s0, s1, s2, s3 = advance(s0, s1, s2, s3)
            if some_heat_bath:
                levels = mixed_levels(words, betas < read(cutoff, j, W))
            else:
                levels = metropolis_levels(words)
            spins, local = read(down, j, W), read(sums, j, W)
            slope = times_spins(read(step, j, W) * scale, spins)
            offset = times_spins(read(field, j, W) * scale, spins)
            ahead = (U1 << np.uint64(min(W, n_spins - j))) - U1  # sites not decided yet, none of the padding
            flipped = U0
            while True:
                flip = bits(levels <= multiply_add(to_type(local, np.float32), slope, offset)) & ahead
                if flip == U0:
                    break
                bit = lowest(flip)
                flipped |= U1 << np.uint64(bit)
                ahead &= (ALL << np.uint64(bit)) << U1
                i = j + bit
                before = splat(down[i], W)
                local = local + before - (read(near, i * W, W) ^ before)
                down[i] = ~down[i]
                flips += 1
            add_flipped(sums, down, matrix, j, flipped)
    write(streams, 0, s0)
    write(streams, W, s1)
    write(streams, 2 * W, s2)
    write(streams, 3 * W, s3)
    return flips


@njit(cache=True, nogil=True)
def sum_from_fields(down, sums, step, exact_field):
    """sum over i < j of J s s plus sum of h s, float64, J as the fields have it."""
    result = splat(0.0, W)
    for j in range(0, len(sums), W):
        spins = to_type(splat(I1, W) + read(down, j, W) + read(down, j, W), np.float64)
        steps = to_type(read(step, j, W), np.float64) * splat(HALF, W)
        local = multiply_add(to_type(read(sums, j, W), np.float64), steps, read(exact_field, j, W))
        result = multiply_add(local, spins, result)
    return total(result)


@njit(cache=True, nogil=True)
def sum_of_rest(down, row, rest):
    """What rounding took off: sum over j < i of rest s s, float64; row i begins at row[i], padded with zeros."""
    result = splat(0.0, W)
    for i in range(len(row) - 1):
        line = splat(ZERO, W)
        for j in range(row[i + 1] - row[i]):
            line = line + times_spins(read(rest, (row[i] + j) * W, W), read(down, j * W, W))
        result = result + to_type(times_spins(line, splat(down[i], W)), np.float64)
    return total(result)
