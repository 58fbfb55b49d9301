"""The kernels of `mc.exact.pfaffian`: rows entering one bond after the other, and the closing of a ring of rows.

S, B are skew matrices of double-double Taylor series in beta, arrays (3, 2, n, n).
"""

from __future__ import annotations

import math

import numba
import numpy as np

from mc.exact.double_double import add, fused, over, series_over, series_times, times

TINY = 1e-25  # of d, which is at least 1 - |t|: below, nothing of it is certain
HIGH = 1024.0  # of an entry of S that calls for other legs


@numba.njit
def _column(S, a):
    """S_ia of all legs i, (n, 3, 2)."""
    n = S.shape[2]
    out = np.zeros((n, 3, 2))
    for k in range(3):
        for half in range(2):
            for i in range(a):
                out[i, k, half] = S[k, half, i, a]
            for i in range(a + 1, n):
                out[i, k, half] = -S[k, half, a, i]
    return out


@numba.njit
def _rank_two(S, u, w):
    """S_ij += w_i u_j - u_i w_j, i < j; S is (3, 2, n, n), above the diagonal only, u and w (n, 3, 2)."""
    n = S.shape[2]
    u_by_order, w_by_order = np.ascontiguousarray(u.transpose(1, 2, 0)), np.ascontiguousarray(w.transpose(1, 2, 0))
    for i in range(n - 1):
        if u[i].any() or w[i].any():
            for k in range(3):
                for m in range(k + 1):
                    _add_row(S[k, 0, i], S[k, 1, i], w[i, m], u_by_order[k - m], u[i, m], w_by_order[k - m], i + 1)


@numba.njit
def _add_row(high, low, w, u_row, u, w_row, start):
    """The row high + low plus w u_row - u w_row, from column `start`; the inner loop of it all."""
    w_high, w_low, u_high, u_low = w[0], w[1], -u[0], -u[1]
    u_row_high, u_row_low, w_row_high, w_row_low = u_row[0], u_row[1], w_row[0], w_row[1]
    for j in range(start, len(high)):
        a, b = fused(high[j], low[j], w_high, w_low, u_row_high[j], u_row_low[j])
        a, b = fused(a, b, u_high, u_low, w_row_high[j], w_row_low[j])
        total = a + b
        high[j], low[j] = total, b - (total - a)


@numba.njit
def _multiply(product, factor):
    """product *= a series; product: high, low, power of 2, and first and second derivative of the logarithm."""
    high, low = times(product[0], product[1], factor[0, 0], factor[0, 1])
    product[0], power = math.frexp(high)
    product[1] = math.ldexp(low, -power)
    product[2] += power
    first = over(factor[1, 0], factor[1, 1], factor[0, 0], factor[0, 1])
    second = over(factor[2, 0], factor[2, 1], factor[0, 0], factor[0, 1])
    square = times(first[0], first[1], first[0], first[1])
    second = add(2.0 * second[0], 2.0 * second[1], -square[0], -square[1])
    product[3], product[4] = add(product[3], product[4], first[0], first[1])
    product[5], product[6] = add(product[5], product[6], second[0], second[1])


@numba.njit
def _bond(S, a, b, t, ends, product):
    """Multiply by 1 + t s_a s_b, a < b; its ends are exchanged with the sign `ends`. False where 1 + t S_ab is 0."""
    if t[0, 0] == 0.0 and t[1, 0] == 0.0:
        return True
    pair = S[:, :, a, b].copy()
    factor = series_times(t, pair)
    factor[0] = add(factor[0, 0], factor[0, 1], 1.0, 0.0)
    if not factor[0, 0] > TINY:
        return False
    _multiply(product, factor)
    ratio = series_over(t, factor)
    at_a, at_b = _column(S, a), _column(S, b)
    u, v = np.empty_like(at_a), np.empty_like(at_b)
    for i in range(len(u)):
        u[i], v[i] = series_times(ratio, at_a[i]), series_times(ratio, at_b[i])
    _rank_two(S, u, at_b)
    for i in range(len(u)):
        if i not in (a, b):  # S holds i < j only, and S_ai = -S_ia
            _add_entry(S, min(i, a), max(i, a), ends if i < a else -ends, v[i])
            _add_entry(S, min(i, b), max(i, b), ends if i < b else -ends, u[i])
    _add_entry(S, a, b, 1.0, ratio)
    return True


@numba.njit
def _add_entry(S, i, j, sign, series):
    """S_ij += sign times a series."""
    for k in range(3):
        S[k, 0, i, j], S[k, 1, i, j] = add(S[k, 0, i, j], S[k, 1, i, j], sign * series[k, 0], sign * series[k, 1])


