"""Contenders of `nmcmc bench mc`: our kernels as users run them, peapods and openjij, and how they are timed.

A contender is a function of a number of steps that makes them and returns how many updates these were: attempted
flips of single spins, or the sites of clusters. Peapods (https://pypi.org/project/peapods/) and the dense core of
openjij (https://pypi.org/project/openjij/) run the couplings of the same Hamiltonian.
"""

from __future__ import annotations

import importlib
import itertools
import math
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numba
import numpy as np
from numba import njit, prange

from cli.options import default_thin
from mc.engine import Engine
from mc.hamiltonian import Hamiltonian
from mc.kernels.batch import sweep_all
from mc.kernels.random_streams import advance
from mc.simulate import LocalDriver
from mc.tempering import TemperingDriver

RIVALS = {"peapods": "0.2.0", "openjij": "0.12.2"}
RUNS = 10  # short ones of each contender, in turn
SEED = 1
WARM_UP = 200  # sweeps

Contender = Callable[[int], float]


class Timed(NamedTuple):
    """Seconds and updates of one step."""

    seconds: float
    updates: float


def installed(rival: str) -> bool:
    """Whether a rival can be imported."""
    try:
        importlib.import_module(rival)
    except ImportError:
        return False
    return True


def timed(
    contenders: Sequence[Contender],
    seconds: float,
    clock: Callable[[], float] = time.process_time,
    runs: int = RUNS,
    pick: Callable[[list[float]], float] = min,
) -> list[Timed]:
    """Time contenders in turn, `runs` short runs and about `seconds` each; `pick` chooses among the runs of one."""
    steps = [_steps(contender, seconds / runs, clock) for contender in contenders]
    taken = [[] for _ in contenders]
    made = [[] for _ in contenders]
    for _ in range(runs):
        for contender, n, times, updates in zip(contenders, steps, taken, made, strict=True):
            began = clock()
            updates.append(contender(n) / n)
            times.append((clock() - began) / n)
    return [Timed(pick(times), float(np.mean(updates))) for times, updates in zip(taken, made, strict=True)]


def _steps(contender: Contender, seconds: float, clock: Callable[[], float]) -> int:
    """How many steps take about `seconds`; the first run, which may compile, does not count."""
    contender(1)
    n = 1
    while True:
        began = clock()
        contender(n)
        took = max(clock() - began, 1e-9)
        if took > 0.5 * seconds:
            return max(1, round(n * seconds / took))
        n = math.ceil(n * min(10.0, seconds / took))


def sweeps(hamiltonian: Hamiltonian, beta: float, lanes: int, kernel: str, rule: str = "metropolis") -> Contender:
    """Sweeps of `lanes` replicas at one beta."""
    engine = Engine(hamiltonian, np.full((lanes, 1), beta), SEED, (0,), rule, kernel)
    spins = np.random.default_rng(SEED).choice(np.array([-1, 1], np.int8), (lanes, 1, hamiltonian.n_spins))
    engine.set_spins(spins)

    def run(n: int) -> float:
        sweep_all(engine.batch, engine.n_units, n, False)
        return float(n * lanes * hamiltonian.n_spins)

    run(WARM_UP)
    return run


def rounds(
    hamiltonian: Hamiltonian, temperatures: np.ndarray, replicas: int, kernel: str, measured: bool = False
) -> Contender:
    """Rounds of parallel tempering, measured once a run; or draws with the default of rounds between them."""
    driver = TemperingDriver(
        hamiltonian, 1.0 / temperatures, n_chains=1, seed=SEED, spins_every=0, replicas=replicas, kernel=kernel
    )
    driver.warm_up(WARM_UP)
    updates = float(replicas * len(temperatures) * hamiltonian.n_spins)

    thin = default_thin(driver.engine.kernel)

    def run(n: int) -> float:
        driver.thin = thin if measured else n
        driver.block(n if measured else 1)
        return n * updates * (thin if measured else 1)

    return run


def wolff(hamiltonian: Hamiltonian, beta: float) -> tuple[Contender, float]:
    """Sweeps of Wolff clusters at equilibrium, the updates being the spins flipped; and the mean cluster size."""
    driver = LocalDriver(hamiltonian, [beta], n_chains=1, seed=SEED, rule="wolff", spins_every=0)
    driver.warm_up(5 * WARM_UP)
    a_sweep = int(driver.state()["clusters_per_sweep"][0])

    def run(n: int) -> float:
        driver.thin = n
        mean = driver.block(1).sample_stats["accepted"].item() * hamiltonian.n_spins
        return mean * a_sweep * n

    return run, run(10 * WARM_UP) / (10 * WARM_UP * a_sweep)


