"""The linear residual: labels against enumeration, one law in two ways, and fits that never make a prior worse."""

import numpy as np
import pytest
import torch

import mc
from mc.equilibrium import equilibrium_states
from nmcmc.linear_fit import choose_window, fit_linear, self_made_states
from nmcmc.networks.linear import LinearResidual, nearest_drawn
from nmcmc.priors import make_prior
from nmcmc.row_labels import local_fields, row_labels
from nmcmc.tokens import group_tokens, patch_tokens, tokens_for
from tests.enumerated import law, law_p_value

BETA = 0.8
EDGES = ("periodic", "open", "periodic,open", "open,periodic")
GRAPHS = {
    "SK": lambda: mc.models.sk(N=9, h=0.3, seed=1),
    "p-spin": lambda: mc.models.pspin(N=8, p=3, seed=2),
    "random graph": lambda: mc.models.rrg(N=10, seed=3),
    "cube": lambda: mc.models.ea3d(Lx=3, Ly=2, Lz=2, boundary="open", seed=1),
}


def single(hamiltonian):
    """Tokens of one spin."""
    lattice = hamiltonian.lattice
    return (
        group_tokens(hamiltonian.n_spins, 1) if lattice is None else patch_tokens(lattice, (1,) * lattice.dimension)
    )


def randomised(residual, seed=0, size=0.5):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        residual.weight.copy_(size * torch.randn(residual.weight.shape, generator=generator))
    return residual


def conditionals(states, probabilities, given):
    """p(s_i = +1 | spins given[i]) of every state, by summing over the law."""
    result = np.empty(states.shape)
    for i, sites in enumerate(given):
        key = (states[:, sites] > 0) @ (1 << np.arange(len(sites))) if len(sites) else np.zeros(len(states), int)
        total = np.bincount(key, probabilities)
        up = np.bincount(key, probabilities * (states[:, i] > 0))
        result[:, i] = up[key] / total[key]
    return result


