"""The neural modes of `nmcmc run`: samplers of all betas, trained or loaded, the driver that draws, and --check."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from cli import neural
from cli.check import check_on_monte_carlo
from cli.environments import Environments
from cli.errors import UserError
from cli.output import Stopper
from cli.plan import make_plan
from cli.settings import COOLED, LEARNING
from cli.work import Run
from mc.analysis import Results
from mc.chain import ChainError, ChainWriter
from nmcmc.distributed import SharedProposal, current_team
from nmcmc.importance import ImportanceDriver
from nmcmc.metropolis import NeuralDriver
from nmcmc.proposals import rescore_error
from nmcmc.sampler import AutoregressiveSampler
from nmcmc.training import HISTORY, Training

SEED_OF_RESCORE = 7
WORST_RESCORE = 1e-2  # nats; beyond this, cached and full passes are not the same law
WORST_RESCORE_OF_BF16 = 1.0  # where only draws count, whose log q is that of the sampled log-odds
TELL_SECONDS = 5.0  # between looks at a training that others can have
SHARE_OF_CHECK = 0.2  # of the time of the run
SHARE_OF_TRAINING = 0.5  # of the time of a tempering with neural moves


def check_before_work(work: Run) -> None:
    """Resolve the settings of the samplers into work.plan; UserError for what cannot be done."""
    clock = time.process_time()
    restart = work.options.restart and work.mode in (*LEARNING, COOLED)
    if work.options.checkpoint is not None and work.mode in LEARNING:
        if len(work.target.betas) > 1 and work.given.get("net.shared") != "yes":
            raise UserError("--checkpoint goes with one beta; leave it out to have one checkpoint for each")
        neural.check_destination(work.options.checkpoint, work.target, work.target.betas[0], None, restart)
    work.environments = Environments(work.out.parent, work.screen)
    work.plan = make_plan(work, work.environments)
    work.seconds["build"] += time.process_time() - clock
    if not trains(work):
        return
    for beta in work.target.betas:
        neural.check_destination(destination(work, beta), work.target, beta, work.plan, restart)


def trains(work: Run) -> bool:
    """Whether samplers come from a training, or one that was done before."""
    return work.plan.net.net != "none" and work.plan.checkpoint is None


def destination(work: Run, beta: float) -> Path:
    """Where the checkpoint of one beta is, or will be."""
    return work.options.checkpoint or neural.checkpoint_path(work.target, beta, work.plan, work.out)


def prepare(work: Run, writer: ChainWriter, stop: Stopper):
    """Samplers into work.samplers and their diagnostics into work.extra; the driver, or None with nothing to draw."""
    if work.mode == COOLED:
        from cli import anneal_run

        return anneal_run.prepare(work, writer, stop)
    samplers, trainings = [], []
    for index, beta in enumerate(work.target.betas):
        left = 1 if work.plan.shared else len(work.target.betas) - index
        sampler, training = obtain_sampler(
            work, beta, left, writer, stop, told_by(writer, trainings, work.plan.shared)
        )
        samplers.append(sampler)
        if training is not None and not (work.plan.shared and trainings):  # one is for all
            trainings.append(training)
            work.seconds["train"] += training.cpu_seconds
        if stop.interrupted:
            return None
    work.samplers = samplers
    if trainings:
        if not work.plan.shared:
            work.extra["prior_ess"] = [training.prior_ess for training in trainings]
        writer.set_group("training", training_table(trainings, writer.betas, work.plan.shared))
    rescored = work.mode == "nmcmc" and work.settings["local"] > 0
    work.extra["rescore_error"] = [checked_rescore_error(sampler, rescored) for sampler in samplers]
    if work.mode in LEARNING:
        work.extra |= neural.say_collapse(samplers, work.options.rng_seed, work.screen, stop)
        work.extra["ess"] = (
            [neural.fresh_ess(sampler, work.options.rng_seed) for sampler in samplers] if work.plan.shared
            else [neural.best_ess(training) for training in trainings]
        )  # fmt: skip
        return None
    digests = [
        "".join(neural.proposal_digest(sampler, work.plan.net, without) for sampler in samplers).encode()
        for without in neural.CAME_LATER
    ]
    digest = writer.state().get("proposal", digests[0])  # one of older code stays as it is
    if digest not in digests:
        raise UserError(f"{work.out} was begun with other weights; use --restart to replace it, or another --out")
    clock = time.process_time()
    driver = make_driver(work, samplers)
    work.seconds["sample"] += time.process_time() - clock
    return Bound(driver, digest)


def obtain_sampler(
    work: Run,
    beta: float,
    betas_left: int,
    writer: ChainWriter,
    stop: Stopper,
    saved: Callable[[Training], None] = lambda now: None,
) -> tuple[AutoregressiveSampler, Training | None]:
    """The sampler of one beta: from --checkpoint, trained, or a prior alone (without a training)."""
    plan = work.plan
    clock = time.process_time()
    if plan.checkpoint is not None:
        work.screen.say(f"sampler: {work.options.checkpoint} ({neural.steps_of(plan.checkpoint)})")
        environment = work.environments.get(work.target.hamiltonian, beta, plan.net)
        sampler = replace(plan.checkpoint, beta=beta).sampler(environment).to(plan.device)
        training = plan.checkpoint.training
        neural.say_attention(sampler, work.screen)
    elif not trains(work):
        sampler, training = untrained(work, beta), None
    else:
        seconds = seconds_for_training(work, beta, writer, stop) / betas_left
        restart = work.options.restart and work.mode in LEARNING
        path = destination(work, beta)
        return neural.train_sampler(
            work.target, beta, plan, path, work.screen, stop, seconds, restart, work.environments, saved
        )
    neural.compile_kernels()
    work.seconds["build"] += time.process_time() - clock
    return sampler, training


def told_by(writer: ChainWriter, before: list[Training], shared: bool) -> Callable[[Training], None]:
    """Puts the history of a training, after those before it, into the chain file now and then, for others to read."""

    def tell(now: Training) -> None:
        writer.set_group("training", training_table([*before, now], writer.betas, shared))
        if writer.commit_is_due(TELL_SECONDS):
            with contextlib.suppress(ChainError):  # a full disk must not end a training; the next commit says it
                writer.commit()

    return tell


def untrained(work: Run, beta: float) -> AutoregressiveSampler:
    """The sampler of one beta as it is before any training."""
    environment = work.environments.get(work.target.hamiltonian, beta, work.plan.net)
    sampler = neural.build_sampler(work.target.hamiltonian, beta, work.plan.net, environment=environment)
    return sampler.to(work.plan.device)


def make_driver(work: Run, samplers: list[AutoregressiveSampler]) -> NeuralDriver | ImportanceDriver:
    """The driver of the mode."""
    options = work.options
    team = current_team()
    if team.size > 1:
        samplers = [SharedProposal(team, sampler, index) for index, sampler in enumerate(samplers)]
    arguments = dict(n_chains=options.chains, seed=options.rng_seed, spins_every=work.spins_every)
    if work.mode == "nmcmc":
        return NeuralDriver(samplers, local=work.settings["local"], **arguments)
    return ImportanceDriver(samplers, **arguments)


class Bound:
    """A neural driver whose state carries the digest of its proposals."""

    def __init__(self, driver: NeuralDriver | ImportanceDriver, digest: bytes):
        self._driver, self._digest = driver, digest
        self.warm_up, self.block, self.restore = driver.warm_up, driver.block, driver.restore

    def state(self) -> dict:
        return self._driver.state() | {"proposal": self._digest}


def seconds_for_training(work: Run, beta: float, writer: ChainWriter, stop: Stopper) -> float:
    """Wall seconds that training may take so that the asked draws, and the check, still fit into the time limit."""
    if not math.isfinite(stop.deadline):
        return math.inf
    if work.mode == "pt":
        return max(SHARE_OF_TRAINING * (stop.deadline - time.monotonic()), 0.0)
    options = work.options
    needed = 1.0  # for results and the file
    if work.mode not in LEARNING:
        sampler = untrained(work, beta)
        steps = (options.draws - writer.committed_draws + options.warmup) * len(work.target.betas)
        states = max(steps * options.chains, 1)
        seconds_a_state = neural.seconds_a_state(sampler, min(states, sampler.max_batch)) / current_team().size
        needed += 1.3 * states * seconds_a_state
        if work.settings.get("local"):
            needed += 1.3 * steps * seconds_of_local_sweeps(work, sampler)
    if options.check:
        needed += SHARE_OF_CHECK * options.time_limit
    return max(stop.deadline - time.monotonic() - needed, 0.0)


def seconds_of_local_sweeps(work: Run, sampler: AutoregressiveSampler) -> float:
    """Wall seconds of the local sweeps and the rescoring of one draw of all chains."""
    driver = make_driver(work, [sampler])
    driver.block(2)  # compiles; the proposals of a whole batch are drawn by now
    began = time.monotonic()
    driver.block(4)
    return (time.monotonic() - began) / 4


def training_table(
    trainings: list[Training], betas: np.ndarray, shared: bool = False
) -> dict[str, np.ndarray | tuple]:
    """Histories for the chain file: (step,) for one beta, or one network for all, (step, beta) for several.

    NaN where nothing is known.
    """
    if len(betas) == 1 or shared:
        return {name: np.asarray(values) for name, values in trainings[0].history.items()}
    steps = sorted({step for training in trainings for step in training.history["step"]})
    table: dict[str, np.ndarray | tuple] = {"step": np.array(steps)}
    for name in HISTORY:
        if name == "step":
            continue
        rows = [dict(zip(t.history["step"], t.history[name], strict=True)) for t in trainings]
        rows += [{}] * (len(betas) - len(rows))
        values = [[row.get(step, math.nan) for row in rows] for step in steps]
        table[name] = (("step", "beta"), np.array(values))
    return table


def checked_rescore_error(sampler: AutoregressiveSampler, rescored: bool = True) -> float:
    """Rescoring difference on fresh draws; UserError when sampling and scoring are not the same law.

    rescored: whether the run scores states that moved. If not, log q is that of the draws themselves, and bf16, which
    rounds them otherwise than a full pass, does no harm.
    """
    error = rescore_error(sampler, min(256, sampler.max_batch), SEED_OF_RESCORE)
    half = getattr(getattr(sampler.network, "trunk", None), "precision", "float32") == "bf16"
    worst = WORST_RESCORE_OF_BF16 if half and not rescored else WORST_RESCORE
    if not error <= worst:
        remedy = "net.precision=float32" if half else "--device cpu"
        raise UserError(
            f"log q of a state differs by {error:.2g} nats between sampling and scoring (at most {worst:g} is "
            f"let through); use {remedy}, or train again with a smaller train.lr="
        )
    return error


def add_check(work: Run, results: Results, stop: Stopper) -> None:
    """--check: a Monte Carlo chain for a fifth of the time so far, and log q on its states."""
    seconds = SHARE_OF_CHECK * (time.monotonic() - work.began)
    seconds = min(seconds, max(stop.deadline - time.monotonic(), 1.0)) / len(work.samplers)
    rows = []
    for b, sampler in enumerate(work.samplers):
        exact = results.diagnostics["log_z_exact"][b]
        log_z = exact if math.isfinite(exact) else results.diagnostics.get("log_z", {b: math.nan})[b]
        rows.append(check_on_monte_carlo(sampler, seconds, log_z, work.options.rng_seed, work.screen, stop))
    for name in rows[0]:
        results.diagnostics[name] = [row[name] for row in rows]