def forward_couplings(hamiltonian: Hamiltonian) -> np.ndarray:
    """Couplings (*shape, dimension) from each site to the next along each axis of a periodic lattice."""
    lattice, n_spins = hamiltonian.lattice, hamiltonian.n_spins
    sites, strengths = hamiltonian.bonds
    key = sites[:, 0].astype(np.int64) * n_spins + sites[:, 1]
    here = np.arange(n_spins)
    forward = np.zeros((n_spins, lattice.dimension))
    for axis in range(lattice.dimension):
        ahead = np.roll(here.reshape(lattice.shape), -1, axis=axis).ravel()
        wanted = np.minimum(here, ahead) * n_spins + np.maximum(here, ahead)
        place = np.minimum(np.searchsorted(key, wanted), len(key) - 1)
        forward[:, axis] = np.where(key[place] == wanted, strengths[place], 0.0)
    return forward.reshape(*lattice.shape, lattice.dimension)


def peapods(
    hamiltonian: Hamiltonian,
    temperatures: np.ndarray,
    replicas: int = 1,
    measured: bool = False,
    updates: float | None = None,
    **moves,
) -> Contender:
    """Metropolis sweeps of peapods, with the moves of its `sample`; measured in the last sweep, or by its default.

    updates: of a step, when they are not the attempted flips.
    """
    from peapods import Ising

    model = Ising(hamiltonian.lattice.shape, forward_couplings(hamiltonian), np.asarray(temperatures), replicas)
    if updates is None:
        updates = float(hamiltonian.n_spins * len(temperatures) * replicas)

    def run(n: int) -> float:
        # One or two sweeps are measured at the end: with none there would be a division by zero.
        warm_up = 0.25 if measured else max(0.0, 1.0 - 1.5 / n)
        with np.errstate(all="ignore"):  # its Binder ratio of one sweep with m = 0
            model.sample(n, sequential=True, warmup_ratio=warm_up, **moves)
        return n * updates

    run(WARM_UP)
    return run


def dense_matrix(hamiltonian: Hamiltonian) -> np.ndarray:
    """Bonds as openjij's dense graph takes them, (N + 1, N + 1): E = sum over i < j of the entries, no field."""
    n_spins = hamiltonian.n_spins
    (i, j), strengths = hamiltonian.bonds[0].T, hamiltonian.bonds[1]
    matrix = np.zeros((n_spins + 1, n_spins + 1))
    matrix[i, j] = -strengths
    matrix[-1, -1] = 1.0
    return matrix


def openjij(hamiltonian: Hamiltonian, beta: float) -> Contender:
    """Metropolis sweeps of openjij's dense core at one beta."""
    from openjij import cxxjij

    graph = cxxjij.graph.Dense(hamiltonian.n_spins)
    graph.set_interaction_matrix(dense_matrix(hamiltonian))
    spins = np.random.default_rng(SEED).choice([-1, 1], hamiltonian.n_spins)
    system = cxxjij.system.make_classical_ising(spins.tolist(), graph)
    calls = itertools.count()

    def run(n: int) -> float:
        cxxjij.algorithm.Algorithm_SingleSpinFlip_run(system, next(calls), [(beta, n)])
        return float(n * hamiltonian.n_spins)

    run(WARM_UP)
    return run


def draws(driver: LocalDriver | TemperingDriver) -> list[Contender]:
    """Draws with the default `thin`, with their spins and without, and as many sweeps with one measurement."""
    driver.warm_up(WARM_UP)

    thin = default_thin(driver.engine.kernel)

    def contender(measured: bool, spins_every: int) -> Contender:
        def run(n: int) -> float:
            driver.thin, driver.spins_every = thin if measured else thin * n, spins_every
            driver.block(n if measured else 1)
            return float(n)

        return run

    return [contender(True, 1), contender(True, 0), contender(False, 0)]


def with_threads(threads: int, work: Contender) -> Contender:
    """A contender by so many threads of Numba, which stay set."""

    def run(n: int) -> float:
        numba.set_num_threads(threads)
        return work(n)

    return run


def arithmetic(n: int) -> float:
    """16 parts of 1000 n random words, without memory: what more than one thread gains on this machine."""
    totals = np.zeros(16, np.uint64)
    _sums(totals, 1000 * n)
    return float(16_000 * n)


@njit(cache=True, nogil=True)
def _sum_of_words(seed, n):
    s0, s1, s2, s3 = np.uint64(seed), np.uint64(1), np.uint64(2), np.uint64(3)
    total = np.uint64(0)
    for _ in range(n):
        word, s0, s1, s2, s3 = advance(s0, s1, s2, s3)
        total += word
    return total


@njit(cache=True, nogil=True, parallel=True)
def _sums(totals, n):
    for part in prange(totals.shape[0]):
        totals[part] = _sum_of_words(np.int64(part), np.int64(n))
