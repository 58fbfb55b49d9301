"""Parallel tempering: ladders of replicas that exchange temperatures.

Hukushima and Nemoto, J. Phys. Soc. Jpn. 65, 1604 (1996); the swaps are those of `mc.kernels.swap`. One chain is one
whole ladder.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numba import njit, prange

from mc.hamiltonian import Hamiltonian
from mc.kernels.local_field import energy, magnetization
from mc.kernels.random_streams import streams
from mc.kernels.swap import follow, swap_ladder
from mc.simulate import (
    REPLICA_STREAMS,
    RULES,
    SWAP_STREAMS,
    Block,
    Measured,
    at_least,
    checked_betas,
    checked_state,
    initial_spins,
    kept_draws,
    kernel_model,
    local_sweeps,
    replica_streams,
    room,
)


class Ladders(NamedTuple):
    """What moves, by (chain, replica), and who sits where. A replica keeps its spins and its stream for life."""

    spins: np.ndarray  # (chain, replica, N) int8
    energies: np.ndarray  # (chain, replica) float64, of these spins
    streams: np.ndarray  # (chain, replica, 4) uint64
    last_end: np.ndarray  # (chain, replica) int8, see swap.follow
    round_trips: np.ndarray  # (chain, replica) int64
    holder: np.ndarray  # (chain, beta) int64: the replica that sits at this beta
    swap_streams: np.ndarray  # (chain, 4) uint64


class TemperingDriver:
    """Replica exchange along a ladder of betas, with metropolis or heatbath sweeps.

    A round is one sweep of every replica and one swap phase: of all even pairs of neighbours, or all odd ones, in
    turn. A draw is `thin` rounds. betas: (B,) in 1 / energy unit, >= 0, rising or falling; one beta alone is swapped
    with nobody. n_chains: independent ladders. init: "random", "up" or spins that broadcast to (n_chains, B, N).
    spins_every: keep the spins of draws 0, K, 2K, ... (0: of none), by beta like all else.

    sample_stats, (chain, draw, beta): `accepted`, fraction of flips accepted at this beta since the last draw;
    `swap_accepted`, fraction of swaps accepted between beta b and b + 1, NaN where none was tried (at the last b,
    and with thin=1 at every second one).

    Raises ValueError for wrong rules, betas, sizes or spins.
    """

    def __init__(
        self,
        hamiltonian: Hamiltonian,
        betas: np.ndarray,
        n_chains: int = 4,
        seed: int = 0,
        thin: int = 1,
        rule: str = "metropolis",
        init: str | np.ndarray = "random",
        spins_every: int = 1,
    ):
        if rule not in ("metropolis", "heatbath"):
            raise ValueError(f"rule={rule}: parallel tempering takes metropolis or heatbath")
        self.hamiltonian = hamiltonian
        self.betas = checked_betas(betas)
        steps = np.diff(self.betas)
        if not ((steps > 0).all() or (steps < 0).all()):
            raise ValueError(f"betas={self.betas.tolist()}: a ladder rises or falls, with no beta twice")
        self.n_chains = at_least("n_chains", n_chains, 1)
        self.thin = at_least("thin", thin, 1)
        self.spins_every = at_least("spins_every", spins_every, 0)
        self.rule = rule
        self._model = kernel_model(hamiltonian)
        shape = (self.n_chains, len(self.betas))
        replicas = replica_streams(seed, REPLICA_STREAMS, *shape)
        spins = initial_spins(init, hamiltonian.n_spins, replicas)
        self._ladders = Ladders(
            spins=spins,
            energies=hamiltonian.energy(spins),
            streams=replicas,
            last_end=np.zeros(shape, np.int8),
            round_trips=np.zeros(shape, np.int64),
            holder=np.tile(np.arange(shape[1], dtype=np.int64), (shape[0], 1)),
            swap_streams=streams(seed, SWAP_STREAMS, count=shape[0]),
        )
        self._round = 0
        self._draw = 0

    @property
    def round_trips(self) -> np.ndarray:
        """Trips hot - cold - hot of each replica since the warm-up, (chain, replica) int64."""
        return self._ladders.round_trips.copy()

    def warm_up(self, n_sweeps: int) -> None:
        """n_sweeps rounds; round trips count from then on."""
        if n_sweeps > 0:
            self._run(1, n_sweeps, 0)
        self._ladders.round_trips[:] = 0

    def block(self, n_draws: int) -> Block:
        """The next n_draws draws: `thin` rounds, then the measurement."""
        measured, accepted, tried = self._run(n_draws, self.thin, self.spins_every)
        stored = kept_draws(self._draw, n_draws, self.spins_every)
        self._draw += n_draws
        swap_accepted = np.divide(accepted, tried, out=np.full(tried.shape, np.nan), where=tried > 0)
        posterior = {"energy": measured.energy, "magnetization": measured.magnetization}
        statistics = {"accepted": measured.accepted, "swap_accepted": swap_accepted}
        return Block(posterior, statistics, measured.spins, stored)

    def state(self) -> dict[str, np.ndarray]:
        """The arrays of `Ladders`, and the numbers of rounds and draws made, int64 ()."""
        arrays = {name: array.copy() for name, array in self._ladders._asdict().items()}
        return arrays | {"round": np.array(self._round, np.int64), "draw": np.array(self._draw, np.int64)}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Continue from `state()` of a driver with the same arguments; ValueError when shapes differ."""
        state = checked_state(state, self.state())
        if (np.sort(state["holder"], axis=1) != np.arange(len(self.betas))).any():
            raise ValueError("state: holder does not name each replica once")
        self._ladders = Ladders(*(state[name] for name in Ladders._fields))
        self._round, self._draw = int(state["round"]), int(state["draw"])

    def _run(self, n_draws: int, thin: int, spins_every: int) -> tuple[Measured, np.ndarray, np.ndarray]:
        """What was measured, and numbers of swaps accepted and tried, (chain, draw, beta)."""
        spins = self._ladders.spins
        measured = room(spins.shape, n_draws, len(kept_draws(self._draw, n_draws, spins_every)))
        counts = np.zeros((3, n_draws, *spins.shape[:2]), np.int64)
        # A thread with whole ladders never waits for another; when there are more threads than ladders they share out
        # the replicas of each round instead. Every replica has its own stream, so the draws are the same.
        whole = self.n_chains >= numba.get_num_threads()
        rounds = rounds_by_ladder if whole else rounds_by_replica
        place = (self._round, self._draw, thin, spins_every)
        rounds(RULES[self.rule], self._model, self._ladders, self.betas, *place, measured, *counts)
        self._round += n_draws * thin
        flips, accepted, tried = counts.swapaxes(1, 2)
        measured.accepted[:] = flips / (thin * spins.shape[2])
        return measured, accepted, tried


