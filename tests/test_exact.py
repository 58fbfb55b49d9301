"""Exact values: Kaufman, enumeration and transfer matrix against reference tables, each other and plain NumPy."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from mc import Hamiltonian, Lattice, models
from mc.exact import (
    ExactRefused,
    boltzmann_distribution,
    enumerate_exact,
    enumerate_states,
    exact,
    exact_or_none,
    frontier_width,
    kaufman_torus,
    state_index,
    state_spins,
    transfer_exact,
)
from mc.models import critical_beta

REFERENCE = Path(__file__).parent / "data" / "reference"
RECORDS = {r["name"]: r for r in json.loads((REFERENCE / "values.json").read_text())["instances"]}
KAUFMAN = json.loads((REFERENCE / "ising2d_torus_kaufman.json").read_text())
WIDE = {"ea2d_L12_gauss_per", "ea2d_L12_pm_per", "ea3d_L4_pm_per"}  # 6 to 12 s a temperature on two free cores
BETA_C = math.log(1 + math.sqrt(2)) / 2


def instance(name):
    shape = "x".join(str(side) for side in RECORDS[name]["dims"]) if len(RECORDS[name]["dims"]) > 1 else None
    return models.from_file(str(REFERENCE / "instances" / f"{name}.npz"), shape=shape)


def assert_agree(result, value, log_z=1e-12, energy=1e-10, heat_capacity=1e-8):
    assert result.log_z == pytest.approx(value["lnZ"], rel=log_z)
    assert result.energy == pytest.approx(value["U"], rel=energy)
    assert result.heat_capacity == pytest.approx(value["C"], rel=heat_capacity)


def assert_same(one, other):
    assert one.log_z == pytest.approx(other.log_z, rel=1e-12, abs=1e-12)
    assert one.energy == pytest.approx(other.energy, rel=1e-11, abs=1e-11)
    assert one.heat_capacity == pytest.approx(other.heat_capacity, rel=1e-9, abs=1e-10)


def assert_derivatives(compute, beta, step=2e-3):
    """<E> = -d ln Z/d beta and C = -beta^2 d<E>/d beta, by five-point differences."""
    weights = np.array([1, -8, 8, -1]) / (12 * step)
    around = [compute(beta + k * step) for k in (-2, -1, 1, 2)]
    result = compute(beta)
    slope = weights @ [r.log_z for r in around]
    curvature = -weights @ [r.energy for r in around]
    assert result.energy == pytest.approx(-slope, rel=1e-7)
    assert result.heat_capacity == pytest.approx(beta**2 * curvature, rel=1e-6)


def random_pairwise(n_spins, density, fields, seed):
    """A random graph, sites in random order; fields on some sites."""
    rng = np.random.default_rng(seed)
    pairs = np.stack(np.triu_indices(n_spins, 1), axis=1)
    pairs = pairs[rng.random(len(pairs)) < density]
    given = [(rng.permutation(n_spins)[pairs], rng.normal(size=len(pairs)))]
    if fields:
        sites = np.flatnonzero(rng.random(n_spins) < 0.5)
        given.append((sites[:, None], rng.normal(size=len(sites))))
    return Hamiltonian(n_spins, given, constant=rng.normal())


def random_clusters(n_spins, orders, seed):
    rng = np.random.default_rng(seed)
    given = []
    for order in orders:
        sites = np.array([rng.choice(n_spins, order, replace=False) for _ in range(2 * n_spins)])
        given.append((sites, rng.normal(size=len(sites))))
    return Hamiltonian(n_spins, given, constant=-0.7)


def brute_force(hamiltonian, beta):
    """ln Z, <E>, C, E0, g0 from energies of all states, by definition."""
    energies = hamiltonian.energy(state_spins(np.arange(2**hamiltonian.n_spins), hamiltonian.n_spins))
    lowest = energies.min()
    weights = np.exp(-beta * (energies - lowest))
    p = weights / weights.sum()
    mean = p @ energies
    degeneracy = np.sum(energies < lowest + 1e-9)
    return np.log(weights.sum()) - beta * lowest, mean, beta**2 * (p @ (energies - mean) ** 2), lowest, degeneracy


class TestKaufman:
    def test_reference_table(self):
        for row in KAUFMAN:  # reached: 4e-16 ln Z, 2e-14 U, 2e-13 C
            value = {key: float(row[key]) for key in ("lnZ", "U", "C")}
            assert_agree(kaufman_torus(row["L"], row["L"], 1.0, row["beta"]), value, 2e-15, 1e-13, 2e-12)

    @pytest.mark.parametrize(("L", "log_z", "energy", "capacity"), [
        (180, 30122.770820724564, -1.417671523934074, 2.7053179295478),
        (256, 60929.157538903391, -1.416644954196832, 2.8797862552025),
    ])  # fmt: skip
    def test_large_at_the_critical_point(self, L, log_z, energy, capacity):
        result = kaufman_torus(L, L, 1.0, BETA_C)
        assert_agree(result, {"lnZ": log_z, "U": energy * L * L, "C": capacity * L * L}, heat_capacity=1e-12)

    @pytest.mark.parametrize(("Lx", "Ly", "J"), [
        (3, 3, 1.0), (3, 5, 1.0), (4, 5, 0.7), (3, 6, 2.0), (6, 4, -1.0), (4, 4, -0.5),
    ])  # fmt: skip
    @pytest.mark.parametrize("beta", [0.0, 0.01, 0.3, BETA_C, 1.0])
    def test_enumeration(self, Lx, Ly, J, beta):
        result = kaufman_torus(Lx, Ly, J, beta)
        other = enumerate_exact(models.ising(Lx=Lx, Ly=Ly, J=J), beta)
        assert_same(result, other)
        assert (result.ground_energy, result.degeneracy) == (pytest.approx(other.ground_energy), other.degeneracy)

    def test_orientation(self):
        for beta in (0.2, BETA_C, 0.9):
            assert kaufman_torus(40, 7, 1.0, beta) == kaufman_torus(7, 40, 1.0, beta)

    @pytest.mark.parametrize("shift", [-1e-3, -1e-9, 0.0, 1e-9, 1e-3])
    def test_smooth_through_the_critical_point(self, shift):
        assert_derivatives(lambda beta: kaufman_torus(32, 32, 1.0, beta), BETA_C + shift, step=2e-4)

    def test_limits(self):
        assert kaufman_torus(5, 6, 0.0, 2.0).log_z == pytest.approx(30 * math.log(2), rel=1e-15)
        assert kaufman_torus(64, 64, 0.0, 2.0).heat_capacity == 0.0
        for beta in (1e-300, 1e-90, 1e-6):
            hot = kaufman_torus(8, 8, 1.0, beta)
            assert hot.log_z == pytest.approx(64 * math.log(2) + 64 * beta**2, rel=1e-14)
            assert hot.energy == pytest.approx(-128 * beta, rel=1e-6, abs=1e-12)
        for beta in (20.0, 400.0, 1e5):
            cold = kaufman_torus(8, 8, 1.0, beta)
            assert cold.log_z == pytest.approx(128 * beta + math.log(2), rel=1e-14)
            assert cold.energy == pytest.approx(-128, rel=1e-14)
            assert 0 <= cold.heat_capacity < 1e-20
        assert math.isnan(kaufman_torus(4, 4, 1.0, 0.0).free_energy)
        assert kaufman_torus(4, 4, 1.0, 0.5).free_energy == pytest.approx(-17.105367118731583308 / 0.5, rel=1e-15)

    def test_refusals(self):
        with pytest.raises(ExactRefused, match="side below 3"):
            kaufman_torus(2, 5, 1.0, 0.4)
        with pytest.raises(ExactRefused, match="frustrated"):
            kaufman_torus(4, 5, -1.0, 0.4)
        with pytest.raises(ValueError, match=r"beta=-0\.1"):
            kaufman_torus(4, 4, 1.0, -0.1)
        with pytest.raises(ValueError, match="coupling=nan"):
            kaufman_torus(4, 4, math.nan, 0.1)


class TestEnumeration:
    @pytest.mark.parametrize("name", [name for name, r in RECORDS.items() if r["N"] <= 24])
    def test_reference(self, name):
        hamiltonian, record = instance(name), RECORDS[name]
        for value in record["values"]:
            result = enumerate_exact(hamiltonian, value["beta"])
            assert_agree(result, value, 1e-14, 1e-13, 1e-10)
            assert result.ground_energy == pytest.approx(record["E0"], abs=1e-11)
            assert result.degeneracy == record["g0"]

    @pytest.mark.parametrize(("n_spins", "orders"), [(1, (1,)), (5, (1, 2, 3)), (11, (2, 3, 4)), (17, (1, 3, 5))])
    def test_brute_force(self, n_spins, orders):
        hamiltonian = random_clusters(n_spins, orders, seed=n_spins)
        energies = enumerate_states(hamiltonian)
        spins = state_spins(np.arange(2**n_spins), n_spins)
        np.testing.assert_allclose(energies, hamiltonian.energy(spins), atol=1e-12)
        for beta in (0.0, 0.7, 3.0, 500.0):
            result = enumerate_exact(hamiltonian, beta)
            log_z, energy, capacity, lowest, degeneracy = brute_force(hamiltonian, beta)
            assert result.log_z == pytest.approx(log_z, rel=1e-13)
            assert result.energy == pytest.approx(energy, rel=1e-12, abs=1e-12)
            assert result.heat_capacity == pytest.approx(capacity, rel=1e-9, abs=1e-12)
            assert result.ground_energy == pytest.approx(lowest, abs=1e-12)
            assert result.degeneracy == degeneracy

    def test_state_numbers(self):
        assert state_index(np.array([1, -1, -1, 1], dtype=np.int8)) == 9
        spins = np.random.default_rng(0).choice(np.array([-1, 1], np.int8), size=(3, 5, 40))
        index = state_index(spins)
        assert (index.shape, index.dtype) == ((3, 5), np.int64)
        np.testing.assert_array_equal(state_spins(index, 40), spins)
        with pytest.raises(ValueError, match="63 spins"):
            state_index(np.ones(63))

    def test_boltzmann_distribution(self):
        hamiltonian = models.pspin(N=7, p=3, h=0.2, seed=4)
        p = boltzmann_distribution(hamiltonian, 1.3)
        energies = hamiltonian.energy(state_spins(np.arange(2**7), 7))
        np.testing.assert_allclose(np.log(p), -1.3 * energies - enumerate_exact(hamiltonian, 1.3).log_z, atol=1e-13)
        assert boltzmann_distribution(hamiltonian, 1e6).max() == pytest.approx(1.0)
        np.testing.assert_array_equal(boltzmann_distribution(hamiltonian, 0.0), np.full(2**7, 2.0**-7))

    def test_derivatives(self):
        hamiltonian = models.pspin(N=12, p=4, h="gauss:0.3", seed=1)
        assert_derivatives(lambda beta: enumerate_exact(hamiltonian, beta), 0.8)

    def test_refusals(self):
        with pytest.raises(ExactRefused, match=r"2\^25 states"):
            enumerate_exact(models.pspin(N=25), 1.0)
        with pytest.raises(ExactRefused, match=r"2\^25 states"):
            enumerate_states(models.sk(N=25))
        with pytest.raises(ExactRefused, match=r"2\^21 probabilities"):
            boltzmann_distribution(models.sk(N=21), 1.0)


class TestTransferMatrix:
    @pytest.mark.parametrize("name", [name for name in RECORDS if name not in WIDE])
    def test_reference(self, name):
        hamiltonian = instance(name)
        values = RECORDS[name]["values"]
        for value in values[:1] if frontier_width(hamiltonian) > 18 else values:
            assert_agree(transfer_exact(hamiltonian, value["beta"]), value, 1e-14, 1e-12, 3e-9)

    @pytest.mark.slow
    def test_reference_wide(self):  # the 4 x 4 x 4 torus was checked by hand: it needs 0.8 GB
        value = RECORDS["ea2d_L12_pm_per"]["values"][0]
        assert_agree(transfer_exact(instance("ea2d_L12_pm_per"), value["beta"]), value, 1e-14, 1e-12, 1e-9)

    @pytest.mark.parametrize("seed", range(24))
    def test_random_graphs(self, seed):
        n_spins, density = 1 + seed % 12, (0.1, 0.3, 0.7, 1.0)[seed % 4]
        hamiltonian = random_pairwise(n_spins, density, fields=seed % 3 != 0, seed=seed)
        for beta in (0.0, 0.4, 2.0, 40.0):
            assert_same(transfer_exact(hamiltonian, beta), enumerate_exact(hamiltonian, beta))

    @pytest.mark.parametrize(("shape", "periodic"), [
        ((3, 4), (True, False)), ((4, 3), (True, False)), ((3, 5), (True, True)), ((1, 9), (False, False)),
        ((9, 1), (False, False)), ((9,), (True,)), ((2, 3, 3), (False, True, False)), ((2, 2, 2, 2), (False,) * 4),
    ])  # fmt: skip
    @pytest.mark.parametrize("field", [0.0, 0.3])
    def test_lattices(self, shape, periodic, field):
        lattice = Lattice(shape, periodic)
        couplings = np.random.default_rng(1).normal(size=len(lattice.bonds))
        uniform = (np.arange(lattice.n_sites)[:, None], np.full(lattice.n_sites, field))
        hamiltonian = Hamiltonian(lattice.n_sites, [(lattice.bonds, couplings), uniform], 1.5, lattice)
        for beta in (0.5, 1.7):
            assert_same(transfer_exact(hamiltonian, beta), enumerate_exact(hamiltonian, beta))

    def test_kaufman(self):
        for Lx, Ly, J in ((8, 8, 1.0), (5, 12, 0.8), (6, 8, -1.0)):
            for beta in (0.1, BETA_C, 1.5):
                result = transfer_exact(models.ising(Lx=Lx, Ly=Ly, J=J), beta)
                other = kaufman_torus(Lx, Ly, J, beta)
                assert result.log_z == pytest.approx(other.log_z, rel=1e-14)
                assert result.energy == pytest.approx(other.energy, rel=1e-12)
                assert result.heat_capacity == pytest.approx(other.heat_capacity, rel=1e-11)

    def test_fully_frustrated_odd_antiferromagnet(self):
        hamiltonian = models.ising(Lx=3, Ly=5, J=-1.0)
        assert_same(transfer_exact(hamiltonian, 0.6), enumerate_exact(hamiltonian, 0.6))

    @pytest.mark.parametrize(
        "name", ["ea2d_L8_pm_per", "ea2d_L10_pm_open", "ea2d_L8_gauss_per", "ea3d_L4_pm_open_h0.3"]
    )
    def test_cold_limit(self, name):
        # At beta = 2000 the weights of frontier states span e^100000; what is left is E0 and ln g0.
        result = transfer_exact(instance(name), 2000.0)
        assert result.energy == pytest.approx(RECORDS[name]["E0"], abs=1e-9)
        assert result.log_z + 2000.0 * result.energy == pytest.approx(math.log(RECORDS[name]["g0"]), abs=1e-9)
        assert result.heat_capacity == pytest.approx(0.0, abs=1e-9)

    def test_derivatives(self):
        hamiltonian = models.ea2d(L=6, J="gaussian", h="gauss:0.4", seed=3)
        assert_derivatives(lambda beta: transfer_exact(hamiltonian, beta), 0.9)

    def test_relabelling(self):
        hamiltonian = models.ea2d(Lx=5, Ly=7, J="gaussian", h=0.1, seed=2)
        shuffled = hamiltonian.permuted(np.random.default_rng(5).permutation(35))
        as_graph = Hamiltonian(35, shuffled.interactions)
        assert_same(transfer_exact(as_graph, 0.8), transfer_exact(hamiltonian, 0.8))

    def test_long_strip(self):
        # ln Z of a ring of n bonds: (2 cosh K)^n + (2 sinh K)^n
        n, K = 2000, 0.7
        ring = Hamiltonian(n, [(np.stack([np.arange(n), (np.arange(n) + 1) % n], axis=1), np.ones(n))])
        assert transfer_exact(ring, K).log_z == pytest.approx(n * math.log(2 * math.cosh(K)), rel=1e-13)

    def test_widths(self):
        assert frontier_width(models.ea2d(L=8)) == 15
        assert frontier_width(models.ea2d(L=8, boundary="open")) == 8
        assert frontier_width(models.ea2d(Lx=40, Ly=4, boundary="open")) == 4
        assert frontier_width(models.ea2d(Lx=4, Ly=40, boundary="open")) == 4
        assert frontier_width(models.sk(N=12)) <= 11
        assert frontier_width(Hamiltonian(9, [])) == 0

    def test_refusals(self):
        with pytest.raises(ExactRefused, match="order 3"):
            transfer_exact(models.pspin(N=8), 1.0)
        with pytest.raises(ValueError, match="order 3"):
            frontier_width(models.pspin(N=8))
        with pytest.raises(ExactRefused, match=r"2\^35 states at once .* 825 GB .*; use --mode pt, or a smaller"):
            transfer_exact(models.ea2d(L=18), 1.0)
        with pytest.raises(ExactRefused, match=r"2\^511 states"):
            transfer_exact(models.ea3d(L=16), 1.0)


class TestChoice:
    def test_method(self):
        assert exact(models.ising(L=128), BETA_C).method == "kaufman"
        assert exact(models.ising(L=4), 0.3).method == "kaufman"
        assert exact(models.ising(L=4, h=0.1), 0.3).method == "enumeration"
        assert exact(models.ising(L=3, J=-1.0), 0.3).method == "enumeration"
        assert exact(models.ising(L=7, J=-1.0), 0.3).method == "transfer-matrix"
        assert exact(models.ising(L=6, boundary="open"), 0.3).method == "transfer-matrix"
        assert exact(models.ea2d(L=4), 0.3).method == "enumeration"
        assert exact(models.pspin(N=18), 0.3).method == "enumeration"
        assert exact(models.rrg(N=60), 0.3).method == "transfer-matrix"

    def test_critical_default(self):
        hamiltonian = models.ising(L=32)
        result = exact(hamiltonian, critical_beta(hamiltonian))
        assert result.log_z == pytest.approx(952.64807954854280, rel=1e-14)

    def test_explicit_methods_agree(self):
        hamiltonian = models.ising(Lx=4, Ly=5)
        results = [exact(hamiltonian, 0.5, method) for method in ("kaufman", "enumeration", "transfer-matrix")]
        assert_same(results[0], results[1])
        assert_same(results[0], results[2])

    @pytest.mark.parametrize("method", ["kaufman", "enumeration", "transfer-matrix"])
    def test_constant(self, method):
        bare = models.ising(L=4)
        shifted = Hamiltonian(16, bare.interactions, 2.5, bare.lattice)
        one, other = exact(bare, 0.4, method), exact(shifted, 0.4, method)
        assert other.log_z == pytest.approx(one.log_z - 0.4 * 2.5, rel=1e-14)
        assert other.energy == pytest.approx(one.energy + 2.5, rel=1e-13)
        assert other.heat_capacity == pytest.approx(one.heat_capacity, rel=1e-11)
        if one.ground_energy is not None:
            assert other.ground_energy == pytest.approx(one.ground_energy + 2.5)

    def test_almost_uniform_torus_is_not_kaufman(self):
        lattice = Lattice((4, 4), (True, True))
        couplings = np.ones(32)
        couplings[7] = 1.0 + 1e-9
        assert exact(Hamiltonian(16, [(lattice.bonds, couplings)], lattice=lattice), 0.4).method == "enumeration"
        moved = lattice.bonds.copy()
        moved[0] = 0, 10
        hamiltonian = Hamiltonian(16, [(moved, np.ones(32))], lattice=lattice)
        assert exact(hamiltonian, 0.4).method == "enumeration"
        with pytest.raises(ExactRefused, match="equal bonds"):
            exact(hamiltonian, 0.4, "kaufman")

    @pytest.mark.parametrize("method", ["enumeration", "transfer-matrix", None])
    @pytest.mark.parametrize("beta", [0.0, 1.5, 1e4])
    def test_degenerate_input(self, method, beta):
        free = exact(Hamiltonian(10, [], 3.0), beta, method)
        assert free.log_z == pytest.approx(10 * math.log(2) - 3.0 * beta, rel=1e-14)
        assert (free.energy, free.heat_capacity) == (3.0, 0.0)
        single = exact(Hamiltonian(1, [(np.array([[0]]), [0.5])]), beta, method)
        assert single.log_z == pytest.approx(np.logaddexp(0.5 * beta, -0.5 * beta), rel=1e-14)
        assert single.energy == pytest.approx(-0.5 * math.tanh(0.5 * beta), abs=1e-15)
        # two separate bonds of either sign, and a lone spin in a field
        parts = Hamiltonian(5, [(np.array([[0, 3], [1, 4]]), [1.0, -2.0]), (np.array([[2]]), [0.3])])
        expected = [np.logaddexp(J * beta, -J * beta) for J in (1.0, 2.0, 0.3)]
        assert exact(parts, beta, method).log_z == pytest.approx(sum(expected) + 2 * math.log(2), rel=1e-14)

    def test_refusals(self):
        with pytest.raises(ExactRefused, match=r"^transfer matrix of sk \(64 spins\): needs 2\^62 .*use --mode pt"):
            exact(models.sk(N=64), 1.0)
        with pytest.raises(ExactRefused, match=r"^enumeration of pspin: 2\^30 states .*use --mode pt"):
            exact(models.pspin(N=30), 1.0)
        with pytest.raises(ValueError, match="method=onsager: not one of kaufman"):
            exact(models.ising(L=4), 1.0, "onsager")
        for beta in (-1.0, math.nan, math.inf):
            with pytest.raises(ValueError, match="beta="):
                exact(models.sk(N=64), beta)

    def test_or_none(self):
        assert exact_or_none(models.ising(L=64), 0.4).method == "kaufman"
        assert exact_or_none(models.ea2d(L=6), 0.4).method == "transfer-matrix"
        assert exact_or_none(models.sk(N=1000), 0.4) is None
        assert exact_or_none(models.pspin(N=30), 0.4) is None
        assert exact_or_none(models.ea2d(L=11), 0.4, max_seconds=0.01) is None
        assert exact_or_none(models.ea2d(L=96), 0.4) is None
