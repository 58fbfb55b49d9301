"""Drawing on CUDA without waiting for launches: one step of a trunk, captured as a CUDA graph and replayed."""

from __future__ import annotations

import weakref

import torch
from torch import Tensor

WARM_UP = 3  # steps before a capture, as libraries set up their workspaces in the first
MOST_GRAPHS = 4  # that are kept: batches of other sizes push the oldest out


class CapturedStep:
    """A step of fixed shapes with a cache of its own; weights are read in place, so training may go on between."""

    def __init__(self, trunk, content: Tensor):
        self.cache = trunk.start(len(content))
        self.content, self.j = content.clone(), torch.ones(1, dtype=torch.int64, device=content.device)
        self.weights = weight_addresses(trunk)
        self.last = trunk.n_tokens - 1
        self._holder, self._next = None, 1
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                trunk.step_fixed(self.cache, self.content, self.j)
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.features = trunk.step_fixed(self.cache, self.content, self.j)

    def held_by(self, cache) -> bool:
        """Whether the configurations of `cache` are those that this graph draws now."""
        return self._holder is not None and self._holder() is cache

    def take(self, cache) -> bool:
        """Give this graph and its slots to `cache`, unless others that use them are not drawn to the end."""
        if self._holder is not None and self._holder() is not None and self._next <= self.last:
            return False
        self._holder, self._next = weakref.ref(cache), 1
        cache.layers = self.cache.layers
        return True

    def __call__(self, content: Tensor, j: int) -> Tensor:
        """Features (batch, width), a copy."""
        self.content.copy_(content)
        self.j.fill_(j)
        self._next = j + 1
        self.graph.replay()
        return self.features.clone()


class Replays:
    """The captured steps of a trunk, one for each shape of its contents."""

    def __init__(self):
        self.captured: dict[tuple, CapturedStep] = {}

    def __deepcopy__(self, memo) -> Replays:
        return Replays()  # a graph belongs to the weights that it was captured with

    def __getstate__(self) -> dict:
        return {"captured": {}}

    def step(self, trunk, cache, content: Tensor, j: int) -> Tensor:
        """Features of token j as `trunk.step_fixed` gives them.

        Configurations that begin, at j = 1, take over the graph of their shape. Where others of that shape are being
        drawn with it at the same time, they go on without one.
        """
        key = (content.shape, content.dtype, content.device)
        found = self.captured.get(key)
        if j == 1:
            if found is None or found.weights != weight_addresses(trunk):
                found = self.captured[key] = CapturedStep(trunk, content)
                while len(self.captured) > MOST_GRAPHS:
                    del self.captured[next(iter(self.captured))]
            found.take(cache)
        if found is not None and found.held_by(cache):
            return found(content, j)
        return trunk.step_fixed(cache, content, torch.full((1,), j, dtype=torch.int64, device=content.device))


def weight_addresses(trunk) -> tuple[int, ...]:
    """Where the weights lie; a graph is of use only while they stay there."""
    return tuple(parameter.data_ptr() for parameter in trunk.parameters())
