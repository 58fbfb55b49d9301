"""The neural part of a run: settings of the samplers, their checkpoints, and the training of one beta."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cli.arguments import Target
from cli.configuration import first_difference
from cli.errors import UserError
from cli.options import Options
from cli.output import Screen, Stopper
from mc.chain import ChainError, open_chain
from mc.chain_lock import WriterLock, writable_target
from mc.kernels.independence import independence_steps
from nmcmc.checkpoint import Checkpoint, CheckpointError, load_checkpoint, require_target, save_checkpoint
from nmcmc.objectives import OBJECTIVES
from nmcmc.recipe import NetSettings, as_plain, build_sampler, default_steps, published, resolved
from nmcmc.sampler import AutoregressiveSampler
from nmcmc.training import Training, TrainSettings, sized, train

NET_KEYS = {"patch": "patch", "prior": "prior", "net": "net", "net.width": "width", "net.layers": "layers",
            "net.heads": "heads", "net.head": "head"}  # fmt: skip
TRAIN_KEYS = {"train.steps": "steps", "train.batch": "batch", "train.microbatch": "microbatch",
              "train.lr": "learning_rate", "train.objective": "objective", "train.sweeps": "sweeps",
              "train.reuse": "reuse"}  # fmt: skip
FROM_CONFIGURATIONS = ("likelihood", "soft-likelihood")
SHORTEST_TRAINING = 1e-3  # seconds: a training that has no time left still notes where it starts
# One thread, whatever the machine has: products of this size gain little from more and lose much when cores are busy,
# and the order of float sums, hence every bit of a chain, then does not depend on the number of cores.
torch.set_num_threads(1)


@dataclass(frozen=True)
class Plan:
    """What will be trained or loaded: settings resolved before any work. checkpoint: the one loaded, if any."""

    net: NetSettings
    train: TrainSettings
    data: str | None
    device: torch.device
    checkpoint: Checkpoint | None = None

    def plain(self) -> dict[str, Any]:
        """For the configuration of the run. A microbatch changes rounding only, the seed is the run's."""
        if self.checkpoint is not None:
            return {"net": as_plain(self.net), "train": self.checkpoint.recipe.get("train", {})}
        train = {key: value for key, value in as_plain(self.train).items() if key not in ("microbatch", "seed")}
        return {"net": as_plain(self.net), "train": train | {"data": self.data}}

    def digest(self) -> str:
        """Short hash of the recipe, for the name of the checkpoint."""
        return hashlib.sha256(json.dumps(self.plain(), sort_keys=True).encode()).hexdigest()[:8]


def make_plan(target: Target, mode: str, given: dict[str, Any], options: Options) -> Plan:
    """Settings of the samplers; UserError for a patch, prior, device or checkpoint that does not fit."""
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no CUDA device is available; use --device cpu")
    use_cuda = options.device != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if use_cuda else "cpu")
    net_keys = {field: given[key] for key, field in NET_KEYS.items() if key in given}
    if options.checkpoint is not None and mode != "train":
        return loaded_plan(options.checkpoint, target, given, device)
    net, training = NetSettings(), TrainSettings(seed=options.rng_seed)
    if given.get("train.recipe") == "published":
        net, training = published(net, training)
    net = replace(net, **net_keys) if mode != "prior" else replace(net, **net_keys | {"net": "none"})
    train_keys = {field: given[key] for key, field in TRAIN_KEYS.items() if key in given}
    n_spins = target.hamiltonian.n_spins
    training = sized(replace(training, **({"steps": default_steps(n_spins)} | train_keys)), n_spins)
    try:
        net = resolved(target.hamiltonian, net)
        build_sampler(target.hamiltonian, target.betas[0], net)
    except ValueError as error:
        raise UserError(str(error)) from None
    if mode == "train" and net.net == "none":
        raise UserError("net=none: a prior alone has nothing to train; use --mode prior, or leave net= out")
    data = given.get("train.data")
    if net.net != "none" and training.objective in FROM_CONFIGURATIONS:
        for beta in target.betas:
            configurations_from(data, target, beta, training.objective)
    elif data is not None:
        expected = " or ".join(FROM_CONFIGURATIONS)
        raise UserError(f"train.data={data} goes with train.objective={expected}, not {training.objective}")
    return Plan(net, training, data, device)


