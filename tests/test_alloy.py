"""The binary alloy: its energy against sums written out here, exact tables of 16 sites, order and compositions."""

import copy
import functools
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest

from mc import models
from mc.exact import ExactRefused, boltzmann_distribution, enumerate_exact, enumerate_states, exact, state_spins
from mc.hamiltonian import Hamiltonian
from mc.models.alloy import CUAU, companions, order_parameter, sites_up, x_points
from mc.models.cluster_expansion import positions
from mc.simulate import initial_spins, replica_streams
from tests.enumerated import FALSE_ALARM, combined_p_value, law_p_value

TABLE = json.loads((Path(__file__).parent / "data" / "reference" / "cuau_2x2x4.json").read_text())
EXPANSION = json.loads(CUAU.read_text())
VECTORS = np.array(EXPANSION["primitive_vectors_half_a"])
FCC = {"2x2x4": (2, 2, 4), "4x4x4": (4, 4, 4), "3x2x4": (3, 2, 4)}


def sites_of(cell):
    """{place in a / 2 inside the cell: number}, and the function that finds the number of any place."""
    periods = np.array(cell)[:, None] * VECTORS
    places = {}
    for number, abc in enumerate(itertools.product(*map(range, cell))):
        places[tuple(np.array(abc) @ VECTORS)] = number

    def number_at(place):
        whole = np.floor(place @ np.linalg.inv(periods) + 1e-9).astype(int)
        return places[tuple(place - whole @ periods)]

    return places, number_at


def formation_energy(cell, spins):
    """Total formation energy of one state, orbit by orbit and site by site."""
    places, number_at = sites_of(cell)
    eci, mean = EXPANSION["eci"], spins.mean()
    total = len(spins) * (eci["c0"] + eci["c1_0"] * mean)
    for name, clusters in EXPANSION["orbits_containing_origin"].items():
        for place in places:
            products = [
                math.prod(int(spins[number_at(np.array(place) + np.array(d))]) for d in cluster)
                for cluster in clusters
            ]
            total += eci[name] * sum(products) / len(products)
    gold = 0.5 * (1 + mean)
    pure = EXPANSION["reference_energies_eV_per_site"]
    return total - len(spins) * ((1 - gold) * pure["Cu"] + gold * pure["Au"])


def ordered(cell, phase):
    """A state of an ordered phase, from the four simple cubic lattices that make an fcc one."""
    place = positions(VECTORS, FCC[cell]) % 2
    first, alike = (place == 0).all(axis=1), place[:, 2] == 0
    return {"L10_CuAu": 1 - 2 * alike, "L12_Cu3Au": 2 * first - 1, "L12_CuAu3": 1 - 2 * first}[phase].astype(np.int8)


# --- energy --------------------------------------------------------------------------------------------------------


@functools.cache
def states_of_16():
    """All states (2^16, 16) and their formation energies."""
    return state_spins(np.arange(2**16), 16), enumerate_states(models.alloy("2x2x4"))


@pytest.mark.parametrize("row", TABLE["semi_grand"], ids=lambda row: f"T={row[0]} h={row[1]}")
def test_semi_grand_table_of_16_sites(row):
    T, h, log_z, energy, capacity, gold = row
    hamiltonian, beta = models.alloy("2x2x4", h=h), 1.0 / (TABLE["k_B"] * T)
    found = enumerate_exact(hamiltonian, beta)
    assert found.log_z == pytest.approx(log_z, abs=1e-9)
    weight, (spins, energies) = boltzmann_distribution(hamiltonian, beta), states_of_16()
    mean = weight @ energies
    assert mean / 16 == pytest.approx(energy, abs=1e-12)
    assert beta**2 * (weight @ (energies - mean) ** 2) / 16 == pytest.approx(capacity, rel=1e-8)
    assert weight @ (spins > 0).mean(axis=1) == pytest.approx(gold, abs=1e-10)
    # The energy has -h sum s in it; its companion does not.
    total, m = energies - h * spins.sum(axis=1), spins.mean(axis=1)
    np.testing.assert_allclose(enumerate_states(hamiltonian), total, atol=1e-12)
    (a, b, c), (d, e, f) = companions(hamiltonian)["formation_energy"], companions(hamiltonian)["x_Au"]
    np.testing.assert_allclose(a * total + b * m + c, energies, atol=1e-12)
    np.testing.assert_allclose(d * total + e * m + f, (spins > 0).mean(axis=1))


@pytest.mark.parametrize("row", TABLE["half_gold"], ids=lambda row: f"T={row[0]}")
def test_canonical_table_of_16_sites(row):
    T, log_z, energy, capacity = row
    hamiltonian = models.alloy("2x2x4", composition=0.5)
    found = exact(hamiltonian, 1.0 / (TABLE["k_B"] * T))
    assert found.method == "enumeration"
    assert found.log_z == pytest.approx(log_z, abs=1e-9)
    assert found.energy / 16 == pytest.approx(energy, abs=1e-12)
    assert found.heat_capacity / 16 == pytest.approx(capacity, rel=1e-8)
    lowest = 16 * TABLE["phases"]["L10_CuAu"]
    assert found.ground_energy == pytest.approx(lowest, abs=1e-12)
    assert found.degeneracy == 6  # along three axes, two ways each