@numba.njit
def _next_row(S, t, first):
    """S_ij <- t_i t_j S_ij over the legs from `first` on; t is (3, 2, width)."""
    n = S.shape[2]
    for j in range(first, n):
        t_j = t[:, :, j - first].copy()
        for i in range(j):
            factor = series_times(t[:, :, i - first].copy(), t_j) if i >= first else t_j
            S[:, :, i, j] = series_times(S[:, :, i, j].copy(), factor)


@numba.njit
def _other_legs(S, B, product):
    """Keep S small by other legs of the first row, the same combinations in B; product takes their determinant.

    Where (anti)periodic rows have another sign in Z and in c, entries of first and last row grow as the ratio
    of the two Z, all along one direction u_i v_j. It is made one leg, subtracted from the others, and divided by 2^e.
    """
    width, n = B.shape[2], S.shape[2]
    while True:
        p, q, largest = 0, 0, 0.0
        for i in range(width):
            for j in range(width, n):
                if abs(S[0, 0, i, j]) > largest:
                    p, q, largest = i, j, abs(S[0, 0, i, j])
        if not HIGH < largest < math.inf:
            return
        at_p, at_q = -_column(S, p), _column(S, q)  # S_pj, S_iq
        multiple = np.zeros_like(at_p)
        for i in range(width):
            if i != p:
                multiple[i] = series_over(at_q[i], at_q[p])
                for j in range(width):
                    _add_entry(B, i, j, -1.0, series_times(multiple[i], B[:, :, p, j].copy()))
        _rank_two(S, multiple, at_p)
        power = math.frexp(largest)[1]
        scale = math.ldexp(1.0, -power)
        for k in range(3):
            for half in range(2):
                for i in range(n):
                    S[k, half, p, i] *= scale
                    S[k, half, i, p] *= scale
                for i in range(width):
                    B[k, half, p, i] *= scale
        product[2] += power


@numba.njit(cache=True)
def sweep(right, down, closing, ring):
    """All rows, one bond after the other; couplings (3, 2, Ly, Lx) as tanh. Returns S, B, c (see `_multiply`).

    ring: 0 for open rows, else 1 or -1, right for an even or odd number of legs. c is NaN where it could not be had.
    """
    height, width = right.shape[2:]
    first = width if closing else 0
    S, B = np.zeros((3, 2, first + width, first + width)), np.zeros((3, 2, width, width))
    product = np.array([1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    if closing:  # the second row of spins is the first: nested pairs have the Pfaffian 1
        for j in range(width):
            S[0, 0, width - 1 - j, width + j] = B[0, 0, width - 1 - j, j] = 1.0
    for y in range(height):
        good = True
        for x in range(width if ring else width - 1):
            wraps = x == width - 1
            a, b = (first, first + x) if wraps else (first + x, first + x + 1)
            t = right[:, :, y, x].copy()
            if wraps:
                t *= ring
            good &= _bond(S, a, b, t, -1.0 if wraps else 1.0, product)
        if not good:
            product[:] = math.nan
            break
        if closing:
            _other_legs(S, B, product)
        if closing or y + 1 < height:
            _next_row(S, down[:, :, y], first)
    return S, B, product


@numba.njit(cache=True)
def closed(S, B, sign, product):
    """The product times Pf(S + sign B), by elimination of the pair of legs with the largest entry left."""
    S, product, n, width = S.copy(), product.copy(), S.shape[2], B.shape[2]
    for i in range(width):
        for j in range(width):
            _add_entry(S, i, width + j, sign, B[:, :, i, j].copy())
    left = np.ones(n, np.bool_)
    for _ in range(n // 2):
        p, q, largest = 0, 0, 0.0
        for i in range(n):
            for j in range(i + 1, n):
                if left[i] and left[j] and abs(S[0, 0, i, j]) > largest:
                    p, q, largest = i, j, abs(S[0, 0, i, j])
        if not largest > 0.0:
            product[:] = 0.0
            return product
        pivot = S[:, :, p, q].copy()
        _multiply(product, -pivot if left[p + 1 : q].sum() % 2 else pivot)
        at_p, at_q = _column(S, p), _column(S, q)
        left[p] = left[q] = False
        for i in range(n):
            if left[i]:
                at_p[i] = series_over(at_p[i], pivot)
            else:
                at_p[i], at_q[i] = 0.0, 0.0
        _rank_two(S, at_p, at_q)
    return product
