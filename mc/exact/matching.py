"""Ground states of planar spin glasses: the lattice without field, open along at least one of its two axes.

A face of the lattice is frustrated if an odd number of its bonds is negative; in every state it has an odd number of
unsatisfied bonds, and any other face an even number. So unsatisfied bonds are strings across bonds that end in the
frustrated faces, and the ground state has the strings of least total |J|: a perfect matching of the frustrated faces
of least weight, with shortest paths across bonds of length |J| as weights. Bieche, Maynard, Rammal, Uhry, J. Phys. A
13, 2553 (1980); Barahona, J. Phys. A 15, 3241 (1982); Thomas, Middleton, Phys. Rev. B 76, 220406 (2007). The outside
of an open lattice is a face like any other (a cylinder has two), which makes the number of frustrated faces even.

Only near pairs are matched at first. The dual solution tells which other pairs could make the matching lighter; they
are added until there are none. Then the dual solution is a lower bound that the state found attains.
"""

from __future__ import annotations

import math

import numpy as np

from mc.exact.blossom import perfect_matching
from mc.exact.dual_paths import crossed_bonds, face_graph, nearest_pairs, negative_pairs
from mc.exact.result import ExactRefused
from mc.hamiltonian import Hamiltonian
from mc.square import SquareCouplings, square_couplings, square_refusal

NEAREST = 20  # frustrated faces to begin with
MOST_NEW = 12  # pairs added at once for each face
BITS = 57  # of the sum of all |J| in integer units: dual variables and doubled distances stay below 2^63


def ground_state(hamiltonian: Hamiltonian) -> tuple[float, np.ndarray]:
    """The lowest energy, in the unit of the Hamiltonian and with its constant, and one state that has it, (N,) int8.

    Two-dimensional lattices without field, open or periodic along one axis, bonds of any sign and strength (zero
    too). The first spin is +1; which one of several ground states is returned means nothing. Time about N^2: a second
    for 64 x 64 Gaussian couplings, ten for 100 x 100.

    The matching is done in integers, and the state is checked against the lower bound that its dual solution proves.
    The unit is a power of two, between 2^-57 and 2^-56 of the sum of all |J|: +-J, and all couplings that are
    multiples of it, are exact. Others are rounded to it, so a state could be lower than the one returned by at most
    a unit for each bond, 5e-10 in all for 64 x 64 Gaussian couplings. The energy is that of the state, in float64.

    Raises ExactRefused for a field, a torus, or anything but nearest-neighbour bonds on a two-dimensional lattice.
    """
    _refuse(hamiltonian)
    square = square_couplings(hamiltonian)
    sites, faces, couplings = _bonds(square)
    lengths = _integer_lengths(couplings)
    n_negative = np.bincount(faces.ravel(), np.repeat(couplings < 0, 2))
    frustrated = np.flatnonzero(n_negative.astype(np.int64) % 2)
    unsatisfied, weight = np.zeros(len(couplings), bool), 0
    if len(frustrated):
        unsatisfied, weight = _lightest_strings(len(n_negative), faces, lengths, frustrated)
    spins = _spins(square, unsatisfied ^ (couplings < 0))
    # Not only the strings but the state itself has to attain the lower bound.
    broken = spins[sites[:, 0]] * spins[sites[:, 1]] * couplings < 0
    if int(lengths[broken].sum()) != weight:
        raise RuntimeError(f"matching: {hamiltonian.name}: the state misses the lower bound; this is a bug")
    return float(hamiltonian.energy(spins)), spins


def _refuse(hamiltonian: Hamiltonian) -> None:
    """ExactRefused with the first reason there is."""
    reason = square_refusal(hamiltonian)
    if not reason and 1 in hamiltonian.interactions:
        reason = "a field makes the problem one that is not planar"
    if not reason and all(hamiltonian.lattice.periodic):
        reason = "a torus is not planar (one axis has to be open)"
    if reason:
        raise ExactRefused(
            f"matching: {hamiltonian.name}: {reason}; use enumeration (up to 24 spins), or search with --mode pt"
        )


