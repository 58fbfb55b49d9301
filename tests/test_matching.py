"""Matchings against brute force and their own dual certificate; ground states against enumeration and tables."""

import json
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import cli.main
from mc import Hamiltonian, Lattice, models
from mc.exact import ExactRefused, enumerate_states, ground_state, matching
from mc.exact.blossom import perfect_matching

REFERENCE = Path(__file__).parent / "data" / "reference"
OPEN = [
    record
    for record in json.loads((REFERENCE / "values.json").read_text())["instances"]
    if len(record["dims"]) == 2 and not any(record["periodic"]) and "_h" not in record["name"]
    and (REFERENCE / "instances" / f"{record['name']}.npz").exists()
]  # fmt: skip
COUPLINGS = {
    "gaussian": lambda rng, n: rng.normal(size=n),
    "bimodal": lambda rng, n: rng.choice([-1.0, 1.0], n),
    "diluted": lambda rng, n: rng.choice([-0.3, 0.0, 0.3], n),
    "integers": lambda rng, n: rng.integers(-4, 5, n).astype(float),
    "heavy": lambda rng, n: rng.standard_cauchy(n) ** 3,
}


def lattice_model(shape, periodic, couplings, constant=0.0, field=0.0):
    lattice = Lattice(shape, periodic)
    fields = np.arange(lattice.n_sites)[:, None], np.full(lattice.n_sites, field)
    return Hamiltonian(lattice.n_sites, [(lattice.bonds, couplings(len(lattice.bonds))), fields], constant, lattice)


def random_graph(seed):
    """(n, edges, weights): a few vertices, any density, from many ties to none."""
    rng = np.random.default_rng(seed)
    n = 2 * int(rng.integers(1, 6))
    edges = np.stack(np.triu_indices(n, 1), axis=1)
    edges = rng.permutation(edges[rng.random(len(edges)) < rng.choice([0.4, 0.7, 1.0])])
    largest = int(rng.choice([0, 1, 3, 10**3, 2**57]))
    return n, edges, rng.integers(-largest, largest + 1, len(edges))


def lightest(n, edges, weights):
    """The least weight of a perfect matching by trying all of them; None if there is none."""
    weight = {(int(u), int(v)): int(w) for (u, v), w in zip(edges, weights, strict=True)}

    @cache
    def rest(free):
        if not free:
            return 0
        tails = [(weight.get((free[0], v)), rest(tuple(u for u in free[1:] if u != v))) for v in free[1:]]
        return min((w + tail for w, tail in tails if w is not None and tail is not None), default=None)

    return rest(tuple(range(n)))


def assert_optimal(matching, edges, weights):
    """The proof: no slack and no dual is negative, and the matching attains the bound. Returns its weight."""
    n = len(matching.mate)
    np.testing.assert_array_equal(matching.mate[matching.mate], np.arange(n))
    assert (matching.mate != np.arange(n)).all()
    assert (matching.dual >= 0).all()
    around = []
    for node in range(n):
        around.append(set())
        while (node := matching.parent[node]) >= 0:
            around[-1].add(int(node))
    total = 0
    for (u, v), weight in zip(edges, weights, strict=True):
        shared = sum(int(matching.dual[node]) for node in around[u] & around[v])
        slack = 2 * int(weight) - int(matching.potential[u]) - int(matching.potential[v]) + 2 * shared
        assert slack >= 0
        if matching.mate[u] == v:
            assert slack == 0
            total += int(weight)
    assert matching.lower_bound == 2 * total
    return total


