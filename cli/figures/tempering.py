"""How replicas move along a ladder of temperatures: swaps, flips, round trips."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.figure import Figure

from cli.figures import NotDrawn, style
from cli.figures.drawn import Drawn


def swaps(drawn: Drawn) -> Figure:
    """Acceptance of swaps between neighbours and fraction of spins flipped; trips hot - cold - hot of the replicas.

    The file holds no path of a replica, but what its sampler state counts: round trips since the warm-up.
    """
    if "swap_accepted" not in drawn.chain.sample_stats:
        raise NotDrawn("no swaps: they are of --mode pt")
    if len(drawn.betas) < 2 or not drawn.n_draws:
        raise NotDrawn("one temperature alone is swapped with nobody")
    trips = _round_trips(drawn)
    figure = style.sheet(style.DOUBLE if trips is not None else style.SINGLE, 64.0)
    panels = np.atleast_1d(figure.subplots(1, 1 if trips is None else 2))
    _rates(panels[0], drawn)
    if trips is not None:
        _trips(panels[1], drawn, trips)
        for axes, letter in zip(panels, "ab", strict=True):
            style.panel_letter(axes, letter)
    return figure


def _rates(axes, drawn: Drawn) -> None:
    betas = drawn.betas
    between = (betas[1:] + betas[:-1]) / 2.0
    _points(axes, between, drawn.mean_over_draws("swap_accepted")[:, :-1], 0, "swaps of neighbours")
    if "accepted" in drawn.chain.sample_stats:
        _points(axes, betas, drawn.mean_over_draws("accepted"), 1, "spins flipped by a sweep")
    if "neural_accepted" in drawn.chain.sample_stats:
        rates = drawn.mean_over_draws("neural_accepted")
        offered = np.isfinite(rates).any(axis=0)
        _points(axes, betas[offered], rates[:, offered], 2, "states of the sampler taken")
    axes.set_ylim(0.0, 1.3)
    axes.set_yticks(np.linspace(0.0, 1.0, 6))
    axes.set_xlabel(rf"$\beta$ (${drawn.inverse_unit}$)")
    axes.set_ylabel("fraction accepted")
    axes.legend(loc="upper right")


def _points(axes, x: np.ndarray, rates: np.ndarray, place: int, title: str) -> None:
    """Means over chains of rates (chain, point), bars from their scatter."""
    there = np.isfinite(rates).all(axis=0)
    rates, x = rates[:, there], x[there]
    if not x.size:
        return
    error = rates.std(axis=0, ddof=1) / math.sqrt(len(rates)) if len(rates) > 1 else np.zeros(len(x))
    line = style.line_of(place) | {"marker": style.MARKS[place]}
    axes.errorbar(x, rates.mean(axis=0), error, label=title, elinewidth=0.7, **line)


def _round_trips(drawn: Drawn) -> np.ndarray | None:
    """(chain, replica) from the sampler state, None where the file has none (merged files)."""
    trips = drawn.state().get("round_trips")
    return trips if isinstance(trips, np.ndarray) and trips.ndim == 2 and trips.size else None


def _trips(axes, drawn: Drawn, trips: np.ndarray) -> None:
    """How many trips each replica made, chain by chain, in order of their number."""
    for number, chain in enumerate(trips[:4]):
        line = style.line_of(number) | {"marker": style.MARKS[number]}
        axes.plot(np.arange(1, len(chain) + 1), np.sort(chain)[::-1], label=f"chain {number}", **line)
    mean = float(trips.mean())
    if mean:
        draws = f"{drawn.n_draws / mean:.3g}"
        axes.axhline(mean, color=style.EXACT, linewidth=0.7, linestyle=(0, (6, 3)))
        axes.set_title(f"one trip in {draws} draw{'' if draws == '1' else 's'}", loc="right", fontsize=7)
    axes.set_ylim(0.0, max(1.0, 1.35 * trips.max()))
    axes.set_xlabel("replica, in order of its trips")
    axes.set_ylabel("round trips hot – cold – hot")
    axes.legend(loc="upper right", ncols=2)
