"""The neural part of a run: find, train or load one sampler a beta, and judge it on Monte Carlo states."""

from __future__ import annotations

import hashlib
import json
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cli.arguments import Target
from cli.errors import UserError
from cli.output import Screen, Stopper
from mc.chain import ChainError, open_chain
from mc.chain_lock import WriterLock
from mc.kernels.independence import independence_steps
from mc.simulate import LocalDriver
from mc.tempering import TemperingDriver
from nmcmc.checkpoint import Checkpoint, CheckpointError, load_checkpoint, require_target, save_checkpoint
from nmcmc.objectives import OBJECTIVES
from nmcmc.proposals import BATCH, rescore_error
from nmcmc.recipe import NetSettings, as_plain, build_sampler, default_steps, published, resolved
from nmcmc.sampler import AutoregressiveSampler
from nmcmc.training import Training, TrainSettings, train

NET_KEYS = {"patch": "patch", "prior": "prior", "net": "net", "net.width": "width", "net.layers": "layers",
            "net.heads": "heads", "net.head": "head"}  # fmt: skip
TRAIN_KEYS = {"train.steps": "steps", "train.batch": "batch", "train.microbatch": "microbatch",
              "train.lr": "learning_rate", "train.objective": "objective", "train.sweeps": "sweeps"}  # fmt: skip
# One thread, whatever the machine has: products of this size gain little from more and lose much when cores are busy,
# and the order of float sums, hence every bit of a chain, then does not depend on the number of cores.
torch.set_num_threads(1)

WORST_RESCORE = 1e-2  # nats; beyond this, cached and full passes are not the same law
CHECK_STATES = 4096
SEED_OF_CHECK = 10**6  # keeps the streams of --check apart from those of the run


@dataclass(frozen=True)
class Plan:
    """What will be trained or loaded: settings resolved before any work."""

    net: NetSettings
    train: TrainSettings
    data: str | None
    device: torch.device

    def plain(self) -> dict[str, Any]:
        """For the configuration of the run. A microbatch changes rounding only, the seed is the run's."""
        train = {key: value for key, value in as_plain(self.train).items() if key not in ("microbatch", "seed")}
        return {"net": as_plain(self.net), "train": train | {"data": self.data}}

    def digest(self) -> str:
        """Short hash of the recipe, for the name of the checkpoint."""
        return hashlib.sha256(json.dumps(self.plain(), sort_keys=True).encode()).hexdigest()[:8]


def make_plan(target: Target, mode: str, settings: dict[str, Any], seed: int, device: str) -> Plan:
    """Settings of the samplers; UserError for a patch, prior or device that does not fit."""
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no CUDA device is available; use --device cpu")
    where = torch.device("cuda" if device == "cuda" or (device == "auto" and torch.cuda.is_available()) else "cpu")
    net, training = NetSettings(), TrainSettings(seed=seed)
    if settings.get("train.recipe") == "published":
        net, training = published(net, training)
    net = replace(net, **{field: settings[key] for key, field in NET_KEYS.items() if settings.get(key) is not None})
    given = {field: settings[key] for key, field in TRAIN_KEYS.items() if settings.get(key) is not None}
    training = replace(training, **({"steps": default_steps(target.hamiltonian.n_spins)} | given))
    if training.microbatch > training.batch:
        training = replace(training, microbatch=training.batch)
    if mode == "prior":
        net = replace(net, net="none")
    try:
        net = resolved(target.hamiltonian, net)
        sampler = build_sampler(target.hamiltonian, target.betas[0], net)
    except ValueError as error:
        raise UserError(str(error)) from None
    data = settings.get("train.data")
    if mode != "prior" and sampler.network is not None and training.steps > 0:
        if training.objective in ("likelihood", "soft-likelihood"):
            for beta in target.betas:
                configurations_from(data, target, beta, training.objective)
        elif data is not None:
            raise UserError(
                f"train.data= goes with train.objective=likelihood or soft-likelihood, not {training.objective}"
            )
    return Plan(net, training, data, where)


