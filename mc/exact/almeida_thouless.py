"""The line of de Almeida and Thouless: where the replica-symmetric SK model in a field becomes unstable.

J. R. L. de Almeida and D. J. Thouless, J. Phys. A 11, 983 (1978). Ising spins, couplings of variance 1/N, a uniform
field h; T and h in units of J, k_B = 1, z a standard normal number:

    q = E_z tanh^2((sqrt(q) z + h) / T),        T^2 = E_z sech^4((sqrt(q) z + h) / T)   on the line.

    T -> 1:  h^2 = (4/3) t^3 (1 + t + (17/5) t^2), t = 1 - T        T -> 0:  T = 4 / (3 sqrt(2 pi)) exp(-h^2 / 2)

The leading terms are theirs; the corrections follow from expanding both equations in t (q = t + t^2 - t^3 + ...).

At low temperature sech is a spike of width T / sqrt(q) in z, so that u = (sqrt(q) z + h) / T is integrated over
instead where sqrt(q) > T. Either integrand is analytic in a strip about the real axis that is wide against the
step, and the trapezoidal rule is exact to rounding (L. N. Trefethen and J. A. C. Weideman, SIAM Rev. 56, 385 (2014)).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq

STEP = 0.125
NORMAL = np.arange(-9.5, 9.5 + STEP, STEP)  # z: the weight beyond is below 1e-20
WEIGHT = STEP / math.sqrt(2.0 * math.pi) * np.exp(-0.5 * NORMAL**2)
SCALED = np.arange(-21.0, 21.0 + STEP, STEP)  # u: sech^2 beyond is below 1e-17
SECH2 = 1.0 / np.cosh(SCALED) ** 2
TOLERANCE = dict(xtol=1e-300, rtol=1e-14)
LOWEST_T, HIGHEST_H = 1e-100, 1e100
NEAR = 4e-4  # 1 - T from which on the series is better: it is good to 15 t^3, the equations to 1e-16 / t^2


def overlap(T: float, h: float) -> float:
    """q(T, h) of the replica-symmetric solution, from 0 to 1; at h = 0 the positive one where T < 1, else 0.

    Raises ValueError for T not finite or below 1e-100, or h negative or above 1e100.
    """
    _check_T(T, math.inf)
    _check_h(h)
    if h == 0.0:
        return 0.0 if T >= 1.0 else _q(T, h, 0.1 * (1.0 - T) * (1.0 + T) * T * T)
    return _q(T, h, 0.0)


def stability(T: float, h: float) -> float:
    """T^2 - E_z sech^4 at q(T, h): negative where the replica-symmetric solution is unstable, 0 on the line.

    Raises ValueError for T and h as `overlap` does.
    """
    return _margin(T, h, overlap(T, h))


def line(T: float) -> float:
    """h_AT(T): below this field the replica-symmetric solution is unstable. 0 < T <= 1; h_AT(1) = 0.

    Relative accuracy 1e-9 near T = 1, 1e-12 for 1 - T above 0.01. Raises ValueError for T above 1, or below 1e-100.
    """
    _check_T(T, 1.0)
    t = 1.0 - T
    if t < NEAR:
        return math.sqrt(4.0 / 3.0 * t**3 * (1.0 + t + 3.4 * t * t))
    highest = 1.0 + math.sqrt(2.0 * math.log(1.0 / T))  # above the asymptotes at both ends
    return _root(lambda h: _margin(T, h, _q(T, h, 0.0)), 0.1 * t**1.5, highest)


def temperature(h: float) -> float:
    """T_AT(h), the inverse of `line`: below this temperature the replica-symmetric solution is unstable; T_AT(0) = 1.

    Raises ValueError for h negative, or above 20 (T_AT is 1e-87 there).
    """
    _check_h(h, 20.0)
    if h == 0.0:
        return 1.0
    lowest = -0.5 * h**2 - 4.0
    return math.exp(_root(lambda log_T: line(math.exp(log_T)) - h, lowest, 0.0))


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    return float(brentq(function, low, high, **TOLERANCE))


def _q(T: float, h: float, lowest: float) -> float:
    """The root above `lowest` of q = E tanh^2; unique for h > 0 (F. Guerra, Commun. Math. Phys. 233, 1 (2003))."""
    return _root(lambda q: _excess(T, h, q), lowest, 1.0)


def _excess(T: float, h: float, q: float) -> float:
    """E tanh^2 - q."""
    if math.sqrt(q) <= T:
        return float(WEIGHT @ np.tanh((math.sqrt(q) * NORMAL + h) / T) ** 2) - q
    return (1.0 - q) - float(_scaled_weight(T, h, q) @ SECH2)


def _margin(T: float, h: float, q: float) -> float:
    """T^2 - E sech^4; near T = 1 as the difference of two small numbers instead of two large ones."""
    if math.sqrt(q) <= T:
        squares = np.tanh((math.sqrt(q) * NORMAL + h) / T) ** 2
        return float(WEIGHT @ (squares * (2.0 - squares))) - (1.0 - T) * (1.0 + T)
    return T * T - float(_scaled_weight(T, h, q) @ SECH2**2)


def _scaled_weight(T: float, h: float, q: float) -> np.ndarray:
    """The normal density of z times dz, at the points of u."""
    z = (T * SCALED - h) / math.sqrt(q)
    return STEP * T / math.sqrt(2.0 * math.pi * q) * np.exp(-0.5 * z * z)


def _check_T(T: float, highest: float) -> None:
    if not (math.isfinite(T) and LOWEST_T <= T <= highest):
        most = "" if highest == math.inf else f" and at most {highest:g}"
        raise ValueError(f"T={T}: a finite temperature of at least {LOWEST_T:g}{most} is needed, in units of J")


def _check_h(h: float, highest: float = HIGHEST_H) -> None:
    if not 0 <= h <= highest:
        raise ValueError(f"h={h}: a field from 0 to {highest:g} is needed, in units of J")
