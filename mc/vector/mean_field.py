"""Mean field of vector spins: the stationary magnetisation of kinetic dynamics, to first and to second order.

The fixed point m_i = phi(theta_i(m)) of naive mean field (`nmf`, theta_i = x_i + sum_j J_ij m_j; Honkoop,
"Statistical Physics of Transformers", Leiden 2025, eq. 2.24, whose m_i in the sum must read m_j), of TAP as published
(`tap`, eq. 2.20) and with the Onsager reaction alone (`tap_onsager`), see `mc.vector.tap`. J is taken as it is, the
diagonal included. Three schemes look for it:

    substitution   m <- (1-d) phi(theta(m, m)) + d m, damping d
    time-steps     m_t = (1-d) phi(theta(m_t, m_t-1)) + d m_t-1, as in the thesis. The reaction holds m_t itself, so
                   every step is an equation: that of the Onsager form has one root, which Newton's method finds,
                   that of the published form is left to Anderson mixing by SciPy
    anderson       Anderson mixing by SciPy on the stationary equation

Substitution fails where the map from m to m falls too steeply, which is where the reaction no longer corrects theta
but makes it. A root may exist there all the same. `reaction` says so: at 1 or more a root solves the equations, but
the expansion behind them has no reason to hold. With the N = 64, D = 32 glass of the thesis at beta = 5 the published
form has such a root, at q = 0.010 with a reaction of 23, where the kinetic Monte Carlo has q = 0.58: the other two
schemes find it, while substitution flips signs for ever, as the thesis reports of TAP.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
from scipy.linalg import LinAlgWarning
from scipy.optimize import root

from mc.vector import readout, tap
from mc.vector.alignment import cosines

METHODS = ("nmf", "tap", "tap_onsager")
BESSEL = ("large-D", "exact")
SCHEMES = ("substitution", "time-steps", "anderson")
DAMPING = 0.6  # of substitution to second order; first order and time steps need none
INNER_STEPS = 200  # of Anderson mixing in one time step
MOST_UNSOLVED = 20  # time steps without a solution before the run ends
LAST = 10  # steps in which a change of sign is looked for
INSIDE = 1.0 - 1e-12  # of the radius: longest mean, which rounding may exceed


@dataclass(frozen=True, eq=False)
class MeanField:
    """What a mean-field run ended with.

    m: magnetisation (N, D), in units of the spins, shorter than R. q: mean of |m_i|^2 / R^2. alignment: mean of
    cos(m_i, x_i) over the sites with a field, nan if there are none. converged: whether `residual`, the largest
    |phi(theta_i(m)) - m_i| / R, came below the tolerance. iterations: evaluations of the map, outer ones. reason: why
    it stopped, "converged" or "flips sign", "does not settle", "too few steps", "time step not solved", "not finite".
    reaction: rms of theta_i - x_i - sum_j J_ij m_j over rms of theta_i, 0 for nmf; the second order is a correction
    only where this is well below 1.
    """

    m: np.ndarray
    q: float
    alignment: float
    converged: bool
    residual: float
    iterations: int
    reason: str
    reaction: float


class _NotFinite(Exception):
    """A map left the numbers; ends SciPy's iteration."""


def solve(
    fields: np.ndarray,
    couplings: np.ndarray,
    beta: float,
    method: str = "nmf",
    *,
    bessel: str = "large-D",
    scheme: str = "substitution",
    damping: float | None = None,
    start: np.ndarray | None = None,
    max_steps: int = 2000,
    tolerance: float = 1e-9,
) -> MeanField:
    """The stationary magnetisation of fields x (N, D) and couplings J (N, N) at beta >= 0; see the module.

    bessel: "large-D" or "exact", the latter for nmf. damping: the share of the old m, in [0, 1); None takes 0 for nmf
    and for time steps, 0.6 otherwise; `anderson` has none. start: m (N, D), None for phi(x), the one spin without
    couplings. tolerance: of the residual, in units of R. A run that does not converge is reported, not raised.

    Raises ValueError for unknown words, the exact Bessel ratio with tap, D below 3, beta below 0, other shapes,
    numbers that are not finite, and settings out of range.
    """
    fields, couplings = np.array(fields, np.float64), np.array(couplings, np.float64)
    _check_words(method, bessel, scheme)
    _check_numbers(fields, couplings, beta, damping, max_steps, tolerance)
    radius = math.sqrt(0.5 * fields.shape[1] - 1.0)
    model = _Model(fields, couplings, float(beta), radius, method, bessel)
    m = readout.large_d(fields, beta, radius) if start is None else np.array(start, np.float64)
    if m.shape != fields.shape or not np.isfinite(m).all():
        raise ValueError(f"start: shape {m.shape}, finite numbers of shape {fields.shape} are needed")
    if damping is None:
        damping = DAMPING if scheme == "substitution" and method != "nmf" else 0.0
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", LinAlgWarning)  # of Anderson mixing, when its steps become parallel
        if scheme == "anderson":
            return _anderson(model, m, max_steps, tolerance)
        step = partial(_time_step, tolerance=tolerance) if scheme == "time-steps" else _substitution
        return _steps(model, step, m, damping, max_steps, tolerance)


