"""How the arrays of a chain lie in its HDF5 file: axes, chunks, units, sampled variables.

Every dataset has an HDF5 dimension scale on each of its axes, and every group has its own scales. That is all
xarray and arviz need to open the file as netCDF-4. Truth values are stored as int8 with the attribute
dtype = "bool", which is how netCDF tools write them and turn them back.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from mc.chain_lock import ChainError, reason
from mc.hamiltonian import Hamiltonian
from mc.models.alloy import companions

SCHEMA, SCHEMA_VERSION = "nmcmc-chain", 1
SAMPLED_GROUPS = ("posterior", "sample_stats")
PARTS_OF_A_RUN = ("build", "train", "sample")
TAU_INT_DEFINITION = (
    "integrated autocorrelation time, physics convention: 1/2 + sum over t >= 1 of rho(t), in stored draws; "
    "0.5 = uncorrelated; n_eff = n / (2 tau_int)"
)
# An axis without coordinates is, for netCDF, a scale of this name without values.
NO_COORDINATES = "This is a netCDF dimension but not a netCDF variable."
# gzip costs little here and keeps half-filled chunks small; fletcher32 makes a damaged chunk an error, not a number.
FILTERS = {"compression": "gzip", "compression_opts": 1, "shuffle": True, "fletcher32": True}
COMPRESS_FROM = 65536  # bytes; smaller fixed arrays lie contiguous
SMALLEST_CHUNK, LARGEST_CHUNK = 1 << 16, 1 << 20  # bytes, aims rather than bounds


class Variable(NamedTuple):
    """A sampled variable: its own axes (after chain, draw, beta) as {name: length or coordinates}, and its type."""

    axes: Mapping[str, int | np.ndarray]
    dtype: Any
    units: str | None = None  # None: by name, see `units_of`


def add_companions(group: h5py.Group, hamiltonian: Hamiltonian) -> None:
    """Attribute `combination` = (a, b, c) of the variables that are a energy + b magnetization + c."""
    for name, combination in companions(hamiltonian).items():
        if name in group:
            group[name].attrs["combination"] = np.array(combination)


def units_of(name: str, energy_unit: str) -> str:
    """Units by the names that the observables contract fixes; whatever is not listed is a pure number."""
    if name.endswith("energy"):
        return energy_unit
    known = {"beta": f"1/{energy_unit}", "susceptibility": f"1/{energy_unit}", "seconds": "s"}
    return known.get(name, "dimensionless")


def seconds_of(attributes: Mapping[str, Any]) -> dict[str, float]:
    """CPU seconds of the parts of a run from the attributes of its file, NaN where nobody counted them."""
    return {part: float(attributes.get(f"cpu_seconds_{part}", math.nan)) for part in PARTS_OF_A_RUN}


def stored_array(values: Any, what: str) -> tuple[np.ndarray, bool]:
    """(array as the file holds it, whether it stands for truth values); raises ValueError for other types."""
    array = np.asarray(values)
    if array.dtype == np.bool_:
        return array.astype(np.int8), True
    if array.dtype.kind not in "iuf" or array.dtype.itemsize > 8 or array.dtype == np.float16:
        raise ValueError(f"{what}: {array.dtype} cannot be stored; integers, float32, float64 and bool can")
    return array.astype(array.dtype.newbyteorder("="), copy=False), False


def load(dataset: h5py.Dataset, selection: Any = ()) -> np.ndarray:
    """The values of a dataset as they were given."""
    values = dataset[selection]
    return np.asarray(values, dtype=bool) if dataset.attrs.get("dtype") == "bool" else np.asarray(values)


def axes_of(dataset: h5py.Dataset) -> tuple[str, ...]:
    """Names of the axes of a dataset; a coordinate is its own axis."""
    if dataset.is_scale:
        return (dataset.name.rsplit("/", 1)[-1],)
    return tuple(dimension[0].name.rsplit("/", 1)[-1] for dimension in dataset.dims)


def add_axis(group: h5py.Group, name: str, axis: int | np.ndarray, energy_unit: str, growing: bool = False) -> None:
    """Make a dimension scale: a length (an axis without coordinates), or coordinates; `growing` starts at 0."""
    if growing:
        scale = group.create_dataset(name, shape=(0,), maxshape=(None,), chunks=(1024,), dtype=np.int64, **FILTERS)
        scale.make_scale(name)
    elif isinstance(axis, int | np.integer):
        # Declared and never written, it takes no room.
        scale = group.create_dataset(name, shape=(int(axis),), dtype=np.float32)
        scale.make_scale(f"{NO_COORDINATES}{int(axis):10d}")
        return
    else:
        coordinates, _ = stored_array(axis, f"axis {name}")
        if coordinates.ndim != 1:
            raise ValueError(f"axis {name}: coordinates of shape {coordinates.shape}, one axis is needed")
        scale = group.create_dataset(name, data=coordinates)
        scale.make_scale(name)
    scale.attrs["units"] = units_of(name, energy_unit)


def add_array(group: h5py.Group, name: str, array: np.ndarray) -> h5py.Dataset:
    """A dataset of fixed length, compressed when that is worth it."""
    return group.create_dataset(name, data=array, **(FILTERS if array.nbytes >= COMPRESS_FROM else {}))


def attach_axes(dataset: h5py.Dataset, axes: tuple[str, ...]) -> None:
    for number, axis in enumerate(axes):
        dataset.dims[number].attach_scale(dataset.parent[axis])


def chunk_of(n_chains: int, tail: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Chunk shape of a variable (chain, draw, *tail): one chain (a 16th of very many) x 64 to 1024 draws."""
    row = itemsize * math.prod(tail)  # bytes of one draw of one chain
    chains = -(-n_chains // 16) if n_chains > 16 else 1
    draws = min(max(SMALLEST_CHUNK // max(row, 1), 64), 1024)
    draws = max(1, min(draws, LARGEST_CHUNK // max(row * chains, 1)))
    return (chains, draws, *(max(length, 1) for length in tail))


def create_sampled(
    group: h5py.Group,
    n_chains: int,
    betas: np.ndarray,
    variables: Mapping[str, Variable],
    energy_unit: str,
    draw_axis: str = "draw",
) -> None:
    """Make the empty datasets (chain, draw, beta, own axes ...) of a group, and their scales.

    Raises ValueError when two variables disagree about an axis, or a name is taken.
    """
    fixed = ("chain", draw_axis, "beta")
    own: dict[str, int | np.ndarray] = {}
    for name, variable in variables.items():
        if name in fixed:
            raise ValueError(f"{group.name}: a variable cannot be called {name!r}, that is an axis")
        for axis, given in variable.axes.items():
            if axis in fixed or axis in variables:
                raise ValueError(f"{group.name}/{name}: an own axis cannot be called {axis!r}")
            if not np.array_equal(own.setdefault(axis, given), given):
                raise ValueError(f"{group.name}/{name}: axis {axis!r} is {given} here and {own[axis]} elsewhere")
    add_axis(group, "chain", np.arange(n_chains), energy_unit)
    add_axis(group, draw_axis, 0, energy_unit, growing=True)
    add_axis(group, "beta", betas, energy_unit)
    for axis, given in own.items():
        add_axis(group, axis, given, energy_unit)
    for name, variable in variables.items():
        tail = (len(betas), *(group[axis].shape[0] for axis in variable.axes))
        stored, is_bool = stored_array(np.zeros(0, variable.dtype), f"{group.name}/{name}")
        dataset = group.create_dataset(
            name,
            shape=(n_chains, 0, *tail),
            maxshape=(n_chains, None, *tail),
            chunks=chunk_of(n_chains, tail, stored.itemsize),
            dtype=stored.dtype,
            **FILTERS,
        )
        dataset.attrs["units"] = variable.units or units_of(name, energy_unit)
        if is_bool:
            dataset.attrs["dtype"] = "bool"
        attach_axes(dataset, ("chain", draw_axis, "beta", *variable.axes))


def sampled_names(group: h5py.Group) -> list[str]:
    """Names of the sampled variables of a group, without the scales."""
    return [name for name, dataset in group.items() if not dataset.is_scale]


def extend(dataset: h5py.Dataset, start: int, rows: np.ndarray) -> None:
    """Write rows at `start` of the growing axis; what lay there or beyond is gone."""
    axis = 0 if dataset.ndim == 1 else 1
    if dataset.shape[axis] > start:
        dataset.resize(start, axis=axis)
    dataset.resize(start + rows.shape[axis], axis=axis)
    if rows.size:
        dataset[(slice(None),) * axis + (slice(start, None),)] = rows


def room_for(n_chains: int, tail: tuple[int, ...], itemsize: int, draws: int) -> int:
    """Bytes that more draws of a variable (chain, draw, *tail) may add to the file: a generous bound.

    The last chunk that is there may be moved, and compression may fail.
    """
    rows = draws + chunk_of(n_chains, tail, itemsize)[1] if draws else 0
    return 2 * itemsize * n_chains * math.prod(tail) * rows


def set_attributes(target: h5py.HLObject, attributes: Mapping[str, Any]) -> None:
    for name, value in attributes.items():
        if name not in target.attrs or not np.array_equal(target.attrs[name], value):
            target.attrs[name] = value


@contextlib.contextmanager
def opened(path: str | os.PathLike, kind: str = "chain", newest: int = SCHEMA_VERSION) -> Iterator[h5py.File]:
    """A chain file open for reading; raises ChainError when it is missing, foreign, of a newer version or damaged.

    kind: of the schema, "nmcmc-KIND"; newest: the newest version of it that is known.
    """
    path = Path(path)
    if not os.path.exists(path):  # not Path.exists, which raises for a name that is too long
        raise ChainError(f"{path}: no such file")
    if os.path.isdir(path):
        raise ChainError(f"{path} is a folder, not an nmcmc {kind} file")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        if error.errno:
            raise ChainError(f"{path} cannot be read ({reason(error)})") from error
        why = "it is truncated" if "truncated" in str(error) else "it is not an HDF5 file, or a damaged one"
        raise ChainError(f"{path} is no nmcmc {kind} file: {why}") from error
    with file:
        try:
            schema = file.attrs.get("schema")
            version = int(file.attrs.get("schema_version", 0))
            if not isinstance(schema, str) or schema != f"nmcmc-{kind}":
                what = f"its schema is {schema!r}" if isinstance(schema, str) else "another program wrote it"
                raise ChainError(f"{path} is no nmcmc {kind} file: {what}")
            if version > newest:
                raise ChainError(
                    f"{path} is no nmcmc {kind} file of a version known here: it has schema version {version}, "
                    f"{newest} is the newest known; update nmcmc"
                )
            yield file
        except (KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
            raise ChainError(f"{path}: part of the file cannot be read ({reason(error)}); it is damaged") from error


def to_json(value: Any, what: str) -> str:
    """JSON text, NumPy numbers and arrays included; raises ValueError for what JSON cannot say."""

    def plain(thing: Any) -> Any:
        if isinstance(thing, np.generic | np.ndarray):
            return thing.tolist()
        raise TypeError(f"a {type(thing).__name__}")

    try:
        return json.dumps(value, default=plain)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} cannot be written as JSON ({error})") from error
