"""Errors and autocorrelation times of ``mc.statistics`` against processes whose values are known exactly.

The seeds are fixed, so the tests pass or fail for good; the false-alarm rates in the comments say how
often a correct implementation would fail with another seed.
"""

import math

import numpy as np
import pytest

from mc.statistics import (
    Estimate,
    estimate,
    estimate_function,
    jackknife,
    longest_rejection,
    split_r_hat,
)


def autoregressive(rho, chains, draws, seed):
    """Stationary AR(1): mean 0, variance 1, rho(t) = rho^t, tau_int = 1/2 + rho/(1-rho)."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(draws, chains))
    for t in range(1, draws):
        x[t] = rho * x[t - 1] + math.sqrt(1 - rho**2) * x[t]
    return x.T


def exact_tau(rho):
    return 0.5 + rho / (1 - rho)


def binder(means):
    return 1 - means["m4"] / (3 * means["m2"] ** 2)


def gaussian_moments(rho, chains, draws, seed):
    x = autoregressive(rho, chains, draws, seed)
    return {"m2": x**2, "m4": x**4}


@pytest.mark.statistical
@pytest.mark.parametrize("rho", [0.9, 0.5, -0.3, -0.9])
def test_ar1_tau_error_and_mean(rho):
    result = estimate(autoregressive(rho, chains=4, draws=10_000, seed=1))
    tau = exact_tau(rho)
    assert result.status == "ok"
    assert result.advice == ""
    # Five errors of tau, one more per mille for the window's truncation: false alarm about 1e-5 each.
    assert abs(result.tau_int - tau) < 5 * result.tau_int_error + 1e-3
    assert result.tau_int_error < 0.25 * tau
    # The variance is 1, so the error of the mean is sqrt(2 tau / n) to O(tau/n); d error / error = d tau / 2 tau.
    exact_error = math.sqrt(2 * tau / result.n_draws)
    assert result.error == pytest.approx(exact_error, rel=5 * result.tau_int_error / (2 * tau) + 0.02)
    assert result.n_eff == pytest.approx(result.n_draws / (2 * result.tau_int))
    assert abs(result.mean) < 4.5 * result.error  # 1e-5
    assert abs(split_r_hat(autoregressive(rho, 4, 10_000, 1)) - 1) < 0.01


@pytest.mark.statistical
def test_white_noise_is_uncorrelated():
    x = np.random.default_rng(2).normal(size=(3, 20_000))
    result = estimate(x)
    assert abs(result.tau_int - 0.5) < 5 * result.tau_int_error  # 1e-6
    assert result.error == pytest.approx(1 / math.sqrt(x.size), rel=0.05)  # 5 errors of tau: 1e-6


@pytest.mark.statistical
@pytest.mark.parametrize(("rho", "chains", "draws"), [(0.8, 2, 1000), (0.0, 1, 200), (-0.7, 2, 300)])
def test_coverage_of_the_quoted_error(rho, chains, draws):
    runs = 400
    x = autoregressive(rho, runs * chains, draws, seed=3).reshape(runs, chains, draws)
    results = [estimate(run) for run in x]
    inside = sum(abs(r.mean) < r.error for r in results)
    # 68.3 % within one sigma: binomial with deviation 2.3 %, and the noise of the error itself takes
    # away up to 2 % more.  Four deviations either side: 1e-4 each.
    assert 0.683 - 0.02 - 0.093 < inside / runs < 0.683 + 0.093
    assert sum(abs(r.mean) < 3 * r.error for r in results) > 0.97 * runs  # Gaussian 99.7 %: 1e-6


def test_alternating_series_has_next_to_no_error():
    result = estimate(np.tile([1.0, -1.0], (1, 500)))
    assert result.mean == 0
    assert 0 < result.tau_int < 0.01
    # The mean of n alternating draws is 0 or 1/n, so the error is of the order of 1/n, not 1/sqrt(n).
    assert 0.5 / 1000 < result.error < 2 / 1000
    assert result.n_eff > 1000
    assert result.status == "ok"


def test_four_frozen_chains_do_not_look_converged():
    x = np.repeat([[1.0], [1.0], [-1.0], [-1.0]], 1000, axis=1)
    result = estimate(x)
    assert result.r_hat == math.inf
    assert result.status == "not converged"
    assert result.error == pytest.approx(math.sqrt(4 / 3) / 2)  # deviation of +1, +1, -1, -1 over sqrt(4)
    assert result.n_eff < 5  # four chains know four numbers, whatever their length
    assert result.advice


@pytest.mark.statistical
def test_chains_in_different_wells_quote_their_scatter():
    wells = np.array([[1.0], [1.0], [-1.0], [-1.0]])
    x = wells + 0.1 * np.random.default_rng(4).normal(size=(4, 500))
    result = estimate(x)
    assert result.status == "not converged"
    assert result.r_hat > 5
    assert result.error >= x.mean(axis=1).std(ddof=1) / 2 * (1 - 1e-12)
    # Chains that have hardly met say nothing of the length that would do.
    assert "different states" in result.advice
    assert "longer" not in result.advice


def test_one_drifting_chain_is_not_converged():
    result = estimate(np.linspace(0.0, 1.0, 400)[None])
    assert result.status == "not converged"
    assert result.error >= 0.25  # the halves have means 1/4 and 3/4


def test_constant_series_cannot_be_judged():
    result = estimate(np.full((3, 50), 0.1))
    assert (result.mean, result.error, result.status) == (0.1, 0.0, "constant")
    assert math.isnan(result.tau_int)
    assert math.isnan(result.r_hat)


@pytest.mark.statistical
def test_one_chain():
    x = autoregressive(0.5, 1, 5000, seed=5)
    result = estimate(x)
    assert result.status == "ok"
    assert result.mean == pytest.approx(x.mean())
    assert abs(result.tau_int - 1.5) < 5 * result.tau_int_error  # 1e-5
    assert result.r_hat == pytest.approx(1, abs=0.02)  # R-hat^2 - 1 is 1.2e-3 chi^2_1: 1e-6


@pytest.mark.statistical
def test_short_chain_is_told_how_long_is_enough():
    # 475 draws are enough for tau = 9.5.  3000 chains of 440 know tau to 0.14, so that 440 < 50 tau but for
    # 5 deviations, and R-hat^2 - 1 to 0.002 about 0.08, far below the 0.1 of the limit: false alarm 1e-6.
    result = estimate(autoregressive(0.9, 3000, 440, seed=6))
    assert result.status == "short"
    enough = int(result.advice.split("at least ")[1].split()[0])
    assert abs(enough - 475) < 50
    assert result.advice.startswith("run 2x longer")
    assert estimate(autoregressive(0.9, 3000, 880, seed=6)).status == "ok"


def test_few_draws_give_no_warning_and_no_error_bar():
    for draws in (0, 1):
        result = estimate(np.ones((1, draws)))
        assert (result.n_draws, result.status) == (draws, "short")
        assert math.isnan(result.error)
        assert math.isnan(result.tau_int)
        assert result.advice
    assert math.isnan(estimate(np.ones((4, 0))).mean)
    pair = estimate([[1.0], [3.0]])  # independent chains of one draw still scatter
    assert (pair.mean, pair.error, pair.status) == (2.0, 1.0, "short")
    for draws in (2, 3, 4, 5):
        result = estimate(np.arange(2.0 * draws).reshape(2, draws))
        assert result.status != "ok"
        assert result.error > 0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_is_refused_by_name(bad):
    x = np.zeros((2, 10))
    x[1, 7] = bad
    with pytest.raises(ValueError, match="chain 1 at draw 7"):
        estimate(x)
    with pytest.raises(ValueError, match="energy"):
        estimate_function(lambda a: a["energy"], {"energy": x})


@pytest.mark.parametrize("bad", [np.zeros(5), np.zeros((0, 5)), np.zeros((1, 5), complex)])
def test_wrong_shape_or_type_is_refused(bad):
    with pytest.raises(ValueError, match=r"\(chains, draws\)"):
        estimate(bad)


def test_estimate_scales_with_the_units():
    x = autoregressive(0.6, 2, 500, seed=7)
    base = estimate(x)
    for scale, shift in [(-3.0, 2.0), (1e-200, 0.0), (1e200, 0.0), (1e-3, 1e6)]:
        moved = estimate(shift + scale * x)
        assert moved.mean == pytest.approx(shift + scale * base.mean, rel=1e-9)
        assert moved.error == pytest.approx(abs(scale) * base.error, rel=1e-5)
        assert moved.tau_int == pytest.approx(base.tau_int, rel=1e-5)
        assert moved.r_hat == pytest.approx(base.r_hat, rel=1e-5)


def test_split_r_hat_by_hand():
    # Halves (0, 2) and (4, 6): W = 2, variance of the means (1, 5) is 8, R^2 = (1/2) + 8 / 2.
    assert split_r_hat([[0.0, 2.0, 4.0, 6.0]]) == pytest.approx(math.sqrt(4.5))
    assert split_r_hat([[0.0, 2.0, 99.0, 4.0, 6.0]]) == pytest.approx(math.sqrt(4.5))  # middle one dropped
    assert split_r_hat([[0.1] * 10, [0.3] * 10]) == math.inf
    assert math.isnan(split_r_hat([[0.1] * 10, [0.1] * 10]))
    assert math.isnan(split_r_hat([[1.0], [2.0]]))


@pytest.mark.statistical
def test_binder_cumulant_of_gaussian_is_zero():
    series = gaussian_moments(0.8, 4, 10_000, seed=8)
    result = estimate_function(binder, series)
    assert result.status == "ok"
    assert abs(result.mean) < 4.5 * result.error  # 1e-5
    value, error = jackknife(binder, series, n_blocks=100)
    assert value == pytest.approx(result.mean, abs=1e-12)
    # 100 blocks know the error to 7 %, the Gamma method to 5 %; the heavy fourth moment adds to both.
    assert error == pytest.approx(result.error, rel=0.3)  # 3 deviations: 1e-2


def test_linear_function_is_the_estimate_itself():
    x, y = autoregressive(0.7, 2, 1000, 9), autoregressive(0.7, 2, 1000, 10)
    direct = estimate(2 * x - 3 * y)
    result = estimate_function(lambda a: 2 * a["x"] - 3 * a["y"], {"x": x, "y": y})
    for field in ("mean", "error", "tau_int", "tau_int_error", "r_hat"):
        assert getattr(result, field) == pytest.approx(getattr(direct, field), rel=1e-6)


def test_correlated_observables_cancel():
    x = 5 + autoregressive(0.7, 2, 1000, seed=11)
    ratio = estimate_function(lambda a: a["x"] / a["y"], {"x": x, "y": 2 * x})
    assert ratio.mean == pytest.approx(0.5)
    assert ratio.error < 1e-8  # x/y is 1/2 in every draw; independent errors would give 0.02


def test_function_of_frozen_chains_is_not_converged():
    x = np.repeat([[1.0], [2.0]], 100, axis=1)
    result = estimate_function(lambda a: math.log(a["x"]), {"x": x})
    assert (result.status, result.r_hat) == ("not converged", math.inf)
    assert result.error == pytest.approx(0.5 / 1.5, rel=1e-5)  # df = dx / <x>


@pytest.mark.parametrize("function", [lambda a: 1 / a["x"], lambda a: math.log(a["x"]), lambda a: np.log(a["x"])])
def test_function_undefined_at_the_means_says_so(function):
    result = estimate_function(function, {"x": np.tile([1.0, -1.0], (2, 50))})
    assert isinstance(result, Estimate)
    assert result.status == "not finite"
    assert math.isnan(result.mean)
    assert math.isnan(result.error)
    assert "at the means" in result.advice


def test_function_of_series_that_do_not_fit_is_refused():
    with pytest.raises(ValueError, match="one shape"):
        estimate_function(binder, {"m2": np.zeros((1, 3)), "m4": np.zeros((1, 4))})
    with pytest.raises(ValueError, match="one or more"):
        estimate_function(binder, {})
    with pytest.raises(ValueError, match="two blocks"):
        jackknife(binder, {"m2": np.ones((1, 1)), "m4": np.ones((1, 1))})


def test_function_of_no_draws_is_short():
    assert estimate_function(binder, {"m2": np.zeros((2, 0)), "m4": np.zeros((2, 0))}).status == "short"


def test_jackknife_of_a_mean_is_the_scatter_of_block_means():
    x = np.random.default_rng(12).normal(size=(2, 60))
    value, error = jackknife(lambda a: a["x"], {"x": x}, n_blocks=12)
    blocks = x.reshape(12, 10).mean(axis=1)
    assert value == pytest.approx(x.mean())
    assert error == pytest.approx(blocks.std(ddof=1) / math.sqrt(12))


def test_longest_rejection():
    accepted = np.array([[1, 0, 0, 1, 0, 0], [0, 1, 0, 0, 0, 1]], bool)
    assert longest_rejection(accepted) == 3  # the runs at the end of one chain and the start of the next do not join
    assert longest_rejection(np.zeros((2, 7), bool)) == 7
    assert longest_rejection(np.ones((2, 7), bool)) == 0
    assert longest_rejection(np.ones((2, 0), bool)) == 0
    with pytest.raises(ValueError, match="accepted"):
        longest_rejection(np.ones(3, bool))
    with pytest.raises(ValueError, match="accepted"):
        longest_rejection(np.full((2, 3), 0.5))
