"""Runs of several processes, as torchrun starts them: rank 0 does the run, the others help it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

from cli.errors import UserError
from cli.options import Options

SHARED = ("train", "nmcmc", "nis", "prior")  # modes with work to share


@contextlib.contextmanager
def in_a_team(mode: str | None, words: Sequence[str], options: Options) -> Iterator[None]:
    """Around a run, in whose stead a helper helps and ends.

    UserError for what one process alone can do, and when a helper has gone.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or "RANK" not in os.environ:
        yield
        return
    leads = int(os.environ["RANK"]) == 0
    if leads and (mode not in SHARED or any(word.startswith(("instances=", "move=block")) for word in words)):
        raise UserError(f"torchrun is for modes {', '.join(SHARED)} of one Hamiltonian and move=global; "
                        "start this run without it")  # fmt: skip
    import torch

    import cli.threads  # noqa: F401  (one for torch: a helper must round as rank 0 does)
    from nmcmc.distributed import TeamError, join, serve

    cuda = options.device != "cpu" and torch.cuda.is_available()
    team = join(cuda)
    if not leads:
        serve(team, torch.device("cuda" if cuda else "cpu"))
    try:
        yield
        team.dismiss()
    except TeamError as error:
        raise UserError(f"{error}; the same command again goes on from what is kept", code=1) from None
    finally:
        team.leave()
