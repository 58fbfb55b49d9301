"""All 2^N states, one by one: the method that needs no other, for any interactions.

State number x stands for the spins s_i = +1 where bit i of x is set and -1 elsewhere. A product of spins over a
cluster c is then (-1)^|c| (-1)^popcount(x & c), so the energies of all states are the Walsh-Hadamard transform of
the couplings, placed at the bit masks of their clusters. Blocks of 2^16 states (the lowest 16 spins) are
transformed at a time; the other spins only decide the signs of the couplings.
"""

from __future__ import annotations

from collections.abc import Iterator

import numba
import numpy as np

from mc.exact.result import ExactRefused, ExactResult, checked_beta
from mc.hamiltonian import Hamiltonian

MAX_SPINS = 24
MAX_SPINS_DISTRIBUTION = 20
BLOCK_BITS = 16
TIE = 1e-10  # energies within TIE * sum |J| of the lowest are one level: rounding is 1e-15, true gaps are larger


def state_index(spins: np.ndarray) -> np.ndarray:
    """Numbers of states (..., N) of +1 and -1, N <= 62; shape (...), int64: bit i is set where s_i = +1."""
    spins = np.asarray(spins)
    n_spins = spins.shape[-1]
    if n_spins > 62:
        raise ValueError(f"state_index: {n_spins} spins do not fit a 64-bit number; 62 do")
    return ((spins > 0).astype(np.int64) << np.arange(n_spins, dtype=np.int64)).sum(axis=-1)


def state_spins(index: np.ndarray, n_spins: int) -> np.ndarray:
    """Spins (..., n_spins) int8 of the states with numbers `index` (...): the inverse of `state_index`."""
    bits = (np.asarray(index, dtype=np.int64)[..., None] >> np.arange(n_spins, dtype=np.int64)) & 1
    return (2 * bits - 1).astype(np.int8)


def energy_blocks(hamiltonian: Hamiltonian) -> Iterator[np.ndarray]:
    """Energies of all states in the order of their numbers, in blocks of (min(2^N, 2^16),) float64.

    Infinite where another number of spins is up than `n_up`. Raises ExactRefused beyond 24 spins.
    """
    n_spins = hamiltonian.n_spins
    if n_spins > MAX_SPINS:
        raise ExactRefused(
            f"enumeration of {hamiltonian.name}: 2^{n_spins} states (2^{MAX_SPINS} is the limit); "
            "use --mode pt, or a smaller system"
        )
    low_bits = min(n_spins, BLOCK_BITS)
    masks, weights = [np.zeros(1, np.int64)], [np.array([hamiltonian.constant])]
    for order, (sites, couplings) in hamiltonian.interactions.items():
        masks.append((1 << sites.astype(np.int64)).sum(axis=1))
        weights.append(-couplings * (-1.0) ** order)
    mask, weight = np.concatenate(masks), np.concatenate(weights)
    low_mask, high_mask = mask & ((1 << low_bits) - 1), mask >> low_bits
    for high in range(1 << (n_spins - low_bits)):
        signed = weight * (1.0 - 2.0 * (np.bitwise_count(high_mask & high) & 1))
        placed = np.bincount(low_mask, signed, minlength=1 << low_bits)
        _walsh_hadamard(placed)
        if hamiltonian.n_up is not None:
            up = np.bitwise_count(np.arange(len(placed))).astype(np.int64) + high.bit_count()
            placed[up != hamiltonian.n_up] = np.inf
        yield placed


@numba.njit(cache=True, nogil=True)
def _walsh_hadamard(values):
    """values[x] <- sum_c (-1)^popcount(x & c) values[c], in place; sums only, so that integers stay exact."""
    half = 1
    while half < len(values):
        for start in range(0, len(values), 2 * half):
            for k in range(start, start + half):
                first, second = values[k], values[k + half]
                values[k] = first + second
                values[k + half] = first - second
        half *= 2


def enumerate_states(hamiltonian: Hamiltonian) -> np.ndarray:
    """Energies of all states, shape (2^N,) float64, entry x for the state number x; as in `energy_blocks`.

    ExactRefused beyond N = 24.
    """
    return np.concatenate(list(energy_blocks(hamiltonian)))


def enumerate_exact(hamiltonian: Hamiltonian, beta: float) -> ExactResult:
    """Exact values by enumeration, with ground-state energy and degeneracy; blocks are not kept.

    Every block is summed relative to its own lowest energy and mean, so nothing overflows or cancels at any beta.
    Raises ExactRefused beyond 24 spins, ValueError for a negative or non-finite beta.
    """
    beta = checked_beta(beta)
    tie = TIE * sum(float(np.abs(couplings).sum()) for _, couplings in hamiltonian.interactions.values())
    blocks = []
    for energies in energy_blocks(hamiltonian):
        energies = energies[np.isfinite(energies)]
        if not len(energies):
            continue
        lowest = energies.min()
        excess = energies - lowest
        weights = np.exp(-beta * excess)
        total = weights.sum()
        mean = (weights * excess).sum() / total
        variance = (weights * (excess - mean) ** 2).sum() / total
        degeneracy = np.count_nonzero(excess <= tie)
        blocks.append((np.log(total) - beta * lowest, lowest + mean, variance, lowest, degeneracy))
    log_z, mean, variance, lowest, degeneracy = np.array(blocks).T  # (blocks,) each
    weights = np.exp(log_z - log_z.max())
    total = weights.sum()
    weights /= total
    energy = weights @ mean
    variance = weights @ (variance + (mean - energy) ** 2)
    ground = lowest.min()
    return ExactResult(
        "enumeration",
        beta,
        float(log_z.max() + np.log(total)),
        float(energy),
        float(beta * beta * variance),
        float(ground),
        float(degeneracy[lowest <= ground + tie].sum()),
    )


def boltzmann_distribution(hamiltonian: Hamiltonian, beta: float) -> np.ndarray:
    """Probabilities exp(-beta E) / Z of all states, shape (2^N,), entry x for the state number x.

    Raises ExactRefused beyond 20 spins, ValueError for a negative or non-finite beta.
    """
    beta = checked_beta(beta)
    if hamiltonian.n_spins > MAX_SPINS_DISTRIBUTION:
        raise ExactRefused(
            f"Boltzmann distribution of {hamiltonian.name}: 2^{hamiltonian.n_spins} probabilities, "
            f"2^{MAX_SPINS_DISTRIBUTION} is the limit; use a smaller system"
        )
    energies = enumerate_states(hamiltonian)
    weights = np.where(np.isfinite(energies), 1.0, 0.0)
    weights[weights > 0] = np.exp(-beta * (energies - energies.min())[weights > 0])
    return weights / weights.sum()
