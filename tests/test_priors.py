"""Priors: step by step and all at once they say the same; lookahead is exact where nothing is left below."""

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

import mc
from mc.exact import exact
from nmcmc.networks.heads import TreeHead
from nmcmc.priors import make_prior, prior_refusal
from nmcmc.recipe import NetSettings, resolved
from nmcmc.sampler import AutoregressiveSampler
from nmcmc.tokens import tokens_for
from tests.enumerated import law

BETA = 0.6
PRIORS = ("none", "local", "lookahead")  # of whole patches; the others have test files of their own

MODELS = {
    "torus": lambda **size: mc.models.ising(**size),
    "cylinder along x": lambda **size: mc.models.ising(**size, boundary="periodic,open"),
    "cylinder along y": lambda **size: mc.models.ising(**size, boundary="open,periodic"),
    "open": lambda **size: mc.models.ising(**size, boundary="open"),
    "glass with fields": lambda **size: mc.models.ea2d(**size, J="gaussian", h="gauss:0.5", seed=4),
    "open glass": lambda **size: mc.models.ea2d(**size, J="gaussian", boundary="open", seed=5),
}
# (Lx, Ly) and patch: several rows and columns, two columns, one column, one row, single spins
SHAPES = {
    "8x8, 2x4": (dict(L=8), (2, 4)),
    "6x4, 2x2": (dict(Lx=6, Ly=4), (2, 2)),
    "8x3, 1x4": (dict(Lx=8, Ly=3), (1, 4)),
    "3x4, 4x1": (dict(Lx=3, Ly=4), (4, 1)),
    "4x8, 4x2": (dict(Lx=4, Ly=8), (4, 2)),
    "4x4, 2x4 one column": (dict(L=4), (2, 4)),
    "8x4, 4x2 one row": (dict(Lx=8, Ly=4), (4, 2)),
    "3x3, 1x1": (dict(L=3), (1, 1)),
    "3x3, 3x3 one patch": (dict(L=3), (3, 3)),
}
LATTICE_CASES = [(model, shape) for model in MODELS for shape in SHAPES]


GRAPHS = {
    "SK": (lambda: mc.models.sk(N=12, h=0.2, seed=1), (4,)),
    "p-spin": (lambda: mc.models.pspin(N=9, p=3, seed=2), (3,)),
    "random graph": (lambda: mc.models.rrg(N=12, seed=3), (2,)),
    "torus 3x3x3": (lambda: mc.models.ising(L=3, dim=3), (1, 1, 3)),
}


SPIN_CASES = [
    pytest.param(*case, name) for case in LATTICE_CASES for name in PRIORS if case[0] in ("torus", "open glass")
]


def made(model, shape, name):
    sizes, patch = SHAPES[shape]
    hamiltonian = MODELS[model](**sizes)
    tokens = tokens_for(hamiltonian, patch)
    return hamiltonian, tokens, make_prior(name, hamiltonian, tokens, BETA)


def random_states(n, n_spins, seed=6):
    return np.random.default_rng(seed).choice(np.array([-1, 1], np.int8), size=(n, n_spins))


def check_steps(tokens, prior):
    states = torch.from_numpy(random_states(6, tokens.n_spins)).float()
    at_once = prior.patch_logits_of(states)
    assert at_once.shape == (tokens.n_tokens, 6, tokens.vocabulary)
    values = prior.token_values(states)
    assert (values.numpy() == tokens.encode(states.numpy())).all()
    state = prior.start(6)
    for j in range(tokens.n_tokens):
        stepwise = prior.patch_logits(state, j)
        expected = torch.log_softmax(at_once[j].double(), -1).numpy()
        assert np.abs(torch.log_softmax(stepwise.double(), -1).numpy() - expected).max() < 2e-5
        prior.fix(state, j, values[:, j])
    assert torch.equal(state.rows[:-1].T, states)


def check_spin_view(tokens, prior):
    states = torch.from_numpy(random_states(6, tokens.n_spins)).float()
    at_once = prior.log_odds_of(states)
    assert at_once.shape == (6, tokens.n_spins)
    state = prior.start(6)
    for n in range(tokens.n_spins):
        assert prior.log_odds(state, n).numpy() == pytest.approx(at_once[:, n].numpy(), abs=1e-4)
        prior.advance(state, n, states[:, tokens.sites.reshape(-1)[n]])


@pytest.mark.parametrize("name", PRIORS)
@pytest.mark.parametrize(("model", "shape"), LATTICE_CASES)
def test_logits_while_drawing_are_those_of_the_whole_state(model, shape, name):
    _, tokens, prior = made(model, shape, name)
    check_steps(tokens, prior)


