"""Refinement: sweeps and short temperings that leave the enumerated law as it is, and gradients that use them."""

import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

import mc
from nmcmc.objectives import Refined, RefinedGradient
from nmcmc.objectives.base import StepRandomness
from nmcmc.recipe import NetSettings, build_sampler
from nmcmc.refine import Refiner, refine, tempered
from nmcmc.training import TrainSettings, training_step
from tests.enumerated import FALSE_ALARM, combined_p_value, law, law_p_value

MODELS = {
    "glass with fields": lambda: mc.models.sk(N=7, seed=4, h=0.3),
    "lattice": lambda: mc.models.ea2d(L=3, seed=2),
    "three-spin": lambda: mc.models.pspin(N=7, p=3, seed=1),
}


def drawn(hamiltonian, beta, n, seed):
    states, p = law(hamiltonian, beta)
    return states[np.random.default_rng(seed).choice(len(p), size=n, p=p)]


@pytest.mark.statistical
@pytest.mark.parametrize("name", MODELS)
def test_sweeps_leave_the_enumerated_law(name):
    # 4000 independent states a seed; false alarm 1e-4 for all of a model together.
    hamiltonian, p_values = MODELS[name](), []
    for seed, beta in ((1, 0.4), (2, 1.1)):
        spins = refine(hamiltonian, beta, drawn(hamiltonian, beta, 4000, seed), 3, seed)
        p_values.append(law_p_value(hamiltonian, beta, spins))
    assert combined_p_value(p_values) > FALSE_ALARM


@pytest.mark.statistical
def test_enough_sweeps_bring_any_state_to_the_law():
    hamiltonian = mc.models.sk(N=7, seed=4, h=0.3)
    spins = refine(hamiltonian, 0.5, np.ones((4000, 7), np.int8), 60, 3)
    assert law_p_value(hamiltonian, 0.5, spins) > FALSE_ALARM


@pytest.mark.statistical
def test_tempered_states_follow_the_law_from_one_valley():
    # Independent chains, one state of each; all start from one and the same state.
    hamiltonian, beta = mc.models.ea2d(L=3, J="gaussian", seed=5), 2.0
    spins = tempered(hamiltonian, beta, np.ones((1, 9), np.int8), 600, 100, 3, chains=600)[:, 0]
    assert law_p_value(hamiltonian, beta, spins) > FALSE_ALARM


def test_a_call_depends_on_its_generator_alone():
    hamiltonian, states = mc.models.ea3d(L=3, seed=1), np.ones((50, 27), np.int8)
    refiner = Refiner(hamiltonian)
    first = refiner(states, 0.7, 3, np.random.default_rng(5))
    refiner(-states, 2.0, 7, np.random.default_rng(1))
    refiner(states[:3], 2.0, 7, np.random.default_rng(1))
    assert np.array_equal(refiner(states, 0.7, 3, np.random.default_rng(5)), first)
    assert np.array_equal(refine(hamiltonian, 0.7, states, 3, 5), first)
    assert not np.array_equal(refine(hamiltonian, 0.7, states, 3, 6), first)
    assert (states == 1).all()
    assert len({row.tobytes() for row in first}) > 40  # no two states share their random numbers


def test_a_schedule_ends_in_the_ground_state_and_nothing_is_nothing():
    hamiltonian = mc.models.sk(N=10, seed=1)
    spins = refine(hamiltonian, np.geomspace(0.2, 20, 20), np.ones((64, 10), np.int8), 5, 1)
    states, _ = law(hamiltonian, 1.0)
    assert hamiltonian.energy(spins).min() == pytest.approx(hamiltonian.energy(states).min(), abs=1e-9)
    assert np.array_equal(refine(hamiltonian, 1.0, states[:4], 0, 1), states[:4])
    assert refine(hamiltonian, 1.0, states[:0], 3, 1).shape == (0, 10)
    assert refine(mc.models.sk(N=2, h=0.5, seed=1), 0.0, np.ones((5, 2), np.int8), 2, 1).shape == (5, 2)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"beta": -1.0}, "beta=-1.0"),
        ({"beta": math.nan}, "beta=nan"),
        ({"sweeps": -1}, "sweeps=-1"),
        ({"spins": np.ones((3, 5), np.int8)}, r"\(3, 5\), \(n, 7\) is needed"),
    ],
)
def test_refused(change, said):
    arguments = {"beta": 1.0, "spins": np.ones((3, 7), np.int8), "sweeps": 1, "rng": 1} | change
    with pytest.raises(ValueError, match=said):
        refine(mc.models.sk(N=7, seed=1), **arguments)


# Gradients

