"""Sections 6 and 7 of `gpu.py`: overlaps of a three-dimensional glass at L = 10, and the ESS of large Ising tori.

Overlaps: q is the belief prior with a transformer over groups of 2x2x2, fitted to states of one tempering run; its
weighted draws are compared with another run, which shares nothing with the first.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection

import numpy as np
from gpu_common import SEED, Bench, Job, states_at_once
from gpu_rows import SPIN, draw, square

import mc
from mc.exact import kaufman_torus
from mc.overlap_distance import compare_overlaps, overlap_blocks
from mc.tempering import TemperingDriver
from mc.weighted import FEWEST_EFFECTIVE_DRAWS, effective_sample_size, log_mean_weight
from mc.weighted_overlaps import pair_overlaps
from nmcmc.objectives import SelfDistillation, SoftLikelihood
from nmcmc.recipe import build_sampler
from nmcmc.sampler import AutoregressiveSampler
from nmcmc.training import Training, TrainSettings, train

TEMPERATURES = (1.92, 1.28, 0.64, 0.1)
CHAINS, THIN = 4, 5
STATES = 8000  # of tempering at each temperature, as far apart in time as it allows
REUSE = 4  # steps of self-distillation that one draw serves
UNSEEN = 0.2  # share of the tempering states that nothing is fitted to


@dataclass(frozen=True)
class Tempered:
    """Two runs along one ladder: states {T: (n, N) int8} of the first, overlaps {T: (chain, draw)} of the second."""

    hamiltonian: mc.Hamiltonian
    states: dict[float, np.ndarray]
    overlaps: dict[float, np.ndarray]


def overlaps(bench: Bench) -> dict[str, Job]:
    return {"tempering": partial(tempering, bench)} | {f"T={T}": partial(overlaps_at, bench, T) for T in TEMPERATURES}


def ladder(small: bool) -> np.ndarray:
    """Betas from 0.2 to 10 through those of the temperatures asked for, close together where the glass is hard."""
    warm, cold = (4, 3) if small else (16, 12)
    edge = 1.0 / TEMPERATURES[2]
    asked = [1.0 / T for T in TEMPERATURES]
    betas = np.concatenate([np.linspace(0.2, edge, warm), np.geomspace(edge, asked[-1], cold), asked])
    return np.unique(betas.round(9))


def start_tempering(bench: Bench, seconds: float) -> None:
    """Begin both runs in a process of their own, beside all other sections, none of which is long enough."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    context.Process(target=send_tempered, args=(sender, bench.small, seconds), daemon=True).start()
    sender.close()  # so that the receiver hears of it when the process dies
    bench.known["tempering"] = receiver


def send_tempered(sender: Connection, small: bool, seconds: float) -> None:
    """In that process: what the runs found, or the error that ended them."""
    try:
        found = temper(small, seconds)
    except Exception as error:
        found = error
    sender.send(found)


def tempering(bench: Bench, seconds: float) -> dict:
    """What the process has found, once it is done."""
    try:
        received = bench.known.pop("tempering").recv()
    except EOFError:
        raise RuntimeError("the process of the tempering runs died") from None
    if isinstance(received, Exception):
        raise received
    found, bench.known["tempered"] = received
    return found