def _bonds(square: SquareCouplings) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sites (n, 2) and faces (n, 2) on both sides of every bond, those of coupling zero too, and couplings (n,).

    The bonds to the right come first, row by row, then those down. Face (y, x) lies between rows y and y + 1 and
    columns x and x + 1; the outside has the numbers after them, two of a cylinder.
    """
    (height, width), (wrap_y, wrap_x) = square.shape, square.periodic
    high, wide = height if wrap_y else height - 1, width if wrap_x else width - 1  # faces along each axis

    def face(y, x):
        below = y < 0 if not wrap_y else np.zeros(y.shape, bool)
        before = x < 0 if not wrap_x else np.zeros(x.shape, bool)
        outside = (y % height >= high) | (x % width >= wide)
        inner = (y % height) * wide + x % width
        far = high * wide + int(wrap_x != wrap_y)
        return np.where(below | before, high * wide, np.where(outside, far, inner))

    y, x = (index.ravel() for index in np.indices((height, wide)))
    v, u = (index.ravel() for index in np.indices((high, width)))
    right = np.stack([y * width + x, y * width + (x + 1) % width], axis=1)
    down = np.stack([v * width + u, (v + 1) % height * width + u], axis=1)
    right_faces = np.stack([face(y - 1, x), face(y, x)], axis=1)
    down_faces = np.stack([face(v, u - 1), face(v, u)], axis=1)
    couplings = np.concatenate([square.right[:, :wide].ravel(), square.down[:high].ravel()])
    return np.concatenate([right, down]), np.concatenate([right_faces, down_faces]), couplings


def _integer_lengths(couplings: np.ndarray) -> np.ndarray:
    """|J| as int64 in the smallest unit, a power of two, that keeps their sum at about 2^57 or below."""
    strength = np.abs(couplings)
    if not strength.any():
        return np.zeros(len(couplings), np.int64)
    # Two steps, because the sum of large couplings may overflow and that of small ones underflow.
    strength = np.ldexp(strength, -math.frexp(strength.max())[1])
    return np.rint(np.ldexp(strength, BITS - math.frexp(strength.sum())[1])).astype(np.int64)


def _lightest_strings(
    n_faces: int, faces: np.ndarray, lengths: np.ndarray, frustrated: np.ndarray
) -> tuple[np.ndarray, int]:
    """Which bonds the strings of least length cross, (n_bonds,) bool, and their length, proved to be the least."""
    graph, number = face_graph(n_faces, faces, lengths), np.full(n_faces, -1)
    number[frustrated] = np.arange(len(frustrated))
    pairs, distances = map(np.array, nearest_pairs(graph, frustrated, number, NEAREST))
    while True:
        matching = perfect_matching(len(frustrated), pairs, distances)
        duals = matching.potential, matching.dual, matching.parent
        new_pairs, new_distances = negative_pairs(graph, frustrated, number, *duals, MOST_NEW)
        if not new_pairs:
            break
        pairs, distances = np.concatenate([pairs, new_pairs]), np.concatenate([distances, new_distances])
    first = np.flatnonzero(matching.mate > np.arange(len(frustrated)))
    ends = np.stack([frustrated[first], frustrated[matching.mate[first]]], axis=1)
    return crossed_bonds(graph, ends, len(lengths)), matching.lower_bound // 2


def _spins(square: SquareCouplings, opposite: np.ndarray) -> np.ndarray:
    """The state (N,) int8 with spin +1 on site 0, told which bonds join opposite spins: down, then along each row."""
    height, width = square.shape
    wide = width if square.periodic[1] else width - 1
    sign = np.where(opposite, -1, 1).astype(np.int8)
    right, down = sign[: height * wide].reshape(height, wide), sign[height * wide :].reshape(-1, width)
    spins = np.ones((height, width), np.int8)
    spins[1:, 0] = np.cumprod(down[: height - 1, 0])
    spins[:, 1:] = spins[:, :1] * np.cumprod(right[:, : width - 1], axis=1)
    return spins.ravel()
