"""Kinetic dynamics of vector spins: all spins drawn at once, given the state before.

    p(s_t | s_t-1) = prod_i exp(beta s_i,t . f_i) / Z_i,    f_i = x_i + sum_j J_ij s_j,t-1,    |s_i| = R

Honkoop (Leiden 2025), eq. 2.15, after Bal. Every factor is von Mises-Fisher and drawn exactly. With symmetric J the
chain obeys detailed balance with exp(beta sum_i x_i.s_i) prod_i Z(beta R |f_i(s)|) (Peretto, Biol. Cybern. 50, 51
(1984), for Ising spins), not with exp(-beta E). With asymmetric J it has a steady state and produces entropy: per
step

    sigma = < ln p(s_t | s_t-1) / p(s_t-1 | s_t) > = beta sum_ij (J_ij - J_ji) < s_i,t . s_j,t-1 >;

the fields and the Z_i are the same on average at t - 1 and t and cancel. Aguilera, Igarashi and Shimazaki, Nat.
Commun. 14, 3685 (2023), for Ising spins.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit, prange

from mc.kernels.gaussian import draw_vmf
from mc.kernels.random_streams import streams
from mc.kernels.sphere import bilinear_energy, local_fields
from mc.measure import kept_draws, place_of_spins
from mc.simulate import INITIAL_STREAMS, REPLICA_STREAMS, Block, at_least, checked_betas, checked_state
from mc.vector.driver import LowestVectors, Moves
from mc.vector.hamiltonian import VectorHamiltonian
from mc.vector.starts import initial_vectors

MOST_LAGS = 12  # the longest is 2048 draws


class Walkers(NamedTuple):
    """All walkers, by (chain, beta): the state, that before it, their driving fields, and those of the draws
    before.
    """

    spins: np.ndarray  # (chain, beta, N, D) float64
    before: np.ndarray
    driving: np.ndarray  # f of spins
    driving_before: np.ndarray
    history: np.ndarray  # (chain, beta, longest lag, N, D) float32; draw t is at t modulo the longest lag
    streams: np.ndarray  # (chain, beta, 4) uint64


class Series(NamedTuple):
    """What a block of draws leaves, (chain, draw, beta) unless said otherwise."""

    energy: np.ndarray
    alignment: np.ndarray
    entropy_production: np.ndarray
    correlation: np.ndarray  # (chain, draw, beta, lag)
    spins: np.ndarray  # (chain, stored draw, beta, N, D) float32
    sums: np.ndarray  # (chain, beta, N, D)


class KineticDriver:
    """The parallel dynamics of a `VectorHamiltonian` with fixed norm, at fixed betas.

    betas: (B,) in 1/J, finite, >= 0. n_chains, seed, spins_every: as of `mc.simulate.LocalDriver`. thin: steps from
    one draw to the next. init: as of `mc.vector.starts.initial_vectors`. lags: how many lags the two-time correlation
    is measured at: 1, 2, 4, ... draws, that is `thin` times as many steps; 0 for none, at most `MOST_LAGS`.

    posterior: `energy`, the bilinear one of the state, which the dynamics does not know of; `alignment`, the mean
    over sites of cos(s_i, x_i), where there are fields; `entropy_production`, beta sum_ij (J_ij - J_ji) s_i,t .
    s_j,t-1 of the last step; `correlation` C(lag) = sum_i s_i,t . s_i,t-lag / (N R^2), with an axis `lag`.

    Raises ValueError for the loss energy, which has no fixed norm, and for betas, sizes or starts that do not fit.
    """

    def __init__(
        self,
        hamiltonian: VectorHamiltonian,
        betas: np.ndarray,
        n_chains: int = 4,
        seed: int = 0,
        thin: int = 1,
        init: str | np.ndarray = "random",
        spins_every: int = 1,
        lags: int = 7,
    ):
        if hamiltonian.form == "loss":
            raise ValueError("kinetic: spins of fixed norm are needed; leave energy=loss out")
        self.hamiltonian = hamiltonian
        self.betas = checked_betas(betas)
        self.n_chains = at_least("n_chains", n_chains, 1)
        self.thin = at_least("thin", thin, 1)
        self.spins_every = at_least("spins_every", spins_every, 0)
        if at_least("lags", lags, 0) > MOST_LAGS:
            raise ValueError(
                f"lags={lags}: at most {MOST_LAGS}, as all states between are kept; a larger thin reaches further"
            )
        self.lags = 2 ** np.arange(lags)  # in draws
        shape = (self.n_chains, len(self.betas))
        starts = streams(seed, INITIAL_STREAMS, count=shape[0] * shape[1]).reshape(*shape, 4)
        spins = initial_vectors(init, hamiltonian, starts, shape)
        longest = int(self.lags.max(initial=0))
        self._walkers = Walkers(
            spins=spins,
            before=spins.copy(),
            driving=hamiltonian.driving_fields(spins),
            driving_before=np.zeros_like(spins),
            history=np.zeros((*shape, longest, *spins.shape[2:]), np.float32),
            streams=streams(seed, REPLICA_STREAMS, count=shape[0] * shape[1]).reshape(*shape, 4),
        )
        self.engine = Moves("vector-kinetic", "parallel von Mises-Fisher dynamics", "exact")
        self.stat_names, self.spin_axes = (), {}
        self.lowest = LowestVectors(np.inf, spins[0, 0])  # not looked for: no state is better than another here
        self._sums = np.zeros(spins.shape)
        self._made = self._draw = 0  # states in the history, draws

    @property
    def posterior_axes(self) -> dict[str, dict[str, np.ndarray]]:
        """{variable: {axis: coordinates}}; lags in steps, and so of `thin` as it is now."""
        names = ["energy"] + ["alignment"] * self.hamiltonian.has_fields + ["entropy_production"]
        own: dict[str, dict[str, np.ndarray]] = {name: {} for name in names}
        return own | ({"correlation": {"lag": self.lags * self.thin}} if len(self.lags) else {})

    def warm_up(self, n_sweeps: int) -> None:
        """n_sweeps steps without a draw."""
        if n_sweeps > 0:
            self._run(1, n_sweeps, 0, np.zeros_like(self._sums))

    def block(self, n_draws: int) -> Block:
        """The next n_draws draws, `thin` steps each; before the first, as many states as the longest lag asks for."""
        missing = self._walkers.history.shape[2] - self._made
        if missing > 0:
            self._run(missing, self.thin, 0, np.zeros_like(self._sums))
            self._made += missing
        series = self._run(n_draws, self.thin, self.spins_every, self._sums)
        stored = kept_draws(self._draw, n_draws, self.spins_every)
        self._draw += n_draws
        return Block({name: getattr(series, name) for name in self.posterior_axes}, {}, series.spins, stored)

    def state(self) -> dict[str, np.ndarray]:
        """The walkers with their history, sums of the spins of all draws, and counters."""
        return {name: array.copy() for name, array in self._walkers._asdict().items()} | {
            "spin_sums": self._sums.copy(),
            "made": np.array(self._made, np.int64),
            "draw": np.array(self._draw, np.int64),
        }

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Continue from `state()` of a driver with the same arguments; ValueError when shapes differ."""
        state = checked_state(state, self.state())
        for name in Walkers._fields:
            getattr(self._walkers, name)[...] = state[name]
        self._sums, self._made, self._draw = state["spin_sums"], int(state["made"]), int(state["draw"])

    def _run(self, n_draws: int, thin: int, spins_every: int, sums: np.ndarray) -> Series:
        """n_draws draws; their spins are added to `sums`, one after another, whatever the block."""
        chains, n_betas, *size = self._walkers.spins.shape
        kept = len(kept_draws(self._draw, n_draws, spins_every))
        series = Series(
            *(np.zeros((chains, n_draws, n_betas)) for _ in range(3)),
            np.zeros((chains, n_draws, n_betas, len(self.lags))),
            np.zeros((chains, kept, n_betas, *size), np.float32),
            sums,
        )
        hamiltonian = self.hamiltonian
        directions = hamiltonian.directions / max(hamiltonian.n_fields, 1)  # sums of cosines are then means
        tables = (hamiltonian.fields, hamiltonian.couplings, hamiltonian.exchange, directions)
        place = (self._draw, self._made + self._draw, thin, spins_every)
        walk_all(*tables, hamiltonian.radius, self.betas, self.lags, *place, self._walkers, series)
        return series


