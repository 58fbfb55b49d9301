"""From time series of energy, magnetization and overlaps to a table of observables with errors."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from mc.spin_glass import correlation_length_estimate, over_axes, overlap_observables, scaled
from mc.statistics import Estimate, estimate, estimate_function
from mc.weighted import weighted_estimate, weighted_function

OF_PAIRS = ("overlap", "overlap_norm", "link_overlap")  # which `overlap_observables` make more of


def summarize(
    posterior: Mapping[str, np.ndarray],
    n_spins: int,
    betas: np.ndarray,
    log_weight: np.ndarray | None = None,
    length: int | None = None,
    fixed: Collection[str] = (),
    n_components: int = 1,
) -> dict[str, list[Estimate]]:
    """Observables of every beta, {name: one Estimate a beta}.

    posterior: variables (chain, draw, beta, own axes ...); `energy` (total, energy unit) and `magnetization`
        (m = sum s / N) make the observables below, each where its variable is there, `overlap` those of
        `mc.spin_glass`, and any other variable gets its mean. Own axes (replicas, pairs of them) are averaged over
        draw by draw, after powers are taken.
    n_spins: N. betas: (B,) in 1 / energy unit. log_weight: (chain, draw, beta) for draws that carry weights
        (independent ones, `mc.weighted`), None for Markov chains (`mc.statistics`). length: L of the smallest wave
        vector 2 pi / L, where there is a `magnetization_k2` or `overlap_k2`. fixed: variables that every state has
        alike (`mc.models.alloy.fixed_variables`): their value is exact, and functions of them are left out.
        n_components: of a spin.

    energy, magnetization, abs_magnetization = <|m|>, m2, m4, binder = 1 - m4 / (3 m2^2),
    heat_capacity = beta^2 (<E^2> - <E>^2), total and in units of k_B; of an alloy E has its - h sum s in it,
    susceptibility = beta N (<m^2> - <|m|>^2), per site, in 1 / energy unit,
    correlation_length in lattice spacings (second moment) and xi_over_length = the same / L.

    Raises ValueError for shapes that do not match, and where the statistics do.
    """
    betas = np.atleast_1d(np.asarray(betas, np.float64))
    weights = {} if log_weight is None else {"log_weight": log_weight}
    arrays = {name: np.asarray(values) for name, values in {**posterior, **weights}.items()}
    for name, values in arrays.items():
        if values.ndim < 3 or values.shape[2] != len(betas):
            raise ValueError(f"{name}: shape {values.shape}, (chain, draw, {len(betas)} betas) is needed")
    weight = arrays.pop("log_weight", None) if weights else None
    table: dict[str, list[Estimate]] = {}
    for name in set(fixed) & set(arrays):
        values = arrays.pop(name)
        table[name] = [Estimate(float(values.flat[0]), 0.0, n_draws=values[:, :, 0].size)] * len(betas)
    for b, beta in enumerate(betas):
        series = {name: values[:, :, b] for name, values in arrays.items()}
        own = None if weight is None else weight[:, :, b]
        one = summarize_one(series, n_spins, float(beta), own, length, n_components)
        for name, value in one.items():
            table.setdefault(name, []).append(value)
    return table


def summarize_one(
    series: Mapping[str, np.ndarray],
    n_spins: int,
    beta: float,
    log_weight: np.ndarray | None = None,
    length: int | None = None,
    n_components: int = 1,
) -> dict[str, Estimate]:
    """The same for the draws (chain, draw, own axes ...) of one beta."""

    def mean(values, name="values"):
        return estimate(values, name) if log_weight is None else weighted_estimate(values, log_weight, name)

    def of_means(function, means):
        if log_weight is None:
            return estimate_function(function, means)
        return weighted_function(function, means, log_weight)

    plain = {name: values for name, values in series.items() if name not in OF_PAIRS or "overlap" not in series}
    table = {name: mean(over_axes(values), name) for name, values in plain.items()}
    if "magnetization" in series:
        table |= _of_magnetization(series["magnetization"], n_spins, beta, mean, of_means)
    if "energy" in series:
        table["heat_capacity"] = _heat_capacity(series["energy"], beta, of_means)
    if beta == 0:  # zero by definition, which no statistics need judge
        table |= {
            name: Estimate(0.0, 0.0, n_draws=table[name].n_draws)
            for name in ("heat_capacity", "susceptibility")
            if name in table
        }
    if "magnetization_k2" in series and length is not None:
        xi = correlation_length_estimate(series["magnetization"], series["magnetization_k2"], length)
        table["correlation_length"], table["xi_over_length"] = xi, scaled(xi, 1.0 / length)
    if "overlap" in series:
        optional = (series.get("link_overlap"), series.get("overlap_k2") if length is not None else None)
        table |= overlap_observables(
            series["overlap"], n_spins, *optional, length, series.get("overlap_norm"), n_components
        )
    return table


def _of_magnetization(magnetization: np.ndarray, n_spins: int, beta: float, mean, of_means) -> dict[str, Estimate]:
    """Moments of m and what they make. Each array goes as soon as it can: long chains fill the memory."""
    m = np.asarray(magnetization, np.float64)
    size, m2 = over_axes(np.abs(m)), over_axes(m**2)
    table = {"abs_magnetization": mean(size), "m2": mean(m2)}
    susceptibility = of_means(lambda a: beta * n_spins * (a["m2"] - a["abs"] ** 2), {"m2": m2, "abs": size})
    del size
    m4 = over_axes(np.square(m**2))
    table["m4"] = mean(m4)
    table["binder"] = of_means(lambda a: 1.0 - a["m4"] / (3.0 * a["m2"] ** 2), {"m2": m2, "m4": m4})
    table["susceptibility"] = susceptibility
    return table


def _heat_capacity(energy: np.ndarray, beta: float, of_means) -> Estimate:
    # <E^2> - <E>^2 of two numbers of order N^2 would lose the digits of a variance of order N.
    e = np.asarray(energy, np.float64)
    finite = np.isfinite(e)  # a state of weight zero may have an infinite energy
    e = e - (e[finite].mean() if finite.any() else 0.0)
    powers = {"e": over_axes(e), "e2": over_axes(e**2)}
    return of_means(lambda a: beta**2 * (a["e2"] - a["e"] ** 2), powers)
