"""The square-lattice Ising ferromagnet on a torus: B. Kaufman, Phys. Rev. 76, 1232 (1949).

With K = beta J and n columns of M sites, Kaufman's partition function is a sum of four products,

    Z = (1/2) (2 sinh 2K)^(nM/2) [ prod_odd 2cosh(M g_l/2) + prod_odd 2sinh(M g_l/2)
                                 + prod_even 2cosh(M g_l/2) + prod_even 2sinh(M g_l/2) ],
    cosh g_l = cosh 2K coth 2K - cos(pi l / n),    l = 0 .. 2n-1,

where g_0 = 2K + ln tanh K changes sign at the critical point. Three rewritings make it exact in float64:

* sqrt(2 sinh 2K) goes into each factor: every mode carries f_l = g_l + ln(2 sinh 2K), finite at K -> 0;
* the factors of l = 0 are (2 sinh 2K)^(M/2) 2cosh(M g_0/2) = a^M + b^M and, with sinh, a^M - b^M, where
  a = exp(2K) - 1 and b = exp(-2K) + 1. Splitting them gives Z = (1/2) sum of six smooth products, five with a
  plus sign and one with a minus sign, and nothing special happens at the critical point;
* with v = exp(-2K) and sigma_l = sin^2(pi l / 2n), f and g follow from two sums of squares,
      A = (1 + v^2)^2 + 4 v (1 - v^2) sigma,    B = (1 - 2v - v^2)^2 + 4 v (1 - v^2) sigma,
      f = 4K + 2 ln((sqrt A + sqrt B)/2),       g = 2 artanh(sqrt(B/A)),
  so nothing cancels, whichever side of the critical point K lies on.

Derivatives in K are analytic, and are combined with the products as weights.
"""

from __future__ import annotations

import math

import numpy as np

from mc.exact.result import ExactRefused, ExactResult, checked_beta


def kaufman_torus(Lx: int, Ly: int, coupling: float, beta: float) -> ExactResult:
    """ln Z, <E> and heat capacity of E = -J sum_<ij> s_i s_j on an Lx x Ly torus, N = Lx Ly, without a field.

    coupling: J in energy units, of either sign; J < 0 needs even Lx and Ly (flipping one sublattice then turns it
    into |J|). beta: inverse temperature. Relative accuracy about 1e-15 for ln Z, 1e-13 for <E> and 1e-12 for the heat
    capacity up to beta |J| = 2; colder, the heat capacity is itself of order exp(-8 beta |J|) and keeps an absolute
    error of about 1e-15 N exp(-2 beta |J|).

    The degeneracy is None for J = 0, where every state is a ground state.
    Raises ExactRefused for a side shorter than 3 or an odd side with J < 0; ValueError for beta < 0 or a coupling
    that is not finite.
    """
    beta = checked_beta(beta)
    if not math.isfinite(coupling):
        raise ValueError(f"coupling={coupling}: a finite number is needed")
    if min(Lx, Ly) < 3:
        raise ExactRefused(f"Kaufman torus {Lx} x {Ly}: a side below 3 counts bonds twice; use sides of 3 or more")
    if coupling < 0 and (Lx % 2 or Ly % 2):
        raise ExactRefused(
            f"Kaufman torus {Lx} x {Ly}: J < 0 on an odd side is frustrated; use even sides, or the transfer matrix"
        )
    n_sites, strength = Lx * Ly, abs(float(coupling))
    ground_energy, degeneracy = (-2.0 * n_sites * strength, 2.0) if strength else (0.0, None)
    K = beta * strength
    if K < 1e-100:  # the leading order, where 1/K^2 below would overflow
        log_z, slope, curvature = n_sites * math.log(2.0), 2.0 * n_sites * K, 2.0 * n_sites
    else:
        log_z, slope, curvature = _log_z_and_derivatives(min(Lx, Ly), max(Lx, Ly), K)
    return ExactResult(
        "kaufman", beta, log_z, 0.0 - strength * slope, K * K * max(curvature, 0.0), ground_energy, degeneracy
    )


