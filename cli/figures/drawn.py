"""What figures need of a chain file, one temperature at a time, so that a long run fits in memory."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import h5py
import numpy as np

from cli.errors import UserError
from cli.figures import NotDrawn
from cli.results import judged, opened
from mc import chain_layout as layout
from mc.analysis import WEIGHTED, Results
from mc.chain import Chain
from mc.chain_reader import read_state
from mc.hamiltonian import Hamiltonian

INDEPENDENT = {
    "nis": "draw",
    "prior": "draw",
    "anneal": "anneal",
    "neural-anneal": "anneal",
    "population": "member",
    "sequential": "member",
}
SHOWN = ("energy", "magnetization", "overlap", "overlap_norm")  # variables whose draws figures show
ROWS_AT_ONCE = 2**22  # numbers of a variable read at once


@dataclass(frozen=True)
class Column:
    """An observable over the temperatures: mean and one standard error, (B,), NaN where there is none."""

    mean: np.ndarray
    error: np.ndarray


class Drawn:
    """A chain file as figures see it. Arrays are float64; results are those in the file, or worked out anew."""

    def __init__(self, chain: Chain):
        self.chain = chain
        self.path, self.betas, self.n_draws = chain.path, chain.betas, chain.n_draws
        self.name = Path(chain.path).stem
        self._read = lru_cache(maxsize=3)(self._read_one)  # the same series serves several figures

    @classmethod
    def of(cls, path: Path) -> Drawn:
        """UserError where the file is no chain file."""
        return cls(opened(path))

    @cached_property
    def hamiltonian(self) -> Hamiltonian:
        return self.chain.hamiltonian()

    @property
    def n_spins(self) -> int:
        return self.chain.n_spins

    @property
    def unit(self) -> str:
        """The energy unit as it stands in a label."""
        return "J" if self.hamiltonian.energy_unit == "J" else rf"\mathrm{{{self.hamiltonian.energy_unit}}}"

    @property
    def inverse_unit(self) -> str:
        return f"1/{self.unit}"

    @property
    def draw_word(self) -> str:
        """What the second axis counts: draws of a Markov chain, or independent things."""
        return INDEPENDENT.get(self.chain.mode, "draw")

    @property
    def weighted(self) -> bool:
        return self.chain.mode in WEIGHTED and "log_weight" in self.chain.sample_stats

    def beta_label(self, b: int) -> str:
        return rf"$\beta = {self.betas[b]:.4g}$"

    def has(self, name: str) -> bool:
        return name in self.chain.posterior

    def series(self, name: str, b: int, group: str = "posterior") -> np.ndarray:
        """A variable at one beta, (chain, draw, own axes ...); do not write into it."""
        return self._read(group, name, b)

    def replicas_as_chains(self, name: str, b: int) -> np.ndarray:
        """(chain * replica, draw): replicas, or pairs of them, as further chains."""
        values = self.series(name, b)
        if values.ndim == 2:
            return values
        return np.moveaxis(values.reshape(*values.shape[:2], -1), 2, 1).reshape(-1, values.shape[1])

    def log_weight(self, b: int) -> np.ndarray | None:
        """(chain, draw) of the draws themselves, None where they carry no weights."""
        return self.series("log_weight", b, "sample_stats") if self.weighted else None

    def mean_over_draws(self, name: str) -> np.ndarray:
        """Mean over draws of a sample statistic, (chain, beta), entries that are NaN left out; NaN where all are."""
        total, count = 0.0, 0
        for _, block in self._blocks(f"sample_stats/{name}"):
            there = np.isfinite(block)
            total, count = total + np.where(there, block, 0.0).sum(1), count + there.sum(1)
        return np.where(np.asarray(count) > 0, total / np.maximum(count, 1), np.nan)

    def not_finite(self) -> list[str]:
        """A line for each of the drawn variables that is nan or inf somewhere: how often, and where first."""
        lines = []
        for name in filter(self.has, SHOWN):
            count, total, place = 0, 0, None
            for first, block in self._blocks(f"posterior/{name}"):
                bad = ~np.isfinite(block)
                count, total = count + int(bad.sum()), total + bad.size
                if place is None and bad.any():
                    draws = bad.reshape(*bad.shape[:2], -1).any(axis=2)
                    draw = int(np.argmax(draws.any(axis=0)))
                    place = int(np.argmax(draws[:, draw])), first + draw
            if place is not None:
                lines.append(f"{count} of {total} draws of {name} {'is' if count == 1 else 'are'} nan or inf, "
                             f"the first in chain {place[0]} at draw {place[1]}")  # fmt: skip
        return lines

    def spins(self, rows: list[int], b: int) -> np.ndarray:
        """Stored states of chain 0 (of its first replica) at one beta, (row, site) int8."""
        with self._file() as file:
            dataset = file["configurations/spins"]
            states = np.asarray(dataset[0, rows, b])
        return states.reshape(len(rows), -1, self.n_spins)[:, 0]

    def state(self) -> dict[str, np.ndarray | bytes]:
        """The sampler state in the file, {} without."""
        with self._file() as file:
            return read_state(file)

    @cached_property
    def results(self) -> Results:
        """Everything worked out anew, which of a long run takes a while; UserError where the statistics refuse it."""
        return judged(self.chain)

    @property
    def results_to_draw(self) -> Results:
        """The same within a figure: NotDrawn where the statistics refuse it."""
        try:
            return self.results
        except UserError as why:  # draws that are not finite
            raise NotDrawn(str(why), wanting=True) from why

    @cached_property
    def observables(self) -> dict[str, Column]:
        """{name: mean and error over the temperatures}; NotDrawn where the statistics refuse the draws."""
        shape = self.betas.shape
        stored = {
            name: Column(table["mean"], table["error"])
            for name, table in self.chain.observables.items()
            if np.shape(table.get("mean")) == shape and np.shape(table.get("error")) == shape
        }
        if stored and self.chain.complete:  # of a run that goes on they may be those of fewer draws
            return stored
        return {
            name: Column(np.array([e.mean for e in estimates]), np.array([e.error for e in estimates]))
            for name, estimates in self.results_to_draw.observables.items()
        }

    def exact(self, name: str) -> np.ndarray:
        """Exact values of "energy" or "log_z" over the temperatures where the file has them, (B,), else NaN."""
        found = self.chain.diagnostics.get(f"{name}_exact")
        if np.shape(found) == self.betas.shape:
            return np.asarray(found, np.float64)
        return np.full(self.betas.shape, np.nan)

    def _blocks(self, path: str) -> Iterator[tuple[int, np.ndarray]]:
        """(number of the first draw, (chain, some draws, beta ...)) of a variable, all temperatures at once."""
        with self._file() as file:
            dataset = file[path]
            step = max(1, ROWS_AT_ONCE // max(1, dataset.shape[0] * math.prod(dataset.shape[2:])))
            for first in range(0, self.n_draws, step):
                yield first, np.asarray(dataset[:, first : min(first + step, self.n_draws)], np.float64)

    def _read_one(self, group: str, name: str, b: int) -> np.ndarray:
        with self._file() as file:
            return np.asarray(file[f"{group}/{name}"][:, : self.n_draws, b], np.float64)

    @contextlib.contextmanager
    def _file(self) -> Iterator[h5py.File]:
        """The file, open; UserError when another run has replaced it in the meantime."""
        with layout.opened(self.path) as file:
            if file.attrs["run_id"] != self.chain.attributes["run_id"]:
                raise UserError(f"{self.path} was replaced by another run in the meantime; do it again")
            yield file
