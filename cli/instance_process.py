"""One instance after another, in a process of its own: jobs come as lines of JSON, and so do the answers.

    nmcmc starts it; by hand: python -m cli.instance_process, then a job a line

Standard input brings {"do": job}, {"rehearse": job} and {"stop": true}; its end ends the process at once, so that no
instance goes on without the one who asked for it. Standard output takes {"ready": true}, {"warn": text} and answers.

A job: instance, words, mode, command, argv, options (of `cli.options.Options`, paths as texts), path of the chain
file, extract (null, or the ensemble file and group from which that file is made first), deadline (seconds since the
epoch, or null). An answer: instance, error (null or one line), interrupted, draws, complete, r_hat (the worst, or
null), seconds.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import queue
import signal
import sys
import tempfile
import threading
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

from cli.workers import answer_of

LEAST_SECONDS = 0.05  # with less than this left, an instance is not begun
ASK_AGAIN = 0.2  # seconds until a stop that came too early is said once more
LOCK_SECONDS = 10.0  # patience with a writer that was killed just now


class Stopping:
    """A stop that was asked for, said to the run at work as the SIGTERM it knows how to hear."""

    def __init__(self):
        self.asked = False
        self.busy = False
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which asks us to stop
        signal.signal(signal.SIGTERM, self._hear)

    def ask(self) -> None:
        self.asked = True
        if self.busy:
            os.kill(os.getpid(), signal.SIGTERM)

    def _hear(self, number: int, frame: Any) -> None:
        """The run has not begun to listen: say it again soon."""
        self.asked = True
        if self.busy:
            timer = threading.Timer(ASK_AGAIN, os.kill, (os.getpid(), signal.SIGTERM))
            timer.daemon = True
            timer.start()


class Teller(io.TextIOBase):
    """Standard error of the run: every line goes to the parent."""

    def __init__(self, say):
        self._say, self._rest = say, ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            if line.strip():
                self._say({"warn": line.removeprefix("nmcmc: ")})
        return len(text)


def main() -> None:
    """Read jobs until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    stopping, jobs = Stopping(), queue.Queue()

    def say(message: dict[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):
            answers.write(json.dumps(message) + "\n")
            answers.flush()

    def listen() -> None:
        for line in sys.stdin:
            message = json.loads(line)
            if "stop" in message:
                stopping.ask()
            else:
                jobs.put(message)
        os._exit(0)

    import cli.run  # noqa: F401  (before anybody waits for it)

    threading.Thread(target=listen, daemon=True).start()
    sys.stderr = Teller(say)
    os.dup2(nothing, 2)  # the run's own word on a signal, which the parent has said already
    say({"ready": True})
    while True:
        message = jobs.get()
        if "rehearse" in message:
            rehearse(message["rehearse"])
            say({"rehearsed": True})
        else:
            stopping.busy = True
            answer = do(message["do"], stopping)
            stopping.busy = False
            say(answer)


def do(job: dict[str, Any], stopping: Stopping | None = None) -> dict[str, Any]:
    """Run one instance, or go on with it; errors become words of the answer."""
    number = job["instance"]
    left = math.inf if job["deadline"] is None else job["deadline"] - time.time()
    if left < LEAST_SECONDS or (stopping is not None and stopping.asked):
        return answer_of(number, interrupted=left >= LEAST_SECONDS)
    try:
        return answer_of(number, **_done(job, None if left == math.inf else left))
    except KeyboardInterrupt:
        return answer_of(number, interrupted=True)
    except MemoryError as error:
        return answer_of(number, error=f"not enough memory ({error}); use a smaller system or fewer chains")
    except Exception as error:
        return answer_of(number, error=_said(error))


def _done(job: dict[str, Any], seconds: float | None) -> dict[str, Any]:
    from cli.arguments import parse
    from cli.results import opened
    from cli.run import run
    from mc.chain_tree import Source, tree
    from mc.disorder import row_of, summarise
    from mc.ensemble import extract

    path = Path(job["path"])
    wait_for_writer(path)
    if job["extract"] is not None:
        extract(Source(Path(job["extract"][0]), job["extract"][1]), path)
    target, given = parse(job["words"], job["mode"])
    options = replace(options_of(job), out=path, time_limit=seconds)
    sys.argv = job["argv"]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        code = run(job["command"], target, job["mode"], given, options, time.monotonic())
    told = json.loads(said.getvalue().splitlines()[-1])
    chain = opened(path)
    with tree(Source(path)) as group:
        worst = summarise([row_of(job["instance"], group)]).worst()
    return {"interrupted": code == 130, "draws": chain.n_draws, "complete": chain.complete,
            "r_hat": worst and worst.r_hat, "seconds": told["seconds"]}  # fmt: skip


def options_of(job: dict[str, Any]):
    """The options of a job, quiet and with the JSON object that the answer is taken from."""
    from cli.options import Options

    given = job["options"]
    paths = {name: Path(given[name]) for name in ("out", "checkpoint") if given.get(name) is not None}
    return replace(Options(**given | paths), quiet=True, json=True)


def rehearse(job: dict[str, Any]) -> None:
    """One draw of a job, thrown away: Numba compiles for all processes, whose cache is one."""
    from cli.arguments import parse
    from cli.run import run

    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(Exception, KeyboardInterrupt):
        target, given = parse(job["words"], job["mode"])
        options = replace(options_of(job), out=Path(folder) / "rehearsal.h5", draws=1, thin=1, warmup=2)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            run(job["command"], target, job["mode"], given, options, time.monotonic())


def wait_for_writer(path: Path) -> None:
    """Wait while another process holds the file: one that lost its parent is about to end."""
    from mc.chain_lock import ChainError, WriterLock, writable_target

    end = time.monotonic() + LOCK_SECONDS
    while time.monotonic() < end:
        try:
            return WriterLock(writable_target(path)).release()
        except ChainError:
            time.sleep(0.1)
    return None  # the run says what is wrong


def _said(error: Exception) -> str:
    """One line: what a user can act on, or where an unforeseen error came from."""
    from cli.errors import UserError
    from mc.chain_lock import ChainError

    text = " ".join(str(error).split())
    if isinstance(error, UserError | ChainError):
        return text
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {text} ({Path(frame.filename).name}, line {frame.lineno})"


if __name__ == "__main__":
    main()
