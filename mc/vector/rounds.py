"""The compiled loops of `mc.vector.driver`: sweeps of all replicas of a chain, swaps between them, measurements."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit, prange
from numba.extending import overload

from mc.kernels import loss_energy, sphere
from mc.kernels.swap import follow, swap_ladder
from mc.measure import place_of_spins

# The step of a Metropolis move follows its acceptance in the warm-up, with a gain that falls with the round.
WANTED, GAIN, SLOWER = 0.4, 1.0, 0.02
SMALLEST_STEP, LARGEST_STEP = 1e-9, 1e3


class Sphere(NamedTuple):
    """What the loops need to know of the bilinear energy and its moves.

    couplings: K. directions: x_i / |x_i| over the number of fields (N, D), zero where there is none. heatbath: or
    else Metropolis, with `shares` (4,), the probabilities of its proposals. overrelax: such sweeps after each sweep.
    """

    fields: np.ndarray
    couplings: np.ndarray
    directions: np.ndarray
    radius: float
    heatbath: bool
    shares: np.ndarray
    overrelax: int


class Loss(NamedTuple):
    """The same of the loss energy, which has Metropolis moves only. couplings: J^T."""

    fields: np.ndarray
    couplings: np.ndarray
    directions: np.ndarray
    radius: float
    shares: np.ndarray


class Replicas(NamedTuple):
    """All replicas. holder[chain, replica, b] is the place of the configuration at beta b; places are 0, ..., P -
    1.
    """

    spins: np.ndarray  # (chain, P, N, D) float64
    local: np.ndarray  # the same: l_i, or f_i of the loss energy
    energy: np.ndarray  # (chain, P)
    holder: np.ndarray  # (chain, replica, beta) int64
    steps: np.ndarray  # (chain, replica, beta), of Metropolis moves
    streams: np.ndarray  # (chain, P, 4) uint64
    swap_streams: np.ndarray  # (chain, replica, 4) uint64
    last_end: np.ndarray  # (chain, P) int8
    round_trips: np.ndarray  # (chain, P) int64


class Series(NamedTuple):
    """What a block of draws leaves, by (chain, draw, beta, replica) unless said otherwise."""

    energy: np.ndarray
    alignment: np.ndarray
    norm: np.ndarray
    accepted: np.ndarray
    swaps: np.ndarray  # (chain, replica, draw, beta) int64: accepted between b and b + 1
    tried: np.ndarray
    overlap: np.ndarray  # (chain, draw, beta, pair)
    overlap_norm: np.ndarray  # (chain, draw, beta, pair)
    spins: np.ndarray  # (chain, stored draw, beta, replica, N, D) float32
    sums: np.ndarray  # (chain, replica, beta, N, D): of the spins of all draws
    lowest: np.ndarray  # (chain, replica)
    lowest_spins: np.ndarray  # (chain, replica, N, D)


def settle(system, spins):
    """Bring spins of fixed norm back to it, so that no rounding piles up. Not twice: that would change bits again."""
    raise NotImplementedError("for compiled code")


def refresh(system, spins, local):
    """Local fields of one replica made anew from its spins, which stay as they are; its energy."""
    raise NotImplementedError("for compiled code")


def move(system, spins, local, beta, step, stream, scratch):
    """One sweep of one replica: (energy change, accepted moves, tried moves), the last two of those with a step."""
    raise NotImplementedError("for compiled code")


# Chosen by the type of the system, so that the kernels of the other energy need not be compiled.
@overload(settle)
def _settle(system, spins):
    if system.instance_class is Loss:

        def of_loss(system, spins):
            pass

        return of_loss

    def on_sphere(system, spins):
        sphere.renormalise(spins, system.radius)

    return on_sphere


@overload(refresh)
def _refresh(system, spins, local):
    if system.instance_class is Loss:

        def of_loss(system, spins, local):
            loss_energy.target_fields(spins, system.fields, system.couplings, local)
            return loss_energy.loss_energy(spins, local, system.radius)

        return of_loss

    def on_sphere(system, spins, local):
        sphere.local_fields(spins, system.fields, system.couplings, local)
        return sphere.bilinear_energy(spins, system.fields, local)

    return on_sphere


@overload(move)
def _move(system, spins, local, beta, step, stream, scratch):
    if system.instance_class is Loss:

        def of_loss(system, spins, local, beta, step, stream, scratch):
            return loss_energy.metropolis_sweep(
                spins, local, system.couplings, beta, system.radius, step, system.shares, stream
            )

        return of_loss

    def on_sphere(system, spins, local, beta, step, stream, scratch):
        if system.heatbath:
            change = sphere.heatbath_sweep(spins, local, system.couplings, beta, system.radius, stream, scratch)
            accepted, tried = spins.shape[0], spins.shape[0]
        else:
            change, accepted, tried = sphere.metropolis_sweep(
                spins, local, system.couplings, beta, system.radius, step, system.shares, stream, scratch
            )
        for _ in range(system.overrelax):
            change += sphere.overrelax_sweep(spins, local, system.couplings)
        return change, accepted, tried

    return on_sphere


@njit(cache=True, nogil=True)
def refresh_all(system, replicas):
    """`refresh` of all replicas."""
    for chain in range(replicas.energy.shape[0]):
        for place in range(replicas.energy.shape[1]):
            spins, local = replicas.spins[chain, place], replicas.local[chain, place]
            replicas.energy[chain, place] = refresh(system, spins, local)


@njit(cache=True, nogil=True)
def one_round(system, replicas, chain, replica, betas, parity, tunes, number, scratch, accepted, swaps, tried):
    """A sweep of one ladder, and with parity 0 or 1 a swap phase.

    number: of the round. accepted (B,): set to the fractions of this sweep. swaps, tried (B,) int64: added to.
    """
    holder, steps = replicas.holder[chain, replica], replicas.steps[chain, replica]
    for b in range(betas.shape[0]):
        place = holder[b]
        spins, local = replicas.spins[chain, place], replicas.local[chain, place]
        change, hits, shots = move(system, spins, local, betas[b], steps[b], replicas.streams[chain, place], scratch)
        replicas.energy[chain, place] += change
        accepted[b] = hits / shots if shots > 0 else np.nan
        if tunes and shots > 0:
            pull = GAIN / (1.0 + SLOWER * number) * (accepted[b] - WANTED)
            steps[b] = min(max(steps[b] * math.exp(pull), SMALLEST_STEP), LARGEST_STEP)
    if parity >= 0:
        stream = replicas.swap_streams[chain, replica]
        swap_ladder(replicas.energy[chain], betas, holder, stream, parity, swaps, tried)
        follow(holder, betas, replicas.last_end[chain], replicas.round_trips[chain])


@njit(cache=True, nogil=True)
def put_down(system, replicas, chain, replica, draw, stored, series):
    """Measure one ladder; settled and refreshed first, so that a draw does not depend on how it was reached."""
    holder = replicas.holder[chain, replica]
    n_spins, n_components = system.fields.shape
    for b in range(holder.shape[0]):
        place = holder[b]
        spins = replicas.spins[chain, place]
        settle(system, spins)
        energy = refresh(system, spins, replicas.local[chain, place])
        replicas.energy[chain, place] = energy
        series.energy[chain, draw, b, replica] = energy
        if energy < series.lowest[chain, replica]:
            series.lowest[chain, replica] = energy
            series.lowest_spins[chain, replica] = spins
        cosines, norms = 0.0, 0.0
        sums = series.sums[chain, replica, b]
        for i in range(n_spins):
            square, along = 0.0, 0.0
            for k in range(n_components):
                square += spins[i, k] * spins[i, k]
                along += spins[i, k] * system.directions[i, k]
                sums[i, k] += spins[i, k]
            norm = math.sqrt(square)
            norms += norm
            if norm > 0.0:
                cosines += along / norm
        series.norm[chain, draw, b, replica] = norms / (n_spins * system.radius)
        series.alignment[chain, draw, b, replica] = cosines
        if stored >= 0:
            kept = series.spins[chain, stored, b, replica]
            for i in range(n_spins):
                for k in range(n_components):
                    kept[i, k] = spins[i, k]


@njit(cache=True, nogil=True)
def tensor_overlap(left, right, tensor):
    """sum_i s_i^{mu} t_i^{nu} of two states (N, D), into tensor (D, D)."""
    tensor[:] = 0.0
    for i in range(left.shape[0]):
        for mu in range(left.shape[1]):
            component, row = left[i, mu], tensor[mu]
            for nu in range(right.shape[1]):
                row[nu] += component * right[i, nu]


@njit(cache=True, nogil=True)
def put_down_pairs(system, replicas, chain, draw, series):
    """The overlaps of all pairs of replicas of a chain."""
    holder = replicas.holder[chain]
    n_spins, n_components = system.fields.shape
    tensor = np.zeros((n_components, n_components))
    scale = 1.0 / (n_spins * system.radius**2)
    for b in range(holder.shape[1]):
        pair = 0
        for one in range(holder.shape[0]):
            for other in range(one + 1, holder.shape[0]):
                left = replicas.spins[chain, holder[one, b]]
                right = replicas.spins[chain, holder[other, b]]
                tensor_overlap(left, right, tensor)
                trace, square = 0.0, 0.0
                for mu in range(n_components):
                    trace += tensor[mu, mu]
                    for nu in range(n_components):
                        square += tensor[mu, nu] ** 2
                series.overlap[chain, draw, b, pair] = trace * scale
                series.overlap_norm[chain, draw, b, pair] = math.sqrt(square) * scale
                pair += 1


@njit(cache=True, nogil=True)
def ladder_draw(system, replicas, ladder, betas, first_round, thin, swapping, tunes, draw, stored, series):
    """One draw of one ladder, numbered chain by chain; `tunes`: follow the acceptance with the steps (the
    warm-up).
    """
    chain, replica = divmod(ladder, replicas.holder.shape[1])
    scratch = np.zeros(system.fields.shape[1])
    accepted = np.zeros(betas.shape[0])
    for number in range(first_round, first_round + thin):
        parity = number % 2 if swapping else -1
        one_round(
            system, replicas, chain, replica, betas, parity, tunes, number, scratch, accepted,
            series.swaps[chain, replica, draw], series.tried[chain, replica, draw],
        )  # fmt: skip
    put_down(system, replicas, chain, replica, draw, stored, series)
    series.accepted[chain, draw, :, replica] = accepted


# As in `mc.simulate`, loops over threads hold nothing but a call.
@njit(cache=True, nogil=True, parallel=True)
def all_draws(system, replicas, betas, first_round, first_draw, thin, every, swapping, tunes, series):
    """The draws of a block one after another, ladders side by side."""
    chains, copies = replicas.holder.shape[0], replicas.holder.shape[1]
    for draw in range(series.energy.shape[1]):
        stored = place_of_spins(draw, first_draw, every)
        begins = first_round + draw * thin
        for ladder in prange(chains * copies):
            one = np.int64(ladder)
            ladder_draw(system, replicas, one, betas, begins, thin, swapping, tunes, draw, stored, series)
        if copies > 1:
            for chain in prange(chains):
                put_down_pairs(system, replicas, np.int64(chain), draw, series)
