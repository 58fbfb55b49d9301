"""Data collapse: x_c, 1/nu and kappa/nu from the scaling law y(x, L) = L^(kappa/nu) f((x - x_c) L^(1/nu)).

    curves = {L: mc.crossings.curve(betas, binder[L], errors[L]) for L in (8, 16, 32)}
    fit = mc.collapse.collapse(curves, x_c=(0.42, 0.46), inverse_nu=(0.5, 2.0))
    print(fit.x_c, fit.error["x_c"], fit.nu, fit.nu_error, fit.quality, fit.status)

No form of f is assumed. Where a point of one size lies between two points of another, these say by a straight line
what the master curve is there, and the quality S is the mean of (y - Y)^2 / (dy^2 + dY^2) over all such points: about
one in a good collapse (J. Houdayer and A. K. Hartmann, Phys. Rev. B 70, 014418 (2004), appendix; the idea is that of
N. Kawashima and N. Ito, J. Phys. Soc. Jpn. 62, 435 (1993)). Points should lie so densely that straight lines join
them, and so near x_c that the law holds. Corrections to scaling are no part of it: leave out small sizes to see them.

S jumps wherever points change neighbours, so that it has many small minima. It is searched by differential evolution
(R. Storn and K. Price, J. Global Optim. 11, 341 (1997)) in the ranges given, also in every resample.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy.optimize import brentq, differential_evolution, minimize

from mc.crossings import Curve

NAMES = ("x_c", "inverse_nu", "kappa_over_nu")
LEAST_OVERLAP = 0.5  # share of the points that the others have to enclose, else S says nothing
NONE = 1e12  # S where they do not: the search takes no inf
AT_THE_EDGE = 1e-3  # of a range
POPULATION = 12  # of the search, times the number of free parameters
ROUGHLY = 1e-3  # relative spread of S at which a resample is done: a small part of one standard error

Range = float | tuple[float, float]


@dataclass(frozen=True)
class Collapse:
    """Parameters of the best collapse.

    x_c in units of x; inverse_nu = 1/nu; kappa_over_nu, the exponent of L in front. error: {name: one standard error}
    of the bootstrap, 0 for what was given. covariance: (3, 3) in the order of `NAMES`. interval: {name: (low, high)},
    where S, minimal in the other parameters, is its minimum + 1 (-inf or inf where it is less in all of the range); S
    being a mean and no sum, that is far wider than one standard error. quality: S at the minimum. points: its terms.
    status: "ok"; "at the edge" of a range, where the minimum lies beyond; "poor" with S above 2. advice: what to do.
    """

    x_c: float
    inverse_nu: float
    kappa_over_nu: float
    error: dict[str, float]
    covariance: np.ndarray
    interval: dict[str, tuple[float, float]]
    quality: float
    points: int
    status: str
    advice: str = ""

    @property
    def nu(self) -> float:
        return 1.0 / self.inverse_nu

    @property
    def nu_error(self) -> float:
        return self.error["inverse_nu"] / self.inverse_nu**2

    def scaled(self, length: float, points: Curve) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(x - x_c) L^(1/nu), y L^(-kappa/nu) and its error: what to draw."""
        factor = length**-self.kappa_over_nu
        return (points.x - self.x_c) * length**self.inverse_nu, factor * points.y, factor * points.error


