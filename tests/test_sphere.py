"""Sweeps of vector spins of fixed norm against exact laws, and what they keep up to date against the same made anew.

Each statistical test combines its p-values by Fisher's rule and fails below FALSE_ALARM: 1e-3 for the file.
"""

import numpy as np
import pytest
from numba import njit
from scipy import stats

from mc.kernels import sphere
from mc.kernels.random_streams import streams
from tests.enumerated import FALSE_ALARM, combined_p_value
from tests.sphere_laws import directions, gap_cdf, mean_cosine, mean_square_cosine, moment_p_value, star_energy

HEATBATH = np.zeros(4)  # no proposals
MOVES = {
    "heatbath": HEATBATH,
    "local": np.array([1.0, 0.0, 0.0, 0.0]),
    "global": np.array([0.0, 1.0, 0.0, 0.0]),
    "perpendicular": np.array([0.0, 0.0, 0.0, 1.0]),
    "local and flip": np.array([0.5, 0.0, 0.5, 0.0]),
    "mixed": np.array([0.4, 0.2, 0.2, 0.2]),
}


@njit
def run(spins, local, exchange, beta, radius, step, shares, states, n_sweeps, reflections):
    """Sweeps of independent replicas (n, N, D) in place: energy changes (n,), and counts of moves with a step."""
    changes, counts = np.zeros(len(spins)), np.zeros(2, np.int64)
    scratch = np.empty(spins.shape[2])
    for replica in range(len(spins)):
        arrays = spins[replica], local[replica], exchange
        for _ in range(n_sweeps):
            if shares.any():
                change, accepted, tried = sphere.metropolis_sweep(
                    *arrays, beta, radius, step, shares, states[replica], scratch
                )
                counts[0] += accepted
                counts[1] += tried
            else:
                change = sphere.heatbath_sweep(*arrays, beta, radius, states[replica], scratch)
            changes[replica] += change
            for _ in range(reflections):
                changes[replica] += sphere.overrelax_sweep(*arrays)
    return changes, counts


def norm_of(dimension):
    return np.sqrt(dimension / 2 - 1)


def all_fields(spins, fields, exchange):
    return fields + np.matmul(exchange, spins)


def energies(spins, fields, exchange):
    """Energies of states (n, N, D), pair by pair."""
    result = -np.einsum("nid,id->n", spins, fields)
    for i in range(len(fields)):
        for j in range(i):
            result -= exchange[i, j] * (spins[:, i] * spins[:, j]).sum(axis=1)
    return result


def sample(move, fields, exchange, beta, seed, n=4000, n_sweeps=60, step=1.0, reflections=0):
    """States (n, N, D) of n replicas that start from one state, all spins along the first axis."""
    n_spins, dimension = fields.shape
    radius = norm_of(dimension)
    spins = np.zeros((n, n_spins, dimension))
    spins[..., 0] = radius
    # Random states are streams as good as those of `streams`, and many at once.
    states = np.random.default_rng(seed).integers(0, 2**64, size=(n, 4), dtype=np.uint64)
    local = all_fields(spins, fields, exchange)
    before = energies(spins, fields, exchange)
    changes, _ = run(spins, local, exchange, beta, radius, step, MOVES[move], states, n_sweeps, reflections)
    assert np.abs(np.linalg.norm(spins, axis=-1) - radius).max() < 1e-11
    assert np.abs(local - all_fields(spins, fields, exchange)).max() < 1e-11
    assert np.abs(before + changes - energies(spins, fields, exchange)).max() < 1e-10
    return spins


def glass(n_spins, dimension, seed):
    """(fields, exchange) of a Gaussian glass."""
    random = np.random.default_rng(seed)
    upper = np.triu(random.normal(size=(n_spins, n_spins)), 1) / np.sqrt(n_spins)
    return random.normal(size=(n_spins, dimension)), upper + upper.T


@pytest.mark.statistical
@pytest.mark.parametrize("move", MOVES)
def test_single_spins_in_fields(move):
    # Five spins that do not couple, in fields of different strength; mean, second moment and the whole law of the
    # cosine from different replicas.
    p_values = []
    for number, dimension in enumerate((3, 8, 32)):
        strengths = np.array([0.0, 0.2, 0.7, 1.5, 3.0])
        random = np.random.default_rng(number)
        fields = random.normal(size=(5, dimension))
        axes = fields / np.linalg.norm(fields, axis=1, keepdims=True)
        fields = strengths[:, None] * axes
        n_sweeps = 400 if move == "global" and dimension == 32 else 60
        spins = sample(move, fields, np.zeros((5, 5)), 1.3, 10 + number, n=1500, n_sweeps=n_sweeps)
        cosines = np.einsum("nid,id->in", spins, axes) / norm_of(dimension)
        for strength, cosine in zip(strengths, cosines, strict=True):
            kappa = 1.3 * norm_of(dimension) * strength
            first, second, third = np.split(cosine, 3)
            p_values.append(moment_p_value(first, mean_cosine(kappa, dimension)))
            p_values.append(moment_p_value(second**2, mean_square_cosine(kappa, dimension)))
            p_values.append(stats.kstest(1.0 - third, gap_cdf(kappa, dimension)).pvalue)
    assert combined_p_value(p_values) > FALSE_ALARM, np.round(p_values, 4)


