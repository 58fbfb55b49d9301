"""`--mode pt neural=coldest|all`: the samplers that parallel tempering takes its neural moves from."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np

from cli import neural, neural_run
from cli.classical import initial
from cli.environments import Environments
from cli.errors import UserError
from cli.output import Stopper
from cli.plan import make_plan
from cli.settings import acting
from cli.work import Run
from mc.chain import ChainWriter
from mc.tempering import TemperingDriver
from nmcmc.tempering import NeuralTemperingDriver


def check_before_work(work: Run, tempering: TemperingDriver) -> None:
    """Resolve the settings of the samplers into work.plan; UserError for what cannot be done."""
    work.settings = acting(work.mode, work.given)
    everywhere = work.settings["neural"] == "all"
    if everywhere and tempering.tuned:
        raise UserError("neural=all needs samplers at the betas written, and ladder=tuned moves the inner ones; "
                        "use neural=coldest, or ladder=fixed")  # fmt: skip
    if everywhere and work.options.checkpoint is not None:
        raise UserError("--checkpoint is a sampler of one beta; use neural=coldest, or leave --checkpoint out")
    clock = time.process_time()
    work.environments = Environments(work.out.parent, work.screen)
    samplers = of_samplers(work, tempering)
    work.plan = make_plan(samplers, work.environments)
    work.out_said = samplers.out_said
    work.seconds["build"] += time.process_time() - clock
    samplers = of_samplers(work, tempering)
    if neural_run.trains(samplers):
        for beta in samplers.target.betas:
            path = neural_run.destination(samplers, beta)
            neural.check_destination(path, samplers.target, beta, work.plan, False)


def of_samplers(work: Run, tempering: TemperingDriver) -> Run:
    """The run as its samplers see it: the betas that have one, and as many draws a chain as there are offers."""
    betas = work.target.betas if work.settings["neural"] == "all" else (max(work.target.betas),)
    options, every = work.options, work.settings["neural.every"]
    draws, warmup = (
        math.ceil(rounds / every) * tempering.replicas for rounds in (options.draws * options.thin, options.warmup)
    )
    options = replace(options, draws=draws, warmup=warmup, restart=False)
    there = None if work.options.restart else work.there
    return replace(work, target=replace(work.target, betas=betas), options=options, there=there)


def prepare(
    work: Run, tempering: TemperingDriver, writer: ChainWriter, stop: Stopper
) -> NeuralTemperingDriver | None:
    """The driver with its samplers, trained where they must be; None when that was interrupted."""
    samplers = of_samplers(work, tempering)
    betas, proposals, trainings = samplers.target.betas, {}, []
    for index, beta in enumerate(betas):
        proposals[beta], training = neural_run.obtain_sampler(samplers, beta, len(betas) - index, writer, stop)
        if training is not None:
            trainings.append(training)
            work.seconds["train"] += training.cpu_seconds
        if stop.interrupted:
            return None
    if trainings:
        writer.set_group("training", neural_run.training_table(trainings, np.array(betas)))
        note(work, "prior_ess", {beta: training.prior_ess for beta, training in zip(betas, trainings, strict=True)})
    note(work, "rescore_error", {beta: neural_run.checked_rescore_error(q) for beta, q in proposals.items()})
    digest = "".join(neural.proposal_digest(sampler, work.plan.net) for sampler in proposals.values()).encode()
    return NeuralTemperingDriver(
        work.target.hamiltonian, np.array(work.target.betas), [proposals.get(beta) for beta in work.target.betas],
        work.settings["neural.every"], work.options.chains, work.options.rng_seed, digest,
        thin=work.options.thin, init=initial(work), spins_every=work.spins_every, replicas=tempering.replicas,
        houdayer=tempering.houdayer, tuned=tempering.tuned, kernel=work.settings["kernel"],
    )  # fmt: skip


def note(work: Run, name: str, values: dict[float, float]) -> None:
    """A diagnostic of the samplers, NaN at the betas that have none."""
    work.extra[name] = [values.get(beta, math.nan) for beta in work.target.betas]
