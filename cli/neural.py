"""The samplers of a neural run: their checkpoints, and the training or fit of one beta."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from cli import any_order
from cli.arguments import Target
from cli.configuration import first_difference
from cli.environments import Environments
from cli.errors import UserError
from cli.output import Screen, Stopper
from cli.plan import FROM_CONFIGURATIONS, OF_REFINED, SEED_OF_PILOT, Plan, checked_checkpoint, configurations_from
from mc.chain import ChainError
from mc.chain_lock import WriterLock, writable_target
from mc.equilibrium import equilibrium_states
from mc.kernels.independence import independence_steps
from nmcmc.anyorder.sampler import AnyOrderSampler
from nmcmc.checkpoint import Checkpoint, CheckpointError, load_checkpoint, require_target, save_checkpoint
from nmcmc.collapse import FEWEST, states_to_watch, watch
from nmcmc.distributed import current_team
from nmcmc.linear_training import ROUNDS, own_states, train_linear
from nmcmc.networks.visibility import mask_warning
from nmcmc.objectives import ANY_ORDER, OBJECTIVES, SelfDistillation
from nmcmc.objectives.base import Objective
from nmcmc.recipe import FITTED_STATES, NetSettings, as_plain, build_sampler
from nmcmc.sampler import AutoregressiveSampler
from nmcmc.training import Training, TrainSettings, sized, train, validate, validation_seed_of

# Settings of the network by the time they came, the latest first: what digests of older files are without.
CAME_LATER = ((), ("mask", "position", "backend", "precision"),
              ("mask", "position", "backend", "precision", "chi", "form", "sweeps", "window"))  # fmt: skip
FEWEST_STATES = 100  # that a linear residual is fitted to
SHORTEST_TRAINING = 1e-3  # seconds: a training that has no time left still notes where it starts


def checkpoint_path(target: Target, beta: float, plan: Plan, out: Path) -> Path:
    """Beside the chain, named after the fingerprint, beta (or the range of a shared network) and recipe."""
    betas = any_order.span_words(plan.net) or f"{beta:.15g}"
    name = f"{target.model}-{target.hamiltonian.fingerprint[:10]}-beta{betas}-{plan.digest()}.pt"
    return out.parent / name


def check_destination(path: Path, target: Target, beta: float, plan: Plan | None, restart: bool) -> None:
    """Refuse a checkpoint file that cannot be written or holds something else, before any work.

    plan: None where it is not known yet. restart: a training that is there will be replaced, but nothing that is no
    checkpoint.
    """
    try:
        writable_target(path)
        WriterLock(path.resolve()).release()  # nobody else is at it
        if not path.exists():
            return
        checkpoint = load_checkpoint(path)
        if restart:
            return
        require_target(path, checkpoint, target.hamiltonian, beta)
    except ChainError as error:
        raise UserError(str(error).replace("--out", "--checkpoint")) from None
    except CheckpointError as error:
        raise UserError(f"{error}; use another --checkpoint") from None
    if plan is None:
        return
    recipe = {key: value for key, value in checkpoint.recipe.items() if key != "seed"}
    difference = first_difference(recipe, json.loads(json.dumps(plan.plain())))
    if difference:
        raise UserError(f"checkpoint {path} holds another training ({difference}); use another --checkpoint, or "
                        "nmcmc train --restart to begin it anew")  # fmt: skip


def train_sampler(
    target: Target,
    beta: float,
    plan: Plan,
    path: Path,
    screen: Screen,
    stop: Stopper,
    seconds: float,
    restart: bool,
    environments: Environments,
    saved: Callable[[Training], None] = lambda now: None,
) -> tuple[AutoregressiveSampler, Training]:
    """The sampler of one beta from the checkpoint at `path`, trained on or from the start where needed.

    seconds: wall time it may take. restart: from the start, whatever is there. saved: called after each save.
    """
    try:
        lock = WriterLock(path.resolve())
    except ChainError as error:
        raise UserError(str(error).replace("--out", "--checkpoint")) from None
    try:
        checkpoint = checked_checkpoint(path, target, beta) if path.exists() and not restart else None
        environment = environments.get(target.hamiltonian, beta, plan.net)
        if checkpoint is not None and checkpoint.training.finished:
            screen.say(f"sampler: {path} ({steps_of(checkpoint)}; remove it to train anew)")
            sampler = replace(checkpoint, beta=beta).sampler(environment).to(plan.device)
            say_attention(sampler, screen)
            return sampler, checkpoint.training
        if plan.net.net == "linear":
            screen.say(f"sampler: fit into {path}")
        elif checkpoint is not None:
            screen.say(f"sampler: training goes on from {path}, step {checkpoint.training.step}")
        else:
            screen.say(f"sampler: training into {path}")
        # The seed decides the random numbers of every step, so a training goes on with the one it began with.
        seed = checkpoint.recipe["seed"] if checkpoint else plan.train.seed
        settings = replace(plan.train, seed=seed)
        if plan.shared:
            for line in any_order.sparse(target, plan.fields):
                screen.warn(line)
            sampler = any_order.family(target, plan.net, plan.fields, seed).to(plan.device)
        else:
            sampler = build_sampler(target.hamiltonian, beta, plan.net, seed, environment).to(plan.device)
        say_attention(sampler, screen)
        recipe = plan.plain() | {"seed": seed}

        def save(now: Training) -> None:
            save_checkpoint(path, Checkpoint(target.hamiltonian, beta, plan.net, recipe, now))
            saved(now)

        if plan.distill is not None:
            from cli.distill_run import distil

            return sampler, distil(sampler, plan, settings, checkpoint, screen, stop, seconds, save)
        if plan.net.net == "linear":
            return sampler, fit(sampler, plan, target, beta, screen, stop, seconds, save)
        began = time.monotonic()
        objective = make_objective(sampler, settings, plan, target, beta, screen, stop, 0.5 * seconds)
        seconds -= time.monotonic() - began
        compile_kernels(objective)
        done = checkpoint.training.step if checkpoint else 0
        at = any_order.span_words(plan.net) or f"{beta:.6g}"
        with screen.progress(f"training beta={at}", settings.steps, done) as update:
            training = train(
                sampler, objective, settings, checkpoint.training if checkpoint else None,
                seconds=max(seconds, SHORTEST_TRAINING), stop=lambda: stop.interrupted,
                save=save,
                report=lambda now, steps: update(now.step, _note(now)), team=current_team(),
            )  # fmt: skip
        if training.finished and training.step < settings.steps:
            screen.say(f"sampler: the time limit ended the training at step {training.step} of {settings.steps}")
        return (sampler.at(beta).to(plan.device) if plan.shared else sampler), training
    except (CheckpointError, FloatingPointError) as error:
        raise UserError(str(error), code=1) from None
    finally:
        lock.release()


def fit(
    sampler: AutoregressiveSampler, plan: Plan, target: Target, beta: float, screen: Screen, stop: Stopper,
    seconds: float, save: Callable[[Training], None],
) -> Training:  # fmt: skip
    """Fit a linear residual to states of the target: of a chain file, the engine, or the sampler itself.

    seconds: wall time for all of it, half of which may go into the engine.
    """
    seed, n = plan.train.seed, plan.train.states or FITTED_STATES
    generator = torch.Generator().manual_seed(seed + SEED_OF_PILOT)
    began, clock = time.monotonic(), time.process_time()
    training, prior_ess = Training(), math.nan
    for turn in range(ROUNDS if plan.data == "self" else 1):
        states, made = states_to_learn_from(sampler, plan, target, beta, n, generator, stop, 0.5 * seconds)
        if len(states) < FEWEST_STATES:
            screen.say("sampler: the time limit leaves no room for states to fit; the prior alone is used")
            states = states[:0]
        with screen.progress("fit, spins", target.hamiltonian.n_spins) as update:
            training, result = train_linear(
                sampler, states, plan.train.validation_draws, seed,
                report=lambda done, spins: update(done),
                stop=lambda: stop.interrupted or time.monotonic() - began > seconds,
            )  # fmt: skip
        if result is not None:
            gain = f"{result.unseen_gain:.3g} nats gained on unseen ones, {result.seconds:.0f} s"
            ess = training.history["ess"]
            screen.say(f"fit to {len(states)} states of {made}: {gain}; ESS {ess[0]:.3f} -> {ess[-1]:.3f}")
        prior_ess = prior_ess if turn else training.prior_ess
    training.prior_ess = prior_ess
    training.cpu_seconds = time.process_time() - clock  # states are a part of the price
    training.finished = not stop.interrupted  # what the time allowed is the fit
    if len(states):  # else there is nothing to keep: a run with more time shall fit
        save(training)
    return training


def states_to_learn_from(
    sampler: AutoregressiveSampler, plan: Plan, target: Target, beta: float, n: int, generator: torch.Generator,
    stop: Stopper, seconds: float,
) -> tuple[np.ndarray, str]:  # fmt: skip
    """States of the target (n, N) and where they are from: a chain file, the engine, or the sampler itself.

    seconds: wall time for the engine, which gives fewer states when it ends. UserError when interrupted.
    """
    if plan.data == "self":
        states, made = own_states(sampler, n, generator), "the sampler itself"
    elif plan.data is not None:
        states, made = configurations_from(plan.data, target, beta), plan.data
    else:
        began = time.monotonic()
        states, made = equilibrium_states(
            target.hamiltonian, beta, n, plan.train.seed,
            stop=lambda: stop.interrupted or time.monotonic() - began > seconds,
        )  # fmt: skip
    if stop.interrupted:
        raise UserError("interrupted while states to learn from were made; the same command again begins it anew",
                        code=130)  # fmt: skip
    return states, made


def say_attention(sampler: AutoregressiveSampler, screen: Screen) -> None:
    """What a transformer's attention is computed with, and whether its mask hides what it would need."""
    trunk = getattr(sampler.network, "trunk", None)
    if trunk is None:
        return
    screen.say(trunk.backend_line())
    warning = mask_warning(trunk.visibility)
    if warning:
        screen.warn(warning)


