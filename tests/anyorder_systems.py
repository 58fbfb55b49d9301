"""Small models and networks with random weights, for the tests of any-order samplers."""

from __future__ import annotations

import numpy as np
import torch

import mc
from mc.geometry import Geometry
from nmcmc.recipe import NetSettings, build_sampler
from tests.many_body import mixed, ring

BETA = 0.5


def crystal(cell=(2, 2, 3), field=0.2):
    """A crystal of pairs, triples and quadruples, all sites alike, with axes of two sites, as alloys have them."""
    places = Geometry(cell, (True,) * len(cell))
    clusters = {((0, 0, 1),): 0.3, ((1, 0, 0),): -0.4, ((1, 1, 1),): 0.2, ((0, 0, 1), (0, 1, 0)): 0.25,
                ((0, 1, 0), (1, 0, 0), (1, 1, 1)): -0.3}  # fmt: skip
    first = np.arange(places.n_sites)[:, None]
    interactions = [(first, np.full(places.n_sites, field))]
    for steps, coupling in clusters.items():
        sites = np.hstack([first, places.shifted(np.array(steps))])
        interactions.append((sites, np.full(len(sites), coupling)))
    name = "x".join(map(str, cell))
    return mc.Hamiltonian(places.n_sites, interactions, name="alloy", parameters={"cell": name})


SYSTEMS = {
    "torus 3x3": lambda: mc.models.ising(L=3),
    "torus 3x3 in a field": lambda: mc.models.ising(L=3, h=0.3),
    "open glass 2x4": lambda: mc.models.ea2d(Lx=4, Ly=2, J="gaussian", h="gauss:0.5", boundary="open", seed=1),
    "SK": lambda: mc.models.sk(N=7, seed=2),
    "orders 1 to 4": lambda: mixed(8, (1, 2, 3, 4), 1),
    "ring of many orders": lambda: ring(8),
    "even orders": lambda: mixed(8, (2, 4), 5),
}  # fmt: skip
NETS = {
    "attention": NetSettings(net="anyorder", width=16, layers=2, heads=2),
    "no attention": NetSettings(net="anyorder", width=12, layers=1, heads=0),
    "window of 1": NetSettings(net="anyorder", width=16, layers=1, heads=2, window=1),
    "mlp": NetSettings(net="mlp", width=16, layers=1),
}


def stirred(network, seed=7, scale=0.3):
    """The network with Gaussian numbers added to all weights, in place."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return network


def random_sampler(hamiltonian, settings, beta=BETA, seed=7):
    """A sampler with random weights of which neither head is silent."""
    sampler = build_sampler(hamiltonian, beta, settings)
    stirred(sampler.network, seed)
    return sampler


def random_partial(n, n_spins, seed, known=0.5):
    """Partial states (n, N) int8, each spin known with one probability, and whole states of which they are parts."""
    random = np.random.default_rng(seed)
    spins = random.choice(np.array([-1, 1], np.int8), (n, n_spins))
    return np.where(random.random(spins.shape) < known, spins, 0).astype(np.int8), spins
