"""A periodic square lattice as words of 64 spins whose neighbours are whole words: equal places of 64 blocks.

The lattice is cut into down x across equal blocks of height x width sites, and bit across * by + bx of word (y, x) is
the spin in row by * height + y and column bx * width + x. The neighbours of all spins of a word are then the words
beside it; over the edge of a block it is the word at the opposite edge with its bits moved by one block. (Multi-spin
coding of one system: Zorn, Herrmann and Rebbi, Comput. Phys. Commun. 23, 337 (1981).) Height and width are even, so
the words are a checkerboard: those with x + y even, colour 0, have bonds with those of colour 1 only.

A row of one colour has `half` = width / 2 words, word j of colour c in row y at x = 2 j + (y + c) % 2, and is stored
in half + 1 words. The one that is left over, after the last where x is even and before the first where x is odd,
holds what the other colour meets over the edge of the blocks: so the neighbours in its row of word j of the other
colour are the words j and j + 1 as they are stored.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from mc.kernels.bit_counts import transpose

ROW_COST = 6  # what the loop over a row costs beside its words, in words, measured
ALL = np.uint64(2**64 - 1)
U0, U1 = np.uint64(0), np.uint64(1)


class Blocks(NamedTuple):
    """The layout."""

    down: np.int64  # blocks
    across: np.int64
    height: np.int64  # rows of words
    half: np.int64  # words of one colour in a row
    used: np.uint64  # bits of a word that are spins
    left: np.uint64  # those of the blocks in the first column
    right: np.uint64  # those of the blocks in the last column


def layout_for(shape: tuple[int, int], grid: tuple[int, int] | None = None) -> np.ndarray:
    """Layout of a lattice of even sides (Ly, Lx), the fields of Blocks as (7,) uint64, which batches can carry.

    grid: blocks (down, across), or None for those that are fastest.
    """
    if grid is None:
        down, across = ([n for n in range(1, 64 + 1) if side // 2 % n == 0] for side in shape)
        grids = [(d, a) for d in down for a in across if d * a <= 64 and a < 64]
        grid = min(grids, key=lambda grid: (shape[0] // grid[0] * (shape[1] // grid[1] / 2 + ROW_COST), grid[1]))
    down, across = grid
    left = sum(1 << across * by for by in range(down))
    masks = 2 ** (down * across) - 1, left, left << (across - 1)
    return np.array([down, across, shape[0] // down, shape[1] // across // 2, *masks], np.uint64)


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def blocks_of(layout):
    """The Blocks of a layout."""
    down, across, height, half = np.int64(layout[0]), np.int64(layout[1]), np.int64(layout[2]), np.int64(layout[3])
    return Blocks(down, across, height, half, layout[4], layout[5], layout[6])


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def rows_beside(colour, y, blocks):
    """(own, beside, near, far, up, down): where row y of a colour starts, and what its words meet.

    Word own + j of the stored words has neighbours beside + j, beside + j + 1, near + j and far + j, the last with
    its bits turned by shifts `up` and `down` (uint64), not 0 if it is over the edge of the blocks.
    """
    block, around = np.uint64(blocks.across), np.uint64(blocks.across * (blocks.down - 1))
    if y == 0:
        near, far, up, down = 1, blocks.height - 1, block, around
    elif y == blocks.height - 1:
        near, far, up, down = y - 1, 0, around, block
    else:
        near, far, up, down = y - 1, y + 1, U0, U0
    stride, others, odd = blocks.half + 1, (1 - colour) * blocks.height, (y + colour) & 1
    own = (colour * blocks.height + y) * stride + odd
    return own, (others + y) * stride, (others + near) * stride + odd, (others + far) * stride + odd, up, down


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def close_row(words, lane, colour, y, blocks):
    """Renew the word of a row that is left over."""
    start, around = (colour * blocks.height + y) * (blocks.half + 1), np.uint64(blocks.across - 1)
    if (y + colour) & 1:
        edge = words[lane, start + blocks.half]
        words[lane, start] = ((edge << U1) & blocks.used & ~blocks.left) | ((edge >> around) & blocks.left)
    else:
        edge = words[lane, start]
        words[lane, start + blocks.half] = ((edge >> U1) & ~blocks.right) | ((edge << around) & blocks.right)


@njit(cache=True, nogil=True, error_model="numpy")
def to_row(words, lane, blocks, row):
    """Copy the spins of a lane to a row of bits (`mc.kernels.batch`), row (words,) uint64."""
    block, scratch = np.zeros(64, np.uint64), np.empty(64, np.uint64)
    row[:] = U0
    y = x = 0
    while y < blocks.height:
        _gather(words, lane, blocks, y, x, block)
        transpose(block, scratch)
        y, x = _exchange(block, blocks, y, x, row, True)


@njit(cache=True, nogil=True, error_model="numpy")
def from_row(words, lane, blocks, row):
    """Copy the spins of a row of bits to a lane."""
    block, scratch = np.empty(64, np.uint64), np.empty(64, np.uint64)
    y = x = 0
    while y < blocks.height:
        block[:] = U0
        y_next, x_next = _exchange(block, blocks, y, x, row, False)
        transpose(block, scratch)
        _scatter(words, lane, blocks, y, x, block)
        y, x = y_next, x_next
    for colour in range(2):
        for y in range(blocks.height):
            close_row(words, lane, colour, y, blocks)


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _where(y, x, blocks):
    """Where word (y, x) is stored."""
    return (((x + y) & 1) * blocks.height + y) * (blocks.half + 1) + ((x + 1) >> 1)


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _gather(words, lane, blocks, y, x, block):
    """block[i] = the word that is number i, row by row, from (y, x) on."""
    for i in range(64):
        if y < blocks.height:
            block[i] = words[lane, _where(y, x, blocks)]
        x += 1
        if x == 2 * blocks.half:
            y, x = y + 1, 0


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _scatter(words, lane, blocks, y, x, block):
    """The reverse of `_gather`."""
    for i in range(64):
        if y < blocks.height:
            words[lane, _where(y, x, blocks)] = block[i]
        x += 1
        if x == 2 * blocks.half:
            y, x = y + 1, 0


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _exchange(block, blocks, y, x, row, out):
    """Move the spins of 64 words, from (y, x) on, between a row and the transposed block; returns the next (y, x).

    Bit i of block[b] is the spin of word i in block b of the lattice, so runs of bits are runs of sites. Where they
    are moved to, all is zero before.
    """
    width, at = 2 * blocks.half, 0
    while at < 64 and y < blocks.height:
        length = min(width - x, 64 - at)
        mask, shift = ALL >> np.uint64(64 - length), np.uint64(at)
        b = 0
        for by in range(blocks.down):
            site = (by * blocks.height + y) * blocks.across * width + x
            for _ in range(blocks.across):
                word, begin = site >> 6, site & 63
                low, high = np.uint64(begin), np.uint64(64 - begin)
                if out:
                    run = (block[b] >> shift) & mask
                    row[word] |= run << low
                    if begin + length > 64:
                        row[word + 1] |= run >> high
                else:
                    run = row[word] >> low
                    if begin + length > 64:
                        run |= row[word + 1] << high
                    block[b] |= (run & mask) << shift
                b += 1
                site += width
        at += length
        x += length
        if x == width:
            y, x = y + 1, 0
    return y, x
