"""Parallel tempering: the law at every beta, swaps, bookkeeping, reproducibility."""

import numba
import numpy as np
import pytest
from scipy import stats

import mc
from mc.kernels import random_streams, swap
from mc.simulate import LocalDriver
from mc.tempering import TemperingDriver
from tests.enumerated import FALSE_ALARM, chi_square_p, combined_p_value, law, law_p_value

BETAS = np.array([0.0, 0.3, 0.7, 1.2])


def contents(block):
    return [*block.posterior.values(), *block.sample_stats.values(), block.spins, block.spin_draws]


def assert_same(ours, theirs):
    for mine, other in zip(ours, theirs, strict=True):
        assert np.array_equal(mine, other, equal_nan=mine.dtype.kind == "f")


@pytest.mark.statistical
@pytest.mark.parametrize("rule", ["metropolis", "heatbath"])
def test_every_beta_has_its_law(rule):
    # One draw of each of 1500 independent ladders; false alarm 1e-4 a rule.
    p_values = []
    builds = [
        lambda: mc.models.ising(L=3, boundary="open"),
        lambda: mc.models.sk(N=6, h="gauss:0.4", seed=4),
        lambda: mc.models.pspin(N=6, p=3, seed=5),
    ]
    for seed, build in enumerate(builds):
        hamiltonian = build()
        driver = TemperingDriver(hamiltonian, BETAS, n_chains=1500, seed=seed, rule=rule, init="up")
        driver.warm_up(40 + seed)
        spins = driver.block(1).spins
        p_values += [law_p_value(hamiltonian, beta, spins[:, 0, b]) for b, beta in enumerate(BETAS)]
    assert combined_p_value(p_values) > FALSE_ALARM, np.round(p_values, 5)


@pytest.mark.statistical
def test_swaps_keep_the_product_law():
    hamiltonian = mc.models.sk(N=3, h=0.3, seed=2)
    betas = np.array([0.2, 1.5])
    ladders = 20_000
    random = np.random.default_rng(6)
    laws = [law(hamiltonian, beta)[1] for beta in betas]
    numbers = np.stack([random.choice(8, size=ladders, p=p) for p in laws], axis=1)
    energies = hamiltonian.energy(law(hamiltonian, 0.0)[0])[numbers]
    holder = np.tile(np.arange(2), (ladders, 1))
    states = random_streams.streams(3, count=ladders)
    accepted, attempted = swap.swap(energies, betas, holder, states, 0)
    assert (attempted == 1).all()
    assert (accepted[:, 0] == (holder[:, 0] == 1)).all()
    assert 0.2 < accepted.mean() < 0.9
    after = np.take_along_axis(numbers, holder, axis=1)
    counts = np.bincount(after @ [8, 1], minlength=64)
    assert chi_square_p(counts, np.outer(*laws).ravel(), ladders) > FALSE_ALARM
    # Detailed balance: as many went from (a, b) to (b, a) as came back.
    swapped = accepted[:, 0] == 1
    there = np.bincount(numbers[swapped] @ [8, 1], minlength=64).reshape(8, 8)
    pairs = [(there[a, b], there[b, a]) for a in range(8) for b in range(a)]
    p_values = [stats.binomtest(int(x), int(x + y)).pvalue for x, y in pairs if x + y >= 20]
    assert combined_p_value(p_values) > FALSE_ALARM


def test_swap_probability_is_that_of_the_energies():
    # E rises with beta: the gain is negative, the probability exp(-0.5 * 2); else a swap is certain.
    betas, ladders = np.array([0.5, 1.0, 1.5]), 4000
    energies = np.tile([0.0, -2.0, 7.0], (ladders, 1))
    holder = np.tile(np.arange(3), (ladders, 1))
    states = random_streams.streams(1, count=ladders)
    accepted, attempted = swap.swap(energies, betas, holder, states, 0)
    assert attempted.sum(axis=0).tolist() == [ladders, 0]
    assert stats.binomtest(int(accepted[:, 0].sum()), ladders, np.exp(-1.0)).pvalue > FALSE_ALARM
    holder = np.tile(np.arange(3), (ladders, 1))
    accepted, attempted = swap.swap(energies[:, [1, 2, 0]], betas, holder, states, 1)
    assert attempted.sum(axis=0).tolist() == [0, ladders]
    accepted_down = accepted[:, 1].mean()
    accepted, _ = swap.swap(energies[:, [0, 2, 1]], betas, np.tile(np.arange(3), (ladders, 1)), states, 0)
    assert accepted_down == pytest.approx(np.exp(0.5 * -7.0), abs=0.02) or accepted_down == 1.0
    assert accepted[:, 0].all()


