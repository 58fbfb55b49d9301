"""What is said of an ensemble: disorder averages, the worst R-hat, a JSON object; also for `analyze` and `status`."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from cli.ensemble_physics import physics_lines
from cli.errors import UserError
from cli.results import COLUMNS
from cli.tables import short_table, table
from mc.analysis import Results
from mc.chain_lock import ChainError
from mc.disorder import Average, Summary
from mc.ensemble import Ensemble, is_ensemble, open_ensemble, spelled
from mc.statistics import R_HAT_LIMIT, Estimate

__all__ = ["averages", "describe", "is_ensemble", "print_analysis", "print_status"]

MOST_BETAS_IN_FULL = 4
NAMED = 8  # instances that are called by their numbers


def opened(path: str | os.PathLike) -> Ensemble:
    """An ensemble file for reading; UserError when it is none."""
    try:
        return open_ensemble(path)
    except ChainError as error:
        raise UserError(str(error)) from None


def averages(path: str | os.PathLike) -> dict[str, Average]:
    """Disorder averages of an ensemble file, {name: mean, error, spread, samples at each beta}."""
    return opened(path).summary.averages()


def describe(path: str | os.PathLike) -> str:
    """An ensemble file in one line; of an incomplete one also how many chain files lie beside it."""
    there = opened(path)
    summary, n = there.summary, len(there.instances)
    size = f"{n} instances ({spelled(there.instances)})" if n else "no instance yet"
    draws = sorted({*summary.draws.tolist()})
    chains = sorted({*summary.chains.tolist()})
    if n:
        size += f", {_between(chains)} chains x {_between(draws)} draws x {len(summary.betas)} temperatures"
    folder = Path(f"{path}.parts")
    parts = len(list(folder.glob("*.h5"))) if folder.is_dir() else 0
    beside = f", {parts} chain files in {folder}" if parts else ""
    state = "complete" if there.complete else f"incomplete: {len(there.asked)} were asked for"
    return f"ensemble, mode {there.config.get('mode')}, {size}, {state}{beside}"


def print_analysis(path: str | os.PathLike, as_json_too: bool) -> None:
    """`nmcmc analyze` of an ensemble file."""
    there = opened(path)
    print(f"{path}: {describe(path)}")
    for line in lines_of(there.summary, in_full=True) + physics_lines(there):
        print(line)
    if as_json_too:
        print(as_json("analyze", str(path), there.config, there.summary, there.complete, {}, {}))


def print_status(path: str | os.PathLike, as_json_too: bool) -> None:
    """`nmcmc status` of an ensemble file."""
    there = opened(path)
    print(f"{path}: {describe(path)}")
    if as_json_too:
        print(json.dumps({"command": "status", "out": str(path), "mode": there.config.get("mode"),
                          "instances": len(there.instances), "asked": len(there.asked),
                          "complete": there.complete}))  # fmt: skip


def results_of(summary: Summary) -> Results:
    """Averages as estimates: n_eff counts the instances, r_hat is the worst of them."""
    found = Results(summary.betas)
    for name, average in summary.averages().items():
        if average.mean.ndim != 1:
            continue
        r_hat = np.fmax.reduce(summary.observables[name]["r_hat"], axis=0, initial=math.nan)
        found.observables[name] = [
            Estimate(
                float(mean), float(error), n_eff=float(samples), r_hat=float(worst), n_draws=int(samples),
                status="not converged" if worst > R_HAT_LIMIT else "ok",
            )
            for mean, error, samples, worst in zip(average.mean, average.error, average.samples, r_hat, strict=True)
        ]  # fmt: skip
    return found


def lines_of(summary: Summary, in_full: bool = False) -> list[str]:
    """Averages as a table, and what must be thought of them."""
    if not len(summary.instances):
        return ["no instance yet"]
    results = results_of(summary)
    n = len(summary.instances)
    lines = [f"disorder averages of {n} instances (n_eff counts them; errors from their scatter; R-hat of the worst)"]
    lines += table(results) if in_full or len(results.betas) <= MOST_BETAS_IN_FULL else short_table(results)
    worst = summary.worst()
    if worst is not None:
        lines.append(f"worst R-hat {worst.r_hat:.4g}: {worst.observable} of instance {worst.instance} "
                     f"at beta {worst.beta:.6g}")  # fmt: skip
    apart = summary.unconverged()
    if apart:
        named = ", ".join(map(str, apart[:NAMED])) + (f" and {len(apart) - NAMED} more" if len(apart) > NAMED else "")
        lines.append(f"not converged: {len(apart)} of {n} instances ({named}) have R-hat above {R_HAT_LIMIT}: "
                     "run longer (larger --draws, --warmup), or with more temperatures in --mode pt")  # fmt: skip
    if n == 1:
        lines.append("one instance has no scatter: no error of a disorder average can be given")
    return lines


def as_json(
    command: str,
    out: str,
    config: dict[str, Any],
    summary: Summary | None,
    complete: bool,
    seconds: dict[str, float],
    failed: dict[int, str],
) -> str:
    """The one-line object: as that of a chain, `results` being averages, and a row for each instance."""
    rows, instances = [], []
    if summary is not None and len(summary.instances):
        results = results_of(summary)
        for b, beta in enumerate(results.betas):
            row: dict[str, Any] = {"beta": float(beta)}
            for name, estimates in results.observables.items():
                row[name] = {column: _finite(getattr(estimates[b], column)) for column in COLUMNS}
                row[name] |= {"status": estimates[b].status, "instances": estimates[b].n_draws}
            rows.append(row)
        worst = summary.worst_of_instances()
        instances = [
            {"instance": int(number), "draws": int(draws), "chains": int(chains), "r_hat": _finite(float(r_hat))}
            for number, draws, chains, r_hat in zip(
                summary.instances, summary.draws, summary.chains, worst, strict=True)
        ]  # fmt: skip
    return json.dumps({
        "command": command, "out": out, "mode": config.get("mode"), "model": config.get("model"),
        "complete": complete, "results": rows, "instances": instances,
        "failed": {str(number): error for number, error in failed.items()},
        "seconds": {name: _finite(value) for name, value in seconds.items()},
    })  # fmt: skip


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _between(numbers: list[int]) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
