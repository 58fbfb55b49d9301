"""The any-order likelihood: its labels and gradients against sums over all states, and what a few steps achieve."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

import mc
from nmcmc.anyorder.family import Family
from nmcmc.anyorder.sampler import consistency
from nmcmc.objectives import any_order
from nmcmc.objectives.any_order import AnyOrderLikelihood, OrderedBatch, soft_labels
from nmcmc.objectives.base import StepRandomness
from nmcmc.recipe import build_sampler
from nmcmc.training import TrainSettings, train
from tests.anyorder_systems import BETA, NETS, SYSTEMS, random_sampler
from tests.enumerated import all_states, law
from tests.many_body import mixed


def small_sampler(net, prior="local", orders=(1, 2, 3), order="random"):
    settings = replace(NETS[net], prior=prior, order=order, order_seed=2)
    return random_sampler(mixed(5, orders, 3), settings)


def gradient(sampler, loss):
    """Of a scalar with respect to all weights, one vector."""
    weights = list(sampler.network.parameters())
    found = torch.autograd.grad(loss, weights, allow_unused=True)
    parts = [torch.zeros_like(w) if g is None else g for w, g in zip(weights, found, strict=True)]
    return torch.cat([part.flatten() for part in parts]).double()


def ordered(spins, labels, rank, cut):
    """States (n, N) of the one member with their labels, orders and cuts, as an objective takes them."""
    tensors = (torch.from_numpy(np.asarray(values, np.float32)) for values in (spins, labels))
    spins, labels = tensors
    return OrderedBatch(spins, None, None, labels, rank, np.zeros(len(rank), int), cut)


def gradient_of_law(sampler, objective, rank, hard):
    """Gradient of the mean loss over the target's law, every state in one order and all cuts alike."""
    states, p = law(sampler.hamiltonian, sampler.beta)
    n_spins = states.shape[1]
    labels = (states > 0).astype(np.float32) if hard else soft_labels(sampler, states)
    total = torch.zeros((), dtype=torch.float64)
    for state, label, weight in zip(states, labels, p, strict=True):
        n = 1 if sampler.network.one_pass else n_spins  # the cut matters to networks of one subset a pass alone
        rows = (np.tile(values, (n, 1)) for values in (state, label))
        part = ordered(*rows, np.tile(rank, (n, 1)), np.arange(1, n + 1))
        total = total + weight / n * objective.loss(part)
    return gradient(sampler, total)


def exact_gradient(sampler, rank):
    """Gradient of - sum over all states of p ln q along an order."""
    states, p = law(sampler.hamiltonian, sampler.beta)
    log_q = sampler.token_log_probs(torch.from_numpy(states).float(), np.tile(rank, (len(states), 1))).sum(1)
    return gradient(sampler, -(torch.from_numpy(p) * log_q).sum())


@pytest.mark.parametrize("prior", ["local", "none"])
@pytest.mark.parametrize("net", ["attention", "no attention", "mlp"])
def test_soft_labels_and_hard_ones_have_the_gradient_of_the_likelihood(net, prior, monkeypatch):
    monkeypatch.setattr(any_order, "MARGINAL_WEIGHT", 0.0)
    sampler = small_sampler(net, prior)
    objective = AnyOrderLikelihood([sampler], [all_states(5)])
    orders = [sampler.rank] if net == "mlp" else [sampler.rank, np.array([4, 1, 3, 0, 2])]
    for rank in orders:
        expected = exact_gradient(sampler, rank)
        assert expected.norm() > 1e-3
        for hard in (True, False):
            found = gradient_of_law(sampler, objective, rank, hard)
            assert (found - expected).norm() < 1e-4 * expected.norm()


def test_a_network_of_one_subset_a_pass_asks_all_unknown_spins(monkeypatch):
    # Any order but the stored one: N / (N - d) times the cross entropies of all that are unknown after d.
    monkeypatch.setattr(any_order, "MARGINAL_WEIGHT", 0.0)
    sampler = small_sampler("mlp")
    objective = AnyOrderLikelihood([sampler], [all_states(5)])
    states, rank = all_states(5)[[7]], (sampler.rank + 1) % 5
    labels = soft_labels(sampler, states)
    for known in range(5):
        seen = torch.from_numpy(np.where(rank < known, states, 0)).float()
        p = torch.sigmoid(sampler.odds_given(seen)).detach().numpy()
        entropy = -(labels * np.log(p) + (1 - labels) * np.log(1 - p))[0]
        loss = objective.loss(ordered(states, labels, rank[None], np.array([known + 1])))
        assert loss.item() == pytest.approx(5 / (5 - known) * entropy[rank >= known].sum(), rel=1e-4)


