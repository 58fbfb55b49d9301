"""Overlaps of replicas of vector spins, raw and after the best common rotation.

    raw          q_ab = (1/N) sum_i s_i^a.s_i^b / R^2                    Honkoop (Leiden 2025), eq. 2.8 and fig. 4.2
    components   q_ab^{mu nu} = (1/N) sum_i s_i^{a mu} s_i^{b nu} / R^2,   D x D, its trace is q_ab
    Frobenius    sqrt(sum_{mu nu} (q_ab^{mu nu})^2)
    rotation     max over O in O(D) of (1/N) sum_i s_i^a.(O s_i^b) / R^2,  the sum of the singular values

Without fields the energy does not change when all spins are rotated or reflected together, so that two replicas in
one state can have a raw overlap of any size. The last two do not see such a rotation; the last one is 1 if and only
if the replicas agree up to it (orthogonal Procrustes problem: P. Schoenemann, Psychometrika 31, 1 (1966)).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.special import hyp2f1


def overlap_matrix(spins: np.ndarray, radius: float) -> np.ndarray:
    """q_ab of spins (..., replicas, N, D): (..., replicas, replicas) float64, 1 on the diagonal for spins of norm R.

    Raises ValueError for fewer axes than three.
    """
    spins = _checked(spins)
    flat = spins.reshape(*spins.shape[:-2], -1)
    return flat @ np.swapaxes(flat, -1, -2) / (spins.shape[-2] * radius**2)


def component_overlaps(spins: np.ndarray, radius: float) -> np.ndarray:
    """q_ab^{mu nu} of spins (..., replicas, N, D): (..., replicas, replicas, D, D) float64.

    Raises ValueError for fewer axes than three.
    """
    spins = _checked(spins)
    left = np.swapaxes(spins, -1, -2)[..., :, None, :, :]
    return left @ spins[..., None, :, :, :] / (spins.shape[-2] * radius**2)


def frobenius_overlaps(spins: np.ndarray, radius: float) -> np.ndarray:
    """sqrt(sum_{mu nu} (q_ab^{mu nu})^2) of spins (..., replicas, N, D): (..., replicas, replicas) float64.

    On the diagonal 1 for spins along one axis; for random directions its square is 1/N + (1 - 1/N)/D on average.
    Raises ValueError for fewer axes than three.
    """
    return np.linalg.norm(component_overlaps(spins, radius), axis=(-2, -1))


def rotation_overlaps(spins: np.ndarray, radius: float) -> np.ndarray:
    """The largest overlap over rotations and reflections of one replica of each pair, 1 on the diagonal.

    spins (..., replicas, N, D): (..., replicas, replicas) float64. It is never below |q_ab|, and for few spins of
    many components it is large by itself: see `noise_floor`. Raises ValueError for fewer axes than three.
    """
    values = np.linalg.svd(component_overlaps(spins, radius), compute_uv=False).sum(axis=-1)
    return 0.5 * (values + np.swapaxes(values, -1, -2))  # the pair (b, a) has the same values to rounding


def pair_values(matrices: np.ndarray) -> np.ndarray:
    """The pairs a < b of matrices (..., replicas, replicas), row by row: (..., replicas (replicas - 1) / 2)."""
    first, second = np.triu_indices(np.shape(matrices)[-1], 1)
    return np.asarray(matrices)[..., first, second]


@dataclass(frozen=True)
class NoiseFloor:
    """Overlaps of two independent states of random directions: what a paramagnet has.

    raw: mean of |q_ab|. frobenius: root mean square. rotation: mean of the largest overlap over rotations.
    """

    raw: float
    frobenius: float
    rotation: float


def noise_floor(n_spins: int, dimension: int) -> NoiseFloor:
    """Overlaps of independent random spins, N = n_spins and D = dimension.

    Cosines have variance 1/D, so that q_ab is Gaussian with variance 1/(N D) for many spins, and each of the D^2
    components has variance 1/(N D^2): the mean of the squared Frobenius overlap is 1/N, exactly. The rotation overlap
    is the sum of the singular values of U^T V / N, where the rows of U and V (N, D) are the directions. For large N
    and D at fixed ratio these are free products of Marchenko-Pastur laws (D. Voiculescu's S-transform); moments by
    Lagrange inversion of w = z (1 + w)(1 + (N/D) w)^2 for N <= D, and of w = z (1 + w)^2 (1 + (D/N) w) for N >= D,
    continued to the moment 1/2, are

        1 - N / (4 D)                                                   N <= D
        (8 / (3 pi)) sqrt(D/N) 2F1(1/2, -1/2; 5/2; D/N)                 N >= D,

    3/4 at N = D, and the quarter circle law for N >> D. Derived here, for large sizes: at D = 3 the last is 3 % too
    large, and a single spin has 1 - 1/(4 D) instead of 1.

    Raises ValueError for sizes below 1.
    """
    if min(n_spins, dimension) < 1:
        raise ValueError(f"noise floor: N={n_spins}, D={dimension}; sizes of at least 1 are needed")
    ratio = dimension / n_spins
    if ratio >= 1.0:
        rotation = 1.0 - 0.25 / ratio
    else:
        rotation = 8.0 / (3.0 * math.pi) * math.sqrt(ratio) * float(hyp2f1(0.5, -0.5, 2.5, ratio))
    return NoiseFloor(math.sqrt(2.0 / (math.pi * n_spins * dimension)), math.sqrt(1.0 / n_spins), rotation)


def block_order(matrix: np.ndarray) -> np.ndarray:
    """An order of the replicas (replicas,) int that puts alike ones side by side, for pictures.

    matrix: (replicas, replicas) overlaps of any kind; the raw ones as they are tell s and -s apart, their absolute
    values do not. Average linkage of the distances max(q) - q_ab, leaves in the order that makes neighbours closest
    (`scipy.cluster.hierarchy`). `matrix[np.ix_(order, order)]` is the matrix in that order.

    Raises ValueError for other shapes and numbers that are not finite.
    """
    matrix = np.asarray(matrix, np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not np.isfinite(matrix).all():
        raise ValueError(f"block order: matrix {matrix.shape}; finite overlaps (replicas, replicas) are needed")
    if len(matrix) < 3:
        return np.arange(len(matrix))
    pairs = pair_values(0.5 * (matrix + matrix.T))
    return leaves_list(linkage(pairs.max() - pairs, "average", optimal_ordering=True)).astype(np.int64)


def _checked(spins: np.ndarray) -> np.ndarray:
    spins = np.asarray(spins, np.float64)
    if spins.ndim < 3:
        raise ValueError(f"overlaps: spins {spins.shape}; spins of several replicas (..., replicas, N, D) are needed")
    return spins
