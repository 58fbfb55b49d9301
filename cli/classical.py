"""Runs of the Monte Carlo engine: which driver a mode means, what it records, and what it says of itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from cli.errors import UserError
from cli.starts import start_of
from cli.vector_run import vector_driver
from cli.work import Run
from mc.annealing import AnnealingDriver
from mc.population import PopulationDriver
from mc.simulate import Driver, LocalDriver
from mc.tempering import FIRST_TUNING, TemperingDriver
from mc.vector.driver import VectorDriver
from mc.vector.hamiltonian import VectorHamiltonian


def classical_driver(work: Run) -> Driver:
    """The driver of a mode; ValueError when the model, the temperatures or a setting do not suit it."""
    hamiltonian, options, betas = work.target.hamiltonian, work.options, np.array(work.target.betas)
    settings, mode = work.settings, work.mode
    if isinstance(hamiltonian, VectorHamiltonian):
        return vector_driver(work)
    common: dict[str, Any] = dict(n_chains=options.chains, seed=options.rng_seed, thin=options.thin or 1,
                  spins_every=work.spins_every, kernel=settings.get("kernel", "auto"))  # fmt: skip
    if mode == "population":
        return PopulationDriver(hamiltonian, betas, population=options.draws, **common)
    if mode == "anneal":
        return AnnealingDriver(hamiltonian, betas, **common)
    common["init"] = initial(work)
    if mode == "pt":
        if len(betas) < 2:
            raise ValueError("mode pt: at least two temperatures are needed, such as beta=0.1:1:10")
        if settings["ladder"] == "tuned" and options.warmup is not None and options.warmup < FIRST_TUNING:
            raise ValueError(
                f"ladder=tuned: the betas are tuned in the warm-up; give --warmup {FIRST_TUNING} or more"
            )
        return TemperingDriver(
            hamiltonian, betas, replicas=settings["replicas"], houdayer=settings["houdayer"] == "auto",
            tuned=settings["ladder"] == "tuned", **common,
        )  # fmt: skip
    if mode in ("wolff", "swendsen-wang") and not hamiltonian.is_ferromagnet:
        raise ValueError(f"mode {mode}: a ferromagnet is needed (two-spin interactions, all J > 0, no field); "
                         "use --mode metropolis or pt")  # fmt: skip
    return LocalDriver(hamiltonian, betas, rule=mode, **common)


def initial(work: Run) -> str | np.ndarray:
    """init=random, up, or the last stored spins of a chain file with as many chains, betas and replicas."""
    init, chain = work.settings["init"], start_of(work, ("random", "up"))
    if isinstance(chain, str):
        return chain
    if not len(chain.spin_draws) or chain.n_spins != work.target.hamiltonian.n_spins:
        raise UserError(f"init={init} has no stored spins of {work.target.hamiltonian.n_spins} sites")
    last = chain.spins[:, -1]
    replicas = work.settings.get("replicas", 1)
    wanted = (work.options.chains, len(work.target.betas), *([replicas] if replicas > 1 else []))
    if last.shape[:-1] != wanted:
        there, run = ((*shape[:2], shape[2] if len(shape) > 2 else 1) for shape in (last.shape[:-1], wanted))
        said = [f"{chains} chains at {betas} betas, {own} replicas" for chains, betas, own in (there, run)]
        raise UserError(f"init={init} has {said[0]}, the run {said[1]}")
    return last


def tempers(driver: Driver) -> bool:
    """Whether replicas exchange temperatures."""
    return isinstance(driver, TemperingDriver) or (isinstance(driver, VectorDriver) and driver.exchange)


def describe(driver: Driver) -> list[str]:
    """What moves the spins, and why."""
    return [f"kernel: {driver.engine.name} ({driver.engine.why})"]


def afterwards(driver: Driver) -> list[str]:
    """What the run found out about its own moves."""
    lines = []
    if tempers(driver):
        if driver.tuned:
            lines.append(f"tuned betas: {', '.join(f'{beta:.6g}' for beta in driver.betas)}")
        if isinstance(driver, TemperingDriver) and driver.houdayer:
            moved = driver.betas[driver.clusters]
            where = f"at beta {', '.join(f'{beta:.6g}' for beta in moved)}" if len(moved) else "at no beta"
            why = "skipped where the warm-up saw a minority of 0.3 or more of the sites"
            if not driver.was_watched:
                why = "where they help is seen in the warm-up, and there was none"
            lines.append(f"Houdayer moves: {where}; {why}")
        lines.append(f"round trips: {driver.round_trips.sum()}, by {driver.round_trips.size} replicas")
    return lines


def found(driver: Driver) -> dict[str, Any]:
    """Diagnostics that cannot be read off the draws."""
    lowest = {"lowest_energy": driver.lowest.energy} if np.isfinite(driver.lowest.energy) else {}
    if tempers(driver):
        return lowest | {"round_trips": float(driver.round_trips.sum())}
    return lowest
