"""Batch of single replicas of any pairwise Hamiltonian, bonds and fields on any graph: Metropolis or heat bath.

The rules are those of `metropolis` and `heatbath`, exact in float64; what differs is how fast a processor gets
through them. A flip is decided without a branch on the state, sites are visited in two passes (even numbers, then
odd), so that an update seldom waits for the one before, and a field is a site whose spin is always +1.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from mc.hamiltonian import Hamiltonian
from mc.kernels import batch as generic
from mc.kernels.batch import implements
from mc.kernels.local_field import kernel_arrays, typical_fields
from mc.kernels.metropolis import HEAT_BATH_BELOW
from mc.kernels.random_streams import advance, streams, uniform

NAME = "graph"
RULES = ("metropolis", "heatbath")
CELLS = 64  # of the tables, per unit of x = beta dE
RANGE = 24  # beyond it the exponential is taken, where a random number is that small
METROPOLIS = np.append(np.exp(-np.arange(RANGE * CELLS + 1) / CELLS), 0.0)
HEAT_BATH = np.append(1.0 / (1.0 + np.exp(np.arange(-RANGE * CELLS, RANGE * CELLS + 1) / CELLS)), 0.0)
U0, U1, U2 = np.uint64(0), np.uint64(1), np.uint64(2)


class GraphReplicas(NamedTuple):
    """Fields of `mc.kernels.batch`, and the terms of each site, an even number of them."""

    beta: np.ndarray  # (lanes,) float64
    energy: np.ndarray  # (lanes,) float64
    flipped: np.ndarray  # (lanes,) int64
    spins: np.ndarray  # (lanes, N + 1) float64, the last one +1
    streams: np.ndarray  # (lanes, 4) uint64
    heat_bath: bool
    constant: float
    start: np.ndarray  # (N + 1,) uint64
    coupling: np.ndarray  # (terms,) float64
    others: np.ndarray  # (terms,) uint32, N for a field
    typical: np.ndarray  # (N,) float64
    coldest: float  # the smallest of them


def refusal(hamiltonian: Hamiltonian, rule: str) -> str:
    """Why this kernel cannot run a model under a rule, "" if it can."""
    if rule not in RULES:
        return f"rule {rule} is not one of {', '.join(RULES)}"
    return "" if hamiltonian.is_pairwise else "there are interactions of more than two spins"


def width(n_lanes: int) -> int:
    """Lanes of a unit for a run of n_lanes replicas."""
    return 1


def cost(hamiltonian: Hamiltonian, n_replicas: int) -> float:
    """About how many ns a sweep takes per site, all replicas together."""
    return n_replicas * (4.0 + 0.7 * len(hamiltonian.table.coupling) / hamiltonian.n_spins)


def make(hamiltonian: Hamiltonian, beta: np.ndarray, seed: int, path: tuple[int, ...], rule: str) -> GraphReplicas:
    """A batch of len(beta) replicas, all spins up; streams of the seed's use `path`."""
    lanes, n_spins = len(beta), hamiltonian.n_spins
    start, coupling, others = kernel_arrays(hamiltonian.table)
    counts = np.diff(start)
    even = np.concatenate([[0], np.cumsum(counts + counts % 2)])
    place = np.repeat(even[:-1] - start[:-1], counts) + np.arange(len(coupling))
    strength, partner = np.zeros(even[-1]), np.full(even[-1], n_spins, np.uint32)
    strength[place] = coupling
    partner[place] = np.where(others < 0, n_spins, others)
    typical = typical_fields(start, coupling)
    return GraphReplicas(
        beta=np.array(beta, np.float64),
        energy=np.full(lanes, hamiltonian.energy(np.ones(hamiltonian.n_spins))),
        flipped=np.zeros(lanes, np.int64),
        spins=np.ones((lanes, n_spins + 1)),
        streams=streams(seed, *path, count=lanes),
        heat_bath=rule == "heatbath",
        constant=hamiltonian.constant,
        start=even.astype(np.uint64),
        coupling=strength,
        others=partner,
        typical=typical,
        coldest=float(typical.min()),
    )


def set_betas(batch: GraphReplicas, beta: np.ndarray) -> None:
    """Give the lanes other inverse temperatures (lanes,)."""
    batch.beta[:] = beta


# Unsigned indices throughout: Numba would look whether a signed one counts from the end.
@njit(cache=True, nogil=True, error_model="numpy")
def field(site, spins, start, coupling, others):
    """Field on a site, float64, from spins (N + 1,) float64."""
    even, odd = 0.0, 0.0
    term, stop = start[site], start[site + U1]
    while term < stop:
        even += coupling[term] * spins[np.uint64(others[term])]
        odd += coupling[term + U1] * spins[np.uint64(others[term + U1])]
        term += U2
    return even + odd


