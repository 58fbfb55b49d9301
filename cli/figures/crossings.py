"""Dimensionless ratios of several sizes against beta: where they cross is where the model is critical."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from cli.figures import NotDrawn, style
from cli.figures.sizes import Sized
from mc.crossings import Crossing, crossing, curve

RATIOS = (
    ("overlap_binder", "Binder cumulant $g$ of $q$"),
    ("overlap_xi_over_length", r"$\xi/L$ of $q$"),
    ("binder", "Binder cumulant $U$ of $m$"),
    ("xi_over_length", r"$\xi/L$"),
)
MOST_PANELS = 2
FEWEST_SIZES = 2
SEED = 1  # of the bootstrap


def crossings(files: Sequence[Sized]) -> Figure:
    """Binder cumulant and xi / L, of the overlap where there is one; a line a size, files of one size joined."""
    kinds = {(one.model, one.parameters, one.energy_unit) for one in files}
    if len(kinds) > 1:
        raise NotDrawn("crossings are of one model with different sizes; these files differ in more")
    sizes = sorted({one.size for one in files if one.columns})
    if len(sizes) < FEWEST_SIZES:
        several = len({one.size for one in files}) >= FEWEST_SIZES
        raise NotDrawn("crossings need two sizes or more, with draws", wanting=several)
    known = [(name, label) for name, label in RATIOS if _sizes_with(files, name) >= FEWEST_SIZES][:MOST_PANELS]
    if not known:
        raise NotDrawn("no ratio is known at two temperatures and two sizes", wanting=True)
    figure = style.sheet(style.SINGLE if len(known) == 1 else style.DOUBLE, 68.0)
    for axes, (name, label) in zip(figure.subplots(1, len(known), squeeze=False)[0], known, strict=True):
        for place, size in enumerate(sizes):
            _line(axes, [one for one in files if one.size == size], name, place, len(sizes))
        for found, words in crossing_points(files, sizes, name):
            axes.plot(found.x, found.y, label=words, linestyle="none", marker="x", color="black", zorder=5)
        unit = "J" if files[0].energy_unit == "J" else rf"\mathrm{{{files[0].energy_unit}}}"
        axes.set_xlabel(rf"$\beta$ ($1/{unit}$)")
        axes.set_ylabel(label)
        axes.legend(loc="best")
    return figure


def crossing_points(files: Sequence[Sized], sizes: Sequence[int], name: str) -> list[tuple[Crossing, str]]:
    """Where curves of neighbouring sizes cross, each with words for a legend; those that are not clear are left out.

    The last digit shown is that of the bootstrap error, which takes the points for independent. Those of one
    tempering run or of the same disorder samples are not, so no error is claimed here; `curve_of_samples` has one.
    """
    found = []
    for pair in itertools.pairwise(sizes):
        with contextlib.suppress(ValueError):  # too few points, errors that are not known, or no beta in common
            curves = [curve(*joined([one for one in files if one.size == size], name)) for size in pair]
            one = crossing(*curves, np.random.default_rng(SEED))
            if one.status == "ok":
                places = max(0, -math.floor(math.log10(one.x_error)))
                found.append((one, f"{pair[0]}, {pair[1]} cross at {one.x:.{places}f}"))
    return found


def joined(files: Sequence[Sized], name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """beta, mean and error of a ratio from all files of one size, in order of beta, where it is finite."""
    files = [one for one in files if name in one.columns]
    if not files:
        return np.zeros(0), np.zeros(0), np.zeros(0)
    beta = np.concatenate([one.betas for one in files])
    mean = np.concatenate([one.columns[name].mean for one in files])
    error = np.concatenate([one.columns[name].error for one in files])
    order = np.argsort(beta, kind="stable")
    order = order[np.isfinite(mean[order])]
    return beta[order], mean[order], error[order]


def _sizes_with(files: Sequence[Sized], name: str) -> int:
    """Sizes that have the ratio at two betas or more."""
    return sum(
        len(joined([one for one in files if one.size == size], name)[0]) > 1 for size in {one.size for one in files}
    )


def _line(axes, files: Sequence[Sized], name: str, place: int, count: int) -> None:
    beta, mean, error = joined(files, name)
    if beta.size:
        error = np.where(np.isfinite(error), error, 0.0)
        line = style.line_of_beta(place, count)
        label = f"${files[0].symbol} = {files[0].size}$"
        axes.errorbar(beta, mean, error, label=label, elinewidth=0.7, **line)
