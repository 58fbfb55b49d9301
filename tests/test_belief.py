"""Belief prior: exact on trees, the same drawn or given, a normalised law nearer to Boltzmann's than `local`."""

import math

import numpy as np
import pytest
import torch

import mc
from nmcmc.priors import belief
from nmcmc.priors.belief import BeliefPrior
from nmcmc.priors.local import LocalPrior
from nmcmc.tokens import Tokens, group_tokens, tokens_for
from tests.enumerated import all_states, law


def chain(n_spins, seed, field):
    rng = np.random.default_rng(seed)
    bonds = np.c_[np.arange(n_spins - 1), np.arange(1, n_spins)]
    return graph(n_spins, bonds, rng, field)


def tree(n_spins, seed, field):
    rng = np.random.default_rng(seed)
    bonds = np.array([[rng.integers(i), i] for i in range(1, n_spins)])
    return graph(n_spins, bonds, rng, field)


def star(n_spins, seed, field):
    bonds = np.c_[np.zeros(n_spins - 1, int), np.arange(1, n_spins)]
    return graph(n_spins, bonds, np.random.default_rng(seed), field)


def two_trees(n_spins, seed, field):
    """Two trees and a spin without bonds."""
    rng = np.random.default_rng(seed)
    half = (n_spins - 1) // 2
    first = [[rng.integers(i), i] for i in range(1, half)]
    second = [[rng.integers(half, i), i] for i in range(half + 1, n_spins - 1)]
    return graph(n_spins, np.array(first + second), rng, field)


def graph(n_spins, bonds, rng, field):
    fields = (np.arange(n_spins)[:, None], field * rng.normal(size=n_spins))
    return mc.Hamiltonian(n_spins, [(bonds, rng.normal(size=len(bonds))), fields])


def shuffled_tokens(n_spins, k, seed):
    return Tokens(np.random.default_rng(seed).permutation(n_spins).reshape(-1, k))


def exact_log_odds(hamiltonian, beta, tokens, states):
    """Log-odds (n, N) of every spin of the order given those before it, from the enumerated law."""
    every, p = law(hamiltonian, beta)
    order = tokens.sites.reshape(-1)
    result = np.empty(states.shape)
    for row, state in enumerate(states):
        alike = np.ones(len(every), bool)
        for n, site in enumerate(order):
            up = every[:, site] > 0
            result[row, n] = math.log(p[alike & up].sum() / p[alike & ~up].sum())
            alike &= every[:, site] == state[site]
    return result


def log_law(prior, hamiltonian):
    """ln q (2^N,) float64 of all states: the product of the conditionals."""
    states = torch.from_numpy(all_states(hamiltonian.n_spins)).float()
    odds = prior.log_odds_of(states).double()
    return torch.nn.functional.logsigmoid(odds * states[:, prior.sites.view(-1)]).sum(1).numpy()


def random_states(n, n_spins, seed=6):
    return np.random.default_rng(seed).choice(np.array([-1, 1], np.int8), size=(n, n_spins))


@pytest.mark.parametrize("field", [0.0, 0.7])
@pytest.mark.parametrize("build", [chain, tree, star, two_trees])
def test_log_odds_are_exact_on_trees(build, field):
    for seed in range(3):
        hamiltonian, tokens = build(11, seed, field), shuffled_tokens(11, 1, seed)
        states = random_states(4, 11, seed)
        prior = BeliefPrior(hamiltonian, tokens, 0.9, sweeps=14, radius=11)
        found = prior.log_odds_of(torch.from_numpy(states).float()).numpy()
        assert found == pytest.approx(exact_log_odds(hamiltonian, 0.9, tokens, states), abs=2e-5)


def test_one_bond_is_seen_by_one_hop():
    """A chain drawn end to end, fields at the neighbour only: the one-hop formula is all there is."""
    hamiltonian = mc.Hamiltonian(2, [(np.array([[0, 1]]), np.array([0.8])), (np.array([[1]]), np.array([-0.4]))])
    tokens = group_tokens(2, 1)
    states = all_states(2)
    found = BeliefPrior(hamiltonian, tokens, 1.3, sweeps=0).log_odds_of(torch.from_numpy(states).float()).numpy()
    assert found == pytest.approx(exact_log_odds(hamiltonian, 1.3, tokens, states), abs=1e-5)


