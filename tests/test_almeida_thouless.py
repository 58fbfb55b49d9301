"""The line of de Almeida and Thouless against adaptive quadrature, both its ends, and two coupled replicas."""

import itertools
import math

import numpy as np
import pytest
from scipy import optimize, stats
from scipy.integrate import quad

from mc.exact.almeida_thouless import NEAR, line, overlap, stability, temperature

TEMPERATURES = (0.001, 0.01, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 0.99)


def average(power, T, h, q):
    """E_z sech^power((sqrt(q) z + h) / T), adaptively, with a break point at the spike."""

    def integrand(z):
        x = abs((math.sqrt(q) * z + h) / T)
        return stats.norm.pdf(z) * (2.0 / (1.0 + math.exp(-2.0 * x))) ** power * math.exp(-power * x)

    spike, width = -h / math.sqrt(q), 25.0 * T / math.sqrt(q)
    ends = sorted({-12.0, *np.clip([spike - width, spike, spike + width], -12.0, 12.0), 12.0})
    parts = itertools.pairwise(ends)
    return sum(quad(integrand, a, b, epsabs=1e-16, epsrel=1e-13, limit=400)[0] for a, b in parts)


@pytest.mark.parametrize("T", TEMPERATURES)
def test_both_equations_hold_on_the_line(T):
    h = line(T)
    q = overlap(T, h)
    assert 1.0 - average(2, T, h, q) == pytest.approx(q, abs=1e-12)
    assert average(4, T, h, q) / T**2 == pytest.approx(1.0, abs=1e-11)
    assert stability(T, h) == pytest.approx(0.0, abs=1e-11 * T)
    assert stability(T, 1.01 * h) > 0 > stability(T, 0.99 * h)


@pytest.mark.parametrize(("T", "h"), [(0.001, 0.0), (0.3, 0.0), (0.3, 0.7), (0.9, 0.1), (1.5, 0.4), (3.0, 8.0)])
def test_overlap_and_stability_anywhere(T, h):
    q = overlap(T, h)
    assert 1.0 - average(2, T, h, q) == pytest.approx(q, abs=1e-12)
    assert T**2 - average(4, T, h, q) == pytest.approx(stability(T, h), rel=1e-9)


def test_high_temperature_without_field_is_a_paramagnet():
    assert overlap(1.0, 0.0) == overlap(2.0, 0.0) == 0.0
    assert stability(2.0, 0.0) == pytest.approx(3.0)  # T^2 - 1
    assert line(1.0) == 0.0


def test_two_coupled_replicas_part_at_the_line():
    # Two replicas in one disorder: fields of correlation c give magnetisations of correlation f(c), f(q) = q. The
    # common state is stable while f'(q) < 1. f by a two-dimensional Gauss-Hermite rule, which knows no sech^4.
    z, weight = np.polynomial.hermite_e.hermegauss(80)
    weight = weight / weight.sum()
    for T in (0.6, 0.8, 0.9):
        h = line(T)
        q = overlap(T, h)

        def correlation(c, T=T, h=h, q=q):
            common = math.sqrt(c) * z[:, None] + h
            magnetisation = np.tanh((common + math.sqrt(q - c) * z[None, :]) / T) @ weight
            return weight @ magnetisation**2

        assert correlation(q) == pytest.approx(q, abs=1e-6)
        step = 1e-3 * q
        slopes = [(correlation(q) - correlation(q - k * step)) / (k * step) for k in (1, 2, 4)]
        slope = (8 * slopes[0] - 6 * slopes[1] + slopes[2]) / 3  # to the second order of the step
        assert slope == pytest.approx(1.0, abs=1e-4)


def test_end_at_high_temperature():
    # h^2 = (4/3) t^3 to leading order in t = 1 - T: what is left goes as t.
    for T in (0.99, 0.999, 1.0 - 1e-5, 1.0 - 1e-9):
        t = 1.0 - T
        assert abs(line(T) ** 2 / (4.0 / 3.0 * t**3) - 1.0) < 1.1 * t


def test_series_and_equations_agree_where_they_meet():
    # At 1 - T = 2 NEAR the equations are right to 1e-9, and the series of the docstring to its fourth term.
    for factor in (1.001, 2.0):
        t = factor * NEAR
        series = math.sqrt(4.0 / 3.0 * t**3 * (1.0 + t + 3.4 * t**2))
        assert line(1.0 - t) / series == pytest.approx(1.0, abs=1e-8 * factor**3)
    below, above = line(1.0 - 1.0001 * NEAR), line(1.0 - 0.9999 * NEAR)
    assert below / above - 1.0 == pytest.approx(1.5 * 2e-4, rel=1e-3)


def test_end_at_low_temperature():
    for T, rest in ((1e-2, 1e-3), (1e-3, 1e-5), (1e-6, 1e-10), (1e-20, 1e-12), (1e-80, 1e-11)):
        h = line(T)
        assert math.log(T) == pytest.approx(math.log(4.0 / (3.0 * math.sqrt(2.0 * math.pi))) - h**2 / 2.0, abs=rest)


def test_line_falls_and_temperature_is_its_inverse():
    T = np.concatenate([np.logspace(-12, -1, 23), np.linspace(0.15, 0.999, 20), 1.0 - np.logspace(-4, -9, 6)])
    h = [line(one) for one in T]
    assert (np.diff(h) < 0).all()
    for field, expected in zip(h, T, strict=True):
        assert temperature(field) == pytest.approx(expected, rel=1e-11)
        if expected < 1.0:
            assert 1.0 - temperature(field) == pytest.approx(1.0 - expected, rel=1e-6)
    assert temperature(0.0) == 1.0
    # and of one point by a solver that shares nothing with it
    root = optimize.fsolve(
        lambda u: (1.0 - average(2, u[0], 0.5, u[1]) - u[1], average(4, u[0], 0.5, u[1]) / u[0] ** 2 - 1.0),
        (0.5, 0.6),
        xtol=1e-12,
    )
    assert temperature(0.5) == pytest.approx(root[0], rel=1e-9)


@pytest.mark.parametrize("T", [0.0, -0.1, 1.1, math.nan, math.inf])
def test_temperatures_without_a_line_are_refused(T):
    with pytest.raises(ValueError, match=r"T=.*needed"):
        line(T)


@pytest.mark.parametrize("h", [-0.1, math.nan, math.inf])
def test_fields_without_a_meaning_are_refused(h):
    for call in (temperature, lambda h: overlap(0.5, h), lambda h: stability(0.5, h)):
        with pytest.raises(ValueError, match=r"h=.*needed"):
            call(h)
    with pytest.raises(ValueError, match="h=21"):
        temperature(21.0)
