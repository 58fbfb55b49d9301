"""From a chain file to results: observables with errors, diagnostics, verdicts.

`results = mc.analyse(mc.open_chain("run.h5"))`; `results.observables["energy"][0].error`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mc.chain_reader import Chain
from mc.equilibration import Verdict, equilibrated
from mc.exact import exact_or_none
from mc.hamiltonian import Hamiltonian
from mc.measure import as_chains, mean_of_known
from mc.models.alloy import fixed_variables
from mc.models.attention import asymmetry
from mc.observables import summarize
from mc.population import family_entropy, mean_square_family_size, population_error
from mc.spin_glass import OverlapDistribution, entropy, overlap_distribution
from mc.statistics import Estimate, gravest, longest_rejection
from mc.stepping_stone import stepping_stones
from mc.vector.hamiltonian import VectorHamiltonian
from mc.vector.profiles import BINS, Profile, on_grid, profiles, solved, time_averages, verdicts
from mc.weighted import effective_sample_size, largest_weight_share, log_mean_weight, weighted_entropy
from mc.weighted_overlaps import pair_observables, pair_overlaps

LARGEST_OVERLAP_GRID = 10_000  # spins up to which P(q) is kept
POOR_OVERLAP = "neighbouring temperatures hardly overlap: use more of them, or ladder=tuned"
COOLED = ("anneal", "neural-anneal")  # modes whose draws are ends of a cooling
WEIGHTED = ("nis", "prior")  # modes whose draws are independent and carry weights
EXACT_SECONDS = 5.0  # exact values are "at hand" when those of all betas together are estimated to take less


@dataclass
class Results:
    """observables: {name: one Estimate a beta}; diagnostics: {name: one number a beta, or one number}.

    equilibrated: one verdict a beta, of the modes that have one. lowest_state: spins (N,) int8 of the lowest energy.
    overlaps: P(q) of every beta, where there are overlaps. profiles: observables along a coordinate, such as a lag.
    n_chains: 0 where they are not of one file.
    cooled: whether the draws are ends of a cooling, which have no equilibrium averages. k_B: of the Hamiltonian.
    """

    betas: np.ndarray
    observables: dict[str, list[Estimate]] = field(default_factory=dict)
    diagnostics: dict[str, Any] = field(default_factory=dict)
    equilibrated: list[Verdict] = field(default_factory=list)
    lowest_state: np.ndarray | None = None
    overlaps: list[OverlapDistribution] = field(default_factory=list)
    profiles: dict[str, Profile] = field(default_factory=dict)
    n_chains: int = 0
    cooled: bool = False
    k_B: float = 1.0

    @property
    def kelvin(self) -> np.ndarray | None:
        """T = 1 / (k_B beta) in kelvin, (B,), infinite at beta = 0; None for models whose energies have no unit."""
        return None if self.k_B == 1.0 else kelvin(self.betas, self.k_B)


def kelvin(beta: np.ndarray | float, k_B: float) -> np.ndarray:
    """T = 1 / (k_B beta), infinite at beta = 0."""
    with np.errstate(divide="ignore"):
        return 1.0 / (k_B * np.asarray(beta, np.float64))


def analyse(chain: Chain, extra: dict[str, Any] | None = None) -> Results:
    """Everything that can be said of a chain; `extra` diagnostics, such as those of the training, are added.

    Raises ValueError for draws without an energy, draws that are not finite, and weights that are all zero.
    """
    hamiltonian = chain.hamiltonian()
    results = Results(chain.betas, n_chains=chain.n_chains, cooled=chain.mode in COOLED, k_B=hamiltonian.k_B)
    stats = chain.sample_stats
    if chain.n_draws:
        weighted = chain.mode in WEIGHTED
        log_weight = stats["log_weight"] if weighted else None
        posterior = {name: chain.posterior[name] for name in chain.posterior}
        if "energy" not in posterior:
            raise ValueError("there is no energy among its draws")
        length = smallest_mode_length(hamiltonian)
        vector = isinstance(hamiltonian, VectorHamiltonian)
        results.profiles = profiles(chain, posterior) if vector else {}
        results.observables = summarize(
            {name: values for name, values in posterior.items() if name not in results.profiles},
            chain.n_spins, chain.betas, log_weight, length, fixed_variables(hamiltonian), hamiltonian.n_components,
        )  # fmt: skip
        if vector:
            results.observables |= time_averages(chain, hamiltonian)
        if chain.mode == "kinetic":  # its states are not those of exp(-beta E)
            del results.observables["heat_capacity"]
        results.diagnostics["lowest_energy"] = float(posterior["energy"].min())
        if "lowest_state" in chain.diagnostics:  # also from the warm-up
            results.lowest_state = chain.diagnostics["lowest_state"]
            results.diagnostics["lowest_energy"] = float(hamiltonian.energy(results.lowest_state))
        if "overlap" in posterior and chain.n_spins <= LARGEST_OVERLAP_GRID:
            symmetric = hamiltonian.is_z2_symmetric
            overlap, steps = posterior["overlap"], chain.n_spins
            if vector:
                overlap, steps = on_grid(overlap), BINS
            results.overlaps = [
                overlap_distribution(as_chains(overlap)[:, :, b], steps, symmetric) for b in range(len(chain.betas))
            ]
        if has_pairs(chain, hamiltonian):
            _pairs(results, chain, hamiltonian, log_weight)
        if "accepted" in stats:
            results.diagnostics["acceptance"] = mean_of_known(stats["accepted"], (0, 1)).tolist()
        if "swap_accepted" in stats:
            swaps = stats["swap_accepted"][:, :, :-1]
            results.diagnostics["swap_acceptance"] = mean_of_known(swaps, (0, 1)).tolist()
        if chain.mode in ("pt", "population") and len(chain.betas) > 1:
            _ladder(results, posterior["energy"], hamiltonian, stats.get("family"))
        if chain.mode in ("metropolis", "heatbath", "wolff", "swendsen-wang", "pt", "kinetic"):
            results.equilibrated = verdicts(posterior) if vector else _equilibrated(posterior)
        name = "log_weight_proposed" if "log_weight_proposed" in stats else "log_weight"
        if "neural_accepted" in stats:
            _offers(results, stats["neural_accepted"], stats[name])
        elif name in stats:
            _weights(results, stats[name])
            _entropy(results, posterior["energy"], log_weight)
        if chain.mode == "nmcmc":
            accepted = stats["accepted"] > 0
            results.diagnostics["longest_rejection"] = [
                longest_rejection(accepted[:, :, b]) for b in range(len(chain.betas))
            ]
    if isinstance(hamiltonian, VectorHamiltonian):
        results.diagnostics["asymmetry"] = asymmetry(hamiltonian.couplings)
    if chain.mode == "mean-field":
        results.observables = solved(chain)
    results.diagnostics |= exact_values(chain, hamiltonian)
    if "log_z" in results.diagnostics:
        log_z, error = np.array(results.diagnostics["log_z"]), np.array(results.diagnostics["log_z_error"])
        with np.errstate(divide="ignore", invalid="ignore"):
            off = (log_z - results.diagnostics["log_z_exact"]) / error
        results.diagnostics["log_z_sigma"] = np.where(error > 0, off, np.nan).tolist()  # known exactly at beta = 0
    known = {*results.diagnostics, "lowest_state"}
    stored = {name: _plain(value) for name, value in chain.diagnostics.items() if name not in known}
    results.diagnostics |= stored | (extra or {})
    return results


def smallest_mode_length(hamiltonian: Hamiltonian) -> int | None:
    """L of the smallest wave vector 2 pi / L: the longest periodic axis, None without one."""
    lattice = hamiltonian.lattice
    wrapped = [n for n, periodic in zip(lattice.shape, lattice.periodic, strict=True) if periodic] if lattice else []
    return max(wrapped, default=None)


def has_pairs(chain: Chain, hamiltonian: Hamiltonian) -> bool:
    """Whether the draws of a neural sampler say something of overlaps: a frustrated model, and spins in the file."""
    if chain.mode not in ("nis", "prior", "nmcmc") or hamiltonian.is_ferromagnet:
        return False
    kept = len(chain.spin_draws)
    enough = chain.n_chains > 1 and kept > 0 if chain.mode == "nmcmc" else chain.n_chains * kept > 1
    return enough and chain.n_spins <= LARGEST_OVERLAP_GRID


def _pairs(results: Results, chain: Chain, hamiltonian: Hamiltonian, log_weight: np.ndarray | None) -> None:
    """Overlaps of draws with each other, under the names that pairs of replicas have, and P(q)."""
    spins, kept = chain.spins, chain.spin_draws
    for b in range(len(chain.betas)):
        weights = None if log_weight is None else log_weight[:, kept, b]
        pairs = pair_overlaps(spins[:, :, b], hamiltonian, weights)
        for name, value in pair_observables(pairs).items():
            results.observables.setdefault(name, []).append(value)
        results.overlaps.append(pairs.distribution)


def _ladder(results: Results, energy: np.ndarray, hamiltonian: Hamiltonian, family: np.ndarray | None) -> None:
    """ln Z and entropy along a ladder, by stepping stones; differences only where it does not hold beta = 0.

    Several replicas of a chain (chain, draw, beta, replica) count as chains. family: of a population, (chain, member,
    beta). Its members are not the same from beta to beta, so that the covariance of its steps, which is that of
    families, is not seen draw by draw: errors are then at least those of `population_error`.
    """
    energy = as_chains(energy)
    stones = stepping_stones(energy, results.betas, hamiltonian.log_states)
    if family is not None:
        _families(results, family)
        least = population_error(energy, results.betas, family)
        stones = replace(
            stones, error=np.maximum(stones.error, least), entropy_error=np.maximum(stones.entropy_error, least)
        )
    name = "log_z" if stones.absolute else "log_z_rise"
    results.diagnostics |= {name: stones.log_z.tolist(), f"{name}_error": stones.error.tolist(),
                            "log_z_gap": stones.gap.tolist()}  # fmt: skip
    if stones.absolute:
        with np.errstate(divide="ignore"):
            scale = np.where(stones.beta > 0, 1.0 / stones.beta, np.nan)
        for name, values, errors in (
            ("log_z", stones.log_z, stones.error),
            ("free_energy", stones.free_energy, stones.error * scale),
            ("entropy", stones.entropy, stones.entropy_error),
        ):
            results.observables[name] = [
                Estimate(
                    float(value),
                    float(error),
                    n_draws=energy[..., 0].size,
                    status=status,
                    advice=POOR_OVERLAP if status == "poor overlap" else "",
                )
                for value, error, status in zip(values, errors, stones.status, strict=True)
            ]


def _families(results: Results, family: np.ndarray) -> None:
    """How many families are left of a population (chain, member, beta), mean over chains."""
    for name, measure in (("family_entropy", family_entropy), ("rho_t", mean_square_family_size)):
        values = [[measure(family[c, :, b]) for c in range(len(family))] for b in range(family.shape[2])]
        results.diagnostics[name] = np.mean(values, axis=1).tolist()


def _equilibrated(posterior: dict[str, np.ndarray]) -> list[Verdict]:
    """A verdict at each beta, on the energy and, where there is an overlap, its square."""
    series = {"energy": over_axes_of_beta(posterior["energy"])}
    if "overlap" in posterior:
        series["q2"] = over_axes_of_beta(posterior["overlap"] ** 2)
    betas = series["energy"].shape[2]
    return [equilibrated({name: values[:, :, b] for name, values in series.items()}) for b in range(betas)]


def over_axes_of_beta(values: np.ndarray) -> np.ndarray:
    """Mean over what follows (chain, draw, beta)."""
    return values.reshape(*values.shape[:3], -1).mean(axis=-1)


def exact_values(chain: Chain, hamiltonian: Hamiltonian) -> dict[str, list[float]]:
    """Exact ln Z and energy of every beta: those in the file, else computed where that is quick, else NaN.

    NaN of kinetic dynamics, too, whose steady state is not that of exp(-beta E).
    """
    names = ("log_z_exact", "energy_exact")
    if chain.mode == "kinetic":
        return {name: [math.nan] * len(chain.betas) for name in names}
    if all(np.shape(chain.diagnostics.get(name)) == chain.betas.shape for name in names):
        return {name: chain.diagnostics[name].tolist() for name in names}
    exact = [exact_or_none(hamiltonian, float(beta), EXACT_SECONDS / len(chain.betas)) for beta in chain.betas]
    pairs = [(math.nan, math.nan) if e is None else (e.log_z, e.energy) for e in exact]
    return {name: [pair[k] for pair in pairs] for k, name in enumerate(names)}


def _weights(results: Results, log_weight: np.ndarray) -> None:
    """Diagnostics of independent proposals with ln w = -beta E - ln q, (chain, draw, beta)."""
    rows: dict[str, list[float]] = {name: [] for name in ("ess", "dF", "largest_weight", "log_z", "log_z_error")}
    log_z_estimates, free_energies = [], []
    for b, beta in enumerate(results.betas):
        flat = log_weight[:, :, b].ravel()
        ess, (log_z, error) = effective_sample_size(flat), log_mean_weight(flat)
        share = largest_weight_share(flat)
        for name, value in zip(rows, (ess, log_z - flat.mean(), share, log_z, error), strict=True):
            rows[name].append(float(value))
        status = "ok" if ess * flat.size >= 20 else "too few effective draws"
        one = Estimate(
            log_z, error if status == "ok" else math.nan, n_eff=ess * flat.size, n_draws=flat.size, status=status
        )
        log_z_estimates.append(one)
        scale = -1.0 / beta if beta > 0 else math.nan
        free_energies.append(
            Estimate(log_z * scale, abs(one.error * scale), n_eff=one.n_eff, n_draws=flat.size, status=status)
        )
    results.diagnostics |= rows
    results.observables["log_z"], results.observables["free_energy"] = log_z_estimates, free_energies


def _entropy(results: Results, energy: np.ndarray, log_weight: np.ndarray | None) -> None:
    """S = beta <E> + ln Z of weighted draws, or of a Markov chain with ln Z from its proposals, whose errors are then
    added as if they were independent.
    """
    found = []
    for b, beta in enumerate(results.betas):
        one = energy[:, :, b]
        if log_weight is not None:
            found.append(weighted_entropy(one, log_weight[:, :, b], float(beta)))
        else:
            log_z = results.observables["log_z"][b]
            result = entropy(one, float(beta), log_z.mean, log_z.error)
            worse = gravest((result.status, log_z.status)) != result.status
            found.append(replace(result, status=log_z.status, advice=log_z.advice) if worse else result)
    results.observables["entropy"] = found


def _offers(results: Results, accepted: np.ndarray, log_weight: np.ndarray) -> None:
    """Diagnostics of neural moves within tempering, (chain, draw, beta), NaN where a draw had none.

    ln Z of the proposals alone stands beside that of the ladder.
    """
    names = ("neural_acceptance", "ess", "dF", "log_z_proposals", "log_z_proposals_error")
    rows: dict[str, list[float]] = {name: [] for name in names}
    for b in range(len(results.betas)):
        rates, flat = (values[:, :, b][np.isfinite(values[:, :, b])] for values in (accepted, log_weight))
        found = (math.nan,) * len(names)
        if flat.size:
            ess, (log_z, error) = effective_sample_size(flat), log_mean_weight(flat)
            found = (rates.mean(), ess, log_z - flat.mean(), log_z, error)
        for name, value in zip(names, found, strict=True):
            rows[name].append(float(value))
    results.diagnostics |= rows


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value
