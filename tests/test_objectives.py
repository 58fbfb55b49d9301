"""Objectives: their gradients against sums over all states, and the moves of self-distillation."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import mc
from mc.symmetry import LatticeSymmetries
from nmcmc.objectives import OBJECTIVES, Likelihood, ReverseKL, RewardToGo, SelfDistillation, SoftLikelihood
from nmcmc.objectives import reverse_kl as reverse_kl_module
from nmcmc.objectives.base import Batch, StepRandomness
from nmcmc.recipe import NetSettings, build_sampler
from tests.enumerated import FALSE_ALARM, all_states, chi_square_p, combined_p_value, law, state_numbers

BETA = 0.6


def fields_4():
    """Four spins with fields and a triple: no Z2 symmetry."""
    bonds = (np.array([[0, 1], [1, 2], [2, 3], [0, 3]]), np.array([0.7, -0.4, 0.9, 0.5]))
    triple = (np.array([[0, 2, 3]]), np.array([-0.6]))
    return mc.Hamiltonian(4, [(np.array([[0], [3]]), np.array([0.3, -0.5])), bonds, triple])


SYSTEMS = {
    "SK": (lambda: mc.models.sk(N=6, seed=2), (2,)),
    "four spins with fields": (fields_4, (2,)),
    "glass 3x2 with fields": (
        lambda: mc.models.ea2d(Lx=3, Ly=2, J="gaussian", h="gauss:0.5", boundary="open", seed=1), (1, 3)),
    "p-spin": (lambda: mc.models.pspin(N=6, p=3, seed=4), (2,)),
    "ising 3x3 torus": (lambda: mc.models.ising(L=3), (1, 3)),
}  # fmt: skip
SMALL_CASES = [(system, head) for system in SYSTEMS for head in ("tree", "softmax") if system != "ising 3x3 torus"]


def random_sampler(system, head="tree", prior=None):
    """A sampler with random weights."""
    build, patch = SYSTEMS[system]
    net = NetSettings(patch=patch, prior=prior, head=head, width=8, heads=2)
    sampler = build_sampler(build(), BETA, net)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in sampler.network.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return sampler


def states_of(sampler):
    return torch.from_numpy(all_states(sampler.tokens.n_spins)).float()


def gradient(sampler, loss):
    """Gradient of a scalar with respect to all weights, one vector."""
    parameters = list(sampler.network.parameters())
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    parts = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]
    return torch.cat([part.flatten() for part in parts]).double()


def exact_gradient_of_beta_f(sampler):
    """Gradient of < ln q + beta E >_q, the sum over all states taken by autograd."""
    states = states_of(sampler)
    log_q = sampler.token_log_probs(states).sum(1)
    copies = 2.0 if sampler.canonical else 1.0  # both of a pair of flipped states carry the canonical ln q
    energy = torch.from_numpy(sampler.hamiltonian.energy(states.numpy()))
    return gradient(sampler, (log_q.exp() / copies * (log_q + sampler.beta * energy)).sum())


def batch_of(objective, spins, monkeypatch):
    """The objective's batch, had the sampler drawn `spins`."""
    with torch.no_grad():
        log_q = objective.sampler.token_log_probs(spins)
    monkeypatch.setattr(reverse_kl_module, "draw_in_parts", lambda sampler, n, generator: (spins, log_q))
    return objective.batch(len(spins), SimpleNamespace(torch=None, numpy=None))


def assert_parallel(found, expected, tolerance):
    assert expected.norm() > 1e-3
    assert (found - expected).norm() < tolerance * expected.norm()


@pytest.mark.parametrize("head", ["tree", "softmax"])
def test_reverse_kl_gradient_has_the_exact_mean_over_all_pairs_of_states(head, monkeypatch):
    # The mean over the batch is its own baseline, which takes a share 1/n off: with n = 2, one half.
    sampler = random_sampler("four spins with fields", head)
    objective = ReverseKL(sampler)
    states = states_of(sampler)
    with torch.no_grad():
        q = sampler.token_log_probs(states).sum(1).exp()
    assert q.sum().item() == pytest.approx(1.0, abs=1e-6)
    mean = 0.0
    for a in range(16):
        for b in range(a):
            batch = batch_of(objective, states[[a, b]], monkeypatch)
            mean = mean + 2 * q[a] * q[b] * gradient(sampler, objective.loss(batch) / 2)
    assert_parallel(mean, exact_gradient_of_beta_f(sampler) / 2, 1e-4)


