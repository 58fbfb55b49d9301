"""The packed square lattice: exact laws, random bits, layout, energies, counts of flips, independence, refusals."""

import numpy as np
import pytest
from numba import njit
from scipy import stats

import mc
from mc.exact.kaufman import kaufman_torus
from mc.kernels import packed_lattice, packed_words
from mc.kernels.batch import exchange, load, measure, pack, store, sweep, unpack, words
from tests.enumerated import FALSE_ALARM, chi_square_p, combined_p_value, law, state_numbers

CRITICAL = 0.44068679350977
GRIDS = [(1, 1), (1, 2), (2, 1), (2, 2)]  # of a 4 x 4 lattice: 1, 2 and 4 spins a word
SHAPES = [(4, 4), (4, 6), (6, 10), (16, 16), (8, 64), (64, 8), (24, 40), (20, 134), (256, 4), (64, 64), (32, 128)]


@njit(cache=True)
def run(batch, rows, n_sweeps, count):
    """Sweep and measure all replicas; rows (replicas, 1, words) are filled with their spins."""
    for unit in range(rows.shape[0]):
        sweep(batch, unit, n_sweeps, count)
        measure(batch, unit)
        store(batch, unit, rows[unit])


@njit(cache=True)
def put(batch, rows):
    """The reverse of `run`."""
    for unit in range(rows.shape[0]):
        load(batch, unit, rows[unit])
        measure(batch, unit)


@njit(cache=True)
def swap(batch, a, b):
    exchange(batch, a, b)


@njit(cache=True)
def single(batch, n_sweeps):
    sweep(batch, 0, n_sweeps, False)


def ising(shape, J=1.0):
    return mc.models.ising(Ly=shape[0], Lx=shape[1], J=J)


class Run:
    """Replicas of a ferromagnet: `spins` (replicas, N) int8 after every `step`."""

    def __init__(self, shape, betas, seed=0, grid=None, J=1.0):
        self.hamiltonian = ising(shape, J)
        self.batch = packed_lattice.make(self.hamiltonian, np.array(betas), seed, (3,), "metropolis", grid)
        self.rows = np.zeros((len(betas), 1, words(self.hamiltonian.n_spins)), np.uint64)
        self.step(0)

    def step(self, n_sweeps, count=False):
        run(self.batch, self.rows, n_sweeps, count)
        return self

    def put(self, spins):
        put(self.batch, pack(spins)[:, None])
        return self.step(0)

    @property
    def spins(self):
        return unpack(self.rows[:, 0], self.hamiltonian.n_spins)


@pytest.fixture(scope="module")
def laws():
    """States and probabilities of 4 x 4 spins at four betas; the flips of the first two need a coin."""
    return {beta: law(ising((4, 4)), beta) for beta in (0.0, 0.12, 0.21, 0.35)}


@pytest.mark.statistical
@pytest.mark.parametrize("grid", GRIDS)
def test_samples_the_enumerated_law(grid, laws):
    # 5000 draws of each of three sets of spins that lie across the edges of the blocks, 80 sweeps apart: tau_int of
    # the magnetization is 4 sweeps at the lowest temperature. False alarm 1e-4 a grid.
    sites = np.arange(16).reshape(4, 4)
    keys = [sites[1:3].ravel(), sites[:, [0, 3]].ravel(), sites[[0, 3]].ravel()]
    p_values = []
    for number, (beta, (states, probabilities)) in enumerate(laws.items()):
        replica = Run((4, 4), [beta] * 1000, seed=number, grid=grid)
        for key in keys:
            cells = np.bincount(state_numbers(states[:, key]), probabilities, 2 ** len(key))
            counts = np.zeros(2 ** len(key))
            for _ in range(5):
                counts += np.bincount(state_numbers(replica.step(80).spins[:, key]), minlength=2 ** len(key))
            p_values.append(chi_square_p(counts, cells, 5000))
    assert combined_p_value(p_values) > FALSE_ALARM, np.round(p_values, 5)


@pytest.mark.statistical
def test_energy_and_heat_capacity_are_kaufmans():
    # The scatter of the means of 64 independent replicas is their error; tau_int of the energy is 6 sweeps at most.
    # False alarm 1e-4.
    p_values = []
    cases = [
        ((16, 16), 0.1),
        ((16, 16), CRITICAL),
        ((32, 16), 0.42),
        ((24, 40), 0.4),
        ((64, 64), 0.38),
        ((8, 64), 0.6),
    ]
    for number, (shape, beta) in enumerate(cases):
        replica, energies = Run(shape, [beta / 1.5] * 64, seed=number, J=1.5).step(3000), []
        for _ in range(200):
            replica.step(60)
            energies.append(replica.batch.energy.copy())
        exact = kaufman_torus(shape[1], shape[0], 1.5, beta / 1.5)
        deviation = np.array(energies) - exact.energy
        for series, mean in ((deviation, 0.0), (deviation**2, exact.heat_capacity / (beta / 1.5) ** 2)):
            p_values.append(stats.ttest_1samp(series.mean(axis=0), mean).pvalue)
    assert combined_p_value(p_values) > FALSE_ALARM, np.round(p_values, 5)


