"""Sweeps under the loss energy: exact laws, an exact sampler, and what they keep against the same made anew.

Each statistical test combines its p-values by Fisher's rule and fails below FALSE_ALARM: 2e-3 for the file.
"""

import numpy as np
import pytest
from numba import njit
from scipy import stats

from mc.kernels import loss_energy, loss_sites
from mc.kernels.transpose import transpose
from tests.enumerated import FALSE_ALARM, combined_p_value
from tests.sphere_laws import moment_p_value

MOVES = {
    "local": np.array([1.0, 0.0, 0.0, 0.0]),
    "global": np.array([0.0, 1.0, 0.0, 0.0]),
    "local and global": np.array([0.5, 0.5, 0.0, 0.0]),
    "local and flip": np.array([0.5, 0.0, 0.5, 0.0]),
    "local and perpendicular": np.array([0.5, 0.0, 0.0, 0.5]),
    "mixed": np.array([0.4, 0.2, 0.2, 0.2]),
}


@njit
def run(spins, targets, couplings_T, beta, radius, step, shares, states, n_sweeps):
    """Sweeps of independent replicas (n, N, D) in place: energy changes (n,), and counts of moves with a step."""
    changes, counts = np.zeros(len(spins)), np.zeros(2, np.int64)
    for replica in range(len(spins)):
        for _ in range(n_sweeps):
            change, accepted, tried = loss_energy.metropolis_sweep(
                spins[replica], targets[replica], couplings_T, beta, radius, step, shares, states[replica]
            )
            changes[replica] += change
            counts[0] += accepted
            counts[1] += tried
    return changes, counts


def norm_of(dimension):
    return np.sqrt(dimension / 2 - 1)


def goals(targets, radius):
    """R f / |f|, zero where f is."""
    norms = np.linalg.norm(targets, axis=-1, keepdims=True)
    return np.divide(radius * targets, norms, out=np.zeros_like(targets), where=norms > 0)


def energies(spins, fields, couplings):
    """Energies of states (..., N, D) by their definition."""
    aims = goals(fields + np.matmul(couplings, spins), norm_of(fields.shape[1]))
    return 0.5 * ((spins - aims) ** 2).sum(axis=(-2, -1))


def sample(move, fields, couplings, beta, seed, n=2000, n_sweeps=100, step=0.7, start=None):
    """States (n, N, D) of n replicas that start from one state: their goals without couplings."""
    spins = np.tile(goals(fields, norm_of(fields.shape[1])) if start is None else start, (n, 1, 1))
    # Random states are streams as good as those of `streams`, and many at once.
    states = np.random.default_rng(seed).integers(0, 2**64, size=(n, 4), dtype=np.uint64)
    targets = fields + np.matmul(couplings, spins)
    before = energies(spins, fields, couplings)
    transposed = np.ascontiguousarray(couplings.T)
    changes, _ = run(spins, targets, transposed, beta, norm_of(fields.shape[1]), step, MOVES[move], states, n_sweeps)
    assert np.abs(targets - fields - np.matmul(couplings, spins)).max() < 1e-11
    after = energies(spins, fields, couplings)
    assert np.abs(before + changes - after).max() < 1e-10 * max(1.0, np.abs(after).max())
    return spins


def fitting(move, beta):
    """A beta at which the move comes to equilibrium: fresh spins alone are too narrow for the tails at small beta."""
    return 6.0 * beta if move == "global" else beta


def cases(move, *all_cases):
    """Those (N, D, ...) that fresh spins alone reach."""
    return [case for case in all_cases if move != "global" or (case[0] <= 2 and case[1] == 3)]


def glass(n_spins, dimension, seed):
    """(fields, couplings) with a diagonal, asymmetric."""
    random = np.random.default_rng(seed)
    return random.normal(size=(n_spins, dimension)), random.normal(size=(n_spins, n_spins)) / np.sqrt(n_spins)


def norm_law(beta, dimension):
    """A grid of norms and the distribution function of a norm r with density ~ r^(D-1) exp(-beta (r - R)^2 / 2)."""
    grid = np.linspace(0.0, norm_of(dimension) + 12 / np.sqrt(beta), 20_001)
    density = grid ** (dimension - 1) * np.exp(-0.5 * beta * (grid - norm_of(dimension)) ** 2)
    cumulative = np.cumsum(density)
    return grid, cumulative / cumulative[-1]


