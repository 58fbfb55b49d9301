"""`nmcmc run`: from words to a chain file with results. Everything is checked before anything is written."""

from __future__ import annotations

import math
import shlex
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cli.arguments import Target, default_out
from cli.errors import UserError
from cli.output import Screen, Stopper
from cli.results import analyse, as_json, store, table
from cli.settings import NEURAL, SETTINGS
from mc.chain import ChainError, ChainWriter, create_chain, open_chain, resume_chain
from mc.record import record
from mc.simulate import LocalDriver
from mc.tempering import TemperingDriver

SEED_OF_RESCORE = 7


@dataclass
class Options:
    """Options of the command line, as given."""

    out: Path | None = None
    draws: int = 10_000
    chains: int = 4
    warmup: int | None = None
    thin: int = 1
    rng_seed: int = 0
    checkpoint: Path | None = None
    device: str = "auto"
    time_limit: float | None = None
    restart: bool = False
    check: bool = False
    quiet: bool = False
    json: bool = False


@dataclass
class Run:
    """One run while it goes on: what was asked, where it writes, and what its parts cost."""

    target: Target
    mode: str
    settings: dict[str, Any]
    options: Options
    screen: Screen
    out: Path
    warmup: int
    spins_every: int
    seconds: dict[str, float] = field(default_factory=lambda: {"build": 0.0, "train": 0.0, "sample": 0.0})
    began: float = field(default_factory=time.monotonic)
    extra: dict[str, Any] = field(default_factory=dict)
    plan: Any = None


def run(target: Target, mode: str, given: dict[str, Any], options: Options) -> int:
    """Do a run; returns the exit code. UserError for what cannot be done, before anything is written."""
    for option, value in (("--draws", options.draws), ("--chains", options.chains), ("--thin", options.thin)):
        if value < 1:
            raise UserError(f"{option} {value}: an integer of at least 1 is needed")
    for option, value in (("--warmup", options.warmup), ("--rng-seed", options.rng_seed)):
        if value is not None and value < 0:
            raise UserError(f"{option} {value}: an integer of at least 0 is needed")
    if options.time_limit is not None and not options.time_limit > 0:
        raise UserError(f"--time-limit {options.time_limit}: a number of seconds above 0 is needed")
    settings = {key: given.get(key, setting.default) for key, setting in SETTINGS.items() if mode in setting.modes}
    screen = Screen(options.quiet)
    out = options.out or default_out(target, mode)
    warmup = options.warmup if options.warmup is not None else (100 if mode in NEURAL else 1000)
    every = settings["spins.every"] if settings["spins.every"] is not None else default_spins_every(target, options)
    work = Run(target, mode, settings, options, screen, out, warmup, every)
    idle = [key for key in given if key not in settings]
    driver = check_before_work(work)
    deadline = work.began + options.time_limit if options.time_limit else math.inf
    try:
        with Stopper(deadline) as stop:
            writer = open_writer(work, variables(mode))
            with_lock = ChainGuard(writer)
            with with_lock:
                screen.say(f"out: {out}")
                for key in idle:
                    screen.say(f"note: {key}= has no effect in mode {mode}")
                if writer.warning:
                    screen.say(f"note: {writer.warning}")
                if writer.committed_draws >= options.draws and writer.complete:
                    screen.say(
                        f"complete: {writer.committed_draws} draws a chain are there; more with a larger --draws"
                    )
                    return finish(work, writer, stop)
                if mode in NEURAL:
                    driver = neural_driver(work, writer, stop)
                    if driver is None:
                        return finish(work, writer, stop)
                sample(work, driver, writer, stop)
                return finish(work, writer, stop)
    except ChainError as error:
        raise UserError(str(error)) from None


class ChainGuard:
    """Closes the writer at the end, whatever happened; what was committed stays."""

    def __init__(self, writer: ChainWriter):
        self.writer = writer

    def __enter__(self) -> ChainWriter:
        return self.writer

    def __exit__(self, *error) -> None:
        self.writer.close()


