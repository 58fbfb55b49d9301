"""Reading a chain file, finished or still growing; how it is laid out is said in `mc.chain`."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mc import chain_layout as layout
from mc import chain_tables as tables
from mc.chain_hamiltonian import read_hamiltonian
from mc.chain_layout import opened
from mc.chain_lock import ChainError
from mc.hamiltonian import Hamiltonian
from mc.vector.hamiltonian import VectorHamiltonian


def open_chain(path: str | os.PathLike) -> Chain:
    """Read a chain file, finished or still growing; raises ChainError when it is none.

    The file is not kept open: what you see is the chain as committed when you called this.
    """
    return Chain(path)


class Sampled(Mapping):
    """The sampled variables of one group by name; each access reads (chain, draw, beta, own axes ...) anew."""

    def __init__(self, names: list[str], read: Callable[[str], np.ndarray]):
        self._names, self._read = names, read

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._names:
            raise KeyError(name)
        return self._read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"Sampled({', '.join(self._names)})"


class Chain:
    """A chain file, read only, as it was committed when it was opened; made by `open_chain`.

    config, mode, command, rng_seed, complete, attributes: from the root of the file. betas: (B,).
    n_draws, n_chains, n_spins: numbers of committed draws per chain, of chains, of spins. asked_draws: how many a
        chain is to have, -1 where that is not known.
    seconds: CPU seconds of all threads, {build, train, sample}, without imports and compilation; NaN if not counted.
    posterior, sample_stats: {name: (chain, draw, beta, own axes ...)}, read when asked for.
    observables: {name: {"mean": (B, ...), "error": ..., ...}}. diagnostics, training: {name: array}.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        with opened(path) as file:
            self.attributes = dict(file.attrs)
            self._run_id = file.attrs["run_id"]
            self.mode: str = file.attrs["mode"]
            self.command: str = file.attrs["command"]
            self.config: dict[str, Any] = json.loads(file.attrs["config"])
            self.rng_seed = int(file.attrs["rng_seed"])
            self.complete = bool(file.attrs["complete"])
            self.seconds = layout.seconds_of(file.attrs)
            self.asked_draws = int(file.attrs.get("asked_draws", -1))
            self.n_draws, self._spin_rows = committed_lengths(file)
            self.betas: np.ndarray = file["posterior/beta"][()]
            self.n_chains = len(file["posterior/chain"])
            self.n_spins = int(file["hamiltonian"].attrs["n_spins"])
            self.posterior = self._sampled(file, "posterior")
            self.sample_stats = self._sampled(file, "sample_stats")
            # Small, and replaced by every commit: read at once, so that they belong to the draws seen here.
            self.observables = {name: tables.read_table(group) for name, group in file["observables"].items()}
            self.diagnostics = tables.read_table(file["diagnostics"])
            self.training = tables.read_table(file["training"])

    def __repr__(self) -> str:
        state = "complete" if self.complete else "incomplete"
        return (
            f"Chain({self.path}, mode {self.mode}, {self.n_chains} chains x {self.n_draws} draws x "
            f"{len(self.betas)} temperatures, {state})"
        )

    @property
    def spins(self) -> np.ndarray:
        """Stored states (chain, spin_draw, beta, site), int8; `spin_draws` says which draws they are.

        Vector spins: (chain, spin_draw, beta, site, component), float32.
        """
        return self._rows("configurations/spins", self._spin_rows)

    @property
    def spin_draws(self) -> np.ndarray:
        """Numbers of the draws whose spins are stored, (spin_draw,) int64."""
        return self._rows("configurations/spin_draw", self._spin_rows)

    def hamiltonian(self) -> Hamiltonian | VectorHamiltonian:
        """The Hamiltonian that was sampled, rebuilt from its stored interactions."""
        with self._same_run() as file:
            return read_hamiltonian(file["hamiltonian"])

    def state(self, newest: bool = False) -> dict[str, np.ndarray | bytes]:
        """The sampler state after the last draw; {} when there is none.

        newest: that of a run which has gone on since the file was opened will do; else it raises ChainError.
        """
        with self._same_run() as file:
            if not newest and file.attrs["committed_draws"] != self.n_draws:
                raise ChainError(f"{self.path} has grown since it was opened; open it again for its state")
            return read_state(file)

    def own_axes(self, name: str) -> dict[str, np.ndarray]:
        """{axis: coordinates} of the axes of a posterior variable after (chain, draw, beta); 0, 1, ... where it has
        none.
        """
        with self._same_run() as file:
            group = file["posterior"]
            own = layout.axes_of(group[name])[3:]
            bare = {axis: tables.is_bare_axis(group[axis]) for axis in own}
            return {axis: np.arange(len(group[axis])) if bare[axis] else group[axis][()] for axis in own}

    def group_attributes(self, name: str) -> dict[str, Any]:
        """Attributes of a group, such as "diagnostics" or "observables/energy"."""
        with self._same_run() as file:
            if name not in file:
                raise ChainError(f"{self.path} has no group {name}")
            return dict(file[name].attrs)

    def _sampled(self, file: h5py.File, group: str) -> Sampled:
        return Sampled(layout.sampled_names(file[group]), lambda name: self._rows(f"{group}/{name}", self.n_draws))

    def _rows(self, path: str, count: int) -> np.ndarray:
        with self._same_run() as file:
            dataset = file[path]
            axis = 0 if dataset.ndim == 1 else 1
            return layout.load(dataset, (slice(None),) * axis + (slice(0, count),))

    @contextlib.contextmanager
    def _same_run(self) -> Iterator[h5py.File]:
        """The file as it is now: it may have grown, but must still be the run that was opened."""
        with opened(self.path) as file:
            if file.attrs["run_id"] != self._run_id or file.attrs["committed_draws"] < self.n_draws:
                raise ChainError(f"{self.path} was replaced by another run since it was opened; open it again")
            yield file


def committed_lengths(file: h5py.File) -> tuple[int, int]:
    """(committed draws, committed rows of stored spins); raises ValueError when an array is shorter."""
    draws, spin_rows = int(file.attrs["committed_draws"]), int(file["configurations"].attrs["committed_spin_draws"])
    for group, count in (
        (file["posterior"], draws),
        (file["sample_stats"], draws),
        (file["configurations"], spin_rows),
    ):
        for name in layout.sampled_names(group):
            if group[name].shape[1] < count:
                raise ValueError(f"{group[name].name} has {group[name].shape[1]} of {count} committed draws")
    return draws, spin_rows


def read_state(file: h5py.File) -> dict[str, np.ndarray | bytes]:
    """The sampler state in a file; raises ValueError when it is not that of the last draw."""
    group = file["state"]
    if "draws" not in group.attrs:
        return {}
    if group.attrs["draws"] != file.attrs["committed_draws"]:
        raise ValueError("the sampler state is not that of the last draw")
    return {
        name: array.tobytes() if group[name].attrs["kind"] == "bytes" else array
        for name, array in tables.read_table(group).items()
    }
