"""A graph laid out for vectors of words: sites sorted into classes that are updated together, neighbours by column.

A class is the sites of one colour and one number of neighbours, so that its sites feel nothing of each other.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from mc.hamiltonian import InteractionTable
from mc.kernels.bernoulli import VECTOR

MAX_DEGREE = 6


@njit(cache=True, nogil=True)
def columns_of(degree):
    """Columns of a vector of sites of this number of neighbours: an even number."""
    return (degree + 1) // 2 * 2


def graph_arrays(table: InteractionTable) -> dict[str, np.ndarray]:
    """The fields of `bit_planes.PlusMinusWords` from `slot` on, of a model of bonds."""
    degrees, others = np.diff(table.start), table.others[:, 0]
    kinds = greedy_colours(table) * (MAX_DEGREE + 1) + degrees
    kinds, kind, size = np.unique(kinds, return_inverse=True, return_counts=True)
    degree = kinds % (MAX_DEGREE + 1)
    vectors = 2 * -(-size // (2 * VECTOR))  # two at a time are updated
    end = np.cumsum(vectors)
    slot = np.empty(len(degrees), np.int64)
    shift = VECTOR * (end - vectors) - (np.cumsum(size) - size)
    slot[np.argsort(kind, kind="stable")] = np.arange(len(slot)) + np.repeat(shift, size)
    sites = np.zeros((end[-1], VECTOR), bool)
    sites.ravel()[slot] = True

    columns = (degree + 1) // 2 * 2
    width = np.repeat(columns, vectors)
    owner = np.repeat(np.arange(len(degrees)), degrees)
    here, there = slot[owner], slot[others]
    column = (np.cumsum(width) - width)[here // VECTOR] + np.arange(len(owner)) - table.start[owner]
    place = column, here % VECTOR
    neighbours = VECTOR * np.repeat(np.arange(end[-1]), width)[:, None] + np.arange(VECTOR)
    positive, owned = np.zeros((2, *neighbours.shape), bool)
    neighbours[place], positive[place], owned[place] = there, table.coupling > 0, here < there
    first_column = np.cumsum(vectors * columns) - vectors * columns
    return dict(
        slot=slot.astype(np.int32),
        sites=masks(sites),
        classes=np.stack([end - vectors, end, first_column, degree], axis=1),
        neighbours=neighbours.astype(np.int32).ravel(),
        positive=masks(positive),
        owned=masks(owned),
    )


def masks(flags: np.ndarray) -> np.ndarray:
    """Flags (n, VECTOR) as bits of (n,) uint8."""
    return (flags << np.arange(VECTOR)).sum(axis=1).astype(np.uint8)


def greedy_colours(table: InteractionTable) -> np.ndarray:
    """A colour of each site, the lowest that no neighbour has yet, (N,) int64; two on even lattices."""
    start, others = table.start.tolist(), table.others[:, 0].tolist()
    colours = [-1] * (len(start) - 1)
    for site in range(len(colours)):
        taken = {colours[other] for other in others[start[site] : start[site + 1]]}
        colours[site] = next(colour for colour in range(MAX_DEGREE + 1) if colour not in taken)
    return np.array(colours)