def steps_of(checkpoint: Checkpoint) -> str:
    """How far a training came, in words."""
    if checkpoint.net.net == "linear":
        return "fitted before"
    asked = checkpoint.recipe.get("train", {}).get("steps", checkpoint.training.step)
    step = checkpoint.training.step
    return f"trained before, {step} steps" if step >= asked else f"trained before, {step} of {asked} steps"


def _note(training: Training) -> str:
    return f"ESS {training.history['ess'][-1]:.3f} at step {training.history['step'][-1]:.0f}"


def best_ess(training: Training) -> float:
    """ESS on the validation draw of the weights that are kept."""
    scores = np.array(training.history["free_energy"])
    return training.history["ess"][int(np.nanargmin(scores)) if np.isfinite(scores).any() else -1]


def fresh_ess(sampler: AnyOrderSampler, seed: int) -> float:
    """ESS of one temperature of a shared network, whose training knows the lowest of all only."""
    n = sized(TrainSettings(), sampler.tokens.n_spins).validation_draws
    return validate(sampler, n, validation_seed_of(seed))[1]


def make_objective(
    sampler: AutoregressiveSampler, settings: TrainSettings, plan: Plan, target: Target, beta: float,
    screen: Screen, stop: Stopper, seconds: float,
) -> Objective:  # fmt: skip
    """The objective named in the settings. seconds: wall time for states that it learns from."""
    if settings.objective in ANY_ORDER:
        generator = torch.Generator().manual_seed(settings.seed + SEED_OF_PILOT)

        def states_of(beta: float, n: int) -> np.ndarray:
            return states_to_learn_from(sampler, plan, target, beta, n, generator, stop, seconds)[0]

        interrupted = lambda: stop.interrupted  # noqa: E731
        return any_order.objective_of(sampler, settings, states_of, screen.say, interrupted, seconds)
    kind = OBJECTIVES[settings.objective]
    if settings.objective == "soft-distillation":
        return kind(sampler, settings.sweeps, settings.reuse)
    if settings.objective in OF_REFINED:
        return kind(sampler, settings.sweeps, settings.weight)
    if settings.objective in FROM_CONFIGURATIONS:
        n, generator = settings.states or FITTED_STATES, torch.Generator().manual_seed(settings.seed + SEED_OF_PILOT)
        states, _ = states_to_learn_from(sampler, plan, target, beta, n, generator, stop, seconds)
        if not len(states):
            screen.say("sampler: the time limit leaves no room for states; it learns from its own draws")
            return SelfDistillation(sampler, settings.sweeps, settings.reuse)
        return kind(sampler, states)
    return kind(sampler)


