"""Observables of spin glasses from series of overlaps: moments, Binder ratio, correlation length, P(q), entropy.

The overlap of two replicas a, b of one Hamiltonian is q = sum_i s_i^a s_i^b / N; `mc.kernels.overlaps` measures it
with the link overlap and |q(k)|^2 at the smallest wave vector. Of vector spins q^{mu nu} = sum_i s_i^{a mu} s_i^{b
nu} / N is a tensor, and q^2 stands for the sum of the squares of its components, which rotating a replica leaves
alone. Series are (chain, draw), errors those of `mc.statistics`.

Sources
    F. Cooper, B. Freedman and D. Preston, Nucl. Phys. B 210, 210 (1982): second-moment correlation length.
    H. G. Ballesteros et al., Phys. Rev. B 62, 14237 (2000): the same for the overlap, xi / L at the transition.
    A. P. Young, Phys. Rev. Lett. 51, 1206 (1983): P(q) of the infinite-range Ising glass.
    D. X. Viet and H. Kawamura, Phys. Rev. B 80, 064418 (2009): the tensor overlap of Heisenberg spins.

The functions of means, `binder` to `correlation_length`, also serve averages over disorder samples: put the thermal
averages of the samples, shape (samples, 1), through `mc.statistics.jackknife` with as many blocks as samples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from mc.statistics import Estimate, as_series, estimate, estimate_function

ON_THE_GRID = 1e-6  # of a step of 2/N


def binder(means: Mapping[str, float]) -> float:
    """1 - <q^4> / (3 <q^2>^2) of {"q2", "q4"}: 0 for a Gaussian q, 2/3 where |q| is fixed."""
    return 1.0 - means["q4"] / (3.0 * means["q2"] ** 2)


def glass_binder(means: Mapping[str, float], n_components: int = 1) -> float:
    """g = (n + 2 - n <q^4> / <q^2>^2) / 2 of {"q2", "q4"}, n = D^2 the components of q for spins of D components.

    0 where all components of q are Gaussian and alike, 1 where |q| is fixed.
    """
    n = n_components**2
    return 0.5 * (n + 2 - n * means["q4"] / means["q2"] ** 2)


def correlation_length(means: Mapping[str, float], length: int) -> float:
    """xi = sqrt(<q^2> / <|q(k)|^2> - 1) / (2 sin(k / 2)), k = 2 pi / length, of {"q2", "mode"}, in lattice spacings.

    `length` is that of the axes of k. ValueError where the mode at k is larger than that at zero.
    """
    return math.sqrt(means["q2"] / means["mode"] - 1.0) / (2.0 * math.sin(math.pi / length))


def overlap_observables(
    overlap: np.ndarray,
    n_spins: int,
    link_overlap: np.ndarray | None = None,
    mode: np.ndarray | None = None,
    length: int | None = None,
    norm: np.ndarray | None = None,
    n_components: int = 1,
) -> dict[str, Estimate]:
    """What the overlap q of pairs of replicas says at one beta, {name: Estimate}.

    overlap, link_overlap, mode = |q(k)|^2, norm: (chain, draw), or (chain, draw, pair) for the mean over pairs of
    replicas; length: sites along the axes of k, needed with `mode`. norm: of the tensor overlap of vector spins of
    n_components, the root of the sum of its squared components, whose powers are then q2 and q4; overlap its trace.

    abs_overlap, q2, q4, overlap_binder (`glass_binder`), binder_overlap (`binder`, without a norm), chi_sg = N <q^2>,
    per site, the susceptibility of the overlap; link_overlap where given; where `mode` is given
    overlap_correlation_length in lattice spacings and the same over L as overlap_xi_over_length. Their status is "not
    finite" with NaN where the noise leaves no correlation length.

    Raises ValueError for series that `mc.statistics` refuses, or a mode without its length.
    """
    q = np.asarray(overlap, np.float64)
    size = q if norm is None else np.asarray(norm, np.float64)
    q2, q4 = over_axes(size**2), over_axes(size**4)
    table = {"abs_overlap": estimate(over_axes(np.abs(q))), "q2": estimate(q2), "q4": estimate(q4)}
    if norm is None:
        table["binder_overlap"] = estimate_function(binder, {"q2": q2, "q4": q4})
    table["overlap_binder"] = estimate_function(lambda m: glass_binder(m, n_components), {"q2": q2, "q4": q4})
    table["chi_sg"] = scaled(table["q2"], n_spins)
    if link_overlap is not None:
        table["link_overlap"] = estimate(over_axes(link_overlap))
    if mode is not None:
        xi = correlation_length_estimate(q, mode, length)
        table["overlap_correlation_length"] = xi
        table["overlap_xi_over_length"] = scaled(xi, 1.0 / length)
    return table


def correlation_length_estimate(order: np.ndarray, mode: np.ndarray, length: int | None) -> Estimate:
    """Second-moment correlation length, in lattice spacings, of an overlap or a magnetization.

    order: q or m at k = 0, mode: |q(k)|^2 or |m(k)|^2, (chain, draw), or with pairs or replicas behind. Nothing
    is subtracted from <m^2>: in an ordered phase xi / L grows with L.

    Raises ValueError without a length of at least 3, and as `mc.statistics.estimate_function`.
    """
    if length is None or length < 3:
        raise ValueError(f"length={length}: the sites along the axes of the mode are needed, 3 or more")
    series = {"q2": over_axes(np.asarray(order, np.float64) ** 2), "mode": over_axes(mode)}
    return estimate_function(lambda means: correlation_length(means, length), series)


def over_axes(values: np.ndarray) -> np.ndarray:
    """Mean over what follows (chain, draw): replicas, or pairs of them."""
    values = np.asarray(values, np.float64)
    return values.reshape(*values.shape[:2], -1).mean(axis=-1) if values.ndim > 2 else values


def scaled(result: Estimate, factor: float) -> Estimate:
    """An estimate in other units: mean and error times a positive factor."""
    return replace(result, mean=factor * result.mean, error=factor * result.error)


@dataclass(frozen=True)
class OverlapDistribution:
    """P(q) on the values that q can take.

    q: (N + 1,), from -1 to 1 in steps of 2 / N. probability: (N + 1,), sum 1. error: one standard error, from the
    scatter between chains; NaN for one chain.
    """

    q: np.ndarray
    probability: np.ndarray
    error: np.ndarray

    @property
    def density(self) -> np.ndarray:
        """P(q) as a density, integral 1; its error is error N / 2."""
        return self.probability * (len(self.q) - 1) / 2.0


def overlap_distribution(overlap: np.ndarray, n_spins: int, symmetric: bool = False) -> OverlapDistribution:
    """P(q) of overlaps (chain, draw) of N spins.

    symmetric: take the mean of P(q) and P(-q), which are equal in equilibrium without a field.

    Raises ValueError for no draws, or numbers that are no overlaps of N spins.
    """
    q = as_series(overlap, "overlap")
    steps = (q + 1.0) * (n_spins / 2.0)
    places = np.rint(steps)
    wrong = (np.abs(steps - places) > ON_THE_GRID) | (places < 0) | (places > n_spins)
    if wrong.any() or q.size == 0:
        raise ValueError(f"overlap: {wrong.sum()} of {q.size} values are not on the grid of {n_spins} spins")
    chains = np.stack([np.bincount(row, minlength=n_spins + 1) for row in places.astype(np.int64)]) / q.shape[1]
    if symmetric:
        chains = (chains + chains[:, ::-1]) / 2.0
    error = np.full(n_spins + 1, np.nan)
    if len(chains) > 1:
        error = chains.std(axis=0, ddof=1) / math.sqrt(len(chains))
    return OverlapDistribution(2.0 * np.arange(n_spins + 1) / n_spins - 1.0, chains.mean(axis=0), error)


def entropy(energy: np.ndarray, beta: float, log_z: float, log_z_error: float = 0.0) -> Estimate:
    """S = beta (<E> - F) = beta <E> + ln Z, total, in units of k_B.

    energy: total energies (chain, draw) at beta. log_z: from elsewhere (exact, importance sampling), independent of
    these draws, with its error. Where ln Z comes from the energies themselves, `mc.stepping_stone` gives the entropy
    with the correlation between the two.

    Raises ValueError as `mc.statistics.estimate`.
    """
    mean = estimate(energy)
    return replace(mean, mean=beta * mean.mean + log_z, error=math.hypot(beta * mean.error, log_z_error))
