"""Comma-separated values: a row a (chain, draw, beta), or of an ensemble a row an (instance, beta)."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable
from pathlib import Path

import h5py
import numpy as np

from mc.chain_layout import load
from mc.disorder import COLUMNS
from mc.ensemble import open_ensemble
from mc.export.snapshot import bytes_a_draw, pieces, snapshot

FIRST_OF_CHAIN = ("chain", "draw", "beta")
FIRST_OF_ENSEMBLE = ("instance", "beta", "fingerprint", "rng_seed", "chains", "draws")


def write_csv(source: str | os.PathLike, path: str | os.PathLike) -> None:
    """Write all scalars of `posterior` and `sample_stats`, (chain, draw, beta) running in this order.

    Columns are chain, draw, beta (1 / energy unit) and the variables by name; one with own axes has a column for each
    entry, name[0], name[1] or name[0][1]. A name that both groups have stands as sample_stats/name for the second.
    Numbers have all the digits that give the same float64 back, truth values are 0 and 1, others nan, inf and -inf.
    Read with `pandas.read_csv(path)`; old versions of pandas need float_precision="round_trip" for the last bit.

    Not written: spins, results and configuration. Memory: blocks of draws. Raises ChainError, OSError.
    """
    with snapshot(source) as now, Path(path).open("w", encoding="utf-8", newline="") as text:
        variables = now.sampled()
        names = list(FIRST_OF_CHAIN)
        for place, dataset in variables.items():
            group, name = place.split("/")
            taken = group == "sample_stats" and f"posterior/{name}" in variables
            names += entries(place if taken else name, dataset.shape[3:])
        text.write(",".join(names) + "\n")
        betas = [repr(float(beta)) for beta in now.file["posterior/beta"][()]]
        a_draw = sum(bytes_a_draw(dataset) for dataset in variables.values())
        for chain in range(now.chains):
            for part in pieces(now.draws, a_draw):
                text.writelines(_lines(chain, part, betas, variables.values()))


def entries(name: str, shape: tuple[int, ...]) -> list[str]:
    """Names of the entries of a variable with own axes of these lengths."""
    return [name + "".join(f"[{i}]" for i in index) for index in itertools.product(*map(range, shape))]


def _lines(chain: int, part: slice, betas: list[str], variables: Iterable[h5py.Dataset]) -> Iterable[str]:
    """The rows of some draws of one chain."""
    n = part.stop - part.start
    columns = [[repr(draw) for draw in range(part.start, part.stop) for _ in betas], betas * n]
    for dataset in variables:
        values = load(dataset, (chain, part))
        values = values.astype(np.int8) if values.dtype == np.bool_ else values
        values = values.reshape(n * len(betas), int(np.prod(dataset.shape[3:], dtype=np.int64)))
        columns += [[repr(value) for value in column] for column in values.T.tolist()]
    return (f"{chain},{','.join(row)}\n" for row in zip(*columns, strict=True))


def write_summary_csv(source: str | os.PathLike, path: str | os.PathLike) -> None:
    """Write the summary of an ensemble file: mean, error and R-hat of every observable of every instance.

    Columns are instance, beta (1 / energy unit), fingerprint, rng_seed, chains, draws, and NAME, NAME_error and
    NAME_r_hat; observables with own axes, such as P(q), are left out. Raises ChainError, OSError.
    """
    summary = open_ensemble(source).summary
    observables = {name: columns for name, columns in summary.observables.items() if np.ndim(columns["mean"]) == 2}
    names = [name if column == "mean" else f"{name}_{column}" for name in observables for column in COLUMNS]
    with Path(path).open("w", encoding="utf-8", newline="") as text:
        text.write(",".join([*FIRST_OF_ENSEMBLE, *names]) + "\n")
        for i, instance in enumerate(summary.instances.tolist()):
            counts = [int(values[i]) for values in (summary.rng_seeds, summary.chains, summary.draws)]
            for b, beta in enumerate(summary.betas.tolist()):
                values = [float(columns[column][i, b]) for columns in observables.values() for column in COLUMNS]
                text.write(f"{instance},{beta!r},{summary.fingerprints[i]},")
                text.write(",".join(map(repr, counts + values)) + "\n")
