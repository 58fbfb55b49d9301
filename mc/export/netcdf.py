"""A netCDF-4 file, for xarray, arviz and everything else that reads netCDF."""

from __future__ import annotations

import os
from pathlib import Path

import h5py

from mc import chain_layout as layout
from mc.chain_tree import copy_tree
from mc.chain_writer import FORMAT
from mc.export.snapshot import SCHEMA_OF_EXPORTS, snapshot

LEFT_OUT = ("state",)


def write_netcdf(source: str | os.PathLike, path: str | os.PathLike) -> None:
    """Write every group of a chain file but the state of the sampler, as `mc.chain` lays them out.

    A chain file opens in xarray and arviz as it is. This copy ends at the last committed draw for every reader, has
    no free room, and is smaller where the state is large. It is no chain file: `schema` is "nmcmc-export", and
    `exported_from` names the file it was made of. The other attributes of the root are as there.

    Read with `xarray.open_datatree(path)`, `arviz.from_netcdf(path)` or any tool of netCDF-4 (HDF5 1.10 or later).
    Raises ChainError, OSError.
    """
    with snapshot(source) as now, h5py.File(path, "w", libver=FORMAT) as out:
        for name, value in now.file.attrs.items():
            out.attrs[name] = value
        out.attrs["schema"] = SCHEMA_OF_EXPORTS
        out.attrs["exported_from"] = Path(source).name
        for name in now.file:
            if name not in LEFT_OUT:
                copy_tree(now.file[name], out, name)
        for group in layout.SAMPLED_GROUPS:
            _cut(out[group], "draw", now.draws)
        _cut(out["configurations"], "spin_draw", now.spin_rows)


def _cut(group: h5py.Group, axis: str, rows: int) -> None:
    """Take away whatever lies beyond the committed rows."""
    for name in layout.sampled_names(group):
        if group[name].shape[1] > rows:
            group[name].resize(rows, axis=1)
    if len(group[axis]) > rows:
        group[axis].resize(rows, axis=0)
