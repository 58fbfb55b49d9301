"""Several processes at one training or sampling: rank 0 does the run, the others do what it tells them.

Rank 0 alone holds files, clocks and the optimiser. It tells the others which function to call, on objects that it
laid on their desks before, and calls the same function itself; in it, all meet in sums. Random numbers belong to
numbered parts of a batch, so how many processes there are changes nothing but the order of sums.

Where rank 0 is gone, for whatever reason, its connections close, and the others end.
"""

from __future__ import annotations

import contextlib
import datetime
import io
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from nmcmc.parts import split_evenly

PATIENCE = datetime.timedelta(days=7)  # between two orders rank 0 may do long work of its own


class TeamError(RuntimeError):
    """Another process of the team has gone; one line."""


@dataclass(frozen=True)
class Team:
    """The processes of a run: this one's rank, their number, and whether sums go from GPU to GPU (NCCL)."""

    rank: int = 0
    size: int = 1
    nccl: bool = False

    def share(self, n: int) -> slice:
        """Which of n things are this process's; rank 0 has some wherever there are any."""
        sizes = split_evenly(n, self.size)
        first = sum(sizes[: self.rank])
        return slice(first, first + sizes[self.rank])

    def total(self, values: Tensor) -> Tensor:
        """The sum of `values` over the processes, on each of them; TeamError when one has gone."""
        if self.size == 1:
            return values
        summed = values.clone() if self.nccl else values.cpu().clone()
        _meet(dist.all_reduce, summed)
        return summed.to(values.device)

    def collected(self, array: np.ndarray) -> list[np.ndarray]:
        """On rank 0 the arrays of all ranks, of one shape and type; on others nothing. TeamError as in `total`."""
        own = torch.from_numpy(np.ascontiguousarray(array))
        found = [torch.empty_like(own) for _ in range(self.size)] if self.rank == 0 else None
        _meet(dist.gather, own, found)
        return [values.numpy() for values in found or ()]

    def tell(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Rank 0: have every other process call function(team, desk, *arguments), as soon as it is done before.

        function: of a module. desk: the dictionary of what a process was given. TeamError as in `total`.
        """
        if self.size > 1:
            message = io.BytesIO()
            torch.save((function, arguments), message)
            self._broadcast(torch.frombuffer(message.getbuffer(), dtype=torch.uint8).clone())

    def dismiss(self) -> None:
        """Rank 0: the work is done, the others end. Not after an error, when they may be waiting for a sum."""
        if self.size > 1:
            self._broadcast(torch.empty(0, dtype=torch.uint8))

    def leave(self) -> None:
        """Rank 0, at the end of all: close the connections, by which others that still wait know that it is gone."""
        if dist.is_initialized():
            dist.destroy_process_group()

    def _broadcast(self, message: Tensor) -> None:
        _meet(dist.broadcast, torch.tensor([len(message)]), 0)
        if len(message):
            _meet(dist.broadcast, message, 0)

    def _heard(self, device: torch.device) -> tuple[Callable[..., Any], tuple] | None:
        length = torch.zeros(1, dtype=torch.int64)
        _meet(dist.broadcast, length, 0)
        if not int(length):
            return None
        message = torch.empty(int(length), dtype=torch.uint8)
        _meet(dist.broadcast, message, 0)
        # Only rank 0 of this very run can have sent this.
        return torch.load(io.BytesIO(message.numpy().tobytes()), map_location=device, weights_only=False)


ALONE = Team()


def _meet(collective: Callable[..., Any], *arguments: Any) -> None:
    try:
        collective(*arguments)
    except RuntimeError as error:
        raise TeamError(f"another process of this run has ended ({' '.join(str(error).split())[:100]})") from None


def join(cuda: bool) -> Team:
    """Meet the other processes of the launcher (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT); blocks until all are in.

    cuda: each works on the device of its LOCAL_RANK, in turn where there are fewer devices than processes.
    """
    nccl = False
    if cuda:
        local, devices = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        torch.cuda.set_device(local % devices)
        # NCCL wants a device for each process.
        nccl = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) <= devices and dist.is_nccl_available()
    dist.init_process_group("cpu:gloo,cuda:nccl" if nccl else "gloo", timeout=PATIENCE)
    return Team(dist.get_rank(), dist.get_world_size(), nccl)


def current_team() -> Team:
    """The team that this process has joined, or itself alone."""
    if not dist.is_initialized():
        return ALONE
    return Team(dist.get_rank(), dist.get_world_size(), "nccl" in dist.get_backend_config())


def serve(team: Team, device: torch.device) -> NoReturn:
    """What a rank above 0 does: what it is told, until it is dismissed or rank 0 has gone; then its process ends.

    Signals that mean a stop are for rank 0, which may still need the others to end in good order.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    desk: dict[Any, Any] = {}
    with contextlib.suppress(TeamError):
        while (order := team._heard(device)) is not None:
            function, arguments = order
            function(team, desk, *arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # threads of torch.distributed that still run would abort an ordinary exit now and then


def lay(team: Team, desk: dict, name: Any, thing: Any) -> None:
    """Told to the others: keep `thing` on the desk under `name`."""
    desk[name] = thing


class SharedProposal:
    """A Proposal whose batches are drawn side by side, each by one process; the states are those of one alone.

    proposal: on rank 0. name: by which the others know theirs; one for each proposal of a run.
    """

    def __init__(self, team: Team, proposal: Any, name: Any):
        self.proposal, self._team, self._name = proposal, team, ("proposal", name)
        self.hamiltonian, self.beta, self.tokens = proposal.hamiltonian, proposal.beta, proposal.tokens
        self.max_batch = proposal.max_batch
        self.batches_at_once = team.size
        self.sample, self.log_prob = proposal.sample, proposal.log_prob
        team.tell(lay, self._name, proposal)

    def sample_batches(self, n: int, seeds: Sequence[int]) -> list[tuple[np.ndarray, np.ndarray]]:
        """A batch of n states for each process, batch b as proposal.sample(n, generator of seeds[b])."""
        self._team.tell(draw_own, self._name, n, tuple(seeds))
        return draw_own(self._team, {self._name: self.proposal}, self._name, n, seeds)


def draw_own(team: Team, desk: dict, name: Any, n: int, seeds: Sequence[int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Draw the batch of this rank; on rank 0 spins (n, N) int8 and log q (n,) of all batches."""
    spins, log_q = desk[name].sample(n, torch.Generator().manual_seed(seeds[team.rank]))
    return list(zip(team.collected(spins), team.collected(log_q), strict=True))
