"""How far vector spins lie along their fields, and how large their time averages are.

Two estimators of the alignment A(a, b) = (1/N) sum_i cos(a_i, b_i) (Honkoop, "Statistical Physics of Transformers"
(Leiden 2025), eq. 3.6) go by one name in the thesis and differ:

    average of cosines    < A(s, x) >      what its Monte Carlo curves show: near 0 at high temperature
    cosine of average     A(< s >, x)      what a mean field m = < s > gives: near 1 at high temperature

The second is a function of noisy averages; so is q = (1/N) sum_i |< s_i >|^2 / R^2. Independent chains say how noisy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Value:
    """A function of averages over independent chains.

    value: without its bias of order 1 / chains. error: one standard error, with chains - 1 degrees of freedom; nan
    for one chain, whose value keeps its bias. plain: the function of the average over all chains, bias included.
    """

    value: float
    error: float
    plain: float


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """A(a, b), the mean over sites of cos(a_i, b_i), of arrays (..., N, D) that broadcast; shape (...), float64.

    Sites where a_i or b_i is zero are left out; nan where no site is left. Eq. 3.6 of the thesis.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    known = norms > 0
    each = np.divide(np.einsum("...d,...d->...", a, b), norms, out=np.zeros(norms.shape), where=known)
    count = known.sum(axis=-1)
    return np.divide(each.sum(axis=-1), count, out=np.full(count.shape, np.nan), where=count > 0)


def average_of_cosines(spins: np.ndarray, fields: np.ndarray) -> float:
    """< A(s, x) >, the mean over snapshots (..., N, D) of the cosine with the fields (N, D): fig. 4.1 of the thesis.

    The posterior variable `alignment` of the drivers is its series, from which an error follows.

    Raises ValueError for shapes that do not match.
    """
    spins, fields = np.asarray(spins), np.asarray(fields)
    if fields.ndim != 2 or spins.shape[-2:] != fields.shape:
        raise ValueError(f"alignment: spins {spins.shape}, fields {fields.shape}; (..., N, D) and (N, D) are needed")
    return float(np.mean(cosines(spins, fields)))


def cosine_of_average(means: np.ndarray, fields: np.ndarray) -> Value:
    """A(< s >, x) of the average over all chains, with its jackknife error over chains.

    means: (chains, N, D), the time average of each chain, all of the same length. fields: x (N, D).
    Noise in < s_i > adds to its norm and lowers the cosine, to first order by an amount ~ 1 / chains, which the
    jackknife takes away. Where noise hides < s_i >, nothing can: the plain value of C chains then is about sqrt(C)
    times that of one.

    Raises ValueError for shapes that do not match.
    """
    means, fields = _checked(means), np.asarray(fields, np.float64)
    if means.shape[1:] != fields.shape:
        raise ValueError(f"alignment: means {means.shape}, fields {fields.shape}; (chains, N, D), (N, D) are needed")
    return _jackknife(lambda average: cosines(average, fields), means)


def mean_square(means: np.ndarray, radius: float) -> Value:
    """q = (1/N) sum_i |< s_i >|^2 / R^2 with its jackknife error over chains.

    means: (chains, N, D), the time average of each chain, all of the same length. radius: R, the unit of the spins.
    value: from products of different chains, sum_i sum_{c != d} m_ic.m_id / (N C (C - 1) R^2), to which noise adds
    nothing on average (a U-statistic: W. Hoeffding, Ann. Math. Stat. 19, 293 (1948)); it can be negative. plain:
    the square of the average, too large by the variance of the average. Where < s_i > is far below the noise the
    error is too large, by a factor of sqrt(2) or somewhat more with few chains.

    Raises ValueError for shapes that do not match.
    """
    means = _checked(means)
    scale = 1.0 / (means.shape[1] * radius**2)
    return _jackknife(lambda average: scale * np.einsum("...id,...id->...", average, average), means)


def _checked(means: np.ndarray) -> np.ndarray:
    means = np.asarray(means, np.float64)
    if means.ndim != 3 or not means.size:
        raise ValueError(f"alignment: means {means.shape}; time averages of every chain, (chains, N, D), are needed")
    return means


def _jackknife(function: Callable[[np.ndarray], np.ndarray], means: np.ndarray) -> Value:
    """Jackknife over chains of a function (..., N, D) -> (...).

    M. Quenouille, Biometrika 43, 353 (1956), takes the bias away; B. Efron and C. Stein, Ann. Stat. 9, 586 (1981),
    gives the error. Of a square it leaves exactly the products of different chains.
    """
    chains = len(means)
    plain = float(function(means.mean(axis=0)))
    if chains == 1:
        return Value(plain, math.nan, plain)
    without = function((means.sum(axis=0) - means) / (chains - 1))
    value = chains * plain - (chains - 1) * without.mean()
    error = math.sqrt((chains - 1) / chains * ((without - without.mean()) ** 2).sum())
    return Value(float(value), error, plain)
