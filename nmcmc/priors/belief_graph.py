"""Which messages belief propagation renews for each spin of the generation order, and the short loops through it.

All of it depends on the graph and the order alone, so it is listed once, for every spin.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


class Graph:
    """Neighbours in the layout of `SparseFields`.

    near: (n_spins, D), n_spins where there is none; reverse: message from there to here, (n_spins, D); couplings:
    beta J of every message, (n_spins * D + 1,).
    """

    def __init__(self, n_spins: int, bonds: np.ndarray, couplings: np.ndarray):
        source, target = bonds.T.reshape(-1), bonds[:, ::-1].T.reshape(-1)
        by_source = np.argsort(source, kind="stable")
        counts = np.bincount(source, minlength=n_spins)
        self.degree = max(int(counts.max()), 1)
        slot = np.empty(len(source), np.int64)
        slot[by_source] = np.arange(len(source)) - np.repeat(np.cumsum(counts) - counts, counts)
        message = source * self.degree + slot
        self.nothing = n_spins * self.degree
        near, reverse = np.full(self.nothing, n_spins), np.full(self.nothing, self.nothing)
        near[message], reverse[message] = target, np.roll(message, len(bonds))
        self.near, self.reverse = near.reshape(n_spins, -1), reverse.reshape(n_spins, -1)
        self.couplings = np.zeros(self.nothing + 1)
        self.couplings[message] = np.tile(couplings, 2)


class Lists:
    """Lists of integers in one tensor, which moves between devices as a whole."""

    def __init__(self):
        self.arrays, self.length = [], 0

    def add(self, array: np.ndarray) -> slice:
        self.arrays.append(array.reshape(-1))
        self.length += array.size
        return slice(self.length - array.size, self.length)

    def joined(self) -> Tensor:
        return torch.from_numpy(np.concatenate(self.arrays).astype(np.int64))


@dataclass
class Step:
    """Where the lists of one spin are: see `step_lists`."""

    shells: list[slice]
    n_near: int
    own: slice
    region: slice
    edges: slice | None = None
    inside: slice | None = None


def step_lists(graph: Graph, n: int, radius: int, lists: Lists) -> Step:
    """The undrawn spins in shells round spins n and n - 1, and the region of the short loops through n.

    region: the n_near undrawn neighbours of n, then the spins on loops of four bonds with n, if any. own: messages
    from n to its neighbours. edges, inside: (region, most bonds inside it), messages sent inside the region and the
    position among them of their reverse; absent where the region has no bonds.
    """
    n_spins = len(graph.near)
    seen = np.arange(n_spins + 1) <= n
    seen[n_spins] = True
    shells, front = [], np.arange(max(n - 1, 0), n + 1)
    for _ in range(radius):
        front = np.unique(graph.near[front])
        front = front[~seen[front]]
        if not len(front):
            break
        seen[front] = True
        shells.append(lists.add(front))
    own = np.flatnonzero((graph.near[n] > n) & (graph.near[n] < n_spins))
    near = graph.near[n, own]
    second, links = np.unique(graph.near[near], return_counts=True)
    loop = (links > 1) & (second > n) & (second < n_spins) & ~np.isin(second, near)
    region = np.concatenate([near, second[loop]])
    step = Step(shells, len(near), lists.add(n * graph.degree + own), lists.add(region))
    within = np.isin(graph.near[region], region)
    most = int(within.sum(1).max(initial=0))
    if most:
        edges = np.full((len(region), most), graph.nothing)
        reverse = np.full(edges.shape, edges.size)
        rows, slots = np.nonzero(within)
        columns = (within.cumsum(1) - 1)[rows, slots]
        edges[rows, columns] = region[rows] * graph.degree + slots
        position = {int(message): k for k, message in enumerate(edges.reshape(-1))}
        reverse[rows, columns] = [position[int(r)] for r in graph.reverse[region][rows, slots]]
        step.edges, step.inside = lists.add(edges), lists.add(reverse)
    return step
