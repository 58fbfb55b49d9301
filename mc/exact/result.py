"""What every exact method returns, and how it says no."""

from __future__ import annotations

import math
from dataclasses import dataclass


class ExactRefused(ValueError):
    """No exact value can be had; the message says in one line what, why and what to do instead."""


@dataclass(frozen=True)
class ExactResult:
    """Exact thermodynamics of a whole system (totals, not per site) at one inverse temperature.

    method: "kaufman", "enumeration", "transfer-matrix" or "pfaffian".
    beta: inverse temperature, in 1/(energy unit of the Hamiltonian).
    log_z: ln sum_s exp(-beta E(s)), the constant of the Hamiltonian included.
    energy: <E>, in the energy unit (J).
    heat_capacity: beta^2 (<E^2> - <E>^2), in units of k_B.
    ground_energy, degeneracy: lowest energy and number of states that have it (both of a pair of global flips),
        or None where the method does not find them.
    lost_digits: decimal digits that cancelled when terms of either sign were added up, None where there are none.
    """

    method: str
    beta: float
    log_z: float
    energy: float
    heat_capacity: float
    ground_energy: float | None = None
    degeneracy: float | None = None
    lost_digits: float | None = None

    @property
    def free_energy(self) -> float:
        """F = -ln Z / beta; NaN at beta = 0."""
        return -self.log_z / self.beta if self.beta > 0 else math.nan


def checked_beta(beta: float) -> float:
    """beta as a float; ValueError unless it is finite and not negative."""
    beta = float(beta)
    if not (math.isfinite(beta) and beta >= 0):
        raise ValueError(f"beta={beta}: a finite number of at least 0 is needed")
    return beta
