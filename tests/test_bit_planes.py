"""The +-J kernel of 64 replicas a word: random bits, counts, enumerated laws, energies, exchange, reproducibility."""

import numba
import numpy as np
import pytest
from numba import njit
from scipy import stats

import mc
from mc.kernels import bernoulli as bits
from mc.kernels import bit_counts, bit_planes
from mc.kernels.batch import load_all, measure_all, pack, store_all, sweep_all, unpack, words
from tests.enumerated import FALSE_ALARM, combined_p_value, law_p_value

V = bits.VECTOR
BETAS = np.array([0.0, 0.02, 0.1, 0.19, 0.21, 0.4, 0.7, 1.0])  # on both sides of where a flip needs a coin


def glass(n_spins, bonds, strength, seed, constant=0.0):
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], len(bonds))
    return mc.Hamiltonian(n_spins, [(np.array(bonds), strength * signs)], constant=constant)


def every_degree():
    """0 to 6 neighbours: site 0 has six, site 7 one, site 8 none."""
    bonds = [(0, k) for k in range(1, 7)] + [(1, 2), (1, 3), (1, 4), (1, 5), (2, 3), (2, 4), (3, 4), (6, 7)]
    return glass(9, bonds, 1.25, 4)


MODELS = {
    "periodic 3x3": lambda: mc.models.ea2d(L=3, seed=2),
    "ladder 3x4": lambda: glass(12, mc.Lattice((3, 4), (False, True)).bonds, 0.8, 1, constant=0.5),
    "random graph": lambda: mc.models.rrg(N=10, degree=3, J="bimodal", seed=5),
    "complete graph": lambda: glass(7, np.stack(np.triu_indices(7, 1), 1), 0.5, 3),
    "every degree": every_degree,
}
LARGE = {"3D, 1000 sites": lambda: mc.models.ea3d(L=10, J="bimodal", seed=1), **MODELS}


def batch_of(hamiltonian, beta, units=1, seed=1):
    return bit_planes.make(hamiltonian, np.resize(beta, 64 * units), seed, (3,), "metropolis")


def rows_of(batch):
    units, n_spins = len(batch.words), len(batch.slot)
    rows = np.full((units, 64, words(n_spins)), 7, np.uint64)
    store_all(batch, rows)
    return rows


def spins_of(batch):
    """Spins (lanes, N) int8."""
    return unpack(rows_of(batch), len(batch.slot)).reshape(len(batch.beta), -1)


