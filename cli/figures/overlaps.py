"""Distributions of order parameters: P(m) of the magnetization and P(q) of the overlap."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from cli.figures import NotDrawn, style
from cli.figures.drawn import Drawn
from mc.vector.hamiltonian import VectorHamiltonian
from mc.vector.profiles import BINS

MOST_LINES = 4
MOST_BINS = 81
ON_THE_GRID = 1e-6  # of a step of 2/N
ROOM_FOR_LEGEND = 1.12


@dataclass(frozen=True)
class Density:
    """A density over [-1, 1]: middles and values (bins,), error one standard error (NaN where none is known)."""

    middle: np.ndarray
    value: np.ndarray
    error: np.ndarray


def magnetization(drawn: Drawn) -> Figure:
    """P(m), error bars from the scatter between chains; with weights where the draws carry them."""
    if not drawn.has("magnetization"):
        raise NotDrawn("no magnetization in the file")
    figure = style.sheet(style.SINGLE, 64.0)
    axes = figure.subplots()
    rows = style.chosen(len(drawn.betas), MOST_LINES)
    for place, b in enumerate(rows):
        m, weight = drawn.series("magnetization", b), drawn.log_weight(b)
        m = m.reshape(*m.shape[:2], -1)
        title = None if len(drawn.betas) == 1 else drawn.beta_label(b)
        beside = weight is not None and len(rows) == 1
        if beside:
            _line(axes, density(m, drawn.n_spins), 1, 2, "as drawn")
        _line(axes, density(m, drawn.n_spins, weight), place, len(rows), "weighted" if beside else title)
    _finish(axes, "magnetization per spin $m$", "$P(m)$")
    return figure


def overlap(drawn: Drawn) -> Figure:
    """P(q), with the band of one standard error; the mean of P(q) and P(-q) where the energy is symmetric."""
    series = drawn.has("overlap")
    stored = [] if series else _of_pairs(drawn)
    if not series and not stored:
        raise NotDrawn("no overlaps in the file: they need replicas=2, or draws of a sampler of a frustrated model")
    figure = style.sheet(style.SINGLE, 64.0)
    axes = figure.subplots()
    rows = style.chosen(len(drawn.betas), MOST_LINES)
    symmetric = drawn.hamiltonian.is_z2_symmetric
    steps = BINS if isinstance(drawn.hamiltonian, VectorHamiltonian) else drawn.n_spins
    for place, b in enumerate(rows):
        if series:
            q = drawn.series("overlap", b)
            found = density(q.reshape(*q.shape[:2], -1), steps, symmetric=symmetric)
        else:
            found = stored[b]
        title = None if len(drawn.betas) == 1 else drawn.beta_label(b)
        _line(axes, found, place, len(rows), title, band=True)
    _finish(axes, "overlap $q$", "$P(q)$")
    return figure


def _of_pairs(drawn: Drawn) -> list[Density]:
    """P(q) of pairs of draws at every beta, as stored by the run or worked out anew; [] without."""
    table = drawn.chain.observables.get("overlap_distribution")
    if table is not None and drawn.chain.complete:
        q, means, errors = table["q"], table["mean"], table["error"]
        half = drawn.n_spins / 2.0
        return [Density(q, half * mean, half * error) for mean, error in zip(means, errors, strict=True)]
    if drawn.chain.mode not in ("nis", "prior", "nmcmc") or drawn.hamiltonian.is_ferromagnet:
        return []
    return [Density(o.q, o.density, o.error * drawn.n_spins / 2.0) for o in drawn.results_to_draw.overlaps]


def density(
    values: np.ndarray, n_spins: int, log_weight: np.ndarray | None = None, symmetric: bool = False
) -> Density:
    """The density of values (chain, draw, own axes) in [-1, 1] that lie on the grid of steps 2/N.

    Bins hold equally many points of the grid and are symmetric about 0, so that no bin is high by counting alone.
    log_weight: (chain, draw). symmetric: mean of P(x) and P(-x). The error is the scatter between chains.
    """
    step, edges, points = bins_of_grid(n_spins)
    chains = []
    if log_weight is not None:
        known = np.isfinite(log_weight)
        if not known.any():
            raise NotDrawn("no weight is above zero", wanting=True)
        log_weight = np.where(known, log_weight - log_weight[known].max(), -np.inf)
    for c, chain in enumerate(values):
        weight = None
        if log_weight is not None:
            weight = np.repeat(np.exp(log_weight[c]), chain.shape[1])
        flat = chain.ravel()
        good = np.isfinite(flat)
        place = np.searchsorted(edges, np.clip(flat[good], -1.0, 1.0) + 1e-9, side="right") - 1
        place = np.clip(place, 0, len(points) - 1)
        counts = np.bincount(place, None if weight is None else weight[good], len(points))
        counts = (counts + counts[::-1]) / 2.0 if symmetric else counts
        chains.append(counts)
    counts = np.asarray(chains, np.float64)
    totals = counts.sum(axis=1, keepdims=True)
    if totals.sum() == 0:
        raise NotDrawn("no value is finite")
    mean = counts.sum(axis=0) / totals.sum()
    error = np.full(mean.shape, np.nan)
    n = len(counts)
    if n > 1 and (totals > 0).all():
        share = totals / totals.sum()  # with weights a chain counts by what it weighs
        error = np.sqrt(np.sum(share**2 * (counts / totals - mean) ** 2, axis=0) * n / (n - 1))
    width = points * step
    return Density(middles(n_spins, edges, points), mean / width, error / width)


def middles(n_spins: int, edges: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Mean of the points of the grid in each bin; the outermost bins may reach beyond +-1."""
    grid = np.linspace(-1.0, 1.0, n_spins + 1)
    place = np.searchsorted(edges, grid + 1e-9, side="right") - 1
    return np.bincount(place, grid, len(points)) / points


