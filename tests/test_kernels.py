"""Kernels and the local driver: enumerated laws, energies, random streams, reproducibility."""

import numba
import numpy as np
import pytest

import mc
from mc.kernels import heatbath, local_field, metropolis, random_streams, wolff
from mc.simulate import LocalDriver
from tests.enumerated import FALSE_ALARM, all_states, combined_p_value, law_p_value


def mixed_model():
    """Orders 1 to 4 and a constant; spin 5 feels nothing at all."""
    fields = (np.array([[0], [3]]), np.array([0.3, -0.5]))
    bonds = (np.array([[0, 1], [2, 4], [1, 6]]), np.array([0.7, -0.4, 0.9]))
    triple = (np.array([[1, 3, 6]]), np.array([-0.6]))
    plaquette = (np.array([[0, 2, 3, 4]]), np.array([0.8]))
    return mc.Hamiltonian(7, [fields, bonds, triple, plaquette], constant=2.5)


def uneven_ferromagnet():
    """A triangle, a tail and a loose spin, of different couplings."""
    bonds = np.array([[0, 1], [1, 2], [0, 2], [2, 3], [3, 4]])
    return mc.Hamiltonian(6, [(bonds, np.array([0.5, 1.0, 0.25, 1.5, 0.75]))])


GLASSES = {
    "open 3x3 in a field": lambda: mc.models.ising(L=3, boundary="open", h=0.2),
    "random graph with fields": lambda: mc.models.rrg(N=8, J="gaussian", h="gauss:0.5", seed=3),
    "p-spin": lambda: mc.models.pspin(N=7, p=3, seed=2),
    "SK": lambda: mc.models.sk(N=6, seed=1, h=0.1),
    "mixed": mixed_model,
}
FERROMAGNETS = {"open 3x3": lambda: mc.models.ising(L=3, boundary="open"), "uneven": uneven_ferromagnet}


def replicas(hamiltonian, beta, count, seed):
    """(spins all up, energies, betas, streams): one start for all, so that nothing but the kernel makes the law."""
    spins = np.ones((count, hamiltonian.n_spins), np.int8)
    # Random states are streams as good as those of `streams`, and many at once.
    states = np.random.default_rng(seed).integers(0, 2**64, size=(count, 4), dtype=np.uint64)
    return spins, hamiltonian.energy(spins), np.full(count, float(beta)), states


def run(kernel, hamiltonian, start, n_sweeps):
    arrays = local_field.kernel_arrays(hamiltonian.table)
    if kernel == "metropolis":
        return metropolis.sweep(*start, *arrays, local_field.typical_fields(*arrays[:2]), n_sweeps)
    if kernel == "heatbath":
        return heatbath.sweep(*start, *arrays, n_sweeps)
    return wolff.update(*start, hamiltonian.constant, *arrays, n_sweeps)


def test_xoshiro_words_are_those_of_the_reference():
    state = np.array([1, 2, 3, 4], np.uint64)
    words = [int(random_streams.next_uint64(state)) for _ in range(4)]
    assert words == [41943041, 58720359, 3588806011781223, 3591011842654386]


def test_streams_depend_on_seed_path_and_number_only():
    few, many = random_streams.streams(5, 1, count=3), random_streams.streams(5, 1, count=9)
    assert few.dtype == np.uint64
    assert (few == many[:3]).all()
    different = [random_streams.streams(5, *path, count=4) for path in ((), (0,), (0, 0), (1,), (0, 1))]
    different.append(random_streams.streams(6, count=4))
    assert len(np.unique(np.concatenate(different), axis=0)) == 24
    with pytest.raises(ValueError, match="non-negative"):
        random_streams.streams(-1, count=1)


def test_uniform_numbers():
    state = random_streams.streams(1, count=1)[0]
    numbers = np.array([random_streams.next_uniform(state) for _ in range(20_000)])
    assert 0 <= numbers.min() < numbers.max() < 1
    assert abs(numbers.mean() - 0.5) < 5 / np.sqrt(12 * len(numbers))


@pytest.mark.parametrize("name", GLASSES)
def test_field_and_energy_agree_with_the_hamiltonian(name):
    hamiltonian = GLASSES[name]()
    arrays = local_field.kernel_arrays(hamiltonian.table)
    states = all_states(hamiltonian.n_spins)[::7]
    for state in states:
        total = local_field.energy(state, hamiltonian.constant, *arrays)
        assert total == pytest.approx(hamiltonian.energy(state), abs=1e-12)
        for site in range(hamiltonian.n_spins):
            flipped = state.copy()
            flipped[site] *= -1
            change = hamiltonian.energy(flipped) - hamiltonian.energy(state)
            field = local_field.local_field(site, state, *arrays)
            assert 2 * state[site] * field == pytest.approx(change, abs=1e-12)


