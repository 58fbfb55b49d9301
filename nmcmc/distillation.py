"""The loop sample -> refine -> train: a sampler learns from its own draws, which Monte Carlo has made better.

No outside data. In every round states are drawn from q and refined, by sweeps at the target beta or by a short
parallel tempering that starts from them, and q is trained on them with soft labels. q = p is a fixed point:
refinement leaves p invariant. (McNaughton et al., Phys. Rev. E 101, 053312 (2020), train on Monte Carlo states so.)
Sweeps alone bring no mode back that q has dropped and that no sweep reaches; tempering does.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from nmcmc.linear_training import train_linear
from nmcmc.objectives.base import Batch, StepRandomness
from nmcmc.objectives.likelihood import SoftLikelihood
from nmcmc.refine import Refiner, tempered
from nmcmc.sampler import AutoregressiveSampler
from nmcmc.training import HISTORY, Training

SOURCES = ("sweeps", "pt")
DISTILL = 2**31 + 2  # a use of the seed that no step of a training has
SWEEPS = {"sweeps": 20, "pt": 200}  # by default: sweeps of each state, or rounds of the tempering before the first


@dataclass(frozen=True)
class DistillSettings:
    """rounds: of sample, refine, train. states: in each. source: "sweeps", or "pt" for a short parallel tempering.

    sweeps: of refinement, rounds with pt; None for `SWEEPS`. Raises ValueError for what cannot be.
    """

    rounds: int = 4
    states: int = 4000
    source: str = "sweeps"
    sweeps: int | None = None

    def __post_init__(self):
        if self.source not in SOURCES:
            raise ValueError(f"distill.from={self.source}: {' or '.join(SOURCES)} is needed")
        if self.rounds < 1 or self.states < 2 or (self.sweeps is not None and self.sweeps < 1):
            raise ValueError(f"distill: rounds={self.rounds}, states={self.states}, sweeps={self.sweeps}: too few")


def refined_states(sampler: AutoregressiveSampler, settings: DistillSettings, turn: int, seed: int) -> np.ndarray:
    """States (n, N) int8 of round number `turn`: fresh draws of the sampler, refined. (seed, turn) decide them."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(DISTILL, turn)))
    spins, _ = sampler.sample(settings.states, torch.Generator().manual_seed(int(rng.integers(2**63))))
    sweeps = settings.sweeps or SWEEPS[settings.source]
    if settings.source == "pt":
        found = tempered(sampler.hamiltonian, sampler.beta, spins, len(spins), sweeps, int(rng.integers(2**31)))
        return found.swapaxes(0, 1).reshape(-1, spins.shape[1])[: len(spins)]  # in order of time
    return Refiner(sampler.hamiltonian)(spins, sampler.beta, sweeps, rng)


class Distilled(SoftLikelihood):
    """The objective of the loop for networks that are trained by steps: `steps` are shared out among the rounds.

    notes: of the Training; the states of the round go there, so that a training stopped within it goes on with them.
    """

    def __init__(
        self,
        sampler: AutoregressiveSampler,
        settings: DistillSettings,
        steps: int,
        seed: int,
        notes: dict[str, torch.Tensor],
    ):
        self.sampler, self.settings, self.steps, self.seed, self.notes = sampler, settings, steps, seed, notes
        self._learned = -1  # the round whose states are at hand

    def batch(self, n: int, randomness: StepRandomness) -> Batch:
        turn = min(randomness.step * self.settings.rounds // max(self.steps, 1), self.settings.rounds - 1)
        if int(self.notes.get("round", -1)) != turn:
            states = refined_states(self.sampler, self.settings, turn, self.seed)
            self.notes |= {"round": torch.tensor(turn), "states": torch.from_numpy(states)}
        if self._learned != turn:
            super().__init__(self.sampler, self.notes["states"].numpy())
            self._learned = turn
        return super().batch(n, randomness)


def distill_linear(
    sampler: AutoregressiveSampler,
    settings: DistillSettings,
    validation_draws: int,
    seed: int,
    report: Callable[[int, float], None] = lambda turn, ess: None,
    stop: Callable[[], bool] = lambda: False,
) -> Training:
    """The loop for a linear residual: a convex fit a round, from the prior on; the better of old and new is kept.

    report(rounds done, ESS). stop: asked between rounds and in fits; a stopped loop is not finished. The history has
    a row for the prior and one for each round. Better is as in `nmcmc.linear_training`.

    Raises FloatingPointError, naming the round, where log q is not finite.
    """
    began, history, prior_ess = time.process_time(), {name: [] for name in HISTORY}, math.nan
    training = Training()
    for turn in range(settings.rounds):
        if stop():
            break
        try:
            states = refined_states(sampler, settings, turn, seed)
            training, result = train_linear(sampler, states, validation_draws, seed, stop=stop)
        except FloatingPointError as error:
            raise FloatingPointError(f"distillation, round {turn + 1}: {error}") from None
        rows = training.history
        if turn == 0:
            prior_ess = training.prior_ess
            _take(history, rows, 0, 0, time.process_time() - began)
        best = int(np.argmin(rows["free_energy"])) if sampler.beta else len(rows["step"]) - 1
        _take(history, rows, best, turn + 1, time.process_time() - began)
        report(turn + 1, history["ess"][-1])
        if not result.finished:
            break
    training.history, training.prior_ess = history, prior_ess
    training.step = int(history["step"][-1]) if history["step"] else 0
    training.cpu_seconds = time.process_time() - began
    training.finished = training.step >= settings.rounds and not stop()
    return training


def _take(history: dict[str, list[float]], rows: dict[str, list[float]], row: int, step: int, seconds: float) -> None:
    """One row of a fit into the history of the loop, as of weights after `step` rounds."""
    for name in history:
        history[name].append({"step": float(step), "seconds": seconds}.get(name, rows[name][row]))
