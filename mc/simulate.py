"""Drivers warm up, produce blocks of draws and hand out their state; here the one of independent replicas.

A driver's future depends on its state only, so a run stopped after any block and restored elsewhere continues bit for
bit, with any partition into blocks and any number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numba import njit, prange

from mc.engine import Engine
from mc.hamiltonian import Hamiltonian
from mc.kernels.batch import measure, store, sweep
from mc.kernels.random_streams import next_uint64, streams
from mc.measure import (
    Measured,
    kept_draws,
    measured_posterior,
    no_record,
    place_of_spins,
    posterior_axes,
    probe,
    record,
    room,
)

RULES = ("metropolis", "heatbath", "wolff", "swendsen-wang")
REPLICA_STREAMS, SWAP_STREAMS, INITIAL_STREAMS = 0, 1, 3  # uses of one seed; 2 is that of neural chains
U63 = np.uint64(63)


@dataclass(frozen=True)
class Block:
    """Consecutive draws. Axes are (chain, draw, beta), then own axes.

    posterior: energy (total, energy unit) and magnetization (sum s / N), float64, and what the driver adds.
    sample_stats: what the moves report, float64.
    spins: int8 (chain, stored draw, beta, own axes, N) of the draws numbered spin_draws, int64, counted from the
        first block.
    """

    posterior: dict[str, np.ndarray]
    sample_stats: dict[str, np.ndarray]
    spins: np.ndarray
    spin_draws: np.ndarray


class Driver(Protocol):
    """What the command line and the chain file ask of a sampler.

    Classical ones also say what their blocks hold: `posterior_axes` {variable: {axis after beta: length}},
    `stat_names` and `spin_axes` {axis between beta and site: length}; and the `engine` (`mc.engine.Engine`) they use.
    """

    def warm_up(self, n_sweeps: int) -> None:
        """Move n_sweeps sweeps without a draw."""

    def block(self, n_draws: int) -> Block:
        """The next n_draws draws of every chain at every beta."""

    def state(self) -> dict[str, np.ndarray]:
        """Copies of all arrays on which the future depends."""

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Continue from such a state; ValueError when it belongs to another simulation."""