@pytest.mark.parametrize("name", ["none", "local"])
@pytest.mark.parametrize("graph", GRAPHS)
def test_logits_while_drawing_are_those_of_the_whole_state_on_graphs(graph, name):
    build, patch = GRAPHS[graph]
    hamiltonian = build()
    tokens = tokens_for(hamiltonian, patch)
    prior = make_prior(name, hamiltonian, tokens, BETA)
    check_steps(tokens, prior)
    check_spin_view(tokens, prior)


@pytest.mark.parametrize(("model", "shape", "name"), SPIN_CASES)
def test_log_odds_spin_by_spin_are_those_of_the_whole_state(model, shape, name):
    _, tokens, prior = made(model, shape, name)
    check_spin_view(tokens, prior)


@pytest.mark.parametrize("name", PRIORS)
def test_log_odds_of_spins_are_marginals_of_the_patch_law(name):
    _, tokens, prior = made("glass with fields", "6x4, 2x2", name)
    states = torch.from_numpy(random_states(4, tokens.n_spins)).float()
    logits, odds = prior.patch_logits_of(states).double().numpy(), prior.log_odds_of(states).numpy()
    values = tokens.encode(states.numpy())
    for j in range(tokens.n_tokens):
        for m in range(tokens.k):
            for row in range(4):
                agree = tokens.encode(tokens.decode(np.arange(16)[:, None].repeat(tokens.n_tokens, 1)))[:, j]
                agree = agree[agree % 2**m == values[row, j] % 2**m]
                up = agree >> m & 1 == 1
                expected = logsumexp(logits[j, row, agree[up]]) - logsumexp(logits[j, row, agree[~up]])
                assert odds[row, j * tokens.k + m] == pytest.approx(expected, abs=1e-4)


def prior_alone(hamiltonian, patch, name, beta, canonical=None):
    tokens = tokens_for(hamiltonian, patch)
    prior = make_prior(name, hamiltonian, tokens, beta)
    sampler = AutoregressiveSampler(hamiltonian, beta, tokens, prior, TreeHead(tokens.vocabulary), None, canonical)
    sampler.max_batch = 8192
    return sampler


ONE_ROW = {
    "open strip, 2x2": (lambda: mc.models.ising(Lx=6, Ly=2, boundary="open"), (2, 2)),
    "ring of width 2, 2x2": (lambda: mc.models.ising(Lx=6, Ly=2, boundary="periodic,open"), (2, 2)),
    "ring of width 2 in a field, 2x1": (lambda: mc.models.ising(Lx=6, Ly=2, boundary="periodic,open", h=0.3), (2, 1)),
    "glassy ring with fields, 2x3": (
        lambda: mc.models.ea2d(Lx=6, Ly=2, J="gaussian", h="gauss:0.7", boundary="periodic,open", seed=1), (2, 3),
    ),
    "glassy strip with fields, 2x2": (
        lambda: mc.models.ea2d(Lx=6, Ly=2, J="gaussian", h="gauss:0.7", boundary="open", seed=2), (2, 2),
    ),
    "glassy chain, 1x2": (lambda: mc.models.ea2d(Lx=8, Ly=1, J="gaussian", boundary="open", seed=3), (1, 2)),
    "glassy ring, 1x4": (
        lambda: mc.models.ea2d(Lx=12, Ly=1, J="gaussian", boundary="periodic,open", seed=3), (1, 4),
    ),
    "ring, 1x1": (lambda: mc.models.ising(Lx=5, Ly=1, boundary="periodic,open"), (1, 1)),
    "open strip, 3x1": (lambda: mc.models.ising(Lx=4, Ly=3, boundary="open", h=0.1), (3, 1)),
    "torus of one patch row, 3x2": (lambda: mc.models.ea2d(Lx=4, Ly=3, J="gaussian", h="gauss:0.2", seed=4), (3, 2)),
    "one patch": (lambda: mc.models.ea2d(L=3, J="gaussian", h="gauss:0.2", seed=5), (3, 3)),
    # Patches as wide as an open lattice, and below them the two rows that the guess sums out exactly.
    "two wide patches, 2x3": (
        lambda: mc.models.ea2d(Lx=3, Ly=4, J="gaussian", h="gauss:0.7", boundary="open", seed=6), (2, 3),
    ),
    "three wide patches, 1x4": (
        lambda: mc.models.ea2d(Lx=4, Ly=3, J="gaussian", h="gauss:0.7", boundary="open", seed=7), (1, 4),
    ),
}  # fmt: skip


