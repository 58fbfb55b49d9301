"""What a neural run will do, settled before any work: settings of the samplers, or what a pilot makes of them."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import cli.threads  # noqa: F401  (one for torch)
from cli import any_order
from cli.arguments import Target
from cli.environments import Environments, check_memory, fits_memory
from cli.errors import UserError
from cli.output import duration
from cli.settings import COOLED, LEARNING
from cli.work import Run
from mc.chain import ChainError, open_chain
from mc.hamiltonian import Hamiltonian
from nmcmc.annealing import OBJECTIVES as ANNEALED
from nmcmc.annealing import AnnealSettings
from nmcmc.block_move import block_refusal
from nmcmc.checkpoint import Checkpoint, CheckpointError, load_checkpoint, require_target, retargeted
from nmcmc.distillation import DistillSettings
from nmcmc.objectives.refined import SWEEPS as REFINING_SWEEPS
from nmcmc.pilot import LADDER, Choice, choose_network, choose_prior
from nmcmc.priors.belief import belief_refusal
from nmcmc.recipe import (
    NetSettings,
    as_plain,
    build_sampler,
    default_steps,
    net_from_plain,
    published,
    require_backend,
    resolved,
)
from nmcmc.sampler import AutoregressiveSampler
from nmcmc.tokens import MAX_SPINS_A_TOKEN
from nmcmc.training import TrainSettings, sized

NET_KEYS = {"patch": "patch", "prior": "prior", "prior.chi": "chi", "prior.form": "form", "prior.sweeps": "sweeps",
            "net": "net", "net.window": "window", "net.width": "width", "net.layers": "layers", "net.heads": "heads",
            "net.head": "head", "net.mask": "mask", "net.position": "position", "net.backend": "backend",
            "net.precision": "precision", "net.order": "order"}  # fmt: skip
TRAIN_KEYS = {"train.steps": "steps", "train.batch": "batch", "train.microbatch": "microbatch",
              "train.lr": "learning_rate", "train.objective": "objective", "train.sweeps": "sweeps",
              "train.reuse": "reuse", "train.weight": "weight", "train.states": "states",
              "train.optimizer": "optimizer", "train.any": "any_order"}  # fmt: skip
FROM_CONFIGURATIONS = ("likelihood", "soft-likelihood", "any-order")
OF_TOKENS = ("reverse-kl", "rtgs")  # need the energy of every value of a token
OF_REFINED = ("refined", "modified-gradient")
ANNEALED_WINDOW, ANNEALED_BATCH, ANNEALED_RATE = 4, 64, 0.05  # where a neural-anneal is not asked for others
DECIDE_THE_NET = ("net", "prior", "patch", "target_ess", "train")  # first words of settings that the sampler hangs on
OF_AN_OBJECTIVE = {"train.objective", "train.sweeps", "train.reuse"}  # settings that ask for one
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
    anneal, distill: of these modes. fields: that a network of many temperatures is also trained at.
    """

    net: NetSettings
    train: TrainSettings
    data: str | None
    device: torch.device
    asked: dict[str, Any]
    checkpoint: Checkpoint | None = None
    anneal: AnnealSettings | None = None
    distill: DistillSettings | None = None
    fields: tuple[float, ...] | None = None

    @property
    def shared(self) -> bool:
        """Whether one network serves all temperatures of the run."""
        return self.net.betas is not None

    def plain(self) -> dict[str, Any]:
        """For the configuration of the run. A microbatch changes rounding only, the seed is the run's."""
        if self.checkpoint is not None:
            return {"net": as_plain(self.net), "train": self.checkpoint.recipe.get("train", {})}
        train = {key: value for key, value in as_plain(self.train).items() if key not in ("microbatch", "seed")}
        own = {name: json.loads(json.dumps(asdict(settings))) for name in ("anneal", "distill")
               if (settings := getattr(self, name)) is not None}  # fmt: skip
        if self.fields is not None:
            train["fields"] = list(self.fields)
        return {"net": as_plain(self.net), "train": train | {"data": self.data}} | own

    def digest(self) -> str:
        """Short hash of the recipe, for the name of the checkpoint."""
        return hashlib.sha256(json.dumps(self.plain(), sort_keys=True).encode()).hexdigest()[:8]


