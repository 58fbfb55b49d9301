"""The chain file: what a run has drawn, in one HDF5 file (schema "nmcmc-chain", version 1).

    posterior, sample_stats     every sampled variable, axes (chain, draw, beta, own axes ...)
    configurations              spins (chain, spin_draw, beta, site) int8, of vectors (..., site, component) float32;
                                spin_draw holds the number of the draw
    hamiltonian                 the energy function, enough to rebuild it
    state                       what the sampler needs to go on, exactly as it was after the last committed draw
    observables, diagnostics, training    small tables

The attribute `committed_draws` is the length of the chain: readers stop there, and a writer cuts off whatever lies
beyond. Every group opens in xarray and arviz as it is (see `mc.chain_layout`). Beside the attributes of the contract
there are `run_id` (a restarted run has another one), `versions` of the libraries, `cpu_seconds_build`, `_train` and
`_sample` (what the committed draws cost), `asked_draws` (how many a chain is to have), and `committed_spin_draws` and
`spins_every` on /configurations; /hamiltonian has `lattice_shape` and `lattice_periodic` where there is a lattice.

A commit is atomic, which is more than the contract asks. The writer copies the committed file to a hidden sibling,
appends there, sets `committed_draws` last, syncs, and renames the copy over the file. So kill -9 at any instant, a
full disk or a lost machine leave the last committed file whole, and a reader keeps the version it opened and never
stands in the writer's way. The price is a copy of the file at each commit; therefore `append` only takes draws
into memory, and `commit_is_due` spaces the commits so that they take about a twentieth of the time.
"""

from __future__ import annotations

import contextlib
import os
import platform
import time
import uuid
from collections.abc import Mapping
from importlib import metadata
from io import BytesIO
from typing import Any

import h5py
import numpy as np

from mc import chain_layout as layout
from mc.chain_hamiltonian import spin_axes as axes_of_a_state
from mc.chain_hamiltonian import spin_type, write_hamiltonian
from mc.chain_layout import SCHEMA, SCHEMA_VERSION, opened
from mc.chain_lock import ChainError, WriterLock, part_of, reason, replacement, writable_target
from mc.chain_reader import Chain, open_chain
from mc.chain_writer import FORMAT, ChainWriter
from mc.hamiltonian import Hamiltonian
from mc.models.alloy import companions
from mc.vector.hamiltonian import VectorHamiltonian

__all__ = ["Chain", "ChainError", "ChainWriter", "create_chain", "open_chain", "resume_chain"]

# Room freed inside the file (a half-filled chunk is written anew by the next commit) is remembered and used again.
KEEP_FREE_SPACE = {"fs_strategy": "fsm", "fs_persist": True, "fs_threshold": 1}


