"""Extrapolation to infinite size: fits of v(N) = v + A / N^omega with errors.

    fit = mc.finite_size.fit_limit([64, 128, 256], energies, errors, omega=2 / 3)  # SK: e0 and its error
    print(f"{fit.value:.4f} +- {fit.error:.4f}, chi^2/dof {fit.chi2 / fit.dof:.2f}, p {fit.p_value:.2f}")
    mean, error = fit.predict(512)

N is whatever the law is written in: numbers of spins for ground-state energies (omega = 2/3 for Sherrington and
Kirkpatrick's glass, 1 - theta/d for Edwards and Anderson's), L for crossing points (omega = 1/nu + the exponent of
corrections). Values of different sizes are taken to be independent. Errors follow from the errors given; they are not
scaled by sqrt(chi^2/dof), since that would hide a law that does not hold behind a larger error.

Sources
    W. H. Press et al., Numerical Recipes, 3rd ed. (2007), secs. 15.4 and 15.5: weighted least squares.
    S. Boettcher, Eur. Phys. J. B 46, 501 (2005): e0(N) of the Sherrington-Kirkpatrick glass.
    F. Roma et al., Physica A 388, 2821 (2009): e0(L) of three-dimensional Edwards-Anderson glasses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.stats import chi2 as chi2_law

OMEGA_RANGE = (0.02, 20.0)  # of a free exponent
OMEGA_STEPS = 60  # of the search before the minimum is refined


@dataclass(frozen=True)
class SizeFit:
    """A fit of v(N) = value + amplitude / N^omega; errors are one standard error.

    value, error: the limit N -> infinity, in the units of the data. omega_error: 0 where omega was given.
    covariance: (3, 3) of (value, amplitude, omega), to leading order; zeros for a given omega. chi2: sum of squared
    deviations over squared errors. dof: sizes less parameters; with none left p_value is NaN and nothing says whether
    the law holds. p_value: probability of this chi2 or a larger one if it does.
    """

    value: float
    error: float
    amplitude: float
    amplitude_error: float
    omega: float
    omega_error: float
    covariance: np.ndarray
    chi2: float
    dof: int
    p_value: float

    def predict(self, sizes) -> tuple[np.ndarray, np.ndarray]:
        """The fitted law at `sizes` and its one-sigma error, both in the shape of `sizes`; inf is the limit.

        Raises ValueError for sizes that are not positive.
        """
        sizes = np.asarray(sizes, np.float64)
        if not (sizes > 0).all():
            raise ValueError("predict: sizes have to be positive")
        power = sizes**-self.omega
        finite = np.where(np.isfinite(sizes), sizes, 1.0)  # the power of an infinite size is zero, its logarithm not
        gradient = np.stack([np.ones_like(power), power, -self.amplitude * power * np.log(finite)], axis=-1)
        variance = np.einsum("...i,ij,...j->...", gradient, self.covariance, gradient)
        return self.value + self.amplitude * power, np.sqrt(np.maximum(variance, 0.0))


def fit_limit(sizes, values, errors, omega: float | None = None) -> SizeFit:
    """Weighted least squares of v(N) = v + A / N^omega.

    sizes: (n,), positive. values, errors: (n,), of independent data; errors positive. omega: the exponent, taken as
    exact, or None to fit it too, between 0.02 and 20.

    Raises ValueError for shapes that differ, numbers that are not finite, sizes or errors that are not positive,
    fewer distinct sizes than parameters (2, or 3 with a free omega), and data that do not bound a free omega.
    """
    sizes, values, errors = _checked(sizes, values, errors)
    if omega is not None and not (math.isfinite(omega) and omega > 0):
        raise ValueError(f"fit_limit: omega={omega}: a positive exponent is needed, or None to fit it")
    needed = 3 if omega is None else 2
    if len(np.unique(sizes)) < needed:
        remedy = "add sizes" + ("" if omega is not None else ", or give omega")
        raise ValueError(
            f"fit_limit: {len(np.unique(sizes))} distinct sizes for {needed} parameters are too few: {remedy}"
        )
    unit = float(np.exp(np.log(sizes).mean()))  # else A and omega are so correlated that digits get lost
    scaled = sizes / unit
    free = omega is None
    exponent = _best_omega(scaled, values, errors) if free else float(omega)
    (value, amplitude), chi2 = _linear(scaled, values, errors, exponent)
    power = scaled**-exponent
    columns = [np.ones_like(power), power] + ([-amplitude * power * np.log(scaled)] if free else [])
    covariance = np.zeros((3, 3))
    covariance[:needed, :needed] = _inverse(np.stack(columns, axis=1) / errors[:, None])
    # Back to A in the caller's units: A = amplitude unit^omega.
    factor = unit**exponent
    change = np.diag([1.0, factor, 1.0])
    change[1, 2] = amplitude * factor * math.log(unit) if free else 0.0
    covariance = change @ covariance @ change.T
    spread = np.sqrt(np.diag(covariance))
    if free and not spread[2] < exponent:
        raise ValueError(f"fit_limit: the values do not bound omega ({exponent:.2g} +- {spread[2]:.2g}): give omega, "
                         "or more sizes")  # fmt: skip
    dof = len(sizes) - needed
    p_value = float(chi2_law.sf(chi2, dof)) if dof else math.nan
    return SizeFit(
        value, float(spread[0]), amplitude * factor, float(spread[1]), exponent, float(spread[2]), covariance, chi2,
        dof, p_value,
    )  # fmt: skip


def _checked(sizes, values, errors) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    sizes, values, errors = (np.asarray(x, np.float64) for x in (sizes, values, errors))
    if sizes.ndim != 1 or not sizes.shape == values.shape == errors.shape:
        shapes = f"{sizes.shape}, {values.shape}, {errors.shape}"
        raise ValueError(f"fit_limit: sizes, values and errors of one length are needed, got shapes {shapes}")
    for name, x in (("sizes", sizes), ("values", values), ("errors", errors)):
        if not np.isfinite(x).all():
            raise ValueError(f"fit_limit: {name} hold nan or inf; leave those sizes out")
    for name, x in (("sizes", sizes), ("errors", errors)):
        if not (x > 0).all():
            raise ValueError(f"fit_limit: {name} have to be positive, the smallest is {x.min():g}")
    return sizes, values, errors


def _linear(sizes, values, errors, omega: float) -> tuple[tuple[float, float], float]:
    """(v, A) at a given omega, and chi^2."""
    design = np.stack([np.ones_like(sizes), sizes**-omega], axis=1) / errors[:, None]
    found = np.linalg.lstsq(design, values / errors, rcond=None)[0]
    return (float(found[0]), float(found[1])), float(((values / errors - design @ found) ** 2).sum())


def _best_omega(sizes, values, errors) -> float:
    """The omega of the smallest chi^2: v and A are linear, so that one search is left."""

    def chi2(log_omega: float) -> float:
        return _linear(sizes, values, errors, math.exp(log_omega))[1]

    grid = np.linspace(*np.log(OMEGA_RANGE), OMEGA_STEPS)
    found = [chi2(x) for x in grid]
    best = int(np.argmin(found))
    if best in (0, OMEGA_STEPS - 1):
        where = "above" if best else "below"
        raise ValueError(
            f"fit_limit: the data do not bound omega {where}, at {OMEGA_RANGE[1 if best else 0]:g}: "
            "give omega, or add sizes"
        )
    bracket = (grid[best - 1], grid[best + 1])
    return math.exp(minimize_scalar(chi2, bounds=bracket, method="bounded", options={"xatol": 1e-10}).x)


def _inverse(design: np.ndarray) -> np.ndarray:
    """(D^T D)^-1, ValueError where the columns are not independent."""
    scale = np.sqrt((design**2).sum(axis=0))
    if (scale > 0).all():
        _, singular, rows = np.linalg.svd(design / scale, full_matrices=False)
        if singular[-1] > 1e-9 * singular[0]:
            half = rows.T / singular
            return half @ half.T / np.outer(scale, scale)
    raise ValueError("fit_limit: the data do not tell the parameters apart: give omega, or add sizes further apart")