def collapse(
    curves: Mapping[float, Curve],
    x_c: Range | None = None,
    inverse_nu: Range = (0.2, 3.0),
    kappa_over_nu: Range = 0.0,
    seed: int = 0,
    resamples: int = 100,
) -> Collapse:
    """The x_c, 1/nu and kappa/nu with the smallest S.

    curves: {L: Curve}, two sizes or more. x_c, inverse_nu, kappa_over_nu: a number is taken as known, a pair (low,
    high) is the range of the search; x_c by default all x that every curve has; kappa = 0 is a dimensionless ratio.
    seed: of the search and the bootstrap. resamples: in each all points get normal noise of their own errors (curves
    of samples: rows drawn anew, see `mc.crossings`).

    Raises ValueError for fewer than two sizes, ranges that are empty or reach 1/nu <= 0, nothing to search for, and
    curves less than half of whose points lie within each other's reach, wherever in the ranges.
    """
    if len(curves) < 2 or not all(math.isfinite(length) and length > 0 for length in curves):
        raise ValueError(f"collapse: two or more positive sizes are needed, got {list(curves)}")
    if resamples < 2:
        raise ValueError(f"collapse: resamples={resamples}: an error needs two, better 100")
    if x_c is None:
        x_c = (max(c.x[0] for c in curves.values()), min(c.x[-1] for c in curves.values()))
    ranges = {name: _range(name, given) for name, given in zip(NAMES, (x_c, inverse_nu, kappa_over_nu), strict=True)}
    free = [name for name, (low, high) in ranges.items() if low < high]
    if not free:
        raise ValueError("collapse: all parameters are given: see `quality` for S, or give a range")
    generator = np.random.default_rng(seed)
    data = _Points(curves)
    best, lowest = _search(data, ranges, generator, 1e-5)
    if lowest >= NONE:
        raise ValueError(
            "collapse: the scaled curves hardly overlap in these ranges: take other ranges, or more points"
        )
    drawn = zip(*(points.resampled(generator, resamples) for points in curves.values()), strict=True)
    found = [_search(data.with_values(values), ranges, generator, ROUGHLY)[0] for values in drawn]
    moved = np.array([[one[name] - best[name] for name in NAMES] for one in found])
    covariance = np.cov(moved.T)
    error = dict(zip(NAMES, np.sqrt(np.diag(covariance)).tolist(), strict=True))
    interval = {name: _interval(data, best, ranges, name, lowest + 1.0) for name in NAMES}
    status, advice = "ok", ""
    edges = [name for name in free if _at_the_edge(best[name], *ranges[name])]
    if edges:
        status, advice = "at the edge", f"give {' and '.join(edges)} a wider range"
    elif lowest > 2.0:
        status, advice = "poor", "the points do not collapse within their errors: leave out small sizes or far points"
    return Collapse(**best, error=error, covariance=covariance, interval=interval, quality=lowest,
                    points=data.quality(best)[1], status=status, advice=advice)  # fmt: skip


def quality(curves: Mapping[float, Curve], x_c: float, inverse_nu: float, kappa_over_nu: float = 0.0) -> float:
    """S of a collapse by given parameters; NaN where less than half of the points are enclosed by those of others."""
    parameters = {"x_c": x_c, "inverse_nu": inverse_nu, "kappa_over_nu": kappa_over_nu}
    found = _Points(curves).quality(parameters)[0]
    return found if found < NONE else math.nan


