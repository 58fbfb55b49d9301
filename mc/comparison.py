"""Do two runs of one target at one beta agree? Differences of means in errors, p-values of distributions.

The observables of a run are functions of the same draws, so p-values of one pair of runs are not independent and may
not be multiplied as in Fisher's method. The smallest of m, times m, is a p-value whatever the correlations: the first
step of Holm's procedure. It is careful: of runs that agree, less than the stated share is called different.

Sources
    B. L. Welch, Biometrika 34, 28 (1947): two means whose errors are themselves estimates.
    S. Holm, Scand. J. Stat. 6, 65 (1979): the smallest of several p-values.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from mc.analysis import WEIGHTED, Results, has_pairs
from mc.chain_reader import Chain
from mc.distribution_distance import Cumulative, Draws, compare, on_common_points
from mc.overlap_distance import OverlapBlocks, compare_overlaps, overlap_blocks
from mc.statistics import Estimate, gravest
from mc.vector.hamiltonian import VectorHamiltonian
from mc.vector.profiles import BINS, on_grid
from mc.weighted_overlaps import pair_overlaps

MEANS = ("energy", "abs_magnetization", "m2", "alignment", "abs_overlap", "q2", "link_overlap", "log_z")
DISTRIBUTIONS = {"energy": "P(energy)", "abs_magnetization": "P(|m|)", "abs_overlap": "P(|q|)"}
LEVEL = 0.01  # p-value of a pair of runs below which they are said to differ
RESAMPLES, MOST_RESAMPLES = 1000, 100_000  # at first, and at most: p-values of many betas have to be small
ROUNDING = 1e-10  # of means that are known without error


@dataclass(frozen=True)
class Side:
    """One run at one beta.

    estimates: {name of MEANS: Estimate}. draws: {"energy", "abs_magnetization": Draws}. overlaps: P(q) with its
    blocks, where there are overlaps. chains: number of independent streams.
    """

    estimates: dict[str, Estimate]
    draws: dict[str, Draws]
    overlaps: OverlapBlocks | None
    chains: int


@dataclass(frozen=True)
class Difference:
    """What one observable says of two runs.

    sigma: difference of the means, first minus second, in units of its error; NaN for a distribution. distance,
    noise: of a distribution, as of `mc.distribution_distance.Comparison`; NaN for a mean. p_value: two-sided, NaN
    where nothing can be said. status: "ok", or the graver of the two runs'; "short", and no number, for a
    distribution of which a run has no two blocks.
    """

    name: str
    sigma: float = math.nan
    distance: float = math.nan
    noise: float = math.nan
    p_value: float = math.nan
    status: str = "ok"


def sides_of(chain: Chain, results: Results, places: Sequence[int]) -> list[Side]:
    """A run at some of its betas, given by their places in `chain.betas`; results: of `mc.analysis.analyse`."""
    log_weight = chain.sample_stats["log_weight"] if chain.mode in WEIGHTED else None
    energy, magnetization = (chain.posterior.get(name) for name in ("energy", "magnetization"))
    overlap = chain.posterior.get("overlap")
    hamiltonian, steps = chain.hamiltonian(), chain.n_spins
    if overlap is not None and isinstance(hamiltonian, VectorHamiltonian):
        overlap, steps = on_grid(overlap), BINS
    spins, kept = (chain.spins, chain.spin_draws) if has_pairs(chain, hamiltonian) else (None, None)
    found = []
    for b in places:
        weight = None if log_weight is None else log_weight[:, :, b]
        draws = {} if energy is None else {"energy": Draws(energy[:, :, b], weight)}
        if magnetization is not None:
            draws["abs_magnetization"] = Draws(np.abs(magnetization[:, :, b]), weight)
        blocks = None
        if overlap is not None:
            blocks = overlap_blocks(overlap[:, :, b], steps)
        elif spins is not None:
            blocks = pair_overlaps(spins[:, :, b], hamiltonian, None if weight is None else weight[:, kept]).blocks
        estimates = {name: results.observables[name][b] for name in MEANS if name in results.observables}
        found.append(Side(estimates, draws, blocks, chain.n_chains))
    return found


def compare_sides(
    a: Side, b: Side, seed: int = 0, resamples: int = RESAMPLES, most: int | None = MOST_RESAMPLES
) -> list[Difference]:
    """Everything that two independent runs of one target at one beta have in common.

    seed, resamples, most: of the bootstrap, as of `mc.distribution_distance.compare`.
    """
    found = []
    for name in MEANS:
        if name in a.estimates and name in b.estimates:
            found.append(compare_means(name, a.estimates[name], b.estimates[name], a.chains, b.chains))
    for name, title in DISTRIBUTIONS.items():
        if name in a.draws and name in b.draws:
            one, other, widths = on_common_points(a.draws[name], b.draws[name])
            result = compare(one, other, widths, seed, resamples, most) if enough(one, other) else None
        elif name == "abs_overlap" and a.overlaps is not None and b.overlaps is not None:
            there = enough(a.overlaps, b.overlaps)
            result = compare_overlaps(a.overlaps, b.overlaps, seed, resamples, most) if there else None
        else:
            continue
        if result is None:
            found.append(Difference(title, status="short"))
        else:
            found.append(Difference(title, math.nan, result.distance, result.noise, result.p_value, result.status))
    return found


def enough(*runs: Cumulative | OverlapBlocks) -> bool:
    """Whether each run has the two blocks that an error needs, and without which no distance can be judged."""
    return all(len(run.pulls) > 1 for run in runs)


def compare_means(name: str, a: Estimate, b: Estimate, chains_a: int = 1, chains_b: int = 1) -> Difference:
    """The difference of two independent means in units of sqrt(error_a^2 + error_b^2), with Welch's p-value.

    chains: how many chains are behind an error that comes from their scatter. Means known without error differ by
    infinitely many errors, or not at all.
    """
    status = gravest([a.status, b.status])
    error = math.hypot(a.error, b.error)
    apart = a.mean - b.mean
    if not math.isfinite(error) or not math.isfinite(apart):
        return Difference(name, status=status)
    if abs(apart) <= ROUNDING * max(abs(a.mean), abs(b.mean)) and error <= ROUNDING * abs(a.mean):
        return Difference(name, 0.0, p_value=1.0, status=status)
    if error == 0.0:
        return Difference(name, math.copysign(math.inf, apart), p_value=0.0, status=status)
    shares = [(one.error / error) ** 2 for one in (a, b)]
    spread = sum(
        share**2 / freedom(one, chains)
        for share, one, chains in zip(shares, (a, b), (chains_a, chains_b), strict=True)
    )
    sigma = apart / error
    return Difference(name, sigma, p_value=float(2.0 * stats.t.sf(abs(sigma), 1.0 / spread)), status=status)


def freedom(one: Estimate, chains: int) -> float:
    """Degrees of freedom of the square of an error, at least one.

    A variance from nu of them is uncertain by sqrt(2 / nu), that of the Gamma method by that of tau_int. Errors of
    chains that disagree come from `chains` means; those of weighted draws count for as many as these are worth.
    """
    if one.status == "not converged":
        return max(1.0, chains - 1.0)
    if math.isfinite(one.tau_int):
        known = one.tau_int_error > 0.0
        return max(1.0, 2.0 * (one.tau_int / one.tau_int_error) ** 2 if known else chains - 1.0)
    if math.isfinite(one.n_eff):
        return max(1.0, one.n_eff - 1.0)
    return max(1.0, chains - 1.0)


def off_exact(one: Estimate, exact: float) -> float:
    """How many errors a mean is off its exact value; NaN without error or exact value."""
    if not (one.error > 0.0 and math.isfinite(one.error) and math.isfinite(exact)):
        return math.nan
    return (one.mean - exact) / one.error


def combined_p_value(p_values: Iterable[float]) -> float:
    """The smallest p-value times their number, at most 1, right for any correlation; NaN are left out."""
    known = [p for p in p_values if not math.isnan(p)]
    return min(1.0, len(known) * min(known)) if known else math.nan