def temper(small: bool, seconds: float) -> tuple[dict, Tempered]:
    """Both runs, a quarter of the time for each warm-up and for the draws of each; figures, and what was drawn."""
    hamiltonian = mc.models.ea3d(L=4 if small else 10, J="gaussian", seed=1)
    betas, began = ladder(small), time.monotonic()
    place = {T: int(np.abs(betas - 1.0 / T).argmin()) for T in TEMPERATURES}
    warm, most, states = (10, 20, 80) if small else (10**6, 10**6, STATES)
    learned = TemperingDriver(hamiltonian, betas, CHAINS, SEED, thin=THIN)
    judge = TemperingDriver(hamiltonian, betas, CHAINS, SEED + 1, thin=THIN, replicas=2, spins_every=0)
    for driver in (learned, judge):  # compiles, which may take longer than all the rest
        driver.warm_up(1)
        driver.block(1)
    quarter = max(began + seconds - time.monotonic(), 1.0) / 4
    rounds = in_time(lambda: learned.warm_up(50), quarter, warm)
    last = time.monotonic()
    learned.block(2)
    affordable = int(quarter / max(time.monotonic() - last, 1e-6)) * 2  # draws
    learned.thin = THIN * max(1, affordable * CHAINS // states)
    spins: list[np.ndarray] = []
    in_time(lambda: spins.append(learned.block(2).spins[:, :, list(place.values())]), quarter, states // CHAINS // 2)
    judge_rounds = in_time(lambda: judge.warm_up(50), quarter, warm)
    parts: list[np.ndarray] = []
    judge_draws = in_time(lambda: parts.append(judge.block(10).posterior["overlap"]), quarter, most)
    drawn, overlap = (np.concatenate(found, axis=1) for found in (spins, parts))
    found = {
        "L": hamiltonian.lattice.shape[0], "betas": betas.tolist(), "chains": CHAINS, "warm_up_rounds": 50 * rounds,
        "states": drawn.shape[1] * CHAINS, "rounds_between_states": learned.thin,
        "reference_warm_up_rounds": 50 * judge_rounds, "reference_draws": 10 * judge_draws, "rounds_a_draw": THIN,
        "round_trips": int(judge.round_trips.sum()),
    }  # fmt: skip
    return found, Tempered(
        hamiltonian,
        {T: drawn[:, :, t].swapaxes(0, 1).reshape(-1, hamiltonian.n_spins) for t, T in enumerate(place)},
        {T: overlap[:, :, b] for T, b in place.items()},
    )


def in_time(job: Callable[[], object], seconds: float, most: int) -> int:
    """Calls until the seconds are over, at least two and at most `most`; their number."""
    began, calls = time.monotonic(), 0
    while calls < most and (calls < 2 or time.monotonic() - began < seconds):
        job()
        calls += 1
    return calls


def overlaps_at(bench: Bench, T: float, seconds: float) -> dict:
    """P(q) of weighted draws at one temperature against tempering; ESS from draws, ess_mc from unseen states."""
    tempered: Tempered = bench.known["tempered"]
    hamiltonian, beta, states = tempered.hamiltonian, 1.0 / T, tempered.states[T]
    net = replace(SPIN, patch=(2, 2, 2), precision=bench.precision)
    sampler = build_sampler(hamiltonian, beta, net, seed=1).to(bench.device)
    n = 32 if bench.small else 4096
    sampler.max_batch = n
    learned = len(states) - max(1, round(UNSEEN * len(states)))
    objective = SoftLikelihood(sampler, states[:learned])
    settings = TrainSettings(
        objective="soft-likelihood", steps=4 if bench.small else 10**6, batch=min(256, learned),
        microbatch=min(256, states_at_once(sampler, bench)), clip=5.0, validate_every=1000,
        validation_draws=16 if bench.small else 1024,
    )  # fmt: skip
    took, training = bench.timed(lambda: train(sampler, objective, settings, seconds=0.5 * seconds))
    log_weight, spins, drawing = weighted_draws(sampler, n, bench)
    ess = float(effective_sample_size(log_weight))
    unseen = states[learned:]
    log_w = -beta * hamiltonian.energy(unseen) - sampler.log_prob(unseen)
    # <w>_p <1/w>_p = <w>_p / Z, so that no ln Z is needed.
    ess_mc = 1.0 / float(np.exp(log_w - log_w.max()).mean() * np.exp(log_w.max() - log_w).mean())
    shape = (CHAINS, n // CHAINS)
    blocks = pair_overlaps(spins.reshape(*shape, -1), hamiltonian, log_weight.reshape(shape)).blocks
    reference = overlap_blocks(tempered.overlaps[T], hamiltonian.n_spins)
    found = {
        "T": T, "beta": beta, "steps": training.step, "fit_seconds": took, "draws": n, "draw_seconds": drawing,
        "ess_of_prior": training.prior_ess, "ess": ess, "ess_mc": ess_mc, "log_weight_deviation": log_weight.std(),
        "unseen_states": len(unseen), "distinct_unseen_states": distinct(unseen),
        "verdict": verdict(ess, n), "reference_status": reference.status,
        "mean_abs_q": mean_abs_q(blocks.probability), "mean_abs_q_tempering": mean_abs_q(reference.probability),
    }  # fmt: skip
    if min(len(blocks.pulls), len(reference.pulls)) < 2:
        return found | {"distance": "not measured: fewer than two blocks of independent draws"}
    compared = compare_overlaps(blocks, reference, SEED)
    return found | {
        "distance": compared.distance, "error": compared.error, "chance": compared.noise, "p": compared.p_value,
        "status": compared.status,
    }  # fmt: skip


def verdict(ess: float, n: int) -> str:
    """In words what an ESS is worth."""
    effective = ess * n
    if effective < FEWEST_EFFECTIVE_DRAWS:
        return f"useless by itself: {effective:.1f} effective draws of {n}, neither P(q) nor its error can be trusted"
    if ess < 0.01:
        return f"poor: {effective:.0f} effective draws of {n}; local moves or tempering are needed besides"
    return f"usable: {effective:.0f} effective draws of {n}"


def distinct(states: np.ndarray) -> int:
    """How many of states (n, N) differ by more than a flip of all spins; where they are few, ess_mc says little."""
    return len(np.unique(states * states[:, :1], axis=0))


def mean_abs_q(probability: np.ndarray) -> float:
    """Mean of |q| of P(q) at q = -1, ..., 1."""
    return float(probability @ np.abs(np.linspace(-1.0, 1.0, len(probability))))


def weighted_draws(sampler: AutoregressiveSampler, n: int, bench: Bench) -> tuple[np.ndarray, np.ndarray, float]:
    """ln w = - beta E - ln q of n draws, the draws (n, N) int8, and seconds."""
    _, batch = bench.halved_until_it_fits(lambda size: (draw(sampler, size, bench), size)[1], min(n, 4096))
    sampler.max_batch = batch
    seconds, (spins, log_q) = bench.timed(lambda: sampler.sample(n, bench.generator(2)))
    return -sampler.beta * sampler.hamiltonian.energy(spins) - log_q, spins, seconds


def reached(bench: Bench) -> dict[str, Job]:
    sizes = ((8, (2, 4)), (12, (3, 4))) if bench.small else ((128, (2, 4)), (180, (3, 4)))
    names = {f"ising {L}, {r}x{c}": (L, (r, c)) for L, (r, c) in sizes}
    return {name: partial(ess_reached, bench, name, *size) for name, size in names.items()}


def ess_reached(bench: Bench, name: str, L: int, patch: tuple[int, int], seconds: float) -> dict:
    """Lookahead and transformer, trained by soft self-distillation for two thirds of the time; dF = ln Z - <ln w>."""
    system = square(L, patch)
    began = time.monotonic()
    n, batch = (16, 8) if bench.small else (1024, 256)
    if name in bench.known:
        sampler, objective = bench.known.pop(name)
    else:
        sampler = system.sampler(bench)
        objective = SelfDistillation(sampler)
    sampler.max_batch, objective.period = n, REUSE
    settings = TrainSettings(
        steps=4 if bench.small else 10**6, batch=batch, validate_every=4 if bench.small else 100,
        validation_draws=16 if bench.small else 256,
    )  # fmt: skip
    built = time.monotonic() - began

    def fit(microbatch: int) -> Training:
        left = max(0.65 * seconds - (time.monotonic() - began), 1.0)
        return train(sampler, objective, replace(settings, microbatch=microbatch), seconds=left)

    took, (microbatch, training) = bench.timed(
        lambda: bench.halved_until_it_fits(fit, min(batch, states_at_once(sampler, bench)))
    )
    log_z = kaufman_torus(L, L, 1.0, system.beta).log_z
    log_weight, _, drawing = weighted_draws(sampler, n, bench)
    prior = weighted_draws(sampler.prior_alone(), n, bench)[0]
    value, error = log_mean_weight(log_weight)
    return {
        "L": L, "patch": list(patch), "beta": system.beta, "precision": sampler.network.trunk.precision,
        "batch": batch, "microbatch": microbatch, "build_seconds": built, "steps": training.step,
        "train_seconds": took, "draws": n, "draw_seconds": drawing, "ess": float(effective_sample_size(log_weight)),
        "ess_of_prior": float(effective_sample_size(prior)), "dF": float(log_z - log_weight.mean()),
        "dF_of_prior": float(log_z - prior.mean()), "log_z": value, "log_z_error": error, "log_z_exact": log_z,
        "history": training.history,
    }  # fmt: skip
