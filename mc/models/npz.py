"""Reading arrays that a user brings, without unpickling anything."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np


def read_npz(model: str, path: str) -> dict[str, np.ndarray]:
    """All arrays of an .npz file; ValueError, beginning with the model's name, when it is missing or not readable."""
    if not Path(path).is_file():
        raise ValueError(f"{model}: path={path}: no such file")
    try:
        # Opened here, because np.load leaves a truncated file open.
        with open(path, "rb") as file:
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise ValueError("one array without a name; np.savez gives names")
            with archive:
                return {key: archive[key] for key in archive.files}
    except OSError as error:
        raise ValueError(f"{model}: path={path} cannot be read ({error})") from None
    except (ValueError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error):
        # What numpy says here may be the advice to unpickle.
        raise ValueError(
            f"{model}: path={path} is not a readable .npz file of numbers; write it with numpy.savez"
        ) from None
