"""Cluster moves: Wolff, Swendsen-Wang and Houdayer against enumerated laws, their counts, and what they conserve."""

import numba
import numpy as np
import pytest
from numba import njit
from scipy import stats

import mc
from mc.exact.kaufman import kaufman_torus
from mc.kernels import batch, houdayer, local_field, metropolis, swendsen_wang, wolff
from tests.enumerated import FALSE_ALARM, all_states, chi_square_p, combined_p_value, law, law_p_value, state_numbers

CRITICAL = 0.5 * np.log1p(np.sqrt(2.0))
U1 = np.uint64(1)


def ferromagnet(n_spins, bonds, couplings=1.0):
    return mc.Hamiltonian(n_spins, [(np.array(bonds), np.broadcast_to(couplings, len(bonds)))])


def circulant(n_spins, distances):
    """A ring in which each site is joined to those at some distances, on either side."""
    return ferromagnet(n_spins, [(i, (i + d) % n_spins) for d in distances for i in range(n_spins)])


# Every path of the kernels: four or six bonds a site, other numbers of them, more than a word decides, and a last
# site with fewer; a queue that runs out of room; couplings that differ; spins and models without bonds.
FERROMAGNETS = {
    "torus": lambda: mc.models.ising(L=3),
    "open box": lambda: mc.models.ising(Lx=4, Ly=2, boundary="open"),
    "six neighbours": lambda: circulant(10, (1, 2, 3)),
    "eight neighbours": lambda: circulant(11, (1, 2, 3, 5)),
    "star and a loose spin": lambda: ferromagnet(8, [(3, i) for i in (0, 1, 2, 4, 5, 6)]),
    "complete": lambda: ferromagnet(6, [(i, j) for j in range(6) for i in range(j)], 0.4),
    "uneven": lambda: ferromagnet(6, [(0, 1), (1, 2), (0, 2), (2, 3), (3, 4)], [0.5, 1.0, 0.25, 1.5, 0.75]),
    "free spins": lambda: mc.Hamiltonian(3, []),
}


def hardly_uneven(hamiltonian):
    """The same model with couplings that differ in the last places, for which kernels take their general loops."""
    bonds, couplings = hamiltonian.bonds
    changed = couplings * (1 + 1e-15 * (np.arange(len(bonds)) % 3))
    return mc.Hamiltonian(hamiltonian.n_spins, [(bonds, changed)], lattice=hamiltonian.lattice)


def streams_of(count, seed):
    """Random states are streams as good as those of `streams`, and many at once."""
    return np.random.default_rng(seed).integers(0, 2**64, size=(count, 4), dtype=np.uint64)


def replicas(hamiltonian, beta, count, seed):
    """(spins all up, energies, betas, streams): one start for all, so that nothing but the kernel makes the law."""
    spins = np.ones((count, hamiltonian.n_spins), np.int8)
    return spins, hamiltonian.energy(spins), np.full(count, float(beta)), streams_of(count, seed)


def run(rule, hamiltonian, start, n_updates):
    if rule == "wolff":
        arrays = local_field.kernel_arrays(hamiltonian.table)
        return wolff.update(*start, hamiltonian.constant, *arrays, n_updates)
    arrays = swendsen_wang.bond_arrays(hamiltonian.table)
    return swendsen_wang.update(*start, hamiltonian.constant, *arrays, n_updates)


@njit
def patterns_of(limit, parts, stream, n_calls):
    """How often each combination of open bonds came up, (2^parts,)."""
    s0, s1, s2, s3 = stream[0], stream[1], stream[2], stream[3]
    counts = np.zeros(2 ** len(parts), np.int64)
    for _ in range(n_calls):
        bonds, s0, s1, s2, s3 = wolff.open_bonds(limit, parts, s0, s1, s2, s3)
        pattern = 0
        for number, part in enumerate(parts):
            if bonds & part:
                pattern += 2**number
        counts[pattern] += 1
    return counts


