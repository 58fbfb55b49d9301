"""Population annealing: a crowd of replicas cooled together, resampled at every step of the schedule.

Going from beta to beta' each replica leaves descendants in proportion to exp(-(beta' - beta) E), then all are moved
by sweeps at beta'. Hukushima and Iba, AIP Conf. Proc. 690, 200 (2003); Machta, Phys. Rev. E 82, 026704 (2010); Wang,
Machta and Katzgraber, Phys. Rev. E 92, 063307 (2015). The mean weights of the steps give ln Z, since the schedule
starts at beta = 0, where ln Z is that of the number of states.
"""

from __future__ import annotations

import numpy as np

from mc.engine import Engine
from mc.hamiltonian import Hamiltonian
from mc.kernels.batch import load_all, store_all, unpack, words
from mc.measure import kept_draws, measured_posterior, no_record, posterior_axes, probe, room
from mc.simulate import (
    INITIAL_STREAMS,
    REPLICA_STREAMS,
    SWAP_STREAMS,
    Block,
    at_least,
    checked_betas,
    checked_state,
    initial_spins,
    replica_streams,
    run_draws,
)

SERIES = ("energy", "magnetization", "mode", "accepted")


class PopulationDriver:
    """Independent populations of one size, annealed from beta = 0 through rising betas.

    betas: (B,) in 1 / energy unit, the first 0. n_chains: populations. population: replicas of each. seed: of all
    random numbers. thin: sweeps at each beta after resampling. spins_every: keep the spins of members 0, K, 2K, ...
    at every beta. kernel: see `mc.engine.choose`.

    The draws of a chain are the members of its population, relatives side by side, so that the autocorrelation of the
    series measures how much relatives have in common. `warm_up(n)` makes n steps of the schedule, and `block` hands
    out members once all B are made; there are no draws beyond the population.
    sample_stats: `accepted`, fraction of spins flipped by the last sweep; `family`, the number of the ancestor at
    beta = 0. Averages over chains give every population the same weight; its estimate of Z as its weight (Wang et
    al.) would remove what is left of the bias, which is of the order of the variance of ln Z.

    Raises ValueError for wrong betas and sizes; `block` does before the schedule is through, and for more draws.
    """

    def __init__(
        self,
        hamiltonian: Hamiltonian,
        betas: np.ndarray,
        n_chains: int = 4,
        population: int = 1000,
        seed: int = 0,
        rule: str = "metropolis",
        thin: int = 10,
        spins_every: int = 1,
        kernel: str = "auto",
    ):
        self.hamiltonian = hamiltonian
        self.betas = checked_betas(betas)
        if len(self.betas) < 2 or self.betas[0] != 0 or (np.diff(self.betas) <= 0).any():
            raise ValueError("population annealing needs a schedule that rises from 0, such as beta=0:1:41")
        self.n_chains = at_least("n_chains", n_chains, 1)
        self.population = population
        if population < 2:
            raise ValueError(f"a population of {population}: at least 2 members are needed (--draws)")
        self.thin = at_least("thin", thin, 1)
        self.spins_every = at_least("spins_every", spins_every, 0)
        self.rule = rule
        shape = (self.n_chains, self.population)
        self.engine = Engine(hamiltonian, np.zeros(shape), seed, (REPLICA_STREAMS,), rule, kernel)
        starts = replica_streams(seed, INITIAL_STREAMS, *shape)
        self.engine.set_spins(initial_spins("random", hamiltonian.n_spins, starts, n_up=hamiltonian.n_up))
        self._probe = probe(hamiltonian)
        self.posterior_axes, self.spin_axes = posterior_axes(hamiltonian), {}
        self.stat_names = ("accepted", "family")
        self._rows = self.engine.rows()
        self._series = {name: np.zeros((*shape, len(self.betas))) for name in SERIES}
        self._family = np.zeros((*shape, len(self.betas)), np.int64)
        kept = len(kept_draws(0, self.population, self.spins_every))
        self._kept = np.zeros((self.n_chains, kept, len(self.betas), words(hamiltonian.n_spins)), np.uint64)
        self._offsets = np.stack(  # one random number a resampling
            [
                np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(SWAP_STREAMS, chain))).random(
                    len(betas)
                )
                for chain in range(self.n_chains)
            ]
        )
        self.lowest = no_record(hamiltonian.n_spins)
        self._steps = 0
        self._draw = 0

    def warm_up(self, n_sweeps: int) -> None:
        """n_sweeps steps of the schedule, as far as it goes."""
        for _ in range(min(n_sweeps, len(self.betas) - self._steps)):
            self._step()

    def block(self, n_draws: int) -> Block:
        """The next n_draws members of every population at every beta."""
        if self._steps < len(self.betas):
            raise ValueError(f"block: {self._steps} of {len(self.betas)} steps of the schedule are made")
        first, last = self._draw, self._draw + n_draws
        if last > self.population:
            raise ValueError(f"block: a population of {self.population} has no draw {last - 1}")
        self._draw = last
        stored = kept_draws(first, n_draws, self.spins_every)
        rows = self._kept[:, stored // max(self.spins_every, 1)]
        series = {name: values[:, first:last].copy() for name, values in self._series.items()}
        posterior = measured_posterior(self.hamiltonian, series)
        statistics = {"accepted": series["accepted"], "family": self._family[:, first:last].astype(np.float64)}
        return Block(posterior, statistics, unpack(rows, self.hamiltonian.n_spins), stored)

    def state(self) -> dict[str, np.ndarray]:
        """The population, its streams, all that was measured of it, and numbers of steps and draws made."""
        return (
            self.engine.state()
            | self.lowest.state()
            | {name: values.copy() for name, values in self._series.items()}
            | {
                "family": self._family.copy(),
                "kept": self._kept.copy(),
                "offsets": self._offsets.copy(),
                "steps": np.array(self._steps, np.int64),
                "draw": np.array(self._draw, np.int64),
            }
        )

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Continue from `state()` of a driver with the same arguments; ValueError when shapes differ."""
        state = checked_state(state, self.state())
        self._series = {name: state[name] for name in SERIES}
        self._family, self._kept, self._offsets = state["family"], state["kept"], state["offsets"]
        self._steps, self._draw = int(state["steps"]), int(state["draw"])
        self.engine.set_betas(self.betas[max(self._steps - 1, 0)])
        self.engine.restore(state)
        self.lowest.restore(state)

    def _step(self) -> None:
        """Resample for the next beta, sweep there, and measure everybody."""
        k, engine = self._steps, self.engine
        shape = (self.n_chains, self.population)
        families = np.broadcast_to(np.arange(self.population), shape)
        if k > 0:
            parents = np.stack([self._parents(chain, k) for chain in range(self.n_chains)])
            families = np.take_along_axis(self._family[:, :, k - 1], parents, axis=1)
            store_all(engine.batch, self._rows)
            flat = self._rows.reshape(-1, self._rows.shape[-1])
            flat[engine.lanes] = flat[np.take_along_axis(engine.lanes, parents, axis=1)]
            engine.set_betas(self.betas[k])
            load_all(engine.batch, self._rows)
        self._family[:, :, k] = families
        kept = kept_draws(0, self.population, self.spins_every)
        measured = room(engine.lanes.size, 1, 0, self.hamiltonian.n_spins)
        run_draws(engine.batch, engine.seats(), self._probe, self._rows, 0, self.thin, 0, measured)
        self.lowest.update(measured)
        for name, values in self._series.items():
            values[:, :, k] = getattr(measured, name).reshape(shape)
        self._kept[:, :, k] = self._rows.reshape(-1, self._rows.shape[-1])[engine.lanes[:, kept]]
        self._steps += 1

    def _parents(self, chain: int, k: int) -> np.ndarray:
        """Numbers of the parents of the members at beta k, (population,), rising."""
        log_weight = -(self.betas[k] - self.betas[k - 1]) * self._series["energy"][chain, :, k - 1]
        weight = np.exp(log_weight - log_weight.max())
        return systematic_resampling(weight, self._offsets[chain, k])


def systematic_resampling(weight: np.ndarray, offset: float) -> np.ndarray:
    """Which of n members survive, (n,) int64, rising: i as often as n weight_i / sum weight, rounded up or down.

    One random number offset in [0, 1) decides all: the j-th survivor is where the cumulated weight passes
    (j + offset) / n. Every member's mean number is exact.
    """
    n = len(weight)
    edges = np.cumsum(weight)
    return np.minimum(np.searchsorted(edges, (np.arange(n) + offset) * (edges[-1] / n), side="right"), n - 1)


def family_sizes(family: np.ndarray) -> np.ndarray:
    """Fractions of a population (members,) by family, those that are left."""
    return np.unique(family, return_counts=True)[1] / len(family)


def family_entropy(family: np.ndarray) -> float:
    """S_f = - sum nu ln nu over families: exp(S_f) is an effective number of them (Wang et al. 2015, eq. 22)."""
    nu = family_sizes(family)
    return float(-(nu * np.log(nu)).sum())


def mean_square_family_size(family: np.ndarray) -> float:
    """rho_t = R sum nu^2, the population that stands for one independent replica (Wang et al. 2015, eq. 24)."""
    return float(len(family) * (family_sizes(family) ** 2).sum())


def population_error(energy: np.ndarray, betas: np.ndarray, family: np.ndarray) -> np.ndarray:
    """A safe error of ln Z at each beta, (B,), from families and from the scatter of populations.

    energy, family: (chain, member, beta), betas rising from 0. The larger of sqrt(rho_t / members of all chains)
    (Wang et al. 2015, section III) and the standard error over chains of their own ln Z, the mean weights of the
    steps.
    """
    chains, members, n_betas = energy.shape
    rho = [[mean_square_family_size(family[c, :, b]) for b in range(n_betas)] for c in range(chains)]
    by_families = np.sqrt(np.mean(rho, axis=0) / (chains * members))
    by_families[0] = 0.0  # ln Z is known
    if chains == 1:
        return by_families
    log_weight = -np.diff(betas) * (energy[:, :, :-1] - energy[:, :, :-1].mean(axis=1, keepdims=True))
    steps = np.log(np.exp(log_weight).mean(axis=1)) - np.diff(betas) * energy[:, :, :-1].mean(axis=1)
    own = np.concatenate([np.zeros((chains, 1)), np.cumsum(steps, axis=1)], axis=1)
    return np.maximum(by_families, own.std(axis=0, ddof=1) / np.sqrt(chains))
