"""The contract of an objective, and the random numbers of a training step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from nmcmc.distributed import ALONE, Team
from nmcmc.parts import Part, joined, numbered_parts
from nmcmc.sampler import AutoregressiveSampler


@dataclass(frozen=True)
class StepRandomness:
    """Random numbers of one training step; they depend on (seed, step) only, so a resumed training repeats them.

    torch, numpy: of what every process of a training does alike. parts: of what the processes share among them.
    team: these processes.
    """

    seed: int
    step: int
    torch: torch.Generator
    numpy: np.random.Generator
    team: Team = ALONE

    @classmethod
    def of(cls, seed: int, step: int, team: Team = ALONE) -> StepRandomness:
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(step,))))
        return cls(seed, step, torch.Generator().manual_seed(int(rng.integers(2**63))), rng, team)

    def parts(self, n: int, most: int) -> list[Part]:
        """n states of this step in numbered parts of at most `most`."""
        return numbered_parts(n, most, self.seed, self.step)


@dataclass(frozen=True)
class Batch:
    """States of one step on the device, and what belongs to them.

    spins (n, N) float32. advantage (n, n_tokens) float64: of score-function objectives. odds, labels (n, N) float32,
    in generation order: the prior's log-odds and soft labels p(+1), where they are known already.
    """

    spins: Tensor
    advantage: Tensor | None = None
    odds: Tensor | None = None
    labels: Tensor | None = None

    def part(self, where: slice) -> Batch:
        return Batch(*(None if values is None else values[where] for values in vars(self).values()))


class Objective(Protocol):
    """`batch` makes the states of a step, without gradients; `loss` sums over a part of them, with gradients.

    period: steps that share states. A training is saved between periods only, so that it resumes exactly.
    """

    period: int

    def batch(self, n: int, randomness: StepRandomness) -> Batch: ...

    def loss(self, part: Batch) -> Tensor: ...


def draw_in_parts(sampler: AutoregressiveSampler, n: int, randomness: StepRandomness) -> tuple[Tensor, Tensor]:
    """n states of a step, drawn by all processes of the team, each its share of the numbered parts.

    Every process gets them all: spins (n, N) float32 and log q of tokens (n, n_tokens) float64, on its device.
    """
    team, most = randomness.team, sampler.max_batch
    parts = randomness.parts(n, most)
    own = parts[team.share(len(parts))]
    drawn = [sampler.draw_tokens(sum(p.states for p in group), group) for group in joined(own, most)]
    if team.size == 1:
        return torch.cat([spins for spins, _ in drawn]), torch.cat([log_q for _, log_q in drawn])
    first = sum(part.states for part in parts[: team.share(len(parts)).start])
    where = slice(first, first + sum(part.states for part in own))
    spins = torch.zeros(n, sampler.tokens.n_spins, dtype=torch.int8, device=sampler.device)
    log_q = torch.zeros(n, sampler.tokens.n_tokens, dtype=torch.float64, device=sampler.device)
    if drawn:
        spins[where] = torch.cat([spins for spins, _ in drawn]).to(torch.int8)
        log_q[where] = torch.cat([log_q for _, log_q in drawn])
    return team.total(spins).float(), team.total(log_q)
