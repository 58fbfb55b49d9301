"""Magnetization, overlaps and lowest Fourier modes of rows of bits (`mc.kernels.batch`), by XOR and popcount.

Bit i of a XOR b is set where the overlap field q_i = s_i^a s_i^b is -1, so every mean over sites or bonds is a count
of bits. With `all_up` as one of the rows, q_i is a spin and the same functions give the magnetization.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from llvmlite.ir import IRBuilder
from numba import njit, types
from numba.extending import intrinsic

from mc.kernels.batch import pack, words
from mc.lattice import Lattice

U1, U6, U63 = np.uint64(1), np.uint64(6), np.uint64(63)
COUNTER_BITS = 32  # binary places of a number of words


class Links(NamedTuple):
    """The bonds of a link overlap, either as shifted rows or one by one.

    A bond from i to i + d has bit i set in the mask of shift d: one pass over the words does all bonds of a shift.
    """

    count: int  # number of bonds
    shifts: np.ndarray  # (D,) uint64, D = 0 where the bonds are taken one by one
    masks: np.ndarray  # (D, words) uint64
    sites: np.ndarray  # (bonds, 2) int32, empty where shifts are used


class Planes(NamedTuple):
    """The planes of sites whose sums make the lowest Fourier modes, and exp(2 pi i plane / L)."""

    masks: np.ndarray  # (axes, L, words) uint64
    span: np.ndarray  # (axes, L, 2) int64: the first word of a plane and the one after its last
    period: np.ndarray  # (axes,) int64: after how many words the masks repeat, fewer than there are; 0 if never
    cosine: np.ndarray  # (L,) float64
    sine: np.ndarray  # (L,) float64


def links(bonds: np.ndarray, n_spins: int) -> Links:
    """Bonds (n, 2), integers, in the form that `link_overlap` reads: shifted rows where they take fewer steps.

    Raises ValueError for sites outside 0..N-1, a bond of a site with itself, or a bond that is there twice.
    """
    pairs = np.sort(np.asarray(bonds, np.int64).reshape(-1, 2), axis=1)
    if len(pairs) and (pairs.min() < 0 or pairs.max() >= n_spins):
        raise ValueError(f"links: a site is outside 0..{n_spins - 1}")
    if (pairs[:, 0] == pairs[:, 1]).any():
        raise ValueError("links: a bond joins a site with itself")
    if len(np.unique(pairs, axis=0)) < len(pairs):
        raise ValueError("links: a bond is there twice")
    shifts, which = np.unique(pairs[:, 1] - pairs[:, 0], return_inverse=True)
    if len(shifts) * words(n_spins) > len(pairs):
        none = np.zeros((0, words(n_spins)), np.uint64)
        return Links(len(pairs), np.zeros(0, np.uint64), none, pairs.astype(np.int32))
    first = np.zeros((len(shifts), n_spins), np.int8)
    first[which, pairs[:, 0]] = 1
    return Links(len(pairs), shifts.astype(np.uint64), pack(first), np.zeros((0, 2), np.int32))


def plane_masks(lattice: Lattice) -> np.ndarray:
    """Bits of the sites of each plane normal to an axis, (axes, L, words) uint64.

    The axes are the longest periodic ones, those that have the smallest wave vector 2 pi / L; there are none on an
    open lattice, and the shape is then (0, 0, words).
    """
    wrapped = [length for length, periodic in zip(lattice.shape, lattice.periodic, strict=True) if periodic]
    longest = max(wrapped, default=0)
    axes = [a for a in range(lattice.dimension) if lattice.periodic[a] and lattice.shape[a] == longest]
    if not axes:
        return np.zeros((0, 0, words(lattice.n_sites)), np.uint64)
    return pack(lattice.coordinates[:, axes].T[:, None, :] == np.arange(longest)[:, None])


def planes(lattice: Lattice) -> Planes:
    """`plane_masks` with the phases, for `lowest_mode`."""
    masks = plane_masks(lattice)
    angle = 2.0 * np.pi * np.arange(masks.shape[1]) / max(masks.shape[1], 1)
    there = masks != 0
    span = np.stack([there.argmax(axis=-1), there.shape[-1] - there[..., ::-1].argmax(axis=-1)], axis=-1)
    period = np.array([repeats_after(one) for one in masks], np.int64)
    return Planes(masks, span, period, np.cos(angle), np.sin(angle))


def repeats_after(masks: np.ndarray) -> int:
    """The smallest number of words after which all masks (L, words) repeat, at most half of the words; 0 if none."""
    return next((p for p in range(1, masks.shape[1] // 2 + 1) if (masks[:, p:] == masks[:, :-p]).all()), 0)


def all_up(n_spins: int) -> np.ndarray:
    """The row of bits of the state of N spins +1, (words,) uint64."""
    return pack(np.ones(n_spins, np.int8))


@intrinsic
def popcount(typing_context, word):
    """Number of bits set in a uint64, as int64: a signed and an unsigned integer would add up to a float64."""

    def code(context, builder: IRBuilder, signature, arguments):
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), code


# With Python's error model, the check of every division for zero takes ten times as long as an overlap.
@njit(cache=True, nogil=True, error_model="numpy")
def magnetization(row, n_spins):
    """Mean spin of one row of bits (words,), float64 from -1 to 1."""
    up = 0
    for word in row:
        up += popcount(word)
    return (2 * up - n_spins) / n_spins


@njit(cache=True, nogil=True, error_model="numpy")
def overlap(row_a, row_b, n_spins):
    """q = sum_i s_i^a s_i^b / N of two rows of bits (words,), float64 from -1 to 1."""
    unlike = 0
    for word in range(row_a.shape[0]):
        unlike += popcount(row_a[word] ^ row_b[word])
    return (n_spins - 2 * unlike) / n_spins


@njit(cache=True, nogil=True, error_model="numpy")
def link_overlap(row_a, row_b, bonds):
    """q_l = mean over the bonds (i, j) of q_i q_j, q_i = s_i^a s_i^b; bonds: Links. NaN without bonds."""
    unlike = 0
    n_words = np.uint64(row_a.shape[0])
    for d in range(bonds.shifts.shape[0]):
        skip, right = bonds.shifts[d] >> U6, bonds.shifts[d] & U63
        left = U63 - right  # of a word moved by one already: a move by 64 in one go is not defined
        # Unsigned, and without a slice: indices that may count from the end take four times as long.
        word, last = np.uint64(0), n_words - skip - U1
        while word < last:
            there = (row_a[word + skip] ^ row_b[word + skip]) >> right
            there |= ((row_a[word + skip + U1] ^ row_b[word + skip + U1]) << U1) << left
            unlike += popcount((row_a[word] ^ row_b[word] ^ there) & bonds.masks[d, word])
            word += U1
        there = (row_a[last + skip] ^ row_b[last + skip]) >> right
        unlike += popcount((row_a[last] ^ row_b[last] ^ there) & bonds.masks[d, last])
    for bond in range(bonds.sites.shape[0]):
        i, j = np.uint64(bonds.sites[bond, 0]), np.uint64(bonds.sites[bond, 1])
        q_i, q_j = (row_a[i >> U6] ^ row_b[i >> U6]) >> (i & U63), (row_a[j >> U6] ^ row_b[j >> U6]) >> (j & U63)
        unlike += np.int64((q_i ^ q_j) & U1)
    return (bonds.count - 2 * unlike) / bonds.count


@njit(cache=True, nogil=True, error_model="numpy")
def count_columns(row_a, row_b, columns):
    """How often each bit differs in every P-th word of two rows, as binary places: columns (P, places), zeros before.

    Returns the number of places in use.
    """
    used, at = 1, 0
    for word in range(row_a.shape[0]):
        carry = row_a[word] ^ row_b[word]
        place = 0
        while carry:
            both = columns[at, place] & carry
            columns[at, place] ^= carry
            carry = both
            place += 1
        used = max(used, place)
        at = at + 1 if at + 1 < columns.shape[0] else 0
    return used


@njit(cache=True, nogil=True, error_model="numpy")
def lowest_mode(row_a, row_b, n_spins, normal):
    """|q(k)|^2 = |sum_x q_x exp(i k x)|^2 / N^2 at k = 2 pi / L along an axis, mean over the axes of normal: Planes.

    With `overlap` squared at k = 0 it makes the second-moment correlation length. NaN where there are no axes.
    """
    total = 0.0
    for axis in range(normal.masks.shape[0]):
        period, used = normal.period[axis], 0
        columns = np.zeros((period, COUNTER_BITS), np.uint64)
        if period > 0:
            used = count_columns(row_a, row_b, columns)
        real, imaginary = 0.0, 0.0
        for plane in range(normal.masks.shape[1]):
            unlike = 0
            if period > 0:
                for word in range(period):
                    mask = normal.masks[axis, plane, word]
                    for place in range(used if mask else 0):
                        unlike += popcount(columns[word, place] & mask) << place
            else:
                for word in range(normal.span[axis, plane, 0], normal.span[axis, plane, 1]):
                    unlike += popcount((row_a[word] ^ row_b[word]) & normal.masks[axis, plane, word])
            real += unlike * normal.cosine[plane]
            imaginary += unlike * normal.sine[plane]
        total += real * real + imaginary * imaginary
    # A plane's sum is its size - 2 unlike, and equal sizes add up to nothing at k > 0.
    return 4.0 * total / (np.float64(n_spins) * np.float64(n_spins) * normal.masks.shape[0])
