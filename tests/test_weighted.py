"""Weighted averages of ``mc.weighted`` against sums over a small space of states.

The seeds are fixed; the false-alarm rates in the comments are those of a correct implementation.
"""

import math

import numpy as np
import pytest

from mc.weighted import (
    effective_sample_size,
    largest_weight_share,
    log_mean_weight,
    weighted_entropy,
    weighted_estimate,
    weighted_function,
)

# Six states of energy 0..5 at inverse temperature 0.8, proposed by a model that is wrong by up to 3 times.
ENERGY = np.arange(6.0)
LOG_P = -0.8 * ENERGY
LOG_Z = math.log(np.exp(LOG_P).sum())
P = np.exp(LOG_P - LOG_Z)
Q = np.array([0.3, 0.3, 0.15, 0.1, 0.1, 0.05])
MEAN_ENERGY = float(P @ ENERGY)
ESS = 1 / float(np.sum(P**2 / Q))  # <w>^2 / <w^2> in the limit of many draws


def draw(shape, seed):
    """Energies drawn from Q and their log weights, ln p - ln q."""
    state = np.random.default_rng(seed).choice(6, size=shape, p=Q)
    return ENERGY[state], LOG_P[state] - np.log(Q[state])


def heat(means):
    """Energy fluctuation <E^2> - <E>^2."""
    return means["e2"] - means["e"] ** 2


@pytest.mark.statistical
def test_mean_ln_z_and_ess_against_enumeration():
    energy, log_weight = draw((4, 5000), seed=1)
    result = weighted_estimate(energy, log_weight)
    log_z, log_z_error = log_mean_weight(log_weight)
    assert result.status == "ok"
    assert abs(result.mean - MEAN_ENERGY) < 4.5 * result.error  # 1e-5
    assert abs(log_z - LOG_Z) < 4.5 * log_z_error  # 1e-5
    # Exact errors: Var(w/Z) / n for ln Z, sum p^2/q (E - <E>)^2 / n for <E>; the sums are known to 1 %.
    assert log_z_error == pytest.approx(math.sqrt((1 / ESS - 1) / energy.size), rel=0.05)
    exact = math.sqrt(np.sum(P**2 / Q * (ENERGY - MEAN_ENERGY) ** 2) / energy.size)
    assert result.error == pytest.approx(exact, rel=0.05)
    assert effective_sample_size(log_weight) == pytest.approx(ESS, rel=0.05)
    assert result.n_eff == pytest.approx(energy.size * effective_sample_size(log_weight))
    assert math.isnan(result.tau_int)
    assert math.isnan(result.r_hat)
    assert result.n_draws == 20_000


@pytest.mark.statistical
def test_coverage_of_the_weighted_errors():
    runs = 400
    energy, log_weight = draw((runs, 500), seed=2)
    inside = np.zeros(3)
    exact_heat = float(P @ ENERGY**2) - MEAN_ENERGY**2
    for e, lw in zip(energy, log_weight, strict=True):
        mean, log_z = weighted_estimate(e, lw), log_mean_weight(lw)
        fluctuation = weighted_function(heat, {"e": e, "e2": e**2}, lw)
        inside += [
            abs(mean.mean - MEAN_ENERGY) < mean.error,
            abs(log_z[0] - LOG_Z) < log_z[1],
            abs(fluctuation.mean - exact_heat) < fluctuation.error,
        ]
    # 68.3 % within one sigma, binomial deviation 2.3 %, four of them: 1e-4 each.
    assert (abs(inside / runs - 0.683) < 0.093).all()


def test_ess_of_known_weights():
    assert effective_sample_size(np.full(7, -1234.5)) == pytest.approx(1)
    assert effective_sample_size(np.log([1.0, 3.0])) == pytest.approx(16 / (2 * 10))
    assert effective_sample_size([0.0, -math.inf, -math.inf, -math.inf]) == pytest.approx(1 / 4)
    assert effective_sample_size([0.0, -1e6]) == pytest.approx(1 / 2)
    assert largest_weight_share(np.log([1.0, 3.0])) == pytest.approx(3 / 4)


def test_results_do_not_depend_on_the_scale_of_the_weights():
    energy, log_weight = draw(300, seed=3)
    base = weighted_estimate(energy, log_weight)
    for shift in (-1e4, 1e4):  # exp of either leaves float64
        moved = weighted_estimate(energy, log_weight + shift)
        assert moved.mean == pytest.approx(base.mean)
        assert moved.error == pytest.approx(base.error)
        assert log_mean_weight(log_weight + shift)[0] == pytest.approx(log_mean_weight(log_weight)[0] + shift)