def loaded_plan(path: Path, target: Target, given: dict[str, Any], device: torch.device) -> Plan:
    """The plan of a run with the sampler of a checkpoint; UserError when it is for another target or network."""
    if len(target.betas) > 1:
        raise UserError(
            f"--checkpoint {path} goes with one beta; leave it out to have one checkpoint for each, found by name"
        )
    checkpoint = checked_checkpoint(path, target, target.betas[0])
    if not checkpoint.training.best_weights:
        raise UserError(f"checkpoint {path}: its training has not begun; train it first, or leave --checkpoint out")
    for key, field in NET_KEYS.items():
        theirs = getattr(checkpoint.net, field)
        if key in given and given[key] != theirs:
            said = "x".join(map(str, theirs)) if isinstance(theirs, tuple) else theirs
            raise UserError(f"{key}= does not fit checkpoint {path}, which has {key}={said}; leave it out")
    return Plan(checkpoint.net, TrainSettings(), None, device, checkpoint)


def configurations_from(path: str | None, target: Target, beta: float, objective: str) -> np.ndarray:
    """Stored spins (n, N) of a chain file at one beta; UserError when there are none for this target."""
    if path is None:
        raise UserError(f"train.objective={objective} learns from configurations; give train.data=CHAIN.h5")
    try:
        chain = open_chain(path)
        if chain.hamiltonian().fingerprint != target.hamiltonian.fingerprint:
            raise UserError(f"train.data={path} holds states of another Hamiltonian; sample this one first")
    except ChainError as error:
        raise UserError(f"train.data: {error}") from None
    near = np.flatnonzero(np.abs(chain.betas - beta) < 1e-9)
    if chain.mode in ("nis", "prior") or not len(near) or not len(chain.spin_draws):
        raise UserError(
            f"train.data={path} has no equilibrium states at beta={beta:.10g}; sample them with spins.every= above 0"
        )
    return chain.spins[:, :, near[0]].reshape(-1, chain.n_spins)


def checked_checkpoint(path: Path, target: Target, beta: float) -> Checkpoint:
    """A checkpoint of this target; UserError when it is missing, damaged or for another one."""
    try:
        checkpoint = load_checkpoint(path)
        require_target(path, checkpoint, target.hamiltonian, beta)
    except CheckpointError as error:
        raise UserError(str(error)) from None
    return checkpoint


def checkpoint_path(target: Target, beta: float, plan: Plan, out: Path) -> Path:
    """Beside the chain, named after the fingerprint, beta and recipe."""
    name = f"{target.model}-{target.hamiltonian.fingerprint[:10]}-beta{beta:.15g}-{plan.digest()}.pt"
    return out.parent / name


