"""Lattice symmetries that leave a Hamiltonian unchanged: translations, reflections, exchange of axes."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from mc.hamiltonian import Hamiltonian


class LatticeSymmetries:
    """The symmetries of `hamiltonian` among those of its box, found by relabelling the sites and comparing energies.

    translations: axes along which a step of one site changes nothing. reflections: axes that may be mirrored.
    exchanges: pairs of axes that may be swapped. A graph or a disordered sample has none.
    """

    def __init__(self, hamiltonian: Hamiltonian):
        self.lattice = lattice = hamiltonian.lattice
        axes = range(lattice.dimension) if lattice is not None else ()
        self.translations, self.reflections, self.exchanges = [], [], []
        if lattice is None:
            return

        def unchanged(coordinates: np.ndarray) -> bool:
            return hamiltonian.permuted(lattice.site(coordinates)).fingerprint == hamiltonian.fingerprint

        here, size = lattice.coordinates, np.array(lattice.shape)
        step = np.eye(lattice.dimension, dtype=np.int64)
        self.translations = [a for a in axes if unchanged((here + step[a]) % size)]
        self.reflections = [a for a in axes if unchanged(np.where(step[a] > 0, size - 1 - here, here))]
        for a, b in combinations(axes, 2):
            order = list(axes)
            order[a], order[b] = b, a
            if size[a] == size[b] and unchanged(here[:, order]):
                self.exchanges.append(order)

    @property
    def trivial(self) -> bool:
        return not (self.translations or self.reflections or self.exchanges)

    def random_sites(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """n random symmetries as site maps (n, n_sites): moved = spins[map] is as likely as spins."""
        size = np.array(self.lattice.shape)
        where = np.broadcast_to(self.lattice.coordinates, (n, *self.lattice.coordinates.shape)).copy()
        for order in self.exchanges:
            swap = rng.random(n) < 0.5
            where[swap] = where[swap][:, :, order]
        for axis in self.reflections:
            mirror = rng.random(n) < 0.5
            where[mirror, :, axis] = size[axis] - 1 - where[mirror, :, axis]
        for axis in self.translations:
            where[:, :, axis] = (where[:, :, axis] + rng.integers(size[axis], size=n)[:, None]) % size[axis]
        return np.ravel_multi_index(tuple(np.moveaxis(where, -1, 0)), self.lattice.shape)