@pytest.mark.parametrize("beta", [0.44, 1.5])
@pytest.mark.parametrize("name", ONE_ROW)
def test_lookahead_is_exact_where_nothing_is_left_below(name, beta):
    build, patch = ONE_ROW[name]
    hamiltonian = build()
    sampler = prior_alone(hamiltonian, patch, "lookahead", beta)
    states, p = law(hamiltonian, beta)
    log_q = sampler.log_prob(states)
    # Token by token a float32 law, so relative to ln p = -20 the last digits are lost.
    assert np.abs(log_q - np.log(p)).max() < 1e-4
    spins, drawn = sampler.sample(500, torch.Generator().manual_seed(1))
    log_weight = -beta * hamiltonian.energy(spins) - drawn
    log_z = exact(hamiltonian, beta).log_z
    assert log_weight == pytest.approx(np.full(500, log_z), abs=1e-4)


@pytest.mark.parametrize("model", ["torus", "cylinder along y", "open", "glass with fields"])
@pytest.mark.parametrize(("size", "patch"), [(dict(L=4), (2, 2)), (dict(L=4), (1, 4)), (dict(Lx=4, Ly=3), (1, 2))])
def test_lookahead_is_exact_in_the_last_row_of_patches(model, size, patch):
    hamiltonian = MODELS[model](**size)
    tokens = tokens_for(hamiltonian, patch)
    prior = make_prior("lookahead", hamiltonian, tokens, BETA)
    states, p = law(hamiltonian, BETA)
    values = tokens.encode(states)
    joint = np.zeros((tokens.vocabulary,) * tokens.n_tokens)
    joint[tuple(values.T)] = p
    chosen = np.random.default_rng(1).choice(len(states), size=10, p=p)
    found = torch.log_softmax(
        prior.patch_logits_of(torch.from_numpy(states[chosen]).float()).double(), -1
    ).numpy()  # (T, 10, V)
    last_row = range(tokens.n_tokens - size.get("Lx", size.get("L")) // patch[1], tokens.n_tokens)
    for j in last_row:
        past_and_j = joint.sum(axis=tuple(range(j + 1, tokens.n_tokens)))
        for row, state in enumerate(chosen):
            conditional = past_and_j[tuple(values[state, :j])]
            assert found[j, row] == pytest.approx(np.log(conditional / conditional.sum()), abs=3e-5)


def test_better_priors_are_nearer_to_the_4x4_torus_exactly():
    hamiltonian, beta = mc.models.ising(L=4), mc.models.critical_beta(mc.models.ising(L=4))
    states, p = law(hamiltonian, beta)
    divergence = {}
    for name in PRIORS:
        log_q = prior_alone(hamiltonian, (2, 2), name, beta).log_prob(states)
        assert np.exp(log_q).sum() == pytest.approx(1.0, abs=1e-5)
        divergence[name] = float(np.exp(log_q) @ (log_q - np.log(p)))
    assert 0.0 < divergence["lookahead"] < 0.7 * divergence["local"]
    assert divergence["local"] < 0.5 * divergence["none"]


@pytest.mark.statistical
def test_better_priors_are_nearer_to_the_8x8_critical_torus():
    # Differences of the mean of ln q + beta E over 2000 draws each exceed 8 errors; false alarm below 1e-14.
    hamiltonian = mc.models.ising(L=8)
    beta = mc.models.critical_beta(hamiltonian)
    log_z = exact(hamiltonian, beta).log_z
    mean, error = {}, {}
    for name in PRIORS:
        spins, log_q = prior_alone(hamiltonian, (2, 4), name, beta).sample(2000, torch.Generator().manual_seed(2))
        gap = log_q + beta * hamiltonian.energy(spins) + log_z
        mean[name], error[name] = gap.mean(), gap.std() / np.sqrt(len(gap))
    for better, worse in (("lookahead", "local"), ("local", "none")):
        assert mean[worse] - mean[better] > 8 * np.hypot(error[worse], error[better])
    assert mean["lookahead"] > 8 * error["lookahead"]


def test_local_prior_of_the_last_token_is_exact_on_any_hamiltonian():
    for hamiltonian, patch in (
        (mc.models.pspin(N=9, p=3, seed=2), (3,)),
        (mc.models.sk(N=8, h=0.3, seed=2), (4,)),
        (mc.models.ising(L=3), (1, 3)),
    ):
        tokens = tokens_for(hamiltonian, patch)
        states = random_states(5, tokens.n_spins)
        prior = make_prior("local", hamiltonian, tokens, BETA)
        found = torch.log_softmax(prior.patch_logits_of(torch.from_numpy(states).float())[-1].double(), -1)
        every = np.repeat(states[:, None], tokens.vocabulary, axis=1)
        every[:, :, tokens.sites[-1]] = tokens.table
        weight = -BETA * hamiltonian.energy(every)
        assert found.numpy() == pytest.approx(weight - logsumexp(weight, axis=1, keepdims=True), abs=2e-5)


def test_no_prior_is_uniform():
    hamiltonian = mc.models.sk(N=8, h=0.3, seed=2)
    sampler = prior_alone(hamiltonian, (4,), "none", BETA)
    _, log_q = sampler.sample(20, torch.Generator().manual_seed(1))
    assert log_q == pytest.approx(np.full(20, -8 * np.log(2.0)), abs=1e-9)


@pytest.mark.parametrize("beta", [0.0, 3.0, 8.0])
@pytest.mark.parametrize("name", PRIORS)
def test_priors_stay_finite_from_infinite_to_low_temperature(name, beta):
    check_finite(mc.models.ising(L=8), (2, 4), name, beta)
    check_finite(mc.models.ea2d(L=8, J="gaussian", h="gauss:1", seed=1), (4, 2), name, beta)


@pytest.mark.parametrize("patch", [(2, 4), (4, 2)])
@pytest.mark.parametrize("name", PRIORS)
def test_priors_stay_finite_at_beta_40(name, patch):
    check_finite(mc.models.ising(L=8), patch, name, 40.0)


def check_finite(hamiltonian, patch, name, beta):
    sampler = prior_alone(hamiltonian, patch, name, beta)
    spins, log_q = sampler.sample(40, torch.Generator().manual_seed(3))
    assert np.isfinite(log_q).all()
    others = random_states(40, hamiltonian.n_spins)
    assert np.isfinite(sampler.log_prob(others)).all()
    assert sampler.log_prob(spins) == pytest.approx(log_q, abs=1e-3 * max(beta, 1.0))


def next_nearest():
    lattice = mc.models.ising(L=4).lattice
    return mc.Hamiltonian(16, [(np.array([[0, 1], [0, 5]]), np.ones(2))], lattice=lattice)


@pytest.mark.parametrize(
    ("build", "patch", "complaint"),
    [
        (lambda: mc.models.ising(L=4, dim=3), (1, 2, 4), "two-dimensional lattice; use prior=local"),
        (lambda: mc.models.sk(N=8, seed=1), (4,), "two-dimensional lattice"),
        (next_nearest, (2, 2), "nearest-neighbour bonds only"),
        (lambda: mc.models.ising(Lx=12, Ly=3), (1, 12), "patch of 1x12 needs too large a table"),
        (lambda: mc.models.pspin(N=8, p=3, seed=1), (4,), "use prior=local"),
    ],
)
def test_lookahead_is_refused_where_it_does_not_apply(build, patch, complaint):
    hamiltonian = build()
    tokens = tokens_for(hamiltonian, patch)
    with pytest.raises(ValueError, match=complaint):
        make_prior("lookahead", hamiltonian, tokens, BETA)
    assert "lookahead" in prior_refusal("lookahead", hamiltonian, tokens)


@pytest.mark.parametrize(
    ("build", "changes", "name", "patch"),
    [
        (lambda: mc.models.ising(L=8), {}, "boundary-mps", (1, 8)),
        (lambda: mc.models.ea2d(L=5, h="gauss:1", seed=1), {}, "boundary-mps", (1, 5)),
        (lambda: mc.models.ising(L=8), {"patch": (2, 4)}, "lookahead", (2, 4)),
        (lambda: mc.models.ising(L=8), {"head": "softmax"}, "lookahead", (2, 4)),
        (lambda: mc.models.ea3d(L=4, seed=1), {}, "belief", (1, 1, 4)),
        (lambda: mc.models.sk(N=12, seed=1), {}, "belief", (6,)),
        (lambda: mc.models.pspin(N=8, p=3, seed=1), {}, "local", (8,)),
    ],
)
def test_the_strongest_prior_that_applies_is_the_default(build, changes, name, patch):
    net = resolved(build(), NetSettings(**changes))
    assert (net.prior, net.patch) == (name, patch)


def test_an_unknown_prior_is_refused():
    hamiltonian = mc.models.ising(L=4)
    with pytest.raises(ValueError, match="prior=magic: none, local, lookahead"):
        make_prior("magic", hamiltonian, tokens_for(hamiltonian), BETA)