def configurations_from(path: str | None, target: Target, beta: float, objective: str) -> np.ndarray:
    """Stored spins (n, N) of a chain file at one beta; UserError when there are none for this target."""
    if path is None:
        raise UserError(f"train.objective={objective} learns from configurations; give train.data=CHAIN.h5")
    try:
        chain = open_chain(path)
        if chain.hamiltonian().fingerprint != target.hamiltonian.fingerprint:
            raise UserError(f"train.data={path} holds states of another Hamiltonian")
    except ChainError as error:
        raise UserError(f"train.data: {error}") from None
    near = np.flatnonzero(np.abs(chain.betas - beta) < 1e-9)
    if chain.mode in ("nis", "prior") or not len(near) or not len(chain.spin_draws):
        raise UserError(
            f"train.data={path} has no equilibrium states at beta={beta:.10g} (with spins.every= above 0)"
        )
    return chain.spins[:, :, near[0]].reshape(-1, chain.n_spins)


def checkpoint_path(target: Target, beta: float, plan: Plan, out: Path) -> Path:
    """Beside the chain, named after the fingerprint, beta and recipe."""
    name = f"{target.model}-{target.hamiltonian.fingerprint[:10]}-beta{beta:.8g}-{plan.digest()}.pt"
    return out.parent / name


def checked_checkpoint(path: Path, target: Target, beta: float) -> Checkpoint:
    """The checkpoint of a --checkpoint option; UserError when it is missing, damaged or for another target."""
    try:
        checkpoint = load_checkpoint(path)
        require_target(path, checkpoint, target.hamiltonian, beta)
    except CheckpointError as error:
        raise UserError(str(error)) from None
    if not checkpoint.training.finished and not checkpoint.training.best_weights:
        raise UserError(f"checkpoint {path}: its training has not begun")
    return checkpoint


def train_sampler(
    target: Target, beta: float, plan: Plan, path: Path, screen: Screen, stop: Stopper, seconds: float
) -> tuple[AutoregressiveSampler, Training]:
    """The sampler of one beta from the checkpoint at `path`, trained on or from the start where needed."""
    lock = WriterLock(path.resolve())
    try:
        checkpoint = load_checkpoint(path) if path.exists() else None
        if checkpoint is not None:
            require_target(path, checkpoint, target.hamiltonian, beta)
            if checkpoint.training.finished:
                screen.say(
                    f"sampler: {path} (trained before, {checkpoint.training.step} steps; remove it to train anew)"
                )
                return checkpoint.sampler().to(plan.device), checkpoint.training
            screen.say(f"sampler: training goes on from {path}, step {checkpoint.training.step}")
        else:
            screen.say(f"sampler: training into {path}")
        settings = plan.train
        if checkpoint is not None:
            # The seed decides the random numbers of every step, so a training goes on with the one it began with.
            settings = replace(settings, seed=checkpoint.recipe["seed"])
        sampler = build_sampler(target.hamiltonian, beta, plan.net, seed=settings.seed).to(plan.device)
        objective = make_objective(sampler, settings, plan, target, beta)
        compile_kernels(objective)
        recipe = plan.plain() | {"seed": settings.seed}

        def save(training: Training) -> None:
            save_checkpoint(path, Checkpoint(target.hamiltonian, beta, plan.net, recipe, training))

        done = checkpoint.training.step if checkpoint else 0
        with screen.progress(f"training beta={beta:.6g}", settings.steps, done) as update:

            def report(training: Training, steps: int) -> None:
                update(
                    training.step, f"ESS {training.history['ess'][-1]:.3f} at step {training.history['step'][-1]:.0f}"
                )

            training = train(
                sampler, objective, settings, checkpoint.training if checkpoint else None,
                seconds=seconds, save=save, report=report, stop=lambda: stop.interrupted,
            )  # fmt: skip
        return sampler, training
    except (ChainError, CheckpointError, FloatingPointError) as error:
        raise UserError(str(error)) from None
    finally:
        lock.release()


