"""Exact laws of one and two vector spins by quadrature over angles, without Bessel functions; for all test files.

k = beta R |field| throughout, up to some hundreds; R = sqrt(D/2 - 1).
"""

from __future__ import annotations

import math

import numpy as np
from scipy import integrate, stats


def gauss_angles(n):
    """Gauss-Legendre angles and weights (n,) between 0 and pi."""
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return 0.5 * math.pi * (nodes + 1.0), 0.5 * math.pi * weights


ANGLES, ANGLE_WEIGHTS = gauss_angles(240)
COARSE, COARSE_WEIGHTS = gauss_angles(100)


def radius(dimension):
    return math.sqrt(0.5 * dimension - 1.0)


def log_sphere(dimension, norm):
    """ln of the surface of a sphere in R^D: a Gaussian integral in Cartesian over that in polar coordinates."""
    polar, _ = integrate.quad(lambda r: r ** (dimension - 1) * math.exp(-0.5 * r * r), 0.0, np.inf)
    return 0.5 * dimension * math.log(2.0 * math.pi) - math.log(polar) + (dimension - 1) * math.log(norm)


def _cosine_law(k, dimension):
    """Weights (..., angles) of the cosines of a spin in a field, and ln of their sum over that at k = 0, (...)."""
    k = np.asarray(k, np.float64)[..., None]
    base = ANGLE_WEIGHTS * np.sin(ANGLES) ** (dimension - 2)
    weights = base * np.exp(k * (np.cos(ANGLES) - 1.0))
    total = weights.sum(axis=-1, keepdims=True)
    return weights / total, np.log(total[..., 0] / base.sum()) + k[..., 0]


def log_z_one(k, dimension):
    """ln Z of one spin."""
    return log_sphere(dimension, radius(dimension)) + _cosine_law(k, dimension)[1]


def cosine_moments(k, dimension):
    """Mean A(k) and variance of the cosine of a spin to its field, of k (...)."""
    weights, cosines = _cosine_law(k, dimension)[0], np.cos(ANGLES)
    mean = weights @ cosines
    return mean, weights @ cosines**2 - mean**2


def law_p_value(values, log_density, low, high):
    """Kolmogorov-Smirnov p-value of independent values in [low, high] against a density ~ exp(log_density)."""
    x = np.linspace(low, high, 40_001)
    logs = log_density(x)
    cumulative = integrate.cumulative_simpson(np.exp(logs - logs.max()), x=x, initial=0.0)
    return float(stats.kstest(values, lambda v: np.interp(v, x, cumulative / cumulative[-1])).pvalue)


def cosine_p_value(cosines, log_weight, dimension):
    """The same of cosines w in R^D with the density exp(log_weight(w)) (1 - w^2)^((D-3)/2)."""

    def log_density(angles):
        return log_weight(np.cos(angles)) + (dimension - 2) * np.log(np.maximum(np.sin(angles), 1e-300))

    return law_p_value(np.arccos(np.clip(cosines, -1.0, 1.0)), log_density, 0.0, math.pi)


def vmf_p_value(cosines, k, dimension):
    """The same of the cosines of a spin to its field."""
    return cosine_p_value(cosines, lambda w: k * w, dimension)


class TwoSpins:
    """Two spins with fields x (2, D) and a bond K, in equilibrium at beta > 0; s_1 on a grid of angles, s_2 summed.

    spin (n, 2): s_1 along x_1, and across it in the plane of x_1 and x_2. weights (n,): its law, ~ exp(beta x_1.s_1)
    Z(beta R |x_2 + K s_1|).
    """

    def __init__(self, x, bond, beta):
        self.dimension, self.radius, self.beta = x.shape[1], radius(x.shape[1]), beta
        along = np.linalg.norm(x[0])
        second = x[1] @ x[0] / along
        self.first = np.array([along, 0.0])
        other = np.array([second, math.sqrt(x[1] @ x[1] - second**2)])
        theta, phi = (a.ravel() for a in np.meshgrid(COARSE, COARSE, indexing="ij"))
        base = np.outer(COARSE_WEIGHTS, COARSE_WEIGHTS).ravel()
        base = base * np.sin(theta) ** (self.dimension - 2) * np.sin(phi) ** (self.dimension - 3)
        self.spin = self.radius * np.stack([np.cos(theta), np.sin(theta) * np.cos(phi)], axis=1)
        square = other @ other + 2.0 * bond * self.spin @ other + (bond * self.radius) ** 2
        self.field = np.sqrt(np.maximum(square, 0.0))  # |x_2 + K s_1|
        logs = beta * self.spin @ self.first + log_z_one(beta * self.radius * self.field, self.dimension)
        weights = base * np.exp(logs - logs.max())
        sphere = log_sphere(self.dimension, self.radius)
        self.log_z = sphere + math.log(weights.sum() / base.sum()) + float(logs.max())
        self.weights = weights / weights.sum()

    def energy(self):
        """<E> and <E^2> - <E>^2."""
        cosine, variance = cosine_moments(self.beta * self.radius * self.field, self.dimension)
        mean = -(self.spin @ self.first) - self.radius * self.field * cosine
        total = self.weights @ mean
        square = self.weights @ (mean**2 + (self.radius * self.field) ** 2 * variance)
        return float(total), float(square - total**2)

    def spin_mean(self):
        """<s_1> along x_1, and across it."""
        return self.weights @ self.spin

    def energy_p_value(self, energies):
        """Kolmogorov-Smirnov p-value of independent energies, in three dimensions.

        There the cosine of s_2 to its field has the cumulative law (e^kw - e^-k) / (e^k - e^-k), E is lower than e
        where it is high, and grids of both make P(E < e).
        """
        assert self.dimension == 3
        scale = self.radius * self.field
        k = self.beta * scale

        def below(values):
            w = np.clip((-np.asarray(values)[:, None] - self.spin @ self.first) / scale, -1.0, 1.0)
            return ((1.0 - np.exp(k * (w - 1.0))) / (1.0 - np.exp(-2.0 * k))) @ self.weights

        grid = np.linspace(energies.min(), energies.max(), 400)
        return float(stats.kstest(energies, lambda v: np.interp(v, grid, below(grid))).pvalue)


def z_values(samples, expected):
    """How many standard errors the mean of independent rows samples (n, ...) is off `expected`; (...)."""
    return (samples.mean(axis=0) - expected) / (samples.std(axis=0, ddof=1) / math.sqrt(len(samples)))


def plane_of(x):
    """Unit vectors along x_1, and across it in the plane of x_1 and x_2, of fields x (2, D)."""
    along = x[0] / np.linalg.norm(x[0])
    across = x[1] - (x[1] @ along) * along
    return np.stack([along, across / np.linalg.norm(across)])
