"""A batch: replicas of one Hamiltonian, stored the way one kernel wants them, behind functions that loops call.

A batch is a NamedTuple of arrays. Its replicas are called lanes; `width` lanes make a unit, which is swept as one
(64 lanes of a word, 16 or 32 of a vector, or a single replica), and lane l belongs to unit l // width. Units share
nothing but the Hamiltonian, so they may be moved by different threads. Every batch has the fields

    beta (lanes,) float64        inverse temperature of each lane, in 1 / energy unit
    energy (lanes,) float64      total energies; current after `refresh` or `measure`
    flipped (lanes,) int64       spins that the last sweep flipped, where `sweep` was asked to count them

The functions below are empty: each kernel says with `implements` how it does them, and Numba picks the implementation
from the type of the batch when it compiles a loop that calls them. So every loop (independent draws, tempering,
population annealing) is written once and compiled for each kernel without an indirect call.

Spins leave and enter a batch as rows of bits: uint64 (lanes of the unit, `words(N)`), bit i % 64 of word i // 64 set
where spin i is +1, bits from N on zero.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import njit, prange
from numba.extending import overload

_KERNELS: dict[tuple[str, type], Callable] = {}


def implements(generic: Callable, kind: type) -> Callable:
    """Decorator: this compiled function does `generic` for batches of the NamedTuple class `kind`."""

    def register(compiled: Callable) -> Callable:
        _KERNELS[generic.__name__, kind] = compiled
        return compiled

    return register


def sweep(batch, unit, n_sweeps, count):
    """n_sweeps sweeps of every lane of a unit at its own beta; `flipped` is filled from the last one if `count`."""
    raise NotImplementedError


def refresh(batch, unit):
    """Make `energy` of a unit current, for swaps: nothing to do for kernels whose sweeps keep it so."""
    raise NotImplementedError


def measure(batch, unit):
    """Sum `energy` of a unit anew from its spins, in float64, and whatever else drifts with the history.

    Called at every draw, so that what follows depends on the spins alone and not on where blocks of draws begin.
    """
    raise NotImplementedError


def exchange(batch, a, b):
    """Lanes a and b exchange their betas."""
    raise NotImplementedError


def store(batch, unit, rows):
    """Copy the spins of a unit to rows of bits, (width, words) uint64."""
    raise NotImplementedError


def load(batch, unit, rows):
    """Replace the spins of a unit by rows of bits, (width, words) uint64; `measure` must follow."""
    raise NotImplementedError


@overload(sweep)
def _sweep(batch, unit, n_sweeps, count):
    kernel = _KERNELS["sweep", batch.instance_class]
    return lambda batch, unit, n_sweeps, count: kernel(batch, unit, n_sweeps, count)


@overload(refresh)
def _refresh(batch, unit):
    kernel = _KERNELS["refresh", batch.instance_class]
    return lambda batch, unit: kernel(batch, unit)


@overload(measure)
def _measure(batch, unit):
    kernel = _KERNELS["measure", batch.instance_class]
    return lambda batch, unit: kernel(batch, unit)


@overload(exchange)
def _exchange(batch, a, b):
    kernel = _KERNELS["exchange", batch.instance_class]
    return lambda batch, a, b: kernel(batch, a, b)


@overload(store)
def _store(batch, unit, rows):
    kernel = _KERNELS["store", batch.instance_class]
    return lambda batch, unit, rows: kernel(batch, unit, rows)


@overload(load)
def _load(batch, unit, rows):
    kernel = _KERNELS["load", batch.instance_class]
    return lambda batch, unit, rows: kernel(batch, unit, rows)


def words(n_spins: int) -> int:
    """Words of 64 bits that hold n_spins spins."""
    return -(-n_spins // 64)


def pack(spins: np.ndarray) -> np.ndarray:
    """Rows of bits (..., words) uint64 of spins (..., N) of +1 and -1."""
    spins = np.asarray(spins)
    padded = np.zeros((*spins.shape[:-1], 64 * words(spins.shape[-1])), np.uint8)
    padded[..., : spins.shape[-1]] = spins > 0
    return np.packbits(padded, axis=-1, bitorder="little").view("<u8").astype(np.uint64, copy=False)


def unpack(rows: np.ndarray, n_spins: int) -> np.ndarray:
    """Spins (..., N) int8 of rows of bits (..., words) uint64."""
    bits = np.unpackbits(np.ascontiguousarray(rows, "<u8").view(np.uint8), axis=-1, bitorder="little")
    return 2 * bits[..., :n_spins].astype(np.int8) - 1


@njit(cache=True, nogil=True)
def sweep_and_refresh(batch, unit, n_sweeps, count):
    """One unit's part of `sweep_all`."""
    sweep(batch, unit, n_sweeps, count)
    refresh(batch, unit)


@njit(cache=True, nogil=True, parallel=True)
def sweep_all(batch, n_units, n_sweeps, count):
    """n_sweeps sweeps of every unit, units shared among threads; energies are current afterwards."""
    for unit in prange(n_units):
        sweep_and_refresh(batch, np.int64(unit), n_sweeps, count)


# What follows is called rarely, and a loop without threads takes Numba seconds less to compile.
@njit(cache=True, nogil=True)
def measure_all(batch, n_units):
    """`measure` of every unit."""
    for unit in range(n_units):
        measure(batch, unit)


@njit(cache=True, nogil=True)
def store_all(batch, rows):
    """`store` of every unit: rows (units, width, words) uint64."""
    for unit in range(rows.shape[0]):
        store(batch, unit, rows[unit])


@njit(cache=True, nogil=True)
def load_all(batch, rows):
    """`load` and `measure` of every unit: rows (units, width, words) uint64."""
    for unit in range(rows.shape[0]):
        load(batch, unit, rows[unit])
        measure(batch, unit)
