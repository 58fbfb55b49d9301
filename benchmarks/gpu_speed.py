"""Section 4 of `gpu.py`: what caches, bf16, kernels, CUDA graphs and compilation are worth, and plain PyTorch."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from itertools import count

import numpy as np
import torch
from attention import draw_job, uncached_job
from gpu_common import NEEDS_CUDA, NO_BF16, OUT_OF_TIME, Bench, Job, first_line, shake, states_at_once
from gpu_rows import System, draw, glass, square
from plain import PlainReverseKL, PlainSampler, plain_step

import mc
from nmcmc.networks import attention, attention_cuda
from nmcmc.networks.trunk import PRECISIONS, Trunk, reset
from nmcmc.networks.visibility import make_visibility
from nmcmc.objectives import ReverseKL, SelfDistillation
from nmcmc.objectives.base import Batch, StepRandomness
from nmcmc.optimizers import make_optimizer
from nmcmc.recipe import NetSettings, tokens_of
from nmcmc.sampler import AutoregressiveSampler
from nmcmc.training import TrainSettings, training_step

HEADS, HEAD_WIDTH = 4, 32  # of attention alone


def speed_ups(bench: Bench) -> dict[str, Job]:
    jobs: dict[str, Job] = {
        "cached and uncached": partial(cached, bench), "CUDA graphs": partial(graphs, bench),
        "bf16 and float32": partial(precisions, bench), "plain PyTorch": partial(plain, bench),
    }  # fmt: skip
    sides = ((8, 64),) if bench.small else ((32, 1024), (64, 4096))
    for L, tokens in sides:
        for mask in ("window", "boundary", "full"):
            jobs[f"attention {tokens}, {mask}"] = partial(kernels, bench, L, mask)
    return jobs | {"torch.compile": partial(compiled, bench)}


def trunk_of(n_tokens: int, bench: Bench, precision: str | None = None) -> Trunk:
    """Two layers of width 128 over tokens that see all before them."""
    trunk = Trunk(n_tokens, width=HEADS * HEAD_WIDTH, layers=2, heads=HEADS, precision=precision or bench.precision)
    reset(trunk, bench.generator())
    return trunk.to(bench.device)


def cached(bench: Bench, seconds: float) -> dict:
    """Decoding with a cache, and with a pass over the whole past for every token."""
    n_tokens, states = (32, 2) if bench.small else (512, 128)
    trunk = trunk_of(n_tokens, bench)
    with_cache = bench.least(draw_job(trunk, states), seconds / 4)
    without = bench.least(uncached_job(trunk, states), seconds / 4, calls=2)
    return {"n_tokens": n_tokens, "states": states, "precision": trunk.precision, "cached_seconds": with_cache,
            "uncached_seconds": without, "ratio": without / with_cache}  # fmt: skip


def graphs(bench: Bench, seconds: float) -> dict:
    """Decoding by replays of one captured step, and the same step launched kernel by kernel."""
    n_tokens, states = (32, 2) if bench.small else (512, 256)
    trunk = trunk_of(n_tokens, bench)
    content = torch.randn(n_tokens - 1, states, trunk.content_width, generator=bench.generator()).to(bench.device)
    places = torch.arange(n_tokens, device=bench.device)[:, None]

    @torch.no_grad()
    def eager() -> None:
        cache = trunk.start(states)
        for j in range(1, n_tokens):
            trunk.step_fixed(cache, content[j - 1], places[j])

    found: dict = {"n_tokens": n_tokens, "states": states, "eager_seconds": bench.least(eager, seconds / 3)}
    if not bench.cuda:
        return found | {"replay_seconds": NEEDS_CUDA}
    replay = bench.least(draw_job(trunk, states), seconds / 3)
    return found | {"replay_seconds": replay, "ratio": found["eager_seconds"] / replay}


def fit_job(sampler: AutoregressiveSampler, bench: Bench, states: int) -> Callable[[], float]:
    """Forward and backward of the softened loss of given states."""
    spins, _ = draw(sampler, states, bench)
    objective = SelfDistillation(sampler)
    at_once = min(states, states_at_once(sampler, bench))

    def job() -> float:
        sampler.network.zero_grad(set_to_none=True)
        total = 0.0
        for part in spins.split(at_once):
            loss = objective.loss(Batch(part))
            loss.backward()
            total += loss.item()
        return total / states

    return job


def speed_system(bench: Bench) -> tuple[System, int]:
    """What precisions and compilation are compared on, and a batch."""
    return (glass(8, (2, 4)), 4) if bench.small else (glass(64, (2, 4)), 1024)


def precisions(bench: Bench, seconds: float) -> dict:
    """Drawing, and forward and backward, in both precisions."""
    system, states = speed_system(bench)
    found: dict = {"states": states}
    for precision in PRECISIONS:
        if precision == "bf16" and not (bench.cuda and bench.has_bf16):
            found[precision] = NO_BF16 if bench.cuda else NEEDS_CUDA
            continue
        sampler = system.sampler(bench, precision=precision)
        found[precision] = {
            "draw_seconds": bench.least(partial(draw, sampler, states, bench), seconds / 6, calls=2),
            "fit_seconds": bench.least(fit_job(sampler, bench, states), seconds / 6),
        }
    if isinstance(found["bf16"], dict):
        found["ratio"] = {name: found["float32"][name] / found["bf16"][name] for name in found["bf16"]}
    return found


def kernels(bench: Bench, L: int, mask: str, seconds: float) -> dict:
    """Forward and backward of attention alone, single sites of an open square, by every backend that can."""
    hamiltonian = mc.models.ising(L=L, boundary="open")
    tokens = tokens_of(hamiltonian, NetSettings(patch=(1, 1), prior="local"))
    visibility = make_visibility(f"window:{L}" if mask == "window" else mask, hamiltonian, tokens)
    states = 2 if bench.small else (32 if L < 64 else 4)
    found: dict = {"rows": visibility.rows, "states": states, "heads": HEADS, "head_width": HEAD_WIDTH}
    began = time.monotonic()
    for backend in ("reference", "sdpa", "blocks", "varlen", "flash", "flex"):  # the one that compiles comes last
        for precision in PRECISIONS:
            if precision == "bf16" and not (bench.cuda and bench.has_bf16):
                found[f"{backend}, bf16"] = NO_BF16 if bench.cuda else NEEDS_CUDA
                continue
            if (backend, precision) == ("flex", "float32") and bench.cuda:
                continue  # a minute more for a precision that nobody would choose there
            if time.monotonic() - began > seconds:
                found[f"{backend}, {precision}"] = OUT_OF_TIME
                continue
            found[f"{backend}, {precision}"] = kernel(bench, visibility, backend, precision, states, seconds / 12)
    return found


def kernel(bench: Bench, visibility, backend: str, precision: str, states: int, seconds: float) -> dict | str:
    """Seconds, and the most bytes beside queries, keys and values; or why there are none."""
    kind = PRECISIONS[precision]
    if backend in attention.ON_CUDA:
        refusal = attention_cuda.refusal(backend, bench.device, kind, visibility, HEAD_WIDTH)
        if refusal:
            return f"not measured: {refusal}"
    shape = (states, HEADS, visibility.rows, HEAD_WIDTH)
    q, k, v = (torch.randn(shape, generator=bench.generator(i)).to(bench.device, kind).requires_grad_()
               for i in range(3))  # fmt: skip

    def job() -> None:
        attention.attend(q, k, v, visibility, backend).float().square().sum().backward()

    bench.forget_peak()
    before = torch.cuda.memory_allocated(bench.device) if bench.cuda else 0
    try:
        first, _ = bench.timed(job)
        taken = bench.least(job, seconds)
    except torch.cuda.OutOfMemoryError as error:
        return f"not measured: {first_line(error)}"
    peak = bench.peak_bytes()
    return {"seconds": taken, "first_call_seconds": first, "peak_bytes": None if peak is None else peak - before}


def compiled(bench: Bench, seconds: float) -> dict:
    """Forward and backward with the trunk compiled by torch.compile; on a CPU traced only, to see that it can be."""
    system, states = speed_system(bench)
    sampler = system.sampler(bench)
    shake(sampler.network, 0.02)
    eager = fit_job(sampler, bench, states)
    found: dict = {"states": states, "eager_seconds": bench.least(eager, seconds / 6), "eager_loss": eager()}
    trunk = sampler.network.trunk
    trunk.forward = torch.compile(trunk.forward, backend="inductor" if bench.cuda else "eager")
    first, found["compiled_loss"] = bench.timed(eager)
    found["first_call_seconds"] = first
    apart = abs(found["compiled_loss"] - found["eager_loss"])
    if apart > 0.01 * max(1.0, abs(found["eager_loss"])):
        raise ArithmeticError(f"compiled and eager losses differ: {found}")
    if not bench.cuda:
        return found | {"compiled_seconds": NEEDS_CUDA}
    found["compiled_seconds"] = bench.least(eager, seconds / 6)
    return found | {"ratio": found["eager_seconds"] / found["compiled_seconds"]}


def plain(bench: Bench, seconds: float) -> dict:
    """Drawing and a step of reverse KL, ours and written plainly, with the same prior and sizes."""
    L, states = (8, 4) if bench.small else (32, 1024)
    system = square(L, (2, 4))
    found = {"ours": our_seconds(bench, system, states, seconds / 6),
             "plain": plain_seconds(bench, system, L, states, seconds / 6)}  # fmt: skip
    names = ("draw_seconds", "step_seconds")
    ratio = {name: found["plain"][name] / found["ours"][name] for name in names}
    return {"L": L, "states": states, "objective": "reverse-kl"} | found | {"ratio": ratio}


def our_seconds(bench: Bench, system: System, states: int, seconds: float) -> dict:
    sampler = system.sampler(bench)
    settings = TrainSettings(objective="reverse-kl", batch=states, microbatch=min(states, 256), learning_rate=1e-4)
    objective, optimizer, steps = ReverseKL(sampler), make_optimizer(sampler, settings), count()
    drawing = bench.least(partial(draw, sampler, states, bench), seconds)

    def step() -> None:
        training_step(sampler, objective, optimizer, settings, StepRandomness.of(0, next(steps)))

    precision = sampler.network.trunk.precision
    return {"precision": precision, "draw_seconds": drawing, "step_seconds": bench.least(step, seconds)}


def plain_seconds(bench: Bench, system: System, L: int, states: int, seconds: float) -> dict:
    """Its energies by matrix products, which suits a GPU best."""
    net = system.net
    sampler = PlainSampler(
        L, system.beta, net.patch, net.prior, width=net.width, layers=net.layers, heads=net.heads, matmul=True
    ).to(bench.device)
    objective, rng = PlainReverseKL(sampler, system.build()), np.random.default_rng(0)
    optimizer = torch.optim.AdamW(sampler.network.parameters(), lr=1e-4)
    with torch.device(bench.device):  # where it makes its tensors, as it names no device
        drawing = bench.least(partial(sampler.sample, states), seconds, calls=2)
        step = partial(plain_step, objective, optimizer, states, min(states, 256), 1.0, rng)
        return {"precision": "float32", "draw_seconds": drawing, "step_seconds": bench.least(step, seconds, calls=2)}