def default_spins_every(target: Target, options: Options) -> int:
    """Keep about a hundred million spins at most: every draw of a small run, thinned in a large one."""
    total = target.hamiltonian.n_spins * len(target.betas) * options.chains * options.draws
    return max(1, math.ceil(total / 100_000_000))


def variables(mode: str) -> dict[str, tuple]:
    """What the mode records beside energy and magnetization: {name: (own axes, dtype)}."""
    number = ({}, np.float64)
    if mode in ("nis", "prior"):
        return {"log_q": number, "log_weight": number}
    if mode in NEURAL:
        return {"log_q": number, "log_weight": number, "accepted": number, "log_weight_proposed": number}
    return {"accepted": number} | ({"swap_accepted": number} if mode == "pt" else {})


def check_before_work(work: Run):
    """Refuse what cannot be done; returns the classical driver, or None for a neural mode."""
    target, mode = work.target, work.mode
    if mode in NEURAL:
        from cli import neural

        work.plan = neural.make_plan(target, mode, work.settings, work.options.rng_seed, work.options.device)
        given = work.options.checkpoint
        if given is not None and mode != "train":
            if len(target.betas) > 1:
                raise UserError(
                    "--checkpoint goes with one beta; several have one checkpoint each, found by their names"
                )
            neural.checked_checkpoint(given, target, target.betas[0])
        return None
    if work.options.device == "cuda":
        raise UserError(f"--device cuda: mode {mode} runs on the CPU; leave --device out")
    try:
        return classical_driver(work)
    except ValueError as error:
        raise UserError(str(error).replace("rule=wolff", "mode wolff")) from None


def classical_driver(work: Run):
    """The driver of metropolis, heatbath, wolff or pt; ValueError when the model does not suit it."""
    target, options = work.target, work.options
    betas = np.array(target.betas)
    common = dict(
        n_chains=options.chains,
        seed=options.rng_seed,
        thin=options.thin,
        init=initial(work),
        spins_every=work.spins_every,
    )
    if work.mode == "pt":
        if len(betas) < 2:
            raise ValueError("mode pt: at least two temperatures are needed, such as beta=0.1:1:10")
        return TemperingDriver(target.hamiltonian, betas, **common)
    return LocalDriver(target.hamiltonian, betas, rule=work.mode, **common)


def initial(work: Run) -> str | np.ndarray:
    """init=random, up, or the last stored spins of a chain file of the same Hamiltonian and betas."""
    init = work.settings["init"]
    if init in ("random", "up"):
        return init
    try:
        chain = open_chain(init)
    except ChainError as error:
        raise UserError(f"init={init}: random, up or a chain file is needed ({error})") from None
    if not len(chain.spin_draws) or chain.n_spins != work.target.hamiltonian.n_spins:
        raise UserError(f"init={init} has no stored spins of {work.target.hamiltonian.n_spins} sites")
    last = chain.spins[:, -1]  # (chain, beta, N)
    if last.shape[:2] != (work.options.chains, len(work.target.betas)):
        raise UserError(f"init={init} has {last.shape[0]} chains at {last.shape[1]} betas; the run has others")
    return last


def configuration(work: Run) -> dict[str, Any]:
    """All that decides the draws, as JSON types."""
    target, options = work.target, work.options
    settings = {
        key: value for key, value in work.settings.items() if not key.startswith(("net", "train", "patch", "prior"))
    }
    settings |= {"spins.every": work.spins_every}
    config = {
        "mode": work.mode, "model": target.model, "parameters": target.parameters, "fingerprint": target.hamiltonian.fingerprint,
        "beta": list(target.betas), "chains": options.chains, "warmup": work.warmup, "thin": options.thin,
        "rng_seed": options.rng_seed, "settings": settings,
    }  # fmt: skip
    if work.plan is not None:
        config |= work.plan.plain()
        config["checkpoint"] = str(options.checkpoint) if options.checkpoint and work.mode != "train" else None
    return config


