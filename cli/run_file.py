"""The chain file of a run: what decides its draws, what it is made for, and whether one that is there goes on."""

from __future__ import annotations

import math
import os
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np

from cli.arguments import Target
from cli.configuration import first_difference
from cli.errors import UserError
from cli.options import Options
from cli.results import opened
from cli.settings import CLASSICAL, COOLED, MEAN_FIELD
from cli.work import Run
from mc.chain import Chain, ChainError, ChainWriter, create_chain, resume_chain
from mc.chain_hamiltonian import spin_axes as axes_of_a_state
from mc.chain_hamiltonian import spin_type
from mc.chain_lock import WriterLock, writable_target
from mc.hamiltonian import Hamiltonian
from mc.measure import of_spins
from mc.simulate import Driver
from mc.vector.hamiltonian import VectorHamiltonian

MOST_SPINS = 100_000_000  # bytes kept by default, all draws together
NUMBER = ({}, np.float64)  # own axes, type
POPULATIONS = ("population", "sequential")  # modes whose draws are the members, made by a schedule
OFFERS = ("neural_accepted", "log_weight_proposed")  # statistics of neural moves in tempering


def chain_there(out: Path) -> Chain | None:
    """The chain file at `out`, if any; UserError when it is none, is being written, or none can be made there."""
    try:
        WriterLock(writable_target(out)).release()
    except ChainError as error:
        raise UserError(str(error)) from None
    if not os.path.exists(out):
        return None
    try:
        return opened(out)
    except UserError as error:  # not replaced even by --restart
        raise UserError(f"{error}; remove it, or use another --out") from None


def spins_every(target: Target, settings: dict[str, Any], options: Options, there: Chain | None) -> int:
    """How often spins are kept: as asked, else as in the file that will be extended, else so that they fit a disk."""
    if settings.get("spins.every") is not None:
        return settings["spins.every"]
    if there is not None and not options.restart:
        return there.config.get("settings", {}).get("spins.every", 1)
    states = settings.get("replicas", 1) * len(target.betas) * options.chains * max(options.draws, 1)
    return max(1, math.ceil(bytes_of_a_state(target.hamiltonian) * states / MOST_SPINS))


def bytes_of_a_state(hamiltonian: Hamiltonian | VectorHamiltonian) -> int:
    """What the spins of one state take in a chain file."""
    return math.prod(axes_of_a_state(hamiltonian).values()) * np.dtype(spin_type(hamiltonian)).itemsize


def configuration(work: Run) -> dict[str, Any]:
    """All that decides the draws, as JSON types."""
    target, options = work.target, work.options
    outside = ("net", "train", "patch", "prior", "target_ess", "kernel")  # resolved: in the plan, by the engine
    settings = {key: value for key, value in work.settings.items() if key.split(".")[0] not in outside}
    if work.mode in POPULATIONS:  # their size is no number of draws that could grow
        settings["population"] = options.draws
    config = {
        "mode": work.mode, "model": target.model, "parameters": target.hamiltonian.parameters,
        "fingerprint": target.hamiltonian.fingerprint, "beta": list(target.betas), "chains": options.chains,
        "warmup": options.warmup, "thin": options.thin, "rng_seed": options.rng_seed,
        "settings": settings | {"spins.every": work.spins_every},
    }  # fmt: skip
    if "neural" in work.settings:
        config["offered"] = list(work.target.betas if work.settings["neural"] == "all" else [max(target.betas)])
    return config if work.plan is None else config | work.plan.plain() | {"asked": work.plan.asked}


def contents(work: Run, driver: Driver | None) -> dict[str, Any]:
    """What the chain file is made for: sampled variables and axes of the spins."""
    if work.mode in CLASSICAL:
        return {
            "posterior": {name: (axes, np.float64) for name, axes in driver.posterior_axes.items()},
            "sample_stats": dict.fromkeys((*driver.stat_names, *OFFERS * ("neural" in work.settings)), NUMBER),
            "spin_axes": driver.spin_axes,
        }
    if work.mode == MEAN_FIELD:
        return {"posterior": {}, "sample_stats": {}}
    stats = {"nis": ("log_q", "log_weight"), "prior": ("log_q", "log_weight"), COOLED: ("log_q", "log_weight")}
    names = stats.get(work.mode, ("log_q", "log_weight", "accepted", "log_weight_proposed"))
    if work.settings.get("move") == "block":
        names = ("accepted", "log_ratio")
    hamiltonian = work.target.hamiltonian
    own = of_spins(hamiltonian, np.ones((1, hamiltonian.n_spins), np.int8))
    return {"posterior": dict.fromkeys(("energy", *own), NUMBER), "sample_stats": dict.fromkeys(names, NUMBER)}


def open_writer(work: Run, driver: Driver | None) -> ChainWriter:
    """A new chain file, or the one that is there if it holds the same run; UserError naming what differs."""
    config, restart = configuration(work), work.options.restart
    if work.mode in CLASSICAL:
        config["kernel"] = driver.engine.kernel
    command = shlex.join(["nmcmc", *sys.argv[1:]])
    try:
        if not os.path.exists(work.out) or restart:
            return create_chain(
                work.out, mode=work.mode, command=command, config=config, rng_seed=work.options.rng_seed,
                hamiltonian=work.target.hamiltonian, betas=np.array(work.target.betas),
                n_chains=work.options.chains, spins_every=work.spins_every, overwrite=restart,
                asked_draws=work.options.draws,
                **contents(work, driver),
            )  # fmt: skip
        writer = resume_chain(work.out)
    except ChainError as error:
        raise UserError(str(error)) from None
    difference = first_difference(writer.config, config)
    if difference:
        writer.close()
        raise UserError(f"{work.out} holds another run ({difference}); use --restart to replace it, or another --out")
    if writer.committed_draws < work.options.draws:
        writer.set_asked(work.options.draws)
        if writer.committed_draws:
            writer.set_config(config, command)
    return writer
