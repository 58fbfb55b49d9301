"""`nmcmc run --mode neural-anneal`: the ladder, the cooling with its checkpoint, and the ground state found."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import cli.neural as neural
import cli.neural_run as neural_run
from cli.arguments import TEMPERATURE, Target
from cli.errors import UserError
from cli.output import Stopper
from cli.plan import checked_checkpoint
from cli.results import opened
from cli.work import Run
from mc.chain import ChainError, ChainWriter
from mc.chain_lock import WriterLock
from mc.exact import ExactRefused, exact, ground_state
from mc.exact.frontier import MAX_WIDTH, best_plan
from mc.exact.transfer_matrix import estimated_seconds, transfer_exact
from mc.hamiltonian import Hamiltonian
from mc.measure import Record
from nmcmc.annealing import AnnealSettings, anneal, default_ladder, last_cooling
from nmcmc.checkpoint import Checkpoint, CheckpointError, save_checkpoint
from nmcmc.recipe import build_sampler
from nmcmc.sampler import AutoregressiveSampler
from nmcmc.training import Training

LAST = {"cool": "cooled once more", "pt": "cooled once more and tempered"}
LAST_DRAWS = 256  # that are cooled once more
ENUMERATED_SPINS = 20
EXACT_SECONDS = 10.0  # an exact ground state is looked for where it is estimated to take less
MATCHED_SPINS = 4096  # for which matching takes about a second
COLD = 1e8  # times 1 / energy unit: where the exact mean energy is the ground state's to all digits
SAME = 1e-9  # relative: energies that are one


def cooled(target: Target, given: dict[str, Any], settings: dict[str, Any]) -> tuple[Target, list[float]]:
    """The target at the coldest temperature, where the draws are made, and the ladder of betas down to it.

    Several temperatures are a ladder as they stand, one is the coldest of the default ladder. UserError for a ladder
    that does not cool.
    """
    written = [word for word in target.words if word.partition("=")[0] in TEMPERATURE]
    try:
        if written and len(target.betas) > 1:
            asked = sorted({"anneal.steps", "anneal.ladder"} & given.keys())
            if asked:
                raise ValueError(f"this and {asked[0]}= both say the ladder; leave one of them out")
            ladder = AnnealSettings(target.betas).betas
        else:
            coldest = target.betas[0] if written else None
            ladder = default_ladder(target.hamiltonian, settings["anneal.steps"], settings["anneal.ladder"], coldest)
    except ValueError as error:
        raise UserError(f"{written[0]}: {error}" if written else str(error)) from None
    return replace(target, betas=(ladder[-1],)), list(ladder)


def prepare(work: Run, writer: ChainWriter, stop: Stopper) -> neural_run.Bound | None:
    """Cool the sampler, from its checkpoint on where it was stopped; the driver of the draws, None when stopped."""
    plan, beta = work.plan, work.target.betas[0]
    path = neural_run.destination(work, beta)
    try:
        lock = WriterLock(path.resolve())
    except ChainError as error:
        raise UserError(str(error).replace("--out", "--checkpoint")) from None
    try:
        sampler, training, record = _cool(work, path, stop)
    except (CheckpointError, FloatingPointError) as error:
        raise UserError(str(error), code=1) from None
    finally:
        lock.release()
    work.seconds["train"] += training.cpu_seconds
    writer.set_group("training", {name: np.asarray(values) for name, values in training.history.items()})
    if not training.finished:
        return None
    clock = time.process_time()
    drawn, last = last_cooling(sampler, plan.anneal, LAST_DRAWS, plan.train.seed, record)
    if plan.anneal.local:
        work.screen.say(f"last {LAST_DRAWS} draws: lowest energy {drawn:.10g}, {LAST[plan.anneal.last]} {last:.10g}")
    best_drawn = min([drawn, *training.history["lowest"]])
    work.extra |= {"lowest_energy": record.energy, "lowest_energy_drawn": best_drawn}
    work.lowest_state = record.spins
    work.extra |= neural.say_collapse([sampler], work.options.rng_seed, work.screen, stop)
    work.extra["rescore_error"] = [neural_run.checked_rescore_error(sampler)]
    work.samplers = [sampler]
    work.seconds["train"] += time.process_time() - clock
    digest = neural.proposal_digest(sampler, plan.net).encode()
    if writer.state().get("proposal", digest) != digest:
        raise UserError(f"{work.out} was begun with other weights; use --restart to replace it, or another --out")
    return neural_run.Bound(neural_run.make_driver(work, [sampler]), digest)


def _cool(work: Run, path: Path, stop: Stopper) -> tuple[AutoregressiveSampler, Training, Record]:
    """`nmcmc.annealing.anneal` with the checkpoint at `path` and the screen."""
    plan, beta, hamiltonian = work.plan, work.target.betas[0], work.target.hamiltonian
    there = path.exists() and not work.options.restart
    checkpoint = checked_checkpoint(path, work.target, beta) if there else None
    seed = checkpoint.recipe["seed"] if checkpoint else plan.train.seed
    settings, training = replace(plan.train, seed=seed), checkpoint.training if checkpoint else None
    at = partial(_temperature, hamiltonian.k_B)
    ladder = f"{len(plan.anneal.betas)} temperatures from T={at(plan.anneal.betas[0])} to T={at(beta)}"
    done = training.step if training else 0
    going = f"goes on from {path}, step {done}" if training else f"into {path}"
    work.screen.say(f"annealing {ladder}, {plan.anneal.steps} weight updates, {going}")
    sampler = build_sampler(hamiltonian, beta, plan.net, seed).to(plan.device)
    recipe = plan.plain() | {"seed": seed}

    def save(now: Training) -> None:
        save_checkpoint(path, Checkpoint(hamiltonian, beta, plan.net, recipe, now))

    def note(now: Training) -> str:
        return f"T={at(now.history['at_beta'][-1])}, lowest draw {now.history['lowest'][-1]:.8g}"

    with work.screen.progress("annealing", plan.anneal.steps, done) as update:
        return anneal(
            sampler, plan.net, plan.anneal, settings, training, save=save, stop=stop,
            report=lambda now, steps: update(now.step, note(now)),
        )  # fmt: skip


def _temperature(k_B: float, beta: float) -> str:
    return f"{1 / (k_B * beta):.4g}" + ("" if k_B == 1.0 else " K") if beta else "infinity"


def found(work: Run, writer: ChainWriter) -> None:
    """After the draws: the lowest energy of all into work.extra, and how far it is from the exact ground state."""
    chain = opened(work.out)
    energy, state = work.extra.get("lowest_energy", math.inf), work.lowest_state
    if state is None and "lowest_state" in chain.diagnostics:  # nothing was made by this command
        state = chain.diagnostics["lowest_state"]
        energy = float(chain.hamiltonian().energy(state))
    if chain.n_draws and len(chain.spin_draws):
        spins = chain.spins[:, :, 0].reshape(-1, chain.n_spins)
        energies = chain.hamiltonian().energy(spins)
        best = int(energies.argmin())
        if energies[best] < energy:
            energy, state = float(energies[best]), spins[best]
    if state is None:
        return
    work.lowest_state, work.extra["lowest_energy"] = state, energy
    known = chain.diagnostics.get("ground_energy")
    ground = float(known) if known is not None else ground_energy(work.target.hamiltonian)
    if ground is None:
        return
    residual = (energy - ground) / abs(ground) if ground else energy - ground
    work.extra |= {"ground_energy": ground, "residual": 0.0 if abs(residual) < SAME else residual}
    said = "the ground state" if abs(residual) < SAME else f"{residual:.2g} (relative) above the ground state"
    work.screen.say(f"lowest energy {energy:.10g}: {said} at {ground:.10g} (exact)")


def ground_energy(hamiltonian: Hamiltonian, seconds: float = EXACT_SECONDS) -> float | None:
    """The exact ground state energy, in the unit of the Hamiltonian, where it is estimated to take `seconds` at most.

    By matching for planar lattices, by enumeration for few spins, else as the exact mean energy at a temperature far
    below all gaps.
    """
    if hamiltonian.n_spins <= MATCHED_SPINS:
        try:
            return ground_state(hamiltonian)[0]
        except ExactRefused:
            pass
    if hamiltonian.n_spins <= ENUMERATED_SPINS:
        return exact(hamiltonian, 1.0, "enumeration").ground_energy
    if not hamiltonian.is_pairwise:
        return None
    plan = best_plan(hamiltonian, MAX_WIDTH)
    if plan is None or estimated_seconds(hamiltonian, plan) > seconds:
        return None
    return transfer_exact(hamiltonian, COLD, plan).energy
