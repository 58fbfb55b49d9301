"""HDF5 files as the programs of the ALPS project leave them, for `pyalps.loadMeasurements`.

The layout is that of ALPS 2 and 3 (B. Bauer et al., J. Stat. Mech. P05001 (2011); its `alps::alea::mcdata`).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mc.analysis import WEIGHTED, kelvin, smallest_mode_length
from mc.chain import Chain, open_chain
from mc.export.csv_rows import entries
from mc.export.snapshot import SCHEMA_OF_EXPORTS
from mc.models.alloy import fixed_variables
from mc.observables import summarize
from mc.statistics import Estimate, estimate


def write_alps(source: str | os.PathLike, paths: Sequence[str | os.PathLike]) -> None:
    """Write a chain file as one ALPS result file a beta, in the order of the betas.

    /parameters: those of the model by their names; MODEL, N (spins), BETA (1 / energy unit), T (kelvin for models in
    eV, else in the energy unit; not at beta = 0), SWEEPS (draws of a chain), THERMALIZATION, SEED.
    /simulation/results/NAME: of every observable count (draws of all chains), mean/value, mean/error, and tau/value
    where there is one. tau is that of ALPS, 0 for independent draws: tau_int - 1/2. Names, errors and units are ours:
    `energy` is total, `magnetization` that of a spin.
    Sampled variables also have timeseries/data, the draws of chain 0, then of chain 1, ..., in bins of one draw; one
    with own axes (replicas) has a result for each entry, name[0], name[1], beside the mean over all. Bins of one draw
    are correlated: before ALPS computes a function of them, widen the bins (`set_bin_size`) beyond tau.

    Draws with weights (modes nis and prior) have means and errors and no timeseries, whose plain mean would be wrong.
    Not written: spins, `sample_stats`, results that are arrays, and what makes ALPS go on with a run.

    Raises ChainError, OSError; ValueError when there are no draws.
    """
    chain = open_chain(source)
    if not chain.n_draws:
        raise ValueError(f"{source} has no draws yet")
    weighted = chain.mode in WEIGHTED
    log_weight = chain.sample_stats["log_weight"] if weighted else None
    posterior = {name: chain.posterior[name] for name in chain.posterior}
    hamiltonian = chain.hamiltonian()
    length = smallest_mode_length(hamiltonian)
    fixed = fixed_variables(hamiltonian)
    observables = summarize(posterior, chain.n_spins, chain.betas, log_weight, length, fixed)
    for b, path in enumerate(paths):
        with h5py.File(path, "w") as out:
            out.attrs["schema"] = SCHEMA_OF_EXPORTS
            out.attrs["exported_from"] = Path(source).name
            group = out.create_group("parameters")
            for name, value in _parameters(chain, b, hamiltonian.k_B).items():
                group[name] = value
            results = out.create_group("simulation/results")
            count = chain.n_chains * chain.n_draws
            for name, estimates in observables.items():
                _result(results.create_group(name), estimates[b], count)
            for name, values in {} if weighted else posterior.items():
                series = values[:, :, b]
                if series.ndim == 2:
                    if name not in results:  # an overlap, of which there are only functions
                        _result(results.create_group(name), estimate(series), count)
                    _series(results[name], series)
                    continue
                flat = series.reshape(*series.shape[:2], -1)
                for entry, own in zip(entries(name, series.shape[2:]), np.moveaxis(flat, -1, 0), strict=True):
                    _result(results.create_group(entry), estimate(own), count)
                    _series(results[entry], own)


def _parameters(chain: Chain, b: int, k_B: float) -> dict[str, Any]:
    """Numbers and texts that name the run."""
    beta = float(chain.betas[b])
    model = chain.config.get("parameters") or {}
    found = {
        name: value if isinstance(value, int | float | str) else json.dumps(value) for name, value in model.items()
    }
    found |= {"MODEL": str(chain.config.get("model", "")), "N": chain.n_spins, "BETA": beta}
    found |= {"T": float(kelvin(beta, k_B))} if beta > 0 else {}
    found |= {"SWEEPS": chain.n_draws, "SEED": chain.rng_seed}
    warmup = chain.config.get("warmup")
    return found | ({} if warmup is None else {"THERMALIZATION": warmup})


def _result(group: h5py.Group, found: Estimate, count: int) -> None:
    """Number, mean and error of an observable; ALPS asks for scalars of these types."""
    group.attrs["cannotrebin"] = np.int8(0)
    group["count"] = np.uint64(count)
    group["mean/value"] = float(found.mean)
    group["mean/error"] = float(found.error)
    if math.isfinite(found.tau_int):
        group["tau/value"] = float(found.tau_int) - 0.5


def _series(group: h5py.Group, series: np.ndarray) -> None:
    """The draws (chain, draw) of all chains, one after the other, as bins of one draw."""
    data = group.create_dataset("timeseries/data", data=np.ascontiguousarray(series, np.float64).ravel())
    data.attrs["binningtype"] = "linear"
    data.attrs["binsize"] = np.uint64(1)
    data.attrs["maxbinnum"] = np.uint64(0)