def say_collapse(
    samplers: list[AutoregressiveSampler], seed: int, screen: Screen, stop: Stopper
) -> dict[str, list[float]]:
    """Whether trained samplers dropped modes: a line each, and the numbers by beta, where the time allows."""
    rows = []
    for sampler in samplers:
        n = states_to_watch(sampler.tokens.n_spins)
        if math.isfinite(stop.deadline):
            left = stop.deadline - time.monotonic()
            if 2.0 * n * seconds_a_state(sampler, min(FEWEST, sampler.max_batch)) > left:
                screen.say("modes: not looked at, the time limit leaves no room")
                return {}
        try:
            found = watch(sampler, seed, n)
        except FloatingPointError as error:
            raise UserError(f"beta={sampler.beta:.10g}: {error}", code=1) from None
        at = f" at beta={sampler.beta:.6g}" if len(samplers) > 1 else ""
        screen.say(f"modes{at}: {found.line()}")
        rows.append(found.numbers())
    return {name: [row[name] for row in rows] for name in rows[0]}


def compile_kernels(objective=None) -> None:
    """Have Numba compile what a run will use, so that compilation is not counted as work."""
    independence_steps(np.zeros(1), np.zeros((1, 1)), np.zeros((1, 1)))
    if hasattr(objective, "moved"):
        objective.moved(np.ones((1, objective.sampler.tokens.n_spins), np.int8), np.random.default_rng(0))


def proposal_digest(sampler: AutoregressiveSampler, net: NetSettings, without: tuple[str, ...] = ()) -> str:
    """Hash of all that makes q; a chain goes on only with the q it began with.

    without: settings of the network that files of an earlier time did not know (`cli.configuration.ABSENT`).
    """
    known = {key: value for key, value in as_plain(net).items() if key not in without}
    about = [sampler.hamiltonian.fingerprint, sampler.beta, known]
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    if sampler.network is not None:
        for name, parameter in sorted(sampler.network.state_dict().items()):
            digest.update(name.encode() + parameter.detach().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def seconds_a_state(sampler: AutoregressiveSampler, n: int) -> float:
    """Wall seconds to draw one state, measured on a batch of n."""
    sampler.sample(n, torch.Generator().manual_seed(0))  # compiles, allocates
    began = time.monotonic()
    sampler.sample(n, torch.Generator().manual_seed(0))
    return (time.monotonic() - began) / n
