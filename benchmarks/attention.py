"""Time and memory of attention under full, window and boundary masks, and what a cache is worth.

    python benchmarks/attention.py --out benchmarks/results/attention.json
    python benchmarks/attention.py --small --device cuda

Single-site tokens on open lattices in raster order, where the boundary is the last L (L^2) sites, so that
net.mask=boundary and window:L (window:L^2) let through the same. Times are seconds of one thread's CPU time, the
least of several runs taken in turn, or of the wall clock between synchronisations on CUDA. Memory of a pass is what
the peak of a process of its own rises by; of drawing, the bytes of keys and values.

"baseline" is attention written out: scores of all pairs, a mask, a softmax; "masked sdpa" is torch's attention with
the mask of all pairs.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import platform
import subprocess
import sys
import time
from pathlib import Path

import torch

import mc
from nmcmc.networks.attention import attend
from nmcmc.networks.positions import Positions
from nmcmc.networks.trunk import Trunk, reset
from nmcmc.networks.visibility import make_visibility
from nmcmc.tokens import tokens_for

WIDTH, LAYERS, HEADS = 64, 2, 4
SYSTEMS = {"32x32": (32, 2), "64x64": (64, 2), "16x16x16": (16, 3)}
SMALL = {"8x8": (8, 2), "16x16": (16, 2), "6x6x6": (6, 3)}


def rows_of(L: int, dimension: int) -> dict[str, tuple[str, str]]:
    """Masks and backends that are compared: {row: (mask, backend)}."""
    window = f"window:{L ** (dimension - 1)}"
    return {
        "full": ("full", "auto"), "window": (window, "blocks"), "boundary": ("boundary", "blocks"),
        "window, masked sdpa": (window, "sdpa"), "full, baseline": ("full", "reference"),
    }  # fmt: skip


def trunk_of(L: int, dimension: int, mask: str, backend: str, device: str) -> Trunk:
    """A trunk of random weights over single sites of an open lattice."""
    hamiltonian = mc.models.ising(L=L, dim=dimension, boundary="open")
    tokens = tokens_for(hamiltonian, (1,) * dimension)
    positions = Positions("additive", tokens.n_tokens, width=WIDTH, heads=HEADS, tokens=tokens)
    visibility = make_visibility(mask, hamiltonian, tokens)
    trunk = Trunk(
        tokens.n_tokens, width=WIDTH, layers=LAYERS, heads=HEADS, visibility=visibility, positions=positions,
        backend=backend,
    )  # fmt: skip
    reset(trunk, torch.Generator().manual_seed(0))
    return trunk.to(device)


def content_of(trunk: Trunk, batch: int) -> torch.Tensor:
    shape = (batch, trunk.n_tokens - 1, trunk.content_width)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(trunk.device)


def clock(device: str) -> float:
    """CPU seconds of this process; on CUDA wall seconds after all work is done."""
    if device == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def least_times(jobs: dict, repeats: int, device: str) -> dict[str, float]:
    """Seconds of each job, the least of `repeats` taken in turn."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(repeats):
        for name, job in jobs.items():
            began = clock(device)
            job()
            times[name].append(clock(device) - began)
    return {name: min(taken) for name, taken in times.items()}


def pass_job(trunk: Trunk, batch: int):
    """Forward and backward of the whole trunk."""
    content = content_of(trunk, batch)

    def job() -> None:
        trunk.zero_grad(set_to_none=True)
        trunk(content).square().sum().backward()

    return job


