"""Monte Carlo of spin systems: lattices, Hamiltonians, kernels, exact values, statistics and chain files.

Nothing on this floor knows about neural networks.
"""

from numba import config as _numba

from mc.compiled import forgive_foreign_types as _forgive_foreign_types
from mc.compiled import use_own_cache as _use_own_cache

_use_own_cache()  # before the first compiled function is made
_forgive_foreign_types()

# ruff: noqa: E402 - the kernels come after that
# isort: split
from mc import collapse, crossings, finite_size, models
from mc.analysis import Results, analyse
from mc.chain import Chain, ChainError, open_chain
from mc.ensemble import Ensemble, open_ensemble
from mc.hamiltonian import Hamiltonian
from mc.lattice import Lattice

__all__ = [
    "Chain", "ChainError", "Ensemble", "Hamiltonian", "Lattice", "Results", "analyse", "collapse", "crossings",
    "finite_size", "models", "open_chain", "open_ensemble",
]  # fmt: skip

# Numba's OpenMP layer shares its pool with PyTorch and resets PyTorch's number of threads at every kernel: small
# matrix products then spin on all cores, at twice the CPU time. Another layer can be had by NUMBA_THREADING_LAYER.
if _numba.THREADING_LAYER == "default":
    _numba.THREADING_LAYER = "workqueue"
