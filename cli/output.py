"""What the user sees while a command works: lines, a bar on a terminal, and Ctrl-C turned into a question."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator

LINE_EVERY = 10.0  # seconds between progress lines in a log


class Screen:
    """Lines on standard output (none when quiet), progress and warnings on standard error."""

    def __init__(self, quiet: bool = False):
        self.quiet = quiet

    def say(self, text: str = "") -> None:
        if not self.quiet:
            print(text, flush=True)

    def warn(self, text: str) -> None:
        print(f"nmcmc: {' '.join(text.split())}", file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def progress(self, what: str, total: int, done: int = 0) -> Iterator[Callable[[int, str], None]]:
        """Yields update(done, note): a bar on a terminal, a line every ten seconds elsewhere."""
        if self.quiet:
            yield lambda done, note="": None
        elif sys.stderr.isatty():
            yield from self._bar(what, total, done)
        else:
            yield from self._lines(what, total, done)

    def _bar(self, what: str, total: int, done: int):
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
        )  # fmt: skip
        began, first = time.monotonic(), done
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(what, total=total, completed=done, note="", rate="")

            def update(done: int, note: str = "") -> None:
                rate = (done - first) / max(time.monotonic() - began, 1e-6)
                bar.update(task, completed=done, rate=f"{rate:.3g}/s", **({"note": note} if note else {}))

            yield update

    def _lines(self, what: str, total: int, done: int):
        began = last = time.monotonic()
        first = done

        def update(done: int, note: str = "") -> None:
            nonlocal last
            now = time.monotonic()
            if now - last < LINE_EVERY:
                return
            last = now
            rate = (done - first) / (now - began)
            left = f", {rate:.3g}/s, about {duration((total - done) / rate)} left" if rate > 0 else ""
            print(f"{what}: {done} of {total}{left}{', ' + note if note else ''}", file=sys.stderr, flush=True)

        yield update


def counted(number: int, what: str) -> str:
    """1 chain, 4 chains"""
    return f"{number} {what}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """3 s, 5 min, 2.5 h"""
    if seconds < 120:
        return f"{math.ceil(seconds)} s"
    return f"{math.ceil(seconds / 60)} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


class Stopper:
    """Turns Ctrl-C (and SIGTERM) into a flag that loops ask between blocks; a second one stops at once.

    deadline: of time.monotonic(), which is asked in the same way.
    """

    def __init__(self, deadline: float = math.inf):
        self.deadline = deadline
        self.interrupted = False

    def __call__(self) -> bool:
        return self.interrupted or time.monotonic() > self.deadline

    def _hear(self, number, frame) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True
        # Not print: the signal may have come in the midst of one.
        os.write(2, b"stopping after this block (again: at once, up to the last commit)\n")

    def __enter__(self) -> Stopper:
        # A signal that the shell has the process ignore (a job in the background) stays ignored.
        heard = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is not signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._hear) for number in heard}
        return self

    def __exit__(self, *error) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
