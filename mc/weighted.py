"""Averages over independent weighted draws (neural importance sampling).

A model proposes configurations s with known log q(s); the target is p(s)/Z with known log p(s).  Then

    log_weight = log p(s) - log q(s),     Z = <w>_q,     <O>_p = <w O>_q / <w>_q.

``log_weight`` is dimensionless, of shape (chains, draws) or flat (n,); every entry counts as one
independent draw.  -inf (weight zero) is allowed.  All sums are taken relative to the largest weight,
so they neither overflow nor vanish.  With w~ = w / sum w the errors are those of the delta method:
A. Owen, Monte Carlo theory, methods and examples (2013), sec. 9.2; for ln Z and the effective sample size
of neural samplers K. Nicoli et al., Phys. Rev. E 101, 023304 (2020).

No error from weighted draws can see a region that the model never proposes.
"""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from mc.statistics import Estimate, Function, linearise

FEWEST_EFFECTIVE_DRAWS = 20  # below this the weights' own variance, hence the error, is not known


def effective_sample_size(log_weight) -> float:
    """Effective fraction of the draws, <w>^2 / <w^2>, in (0, 1]; 1 if all weights are equal (L. Kish 1965).

    Raises:
        ValueError: no draws; nan or +inf among ``log_weight``; every weight zero.
    """
    return _effective_draws(_normalised(log_weight)) / np.size(log_weight)


def largest_weight_share(log_weight) -> float:
    """Share of the largest weight in the sum of all, max w~, in [1/n, 1]; near 1 one draw decides all.

    Raises:
        ValueError: as ``effective_sample_size``.
    """
    return float(_normalised(log_weight).max())


def log_mean_weight(log_weight) -> tuple[float, float]:
    """ln <w>, the estimate of ln Z, with its one-sigma error sqrt(sum w~^2 - 1/n); both dimensionless.

    The estimate is low by about half the squared error (Jensen).  One draw alone has error nan.

    Raises:
        ValueError: as ``effective_sample_size``.
    """
    weight = _normalised(log_weight)
    log_weight = np.asarray(log_weight, np.float64)
    largest = log_weight.max()
    value = float(largest + np.log(np.exp(log_weight - largest).mean()))
    if weight.size == 1:
        return value, math.nan
    # The sum over (w~ - 1/n)^2 is the same number and does not cancel when the weights are equal.
    return value, math.sqrt(np.sum((weight - 1 / weight.size) ** 2))


def weighted_estimate(values, log_weight, name: str = "values") -> Estimate:
    """Self-normalised mean sum w~ O with error^2 = sum w~^2 (O - mean)^2 (Owen 2013, sec. 9.2).

    tau_int and r_hat are nan: the draws are independent.  n_eff is n times ``effective_sample_size``;
    below 20 the status is "too few effective draws" and the error nan.

    Args:
        values: the observable, real, in the shape of ``log_weight``; not read where the weight is zero,
            so a forbidden configuration may have an infinite energy.
        log_weight: (chains, draws) or (n,).
        name: of the observable, for the error.

    Raises:
        ValueError: as ``effective_sample_size``; other shape; nan or inf in ``values`` at a weight > 0.
    """
    weight = _normalised(log_weight)
    values = _supported(values, weight, name)
    centre = float(values.mean())  # so that a constant observable has no rounding
    mean = centre + float(np.sum(weight * (values - centre)))
    return _estimate(mean, values - mean, weight)


def weighted_entropy(energy, log_weight, beta: float) -> Estimate:
    """S = beta <E> + ln Z, in units of k_B, total, with the error of the sum: <E> and ln Z are of the same draws.

    To leading order S fluctuates as the mean of n w~ (beta (E - <E>) + 1) - 1 (delta method, as above).

    Args:
        energy: total, in the shape of ``log_weight``; not read where the weight is zero. beta: in 1 / energy unit.
        log_weight: (chains, draws) or (n,), ln w = -beta E - ln q.

    Raises:
        ValueError: as ``weighted_estimate``.
    """
    weight = _normalised(log_weight)
    energy = _supported(energy, weight, "energy")
    mean = weighted_estimate(energy, log_weight)
    if mean.status == "constant":  # the energy; the sum still has the error of ln Z
        mean = replace(mean, status="ok", advice="")
    log_z, _ = log_mean_weight(log_weight)
    deviation = beta * (energy - mean.mean) + 1.0
    error = math.sqrt(np.sum((weight * deviation - 1.0 / weight.size) ** 2))
    value = beta * mean.mean + log_z
    return replace(mean, mean=value, error=math.nan if math.isnan(mean.error) else error)


