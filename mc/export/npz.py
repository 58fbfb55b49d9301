"""An archive of NumPy arrays, for `numpy.load`."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator
from typing import IO

import h5py
import numpy as np

from mc import chain_layout as layout
from mc.chain_tables import read_table
from mc.export.snapshot import SCHEMA_OF_EXPORTS, Snapshot, bytes_a_draw, pieces, snapshot

MARK_OF_NPZ = "schema"
DATE = (1980, 1, 1, 0, 0, 0)  # the same draws make the same bytes


def write_npz(source: str | os.PathLike, path: str | os.PathLike) -> None:
    """Write all of a chain file but the state of the sampler, each array in its own type.

    posterior/NAME, sample_stats/NAME: (chain, draw, beta, own axes ...). betas: (beta,) in 1 / energy unit.
    spins: int8 (chain, spin_draw, beta, own axes, site), +1 and -1; spin_draws: (spin_draw,), which draws they are.
    observables/NAME/mean, error, tau_int, n_eff, r_hat; diagnostics/NAME; training/NAME; hamiltonian/sites_K
    (interaction, K) and couplings_K. config, attributes: JSON texts, the configuration and all attributes.

    Memory: blocks of draws. Raises ChainError, OSError.
    """
    with (
        snapshot(source) as now,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
    ):
        for name, array in _small(now.file):
            with _member(archive, name) as out:
                np.lib.format.write_array(out, np.asanyarray(array), allow_pickle=False)
        for name, dataset in now.sampled().items():
            _stream(archive, name, dataset, now.draws)
        _stream(archive, "spins", now.file["configurations/spins"], now.spin_rows)
        with _member(archive, "spin_draws") as out:
            np.lib.format.write_array(out, _spin_draws(now), allow_pickle=False)


def _small(file: h5py.File) -> Iterator[tuple[str, np.ndarray]]:
    """Everything that has no axis `draw`, by name."""
    attributes = {
        name: value.tolist() if hasattr(value, "tolist") else value for name, value in sorted(file.attrs.items())
    }
    yield MARK_OF_NPZ, np.array(SCHEMA_OF_EXPORTS)
    yield "config", np.array(file.attrs["config"])
    yield "attributes", np.array(json.dumps(attributes))
    yield "betas", file["posterior/beta"][()]
    for group in ("diagnostics", "training"):
        for name, array in read_table(file[group]).items():
            yield f"{group}/{name}", array
    for observable, group in file["observables"].items():
        for name, array in read_table(group).items():
            yield f"observables/{observable}/{name}", array
    for name in layout.sampled_names(file["hamiltonian"]):
        yield f"hamiltonian/{name}", file["hamiltonian"][name][()]


def _spin_draws(now: Snapshot) -> np.ndarray:
    return now.file["configurations/spin_draw"][: now.spin_rows]


def _member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    info = zipfile.ZipInfo(f"{name}.npy", DATE)
    info.compress_type = zipfile.ZIP_DEFLATED
    return archive.open(info, "w", force_zip64=True)


def _stream(archive: zipfile.ZipFile, name: str, dataset: h5py.Dataset, rows: int) -> None:
    """A variable (chain, draw, ...) up to the committed row, in C order."""
    dtype = layout.load(dataset, (slice(0, 0),)).dtype
    header = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": (dataset.shape[0], rows, *dataset.shape[2:]),
    }
    with _member(archive, name) as out:
        np.lib.format.write_array_header_1_0(out, header)
        for chain in range(dataset.shape[0]):
            for part in pieces(rows, bytes_a_draw(dataset)):
                out.write(np.ascontiguousarray(layout.load(dataset, (chain, part))).tobytes())