def rejection_sample(fields, couplings, beta, seed, n):
    """n exact independent states: e_i is at least (|s_i| - R)^2 / 2, and states of that energy are thinned out."""
    n_spins, dimension = fields.shape
    random = np.random.default_rng(seed)
    grid, law = norm_law(beta, dimension)
    found, missing = [], n
    while missing > 0:
        axes = random.normal(size=(20_000, n_spins, dimension))
        axes /= np.linalg.norm(axes, axis=-1, keepdims=True)
        norms = np.interp(random.random((20_000, n_spins)), law, grid)
        states = norms[..., None] * axes
        least = 0.5 * ((norms - norm_of(dimension)) ** 2).sum(axis=1)
        surplus = energies(states, fields, couplings) - least
        assert surplus.min() > -1e-12
        found.append(states[random.random(20_000) < np.exp(-beta * surplus)])
        missing -= len(found[-1])
    return np.concatenate(found)[:n]


@pytest.mark.statistical
@pytest.mark.parametrize("move", MOVES)
def test_spins_without_couplings_are_gaussian(move):
    # Each component is normal about that of R x / |x|, or about 0 without a field, with variance 1 / beta.
    p_values = []
    for number, (_, dimension, beta) in enumerate(cases(move, (1, 3, 0.8), (1, 3, 5.0), (1, 8, 1.5))):
        fields = np.random.default_rng(number).normal(size=(5, dimension))
        fields[3] = 0.0
        beta = fitting(move, beta)
        spins = sample(move, fields, np.zeros((5, 5)), beta, 10 + number, n=800, n_sweeps=50 * dimension)
        normal = np.sqrt(beta) * (spins - goals(fields, norm_of(dimension)))
        p_values.append(stats.kstest(normal[:400].ravel(), "norm").pvalue)
        p_values.append(moment_p_value(normal[400:].ravel(), 0.0))
        law, square = stats.chi2(400 * 5 * dimension), (normal[400:] ** 2).sum()
        p_values.append(2 * min(law.sf(square), law.cdf(square)))
    assert combined_p_value(p_values) > FALSE_ALARM, np.round(p_values, 4)


@pytest.mark.statistical
@pytest.mark.parametrize("move", MOVES)
def test_couplings_without_loops(move):
    # Where J is strictly triangular, s_i given those before it is normal about a goal that does not depend on it: its
    # distance to the goal has 2 beta e_i = chi-square with D degrees of freedom, whatever the others do.
    p_values = []
    for number, (n_spins, dimension, beta) in enumerate(cases(move, (2, 3, 1.2), (4, 3, 2.0), (3, 8, 1.0))):
        fields, couplings = glass(n_spins, dimension, number)
        couplings, beta = 2.0 * np.tril(couplings, -1), fitting(move, beta)
        spins = sample(move, fields, couplings, beta, 20 + number, n=800, n_sweeps=50 * dimension)
        aims = goals(fields + np.matmul(couplings, spins), norm_of(dimension))
        square = beta * ((spins - aims) ** 2).sum(axis=-1)
        p_values += [stats.kstest(one, stats.chi2(dimension).cdf).pvalue for one in square.T]
    assert combined_p_value(p_values) > FALSE_ALARM, np.round(p_values, 4)


@pytest.mark.statistical
@pytest.mark.parametrize("move", MOVES)
def test_loops_against_rejection_sampling(move):
    # Two and three spins in R^3 with all couplings, the diagonal too: energies, norms and the angle between two spins
    # of 1500 replicas have the law of 10000 exact draws.
    p_values = []
    chosen = cases(move, (1, 3, 2.0, 2.0), (2, 3, 1.0, 1.5), (3, 3, 2.0, 1.0), (3, 3, 1.0, 3.0))
    for number, (n_spins, dimension, beta, scale) in enumerate(chosen):
        fields, couplings = glass(n_spins, dimension, 3 + number)
        couplings, beta = scale * couplings, fitting(move, beta)
        exact = rejection_sample(fields, couplings, beta, 30 + number, 10_000)
        found = sample(move, fields, couplings, beta, 40 + number, n=1500, n_sweeps=150)
        thirds, exact_thirds = np.array_split(found, 3), np.array_split(exact, 3)
        energy, exact_energy = energies(thirds[0], fields, couplings), energies(exact_thirds[0], fields, couplings)
        p_values.append(stats.ks_2samp(energy, exact_energy).pvalue)
        norm, exact_norm = (np.linalg.norm(part[1][:, -1], axis=-1) for part in (thirds, exact_thirds))
        p_values.append(stats.ks_2samp(norm, exact_norm).pvalue)
        product, exact_product = ((part[2][:, 0] * part[2][:, -1]).sum(axis=-1) for part in (thirds, exact_thirds))
        p_values.append(stats.ks_2samp(product, exact_product).pvalue)
    assert combined_p_value(p_values) > FALSE_ALARM, np.round(p_values, 4)