@pytest.mark.parametrize("name", SYSTEMS)
def test_labels_are_the_conditionals_of_the_enumerated_law(name):
    hamiltonian = SYSTEMS[name]()
    sampler = build_sampler(hamiltonian, BETA, NETS["attention"])
    states, p = law(hamiltonian, BETA)
    numbers = np.arange(len(states))
    for site in range(hamiltonian.n_spins):
        up, down = p[numbers | (1 << site)], p[numbers & ~(1 << site)]
        assert soft_labels(sampler, states)[:, site] == pytest.approx(up / (up + down), rel=1e-5)


@pytest.mark.parametrize("net", ["attention", "mlp"])
def test_gradients_are_finite_differences_of_the_loss(net, monkeypatch):
    # Of the cross entropies for all weights, then of the marginal's error for those of its head.
    sampler = small_sampler(net)
    objective = AnyOrderLikelihood([sampler], [all_states(5)])
    part = objective.batch(12, StepRandomness.of(3, 0))
    head = sampler.network.of_marginal if net == "mlp" else sampler.network.marginal
    for weight, weights in ((0.0, list(sampler.network.parameters())), (0.3, list(head.parameters()))):
        monkeypatch.setattr(any_order, "MARGINAL_WEIGHT", weight)
        loss = objective.loss(part)
        found = torch.autograd.grad(loss, weights, allow_unused=True)
        found = [torch.zeros_like(w) if g is None else g for w, g in zip(weights, found, strict=True)]
        norm = torch.cat([g.flatten() for g in found]).norm()
        step, values = 0.003, []
        for sign in (1.0, -2.0, 1.0):  # there, back to the other side, home
            with torch.no_grad():
                for one, slope in zip(weights, found, strict=True):
                    one.add_(slope / norm, alpha=sign * step)
            values.append(objective.loss(part).item())
        assert values[2] == pytest.approx(loss.item(), rel=1e-5)
        assert (values[0] - values[1]) / (2 * step) == pytest.approx(norm.item(), rel=0.01)


@pytest.mark.parametrize("net", ["attention", "mlp"])
def test_the_marginal_head_learns_sums_of_conditionals_and_teaches_them_nothing(net):
    sampler = small_sampler(net)
    objective = AnyOrderLikelihood([sampler], [all_states(5)])
    part = objective.batch(16, StepRandomness.of(5, 0))
    if net == "mlp":
        assert not {id(w) for w in sampler.network.of_marginal.parameters()} & {
            id(w) for w in sampler.network.of_conditionals.parameters()
        }
        return
    log_q = sampler.token_log_probs(part.spins, part.rank)
    loss = objective.marginal_loss(part, log_q.detach())
    shown = slice(None, None, any_order.MARGINAL_EVERY)
    partial = np.where(part.rank < part.cut[:, None], part.spins.numpy(), 0)[shown]
    wanted = np.where(partial != 0, log_q.detach().numpy()[shown], 0).sum(axis=1)
    error = np.abs(sampler.log_marginal(partial) - wanted)
    huber = np.where(error < 1, error**2 / 2, error - 0.5).sum()
    assert loss.item() == pytest.approx(any_order.MARGINAL_WEIGHT * huber, rel=1e-5)
    of_conditional = torch.autograd.grad(loss, sampler.network.conditional.weight, allow_unused=True)[0]
    assert of_conditional is None


def test_a_batch_depends_on_seed_and_step_alone_and_parts_belong_together():
    made = Family(mc.models.ising(L=3), [(0.2, None), (0.5, None)], NETS["no attention"])
    states = [law(m.hamiltonian, m.beta)[0] for m in made.members]
    objective = AnyOrderLikelihood(list(made.members), states, share=0.25)
    first, again, other = (objective.batch(400, StepRandomness.of(1, step)) for step in (4, 4, 5))
    for name in ("spins", "labels", "rank", "member", "cut"):
        assert (np.asarray(getattr(first, name)) == np.asarray(getattr(again, name))).all()
    assert (first.rank != other.rank).any()
    assert (np.sort(first.rank, axis=1) == np.arange(9)).all()
    stored = (first.rank == made.members[0].rank).all(axis=1).mean()
    assert abs(stored - 0.75) < 5 * np.sqrt(0.75 * 0.25 / 400)  # beyond 5 sigma once in 2e6
    assert set(first.member) == {0, 1}
    assert (first.cut.min(), first.cut.max()) == (1, 9)
    for m, member in enumerate(made.members):
        of_it = first.member == m
        found = soft_labels(member, first.spins.numpy()[of_it].astype(np.int8))
        assert (first.labels.numpy()[of_it] == found).all()