def open_writer(work: Run, extra_variables: dict[str, tuple]) -> ChainWriter:
    """A new chain file, or the one that is there if it holds the same run; UserError naming what differs."""
    config = configuration(work)
    if work.out.exists() and not work.options.restart:
        writer = resume_chain(work.out)
        difference = first_difference(writer.config, config)
        if difference:
            writer.close()
            raise UserError(
                f"{work.out} holds another run ({difference}); use --restart to replace it, or another --out"
            )
        return writer
    return create_chain(
        work.out, mode=work.mode, command=shlex.join(sys.argv), config=config, rng_seed=work.options.rng_seed,
        hamiltonian=work.target.hamiltonian, betas=np.array(work.target.betas), n_chains=work.options.chains,
        posterior={"energy": ({}, np.float64), "magnetization": ({}, np.float64)}, sample_stats=extra_variables,
        spins_every=work.spins_every, overwrite=work.options.restart,
    )  # fmt: skip


def first_difference(old: dict, new: dict, prefix: str = "") -> str:
    """ "key: old value, not new value" for the first entry that differs, "" when there is none."""
    for key in sorted(old.keys() | new.keys(), key=lambda k: (k == "fingerprint", k)):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found = first_difference(a, b, f"{prefix}{key}.")
            if found:
                return found
        elif a != b:
            return f"{prefix}{key} is {a}, not {b}"
    return ""


def neural_driver(work: Run, writer: ChainWriter, stop: Stopper):
    """Samplers of all betas, trained or loaded, and the driver of the mode; None when there is nothing to draw."""
    from cli import neural
    from nmcmc.importance import ImportanceDriver
    from nmcmc.metropolis import NeuralDriver

    target, options, plan = work.target, work.options, work.plan
    samplers, prior_ess = [], []
    for index, beta in enumerate(target.betas):
        clock = time.process_time()
        if work.mode == "prior" or plan.net.net == "none":
            samplers.append(neural.build_sampler(target.hamiltonian, beta, plan.net).to(plan.device))
            work.seconds["build"] += time.process_time() - clock
            continue
        if options.checkpoint is not None and work.mode != "train":
            checkpoint = neural.checked_checkpoint(options.checkpoint, target, beta)
            work.screen.say(f"sampler: {options.checkpoint} ({checkpoint.training.step} steps)")
            sampler, training = checkpoint.sampler().to(plan.device), checkpoint.training
            work.seconds["build"] += time.process_time() - clock
        else:
            path = options.checkpoint or neural.checkpoint_path(target, beta, plan, work.out)
            left = time_for_training(work, stop, len(target.betas) - index)
            sampler, training = neural.train_sampler(target, beta, plan, path, work.screen, stop, left)
        samplers.append(sampler)
        prior_ess.append(training.prior_ess)
        work.seconds["train"] += training.cpu_seconds
        if index == len(target.betas) - 1:
            history = {name: np.asarray(values) for name, values in training.history.items()}
            writer.set_group("training", history, {"beta": beta})
        if stop.interrupted:
            return None
    if prior_ess:
        work.extra["prior_ess"] = prior_ess
    digest = "".join(neural.proposal_digest(sampler) for sampler in samplers)
    before = writer.state().get("proposal")
    if before is not None and bytes(before) != digest.encode():
        raise UserError(f"{work.out} was begun with other weights; use --restart to replace it, or another --out")
    work.extra["rescore_error"] = [neural.checked_rescore_error(s, SEED_OF_RESCORE) for s in samplers]
    work.samplers = samplers
    if work.mode == "train":
        return None
    arguments = dict(n_chains=options.chains, seed=options.rng_seed, spins_every=work.spins_every)
    if work.mode == "nmcmc":
        driver = NeuralDriver(samplers, local=work.settings["local"], **arguments)
    else:
        driver = ImportanceDriver(samplers, **arguments)
    return Bound(driver, digest)


