"""The spin-by-spin head: one law drawn and scored alike for groups of any size, no larger than what it reads."""

import numpy as np
import pytest
import torch

import mc
from mc.equilibrium import equilibrium_states
from nmcmc.networks.spin_transformer import past_couplings
from nmcmc.objectives import Likelihood, SoftLikelihood
from nmcmc.objectives.base import StepRandomness
from nmcmc.objectives.likelihood import soft_label_loss, spin_labels
from nmcmc.recipe import NetSettings, build_sampler, resolved, retargeted
from nmcmc.training import TrainSettings, train

GLASSES = {
    "cube in groups of 8": (lambda: mc.models.ea3d(Lx=4, Ly=2, Lz=2, boundary="open", seed=1), (2, 2, 2)),
    "SK, 20 spins in one group": (lambda: mc.models.sk(N=20, seed=1), (20,)),
    "SK in a field, groups of 3": (lambda: mc.models.sk(N=12, h=0.3, seed=2), (3,)),
    "single spins": (lambda: mc.models.rrg(N=10, seed=3), (1,)),
    "p-spin": (lambda: mc.models.pspin(N=8, p=3, seed=4), (4,)),
}


def shaken(name, size=0.3, seed=0, window=None, prior=None, beta=0.8):
    build, patch = GLASSES[name]
    hamiltonian = build()
    prior = prior or ("belief" if hamiltonian.is_pairwise else "local")
    settings = NetSettings(prior=prior, patch=patch, head="spin", width=16, layers=2, heads=2, window=window)
    sampler = build_sampler(hamiltonian, beta, settings)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in sampler.network.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return sampler, settings


@pytest.mark.parametrize("window", [None, 1])
@pytest.mark.parametrize("name", GLASSES)
def test_recorded_log_q_is_that_of_the_full_pass(name, window):
    sampler, _ = shaken(name, window=window)
    spins, log_q = sampler.sample(50, torch.Generator().manual_seed(1))
    assert np.abs(sampler.log_prob(spins) - log_q).max() < 2e-5
    assert np.abs(log_q - sampler.prior_alone().log_prob(spins)).max() > 0.1  # and the network matters


@pytest.mark.parametrize("name", GLASSES)
def test_untrained_it_is_the_prior_exactly(name):
    build, patch = GLASSES[name]
    sampler = build_sampler(
        build(), 0.8, NetSettings(patch=patch, head="spin", prior="local" if "p-" in name else None)
    )
    assert sampler.network.silent
    spins, _ = sampler.sample(20, torch.Generator().manual_seed(1))
    assert np.array_equal(sampler.log_prob(spins), sampler.prior_alone().log_prob(spins))


@pytest.mark.parametrize("name", GLASSES)
def test_a_spin_reads_its_past_only(name):
    sampler, _ = shaken(name)
    order, generator = sampler.tokens.sites.reshape(-1), np.random.default_rng(1)
    spins = torch.ones(1, sampler.tokens.n_spins)
    odds = torch.zeros_like(spins)
    before = sampler.network.correct_all(odds, spins)
    for n in generator.integers(1, sampler.tokens.n_spins, size=4):
        changed = spins.clone()
        changed[0, order[n]] = -1.0
        after = sampler.network.correct_all(odds, changed)
        assert torch.equal(after[0, : n + 1], before[0, : n + 1])
        assert n + 1 == sampler.tokens.n_spins or not torch.equal(after[0, n + 1 :], before[0, n + 1 :])


def test_groups_need_no_vocabulary_but_whole_token_heads_refuse_large_ones():
    hamiltonian = mc.models.sk(N=60, seed=1)
    sampler = build_sampler(hamiltonian, 0.5, NetSettings(patch=(30,), prior="belief", width=16))
    assert sampler.head.name == "spin"
    assert max(tensor.numel() for tensor in sampler.state_dict().values()) < 2**14
    sampler.sample(4, torch.Generator().manual_seed(0))
    for changes in ({"prior": "local"}, {"head": "tree", "prior": "belief"}):
        with pytest.raises(ValueError, match=r"2\^30 outputs; at most 12 spins, choose a smaller patch"):
            resolved(hamiltonian, NetSettings(patch=(30,), **changes))
    with pytest.raises(ValueError, match="at most 62"):
        resolved(mc.models.sk(N=126, seed=1), NetSettings(patch=(63,), prior="belief"))


