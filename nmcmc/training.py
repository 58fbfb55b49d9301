"""The training loop: batches, accumulated gradients, a schedule, validation on a fixed draw, checkpoints."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from mc.weighted import effective_sample_size
from nmcmc.distributed import ALONE, Team, lay
from nmcmc.objectives.base import Objective, StepRandomness
from nmcmc.optimizers import make_optimizer
from nmcmc.sampler import AutoregressiveSampler

NUMBERS_AT_ONCE = 2**21  # in an array over the values of all tokens of a microbatch: 8 MB
HISTORY = ("step", "loss", "free_energy", "ess", "seconds")


@dataclass(frozen=True)
class TrainSettings:
    """How a sampler is trained.

    objective: a name of `nmcmc.objectives`; sweeps, reuse: of soft-distillation. weight: of the likelihood of refined
        states in refined and modified-gradient, which take sweeps too. steps: weight updates.
    batch: states a step; None for 256, fewer beyond 16 x 16, where each state has more soft labels.
    microbatch: states whose gradients are taken at once, so that memory does not grow with the batch; None for about
        2^14 spins, whose arrays stay in a processor's cache, fewer where tokens have many values.
    optimizer: "adamw" or "muon", see `nmcmc.optimizers`.
    learning_rate: at its highest. schedule: "cosine" (after `warmup` steps, down to 3 % of the rate) or "constant".
    betas, weight_decay: of AdamW (weight_decay of Muon, too). clip: largest norm of a gradient.
    validate_every: steps between validations on `validation_draws` states drawn from q with one fixed stream; None
        for 1024, fewer beyond 16 x 16.
    seed: of the training's random numbers.
    states: of the target that a linear residual, or a likelihood, is fitted to, None for 16,000.
    any_order: of objective any-order, the share of states that come with random orders.
    """

    objective: str = "soft-distillation"
    sweeps: int = 2
    reuse: int = 4
    weight: float = 3.0
    steps: int = 600
    batch: int | None = None
    microbatch: int | None = None
    optimizer: str = "adamw"
    learning_rate: float = 3e-3
    schedule: str = "cosine"
    warmup: int = 20
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.01
    clip: float = 1.0
    validate_every: int = 50
    validation_draws: int | None = None
    seed: int = 0
    states: int | None = None
    any_order: float = 0.25


def sized(settings: TrainSettings, n_spins: int) -> TrainSettings:
    """The same settings with batch and validation_draws spelled out for n_spins."""
    return replace(
        settings,
        batch=settings.batch or max(8, min(256, 2**16 // n_spins)),
        validation_draws=settings.validation_draws or max(8, min(1024, 2**18 // n_spins)),
    )


def microbatch_of(settings: TrainSettings, sampler: AutoregressiveSampler) -> int:
    """States whose gradients are taken at once: as set, else by spins and by numbers for all values of all tokens."""
    by_spins = max(4, 2**14 // sampler.tokens.n_spins)
    return settings.microbatch or min(by_spins, sampler.states_within(NUMBERS_AT_ONCE))


@dataclass
class Training:
    """Where a training stands; everything that a resumed one needs besides the settings.

    notes: what else it goes on with, such as states that are being learned or the lowest found.
    """

    step: int = 0
    cpu_seconds: float = 0.0
    best_score: float = math.inf
    best_weights: dict[str, torch.Tensor] = field(default_factory=dict)
    history: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in HISTORY})
    prior_ess: float = math.nan
    finished: bool = False
    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, torch.Tensor] = field(default_factory=dict)


def learning_rate(settings: TrainSettings, progress: float, step: int) -> float:
    """Rate of a step: linear warm-up, then constant or a cosine in `progress` (0 to 1) down to 3 %."""
    rate = settings.learning_rate * min(1.0, (step + 1) / max(settings.warmup, 1))
    if settings.schedule == "constant":
        return rate
    return rate * (0.03 + 0.97 * 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0))))


def validate(sampler: AutoregressiveSampler, n: int, seed: int) -> tuple[float, float]:
    """(mean of ln q + beta E, ESS) over n states drawn with a fixed stream: the same uniform numbers every time.

    Of a family of samplers, which share a network, the mean over its members and the lowest ESS.
    """
    members = getattr(sampler, "members", None)
    if members is not None:
        scores = [validate(member, max(n // len(members), 2), seed) for member in members]
        return float(np.mean([value for value, _ in scores])), min(ess for _, ess in scores)
    generator = torch.Generator().manual_seed(seed)
    spins, log_q = sampler.sample(n, generator)
    log_weight = -sampler.beta * sampler.hamiltonian.energy(spins) - log_q
    if not np.isfinite(log_weight).all():
        raise FloatingPointError("log q of the validation draw is not finite")
    return float(-log_weight.mean()), float(effective_sample_size(log_weight))


def validation_seed_of(seed: int) -> int:
    """The seed of the fixed validation draw of a training."""
    return int(np.random.SeedSequence(seed, spawn_key=(2**31,)).generate_state(1)[0])


def record_score(
    training: Training, sampler: AutoregressiveSampler, loss: float, n: int, seed: int, began: float
) -> float:
    """Add a row to the history and keep the weights if they are the best so far; returns the ESS.

    n, seed: of the validation draw. began: process time at which this training would have begun without a break.
    """
    value, ess = validate(sampler, n, seed)
    training.cpu_seconds = time.process_time() - began
    row = (training.step, loss, value / sampler.beta if sampler.beta else math.nan, ess, training.cpu_seconds)
    for name, entry in zip(HISTORY, row, strict=True):
        training.history[name].append(float(entry))
    if value < training.best_score:
        training.best_score = value
        training.best_weights = {name: p.detach().clone() for name, p in sampler.network.state_dict().items()}
    return ess


def training_step(
    sampler: AutoregressiveSampler,
    objective: Objective,
    optimizer,
    settings: TrainSettings,
    randomness: StepRandomness,
) -> float:
    """One weight update; returns the loss a state. FloatingPointError, before the update, where it is not finite.

    With a team in `randomness`, whose other processes hold the same objective (`train` sees to it), each takes the
    gradients of its share of the batch, and this one updates the weights by their sum.
    """
    settings = sized(settings, sampler.tokens.n_spins)
    team = randomness.team
    if team.size > 1:
        weights = parameters_to_vector(sampler.network.parameters()).detach().cpu()
        team.tell(help_with_step, settings, randomness.seed, randomness.step, weights)
    optimizer.zero_grad(set_to_none=True)
    loss = gradients(sampler, objective, settings, randomness)
    if not math.isfinite(loss):
        raise FloatingPointError(f"the loss became {loss}")
    norm = torch.nn.utils.clip_grad_norm_(sampler.network.parameters(), settings.clip)
    if not norm.isfinite():
        raise FloatingPointError(f"the gradient became {norm.item()}")
    optimizer.step()
    return loss


def gradients(
    sampler: AutoregressiveSampler, objective: Objective, settings: TrainSettings, randomness: StepRandomness
) -> float:
    """Into the weights the gradients of a step, on rank 0 of a team their sum; returns the loss a state."""
    team = randomness.team
    batch = objective.batch(settings.batch, randomness)
    microbatch, own = microbatch_of(settings, sampler), team.share(settings.batch)
    total = 0.0
    for start in range(own.start, own.stop, microbatch):
        loss = objective.loss(batch.part(slice(start, min(start + microbatch, own.stop)))) / settings.batch
        loss.backward()
        total += loss.item()
    if team.size == 1:
        return total
    weights = list(sampler.network.parameters())
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in weights]
    summed = team.total(parameters_to_vector(parts))
    for weight, gradient in zip(weights, summed.split([p.numel() for p in weights]), strict=True):
        if weight.grad is not None:  # one that no loss depends on has none alone, either
            weight.grad = gradient.view_as(weight).clone()
    return float(team.total(torch.tensor(total, dtype=torch.float64)))


def help_with_step(
    team: Team, desk: dict, settings: TrainSettings, seed: int, step: int, weights: torch.Tensor
) -> None:
    """Told to the others: their share of a step, with the weights of rank 0."""
    objective = desk["objective"]
    sampler = objective.sampler
    vector_to_parameters(weights.to(sampler.device), sampler.network.parameters())
    sampler.network.zero_grad(set_to_none=True)
    gradients(sampler, objective, settings, StepRandomness.of(seed, step, team))


def train(
    sampler: AutoregressiveSampler,
    objective: Objective,
    settings: TrainSettings,
    training: Training | None = None,
    *,
    seconds: float = math.inf,
    clock: Callable[[], float] = time.monotonic,
    save: Callable[[Training], None] = lambda training: None,
    save_every: float = 5.0,
    report: Callable[[Training, int], None] = lambda training, steps: None,
    stop: Callable[[], bool] = lambda: False,
    team: Team = ALONE,
) -> Training:
    """Train `sampler.network` in place, from `training` on if given; ends with the best weights loaded.

    The best weights are those of lowest mean(ln q + beta E) on the validation draw, step 0 included: it bounds
    - ln Z from above, so lower is nearer to the target. seconds: allowed on the clock, by default that of the wall;
    the cosine follows whichever of steps and time is used up faster. save(training) is called every `save_every` s,
    at the end and when stop() says so; report(training, steps) after each step. team: of which this is rank 0, and
    which shares the work.

    FloatingPointError, which says at which step, when loss, gradients or weights are not finite; such weights are
    never saved.
    """
    training, settings = training or Training(), sized(settings, sampler.tokens.n_spins)
    optimizer = make_optimizer(sampler, settings)
    if training.weights:
        sampler.network.load_state_dict(training.weights)
        optimizer.load_state_dict(copy.deepcopy(training.optimizer))
    team.tell(lay, "objective", objective)
    validation_seed = validation_seed_of(settings.seed)
    began, saved, cpu_before = clock(), time.monotonic(), training.cpu_seconds - time.process_time()
    kept = training.step if training.weights else None

    def keep() -> None:
        nonlocal kept
        if not all(p.isfinite().all() for p in sampler.network.parameters()):
            raise FloatingPointError("weights are not finite")
        training.cpu_seconds = cpu_before + time.process_time()
        training.weights = {name: p.detach().clone() for name, p in sampler.network.state_dict().items()}
        training.optimizer = copy.deepcopy(optimizer.state_dict())
        save(training)
        kept = training.step

    def score(loss: float) -> None:
        ess = record_score(training, sampler, loss, settings.validation_draws, validation_seed, -cpu_before)
        if training.step == 0:
            prior = (
                ess
                if sampler.network.silent
                else validate(sampler.prior_alone(), settings.validation_draws, validation_seed)[1]
            )
            training.prior_ess = prior

    def go_on() -> None:
        nonlocal saved
        if training.step == 0 and not training.history["step"]:
            score(math.nan)
        while training.step < settings.steps and not training.finished:
            elapsed = (clock() - began) / seconds if seconds > 0 else 1.0
            between = training.step % objective.period == 0
            if between and (elapsed >= 1.0 or stop()):
                break
            if between and time.monotonic() - saved > save_every:
                keep()
                saved = time.monotonic()
            progress = max(training.step / settings.steps, elapsed)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(settings, progress, training.step)
            randomness = StepRandomness.of(settings.seed, training.step, team)
            loss = training_step(sampler, objective, optimizer, settings, randomness)
            training.step += 1
            if training.step % settings.validate_every == 0 or training.step == settings.steps:
                score(loss)
            report(training, settings.steps)
        stopped = stop()
        training.finished = not stopped
        if training.history["step"][-1] != training.step and not stopped:
            score(math.nan)
        keep()

    try:
        go_on()
    except FloatingPointError as error:
        remains = "nothing was kept" if kept is None else f"what was kept is of step {kept}"
        raise FloatingPointError(
            f"training, step {training.step}: {error}; {remains}; use a smaller train.lr="
        ) from None
    sampler.network.load_state_dict(training.best_weights)
    return training
