"""The autoregressive sampler: one normalised law q, drawn and scored alike, for any model, prior and head."""

from functools import cache

import numpy as np
import pytest
import torch

import mc
from mc.exact import exact
from nmcmc.priors import PRIORS, SPINWISE, make_prior, prior_refusal
from nmcmc.recipe import NetSettings, build_sampler
from nmcmc.sampler import AutoregressiveSampler
from nmcmc.tokens import tokens_for
from tests.enumerated import FALSE_ALARM, all_states, chi_square_p, combined_p_value, law, state_numbers

BETA = 0.5


def from_arrays():
    """Interactions of order 1 to 4, as a file may hold them."""
    sites = [np.array([[0], [6]]), np.array([[0, 1], [2, 4], [1, 6], [3, 5]]), np.array([[1, 3, 6]])]
    couplings = [np.array([0.3, -0.5]), np.array([0.7, -0.4, 0.9, 1.0]), np.array([-0.6])]
    plaquette = (np.array([[0, 2, 3, 4]]), np.array([0.8]))
    return mc.Hamiltonian(7, [*zip(sites, couplings, strict=True), plaquette], constant=0.5, name="file")


SYSTEMS = {
    "ising 4x4 torus": (lambda: mc.models.ising(L=4), (2, 2)),
    "ising 3x4 cylinder": (lambda: mc.models.ising(Lx=4, Ly=3, boundary="open,periodic"), (1, 4)),
    "glass 4x4 with fields": (
        lambda: mc.models.ea2d(L=4, J="gaussian", h="gauss:0.5", boundary="open", seed=1), (2, 2)),
    "ising 2x2x2": (lambda: mc.models.ising(L=2, dim=3, boundary="open"), (1, 2, 2)),
    "SK": (lambda: mc.models.sk(N=8, seed=2), (4,)),
    "SK, one token": (lambda: mc.models.sk(N=4, seed=2), (4,)),
    "random graph in a field": (lambda: mc.models.rrg(N=8, h=0.2, seed=3), (2,)),
    "p-spin": (lambda: mc.models.pspin(N=6, p=3, seed=4), (3,)),
    "file, single spins": (from_arrays, (1,)),
}  # fmt: skip
CASES = []
for system, (build, patch) in SYSTEMS.items():
    if build().n_spins == 16:  # 65536 states take their time
        CASES += [(system, "local", "softmax"), (system, "lookahead", "tree")]
        continue
    applies = [prior for prior in PRIORS if not prior_refusal(prior, build(), tokens_for(build(), patch))]
    CASES += [(system, prior, "tree") for prior in applies]
    CASES += [(system, prior, "softmax") for prior in applies if prior not in SPINWISE]
    CASES += [(system, prior, "spin") for prior in applies if prior in ("local", "belief")]


