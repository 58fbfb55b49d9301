"""Exact laws of small systems by enumeration, and tests of counts against them; for all test files."""

from __future__ import annotations

import numpy as np
from scipy import stats

FALSE_ALARM = 1e-4  # below this combined p-value a test fails; seeds are fixed, so it fails always or never


def all_states(n_spins):
    """All states (2^N, N) int8; in number k spin i is +1 where bit i of k is set."""
    return (2 * ((np.arange(2**n_spins)[:, None] >> np.arange(n_spins)) & 1) - 1).astype(np.int8)


def state_numbers(spins):
    """Numbers of states (..., N) in the order of `all_states`."""
    spins = np.asarray(spins)
    return (spins > 0) @ (1 << np.arange(spins.shape[-1]))


def law(hamiltonian, beta):
    """States (2^N, N) int8 and their Boltzmann probabilities (2^N,), interaction by interaction."""
    states = all_states(hamiltonian.n_spins)
    energies = np.full(len(states), hamiltonian.constant)
    for sites, couplings in hamiltonian.interactions.values():
        for cluster, coupling in zip(sites, couplings, strict=True):
            energies -= coupling * states[:, cluster].prod(axis=1)
    weights = np.exp(-beta * (energies - energies.min()))
    return states, weights / weights.sum()


def chi_square_p(counts, probabilities, n):
    """p-value of counts of n independent draws; the rarest cells are joined until 5 are expected in each."""
    order = np.argsort(probabilities, kind="stable")
    expected, observed = n * np.asarray(probabilities)[order], np.asarray(counts)[order]
    joined = int(np.argmax((np.cumsum(expected) >= 5) & (expected >= 5))) if expected[-1] >= 5 else len(expected) - 1
    head = slice(0, joined)
    if expected[head].sum() < 5:  # not enough for a cell of their own
        head = slice(0, joined + 1)
    expected = np.append(expected[head.stop :], expected[head].sum())
    observed = np.append(observed[head.stop :], observed[head].sum())
    keep = expected > 0
    if observed[~keep].any():
        return 0.0
    if keep.sum() < 2:
        return 1.0
    return float(stats.chi2.sf(((observed - expected)[keep] ** 2 / expected[keep]).sum(), keep.sum() - 1))


def combined_p_value(p_values):
    """Fisher's combination of independent p-values into one."""
    p_values = np.maximum(np.asarray(p_values, dtype=float), 1e-300)
    return float(stats.chi2.sf(-2.0 * np.log(p_values).sum(), 2 * len(p_values)))


def law_p_value(hamiltonian, beta, spins):
    """p-value of independent draws spins (n, N) against the enumerated law."""
    _, probabilities = law(hamiltonian, beta)
    counts = np.bincount(state_numbers(spins), minlength=len(probabilities))
    return chi_square_p(counts, probabilities, len(spins))
