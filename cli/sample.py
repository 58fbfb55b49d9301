"""`nmcmc sample CHECKPOINT`: weighted draws of a trained sampler, whole, or completing what is partly known."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path

import numpy as np
import torch

import cli.threads  # noqa: F401 - one thread, as its docstring says why
from cli import values
from cli.errors import UserError, closest
from cli.known_spins import known_spins
from cli.options import Options
from cli.output import Screen, counted
from cli.sample_result import FORMAT, Draws, ending, is_result, judged, plain, table, write
from mc import models
from mc.analysis import kelvin
from mc.chain_lock import ChainError, WriterLock, writable_target
from nmcmc.anyorder.recipe import NETS
from nmcmc.anyorder.sampler import AnyOrderSampler
from nmcmc.checkpoint import Checkpoint, CheckpointError, load_checkpoint, retargeted
from nmcmc.proposals import BATCH
from nmcmc.sampler import Proposal

GIVEN, TEMPERATURE, SIZES = "given", ("beta", "T"), ("L", "Lx", "Ly", "Lz", "cell")
KINDS = {"h": "field"} | dict.fromkeys(SIZES[:-1], "size") | {"cell": "text"}
KEYS = (GIVEN, *TEMPERATURE, *KINDS)
STREAM = 0x73616D70  # keeps the random numbers apart from other uses of --rng-seed
MOST_BYTES = 2**34  # of a result, which lies in memory
BYTES_A_SPIN, BYTES_A_DRAW = 2, 48  # spins and a copy of them, log q, energies and weights of a draw


def sample(
    path: Path, words: list[str], out: Path | None, options: Options, screen: Screen, began: float | None = None
) -> None:
    """Draw, write the result whole or not at all, and show what it says; UserError before any work.

    words: given=FILE and keys of the target. options: draws (of each row), rng_seed, restart and json count.
    """
    began = time.monotonic() if began is None else began
    given = split(path, words)
    options.check_values()
    out = out or Path(f"{path.stem}-samples.npz")
    target = require_free(out, options.restart)
    checkpoint = checkpoint_at(path, given)
    if GIVEN not in given:
        partial = np.zeros((1, checkpoint.hamiltonian.n_spins), np.int8)
    elif checkpoint.net.net not in NETS:
        raise UserError(f"given={given[GIVEN]}: {path} (net={checkpoint.net.net}) draws in one fixed order and takes "
                        "no known spins; train one with net=anyorder, or leave given= out")  # fmt: skip
    else:
        partial = known_spins(Path(given[GIVEN]), checkpoint.hamiltonian)
    require_room(partial, options.draws)
    try:
        lock = WriterLock(target)
    except ChainError as error:
        raise UserError(str(error)) from None
    with contextlib.ExitStack() as stack:
        stack.callback(lock.release)
        screen.say(f"out: {out}")
        for line in about(path, checkpoint, partial, GIVEN in given):
            screen.say(line)
        try:
            sampler = checkpoint.sampler()
        except ValueError as error:
            raise UserError(f"checkpoint {path}: {error}") from None
        try:
            drawn = draw(sampler, partial, options.draws, options.rng_seed, screen, whole=GIVEN not in given)
        except KeyboardInterrupt:
            raise UserError(f"interrupted; {out} was not written, the same command begins anew", code=130) from None
        rows = judged(drawn)
        write(target, out, drawn, rows, facts(path, checkpoint, given, options))
    for line in [*table(rows), f"seconds (wall): {time.monotonic() - began:.1f}", ending(out, drawn)]:
        screen.say(line)
    if options.json:
        at = {"beta": checkpoint.beta} | ({} if (T := temperature(checkpoint)) is None else {"T": T})
        found = {"command": "sample", "out": str(out), "model": checkpoint.hamiltonian.name, **at,
                 "draws": options.draws, "results": [plain(row) for row in rows]}  # fmt: skip
        print(json.dumps(found), flush=True)


def split(path: Path, words: list[str]) -> dict[str, str]:
    """{key: text} of the words behind the checkpoint; UserError for one that does not fit."""
    if str(path).partition("=")[0] in KEYS and not path.exists():
        raise UserError(f"no checkpoint before {path}; write nmcmc sample CHECKPOINT {path}")
    given: dict[str, str] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            raise UserError(f"{word}: key=value is needed after the one checkpoint ({', '.join(KEYS)})")
        if key not in KEYS:
            raise UserError(f"unknown key {key}{closest(key, KEYS)} (nmcmc sample takes {', '.join(KEYS)})")
        if key in given:
            raise UserError(f"{key} is given twice ({key}={given[key]} and {word})")
        given[key] = values.text(key, text)
    if set(TEMPERATURE) <= given.keys():
        raise UserError("beta= and T= say the temperature twice; give one of them")
    return given


def require_free(out: Path, restart: bool) -> Path:
    """The file to write; UserError where it cannot be written, or something is there that must stay."""
    try:
        target = writable_target(out)
    except ChainError as error:
        raise UserError(str(error)) from None
    if os.path.lexists(target):
        if not is_result(target):
            raise UserError(
                f"{out} is there already and no result of nmcmc sample; remove it, or choose another --out"
            )
        if not restart:
            raise UserError(f"{out} is there already; add --restart to draw anew, or choose another --out")
    return target


def checkpoint_at(path: Path, given: dict[str, str]) -> Checkpoint:
    """The checkpoint for the temperature, field and size in the keys; UserError where it does not serve them."""
    try:
        checkpoint = load_checkpoint(path)
    except CheckpointError as error:
        raise UserError(str(error)) from None
    hamiltonian, beta = checkpoint.hamiltonian, checkpoint.beta
    changed = {key: values.MODEL_KINDS[KINDS[key]](key, given[key]) for key in given if key in KINDS}
    odd = [key for key in changed if key not in getattr(models.MODELS.get(hamiltonian.name), "keys", ())]
    if odd:
        raise UserError(f"{odd[0]}={given[odd[0]]}: {hamiltonian.name} of {path} has no such key; leave it out")
    if changed:
        resized = not changed.keys().isdisjoint(SIZES)
        kept = {key: value for key, value in hamiltonian.parameters.items() if not (resized and key in SIZES)}
        try:
            hamiltonian = models.build(hamiltonian.name, kept | changed)
        except (ValueError, OverflowError) as error:
            raise UserError(str(error)) from None
    key = next((key for key in TEMPERATURE if key in given), None)
    if key is not None:
        betas = values.betas(key, given[key], hamiltonian.k_B)
        if len(betas) > 1:
            raise UserError(f"{key}={given[key]}: nmcmc sample draws at one temperature; give one number")
        beta = betas[0]
    elif checkpoint.net.betas is not None:
        low, high = checkpoint.net.betas
        span = f"beta={low:.10g} to {high:.10g}"
        if hamiltonian.k_B != 1.0:
            span += f" (T={kelvin(high, hamiltonian.k_B):.6g} to {kelvin(low, hamiltonian.k_B):.6g} K)"
        raise UserError(f"{path} serves {span}; say where to draw with beta= or T=")
    try:
        return retargeted(path, checkpoint, hamiltonian, beta)
    except CheckpointError as error:
        raise UserError(str(error)) from None


def require_room(partial: np.ndarray, draws: int) -> None:
    """UserError for a result of more bytes than there may be."""
    n_rows, n_spins = partial.shape
    a_draw = n_rows * (n_spins * BYTES_A_SPIN + BYTES_A_DRAW)
    if draws * a_draw > MOST_BYTES:
        most = MOST_BYTES // a_draw
        remedy = f"take --draws {most} at most" if most else "give fewer rows"
        raise UserError(f"--draws {draws}: {counted(n_rows, 'row')} of {n_spins} spins make a result of "
                        f"{draws * a_draw / 2**30:.3g} GiB, which lies in memory; {remedy}")  # fmt: skip


def about(path: Path, checkpoint: Checkpoint, partial: np.ndarray, given: bool) -> list[str]:
    """What draws, and what is known: a line each."""
    hamiltonian = checkpoint.hamiltonian
    T = temperature(checkpoint)
    at = f"beta={checkpoint.beta:.10g}" + ("" if T is None else f" ({T:.6g} K)")
    lines = [f"sampler: {path}, {hamiltonian.name} of {hamiltonian.n_spins} spins at {at}, net={checkpoint.net.net}"]
    if not checkpoint.training.finished:
        lines.append(f"note: its training is not finished ({checkpoint.training.step} steps); weights stay right, "
                     "errors are larger")  # fmt: skip
    if given:
        known = (partial != 0).sum(axis=1)
        span = f"{known.min()}" if known.min() == known.max() else f"{known.min()} to {known.max()}"
        lines.append(f"given: {counted(len(partial), 'row')}, {span} of {hamiltonian.n_spins} spins known")
    return lines


def temperature(checkpoint: Checkpoint) -> float | None:
    """T in kelvin of a model in eV, None for others and where it is infinite."""
    k_B = checkpoint.hamiltonian.k_B
    return None if k_B == 1.0 or checkpoint.beta == 0.0 else float(kelvin(checkpoint.beta, k_B))


def draw(sampler: Proposal, partial: np.ndarray, draws: int, seed: int, screen: Screen, whole: bool = False) -> Draws:
    """`draws` completions of each row of partial (n, N). whole: nothing is known, and any Proposal will do.

    Raises UserError, code 1, for a log q that is not finite.
    """
    (n_rows, n_spins), beta = partial.shape, sampler.beta
    # Rows with the same sites known one after the other: they are drawn at once.
    _, pattern = np.unique(partial == 0, axis=0, return_inverse=True)
    row_of = np.repeat(np.argsort(pattern.reshape(-1), kind="stable"), draws)
    spins, log_q = np.empty((len(row_of), n_spins), np.int8), np.empty(len(row_of))
    energy = np.empty(len(row_of))
    words = np.random.SeedSequence(seed, spawn_key=(STREAM,)).generate_state(1, np.uint64)
    generator = torch.Generator().manual_seed(int(words[0] >> 1))
    at_once = getattr(sampler, "max_batch", None) or BATCH
    with screen.progress("drawn", len(row_of)) as update:
        for start in range(0, len(row_of), at_once):
            part = slice(start, min(start + at_once, len(row_of)))
            if whole:
                spins[part], log_q[part] = sampler.sample(part.stop - start, generator)
            else:
                spins[part], log_q[part] = sampler.fill(partial[row_of[part]], generator)
            energy[part] = sampler.hamiltonian.energy(spins[part])
            update(part.stop)
    if not np.isfinite(log_q).all():
        raise UserError(
            "the sampler returned a log q that is not finite; train again with a smaller train.lr=", code=1
        )
    back = np.argsort(row_of, kind="stable")
    spins, log_q, energy = spins[back].reshape(n_rows, draws, n_spins), log_q[back], energy[back]
    log_q, energy = log_q.reshape(n_rows, draws), energy.reshape(n_rows, draws)
    if isinstance(sampler, AnyOrderSampler):
        log_marginal, log_known = sampler.log_marginal(partial), sampler.log_known(partial)
    else:
        log_marginal, log_known = np.full(n_rows, np.nan), np.zeros(n_rows)
    return Draws(spins, log_q, energy, -beta * energy - log_q, partial != 0, log_marginal, log_known)


def facts(path: Path, checkpoint: Checkpoint, given: dict[str, str], options: Options) -> dict[str, np.ndarray]:
    """What else is in the result."""
    hamiltonian = checkpoint.hamiltonian
    text = {"checkpoint": str(path), "model": hamiltonian.name, "parameters": hamiltonian.parameters, "keys": given,
            "net": checkpoint.net.net, "rng_seed": options.rng_seed}  # fmt: skip
    return {"format": np.array(FORMAT), "beta": np.array(checkpoint.beta), "about": np.array(json.dumps(text)),
            "fingerprint": np.array(hamiltonian.fingerprint)}  # fmt: skip
