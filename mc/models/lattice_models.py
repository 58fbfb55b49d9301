"""What the lattice models have in common: a box from sizes and boundary words, and couplings on its bonds."""

from __future__ import annotations

from typing import Any

from mc.hamiltonian import Hamiltonian
from mc.lattice import Lattice
from mc.models import couplings


def box(name: str, dimension: int, L: int | None, sizes: dict[str, int | None], boundary: str) -> Lattice:
    """The lattice of `dimension` axes from L or from Lx, Ly, Lz, and boundary words in the order x, y, z.

    Raises ValueError when a size is missing or given twice, below 1, or a boundary word is unknown.
    """
    axes = ("Lx", "Ly", "Lz")[:dimension]
    needed = " ".join(f"{axis}=" for axis in axes)
    given = {axis: size for axis, size in sizes.items() if size is not None}
    if L is not None and given:
        raise ValueError(f"{name}: L={L} and {next(iter(given))} say the size twice; use L= alone, or {needed}")
    lengths = [L] * dimension if L is not None else [given.get(axis) for axis in axes]
    if None in lengths:
        raise ValueError(f"{name}: no size; give L=, or {needed}")
    for axis, length in zip(axes, lengths, strict=True):
        if length < 1:
            raise ValueError(f"{name}: {'L' if L is not None else axis}={length}: an integer of at least 1 is needed")
    words = boundary.split(",")
    if len(words) == 1:
        words = words * dimension
    if len(words) != dimension or not set(words) <= {"periodic", "open"}:
        raise ValueError(
            f"{name}: boundary={boundary}: periodic or open is needed, or one a axis ({dimension} words)"
        )
    return Lattice(tuple(reversed(lengths)), tuple(word == "periodic" for word in reversed(words)))


def on_bonds(
    name: str, lattice: Lattice, J: str | float, h: str | float, seed: int, parameters: dict[str, Any]
) -> Hamiltonian:
    """Nearest-neighbour couplings J and fields h on a lattice."""
    bonds = lattice.bonds
    strengths = couplings.deal(J, seed, len(bonds))
    field = couplings.field_interaction(h, seed, lattice.n_sites)
    kept = {key: value for key, value in parameters.items() if value is not None}
    return Hamiltonian(lattice.n_sites, [(bonds, strengths), field], 0.0, lattice, name, kept)
