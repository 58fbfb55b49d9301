"""States of the target itself, from whichever Monte Carlo reaches equilibrium: clusters, or parallel tempering.

They judge a proposal on what it never draws, and they are what a proposal can be fitted to.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mc.hamiltonian import Hamiltonian
from mc.simulate import Driver, LocalDriver, checked_betas
from mc.tempering import TemperingDriver

CHAINS = 4
LADDER = 12  # temperatures of the tempering at least, from a tenth of beta
LONGEST_LADDER = 96
PILOT = 200  # rounds that measure how often neighbouring temperatures are exchanged
FEWEST_SWAPS = 0.15  # of those tried; the ladder is doubled below this, where chains would stay at one temperature
WARMUP = 1000  # sweeps at least
WARMUP_SHARE = 0.2  # of all later sweeps
SEED = 10**6  # keeps the streams apart from those of a run with the same seed
SPINS_AT_ONCE = 2**24  # of a block, all temperatures counted: 16 MB


def equilibrium_states(
    hamiltonian: Hamiltonian,
    beta: float,
    n: int,
    seed: int = 0,
    sweeps_between: int = 5,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[np.ndarray, str]:
    """n states of exp(-beta E), (n, N) int8, in order of time, and the name of the algorithm.

    beta: in 1 / energy unit. sweeps_between: sweeps, or rounds of the tempering, from one state of a chain to its
    next. Four chains take turns, so that states far apart in the array are far apart in time. stop: asked between
    blocks of work; once it says so there are fewer states, perhaps none.
    Wolff for ferromagnets, else parallel tempering (Hukushima and Nemoto, J. Phys. Soc. Jpn. 65, 1604 (1996)).

    Raises ValueError for n or sweeps_between below 1, and for a beta that is negative or not finite.
    """
    _require_counts("equilibrium_states", n, sweeps_between)
    driver, name, row = equilibrium_driver(hamiltonian, beta, seed)
    driver.thin = sweeps_between
    draws = -(-n // CHAINS)
    replicas = driver.n_chains * len(driver.betas)
    block = max(1, min(-(-draws // 32), SPINS_AT_ONCE // (replicas * hamiltonian.n_spins)))
    _warm_up(driver, max(WARMUP, int(WARMUP_SHARE * draws * sweeps_between)), block * sweeps_between, stop)
    found = np.empty((draws, CHAINS, hamiltonian.n_spins), np.int8)
    done = 0
    while done < draws and not stop():
        spins = driver.block(min(block, draws - done)).spins[:, :, row]  # (chain, draw, N)
        found[done : done + spins.shape[1]] = spins.swapaxes(0, 1)
        done += spins.shape[1]
    return found[:done].reshape(-1, hamiltonian.n_spins)[:n], name


def ladder_states(
    hamiltonian: Hamiltonian,
    betas: np.ndarray,
    n: int,
    seed: int = 0,
    sweeps_between: int = 5,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[np.ndarray, str]:
    """States at several temperatures from one simulation, (B, n, N) int8, and the name of the algorithm.

    betas: (B,) in 1 / energy unit, in any order, distinct. The other arguments as of `equilibrium_states`; fewer than
    n states once stop() says so.

    Raises ValueError for n or sweeps_between below 1, and for betas that are none, negative, not finite or alike.
    """
    _require_counts("ladder_states", n, sweeps_between)
    betas = checked_betas(betas)
    driver, name, rows = ladder_driver(hamiltonian, betas, seed)
    driver.thin = sweeps_between
    draws = -(-n // CHAINS)
    block = max(1, min(-(-draws // 32), SPINS_AT_ONCE // (CHAINS * len(driver.betas) * hamiltonian.n_spins)))
    _warm_up(driver, max(WARMUP, int(WARMUP_SHARE * draws * sweeps_between)), block * sweeps_between, stop)
    found = np.empty((len(betas), draws, CHAINS, hamiltonian.n_spins), np.int8)
    done = 0
    while done < draws and not stop():
        spins = driver.block(min(block, draws - done)).spins[:, :, rows]  # (chain, draw, B, N)
        found[:, done : done + spins.shape[1]] = spins.transpose(2, 1, 0, 3)
        done += spins.shape[1]
    return found[:, :done].reshape(len(betas), -1, hamiltonian.n_spins)[:, :n], name


def ladder_driver(hamiltonian: Hamiltonian, betas: np.ndarray, seed: int) -> tuple[Driver, str, np.ndarray]:
    """A driver that is in equilibrium at all of some betas, the name of its algorithm, and where they are in it.

    The ladder of a tempering goes down to a tenth of the largest beta, and has more betas where few swaps succeed.

    Raises ValueError for betas that are none, negative, not finite or alike.
    """
    betas = checked_betas(betas)
    if len(np.unique(betas)) < len(betas):
        raise ValueError(f"betas={betas.tolist()}: a beta given twice has the same states twice; give it once")
    if hamiltonian.is_ferromagnet:
        return LocalDriver(hamiltonian, betas, CHAINS, seed + SEED, rule="wolff"), "Wolff", np.arange(len(betas))
    ladder = np.unique(np.concatenate([betas, np.linspace(0.1, 1.0, LADDER) * betas.max()]))
    while True:
        driver = TemperingDriver(hamiltonian, ladder, CHAINS, seed + SEED, thin=PILOT)
        if len(ladder) == 1 or len(ladder) >= LONGEST_LADDER:
            break
        driver.spins_every = 0
        driver.warm_up(PILOT)
        accepted = driver.block(1).sample_stats["swap_accepted"][..., :-1].mean(axis=(0, 1))
        driver.spins_every = 1
        rare = np.flatnonzero(accepted < FEWEST_SWAPS)
        if not len(rare):
            break
        ladder = np.sort(np.append(ladder, 0.5 * (ladder[rare] + ladder[rare + 1])))
    return driver, "parallel tempering", np.searchsorted(ladder, betas)


def _require_counts(caller: str, n: int, sweeps_between: int) -> None:
    for name, value in (("n", n), ("sweeps_between", sweeps_between)):
        if value < 1:
            raise ValueError(f"{caller}: {name}={value}: an integer of at least 1 is needed")


def _warm_up(driver: Driver, sweeps: int, at_once: int, stop: Callable[[], bool]) -> None:
    while sweeps > 0 and not stop():
        some = min(sweeps, at_once)
        driver.warm_up(some)
        sweeps -= some


def equilibrium_driver(hamiltonian: Hamiltonian, beta: float, seed: int) -> tuple[Driver, str, int]:
    """A driver that reaches equilibrium, the name of its algorithm, and which of its betas is the target."""
    if hamiltonian.is_ferromagnet:
        return LocalDriver(hamiltonian, np.array([beta]), CHAINS, seed + SEED, rule="wolff"), "Wolff", 0
    size = LADDER
    while True:
        betas = np.linspace(0.1 * beta, beta, size) if beta > 0 else np.array([beta])
        driver = TemperingDriver(hamiltonian, betas, CHAINS, seed + SEED, thin=PILOT)
        if len(betas) == 1 or size >= LONGEST_LADDER:
            return driver, "parallel tempering", len(betas) - 1
        driver.spins_every = 0
        driver.warm_up(PILOT)
        accepted = driver.block(1).sample_stats["swap_accepted"][..., :-1].mean(axis=(0, 1))
        if accepted.min() >= FEWEST_SWAPS:
            driver.spins_every = 1
            return driver, "parallel tempering", len(betas) - 1
        size *= 2
