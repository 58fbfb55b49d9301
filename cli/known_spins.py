"""Partly known configurations from a file: `given=FILE` of `nmcmc sample`."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from cli.errors import UserError
from mc.hamiltonian import Hamiltonian

ARRAY = "spins"  # of an .npz file
CODES = "+1, -1, and 0 or NaN for unknown"


def known_spins(path: Path, hamiltonian: Hamiltonian) -> np.ndarray:
    """Partly known configurations (n, N) int8 of +1, -1 and 0 for unknown, one a row.

    The file: .npz with an array `spins`, .npy, or a text of numbers, a line a row, between blanks or commas (an empty
    cell is unknown). Shapes: (n, N), (N,), or one or n times that of the lattice, sites row by row. UserError for a
    file that is none, another shape, other values, no rows, or a row in which every spin is known.
    """
    values = _array(path)
    if values.dtype.kind not in "iuf":
        raise UserError(f"given={path}: its values are {_kind(values)}; numbers are needed, {CODES}")
    rows = _rows(path, values, hamiltonian)
    rows = np.where(np.isnan(rows), 0, rows)
    odd = ~np.isin(rows, (-1, 0, 1))
    if odd.any():
        row, site = np.argwhere(odd)[0]
        raise UserError(f"given={path}: row {row} holds {rows[row, site]:g} at site {site}; {CODES} are needed")
    full = np.flatnonzero((rows != 0).all(axis=1))
    if len(full):
        raise UserError(f"given={path}: row {full[0]} has no unknown spin, so there is nothing to draw; leave it "
                        "out, or write 0 or NaN where spins are unknown")  # fmt: skip
    return rows.astype(np.int8)


def _array(path: Path) -> np.ndarray:
    """The array in a file, by its beginning and not by its name; UserError when there is none."""
    if not path.is_file():  # a pipe could be read once only
        raise UserError(
            f"given={path}: {'this is no file' if path.exists() else 'no such file'}; a file of spins is needed"
        )
    try:
        with path.open("rb") as file:
            start = file.read(6)
            if start[:2] != b"PK" and start != b"\x93NUMPY":
                return _text(path)
            file.seek(0)
            found = np.load(file, allow_pickle=False)
            if isinstance(found, np.ndarray):
                return found
            if ARRAY not in found:
                held = ", ".join(sorted(found)[:6]) or "nothing"
                raise UserError(f"given={path}: no array {ARRAY} in it (it holds {held}); name it so")
            return found[ARRAY]
    except OSError as error:
        raise UserError(
            f"given={path} cannot be read ({error.strerror or error}); a file of spins is needed"
        ) from None
    except (ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        why = str(error).split("\n")[0][:100] or type(error).__name__
        raise UserError(f"given={path} cannot be read ({why}); .npz with an array {ARRAY}, .npy or a text of numbers "
                        "is needed") from None  # fmt: skip


def _text(path: Path) -> np.ndarray:
    """Numbers of a text, (lines, numbers a line); what follows # is left out, ValueError for what is no number."""
    rows: list[list[float]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        line = line.partition("#")[0].strip()
        if not line:
            continue
        cells = line.split(",") if "," in line else line.split()
        try:
            rows.append([float(cell) if cell.strip() else np.nan for cell in cells])
        except ValueError:
            raise ValueError(f"line {number} holds what is no number") from None
        if len(rows[-1]) != len(rows[0]):
            raise ValueError(f"line {number} has {len(rows[-1])} numbers, the first one {len(rows[0])}")
    return np.array(rows, dtype=np.float64)


def _rows(path: Path, values: np.ndarray, hamiltonian: Hamiltonian) -> np.ndarray:
    """Values as float64 (n, N); UserError for another shape, or no rows."""
    n_spins, lattice = hamiltonian.n_spins, hamiltonian.lattice
    allowed = {(n_spins,)} | ({lattice.shape} if lattice else set())
    if not values.size:
        raise UserError(f"given={path}: there are no values in it; a row of {n_spins} spins at least is needed")
    if values.shape not in allowed and values.shape[1:] not in allowed:
        shapes = " or ".join(str(shape) for shape in sorted(allowed, key=len))
        raise UserError(f"given={path}: the shape is {values.shape}; {shapes}, or several of them, is needed for the "
                        f"{n_spins} spins of the sampler")  # fmt: skip
    return values.reshape(-1, n_spins).astype(np.float64)


def _kind(values: np.ndarray) -> str:
    return "true and false" if values.dtype.kind == "b" else f"of type {values.dtype}"