@pytest.mark.statistical
@pytest.mark.parametrize("shape", [(16, 16), (24, 40), (64, 64)])
def test_every_spin_flips_with_the_probability_of_its_neighbourhood(shape):
    # Seen by their neighbours, spins of the first colour are those after the sweep, the others those before it. The
    # flips of each site, and of all, with 0 and with 1 broken bond are compared with their probability, and products
    # of deviations of spins of one colour, near each other and at one place of two blocks, with 0. False alarm 1e-4 a
    # shape.
    p_values = []
    first = np.indices(shape).sum(axis=0) % 2 == 0
    for number, beta in enumerate((0.0, 0.05, 0.19, 0.25, CRITICAL, 0.7)):
        replica = Run(shape, [beta] * 40, seed=number).step(20)
        height, width = int(replica.batch.layout[2]), 2 * int(replica.batch.layout[3])
        shifts = {(2, 0), (0, 2), (height % shape[0], 0), (0, width % shape[1])} - {(0, 0)}
        p = np.exp(-4.0 * beta)
        chance = np.array([p * p, p, 1.0, 1.0, 1.0]) * (0.5 if beta < 0.2 else 1.0)
        deviation, variance = np.zeros((2, *shape)), np.zeros((2, *shape))
        products = np.zeros((len(shifts), 2))
        for _ in range(25):
            before = replica.spins.reshape(-1, *shape)
            after = replica.step(1).spins.reshape(-1, *shape)
            seen = np.where(first, after, before)
            around = [np.roll(seen, step, axis) for axis in (1, 2) for step in (-1, 1)]
            broken = sum((before != other).astype(np.int8) for other in around)
            q = chance[broken]
            residue, noise = (after != before) - q, q * (1.0 - q)
            assert not residue[noise == 0.0].any()
            for bonds in (0, 1):
                deviation[bonds] += (residue * (broken == bonds)).sum(axis=0)
                variance[bonds] += (noise * (broken == bonds)).sum(axis=0)
            for n, shift in enumerate(sorted(shifts)):
                products[n] += [(x * np.roll(x, shift, (1, 2))).sum() for x in (residue, noise)]
        totals = np.stack([deviation.sum(axis=(1, 2)), variance.sum(axis=(1, 2))], axis=1)
        for value, square in np.concatenate([totals, products]):
            if square > 0.0:
                p_values.append(2.0 * stats.norm.sf(abs(value) / np.sqrt(square)))
        enough = variance > 5.0
        if enough.any():
            p_values.append(stats.chi2.sf((deviation[enough] ** 2 / variance[enough]).sum(), enough.sum()))
    assert combined_p_value(p_values) > FALSE_ALARM, np.round(p_values, 5)


@pytest.mark.parametrize("p", [0.0, 1e-9, 0.0294, 0.1716, 0.4999, 0.5, 0.77, 0.999, 1.0])
def test_probabilities_of_bits_add_up(p):
    # What the digits give, and what the hits add, is the probability asked for.
    digits, hits, n_words = np.zeros((1, 2, packed_words.DIGITS + 2), np.uint64), np.zeros((1, 2)), 32
    packed_words.plan(p, p * p, n_words, 0, digits, hits)
    assert hits[0, 1] == pytest.approx(np.exp(-hits[0, 0]))
    assert hits[0, 0] <= 64 * n_words / 127
    for wanted, (*places, undecided, share) in zip((p, p * p), digits[0], strict=True):
        below = sum((place > 0) << number for number, place in enumerate(places))
        rounded = (below + (undecided > 0)) / packed_words.LEVELS
        missed = np.exp(-hits[0, 0] * (float(share) / 2.0**32) / (64 * n_words))
        assert (rounded * missed if undecided else 1.0 - (1.0 - rounded) * missed) == pytest.approx(wanted, abs=1e-11)


@njit(cache=True)
def draw_bits(states, bits, n_draws, n_words, digits, hits, counts):
    for _ in range(n_draws):
        packed_words.draw(states, 0, bits, 0, n_words, n_words, digits, hits)
        for word in range(2 * n_words):
            for bit in range(64):
                counts[word, bit] += np.int64((bits[0, word] >> np.uint64(bit)) & np.uint64(1))


@pytest.mark.statistical
def test_bits_have_their_probability_at_every_place():
    # False alarm 1e-4.
    p_values, n_words, n_draws = [], 24, 3000
    for number, p in enumerate((0.003, 0.1716, 0.302, 0.4999, 0.77, 0.999)):
        digits, hits = np.zeros((1, 2, packed_words.DIGITS + 2), np.uint64), np.zeros((1, 2))
        packed_words.plan(p, p * p, n_words, 0, digits, hits)
        counts = np.zeros((2 * n_words, 64), np.int64)
        bits = np.zeros((1, 2 * n_words), np.uint64)
        draw_bits(packed_words.slots(number, lanes=1), bits, n_draws, n_words, digits, hits, counts)
        for wanted, found in zip((p, p * p), np.split(counts, 2), strict=True):
            mean, variance = n_draws * wanted, n_draws * wanted * (1.0 - wanted)
            total = (found.sum() - mean * found.size) / np.sqrt(variance * found.size)
            p_values.append(2.0 * stats.norm.sf(abs(total)))
            if variance > 5.0:
                p_values.append(stats.chi2.sf(((found - mean) ** 2).sum() / variance, found.size))
    assert combined_p_value(p_values) > FALSE_ALARM, np.round(p_values, 5)


