"""Crossing points of curves: known ones, their errors, and the square-lattice Ising model.

Seeds are fixed; where pulls are tested the false-alarm rate is `tests.enumerated.FALSE_ALARM`, 1e-4.
"""

import math

import numpy as np
import pytest
from scipy import stats

import mc
from mc.crossings import block_means, crossing, curve, curve_of_estimates, curve_of_samples
from mc.simulate import LocalDriver
from mc.statistics import Estimate, estimate
from tests.enumerated import FALSE_ALARM

X = np.linspace(0.8, 1.2, 9)
X_C = 1.03
CRITICAL = 0.5 * math.log(1.0 + math.sqrt(2.0))


def line(slope, x=X, bend=0.0):
    return 0.6 + slope * (x - X_C) + bend * (x - X_C) ** 3


def pair(random, error=0.01, slopes=(0.5, 1.5)):
    return [curve(X, line(a) + error * random.standard_normal(len(X)), np.full(len(X), error)) for a in slopes]


@pytest.mark.parametrize("method", ["polynomial", "spline", "linear"])
def test_curves_without_noise_cross_where_they_do(method):
    steep = np.linspace(0.7, 1.3, 14)  # the two need not have the same x
    one = curve(X, line(0.5, bend=2.0), np.full(9, 1e-6))
    other = curve(steep[::-1], line(1.5, steep, bend=-3.0)[::-1], np.full(14, 1e-6))
    found = crossing(one, other, np.random.default_rng(0), method)
    assert found.status == "ok"
    assert found.x == pytest.approx(X_C, abs=2e-3 if method == "linear" else 2e-6)
    assert found.y == pytest.approx(0.6, abs=2e-3 if method == "linear" else 2e-6)
    assert found.found == 1.0


@pytest.mark.statistical
@pytest.mark.parametrize("method", ["polynomial", "linear"])
def test_the_bootstrap_error_covers_the_crossing(method):
    pulls = []
    for seed in range(100):
        found = crossing(*pair(np.random.default_rng(seed)), np.random.default_rng(seed), method, resamples=100)
        assert found.status in ("ok", "uncertain")
        pulls.append([(found.x - X_C) / found.x_error, (found.y - 0.6) / found.y_error])
    for column in np.array(pulls).T:
        assert stats.kstest(column, "norm").pvalue > FALSE_ALARM


@pytest.mark.statistical
def test_rows_are_drawn_together_at_all_x():
    # What the rows of one curve have in common moves the whole curve: by s, and so the crossing by s / (1.5 - 0.5).
    pulls, ratios = [], []
    for seed in range(50):
        random = np.random.default_rng(seed)
        curves = [
            curve_of_samples(X, lambda a: a["y"], {"y": line(slope) + shift + 0.02 * random.standard_normal((30, 9))})
            for slope in (0.5, 1.5)
            for shift in [0.2 * random.standard_normal((30, 1))]
        ]
        found = crossing(*curves, random, resamples=100)
        pulls.append((found.x - X_C) / found.x_error)
        alone = [curve(c.x, c.y, c.error) for c in curves]
        ratios.append(found.x_error / crossing(*alone, random, resamples=100).x_error)
    assert stats.kstest(pulls, "norm").pvalue > FALSE_ALARM
    assert np.mean(ratios) > 1.3  # as independent points they would have given a smaller error


def test_a_function_of_averages_has_the_scatter_of_its_rows():
    random = np.random.default_rng(5)
    m2 = 1.0 + 0.1 * random.standard_normal((400, 2))
    got = curve_of_samples([2.0, 1.0], lambda a: a["m2"] ** 2, {"m2": m2})
    assert got.x.tolist() == [1.0, 2.0]
    assert got.y == pytest.approx(m2.mean(axis=0)[::-1] ** 2)
    assert got.error == pytest.approx(2 * m2.mean(axis=0)[::-1] * m2.std(axis=0, ddof=1)[::-1] / 20, rel=0.01)
    assert got.resampled(random, 4000).std(axis=0) == pytest.approx(got.error, rel=0.05)  # 4000 draws: 1.1 %
    few = curve_of_samples([1.0, 2.0], lambda a: a["m2"], {"m2": m2[:8]})
    assert few.resampled(random, 4000).std(axis=0) == pytest.approx(few.error, rel=0.06)


def test_no_crossing_and_several_crossings_are_told():
    flat, above = curve(X, np.full(9, 0.5), np.full(9, 1e-3)), curve(X, np.full(9, 0.6), np.full(9, 1e-3))
    none = crossing(flat, above, np.random.default_rng(0))
    assert (none.status, none.found, len(none.roots)) == ("no crossing", 0.0, 0)
    assert math.isnan(none.x)
    wave = curve(X, 0.5 + 0.1 * (X - 0.85) * (X - 1.0) * (X - 1.15) / 0.01, np.full(9, 1e-3))
    several = crossing(flat, wave, np.random.default_rng(0))
    assert several.status == "several crossings"
    assert several.roots == pytest.approx([0.85, 1.0, 1.15], abs=1e-4)
    assert math.isnan(several.x)
    assert crossing(flat, wave, np.random.default_rng(0), window=(0.95, 1.05)).x == pytest.approx(1.0, abs=1e-4)


