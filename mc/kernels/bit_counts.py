"""How often each of the 64 bits is set in many words; lanes that change places; words as rows, a row a lane.

A count is kept in binary, one plane a binary place: bit l of plane p is place p of the count of lane l. Planes are
added with the logic of a full adder, for all lanes at once (carry-save adders: Warren, Hacker's Delight, 2nd ed.,
section 5-1; the transposition by exchange of blocks: section 7-3).
"""

from __future__ import annotations

import numpy as np
from numba import njit

from mc.kernels.bernoulli import VECTOR, any_bit, broadcast, load, store

COLUMNS = 8  # vectors that wait until they are added in one go
PLANES = 40  # of a counter, enough for 2^35 vectors
WAITING = PLANES * VECTOR  # where in a counter the vectors wait
COUNTER = (PLANES + COLUMNS) * VECTOR  # words of a counter, (COUNTER,) uint64, zero at first
U0, U1 = np.uint64(0), np.uint64(1)
SHIFTS = np.array([32, 16, 8, 4, 2, 1], np.uint64)
MASKS = np.array([sum(1 << bit for bit in range(64) if not bit & shift) for shift in SHIFTS.tolist()], np.uint64)


@njit(cache=True, nogil=True)
def full_adder(a, b, c):
    """Sum and carry of three bits, for each bit of words or vectors."""
    either = a ^ b
    return either ^ c, (a & b) | (either & c)


@njit(cache=True, nogil=True)
def count_bits(counter, waiting, vector):
    """Count the bits of one more vector; `waiting`, 0 at first, is what the last call returned."""
    store(counter, WAITING + waiting * VECTOR, vector)
    if waiting + 1 < COLUMNS:
        return waiting + 1
    tally(counter)
    return 0


@njit(cache=True, nogil=True)
def tally(counter):
    """Add the COLUMNS vectors that wait. Each of the VECTOR words is counted by itself; `lane_totals` sums them."""
    ones, twos, fours = load(counter, 0), load(counter, VECTOR), load(counter, 2 * VECTOR)
    ones, a = full_adder(ones, load(counter, WAITING), load(counter, WAITING + VECTOR))
    ones, b = full_adder(ones, load(counter, WAITING + 2 * VECTOR), load(counter, WAITING + 3 * VECTOR))
    twos, first = full_adder(twos, a, b)
    ones, a = full_adder(ones, load(counter, WAITING + 4 * VECTOR), load(counter, WAITING + 5 * VECTOR))
    ones, b = full_adder(ones, load(counter, WAITING + 6 * VECTOR), load(counter, WAITING + 7 * VECTOR))
    twos, second = full_adder(twos, a, b)
    fours, carry = full_adder(fours, first, second)
    store(counter, 0, ones)
    store(counter, VECTOR, twos)
    store(counter, 2 * VECTOR, fours)
    place = 3 * VECTOR
    while any_bit(carry):
        eights = load(counter, place)
        store(counter, place, eights ^ carry)
        carry = eights & carry
        place += VECTOR


@njit(cache=True, nogil=True)
def lane_totals(counter, waiting, totals):
    """totals (64,) int64 = how often each bit was set in all words; `waiting` as above. The counter is used up."""
    counter[WAITING + waiting * VECTOR :] = U0
    tally(counter)
    planes = PLANES
    while planes > 0 and not any_bit(load(counter, (planes - 1) * VECTOR)):
        planes -= 1
    half = VECTOR // 2
    while half > 0:
        for word in range(half):
            carry = U0
            for plane in range(planes):
                at = plane * VECTOR + word
                counter[at], carry = full_adder(counter[at], counter[at + half], carry)
            counter[planes * VECTOR + word] = carry
        planes += 1
        half //= 2
    totals[:] = 0
    for plane in range(planes):
        word = counter[plane * VECTOR]
        for lane in range(64):
            totals[lane] += np.int64((word >> np.uint64(lane)) & U1) << plane


@njit(cache=True, nogil=True)
def exchange_blocks(block, distance, shift, mask):
    """One stage of `transpose`: square blocks of bits, `distance` words apart, change places across the diagonal."""
    for first in range(0, 64, 2 * distance):
        for upper in range(first, first + distance):
            lower = upper + distance
            differs = ((block[upper] >> shift) ^ block[lower]) & mask
            block[lower] ^= differs
            block[upper] ^= differs << shift


@njit(cache=True, nogil=True)
def transpose(block, turned):
    """Bits i of word j and j of word i change places, in block (64,) uint64 in place; turned (64,) is scratch."""
    for stage in range(3):
        exchange_blocks(block, 32 >> stage, SHIFTS[stage], MASKS[stage])
    # The words are put in another order, so that words that meet in the last stages are 8 or more apart as well and
    # 8 pairs of neighbours form a vector.
    for i in range(8):
        for j in range(8):
            turned[8 * j + i] = block[8 * i + j]
    for stage in range(3):
        exchange_blocks(turned, 32 >> stage, SHIFTS[3 + stage], MASKS[3 + stage])
    for i in range(8):
        for j in range(8):
            block[8 * i + j] = turned[8 * j + i]


@njit(cache=True, nogil=True)
def exchange_lanes(ours, theirs, a, b):
    """Bit a of the words `ours` and bit b of `theirs` change places; (n,) uint64, n a multiple of VECTOR."""
    one = broadcast(U1)
    for at in range(0, ours.shape[0], VECTOR):
        words = load(ours, at)
        differs = ((words >> a) ^ (load(theirs, at) >> b)) & one
        store(ours, at, words ^ (differs << a))
        store(theirs, at, load(theirs, at) ^ (differs << b))  # read again: it may be the array just written


@njit(cache=True, nogil=True)
def words_to_rows(words, slot, rows):
    """rows (64, n) uint64: bit i % 64 of rows[l, i // 64] is bit l of words[slot[i]]; slot (N,) int32."""
    block, scratch = np.empty(64, np.uint64), np.empty(64, np.uint64)
    for column in range(rows.shape[1]):
        n = min(64, slot.shape[0] - 64 * column)
        for i in range(n):
            block[i] = words[np.uint32(slot[64 * column + i])]
        block[n:] = U0
        transpose(block, scratch)
        for lane in range(64):
            rows[lane, column] = block[lane]


@njit(cache=True, nogil=True)
def rows_to_words(rows, slot, words):
    """The reverse of `words_to_rows`; words that no slot names are left alone."""
    block, scratch = np.empty(64, np.uint64), np.empty(64, np.uint64)
    for column in range(rows.shape[1]):
        for lane in range(64):
            block[lane] = rows[lane, column]
        transpose(block, scratch)
        for i in range(min(64, slot.shape[0] - 64 * column)):
            words[np.uint32(slot[64 * column + i])] = block[i]
