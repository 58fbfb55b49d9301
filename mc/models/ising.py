"""The Ising model on a square or cubic lattice, J of either sign, with a field if wanted."""

from __future__ import annotations

import math

from mc.hamiltonian import Hamiltonian
from mc.models.lattice_models import box, on_bonds

# Infinite lattices, J = k_B = 1. 2D: Onsager, exact. 3D: Monte Carlo value of Ferrenberg, Xu, Landau,
# Phys. Rev. E 97, 043301 (2018), 0.221654626(5).
CRITICAL_BETA = {2: 0.5 * math.log(1.0 + math.sqrt(2.0)), 3: 0.221654626}


def ising(
    L: int | None = None,
    *,
    Lx: int | None = None,
    Ly: int | None = None,
    Lz: int | None = None,
    dim: int | None = None,
    J: str | float = "ferro",
    h: str | float = 0.0,
    boundary: str = "periodic",
    seed: int = 0,
) -> Hamiltonian:
    """E = - J sum_<ij> s_i s_j - h sum_i s_i on an L x L (dim=3 or Lz=: cubic) lattice.

    boundary: periodic, open, or one word an axis, x first ("periodic,open"). seed: of random couplings or fields.
    Raises ValueError for impossible sizes, boundaries or couplings.
    """
    dimension = dim if dim is not None else (2 if Lz is None else 3)
    if dimension not in CRITICAL_BETA or (dimension == 2 and Lz is not None):
        raise ValueError(f"ising: dim={dimension}: 2, or 3, is needed" + (" with Lz=" if Lz is not None else ""))
    lattice = box("ising", dimension, L, {"Lx": Lx, "Ly": Ly, "Lz": Lz}, boundary)
    parameters = dict(L=L, Lx=Lx, Ly=Ly, Lz=Lz, dim=dim, J=J, h=h, boundary=boundary, seed=seed)
    return on_bonds("ising", lattice, J, h, seed, parameters)


def critical_beta(hamiltonian: Hamiltonian) -> float | None:
    """Critical beta of the infinite ferromagnet J = 1 on this lattice, or None for another dimension."""
    return CRITICAL_BETA.get(hamiltonian.lattice.dimension) if hamiltonian.lattice is not None else None
