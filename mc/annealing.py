"""Simulated annealing: every draw is a run of its own from random spins through a schedule of betas.

Kirkpatrick, Gelatt and Vecchi, Science 220, 671 (1983). The states are not equilibrium ones: what counts is the
lowest energy. Draws are independent of each other, the temperatures of one draw are not.
"""

from __future__ import annotations

import numpy as np

from mc.engine import Engine
from mc.hamiltonian import Hamiltonian
from mc.kernels.local_field import kernel_arrays, typical_fields
from mc.measure import kept_draws, measured_posterior, no_record, posterior_axes, probe, room
from mc.simulate import (
    INITIAL_STREAMS,
    REPLICA_STREAMS,
    Block,
    at_least,
    checked_betas,
    checked_state,
    random_spins,
    replica_streams,
    run_draws,
)

AT_ONCE = 64  # anneals side by side at least: a word of the bit planes
STEPS = 48  # of the default schedule
HOTTEST, COLDEST = 3.0, 0.1  # its temperatures, in units of the typical field on a spin


def default_schedule(hamiltonian: Hamiltonian) -> np.ndarray:
    """Rising betas, equidistant in T from 3 to 0.1 times the root mean square of the typical fields."""
    start, coupling, _ = kernel_arrays(hamiltonian.table)
    scale = np.sqrt((typical_fields(start, coupling) ** 2).mean()) or 1.0
    return 1.0 / (scale * np.linspace(HOTTEST, COLDEST, STEPS))


class AnnealingDriver:
    """Independent anneals: draw k of a chain is one run through all betas, measured at each of them.

    betas: (B,) in 1 / energy unit, in the order of the schedule. n_chains: chains, each a series of anneals. seed: of
    all random numbers. thin: sweeps at each beta. spins_every: keep the spins of draws 0, K, 2K, ... kernel: see
    `mc.engine.choose`. A warm-up does nothing.
    posterior and sample_stats are those of `mc.simulate.LocalDriver`.

    Raises ValueError for wrong rules, betas and sizes.
    """

    def __init__(
        self,
        hamiltonian: Hamiltonian,
        betas: np.ndarray,
        n_chains: int = 4,
        seed: int = 0,
        rule: str = "metropolis",
        thin: int = 10,
        spins_every: int = 1,
        kernel: str = "auto",
    ):
        self.hamiltonian = hamiltonian
        self.betas = checked_betas(betas)
        self.n_chains = at_least("n_chains", n_chains, 1)
        self.thin = at_least("thin", thin, 1)
        self.spins_every = at_least("spins_every", spins_every, 0)
        self.rule = rule
        self._wide = -(-AT_ONCE // self.n_chains)  # draws of a chain made at once
        replicas = self.n_chains * self._wide
        self.engine = Engine(
            hamiltonian, np.full((replicas, 1), self.betas[0]), seed, (REPLICA_STREAMS,), rule, kernel
        )
        self._initial = replica_streams(seed, INITIAL_STREAMS, replicas, 1)
        self._probe = probe(hamiltonian)
        self.posterior_axes, self.spin_axes = posterior_axes(hamiltonian), {}
        self.stat_names = ("accepted",)
        self._rows = self.engine.rows()
        self._before = self._streams()
        self._made: Block | None = None  # the draws that are being handed out
        self.lowest = no_record(hamiltonian.n_spins)
        self._draw = 0

    def warm_up(self, n_sweeps: int) -> None:
        """Nothing: every draw starts anew."""

    def block(self, n_draws: int) -> Block:
        """The next n_draws anneals of every chain."""
        parts = []
        while n_draws > 0:
            place = self._draw % self._wide
            if self._made is None:
                self._before = self._streams()
                self._made = self._anneal()
            n = min(n_draws, self._wide - place)
            parts.append(self._part(place, n))
            self._draw += n
            n_draws -= n
            if self._draw % self._wide == 0:
                self._made = None
        return Block(
            {name: np.concatenate([p.posterior[name] for p in parts], axis=1) for name in parts[0].posterior},
            {name: np.concatenate([p.sample_stats[name] for p in parts], axis=1) for name in parts[0].sample_stats},
            np.concatenate([p.spins for p in parts], axis=1),
            np.concatenate([p.spin_draws for p in parts]),
        )

    def state(self) -> dict[str, np.ndarray]:
        """Streams as they were before the anneals that are being handed out, and the number of draws made."""
        unfinished = self._made is not None
        streams = self._before if unfinished else self._streams()
        streams = {name: array.copy() for name, array in streams.items()}
        return streams | self.lowest.state() | {"draw": np.array(self._draw, np.int64)}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Continue from `state()` of a driver with the same arguments; ValueError when shapes differ."""
        state = checked_state(state, self.state())
        self._draw = int(state["draw"])
        self.engine.batch.streams[...] = state["streams"]
        self._initial[...] = state["initial"]
        self._before = self._streams()
        self.lowest.restore(state)
        self._made = self._anneal() if self._draw % self._wide else None

    def _streams(self) -> dict[str, np.ndarray]:
        return {"streams": self.engine.batch.streams.copy(), "initial": self._initial.copy()}

    def _part(self, place: int, n: int) -> Block:
        """n of the draws at hand from number `place` on."""
        made, here = self._made, slice(place, place + n)
        kept = kept_draws(self._draw, n, self.spins_every)
        return Block(
            {name: values[:, here] for name, values in made.posterior.items()},
            {name: values[:, here] for name, values in made.sample_stats.items()},
            made.spins[:, place + kept - self._draw],
            kept,
        )

    def _anneal(self) -> Block:
        """As many anneals as go side by side, with the spins of all."""
        engine, n_spins, n_betas = self.engine, self.hamiltonian.n_spins, len(self.betas)
        replicas = len(engine.lanes)
        spins = np.empty((replicas, 1, n_spins), np.int8)
        random_spins(spins, self._initial, self.hamiltonian.n_up)
        engine.set_betas(self.betas[0])
        engine.set_spins(spins)
        steps = []
        for beta in self.betas:
            engine.set_betas(beta)
            measured = room(replicas, 1, 1 if self.spins_every else 0, n_spins)
            every = 1 if self.spins_every else 0
            run_draws(engine.batch, engine.seats(), self._probe, self._rows, 0, self.thin, every, measured)
            self.lowest.update(measured)
            steps.append(measured)
        shape = (self.n_chains, self._wide, n_betas)
        by_beta = {
            name: np.stack([getattr(m, name)[:, 0] for m in steps], axis=1).reshape(shape)
            for name in ("energy", "magnetization", "mode", "accepted")
        }
        posterior = measured_posterior(self.hamiltonian, by_beta)
        kept = np.zeros((*shape, n_spins), np.int8)
        if self.spins_every:
            kept[...] = np.stack([m.spins[:, 0] for m in steps], axis=1).reshape(*shape, n_spins)
        return Block(posterior, {"accepted": by_beta["accepted"]}, kept, np.arange(self._wide))
