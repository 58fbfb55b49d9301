"""Grids of a square lattice: the energies they give, renumbered rows, and what is no square lattice."""

import numpy as np
import pytest

import mc
from mc.square import square_couplings, square_refusal

TORUS, ALONG_X, ALONG_Y, OPEN = "periodic", "periodic,open", "open,periodic", "open"
SHAPES = [
    # Lx, Ly, boundary
    (3, 3, TORUS),
    (5, 3, TORUS),
    (3, 4, TORUS),
    (4, 3, ALONG_X),
    (3, 2, ALONG_X),
    (5, 1, ALONG_X),
    (3, 5, ALONG_Y),
    (2, 3, ALONG_Y),
    (1, 4, ALONG_Y),
    (4, 5, OPEN),
    (2, 4, OPEN),
    (4, 2, OPEN),
    (2, 2, OPEN),
    (1, 6, OPEN),
    (6, 1, OPEN),
    (1, 1, OPEN),
]


def glass(Lx, Ly, boundary):
    return mc.models.ea2d(Lx=Lx, Ly=Ly, J="gaussian", h="gauss:0.7", boundary=boundary, seed=3)


def grid_energy(couplings, spins):
    """Energies (n,) of states (n, N), bond by bond; indices wrap, so bonds across an open edge have to be 0."""
    height, width = couplings.shape
    s = spins.reshape(-1, height, width).astype(float)
    energy = np.zeros(len(s))
    for y in range(height):
        for x in range(width):
            energy -= couplings.right[y, x] * s[:, y, x] * s[:, y, (x + 1) % width]
            energy -= couplings.down[y, x] * s[:, y, x] * s[:, (y + 1) % height, x]
            energy -= couplings.field[y, x] * s[:, y, x]
    return energy


def random_states(hamiltonian, n=20):
    return np.random.default_rng(1).choice(np.array([-1, 1], np.int8), size=(n, hamiltonian.n_spins))


@pytest.mark.parametrize(("Lx", "Ly", "boundary"), SHAPES)
def test_energies_of_the_grids_are_those_of_the_hamiltonian(Lx, Ly, boundary):
    hamiltonian = glass(Lx, Ly, boundary)
    couplings, states = square_couplings(hamiltonian), random_states(hamiltonian)
    assert couplings.shape == (Ly, Lx)
    assert couplings.periodic == (boundary in (TORUS, ALONG_Y), boundary in (TORUS, ALONG_X))
    for grid in (couplings.right, couplings.down, couplings.field):
        assert grid.shape == (Ly, Lx)
        assert grid.dtype == np.float64
    assert grid_energy(couplings, states) == pytest.approx(hamiltonian.energy(states), abs=1e-12)


@pytest.mark.parametrize(("Lx", "Ly", "boundary"), SHAPES)
def test_every_bond_has_a_place_of_its_own(Lx, Ly, boundary):
    hamiltonian = glass(Lx, Ly, boundary)
    couplings = square_couplings(hamiltonian)
    found = np.concatenate([couplings.right.reshape(-1), couplings.down.reshape(-1)])
    assert np.sort(found[found != 0]) == pytest.approx(np.sort(hamiltonian.bonds[1]), abs=0)
    if not couplings.periodic[1]:
        assert (couplings.right[:, -1] == 0).all()
    if not couplings.periodic[0]:
        assert (couplings.down[-1] == 0).all()


def test_bonds_and_fields_that_are_missing_are_zero():
    lattice = mc.models.ising(L=3).lattice
    diluted = mc.Hamiltonian(
        9, [(np.array([[0, 2], [3, 4], [1, 7]]), np.array([0.5, -1.5, 2.5])), (np.array([[4]]), np.array([0.3]))],
        lattice=lattice,
    )  # fmt: skip
    couplings = square_couplings(diluted)
    right, down, field = np.zeros((3, 3)), np.zeros((3, 3)), np.zeros((3, 3))
    right[0, 2], right[1, 0], down[2, 1], field[1, 1] = 0.5, -1.5, 2.5, 0.3  # 0-2 and 1-7 go round an edge
    assert (couplings.right == right).all()
    assert (couplings.down == down).all()
    assert (couplings.field == field).all()
    empty = square_couplings(mc.Hamiltonian(9, [], lattice=lattice))
    assert not np.any([empty.right, empty.down, empty.field])


@pytest.mark.parametrize("rows", [0, 1, 3, 4, -1, 9])
@pytest.mark.parametrize("boundary", [TORUS, ALONG_Y])
def test_rolled_renumbers_the_rows(boundary, rows):
    hamiltonian = glass(3, 5, boundary)
    couplings, states = square_couplings(hamiltonian), random_states(hamiltonian)
    rolled = couplings.rolled(rows)
    assert rolled.periodic == couplings.periodic
    assert (rolled.field[0] == couplings.field[rows % 5]).all()
    moved = np.roll(states.reshape(-1, 5, 3), -rows, axis=1).reshape(-1, 15)
    assert grid_energy(rolled, moved) == pytest.approx(hamiltonian.energy(states), abs=1e-12)
    back = rolled.rolled(-rows)
    assert (back.right == couplings.right).all()
    assert (back.down == couplings.down).all()


@pytest.mark.parametrize("boundary", [OPEN, ALONG_X])
def test_rows_of_an_open_lattice_keep_their_numbers(boundary):
    couplings = square_couplings(glass(3, 4, boundary))
    for rows in (1, -1, 7):
        with pytest.raises(ValueError, match="rows of an open lattice"):
            couplings.rolled(rows)
    for rows in (0, 4, -8):
        assert (couplings.rolled(rows).right == couplings.right).all()


def next_nearest():
    return mc.Hamiltonian(9, [(np.array([[0, 1], [0, 4]]), np.ones(2))], lattice=mc.models.ising(L=3).lattice)


def plaquettes():
    return mc.Hamiltonian(9, [(np.array([[0, 1, 3, 4]]), np.ones(1))], lattice=mc.models.ising(L=3).lattice)


def across_an_open_edge():
    lattice = mc.models.ising(L=3, boundary="open").lattice
    return mc.Hamiltonian(9, [(np.array([[0, 2]]), np.ones(1))], lattice=lattice)


@pytest.mark.parametrize(
    ("build", "complaint"),
    [
        (lambda: mc.models.sk(N=9, seed=1), "a two-dimensional lattice is needed"),
        (lambda: mc.models.pspin(N=9, p=3, seed=1), "a two-dimensional lattice is needed"),
        (lambda: mc.models.ising(L=3, dim=3), "a two-dimensional lattice is needed"),
        (next_nearest, "nearest-neighbour bonds only"),
        (plaquettes, "nearest-neighbour bonds only"),
        (across_an_open_edge, "nearest-neighbour bonds only"),
    ],
)
def test_what_is_no_square_lattice_is_refused(build, complaint):
    hamiltonian = build()
    assert complaint in square_refusal(hamiltonian)
    with pytest.raises(ValueError, match=complaint):
        square_couplings(hamiltonian)


def test_a_square_lattice_is_not_refused():
    assert square_refusal(glass(3, 4, TORUS)) == ""
