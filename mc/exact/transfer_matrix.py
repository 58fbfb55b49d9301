"""Site-by-site transfer matrix of any pairwise Hamiltonian: lattices of any boundary, graphs, fields.

A vector over the states of the frontier (see `mc.exact.frontier`) holds the partition function of the spins that
entered so far, with the frontier held fixed. One spin after the other enters: its bonds multiply, spins that are
complete are summed out (site by site instead of row by row: K. Binder, Physica 62, 508 (1972), and much used since).

Each entry is kept as ln Z, <E> and var E of the spins behind the frontier. Joining two entries with probabilities
q and p = 1 - q gives

    <E> = q <E>_0 + p <E>_1,    var E = q var_0 + p var_1 + q p (<E>_1 - <E>_0)^2,

the exact first and second derivative of ln Z, without cancellation and without overflow at any temperature. Cost:
three vectors of 2^width float64 (24 bytes a state) and about 30 ns a state and step on one core.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise

import numba
import numpy as np

from mc.exact.frontier import MAX_WIDTH, Plan, Step, best_plan, plan_steps
from mc.exact.result import ExactRefused, ExactResult, checked_beta
from mc.hamiltonian import Hamiltonian

SECONDS_PER_STATE = 4.5e-8  # measured on one core of a 2.5 GHz Cascade Lake, with some noise
SECONDS_PER_STEP = 1e-4
MAX_SECONDS = 3600.0
THREADS = numba.config.NUMBA_NUM_THREADS
PARALLEL_STATES = 1 << 15  # below this, starting threads costs more than they save
LOW_BITS = 12  # the field on a new spin is looked up in two tables: lowest 12 slots, and the others
LOW = (1 << LOW_BITS) - 1


def transfer_exact(hamiltonian: Hamiltonian, beta: float, plan: Plan | None = None) -> ExactResult:
    """ln Z, <E> and heat capacity of a pairwise Hamiltonian with fields; the ground state is not found.

    plan: from `best_plan(hamiltonian)`, if it is at hand.
    Raises ExactRefused when the frontier exceeds 26 spins (1.5 GiB), an hour would not be enough, or interactions
    have more than two spins or the number of spins up is fixed; ValueError for a negative or non-finite beta.
    """
    beta = checked_beta(beta)
    if hamiltonian.n_up is not None:
        raise ExactRefused(
            f"transfer matrix of {hamiltonian.name}: it sums over any number of spins up, and {hamiltonian.n_up} are "
            "fixed; use enumeration (up to 24 spins)"
        )
    if not hamiltonian.is_pairwise:
        raise ExactRefused(
            f"transfer matrix of {hamiltonian.name}: it takes pairs, not interactions of order "
            f"{hamiltonian.max_order}; use enumeration (up to 24 spins)"
        )
    plan = plan or best_plan(hamiltonian, MAX_WIDTH)
    if plan is None or plan.width > MAX_WIDTH or estimated_seconds(hamiltonian, plan) > MAX_SECONDS:
        raise ExactRefused(
            f"transfer matrix of {hamiltonian.name} ({hamiltonian.n_spins} spins): {_cost(hamiltonian)}; "
            "use --mode pt, or a smaller system"
        )
    log_z, energy, variance = _sweep(hamiltonian, plan, beta)
    return ExactResult(
        "transfer-matrix",
        beta,
        log_z + len(plan.pinned) * math.log(2.0) - beta * hamiltonian.constant,
        energy + hamiltonian.constant,
        beta * beta * variance,
    )


def estimated_seconds(hamiltonian: Hamiltonian, plan: Plan) -> float:
    """Wall-clock estimate of one temperature."""
    return plan.work * SECONDS_PER_STATE / THREADS + hamiltonian.n_spins * SECONDS_PER_STEP


def _cost(hamiltonian: Hamiltonian) -> str:
    """What the best order known would need, in words, however much it is."""
    plan = best_plan(hamiltonian)
    words = f"needs 2^{plan.width} states at once"
    if plan.width > MAX_WIDTH:
        words += f" (2^{MAX_WIDTH} is the limit)"
    if plan.width > 60:
        return words
    gigabytes, seconds = 24 * 2**plan.width / 1e9, estimated_seconds(hamiltonian, plan)
    return f"{words}, about {gigabytes:,.0f} GB and {seconds / 60:,.0f} minutes"


def _sweep(hamiltonian: Hamiltonian, plan: Plan, beta: float) -> tuple[float, float, float]:
    """ln Z, <E>, var E of the spins that are not pinned."""
    state = tuple(np.zeros(1 << plan.width) for _ in range(3))  # ln Z, <E>, var E of every frontier state
    with ThreadPoolExecutor(THREADS) as pool:
        run = partial(_run, pool, state)
        for step in plan_steps(hamiltonian, plan):
            low, high = _field_tables(step)
            if step.replaces:
                run(_replace, 1 << (step.width - 1), step.slot, beta, low, high)
            else:
                run(_append, 1 << (step.width - 1), step.slot, beta, low, high)
            for lost, slot in enumerate(step.drops):
                top = step.width - 1 - lost
                run(_drop, 1 << (top - (slot != top)), slot, top)
    return tuple(float(values[0]) for values in state)


def _run(pool: ThreadPoolExecutor, state: tuple[np.ndarray, ...], kernel, count: int, *arguments) -> None:
    """kernel over 0..count-1, which touch disjoint entries of `state`, in threads when it is worth it."""
    if THREADS == 1 or count < PARALLEL_STATES:
        kernel(*state, *arguments, 0, count)
        return
    edges = [count * k // THREADS for k in range(THREADS + 1)]
    list(pool.map(lambda part: kernel(*state, *arguments, *part), pairwise(edges)))


def _field_tables(step: Step) -> tuple[np.ndarray, np.ndarray]:
    """Field on the new spin as low[x & LOW] + high[x >> LOW_BITS] for a frontier state x."""

    def table(field: float, slots: range) -> np.ndarray:
        values = np.array([field])
        for slot in slots:
            coupling = step.links.get(slot, 0.0)
            values = np.concatenate([values - coupling, values + coupling])
        return values

    return table(step.field, range(min(step.width, LOW_BITS))), table(0.0, range(LOW_BITS, step.width))


@numba.njit(inline="always")
def _join(log_0, mean_0, var_0, log_1, mean_1, var_1):
    """ln Z, <E> and var E of two sets of states taken together."""
    ratio = math.exp(-abs(log_1 - log_0))
    q = 1.0 / (1.0 + ratio)
    p = q if log_1 > log_0 else ratio * q
    gap = mean_1 - mean_0
    log = max(log_0, log_1) + math.log(1.0 + ratio)
    return log, mean_0 + p * gap, var_0 + p * (var_1 - var_0) + ratio * q * q * gap * gap


@numba.njit(cache=True, nogil=True)
def _append(log_z, mean, var, slot, beta, low, high, start, stop):
    """The new spin takes the slot after the last: the vector doubles."""
    for x in range(start, stop):
        up = x | (1 << slot)
        field = low[x & LOW] + high[x >> LOW_BITS]
        log_z[up], mean[up], var[up] = log_z[x] + beta * field, mean[x] - field, var[x]
        log_z[x], mean[x] = log_z[x] - beta * field, mean[x] + field


@numba.njit(cache=True, nogil=True)
def _replace(log_z, mean, var, slot, beta, low, high, start, stop):
    """The new spin takes the slot of a spin t that leaves: each pair t = -1, +1 becomes a pair of the new spin."""
    bit = 1 << slot
    for rest in range(start, stop):
        x0 = ((rest >> slot) << (slot + 1)) | (rest & (bit - 1))  # a 0 inserted at the slot
        x1 = x0 | bit
        field_0 = low[x0 & LOW] + high[x0 >> LOW_BITS]
        field_1 = low[x1 & LOW] + high[x1 >> LOW_BITS]
        log_0, mean_0, var_0 = log_z[x0], mean[x0], var[x0]
        log_1, mean_1, var_1 = log_z[x1], mean[x1], var[x1]
        log_z[x0], mean[x0], var[x0] = _join(
            log_0 - beta * field_0, mean_0 + field_0, var_0, log_1 - beta * field_1, mean_1 + field_1, var_1
        )
        log_z[x1], mean[x1], var[x1] = _join(
            log_0 + beta * field_0, mean_0 - field_0, var_0, log_1 + beta * field_1, mean_1 - field_1, var_1
        )


@numba.njit(cache=True, nogil=True)
def _drop(log_z, mean, var, slot, top, start, stop):
    """Sum out the spin of a slot; the spin of the top slot moves into it, so that the vector halves."""
    bit, last = 1 << slot, 1 << top
    for rest in range(start, stop):
        x = ((rest >> slot) << (slot + 1)) | (rest & (bit - 1))
        y = x | bit
        below = _join(log_z[x], mean[x], var[x], log_z[y], mean[y], var[y])
        if slot != top:
            u, w = x | last, y | last
            log_z[y], mean[y], var[y] = _join(log_z[u], mean[u], var[u], log_z[w], mean[w], var[w])
        log_z[x], mean[x], var[x] = below
