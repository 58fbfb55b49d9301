"""Processes of this machine that do instances, one each at a time (`cli.instance_process` is what runs in them)."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import cli
from cli.errors import UserError

ATTEMPTS = 3  # at one instance, when its process dies
POLL_SECONDS = 0.2  # how soon Ctrl-C is heard
GOODBYE_SECONDS = 5.0
THREADS = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def answer_of(instance: int, **known: Any) -> dict[str, Any]:
    """What is said of an instance (see `cli.instance_process`): nothing done, but for what is known."""
    nothing = {"error": None, "interrupted": False, "draws": 0, "complete": False, "r_hat": None, "seconds": {}}
    return {"instance": instance} | nothing | known


class Worker:
    """One process. `job` is what it works on, or None; `ready` whether it has begun to listen."""

    def __init__(self, threads: int = 1):
        package = str(Path(cli.__file__).parents[1])
        path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        environment = os.environ | dict.fromkeys(THREADS, "1") | {"PYTHONPATH": path, THREADS[0]: str(threads)}
        # A session of its own: Ctrl-C in the terminal reaches the parent alone, which asks for a stop once.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cli.instance_process"], env=environment, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        self.pid = self._process.pid
        self.job: dict[str, Any] | None = None
        self.ready = False
        self._rest = b""

    def fileno(self) -> int:
        return self._process.stdout.fileno()

    def send(self, message: dict[str, Any]) -> None:
        """A process that has died hears nothing; that is noticed in `receive`."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()

    def receive(self) -> list[dict[str, Any]] | None:
        """Messages that have come, once there is something to read; None when the process has ended."""
        data = os.read(self.fileno(), 1 << 16)
        if not data:
            return None
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def how_it_ended(self) -> str:
        code = self._process.wait()
        if code >= 0:
            return f"exit code {code}"
        return f"killed by {signal.Signals(-code).name}" + (", perhaps for want of memory" if code == -9 else "")

    def close(self, at_once: bool = False) -> None:
        """End the process: an idle one ends by itself when its input does."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            if at_once:
                self._process.kill()
            self._process.wait(GOODBYE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def do_jobs(
    jobs: Iterable[dict[str, Any]],
    n_workers: int,
    threads: int,
    rehearsal: bool,
    interrupted: Callable[[], bool],
    warn: Callable[[str], None],
) -> Iterator[dict[str, Any]]:
    """Answers of jobs as they come, each job on one of n_workers processes.

    rehearsal: one process compiles with a draw of the first job before all begin. interrupted: asked often; once
    true, nothing is handed out any more and what runs is asked to commit and stop. A job whose process dies is done
    again, which goes on from its last commit, up to three times in all.
    """
    waiting = deque(jobs)
    attempts: dict[int, int] = {}
    workers = [Worker(threads) for _ in range(min(n_workers, len(waiting)))]
    rehearsing = rehearsal and len(workers) > 1
    told_to_stop = False
    at_once = True
    try:
        with selectors.DefaultSelector() as selector:
            for worker in workers:
                selector.register(worker, selectors.EVENT_READ)
            if rehearsing:
                workers[0].send({"rehearse": waiting[0]})
            while True:
                if interrupted():
                    waiting.clear()
                    if not told_to_stop:
                        for worker in workers:
                            worker.send({"stop": True})
                    told_to_stop = True
                if not rehearsing or told_to_stop:
                    _hand_out(workers, waiting)
                if not waiting and not any(worker.job for worker in workers):
                    break
                for key, _ in selector.select(POLL_SECONDS):
                    worker = key.fileobj
                    messages = worker.receive()
                    if messages is None:
                        rehearsing = rehearsing and worker is not workers[0]
                        selector.unregister(worker)
                        workers.remove(worker)
                        answer = _lost(worker, waiting, attempts, told_to_stop, warn)
                        if answer is not None:
                            yield answer
                        if waiting and not told_to_stop:
                            workers.append(Worker(threads))
                            selector.register(workers[-1], selectors.EVENT_READ)
                        continue
                    for message in messages:
                        if "warn" in message:
                            who = f"instance {worker.job['instance']}: " if worker.job else ""
                            warn(who + message["warn"])
                        elif "ready" in message:
                            worker.ready = True
                        elif "rehearsed" in message:
                            rehearsing = False
                        else:
                            worker.job = None
                            yield message
        at_once = False
    finally:
        for worker in workers:
            worker.close(at_once)


def _hand_out(workers: list[Worker], waiting: deque) -> None:
    for worker in workers:
        if waiting and worker.ready and worker.job is None:
            worker.job = waiting.popleft()
            worker.send({"do": worker.job})


def _lost(
    worker: Worker, waiting: deque, attempts: dict[int, int], stopping: bool, warn: Callable[[str], None]
) -> dict[str, Any] | None:
    """What becomes of the job of a process that has died: None when it will be done again, else its answer."""
    how = worker.how_it_ended()
    job = worker.job
    worker.close(at_once=True)
    if job is None:
        if not worker.ready:
            raise UserError(f"a process for instances could not be started ({how})", code=1)
        return None
    number = job["instance"]
    attempts[number] = attempts.get(number, 0) + 1
    if attempts[number] < ATTEMPTS and not stopping:
        warn(f"instance {number}: its process was lost ({how}); it is done again from its last commit")
        waiting.appendleft(job)
        return None
    if stopping:
        return answer_of(number, interrupted=True)
    return answer_of(number, error=f"its process was lost {attempts[number]} times ({how})")
