"""Batch of single replicas of a ferromagnet moved by clusters: Wolff or Swendsen-Wang.

A sweep of Swendsen-Wang is one decomposition of the whole system. A sweep of Wolff is `clusters` clusters, as many as
flip about N spins, and there is one cluster more with probability 1/2 in each call of `sweep`: near beta = 0 clusters
are single spins, and an even number of flips would never change the parity of the up spins. `flipped` is the mean
size of the clusters flipped in the whole call (Wolff), or the number of spins flipped by the last update.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from mc.hamiltonian import Hamiltonian
from mc.kernels import batch as generic
from mc.kernels import swendsen_wang, wolff
from mc.kernels.batch import implements
from mc.kernels.local_field import energy, kernel_arrays
from mc.kernels.random_streams import next_uint64, streams
from mc.kernels.replicas import load_row, store_row

NAME = "clusters"
RULES = ("wolff", "swendsen-wang")
U63 = np.uint64(63)


class Clusters(NamedTuple):
    """Fields of `mc.kernels.batch`, and the tables of `mc.kernels.local_field`."""

    beta: np.ndarray  # (lanes,) float64
    energy: np.ndarray  # (lanes,) float64
    flipped: np.ndarray  # (lanes,) float64
    spins: np.ndarray  # (lanes, N) int8
    streams: np.ndarray  # (lanes, 4) uint64
    clusters: np.ndarray  # (lanes,) int64, of a sweep; 0: as many as flip N spins, which is for the warm-up only
    whole: bool  # Swendsen-Wang
    constant: float
    start: np.ndarray
    coupling: np.ndarray
    others: np.ndarray  # the other site of each bond of each site, or the earlier one of each bond for Swendsen-Wang


def refusal(hamiltonian: Hamiltonian, rule: str) -> str:
    """Why clusters cannot move a model under a rule, "" if they can."""
    if rule not in RULES:
        return f"rule {rule} is not one of {', '.join(RULES)}"
    if not hamiltonian.is_ferromagnet:
        return f"for {rule} a ferromagnet is needed (two-spin interactions, all J > 0, no field)"
    return ""


def width(n_lanes: int) -> int:
    """Lanes of a unit for a run of n_lanes replicas."""
    return 1


def cost(hamiltonian: Hamiltonian, n_replicas: int) -> float:
    """About how many ns a sweep takes per site, all replicas together."""
    return 20.0 * n_replicas


def make(hamiltonian: Hamiltonian, beta: np.ndarray, seed: int, path: tuple[int, ...], rule: str) -> Clusters:
    """A batch of len(beta) replicas, all spins up; streams of the seed's use `path`."""
    lanes = len(beta)
    whole = rule == "swendsen-wang"
    start, coupling, others = (swendsen_wang.bond_arrays if whole else kernel_arrays)(hamiltonian.table)
    return Clusters(
        beta=np.array(beta, np.float64),
        energy=np.full(lanes, hamiltonian.energy(np.ones(hamiltonian.n_spins))),
        flipped=np.zeros(lanes),
        spins=np.ones((lanes, hamiltonian.n_spins), np.int8),
        streams=streams(seed, *path, count=lanes),
        clusters=np.ones(lanes, np.int64),
        whole=whole,
        constant=hamiltonian.constant,
        start=start,
        coupling=coupling,
        others=others,
    )


def set_betas(batch, beta: np.ndarray) -> None:
    """Give the lanes other inverse temperatures (lanes,)."""
    batch.beta[:] = beta


@implements(generic.sweep, Clusters)
@njit(cache=True, nogil=True)
def sweep(batch, unit, n_sweeps, count):
    spins, beta, stream = batch.spins[unit], batch.beta[unit], batch.streams[unit]
    tables = (batch.start, batch.coupling, batch.others)
    if batch.whole:
        work = np.empty(swendsen_wang.room(batch.start, batch.others), np.int32)
        _, flipped = swendsen_wang.update_replica(spins, beta, stream, *tables, work, n_sweeps)
        batch.flipped[unit] = flipped
        return
    stack = np.empty(spins.shape[0], np.int32)
    clusters = batch.clusters[unit]
    coin = np.int64(next_uint64(stream) >> U63)
    wanted = clusters * n_sweeps + coin if clusters > 0 else 0
    least = 0 if clusters > 0 else n_sweeps * spins.shape[0]
    made, flipped = wolff.update_replica(spins, beta, stream, *tables, stack, wanted, least)
    batch.flipped[unit] = flipped / made


@implements(generic.refresh, Clusters)
@njit(cache=True, nogil=True)
def refresh(batch, unit):
    measure(batch, unit)


@implements(generic.measure, Clusters)
@njit(cache=True, nogil=True)
def measure(batch, unit):
    tables = (batch.start, batch.coupling, batch.others)
    if batch.whole:
        batch.energy[unit] = swendsen_wang.bond_energy(batch.spins[unit], batch.constant, *tables)
    else:
        batch.energy[unit] = energy(batch.spins[unit], batch.constant, *tables)


@implements(generic.exchange, Clusters)
@njit(cache=True, nogil=True)
def exchange(batch, a, b):
    batch.beta[a], batch.beta[b] = batch.beta[b], batch.beta[a]


@implements(generic.store, Clusters)
@njit(cache=True, nogil=True)
def store(batch, unit, rows):
    store_row(batch.spins[unit], rows[0])


@implements(generic.load, Clusters)
@njit(cache=True, nogil=True)
def load(batch, unit, rows):
    load_row(batch.spins[unit], rows[0])