def _log_z_and_derivatives(n: int, M: int, K: float) -> tuple[float, float, float]:
    """ln Z, d ln Z/dK, d^2 ln Z/dK^2 of n columns of M sites."""
    odd, even = np.arange(1, 2 * n, 2), np.arange(2, 2 * n, 2)  # l = 0 apart
    odd_cosh, odd_sinh = _product(odd, n, M, K, 1.0), _product(odd, n, M, K, -1.0)
    even_cosh, even_sinh = _product(even, n, M, K, 1.0), _product(even, n, M, K, -1.0)
    v, one_minus_v = math.exp(-2.0 * K), -math.expm1(-2.0 * K)
    # ln a^M and ln b^M with their derivatives
    log_a = M * np.array([2.0 * K + math.log(one_minus_v), 2.0 / one_minus_v, -4.0 * v / one_minus_v**2])
    log_b = M * np.array([math.log1p(v), -2.0 * v / (1.0 + v), 4.0 * v / (1.0 + v) ** 2])
    products = [odd_cosh, odd_sinh, log_a + even_cosh, log_b + even_cosh, log_a + even_sinh, log_b + even_sinh]
    value, slope, curvature = np.array(products).T  # (6,) each
    sign = np.array([1.0, 1.0, 1.0, 1.0, 1.0, -1.0])
    largest = value.max()
    weight = sign * np.exp(value - largest)
    total = weight.sum()
    weight /= total
    # Slopes relative to the first product, which is never negligible: their squares then do not cancel.
    relative = slope - slope[0]
    mean = weight @ relative
    return (
        float(largest + math.log(total) - math.log(2.0)),
        float(slope[0] + mean),
        float(weight @ (curvature + relative**2) - mean**2),
    )


def _product(modes: np.ndarray, n: int, M: int, K: float, sign: float) -> np.ndarray:
    """ln prod_l (2 sinh 2K)^(M/2) 2cosh(M g_l/2) (sign +1) or 2sinh (sign -1), and two derivatives in K; shape (3,).

    Each factor is exp(M f_l/2) (1 + sign exp(-M g_l)).
    """
    f, f1, f2, g, g1, g2 = _dispersion(modes, n, K)
    x = np.exp(-M * g)
    occupation = sign * x / (1.0 + sign * x) if sign > 0 else -x / -np.expm1(-M * g)
    return np.array(
        [
            (0.5 * M * f + np.log1p(sign * x)).sum(),
            (0.5 * M * f1 - M * g1 * occupation).sum(),
            (0.5 * M * f2 - M * g2 * occupation + (M * g1) ** 2 * occupation * (1.0 - occupation)).sum(),
        ]
    )


def _dispersion(modes: np.ndarray, n: int, K: float) -> tuple[np.ndarray, ...]:
    """f, f', f'', g, g', g'' of the modes l (none of them 0), derivatives in K; each of shape (len(modes),)."""
    v, one_minus_v2 = math.exp(-2.0 * K), -math.expm1(-4.0 * K)
    sigma = np.sin(0.5 * np.pi * modes / n) ** 2
    shared = 4.0 * v * one_minus_v2 * sigma
    detuning = 1.0 - 2.0 * v - v * v  # zero at the critical point
    a = (1.0 + v * v) ** 2 + shared
    b = detuning**2 + shared
    shared_v, shared_vv = 4.0 * (1.0 - 3.0 * v * v) * sigma, -24.0 * v * sigma
    root_a, root_a1, root_a2 = _root(a, 4.0 * v * (1.0 + v * v) + shared_v, 4.0 + 12.0 * v * v + shared_vv, v)
    root_b, root_b1, root_b2 = _root(
        b, -4.0 * detuning * (1.0 + v) + shared_v, 4.0 + 24.0 * v + 12.0 * v * v + shared_vv, v
    )
    total, relative = root_a + root_b, (root_a1 + root_b1) / (root_a + root_b)
    f = 4.0 * K + 2.0 * np.log(0.5 * total)
    f1 = 4.0 + 2.0 * relative
    f2 = 2.0 * (root_a2 + root_b2) / total - 2.0 * relative**2
    # g = f - ln(2 sinh 2K), written without overflow; near g = 0 that would cancel, and artanh does not.
    ratio = root_b / root_a
    g = np.where(
        ratio < 0.9, 2.0 * np.arctanh(np.minimum(ratio, 0.9)), f - 2.0 * K - math.log(one_minus_v2)
    )  # both arguments stay finite
    g1 = f1 - 2.0 * (1.0 + v * v) / one_minus_v2
    g2 = f2 + 16.0 * v * v / one_minus_v2**2
    return f, f1, f2, g, g1, g2


def _root(y: np.ndarray, y_v: np.ndarray, y_vv: np.ndarray, v: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """sqrt(y) and its first two derivatives in K, from the derivatives of y in v = exp(-2K)."""
    root = np.sqrt(y)
    y1, y2 = -2.0 * v * y_v, 4.0 * v * (v * y_vv + y_v)  # dv/dK = -2v
    return root, 0.5 * y1 / root, 0.5 * y2 / root - 0.25 * (y1 / root) ** 2 / root
