"""Two runs of one law agree, two of different laws do not: on series whose law is known.

Seeds are fixed. Where p-values are tested the false-alarm rate is `tests.enumerated.FALSE_ALARM`, 1e-4.
"""

import math

import numpy as np
import pytest
from scipy import stats
from scipy.signal import lfilter

from mc.comparison import (
    LEVEL,
    Side,
    combined_p_value,
    compare_means,
    compare_sides,
    enough,
    freedom,
    off_exact,
)
from mc.distribution_distance import Cumulative, Draws, common_points, compare, compare_distributions, cumulative_at
from mc.efficiency import best, efficiency, tied
from mc.overlap_distance import overlap_blocks
from mc.statistics import Estimate, estimate
from mc.weighted import effective_sample_size, weighted_estimate
from tests.enumerated import FALSE_ALARM

PAIRS = 100


def correlated(random, rho, chains, draws):
    """AR(1) of mean 0 and variance 1: tau_int = (1 + rho) / (2 (1 - rho))."""
    kicks = random.normal(size=(chains, draws + 200)) * math.sqrt(1 - rho**2)
    return lfilter([1.0], [1.0, -rho], kicks, axis=1)[:, 200:]


def markov(random, rho=0.8, chains=4, draws=1000, shift=0.0):
    """A Side whose energy is an AR(1) process and whose |m| is a function of it, as in a run."""
    x = correlated(random, rho, chains, draws) + shift
    size = np.round(np.abs(np.tanh(x)), 2)
    table = {"energy": estimate(x), "abs_magnetization": estimate(size), "m2": estimate(size**2)}
    return Side(table, {"energy": Draws(x), "abs_magnetization": Draws(size)}, None, chains)


def weighted(random, width=1.3, draws=1500, shift=0.0):
    """Draws of a normal law that is too wide, with the weights that make it one of variance 1."""
    y = random.normal(size=(1, draws)) * width
    x, log_weight = y + shift, -(y**2) * (1 - 1 / width**2) / 2
    size = np.round(np.abs(np.tanh(x)), 2)
    table = {"energy": weighted_estimate(x, log_weight), "abs_magnetization": weighted_estimate(size, log_weight),
             "m2": weighted_estimate(size**2, log_weight)}  # fmt: skip
    return Side(table, {"energy": Draws(x, log_weight), "abs_magnetization": Draws(size, log_weight)}, None, 1)


def p_values(make_a, make_b, pairs=PAIRS):
    """{test: p-values of independent pairs of runs}, and those of each pair together."""
    random = np.random.default_rng(17)
    rows = [compare_sides(make_a(random), make_b(random), seed, 200, None) for seed in range(pairs)]
    together = np.array([combined_p_value(one.p_value for one in row) for row in rows])
    return {one.name: np.array([row[k].p_value for row in rows]) for k, one in enumerate(rows[0])}, together


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("make_a", "make_b"),
    [(markov, markov), (markov, weighted), (weighted, lambda random: weighted(random, 2.0, 900))],
    ids=["two chains", "chain and weights", "weights and poorer weights"],
)
def test_runs_of_one_law_agree(make_a, make_b):
    """Each test is uniform below, all together are called different no more often than they say."""
    single, together = p_values(make_a, make_b)
    assert set(single) == {"energy", "abs_magnetization", "m2", "P(energy)", "P(|m|)"}
    for name, found in single.items():
        assert stats.kstest(found, "uniform").pvalue > FALSE_ALARM, name
    for level in (0.2, 0.05):
        wrong = int((together < level).sum())
        assert stats.binomtest(wrong, PAIRS, level, alternative="greater").pvalue > FALSE_ALARM


@pytest.mark.statistical
@pytest.mark.parametrize("make", [markov, weighted])
def test_a_shift_of_five_errors_is_found(make):
    """A power of 97 %: normal noise of one error leaves 5 above the 3.1 of p = 0.01 / 5; 30 of 40 is far below."""
    probe = make(np.random.default_rng(1)).estimates["energy"]
    shift = 5.0 * math.sqrt(2.0) * probe.error
    _, together = p_values(make, lambda random: make(random, shift=shift), pairs=40)
    assert (together < LEVEL).sum() > 30


@pytest.mark.statistical
def test_equal_means_with_different_spread_are_told_apart_by_the_distribution_alone():
    random = np.random.default_rng(5)
    a, b = Draws(correlated(random, 0.5, 4, 3000)), Draws(1.2 * correlated(random, 0.5, 4, 3000))
    means = compare_means("energy", estimate(a.values), estimate(b.values), 4, 4)
    assert means.p_value > 0.05
    assert compare_distributions(a, b, most=100_000).p_value < 1e-3


