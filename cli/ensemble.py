"""`nmcmc run ... instances=0:1000`: disorder samples side by side, each an ordinary run of its own chain file.

An instance is a value of the model's seed=. Its random numbers come from a seed of its own, which depends on
--rng-seed and its number alone (`cli.instances.seed_of`), so neither the number of processes nor what else was asked
for changes a bit of it. The files lie in OUT.parts until all are complete, and are joined in OUT then; `{instance}`
in --out leaves one file each. The same command again goes on; with more instances or more draws it extends.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cli import ensemble_store
from cli.ensemble_results import as_json, lines_of
from cli.ensemble_store import Store
from cli.instances import KEY, LEFT_OPEN, PLACE, Asked, parse_asked, seed_of
from cli.options import Options
from cli.output import Screen, Stopper
from cli.run import check_before_work
from cli.settings import CLASSICAL, of_ensemble
from cli.work import Run
from cli.workers import do_jobs
from mc.ensemble import spelled
from mc.vector.hamiltonian import VectorHamiltonian

REHEARSED = ("metropolis", "heatbath", "wolff", "swendsen-wang", "pt")  # modes whose first draw compiles and is cheap


def run_ensemble(command: str, words: Sequence[str], mode: str, options: Options, began: float) -> int:
    """Do all instances; returns the exit code. UserError for what cannot be done, before anything is written."""
    asked = parse_asked(command, words, mode, options, began)
    if mode in CLASSICAL:
        asked.settle(check(asked))
    screen = Screen(options.quiet)
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(ensemble_store.opened(asked))
        if mode not in CLASSICAL and not store.begun:  # it may take a pilot
            check(asked)
        elsewhere = None
        if options.scheduler is not None and store.todo:
            from cli import scheduler

            elsewhere = stack.enter_context(scheduler.connected(options.scheduler, cores()))
        store.begin()
        if store.warning:
            screen.warn(store.warning)
        screen.say(f"out: {asked.out}")
        if store.todo:
            screen.say(announcement(asked, store))
        else:
            state = "complete" if store.whole else "complete, and to be joined"
            screen.say(f"{state}: {len(asked.numbers)} instances of {options.draws} draws a chain are there")
        deadline = began + options.time_limit if options.time_limit else math.inf
        with Stopper(deadline) as stop:
            outcome = work_through(asked, store, screen, stop, elsewhere)
    return finish(asked, store, screen, outcome)


def check(asked: Asked) -> Options:
    """Refuse what the mode cannot do with the model, with the first instance for all; the options as it has them."""
    vector = isinstance(asked.target.hamiltonian, VectorHamiltonian)
    settings = of_ensemble(asked.mode, asked.given, vector)
    options = asked.options.resolved(asked.mode, settings.get("move"))
    work = Run(asked.command, asked.target, asked.mode, asked.given, settings, options, Screen(quiet=True), asked.out,
               asked.spins_every, asked.began)  # fmt: skip
    check_before_work(work)
    return work.options


# --- the work ------------------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What came of it. failed: {instance: error}; seconds: CPU seconds of all processes."""

    failed: dict[int, str]
    seconds: dict[str, float]
    interrupted: bool = False


def work_through(asked: Asked, store: Store, screen: Screen, stop: Stopper, elsewhere) -> Outcome:
    """Hand out all that is to do and say what comes back; a complete instance is done with."""
    outcome = Outcome({}, {"build": 0.0, "train": 0.0, "sample": 0.0})
    deadline = None if math.isinf(stop.deadline) else time.time() + stop.deadline - time.monotonic()
    jobs = [job_of(asked, store, number, deadline) for number in store.todo]
    bar = sys.stderr.isatty()
    total, done = len(asked.numbers), len(asked.numbers) - len(store.missing)
    with screen.progress("instances", total, done) as update:
        for answer in answers_of(asked, jobs, stop, screen, elsewhere):
            number = answer["instance"]
            for name, value in answer["seconds"].items():
                outcome.seconds[name] = outcome.seconds.get(name, 0.0) + value
            if answer["error"] is not None:
                outcome.failed[number] = answer["error"]
                screen.warn(f"instance {number}: {answer['error']}")
            elif answer["complete"]:
                store.missing.discard(number)
                done = total - len(store.missing)
                if bar:
                    update(done)
                else:
                    r_hat = "-" if answer["r_hat"] is None else f"{answer['r_hat']:.4g}"
                    screen.say(f"instance {number}: {answer['draws']} draws, worst R-hat {r_hat} ({done} of {total})")
    outcome.interrupted = stop.interrupted
    return outcome