class Bound:
    """A neural driver whose state carries the digest of its proposals."""

    def __init__(self, driver, digest: str):
        self._driver, self._digest = driver, digest
        self.warm_up, self.block = driver.warm_up, driver.block

    def state(self) -> dict:
        return self._driver.state() | {"proposal": self._digest.encode()}

    def restore(self, state: dict) -> None:
        self._driver.restore(state)


def time_for_training(work: Run, stop: Stopper, betas_left: int) -> float:
    """Wall seconds the next training may take so that the asked draws still fit into the time limit."""
    if not math.isfinite(stop.deadline):
        return math.inf
    from cli import neural

    sampler = neural.build_sampler(work.target.hamiltonian, work.target.betas[0], work.plan.net).to(work.plan.device)
    draws = work.options.draws * work.options.chains * len(work.target.betas) if work.mode != "train" else 0
    needed = 1.3 * neural.seconds_of_draws(sampler, draws) if draws else 0.0
    checking = 0.2 * work.options.time_limit if work.options.check else 0.0
    return max(stop.deadline - time.monotonic() - needed - checking - 1.0, 0.0) / betas_left


def sample(work: Run, driver, writer: ChainWriter, stop: Stopper) -> None:
    """Draw until the chain is as long as asked, or stopped."""
    options = work.options
    clock = time.process_time()
    with work.screen.progress("sampling", options.draws, writer.committed_draws) as update:
        record(driver, writer, options.draws, work.warmup, stop=stop, report=lambda draws: update(draws))
    work.seconds["sample"] += time.process_time() - clock


def finish(work: Run, writer: ChainWriter, stop: Stopper) -> int:
    """Results into the file and onto the screen; how to go on when it is not complete."""
    options, screen = work.options, work.screen
    complete = writer.committed_draws >= options.draws or (work.mode == "train" and not stop.interrupted)
    chain = open_chain(work.out)
    results = analyse(chain, work.extra)
    samplers = getattr(work, "samplers", [])
    if options.check and samplers and not stop.interrupted:
        add_check(work, samplers, results)
    store(writer, results)
    writer.commit(complete=complete)
    chain = open_chain(work.out)
    work.seconds["wall"] = time.monotonic() - work.began
    for line in table(results):
        screen.say(line)
    screen.say("seconds (CPU): " + ", ".join(f"{name} {value:.1f}" for name, value in work.seconds.items() if name != "wall")
               + f"; wall {work.seconds['wall']:.1f}")  # fmt: skip
    if complete:
        screen.say(f"result: {work.out}; look at it with: nmcmc analyze {shlex.quote(str(work.out))}")
    else:
        why = "interrupted" if stop.interrupted else "the time limit came first"
        screen.say(f"{why}: {writer.committed_draws} of {options.draws} draws are committed in {work.out}; "
                   "the same command again goes on")  # fmt: skip
    if options.json:
        print(as_json("run", chain, results, work.seconds), flush=True)
    return 130 if stop.interrupted else 0


def add_check(work: Run, samplers, results) -> None:
    """--check: a Monte Carlo chain for a fifth of the time so far, and log q on its states."""
    from cli import neural

    seconds = 0.2 * (time.monotonic() - work.began) / len(samplers)
    rows = []
    for b, sampler in enumerate(samplers):
        exact = results.diagnostics["log_z_exact"][b]
        log_z = exact if math.isfinite(exact) else results.diagnostics.get("log_z", [math.nan] * (b + 1))[b]
        rows.append(neural.check_on_monte_carlo(sampler, seconds, log_z, work.options.rng_seed, work.screen))
    for name in rows[0]:
        results.diagnostics[name] = [row[name] for row in rows]