def make_plan(work: Run, environments: Environments) -> Plan:
    """Settings of the samplers; UserError for a patch, prior, device or checkpoint that does not fit.

    What is left open is decided by a pilot, or read from the chain file that will go on.
    """
    target, mode, options = work.target, work.mode, work.options
    given = {key: value for key, value in work.given.items() if key in work.settings}  # those that act in this mode
    if target.hamiltonian.n_up is not None:
        raise UserError("a neural sampler draws all compositions; with composition= use --mode metropolis or pt "
                        "(without neural=), or give h= instead")  # fmt: skip
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no CUDA device is available; use --device cpu")
    use_cuda = options.device != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if use_cuda else "cpu")
    if options.checkpoint is not None and mode not in LEARNING:
        return loaded_plan(options.checkpoint, target, given, device)
    net, training = NetSettings(), TrainSettings(seed=options.rng_seed)
    published_recipe = given.get("train.recipe") == "published"
    if published_recipe:
        net, training = published(net, training)
    net_keys = {field: given[key] for key, field in NET_KEYS.items() if key in given and given[key] != "auto"}
    if OF_LINEAR & given.keys() and "net" not in given:
        net_keys["net"] = "linear"
    train_keys = {field: given[key] for key, field in TRAIN_KEYS.items() if key in given}
    net_keys, train_keys = any_order.with_defaults(given, net_keys, train_keys, target, options.rng_seed)
    net = replace(net, **net_keys) if mode != "prior" else replace(net, **net_keys | {"net": "none"})
    n_spins = target.hamiltonian.n_spins
    if mode == COOLED:
        net_keys, train_keys = anneal_defaults(target.hamiltonian, net_keys, train_keys)
        net = replace(net, **net_keys)
    elif training.objective in OF_REFINED or train_keys.get("objective") in OF_REFINED:
        train_keys = {"sweeps": REFINING_SWEEPS} | train_keys
    training = sized(replace(training, **({"steps": default_steps(n_spins)} | train_keys)), n_spins)
    try:
        net = resolved(target.hamiltonian, net)
        require_backend(target.hamiltonian, net, device)
    except ValueError as error:
        raise UserError(str(error)) from None
    if mode in (*LEARNING, COOLED) and net.net == "none":
        raise UserError("net=none: a prior alone has nothing to train; use --mode prior, or leave net= out")
    if mode == COOLED:
        return Plan(net, training, None, device, {}, anneal=anneal_settings(work, training))
    if net.net == "transformer" and net.head == "spin" and not OF_AN_OBJECTIVE & given.keys():
        training = replace(training, objective="soft-likelihood")  # data are cheap, and find all modes
    if net.net == "transformer" and training.objective in OF_TOKENS and math.prod(net.patch) > MAX_SPINS_A_TOKEN:
        raise UserError(f"train.objective={training.objective}: at most {MAX_SPINS_A_TOKEN} spins a token; choose a "
                        "smaller patch=, or train.objective=refined")  # fmt: skip
    data = given.get("train.data")
    learns = net.net == "linear" or (net.net != "none" and training.objective in FROM_CONFIGURATIONS)
    if net.betas is not None and data is not None:
        raise UserError("train.data= is for one temperature; a network with net.shared=yes makes its own states")
    if data == "self" and training.objective == "any-order":
        raise UserError("train.data=self: objective any-order learns from states of the target; give a chain file")
    if learns and data not in (None, "self"):
        for beta in target.betas:
            configurations_from(data, target, beta)
    elif data is not None and not learns:
        expected = " or ".join((*FROM_CONFIGURATIONS, "net=linear"))
        raise UserError(f"train.data={data} goes with train.objective={expected}, not {training.objective}")
    asked = {key: value for key, value in as_plain_values(given).items() if key.split(".")[0] in DECIDE_THE_NET}
    # A setting of the network or its training asks for one.
    network_open = mode in ("nmcmc", "nis", "pt") and not any(key.split(".")[0] in ("net", "train") for key in given)
    asked["net_open"] = network_open
    prior_open = net.prior == "boundary-mps" and not {"prior", "prior.chi"} & {k for k in given if given[k] != "auto"}
    if net.prior == "boundary-mps" and not prior_open:
        check_memory(target.hamiltonian, net)
    if network_open or prior_open:
        stored = stored_choice(work, asked)
        net, states = stored or pilot_choice(work, net, environments, prior_open, network_open)
        if training.states is None:
            training = replace(training, states=states)
    distill = distill_settings(work, given) if mode == "distill" else None
    return Plan(net, training, data, device, asked, distill=distill, fields=given.get("net.fields"))


