"""Overlaps of the draws of one sampler with each other: weighted independent draws, or independent Markov chains.

Any two independent states are a pair of replicas, so n draws make up to n (n - 1) / 2 pairs,

    <f(q)> = sum_ij w_i w_j f(q_ij) / sum_ij w_i w_j,

over pairs of draws with weights w (importance sampling), or over pairs of draws of different chains (w = 1). Pairs
share draws. With r_ij = w_i w_j (f_ij - <f>) / sum w w, only pairs that have a draw in common are correlated, so

    error^2 = sum_i (sum_j r_ij)^2 - sum_ij r_ij^2                      (each pair once in the last sum).

The draw i thus stands for the pseudo-value <f> + n sum_j r_ij, whose mean is <f>: its series has the errors, times
and R-hat of a chain's observable.

Sources
    W. Hoeffding, Ann. Math. Stat. 19, 293 (1948): averages over pairs, and their projection onto single draws.
    G. Blom, Biometrika 63, 573 (1976): some of the pairs are nearly as good as all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numba import njit

from mc.hamiltonian import Hamiltonian
from mc.kernels.batch import pack
from mc.kernels.overlaps import link_overlap, links, lowest_mode, planes, popcount
from mc.lattice import Lattice
from mc.overlap_distance import OverlapBlocks, blocks_of_draws, cumulative
from mc.spin_glass import OverlapDistribution, binder, correlation_length, scaled
from mc.statistics import Estimate, Function, estimate, estimate_function
from mc.weighted import FEWEST_EFFECTIVE_DRAWS, effective_sample_size, weighted_function

FUNCTIONS = ("abs_overlap", "q2", "q4", "link_overlap", "overlap_k2")  # of a pair of draws
MOST_PARTNERS = 256  # pairs a draw is the first of; their scatter then adds little to that of the draws themselves
WORK = 2**26  # words of bits that the pairs of one beta may take: a tenth of a second
MODE_WORDS = 128  # what a Fourier mode takes, in such words
LEAST_LOG_WEIGHT = -300.0  # below the largest
INDEPENDENT_BLOCKS = 256  # of weighted draws
TABLE = 2**22  # numbers in a table of blocks by values of q


@dataclass(frozen=True)
class PairOverlaps:
    """What pairs of draws say of the overlap.

    series: {name of FUNCTIONS: pseudo-values (chain, draw)}, `link_overlap` and `overlap_k2` = |q(k)|^2 where the
    model has them. distribution: P(q), the mean of P(q) and P(-q) for Z2-symmetric models, with errors. blocks: P(q)
    with what each block of draws contributes, for `compare_overlaps`. n_eff: effective number of draws by weight, NaN
    for Markov chains. length: sites along the axes of k, 0 without one.
    """

    n_spins: int
    series: dict[str, np.ndarray]
    distribution: OverlapDistribution
    blocks: OverlapBlocks
    n_eff: float
    length: int

    @property
    def weighted(self) -> bool:
        return not math.isnan(self.n_eff)


def pair_overlaps(spins: np.ndarray, hamiltonian: Hamiltonian, log_weight: np.ndarray | None = None) -> PairOverlaps:
    """Overlaps of draws with each other, at one beta.

    spins: (chain, draw, N), +-1. log_weight: (chain, draw) of independent draws, whose chains mean nothing; None for
    Markov chains, which are paired with each other and never with themselves. A draw meets up to 256 of the draws
    that follow it, fewer where that would take long.

    Raises ValueError for shapes that do not match, one draw alone, one Markov chain alone, or weights that
    `mc.weighted` refuses.
    """
    chains, draws, n_spins = spins.shape
    n, weighted = chains * draws, log_weight is not None
    if n_spins != hamiltonian.n_spins or (weighted and np.shape(log_weight) != (chains, draws)):
        weights = f"log_weight {np.shape(log_weight)}" if weighted else "no weights"
        raise ValueError(f"spins {spins.shape}, {weights}, and a model of {hamiltonian.n_spins} spins do not match")
    if n < 2 or not (weighted or (chains > 1 and draws > 0)):
        raise ValueError(f"{chains} chains of {draws} draws make no pair: run two independent chains or more")
    n_eff = n * effective_sample_size(log_weight) if weighted else math.nan
    weight = relative_weights(log_weight).T.ravel() if weighted else np.ones(n)
    found, length = all_pairs(spins, hamiltonian, weight, weighted)

    series = {}
    for f, name in enumerate(FUNCTIONS):
        if (name == "link_overlap" and not len(hamiltonian.bonds[0])) or (name == "overlap_k2" and not length):
            continue
        mean = found.sums[:, f].sum() / found.reach.sum()
        pull = (found.sums[:, f] - mean * found.reach) / found.total
        same = found.squares[:, f] @ (mean**2, -2.0 * mean, 1.0) / found.total**2
        pull *= n * (less_often(np.sum(pull**2), same) if weighted else 1.0)
        series[name] = mean + pull.reshape(draws, chains).T
    probability = found.table.sum(axis=0) / found.reach.sum()
    pulls = (found.table - found.table.sum(axis=1, keepdims=True) * probability) / found.total
    if weighted:
        second = found.of_value / found.total**2
        error = distribution_error(probability, pulls, second, hamiltonian.is_z2_symmetric)
        low, below = cumulative(probability), cumulative(second)
        same = np.sum(below * (1.0 - 2.0 * low) + low**2 * below[-1])
        pulls *= less_often(np.sum(cumulative(pulls) ** 2), same)
        blocks = OverlapBlocks(probability, pulls, *verdict_of_weights(n, n_eff))
        error = error if blocks.status == "ok" else np.full(n_spins + 1, np.nan)
    else:
        number, status, advice = blocks_of_draws(chains, draws, [estimate(series[name]) for name in FUNCTIONS[:2]])
        first = np.unique(found.fine, return_index=True)[1]
        merged = np.zeros((number.max() + 1, n_spins + 1))
        np.add.at(merged, number.T.ravel()[first], pulls)
        blocks = OverlapBlocks(probability, merged, status, advice)
        error = distribution_error(probability, merged, None, hamiltonian.is_z2_symmetric)
    if hamiltonian.is_z2_symmetric:
        probability = (probability + probability[::-1]) / 2.0
    q = 2.0 * np.arange(n_spins + 1) / n_spins - 1.0
    return PairOverlaps(n_spins, series, OverlapDistribution(q, probability, error), blocks, n_eff, length)


def pair_observables(pairs: PairOverlaps) -> dict[str, Estimate]:
    """{name: Estimate} of pairs of draws, under the names that pairs of replicas have in `mc.observables`."""

    def of_means(function: Function, *names: str) -> Estimate:
        series = {name: pairs.series[name] for name in names}
        if not pairs.weighted:
            return estimate_function(function, series)
        found = weighted_function(function, series, np.zeros(series[names[0]].shape))
        status, advice = verdict_of_weights(found.n_draws, pairs.n_eff)
        found = replace(found, n_eff=pairs.n_eff)
        return found if status == "ok" else replace(found, error=math.nan, status=status, advice=advice)

    table = {name: of_means(lambda means, name=name: means[name], name) for name in ("abs_overlap", "q2", "q4")}
    table["binder_overlap"] = of_means(binder, "q2", "q4")
    table["overlap_binder"] = scaled(table["binder_overlap"], 1.5)
    table["chi_sg"] = scaled(table["q2"], pairs.n_spins)
    if "link_overlap" in pairs.series:
        table["link_overlap"] = of_means(lambda means: means["link_overlap"], "link_overlap")
    if "overlap_k2" in pairs.series:
        table["overlap_k2"] = of_means(lambda means: means["overlap_k2"], "overlap_k2")
    if "overlap_k2" in pairs.series and pairs.length >= 3:
        xi = of_means(
            lambda means: correlation_length(means | {"mode": means["overlap_k2"]}, pairs.length), "q2", "overlap_k2"
        )
        table["overlap_correlation_length"] = xi
        table["overlap_xi_over_length"] = scaled(xi, 1.0 / pairs.length)
    return table


def relative_weights(log_weight: np.ndarray) -> np.ndarray:
    """w over the largest w, and not so small that the product of two is zero, unless w itself is."""
    log_weight = np.asarray(log_weight, np.float64)
    return np.where(np.isneginf(log_weight), 0.0, np.exp(np.maximum(log_weight - log_weight.max(), LEAST_LOG_WEIGHT)))


def verdict_of_weights(n: int, n_eff: float) -> tuple[str, str]:
    """Status and advice for n weighted draws worth n_eff."""
    if n_eff >= FEWEST_EFFECTIVE_DRAWS:
        return "ok", ""
    needed = math.ceil(FEWEST_EFFECTIVE_DRAWS / n_eff * n)
    return "too few effective draws", f"take at least {needed} draws or train the model further"


def less_often(each: float, same: float) -> float:
    """Factor of the deviations of draws (sum of squares `each`) that counts pairs, sum of squares `same`, once."""
    return math.sqrt(max(each - same, same) / each) if each > 0 else 1.0


def distribution_error(
    probability: np.ndarray, pulls: np.ndarray, second: np.ndarray | None, symmetric: bool
) -> np.ndarray:
    """One standard error (N + 1,) of P(q), or of its symmetric part, from blocks; second: as `Pairs.of_value`."""

    def even(values: np.ndarray) -> np.ndarray:
        return (values + values[..., ::-1]) / 2.0 if symmetric else values

    if len(pulls) < 2:
        return np.full(len(probability), np.nan)
    variance = np.sum(even(pulls) ** 2, axis=0) * len(pulls) / (len(pulls) - 1)
    if second is not None:
        n_spins, p, of_value = len(probability) - 1, even(probability), even(second)
        halves = np.where(symmetric & (2 * np.arange(n_spins + 1) != n_spins), 0.5, 1.0)  # ([q] + [-q])^2 / 4
        same = of_value * (halves - 2.0 * p) + p**2 * second.sum()
        variance = np.maximum(variance - same, same)
    return np.sqrt(variance)


@dataclass(frozen=True)
class Pairs:
    """Sums over pairs (i, j), w = w_i w_j, f of FUNCTIONS; draw number t chains + c is draw t of chain c.

    sums: (n, F) sum of w f over the pairs of each draw; reach: (n,) that of w; squares: (3, F) sums over all pairs
    of w^2, w^2 f and w^2 f^2. table: (fine block, N + 1) sum of w over the pairs of its draws at each q; of_value:
    (N + 1,) sum of w^2 at each q. fine: (n,) block of each draw.
    """

    sums: np.ndarray
    reach: np.ndarray
    squares: np.ndarray
    table: np.ndarray
    of_value: np.ndarray
    fine: np.ndarray

    @property
    def total(self) -> float:
        return float(self.reach.sum()) / 2.0


def all_pairs(spins: np.ndarray, hamiltonian: Hamiltonian, weight: np.ndarray, weighted: bool) -> tuple[Pairs, int]:
    """Sums over pairs, and the length of the axes of the Fourier mode (0 without)."""
    chains, draws, n_spins = spins.shape
    n = chains * draws
    rows = pack(np.ascontiguousarray(spins.swapaxes(0, 1)).reshape(n, n_spins))
    bonds = links(hamiltonian.bonds[0], n_spins)
    normal = planes(hamiltonian.lattice or Lattice((n_spins,), (False,)))
    length = normal.masks.shape[1]
    shifts = np.arange(1, max((n - 1) // 2, 1) + 1)  # beyond half of the draws pairs come again
    shifts = shifts if weighted else shifts[shifts % chains > 0]
    cost = rows.shape[1] * (1 + len(bonds.shifts)) + len(bonds.sites) + (MODE_WORDS if length else 0)
    shifts = shifts[: int(np.clip(WORK // (n * cost), 1, MOST_PARTNERS))]
    most = max(TABLE // (n_spins + 1), 2 * chains)
    if weighted:
        fine = np.arange(n) % min(INDEPENDENT_BLOCKS, n, most)
    else:
        a_chain = min(draws, most // chains)
        fine = (np.arange(chains) * a_chain + (np.arange(draws) * a_chain // draws)[:, None]).ravel()
    sums, squares = np.zeros((n, len(FUNCTIONS))), np.zeros((3, len(FUNCTIONS)))
    reach, table, of_value = np.zeros(n), np.zeros((fine.max() + 1, n_spins + 1)), np.zeros(n_spins + 1)
    add_pairs(rows, weight, shifts, n_spins, bonds, normal, length > 0, fine, sums, reach, squares, table, of_value)
    if not reach.any():
        raise ValueError("no two draws that meet have a weight: take more draws or train the model further")
    return Pairs(sums, reach, squares, table, of_value, fine), length


@njit(cache=True, nogil=True, error_model="numpy")
def add_pairs(rows, weight, shifts, n_spins, bonds, normal, modes, fine, sums, reach, squares, table, of_value):
    """Fill the arrays of `Pairs` with the pairs (i, i + shift) of n draws on a ring, rows (n, words) of bits."""
    n = rows.shape[0]
    f = np.zeros(5)
    for shift in shifts:
        for i in range(n):
            j = i + shift if i + shift < n else i + shift - n
            w = weight[i] * weight[j]
            if w == 0.0:
                continue
            unlike = 0
            for word in range(rows.shape[1]):
                unlike += popcount(rows[i, word] ^ rows[j, word])
            q = (n_spins - 2 * unlike) / n_spins
            f[0], f[1], f[2] = abs(q), q * q, q * q * q * q
            if bonds.count > 0:
                f[3] = link_overlap(rows[i], rows[j], bonds)
            if modes:
                f[4] = lowest_mode(rows[i], rows[j], n_spins, normal)
            for k in range(5):
                sums[i, k] += w * f[k]
                sums[j, k] += w * f[k]
                squares[0, k] += w * w
                squares[1, k] += w * w * f[k]
                squares[2, k] += w * w * f[k] * f[k]
            reach[i] += w
            reach[j] += w
            table[fine[i], n_spins - unlike] += w
            table[fine[j], n_spins - unlike] += w
            of_value[n_spins - unlike] += w * w
