"""A nearest-neighbour Hamiltonian on a two-dimensional lattice, read as arrays over the sites of the grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mc.hamiltonian import Hamiltonian


@dataclass(frozen=True)
class SquareCouplings:
    """Couplings of E = - sum right s s' - sum down s s' - sum field s, in the energy unit; arrays (Ly, Lx) float64.

    right[y, x]: bond from (y, x) to (y, x + 1); down[y, x]: bond from (y, x) to (y + 1, x). Indices wrap round a
    periodic axis; on an open axis the last column of `right` or row of `down` is 0. field[y, x]: on the site.
    periodic: of the two axes, (y, x).
    """

    right: np.ndarray
    down: np.ndarray
    field: np.ndarray
    periodic: tuple[bool, bool]

    @property
    def shape(self) -> tuple[int, int]:
        return self.right.shape

    def rolled(self, rows: int) -> SquareCouplings:
        """The same couplings with row `rows` renumbered 0; ValueError unless the y axis is periodic."""
        if rows % self.shape[0] and not self.periodic[0]:
            raise ValueError("rows of an open lattice cannot be renumbered")
        grids = (np.roll(grid, -rows, axis=0) for grid in (self.right, self.down, self.field))
        return SquareCouplings(*grids, self.periodic)


def square_refusal(hamiltonian: Hamiltonian) -> str:
    """Why the Hamiltonian is not one of nearest neighbours on a two-dimensional lattice; "" where it is."""
    if hamiltonian.lattice is None or hamiltonian.lattice.dimension != 2:
        return "a two-dimensional lattice is needed"
    if not hamiltonian.is_nearest_neighbour:
        return "nearest-neighbour bonds only are needed"
    if hamiltonian.n_up is not None:
        return "any number of spins up is needed, not a fixed one"
    return ""


def square_couplings(hamiltonian: Hamiltonian) -> SquareCouplings:
    """The arrays of a Hamiltonian; ValueError where `square_refusal` says why not."""
    refusal = square_refusal(hamiltonian)
    if refusal:
        raise ValueError(f"{hamiltonian.name}: {refusal}")
    height, width = hamiltonian.lattice.shape
    right, down = np.zeros((height, width)), np.zeros((height, width))
    sites, couplings = hamiltonian.bonds
    (y, x), (v, u) = divmod(sites[:, 0].astype(np.int64), width), divmod(sites[:, 1].astype(np.int64), width)
    # Sites of a bond are sorted, so a bond that is not one step ahead is the wrap, which starts at the second site.
    along, ahead = y == v, np.where(y == v, u == x + 1, v == y + 1)
    right[y[along], np.where(ahead, x, u)[along]] = couplings[along]
    down[np.where(ahead, y, v)[~along], x[~along]] = couplings[~along]
    field = hamiltonian.fields.reshape(height, width).copy()
    return SquareCouplings(right, down, field, tuple(hamiltonian.lattice.periodic))
