"""Where the curves of two sizes cross, with a bootstrap error.

A dimensionless ratio such as the Binder cumulant or xi / L has curves y_L(x) that cross at the transition, up to
corrections that fall as L^-(1/nu + omega) (K. Binder, Z. Phys. B 43, 119 (1981)).

    m = chain.posterior["magnetization"]  # of the smaller size
    rows = {"m2": mc.crossings.block_means(m**2, 16), "m4": mc.crossings.block_means(m**4, 16)}
    smaller = mc.crossings.curve_of_samples(chain.betas, lambda a: 1 - a["m4"] / (3 * a["m2"] ** 2), rows)
    found = mc.crossings.crossing(smaller, larger, np.random.default_rng(1))
    print(found.x, found.x_error, found.status)

Points (x, y, error) are resampled as independent normal numbers; curves of samples by drawing their rows (chains,
blocks of a chain, disorder samples) with replacement, the same rows at every x, which keeps what neighbouring
temperatures have in common (B. Efron and R. Tibshirani, An Introduction to the Bootstrap (1993), ch. 6).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.stats import chi2 as chi2_law

from mc.statistics import Estimate, Function

METHODS = ("polynomial", "spline", "linear")
FEWEST_ROWS = 8  # of a bootstrap: fewer do not know their own scatter
GRID = 1001  # points at which curves are compared
POOR_FIT = 1e-3  # p-value below which a polynomial is said not to follow its points
MOST_LOST = 0.05  # share of resamples without exactly one crossing, above which the error is called uncertain


@dataclass(frozen=True)
class Curve:
    """y(x) of one size: x (n,) rising, y and error (n,), one standard error each.

    rows, function: of `curve_of_samples`, {} and None for independent points.
    """

    x: np.ndarray
    y: np.ndarray
    error: np.ndarray
    rows: Mapping[str, np.ndarray] = field(default_factory=dict)
    function: Function | None = None

    def resampled(self, generator: np.random.Generator, resamples: int) -> np.ndarray:
        """Values (resamples, n) that scatter about y as y does about the truth."""
        if not self.rows:
            return self.y + self.error * generator.standard_normal((resamples, len(self.x)))
        n = len(next(iter(self.rows.values())))
        counts = generator.multinomial(n, np.full(n, 1.0 / n), size=resamples)
        drawn = _at_means(self.function, {name: counts @ rows / n for name, rows in self.rows.items()})
        # n rows about their own mean scatter by n - 1 of n of the variance.
        return self.y + math.sqrt(n / (n - 1)) * (drawn - self.y)


@dataclass(frozen=True)
class Crossing:
    """Where two curves cross: x, y with one standard error each; NaN unless there is just one crossing.

    roots: all crossings of the curves as they are. found: share of the resamples with exactly one; the errors are
    those of these. status: "ok"; "no crossing" or "several crossings" in the window; "uncertain" where more than a
    twentieth of the resamples have none or several, so that the error is no more than a rough one; "poor fit" where
    the polynomials do not follow the points. advice: one sentence on what to do, "" if ok.
    """

    x: float
    x_error: float
    y: float
    y_error: float
    roots: np.ndarray
    found: float
    status: str
    advice: str = ""


def curve(x, y, error) -> Curve:
    """A curve of independent points; x (n,) in any order, errors positive.

    Raises ValueError for shapes that differ, fewer than two points, equal x, or numbers that are not finite.
    """
    x, y, error = (np.asarray(values, np.float64) for values in (x, y, error))
    if x.ndim != 1 or len(x) < 2 or not x.shape == y.shape == error.shape:
        raise ValueError(
            f"curve: x, y and error of one length, 2 or more, are needed, got {x.shape}, {y.shape}, {error.shape}"
        )
    if not all(np.isfinite(values).all() for values in (x, y, error)) or not (error > 0).all():
        raise ValueError("curve: x, y and errors have to be finite, and errors positive; leave other points out")
    order = np.argsort(x)
    if (np.diff(x[order]) == 0).any():
        raise ValueError("curve: two points have the same x; join them")
    return Curve(x[order], y[order], error[order])


def curve_of_estimates(x, estimates: Sequence[Estimate]) -> Curve:
    """A curve of one `Estimate` at each x, such as `Results.observables["binder"]` over `Results.betas`.

    Raises ValueError as `curve`. Estimates of one tempering run are not quite independent: `curve_of_samples` is.
    """
    return curve(x, [one.mean for one in estimates], [one.error for one in estimates])


def curve_of_samples(x, function: Function, rows: Mapping[str, np.ndarray]) -> Curve:
    """A function of averages over rows that are independent of each other, at each x.

    x: (n,). function: takes {name: mean as float}, returns a float, as for `mc.statistics.estimate_function`.
    rows: {name: (rows, n)}, all of one shape: averages of chains, of blocks much longer than tau_int
    (`block_means`), or thermal averages of disorder samples. The error is that of the delete-one jackknife.

    Raises ValueError for shapes that differ, fewer than 8 rows, or a function that is not finite.
    """
    x = np.asarray(x, np.float64)
    rows = {name: np.asarray(values, np.float64) for name, values in rows.items()}
    shapes = {values.shape for values in rows.values()}
    if len(shapes) != 1 or x.ndim != 1 or next(iter(shapes))[1:] != x.shape:
        raise ValueError(
            f"curve_of_samples: rows of one shape (rows, {len(np.atleast_1d(x))}) are needed, got {sorted(shapes)}"
        )
    n = next(iter(shapes))[0]
    if n < FEWEST_ROWS:
        raise ValueError(
            f"curve_of_samples: {n} rows, {FEWEST_ROWS} are needed: cut chains into blocks, or add samples"
        )
    order = np.argsort(x)
    rows = {name: values[:, order] for name, values in rows.items()}
    y = _at_means(function, {name: values.mean(axis=0)[None] for name, values in rows.items()})[0]
    left = {name: (values.sum(axis=0) - values) / (n - 1) for name, values in rows.items()}
    error = math.sqrt(n - 1) * _at_means(function, left).std(axis=0)
    points = curve(x[order], y, error)
    return Curve(points.x, points.y, points.error, rows, function)


def block_means(values: np.ndarray, blocks: int) -> np.ndarray:
    """Averages over consecutive draws: (chain, draw, beta, own axes ...) -> (chain * blocks, beta).

    Own axes (replicas, pairs) are averaged over. A block has to be much longer than tau_int; the first draws that
    fill no block are left out. Raises ValueError for fewer draws than blocks.
    """
    values = np.asarray(values, np.float64)
    if values.ndim < 3 or not 1 <= blocks <= values.shape[1]:
        raise ValueError(
            f"block_means: {blocks} blocks of an array {values.shape} (chain, draw, beta): too few draws"
        )
    values = values.reshape(*values.shape[:3], -1).mean(axis=-1)
    chains, draws, betas = values.shape
    length = draws // blocks
    kept = values[:, draws - blocks * length :]
    return kept.reshape(chains * blocks, length, betas).mean(axis=1)


def crossing(
    one: Curve,
    other: Curve,
    generator: np.random.Generator,
    method: str = "polynomial",
    degree: int | None = None,
    window: tuple[float, float] | None = None,
    resamples: int = 1000,
) -> Crossing:
    """Where two independent curves cross within a window, by interpolation.

    method: "polynomial", of `degree` (default 3, less with few points), fitted to the points of the window with the
    weights 1 / error^2; "spline", cubic through all points; "linear". Noise larger than the step of a curve from
    point to point makes the last two cross several times; a polynomial needs a window in which it follows the curve.
    window: (low, high), by default all x that both curves have. resamples: of the bootstrap.

    Raises ValueError for an unknown method, a window that reaches beyond the points, or fewer points in it than a
    polynomial has coefficients.
    """
    if method not in METHODS:
        raise ValueError(f"crossing: method={method}: not one of {', '.join(METHODS)}")
    if resamples < 2:
        raise ValueError(f"crossing: resamples={resamples}: an error needs two, better 1000")
    shared = max(one.x[0], other.x[0]), min(one.x[-1], other.x[-1])
    low, high = shared if window is None else window
    if not low < high:
        raise ValueError(
            f"crossing: the window {low:g} to {high:g} is empty; the curves share {shared[0]:g} to {shared[1]:g}"
        )
    if low < shared[0] or high > shared[1]:
        raise ValueError(
            f"crossing: the window {low:g} to {high:g} reaches beyond {shared[0]:g} to {shared[1]:g}, "
            "which both curves have"
        )
    fine = np.linspace(low, high, GRID)
    maps, fits = zip(*(_interpolation(c, fine, method, degree) for c in (one, other)), strict=True)
    roots, heights = _roots(fine, maps[0] @ one.y, maps[1] @ other.y)
    drawn = [c.resampled(generator, resamples) @ m.T for c, m in zip((one, other), maps, strict=True)]
    each = [_roots(fine, *pair) for pair in zip(*drawn, strict=True)]
    single = np.array([(x[0], y[0]) for x, y in each if len(x) == 1]).reshape(-1, 2)
    found = len(single) / resamples
    if len(roots) != 1:
        status = "several crossings" if len(roots) else "no crossing"
        advice = "narrow the window, or draw more" if len(roots) else "widen the window, or look at other sizes"
        return Crossing(math.nan, math.nan, math.nan, math.nan, roots, found, status, advice)
    errors = single.std(axis=0, ddof=1) if len(single) > 1 else (math.nan, math.nan)
    status, advice = "ok", ""
    if min(fits) < POOR_FIT:
        status, advice = (
            "poor fit",
            "the polynomials do not follow the points: narrow the window, or raise the degree",
        )
    elif found < 1.0 - MOST_LOST:
        status, advice = "uncertain", "noise often hides the crossing: draw more, or widen the window"
    return Crossing(
        float(roots[0]), float(errors[0]), float(heights[0]), float(errors[1]), roots, found, status, advice
    )


def _interpolation(points: Curve, fine: np.ndarray, method: str, degree: int | None) -> tuple[np.ndarray, float]:
    """The linear map (GRID, n) from y to the curve on the grid, and the p-value of its fit (1 if it has none)."""
    x, n = points.x, len(points.x)
    if method == "linear":
        return np.stack([np.interp(fine, x, unit) for unit in np.eye(n)], axis=1), 1.0
    if method == "spline":
        if n < 4:
            raise ValueError(f"crossing: {n} points are too few for a cubic spline; use method linear")
        return CubicSpline(x, np.eye(n))(fine), 1.0
    inside = (x >= fine[0]) & (x <= fine[-1])
    count = int(inside.sum())
    degree = min(3, count - 1) if degree is None else degree
    if degree < 1 or count < degree + 1:
        raise ValueError(
            f"crossing: {count} points in the window are too few for a polynomial of degree {max(degree, 1)}: "
            "widen it, or use method linear"
        )

    def powers(at: np.ndarray) -> np.ndarray:
        return np.polynomial.chebyshev.chebvander((2 * at - fine[0] - fine[-1]) / (fine[-1] - fine[0]), degree)

    design = powers(x[inside]) / points.error[inside, None]
    mapped = np.zeros((len(fine), n))
    mapped[:, inside] = powers(fine) @ np.linalg.pinv(design) / points.error[inside]
    dof = count - degree - 1
    if dof == 0:
        return mapped, 1.0
    scaled = points.y[inside] / points.error[inside]
    misfit = scaled - design @ np.linalg.lstsq(design, scaled, rcond=None)[0]
    return mapped, float(chi2_law.sf((misfit**2).sum(), dof))


def _roots(fine: np.ndarray, one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """x and y of all crossings of two curves on the grid."""
    gap = one - other
    at = np.flatnonzero((gap[:-1] >= 0) != (gap[1:] >= 0))
    part = gap[at] / (gap[at] - gap[at + 1])
    return fine[at] + part * (fine[1] - fine[0]), one[at] + part * (one[at + 1] - one[at])


def _at_means(function: Function, means: Mapping[str, np.ndarray]) -> np.ndarray:
    """The function at means (rows, n) of every name, one call a number."""
    shape = next(iter(means.values())).shape
    columns = {name: values.ravel().tolist() for name, values in means.items()}
    try:
        values = [function(dict(zip(columns, one, strict=True))) for one in zip(*columns.values(), strict=True)]
    except (ArithmeticError, ValueError) as problem:
        raise ValueError(
            f"the function of the averages is not defined at some of them ({problem}): draw more"
        ) from problem
    return np.asarray(values, np.float64).reshape(shape)
