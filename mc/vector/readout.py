"""One spin in a field: its mean phi (the readout), the inverse and the partition function.

A spin s of norm R in R^D with the weight exp(beta s.theta) is von Mises-Fisher distributed. Its mean is exact with
Bessel functions,

    phi(theta) = R I_{D/2}(z) / I_{D/2-1}(z)  theta / |theta|,    z = beta R |theta|,                       (2.21)

and for large D, where R^2 = D/2 - 1, it tends to

    phi(theta) = beta theta / (1 + gamma),    gamma = sqrt(1 + beta^2 |theta|^2 / R^2)                  (2.22, 2.23)

(Honkoop, "Statistical Physics of Transformers", Leiden 2025, after Bal's spin-model transformers). Vectors are rows:
arrays (..., D), with the sites and replicas in front. beta times a field times R has no unit; beta may be 0.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import gammaln, ive

LEAST = 1e-280  # of exp(-z) I_order(z): below it, series take the place of SciPy, which would underflow
FAR = 1e8  # z beyond which series in 1/z do, as SciPy's functions end at 2^30
MOST_TERMS = 400  # of the series and of the continued fraction; both need fewer for orders up to 512


def row_dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a.b of rows, with the axis kept: (..., 1)."""
    return np.einsum("...d,...d->...", a, b)[..., None]


def gamma(theta: np.ndarray, beta: float, radius: float) -> np.ndarray:
    """gamma = sqrt(1 + beta^2 |theta|^2 / R^2) (2.23) of fields (..., D); shape (...)."""
    return np.hypot(1.0, beta / radius * np.linalg.norm(theta, axis=-1))


def large_d(theta: np.ndarray, beta: float, radius: float) -> np.ndarray:
    """phi(theta) for large D (2.22), shape (..., D); shorter than R for every theta."""
    return beta * theta / (1.0 + gamma(theta, beta, radius)[..., None])


def inverse_large_d(mean: np.ndarray, beta: float, radius: float) -> np.ndarray:
    """theta = 2 R^2 m / (beta (R^2 - m^2)), the field with large_d(theta) = m, of means (..., D).

    Raises ValueError for means not shorter than R, which no field has, and for beta = 0.
    """
    if not beta > 0:
        raise ValueError(f"beta={beta}: the readout has an inverse at beta > 0 only")
    gap = radius**2 - row_dot(mean, mean)
    if not (gap > 0).all():
        raise ValueError(f"mean: a norm of {radius:.6g} or more, the radius; only shorter means belong to a field")
    return 2.0 * radius**2 / beta * mean / gap


def bessel_ratio(order: float, z: np.ndarray) -> np.ndarray:
    """I_order(z) / I_{order-1}(z) for order >= 1/2 and z >= 0, the shape of z; from 0 at z = 0 towards 1.

    Where the functions would underflow (z far below the order) it is the continued fraction
    1 / (2 order/z + 1 / (2 (order+1)/z + ...)), from the recurrence of I (Abramowitz and Stegun 9.6.26), which
    converges there at once, and for large z the series in 1/z that solves A' = 1 - A^2 - (2 order - 1) A / z.

    Raises ValueError for other orders and for z below 0.
    """
    z = np.asarray(z, np.float64)
    if not order >= 0.5:
        raise ValueError(f"order={order}: 1/2 or more is needed, as D >= 1")
    if (z < 0).any():
        raise ValueError("z: numbers below 0; z = beta R |theta| is not")
    above, below = ive(order, z), ive(order - 1.0, z)
    small = above < LEAST
    ratio = np.divide(above, below, out=np.zeros_like(z), where=~small)
    rest = z[small]
    value = np.zeros_like(rest)
    for n in range(MOST_TERMS, -1, -1):
        value = rest / (2.0 * (order + n) + rest * value)
    ratio[small] = value
    far = z > FAR
    m, u = 2.0 * order - 1.0, 1.0 / z[far]
    second = m * (m - 2.0) / 8.0
    ratio[far] = 1.0 + u * (-0.5 * m + u * (second + u * (second + u * 0.5 * second * (3.0 - second))))
    return ratio


def exact(theta: np.ndarray, beta: float, radius: float) -> np.ndarray:
    """phi(theta) = R I_{D/2}(z) / I_{D/2-1}(z) theta/|theta|, z = beta R |theta| (2.21), of fields (..., D)."""
    norm = np.linalg.norm(theta, axis=-1, keepdims=True)
    length = radius * bessel_ratio(0.5 * theta.shape[-1], beta * radius * norm)
    return theta * np.divide(length, norm, out=np.zeros_like(norm), where=norm > 0)


def log_partition(beta: float, radius: float, norm: np.ndarray, dimension: int) -> np.ndarray:
    """ln Z of one spin of norm R in a field of norm |h|, the integral of exp(beta s.h) over its sphere.

    Z = (2 pi R)^{D/2} I_{D/2-1}(beta R |h|) / (beta |h|)^{D/2-1}, and at beta |h| = 0 the area of the sphere,
    2 pi^{D/2} R^{D-1} / Gamma(D/2). Its derivative by beta |h| is |exact(h)|.

    Raises ValueError for D below 2, R not positive, and beta |h| below 0.
    """
    if dimension < 2 or not radius > 0:
        raise ValueError(f"D={dimension}, R={radius}: D >= 2 and R > 0 are needed")
    z = np.asarray(beta * radius * np.asarray(norm, np.float64))
    if (z < 0).any():
        raise ValueError("beta |h|: numbers below 0; a norm and an inverse temperature are not")
    order = 0.5 * dimension - 1.0
    area = math.log(2.0) + 0.5 * dimension * math.log(math.pi) - gammaln(order + 1.0)
    area += (dimension - 1.0) * math.log(radius)
    scaled = ive(order, z)
    small = (scaled < LEAST) | (z < math.sqrt(order + 1.0))
    with np.errstate(divide="ignore", invalid="ignore"):  # at z = 0 it is inf - inf, and not used
        late = -0.5 * np.log(2.0 * math.pi * z) - (4.0 * order**2 - 1.0) / (8.0 * z)
        log_scaled = np.where(z > FAR, late, np.log(scaled))
        by_bessel = log_scaled + z - order * np.log(0.5 * z) + gammaln(order + 1.0)
    return area + np.where(small, _log_series(order, np.where(small, z, 0.0)), by_bessel)


def _log_series(order: float, z: np.ndarray) -> np.ndarray:
    """ln of Gamma(order+1) (2/z)^order I_order(z) = sum_k (z^2/4)^k / (k! (order+1)_k); all terms are positive."""
    term, total = np.ones_like(z), np.ones_like(z)
    for k in range(1, MOST_TERMS):
        term = term * (0.25 * z * z) / (k * (order + k))
        total = total + term
        if (term <= 1e-17 * total).all():
            break
    return np.log(total)
