"""Overlaps, link overlaps and Fourier modes from bits against sums over spins."""

import numpy as np
import pytest

import mc
from mc.kernels import overlaps
from mc.kernels.batch import pack, words
from mc.lattice import Lattice

MODELS = {
    "cube": lambda: mc.models.ea3d(L=4),
    "cube of 512": lambda: mc.models.ea3d(L=8, J="gaussian"),
    "uneven open and wrapped": lambda: mc.models.ea3d(Lx=5, Ly=3, Lz=7, boundary="periodic,open,periodic"),
    "rows of 64": lambda: mc.models.ea2d(Lx=64, Ly=5, boundary="open"),
    "rows of 65": lambda: mc.models.ea2d(Lx=65, Ly=3),
    "random graph": lambda: mc.models.rrg(N=200, degree=3),
    "SK": lambda: mc.models.sk(N=67),
    "two spins": lambda: mc.models.sk(N=2),
}


def spins(n_spins, pairs=5, seed=1):
    """Two arrays (pairs, N), the last of each all up."""
    random = np.random.default_rng(seed)
    a, b = (2 * random.integers(0, 2, size=(pairs, n_spins)) - 1 for _ in range(2))
    a[-1] = b[-1] = 1
    return a, b


def slow_mode(field, lattice):
    """|sum_x q_x exp(i k x)|^2 / N^2 of fields (..., N), mean over the longest periodic axes, by FFT."""
    wrapped = [length for length, flag in zip(lattice.shape, lattice.periodic, strict=True) if flag]
    box = field.reshape(*field.shape[:-1], *lattice.shape)
    first = len(box.shape) - lattice.dimension
    modes = []
    for axis in range(lattice.dimension):
        if lattice.periodic[axis] and lattice.shape[axis] == max(wrapped):
            others = tuple(first + a for a in range(lattice.dimension) if a != axis)
            modes.append(np.abs(np.fft.fft(box.sum(axis=others), axis=-1)[..., 1]) ** 2 / lattice.n_sites**2)
    return np.mean(modes, axis=0)


@pytest.mark.parametrize("name", MODELS)
def test_overlap_and_link_overlap_are_sums_over_spins(name):
    hamiltonian = MODELS[name]()
    n_spins, sites = hamiltonian.n_spins, hamiltonian.bonds[0]
    bonds = overlaps.links(sites, n_spins)
    assert (len(bonds.shifts) == 0) == (name == "random graph")
    a, b = spins(n_spins)
    q = a * b
    for k, (row_a, row_b) in enumerate(zip(pack(a), pack(b), strict=True)):
        assert overlaps.overlap(row_a, row_b, n_spins) == pytest.approx(q[k].mean(), abs=1e-14)
        assert overlaps.magnetization(row_a, n_spins) == pytest.approx(a[k].mean(), abs=1e-14)
        link = (q[k, sites[:, 0]] * q[k, sites[:, 1]]).mean()
        assert overlaps.link_overlap(row_a, row_b, bonds) == pytest.approx(link, abs=1e-14)


def test_shifted_rows_and_single_bonds_agree_on_any_graph():
    random = np.random.default_rng(2)
    for n_spins in (6, 64, 65, 128, 200):
        pairs = np.stack(np.triu_indices(n_spins, 1), axis=1)
        dense = pairs[random.random(len(pairs)) < 0.6][:, ::-1]
        shifted = overlaps.links(dense, n_spins)
        none = np.zeros(0, np.uint64)
        single = shifted._replace(shifts=none, masks=shifted.masks[:0], sites=dense.astype(np.int32))
        assert len(shifted.sites) == 0
        for row_a, row_b in zip(*map(pack, spins(n_spins)), strict=True):
            link = overlaps.link_overlap(row_a, row_b, shifted)
            assert link == overlaps.link_overlap(row_a, row_b, single)


@pytest.mark.parametrize(
    ("shape", "periodic"),
    [
        ((8, 8, 8), (True, True, True)),
        ((5, 3), (True, True)),
        ((6, 4, 6), (True, True, False)),
        ((3, 70), (False, True)),
        ((4, 128), (False, True)),
        ((16, 16, 16), (True, True, True)),
        ((6, 96), (True, True)),
        ((70, 3), (True, False)),
    ],
)
def test_lowest_mode_is_the_fourier_sum(shape, periodic):
    lattice = Lattice(shape, periodic)
    normal = overlaps.planes(lattice)
    a, b = spins(lattice.n_sites)
    up = overlaps.all_up(lattice.n_sites)
    modes, own = slow_mode(a * b, lattice), slow_mode(a, lattice)
    for k, (row_a, row_b) in enumerate(zip(pack(a), pack(b), strict=True)):
        mode = overlaps.lowest_mode(row_a, row_b, lattice.n_sites, normal)
        assert mode == pytest.approx(modes[k], abs=1e-14)
        assert overlaps.lowest_mode(row_a, up, lattice.n_sites, normal) == pytest.approx(own[k], abs=1e-14)
    assert modes[0] > 1e-5


def test_planes_hold_every_site_once_for_each_axis():
    masks = overlaps.plane_masks(Lattice((6, 4, 6), (True, True, True)))
    assert masks.shape == (2, 6, words(144))
    assert (np.bitwise_or.reduce(masks, axis=1) == overlaps.all_up(144)).all()
    assert (np.bitwise_count(masks).sum(axis=(1, 2)) == 144).all()


def test_where_there_are_no_axes_or_bonds_the_answer_is_nan():
    lattice = Lattice((3, 4), (False, False))
    assert overlaps.plane_masks(lattice).shape == (0, 0, 1)
    row = overlaps.all_up(12)
    assert np.isnan(overlaps.lowest_mode(row, row, 12, overlaps.planes(lattice)))
    assert np.isnan(overlaps.link_overlap(row, row, overlaps.links(np.zeros((0, 2), int), 12)))


@pytest.mark.parametrize(("bond", "why"), [((0, 7), "outside"), ((2, 2), "itself"), ((1, 0), "twice")])
def test_bonds_that_are_none_are_refused(bond, why):
    with pytest.raises(ValueError, match=why):
        overlaps.links(np.array([(0, 1), bond]), 7)
