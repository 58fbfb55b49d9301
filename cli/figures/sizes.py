"""Files of one model at several sizes, chains or ensembles, as the curves that are to cross."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cli.ensemble_physics import FEWEST, hamiltonian_of
from cli.ensemble_results import is_ensemble
from cli.ensemble_results import opened as opened_ensemble
from cli.figures import NotDrawn
from cli.figures.drawn import Column, Drawn
from mc.analysis import smallest_mode_length
from mc.disorder import disorder_average
from mc.ensemble import Ensemble
from mc.hamiltonian import Hamiltonian
from mc.spin_glass import correlation_length, glass_binder
from mc.statistics import jackknife

SIZE_KEYS = ("L", "Lx", "Ly", "Lz", "N", "seed", "shape", "path")  # what may differ between sizes of one model


@dataclass(frozen=True)
class Sized:
    """One file: its model without sizes, its size L (N without a lattice), and observables over betas (B,).

    columns: {name: Column}, as `mc.observables` calls them; of an ensemble ratios of the averaged moments.
    """

    path: Path
    model: str
    parameters: tuple[tuple[str, Any], ...]
    size: int
    symbol: str
    energy_unit: str
    betas: np.ndarray
    columns: dict[str, Column]

    @classmethod
    def of(cls, path: Path) -> Sized:
        """From a chain or an ensemble file; UserError for others."""
        if not is_ensemble(path):
            drawn = Drawn.of(path)
            columns = {}
            with contextlib.suppress(NotDrawn):  # a file that has none is no line
                columns = drawn.observables if drawn.n_draws else {}
            return cls._made(path, drawn.chain.config, drawn.hamiltonian, drawn.betas, columns)
        there = opened_ensemble(path)
        if not there.instances:
            return cls(path, str(there.config.get("model")), (), 0, "L", "J", np.zeros(0), {})
        hamiltonian = hamiltonian_of(there, there.instances[0])
        return cls._made(path, there.config, hamiltonian, there.summary.betas, _averaged(there, hamiltonian))

    @classmethod
    def _made(cls, path, config: dict, hamiltonian: Hamiltonian, betas, columns) -> Sized:
        rest = {key: value for key, value in config.get("parameters", {}).items() if key not in SIZE_KEYS}
        lattice = hamiltonian.lattice
        size, symbol = (max(lattice.shape), "L") if lattice else (hamiltonian.n_spins, "N")
        same = tuple(sorted((key, str(value)) for key, value in rest.items()))
        name = str(config.get("model", hamiltonian.name))
        return cls(path, name, same, size, symbol, hamiltonian.energy_unit, np.asarray(betas), columns)


def common_name(files: list[Sized]) -> str:
    """The model's name, or that of all models."""
    return "-".join(dict.fromkeys(one.model for one in files))


def _averaged(there: Ensemble, hamiltonian: Hamiltonian) -> dict[str, Column]:
    """Disorder averages, and g and xi / L of the averaged moments with jackknife errors over the samples."""
    values = {name: columns["mean"] for name, columns in there.summary.observables.items()}
    shape = there.summary.betas.shape
    found = {}
    for name, value in values.items():
        if value.shape[1:] == shape:
            average = disorder_average(value)
            found[name] = Column(average.mean, average.error)
    length = smallest_mode_length(hamiltonian)
    if len(there.instances) >= FEWEST and {"q2", "q4"} <= values.keys():
        moments = {"q2": values["q2"], "q4": values["q4"]}
        found["overlap_binder"] = _ratio(lambda m: glass_binder(m, hamiltonian.n_components), moments)
        if length and "overlap_k2" in values:
            moments = {"q2": values["q2"], "mode": values["overlap_k2"]}
            found["overlap_xi_over_length"] = _ratio(lambda m: correlation_length(m, length) / length, moments)
    return found


def _ratio(function, moments: dict[str, np.ndarray]) -> Column:
    """A function of averages over samples (sample, beta), NaN where noise leaves it undefined."""
    samples, betas = next(iter(moments.values())).shape
    mean, error = np.full(betas, np.nan), np.full(betas, np.nan)
    for b in range(betas):
        try:
            mean[b], error[b] = jackknife(function, {k: v[:, b, None] for k, v in moments.items()}, samples)
        except (ValueError, ZeroDivisionError):
            continue
    return Column(mean, error)
