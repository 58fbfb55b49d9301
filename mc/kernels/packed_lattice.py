"""Batch of replicas of the square-lattice ferromagnet, 64 spins of a replica in a word: Metropolis, one J, no field.

E = constant - J sum over nearest neighbours of s s', J > 0, on a torus of even sides. A unit is one replica. Spins
lie as `packed_blocks` says, and all words of a colour are updated before those of the other.

A spin with at least two of its four bonds broken flips. With one broken bond it flips with probability
p = exp(-4 beta J), with none with p^2 (random bits: `packed_words`, exact to 1e-8). Where beta times the typical
field 2 J is below `HEAT_BATH_BELOW`, Metropolis accepts nearly every flip, so it turns the lattice over in every
sweep and randomises little (`metropolis`); there a flip needs a fair coin besides. That halves the rates of a flip
and of its reverse alike, so each single-spin update keeps detailed balance, and with it the Boltzmann law; at
beta = 0 every spin is drawn anew.

There is no update of a random site as in `metropolis`. States in which every flip is free of cost keep to themselves
without it; their weight falls exponentially with the number of spins, 1e-5 at 4 x 4, nothing to speak of at 8 x 8.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from mc.hamiltonian import Hamiltonian
from mc.kernels import batch as generic
from mc.kernels.batch import implements
from mc.kernels.bernoulli import VECTOR, broadcast, load, store
from mc.kernels.metropolis import HEAT_BATH_BELOW
from mc.kernels.overlaps import popcount
from mc.kernels.packed_blocks import blocks_of, close_row, from_row, layout_for, rows_beside, to_row
from mc.kernels.packed_words import DIGITS, draw, plan, slots, toss

NAME = "packed lattice"
RULES = ("metropolis",)
MOST_WORDS = 64  # of a draw, of which at most one bit in 128 needs correction
U1 = np.uint64(1)


class PackedLattice(NamedTuple):
    """Fields of `mc.kernels.batch`, and the layout."""

    beta: np.ndarray  # (lanes,) float64
    energy: np.ndarray  # (lanes,) float64
    flipped: np.ndarray  # (lanes,) int64
    words: np.ndarray  # (lanes, 2 height (half + 1)) uint64, colour by colour, row by row
    before: np.ndarray  # the same before the last sweep, where flips are counted
    streams: np.ndarray  # (lanes, 4, VECTOR + 1) uint64
    bits: np.ndarray  # (lanes, 3 times the words of a colour, up to full draws) uint64: for p, for p^2, and coins
    digits: np.ndarray  # (lanes, 2, DIGITS + 2) uint64, with
    hits: np.ndarray  # (lanes, 2) float64, of `packed_words.plan`, for the beta
    planned: np.ndarray  # (lanes,) float64
    layout: np.ndarray  # (7,) uint64, the fields of `packed_blocks.Blocks`
    n_words: int  # of a draw
    coupling: float
    constant: float


def refusal(hamiltonian: Hamiltonian, rule: str) -> str:
    """Why this kernel cannot run a model under a rule, "" if it can."""
    lattice = hamiltonian.lattice
    if rule not in RULES:
        return f"it moves spins by metropolis only, not by {rule}"
    if lattice is None or lattice.dimension != 2 or not all(lattice.periodic):
        return "a periodic two-dimensional lattice is needed"
    if any(side % 2 for side in lattice.shape):
        return f"a lattice of {lattice.shape[0]} x {lattice.shape[1]} sites has a side that is not even"
    if set(hamiltonian.interactions) != {2}:
        return "bonds, and nothing else, are needed"
    sites, couplings = hamiltonian.bonds
    if couplings.min() <= 0.0 or couplings.min() != couplings.max():
        return "couplings that are all equal and positive are needed"
    neighbours = np.sort(lattice.bonds, axis=1)
    neighbours = neighbours[np.lexsort(neighbours.T[::-1])]  # the order of Hamiltonian.bonds
    if not np.array_equal(sites, neighbours):
        return "all bonds between nearest neighbours, and no others, are needed"
    return ""


def width(n_lanes: int) -> int:
    """Lanes of a unit for a run of n_lanes replicas."""
    return 1


def cost(hamiltonian: Hamiltonian, n_replicas: int) -> float:
    """About how many ns a sweep takes per site, all replicas together."""
    _, _, height, half = (int(n) for n in layout_for(hamiltonian.lattice.shape)[:4])
    return n_replicas * (150.0 + 40.0 * height + 6.5 * height * half) / hamiltonian.n_spins


def make(
    hamiltonian: Hamiltonian,
    beta: np.ndarray,
    seed: int,
    path: tuple[int, ...],
    rule: str,
    grid: tuple[int, int] | None = None,
) -> PackedLattice:
    """A batch of len(beta) replicas, all spins up; streams of the seed's use `path`; grid as in `layout_for`."""
    lanes, layout = len(beta), layout_for(hamiltonian.lattice.shape, grid)
    height, half = int(layout[2]), int(layout[3])
    draws = -(-height * half // MOST_WORDS)
    n_words = VECTOR * -(-height * half // (draws * VECTOR))
    words = np.full((lanes, 2 * height * (half + 1)), layout[4])
    return PackedLattice(
        beta=np.array(beta, np.float64),
        energy=np.zeros(lanes),
        flipped=np.zeros(lanes, np.int64),
        words=words,
        before=words.copy(),
        streams=slots(seed, *path, lanes=lanes),
        bits=np.zeros((lanes, 3 * draws * n_words), np.uint64),
        digits=np.zeros((lanes, 2, DIGITS + 2), np.uint64),
        hits=np.zeros((lanes, 2)),
        planned=np.full(lanes, np.nan),
        layout=layout,
        n_words=n_words,
        coupling=float(hamiltonian.bonds[1][0]),
        constant=hamiltonian.constant,
    )


def set_betas(batch: PackedLattice, beta: np.ndarray) -> None:
    """Give the lanes other inverse temperatures (lanes,)."""
    batch.beta[:] = beta


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _flips(spins, left, right, near, far, with_p, with_q):
    """Spins to flip, a word or a vector: two bonds broken, or one and with_p is set, or none and with_q is set."""
    a, b, c, d = spins ^ left, spins ^ right, spins ^ near, spins ^ far
    a_or_b, c_or_d = a | b, c | d
    some = a_or_b | c_or_d
    return (a & b) | (c & d) | (a_or_b & c_or_d) | (some & with_p) | (~some & with_q)


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _update_row(words, lane, colour, y, blocks, bits, with_p, with_q, coin, lazy):
    own, beside, near, far, up, down = rows_beside(colour, y, blocks)
    used, vectors = broadcast(blocks.used), blocks.half - blocks.half % VECTOR
    w, b = lane * words.shape[1], lane * bits.shape[1]
    for j in range(0, vectors, VECTOR):
        spins, left, right = load(words, w + own + j), load(words, w + beside + j), load(words, w + beside + j + 1)
        turned = load(words, w + far + j)
        turned = ((turned << up) | (turned >> down)) & used
        p, q = load(bits, b + with_p + j), load(bits, b + with_q + j)
        flips = _flips(spins, left, right, load(words, w + near + j), turned, p, q) & used
        if lazy:
            flips = flips & load(bits, b + coin + j)
        store(words, w + own + j, spins ^ flips)
    for j in range(vectors, blocks.half):
        spins, left, right = words[lane, own + j], words[lane, beside + j], words[lane, beside + j + 1]
        turned = words[lane, far + j]
        turned = ((turned << up) | (turned >> down)) & blocks.used
        p, q = bits[lane, with_p + j], bits[lane, with_q + j]
        flips = _flips(spins, left, right, words[lane, near + j], turned, p, q) & blocks.used
        if lazy:
            flips = flips & bits[lane, coin + j]
        words[lane, own + j] = spins ^ flips


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _sweep(words, lane, streams, bits, digits, hits, blocks, n_words, lazy):
    part = bits.shape[1] // 3
    for colour in range(2):
        at = 0
        while at < part:
            draw(streams, lane, bits, at, part + at, n_words, digits, hits)
            if lazy:
                toss(streams, lane, bits, 2 * part + at, n_words)
            at += n_words
        at = 0
        for y in range(blocks.height):
            _update_row(words, lane, colour, y, blocks, bits, at, part + at, 2 * part + at, lazy)
            close_row(words, lane, colour, y, blocks)
            at += blocks.half


# Inlined, and with loops instead of branches around what is seldom done: so the compiler sees that it need not count
# references to the arrays, which would take longer than a sweep of 64 x 64 spins.
@implements(generic.sweep, PackedLattice)
@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def sweep(batch, unit, n_sweeps, count):
    beta, blocks = batch.beta[unit], blocks_of(batch.layout)
    if batch.planned[unit] != beta:
        p = math.exp(-4.0 * beta * batch.coupling)
        plan(p, p * p, batch.n_words, unit, batch.digits, batch.hits)
        batch.planned[unit] = beta
    lazy = 2.0 * beta * batch.coupling < HEAT_BATH_BELOW
    for number in range(n_sweeps):
        _remember(batch.words, batch.before, unit, count and number == n_sweeps - 1)
        _sweep(batch.words, unit, batch.streams, batch.bits, batch.digits, batch.hits, blocks, batch.n_words, lazy)
    batch.flipped[unit] = _changed(batch.words, batch.before, unit, blocks, count and n_sweeps > 0)


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _remember(words, before, lane, count):
    for place in range(words.shape[1] if count else 0):
        before[lane, place] = words[lane, place]


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _changed(words, before, lane, blocks, count):
    flips = 0
    for colour in range(2 if count else 0):
        for y in range(blocks.height):
            own = rows_beside(colour, y, blocks)[0]
            for place in range(own, own + blocks.half):
                flips += popcount(words[lane, place] ^ before[lane, place])
    return flips


@implements(generic.refresh, PackedLattice)
@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def refresh(batch, unit):
    measure(batch, unit)


@implements(generic.measure, PackedLattice)
@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def measure(batch, unit):
    words, blocks, broken = batch.words, blocks_of(batch.layout), 0
    for y in range(blocks.height):  # every bond has one end of colour 0
        own, beside, near, far, up, down = rows_beside(0, y, blocks)
        # Unsigned, as indices from the end would have the compiler count word by word.
        own, beside, near, far = np.uint64(own), np.uint64(beside), np.uint64(near), np.uint64(far)
        for j in range(np.uint64(blocks.half)):
            spins, turned = words[unit, own + j], words[unit, far + j]
            turned = ((turned << up) | (turned >> down)) & blocks.used
            broken += popcount(spins ^ words[unit, beside + j]) + popcount(spins ^ words[unit, beside + j + U1])
            broken += popcount(spins ^ words[unit, near + j]) + popcount(spins ^ turned)
    bonds = 4 * blocks.height * blocks.half * blocks.down * blocks.across
    batch.energy[unit] = batch.constant - batch.coupling * np.float64(bonds - 2 * broken)


@implements(generic.exchange, PackedLattice)
@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def exchange(batch, a, b):
    batch.beta[a], batch.beta[b] = batch.beta[b], batch.beta[a]  # the next sweep sees what it has planned for


@implements(generic.store, PackedLattice)
@njit(cache=True, nogil=True, error_model="numpy")
def store_unit(batch, unit, rows):
    to_row(batch.words, unit, blocks_of(batch.layout), rows[0])


@implements(generic.load, PackedLattice)
@njit(cache=True, nogil=True, error_model="numpy")
def load_unit(batch, unit, rows):
    from_row(batch.words, unit, blocks_of(batch.layout), rows[0])
