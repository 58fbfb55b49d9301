"""How far two distributions of a number are apart, and whether chance alone would put them there.

The distance is the area between the two cumulative distributions, int |F_a - F_b| dx (the Wasserstein distance of
order 1: by how much x has to be moved, on average, to turn one into the other). Its error and p-value come from
blocks of draws longer than the correlations in time; weighted draws are independent, and any of them make a block. A
bootstrap multiplies the contribution of each block by a random number: around the distributions found it gives the
error; around no difference at all it gives the distances that chance makes, hence the p-value.

Sources
    H. R. Kuensch, Ann. Stat. 17, 1217 (1989): blocks of a stationary series as units of a bootstrap.
    X. Shao, J. Am. Stat. Assoc. 105, 218 (2010): random multipliers in place of the draw of blocks.
    J. Besag and P. Clifford, Biometrika 78, 301 (1991): a Monte Carlo p-value may stop once enough distances exceed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mc.statistics import Estimate, estimate, gravest
from mc.weighted import FEWEST_EFFECTIVE_DRAWS

BLOCK_TAU = 20  # integrated times in a block at least: its variance is then low by a twentieth
MOST_BLOCKS = 40  # of a run: longer blocks also hold slow modes too small for tau_int to see, as tempering has
FEWEST_BLOCKS = 12  # below this the errors, and p, are not known
RESAMPLES = 4000
ENOUGH_LARGER = 10  # of the distances by chance: the p-value is then known to a third
MOST_POINTS = 128  # at which two cumulative distributions are compared
INDEPENDENT_BLOCKS = 64  # of weighted draws


@dataclass(frozen=True)
class Cumulative:
    """A cumulative distribution, and what each block of draws contributes to its deviation from the true one.

    values: (K,), F at K points. pulls: (B, K); F has the covariance sum_b pulls_b pulls_b' B / (B - 1). status: as of
    `mc.statistics.Estimate`. freedom: degrees of freedom of that covariance, None for B - 1.
    """

    values: np.ndarray
    pulls: np.ndarray
    status: str = "ok"
    freedom: float | None = None


@dataclass(frozen=True)
class Comparison:
    """distance: in units of the number compared; error: one standard error of it.

    noise: mean distance of two runs like these if their distributions are the same (a distance is never negative).
    p_value: probability of this distance or a larger one in that case. status: "ok", or why not to trust the numbers.
    """

    distance: float
    error: float
    noise: float
    p_value: float
    status: str = "ok"


@dataclass(frozen=True)
class Draws:
    """Draws of one run at one beta: values (chain, draw) or, of several replicas, (chain, draw, replica).

    log_weight: (chain, draw) of independent weighted draws, None for Markov chains, whose draws are in order of time.
    Values without a weight (-inf) are not read, so that they may be infinite.
    """

    values: np.ndarray
    log_weight: np.ndarray | None = None

    def supported(self) -> np.ndarray:
        """The values, float64; those without a weight are that of the largest weight."""
        x = np.asarray(self.values, np.float64)
        if self.log_weight is None:
            return x
        if np.shape(self.log_weight) != x.shape[:2]:
            raise ValueError(f"log_weight: shape {np.shape(self.log_weight)}, that of the draws is {x.shape[:2]}")
        place = np.unravel_index(np.argmax(self.log_weight), x.shape[:2])
        none = np.isneginf(self.log_weight).reshape(x.shape[:2] + (1,) * (x.ndim - 2))
        return np.where(none, x[place], x)


def compare_distributions(
    a: Draws, b: Draws, seed: int = 0, resamples: int = RESAMPLES, most: int | None = None
) -> Comparison:
    """Distance of the distributions of a number in two independent runs of one target at one beta.

    They are compared at the values that occur, or at 128 quantiles of both runs together. Of replicas, each counts.
    seed, resamples, most: as of `compare`.

    Raises ValueError as `cumulative_at` and `compare`.
    """
    return compare(*on_common_points(a, b), seed, resamples, most)


def on_common_points(a: Draws, b: Draws) -> tuple[Cumulative, Cumulative, np.ndarray]:
    """Both cumulative distributions at `common_points`, and the widths (K,) between these: what `compare` takes."""
    points = common_points(a, b)
    return cumulative_at(points, a), cumulative_at(points, b), np.diff(points, append=points[-1])


def common_points(a: Draws, b: Draws) -> np.ndarray:
    """Rising values (K,) at which two cumulative distributions are compared; at most 128."""
    values = [draws.supported().ravel() for draws in (a, b)]
    points = np.unique(np.concatenate(values))
    if len(points) > MOST_POINTS:
        # Each run gets half of the points: a short run beside a long one is not to be without.
        levels = np.linspace(0.0, 1.0, MOST_POINTS // 2)
        points = np.unique(np.concatenate([np.quantile(x, levels, method="inverted_cdf") for x in values]))
    return points


def cumulative_at(points: np.ndarray, draws: Draws) -> Cumulative:
    """F at rising points (K,), the last no less than any value, with its blocks.

    Blocks of a Markov chain have at least 20 tau_int of the number, of its square about the mean or of [x > median],
    whichever is slowest. status: "short" with fewer than 12 blocks, "not converged" where chains disagree about one
    of these, "constant" where nothing moves, "too few effective draws" of weights.

    Raises ValueError for shapes that do not match, values that are not finite, or weights that are all zero, NaN or
    infinite.
    """
    x = draws.supported()
    if x.ndim not in (2, 3) or not np.isfinite(x).all() or not x.size:
        raise ValueError(f"values: finite numbers (chain, draw) or (chain, draw, replica) are needed, got {x.shape}")
    chains, length = x.shape[:2]
    freedom = None
    if draws.log_weight is None:
        weight = np.full((chains, length), 1.0 / (chains * length))
        slow = [estimate(f.reshape(chains, length, -1).mean(axis=-1))
                for f in (x, (x - x.mean()) ** 2, x > np.median(x))]  # fmt: skip
        number, status, _ = blocks_of_draws(chains, length, slow)
        if np.ptp(x) == 0:
            status = "constant"
    else:
        if np.shape(draws.log_weight) != x.shape[:2]:
            raise ValueError(
                f"log_weight {np.shape(draws.log_weight)}: the shape of the draws, {x.shape[:2]}, is needed"
            )
        largest = np.max(draws.log_weight)
        if not np.isfinite(largest):
            what = "every weight is zero" if np.isneginf(largest) else "nan or +inf among them"
            raise ValueError(f"log_weight: {what}; finite ones, or -inf beside finite ones, are needed")
        weight = np.exp(draws.log_weight - largest)
        weight /= weight.sum()
        n_eff = 1.0 / np.sum(weight**2)
        number = np.arange(weight.size).reshape(weight.shape) % min(INDEPENDENT_BLOCKS, weight.size)
        status = "ok" if n_eff >= FEWEST_EFFECTIVE_DRAWS else "too few effective draws"
        freedom = max(1.0, min(n_eff - 1.0, number.max()))
    weight, number = (np.broadcast_to(v.reshape(v.shape + (1,) * (x.ndim - 2)), x.shape) for v in (weight, number))
    weight = weight * (chains * length / x.size)  # replicas share that of their draw
    table = np.zeros((number.max() + 1, len(points)))
    np.add.at(table, (number.ravel(), np.searchsorted(points, x.ravel())), weight.ravel())
    values = np.cumsum(table.sum(axis=0))
    pulls = np.cumsum(table, axis=1) - table.sum(axis=1, keepdims=True) * values
    return Cumulative(values, pulls, status, freedom)


def compare(
    a: Cumulative,
    b: Cumulative,
    widths: np.ndarray | float,
    seed: int = 0,
    resamples: int = RESAMPLES,
    most: int | None = None,
) -> Comparison:
    """The area between two cumulative distributions at the same K points, `widths` (K,) apart.

    Multipliers are normal; for the p-value each run's are divided by sqrt(chi^2 / freedom), as in Student's test,
    since its errors come from so many blocks. seed: of the multipliers. p cannot be below 1 / (resamples + 1); with
    `most`, further resamples are drawn, up to that number, until ten distances by chance exceed the one found.

    Raises ValueError for fewer than two blocks in a run, or no resamples.
    """
    if min(len(a.pulls), len(b.pulls)) < 2 or resamples < 1:
        blocks = f"{len(a.pulls)} and {len(b.pulls)} blocks, {resamples} resamples"
        raise ValueError(f"compare: {blocks}: two blocks a run and one resample are needed; run longer")
    random = np.random.default_rng(seed)
    apart = a.values - b.values
    distance = float((widths * np.abs(apart)).sum())

    def by_chance() -> tuple[np.ndarray, np.ndarray]:
        moved_a, scale_a = resampled(a, random, resamples)
        moved_b, scale_b = resampled(b, random, resamples)
        chance = (widths * np.abs(scale_a * moved_a - scale_b * moved_b)).sum(axis=1)
        return moved_a - moved_b, chance

    moved, chance = by_chance()
    error = float((widths * np.abs(apart + moved)).sum(axis=1).std())
    noise, drawn = float(chance.mean()), resamples
    larger = int((chance >= distance * (1.0 - 1e-9)).sum())
    while larger < ENOUGH_LARGER and drawn + resamples <= (most or 0):
        _, chance = by_chance()
        larger, drawn = larger + int((chance >= distance * (1.0 - 1e-9)).sum()), drawn + resamples
    return Comparison(distance, error, noise, (1 + larger) / (drawn + 1), gravest([a.status, b.status]))


def resampled(run: Cumulative, random: np.random.Generator, resamples: int) -> tuple[np.ndarray, np.ndarray]:
    """Random deviations of the cumulative distribution (resamples, K), and Student's factors (resamples, 1)."""
    blocks = len(run.pulls)
    freedom = blocks - 1 if run.freedom is None else run.freedom
    moved = random.standard_normal((resamples, blocks)) @ run.pulls * math.sqrt(blocks / (blocks - 1))
    return moved, np.sqrt(freedom / random.chisquare(freedom, (resamples, 1)))


def blocks_of_draws(chains: int, draws: int, slow: list[Estimate]) -> tuple[np.ndarray, str, str]:
    """Block numbers of all draws (chain, draw), blocks no longer than series like `slow` need; status and advice."""
    tau = max((one.tau_int for one in slow if math.isfinite(one.tau_int)), default=0.5)
    length = max(math.ceil(BLOCK_TAU * tau), math.ceil(chains * draws / MOST_BLOCKS))
    a_chain = max(1, draws // length)
    number = np.arange(chains)[:, None] * a_chain + np.arange(draws) * a_chain // draws
    status = gravest([one.status for one in slow if one.status == "not converged"])
    advice = next((one.advice for one in slow if one.status == status), "") if status != "ok" else ""
    if status == "ok" and chains * a_chain < FEWEST_BLOCKS:
        status = "short"
        blocks, of_each = chains * a_chain, f"of {BLOCK_TAU} tau_int"
        counted = f"1 block {of_each}" if blocks == 1 else f"{blocks} blocks {of_each}"
        advice = f"{counted}: run {FEWEST_BLOCKS // blocks + 1}x longer"
    return number, status, advice
