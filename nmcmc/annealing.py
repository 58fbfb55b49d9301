"""Variational annealing: a sampler is cooled from temperature to temperature while it is trained, for ground states.

Hibat-Allah et al., Nat. Mach. Intell. 3, 952 (2021); the schedule is that of Zhong et al., arXiv:2606.22984, eq. 20:
a warm-up at the highest temperature, then a number of weight updates at each. The weights stay, the prior and the
objective are those of each temperature. States drawn on the way, and what local Monte Carlo makes of them, are
candidates for the ground state: the lowest is kept.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from mc.annealing import default_schedule
from mc.hamiltonian import Hamiltonian
from mc.measure import Record, no_record
from mc.tempering import TemperingDriver
from nmcmc.objectives.base import StepRandomness
from nmcmc.objectives.refined import Refined, RefinedBatch, RefinedGradient
from nmcmc.recipe import NetSettings, retargeted
from nmcmc.refine import Refiner
from nmcmc.sampler import AutoregressiveSampler
from nmcmc.training import Training, TrainSettings, learning_rate, make_optimizer, sized, training_step

HISTORY = ("step", "at_beta", "loss", "free_energy", "lowest", "seconds")
LADDERS = ("linear", "log")
OBJECTIVES = ("refined", "modified-gradient", "reverse-kl")
LAST_STEPS, LAST_SWEEPS = 40, 10  # of the cooling of the last draws: temperatures, and sweeps times `local` at each
REHEATED = 0.05  # of the coldest beta at least, where that cooling begins
LASTS = ("cool", "pt")
CHAINS, TEMPERED = 4, 100  # of that tempering
GREEDY, GREEDY_SWEEPS = 20.0, 20  # times the coldest beta: sweeps there only go down
LAST = 2**31 + 1  # a use of the seed that no step has


@dataclass(frozen=True)
class AnnealSettings:
    """betas: the ladder, rising, in 1 / energy unit. warmup: weight updates at the first of them before the ladder.

    updates: at each. local: Metropolis sweeps of every batch at its temperature, 0 for draws of the network alone.
    last: what becomes of the last draws, with local > 0: "cool", or "pt" for a parallel tempering after that, which
        is another method that starts from them.
    Raises ValueError for a ladder that does not cool, and for numbers that cannot be.
    """

    betas: tuple[float, ...]
    warmup: int = 20
    updates: int = 4
    local: int = 100
    last: str = "cool"

    def __post_init__(self):
        betas = np.asarray(self.betas, np.float64)
        if len(betas) < 1 or not np.isfinite(betas).all() or betas[0] < 0 or betas[-1] <= 0:
            raise ValueError(f"annealing: betas={list(self.betas)}: finite numbers, the last above 0, are needed")
        if (np.diff(betas) <= 0).any():
            raise ValueError("an annealing ladder must cool, from high T (low beta) to low T (high beta); reverse it")
        if self.last not in LASTS:
            raise ValueError(f"annealing: last={self.last}: {' or '.join(LASTS)} is needed")
        for name, least in (("warmup", 0), ("updates", 1), ("local", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"annealing: {name}={getattr(self, name)}: at least {least} is needed")

    @property
    def steps(self) -> int:
        """Weight updates in all."""
        return self.warmup + self.updates * len(self.betas)

    def place(self, step: int) -> int:
        """Which of the betas a weight update is made at."""
        return min(max(step - self.warmup, 0) // self.updates, len(self.betas) - 1)


def default_ladder(
    hamiltonian: Hamiltonian, steps: int, spacing: str = "log", coldest: float | None = None
) -> tuple[float, ...]:
    """`steps` rising betas, equidistant in T or in ln T, from 3 times the typical field down to T = 1 / coldest.

    coldest: in 1 / energy unit; default a tenth of the typical field (`mc.annealing.default_schedule`). Raises
    ValueError for fewer than 2 steps, another spacing, or a coldest temperature above the hottest.
    """
    hot, cold = 1.0 / default_schedule(hamiltonian)[[0, -1]]
    cold = cold if coldest is None else 1.0 / coldest if coldest > 0 else math.inf
    if steps < 2 or spacing not in LADDERS:
        raise ValueError(
            f"annealing: {steps} temperatures, {spacing}: at least 2, {' or '.join(LADDERS)}, are needed"
        )
    if not cold < hot:
        raise ValueError(f"T={cold:g} is above T={hot:.4g}, where annealing begins; give a colder one, or a ladder")
    spaced = np.geomspace(hot, cold, steps) if spacing == "log" else np.linspace(hot, cold, steps)
    if coldest is not None:
        spaced[-1] = 1.0 / coldest
    betas = 1.0 / spaced
    betas[-1] = betas[-1] if coldest is None else coldest
    return tuple(betas.tolist())


@dataclass
class Watched:
    """An objective whose batches, as drawn and as refined, are searched for the lowest energy.

    drawn: the lowest energy of the last batch that the sampler itself drew. action: <beta E + ln q> of its states.
    """

    inner: Refined
    record: Record
    period: int = 1
    drawn: float = math.nan
    action: float = math.nan

    @property
    def sampler(self) -> AutoregressiveSampler:
        return self.inner.sampler

    def batch(self, n: int, randomness: StepRandomness) -> RefinedBatch:
        batch = self.inner.batch(n, randomness)
        hamiltonian = self.sampler.hamiltonian
        self.drawn = note_lowest(self.record, hamiltonian, batch.spins)
        note_lowest(self.record, hamiltonian, batch.refined)
        self.action = float(batch.action.mean())
        return batch

    def loss(self, part: RefinedBatch) -> torch.Tensor:
        return self.inner.loss(part)


def note_lowest(record: Record, hamiltonian: Hamiltonian, spins: torch.Tensor | np.ndarray) -> float:
    """Keep the lowest of states (n, N) if it beats the record; returns its energy."""
    spins = spins.to(torch.int8).cpu().numpy() if isinstance(spins, torch.Tensor) else spins
    energies = hamiltonian.energy(spins)
    best = int(energies.argmin())
    if energies[best] < record.energy:
        record.energy, record.spins = float(energies[best]), spins[best].copy()
    return float(energies[best])


def make_objective(sampler: AutoregressiveSampler, training: TrainSettings, local: int) -> Refined:
    """The objective named in the settings, with `local` sweeps; ValueError for one that is not of annealing."""
    if training.objective == "modified-gradient":
        return RefinedGradient(sampler, local, training.weight)
    if training.objective in OBJECTIVES:
        return Refined(sampler, local, 0.0 if training.objective == "reverse-kl" else training.weight)
    raise ValueError(f"train.objective={training.objective}: annealing takes {', '.join(OBJECTIVES)}")


def anneal(
    sampler: AutoregressiveSampler,
    net: NetSettings,
    settings: AnnealSettings,
    training_settings: TrainSettings,
    training: Training | None = None,
    *,
    save: Callable[[Training], None] = lambda training: None,
    save_every: float = 5.0,
    report: Callable[[Training, int], None] = lambda training, steps: None,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[AutoregressiveSampler, Training, Record]:
    """Cool `sampler` down the ladder, its weights in place; the sampler of the coldest beta, and the lowest energy.

    net: what the sampler was built from. training: where an annealing that was stopped goes on, bit for bit.
    save(training) every `save_every` seconds and at the end; report(training, steps) after each weight update; stop()
    is asked before each. Its history has a row for every update, with `HISTORY` as columns: `lowest` is the lowest
    energy that the sampler drew in it, `free_energy` F_q = <E + T ln q> of its batch.

    Raises FloatingPointError, naming the step, when the loss or log q is not finite; what was saved stays good.
    """
    hamiltonian, train_settings = sampler.hamiltonian, sized(training_settings, sampler.tokens.n_spins)
    training = training or Training(history={name: [] for name in HISTORY})
    record = no_record(hamiltonian.n_spins)
    if training.notes:
        record.restore({name: array.numpy() for name, array in training.notes.items()})
    optimizer = make_optimizer(sampler, train_settings)
    if training.weights:
        sampler.network.load_state_dict(training.weights)
        optimizer.load_state_dict(copy.deepcopy(training.optimizer))
    clock, saved = training.cpu_seconds - time.process_time(), time.monotonic()

    def keep() -> None:
        if not all(p.isfinite().all() for p in sampler.network.parameters()):
            raise FloatingPointError(
                f"annealing, step {training.step}: weights are not finite; use a smaller train.lr="
            )
        training.cpu_seconds = clock + time.process_time()
        training.weights = {name: p.detach().clone() for name, p in sampler.network.state_dict().items()}
        training.best_weights = training.weights
        training.optimizer = copy.deepcopy(optimizer.state_dict())
        training.notes = {name: torch.from_numpy(np.array(array)) for name, array in record.state().items()}
        save(training)

    cooled, watched = None, None
    while training.step < settings.steps and not stop():
        if time.monotonic() - saved > save_every:
            keep()
            saved = time.monotonic()
        beta = settings.betas[settings.place(training.step)]
        if cooled is None or cooled.beta != beta:
            cooled = retargeted(sampler, net, beta)
            watched = Watched(make_objective(cooled, train_settings, settings.local), record)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(train_settings, training.step / settings.steps, training.step)
        randomness = StepRandomness.of(train_settings.seed, training.step)
        try:
            loss = training_step(cooled, watched, optimizer, train_settings, randomness)
        except FloatingPointError as error:
            raise FloatingPointError(
                f"annealing, step {training.step}, beta={beta:.6g}: {error}; use a smaller train.lr="
            ) from None
        training.step += 1
        free_energy = watched.action / beta if beta else math.nan
        row = (training.step, beta, loss, free_energy, watched.drawn, clock + time.process_time())
        for name, entry in zip(HISTORY, row, strict=True):
            training.history[name].append(float(entry))
        report(training, settings.steps)
    training.finished = training.step >= settings.steps
    keep()
    return retargeted(sampler, net, settings.betas[-1]), training, record


def last_cooling(
    sampler: AutoregressiveSampler, settings: AnnealSettings, n: int, seed: int, record: Record
) -> tuple[float, float]:
    """n draws of the coldest sampler, which are then, with local > 0, cooled once more and quenched.

    By `LAST_SWEEPS` times `local` sweeps at each of `LAST_STEPS` temperatures, equidistant in ln T from the middle of
    the ladder to its end. With last="pt" they then start a parallel tempering along the ladder, of `TEMPERED` times
    `local` rounds. The record takes what is found. Returns the lowest energy of the draws themselves and of what
    became of them.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(LAST,)))
    spins, _ = sampler.sample(n, torch.Generator().manual_seed(int(rng.integers(2**63))))
    drawn = note_lowest(record, sampler.hamiltonian, spins)
    if not settings.local:
        return drawn, drawn
    refiner, betas = Refiner(sampler.hamiltonian), settings.betas
    middle = max(betas[len(betas) // 2], REHEATED * betas[-1])
    for beta in np.geomspace(middle, betas[-1], LAST_STEPS):
        spins = refiner(spins, beta, LAST_SWEEPS * settings.local, rng)
        note_lowest(record, sampler.hamiltonian, spins)
    spins = refiner(spins, GREEDY * betas[-1], GREEDY_SWEEPS, rng)
    lowest = note_lowest(record, sampler.hamiltonian, spins)
    if settings.last == "pt":
        start = np.resize(spins, (CHAINS, len(betas), spins.shape[1]))
        driver = TemperingDriver(sampler.hamiltonian, np.array(betas), CHAINS, seed, 10, init=start, spins_every=0)
        driver.block(-(-TEMPERED * settings.local // 10))
        lowest = min(lowest, note_lowest(record, sampler.hamiltonian, driver.lowest.spins[None]))
    return drawn, lowest
