"""Alignment and overlaps of vector spins: literal loops, known averages of noise, rotations by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from mc.vector import overlap_matrix as om
from mc.vector.alignment import average_of_cosines, cosine_of_average, cosines, mean_square
from tests.enumerated import FALSE_ALARM

R = 1.5


def random_spins(*shape, seed):
    """Independent spins of norm R in directions that are uniform."""
    spins = np.random.default_rng(seed).normal(size=shape)
    return spins * (R / np.linalg.norm(spins, axis=-1, keepdims=True))


def rotation(D, seed, sign=None):
    """A random matrix of O(D), with the determinant asked for."""
    turned = np.linalg.qr(np.random.default_rng(seed).normal(size=(D, D)))[0]
    if sign is not None and np.linalg.det(turned) * sign < 0:
        turned[0] *= -1.0
    return turned


def literal_cosines(a, b):
    found = []
    for one, other in zip(a, b, strict=True):
        norms = math.sqrt(sum(one**2)) * math.sqrt(sum(other**2))
        if norms > 0:
            found.append(sum(one * other) / norms)
    return sum(found) / len(found) if found else math.nan


def mean_and_error(values):
    """Mean of independent values and its standard error."""
    return np.mean(values), np.std(values, ddof=1) / math.sqrt(len(values))


def z_p_value(values, expected):
    """p-value of the mean of independent values, two-sided."""
    value, error = mean_and_error(values)
    return float(2.0 * stats.norm.sf(abs(value - expected) / error))


def test_cosines_are_those_of_a_loop_and_leave_zeros_out():
    rng = np.random.default_rng(1)
    spins, fields = rng.normal(size=(3, 2, 6, 4)), rng.normal(size=(6, 4))
    fields[2] = 0.0
    spins[1, 0, 4] = 0.0
    spins[2, 1] = 0.0
    found = cosines(spins, fields)
    expected = [[literal_cosines(spins[i, j], fields) for j in range(2)] for i in range(3)]
    assert found == pytest.approx(np.array(expected), abs=1e-14, nan_ok=True)
    assert math.isnan(found[2, 1])
    assert np.isnan(found).sum() == 1
    assert cosines(fields, -3.0 * fields) == pytest.approx(-1.0, abs=1e-14)
    assert average_of_cosines(spins[:2], fields) == pytest.approx(np.mean(expected[:2]), abs=1e-14)


def test_the_two_estimators_differ_as_the_thesis_shows():
    # Spins that fluctuate about a mean along the field: each lies across it, their average along it.
    fields = random_spins(8, 16, seed=2)
    spins = 0.05 * fields + random_spins(20_000, 8, 16, seed=3)
    means = spins.reshape(4, 5000, 8, 16).mean(axis=1)
    assert average_of_cosines(spins, fields) < 0.06
    assert cosine_of_average(means, fields).value > 0.95


def test_mean_square_is_the_sum_over_different_chains():
    means = np.random.default_rng(4).normal(size=(5, 3, 4))
    pairs = [(means[c] * means[d]).sum() for c in range(5) for d in range(5) if c != d]
    found = mean_square(means, R)
    assert found.value == pytest.approx(np.mean(pairs) / (3 * R**2), abs=1e-13)
    assert found.plain == pytest.approx((means.mean(axis=0) ** 2).sum() / (3 * R**2), abs=1e-13)


def test_one_chain_has_its_plain_value_and_no_error():
    means, fields = np.random.default_rng(5).normal(size=(2, 1, 3, 4))
    for found in (mean_square(means, R), cosine_of_average(means, fields[0])):
        assert found.value == found.plain
        assert math.isnan(found.error)
    assert mean_square(means, R).plain == pytest.approx((means**2).sum() / (3 * R**2))
    assert cosine_of_average(means, fields[0]).plain == pytest.approx(literal_cosines(means[0], fields[0]))


@pytest.mark.statistical
@pytest.mark.parametrize("chains", [2, 4, 16])
def test_bias_and_error_of_functions_of_noisy_means(chains):
    # False alarms: four bounds of 4 sigma or more a case, each 1e-4 or less.
    repeats, sigma, N, D = 1500, 0.3, 10, 5
    rng = np.random.default_rng(chains)
    mean, others = random_spins(2, N, D, seed=6)
    fields = mean + 0.6 * others
    means = mean + sigma * rng.normal(size=(repeats, chains, N, D))
    variance = sigma**2 / chains  # of a component of the average
    squares = [mean_square(one, R) for one in means]
    value, error = mean_and_error([one.value for one in squares])
    assert abs(value - 1.0) < 4 * error
    angles = [cosine_of_average(one, fields) for one in means]
    A = literal_cosines(mean, fields)
    shrunk = -A * 0.5 * (D - 1) * variance / R**2  # bias of the plain cosine, to first order
    value, error = mean_and_error([literal_cosines(one.mean(axis=0), fields) for one in means[:500]])
    assert abs(value - A - shrunk) < 0.2 * abs(shrunk) + 4 * error
    assert chains > 4 or abs(value - A) > 10 * error
    value, error = mean_and_error([one.value for one in angles])
    assert abs(value - A) < 0.1 * abs(shrunk) + 4 * error
    for found in (squares, angles):
        claimed = np.mean([one.error**2 for one in found])
        assert 0.8 < claimed / np.var([one.value for one in found]) < 1.25


@pytest.mark.statistical
def test_mean_square_of_noise_alone_is_zero_with_a_cautious_error():
    means = np.random.default_rng(8).normal(size=(2000, 4, 6, 5))
    found = [mean_square(one, R) for one in means]
    assert z_p_value([one.value for one in found], 0.0) > FALSE_ALARM
    ratio = np.mean([one.error**2 for one in found]) / np.var([one.value for one in found])
    assert 1.5 < ratio < 4.0  # a variance twice too large for many chains, more for few


def test_what_does_not_fit_is_refused():
    spins = random_spins(4, 3, 5, seed=9)
    for call in (
        lambda: average_of_cosines(spins, spins[0, :2]),
        lambda: cosine_of_average(spins, spins[0, :, :4]),
        lambda: cosine_of_average(spins[0], spins[0]),
        lambda: mean_square(spins[0], R),
    ):
        with pytest.raises(ValueError, match=r"alignment: .* needed"):
            call()
    for call in (
        lambda: om.overlap_matrix(spins[0], R),
        lambda: om.rotation_overlaps(spins[0], R),
        lambda: om.block_order(spins[0]),
        lambda: om.block_order(np.full((3, 3), np.nan)),
        lambda: om.noise_floor(0, 3),
    ):
        with pytest.raises(ValueError, match="needed"):
            call()


def test_overlaps_are_those_of_loops():
    spins = random_spins(2, 3, 4, 5, seed=10)  # two draws of three replicas
    raw, components = om.overlap_matrix(spins, R), om.component_overlaps(spins, R)
    assert raw.shape == (2, 3, 3)
    for t in range(2):
        for a in range(3):
            for b in range(3):
                one, other = spins[t, a], spins[t, b]
                q = sum(np.outer(one[i], other[i]) for i in range(4)) / (4 * R**2)
                assert components[t, a, b] == pytest.approx(q, abs=1e-14)
                assert raw[t, a, b] == pytest.approx(np.trace(q), abs=1e-14)
    pairs = np.array([[m[0, 1], m[0, 2], m[1, 2]] for m in raw])
    assert om.pair_values(raw) == pytest.approx(pairs)


@pytest.mark.parametrize("sign", [1, -1])
def test_rotations_change_the_raw_overlap_only(sign):
    spins = random_spins(3, 40, 4, seed=11)
    turned = spins.copy()
    turned[1] = spins[1] @ rotation(4, 18, sign)
    assert abs(om.overlap_matrix(turned, R)[0, 1] - om.overlap_matrix(spins, R)[0, 1]) > 0.01
    for overlaps in (om.frobenius_overlaps, om.rotation_overlaps):
        assert overlaps(turned, R) == pytest.approx(overlaps(spins, R), abs=1e-13)
    same = np.stack([spins[0], spins[0] @ rotation(4, 13, sign)])
    assert om.overlap_matrix(same, R)[0, 1] < 0.9
    assert om.rotation_overlaps(same, R) == pytest.approx(np.ones((2, 2)), abs=1e-13)


def test_rotation_overlap_is_the_largest_over_rotations():
    # In the plane every rotation and reflection can be tried.
    one, other = random_spins(2, 6, 2, seed=14)
    angles = np.linspace(0.0, 2.0 * np.pi, 20_001)
    c, s = np.cos(angles), np.sin(angles)
    turns = np.moveaxis(np.array([[c, -s], [s, c]]), -1, 0)
    tried = np.concatenate([turns, turns @ np.diag([1.0, -1.0])])
    best = np.einsum("id,tde,ie->t", one, tried, other).max() / (6 * R**2)
    assert om.rotation_overlaps(np.stack([one, other]), R)[0, 1] == pytest.approx(best, abs=1e-7)


def test_overlaps_of_states_that_are_known():
    line = np.zeros((1, 7, 5))
    line[..., 2] = R * np.array([1, -1, 1, 1, -1, -1, 1])
    assert om.frobenius_overlaps(line, R)[0, 0] == pytest.approx(1.0)
    assert om.rotation_overlaps(line, R)[0, 0] == pytest.approx(1.0)
    axes = R * np.eye(5)[None]  # five spins along five axes
    assert om.frobenius_overlaps(axes, R)[0, 0] == pytest.approx(math.sqrt(1.0 / 5.0))
    assert om.rotation_overlaps(axes, R)[0, 0] == pytest.approx(1.0)


@pytest.mark.statistical
@pytest.mark.parametrize(("N", "D"), [(64, 32), (32, 32), (16, 40), (400, 24)])
def test_overlaps_of_random_spins_are_the_noise_floor(N, D):
    # False alarms: one combined p-value and one bound of many sigma a case.
    spins = random_spins(150, 2, N, D, seed=N + D)
    floor = om.noise_floor(N, D)
    raw = om.overlap_matrix(spins, R)[:, 0, 1]
    assert stats.kstest(raw, "norm", (0.0, 1.0 / math.sqrt(N * D))).pvalue > FALSE_ALARM
    assert floor.raw == pytest.approx(stats.halfnorm(scale=1.0 / math.sqrt(N * D)).mean())
    frobenius = om.frobenius_overlaps(spins, R)
    assert z_p_value(frobenius[:, 0, 1] ** 2, floor.frobenius**2) > FALSE_ALARM
    assert z_p_value(frobenius[:, 0, 0] ** 2, 1.0 / N + (1.0 - 1.0 / N) / D) > FALSE_ALARM
    assert om.rotation_overlaps(spins, R)[:, 0, 1].mean() == pytest.approx(floor.rotation, rel=0.01)


def test_noise_floor_of_rotations_has_its_limits():
    # Equal from both sides at N = D; all of it for few spins; the quarter circle law for many.
    assert om.noise_floor(1000, 1000).rotation == pytest.approx(0.75)
    assert om.noise_floor(1001, 1000).rotation == pytest.approx(0.75, abs=1e-3)
    assert om.noise_floor(2, 10_000).rotation == pytest.approx(1.0, abs=1e-4)
    singular = stats.semicircular(scale=2.0 * math.sqrt(50.0))  # of a 50 x 50 matrix of variance 1
    quarter = 50 * singular.expect(abs) / (50 * math.sqrt(10**6))
    assert om.noise_floor(10**6, 50).rotation == pytest.approx(quarter, rel=1e-4)


def test_block_order_puts_alike_replicas_side_by_side():
    states = random_spins(3, 50, 8, seed=15)
    group = np.array([0, 1, 2, 0, 1, 0, 2, 1])
    spins = states[group] + 0.2 * random_spins(8, 50, 8, seed=16)
    for matrix in (om.overlap_matrix(spins, R), om.frobenius_overlaps(spins, R), om.rotation_overlaps(spins, R)):
        order = om.block_order(matrix)
        assert sorted(order) == list(range(8))
        assert (np.diff(group[order]) != 0).sum() == 2
    assert om.block_order(np.eye(2)).tolist() == [0, 1]
    assert om.block_order(np.eye(1)).tolist() == [0]
