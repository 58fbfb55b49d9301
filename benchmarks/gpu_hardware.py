"""Sections 1 and 2 of `gpu.py`: what the hardware can do, and whether it computes what the CPU does."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from gpu_common import NEEDS_CUDA, NO_BF16, Bench, Job, shake

import mc
from mc.models.ising import critical_beta
from nmcmc.networks import attention, attention_cuda
from nmcmc.networks.trunk import PRECISIONS
from nmcmc.networks.visibility import make_visibility
from nmcmc.recipe import NetSettings, build_sampler, resolved, tokens_of
from nmcmc.sampler import AutoregressiveSampler

DRAWS = 64
TOLERANCE = {"float32": 2e-3, "bf16": 0.5}  # nats of ln q of a state, weights shaken by 0.1
OF_ATTENTION = {"float32": 1e-4, "bf16": 5e-2}  # outputs are averages of numbers of order one


def hardware(bench: Bench) -> dict[str, Job]:
    return {"machine": partial(machine, bench), "peaks": partial(peaks, bench)}


def machine(bench: Bench, seconds: float) -> dict:
    """Names and versions."""
    found = {
        "device": str(bench.device), "cpu": platform.machine(), "cores": os.cpu_count(),
        "threads": torch.get_num_threads(), "python": platform.python_version(), "torch": torch.__version__,
        "numpy": np.__version__, "cuda": torch.version.cuda,
        "flash_attn": attention_cuda.flash_function() is not None,
        "varlen_attn": attention_cuda.varlen_function() is not None,
    }  # fmt: skip
    if not bench.cuda:
        return found | {"name": "CPU", "gpu": NEEDS_CUDA}
    properties = torch.cuda.get_device_properties(bench.device)
    return found | {
        "name": properties.name, "memory_bytes": properties.total_memory, "driver": driver_version(),
        "capability": f"{properties.major}.{properties.minor}", "processors": properties.multi_processor_count,
        "bf16": torch.cuda.is_bf16_supported(including_emulation=False), "cudnn": torch.backends.cudnn.version(),
    }  # fmt: skip


def driver_version() -> str:
    """Of the GPU's driver, as far as the system tells."""
    words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=20).stdout.split("\n")[0]
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def peaks(bench: Bench, seconds: float) -> dict:
    """Flop/s of the product of two square matrices, 2 n^3 flops, and bytes/s of a copy, read and written."""
    n, numbers, calls = (256, 2**20, 3) if bench.small or not bench.cuda else (8192, 2**28, 20)
    found: dict = {"matrix": n, "copied_bytes": 4 * numbers}
    kinds = {"float32": torch.float32, "bf16": torch.bfloat16}
    usual = torch.get_float32_matmul_precision()
    try:
        for name, tf32 in (("float32", False), ("tf32", True), ("bf16", False)):
            if name == "tf32" and not bench.cuda:
                found["tf32_flops"] = NEEDS_CUDA
                continue
            torch.set_float32_matmul_precision("high" if tf32 else "highest")
            a = torch.randn(n, n, device=bench.device).to(kinds.get(name, torch.float32))
            out = torch.empty_like(a)
            rate = 2.0 * n**3 / bench.on_stream(partial(torch.mm, a, a, out=out), calls)
            found[f"{name}_flops"] = bench.known[name] = rate
    finally:
        torch.set_float32_matmul_precision(usual)
    source = torch.ones(numbers, device=bench.device)
    target = torch.empty_like(source)
    bench.known["copy"] = 8.0 * numbers / bench.on_stream(partial(target.copy_, source), calls)
    return found | {"copy_bytes_a_second": bench.known["copy"]}


@dataclass(frozen=True)
class Small:
    """A sampler small enough to compare number by number."""

    hamiltonian: mc.Hamiltonian
    beta: float
    net: NetSettings

    def on(self, device: torch.device, **changes) -> AutoregressiveSampler:
        """With shaken weights that are the same everywhere."""
        sampler = build_sampler(self.hamiltonian, self.beta, replace(self.net, **changes), seed=1)
        shake(sampler.network, 0.02 if self.net.net == "linear" else 0.1)
        return sampler.to(device)


