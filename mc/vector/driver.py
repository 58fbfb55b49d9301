"""The driver of vector spins in equilibrium: replicas at fixed betas, or ladders of them that exchange temperatures.

It keeps the promises of `mc.simulate.Driver`: what comes next depends on its state only, for any partition into
blocks and any number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mc.kernels.random_streams import streams
from mc.kernels.vectors import aligned
from mc.ladder import check_holder, swap_rates, tuned_betas
from mc.measure import kept_draws, mean_of_known
from mc.simulate import (
    INITIAL_STREAMS,
    REPLICA_STREAMS,
    SWAP_STREAMS,
    Block,
    at_least,
    checked_betas,
    checked_state,
)
from mc.tempering import FIRST_TUNING
from mc.vector.hamiltonian import VectorHamiltonian
from mc.vector.rounds import Loss, Replicas, Series, Sphere, all_draws, refresh_all
from mc.vector.starts import initial_vectors

RULES = ("heatbath", "metropolis")
PROPOSALS = {
    "local": (1.0, 0.0, 0.0, 0.0),
    "global": (0.5, 0.5, 0.0, 0.0),
    "flip": (0.5, 0.0, 0.5, 0.0),
    "perpendicular": (0.5, 0.0, 0.0, 0.5),
    "mixed": (0.4, 0.2, 0.2, 0.2),
}
OF_PAIRS = ("overlap", "overlap_norm")
FIRST_STEP = (
    0.1  # before the warm-up tunes it; in R / sqrt(D), of the loss energy a component's deviation, of turns an angle
)


@dataclass(frozen=True)
class Moves:
    """What moves the spins, in the words of `mc.engine.Engine`."""

    kernel: str
    name: str
    why: str


@dataclass
class LowestVectors:
    """The lowest energy a driver has measured, and its state (N, D) float64."""

    energy: float
    spins: np.ndarray

    def update(self, series: Series) -> None:
        best = np.unravel_index(series.lowest.argmin(), series.lowest.shape)
        if series.lowest[best] < self.energy:
            self.energy, self.spins = float(series.lowest[best]), series.lowest_spins[best].copy()


class VectorDriver:
    """Replicas of a `VectorHamiltonian` under heat bath or Metropolis sweeps, with or without replica exchange.

    betas: (B,) in 1/J, finite; >= 0, above 0 for the loss energy, whose spins know no bound at infinite temperature.
    With `exchange` they rise or fall. n_chains, seed, thin, spins_every: as of `mc.simulate.LocalDriver`.
    rule: "heatbath" (spins of fixed norm: each is drawn from its von Mises-Fisher law given the others) or
    "metropolis", the only one of the loss energy. proposal: of Metropolis moves, a key of `PROPOSALS`, the shares of
    small displacements, fresh spins, flips, and turns that keep the norm. The
    steps follow the acceptance in the warm-up (40 % is aimed at), one for each replica and beta, and stay as they are
    afterwards.
    overrelax: sweeps of reflections about the local field after each sweep, which keep the energy; fixed norm only.
    replicas: independent ones a chain and beta; with more than one, `energy`, `alignment` and spins have an axis
    `replica` after beta, and pairs of replicas an `overlap` q_ab = sum_i s_i^a.s_i^b / (N R^2) and an `overlap_norm`,
    the Frobenius norm of the tensor overlap (`mc.vector.overlap_matrix`), with an axis `pair` from three replicas
    on. exchange: swaps between neighbouring betas after each sweep (`mc.kernels.swap`),
    separately for each replica. tuned: as of `mc.tempering.TemperingDriver`.
    init: "random" (directions), "up" (all along (1, ..., 1)), "field" (along x_i), or vectors that broadcast to
    (chain, beta, N, D), with replicas to (chain, beta, replica, N, D).

    posterior: `energy`; `alignment`, the mean over sites of cos(s_i, x_i), where there are fields; `norm`, the mean
    of |s_i| / R, of the loss energy; `overlap` and `overlap_norm`.
    sample_stats: `accepted` of the last sweep before a draw (of moves with a step, NaN where it had none; 1 for heat
    bath), and with exchange `swap_accepted`.

    Raises ValueError for rules, proposals, betas, sizes or starts that do not fit.
    """

    def __init__(
        self,
        hamiltonian: VectorHamiltonian,
        betas: np.ndarray,
        n_chains: int = 4,
        seed: int = 0,
        rule: str = "heatbath",
        thin: int = 1,
        init: str | np.ndarray = "random",
        spins_every: int = 1,
        replicas: int = 1,
        exchange: bool = False,
        tuned: bool = False,
        proposal: str = "local",
        overrelax: int = 0,
    ):
        if rule not in RULES:
            raise ValueError(f"rule={rule}: vector spins take {' or '.join(RULES)}")
        loss = hamiltonian.form == "loss"
        if loss and rule == "heatbath":
            raise ValueError("rule=heatbath: the loss energy has no heat bath; use metropolis")
        if proposal not in PROPOSALS:
            raise ValueError(f"proposal={proposal}: {', '.join(PROPOSALS)} are known")
        if loss and overrelax:
            raise ValueError(
                f"overrelax={overrelax}: reflections keep the bilinear energy only; leave it out for the loss"
            )
        self.hamiltonian = hamiltonian
        self.betas = checked_betas(betas)
        if loss and (self.betas == 0).any():
            raise ValueError("betas: spins of the loss energy know no bound at beta = 0; give betas above 0")
        steps = np.diff(self.betas)
        if exchange and not ((steps > 0).all() or (steps < 0).all()):
            raise ValueError(f"betas={self.betas.tolist()}: a ladder rises or falls, with no beta twice")
        self.n_chains = at_least("n_chains", n_chains, 1)
        self.thin = at_least("thin", thin, 1)
        self.spins_every = at_least("spins_every", spins_every, 0)
        self.replicas = at_least("replicas", replicas, 1)
        overrelax = at_least("overrelax", overrelax, 0)
        self.rule, self.exchange, self.tuned = rule, exchange, tuned
        self.engine = _moves(hamiltonian, rule, proposal, overrelax)
        n_spins, n_components = hamiltonian.fields.shape
        chains, n_betas = self.n_chains, len(self.betas)
        places = self.replicas * n_betas
        self._system = _system(hamiltonian, rule, PROPOSALS[proposal], overrelax)
        state = (chains, places, n_spins, n_components)
        self._replicas = Replicas(
            spins=aligned(np.zeros(state)),  # a third faster where local fields are added to
            local=aligned(np.zeros(state)),
            energy=np.zeros((chains, places)),
            holder=np.broadcast_to(
                np.arange(places).reshape(self.replicas, n_betas), (chains, self.replicas, n_betas)
            ).copy(),
            steps=np.full((chains, self.replicas, n_betas), FIRST_STEP),
            streams=streams(seed, REPLICA_STREAMS, count=chains * places).reshape(chains, places, 4),
            swap_streams=streams(seed, SWAP_STREAMS, count=chains * self.replicas).reshape(chains, self.replicas, 4),
            last_end=np.zeros((chains, places), np.int8),
            round_trips=np.zeros((chains, places), np.int64),
        )
        starts = streams(seed, INITIAL_STREAMS, count=chains * places).reshape(chains, places, 4)
        own = (chains, n_betas, self.replicas) if self.replicas > 1 else (chains, n_betas)
        start = initial_vectors(init, hamiltonian, starts, own)
        by_replica = np.moveaxis(start.reshape(chains, n_betas, self.replicas, n_spins, n_components), 2, 1)
        self._replicas.spins[...] = by_replica.reshape(state)
        self.spin_axes = {"replica": self.replicas} if self.replicas > 1 else {}
        self.stat_names = ("accepted", "swap_accepted") if exchange else ("accepted",)
        names = ["energy"] + ["alignment"] * hamiltonian.has_fields + ["norm"] * loss
        self.posterior_axes = {name: dict(self.spin_axes) for name in names}
        if self.replicas > 1:
            pairs = self.replicas * (self.replicas - 1) // 2
            self.posterior_axes |= {name: {"pair": pairs} if pairs > 1 else {} for name in OF_PAIRS}
        self.lowest = LowestVectors(np.inf, np.zeros((n_spins, n_components)))
        self._sums = np.zeros((chains, self.replicas, n_betas, n_spins, n_components))
        self._swaps = np.zeros((2, n_betas), np.int64)  # accepted and tried since the betas were tuned
        self._next_tuning = FIRST_TUNING
        self._round = self._draw = 0
        self._refresh()

    @property
    def round_trips(self) -> np.ndarray:
        """Trips hot - cold - hot of each replica since the warm-up, (chain, replicas * beta) int64."""
        return self._replicas.round_trips

    def warm_up(self, n_sweeps: int) -> None:
        """n_sweeps sweeps, in which the steps (and with `tuned` the betas) are adapted."""
        left = n_sweeps
        while left > 0:
            some = min(left, self._next_tuning - self._round) if self.tuned else left
            series = self._run(1, some, 0, warming=True)
            self._swaps += np.stack([series.swaps.sum(axis=(0, 1, 2)), series.tried.sum(axis=(0, 1, 2))])
            left -= some
            if self.tuned and self._round == self._next_tuning:
                accepted, tried = self._swaps[:, :-1]
                self.betas = tuned_betas(self.betas, 1.0 - accepted / np.maximum(tried, 1))
                self._swaps[:] = 0
                self._next_tuning *= 2
        self._replicas.round_trips[:] = 0

    def block(self, n_draws: int) -> Block:
        """The next n_draws draws: `thin` sweeps, then the measurement."""
        series = self._run(n_draws, self.thin, self.spins_every, warming=False)
        stored = kept_draws(self._draw, n_draws, self.spins_every)
        self._draw += n_draws
        many = self.replicas > 1
        posterior = {}
        for name in self.posterior_axes:
            values = getattr(series, name)
            single = values.shape[-1] == 1 and (name in OF_PAIRS or not many)
            posterior[name] = values[..., 0] if single else values
        statistics = {"accepted": mean_of_known(series.accepted, -1)}
        if self.exchange:
            statistics["swap_accepted"] = swap_rates(series.swaps.sum(axis=1), series.tried.sum(axis=1))
        return Block(posterior, statistics, series.spins if many else series.spins[:, :, :, 0], stored)

    def state(self) -> dict[str, np.ndarray]:
        """Spins by place, who holds which beta, steps, streams, sums of the spins of all draws by replica,
        counters.
        """
        kept = self._replicas._asdict()
        del kept["local"], kept["energy"]  # made anew from the spins at every draw
        return {name: array.copy() for name, array in kept.items()} | {
            "betas": self.betas.copy(),
            "spin_sums": self._sums.copy(),
            "lowest_energy": np.array(self.lowest.energy),
            "lowest_spins": self.lowest.spins.copy(),
            "swaps": self._swaps.copy(),
            "next_tuning": np.array(self._next_tuning, np.int64),
            "round": np.array(self._round, np.int64),
            "draw": np.array(self._draw, np.int64),
        }

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Continue from `state()` of a driver with the same arguments; ValueError when shapes differ."""
        state = checked_state(state, self.state())
        check_holder(state["holder"].reshape(self.n_chains, -1))
        for name in set(Replicas._fields) - {"local", "energy"}:
            getattr(self._replicas, name)[...] = state[name]
        self.betas, self._sums, self._swaps = state["betas"], state["spin_sums"], state["swaps"]
        self.lowest = LowestVectors(float(state["lowest_energy"]), state["lowest_spins"])
        self._next_tuning, self._round, self._draw = (int(state[name]) for name in ("next_tuning", "round", "draw"))
        self._refresh()

    def _refresh(self) -> None:
        """Local fields and energies of the spins as they are."""
        refresh_all(self._system, self._replicas)

    def _series(self, n_draws: int, n_kept: int, pairs: int, sums: np.ndarray) -> Series:
        """Room for a block, and the sums that its spins are added to."""
        chains, n_betas = self.n_chains, len(self.betas)
        size = self.hamiltonian.fields.shape
        replicas = self.replicas
        return Series(
            *(np.zeros((chains, n_draws, n_betas, replicas)) for _ in range(4)),
            *(np.zeros((chains, replicas, n_draws, n_betas), np.int64) for _ in range(2)),
            *(np.zeros((chains, n_draws, n_betas, pairs)) for _ in OF_PAIRS),
            np.zeros((chains, n_kept, n_betas, replicas, *size), np.float32),
            sums,
            np.full((chains, replicas), np.inf),
            np.zeros((chains, replicas, *size)),
        )

    def _run(self, n_draws: int, thin: int, spins_every: int, warming: bool) -> Series:
        n_kept = len(kept_draws(self._draw, n_draws, spins_every))
        # The kernel adds to the sums draw by draw, so that they do not depend on blocks.
        sums = np.zeros_like(self._sums) if warming else self._sums
        series = self._series(n_draws, n_kept, self.replicas * (self.replicas - 1) // 2, sums)
        place = (self._round, self._draw, thin, spins_every, self.exchange, warming)
        all_draws(self._system, self._replicas, self.betas, *place, series)
        self.lowest.update(series)
        self._round += n_draws * thin
        return series


def _moves(hamiltonian: VectorHamiltonian, rule: str, proposal: str, overrelax: int) -> Moves:
    what = f"{hamiltonian.form} energy" if rule == "metropolis" else "von Mises-Fisher heat bath"
    name = f"{what}, {proposal} proposals" if rule == "metropolis" else what
    if overrelax:
        name += f", {overrelax} over-relaxation sweeps"
    return Moves(f"vector-{rule}", name, "spins of any norm" if hamiltonian.form == "loss" else "spins of fixed norm")


def _system(hamiltonian: VectorHamiltonian, rule: str, shares: tuple[float, ...], overrelax: int) -> Sphere | Loss:
    shared = {
        "fields": hamiltonian.fields,
        "directions": hamiltonian.directions / max(hamiltonian.n_fields, 1),  # sums of cosines are then means
        "radius": hamiltonian.radius,
        "shares": np.array(shares),
    }
    if hamiltonian.form == "loss":
        return Loss(couplings=np.ascontiguousarray(hamiltonian.couplings.T), **shared)
    return Sphere(couplings=hamiltonian.exchange, heatbath=rule == "heatbath", overrelax=overrelax, **shared)
