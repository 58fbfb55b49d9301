"""ln Z along a ladder of temperatures from the energies of its draws: stepping stones, forward and backward.

Between neighbouring inverse temperatures a < b of the ladder

    ln Z(b) - ln Z(a) = ln <exp(-(b - a) E)>_a = -ln <exp((b - a) E)>_b,

free-energy perturbation (Zwanzig, J. Chem. Phys. 22, 1420 (1954)) along a chain of steps, each from its neighbour
(W. Xie et al., Syst. Biol. 60, 150 (2011)). The logarithm of a mean is low on average, by half its variance, so the
forward value is low and the backward one high: their average has less of that bias, the less the narrower the step,
and their gap shows what steps are too wide. A ladder that holds beta = 0 has ln Z(0) as its anchor, the logarithm of
the number of states (N ln 2 for Ising spins), or of their volume.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from mc.statistics import Estimate, as_series, estimate

FEWEST_EFFECTIVE_DRAWS = 20  # of a step, below which its error is not known; as for weighted draws
WIDEST_GAP = 4.0  # in errors, of forward and backward value of a step


@dataclass(frozen=True)
class SteppingStones:
    """ln Z of a ladder; dimensionless, of the whole system.

    By beta, (B,), in the order in which the betas were given:
        beta: in 1 / energy unit.
        log_z: ln Z, or ln Z(beta) - ln Z(lowest beta) where `absolute` is False.
        error: one standard error of log_z, autocorrelation and the correlation of neighbouring steps included. From a
            step of poor overlap on, half the gaps of such steps are added in quadrature.
        entropy, entropy_error: beta <E> + ln Z in units of k_B and its error, that of both terms together; NaN where
            `absolute` is False.
        status: that of the `Estimate` of log_z ("ok", "short", "not converged", ...), or "poor overlap".
    By step, (B - 1,), along rising beta:
        forward, backward: the two values of ln Z(b) - ln Z(a).
        gap: (forward - backward) in standard errors of this difference; near 0 +- 1 in a good ladder, and negative
            where the laws of the two temperatures hardly overlap.
        effective_draws: Kish's number of draws that carry the step's weights, the smaller of both directions.
    absolute: whether the ladder holds beta = 0.
    """

    beta: np.ndarray
    log_z: np.ndarray
    error: np.ndarray
    entropy: np.ndarray
    entropy_error: np.ndarray
    status: tuple[str, ...]
    forward: np.ndarray
    backward: np.ndarray
    gap: np.ndarray
    effective_draws: np.ndarray
    absolute: bool

    @property
    def free_energy(self) -> np.ndarray:
        """F = -ln Z / beta, (B,), total, in the energy unit; NaN at beta = 0, and where ln Z is not absolute."""
        known = self.absolute & (self.beta > 0)
        return np.divide(-self.log_z, self.beta, out=np.full(len(self.beta), np.nan), where=known)


@dataclass(frozen=True)
class _Step:
    """One step: its two values, and the series (chain, draw) whose mean fluctuates as their average does."""

    forward: float
    backward: float
    gap: float
    effective_draws: float
    series: np.ndarray

    @property
    def value(self) -> float:
        return 0.5 * (self.forward + self.backward)

    @property
    def excess(self) -> float:
        """What the error of the value lacks: half the gap where the overlap is poor, else 0."""
        poor = abs(self.gap) > WIDEST_GAP or self.effective_draws < FEWEST_EFFECTIVE_DRAWS
        return 0.5 * abs(self.forward - self.backward) if poor else 0.0


def stepping_stones(energy: np.ndarray, betas: np.ndarray, log_states: float) -> SteppingStones:
    """ln Z at every beta of a ladder. log_states: ln Z at beta = 0 (`Hamiltonian.log_states`).

    energy: total energies (chain, draw, beta), the draws of all betas made side by side, transient removed; betas:
    (B,) in 1 / energy unit, in any order.

    Errors are those of the Gamma method (`mc.statistics.estimate`) for the linearised ln Z, which is one series with
    the draws of the whole ladder: swaps, autocorrelation and the draws that neighbouring steps share all enter.

    Raises ValueError for shapes that do not match, no draws, a beta that is negative, not finite or there twice, and
    energies that are not finite.
    """
    energy, betas = _checked(energy, betas)
    order = np.argsort(betas)
    rising = betas[order]
    columns = [as_series(energy[:, :, b], f"energy at beta={betas[b]:g}") for b in order]
    steps = [
        _step(lower, upper, width)
        for lower, upper, width in zip(columns[:-1], columns[1:], np.diff(rising), strict=True)
    ]
    absolute = bool(rising[0] == 0.0)
    total, series, excess = log_states if absolute else 0.0, np.zeros(energy.shape[:2]), 0.0
    log_z, entropy = [], []
    for k, (beta, column) in enumerate(zip(rising, columns, strict=True)):
        if k > 0:
            total, series = total + steps[k - 1].value, series + steps[k - 1].series
            excess = math.hypot(excess, steps[k - 1].excess)
        log_z.append(_estimate(total, series, excess) if k > 0 else Estimate(total, 0.0))
        centre = float(column.mean())
        entropy.append(_estimate(beta * centre + total, beta * (column - centre) + series, excess))
    place = np.argsort(order)  # of each given beta among the rising ones
    unknown = 0.0 if absolute else math.nan
    return SteppingStones(
        beta=betas,
        log_z=np.array([value.mean for value in log_z])[place],
        error=np.array([value.error for value in log_z])[place],
        entropy=np.array([value.mean for value in entropy])[place] + unknown,
        entropy_error=np.array([value.error for value in entropy])[place] + unknown,
        status=tuple(log_z[k].status for k in place),
        forward=np.array([step.forward for step in steps]),
        backward=np.array([step.backward for step in steps]),
        gap=np.array([step.gap for step in steps]),
        effective_draws=np.array([step.effective_draws for step in steps]),
        absolute=absolute,
    )


def _checked(energy, betas) -> tuple[np.ndarray, np.ndarray]:
    energy, betas = np.asarray(energy), np.atleast_1d(np.asarray(betas, np.float64))
    if energy.ndim != 3 or betas.ndim != 1 or energy.shape[2] != len(betas) or energy.size == 0:
        raise ValueError(f"energy: shape {energy.shape}, (chain, draw, {betas.size} betas) with draws is needed")
    if not np.isfinite(betas).all() or (betas < 0).any() or len(np.unique(betas)) < len(betas):
        raise ValueError(f"betas={betas.tolist()}: finite numbers of at least 0, none twice, are needed")
    return energy, betas


def _step(lower: np.ndarray, upper: np.ndarray, width: float) -> _Step:
    """The step from energies (chain, draw) at one beta to those at beta + width."""
    forward, rise, carried = _log_mean_exp(-width * lower)
    minus_backward, fall, carried_back = _log_mean_exp(width * upper)
    difference = forward + minus_backward
    error = estimate(rise + fall).error
    rounding = 1e-12 * max(abs(forward), 1.0)
    if error > 0.0:
        gap = difference / error
    else:  # energies that never change, or one draw, of which nothing is known
        gap = math.copysign(math.inf, difference) if abs(difference) > rounding else 0.0
    return _Step(forward, -minus_backward, gap, min(carried, carried_back), 0.5 * (rise - fall))


def _log_mean_exp(x: np.ndarray) -> tuple[float, np.ndarray, float]:
    """ln <exp x>, the series exp(x) / <exp x> - 1 whose mean fluctuates as it does, and Kish's effective draws."""
    largest = float(x.max())
    weight = np.exp(x - largest)
    mean = float(weight.mean())
    relative = weight / mean
    return largest + math.log(mean), relative - 1.0, x.size / float(np.mean(relative**2))


def _estimate(value: float, series: np.ndarray, excess: float) -> Estimate:
    """`value`, with the error of the mean of a series and `excess` beside it."""
    judged = estimate(series)
    error = math.hypot(judged.error, excess)
    return replace(judged, mean=value, error=error, status="poor overlap" if excess > 0.0 else judged.status)
