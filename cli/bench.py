"""`nmcmc bench mc`: what the Monte Carlo kernels do in a nanosecond of CPU time, beside peapods and openjij.

Contenders run in turn in one process, with one thread; the best of several short runs counts, as other work on the
machine can only slow a run down. Where runs of equal length do unequal work (Wolff) it is the median. Peapods cannot
make a cluster move without a sweep, so its share is the time with minus the time without the move.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
import statistics
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numba

from cli.bench_rivals import RIVALS, arithmetic, draws, installed, sweeps, timed, with_threads
from cli.bench_rows import BETA_C, MEASURED, PLAIN, Row, all_rows, ising
from cli.errors import UserError, closest

SUITES = ("mc",)
SECONDS = 0.4  # of each contender
MUST_THREADS = 1.6
MOST_MEASURING = 0.1  # of a run with the default thin
MEASURING, THREADS = "measuring: ", "threads: 16 replicas"


def bench(suite: str, only: str | None = None, seconds: float = SECONDS, as_json: bool = False) -> None:
    """Run `nmcmc bench SUITE`: a table, and with as_json an object as the last line.

    only: run what has this word in its name. seconds: CPU time of each contender.
    Raises UserError for wrong words (code 2), and for a kernel that lost its speed (code 1).
    """
    if suite not in SUITES:
        raise UserError(f"unknown benchmark {suite}{closest(suite, SUITES)} (there is {', '.join(SUITES)})")
    if not (math.isfinite(seconds) and seconds > 0):
        raise UserError(f"--seconds {seconds:g}: a finite number above 0 is needed")
    rows, others = chosen(only)
    print(machine())
    about = 3 * seconds * (len(rows) + len(others))
    print(f"updates per ns of CPU time, one thread; about {about:.0f} s, and the time to compile", flush=True)
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        results = races(rows, seconds)
        shares = {name: measuring(name, seconds) for name in MEASURED if MEASURING + name in others}
        if THREADS in others:
            results.append(two_threads(seconds))
    finally:
        numba.set_num_threads(threads)
    if as_json:
        data = {"command": "bench", "suite": suite, "machine": machine(), "measuring": shares, "rows": results}
        print(json.dumps(data))
    lost = [row.name for row, result in zip(rows, results, strict=False) if row.rival == PLAIN and below(row, result)]
    if lost:
        raise UserError(f"lost vectorisation: {'; '.join(lost)}: below its bound", code=1)


def chosen(only: str | None) -> tuple[list[Row], list[str]]:
    """Races, and names of the other measurements, that contain a word; UserError when none does."""
    rows, others = all_rows(), [*(MEASURING + name for name in MEASURED), THREADS]
    word = (only or "").lower()
    named = [row for row in rows if word in row.name.lower()], [name for name in others if word in name.lower()]
    if not any(named):
        first = dict.fromkeys([row.kernel for row in rows] + [name.partition(":")[0] for name in others])
        where = f"names begin with one of {', '.join(first)}, then come the model and the rival"
        raise UserError(f"--only {only}: in the name of no row{closest(word, first)} ({where})")
    return named


def races(rows: list[Row], seconds: float) -> list[dict[str, Any]]:
    """Run races and print their table, line by line; the rows of --json."""
    results = []
    if rows:
        print(
            f"{'kernel':<11}{'model':<57}{'upd/ns':>8}  {'rival':<9}{'upd/ns':>8}{'ratio':>8}{'must':>6}{'close':>7}"
        )
    for row in rows:
        results.append(race(row, seconds))
        print(line(row, results[-1]), flush=True)
    missing = [rival for rival in RIVALS if any(row.rival == rival for row in rows) and not installed(rival)]
    if missing:
        packages = " ".join(f"{rival}=={RIVALS[rival]}" for rival in missing)
        print(f"not installed: {', '.join(missing)}; to compare: pip install {packages}")
    return results


def race(row: Row, seconds: float) -> dict[str, Any]:
    """A row of --json; rates are null for a rival that is not installed, or whose time is lost in the noise."""
    there = row.rival == PLAIN or installed(row.rival)
    own, *other = timed([row.ours(), *(row.theirs() if there else [])], seconds, pick=row.pick)
    rate, rival_rate, ratio = 1e-9 * own.updates / own.seconds, None, None
    spent = other[0].seconds - sum(without.seconds for without in other[1:]) if other else 0.0
    if spent > 0.0:
        rival_rate = 1e-9 * other[0].updates / spent
        ratio = rate / rival_rate
    return {
        "kernel": row.kernel,
        "model": row.model,
        "updates_per_ns": rate,
        "rival": row.rival if there else None,
        "rival_updates_per_ns": rival_rate,
        "ratio": ratio,
        "must": row.must,
    }


def below(row: Row, result: dict[str, Any]) -> bool:
    """Whether a ratio is known and is not what it must be."""
    return result["ratio"] is not None and row.must is not None and result["ratio"] < row.must


def line(row: Row, result: dict[str, Any]) -> str:
    """A line of the table."""

    def cell(value: float | None, width: int, form: str) -> str:
        return f"{'-' if value is None else format(value, form):>{width}}"

    ratio, rival_rate = result["ratio"], result["rival_updates_per_ns"]
    verdict = "  below" if below(row, result) else "  close" if ratio and row.close and ratio >= row.close else ""
    rates = f"{cell(result['updates_per_ns'], 8, '.3g')}  {row.rival:<9}{cell(rival_rate, 8, '.3g')}"
    return (
        f"{row.kernel:<11}{row.model:<57}{rates}"
        f"{cell(ratio, 8, '.3g')}{cell(row.must, 6, 'g')}{cell(row.close, 7, 'g')}{verdict}"
    )


def measuring(name: str, seconds: float) -> float:
    """The share of measuring draws and keeping their spins in a run with the default thin, which is printed."""
    kept, measured, without = (contender.seconds for contender in timed(draws(MEASURED[name]()), seconds))
    share, bare = 1.0 - without / kept, 1.0 - without / measured
    print(
        f"measuring: {name}: {share:.1%} of a run with the default thin, {bare:.1%} without keeping spins "
        f"(wanted: at most {MOST_MEASURING:.0%})",
        flush=True,
    )
    return share


def two_threads(seconds: float) -> dict[str, Any]:
    """The row of 16 independent replicas moved by two threads against one, by wall time."""
    run = sweeps(ising(64), BETA_C, 16, PLAIN)
    most = min(2, numba.config.NUMBA_NUM_THREADS)
    contenders = [with_threads(n, work) for work in (run, arithmetic) for n in (most, 1)]
    two, one, loop_two, loop_one = timed(contenders, seconds, time.perf_counter, 9, statistics.median)
    gain, of_loop = one.seconds / two.seconds, loop_one.seconds / loop_two.seconds
    measurable = max(gain, of_loop) >= MUST_THREADS
    wanted = f"must {MUST_THREADS:g}" if measurable else "unmeasurable, as the bare loop does not scale either"
    print(f"two threads: {gain:.2f} times one in wall time, 16 replicas; a bare loop {of_loop:.2f} times: {wanted}")
    return {
        "kernel": PLAIN,
        "model": "2D Ising beta_c, L=64, 16 replicas, two threads (wall time)",
        "updates_per_ns": 1e-9 * two.updates / two.seconds,
        "rival": "one thread",
        "rival_updates_per_ns": 1e-9 * one.updates / one.seconds,
        "ratio": gain,
        "must": MUST_THREADS if measurable else None,
    }


def machine() -> str:
    """The processor and the versions of what runs on it."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    processor = found.group(1) if found else platform.processor() or platform.machine()
    packages = [f"{name} {version(name)}" for name in ("nmcmc", "numba", "numpy", *RIVALS)]
    return f"{processor}, {os.cpu_count()} cores; Python {platform.python_version()}, {', '.join(packages)}"


def version(package: str) -> str:
    """Of an installed package."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "missing"