@pytest.mark.statistical
@pytest.mark.parametrize("parts", [wolff.FOUR, wolff.SIX], ids=["four", "six"])
def test_bonds_are_open_independently_with_the_probability_asked_for(parts):
    # 2^-16 and 2^-11 are left to the second word wholly, 1 - 2^-16 nearly. False alarm 1e-4.
    p_values = []
    for probability in (0.0, 2.0**-16, 2.0**-11, 0.3, 0.5, 0.5857864376, 1.0 - 2.0**-16, 1.0):
        limit = np.uint64(min(int(probability * 2**64), 2**64 - 1))
        for seed in (1, 2):
            counts = patterns_of(limit, parts, streams_of(1, seed)[0], 1_000_000)
            n_open = np.array([number.bit_count() for number in range(len(counts))])
            expected = probability**n_open * (1 - probability) ** (len(parts) - n_open)
            p_values.append(chi_square_p(counts, expected, counts.sum()))
    assert combined_p_value(p_values) > FALSE_ALARM, np.round(p_values, 5)


def test_threshold_is_the_probability_of_an_open_bond():
    for beta, strength in ((0.0, 1.0), (1e-12, 1.0), (CRITICAL, 1.0), (0.3, 2.5), (18.0, 1.0)):
        assert float(wolff.threshold(beta, strength)) * 2.0**-64 == pytest.approx(-np.expm1(-2 * beta * strength))
    assert wolff.threshold(1e3, 1.0) == 2**64 - 1


@pytest.mark.statistical
@pytest.mark.parametrize("rule", ["wolff", "swendsen-wang"])
def test_kernel_samples_the_enumerated_law(rule):
    # One state of each of 8000 replicas with their own streams: independent draws. False alarm 1e-4 a rule.
    p_values = {}
    for name, build in FERROMAGNETS.items():
        hamiltonian = build()
        for beta in (0.0, 0.2, 0.6):
            for seed in (1, 2):
                start = replicas(hamiltonian, beta, 8_000, 10 * len(p_values) + seed)
                if rule == "wolff":  # at beta = 0 a cluster is one spin: half of the replicas flip one more
                    run(rule, hamiltonian, tuple(array[:4_000] for array in start), 1)
                run(rule, hamiltonian, start, 40 if rule == "wolff" else 20)
                assert start[1] == pytest.approx(hamiltonian.energy(start[0]), abs=1e-9)
                p_values[name, beta, seed] = law_p_value(hamiltonian, beta, start[0])
    assert combined_p_value(list(p_values.values())) > FALSE_ALARM, p_values


@pytest.mark.statistical
@pytest.mark.parametrize("couplings", ["even", "uneven"])
@pytest.mark.parametrize(("rule", "n_updates"), [("wolff", 12), ("swendsen-wang", 5)])
def test_energy_of_the_critical_square_lattice(rule, n_updates, couplings):
    hamiltonian = mc.models.ising(L=16) if couplings == "even" else hardly_uneven(mc.models.ising(L=16))
    start = replicas(hamiltonian, CRITICAL, 32, 3)
    run(rule, hamiltonian, start, 20 * n_updates)
    means = np.zeros(32)
    for _ in range(400):
        run(rule, hamiltonian, start, n_updates)
        means += start[1] / 400
    error = means.std(ddof=1) / np.sqrt(32)
    exact = kaufman_torus(16, 16, 1.0, CRITICAL).energy
    assert error < 1.0
    # Student's t of 32 independent replicas; false alarm 1e-4.
    assert 2 * stats.t.sf(abs(means.mean() - exact) / error, 31) > FALSE_ALARM


