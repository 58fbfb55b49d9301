"""Second order of the Plefka expansion of kinetic vector spins: theta of the published TAP and of the Onsager form.

Mean field replaces the field that a spin feels by theta_i, with m_i = phi(theta_i) (`mc.vector.readout`, large D).
To first order theta_i = x_i + sum_j J_ij m_j; to second order a reaction of the spin through its neighbours enters
(Honkoop, "Statistical Physics of Transformers", Leiden 2025, eq. 2.17 to 2.20, after Bal). m is the mean now,
`before` that of one time step earlier. With g = gamma_i, v = x_i + sum_j J_ij m_j - theta_i, C_j the covariance of
spin j, T = v v^T + sum_j J_ij^2 C_j and tau = v^2 + sum_j J_ij^2 (R^2 - m_j^2), the second derivative of m_i at
alpha = 0 is

    m'' = (beta^2/R^4) (1+3g)/g^3 (m.T m) m - (beta^2/R^2)/(g (1+g)) (tau m + 2 T m)

and the published form takes

    theta_i = x_i + sum_j J_ij m_j + (1+g)/(2 beta) [ m'' + (1+g)/R^2 (m.m'') m ].                        (2.20)

Without v, which is of higher order, and to leading order in 1/D it is the usual Onsager reaction,

    theta_i = x_i + sum_j J_ij m_j - (beta/2) m_i sum_j J_ij^2 (1 - m_j^2/R^2).

The text writes gamma_i in the sum over j, which needs gamma_j, as here. Shapes: theta, before, fields (N, D);
couplings (N, N), the diagonal as it is; a call costs O(N^2 D), as T is met in products with m only.
"""

from __future__ import annotations

import numpy as np

from mc.vector.readout import gamma, large_d, row_dot

NEWTON_STEPS = 60  # most; some 5 are needed


def published(theta, before, fields, couplings, beta: float, radius: float) -> np.ndarray:
    """Right-hand side of (2.20) at the present theta (N, D), with m = phi(theta): theta is found where it returns it.

    In the unknown m, as the text has it, it is published(inverse_large_d(m, ...), ...). beta may be 0.
    """
    g = gamma(theta, beta, radius)[:, None]
    m = large_d(theta, beta, radius)
    square = couplings * couplings
    length = row_dot(before, before)
    gap = radius**2 - length
    gamma_before = (radius**2 + length) / gap
    mean_field = fields + couplings @ before
    v = mean_field - theta
    tau = row_dot(v, v) + square @ gap
    spread = square @ (1.0 / (1.0 + gamma_before))
    along = (square * (m @ before.T)) @ (before / (radius**2 * gamma_before))
    t_m = v * row_dot(v, m) + spread * m - along
    second = (1.0 + 3.0 * g) / (radius**2 * g**3) * row_dot(m, t_m) * m - (tau * m + 2.0 * t_m) / (g * (1.0 + g))
    return mean_field + 0.5 * beta / radius**2 * (1.0 + g) * (second + (1.0 + g) / radius**2 * row_dot(m, second) * m)


def onsager(theta, before, fields, couplings, beta: float, radius: float) -> np.ndarray:
    """Right-hand side of the Onsager form at the present theta (N, D), with m = phi(theta)."""
    reaction = _reaction(before, couplings, beta, radius)
    return fields + couplings @ before - reaction * large_d(theta, beta, radius)


def onsager_solved(before, fields, couplings, beta: float, radius: float) -> np.ndarray:
    """The theta (N, D) with onsager(theta, ...) = theta. There is exactly one.

    theta_i is parallel to h_i = x_i + sum_j J_ij m_j, and its norm s solves s + r |phi|(s) = |h_i| with r >= 0, whose
    left side grows and is concave: Newton's method from the left cannot miss.
    """
    field = fields + couplings @ before
    reaction = _reaction(before, couplings, beta, radius)
    norm = np.linalg.norm(field, axis=1, keepdims=True)
    s = norm / (1.0 + 0.5 * beta * reaction)
    for _ in range(NEWTON_STEPS):
        g = np.hypot(1.0, beta / radius * s)
        step = (norm - s - reaction * beta * s / (1.0 + g)) / (1.0 + reaction * beta / (g * (1.0 + g)))
        s = s + step
        if not (np.abs(step) > 1e-15 * norm).any():
            break
    return field * np.divide(s, norm, out=np.ones_like(norm), where=norm > 0)


def _reaction(before, couplings, beta: float, radius: float) -> np.ndarray:
    """(beta/2) sum_j J_ij^2 (1 - m_j^2/R^2), (N, 1)."""
    return 0.5 * beta * ((couplings * couplings) @ (1.0 - row_dot(before, before) / radius**2))
