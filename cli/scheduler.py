"""Instances on the workers of a Dask cluster (`--scheduler ADDRESS`, or `local` for one on this machine).

A worker need not share a disk: it gets what there is of a chain file as bytes, goes on from it in a folder of its
own, and gives back the bytes. The file is put in its place here, by a rename. What a lost worker had to do, Dask
gives to another; answers are known by their instance, so one that comes twice is one. nmcmc must be installed on the
workers.
"""

from __future__ import annotations

import contextlib
import logging
import math
import queue
import select
import tempfile
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from cli.errors import UserError
from cli.workers import POLL_SECONDS, Worker, answer_of
from mc.chain_lock import ChainError, reason, replacement, writable_target
from mc.chain_tree import Source
from mc.ensemble import extract

CONNECT_SECONDS = 15
LOOK_SECONDS = 10.0  # how often the cluster is asked whether it has workers
ASK_SECONDS = 1.0  # how often a worker asks whether it shall stop
RETRIES = 2  # of an instance whose process died under a worker that lives
# Run by each worker of a local cluster. Ctrl-C in the terminal is meant for us and would end them at once.
DEAF = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
HOW = "pip install 'nmcmc[cluster]' brings it (or: pip install distributed)"

_idle: list[Worker] = []  # processes of a Dask worker that wait for an instance
_idle_lock = threading.Lock()


@contextlib.contextmanager
def connected(address: str, cores: int) -> Iterator[Any]:
    """A client of the scheduler at an address; "local" starts one, a worker a core. UserError when none answers."""
    try:
        import distributed
    except ImportError:
        raise UserError(f"--scheduler {address}: Dask is not installed; {HOW}") from None
    with contextlib.ExitStack() as stack:
        # What Dask has to say of a lost worker or a large message, we say ourselves or do not mind.
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        if address == "local":
            cluster = distributed.LocalCluster(
                n_workers=cores, threads_per_worker=1, processes=True, dashboard_address=None,
                silence_logs=logging.CRITICAL, preload=[DEAF],
            )  # fmt: skip
            address = stack.enter_context(cluster).scheduler_address
        try:
            client = distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            why = (str(error) or type(error).__name__).splitlines()[0]
            raise UserError(
                f"--scheduler {address}: no Dask scheduler answers there ({why}); local starts one"
            ) from None
        yield stack.enter_context(client)


def do_jobs(
    client: Any, jobs: Iterable[dict[str, Any]], interrupted: Callable[[], bool], warn: Callable[[str], None]
) -> Iterator[dict[str, Any]]:
    """Answers of jobs as they come, each instance once, its chain file in place before its answer.

    interrupted: asked often; once true, workers are told to commit what they are at and to begin nothing.
    """
    import distributed

    token = uuid.uuid4().hex
    stop = distributed.Event(f"nmcmc-stop-{token}", client=client)
    ended: queue.SimpleQueue = queue.SimpleQueue()
    futures, paths = {}, {}
    for job in jobs:
        number, path = job["instance"], Path(job["path"])
        try:
            content = bytes_there(job)
        except (OSError, ChainError) as error:
            yield answer_of(number, error=reason(error))
            continue
        future = client.submit(remote, job | {"extract": None}, content, stop.name, key=f"nmcmc-{token}-{number}",
                               retries=RETRIES, pure=False)  # fmt: skip
        futures[number], paths[number] = future, path
        future.add_done_callback(lambda _, number=number: ended.put(number))
    told, looked = False, -math.inf
    while futures:
        if interrupted() and not told:
            stop.set()
            told = True
        if time.monotonic() - looked > LOOK_SECONDS:
            looked = time.monotonic()
            if not client.scheduler_info()["workers"]:
                if told:
                    return  # nobody is left to commit anything
                warn("the Dask cluster has no workers; waiting for some")
        try:
            number = ended.get(timeout=POLL_SECONDS)
        except queue.Empty:
            continue
        future = futures.pop(number, None)
        if future is not None:  # else it has been counted
            yield collected(number, future, paths[number], warn)
            future.release()


def bytes_there(job: dict[str, Any]) -> bytes | None:
    """What there is of the chain file of a job; it is taken out of the ensemble first where it lies there."""
    path = Path(job["path"])
    if job["extract"] is not None:
        extract(Source(Path(job["extract"][0]), job["extract"][1]), path)
    restart = job["options"]["restart"]
    return path.read_bytes() if path.exists() and not restart else None


def collected(number: int, future: Any, path: Path, warn: Callable[[str], None]) -> dict[str, Any]:
    """The answer of a future that has ended, its chain file put in place."""
    if future.status != "finished":
        error = future.exception() if future.status == "error" else None
        return answer_of(number, error=why_lost(error))
    answer, content, said = future.result()
    for text in said:
        warn(f"instance {number}: {text}")
    if content is not None:
        try:
            with replacement(writable_target(path), fresh=True) as part:
                part.write_bytes(content)
        except (OSError, ChainError) as error:
            return answer_of(number, error=f"{path} cannot be written ({reason(error)})")
    return answer


def why_lost(error: BaseException | None) -> str:
    """One line about a future without a result."""
    if error is None:
        return "the Dask cluster is gone"
    if type(error).__name__ == "KilledWorker":
        return "its Dask workers were lost again and again (want of memory?)"
    if isinstance(error, ModuleNotFoundError):
        return f"the Dask workers have no module {error.name}; install nmcmc, and this version, on them"
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def remote(job: dict[str, Any], content: bytes | None, event: str) -> tuple[dict, bytes | None, list[str]]:
    """On a Dask worker: (answer, bytes of the chain file, warnings). RuntimeError when the process of the run dies.

    Dask calls it in a thread, where a run cannot listen to signals; so the run has a process of its own.
    """
    stop = stop_asked(event)
    if stop():
        return answer_of(job["instance"], interrupted=True), None, []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "instance.h5"
        if content is not None:
            path.write_bytes(content)
        answer, said = do_in_process(job | {"path": str(path)}, stop)
        if answer["error"] is not None:  # it names the file as it is called at home
            answer["error"] = answer["error"].replace(str(path), job["path"])
        return answer, path.read_bytes() if path.exists() else None, said


def stop_asked(name: str) -> Callable[[], bool]:
    """Whether the client has set the event of this name; no answer is no."""
    import distributed

    event = distributed.Event(name, client=distributed.get_client())

    def ask() -> bool:
        with contextlib.suppress(Exception):  # a scheduler that has gone says nothing
            return event.is_set()
        return False

    return ask


def do_in_process(job: dict[str, Any], stop: Callable[[], bool]) -> tuple[dict[str, Any], list[str]]:
    """One job in a process that may have done others before."""
    with _idle_lock:
        worker = _idle.pop() if _idle else Worker()
    said: list[str] = []
    told = False
    try:
        worker.send({"do": job})
        while True:
            if not told and stop():
                worker.send({"stop": True})
                told = True
            if not select.select([worker], [], [], ASK_SECONDS)[0]:
                continue
            messages = worker.receive()
            if messages is None:
                raise RuntimeError(f"its process was lost ({worker.how_it_ended()})")
            said += [message["warn"] for message in messages if "warn" in message]
            answer = next((message for message in messages if "instance" in message), None)
            if answer is not None:
                break
    except BaseException:
        worker.close(at_once=True)
        raise
    if told:  # it would begin nothing more
        worker.close()
    else:
        with _idle_lock:
            _idle.append(worker)
    return answer, said
