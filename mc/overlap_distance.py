"""How far two distributions of the overlap are apart, and whether chance alone would put them there.

The distance is the area between the two cumulative distributions of |q|, int_0^1 |F_a - F_b| d|q| (the Wasserstein
distance of order 1: by how much |q| has to be moved, on average, to turn one into the other). Its error and p-value
come from blocks of draws longer than the correlations in time. A bootstrap multiplies the contribution of each block
to P(q) by a random number: around the distributions found it gives the error; around no difference at all it gives
the distances that chance makes, hence the p-value.

Sources
    H. R. Kuensch, Ann. Stat. 17, 1217 (1989): blocks of a stationary series as units of a bootstrap.
    X. Shao, J. Am. Stat. Assoc. 105, 218 (2010): random multipliers in place of the draw of blocks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mc.spin_glass import over_axes, overlap_distribution
from mc.statistics import Estimate, estimate

BLOCK_TAU = 20  # integrated times in a block at least: its variance is then low by a twentieth
MOST_BLOCKS = 40  # of a run: longer blocks also hold slow modes too small for tau_int to see, as tempering has
FEWEST_BLOCKS = 12  # below this the errors, and p, are not known
RESAMPLES = 4000
GRAVEST_FIRST = ("not converged", "too few effective draws", "short")


@dataclass(frozen=True)
class OverlapBlocks:
    """P(q) of a run, and what each block of its draws contributes to the deviation from the true one.

    probability: (N + 1,), of q from -1 to 1 in steps of 2 / N, sum 1. pulls: (B, N + 1), sums zero along both axes;
    P(q) has the covariance sum_b pulls_b pulls_b' B / (B - 1). status, advice: as of `mc.statistics.Estimate`.
    """

    probability: np.ndarray
    pulls: np.ndarray
    status: str = "ok"
    advice: str = ""

    @property
    def n_spins(self) -> int:
        return len(self.probability) - 1


@dataclass(frozen=True)
class OverlapComparison:
    """distance: in units of |q|, from 0 to 1; error: one standard error of it.

    noise: mean distance of two runs like these if their P(|q|) are the same (a distance is never negative).
    p_value: probability of this distance or a larger one in that case. status: "ok", or why not to trust the numbers.
    """

    distance: float
    error: float
    noise: float
    p_value: float
    status: str = "ok"


def compare_overlaps(
    a: OverlapBlocks, b: OverlapBlocks, seed: int = 0, resamples: int = RESAMPLES
) -> OverlapComparison:
    """Distance of P(|q|) of two independent runs of one system at one beta.

    Multipliers are normal; for the p-value each run's are divided by sqrt(chi^2 / (B - 1)), as in Student's test,
    since its errors come from B blocks. seed: of the multipliers. p cannot be below 1 / (resamples + 1).

    Raises ValueError for different numbers of spins, fewer than two blocks in a run, or no resamples.
    """
    if a.n_spins != b.n_spins:
        raise ValueError(f"overlaps of {a.n_spins} and of {b.n_spins} spins have no distance")
    if min(len(a.pulls), len(b.pulls)) < 2 or resamples < 1:
        blocks = f"{len(a.pulls)} and {len(b.pulls)} blocks, {resamples} resamples"
        raise ValueError(f"compare_overlaps: {blocks}: two blocks a run and one resample are needed; run longer")
    random = np.random.default_rng(seed)
    apart = cumulative(a.probability) - cumulative(b.probability)
    moved_a, scale_a = resampled(a, random, resamples)
    moved_b, scale_b = resampled(b, random, resamples)
    width = 2.0 / a.n_spins
    distance = width * float(np.abs(apart).sum())
    around = width * np.abs(apart + moved_a - moved_b).sum(axis=1)
    chance = width * np.abs(scale_a * moved_a - scale_b * moved_b).sum(axis=1)
    larger = int((chance >= distance * (1.0 - 1e-9)).sum())
    status = gravest([a.status, b.status])
    p_value = (1 + larger) / (resamples + 1)
    return OverlapComparison(distance, float(around.std()), float(chance.mean()), p_value, status)


def resampled(run: OverlapBlocks, random: np.random.Generator, resamples: int) -> tuple[np.ndarray, np.ndarray]:
    """Random deviations of the cumulative distribution (resamples, K), and Student's factors (resamples, 1)."""
    pulls = cumulative(run.pulls)
    freedom = len(pulls) - 1
    moved = random.standard_normal((resamples, len(pulls))) @ pulls * math.sqrt(len(pulls) / freedom)
    return moved, np.sqrt(freedom / random.chisquare(freedom, (resamples, 1)))


def folded(values: np.ndarray) -> np.ndarray:
    """Sums (..., N // 2 + 1) over q and -q of values (..., N + 1): a distribution of |q|, from 0 or 1 / N to 1."""
    n_spins = values.shape[-1] - 1
    middle = (n_spins + 1) // 2
    upper = values[..., middle:].copy()
    lower = values[..., ::-1][..., middle:]
    twice = np.arange(upper.shape[-1]) > 0 if n_spins % 2 == 0 else np.ones(upper.shape[-1], bool)  # q = 0 is itself
    upper[..., twice] += lower[..., twice]
    return upper


def cumulative(values: np.ndarray) -> np.ndarray:
    """Cumulative sums of `folded` values, (..., N // 2 + 1)."""
    return np.cumsum(folded(values), axis=-1)


def overlap_blocks(overlap: np.ndarray, n_spins: int) -> OverlapBlocks:
    """P(q) of a Markov chain with its blocks; overlap: (chain, draw) or, for several pairs, (chain, draw, pair).

    Chains are independent of each other, draws in order of time. Blocks have at least 20 tau_int of |q|, q^2 or
    [|q| > its median], whichever is slowest. status: "short" with fewer than 12 blocks, "not converged" where chains
    disagree about one of the three.

    Raises ValueError for no draws, or numbers that are no overlaps of N spins.
    """
    q = np.asarray(overlap, np.float64)
    if q.ndim not in (2, 3):
        raise ValueError(f"overlap: shape {q.shape}, (chain, draw) or (chain, draw, pair) is needed")
    probability = overlap_distribution(q.reshape(len(q), -1), n_spins).probability
    size = np.abs(q)
    slow = [estimate(over_axes(f)) for f in (size, size**2, size > np.median(size))]
    number, status, advice = blocks_of_draws(*q.shape[:2], slow)
    place = np.rint((q + 1.0) * (n_spins / 2.0)).astype(np.int64)
    of_block = np.broadcast_to(number.reshape(number.shape + (1,) * (q.ndim - 2)), q.shape)
    counts = np.zeros((number.max() + 1, n_spins + 1))
    np.add.at(counts, (of_block.ravel(), place.ravel()), 1.0)
    pulls = (counts - counts.sum(axis=1, keepdims=True) * probability) / q.size
    return OverlapBlocks(probability, pulls, status, advice)


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
        advice = (
            f"{chains * a_chain} blocks of {BLOCK_TAU} tau_int: run {FEWEST_BLOCKS // (chains * a_chain) + 1}x longer"
        )
    return number, status, advice


def gravest(statuses: list[str]) -> str:
    """The gravest of several verdicts."""
    return next((status for status in GRAVEST_FIRST if status in statuses), "ok")
