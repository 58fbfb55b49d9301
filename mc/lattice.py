"""A hypercubic lattice: its shape, which axes are periodic, its sites and its nearest-neighbour bonds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Lattice:
    """Sites of a box, numbered row-major (last axis fastest).

    shape: number of sites along each axis, slowest axis first: (Ly, Lx) or (Lz, Ly, Lx).
    periodic: one flag per axis.

    Raises ValueError for an axis shorter than 1, or a periodic axis shorter than 3 (with two sites the bond to
    the left and the bond to the right join the same pair, so each would count twice).
    """

    shape: tuple[int, ...]
    periodic: tuple[bool, ...]

    def __post_init__(self):
        object.__setattr__(self, "shape", tuple(int(length) for length in self.shape))
        object.__setattr__(self, "periodic", tuple(bool(flag) for flag in self.periodic))
        if not self.shape or len(self.shape) != len(self.periodic):
            raise ValueError(f"lattice: {len(self.shape)} axes but {len(self.periodic)} boundary conditions")
        for length, periodic in zip(self.shape, self.periodic, strict=True):
            if length < 1:
                raise ValueError(f"lattice: an axis of {length} sites; at least 1 is needed")
            if periodic and length < 3:
                raise ValueError(
                    f"lattice: a periodic axis of {length} sites would join the same pair of sites twice; "
                    "use 3 or more sites, or open edges (boundary=open)"
                )

    @property
    def n_sites(self) -> int:
        return int(np.prod(self.shape))

    @property
    def dimension(self) -> int:
        return len(self.shape)

    @cached_property
    def coordinates(self) -> np.ndarray:
        """Coordinates of every site, shape (n_sites, dimension), int64."""
        return np.stack(np.unravel_index(np.arange(self.n_sites), self.shape), axis=1)

    def site(self, coordinates: np.ndarray) -> np.ndarray:
        """Site numbers of coordinates (..., dimension), which must lie inside the box."""
        coordinates = np.asarray(coordinates)
        return np.ravel_multi_index(tuple(np.moveaxis(coordinates, -1, 0)), self.shape)

    @cached_property
    def bonds(self) -> np.ndarray:
        """Nearest-neighbour bonds (n_bonds, 2), each once: site by site, axis by axis (x first), forward.

        This order is frozen: the couplings of a disorder seed are dealt out along it.
        """
        found = np.full((self.n_sites, self.dimension, 2), -1, dtype=np.int64)
        for slot, axis in enumerate(reversed(range(self.dimension))):
            ahead = self.coordinates.copy()
            ahead[:, axis] += 1
            inside = ahead[:, axis] < self.shape[axis]
            if self.periodic[axis]:
                ahead[:, axis] %= self.shape[axis]
                inside[:] = True
            found[inside, slot, 0] = np.flatnonzero(inside)
            found[inside, slot, 1] = self.site(ahead[inside])
        found = found.reshape(-1, 2)
        return found[found[:, 0] >= 0]
