"""Laws of vectors on spheres from Bessel functions, and stars of spins in R^3 by quadrature; for tests of kernels."""

from __future__ import annotations

import numpy as np
from scipy import special, stats
from scipy.integrate import cumulative_simpson


def mean_cosine(kappa, dimension):
    """<w> = I_{D/2}(kappa) / I_{D/2-1}(kappa) of a von Mises-Fisher vector."""
    if kappa < dimension:  # the scaled Bessel functions of high order underflow there
        square = kappa**2 / 4
        return kappa / dimension * special.hyp0f1(dimension / 2 + 1, square) / special.hyp0f1(dimension / 2, square)
    return special.ive(dimension / 2, kappa) / special.ive(dimension / 2 - 1, kappa)


def mean_square_cosine(kappa, dimension):
    """<w^2> = 1 - (D - 1) <w> / kappa, by the Bessel equation."""
    return 1.0 - (dimension - 1) * mean_cosine(kappa, dimension) / kappa if kappa > 0 else 1.0 / dimension


def gap_cdf(kappa, dimension):
    """Distribution function of 1 - w, density ~ exp(-kappa g) (g (2 - g))^((D - 3) / 2), by Simpson's rule."""
    shape = (dimension - 1) / 2
    # The law ends before the Gamma law that it turns into at large kappa; in sqrt(g) it is smooth for every D.
    end = min(2.0, stats.gamma.isf(1e-15, shape) / kappa) if kappa > 0 else 2.0
    root = np.linspace(0.0, np.sqrt(end), 20_001)
    gap = np.minimum(root**2, 2.0)
    with np.errstate(divide="ignore"):
        power = (dimension - 3) / 2 * np.log(gap * (2.0 - gap)) if dimension > 3 else 0.0
    density = np.exp(-kappa * gap + power - np.max(-kappa * gap + power)) * root
    cumulative = cumulative_simpson(density, x=root, initial=0.0)
    return lambda g: np.interp(np.sqrt(g), root, cumulative / cumulative[-1])


def moment_p_value(sample, mean):
    """Two-sided p-value of the mean of independent draws (n,)."""
    return float(2.0 * stats.norm.sf(abs(sample.mean() - mean) / (sample.std(ddof=1) / np.sqrt(len(sample)))))


def directions(n):
    """Nodes (2 n^2, 3) and weights, which sum to 1, of a product rule on the unit sphere in R^3."""
    height, weight = np.polynomial.legendre.leggauss(n)
    angle = np.arange(2 * n) * np.pi / n
    flat = np.sqrt(1.0 - height**2)
    nodes = np.stack([np.outer(flat, np.cos(angle)), np.outer(flat, np.sin(angle)), np.outer(height, np.ones(2 * n))])
    return nodes.reshape(3, -1).T, np.repeat(weight, 2 * n) / (4 * n)


def star_energy(fields, exchange, beta, radius):
    """(<E>, <E^2>) of a star in R^3: spin 0 couples to all others, and those to spin 0 only.

    fields (N, 3), exchange (N,) the couplings of spin 0, that to itself ignored. The others are integrated out: each
    is von Mises-Fisher in x_i + K_0i s_0.
    """
    nodes, weights = directions(60)
    center = radius * nodes
    mean = -center @ fields[0]
    log_weight, variance = -beta * mean, np.zeros(len(center))
    for field, coupling in zip(fields[1:], exchange[1:], strict=True):
        strength = radius * np.linalg.norm(field + coupling * center, axis=1)
        kappa = beta * strength
        cosine = 1.0 / np.tanh(kappa) - 1.0 / kappa
        log_weight += kappa + np.log(-np.expm1(-2.0 * kappa) / kappa)  # ln(sinh(kappa) / kappa), but for ln 2
        mean = mean - strength * cosine
        variance += strength**2 * (1.0 - 2.0 * cosine / kappa - cosine**2)
    law = weights * np.exp(log_weight - log_weight.max())
    law /= law.sum()
    return law @ mean, law @ (mean**2 + variance)
