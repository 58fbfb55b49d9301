"""From the words of the command line to a model, its temperatures and its settings; nothing is done yet."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli import values
from cli.errors import UserError, closest
from cli.settings import MODES, SETTINGS
from mc import models
from mc.hamiltonian import Hamiltonian

TEMPERATURE = ("beta", "T")


@dataclass(frozen=True)
class Target:
    """What is to be sampled: a model with its parameters, and inverse temperatures."""

    model: str
    parameters: dict[str, Any]
    hamiltonian: Hamiltonian
    betas: tuple[float, ...]
    words: tuple[str, ...]  # the model keys as written, for file names


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
    for key in given:
        if key not in known:
            raise UserError(f"unknown key {key}{closest(key, known)} ({name} takes {', '.join(kinds)}, beta or T)")
    parameters = {key: values.MODEL_KINDS[kinds[key]](key, given[key]) for key in given if key in kinds}
    settings = {key: SETTINGS[key].parse(key, text) for key, text in given.items() if key in SETTINGS}
    betas = next((values.betas(key, given[key]) for key in TEMPERATURE if key in given), None)
    try:
        hamiltonian = models.build(name, parameters)
    except ValueError as error:
        raise UserError(str(error)) from None
    if betas is None:
        betas = _default_betas(name, hamiltonian)
    written = tuple(f"{key}={text}" for key, text in given.items() if key in kinds or key in TEMPERATURE)
    return Target(name, parameters, hamiltonian, betas, written), settings


def _default_betas(name: str, hamiltonian: Hamiltonian) -> tuple[float, ...]:
    beta = models.critical_beta(hamiltonian) if name == "ising" else None
    if beta is None:
        raise UserError(f"{name}: no temperature; give beta= or T=")
    return (beta,)


def parse_mode(mode: str | None) -> str:
    """A known mode; UserError with the closest match otherwise."""
    if mode not in MODES:
        said = "no mode" if mode is None else f"unknown mode {mode}{closest(mode, MODES)}"
        raise UserError(f"{said}; give --mode {' or '.join(MODES)}")
    return mode


def default_out(target: Target, mode: str) -> Path:
    """./MODEL-KEYS-MODE.h5, the keys as written; parts of a path are dropped."""
    words = [re.sub(r"[^\w.,=:+-]", "_", word.replace(word.partition("=")[2], Path(word.partition("=")[2]).name, 1))
             for word in target.words]  # fmt: skip
    return Path("-".join([target.model, *words, mode]) + ".h5")
