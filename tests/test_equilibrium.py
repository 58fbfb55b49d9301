"""States of several temperatures from one simulation, against enumeration; those of one are in test_linear.py."""

import math

import numpy as np
import pytest
from scipy import stats

import mc
from mc.equilibrium import CHAINS, FEWEST_SWAPS, LADDER, LONGEST_LADDER, ladder_driver, ladder_states
from mc.statistics import R_HAT_LIMIT, estimate
from tests.enumerated import FALSE_ALARM, all_states

ALLOY = mc.models.alloy("2x2x4", h=0.01)
KELVIN = np.array([680.0, 450.0, 1200.0])
SYSTEMS = {
    "ferromagnet": (mc.models.ising(L=4), [0.5, 0.2, 0.44], "Wolff"),
    "ferromagnet, one": (mc.models.ising(L=4), [0.35], "Wolff"),
    "glass": (mc.models.ea2d(L=4, seed=3), [1.1, 0.3, 0.7, 2.0], "parallel tempering"),
    "glass, one": (mc.models.ea2d(L=4, seed=3), [1.3], "parallel tempering"),
    "glass in a field": (mc.models.ea2d(L=4, J="gaussian", h=0.2, seed=3), [0.0, 1.5, 0.4], "parallel tempering"),
    "alloy": (ALLOY, 1 / (ALLOY.k_B * KELVIN), "parallel tempering"),
    "alloy, half gold": (mc.models.alloy("2x2x4", composition=0.5), 1 / (ALLOY.k_B * KELVIN), "parallel tempering"),
}


def states_and_weights(hamiltonian, betas):
    """All states the model has (K, N), and their Boltzmann probabilities (B, K)."""
    states = all_states(hamiltonian.n_spins)
    if hamiltonian.n_up is not None:
        states = states[(states > 0).sum(axis=1) == hamiltonian.n_up]
    energies = hamiltonian.energy(states)
    weights = np.exp(-np.outer(betas, energies - energies.min()))
    return states, weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.statistical
@pytest.mark.parametrize("name", SYSTEMS)
def test_each_temperature_has_its_own_law(name):
    # One comparison of the largest Gaussian deviation of B temperatures in 10^4 raises a false alarm (Bonferroni).
    hamiltonian, betas, algorithm = SYSTEMS[name]
    spins, said = ladder_states(hamiltonian, np.array(betas), 4000, seed=2, sweeps_between=10)
    assert said == algorithm
    assert spins.shape == (len(betas), 4000, hamiltonian.n_spins)
    assert spins.dtype == np.int8
    states, probabilities = states_and_weights(hamiltonian, betas)
    for measure in (hamiltonian.energy, lambda s: 1.0 * s[..., 0] * s[..., 1]):
        p_values = []
        for some, probability in zip(spins, probabilities, strict=True):
            found = estimate(measure(some).reshape(-1, CHAINS).T)
            assert found.r_hat < R_HAT_LIMIT
            z = (found.mean - probability @ measure(states)) / found.error
            p_values.append(2 * stats.norm.sf(abs(z)))
        assert min(p_values) > FALSE_ALARM / len(betas), p_values


def test_states_stand_in_the_order_of_the_betas():
    hamiltonian, betas = mc.models.ea2d(L=4, seed=1), np.array([0.9, 0.2, 1.4, 0.5])
    as_given = ladder_states(hamiltonian, betas, 40, seed=1)[0]
    order = np.argsort(betas)
    assert np.array_equal(as_given[order], ladder_states(hamiltonian, betas[order], 40, seed=1)[0])
    assert len(np.unique(as_given, axis=0)) == len(betas)


