"""The contract of an objective, and the random numbers of a training step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from nmcmc.sampler import AutoregressiveSampler


@dataclass(frozen=True)
class StepRandomness:
    """Generators of one training step; they depend on (seed, step) only, so a resumed training repeats them."""

    step: int
    torch: torch.Generator
    numpy: np.random.Generator

    @classmethod
    def of(cls, seed: int, step: int) -> StepRandomness:
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(step,))))
        return cls(step, torch.Generator().manual_seed(int(rng.integers(2**63))), rng)


@dataclass(frozen=True)
class Batch:
    """States of one step (n, N) float32 on the device, and advantages (n, n_tokens) float64 where there are any."""

    spins: Tensor
    advantage: Tensor | None = None

    def part(self, where: slice) -> Batch:
        return Batch(self.spins[where], None if self.advantage is None else self.advantage[where])


class Objective(Protocol):
    """`batch` makes the states of a step, without gradients; `loss` sums over a part of them, with gradients.

    period: steps that share states. A training is saved between periods only, so that it resumes exactly.
    """

    period: int

    def batch(self, n: int, randomness: StepRandomness) -> Batch: ...

    def loss(self, part: Batch) -> Tensor: ...


def draw_in_parts(sampler: AutoregressiveSampler, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """`sampler.draw_tokens` in parts of at most max_batch: spins (n, N), log q of tokens (n, n_tokens)."""
    sizes = [min(sampler.max_batch, n - start) for start in range(0, n, sampler.max_batch)]
    parts = [sampler.draw_tokens(size, generator) for size in sizes]
    return torch.cat([spins for spins, _ in parts]), torch.cat([log_q for _, log_q in parts])
