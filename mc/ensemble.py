"""Many disorder samples in one HDF5 file (schema "nmcmc-ensemble", version 1).

    instances/000123    a whole chain tree (`mc.chain`): its groups, and as attributes those of the root of its file
    summary             one row an instance: instance, fingerprint, run_id, rng_seed, chains, draws
    summary/NAME        mean, error, r_hat of an observable, (instance, beta, own axes ...)
    average/NAME        its disorder average: mean, error, spread, samples, (beta, own axes ...)

Root attributes: schema, schema_version, command, config (JSON: what decides all instances), asked (the numbers of the
instances that were asked for, such as 0:1000) and complete (whether all of them are there).

A file is changed whole or not at all, as a chain file is: a hidden copy replaces it by a rename, after its room was
claimed from the disk. Its writer holds a `WriterLock`; these functions leave that to their caller.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mc import chain_tables as tables
from mc.chain import KEEP_FREE_SPACE
from mc.chain_layout import attach_axes, load, opened, to_json
from mc.chain_lock import ChainError, reason, replacement, writable_target
from mc.chain_tree import ENSEMBLE, ENSEMBLE_VERSION, Source, axes_in, copy_tree, room_of, tree
from mc.chain_writer import FORMAT, METADATA_ROOM
from mc.disorder import COLUMNS, Summary, row_of, summarise

IN_SUMMARY = ("fingerprint", "run_id", "rng_seed", "chains", "draws")


def place_of(instance: int) -> str:
    """The group of an instance."""
    return f"instances/{instance:06d}"


def spelled(numbers: Iterable[int]) -> str:
    """Numbers of instances in few words: 0:100, or 0:3,7 (each lo:hi half open)."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1]:
            runs[-1][1] += 1
        else:
            runs.append([number, number + 1])
    return ",".join(str(low) if high == low + 1 else f"{low}:{high}" for low, high in runs)


def read_numbers(text: str) -> list[int]:
    """The numbers that such words spell, in order; ValueError for others."""
    numbers: list[int] = []
    for word in text.split(",") if text else ():
        low, colon, high = word.partition(":")
        numbers += range(int(low), int(high)) if colon else [int(low)]
    return numbers


def is_ensemble(path: str | os.PathLike) -> bool:
    """Whether a file says of itself that it is an ensemble; never raises."""
    try:
        with h5py.File(path, "r") as file:
            return file.attrs.get("schema") == f"nmcmc-{ENSEMBLE}"
    except (OSError, RuntimeError, ValueError):
        return False


def create_ensemble(
    path: str | os.PathLike, *, command: str, config: Mapping[str, Any], asked: Iterable[int], overwrite: bool = False
) -> None:
    """Write an ensemble without instances; ChainError when it cannot be written, or is there already."""
    target = writable_target(path)
    if not overwrite and os.path.exists(target):
        raise ChainError(f"{path} is there already; use --restart or choose another --out")
    image = BytesIO()
    with h5py.File(image, "w", libver=FORMAT, **KEEP_FREE_SPACE) as file:
        file.attrs["schema"] = f"nmcmc-{ENSEMBLE}"
        file.attrs["schema_version"] = ENSEMBLE_VERSION
        _describe(file, command, config, asked, complete=False)
        file.create_group("instances")
    _put_in_place(path, target, image)


def extract(source: Source, path: str | os.PathLike) -> None:
    """Make a chain file of one instance, with the sampler state it goes on from; ChainError where that fails."""
    target = writable_target(path)
    image = BytesIO()
    with tree(source) as group, h5py.File(image, "w", libver=FORMAT, **KEEP_FREE_SPACE) as file:
        for name in group:
            copy_tree(group[name], file, name)
        for name, value in group.attrs.items():
            file.attrs[name] = value
    _put_in_place(path, target, image)


def join(
    path: str | os.PathLike,
    sources: Mapping[int, Source],
    *,
    command: str,
    config: Mapping[str, Any],
    asked: Iterable[int],
    complete: bool,
) -> None:
    """Put instances into an ensemble file that is there, in place of those with the same numbers, and sum up anew.

    All or nothing. Raises ChainError when the disk is full, a source is no chain tree, has other temperatures than
    the rest, or is there twice under two numbers.
    """
    target = writable_target(path)
    try:
        room = METADATA_ROOM + sum(room_of(source) for source in sources.values())
        with replacement(target, room) as part, h5py.File(part, "r+", libver=FORMAT, locking=False) as file:
            for number, source in sorted(sources.items()):
                if place_of(number) in file:
                    del file[place_of(number)]
                with tree(source) as group:
                    copy_tree(group, file["instances"], f"{number:06d}")
            summary = summarise(row_of(int(name), group) for name, group in file["instances"].items())
            _require_each_once(summary)
            _write_summary(file, summary)
            _describe(file, command, config, asked, complete)
    except (OSError, RuntimeError) as error:
        raise ChainError(f"{path} could not be written ({reason(error)}); it is as before, and so are the chain "
                         "files; mend this (disk space? quota?) and do it again") from error  # fmt: skip
    except ValueError as error:
        raise ChainError(f"{path}: {error}; no such instances make an ensemble") from error


