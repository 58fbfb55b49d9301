"""The distance of two P(|q|), its error and its p-value, on series whose law is known.

Seeds are fixed; where a p-value is tested the false-alarm rate is `tests.enumerated.FALSE_ALARM`, 1e-4.
"""

import numpy as np
import pytest
from scipy import stats
from scipy.signal import lfilter

from mc.overlap_distance import OverlapBlocks, compare_overlaps, cumulative, folded, overlap_blocks
from mc.spin_glass import overlap_distribution
from mc.statistics import estimate
from tests.enumerated import FALSE_ALARM, combined_p_value

N = 64


def overlaps(rho, chains, draws, random, spread=1.0, n_spins=N):
    """Overlaps (chain, draw) of N spins, a function of an AR(1) process: tau_int = (1 + rho) / (2 (1 - rho))."""
    kicks = random.normal(size=(chains, draws + 300)) * np.sqrt(1 - rho**2)
    y = lfilter([1.0], [1.0, -rho], kicks, axis=1)[:, 300:]
    return 2 * np.rint((np.tanh(spread * y) + 1) * n_spins / 2) / n_spins - 1


def comparison(seed, one, other, resamples=500):
    """Of two independent series, each given by (rho, chains, draws[, spread])."""
    random = np.random.default_rng(seed)
    a, b = (overlap_blocks(overlaps(*run[:3], random, *run[3:]), N) for run in (one, other))
    return compare_overlaps(a, b, seed, resamples)


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("one", "other"),
    [((0.9, 4, 4000), (0.5, 2, 3000)), ((0.98, 4, 4000), (0.98, 4, 4000)), ((0.95, 2, 2000), (0.0, 1, 4000))],
    ids=["fast", "slow", "few blocks"],
)
def test_equal_laws_have_uniform_p_values(one, other):
    found = [comparison(seed, one, other) for seed in range(150)]
    p_values = np.array([c.p_value for c in found])
    assert stats.kstest(p_values, "uniform").pvalue > FALSE_ALARM
    assert stats.binomtest(int((p_values < 0.05).sum()), len(p_values), 0.05).pvalue > FALSE_ALARM
    # `noise` is the mean distance of equal laws: 150 distances that scatter by half of it.
    assert np.mean([c.noise for c in found]) == pytest.approx(np.mean([c.distance for c in found]), rel=0.2)
    assert np.mean([c.status == "ok" for c in found]) > 0.9


@pytest.mark.statistical
def test_a_slow_mode_that_tau_int_does_not_see():
    # Tempering has modes of small amplitude that outlive many draws: the window of the Gamma method closes first.
    # With 1000 blocks a run, a sixth of these p-values were below 0.05.
    random, taus = np.random.default_rng(11), []

    def run():
        fast, slow = (np.arctanh(0.999 * overlaps(rho, 4, 4000, random)) for rho in (0.1, 0.98))
        q = 2 * np.rint((np.tanh(1 + 0.5 * fast + 0.07 * slow) + 1) * N / 2) / N - 1
        taus.append(estimate(q).tau_int)
        return overlap_blocks(q, N)

    p_values = [compare_overlaps(run(), run(), seed, 300).p_value for seed in range(200)]
    assert np.median(taus) < 1.6  # of about 2: blocks show the mode in some runs only
    assert stats.kstest(p_values, "uniform").pvalue > FALSE_ALARM


@pytest.mark.statistical
def test_different_laws_are_seen_and_the_distance_has_its_error():
    # One long series of each law says what the distance is; 60 pairs of short ones must agree with it.
    one, other = (0.9, 4, 4000, 1.0), (0.8, 4, 4000, 0.8)
    random = np.random.default_rng(7)
    exact = [
        cumulative(overlap_distribution(overlaps(0.0, 1, 4_000_000, random, s), N).probability) for s in (1, 0.8)
    ]
    distance = 2 / N * np.abs(exact[0] - exact[1]).sum()
    found = [comparison(seed, one, other) for seed in range(60)]
    assert combined_p_value([c.p_value for c in found]) < 1e-50
    assert np.median([c.p_value for c in found]) < 0.01
    pulls = np.array([(c.distance - distance) / c.error for c in found])
    # Positive parts of noise add up where the laws are equal, so the distance is high by a part of its error.
    assert abs(pulls.mean()) < 0.6
    assert pulls.std() == pytest.approx(1.0, abs=0.4)  # 4 sigma of the spread of 60