@pytest.mark.parametrize("kind", [ReverseKL, RewardToGo])
@pytest.mark.parametrize(("system", "head"), SMALL_CASES)
def test_reverse_kl_and_reward_to_go_have_the_exact_gradient_in_a_large_batch(system, head, kind, monkeypatch):
    # Every state as often as q says, up to rounding.
    sampler = random_sampler(system, head)
    objective = kind(sampler)
    states = states_of(sampler)
    with torch.no_grad():
        q = sampler.token_log_probs(states).sum(1).exp() / (2.0 if sampler.canonical else 1.0)
    counts = (40_000 * q).round().long()
    repeated = states.repeat_interleave(counts, 0)
    batch = batch_of(objective, repeated, monkeypatch)
    # Equal states have equal advantages: one of each, with its weight, stands for all.
    first = counts.cumsum(0)[counts > 0] - 1
    one_each = Batch(batch.spins[first], batch.advantage[first] * counts[counts > 0, None])
    found = gradient(sampler, objective.loss(one_each) / len(repeated))
    assert_parallel(found, exact_gradient_of_beta_f(sampler), 3e-3)


@pytest.mark.parametrize("kind", [ReverseKL, RewardToGo])
@pytest.mark.parametrize("system", SYSTEMS)
def test_drawn_batch_carries_the_advantages_of_its_own_states(system, kind):
    sampler = random_sampler(system)
    sampler.max_batch = 30
    objective = kind(sampler)
    batch = objective.batch(100, StepRandomness.of(1, 2))
    spins = batch.spins.numpy()
    assert spins.shape == (100, sampler.tokens.n_spins)
    total = sampler.log_prob(spins) + BETA * sampler.hamiltonian.energy(spins)
    total -= total.mean()
    advantage = batch.advantage.numpy()
    assert advantage.shape == (100, sampler.tokens.n_tokens)
    assert advantage[:, 0] == pytest.approx(total, abs=1e-5)  # nothing is past: the full sum either way
    if kind is ReverseKL:
        assert advantage == pytest.approx(np.repeat(total[:, None], sampler.tokens.n_tokens, 1), abs=1e-5)
    assert advantage.mean(0) == pytest.approx(np.zeros(sampler.tokens.n_tokens), abs=1e-9)
    part = batch.part(slice(10, 30))
    assert torch.equal(part.spins, batch.spins[10:30])
    assert torch.equal(part.advantage, batch.advantage[10:30])


def test_reward_to_go_is_uncorrelated_with_the_past():
    # c_j is the regression coefficient, so what is left of the reward to go has no linear part in the past.
    objective = RewardToGo(random_sampler("SK"))
    terms = torch.randn(500, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).cumsum(1)
    advantage = objective.advantages(terms)
    past = terms.cumsum(1) - terms
    past = past - past.mean(0)
    assert (advantage * past).mean(0).abs().max() < 1e-9
    assert advantage[:, 1:].var(0).mean() < terms.sum(1).var()


@pytest.mark.parametrize("kind", [ReverseKL, RewardToGo])
def test_advantages_vanish_at_the_optimum(kind):
    # One token of all spins and the local prior: q = p exactly.
    sampler = build_sampler(mc.models.sk(N=6, h=0.3, seed=1), BETA, NetSettings(patch=(6,), prior="local", width=8))
    batch = kind(sampler).batch(200, StepRandomness.of(3, 0))
    assert batch.advantage.abs().max() < 2e-5


def weighted_gradient(sampler, objective, weights):
    """Sum over all states of weight times the gradient of the loss of that state alone."""
    states = states_of(sampler)
    total = 0.0
    for state, weight in zip(states, weights, strict=True):
        total = total + float(weight) * gradient(sampler, objective.loss(Batch(state[None])))
    return total


