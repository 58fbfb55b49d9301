"""Data collapse of curves with known exponents, and of the square-lattice Ising model.

Seeds are fixed; where pulls are tested the false-alarm rate is `tests.enumerated.FALSE_ALARM`, 1e-4.
"""

import math

import numpy as np
import pytest
from scipy import stats

import mc
from mc.collapse import collapse, quality
from mc.crossings import block_means, curve, curve_of_samples
from mc.simulate import LocalDriver
from tests.enumerated import FALSE_ALARM

X_C, INVERSE_NU, KAPPA = 1.1, 0.7, 1.4


def ratio(t):
    return 1 / (1 + np.exp(1.5 * t))


def peak(t):
    return np.exp(-(t**2) / 2) + 0.3 * ratio(t)


def curves(random, function, kappa=0.0, noise=0.01, sizes=(8, 12, 16, 24), n=16):
    """Points of y = L^kappa f((x - x_c) L^(1/nu)) with relative noise."""
    found, x = {}, np.linspace(0.95, 1.25, n)
    for L in sizes:
        y = L**kappa * function((x - X_C) * L**INVERSE_NU)
        error = np.full(n, noise) * L**kappa
        found[L] = curve(x, y + error * random.standard_normal(n), error)
    return found


def test_the_quality_is_that_of_the_straight_lines_through_all_other_sizes():
    # Written out with numpy's own weighted fit, point by point.
    data = curves(np.random.default_rng(1), peak, KAPPA, sizes=(8, 12, 16), n=9)
    x_c, inverse_nu, kappa = 1.12, 0.8, 1.3
    scaled = {L: ((c.x - x_c) * L**inverse_nu, c.y * L**-kappa, c.error * L**-kappa) for L, c in data.items()}
    terms = []
    for L, (x, y, error) in scaled.items():
        for point in zip(x, y, error, strict=True):
            near = []
            for other, (x_o, y_o, e_o) in scaled.items():
                left = np.flatnonzero((x_o[:-1] <= point[0]) & (point[0] <= x_o[1:]))
                near += [(x_o[k], y_o[k], e_o[k]) for k in (left[0], left[0] + 1)] if other != L and len(left) else []
            if near:
                x_n, y_n, e_n = np.array(near).T
                # The line about the point itself, so that its constant is the value there.
                coefficients, covariance = _line(x_n - point[0], y_n, e_n)
                terms.append((point[1] - coefficients[0]) ** 2 / (point[2] ** 2 + covariance[0, 0]))
    assert quality(data, x_c, inverse_nu, kappa) == pytest.approx(np.mean(terms), rel=1e-9)


def _line(x, y, error):
    design = np.stack([np.ones_like(x), x], axis=1) / error[:, None]
    inverse = np.linalg.inv(design.T @ design)
    return inverse @ design.T @ (y / error), inverse


def test_the_quality_is_about_one_at_the_truth_and_larger_elsewhere():
    found = [quality(curves(np.random.default_rng(s), peak, KAPPA), X_C, INVERSE_NU, KAPPA) for s in range(30)]
    assert 0.8 < np.mean(found) < 1.2  # each scatters by 0.2
    data = curves(np.random.default_rng(0), peak, KAPPA)
    assert quality(data, X_C, INVERSE_NU, 1.2) > 50
    assert quality(data, 1.2, INVERSE_NU, KAPPA) > 50
    assert quality(data, X_C, 1.3, KAPPA) > 20
    assert math.isnan(quality(data, X_C, INVERSE_NU, KAPPA) + quality(data, 50.0, 1.0, KAPPA))


@pytest.mark.statistical
@pytest.mark.slow
@pytest.mark.parametrize(("function", "kappa"), [(ratio, 0.0), (peak, KAPPA)], ids=["ratio", "peak"])
def test_errors_cover_the_exponents(function, kappa):
    pulls = []
    for seed in range(12):
        data = curves(np.random.default_rng(seed), function, kappa)
        free = 0.0 if kappa == 0 else (0.5, 2.5)
        fit = collapse(data, (1.0, 1.2), (0.3, 1.5), free, seed=seed, resamples=20)
        assert fit.status == "ok"
        assert 0.4 < fit.quality < 1.6
        pulls.append([(fit.x_c - X_C) / fit.error["x_c"], (fit.inverse_nu - INVERSE_NU) / fit.error["inverse_nu"]])
        pulls[-1] += [(fit.kappa_over_nu - kappa) / fit.error["kappa_over_nu"]] if kappa else []
        assert fit.interval["x_c"][0] < X_C < fit.interval["x_c"][1]
    for column in np.array(pulls).T:
        # Errors of 20 resamples scatter by 16 %; Student's t with 19 degrees of freedom allows for it.
        assert stats.kstest(column, stats.t(19).cdf).pvalue > FALSE_ALARM


