"""Is it in equilibrium? Three tests that can say no, or that nothing has been shown; none can prove a yes.

Of one Hamiltonian at one beta: means over the last half of a run, the quarter and the eighth before it must agree
(logarithmic binning), and so must chains from different starts. Of many disorder samples with Gaussian couplings: the
energy and the link overlap obey an identity that holds in equilibrium only (H. G. Katzgraber, M. Palassini and A. P.
Young, Phys. Rev. B 63, 184422 (2001)). From random starts the energy is too high and the link overlap too small, so
the two sides of the identity come from opposite directions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from mc.hamiltonian import Hamiltonian
from mc.statistics import ENOUGH_TAU, R_HAT_LIMIT, Estimate, as_series_dict, estimate, split_r_hat

YES, NOT_SHOWN, NO = "yes", "not shown", "no"

AGREE = 3.0  # standard errors up to which two numbers agree
DISAGREE = 4.0  # and beyond which they do not, 1 in 16000 by chance
BLOCKS = 8  # of half a chain, of 2 draws at least
BINS = 3  # of logarithmic binning: the last half of the run, the quarter and the eighth before it
FEWEST_DRAWS = 32  # a chain: the eighth has four of them
FEWEST_INSTANCES = 20  # their scatter is the error of the identity
COARSEST = 0.05  # error of the identity in units of the energy, beyond which its holding says nothing
ROUNDING = 1e-12  # of a mean
NOT_NORMAL = 1e-6  # p-value below which couplings are not Gaussian


@dataclass(frozen=True)
class Verdict:
    """Whether a run is in equilibrium: status "yes", "not shown" or "no", and the reason in one line.

    "yes" means that every test was strict enough to fail and none did.
    """

    status: str
    reason: str


def equilibrated(series: Mapping[str, np.ndarray]) -> Verdict:
    """The verdict on a run of one Hamiltonian at one beta: the gravest of `steady` and `chains_agree`.

    series: {name: (chain, draw)} from the whole run, transient included, draw 0 the first of it; chains from
    different starts. Give the energy, and for a glass the square of the overlap, which is the slowest; not the
    overlap or magnetization itself, whose sign may flip as it likes. The verdict is on the last half. Of stationary
    runs, less than 1 in 100 gets a "no".

    Raises ValueError for no series, or series that differ in shape or are not finite.
    """
    series = as_series_dict(series)
    found = together([test(name, x) for name, x in series.items() for test in (steady, chains_agree)])
    if found.status != YES:
        return found
    chains, draws = next(iter(series.values())).shape
    names = ", ".join(series)
    return Verdict(YES, f"{names}: last half, quarter and eighth of {draws} draws agree, and so do {chains} chains")


def together(verdicts: Sequence[Verdict]) -> Verdict:
    """The gravest of some verdicts on one run; where all are "yes", one with all their reasons."""
    for status in (NO, NOT_SHOWN):
        for verdict in verdicts:
            if verdict.status == status:
                return verdict
    return Verdict(YES, "; ".join(verdict.reason for verdict in verdicts))


def log_binned(x: np.ndarray) -> np.ndarray:
    """Means (chain, BINS) of x (chain, draw) over the draws (1/2, 1], (1/4, 1/2] and (1/8, 1/4] of the run."""
    draws = x.shape[1]
    return np.stack([x[:, draws >> k + 1 : draws >> k].mean(axis=1) for k in range(BINS)], axis=1)


def steady(name: str, x: np.ndarray) -> Verdict:
    """Whether the means of `log_binned` agree, for x (chain, draw), called `name` in the reason.

    "no" where the chains drift together: the change between eighth and last half, compared with its scatter over the
    chains, which holds for any autocorrelation. Else by the error of the last half, rescaled to the draws of each
    part: if nothing drifts, the parts know no better.
    """
    chains, draws = x.shape
    if draws < FEWEST_DRAWS:
        return _too_few(name, draws)
    parts = log_binned(x)
    means = parts.mean(axis=0)
    what = f"{name}: means over the last half, quarter and eighth of the run " + ", ".join(f"{m:.6g}" for m in means)
    change = parts[:, 0] - parts[:, -1]
    if chains > 1 and abs(float(change.mean())) > ROUNDING * float(np.abs(parts).max()):
        t = _ratio(abs(float(change.mean())), float(change.std(ddof=1)) / math.sqrt(chains))
        drift = _sigmas(2.0 * stats.t.sf(t, chains - 1))
        if drift > DISAGREE:
            return _judge(what, drift)
    judged = estimate(x[:, draws // 2 :])
    refusal = _too_short(name, draws, [judged])
    if refusal:
        return refusal
    length = np.array([(draws >> k) - (draws >> k + 1) for k in range(BINS)])
    squares = length * (means - np.average(means, weights=length)) ** 2
    chi2 = _ratio(float(squares.sum()), length[0] * _error(judged) ** 2)
    return _judge(what, _sigmas(stats.chi2.sf(chi2, BINS - 1)))


def chains_agree(name: str, x: np.ndarray) -> Verdict:
    """Whether the chains of x (chain, draw) have one mean over the last half of the run, by the error in each."""
    chains, draws = x.shape
    if draws < FEWEST_DRAWS:
        return _too_few(name, draws)
    if chains < 2:
        return Verdict(NOT_SHOWN, f"{name}: one chain, which could sit in one valley; run more, from other starts")
    half = x[:, draws // 2 :]
    each = [estimate(chain[None]) for chain in half]
    means = half.mean(axis=1)
    what = f"{name}: means of {chains} chains over the last half from {means.min():.6g} to {means.max():.6g}"
    moving = [one for one in each if one.status != "constant"]
    if moving or np.ptp(means) == 0:
        refusal = _too_short(name, draws, moving)
        if refusal:
            return refusal
    inside = max(float(np.mean([_error(one) ** 2 for one in each])), _of_blocks(half))
    chi2 = _ratio(float(np.sum((means - means.mean()) ** 2)), inside)
    sigmas, r_hat = _sigmas(stats.chi2.sf(chi2, chains - 1)), split_r_hat(half)
    if sigmas <= DISAGREE and r_hat > R_HAT_LIMIT:
        return Verdict(NOT_SHOWN, f"{what}, R-hat = {r_hat:.3f}; run longer")
    return _judge(what, sigmas)


def energy_overlap_identity(
    energy_per_bond: np.ndarray, link_overlap: np.ndarray, beta: float, variance: float
) -> tuple[float, Verdict]:
    """z-score and verdict of [<E>] / N_bonds = -beta variance (1 - [q_l]), an average over Gaussian couplings.

    energy_per_bond, link_overlap: thermal averages of each disorder sample, (samples,); the energy that of the bonds
    alone, in the energy unit, the link overlap of two replicas. beta: in 1 / energy unit. variance: of a coupling.
    The couplings must have mean zero and be Gaussian, which cannot be seen here: ask `identity_refusal` first.

    It follows from integrating <s_i s_j> by parts over J_ij (Katzgraber, Palassini and Young 2001). The error is the
    scatter between samples of the difference of both sides. z > 0: the energy is still too high or
    the link overlap too small, which is the side of a run that is too short.

    Raises ValueError for fewer than FEWEST_INSTANCES samples, shapes that differ, or numbers that are not finite.
    """
    energy, link = np.asarray(energy_per_bond, np.float64), np.asarray(link_overlap, np.float64)
    if energy.ndim != 1 or energy.shape != link.shape:
        raise ValueError(f"identity: energies {energy.shape} and link overlaps {link.shape}, both (samples,) needed")
    if len(energy) < FEWEST_INSTANCES:
        raise ValueError(f"identity: {len(energy)} disorder samples; it holds on average, give {FEWEST_INSTANCES}")
    if not (np.isfinite(energy).all() and np.isfinite(link).all() and math.isfinite(beta) and variance > 0.0):
        raise ValueError("identity: numbers that are not finite, or a variance that is not positive")
    difference = energy + beta * variance * (1.0 - link)
    mean, error = float(difference.mean()), float(difference.std(ddof=1)) / math.sqrt(len(difference))
    z = math.copysign(_ratio(abs(mean), error), mean)
    what = f"energy per bond {energy.mean():.5g}, from the link overlap {(energy - difference).mean():.5g}"
    if abs(z) <= AGREE and error > COARSEST * abs(float(energy.mean())):
        return z, Verdict(NOT_SHOWN, f"{what}, equal within an error of {error:.2g}, too coarse; give more samples")
    return z, _judge(what, abs(z))


def identity_refusal(hamiltonians: Sequence[Hamiltonian], variance: float) -> str:
    """Why `energy_overlap_identity` does not hold for an ensemble of Hamiltonians, "" if it does.

    variance: what each coupling is said to have. Couplings are tested by their values, all samples together, so
    any file of couplings can be asked about.
    """
    if len(hamiltonians) < FEWEST_INSTANCES:
        return f"{len(hamiltonians)} disorder samples; the identity holds on average, {FEWEST_INSTANCES} are needed"
    orders = set().union(*(hamiltonian.interactions for hamiltonian in hamiltonians))
    if orders != {2}:
        return f"interactions of {sorted(orders)} spins; the identity is about bonds alone, without fields"
    if len({len(hamiltonian.bonds[1]) for hamiltonian in hamiltonians}) > 1:
        return "the samples differ in their number of bonds"
    why = "integration by parts needs independent Gaussian couplings; compare starts and log-binned means instead"
    couplings = np.concatenate([hamiltonian.bonds[1] for hamiltonian in hamiltonians])
    if len(np.unique(np.abs(couplings))) == 1:
        return f"couplings are +-J, not Gaussian: {why}"
    if len({hamiltonian.fingerprint for hamiltonian in hamiltonians}) < len(hamiltonians):
        return "some disorder samples are the same; the average must be over independent couplings"
    if _normal_p_value(couplings / math.sqrt(variance)) < NOT_NORMAL:
        return f"couplings are not Gaussian of mean 0 and variance {variance:g}: {why}"
    return ""


def _normal_p_value(x: np.ndarray) -> float:
    """The smallest p-value of mean, variance and shape (Kolmogorov and Smirnov) of numbers that should be normal."""
    squares = stats.chi2(len(x))
    total = float(np.sum(x**2))
    mean = 2.0 * stats.norm.sf(abs(float(x.mean())) * math.sqrt(len(x)))
    return min(mean, 2.0 * squares.cdf(total), 2.0 * squares.sf(total), stats.kstest(x, "norm").pvalue)


def _of_blocks(x: np.ndarray) -> float:
    """Squared error of the mean of a chain of x (chain, draw), by blocks of all of them about their chains' means.

    They see a slow mode that one chain is too short to find in its rho(t); what differs between chains is left out.
    """
    length = x.shape[1] // BLOCKS
    means = x[:, : BLOCKS * length].reshape(len(x), BLOCKS, length).mean(axis=2)
    return float(means.var(axis=1, ddof=1).mean()) / BLOCKS


def _too_few(name: str, draws: int) -> Verdict:
    return Verdict(NOT_SHOWN, f"{name}: {draws} draws a chain, at least {FEWEST_DRAWS} are needed")


def _too_short(name: str, draws: int, judged: list[Estimate]) -> Verdict | None:
    """Why the last half of a run cannot be judged by these estimates from it, None if it can."""
    times = [max(one.tau_int, 0.5) for one in judged if one.status != "constant"]
    if not times:
        return Verdict(NOT_SHOWN, f"{name}: every draw of the last half is the same, nothing can be judged")
    enough = math.ceil(2 * ENOUGH_TAU * sum(times) / len(times))
    if draws < enough:
        reason = f"{draws} draws a chain, tau_int is {enough / (2 * ENOUGH_TAU):.3g} or more; run at least {enough}"
        return Verdict(NOT_SHOWN, f"{name}: {reason}")
    return None


def _error(one: Estimate) -> float:
    """The error, but no less than that of independent draws: in short runs tau_int < 1/2 is mostly noise."""
    return one.error * math.sqrt(0.5 / min(one.tau_int, 0.5)) if one.status != "constant" else 0.0


def _ratio(number: float, unit: float) -> float:
    """number / unit; where the unit is 0 infinite, unless the number is 0 too."""
    return number / unit if unit > 0.0 else (math.inf if number > 0.0 else 0.0)


def _sigmas(p_value: float) -> float:
    """The number of standard errors that a Gaussian is off with this two-sided p-value."""
    return float(stats.norm.isf(p_value / 2.0))


def _judge(what: str, sigmas: float) -> Verdict:
    size = f"{sigmas:.1f}" if math.isfinite(sigmas) else "more than 37"  # where the p-value is no double any more
    if sigmas > DISAGREE:
        return Verdict(NO, f"{what}: they differ by {size} standard errors")
    if sigmas > AGREE:
        return Verdict(NOT_SHOWN, f"{what}: {size} standard errors apart; run longer")
    return Verdict(YES, f"{what}: they agree ({size} standard errors)")