def test_round_trips_are_counted_from_hot_to_hot():
    betas = np.array([0.1, 0.5, 1.0])
    last_end, trips = np.zeros(3, np.int8), np.zeros(3, np.int64)
    for holder in ([0, 1, 2], [1, 0, 2], [1, 2, 0], [2, 1, 0], [0, 1, 2], [0, 2, 1]):
        swap.follow(np.array(holder), betas, last_end, trips)
    assert trips.tolist() == [1, 0, 0]
    falling_end, falling = np.zeros(3, np.int8), np.zeros(3, np.int64)
    for holder in ([0, 1, 2], [1, 0, 2], [1, 2, 0], [2, 1, 0], [0, 1, 2], [0, 2, 1]):
        swap.follow(np.array(holder)[::-1].copy(), betas[::-1].copy(), falling_end, falling)
    assert (falling == trips).all()
    assert (falling_end == last_end).all()


def test_bookkeeping_of_a_run():
    hamiltonian = mc.models.ea2d(L=4, J="gaussian", seed=1)
    driver = TemperingDriver(hamiltonian, BETAS, n_chains=3, seed=2, thin=2, spins_every=2)
    driver.warm_up(5)
    block = driver.block(200)
    assert block.spins.shape == (3, 100, 4, 16)
    assert block.spin_draws.tolist() == list(range(0, 200, 2))
    assert block.posterior["energy"][:, ::2] == pytest.approx(hamiltonian.energy(block.spins), abs=1e-12)
    assert block.posterior["magnetization"][:, ::2] == pytest.approx(block.spins.mean(axis=-1))
    means = block.posterior["energy"].mean(axis=(0, 1))
    assert (np.diff(means) < 0).all()
    swaps = block.sample_stats["swap_accepted"]
    assert np.isnan(swaps[:, :, -1]).all()
    assert np.isin(swaps[:, :, :-1], (0.0, 1.0)).all()
    assert (swaps[:, :, :-1].mean(axis=(0, 1)) > 0.05).all()
    accepted = block.sample_stats["accepted"].mean(axis=(0, 1))
    assert accepted[0] == pytest.approx(0.5, abs=0.02)
    assert accepted[3] < accepted[1]
    assert driver.round_trips.sum() > 0
    holder = driver.state()["holder"]
    assert (np.sort(holder, axis=1) == np.arange(4)).all()
    assert (holder != np.arange(4)).any()


def test_pairs_alternate_from_round_to_round():
    driver = TemperingDriver(mc.models.ea2d(L=4, seed=1), BETAS, n_chains=2, thin=1)
    tried = ~np.isnan(driver.block(3).sample_stats["swap_accepted"][0])
    assert tried.tolist() == [[True, False, True, False], [False, True, False, False], [True, False, True, False]]


def test_blocks_states_and_threads_continue_bit_for_bit():
    threads = numba.get_num_threads()

    def fresh(seed=3):
        return TemperingDriver(mc.models.sk(N=20, seed=1), BETAS, n_chains=1, seed=seed, thin=3, spins_every=4)

    whole, parts, other = fresh(), fresh(), fresh(seed=8)
    try:
        numba.set_num_threads(1)  # ladder by ladder
        whole.warm_up(15)
        long = whole.block(20)
        numba.set_num_threads(threads)  # replicas shared out, where there is a second thread
        parts.warm_up(15)
        first, state = parts.block(10), parts.state()
        other.restore({name: np.array(array) for name, array in state.items()})
        second, again = parts.block(10), other.block(10)
    finally:
        numba.set_num_threads(threads)
    assert_same(contents(second), contents(again))
    pairs = zip(contents(first), contents(second), strict=True)
    assert_same(contents(long), [np.concatenate(pair, axis=min(pair[0].ndim - 1, 1)) for pair in pairs])
    assert_same(list(whole.state().values()), list(parts.state().values()))


def test_one_beta_is_a_local_simulation():
    hamiltonian = mc.models.ea2d(L=4, seed=1)
    alone = TemperingDriver(hamiltonian, [0.6], n_chains=3, seed=5, thin=2)
    local = LocalDriver(hamiltonian, [0.6], n_chains=3, seed=5, thin=2)
    ours, theirs = alone.block(6), local.block(6)
    assert np.array_equal(ours.spins, theirs.spins)
    assert np.array_equal(ours.sample_stats["accepted"], theirs.sample_stats["accepted"])
    assert np.isnan(ours.sample_stats["swap_accepted"]).all()
    assert alone.round_trips.tolist() == [[0]] * 3


def test_wrong_arguments_are_refused():
    hamiltonian = mc.models.ising(L=3)
    for betas in ([0.1, 0.1], [0.1, 0.5, 0.3]):
        with pytest.raises(ValueError, match="rises or falls"):
            TemperingDriver(hamiltonian, betas)
    with pytest.raises(ValueError, match="rule=wolff"):
        TemperingDriver(hamiltonian, BETAS, rule="wolff")
    driver = TemperingDriver(hamiltonian, BETAS)
    state = driver.state()
    state["holder"][:] = 0
    with pytest.raises(ValueError, match="holder"):
        driver.restore(state)
