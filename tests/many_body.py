"""Models with interactions of several orders, for the tests of kernels."""

from __future__ import annotations

import numpy as np

import mc


def mixed(n_spins, orders, seed, count=6, constant=0.5, n_up=None):
    """`count` random clusters of each order, couplings multiples of 2^-20; the last site is in none of them."""
    random = np.random.default_rng(seed)
    interactions = []
    for order in orders:
        sites = np.stack([random.choice(n_spins - 1, order, replace=False) for _ in range(count)])
        couplings = np.rint(random.normal(size=count) * 2.0**20 / np.sqrt(len(orders))) / 2.0**20
        interactions.append((sites, couplings))
    return mc.Hamiltonian(n_spins, interactions, constant, n_up=n_up)


def ring(n_spins, n_up=None, scale=1.0):
    """A ring of one field, pairs, a triple and two quadruples a site, as a small crystal has them.

    Couplings are no multiples of a power of two. In small rings clusters meet themselves: sites cancel, pairs double.
    """
    shifts = {(0,): 0.11, (0, 1): -0.35, (0, 2): 0.23, (0, 3): 0.07, (0, 1, 3): 0.31, (0, 1, 2, 5): -0.29,
              (0, 2, 4, 6): 0.13}  # fmt: skip
    every = np.arange(n_spins)[:, None]
    interactions = [
        ((every + np.array(shift)) % n_spins, np.full(n_spins, scale * coupling))
        for shift, coupling in shifts.items()
    ]
    return mc.Hamiltonian(n_spins, interactions, -0.7 * scale, n_up=n_up)
