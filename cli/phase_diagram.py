"""`nmcmc phase-diagram`: overlap matrices of replicas of a vector-spin glass over temperature and field, and a
picture.

One tempering run a field, each a chain file that is resumed; the temperatures asked for get others between them, so
that neighbours exchange.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from cli import values
from cli.arguments import Target, default_out, parse, split_words
from cli.errors import UserError
from cli.options import Options
from cli.output import Screen, counted
from cli.results import opened
from cli.run import run
from cli.settings import VECTOR
from mc.chain import Chain
from mc.chain_lock import ChainError, replacement, writable_target
from mc.equilibration import equilibrated
from mc.exact import almeida_thouless
from mc.exact.vector_glass import LOWEST, VectorGlass, glass_of
from mc.vector.hamiltonian import VectorHamiltonian
from mc.vector.overlap_matrix import (
    noise_floor,
    overlap_matrix,
    pair_values,
    rotation_overlaps,
)

REPLICAS = 5  # as in the thesis, fig. 4.2
SWAPS = 1.3  # ln of neighbouring temperatures times sqrt(C): about a third of the swaps succeed
WIDEST = 1e9  # the hottest of a ladder over the coldest
MOST_FIELD = 1e100  # squares of energies overflow far beyond
KEPT = 50  # of so many draws one keeps its spins
NAMED = ("h", "T", "beta", "replicas", "spins.every")


@dataclass(frozen=True)
class Cell:
    """Replicas at one temperature and field.

    mean, spread: of |q_ab| over pairs a < b, and the standard deviation of q_ab over pairs, both averaged over draws;
    q_ab = sum_i s_i^a.s_i^b / (N R^2). chi_sg: N times the mean of the squared tensor overlap, over pairs and draws.
    rotation: mean over pairs of the overlap after the best rotation (`mc.vector.overlap_matrix`), of the last draw
    with spins, and rotation_spread its standard deviation.
    energy: a spin. equilibrated, reason: as of `mc.equilibration`, replicas from random starts as chains.
    matrix: q_ab of the last draw with spins. below_line: whether (T, h) lies below the line of de Almeida and
    Thouless of these spins (`mc.exact.vector_glass`); the loss energy has none.
    """

    T: float
    h: float
    mean: float
    spread: float
    chi_sg: float
    rotation: float
    rotation_spread: float
    energy: float
    equilibrated: str
    reason: str
    below_line: bool
    matrix: list[list[float]]


def phase_diagram(words: Sequence[str], options: Options, screen: Screen) -> int:
    """Run, measure, draw and say where it is; returns the exit code. UserError before any work."""
    began = time.monotonic()
    given, temperatures, fields, replicas = checked(words)
    targets = [target_at(given, temperatures, h) for h in fields]
    first = targets[0][0]
    as_written = tuple(word for word in words if "=" in word)
    folder = options.out or Path(default_out(replace(first, words=as_written), "phase-diagram").stem)
    pictures = has_matplotlib()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made ({error.strerror}); choose another --out") from None
    screen.say(
        f"out: {folder} ({counted(len(fields), 'field')}, {len(first.betas)} temperatures in a ladder of each)"
    )
    cells: list[Cell] = []
    for h, (target, settings) in zip(fields, targets, strict=True):
        own = replace(options, out=file_of(folder, h), chains=1, quiet=True, json=False)
        settings |= {"replicas": replicas, "spins.every": KEPT}
        try:
            code = run("phase-diagram", target, "pt", settings, own, began)
        except UserError:  # before any work of the first field nothing is left behind
            with contextlib.suppress(OSError):
                folder.rmdir()
            raise
        chain = opened(own.out)
        if code or not chain.complete:
            screen.say(
                f"stopped at h={h:g}: {chain.n_draws} of {options.draws} draws; the same command again goes on"
            )
            return code
        swaps = np.nanmin(chain.diagnostics["swap_acceptance"])
        cost = f"{chain.seconds['sample']:.0f} s CPU"
        screen.say(f"h={h:g}: {chain.n_draws} draws, least swap acceptance {swaps:.2f}, {cost}")
        cells += cells_of(chain, temperatures, h)
    for text in table(cells):
        screen.say(text)
    floor = noise_floor(first.hamiltonian.n_spins, first.hamiltonian.n_components)
    by_chance = f"mean |q| {floor.raw:.4f}, q_rot {floor.rotation:.4f}"
    screen.say(
        f"q_rot: one replica rotated into the other; by chance alone, for independent random spins: {by_chance}"
    )
    glass = theory_of(first.hamiltonian)
    if glass is not None:
        screen.say(line_of_instability(glass, min(temperatures)))
    content = {"model": VECTOR, "words": list(words), "replicas": replicas, "cells": [asdict(cell) for cell in cells]}
    written = [write(folder / "phase-diagram.json", json.dumps(content, indent=1).encode())]
    if pictures:
        from cli.figures import style
        from cli.figures.files import as_bytes
        from cli.figures.phase_diagram import picture

        with style.paper():
            made = as_bytes(picture(cells), "png", f"{folder.name}: overlap matrices", style.DPI)
        written.append(write(folder / "phase-diagram.png", made))
    else:
        screen.say("no picture: figures need matplotlib: pip install 'nmcmc[plot]'; the same command again draws it")
    look = f"nmcmc analyze {file_of(folder, fields[0])}"
    screen.say(f"result: {' '.join(map(str, written))}; look at a field with: {look}")
    if options.json:
        print(json.dumps({"command": "phase-diagram", "out": str(folder), **content}), flush=True)
    return 0


def checked(words: Sequence[str]) -> tuple[dict[str, str], tuple[float, ...], tuple[float, ...], int]:
    """(other keys, temperatures, fields, replicas); UserError for what does not fit."""
    name, given = split_words(words)
    if name != VECTOR:
        raise UserError(f"phase-diagram {name}: overlap matrices are those of vector spins; use model {VECTOR}")
    for key in ("T", "h"):
        if key not in given:
            raise UserError(f"phase-diagram: no {key}=; give several, such as {key}=0.1,0.5,1 or {key}=0:2:5")
    temperatures, fields = values.numbers("T", given["T"]), values.numbers("h", given["h"])
    if min(temperatures) <= 0 or len(set(temperatures)) < max(len(temperatures), 2):
        raise UserError(f"T={given['T']}: two or more different temperatures above 0 are needed")
    if max(temperatures) > WIDEST * min(temperatures):
        raise UserError(
            f"T={given['T']}: too far apart for a ladder; the hottest may be {WIDEST:g} times the coldest"
        )
    if min(fields) < 0 or max(fields) > MOST_FIELD or len(set(fields)) < len(fields):
        raise UserError(f"h={given['h']}: different numbers from 0 to {MOST_FIELD:g} are needed")
    if given.get("ladder", "fixed") != "fixed":
        raise UserError("ladder=tuned: the temperatures asked for would move; leave ladder= out")
    replicas = values.integer("replicas", given.get("replicas", str(REPLICAS)), 2)
    return {key: text for key, text in given.items() if key not in NAMED}, temperatures, fields, replicas


def target_at(given: dict[str, str], temperatures: Sequence[float], h: float) -> tuple[Target, dict]:
    """The model in a field h with the whole ladder, and the settings of its run."""
    words = [VECTOR, *(f"{key}={text}" for key, text in given.items()), f"h={h!r}"]
    target, settings = parse([*words, "T=" + ",".join(repr(T) for T in sorted(temperatures))], "pt")
    between = ladder(temperatures, target.hamiltonian.n_spins, target.hamiltonian.n_components)
    return replace(target, betas=tuple(1.0 / T for T in between)), settings


def ladder(temperatures: Sequence[float], n_spins: int, n_components: int) -> list[float]:
    """The temperatures, hottest first, and as many between them, equidistant in ln T, as exchanges need.

    Cold spins are oscillators, C = N (D - 1) / 2; energies of neighbours then overlap where ln T differs by about
    1 / sqrt(C).
    """
    widest = SWAPS / math.sqrt(0.5 * n_spins * (n_components - 1))
    rising = sorted(temperatures)
    found = [rising[0]]
    for low, high in itertools.pairwise(rising):
        steps = math.ceil(math.log(high / low) / widest)
        found += [low * (high / low) ** (k / steps) for k in range(1, steps)] + [high]
    return found[::-1]


def cells_of(chain: Chain, temperatures: Sequence[float], h: float) -> list[Cell]:
    """What the replicas of one run say at the temperatures asked for."""
    overlap, norm, energy = (chain.posterior[name] for name in ("overlap", "overlap_norm", "energy"))
    spins = chain.spins[0, -1]
    if overlap.ndim == 3:
        overlap = overlap[..., None]
    hamiltonian = chain.hamiltonian()
    radius, glass = hamiltonian.radius, theory_of(hamiltonian)
    found = []
    for T in temperatures:
        b = int(np.abs(chain.betas * T - 1.0).argmin())
        q, last = overlap[0, :, b], spins[b].astype(np.float64)
        rotation = pair_values(rotation_overlaps(last, radius))
        verdict = equilibrated({"energy": energy[0, :, b].T})
        found.append(
            Cell(
                T=float(T),
                h=float(h),
                mean=float(np.abs(q).mean()),
                spread=float(q.std(axis=1).mean()),
                chi_sg=float(chain.n_spins * (norm[:, :, b] ** 2).mean()),
                rotation=float(rotation.mean()),
                rotation_spread=float(rotation.std()),
                energy=float(energy[0, :, b].mean() / chain.n_spins),
                equilibrated=verdict.status,
                reason=verdict.reason,
                below_line=glass is not None and glass.is_unstable(T, h),
                matrix=overlap_matrix(last, radius).tolist(),
            )
        )
    return found


def theory_of(hamiltonian: VectorHamiltonian) -> VectorGlass | None:
    """The theory of many such spins; None of the loss energy, and without couplings."""
    return glass_of(hamiltonian) if hamiltonian.form == "bilinear" and hamiltonian.exchange.any() else None


def line_of_instability(glass: VectorGlass, T: float) -> str:
    """Where the line of de Almeida and Thouless of these spins begins and ends, and that of SK for reference."""
    T = max(T, LOWEST * glass.critical_temperature)
    own = f"T_c {glass.critical_temperature:.4g} at h = 0, h {glass.line(T):.4g} at T = {T:.4g}"
    sk = f"T_c 1, h {almeida_thouless.line(min(T, 1.0)):.4g}"
    return f"AT line of many spins of {glass.n_components} components: {own}; of SK, which has one: {sk}"


def table(cells: Sequence[Cell]) -> list[str]:
    """One line a cell."""
    names = f"{'mean |q|':>10}{'spread':>9}{'q_rot':>8}{'spread':>9}{'chi_sg':>9}{'E/N':>10}"
    lines = [f"{'T':>8}{'h':>7}{names}  equilibrated"]
    for cell in cells:
        numbers = f"{cell.mean:>10.4f}{cell.spread:>9.4f}{cell.rotation:>8.4f}{cell.rotation_spread:>9.4f}"
        numbers += f"{cell.chi_sg:>9.4g}{cell.energy:>10.4f}"
        lines.append(f"{cell.T:>8.4g}{cell.h:>7.4g}{numbers}  {cell.equilibrated}")
    return lines


def file_of(folder: Path, h: float) -> Path:
    """The chain file of a field."""
    short = f"{h:g}"
    return folder / f"h={short if float(short) == h else repr(h)}.h5"


def write(path: Path, content: bytes) -> Path:
    """Write a file whole or not at all."""
    try:
        with replacement(writable_target(path), fresh=True) as part:
            part.write_bytes(content)
    except (OSError, ChainError) as error:
        raise UserError(f"{path} cannot be written ({error}); choose another --out", code=1) from None
    return path


def has_matplotlib() -> bool:
    from cli.figures import require_matplotlib

    try:
        require_matplotlib()
    except UserError:
        return False
    return True
