"""Disorder averages: what many samples of the same model have in common, and how far apart they lie.

An average over instances is the mean of their values, its error the scatter of these values over the square root of
their number. That scatter holds both the sample-to-sample fluctuations and the thermal errors of the instances, which
are independent because their random streams are; no thermal error has to be added.

A function of averages is not the average of the function: [m4] / [m2]^2 is had from the averages of m2 and m4, while
the average of `binder` is that of the instances' own cumulants.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import h5py
import numpy as np

from mc.chain_layout import load
from mc.chain_tree import axes_in
from mc.statistics import R_HAT_LIMIT

COLUMNS = ("mean", "error", "r_hat")


class Row(NamedTuple):
    """One instance: which it is, what was drawn, and its observables {name: {column: (B, ...)}} with their axes."""

    instance: int
    fingerprint: str
    run_id: str
    rng_seed: int
    chains: int
    draws: int
    betas: np.ndarray
    observables: dict[str, dict[str, np.ndarray]]
    axes: dict[str, tuple[str, ...]]


class Average(NamedTuple):
    """A disorder average at each beta: arrays (B, ...).

    mean, error: in the units of the observable; error is nan with fewer than two samples. spread: standard deviation
    of the instances. samples: instances that count, those with a finite value.
    """

    mean: np.ndarray
    error: np.ndarray
    spread: np.ndarray
    samples: np.ndarray


class Worst(NamedTuple):
    """The largest R-hat of an ensemble and where it is."""

    r_hat: float
    observable: str
    instance: int
    beta: float


@dataclass(frozen=True)
class Summary:
    """One row an instance, in the order of their numbers.

    instances, rng_seeds, chains, draws: (I,) int64. fingerprints, run_ids: (I,) texts. betas: (B,).
    observables: {name: {"mean", "error", "r_hat": (I, B, ...)}}, nan where an instance does not have it.
    axes: {name: names of the axes after the instance}.
    """

    instances: np.ndarray
    fingerprints: tuple[str, ...]
    run_ids: tuple[str, ...]
    rng_seeds: np.ndarray
    chains: np.ndarray
    draws: np.ndarray
    betas: np.ndarray
    observables: dict[str, dict[str, np.ndarray]]
    axes: dict[str, tuple[str, ...]]

    def averages(self) -> dict[str, Average]:
        """The disorder average of every observable."""
        return {name: disorder_average(columns["mean"]) for name, columns in self.observables.items()}

    def worst(self) -> Worst | None:
        """The largest R-hat (inf included); None when there is none at all."""
        found = None
        for name, columns in self.observables.items():
            r_hat = columns["r_hat"]
            if r_hat.size == 0 or np.isnan(r_hat).all():
                continue
            i, b = np.unravel_index(np.nanargmax(r_hat), r_hat.shape)[:2]
            value = float(np.nanmax(r_hat))
            if found is None or value > found.r_hat:
                found = Worst(value, name, int(self.instances[i]), float(self.betas[b]))
        return found

    def worst_of_instances(self) -> np.ndarray:
        """The largest R-hat of each instance, (I,); nan where there is none."""
        worst = np.full(len(self.instances), math.nan)
        for columns in self.observables.values():
            for i, r_hat in enumerate(columns["r_hat"]):
                worst[i] = np.fmax(worst[i], np.fmax.reduce(r_hat, axis=None, initial=math.nan))
        return worst

    def unconverged(self) -> list[int]:
        """Numbers of the instances in which some R-hat exceeds 1.05."""
        return [int(n) for n, r_hat in zip(self.instances, self.worst_of_instances(), strict=True)
                if r_hat > R_HAT_LIMIT]  # fmt: skip


def disorder_average(values: np.ndarray) -> Average:
    """The average over the first axis of values (I, B, ...); entries that are not finite do not count."""
    values = np.asarray(values, np.float64)
    counted = np.isfinite(values)
    samples = counted.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(counted, values, 0.0).sum(axis=0) / samples
        squares = np.where(counted, values - mean, 0.0) ** 2
        spread = np.where(samples > 1, np.sqrt(squares.sum(axis=0) / (samples - 1)), math.nan)
        return Average(mean, spread / np.sqrt(samples), spread, samples)


def row_of(instance: int, tree: h5py.Group) -> Row:
    """The row of a chain tree: the root of a chain file, or its copy in an ensemble."""
    observables: dict[str, dict[str, np.ndarray]] = {}
    axes: dict[str, tuple[str, ...]] = {}
    for name, group in tree["observables"].items():
        observables[name] = {column: load(group[column]) for column in COLUMNS}
        axes[name] = axes_in(group)["mean"]
    root = tree.attrs
    return Row(
        instance, tree["hamiltonian"].attrs["fingerprint"], root["run_id"], int(root["rng_seed"]),
        len(tree["posterior/chain"]), int(root["committed_draws"]), tree["posterior/beta"][()], observables, axes,
    )  # fmt: skip


def summarise(rows: Iterable[Row]) -> Summary:
    """Rows of instances side by side, sorted by number; ValueError for different betas, or a number given twice."""
    rows = sorted(rows, key=lambda row: row.instance)
    numbers = [row.instance for row in rows]
    if len(set(numbers)) != len(numbers):
        raise ValueError("an instance is there twice")
    if not rows:
        empty = np.zeros(0, np.int64)
        return Summary(empty, (), (), empty, empty, empty, np.zeros(0), {}, {})
    betas = rows[0].betas
    for row in rows:
        if not np.array_equal(row.betas, betas):
            raise ValueError(f"instance {row.instance} has other temperatures than instance {rows[0].instance}")
    observables, axes = {}, {}
    for name in dict.fromkeys(name for row in rows for name in row.observables):
        first = next(row for row in rows if name in row.observables)
        axes[name] = first.axes[name]
        shape = first.observables[name]["mean"].shape
        observables[name] = {column: _side_by_side(rows, name, column, shape) for column in COLUMNS}
    return Summary(
        np.array(numbers, np.int64), tuple(row.fingerprint for row in rows), tuple(row.run_id for row in rows),
        *(np.array([getattr(row, field) for row in rows], np.int64) for field in ("rng_seed", "chains", "draws")),
        betas, observables, axes,
    )  # fmt: skip


def _side_by_side(rows: Sequence[Row], name: str, column: str, shape: tuple[int, ...]) -> np.ndarray:
    values = np.full((len(rows), *shape), math.nan)
    for i, row in enumerate(rows):
        given = row.observables.get(name, {}).get(column)
        if given is not None and given.shape == shape:
            values[i] = given
    return values


def shared_part(config: dict[str, Any]) -> dict[str, Any]:
    """What a configuration has in common with those of other instances and other random streams of the same law."""
    own = ("fingerprint", "rng_seed", "chains", "kernel")
    shared = {key: value for key, value in config.items() if key not in own}
    # Which couplings were dealt or read is what tells instances apart.
    shared["parameters"] = {k: v for k, v in config.get("parameters", {}).items() if k not in ("seed", "path")}
    shared["settings"] = {k: v for k, v in config.get("settings", {}).items() if k not in ("spins.every", "kernel")}
    return json.loads(json.dumps(shared))  # tuples as the lists they are in a file
