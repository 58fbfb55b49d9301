"""Time series: the energy of every chain with its histogram, and autocorrelation functions.

Source of the error of rho(t): M. Luescher, Comput. Phys. Commun. 165, 199 (2005), eq. E.11.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from matplotlib.figure import Figure

from cli.figures import NotDrawn, style
from cli.figures.drawn import Drawn
from cli.output import counted
from cli.tables import with_error
from mc.gamma_method import gamma_method
from mc.statistics import autocorrelation as rho_of
from mc.statistics import estimate

MOST_BETAS = 3  # rows of traces
MOST_CHAINS = 8  # that are told apart
MOST_POINTS = 150  # of a trace that is shown draw by draw
PIECES, ENVELOPE = 100, 600  # of longer ones: means of so many pieces, within the range of so many
BINS = 60
MOST_LINES = 5  # of one panel of autocorrelations
FEWEST_DRAWS = 4  # for an autocorrelation
LEAST_LAGS, WINDOWS = 8, 2.5  # how far rho(t) is shown, in draws and in windows


def energy(drawn: Drawn) -> Figure:
    """Energy per spin of every chain against the draw, and its histogram; lowest, middle and highest beta."""
    if not drawn.n_draws:
        raise NotDrawn("no draws yet")
    rows = style.chosen(len(drawn.betas), MOST_BETAS)
    figure = style.sheet(style.DOUBLE, 14.0 + 42.0 * len(rows))
    panels = np.atleast_2d(figure.subplots(len(rows), 2, width_ratios=(3.2, 1), sharey="row"))
    for (trace, histogram), b in zip(panels, rows, strict=True):
        values = drawn.series("energy", b) / drawn.n_spins
        values = np.where(np.isfinite(values), values, np.nan)
        if not np.isfinite(values).any():
            raise NotDrawn("no energy is finite")
        _traces(trace, values.reshape(*values.shape[:2], -1)[:, :, 0])
        _histograms(histogram, drawn, values, b)
        exact = drawn.exact("energy")[b] / drawn.n_spins
        if math.isfinite(exact):
            for axes in (trace, histogram):
                axes.axhline(exact, color=style.EXACT, linestyle=(0, (6, 3)), linewidth=0.9, zorder=3)
            histogram.plot([], [], color=style.EXACT, linestyle=(0, (6, 3)), label="exact mean")
        low, high = np.nanmin(values), np.nanmax(values)
        trace.set_ylim(*style.roomy(float(np.fmin(low, exact)), float(np.fmax(high, exact))))
        trace.set_ylabel(rf"$E/N$ (${drawn.unit}$)")
        trace.set_title(drawn.beta_label(b), loc="left")
        trace.set_xlim(-0.5, drawn.n_draws - 0.5)
        if b == rows[0] and histogram.get_legend_handles_labels()[1]:
            histogram.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    panels[-1, 0].set_xlabel(f"{drawn.draw_word}s")
    panels[-1, 1].set_xlabel(rf"density ($1/{drawn.unit}$)")
    return figure


def _traces(axes, values: np.ndarray) -> None:
    """Every draw of short chains (chain, draw); of long ones means of pieces, and the range of all chains in grey."""
    draws = values.shape[1]
    pieces = MOST_POINTS if draws <= MOST_POINTS else PIECES
    if draws > pieces:
        axes.fill_between(*envelope(values, min(draws, ENVELOPE)), color=style.BAND, linewidth=0, label="range")
    for number, chain in enumerate(values[:MOST_CHAINS]):
        middle, mean = piece_means(chain, min(draws, pieces))
        axes.plot(middle, mean, **style.line_of(number), linewidth=0.9, marker="." if draws < 3 else "")
    if draws > pieces:
        text = f"grey: range of all draws; lines: means of {counted(round(draws / pieces), 'draw')}"
        axes.set_title(text, loc="right", fontsize=7, color=style.FAINT)


def piece_means(x: np.ndarray, pieces: int) -> tuple[np.ndarray, np.ndarray]:
    """Middles and means (pieces,) of consecutive pieces of x (draw,)."""
    starts, middle = _pieces(len(x), pieces)
    return middle, np.add.reduceat(x, starts) / np.diff(starts, append=len(x))


def envelope(x: np.ndarray, pieces: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Middles of consecutive pieces of x (chain, draw), and the range in each; NaN do not count."""
    starts, middle = _pieces(x.shape[1], pieces)
    low = np.fmin.reduce(np.fmin.reduceat(x, starts, axis=1), axis=0)
    return middle, low, np.fmax.reduce(np.fmax.reduceat(x, starts, axis=1), axis=0)


def _pieces(length: int, pieces: int) -> tuple[np.ndarray, np.ndarray]:
    starts = np.arange(pieces) * length // pieces
    return starts, (starts + np.append(starts[1:], length) - 1) / 2.0


def _histograms(axes, drawn: Drawn, values: np.ndarray, b: int) -> None:
    """Sideways densities: one line a chain, or with weights one of the draws and one of the target."""
    edges = _edges(values)
    weight = drawn.log_weight(b)
    if weight is not None:
        flat = values.reshape(*values.shape[:2], -1)[:, :, 0].ravel()
        good = np.isfinite(flat) & np.isfinite(weight.ravel())
        share = np.exp(weight.ravel()[good] - weight.ravel()[good].max()) if good.any() else flat[good]
        _sideways(axes, flat[good], edges, share, style.line_of(0) | {"label": "weighted"})
        _sideways(axes, flat[good], edges, None, style.line_of(1) | {"label": "as drawn"})
        return
    for number, chain in enumerate(values[:MOST_CHAINS]):
        label = f"chain {number}" if len(values) > 1 else None
        flat = chain.ravel()
        _sideways(axes, flat[np.isfinite(flat)], edges, None, style.line_of(number) | {"label": label})
    if len(values) > MOST_CHAINS:
        axes.plot([], [], " ", label=f"of {len(values)}")


