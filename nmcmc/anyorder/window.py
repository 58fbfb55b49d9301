"""The window of a site: the displacements a network looks at, and the sites they lead to on a lattice of any size.

On the torus a network is trained on, all displacements have one representative each, so the window is the whole
lattice seen from the site. On a larger lattice the same displacements make a window of the trained size around each
site, which is how a network grows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mc.geometry import Geometry, geometry
from mc.hamiltonian import Hamiltonian


@dataclass(frozen=True)
class Window:
    """shape, periodic: of the lattice it is made for. radius: largest |displacement| along an axis, or None."""

    shape: tuple[int, ...]
    periodic: tuple[bool, ...]
    radius: int | None = None

    @cached_property
    def displacements(self) -> np.ndarray:
        """(M, axes) int64, nearest first, without the site itself."""
        spans = []
        for length, periodic in zip(self.shape, self.periodic, strict=True):
            low, high = (-((length - 1) // 2), length // 2) if periodic else (1 - length, length - 1)
            if self.radius is not None:
                low, high = max(low, -self.radius), min(high, self.radius)
            spans.append(np.arange(low, high + 1))
        every = np.stack(np.meshgrid(*spans, indexing="ij"), axis=-1).reshape(-1, len(spans))
        every = every[(every != 0).any(axis=1)]
        return every[np.argsort((every**2).sum(axis=1), kind="stable")]

    @property
    def size(self) -> int:
        return len(self.displacements)

    def refusal(self, places: Geometry, turns: bool = True) -> str:
        """Why a network of this window cannot draw the spins of another lattice, "" if it can.

        turns: whether it has attention, whose rotary angles have the period of the lattice it is made for.
        """
        if places.shape == self.shape and places.periodic == self.periodic:
            return ""
        made = "x".join(map(str, self.shape))
        asked = "x".join(map(str, places.shape))
        if len(places.shape) != len(self.shape) or places.periodic != self.periodic or not all(places.periodic):
            kind = "" if all(places.periodic) else "open "
            return (
                f"a network of {made} grows from periodic to periodic lattices of as many axes, not to {kind}{asked}"
            )
        if turns and any(large % small for large, small in zip(places.shape, self.shape, strict=True)):
            return (
                f"a network of {made} grows to multiples of its sizes (its angles have that period), not to {asked}"
            )
        if any(large < small for large, small in zip(places.shape, self.shape, strict=True)):
            return f"a network of {made} grows to larger lattices, not to {asked}"
        return ""

    def neighbours(self, places: Geometry) -> np.ndarray:
        """Site at every displacement from every site, (N, M) int64; N stands for none, beyond an open edge."""
        sites = places.shifted(self.displacements)
        return np.where(sites < 0, places.n_sites, sites)


def places_of(hamiltonian: Hamiltonian) -> Geometry:
    """Where its spins are; a ring for a graph, whose displacements mean nothing but name the other sites."""
    return geometry(hamiltonian) or Geometry((hamiltonian.n_spins,), (True,))


def is_homogeneous(hamiltonian: Hamiltonian) -> bool:
    """Whether all sites are alike: a torus, or a crystal, that every shift along an axis leaves the same."""
    places = geometry(hamiltonian)
    if places is None or not all(places.periodic):
        return False
    for axis in range(len(places.shape)):
        step = np.eye(len(places.shape), dtype=np.int64)[axis]
        if not same_energy(hamiltonian, hamiltonian.permuted(places.shifted(step[None])[:, 0])):
            return False
    return True


def same_energy(one: Hamiltonian, other: Hamiltonian) -> bool:
    """Whether two Hamiltonians have the same interactions up to rounding."""
    if one.interactions.keys() != other.interactions.keys():
        return False
    for order, (sites, couplings) in one.interactions.items():
        theirs, strengths = other.interactions[order]
        if sites.shape != theirs.shape or not np.array_equal(sites, theirs):
            return False
        if not np.allclose(couplings, strengths, rtol=1e-9, atol=1e-12 * np.abs(couplings).max()):
            return False
    return True
