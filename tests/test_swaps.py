"""Swaps at a fixed number of spins up: the canonical law, costs, counts, bookkeeping, drivers, refusals."""

import numba
import numpy as np
import pytest

import mc
from mc.engine import KERNELS, choose
from mc.kernels import batch as generic
from mc.kernels import swaps
from mc.kernels.local_energies import fill, terms_of, unit_of
from mc.kernels.shared_terms import shared_terms, twice_shared
from mc.simulate import LocalDriver
from mc.tempering import TemperingDriver
from tests import batch_checks
from tests.batch_checks import BETAS, rows_of, spins_of
from tests.enumerated import FALSE_ALARM, chi_square_p, combined_p_value, law, state_numbers
from tests.many_body import mixed, ring

MODELS = {
    "orders 1 to 4, half up": lambda: mixed(8, (1, 2, 3, 4), 1, n_up=4),
    "orders 1 to 6, three up": lambda: mixed(9, range(1, 7), 2, n_up=3),
    "small ring, one up": lambda: ring(8, n_up=1),
    "small ring, one down": lambda: ring(8, n_up=7),
    "bonds, odd N": lambda: mixed(7, (1, 2), 3, n_up=4),
    "two spins without a cost": lambda: mc.Hamiltonian(2, [([[0, 1]], [0.4])], n_up=1),
    "two spins in a field": lambda: mc.Hamiltonian(2, [([[0]], [0.3])], n_up=1),
    "nothing": lambda: mc.Hamiltonian(4, [], n_up=2),
}


def canonical_p_value(hamiltonian, beta, spins):
    """p-value of independent draws spins (n, N) against the enumerated law at this number of spins up."""
    states, weights = law(hamiltonian, beta)
    weights = np.where((states > 0).sum(axis=1) == hamiltonian.n_up, weights, 0.0)
    counts = np.bincount(state_numbers(spins), minlength=len(weights))
    return chi_square_p(counts, weights / weights.sum(), len(spins))


def random_states(hamiltonian, count, seed):
    """(count, N) states with n_up spins up."""
    up = np.arange(hamiltonian.n_spins) < hamiltonian.n_up
    random = np.random.default_rng(seed)
    return np.stack([np.where(random.permutation(up), 1, -1) for _ in range(count)]).astype(np.int8)


@pytest.mark.statistical
@pytest.mark.parametrize("name", MODELS)
def test_swaps_sample_the_canonical_law(name):
    # 10240 states at each of 5 betas, 2 seeds, all from one start; 10 p-values combined, false alarm 1e-4 a model.
    # States are 150 sweeps apart, the slowest mode of the exact matrices of a sweep decays in 25 (at beta = 1).
    hamiltonian, copies, betas = MODELS[name](), 256, BETAS / 2
    p_values = []
    for seed in (1, 2):
        batch = swaps.make(hamiltonian, np.tile(betas, copies), seed, (0,), "metropolis")
        n_units, found = batch_checks.units(batch, swaps), []
        generic.sweep_all(batch, n_units, 300, False)
        for _ in range(40):
            generic.sweep_all(batch, n_units, 150, False)
            found.append(spins_of(batch, swaps))
        found = np.stack(found)
        for beta in betas:
            spins = found[:, batch.beta == beta].reshape(-1, hamiltonian.n_spins)
            p_values.append(canonical_p_value(hamiltonian, beta, spins))
    assert combined_p_value(p_values) > FALSE_ALARM, np.round(p_values, 5)


