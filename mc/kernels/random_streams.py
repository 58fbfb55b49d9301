"""Random numbers of the kernels: xoshiro256++, one independent stream a replica.

Generator: Blackman and Vigna, ACM Trans. Math. Softw. 47, 36 (2021); period 2^256 - 1, 64 bits a call. A stream is a
row of four uint64 words. Streams that differ in seed, path or number start at states drawn by NumPy's SeedSequence,
so replicas share no random number: replicas of one disorder sample that share them collapse onto each other.
"""

from __future__ import annotations

import numpy as np
from numba import njit

U11, U17, U19, U23, U41, U45 = (np.uint64(shift) for shift in (11, 17, 19, 23, 41, 45))
TWO_TO_MINUS_53 = 2.0**-53


def streams(seed: int, *path: int, count: int) -> np.ndarray:
    """States of `count` streams, shape (count, 4) uint64, never all zero.

    Stream r depends on (seed, path, r) only, so more streams can be asked for later. seed, path: integers >= 0; the
    path tells the uses of one seed apart. It enters as a spawn key: as plain entropy [5, 0] and [5, 0, 0] would give
    one and the same stream.

    Raises ValueError for negative numbers.
    """
    states = np.empty((count, 4), np.uint64)
    for number in range(count):
        states[number] = np.random.SeedSequence(seed, spawn_key=(*path, number)).generate_state(4, np.uint64)
    states[~states.any(axis=1)] = 1  # all zero is the one state the generator never leaves
    return states


@njit(cache=True, nogil=True)
def advance(s0, s1, s2, s3):
    """One step of a stream held in registers: (word, s0, s1, s2, s3), all uint64.

    Inner loops copy a row into four local variables and back at the end. Words in memory would be written and read
    again around every store to the spins, and rows of neighbouring replicas share cache lines between threads.
    """
    mixed = s0 + s3
    word = ((mixed << U23) | (mixed >> U41)) + s0
    shifted = s1 << U17
    s2 ^= s0
    s3 ^= s1
    s1 ^= s2
    s0 ^= s3
    s2 ^= shifted
    s3 = (s3 << U45) | (s3 >> U19)
    return word, s0, s1, s2, s3


@njit(cache=True, nogil=True)
def uniform(word):
    """A float64 in [0, 1), a multiple of 2^-53, from the upper bits of a word."""
    return np.float64(word >> U11) * TWO_TO_MINUS_53


@njit(cache=True, nogil=True)
def next_uint64(state):
    """The next word of the stream `state` (4,) uint64, which moves on."""
    word, state[0], state[1], state[2], state[3] = advance(state[0], state[1], state[2], state[3])
    return word


@njit(cache=True, nogil=True)
def next_uniform(state):
    """The next float64 in [0, 1) of the stream `state` (4,) uint64, 53 random bits."""
    return uniform(next_uint64(state))
