"""How far two distributions of the overlap are apart, and whether chance alone would put them there.

`mc.distribution_distance` for |q|: the distance int_0^1 |F_a - F_b| d|q| says by how much |q| has to be moved, on
average, to turn one distribution into the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mc.distribution_distance import RESAMPLES, Comparison, Cumulative, blocks_of_draws, compare
from mc.spin_glass import over_axes, overlap_distribution
from mc.statistics import estimate

OverlapComparison = Comparison  # its distance is in units of |q|, from 0 to 1


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


def compare_overlaps(
    a: OverlapBlocks, b: OverlapBlocks, seed: int = 0, resamples: int = RESAMPLES, most: int | None = None
) -> OverlapComparison:
    """Distance of P(|q|) of two independent runs of one system at one beta.

    seed, resamples, most: as of `mc.distribution_distance.compare`.

    Raises ValueError for different numbers of spins, and as `compare`.
    """
    if a.n_spins != b.n_spins:
        raise ValueError(f"overlaps of {a.n_spins} and of {b.n_spins} spins have no distance")
    one, other = (Cumulative(cumulative(run.probability), cumulative(run.pulls), run.status) for run in (a, b))
    return compare(one, other, 2.0 / a.n_spins, seed, resamples, most)


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