class _Points:
    """The points of all sizes in a row, and the quality of collapses of them."""

    def __init__(self, curves: Mapping[float, Curve]):
        self.first = np.concatenate([[0], np.cumsum([len(points.x) for points in curves.values()])])
        self.log_length = np.log(np.array(list(curves), np.float64))
        self.x = np.concatenate([points.x for points in curves.values()])
        self.y = np.concatenate([points.y for points in curves.values()])
        self.error = np.concatenate([points.error for points in curves.values()])

    def with_values(self, values: Sequence[np.ndarray]) -> _Points:
        other = object.__new__(_Points)
        other.__dict__.update(self.__dict__, y=np.concatenate(values))
        return other

    def qualities(self, parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """S and its number of terms of several collapses (n, 3)."""
        return _qualities(self.first, self.log_length, self.x, self.y, self.error, np.ascontiguousarray(parameters))

    def quality(self, parameters: Mapping[str, float]) -> tuple[float, int]:
        found, terms = self.qualities(np.array([[parameters[name] for name in NAMES]]))
        return float(found[0]), int(terms[0])


@njit(cache=True, nogil=True)
def _qualities(first, log_length, x, y, error, parameters):
    """Houdayer and Hartmann's S for every row (x_c, 1/nu, kappa/nu) of `parameters`.

    The weighted straight line through the neighbours of all other sizes is taken about the point itself, so that its
    value there is the intercept: Y = (K_xx K_y - K_x K_xy) / D, dY^2 = K_xx / D with D = K K_xx - K_x^2.
    """
    sizes, points = len(log_length), len(x)
    found, terms = np.empty(len(parameters)), np.empty(len(parameters), np.int64)
    at, value, variance = np.empty(points), np.empty(points), np.empty(points)
    for row in range(len(parameters)):
        x_c, inverse_nu, kappa_over_nu = parameters[row]
        for i in range(sizes):
            stretch, factor = math.exp(inverse_nu * log_length[i]), math.exp(-kappa_over_nu * log_length[i])
            for j in range(first[i], first[i + 1]):
                at[j], value[j], variance[j] = (x[j] - x_c) * stretch, factor * y[j], (factor * error[j]) ** 2
        total, known = 0.0, 0
        for i in range(sizes):
            for j in range(first[i], first[i + 1]):
                k = k_x = k_xx = k_y = k_xy = 0.0
                for other in range(sizes):
                    low, high = first[other], first[other + 1]
                    if other == i or at[j] < at[low] or at[j] > at[high - 1]:
                        continue
                    left = min(low + np.searchsorted(at[low:high], at[j], side="right") - 1, high - 2)
                    for l in range(left, left + 2):
                        weight, away = 1.0 / variance[l], at[l] - at[j]
                        k += weight
                        k_x += weight * away
                        k_xx += weight * away**2
                        k_y += weight * value[l]
                        k_xy += weight * away * value[l]
                determinant = k * k_xx - k_x**2
                if determinant > 0.0:
                    master = (k_xx * k_y - k_x * k_xy) / determinant
                    total += (value[j] - master) ** 2 / (variance[j] + k_xx / determinant)
                    known += 1
        terms[row] = known
        found[row] = total / known if known >= LEAST_OVERLAP * points else NONE
    return found, terms


def _range(name: str, given: Range) -> tuple[float, float]:
    low, high = (float(given), float(given)) if np.ndim(given) == 0 else (float(end) for end in given)
    if not (math.isfinite(low) and math.isfinite(high) and low <= high) or (name == "inverse_nu" and low <= 0):
        positive = " of positive numbers" if name == "inverse_nu" else ""
        raise ValueError(f"collapse: {name}={given}: a number or a range (low, high){positive} is needed")
    return low, high


def _at_the_edge(value: float, low: float, high: float) -> bool:
    return min(value - low, high - value) < AT_THE_EDGE * (high - low)


def _search(
    data: _Points, ranges: Mapping[str, tuple[float, float]], generator: np.random.Generator, tolerance: float
) -> tuple[dict[str, float], float]:
    """Parameters within the ranges with the smallest S, and S."""
    free = np.array([name for name in NAMES if ranges[name][0] < ranges[name][1]])
    columns = [NAMES.index(name) for name in free]
    fixed = np.array([ranges[name][0] for name in NAMES])

    def qualities(some: np.ndarray) -> np.ndarray:  # (parameters, n) as `differential_evolution` has them
        rows = np.repeat(fixed[None], some.shape[1], axis=0)
        rows[:, columns] = some.T
        return data.qualities(rows)[0]

    found = differential_evolution(
        qualities, [ranges[name] for name in free], popsize=POPULATION, tol=tolerance, maxiter=300, polish=False,
        vectorized=True, updating="deferred", rng=generator,
    )  # fmt: skip
    best = fixed.copy()
    best[columns] = found.x
    return dict(zip(NAMES, best.tolist(), strict=True)), float(found.fun)


def _interval(
    data: _Points, best: dict[str, float], ranges: Mapping[str, tuple[float, float]], name: str, level: float
) -> tuple[float, float]:
    """Where S, minimal in the other free parameters, reaches `level` below and above the best value of one."""
    low, high = ranges[name]
    if low == high:
        return low, high
    others = [other for other in NAMES if other != name and ranges[other][0] < ranges[other][1]]
    bounds = [ranges[other] for other in others]

    def above(value: float) -> float:
        start = best | {name: value}
        lowest = data.quality(start)[0]
        if others:
            found = minimize(
                lambda some: data.quality(start | dict(zip(others, some, strict=True)))[0],
                [best[other] for other in others], method="Nelder-Mead", bounds=bounds,
            )  # fmt: skip
            lowest = min(lowest, float(found.fun))
        return lowest - level

    tolerance = 1e-4 * (high - low)
    below = brentq(above, low, best[name], xtol=tolerance) if above(low) > 0 else -math.inf
    beyond = brentq(above, best[name], high, xtol=tolerance) if above(high) > 0 else math.inf
    return float(below), float(beyond)