@pytest.mark.parametrize(("system", "head"), SMALL_CASES)
def test_soft_and_hard_labels_have_the_same_mean_gradient_under_the_exact_law(system, head):
    sampler = random_sampler(system, head)
    states, p = law(sampler.hamiltonian, BETA)
    hard = weighted_gradient(sampler, Likelihood(sampler, states), p)
    soft = weighted_gradient(sampler, SoftLikelihood(sampler, states), p)
    assert_parallel(soft, hard, 2e-5)
    # Single states do differ.
    one = Batch(states_of(sampler)[:1])
    single = gradient(sampler, Likelihood(sampler, states).loss(one))
    assert (gradient(sampler, SoftLikelihood(sampler, states).loss(one)) - single).norm() > 0.1 * hard.norm()


@pytest.mark.parametrize("head", ["tree", "softmax"])
@pytest.mark.parametrize("system", ["SK", "p-spin"])
def test_likelihood_gradient_is_that_of_the_forward_divergence(system, head):
    sampler = random_sampler(system, head)
    states, p = law(sampler.hamiltonian, BETA)
    log_q = sampler.token_log_probs(states_of(sampler)).sum(1)
    expected = gradient(sampler, -(torch.from_numpy(p) * log_q).sum())
    assert_parallel(weighted_gradient(sampler, Likelihood(sampler, states), p), expected, 1e-5)


@pytest.mark.parametrize("name", ["likelihood", "soft-likelihood", "soft-distillation"])
@pytest.mark.parametrize("head", ["tree", "softmax"])
def test_loss_of_a_batch_is_the_sum_of_the_losses_of_its_states(name, head):
    sampler = random_sampler("SK", head)
    kind = OBJECTIVES[name]
    objective = kind(sampler) if name == "soft-distillation" else kind(sampler, all_states(6))
    batch = Batch(states_of(sampler)[::5])
    single = sum(objective.loss(batch.part(slice(i, i + 1))).item() for i in range(len(batch.spins)))
    assert objective.loss(batch).item() == pytest.approx(single, rel=1e-5)


def test_likelihood_learns_from_the_given_configurations_only():
    sampler = random_sampler("SK")
    given = all_states(6)[[3, 17, 40]]
    for kind in (Likelihood, SoftLikelihood):
        batch = kind(sampler, given).batch(60, StepRandomness.of(0, 0))
        assert batch.advantage is None
        assert set(state_numbers(batch.spins.numpy()).tolist()) == {3, 17, 40}
        for nothing in (None, given[:0]):
            with pytest.raises(ValueError, match=r"train\.data"):
                kind(sampler, nothing)


def test_random_numbers_of_a_step_depend_on_seed_and_step_only():
    def numbers(seed, step):
        randomness = StepRandomness.of(seed, step)
        return torch.rand(3, generator=randomness.torch).tolist() + randomness.numpy.random(3).tolist()

    assert numbers(1, 5) == numbers(1, 5)
    assert len({tuple(numbers(seed, step)) for seed in range(3) for step in range(5)}) == 15


@pytest.mark.statistical
@pytest.mark.parametrize("system", SYSTEMS)
def test_the_target_is_a_fixed_point_of_the_moves_of_self_distillation(system):
    # 3 x 10000 exact states stay exact; false alarm 1e-4 a system.
    objective = SelfDistillation(random_sampler(system), sweeps=2)
    states, p = law(objective.sampler.hamiltonian, BETA)
    p_values = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        before = states[rng.choice(len(p), size=10_000, p=p)]
        after = objective.moved(before.copy(), rng)
        assert after.shape == before.shape
        assert after.dtype == np.int8
        assert (after != before).any(axis=1).mean() > 0.1
        p_values.append(chi_square_p(np.bincount(state_numbers(after), minlength=len(p)), p, len(after)))
    assert combined_p_value(p_values) > FALSE_ALARM, np.round(p_values, 5)


@pytest.mark.statistical
def test_moves_of_self_distillation_bring_wrong_states_nearer_to_the_target():
    # Else the fixed point would say nothing: from all spins up, 40 sweeps reach the law. False alarm 1e-4.
    objective = SelfDistillation(random_sampler("glass 3x2 with fields"), sweeps=40)
    _, p = law(objective.sampler.hamiltonian, BETA)
    after = objective.moved(np.ones((10_000, 6), np.int8), np.random.default_rng(1))
    assert chi_square_p(np.bincount(state_numbers(after), minlength=64), p, 10_000) > FALSE_ALARM


