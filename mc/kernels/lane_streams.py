"""Random numbers of kernels that move many lanes at once: xoshiro128++, one stream a lane, and levels of them.

Generator: Blackman and Vigna, ACM Trans. Math. Softw. 47, 36 (2021); period 2^128 - 1, 32 bits a call. The states of
W lanes are four rows of W words, which one step moves together.

A level is log2 of what a flip compares its cost with. A flip of probability p is made where a uniform number u is not
above p, so a Metropolis flip of cost dE is made where log2 u <= -beta dE log2(e), and a heat-bath flip where
log2(u / (1 - u)) is. Levels need no field: they are drawn ahead, and the exponential leaves the chain that leads
from one spin to the next. Resolution: every flip has its probability within 2^-24 (6e-8), rare ones within 2^-31.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from mc.hamiltonian import InteractionTable
from mc.kernels.local_field import typical_fields
from mc.kernels.metropolis import HEAT_BATH_BELOW
from mc.kernels.random_streams import streams
from mc.kernels.vectors import as_type, multiply_add, select, splat, to_type

LOG2_E = 1.4426950408889634
TWO_TO_MINUS_31 = np.float32(2.0**-31)
ALL = np.uint32(2**32 - 1)
U1, U7, U9, U11, U21, U25 = (np.uint32(shift) for shift in (1, 7, 9, 11, 21, 25))
ONE = np.float32(1.0)
SQRT_HALF = np.int32(0x3F3504F3)  # the bits of the float32 nearest to sqrt(1/2)
MANTISSA, MANTISSA_BITS = np.int32(2**23 - 1), np.int32(23)
# (log2(1 + r) - r) / r where sqrt(1/2) <= 1 + r < sqrt(2), highest power first. Of all polynomials of this degree it
# has the smallest error of 2^level, 4e-9; rounding to float32 adds more.
LOGARITHM = tuple(
    np.float32(c)
    for c in (
        0.12707470,
        -0.21078715,
        0.21685329,
        -0.23839349,
        0.28771552,
        -0.36073112,
        0.48091978,
        -0.72134691,
        0.44269490,
    )
)


def lane_streams(seed: int, *path: int, count: int, lanes: int) -> np.ndarray:
    """States (count, 4, lanes) uint32 of `count` vectors of an even number of lanes, each lane a stream of its own.

    Every two lanes take one stream of `random_streams.streams(seed, *path)`; no state is all zero.
    """
    words = streams(seed, *path, count=count * lanes // 2).view(np.uint32).reshape(count, lanes, 4)
    words[~words.any(axis=2)] = 1
    return np.ascontiguousarray(words.transpose(0, 2, 1))


def heat_bath_cutoff(table: InteractionTable, rule: str) -> np.ndarray:
    """Beta below which each site takes the heat-bath probability, (N,) float32; see `mc.kernels.metropolis`.

    Infinite everywhere for the rule heatbath.
    """
    typical = typical_fields(table.start, table.coupling)
    if rule == "heatbath":
        typical[:] = 0.0
    return np.divide(HEAT_BATH_BELOW, typical, out=np.full(len(typical), np.inf), where=typical > 0).astype(
        np.float32
    )


@njit(cache=True, nogil=True)
def advance(s0, s1, s2, s3):
    """One step of every lane: (words, s0, s1, s2, s3), all vectors of uint32."""
    mixed = s0 + s3
    words = ((mixed << splat(U7, s0)) | (mixed >> splat(U25, s0))) + s0
    shifted = s1 << splat(U9, s0)
    s2 = s2 ^ s0
    s3 = s3 ^ s1
    s1 = s1 ^ s2
    s0 = s0 ^ s3
    s2 = s2 ^ shifted
    s3 = (s3 << splat(U11, s0)) | (s3 >> splat(U21, s0))
    return words, s0, s1, s2, s3


@njit(cache=True, nogil=True)
def odd(words):
    """Uniform odd numbers below 2^31 as float32, so uniform numbers in (0, 1] times 2^31.

    Those of inverted words are 2^31 minus those of the words, up to rounding.
    """
    return to_type(as_type((words >> splat(U1, words)) | splat(U1, words), np.int32), np.float32)


@njit(cache=True, nogil=True)
def log2(x):
    """log2 of a vector of positive, normal float32."""
    shifted = as_type(x, np.int32) - splat(SQRT_HALF, x)
    exponent = to_type(shifted >> splat(MANTISSA_BITS, x), np.float32)
    r = as_type((shifted & splat(MANTISSA, x)) + splat(SQRT_HALF, x), np.float32) - splat(ONE, x)
    polynomial = splat(LOGARITHM[0], x)
    for c in LOGARITHM[1:]:
        polynomial = multiply_add(polynomial, r, splat(c, x))
    return multiply_add(polynomial, r, exponent + r)


@njit(cache=True, nogil=True)
def metropolis_levels(words):
    """log2 u of each lane, float32: a flip is made where this is at most -beta dE log2(e)."""
    return log2(odd(words) * splat(TWO_TO_MINUS_31, words))


@njit(cache=True, nogil=True)
def mixed_levels(words, heat_bath):
    """log2(u / (1 - u)) in the lanes of the mask, log2 u in the others, float32."""
    u = odd(words)
    ratio = u / odd(words ^ splat(ALL, words))
    return log2(select(heat_bath, ratio, u * splat(TWO_TO_MINUS_31, words)))
