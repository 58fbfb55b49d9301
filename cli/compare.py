"""`nmcmc compare A B ...`: do runs of one model agree, and what does each of them cost?"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from cli.compare_costs import cost_lines, costs_of
from cli.compared import Pair, Run
from cli.ensemble_results import is_ensemble
from cli.errors import UserError
from cli.results import judged, opened, refuse_mean_field
from cli.settings import KINETIC
from cli.status import describe
from cli.tables import OTHER_MODES
from mc.analysis import COOLED
from mc.chain import Chain, ChainError
from mc.chain_tree import Source
from mc.comparison import (
    Difference,
    compare_sides,
    sides_of,
)
from mc.efficiency import USABLE
from mc.merge import member_of, shared_streams
from mc.statistics import OTHER_MOVES, gravest

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
ALL_PAIRS = 4  # files up to which each is compared with each, beyond with the first only
MOST_BETAS = 4  # rows of a pair; beyond, the beta where the two are the furthest apart
SAME_BETA = 1e-9  # relative
WRONG = 4.0  # errors from an exact value, 1 in 16000 by chance
TITLES = {"abs_magnetization": "|m|", "abs_overlap": "|q|", "link_overlap": "q_link", "log_z": "ln Z"}
WORDS = {"abs_magnetization": "|m|", "abs_overlap": "|q|", "link_overlap": "the link overlap", "log_z": "ln Z",
         "P(energy)": "the distribution of the energy", "P(|m|)": "the distribution of |m|",
         "P(|q|)": "the distribution of |q|"}  # fmt: skip


def compare(files: Sequence[Path], as_json: bool) -> None:
    """Print both tables; UserError for files that have nothing in common, before any work."""
    chains = [chain_of(path) for path in files]
    if len(files) < 2:
        raise UserError(f"{files[0]} alone is nothing to compare; give two or more chain files")
    if len(files) > len(LETTERS):
        raise UserError(f"{len(files)} files are too many for one table; give at most {len(LETTERS)}")
    require_one_target(chains)
    betas, places = common_betas(chains)
    runs = []
    for letter, chain, own in zip(LETTERS, chains, places, strict=False):
        print(f"{letter}  {chain.path}: {describe(chain)}", flush=True)
        results = judged(chain)
        runs.append(Run(letter, chain, results, own, sides_of(chain, results, own)))
    for line in notes_on_streams(chains):
        print(line)
    together = combinations(runs, 2) if len(runs) <= ALL_PAIRS else ((runs[0], other) for other in runs[1:])
    pairs = [Pair(a, b, [compare_sides(*sides, seed=k) for k, sides in enumerate(zip(a.sides, b.sides, strict=True))])
             for a, b in together]  # fmt: skip
    for line in agreement_lines(pairs, betas) + exact_lines(runs, betas):
        print(line)
    trusted = [not any(abs(run.off("energy", k)) > WRONG for k in range(len(betas))) for run in runs]
    costs = costs_of(runs, betas)
    for line in cost_lines(costs, runs, trusted, any(pair.differ for pair in pairs)):
        print(line)
    print(f"nothing was written; look at one run with: nmcmc analyze {shlex.quote(str(files[0]))}", flush=True)
    if as_json:
        print(json.dumps(finite(as_object(runs, pairs, betas, costs))))


def chain_of(path: Path) -> Chain:
    """A chain file whose draws have a temperature; UserError for any other."""
    if is_ensemble(path):
        raise UserError(f"{path} is an ensemble of disorder samples, compare takes runs of one; look at its averages "
                        f"with: nmcmc analyze {shlex.quote(str(path))}")  # fmt: skip
    chain = opened(path)
    if chain.mode in COOLED:
        raise UserError(f"{path} is of mode {chain.mode}, whose draws are of no temperature; compare runs that "
                        "sample, such as those of --mode pt")  # fmt: skip
    refuse_mean_field(path, chain.mode)
    if not chain.n_draws:
        others = {"train": "a training", "distill": "a training"}
        what = others.get(chain.mode, "not begun")
        raise UserError(f"{path} has no draws (it is {what}); run it on, or compare a run of --mode nmcmc or nis")
    return chain


def require_one_target(chains: Sequence[Chain]) -> None:
    """UserError naming what makes two energy functions different."""
    first = chains[0]
    for other in chains[1:]:
        one, two = (chain.hamiltonian() for chain in (first, other))
        if (first.mode == KINETIC) != (other.mode == KINETIC):
            raise UserError(f"{first.path} and {other.path}: parallel dynamics has a law of its own, not that of "
                            "equilibrium; compare runs of --mode kinetic with each other")  # fmt: skip
        if one.fingerprint == two.fingerprint:
            continue
        raise UserError(f"{first.path} and {other.path} are runs of different models ({difference(first, other)}); "
                        "compare runs of one model with the same keys")  # fmt: skip


def difference(one: Chain, other: Chain) -> str:
    """Why two energy functions are not the same: the models, a key, the number of spins, or else the couplings."""
    models = [chain.config.get("model") for chain in (one, other)]
    if models[0] != models[1]:
        return f"{models[0]} and {models[1]}"
    if one.n_spins != other.n_spins:
        return f"{one.n_spins} and {other.n_spins} spins"
    keys, others = (chain.config.get("parameters") or {} for chain in (one, other))
    key = next((key for key in keys if key in others and keys[key] != others[key]), None)
    return "their couplings differ" if key is None else f"{key}={keys[key]} and {key}={others[key]}"


def common_betas(chains: Sequence[Chain]) -> tuple[np.ndarray, list[list[int]]]:
    """Betas that are in all files, (K,), and their places in each; UserError without one."""
    places = []
    for beta in chains[0].betas:
        found = [np.flatnonzero(np.isclose(chain.betas, beta, rtol=SAME_BETA, atol=0.0)) for chain in chains]
        if all(len(one) for one in found):
            places.append([int(one[0]) for one in found])
    if not places:
        said = "; ".join(f"{chain.path}: {spelled(chain.betas)}" for chain in chains)
        raise UserError(f"no beta is in all files ({said}); run one of them at a beta of the other")
    columns = [list(column) for column in zip(*places, strict=True)]
    return chains[0].betas[columns[0]], columns


def spelled(betas: np.ndarray) -> str:
    """All betas where these are few, else how many and from where to where."""
    few = ",".join(f"{beta:.6g}" for beta in betas[:6])
    return few if len(betas) <= 6 else f"{len(betas)} from {betas.min():.6g} to {betas.max():.6g}"


def notes_on_streams(chains: Sequence[Chain]) -> list[str]:
    """A note on each pair with chains of the same random numbers, also merged ones: its agreement says nothing."""
    try:
        members = [member_of(Source(chain.path)) for chain in chains]
    except ChainError as error:
        raise UserError(str(error)) from None
    held = {"run_id": "chains of one run", "rng_seed": "chains of one mode with the same --rng-seed"}
    notes = []
    for (i, a), (j, b) in combinations(enumerate(members), 2):
        key = shared_streams(a, b)
        if a.mode == b.mode and key:
            notes.append(f"note: {LETTERS[i]} and {LETTERS[j]} hold {held[key]}: their draws are not independent, "
                         "and that they agree says nothing")  # fmt: skip
    return notes


def agreement_lines(pairs: Sequence[Pair], betas: np.ndarray) -> list[str]:
    """A table of differences in errors and of p-values, one verdict a pair."""
    names = list(dict.fromkeys(one.name for pair in pairs for row in pair.found for one in row))
    lines = ["agreement: differences of means in their errors; p-values of distributions (P)",
             f"{'runs':<6}{'beta':>10}" + "".join(f"{TITLES.get(name, name):>11}" for name in names)]  # fmt: skip
    for pair in pairs:
        shown = range(len(betas)) if len(betas) <= MOST_BETAS else [pair.worst[0]]
        for k in shown:
            cells = {one.name: f"{one.sigma:+.1f}" if not math.isnan(one.sigma) else f"{one.p_value:.2g}"
                     for one in pair.found[k]}  # fmt: skip
            label = f"{pair.a.letter} - {pair.b.letter}"
            row = "".join(f"{cells.get(name, '-').replace('nan', '-'):>11}" for name in names)
            lines.append(f"{label:<6}{betas[k]:>10.6g}{row}")
    if len(betas) > MOST_BETAS:
        lines.append(f"(of {len(betas)} common betas that where the two are the furthest apart)")
    return lines + [verdict(pair, betas) for pair in pairs]


def verdict(pair: Pair, betas: np.ndarray) -> str:
    """Agree or differ, by what, and what is to be thought of the runs."""
    who = f"{pair.a.letter} and {pair.b.letter}"
    k, one = pair.worst
    marks = [f"{run.letter} is {status}: {', '.join(names)}" for run in (pair.a, pair.b)
             for status, names in troubles(run).items()]  # fmt: skip
    mark = f" [{'; '.join(marks)}]" if marks else ""
    if pair.agree is None:
        what = "nothing can be compared" if one is None else "cannot be told apart"
        return f"{who}: {what}: {blame(pair)}"
    if pair.agree:
        tests = sum(not math.isnan(test.p_value) for row in pair.found for test in row)
        of = f"the largest of {tests} differences" if tests > 1 else "the one difference"
        return f"{who}: agree (p = {pair.p_value:.2g} for {of}){mark}"
    what = WORDS.get(one.name, one.name)
    if math.isinf(one.sigma):
        by = "more than rounding, and both know it without error"
    elif math.isnan(one.sigma):
        by = f"{one.distance:.3g}, where chance makes {one.noise:.2g}"
    else:
        by = f"{abs(one.sigma):.1f} errors"
    return f"{who}: differ: {what} at beta {betas[k]:.6g} by {by} (p = {pair.p_value:.1g}{judge(pair, one, k)}){mark}"


def judge(pair: Pair, one: Difference, k: int) -> str:
    """Which of the two is right, by the exact energy or ln Z."""
    name = "log_z" if one.name == "log_z" else "energy"
    off = {run.letter: run.off(name, k) for run in (pair.a, pair.b)}
    if any(math.isnan(value) for value in off.values()):
        return ""
    what = "" if one.name in ("energy", "log_z") else " energy"
    said = [f"{letter} is {'right within' if abs(value) < WRONG else 'off by'} {abs(value):.1f} errors"
            for letter, value in sorted(off.items(), key=lambda item: abs(item[1]))]  # fmt: skip
    return f"; {' and '.join(said)} of the exact{what or ' value'}"


def troubles(run: Run) -> dict[str, list[str]]:
    """{status: observables} of what a run says with an error that cannot be believed."""
    found: dict[str, list[str]] = {}
    for side in run.sides:
        for name, one in side.estimates.items():
            if one.status not in USABLE and name not in found.get(one.status, []):
                found.setdefault(one.status, []).append(TITLES.get(name, name))
    return found


def blame(pair: Pair) -> str:
    """Which run keeps a pair from being compared, and what to do about it; short ones where neither is in trouble."""
    for fine in (USABLE, ("ok",)):
        said = []
        for run in (pair.a, pair.b):
            every = [one for side in run.sides for one in side.estimates.values()]
            status = gravest(one.status for one in every)
            if status not in fine:
                advice = next(one.advice for one in every if one.status == status)
                said.append(f"{run.letter} is {status}: {advice.replace(OTHER_MOVES, OTHER_MODES)}")
        if said:
            return "; ".join(said)
    return "no observable has an error"


def exact_lines(runs: Sequence[Run], betas: np.ndarray) -> list[str]:
    """How far all are off the exact energy and ln Z, where these are at hand: of many betas the furthest."""
    lines = []
    for name in ("energy", "log_z"):
        cells = []
        for run in runs:
            off = np.array([run.off(name, k) for k in range(len(betas))])
            if np.isnan(off).all():
                continue
            k = int(np.nanargmax(np.abs(off)))
            where = f" at beta {betas[k]:.6g}" if len(betas) > 1 else ""
            cells.append(f"{run.letter} {off[k]:+.1f}{where}{' (wrong)' if abs(off[k]) > WRONG else ''}")
        if cells:
            lines.append(f"errors from the exact {TITLES.get(name, name)}: {', '.join(cells)}")
    return lines or ["no exact value is at hand"]


def as_object(runs: Sequence[Run], pairs: Sequence[Pair], betas: np.ndarray, costs: list) -> dict[str, Any]:
    """The object of --json."""
    files = [{"name": run.letter, "out": str(run.chain.path), "mode": run.chain.mode,
              "model": run.chain.config.get("model"), "draws": run.chain.n_draws, "chains": run.chain.n_chains,
              "complete": run.chain.complete, "seconds": run.chain.seconds,
              "off_exact": {name: [run.off(name, k) for k in range(len(betas))] for name in ("energy", "log_z")}}
             for run in runs]  # fmt: skip
    compared = [{"a": pair.a.letter, "b": pair.b.letter, "agree": pair.agree, "p_value": pair.p_value,
                 "status": gravest(one.status for row in pair.found for one in row),
                 "results": [{"beta": float(beta)} | {one.name: asdict(one) for one in row}
                             for beta, row in zip(betas, pair.found, strict=True)]}
                for pair in pairs]  # fmt: skip
    return {"command": "compare", "files": files, "pairs": compared, "costs": [cost.plain(runs) for cost in costs]}


def finite(value: Any) -> Any:
    """NaN and infinities as null, at any depth."""
    if isinstance(value, dict):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