@pytest.mark.statistical
@pytest.mark.parametrize("move", MOVES)
def test_few_coupled_spins(move):
    # Two spins without fields: s_1.s_2 / R^2 is von Mises-Fisher. Stars of two and three spins in R^3 with fields:
    # mean and second moment of the energy by quadrature, from different replicas.
    p_values = []
    for number, (dimension, coupling) in enumerate([(3, 1.7), (8, -0.6), (32, 0.3)]):
        exchange = coupling * np.array([[0.0, 1.0], [1.0, 0.0]])
        n_sweeps = 400 if move == "global" and dimension == 32 else 60
        spins = sample(move, np.zeros((2, dimension)), exchange, 0.9, 30 + number, n=2000, n_sweeps=n_sweeps)
        cosine = np.sign(coupling) * (spins[:, 0] * spins[:, 1]).sum(axis=1) / norm_of(dimension) ** 2
        kappa = 0.9 * abs(coupling) * norm_of(dimension) ** 2
        p_values.append(moment_p_value(cosine[:1000], mean_cosine(kappa, dimension)))
        p_values.append(stats.kstest(1.0 - cosine[1000:], gap_cdf(kappa, dimension)).pvalue)
    for number, (n_spins, beta) in enumerate([(2, 0.8), (2, 3.0), (3, 1.5)]):
        fields = np.random.default_rng(number).normal(size=(n_spins, 3))
        exchange = np.zeros((n_spins, n_spins))
        exchange[0, 1:] = exchange[1:, 0] = [0.9, -1.4][: n_spins - 1]
        mean, square = star_energy(fields, exchange[0], beta, norm_of(3))
        energy = energies(sample(move, fields, exchange, beta, 40 + number, n_sweeps=30), fields, exchange)
        p_values.append(moment_p_value(energy[:2000], mean))
        p_values.append(moment_p_value(energy[2000:] ** 2, square))
    assert combined_p_value(p_values) > FALSE_ALARM, np.round(p_values, 4)


def test_quadrature_of_a_star_is_the_sum_over_all_its_spins():
    # Two spins on a product of two rules, for `star_energy` itself.
    fields, coupling, beta, radius = np.array([[0.3, -0.4, 0.5], [0.2, 0.9, -0.1]]), 0.7, 1.1, norm_of(3)
    nodes, weights = directions(16)
    first = second = radius * nodes
    energy = -(first @ fields[0])[:, None] - (second @ fields[1])[None, :] - coupling * first @ second.T
    law = np.outer(weights, weights) * np.exp(-beta * energy)
    law /= law.sum()
    found = star_energy(fields, [0.0, coupling], beta, radius)
    assert found == pytest.approx(((law * energy).sum(), (law * energy**2).sum()), rel=1e-10)


@pytest.mark.statistical
def test_reflections_do_not_change_the_law_of_the_heat_bath():
    fields = np.random.default_rng(5).normal(size=(3, 3))
    exchange = np.zeros((3, 3))
    exchange[0, 1:] = exchange[1:, 0] = [1.1, 0.6]
    mean, square = star_energy(fields, exchange[0], 1.2, norm_of(3))
    spins = sample("heatbath", fields, exchange, 1.2, 50, reflections=2)
    energy = energies(spins, fields, exchange)
    p_values = [moment_p_value(energy[:2000], mean), moment_p_value(energy[2000:] ** 2, square)]
    assert combined_p_value(p_values) > FALSE_ALARM, p_values


@pytest.mark.statistical
def test_triangle_in_three_dimensions():
    # K of all pairs, no fields: turn s_1 to the pole and s_2 into a meridian, and integrate s_3 out.
    couplings, beta, radius = np.array([0.8, -1.1, 1.9]), 1.6, norm_of(3)  # of pairs 12, 13, 23
    height, weight = np.polynomial.legendre.leggauss(200)
    square = couplings[1] ** 2 + couplings[2] ** 2 + 2 * couplings[1] * couplings[2] * height
    kappa = beta * radius**2 * np.sqrt(square)
    law = weight * np.exp(beta * radius**2 * couplings[0] * height) * np.sinh(kappa) / kappa
    law /= law.sum()
    mean = law @ (-(radius**2) * couplings[0] * height - (kappa / np.tanh(kappa) - 1) / beta)
    exchange = np.zeros((3, 3))
    exchange[[0, 0, 1], [1, 2, 2]] = couplings
    exchange += exchange.T
    p_values = []
    for seed, move in enumerate(MOVES):
        spins = sample(move, np.zeros((3, 3)), exchange, beta, 60 + seed, n_sweeps=30)
        p_values.append(moment_p_value(energies(spins, np.zeros((3, 3)), exchange), mean))
    assert combined_p_value(p_values) > FALSE_ALARM, np.round(p_values, 4)


