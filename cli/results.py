"""From a chain file to results: observables with errors, diagnostics, a table and a JSON object."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mc.chain import Chain, ChainWriter
from mc.exact import exact_or_none
from mc.observables import summarize
from mc.statistics import Estimate, longest_rejection
from mc.weighted import effective_sample_size, log_mean_weight

COLUMNS = ("mean", "error", "tau_int", "n_eff", "r_hat")
EXACT_SECONDS = 5.0  # an exact value is "at hand" when it is estimated to take less
ORDER = ("energy", "magnetization", "abs_magnetization", "m2", "m4", "binder", "heat_capacity", "susceptibility")


@dataclass
class Results:
    """observables: {name: one Estimate a beta}; diagnostics: {name: one number a beta, or one number}."""

    betas: np.ndarray
    observables: dict[str, list[Estimate]] = field(default_factory=dict)
    diagnostics: dict[str, Any] = field(default_factory=dict)


def analyse(chain: Chain, extra: dict[str, Any] | None = None) -> Results:
    """Everything that can be said of a chain; `extra` diagnostics, such as those of the training, are added."""
    results = Results(chain.betas)
    hamiltonian = chain.hamiltonian()
    stats = chain.sample_stats
    if chain.n_draws:
        weighted = chain.mode in ("nis", "prior")
        log_weight = stats["log_weight"] if weighted else None
        posterior = {name: chain.posterior[name] for name in chain.posterior}
        results.observables = summarize(posterior, chain.n_spins, chain.betas, log_weight)
        results.diagnostics["lowest_energy"] = float(posterior["energy"].min())
        if "accepted" in stats:
            results.diagnostics["acceptance"] = stats["accepted"].mean(axis=(0, 1)).tolist()
        if "swap_accepted" in stats:
            swaps = stats["swap_accepted"][:, :, :-1]
            tried = np.isfinite(swaps)
            rates = np.where(tried, swaps, 0.0).sum((0, 1)) / np.maximum(tried.sum((0, 1)), 1)
            results.diagnostics["swap_acceptance"] = rates.tolist()
        name = "log_weight_proposed" if "log_weight_proposed" in stats else "log_weight"
        if name in stats:
            _weights(results, stats[name])
        if chain.mode == "nmcmc":
            accepted = stats["accepted"] > 0
            results.diagnostics["longest_rejection"] = [
                longest_rejection(accepted[:, :, b]) for b in range(len(chain.betas))
            ]
    exact = [exact_or_none(hamiltonian, float(beta), EXACT_SECONDS) for beta in chain.betas]
    results.diagnostics["log_z_exact"] = [math.nan if e is None else e.log_z for e in exact]
    results.diagnostics["energy_exact"] = [math.nan if e is None else e.energy for e in exact]
    if "log_z" in results.diagnostics:
        log_z, error = np.array(results.diagnostics["log_z"]), np.array(results.diagnostics["log_z_error"])
        with np.errstate(divide="ignore", invalid="ignore"):
            results.diagnostics["log_z_sigma"] = ((log_z - results.diagnostics["log_z_exact"]) / error).tolist()
    stored = {name: _plain(value) for name, value in chain.diagnostics.items() if name not in results.diagnostics}
    results.diagnostics |= stored | (extra or {})
    return results


def _weights(results: Results, log_weight: np.ndarray) -> None:
    """Diagnostics of independent proposals with ln w = -beta E - ln q, (chain, draw, beta)."""
    rows: dict[str, list[float]] = {name: [] for name in ("ess", "dF", "log_z", "log_z_error")}
    log_z_estimates, free_energies = [], []
    for b, beta in enumerate(results.betas):
        flat = log_weight[:, :, b].ravel()
        ess, (log_z, error) = effective_sample_size(flat), log_mean_weight(flat)
        for name, value in zip(rows, (ess, log_z - flat.mean(), log_z, error), strict=True):
            rows[name].append(float(value))
        status = "ok" if ess * flat.size >= 20 else "too few effective draws"
        one = Estimate(
            log_z, error if status == "ok" else math.nan, n_eff=ess * flat.size, n_draws=flat.size, status=status
        )
        log_z_estimates.append(one)
        scale = -1.0 / beta if beta > 0 else math.nan
        free_energies.append(
            Estimate(log_z * scale, abs(one.error * scale), n_eff=one.n_eff, n_draws=flat.size, status=status)
        )
    results.diagnostics |= rows
    results.observables["log_z"], results.observables["free_energy"] = log_z_estimates, free_energies


def store(writer: ChainWriter, results: Results) -> None:
    """Put the results into the chain file, to be committed."""
    for name, estimates in results.observables.items():
        columns = {column: np.array([getattr(e, column) for e in estimates]) for column in COLUMNS}
        writer.set_group(f"observables/{name}", columns)
    writer.set_group(
        "diagnostics", {name: np.asarray(value, np.float64) for name, value in results.diagnostics.items()}
    )


def as_json(command: str, chain: Chain, results: Results, seconds: dict[str, float]) -> str:
    """The one-line object of the command line contract."""
    rows = []
    for b, beta in enumerate(results.betas):
        row: dict[str, Any] = {"beta": float(beta)}
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
        "results": rows, "diagnostics": diagnostics, "seconds": {k: _finite(v) for k, v in seconds.items()},
    }  # fmt: skip
    return json.dumps(content)


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def _finite(value: Any) -> Any:
    """NaN and infinities as null, also inside lists."""
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def table(results: Results) -> list[str]:
    """Lines of a table: one row an observable and beta, then the verdict and the diagnostics."""
    lines = []
    names = [name for name in ORDER if name in results.observables]
    names += [name for name in results.observables if name not in ORDER]
    if names:
        lines.append(
            f"{'beta':>10}  {'observable':<18}{'mean':>14}{'error':>12}{'tau_int':>9}{'n_eff':>9}{'R-hat':>8}"
        )
    advice: dict[str, str] = {}
    for b, beta in enumerate(results.betas):
        for name in names:
            e = results.observables[name][b]
            mark = "" if e.status == "ok" else f"  {e.status}"
            numbers = f"{e.mean:>14.7g}{_cell(e.error, 12, '.2g')}{_cell(e.tau_int, 9, '.3g')}"
            lines.append(
                f"{beta:>10.6g}  {name:<18}{numbers}{_cell(e.n_eff, 9, '.4g')}{_cell(e.r_hat, 8, '.4f')}{mark}"
            )
            if e.advice and e.status != "ok":
                advice.setdefault(f"{name}: {e.status}: {e.advice}", e.status)
    lines += list(advice)[:4]
    if len(advice) > 4:
        lines.append(f"({len(advice) - 4} more observables are not ok)")
    shown = {name: value for name, value in results.diagnostics.items() if not _all_nan(value)}
    lines += [f"{name:>20}  {_short(value)}" for name, value in shown.items()]
    return lines


def _cell(value: float, width: int, form: str) -> str:
    return f"{'-' if math.isnan(value) else format(value, form):>{width}}"


def _all_nan(value: Any) -> bool:
    return bool(np.isnan(np.atleast_1d(np.asarray(value, np.float64))).all())


def _short(value: Any) -> str:
    entries = [f"{entry:.6g}" for entry in np.atleast_1d(np.asarray(value, np.float64))]
    return " ".join(entries[:8]) + (" ..." if len(entries) > 8 else "")
