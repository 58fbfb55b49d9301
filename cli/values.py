"""From the text behind "=" to a value: one small parser a kind. Each says what was expected."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from cli.errors import UserError, closest

COUPLINGS = ("bimodal", "gaussian", "ferro")
LARGEST_SIZE, LARGEST_INTEGER = 10**6, 2**63 - 1
MOST_BETAS = 10_000


def integer(key: str, text: str, least: int) -> int:
    """An integer of at least `least`."""
    if not re.fullmatch(r"[+-]?\d+", text) or int(text) < least:
        raise UserError(f"{key}={text}: an integer of at least {least} is needed")
    if int(text) > LARGEST_INTEGER:
        raise UserError(f"{key}={text}: an integer of at most {LARGEST_INTEGER} is needed")
    return int(text)


def number(key: str, text: str) -> float:
    """A finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{key}={text}: a finite number is needed")
    return value


def positive(key: str, text: str) -> float:
    value = number(key, text)
    if value <= 0:
        raise UserError(f"{key}={text}: a number above 0 is needed")
    return value


def fraction(key: str, text: str) -> float:
    value = number(key, text)
    if not 0 < value <= 1:
        raise UserError(f"{key}={text}: a number above 0 and at most 1 is needed")
    return value


def below_one(key: str, text: str) -> float:
    value = number(key, text)
    if not 0 <= value < 1:
        raise UserError(f"{key}={text}: a number of at least 0 and below 1 is needed")
    return value


def share(key: str, text: str) -> float:
    value = number(key, text)
    if not 0 <= value <= 1:
        raise UserError(f"{key}={text}: a number from 0 to 1 is needed")
    return value


def size(key: str, text: str) -> int:
    """A number of sites along an axis, or of spins."""
    value = integer(key, text, 1)
    if value > LARGEST_SIZE:
        raise UserError(f"{key}={text}: an integer of at most {LARGEST_SIZE} is needed")
    return value


def word_or_number(key: str, text: str) -> str | float:
    """A number where it reads as one (it must be finite), else the word; the model knows its words."""
    try:
        float(text)
    except ValueError:
        return text
    return number(key, text)


def coupling(key: str, text: str) -> str | float:
    """A number, or a word for a distribution."""
    value = word_or_number(key, text)
    if isinstance(value, str) and value not in COUPLINGS:
        expected = f"{', '.join(COUPLINGS)} or a number is needed"
        raise UserError(f"{key}={text}: {expected}{closest(text, COUPLINGS)}")
    return value


def shape(key: str, text: str) -> tuple[int, ...]:
    """Sizes joined by x: 3x4, or one number."""
    if not re.fullmatch(r"\d+(x\d+)*", text) or 0 in (sizes := tuple(int(size) for size in text.split("x"))):
        raise UserError(f"{key}={text}: sizes joined by x are needed, such as 2x4")
    return sizes


def one_of(*choices: str) -> Callable[[str, str], str]:
    """A parser that takes one of some words."""

    def parse(key: str, text: str) -> str:
        if text not in choices:
            raise UserError(f"{key}={text}: {' or '.join(choices)} is needed{closest(text, choices)}")
        return text

    return parse


def at_least(least: int) -> Callable[[str, str], int]:
    """A parser of integers with a lower bound."""
    return lambda key, text: integer(key, text, least)


def text(key: str, value: str) -> str:
    if not value:
        raise UserError(f"{key}=: a value is needed")
    return value


MODEL_KINDS: dict[str, Callable[[str, str], Any]] = {
    "size": size,
    "seed": at_least(0),
    "order": at_least(2),
    "coupling": coupling,
    "field": word_or_number,
    "number": number,
    "share": share,
    "text": text,
}


def numbers(key: str, value: str) -> tuple[float, ...]:
    """A number, a comma list, or lo:hi:n, in the order written."""
    parts = value.split(":")
    try:
        if len(parts) == 3:
            low, high, count = number(key, parts[0]), number(key, parts[1]), integer(key, parts[2], 2)
            return tuple(low + (high - low) * i / (count - 1) for i in range(min(count, MOST_BETAS + 1)))
        if len(parts) == 1:
            return tuple(number(key, part) for part in value.split(","))
        raise UserError("wrong number of colons")
    except UserError:
        expected = "a finite number, a comma list or low:high:count (count at least 2) is needed"
        raise UserError(f"{key}={value}: {expected}") from None


def betas(key: str, value: str, k_B: float = 1.0) -> tuple[float, ...]:
    """Inverse temperatures from beta= or T=: a number, a comma list, or lo:hi:n, linear in the variable named.

    In the order written; T must be above 0, beta at least 0. beta = 1 / (k_B T): with the k_B of a model in eV, T is
    in kelvin.
    """
    values = list(numbers(key, value))
    if key == "T":
        if any(entry <= 0 for entry in values):
            raise UserError(f"{key}={value}: numbers above 0 are needed")
        values = [1.0 / (k_B * entry) for entry in values]
    if not all(0 <= entry < math.inf for entry in values):
        raise UserError(f"{key}={value}: finite numbers of at least 0 are needed")
    if len(values) > MOST_BETAS:
        raise UserError(f"{key}={value}: at most {MOST_BETAS} temperatures can be done")
    if len(set(values)) != len(values):
        raise UserError(f"{key}={value}: a temperature is given twice")
    return tuple(values)
