"""Population annealing: unbiased partition functions and weighted averages, families, states to go on from."""

import numpy as np
import pytest
from scipy import stats

import mc
from mc.population import (
    PopulationDriver,
    family_entropy,
    mean_square_family_size,
    population_error,
    systematic_resampling,
)
from tests.enumerated import FALSE_ALARM, combined_p_value, law

BETAS = np.array([0.0, 0.4, 0.8, 1.3])


def annealed(hamiltonian, n_chains, population, seed=1, thin=2, **keywords):
    driver = PopulationDriver(hamiltonian, BETAS, n_chains, population, seed, thin=thin, **keywords)
    driver.warm_up(len(BETAS))
    return driver.block(population)


@pytest.mark.statistical
def test_partition_function_and_weighted_averages_are_unbiased_for_any_population():
    # <Z_estimate> = Z and <Z_estimate mean(f)> = Z <f> hold for 8 replicas as for 8000 (Machta 2010), so 4000 small
    # populations tell. Two models, 3 + 2 z-scores each; false alarm 1e-4.
    p_values = []
    for build in (lambda: mc.models.sk(N=6, seed=3, h="gauss:0.3"), lambda: mc.models.ea2d(L=3, seed=2)):
        hamiltonian = build()
        block = annealed(hamiltonian, 4000, 8)
        energy = block.posterior["energy"]
        assert energy == pytest.approx(hamiltonian.energy(block.spins), abs=1e-9)
        steps = np.exp(-np.diff(BETAS) * energy[:, :, :-1]).mean(axis=1)
        z = 2.0**hamiltonian.n_spins * np.cumprod(steps, axis=1)  # (population, beta)
        for b in range(1, len(BETAS)):
            states, probability = law(hamiltonian, BETAS[b])
            energies = hamiltonian.energy(states)
            exact = np.exp(-BETAS[b] * energies).sum()
            ratio = z[:, b - 1] / exact
            p_values.append(stats.norm.sf(abs(ratio.mean() - 1) / stats.sem(ratio)) * 2)
            off = ratio * (energy[:, :, b].mean(axis=1) - probability @ energies)
            if b > 1:
                p_values.append(stats.norm.sf(abs(off.mean()) / stats.sem(off)) * 2)
    assert combined_p_value(p_values) > FALSE_ALARM, np.round(p_values, 4)


@pytest.mark.statistical
def test_error_of_the_partition_function_covers_the_scatter_of_populations():
    # One sweep a step, so that families are what counts. The scatter of ln Z of 40 populations is known to 11 %, and
    # 0.55 is four of these errors below it; a safe error may be too large, but not by more than a factor of three.
    hamiltonian, betas = mc.models.ea3d(L=3, seed=1), np.linspace(0.0, 1.2, 9)
    driver = PopulationDriver(hamiltonian, betas, 40, 200, seed=3, thin=1, spins_every=0)
    driver.warm_up(len(betas))
    block = driver.block(200)
    energy, family = block.posterior["energy"], block.sample_stats["family"]
    own = np.log(np.exp(-np.diff(betas) * energy[:, :, :-1]).mean(axis=1)).sum(axis=1)
    claimed = [population_error(energy[c : c + 1], betas, family[c : c + 1])[-1] for c in range(40)]
    assert 0.55 * own.std(ddof=1) < np.mean(claimed) < 3 * own.std(ddof=1)
    pooled = population_error(energy, betas, family)
    assert pooled[0] == 0.0
    assert pooled[-1] >= own.std(ddof=1) / np.sqrt(40) - 1e-12


def test_systematic_resampling_rounds_every_mean_number():
    weight = np.array([0.1, 2.0, 0.0, 3.4, 0.5])
    mean = 5 * weight / weight.sum()
    counts = np.array(
        [np.bincount(systematic_resampling(weight, u), minlength=5) for u in (np.arange(2000) + 0.5) / 2000]
    )
    assert ((counts == np.floor(mean)) | (counts == np.ceil(mean))).all()
    assert counts.mean(axis=0) == pytest.approx(mean, abs=2e-3)
    assert (np.diff(systematic_resampling(weight, 0.3)) >= 0).all()
    assert systematic_resampling(np.ones(7), 0.999999).tolist() == list(range(7))


def test_families_shrink_and_their_measures_agree_with_the_definition():
    block = annealed(mc.models.ea3d(L=3, seed=1, J="gaussian"), 2, 300, thin=5)
    family = block.sample_stats["family"]
    assert (family[:, :, 0] == np.arange(300)).all()
    entropies = [family_entropy(family[0, :, b]) for b in range(len(BETAS))]
    assert entropies[0] == pytest.approx(np.log(300))
    assert (np.diff(entropies) < 0).all()
    assert (np.diff(family[0, :, -1]) >= 0).all()  # relatives side by side
    equal = np.repeat(np.arange(10), 4)
    assert family_entropy(equal) == pytest.approx(np.log(10))
    assert mean_square_family_size(equal) == pytest.approx(4.0)


def test_restored_in_the_middle_it_goes_on_bit_for_bit():
    def fresh(seed=1):
        return PopulationDriver(mc.models.sk(N=20, seed=1), BETAS, 2, 30, seed, spins_every=4)

    whole, half, other = fresh(), fresh(), fresh(seed=5)
    whole.warm_up(10)
    half.warm_up(2)
    other.restore(half.state())
    other.warm_up(1)
    third = fresh(seed=6)
    third.restore(other.state())
    third.warm_up(10)
    first, rest = third.block(7), third.block(23)
    long = whole.block(30)
    for name, values in long.posterior.items():
        assert np.array_equal(values, np.concatenate([first.posterior[name], rest.posterior[name]], axis=1))
    assert np.array_equal(long.spins, np.concatenate([first.spins, rest.spins], axis=1))
    assert long.spin_draws.tolist() == list(range(0, 30, 4))


def test_wrong_arguments_are_refused():
    hamiltonian = mc.models.sk(N=5, seed=1)
    for betas in ([0.1, 1.0], [0.0], [0.0, 1.0, 0.5]):
        with pytest.raises(ValueError, match="rises from 0"):
            PopulationDriver(hamiltonian, betas)
    driver = PopulationDriver(hamiltonian, BETAS, 2, 10)
    with pytest.raises(ValueError, match="0 of 4 steps"):
        driver.block(1)
    driver.warm_up(4)
    with pytest.raises(ValueError, match="no draw 10"):
        driver.block(11)
