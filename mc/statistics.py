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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

WINDOW_S = 1.5  # Wolff's S: the assumed ratio of the exponential to the integrated time
R_HAT_LIMIT = 1.05
HOPELESS_R_HAT = 2.0  # beyond, the chains have hardly met, and no length can be read off them
ENOUGH_TAU = 50  # a chain of fewer integrated times than this is called short

Function = Callable[[dict[str, float]], float]


@dataclass(frozen=True)
class Estimate:
    """A mean with its one-sigma error, and whether that error can be believed.

    Attributes:
        mean: in the units of the series.
        error: one standard error of the mean, same units; nan where none can be given.
        tau_int: integrated autocorrelation time in draws, 0.5 if uncorrelated; nan if undefined; no more
            than a lower bound if the status is "short" or "not converged".
        tau_int_error: its one-sigma error; nan if the window of the sum never closed.
        n_eff: effective number of independent draws, all chains together.
        r_hat: split R-hat; inf if the chains do not move and differ, nan if undefined.
        n_draws: number of draws, all chains together.
        status: "ok"; "short" (a chain is shorter than 50 tau_int); "not converged" (R-hat > 1.05);
            "constant" (the draws never change, nothing can be judged); "too few effective draws"
            (weighted draws, n_eff < 20); "not finite" (f or its gradient is undefined at the means).
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


def estimate(x) -> Estimate:
    """Mean of a series with the error of the Gamma method (Wolff 2004) and the split R-hat beside it.

    The autocovariance is pooled over the chains about their common mean, summed up to Wolff's automatic
    window (S = 1.5) and corrected for its O(1/N) bias.  The Gamma method can only see what happened
    inside the chains, so where R-hat exceeds 1.05 the error is the larger of its own and of
    std(chain means) / sqrt(chains); a single chain is cut into its two halves for that purpose.

    Args:
        x: (chains, draws), real.  Any number of draws, also 0 or 1.

    Raises:
        ValueError: ``x`` is not two-dimensional, has no chain, or holds nan or inf.
    """
    x = as_series(x, "x")
    chains, draws = x.shape
    if x.size > 1 and np.ptp(x) == 0:
        advice = "every draw is the same: check that moves are accepted, or start from other states"
        return Estimate(float(x[0, 0]), 0.0, n_draws=x.size, status="constant", advice=advice)
    if draws < 2:
        return _estimate_without_time(x)
    r_hat = split_r_hat(x)
    centre, scale, y = _standardise(x)
    error, tau, tau_error = _gamma_method(y - y.mean())
    if r_hat > R_HAT_LIMIT:
        error = max(error, _scatter(y if chains > 1 else _halves(y)))
    status, advice = _verdict(r_hat, tau, draws)
    mean, n_eff = centre + scale * float(y.mean()), x.size / (2 * tau)
    return Estimate(mean, scale * error, tau, tau_error, n_eff, r_hat, x.size, status, advice)


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
    value, projected, reason = linearise(function, series, np.full(first.shape, 1 / first.size))
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
    draws = x.shape[1]
    pieces = _halves(x) if draws >= 4 else x
    if draws < 2 or len(pieces) < 2 or np.ptp(pieces) == 0:
        return math.nan
    # The range, not the variance: the variance of equal numbers can be a rounding error above zero.
    if not np.ptp(pieces, axis=1).any():
        return math.inf
    y = _standardise(pieces)[2]
    length = y.shape[1]
    within = y.var(axis=1, ddof=1).mean()
    between = y.mean(axis=1).var(ddof=1)
    return math.sqrt((length - 1) / length + between / within)


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


def linearise(function: Function, series: Mapping[str, np.ndarray], weight: np.ndarray):
    """Value of f at the (weighted) means and the series whose mean fluctuates as f does.

    Args:
        function: takes {name: float}, returns float.
        series: {name: array}, all of the shape of ``weight``.
        weight: non-negative, sum 1.

    Returns:
        (value, projected, reason): f at the means, sum_a (df/da)(a - <a>) in the shape of ``weight``,
        and "" or, if f or its gradient is not finite there, why (projected is then None).
    """
    shift = {name: float(x.mean()) for name, x in series.items()}  # so that a constant has no rounding
    means = {name: shift[name] + float(np.sum(weight * (x - shift[name]))) for name, x in series.items()}
    value, reason = _call(function, means)
    if reason:
        return value, None, f"f is not finite at the means ({reason})"
    projected = np.zeros(weight.shape)
    for name, x in series.items():
        if np.ptp(x) == 0:
            continue
        deviation = x - means[name]
        # Small against the fluctuation, so that f is linear; large against the rounding of the mean.
        step = max(1e-3 * math.sqrt(np.sum(weight * deviation**2)), 1e-6 * abs(means[name]))
        if step == 0:  # the draws that differ carry no weight
            continue
        above, no_above = _call(function, means | {name: means[name] + step})
        below, no_below = _call(function, means | {name: means[name] - step})
        if no_above or no_below:
            return value, None, f"f is not finite beside the mean of {name} ({no_above or no_below})"
        projected += (above - below) / (2 * step) * deviation
    return value, projected, ""


def as_series(x, name: str) -> np.ndarray:
    """``x`` as a float64 array (chains, draws); ValueError, naming the series, if it cannot be one."""
    x = np.asarray(x)
    if x.ndim != 2 or x.shape[0] == 0 or x.dtype.kind not in "biuf":
        raise ValueError(f"{name}: need real numbers of shape (chains, draws), got {x.dtype} {x.shape}")
    x = x.astype(np.float64, copy=False)
    bad = np.argwhere(~np.isfinite(x))
    if len(bad):
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
            error = scale * _scatter(y)
    advice = f"run at least {ENOUGH_TAU} draws a chain to see how they are correlated"
    return Estimate(mean, error, n_draws=x.size, status="short", advice=advice)


def _verdict(r_hat: float, tau: float, draws: int) -> tuple[str, str]:
    """Status and advice, the gravest first."""
    enough = ENOUGH_TAU * max(tau, 0.5)
    if math.isinf(r_hat):
        return "not converged", "the chains do not move but differ: use cluster moves or tempering"
    if r_hat > HOPELESS_R_HAT:
        return "not converged", "the chains sample different states: use cluster moves or tempering"
    if r_hat > R_HAT_LIMIT:
        # Halves whose means scatter by 2 tau / (draws/2) variances have R-hat^2 - 1 of that size, so
        # R-hat measures a tau too: that of the slow mode which the window of the Gamma method missed.
        enough = max(enough, ENOUGH_TAU * (r_hat**2 - 1) * draws / 4)
        advice = f"the chains disagree: {_run_longer(enough, draws)}, or use cluster moves or tempering"
        return "not converged", advice
    if draws < enough:
        return "short", _run_longer(enough, draws)
    return "ok", ""


def _run_longer(enough: float, draws: int) -> str:
    """Two digits of the needed length, rounded up."""
    unit = 10 ** max(0, math.floor(math.log10(enough)) - 1)
    enough = math.ceil(enough / unit) * unit
    return f"run {math.ceil(enough / draws)}x longer (at least {enough} draws a chain)"


def _gamma_method(y: np.ndarray) -> tuple[float, float, float]:
    """Error of the mean, tau_int and its error for deviations y (chains, draws) from the common mean.

    Wolff 2004: window sec. 3.3, bias eq. 49, error of tau eq. 42.  Wolff's window takes rho > 0 for
    granted: an alternating rho closes it at the first lag, with a variance that may come out negative.
    There the window is instead set by the sum of |rho|, and the last term is counted half, which
    truncates rho = (-a)^t with the same relative error a^W as a^t.
    """
    draws, total = y.shape[1], y.size
    gamma = _autocovariance(y, max(1, (draws - 1) // 2))
    rho = gamma[1:] / gamma[0]
    tau_of_window = 0.5 + np.cumsum(rho)
    window, closed = _automatic_window(tau_of_window, total)
    tau = float(tau_of_window[window - 1])
    terms = 2 * window + 1  # of C = sum_{|t|<=W} Gamma(t)
    if tau <= 0.5:
        window, closed = _automatic_window(0.5 + np.cumsum(np.abs(rho)), total)
        terms = 2 * window
        # Noise may still leave nothing, or less.  A reversible chain with eigenvalues l has 2 tau =
        # <(1+l)/(1-l)> >= <(1+l)/2> = (1+rho(1))/2; and the unpaired end of a perfectly alternating
        # chain leaves the mean uncertain by about one draw's fluctuation over the number of draws.
        floor = max((1 + rho[0]) / 4, 1 / (2 * draws))
        tau = float(max(tau_of_window[window - 1] - rho[window - 1] / 2, floor))
        closed = closed or tau < 0.5
    # Subtracting the common mean lowers every Gamma(t) by C/N, with C = 2 tau Gamma(0).
    variance = float(gamma[0]) * (1 + 2 * tau / total)
    tau = tau * (1 + terms / total) / (1 + 2 * tau / total)
    error = math.sqrt(2 * tau * variance / total)
    tau_error = 2 * tau * math.sqrt(max(window + 0.5 - tau, 0.5) / total) if closed else math.nan
    return error, tau, tau_error


def _automatic_window(tau_of_window: np.ndarray, total: int) -> tuple[int, bool]:
    """The first W at which truncating rho costs less than its noise does; the last lag if there is none.

    Wolff 2004, sec. 3.3: exp(-W/tau_W) < tau_W / sqrt(W N), tau_W = S / ln((2 tau + 1)/(2 tau - 1)).
    """
    lag = np.arange(1, len(tau_of_window) + 1)
    decay = np.full(len(lag), 1e-3)  # tau <= 1/2: no correlation left, close at once
    above = tau_of_window > 0.5
    decay[above] = WINDOW_S / np.log1p(2 / (2 * tau_of_window[above] - 1))
    closed = np.exp(-lag / decay) < decay / np.sqrt(lag * total)
    return (int(np.argmax(closed)) + 1, True) if closed.any() else (len(lag), False)


def _autocovariance(y: np.ndarray, lags: int) -> np.ndarray:
    """Gamma(t) for t = 0..lags, averaged over the pairs of all chains, by FFT padded against wrap-around."""
    chains, draws = y.shape
    size = 1 << (draws + lags - 1).bit_length()
    power = sum(np.abs(np.fft.rfft(chain, size)) ** 2 for chain in y)
    return np.fft.irfft(power, size)[: lags + 1] / (chains * (draws - np.arange(lags + 1)))


def _standardise(x: np.ndarray) -> tuple[float, float, np.ndarray]:
    """centre, scale and y with x = centre + scale * y, |y| <= 1, against overflow and cancellation."""
    centre = float(x.mean())
    y = x - centre
    scale = float(np.abs(y).max()) or 1.0
    return centre, scale, y / scale


def _halves(x: np.ndarray) -> np.ndarray:
    """(chains, draws) -> (2 chains, draws // 2); an odd number of draws loses the middle one."""
    half = x.shape[1] // 2
    return np.concatenate([x[:, :half], x[:, -half:]])


def _scatter(x: np.ndarray) -> float:
    """Standard error of the mean from the scatter of the means of the rows of ``x``, two or more."""
    return float(x.mean(axis=1).std(ddof=1)) / math.sqrt(len(x))


def _call(function: Function, means: dict[str, float]) -> tuple[float, str]:
    """f(means) and "", or nan and why it is not finite: a mean outside the domain of f is no crash."""
    try:
        with np.errstate(all="ignore"):
            value = float(function(means))
    except (ArithmeticError, ValueError) as problem:
        return math.nan, str(problem)
    return (value, "") if math.isfinite(value) else (math.nan, f"f is {value}")
