"""Batch of +-J models, 64 replicas a word: bit l of the word of a site is the spin of lane l, at a beta of its own.

Multispin coding counts the satisfied bonds of a spin in all lanes with a few logic operations (Jacobs and Rebbi, J.
Comput. Phys. 41, 203 (1981); Isakov et al., Comput. Phys. Commun. 192, 265 (2015)). Unlike there, every lane has
random bits of its own, so that the lanes are independent chains, and acceptance probabilities of its own.

The sites of a class, of one colour and one number of neighbours, feel nothing of each other; two vectors of words are
updated at a time. A flip of cost dE is accepted with probability
min(1, exp(-beta dE)), exact to 2^-64. Where beta times the typical field of a site is below `HEAT_BATH_BELOW` a flip
needs a fair coin as well: Metropolis in a fixed order accepts nearly every flip there and randomises nothing, whereas
with the coin a spin is drawn anew at beta = 0. The coin depends on beta and the site only and halves the
probabilities of a flip and of its reverse alike, so detailed balance holds.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from mc.hamiltonian import Hamiltonian
from mc.kernels import batch as generic
from mc.kernels.batch import implements
from mc.kernels.bernoulli import BITS, VECTOR, bernoulli, broadcast, gather, load, store, whole_words
from mc.kernels.bit_counts import (
    COUNTER,
    count_bits,
    exchange_lanes,
    full_adder,
    lane_totals,
    rows_to_words,
    transpose,
    words_to_rows,
)
from mc.kernels.metropolis import HEAT_BATH_BELOW
from mc.kernels.random_streams import advance, streams
from mc.kernels.word_graph import MAX_DEGREE, columns_of, graph_arrays

NAME = "bit planes"
RULES = ("metropolis",)
LEVELS = MAX_DEGREE // 2  # positive costs of a flip of one site: 2 |J| times 1, 3, 5 or times 2, 4, 6
COINS = 2 * LEVELS * BITS  # where the lanes that need a coin begin in `planes`, by number of neighbours
ROW = COINS + VECTOR * -(-(MAX_DEGREE + 1) // VECTOR)
U0, U1, U33, ALL = np.uint64(0), np.uint64(1), np.uint64(33), np.uint64(2**64 - 1)


class PlusMinusWords(NamedTuple):
    """Fields of `mc.kernels.batch`, the spins, what the lanes differ in, and the graph.

    The word of site i is words[unit, slot[i]]. VECTOR slots are a vector; classes are padded to whole vectors. A
    column of the graph is one neighbour of every word of a vector, with a mask of the positive couplings; a word
    without neighbour lists itself with a negative coupling, a bond that is never satisfied.
    """

    beta: np.ndarray  # (lanes,) float64
    energy: np.ndarray  # (lanes,) float64
    flipped: np.ndarray  # (lanes,) int64
    words: np.ndarray  # (units, slots) uint64
    planes: np.ndarray  # (units, ROW) uint64, see `set_planes`
    streams: np.ndarray  # (units, 4, VECTOR) uint64
    strength: float  # |J|
    highest: float  # the energy if no bond were satisfied
    slot: np.ndarray  # (N,) int32
    sites: np.ndarray  # (vectors,) uint8: which words of a vector are sites
    classes: np.ndarray  # (classes, 4) int64: first vector, the one after the last, first column, neighbours
    neighbours: np.ndarray  # (columns * VECTOR,) int32 slots; an even number of columns a vector
    positive: np.ndarray  # (columns,) uint8
    owned: np.ndarray  # (columns,) uint8: where the word is the end of the bond that counts it


def refusal(hamiltonian: Hamiltonian, rule: str) -> str:
    """Why this kernel cannot run a model under a rule, "" if it can."""
    if rule not in RULES:
        return f"rule {rule} is not {RULES[0]}"
    if not hamiltonian.is_plus_minus_j:
        return "the interactions are not bonds of one strength, +J or -J, alone"
    degree = int(np.diff(hamiltonian.table.start).max())
    return f"a site has {degree} neighbours, more than {MAX_DEGREE}" if degree > MAX_DEGREE else ""


def width(n_lanes: int) -> int:
    """Lanes of a unit for a run of n_lanes replicas."""
    return 64


def cost(hamiltonian: Hamiltonian, n_replicas: int) -> float:
    """About how many ns a sweep takes per site, all replicas together."""
    return -(-n_replicas // 64) * (3.7 + 0.26 * len(hamiltonian.table.coupling) / hamiltonian.n_spins)


def make(hamiltonian: Hamiltonian, beta: np.ndarray, seed: int, path: tuple[int, ...], rule: str) -> PlusMinusWords:
    """A batch of len(beta) replicas, all spins up; streams of the seed's use `path`.

    Raises ValueError where len(beta) is no multiple of 64, or with the reason of `refusal`.
    """
    problem = refusal(hamiltonian, rule) or ("" if len(beta) % 64 == 0 else f"{len(beta)} replicas, not 64 a unit")
    if problem:
        raise ValueError(f"{NAME}: {problem}")
    units, couplings = len(beta) // 64, hamiltonian.bonds[1]
    strength = abs(float(couplings[0]))
    graph = graph_arrays(hamiltonian.table)
    states = streams(seed, *path, count=units * VECTOR)
    batch = PlusMinusWords(
        beta=np.empty(len(beta)),
        energy=np.full(len(beta), hamiltonian.energy(np.ones(hamiltonian.n_spins))),
        flipped=np.zeros(len(beta), np.int64),
        words=np.full((units, VECTOR * len(graph["sites"])), ALL),
        planes=np.zeros((units, ROW), np.uint64),
        streams=np.ascontiguousarray(states.reshape(units, VECTOR, 4).swapaxes(1, 2)),
        strength=strength,
        highest=hamiltonian.constant + strength * len(couplings),
        **graph,
    )
    set_betas(batch, beta)
    return batch


def set_betas(batch: PlusMinusWords, beta: np.ndarray) -> None:
    """Give the lanes other inverse temperatures (lanes,)."""
    batch.beta[:] = beta
    set_planes(batch.beta, batch.strength, batch.planes)


@njit(cache=True, nogil=True)
def set_planes(beta, strength, planes):
    """Fill planes (lanes / 64, ROW) with what lanes differ in: bit l % 64 of the words of row l // 64 is lane l's.

    First the binary places of the probabilities exp(-2 |J| beta m), BITS words each, of m = 1, 3, 5 and 2, 4, 6; then
    from COINS on whether flips of sites of 0, 1, ... MAX_DEGREE neighbours need a coin.
    """
    block, scratch = np.empty(64, np.uint64), np.empty(64, np.uint64)
    for unit in range(planes.shape[0]):
        row, betas = planes[unit], beta[64 * unit : 64 * unit + 64]
        for m in range(1, MAX_DEGREE + 1):
            for lane in range(64):
                scaled = math.exp(-2.0 * strength * m * betas[lane]) * 2.0**BITS
                block[lane] = np.uint64(scaled) if scaled < 2.0**BITS else ALL
            transpose(block, scratch)
            first = first_probability(m) + BITS * ((m - 1) // 2)
            for place in range(BITS):
                row[first + place] = block[BITS - 1 - place]
        for degree in range(MAX_DEGREE + 1):
            coins = U0
            for lane in range(64):
                # Sites of two neighbours always need one, as in `local_field.typical_fields`.
                if degree == 2 or betas[lane] * strength * math.sqrt(degree) < HEAT_BATH_BELOW:
                    coins |= U1 << np.uint64(lane)
            row[COINS + degree] = coins


@njit(cache=True, nogil=True)
def first_probability(degree):
    """Where in a row of `planes` the probabilities of sites of this number of neighbours begin."""
    return 0 if degree % 2 else LEVELS * BITS


@njit(cache=True, nogil=True, forceinline=True)
def satisfied_bonds(words, own, neighbours, positive, column):
    """Which bonds of one column are satisfied, for the vector of words `own`."""
    return own ^ gather(words, neighbours, VECTOR * column) ^ whole_words(positive[column])


@njit(cache=True, nogil=True, forceinline=True)
def count_satisfied(words, own, neighbours, positive, column, degree):
    """Satisfied bonds of each spin of a vector, plus 3 - degree // 2, as bits of value (4, 2, 1).

    k satisfied bonds of z make a flip cost 2 |J| (2 k - z). As we begin to count, costs are positive from 4 on, and
    the bits of value 2 and 1 number the cases of `set_planes`.
    """
    offset = 3 - degree // 2
    ones = broadcast(ALL if offset & 1 else U0)
    twos = broadcast(ALL if offset & 2 else U0)
    fours = broadcast(U0)
    for pair in range(column, column + columns_of(degree), 2):
        a = satisfied_bonds(words, own, neighbours, positive, pair)
        b = satisfied_bonds(words, own, neighbours, positive, pair + 1)
        ones, carry = full_adder(ones, a, b)
        fours = fours | (twos & carry)
        twos = twos ^ carry
    return fours, twos, ones


@njit(cache=True, nogil=True, forceinline=True)
def sweep_class(words, planes, neighbours, positive, vector, end, column, degree, stirs, s0, s1, s2, s3):
    """Update the spins of the vectors `vector` to `end` - 1 in 64 lanes; the rest as in `classes`.

    stirs: with a coin in every lane. Returns the generator's state.
    """
    first, columns = first_probability(degree), columns_of(degree)
    coin = ALL if stirs else planes[COINS + degree]
    for at in range(vector * VECTOR, end * VECTOR, 2 * VECTOR):
        own_a, own_b = load(words, at), load(words, at + VECTOR)
        a, high_a, low_a = count_satisfied(words, own_a, neighbours, positive, column, degree)
        b, high_b, low_b = count_satisfied(words, own_b, neighbours, positive, column + columns, degree)
        flips_a, flips_b, s0, s1, s2, s3 = bernoulli(
            a, high_a, low_a, b, high_b, low_b, planes, first, s0, s1, s2, s3
        )
        flips_a = flips_a | ~a
        flips_b = flips_b | ~b
        if coin:
            random, s0, s1, s2, s3 = advance(s0, s1, s2, s3)
            flips_a = flips_a & (random | ~broadcast(coin))
            random, s0, s1, s2, s3 = advance(s0, s1, s2, s3)
            flips_b = flips_b & (random | ~broadcast(coin))
        store(words, at, own_a ^ flips_a)
        store(words, at + VECTOR, own_b ^ flips_b)
        column += 2 * columns
    return s0, s1, s2, s3


@implements(generic.sweep, PlusMinusWords)
@njit(cache=True, nogil=True)
def sweep(batch, unit, n_sweeps, count):
    words, planes, state, classes = batch.words[unit], batch.planes[unit], batch.streams[unit], batch.classes
    neighbours, positive = batch.neighbours, batch.positive
    s0, s1, s2, s3 = load(state[0], 0), load(state[1], 0), load(state[2], 0), load(state[3], 0)
    before, chosen = words, np.empty(VECTOR, np.uint64)
    for n in range(n_sweeps):
        if count and n == n_sweeps - 1:
            before = words.copy()
        for k in range(classes.shape[0]):
            vector, end, column, degree = classes[k]
            s0, s1, s2, s3 = sweep_class(
                words, planes, neighbours, positive, vector, end, column, degree, False, s0, s1, s2, s3
            )
        # A few sites once more, each spin with a coin, for the reason given in `metropolis`.
        random, s0, s1, s2, s3 = advance(s0, s1, s2, s3)
        store(chosen, 0, random)
        pair = np.int64((chosen[0] >> U33) % np.uint64(batch.sites.shape[0] // 2))
        k = 0
        while classes[k, 1] <= 2 * pair:
            k += 1
        vector, degree = classes[k, 0], classes[k, 3]
        column = classes[k, 2] + (2 * pair - vector) * columns_of(degree)
        s0, s1, s2, s3 = sweep_class(
            words, planes, neighbours, positive, 2 * pair, 2 * pair + 2, column, degree, True, s0, s1, s2, s3
        )
    store(state[0], 0, s0)
    store(state[1], 0, s1)
    store(state[2], 0, s2)
    store(state[3], 0, s3)
    if count and n_sweeps > 0:
        counter, waiting = np.zeros(COUNTER, np.uint64), 0
        for vector in range(batch.sites.shape[0]):
            changed = load(before, vector * VECTOR) ^ load(words, vector * VECTOR)
            waiting = count_bits(counter, waiting, changed & whole_words(batch.sites[vector]))
        lane_totals(counter, waiting, batch.flipped[64 * unit : 64 * unit + 64])


@implements(generic.measure, PlusMinusWords)
@njit(cache=True, nogil=True)
def measure(batch, unit):
    words, classes, neighbours, positive = batch.words[unit], batch.classes, batch.neighbours, batch.positive
    counter, waiting, totals = np.zeros(COUNTER, np.uint64), 0, np.empty(64, np.int64)
    for kind in range(classes.shape[0]):
        vector, end, column, degree = classes[kind]
        for at in range(vector * VECTOR, end * VECTOR, VECTOR):
            for _ in range(columns_of(degree)):
                mask = batch.owned[column]
                if mask:
                    satisfied = satisfied_bonds(words, load(words, at), neighbours, positive, column)
                    waiting = count_bits(counter, waiting, satisfied & whole_words(mask))
                column += 1
    lane_totals(counter, waiting, totals)
    for lane in range(64):
        batch.energy[64 * unit + lane] = batch.highest - 2.0 * batch.strength * totals[lane]


@implements(generic.refresh, PlusMinusWords)
@njit(cache=True, nogil=True)
def refresh(batch, unit):
    measure(batch, unit)


@implements(generic.exchange, PlusMinusWords)
@njit(cache=True, nogil=True)
def exchange(batch, a, b):
    batch.beta[a], batch.beta[b] = batch.beta[b], batch.beta[a]
    exchange_lanes(batch.planes[a // 64], batch.planes[b // 64], np.uint64(a % 64), np.uint64(b % 64))


@implements(generic.store, PlusMinusWords)
@njit(cache=True, nogil=True)
def store_rows(batch, unit, rows):
    words_to_rows(batch.words[unit], batch.slot, rows)


@implements(generic.load, PlusMinusWords)
@njit(cache=True, nogil=True)
def load_rows(batch, unit, rows):
    rows_to_words(rows, batch.slot, batch.words[unit])
