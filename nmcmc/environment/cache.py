"""An environment on disk, so that a run that goes on, or another one of the same target, need not build it again."""

from __future__ import annotations

import contextlib
import os
import zipfile
import zlib
from pathlib import Path

import numpy as np

from mc.hamiltonian import Hamiltonian
from nmcmc.environment.build import Environment

VERSION = 1  # of what `build_environment` makes; a change of its numbers is a new version


def environment_key(hamiltonian: Hamiltonian, beta: float, chi: int, form: str) -> str:
    """All that an environment depends on, as text; the fingerprint of a Hamiltonian does not tell its lattice."""
    lattice = hamiltonian.lattice
    about = f"{hamiltonian.fingerprint} {lattice.shape} {lattice.periodic}"
    return f"nmcmc-environment {VERSION} {about} {beta!r} {chi} {form}"


def environment_path(folder: Path, stem: str, chi: int, form: str) -> Path:
    """Where the environment of a target is kept."""
    return folder / f"{stem}-environment-{form}-chi{chi}.npz"


def load_environment(path: Path, key: str) -> Environment | None:
    """The environment at `path`; None where there is none, or it is damaged or of something else."""
    try:
        # Opened here, because np.load leaves a damaged file open. Nothing is unpickled.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            if str(archive["key"]) != key:
                return None
            environment = Environment(archive["first"], archive["rest"])
    except (OSError, ValueError, KeyError, EOFError, TypeError, RuntimeError, zipfile.BadZipFile, zlib.error):
        return None
    sound = all(a.ndim == 6 and np.isfinite(a).all() for a in (environment.first, environment.rest))
    return environment if sound else None


def save_environment(path: Path, key: str, environment: Environment) -> bool:
    """Write under a temporary name, then rename; False where the disk does not take it, which costs only time."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        with open(temporary, "wb") as file:
            np.savez(file, key=np.array(key), first=environment.first, rest=environment.rest)
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        return False
    return True
