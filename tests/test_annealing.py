"""Simulated annealing: independent draws, ground states, states to go on from."""

import numpy as np
import pytest

import mc
from mc.annealing import AnnealingDriver, default_schedule
from tests.enumerated import FALSE_ALARM, all_states, law_p_value


def test_finds_the_enumerated_ground_state_and_reports_its_energy():
    for build in (lambda: mc.models.sk(N=14, seed=2), lambda: mc.models.pspin(N=10, p=3, seed=1)):
        hamiltonian = build()
        driver = AnnealingDriver(hamiltonian, default_schedule(hamiltonian), n_chains=2, seed=3)
        block = driver.block(40)
        lowest = hamiltonian.energy(all_states(hamiltonian.n_spins)).min()
        assert block.posterior["energy"].min() == pytest.approx(lowest, abs=1e-9)
        assert (block.posterior["energy"][:, :, -1] <= lowest + 1e-9).mean() > 0.15
        assert block.posterior["energy"] == pytest.approx(hamiltonian.energy(block.spins), abs=1e-9)
        assert driver.lowest.energy == pytest.approx(lowest, abs=1e-9)
        assert hamiltonian.energy(driver.lowest.spins) == pytest.approx(lowest, abs=1e-9)


@pytest.mark.statistical
def test_draws_are_independent_and_hot_ones_follow_their_law():
    # At two high temperatures 40 sweeps are many autocorrelation times: 6400 independent draws; false alarm 1e-4.
    hamiltonian = mc.models.sk(N=7, seed=4, h=0.2)
    driver = AnnealingDriver(hamiltonian, [0.2, 0.4], n_chains=64, seed=2, thin=40)
    block = driver.block(100)
    assert law_p_value(hamiltonian, 0.4, block.spins[:, :, 1].reshape(-1, 7)) > FALSE_ALARM
    energy = block.posterior["energy"][:, :, 1]
    centred = energy - energy.mean()
    along = (centred[:, 1:] * centred[:, :-1]).mean() / centred.var()
    assert abs(along) < 4 / np.sqrt(energy.size)


def test_blocks_and_states_continue_bit_for_bit():
    def fresh(seed=1):
        return AnnealingDriver(mc.models.ea2d(L=4, seed=1), [0.5, 1.0, 2.0], 3, seed, thin=3, spins_every=5)

    whole, parts, other = fresh(), fresh(), fresh(seed=2)
    long = whole.block(60)
    first = [parts.block(n) for n in (1, 5, 20)]
    other.restore(parts.state())
    rest = other.block(34)
    for name, values in long.posterior.items():
        assert np.array_equal(values, np.concatenate([b.posterior[name] for b in [*first, rest]], axis=1))
    assert np.array_equal(long.spins, np.concatenate([b.spins for b in [*first, rest]], axis=1))
    assert np.array_equal(rest.posterior["energy"], parts.block(34).posterior["energy"])
    assert long.spin_draws.tolist() == list(range(0, 60, 5))


def test_default_schedule_falls_from_three_times_to_a_tenth_of_the_typical_field():
    temperatures = 1.0 / default_schedule(mc.models.ea3d(L=3, seed=1))
    assert temperatures[0] == pytest.approx(3 * np.sqrt(6))
    assert temperatures[-1] == pytest.approx(0.1 * np.sqrt(6))
    assert (np.diff(temperatures) < 0).all()
