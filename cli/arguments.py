"""From the words of the command line to a model, its temperatures and its settings; nothing is done yet."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli import values
from cli.errors import UserError, closest
from cli.options import NAMES
from cli.settings import KINETIC, MEAN_FIELD, MODES, OF_VECTORS, SETTINGS
from mc import models
from mc.hamiltonian import Hamiltonian
from mc.vector.hamiltonian import VectorHamiltonian

TEMPERATURE = ("beta", "T")


@dataclass(frozen=True)
class Target:
    """What is to be sampled: a model with its parameters, and inverse temperatures."""

    model: str
    parameters: dict[str, Any]
    hamiltonian: Hamiltonian | VectorHamiltonian
    betas: tuple[float, ...]
    words: tuple[str, ...]  # the model keys as written, in one fixed order, for file names


LONGEST_NAME = 120  # characters of a default file name


def split_words(words: Sequence[str]) -> tuple[str, dict[str, str]]:
    """The model name and {key: text}; UserError for a word without "=", a key given twice, or no model."""
    names = [word for word in words if "=" not in word]
    if not names:
        raise UserError(f"no model; give one of {', '.join(models.MODELS)}")
    if len(names) > 1:
        model = next((name for name in names if name in models.MODELS), names[0])
        odd = next(name for name in names if name != model)
        raise UserError(f"{odd}: key=value is needed")
    given: dict[str, str] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            continue
        if not key:
            raise UserError(f"{word}: key=value is needed, and there is no key")
        if key in given:
            raise UserError(f"{key} is given twice ({key}={given[key]} and {word})")
        given[key] = text
    if set(TEMPERATURE) <= given.keys():
        raise UserError("beta= and T= say the temperature twice; give one of them")
    return names[0], given


def parse(words: Sequence[str], mode: str | None = None) -> tuple[Target, dict[str, Any]]:
    """The target and the settings given (not the defaults); UserError naming the word that does not fit."""
    name, given = split_words(words)
    if name not in models.MODELS:
        raise UserError(f"unknown model {name}{closest(name, models.MODELS)} ({', '.join(models.MODELS)})")
    kinds = models.MODELS[name].keys
    known = [*kinds, *TEMPERATURE, *(SETTINGS if mode else ())]
    several = ["instances"] if mode and "seed" in kinds else []  # taken out before where it is written so
    for key in given:
        if key not in known:
            option = key.lstrip("-").replace("_", "-")
            if option in NAMES and mode:
                raise UserError(f"unknown key {key}, did you mean the option --{option}?")
            raise UserError(
                f"unknown key {key}{closest(key, known + several)} ({name} takes {', '.join(kinds)}, beta or T)"
            )
    parameters = {key: values.MODEL_KINDS[kinds[key]](key, given[key]) for key in given if key in kinds}
    settings = {key: SETTINGS[key].parse(key, text) for key, text in given.items() if key in SETTINGS}
    betas = next((values.betas(key, given[key]) for key in TEMPERATURE if key in given), None)
    if betas is None and name != "ising" and mode not in ("anneal", "neural-anneal"):
        raise UserError(f"{name}: no temperature; give beta= or T=")
    try:
        hamiltonian = models.build(name, parameters)
    except (ValueError, OverflowError) as error:
        raise UserError(str(error)) from None
    require_mode(hamiltonian, mode)
    if hamiltonian.k_B != 1.0 and "T" in given:
        betas = values.betas("T", given["T"], hamiltonian.k_B)
    if betas is None:
        betas = _schedule(hamiltonian) if mode in ("anneal", "neural-anneal") else _critical_beta(hamiltonian)
    written = tuple(f"{key}={given[key]}" for key in (*kinds, *TEMPERATURE) if key in given)
    return Target(name, parameters, hamiltonian, betas, written), settings


def require_mode(hamiltonian: Hamiltonian | VectorHamiltonian, mode: str | None) -> None:
    """UserError for modes of vector spins on other models, and the other way round."""
    vector = isinstance(hamiltonian, VectorHamiltonian)
    if vector and mode is not None and mode not in OF_VECTORS:
        takes = " or ".join(OF_VECTORS)
        raise UserError(f"mode {mode}: model {hamiltonian.name} has vector spins; use --mode {takes}")
    if mode in (KINETIC, MEAN_FIELD) and not vector:
        raise UserError(f"mode {mode}: {hamiltonian.name} has Ising spins, vector spins are needed; use model vector")


def _schedule(hamiltonian: Hamiltonian) -> tuple[float, ...]:
    from mc.annealing import default_schedule

    return tuple(default_schedule(hamiltonian).tolist())


def _critical_beta(hamiltonian: Hamiltonian) -> tuple[float, ...]:
    beta = models.critical_beta(hamiltonian)
    if beta is None:
        raise UserError(f"{hamiltonian.name}: no temperature; give beta= or T=")
    return (beta,)


def parse_mode(mode: str | None) -> str:
    """A known mode; UserError with the closest match otherwise."""
    if mode not in MODES:
        said = "no mode" if mode is None else f"unknown mode {mode}{closest(mode, MODES)}"
        raise UserError(f"{said}; give --mode {' or '.join(MODES)}")
    return mode


def default_out(target: Target, mode: str) -> Path:
    """./MODEL-KEYS-MODE.h5, the values as written (of a path its last part), shortened when there are many."""
    words = []
    for word in target.words:
        key, _, text = word.partition("=")
        words.append(f"{key}=" + re.sub(r"[^\w.,:+-]", "_", Path(text).name))
    stem = "-".join([target.model, *words])
    if len(stem) > LONGEST_NAME:
        stem = stem[:LONGEST_NAME] + "-" + hashlib.sha256(stem.encode()).hexdigest()[:8]
    return Path(f"{stem}-{mode}.h5")
