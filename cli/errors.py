"""What a user did that cannot be done: one line, exit code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A message of one line: what is wrong, why, and the remedy. code: the exit code."""

    def __init__(self, message: str, code: int = 2):
        super().__init__(" ".join(message.split()))
        self.code = code


def closest(word: str, known: Iterable[str]) -> str:
    """ ", did you mean X?" for the nearest of the known words, or "" when none is near."""
    known = [one for one in known if one != word]
    near = difflib.get_close_matches(word, known, 1, 0.5)
    near = near or difflib.get_close_matches(word.lower(), [k for k in known if k == k.lower()], 1, 0.5)
    near = near or [k for k in known if k.lower() == word.lower()]
    return f", did you mean {near[0]}?" if near else ""