def test_self_distillation_batch_is_reproducible_and_made_of_spins():
    objective = SelfDistillation(random_sampler("ising 3x3 torus"))
    one, same, other = (objective.batch(50, StepRandomness.of(1, step)).spins for step in (4, 4, 5))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert set(one.unique().tolist()) == {-1.0, 1.0}


AXES = {
    "ising 4x4 torus": (lambda: mc.models.ising(L=4), [0, 1], [0, 1], [[1, 0]]),
    "ising 4x4 torus in a field": (lambda: mc.models.ising(L=4, h=0.3), [0, 1], [0, 1], [[1, 0]]),
    "antiferromagnet 5x5 torus": (lambda: mc.models.ising(L=5, J=-1.0), [0, 1], [0, 1], [[1, 0]]),
    "ising 4x4 open": (lambda: mc.models.ising(L=4, boundary="open"), [], [0, 1], [[1, 0]]),
    "ising 4x4 periodic in x": (lambda: mc.models.ising(L=4, boundary="periodic,open"), [1], [0, 1], []),
    "ising 4x8 torus": (lambda: mc.models.ising(Lx=8, Ly=4), [0, 1], [0, 1], []),
    "ising 3x3x3 torus": (
        lambda: mc.models.ising(L=3, dim=3), [0, 1, 2], [0, 1, 2], [[1, 0, 2], [2, 1, 0], [0, 2, 1]]),
    "ising 3x3x4, periodic in x and y": (
        lambda: mc.models.ising(Lx=3, Ly=3, Lz=4, boundary="periodic,periodic,open"), [1, 2], [0, 1, 2], [[0, 2, 1]]),
    "glass 4x4 torus": (lambda: mc.models.ea2d(L=4, seed=1), [], [], []),
    "gaussian glass 3x3x3": (lambda: mc.models.ea3d(L=3, J="gaussian", seed=1), [], [], []),
    "ising 4x4 torus in random fields": (lambda: mc.models.ising(L=4, h="gauss:0.1", seed=1), [], [], []),
    "SK": (lambda: mc.models.sk(N=8, seed=1), [], [], []),
}  # fmt: skip


@pytest.mark.parametrize("name", AXES)
def test_symmetries_of_the_box_are_found_exactly_and_keep_every_energy(name):
    build, translations, reflections, exchanges = AXES[name]
    hamiltonian = build()
    found = LatticeSymmetries(hamiltonian)
    assert found.translations == translations
    assert found.reflections == reflections
    assert sorted(found.exchanges) == sorted(exchanges)
    assert found.trivial == (not translations and not reflections and not exchanges)
    if found.trivial:
        return
    rng = np.random.default_rng(1)
    maps = found.random_sites(200, rng)
    assert (np.sort(maps, axis=1) == np.arange(hamiltonian.n_spins)).all()
    spins = rng.choice(np.array([-1, 1], np.int8), size=(200, hamiltonian.n_spins))
    moved = np.take_along_axis(spins, maps, axis=1)
    assert hamiltonian.energy(moved) == pytest.approx(hamiltonian.energy(spins), abs=1e-9)
    assert (moved != spins).any()


@pytest.mark.statistical
def test_all_128_symmetries_of_the_4x4_torus_are_dealt_equally_often():
    # False alarm 1e-4.
    maps = LatticeSymmetries(mc.models.ising(L=4)).random_sites(20_000, np.random.default_rng(2))
    different, counts = np.unique(maps, axis=0, return_counts=True)
    assert len(different) == 128
    assert chi_square_p(counts, np.full(128, 1 / 128), 20_000) > FALSE_ALARM


# Bug: Hamiltonian.permuted does not hand on k_B, which enters the fingerprint.
def test_symmetries_are_found_in_electron_volts_too():
    torus = mc.models.ising(L=4)
    physical = mc.Hamiltonian(16, torus.interactions, 0.0, torus.lattice, energy_unit="eV", k_B=8.617330e-5)
    assert LatticeSymmetries(physical).translations == [0, 1]