def test_wolff_flips_what_it_says_and_nothing_else():
    for hamiltonian in (mc.models.ising(L=6), mc.models.ising(L=5, boundary="open"), circulant(20, (1, 2, 3))):
        start = replicas(hamiltonian, 0.3, 40, 5)
        sizes = run("wolff", hamiltonian, start, 1)
        assert (sizes == (start[0] == -1).sum(axis=1)).all()
        assert 1 <= sizes.min() < sizes.max()
    cold = replicas(mc.models.ising(L=6), 50.0, 40, 5)
    assert (run("wolff", mc.models.ising(L=6), cold, 3) == 3 * 36).all()
    assert (cold[0] == -1).all()


def test_swendsen_wang_counts_clusters_and_flips():
    for hamiltonian in (mc.models.ising(L=6), mc.models.ising(L=5, boundary="open"), FERROMAGNETS["uneven"]()):
        n_spins = hamiltonian.n_spins
        whole = 1 if hamiltonian.lattice else 2  # the last spin of the uneven graph is loose
        assert (run("swendsen-wang", hamiltonian, replicas(hamiltonian, 0.0, 10, 1), 3) == 3 * n_spins).all()
        assert (run("swendsen-wang", hamiltonian, replicas(hamiltonian, 50.0, 10, 1), 3) == 3 * whole).all()
        arrays = swendsen_wang.bond_arrays(hamiltonian.table)
        work = np.empty(swendsen_wang.room(arrays[0], arrays[2]), np.int32)
        spins, stream = np.ones(n_spins, np.int8), streams_of(1, 7)[0]
        for _ in range(20):
            before = spins.copy()
            clusters, flipped = swendsen_wang.update_replica(spins, 0.3, stream, *arrays, work, 1)
            assert flipped == (spins != before).sum()
            assert 1 <= clusters <= n_spins
        assert swendsen_wang.update_replica(spins, 0.3, stream, *arrays, work, 0) == (0, 0)


def test_bond_arrays_list_each_bond_once():
    hamiltonian = FERROMAGNETS["uneven"]()
    start, coupling, earlier = swendsen_wang.bond_arrays(hamiltonian.table)
    owner = np.repeat(np.arange(hamiltonian.n_spins), np.diff(start))
    sites, strengths = hamiltonian.bonds
    listed = sorted(zip(earlier.tolist(), owner.tolist(), coupling.tolist(), strict=True))
    assert listed == sorted(zip(*sites.T.tolist(), strengths.tolist(), strict=True))


def test_results_do_not_depend_on_the_number_of_threads():
    threads, found = numba.get_num_threads(), []
    try:
        for number in (1, threads):
            numba.set_num_threads(number)
            for rule in ("wolff", "swendsen-wang"):
                start = replicas(mc.models.ising(L=5), 0.4, 13, 1)
                found.append((run(rule, mc.models.ising(L=5), start, 20), *start))
    finally:
        numba.set_num_threads(threads)
    for one, many in zip(found[:2], found[2:], strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, many, strict=True))


# Houdayer


def mixed_model():
    """Orders 1 to 4 on five spins."""
    fields = (np.array([[0], [3]]), np.array([0.3, -0.5]))
    bonds = (np.array([[0, 1], [2, 4]]), np.array([0.7, -0.4]))
    triple = (np.array([[1, 3, 4]]), np.array([-0.6]))
    plaquette = (np.array([[0, 2, 3, 4]]), np.array([0.8]))
    return mc.Hamiltonian(5, [fields, bonds, triple, plaquette], constant=1.5)


GLASSES = {
    "box of +-J": lambda: mc.models.ea2d(Lx=3, Ly=2, boundary="open", seed=1),
    "two parts": lambda: ferromagnet(5, [(0, 1), (1, 2), (3, 4)], [1.0, -1.0, 1.0]),
    "SK": lambda: mc.models.sk(N=5, seed=1),
    "ring with fields": lambda: mc.models.rrg(N=6, degree=2, J="gaussian", h="gauss:0.5", seed=3),
    "plaquettes": lambda: mc.models.pspin(N=6, p=4, seed=2),
    "orders 1 to 4": mixed_model,
}


