"""Drivers warm up, produce blocks of draws and hand out their state; here the one of local and cluster moves.

A driver's future depends on its state only, so a run stopped after any block and restored elsewhere continues bit for
bit, with any partition into blocks and any number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numba import njit, prange

from mc.hamiltonian import Hamiltonian
from mc.kernels import heatbath, metropolis, wolff
from mc.kernels.local_field import energy, kernel_arrays, magnetization, typical_fields
from mc.kernels.random_streams import next_uint64, streams

METROPOLIS, HEATBATH, WOLFF = 0, 1, 2
RULES = {"metropolis": METROPOLIS, "heatbath": HEATBATH, "wolff": WOLFF}
REPLICA_STREAMS, SWAP_STREAMS = 0, 1  # uses of one seed
U63 = np.uint64(63)


@dataclass(frozen=True)
class Block:
    """Consecutive draws. Axes are (chain, draw, beta), then own axes.

    posterior: energy (total, energy unit) and magnetization (sum s / N), float64.
    sample_stats: what the moves report, float64.
    spins: int8 (chain, stored draw, beta, N) of the draws numbered spin_draws, int64, counted from the first block.
    """

    posterior: dict[str, np.ndarray]
    sample_stats: dict[str, np.ndarray]
    spins: np.ndarray
    spin_draws: np.ndarray


class Model(NamedTuple):
    """A Hamiltonian as the compiled loops take it: `kernel_arrays`, and the constant and bound that go with them."""

    constant: float
    start: np.ndarray
    coupling: np.ndarray
    others: np.ndarray
    typical: np.ndarray


class Measured(NamedTuple):
    """Where a compiled loop leaves what it measured: (chain, draw, beta) float64, and spins as in `Block`."""

    energy: np.ndarray
    magnetization: np.ndarray
    accepted: np.ndarray
    spins: np.ndarray


class Driver(Protocol):
    """What the command line and the chain file ask of a sampler."""

    def warm_up(self, n_sweeps: int) -> None:
        """Move n_sweeps sweeps without a draw."""

    def block(self, n_draws: int) -> Block:
        """The next n_draws draws of every chain at every beta."""

    def state(self) -> dict[str, np.ndarray]:
        """Copies of all arrays on which the future depends."""

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Continue from such a state; ValueError when it belongs to another simulation."""


