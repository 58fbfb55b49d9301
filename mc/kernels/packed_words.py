"""Words of independent random bits, all of one probability: 64 decisions for nine random words, exact to 1e-8.

A bit is to be set with probability p. Eight fair bits r, one a round, decide nearly always: where r is set the result
becomes the next binary digit of p, least significant first, elsewhere it stays. The last r that is set, which is
number g from the end with probability 2^-g, thus picks digit g after the point; bits that met none, one in 256, are
what they began with, 0 or 1. So the probability is p rounded down or up to a multiple of 1/256.

What is missing is so little that bits to correct are better drawn than looked for. Where p is above the rounded
probability a, bits are set with probability e = (p - a) / (1 - a), where it is below, cleared with e = 1 - p / a.
Poisson many hits on random bits do so: with -ln(1 - e) hits a bit on average, each bit escapes with probability
1 - e, independently of the others. What remains, below 1e-8, is the error of picking a bit with 32 random bits.

`bernoulli` draws bits whose probabilities differ from lane to lane, with more than twice as many random words.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from mc.kernels.bernoulli import VECTOR, broadcast, load, store
from mc.kernels.random_streams import advance, streams, uniform

DIGITS = 8
LEVELS = 2**DIGITS
MOST_HITS = 400  # ends a sum of probabilities that rounding keeps below 1; the mean is 32 or less
U0, U1, U6, U32, U63 = (np.uint64(number) for number in (0, 1, 6, 32, 63))
ALL = np.uint64(2**64 - 1)
LOWER_HALF = np.uint64(2**32 - 1)


def slots(seed: int, *path: int, lanes: int) -> np.ndarray:
    """Generator states (lanes, 4, VECTOR + 1) uint64 of xoshiro256++: a vector that draws words, one for the hits.

    Each is a stream of `random_streams`; lane l depends on (seed, path, l) only.
    """
    states = streams(seed, *path, count=lanes * (VECTOR + 1)).reshape(lanes, VECTOR + 1, 4)
    return np.ascontiguousarray(states.transpose(0, 2, 1))


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _plan_one(p, lane, which, digits):
    below = min(int(p * LEVELS), LEVELS - 1)
    to_set, to_clear = (p - below / LEVELS) / (1.0 - below / LEVELS), 1.0 - p / ((below + 1) / LEVELS)
    for digit in range(DIGITS):
        digits[lane, which, digit] = ALL if (below >> digit) & 1 else U0
    digits[lane, which, DIGITS] = U0 if to_set < to_clear else ALL
    return -math.log(1.0 - min(to_set, to_clear))


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def plan(p, q, n_words, lane, digits, hits):
    """Prepare draws of n_words words, 64 at most, for probabilities p and q, 0 to 1.

    digits (lanes, 2, DIGITS + 2) uint64: of p and of q, no bits or all for each binary digit, least significant
    first, and for the bits that the rounds leave as they were; then the share of the hits that count, times 2^32.
    hits (lanes, 2) float64: the mean number of hits of a draw, and exp(-mean).
    """
    for_p, for_q = _plan_one(p, lane, 0, digits), _plan_one(q, lane, 1, digits)
    most = max(for_p, for_q)
    hits[lane, 0], hits[lane, 1] = 64 * n_words * most, math.exp(-64 * n_words * most)
    scale = 2.0**32 / most if most > 0.0 else 0.0
    digits[lane, 0, DIGITS + 1], digits[lane, 1, DIGITS + 1] = np.uint64(for_p * scale), np.uint64(for_q * scale)


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def draw(states, lane, bits, with_p, with_q, n_words, digits, hits):
    """n_words words of bits of probability p, from bits[lane, with_p] on, and as many of bits of probability q.

    states (lanes, 4, VECTOR + 1) uint64 from `slots`; bits (lanes, any) uint64; n_words: a multiple of VECTOR;
    digits, hits: of `plan` for n_words. Bits at one place of both share random numbers: use one of the two.
    """
    _rounds(states, lane, bits, with_p, with_q, n_words, digits)
    if hits[lane, 0] > 0.0:
        _hit(states, lane, bits, with_p, with_q, n_words, digits, hits)


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _rounds(states, lane, bits, with_p, with_q, n_words, digits):
    state, start = 4 * (VECTOR + 1) * lane, bits.shape[1] * lane
    s0, s1 = load(states, state), load(states, state + VECTOR + 1)
    s2, s3 = load(states, state + 2 * (VECTOR + 1)), load(states, state + 3 * (VECTOR + 1))
    for at in range(start, start + n_words, VECTOR):
        p, q = broadcast(digits[lane, 0, DIGITS]), broadcast(digits[lane, 1, DIGITS])
        for digit in range(DIGITS):
            word, s0, s1, s2, s3 = advance(s0, s1, s2, s3)
            p = (word & broadcast(digits[lane, 0, digit])) | (~word & p)
            q = (word & broadcast(digits[lane, 1, digit])) | (~word & q)
        store(bits, at + with_p, p)
        store(bits, at + with_q, q)
    store(states, state, s0)
    store(states, state + VECTOR + 1, s1)
    store(states, state + 2 * (VECTOR + 1), s2)
    store(states, state + 3 * (VECTOR + 1), s3)


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _hit(states, lane, bits, with_p, with_q, n_words, digits, hits):
    s0, s1 = states[lane, 0, VECTOR], states[lane, 1, VECTOR]
    s2, s3 = states[lane, 2, VECTOR], states[lane, 3, VECTOR]
    to_p, share_p = ~digits[lane, 0, DIGITS], digits[lane, 0, DIGITS + 1]
    to_q, share_q = ~digits[lane, 1, DIGITS], digits[lane, 1, DIGITS + 1]
    word, s0, s1, s2, s3 = advance(s0, s1, s2, s3)
    left, term, number = uniform(word), hits[lane, 1], 0
    while left >= term and number < MOST_HITS:
        left -= term
        number += 1
        term *= hits[lane, 0] / number
        word, s0, s1, s2, s3 = advance(s0, s1, s2, s3)
        position = ((word >> U32) * np.uint64(64 * n_words)) >> U32
        share = word & LOWER_HALF
        bit, where = U1 << (position & U63), np.int64(position >> U6)
        hit_p, hit_q = bit if share < share_p else U0, bit if share < share_q else U0
        bits[lane, with_p + where] = (bits[lane, with_p + where] & ~hit_p) | (to_p & hit_p)
        bits[lane, with_q + where] = (bits[lane, with_q + where] & ~hit_q) | (to_q & hit_q)
    states[lane, 0, VECTOR], states[lane, 1, VECTOR] = s0, s1
    states[lane, 2, VECTOR], states[lane, 3, VECTOR] = s2, s3


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def toss(states, lane, bits, at, n_words):
    """n_words words of fair bits, from bits[lane, at] on; arguments as for `draw`."""
    state, start = 4 * (VECTOR + 1) * lane, bits.shape[1] * lane + at
    s0, s1 = load(states, state), load(states, state + VECTOR + 1)
    s2, s3 = load(states, state + 2 * (VECTOR + 1)), load(states, state + 3 * (VECTOR + 1))
    for where in range(start, start + n_words, VECTOR):
        word, s0, s1, s2, s3 = advance(s0, s1, s2, s3)
        store(bits, where, word)
    store(states, state, s0)
    store(states, state + VECTOR + 1, s1)
    store(states, state + 2 * (VECTOR + 1), s2)
    store(states, state + 3 * (VECTOR + 1), s3)
