"""Mean field of vector spins: the readout of one spin, the second order, and the table of the spin transformer."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.special import roots_gegenbauer

from mc.models import vector
from mc.vector import readout, tap
from mc.vector.alignment import mean_square
from mc.vector.kinetic import KineticDriver
from mc.vector.mean_field import METHODS, SCHEMES, solve
from tests.archives import arrays_of

DATA = Path(__file__).parent / "data"
TABLE = json.loads((DATA / "spin_transformer.json").read_text())
BETAS = (0.1, 0.5, 2.0, 20.0)


def covariance(theta: np.ndarray, beta: float, radius: float) -> np.ndarray:
    """C = 1/(1+gamma) - m m^T / (R^2 gamma) of one spin for large D, (..., D, D), with m = large_d(theta).

    beta C is the derivative of large_d: fluctuation and response agree in this form as they do exactly.
    """
    g = readout.gamma(theta, beta, radius)[..., None, None]
    m = readout.large_d(theta, beta, radius)
    return np.eye(theta.shape[-1]) / (1.0 + g) - m[..., :, None] * m[..., None, :] / (radius**2 * g)


def first_derivative(theta: np.ndarray, dh: np.ndarray, beta: float, radius: float) -> np.ndarray:
    """d phi / d alpha at alpha = 0 along theta + alpha dh, for large D; shape (..., D)."""
    g = readout.gamma(theta, beta, radius)[..., None]
    m = readout.large_d(theta, beta, radius)
    return beta * dh / (1.0 + g) - beta / radius**2 * readout.row_dot(m, dh) / g * m


def second_derivative(theta: np.ndarray, dh: np.ndarray, beta: float, radius: float) -> np.ndarray:
    """d^2 phi / d alpha^2 at alpha = 0 along theta + alpha dh, for large D; shape (..., D)."""
    g = readout.gamma(theta, beta, radius)[..., None]
    m = readout.large_d(theta, beta, radius)
    along = readout.row_dot(m, dh)
    rate = (beta / radius) ** 2
    cubic = rate / radius**2 * (1.0 + 3.0 * g) / g**3 * along**2 * m
    return cubic - rate / (g * (1.0 + g)) * (readout.row_dot(dh, dh) * m + 2.0 * along * dh)


def radius_of(dimension):
    return math.sqrt(0.5 * dimension - 1.0)


def vectors(*shape, size=1.0, seed=0):
    return size * np.random.default_rng(seed).standard_normal(shape)


def glass(n=6, dimension=5, seed=3):
    """(fields, couplings, means inside the sphere, radius) of a small asymmetric glass with a diagonal."""
    fields, couplings = vectors(n, dimension, seed=seed), vectors(n, n, size=1 / math.sqrt(n), seed=seed + 1)
    radius = radius_of(dimension)
    return fields, couplings, readout.large_d(vectors(n, dimension, seed=seed + 2), 1.3, radius), radius


def instance(coupling):
    arrays = arrays_of(DATA / "spin_transformer.npz")
    fields, couplings = arrays["x"], arrays["J"]
    if coupling == "symmetric":
        upper = np.triu(couplings, 1)
        couplings = upper + upper.T
    return fields, couplings


# --- one spin


def polar_moments(z, dimension):
    """(ln of the mean of exp(z t) over the sphere, <t>) for t = cos(s, h), by quadrature over the law of t."""
    nodes, weights = roots_gegenbauer(200, 0.5 * dimension - 1.0)
    law = weights * np.exp(z * (nodes - 1.0))
    return math.log(law.sum() / weights.sum()) + z, law @ nodes / law.sum()


@pytest.mark.parametrize("z", [1e-3, 0.7, 6.0, 40.0])
@pytest.mark.parametrize("dimension", [3, 4, 32])
def test_exact_mean_and_partition_function_are_integrals_over_the_sphere(dimension, z):
    radius, beta = radius_of(dimension), 0.8
    norm = z / (beta * radius)
    field = vectors(dimension)
    field *= norm / np.linalg.norm(field)
    log_mean, first = polar_moments(z, dimension)
    assert readout.exact(field, beta, radius) == pytest.approx(radius * first * field / norm, rel=1e-9)
    area = math.log(2 * math.pi ** (dimension / 2) * radius ** (dimension - 1) / math.gamma(dimension / 2))
    assert readout.log_partition(beta, radius, norm, dimension) == pytest.approx(
        area + log_mean, rel=1e-10, abs=1e-10
    )


@pytest.mark.parametrize("dimension", [2, 3, 32, 1024])
def test_partition_function_is_the_area_of_the_sphere_without_a_field(dimension):
    radius = 1.7
    area = math.log(2.0) + dimension / 2 * math.log(math.pi) - math.lgamma(dimension / 2)
    area += (dimension - 1) * math.log(radius)
    for beta, norm in ((0.0, 1.0), (1.0, 0.0), (1.0, 1e-12), (1e-12, 1.0)):
        assert readout.log_partition(beta, radius, norm, dimension) == pytest.approx(area, rel=1e-12)


def test_partition_function_has_no_overflow_and_no_step_where_its_formulas_meet():
    norms = np.concatenate(([0.0], np.geomspace(1e-6, 1e6, 4000)))
    for dimension in (3, 32, 1024):
        radius = radius_of(dimension)
        found = readout.log_partition(1.0, radius, norms, dimension)
        assert found.shape == norms.shape
        assert np.isfinite(found).all()
        slope = np.diff(found) / np.diff(norms)  # between the means at both ends, as ln Z is convex
        means = radius * readout.bessel_ratio(dimension / 2, radius * norms)
        slack = 4e-14 * np.abs(found[1:]) / np.diff(norms)
        assert (slope >= means[:-1] - slack).all()
        assert (slope <= means[1:] + slack).all()


@pytest.mark.parametrize("order", [0.5, 1.0, 1.5, 16.0, 100.5, 512.0])
def test_bessel_ratio_obeys_its_recurrence_and_bounds_at_all_scales(order):
    z = np.concatenate(([0.0], np.geomspace(1e-300, 1e7, 3001)))
    ratio = readout.bessel_ratio(order, z)
    assert ratio[0] == 0
    above = readout.bessel_ratio(order + 1.0, z)
    assert ratio * (2.0 * order + z * above) == pytest.approx(z, rel=1e-12)
    ratio, z = ratio[1:], z[1:]  # bounds: Amos, Math. Comput. 28, 239 (1974)
    assert (ratio <= z / (order - 0.5 + np.hypot(order - 0.5, z)) * (1 + 1e-12)).all()
    assert (ratio >= z / (order - 0.5 + np.hypot(order + 0.5, z)) * (1 - 1e-12)).all()


def test_bessel_ratio_is_langevin_in_three_dimensions():
    z = np.linspace(0.5, 50, 100)
    assert readout.bessel_ratio(1.5, z) == pytest.approx(1 / np.tanh(z) - 1 / z, rel=1e-12)


@pytest.mark.parametrize("beta", BETAS)
def test_inverse_undoes_the_readout(beta):
    theta = vectors(4, 50, 8)
    radius = radius_of(8)
    assert readout.inverse_large_d(readout.large_d(theta, beta, radius), beta, radius) == pytest.approx(
        theta, rel=1e-9
    )


@pytest.mark.parametrize("beta", BETAS)
def test_derivatives_of_the_readout_are_its_differences(beta):
    radius, step = radius_of(8), 1e-3 / beta
    theta, dh = vectors(20, 8), vectors(20, 8, seed=1)
    low, mid, high = (readout.large_d(theta + a * dh, beta, radius) for a in (-step, 0.0, step))
    # errors of differences: step^2 times the next derivatives, which scale with beta to the third and fourth power
    first, second = (high - low) / (2 * step), (high - 2 * mid + low) / step**2
    assert first_derivative(theta, dh, beta, radius) == pytest.approx(first, abs=3e-5 * beta)
    assert second_derivative(theta, dh, beta, radius) == pytest.approx(second, abs=3e-4 * beta**2)


@pytest.mark.parametrize("beta", BETAS)
def test_covariance_is_the_response_to_the_field(beta):
    theta, radius = vectors(20, 8), radius_of(8)
    found = covariance(theta, beta, radius)
    for k, axis in enumerate(np.eye(8)):
        response = first_derivative(theta, np.broadcast_to(axis, theta.shape), beta, radius)
        assert beta * found[..., k] == pytest.approx(response, abs=1e-13 * beta)


@pytest.mark.parametrize("strength", [0.3, 1.0, 4.0])
def test_large_d_tends_to_the_exact_mean_and_covariance_as_one_over_d(strength):
    errors = []
    for dimension in (32, 128, 512):
        radius = radius_of(dimension)
        theta = np.zeros(dimension)
        theta[0] = strength * radius  # beta |theta| / R stays
        z = strength * radius**2
        along = readout.bessel_ratio(dimension / 2, z)
        across = along / z  # <t_perp^2> of a unit vector: the ratio over z
        exact = radius**2 * np.array([along / radius, 1.0 - along**2 - (dimension - 1) * along / z, across])
        found = covariance(theta, 1.0, radius)
        mean = readout.large_d(theta, 1.0, radius)[0]
        errors.append(np.abs(np.array([mean, found[0, 0], found[1, 1]]) / exact - 1.0))
        assert errors[-1] == pytest.approx(np.zeros(3), abs=4.0 / dimension)
        assert readout.exact(theta, 1.0, radius)[0] == pytest.approx(exact[0], rel=1e-12)
    assert (errors[2] < 0.3 * errors[1]).all()  # 1/4 each time
    assert (errors[1] < 0.35 * errors[0]).all()


# --- second order


def literal_tap(theta, before, fields, couplings, beta, radius):
    """Eq. 2.20 spin by spin, with T as a matrix and the second derivative as its average of phi'' over T."""
    n = len(fields)
    covariances = covariance(readout.inverse_large_d(before, beta, radius), beta, radius)
    found = np.empty_like(fields)
    for i in range(n):
        field = fields[i] + sum(couplings[i, j] * before[j] for j in range(n))
        v = field - theta[i]
        t = np.outer(v, v) + sum(couplings[i, j] ** 2 * covariances[j] for j in range(n))
        tau = v @ v + sum(couplings[i, j] ** 2 * (radius**2 - before[j] @ before[j]) for j in range(n))
        values, axes = np.linalg.eigh(t)
        g, m = readout.gamma(theta[i], beta, radius), readout.large_d(theta[i], beta, radius)
        second = sum(
            value * second_derivative(theta[i], axis, beta, radius)
            for value, axis in zip(values, axes.T, strict=True)
        )
        second = second - (beta / radius) ** 2 / (g * (1 + g)) * (tau - np.trace(t)) * m  # tau stands for the trace
        share = (m @ second) / (radius**2 * g / (1 + g) - m @ m)
        found[i] = field + (1 + g) / (2 * beta) * (second + share * m)
    return found


@pytest.mark.parametrize("beta", BETAS)
def test_published_tap_is_its_definition(beta):
    fields, couplings, before, radius = glass()
    theta = vectors(*fields.shape, seed=9)
    found = tap.published(theta, before, fields, couplings, beta, radius)
    expected = literal_tap(theta, before, fields, couplings, beta, radius)
    assert found == pytest.approx(expected, rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("beta", [0.0, *BETAS, 1e4])
def test_onsager_form_is_solved_by_its_one_root(beta):
    fields, couplings, before, radius = glass()
    theta = tap.onsager_solved(before, fields, couplings, beta, radius)
    m = readout.large_d(theta, beta, radius)
    field = fields + couplings @ before
    reaction = 0.5 * beta * (couplings**2 @ (1 - (before**2).sum(1) / radius**2))[:, None] * m
    # at large beta m / theta is beta / 2 at first: rounding of theta comes back as large as the reaction it makes
    assert theta + reaction == pytest.approx(field, abs=1e-11 * (1 + np.abs(reaction).max()))
    assert tap.onsager(theta, before, fields, couplings, beta, radius) == pytest.approx(field - reaction, abs=1e-12)


@pytest.mark.parametrize("beta", [0.3, 1.0])
def test_published_form_tends_to_the_onsager_form(beta):
    """Without v and for large D: v is small where theta is near the field, and 1/D falls."""
    difference = []
    for dimension in (8, 512):
        fields, couplings, before, radius = glass(dimension=dimension)
        fields, couplings = fields * radius, 0.05 * couplings
        theta = tap.onsager_solved(before, fields, couplings, beta, radius)
        forms = [form(theta, before, fields, couplings, beta, radius) for form in (tap.published, tap.onsager)]
        reaction = forms[1] - fields - couplings @ before
        difference.append(np.linalg.norm(forms[0] - forms[1]) / np.linalg.norm(reaction))
    assert difference[1] < 0.05
    assert difference[1] < 0.1 * difference[0]


# --- solutions


def literal_residual(result, fields, couplings, beta, method):
    """Largest |phi(theta(m)) - m| / R, by the formulas."""
    radius = radius_of(fields.shape[1])
    m = result.m
    if method == "nmf":
        theta = fields + couplings @ m
    else:
        theta = readout.inverse_large_d(m, beta, radius)
        if method == "tap":
            theta = literal_tap(theta, m, fields, couplings, beta, radius)
        else:
            reaction = 0.5 * beta * (couplings**2 @ (1 - (m**2).sum(1) / radius**2))
            theta = fields + couplings @ m - reaction[:, None] * m
    return np.linalg.norm(readout.large_d(theta, beta, radius) - m, axis=1).max() / radius


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("beta", [0.01, 0.5, 1.5])
def test_solution_solves_the_equations(beta, method, scheme):
    fields, couplings, _, radius = glass(n=12, dimension=8)
    found = solve(fields, couplings, beta, method, scheme=scheme)
    assert found.converged
    assert found.reason == "converged"
    assert found.residual < 1e-9
    assert literal_residual(found, fields, couplings, beta, method) < 1e-7
    assert found.q == pytest.approx((found.m**2).sum(1).mean() / radius**2)
    cosine = (found.m * fields).sum(1) / np.linalg.norm(found.m, axis=1) / np.linalg.norm(fields, axis=1)
    assert found.alignment == pytest.approx(cosine.mean())
    theta = readout.inverse_large_d(found.m, beta, radius)
    reaction = np.linalg.norm(theta - fields - couplings @ found.m) / np.linalg.norm(theta)
    assert found.reaction == pytest.approx(0.0 if method == "nmf" else reaction, abs=1e-9)


@pytest.mark.parametrize("beta", [0.2, 1.0, 30.0])
def test_one_spin_has_its_exact_mean(beta):
    field = vectors(1, 6)
    norm, radius, step = np.linalg.norm(field), radius_of(6), 1e-5
    found = solve(field, np.zeros((1, 1)), beta, bessel="exact")
    assert found.m == pytest.approx(readout.exact(field, beta, radius))
    low, high = (readout.log_partition(beta, radius, norm + d, 6) for d in (-step, step))
    assert np.linalg.norm(found.m) == pytest.approx((high - low) / (2 * step * beta), rel=1e-8)
    assert found.alignment == pytest.approx(1.0)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_exact_readout_is_solved_by_every_scheme(scheme):
    fields, couplings, _, radius = glass()
    found = solve(fields, couplings, 1.0, bessel="exact", scheme=scheme)
    assert found.converged
    assert readout.exact(fields + couplings @ found.m, 1.0, radius) == pytest.approx(found.m, abs=1e-8)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row['coupling']}-{row['beta']}")
@pytest.mark.parametrize("method", METHODS)
def test_table_of_the_spin_transformer(method, row):
    """At beta = 5 the published form fails for both J, the Onsager form for the asymmetric one."""
    fields, couplings = instance(row["coupling"])
    found = solve(fields, couplings, row["beta"], method, max_steps=1000)
    expected = row[method]
    assert found.converged == expected["converged"]
    if expected["converged"]:
        assert found.q == pytest.approx(expected["q"], abs=1e-8)
        assert found.alignment == pytest.approx(expected["A"], abs=1e-8)
    else:
        assert found.reason in ("flips sign", "does not settle")
        assert found.residual > 0.1
        assert found.iterations == 1000
        assert np.isfinite(found.m).all()


def test_published_tap_flips_sign_in_the_cold():
    for coupling in ("asymmetric", "symmetric"):
        assert solve(*instance(coupling), 5.0, "tap").reason == "flips sign"


@pytest.mark.parametrize("scheme", ["time-steps", "anderson"])
@pytest.mark.parametrize("beta", [1.0, 2.0])
@pytest.mark.parametrize("method", METHODS)
def test_other_schemes_find_the_same_root(method, beta, scheme):
    fields, couplings = instance("asymmetric")
    expected = solve(fields, couplings, beta, method)
    found = solve(fields, couplings, beta, method, scheme=scheme)
    assert found.converged
    assert found.m == pytest.approx(expected.m, abs=1e-7)


@pytest.mark.parametrize("coupling", ["asymmetric", "symmetric"])
def test_root_that_substitution_misses_is_a_spurious_one(coupling):
    """It solves the equations, and both other schemes reach it, but its size and its reaction are wrong."""
    fields, couplings = instance(coupling)
    kinetic = next(row["kinetic"] for row in TABLE if row["coupling"] == coupling and row["beta"] == 5.0)
    found = [solve(fields, couplings, 5.0, "tap", scheme=scheme) for scheme in ("time-steps", "anderson")]
    for result in found:
        assert result.converged
        assert result.reaction > 10
        assert result.q < 0.05 * kinetic["q"]
    assert found[0].m == pytest.approx(found[1].m, abs=1e-7)
    assert literal_residual(found[1], fields, couplings, 5.0, "tap") < 1e-6


def test_reaction_tells_the_roots_near_the_kinetic_simulation_from_the_others():
    """Over the table, q is within 0.05 of Monte Carlo where the reaction is below 0.6, and only there."""
    for row in TABLE:
        for method in ("tap", "tap_onsager"):
            found = solve(*instance(row["coupling"]), row["beta"], method, max_steps=1000)
            close = abs(found.q - row["kinetic"]["q"]) < 0.05
            assert close == (found.reaction < 0.6)


# --- failures


def test_start_and_damping_change_the_way_but_not_the_root():
    fields, couplings, _, radius = glass(n=12, dimension=8)
    expected = solve(fields, couplings, 1.0)
    ones = np.full_like(fields, 1 / math.sqrt(fields.shape[1]))
    for start in (ones, 5 * radius * ones):
        for method in METHODS:
            found = solve(fields, couplings, 1.0, method, start=start, damping=0.5)
            assert found.converged
            assert method != "nmf" or found.m == pytest.approx(expected.m, abs=1e-7)
    assert solve(fields, couplings, 1.0, damping=0.9).iterations > expected.iterations


def test_too_few_steps_are_said_to_be_too_few():
    fields, couplings = instance("symmetric")
    found = solve(fields, couplings, 5.0, max_steps=20)
    assert not found.converged
    assert found.reason == "too few steps"
    assert found.iterations == 20
    assert 1e-9 < found.residual < 1


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [1e30, 1e155, 1e300])
def test_overflow_is_reported_and_not_raised(size, method, scheme):
    fields, couplings, _, _ = glass()
    found = solve(fields, size * couplings, 1.0, method, scheme=scheme, max_steps=50)
    assert isinstance(found.reason, str)
    assert np.isfinite(found.m).all()
    assert found.q <= 1 + 1e-9


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_infinite_temperature_and_no_field_have_no_magnetisation(scheme, method):
    fields, couplings, _, _ = glass()
    for x, beta in ((fields, 0.0), (0 * fields, 0.7)):
        found = solve(x, couplings, beta, method, scheme=scheme)
        assert found.converged
        assert found.q == 0
        assert math.isnan(found.alignment)


def test_alignment_is_over_the_sites_with_a_field():
    fields, couplings, _, _ = glass()
    fields[2] = 0
    found = solve(fields, couplings, 1.0)
    seen = np.arange(len(fields)) != 2
    cosine = (found.m * fields).sum(1)[seen] / np.linalg.norm(found.m, axis=1)[seen]
    assert found.alignment == pytest.approx((cosine / np.linalg.norm(fields, axis=1)[seen]).mean())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"method": "mft"}, "method=mft: unknown; nmf, tap, tap_onsager"),
        ({"bessel": "series"}, "bessel=series"),
        ({"scheme": "newton"}, "scheme=newton"),
        ({"method": "tap", "bessel": "exact"}, "large D only"),
        ({"beta": -1.0}, "beta=-1.0"),
        ({"beta": math.nan}, "beta=nan"),
        ({"fields": np.ones((6, 2))}, "D >= 3"),
        ({"fields": np.ones(6)}, r"fields: shape \(6,\)"),
        ({"fields": np.full((6, 5), np.nan)}, "NaN"),
        ({"couplings": np.ones((6, 5))}, "couplings: shape"),
        ({"start": np.ones((5, 5))}, "start: shape"),
        ({"damping": 1.0}, "damping=1.0"),
        ({"max_steps": 0}, "max_steps=0"),
        ({"tolerance": 0.0}, "tolerance=0.0"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(change, says):
    fields, couplings, _, _ = glass()
    arguments = {"fields": fields, "couplings": couplings, "beta": 1.0, **change}
    with pytest.raises(ValueError, match=says) as error:
        solve(**arguments)
    assert "\n" not in str(error.value)


def test_readout_refuses_what_has_no_value():
    with pytest.raises(ValueError, match="radius"):
        readout.inverse_large_d(np.full((1, 8), 2.0), 1.0, radius_of(8))
    with pytest.raises(ValueError, match="beta=0"):
        readout.inverse_large_d(np.zeros((1, 8)), 0.0, radius_of(8))
    with pytest.raises(ValueError, match="order"):
        readout.bessel_ratio(0.0, 1.0)
    with pytest.raises(ValueError, match="below 0"):
        readout.bessel_ratio(1.5, np.array([1.0, -1.0]))
    with pytest.raises(ValueError, match="D >= 2"):
        readout.log_partition(1.0, 1.0, 1.0, 1)
    with pytest.raises(ValueError, match="below 0"):
        readout.log_partition(-1.0, 1.0, 1.0, 3)


@pytest.mark.statistical
def test_at_weak_coupling_it_is_the_parallel_dynamics():
    """q at beta = 0.1 with the exact Bessel ratio, D = 4: 32 chains, abs z < 4, false alarm 4e-4."""
    hamiltonian = vector(N=32, D=4, seed=1)
    driver = KineticDriver(hamiltonian, [0.1], n_chains=32, seed=2, lags=0, spins_every=0)
    driver.warm_up(20)
    driver.block(2000)
    found = mean_square(driver.state()["spin_sums"][:, 0] / 2000, hamiltonian.radius)
    exact = solve(hamiltonian.fields, hamiltonian.couplings, 0.1, "nmf", bessel="exact")
    assert abs(found.value - exact.q) < 4 * found.error
    rough = solve(hamiltonian.fields, hamiltonian.couplings, 0.1, "nmf")
    assert rough.q / exact.q == pytest.approx((4 / (4 - 2)) ** 2, rel=0.02)  # its answer is D/(D-2) times too large
