"""Block moves: exact laws with environments that are deliberately poor, exact acceptance with those that are not."""

from functools import cache

import numpy as np
import pytest

import mc
from mc.square import square_couplings
from nmcmc.block_move import (
    ACCEPT,
    FLIP,
    ROW,
    SPINS,
    BlockDriver,
    block_moves,
    block_refusal,
    numbers_a_move,
    redraw,
    seconds_a_move,
)
from tests.enumerated import FALSE_ALARM, all_states, chi_square_p, combined_p_value, law, state_numbers

# Hamiltonian, betas. Lx columns, Ly rows. A bond of 1 cuts all environments short but those of the column.
MODELS = {
    "+-J, 3x3": (lambda: mc.models.ea2d(L=3, seed=5), (0.4, 0.9)),
    "Gaussian, 3x4": (lambda: mc.models.ea2d(Lx=3, Ly=4, J="gaussian", seed=3), (0.5, 1.0)),
    "Gaussian in a field, 4x3": (
        lambda: mc.models.ea2d(Lx=4, Ly=3, J="gaussian", h="gauss:0.2", seed=6), (0.5, 1.0)),
    "+-J in a field, 3x4": (lambda: mc.models.ea2d(Lx=3, Ly=4, h=0.3, seed=2), (0.5, 1.0)),
    "ferromagnet, 4x4": (lambda: mc.models.ising(L=4), (0.3, 0.5)),
    "Gaussian cylinder in a field, 4x4": (
        lambda: mc.models.ea2d(L=4, J="gaussian", h="gauss:0.3", boundary="open,periodic", seed=4), (0.6, 1.0)),
    "column, 1x5": (
        lambda: mc.models.ea2d(Lx=1, Ly=5, J="gaussian", boundary="open,periodic", seed=4), (0.7, 1.5)),
}  # fmt: skip
EXACT = 8  # a bond that cuts no environment of these sizes


@cache
def made(name):
    build, betas = MODELS[name]
    return build(), np.array(betas)


def drawn_from_the_law(hamiltonian, betas, n, seed):
    """Independent states (n, beta, N) of the target."""
    rng = np.random.default_rng(seed)
    columns = []
    for beta in betas:
        states, p = law(hamiltonian, beta)
        columns.append(states[rng.choice(len(p), n, p=p)])
    return np.stack(columns, axis=1)


def poor(name):
    """A bond of 1 is not exact."""
    return not name.startswith("column")


@pytest.mark.statistical
@pytest.mark.parametrize("name", MODELS)
def test_moves_keep_the_law_of_the_target(name):
    # Chains start from the target and are independent, so their states after two moves are draws of it. 2 seeds,
    # 2 betas, combined; false alarm 1e-4.
    hamiltonian, betas = made(name)
    p_values, accepted = [], []
    for seed in (1, 2):
        start = drawn_from_the_law(hamiltonian, betas, 1500, seed)
        block = BlockDriver(hamiltonian, betas, 1500, seed, 1, start).block(2)
        accepted.append(block.sample_stats["accepted"].mean())
        for b, beta in enumerate(betas):
            p = law(hamiltonian, beta)[1]
            counts = np.bincount(state_numbers(block.spins[:, 1, b]), minlength=len(p))
            p_values.append(chi_square_p(counts, p, 1500))
    assert not poor(name) or 0.2 < np.mean(accepted) < 0.985, accepted
    assert combined_p_value(p_values) > FALSE_ALARM, np.round(p_values, 5)


def distance_left(hamiltonian, beta, n):
    """Total variation distance to the target after n ideal moves from random spins: rows from the exact law."""
    states, p = law(hamiltonian, beta)
    height = hamiltonian.lattice.shape[0]
    rows = [state_numbers(states.reshape(len(states), height, -1)[:, r]) for r in range(height)]
    turned, now = state_numbers(-states), np.full(len(p), 1 / len(p))
    for _ in range(n):
        now = (now + now[turned]) * p / (p + p[turned])
        now = sum(p * (np.bincount(row, weights=now) / np.bincount(row, weights=p))[row] for row in rows) / height
    return 0.5 * np.abs(now - p).sum()


