"""Batch of single replicas with interactions of more than two spins that keeps the local energy of every spin.

Metropolis or heat bath, decision by decision those of `metropolis` and `heatbath`; a rejected proposal costs one
comparison, a flip one pass over the interactions of its spin (`mc.kernels.local_energies`).
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
from mc.kernels.local_field import typical_fields
from mc.kernels.metropolis import HEAT_BATH_BELOW, below_exp
from mc.kernels.random_streams import advance, streams, uniform

NAME = "local energies"
RULES = ("metropolis", "heatbath")


class Fields(NamedTuple):
    """Fields of `mc.kernels.batch`, and the terms."""

    beta: np.ndarray  # (lanes,) float64
    energy: np.ndarray  # (lanes,) float64
    flipped: np.ndarray  # (lanes,) int64
    down: np.ndarray  # (lanes, N) int64: 0 for spin +1, -1 for spin -1
    local: np.ndarray  # (lanes, N) int64, in steps
    total: np.ndarray  # (lanes,) int64: sum of J prod s, in steps
    streams: np.ndarray  # (lanes, 4) uint64
    heat_bath: bool
    constant: float
    step: float
    first: np.ndarray  # these four: see `mc.kernels.local_energies.Terms`
    place: np.ndarray
    doubled: np.ndarray
    others: np.ndarray
    typical: np.ndarray  # (N,) float64


def refusal(hamiltonian: Hamiltonian, rule: str) -> str:
    """Why this kernel cannot run a model under a rule, "" if it can."""
    if rule not in RULES:
        return f"rule {rule} is not one of {', '.join(RULES)}"
    return "there are bonds and fields only, which graph and dense are for" if hamiltonian.is_pairwise else ""


def width(n_lanes: int) -> int:
    """Lanes of a unit for a run of n_lanes replicas."""
    return 1


def cost(hamiltonian: Hamiltonian, n_replicas: int) -> float:
    """About how many ns a sweep takes per site, all replicas together, where one proposal in six is accepted."""
    reached = (hamiltonian.table.others >= 0).sum() / hamiltonian.n_spins
    return n_replicas * (5.0 + 0.1 * reached)


def make(hamiltonian: Hamiltonian, beta: np.ndarray, seed: int, path: tuple[int, ...], rule: str) -> Fields:
    """A batch of len(beta) replicas, all spins up; streams of the seed's use `path`."""
    lanes, n_spins, table = len(beta), hamiltonian.n_spins, hamiltonian.table
    bits = unit_of(table)
    batch = Fields(
        beta=np.array(beta, np.float64),
        energy=np.zeros(lanes),
        flipped=np.zeros(lanes, np.int64),
        down=np.zeros((lanes, n_spins), np.int64),
        local=np.zeros((lanes, n_spins), np.int64),
        total=np.zeros(lanes, np.int64),
        streams=streams(seed, *path, count=lanes),
        heat_bath=rule == "heatbath",
        constant=hamiltonian.constant,
        step=2.0**-bits,
        **terms_of(table, bits)._asdict(),
        typical=typical_fields(table.start, table.coupling),
    )
    if lanes:
        batch.total[:] = fill(batch.local[0], batch.down[0], _terms(batch))
        batch.local[1:] = batch.local[0]
        batch.energy[:] = batch.constant - batch.step * batch.total
    return batch


def set_betas(batch: Fields, beta: np.ndarray) -> None:
    """Give the lanes other inverse temperatures (lanes,)."""
    batch.beta[:] = beta


@njit(cache=True, nogil=True)
def _terms(batch):
    return batch.first, batch.place, batch.doubled, batch.others


@njit(cache=True, nogil=True, error_model="numpy")
def sweep_replica(local, down, beta, stream, step, terms, typical, heat_bath):
    """One sweep of a replica in place; returns (number of flips, change of the sum of J prod s in steps).

    The random numbers are used as in `metropolis.sweep_replica` and `heatbath.sweep_replica`.
    """
    s0, s1, s2, s3 = stream[0], stream[1], stream[2], stream[3]
    n_spins = local.shape[0]
    visits = n_spins if heat_bath else n_spins + 1
    flips, change = 0, np.int64(0)
    for visit in range(visits):
        site, stirs = np.uint64(visit), visit == n_spins
        if stirs:  # see `metropolis` for why
            word, s0, s1, s2, s3 = advance(s0, s1, s2, s3)
            site = np.uint64(uniform(word) * n_spins)
        price = 2.0 * (step * np.float64(local[site]))
        if heat_bath or stirs or beta * typical[site] < HEAT_BATH_BELOW:
            word, s0, s1, s2, s3 = advance(s0, s1, s2, s3)
            accepted = heatbath.flips(uniform(word), beta * price)
        elif price <= 0.0:
            accepted = True
        else:
            word, s0, s1, s2, s3 = advance(s0, s1, s2, s3)
            accepted = below_exp(uniform(word), beta * price)
        if accepted:
            change -= local[site] + local[site]
            flips += not stirs
            flip(site, local, down, terms)
    stream[0], stream[1], stream[2], stream[3] = s0, s1, s2, s3
    return flips, change


@implements(generic.sweep, Fields)
@njit(cache=True, nogil=True)
def sweep(batch, unit, n_sweeps, count):
    local, down, stream, beta = batch.local[unit], batch.down[unit], batch.streams[unit], batch.beta[unit]
    law = (batch.step, _terms(batch), batch.typical, batch.heat_bath)
    for _ in range(n_sweeps):
        flips, change = sweep_replica(local, down, beta, stream, *law)
        batch.flipped[unit] = flips
        batch.total[unit] += change
    batch.energy[unit] = batch.constant - batch.step * np.float64(batch.total[unit])


@implements(generic.refresh, Fields)
@njit(cache=True, nogil=True)
def refresh(batch, unit):
    pass


@implements(generic.measure, Fields)
@njit(cache=True, nogil=True)
def measure(batch, unit):
    # `total` is a whole number that depends on the spins alone, so there is nothing to sum anew.
    batch.energy[unit] = batch.constant - batch.step * np.float64(batch.total[unit])


@implements(generic.exchange, Fields)
@njit(cache=True, nogil=True)
def exchange(batch, a, b):
    batch.beta[a], batch.beta[b] = batch.beta[b], batch.beta[a]


@implements(generic.store, Fields)
@njit(cache=True, nogil=True)
def store(batch, unit, rows):
    store_signs(batch.down[unit], rows[0])


@implements(generic.load, Fields)
@njit(cache=True, nogil=True)
def load(batch, unit, rows):
    load_signs(batch.down[unit], rows[0])
    batch.total[unit] = fill(batch.local[unit], batch.down[unit], _terms(batch))
