"""How a chain file is guarded: one writer at a time, and changes that happen whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has no flock; see `WriterLock`
    fcntl = None

NO_LOCKS_HERE = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
NO_RESERVATION_HERE = {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS}


class ChainError(Exception):
    """A chain file cannot be used; the message is one line: what, why, and what to do about it."""


def reason(error: BaseException) -> str:
    """The cause of an error in one line; HDF5 wraps the errno it met into several lines of its own."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def writable_target(path: str | os.PathLike) -> Path:
    """The file behind a path (links are followed, so that they stay); ChainError where it cannot be written."""
    target = Path(os.path.realpath(path))
    folder = target.parent
    if os.path.isdir(target):
        raise ChainError(f"{path} is a folder; --out names a file")
    if folder.exists() and not folder.is_dir():
        raise ChainError(f"{path} cannot be written: {folder} is not a folder; choose another --out")
    if not folder.exists():
        raise ChainError(f"{path} cannot be written: there is no folder {folder}; make it or choose another --out")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ChainError(f"{path} cannot be written: no permission to write in {folder}; choose another --out")
    return target


class WriterLock:
    """The right to write one chain file, held from construction to `release`.

    The lock is the kernel's (flock on `<path>.lock`), so it ends with the process however the process ends, and a
    lock file left behind blocks nobody. The file holds "PID HOST" for the message to the next one who asks.

    path: the chain file. `warning` is a text where the file system knows no locks (the lock is then only a wish),
    else None. Raises ChainError when another writer holds the lock or the lock file cannot be made.
    """

    def __init__(self, path: Path):
        self.chain_path = path
        self.path = path.with_name(path.name + ".lock")
        self.warning: str | None = None
        self._owner = os.getpid()
        self._descriptor: int | None = None
        while self._descriptor is None:
            self._descriptor = self._try_once()

    def _try_once(self) -> int | None:
        """The descriptor that holds the lock, or None when the lock file was removed while we took it."""
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise ChainError(
                f"{self.chain_path} cannot be written: its lock file {self.path.name} cannot be opened "
                f"({reason(error)}); choose another --out"
            ) from error
        try:
            if fcntl is None:
                raise OSError(errno.ENOSYS, "no flock")
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 300, 0).decode(errors="replace").split()
            os.close(descriptor)
            who = f"process {holder[0]} on {holder[1]}" if len(holder) == 2 else "another process"
            raise ChainError(
                f"{self.chain_path} is being written by {who}; wait for it or choose another --out"
            ) from None
        except OSError as error:
            if error.errno not in NO_LOCKS_HERE:
                os.close(descriptor)
                raise ChainError(
                    f"{self.chain_path} cannot be locked ({reason(error)}); choose another --out"
                ) from error
            self.warning = f"{self.chain_path}: no file locks here; make sure that no other process writes this file"
        # The previous holder removes its lock file when it is done. If that fell between our open and our flock, we
        # hold a file without a name, and the next writer would lock a fresh one beside us.
        try:
            still_there = os.stat(self.path).st_ino == os.fstat(descriptor).st_ino
        except FileNotFoundError:
            still_there = False
        if not still_there:
            os.close(descriptor)
            return None
        with contextlib.suppress(OSError):  # only a message; a full disk must not forbid the lock
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)
        return descriptor

    def release(self) -> None:
        """Give the lock back and remove its file; harmless when done before."""
        if self._descriptor is None:
            return
        if os.getpid() == self._owner:  # a forked child shares the descriptor, but the lock is its parent's
            with contextlib.suppress(OSError):
                self.path.unlink()  # before the close: as long as we hold the lock, this name is ours
        os.close(self._descriptor)
        self._descriptor = None


def part_of(path: Path) -> Path:
    """The hidden sibling in which the next version of `path` is made."""
    return path.with_name(f".{path.name}.part")


@contextlib.contextmanager
def replacement(path: Path, reserve: int = 0, fresh: bool = False) -> Iterator[Path]:
    """Change a file whole or not at all: yields the path of a hidden copy, which replaces `path` on a clean exit.

    fresh: begin with an empty file instead of a copy.

    reserve: bytes by which the copy may grow. They are claimed from the disk beforehand, because HDF5 dies of a
    disk that fills up under it (closing a file whose last writes failed is a segmentation fault).

    Raises OSError; the copy is then removed and `path` is as before.
    """
    part = part_of(path)
    try:
        if fresh:
            part.write_bytes(b"")
        else:
            shutil.copy(path, part)  # with its permissions
        if reserve:
            _reserve(part, reserve)
        yield part
        _sync(part)
        os.replace(part, path)
        with contextlib.suppress(OSError):  # the file is in place; some file systems cannot sync a folder
            _sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


def _reserve(path: Path, extra: int) -> None:
    """Claim `extra` bytes of disk behind the end of a file; raises OSError (disk full, quota, file size limit)."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        size = os.fstat(descriptor).st_size
        try:
            os.posix_fallocate(descriptor, size, extra)
        except (AttributeError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in NO_RESERVATION_HERE:
                raise
            zeros = bytes(1 << 20)
            for begin in range(size, size + extra, len(zeros)):
                os.pwrite(descriptor, zeros[: size + extra - begin], begin)
        os.fsync(descriptor)  # network file systems tell only now
    finally:
        os.close(descriptor)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
