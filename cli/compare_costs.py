"""The second table of `nmcmc compare`: what an error costs in each run, and who is the cheapest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cli.compared import Run
from mc.efficiency import USABLE, Efficiency, best, efficiency, tied

OBSERVABLES = ("energy", "q2")
MOST_BETAS = 2  # tables of an observable; beyond, that of the beta which costs the most


@dataclass(frozen=True)
class Cost:
    """What an observable costs at one beta, in the order of the runs; ess: of weights, NaN without."""

    observable: str
    beta: float
    rows: list[Efficiency]
    ess: list[float]

    def plain(self, runs: Sequence[Run]) -> dict[str, Any]:
        """JSON types."""
        names = ("per_sample", "per_sample_total", "one_second", "one_second_total")
        rows = [{"name": run.letter, **asdict(row), **{name: getattr(row, name) for name in names}, "ess": ess}
                for run, row, ess in zip(runs, self.rows, self.ess, strict=True)]  # fmt: skip
        return {"observable": self.observable, "beta": self.beta, "files": rows}


def costs_of(runs: Sequence[Run], betas: np.ndarray) -> list[Cost]:
    """One entry an observable that all runs have and a common beta."""
    found = []
    for name in OBSERVABLES:
        for k, beta in enumerate(betas):
            if not all(name in run.sides[k].estimates for run in runs):
                continue
            rows = [efficiency(run.sides[k].estimates[name], run.chain.seconds) for run in runs]
            found.append(Cost(name, float(beta), rows, [ess_of(run, k) for run in runs]))
    return found


def ess_of(run: Run, k: int) -> float:
    """ESS of the proposals of a sampler, NaN in a run without."""
    values = np.ravel(run.results.diagnostics.get("ess", []))
    return float(values[run.places[k]]) if len(values) == len(run.results.betas) else math.nan


def cost_lines(costs: Sequence[Cost], runs: Sequence[Run], trusted: Sequence[bool], differ: bool) -> list[str]:
    """A table for each observable: error, CPU seconds, an independent sample, the error of one second; the winner.

    trusted: runs that no exact value speaks against. differ: whether some runs disagree.
    """
    lines = ["", "efficiency: CPU seconds of all threads, those of all temperatures of a run together"]
    uncounted = [run.letter for run in runs if not run.chain.seconds.get("sample", math.nan) > 0.0]
    timed = len(uncounted) < len(runs)
    if timed:
        lines.append("s/indep: for an independent sample; err*sqrt(s): the error that a second buys; +b+t: building "
                     "and training counted")  # fmt: skip
    if uncounted:
        lines.append(f"no CPU seconds are known of {', '.join(uncounted)} (merged, or from before they were counted)")
    for name in OBSERVABLES:
        there = [cost for cost in costs if cost.observable == name]
        shown = there if len(there) <= MOST_BETAS else [max(there, key=hardness)]
        for cost in shown:
            allowed = [row.status in USABLE and ok for row, ok in zip(cost.rows, trusted, strict=True)]
            lines += table(cost, runs, allowed, timed)
            if len(shown) < len(there):
                lines.append(f"(of {len(there)} common betas that where an independent sample costs the most)")
            lines += winners(cost, runs, allowed) if timed else []
            if not all(allowed):
                out = ", ".join(run.letter for run, ok in zip(runs, allowed, strict=True) if not ok)
                lines.append(f"(without {out}, whose errors are not to be trusted)")
    if differ and timed:
        lines.append("some runs differ: an error counts only in a run that is right")
    return lines


def hardness(cost: Cost) -> float:
    """CPU seconds, or else draws, of an independent sample in the best of the runs."""
    for values in ([row.per_sample for row in cost.rows], [row.tau_int for row in cost.rows]):
        known = [value for value in values if math.isfinite(value)]
        if known:
            return min(known)
    return 0.0


def table(cost: Cost, runs: Sequence[Run], allowed: Sequence[bool], timed: bool) -> list[str]:
    """One line a run, without the columns that nothing is known of; ratios to the best of those that are allowed."""
    columns = [("error", 9, ".2g", [row.error for row in cost.rows]),
               ("tau_int", 9, ".3g", [row.tau_int for row in cost.rows]),
               ("n_eff", 10, ".4g", [row.n_eff for row in cost.rows]),
               ("ESS", 7, ".3f", cost.ess)]  # fmt: skip
    if timed:
        columns += [(part, 8, ".2f", [run.chain.seconds.get(part, math.nan) for run in runs])
                    for part in ("build", "train", "sample")]  # fmt: skip
        columns += [("s/indep", 10, ".2g", [row.per_sample for row in cost.rows]),
                    ("+b+t", 9, ".2g", [row.per_sample_total for row in cost.rows])]  # fmt: skip
        for title, name in (("err*sqrt(s)", "one_second"), ("+b+t", "one_second_total")):
            values = [getattr(row, name) for row in cost.rows]
            least = best(values, allowed)
            ratios = [value / values[least] if ok and least is not None else math.nan
                      for value, ok in zip(values, allowed, strict=True)]  # fmt: skip
            columns += [(title, 13, ".3g", values), ("ratio", 8, ".3g", ratios)]
    kept = [column for column in columns if any(map(math.isfinite, column[3]))]
    head = "".join(f"{title:>{width}}" for title, width, *_ in kept)
    lines = [f"{cost.observable} at beta {cost.beta:.6g}", f"{'run':<4}{'mode':<14}{head}"]
    for i, run in enumerate(runs):
        cells = "".join(f"{format(values[i], form) if math.isfinite(values[i]) else '-':>{width}}"
                        for _, width, form, values in kept)  # fmt: skip
        mark = "" if cost.rows[i].status == "ok" else f"  {cost.rows[i].status}"
        lines.append(f"{run.letter:<4}{run.chain.mode:<14}{cells}{mark}")
    return lines


def winners(cost: Cost, runs: Sequence[Run], allowed: Sequence[bool]) -> list[str]:
    """Which run has the smallest error in equal CPU time, without and with building and training."""
    lines = []
    for title, name in (("sampling alone", "one_second"), ("building and training counted", "one_second_total")):
        values = [getattr(row, name) for row in cost.rows]
        first = best(values, allowed)
        if first is None:
            lines.append(f"best, {title}: none, no run has an error of the {cost.observable} to be trusted")
            continue
        said = []
        for i in sorted(range(len(runs)), key=lambda i: values[i]):
            if i != first and allowed[i] and math.isfinite(values[i]):
                equal = tied(values[i], values[first], cost.rows[i].uncertainty, cost.rows[first].uncertainty)
                mark = " (the same, as far as errors are known)" if equal else ""
                said.append(f"{runs[i].letter} {values[i] / values[first]:.3g} times{mark}")
        rest = f"; error in equal CPU time: {', '.join(said)}" if said else ""
        lines.append(f"best, {title}: {runs[first].letter} ({runs[first].chain.mode}){rest}")
    return lines