def attention_job(trunk: Trunk, batch: int):
    """Forward and backward of attention alone, one layer."""
    shape = (batch, HEADS, trunk.n_tokens - 1, WIDTH // HEADS)
    generator = torch.Generator().manual_seed(2)
    q, k, v = (torch.randn(shape, generator=generator).to(trunk.device).requires_grad_() for _ in range(3))
    backend, _ = trunk.choice()

    def job() -> None:
        attend(q, k, v, trunk.visibility, backend).square().sum().backward()

    return job


def draw_job(trunk: Trunk, batch: int):
    """All steps of a configuration with the cache."""
    content = content_of(trunk, batch).transpose(0, 1).contiguous()

    @torch.no_grad()
    def job() -> None:
        cache = trunk.start(batch)
        for j in range(1, trunk.n_tokens):
            trunk.step(cache, content[j - 1], j)

    return job


def cache_bytes(trunk: Trunk, batch: int) -> int:
    return sum(x.numel() * x.element_size() for pair in trunk.start(batch).layers for x in pair)


def peak_of_pass(system: tuple[int, int], mask: str, backend: str, batch: int, device: str) -> int:
    """Bytes that the peak memory rises by in a forward and backward pass, in a process of its own."""
    asked = json.dumps([*system, mask, backend, batch, device])
    words = [sys.executable, __file__, "--child", asked]
    return int(subprocess.run(words, capture_output=True, text=True, check=True, timeout=300).stdout)


def child(L: int, dimension: int, mask: str, backend: str, batch: int, device: str) -> None:
    job = pass_job(trunk_of(L, dimension, mask, backend, device), batch)
    if device == "cuda":
        job()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        job()
        print(torch.cuda.max_memory_allocated() - before)
        return
    pass_job(trunk_of(4, 2, "full", "sdpa", device), 1)()  # libraries allocate for themselves
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # Linux: what is free goes back, and the peak begins anew
    Path("/proc/self/clear_refs").write_text("5")
    before = kilobytes("VmRSS")
    job()
    print(1024 * (kilobytes("VmHWM") - before))


def kilobytes(name: str) -> int:
    """An entry of /proc/self/status."""
    return next(int(line.split()[1]) for line in Path("/proc/self/status").open() if line.startswith(name))


def passes_and_drawing(systems: dict, batch: int, draws: int, repeats: int, device: str) -> dict:
    """Masks at every system: seconds and memory of a pass, and of drawing."""
    found = {}
    for name, system in systems.items():
        rows = rows_of(*system)
        trunks = {row: trunk_of(*system, *asked, device) for row, asked in rows.items()}
        passes = least_times({row: pass_job(trunk, batch) for row, trunk in trunks.items()}, repeats, device)
        alone = least_times({row: attention_job(trunk, batch) for row, trunk in trunks.items()}, repeats, device)
        drawn = ("full", "window", "boundary")
        drawing = least_times({row: draw_job(trunks[row], draws) for row in drawn}, 1, device)
        found[name] = {}
        for row, asked in rows.items():
            entry = {
                "mask": asked[0], "backend": trunks[row].choice()[0], "pass_seconds": passes[row],
                "attention_seconds": alone[row], "pass_peak_bytes": peak_of_pass(system, *asked, batch, device),
            }  # fmt: skip
            if row in drawn:
                entry |= {"draw_seconds": drawing[row], "cache_bytes": cache_bytes(trunks[row], draws)}
            found[name][row] = entry
            drew = ""
            if row in drawn:
                drew = f"; drawing {draws}: {drawing[row]:.2f} s, {entry['cache_bytes'] / 1e6:.1f} MB"
            print(
                f"{name:9} {row:20} forward+backward {passes[row]:.3f} s, {entry['pass_peak_bytes'] / 1e6:.1f} MB, "
                f"attention alone {alone[row]:.3f} s{drew}", flush=True
            )  # fmt: skip
    return found


def growth(sizes: tuple[int, ...], draws: int, device: str) -> dict:
    """Seconds of drawing on open squares, those of steps without a past, and what a visible key costs besides."""
    found: dict = {}
    for L in sizes:
        trunks = {mask: trunk_of(L, 2, mask, "auto", device) for mask in ("window:1", "boundary", "full")}
        seconds = least_times({mask: draw_job(trunk, draws) for mask, trunk in trunks.items()}, 1 + (L < 64), device)
        n_spins = L * L
        keys = {"boundary": n_spins * L, "full": n_spins**2 / 2}
        a_key = {mask: 1e9 * (seconds[mask] - seconds["window:1"]) / (draws * n) for mask, n in keys.items()}
        memory = {mask: cache_bytes(trunk, draws) for mask, trunk in trunks.items()}
        found[f"L={L}"] = {"seconds": seconds, "cache_bytes": memory, "nanoseconds_a_state_and_key": a_key}
        print(
            f"L={L:3} drawing {draws}: no past {seconds['window:1']:.3f} s, boundary {seconds['boundary']:.3f} s, "
            f"full {seconds['full']:.3f} s; ns a state and visible key: boundary {a_key['boundary']:.1f}, "
            f"full {a_key['full']:.1f}", flush=True,
        )  # fmt: skip
    first, last = sizes[-2:]
    for mask in ("boundary", "full"):
        ratio = found[f"L={last}"]["seconds"][mask] / found[f"L={first}"]["seconds"][mask]
        found[f"exponent of N, {mask}"] = math.log(ratio) / math.log((last / first) ** 2)
        print(f"{mask}: seconds ~ N^{found[f'exponent of N, {mask}']:.2f} from L={first} to {last}", flush=True)
    return found


def cached_and_uncached(shape: tuple[int, int], draws: int, device: str) -> dict:
    """Drawing with a cache, and with a full pass over the whole past for every spin."""
    n_spins = shape[0] * shape[1]
    jobs, found = {}, {}
    for row, backend in (("uncached, sdpa", "sdpa"), ("uncached, baseline", "reference")):
        trunk = Trunk(n_spins, width=WIDTH, layers=LAYERS, heads=HEADS, backend=backend)
        reset(trunk, torch.Generator().manual_seed(0))
        jobs[row] = uncached_job(trunk.to(device), draws)
    jobs["cached"] = draw_job(trunk, draws)
    seconds = least_times(jobs, 1, device)
    seconds["cached"] = min(seconds["cached"], *least_times({"cached": jobs["cached"]}, 2, device).values())
    for row, taken in seconds.items():
        found[row] = {"seconds": taken, "ratio": taken / seconds["cached"]}
        print(f"N={n_spins} {row}: drawing {draws} {taken:.3f} s, {found[row]['ratio']:.1f} x cached", flush=True)
    return found


def uncached_job(trunk: Trunk, batch: int):
    """All steps of a configuration, each from its whole past."""
    content = content_of(trunk, batch)

    @torch.no_grad()
    def job() -> None:
        for j in range(1, trunk.n_tokens):
            trunk(content[:, :j])

    return job


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="small systems, for a quick look")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--batch", type=int, default=1, help="states of a forward and backward pass")
    parser.add_argument("--draws", type=int, default=16, help="states that are drawn at once")
    parser.add_argument("--out", type=Path, help="JSON file of all figures")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.child:
        child(*json.loads(args.child))
        return
    repeats = 2
    hardware = torch.cuda.get_device_name() if args.device == "cuda" else f"{platform.machine()} CPU, one thread"
    results = {
        "about": {"device": args.device, "hardware": hardware, "torch": torch.__version__, "batch": args.batch,
                  "draws": args.draws, "width": WIDTH, "layers": LAYERS, "heads": HEADS},
        "masks": passes_and_drawing(SMALL if args.small else SYSTEMS, args.batch, args.draws, repeats, args.device),
        "growth": growth((4, 8, 16) if args.small else (8, 16, 32, 64), args.draws, args.device),
        "cached": cached_and_uncached((8, 8) if args.small else (16, 32), max(args.draws // 2, 1), args.device),
    }  # fmt: skip
    if args.out:
        args.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
