"""The working table of a sweep under the loss energy: numbers of all sites side by side, component after component.

Row k of the table holds component k of all spins, row D + k that of all targets f, and the rows after them |f|^2, s.f
and more: sites are the lanes of the vector instructions, so that no product is summed across lanes. A row is padded
with zeros to a multiple of eight sites.

Four trials are prepared together: a proposal depends on its own spin only, so the moves d of four sites are known
before the first of them is decided, and spins and targets are read once for the products of all four. Moves that were
accepted since then enter the products of the later ones by d.d', and the targets after the last of the four.

All functions take `numbers`, a flat array with the table, where it begins, and its width, the sites in a row with the
padding; moves is (BATCH + 1, D), the last row zero. Nothing is checked.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from mc.kernels.gaussian import FAST
from mc.kernels.transpose import transpose
from mc.kernels.vectors import as_type, multiply_add, read, select, splat, total, write

BATCH = 4
# Rows after those of the spins and targets; the last three kinds have one for each move of a batch.
SQUARE, ALONG, NEW_SQUARE, NEW_ALONG, NUMBER = range(5)
COUPLING = NUMBER + 1
ON_SPINS, ON_TARGETS = COUPLING + BATCH, COUPLING + 2 * BATCH
ROWS = COUPLING + 3 * BATCH
W = 8  # sites of a register
# 1/sqrt begins with half of the exponent, read off the bits; two steps of third and one of second order follow.
ROOT_BITS, I1 = np.int64(0x5FE6EB50C7B537A9), np.int64(1)


@njit(cache=True, nogil=True, error_model="numpy")
def table_width(n_spins):
    """Sites in a row, with the padding."""
    return (n_spins + W - 1) // W * W


@njit(cache=True, nogil=True, error_model="numpy")
def fill_table(spins, targets, numbers):
    """Put spins and targets (N, D) into `numbers`, (2 D + ROWS) table_width(N) + W of them; returns the begin.

    That is at a multiple of 64 bytes, so that no vector lies in two cache lines.
    """
    n_spins, n_components = spins.shape
    width = table_width(n_spins)
    begin = (-numbers.ctypes.data % 64) // 8
    rest = begin + 2 * n_components * width
    for i in range(rest if width == n_spins else begin, rest + ROWS * width):
        numbers[i] = 0.0
    transpose(spins, 0, n_spins, n_components, n_components, numbers, begin, width)
    transpose(targets, 0, n_spins, n_components, n_components, numbers, begin + n_components * width, width)
    for i in range(0, width, W):
        square, along = splat(0.0, W), splat(0.0, W)
        for k in range(n_components):
            spin = read(numbers, begin + k * width + i, W)
            target = read(numbers, begin + (n_components + k) * width + i, W)
            square, along = multiply_add(target, target, square), multiply_add(spin, target, along)
        write(numbers, rest + SQUARE * width + i, square)
        write(numbers, rest + ALONG * width + i, along)
    for i in range(width):
        numbers[rest + NUMBER * width + i] = i
    return begin


@njit(cache=True, nogil=True, error_model="numpy")
def take_targets(numbers, begin, width, targets):
    """Targets of the table into targets (N, D)."""
    n_spins, n_components = targets.shape
    transpose(numbers, begin + n_components * width, n_components, n_spins, width, targets, 0, n_components)


@njit(cache=True, nogil=True, error_model="numpy")
def inverse_root(x):
    """1 / sqrt(x) of a vector of positive float64, to the last digit or two."""
    y = as_type(splat(ROOT_BITS, x) - (as_type(x, np.int64) >> splat(I1, x)), np.float64)
    minus, one, half = splat(-1.0, x) * x, splat(1.0, x), splat(0.5, x)
    for _ in range(2):
        error = multiply_add(minus * y, y, one)
        y = multiply_add(y * error, multiply_add(error, splat(0.375, x), half), y)
    error = multiply_add(minus * y, y, one)
    return multiply_add(y * error, half, y)


@njit(cache=True, nogil=True, error_model="numpy")
def target_energy(square, along, radius):
    """R^2 / 2 - R s.f / |f| of sites with |f|^2 > 0, else 0; vectors."""
    value = multiply_add(splat(-radius, square) * along, inverse_root(square), splat(0.5 * radius * radius, square))
    zero = splat(0.0, square)
    return select(zero < square, value, zero)


@njit(cache=True, nogil=True, error_model="numpy")
def energy_of_targets(numbers, begin, width, n_components, radius):
    """The sum over all sites of `target_energy` of the state."""
    square = begin + (2 * n_components + SQUARE) * width
    along = begin + (2 * n_components + ALONG) * width
    result = splat(0.0, W)
    for i in range(0, width, W):
        result = result + target_energy(read(numbers, square + i, W), read(numbers, along + i, W), radius)
    return total(result)


def _at_width(lanes, wide):
    """(products of four moves with spins and targets of `lanes` sites from i on, two moves into `wide` targets)."""

    @njit(cache=True, nogil=True, error_model="numpy")
    def project(numbers, begin, width, moves, i):
        n = moves.shape[1]
        spins, targets, rest = begin + i, begin + i + n * width, begin + i + 2 * n * width
        s0, f0 = splat(0.0, lanes), splat(0.0, lanes)
        s1, s2, s3, f1, f2, f3 = s0, s0, s0, f0, f0, f0
        for k in range(n):
            spin, target = read(numbers, spins + k * width, lanes), read(numbers, targets + k * width, lanes)
            d0, d1 = splat(moves[0, k], lanes), splat(moves[1, k], lanes)
            d2, d3 = splat(moves[2, k], lanes), splat(moves[3, k], lanes)
            s0, f0 = multiply_add(d0, spin, s0), multiply_add(d0, target, f0)
            s1, f1 = multiply_add(d1, spin, s1), multiply_add(d1, target, f1)
            s2, f2 = multiply_add(d2, spin, s2), multiply_add(d2, target, f2)
            s3, f3 = multiply_add(d3, spin, s3), multiply_add(d3, target, f3)
        on_spins, on_targets = rest + ON_SPINS * width, rest + ON_TARGETS * width
        write(numbers, on_spins, s0)
        write(numbers, on_spins + width, s1)
        write(numbers, on_spins + 2 * width, s2)
        write(numbers, on_spins + 3 * width, s3)
        write(numbers, on_targets, f0)
        write(numbers, on_targets + width, f1)
        write(numbers, on_targets + 2 * width, f2)
        write(numbers, on_targets + 3 * width, f3)

    @njit(cache=True, nogil=True, error_model="numpy")
    def add(numbers, begin, width, moves, one, other, other_row, i):
        n = moves.shape[1]
        rest = begin + i + 2 * n * width
        first = read(numbers, rest + (COUPLING + one) * width, wide)
        second = read(numbers, rest + (COUPLING + other_row) * width, wide)
        for k in range(n):
            place = begin + i + (n + k) * width
            target = multiply_add(splat(moves[one, k], wide), first, read(numbers, place, wide))
            write(numbers, place, multiply_add(splat(moves[other, k], wide), second, target))

    return project, add


WIDE, WIDEST = 16, 64  # sites at a time that keep the multipliers busy: 16 registers of sums, or 8 of targets
_project_wide, _add_wide = _at_width(WIDE, WIDEST)
_project, _add = _at_width(W, W)


@njit(cache=True, nogil=True, error_model="numpy")
def prepare(numbers, begin, width, couplings_T, first, moves):
    """Couplings J_ik of four sites k from `first` on, or as many as are left, and the products of four moves."""
    n_spins, rest = couplings_T.shape[0], begin + 2 * moves.shape[1] * width
    for m in range(min(BATCH, n_spins - first)):
        row, source = rest + (COUPLING + m) * width, (first + m) * n_spins
        i = 0
        while i + W <= n_spins:
            write(numbers, row + i, read(couplings_T, source + i, W))
            i += W
        while i < n_spins:
            numbers[row + i] = couplings_T[first + m, i]
            i += 1
    i = 0
    while i + WIDE <= width:
        _project_wide(numbers, begin, width, moves, i)
        i += WIDE
    while i < width:
        _project(numbers, begin, width, moves, i)
        i += W


@njit(cache=True, nogil=True, error_model="numpy")
def trial(numbers, begin, width, n_components, m, site, length, radius):
    """Rows NEW_SQUARE and NEW_ALONG of move m, length |d|^2, of a site k: (s_k.d, sum of `target_energy` with it)."""
    rest = begin + 2 * n_components * width
    coupling = rest + (COUPLING + m) * width
    on_spins, on_targets = rest + (ON_SPINS + m) * width, rest + (ON_TARGETS + m) * width
    # The spin of the site moves as well as its target.
    own = splat(numbers[on_targets + site] + numbers[coupling + site] * length, W)
    number, lengths = splat(np.float64(site), W), splat(length, W)
    result = splat(0.0, W)
    for i in range(0, width, W):
        c, on_target = read(numbers, coupling + i, W), read(numbers, on_targets + i, W)
        growth = multiply_add(c, lengths, on_target + on_target)
        square = multiply_add(c, growth, read(numbers, rest + SQUARE * width + i, W))
        along = multiply_add(c, read(numbers, on_spins + i, W), read(numbers, rest + ALONG * width + i, W))
        along = select(read(numbers, rest + NUMBER * width + i, W) != number, along, along + own)
        write(numbers, rest + NEW_SQUARE * width + i, square)
        write(numbers, rest + NEW_ALONG * width + i, along)
        result = result + target_energy(square, along, radius)
    return numbers[on_spins + site], total(result)


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def product(moves, one, other):
    """d.d' of two moves."""
    result = 0.0
    for k in range(moves.shape[1]):
        result += moves[one, k] * moves[other, k]
    return result