class LocalDriver:
    """Independent replicas at fixed betas under one update rule: metropolis, heatbath, wolff or swendsen-wang.

    betas: (B,) in 1 / energy unit, finite, >= 0. n_chains: independent chains at each beta. seed: of all random
    numbers. thin: sweeps between draws. init: "random", "up" or spins that broadcast to (n_chains, B, N).
    spins_every: keep the spins of draws 0, K, 2K, ... (0: of none). kernel: see `mc.engine.choose`.

    A sweep is one visit of each site; for wolff, as many clusters as flip about N spins, a number for each beta
    that the warm-up measures (1 without a warm-up); for swendsen-wang one update of the whole system.
    posterior: `energy`, `magnetization` and, for ferromagnets on lattices with a periodic axis, `magnetization_k2`,
    for alloys `l10` (`Measured.mode`).
    sample_stats: `accepted`, the fraction of spins flipped by the last sweep; for wolff the mean cluster size / N.

    Raises ValueError for a rule that is unknown or not valid for the model, and for wrong betas, sizes or spins.
    """

    def __init__(
        self,
        hamiltonian: Hamiltonian,
        betas: np.ndarray,
        n_chains: int = 4,
        seed: int = 0,
        rule: str = "metropolis",
        thin: int = 1,
        init: str | np.ndarray = "random",
        spins_every: int = 1,
        kernel: str = "auto",
    ):
        if rule not in RULES:
            raise ValueError(f"rule={rule}: not one of {', '.join(RULES)}")
        self.hamiltonian = hamiltonian
        self.betas = checked_betas(betas)
        self.n_chains = at_least("n_chains", n_chains, 1)
        self.thin = at_least("thin", thin, 1)
        self.spins_every = at_least("spins_every", spins_every, 0)
        self.rule = rule
        self._shape = (self.n_chains, len(self.betas))
        each = np.tile(self.betas, self.n_chains)[:, None]
        self.engine = Engine(hamiltonian, each, seed, (REPLICA_STREAMS,), rule, kernel)
        starts = replica_streams(seed, INITIAL_STREAMS, *self._shape)
        spins = initial_spins(init, hamiltonian.n_spins, starts, n_up=hamiltonian.n_up)
        self.engine.set_spins(spins.reshape(-1, 1, hamiltonian.n_spins))
        self._probe = probe(hamiltonian)
        self.posterior_axes, self.spin_axes = posterior_axes(hamiltonian), {}
        self.stat_names = ("accepted",)
        self._rows = self.engine.rows()
        self._clusters = np.ones(len(self.betas), np.int64)
        self.lowest = no_record(hamiltonian.n_spins)
        self._draw = 0

    def warm_up(self, n_sweeps: int) -> None:
        """n_sweeps sweeps; with wolff the second half of them measures how many clusters make a sweep."""
        if self.rule != "wolff":
            if n_sweeps > 0:
                self._run(1, n_sweeps, 0)
            return
        for part in (n_sweeps // 2, n_sweeps - n_sweeps // 2):
            if part > 0:
                # No number of clusters given: each replica goes on until it has flipped N spins per sweep.
                self._clusters[:] = 0
                fraction = self._run(1, part, 0).accepted.reshape(self._shape).mean(axis=0)
                self._clusters = np.maximum(np.rint(1.0 / fraction), 1.0).astype(np.int64)

    def block(self, n_draws: int) -> Block:
        """The next n_draws draws: `thin` sweeps, then the measurement."""
        measured = self._run(n_draws, self.thin, self.spins_every)
        stored = kept_draws(self._draw, n_draws, self.spins_every)
        self._draw += n_draws
        names = ("energy", "magnetization", "mode", "accepted", "spins")
        by_chain = {name: self._by_chain(getattr(measured, name)) for name in names}
        posterior = measured_posterior(self.hamiltonian, by_chain)
        return Block(posterior, {"accepted": by_chain["accepted"]}, by_chain["spins"], stored)

    def state(self) -> dict[str, np.ndarray]:
        """spins (chain, beta, N) int8, streams of the kernel, clusters_per_sweep (beta,), draw ()."""
        state = self.engine.state()
        return (
            state
            | self.lowest.state()
            | {
                "spins": state["spins"].reshape(*self._shape, -1),
                "clusters_per_sweep": self._clusters.copy(),
                "draw": np.array(self._draw, np.int64),
            }
        )

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Continue from `state()` of a driver with the same arguments; ValueError when shapes differ."""
        state = checked_state(state, self.state())
        state["spins"] = state["spins"].reshape(-1, 1, self.hamiltonian.n_spins)
        self.engine.restore(state)
        self.lowest.restore(state)
        self._clusters, self._draw = state["clusters_per_sweep"], int(state["draw"])

    def _run(self, n_draws: int, thin: int, spins_every: int) -> Measured:
        replicas, n_spins = self.n_chains * len(self.betas), self.hamiltonian.n_spins
        stored = len(kept_draws(self._draw, n_draws, spins_every))
        measured = room(replicas, n_draws, stored, n_spins)
        if self.rule == "wolff":
            self.engine.batch.clusters[self.engine.lanes.ravel()] = np.tile(self._clusters, self.n_chains)
        place = (self._draw, thin, spins_every)
        run_draws(self.engine.batch, self.engine.seats(), self._probe, self._rows, *place, measured)
        self.lowest.update(measured)
        return measured

    def _by_chain(self, values: np.ndarray) -> np.ndarray:
        """(replica, draw, ...) as (chain, draw, beta, ...)."""
        return np.ascontiguousarray(values.reshape(*self._shape, *values.shape[1:]).swapaxes(1, 2))


def replica_streams(seed: int, use: int, n_chains: int, n_betas: int) -> np.ndarray:
    """One stream a replica for one use of a seed, (chain, beta, 4) uint64."""
    return streams(seed, use, count=n_chains * n_betas).reshape(n_chains, n_betas, 4)


def checked_betas(betas: np.ndarray) -> np.ndarray:
    """betas as float64 (B,); ValueError unless there is one and all are finite and >= 0."""
    betas = np.array(betas, np.float64, ndmin=1)
    if betas.ndim != 1 or not betas.size or not np.isfinite(betas).all() or (betas < 0).any():
        raise ValueError(f"betas={betas.tolist()}: one or more finite numbers >= 0 are needed")
    return betas


def at_least(name: str, value: int, least: int) -> int:
    """`value`; ValueError when it is below `least`."""
    if value < least:
        raise ValueError(f"{name}={value}: an integer of at least {least} is needed")
    return int(value)


def checked_state(state: dict[str, np.ndarray], own: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Copies of the arrays of `state`; ValueError when names, shapes or types are not those of `own`."""
    checked = {}
    for name, mine in own.items():
        if name not in state:
            raise ValueError(f"state: {name} is missing")
        given = np.asarray(state[name])
        if given.shape != mine.shape or given.dtype != mine.dtype:
            raise ValueError(f"state: {name} is {given.dtype} {given.shape}, {mine.dtype} {mine.shape} is needed")
        checked[name] = np.array(given, order="C")
    return checked


def initial_spins(
    init: str | np.ndarray,
    n_spins: int,
    states: np.ndarray,
    axes: tuple[int, ...] | None = None,
    n_up: int | None = None,
) -> np.ndarray:
    """Spins (*axes, N) int8, axes (chain, beta) unless given, one stream of `states` (chain, K, 4) for each state.

    "random" takes them from the streams, which move on; an array of spins is broadcast. n_up: so many are +1.
    Raises ValueError for another word, and for spins that are no +1 and -1, of another shape or number up.
    """
    spins = np.ones((*states.shape[:2], n_spins), np.int8)
    axes = axes or states.shape[:2]
    if isinstance(init, str):
        if init not in ("random", "up"):
            raise ValueError(f"init={init}: random, up or an array of spins is needed")
        if init == "random":
            random_spins(spins, states, n_up)
        elif n_up is not None and n_up < n_spins:
            raise ValueError(f"init=up: {n_up} of {n_spins} spins are up in every state; use init=random")
        return spins.reshape(*axes, n_spins)
    init = np.asarray(init)
    if not np.isin(init, (-1, 1)).all():
        raise ValueError("init: spins other than +1 and -1")
    if n_up is not None and ((init == 1).sum(axis=-1) != n_up).any():
        raise ValueError(f"init: states with another number of spins up than n_up = {n_up}; use init=random")
    try:
        return np.broadcast_to(init, (*axes, n_spins)).astype(np.int8)
    except ValueError:
        needed = "(chain, beta, replica, N)" if len(axes) == 3 else "(chain, beta, N)"
        raise ValueError(f"init: spins {init.shape} do not broadcast to {needed} = {(*axes, n_spins)}") from None


def random_spins(spins: np.ndarray, states: np.ndarray, n_up: int | None = None) -> None:
    """Fill spins (chain, beta, N) int8 from streams (chain, beta, 4): any states, or any with n_up spins up."""
    if n_up is None:
        randomise(spins, states)
    else:
        spins[..., :n_up], spins[..., n_up:] = 1, -1
        shuffle(spins, states)


@njit(cache=True, nogil=True)
def randomise(spins, states):
    """Fill spins (chain, beta, N) int8 with +1 and -1, each replica from its stream (chain, beta, 4)."""
    for chain in range(spins.shape[0]):
        for b in range(spins.shape[1]):
            for site in range(spins.shape[2]):
                spins[chain, b, site] = 1 if next_uint64(states[chain, b]) >> U63 else -1


@njit(cache=True, nogil=True)
def shuffle(spins, states):
    """Put the spins of each replica (chain, beta, N) into a random order from its stream (chain, beta, 4).

    Fisher and Yates; the remainder of a word of 64 bits favours no site by more than N 2^-64.
    """
    for chain in range(spins.shape[0]):
        for b in range(spins.shape[1]):
            row = spins[chain, b]
            for last in range(row.shape[0] - 1, 0, -1):
                other = np.int64(next_uint64(states[chain, b]) % np.uint64(last + 1))
                row[last], row[other] = row[other], row[last]


@njit(cache=True, nogil=True)
def unit_draws(batch, unit, seats, probe, rows, first_draw, thin, every, measured):
    """All draws of the replicas of one unit; `seats` says which replica a lane holds, -1 for none."""
    width = rows.shape[0]
    for draw in range(measured.energy.shape[1]):
        sweep(batch, unit, thin, True)
        measure(batch, unit)
        store(batch, unit, rows)
        stored = place_of_spins(draw, first_draw, every)
        for place in range(width):
            lane = unit * width + place
            replica = seats[lane]
            if replica >= 0:
                measured.accepted[replica, draw] = batch.flipped[lane] / probe.n_spins
                record(batch.energy[lane], rows[place], probe, replica, draw, stored, measured)


# The loop over threads holds nothing but a call: Numba overlooks writes to arrays inside a named tuple and would drop
# it as dead code. Without the cast it would compile the call twice, as it types loop indices in two ways.
@njit(cache=True, nogil=True, parallel=True)
def run_draws(batch, seats, probe, rows, first_draw, thin, every, measured):
    """All draws of a block: rows (units, width, words) is scratch, `seats` (lanes,) int64."""
    for unit in prange(rows.shape[0]):
        unit_draws(batch, np.int64(unit), seats, probe, rows[unit], first_draw, thin, every, measured)
