"""Batch of single replicas of a dense pairwise Hamiltonian (SK and the like) that keeps the field on every spin.

A proposal costs one comparison, a flip one row of the coupling matrix. Fields are whole numbers: site j counts its
couplings in steps of 2^-31 of the largest field they can add up to, so sums of them are exact, nothing drifts, and
the fields depend on the spins alone, whatever led there. `refresh` sums the energy of these couplings (in SK with
N = 1024 it is about 1e-6 off), `measure` adds what rounding took off them.

Sixteen sites are decided together. Their levels (`mc.kernels.lane_streams`) are drawn ahead, one vector of
comparisons finds the first spin that flips, the fields of the sixteen follow, and so on; the rows of all that flipped
are then added to the fields. Every decision is that of a sweep site by site.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from mc.hamiltonian import Hamiltonian
from mc.kernels import batch as generic
from mc.kernels.batch import implements
from mc.kernels.dense_rows import W, add_flipped, sum_from_fields, sum_of_rest, sweep_replica
from mc.kernels.lane_streams import heat_bath_cutoff, lane_streams
from mc.kernels.vectors import aligned

NAME = "dense fields"
RULES = ("metropolis", "heatbath")
LARGEST = 16384  # spins: 1 GiB of couplings, and half as much of what rounding took off
U0, U1 = np.uint64(0), np.uint64(1)


class DenseFields(NamedTuple):
    """Fields of `mc.kernels.batch`, and the couplings; sites are padded to P, a multiple of 16, with zeros."""

    beta: np.ndarray  # (lanes,) float64
    energy: np.ndarray  # (lanes,) float64
    flipped: np.ndarray  # (lanes,) int64
    down: np.ndarray  # (lanes, P) int32: 0 for spin +1, -1 for spin -1
    sums: np.ndarray  # (lanes, P) int32: sum over the other spins i of J_ij s_i, in steps of site j
    streams: np.ndarray  # (lanes, 4, 16) uint32
    n_spins: int
    constant: float
    largest_cutoff: np.float32
    cutoff: np.ndarray  # (P,) float32: the heat-bath probability is taken at smaller beta
    step: np.ndarray  # (P,) float32
    field: np.ndarray  # (P,) float32
    exact_field: np.ndarray  # (P,) float64
    matrix: np.ndarray  # (N, P) int32: 2 J_ij in steps of site j
    near: np.ndarray  # (N, 16) int32: the part of row i at the sixteen sites with i
    up_sums: np.ndarray  # (P,) int32: sums of all spins up
    rest: np.ndarray  # float32: for j < i, what J_ij is above the mean of both roundings, rows padded to sixteens
    row: np.ndarray  # (N + 1,) int64: row i of it begins at 16 row[i]


def refusal(hamiltonian: Hamiltonian, rule: str) -> str:
    """Why this kernel cannot run a model under a rule, "" if it can."""
    n_spins, n_bonds = hamiltonian.n_spins, len(hamiltonian.bonds[1])
    if rule not in RULES:
        return f"rule {rule} is not one of {', '.join(RULES)}"
    if not hamiltonian.is_pairwise:
        return f"an interaction of {hamiltonian.max_order} spins; dense fields take bonds and fields only"
    if n_spins > LARGEST:
        return f"{n_spins} spins; dense fields keep a matrix of N x N couplings, for N up to {LARGEST}"
    if 2 * n_bonds < n_spins**2 / 4:
        degree = 2 * n_bonds / n_spins
        return f"{degree:.3g} bonds a spin; dense fields are for N / 4 = {n_spins / 4:g} and more"
    return ""


def width(n_lanes: int) -> int:
    """Lanes of a unit for a run of n_lanes replicas."""
    return 1


def cost(hamiltonian: Hamiltonian, n_replicas: int) -> float:
    """About how many ns a sweep takes per site, all replicas together, where one proposal in six is accepted."""
    return n_replicas * (4.0 + 0.015 * hamiltonian.n_spins)


def make(hamiltonian: Hamiltonian, beta: np.ndarray, seed: int, path: tuple[int, ...], rule: str) -> DenseFields:
    """A batch of len(beta) replicas, all spins up; streams of the seed's use `path`."""
    lanes, n_spins = len(beta), hamiltonian.n_spins
    padding = (0, -n_spins % W)
    step, matrix, up_sums, row, rest = _rounded(_couplings(hamiltonian), n_spins + padding[1])
    everyone = np.arange(n_spins)
    cutoff = np.pad(heat_bath_cutoff(hamiltonian.table, rule), padding)
    fields = np.pad(hamiltonian.fields, padding)
    return DenseFields(
        beta=np.array(beta, np.float64),
        energy=np.zeros(lanes),
        flipped=np.zeros(lanes, np.int64),
        down=aligned(np.zeros((lanes, len(step)), np.int32)),
        sums=aligned(np.tile(up_sums, (lanes, 1))),
        streams=aligned(lane_streams(seed, *path, count=lanes, lanes=W)),
        n_spins=n_spins,
        constant=hamiltonian.constant,
        largest_cutoff=cutoff.max(),
        cutoff=cutoff,
        step=step,
        field=fields.astype(np.float32),
        exact_field=fields,
        matrix=matrix,
        near=aligned(matrix.reshape(n_spins, -1, W)[everyone, everyone // W]),
        up_sums=up_sums,
        rest=rest,
        row=row,
    )


def set_betas(batch, beta: np.ndarray) -> None:
    """Give the lanes other inverse temperatures (lanes,)."""
    batch.beta[:] = beta


def _couplings(hamiltonian: Hamiltonian) -> np.ndarray:
    """Symmetric matrix (N, N) float64 of the bonds."""
    couplings = np.zeros((hamiltonian.n_spins, hamiltonian.n_spins))
    sites, bond = hamiltonian.bonds
    couplings[sites[:, 0], sites[:, 1]] = bond
    couplings[sites[:, 1], sites[:, 0]] = bond
    return couplings


def _rounded(couplings: np.ndarray, padded: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(step, matrix, up_sums, row, rest) of `DenseFields`, for couplings (N, N) and P = padded."""
    n_spins = len(couplings)
    largest = np.abs(couplings).sum(axis=0)
    # Rounding adds up to N / 2 steps to a field, and up to 2^-24 of itself to a step.
    step = np.where(largest > 0, largest / (2.0**31 - n_spins - 256), 1.0).astype(np.float32)
    steps = step.astype(np.float64)
    row = np.append(0, np.cumsum(-(-np.arange(n_spins) // W)))
    matrix = aligned(np.zeros((n_spins, padded), np.int32))
    rest = aligned(np.zeros((row[-1], W), np.float32))
    up_sums = np.zeros(padded, np.int64)
    for i, bonds in enumerate(couplings):
        theirs, own = np.rint(bonds / steps), np.rint(bonds / steps[i])
        up_sums[:n_spins] += theirs.astype(np.int64)
        matrix[i, :n_spins] = (2 * theirs.astype(np.int64)).astype(np.uint32).view(np.int32)
        left = bonds - (theirs * steps + own * steps[i]) / 2
        rest[row[i] : row[i + 1]].reshape(-1)[:i] = left[:i]
    return np.pad(step, (0, padded - n_spins)), matrix, up_sums.astype(np.int32), row, rest


@implements(generic.sweep, DenseFields)
@njit(cache=True, nogil=True)
def sweep(batch, unit, n_sweeps, count):
    law = (batch.largest_cutoff, batch.cutoff, batch.step, batch.field)
    couplings = (batch.matrix, batch.near)
    down, sums, streams, beta = batch.down[unit], batch.sums[unit], batch.streams[unit], batch.beta[unit]
    if n_sweeps > 0:
        batch.flipped[unit] = sweep_replica(down, sums, streams, beta, batch.n_spins, law, couplings, n_sweeps)


@implements(generic.refresh, DenseFields)
@njit(cache=True, nogil=True)
def refresh(batch, unit):
    found = sum_from_fields(batch.down[unit], batch.sums[unit], batch.step, batch.exact_field)
    batch.energy[unit] = batch.constant - found


@implements(generic.measure, DenseFields)
@njit(cache=True, nogil=True)
def measure(batch, unit):
    found = sum_from_fields(batch.down[unit], batch.sums[unit], batch.step, batch.exact_field)
    batch.energy[unit] = batch.constant - found - sum_of_rest(batch.down[unit], batch.row, batch.rest)


@implements(generic.exchange, DenseFields)
@njit(cache=True, nogil=True)
def exchange(batch, a, b):
    batch.beta[a], batch.beta[b] = batch.beta[b], batch.beta[a]


@implements(generic.store, DenseFields)
@njit(cache=True, nogil=True)
def store(batch, unit, rows):
    down, row = batch.down[unit], rows[0]
    row[:] = U0
    for site in range(batch.n_spins):
        row[site // 64] |= np.uint64(down[site] + 1) << np.uint64(site % 64)


@implements(generic.load, DenseFields)
@njit(cache=True, nogil=True)
def load(batch, unit, rows):
    down, sums, row = batch.down[unit], batch.sums[unit], rows[0]
    sums[:] = batch.up_sums
    for begin in range(0, batch.n_spins, W):
        turned = U0
        for bit in range(min(W, batch.n_spins - begin)):
            site = begin + bit
            up = (row[site // 64] >> np.uint64(site % 64)) & U1
            down[site] = np.int32(up) - np.int32(1)
            turned |= (U1 - up) << np.uint64(bit)
        add_flipped(sums, down, batch.matrix, begin, turned)