def test_the_distance_of_shifted_laws_is_the_shift():
    random = np.random.default_rng(3)
    x = random.normal(size=(4, 5000))
    found = compare_distributions(Draws(x), Draws(x + 0.25), resamples=200)
    assert found.distance == pytest.approx(0.25, rel=0.05)  # 128 points instead of all
    assert found.p_value == 1 / 201


def test_the_distance_of_a_few_levels_is_exact():
    # Half of the draws have to move by 4.
    a, b = np.tile([0.0, 4.0], (2, 400)), np.tile([0.0, 0.0], (2, 400))
    found = compare_distributions(Draws(a), Draws(b), resamples=50)
    assert found.distance == pytest.approx(2.0)
    assert found.status == "constant"


def test_equal_weights_and_no_weights_have_the_same_distribution():
    x = np.random.default_rng(2).integers(0, 9, (3, 400)).astype(float)
    points = common_points(Draws(x), Draws(x))
    plain, weighted_ = (cumulative_at(points, Draws(x, w)) for w in (None, np.zeros((3, 400))))
    assert plain.values == pytest.approx(weighted_.values)
    assert plain.values[-1] == pytest.approx(1.0)
    # Independent draws: the variance of F from blocks of time and from blocks of any draws, 40 and 64 of them.
    variance = [np.sum(one.pulls**2) for one in (plain, weighted_)]
    assert variance[0] == pytest.approx(variance[1], rel=1.0)


def test_copies_of_a_replica_say_nothing_new():
    x = correlated(np.random.default_rng(4), 0.7, 2, 1000)
    points = common_points(Draws(x), Draws(x))
    one, two = (cumulative_at(points, Draws(v)) for v in (x, np.repeat(x[..., None], 2, axis=2)))
    assert one.values == pytest.approx(two.values)
    assert one.pulls == pytest.approx(two.pulls)


def test_more_resamples_are_drawn_only_where_few_exceed():
    random = np.random.default_rng(8)
    pulls = random.normal(size=(40, 3)) * 0.01
    pulls -= pulls.mean(axis=0)
    far, near = Cumulative(np.array([0.9, 0.95, 1.0]), pulls), Cumulative(np.array([0.3, 0.6, 1.0]), pulls)
    assert compare(far, near, np.ones(3), resamples=100).p_value == 1 / 101
    assert compare(far, near, np.ones(3), resamples=100, most=1000).p_value == 1 / 1001
    same = [compare(far, far, np.ones(3), resamples=100, most=most).p_value for most in (None, 1000)]
    assert same == [1.0, 1.0]


def test_known_numbers_differ_by_nothing_or_by_infinitely_many_errors():
    one, other = Estimate(44.36, 0.0), Estimate(44.36 * (1 + 1e-15), 0.0)
    assert compare_means("log_z", one, other).p_value == 1.0
    apart = compare_means("log_z", one, Estimate(44.0, 0.0))
    assert (apart.sigma, apart.p_value) == (math.inf, 0.0)
    assert math.isnan(compare_means("log_z", one, Estimate(44.0, math.nan)).p_value)


def test_few_degrees_of_freedom_make_a_difference_of_three_errors_likely():
    """Student's law: errors of 3 + 3 chains that disagree have about 4 degrees of freedom."""
    a, b = (Estimate(mean, 1.0, 5.0, 0.1, 100.0, 1.2, 1000, "not converged") for mean in (0.0, 3.0 * math.sqrt(2.0)))
    found = compare_means("energy", a, b, 3, 3)
    assert found.sigma == pytest.approx(-3.0)
    assert found.p_value == pytest.approx(2 * stats.t.sf(3.0, 4.0))
    assert found.status == "not converged"


@pytest.mark.statistical
def test_the_freedom_of_a_gamma_error_is_that_of_its_scatter():
    """Errors of 300 series scatter by 1 / sqrt(2 nu) of themselves; 30 % covers the noise of both."""
    random = np.random.default_rng(6)
    found = [estimate(correlated(random, 0.8, 4, 1000)) for _ in range(300)]
    errors = np.array([one.error for one in found])
    assert errors.std() / errors.mean() == pytest.approx(
        np.mean([1 / math.sqrt(2 * freedom(one, 4)) for one in found]), rel=0.3
    )


def test_the_smallest_of_m_p_values_counts_m_times():
    assert combined_p_value([0.5, 0.01, math.nan, 0.3]) == pytest.approx(0.03)
    assert combined_p_value([0.9, 0.8]) == 1.0
    assert math.isnan(combined_p_value([]))


def test_draws_that_fit_no_weights_are_refused():
    x = np.zeros((2, 10))
    with pytest.raises(ValueError, match="log_weight"):
        cumulative_at(np.array([0.0]), Draws(x, np.zeros((2, 9))))
    with pytest.raises(ValueError, match="finite"):
        cumulative_at(np.array([0.0]), Draws(np.full((2, 10), np.inf)))