def make_objective(sampler, settings: TrainSettings, plan: Plan, target: Target, beta: float):
    """The objective named in the settings."""
    kind = OBJECTIVES[settings.objective]
    if settings.objective == "soft-distillation":
        return kind(sampler, settings.sweeps)
    if settings.objective in ("likelihood", "soft-likelihood"):
        return kind(sampler, configurations_from(plan.data, target, beta, settings.objective))
    return kind(sampler)


def compile_kernels(objective=None) -> None:
    """Have Numba compile what a run will use, so that compilation is not counted as work."""
    independence_steps(np.zeros(1), np.zeros((1, 1)), np.zeros((1, 1)))
    if hasattr(objective, "moved"):
        objective.moved(np.ones((1, objective.sampler.tokens.n_spins), np.int8), np.random.default_rng(0))


def proposal_digest(sampler: AutoregressiveSampler) -> str:
    """Hash of the weights and settings that make q; a chain goes on only with the q it began with."""
    digest = hashlib.sha256(sampler.hamiltonian.fingerprint.encode())
    if sampler.network is not None:
        for name, parameter in sorted(sampler.network.state_dict().items()):
            digest.update(name.encode() + parameter.detach().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def seconds_of_draws(sampler: AutoregressiveSampler, draws: int) -> float:
    """Estimated wall seconds of sampling `draws` states, measured on one batch."""
    n = min(BATCH, draws)
    began = time.monotonic()
    sampler.sample(n, torch.Generator().manual_seed(0))
    return (time.monotonic() - began) / n * draws


def checked_rescore_error(sampler: AutoregressiveSampler, seed: int) -> float:
    """Rescoring difference on fresh draws; UserError when sampling and scoring are not the same law."""
    error = rescore_error(sampler, 256, seed)
    if not error <= WORST_RESCORE:
        raise UserError(
            f"log q of a state differs by {error:.2g} nats between sampling and scoring; at most {WORST_RESCORE}"
        )
    return error


def check_on_monte_carlo(
    sampler: AutoregressiveSampler, seconds: float, log_z: float, seed: int, screen: Screen
) -> dict[str, float]:
    """log q on equilibrium states of a cluster or tempering chain that runs for about `seconds`.

    ess_mc = Z / <w>_p and kl_forward = <ln w>_p ... - ln Z with the sign that makes it >= 0: <ln(p/q)>_p. Both see
    modes that the proposal dropped, which the ESS of its own draws cannot. log_z: exact, or the sampler's estimate.
    """
    hamiltonian, beta = sampler.hamiltonian, sampler.beta
    if hamiltonian.is_ferromagnet:
        driver, name = LocalDriver(hamiltonian, np.array([beta]), 4, seed + SEED_OF_CHECK, "wolff"), "Wolff"
        row = 0
    else:
        ladder = np.linspace(0.1 * beta, beta, 12) if beta > 0 else np.array([0.0])
        driver, name = TemperingDriver(hamiltonian, ladder, 4, seed + SEED_OF_CHECK), "parallel tempering"
        row = len(ladder) - 1
    driver.warm_up(10)  # compiles
    began, size, spins = time.monotonic(), 8, []
    driver.warm_up(1000)
    while True:
        spins.append(driver.block(size).spins[:, :, row])
        elapsed = time.monotonic() - began
        if elapsed > 0.8 * seconds and sum(s.shape[1] for s in spins) >= 64:
            break
        size = min(2 * size, 4096)
    chain = np.concatenate(spins, axis=1)
    chosen = np.unique(np.linspace(0, chain.shape[1] - 1, CHECK_STATES // 4).astype(int))
    states = chain[:, chosen].reshape(-1, chain.shape[2])
    screen.say(f"check: log q on {len(states)} states of {name} ({chain.shape[1]} sweeps of 4 chains)")
    log_ratio = -beta * hamiltonian.energy(states) - sampler.log_prob(states) - log_z  # ln p/q
    top = log_ratio.max()
    log_mean = top + math.log(np.exp(log_ratio - top).mean())
    return {"ess_mc": math.exp(-log_mean), "kl_forward": float(log_ratio.mean())}