def test_a_crossing_that_noise_hides_is_called_uncertain():
    found = crossing(*pair(np.random.default_rng(2), error=0.2, slopes=(0.9, 1.1)), np.random.default_rng(2))
    assert found.status in ("uncertain", "no crossing", "several crossings")
    assert found.found < 0.95
    assert found.advice


def test_a_polynomial_that_does_not_follow_its_points_is_told():
    bent = curve(X, np.tanh(40 * (X - X_C)), np.full(9, 1e-3))
    found = crossing(bent, curve(X, np.zeros(9), np.full(9, 1e-3)), np.random.default_rng(0))
    assert found.status == "poor fit"


@pytest.mark.statistical
def test_binder_cumulants_of_ising_tori_cross_at_beta_c():
    # Two sizes cross above beta_c by a drift that falls as L^-(1/nu + omega). At L = 8 and 16, 4 x 10^5 draws put it
    # at 0.0011(2) (Binder) and 0.0009(2) (xi/L); twice that is allowed, and a normal error of 4 standard deviations:
    # false-alarm rate below 6e-5.
    drift = 2e-3
    betas = np.linspace(0.42, 0.46, 9)
    binder, ratio = {}, {}
    for L in (8, 16):
        driver = LocalDriver(mc.models.ising(L=L), betas, n_chains=4, seed=L, rule="swendsen-wang", spins_every=0)
        driver.warm_up(200)
        measured = driver.block(4000).posterior
        m = measured["magnetization"]
        rows = {"m2": block_means(m**2, 16), "m4": block_means(m**4, 16)}
        binder[L] = curve_of_samples(betas, lambda a: 1 - a["m4"] / (3 * a["m2"] ** 2), rows)
        rows = {"q2": rows["m2"], "mode": block_means(measured["magnetization_k2"], 16)}
        ratio[L] = curve_of_samples(betas, lambda a, L=L: mc.spin_glass.correlation_length(a, L) / L, rows)
        from_chains = estimate(m[:, :, 4] ** 2)
        assert rows["q2"][:, 4].mean() == pytest.approx(from_chains.mean, rel=1e-9)
    for curves in (binder, ratio):
        found = crossing(curves[8], curves[16], np.random.default_rng(1))
        assert found.status == "ok"
        assert found.x_error < 2e-3
        assert abs(found.x - CRITICAL) < 4 * found.x_error + drift
    # Salas and Sokal, J. Stat. Phys. 98, 551 (2000): U* = 0.61069 at beta_c on an infinite torus; here 0.6143(3).
    found = crossing(binder[8], binder[16], np.random.default_rng(1))
    assert abs(found.y - 0.6106901) < 4 * found.y_error + 5e-3


def test_estimates_of_an_analysis_make_a_curve():
    got = curve_of_estimates([2.0, 1.0], [Estimate(3.0, 0.1), Estimate(4.0, 0.2)])
    assert (got.x.tolist(), got.y.tolist(), got.error.tolist()) == ([1.0, 2.0], [4.0, 3.0], [0.2, 0.1])


def test_blocks_leave_out_the_first_draws_and_average_replicas():
    values = np.arange(2 * 7 * 1 * 2, dtype=float).reshape(2, 7, 1, 2)
    got = block_means(values, 3)
    assert got.shape == (6, 1)
    assert got[0, 0] == values[0, 1:3].mean()
    assert got[5, 0] == values[1, 5:7].mean()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: curve([1, 2], [1, 2], [1, 0]), "errors positive"),
        (lambda: curve([1, 2], [1, math.nan], [1, 1]), "finite"),
        (lambda: curve([1, 1], [1, 2], [1, 1]), "same x"),
        (lambda: curve([1], [1], [1]), "2 or more"),
        (lambda: curve_of_samples([1, 2], lambda a: a["y"], {"y": np.ones((4, 2))}), "4 rows, 8 are needed"),
        (lambda: curve_of_samples([1, 2], lambda a: a["y"], {"y": np.ones((9, 3))}), "rows of one shape"),
        (lambda: curve_of_samples([1, 2], lambda a: 1 / a["y"], {"y": np.zeros((9, 2))}), "not defined"),
        (lambda: block_means(np.ones((2, 3, 1)), 4), "too few draws"),
        (lambda: _cross(method="akima"), "not one of polynomial, spline, linear"),
        (lambda: _cross(window=(0.7, 1.0)), "reaches beyond 0.8 to 1.2"),
        (lambda: _cross(window=(1.0, 1.0)), "is empty"),
        (lambda: _cross(window=(1.01, 1.04)), "too few for a polynomial"),
        (lambda: _cross(degree=9), "too few for a polynomial of degree 9"),
        (lambda: _cross(resamples=1), "resamples=1"),
    ],
)
def test_what_has_no_crossing_to_look_for_is_refused_in_one_line(call, words):
    with pytest.raises(ValueError, match=words) as refusal:
        call()
    assert "\n" not in str(refusal.value)


def _cross(**options):
    return crossing(*pair(np.random.default_rng(0)), np.random.default_rng(0), **options)