NET = NetSettings(width=16, heads=2)
SAMPLERS = {
    "tree": replace(NET, prior="local", patch=(1, 3), head="tree"),
    "spin": replace(NET, prior="belief", patch=(1, 3), head="spin"),
    "linear": NetSettings(prior="local", net="linear", window=2),
}


def sampler_of(kind, beta=0.8, shaken=True):
    sampler = build_sampler(mc.models.ea2d(L=3, J="gaussian", seed=3), beta, SAMPLERS[kind])
    if shaken:
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in sampler.network.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return sampler


def gradient(sampler, loss):
    parameters = list(sampler.network.parameters())
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return torch.cat(
        [torch.zeros(p.numel()) if g is None else g.flatten() for p, g in zip(parameters, found, strict=True)]
    )


@pytest.mark.parametrize("kind", SAMPLERS)
def test_without_weight_it_is_the_gradient_of_the_variational_free_energy(kind):
    # The mean over a large batch against the sum over all states.
    sampler = sampler_of(kind)
    states, _ = law(sampler.hamiltonian, sampler.beta)
    every = torch.from_numpy(states.astype(np.float32))
    log_q = sampler.token_log_probs(every).sum(1) - (math.log(2.0) if sampler.canonical else 0.0)
    energy = torch.from_numpy(sampler.hamiltonian.energy(states))
    assert log_q.exp().sum().item() == pytest.approx(1.0, abs=1e-5)
    exact = gradient(sampler, (log_q.exp() * (log_q + sampler.beta * energy)).sum())
    objective = Refined(sampler, sweeps=2, weight=0.0)
    batch = objective.batch(6000, StepRandomness.of(1, 0))
    estimate = gradient(sampler, objective.loss(batch) / 6000)
    assert (estimate - exact).norm() < 0.2 * exact.norm()
    bound = (log_q.exp() * (log_q + sampler.beta * energy)).sum().item()
    assert batch.action.mean().item() == pytest.approx(bound, abs=0.1)


@pytest.mark.parametrize("kind", SAMPLERS)
def test_the_published_gradient_is_its_formula(kind):
    sampler, w = sampler_of(kind), 0.7
    batch = RefinedGradient(sampler, 3, w).batch(60, StepRandomness.of(2, 5))
    plain = Refined(sampler, 3, w).batch(60, StepRandomness.of(2, 5))
    assert torch.equal(batch.spins, plain.refined)  # the same draws, the same sweeps
    assert not torch.equal(batch.spins, plain.spins)
    log_q = sampler.token_log_probs(batch.spins).sum(1)
    energy = torch.from_numpy(sampler.hamiltonian.energy(batch.spins.numpy()))
    action = (log_q + sampler.beta * energy).detach()
    by_hand = gradient(sampler, ((action - action.mean() - w) * log_q).sum())
    found = gradient(sampler, RefinedGradient(sampler, 3, w).loss(batch))
    assert (found - by_hand).abs().max() < 1e-4 * by_hand.abs().max().clamp_min(1.0)


@pytest.mark.parametrize("kind", SAMPLERS)
@pytest.mark.parametrize("make", [Refined, RefinedGradient])
def test_a_microbatch_changes_nothing_and_a_step_repeats(kind, make):
    found = []
    for microbatch in (50, 7, 50):
        sampler = sampler_of(kind)
        settings = TrainSettings(batch=50, microbatch=microbatch, clip=math.inf)
        optimizer = torch.optim.SGD(sampler.network.parameters(), lr=0.0)
        loss = training_step(sampler, make(sampler), optimizer, settings, StepRandomness.of(1, 0))
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in sampler.network.parameters()]
        found.append((loss, torch.cat([part.flatten() for part in parts])))
    assert found[0][0] == found[2][0]
    assert torch.equal(found[0][1], found[2][1])
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-5, abs=1e-5)
    assert (found[1][1] - found[0][1]).abs().max() < 1e-5 * found[0][1].abs().max().clamp_min(1.0)


@pytest.mark.parametrize("arguments", [{"weight": -1.0}, {"sweeps": -1}])
def test_negative_numbers_are_refused(arguments):
    with pytest.raises(ValueError, match="at least 0 is needed"):
        Refined(sampler_of("linear"), **arguments)


def test_a_refiner_that_has_worked_goes_to_another_process_as_it_began():
    hamiltonian = mc.models.sk(N=10, seed=1)
    used = Refiner(hamiltonian)
    spins = used(np.ones((4, 10), np.int8), 1.0, 3, np.random.default_rng(1))
    sent = pickle.loads(pickle.dumps(used))
    assert np.array_equal(sent(np.ones((4, 10), np.int8), 1.0, 3, np.random.default_rng(1)), spins)
