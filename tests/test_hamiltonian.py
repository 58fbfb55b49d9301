"""The energy function: its unique form, energies against their definition, and what it says of itself."""

import itertools

import numpy as np
import pytest

import mc


def states(n_spins):
    return np.array(list(itertools.product((-1, 1), repeat=n_spins)), dtype=np.int8)


def by_definition(interactions, spins, constant=0.0):
    """constant - sum J prod s, one state and one interaction at a time."""
    energies = []
    for state in spins.astype(float):
        total = constant
        for sites, couplings in interactions:
            for cluster, coupling in zip(sites, couplings, strict=True):
                total -= coupling * np.prod([state[i] for i in cluster])
        energies.append(total)
    return np.array(energies)


def random_interactions(rng, n_spins):
    return [
        (rng.integers(n_spins, size=(5, order)), rng.normal(size=5))  # sites may repeat inside a cluster
        for order in (1, 2, 3, 4)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_energy_is_minus_the_sum_of_couplings_times_products(seed):
    interactions = random_interactions(np.random.default_rng(seed), 6)
    hamiltonian = mc.Hamiltonian(6, interactions, constant=0.7)
    assert hamiltonian.energy(states(6)) == pytest.approx(by_definition(interactions, states(6), 0.7))


@pytest.mark.parametrize("seed", range(5))
def test_energy_change_of_a_flip_is_the_difference_of_energies(seed):
    hamiltonian = mc.Hamiltonian(6, random_interactions(np.random.default_rng(seed), 6))
    before = states(6)
    for site in range(6):
        after = before.copy()
        after[:, site] *= -1
        difference = hamiltonian.energy(after) - hamiltonian.energy(before)
        assert hamiltonian.energy_change(before, site) == pytest.approx(difference, abs=1e-12)


def test_equal_energies_have_equal_fingerprints():
    one = mc.Hamiltonian(4, [([[0, 1], [2, 3]], [1.0, -2.0]), ([[1]], [0.5])])
    other = mc.Hamiltonian(4, [([[1]], [0.5]), ([[3, 2], [1, 0], [0, 2]], [-2.0, 1.0, 0.0])])
    halves = mc.Hamiltonian(4, [([[0, 1], [1, 0], [2, 3]], [0.5, 0.5, -2.0]), ([[1], [2, 2, 1][:1]], [0.25, 0.0])])
    assert one.fingerprint == other.fingerprint
    assert one.fingerprint != halves.fingerprint


def test_pairs_of_the_same_site_cancel_into_lower_orders_and_the_constant():
    hamiltonian = mc.Hamiltonian(3, [([[0, 0], [1, 1]], [1.0, 2.0]), ([[2, 0, 2]], [4.0]), ([[1, 1, 2, 0]], [1.0])])
    assert hamiltonian.constant == -3.0
    assert hamiltonian.fields.tolist() == [4.0, 0.0, 0.0]
    assert hamiltonian.bonds[0].tolist() == [[0, 2]]
    assert hamiltonian.max_order == 2


def test_a_hamiltonian_cannot_be_changed():
    hamiltonian = mc.models.ising(L=3)
    with pytest.raises(ValueError, match="read-only"):
        hamiltonian.bonds[1][0] = 2.0
    with pytest.raises(AttributeError):
        hamiltonian.constant = 1.0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((3, [([[0, 3]], [1.0])]), "outside 0..2"),
        ((3, [([[0, -1]], [1.0])]), "outside 0..2"),
        ((3, [([[0, 1]], [float("nan")])]), "NaN"),
        ((3, [([[0, 1]], [1.0, 2.0])]), "do not match"),
        ((3, [([[0.5, 1.0]], [1.0])]), "integers"),
        ((0, []), "at least 1"),
    ],
)
def test_interactions_that_make_no_sense_are_refused(arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        mc.Hamiltonian(*arguments)


def test_a_hamiltonian_knows_its_kind():
    magnet, glass = mc.models.ising(L=4), mc.models.ea2d(L=4, boundary="open", J="gaussian")
    assert magnet.is_ferromagnet
    assert magnet.is_plus_minus_j
    assert magnet.is_z2_symmetric
    assert magnet.is_nearest_neighbour
    assert not magnet.is_planar
    assert glass.is_planar
    assert not glass.is_plus_minus_j
    assert not glass.is_ferromagnet
    assert not mc.models.ising(L=4, h=0.1).is_z2_symmetric
    assert not mc.models.pspin(N=6).is_pairwise
    assert not mc.models.sk(N=6).is_nearest_neighbour


@pytest.mark.parametrize("periodic", list(itertools.product((True, False), repeat=2)))
def test_a_lattice_has_each_bond_once(periodic):
    lattice = mc.Lattice((3, 4), periodic)
    bonds = {tuple(sorted(bond)) for bond in lattice.bonds.tolist()}
    assert (
        len(bonds)
        == len(lattice.bonds)
        == sum(12 if p else 12 - 12 // n for p, n in zip(periodic, (3, 4), strict=True))
    )
    distance = np.abs(lattice.coordinates[lattice.bonds[:, 0]] - lattice.coordinates[lattice.bonds[:, 1]])
    assert (np.minimum(distance, np.array([3, 4]) - distance).sum(axis=1) == 1).all()


def test_sites_are_row_major_and_x_is_fastest():
    lattice = mc.Lattice((2, 3, 4), (False, False, True))
    assert lattice.site([1, 2, 3]) == (1 * 3 + 2) * 4 + 3
    assert lattice.coordinates[5].tolist() == [0, 1, 1]
    assert lattice.bonds[0].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("shape", "periodic"), [((0, 3), (False,) * 2), ((2, 3), (True, False)), ((3,), (True, True))]
)
def test_impossible_lattices_are_refused(shape, periodic):
    with pytest.raises(ValueError, match="lattice"):
        mc.Lattice(shape, periodic)
