"""Log weights of a sampler's draws: how far they spread, and how much one draw decides."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.figure import Figure

from cli.figures import NotDrawn, style
from cli.figures.drawn import Drawn
from cli.tables import with_error
from mc.weighted import effective_sample_size, largest_weight_share, log_mean_weight

MOST_BETAS = 3
BINS = 50
FEWEST = 2
ROOM_FOR_TEXT, BELOW_TEXT = 300.0, 0.7  # top of an axis of fractions, and how far up its lines go


def weights(drawn: Drawn) -> Figure:
    """ln w of the proposals as drawn and, dashed, weighted by w: what the target itself would show.

    Beside it the ESS, exp(-2 dF), which equals it for Gaussian ln w, and the share of the largest weight.
    """
    stats = drawn.chain.sample_stats
    name = next((name for name in ("log_weight_proposed", "log_weight") if name in stats), None)
    if name is None:
        raise NotDrawn("no weights in the file: they are of nis, prior, nmcmc and neural moves")
    known = {b: _finite(drawn.series(name, b, "sample_stats")) for b in range(len(drawn.betas))}
    known = {b: values for b, values in known.items() if values.size >= FEWEST}
    if not known:
        raise NotDrawn("fewer than two finite weights", wanting=True)
    rows = [list(known)[i] for i in style.chosen(len(known), MOST_BETAS)]
    figure = style.sheet(style.SINGLE if len(rows) == 1 else style.DOUBLE, 66.0)
    for axes, b in zip(figure.subplots(1, len(rows), squeeze=False)[0], rows, strict=True):
        _panel(axes, drawn, b, known[b])
    figure.axes[0].set_ylabel("fraction of draws a bin")
    if len(rows) == 1:
        figure.axes[0].legend(loc="upper right")
    else:
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=3)
    return figure


def _finite(values: np.ndarray) -> np.ndarray:
    """Offers that were made (not NaN) and have a weight; weights of zero cannot be shown on this axis."""
    return values[np.isfinite(values)]


def _panel(axes, drawn: Drawn, b: int, log_weight: np.ndarray) -> None:
    n = drawn.n_spins
    log_z, error = log_mean_weight(log_weight)
    shifted = log_weight - log_z
    low, high = style.roomy(float(shifted.min()), float(shifted.max()))
    edges = np.linspace(low, high, BINS + 1)
    share = np.exp(log_weight - log_weight.max())
    for place, (weight, title) in enumerate(((None, "as drawn"), (share / share.sum(), "weighted by $w$"))):
        counts, _ = np.histogram(shifted, edges, weights=weight)
        axes.stairs(counts / counts.sum(), edges, label=title, **style.line_of(place))
    axes.axvline(0.0, ymax=BELOW_TEXT, color=style.FAINT, linewidth=0.7, linestyle=(0, (1, 2)))
    exact = drawn.exact("log_z")[b]
    if math.isfinite(exact) and low < exact - log_z < high:
        axes.axvline(
            exact - log_z,
            ymax=BELOW_TEXT,
            color=style.EXACT,
            linewidth=0.9,
            linestyle=(0, (6, 3)),
            label=r"exact $\ln Z$",
        )
    axes.set_yscale("log")
    axes.set_ylim(0.4 / log_weight.size, ROOM_FOR_TEXT)
    axes.set_xlim(low, high)
    axes.set_yticks(10.0 ** np.arange(-math.floor(math.log10(log_weight.size)), 1))
    axes.minorticks_off()
    ess, gap = effective_sample_size(log_weight), log_z - float(log_weight.mean())
    lines = [
        f"ESS {ess:.3g}",
        rf"$\exp(-2\,\Delta F)$ {math.exp(-2.0 * gap):.3g}",
        f"largest share {largest_weight_share(log_weight):.2g}",
        rf"$\ln Z/N$ {with_error(log_z / n, error / n)}",
    ]
    axes.text(0.03, 0.97, "\n".join(lines), transform=axes.transAxes, va="top", fontsize=7)
    axes.set_title(drawn.beta_label(b), loc="left")
    axes.set_xlabel(r"$\ln w - \ln\langle w\rangle$")
