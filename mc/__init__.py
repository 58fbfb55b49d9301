"""Monte Carlo of spin systems: lattices, Hamiltonians, kernels, exact values, statistics and chain files.

Nothing on this floor knows about neural networks.
"""

from mc import models
from mc.hamiltonian import Hamiltonian
from mc.lattice import Lattice

__all__ = ["Hamiltonian", "Lattice", "models"]
