"""Normal numbers, directions and von Mises-Fisher vectors of the kernels against their laws.

Each statistical test combines its p-values by Fisher's rule and fails below FALSE_ALARM: 1e-3 for the file.
"""

import numpy as np
import pytest
from numba import njit
from scipy import stats

from mc.kernels import gaussian
from mc.kernels.gaussian import draw_vmf, fill_normals, next_gamma, uniform_direction, vmf_gap
from mc.kernels.random_streams import streams
from tests.enumerated import FALSE_ALARM, chi_square_p, combined_p_value
from tests.sphere_laws import gap_cdf, mean_cosine, mean_square_cosine, moment_p_value

DIMENSIONS = (3, 8, 32, 512)
CONCENTRATIONS = (0.0, 1e-12, 0.3, 5.0, 100.0, 1e5, 1e7)


@njit
def gaps(out, kappa, dimension, state):
    for i in range(len(out)):
        out[i] = vmf_gap(kappa, dimension, state)


@njit
def gammas(out, shape, state):
    for i in range(len(out)):
        out[i] = next_gamma(shape, state)


@njit
def spins_in_field(out, field, beta, radius, state):
    for i in range(len(out)):
        draw_vmf(out[i], field, beta, radius, state)


@njit
def spins_anywhere(out, radius, state):
    for i in range(len(out)):
        uniform_direction(out[i], radius, state)


def stream(seed):
    return streams(seed, count=1)[0]


def test_layers_have_one_area_and_close_at_the_top():
    widths, heights = gaussian.WIDTHS, np.exp(-(gaussian.WIDTHS**2) / 2)
    assert (np.diff(widths) < 0).all()
    base = gaussian.TAIL * heights[1] + np.sqrt(2 * np.pi) * stats.norm.sf(gaussian.TAIL)
    assert widths[0] * heights[1] == pytest.approx(base, rel=1e-14)
    assert widths[1:-1] * np.diff(heights[1:]) == pytest.approx(np.full(255, base), rel=1e-9)
    assert heights[-1] == 1.0