def answers_of(asked: Asked, jobs: list[dict], stop: Stopper, screen: Screen, elsewhere) -> Iterator[dict[str, Any]]:
    """Answers as they come, from the cores of this machine or a cluster."""
    if not jobs:
        return
    if elsewhere is not None:
        from cli import scheduler

        yield from scheduler.do_jobs(elsewhere, jobs, lambda: stop.interrupted, screen.warn)
        return
    workers = min(len(jobs), cores())
    rehearsal = asked.mode in REHEARSED and asked.given.get("move") != "block"
    answers = do_jobs(jobs, workers, max(1, cores() // workers), rehearsal, lambda: stop.interrupted, screen.warn)
    with contextlib.closing(answers):
        yield from answers


def job_of(asked: Asked, store: Store, number: int, deadline: float | None) -> dict[str, Any]:
    """What one process must know to do one instance, as JSON types (see `cli.instance`)."""
    words = [word for word in asked.words if not word.startswith("spins.every=")]
    words += [f"seed={number}", f"spins.every={asked.spins_every}"]
    path, extract = store.place_of(number)
    options = dataclasses.asdict(asked.options) | {
        "out": None, "json": False, "quiet": False, "time_limit": None, "scheduler": None,
        "rng_seed": seed_of(asked.options.rng_seed, number), "restart": asked.options.restart and asked.apart,
    }  # fmt: skip
    options |= {name: asked.config.get(name) for name in LEFT_OPEN if options[name] is None}
    argv = ["nmcmc", "run", "--mode", asked.mode, *words]
    for field in dataclasses.fields(Options):
        value = options[field.name]
        if value != field.default and field.name != "restart":
            flag = f"--{field.name.replace('_', '-')}"
            argv += [flag] if value is True else [flag, str(value)]
    return {"instance": number, "words": words, "mode": asked.mode, "command": asked.command, "argv": argv,
            "options": options, "path": str(path), "extract": extract, "deadline": deadline}  # fmt: skip


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# --- the end -------------------------------------------------------------------------------------------------------


def announcement(asked: Asked, store: Store) -> str:
    there = len(asked.numbers) - len(store.missing)
    done = f", {there} of them there" if there else ""
    where = f"a Dask cluster ({asked.options.scheduler})" if asked.options.scheduler else (
        f"{min(len(store.todo), cores())} processes")  # fmt: skip
    return f"{KEY}: {spelled(asked.numbers)} ({len(asked.numbers)}{done}) by {where}"


def finish(asked: Asked, store: Store, screen: Screen, outcome: Outcome) -> int:
    """One file of all when all are there; results on the screen, or why not and how to go on."""
    complete = not store.missing
    if complete:
        store.join()
    outcome.seconds["wall"] = time.monotonic() - asked.began
    summary = None if outcome.interrupted and not complete else store.summary()
    if summary is not None and len(summary.instances):
        for line in lines_of(summary):
            screen.say(line)
    spent = ", ".join(f"{name} {value:.1f}" for name, value in outcome.seconds.items() if name != "wall")
    screen.say(f"seconds (CPU): {spent}; wall {outcome.seconds['wall']:.1f}")
    screen.say(ending(asked, store, outcome))
    if asked.options.json:
        about = (asked.command, str(asked.out), asked.config)
        print(as_json(*about, summary, complete, outcome.seconds, outcome.failed), flush=True)
    return 130 if outcome.interrupted else 1 if outcome.failed else 0


def ending(asked: Asked, store: Store, outcome: Outcome) -> str:
    """Where the result is, or why it is not complete and how to go on."""
    out = shlex.quote(str(asked.out))
    if not store.missing:
        files = shlex.quote(str(asked.out).replace(PLACE, str(asked.numbers[0])))
        look = f"look at it with: nmcmc analyze {out}" if not asked.apart else f"the first is {files}"
        return f"result: {out}; {look}"
    there = (
        f"{len(asked.numbers) - len(store.missing)} of {len(asked.numbers)} instances are complete in {store.where}"
    )
    why = "interrupted" if outcome.interrupted else "the time limit came first"
    if outcome.failed and not outcome.interrupted:
        why = f"{len(outcome.failed)} instances failed ({spelled(outcome.failed)})"
    return f"{why}: {there}; the same command again goes on"
