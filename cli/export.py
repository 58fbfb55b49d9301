"""`nmcmc export`: the draws of a chain file in another format."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from cli.ensemble_results import is_ensemble
from cli.ensemble_results import opened as opened_ensemble
from cli.errors import UserError, closest
from cli.output import counted
from cli.results import opened, refuse_mean_field
from mc.chain import Chain
from mc.chain_lock import ChainError, reason, replacement, writable_target
from mc.ensemble import Ensemble
from mc.export import is_export, write_alps, write_csv, write_netcdf, write_npz, write_summary_csv


class Format(NamedTuple):
    """ending: of the file. read: how Python reads it, with {out} in it."""

    ending: str
    read: str
    write: Callable


FORMATS = {
    "csv": Format(".csv", "pandas.read_csv({out})", write_csv),
    "netcdf": Format(".nc", "xarray.open_datatree({out}), or arviz.from_netcdf", write_netcdf),
    "alps": Format(".h5", "pyalps.loadMeasurements([{out}, ...])", write_alps),
    "npz": Format(".npz", "numpy.load({out})", write_npz),
}


def export(file: Path, to: str, out: Path | None) -> None:
    """Write the file of another format; UserError for what cannot be done, before anything is written."""
    if to not in FORMATS:
        raise UserError(f"--to {to}: {', '.join(FORMATS)} is needed{closest(to, FORMATS)}")
    form, ensemble = FORMATS[to], is_ensemble(file)
    if ensemble and to != "csv":
        raise UserError(f"{file} is an ensemble, of which --to {to} cannot be made; --to csv writes its summary, and "
                        "mc.ensemble.extract makes a chain file of one instance")  # fmt: skip
    chain = opened_ensemble(file) if ensemble else opened(file)
    if not ensemble and to in ("csv", "alps"):
        refuse_mean_field(file, chain.mode)
    if not ensemble and not chain.n_draws and to in ("csv", "alps"):
        raise UserError(f"{file} has no draws yet; run it on, or use --to npz for its training and diagnostics")
    out = out or file.with_suffix(form.ending)
    paths = tasks(out, len(chain.betas)) if to == "alps" else [out]
    for path in paths:
        require_free(path)
    started = False
    try:
        with contextlib.ExitStack() as stack:
            parts = [stack.enter_context(replacement(writable_target(path), fresh=True)) for path in paths]
            started = True
            if to == "alps":
                write_alps(file, parts)
            elif ensemble:
                write_summary_csv(file, parts[0])
            else:
                form.write(file, parts[0])
    except ChainError as error:
        raise UserError(str(error)) from None
    except OSError as error:
        code = 1 if started else 2  # a disk that fills up on the way, or a place where nothing can be written
        raise UserError(f"{out} cannot be written ({reason(error)}); choose another --out", code) from None
    print(said(paths, chain, form))


def tasks(out: Path, betas: int) -> list[Path]:
    """X.task1.out.h5, X.task2.out.h5, ... one a beta, as ALPS names its results."""
    stem = out.name.removesuffix(".h5").removesuffix(".out")
    return [out.with_name(f"{stem}.task{number}.out.h5") for number in range(1, betas + 1)]


def require_free(path: Path) -> None:
    """UserError where it cannot be written, or another file than an earlier export is there."""
    try:
        writable_target(path)
    except ChainError as error:
        raise UserError(str(error)) from None
    if os.path.lexists(path) and not (os.path.isfile(path) and is_export(path)):  # a pipe is not even read
        raise UserError(f"{path} is there already and is no earlier export; remove it, or choose another --out")


def said(paths: list[Path], chain: Chain | Ensemble, form: Format) -> str:
    """Where it is, how much, and how to read it."""
    if isinstance(chain, Ensemble):
        axes = {"instance": len(chain.instances), "temperature": len(chain.summary.betas)}
    else:
        axes = {"chain": chain.n_chains, "draw": chain.n_draws, "temperature": len(chain.betas)}
    size = " x ".join(counted(number, what) for what, number in axes.items())
    where = shlex.quote(str(paths[0])) + (f" to {paths[-1].name}" if len(paths) > 1 else "")
    return f"result: {where} ({size}); read it with: {form.read.format(out=repr(str(paths[0])))}"