def weighted_function(function: Function, series: Mapping[str, object], log_weight) -> Estimate:
    """A function of several weighted means with its error by the delta method.

    f is linearised at the means by central differences (``mc.statistics.linearise``); the projected
    series sum_a (df/da)(a - <a>) then has the error of ``weighted_estimate``.

    Args:
        function: takes {name: weighted mean as float}, returns a float.
        series: {name: array in the shape of ``log_weight``}, measured on the same draws.
        log_weight: (chains, draws) or (n,).

    Returns:
        Estimate; status "not finite" if f or its gradient is undefined at the means.

    Raises:
        ValueError: no series, or as ``weighted_estimate``.
    """
    if not series:
        raise ValueError("series: need one or more")
    weight = _normalised(log_weight)
    series = {name: _supported(x, weight, name) for name, x in series.items()}
    value, projected, reason = linearise(function, series, weight)
    if reason:
        return Estimate(value, math.nan, n_draws=weight.size, status="not finite", advice=reason)
    return _estimate(value, projected, weight)


def _estimate(mean: float, deviation: np.ndarray, weight: np.ndarray) -> Estimate:
    """Estimate with error^2 = sum w~^2 deviation^2, unless too few draws carry the weight."""
    n_eff = _effective_draws(weight)
    error = math.sqrt(np.sum((weight * deviation) ** 2))
    status, advice = "ok", ""
    if n_eff < FEWEST_EFFECTIVE_DRAWS:
        error, status = math.nan, "too few effective draws"
        needed = math.ceil(FEWEST_EFFECTIVE_DRAWS / n_eff * weight.size)
        share = f"one draw carries {weight.max():.0%} of the weight"
        advice = f"{share}: take at least {needed} draws or train the model further"
    elif np.ptp(deviation[weight > 0]) == 0:
        error, status = 0.0, "constant"
        advice = "every draw gives the same value: check the observable and the model"
    return Estimate(mean, error, n_eff=n_eff, n_draws=weight.size, status=status, advice=advice)


def _normalised(log_weight) -> np.ndarray:
    """w~ = w / sum w in the shape of ``log_weight``, float64."""
    log_weight = np.asarray(log_weight, np.float64)
    if log_weight.ndim not in (1, 2) or log_weight.size == 0:
        raise ValueError(f"log_weight: need shape (n,) or (chains, draws) with draws, got {log_weight.shape}")
    bad = np.isnan(log_weight) | (log_weight == np.inf)
    if bad.any():
        raise ValueError(f"log_weight: {bad.sum()} of {bad.size} are nan or +inf")
    largest = log_weight.max()
    if largest == -np.inf:
        raise ValueError("log_weight: every weight is zero (-inf), no draw is in the support of the target")
    weight = np.exp(log_weight - largest)
    return weight / weight.sum()


def _effective_draws(weight: np.ndarray) -> float:
    """1 / sum w~^2, between 1 and n; the minimum only removes rounding."""
    return min(float(1 / np.sum(weight**2)), float(weight.size))


def _supported(values, weight: np.ndarray, name: str) -> np.ndarray:
    """``values`` as float64 in the shape of ``weight``; zero weights get the value of the largest weight."""
    values = np.asarray(values)
    if values.shape != weight.shape or values.dtype.kind not in "biuf":
        got = f"got {values.dtype} {values.shape}"
        raise ValueError(f"{name}: need real numbers in the shape of log_weight, {weight.shape}, {got}")
    values = np.where(weight > 0, values, values.flat[weight.argmax()]).astype(np.float64)
    bad = ~np.isfinite(values)
    if bad.any():
        raise ValueError(f"{name}: {bad.sum()} of {bad.size} values with a weight are nan or inf")
    return values