@njit(cache=True, nogil=True, error_model="numpy")
def metropolis_accepts(u, x):
    """Whether u < min(1, exp(-x)), x = beta dE.

    A table bounds the probability from both sides; only a number between the bounds, one in 64 or fewer, asks for the
    exponential.
    """
    cell = np.uint64(np.int64(min(max(x, 0.0), RANGE) * CELLS))
    flip = u < METROPOLIS[cell + U1]
    if u < METROPOLIS[cell] and not flip:
        flip = u < math.exp(-x)
    return flip


@njit(cache=True, nogil=True, error_model="numpy")
def heat_bath_accepts(u, x):
    """Whether u < 1 / (1 + exp(x)), in the same way."""
    cell = np.uint64(np.int64((min(max(x, -RANGE), RANGE) + RANGE) * CELLS))
    flip = u < HEAT_BATH[cell + U1]
    if not flip and (u < HEAT_BATH[cell] or x < -RANGE):
        flip = u * (1.0 + math.exp(x)) < 1.0
    return flip


@njit(cache=True, nogil=True, error_model="numpy")
def sweep_replica(spins, beta, stream, start, coupling, others, typical, hot):
    """One sweep of a replica (N + 1,) float64 in place; returns (number of flips, change of the energy).

    Sites whose typical field is below `hot` take the heat bath.
    """
    s0, s1, s2, s3 = stream[0], stream[1], stream[2], stream[3]
    n_spins = np.uint64(typical.shape[0])
    flips, change = 0.0, 0.0
    for first in range(2):
        site = np.uint64(first)
        while site < n_spins:
            spin = spins[site]
            price = 2.0 * spin * field(site, spins, start, coupling, others)
            word, s0, s1, s2, s3 = advance(s0, s1, s2, s3)
            u, x = uniform(word), beta * price
            flip = heat_bath_accepts(u, x) if hot > 0.0 and typical[site] < hot else metropolis_accepts(u, x)
            spins[site] = -spin if flip else spin
            change += price if flip else 0.0
            flips += 1.0 if flip else 0.0
            site += U2
    word, s0, s1, s2, s3 = advance(s0, s1, s2, s3)
    site = np.uint64(np.int64(uniform(word) * typical.shape[0]))  # see `metropolis` for why
    price = 2.0 * spins[site] * field(site, spins, start, coupling, others)
    word, s0, s1, s2, s3 = advance(s0, s1, s2, s3)
    if heat_bath_accepts(uniform(word), beta * price):
        spins[site] = -spins[site]
        change += price
    stream[0], stream[1], stream[2], stream[3] = s0, s1, s2, s3
    return np.int64(flips), change


@implements(generic.sweep, GraphReplicas)
@njit(cache=True, nogil=True)
def sweep(batch, unit, n_sweeps, count):
    spins, stream, beta = batch.spins[unit], batch.streams[unit], batch.beta[unit]
    hot = np.inf
    if beta > 0.0 and not batch.heat_bath:
        hot = HEAT_BATH_BELOW / beta
        hot = hot if batch.coldest < hot else 0.0
    tables = (batch.start, batch.coupling, batch.others, batch.typical)
    for _ in range(n_sweeps):
        flips, change = sweep_replica(spins, beta, stream, *tables, hot)
        batch.flipped[unit] = flips
        batch.energy[unit] += change


@implements(generic.refresh, GraphReplicas)
@njit(cache=True, nogil=True)
def refresh(batch, unit):
    pass


@implements(generic.measure, GraphReplicas)
@njit(cache=True, nogil=True)
def measure(batch, unit):
    spins = batch.spins[unit]
    total = batch.constant
    for i in range(batch.typical.shape[0]):
        site, own = np.uint64(i), 0.0
        for t in range(batch.start[site], batch.start[site + U1]):
            term = np.uint64(t)
            other = np.uint64(batch.others[term])
            if other > site:  # each bond once; a field is a bond with site N
                own += batch.coupling[term] * spins[other]
        total -= own * spins[site]
    batch.energy[unit] = total


@implements(generic.exchange, GraphReplicas)
@njit(cache=True, nogil=True)
def exchange(batch, a, b):
    batch.beta[a], batch.beta[b] = batch.beta[b], batch.beta[a]


@implements(generic.store, GraphReplicas)
@njit(cache=True, nogil=True)
def store(batch, unit, rows):
    spins, row = batch.spins[unit], rows[0]
    n_spins = batch.typical.shape[0]
    for word in range(row.shape[0]):
        bits = U0
        for bit in range(min(64, n_spins - 64 * word)):
            if spins[64 * word + bit] > 0.0:
                bits |= U1 << np.uint64(bit)
        row[word] = bits


@implements(generic.load, GraphReplicas)
@njit(cache=True, nogil=True)
def load(batch, unit, rows):
    spins, row = batch.spins[unit], rows[0]
    for site in range(batch.typical.shape[0]):
        spins[site] = 1.0 if (row[site // 64] >> np.uint64(site % 64)) & U1 else -1.0
