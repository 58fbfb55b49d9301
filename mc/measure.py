"""What a compiled loop measures of a replica at a draw, and the room it leaves it in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit

from mc.hamiltonian import Hamiltonian
from mc.kernels.batch import pack, unpack, words
from mc.kernels.overlaps import all_up, lowest_mode, magnetization, overlap, planes
from mc.lattice import Lattice
from mc.models.alloy import order_parameter, x_points

U1 = np.uint64(1)


class Measured(NamedTuple):
    """Series of some replicas: (replica, draw) float64.

    mode: what `mode_name` says, |sum_x s_x exp(2 pi i x / L)|^2 / N^2 of ferromagnets
        (`mc.kernels.overlaps.lowest_mode`), or the L1_0 order of alloys.
    accepted: fraction of spins flipped by the last sweep before the draw.
    """

    energy: np.ndarray
    magnetization: np.ndarray
    mode: np.ndarray
    accepted: np.ndarray
    spins: np.ndarray  # (replica, stored draw, N) int8
    lowest: np.ndarray  # (replica,) float64: the lowest energy, and
    lowest_row: np.ndarray  # (replica, words) uint64: its state as a row of bits


@dataclass
class Record:
    """The lowest energy a driver has measured, and its state (N,) int8."""

    energy: float
    spins: np.ndarray

    def update(self, measured: Measured) -> None:
        """Take over what a compiled loop found, if it is lower."""
        best = int(measured.lowest.argmin())
        if measured.lowest[best] < self.energy:
            self.energy = float(measured.lowest[best])
            self.spins = unpack(measured.lowest_row[best], len(self.spins))

    def state(self) -> dict[str, np.ndarray]:
        return {"lowest_energy": np.array(self.energy), "lowest_spins": self.spins.copy()}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self.energy, self.spins = float(state["lowest_energy"]), state["lowest_spins"]


def no_record(n_spins: int) -> Record:
    """The record before the first measurement."""
    return Record(np.inf, np.ones(n_spins, np.int8))


def room(n_replicas: int, n_draws: int, n_kept: int, n_spins: int) -> Measured:
    """Empty series for n_draws draws of some replicas, n_kept of them with their spins."""
    series = [np.zeros((n_replicas, n_draws)) for _ in range(4)]
    spins, rows = np.zeros((n_replicas, n_kept, n_spins), np.int8), np.zeros((n_replicas, words(n_spins)), np.uint64)
    return Measured(*series, spins, np.full(n_replicas, np.inf), rows)


class Probe(NamedTuple):
    """What `record` needs to know of the Hamiltonian; flat, as loops over threads take no tuple inside a tuple."""

    n_spins: int
    magnetic: bool  # a ferromagnet on a lattice with a periodic axis: the mode of the spins is worth its time
    up: np.ndarray  # the row of bits of all spins up
    waves: np.ndarray  # (axes, words) uint64: rows of bits of the waves of L1_0 order, none for other models
    masks: np.ndarray  # these five as in `overlaps.Planes`, no axes without a periodic one
    span: np.ndarray
    period: np.ndarray
    cosine: np.ndarray
    sine: np.ndarray


def probe(hamiltonian: Hamiltonian) -> Probe:
    """The probe of a Hamiltonian."""
    lattice = hamiltonian.lattice or Lattice((hamiltonian.n_spins,), (False,))
    magnetic = mode_name(hamiltonian) == "magnetization_k2"
    up, waves = all_up(hamiltonian.n_spins), pack(x_points(hamiltonian))
    return Probe(hamiltonian.n_spins, magnetic, up, waves, *planes(lattice))


def posterior_axes(hamiltonian: Hamiltonian, own: dict[str, int] | None = None) -> dict[str, dict[str, int]]:
    """{variable: its axes after (chain, draw, beta)} of what `record` measures."""
    mode = mode_name(hamiltonian)
    names = ["energy", "magnetization"] + ([mode] if mode else [])
    return {name: dict(own or {}) for name in names}


def mode_name(hamiltonian: Hamiltonian) -> str | None:
    """The variable that `Measured.mode` is: `magnetization_k2`, `l10`, or None where nothing is measured."""
    if len(x_points(hamiltonian)):
        return "l10"
    return "magnetization_k2" if has_modes(hamiltonian) and hamiltonian.is_ferromagnet else None


def measured_posterior(hamiltonian: Hamiltonian, series: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """{variable: values} of the `posterior_axes`, from series named as those of `Measured`."""
    mode = mode_name(hamiltonian)
    own = {mode: series["mode"]} if mode else {}
    return {"energy": series["energy"], "magnetization": series["magnetization"]} | own


def of_spins(hamiltonian: Hamiltonian, spins: np.ndarray) -> dict[str, np.ndarray]:
    """{variable: (...)} of states (..., N) of +1 and -1: what samplers record that have all spins at hand.

    `magnetization`, and `l10` of alloys.
    """
    found = {"magnetization": spins.mean(axis=-1, dtype=np.float64)}
    signs = x_points(hamiltonian)
    return found | ({"l10": order_parameter(signs, spins)} if len(signs) else {})


def has_modes(hamiltonian: Hamiltonian) -> bool:
    """Whether there is a lowest Fourier mode: a lattice with a periodic axis."""
    return hamiltonian.lattice is not None and any(hamiltonian.lattice.periodic)


def mean_of_known(values: np.ndarray, axis: int | tuple[int, ...]) -> np.ndarray:
    """Mean over axes without NaN, which stands for what was not tried; NaN where nothing was."""
    known = np.isfinite(values)
    count = known.sum(axis=axis)
    total = np.where(known, values, 0.0).sum(axis=axis)
    return np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)


def kept_draws(first: int, n_draws: int, every: int) -> np.ndarray:
    """Numbers of the draws among first, first + 1, ... whose spins are kept: the multiples of `every` (0: none)."""
    return np.arange(-(-first // every) * every, first + n_draws, every) if every else np.zeros(0, np.int64)


@njit(cache=True, nogil=True)
def place_of_spins(draw, first_draw, every):
    """Where the spins of draw number first_draw + draw go in their block, -1 if they are not kept."""
    if every == 0 or (first_draw + draw) % every != 0:
        return -1
    return (first_draw + draw) // every - (first_draw + every - 1) // every


@njit(cache=True, nogil=True)
def record(energy, row, probe, replica, draw, stored, measured):
    """Put down a draw of a replica but `accepted`; its row of bits is kept at `stored` unless that is negative."""
    n_spins = probe.n_spins
    measured.energy[replica, draw] = energy
    if energy < measured.lowest[replica]:
        measured.lowest[replica] = energy
        measured.lowest_row[replica] = row
    measured.magnetization[replica, draw] = magnetization(row, n_spins)
    if probe.magnetic:
        measured.mode[replica, draw] = lowest_mode(row, probe.up, n_spins, probe)
    if probe.waves.shape[0] > 0:
        order = 0.0
        for wave in range(probe.waves.shape[0]):
            order = max(order, abs(overlap(row, probe.waves[wave], n_spins)))
        measured.mode[replica, draw] = order
    if stored >= 0:
        spins = measured.spins[replica, stored]
        for word in range(row.shape[0]):
            bits = row[word]
            for place in range(min(64, n_spins - 64 * word)):
                bit = np.int8((bits >> np.uint64(place)) & U1)
                spins[64 * word + place] = np.int8(bit + bit - np.int8(1))


def as_chains(values: np.ndarray) -> np.ndarray:
    """(chain, draw, beta, replica) with replicas, or pairs, as further chains: (chain * replica, draw, beta)."""
    return np.moveaxis(values, -1, 1).reshape(-1, *values.shape[1:3]) if values.ndim > 3 else values