@pytest.mark.parametrize(("log_weight", "words"), [(-np.inf, "zero"), (np.nan, "nan"), (np.inf, "inf")])
def test_weights_that_have_no_sum_are_refused(log_weight, words):
    draws = Draws(np.zeros((2, 10)), np.full((2, 10), log_weight))
    with pytest.raises(ValueError, match=words):
        cumulative_at(np.array([0.0]), draws)
    with pytest.raises(ValueError, match=words):
        compare_distributions(draws, Draws(np.zeros((2, 10))))


@pytest.mark.parametrize("draws", [60, 1])
def test_a_run_without_two_blocks_is_short_and_counts_for_nothing(draws):
    """An AR(1) chain of 60 draws with tau_int = 20 is one block of at least 20 tau_int."""
    random = np.random.default_rng(12)
    x = np.clip(np.round(correlated(random, 0.95, 1, draws) / 4, 1), -1, 1)
    sides = []
    for values in (x, np.clip(np.round(correlated(random, 0.5, 4, 1000) / 4, 1), -1, 1)):
        sides.append(Side({"energy": estimate(values)}, {"energy": Draws(values)}, overlap_blocks(values, 20), 1))
    assert not enough(sides[0].overlaps)
    assert enough(sides[1].overlaps)
    assert not enough(sides[1].overlaps, sides[0].overlaps)
    for a, b in (sides, sides[::-1]):
        mean, *distributions = compare_sides(a, b, resamples=50)
        assert [one.name for one in distributions] == ["P(energy)", "P(|q|)"]
        for one in distributions:
            assert one.status == "short"
            assert np.isnan([one.sigma, one.distance, one.noise, one.p_value]).all()
        assert math.isnan(mean.p_value) == (draws == 1)
        together = combined_p_value(one.p_value for one in (mean, *distributions))
        assert together == pytest.approx(mean.p_value, nan_ok=True)


def test_states_without_weight_count_for_nothing():
    x = np.random.default_rng(1).normal(size=(2, 300))
    with_more, log_weight = (np.pad(v, ((0, 0), (0, 50)), constant_values=c)
                             for v, c in ((x, np.inf), (np.zeros((2, 300)), -np.inf)))  # fmt: skip
    plain, padded = Draws(x, np.zeros((2, 300))), Draws(with_more, log_weight)
    found = compare_distributions(plain, padded, resamples=50)
    assert (found.distance, found.p_value) == (pytest.approx(0.0, abs=1e-12), 1.0)


def test_few_effective_draws_are_said():
    random = np.random.default_rng(9)
    log_weight = 4.0 * random.normal(size=(1, 400))
    assert effective_sample_size(log_weight) * 400 < 20
    draws = Draws(random.normal(size=(1, 400)), log_weight)
    assert cumulative_at(common_points(draws, draws), draws).status == "too few effective draws"


def test_the_error_of_one_second_does_not_depend_on_the_length_of_a_run():
    short = efficiency(Estimate(0.0, 0.2, 2.0, 0.1, 250.0), {"build": 1.0, "train": 3.0, "sample": 4.0})
    long = efficiency(Estimate(0.0, 0.1, 2.0, 0.1, 1000.0), {"build": 1.0, "train": 3.0, "sample": 16.0})
    assert short.one_second == pytest.approx(long.one_second)
    assert short.per_sample == pytest.approx(long.per_sample)
    assert (short.total, long.total) == (8.0, 20.0)
    assert short.one_second_total > long.one_second_total  # a training pays in the end
    assert short.uncertainty == pytest.approx(0.025)


def test_seconds_that_nobody_counted_are_not_zero():
    for seconds in ({}, {"build": 0.0, "train": 0.0, "sample": math.nan}, {"build": 0, "train": 0, "sample": 0.0}):
        found = efficiency(Estimate(0.0, 0.1, n_eff=100.0), seconds)
        assert math.isnan(found.one_second)
        assert math.isnan(found.per_sample_total)


def test_the_best_is_the_smallest_that_is_known_and_allowed():
    values = [3.0, math.nan, 1.0, 2.0]
    assert best(values, [True] * 4) == 2
    assert best(values, [True, True, False, True]) == 3
    assert best(values, [False] * 4) is None
    assert tied(1.0, 1.05, 0.03, 0.03)
    assert not tied(1.0, 2.0, 0.03, 0.03)


def test_an_exact_value_judges_in_errors():
    assert off_exact(Estimate(2.0, 0.5), 1.0) == pytest.approx(2.0)
    assert math.isnan(off_exact(Estimate(2.0, math.nan), 1.0))
    assert math.isnan(off_exact(Estimate(2.0, 0.5), math.nan))
