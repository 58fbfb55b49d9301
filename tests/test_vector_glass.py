"""The large-N theory of vector glasses: SK as its special case, fields drawn at random, both ends, simulations."""

import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import dawsn

import mc
from mc.exact import almeida_thouless as sk
from mc.exact.vector_glass import VectorGlass, glass_of
from mc.vector.driver import VectorDriver
from mc.vector.readout import exact
from tests.vector_laws import radius, z_values


def glass(dimension, strength=1.0):
    return VectorGlass(dimension, radius(dimension), strength)


@pytest.mark.parametrize("T", [0.01, 0.2, 0.6, 0.9, 0.99])
def test_one_component_is_the_sk_model(T):
    ising = VectorGlass(1, 1.0)
    assert ising.line(T) == pytest.approx(sk.line(T), rel=1e-10)
    for h in (0.0, 0.05, 0.3, 2.0):
        assert ising.overlap(T, h) == pytest.approx(sk.overlap(T, h), abs=1e-12)
        assert T**2 * (1.0 - ising.instability(T, h)) == pytest.approx(sk.stability(T, h), abs=1e-12)
        assert ising.is_unstable(T, h) == (h < sk.line(T))


@pytest.mark.statistical
@pytest.mark.parametrize("dimension", [3, 4, 32])
@pytest.mark.parametrize(("share", "h"), [(0.05, 0.4), (0.5, 0.0), (0.8, 1.0), (1.5, 2.5)])
def test_both_averages_are_those_of_fields_drawn_at_random(dimension, share, h):
    """False alarm 1e-4 a number.

    The second is the slope of the overlap of two replicas in correlated fields at their common state, as of
    `test_two_coupled_replicas_part_at_the_line` of SK: it needs the mean spin only, no derivative.
    """
    g = 1.3
    one = glass(dimension, g)
    R, T = one.radius, share * one.critical_temperature
    q = one.overlap(T, h)
    random = np.random.default_rng(dimension)
    spread = g * R / math.sqrt(dimension)
    field = math.sqrt(q) * spread * random.normal(size=(100_000, dimension))
    field[:, 0] += h
    mean = exact(field, 1.0 / T, R)
    assert abs(z_values((mean**2).sum(axis=1) / R**2, q)) < 4
    apart = 1e-8
    moved = exact(field + math.sqrt(2.0 * apart) * spread * random.normal(size=field.shape), 1.0 / T, R)
    slope = ((moved - mean) ** 2).sum(axis=1) / (2.0 * R**2 * apart)
    assert abs(z_values(slope, one.instability(T, h))) < 4


@pytest.mark.parametrize("dimension", [3, 8, 32])
def test_the_line_begins_as_sharma_and_young_say(dimension):
    one = glass(dimension, 0.7)
    for t in (1e-2, 1e-3):
        leading = math.sqrt(4.0 * (0.7 * one.radius) ** 2 * t**3 / (dimension + 2))
        assert one.line(one.critical_temperature * (1.0 - t)) == pytest.approx(leading, rel=1.2 * t)
    assert one.line(one.critical_temperature) == one.line(3.0) == 0.0
    assert one.instability(2.0 * one.critical_temperature, 0.0) == pytest.approx(0.25)


def test_the_line_ends_at_a_finite_field():
    # T = 0: every spin lies along its field, q = 1, and (g R)^2 (D - 1) / D E 1/f^2 = 1; in three dimensions
    # E 1/f^2 = sqrt(2) F(h / (s sqrt(2))) / (h s) with Dawson's integral F and s = g R / sqrt(3).
    s = radius(3) / math.sqrt(3.0)
    end = brentq(lambda h: 2.0 * s * math.sqrt(2.0) * dawsn(h / (s * math.sqrt(2.0))) / h - 1.0, 0.1, 2.0)
    cold = [glass(3).line(share * glass(3).critical_temperature) for share in (1e-2, 1e-3, 1e-4)]
    assert cold[0] < cold[1] < cold[2] < end
    assert cold[2] == pytest.approx(end, rel=1e-3)
    assert glass(3).is_unstable(1e-100, 0.99 * end)
    assert not glass(3).is_unstable(1e-100, 1.01 * end)
    assert not glass(3).is_unstable(1e-3, 1e50)


@pytest.mark.statistical
def test_simulations_of_many_spins_agree():
    """Ten instances of 128 spins in R^3, in units of the scatter between instances; false alarm 2e-4."""
    one = glass(3)
    overlaps, susceptibilities = [], []
    for seed in range(10):
        for T, h, found in ((1.5, 0.3, overlaps), (2.0, 0.0, susceptibilities)):
            beta = 1.0 / (T * one.critical_temperature)
            hamiltonian = mc.models.vector(N=128, D=3, seed=seed, coupling="symmetric", h=h)
            driver = VectorDriver(hamiltonian, [beta], n_chains=4, seed=seed, replicas=2, thin=5, spins_every=0)
            driver.warm_up(100)
            posterior = driver.block(100).posterior
            found.append(128 * (posterior["overlap_norm"] ** 2).mean() if h == 0.0 else posterior["overlap"].mean())
    assert abs(z_values(np.array(overlaps), one.overlap(1.5 * one.critical_temperature, 0.3))) < 4
    assert abs(z_values(np.array(susceptibilities), 1.0 / (1.0 - 0.5**2))) < 4


def test_the_strength_is_that_of_the_couplings():
    symmetric = mc.models.vector(N=200, D=4, seed=1, coupling="symmetric")
    assert glass_of(symmetric).strength == pytest.approx(1.0, abs=0.03)
    assert glass_of(mc.models.vector(N=200, D=4, seed=1)).strength == pytest.approx(math.sqrt(0.5), abs=0.03)
    assert glass_of(symmetric).radius == 1.0
    with pytest.raises(ValueError, match="g above 0"):
        glass_of(mc.models.vector(N=3, D=4, J=0.0))


@pytest.mark.parametrize(
    ("T", "h"), [(0.0, 0.0), (-1.0, 0.0), (math.nan, 0.0), (math.inf, 0.0), (0.1, -1.0), (0.1, math.inf)]
)
def test_what_has_no_meaning_is_refused(T, h):
    with pytest.raises(ValueError, match="is needed"):
        glass(4).overlap(T, h)
