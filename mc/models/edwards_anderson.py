"""Edwards-Anderson spin glasses: random couplings on the bonds of a square or cubic lattice."""

from __future__ import annotations

from mc.hamiltonian import Hamiltonian
from mc.models.lattice_models import box, on_bonds


def ea2d(
    L: int | None = None,
    *,
    Lx: int | None = None,
    Ly: int | None = None,
    J: str | float = "bimodal",
    h: str | float = 0.0,
    boundary: str = "periodic",
    seed: int = 0,
) -> Hamiltonian:
    """E = - sum_<ij> J_ij s_i s_j - sum_i h_i s_i on a square lattice, J_ij = +-1 or Gaussian of unit variance."""
    lattice = box("ea2d", 2, L, {"Lx": Lx, "Ly": Ly}, boundary)
    parameters = dict(L=L, Lx=Lx, Ly=Ly, J=J, h=h, boundary=boundary, seed=seed)
    return on_bonds("ea2d", lattice, J, h, seed, parameters)


def ea3d(
    L: int | None = None,
    *,
    Lx: int | None = None,
    Ly: int | None = None,
    Lz: int | None = None,
    J: str | float = "bimodal",
    h: str | float = 0.0,
    boundary: str = "periodic",
    seed: int = 0,
) -> Hamiltonian:
    """The same on a cubic lattice."""
    lattice = box("ea3d", 3, L, {"Lx": Lx, "Ly": Ly, "Lz": Lz}, boundary)
    parameters = dict(L=L, Lx=Lx, Ly=Ly, Lz=Lz, J=J, h=h, boundary=boundary, seed=seed)
    return on_bonds("ea3d", lattice, J, h, seed, parameters)
