"""Extrapolation to infinite size: laws that are known, published fits, and what is refused.

Seeds are fixed; where pulls are tested the false-alarm rate is `tests.enumerated.FALSE_ALARM`, 1e-4.
"""

import math

import numpy as np
import pytest
from scipy import stats

from mc.exact import kaufman_torus
from mc.finite_size import fit_limit
from tests.enumerated import FALSE_ALARM

SIZES = np.array([64, 128, 256, 512, 1024])


def test_the_critical_energy_of_ising_tori_tends_to_minus_root_two_as_one_over_length():
    # Ferdinand and Fisher, Phys. Rev. 185, 832 (1969): e(L) = -sqrt 2 - A / L + O(L^-3), so omega = 1/2 in N = L^2.
    lengths = np.array([16, 24, 32, 48, 64])
    critical = 0.5 * math.log(1.0 + math.sqrt(2.0))
    energies = [kaufman_torus(int(L), int(L), 1.0, critical).energy / L**2 for L in lengths]
    fit = fit_limit(lengths**2, energies, np.full(5, 1e-6))
    assert fit.value == pytest.approx(-math.sqrt(2.0), abs=5e-5)  # the L^-3 term takes the rest
    assert fit.omega == pytest.approx(0.5, abs=2e-3)
    given = fit_limit(lengths, energies, np.full(5, 1e-6), omega=1.0)
    assert given.value == pytest.approx(-math.sqrt(2.0), abs=5e-5)
    assert given.p_value < 1e-6 < fit.p_value  # and is seen where omega cannot give way
    assert given.amplitude == pytest.approx(fit.amplitude, rel=1e-2)  # A / L = A / N^(1/2)


@pytest.mark.parametrize("unit", [1.0, 1e6])
def test_a_law_without_noise_comes_back_whatever_the_unit_of_size(unit):
    sizes = unit * SIZES
    values = -0.763 + 0.7 * unit ** (2 / 3) * sizes ** (-2 / 3)
    for omega in (None, 2 / 3):
        fit = fit_limit(sizes, values, np.full(5, 1e-4), omega)
        assert fit.value == pytest.approx(-0.763, abs=1e-9)
        assert fit.amplitude == pytest.approx(0.7 * unit ** (2 / 3), rel=1e-6)
        assert fit.omega == pytest.approx(2 / 3, rel=1e-6)
        assert fit.chi2 < 1e-8
        assert (fit.omega_error == 0) == (omega is not None)


def test_the_published_fit_of_three_dimensional_glasses():
    # Zhong et al., arXiv:2606.22984: e0(L) = -1.701 + 1.641 N^-0.92, at L = 4 to 16 to four digits. Rounding moves
    # each value by 2.9e-5 at one standard deviation.
    lengths = np.array([4, 6, 8, 10, 14, 16])
    values = [-1.6652, -1.6893, -1.6957, -1.6981, -1.6999, -1.7002]
    fit = fit_limit(lengths**3, values, np.full(6, 2.9e-5))
    assert abs(fit.omega - 0.92) < 4 * fit.omega_error < 0.02
    assert abs(fit.amplitude - 1.641) < 4 * fit.amplitude_error
    assert abs(fit.value + 1.701) < 4 * fit.error
    assert fit.p_value > FALSE_ALARM
    # With the number of samples of that paper and a spread of 0.63 / sqrt N between samples, e0 has an error of 1e-3.
    errors = 0.63 / np.sqrt(lengths**3 * np.array([1110, 651, 300, 50, 40, 20]))
    assert 3e-4 < fit_limit(lengths**3, values, errors, omega=0.92).error < 2e-3


def test_the_published_fit_of_sherrington_kirkpatrick_glasses():
    # The same paper: e0(N) = -0.763(2) + 0.70(1) N^-2/3 at N = 64, 128, 256; Parisi: -0.76317 at infinite N.
    fit = fit_limit([64, 128, 256], [-0.7193, -0.7354, -0.7456], np.full(3, 2.9e-5), omega=2 / 3)
    assert fit.value == pytest.approx(-0.763, abs=5e-4)
    assert fit.amplitude == pytest.approx(0.70, abs=5e-3)
    assert abs(fit.value + 0.7631667) < 0.002