class TestPerfectMatching:
    @pytest.mark.parametrize("block", range(8))
    def test_brute_force(self, block):
        n_matched = 0
        for seed in range(100 * block, 100 * block + 100):
            n, edges, weights = random_graph(seed)
            least = lightest(n, edges, weights)
            if least is None:
                with pytest.raises(ValueError, match="no perfect matching"):
                    perfect_matching(n, edges, weights)
                continue
            assert assert_optimal(perfect_matching(n, edges, weights), edges, weights) == least
            n_matched += 1
        assert n_matched > 50

    @pytest.mark.parametrize("largest", [1, 4, 10**6])
    @pytest.mark.parametrize("degree", [4, 12, 60])
    def test_certificate_of_large_graphs(self, largest, degree):
        rng = np.random.default_rng([largest, degree])
        n = 400
        ring = np.stack([np.arange(n), (np.arange(n) + 1) % n], axis=1)  # a perfect matching is there
        pairs = np.stack(np.triu_indices(n, 2), axis=1)
        pairs = pairs[(rng.random(len(pairs)) < degree / n) & (pairs.sum(axis=1) != n - 1)]
        edges = np.concatenate([ring, pairs])
        weights = rng.integers(0, largest + 1, len(edges))
        found = perfect_matching(n, edges, weights)
        assert_optimal(found, edges, weights)

    def test_nested_blossoms(self):
        # Points on a line in tight triples: only blossoms within blossoms prove that the long edges are needed.
        x = np.concatenate([[0, 1, 2], [10, 11, 12], [20, 21, 22], [200, 201, 202], [210, 211, 212], [220, 221, 222]])
        edges = np.stack(np.triu_indices(len(x), 1), axis=1)
        weights = np.abs(x[edges[:, 0]] - x[edges[:, 1]])
        found = perfect_matching(len(x), edges, weights)
        assert_optimal(found, edges, weights)
        inner = np.flatnonzero(found.dual > 0)
        assert (found.parent[inner] >= 0).any()

    def test_parallel_edges(self):
        edges, weights = np.array([[0, 1], [1, 0], [0, 1]]), np.array([5, -3, 2])
        assert perfect_matching(2, edges, weights).lower_bound == -6

    def test_no_vertices(self):
        assert perfect_matching(0, np.zeros((0, 2), int), np.zeros(0, int)).lower_bound == 0

    def test_refusals(self):
        with pytest.raises(ValueError, match="no perfect matching"):
            perfect_matching(3, np.array([[0, 1], [1, 2], [2, 0]]), np.ones(3, int))
        with pytest.raises(ValueError, match="no perfect matching"):
            perfect_matching(4, np.array([[0, 1], [0, 2], [0, 3]]), np.ones(3, int))
        with pytest.raises(ValueError, match="one integer an edge"):
            perfect_matching(2, np.array([[0, 1]]), np.ones(1))
        with pytest.raises(ValueError, match="one integer an edge"):
            perfect_matching(2, np.array([[0, 1]]), np.ones(2, int))
        with pytest.raises(ValueError, match="itself"):
            perfect_matching(2, np.array([[1, 1]]), np.ones(1, int))
        with pytest.raises(ValueError, match=r"leaves 0\.\.1"):
            perfect_matching(2, np.array([[0, 2]]), np.ones(1, int))
        with pytest.raises(ValueError, match=r"above 2\^57"):
            perfect_matching(2, np.array([[0, 1]]), np.array([2**58]))


def assert_ground_state(hamiltonian, lowest, rel=0.0):
    energy, spins = ground_state(hamiltonian)
    assert energy == pytest.approx(lowest, rel=max(rel, 1e-14), abs=1e-11)
    assert (spins.shape, spins.dtype, spins[0]) == ((hamiltonian.n_spins,), np.int8, 1)
    assert set(np.unique(spins)) <= {-1, 1}
    assert energy == hamiltonian.energy(spins)