class LocalDriver:
    """Independent replicas at fixed betas under one update rule: metropolis, heatbath or wolff.

    betas: (B,) in 1 / energy unit, finite, >= 0. n_chains: independent chains at each beta. seed: of all random
    numbers. thin: sweeps between draws. init: "random", "up" or spins that broadcast to (n_chains, B, N).
    spins_every: keep the spins of draws 0, K, 2K, ... (0: of none).

    A sweep is one visit of each site; for wolff, as many clusters as flip about N spins, a number for each beta
    that the warm-up measures (1 without a warm-up), and one cluster more with probability 1/2 before each draw: near
    beta = 0 clusters are single spins, and an even number of flips would never change the parity of the up spins.
    sample_stats: `accepted`, the fraction of attempted flips accepted since the last draw; for wolff the mean cluster
    size / N.

    Raises ValueError for a rule that is unknown or not valid for the model, and for wrong betas, sizes or spins.
    """

    def __init__(
        self,
        hamiltonian: Hamiltonian,
        betas: np.ndarray,
        n_chains: int = 4,
        seed: int = 0,
        rule: str = "metropolis",
        thin: int = 1,
        init: str | np.ndarray = "random",
        spins_every: int = 1,
    ):
        if rule not in RULES:
            raise ValueError(f"rule={rule}: not one of {', '.join(RULES)}")
        if rule == "wolff" and not hamiltonian.is_ferromagnet:
            raise ValueError("rule=wolff: a ferromagnet is needed (two-spin interactions, all J > 0, no field)")
        self.hamiltonian = hamiltonian
        self.betas = checked_betas(betas)
        self.n_chains = at_least("n_chains", n_chains, 1)
        self.thin = at_least("thin", thin, 1)
        self.spins_every = at_least("spins_every", spins_every, 0)
        self.rule = rule
        self._model = kernel_model(hamiltonian)
        self._streams = replica_streams(seed, REPLICA_STREAMS, self.n_chains, len(self.betas))
        self._spins = initial_spins(init, hamiltonian.n_spins, self._streams)
        self._clusters = np.ones(len(self.betas), np.int64)
        self._draw = 0

    def warm_up(self, n_sweeps: int) -> None:
        """n_sweeps sweeps; with wolff the second half of them measures how many clusters make a sweep."""
        if self.rule != "wolff":
            if n_sweeps > 0:
                self._run(1, n_sweeps, 0)
            return
        for part in (n_sweeps // 2, n_sweeps - n_sweeps // 2):
            if part > 0:
                # No number of clusters given: each replica goes on until it has flipped N spins per sweep.
                self._clusters[:] = 0
                fraction = self._run(1, part, 0).accepted.mean(axis=(0, 1))
                self._clusters = np.maximum(np.rint(1.0 / fraction), 1.0).astype(np.int64)

    def block(self, n_draws: int) -> Block:
        """The next n_draws draws: `thin` sweeps, then the measurement."""
        measured = self._run(n_draws, self.thin, self.spins_every)
        stored = kept_draws(self._draw, n_draws, self.spins_every)
        self._draw += n_draws
        posterior = {"energy": measured.energy, "magnetization": measured.magnetization}
        return Block(posterior, {"accepted": measured.accepted}, measured.spins, stored)

    def state(self) -> dict[str, np.ndarray]:
        """spins (chain, beta, N) int8, streams (chain, beta, 4) uint64, clusters_per_sweep (beta,), draw ()."""
        return {
            "spins": self._spins.copy(),
            "streams": self._streams.copy(),
            "clusters_per_sweep": self._clusters.copy(),
            "draw": np.array(self._draw, np.int64),
        }

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Continue from `state()` of a driver with the same arguments; ValueError when shapes differ."""
        state = checked_state(state, self.state())
        self._spins, self._streams = state["spins"], state["streams"]
        self._clusters, self._draw = state["clusters_per_sweep"], int(state["draw"])

    def _run(self, n_draws: int, thin: int, spins_every: int) -> Measured:
        measured = room(self._spins.shape, n_draws, len(kept_draws(self._draw, n_draws, spins_every)))
        replicas = (self._spins, self.betas, self._streams)
        place = (self._draw, thin, spins_every)
        run_draws(RULES[self.rule], self._model, *replicas, self._clusters, *place, measured)
        return measured


def kernel_model(hamiltonian: Hamiltonian) -> Model:
    """The arrays of a Hamiltonian for the compiled loops."""
    start, coupling, others = kernel_arrays(hamiltonian.table)
    return Model(hamiltonian.constant, start, coupling, others, typical_fields(start, coupling))


def replica_streams(seed: int, use: int, n_chains: int, n_betas: int) -> np.ndarray:
    """One stream a replica for one use of a seed, (chain, beta, 4) uint64."""
    return streams(seed, use, count=n_chains * n_betas).reshape(n_chains, n_betas, 4)


def room(shape: tuple[int, int, int], n_draws: int, n_kept: int) -> Measured:
    """Empty arrays for n_draws draws of replicas `shape` = (chain, beta, N), n_kept of them with their spins."""
    chains, betas, n_spins = shape
    series = [np.zeros((chains, n_draws, betas)) for _ in range(3)]
    return Measured(*series, np.zeros((chains, n_kept, betas, n_spins), np.int8))


def checked_betas(betas: np.ndarray) -> np.ndarray:
    """betas as float64 (B,); ValueError unless there is one and all are finite and >= 0."""
    betas = np.array(betas, np.float64, ndmin=1)
    if betas.ndim != 1 or not betas.size or not np.isfinite(betas).all() or (betas < 0).any():
        raise ValueError(f"betas={betas.tolist()}: one or more finite numbers >= 0 are needed")
    return betas


def at_least(name: str, value: int, least: int) -> int:
    """`value`; ValueError when it is below `least`."""
    if value < least:
        raise ValueError(f"{name}={value}: an integer of at least {least} is needed")
    return int(value)


def checked_state(state: dict[str, np.ndarray], own: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Copies of the arrays of `state`; ValueError when names, shapes or types are not those of `own`."""
    checked = {}
    for name, mine in own.items():
        if name not in state:
            raise ValueError(f"state: {name} is missing")
        given = np.asarray(state[name])
        if given.shape != mine.shape or given.dtype != mine.dtype:
            raise ValueError(f"state: {name} is {given.dtype} {given.shape}, {mine.dtype} {mine.shape} is needed")
        checked[name] = np.array(given, order="C")
    return checked


def initial_spins(init: str | np.ndarray, n_spins: int, states: np.ndarray) -> np.ndarray:
    """Spins (chain, beta, N) int8; "random" takes each replica's spins from its own stream, which moves on."""
    spins = np.ones((*states.shape[:2], n_spins), np.int8)
    if isinstance(init, str):
        if init not in ("random", "up"):
            raise ValueError(f"init={init}: random, up or an array of spins is needed")
        if init == "random":
            randomise(spins, states)
        return spins
    init = np.asarray(init)
    if not np.isin(init, (-1, 1)).all():
        raise ValueError("init: spins other than +1 and -1")
    try:
        spins[:] = init
    except ValueError:
        raise ValueError(f"init: spins {init.shape} do not broadcast to (chain, beta, N) = {spins.shape}") from None
    return spins


def kept_draws(first: int, n_draws: int, every: int) -> np.ndarray:
    """Numbers of the draws among first, first + 1, ... whose spins are kept: the multiples of `every` (0: none)."""
    return np.arange(-(-first // every) * every, first + n_draws, every) if every else np.zeros(0, np.int64)


@njit(cache=True, nogil=True)
def randomise(spins, states):
    """Fill spins (chain, beta, N) int8 with +1 and -1, each replica from its stream (chain, beta, 4)."""
    for chain in range(spins.shape[0]):
        for b in range(spins.shape[1]):
            for site in range(spins.shape[2]):
                spins[chain, b, site] = 1 if next_uint64(states[chain, b]) >> U63 else -1


@njit(cache=True, nogil=True)
def local_sweeps(rule, model, spins, beta, stream, n_sweeps):
    """n_sweeps sweeps of one replica (N,) by metropolis or heatbath: (number of flips, change of the energy)."""
    arrays = (model.start, model.coupling, model.others)
    if rule == HEATBATH:
        return heatbath.sweep_replica(spins, beta, stream, *arrays, n_sweeps)
    return metropolis.sweep_replica(spins, beta, stream, *arrays, model.typical, n_sweeps)


@njit(cache=True, nogil=True)
def move(rule, model, spins, beta, stream, stack, clusters, n_sweeps):
    """n_sweeps sweeps of one replica by any rule; returns the fraction accepted, or the mean cluster size / N."""
    n_spins = spins.shape[0]
    if rule != WOLFF:
        return local_sweeps(rule, model, spins, beta, stream, n_sweeps)[0] / (n_sweeps * n_spins)
    coin = np.int64(next_uint64(stream) >> U63)
    wanted = clusters * n_sweeps + coin if clusters > 0 else 0
    flips = 0 if clusters > 0 else n_sweeps * n_spins
    arrays = (model.start, model.coupling, model.others)
    made, flipped = flip_clusters(spins, beta, stream, *arrays, stack, wanted, flips)
    return flipped / (made * n_spins)


@njit(cache=True, nogil=True)
def flip_clusters(spins, beta, stream, start, coupling, others, stack, wanted, flips):
    """wolff.update_replica, which is compiled only for the flat tables of two-spin interactions."""
    if others.ndim == 1:
        return wolff.update_replica(spins, beta, stream, start, coupling, others, stack, wanted, flips)
    return 1, 0


@njit(cache=True, nogil=True)
def replica_draws(rule, model, spins, betas, states, clusters, first_draw, thin, every, measured, chain, b):
    """All draws of one replica of a block, into `measured`.

    Every energy is summed anew from the spins, so that it has no history and does not drift.
    """
    own, stream = spins[chain, b], states[chain, b]
    stack = np.empty(own.shape[0], np.int32)
    stored = 0
    for draw in range(measured.energy.shape[1]):
        measured.accepted[chain, draw, b] = move(rule, model, own, betas[b], stream, stack, clusters[b], thin)
        measured.energy[chain, draw, b] = energy(own, model.constant, model.start, model.coupling, model.others)
        measured.magnetization[chain, draw, b] = magnetization(own)
        if every > 0 and (first_draw + draw) % every == 0:
            for site in range(own.shape[0]):  # a slice assignment takes Numba seconds more to compile
                measured.spins[chain, stored, b, site] = own[site]
            stored += 1


# The loops over threads hold nothing but a call: Numba overlooks writes to arrays inside a named tuple and would drop
# such a loop as dead code. Without the casts it would compile the call twice, as it types loop indices in two ways.
@njit(cache=True, nogil=True, parallel=True)
def run_draws(rule, model, spins, betas, states, clusters, first_draw, thin, every, measured):
    """All draws of a block of replicas: spins (chain, beta, N), their streams `states` (chain, beta, 4).

    clusters: Wolff clusters a sweep, (beta,), 0 for as many as flip N spins.
    """
    n_betas = spins.shape[1]
    for replica in prange(spins.shape[0] * n_betas):
        chain, b = np.int64(replica // n_betas), np.int64(replica % n_betas)
        replica_draws(rule, model, spins, betas, states, clusters, first_draw, thin, every, measured, chain, b)