def test_past_couplings_are_fields_of_the_spins_drawn_before():
    hamiltonian = mc.models.sk(N=8, seed=3)
    tokens = build_sampler(hamiltonian, 1.0, NetSettings(patch=(2,), prior="belief")).tokens
    matrices = [matrix.numpy() for matrix in past_couplings(hamiltonian, tokens)]
    J = np.zeros((8, 8))
    sites, couplings = hamiltonian.bonds
    J[sites[:, 0], sites[:, 1]] = J[sites[:, 1], sites[:, 0]] = couplings
    for n in range(8):
        for matrix, first in zip(matrices, (n, n // 2 * 2), strict=True):
            expected = np.where(np.arange(8) < first, J[n], 0.0)
            assert matrix[n] == pytest.approx(expected, abs=1e-7)


def test_another_temperature_shares_the_weights():
    sampler, settings = shaken("SK in a field, groups of 3", beta=0.5)
    colder = retargeted(sampler, settings, 1.0)
    assert (colder.beta, colder.network.beta, sampler.network.beta) == (1.0, 1.0, 0.5)
    ours, theirs = dict(sampler.network.named_parameters()), dict(colder.network.named_parameters())
    assert all(ours[name] is theirs[name] for name in ours)
    spins, log_q = colder.sample(20, torch.Generator().manual_seed(2))
    assert np.abs(colder.log_prob(spins) - log_q).max() < 2e-5
    assert np.abs(sampler.log_prob(spins) - log_q).max() > 1e-2


@pytest.mark.parametrize("kind", [Likelihood, SoftLikelihood])
def test_stored_log_odds_and_labels_give_the_loss_that_fresh_ones_give(kind):
    sampler, _ = shaken("cube in groups of 8")
    states = sampler.sample(40, torch.Generator().manual_seed(3))[0]
    objective = kind(sampler, states)
    batch = objective.batch(16, StepRandomness.of(0, 0))
    assert batch.odds.shape == (16, 16)
    if kind is Likelihood:
        fresh = -sampler.token_log_probs(batch.spins).sum()
    else:
        fresh = soft_label_loss(sampler, None, batch.spins)
    assert objective.loss(batch).item() == pytest.approx(fresh.item(), rel=1e-5)
    halves = sum(objective.loss(batch.part(part)) for part in (slice(0, 7), slice(7, 16)))
    assert halves.item() == pytest.approx(fresh.item(), rel=1e-5)


def test_soft_labels_average_to_the_likelihood_of_the_law():
    """At the law itself the cross entropies with spins and with soft labels have the same mean."""
    hamiltonian = mc.models.ea3d(Lx=3, Ly=2, Lz=2, boundary="open", seed=2)
    sampler = build_sampler(hamiltonian, 0.6, NetSettings(prior="belief", patch=(1, 1, 3), head="spin"))
    states, _ = equilibrium_states(hamiltonian, 0.6, 20_000, 1)
    soft = spin_labels(sampler, states).double()
    canonical = -states * states[:, sampler.tokens.first_site, None]
    hard = 0.5 + 0.5 * torch.from_numpy(canonical[:, sampler.tokens.sites.reshape(-1)]).double()
    z = (soft - hard).mean(0)[1:] / ((soft - hard).std(0)[1:] / len(states) ** 0.5)
    assert z.abs().max() < 5.0  # 11 spins, states of one chain are nearly independent


@pytest.mark.slow
def test_training_on_tempering_states_repairs_a_prior_below_the_freezing_point():
    hamiltonian = mc.models.ea3d(Lx=4, Ly=4, Lz=2, boundary="periodic,periodic,open", seed=1)
    settings = NetSettings(prior="belief", patch=(2, 2, 2), width=32, layers=1)
    sampler = build_sampler(hamiltonian, 1.0, settings)
    objective = SoftLikelihood(sampler, equilibrium_states(hamiltonian, 1.0, 8000, 1)[0])
    found = train(sampler, objective, TrainSettings(steps=150, clip=5.0, validation_draws=512))
    assert found.history["free_energy"][0] - min(found.history["free_energy"]) > 0.1
    assert found.history["ess"][-1] > found.prior_ess + 0.1