def anneal_defaults(hamiltonian: Hamiltonian, net: dict[str, Any], train: dict[str, Any]) -> tuple[dict, dict]:
    """Settings of sampler and training of a neural-anneal, given ones included; UserError for a prior too slow."""
    if net.get("prior") == "boundary-mps":
        raise UserError("prior=boundary-mps: every temperature would build its environment anew; use prior=belief")
    if train.get("objective", "refined") not in ANNEALED:
        raise UserError(f"train.objective={train['objective']}: mode {COOLED} takes {' or '.join(ANNEALED)}")
    prior = "local" if belief_refusal(hamiltonian) else "belief"
    net = {"prior": prior, "net": "linear"} | net
    if net["net"] == "linear":
        net = {"window": ANNEALED_WINDOW} | net
    rate = ANNEALED_RATE if net["net"] == "linear" else TrainSettings().learning_rate
    train = {"objective": "refined", "batch": ANNEALED_BATCH, "learning_rate": rate, "schedule": "constant"} | train
    return net, train


def anneal_settings(work: Run, training: TrainSettings) -> AnnealSettings:
    """Those of the mode; `local` has its own default there."""
    settings = work.settings
    if "local" not in work.given:
        settings["local"] = AnnealSettings.local
    betas = tuple(settings["anneal.betas"])
    updates = settings["anneal.warmup"], settings["anneal.updates"]
    return AnnealSettings(betas, *updates, settings["local"], settings["anneal.last"])


def distill_settings(work: Run, given: dict[str, Any]) -> DistillSettings:
    """Those of the mode; UserError for none that refines."""
    if given.get("train.sweeps") == 0:
        raise UserError("train.sweeps=0: mode distill learns from refined states; give at least 1")
    if given.get("net") in any_order.NETS:
        raise UserError(f"mode distill: net={given['net']} learns from states of any order; use --mode train or nis")
    states = given.get("train.states", DistillSettings.states)
    rounds, source = work.settings["distill.rounds"], work.settings["distill.from"]
    return DistillSettings(rounds, states, source, given.get("train.sweeps"))


def as_plain_values(given: dict[str, Any]) -> dict[str, Any]:
    """Settings as JSON types."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in given.items()}


def stored_choice(work: Run, asked: dict[str, Any]) -> tuple[NetSettings, int | None] | None:
    """What the pilot of the chain file that will go on decided, if it was asked the same."""
    if work.there is None or work.options.restart:
        return None
    config = work.there.config
    same = config.get("fingerprint") == work.target.hamiltonian.fingerprint and config.get("mode") == work.mode
    betas = config.get("offered", config.get("beta"))  # those that have a sampler
    same = same and betas == list(work.target.betas) and config.get("asked") == asked
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
    try:
        checkpoint = load_checkpoint(path)
        if len(target.betas) > 1 and checkpoint.net.betas is None:
            raise CheckpointError(
                f"--checkpoint {path} goes with one beta; leave it out to have one checkpoint for each, found by name"
            )
        for beta in reversed(target.betas):
            checkpoint = retargeted(path, checkpoint, target.hamiltonian, beta)
    except CheckpointError as error:
        raise UserError(str(error)) from None
    if not checkpoint.training.best_weights:
        raise UserError(f"checkpoint {path}: its training has not begun; train it first, or leave --checkpoint out")
    for key, field in NET_KEYS.items():
        theirs = getattr(checkpoint.net, field)
        if key != "net.backend" and given.get(key, "auto") not in ("auto", theirs):
            said = "x".join(map(str, theirs)) if isinstance(theirs, tuple) else theirs
            raise UserError(f"{key}= does not fit checkpoint {path}, which has {key}={said}; leave it out")
    # The backend is no part of the law: another machine may lack the one that it was trained with.
    net = replace(checkpoint.net, backend=given.get("net.backend", "auto"))
    try:
        require_backend(target.hamiltonian, net, device)
    except ValueError as error:
        raise UserError(str(error)) from None
    return Plan(net, TrainSettings(), None, device, {}, replace(checkpoint, net=net))


def configurations_from(path: str, target: Target, beta: float) -> np.ndarray:
    """Stored spins (n, N) of a chain file at one beta; UserError when there are none for this target."""
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
    """A checkpoint trained for this target; UserError when it is missing, damaged or for another one."""
    try:
        checkpoint = load_checkpoint(path)
        require_target(path, checkpoint, target.hamiltonian, beta)
    except CheckpointError as error:
        raise UserError(str(error)) from None
    return checkpoint
