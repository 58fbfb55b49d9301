"""Lanes of float32 spins: the enumerated law, energies, flips, reproducibility, refusals."""

import numpy as np
import pytest

import mc
from mc.kernels import batch as generic
from mc.kernels import float_lanes
from tests import batch_checks
from tests.batch_checks import flip_p_values, glass, law_p_values
from tests.enumerated import FALSE_ALARM, combined_p_value

RULES = ("metropolis", "heatbath")


def loose_model():
    """A field without bonds, a spin that feels nothing, a strong and a weak bond; no interaction at the last spin."""
    bonds = np.array([[0, 1], [1, 4], [0, 4]])
    return mc.Hamiltonian(7, [(np.array([[2]]), np.array([0.7])), (bonds, np.array([0.8, -0.02, 0.3]))])


@pytest.mark.statistical
@pytest.mark.parametrize("rule", RULES)
def test_lanes_sample_the_enumerated_law(rule):
    # 76800 states at each of 5 betas, 3 models, 15 p-values, combined; false alarm 1e-4 a rule. States are 100 sweeps
    # apart, the slowest mode of the exact sweep matrices decays in 10.
    models = glass(9, 6, density=0.4), glass(8, 5, density=0.5, field=0), loose_model()
    p_values = [law_p_values(float_lanes, model, rule, 10 + i, 768, 100, 100) for i, model in enumerate(models)]
    assert combined_p_value(np.ravel(p_values)) > FALSE_ALARM, np.round(p_values, 5)


@pytest.mark.statistical
@pytest.mark.parametrize("rule", RULES)
def test_flips_have_the_probabilities_of_the_rule(rule):
    assert combined_p_value(flip_p_values(float_lanes, rule, 12800)) > FALSE_ALARM


@pytest.mark.statistical
def test_law_after_exchanges():
    p_values = law_p_values(float_lanes, glass(9, 1, density=0.4), "metropolis", 3, 768, 100, 100, swap=True)
    assert combined_p_value(p_values) > FALSE_ALARM, np.round(p_values, 5)


@pytest.mark.parametrize("lanes", [16, 32, 64, 128, 384])
def test_energies_and_rows(lanes):
    batch_checks.check_energies_and_rows(float_lanes, glass(70, 3, density=0.2), "metropolis", lanes)


def test_energies_of_odd_sizes():
    glass_3d, ferromagnet = mc.models.ea3d(L=4, J="gaussian", seed=1), mc.models.ising(L=8, h=0.3)
    for hamiltonian in (glass_3d, ferromagnet, loose_model(), glass(33, 1)):
        batch_checks.check_energies_and_rows(float_lanes, hamiltonian, "heatbath", 32)


def test_energies_are_exact_sums_for_couplings_of_the_models():
    # Multiples of 2^-32 add without rounding, so energies of equal states are equal numbers in every batch.
    hamiltonian = mc.models.ea3d(L=4, J="gaussian", seed=3)
    batch = float_lanes.make(hamiltonian, np.full(16, 1.0), 1, (0,), "metropolis")
    generic.sweep_all(batch, 1, 10, False)
    assert (batch.energy == hamiltonian.energy(batch_checks.spins_of(batch, float_lanes))).all()


@pytest.mark.parametrize("rule", RULES)
def test_counts_are_those_of_the_flips(rule):
    for lanes in (16, 64):
        batch_checks.check_counts(float_lanes, glass(20, 3, density=0.3), rule, lanes)


@pytest.mark.parametrize("rule", RULES)
def test_restored_lanes_continue_bit_for_bit(rule):
    batch_checks.check_continuation(float_lanes, glass(40, 5, density=0.2), rule, 128)


def test_units_and_threads():
    batch_checks.check_units_and_threads(float_lanes, glass(40, 5, density=0.2), "metropolis", 128)


def test_equal_starts_part():
    hamiltonian = mc.models.ea3d(L=4, J="gaussian", seed=1)
    batch_checks.check_equal_starts_part(float_lanes, hamiltonian, "metropolis", 128, 0.6)


def test_lanes_keep_their_own_beta():
    # Ferromagnet: hot lanes lose the order of the start, cold lanes keep it, whichever unit and vector they are in.
    beta = np.where(np.arange(256) % 3 == 0, 0.2, 0.8)
    batch = float_lanes.make(mc.models.ising(L=16), beta, 1, (0,), "metropolis")
    generic.sweep_all(batch, batch_checks.units(batch, float_lanes), 200, False)
    order = np.abs(batch_checks.spins_of(batch, float_lanes).mean(axis=1))
    assert order[beta == 0.2].max() < 0.6 < 0.9 < order[beta == 0.8].min()


def test_widths_and_refusals():
    widths = {1: 16, 16: 16, 17: 32, 32: 32, 33: 32, 1000: 32}
    assert {n: float_lanes.width(n) for n in widths} == widths
    model = glass(6, 1)
    assert float_lanes.refusal(model, "metropolis") == float_lanes.refusal(model, "heatbath") == ""
    assert float_lanes.refusal(model, "wolff") == "rule wolff is not one of metropolis, heatbath"
    assert "interaction of 3 spins" in float_lanes.refusal(mc.models.pspin(N=7, p=3, seed=2), "metropolis")
    with pytest.raises(ValueError, match="20 lanes; a multiple of 32"):
        float_lanes.make(model, np.ones(20), 1, (0,), "metropolis")