def test_one_collapse_in_all_its_parts():
    data = curves(np.random.default_rng(4), peak, KAPPA)
    fit = collapse(data, (1.0, 1.2), (0.3, 1.5), (0.5, 2.5), seed=4, resamples=20)
    again = collapse(data, (1.0, 1.2), (0.3, 1.5), (0.5, 2.5), seed=4, resamples=20)
    assert (fit.x_c, fit.error) == (again.x_c, again.error)
    assert fit.quality == quality(data, fit.x_c, fit.inverse_nu, fit.kappa_over_nu)
    assert fit.quality < quality(data, X_C, INVERSE_NU, KAPPA)
    assert fit.nu == pytest.approx(1 / fit.inverse_nu)
    assert fit.nu_error == pytest.approx(fit.error["inverse_nu"] / fit.inverse_nu**2)
    assert fit.covariance[0, 0] == pytest.approx(fit.error["x_c"] ** 2)
    for end in fit.interval["inverse_nu"]:  # S is the minimum + 1 there, or less with the others moved, too
        assert quality(data, fit.x_c, end, fit.kappa_over_nu) > fit.quality + 0.9
    x, y, error = fit.scaled(16, data[16])
    assert x == pytest.approx((data[16].x - fit.x_c) * 16**fit.inverse_nu)
    assert y == pytest.approx(data[16].y * 16**-fit.kappa_over_nu)
    assert error == pytest.approx(data[16].error * 16**-fit.kappa_over_nu)


def test_what_is_given_stays():
    data = curves(np.random.default_rng(5), peak, KAPPA)
    given = collapse(data, (1.0, 1.2), INVERSE_NU, KAPPA, seed=1, resamples=20)
    assert (given.inverse_nu, given.kappa_over_nu) == (INVERSE_NU, KAPPA)
    assert given.error["inverse_nu"] == given.error["kappa_over_nu"] == 0.0
    assert abs(given.x_c - X_C) < 4.5 * given.error["x_c"]  # 20 resamples: probability 2e-4
    assert given.interval["kappa_over_nu"] == (KAPPA, KAPPA)


def test_a_minimum_outside_the_range_and_a_poor_collapse_are_told():
    data = curves(np.random.default_rng(6), ratio)
    edge = collapse(data, (1.12, 1.2), (0.3, 1.5), resamples=2)
    assert edge.status == "at the edge"
    assert "x_c" in edge.advice
    mixed = curves(np.random.default_rng(6), ratio, sizes=(8, 12)) | curves(
        np.random.default_rng(7), peak, sizes=(16, 24)
    )
    assert collapse(mixed, (1.0, 1.2), (0.3, 1.5), resamples=2).status in ("poor", "at the edge")


@pytest.mark.statistical
def test_the_ising_model_has_nu_one():
    betas = np.linspace(0.42, 0.46, 9)
    data = {}
    for L in (8, 16, 32):
        driver = LocalDriver(
            mc.models.ising(L=L), betas, n_chains=4, seed=100 + L, rule="swendsen-wang", spins_every=0
        )
        driver.warm_up(200)
        m = driver.block(2000).posterior["magnetization"]
        rows = {"m2": block_means(m**2, 16), "m4": block_means(m**4, 16)}
        data[L] = curve_of_samples(betas, lambda a: 1 - a["m4"] / (3 * a["m2"] ** 2), rows)
    fit = collapse(data, (0.42, 0.46), (0.5, 2.0), seed=1, resamples=40)
    # Four standard deviations, and corrections of these small sizes, whose curves cross 0.001 above beta_c.
    assert fit.status == "ok"
    assert abs(fit.x_c - 0.5 * math.log(1 + math.sqrt(2))) < 4 * fit.error["x_c"] + 1e-3
    assert abs(fit.inverse_nu - 1.0) < 4 * fit.error["inverse_nu"] + 0.05
    assert fit.error["inverse_nu"] < 0.1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sizes": (8,)}, "two or more positive sizes"),
        ({"x_c": 1.1, "inverse_nu": 0.7}, "all parameters are given"),
        ({"inverse_nu": (-1.0, 1.0)}, "of positive numbers"),
        ({"x_c": (1.2, 1.0)}, "a number or a range"),
        ({"x_c": (90.0, 91.0)}, "hardly overlap"),
        ({"resamples": 1}, "resamples=1"),
    ],
)
def test_what_cannot_collapse_is_refused_in_one_line(change, words):
    data = curves(np.random.default_rng(0), ratio, sizes=change.pop("sizes", (8, 12)))
    with pytest.raises(ValueError, match=words) as refusal:
        collapse(data, **change)
    assert "\n" not in str(refusal.value)
