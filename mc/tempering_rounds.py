"""The compiled loops of parallel tempering: sweeps, swaps, cluster moves and measurements of groups of ladders.

A group is the ladders that share units of the batch (`mc.engine`); one thread moves it. Written once for every kernel
(`mc.kernels.batch`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit, prange

from mc.kernels import houdayer
from mc.kernels.batch import exchange, load, measure, refresh, store, sweep
from mc.kernels.overlaps import link_overlap, lowest_mode, overlap
from mc.kernels.swap import follow, swap_ladder
from mc.measure import place_of_spins, record

CLUSTER_ROUNDS = 10  # from one phase of Houdayer moves to the next


class Ladders(NamedTuple):
    """Who sits where. A lane keeps its spins and its random numbers for life."""

    holder: np.ndarray  # (chain, replica, beta) int64: the lane that is at this beta
    before: np.ndarray  # (chain, beta) int64: scratch
    last_end: np.ndarray  # (lanes,) int8, see swap.follow
    round_trips: np.ndarray  # (lanes,) int64
    streams: np.ndarray  # (chain, 4) uint64, of swaps and clusters


class Overlaps(NamedTuple):
    """Series of pairs of replicas at one beta: (chain, draw, beta, pair) float64."""

    overlap: np.ndarray
    link_overlap: np.ndarray
    mode: np.ndarray


class Schedule(NamedTuple):
    """Where a block of rounds stands, and what it does when."""

    first_round: int
    first_draw: int
    thin: int
    every: int  # spins are kept every so many draws
    clusters: np.ndarray  # (beta,) bool: where Houdayer moves are made
    betas: np.ndarray  # (beta,)


class Graph(NamedTuple):
    """The Hamiltonian as clusters need it."""

    symmetric: bool
    start: np.ndarray
    others: np.ndarray  # int32, see `local_field.kernel_arrays`


@njit(cache=True, nogil=True)
def swap_phase(batch, ladders, betas, chain, parity, accepted, tried):
    """The swaps of the ladders of one chain; counts are added to accepted, tried (beta,)."""
    before = ladders.before[chain]
    for replica in range(ladders.holder.shape[1]):
        holder = ladders.holder[chain, replica]
        before[:] = holder
        swap_ladder(batch.energy, betas, holder, ladders.streams[chain], parity, accepted, tried)
        for b in range(parity, betas.shape[0] - 1, 2):
            if holder[b] != before[b]:
                exchange(batch, before[b], before[b + 1])
        follow(holder, betas, ladders.last_end, ladders.round_trips)


@njit(cache=True, nogil=True)
def cluster_phase(batch, ladders, graph, n_spins, clusters, units, chains, rows):
    """Houdayer moves of the pairs of replicas (0, 1), (2, 3), ... of the chains of a group, where clusters[beta]."""
    first = units[0]
    width = rows.shape[1]
    stack = np.empty(n_spins, np.int32)
    for unit in range(units[0], units[1]):
        store(batch, unit, rows[unit])
    for chain in range(chains[0], chains[1]):
        for b in range(clusters.shape[0]):
            if clusters[b]:
                for replica in range(0, ladders.holder.shape[1] - 1, 2):
                    one, two = ladders.holder[chain, replica, b], ladders.holder[chain, replica + 1, b]
                    row_one, row_two = rows[one // width, one % width], rows[two // width, two % width]
                    tables = (graph.start, graph.others, n_spins, graph.symmetric)
                    houdayer.move(row_one, row_two, *tables, ladders.streams[chain], stack)
    for unit in range(first, units[1]):
        load(batch, unit, rows[unit])
        measure(batch, unit)


@njit(cache=True, nogil=True)
def minorities(holder, symmetric, n_spins, rows):
    """`houdayer.minority_fraction` at each beta, mean over chains and pairs of replicas: (beta,) float64."""
    chains, replicas, n_betas = holder.shape
    width = rows.shape[1]
    mean, pairs = np.zeros(n_betas), chains * (replicas * (replicas - 1) // 2)
    for chain in range(chains):
        for replica in range(replicas):
            for other in range(replica):
                for b in range(n_betas):
                    one, two = holder[chain, replica, b], holder[chain, other, b]
                    row_one, row_two = rows[one // width, one % width], rows[two // width, two % width]
                    mean[b] += houdayer.minority_fraction(row_one, row_two, n_spins, symmetric) / pairs
    return mean


@njit(cache=True, nogil=True)
def note_flips(batch, ladders, n_spins, draw, chains, accepted):
    """Fractions of spins flipped by the last sweep, into accepted (replica, draw), before lanes change places."""
    replicas, n_betas = ladders.holder.shape[1:]
    for chain in range(chains[0], chains[1]):
        for replica in range(replicas):
            for b in range(n_betas):
                number = (chain * replicas + replica) * n_betas + b
                accepted[number, draw] = batch.flipped[ladders.holder[chain, replica, b]] / n_spins


@njit(cache=True, nogil=True)
def after_sweeps(batch, ladders, graph, n_spins, schedule, step, units, chains, rows, accepted, tried):
    """The rest of a round of one group, after its sweeps. accepted, tried: (chain, beta)."""
    number = schedule.first_round + step
    for chain in range(chains[0], chains[1]):
        swap_phase(batch, ladders, schedule.betas, chain, number % 2, accepted[chain], tried[chain])
    if (number + 1) % CLUSTER_ROUNDS == 0 and schedule.clusters.any():
        cluster_phase(batch, ladders, graph, n_spins, schedule.clusters, units, chains, rows)


@njit(cache=True, nogil=True)
def measure_group(batch, ladders, probe, links, schedule, draw, units, chains, rows, measured, overlaps):
    """Measure every replica of a group and every pair at one beta."""
    width = rows.shape[1]
    replicas, n_betas = ladders.holder.shape[1:]
    stored = place_of_spins(draw, schedule.first_draw, schedule.every)
    for unit in range(units[0], units[1]):
        measure(batch, unit)
        store(batch, unit, rows[unit])
    for chain in range(chains[0], chains[1]):
        for b in range(n_betas):
            pair = 0
            for replica in range(replicas):
                lane = ladders.holder[chain, replica, b]
                row = rows[lane // width, lane % width]
                number = (chain * replicas + replica) * n_betas + b
                record(batch.energy[lane], row, probe, number, draw, stored, measured)
                for other in range(replica):
                    lane = ladders.holder[chain, other, b]
                    record_pair(row, rows[lane // width, lane % width], probe, links, overlaps, chain, draw, b, pair)
                    pair += 1


@njit(cache=True, nogil=True)
def record_pair(row, other, probe, links, overlaps, chain, draw, b, pair):
    """Put down the overlaps of two rows of bits."""
    n_spins = probe.n_spins
    overlaps.overlap[chain, draw, b, pair] = overlap(row, other, n_spins)
    if links.count > 0:
        overlaps.link_overlap[chain, draw, b, pair] = link_overlap(row, other, links)
    if probe.masks.shape[0] > 0:
        overlaps.mode[chain, draw, b, pair] = lowest_mode(row, other, n_spins, probe)


@njit(cache=True, nogil=True)
def group_rounds(
    batch, ladders, graph, probe, links, schedule, units, chains, rows, measured, overlaps, accepted, tried
):
    """All rounds of a block of one group: units[0] to units[1] - 1, chains[0] to chains[1] - 1."""
    for draw in range(measured.energy.shape[1]):
        for step in range(schedule.thin):
            for unit in range(units[0], units[1]):
                sweep(batch, unit, 1, step == schedule.thin - 1)
                refresh(batch, unit)
            if step == schedule.thin - 1:
                note_flips(batch, ladders, probe.n_spins, draw, chains, measured.accepted)
            place = draw * schedule.thin + step
            counts = (accepted[:, draw], tried[:, draw])
            after_sweeps(batch, ladders, graph, probe.n_spins, schedule, place, units, chains, rows, *counts)
        measure_group(batch, ladders, probe, links, schedule, draw, units, chains, rows, measured, overlaps)


# As in mc.simulate, the loops over threads hold nothing but a call.
@njit(cache=True, nogil=True, parallel=True)
def rounds_by_group(
    batch,
    ladders,
    graph,
    probe,
    links,
    schedule,
    group_units,
    group_chains,
    rows,
    measured,
    overlaps,
    accepted,
    tried,
):
    """All rounds of a block, each group of chains by one thread."""
    for group in prange(group_units.shape[0] - 1):
        g = np.int64(group)
        units, chains = group_units[g : g + 2], group_chains[g : g + 2]
        group_rounds(
            batch, ladders, graph, probe, links, schedule, units, chains, rows, measured, overlaps, accepted, tried
        )


@njit(cache=True, nogil=True)
def sweep_once(batch, unit, count):
    """One sweep of a unit, energies current afterwards."""
    sweep(batch, unit, 1, count)
    refresh(batch, unit)


@njit(cache=True, nogil=True, parallel=True)
def rounds_by_unit(
    batch,
    ladders,
    graph,
    probe,
    links,
    schedule,
    group_units,
    group_chains,
    rows,
    measured,
    overlaps,
    accepted,
    tried,
):
    """The same, the units of each round shared out among threads, which wait for each other before the swaps."""
    for draw in range(measured.energy.shape[1]):
        for step in range(schedule.thin):
            for unit in prange(rows.shape[0]):
                sweep_once(batch, np.int64(unit), step == schedule.thin - 1)
            place = draw * schedule.thin + step
            for g in range(group_units.shape[0] - 1):
                units, chains = group_units[g : g + 2], group_chains[g : g + 2]
                if step == schedule.thin - 1:
                    note_flips(batch, ladders, probe.n_spins, draw, chains, measured.accepted)
                counts = (accepted[:, draw], tried[:, draw])
                after_sweeps(batch, ladders, graph, probe.n_spins, schedule, place, units, chains, rows, *counts)
        for g in range(group_units.shape[0] - 1):
            units, chains = group_units[g : g + 2], group_chains[g : g + 2]
            measure_group(batch, ladders, probe, links, schedule, draw, units, chains, rows, measured, overlaps)