@dataclass(frozen=True, eq=False)
class _Model:
    fields: np.ndarray
    couplings: np.ndarray
    beta: float
    radius: float
    method: str
    bessel: str

    def phi(self, theta: np.ndarray) -> np.ndarray:
        form = readout.exact if self.bessel == "exact" else readout.large_d
        return form(theta, self.beta, self.radius)

    def theta(self, now: np.ndarray, before: np.ndarray) -> np.ndarray:
        """theta at the mean of the time step `before`, where it is `now`; both (N, D)."""
        if self.method == "nmf":
            return self.fields + self.couplings @ before
        form = tap.published if self.method == "tap" else tap.onsager
        return form(now, before, self.fields, self.couplings, self.beta, self.radius)

    def onsager_solved(self, before: np.ndarray) -> np.ndarray:
        return tap.onsager_solved(before, self.fields, self.couplings, self.beta, self.radius)

    def inverse(self, m: np.ndarray) -> np.ndarray:
        return readout.inverse_large_d(m, self.beta, self.radius)

    def inside(self, m: np.ndarray) -> np.ndarray:
        """m with rows cut to just below R, where rounding or a start made them longer."""
        norm = np.linalg.norm(m, axis=1, keepdims=True)
        return m * np.minimum(1.0, np.divide(INSIDE * self.radius, norm, out=np.ones_like(norm), where=norm > 0))

    def distance(self, new: np.ndarray, m: np.ndarray) -> float:
        """Largest |new_i - m_i| / R."""
        return float(np.linalg.norm(new - m, axis=1).max() / self.radius)

    def reaction(self, theta: np.ndarray, m: np.ndarray) -> float:
        """rms of theta_i - x_i - sum_j J_ij m_j over rms of theta_i; 0 where theta is."""
        size = np.linalg.norm(theta)
        return float(np.linalg.norm(theta - self.fields - self.couplings @ m) / size) if size > 0 else 0.0


def _substitution(model: _Model, m: np.ndarray) -> tuple[np.ndarray, bool]:
    """phi(theta(m, m))."""
    if model.method == "nmf" or model.beta == 0:
        return model.phi(model.fields + model.couplings @ m), True
    m = model.inside(m)
    return model.phi(model.theta(model.inverse(m), m)), True


def _time_step(model: _Model, m: np.ndarray, tolerance: float) -> tuple[np.ndarray, bool]:
    """The m_t with m_t = phi(theta(m_t, m)), and whether it was found."""
    if model.method == "nmf":
        return _substitution(model, m)
    before = model.inside(m)
    theta, solved = model.onsager_solved(before), True
    if model.method == "tap":
        # The map falls with a slope of about the reaction, so this begins with the step of Newton's method.
        alpha = 1.0 / (1.0 + model.reaction(theta, before))
        accuracy = 0.1 * tolerance * model.radius
        theta, solved = _mix(lambda now: model.theta(now, before) - now, theta, INNER_STEPS, accuracy, alpha)
    return model.phi(theta), solved


def _steps(model: _Model, step, m, damping, max_steps, tolerance) -> MeanField:
    """m <- (1-d) step(m) + d m until it stays."""
    residuals, signs, unsolved = [], [], 0
    while len(residuals) < max_steps and unsolved < MOST_UNSOLVED:
        new, solved = step(model, m)
        if not np.isfinite(new).all():
            return _result(model, m, residuals[-1] if residuals else math.inf, len(residuals) + 1, "not finite")
        residuals.append(model.distance(new, m))
        signs.append(float((new * m).sum()) < 0)
        unsolved += not solved
        if residuals[-1] < tolerance and solved:
            return _result(model, new, residuals[-1], len(residuals), "converged")
        m = (1.0 - damping) * new + damping * m
    if any(signs[-LAST:]):
        reason = "flips sign"
    elif unsolved >= MOST_UNSOLVED:
        reason = "time step not solved"
    else:
        reason = "too few steps" if _still_falls(residuals) else "does not settle"
    return _result(model, m, residuals[-1], len(residuals), reason)


