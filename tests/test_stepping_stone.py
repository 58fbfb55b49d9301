"""Stepping stones against exact ln Z: independent draws of enumerated laws, correlated ones, and tempering."""

import math

import numpy as np
import pytest
from scipy import stats

import mc
from mc.exact.enumeration import enumerate_exact
from mc.stepping_stone import stepping_stones
from tests.enumerated import FALSE_ALARM, all_states

BETAS = np.array([0.0, 0.25, 0.5, 0.8, 1.2])
N = 9
LN2 = math.log(2.0)  # ln of the number of states of one spin


def glass(seed):
    """A Gaussian glass in a field, with a constant."""
    bare = mc.models.ea2d(L=3, J="gaussian", h=0.2, seed=seed)
    return mc.Hamiltonian(N, bare.interactions, constant=1.5)


def law_of_energy(hamiltonian, beta):
    energies = hamiltonian.energy(all_states(hamiltonian.n_spins))
    weights = np.exp(-beta * (energies - energies.min()))
    return energies, weights / weights.sum()


def independent(hamiltonian, betas, shape, seed):
    """Energies (*shape, betas) of independent draws."""
    random = np.random.default_rng(seed)
    columns = []
    for beta in betas:
        energies, p = law_of_energy(hamiltonian, beta)
        columns.append(random.choice(energies, size=shape, p=p))
    return np.stack(columns, axis=-1)


