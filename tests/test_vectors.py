"""Vectors as values in Numba code, and the random levels made of them."""

import numpy as np
import pytest
from numba import njit

from mc.kernels import lane_streams, vectors
from mc.kernels.random_streams import streams
from mc.kernels.vectors import as_type, multiply_add, read, select, splat, to_type, write

W = 8
FIVE = 5


@njit
def floats(a, b, out):
    x, y = read(a, 0, W), read(b, 0, W)
    write(out, 0, x + y)
    write(out, W, x - y)
    write(out, 2 * W, x * y)
    write(out, 3 * W, x / y)
    write(out, 4 * W, multiply_add(x, y, splat(a[1], x)))
    write(out, 5 * W, select(x <= y, x, splat(b[2], W)))
    return vectors.bits(x <= y), vectors.bits(x < y), vectors.bits(x != y), vectors.total(x)


@njit
def integers(a, b, shift, out):
    x, y = read(a, 0, W), read(b, 0, W)
    write(out, 0, x + y)
    write(out, W, x - y)
    write(out, 2 * W, x * y)
    write(out, 3 * W, (x & y) | (x ^ splat(b[3], W)))
    write(out, 4 * W, x << splat(shift, W))
    write(out, 5 * W, x >> splat(shift, W))
    return vectors.bits((x <= y) & (x != y)), vectors.bits((x < y) | (x != y)), vectors.bits(x < y)


@njit
def conversions(x, whole, singles, doubles, longs):
    a, k = read(x, 0, W), read(whole, 0, W)
    write(singles, 0, to_type(k, np.float32))
    write(singles, W, as_type(as_type(a, np.int32), np.float32))
    write(singles, 2 * W, to_type(to_type(a, np.float64), np.float32))
    write(doubles, 0, to_type(a, np.float64))
    write(doubles, W, to_type(to_type(a, np.int32), np.float64))
    write(longs, 0, to_type(k, np.int64))
    write(longs, W, to_type(to_type(to_type(k, np.int64), np.int32), np.int64))


def mask_bits(mask):
    return int(np.packbits(mask, bitorder="little")[0])


def test_float_vectors():
    for dtype in (np.float32, np.float64):
        a, b = np.random.default_rng(1).normal(size=(2, W)).astype(dtype)
        b[3], b[5] = a[3], np.nan
        out = np.zeros((6, W), dtype)
        masks = floats(a, b, out)
        sums = [a + b, a - b, a * b, a / b, a * b + a[1], np.where(a <= b, a, b[2])]
        assert np.allclose(out, sums, rtol=1e-6, equal_nan=True)
        assert masks[:3] == (mask_bits(a <= b), mask_bits(a < b), mask_bits(a != b))
        assert masks[3] == pytest.approx(a.sum(dtype=np.float64), rel=1e-5)


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.int64])
def test_integer_vectors(dtype):
    limits = np.iinfo(dtype)
    a, b = np.random.default_rng(2).integers(limits.min, limits.max, size=(2, W), dtype=dtype)
    b[4] = a[4]
    out = np.zeros((6, W), dtype)
    masks = integers(a, b, dtype(FIVE), out)
    assert (out == [a + b, a - b, a * b, (a & b) | (a ^ b[3]), a << dtype(FIVE), a >> dtype(FIVE)]).all()
    assert masks == (mask_bits(a < b), mask_bits(a != b), mask_bits(a < b))


def test_conversions():
    x = np.array([0.5, -1.75, 2.0**20, -0.0, 3.9, -3.9, 1e-30, 7.0], np.float32)
    whole = np.array([-(2**31), 2**31 - 1, 0, -1, 16777217, 5, -9, 2**24], np.int32)
    singles, doubles = np.zeros((3, W), np.float32), np.zeros((2, W))
    longs = np.zeros((2, W), np.int64)
    conversions(x, whole, singles, doubles, longs)
    assert (singles[0] == whole.astype(np.float32)).all()
    assert (singles[1:].view(np.int32) == x.view(np.int32)).all()
    assert (doubles == [x, np.trunc(x)]).all()
    assert (longs == whole).all()