@pytest.mark.parametrize("boundary", EDGES)
def test_row_labels_are_conditionals_of_the_law(boundary):
    hamiltonian = mc.models.ea2d(Lx=4, Ly=3, J="gaussian", h="gauss:0.4", seed=2, boundary=boundary)
    states, probabilities = law(hamiltonian, BETA)
    given = [[i for i in range(12) if i // 4 != n // 4 or i < n] for n in range(12)]
    labels = row_labels(hamiltonian, BETA, states)
    assert labels.dtype == np.float32
    assert labels == pytest.approx(conditionals(states, probabilities, given), abs=1e-6)


@pytest.mark.parametrize(
    ("boundary", "Ly", "Lz"), [("open", 2, 2), ("periodic,periodic,open", 3, 1), ("periodic,open,open", 2, 2)]
)
def test_row_labels_of_a_cube_are_conditionals_of_the_law(boundary, Ly, Lz):
    hamiltonian = mc.models.ea3d(Lx=3, Ly=Ly, Lz=Lz, J="gaussian", h=0.2, seed=2, boundary=boundary)
    states, probabilities = law(hamiltonian, BETA)
    sites = range(hamiltonian.n_spins)
    given = [[i for i in sites if i // 3 != n // 3 or i < n] for n in sites]
    labels = row_labels(hamiltonian, BETA, states)
    assert labels == pytest.approx(conditionals(states, probabilities, given), abs=1e-6)


@pytest.mark.parametrize("name", [name for name in GRAPHS if name != "cube"])
def test_labels_elsewhere_are_the_law_given_all_other_spins(name):
    hamiltonian = GRAPHS[name]()
    states, probabilities = law(hamiltonian, BETA)
    given = [[i for i in range(hamiltonian.n_spins) if i != n] for n in range(hamiltonian.n_spins)]
    labels = row_labels(hamiltonian, BETA, states)
    assert labels == pytest.approx(conditionals(states, probabilities, given), abs=1e-6)
    changes = [hamiltonian.energy_change(states[5], i) for i in range(hamiltonian.n_spins)]
    assert 2.0 * states[5] * local_fields(hamiltonian, states[5:6])[0] == pytest.approx(changes)


def test_labels_at_low_temperature_are_finite_and_sure():
    labels = row_labels(mc.models.ea2d(L=4, seed=1), 200.0, np.ones((1, 16), np.int8))
    assert np.isfinite(labels).all()
    assert (np.minimum(labels, 1 - labels) < 1e-3).any()


CASES = {
    "torus": (lambda: mc.models.ea2d(L=4, J="gaussian", seed=1), (1, 4), 2),
    "torus, window 1": (lambda: mc.models.ea2d(Lx=4, Ly=3, seed=1), (1, 1), 1),
    "cylinder with fields": (lambda: mc.models.ea2d(Lx=4, Ly=3, h=0.3, boundary="open,periodic", seed=1), (1, 2), 3),
    "open": (lambda: mc.models.ising(Lx=4, Ly=3, boundary="open"), (1, 4), 2),
    "tall patches": (lambda: mc.models.ea2d(L=4, seed=1), (2, 2), 1),
} | {name: (model, None, 1) for name, model in GRAPHS.items()}


def case(name):
    model, patch, window = CASES[name]
    hamiltonian = model()
    tokens = single(hamiltonian) if patch is None else tokens_for(hamiltonian, patch)
    return hamiltonian, tokens, LinearResidual(hamiltonian, tokens, window)


def step_by_step(residual, odds, spins):
    """Log-odds from `correct`, with nonsense where nothing is drawn yet."""
    rows = torch.full((residual.n_spins + 1, len(spins)), float("nan"))
    rows[-1] = 1.0
    found = []
    for n, site in enumerate(residual.order.tolist()):
        drawn = rows.clone()
        near = residual.neighbours[n]
        unused = near[residual.present[n, : residual.n_near] == 0]
        assert (unused == residual.n_spins).all()
        found.append(residual.correct(None, odds[:, n], drawn, n))
        rows[site] = spins[:, site]
    return torch.stack(found, 1)


@pytest.mark.parametrize("name", CASES)
def test_step_by_step_equals_all_at_once_and_reads_the_past_only(name):
    _, tokens, residual = case(name)
    randomised(residual)
    generator = torch.Generator().manual_seed(1)
    spins = 2.0 * (torch.rand(50, tokens.n_spins, generator=generator) < 0.5) - 1.0
    odds = 6.0 * torch.randn(50, tokens.n_spins, generator=generator)
    with torch.no_grad():
        found = residual.correct_all(odds, spins)
        torch.testing.assert_close(step_by_step(residual, odds, spins), found, atol=1e-5, rtol=1e-5)
        place = np.argsort(tokens.sites.reshape(-1))
        for n in range(tokens.n_spins):
            near = residual.neighbours[n].numpy()
            near = near[near < tokens.n_spins]
            assert (place[near] < n).all()
            assert len(set(near.tolist())) == len(near)
            rows = torch.cat([spins.T, torch.ones(1, 50)])
            features = residual.features(n, odds[:, n], rows)
            torch.testing.assert_close(odds[:, n] + residual.weight[n] @ features, found[:, n], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_q_is_normalised_and_without_weights_it_is_the_prior(name):
    hamiltonian, tokens, residual = case(name)
    states, _ = law(hamiltonian, BETA)
    spins = torch.from_numpy(states).float()
    signs = spins[:, residual.order].double()
    with torch.no_grad():
        odds = make_prior("local", hamiltonian, tokens, BETA).log_odds_of(spins)
        assert torch.equal(residual.correct_all(odds, spins), odds)
        corrected = randomised(residual).correct_all(odds, spins).double()
    total = torch.nn.functional.logsigmoid(signs * corrected).sum(1).exp().sum().item()
    assert total == pytest.approx(1.0, abs=1e-5)
    if hamiltonian.is_z2_symmetric:  # all features are odd: the correction of -s is minus that of s
        torch.testing.assert_close(corrected.flip(0), -corrected, atol=1e-4, rtol=1e-4)


def test_the_frontier_and_the_first_row():
    residual = LinearResidual(mc.models.ea2d(L=5, seed=1), patch_tokens(mc.models.ea2d(L=5).lattice, (1, 1)), 1)
    near = [sorted(set(sites) - {25}) for sites in residual.neighbours.tolist()]
    assert near[0] == []
    assert near[2] == [1]
    assert near[4] == [0, 3]
    assert near[7] == [1, 2, 3, 6]  # (1, 2): left, above and right above; of row 0 what these lack
    assert near[17] == [1, 2, 3, 12, 13, 16]
    whole = LinearResidual(mc.models.ea2d(L=5, seed=1), patch_tokens(mc.models.ea2d(L=5).lattice, (1, 1)), 9)
    assert sorted(set(whole.neighbours[17].tolist()) - {25}) == [0, 1, 2, 3, 4, 12, 13, 14, 15, 16]


def test_nearest_drawn_spins_are_reached_through_undrawn_ones():
    chain = mc.Hamiltonian(6, {2: (np.array([[i, i + 1] for i in range(5)]), np.array([1.0, 2.0, 3.0, 4.0, 5.0]))})
    order = np.array([0, 5, 2, 3, 1, 4])  # sites; spin 4 of the order is site 1, between sites 0 and 2
    found = nearest_drawn(chain, order, 4)
    assert [sorted(set(row) - {6}) for row in found.tolist()] == [[], [0], [0, 1], [1, 2], [0, 2], [1, 3]]
    assert nearest_drawn(chain, order, 1)[4].tolist() == [2]  # the stronger bond


def torus_problem():
    """A 4 x 4 glass, the local prior, all canonical states; small enough for exact averages."""
    hamiltonian = mc.models.ea2d(L=4, seed=2)
    tokens = single(hamiltonian)
    states, probabilities = law(hamiltonian, BETA)
    canonical = states[:, 0] < 0
    states, probabilities = states[canonical], probabilities[canonical] / probabilities[canonical].sum()
    with torch.no_grad():
        odds = make_prior("local", hamiltonian, tokens, BETA).log_odds_of(torch.from_numpy(states).float())
    return hamiltonian, tokens, states, probabilities, odds


def kl(residual, odds, states, probabilities):
    """KL(p | q) over canonical states; the first spin is given."""
    spins = torch.from_numpy(states)
    with torch.no_grad():
        odds = residual.correct_all(odds, spins.float()).double()
    log_q = torch.nn.functional.logsigmoid(odds * spins)[:, 1:].sum(1).numpy()
    return float(probabilities @ (np.log(probabilities) - log_q))


def test_a_fit_improves_unseen_states_as_it_says():
    hamiltonian, tokens, states, probabilities, odds = torus_problem()
    chosen = np.random.default_rng(1).choice(len(states), size=5000, p=probabilities)
    residual = LinearResidual(hamiltonian, tokens, 2)
    before = kl(residual, odds, states, probabilities)
    seen = []
    result = fit_linear(
        residual, odds[chosen], states[chosen], row_labels(hamiltonian, BETA, states[chosen]),
        report=lambda done, spins: seen.append((done, spins)),
    )  # fmt: skip
    after = kl(residual, odds, states, probabilities)
    assert seen == [(4, 16), (8, 16), (12, 16), (16, 16)]
    assert result.finished
    assert (result.n_train, result.n_unseen) == (4000, 1000)
    assert before > 0.3
    assert after < 0.1 * before
    assert result.unseen_gain == pytest.approx(before - after, rel=0.15)
    assert result.unseen_gain == pytest.approx(result.gains.sum())
    assert not residual.weight[0].any()
    again = LinearResidual(hamiltonian, tokens, 2)
    again.load_state_dict(residual.state_dict())
    assert kl(again, odds, states, probabilities) == after


def test_a_fit_recovers_planted_weights():
    hamiltonian, tokens, states, _, odds = torus_problem()
    planted = randomised(LinearResidual(hamiltonian, tokens, 1), 3, 0.3)
    spins = torch.from_numpy(states)
    with torch.no_grad():
        labels = torch.empty(spins.shape)
        labels[:, planted.order] = torch.sigmoid(planted.correct_all(odds, spins.float()))
    order = np.random.default_rng(0).permutation(len(states))[:8000]
    residual = LinearResidual(hamiltonian, tokens, 1)
    fit_linear(residual, odds[order], spins[order], labels[order], ridges=(1e-3,), iterations=20)
    with torch.no_grad():
        wanted, found = (torch.sigmoid(r.correct_all(odds, spins.float()))[:, 1:] for r in (planted, residual))
    torch.testing.assert_close(found, wanted, atol=5e-3, rtol=0.0)


def test_a_right_prior_stays_what_it_is():
    hamiltonian, tokens, states, _, odds = torus_problem()
    rng = np.random.default_rng(4)
    chosen = rng.integers(len(states), size=1000)
    labels = np.empty((1000, 16), np.float32)
    labels[:, tokens.sites.reshape(-1)] = rng.random((1000, 16)) < torch.sigmoid(odds[chosen]).numpy()
    residual = LinearResidual(hamiltonian, tokens, 2)
    result = fit_linear(residual, odds[chosen], states[chosen], labels)
    assert (result.gains >= 0).all()
    assert result.unseen_gain < 0.02
    lost = [g for g in range(4) if not result.kept[g]]
    assert lost
    for g in lost:
        assert np.isinf(result.ridge[g])
        assert not residual.weight[4 * g : 4 * g + 4].any()


def test_certain_and_wrong_log_odds_are_taken_back():
    hamiltonian, tokens, states, probabilities, _ = torus_problem()
    chosen = np.random.default_rng(2).choice(len(states), size=4000, p=probabilities)
    labels = row_labels(hamiltonian, BETA, states[chosen])
    residual = LinearResidual(hamiltonian, tokens, 2)
    odds = torch.full((4000, 16), 30.0)
    odds[:, ::2] = -30.0
    result = fit_linear(residual, odds, states[chosen], labels)
    assert torch.isfinite(residual.weight).all()
    assert result.kept.all()
    with torch.no_grad():
        corrected = residual.correct_all(odds[:1], torch.from_numpy(states[chosen[:1]]).float())
    assert corrected[:, 1:].abs().max() < 15.0


def test_a_stopped_fit_leaves_the_rest_to_the_prior():
    hamiltonian, tokens, states, _, odds = torus_problem()
    asked = []
    residual = LinearResidual(hamiltonian, tokens, 2)
    result = fit_linear(
        residual, odds[:500], states[:500], row_labels(hamiltonian, BETA, states[:500]),
        stop=lambda: len(asked) == 2 or asked.append(1),
    )  # fmt: skip
    assert not result.finished
    assert not residual.weight[8:].any()
    assert not result.kept[2:].any()


def test_refusals():
    hamiltonian, tokens, states, _, odds = torus_problem()
    labels = row_labels(hamiltonian, BETA, states[:10])
    residual = LinearResidual(hamiltonian, tokens, 2)
    with pytest.raises(ValueError, match="window=-1"):
        LinearResidual(hamiltonian, tokens, -1)
    with pytest.raises(ValueError, match="16 spins, the model has 9"):
        LinearResidual(mc.models.ising(L=3), tokens, 1)
    with pytest.raises(ValueError, match="must all be"):
        fit_linear(residual, odds[:9], states[:10], labels)
    with pytest.raises(ValueError, match="both parts need states"):
        fit_linear(residual, odds[:10], states[:10], labels, validation=0.0)
    with pytest.raises(ValueError, match="positive numbers"):
        fit_linear(residual, odds[:10], states[:10], labels, ridges=(1.0, 0.0))
    with pytest.raises(ValueError, match="states"):
        row_labels(hamiltonian, BETA, states[:10, :9])
    with pytest.raises(ValueError, match="n=0"):
        equilibrium_states(hamiltonian, BETA, 0)
    with pytest.raises(ValueError, match="sweeps_between=0"):
        equilibrium_states(hamiltonian, BETA, 1, sweeps_between=0)
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="finite weight"):
        self_made_states(hamiltonian, BETA, states[:2], np.full(2, -np.inf), 4, 1, rng)
    with pytest.raises(ValueError, match="n=0"):
        self_made_states(hamiltonian, BETA, states[:2], np.zeros(2), 0, 1, rng)


def test_the_window_grows_with_the_states():
    hamiltonian = mc.models.ea2d(L=16)
    windows = [choose_window(n, hamiltonian) for n in (100, 3500, 36_000, 10**7)]
    assert windows == sorted(windows)
    assert windows[0] == 4
    assert windows[-1] == 8
    assert choose_window(10**7, mc.models.ising(L=3)) == 1
    assert choose_window(10**7, mc.models.sk(N=64)) == 32


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("hamiltonian", "name"),
    [(mc.models.ising(L=3), "Wolff"), (mc.models.ea2d(L=3, h=0.2, seed=5), "parallel tempering")],
)
def test_equilibrium_states_follow_the_law(hamiltonian, name):
    spins, said = equilibrium_states(hamiltonian, BETA, 6000, seed=1, sweeps_between=20)
    assert said == name
    assert spins.shape == (6000, 9)
    assert spins.dtype == np.int8
    assert law_p_value(hamiltonian, BETA, spins) > 1e-4


def test_equilibrium_states_can_be_stopped_and_repeat():
    hamiltonian = mc.models.ea2d(L=4, seed=1)
    assert len(equilibrium_states(hamiltonian, BETA, 50, stop=lambda: True)[0]) == 0
    first, second = (equilibrium_states(hamiltonian, BETA, 30, seed=s)[0] for s in (3, 3))
    assert np.array_equal(first, second)
    assert len(first) == 30
    assert not np.array_equal(first, equilibrium_states(hamiltonian, BETA, 30, seed=4)[0])
    assert len(equilibrium_states(hamiltonian, 0.0, 10)[0]) == 10


@pytest.mark.statistical
def test_self_made_states_come_nearer_to_the_law():
    hamiltonian = mc.models.ea2d(L=3, h=0.2, seed=5)
    rng = np.random.default_rng(1)
    states, _ = law(hamiltonian, BETA)
    drawn = states[rng.integers(len(states), size=40_000)]
    log_weight = -BETA * hamiltonian.energy(drawn)
    made = self_made_states(hamiltonian, BETA, drawn, log_weight, 4000, 20, rng)
    assert law_p_value(hamiltonian, BETA, made) > 1e-4
    one = self_made_states(hamiltonian, BETA, drawn[:2], np.array([0.0, -np.inf]), 5, 0, rng)
    assert np.array_equal(one, np.repeat(drawn[:1], 5, axis=0))
