"""`nmcmc run`: from words to a chain file with results. Everything is checked before anything is written."""

from __future__ import annotations

import contextlib
import math
import shlex
import time
from typing import Any

from cli import classical, vector_run
from cli.arguments import Target, default_out
from cli.errors import UserError
from cli.live import Live
from cli.options import Options
from cli.output import Screen, Stopper
from cli.results import as_json, judged, opened, store
from cli.run_file import POPULATIONS, chain_there, open_writer, spins_every
from cli.settings import CLASSICAL, CLUSTER, COOLED, LEARNING, MEAN_FIELD, NEURAL, acting
from cli.settings import idle as idle_settings
from cli.tables import diagnostics, short_table, table, verdict
from cli.work import Run
from mc.chain import ChainError, ChainWriter
from mc.record import record
from mc.simulate import Driver
from mc.vector.hamiltonian import VectorHamiltonian

MOST_BETAS_IN_FULL = 4  # beyond, the table has one line a beta
BROKEN_TRIPS = "a replica that takes a neural move begins its round trip anew: trips say little here, tau_int does"


def run(command: str, target: Target, mode: str, given: dict[str, Any], options: Options, began: float) -> int:
    """Do a run; returns the exit code. UserError for what cannot be done, before anything is written."""
    vector = isinstance(target.hamiltonian, VectorHamiltonian)
    settings = acting(mode, given, vector)
    if mode == COOLED:
        from cli import anneal_run

        target, settings["anneal.betas"] = anneal_run.cooled(target, given, settings)
    offers = "neural" in settings
    idle = idle_settings(mode, given, vector) + options.idle(mode, offers)
    options = options.resolved(mode, settings.get("move"), offers)
    out = options.out or default_out(target, mode)
    there = chain_there(out)
    if there is not None and "merged_from" in there.attributes and not options.restart:
        why = "was merged from several runs and cannot go on"
        raise UserError(f"{out} {why}; use another --out, or extend those runs and merge again")
    every = spins_every(target, settings, options, there)
    screen = Screen(options.quiet)
    work = Run(command, target, mode, given, settings, options, screen, out, every, began, there=there)
    driver = check_before_work(work)
    options = work.options
    deadline = began + options.time_limit if options.time_limit else math.inf
    with Stopper(deadline) as stop, contextlib.closing(open_writer(work, driver)) as writer:
        announce(work, writer, idle)
        if mode == MEAN_FIELD:
            from cli import mean_field_run

            mean_field_run.solve_all(work, writer, stop)
        elif driver is None and must_prepare(work, writer):
            from cli import neural_run

            driver = neural_run.prepare(work, writer, stop)
        elif offers and must_prepare(work, writer):
            from cli import neural_tempering

            driver = neural_tempering.prepare(work, driver, writer, stop)
        count_costs(work, writer)
        if driver is not None and writer.committed_draws < options.draws:
            sample(work, driver, writer, stop)
        if mode == COOLED:
            anneal_run.found(work, writer)
        return finish(work, writer, stop)


def check_before_work(work: Run) -> Driver | None:
    """Refuse what cannot be done; returns the driver, or None for a neural mode, whose samplers come first."""
    if work.settings.get("move") == "block":
        from cli.block_run import block_driver

        return block_driver(work)
    if work.mode in NEURAL:
        from cli import neural_run

        neural_run.check_before_work(work)
        return None
    if work.mode == MEAN_FIELD:
        from cli import mean_field_run

        mean_field_run.check_before_work(work)
        return None
    if work.mode == "sequential":
        from cli.sequential_run import sequential_driver

        return sequential_driver(work)
    offers = work.given.get("neural", "off") != "off" and work.mode == "pt"
    if work.options.device == "cuda" and not offers:
        raise UserError(f"--device cuda: mode {work.mode} runs on the CPU; leave --device out")
    try:
        driver = classical.classical_driver(work)
        work.options = work.options.settled(work.mode, driver.engine.kernel)
        driver.thin = work.options.thin
    except ValueError as error:
        raise UserError(str(error).replace("rule=", "mode ").replace("betas=", "beta=")) from None
    if offers:
        from cli import neural_tempering

        neural_tempering.check_before_work(work, driver)
    return driver


def announce(work: Run, writer: ChainWriter, idle: list[str]) -> None:
    """Where it writes, what has no effect, and where a run goes on."""
    screen, draws, there = work.screen, work.options.draws, writer.committed_draws
    work.say_out()
    for name in idle:
        screen.say(f"note: {name} has no effect in mode {work.mode}")
    if writer.warning:
        screen.warn(writer.warning)
    if draws and there >= draws:
        screen.say(f"complete: {there} draws a chain are there; more with a larger --draws")
    elif there:
        screen.say(f"going on from draw {there}")


def count_costs(work: Run, writer: ChainWriter) -> None:
    """What came before the draws into the file; a training that was found again is counted once."""
    before, now = writer.seconds, work.seconds
    writer.set_seconds(build=before["build"] + now["build"], train=max(before["train"], now["train"]))