@pytest.mark.statistical
@pytest.mark.parametrize("omega", [2 / 3, None], ids=["given", "free"])
def test_errors_cover_the_truth_and_p_values_are_uniform(omega):
    random, errors = np.random.default_rng(3), 1e-4 * np.sqrt(SIZES / 64)
    truth = -0.763 + 0.7 * SIZES ** (-2 / 3)
    pulls, p_values, predicted = [], [], []
    for _ in range(200):
        fit = fit_limit(SIZES, truth + errors * random.standard_normal(5), errors, omega)
        mean, error = fit.predict([32.0, 4096.0])
        pulls.append((fit.value + 0.763) / fit.error)
        predicted.append((mean - (-0.763 + 0.7 * np.array([32.0, 4096.0]) ** (-2 / 3))) / error)
        p_values.append(fit.p_value)
    assert stats.kstest(pulls, "norm").pvalue > FALSE_ALARM
    assert stats.kstest(p_values, "uniform").pvalue > FALSE_ALARM
    for column in np.array(predicted).T:
        assert stats.kstest(column, "norm").pvalue > FALSE_ALARM


def test_a_wrong_law_shows_in_the_p_value_and_not_in_the_error():
    values, errors = -0.763 + 0.7 * SIZES ** (-2 / 3), np.full(5, 1e-4)
    right, wrong = (fit_limit(SIZES, values, errors, omega) for omega in (2 / 3, 1.0))
    assert wrong.p_value < 1e-6 < right.p_value
    assert wrong.error < right.error  # errors are those of the data, whatever chi^2 says


def test_predictions_at_infinity_are_the_limit():
    fit = fit_limit(SIZES, -0.763 + 0.7 * SIZES ** (-2 / 3), np.full(5, 1e-4))
    mean, error = fit.predict(math.inf)
    assert (mean, error) == (fit.value, fit.error)
    assert fit.predict(np.ones((2, 3)))[0].shape == (2, 3)
    with pytest.raises(ValueError, match="positive"):
        fit.predict(0.0)


def test_as_many_parameters_as_sizes_leave_nothing_to_judge():
    fit = fit_limit([64, 128], [-0.72, -0.735], [1e-3, 1e-3], omega=2 / 3)
    assert fit.dof == 0
    assert math.isnan(fit.p_value)
    assert fit.chi2 == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([64, 128], [1, 2], [1, 1]), "too few: add sizes, or give omega"),
        (([64, 64, 64], [1, 2, 3], [1, 1, 1], 0.5), "1 distinct sizes for 2 parameters"),
        (([64, 128], [1, 2], [1, 0], 0.5), "errors have to be positive, the smallest is 0"),
        (([64, 128], [1, 2], [1, math.nan], 0.5), "errors hold nan or inf"),
        (([64, 128], [1, math.inf], [1, 1], 0.5), "values hold nan or inf"),
        (([0, 128], [1, 2], [1, 1], 0.5), "sizes have to be positive"),
        (([64, 128], [1, 2, 3], [1, 1], 0.5), "of one length"),
        (([64, 128], [1, 2], [1, 1], -0.5), "a positive exponent"),
        (([64, 128, 256, 512], [1.0, 2.0, 3.0, 4.0], [1e-3] * 4), "do not bound omega below"),
        (([64, 128, 256, 512], [1.0, 0.0, 0.0, 0.0], [1e-3] * 4), "do not bound omega above"),
    ],
)
def test_what_cannot_be_fitted_is_refused_in_one_line(arguments, words):
    with pytest.raises(ValueError, match=words) as refusal:
        fit_limit(*arguments)
    assert "\n" not in str(refusal.value)


def test_values_that_do_not_depend_on_the_size_bound_no_exponent():
    """Every free fit to a constant with noise is refused, or has an omega that is larger than its error."""
    random, sizes = np.random.default_rng(8), np.array([64.0, 128.0, 256.0, 512.0])
    refused = 0
    for _ in range(50):
        values = -1.0 + 1e-4 * random.standard_normal(4)
        try:
            fit = fit_limit(sizes, values, np.full(4, 1e-4))
        except ValueError as error:
            refused += "omega" in str(error)
        else:
            assert fit.omega_error < fit.omega
    assert refused > 25
    with pytest.raises(ValueError, match="omega"):
        fit_limit(sizes, np.full(4, -1.0), np.full(4, 1e-4))