def _edges(values: np.ndarray) -> np.ndarray:
    """Edges of bins; where energies lie on a grid, bins hold equally many of its points."""
    flat = values[np.isfinite(values)]
    low, high = float(flat.min()), float(flat.max())
    some = np.unique(flat[:: max(1, flat.size // 20_000)])
    step = float(np.diff(some).min()) if some.size > 1 else 0.0
    span = high - low
    if step and np.abs(np.rint((some - low) / step) - (some - low) / step).max() < 1e-6 and span / step < 1e6:
        many = max(1, math.ceil(span / step / BINS))
        return low - step / 2 + many * step * np.arange(math.ceil((span / step + 1) / many) + 1)
    if not span:
        half = max(abs(low) * 0.005, 1e-3)
        return np.array([low - half, low + half])
    return np.linspace(low, high, BINS + 1)


def _sideways(axes, values: np.ndarray, edges: np.ndarray, weights, line: dict) -> None:
    if not values.size:
        return
    density, _ = np.histogram(values, edges, weights=weights, density=True)
    axes.stairs(density, edges, orientation="horizontal", linewidth=0.9, **line)
    axes.set_xlim(left=0.0)


def autocorrelation(drawn: Drawn) -> Figure:
    """rho(t) with its error band and the window of the Gamma method, of the energy and of q^2, |m| or m^2."""
    if drawn.n_draws < FEWEST_DRAWS:
        raise NotDrawn(f"{counted(drawn.n_draws, 'draw')} a chain: too few for an autocorrelation", wanting=True)
    panels: list[tuple[str, Callable[[int], np.ndarray]]] = [("E", lambda b: drawn.replicas_as_chains("energy", b))]
    overlap = "overlap_norm" if drawn.has("overlap_norm") else "overlap"
    if drawn.has(overlap):
        panels.append(("q^2", lambda b: drawn.replicas_as_chains(overlap, b) ** 2))
    elif drawn.has("magnetization"):
        panels.append(("|m|", lambda b: np.abs(drawn.replicas_as_chains("magnetization", b))))
    figure = style.sheet(style.DOUBLE if len(panels) > 1 else style.SINGLE, 66.0)
    rows = style.chosen(len(drawn.betas), MOST_LINES)
    some = False
    for axes, (symbol, series) in zip(
        np.atleast_1d(figure.subplots(1, len(panels), sharey=True)), panels, strict=True
    ):
        some |= _correlations(axes, drawn, rows, series)
        axes.axhline(0.0, color=style.FAINT, linewidth=0.5)
        axes.set_xlabel(rf"lag $t$ ({drawn.draw_word}s)")
        axes.set_title(f"${symbol}$", loc="left")
    if not some:
        raise NotDrawn("no series changes: nothing to correlate", wanting=True)
    figure.axes[0].set_ylabel(r"autocorrelation $\rho(t)$")
    return figure


def _correlations(axes, drawn: Drawn, rows: list[int], series: Callable[[int], np.ndarray]) -> bool:
    """One line for each of some betas; False where nothing changes at any."""
    found = []
    for place, b in enumerate(rows):
        x = series(b)
        if not np.isfinite(x).all() or np.ptp(x) == 0:
            continue
        y = x - x.mean()
        found.append((place, b, x, gamma_method(y / np.abs(y).max()).window))
    if not found:
        axes.text(0.5, 0.5, "constant", transform=axes.transAxes, ha="center", va="center")
        return False
    lags = min(max(LEAST_LAGS, math.ceil(WINDOWS * max(window for *_, window in found))), drawn.n_draws - 1)
    for place, b, x, window in found:
        rho = rho_of(x, min(2 * lags, drawn.n_draws - 1))
        error = error_of_rho(rho, window, x.size)[: lags + 1]
        rho, t = rho[: lags + 1], np.arange(lags + 1)
        result = estimate(x)
        line = style.line_of_beta(place, len(rows))
        tau = with_error(result.tau_int, result.tau_int_error)
        title = rf"$\tau_\mathrm{{int}} = {tau}$"
        title = title if len(drawn.betas) == 1 else f"{drawn.beta_label(b)}: {title}"
        axes.fill_between(t, rho - error, rho + error, color=line["color"], alpha=0.2, linewidth=0)
        axes.plot(t, rho, label=title, markevery=max(1, lags // 12), **line)
        if window <= lags:
            axes.plot([window, window], [rho[window] - 0.07, rho[window] + 0.07], color=line["color"], linewidth=1.4)
    axes.plot([], [], "|", color=style.FAINT, markersize=7, label="window of the sum")
    axes.set_xlim(-0.02 * lags, lags)
    axes.set_ylim(top=1.05)
    axes.legend(loc="upper right")
    return True


def error_of_rho(rho: np.ndarray, window: int, total: int) -> np.ndarray:
    """One standard error of rho (lags + 1,) of `total` draws; beyond the last lag rho counts as 0.

    Luescher 2005, eq. E.11: the variance of rho(t) is the sum over k = 1 .. t + W of
    [rho(k + t) + rho(k - t) - 2 rho(k) rho(t)]^2, divided by the number of draws.
    """
    lags = len(rho) - 1
    padded = np.concatenate([rho, np.zeros(lags + window + 1)])
    variance = np.zeros(lags + 1)
    for t in range(1, lags + 1):
        k = np.arange(1, t + window + 1)
        variance[t] = np.sum((padded[k + t] + padded[np.abs(k - t)] - 2.0 * padded[k] * rho[t]) ** 2) / total
    return np.sqrt(variance)
