"""Parallel tempering: ladders of replicas that exchange temperatures.

Hukushima and Nemoto, J. Phys. Soc. Jpn. 65, 1604 (1996); the swaps are those of `mc.kernels.swap`. One chain is one
whole ladder, or several ladders of the same system side by side (`replicas`), whose overlaps are measured.
"""

from __future__ import annotations

import numba
import numpy as np

from mc.engine import Engine
from mc.hamiltonian import Hamiltonian
from mc.kernels.batch import store_all
from mc.kernels.local_field import kernel_arrays
from mc.kernels.overlaps import links
from mc.kernels.random_streams import streams
from mc.ladder import check_holder, swap_rates, tuned_betas
from mc.measure import Measured, has_modes, kept_draws, measured_posterior, no_record, posterior_axes, probe, room
from mc.simulate import (
    INITIAL_STREAMS,
    REPLICA_STREAMS,
    SWAP_STREAMS,
    Block,
    at_least,
    checked_betas,
    checked_state,
    initial_spins,
    replica_streams,
)
from mc.tempering_rounds import Graph, Ladders, Overlaps, Schedule, minorities, rounds_by_group, rounds_by_unit

FIRST_TUNING = 100  # rounds of the warm-up before the betas are tuned, then twice as many, ...
MOST_MINORITY = 0.3  # of the sites with q = -1, where Houdayer clusters do not percolate yet


