"""Figures of chain files, one family a file: each takes a `Drawn` and makes a matplotlib figure, or says why not.

`FIGURES` is what can be asked for by name. Nothing here touches pyplot or a display; matplotlib is imported only when
a figure is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from cli.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cli.figures.drawn import Drawn
    from cli.figures.sizes import Sized

FIGURES = {
    "energy": "series",
    "autocorrelation": "series",
    "magnetization": "overlaps",
    "overlap": "overlaps",
    "configurations": "configurations",
    "swaps": "tempering",
    "ladder": "ladder",
    "training": "training",
    "weights": "weights",
}  # name: the module that draws it
OF_SEVERAL = {"crossings": "crossings"}  # of several files of one model
WITHOUT_DRAWS = ("training",)  # what a file without draws may still have


class NotDrawn(Exception):
    """Why a file has no such figure. wanting: the file is of the right kind, but there is too little in it."""

    def __init__(self, reason: str, wanting: bool = False):
        super().__init__(reason)
        self.wanting = wanting


def require_matplotlib() -> None:
    """UserError where the extra `plot` is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UserError("figures need matplotlib: pip install 'nmcmc[plot]'") from None


def draw(name: str, source: Drawn) -> Figure:
    """The figure of one file by name; NotDrawn where the file does not allow it. Within `style.paper()`."""
    return getattr(import_module(f"cli.figures.{FIGURES[name]}"), name)(source)


def draw_together(name: str, sources: Sequence[Sized]) -> Figure:
    """The figure of several files by name; NotDrawn where they do not allow it. Within `style.paper()`."""
    return getattr(import_module(f"cli.figures.{OF_SEVERAL[name]}"), name)(sources)
