"""The kernels for one replica at a time: any pairwise graph, and interactions of any order."""

import numpy as np
import pytest

import mc
from mc.kernels import batch as generic
from mc.kernels import bit_planes, float_lanes, graph, packed_lattice, replicas
from tests import batch_checks
from tests.batch_checks import glass, law_p_values
from tests.enumerated import FALSE_ALARM, combined_p_value, law_p_value

RULES = ("metropolis", "heatbath")


def loose_model():
    """A field without bonds, a spin that feels nothing, sites of one, two and three terms."""
    bonds = np.array([[0, 1], [1, 4], [0, 4]])
    return mc.Hamiltonian(6, [(np.array([[2], [0]]), np.array([0.7, -0.3])), (bonds, np.array([0.8, -0.02, 0.3]))])


def many_body():
    """Interactions of one to four spins."""
    triples, four = np.array([[0, 1, 2], [1, 3, 5], [2, 4, 6]]), np.array([[0, 3, 4, 6]])
    return mc.Hamiltonian(7, [(np.array([[1]]), [0.4]), (triples, [0.7, -0.9, 0.5]), (four, [1.1])], 0.5)


@pytest.mark.statistical
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kernel", [graph, replicas])
def test_replicas_sample_the_enumerated_law(kernel, rule):
    # 10240 states at each of 5 betas, two models, 10 p-values, combined; false alarm 1e-4 a kernel and rule.
    models = [glass(8, 6, density=0.5), many_body() if kernel is replicas else loose_model()]
    p_values = [law_p_values(kernel, model, rule, 20 + i, 256, 40, 60) for i, model in enumerate(models)]
    assert combined_p_value(np.ravel(p_values)) > FALSE_ALARM, np.round(p_values, 5)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kernel", [graph, replicas])
def test_bookkeeping(kernel, rule):
    for hamiltonian in (glass(70, 3, density=0.2), loose_model()):
        batch_checks.check_energies_and_rows(kernel, hamiltonian, rule, 5)
    batch_checks.check_counts(kernel, glass(20, 3, density=0.3), rule, 6, stirred=1)
    batch_checks.check_continuation(kernel, glass(40, 5, density=0.2), rule, 7)
    batch_checks.check_units_and_threads(kernel, glass(40, 5, density=0.2), rule, 1)
    batch_checks.check_equal_starts_part(kernel, mc.models.ea3d(L=4, J="gaussian", seed=1), rule, 32, 0.6)


@pytest.mark.statistical
@pytest.mark.parametrize("kernel", [bit_planes, graph, replicas, float_lanes, packed_lattice])
def test_metropolis_reaches_the_law_where_many_flips_cost_nothing(kernel):
    # Rings of one |J| and the smallest tori, from the state of all spins up: in site order alone a ring stays at a
    # distance of 0.68 from its law, a torus of 3 x 3 at 8e-4. 51200 states, false alarm 1e-4 a kernel.
    ring = np.stack([np.arange(6), (np.arange(6) + 1) % 6], axis=1)
    models = [mc.Hamiltonian(6, [(ring, signs)]) for signs in (np.ones(6), np.array([1.0, 1, -1, 1, 1, 1]))]
    models = [mc.models.ising(L=4)] if kernel is packed_lattice else [*models, mc.models.ising(L=3)]
    p_values = []
    for seed, model in enumerate(models):
        beta = np.full(256, 0.5)
        batch = kernel.make(model, beta, seed, (1,), "metropolis")
        units = len(beta) // kernel.width(len(beta))
        found = []
        for _ in range(200):
            generic.sweep_all(batch, units, 20, False)
            rows = np.zeros((units, kernel.width(len(beta)), 1), np.uint64)
            generic.store_all(batch, rows)
            found.append(generic.unpack(rows.reshape(-1, 1), model.n_spins))
        p_values.append(law_p_value(model, 0.5, np.concatenate(found)))
    assert combined_p_value(p_values) > FALSE_ALARM, p_values


def test_tables_change_no_decision():
    random = np.random.default_rng(1)
    x = np.concatenate([random.normal(scale=8, size=100_000), [0.0, -0.0, 23.999, 24.0, 24.001, -24.0, -30.0, 700.0]])
    probability = {
        graph.metropolis_accepts: np.exp(-np.maximum(x, 0)),
        graph.heat_bath_accepts: 1 / (1 + np.exp(np.minimum(x, 700))),
    }
    for accepts, p in probability.items():
        for u in (
            random.random(len(x)),
            np.minimum(p * (1 - 1e-9), 1 - 2**-53),
            np.minimum(p * (1 + 1e-9), 1 - 2**-53),
        ):
            away = np.abs(u - p) > 1e-12 * p
            expected = u < p
            found = np.array([accepts(one, at) for one, at in zip(u, x, strict=True)])
            assert (found == expected)[away].all()


def test_refusals():
    assert graph.refusal(many_body(), "metropolis") == "there are interactions of more than two spins"
    assert "rule wolff is not one of" in graph.refusal(loose_model(), "wolff")
    assert replicas.refusal(many_body(), "heatbath") == ""
