"""Observables of the overlap against sums over all pairs of states of a small torus."""

import math

import numpy as np
import pytest
from scipy import stats

import mc
from mc import spin_glass
from mc.kernels import overlaps
from mc.kernels.batch import pack
from mc.spin_glass import entropy, overlap_distribution, overlap_observables
from tests.enumerated import FALSE_ALARM, all_states, chi_square_p, combined_p_value, law

L, N = 3, 9
BETAS = (0.2, 0.7, 1.5)


def glass(seed):
    return mc.models.ea2d(L=L, J="gaussian", seed=seed)


def measure(hamiltonian, a, b):
    """q, q_l and |q(k)|^2 of pairs of states (pairs, N), by the kernel."""
    bonds, normal = overlaps.links(hamiltonian.bonds[0], N), overlaps.planes(hamiltonian.lattice)
    rows = list(zip(pack(a), pack(b), strict=True))
    q = [overlaps.overlap(*pair, N) for pair in rows]
    links = [overlaps.link_overlap(*pair, bonds) for pair in rows]
    return np.array([q, links, [overlaps.lowest_mode(*pair, N, normal) for pair in rows]])


def exact_means(hamiltonian, beta):
    """Means over pairs of independent states: q_i = s_i^a s_i^b has the law of the pairs, all 2^N x 2^N of them."""
    states, p = law(hamiltonian, beta)
    # The pairs with field q are (s, s q); bit patterns XOR, so the law of q is an autocorrelation.
    numbers = np.arange(len(p))
    field_law = np.array([p @ p[numbers ^ difference] for difference in numbers])
    up = np.ones_like(states)
    q, link, mode = measure(hamiltonian, up, -states)  # where a bit is set the two states differ
    return {
        "q2": field_law @ q**2,
        "q4": field_law @ q**4,
        "abs_overlap": field_law @ np.abs(q),
        "link_overlap": field_law @ link,
        "mode": field_law @ mode,
        "p_of_q": np.bincount(np.rint((q + 1) * N / 2).astype(int), weights=field_law, minlength=N + 1),
    }


def exact_values(means):
    """Every entry of the table, each by its own formula."""
    ratio = means["q4"] / means["q2"] ** 2
    xi = math.sqrt(means["q2"] / means["mode"] - 1) / (2 * math.sin(math.pi / L))
    values = {name: means[name] for name in ("abs_overlap", "q2", "q4", "link_overlap")}
    return values | {
        "binder_overlap": 1 - ratio / 3,
        "overlap_binder": 0.5 * (3 - ratio),
        "chi_sg": N * means["q2"],
        "overlap_correlation_length": xi,
        "overlap_xi_over_length": xi / L,
    }


def draws(hamiltonian, beta, shape, seed):
    """q, q_l and |q(k)|^2 (*shape) of independent pairs."""
    random = np.random.default_rng(seed)
    states, p = law(hamiltonian, beta)
    a, b = (states[random.choice(len(states), size=math.prod(shape), p=p)] for _ in range(2))
    return measure(hamiltonian, a, b).reshape(3, *shape)


def p_of(result, value):
    return 2 * stats.norm.sf(abs(result.mean - value) / result.error)


@pytest.mark.statistical
def test_every_observable_agrees_with_enumeration():
    # Nine independent experiments an observable; false alarm 1e-4 each.
    p_values = {}
    for seed in range(3):
        hamiltonian = glass(seed)
        for beta in BETAS:
            exact = exact_values(exact_means(hamiltonian, beta))
            q, link, mode = draws(hamiltonian, beta, (4, 5000), seed + 10)
            table = overlap_observables(q, N, link, mode, L)
            assert table.keys() == exact.keys()
            for name, value in exact.items():
                assert table[name].status == "ok"
                assert table[name].error < 0.05 * abs(value) + 0.01, name
                p_values.setdefault(name, []).append(p_of(table[name], value))
    for name, values in p_values.items():
        assert combined_p_value(values) > FALSE_ALARM, (name, np.round(values, 4))


@pytest.mark.statistical
def test_magnetization_has_a_correlation_length_too():
    hamiltonian = mc.models.ising(L=L)
    states, p = law(hamiltonian, 0.3)
    up = np.broadcast_to(np.int8(1), states.shape)
    m, _, mode = measure(hamiltonian, states, up)
    exact = math.sqrt((p @ m**2) / (p @ mode) - 1) / (2 * math.sin(math.pi / L))
    chosen = np.random.default_rng(3).choice(len(states), size=(4, 5000), p=p)
    result = spin_glass.correlation_length_estimate(m[chosen], mode[chosen], L)
    assert result.error < 0.03 * exact
    assert p_of(result, exact) > FALSE_ALARM


