"""The draws of a chain file in other formats, bit for bit: csv, netcdf, alps, npz. Committed draws only.

Every function reads one committed version of the file, also while the run goes on, and writes a fresh file at a path
that its caller chose (`mc.chain_lock.replacement` puts it in place whole). No export holds the state of the sampler:
a run goes on from its chain file alone.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import h5py

from mc.export.alps import write_alps
from mc.export.csv_rows import FIRST_OF_CHAIN, FIRST_OF_ENSEMBLE, write_csv, write_summary_csv
from mc.export.netcdf import write_netcdf
from mc.export.npz import MARK_OF_NPZ, write_npz
from mc.export.snapshot import SCHEMA_OF_EXPORTS

__all__ = ["is_export", "write_alps", "write_csv", "write_netcdf", "write_npz", "write_summary_csv"]


def is_export(path: str | os.PathLike) -> bool:
    """Whether a file was written by one of these functions; never raises.

    Told by what is inside: the first columns of a csv, an entry of an npz, the attribute `schema` of HDF5.
    """
    try:
        if h5py.is_hdf5(path):
            with h5py.File(path, "r") as file:
                return file.attrs.get("schema") == SCHEMA_OF_EXPORTS
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return f"{MARK_OF_NPZ}.npy" in archive.namelist()
        with Path(path).open(encoding="utf-8") as text:
            header = text.readline(1000).rstrip("\n").split(",")
        return any(header[: len(first)] == list(first) for first in (FIRST_OF_CHAIN, FIRST_OF_ENSEMBLE))
    except (OSError, RuntimeError, ValueError, zipfile.BadZipFile):
        return False
