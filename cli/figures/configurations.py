"""Pictures of states: square lattices as images from the start of a run to its end, cubes as slices."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from cli.figures import NotDrawn, style
from cli.figures.drawn import Drawn

MOST_DRAWS, MOST_BETAS = 5, 3  # of squares
MOST_SLICES, MOST_CUBES = 6, 3
DOWN_AND_UP = ListedColormap(["#F0E2C0", "#1F3B57"])
LARGEST_SIDE = 4096  # beyond, a picture is thinned anyway


def configurations(drawn: Drawn) -> Figure:
    """States of the first chain: up dark, down light."""
    lattice = drawn.hamiltonian.lattice
    if lattice is None or lattice.dimension not in (2, 3):
        raise NotDrawn("no square or cubic lattice")
    kept = drawn.chain.spin_draws
    if not len(kept):
        raise NotDrawn("no spins were kept (spins.every=0)")
    return _squares(drawn, kept, lattice.shape) if lattice.dimension == 2 else _cubes(drawn, kept, lattice.shape)


def _squares(drawn: Drawn, kept: np.ndarray, shape: tuple[int, int]) -> Figure:
    rows, betas = style.chosen(len(kept), MOST_DRAWS), style.chosen(len(drawn.betas), MOST_BETAS)
    side = style.DOUBLE / MOST_DRAWS
    tall = side * min(shape[0] / shape[1], 2.0)
    figure = style.sheet(max(style.SINGLE, side * len(rows)), (tall + 6.0) * len(betas) + 4.0)
    panels = figure.subplots(len(betas), len(rows), squeeze=False)
    for line, b in zip(panels, betas, strict=True):
        states = drawn.spins(rows, b).reshape(len(rows), *shape)
        for axes, state, row in zip(line, states, rows, strict=True):
            _image(axes, state)
            axes.set_title(f"{drawn.draw_word} {kept[row]}")
        line[0].set_ylabel(drawn.beta_label(b))
    return figure


def _cubes(drawn: Drawn, kept: np.ndarray, shape: tuple[int, int, int]) -> Figure:
    """Slices of the coldest state: a row a draw."""
    rows, slices = style.chosen(len(kept), MOST_CUBES), style.chosen(shape[0], MOST_SLICES)
    b = int(np.argmax(drawn.betas))
    side = style.DOUBLE / MOST_SLICES
    figure = style.sheet(max(style.SINGLE, side * len(slices)), (side + 5.0) * len(rows) + 6.0)
    panels = figure.subplots(len(rows), len(slices), squeeze=False)
    states = drawn.spins(rows, b).reshape(len(rows), *shape)
    for line, state, row in zip(panels, states, rows, strict=True):
        for axes, z in zip(line, slices, strict=True):
            _image(axes, state[z])
            axes.set_title(f"$z = {z}$")
        line[0].set_ylabel(f"{drawn.draw_word} {kept[row]}")
    figure.suptitle(drawn.beta_label(b), x=0.01, ha="left")
    return figure


def _image(axes, state: np.ndarray) -> None:
    thin = max(1, -(-max(state.shape) // LARGEST_SIDE))
    axes.imshow(state[::thin, ::thin], cmap=DOWN_AND_UP, vmin=-1, vmax=1, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
