"""Batch of 16 or 32 lanes of one pairwise Hamiltonian with bonds of any strength, each lane at its own beta.

Lanes are swept together, 16 or 32 as one vector: sites in order, each lane with random bits of its own. Couplings and
fields are float32 in the sweep, a relative resolution of 2^-24 (6e-8), and float64 in the energies. A block of 32
lanes has its spins side by side, so that all its sites stay close in memory however many lanes a unit has.

There is no update of a random site at the end of a sweep as in `metropolis`: couplings of one strength, for which it
matters, have `bit_planes` and `graph`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from mc.hamiltonian import Hamiltonian
from mc.kernels import batch as generic
from mc.kernels.batch import implements
from mc.kernels.lane_blocks import load_16, load_32, store_16, store_32, sum_16, sum_32, sweep_16, sweep_32
from mc.kernels.lane_streams import heat_bath_cutoff, lane_streams
from mc.kernels.vectors import aligned

NAME = "float lanes"
RULES = ("metropolis", "heatbath")
WIDTHS = (16, 32)
BLOCK = 32  # lanes of a vector; units of 16 are one vector of 16


class FloatLanes(NamedTuple):
    """Fields of `mc.kernels.batch`, and the bonds as the sweep and as the energy want them."""

    beta: np.ndarray  # (lanes,) float64
    energy: np.ndarray  # (lanes,) float64
    flipped: np.ndarray  # (lanes,) int64
    spins: np.ndarray  # (units, blocks, N, lanes of a block) float32, +1 and -1
    streams: np.ndarray  # (units, blocks, 4, lanes of a block) uint32
    cutoff: np.ndarray  # (N,) float32: lanes of smaller beta take the heat-bath probability
    field: np.ndarray  # (N,) float32
    start: np.ndarray  # (N + 1,) int64: the bonds of site i are start[i]:start[i + 1]
    coupling: np.ndarray  # (2 bonds,) float32
    other: np.ndarray  # (2 bonds,) uint32
    all_up: float  # energy of all spins up
    sites: np.ndarray  # (bonds, 2) uint32, each bond once
    bond: np.ndarray  # (bonds,) float64
    exact_field: np.ndarray  # (N,) float64


def refusal(hamiltonian: Hamiltonian, rule: str) -> str:
    """Why this kernel cannot run a model under a rule, "" if it can."""
    if rule not in RULES:
        return f"rule {rule} is not one of {', '.join(RULES)}"
    if not hamiltonian.is_pairwise:
        return f"an interaction of {hamiltonian.max_order} spins; float lanes take bonds and fields only"
    return ""


def width(n_lanes: int) -> int:
    """Lanes of a unit for a run of n_lanes replicas."""
    return next((w for w in WIDTHS if w >= n_lanes), WIDTHS[-1])


def cost(hamiltonian: Hamiltonian, n_replicas: int) -> float:
    """About how many ns a sweep takes per site, all replicas together."""
    lanes = width(n_replicas)
    degree = 2 * len(hamiltonian.bonds[1]) / hamiltonian.n_spins
    vectors = -(-n_replicas // lanes) * -(-lanes // BLOCK)
    return vectors * (8.0 + 1.25 * degree if lanes >= BLOCK else 5.0 + 1.1 * degree)


def make(hamiltonian: Hamiltonian, beta: np.ndarray, seed: int, path: tuple[int, ...], rule: str) -> FloatLanes:
    """A batch of len(beta) replicas, all spins up; streams of the seed's use `path`.

    Raises ValueError where len(beta) is not a multiple of `width(len(beta))`.
    """
    lanes, unit_lanes = len(beta), width(len(beta))
    if lanes == 0 or lanes % unit_lanes:
        raise ValueError(f"float lanes: {lanes} lanes; a multiple of {unit_lanes} is needed")
    table = hamiltonian.table
    is_bond = table.others[:, 0] >= 0
    sites, bond = hamiltonian.bonds
    block = min(unit_lanes, BLOCK)
    units, blocks = lanes // unit_lanes, unit_lanes // block
    return FloatLanes(
        beta=np.array(beta, np.float64),
        energy=np.zeros(lanes),
        flipped=np.zeros(lanes, np.int64),
        spins=aligned(np.ones((units, blocks, hamiltonian.n_spins, block), np.float32)),
        streams=lane_streams(seed, *path, count=units * blocks, lanes=block).reshape(units, blocks, 4, block),
        cutoff=heat_bath_cutoff(table, rule),
        field=hamiltonian.fields.astype(np.float32),
        start=np.append(0, np.cumsum(is_bond))[table.start],
        coupling=table.coupling[is_bond].astype(np.float32),
        other=table.others[is_bond, 0].astype(np.uint32),
        all_up=hamiltonian.constant - bond.sum() - hamiltonian.fields.sum(),
        sites=sites.astype(np.uint32),
        bond=np.array(bond),
        exact_field=hamiltonian.fields,
    )


def set_betas(batch, beta: np.ndarray) -> None:
    """Give the lanes other inverse temperatures (lanes,)."""
    batch.beta[:] = beta


@implements(generic.sweep, FloatLanes)
@njit(cache=True, nogil=True)
def sweep(batch, unit, n_sweeps, count):
    before = n_sweeps - 1 if count else n_sweeps
    nowhere = batch.flipped[:0]
    for n, flipped in ((before, nowhere), (n_sweeps - before, batch.flipped)):
        if n > 0:
            _sweep(batch, unit, n, flipped)


@njit(cache=True, nogil=True)
def _sweep(batch, unit, n_sweeps, flipped):
    blocks, block = batch.spins.shape[1], batch.spins.shape[3]
    for b in range(blocks):
        lane = (unit * blocks + b) * block
        spins, streams = batch.spins[unit, b], batch.streams[unit, b]
        bonds = (batch.cutoff, batch.field, batch.start, batch.coupling, batch.other)
        if block == 16:
            sweep_16(spins, streams, batch.beta, lane, bonds, n_sweeps, flipped)
        else:
            sweep_32(spins, streams, batch.beta, lane, bonds, n_sweeps, flipped)


@implements(generic.measure, FloatLanes)
@njit(cache=True, nogil=True)
def measure(batch, unit):
    blocks, block = batch.spins.shape[1], batch.spins.shape[3]
    for b in range(blocks):
        lane = (unit * blocks + b) * block
        bonds = (batch.all_up, batch.sites, batch.bond, batch.exact_field)
        if block == 16:
            sum_16(batch.spins[unit, b], bonds, batch.energy, lane)
        else:
            sum_32(batch.spins[unit, b], bonds, batch.energy, lane)


@implements(generic.refresh, FloatLanes)
@njit(cache=True, nogil=True)
def refresh(batch, unit):
    measure(batch, unit)


@implements(generic.exchange, FloatLanes)
@njit(cache=True, nogil=True)
def exchange(batch, a, b):
    batch.beta[a], batch.beta[b] = batch.beta[b], batch.beta[a]


@implements(generic.store, FloatLanes)
@njit(cache=True, nogil=True)
def store(batch, unit, rows):
    blocks, block = batch.spins.shape[1], batch.spins.shape[3]
    for b in range(blocks):
        part = rows[b * block : (b + 1) * block]
        if block == 16:
            store_16(batch.spins[unit, b], part)
        else:
            store_32(batch.spins[unit, b], part)


@implements(generic.load, FloatLanes)
@njit(cache=True, nogil=True)
def load(batch, unit, rows):
    blocks, block = batch.spins.shape[1], batch.spins.shape[3]
    for b in range(blocks):
        part = rows[b * block : (b + 1) * block]
        if block == 16:
            load_16(batch.spins[unit, b], part)
        else:
            load_32(batch.spins[unit, b], part)
