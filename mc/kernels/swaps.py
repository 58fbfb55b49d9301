"""Batch of single replicas with a fixed number of spins up (the canonical ensemble of an alloy): Metropolis swaps.

One trial takes a random up spin and a random down spin and exchanges them with probability min(1, exp(-beta dE)).
Kawasaki, Phys. Rev. 145, 224 (1966), between any two sites: all pairs are equally likely before and after, so the law
is Boltzmann's. Local energies are kept (`mc.kernels.local_energies`), so a rejected trial costs two of them and what
the two sites share (`mc.kernels.shared_terms`).

A sweep is N / 2 trials, rounded up, as each looks at two sites. It ends with one heat-bath trial that is not counted:
two sites of one up spin without a cost would else be exchanged in every trial, for ever. In all other systems three
states differ by one swap each, or some swap is refused, so there is no period.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from mc.hamiltonian import Hamiltonian
from mc.kernels import batch as generic
from mc.kernels import heatbath
from mc.kernels.batch import implements
from mc.kernels.local_energies import fill, flip, load_signs, store_signs, terms_of, unit_of
from mc.kernels.metropolis import below_exp
from mc.kernels.random_streams import advance, streams, uniform
from mc.kernels.shared_terms import shared_terms, twice_shared

NAME = "swaps of two spins"
RULES = ("metropolis",)
LARGEST = 8192  # spins: 256 MiB of numbers of pairs
KEEPS_N_UP = True  # see `mc.engine.refusal_of`
U32, LOW = np.uint64(32), np.uint64(2**32 - 1)


class Swaps(NamedTuple):
    """Fields of `mc.kernels.batch`, and the terms."""

    beta: np.ndarray  # (lanes,) float64
    energy: np.ndarray  # (lanes,) float64
    flipped: np.ndarray  # (lanes,) int64: sites that moved
    down: np.ndarray  # (lanes, N + 1) int64: 0 for spin +1, -1 for spin -1; the last is 0
    local: np.ndarray  # (lanes, N) int64, in steps
    total: np.ndarray  # (lanes,) int64: sum of J prod s, in steps
    sites: np.ndarray  # (lanes, N) uint32: the sites that are up, then those that are down
    streams: np.ndarray  # (lanes, 4) uint64
    n_spins: int
    n_up: int
    constant: float
    step: float
    first: np.ndarray  # these four: see `mc.kernels.local_energies.Terms`
    place: np.ndarray
    doubled: np.ndarray
    others: np.ndarray
    pair: np.ndarray  # these four: see `mc.kernels.shared_terms.SharedTerms`
    shared: np.ndarray
    strength: np.ndarray
    further: np.ndarray


def refusal(hamiltonian: Hamiltonian, rule: str) -> str:
    """Why this kernel cannot run a model under a rule, "" if it can."""
    if rule not in RULES:
        return f"rule {rule} is not {RULES[0]}"
    if hamiltonian.n_up is None:
        return "any number of spins may be up; swaps are for a fixed number"
    if hamiltonian.n_spins > LARGEST:
        return f"{hamiltonian.n_spins} spins; swaps keep a table of all N x N pairs, for N up to {LARGEST}"
    return ""


def width(n_lanes: int) -> int:
    """Lanes of a unit for a run of n_lanes replicas."""
    return 1


def cost(hamiltonian: Hamiltonian, n_replicas: int) -> float:
    """About how many ns a sweep takes per site, all replicas together, where one trial in six is accepted."""
    reached = (hamiltonian.table.others >= 0).sum() / hamiltonian.n_spins
    return n_replicas * (15.0 + 0.1 * reached)


def make(hamiltonian: Hamiltonian, beta: np.ndarray, seed: int, path: tuple[int, ...], rule: str) -> Swaps:
    """A batch of len(beta) replicas, the first n_up spins up; streams of the seed's use `path`."""
    lanes, n_spins, n_up, table = len(beta), hamiltonian.n_spins, hamiltonian.n_up, hamiltonian.table
    bits = unit_of(table)
    down = np.zeros((lanes, n_spins + 1), np.int64)
    down[:, n_up:n_spins] = -1
    batch = Swaps(
        beta=np.array(beta, np.float64),
        energy=np.zeros(lanes),
        flipped=np.zeros(lanes, np.int64),
        down=down,
        local=np.zeros((lanes, n_spins), np.int64),
        total=np.zeros(lanes, np.int64),
        sites=np.tile(np.arange(n_spins, dtype=np.uint32), (lanes, 1)),
        streams=streams(seed, *path, count=lanes),
        n_spins=n_spins,
        n_up=n_up,
        constant=hamiltonian.constant,
        step=2.0**-bits,
        **terms_of(table, bits)._asdict(),
        **shared_terms(hamiltonian, bits)._asdict(),
    )
    if lanes:
        batch.total[:] = fill(batch.local[0], down[0, :n_spins], _terms(batch))
        batch.local[1:] = batch.local[0]
        batch.energy[:] = batch.constant - batch.step * batch.total
    return batch


