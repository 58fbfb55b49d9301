"""Results of a chain file at the command line: opening it, storing what was found in it, and the JSON object."""

from __future__ import annotations

import json
import math
import os
from typing import Any

import numpy as np

from cli.errors import UserError
from cli.settings import MEAN_FIELD
from mc.analysis import Results, analyse
from mc.chain import Chain, ChainError, ChainWriter, open_chain
from mc.vector.profiles import Profile

COLUMNS = ("mean", "error", "tau_int", "tau_int_error", "n_eff", "r_hat")


def opened(path: str | os.PathLike) -> Chain:
    """A chain file for reading; UserError when it is none."""
    try:
        return open_chain(path)
    except ChainError as error:
        raise UserError(str(error)) from None


def refuse_mean_field(path: object, mode: str) -> None:
    """UserError for a file of mean-field equations, where draws are needed."""
    if mode == MEAN_FIELD:
        raise UserError(f"{path} is a mean field and has no draws; look at it with nmcmc analyze, or export --to npz")


def judged(chain: Chain, extra: dict[str, Any] | None = None, called: str = "") -> Results:
    """`mc.analyse`; UserError for draws that are not finite or have no weight. called: what, instead of its path."""
    try:
        return analyse(chain, extra)
    except ValueError as why:
        what = f"{called or chain.path} cannot be judged"
        raise UserError(f"{what}: {why}; run it again, or leave these draws out") from None


def store(writer: ChainWriter, results: Results) -> None:
    """Put the results into the chain file, to be committed."""
    for name, estimates in results.observables.items():
        columns = {column: np.array([getattr(e, column) for e in estimates]) for column in COLUMNS}
        writer.set_group(f"observables/{name}", columns)
    if results.overlaps:
        stacked = {
            name: np.stack([getattr(one, name) for one in results.overlaps]) for name in ("probability", "error")
        }
        columns = {"mean": stacked["probability"], "error": stacked["error"]}
        columns["r_hat"] = np.full(columns["mean"].shape, np.nan)
        arrays = {name: (("beta", "q"), values) for name, values in columns.items()}
        writer.set_group("observables/overlap_distribution", {"q": (("q",), results.overlaps[0].q), **arrays})
    for name, profile in results.profiles.items():
        axes = ("beta", profile.axis)
        columns = {column: (axes, getattr(profile, column)) for column in ("mean", "error", "r_hat")}
        writer.set_group(f"observables/{name}", {profile.axis: ((profile.axis,), profile.values), **columns})
    numbers = {name: np.asarray(value, np.float64) for name, value in results.diagnostics.items()}
    lowest = results.lowest_state
    state = {} if lowest is None else {"lowest_state": (("site", "component")[: lowest.ndim], lowest)}
    writer.set_group("diagnostics", numbers | state)


def as_json(command: str, chain: Chain, results: Results, seconds: dict[str, float]) -> str:
    """The one-line object of the command line contract."""
    rows = []
    for b, beta in enumerate(results.betas):
        row: dict[str, Any] = {"beta": float(beta)}
        if results.kelvin is not None:
            row["T"] = _finite(float(results.kelvin[b]))
        for name, estimates in results.observables.items():
            row[name] = {column: _finite(getattr(estimates[b], column)) for column in COLUMNS}
            row[name]["status"] = estimates[b].status
        rows.append(row)
    single = len(results.betas) == 1
    diagnostics = {
        name: _finite(value[0] if single and isinstance(value, list) and len(value) == 1 else value)
        for name, value in results.diagnostics.items()
    }
    content = {
        "command": command, "out": str(chain.path), "mode": chain.mode, "model": chain.config.get("model"),
        "draws": chain.n_draws, "chains": chain.n_chains, "complete": chain.complete,
        "results": rows, "diagnostics": diagnostics,
        **({"profiles": {name: _profile(profile) for name, profile in results.profiles.items()}}
           if results.profiles else {}),
        "equilibrated": [{"status": v.status, "reason": v.reason} for v in results.equilibrated],
        "seconds": {k: _finite(v) for k, v in seconds.items()},
    }  # fmt: skip
    return json.dumps(content)


def _profile(profile: Profile) -> dict[str, Any]:
    """An observable along a coordinate: its axis by name, and mean and error (beta, axis)."""
    columns = {"mean": profile.mean, "error": profile.error}
    return {profile.axis: profile.values.tolist()} | {key: _finite(array.tolist()) for key, array in columns.items()}


def _finite(value: Any) -> Any:
    """NaN and infinities as null, also inside lists."""
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