@pytest.mark.parametrize("hamiltonian", [mc.models.ising(L=4), mc.models.ea2d(L=4, seed=1)])
def test_states_repeat_with_their_seed_and_are_cut_to_n(hamiltonian):
    betas = np.array([0.6, 0.3])
    first, second, longer, other = (
        ladder_states(hamiltonian, betas, n, seed)[0] for n, seed in ((30, 3), (30, 3), (32, 3), (30, 4))
    )
    assert first.shape == (2, 30, 16)
    assert np.array_equal(first, second)
    assert np.array_equal(first, longer[:, :30])  # chains take turns
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("hamiltonian", [mc.models.ising(L=4), mc.models.ea2d(L=4, seed=1)])
def test_it_stops_when_asked_with_what_it_has(hamiltonian):
    betas, asked = np.array([0.6, 0.3]), []
    everything = ladder_states(hamiltonian, betas, 400, stop=lambda: asked.append(0))[0]
    assert everything.shape == (2, 400, 16)
    for share in (0.0, 0.9):  # at once, and in the middle of the states
        left = iter([False] * int(share * len(asked)))
        some = ladder_states(hamiltonian, betas, 400, stop=lambda left=left: next(left, True))[0]
        assert some.shape[::2] == (2, 16)
        assert (0 < some.shape[1] < 400) == (share > 0)
        assert some.shape[1] % CHAINS == 0
        assert np.array_equal(some, everything[:, : some.shape[1]])


@pytest.mark.parametrize("hamiltonian", [mc.models.ising(L=4), mc.models.ea2d(L=4, seed=1)])
@pytest.mark.parametrize("betas", [0.0, [0.0], [0.4], np.float64(0.4)])
def test_one_beta_is_a_ladder_too(hamiltonian, betas):
    assert ladder_states(hamiltonian, betas, 5)[0].shape == (1, 5, 16)


@pytest.mark.parametrize("hamiltonian", [mc.models.ising(L=3), mc.models.ea2d(L=3, seed=1)])
@pytest.mark.parametrize(
    ("betas", "said"),
    [
        ([-0.1, 0.3], "finite numbers >= 0"),
        ([-0.2, -0.1], "finite numbers >= 0"),
        ([math.nan, 0.1], "finite numbers >= 0"),
        ([0.1, math.inf], "finite numbers >= 0"),
        ([], "one or more"),
        ([[0.1, 0.2]], "one or more"),
        ([0.2, 0.1, 0.2], "give it once"),
    ],
)
def test_betas_that_are_none_are_refused(hamiltonian, betas, said):
    for call in (lambda: ladder_states(hamiltonian, betas, 5), lambda: ladder_driver(hamiltonian, betas, 1)):
        with pytest.raises(ValueError, match=said) as refused:
            call()
        message = str(refused.value)
        assert "\n" not in message
        assert message.startswith(f"betas={np.asarray(betas).tolist()}: ")  # as given, without the ladder's own


@pytest.mark.parametrize(
    ("words", "said"),
    [({"n": 0}, "n=0"), ({"n": -4}, "n=-4"), ({"n": 4, "sweeps_between": 0}, "sweeps_between=0")],
)
def test_numbers_below_one_are_refused(words, said):
    with pytest.raises(ValueError, match=f"ladder_states: {said}: an integer of at least 1 is needed"):
        ladder_states(mc.models.ea2d(L=3, seed=1), [0.1, 0.2], **words)


def test_a_ladder_is_refined_where_few_swaps_succeed(monkeypatch):
    hamiltonian, betas = mc.models.ea2d(L=12, seed=1), np.array([3.0, 0.05])
    driver, _, rows = ladder_driver(hamiltonian, betas, 1)
    assert np.array_equal(driver.betas[rows], betas)
    assert (np.diff(driver.betas) > 0).all()
    assert LADDER + 1 < len(driver.betas) < LONGEST_LADDER
    driver.warm_up(200)
    driver.thin = 400
    swaps = driver.block(2)
    assert swaps.spins.shape[1] == 2  # it keeps spins again after the pilot
    rates = swaps.sample_stats["swap_accepted"][..., :-1].mean(axis=(0, 1))
    assert rates.min() > 0.8 * FEWEST_SWAPS  # a pilot of 400 swaps a pair is off by 0.018
    monkeypatch.setattr("mc.equilibrium.LONGEST_LADDER", LADDER)
    assert len(ladder_driver(hamiltonian, betas, 1)[0].betas) == LADDER + 1
