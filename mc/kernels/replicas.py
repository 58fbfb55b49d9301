"""Batch of single replicas, for any Hamiltonian: int8 spins, one unit a replica, Metropolis or heat bath."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from mc.hamiltonian import Hamiltonian
from mc.kernels import batch as generic
from mc.kernels import heatbath, metropolis
from mc.kernels.batch import implements
from mc.kernels.local_field import energy, kernel_arrays, typical_fields
from mc.kernels.random_streams import streams

NAME = "replicas"
RULES = ("metropolis", "heatbath")
U1 = np.uint64(1)


class Replicas(NamedTuple):
    """Fields of `mc.kernels.batch`, and the tables of `mc.kernels.local_field`."""

    beta: np.ndarray  # (lanes,) float64
    energy: np.ndarray  # (lanes,) float64
    flipped: np.ndarray  # (lanes,) int64
    spins: np.ndarray  # (lanes, N) int8
    streams: np.ndarray  # (lanes, 4) uint64
    heat_bath: bool
    constant: float
    start: np.ndarray
    coupling: np.ndarray
    others: np.ndarray
    typical: np.ndarray  # (N,) float64


def refusal(hamiltonian: Hamiltonian, rule: str) -> str:
    """Why this kernel cannot run a model under a rule, "" if it can."""
    return "" if rule in RULES else f"rule {rule} is not one of {', '.join(RULES)}"


def width(n_lanes: int) -> int:
    """Lanes of a unit for a run of n_lanes replicas."""
    return 1


def cost(hamiltonian: Hamiltonian, n_replicas: int) -> float:
    """About how many ns a sweep takes per site, all replicas together."""
    return n_replicas * (6.0 + 1.0 * len(hamiltonian.table.coupling) / hamiltonian.n_spins)


def make(hamiltonian: Hamiltonian, beta: np.ndarray, seed: int, path: tuple[int, ...], rule: str) -> Replicas:
    """A batch of len(beta) replicas, all spins up; streams of the seed's use `path`."""
    lanes = len(beta)
    start, coupling, others = kernel_arrays(hamiltonian.table)
    return Replicas(
        beta=np.array(beta, np.float64),
        energy=np.full(lanes, hamiltonian.energy(np.ones(hamiltonian.n_spins))),
        flipped=np.zeros(lanes, np.int64),
        spins=np.ones((lanes, hamiltonian.n_spins), np.int8),
        streams=streams(seed, *path, count=lanes),
        heat_bath=rule == "heatbath",
        constant=hamiltonian.constant,
        start=start,
        coupling=coupling,
        others=others,
        typical=typical_fields(start, coupling),
    )


def set_betas(batch, beta: np.ndarray) -> None:
    """Give the lanes other inverse temperatures (lanes,)."""
    batch.beta[:] = beta


@implements(generic.sweep, Replicas)
@njit(cache=True, nogil=True)
def sweep(batch, unit, n_sweeps, count):
    spins, stream, beta = batch.spins[unit], batch.streams[unit], batch.beta[unit]
    before = n_sweeps - 1 if count else n_sweeps
    for n in (before, n_sweeps - before):
        if n == 0:
            continue
        if batch.heat_bath:
            flips, change = heatbath.sweep_replica(spins, beta, stream, batch.start, batch.coupling, batch.others, n)
        else:
            flips, change = metropolis.sweep_replica(
                spins, beta, stream, batch.start, batch.coupling, batch.others, batch.typical, n
            )
        batch.flipped[unit] = flips
        batch.energy[unit] += change


@implements(generic.refresh, Replicas)
@njit(cache=True, nogil=True)
def refresh(batch, unit):
    pass


@implements(generic.measure, Replicas)
@njit(cache=True, nogil=True)
def measure(batch, unit):
    batch.energy[unit] = energy(batch.spins[unit], batch.constant, batch.start, batch.coupling, batch.others)


@implements(generic.exchange, Replicas)
@njit(cache=True, nogil=True)
def exchange(batch, a, b):
    batch.beta[a], batch.beta[b] = batch.beta[b], batch.beta[a]


@implements(generic.store, Replicas)
@njit(cache=True, nogil=True)
def store(batch, unit, rows):
    store_row(batch.spins[unit], rows[0])


@implements(generic.load, Replicas)
@njit(cache=True, nogil=True)
def load(batch, unit, rows):
    load_row(batch.spins[unit], rows[0])


@njit(cache=True, nogil=True)
def store_row(spins, row):
    """Spins (N,) int8 as a row of bits (words,) uint64."""
    for word in range(row.shape[0]):
        bits = np.uint64(0)
        for bit in range(min(64, spins.shape[0] - 64 * word)):
            if spins[64 * word + bit] > 0:
                bits |= U1 << np.uint64(bit)
        row[word] = bits


@njit(cache=True, nogil=True)
def load_row(spins, row):
    """A row of bits (words,) uint64 as spins (N,) int8."""
    for site in range(spins.shape[0]):
        spins[site] = np.int8(2 * np.int64((row[site // 64] >> np.uint64(site % 64)) & U1) - 1)