@pytest.mark.parametrize("make", [
    lambda: ring(8, n_up=4), lambda: ring(30, n_up=9), lambda: mixed(20, (1, 2, 3, 4), 1, 30, n_up=10),
    lambda: mixed(20, range(1, 8), 2, 30, n_up=7), lambda: mixed(12, (1,), 3, n_up=6),
])  # fmt: skip
def test_the_cost_of_a_swap_is_the_energy_difference(make):
    hamiltonian = make()
    bits = unit_of(hamiltonian.table)
    terms, shared = tuple(terms_of(hamiltonian.table, bits)), tuple(shared_terms(hamiltonian, bits))
    for spins in random_states(hamiltonian, 20, 1):
        down = np.append((spins.astype(np.int64) - 1) // 2, 0)
        local = np.zeros(hamiltonian.n_spins, np.int64)
        fill(local, down[:-1], terms)
        ups, downs = np.flatnonzero(spins > 0), np.flatnonzero(spins < 0)
        pairs = np.array([(i, j) for i in ups for j in downs])
        swapped = np.repeat(spins[None], len(pairs), axis=0)
        np.put_along_axis(swapped, pairs, np.array([-1, 1]), axis=1)
        cost = [local[i] + local[j] - twice_shared(np.uint64(i), np.uint64(j), down, *shared) for i, j in pairs]
        exact = hamiltonian.energy(swapped) - hamiltonian.energy(spins)
        assert 2.0**-bits * 2.0 * np.array(cost) == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize("make", [lambda: ring(40, n_up=13), lambda: mixed(71, range(1, 7), 1, 60, n_up=40)])
def test_energies_rows_and_the_number_of_spins_up(make):
    hamiltonian = make()
    batch = swaps.make(hamiltonian, np.linspace(0, 1, 5), 5, (0,), "metropolis")
    assert batch.energy == pytest.approx(hamiltonian.energy(spins_of(batch, swaps)), abs=1e-11)
    for n_sweeps in (1, 1, 7, 500):
        generic.sweep_all(batch, 5, n_sweeps, False)
        spins = spins_of(batch, swaps)
        assert ((spins > 0).sum(axis=1) == hamiltonian.n_up).all()
        assert batch.energy == pytest.approx(hamiltonian.energy(spins), abs=1e-11)
    kept, local = batch.energy.copy(), batch.local.copy()
    generic.measure_all(batch, 5)
    assert (batch.energy == kept).all()
    batch_checks.load_rows(batch, swaps, rows_of(batch, swaps))
    assert (batch.energy == kept).all()
    assert (batch.local == local).all()
    given = random_states(hamiltonian, 5, 2)
    batch_checks.load_rows(batch, swaps, generic.pack(given))
    assert (spins_of(batch, swaps) == given).all()
    assert batch.energy == pytest.approx(hamiltonian.energy(given), abs=1e-11)


def test_sites_that_moved_are_counted():
    for n_spins, n_up in ((12, 6), (13, 1), (5, 4)):
        hot = swaps.make(mixed(n_spins, (1, 2), 1, n_up=n_up), np.zeros(3), 1, (0,), "metropolis")
        generic.sweep_all(hot, 3, 4, True)
        assert (hot.flipped == n_spins).all()  # at beta = 0 every swap is made
    strong = mc.Hamiltonian(6, [(np.arange(6)[:, None], [9.0, 9, 9, -9, -9, -9])], n_up=3)
    cold = swaps.make(strong, np.full(3, 50.0), 1, (0,), "metropolis")
    generic.sweep_all(cold, 3, 50, True)
    assert (cold.flipped == 0).all()
    assert (spins_of(cold, swaps) == [1, 1, 1, -1, -1, -1]).all()


@pytest.mark.parametrize("n_up", [0, 12])
def test_one_state_only(n_up):
    hamiltonian = ring(12, n_up=n_up)
    batch = swaps.make(hamiltonian, np.full(2, 0.5), 1, (0,), "metropolis")
    generic.sweep_all(batch, 2, 20, True)
    generic.measure_all(batch, 2)
    assert (spins_of(batch, swaps) == (1 if n_up else -1)).all()
    assert (batch.flipped == 0).all()
    assert batch.energy == pytest.approx(hamiltonian.energy(spins_of(batch, swaps)))


def test_restored_replicas_units_and_threads():
    hamiltonian = ring(40, n_up=17)
    batch_checks.check_continuation(swaps, hamiltonian, "metropolis", 7)
    batch_checks.check_units_and_threads(swaps, hamiltonian, "metropolis", 1)
    batch_checks.check_equal_starts_part(swaps, ring(64, n_up=32), "metropolis", 32, 0.5)


DRIVERS = {
    "local": lambda hamiltonian, init: LocalDriver(hamiltonian, [0.3, 0.8], 2, 3, thin=2, init=init),
    "tempering": lambda hamiltonian, init: TemperingDriver(
        hamiltonian, [0.2, 0.5, 0.9], 2, 3, thin=2, init=init, replicas=2, houdayer=True
    ),
}


@pytest.mark.parametrize("name", DRIVERS)
def test_drivers_go_on_bit_for_bit_in_any_blocks_on_any_threads(name):
    hamiltonian = ring(20, n_up=8)
    init = random_states(hamiltonian, 1, 4)[0]
    one, other = (DRIVERS[name](hamiltonian, init) for _ in range(2))
    assert one.engine.kernel == "swaps"
    for driver in (one, other):
        driver.warm_up(20)
    whole = one.block(12)
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    parts = [other.block(5)]
    numba.set_num_threads(threads)
    again = DRIVERS[name](hamiltonian, init)
    again.restore(other.state())
    parts.append(again.block(7))
    for series, values in whole.posterior.items():
        assert (values == np.concatenate([part.posterior[series] for part in parts], axis=1)).all()
    assert (whole.spins == np.concatenate([part.spins for part in parts], axis=1)).all()
    assert ((whole.spins > 0).sum(axis=-1) == 8).all()
    assert whole.posterior["energy"] == pytest.approx(hamiltonian.energy(whole.spins), abs=1e-12)


@pytest.mark.statistical
def test_tempering_samples_the_canonical_law():
    # 16 ladders x 400 draws, 20 rounds apart, two betas; false alarm 1e-4.
    hamiltonian = mixed(8, (1, 2, 3, 4), 5, n_up=3)
    start = random_states(hamiltonian, 1, 1)[0]
    driver = TemperingDriver(hamiltonian, [0.3, 1.0], 16, 7, thin=20, init=start)
    driver.warm_up(200)
    spins = driver.block(400).spins
    p_values = [
        canonical_p_value(hamiltonian, beta, spins[:, :, b].reshape(-1, 8)) for b, beta in enumerate((0.3, 1))
    ]
    assert combined_p_value(p_values) > FALSE_ALARM, p_values


def test_choice_and_refusals():
    fixed, free = ring(12, n_up=5), ring(12)
    assert choose(fixed, "metropolis", 4) == ("swaps", "the one that fits")
    assert choose(mc.Hamiltonian(4, [([[0, 1]], [1.0])], n_up=2), "metropolis", 1)[0] == "swaps"
    for name, kernel in KERNELS.items():
        if name != "swaps":
            with pytest.raises(
                ValueError, match=f"kernel={name}: flips change the number of spins up, which is fixed"
            ):
                choose(fixed, kernel.RULES[0], 1, name)
    for rule in ("heatbath", "wolff", "swendsen-wang"):
        with pytest.raises(ValueError, match="flips change the number of spins up"):
            choose(fixed, rule, 1)
    with pytest.raises(ValueError, match="kernel=swaps: any number of spins may be up"):
        choose(free, "metropolis", 1, "swaps")
    large = mc.Hamiltonian(swaps.LARGEST + 1, [([[0, 1, 2]], [1.0])], n_up=2)
    with pytest.raises(ValueError, match=r"rule=metropolis: 8193 spins; swaps keep a table"):
        choose(large, "metropolis", 1)


def test_a_state_with_another_number_of_spins_up_is_not_taken():
    hamiltonian = ring(12, n_up=5)
    with pytest.raises(ValueError, match="another number of spins up than n_up"):
        LocalDriver(hamiltonian, [0.5], init=random_states(ring(12, n_up=6), 1, 1)[0])
