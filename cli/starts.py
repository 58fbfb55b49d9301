"""`init=`: a word, or the chain file whose last stored spins a run starts from."""

from __future__ import annotations

from collections.abc import Sequence

from cli.errors import UserError
from cli.results import opened
from cli.work import Run
from mc.chain import Chain


def start_of(work: Run, words: Sequence[str]) -> str | Chain:
    """One of `words`, or the chain file that init= names; "random" for a run that goes on from its own state."""
    init = work.settings["init"]
    if init in words:
        return init
    there = work.there
    if there is not None and not work.options.restart and there.state():
        return "random"
    try:
        return opened(init)
    except UserError as error:
        raise UserError(f"init={init}: {', '.join(words)} or a chain file is needed ({error})") from None
