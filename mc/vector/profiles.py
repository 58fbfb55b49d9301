"""What a chain file of vector spins says beside its scalar observables: time averages, and correlations by lag."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mc.chain_reader import Chain
from mc.equilibration import Verdict, equilibrated, together
from mc.measure import as_chains
from mc.statistics import Estimate, estimate
from mc.vector.alignment import Value, cosine_of_average, mean_square
from mc.vector.hamiltonian import VectorHamiltonian

PROFILES = ("correlation",)  # variables whose own axis is a coordinate, not a set of equals to be averaged over
UNSETTLED = "the equations have not settled; try damping=0.9, scheme=anderson, another method= or --mode kinetic"
ONE_CHAIN = "noise of one chain adds to q, lowers the cosine, and no error is known; use more --chains or replicas="
BINS = 64  # of P(q) between q = -1 and 1


@dataclass(frozen=True)
class Profile:
    """An observable along a coordinate: axis, its values (n,), and mean, error, r_hat (beta, n)."""

    axis: str
    values: np.ndarray
    mean: np.ndarray
    error: np.ndarray
    r_hat: np.ndarray


def profiles(chain: Chain, posterior: Mapping[str, np.ndarray]) -> dict[str, Profile]:
    """{name: Profile} of the variables of `PROFILES` among `posterior` (chain, draw, beta, n)."""
    found = {}
    for name in set(PROFILES) & posterior.keys():
        ((axis, coordinates),) = chain.own_axes(name).items()
        table = [
            [estimate(posterior[name][:, :, b, k], name) for k in range(len(coordinates))]
            for b in range(len(chain.betas))
        ]
        columns = (np.array([[getattr(e, key) for e in row] for row in table]) for key in ("mean", "error", "r_hat"))
        found[name] = Profile(axis, coordinates, *columns)
    return found


def time_averages(chain: Chain, hamiltonian: VectorHamiltonian) -> dict[str, list[Estimate]]:
    """`alignment_of_mean` and `q` from the sums of the spins over all draws, one Estimate a beta.

    alignment_of_mean: the mean over sites of cos(<s_i>, x_i), where there are fields: the cosine of the average,
    beside `alignment`, the average of cosines. q: sum_i |<s_i>|^2 / (N R^2), from products of different chains, so
    that noise adds nothing. Replicas count as chains. Errors are those of a jackknife over them; one alone has none,
    and its values are biased. {} for files without such sums (merged ones). Of a live run they hold all draws
    committed so far.
    """
    state = chain.state(newest=True)
    sums, draws = state.get("spin_sums"), int(state.get("draw", 0))
    if sums is None or not draws:
        return {}
    size = hamiltonian.fields.shape
    by_set = sums.reshape(-1, len(chain.betas), *size) / draws  # (chain * replica, beta, N, D)
    found: dict[str, list[Estimate]] = {"alignment_of_mean": [], "q": []} if hamiltonian.has_fields else {"q": []}
    for b in range(len(chain.betas)):
        means = by_set[:, b]
        if hamiltonian.has_fields:
            cosine = cosine_of_average(means, hamiltonian.fields)
            found["alignment_of_mean"].append(_as_estimate(cosine, len(means), chain))
        found["q"].append(_as_estimate(mean_square(means, hamiltonian.radius), len(means), chain))
    return found


def _as_estimate(value: Value, sets: int, chain: Chain) -> Estimate:
    status, advice = ("short", ONE_CHAIN) if sets == 1 else ("ok", "")
    return Estimate(value.value, value.error, n_draws=chain.n_chains * chain.n_draws, status=status, advice=advice)


def verdicts(posterior: Mapping[str, np.ndarray]) -> list[Verdict]:
    """Whether each beta is in equilibrium, by the energy and the squared tensor overlap.

    Replicas of vector spins never meet, so they count as chains, and so do pairs that share no replica: (0, 1),
    (2, 3), ...
    """
    series = {"energy": as_chains(posterior["energy"])}
    if "overlap_norm" in posterior:
        norm = posterior["overlap_norm"]
        if norm.ndim > 3:
            pairs = list(itertools.combinations(range(posterior["energy"].shape[3]), 2))
            norm = norm[..., [k for k, (a, b) in enumerate(pairs) if a % 2 == 0 and b == a + 1]]
        series["q2"] = as_chains(norm**2)
    betas = series["energy"].shape[2]
    return [together([equilibrated({name: x[:, :, b]}) for name, x in series.items()]) for b in range(betas)]


def on_grid(overlap: np.ndarray) -> np.ndarray:
    """Overlaps of vectors on the grid of `BINS` + 1 values from -1 to 1 that P(q) is kept on; beyond it, at its
    ends.
    """
    return np.clip(np.rint((overlap + 1.0) * (0.5 * BINS)), 0, BINS) * (2.0 / BINS) - 1.0


def solved(chain: Chain) -> dict[str, list[Estimate]]:
    """`q` and `A` of a file of mode mean-field, {} before they are there: numbers without a statistical error."""
    converged = chain.diagnostics.get("converged")
    if converged is None:
        return {}
    judged = [("ok", "") if good else ("not converged", UNSETTLED) for good in converged]
    return {
        name: [Estimate(float(value), 0.0, status=status, advice=advice)
               for value, (status, advice) in zip(chain.observables[name]["mean"], judged, strict=True)]
        for name in ("q", "A") if name in chain.observables
    }  # fmt: skip
