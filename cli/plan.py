"""What a neural run will do, settled before any work: settings of the samplers, or what a pilot makes of them."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import cli.threads  # noqa: F401  (one for torch)
from cli.arguments import Target
from cli.environments import Environments, check_memory, fits_memory
from cli.errors import UserError
from cli.output import duration
from cli.work import Run
from mc.chain import ChainError, open_chain
from nmcmc.block_move import block_refusal
from nmcmc.checkpoint import Checkpoint, CheckpointError, load_checkpoint, require_target
from nmcmc.pilot import LADDER, Choice, choose_network, choose_prior
from nmcmc.recipe import NetSettings, as_plain, build_sampler, default_steps, net_from_plain, published, resolved
from nmcmc.sampler import AutoregressiveSampler
from nmcmc.training import TrainSettings, sized

NET_KEYS = {"patch": "patch", "prior": "prior", "prior.chi": "chi", "prior.form": "form", "prior.sweeps": "sweeps",
            "net": "net", "net.window": "window", "net.width": "width", "net.layers": "layers", "net.heads": "heads",
            "net.head": "head"}  # fmt: skip
TRAIN_KEYS = {"train.steps": "steps", "train.batch": "batch", "train.microbatch": "microbatch",
              "train.lr": "learning_rate", "train.objective": "objective", "train.sweeps": "sweeps",
              "train.reuse": "reuse", "train.states": "states"}  # fmt: skip
FROM_CONFIGURATIONS = ("likelihood", "soft-likelihood")
DECIDE_THE_NET = ("net", "prior", "patch", "target_ess", "train")  # first words of settings that the sampler hangs on
OF_LINEAR = {"net.window", "train.states"}  # settings that ask for a linear residual
DEFAULT_STATES = 40_000
POOR_ESS = 0.5  # of a pilot, below which another move is worth a try
LONG_DRAWING = 300.0  # seconds that are worth a word
SHARE_OF_SAMPLING = 0.5  # of a time limit, for the draws
SEED_OF_PILOT = 2**30


@dataclass(frozen=True)
class Plan:
    """What will be trained or loaded: settings resolved before any work. checkpoint: the one loaded, if any.

    asked: the settings of the sampler as given, from which a pilot may have made `net`.
    """

    net: NetSettings
    train: TrainSettings
    data: str | None
    device: torch.device
    asked: dict[str, Any]
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


def make_plan(work: Run, environments: Environments) -> Plan:
    """Settings of the samplers; UserError for a patch, prior, device or checkpoint that does not fit.

    What is left open is decided by a pilot, or read from the chain file that will go on.
    """
    target, mode, options = work.target, work.mode, work.options
    given = {key: value for key, value in work.given.items() if key in work.settings}  # those that act in this mode
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no CUDA device is available; use --device cpu")
    use_cuda = options.device != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if use_cuda else "cpu")
    if options.checkpoint is not None and mode != "train":
        return loaded_plan(options.checkpoint, target, given, device)
    net, training = NetSettings(), TrainSettings(seed=options.rng_seed)
    published_recipe = given.get("train.recipe") == "published"
    if published_recipe:
        net, training = published(net, training)
    net_keys = {field: given[key] for key, field in NET_KEYS.items() if key in given and given[key] != "auto"}
    if OF_LINEAR & given.keys() and "net" not in given:
        net_keys["net"] = "linear"
    net = replace(net, **net_keys) if mode != "prior" else replace(net, **net_keys | {"net": "none"})
    train_keys = {field: given[key] for key, field in TRAIN_KEYS.items() if key in given}
    n_spins = target.hamiltonian.n_spins
    training = sized(replace(training, **({"steps": default_steps(n_spins)} | train_keys)), n_spins)
    try:
        net = resolved(target.hamiltonian, net)
    except ValueError as error:
        raise UserError(str(error)) from None
    if mode == "train" and net.net == "none":
        raise UserError("net=none: a prior alone has nothing to train; use --mode prior, or leave net= out")
    data = given.get("train.data")
    if net.net == "transformer" and training.objective in FROM_CONFIGURATIONS:
        for beta in target.betas:
            configurations_from(data, target, beta, training.objective)
    elif net.net == "linear" and data not in (None, "self"):
        for beta in target.betas:
            configurations_from(data, target, beta, "net=linear")
    elif data is not None and net.net != "linear":
        expected = " or ".join((*FROM_CONFIGURATIONS, "net=linear"))
        raise UserError(f"train.data={data} goes with train.objective={expected}, not {training.objective}")
    asked = {key: value for key, value in as_plain_values(given).items() if key.split(".")[0] in DECIDE_THE_NET}
    # A setting of the network or its training asks for one.
    network_open = mode in ("nmcmc", "nis") and not any(key.split(".")[0] in ("net", "train") for key in given)
    asked["net_open"] = network_open
    prior_open = net.prior == "boundary-mps" and not {"prior", "prior.chi"} & {k for k in given if given[k] != "auto"}
    if net.prior == "boundary-mps" and not prior_open:
        check_memory(target.hamiltonian, net)
    if network_open or prior_open:
        stored = stored_choice(work, asked)
        net, states = stored or pilot_choice(work, net, environments, prior_open, network_open)
        if training.states is None:
            training = replace(training, states=states)
    return Plan(net, training, data, device, asked)


def as_plain_values(given: dict[str, Any]) -> dict[str, Any]:
    """Settings as JSON types."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in given.items()}


