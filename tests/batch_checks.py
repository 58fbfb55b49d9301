"""What every kernel behind `mc.kernels.batch` must do, written once for the test files of kernels."""

from __future__ import annotations

import numba
import numpy as np
from scipy.stats import binomtest

import mc
from mc.kernels import batch as generic
from mc.kernels.metropolis import HEAT_BATH_BELOW
from tests.enumerated import law_p_value

BETAS = np.array([0.0, 0.1, 0.5, 1.0, 2.0])  # below and above where heat bath ends, mixed in every vector of lanes


def glass(n_spins, seed, density=1.0, field=0.4, constant=1.5):
    """A random graph with a constant and Gaussian couplings and fields, such that beta = 1 is of order one."""
    random = np.random.default_rng(seed)
    pairs = np.argwhere(np.triu(random.random((n_spins, n_spins)) < density, 1))
    interactions = [(pairs, random.normal(size=len(pairs)) / np.sqrt(density * n_spins))]
    if field:
        interactions.append((np.arange(n_spins)[:, None], field * random.normal(size=n_spins)))
    return mc.Hamiltonian(n_spins, interactions, constant)


def units(batch, kernel):
    return len(batch.beta) // kernel.width(len(batch.beta))


def rows_of(batch, kernel):
    """Rows of bits of all lanes, (lanes, words)."""
    n_units, width = units(batch, kernel), kernel.width(len(batch.beta))
    rows = np.full((n_units, width, generic.words(n_spins_of(batch))), 2**64 - 1, np.uint64)
    generic.store_all(batch, rows)
    return rows.reshape(len(batch.beta), -1)


def n_spins_of(batch):
    return (
        batch.n_spins
        if hasattr(batch, "n_spins")
        else len(batch.typical if hasattr(batch, "typical") else batch.field)
    )


def spins_of(batch, kernel):
    """Spins of all lanes, (lanes, N)."""
    return generic.unpack(rows_of(batch, kernel), n_spins_of(batch))


def load_rows(batch, kernel, rows):
    """`load` and `measure` of all lanes, rows (lanes, words)."""
    generic.load_all(batch, rows.reshape(units(batch, kernel), -1, rows.shape[1]))


def law_p_values(kernel, hamiltonian, rule, seed, copies, draws, thin, swap=False):
    """p-values of the lanes' states against the enumerated law, one for each of BETAS.

    `draws` states of each of `copies` lanes, `thin` sweeps apart; all lanes start from one state. swap: let
    neighbouring lanes exchange their betas when that is far behind them.
    """
    beta = np.tile(BETAS, copies)
    batch = kernel.make(hamiltonian, beta, seed, (3, 1), rule)
    n_units = units(batch, kernel)
    generic.sweep_all(batch, n_units, 5 * thin, False)
    if swap:
        for a in range(0, len(beta) - 1, 2):
            kernel.exchange(batch, a, a + 1)
        assert (batch.beta == beta.reshape(-1, 2)[:, ::-1].ravel()).all()
    found = []
    for _ in range(draws):
        generic.sweep_all(batch, n_units, thin, False)
        found.append(spins_of(batch, kernel))
    found = np.stack(found)
    return [law_p_value(hamiltonian, b, found[:, batch.beta == b].reshape(-1, hamiltonian.n_spins)) for b in BETAS]


def flip_p_values(kernel, rule, lanes):
    """p-values of the flips of the first sweep of spins that are up in fields of their own, against the rule."""
    fields = np.array([1e-3, 0.3, -0.3, 0.39, 0.41, -0.5, 0.9, 1.7, 2.6, -4.0, 0.0] * 3)
    hamiltonian = mc.Hamiltonian(len(fields), [(np.arange(len(fields))[:, None], fields)])
    p_values = []
    for beta in (0.5, 1.0):
        batch = kernel.make(hamiltonian, np.full(lanes, beta), 4, (0,), rule)
        generic.sweep_all(batch, units(batch, kernel), 1, True)
        flips = (spins_of(batch, kernel) < 0).sum(axis=0)
        exact = 1 / (1 + np.exp(2 * beta * fields))
        if rule == "metropolis":
            exact = np.where(
                beta * np.abs(fields) < HEAT_BATH_BELOW, exact, np.minimum(1, np.exp(-2 * beta * fields))
            )
        assert (flips[exact == 1] == lanes).all()
        random = exact < 1
        p_values += [binomtest(k, lanes, p).pvalue for k, p in zip(flips[random], exact[random], strict=True)]
    return p_values


