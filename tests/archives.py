"""Arrays of an npz file, read at once: numpy's archive holds its file open until it is closed or collected."""

from __future__ import annotations

from os import PathLike

import numpy as np


def arrays_of(path: str | PathLike) -> dict[str, np.ndarray]:
    """All arrays by name."""
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)