def check_destination(path: Path, target: Target, beta: float, plan: Plan, restart: bool) -> None:
    """Refuse a checkpoint file that cannot be written or holds something else, before any work.

    restart: a training that is there will be replaced, but nothing that is no checkpoint.
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
    recipe = {key: value for key, value in checkpoint.recipe.items() if key != "seed"}
    difference = first_difference(recipe, json.loads(json.dumps(plan.plain())))
    if difference:
        raise UserError(f"checkpoint {path} holds another training ({difference}); use another --checkpoint, or "
                        "nmcmc train --restart to begin it anew")  # fmt: skip


def train_sampler(
    target: Target, beta: float, plan: Plan, path: Path, screen: Screen, stop: Stopper, seconds: float, restart: bool
) -> tuple[AutoregressiveSampler, Training]:
    """The sampler of one beta from the checkpoint at `path`, trained on or from the start where needed.

    seconds: wall time it may take. restart: from the start, whatever is there.
    """
    try:
        lock = WriterLock(path.resolve())
    except ChainError as error:
        raise UserError(str(error).replace("--out", "--checkpoint")) from None
    try:
        checkpoint = checked_checkpoint(path, target, beta) if path.exists() and not restart else None
        if checkpoint is not None and checkpoint.training.finished:
            screen.say(f"sampler: {path} ({steps_of(checkpoint)}; remove it to train anew)")
            return checkpoint.sampler().to(plan.device), checkpoint.training
        if checkpoint is not None:
            screen.say(f"sampler: training goes on from {path}, step {checkpoint.training.step}")
        else:
            screen.say(f"sampler: training into {path}")
        # The seed decides the random numbers of every step, so a training goes on with the one it began with.
        seed = checkpoint.recipe["seed"] if checkpoint else plan.train.seed
        settings = replace(plan.train, seed=seed)
        sampler = build_sampler(target.hamiltonian, beta, plan.net, seed=seed).to(plan.device)
        objective = make_objective(sampler, settings, plan, target, beta)
        compile_kernels(objective)
        recipe = plan.plain() | {"seed": seed}
        done = checkpoint.training.step if checkpoint else 0
        with screen.progress(f"training beta={beta:.6g}", settings.steps, done) as update:
            training = train(
                sampler, objective, settings, checkpoint.training if checkpoint else None,
                seconds=max(seconds, SHORTEST_TRAINING), stop=lambda: stop.interrupted,
                save=lambda now: save_checkpoint(path, Checkpoint(target.hamiltonian, beta, plan.net, recipe, now)),
                report=lambda now, steps: update(now.step, _note(now)),
            )  # fmt: skip
        if training.finished and training.step < settings.steps:
            screen.say(f"sampler: the time limit ended the training at step {training.step} of {settings.steps}")
        return sampler, training
    except (CheckpointError, FloatingPointError) as error:
        raise UserError(str(error), code=1) from None
    finally:
        lock.release()


def steps_of(checkpoint: Checkpoint) -> str:
    """How far a training came, in words."""
    asked = checkpoint.recipe.get("train", {}).get("steps", checkpoint.training.step)
    step = checkpoint.training.step
    return f"trained before, {step} steps" if step >= asked else f"trained before, {step} of {asked} steps"


def _note(training: Training) -> str:
    return f"ESS {training.history['ess'][-1]:.3f} at step {training.history['step'][-1]:.0f}"


def best_ess(training: Training) -> float:
    """ESS on the validation draw of the weights that are kept."""
    scores = np.array(training.history["free_energy"])
    return training.history["ess"][int(np.nanargmin(scores)) if np.isfinite(scores).any() else -1]


def make_objective(sampler, settings: TrainSettings, plan: Plan, target: Target, beta: float):
    """The objective named in the settings."""
    kind = OBJECTIVES[settings.objective]
    if settings.objective == "soft-distillation":
        return kind(sampler, settings.sweeps, settings.reuse)
    if settings.objective in FROM_CONFIGURATIONS:
        return kind(sampler, configurations_from(plan.data, target, beta, settings.objective))
    return kind(sampler)


def compile_kernels(objective=None) -> None:
    """Have Numba compile what a run will use, so that compilation is not counted as work."""
    independence_steps(np.zeros(1), np.zeros((1, 1)), np.zeros((1, 1)))
    if hasattr(objective, "moved"):
        objective.moved(np.ones((1, objective.sampler.tokens.n_spins), np.int8), np.random.default_rng(0))


def proposal_digest(sampler: AutoregressiveSampler, net: NetSettings) -> str:
    """Hash of all that makes q; a chain goes on only with the q it began with."""
    about = [sampler.hamiltonian.fingerprint, sampler.beta, as_plain(net)]
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