def test_lowest_bit_and_aligned_copies():
    @njit
    def lowest(number):
        return vectors.lowest(number)

    assert [lowest(np.uint64(n)) for n in (1, 12, 2**63)] == [0, 2, 63]
    for shape in ((3,), (5, 7), (9, 1, 4)):
        array = np.random.default_rng(1).random(shape)
        copy = vectors.aligned(array[::-1])
        assert (copy == array[::-1]).all()
        assert copy.ctypes.data % 64 == 0
        assert copy.flags.c_contiguous


def test_operators_still_refuse_what_makes_no_sense():
    @njit
    def shift_of_floats(a):
        return vectors.total(read(a, 0, W) << read(a, 0, W))

    @njit
    def mixed(a, b):
        return vectors.total(read(a, 0, W) + read(b, 0, W))

    with pytest.raises(Exception, match="lshift"):
        shift_of_floats(np.zeros(W))
    with pytest.raises(Exception, match="add"):
        mixed(np.zeros(W), np.zeros(W, np.float32))


@njit
def draw(states, words):
    s0, s1, s2, s3 = read(states, 0, W), read(states, W, W), read(states, 2 * W, W), read(states, 3 * W, W)
    for begin in range(0, words.size, W):
        drawn, s0, s1, s2, s3 = lane_streams.advance(s0, s1, s2, s3)
        write(words, begin, drawn)


@njit
def levels(words, metropolis, heat_bath):
    for begin in range(0, len(words), W):
        w = read(words, begin, W)
        write(metropolis, begin, lane_streams.metropolis_levels(w))
        write(heat_bath, begin, lane_streams.mixed_levels(w, w <= w))


def test_lanes_draw_the_words_of_xoshiro128():
    # Each lane against the recurrence in Python integers; the first words from 1, 2, 3, 4 are 641, 1573767.
    states = lane_streams.lane_streams(3, 1, count=2, lanes=W)
    states[0, :, 0] = 1, 2, 3, 4
    words = np.zeros((50, W), np.uint32)
    draw(states[0], words)
    mask = 2**32 - 1

    def rotated(x, k):
        return (x << k | x >> (32 - k)) & mask

    for lane in range(W):
        a, b, c, d = (int(word) for word in states[0, :, lane])
        for word in words[:, lane]:
            assert word == (rotated((a + d) & mask, 7) + a) & mask
            shifted = b << 9 & mask
            c, d = c ^ a, d ^ b
            b, a = b ^ c, a ^ d
            c, d = c ^ shifted, rotated(d, 11)
    assert words[:2, 0].tolist() == [641, 1573767]


def test_lanes_have_streams_of_their_own():
    few, many = lane_streams.lane_streams(5, 1, count=3, lanes=16), lane_streams.lane_streams(5, 1, count=9, lanes=16)
    assert few.shape == (3, 4, 16)
    assert (few == many[:3]).all()
    every = many.transpose(0, 2, 1).reshape(-1, 4)
    assert len(np.unique(every, axis=0)) == len(every)
    assert every.any(axis=1).all()
    assert (np.sort(every, axis=None) == np.sort(streams(5, 1, count=72).view(np.uint32), axis=None)).all()


def test_levels_have_the_probabilities_of_their_flips():
    # A word stands for u = k / 2^31, k odd, and its flip for all costs with exp(-beta dE) >= u: 2^level is to be u.
    rare = np.exp2(32 * np.random.default_rng(1).random(400_000)).astype(np.uint32)  # all orders of magnitude
    words = np.concatenate([np.arange(40_000), rare, ~rare, rare << np.uint32(1)]).astype(np.uint32)
    metropolis, heat_bath = np.zeros((2, len(words)), np.float32)
    levels(words, metropolis, heat_bath)
    u = ((words >> np.uint32(1)) | np.uint32(1)) / 2.0**31
    assert np.abs(np.exp2(metropolis.astype(np.float64)) - u).max() < 2.0**-24
    assert np.abs(1 / (1 + np.exp2(-heat_bath.astype(np.float64))) - u).max() < 2.0**-24
    assert np.abs(np.exp2(metropolis.astype(np.float64)) / u - 1).max() < 2e-6
    assert metropolis.max() <= 0
    assert metropolis.min() == -31