def stored_choice(work: Run, asked: dict[str, Any]) -> tuple[NetSettings, int | None] | None:
    """What the pilot of the chain file that will go on decided, if it was asked the same."""
    if work.there is None or work.options.restart:
        return None
    config = work.there.config
    same = config.get("fingerprint") == work.target.hamiltonian.fingerprint and config.get("mode") == work.mode
    same = same and config.get("beta") == list(work.target.betas) and config.get("asked") == asked
    try:
        return (net_from_plain(config["net"]), config["train"]["states"]) if same else None
    except (KeyError, TypeError):
        return None


def pilot_choice(
    work: Run, net: NetSettings, environments: Environments, prior_open: bool, network_open: bool
) -> tuple[NetSettings, int | None]:
    """Prior, bond and network from a pilot at every beta, as the hardest of them needs; and states for a fit."""
    target, options, screen = work.target, work.options, work.screen
    work.say_out()
    target_ess = work.settings["target_ess"]
    # A training is for draws to come: as many as the default of a run.
    states = (options.draws + options.warmup) * options.chains if options.draws else DEFAULT_STATES
    seconds = SHARE_OF_SAMPLING * options.time_limit if options.time_limit else math.inf
    seed = int(np.random.SeedSequence(options.rng_seed, spawn_key=(SEED_OF_PILOT,)).generate_state(1)[0])
    hardest = None
    for beta in target.betas:

        def build(trial: NetSettings, beta: float = beta) -> AutoregressiveSampler:
            environment = environments.get(target.hamiltonian, beta, trial, keep=False)
            return build_sampler(target.hamiltonian, beta, replace(trial, net="none"), environment=environment)

        least = hardest.net.chi if hardest else 0
        bonds = (net.chi,)
        if prior_open:
            fitting = [chi for chi in LADDER if fits_memory(target.hamiltonian, replace(net, chi=chi))]
            bonds = tuple(chi for chi in fitting if chi >= least) or LADDER[:1]
        pilot = choose_prior(target.hamiltonian, net, target_ess, states, seconds, seed, build, screen.say, bonds)
        if hardest is None or pilot.net.chi > hardest.net.chi or pilot.expected_ess < hardest.expected_ess:
            hardest = pilot
    choice = Choice(replace(hardest.net, net=net.net), None, "")
    if network_open:
        choice = choose_network(target.hamiltonian, hardest, target_ess)
        screen.say(choice.why)
    work.extra["pilot_ess"] = hardest.ess
    chosen = choice.net
    bond = f" prior.chi={chosen.chi} prior.form={chosen.form}" if chosen.prior == "boundary-mps" else ""
    screen.say(f"sampler: prior={chosen.prior}{bond} net={chosen.net}")
    if hardest.expected_ess < POOR_ESS and work.mode == "nmcmc" and not block_refusal(target.hamiltonian):
        screen.say(
            "hint: this prior is poor here; move=block, which keeps one row and draws the rest, may be far better"
        )
    drawing = states * hardest.seconds * len(target.betas)
    if drawing > LONG_DRAWING and not options.time_limit:
        screen.say(
            f"{states} states will take about {duration(drawing)}; --draws, --chains or --time-limit make it less"
        )
    return chosen, choice.states


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
        if given.get(key, "auto") not in ("auto", theirs):
            said = "x".join(map(str, theirs)) if isinstance(theirs, tuple) else theirs
            raise UserError(f"{key}= does not fit checkpoint {path}, which has {key}={said}; leave it out")
    return Plan(checkpoint.net, TrainSettings(), None, device, {}, checkpoint)


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