def set_betas(batch: Swaps, beta: np.ndarray) -> None:
    """Give the lanes other inverse temperatures (lanes,)."""
    batch.beta[:] = beta


@njit(cache=True, nogil=True)
def _terms(batch):
    return batch.first, batch.place, batch.doubled, batch.others


@njit(cache=True, nogil=True)
def _shared(batch):
    return batch.pair, batch.shared, batch.strength, batch.further


@njit(cache=True, nogil=True, error_model="numpy")
def sweep_replica(local, down, sites, n_up, beta, stream, step, terms, shared):
    """One sweep of a replica in place; returns (sites that moved, change of the sum of J prod s in steps)."""
    s0, s1, s2, s3 = stream[0], stream[1], stream[2], stream[3]
    ups, downs = np.uint64(n_up), np.uint64(local.shape[0] - n_up)
    trials = (local.shape[0] + 1) // 2
    moved, change = 0, np.int64(0)
    for trial in range(trials + 1):
        # A place in either half from 32 bits each. That some are likelier by 2^-32 of themselves harms nothing: the
        # way back takes the same two places.
        word, s0, s1, s2, s3 = advance(s0, s1, s2, s3)
        a = ((word >> U32) * ups) >> U32
        b = ups + (((word & LOW) * downs) >> U32)
        i, j = np.uint64(sites[a]), np.uint64(sites[b])
        lost = local[i] + local[j] - twice_shared(i, j, down, *shared)
        price = 2.0 * (step * np.float64(lost))
        if trial == trials:
            word, s0, s1, s2, s3 = advance(s0, s1, s2, s3)
            accepted = heatbath.flips(uniform(word), beta * price)
        elif price <= 0.0:
            accepted = True
        else:
            word, s0, s1, s2, s3 = advance(s0, s1, s2, s3)
            accepted = below_exp(uniform(word), beta * price)
        if accepted:
            sites[a], sites[b] = sites[b], sites[a]
            flip(i, local, down, terms)
            flip(j, local, down, terms)
            change -= lost + lost
            moved += 2 * (trial < trials)
    stream[0], stream[1], stream[2], stream[3] = s0, s1, s2, s3
    return min(moved, local.shape[0]), change  # an odd N has a trial for half a site


@implements(generic.sweep, Swaps)
@njit(cache=True, nogil=True)
def sweep(batch, unit, n_sweeps, count):
    if batch.n_up == 0 or batch.n_up == batch.n_spins:
        return
    local, down, sites, stream = batch.local[unit], batch.down[unit], batch.sites[unit], batch.streams[unit]
    law = (batch.step, _terms(batch), _shared(batch))
    for _ in range(n_sweeps):
        moved, change = sweep_replica(local, down, sites, batch.n_up, batch.beta[unit], stream, *law)
        batch.flipped[unit] = moved
        batch.total[unit] += change
    batch.energy[unit] = batch.constant - batch.step * np.float64(batch.total[unit])


@implements(generic.refresh, Swaps)
@njit(cache=True, nogil=True)
def refresh(batch, unit):
    pass


@implements(generic.measure, Swaps)
@njit(cache=True, nogil=True)
def measure(batch, unit):
    batch.energy[unit] = batch.constant - batch.step * np.float64(batch.total[unit])
    order_sites(batch.sites[unit], batch.down[unit], batch.n_up)


@njit(cache=True, nogil=True)
def order_sites(sites, down, n_up):
    """Sites that are up, then those that are down, rising: random places name sites, and must not know the past."""
    up, low = 0, n_up
    for site in range(sites.shape[0]):
        if down[site] == 0:
            sites[up] = site
            up += 1
        else:
            sites[low] = site
            low += 1


@implements(generic.exchange, Swaps)
@njit(cache=True, nogil=True)
def exchange(batch, a, b):
    batch.beta[a], batch.beta[b] = batch.beta[b], batch.beta[a]


@implements(generic.store, Swaps)
@njit(cache=True, nogil=True)
def store(batch, unit, rows):
    store_signs(batch.down[unit, : batch.n_spins], rows[0])


@implements(generic.load, Swaps)
@njit(cache=True, nogil=True)
def load(batch, unit, rows):
    down = batch.down[unit, : batch.n_spins]
    load_signs(down, rows[0])
    if batch.n_spins + down.sum() != batch.n_up:
        raise ValueError("swaps: a state with another number of spins up than n_up; start from states with n_up up")
    batch.total[unit] = fill(batch.local[unit], down, _terms(batch))
    order_sites(batch.sites[unit], down, batch.n_up)