MODELS = {
    "SK": lambda: mc.models.sk(N=40, seed=1),
    "SK with fields": lambda: mc.models.sk(N=40, h=0.3, seed=1),
    "small SK": lambda: mc.models.sk(N=12, h=0.3, seed=1),
    "3D glass": lambda: mc.models.ea3d(L=4, seed=1),
    "2D glass with fields": lambda: mc.models.ea2d(L=6, J="gaussian", h="gauss:0.5", seed=4),
    "random graph": lambda: mc.models.rrg(N=24, seed=3),
    "fields alone": lambda: mc.Hamiltonian(6, [(np.arange(6)[:, None], np.linspace(-1.0, 1.0, 6))]),
    "two-spin terms missing": lambda: mc.Hamiltonian(4, []),
    "one spin": lambda: mc.Hamiltonian(1, [(np.array([[0]]), np.array([0.3]))]),
}


@pytest.mark.parametrize("sweeps", [0, 1, None])
@pytest.mark.parametrize("model", MODELS)
def test_drawing_says_what_given_states_say(model, sweeps):
    hamiltonian = MODELS[model]()
    tokens = tokens_for(hamiltonian)
    prior = BeliefPrior(hamiltonian, tokens, 0.7, sweeps=sweeps)
    states = torch.from_numpy(random_states(5, hamiltonian.n_spins)).float()
    at_once = prior.log_odds_of(states)
    assert at_once.shape == (5, hamiltonian.n_spins)
    # In another batch, and not asked for every spin.
    state = prior.start(2)
    for n, site in enumerate(tokens.sites.reshape(-1)):
        if n % 3 != 1:
            odds = prior.log_odds(state, n)
            assert odds.shape == (2,)
            assert odds.numpy() == pytest.approx(at_once[:2, n].numpy(), abs=1e-4)
        prior.advance(state, n, states[:2, site])
    assert torch.equal(state.rows[:-1].T, states[:2])


@pytest.mark.parametrize("model", ["SK", "SK with fields", "3D glass", "2D glass with fields"])
def test_one_hop_is_its_formula(model):
    hamiltonian, beta = MODELS[model](), 0.7
    tokens = tokens_for(hamiltonian)
    order = tokens.sites.reshape(-1)
    states = random_states(3, hamiltonian.n_spins)
    found = BeliefPrior(hamiltonian, tokens, beta, sweeps=0).log_odds_of(torch.from_numpy(states).float()).numpy()
    coupling = np.zeros((hamiltonian.n_spins, hamiltonian.n_spins))
    for (i, j), strength in zip(*hamiltonian.bonds, strict=True):
        coupling[i, j] = coupling[j, i] = strength
    for n in range(0, len(order), 7):
        past, rest, i = order[:n], order[n + 1 :], order[n]
        for row, state in enumerate(states):
            field = beta * (hamiltonian.fields + coupling[:, past] @ state[past])
            hop = np.arctanh(np.tanh(beta * coupling[i, rest]) * np.tanh(field[rest]))
            assert found[row, n] == pytest.approx(2.0 * (field[i] + hop.sum()), abs=2e-5)


def test_small_graphs_have_a_normalised_law_nearer_to_boltzmann_than_local(monkeypatch):
    # N = 10 is small for TAP, so both ways are held against it: messages, and TAP by a lower bound on "dense".
    for dense in (belief.DENSE, 2):
        monkeypatch.setattr(belief, "DENSE", dense)
        for seed, field in ((1, 0.0), (2, 0.4), (3, 0.0)):
            hamiltonian = mc.models.sk(N=10, h=field, seed=seed)
            tokens, beta = group_tokens(10, 2), 1.0
            prior = BeliefPrior(hamiltonian, tokens, beta)
            assert isinstance(prior.undrawn, belief.DenseFields) == (dense == 2)
            states, p = law(hamiltonian, beta)
            log_q = log_law(prior, hamiltonian)
            assert np.exp(log_q).sum() == pytest.approx(1.0, abs=1e-5)
            log_weight = -beta * hamiltonian.energy(states)
            log_z = np.logaddexp.reduce(log_weight)
            mean_weight = np.exp(log_q) @ np.exp(log_weight - log_q - log_z)
            assert mean_weight == pytest.approx(1.0, abs=1e-9)
            divergence = p @ (np.log(p) - log_q)
            of_local = p @ (np.log(p) - log_law(LocalPrior(hamiltonian, tokens, beta), hamiltonian))
            one_hop = p @ (np.log(p) - log_law(BeliefPrior(hamiltonian, tokens, beta, sweeps=0), hamiltonian))
            assert -1e-6 < divergence < 0.2 * one_hop < 0.2 * of_local