@pytest.mark.statistical
def test_correlated_draws_have_larger_errors():
    q, link, mode = draws(glass(1), 0.7, (4, 2000), 5)
    fresh = overlap_observables(q, N, link, mode, L)
    slow = overlap_observables(*(np.repeat(x, 8, axis=1) if np.ndim(x) else x for x in (q, N, link, mode, L)))
    for name in fresh:
        # Eight copies of each draw say nothing new; the Gamma method knows the error to about a tenth.
        assert slow[name].mean == pytest.approx(fresh[name].mean, rel=1e-9)
        assert slow[name].error == pytest.approx(fresh[name].error, rel=0.3), name


@pytest.mark.statistical
def test_distribution_of_the_overlap():
    p_values = []
    for seed, beta in enumerate(BETAS):
        exact = exact_means(glass(seed), beta)["p_of_q"]
        q = draws(glass(seed), beta, (50, 400), seed + 20)[0]
        found = overlap_distribution(q, N)
        assert found.q == pytest.approx(np.linspace(-1, 1, N + 1))
        assert found.probability.sum() == pytest.approx(1)
        assert np.trapezoid(np.pad(found.density, 1), dx=2 / N) == pytest.approx(1)
        p_values.append(chi_square_p(found.probability * q.size, exact, q.size))
        expected = np.sqrt(exact * (1 - exact) / q.size)
        common = exact > 0.01
        assert found.error[common] == pytest.approx(expected[common], rel=0.5)  # 50 chains: a tenth, 5 deviations
        both = overlap_distribution(q, N, symmetric=True)
        assert both.probability == pytest.approx((found.probability + found.probability[::-1]) / 2)
        assert (both.error == both.error[::-1]).all()
    assert combined_p_value(p_values) > FALSE_ALARM, p_values


def test_distribution_of_one_chain_has_no_error_and_wrong_values_are_refused():
    found = overlap_distribution(np.array([[-1.0, 0.0, 0.5, 1.0]]), 4)
    assert found.probability.tolist() == [0.25, 0.0, 0.25, 0.25, 0.25]
    assert np.isnan(found.error).all()
    for wrong in ([[0.25]], [[1.5]], [[-1.5]]):
        with pytest.raises(ValueError, match="1 of 1 values"):
            overlap_distribution(np.array(wrong), 4)
    with pytest.raises(ValueError, match="0 of 0"):
        overlap_distribution(np.zeros((2, 0)), 4)


def test_limits_of_the_binder_ratios():
    assert spin_glass.binder({"q2": 1.0, "q4": 3.0}) == 0.0
    assert spin_glass.glass_binder({"q2": 1.0, "q4": 1.0}) == 1.0
    # Nine alike Gaussian components: a sum of squares with <x> = 9 and <x^2> = 9 * 11.
    assert spin_glass.glass_binder({"q2": 9.0, "q4": 99.0}, n_components=3) == pytest.approx(0.0, abs=1e-12)
    assert spin_glass.glass_binder({"q2": 9.0, "q4": 81.0}, n_components=3) == 1.0


def test_no_correlation_length_is_no_crash():
    q, mode = np.tile([0.1, -0.1], (2, 50)), np.tile([0.3, 0.2], (2, 50))
    table = overlap_observables(q, 20, mode=mode, length=4)
    assert table["overlap_correlation_length"].status == "not finite"
    assert np.isnan(table["overlap_xi_over_length"].mean)
    with pytest.raises(ValueError, match="length"):
        overlap_observables(q, 20, mode=mode)


@pytest.mark.statistical
def test_entropy_from_energies_and_an_exact_log_z():
    p_values = []
    for seed, beta in enumerate((*BETAS, 0.0)):
        hamiltonian = glass(seed)
        states, p = law(hamiltonian, beta)
        energies = hamiltonian.energy(all_states(N))
        log_z = float(np.log(np.exp(-beta * energies).sum()))
        chosen = np.random.default_rng(seed).choice(len(states), size=(4, 5000), p=p)
        result = entropy(energies[chosen], beta, log_z)
        exact = -(p @ np.log(p))
        if beta == 0:
            assert result.mean == pytest.approx(N * math.log(2), abs=1e-12)
            assert entropy(energies[chosen], beta, log_z, 0.25).error == 0.25
        else:
            assert result.error < 0.05
            p_values.append(p_of(result, exact))
    assert combined_p_value(p_values) > FALSE_ALARM, p_values
