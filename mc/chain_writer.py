"""Writing a chain file: draws into memory, and commits that happen whole or not at all; see `mc.chain`."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from mc import chain_layout as layout
from mc import chain_tables as tables
from mc.chain_layout import opened
from mc.chain_lock import ChainError, WriterLock, reason, replacement
from mc.chain_reader import committed_lengths, read_state

# One fixed HDF5 format (readable since HDF5 1.10), whatever the library at hand would choose.
FORMAT = ("v110", "v110")
METADATA_ROOM = 4 << 20  # bytes reserved for a commit beside the arrays themselves


class _Block(NamedTuple):
    """Draws that were appended and are not committed yet: those numbered first to stop - 1."""

    first: int
    stop: int
    sampled: dict[tuple[str, str], np.ndarray]  # {(group, variable): (chain, draw, beta, ...)}
    spins: np.ndarray  # (chain, stored draw, beta, own axes, site)
    spin_draws: np.ndarray  # (stored draw,)


class ChainWriter:
    """Appends to one chain file and holds its lock; made by `create_chain` and `resume_chain`.

    Used as a context manager it commits what is pending when the block ends without an error, and closes.

    path, config, mode, betas (B,), n_chains, n_spins: as in the file.
    complete: whether the run was declared finished. seconds_of_last_commit: 0 before the first one.
    seconds: CPU seconds of the parts of the run, {build, train, sample}, NaN where nobody counted them.
    warning: a text where the file system knows no locks, else None.
    """

    def __init__(self, path: str | os.PathLike, target: Path, lock: WriterLock, seconds: float):
        self.path = Path(path)
        self._target = target
        self._lock = lock
        self.warning = lock.warning
        self.seconds_of_last_commit = seconds
        self._last_commit = time.monotonic()
        with opened(self.path) as file:
            self._run_id = file.attrs["run_id"]
            self.mode = file.attrs["mode"]
            self.config = json.loads(file.attrs["config"])
            self.complete = bool(file.attrs["complete"])
            self.seconds = layout.seconds_of(file.attrs)
            # (draws, rows of stored spins) in the file: one tuple, so that an interrupt cannot part them
            self._committed = committed_lengths(file)
            self.betas = file["posterior/beta"][()]
            self.n_chains = len(file["posterior/chain"])
            self.n_spins = int(file["hamiltonian"].attrs["n_spins"])
            self._energy_unit = file["hamiltonian"].attrs["energy_unit"]
            self._has_state = "draws" in file["state"].attrs
            spins = file["configurations/spins"]
            self._spin_tail, self._spin_type = spins.shape[2:], spins.dtype  # beta, own axes, site (component)
            self._shapes: dict[tuple[str, str], tuple[tuple[int, ...], np.dtype]] = {}
            self._companions: dict[str, np.ndarray] = {}
            for group in layout.SAMPLED_GROUPS:
                for name in layout.sampled_names(file[group]):
                    dataset = file[group][name]
                    dtype = np.dtype(bool) if dataset.attrs.get("dtype") == "bool" else dataset.dtype
                    self._shapes[group, name] = (dataset.shape[2:], dtype)
                    if "combination" in dataset.attrs:
                        self._companions[name] = dataset.attrs["combination"]
        self._appended: list[_Block] = []
        self._new_betas = False
        self._tables: dict[str, tables.Table] = {}
        self._attributes: dict[str, str | float | int] = {}

    def __repr__(self) -> str:
        return f"ChainWriter({self.path}, {self.committed_draws} draws committed, {self.pending_draws} pending)"

    def __enter__(self) -> ChainWriter:
        return self

    def __exit__(self, kind, error, trace) -> None:
        try:
            if kind is None:
                self.commit()
                if self._pending:
                    raise ValueError(
                        f"close: the last {self.pending_draws} draws have no state and are not committed"
                    )
        finally:
            self.close()

    @property
    def committed_draws(self) -> int:
        """Draws in the file, per chain."""
        return self._committed[0]

    @property
    def _pending(self) -> list[_Block]:
        return [block for block in self._appended if block.first >= self.committed_draws]

    @property
    def pending_draws(self) -> int:
        """Draws appended and not committed."""
        return sum(block.stop - block.first for block in self._pending)

    @property
    def pending_bytes(self) -> int:
        """Memory that the pending draws hold."""
        return sum(b.spins.nbytes + sum(rows.nbytes for rows in b.sampled.values()) for b in self._pending)

    def append(
        self,
        posterior: Mapping[str, np.ndarray],
        sample_stats: Mapping[str, np.ndarray],
        spins: np.ndarray | None = None,
        spin_draws: np.ndarray | None = None,
    ) -> None:
        """Take a block of draws into memory; copies, so the arrays may be used again.

        posterior, sample_stats: every variable the file was made with, (chain, n, beta, own axes ...); those that
            energy and magnetization make may be left out.
        spins: (chain, n_stored, beta, own axes, site) of +1 and -1, of vectors (..., site, component), belonging to
            the draws numbered `spin_draws` (n_stored,) from the start of the run; both or neither.

        Raises ValueError for names, shapes or types other than those of the file.
        """
        given = {("posterior", name): values for name, values in self._completed(posterior).items()}
        given |= {("sample_stats", name): values for name, values in sample_stats.items()}
        if given.keys() != self._shapes.keys():
            odd = ", ".join("/".join(key) for key in sorted(given.keys() ^ self._shapes.keys()))
            raise ValueError(f"append: the block and the file differ in {odd}")
        lengths = {np.shape(values)[1:2] for values in given.values()}
        if len(lengths) != 1 or lengths == {()}:
            raise ValueError("append: the variables do not have the same number of draws")
        (n_draws,) = lengths.pop()
        sampled = {}
        for key, values in given.items():
            values = np.asarray(values)
            tail, dtype = self._shapes[key]
            if values.shape != (self.n_chains, n_draws, *tail):
                raise ValueError(f"append: {key[1]} is {values.shape}, ({self.n_chains}, n, *{tail}) is needed")
            if not np.can_cast(values.dtype, dtype, "same_kind"):
                raise ValueError(f"append: {key[1]} is {values.dtype}, the file holds {dtype}")
            sampled[key] = values.astype(np.int8 if dtype == np.bool_ else dtype)
        first = self.committed_draws + self.pending_draws
        spins, spin_draws = self._checked_spins(spins, spin_draws, first, first + n_draws)
        if n_draws:
            self._appended.append(_Block(first, first + n_draws, sampled, spins, spin_draws))

    def _completed(self, posterior: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The variables given, and the companions of energy and magnetization among those that are not."""
        found = dict(posterior)
        if {"energy", "magnetization"} <= found.keys():
            energy, magnetization = found["energy"], found["magnetization"]
            for name, (a, b, c) in self._companions.items():
                found.setdefault(name, a * np.asarray(energy) + b * np.asarray(magnetization) + c)
        return found

    def _checked_spins(self, spins, spin_draws, first: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        if (spins is None) != (spin_draws is None):
            raise ValueError("append: spins and spin_draws go together")
        if spins is None:
            spins = np.zeros((self.n_chains, 0, *self._spin_tail), self._spin_type)
            return spins, np.zeros(0, np.int64)
        spin_draws = np.array(spin_draws, dtype=np.int64).reshape(-1)
        spins = np.asarray(spins)
        needed = (self.n_chains, len(spin_draws), *self._spin_tail)
        if spins.shape != needed:
            raise ValueError(f"append: spins have shape {spins.shape}, {needed} is needed")
        if self._spin_type.kind == "f":
            if not np.isfinite(spins).all():
                raise ValueError("append: spins that are not finite")
        elif (np.abs(spins) != 1).any():
            raise ValueError("append: spins other than +1 and -1")
        inside = (spin_draws >= first) & (spin_draws < stop)
        if not inside.all() or (np.diff(spin_draws) <= 0).any():
            raise ValueError(f"append: spin_draws must increase and lie in this block, {first} to {stop - 1}")
        return spins.astype(self._spin_type), spin_draws

    def set_state(self, state: Mapping[str, np.ndarray | bytes]) -> None:
        """Give the sampler state that belongs to all draws appended so far; copied.

        It is committed together with them. From the first call on, a commit writes only draws that a state covers,
        so that the draws and the state in a file always belong together. Raises ValueError for types that cannot
        be stored (bytes, and arrays of integers, float32, float64 and bool can).
        """
        arrays = {
            name: (None, np.frombuffer(value, np.uint8), {"kind": "bytes"})
            if isinstance(value, bytes)
            else (None, value, {"kind": "array"})
            for name, value in state.items()
        }
        draws = self.committed_draws + self.pending_draws
        self._has_state = True
        self._tables["state"] = tables.prepare_table("state", arrays, {"draws": draws}, {}, self._energy_unit)

    def state(self) -> dict[str, np.ndarray | bytes]:
        """The state in the file, which belongs to its `committed_draws`; {} when there is none."""
        with opened(self.path) as file:
            return read_state(file)

    def set_group(self, name: str, arrays: Mapping[str, Any], attributes: Mapping[str, Any] | None = None) -> None:
        """Replace a small group of results at the next commit: "diagnostics", "training" or "observables/NAME".

        arrays: {name: array, (axes, array) or (axes, array, attributes)}. Given without axes, an array of /training
        starts with the axis `step`, and one as long as there are temperatures starts with `beta`. An array with the
        name of its axis is the coordinate of that axis. `attributes`: texts, numbers and arrays of numbers.
        """
        first, *rest = name.strip("/").split("/")
        if (first, len(rest)) not in (("diagnostics", 0), ("training", 0), ("observables", 1)):
            raise ValueError(f"set_group: {name!r} is none of diagnostics, training and observables/NAME")
        path = "/".join([first, *rest])
        shared = {"chain": np.arange(self.n_chains), "beta": self.betas}
        self._tables[path] = tables.prepare_table(path, arrays, attributes or {}, shared, self._energy_unit)

    def set_betas(self, betas: np.ndarray) -> None:
        """Replace the inverse temperatures (B,) at the next commit, before the first draw: a ladder that was tuned.

        Raises ValueError when there are draws, or for another number of them.
        """
        if self.committed_draws or self._appended:
            raise ValueError("set_betas: there are draws already")
        if np.shape(betas) != self.betas.shape:
            raise ValueError(f"set_betas: shape {np.shape(betas)}, {self.betas.shape} is needed")
        self.betas = np.array(betas, np.float64)
        self._new_betas = True

    def set_config(self, config: Mapping[str, Any], command: str | None = None) -> None:
        """Replace the configuration (and the command) at the next commit: a run extended by more draws."""
        self._attributes["config"] = layout.to_json(config, "the configuration")
        if command is not None:
            self._attributes["command"] = command

    def set_seconds(self, **seconds: float) -> None:
        """Give the CPU seconds that parts of the run have cost so far: build, train, sample. For the next commit."""
        if not seconds.keys() <= set(layout.PARTS_OF_A_RUN):
            raise ValueError(f"set_seconds: {', '.join(seconds)}; the parts are {', '.join(layout.PARTS_OF_A_RUN)}")
        self.seconds |= seconds
        self._attributes |= {f"cpu_seconds_{part}": float(value) for part, value in seconds.items()}

    def set_asked(self, draws: int) -> None:
        """Give the number of draws a chain is to have in the end, at the next commit."""
        self._attributes["asked_draws"] = int(draws)

    def commit_is_due(self, min_seconds: float = 10.0) -> bool:
        """Whether it is time to commit: so rarely that commits take at most about a twentieth of the time.

        A commit that failed counts, so that a full disk is not tried at every block.
        """
        return time.monotonic() - self._last_commit > max(min_seconds, 20.0 * self.seconds_of_last_commit)

    def commit(self, complete: bool | None = None) -> None:
        """Write everything pending, all or nothing; does nothing when nothing is pending.

        complete: declares the run finished or not; None leaves it, but a run that grows is unfinished.

        Raises ChainError when the file cannot be written: it is then as before, everything pending is kept, and a
        later commit may succeed. Raises ValueError when there is nothing but draws after the last `set_state`, or
        with `complete=True` when there are any.
        """
        pending = self._pending
        ready = pending
        if self._has_state:
            state = self._tables.get("state")
            covered = self.committed_draws if state is None else int(state.attributes["draws"])
            ready = [block for block in pending if block.stop <= covered]
        if len(ready) < len(pending) and (complete or not ready):
            # Quietly keeping them would fill the memory of a caller who forgot set_state.
            first = pending[len(ready)].first
            raise ValueError(f"commit: the draws from {first} on have no state; call set_state after append")
        if complete is None:
            complete = self.complete and not ready
        if not (ready or self._tables or self._attributes or self._new_betas or complete != self.complete):
            return
        if self._lock is None:
            raise ChainError(f"{self.path}: the writer is closed; resume_chain opens it again")
        began = time.monotonic()
        draws, spin_rows = self._committed
        stop = ready[-1].stop if ready else draws
        try:
            with replacement(self._target, self._room(ready)) as part:
                self._write(part, ready, stop, complete)
        except (OSError, RuntimeError) as error:
            raise ChainError(
                f"{self.path}: {stop - draws} draws could not be committed ({reason(error)}); the file is whole "
                f"up to draw {draws}, the rest is kept in memory; mend this (disk space? quota?) and commit again"
            ) from error
        finally:
            self._last_commit = time.monotonic()
            self.seconds_of_last_commit = self._last_commit - began
        # An interrupt before this line is harmless: the next commit writes the same draws to the same place again.
        self._committed = (stop, spin_rows + sum(len(block.spin_draws) for block in ready))
        self._appended = self._pending
        self.complete = complete
        if "config" in self._attributes:
            self.config = json.loads(self._attributes["config"])
        self._tables, self._attributes, self._new_betas = {}, {}, False

    def _room(self, ready: list[_Block]) -> int:
        """Bytes to reserve for a commit: a generous bound."""
        draws, spin_draws = sum(b.stop - b.first for b in ready), sum(len(b.spin_draws) for b in ready)
        room = METADATA_ROOM + 2 * sum(table.nbytes for table in self._tables.values())
        for tail, dtype in self._shapes.values():
            room += layout.room_for(self.n_chains, tail, dtype.itemsize, draws)
        return room + layout.room_for(self.n_chains, self._spin_tail, self._spin_type.itemsize, spin_draws)

    def _write(self, part: Path, ready: list[_Block], stop: int, complete: bool) -> None:
        draws, spin_rows = self._committed
        # Nobody else knows this file, so HDF5 need not lock it (some network file systems refuse).
        with h5py.File(part, "r+", libver=FORMAT, locking=False) as file:
            if file.attrs.get("run_id") != self._run_id:
                raise OSError("another run has replaced the file")
            for group, name in self._shapes:
                self._extend(file[group][name], draws, [block.sampled[group, name] for block in ready])
            for group in layout.SAMPLED_GROUPS:
                layout.extend(file[group]["draw"], draws, np.arange(draws, stop))
            group = file["configurations"]
            self._extend(group["spins"], spin_rows, [block.spins for block in ready])
            spin_draws = np.concatenate([np.zeros(0, np.int64), *(block.spin_draws for block in ready)])
            layout.extend(group["spin_draw"], spin_rows, spin_draws)
            group.attrs.modify("committed_spin_draws", spin_rows + len(spin_draws))
            if self._new_betas:
                for name in (*layout.SAMPLED_GROUPS, "configurations"):
                    file[name]["beta"][...] = self.betas
            for path, table in self._tables.items():
                tables.write_table(file, path, table)
            for name, text in self._attributes.items():
                file.attrs[name] = text
            file.attrs.modify("complete", int(complete))
            file.attrs.modify("committed_draws", stop)

    @staticmethod
    def _extend(dataset: h5py.Dataset, start: int, rows: list[np.ndarray]) -> None:
        empty = np.zeros((dataset.shape[0], 0, *dataset.shape[2:]), dataset.dtype)
        layout.extend(dataset, start, np.concatenate([empty, *rows], axis=1))

    def close(self) -> None:
        """Give the lock back. Does not commit: what is pending is lost. Harmless when done before."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None