@njit(cache=True, nogil=True)
def sweep_at(rule, model, ladders, betas, chain, b, flips):
    """One sweep of the replica at beta b; its flips are added to flips (chain, beta)."""
    replica = ladders.holder[chain, b]
    spins, stream = ladders.spins[chain, replica], ladders.streams[chain, replica]
    accepted, change = local_sweeps(rule, model, spins, betas[b], stream, 1)
    flips[chain, b] += accepted
    ladders.energies[chain, replica] += change


@njit(cache=True, nogil=True)
def exchange(ladders, betas, chain, parity, accepted, tried):
    """The swap phase of one ladder; counts are added to accepted, tried (chain, beta)."""
    holder, stream = ladders.holder[chain], ladders.swap_streams[chain]
    swap_ladder(ladders.energies[chain], betas, holder, stream, parity, accepted[chain], tried[chain])
    follow(holder, betas, ladders.last_end[chain], ladders.round_trips[chain])


@njit(cache=True, nogil=True)
def record(model, ladders, chain, b, draw, stored, measured):
    """Measure the replica at beta b; its spins go to place `stored` unless that is negative.

    The energy is summed anew: with its history of changes it would depend on where blocks begin.
    """
    replica = ladders.holder[chain, b]
    spins = ladders.spins[chain, replica]
    total = energy(spins, model.constant, model.start, model.coupling, model.others)
    ladders.energies[chain, replica] = total
    measured.energy[chain, draw, b] = total
    measured.magnetization[chain, draw, b] = magnetization(spins)
    if stored >= 0:
        for site in range(spins.shape[0]):
            measured.spins[chain, stored, b, site] = spins[site]


@njit(cache=True, nogil=True)
def place_of_spins(draw, first_draw, every):
    """Where the spins of draw number first_draw + draw go in their block, -1 if they are not kept."""
    if every == 0 or (first_draw + draw) % every != 0:
        return -1
    return (first_draw + draw) // every - (first_draw + every - 1) // every


@njit(cache=True, nogil=True)
def ladder_rounds(
    rule, model, ladders, betas, first_round, first_draw, thin, every, measured, flips, accepted, tried, chain
):
    """All rounds of a block of one ladder."""
    for draw in range(flips.shape[0]):
        for step in range(thin):
            for b in range(betas.shape[0]):
                sweep_at(rule, model, ladders, betas, chain, b, flips[draw])
            parity = (first_round + draw * thin + step) % 2
            exchange(ladders, betas, chain, parity, accepted[draw], tried[draw])
        stored = place_of_spins(draw, first_draw, every)
        for b in range(betas.shape[0]):
            record(model, ladders, chain, b, draw, stored, measured)


# As in mc.simulate, the loops over threads hold nothing but a call.
@njit(cache=True, nogil=True, parallel=True)
def rounds_by_ladder(
    rule, model, ladders, betas, first_round, first_draw, thin, every, measured, flips, accepted, tried
):
    """All rounds of a block, each ladder by one thread. flips, accepted, tried: (draw, chain, beta) int64, counts."""
    place = (first_round, first_draw, thin, every)
    for chain in prange(flips.shape[1]):
        ladder_rounds(rule, model, ladders, betas, *place, measured, flips, accepted, tried, np.int64(chain))


@njit(cache=True, nogil=True, parallel=True)
def rounds_by_replica(
    rule, model, ladders, betas, first_round, first_draw, thin, every, measured, flips, accepted, tried
):
    """The same, the replicas of each round shared out among threads, which wait for each other before the swaps."""
    n_draws, chains, n_betas = flips.shape
    for draw in range(n_draws):
        for step in range(thin):
            for seat in prange(chains * n_betas):
                sweep_at(
                    rule, model, ladders, betas, np.int64(seat // n_betas), np.int64(seat % n_betas), flips[draw]
                )
            parity = (first_round + draw * thin + step) % 2
            for chain in range(chains):
                exchange(ladders, betas, chain, parity, accepted[draw], tried[draw])
        stored = place_of_spins(draw, first_draw, every)
        for seat in prange(chains * n_betas):
            record(model, ladders, np.int64(seat // n_betas), np.int64(seat % n_betas), draw, stored, measured)
