"""Exact values of vector spins that are independent, or joined by bonds without a loop and without fields.

One spin in a field of norm f has Z(beta, R, f), a modified Bessel function (`mc.vector.readout.log_partition`), and
the mean cosine A(k) = I_{D/2}(k) / I_{D/2-1}(k), k = beta R f. Without fields the spins of a tree can be turned one
after another: each bond K_ij is a spin of norm R in a field of norm |K_ij| R, and one spin of every tree is free.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from mc.exact.result import ExactRefused, ExactResult
from mc.vector.hamiltonian import VectorHamiltonian
from mc.vector.readout import bessel_ratio, log_partition

FAR = 30.0  # k / D from which the series of the heat capacity is better than the difference


def vector_refusal(hamiltonian: VectorHamiltonian) -> str:
    """Why there are no exact values, "" if there are."""
    if hamiltonian.form == "loss":
        return "vector spins: no exact values of the loss energy; use --mode metropolis or pt"
    bonds = np.count_nonzero(np.triu(hamiltonian.exchange))
    if bonds and (hamiltonian.has_fields or bonds > hamiltonian.n_spins - _trees(hamiltonian)):
        return ("vector spins: exact values only without couplings, or for trees of bonds without fields; "
                "use --mode heatbath or pt")  # fmt: skip
    return ""


def vector_exact(hamiltonian: VectorHamiltonian, beta: float) -> ExactResult:
    """ln Z (of the surface measure), <E> and heat capacity at beta in 1/J; ExactRefused where nothing can do it."""
    refusal = vector_refusal(hamiltonian)
    if refusal:
        raise ExactRefused(refusal)
    dimension, radius = hamiltonian.n_components, hamiltonian.radius
    strengths = np.abs(hamiltonian.exchange[np.triu_indices(hamiltonian.n_spins, 1)])
    bonds = strengths[strengths > 0] * radius
    norms = np.concatenate([bonds, np.linalg.norm(hamiltonian.fields, axis=1)[: hamiltonian.n_spins - len(bonds)]])
    k = beta * radius * norms
    ratio = bessel_ratio(0.5 * dimension, k)
    # C of a spin is k^2 dA/dk with dA/dk = 1 - A^2 - m A / k, m = D - 1; where that cancels, the series in 1 / k
    # that solves it. Either is good to 3e-8 up to D = 512.
    late, m = k > FAR * dimension, dimension - 1.0
    near, u = np.where(late, 0.0, k), 1.0 / np.where(late, k, 1.0)
    capacity = near * (near * (1.0 - ratio**2) - m * ratio)
    second = m * (m - 2.0) / 8.0
    series = 0.5 * m - u * second * (2.0 + u * (3.0 + u * 2.0 * (3.0 - second)))
    return ExactResult(
        method="independent vector spins" if not len(bonds) else "trees of vector spins",
        beta=beta,
        log_z=float(log_partition(beta, radius, norms, dimension).sum()),
        energy=0.0 - float((radius * norms * ratio).sum()),  # no -0 at beta = 0
        heat_capacity=float(np.where(late, series, capacity).sum()),
        ground_energy=0.0 - float(radius * norms.sum()),
    )


def _trees(hamiltonian: VectorHamiltonian) -> int:
    """Number of connected parts of the bonds."""
    return connected_components(csr_array(hamiltonian.exchange != 0), directed=False)[0]
