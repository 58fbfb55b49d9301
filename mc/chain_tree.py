"""A chain tree, wherever it lies: the root of a chain file, or one instance of an ensemble file. Finding and copying.

Its groups and attributes are those that `mc.chain` describes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import h5py

from mc.chain_layout import SCHEMA, opened
from mc.chain_lock import ChainError

ENSEMBLE, ENSEMBLE_VERSION = "ensemble", 1
WIRES = (b"DIMENSION_LIST", b"REFERENCE_LIST")  # attributes by which HDF5 ties a dataset to its axes
ROOM_A_DATASET = 4096  # bytes beside its values, a generous bound


class Source(NamedTuple):
    """Where a chain tree lies: a chain file (place "/"), or a group of an ensemble."""

    path: Path
    place: str = "/"

    def __str__(self) -> str:
        number = self.place.rsplit("/", 1)[-1]
        return f"instance {int(number)} of {self.path}" if number else str(self.path)


@contextlib.contextmanager
def tree(source: Source) -> Iterator[h5py.Group]:
    """A chain tree open for reading; ChainError when it is none, or damaged."""
    if source.place == "/":
        with opened(source.path) as file:
            yield file
        return
    with opened(source.path, ENSEMBLE, ENSEMBLE_VERSION) as file:
        if source.place not in file or file[source.place].attrs.get("schema") != SCHEMA:
            raise ChainError(f"{source} is not there")
        yield file[source.place]


def axes_in(group: h5py.Group) -> dict[str, tuple[str, ...]]:
    """Names of the axes of every dataset of a group, () for those that are axes themselves or have none.

    As `chain_layout.axes_of`, which asks HDF5 for the name of each axis: a search through the whole file.
    """
    datasets = {name: item for name, item in group.items() if isinstance(item, h5py.Dataset)}
    names = {h5py.h5o.get_info(item.id).addr: name for name, item in datasets.items() if item.is_scale}
    return {
        name: () if item.is_scale else tuple(names[h5py.h5o.get_info(axis[0].id).addr] for axis in item.dims)
        for name, item in datasets.items()
    }


def copy_tree(source: h5py.Group, parent: h5py.Group, name: str) -> None:
    """Copy a group with all below it.

    HDF5 copies the references between a dataset and its axes as null, so these are tied anew.
    """
    source.copy(source["/"] if source.name == "/" else source, parent, name)
    _tie(source, parent[name])


def _tie(source: h5py.Group, copied: h5py.Group) -> None:
    axes = axes_in(source)
    datasets = {name: copied[name] for name in axes}
    for dataset in datasets.values():
        for wire in WIRES:
            if h5py.h5a.exists(dataset.id, wire):
                h5py.h5a.delete(dataset.id, wire)
    for name, own in axes.items():
        for number, axis in enumerate(own):
            h5py.h5ds.attach_scale(datasets[name].id, datasets[axis].id, number)
    for name in source.keys() - axes.keys():
        _tie(source[name], copied[name])


def room_of(source: Source) -> int:
    """Bytes that a copy of a chain tree may take: a generous bound."""
    room = 0

    def add(_, item: h5py.HLObject) -> None:
        nonlocal room
        room += ROOM_A_DATASET + (item.id.get_storage_size() if isinstance(item, h5py.Dataset) else 0)

    with tree(source) as group:
        group.visititems(add)
    return room