class TestGroundState:
    @pytest.mark.parametrize("kind", COUPLINGS)
    @pytest.mark.parametrize(("shape", "seeds"), [((4, 4), 12), ((3, 5), 12), ((5, 3), 6), ((4, 5), 2), ((2, 8), 4)])
    def test_enumeration(self, shape, seeds, kind):
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            hamiltonian = lattice_model(shape, (False, False), lambda n, rng=rng: COUPLINGS[kind](rng, n), 0.7)
            assert_ground_state(hamiltonian, enumerate_states(hamiltonian).min())

    @pytest.mark.parametrize("kind", COUPLINGS)
    @pytest.mark.parametrize(("shape", "periodic"), [
        ((3, 5), (True, False)), ((3, 5), (False, True)), ((5, 3), (True, False)), ((4, 4), (False, True)),
        ((1, 7), (False, True)), ((7, 1), (True, False)), ((4, 3), (False, True)), ((3, 3), (True, False)),
    ])  # fmt: skip
    def test_cylinders(self, shape, periodic, kind):
        for seed in range(6):
            rng = np.random.default_rng(seed)
            hamiltonian = lattice_model(shape, periodic, lambda n, rng=rng: COUPLINGS[kind](rng, n))
            assert_ground_state(hamiltonian, enumerate_states(hamiltonian).min())

    @pytest.mark.parametrize("record", OPEN, ids=lambda record: record["name"])
    def test_reference(self, record):
        shape = "x".join(str(side) for side in record["dims"])
        hamiltonian = models.from_file(str(REFERENCE / "instances" / f"{record['name']}.npz"), shape=shape)
        assert_ground_state(hamiltonian, record["E0"])

    def test_pairs_left_out_at_first_are_found(self, monkeypatch):
        rng = np.random.default_rng(21)
        for kind in COUPLINGS:
            hamiltonian = lattice_model((24, 24), (False, False), lambda n, kind=kind: COUPLINGS[kind](rng, n))
            monkeypatch.setattr(matching, "NEAREST", 24 * 24)  # all pairs
            lowest = ground_state(hamiltonian)[0]
            for most_new in (1, 5):
                monkeypatch.setattr(matching, "NEAREST", 1)
                monkeypatch.setattr(matching, "MOST_NEW", most_new)
                assert_ground_state(hamiltonian, lowest)

    @pytest.mark.parametrize("periodic", [(False, False), (True, False)])
    def test_no_frustration(self, periodic):
        rng = np.random.default_rng(3)
        for shape in ((6, 8), (1, 1), (1, 9), (9, 1)):
            if periodic[0] and shape[0] < 3:
                continue
            lattice, gauge = Lattice(shape, periodic), rng.choice([-1, 1], shape).ravel()
            strength = rng.exponential(size=len(lattice.bonds))
            mattis = Hamiltonian(
                lattice.n_sites, [(lattice.bonds, strength * gauge[lattice.bonds].prod(axis=1))], 2.0, lattice
            )
            assert_ground_state(mattis, 2.0 - strength.sum())
            np.testing.assert_array_equal(ground_state(mattis)[1], gauge * gauge[0])

    def test_ferromagnet_antiferromagnet_and_nothing(self):
        for J in (1.0, -1.0, 0.0):
            hamiltonian = lattice_model((7, 6), (False, False), lambda n, J=J: np.full(n, J))
            assert_ground_state(hamiltonian, -abs(J) * (7 * 5 + 6 * 6))
        odd_ring = lattice_model((6, 5), (False, True), lambda n: np.full(n, -1.0))  # one bad bond a row
        assert_ground_state(odd_ring, -(6 * 5 + 5 * 5) + 2 * 6)

    def test_fully_frustrated(self):
        # Villain's odd model: every plaquette frustrated, and half as many bad bonds as there are plaquettes.
        n = 11
        lattice = Lattice((n, n), (False, False))
        down = lattice.bonds[:, 1] - lattice.bonds[:, 0] == n
        couplings = np.where(down & (lattice.bonds[:, 0] % n % 2 == 1), -1.0, 1.0)
        hamiltonian = Hamiltonian(n * n, [(lattice.bonds, couplings)], 0.0, lattice)
        assert_ground_state(hamiltonian, -len(couplings) + (n - 1) ** 2)

    def test_transposed_and_gauged(self):
        rng = np.random.default_rng(8)
        n = 20
        lattice = Lattice((n, n), (False, False))
        for kind in ("gaussian", "bimodal", "heavy"):
            couplings = COUPLINGS[kind](rng, len(lattice.bonds))
            hamiltonian = Hamiltonian(n * n, [(lattice.bonds, couplings)], 0.0, lattice)
            gauge, y_x = rng.choice([-1, 1], n * n), np.arange(n * n).reshape(n, n)
            transposed = y_x.T.ravel()[lattice.bonds]
            gauged = couplings * gauge[lattice.bonds].prod(axis=1)
            lowest = ground_state(hamiltonian)[0]
            assert_ground_state(Hamiltonian(n * n, [(transposed, gauged)], 0.0, lattice), lowest, rel=1e-13)

    def test_scale(self):
        for exponent in (-1000, -40, 40, 1000):
            rng = np.random.default_rng(5)
            hamiltonian = lattice_model((6, 6), (False, False), lambda n, rng=rng: rng.normal(size=n))
            scaled = lattice_model((6, 6), (False, False), lambda n, k=exponent: np.ldexp(
                np.random.default_rng(5).normal(size=n), k))  # fmt: skip
            energy, spins = ground_state(hamiltonian)
            np.testing.assert_array_equal(ground_state(scaled)[1], spins)
            assert ground_state(scaled)[0] == np.ldexp(energy, exponent)

    def test_refusals(self):
        with pytest.raises(ExactRefused, match=r"ea2d: a torus is not planar .*; use enumeration"):
            ground_state(models.ea2d(L=4))
        with pytest.raises(ExactRefused, match="field"):
            ground_state(models.ea2d(L=4, boundary="open", h=0.1))
        for hamiltonian in (models.ea3d(L=3, boundary="open"), models.sk(N=9), models.pspin(N=9)):
            with pytest.raises(ExactRefused, match="two-dimensional lattice"):
                ground_state(hamiltonian)
        lattice = Lattice((3, 3), (False, False))
        with pytest.raises(ExactRefused, match="nearest-neighbour"):
            ground_state(Hamiltonian(9, [(np.array([[0, 4]]), np.ones(1))], 0.0, lattice))