class TemperingDriver:
    """Replica exchange along a ladder of betas, with metropolis or heatbath sweeps.

    A round is one sweep of every replica and one swap phase: of all even pairs of neighbours, or all odd ones, in
    turn. A draw is `thin` rounds. betas: (B,) in 1 / energy unit, >= 0, rising or falling; one beta alone is swapped
    with nobody. n_chains: independent chains. init: "random", "up" or spins that broadcast to (n_chains, B, N), with
    replicas to (n_chains, B, replicas, N). spins_every: keep the spins of draws 0, K, 2K, ... (0: of none), by beta
    like all else. kernel: see `mc.engine.choose`.

    replicas: ladders a chain. With more than one, `energy`, `magnetization` and spins have an axis `replica` after
    beta, and pairs of replicas their `overlap` q, `link_overlap` (mean of q_i q_j over the bonds) and, on lattices,
    `overlap_k2` (as `magnetization_k2`, of q), with an axis `pair` when there are more than two replicas.
    houdayer: with replicas, cluster moves between them every 10 rounds (`mc.kernels.houdayer`) at those betas where
    the warm-up sees the minority fraction of q = -1 sites below 0.3; nowhere with `n_up`, which they change.
    tuned: the warm-up moves the inner betas to where all neighbours swap equally often (`mc.ladder`); the ends stay.

    sample_stats, (chain, draw, beta): `accepted`, fraction of spins flipped by the last sweep (mean over replicas);
    `swap_accepted`, fraction of swaps accepted between beta b and b + 1 since the last draw, NaN where none was tried
    (at the last b, and with thin=1 at every second one).

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
        replicas: int = 1,
        houdayer: bool = False,
        tuned: bool = False,
        kernel: str = "auto",
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
        self.replicas = at_least("replicas", replicas, 1)
        self.houdayer = houdayer and replicas > 1 and hamiltonian.n_up is None
        self.tuned = tuned
        self.rule = rule
        chains, n_betas, n_spins = self.n_chains, len(self.betas), hamiltonian.n_spins
        self._shape = (chains, self.replicas, n_betas)
        everyone = np.broadcast_to(self.betas, self._shape).reshape(chains, -1)
        self.engine = Engine(hamiltonian, everyone, seed, (REPLICA_STREAMS,), rule, kernel)
        lanes = len(self.engine.batch.beta)
        self._ladders = Ladders(
            holder=self.engine.lanes.reshape(self._shape).copy(),
            before=np.zeros((chains, n_betas), np.int64),
            last_end=np.zeros(lanes, np.int8),
            round_trips=np.zeros(lanes, np.int64),
            streams=streams(seed, SWAP_STREAMS, count=chains),
        )
        starts = replica_streams(seed, INITIAL_STREAMS, chains, n_betas * self.replicas)
        start = initial_spins(init, n_spins, starts, self._by_beta(), hamiltonian.n_up)
        self.engine.set_spins(np.moveaxis(start, -2, 1).reshape(chains, -1, n_spins))
        first, _, others = kernel_arrays(hamiltonian.table)
        self._graph = Graph(hamiltonian.is_z2_symmetric, first, others)
        self._links = links(hamiltonian.bonds[0], n_spins)
        self._probe = probe(hamiltonian)
        self.stat_names = ("accepted", "swap_accepted")
        self.spin_axes = {"replica": self.replicas} if self.replicas > 1 else {}
        self.posterior_axes = posterior_axes(hamiltonian, self.spin_axes)
        if self.replicas > 1:
            pairs = self.replicas * (self.replicas - 1) // 2
            names = ["overlap"] + ["link_overlap"] * (self._links.count > 0) + ["overlap_k2"] * has_modes(hamiltonian)
            self.posterior_axes |= {name: {"pair": pairs} if pairs > 1 else {} for name in names}
        self._rows = self.engine.rows()
        self._minority = np.full(n_betas, np.nan)  # fraction of q = -1 sites, a running mean over the warm-up
        self._swaps = np.zeros((2, n_betas), np.int64)  # swaps accepted and tried since the betas were tuned
        self._next_tuning = FIRST_TUNING
        self.lowest = no_record(n_spins)
        self._round = 0
        self._draw = 0

    @property
    def round_trips(self) -> np.ndarray:
        """Trips hot - cold - hot of each replica since the warm-up, (chain, replicas * beta) int64."""
        return self._ladders.round_trips[self.engine.lanes]

    @property
    def clusters(self) -> np.ndarray:
        """Where Houdayer moves are made, (beta,) bool."""
        return self.houdayer & (self._minority < MOST_MINORITY)  # NaN compares as false

    @property
    def was_watched(self) -> bool:
        """Whether a warm-up has seen how alike the replicas are."""
        return not np.isnan(self._minority).all()

    def warm_up(self, n_sweeps: int) -> None:
        """n_sweeps rounds; round trips count from then on."""
        left = n_sweeps
        while left > 0:
            some = min(left, self._next_tuning - self._round) if self.tuned else left
            _, _, accepted, tried = self._run(1, some, 0)
            self._swaps += np.stack([accepted.sum(axis=(0, 1)), tried.sum(axis=(0, 1))])
            left -= some
            if self.tuned and self._round == self._next_tuning:
                self._tune()
            if self.replicas > 1:
                self._watch_minority()
        self._ladders.round_trips[:] = 0

    def block(self, n_draws: int) -> Block:
        """The next n_draws draws: `thin` rounds, then the measurement."""
        measured, overlaps, accepted, tried = self._run(n_draws, self.thin, self.spins_every)
        stored = kept_draws(self._draw, n_draws, self.spins_every)
        self._draw += n_draws
        names = ("energy", "magnetization", "mode", "accepted", "spins")
        by_beta = {name: self._by_chain(getattr(measured, name)) for name in names}
        posterior = measured_posterior(self.hamiltonian, by_beta)
        if self.replicas > 1:
            one_pair = overlaps.overlap.shape[-1] == 1
            pairs = {name: values[..., 0] if one_pair else values for name, values in overlaps._asdict().items()}
            named = {"overlap": "overlap", "link_overlap": "link_overlap", "overlap_k2": "mode"}
            posterior |= {name: pairs[key] for name, key in named.items() if name in self.posterior_axes}
        flipped = by_beta["accepted"]
        statistics = {
            "accepted": flipped.mean(axis=-1) if self.replicas > 1 else flipped,
            "swap_accepted": swap_rates(accepted, tried),
        }
        return Block(posterior, statistics, by_beta["spins"], stored)

    def state(self) -> dict[str, np.ndarray]:
        """Spins, streams and bookkeeping by (chain, replica), the betas, and numbers of rounds and draws made."""
        base = self.engine.lanes[:, :1]
        ladders = self._ladders
        return (
            self.engine.state()
            | self.lowest.state()
            | {
                "holder": ladders.holder.reshape(self.n_chains, -1) - base,
                "last_end": ladders.last_end[self.engine.lanes],
                "round_trips": ladders.round_trips[self.engine.lanes],
                "swap_streams": ladders.streams.copy(),
                "betas": self.betas.copy(),
                "minority": self._minority.copy(),
                "swaps": self._swaps.copy(),
                "next_tuning": np.array(self._next_tuning, np.int64),
                "round": np.array(self._round, np.int64),
                "draw": np.array(self._draw, np.int64),
            }
        )

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Continue from `state()` of a driver with the same arguments; ValueError when shapes differ."""
        state = checked_state(state, self.state())
        holder = state["holder"]
        check_holder(holder)
        self.betas = state["betas"]
        ladders, lanes = self._ladders, self.engine.lanes
        ladders.holder[...] = (holder + lanes[:, :1]).reshape(self._shape)
        ladders.last_end[lanes], ladders.round_trips[lanes] = state["last_end"], state["round_trips"]
        ladders.streams[...] = state["swap_streams"]
        self._minority, self._swaps = state["minority"], state["swaps"]
        self._next_tuning, self._round, self._draw = (int(state[name]) for name in ("next_tuning", "round", "draw"))
        self._seat()
        self.engine.restore(state)
        self.lowest.restore(state)

    def _by_beta(self) -> tuple[int, ...]:
        """Axes of what each replica has, in a block: (chain, beta) or (chain, beta, replica)."""
        chains, replicas, n_betas = self._shape
        return (chains, n_betas, replicas) if replicas > 1 else (chains, n_betas)

    def _by_chain(self, values: np.ndarray) -> np.ndarray:
        """(replica, draw, ...), replicas numbered by (chain, replica, beta), as (chain, draw, beta, replica, ...)."""
        chains, replicas, n_betas = self._shape
        values = np.moveaxis(values.reshape(chains, replicas, n_betas, *values.shape[1:]), (3, 2, 1), (1, 2, 3))
        return np.ascontiguousarray(values if replicas > 1 else values[:, :, :, 0])

    def _seat(self) -> None:
        """Give every lane the beta of its place on the ladder."""
        by_lane = np.zeros(len(self.engine.batch.beta))
        by_lane[self._ladders.holder] = self.betas
        self.engine.set_betas(by_lane[self.engine.lanes])

    def _tune(self) -> None:
        accepted, tried = self._swaps[:, :-1]
        self.betas = tuned_betas(self.betas, 1.0 - accepted / np.maximum(tried, 1))
        self._swaps[:] = 0
        self._next_tuning *= 2
        self._seat()

    def _watch_minority(self) -> None:
        """Mean over chains and pairs of the fraction of q = -1 sites (or +1, where the energy does not tell)."""
        store_all(self.engine.batch, self._rows)
        now = minorities(self._ladders.holder, self._graph.symmetric, self.hamiltonian.n_spins, self._rows)
        self._minority = np.where(np.isnan(self._minority), now, 0.5 * (self._minority + now))

    def _run(self, n_draws: int, thin: int, spins_every: int) -> tuple[Measured, Overlaps, np.ndarray, np.ndarray]:
        """What was measured, and numbers of swaps accepted and tried, (chain, draw, beta)."""
        chains, replicas, n_betas = self._shape
        n_kept = len(kept_draws(self._draw, n_draws, spins_every))
        measured = room(chains * replicas * n_betas, n_draws, n_kept, self.hamiltonian.n_spins)
        pairs = replicas * (replicas - 1) // 2
        overlaps = Overlaps(*(np.zeros((chains, n_draws, n_betas, pairs)) for _ in Overlaps._fields))
        counts = np.zeros((2, chains, n_draws, n_betas), np.int64)
        schedule = Schedule(self._round, self._draw, thin, spins_every, self.clusters, self.betas)
        engine = self.engine
        groups = (engine.group_units, engine.group_chains)
        # A thread with whole groups of ladders never waits for another; when there are more threads than groups they
        # share out the units of each round instead. Every unit has its own random numbers, so the draws are the same.
        whole = len(groups[0]) > numba.get_num_threads() or engine.n_units == len(groups[0]) - 1
        rounds = rounds_by_group if whole else rounds_by_unit
        tables = (self._graph, self._probe, self._links)
        rounds(engine.batch, self._ladders, *tables, schedule, *groups, self._rows, measured, overlaps, *counts)
        self.lowest.update(measured)
        self._round += n_draws * thin
        return measured, overlaps, *counts
