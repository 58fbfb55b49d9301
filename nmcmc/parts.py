"""A batch of states in numbered parts, each with random numbers of its own.

A state then depends on its part alone: whoever draws the part, and whatever else is drawn beside it at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

PARTS = 32  # of a batch: divides evenly among 1, 2, 4, 8, 16 and 32 processes


@dataclass(frozen=True)
class Part:
    """states: how many. generator: of their random numbers, and of nothing else."""

    states: int
    generator: torch.Generator


def split_evenly(n: int, shares: int) -> list[int]:
    """n things in `shares` shares, the first of which may have one more: their sizes."""
    return [n // shares + (share < n % shares) for share in range(shares)]


def numbered_parts(n: int, most: int, seed: int, *key: int) -> list[Part]:
    """n >= 1 states in parts of at most `most`; the random numbers of part p are a function of (seed, key, p)."""
    sizes = split_evenly(n, max(min(n, PARTS), -(-n // most)))
    seeds = [
        np.random.SeedSequence(seed, spawn_key=(*key, p)).generate_state(1, np.uint64) for p in range(len(sizes))
    ]
    generators = [torch.Generator().manual_seed(int(words[0] >> 1)) for words in seeds]
    return [Part(*pair) for pair in zip(sizes, generators, strict=True)]


def joined(parts: Sequence[Part], most: int) -> list[list[Part]]:
    """Neighbouring parts drawn at once, of at most `most` states together; a part that is larger stands alone."""
    groups: list[list[Part]] = []
    room = 0
    for part in parts:
        if not groups or part.states > room:
            groups.append([])
            room = most
        groups[-1].append(part)
        room -= part.states
    return groups


def uniforms(n: int, columns: int, source: torch.Generator | Sequence[Part]) -> Tensor:
    """Numbers in [0, 1) for n states, (n, columns) float64 on the CPU, from one generator or from those of parts."""
    if isinstance(source, torch.Generator):
        return torch.rand(n, columns, generator=source, dtype=torch.float64)
    rows = [torch.rand(part.states, columns, generator=part.generator, dtype=torch.float64) for part in source]
    return torch.cat(rows)