@pytest.mark.parametrize(("n_spins", "dimension"), [(1, 3), (5, 4), (20, 8), (64, 32), (11, 37)])
@pytest.mark.parametrize("move", ["heatbath", "mixed"])
def test_fields_and_energies_stay_right(move, n_spins, dimension):
    # What `sample` asserts after many sweeps; at low temperature, where the energy is large.
    fields, exchange = glass(n_spins, dimension, 1)
    sample(move, fields, exchange, 5.0, 70, n=2, n_sweeps=1500, step=0.3, reflections=1)


def test_fields_energy_and_norms_from_scratch():
    fields, exchange = glass(12, 6, 2)
    spins = np.random.default_rng(3).normal(size=(12, 6))
    sphere.renormalise(spins, 1.5)
    assert np.linalg.norm(spins, axis=1) == pytest.approx(np.full(12, 1.5), rel=1e-15)
    local = np.empty((12, 6))
    sphere.local_fields(spins, fields, exchange, local)
    assert local == pytest.approx(all_fields(spins, fields, exchange), abs=1e-13)
    energy = sphere.bilinear_energy(spins, fields, local)
    assert energy == pytest.approx(energies(spins[None], fields, exchange)[0], abs=1e-12)
    asymmetric = np.random.default_rng(4).normal(size=(12, 12))
    sphere.local_fields(spins, fields, asymmetric, local)
    assert local == pytest.approx(fields + asymmetric @ spins, abs=1e-13)


def test_reflections_keep_energy_and_norms_and_undo_themselves():
    fields, exchange = glass(30, 5, 6)
    spins = np.random.default_rng(7).normal(size=(30, 5))
    sphere.renormalise(spins, norm_of(5))
    local = all_fields(spins, fields, exchange)
    start, before = spins.copy(), energies(spins[None], fields, exchange)
    for _ in range(100):
        assert sphere.overrelax_sweep(spins, local, exchange) == pytest.approx(0.0, abs=1e-12)
    assert energies(spins[None], fields, exchange) == pytest.approx(before, abs=1e-10)
    assert np.linalg.norm(spins, axis=1) == pytest.approx(np.full(30, norm_of(5)), rel=1e-12)
    assert local == pytest.approx(all_fields(spins, fields, exchange), abs=1e-12)
    assert np.abs(spins - start).max() > 0.5
    alone, own = start[:1].copy(), fields[:1].copy()
    for _ in range(2):
        sphere.overrelax_sweep(alone, own, np.zeros((1, 1)))
    assert alone == pytest.approx(start[:1], abs=1e-14)


def test_a_spin_without_a_field_is_not_reflected():
    spins, local = np.array([[0.6, 0.0, 0.8]]), np.zeros((1, 3))
    assert sphere.overrelax_sweep(spins, local, np.zeros((1, 1))) == 0.0
    assert spins.tolist() == [[0.6, 0.0, 0.8]]


def test_counts_are_of_moves_with_a_step():
    fields, exchange = glass(10, 4, 8)
    counts = {}
    for move in ("local", "global", "perpendicular", "local and flip"):
        for beta in (0.0, 1.0):
            spins = np.random.default_rng(9).normal(size=(3, 10, 4))
            spins *= norm_of(4) / np.linalg.norm(spins, axis=2, keepdims=True)
            local = all_fields(spins, fields, exchange)
            states = streams(10, count=3)
            counts[move, beta] = run(spins, local, exchange, beta, norm_of(4), 1.0, MOVES[move], states, 20, 0)[
                1
            ].tolist()
    everyone = 3 * 10 * 20
    assert counts["local", 0.0] == counts["perpendicular", 0.0] == [everyone, everyone]
    assert counts["global", 0.0] == counts["global", 1.0] == [0, 0]
    accepted, tried = counts["local and flip", 0.0]
    assert accepted == tried
    assert 0.4 * everyone < tried < 0.6 * everyone  # 5 standard deviations
    for move in ("local", "perpendicular"):
        accepted, tried = counts[move, 1.0]
        assert 0 < accepted < tried == everyone


def test_a_sweep_is_one_of_its_stream():
    fields, exchange = glass(10, 4, 11)
    for move in ("heatbath", "mixed"):
        one, other = (sample(move, fields, exchange, 1.0, seed, n=1, n_sweeps=3) for seed in (1, 1))
        third = sample(move, fields, exchange, 1.0, 2, n=1, n_sweeps=3)
        assert (one == other).all()
        assert (one != third).any()
