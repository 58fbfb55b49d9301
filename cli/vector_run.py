"""Runs of vector spins: the driver that a mode means, and where it starts."""

from __future__ import annotations

from typing import Any

import numpy as np

from cli.errors import UserError
from cli.settings import KINETIC
from cli.starts import start_of
from cli.work import Run
from mc.tempering import FIRST_TUNING
from mc.vector.driver import VectorDriver
from mc.vector.hamiltonian import VectorHamiltonian
from mc.vector.kinetic import KineticDriver
from mc.vector.starts import WORDS

SYMMETRIC_PART = (
    "note: J is asymmetric, and energies know its symmetric part (J + J^T)/2 only, which is what is sampled; "
    "--mode kinetic has all of it"
)


def vector_driver(work: Run) -> VectorDriver | KineticDriver:
    """The driver of a mode; ValueError when the energy, the temperatures or a setting do not suit it."""
    hamiltonian, options, settings, mode = work.target.hamiltonian, work.options, work.settings, work.mode
    betas = np.array(work.target.betas)
    if work.given.get("neural", "off") != "off":
        raise UserError(f"neural={work.given['neural']}: samplers draw Ising spins; leave it out for vector spins")
    common: dict[str, Any] = dict(n_chains=options.chains, seed=options.rng_seed, thin=options.thin or 1,
                                  spins_every=work.spins_every, init=initial(work))  # fmt: skip
    if mode == KINETIC:
        return KineticDriver(hamiltonian, betas, lags=settings["lags"], **common)
    tempering = mode == "pt"
    if tempering and len(betas) < 2:
        raise ValueError("mode pt: at least two temperatures are needed, such as beta=0.1:1:10")
    tuned = tempering and settings["ladder"] == "tuned"
    if tuned and options.warmup is not None and options.warmup < FIRST_TUNING:
        raise ValueError(f"ladder=tuned: the betas are tuned in the warm-up; give --warmup {FIRST_TUNING} or more")
    return VectorDriver(
        hamiltonian, betas, rule=rule_of(work), replicas=settings["replicas"], exchange=tempering, tuned=tuned,
        proposal=settings.get("proposal", "local"), overrelax=settings["overrelax"], **common,
    )  # fmt: skip


def rule_of(work: Run) -> str:
    """What moves the spins: the mode, or rule= of tempering, which has a default."""
    usual = "metropolis" if work.target.hamiltonian.form == "loss" else "heatbath"
    return (work.settings["rule"] or usual) if work.mode == "pt" else work.mode


def initial(work: Run) -> str | np.ndarray:
    """init=random, up or field, or the last stored spins of a chain file with as many chains, betas and replicas."""
    init, chain = work.settings["init"], start_of(work, WORDS)
    if isinstance(chain, str):
        return chain
    size = work.target.hamiltonian.fields.shape
    replicas = work.settings.get("replicas", 1)
    wanted = (work.options.chains, len(work.target.betas), *([replicas] if replicas > 1 else []), *size)
    spins = chain.spins
    if not spins.shape[1] or (spins.shape[0], *spins.shape[2:]) != wanted:
        shape = f"(chain, beta{', replica' * (replicas > 1)}, N, D) = {wanted}"
        raise UserError(f"init={init} has no stored spins {shape}, which the run needs")
    return spins[:, -1]


def describe(work: Run) -> list[str]:
    """What a reader must know of the energy before the draws."""
    hamiltonian = work.target.hamiltonian
    if not isinstance(hamiltonian, VectorHamiltonian):
        return []
    asymmetric = not hamiltonian.is_symmetric and hamiltonian.form == "bilinear"
    lines = [SYMMETRIC_PART] if asymmetric and work.mode != KINETIC else []
    if "proposal" in work.given and work.mode == "pt" and rule_of(work) == "heatbath":
        lines.append("note: proposal= has no effect with rule=heatbath")
    driver_tunes = work.mode in ("metropolis", "pt") and rule_of(work) == "metropolis"
    if driver_tunes and work.options.warmup == 0:
        lines.append("note: the steps of moves are tuned in the warm-up, and there is none")
    return lines