def tempered(hamiltonian, betas, chains, draws, seed):
    """Energies (chain, draw, beta) of Metropolis ladders that start in equilibrium; a third of a sweep, swaps."""
    random = np.random.default_rng(seed)
    laws = [law_of_energy(hamiltonian, beta) for beta in betas]
    energies = laws[0][0]
    states = np.stack([random.choice(len(p), size=chains, p=p) for _, p in laws], axis=1)
    found = np.empty((chains, draws, len(betas)))
    for draw in range(draws):
        for _ in range(hamiltonian.n_spins // 3):
            other = states ^ (1 << random.integers(hamiltonian.n_spins, size=states.shape))
            cost = betas * (energies[other] - energies[states])
            states = np.where(random.random(states.shape) < np.exp(-np.maximum(cost, 0.0)), other, states)
        for b in range(draw % 2, len(betas) - 1, 2):
            gain = (betas[b + 1] - betas[b]) * (energies[states[:, b + 1]] - energies[states[:, b]])
            swap = random.random(chains) < np.exp(np.minimum(gain, 0.0))
            states[swap, b : b + 2] = states[swap, b : b + 2][:, ::-1]
        found[:, draw] = energies[states]
    return found


def exact(hamiltonian, betas):
    """ln Z and entropy (B,)."""
    results = [enumerate_exact(hamiltonian, beta) for beta in betas]
    log_z = np.array([result.log_z for result in results])
    return log_z, log_z + betas * np.array([result.energy for result in results])


def chi_square_of(z):
    """p-value of independent standard normal numbers: too large and too small errors both tell."""
    chi2 = stats.chi2(len(z))
    return 2 * min(chi2.sf(np.sum(np.square(z))), chi2.cdf(np.sum(np.square(z))))


@pytest.mark.statistical
def test_log_z_and_entropy_of_independent_draws():
    # 60 ladders; errors 15 % too small or large would show. False alarm 1e-4.
    z, z_entropy, z_middle, gaps = [], [], [], []
    for seed in range(60):
        hamiltonian = glass(seed)
        stones = stepping_stones(independent(hamiltonian, BETAS, (4, 500), seed), BETAS, N * LN2)
        log_z, entropy = exact(hamiltonian, BETAS)
        assert stones.absolute
        assert (stones.log_z[0], stones.error[0]) == (N * math.log(2), 0.0)
        assert stones.entropy[0] == pytest.approx(N * math.log(2))
        assert "poor overlap" not in stones.status
        assert (stones.error < 0.15).all()
        z.append((stones.log_z[-1] - log_z[-1]) / stones.error[-1])
        z_middle.append((stones.log_z[2] - log_z[2]) / stones.error[2])
        z_entropy.append((stones.entropy[-1] - entropy[-1]) / stones.entropy_error[-1])
        gaps.append(stones.gap[0])
    p_values = [chi_square_of(values) for values in (z, z_middle, z_entropy, gaps)]
    assert min(p_values) > FALSE_ALARM / 4, p_values
    for values in (z, z_entropy):
        assert abs(np.mean(values)) < 4 / math.sqrt(len(values))  # no bias: 6e-5


@pytest.mark.statistical
def test_correlated_draws_have_the_error_of_the_fresh_ones():
    fresh = independent(glass(1), BETAS, (4, 1000), 1)
    stones, slow = (stepping_stones(x, BETAS, N * LN2) for x in (fresh, np.repeat(fresh, 10, axis=1)))
    assert slow.log_z == pytest.approx(stones.log_z, abs=1e-12)
    assert slow.error[1:] == pytest.approx(stones.error[1:], rel=0.3)  # the error of tau_int: a tenth
    assert slow.entropy_error[1:] == pytest.approx(stones.entropy_error[1:], rel=0.3)


@pytest.mark.statistical
def test_log_z_of_tempering():
    # Swaps carry fluctuations from one temperature to the next. 30 ladders, false alarm 1e-4.
    hamiltonian = glass(2)
    log_z = exact(hamiltonian, BETAS)[0]
    energies = tempered(hamiltonian, BETAS, 60, 1000, seed=7)
    z = []
    for first in range(0, 60, 2):
        stones = stepping_stones(energies[first : first + 2], BETAS, N * LN2)
        z.append((stones.log_z[-1] - log_z[-1]) / stones.error[-1])
    assert chi_square_of(z) > FALSE_ALARM, z


def test_any_order_of_betas():
    draws = independent(glass(3), BETAS, (2, 200), 3)
    stones = stepping_stones(draws, BETAS, N * LN2)
    for order in ([4, 3, 2, 1, 0], [2, 0, 4, 1, 3]):
        other = stepping_stones(draws[:, :, order], BETAS[order], N * LN2)
        for name in ("beta", "log_z", "error", "entropy", "entropy_error", "free_energy"):
            assert np.array_equal(getattr(other, name), getattr(stones, name)[order], equal_nan=True), name
        for name in ("forward", "backward", "gap", "effective_draws"):
            assert np.array_equal(getattr(other, name), getattr(stones, name)), name
        assert other.status == tuple(stones.status[b] for b in order)
    assert np.isnan(stones.free_energy[0])
    assert stones.free_energy[1:] == pytest.approx(-stones.log_z[1:] / BETAS[1:])
    assert np.diff(stones.log_z) == pytest.approx((stones.forward + stones.backward) / 2)


@pytest.mark.statistical
def test_without_beta_zero_only_differences_are_known():
    hamiltonian = glass(4)
    betas = BETAS[1:]
    stones = stepping_stones(independent(hamiltonian, betas, (4, 1000), 4), betas, N * LN2)
    assert not stones.absolute
    log_z = exact(hamiltonian, betas)[0]
    assert (stones.log_z[0], stones.error[0]) == (0.0, 0.0)
    assert abs(stones.log_z[-1] - (log_z[-1] - log_z[0])) < 4 * stones.error[-1] < 0.4
    assert np.isnan(stones.entropy).all()
    assert np.isnan(stones.free_energy).all()


@pytest.mark.statistical
def test_forward_is_low_and_backward_high_where_draws_are_few():
    # 300 ladders of 40 draws: Jensen's bias is several errors of its mean, and the average of both has less.
    hamiltonian, betas = glass(5), np.array([0.0, 0.4])
    log_z = exact(hamiltonian, betas)[0]
    found = [stepping_stones(independent(hamiltonian, betas, (1, 40), seed), betas, N * LN2) for seed in range(300)]
    forward, backward = (np.array([getattr(stones, name)[0] for stones in found]) for name in ("forward", "backward"))
    off = np.array([forward, backward, (forward + backward) / 2]) - (log_z[1] - log_z[0])
    mean, error = off.mean(axis=1), off.std(axis=1, ddof=1) / math.sqrt(300)
    assert mean[0] < -4 * error[0]
    assert mean[1] > 4 * error[1]
    assert abs(mean[2]) < min(-mean[0], mean[1])


@pytest.mark.statistical
@pytest.mark.parametrize("seed", range(5))
def test_poor_overlap_is_told_and_has_a_large_error(seed):
    # From beta = 0 straight to an ordered ferromagnet: none of 400 random states is anywhere near it.
    hamiltonian = mc.models.ising(L=4)
    betas = np.array([0.0, 0.2, 1.5])
    stones = stepping_stones(independent(hamiltonian, betas, (4, 100), seed), betas, 16 * LN2)
    off = np.abs(stones.log_z - exact(hamiltonian, betas)[0])
    assert stones.status[:2] == ("ok", "ok") or stones.status[1] == "short"
    assert stones.status[2] == "poor overlap"
    assert stones.effective_draws[1] < 20 or abs(stones.gap[1]) > 4
    assert stones.error[2] > 1
    assert off[2] < 3 * stones.error[2]
    assert stones.error[1] < 0.2


def test_energies_that_never_change_leave_no_error_and_no_gap():
    free = np.full((2, 50, 3), 2.0)
    stones = stepping_stones(free, [0.0, 0.1, 0.7], 5 * LN2)
    assert stones.log_z == pytest.approx(5 * math.log(2) - 2.0 * np.array([0.0, 0.1, 0.7]))
    assert (stones.error == 0).all()
    assert (stones.gap == 0).all()
    frozen = free.copy()
    frozen[:, :, 2] = -1.0  # two temperatures that share no state
    assert stepping_stones(frozen, [0.0, 0.1, 0.7], 5 * LN2).status[2] == "poor overlap"


def test_chains_in_different_wells_are_not_converged():
    energies = independent(glass(6), BETAS, (4, 500), 6)
    energies[:2, :, -1] += 30.0
    stones = stepping_stones(energies, BETAS, N * LN2)
    assert stones.status[-1] != "ok"
    assert stones.error[-1] > 10 * stones.error[-2]


def test_one_beta_and_wrong_input():
    assert stepping_stones(np.zeros((1, 5, 1)), [0.0], 3 * LN2).log_z == pytest.approx(3 * math.log(2))
    assert stepping_stones(np.zeros((1, 5, 1)), 0.3, 3 * LN2).log_z.tolist() == [0.0]
    for energy in (np.zeros((2, 5)), np.zeros((2, 5, 3)), np.zeros((2, 0, 2))):
        with pytest.raises(ValueError, match="energy: shape"):
            stepping_stones(energy, [0.0, 1.0], 3 * LN2)
    for betas in ([0.0, -1.0], [1.0, 1.0], [0.0, np.inf]):
        with pytest.raises(ValueError, match="betas="):
            stepping_stones(np.zeros((2, 5, 2)), betas, 3 * LN2)
    broken = np.zeros((2, 5, 2))
    broken[1, 2, 1] = np.nan
    with pytest.raises(ValueError, match="energy at beta=1"):
        stepping_stones(broken, [0.0, 1.0], 3 * LN2)
