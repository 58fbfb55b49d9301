"""Pfaffians against enumeration, Kaufman, transfer matrix, reference tables, and equivalent lattices."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from mc import Hamiltonian, Lattice, models
from mc.exact import (
    ExactRefused,
    enumerate_exact,
    exact,
    exact_or_none,
    kaufman_torus,
    pfaffian_exact,
    transfer_exact,
)

REFERENCE = Path(__file__).parent / "data" / "reference"
RECORDS = {r["name"]: r for r in json.loads((REFERENCE / "values.json").read_text())["instances"]}
NAMES = [name for name in RECORDS if name.startswith("ea2d") and "_h" not in name]
BETA_C = math.log(1 + math.sqrt(2)) / 2

# Open +-J lattices L = 16 and 32: signs of the bonds in the order of `Lattice.bonds`, packed, and {beta: ln Z, U, C}
# from another Pfaffian program checked with 300-bit arithmetic.
OPEN = {
    16: (
        "74589adc31eaaacb5bd80fb69200c5097f0fa51738e4310e2d979ff98c741a3858be5fe2b0ee97fdf0d45f597eab047d88edf784d9331c"
        "a68d1360f3",
        {
            0.6: (259.09667986914326, -253.0634614097578, 101.12841870247854),
            0.9: (344.6644164049173, -308.7534923770856, 88.89935091065807),
            2.0: (712.871255663567, -344.493853525276, 16.57627423183729),
        },
    ),
    32: (
        "093573e57a7366da79ce9abad4caa7267a562fd4a8bc63162806760a660f2ad4047cc48f23bcd81b2a94d43df2061ed1d82b440f44c248"
        "b59e4298a418329ef5922b9a7b853501214d41f7cc7217181d4476be9159486248bd2c92046446a25d16f896fe80e9735cd9e9efc73d44"
        "15fee61f4dbac9c4660e199d8e083ffc81ed897c834ccc27fddc7d6ccf6f7a884dddcc6daa87152b853ec4dcb77cfd68af8995d93b22c2"
        "eeda532fd6cb7f2ef38728ecff3619495620121b23f85bd1065371d39a835f394e808cdc61a95d55fd81c398e4839049d34d5d33834cc4"
        "5991f8a7c5905c154f0ff330f992ba2e67ee64ea2851d86e9fdb69a5",
        {
            0.6: (1040.9613242038408, -1017.9647202824638, 404.43602868446794),
            0.9: (1385.5966359697493, -1246.3100286376598, 375.0410869955932),
            2.0: (2870.128267457602, -1385.7826363487516, 73.75539385660485),
        },
    ),
}


def lattice_glass(shape, periodic, kind="gaussian", seed=0, constant=0.0):
    """Bonds on a rectangle: Gaussian, +-J, all -1, or Gaussian with a third of the bonds absent."""
    lattice, rng = Lattice(shape, periodic), np.random.default_rng(seed)
    n = len(lattice.bonds)
    couplings = {
        "gaussian": rng.normal(size=n),
        "bimodal": rng.choice([-1.0, 1.0], n),
        "antiferro": -np.ones(n),
        "diluted": rng.normal(size=n) * (rng.random(n) < 2 / 3),
    }[kind]
    return Hamiltonian(lattice.n_sites, [(lattice.bonds, couplings)], constant, lattice)


def on(lattice, couplings):
    return Hamiltonian(lattice.n_sites, [(lattice.bonds, couplings)], lattice=lattice)


def assert_agree(result, log_z, energy, heat_capacity, rel_c=1e-7):
    assert result.log_z == pytest.approx(log_z, rel=1e-12)
    assert result.energy == pytest.approx(energy, rel=1e-12, abs=1e-12)
    assert result.heat_capacity == pytest.approx(heat_capacity, rel=rel_c, abs=1e-11)


def assert_same(result, other, rel_c=1e-7):
    assert_agree(result, other.log_z, other.energy, other.heat_capacity, rel_c)


SHAPES = [(3, 3), (3, 4), (4, 3), (3, 5), (4, 4)]
EDGES = [(False, False), (False, True), (True, False), (True, True)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("periodic", EDGES)
@pytest.mark.parametrize("kind", ["gaussian", "bimodal", "diluted"])
def test_enumeration(shape, periodic, kind):
    hamiltonian = lattice_glass(shape, periodic, kind, seed=7, constant=1.5)
    for beta in (0.0, 0.05, 0.6, 2.0, 3.0):
        result = pfaffian_exact(hamiltonian, beta)
        assert result.method == "pfaffian"
        assert_same(result, enumerate_exact(hamiltonian, beta))


@pytest.mark.parametrize(
    ("shape", "periodic"),
    [
        ((1, 1), (False, False)),
        ((1, 9), (False, False)),
        ((9, 1), (False, True)[::-1]),
        ((2, 8), (False, True)),
        ((8, 2), (True, False)),
        ((7, 2), (False, False)),
    ],
)
def test_narrow(shape, periodic):
    hamiltonian = lattice_glass(shape, periodic, seed=2)
    for beta in (0.3, 2.0):
        assert_same(pfaffian_exact(hamiltonian, beta), enumerate_exact(hamiltonian, beta))


@pytest.mark.parametrize("name", NAMES)
def test_reference(name):
    shape = "x".join(str(side) for side in RECORDS[name]["dims"])
    hamiltonian = models.from_file(str(REFERENCE / "instances" / f"{name}.npz"), shape=shape)
    for value in RECORDS[name]["values"]:
        result = pfaffian_exact(hamiltonian, value["beta"])
        assert_agree(result, value["lnZ"], value["U"], value["C"], 1e-9)


@pytest.mark.parametrize("L", OPEN)
def test_reference_open(L):
    packed, values = OPEN[L]
    lattice = Lattice((L, L), (False, False))
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(packed), np.uint8))[: len(lattice.bonds)]
    hamiltonian = on(lattice, 2.0 * bits - 1.0)
    for beta, value in values.items():
        assert_agree(pfaffian_exact(hamiltonian, beta), *value, 1e-10)


@pytest.mark.parametrize(("Lx", "Ly"), [(16, 16), (15, 16), (15, 17), (5, 30)])
def test_kaufman(Lx, Ly):
    """In the ordered phase Z depends on boundary conditions by e^(2 beta L): other legs have to be taken."""
    lattice = Lattice((Ly, Lx), (True, True))
    spins = np.random.default_rng(1).choice([-1.0, 1.0], lattice.n_sites)
    for couplings in (np.ones(len(lattice.bonds)), spins[lattice.bonds].prod(axis=1)):
        for beta in (0.1, BETA_C, 1.0, 2.0):
            assert_same(pfaffian_exact(on(lattice, couplings), beta), kaufman_torus(Lx, Ly, 1.0, beta), 1e-10)


@pytest.mark.parametrize("kind", ["bimodal", "gaussian"])
@pytest.mark.parametrize("beta", [0.9, 2.0, 3.0])
def test_equivalent_tori(kind, beta):
    """Transposing, renumbering rows and columns, and flipping spins change no value, and all of the arithmetic."""
    L = 16
    lattice = Lattice((L, L), (True, True))
    hamiltonian = lattice_glass((L, L), (True, True), kind, seed=3)
    couplings = hamiltonian.bonds[1]
    site = np.arange(L * L).reshape(L, L)
    moved = np.roll(site.T, (5, 3), axis=(0, 1)).reshape(-1)
    spins = np.random.default_rng(4).choice([-1.0, 1.0], L * L)
    sites = hamiltonian.bonds[0]
    other = Hamiltonian(L * L, [(moved[sites], couplings * spins[sites].prod(axis=1))], lattice=lattice)
    assert other.is_nearest_neighbour
    assert_same(pfaffian_exact(hamiltonian, beta), pfaffian_exact(other, beta), 1e-9)


@pytest.mark.parametrize("kind", ["bimodal", "gaussian"])
def test_cold(kind):
    for L, periodic in ((8, (True, True)), (10, (False, True)), (12, (False, False))):
        hamiltonian = lattice_glass((L, L), periodic, kind, seed=5)
        assert_same(pfaffian_exact(hamiltonian, 4.0), transfer_exact(hamiltonian, 4.0), 1e-6)


def test_ground_states():
    """ln Z + beta E0 tends to ln g0, and <E> to E0; the gap is 4 on a torus."""
    for name in ("ea2d_L12_pm_per", "ea2d_L10_pm_per"):
        record = RECORDS[name]
        hamiltonian = models.from_file(
            str(REFERENCE / "instances" / f"{name}.npz"), shape="x".join(map(str, record["dims"]))
        )
        result = pfaffian_exact(hamiltonian, 5.0)
        assert result.log_z + 5.0 * record["E0"] == pytest.approx(math.log(record["g0"]), abs=1e-5)
        assert result.energy == pytest.approx(record["E0"], abs=1e-4)


def test_derivatives():
    hamiltonian, beta, step = lattice_glass((12, 16), (True, True), seed=6), 1.3, 2e-3
    weights = np.array([1, -8, 8, -1]) / (12 * step)
    around = [pfaffian_exact(hamiltonian, beta + k * step) for k in (-2, -1, 1, 2)]
    result = pfaffian_exact(hamiltonian, beta)
    assert result.energy == pytest.approx(-weights @ [r.log_z for r in around], rel=1e-9)
    assert result.heat_capacity == pytest.approx(-(beta**2) * (weights @ [r.energy for r in around]), rel=1e-8)


def test_lost_digits():
    """An odd antiferromagnet has a much lower energy with antiperiodic edges, and its Z is what the terms leave."""
    hamiltonian = lattice_glass((3, 4), (True, True), "antiferro")
    warm, cold = pfaffian_exact(hamiltonian, 0.1), pfaffian_exact(hamiltonian, 3.0)
    assert 0.0 <= warm.lost_digits < 1.0 < 8.0 < cold.lost_digits < 12.0
    assert_same(cold, enumerate_exact(hamiltonian, 3.0))
    assert pfaffian_exact(lattice_glass((3, 4), (False, True)), 1.0).lost_digits is None


def test_free_spins_and_extremes():
    free = Hamiltonian(12, [], 3.0, Lattice((3, 4), (True, True)))
    result = pfaffian_exact(free, 2.0)
    assert (result.energy, result.heat_capacity) == (3.0, 0.0)
    assert result.log_z == pytest.approx(12 * math.log(2) - 6.0, rel=1e-15)
    strip = lattice_glass((1, 30), (False, False))
    total = np.abs(strip.bonds[1]).sum()
    assert pfaffian_exact(strip, 1000.0).log_z == pytest.approx(1000.0 * total + math.log(2), rel=1e-14)


class TestRefusals:
    @pytest.mark.parametrize(
        ("hamiltonian", "words"),
        [
            (models.ea2d(L=4, h=0.3), "it takes no field; use enumeration or transfer-matrix"),
            (models.ea3d(L=3), "a two-dimensional lattice is needed"),
            (models.sk(N=16), "a two-dimensional lattice is needed"),
            (models.pspin(N=8), "a two-dimensional lattice is needed"),
        ],
    )
    def test_systems(self, hamiltonian, words):
        with pytest.raises(ExactRefused, match=rf"^Pfaffians of \w+ \(\d+ spins\): {words}"):
            pfaffian_exact(hamiltonian, 1.0)

    def test_diagonal_bond(self):
        lattice = Lattice((4, 4), (True, True))
        with pytest.raises(ExactRefused, match="nearest-neighbour bonds only"):
            pfaffian_exact(Hamiltonian(16, [([[0, 5]], [1.0])], lattice=lattice), 1.0)

    def test_too_cold(self):
        for hamiltonian, beta in ((lattice_glass((3, 5), (True, True), "antiferro"), 5.0), (models.ea2d(L=16), 40.0)):
            with pytest.raises(ExactRefused, match="too cold for 31 digits; use a higher temperature"):
                pfaffian_exact(hamiltonian, beta)

    def test_beta(self):
        for beta in (-1.0, math.nan, math.inf):
            with pytest.raises(ValueError, match="beta="):
                pfaffian_exact(models.ea2d(L=4), beta)


class TestChoice:
    def test_chosen(self):
        assert exact(models.ea2d(L=16), 0.9).method == "pfaffian"
        assert exact(models.ea2d(L=20, boundary="open", J="gaussian"), 0.9).method == "pfaffian"
        assert exact(models.ea2d(L=4), 0.9).method == "enumeration"
        assert exact(models.ea2d(L=4), 0.9, "pfaffian").method == "pfaffian"
        assert exact(models.ising(L=32), 0.9).method == "kaufman"
        assert exact_or_none(models.ea2d(L=32), 0.9).method == "pfaffian"
        assert exact_or_none(models.ea2d(L=96), 0.9) is None

    def test_the_next_where_it_is_too_cold(self):
        result = exact(models.ea2d(L=8), 12.0)
        assert (result.method, result.energy) == ("transfer-matrix", pytest.approx(-92.0))
        with pytest.raises(ExactRefused, match="too cold"):
            exact(models.ea2d(L=16), 12.0)
        assert exact_or_none(models.ea2d(L=16), 12.0) is None

    def test_too_large_says_so(self, monkeypatch):
        monkeypatch.setattr("mc.exact.pfaffian.MAX_HOURS", 1e-5)
        with pytest.raises(
            ExactRefused, match=r"^Pfaffians of ea2d \(1024 spins\): needs about \S+ hours; use a smal"
        ):
            exact(models.ea2d(L=32), 0.9)
