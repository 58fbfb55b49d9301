"""Sequential tempering: a population goes down a ladder of temperatures, and learns at each how to move globally.

At every beta of the ladder the members of the step before are resampled by exp(-(beta' - beta) E) and moved by local
sweeps; a sampler is fitted to them; then come rounds of one global move for every member, a proposal of the sampler
taken with probability min(1, w' / w), w = exp(-beta' E) / q, and K local sweeps. McNaughton et al., Phys. Rev. E 101,
053312 (2020); with a population and resampling, global annealing: Del Bono, Ricci-Tersenghi and Zamponi, PNAS 123,
e2534768123 (2026), arXiv:2510.19544.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from mc.engine import Engine
from mc.hamiltonian import Hamiltonian
from mc.kernels.batch import load_all, store_all, sweep_all, unpack, words
from mc.measure import kept_draws, measured_posterior, no_record, posterior_axes, probe, room
from mc.population import systematic_resampling
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
    run_draws,
)
from nmcmc.linear_training import train_linear
from nmcmc.networks.linear import LinearResidual
from nmcmc.objectives.likelihood import SoftLikelihood
from nmcmc.proposals import ProposalStream
from nmcmc.recipe import FITTED_STATES
from nmcmc.sampler import AutoregressiveSampler
from nmcmc.tempering import note_lowest, offer
from nmcmc.training import Training, TrainSettings, sized, train

FIRST_SWEEPS = 20  # times `thin`, at the first beta
FEWEST_STATES = 100  # that a sampler is fitted to
TRAINING_STREAMS = 4  # this use of a seed; 0 to 3 are those of drivers and proposals
SERIES = ("energy", "magnetization", "mode", "accepted", "log_weight_proposed")


class SequentialDriver:
    """Populations of one size that share a sampler and are independent otherwise.

    betas: (B,) in 1 / energy unit, rising; at the first, random states and sweeps must reach equilibrium, which is
    certain at 0. build(beta): an untrained sampler of that target. settings: of its training: a linear residual is
    fitted anew at every beta, a transformer learns by soft likelihood for `steps` from the weights it has, both from
    at most `states` members; without a network the prior proposes. n_chains: populations. population: members of
    each. moves: rounds at each beta. thin: sweeps of a round, and after resampling. spins_every: keep the spins of
    members 0, K, 2K, ... at every beta. report: told of each step.

    `warm_up(n)` makes n steps of the ladder; `block` hands out members as draws once all B are made, relatives side
    by side. posterior: `energy`, `magnetization`, and `magnetization_k2` as of `LocalDriver`. sample_stats:
    `accepted`, whether the member's last proposal was taken; `log_weight_proposed`, -beta E - ln q of that proposal.
    Its mean weight is Z, for any q and any past, as q is fixed before the proposals are drawn. The moves leave the
    law of a beta as it is for a fixed q; here q was fitted to the members themselves, which matters less the more
    members and rounds there are. A fit that fails leaves its beta to the prior alone, and the report says so.

    Raises ValueError for wrong betas and sizes; `block` does before the ladder is through, and for more draws.
    """

    def __init__(
        self,
        hamiltonian: Hamiltonian,
        betas: np.ndarray,
        build: Callable[[float], AutoregressiveSampler],
        settings: TrainSettings,
        n_chains: int = 4,
        population: int = 1000,
        seed: int = 0,
        moves: int = 4,
        rule: str = "metropolis",
        thin: int = 10,
        spins_every: int = 1,
        kernel: str = "auto",
        report: Callable[[str], None] = lambda text: None,
    ):
        self.hamiltonian = hamiltonian
        self.betas = checked_betas(betas)
        if len(self.betas) < 2 or (np.diff(self.betas) <= 0).any():
            raise ValueError("sequential tempering needs a ladder of betas that rises, such as beta=0.2:1:9")
        self.n_chains, self.population = at_least("n_chains", n_chains, 1), population
        if population < 2:
            raise ValueError(f"a population of {population}: at least 2 members are needed (--draws)")
        self.moves, self.thin = at_least("moves", moves, 1), at_least("thin", thin, 1)
        self.spins_every = at_least("spins_every", spins_every, 0)
        self._build, self._settings, self._seed, self._report = build, settings, seed, report
        shape = (self.n_chains, self.population)
        self.engine = Engine(hamiltonian, np.full(shape, self.betas[0]), seed, (REPLICA_STREAMS,), rule, kernel)
        starts = replica_streams(seed, INITIAL_STREAMS, *shape)
        self.engine.set_spins(initial_spins("random", hamiltonian.n_spins, starts, n_up=hamiltonian.n_up))
        self._probe = probe(hamiltonian)
        self.posterior_axes, self.spin_axes = posterior_axes(hamiltonian), {}
        self.stat_names = ("accepted", "log_weight_proposed")
        self._rows = self.engine.rows()
        self._series = {name: np.zeros((*shape, len(self.betas))) for name in SERIES}
        kept = len(kept_draws(0, self.population, self.spins_every))
        self._kept = np.zeros((self.n_chains, kept, len(self.betas), words(hamiltonian.n_spins)), np.uint64)
        self._weights = weights_of(build(float(self.betas[0])))
        self.lowest = no_record(hamiltonian.n_spins)
        self._steps = 0
        self._draw = 0

    def warm_up(self, n_sweeps: int) -> None:
        """n_sweeps steps of the ladder, as far as it goes."""
        for _ in range(min(n_sweeps, len(self.betas) - self._steps)):
            self._step()

    def block(self, n_draws: int) -> Block:
        """The next n_draws members of every population at every beta."""
        if self._steps < len(self.betas):
            raise ValueError(f"block: {self._steps} of {len(self.betas)} steps of the ladder are made")
        first, last = self._draw, self._draw + n_draws
        if last > self.population:
            raise ValueError(f"block: a population of {self.population} has no draw {last - 1}")
        self._draw = last
        stored = kept_draws(first, n_draws, self.spins_every)
        spins = unpack(self._kept[:, stored // max(self.spins_every, 1)], self.hamiltonian.n_spins)
        series = {name: values[:, first:last].copy() for name, values in self._series.items()}
        posterior = measured_posterior(self.hamiltonian, series)
        return Block(posterior, {name: series[name] for name in self.stat_names}, spins, stored)

    def state(self) -> dict[str, np.ndarray]:
        """Members, their streams, the weights, all that was measured, and numbers of steps and draws made."""
        return (
            self.engine.state()
            | self.lowest.state()
            | {name: values.copy() for name, values in self._series.items()}
            | {
                "kept": self._kept.copy(),
                "weights": self._weights.copy(),
                "steps": np.array(self._steps, np.int64),
                "draw": np.array(self._draw, np.int64),
            }
        )

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Continue from `state()` of a driver with the same arguments; ValueError when shapes differ."""
        state = checked_state(state, self.state())
        self._series = {name: state[name] for name in SERIES}
        self._kept, self._weights = state["kept"], state["weights"]
        self._steps, self._draw = int(state["steps"]), int(state["draw"])
        self.engine.set_betas(self.betas[max(self._steps - 1, 0)])
        self.engine.restore(state)
        self.lowest.restore(state)

    def _step(self) -> None:
        """Resample for the next beta, sweep, learn, move, and measure everybody."""
        k, engine = self._steps, self.engine
        if k > 0:
            self._resample(k)
        sweep_all(engine.batch, engine.n_units, self.thin * (1 if k > 0 else FIRST_SWEEPS), False)
        store_all(engine.batch, self._rows)
        rows, lanes = self._rows.reshape(-1, self._rows.shape[-1]), engine.lanes.ravel()
        sampler = self._learn(k, unpack(rows[lanes], self.hamiltonian.n_spins))
        source = ProposalStream(sampler, lanes.size, self._seed, k)
        for move in range(self.moves):
            store_all(engine.batch, self._rows)
            taken, proposed = offer(rows, lanes, source, move)
            note_lowest(self.lowest, proposed)
            load_all(engine.batch, self._rows)
            measured = room(lanes.size, 1, 0, self.hamiltonian.n_spins)
            run_draws(engine.batch, engine.seats(), self._probe, self._rows, 0, self.thin, 0, measured)
            self.lowest.update(measured)
        found = measured._asdict() | {"accepted": taken, "log_weight_proposed": proposed.log_weight}
        for name, values in self._series.items():
            values[:, :, k] = found[name].reshape(self.n_chains, self.population)
        self._kept[:, :, k] = rows[engine.lanes[:, kept_draws(0, self.population, self.spins_every)]]
        self._steps += 1
        self._report(f"beta={self.betas[k]:.6g}: {taken.mean():.3g} of the last proposals taken")

    def _resample(self, k: int) -> None:
        """Leave descendants in proportion to exp(-(beta_k - beta_k-1) E), and make beta_k the temperature."""
        engine, rise = self.engine, self.betas[k] - self.betas[k - 1]
        store_all(engine.batch, self._rows)
        rows = self._rows.reshape(-1, self._rows.shape[-1])
        for chain in range(self.n_chains):
            log_weight = -rise * self._series["energy"][chain, :, k - 1]
            words_of_chain = np.random.SeedSequence(self._seed, spawn_key=(SWAP_STREAMS, chain, k))
            offset = np.random.default_rng(words_of_chain).random()
            parents = systematic_resampling(np.exp(log_weight - log_weight.max()), offset)
            rows[engine.lanes[chain]] = rows[engine.lanes[chain, parents]]
        engine.set_betas(self.betas[k])
        load_all(engine.batch, self._rows)

    def _learn(self, k: int, states: np.ndarray) -> AutoregressiveSampler:
        """The sampler of beta_k, fitted to states (n, N) near its target, or the prior alone."""
        beta = float(self.betas[k])
        sampler = self._build(beta)
        if sampler.network is None or beta == 0.0:  # every prior is exact at beta = 0
            return sampler.prior_alone()
        if len(states) < FEWEST_STATES:
            self._report(f"beta={beta:.6g}: {len(states)} members are too few for a fit; the prior alone is used")
            return sampler.prior_alone()
        most = self._settings.states or FITTED_STATES
        states = states[np.linspace(0, len(states) - 1, min(len(states), most)).astype(np.int64)]
        seed = np.random.SeedSequence(self._seed, spawn_key=(TRAINING_STREAMS, k)).generate_state(1)[0]
        settings = replace(sized(self._settings, self.hamiltonian.n_spins), seed=int(seed))
        if not isinstance(sampler.network, LinearResidual):
            set_weights(sampler, self._weights)
        try:
            ess = learned(sampler, states, settings).history["ess"]
            weights = weights_of(sampler)
            if not np.isfinite(weights).all():
                raise FloatingPointError("its weights are not finite")
        except (FloatingPointError, torch.linalg.LinAlgError) as error:
            self._report(f"beta={beta:.6g}: the fit failed ({error}); the prior alone is used")
            return sampler.prior_alone()
        self._weights = weights
        self._report(f"beta={beta:.6g}: fit to {len(states)} members: ESS {ess[0]:.3f} -> {max(ess):.3f}")
        return sampler


def learned(sampler: AutoregressiveSampler, states: np.ndarray, settings: TrainSettings) -> Training:
    """Fit sampler.network to states (n, N) of its target, in place; ends with the best weights loaded."""
    if isinstance(sampler.network, LinearResidual):
        return train_linear(sampler, states, settings.validation_draws, settings.seed)[0]
    return train(sampler, SoftLikelihood(sampler, states), settings)


def weights_of(sampler: AutoregressiveSampler) -> np.ndarray:
    """All weights of the network, (n,) float32; none without one."""
    if sampler.network is None:
        return np.zeros(0, np.float32)
    return parameters_to_vector(sampler.network.parameters()).detach().cpu().numpy().astype(np.float32)


def set_weights(sampler: AutoregressiveSampler, weights: np.ndarray) -> None:
    """The inverse of `weights_of`."""
    vector_to_parameters(torch.from_numpy(weights.copy()).to(sampler.device), sampler.network.parameters())
