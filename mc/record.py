"""The loop every sampler runs in: blocks of draws into a chain file, with their state, until enough or stopped."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator

import numpy as np

from mc.chain import ChainError, ChainWriter
from mc.simulate import Block, Driver

BLOCK_SECONDS = 0.5  # a block takes about this long: how soon Ctrl-C and time limits are heard
MAX_PENDING_BYTES = 256 << 20  # of draws in memory; more are committed at once
FIRST_COMMIT_SECONDS = 1.0  # commits come sooner at first, so that a run killed early has made progress
WARM_UP_PARTS = 10
GIVE_UP_SECONDS, RETRY_SECONDS = 600.0, 10.0  # how long draws wait for a disk that takes them


def record(
    driver: Driver,
    writer: ChainWriter,
    n_draws: int,
    warmup: int,
    *,
    stop: Callable[[], bool] = lambda: False,
    report: Callable[[int, Block], None] = lambda draws, block: None,
    warn: Callable[[str], None] = lambda text: None,
    commit_seconds: float = 10.0,
) -> int:
    """Bring the chain to n_draws draws, or as far as stop() allows; returns the number committed.

    A chain with a stored state goes on from it; a new one is warmed up first, `warmup` sweeps in parts whose sizes do
    not depend on the time they take. A state is committed with the draws it belongs to. stop() is asked before each
    part and block. report(draws so far, the block) after each block. A commit that fails is told to warn() and tried
    again with the next; ChainError when the last one does not succeed for ten minutes, or for a state of another
    sampler.
    """
    began = time.monotonic()
    clock, before = time.process_time(), writer.seconds["sample"]

    def settle() -> None:
        writer.set_state(driver.state() | {"warmed_up": np.array(warmed_up)})
        writer.set_seconds(sample=before + time.process_time() - clock)

    def commit_if_due() -> None:
        patience = min(commit_seconds, FIRST_COMMIT_SECONDS + 0.5 * (time.monotonic() - began))
        full = writer.pending_bytes > MAX_PENDING_BYTES
        if full or writer.commit_is_due(patience):
            settle()
            _commit(writer, stop, warn, needed=full)

    state = writer.state()
    if state:
        try:
            driver.restore(state)
        except ValueError as error:
            why = f"{writer.path} was left by another sampler ({error})"
            raise ChainError(f"{why}; use --restart or another --out") from error
    warmed_up = int(state.get("warmed_up", warmup)) if state else 0
    drawn = writer.committed_draws
    start = (warmed_up, drawn)
    for part in _parts(warmup, warmed_up):
        if stop():
            break
        driver.warm_up(part)
        warmed_up += part
        commit_if_due()
    size = 1
    while drawn < n_draws and warmed_up >= warmup and not stop():
        size = min(size, n_draws - drawn)
        block_began = time.monotonic()
        block = driver.block(size)
        writer.append(block.posterior, block.sample_stats, block.spins, block.spin_draws)
        drawn += size
        took = max(time.monotonic() - block_began, 1e-6)
        report(drawn, block)
        commit_if_due()
        # Blocks at most double, so that one slow block cannot be followed by a far slower one.
        size = max(1, min(2 * size, int(size * BLOCK_SECONDS / took)))
    if not state or (warmed_up, drawn) != start:
        settle()
    _commit(writer, stop, warn, needed=True)
    return writer.committed_draws


def _parts(warmup: int, done: int) -> Iterator[int]:
    """Numbers of sweeps that add up to `warmup`, without the first `done`, a sum of some of them."""
    edges = [warmup * part // WARM_UP_PARTS for part in range(WARM_UP_PARTS + 1)]
    for low, high in itertools.pairwise(edges):
        if high > low >= done:
            yield high - low


def _commit(writer: ChainWriter, stop: Callable[[], bool], warn: Callable[[str], None], needed: bool) -> None:
    """Commit; when that fails, warn, and if it is needed wait for better times."""
    give_up = time.monotonic() + GIVE_UP_SECONDS
    while True:
        try:
            return writer.commit()
        except ChainError as error:
            if needed and (stop() or time.monotonic() > give_up):
                raise
            warn(str(error))
            if not needed:
                return None
            time.sleep(RETRY_SECONDS)
