"""`nmcmc run --mode distill`: the loop sample -> refine -> train of one beta, with its words on the screen."""

from __future__ import annotations

import time
from collections.abc import Callable

import cli.neural as neural
from cli.errors import UserError
from cli.output import Screen, Stopper
from cli.plan import Plan
from nmcmc.checkpoint import Checkpoint
from nmcmc.distillation import SWEEPS, Distilled, distill_linear
from nmcmc.sampler import AutoregressiveSampler
from nmcmc.training import Training, TrainSettings, train


def distil(
    sampler: AutoregressiveSampler, plan: Plan, settings: TrainSettings, checkpoint: Checkpoint | None,
    screen: Screen, stop: Stopper, seconds: float, save: Callable[[Training], None],
) -> Training:  # fmt: skip
    """Distil `sampler`, from a checkpoint on where there is one; `save` keeps what it learns.

    A linear residual is kept when all its rounds are done, or those that `seconds` of wall time allow.
    """
    asked = plan.distill
    refined = {"sweeps": "sweeps at beta", "pt": "rounds of tempering"}[asked.source]
    sweeps = asked.sweeps or SWEEPS[asked.source]
    screen.say(f"distill: {asked.rounds} rounds of {asked.states} own states, refined by {sweeps} {refined}")
    if plan.net.net == "linear":
        return _fits(sampler, plan, settings, screen, stop, seconds, save)
    training = checkpoint.training if checkpoint else Training()
    objective = Distilled(sampler, asked, settings.steps, settings.seed, training.notes)
    with screen.progress(f"distilling beta={sampler.beta:.6g}", settings.steps, training.step) as update:
        training = train(
            sampler, objective, settings, training, seconds=max(seconds, neural.SHORTEST_TRAINING),
            stop=lambda: stop.interrupted, save=save,
            report=lambda now, steps: update(now.step, f"ESS {now.history['ess'][-1]:.3f}"),
        )  # fmt: skip
    if training.finished:
        training.notes.clear()  # the states have served
        save(training)
        if training.step < settings.steps:
            screen.say(f"sampler: the time limit ended the training at step {training.step} of {settings.steps}")
    return training


def _fits(
    sampler: AutoregressiveSampler, plan: Plan, settings: TrainSettings, screen: Screen, stop: Stopper,
    seconds: float, save: Callable[[Training], None],
) -> Training:  # fmt: skip
    """The loop for a linear residual."""
    began = time.monotonic()
    training = distill_linear(
        sampler, plan.distill, settings.validation_draws, settings.seed,
        report=lambda turn, ess: screen.say(f"round {turn}: ESS {ess:.3f}"),
        stop=lambda: stop.interrupted or time.monotonic() - began > seconds,
    )  # fmt: skip
    if stop.interrupted or not training.step:
        why = "interrupted" if stop.interrupted else "the time limit came first"
        raise UserError(f"{why}: nothing is fitted yet; the same command again begins it anew",
                        code=130 if stop.interrupted else 1)  # fmt: skip
    if not training.finished:
        screen.say(f"sampler: the time limit ended the loop after {training.step} of {plan.distill.rounds} rounds")
    training.finished = True
    save(training)
    return training
