"""The overlap matrices of replicas over temperature and field, as small pictures in a plane."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cli.figures import style
from mc.vector.overlap_matrix import block_order

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cli.phase_cells import Cell

BELOW = style.COLOURS[1]


def picture(cells: Sequence[Cell]) -> Figure:
    """q_ab of the last draw, a matrix a cell: T to the right, h upwards. Frames: below the AT line."""
    temperatures, fields = sorted({cell.T for cell in cells}), sorted({cell.h for cell in cells})
    rows, columns = len(fields), len(temperatures)
    figure = style.sheet(style.DOUBLE, 12.0 + 26.0 * rows)
    axes = figure.subplots(rows, columns, squeeze=False)
    for cell in cells:
        own = axes[rows - 1 - fields.index(cell.h), temperatures.index(cell.T)]
        matrix = np.array(cell.matrix)
        order = block_order(matrix)  # alike replicas side by side
        image = own.imshow(matrix[np.ix_(order, order)], vmin=-1.0, vmax=1.0, cmap="RdBu_r")
        own.set_xticks([])
        own.set_yticks([])
        mark = "" if cell.equilibrated == "yes" else "*"
        turned = f"rotated {cell.rotation:.3f} ± {cell.rotation_spread:.3f}"
        own.set_title(f"{cell.mean:.2f} ± {cell.spread:.2f}{mark}\n{turned}", fontsize=5, pad=2)
        for side in own.spines.values():
            side.set_color(BELOW if cell.below_line else style.FAINT)
            side.set_linewidth(2.0 if cell.below_line else 0.6)
    for column, T in enumerate(temperatures):
        axes[-1, column].set_xlabel(f"T = {T:.4g}")
    for row, h in enumerate(reversed(fields)):
        axes[row, 0].set_ylabel(f"h = {h:.4g}")
    figure.colorbar(image, ax=axes, shrink=0.6, label=r"$q_{ab} = \sum_i s_i^a \cdot s_i^b / (N R^2)$")
    figure.suptitle(
        r"Overlaps of replicas. Above each: mean $|q_{ab}|$ ± spread over pairs, and after rotating one into "
        "the other;\n* equilibrium not shown; thick frames: below the AT line (large N)"
    )
    return figure
