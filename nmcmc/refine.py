"""Local Monte Carlo, or a short parallel tempering, on states of any origin, by the fastest kernel for them.

Sweeps leave exp(-beta E) invariant: states of the target stay states of the target, others come nearer to it.
"""

from __future__ import annotations

import numpy as np

from mc.engine import Engine
from mc.equilibrium import equilibrium_driver
from mc.hamiltonian import Hamiltonian
from mc.kernels.batch import sweep_all
from mc.simulate import LocalDriver
from mc.tempering import TemperingDriver

CHAINS = 16  # of a short tempering
SEED = 2 * 10**6  # keeps its streams apart from those of `mc.equilibrium`


class Refiner:
    """Metropolis sweeps of many states at once; the batch of the kernel is kept from call to call.

    Every call takes all its random numbers from the generator that it is given, so that it depends on that generator
    and the states alone, not on what was refined before. kernel: see `mc.engine.choose`.
    """

    def __init__(self, hamiltonian: Hamiltonian, kernel: str = "auto"):
        self.hamiltonian, self.kernel = hamiltonian, kernel
        self._engine: Engine | None = None

    def __getstate__(self) -> dict:
        return vars(self) | {"_engine": None}  # other processes make their own

    def __call__(
        self, spins: np.ndarray, beta: float | np.ndarray, sweeps: int, rng: np.random.Generator
    ) -> np.ndarray:
        """States (n, N) int8 after `sweeps` sweeps of spins (n, N) of +1 and -1, which stay as they are.

        beta: in 1 / energy unit, one for all or a schedule (B,) with `sweeps` sweeps at each. Raises ValueError for
        a beta that is negative or not finite, sweeps < 0, or states of another size.
        """
        spins, betas = np.asarray(spins, np.int8), np.atleast_1d(np.asarray(beta, np.float64))
        if spins.ndim != 2 or spins.shape[1] != self.hamiltonian.n_spins:
            raise ValueError(f"refine: states {spins.shape}, (n, {self.hamiltonian.n_spins}) is needed")
        if not np.isfinite(betas).all() or (betas < 0).any():
            raise ValueError(f"refine: beta={beta}: finite numbers of at least 0 are needed")
        if sweeps < 0:
            raise ValueError(f"refine: sweeps={sweeps}: at least 0 is needed")
        if not sweeps or not len(spins):
            return spins.copy()
        engine = self._engine_for(len(spins), betas[0])
        streams = engine.batch.streams
        # No word is 0, so no stream is all zero, the one state that a generator never leaves.
        streams[...] = rng.integers(1, np.iinfo(streams.dtype).max, streams.shape, streams.dtype, endpoint=True)
        engine.set_betas(betas[0])
        engine.set_spins(spins[:, None])
        for one in betas:
            engine.set_betas(one)
            sweep_all(engine.batch, engine.n_units, sweeps, False)
        return engine.spins()[:, 0]

    def _engine_for(self, n: int, beta: float) -> Engine:
        """Room for n replicas; the kernel may be another one for another n."""
        if self._engine is None or len(self._engine.lanes) != n:
            self._engine = Engine(self.hamiltonian, np.full((n, 1), beta), 0, (), "metropolis", self.kernel)
        return self._engine


def refine(
    hamiltonian: Hamiltonian, beta: float | np.ndarray, spins: np.ndarray, sweeps: int, rng: np.random.Generator | int
) -> np.ndarray:
    """`Refiner` for one call; rng: a generator, or a seed for one. Keep a Refiner where there will be many calls."""
    return Refiner(hamiltonian)(spins, beta, sweeps, np.random.default_rng(rng))


def tempered(
    hamiltonian: Hamiltonian,
    beta: float,
    draws: np.ndarray,
    n: int,
    rounds: int,
    seed: int,
    between: int = 5,
    chains: int = CHAINS,
) -> np.ndarray:
    """States (chains, ceil(n / chains), N) int8 of a short parallel tempering that starts from draws (m, N).

    Unlike sweeps at beta alone it leaves valleys: modes that a sampler has dropped come back. Every replica of every
    chain starts from a draw, `rounds` rounds go by, then each chain gives a state every `between` rounds. The ladder
    is that of `mc.equilibrium`; ferromagnets have Wolff clusters instead. seed: of all random numbers.

    Raises ValueError for no draws, or n, rounds or between below 1.
    """
    if not len(draws) or min(n, rounds, between) < 1:
        raise ValueError(f"tempered: {len(draws)} draws, n={n}, rounds={rounds}, between={between}: at least 1 each")
    pilot, _, row = equilibrium_driver(hamiltonian, beta, seed)
    start = np.resize(draws, (chains, len(pilot.betas), hamiltonian.n_spins))
    common = dict(n_chains=chains, seed=seed + SEED, thin=between, init=start)
    if hamiltonian.is_ferromagnet:
        driver = LocalDriver(hamiltonian, pilot.betas, rule="wolff", **common)
    else:
        driver = TemperingDriver(hamiltonian, pilot.betas, **common)
    driver.warm_up(rounds)
    return driver.block(-(-n // chains)).spins[:, :, row]
