"""How figures look: widths of a journal's columns, fonts, colours, and the marks that tell lines apart in grey.

Colours: M. Okabe and K. Ito, Color Universal Design (2008), eight colours that colour-blind readers tell apart; for
ladders of temperatures cividis (J. R. Nunez, C. R. Anderton and R. S. Renslow, PLoS ONE 13, e0199239 (2018)), whose
lightness rises steadily.
"""

from __future__ import annotations

import math

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

MM = 1.0 / 25.4  # inches
SINGLE, DOUBLE = 86.0, 178.0  # mm: one column, two columns
DPI = 300
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES = ("-", (0, (5, 1.6)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)), (0, (3, 1.2, 1, 1.2, 1, 1.2)), (0, (8, 3)))
MARKS = ("o", "s", "^", "D", "v", "P", "X")
EXACT = "#444444"
FAINT = "#666666"
BAND = "#D9D9D9"
TEMPERATURES = "cividis"
LEAST_ROOM = 2e-4  # around a constant, of its value

PAPER = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "mathtext.fontset": "dejavusans",
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "figure.titlesize": 8,
    "axes.linewidth": 0.6,
    "axes.titlepad": 4,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.2,
    "errorbar.capsize": 1.8,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "xtick.top": True,
    "ytick.right": True,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "legend.borderaxespad": 0.4,
    "axes.formatter.useoffset": False,
    "axes.formatter.limits": (-4, 7),
    "image.interpolation": "nearest",
    "pdf.fonttype": 42,  # letters that stay letters
    "svg.fonttype": "path",
    "path.simplify": True,
    "agg.path.chunksize": 20000,
    "axes.unicode_minus": True,
}


def paper():
    """The context in which figures are made and written; settings are as before when it ends."""
    return matplotlib.rc_context(PAPER)


def sheet(width: float, height: float) -> Figure:
    """An empty figure of so many mm."""
    figure = Figure(figsize=(width * MM, height * MM), layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0.04, hspace=0.05)
    return figure


def line_of(number: int) -> dict:
    """Colour and dashes of the number-th line."""
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": DASHES[number % len(DASHES)]}


def line_of_beta(number: int, count: int) -> dict:
    """Colour, dashes and mark of one of `count` temperatures, hot to cold."""
    if count <= 4:
        return line_of(number) | {"marker": MARKS[number % len(MARKS)]}
    shade = matplotlib.colormaps[TEMPERATURES](0.9 * number / (count - 1))
    return {"color": shade, "linestyle": DASHES[number % len(DASHES)], "marker": MARKS[number % len(MARKS)]}


def panel_letter(axes: Axes, letter: str) -> None:
    axes.set_title(f"({letter})", loc="left", fontweight="bold")


def roomy(low: float, high: float, share: float = 0.06) -> tuple[float, float]:
    """Limits of an axis around the data; a constant gets room, too."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return -1.0, 1.0
    room = max(share * (high - low), LEAST_ROOM * max(abs(low), abs(high))) or 1e-3
    return low - room, high + room


def chosen(count: int, most: int) -> list[int]:
    """At most `most` of `count` things, first and last among them, evenly spaced."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(most, count))})