def test_states_of_another_composition_are_no_states():
    free, fixed = models.alloy("2x1x4"), models.alloy("2x1x4", composition=0.25)
    up = (state_spins(np.arange(2**8), 8) > 0).sum(axis=1)
    energies = enumerate_states(fixed)
    np.testing.assert_allclose(energies[up == 2], enumerate_states(free)[up == 2])
    assert np.isinf(energies[up != 2]).all()
    for beta in (0.0, 20.0):
        weight = boltzmann_distribution(fixed, beta)
        expected = np.where(up == 2, boltzmann_distribution(free, beta), 0.0)
        np.testing.assert_allclose(weight, expected / expected.sum())
    assert enumerate_exact(fixed, 0.0).log_z == pytest.approx(math.log(math.comb(8, 2)))


def test_other_exact_methods_refuse_a_fixed_number_of_spins_up():
    ising = models.ising(L=4)
    fixed = Hamiltonian(16, ising.interactions, lattice=ising.lattice, n_up=8)
    assert exact(fixed, 0.3).method == "enumeration"
    for method in ("kaufman", "transfer-matrix", "pfaffian"):
        with pytest.raises(ExactRefused):
            exact(fixed, 0.3, method)
    large = models.ising(L=6)
    with pytest.raises(ExactRefused, match=r"2\^36 states"):
        exact(Hamiltonian(36, large.interactions, lattice=large.lattice, n_up=18), 0.3)


@pytest.mark.parametrize("cell", ["2x2x4", "4x4x4"])
@pytest.mark.parametrize("phase", TABLE["phases"])
def test_formation_energies_of_ordered_phases(cell, phase):
    hamiltonian = models.alloy(cell)
    energy = hamiltonian.energy(ordered(cell, phase)) / hamiltonian.n_spins
    assert energy == pytest.approx(TABLE["phases"][phase], abs=1e-14)


def test_pure_crystals_have_no_formation_energy():
    hamiltonian = models.alloy("2x3x4")
    np.testing.assert_allclose(hamiltonian.energy(np.array([[1] * 24, [-1] * 24])), 0.0, atol=1e-5)


def test_sites_are_those_of_the_table():
    np.testing.assert_array_equal(
        sorted(map(tuple, positions(VECTORS, (2, 2, 4)).tolist())), sorted(map(tuple, folded(TABLE["sites"])))
    )


def folded(places):
    """Places of the table in the cell whose sites are numbered here."""
    cell, inverse = (2, 2, 4), np.linalg.inv(VECTORS)
    return [list((np.rint(np.array(place) @ inverse).astype(int) % cell) @ VECTORS) for place in places]


@pytest.mark.parametrize("cell", FCC)
def test_energy_is_the_sum_over_sites_and_orbits(cell):
    # 3x2x4 and 2x2x4 are so small that clusters hold a site twice.
    hamiltonian, random = models.alloy(cell), np.random.default_rng(1)
    for share in (0.5, 0.5, 0.2):
        spins = np.where(random.random(hamiltonian.n_spins) < share, 1, -1).astype(np.int8)
        assert hamiltonian.energy(spins) == pytest.approx(formation_energy(FCC[cell], spins), abs=1e-12)


@pytest.mark.parametrize("cell", ["2x2x4", "4x4x4"])
def test_energy_change_is_a_difference(cell):
    hamiltonian, random = models.alloy(cell, h=0.03), np.random.default_rng(2)
    spins = random.choice(np.array([-1, 1], np.int8), (5, hamiltonian.n_spins))
    for site in range(0, hamiltonian.n_spins, 3):
        flipped = spins.copy()
        flipped[:, site] *= -1
        expected = hamiltonian.energy(flipped) - hamiltonian.energy(spins)
        np.testing.assert_allclose(hamiltonian.energy_change(spins, site), expected, atol=1e-12)


def test_symmetries_of_the_crystal():
    cell = (4, 4, 4)
    hamiltonian, (places, number_at) = models.alloy("4x4x4"), sites_of(cell)
    spins = np.random.default_rng(3).choice(np.array([-1, 1], np.int8), 64)
    energy = hamiltonian.energy(spins)
    for vector in VECTORS:
        moved = spins[[number_at(np.array(place) + vector) for place in places]]
        assert hamiltonian.energy(moved) == pytest.approx(energy, abs=1e-12)
    for axes in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            turned = spins[[number_at(np.array(place)[list(axes)] * signs) for place in places]]
            assert hamiltonian.energy(turned) == pytest.approx(energy, abs=1e-12)


# --- order and parameters ------------------------------------------------------------------------------------------


