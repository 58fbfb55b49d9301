"""Patch energies: they add up to the energy, and give the heat-bath law of a token."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

import mc
from nmcmc.patch_energy import PatchEnergy, site_rows
from nmcmc.tokens import tokens_for

BETA = 0.7


def mixed_orders():
    """Orders 1 to 4, clusters inside and across tokens, and a constant."""
    rng = np.random.default_rng(3)
    orders = [rng.permuted(np.tile(np.arange(8), (10, 1)), axis=1)[:, :k] for k in (1, 2, 3, 4)]
    return mc.Hamiltonian(8, [(sites, rng.normal(size=10)) for sites in orders], constant=1.5)


CASES = {
    "torus 3x3, 1x3": (lambda: mc.models.ising(L=3), (1, 3)),
    "torus 3x3, 1x1": (lambda: mc.models.ising(L=3), (1, 1)),
    "torus 4x4, 2x2": (lambda: mc.models.ising(L=4), (2, 2)),
    "torus 4x4, 2x4": (lambda: mc.models.ising(L=4), (2, 4)),
    "torus 4x4, 1x1": (lambda: mc.models.ising(L=4), (1, 1)),
    "torus 4x4, 4x1": (lambda: mc.models.ising(L=4), (4, 1)),
    "open 4x4 in a field, 2x2": (lambda: mc.models.ising(L=4, boundary="open", h=0.3), (2, 2)),
    "cylinder 3x4, 3x2": (lambda: mc.models.ising(Lx=4, Ly=3, boundary="periodic,open"), (3, 2)),
    "cylinder 3x4, 1x4": (lambda: mc.models.ising(Lx=4, Ly=3, boundary="open,periodic"), (1, 4)),
    "glass 4x8 with fields, 2x4": (lambda: mc.models.ea2d(Lx=8, Ly=4, J="gaussian", h="gauss:0.5", seed=2), (2, 4)),
    "glass 3x3, 3x3": (lambda: mc.models.ea2d(L=3, J="gaussian", seed=1), (3, 3)),
    "torus 3x3x3, 1x1x3": (lambda: mc.models.ising(L=3, dim=3), (1, 1, 3)),
    "torus 4x4x4, 2x2x2": (lambda: mc.models.ea3d(L=4, seed=1), (2, 2, 2)),
    "open 2x2x4, 1x2x2": (lambda: mc.models.ising(Lx=4, Ly=2, Lz=2, boundary="open", h=0.1), (1, 2, 2)),
    "SK, groups of 4": (lambda: mc.models.sk(N=12, seed=1), (4,)),
    "SK, one group": (lambda: mc.models.sk(N=6, seed=1, h=0.2), (6,)),
    "p-spin 3, groups of 3": (lambda: mc.models.pspin(N=9, p=3, seed=2), (3,)),
    "p-spin 4, groups of 2": (lambda: mc.models.pspin(N=8, p=4, seed=2), (2,)),
    "random graph, groups of 3": (lambda: mc.models.rrg(N=12, J="gaussian", h="gauss:0.5", seed=3), (3,)),
    "mixed orders, groups of 4": (mixed_orders, (4,)),
    "mixed orders, single spins": (mixed_orders, (1,)),
    "no interaction": (lambda: mc.Hamiltonian(4, [], constant=2.0), (2,)),
    "fields only": (lambda: mc.Hamiltonian(4, [(np.arange(4)[:, None], np.arange(4.0))]), (2,)),
}


def made(name, around):
    build, patch = CASES[name]
    hamiltonian = build()
    tokens = tokens_for(hamiltonian, patch)
    return hamiltonian, tokens, PatchEnergy(hamiltonian, tokens, BETA, around)


def random_states(n, n_spins, seed=5):
    return np.random.default_rng(seed).choice(np.array([-1, 1], np.int8), size=(n, n_spins))


def rows_of(states):
    return site_rows(torch.from_numpy(states))


@pytest.mark.parametrize("name", CASES)
def test_energies_of_the_tokens_given_the_past_add_up_to_the_energy(name):
    hamiltonian, tokens, energy = made(name, "past")
    states = random_states(64, tokens.n_spins)
    tables = energy.of_all(rows_of(states)).double().numpy()  # (T, batch, V)
    values = tokens.encode(states)
    total = sum(tables[j, np.arange(len(states)), values[:, j]] for j in range(tokens.n_tokens))
    assert total == pytest.approx(-BETA * (hamiltonian.energy(states) - hamiltonian.constant), abs=3e-5)


@pytest.mark.parametrize("name", CASES)
def test_energy_of_a_token_given_the_past_does_not_know_the_future(name):
    _, tokens, energy = made(name, "past")
    states = random_states(16, tokens.n_spins)
    of_all = energy.of_all(rows_of(states))
    for j in range(tokens.n_tokens):
        other = states.copy()
        other[:, tokens.sites[j:].reshape(-1)] = random_states(16, tokens.sites[j:].size, seed=j)
        assert torch.equal(energy.of_all(rows_of(other))[j], of_all[j])


@pytest.mark.parametrize("around", ["past", "all"])
@pytest.mark.parametrize("name", CASES)
def test_energies_of_one_token_and_of_all_tokens_agree(name, around):
    _, tokens, energy = made(name, around)
    rows = rows_of(random_states(16, tokens.n_spins))
    of_all = energy.of_all(rows)
    assert of_all.shape == (tokens.n_tokens, 16, tokens.vocabulary)
    for j in range(tokens.n_tokens):
        assert energy.of_token(rows, j).numpy() == pytest.approx(of_all[j].numpy(), abs=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_softmax_of_energies_with_all_around_is_the_law_of_the_token_given_the_rest(name):
    hamiltonian, tokens, energy = made(name, "all")
    states = random_states(8, tokens.n_spins)
    found = log_softmax(energy.of_all(rows_of(states)).double().numpy(), axis=-1)
    for j in range(tokens.n_tokens):
        every = np.repeat(states[:, None], tokens.vocabulary, axis=1)
        every[:, :, tokens.sites[j]] = tokens.table
        expected = log_softmax(-BETA * hamiltonian.energy(every), axis=-1)
        assert found[j] == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("name", ["torus 3x3, 1x3", "mixed orders, single spins", "SK, groups of 4"])
def test_the_last_token_given_the_past_is_the_last_token_given_the_rest(name):
    _, tokens, past = made(name, "past")
    _, _, everything = made(name, "all")
    rows = rows_of(random_states(8, tokens.n_spins))
    assert past.of_token(rows, tokens.n_tokens - 1).numpy() == pytest.approx(
        everything.of_token(rows, tokens.n_tokens - 1).numpy(), abs=1e-5
    )


def test_an_unknown_neighbourhood_is_refused():
    hamiltonian = mc.models.ising(L=3)
    with pytest.raises(ValueError, match="around=future"):
        PatchEnergy(hamiltonian, tokens_for(hamiltonian), BETA, "future")