@njit
def move_pairs(rows_a, rows_b, start, others, n_spins, symmetric, states):
    """One move of each pair; sizes (pairs,)."""
    stack = np.empty(n_spins, np.int32)
    sizes = np.empty(len(rows_a), np.int64)
    for pair in range(len(rows_a)):
        sizes[pair] = houdayer.move(
            rows_a[pair], rows_b[pair], start, others, n_spins, symmetric, states[pair], stack
        )
    return sizes


def move_spins(hamiltonian, one, two, states):
    """`move_pairs` of spins (pairs, N), in place."""
    start, _, others = local_field.kernel_arrays(hamiltonian.table)
    rows = batch.pack(one), batch.pack(two)
    sizes = move_pairs(*rows, start, others, hamiltonian.n_spins, hamiltonian.is_z2_symmetric, states)
    one[:], two[:] = (batch.unpack(row, hamiltonian.n_spins) for row in rows)
    return sizes


def joint_p_value(hamiltonian, beta, one, two):
    """p-value of independent pairs of states (pairs, N) against the product of two enumerated laws."""
    _, single = law(hamiltonian, beta)
    counts = np.bincount(state_numbers(one) * len(single) + state_numbers(two), minlength=len(single) ** 2)
    return chi_square_p(counts, np.outer(single, single).ravel(), len(one))


@pytest.mark.statistical
def test_houdayer_alone_keeps_the_product_law():
    # Pairs drawn from the law itself; nothing else moves them, so nothing repairs what a wrong move does. False alarm
    # 1e-4.
    p_values = {}
    for name, build in GLASSES.items():
        hamiltonian = build()
        for beta in (0.0, 0.4, 1.0):
            for seed in (1, 2):
                rng = np.random.default_rng(100 * len(p_values) + seed)
                states, probabilities = law(hamiltonian, beta)
                one, two = (states[rng.choice(len(states), 20_000, p=probabilities)] for _ in range(2))
                random = streams_of(20_000, seed)
                for _ in range(5):
                    move_spins(hamiltonian, one, two, random)
                p_values[name, beta, seed] = joint_p_value(hamiltonian, beta, one, two)
    assert combined_p_value(list(p_values.values())) > FALSE_ALARM, p_values


@pytest.mark.statistical
def test_houdayer_and_metropolis_sample_the_product_law():
    # All pairs start from the state all up, so the moves and sweeps make the law. False alarm 1e-4.
    p_values = {}
    for name, build in GLASSES.items():
        hamiltonian = build()
        arrays = local_field.kernel_arrays(hamiltonian.table)
        for beta in (0.0, 0.5):
            one, *rest_one = replicas(hamiltonian, beta, 10_000, 2 * len(p_values))
            two, *rest_two = replicas(hamiltonian, beta, 10_000, 2 * len(p_values) + 1)
            random = streams_of(10_000, 77)
            for _ in range(8):
                for spins, rest in ((one, rest_one), (two, rest_two)):
                    metropolis.sweep(spins, *rest, *arrays, local_field.typical_fields(*arrays[:2]), 3)
                move_spins(hamiltonian, one, two, random)
            p_values[name, beta] = joint_p_value(hamiltonian, beta, one, two)
    assert combined_p_value(list(p_values.values())) > FALSE_ALARM, p_values