def create_chain(
    path: str | os.PathLike,
    *,
    mode: str,
    command: str,
    config: Mapping[str, Any],
    rng_seed: int,
    hamiltonian: Hamiltonian | VectorHamiltonian,
    betas: np.ndarray,
    n_chains: int,
    posterior: Mapping[str, tuple],
    sample_stats: Mapping[str, tuple],
    spins_every: int = 0,
    spin_axes: Mapping[str, int] | None = None,
    overwrite: bool = False,
    asked_draws: int | None = None,
) -> ChainWriter:
    """Write a chain file without draws, and return its writer.

    betas: (B,) inverse temperatures in 1 / hamiltonian.energy_unit.
    posterior, sample_stats: {name: (own axes, dtype)} or {name: (own axes, dtype, units)}; own axes are
        {axis: length or coordinates} and follow (chain, draw, beta). dtype: integers, float32, float64 or bool.
        Beside `energy` and `magnetization` of an alloy stand what follows from them (`mc.models.alloy.companions`).
    spins_every: how often spins are stored, for the record; 0: never.
    spin_axes: {axis: length} of axes of the spins between beta and site, such as replicas.
    overwrite: replace a file that is there; otherwise one is refused.
    asked_draws: how many a chain is to have in the end, for the record.

    Raises ChainError when the file cannot be written or is being written, ValueError for arguments that do not fit.
    """
    target = writable_target(path)
    if not overwrite and os.path.exists(target):
        raise ChainError(f"{path} is there already; resume it, use --restart or choose another --out")
    betas = np.array(betas, dtype=np.float64)
    if betas.ndim != 1 or not len(betas):
        raise ValueError(f"betas: shape {betas.shape}, (B,) with B >= 1 is needed")
    if n_chains < 1 or spins_every < 0:
        raise ValueError(f"n_chains={n_chains}, spins_every={spins_every}: at least 1 and 0 are needed")
    if not -(2**63) <= rng_seed < 2**63:
        raise ValueError(f"rng_seed={rng_seed} does not fit 64 bits")
    unit = hamiltonian.energy_unit
    image = BytesIO()
    with h5py.File(image, "w", libver=FORMAT, **KEEP_FREE_SPACE) as file:
        file.attrs["schema"] = SCHEMA
        file.attrs["schema_version"] = SCHEMA_VERSION
        file.attrs["nmcmc_version"] = _versions(["nmcmc"]).get("nmcmc", "unknown")
        file.attrs["versions"] = layout.to_json(_versions(["numpy", "scipy", "numba", "h5py", "torch"]), "versions")
        file.attrs["run_id"] = uuid.uuid4().hex  # tells a restarted run from the one it replaced
        file.attrs["mode"] = mode
        file.attrs["command"] = command
        file.attrs["config"] = layout.to_json(config, "the configuration")
        file.attrs["rng_seed"] = int(rng_seed)
        file.attrs["complete"] = 0
        file.attrs["committed_draws"] = 0
        if asked_draws is not None:
            file.attrs["asked_draws"] = int(asked_draws)
        for part in layout.PARTS_OF_A_RUN:
            file.attrs[f"cpu_seconds_{part}"] = 0.0
        write_hamiltonian(file.create_group("hamiltonian"), hamiltonian)
        posterior = _with_companions(posterior, hamiltonian)
        for group, variables in zip(layout.SAMPLED_GROUPS, (posterior, sample_stats), strict=True):
            variables = {name: layout.Variable(*given) for name, given in variables.items()}
            layout.create_sampled(file.create_group(group), n_chains, betas, variables, unit)
        layout.add_companions(file["posterior"], hamiltonian)
        axes = {**(spin_axes or {}), **axes_of_a_state(hamiltonian)}
        spins = {"spins": layout.Variable(axes, spin_type(hamiltonian))}
        group = file.create_group("configurations")
        layout.create_sampled(group, n_chains, betas, spins, unit, draw_axis="spin_draw")
        group.attrs["spins_every"] = int(spins_every)
        group.attrs["committed_spin_draws"] = 0
        for name in ("observables", "diagnostics", "training", "state"):
            file.create_group(name)

    lock = WriterLock(target)
    try:
        # Asked again under the lock: the previous writer may have finished in between.
        if not overwrite and os.path.exists(target):
            raise ChainError(f"{path} is there already; resume it, use --restart or choose another --out")
        began = time.monotonic()
        try:
            with replacement(target, fresh=True) as part:
                part.write_bytes(image.getvalue())
        except OSError as error:
            raise ChainError(f"{path} cannot be written ({reason(error)}); choose another --out") from error
        return ChainWriter(path, target, lock, time.monotonic() - began)
    except BaseException:
        lock.release()
        raise


def _with_companions(posterior: Mapping[str, tuple], hamiltonian: Hamiltonian) -> dict[str, tuple]:
    """The variables of a file, and those that the writer makes of energy and magnetization."""
    if not {"energy", "magnetization"} <= posterior.keys():
        return dict(posterior)
    return dict.fromkeys(companions(hamiltonian), (posterior["energy"][0], np.float64)) | dict(posterior)


def resume_chain(path: str | os.PathLike) -> ChainWriter:
    """The writer of a chain file that is there, behind its last committed draw; takes the lock of the file.

    Raises ChainError for a missing file, one that is no chain file (of this version), or one being written.
    """
    with opened(path):  # a file that is none of ours gets no lock file beside it
        pass
    target = writable_target(path)
    lock = WriterLock(target)
    try:
        part_of(target).unlink(missing_ok=True)  # left by a writer that was killed in a commit
        return ChainWriter(path, target, lock, 0.0)
    except BaseException:
        lock.release()
        raise


def _versions(packages: list[str]) -> dict[str, str]:
    """Versions of the installed ones among some packages, and of Python; imports nothing."""
    found = {"python": platform.python_version()}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found
