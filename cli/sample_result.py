"""The result of `nmcmc sample`: its arrays, its numbers by row, its file, and what is shown of it."""

from __future__ import annotations

import math
import shlex
import zipfile
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from cli.errors import UserError
from cli.output import counted
from mc.chain_lock import reason, replacement
from mc.weighted import FEWEST_EFFECTIVE_DRAWS, effective_sample_size, log_mean_weight, weighted_estimate

FORMAT = "nmcmc-samples-1"  # an entry `schema` would make it one of the files that an export may replace
ROWS_SHOWN = 8


@dataclass(frozen=True)
class Draws:
    """Completions of n partly known configurations, N draws of each; the arrays of the result.

    spins (n, N, sites) int8. log_q (n, N): ln q(drawn | known). energy (n, N). log_weight (n, N) = -beta E - log_q.
    known (n, sites) bool. log_marginal (n,): ln p(known) by the marginal head, NaN where there is none. log_known
    (n,): ln q(known) by conditionals.
    """

    spins: np.ndarray
    log_q: np.ndarray
    energy: np.ndarray
    log_weight: np.ndarray
    known: np.ndarray
    log_marginal: np.ndarray
    log_known: np.ndarray


@dataclass(frozen=True)
class Row:
    """What the draws of one row say: ln Z(known) = ln sum over completions exp(-beta E), <E> given the known spins.

    ess: <w>^2 / <w^2>, a fraction. Errors are one sigma, NaN below 20 effective draws.
    """

    row: int
    known: int
    unknown: int
    ess: float
    log_z: float
    log_z_error: float
    energy: float
    energy_error: float
    log_marginal: float
    log_known: float


def judged(drawn: Draws) -> list[Row]:
    """The numbers of each row."""
    rows = []
    for row, (energy, log_weight) in enumerate(zip(drawn.energy, drawn.log_weight, strict=True)):
        mean, (log_z, error) = weighted_estimate(energy, log_weight, "energy"), log_mean_weight(log_weight)
        known = int(drawn.known[row].sum())
        sure = mean.n_eff >= FEWEST_EFFECTIVE_DRAWS
        found = dict(
            row=row, known=known, unknown=drawn.known.shape[1] - known, ess=effective_sample_size(log_weight),
            log_z=log_z, log_z_error=error if sure else math.nan, energy=mean.mean, energy_error=mean.error,
            log_marginal=float(drawn.log_marginal[row]), log_known=float(drawn.log_known[row]),
        )  # fmt: skip
        rows.append(Row(**found))
    return rows


def is_result(path: Path) -> bool:
    """Whether a file was written by this command; never raises."""
    try:
        if not (path.is_file() and zipfile.is_zipfile(path)):
            return False
        with path.open("rb") as file:
            return str(np.load(file, allow_pickle=False)["format"]) == FORMAT
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error):
        return False


def write(target: Path, out: Path, drawn: Draws, rows: list[Row], others: dict[str, np.ndarray]) -> None:
    """The .npz, whole or not at all; UserError, code 1, where the disk does not take it."""
    of_rows = {name: np.array([getattr(row, name) for row in rows]) for name in ("ess", "log_z", "log_z_error")}
    try:
        with replacement(target, fresh=True) as part, part.open("wb") as file:
            np.savez(file, **vars(drawn), **of_rows, **others)
    except OSError as error:
        raise UserError(f"{out} cannot be written ({reason(error)}); choose another --out", code=1) from None


def table(rows: list[Row]) -> list[str]:
    """The first rows, and what to think of all."""
    head = ("row", "known", "ESS", "ln Z(known)", "error", "<energy>", "error", "ln p(known) head", "conditionals")
    shown = [
        (f"{r.row}", f"{r.known}", f"{r.ess:.3f}", f"{r.log_z:.4f}", _error(r.log_z_error), f"{r.energy:.4f}",
         _error(r.energy_error), _number(r.log_marginal), _number(r.log_known))
        for r in rows[:ROWS_SHOWN]
    ]  # fmt: skip
    widths = [max(len(line[column]) for line in [head, *shown]) for column in range(len(head))]
    lines = [
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in [head, *shown]
    ]
    if len(rows) > ROWS_SHOWN:
        lines.append(f"... and {counted(len(rows) - ROWS_SHOWN, 'row')} more, in the file")
    few = [row.row for row in rows if math.isnan(row.log_z_error)]
    if few:
        lines.append(
            f"note: {counted(len(few), 'row')}, the first is row {few[0]}, with fewer than {FEWEST_EFFECTIVE_DRAWS} "
            "effective draws: no errors; take more --draws, or train further"
        )
    return lines


def ending(out: Path, drawn: Draws) -> str:
    """Where it is, how much, and how to look at it."""
    code = f"import numpy as np; r = np.load({str(out)!r}); print({{k: r[k].shape for k in r}})"
    plain_name = shlex.quote(str(out)) == str(out)
    size = " x ".join((counted(len(drawn.spins), "row"), counted(drawn.spins.shape[1], "draw")))
    look = f'python -c "{code}"' if plain_name else f"python -c {shlex.quote(code)}"
    return f"result: {shlex.quote(str(out))} ({size}); look at it with: {look}"


def plain(row: Row) -> dict[str, float | None]:
    """A row as JSON types, NaN as null."""
    return {name: None if isinstance(x, float) and not math.isfinite(x) else x for name, x in asdict(row).items()}


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


def _error(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2g}"
