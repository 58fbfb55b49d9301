"""Dense models with maintained fields: the enumerated law, energies, flips, reproducibility, refusals."""

from types import SimpleNamespace

import numpy as np
import pytest

import mc
from mc.kernels import batch as generic
from mc.kernels import dense
from tests import batch_checks
from tests.batch_checks import flip_p_values, glass, law_p_values
from tests.enumerated import FALSE_ALARM, combined_p_value, law

RULES = ("metropolis", "heatbath")


def uneven_model():
    """Couplings over eight orders of magnitude: the field of two spins is one bond, which fills all its bits."""
    hamiltonian = glass(7, 3, field=0.2)
    sites, couplings = hamiltonian.bonds
    couplings = couplings * 10.0 ** -np.arange(len(couplings)).clip(0, 8)[::-1]
    couplings[(sites == [0, 1]).all(axis=1)] = 0.9
    return mc.Hamiltonian(7, [(sites, couplings), hamiltonian.interactions[1]], constant=-3.0)


@pytest.mark.statistical
@pytest.mark.parametrize("rule", RULES)
def test_dense_fields_sample_the_enumerated_law(rule):
    # 10000 states at each of 5 betas, 3 models, 15 p-values, combined; false alarm 1e-4 a rule. States are 100 sweeps
    # apart, the slowest mode of the exact sweep matrices decays in 11.
    models = glass(10, 2), mc.models.sk(N=9, seed=2), uneven_model()
    p_values = [law_p_values(dense, model, rule, 10 + i, 200, 50, 100) for i, model in enumerate(models)]
    assert combined_p_value(np.ravel(p_values)) > FALSE_ALARM, np.round(p_values, 5)


@pytest.mark.statistical
@pytest.mark.parametrize("rule", RULES)
def test_flips_have_the_probabilities_of_the_rule(rule):
    assert combined_p_value(flip_p_values(dense, rule, 2000)) > FALSE_ALARM


@pytest.mark.statistical
def test_law_after_exchanges():
    p_values = law_p_values(dense, glass(10, 5), "metropolis", 3, 200, 50, 100, swap=True)
    assert combined_p_value(p_values) > FALSE_ALARM, np.round(p_values, 5)


@pytest.mark.statistical
def test_law_of_decisions_across_sixteens():
    # 18 spins, sites of two vectors; the enumerated law of 2^18 states, through its energies.
    hamiltonian = glass(18, 6, field=0.3)
    batch = dense.make(hamiltonian, np.full(2000, 0.6), 8, (0,), "metropolis")
    generic.sweep_all(batch, 2000, 60, False)
    generic.measure_all(batch, 2000)
    states, weights = law(hamiltonian, 0.6)
    energies = hamiltonian.energy(states)
    mean = weights @ energies
    error = np.sqrt(weights @ (energies - mean) ** 2 / 2000)
    assert abs(batch.energy.mean() - mean) < 4 * error  # false alarm 6e-5
    magnetization = weights @ states
    found = batch_checks.spins_of(batch, dense).mean(axis=0)
    assert (np.abs(found - magnetization) < 4.5 * np.sqrt((1 - magnetization**2) / 2000)).all()  # 1e-4 together


@pytest.mark.parametrize("n_spins", [3, 16, 17, 64, 100])
def test_energies_and_rows(n_spins):
    batch_checks.check_energies_and_rows(dense, glass(n_spins, 3), "metropolis", 5)


def test_energies_of_other_models():
    for hamiltonian in (uneven_model(), mc.models.sk(N=129, seed=1), glass(20, 2, density=0.5, field=0)):
        batch_checks.check_energies_and_rows(dense, hamiltonian, "heatbath", 3)


def test_fields_never_drift():
    hamiltonian = glass(40, 5)
    batch = dense.make(hamiltonian, np.full(2, 0.1), 1, (0,), "metropolis")
    generic.sweep_all(batch, 2, 20_000, False)
    after = batch.sums.copy()
    batch_checks.load_rows(batch, dense, batch_checks.rows_of(batch, dense))
    assert (batch.sums == after).all()
    couplings = np.zeros((40, 40))
    sites, bonds = hamiltonian.bonds
    couplings[sites[:, 0], sites[:, 1]] = couplings[sites[:, 1], sites[:, 0]] = bonds
    exact = batch_checks.spins_of(batch, dense) @ couplings
    largest = np.abs(couplings).sum(axis=0)
    assert (np.abs(after[:, :40] * batch.step[:40].astype(float) - exact) < 40 * 2.0**-31 * largest).all()


@pytest.mark.parametrize("rule", RULES)
def test_counts_are_those_of_the_flips(rule):
    batch_checks.check_counts(dense, glass(20, 3), rule, 9)


@pytest.mark.parametrize("rule", RULES)
def test_restored_replicas_continue_bit_for_bit(rule):
    batch_checks.check_continuation(dense, glass(40, 5), rule, 6)


def test_units_and_threads():
    batch_checks.check_units_and_threads(dense, glass(40, 5), "metropolis", 1)


def test_equal_starts_part():
    batch_checks.check_equal_starts_part(dense, mc.models.sk(N=64, seed=1), "metropolis", 100, 0.9)


def test_refusals():
    model = mc.models.sk(N=12, seed=1)
    assert dense.width(1) == dense.width(500) == 1
    assert dense.refusal(model, "metropolis") == dense.refusal(model, "heatbath") == ""
    assert dense.refusal(model, "wolff") == "rule wolff is not one of metropolis, heatbath"
    assert "interaction of 3 spins" in dense.refusal(mc.models.pspin(N=7, p=3, seed=2), "metropolis")
    assert "6 bonds a spin; dense fields are for N / 4 = 16" in dense.refusal(
        mc.models.ea3d(L=4, seed=1), "metropolis"
    )
    large = SimpleNamespace(n_spins=16385, is_pairwise=True, bonds=(None, np.zeros(3)))
    assert dense.refusal(large, "metropolis").startswith("16385 spins; dense fields keep a matrix")