def shaken(sampler, seed, size):
    """The sampler after random changes of all its weights, so that the network matters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in sampler.network.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return sampler


def random_sampler(system, prior, head, size=0.2):
    """A sampler with random weights, two layers."""
    build, patch = SYSTEMS[system]
    net = NetSettings(patch=patch, prior=prior, head=head, width=8, layers=2, heads=2)
    sampler = shaken(build_sampler(build(), BETA, net), seed=len(system), size=size)
    sampler.max_batch = 8192
    return sampler


@cache
def sampler_of(system, prior, head):
    """A sampler with random weights, and its ln q of all states."""
    sampler = random_sampler(system, prior, head)
    return sampler, sampler.log_prob(all_states(sampler.tokens.n_spins))


@cache
def exact_law(system):
    """States, p and ln Z."""
    hamiltonian = SYSTEMS[system][0]()
    return *law(hamiltonian, BETA), exact(hamiltonian, BETA).log_z


@pytest.mark.parametrize(("system", "prior", "head"), CASES)
def test_law_sums_to_one_over_all_states(system, prior, head):
    _, log_q = sampler_of(system, prior, head)
    assert log_q.dtype == np.float64
    assert np.exp(log_q).sum() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(("system", "prior", "head"), CASES)
def test_the_network_matters(system, prior, head):
    # Otherwise the tests of this file would test the prior alone.
    sampler, _ = sampler_of(system, prior, head)
    alone = AutoregressiveSampler(sampler.hamiltonian, BETA, sampler.tokens, sampler.prior, sampler.head)
    spins, log_q = sampler.sample(1000, torch.Generator().manual_seed(4))
    assert np.mean(log_q - alone.log_prob(spins)) > 0.005
    assert np.std(log_q - alone.log_prob(spins)) > 0.1


@pytest.mark.statistical
@pytest.mark.parametrize(("system", "prior", "head"), CASES)
def test_sampled_states_have_the_scored_law(system, prior, head):
    # 3 seeds, combined; false alarm 1e-4 a case.
    sampler, log_q = sampler_of(system, prior, head)
    p_values = []
    for seed in range(3):
        spins, recorded = sampler.sample(3000, torch.Generator().manual_seed(seed))
        numbers = state_numbers(spins)
        assert np.abs(recorded - log_q[numbers]).max() < 2e-5
        counts = np.bincount(numbers, minlength=len(log_q))
        p_values.append(chi_square_p(counts, np.exp(log_q), len(spins)))
    assert combined_p_value(p_values) > FALSE_ALARM, np.round(p_values, 5)


@pytest.mark.parametrize(("system", "prior", "head"), CASES)
def test_log_q_of_every_drawn_token_is_that_of_the_full_pass(system, prior, head):
    # While drawing, keys and values come from a cache; scoring sees the whole state.
    sampler = random_sampler(system, prior, head, size=0.5)
    spins, log_q = sampler.draw_tokens(37, torch.Generator().manual_seed(5))
    assert log_q.dtype == torch.float64
    assert log_q.shape == (37, sampler.tokens.n_tokens)
    with torch.no_grad():
        scored = sampler.token_log_probs(spins)
    assert scored.dtype == torch.float64
    assert (log_q - scored).abs().max() < 1e-5


@pytest.mark.parametrize(("system", "prior", "head"), CASES)
def test_a_token_does_not_depend_on_later_ones(system, prior, head):
    sampler = random_sampler(system, prior, head, size=0.5)
    spins, _ = sampler.draw_tokens(11, torch.Generator().manual_seed(6))
    spins = sampler.to_canonical(spins)
    with torch.no_grad():
        before = sampler.token_log_probs(spins)
        for j in range(sampler.tokens.n_tokens - 1):
            other = spins.clone()
            other[:, sampler.prior.sites[j + 1 :].reshape(-1)] *= -1
            after = sampler.token_log_probs(other)
            assert (after - before)[:, : j + 1].abs().max() < 1e-6


@pytest.mark.statistical
@pytest.mark.parametrize(("system", "prior", "head"), CASES)
def test_mean_weight_is_the_partition_function(system, prior, head):
    # Exactly as a sum over all states, and as a mean over draws within 4 exact errors (false alarm 6e-5 a case).
    sampler, log_q = sampler_of(system, prior, head)
    hamiltonian = sampler.hamiltonian
    states, p, log_z = exact_law(system)
    ratio = p / np.exp(log_q)  # w / Z
    assert np.abs(np.log(ratio) + BETA * hamiltonian.energy(states) + log_q + log_z).max() < 1e-9
    assert np.exp(log_q) @ ratio == pytest.approx(1.0, abs=1e-9)
    error = np.sqrt((np.exp(log_q) @ ratio**2 - 1.0) / 5000)
    spins, recorded = sampler.sample(5000, torch.Generator().manual_seed(8))
    weights = np.exp(-BETA * hamiltonian.energy(spins) - recorded - log_z)
    assert abs(weights.mean() - 1.0) < 4 * error


@pytest.mark.parametrize(("system", "prior", "head"), CASES)
def test_variational_free_energy_is_above_the_free_energy(system, prior, head):
    sampler, log_q = sampler_of(system, prior, head)
    states, p, log_z = exact_law(system)
    variational = np.exp(log_q) @ (log_q / BETA + sampler.hamiltonian.energy(states))
    divergence = np.exp(log_q) @ (log_q - np.log(p))
    assert divergence > 0.01
    assert variational == pytest.approx((divergence - log_z) / BETA, abs=1e-4)


@pytest.mark.parametrize(("system", "prior", "head"), CASES)
def test_a_global_flip_changes_nothing_in_the_z2_frame(system, prior, head):
    sampler, log_q = sampler_of(system, prior, head)
    assert sampler.canonical == sampler.hamiltonian.is_z2_symmetric
    if sampler.canonical:
        assert (log_q == log_q[::-1]).all()  # state number k and its flip, 2^N - 1 - k
        spins, _ = sampler.draw_tokens(500, torch.Generator().manual_seed(1))
        first = spins[:, sampler.tokens.first_site]
        assert 200 < (first > 0).sum() < 300  # binomial: false alarm 8e-6
        canonical = sampler.to_canonical(spins)
        assert (canonical[:, sampler.tokens.first_site] == -1).all()
        assert (sampler.tokens.encode(canonical.numpy())[:, 0] % 2 == 0).all()
    else:
        assert np.abs(log_q - log_q[::-1]).max() > 0.1


def test_the_z2_frame_is_refused_with_fields_or_odd_interactions():
    for hamiltonian in (mc.models.ising(L=4, h=0.1), mc.models.pspin(N=6, p=3, seed=1), from_arrays()):
        tokens = tokens_for(hamiltonian)
        parts = (tokens, make_prior("local", hamiltonian, tokens, BETA), sampler_of("SK", "none", "tree")[0].head)
        with pytest.raises(ValueError, match="Z2 frame"):
            AutoregressiveSampler(hamiltonian, BETA, *parts, canonical=True)


@pytest.mark.statistical
@pytest.mark.parametrize("head", ["tree", "softmax"])
def test_a_symmetric_model_may_be_sampled_without_the_z2_frame(head):
    # False alarm 1e-4 a head.
    hamiltonian = mc.models.sk(N=8, seed=2)
    like = sampler_of("SK", "local", head)[0]
    sampler = AutoregressiveSampler(
        hamiltonian, BETA, like.tokens, like.prior, like.head, like.network, canonical=False
    )
    log_q = sampler.log_prob(all_states(8))
    assert np.exp(log_q).sum() == pytest.approx(1.0, abs=1e-5)
    assert np.abs(log_q - log_q[::-1]).max() > 0.05
    spins, recorded = sampler.sample(8000, torch.Generator().manual_seed(2))
    numbers = state_numbers(spins)
    assert np.abs(recorded - log_q[numbers]).max() < 2e-5
    assert chi_square_p(np.bincount(numbers, minlength=256), np.exp(log_q), 8000) > FALSE_ALARM


@pytest.mark.parametrize(("system", "prior", "head"), CASES)
def test_an_untrained_network_leaves_the_prior_exactly(system, prior, head):
    build, patch = SYSTEMS[system]
    hamiltonian = build()
    net = NetSettings(patch=patch, prior=prior, head=head, width=8, heads=2)
    untrained = build_sampler(hamiltonian, BETA, net, seed=3)
    alone = build_sampler(hamiltonian, BETA, NetSettings(patch=patch, prior=prior, head=head, net="none"))
    assert alone.network is None
    states = all_states(hamiltonian.n_spins)[::7]
    assert (untrained.log_prob(states) == alone.log_prob(states)).all()
    spins, log_q = untrained.sample(50, torch.Generator().manual_seed(1))
    same_spins, same_log_q = alone.sample(50, torch.Generator().manual_seed(1))
    assert (spins == same_spins).all()
    assert (log_q == same_log_q).all()


def test_the_published_initial_weights_do_not_leave_the_prior():
    net = NetSettings(patch=(4,), head="softmax", zero_head=False)
    hamiltonian = mc.models.sk(N=8, seed=2)
    alone = build_sampler(hamiltonian, BETA, NetSettings(patch=(4,), head="softmax", net="none"))
    states = all_states(8)
    log_q = build_sampler(hamiltonian, BETA, net).log_prob(states)
    assert np.abs(log_q - alone.log_prob(states)).max() > 0.1
    assert np.exp(log_q).sum() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.statistical
@pytest.mark.parametrize(("system", "prior", "head"), [("SK", "local", "tree"), ("p-spin", "none", "softmax")])
@pytest.mark.parametrize(("n", "max_batch"), [(1, 8), (7, 8), (8, 8), (33, 8), (5, 1), (4001, 1000)])
def test_any_number_of_states_in_any_batches(n, max_batch, system, prior, head):
    # The largest case is also a chi-square test: false alarm 1e-4 a case.
    original, log_q = sampler_of(system, prior, head)
    parts = (original.tokens, original.prior, original.head, original.network)
    sampler = AutoregressiveSampler(original.hamiltonian, BETA, *parts, max_batch=max_batch)
    spins, recorded = sampler.sample(n, torch.Generator().manual_seed(n))
    assert spins.shape == (n, sampler.tokens.n_spins)
    assert spins.dtype == np.int8
    assert recorded.shape == (n,)
    assert recorded.dtype == np.float64
    assert set(np.unique(spins)) <= {-1, 1}
    assert np.abs(recorded - sampler.log_prob(spins)).max() < 1e-5
    assert np.abs(recorded - log_q[state_numbers(spins)]).max() < 1e-5
    if n > 1000:
        counts = np.bincount(state_numbers(spins), minlength=len(log_q))
        assert chi_square_p(counts, np.exp(log_q), n) > FALSE_ALARM


def test_draws_depend_on_the_generator_only():
    sampler, _ = sampler_of("SK", "local", "tree")
    generator = torch.Generator().manual_seed(3)
    first, second = sampler.sample(40, generator), sampler.sample(40, generator)
    torch.manual_seed(99)
    again = sampler.sample(40, torch.Generator().manual_seed(3))
    assert (first[0] == again[0]).all()
    assert (first[1] == again[1]).all()
    assert (first[0] != second[0]).any()


def test_no_states_are_scored_as_none():
    sampler, _ = sampler_of("SK", "local", "tree")
    assert sampler.log_prob(np.empty((0, 8), np.int8)).shape == (0,)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (dict(head="round"), "net.head=round: tree, softmax"),
        (dict(net="cnn"), "net=cnn: transformer, linear, anyorder, mlp or none"),
        (dict(width=10, heads=4), "net.heads=4 does not divide net.width=10"),
        (dict(prior="best"), "prior=best"),
        (dict(patch=(3,)), "does not divide"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        build_sampler(mc.models.sk(N=8, seed=1), BETA, NetSettings(**changes))
