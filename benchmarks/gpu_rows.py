"""Sections 3 and 5 of `gpu.py`: samples and training steps a second, beside what the network alone must compute.

Counts, for a state of T tokens, a trunk of l layers and width d, R = T - 1 rows, K keys visible to all rows together,
V numbers of the head, and b bytes a number in the blocks (4, or 2 in bf16):

    drawing   flops  l (24 d^2 R + 4 d K) + 2 d V R        projections and MLP 12 d^2 multiply-adds, scores and mixing
                                                           2 d a key, the head
              bytes  l (2 d K b + 2 d R b + 32 d R b) + 12 l d^2 R b / batch + 16 V T
                                                           keys and values read, and written; 16 arrays of width d a
                                                           row, written and read; weights, read for each token of a
                                                           batch; outputs and prior, float32, each written and read
    training  flops  three times those of drawing          forward, and gradients of inputs and of weights
              bytes  80 l d R b + 20 V T                   five passes over the same arrays: written and read forward;
                                                           read, gradient written and read backward

With the spin head 2 d V R becomes 2 H (d + k + 4) N, H hidden numbers a spin, and V T becomes H N. Priors, Monte
Carlo sweeps and random numbers are not counted, so a fraction is the share of the whole time that the network would
need on hardware at its measured peak.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import count

import numpy as np
import torch
from gpu_common import Bench, Job, states_at_once

import mc
from mc.models.ising import CRITICAL_BETA
from nmcmc.networks.spin_transformer import HIDDEN, INPUTS
from nmcmc.networks.visibility import Visibility
from nmcmc.objectives import SelfDistillation, SoftLikelihood
from nmcmc.objectives.base import Batch, Objective, StepRandomness
from nmcmc.optimizers import make_optimizer
from nmcmc.recipe import NetSettings, build_sampler
from nmcmc.sampler import AutoregressiveSampler
from nmcmc.training import TrainSettings, training_step

BATCH, SMALL_BATCH = 4096, 8
LEARNED = 256  # states behind a step of the soft likelihood; a batch takes some of them more than once
STEPS_BATCH = 512  # of the training steps of 4,096 spins
TREE = NetSettings(width=128, heads=4, head="tree", prior="lookahead")
SPIN = NetSettings(width=128, heads=4, layers=2, head="spin", prior="belief")
SINGLE = NetSettings(width=128, heads=4, head="tree", prior="local", mask="boundary")


@dataclass(frozen=True)
class System:
    """A model, its sampler and what trains it: a name of `nmcmc.objectives`."""

    build: Callable[[], mc.Hamiltonian]
    beta: float
    net: NetSettings
    objective: str = "soft-distillation"

    def sampler(self, bench: Bench, **changes) -> AutoregressiveSampler:
        net = replace(self.net, **({"precision": bench.precision} | changes))
        return build_sampler(self.build(), self.beta, net, seed=1).to(bench.device)


class Timed:
    """An objective that notes how long its batches take: the drawing of a step, and Monte Carlo moves."""

    period = 1

    def __init__(self, objective: Objective, bench: Bench):
        self.objective, self.bench, self.seconds = objective, bench, 0.0

    def batch(self, n: int, randomness: StepRandomness) -> Batch:
        self.seconds, made = self.bench.timed(partial(self.objective.batch, n, randomness))
        return made

    def loss(self, part: Batch) -> torch.Tensor:
        return self.objective.loss(part)


def square(L: int, patch: tuple[int, int]) -> System:
    return System(partial(mc.models.ising, L=L), CRITICAL_BETA[2], replace(TREE, patch=patch))


def glass(L: int, patch: tuple[int, int]) -> System:
    return System(partial(mc.models.ea2d, L=L, seed=1), 1.0, replace(TREE, patch=patch))


def cube(L: int, patch: tuple[int, int, int], net: NetSettings = SPIN, objective: str = "soft-likelihood") -> System:
    return System(partial(mc.models.ea3d, L=L, seed=1), 0.9, replace(net, patch=patch), objective)


def sk(n_spins: int) -> System:
    return System(partial(mc.models.sk, N=n_spins, seed=1), 1.5, replace(SPIN, patch=(8,)), "soft-likelihood")


def throughput(bench: Bench) -> dict[str, Job]:
    if bench.small:
        systems = {"ising 8, 2x4": square(8, (2, 4)), "ising 12, 3x4": square(12, (3, 4)),
                   "ea2d 8, 2x4": glass(8, (2, 4)), "sk 16, 8": sk(16),
                   "ea3d 4, 2x2x2": cube(4, (2, 2, 2))}  # fmt: skip
    else:
        systems = {"sk 256, 8": sk(256), "ea2d 64, 2x4": glass(64, (2, 4)), "ising 128, 2x4": square(128, (2, 4)),
                   "ea3d 16, 2x2x2": cube(16, (2, 2, 2)), "ising 180, 3x4": square(180, (3, 4))}  # fmt: skip
    return {name: partial(rates, bench, name, system) for name, system in systems.items()}


def large_steps(bench: Bench) -> dict[str, Job]:
    L, edge = (8, 4) if bench.small else (64, 16)
    distilled = "soft-distillation"
    systems = {
        f"ea2d {L}, 1x1": System(partial(mc.models.ea2d, L=L, seed=1), 1.0, replace(SINGLE, patch=(1, 1))),
        f"ea3d {edge}, 1x1x1": cube(edge, (1, 1, 1), SINGLE, distilled),
        f"ea3d {edge}, 2x2x2": cube(edge, (2, 2, 2), replace(SINGLE, mask="full"), distilled),
        f"ea3d {edge}, 2x2x2, belief": cube(edge, (2, 2, 2)),
    }
    batch = SMALL_BATCH if bench.small else STEPS_BATCH
    return {name: partial(large_step, bench, system, batch) for name, system in systems.items()}


def rates(bench: Bench, name: str, system: System, seconds: float) -> dict:
    """Samples and training steps a second, and fractions of the measured peaks.

    The sampler of a torus and its objective are kept for a later section, since building them takes long.
    """
    built, sampler = bench.timed(partial(system.sampler, bench))
    batch = SMALL_BATCH if bench.small else BATCH
    draw(sampler, min(64, batch), bench)  # whatever is compiled or allocated once
    bench.forget_peak()
    began = bench.now()
    batch, (taken, _) = bench.halved_until_it_fits(lambda n: bench.timed(partial(draw, sampler, n, bench)), batch)
    if 4.0 * taken < seconds - (bench.now() - began):
        taken = min(taken, bench.timed(partial(draw, sampler, batch, bench))[0])
    flops, bytes_ = drawing_counts(sampler, batch)
    found = described(sampler) | {
        "build_seconds": built, "draw_batch": batch, "draw_seconds": taken, "samples_a_second": batch / taken,
        "draw_peak_bytes": bench.peak_bytes(),
        "draw": fractions(bench, sampler, batch * flops, batch * bytes_, taken),
    }  # fmt: skip
    first = copy.deepcopy(sampler.network.state_dict())
    teacher = teacher_of(bench, sampler, system.objective, batch)
    step = step_figures(bench, sampler, teacher, system.objective, batch, twice=4.0 * taken < seconds)
    sampler.network.load_state_dict(first)
    if name.startswith("ising"):
        bench.known[name] = sampler, teacher
    flops, bytes_ = training_counts(sampler)
    step["fit"] = fractions(bench, sampler, step["batch"] * flops, step["batch"] * bytes_, step["fit_seconds"])
    return found | {"training": step}


def large_step(bench: Bench, system: System, batch: int, seconds: float) -> dict:
    """Seconds of a training step and the most memory it takes."""
    sampler = system.sampler(bench)
    teacher = teacher_of(bench, sampler, system.objective, batch)
    return described(sampler) | step_figures(bench, sampler, teacher, system.objective, batch, twice=True)


def draw(sampler: AutoregressiveSampler, n: int, bench: Bench) -> tuple[torch.Tensor, torch.Tensor]:
    """n states in one batch, on the device."""
    sampler.max_batch = n
    return sampler.draw_tokens(n, bench.generator())


def teacher_of(bench: Bench, sampler: AutoregressiveSampler, objective: str, batch: int) -> Objective:
    """What trains a sampler; the soft likelihood of its own draws, as only time counts here."""
    sampler.max_batch = batch
    if objective == "soft-likelihood":
        return SoftLikelihood(sampler, sampler.sample(min(batch, LEARNED), bench.generator(1))[0])
    return SelfDistillation(sampler, reuse=1)


def step_figures(
    bench: Bench, sampler: AutoregressiveSampler, teacher: Objective, objective: str, batch: int, twice: bool
) -> dict:
    """One training step in parts, the second if `twice`; as many states at once as memory allows.

    A step of few states goes first, since kernels of the CPU are compiled in it.
    """
    timed = Timed(teacher, bench)
    settings = TrainSettings(objective=objective, batch=batch, learning_rate=1e-4)
    optimizer, steps = make_optimizer(sampler, settings), count()

    def step(microbatch: int, states: int = batch) -> float:
        now = replace(settings, microbatch=microbatch, batch=states)
        randomness = StepRandomness.of(1, next(steps))
        return bench.timed(partial(training_step, sampler, timed, optimizer, now, randomness))[0]

    step(min(8, batch), min(8, batch))
    bench.forget_peak()
    microbatch, seconds = bench.halved_until_it_fits(step, min(batch, states_at_once(sampler, bench)))
    if twice:
        seconds = step(microbatch)
    return {
        "objective": objective, "batch": batch, "microbatch": microbatch, "step_seconds": seconds,
        "steps_a_second": 1.0 / seconds, "draw_and_teach_seconds": timed.seconds,
        "fit_seconds": seconds - timed.seconds, "peak_bytes": bench.peak_bytes(),
    }  # fmt: skip


def described(sampler: AutoregressiveSampler) -> dict:
    """What a row is about."""
    trunk, tokens = sampler.network.trunk, sampler.tokens
    return {
        "n_spins": tokens.n_spins, "n_tokens": tokens.n_tokens, "beta": sampler.beta, "precision": trunk.precision,
        "width": trunk.width, "layers": len(trunk.blocks), "prior": type(sampler.prior).__name__,
        "head": sampler.head.name, "attention": trunk.backend_line(),
    }  # fmt: skip


def fractions(bench: Bench, sampler: AutoregressiveSampler, flops: float, bytes_: float, seconds: float) -> dict:
    """Counts, and the seconds they would take at the measured peaks as shares of those that were taken."""
    peak = bench.known.get(sampler.network.trunk.precision)
    copy = bench.known.get("copy")
    return {
        "flops": flops, "bytes": bytes_, "of_peak_flops": flops / seconds / peak if peak else None,
        "of_peak_bytes": bytes_ / seconds / copy if copy else None,
    }  # fmt: skip


def visible_keys(visibility: Visibility) -> int:
    """Pairs of a query and a key that it sees."""
    rows = np.arange(visibility.rows)
    if visibility.keys is not None:
        return len(visibility.keys)
    if visibility.is_full:
        return int(rows.sum()) + len(rows)
    low = np.maximum(rows + 1 - visibility.window, 0)
    return int((np.minimum(visibility.first, low) + rows + 1 - low).sum())


def head_counts(sampler: AutoregressiveSampler) -> tuple[float, float]:
    """Of a state: flops of the head, and numbers it makes with those of the prior beside them, halved."""
    tokens, d = sampler.tokens, sampler.network.trunk.width
    if sampler.head.name == "spin":
        return 2.0 * HIDDEN * (d + tokens.k + INPUTS + 1) * tokens.n_spins, HIDDEN * tokens.n_spins
    outputs = sampler.head.n_outputs
    return 2.0 * d * outputs * (tokens.n_tokens - 1), outputs * tokens.n_tokens


def drawing_counts(sampler: AutoregressiveSampler, batch: int) -> tuple[float, float]:
    """Flops and bytes of a state, by the formulas at the top."""
    trunk = sampler.network.trunk
    layers, d, rows, keys = len(trunk.blocks), trunk.width, trunk.visibility.rows, visible_keys(trunk.visibility)
    b = 2 if trunk.precision == "bf16" else 4
    head, outputs = head_counts(sampler)
    flops = layers * (24.0 * d * d * rows + 4.0 * d * keys) + head
    weights = 12.0 * layers * d * d * rows * b / batch
    return flops, layers * (2.0 * d * keys * b + 34.0 * d * rows * b) + weights + 16.0 * outputs


def training_counts(sampler: AutoregressiveSampler) -> tuple[float, float]:
    """Flops and bytes of the forward and backward pass of a state."""
    trunk = sampler.network.trunk
    b = 2 if trunk.precision == "bf16" else 4
    flops, _ = drawing_counts(sampler, 1)
    return 3.0 * flops, 80.0 * len(trunk.blocks) * trunk.width * trunk.visibility.rows * b + 20.0 * (
        head_counts(sampler)[1]
    )
