"""Everything that wants a GPU, in one call of less than ten minutes and one JSON file.

    python benchmarks/gpu.py                         on CUDA; benchmarks/results/gpu.json
    python benchmarks/gpu.py --device cpu --small    the same script with tiny sizes; writes only with --out

Sections: the machine and its measured peaks; agreement with the CPU; samples and training steps a second; what
caches, bf16, kernels, graphs and compilation are worth, and a plain PyTorch version; training steps of 4,096 spins;
P(q) of a three-dimensional glass at L = 10; the ESS that large Ising tori reach in the time left.

Each section has a share of the time, and hands on what it leaves. The file is written after every row, so that a
run cut off keeps what it has. What fails is in the file with its error; the exit code is then 1. Times are seconds
between synchronisations on CUDA, and seconds of one thread on a CPU.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_common import OUT_OF_TIME, Bench, Job, first_line
from gpu_hardware import agreement, hardware
from gpu_physics import overlaps, reached, start_tempering
from gpu_rows import large_steps, throughput
from gpu_speed import speed_ups

RESULTS = Path(__file__).parent / "results" / "gpu.json"
OVERLAPS = "P(q) of ea3d"
TEMPERING = 0.45  # of the time, on a core of its own while the GPU does other sections
GRACE = 45.0  # seconds behind --minutes, after which the run ends whatever it is doing
SECTIONS: dict[str, tuple[float, Callable[[Bench], dict[str, Job]]]] = {  # share of the time, jobs
    "hardware": (0.02, hardware),
    "agreement": (0.06, agreement),
    "throughput": (0.24, throughput),
    "speed-ups": (0.20, speed_ups),
    "4,096-spin steps": (0.10, large_steps),
    OVERLAPS: (0.16, overlaps),
    "ESS reached": (0.22, reached),
}


@dataclass
class Report:
    """Figures so far and what failed, written to `out` (None: nowhere) after every change."""

    out: Path | None
    figures: dict[str, Any] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, section: str, row: str, found: Any) -> None:
        with self._lock:
            self.figures.setdefault(section, {})[row] = found
        self.write()

    def fail(self, section: str, row: str, error: str) -> None:
        self.failed.append(f"{section} / {row}")
        self.add(section, row, {"error": error})

    def write(self) -> None:
        if self.out is None:
            return
        with self._lock:
            text = json.dumps(plain_numbers(self.figures | {"failed": self.failed}), indent=1)
            self.out.parent.mkdir(parents=True, exist_ok=True)
            part = self.out.with_suffix(".part")
            part.write_text(text + "\n")
            part.replace(self.out)


def plain_numbers(value: Any) -> Any:
    """As JSON has it: numpy numbers as Python's, what is not finite as null."""
    if isinstance(value, dict):
        return {str(key): plain_numbers(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain_numbers(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def run(bench: Bench, report: Report, sections: list[str], seconds: float) -> None:
    """All jobs of the sections, each in its share of what is left of the time."""
    end = time.monotonic() + seconds
    shares = {name: SECTIONS[name][0] for name in sections}
    for number, name in enumerate(sections):
        now = time.monotonic()
        own = (end - now) * shares[name] / sum(shares[later] for later in sections[number:])
        try:
            jobs = SECTIONS[name][1](bench)
        except Exception as error:
            traceback.print_exc()
            report.fail(name, "all", first_line(error))
            continue
        for place, (row, job) in enumerate(jobs.items()):
            left = now + own - time.monotonic()
            if left <= 0.0:
                report.add(name, row, OUT_OF_TIME)
                print(f"{name} / {row}: {OUT_OF_TIME}", flush=True)
                continue
            attempt(bench, report, name, row, job, left / (len(jobs) - place))
        report.add(name, "seconds", time.monotonic() - now)


def attempt(bench: Bench, report: Report, section: str, row: str, job: Job, seconds: float) -> None:
    """One job; its figures or its error into the report."""
    began = time.monotonic()
    try:
        found = job(seconds)
    except Exception as error:
        traceback.print_exc()
        report.fail(section, row, first_line(error))
        print(f"{section} / {row}: FAILED, {first_line(error)}", flush=True)
    else:
        report.add(section, row, found)
        print(f"{section} / {row} ({time.monotonic() - began:.1f} s): {line(found)}", flush=True)
    if bench.cuda:
        torch.compiler.reset()  # what was compiled for one row counts as a recompilation of the next
    bench.release()


def line(found: Any) -> str:
    """Figures in a line."""
    if isinstance(found, dict):
        return ", ".join(f"{key} {line(value)}" for key, value in found.items() if key not in ("history", "betas"))
    return f"{found:.4g}" if isinstance(found, float) else str(found)


def cut_off(report: Report) -> None:
    """The end of the time, whatever is still running."""
    report.failed.append("cut off: out of time")
    report.write()
    print("cut off: out of time; what was measured so far is kept", file=sys.stderr, flush=True)
    for process in multiprocessing.active_children():  # which would keep the output open
        process.kill()
    os._exit(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny sizes, for a check")
    parser.add_argument("--minutes", type=float, default=9.0, help="wall time for everything, below 9.2")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="some of them only")
    parser.add_argument("--out", type=Path, help=f"JSON file; default {RESULTS.name} in results, none with --small")
    options = parser.parse_args()
    if not 0.0 < options.minutes <= 9.2:
        parser.error(f"--minutes {options.minutes:g}: more than 0 and at most 9.2 is needed")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no CUDA device; use --device cpu --small for a check of the script")
    if options.device == "cpu":
        torch.set_num_threads(1)
    bench = Bench(torch.device(options.device), options.small)
    report = Report(options.out or (None if options.small else RESULTS))
    watch = threading.Timer(60.0 * options.minutes + GRACE, cut_off, [report])
    watch.daemon = True
    watch.start()
    report.add("about", "call", {"device": options.device, "small": options.small, "minutes": options.minutes})
    if OVERLAPS in options.sections:
        start_tempering(bench, 8.0 if options.small else TEMPERING * 60.0 * options.minutes)
    run(bench, report, [name for name in SECTIONS if name in options.sections], 60.0 * options.minutes)
    watch.cancel()
    if report.failed:
        raise SystemExit(f"failed: {', '.join(report.failed)}")


if __name__ == "__main__":
    main()