@pytest.mark.statistical
def test_rejection_sampling_of_one_spin_is_gaussian():
    fields, beta = np.array([[0.4, -1.0, 2.0]]), 1.7
    states = rejection_sample(fields, np.zeros((1, 1)), beta, 50, 4000)
    normal = np.sqrt(beta) * (states - goals(fields, norm_of(3)))
    p_values = [stats.kstest(component, "norm").pvalue for component in normal[:, 0].T]
    assert combined_p_value(p_values) > FALSE_ALARM, p_values


@pytest.mark.parametrize(
    ("n_spins", "dimension"), [(1, 3), (2, 3), (3, 5), (4, 8), (9, 3), (16, 9), (24, 4), (64, 32), (83, 6), (150, 3)]
)
@pytest.mark.parametrize("move", ["local", "mixed"])
def test_targets_and_energies_stay_right(move, n_spins, dimension):
    # What `sample` asserts after many sweeps, for all ways to divide sites and components among registers.
    fields, couplings = glass(n_spins, dimension, 1)
    sample(move, fields, couplings, 3.0, 60, n=2, n_sweeps=100_000 // n_spins**2 + 20, step=0.2)


def test_fields_and_energy_from_scratch():
    fields, couplings = glass(11, 5, 2)
    spins = np.random.default_rng(3).normal(size=(11, 5))
    targets = np.empty((11, 5))
    loss_energy.target_fields(spins, fields, np.ascontiguousarray(couplings.T), targets)
    assert targets == pytest.approx(fields + couplings @ spins, abs=1e-13)
    energy = loss_energy.loss_energy(spins, targets, norm_of(5))
    assert energy == pytest.approx(energies(spins, fields, couplings), abs=1e-12)


def test_a_spin_without_a_target_is_drawn_to_zero():
    spins = np.array([[0.3, -0.4, 1.2], [2.0, 0.0, 0.0]])
    assert loss_energy.loss_energy(spins, np.zeros((2, 3)), 5.0) == pytest.approx(0.5 * (1.3**2 + 2.0**2), rel=1e-15)
    # All spins zero and no fields: targets appear with the first moves, and `sample` checks the energy.
    _, couplings = glass(5, 3, 4)
    sample("local", np.zeros((5, 3)), couplings, 1.0, 70, n=3, n_sweeps=50, start=np.zeros((5, 3)))
    couplings[2] = 0.0
    states = sample("mixed", np.zeros((5, 3)), couplings, 1.0, 71, n=3, n_sweeps=50, start=np.zeros((5, 3)))
    assert np.abs(states[:, 2]).min() > 0


def test_counts_are_of_local_moves():
    fields, couplings = glass(10, 4, 5)
    counts = {}
    for move in ("local", "global", "local and flip", "mixed"):
        spins = np.tile(goals(fields, norm_of(4)), (3, 1, 1))
        states = np.random.default_rng(6).integers(0, 2**64, size=(3, 4), dtype=np.uint64)
        targets = fields + np.matmul(couplings, spins)
        transposed = np.ascontiguousarray(couplings.T)
        counts[move] = run(spins, targets, transposed, 1.0, norm_of(4), 0.3, MOVES[move], states, 20)[1].tolist()
    everyone = 3 * 10 * 20
    assert counts["global"] == [0, 0]
    assert 0 < counts["local"][0] < counts["local"][1] == everyone
    assert 0.4 * everyone < counts["local and flip"][1] < 0.6 * everyone  # 5 standard deviations
    assert 0.3 * everyone < counts["mixed"][1] < 0.5 * everyone


def test_a_sweep_is_one_of_its_stream():
    fields, couplings = glass(10, 4, 7)
    one, other, third = (sample("mixed", fields, couplings, 1.0, seed, n=1, n_sweeps=3) for seed in (1, 1, 2))
    assert (one == other).all()
    assert (one != third).any()


@njit
def inverse_roots(values):
    for i in range(0, len(values), 8):
        loss_sites.write(values, i, loss_sites.inverse_root(loss_sites.read(values, i, 8)))


def test_inverse_roots_of_the_whole_range():
    values = np.append(10.0 ** np.linspace(-300, 300, 1000), np.linspace(0.1, 10, 1000))
    found = values.copy()
    inverse_roots(found)
    assert np.abs(found * np.sqrt(values) - 1).max() < 1e-15


@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (3, 20), (17, 9), (16, 32), (7, 8)])
def test_transposed_matrices(shape):
    matrix = np.random.default_rng(8).normal(size=shape)
    flat = np.zeros(5 + shape[1] * (shape[0] + 2))
    transpose(matrix, 0, *shape, shape[1], flat, 5, shape[0] + 2)
    rows = flat[5:].reshape(shape[1], -1)
    assert (rows[:, : shape[0]] == matrix.T).all()
    assert not rows[:, shape[0] :].any()
    assert not flat[:5].any()