@njit(cache=True, nogil=True)
def walk(
    fields, couplings, exchange, directions, radius, betas, lags, first_draw, first_made, thin, every, walkers,
    series, chain, b,
):  # fmt: skip
    """All draws of one walker."""
    spins, before = walkers.spins[chain, b], walkers.before[chain, b]
    driving, driving_before = walkers.driving[chain, b], walkers.driving_before[chain, b]
    history, stream = walkers.history[chain, b], walkers.streams[chain, b]
    n_spins, n_components = spins.shape
    scale = 1.0 / (n_spins * radius * radius)
    local = np.empty_like(spins)
    for draw in range(series.energy.shape[1]):
        for _ in range(thin):
            before[:] = spins
            driving_before[:] = driving
            for i in range(n_spins):
                draw_vmf(spins[i], driving_before[i], betas[b], radius, stream)
            local_fields(spins, fields, couplings, driving)
        local_fields(spins, fields, exchange, local)
        cosines, flux = 0.0, 0.0
        sums = series.sums[chain, b]
        for i in range(n_spins):
            for k in range(n_components):
                now, then = spins[i, k], before[i, k]
                cosines += now * directions[i, k]
                flux += now * (driving_before[i, k] - fields[i, k]) - then * (driving[i, k] - fields[i, k])
                sums[i, k] += now
        series.energy[chain, draw, b] = bilinear_energy(spins, fields, local)
        series.alignment[chain, draw, b] = cosines / radius
        series.entropy_production[chain, draw, b] = betas[b] * flux
        longest = history.shape[0]
        if longest > 0:
            made = first_made + draw
            for number in range(lags.shape[0]):
                past = history[(made - lags[number]) % longest]
                total = 0.0
                for i in range(n_spins):
                    for k in range(n_components):
                        total += spins[i, k] * past[i, k]
                series.correlation[chain, draw, b, number] = total * scale
            slot = history[made % longest]
            for i in range(n_spins):
                for k in range(n_components):
                    slot[i, k] = spins[i, k]
        stored = place_of_spins(draw, first_draw, every)
        if stored >= 0:
            kept = series.spins[chain, stored, b]
            for i in range(n_spins):
                for k in range(n_components):
                    kept[i, k] = spins[i, k]


# As in `mc.simulate`, the loop over threads holds nothing but a call.
@njit(cache=True, nogil=True, parallel=True)
def walk_all(
    fields, couplings, exchange, directions, radius, betas, lags, first_draw, first_made, thin, every, walkers, series
):
    """The draws of a block, chains side by side, and all betas of one after another."""
    for chain in prange(series.energy.shape[0]):
        for b in range(betas.shape[0]):
            walk(
                fields, couplings, exchange, directions, radius, betas, lags, first_draw, first_made, thin, every,
                walkers, series, np.int64(chain), np.int64(b),
            )  # fmt: skip