@pytest.mark.statistical
def test_chains_from_random_spins_reach_the_target():
    # 3 seeds, 2 betas, combined; false alarm 1e-4. The first move is free.
    hamiltonian, betas = made("+-J, 3x3")
    n, p_values = 12, []
    assert distance_left(hamiltonian, betas[1], 1) > 0.05
    assert distance_left(hamiltonian, betas[1], n) < 0.005
    for seed in (4, 5, 6):
        driver = BlockDriver(hamiltonian, betas, 500, seed, 1)
        assert (driver.block(1).sample_stats["accepted"] == 1.0).all()
        driver.warm_up(n - 2)
        spins = driver.block(1).spins[:, 0]
        for b, beta in enumerate(betas):
            p = law(hamiltonian, beta)[1]
            p_values.append(chi_square_p(np.bincount(state_numbers(spins[:, b]), minlength=len(p)), p, 500))
    assert combined_p_value(p_values) > FALSE_ALARM, np.round(p_values, 5)


@pytest.mark.statistical
def test_the_global_turn_in_a_field_is_the_heat_bath_one():
    # A ferromagnet in a weak field, whose rows alone would hardly ever turn: half the chains start up, half down.
    hamiltonian, beta = mc.models.ising(L=4, h=0.02), 1.0
    start = np.where(np.arange(2000)[:, None] < 1000, 1, -1) * np.ones(16, np.int8)
    block = BlockDriver(hamiltonian, np.array([beta]), 2000, 3, 1, start[:, None]).block(1)
    up = (block.posterior["magnetization"] > 0).mean()
    chance = 1.0 / (1.0 + np.exp(-2 * beta * 16 * 0.02))
    assert abs(up - chance) < 4.5 * np.sqrt(chance * (1 - chance) / 2000)  # false alarm 7e-6


def strips_of(couplings, beta, n):
    return [np.repeat(beta * g[None], n, axis=0) for g in (couplings.right, couplings.down, couplings.field)]


@pytest.mark.parametrize("name", ["+-J, 3x3", "Gaussian in a field, 4x3"])
@pytest.mark.parametrize("chi", [1, EXACT])
def test_q_is_a_law_of_the_rest_for_each_kept_row_and_tends_to_the_exact_one(name, chi):
    hamiltonian, betas = made(name)
    couplings = square_couplings(hamiltonian).rolled(1)
    (height, width), beta = couplings.shape, betas[1]
    states, p = law(hamiltonian, beta)
    states = np.roll(states.reshape(-1, height, width), -1, axis=1)
    uniform = np.random.default_rng(1).random((len(states), height - 1, width))
    new, log_q = redraw(*strips_of(couplings, beta, len(states)), states, uniform, True, chi)
    assert (new[:, 0] == states[:, 0]).all()
    assert set(np.unique(new)) == {-1, 1}
    row, q = state_numbers(states[:, 0]), np.exp(log_q[:, 1])
    assert np.bincount(row, weights=q) == pytest.approx(1.0, abs=1e-12)
    exact = p / np.bincount(row, weights=p)[row]
    assert (np.abs(q / exact - 1).max() < 1e-9) == (chi == EXACT)
    # what drew the new rows is what scores them
    scored = dict(zip(state_numbers(states.reshape(len(states), -1)), log_q[:, 1], strict=True))
    again = [scored[number] for number in state_numbers(new.reshape(len(states), -1))]
    assert np.abs(log_q[:, 0] - again).max() < 1e-11


@pytest.mark.statistical
def test_new_rows_follow_the_uniform_numbers_with_the_law_that_is_reported():
    # 4000 draws given one row, counted against the enumerated q. False alarm 1e-4.
    hamiltonian, betas = made("Gaussian in a field, 4x3")
    couplings = square_couplings(hamiltonian)
    states = all_states(12).reshape(-1, 3, 4)
    states = states[state_numbers(states[:, 0]) == 6]
    uniform = np.random.default_rng(2).random((4096, 2, 4))
    log_q = redraw(*strips_of(couplings, betas[1], len(states)), states, uniform[: len(states)], True, 1)[1][:, 1]
    start = np.repeat(states[:1], 4096, axis=0)
    new = redraw(*strips_of(couplings, betas[1], 4096), start, uniform, True, 1)[0]
    counts = np.bincount(state_numbers(new[:, 1:].reshape(-1, 8)), minlength=256)
    order = state_numbers(states[:, 1:].reshape(-1, 8))
    q = np.empty(256)
    q[order] = np.exp(log_q)
    assert chi_square_p(counts, q, 4096) > FALSE_ALARM


