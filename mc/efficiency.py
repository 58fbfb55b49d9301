"""What a run was worth: the error of an observable against the CPU seconds that it took.

An error falls as 1 / sqrt(seconds), so error * sqrt(seconds) is the error that one second buys, the same for a short
and for a long run. Seconds are CPU seconds of all threads. Of a run at many betas they are those of all of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mc.statistics import Estimate

USABLE = ("ok", "short")  # a status with which an error may win


@dataclass(frozen=True)
class Efficiency:
    """One observable of one run at one beta.

    error, tau_int, n_eff, status: as of its Estimate. sampling: CPU seconds of the draws, warm-up included; total:
    with building and training. per_sample, per_sample_total: the same for an independent sample, over n_eff.
    one_second, one_second_total: error * sqrt(seconds), in the unit of the observable times sqrt(s). uncertainty:
    relative, of these errors. NaN where it is not known.
    """

    error: float
    tau_int: float
    n_eff: float
    status: str
    sampling: float
    total: float
    uncertainty: float

    @property
    def per_sample(self) -> float:
        return self.sampling / self.n_eff

    @property
    def per_sample_total(self) -> float:
        return self.total / self.n_eff

    @property
    def one_second(self) -> float:
        return self.error * math.sqrt(self.sampling)

    @property
    def one_second_total(self) -> float:
        return self.error * math.sqrt(self.total)


def efficiency(one: Estimate, seconds: Mapping[str, float]) -> Efficiency:
    """Of an estimate and the CPU seconds {build, train, sample} of its run; NaN where these were not counted."""
    sampling = seconds.get("sample", math.nan)
    sampling = sampling if sampling > 0.0 else math.nan
    total = sampling + sum(seconds.get(part, math.nan) for part in ("build", "train"))
    n_eff = one.n_eff if one.n_eff > 0.0 else math.nan
    # The square of the error is as uncertain as tau_int, of independent draws as a variance of n_eff of them.
    of_square = one.tau_int_error / one.tau_int if math.isfinite(one.tau_int) else math.sqrt(2.0 / n_eff)
    error = one.error if one.error > 0.0 else math.nan
    return Efficiency(error, one.tau_int, n_eff, one.status, sampling, total, of_square / 2.0)


def best(values: Sequence[float], allowed: Sequence[bool]) -> int | None:
    """Place of the smallest number that is allowed and known, None without one."""
    places = [k for k, value in enumerate(values) if allowed[k] and math.isfinite(value)]
    return min(places, key=lambda k: values[k], default=None)


def tied(one: float, other: float, uncertainty_one: float, uncertainty_other: float) -> bool:
    """Whether two errors at equal time differ by less than two of their own errors (relative uncertainties)."""
    apart = math.hypot(uncertainty_one, uncertainty_other)
    return math.isfinite(apart) and abs(math.log(one / other)) < 2.0 * apart
