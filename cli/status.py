"""`nmcmc status`: how far runs are, also while they go on. It takes no lock and reads a few draws only."""

from __future__ import annotations

import json
import math
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cli.ensemble_results import is_ensemble, print_status
from cli.errors import UserError
from cli.output import counted, duration
from cli.results import opened
from cli.settings import CLUSTER, NEURAL
from mc.chain import Chain
from mc.chain_layout import opened as opened_file
from mc.chain_lock import ChainError
from mc.measure import mean_of_known
from mc.weighted import effective_sample_size

LAST_DRAWS = 200  # of each chain, that acceptance and ESS are of


def status(files: list[Path], as_json: bool) -> None:
    """One line a file."""
    for chain in [path if is_ensemble(path) else opened(path) for path in files]:
        if isinstance(chain, Path):
            print_status(chain, as_json)
            continue
        now = progress(chain)
        print(f"{chain.path}: {'; '.join([describe(chain), *lines_of(now)])}")
        if as_json:
            print(json.dumps(plain(chain, now)))


def describe(chain: Chain) -> str:
    """A chain in one line: its mode, its size, its training."""
    size = (f"mode {chain.mode}, {counted(chain.n_chains, 'chain')} x {counted(chain.n_draws, 'draw')} x "
            f"{counted(len(chain.betas), 'temperature')}")  # fmt: skip
    steps = chain.training.get("step")
    trained = f", {int(steps[-1])} training steps" if steps is not None and len(steps) else ""
    return f"{size}{trained}, {'complete' if chain.complete else 'incomplete'}"


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    done, asked: draws that a chain has and is to have, -1 where that is not known. writer: who writes it, "" for
    nobody. elsewhere: whether on another machine, where it cannot be seen to be alive. committed: seconds since the
    last commit. seconds: CPU seconds of all threads so far. rate: draws of all chains in a CPU second of sampling.
    left: CPU seconds of the missing draws. NaN where unknown. recent: {what: one number a beta} of the last draws.
    ess: of the sampler at the end of its training so far, a number a beta.
    """

    done: int
    asked: int
    writer: str
    elsewhere: bool
    committed: float
    seconds: float
    rate: float
    left: float
    recent: dict[str, np.ndarray]
    ess: np.ndarray


def progress(chain: Chain) -> Progress:
    """Ask a file, its lock file and a few draws; UserError where the file cannot be read."""
    writer, elsewhere = writer_of(chain.path)
    spent = [value for value in chain.seconds.values() if math.isfinite(value)]
    sampling = chain.seconds["sample"]
    drawn = chain.n_chains * chain.n_draws
    rate = drawn / sampling if drawn and sampling > 0 else math.nan
    missing = max(chain.asked_draws - chain.n_draws, 0) * chain.n_chains if chain.asked_draws >= 0 else math.nan
    try:
        recent = recent_of(chain)
        committed = max(time.time() - os.stat(chain.path).st_mtime, 0.0)
    except (ChainError, OSError) as error:
        raise UserError(str(error)) from None
    ess = chain.training.get("ess", np.zeros(0))
    left = missing / rate if missing == 0 or rate > 0 else math.nan
    seconds = sum(spent) if spent else math.nan
    ess = np.atleast_1d(ess[-1]) if len(ess) else np.zeros(0)
    return Progress(chain.n_draws, chain.asked_draws, writer, elsewhere, committed, seconds, rate, left, recent, ess)


def writer_of(path: str | os.PathLike) -> tuple[str, bool]:
    """(who writes a chain file, "" for nobody; whether on another machine, so that it may have died since).

    The lock itself is not asked: taking it for an instant could make a writer that starts just then fail. A writer
    leaves "PID HOST" in its lock file and removes the file when it is done; after kill -9 the file lies there, and no
    such process is alive (unless its number was given to another one).
    """
    target = Path(os.path.realpath(path))
    try:
        words = target.with_name(target.name + ".lock").read_text().split()
    except (OSError, UnicodeDecodeError):
        return "", False
    if len(words) != 2 or not words[0].isdecimal():
        return "", False
    if words[1] != socket.gethostname():
        return f"process {words[0]} on {words[1]}", True
    try:
        os.kill(int(words[0]), 0)
    except (ProcessLookupError, OverflowError):
        return "", False
    except PermissionError:
        pass  # alive, of another user
    return f"process {words[0]}", False


def recent_of(chain: Chain) -> dict[str, np.ndarray]:
    """What the last draws of all chains say, a number a beta: acceptance, swaps, ESS of the weights."""
    if not chain.n_draws:
        return {}
    found = {}
    with opened_file(chain.path) as file:
        stats = file["sample_stats"]

        def last(name: str) -> np.ndarray:
            return stats[name][:, max(chain.n_draws - LAST_DRAWS, 0) : chain.n_draws].astype(np.float64)

        if "accepted" in stats:
            name = "cluster size / N" if chain.mode in CLUSTER else "acceptance"
            found[name] = mean_of_known(last("accepted"), (0, 1))
        if "swap_accepted" in stats and len(chain.betas) > 1:
            swaps = last("swap_accepted")[:, :, :-1]
            tried = np.isfinite(swaps)
            found["swaps"] = np.where(tried, swaps, 0.0).sum((0, 1)) / np.maximum(tried.sum((0, 1)), 1)
        # The proposals of nmcmc, whether taken or not, and the draws of nis.
        weights = next((name for name in ("log_weight_proposed", "log_weight") if name in stats), None)
        if weights and chain.mode in NEURAL:
            log_weight = last(weights)
            found["ESS"] = np.array([_ess(log_weight[:, :, b]) for b in range(log_weight.shape[2])])
    return found


def _ess(log_weight: np.ndarray) -> float:
    try:
        return effective_sample_size(log_weight)
    except ValueError:  # all weights zero
        return math.nan


def lines_of(now: Progress) -> list[str]:
    """The parts of the line after the description."""
    parts = []
    if now.asked > 0:
        parts.append(share(now))
    if now.writer:
        died = ", if it is still alive" if now.elsewhere else ""
        parts.append(f"{now.writer} is writing{died}")
    elif now.left != 0 and now.asked > 0:
        parts.append("nobody is writing")
    parts.append(f"last commit {duration(now.committed)} ago")
    if math.isfinite(now.seconds):
        parts.append(f"{now.seconds:.3g} CPU s")
    if math.isfinite(now.rate) and now.rate > 0:
        parts.append(f"{now.rate:.3g} draws/CPU s")
    if now.left > 0:
        parts.append(f"about {duration(now.left)} of CPU left")
    parts += [f"{name} {between(values)}" for name, values in now.recent.items() if len(values)]
    if len(now.ess) and "ESS" not in now.recent:
        parts.append(f"ESS {between(now.ess)} in training")
    return parts


def share(now: Progress) -> str:
    """4000 of 10000 draws (40 %)"""
    return f"{now.done} of {now.asked} draws ({math.floor(100 * now.done / now.asked)} %)"


def between(values: np.ndarray) -> str:
    """One number, or the lowest and the highest of several betas."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return "not known"
    low, high = f"{finite.min():.3g}", f"{finite.max():.3g}"
    return low if low == high else f"{low} to {high}"


def plain(chain: Chain, now: Progress) -> dict[str, Any]:
    """The object of --json."""
    steps = chain.training.get("step", ())
    return {
        "command": "status", "out": str(chain.path), "mode": chain.mode, "draws": chain.n_draws,
        "chains": chain.n_chains, "complete": chain.complete, "betas": len(chain.betas),
        "asked": now.asked if now.asked >= 0 else None, "running": bool(now.writer), "writer": now.writer or None,
        "last_commit": now.committed, "seconds": _finite(now.seconds), "rate": _finite(now.rate),
        "left": _finite(now.left), "recent": {name: [_finite(v) for v in rows] for name, rows in now.recent.items()},
        "training_steps": int(steps[-1]) if len(steps) else None, "training_ess": [_finite(v) for v in now.ess],
    }  # fmt: skip


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
