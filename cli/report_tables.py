"""Tables of a report: the observables, and the diagnostics with what they mean."""

from __future__ import annotations

import math

import numpy as np

from cli import tables
from cli.figures.drawn import Drawn
from cli.report_page import Table, items
from mc.analysis import Results
from mc.statistics import Estimate

MISSING = "–"
MAIN = (
    "energy",
    "heat_capacity",
    "abs_magnetization",
    "q2",
    "binder",
    "overlap_binder",
    "xi_over_length",
    "overlap_xi_over_length",
    "log_z",
)
MEANINGS = {
    "acceptance": "proposals accepted, or spins flipped by a sweep",
    "swap_acceptance": "swaps accepted with the next temperature",
    "ess": "effective fraction of the draws, <w>^2 / <w^2>",
    "dF": "ln<w> - <ln w>: reverse KL divergence in nats",
    "largest_weight": "share of the largest weight in the sum of all",
    "ess_mc": "the same fraction judged on Monte Carlo states, Z / <w>_p",
    "kl_forward": "forward KL divergence in nats, on Monte Carlo states",
    "log_z": "ln Z, total",
    "log_z_error": "its standard error",
    "log_z_exact": "exact ln Z",
    "log_z_sigma": "deviation from it in standard errors",
    "energy_exact": "exact mean energy, total",
    "lowest_energy": "lowest energy seen, total",
    "longest_rejection": "longest run of rejections in a chain",
    "rescore_error": "largest difference of ln q between sampling and scoring",
    "collapse_gap": "<ln w> of refined states above that of the draws, in nats: large where modes are dropped",
    "collapse_gap_error": "its standard error",
    "collapse_unseen": "share of refined states that weigh more than every draw",
    "collapse_overlap_draws": "<q^2> of pairs of draws",
    "collapse_overlap_refined": "<q^2> of pairs of refined states",
    "prior_ess": "effective fraction before any training",
    "pilot_ess": "effective fraction of the pilot that chose the sampler",
    "round_trips": "trips hot - cold - hot of all replicas since the warm-up",
    "family_entropy": "entropy of the families left of a population",
    "rho_t": "mean square family size",
    "log_z_rise": "ln Z relative to the first temperature",
    "log_z_rise_error": "its standard error",
    "log_z_gap": "overlap error of neighbouring temperatures",
}


def all_observables(drawn: Drawn, results: Results) -> str:
    """The table of every observable at every temperature, with exact values where one is known."""
    names = tables.names_of(results)
    if not names:
        return ""
    beside = any(_beside(results, name, b)[0] != MISSING for name in names for b in range(len(results.betas)))
    heads = [
        "observable",
        "beta",
        "mean",
        "error",
        "tau_int",
        "n_eff",
        "R-hat",
        *("exact", "off by") * beside,
        "status",
    ]
    rows, breaks = [], set()
    for name in names:
        breaks.add(len(rows))
        for b, one in enumerate(results.observables[name]):
            exact = _beside(results, name, b) * beside
            rows.append((name, tables.named(results, b), *_numbers(one), *exact, one.status))
    caption = (
        f"Energies in {drawn.hamiltonian.energy_unit}, totals; tau_int in {drawn.draw_word}s"
        + "; off by: deviation from the exact value in standard errors" * beside
    )
    several = frozenset(breaks) if len(results.betas) > 1 else frozenset()
    return Table(caption, heads, rows, (False, *(True,) * (len(heads) - 2), False), several).html()


def main_observables(drawn: Drawn, results: Results) -> str:
    """One row a temperature."""
    names = [name for name in MAIN if name in results.observables]
    if not names:
        return ""
    rows = [
        (tables.named(results, b), *(_with_error(results.observables[name][b]) for name in names))
        for b in range(len(results.betas))
    ]
    heads = (f"beta (1/{drawn.hamiltonian.energy_unit})", *names)
    caption = "In brackets the error in units of the last digit; all observables stand at the end"
    return Table(caption, heads, rows, (True,) * len(heads)).html()


def _numbers(one: Estimate) -> tuple[str, ...]:
    forms = ((one.mean, ".7g"), (one.error, ".2g"), (one.tau_int, ".3g"), (one.n_eff, ".4g"), (one.r_hat, ".4f"))
    return tuple(number(value, form) for value, form in forms)


def number(value: float, form: str = ".6g") -> str:
    if math.isnan(value):
        return MISSING
    return format(value, form).replace("-", "\N{MINUS SIGN}") if math.isfinite(value) else "infinite"


def _with_error(one: Estimate) -> str:
    return (
        tables.with_error(one.mean, one.error).replace("-", "\N{MINUS SIGN}") if math.isfinite(one.mean) else MISSING
    )


def _beside(results: Results, name: str, b: int) -> tuple[str, str]:
    """The exact value and the deviation from it in standard errors."""
    exact = results.diagnostics.get(f"{name}_exact", [])
    if b >= len(exact) or math.isnan(exact[b]):
        return MISSING, MISSING
    one = results.observables[name][b]
    off = (one.mean - exact[b]) / one.error if one.error > 0 else math.nan
    return number(exact[b], ".7g"), number(off, "+.1f")


def diagnostics(results: Results) -> str:
    """Numbers of the whole run, and those of every temperature, with what they mean."""
    single, by_beta = [], {}
    for name, value in results.diagnostics.items():
        numbers = np.atleast_1d(np.asarray(value, np.float64))
        if np.isnan(numbers).all() or numbers.ndim > 1:
            continue
        if len(numbers) == 1:
            single.append((name, number(float(numbers[0])), MEANINGS.get(name, "")))
        elif len(numbers) in (len(results.betas), len(results.betas) - 1):
            by_beta[name] = numbers
    parts = []
    if single:
        parts.append(Table("Diagnostics", ("name", "value", "meaning"), single, (False, True, False)).html())
    if by_beta:
        rows = [
            (f"{beta:.6g}", *(number(float(v[b])) if b < len(v) else MISSING for v in by_beta.values()))
            for b, beta in enumerate(results.betas)
        ]
        heads = ("beta", *by_beta)
        parts.append(Table("Diagnostics at each temperature", heads, rows, (True,) * len(heads)).html())
        parts.append(items(f"{name}: {MEANINGS[name]}" for name in by_beta if name in MEANINGS))
    if results.equilibrated and len(results.betas) > 1:
        rows = [(f"{beta:.6g}", one.status, one.reason)
                for beta, one in zip(results.betas, results.equilibrated, strict=True)]  # fmt: skip
        heads = ("beta", "equilibrated", "why")
        parts.append(Table("Verdicts on equilibration", heads, rows, (True, False, False)).html())
    return "".join(parts)