def bins_of_grid(n_spins: int) -> tuple[float, np.ndarray, np.ndarray]:
    """(step, edges (bins + 1,), points of the grid in each bin (bins,)) for the values -1, -1 + 2/N, ..., 1."""
    step = 2.0 / n_spins
    many = max(1, math.ceil((n_spins + 1) / MOST_BINS))
    if many > 1 and (many % 2 == 0) == (n_spins % 2 == 0):
        many += 1  # else no bin about 0 is symmetric
    half = math.ceil(((n_spins + 1) / many - 1) / 2)
    edges = many * step * (np.arange(-half, half + 2) - 0.5)
    if many == 1 and n_spins % 2:
        edges = step * (np.arange(n_spins + 2) - (n_spins + 1) / 2.0)
    grid = -1.0 + step * np.arange(n_spins + 1)
    points = np.bincount(np.searchsorted(edges, grid + 1e-9, side="right") - 1, minlength=len(edges) - 1)
    return step, edges, np.maximum(points, 1)


def _line(axes, found: Density, place: int, count: int, title: str | None, band: bool = False) -> None:
    line = style.line_of_beta(place, count)
    axes.plot(found.middle, found.value, label=title, markevery=max(1, len(found.middle) // 20), **line)
    if not np.isfinite(found.error).any():
        return
    if band:
        low, high = np.maximum(found.value - found.error, 0.0), found.value + found.error
        axes.fill_between(found.middle, low, high, color=line["color"], alpha=0.22, linewidth=0)
    else:
        axes.errorbar(found.middle, found.value, found.error, fmt="none", ecolor=line["color"], elinewidth=0.6)


def _finish(axes, x: str, y: str) -> None:
    seen = [abs(x) for line in axes.lines for x, y in zip(*line.get_data(), strict=True) if y > 0]
    step = max((np.diff(line.get_xdata()).max(initial=0.0) for line in axes.lines), default=0.0)
    reach = min(1.04, max(1.1 * max(seen, default=1.0), 0.1) + step)
    axes.set_xlim(-reach, reach)
    axes.locator_params(axis="x", nbins=5)
    axes.set_ylim(0.0, axes.get_ylim()[1] * ROOM_FOR_LEGEND)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc="best")