def must_prepare(work: Run, writer: ChainWriter) -> bool:
    """Whether samplers are needed: for draws, for training, or to be judged."""
    return work.mode in LEARNING or work.options.check or writer.committed_draws < work.options.draws


def sample(work: Run, driver: Driver, writer: ChainWriter, stop: Stopper) -> None:
    """Draw until the chain is as long as asked, or stopped."""
    options, screen = work.options, work.screen
    is_classical = work.mode in CLASSICAL
    if is_classical:
        for line in classical.describe(driver) + vector_run.describe(work):
            screen.say(line)
    if (is_classical and work.mode not in POPULATIONS) or work.settings.get("local"):
        compile_driver(driver)
    warmup = len(driver.betas) if work.mode in POPULATIONS else options.warmup
    clock = time.process_time()
    try:
        if work.settings.get("ladder") == "tuned" and not writer.committed_draws:
            record(driver, writer, 0, warmup, stop=stop, warn=screen.warn)  # the betas are known after the warm-up
            writer.set_betas(driver.betas)
        hamiltonian = work.target.hamiltonian
        live = Live(hamiltonian.n_spins, writer.betas, hamiltonian.energy_unit, work.mode in CLUSTER)
        with screen.progress("sampling", options.draws, writer.committed_draws) as update:
            record(driver, writer, options.draws, warmup, stop=stop, warn=screen.warn,
                   report=lambda drawn, block: update(drawn, live.note(block)))  # fmt: skip
    except (ChainError, FloatingPointError) as error:
        raise UserError(str(error), code=1) from None
    work.seconds["sample"] += time.process_time() - clock
    if is_classical:
        work.extra |= classical.found(driver)
        if "lowest_energy" in work.extra:
            work.lowest_state = driver.lowest.spins
        for line in classical.afterwards(driver) + [BROKEN_TRIPS] * ("neural" in work.settings):
            screen.say(line)


def compile_driver(driver: Driver) -> None:
    """One draw that is taken back: Numba compiles, which is not counted as work."""
    state = driver.state()
    thin = getattr(driver, "thin", None)
    if thin is not None:
        driver.thin = 1
    driver.block(1)
    driver.restore(state)
    if thin is not None:
        driver.thin = thin


def finish(work: Run, writer: ChainWriter, stop: Stopper) -> int:
    """Results into the file and onto the screen; how to go on when it is not complete."""
    options, screen = work.options, work.screen
    results = judged(opened(work.out), work.extra)
    stopped = work.mode in LEARNING and stop.interrupted
    if work.mode == MEAN_FIELD:
        stopped = "converged" not in results.diagnostics  # no draws that could be counted
    complete = writer.committed_draws >= options.draws and not stopped
    if work.lowest_state is not None:
        results.lowest_state = work.lowest_state
    if options.check and work.samplers and not stop.interrupted:
        from cli.neural_run import add_check

        add_check(work, results, stop)
    store(writer, results)
    try:
        writer.commit(complete=complete)
    except ChainError as error:
        raise UserError(str(error), code=1) from None
    work.seconds["wall"] = time.monotonic() - work.began
    if work.mode not in LEARNING:
        in_full = len(results.betas) <= MOST_BETAS_IN_FULL
        for line in (table(results) if in_full else short_table(results)) + verdict(results):
            screen.say(line)
    for line in diagnostics(results) + [costs(work.seconds), ending(work, writer, stop, complete)]:
        screen.say(line)
    if options.json:
        print(as_json(work.command, opened(work.out), results, work.seconds), flush=True)
    return 130 if stop.interrupted else 0


def costs(seconds: dict[str, float]) -> str:
    parts = ", ".join(f"{name} {value:.1f}" for name, value in seconds.items() if name != "wall")
    return f"seconds (CPU): {parts}; wall {seconds['wall']:.1f}"


def ending(work: Run, writer: ChainWriter, stop: Stopper, complete: bool) -> str:
    """Where the result is, or why it is not complete and how to go on."""
    out = shlex.quote(str(work.out))
    if not complete:
        why = "interrupted" if stop.interrupted else "the time limit came first"
        share = "the training is kept" if work.mode in LEARNING or (work.mode in NEURAL and not work.samplers) else ""
        share = "no solution is kept yet" if work.mode == MEAN_FIELD else share
        share = share or f"{writer.committed_draws} of {work.options.draws} draws are committed"
        return f"{why}: {share} in {out}; the same command again goes on"
    if work.mode not in LEARNING:
        return f"result: {out}; look at it with: nmcmc analyze {out}"
    from cli.neural_run import destination

    paths = " ".join(dict.fromkeys(shlex.quote(str(destination(work, beta))) for beta in work.target.betas))
    return f"result: {paths} (history in {out}); sample with: nmcmc run --mode nmcmc MODEL ... --checkpoint FILE"