@pytest.mark.parametrize("name", MODELS)
def test_exact_environments_are_always_accepted(name):
    hamiltonian, betas = made(name)
    stats = BlockDriver(hamiltonian, betas, 8, 7, EXACT, init="up").block(6).sample_stats
    assert np.abs(stats["log_ratio"]).max() < 1e-10
    poorly = BlockDriver(hamiltonian, betas, 8, 7, 1, init="up").block(6).sample_stats
    assert (np.abs(poorly["log_ratio"]).max() > 1e-3) == poor(name)


@pytest.mark.parametrize("name", MODELS)
def test_series_are_those_of_the_state_that_stays(name):
    hamiltonian, betas = made(name)
    driver = BlockDriver(hamiltonian, betas, 20, 3, 1)
    driver.warm_up(1)
    block = driver.block(25)
    stats, spins = block.sample_stats, block.spins
    assert spins.shape == (20, 25, 2, hamiltonian.n_spins)
    assert block.posterior["energy"] == pytest.approx(hamiltonian.energy(spins), abs=1e-12)
    assert block.posterior["magnetization"] == pytest.approx(spins.mean(axis=-1))
    assert set(np.unique(stats["accepted"])) <= {0.0, 1.0}
    assert (stats["accepted"][stats["log_ratio"] > 0] == 1.0).all()
    overlap = (spins[:, 1:].astype(int) * spins[:, :-1]).sum(axis=-1)
    rejected = stats["accepted"][:, 1:] == 0.0
    assert rejected.any() == poor(name)
    assert (np.abs(overlap[rejected]) == hamiltonian.n_spins).all()
    # the kept row: some row of every move is the old one, up to the global flip
    height = hamiltonian.lattice.shape[0]
    rows = spins.reshape(*spins.shape[:3], height, -1).astype(int)
    rows = np.abs((rows[:, 1:] * rows[:, :-1]).sum(axis=-1)).max(axis=-1)
    assert (rows == hamiltonian.lattice.shape[1]).all()


def test_acceptance_follows_the_formula_number_by_number():
    hamiltonian, betas = made("Gaussian in a field, 4x3")
    couplings, beta = square_couplings(hamiltonian), betas[1]
    height, width = couplings.shape
    rng = np.random.default_rng(3)
    old = all_states(hamiltonian.n_spins)[rng.integers(2**hamiltonian.n_spins, size=60)]
    uniform = rng.random((60, numbers_a_move(couplings)))
    moves = block_moves(hamiltonian, couplings, beta, old, uniform, 1)
    turned = uniform[:, FLIP] < 1 / (1 + np.exp(beta * (hamiltonian.energy(-old) - hamiltonian.energy(old))))
    assert 0 < turned.sum() < 60
    old[turned] *= -1
    for chain in range(60):
        kept = int(uniform[chain, ROW] * height)
        rows = np.roll(old[chain].reshape(1, height, width), -kept, axis=1)
        draws = uniform[chain, SPINS:].reshape(1, height - 1, width)
        new, log_q = redraw(*strips_of(couplings.rolled(kept), beta, 1), rows, draws, True, 1)
        new = np.roll(new, kept, axis=1).reshape(-1)
        log_p = -beta * hamiltonian.energy(np.stack((new, old[chain])))
        ratio = log_p[0] - log_q[0, 0] - log_p[1] + log_q[0, 1]
        assert moves.log_ratio[chain] == pytest.approx(ratio, abs=1e-6)
        taken = uniform[chain, ACCEPT] < np.exp(ratio)
        assert moves.accepted[chain] == taken
        assert (moves.spins[chain] == (new if taken else old[chain])).all()


def joined(blocks):
    """All arrays of consecutive blocks."""
    series = {
        key: np.concatenate([getattr(block, group)[key] for block in blocks], axis=1)
        for group in ("posterior", "sample_stats")
        for key in getattr(blocks[0], group)
    }
    spins = np.concatenate([block.spins for block in blocks], axis=1)
    return series | {"spins": spins, "spin_draws": np.concatenate([block.spin_draws for block in blocks])}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for key, values in one.items():
        assert values.dtype == other[key].dtype
        assert np.array_equal(values, other[key]), key