def check_energies_and_rows(kernel, hamiltonian, rule, lanes):
    """Energies are those of the Hamiltonian, rows come back as they went in, `measure` and `refresh` agree."""
    batch = kernel.make(hamiltonian, np.linspace(0, 1, lanes), 5, (0,), rule)
    n_units = units(batch, kernel)
    assert (spins_of(batch, kernel) == 1).all()
    generic.sweep_all(batch, n_units, 7, False)
    refreshed = batch.energy.copy()
    generic.measure_all(batch, n_units)
    rows, spins = rows_of(batch, kernel), spins_of(batch, kernel)
    assert (generic.pack(spins) == rows).all()
    exact = hamiltonian.energy(spins)
    assert np.abs(batch.energy - exact).max() < 1e-9
    assert np.abs(refreshed - exact).max() < 1e-5
    given = np.where(np.random.default_rng(1).random(spins.shape) < 0.5, 1, -1)
    load_rows(batch, kernel, generic.pack(given))
    assert (spins_of(batch, kernel) == given).all()
    assert np.abs(batch.energy - hamiltonian.energy(given)).max() < 1e-9


def check_counts(kernel, hamiltonian, rule, lanes, stirred=0):
    """`flipped` counts the last sweep, but for as many as `stirred` sites, and counting changes nothing else."""
    batch, other = (kernel.make(hamiltonian, np.full(lanes, 0.6), 2, (0,), rule) for _ in range(2))
    n_units = units(batch, kernel)
    generic.sweep_all(batch, n_units, 5, True)
    generic.sweep_all(other, n_units, 4, False)
    before = spins_of(other, kernel)
    generic.sweep_all(other, n_units, 1, False)
    after = spins_of(batch, kernel)
    assert (after == spins_of(other, kernel)).all()
    assert (np.abs(batch.flipped - (after != before).sum(axis=1)) <= stirred).all()
    assert 0 < batch.flipped.mean() < hamiltonian.n_spins


def check_continuation(kernel, hamiltonian, rule, lanes):
    """Sweeps after `measure` depend on spins, betas and streams alone, so a restored batch goes on bit for bit."""
    beta = np.linspace(0, 1.5, lanes)
    batch = kernel.make(hamiltonian, beta, 2, (0,), rule)
    n_units = units(batch, kernel)
    generic.sweep_all(batch, n_units, 50, False)
    kernel.exchange(batch, 0, lanes - 1)
    generic.sweep_all(batch, n_units, 50, True)
    generic.measure_all(batch, n_units)
    restored = kernel.make(hamiltonian, beta, 77, (0,), rule)
    kernel.set_betas(restored, batch.beta)
    generic.sweep_all(restored, n_units, 3, False)
    restored.streams[:] = batch.streams
    load_rows(restored, kernel, rows_of(batch, kernel))
    assert (restored.energy == batch.energy).all()
    for one in (batch, restored):
        generic.sweep_all(one, n_units, 40, True)
    assert (restored.energy == batch.energy).all()
    for one in (batch, restored):
        generic.measure_all(one, n_units)
    assert (restored.energy == batch.energy).all()
    assert (restored.flipped == batch.flipped).all()
    assert (rows_of(restored, kernel) == rows_of(batch, kernel)).all()


def check_units_and_threads(kernel, hamiltonian, rule, unit_lanes):
    """A unit does the same beside others as alone, on one thread as on all, and its own for each seed and path."""

    def rows(lanes, seed=4, path=(1,)):
        batch = kernel.make(hamiltonian, np.full(lanes, 0.4), seed, path, rule)
        generic.sweep_all(batch, units(batch, kernel), 30, False)
        return rows_of(batch, kernel)

    alone, threads = rows(unit_lanes), numba.get_num_threads()
    assert (rows(5 * unit_lanes)[:unit_lanes] == alone).all()
    numba.set_num_threads(1)
    single = rows(5 * unit_lanes)
    numba.set_num_threads(threads)
    assert (rows(5 * unit_lanes) == single).all()
    assert not (rows(unit_lanes, seed=5) == alone).all()
    assert not (rows(unit_lanes, path=(2,)) == alone).all()


def check_equal_starts_part(kernel, hamiltonian, rule, lanes, beta):
    """Replicas of one Hamiltonian at one beta from one start never fall together."""
    batch = kernel.make(hamiltonian, np.full(lanes, beta), 6, (0,), rule)
    for _ in range(5):
        generic.sweep_all(batch, units(batch, kernel), 100, False)
        spins = spins_of(batch, kernel)
        assert len(np.unique(spins * spins[:, :1], axis=0)) == lanes