@njit(cache=True, nogil=True, error_model="numpy")
def accept(numbers, begin, width, moves, m, site):
    """Make the trial of move m the state, all but the targets, and tell the later moves of the batch."""
    rest = begin + 2 * moves.shape[1] * width
    for k in range(moves.shape[1]):
        numbers[begin + k * width + site] += moves[m, k]
    for i in range(0, 2 * width, W):  # the rows after SQUARE and NEW_SQUARE come along
        write(numbers, rest + SQUARE * width + i, read(numbers, rest + NEW_SQUARE * width + i, W))
    coupling = rest + (COUPLING + m) * width
    for later in range(m + 1, BATCH):
        share = product(moves, m, later)
        shares, on_targets = splat(share, W), rest + (ON_TARGETS + later) * width
        for i in range(0, width, W):
            target = read(numbers, on_targets + i, W)
            write(numbers, on_targets + i, multiply_add(shares, read(numbers, coupling + i, W), target))
        numbers[rest + (ON_SPINS + later) * width + site] += share


@njit(cache=True, nogil=True, error_model="numpy")
def move_targets(numbers, begin, width, moves, one, other):
    """Two accepted moves of a batch into the targets; BATCH is a move of zero."""
    other_row = min(other, BATCH - 1)  # the couplings of a move of zero can be any
    i = 0
    while i + WIDEST <= width:
        _add_wide(numbers, begin, width, moves, one, other, other_row, i)
        i += WIDEST
    while i < width:
        _add(numbers, begin, width, moves, one, other, other_row, i)
        i += W