def _anderson(model: _Model, m, max_steps, tolerance) -> MeanField:
    """Anderson mixing on the stationary equation: in theta for the published form (any theta will do), else in m."""
    calls, best = 0, (math.inf, m)
    in_theta = model.method == "tap" and model.beta > 0

    def miss(unknown):
        nonlocal calls, best
        calls += 1
        if in_theta:
            now = model.phi(unknown)
            found = model.theta(unknown, now)
            new = model.phi(found)
        else:
            now, found = unknown, _time_step(model, unknown, tolerance)[0]
            new = found
        if not np.isfinite(found).all():
            raise _NotFinite
        residual = model.distance(new, now)
        if residual < best[0]:
            best = (residual, new)
        return found - unknown

    accuracy = 0.5 * tolerance * model.radius / math.sqrt(m.shape[1])
    reason = "does not settle"
    try:
        if in_theta:  # its map may be steep: begin as SciPy would, if not further than substitution, and with care
            unknown = model.inverse(model.inside(m))
            first = np.linalg.norm(miss(unknown))
            alpha = min(1.0, 0.5 * max(np.linalg.norm(unknown), 1.0) / first) if first > 0 else 1.0
            _mix(miss, unknown, max_steps, accuracy, alpha, "armijo")
        else:
            _mix(miss, m, max_steps, accuracy, 1.0)
    except _NotFinite:
        reason = "not finite"
    return _result(model, best[1], best[0], calls, "converged" if best[0] < tolerance else reason)


def _mix(miss, start, most: int, accuracy: float, alpha: float, line_search: str | None = None):
    """A root of `miss` by Anderson mixing from `start`, and whether SciPy calls it one; a breakdown is none."""
    options = dict(maxiter=most, fatol=accuracy, line_search=line_search, jac_options=dict(alpha=alpha))
    try:
        found = root(miss, start, method="anderson", options=options)
    except (ValueError, ArithmeticError, np.linalg.LinAlgError):
        return start, False
    return found.x.reshape(start.shape), bool(found.success)


def _result(model: _Model, m, residual, iterations, reason) -> MeanField:
    reaction = 0.0
    if model.method != "nmf" and model.beta > 0:
        inside = model.inside(m)
        reaction = model.reaction(model.inverse(inside), inside)
    return MeanField(
        m=m,
        q=float((m**2).sum() / (len(m) * model.radius**2)),
        alignment=float(cosines(m, model.fields)),
        converged=reason == "converged",
        residual=float(residual),
        iterations=iterations,
        reason=reason,
        reaction=reaction,
    )


def _still_falls(residuals: list[float]) -> bool:
    """Whether the residual of the last tenth of the steps never rose and came down."""
    last = residuals[-max(2, len(residuals) // 10) :]
    return all(b <= a for a, b in pairwise(last)) and last[-1] < last[0]


def _check_words(method: str, bessel: str, scheme: str) -> None:
    for key, value, words in (("method", method, METHODS), ("bessel", bessel, BESSEL), ("scheme", scheme, SCHEMES)):
        if value not in words:
            raise ValueError(f"{key}={value}: unknown; {', '.join(words)} are known")
    if bessel == "exact" and method != "nmf":
        raise ValueError(f"bessel=exact with method={method}: second order is known for large D only; use large-D")


def _check_numbers(fields, couplings, beta, damping, max_steps, tolerance) -> None:
    if fields.ndim != 2 or fields.shape[0] < 1 or fields.shape[1] < 3:
        raise ValueError(f"fields: shape {fields.shape}, (N, D) with D >= 3 is needed, as R = sqrt(D/2 - 1)")
    if couplings.shape != (len(fields),) * 2:
        raise ValueError(f"couplings: shape {couplings.shape}, {(len(fields),) * 2} is needed for the fields")
    if not (np.isfinite(fields).all() and np.isfinite(couplings).all()):
        raise ValueError("fields or couplings: NaN or infinite numbers")
    if not 0 <= beta < math.inf:
        raise ValueError(f"beta={beta}: a finite inverse temperature of 0 or more is needed")
    if damping is not None and not 0 <= damping < 1:
        raise ValueError(f"damping={damping}: the share of the old m is in [0, 1)")
    if max_steps < 1 or not tolerance > 0:
        raise ValueError(f"max_steps={max_steps}, tolerance={tolerance}: at least one step and a tolerance above 0")