@pytest.mark.parametrize("name", GLASSES)
def test_houdayer_moves_one_cluster_and_keeps_the_energy_sum_and_the_overlaps(name):
    hamiltonian = GLASSES[name]()
    states = all_states(hamiltonian.n_spins)
    one, two = (
        array.reshape(-1, hamiltonian.n_spins).copy() for array in np.broadcast_arrays(states, states[:, None])
    )
    before = one.copy(), two.copy()
    sizes = move_spins(hamiltonian, one, two, streams_of(len(one), 6))
    total = hamiltonian.energy(before[0]) + hamiltonian.energy(before[1])
    assert hamiltonian.energy(one) + hamiltonian.energy(two) == pytest.approx(total, abs=1e-12)
    assert (one * two == before[0] * before[1]).all()
    assert (sizes == (one != before[0]).sum(axis=1)).all()
    q = before[0] * before[1]
    candidates = (q == -1).sum(axis=1)
    chosen_sign = np.full(len(q), -1)
    if hamiltonian.is_z2_symmetric:
        chosen_sign[2 * candidates > hamiltonian.n_spins] = 1
        candidates = np.minimum(candidates, hamiltonian.n_spins - candidates)
    assert ((sizes > 0) == (candidates > 0)).all()
    assert ((q == chosen_sign[:, None]) | (one == before[0])).all()
    connected = np.zeros((hamiltonian.n_spins, hamiltonian.n_spins), bool)
    for sites, _ in hamiltonian.interactions.values():
        for column in range(sites.shape[1]):
            connected[sites, sites[:, column : column + 1]] = True
    for moved, sign, overlap in zip(one != before[0], chosen_sign, q, strict=True):
        if moved.any():  # grow it again from any of its sites
            cluster = np.zeros(len(moved), bool)
            cluster[np.argmax(moved)] = True
            for _ in range(len(moved)):
                cluster |= connected[cluster].any(axis=0) & (overlap == sign)
            assert (cluster == moved).all()
    assert (sizes > 0).any()


def test_houdayer_chooses_sites_uniformly():
    # Free spins: every site is a cluster of its own, over more than one word of bits. False alarm 1e-4.
    hamiltonian = mc.Hamiltonian(150, [(np.array([[0], [149]]), np.array([0.1, 0.2]))])
    one, two = np.ones((20_000, 150), np.int8), np.ones((20_000, 150), np.int8)
    different = np.random.default_rng(5).random(150) < 0.6
    two[:, different] = -1
    assert (move_spins(hamiltonian, one, two, streams_of(20_000, 2)) == 1).all()
    moved = (one == -1).sum(axis=0)
    assert not moved[~different].any()
    assert chi_square_p(moved[different], np.full(different.sum(), 1 / different.sum()), 20_000) > FALSE_ALARM


def test_houdayer_of_whole_systems():
    # All sites in one cluster, over several words, with and without a choice between the signs of q.
    for n_spins in (63, 64, 65, 130):
        chain = ferromagnet(n_spins, [(i, i + 1) for i in range(n_spins - 1)])
        start, _, others = local_field.kernel_arrays(chain.table)
        up, down = np.ones((1, n_spins), np.int8), -np.ones((1, n_spins), np.int8)
        for symmetric, size in ((False, n_spins), (True, 0)):
            rows = batch.pack(up), batch.pack(down)
            found = move_pairs(*rows, start, others, n_spins, symmetric, streams_of(1, 1))
            assert found == size
            assert (batch.unpack(rows[0], n_spins) == (down if size else up)).all()
            assert (rows[0] ^ rows[1] == batch.pack(up)).all()
            assert move_pairs(rows[0], rows[0].copy(), start, others, n_spins, symmetric, streams_of(1, 1)) == 0


def test_minority_fraction():
    rng = np.random.default_rng(8)
    for n_spins in (5, 64, 100):
        one, two = (2 * rng.integers(0, 2, n_spins).astype(np.int8) - 1 for _ in range(2))
        two[: n_spins // 2] = -one[: n_spins // 2]
        fraction = (one != two).mean()
        rows = batch.pack(one), batch.pack(two)
        turned = rows[0], batch.pack(-two)
        assert houdayer.minority_fraction(*rows, n_spins, False) == pytest.approx(fraction)
        assert houdayer.minority_fraction(*turned, n_spins, False) == pytest.approx(1 - fraction)
        for pair in (rows, turned):
            assert houdayer.minority_fraction(*pair, n_spins, True) == pytest.approx(min(fraction, 1 - fraction))