def test_bounds_from_the_tables_change_no_decision():
    u = random_streams.streams(2, count=4000).ravel() / 2.0**64
    x = np.concatenate([np.linspace(0, 45, len(u) // 2), -np.log(u[len(u) // 2 :]) * (1 + 1e-9)])
    assert [metropolis.below_exp(a, b) for a, b in zip(u, x, strict=True)] == (u < np.exp(-x)).tolist()
    x = np.linspace(-60, 60, len(u))
    assert [heatbath.flips(a, b) for a, b in zip(u, x, strict=True)] == (u * (1 + np.exp(x)) < 1).tolist()


@pytest.mark.statistical
@pytest.mark.parametrize("kernel", ["metropolis", "heatbath", "wolff"])
def test_kernel_samples_the_enumerated_law(kernel):
    # One state of each of 20000 replicas with their own streams: independent draws, enough to see an error of 5 % in
    # beta. False alarm 1e-4 a kernel.
    p_values = []
    for name, build in (FERROMAGNETS if kernel == "wolff" else GLASSES).items():
        hamiltonian = build()
        for beta in (0.0, 0.35, 0.9):
            start = replicas(hamiltonian, beta, 20_000, seed=len(p_values))
            if kernel == "wolff":  # an odd or an even number of single-spin clusters: what the driver's coin is for
                half = tuple(array[:10_000] for array in start)
                run(kernel, hamiltonian, half, 1)
            run(kernel, hamiltonian, start, 100 if name == "open 3x3 in a field" else 50)
            assert start[1] == pytest.approx(hamiltonian.energy(start[0]), abs=1e-9)
            p_values.append(law_p_value(hamiltonian, beta, start[0]))
    assert combined_p_value(p_values) > FALSE_ALARM, np.round(p_values, 5)


@pytest.mark.parametrize("kernel", ["metropolis", "heatbath"])
def test_counts_are_those_of_the_flips(kernel):
    hamiltonian = mixed_model()
    start = replicas(hamiltonian, 0.8, 50, 3)
    before = start[0].copy()
    flips = run(kernel, hamiltonian, start, 1)
    stirred = 1 if kernel == "metropolis" else 0  # one site may be updated twice, and counts once
    assert (np.abs(flips - (start[0] != before).sum(axis=1)) <= stirred).all()
    assert 0 < flips.mean() < hamiltonian.n_spins


def test_wolff_returns_the_flipped_spins():
    hamiltonian = mc.models.ising(L=6)
    start = replicas(hamiltonian, 0.4, 40, 5)
    sizes = run("wolff", hamiltonian, start, 1)
    assert (sizes == (start[0] == -1).sum(axis=1)).all()


def test_independent_starts_stay_different_states():
    hamiltonian = mc.models.ising(L=16)
    driver = LocalDriver(hamiltonian, [0.4406868], n_chains=64, seed=9, thin=1000)
    spins = driver.block(2).spins[:, -1, 0]
    canonical = spins * spins[:, :1]
    assert len(np.unique(canonical, axis=0)) == 64


def test_results_do_not_depend_on_the_number_of_threads(one_then_all_threads):
    hamiltonian = mixed_model()
    ferromagnet = mc.models.ising(L=5)

    def everything():
        result = []
        for kernel in ("metropolis", "heatbath", "wolff"):
            model = ferromagnet if kernel == "wolff" else hamiltonian
            start = replicas(model, 0.5, 13, 1)
            result += [run(kernel, model, start, 20), *start]
            driver = LocalDriver(model, [0.2, 0.5], n_chains=3, seed=2, rule=kernel)
            driver.warm_up(11)
            result += contents(driver.block(5))
        return result

    assert_same(*one_then_all_threads(everything))


@pytest.fixture
def one_then_all_threads():
    """Calls a function with one thread and with all of them."""
    all_threads = numba.get_num_threads()

    def call_twice(function):
        numba.set_num_threads(1)
        first = function()
        numba.set_num_threads(all_threads)
        return first, function()

    yield call_twice
    numba.set_num_threads(all_threads)


def contents(block):
    return [*block.posterior.values(), *block.sample_stats.values(), block.spins, block.spin_draws]


def assert_same(ours, theirs):
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        assert np.array_equal(mine, other)


def joined(first, second):
    """Two blocks as one; the last array numbers the draws with spins."""
    pairs = zip(contents(first), contents(second), strict=True)
    arrays = [np.concatenate(pair, axis=1 if pair[0].ndim > 1 else 0) for pair in pairs]
    return arrays


LOCAL = [("metropolis", GLASSES["p-spin"]), ("heatbath", GLASSES["SK"]), ("wolff", lambda: mc.models.ising(L=5))]


@pytest.mark.parametrize(("rule", "build"), LOCAL)
def test_blocks_and_restored_states_continue_bit_for_bit(rule, build):
    def fresh(seed=4):
        return LocalDriver(build(), [0.2, 0.7], n_chains=3, seed=seed, rule=rule, thin=2, spins_every=3)

    whole, parts, other = fresh(), fresh(), fresh(seed=5)
    for driver in (whole, parts):
        driver.warm_up(20)
    long = whole.block(20)
    first, state = parts.block(10), parts.state()
    other.restore({name: np.array(array) for name, array in state.items()})
    assert_same(contents(long), joined(first, parts.block(10)))
    assert_same(contents(long), joined(first, other.block(10)))
    assert long.spin_draws.tolist() == [0, 3, 6, 9, 12, 15, 18]
    assert not np.array_equal(contents(long)[0], fresh(seed=5).block(20).posterior["energy"])


def test_block_describes_its_spins():
    hamiltonian = mixed_model()
    driver = LocalDriver(hamiltonian, [0.0, 0.5, 1.0], n_chains=2, init="up")
    block = driver.block(4)
    assert block.spins.shape == (2, 4, 3, 7)
    assert block.spins.dtype == np.int8
    assert block.posterior["energy"] == pytest.approx(hamiltonian.energy(block.spins), abs=1e-12)
    assert block.posterior["magnetization"] == pytest.approx(block.spins.mean(axis=-1))
    assert ((block.sample_stats["accepted"] >= 0) & (block.sample_stats["accepted"] <= 1)).all()
    assert LocalDriver(hamiltonian, [1.0], spins_every=0).block(3).spins.shape == (4, 0, 1, 7)


def test_given_spins_are_where_a_run_starts():
    hamiltonian = mc.models.ising(L=4)
    given = np.where(np.arange(16) % 3 == 0, 1, -1)
    driver = LocalDriver(hamiltonian, [0.1, 0.2], n_chains=3, init=given)
    assert (driver.state()["spins"] == given).all()
    up = LocalDriver(hamiltonian, [0.1, 0.2], n_chains=3, init="up").state()["spins"]
    assert (up == 1).all()
    random = LocalDriver(hamiltonian, [0.1, 0.2], n_chains=3).state()["spins"]
    assert len(np.unique(random.reshape(6, 16), axis=0)) == 6


@pytest.mark.statistical
def test_wolff_driver_is_ergodic_at_beta_zero_and_flips_about_a_system_a_sweep():
    hamiltonian = uneven_ferromagnet()
    driver = LocalDriver(hamiltonian, [0.0, 0.8], n_chains=4000, rule="wolff", thin=20, init="up", seed=8)
    driver.warm_up(6)
    block = driver.block(1)
    p_values = [law_p_value(hamiltonian, beta, block.spins[:, 0, b]) for b, beta in enumerate(driver.betas)]
    assert combined_p_value(p_values) > FALSE_ALARM, p_values
    flipped = driver.state()["clusters_per_sweep"] * block.sample_stats["accepted"].mean(axis=(0, 1))
    assert flipped == pytest.approx(1.0, rel=0.5)


@pytest.mark.statistical
def test_wolff_energy_of_the_critical_square_lattice():
    driver = LocalDriver(mc.models.ising(L=16), [0.44068679350977], 32, 12, "wolff", spins_every=0)
    driver.warm_up(100)
    means = driver.block(1000).posterior["energy"].mean(axis=(1, 2))
    error = means.std(ddof=1) / np.sqrt(len(means))
    exact = -1.453064852813477 * 256  # Kaufman, finite torus
    assert error < 1.5
    assert abs(means.mean() - exact) < 4 * error


def test_wrong_arguments_are_refused():
    hamiltonian = mc.models.ea2d(L=3)
    with pytest.raises(ValueError, match="rule=glauber"):
        LocalDriver(hamiltonian, [1.0], rule="glauber")
    with pytest.raises(ValueError, match="ferromagnet"):
        LocalDriver(hamiltonian, [1.0], rule="wolff")
    for betas in ([], [np.nan], [-1.0], [[1.0]]):
        with pytest.raises(ValueError, match="betas"):
            LocalDriver(hamiltonian, betas)
    with pytest.raises(ValueError, match="n_chains=0"):
        LocalDriver(hamiltonian, [1.0], n_chains=0)
    with pytest.raises(ValueError, match="broadcast"):
        LocalDriver(hamiltonian, [1.0], init=np.ones(5))
    with pytest.raises(ValueError, match="other than"):
        LocalDriver(hamiltonian, [1.0], init=np.zeros(9))
    driver, state = LocalDriver(hamiltonian, [1.0]), LocalDriver(hamiltonian, [1.0, 2.0]).state()
    with pytest.raises(ValueError, match="spins is int8"):
        driver.restore(state)
    with pytest.raises(ValueError, match="draw is missing"):
        driver.restore({name: array for name, array in driver.state().items() if name != "draw"})
