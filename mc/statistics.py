"""Means, errors and autocorrelation times of Markov chains.

A series ``x`` has shape (chains, draws): independent chains of the same law, consecutive draws along
the second axis, initial transient already removed.  Times are counted in draws.  The integrated
autocorrelation time follows the physics convention,

    tau_int = 1/2 + sum_{t>=1} rho(t),        n_eff = n / (2 tau_int),

so that uncorrelated draws have tau_int = 1/2.

Sources
    U. Wolff, Comput. Phys. Commun. 156, 143 (2004), hep-lat/0306017: the Gamma method.
    A. Gelman et al., Bayesian Data Analysis, 3rd ed. (2013), sec. 11.4, and A. Vehtari et al.,
    Bayesian Anal. 16, 667 (2021), eqs. 1-4: the split R-hat.
Independent weighted draws are the subject of ``mc.weighted``.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mc.gamma_method import autocovariance, gamma_method, scatter

R_HAT_LIMIT = 1.05
HOPELESS_R_HAT = 2.0  # beyond, the chains have hardly met, and no length can be read off them
OTHER_MOVES = "use cluster moves or tempering"  # advice for chains that do not meet
ENOUGH_TAU = 50  # a chain of fewer integrated times than this is called short

GRAVEST_FIRST = ("not converged", "constant", "too few effective draws", "poor overlap", "not finite", "short")

Function = Callable[[dict[str, float]], float]


@dataclass(frozen=True)
class Estimate:
    """A mean with its one-sigma error, and whether that error can be believed.

    Attributes:
        mean: in the units of the series.
        error: one standard error of the mean, same units; nan where none can be given.
        tau_int: integrated autocorrelation time in draws, 0.5 if uncorrelated; nan if undefined; no more
            than a lower bound if the status is "short" or "not converged".
        tau_int_error: its one-sigma error; nan if the window of the sum never closed, or R-hat > 1.05.
        n_eff: effective number of independent draws, all chains together.
        r_hat: split R-hat; inf if the chains do not move and differ, nan if undefined.
        n_draws: number of draws, all chains together.
        status: "ok"; "short" (a chain is shorter than 50 tau_int); "not converged" (R-hat > 1.05);
            "constant" (the draws never change, nothing can be judged); "too few effective draws"
            (weighted draws, n_eff < 20); "poor overlap" (ln Z of a ladder whose neighbours hardly overlap);
            "not finite" (f or its gradient is undefined at the means).
        advice: one sentence saying what to do about the status, "" if it is "ok".
    """

    mean: float
    error: float
    tau_int: float = math.nan
    tau_int_error: float = math.nan
    n_eff: float = math.nan
    r_hat: float = math.nan
    n_draws: int = 0
    status: str = "ok"
    advice: str = ""


def gravest(statuses: Iterable[str]) -> str:
    """The gravest of several statuses of an Estimate; "ok" where there is no other."""
    statuses = set(statuses)
    return next((status for status in GRAVEST_FIRST if status in statuses), "ok")


def estimate(x, name: str = "x") -> Estimate:
    """Mean of a series with the error of the Gamma method (Wolff 2004) and the split R-hat beside it.

    The autocovariance is pooled over the chains about their common mean, summed up to Wolff's automatic
    window (S = 1.5) and corrected for its O(1/N) bias; where blocks of the chains scatter more than that, beyond
    chance, error and tau_int are those of the blocks (``mc.gamma_method``).  The Gamma method can only see what
    happened inside the chains, so where R-hat exceeds 1.05 the error is the larger of its own and of
    std(chain means) / sqrt(chains); a single chain is cut into its two halves for that purpose.

    Args:
        x: (chains, draws), real.  Any number of draws, also 0 or 1.
        name: of the series, for the error.

    Raises:
        ValueError: ``x`` is not two-dimensional, has no chain, or holds nan or inf.
    """
    x = as_series(x, name)
    chains, draws = x.shape
    if x.size > 1 and np.ptp(x) == 0:
        advice = "every draw is the same: check that moves are accepted, or start from other states"
        return Estimate(float(x[0, 0]), 0.0, n_draws=x.size, status="constant", advice=advice)
    if draws < 2:
        return _estimate_without_time(x)
    centre, scale, y = _standardise(x)
    pieces = _pieces(y)
    r_hat = _r_hat(pieces)
    rest = float(y.mean())
    y -= rest
    error, tau, tau_error, _, _ = gamma_method(y)
    if r_hat > R_HAT_LIMIT:
        error, tau_error = max(error, scatter(y if chains > 1 else np.stack(pieces))), math.nan
    status, advice = _verdict(r_hat, tau, draws)
    n_eff = x.size / (2 * tau)
    return Estimate(centre + scale * rest, scale * error, tau, tau_error, n_eff, r_hat, x.size, status, advice)


def estimate_function(function: Function, series: Mapping[str, object]) -> Estimate:
    """A function of several means, f(<a>, <b>, ...), with its error by the Gamma method.

    To leading order f(means) fluctuates as the mean of the projected series sum_a (df/da)(a - <a>)
    (Wolff 2004); ``estimate`` of that series gives error, tau_int, R-hat and status, so all
    correlations between the observables are kept.  The gradient is a central difference at the means.

    Args:
        function: takes {name: mean as float}, returns a float; for instance the Binder cumulant
            ``lambda a: 1 - a["m4"] / (3 * a["m2"] ** 2)``.
        series: {name: (chains, draws)}, all of one shape, measured on the same draws.

    Returns:
        Estimate; status "not finite" with nan mean and error if f is undefined at the means (or nan
        error only, if its gradient is).

    Raises:
        ValueError: no series, shapes that differ, or a series that ``estimate`` would refuse.
    """
    series = as_series_dict(series)
    first = next(iter(series.values()))
    if first.size == 0:
        return _estimate_without_time(first)
    value, projected, reason = linearise(function, series)
    if reason:
        return Estimate(value, math.nan, n_draws=first.size, status="not finite", advice=reason)
    result = replace(estimate(projected), mean=value)
    if result.status == "constant" and any(np.ptp(x) > 0 for x in series.values()):
        advice = "f does not respond to its arguments at their means: use a bootstrap if f is not constant"
        return replace(result, advice=advice)
    return result


def split_r_hat(x) -> float:
    """Potential scale reduction R-hat of chains cut into halves (Vehtari et al. 2021, eqs. 1-4, rank-free).

    Near 1 if the halves agree.  Halves that do not move give inf if they differ and nan if they are all
    the same.  Chains of 2 or 3 draws are compared whole; nan where there is nothing to compare.

    Args:
        x: (chains, draws), real.

    Raises:
        ValueError: as ``estimate``.
    """
    x = as_series(x, "x")
    return _r_hat(_pieces(_standardise(x)[2])) if x.shape[1] >= 2 else math.nan


def autocorrelation(x, lags: int) -> np.ndarray:
    """rho(t) for t = 0 .. lags, about the mean of all chains and averaged over their pairs; (lags + 1,).

    nan where the draws never change. Fewer lags where a chain is shorter.

    Args:
        x: (chains, draws), real.

    Raises:
        ValueError: as ``estimate``; no draws, or lags < 0.
    """
    x = as_series(x, "x")
    if lags < 0 or x.size == 0:
        raise ValueError(f"autocorrelation: {x.shape[1]} draws, {lags} lags; at least 1 and 0 are needed")
    lags = min(lags, x.shape[1] - 1)
    if np.ptp(x) == 0:
        return np.full(lags + 1, math.nan)
    y = _standardise(x)[2]
    gamma = autocovariance(y - y.mean(), lags)
    return gamma / gamma[0]


def jackknife(function: Function, series: Mapping[str, object], n_blocks: int = 64) -> tuple[float, float]:
    """A function of means with its delete-one-block jackknife error, to cross-check ``estimate_function``.

    Every chain is cut into n_blocks // chains (at least one) blocks of consecutive draws; the error is
    right if a block is much longer than tau_int.  Arguments as ``estimate_function``.

    Returns:
        (value, error): f at the means of all draws, not corrected for bias, and the jackknife error.

    Raises:
        ValueError: as ``estimate_function``; fewer than two blocks.  What ``function`` raises passes through.
    """
    series = as_series_dict(series)
    chains, draws = next(iter(series.values())).shape
    per_chain = min(max(1, n_blocks // chains), draws)
    if chains * per_chain < 2:
        raise ValueError(f"jackknife: two blocks are needed, got {chains} chain(s) of {draws} draws")
    starts = np.arange(per_chain) * draws // per_chain
    lengths = np.tile(np.diff(starts, append=draws), chains)
    left = {}
    for name, x in series.items():
        sums = np.add.reduceat(x, starts, axis=1).ravel()
        left[name] = (x.sum() - sums) / (x.size - lengths)
    blocks = range(len(lengths))
    values = np.array([function({name: float(means[b]) for name, means in left.items()}) for b in blocks])
    value = float(function({name: float(x.mean()) for name, x in series.items()}))
    return value, math.sqrt((len(values) - 1) * values.var())


def longest_rejection(accepted) -> int:
    """Longest run of consecutive rejections in any chain; independence samplers stick where it is long.

    Args:
        accepted: (chains, draws) of bool (or 0 and 1), whether the proposal of each draw was accepted.

    Raises:
        ValueError: not two-dimensional, or not boolean.
    """
    accepted = np.asarray(accepted)
    if accepted.ndim != 2 or not np.isin(accepted, (0, 1)).all():
        raise ValueError(f"accepted: need bool of shape (chains, draws), got {accepted.dtype} {accepted.shape}")
    # An acceptance on either side of every chain ends its last run and keeps the chains apart.
    fenced = np.pad(accepted.astype(bool), ((0, 0), (1, 1)), constant_values=True)
    return int(np.diff(np.flatnonzero(fenced)).max(initial=1)) - 1


def linearise(function: Function, series: Mapping[str, np.ndarray], weight: np.ndarray | None = None):
    """Value of f at the (weighted) means and the series whose mean fluctuates as f does.

    Args:
        function: takes {name: float}, returns float.
        series: {name: array}, all of one shape.
        weight: in that shape, non-negative, sum 1; None for equal weights.

    Returns:
        (value, projected, reason): f at the means, sum_a (df/da)(a - <a>) in the shape of the series,
        and "" or, if f or its gradient is not finite there, why (projected is then None).
    """

    means = {name: float(x.mean()) for name, x in series.items()}
    if weight is not None:  # about the plain mean, so that a constant has no rounding
        means = {name: means[name] + float(np.sum(weight * (x - means[name]))) for name, x in series.items()}
    value, reason = _call(function, means)
    if reason:
        return value, None, f"f is not finite at the means ({reason})"
    projected = None
    for name, x in series.items():
        if np.ptp(x) == 0:
            continue
        deviation = x - means[name]
        # Small against the fluctuation, so that f is linear; large against the rounding of the mean.
        flat = deviation.ravel()
        square = flat @ flat / flat.size if weight is None else np.sum(weight * deviation**2)
        step = max(1e-3 * math.sqrt(square), 1e-6 * abs(means[name]))
        if step == 0:  # the draws that differ carry no weight
            continue
        above, no_above = _call(function, means | {name: means[name] + step})
        below, no_below = _call(function, means | {name: means[name] - step})
        if no_above or no_below:
            return value, None, f"f is not finite beside the mean of {name} ({no_above or no_below})"
        deviation *= (above - below) / (2 * step)
        projected = deviation if projected is None else np.add(projected, deviation, out=projected)
    if projected is None:
        projected = np.zeros(next(iter(series.values())).shape)
    return value, projected, ""


def as_series(x, name: str) -> np.ndarray:
    """``x`` as a float64 array (chains, draws); ValueError, naming the series, if it cannot be one."""
    x = np.asarray(x)
    if x.ndim != 2 or x.shape[0] == 0 or x.dtype.kind not in "biuf":
        raise ValueError(f"{name}: need real numbers of shape (chains, draws), got {x.dtype} {x.shape}")
    x = x.astype(np.float64, copy=False)
    if not np.isfinite(x).all():
        bad = np.argwhere(~np.isfinite(x))
        chain, draw = bad[0]
        where = f"the first in chain {chain} at draw {draw}"
        raise ValueError(f"{name}: {len(bad)} of {x.size} draws are nan or inf, {where}")
    return x


def as_series_dict(series: Mapping[str, object]) -> dict[str, np.ndarray]:
    """Every series through ``as_series``; ValueError if there is none or their shapes differ."""
    series = {name: as_series(x, name) for name, x in series.items()}
    shapes = {name: x.shape for name, x in series.items()}
    if len(set(shapes.values())) != 1:
        raise ValueError(f"series: need one or more of one shape, got {shapes}")
    return series


def _estimate_without_time(x: np.ndarray) -> Estimate:
    """No or one draw a chain: the chains may be compared, but nothing is known about time."""
    chains, draws = x.shape
    mean, error = math.nan, math.nan
    if draws == 1:
        centre, scale, y = _standardise(x)
        mean = centre + scale * float(y.mean())
        if chains > 1:
            error = scale * scatter(y)
    advice = f"run at least {ENOUGH_TAU} draws a chain to see how they are correlated"
    return Estimate(mean, error, n_draws=x.size, status="short", advice=advice)


def _verdict(r_hat: float, tau: float, draws: int) -> tuple[str, str]:
    """Status and advice, the gravest first."""
    enough = ENOUGH_TAU * max(tau, 0.5)
    if math.isinf(r_hat):
        return "not converged", f"the chains do not move but differ: {OTHER_MOVES}"
    if r_hat > HOPELESS_R_HAT:
        return "not converged", f"the chains sample different states: {OTHER_MOVES}"
    if r_hat > R_HAT_LIMIT:
        # Halves whose means scatter by 2 tau / (draws/2) variances have R-hat^2 - 1 of that size, so
        # R-hat measures a tau too: that of the slow mode which the window of the Gamma method missed.
        enough = max(enough, ENOUGH_TAU * (r_hat**2 - 1) * draws / 4)
        advice = f"{_run_longer(enough, draws)}, or {OTHER_MOVES}"
        return "not converged", advice
    if draws < enough:
        return "short", _run_longer(enough, draws)
    return "ok", ""


def _run_longer(enough: float, draws: int) -> str:
    """Two digits of the needed length, rounded up."""
    unit = 10 ** max(0, math.floor(math.log10(enough)) - 1)
    enough = math.ceil(enough / unit) * unit
    return f"run {math.ceil(enough / draws)}x longer (at least {enough} draws a chain)"


def _standardise(x: np.ndarray) -> tuple[float, float, np.ndarray]:
    """centre, scale and y with x = centre + scale * y, |y| <= 1, against overflow and cancellation."""
    centre = float(x.mean())
    y = x - centre
    scale = float(max(y.max(), -y.min())) or 1.0
    y /= scale
    return centre, scale, y


def _halves(x: np.ndarray) -> list[np.ndarray]:
    """The halves of every chain, each (draws // 2,); an odd number of draws loses the middle one."""
    half = x.shape[1] // 2
    return [*x[:, :half], *x[:, -half:]]


def _pieces(x: np.ndarray) -> list[np.ndarray]:
    """What R-hat compares: halves of chains, whole ones of 2 or 3 draws."""
    return _halves(x) if x.shape[1] >= 4 else list(x)


def _r_hat(pieces: Sequence[np.ndarray]) -> float:
    """R-hat of standardised chains, (draws,) each; nan of one alone."""
    if len(pieces) < 2:
        return math.nan
    # The range, not the variance: the variance of equal numbers can be a rounding error above zero.
    if not any(np.ptp(piece) for piece in pieces):
        return math.inf if len({float(piece[0]) for piece in pieces}) > 1 else math.nan
    length = len(pieces[0])
    within = np.mean([piece.var(ddof=1) for piece in pieces])
    between = np.var([piece.mean() for piece in pieces], ddof=1)
    return math.sqrt((length - 1) / length + between / within)


def _call(function: Function, means: dict[str, float]) -> tuple[float, str]:
    """f(means) and "", or nan and why it is not finite: a mean outside the domain of f is no crash."""
    try:
        with np.errstate(all="ignore"):
            value = float(function(means))
    except (ArithmeticError, ValueError) as problem:
        return math.nan, str(problem)
    return (value, "") if math.isfinite(value) else (math.nan, f"f is {value}")
