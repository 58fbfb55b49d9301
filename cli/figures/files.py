"""Files of figures and pages: written whole or not at all, and never in place of a file that is not ours."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cli.errors import UserError
from mc.chain_lock import ChainError, part_of, reason, replacement, writable_target

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARK = "nmcmc plot"
MARK_OF_PNG = b"tEXtSoftware\0" + MARK.encode()  # a chunk of text, as the PNG standard lays it out
MARK_OF_PDF = f"/Creator ({MARK})".encode()
HEAD, TAIL = 1024, 2**20  # bytes: where a png and where a pdf has it, whose table of objects comes after


def about(form: str, title: str) -> dict[str, str | None]:
    """What a figure says of itself, by which `is_figure` knows it; no date, so that the same figure is the same file.

    form: png or pdf.
    """
    return {"Software": MARK} if form == "png" else {"Title": title, "Creator": MARK, "CreationDate": None}


def is_figure(path: Path) -> bool:
    """Whether a file was written by `nmcmc plot`; never raises."""
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD)
            if head.startswith(b"%PDF"):
                file.seek(max(0, os.path.getsize(path) - TAIL))
                return MARK_OF_PDF in file.read(TAIL)
            return head.startswith(b"\x89PNG") and MARK_OF_PNG in head
    except OSError:
        return False


def as_bytes(figure: Figure, form: str, title: str, dpi: float) -> bytes:
    """A figure as a file of that format, png or pdf."""
    content = io.BytesIO()
    figure.savefig(content, format=form, dpi=dpi, metadata=about(form, title))
    return content.getvalue()


def require_free(path: Path, ours: Callable[[Path], bool], kind: str) -> None:
    """UserError where a file cannot be written, or stands already and is none of ours; its folder need not be there.

    ours: tells an earlier file of the same kind, which may be replaced.
    """
    whole = Path(os.path.abspath(path))
    folder = whole.parent
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    try:
        for name in (*whole.parent.relative_to(folder).parts, part_of(Path(os.path.realpath(path))).name):
            with contextlib.suppress(FileNotFoundError):  # a name too long is told here, or a file taken for a folder
                os.stat(folder / name)
        with tempfile.TemporaryFile(dir=folder):  # rights alone do not tell: a file system may be read-only
            pass
    except OSError as error:
        raise UserError(f"{path} cannot be written ({reason(error)}); choose another --out") from None
    if os.path.lexists(path) and not (os.path.isfile(path) and ours(path)):
        raise UserError(f"{path} is there already and is no earlier {kind}; remove it, or choose another --out")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, and its folder where it is wanting; what was there stays when that fails. UserError, code 1."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacement(writable_target(path), fresh=True) as part:
            part.write_bytes(content)
    except ChainError as error:
        raise UserError(str(error), code=1) from None
    except OSError as error:
        raise UserError(f"{path} cannot be written ({reason(error)}); choose another --out", code=1) from None