class Ensemble:
    """An ensemble file, read only, as it was when it was opened; made by `open_ensemble`.

    path, command, config, complete: from its root. asked: numbers that were asked for. summary: one row an instance.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        with opened(path, ENSEMBLE, ENSEMBLE_VERSION) as file:
            self.command: str = file.attrs["command"]
            self.config: dict[str, Any] = json.loads(file.attrs["config"])
            self.asked = read_numbers(file.attrs["asked"])
            self.complete = bool(file.attrs["complete"])
            self.summary = _read_summary(file) if "summary" in file else summarise([])
            self._merged = [int(name) for name, group in file["instances"].items() if "merged_from" in group.attrs]

    @property
    def instances(self) -> list[int]:
        """Numbers of the instances that are in the file."""
        return self.summary.instances.tolist()

    @property
    def merged(self) -> list[int]:
        """Those that several runs were joined in, which no run can go on from."""
        return list(self._merged)

    def source(self, instance: int) -> Source:
        """Where the chain tree of an instance lies."""
        return Source(self.path, place_of(instance))


def open_ensemble(path: str | os.PathLike) -> Ensemble:
    """Read an ensemble file; ChainError when it is none."""
    return Ensemble(path)


def _describe(file: h5py.File, command: str, config: Mapping[str, Any], asked: Iterable[int], complete: bool) -> None:
    file.attrs["command"] = command
    file.attrs["config"] = to_json(config, "the configuration")
    file.attrs["asked"] = spelled(asked)
    file.attrs["complete"] = int(complete)


def _put_in_place(path: str | os.PathLike, target: Path, image: BytesIO) -> None:
    try:
        with replacement(target, fresh=True) as part:
            part.write_bytes(image.getvalue())
    except OSError as error:
        raise ChainError(f"{path} cannot be written ({reason(error)}); choose another --out") from error


def _require_each_once(summary: Summary) -> None:
    seen: dict[str, int] = {}
    for number, run_id in zip(summary.instances.tolist(), summary.run_ids, strict=True):
        if seen.setdefault(run_id, number) != number:
            raise ValueError(f"instances {seen[run_id]} and {number} are one and the same run")


def _write_summary(file: h5py.File, summary: Summary) -> None:
    for name in ("summary", "average"):
        if name in file:
            del file[name]
    if not len(summary.instances):
        return
    first = file[place_of(int(summary.instances[0]))]
    unit = first["hamiltonian"].attrs["energy_unit"]
    rows = {name: (("instance",), getattr(summary, f"{name}s" if name == "rng_seed" else name))
            for name in ("rng_seed", "chains", "draws")}  # fmt: skip
    numbers = {"instance": (("instance",), summary.instances)}
    tables.write_table(file, "summary", tables.prepare_table("summary", numbers | rows, {}, {}, unit))
    for name, texts in (("fingerprint", summary.fingerprints), ("run_id", summary.run_ids)):
        dataset = file["summary"].create_dataset(name, data=list(texts), dtype=h5py.string_dtype())
        attach_axes(dataset, ("instance",))
    averages = summary.averages()
    for name, columns in summary.observables.items():
        axes = summary.axes[name]
        coordinates = {"beta": summary.betas} | _coordinates(first[f"observables/{name}"], axes)
        arrays = {column: (("instance", *axes), values) for column, values in columns.items()}
        table = tables.prepare_table(f"summary/{name}", numbers | arrays, {}, coordinates, unit)
        tables.write_table(file, f"summary/{name}", table)
        arrays = {column: (axes, values) for column, values in averages[name]._asdict().items()}
        about = {"definition": "over instances: mean, standard error, standard deviation, number of instances"}
        table = tables.prepare_table(f"average/{name}", arrays, about, coordinates, unit)
        tables.write_table(file, f"average/{name}", table)


def _coordinates(group: h5py.Group, axes: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Values of the own axes of an observable, where they have any."""
    return {axis: group[axis][()] for axis in axes if axis != "beta" and not tables.is_bare_axis(group[axis])}


def _read_summary(file: h5py.File) -> Summary:
    group = file["summary"]
    names = [name for name in group if isinstance(group[name], h5py.Group)]
    observables = {name: {column: load(group[name][column]) for column in COLUMNS} for name in names}
    axes = {name: axes_in(group[name])["mean"][1:] for name in names}
    instances = group["instance"][()]
    betas = file[place_of(int(instances[0]))]["posterior/beta"][()]
    fingerprint, run_id, rng_seed, chains, draws = (group[name] for name in IN_SUMMARY)
    return Summary(
        instances, tuple(fingerprint.asstr()[()]), tuple(run_id.asstr()[()]), rng_seed[()], chains[()], draws[()],
        betas, observables, axes,
    )  # fmt: skip
