"""Results as lines for people: a table, what must be thought of it, and the diagnostics."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mc.analysis import Results
from mc.equilibration import NO, NOT_SHOWN, YES
from mc.statistics import GRAVEST_FIRST, OTHER_MOVES, R_HAT_LIMIT, Estimate, gravest

ORDER = ("energy", "magnetization", "abs_magnetization", "m2", "m4", "binder", "heat_capacity", "susceptibility")
IN_SHORT = ("energy", "abs_magnetization", "log_z")  # columns of the table with one line a beta, and of alloys
IN_SHORT_OF_ALLOYS = ("formation_energy", "l10", "log_z")
NO_NEED = ("correlation_length", "xi_over_length")  # noise alone leaves none above the transition
OF_COOLING = "draws are ends of a cooling: their lowest energy counts, their averages are not those of equilibrium"
GOOD = "nothing to object: R-hat at most 1.05, chains of at least 50 tau_int, 20 effective draws"
SOLVED = "the equations are solved at every temperature"
LARGEST_REACTION = 0.6  # where second order is good to 0.05 in q (tests/test_mean_field.py)
OTHER_MODES = "use --mode pt, or wolff for a ferromagnet"  # what OTHER_MOVES are called here
FAR_SIGMA = 5
FEWEST_SWAPS = 0.01  # of the tries of a pair of neighbouring temperatures
NOISE_FACTOR = 1.5  # between an ESS and that of Gaussian log weights, from which it is called noise
IN_TABLE = ("log_z", "log_z_error", "log_z_exact", "log_z_sigma", "energy_exact")  # no need to say it twice


def table(results: Results) -> list[str]:
    """One line an observable and beta, all numbers; exact values beside those that have one."""
    names = names_of(results)
    if not names:
        return ["no draws yet"]
    lines = [f"{_title(results)}  {'observable':<18}{'mean':>14}{'error':>10}{'tau_int':>12}{'n_eff':>9}{'R-hat':>9}"]
    for b in range(len(results.betas)):
        for name in names:
            e = results.observables[name][b]
            cells = _cell(e.mean, 14, ".7g") + _cell(e.error, 10, ".2g")
            cells += f" {with_error(e.tau_int, e.tau_int_error):>11}"
            cells += _cell(e.n_eff, 9, ".4g" if e.n_eff < 1000 else ".7g" if e.n_eff > 1e7 else ".0f")
            cells += _cell(e.r_hat, 9, ".4f" if e.r_hat < 10 else ".3g")
            mark = "" if e.status == "ok" else f"  {e.status}"
            lines.append(f"{_place(results, b)}  {name:<18}{cells}{mark}{_beside_exact(results, name, b)}")
    return lines


def short_table(results: Results) -> list[str]:
    """One line a beta: energy, |m| and ln Z, the longest tau_int, the largest R-hat and the gravest status.

    Of alloys the formation energy and the L1_0 order.
    """
    columns = IN_SHORT_OF_ALLOYS if "formation_energy" in results.observables else IN_SHORT
    names = [name for name in columns if name in results.observables]
    if not names:
        return ["no draws yet"]
    titles = {"abs_magnetization": "<|m|>", "log_z": "ln Z", "formation_energy": "E_form"}
    lines = [_title(results) + "".join(f"{titles.get(name, name):>14}{'error':>10}" for name in names)
             + f"{'tau_int':>9}{'R-hat':>9}"]  # fmt: skip
    for b in range(len(results.betas)):
        row = [results.observables[name][b] for name in names]
        every = [estimates[b] for estimates in results.observables.values()]
        tau = max((e.tau_int for e in every if not math.isnan(e.tau_int)), default=math.nan)
        r_hat = max((e.r_hat for e in every if not math.isnan(e.r_hat)), default=math.nan)
        cells = "".join(_cell(e.mean, 14, ".7g") + _cell(e.error, 10, ".2g") for e in row)
        cells += _cell(tau, 9, ".3g") + _cell(r_hat, 9, ".4f" if r_hat < 10 else ".3g")
        status = gravest(e.status for e in every)
        lines.append(f"{_place(results, b)}{cells}{'' if status == 'ok' else '  ' + status}")
    return lines


def verdict(results: Results) -> list[str]:
    """What a reader must know before trusting the errors: one line for each kind of trouble, the gravest first."""
    if not names_of(results):
        return []
    if results.cooled:
        return [OF_COOLING]
    lines = []
    for status in GRAVEST_FIRST:
        found = [(name, b, estimates[b]) for name, estimates in results.observables.items()
                 if not name.endswith(NO_NEED)
                 for b in range(len(results.betas)) if estimates[b].status == status]  # fmt: skip
        if not found:
            continue
        names = [name for name in names_of(results) if any(name == entry[0] for entry in found)]
        betas = list(dict.fromkeys(named(results, b) for _, b, _ in found))
        where = f" at beta {_some(betas)}" if len(results.betas) > 1 else ""
        worst = max(found, key=lambda entry: _need(entry[2]))
        vector = "asymmetry" in results.diagnostics  # of couplings of vector spins, which have no cluster moves
        advice = worst[2].advice.replace(OTHER_MOVES, "use --mode pt" if vector else OTHER_MODES)
        if status == "not converged" and results.n_chains > 1:
            what = f"{results.n_chains} chains disagree: R-hat {worst[2].r_hat:.3g} for {worst[0]}"
            rest = f" ({_some(names)} too)" if (names := [name for name in names if name != worst[0]]) else ""
            lines.append(f"{status}: {what}{rest}{where}: {advice}")
            continue
        lines.append(f"{status}: {_some(names)}{where}: {advice}")
    if not any(line.startswith("poor overlap") for line in lines):
        lines += _broken_ladder(results)
    lines += _against_exact(results) + _dropped_modes(results) + _noisy_ess(results) + _large_reaction(results)
    apart = any(line.startswith("not converged") for line in lines)
    found = _equilibrated(results)
    good = SOLVED if "converged" in results.diagnostics else GOOD
    return (lines or [good]) + [line for line in found if not (apart and line.startswith(f"equilibrated: {YES}"))]


def _equilibrated(results: Results) -> list[str]:
    """The gravest verdict on equilibration, and where."""
    if not results.equilibrated:
        return []
    order = [NO, NOT_SHOWN, YES]
    worst = min(results.equilibrated, key=lambda verdict: order.index(verdict.status))
    betas = [named(results, b) for b, verdict in enumerate(results.equilibrated) if verdict.status == worst.status]
    where = f" at beta {_some(betas)}" if worst.status != YES and len(results.betas) > 1 else ""
    return [f"equilibrated: {worst.status}{where} ({worst.reason})"]


def _against_exact(results: Results) -> list[str]:
    """A line for each observable that is far from its exact value and claims to be good."""
    lines = []
    for name in names_of(results):
        exact = results.diagnostics.get(f"{name}_exact", [math.nan] * len(results.betas))
        off = [(e.mean - exact[b]) / e.error if e.error > 0 and e.status == "ok" else 0.0
               for b, e in enumerate(results.observables[name])]  # fmt: skip
        betas = [named(results, b) for b in range(len(off)) if abs(off[b]) > FAR_SIGMA]
        if betas:
            advice = "states are missing that no error bar can see; run longer, train further, or use --mode pt"
            lines.append(
                f"wrong: {name} at beta {_some(betas)} is over {FAR_SIGMA} sigma off its exact value: {advice}"
            )
    return lines


def _dropped_modes(results: Results) -> list[str]:
    """A line when states of a Monte Carlo chain find the sampler far worse than its own draws do."""
    ess, ess_mc = (np.array(results.diagnostics.get(name, []), ndmin=1) for name in ("ess", "ess_mc"))
    if ess.shape != ess_mc.shape or not (ess_mc < 0.5 * ess).any():
        return []
    worst = int(np.nanargmin(ess_mc / ess))
    found = f"{ess[worst]:.3f} on the sampler's own draws but {ess_mc[worst]:.3f} on Monte Carlo states"
    advice = "use a stronger prior, train further, or mix with sweeps (--mode nmcmc local=1)"
    return [f"dropped modes: ESS is {found} at beta {named(results, worst)}: {advice}"]


def _noisy_ess(results: Results) -> list[str]:
    """A line when the ESS is not what log weights of this spread have: rare draws decide it."""
    ess, gap = (np.array(results.diagnostics.get(name, []), ndmin=1) for name in ("ess", "dF"))
    if not ess.size or ess.shape != gap.shape:
        return []
    off = np.abs(np.log(ess) + 2.0 * gap)  # Gaussian log weights have ESS = exp(-2 dF)
    worst = int(np.nanargmax(off)) if np.isfinite(off).any() else 0
    if not off[worst] > math.log(NOISE_FACTOR):
        return []
    expected = math.exp(-2.0 * gap[worst])
    at = f"ESS {ess[worst]:.3g} but exp(-2 dF) = {expected:.2g} at beta {named(results, worst)}"
    return [f"noise: {at}: rare draws decide it; take more draws, a stronger sampler, or --mode pt"]


def _broken_ladder(results: Results) -> list[str]:
    """A line where neighbouring temperatures do not exchange, so that the replicas of one never reach the other."""
    rates = np.array(results.diagnostics.get("swap_acceptance", []), ndmin=1)
    broken = np.flatnonzero(rates < FEWEST_SWAPS)
    if not broken.size or rates.size != len(results.betas) - 1:
        return []
    if results.observables["energy"][0].n_draws < 1 / FEWEST_SWAPS:  # too few tries to know the rate
        return []
    worst = broken[rates[broken].argmin()]
    pair = f"beta {named(results, worst)} and {named(results, worst + 1)}"
    pair += f" swap {100 * rates[worst]:.2g} % of their tries"
    others = f", and {broken.size - 1} other pairs hardly more often" if broken.size > 1 else ""
    return [f"broken ladder: {pair}{others}: use more temperatures between them, or ladder=tuned"]


def _large_reaction(results: Results) -> list[str]:
    """A line where the second order of a mean field is no small correction to the first."""
    reaction = np.array(results.diagnostics.get("reaction", []), ndmin=1)
    far = [b for b in range(reaction.size) if reaction[b] > LARGEST_REACTION]
    if not far:
        return []
    where = _some([named(results, b) for b in far])
    worst = f"its second order is {reaction[far].max():.3g} of the field"
    return [f"beyond its range: {worst} (beta {where}): the expansion asks for far less; check with --mode kinetic"]


def diagnostics(results: Results) -> list[str]:
    """Names and numbers, one for each beta, without those that are not known or stand in the table."""
    lines = []
    for name, value in results.diagnostics.items():
        numbers = np.atleast_1d(np.asarray(value, np.float64))
        if np.isnan(numbers).all() or (name in IN_TABLE and len(results.betas) == 1):
            continue
        entries = [f"{number:.6g}" for number in numbers]
        lines.append(f"{name:>20}  {' '.join(entries[:8])}{' ...' if len(entries) > 8 else ''}")
    return lines


def names_of(results: Results) -> list[str]:
    """Names of the observables in the order of a table."""
    known = [name for name in ORDER if name in results.observables]
    return known + [name for name in results.observables if name not in ORDER]


def named(results: Results, b: int) -> str:
    """A temperature in words: its beta, and T of a model in eV."""
    kelvin = results.kelvin
    return f"{results.betas[b]:.6g}" + ("" if kelvin is None else f" ({kelvin[b]:.6g} K)")


def _title(results: Results) -> str:
    """Heads of the columns that `_place` fills."""
    return ("" if results.kelvin is None else f"{'T (K)':>9}") + f"{'beta':>10}"


def _place(results: Results, b: int) -> str:
    kelvin = results.kelvin
    return ("" if kelvin is None else f"{kelvin[b]:>9.6g}") + f"{results.betas[b]:>10.6g}"


def _need(estimate: Estimate) -> tuple[float, float]:
    """How bad it is: by R-hat where the chains disagree, else by how long they would have to be."""
    disagreement = estimate.r_hat if estimate.r_hat > R_HAT_LIMIT else 0.0
    return disagreement, 0.0 if math.isnan(estimate.tau_int) else estimate.tau_int


def _some(words: list[str]) -> str:
    return ", ".join(words[:4]) + (f" and {len(words) - 4} more" if len(words) > 4 else "")


def _beside_exact(results: Results, name: str, b: int) -> str:
    """The exact value of an observable, and how far off the estimate is in units of its error."""
    exact = results.diagnostics.get(f"{name}_exact", [])
    if b >= len(exact) or math.isnan(exact[b]):
        return ""
    e = results.observables[name][b]
    off = f" ({(e.mean - exact[b]) / e.error:+.1f} sigma)" if e.error > 0 else ""
    return f"  exact {exact[b]:.7g}{off}"


def with_error(value: float, error: float) -> str:
    """9.37(25): the error in units of the last digit shown, two digits of it; "-" where there is no value."""
    if math.isnan(value):
        return "-"
    if not (math.isfinite(error) and error > 0 and math.isfinite(value)):
        return f"{value:.3g}"
    places = max(0, 1 - math.floor(math.log10(error)))
    digits = round(error * 10**places)
    return f"{value:.{places}f}({digits})" if error < 10 else f"{value:.0f}({error:.0f})"


def _cell(value: Any, width: int, form: str) -> str:
    return f" {'-' if math.isnan(value) else format(value, form):>{width - 1}}"
