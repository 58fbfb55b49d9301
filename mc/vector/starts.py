"""Where vector spins start."""

from __future__ import annotations

import numpy as np
from numba import njit

from mc.kernels.gaussian import fill_normals
from mc.vector.hamiltonian import VectorHamiltonian

WORDS = ("random", "up", "field")


def initial_vectors(
    init: str | np.ndarray, hamiltonian: VectorHamiltonian, states: np.ndarray, axes: tuple[int, ...]
) -> np.ndarray:
    """Spins (*axes, N, D) float64, one stream of `states` (chain, K, 4) for each state, which moves on.

    init: "random", "up" (all along (1, ..., 1)), "field" (along x_i, where it is zero "up"), or vectors that
    broadcast; all of norm R, but vectors given for the loss energy keep theirs.

    Raises ValueError for another word, and vectors of another shape, not finite, or zero.
    """
    n_spins, n_components = hamiltonian.fields.shape
    shape = (*axes, n_spins, n_components)
    if isinstance(init, str):
        if init not in WORDS:
            raise ValueError(f"init={init}: {', '.join(WORDS)} or an array of spins is needed")
        spins = np.ones((n_spins, n_components))
        if init == "field":
            has_field = hamiltonian.fields.any(axis=1)
            spins[has_field] = hamiltonian.fields[has_field]
        if init == "random":
            spins = np.empty((*states.shape[:2], n_spins * n_components))
            fill_all(spins, states)
        spins = np.broadcast_to(spins.reshape(shape) if init == "random" else spins, shape)
    else:
        spins = np.asarray(init, np.float64)
        if not np.isfinite(spins).all():
            raise ValueError("init: spins that are not finite")
        try:
            spins = np.broadcast_to(spins, shape)
        except ValueError:
            raise ValueError(f"init: spins {spins.shape} do not broadcast to {shape}") from None
        if hamiltonian.form == "loss":
            return spins.copy()
    norms = np.linalg.norm(spins, axis=-1, keepdims=True)
    if (norms == 0).any():
        raise ValueError("init: a spin is zero and has no direction")
    return spins * (hamiltonian.radius / norms)


@njit(cache=True, nogil=True)
def fill_all(spins, states):
    """Standard normal numbers in spins (chain, K, n), each row from its stream (chain, K, 4)."""
    for chain in range(spins.shape[0]):
        for place in range(spins.shape[1]):
            fill_normals(spins[chain, place], states[chain, place])
