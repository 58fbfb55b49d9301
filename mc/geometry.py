"""Where the spins of a Hamiltonian sit: the axes of its lattice or crystal, as those need it who know places only.

A `Lattice` also knows nearest neighbours of a square or cubic box. A crystal cell of two sites along a periodic axis
has a place for every spin, too, but no such neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mc.hamiltonian import Hamiltonian


@dataclass(frozen=True)
class Geometry:
    """Sites of a box, numbered row-major (last axis fastest), in units of the axes.

    shape: sites along each axis. periodic: one flag an axis.
    """

    shape: tuple[int, ...]
    periodic: tuple[bool, ...]

    @property
    def n_sites(self) -> int:
        return int(np.prod(self.shape))

    @cached_property
    def coordinates(self) -> np.ndarray:
        """Coordinates of every site, (n_sites, axes) int64."""
        return np.stack(np.unravel_index(np.arange(self.n_sites), self.shape), axis=1)

    def shifted(self, displacements: np.ndarray) -> np.ndarray:
        """Site at each displacement from each site, (n_sites, displacements) int64, -1 outside of an open axis.

        displacements: (n, axes) integers, taken around periodic axes.
        """
        target = self.coordinates[:, None, :] + np.asarray(displacements)[None, :, :]
        inside = np.ones(target.shape[:2], bool)
        for axis, (length, periodic) in enumerate(zip(self.shape, self.periodic, strict=True)):
            if periodic:
                target[..., axis] %= length
            else:
                inside &= (target[..., axis] >= 0) & (target[..., axis] < length)
        target = np.where(inside[..., None], target, 0)
        return np.where(inside, np.ravel_multi_index(tuple(np.moveaxis(target, -1, 0)), self.shape), -1)


def geometry(hamiltonian: Hamiltonian) -> Geometry | None:
    """The places of the spins: of the lattice, or of the cell of an alloy; None for a graph."""
    lattice = hamiltonian.lattice
    if lattice is not None:
        return Geometry(lattice.shape, lattice.periodic)
    if hamiltonian.name == "alloy":
        shape = tuple(int(length) for length in hamiltonian.parameters["cell"].split("x"))
        return Geometry(shape, (True,) * len(shape))
    return None