def test_a_distance_is_an_area():
    # All of one run at |q| = 1, all of the other at |q| = 1/2: every overlap has to be moved by 1/2.
    a = overlap_blocks(np.tile([1.0, -1.0], (4, 500)), 4)
    b = overlap_blocks(np.tile([0.5, -0.5, 0.5], (4, 500)), 4)
    found = compare_overlaps(a, b, resamples=99)
    assert found.distance == pytest.approx(0.5)
    assert (found.error, found.noise, found.p_value) == pytest.approx((0.0, 0.0, 0.01), abs=1e-12)
    same = compare_overlaps(a, a, resamples=99)
    assert (same.distance, same.p_value) == (0.0, 1.0)


@pytest.mark.parametrize("n_spins", [1, 2, 7, 8])
def test_folding_adds_what_differs_in_sign_only(n_spins):
    q = np.abs(2 * np.arange(n_spins + 1) - n_spins)
    values = np.random.default_rng(1).random((3, n_spins + 1))
    expected = np.stack([values[:, q == size].sum(axis=1) for size in np.unique(q)], axis=1)
    assert folded(values) == pytest.approx(expected)
    assert cumulative(values)[:, -1] == pytest.approx(values.sum(axis=1))


def test_pairs_of_one_draw_stay_together():
    # Three copies of a series as three pairs say nothing new: same P(q), same errors.
    q = overlaps(0.9, 4, 2000, np.random.default_rng(3))
    one, three = overlap_blocks(q, N), overlap_blocks(np.repeat(q[..., None], 3, axis=2), N)
    assert three.probability == pytest.approx(one.probability)
    assert three.pulls == pytest.approx(one.pulls)
    assert one.pulls.sum(axis=0) == pytest.approx(np.zeros(N + 1), abs=1e-12)


def test_what_is_too_short_or_stuck_is_said():
    random = np.random.default_rng(5)
    good = overlap_blocks(overlaps(0.5, 4, 3000, random), N)
    short = overlap_blocks(overlaps(0.9, 2, 200, random), N)
    assert (good.status, short.status) == ("ok", "short")
    assert "run " in short.advice
    stuck = overlap_blocks(np.repeat([[0.0], [0.5], [1.0]], 500, axis=1), N)
    assert stuck.status == "not converged"
    assert compare_overlaps(good, short).status == "short"
    assert compare_overlaps(stuck, short).status == "not converged"


def test_one_draw_a_chain_is_no_crash():
    one = overlap_blocks(np.array([[0.0], [0.5], [-0.5]]), N)
    assert one.status == "short"
    assert np.isfinite(compare_overlaps(one, one).p_value)


def test_the_seed_decides_the_multipliers():
    runs = [overlap_blocks(overlaps(0.5, 2, 1000, np.random.default_rng(s)), N) for s in (1, 2)]
    assert compare_overlaps(*runs, seed=3) == compare_overlaps(*runs, seed=3)
    assert compare_overlaps(*runs, seed=3) != compare_overlaps(*runs, seed=4)


def test_bad_input_is_refused():
    q = overlaps(0.5, 2, 100, np.random.default_rng(1))
    with pytest.raises(ValueError, match="not on the grid of 63 spins"):
        overlap_blocks(q, 63)
    with pytest.raises(ValueError, match="shape"):
        overlap_blocks(q[0], N)
    with pytest.raises(ValueError, match="not on the grid"):
        overlap_blocks(q[:, :0], N)
    with pytest.raises(ValueError, match="64 and of 4 spins"):
        compare_overlaps(overlap_blocks(q, N), overlap_blocks(np.ones((2, 50)), 4))
    with pytest.raises(ValueError, match="two blocks"):
        compare_overlaps(overlap_blocks(q, N), OverlapBlocks(np.ones(N + 1) / (N + 1), np.zeros((1, N + 1))))
    with pytest.raises(ValueError, match="one resample"):
        compare_overlaps(overlap_blocks(q, N), overlap_blocks(q, N), resamples=0)