@pytest.mark.statistical
def test_normals_are_normal_and_independent():
    numbers = np.empty(2_000_000)
    fill_normals(numbers, stream(1))
    edges = np.array([-np.inf, *np.arange(-3.5, 3.75, 0.25), np.inf])
    edges = np.sort(np.append(edges, [-4.5, -gaussian.TAIL, gaussian.TAIL, 4.5]))
    places = np.searchsorted(edges, numbers) - 1
    law = np.diff(stats.norm.cdf(edges))
    p_values = [chi_square_p(np.bincount(places, minlength=len(law)), law, len(numbers))]
    p_values.append(stats.kstest(numbers[:200_000], "norm").pvalue)
    eighths = np.floor(8 * stats.norm.cdf(numbers)).astype(int)
    for lag in (1, 2, 31):  # pairs without a number in common, in 8 x 8 cells of equal weight
        blocks = eighths[: len(eighths) // (2 * lag) * 2 * lag].reshape(-1, 2, lag)
        cells = np.bincount((8 * blocks[:, 0] + blocks[:, 1]).ravel(), minlength=64)
        p_values.append(chi_square_p(cells, np.full(64, 1 / 64), cells.sum()))
    assert combined_p_value(p_values) > FALSE_ALARM, p_values


@pytest.mark.statistical
def test_the_tail_of_the_normals():
    # About 2600 numbers of 10^7 come from beyond the layers.
    numbers, state, beyond = np.empty(1_000_000), stream(4), []
    for _ in range(10):
        fill_normals(numbers, state)
        beyond.append(numbers[np.abs(numbers) > gaussian.TAIL])
    tail, outside = np.concatenate(beyond), stats.norm.sf(gaussian.TAIL)
    p_values = [
        stats.binomtest(len(tail), 10 * len(numbers), 2 * outside).pvalue,
        stats.binomtest(int((tail > 0).sum()), len(tail)).pvalue,
        stats.kstest(np.abs(tail), lambda x: 1.0 - stats.norm.sf(x) / outside).pvalue,
    ]
    assert combined_p_value(p_values) > FALSE_ALARM, p_values


def test_numbers_of_a_stream_do_not_depend_on_how_they_are_asked_for():
    whole, parts = np.empty(3000), np.empty(3000)
    fill_normals(whole, stream(2))
    state = stream(2)
    for begin, end in ((0, 1), (1, 100), (100, 3000)):
        fill_normals(parts[begin:end], state)
    assert (whole == parts).all()
    again = stream(2)
    assert [gaussian.next_normal(again) for _ in range(200)] == whole[:200].tolist()


@pytest.mark.statistical
def test_gamma_variates():
    p_values = []
    for seed, shape in enumerate((1.0, 1.5, 3.5, 15.5, 255.5)):
        sample = np.empty(20_000)
        gammas(sample, shape, stream(10 + seed))
        p_values.append(stats.kstest(sample, stats.gamma(shape).cdf).pvalue)
    assert combined_p_value(p_values) > FALSE_ALARM, p_values


@pytest.mark.statistical
def test_directions_are_uniform():
    # The square of a component of a unit vector is Beta(1/2, (D - 1)/2).
    p_values = []
    for seed, dimension in enumerate((3, 8, 33)):
        sample = np.empty((20_000, dimension))
        spins_anywhere(sample, 2.5, stream(20 + seed))
        assert np.abs(np.linalg.norm(sample, axis=1) - 2.5).max() < 1e-13
        half = stats.beta(0.5, (dimension - 1) / 2)
        p_values.append(stats.kstest((sample[:, 0] / 2.5) ** 2, half.cdf).pvalue)
        p_values.append(stats.binomtest(int((sample[:, -1] > 0).sum()), len(sample)).pvalue)
    assert combined_p_value(p_values) > FALSE_ALARM, p_values


@pytest.mark.statistical
def test_cosines_follow_their_density():
    # KS of 1 - w, which has a scale of its own at large kappa, and the first two moments of other draws.
    p_values = []
    for number, dimension in enumerate(DIMENSIONS):
        for other, kappa in enumerate(CONCENTRATIONS):
            sample = np.empty(9000)
            gaps(sample, kappa, dimension, stream(100 + 10 * number + other))
            assert (sample >= 0).all()
            assert (sample <= 2).all()
            first, second, third = np.split(sample, 3)
            p_values.append(stats.kstest(first, gap_cdf(kappa, dimension)).pvalue)
            if kappa < 1e4:  # above it 1 - <w> is a difference of rounded numbers
                p_values.append(moment_p_value(1.0 - second, mean_cosine(kappa, dimension)))
                p_values.append(moment_p_value((1.0 - third) ** 2, mean_square_cosine(kappa, dimension)))
    assert combined_p_value(p_values) > FALSE_ALARM, np.round(p_values, 4)


@pytest.mark.statistical
def test_large_concentrations_keep_their_digits():
    # 2 kappa (1 - w) turns into chi-square with D - 1 degrees of freedom. At 1e15 the cosine itself is 1 or nearly.
    p_values = []
    for number, kappa in enumerate((1e9, 1e15, 1e40)):
        for dimension in (3, 32):
            sample = np.empty(5000)
            gaps(sample, kappa, dimension, stream(200 + 100 * number + dimension))
            p_values.append(stats.kstest(kappa * sample, stats.gamma((dimension - 1) / 2).cdf).pvalue)
    assert combined_p_value(p_values) > FALSE_ALARM, p_values


def test_concentrations_out_of_reach_end():
    assert vmf_gap(1e300, 3, stream(3)) < 1e-100
    assert vmf_gap(np.inf, 8, stream(3)) < 1e-15
    assert np.isnan(vmf_gap(np.nan, 8, stream(3)))


@pytest.mark.statistical
def test_spins_in_a_field():
    # Along the field von Mises-Fisher, around it uniform: the square of a component of the perpendicular direction
    # is Beta(1/2, (D - 2)/2).
    p_values = []
    cases = [(3, 0.7, 1.3), (8, 2.0, 0.4), (32, 1.0, 3.0), (32, 1e4, 2.0)]
    for seed, (dimension, beta, strength) in enumerate(cases):
        radius = np.sqrt(dimension / 2 - 1)
        field = np.random.default_rng(seed).normal(size=dimension)
        field *= strength / np.linalg.norm(field)
        sample = np.empty((9000, dimension))
        spins_in_field(sample, field, beta, radius, stream(30 + seed))
        assert np.abs(np.linalg.norm(sample, axis=1) - radius).max() < 1e-12
        cosine = sample @ field / (radius * strength)
        kappa = beta * radius * strength
        if kappa < 1e3:
            p_values.append(stats.kstest(1.0 - cosine[:5000], gap_cdf(kappa, dimension)).pvalue)
            p_values.append(moment_p_value(cosine[5000:], mean_cosine(kappa, dimension)))
        across = sample - np.outer(sample @ field, field) / strength**2
        axis = np.eye(dimension)[0] - field[0] * field / strength**2
        component = across @ axis / (np.linalg.norm(across, axis=1) * np.linalg.norm(axis))
        p_values.append(stats.kstest(component**2, stats.beta(0.5, (dimension - 2) / 2).cdf).pvalue)
        p_values.append(stats.binomtest(int((component > 0).sum()), len(component)).pvalue)
    assert combined_p_value(p_values) > FALSE_ALARM, np.round(p_values, 4)


@pytest.mark.statistical
@pytest.mark.parametrize("strength", [0.0, 1e-160, 1e-200])
def test_a_spin_without_a_field_is_uniform(strength):
    sample = np.empty((5000, 8))
    spins_in_field(sample, np.full(8, strength), 1.0, 3.0, stream(40))
    assert np.abs(np.linalg.norm(sample, axis=1) - 3.0).max() < 1e-13
    assert stats.kstest((sample[:, 0] / 3.0) ** 2, stats.beta(0.5, 3.5).cdf).pvalue > FALSE_ALARM
    assert moment_p_value(sample[:, 1], 0.0) > FALSE_ALARM
