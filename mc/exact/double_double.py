"""Numbers of 31 digits as sums of two float64 for Numba kernels, and Taylor series of three of them."""

from __future__ import annotations

import numba
import numpy as np
from numba.core import types
from numba.extending import intrinsic


@intrinsic
def fma(typing, a, b, c):
    """a b + c with one rounding."""
    return types.float64(a, b, c), lambda context, builder, signature, values: builder.fma(*values)


@numba.njit
def add(a, a_low, b, b_low):
    """Sum of two double-double numbers (T. J. Dekker, Numer. Math. 18, 224 (1971))."""
    total = a + b
    part = total - a
    low = (a - (total - part)) + (b - part) + (a_low + b_low)
    high = total + low
    return high, low - (high - total)


@numba.njit
def fused(high, low, a, a_low, b, b_low):
    """The number high + low plus a product; low is not yet less than the last digit of high."""
    product = a * b
    low += fma(a, b, -product) + (a * b_low + a_low * b)
    total = high + product
    part = total - high
    return total, low + ((high - (total - part)) + (product - part))


@numba.njit
def times(a, a_low, b, b_low):
    return add(*fused(0.0, 0.0, a, a_low, b, b_low), 0.0, 0.0)


@numba.njit
def over(a, a_low, b, b_low):
    """Quotient, by three steps of long division."""
    first = a / b
    a, a_low = add(*fused(a, a_low, -first, 0.0, b, b_low), 0.0, 0.0)
    second = a / b
    a, a_low = add(*fused(a, a_low, -second, 0.0, b, b_low), 0.0, 0.0)
    return add(*add(first, 0.0, second, 0.0), a / b, 0.0)


@numba.njit
def series_times(x, y):
    """Product of two series in beta, arrays (3, 2)."""
    out = np.zeros_like(x)
    for k in range(3):
        high, low = 0.0, 0.0
        for m in range(k + 1):
            high, low = fused(high, low, x[m, 0], x[m, 1], y[k - m, 0], y[k - m, 1])
        out[k] = add(high, low, 0.0, 0.0)
    return out


@numba.njit
def series_over(x, y):
    """Quotient of two series in beta."""
    out = np.zeros_like(x)
    for k in range(3):
        high, low = x[k]
        for m in range(k):
            high, low = fused(high, low, -out[m, 0], -out[m, 1], y[k - m, 0], y[k - m, 1])
        out[k] = over(*add(high, low, 0.0, 0.0), y[0, 0], y[0, 1])
    return out