def test_order_parameter():
    signs = x_points(models.alloy("4x4x4"))
    assert signs.shape == (3, 64)
    assert order_parameter(signs, ordered("4x4x4", "L10_CuAu")) == 1.0
    assert order_parameter(signs, ordered("4x4x4", "L12_Cu3Au")) == 0.5
    assert order_parameter(signs, np.ones((2, 64), np.int8)).tolist() == [0.0, 0.0]
    spins = np.random.default_rng(4).choice(np.array([-1, 1], np.int8), (4000, 64))
    # In a random alloy the largest of three independent |Gaussians| of width 1/8, but for steps of 1/32; 4 sigma.
    gauss = np.abs(np.random.default_rng(5).normal(size=(10**6, 3))).max(axis=1) / 8
    assert order_parameter(signs, spins).mean() == pytest.approx(gauss.mean(), abs=4 * gauss.std() / math.sqrt(4000))


def test_axes_whose_periods_are_odd_have_no_wave(tmp_path):
    assert len(x_points(models.alloy("2x2x4"))) == len(x_points(models.alloy("4x4x8"))) == 3
    assert len(x_points(models.alloy("1x2x2"))) == 1  # (0, 1, 1) has an even component along x only
    assert len(x_points(models.alloy("3x3x3"))) == 0
    assert len(x_points(models.ising(L=4))) == 0
    cubic = copy.deepcopy(EXPANSION) | {"primitive_vectors_half_a": np.eye(3, dtype=int).tolist()}
    (tmp_path / "sc.json").write_text(json.dumps(cubic))
    assert len(x_points(models.alloy("4x4x4", path=str(tmp_path / "sc.json")))) == 0


def test_parameters_rebuild_the_hamiltonian():
    for given in ({}, {"cell": "2x2x2", "h": -0.01}, {"cell": "4x4x4", "composition": 0.25}):
        hamiltonian = models.alloy(**given)
        again = models.build("alloy", hamiltonian.parameters)
        assert again.fingerprint == hamiltonian.fingerprint
        assert again.parameters == hamiltonian.parameters == json.loads(json.dumps(hamiltonian.parameters))
    assert (hamiltonian.n_up, hamiltonian.energy_unit, hamiltonian.k_B) == (16, "eV", TABLE["k_B"])
    assert companions(models.ising(L=3)) == {}


# --- what cannot be done -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "said"), [
    ({"cell": "2x2"}, "cell=2x2: three sizes"), ({"cell": "2x0x4"}, "three sizes"),
    ({"cell": "2x2xq"}, "three sizes"), ({"cell": "-2x2x4"}, "three sizes"),
    ({"cell": "2x2x4x4"}, "three sizes"), ({"h": math.nan}, "h=nan: a finite"),
    ({"h": "gauss:1"}, "h=gauss:1: a finite"), ({"composition": 0.3}, "4.8 sites; use 0.25 or 0.3125"),
    ({"composition": 1.1}, "a fraction from 0 to 1"), ({"composition": 0.5, "h": 0.01}, "not both"),
    ({"cell": "600x600x600"}, "choose a smaller cell"),
])  # fmt: skip
def test_wrong_values_are_refused_in_one_line(given, said):
    with pytest.raises(ValueError, match=r"^alloy: ") as refused:
        models.alloy(**given)
    assert said in str(refused.value)


def test_compositions_are_whole_numbers_of_sites():
    assert [sites_up(k / 48, 48) for k in (0, 16, 48)] == [0, 16, 48]
    assert sites_up(float(f"{1 / 3:.8g}"), 48) == 16  # as the refusal writes it
    with pytest.raises(ValueError, match=r"use 0\.33333333 or 0\.35416667"):
        sites_up(0.34, 48)


# --- states to start from ------------------------------------------------------------------------------------------


@pytest.mark.statistical
def test_random_states_of_a_composition_are_uniform():
    # 4 starts, 20000 states of 7 spins, 3 of them up, each; false alarm 1e-4.
    p_values = []
    for seed in range(4):
        spins = initial_spins("random", 7, replica_streams(seed, 3, 20000, 1), n_up=3)
        assert ((spins > 0).sum(axis=-1) == 3).all()
        p_values.append(law_of_three_up_p_value(spins[:, 0]))
    assert combined_p_value(p_values) > FALSE_ALARM


def law_of_three_up_p_value(spins):
    """p-value of states (n, 7) against equal probabilities of those with three spins up."""
    pairs, sites = [[i, j] for i in range(7) for j in range(i)], [[i] for i in range(7)]
    wall = Hamiltonian(7, [(pairs, np.full(21, -100.0)), (sites, np.full(7, -100.0))])  # 50 (sum s + 1)^2
    return law_p_value(wall, 1.0, spins)


def test_states_to_start_from_have_the_number_of_spins_up():
    streams = replica_streams(0, 3, 2, 1)
    assert (initial_spins("up", 3, streams, n_up=3) == 1).all()
    with pytest.raises(ValueError, match="init=up: 1 of 3 spins are up"):
        initial_spins("up", 3, streams, n_up=1)
    with pytest.raises(ValueError, match="another number of spins up than n_up = 1"):
        initial_spins(np.array([1, 1, -1]), 3, streams, n_up=1)
    assert initial_spins(np.array([1, -1, -1]), 3, streams, n_up=1).shape == (2, 1, 3)