@pytest.mark.parametrize("shape", SHAPES)
def test_spins_energies_and_counts_of_flips(shape):
    spins = np.random.default_rng(1).choice(np.array([-1, 1], np.int8), size=(3, shape[0] * shape[1]))
    replica = Run(shape, [0.1, 0.3, 0.5], J=0.75)
    assert (replica.spins == 1).all()
    assert replica.put(spins).spins.tolist() == spins.tolist()
    assert replica.batch.energy == pytest.approx(replica.hamiltonian.energy(spins), abs=1e-9)
    for n_sweeps in (1, 2):
        before = replica.step(n_sweeps - 1).spins
        state = replica.batch.streams.copy()
        after = replica.step(1, count=True).spins
        assert (replica.batch.flipped == (after != before).sum(axis=1)).all()
        assert replica.batch.energy == pytest.approx(replica.hamiltonian.energy(after), abs=1e-9)
        assert (replica.batch.streams != state).any(axis=(1, 2)).all()
    assert (replica.rows[:, 0] == pack(after)).all()  # bits from N on are zero


def test_constant_of_the_hamiltonian_counts():
    bonds = ising((6, 8), J=0.5)
    hamiltonian = mc.Hamiltonian(48, dict(bonds.interactions), constant=2.5, lattice=bonds.lattice)
    assert packed_lattice.refusal(hamiltonian, "metropolis") == ""
    batch = packed_lattice.make(hamiltonian, np.array([0.3]), 0, (), "metropolis")
    run(batch, np.zeros((1, 1, 1), np.uint64), 0, False)
    assert batch.energy[0] == 2.5 - 48.0


def test_replicas_depend_neither_on_their_number_nor_on_the_blocks_of_sweeps():
    few, many = Run((16, 32), [0.4] * 2, seed=5), Run((16, 32), [0.4] * 5, seed=5)
    for _ in range(6):
        few.step(10)
    many.step(60)
    assert (few.spins == many.spins[:2]).all()
    assert (few.batch.streams == many.batch.streams[:2]).all()
    assert (few.spins != Run((16, 32), [0.4] * 2, seed=6).step(60).spins).any()


def test_spins_and_streams_are_all_that_is_carried_on():
    whole, other = Run((24, 40), [0.3, 0.5], seed=1).step(40), Run((24, 40), [0.6, 0.1], seed=2).step(7)
    other.put(whole.spins)
    other.batch.streams[...] = whole.batch.streams
    packed_lattice.set_betas(other.batch, whole.batch.beta)
    assert (whole.step(30).spins == other.step(30).spins).all()


def test_exchanged_betas_are_taken_from_the_next_sweep_on():
    one, two = Run((16, 16), [0.1, 0.3, 0.7]).step(5), Run((16, 16), [0.1, 0.3, 0.7]).step(5)
    swap(one.batch, 0, 2)
    assert one.batch.beta.tolist() == [0.7, 0.3, 0.1]
    packed_lattice.set_betas(two.batch, np.array([0.7, 0.3, 0.1]))
    assert (one.step(5).spins == two.step(5).spins).all()
    assert one.batch.energy[0] < one.batch.energy[2]


def test_replicas_of_one_beta_stay_different():
    spins = Run((16, 16), [CRITICAL] * 64).step(2000).spins
    assert len(np.unique(spins * spins[:, :1], axis=0)) == 64


def test_other_models_are_refused():
    def why(hamiltonian, rule="metropolis"):
        return packed_lattice.refusal(hamiltonian, rule)

    square = ising((6, 8))
    sites, couplings = square.bonds
    assert why(square) == ""
    assert "heatbath" in why(square, "heatbath")
    assert "5 x 8" in why(ising((5, 8)))
    assert "periodic" in why(mc.models.ising(L=6, boundary="open"))
    assert "two-dimensional" in why(mc.models.ising(Lx=4, Ly=4, Lz=4))
    assert "two-dimensional" in why(mc.models.sk(N=8))
    assert "nothing else" in why(mc.models.ising(L=6, h=0.1))
    for changed in (-1.0, 0.5):
        other = couplings.copy()
        other[3] = changed
        assert "equal and positive" in why(mc.Hamiltonian(48, [(sites, other)], lattice=square.lattice))
    assert "equal and positive" in why(ising((6, 8), J=-1.0))
    assert "all bonds" in why(mc.Hamiltonian(48, [(sites[1:], couplings[1:])], lattice=square.lattice))
    far = sites.copy()
    far[0] = 0, 10
    assert "all bonds" in why(mc.Hamiltonian(48, [(far, couplings)], lattice=square.lattice))