@pytest.mark.parametrize("name", ["Gaussian, 3x4", "+-J in a field, 3x4"])
def test_blocks_may_be_cut_anywhere_and_restored_elsewhere_bit_for_bit(name):
    hamiltonian, betas = made(name)

    def make():
        return BlockDriver(hamiltonian, betas, 3, 4, 1, spins_every=3)

    driver = make()
    driver.warm_up(2)
    whole = joined([driver.block(9)])
    assert whole["spin_draws"].tolist() == [0, 3, 6]
    assert whole["spins"].shape == (3, 3, 2, hamiltonian.n_spins)
    driver = make()
    driver.warm_up(1)
    driver.warm_up(1)
    assert_same(joined([driver.block(n) for n in (2, 1, 6)]), whole)
    driver = make()
    driver.warm_up(2)
    blocks = []
    for n in (4, 0, 1, 4):
        blocks.append(driver.block(n))
        state = driver.state()
        driver.block(1)  # must not change the state that was handed out
        driver = make()
        driver.restore(state)
    assert_same(joined(blocks), whole)


def test_random_numbers_depend_on_seed_chain_beta_and_step_only():
    hamiltonian, betas = made("Gaussian, 3x4")
    two, five = (BlockDriver(hamiltonian, betas, n, 8, 2).block(6) for n in (2, 5))
    assert (two.spins == five.spins[:2]).all()
    one_beta = BlockDriver(hamiltonian, betas[:1], 2, 8, 2, init=hamiltonian.n_spins * [1]).block(3)
    both = BlockDriver(hamiltonian, betas, 2, 8, 2, init="up").block(3)
    assert (one_beta.spins[:, :, 0] == both.spins[:, :, 0]).all()
    series = np.moveaxis(five.posterior["energy"], 1, -1).reshape(10, 6)
    assert len(np.unique(series, axis=0)) == 10
    other = BlockDriver(hamiltonian, betas, 5, 9, 2).block(6)
    assert (other.posterior["energy"] != five.posterior["energy"]).any()


def test_no_spins_are_kept_where_none_are_wanted():
    hamiltonian, betas = made("+-J, 3x3")
    block = BlockDriver(hamiltonian, betas, 2, spins_every=0).block(2)
    assert block.spins.shape == (2, 0, 2, 9)
    assert block.posterior["energy"].shape == (2, 2, 2)


def test_moves_of_a_glass_that_is_frozen_for_single_spins_are_accepted():
    hamiltonian = mc.models.ea2d(L=12, seed=1)
    driver = BlockDriver(hamiltonian, np.array([3.0]), 2, 1, 8)
    driver.warm_up(3)
    block = driver.block(5)
    assert block.sample_stats["accepted"].mean() > 0.7
    assert (block.posterior["energy"] <= -1.3 * 144).all()


@pytest.mark.parametrize(
    ("build", "problem"),
    [
        (lambda: mc.models.ea2d(L=4, boundary="open"), "y axis is open"),
        (lambda: mc.models.ising(L=4, boundary="periodic,open"), "y axis is open"),
        (lambda: mc.models.ising(L=3, dim=3), "two-dimensional"),
        (lambda: mc.models.sk(N=9), "two-dimensional"),
    ],
)
def test_refusals_say_what_is_needed(build, problem):
    hamiltonian = build()
    assert problem in block_refusal(hamiltonian)
    with pytest.raises(ValueError, match=problem):
        BlockDriver(hamiltonian, np.array([0.5]))


def test_wrong_arguments_and_states_are_refused():
    hamiltonian, betas = made("+-J, 3x3")
    assert block_refusal(hamiltonian) == ""
    for wrong in (dict(chi=0), dict(n_chains=0), dict(spins_every=-1), dict(init="down"), dict(init=np.zeros(9))):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            BlockDriver(hamiltonian, betas, **wrong)
    state = BlockDriver(hamiltonian, betas, 3).state()
    with pytest.raises(ValueError, match="spins"):
        BlockDriver(hamiltonian, betas, 4).restore(state)


def test_the_time_of_a_move_is_measured():
    assert 0 < seconds_a_move(made("+-J, 3x3")[0], 0.5, 2, 2) < 10
