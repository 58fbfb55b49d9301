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
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from cli import values
from cli.arguments import Target, default_out, parse, split_words
from cli.errors import UserError
from cli.options import Options
from cli.output import Screen, counted
from cli.phase_cells import Cell, cells_of, line_of_instability, table, theory_of
from cli.results import opened
from cli.run import run
from cli.settings import VECTOR
from mc.chain_lock import ChainError, replacement, writable_target
from mc.vector.overlap_matrix import noise_floor

REPLICAS = 5  # as in the thesis, fig. 4.2
SWAPS = 1.3  # ln of neighbouring temperatures times sqrt(C): about a third of the swaps succeed
WIDEST = 1e9  # the hottest of a ladder over the coldest
KEPT = 50  # of so many draws one keeps its spins
NAMED = ("h", "T", "replicas")
NOT_HERE = {
    "instances": "a phase diagram is of one seed=",
    "spins.every": f"one of {KEPT} draws keeps its spins",
}


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
            there = f"{chain.n_draws} of {options.draws} draws are there"
            screen.say(f"stopped at h={h:g} ({there}); the same command again goes on")
            if options.json:
                print(as_json(folder, words, replicas, cells, complete=False), flush=True)
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
    found = as_json(folder, words, replicas, cells, complete=True)
    written = [write(folder / "phase-diagram.json", found.encode())]
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
        print(found, flush=True)
    return 0


def as_json(folder: Path, words: Sequence[str], replicas: int, cells: Sequence[Cell], complete: bool) -> str:
    """The one-line object of the command line contract."""
    content = {"model": VECTOR, "words": list(words), "replicas": replicas, "cells": [asdict(cell) for cell in cells]}
    return json.dumps({"command": "phase-diagram", "out": str(folder), "complete": complete, **content})


def checked(words: Sequence[str]) -> tuple[dict[str, str], tuple[float, ...], tuple[float, ...], int]:
    """(other keys, temperatures, fields, replicas); UserError for what does not fit."""
    name, given = split_words(words)
    if name != VECTOR:
        raise UserError(f"phase-diagram {name}: overlap matrices are those of vector spins; use model {VECTOR}")
    for key in ("T", "h"):
        if key not in given:
            raise UserError(f"phase-diagram: no {key}=; give several, such as {key}=0.1,0.5,1 or {key}=0:2:5")
    for key, why in NOT_HERE.items():
        if key in given:
            raise UserError(f"{key}={given[key]}: {why}; leave {key}= out")
    temperatures, fields = values.numbers("T", given["T"]), values.numbers("h", given["h"])
    if min(temperatures) <= 0 or len(set(temperatures)) < max(len(temperatures), 2):
        raise UserError(f"T={given['T']}: two or more different temperatures above 0 are needed")
    if max(temperatures) > WIDEST * min(temperatures):
        raise UserError(
            f"T={given['T']}: too far apart for a ladder; the hottest may be {WIDEST:g} times the coldest"
        )
    if min(fields) < 0 or len(set(fields)) < len(fields):
        raise UserError(f"h={given['h']}: different numbers of at least 0 are needed")
    if given.get("ladder", "fixed") != "fixed":
        raise UserError("ladder=tuned: the temperatures asked for would move; leave ladder= out")
    if given.get("energy", "bilinear") != "bilinear":
        raise UserError("energy=loss: overlaps are divided by R^2, and spins have no fixed norm; leave energy= out")
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