@pytest.mark.parametrize(
    ("build", "beta"),
    [
        (lambda: mc.models.ea2d(Lx=4, Ly=3, seed=1), 0.6),
        (lambda: mc.models.ea3d(Lx=3, Ly=2, Lz=2, J="gaussian", boundary="open", seed=2), 0.5),
        (lambda: mc.models.rrg(N=12, degree=3, seed=3), 0.6),
    ],
)
def test_loops_of_three_and_four_bonds_are_worth_their_correction(build, beta, monkeypatch):
    hamiltonian = build()
    _, p = law(hamiltonian, beta)
    prior = BeliefPrior(hamiltonian, tokens_for(hamiltonian), beta)
    with_loops = p @ (np.log(p) - log_law(prior, hamiltonian))
    monkeypatch.setattr(belief.SparseFields, "loops", lambda *_: 0.0)
    assert with_loops < p @ (np.log(p) - log_law(prior, hamiltonian))


@pytest.mark.parametrize("model", ["SK", "3D glass"])
def test_turning_all_spins_round_turns_all_log_odds_round(model):
    hamiltonian = MODELS[model]()
    prior = BeliefPrior(hamiltonian, tokens_for(hamiltonian), 0.8)
    states = torch.from_numpy(random_states(4, hamiltonian.n_spins)).float()
    odds = prior.log_odds_of(states)
    assert (odds[:, 0] == 0.0).all()
    assert torch.equal(prior.log_odds_of(-states), -odds)


@pytest.mark.parametrize("beta", [0.0, 2.0, 60.0])
@pytest.mark.parametrize("model", ["SK with fields", "3D glass", "2D glass with fields", "random graph"])
def test_log_odds_stay_finite_from_infinite_to_low_temperature(model, beta):
    hamiltonian = MODELS[model]()
    prior = BeliefPrior(hamiltonian, tokens_for(hamiltonian), beta)
    odds = prior.log_odds_of(torch.from_numpy(random_states(8, hamiltonian.n_spins)).float())
    assert torch.isfinite(odds).all()
    if beta == 0.0:
        assert (odds == 0.0).all()


def test_a_bond_passes_fields_on_without_saturating():
    coupling = torch.tensor([-30.0, -2.0, -0.1, 0.0, 1e-3, 0.7, 12.0, 40.0])[:, None]
    field = torch.tensor([-35.0, -9.0, -0.5, 0.0, 1e-4, 2.0, 25.0]).expand(8, 7)
    found = belief.through_bond(*belief.bond_tables(coupling), field)
    plus, minus = (coupling + field).double().abs(), (coupling - field).double().abs()
    expected = 0.5 * (plus - minus + torch.log1p(torch.exp(-2 * plus)) - torch.log1p(torch.exp(-2 * minus)))
    assert found.numpy() == pytest.approx(expected.numpy(), abs=2e-6, rel=1e-6)


@pytest.mark.parametrize(
    ("build", "options", "complaint"),
    [
        (lambda: mc.models.pspin(N=8, p=3, seed=1), {}, "not terms of 3 spins; use prior=local"),
        (lambda: mc.models.sk(N=8, seed=1), {"sweeps": -1}, "sweeps=-1: 0"),
        (lambda: mc.models.sk(N=8, seed=1), {"radius": 0}, "radius=0: at least 1"),
    ],
)
def test_what_the_prior_cannot_do_is_refused(build, options, complaint):
    hamiltonian = build()
    with pytest.raises(ValueError, match=complaint):
        BeliefPrior(hamiltonian, tokens_for(hamiltonian), 0.5, **options)
