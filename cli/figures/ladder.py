"""Observables along a ladder of temperatures, with error bars and exact values beside."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from cli.figures import NotDrawn, style
from cli.figures.drawn import Column, Drawn

MOST_PANELS = 6
WIDE = 10.0  # ratio of betas from which the axis is logarithmic
MANY = 24  # betas from which not every one has a mark


def ladder(drawn: Drawn) -> Figure:
    """Energy, heat capacity, order parameter, Binder cumulant, xi/L, ln Z or entropy against beta; six at most."""
    if len(drawn.betas) < 2:
        raise NotDrawn("one temperature alone makes no ladder")
    panels = _panels(drawn)
    if not panels:
        raise NotDrawn("no observable has a finite value", wanting=True)
    across = min(3, len(panels))
    down = -(-len(panels) // across)
    figure = style.sheet(style.DOUBLE if across > 1 else style.SINGLE, 50.0 * down + 4.0)
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for place, (one, (label, column, exact)) in enumerate(zip(axes, panels, strict=False)):
        _panel(one, drawn.betas, column, exact)
        one.set_ylabel(label)
        one.set_xlabel(rf"$\beta$ (${drawn.inverse_unit}$)")
        style.panel_letter(one, "abcdef"[place])
    for spare in axes[len(panels) :]:
        spare.remove()
    return figure


def _panels(drawn: Drawn) -> list[tuple[str, Column, np.ndarray]]:
    """(label, values, exact values) of what the file has."""
    n, unit, found = drawn.n_spins, drawn.unit, []
    glass = "q2" in drawn.observables
    wanted = [
        ("energy", rf"$E/N$ (${unit}$)", n),
        ("heat_capacity", r"$C/N$ ($k_\mathrm{B}$)", n),
        ("q2", r"$\langle q^2\rangle$", 1) if glass else ("abs_magnetization", r"$\langle|m|\rangle$", 1),
        ("overlap_binder", "Binder cumulant $g$ of $q$", 1) if glass else ("binder", "Binder cumulant $U$ of $m$", 1),
        ("overlap_xi_over_length", r"$\xi/L$ of $q$", 1) if glass else ("xi_over_length", r"$\xi/L$", 1),
        ("log_z", r"$\ln Z/N$", n),
        ("entropy", r"$S/N$ ($k_\mathrm{B}$)", n),
        ("susceptibility", rf"$\chi$ (${drawn.inverse_unit}$)", 1),
    ]
    for name, label, scale in wanted:
        column = drawn.observables.get(name)
        if column is None or not np.isfinite(column.mean).any():
            continue
        exact = drawn.exact(name) / scale if name in ("energy", "log_z") else np.full(drawn.betas.shape, np.nan)
        found.append((label, Column(column.mean / scale, column.error / scale), exact))
    return found[:MOST_PANELS]


def _panel(axes, betas: np.ndarray, column: Column, exact: np.ndarray) -> None:
    there = np.isfinite(column.mean)
    error = np.where(np.isfinite(column.error), column.error, 0.0)[there]
    line = style.line_of(0) | {"marker": "o" if len(betas) < MANY else "."}
    if betas.min() > 0 and betas.max() / betas.min() > WIDE:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.errorbar(betas[there], column.mean[there], error, label="estimate", elinewidth=0.7, **line)
    if np.isfinite(exact).any():
        known = np.isfinite(exact)
        axes.plot(betas[known], exact[known], "x", color=style.COLOURS[1], markersize=5, label="exact", zorder=4)
        axes.legend(loc="best")
