"""One committed version of a chain file, read block by block."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass

import h5py

from mc import chain_layout as layout
from mc.chain_reader import committed_lengths

SCHEMA_OF_EXPORTS = "nmcmc-export"  # of HDF5 files that are no chain files any more
BLOCK_BYTES = 8 << 20  # of one variable in memory


@dataclass(frozen=True)
class Snapshot:
    """An open chain file. draws, spin_rows: committed draws a chain, and committed rows of stored spins.

    The file keeps the version that was opened: a writer replaces it, and never changes it.
    """

    file: h5py.File
    draws: int
    spin_rows: int

    @property
    def chains(self) -> int:
        return len(self.file["posterior/chain"])

    def sampled(self) -> dict[str, h5py.Dataset]:
        """{"posterior/energy": dataset, ...} of all sampled variables, (chain, draw, beta, own axes ...)."""
        return {
            f"{group}/{name}": self.file[group][name]
            for group in layout.SAMPLED_GROUPS
            for name in layout.sampled_names(self.file[group])
        }


@contextlib.contextmanager
def snapshot(path: str | os.PathLike) -> Iterator[Snapshot]:
    """A chain file open for reading; raises ChainError when it is none."""
    with layout.opened(path) as file:
        yield Snapshot(file, *committed_lengths(file))


def pieces(rows: int, bytes_a_row: int) -> Iterator[slice]:
    """Slices that cover `rows` rows, each of at most BLOCK_BYTES, and of a row at least."""
    step = max(1, BLOCK_BYTES // max(bytes_a_row, 1))
    for first in range(0, rows, step):
        yield slice(first, min(first + step, rows))


def bytes_a_draw(dataset: h5py.Dataset) -> int:
    """Of one draw of one chain of a variable (chain, draw, ...)."""
    return dataset.dtype.itemsize * math.prod(dataset.shape[2:])