def bits_of(array):
    return (array[..., None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)


@njit
def draw(planes, cases, state, n):
    """How often each lane was set in n calls, by vector, (2, 64) int64, and the bits of the last calls."""
    s0, s1, s2, s3 = bits.load(state, 0), bits.load(state, V), bits.load(state, 2 * V), bits.load(state, 3 * V)
    totals, counters, waiting = np.empty((2, 64), np.int64), np.zeros((2, bit_counts.COUNTER), np.uint64), 0
    last = np.zeros((n, 2, V), np.uint64)
    for call in range(n):
        a, high_a, low_a = bits.load(cases[0], 0), bits.load(cases[0], V), bits.load(cases[0], 2 * V)
        b, high_b, low_b = bits.load(cases[1], 0), bits.load(cases[1], V), bits.load(cases[1], 2 * V)
        a, b, s0, s1, s2, s3 = bits.bernoulli(a, high_a, low_a, b, high_b, low_b, planes, 0, s0, s1, s2, s3)
        bits.store(last[call, 0], 0, a)
        bits.store(last[call, 1], 0, b)
        bit_counts.count_bits(counters[0], waiting, a)
        waiting = bit_counts.count_bits(counters[1], waiting, b)
    bit_counts.lane_totals(counters[0], waiting, totals[0])
    bit_counts.lane_totals(counters[1], waiting, totals[1])
    return totals, last


def planes_of(p):
    """Binary places of probabilities p (cases, 64)."""
    planes = np.zeros((len(p), bits.BITS), np.uint64)
    for case, lane in np.ndindex(p.shape):
        threshold = min(int(p[case, lane] * 2.0**64), 2**64 - 1)
        for place in range(64):
            planes[case, place] |= np.uint64((threshold >> (63 - place) & 1) << lane)
    return planes.ravel()


@pytest.mark.statistical
def test_bernoulli_bits_have_the_probabilities_of_their_lanes():
    # 2^17 calls, 8 words a lane and vector: 10^6 draws. False alarm 1e-4.
    n, rng, p_values = 2**17, np.random.default_rng(0), []
    some = [0.0, 1.0, 0.5, 1 / 3, 0.9, 1e-2, 1e-3, 2e-5, 1 - 1e-4, 2.0**-12 + 2.0**-18, np.exp(-4 / 1.1)]
    for high, low in ((0, 0), (0, 1), (1, 0)):
        p = rng.choice(some, (3, 64))
        state, here = rng.integers(0, 2**64, (2, 4 * V), dtype=np.uint64)
        asked = np.zeros((2, 3 * V), np.uint64)
        asked[:, :V] = here[:V] | here[V : 2 * V]
        asked[:, V : 2 * V], asked[:, 2 * V :] = np.uint64(high * (2**64 - 1)), np.uint64(low * (2**64 - 1))
        totals, drawn = draw(planes_of(p), asked, state, n)
        assert not (np.bitwise_or.reduce(drawn, axis=0) & ~asked[:, :V]).any()
        trials = n * bits_of(asked[:, :V]).sum(axis=1).astype(np.int64)
        chance = p[2 * high + low]
        assert (totals[:, chance == 0] == 0).all()
        assert (totals[:, chance == 1] == trials[:, chance == 1]).all()
        use = (trials > 0) & (chance > 0) & (chance < 1)
        expected = (trials * chance)[use]
        squares = (totals[use] - expected) ** 2 / (expected * (1 - np.broadcast_to(chance, use.shape)[use]))
        p_values.append(stats.chi2.sf(squares.sum(), use.sum()))
    assert combined_p_value(p_values) > FALSE_ALARM, p_values


@pytest.mark.statistical
@pytest.mark.parametrize("p", [0.5, 2.0**-7])
def test_bernoulli_bits_are_independent(p):
    # Correlations of all pairs of the 1024 bits of a call, which come in three kinds. False alarm 1e-4.
    n = 2000
    asked = np.zeros((2, 3 * V), np.uint64)
    asked[:, :V] = np.uint64(2**64 - 1)
    state = np.random.default_rng(5).integers(0, 2**64, 4 * V, dtype=np.uint64)
    _, drawn = draw(planes_of(np.full((3, 64), p)), asked, state, n)
    values = (bits_of(drawn).reshape(n, -1).astype(float) - p) / np.sqrt(p * (1 - p))
    squares = (values.T @ values) ** 2 / n
    _, word, lane = np.unravel_index(np.arange(2 * V * 64), (2, V, 64))
    same_lane = (lane[:, None] == lane) & np.triu(np.ones(squares.shape, bool), 1)
    sharing = same_lane & (word[:, None] == word)  # the pairs that may be decided by one random word
    others = np.triu(np.ones(squares.shape, bool), 1) & ~same_lane
    p_values = []
    for kind in (sharing, same_lane & ~sharing, others):
        mean, count = squares[kind].mean(), kind.sum()
        spread = np.sqrt((2 + (1 / (p * (1 - p)) - 6) ** 2 / n) / count)  # of the mean of count squares
        p_values.append(stats.norm.sf(abs(mean - 1) / spread) * 2)
        total = np.sqrt(squares[kind]) * np.sign((values.T @ values)[kind])
        p_values.append(stats.norm.sf(abs(total.sum()) / np.sqrt(count)) * 2)
    assert combined_p_value(p_values) > FALSE_ALARM, p_values


def test_transposition_and_counts():
    rng = np.random.default_rng(1)
    block = rng.integers(0, 2**64, 64, dtype=np.uint64)
    turned = block.copy()
    bit_counts.transpose(turned, np.empty(64, np.uint64))
    assert (bits_of(turned) == bits_of(block).T).all()
    for n in (1, 8, 299):
        columns = rng.integers(0, 2**64, (n, V), dtype=np.uint64) | np.uint64(1)
        assert (count(columns) == bits_of(columns.ravel()).sum(axis=0)).all()


@njit
def count(columns):
    counter, totals, waiting = np.zeros(bit_counts.COUNTER, np.uint64), np.empty(64, np.int64), 0
    for column in range(len(columns)):
        waiting = bit_counts.count_bits(counter, waiting, bits.load(columns[column], 0))
    bit_counts.lane_totals(counter, waiting, totals)
    return totals


def test_probabilities_are_exact():
    beta = np.concatenate([[0.0, 1e-9, 40.0], np.random.default_rng(0).exponential(1.0, 125)])
    planes = np.zeros((2, bit_planes.ROW), np.uint64)
    bit_planes.set_planes(beta, 0.8, planes)
    places = bits_of(planes).swapaxes(1, 2).reshape(128, bit_planes.ROW)
    for m in range(1, 7):
        first = bit_planes.first_probability(m) + 64 * ((m - 1) // 2)
        value = (places[:, first : first + 64] * 0.5 ** np.arange(1, 65)).sum(axis=1)
        assert value == pytest.approx(np.exp(-1.6 * m * beta), rel=1e-15, abs=2.0**-64)


@pytest.mark.statistical
@pytest.mark.parametrize("name", MODELS)
def test_sweeps_sample_the_enumerated_law(name):
    # 8 lanes of each of 8 betas in a word, 40 words, 60 draws that are 20 sweeps apart. False alarm 1e-4.
    hamiltonian = MODELS[name]()
    batch = batch_of(hamiltonian, BETAS, units=40, seed=8)
    sweep_all(batch, 40, 100, False)
    draws = []
    for _ in range(60):
        sweep_all(batch, 40, 20, False)
        draws.append(spins_of(batch))
    draws = np.array(draws).reshape(-1, len(BETAS), hamiltonian.n_spins)
    p_values = [law_p_value(hamiltonian, beta, draws[:, b]) for b, beta in enumerate(BETAS)]
    assert combined_p_value(p_values) > FALSE_ALARM, np.round(p_values, 5)


@pytest.mark.statistical
def test_exchanged_lanes_sample_the_law_of_their_new_beta():
    # Tempering by hand, with ladders of 8 lanes that lie in one unit or in two. False alarm 1e-4.
    hamiltonian, rng = MODELS["periodic 3x3"](), np.random.default_rng(6)
    betas = np.array([0.05, 0.3, 0.6, 0.9, 1.2, 1.6, 2.0, 2.5])
    batch = batch_of(hamiltonian, betas, units=8, seed=2)
    holder = np.arange(512).reshape(64, 8)  # lane of each beta of each ladder
    for column in range(0, 8, 2):
        holder[:, column] = rng.permutation(holder[:, column])
    draws = np.empty((120, 64, 8, 9), np.int8)
    for n in range(-20, 120):
        for parity in (0, 1, 0, 1, 0, 1):
            sweep_all(batch, 8, 3, False)
            lower, upper = holder[:, parity:-1:2].copy(), holder[:, parity + 1 :: 2].copy()
            gain = (batch.beta[lower] - batch.beta[upper]) * (batch.energy[lower] - batch.energy[upper])
            swapped = rng.random(gain.shape) < np.exp(np.minimum(gain, 0.0))
            for a, b in zip(lower[swapped].tolist(), upper[swapped].tolist(), strict=True):
                bit_planes.exchange(batch, a, b)
            holder[:, parity:-1:2] = np.where(swapped, upper, lower)
            holder[:, parity + 1 :: 2] = np.where(swapped, lower, upper)
            assert (batch.beta[holder] == betas).all()
        draws[max(n, 0)] = spins_of(batch)[holder]
    p_values = [law_p_value(hamiltonian, beta, draws[:, :, b].reshape(-1, 9)) for b, beta in enumerate(betas)]
    assert combined_p_value(p_values) > FALSE_ALARM, np.round(p_values, 5)


def test_exchange_moves_all_that_lanes_differ_in():
    hamiltonian, rng = MODELS["every degree"](), np.random.default_rng(1)
    batch = batch_of(hamiltonian, rng.exponential(0.4, 192), units=3)
    for a, b in [(0, 63), (5, 5), (3, 64), (70, 190), (64, 3), *rng.integers(0, 192, (50, 2)).tolist()]:
        bit_planes.exchange(batch, a, b)
    fresh = batch_of(hamiltonian, 0.0, units=3)
    assert (batch.planes != fresh.planes).any()
    bit_planes.set_betas(fresh, batch.beta)
    assert (fresh.beta == batch.beta).all()
    assert (batch.planes == fresh.planes).all()


@pytest.mark.parametrize("name", LARGE)
def test_rows_energies_and_flips_are_those_of_the_spins(name):
    hamiltonian = LARGE[name]()
    n_spins = hamiltonian.n_spins
    batch = batch_of(hamiltonian, BETAS, units=2)
    assert (spins_of(batch) == 1).all()
    assert batch.energy == pytest.approx(hamiltonian.energy(np.ones((128, n_spins))), abs=1e-12)
    given = np.random.default_rng(3).choice([-1, 1], (2, 64, n_spins))
    load_all(batch, pack(given))
    assert (rows_of(batch) == pack(given)).all()
    assert batch.energy == pytest.approx(hamiltonian.energy(given).ravel(), abs=1e-12)
    sweep_all(batch, 2, 4, False)
    before = spins_of(batch)
    assert batch.energy == pytest.approx(hamiltonian.energy(before), abs=1e-12)
    assert (batch.flipped == 0).all()
    sweep_all(batch, 2, 1, True)
    assert (batch.flipped == (spins_of(batch) != before).sum(axis=1)).all()
    assert (batch.flipped > 0).any()
    batch.energy[:] = np.nan
    measure_all(batch, 2)
    assert batch.energy == pytest.approx(hamiltonian.energy(spins_of(batch)), abs=1e-12)


def test_independent_starts_stay_different_states():
    batch = batch_of(mc.models.ising(L=16), 0.4406868)
    sweep_all(batch, 1, 4000, False)
    spins = spins_of(batch)
    assert len(np.unique(spins * spins[:, :1], axis=0)) == 64


def test_runs_are_repeated_and_continued_bit_for_bit():
    hamiltonian, beta = LARGE["3D, 1000 sites"](), np.linspace(0.0, 1.5, 128)
    all_threads = numba.get_num_threads()
    whole, parts, other = (batch_of(hamiltonian, beta, 2, seed) for seed in (4, 4, 5))
    sweep_all(whole, 2, 20, False)
    numba.set_num_threads(1)
    sweep_all(parts, 2, 12, True)
    load_all(other, rows_of(parts))
    other.streams[:] = parts.streams
    sweep_all(parts, 2, 8, False)
    sweep_all(other, 2, 8, False)
    numba.set_num_threads(all_threads)
    assert (rows_of(whole) == rows_of(parts)).all()
    assert (rows_of(whole) == rows_of(other)).all()
    assert (whole.streams == other.streams).all()
    different = batch_of(hamiltonian, beta, 2, 5)
    sweep_all(different, 2, 20, False)
    assert (rows_of(different) != rows_of(whole)).any(axis=2).all()


def test_what_it_does_not_do_is_refused():
    refusal = bit_planes.refusal
    model = mc.models.ea2d(L=3)
    assert refusal(model, "metropolis") == ""
    assert "heatbath" in refusal(model, "heatbath")
    assert "one strength" in refusal(mc.models.ea2d(L=3, J="gaussian"), "metropolis")
    assert "one strength" in refusal(mc.models.ising(L=3, h=0.1), "metropolis")
    assert "7 neighbours" in refusal(glass(8, np.stack(np.triu_indices(8, 1), 1), 1.0, 0), "metropolis")
    assert bit_planes.width(1) == bit_planes.width(1000) == 64
    with pytest.raises(ValueError, match="65 replicas"):
        bit_planes.make(model, np.ones(65), 1, (), "metropolis")
    with pytest.raises(ValueError, match="wolff"):
        bit_planes.make(model, np.ones(64), 1, (), "wolff")
