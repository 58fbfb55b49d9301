"""Kept local energies: the law, decisions of the plain kernel, whole numbers that never drift, bookkeeping."""

import numpy as np
import pytest

import mc
from mc.engine import choose
from mc.kernels import batch as generic
from mc.kernels import fields, replicas
from mc.kernels.local_energies import fill, flip, terms_of, unit_of
from mc.simulate import LocalDriver
from mc.tempering import TemperingDriver
from tests import batch_checks
from tests.batch_checks import BETAS, law_p_values, spins_of
from tests.enumerated import FALSE_ALARM, combined_p_value
from tests.many_body import mixed, ring

RULES = ("metropolis", "heatbath")
MODELS = {
    "orders 1 to 4": lambda: mixed(8, (1, 2, 3, 4), 1),
    "small ring": lambda: ring(8),
    "fields and six spins": lambda: mixed(9, (1, 6), 2),
}
ALL = MODELS | {
    "orders 1 to 7": lambda: mixed(23, range(1, 8), 3, count=30),
    "ring": lambda: ring(70),
    "in eV": lambda: ring(24, scale=0.013),
    "p-spin": lambda: mc.models.pspin(N=12, p=3, seed=1),
    "far apart": lambda: mc.Hamiltonian(5, [([[0, 1, 2], [2, 3, 4]], [1e12, 1e-3])]),
}


@pytest.mark.statistical
@pytest.mark.parametrize("rule", RULES)
def test_fields_sample_the_enumerated_law(rule):
    # 10240 states at each of 5 betas, 3 models, 15 p-values, combined; false alarm 1e-4 a rule.
    p_values = [law_p_values(fields, make(), rule, 30 + i, 256, 40, 60) for i, make in enumerate(MODELS.values())]
    assert combined_p_value(np.ravel(p_values)) > FALSE_ALARM, np.round(p_values, 5)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", ["orders 1 to 4", "fields and six spins", "orders 1 to 7", "p-spin"])
def test_decisions_are_those_of_the_plain_kernel(name, rule):
    # Couplings that both kernels sum exactly; otherwise a cost of nothing may come out as 1e-17 in one of them.
    hamiltonian = ALL[name]()
    ours, plain = (kernel.make(hamiltonian, BETAS, 5, (0,), rule) for kernel in (fields, replicas))
    for _ in range(30):
        for one in (ours, plain):
            generic.sweep_all(one, len(BETAS), 3, True)
        assert (spins_of(ours, fields) == spins_of(plain, replicas)).all()
        assert (ours.flipped == plain.flipped).all()
        assert (ours.streams == plain.streams).all()


@pytest.mark.parametrize("name", ALL)
def test_local_energies_are_half_the_energy_differences(name):
    hamiltonian = ALL[name]()
    bits = unit_of(hamiltonian.table)
    terms, step = terms_of(hamiltonian.table, bits), 2.0**-bits
    random = np.random.default_rng(1)
    down, local = -random.integers(0, 2, hamiltonian.n_spins), np.zeros(hamiltonian.n_spins, np.int64)
    total = fill(local, down, tuple(terms))
    scale = sum(np.abs(couplings).sum() for _, couplings in hamiltonian.interactions.values())
    for _ in range(2000):
        site = np.uint64(random.integers(hamiltonian.n_spins))
        before = hamiltonian.energy(1 + 2 * down)
        cost = 2 * local[site]
        flip(site, local, down, tuple(terms))
        total -= cost
        assert hamiltonian.energy(1 + 2 * down) - before == pytest.approx(step * cost, abs=1e-14 * scale)
    assert hamiltonian.constant - step * total == pytest.approx(hamiltonian.energy(1 + 2 * down), abs=1e-14 * scale)
    anew = np.zeros_like(local)
    assert fill(anew, down, tuple(terms)) == total
    assert (anew == local).all()


def test_couplings_of_the_models_are_not_rounded():
    for hamiltonian in (mc.models.pspin(N=40, p=3, seed=1), mixed(30, (1, 2, 3, 4, 5), 1)):
        whole = terms_of(hamiltonian.table, unit_of(hamiltonian.table)).doubled * 2.0 ** -unit_of(hamiltonian.table)
        assert (np.sort(whole / 2) == np.sort(hamiltonian.table.coupling)).all()


@pytest.mark.parametrize("rule", RULES)
def test_bookkeeping(rule):
    for name in ("orders 1 to 7", "ring"):
        batch_checks.check_energies_and_rows(fields, ALL[name](), rule, 5)
    batch_checks.check_counts(fields, ring(24), rule, 6, stirred=1)
    batch_checks.check_continuation(fields, ring(40), rule, 7)
    batch_checks.check_units_and_threads(fields, ring(40), rule, 1)
    batch_checks.check_equal_starts_part(fields, ring(64), rule, 32, 0.5)


def test_nothing_drifts():
    batch = fields.make(ring(40), np.full(2, 0.3), 1, (0,), "metropolis")
    generic.sweep_all(batch, 2, 20_000, False)
    local, total, energy = batch.local.copy(), batch.total.copy(), batch.energy.copy()
    batch_checks.load_rows(batch, fields, batch_checks.rows_of(batch, fields))
    assert (batch.local == local).all()
    assert (batch.total == total).all()
    assert (batch.energy == energy).all()


@pytest.mark.parametrize("make", [
    lambda: LocalDriver(ring(20), [0.2, 0.7], n_chains=2, seed=3, thin=2, kernel="fields"),
    lambda: TemperingDriver(ring(20), [0.2, 0.5, 0.9], n_chains=2, seed=3, thin=2, kernel="fields"),
])  # fmt: skip
def test_draws_do_not_depend_on_blocks(make):
    one, other = make(), make()
    for driver in (one, other):
        driver.warm_up(10)
    whole = one.block(12)
    parts = [other.block(5)]
    again = make()
    again.restore(other.state())
    parts.append(again.block(7))
    for name, values in whole.posterior.items():
        assert (values == np.concatenate([part.posterior[name] for part in parts], axis=1)).all()
    assert (whole.spins == np.concatenate([part.spins for part in parts], axis=1)).all()


def test_choice_and_refusals():
    for hamiltonian in (mc.models.pspin(N=10, p=3, seed=1), mc.models.pspin(N=16, p=4, seed=1), ring(64)):
        for rule in RULES:
            for n_replicas in (1, 64):
                assert choose(hamiltonian, rule, n_replicas)[0] == "fields"
    assert "graph and dense" in fields.refusal(mc.models.ea3d(L=3, seed=1), "metropolis")
    assert fields.refusal(ring(8), "wolff") == "rule wolff is not one of metropolis, heatbath"
