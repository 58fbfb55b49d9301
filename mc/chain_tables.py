"""Small groups of results in a chain file, replaced as a whole by a commit: state, observables, diagnostics, ..."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import h5py
import numpy as np

from mc.chain_layout import (
    NO_COORDINATES,
    TAU_INT_DEFINITION,
    add_array,
    add_axis,
    attach_axes,
    axes_of,
    load,
    set_attributes,
    stored_array,
    units_of,
)


class Column(NamedTuple):
    """One array of a small group, its axes and its attributes."""

    axes: tuple[str, ...]
    array: np.ndarray
    attributes: dict[str, Any]


class Table(NamedTuple):
    """A small group, checked and copied, ready to be written by `write_table`."""

    columns: dict[str, Column]
    attributes: dict[str, Any]
    scales: dict[str, int | np.ndarray]  # axes that are not columns themselves
    energy_unit: str

    @property
    def nbytes(self) -> int:
        return sum(column.array.nbytes for column in self.columns.values())


def prepare_table(
    path: str,
    arrays: Mapping[str, Any],
    attributes: Mapping[str, Any],
    coordinates: Mapping[str, np.ndarray],
    energy_unit: str,
) -> Table:
    """Check and copy {name: array, (axes, array) or (axes, array, attributes)} for the group `path`.

    An array that bears the name of its only axis is that axis' coordinate. `coordinates` are the values of the
    axes that the whole file shares. Raises ValueError for types and lengths that do not fit.
    """
    columns: dict[str, Column] = {}
    lengths = {axis: len(values) for axis, values in coordinates.items()}
    for name, given in arrays.items():
        axes, values, own = (*given, {})[:3] if isinstance(given, tuple) else (None, given, {})
        array, is_bool = stored_array(np.array(values), f"{path}/{name}")
        axes = default_axes(path, name, array.shape, coordinates) if axes is None else tuple(axes)
        if len(axes) != array.ndim or len(set(axes)) != len(axes):
            raise ValueError(f"{path}/{name}: axes {axes} for an array of shape {array.shape}")
        for axis, length in zip(axes, array.shape, strict=True):
            if length != lengths.setdefault(axis, length):
                raise ValueError(f"{path}/{name}: axis {axis!r} has {length} entries instead of {lengths[axis]}")
        quantity = path.rsplit("/", 1)[-1] if name in ("mean", "error") else name
        own = {"units": units_of(quantity, energy_unit), **own}
        if name == "tau_int":
            own |= {"units": "draws", "definition": TAU_INT_DEFINITION}
        if is_bool:
            own["dtype"] = "bool"
        columns[name] = Column(axes, array, _checked_attributes(own, f"{path}/{name}"))
    used = dict.fromkeys(axis for column in columns.values() for axis in column.axes)
    for name, column in columns.items():
        if "/" in name or name in (".", ""):
            raise ValueError(f"{path}: {name!r} cannot be a name")
        if (name in used or name in coordinates) and column.axes != (name,):
            raise ValueError(f"{path}/{name}: it has the name of an axis, so it must be that axis' coordinate")
    scales = {axis: coordinates.get(axis, lengths[axis]) for axis in used if axis not in columns}
    return Table(columns, _checked_attributes(attributes, path), scales, energy_unit)


def write_table(file: h5py.File, path: str, table: Table) -> None:
    """Replace a small group; in place when its layout is as before, so that a file does not grow by being updated."""
    group = file.get(path)
    wanted = {name: (column.axes, column.array.shape, column.array.dtype) for name, column in table.columns.items()}
    if group is not None and _columns_of(group) == wanted:
        for name, column in table.columns.items():
            if column.array.size:
                group[name][...] = column.array
    else:
        if group is not None:
            del file[path]
        group = file.create_group(path)
        for axis, given in table.scales.items():
            add_axis(group, axis, given, table.energy_unit)
        for name, column in table.columns.items():
            add_array(group, name, column.array)
            if column.axes == (name,):
                group[name].make_scale(name)
        for name, column in table.columns.items():
            if column.axes != (name,):
                attach_axes(group[name], column.axes)
    for name, column in table.columns.items():
        set_attributes(group[name], column.attributes)
    for stale in set(group.attrs) - set(table.attributes):
        del group.attrs[stale]
    set_attributes(group, table.attributes)


def default_axes(path: str, name: str, shape: tuple[int, ...], coordinates: Mapping[str, np.ndarray]) -> tuple:
    """Axes of an array given without: `step` first in /training, else beta first where the length is that of beta."""
    if not shape:
        return ()
    own = [f"{name}_{number}" for number in range(len(shape))]
    if path == "training":
        own[0] = "step"
    elif "beta" in coordinates and shape[0] == len(coordinates["beta"]):
        own[0] = "beta"
    return tuple(own)


def _columns_of(group: h5py.Group) -> dict[str, tuple]:
    """{name: (axes, shape, dtype)} of the arrays of a small group, coordinates of its own axes included."""
    return {
        name: (axes_of(dataset), dataset.shape, dataset.dtype)
        for name, dataset in group.items()
        if not (dataset.is_scale and (name in ("chain", "beta") or is_bare_axis(dataset)))
    }


def is_bare_axis(dataset: h5py.Dataset) -> bool:
    """Whether a dataset is only an axis without coordinates."""
    return dataset.is_scale and (h5py.h5ds.get_scale_name(dataset.id) or b"").startswith(NO_COORDINATES.encode())


def _checked_attributes(attributes: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Attributes as netCDF knows them: texts, numbers, and lists of numbers; truth values become 0 and 1."""
    checked = {}
    for name, value in attributes.items():
        if not isinstance(value, str):
            value = stored_array(value, f"{where}: attribute {name!r}")[0]
            if value.ndim > 1:
                raise ValueError(f"{where}: attribute {name!r} has shape {value.shape}; use an array")
        checked[name] = value
    return checked


def read_table(group: h5py.Group) -> dict[str, np.ndarray]:
    """The arrays of a small group, with its coordinates other than chain and beta."""
    return {name: load(group[name]) for name in _columns_of(group)}
