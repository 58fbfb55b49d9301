"""The table of observables against exact averages of a small system."""

import numpy as np
import pytest

import mc
from mc.observables import summarize
from tests.enumerated import law

BETAS = np.array([0.2, 0.7])


def exact_values(hamiltonian, beta):
    states, p = law(hamiltonian, beta)
    e, m = hamiltonian.energy(states), states.mean(axis=1)
    m2, m4 = p @ m**2, p @ m**4
    return {
        "energy": p @ e,
        "magnetization": p @ m,
        "abs_magnetization": p @ np.abs(m),
        "m2": m2,
        "m4": m4,
        "binder": 1 - m4 / (3 * m2**2),
        "heat_capacity": beta**2 * (p @ e**2 - (p @ e) ** 2),
        "susceptibility": beta * hamiltonian.n_spins * (m2 - (p @ np.abs(m)) ** 2),
    }


def independent_draws(hamiltonian, betas, shape, seed):
    """Energy and magnetization (*shape, len(betas)) of draws from the laws at `betas`."""
    random = np.random.default_rng(seed)
    columns = []
    for beta in betas:
        states, p = law(hamiltonian, beta)
        columns.append(states[random.choice(len(states), size=shape, p=p)])
    spins = np.stack(columns, axis=2)
    return {"energy": hamiltonian.energy(spins), "magnetization": spins.mean(axis=-1)}


@pytest.fixture(scope="module")
def hamiltonian():
    return mc.models.ising(L=3, boundary="open", h=0.1)


@pytest.mark.statistical
def test_markov_chains(hamiltonian):
    table = summarize(independent_draws(hamiltonian, BETAS, (4, 5000), 1), hamiltonian.n_spins, BETAS)
    for b, beta in enumerate(BETAS):
        for name, value in exact_values(hamiltonian, beta).items():
            got = table[name][b]
            assert 0 < got.error < 0.05 * max(abs(value), 1.0), name
            assert abs(got.mean - value) < 4.5 * got.error, name
            assert got.tau_int == pytest.approx(0.5, abs=0.1)


@pytest.mark.statistical
def test_weighted_draws(hamiltonian):
    draws = independent_draws(hamiltonian, [0.0, 0.4], (4, 5000), 2)
    log_weight = -(BETAS - [0.0, 0.4]) * draws["energy"]
    table = summarize(draws, hamiltonian.n_spins, BETAS, log_weight)
    for b, beta in enumerate(BETAS):
        for name, value in exact_values(hamiltonian, beta).items():
            got = table[name][b]
            assert 0 < got.error < 0.1 * max(abs(value), 1.0), name
            assert abs(got.mean - value) < 4.5 * got.error, name
            assert np.isnan(got.tau_int)
            assert got.n_eff < 20_000


def test_heat_capacity_survives_a_large_energy(hamiltonian):
    draws = independent_draws(hamiltonian, BETAS, (2, 500), 3)
    small = summarize(draws, 9, BETAS)["heat_capacity"]
    shifted = summarize({"energy": draws["energy"] + 2.0**36}, 9, BETAS)["heat_capacity"]
    for one, other in zip(small, shifted, strict=True):
        assert other.mean == pytest.approx(one.mean, rel=1e-4)
        assert other.error == pytest.approx(one.error, rel=1e-4)


def test_a_state_without_weight_may_have_an_infinite_energy(hamiltonian):
    draws = independent_draws(hamiltonian, BETAS, (1, 200), 4)
    log_weight = np.zeros((1, 200, 2))
    log_weight[0, 7] = -np.inf
    draws["energy"][0, 7] = np.inf
    table = summarize(draws, 9, BETAS, log_weight)
    assert np.isfinite(table["heat_capacity"][0].error)


def test_other_variables_get_their_mean_and_shapes_are_checked(hamiltonian):
    table = summarize({"link_overlap": np.arange(12.0).reshape(2, 3, 2)}, 9, BETAS)
    assert list(table) == ["link_overlap"]
    assert table["link_overlap"][1].mean == 6.0
    with pytest.raises(ValueError, match="energy: shape"):
        summarize({"energy": np.zeros((2, 3))}, 9, BETAS)
    with pytest.raises(ValueError, match="log_weight: shape"):
        summarize({"energy": np.zeros((2, 3, 2))}, 9, BETAS, np.zeros((2, 3, 1)))