@pytest.mark.parametrize("net", ["attention", "mlp"])
def test_losses_of_parts_sum_to_the_loss_of_the_batch(net):
    sampler = small_sampler(net)
    objective = AnyOrderLikelihood([sampler], [all_states(5)])
    batch, size = objective.batch(32, StepRandomness.of(2, 0)), 2 * any_order.MARGINAL_EVERY
    parts = [objective.loss(batch.part(slice(start, start + size))) for start in range(0, 32, size)]
    assert objective.loss(batch).item() == pytest.approx(sum(part.item() for part in parts), rel=1e-5)


def test_what_it_cannot_learn_from_is_refused():
    sampler = build_sampler(mc.models.ising(L=3), 0.3, NETS["no attention"])
    with pytest.raises(ValueError, match="states of every temperature"):
        AnyOrderLikelihood([sampler], [np.zeros((0, 9), np.int8)])
    with pytest.raises(ValueError, match="states of every temperature"):
        AnyOrderLikelihood([sampler], [])
    with pytest.raises(ValueError, match=r"train\.any=1\.5"):
        AnyOrderLikelihood([sampler], [all_states(9)], 1.5)


@pytest.mark.statistical
@pytest.mark.parametrize(("net", "prior"), [("attention", "local"), ("no attention", "none"), ("mlp", "local")])
def test_training_brings_the_law_to_the_target_and_the_marginal_to_the_conditionals(net, prior):
    hamiltonian, beta = mc.models.ising(L=3, h=0.1), 0.3
    sampler = build_sampler(hamiltonian, beta, replace(NETS[net], prior=prior, width=32))
    states, p = law(hamiltonian, beta)
    random = np.random.default_rng(1)
    learned = states[random.choice(len(p), size=4000, p=p)]

    def divergence():
        return float((p * (np.log(p) - sampler.log_prob(states))).sum())

    def error():
        return consistency(sampler, learned[:500], torch.Generator().manual_seed(0))

    before = divergence()
    settings = TrainSettings(steps=150, batch=64, learning_rate=5e-3, validate_every=150, validation_draws=256)
    train(sampler, AnyOrderLikelihood([sampler], [learned]), settings)
    after = divergence()
    assert 0 < after < 0.25 * before
    assert after < 0.05
    # The mlp's head learns one spin more at a time, from itself, and later.
    assert error() < (1.0 if net == "mlp" else 0.3)
    head = sampler.network.of_marginal.last if net == "mlp" else sampler.network.marginal
    with torch.no_grad():
        head.weight.zero_()
        head.bias.zero_()
    assert error() > 1.0, "what an untrained head has"


def test_states_of_several_temperatures_and_fields_cost_what_they_cost_one_by_one():
    settings = replace(NETS["attention"], prior="local")
    family = Family(mc.models.ising(L=3, h=0.1), [(0.2, -0.1), (0.4, 0.1), (0.4, -0.1)], settings, 3)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for weight in family.network.parameters():
            weight.add_(0.2 * torch.randn(weight.shape, generator=generator))
    members = list(family.members)
    states = [all_states(9)[start::7] for start in range(3)]
    objective = AnyOrderLikelihood(members, states)
    part = objective.batch(24, StepRandomness.of(2, 0))
    assert len(set(part.member)) == 3
    together = objective.loss(part)
    apart, every = 0.0, any_order.MARGINAL_EVERY
    for m, member in enumerate(members):
        of_it = np.flatnonzero(part.member == m)
        where = torch.from_numpy(of_it)
        odds = member.odds_along(part.spins[where], part.rank[of_it])
        apart += (functional.softplus(odds) - part.labels[where] * odds).sum().item()
        shown = of_it[of_it % every == 0]
        partial = np.where(part.rank[shown] < part.cut[shown, None], part.spins.numpy()[shown], 0)
        rank = np.where(partial != 0, part.rank[shown], 99)
        known = torch.from_numpy(partial).float()
        log_q = functional.logsigmoid(member.odds_along(known, rank) * known) * known.abs()
        size = np.abs(member.log_marginal(partial) - log_q.sum(1).detach().numpy())
        apart += any_order.MARGINAL_WEIGHT * np.where(size < 1, size**2 / 2, size - 0.5).sum()
    assert together.item() == pytest.approx(apart, rel=1e-5)