def small_samplers() -> dict[str, Small]:
    torus, wide = mc.models.ising(L=8), mc.models.ising(L=12)
    cube, square = mc.models.ea3d(L=4, seed=1), mc.models.ea2d(L=6, seed=1)
    tree = NetSettings(patch=(2, 4), prior="lookahead", head="tree", layers=2)
    softmax = NetSettings(patch=(3, 4), prior="local", head="softmax", zero_head=False)
    spin = NetSettings(patch=(2, 2, 2), prior="belief", head="spin", layers=2)
    return {
        "tree 2x4, lookahead": Small(torus, critical_beta(torus), tree),
        "softmax 3x4, local": Small(wide, critical_beta(wide), softmax),
        "spin head 2x2x2, belief": Small(cube, 0.9, spin),
        "linear, belief": Small(square, 0.9, NetSettings(prior="belief", net="linear", window=2)),
    }


def agreement(bench: Bench) -> dict[str, Job]:
    samplers = small_samplers()
    jobs: dict[str, Job] = {name: partial(agrees, bench, small) for name, small in samplers.items()}
    torus = samplers["tree 2x4, lookahead"]
    sites = replace(torus, net=replace(torus.net, patch=(1, 1), prior="local"))
    for backend in attention.BACKENDS:
        if backend != "reference":
            jobs[f"backend {backend}"] = partial(backend_agrees, bench, sites, backend)
    return jobs


def agrees(bench: Bench, small: Small, seconds: float) -> dict:
    """Largest differences of ln q (nats a state): CPU and device on the same states, drawn and scored anew there."""
    of_cpu = small.on(torch.device("cpu"))
    found: dict = {}
    for precision in ("float32", "bf16") if small.net.net == "transformer" else ("float32",):
        if precision == "bf16" and not bench.has_bf16:
            found[precision] = NO_BF16
            continue
        sampler = small.on(bench.device, precision=precision)
        spins, log_q = sampler.sample(DRAWS, bench.generator())
        again, there = sampler.log_prob(spins), of_cpu.log_prob(spins)
        difference = {"cpu_and_device": np.abs(again - there).max(), "drawn_and_scored": np.abs(log_q - again).max()}
        good = bool(max(difference.values()) <= TOLERANCE[precision])
        found[precision] = {name: float(value) for name, value in difference.items()} | {"agrees": good}
        if precision == "bf16":
            bench.known["bf16 agrees"] = bench.known.get("bf16 agrees", True) and good
        elif not good:
            raise ArithmeticError(f"float32 differs by {difference}, more than {TOLERANCE[precision]} nats")
    return found | {"draws": DRAWS, "n_spins": small.hamiltonian.n_spins}


@torch.no_grad()
def backend_agrees(bench: Bench, small: Small, backend: str, seconds: float) -> dict | str:
    """A backend against the plain reference for every mask: largest difference of a token's output, and of ln q."""
    precision = "bf16" if backend in ("varlen", "flash") else "float32"
    found = {}
    for mask in ("full", "window:20", "boundary"):
        net = resolved(small.hamiltonian, replace(small.net, mask=mask))
        visibility = make_visibility(mask, small.hamiltonian, tokens_of(small.hamiltonian, net))
        head = net.width // net.heads
        if backend in attention.ON_CUDA:
            refusal = attention_cuda.refusal(backend, bench.device, PRECISIONS[precision], visibility, head)
            if refusal:
                found[mask] = f"not measured: {refusal}"
                continue
        shape = (DRAWS, net.heads, visibility.rows, head)
        q, k, v = (torch.randn(shape, generator=bench.generator(i)).to(bench.device, PRECISIONS[precision])
                   for i in range(3))  # fmt: skip
        outputs = [attention.attend(q, k, v, visibility, name).float() for name in (backend, "reference")]
        by_token = (outputs[0] - outputs[1]).abs().amax((0, 1, 3))
        states = small.on(bench.device, mask=mask, backend="reference").sample(DRAWS, bench.generator())[0]
        log_q = [small.on(bench.device, mask=mask, backend=name, precision=precision).log_prob(states)
                 for name in (backend, "reference")]  # fmt: skip
        worst = float(by_token.max())
        apart = float(np.abs(log_q[0] - log_q[1]).max())
        found[mask] = {"precision": precision, "of_a_token": worst, "token": int(by_token.argmax()) + 1,
                       "log_q": apart}  # fmt: skip
        if worst > OF_ATTENTION[precision] or apart > TOLERANCE[precision]:
            raise ArithmeticError(f"net.backend={backend}, net.mask={mask} differs from the reference: {found[mask]}")
    return found