def test_equal_weights_are_the_plain_mean():
    x = np.random.default_rng(4).normal(size=(2, 50))
    result = weighted_estimate(x, np.full((2, 50), 3.0))
    assert result.mean == pytest.approx(x.mean())
    assert result.error == pytest.approx(x.std() / 10)
    assert result.n_eff == pytest.approx(100)
    # A model that has learnt the target exactly knows ln Z exactly.
    assert log_mean_weight(np.full((2, 50), 3.0)) == (pytest.approx(3.0), 0.0)


def test_a_linear_function_is_the_estimate_itself():
    energy, log_weight = draw((2, 400), seed=5)
    direct = weighted_estimate(2 * energy + 1, log_weight)
    result = weighted_function(lambda a: 2 * a["e"] + 1, {"e": energy}, log_weight)
    assert result.mean == pytest.approx(direct.mean)
    assert result.error == pytest.approx(direct.error, rel=1e-6)


@pytest.mark.statistical
def test_heavy_tails_leave_too_few_effective_draws():
    rng = np.random.default_rng(6)
    log_weight = 5 * rng.normal(size=1000)  # log-normal: <w>^2/<w^2> = exp(-25), hopeless
    result = weighted_estimate(rng.normal(size=1000), log_weight)
    assert result.status == "too few effective draws"  # the largest of 1000 has n_eff far below 20
    assert math.isnan(result.error)
    assert math.isfinite(result.mean)
    assert result.n_eff < 20
    needed = int(result.advice.split("at least ")[1].split()[0])
    assert needed >= 20 * 1000 / result.n_eff - 1


def test_zero_weights_are_not_read():
    energy = np.array([math.inf, *np.tile([1.0, 3.0], 30)])
    log_weight = np.array([-math.inf, *np.zeros(60)])
    result = weighted_estimate(energy, log_weight)
    assert result.mean == pytest.approx(2)
    assert result.n_eff == pytest.approx(60)
    assert result.n_draws == 61
    # One of 61 draws outside the support: Z is 60/61 of the weight of the others.
    assert log_mean_weight(log_weight)[0] == pytest.approx(math.log(60 / 61))


def test_constant_observable():
    result = weighted_estimate(np.full(100, 0.1), np.linspace(-1, 1, 100))
    assert (result.mean, result.error, result.status) == (pytest.approx(0.1), 0.0, "constant")


def test_function_undefined_at_the_means_says_so():
    result = weighted_function(lambda a: math.log(a["x"]), {"x": np.full(50, -1.0)}, np.zeros(50))
    assert result.status == "not finite"
    assert math.isnan(result.mean)
    assert math.isnan(result.error)


@pytest.mark.parametrize(
    "bad", [[0.0, math.nan], [0.0, math.inf], [-math.inf, -math.inf], [], np.zeros((2, 2, 2)), 0.0]
)
def test_impossible_log_weights_are_refused(bad):
    for function in (effective_sample_size, log_mean_weight, largest_weight_share):
        with pytest.raises(ValueError, match="log_weight"):
            function(bad)
    with pytest.raises(ValueError, match="log_weight"):
        weighted_estimate(np.zeros(np.shape(bad)), bad)


def test_values_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="values"):
        weighted_estimate([1.0, math.nan], [0.0, 0.0])
    with pytest.raises(ValueError, match="shape"):
        weighted_estimate([1.0, 2.0, 3.0], [0.0, 0.0])
    with pytest.raises(ValueError, match="energy"):
        weighted_function(lambda a: a["energy"], {"energy": [1.0, math.nan]}, [0.0, 0.0])
    with pytest.raises(ValueError, match="one or more"):
        weighted_function(heat, {}, [0.0, 0.0])


def test_one_draw_has_no_error_of_ln_z():
    value, error = log_mean_weight([2.5])
    assert value == 2.5
    assert math.isnan(error)


@pytest.mark.statistical
def test_entropy_of_weighted_draws_and_its_error():
    """A spin in a field by draws of another field, S = ln Z + beta <E>: 200 sets scatter as their errors say."""
    field, other = 0.8, 0.3
    random = np.random.default_rng(5)
    up = np.exp(other) / (2 * np.cosh(other))
    found = []
    for _ in range(200):
        spins = np.where(random.random((2, 300)) < up, 1.0, -1.0)
        log_weight = field * spins - (other * spins - np.log(2 * np.cosh(other)))
        found.append(weighted_entropy(-spins, log_weight, field))
    exact = np.log(2 * np.cosh(field)) - field * np.tanh(field)
    pulls = np.array([(one.mean - exact) / one.error for one in found])
    assert abs(pulls.mean()) < 0.25  # 3.5 standard deviations of 200
    assert pulls.std() == pytest.approx(1.0, abs=0.18)  # 3.5 of its own
