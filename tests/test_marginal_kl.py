"""Energy-based training of marginals: its gradient against sums over all states, its moves, and what it achieves."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

import mc
from nmcmc.anyorder.family import Family
from nmcmc.objectives import MarginalKL
from nmcmc.objectives.any_order import OrderedBatch
from nmcmc.objectives.base import StepRandomness
from nmcmc.objectives.marginal_kl import inconsistency, redrawn
from nmcmc.recipe import build_sampler
from nmcmc.training import TrainSettings, train
from tests.anyorder_systems import NETS, random_sampler
from tests.enumerated import FALSE_ALARM, all_states, chi_square_p, combined_p_value, law, state_numbers
from tests.many_body import mixed

KINDS = ["attention", "mlp"]


def small_sampler(net, prior="local"):
    return random_sampler(mixed(5, (1, 2, 3), 3), replace(NETS[net], prior=prior))


def gradient(sampler, loss):
    """Of a scalar with respect to all weights, one vector."""
    weights = list(sampler.network.parameters())
    found = torch.autograd.grad(loss, weights, allow_unused=True)
    parts = [torch.zeros_like(w) if g is None else g for w, g in zip(weights, found, strict=True)]
    return torch.cat([part.flatten() for part in parts]).double()


@pytest.mark.parametrize("net", KINDS)
def test_its_gradient_is_that_of_the_reverse_divergence(net):
    # p_theta is not normalised; over all states with weights p_theta / sum it is compared with autograd's sum.
    sampler = small_sampler(net)
    objective, states = MarginalKL([sampler], alpha=1e-12), all_states(5)
    spins = torch.from_numpy(states).float()
    minus_beta_e = torch.from_numpy(-sampler.beta * sampler.hamiltonian.energy(states))

    log_p = torch.log_softmax(sampler.marginal_of(spins), 0)
    p = log_p.exp().detach()
    expected = gradient(sampler, (log_p.exp() * (log_p - minus_beta_e)).sum())

    counts = (40_000 * p).round().long()
    repeated = states.repeat(counts.numpy(), axis=0)
    objective._spins, objective._member = repeated, np.zeros(len(repeated), np.int64)
    r = objective.advantage(0)
    assert r.mean() == pytest.approx(0.0, abs=1e-9)
    assert r.std() == pytest.approx(1.0)
    first = (counts.cumsum(0)[counts > 0] - 1).numpy()
    weighted = torch.from_numpy(r[first] * counts[counts > 0].numpy())[:, None]
    part = OrderedBatch(
        spins[counts > 0],
        weighted,
        rank=np.tile(sampler.rank, (len(first), 1)),
        member=np.zeros(len(first), np.int64),
        cut=np.full(len(first), 5),
    )
    found = gradient(sampler, objective.loss(part)) / len(repeated)
    scale = (log_p.detach() - minus_beta_e)[counts > 0].numpy()
    weight = counts[counts > 0].numpy() / len(repeated)
    spread = np.sqrt((weight * (scale - (weight * scale).sum()) ** 2).sum())
    assert expected.norm() > 1e-2
    assert (spread * found - expected).norm() < 3e-3 * expected.norm()


def test_near_the_optimum_it_does_not_blow_up_noise():
    sampler = build_sampler(mc.models.ising(L=3), 1e-4, NETS["attention"])  # all states nearly alike
    objective = MarginalKL([sampler])
    batch = objective.batch(64, StepRandomness.of(0, 0))
    assert batch.advantage.abs().max() < 0.1


@pytest.mark.parametrize("net", KINDS)
def test_inconsistency_is_the_error_of_one_step_of_the_order(net):
    sampler = small_sampler(net)
    random = np.random.default_rng(2)
    spins = random.choice([-1.0, 1.0], (30, 5))
    rank = random.permuted(np.tile(np.arange(5), (30, 1)), axis=1)
    cut = random.integers(1, 6, size=30)
    with torch.no_grad():
        found = inconsistency(sampler, torch.from_numpy(spins).float(), rank, cut).numpy()
        for state, own, last, error in zip(spins, rank, cut - 1, found, strict=True):
            before, after = (np.where(own < last, state, 0), np.where(own <= last, state, 0))
            site = int(np.flatnonzero(own == last)[0])
            odds = sampler.odds_given(torch.from_numpy(before[None]).float())[0, site].item()
            step = -np.logaddexp(0.0, -odds * state[site])
            marginal = sampler.log_marginal(np.stack([before, after]))
            assert error == pytest.approx(marginal[0] + step - marginal[1], abs=1e-4)


@pytest.mark.statistical
@pytest.mark.parametrize("net", KINDS)
def test_redrawing_leaves_a_consistent_law_alone(net):
    # Conditionals that are exact: the prior of the last site, all others known. One site forgotten at a time is heat
    # bath. 20,000 states, 3 seeds, combined; false alarm 1e-4 for each net.
    hamiltonian = mixed(5, (1, 2, 3), 3)
    sampler = build_sampler(hamiltonian, 0.7, replace(NETS[net], prior="local"))
    states, p = law(hamiltonian, 0.7)
    p_values = []
    for seed in range(3):
        random = np.random.default_rng(seed)
        moved = states[random.choice(len(p), size=20_000, p=p)]
        started = moved
        for _ in range(5):
            moved = redrawn(sampler, moved, 1, random)
        assert (moved != started).mean() > 0.1
        p_values.append(chi_square_p(np.bincount(state_numbers(moved), minlength=len(p)), p, len(moved)))
    assert combined_p_value(p_values) > FALSE_ALARM, p_values


@pytest.mark.statistical
@pytest.mark.parametrize("net", KINDS)
def test_all_sites_redrawn_is_a_fresh_draw(net):
    # In random orders: the law is that of the sampler, averaged over all 120 orders. 20,000 states from one start;
    # false alarm 1e-4 for each net.
    sampler = small_sampler(net)
    states = all_states(5)
    moved = redrawn(sampler, np.ones((20_000, 5), np.int8), 5, np.random.default_rng(3))
    spins, q = torch.from_numpy(states).float(), np.zeros(32)
    with torch.no_grad():
        for rank in itertools.permutations(range(5)):
            q += sampler.token_log_probs(spins, np.tile(rank, (32, 1))).sum(1).exp().numpy()
    q /= q.sum()
    assert chi_square_p(np.bincount(state_numbers(moved), minlength=32), q, len(moved)) > FALSE_ALARM


def test_states_last_for_a_period_and_repeat_from_its_start():
    sampler = small_sampler("attention")
    first, again = (MarginalKL([sampler], gibbs=2, refresh=3) for _ in range(2))
    batches = [first.batch(40, StepRandomness.of(5, step)) for step in range(6)]
    for step in range(1, 6):
        moved = (batches[step].spins != batches[step - 1].spins).sum(1).max()
        assert (moved > 2) == (step == 3), "at most two sites a step, and all where a period begins"
    for step in range(3, 6):
        batch = again.batch(40, StepRandomness.of(5, step))
        for name in ("spins", "advantage", "rank", "member", "cut"):
            assert (np.asarray(getattr(batch, name)) == np.asarray(getattr(batches[step], name))).all()
    assert {len(set(row)) for row in batches[0].rank.tolist()} == {5}
    assert first.period == 3


def test_members_of_a_family_are_judged_by_their_own_targets():
    made = Family(mc.models.ising(L=3, h=0.1), [(0.2, None), (0.7, None)], NETS["no attention"])
    objective = MarginalKL(list(made.members))
    batch = objective.batch(31, StepRandomness.of(1, 0))
    assert np.bincount(batch.member).tolist() == [16, 15]
    for m, member in enumerate(made.members):
        spins = batch.spins.numpy()[batch.member == m]
        r = member.log_marginal(spins) + member.beta * member.hamiltonian.energy(spins)
        assert batch.advantage.numpy()[batch.member == m, 0] == pytest.approx((r - r.mean()) / r.std(), abs=1e-5)
    parts = [objective.loss(batch.part(where)) for where in (slice(0, 20), slice(20, 31))]
    assert objective.loss(batch).item() == pytest.approx(sum(part.item() for part in parts), rel=1e-5)


@pytest.mark.parametrize(
    ("words", "said"), [({"alpha": 0.0}, "alpha=0"), ({"gibbs": -1}, "gibbs=-1"), ({"refresh": 0}, "refresh=0")]
)
def test_what_makes_no_sense_is_refused(words, said):
    with pytest.raises(ValueError, match=said):
        MarginalKL([small_sampler("mlp")], **words)
    with pytest.raises(ValueError, match="at least one sampler"):
        MarginalKL([])


@pytest.mark.statistical
@pytest.mark.parametrize(("net", "steps"), [("no attention", 200), ("mlp", 500)])
def test_it_learns_the_target_from_its_energy_alone(net, steps):
    hamiltonian, beta = mc.models.ising(L=3, h=0.1), 0.3
    sampler = build_sampler(hamiltonian, beta, replace(NETS[net], prior="none", width=32))
    states, p = law(hamiltonian, beta)

    def divergence():
        log_q = sampler.log_prob(states)
        return float((np.exp(log_q) * (log_q - np.log(p))).sum())

    before, log_p = divergence(), np.log(p)
    spread = (p * (log_p - (p * log_p).sum()) ** 2).sum()
    settings = TrainSettings(steps=steps, batch=64, learning_rate=5e-3, validate_every=steps, validation_draws=256)
    train(sampler, MarginalKL([sampler]), settings)
    assert 0 < divergence() < 0.5 * before  # one conditional a state learns in a step, so these come slowly
    error = sampler.log_marginal(states) - np.log(p)
    # Of ln p_theta, up to a constant; before, that of the energy itself.
    assert np.sqrt((p * (error - (p * error).sum()) ** 2).sum()) < 0.3 * np.sqrt(spread)
