"""The loop that every sampler runs in: blocks of draws into a chain file, with their state, until enough or told to stop."""

from __future__ import annotations

import time
from collections.abc import Callable

from mc.chain import ChainWriter
from mc.simulate import Driver

BLOCK_SECONDS = 0.5  # a block takes about this long: how soon Ctrl-C and time limits are heard
MAX_PENDING_BYTES = 256 << 20  # of draws in memory; more are committed at once


def record(
    driver: Driver,
    writer: ChainWriter,
    n_draws: int,
    warmup: int,
    *,
    stop: Callable[[], bool] = lambda: False,
    report: Callable[[int], None] = lambda draws: None,
    commit_seconds: float = 10.0,
) -> int:
    """Bring the chain to n_draws draws, or as far as stop() allows; returns the number committed.

    A chain that has draws goes on from its stored state; a new one is warmed up first, `warmup` sweeps. The state is
    committed with the draws it belongs to. stop() is asked before each block. report(draws so far) after each.
    """
    state = writer.state()
    if state:
        driver.restore(state)
    else:
        driver.warm_up(warmup)
        writer.set_state(driver.state())
    drawn, size = writer.committed_draws, 1
    while drawn < n_draws and not stop():
        size = min(size, n_draws - drawn)
        began = time.monotonic()
        block = driver.block(size)
        writer.append(block.posterior, block.sample_stats, block.spins, block.spin_draws)
        drawn += size
        took = max(time.monotonic() - began, 1e-6)
        report(drawn)
        if writer.commit_is_due(commit_seconds) or writer.pending_bytes > MAX_PENDING_BYTES:
            writer.set_state(driver.state())
            writer.commit()
        # Blocks at most double, so that one slow block cannot be followed by a far slower one.
        size = max(1, min(2 * size, int(size * BLOCK_SECONDS / took)))
    if writer.pending_draws:
        writer.set_state(driver.state())
    writer.commit()
    return writer.committed_draws
