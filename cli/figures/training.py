"""How a training went: the variational free energy against the exact one, the ESS, the loss."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from matplotlib.figure import Figure

from cli.figures import NotDrawn, style
from cli.figures.drawn import Drawn

MOST_LINES = 5


def training(drawn: Drawn) -> Figure:
    """Panels over training steps: F_q per spin (the exact F dashed), beta (F_q - F) where F is known, ESS, loss."""
    history = drawn.chain.training
    steps = np.atleast_1d(history.get("step", np.zeros(0)))
    if not len(steps):
        raise NotDrawn("no training in the file")
    columns = {
        name: _by_beta(history[name], len(steps)) for name in history if name not in ("step", "at_beta", "beta")
    }
    exact = _exact_free_energy(drawn)
    panels = []
    free_energy = columns.get("free_energy")
    cooled = "at_beta" in history
    if free_energy is not None and np.isfinite(free_energy).any():
        # A cooled sampler has another temperature at every step: no one F to compare with.
        panels.append(lambda axes: _free_energies(axes, drawn, steps, free_energy, None if cooled else exact))
        if not cooled and np.isfinite(exact).any():
            gap = drawn.betas * free_energy + drawn.exact("log_z")
            panels.append(lambda axes: _lines(axes, drawn, steps, gap, r"$\beta\,(F_q - F)$ (nats)", log=True))
    for name, label, log in (
        ("ess", "ESS", False),
        ("lowest", rf"lowest energy drawn (${drawn.unit}$)", False),
        ("loss", "loss (nats)", False),
    ):
        values = columns.get(name)
        if values is not None and np.isfinite(values).any():
            panels.append(lambda axes, v=values, text=label, log=log: _lines(axes, drawn, steps, v, text, log))
    if not panels:
        raise NotDrawn("the training noted nothing that is finite", wanting=True)
    return _laid_out(panels, drawn)


def _laid_out(panels: list[Callable], drawn: Drawn) -> Figure:
    across = 1 if len(panels) == 1 else 2
    down = -(-len(panels) // across)
    figure = style.sheet(style.DOUBLE if across > 1 else style.SINGLE, 52.0 * down + 4.0)
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for place, (one, panel) in enumerate(zip(axes, panels, strict=False)):
        panel(one)
        style.panel_letter(one, "abcdef"[place])
        one.set_xlabel("training step")
    for spare in axes[len(panels) :]:
        spare.remove()
    return figure


def _by_beta(values: np.ndarray, steps: int) -> np.ndarray:
    """(step, beta), also for one beta."""
    return np.asarray(values, np.float64).reshape(steps, -1)


def _exact_free_energy(drawn: Drawn) -> np.ndarray:
    """F = -ln Z / beta, (B,), NaN where it is not known."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(drawn.betas > 0, -drawn.exact("log_z") / drawn.betas, np.nan)


def _free_energies(axes, drawn: Drawn, steps: np.ndarray, values: np.ndarray, exact: np.ndarray | None) -> None:
    n = drawn.n_spins
    _lines(axes, drawn, steps, values / n, rf"$F_q/N$ (${drawn.unit}$)")
    if exact is None or not np.isfinite(exact).any():
        return
    for b in style.chosen(len(drawn.betas), MOST_LINES):
        axes.axhline(exact[b] / n, color=style.EXACT, linestyle=(0, (6, 3)), linewidth=0.9)
    axes.plot([], [], color=style.EXACT, linestyle=(0, (6, 3)), label="exact $F/N$")
    axes.legend(loc="best")


def _lines(axes, drawn: Drawn, steps: np.ndarray, values: np.ndarray, label: str, log: bool = False) -> None:
    """One line a temperature; a logarithmic scale only where it shows more than half of the points."""
    count = values.shape[1]
    rows = style.chosen(count, MOST_LINES)
    for place, b in enumerate(rows):
        there = np.isfinite(values[:, b])
        title = drawn.beta_label(b) if count == len(drawn.betas) and count > 1 else None
        line = style.line_of_beta(place, len(rows))
        axes.plot(steps[there], values[there, b], label=title, markevery=max(1, there.sum() // 15), **line)
    if log and np.mean(values[np.isfinite(values)] > 0) > 0.5:
        axes.set_yscale("log")
    axes.set_ylabel(label)
    axes.set_xlim(*style.roomy(float(steps[0]), float(steps[-1]), 0.03))
    if count > 1:
        axes.legend(loc="best")