class TestCommand:
    @pytest.fixture
    def exact(self, monkeypatch, capsys):
        """exact(words...): exit code, output, errors."""

        def call(*words):
            monkeypatch.setattr(sys, "argv", ["nmcmc", "exact", *words])
            with pytest.raises(SystemExit) as ended:
                cli.main.main()
            return ended.value.code, *capsys.readouterr()

        return call

    def test_ground_state_alone(self, exact):
        code, out, _ = exact("ising", "L=8", "boundary=open", "--ground", "--json")
        line, last = out.splitlines()
        assert (code, line) == (0, "E0 -112  per spin -1.75  [matching]")
        assert json.loads(last) == {"command": "exact", "model": "ising", "results": [], "ground_energy": -112.0}
        assert exact("ea2d", "L=6", "boundary=open", "--ground")[0] == 0

    def test_with_temperatures(self, exact):
        code, out, _ = exact("ea2d", "L=4", "boundary=open", "T=1,2", "--ground", "--json")
        data = json.loads(out.splitlines()[-1])
        assert code == 0
        assert [row["beta"] for row in data["results"]] == [1.0, 0.5]
        assert [row["ground_energy"] for row in data["results"]] == [data["ground_energy"]] * 2
        assert "ground_energy" not in json.loads(exact("ea2d", "L=4", "beta=1", "--json")[1].splitlines()[-1])

    def test_refusals(self, exact):
        code, out, err = exact("ea2d", "L=8", "--ground", "beta=1")
        assert (code, out) == (2, "")
        assert err.count("\n") == 1
        assert "torus is not planar" in err
        assert "give beta= or T=" in exact("ea2d", "L=8", "boundary=open")[2]
