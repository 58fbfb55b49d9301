"""Minimum-weight perfect matching of a general graph with integer weights, and the proof that it is one.

The primal-dual method of Edmonds, J. Res. NBS 69B, 125 (1965), on a sparse graph, one search tree at a time (reviewed
by Kolmogorov, Math. Prog. Comp. 1, 43 (2009)). Notation, with weights doubled so that everything stays an integer:

* a node is a vertex (0 .. n-1) or a blossom (n ..), an odd set of vertices made of an odd cycle of nodes;
* every vertex has a potential p, every blossom a dual z >= 0; the slack 2w - p_u - p_v + 2 sum of z over the blossoms
  that hold both ends is never negative, and zero on every edge of the matching, of a blossom's cycle and of the tree;
* an outermost node of the tree is even (+1; p and z grow with the time of the search) or odd (-1; they fall), and one
  outside the tree is free (0). A node inside a blossom has label 0.

Weights are even, so tight edges give all vertices of a tree potentials of one parity, and half the slack of an edge
between even nodes is an integer. Changes of p and z are written down only when a node changes its label. Inside a
blossom the matching follows from its one vertex that is matched outside, so it is written down only when the blossom
is opened.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappop

import numpy as np
from numba import njit

from mc.exact.blossom_tree import (
    MatchingGraph,
    augment,
    initial_state,
    match_inside,
    open_odd,
    potential_at,
    queue_edges,
    set_label,
    set_odd,
    settle,
    shrink,
)


@dataclass(frozen=True)
class Matching:
    """A perfect matching of n vertices with its dual solution, in half units of the weights; arrays int64.

    mate: partner of each vertex, (n,). potential: (n,). dual: of the nodes, (n + n // 2,), 0 for vertices and unused
    blossoms. parent: the smallest blossom around each node or -1, same shape.
    """

    mate: np.ndarray
    potential: np.ndarray
    dual: np.ndarray
    parent: np.ndarray

    @property
    def lower_bound(self) -> int:
        """What no perfect matching can weigh less than if no slack is negative, in half units: weak duality."""
        size = np.zeros(len(self.dual), np.int64)
        for node in range(len(self.mate)):
            while node >= 0:
                size[node] += 1
                node = self.parent[node]
        return int(self.potential.sum()) - int((self.dual * np.maximum(size - 1, 0)).sum())


def perfect_matching(n_vertices: int, edges: np.ndarray, weights: np.ndarray) -> Matching:
    """The perfect matching of least total weight.

    edges: (m, 2) vertices, no loops, parallel edges allowed. weights: (m,) integers of either sign, of at most 2^57.
    Raises ValueError if there is no perfect matching, or for a loop, a vertex out of range or weights not integer.
    """
    edges, weights = np.asarray(edges, dtype=np.int64).reshape(-1, 2), np.asarray(weights)
    if not np.issubdtype(weights.dtype, np.integer) or weights.shape != (len(edges),):
        raise ValueError(f"matching: weights {weights.dtype} {weights.shape}; one integer an edge is needed")
    if len(edges) and (edges.min() < 0 or edges.max() >= n_vertices or (edges[:, 0] == edges[:, 1]).any()):
        raise ValueError(f"matching: an edge joins a vertex to itself or leaves 0..{n_vertices - 1}")
    if len(weights) and max(-int(weights.min()), int(weights.max())) > 2**57:
        raise ValueError("matching: a weight is above 2^57")
    owner = edges.T.ravel()
    order = np.argsort(owner, kind="stable")
    start = np.zeros(n_vertices + 1, np.int64)
    np.cumsum(np.bincount(owner, minlength=n_vertices), out=start[1:])
    doubled = 2 * np.tile(weights.astype(np.int64), 2)[order]
    graph = MatchingGraph(start, owner[order], edges[:, ::-1].T.ravel()[order], doubled)
    state = initial_state(n_vertices)
    if n_vertices % 2 or (np.diff(start) == 0).any() or not _solve(graph, state):
        raise ValueError("matching: the graph has no perfect matching")
    return Matching(state.match_out[:n_vertices].copy(), state.potential, state.dual, state.parent)


@njit(cache=True, nogil=True)
def _solve(g, f):
    """Match all vertices, in place; returns whether that is possible."""
    n = len(f.outer)
    _start(g, f)
    spare = [np.int64(node) for node in range(n, len(f.dual))]
    for root in range(n):
        if f.match_in[f.outer[root]] < 0 and not _search(g, f, root, spare):
            return False
    for node in spare:
        f.parent[node] = -1
        f.dual[node] = 0
    # Outer blossoms first: the matching inside one gives the vertices that its blossoms are matched by.
    waiting = [np.int64(0)]
    waiting.pop()
    for vertex in range(n):
        node = f.outer[vertex]
        if node >= n and f.first[node] == vertex:
            waiting.append(node)
    while len(waiting) > 0:
        child = base = match_inside(f, waiting.pop())
        while True:
            if child >= n:
                waiting.append(child)
            child = f.following[child]
            if child == base:
                break
    return True


@njit(cache=True, nogil=True)
def _start(g, f):
    """Potentials as large as they can be one after the other, and the tight edges between vertices still single."""
    n = len(f.outer)
    for v in range(n):
        lightest = g.weight[g.start[v]]
        for k in range(g.start[v], g.start[v + 1]):
            lightest = min(lightest, g.weight[k])
        f.potential[v] = lightest // 2
    for v in range(n):
        if f.match_in[v] >= 0:
            continue
        room = g.weight[g.start[v]] - f.potential[v] - f.potential[g.neighbour[g.start[v]]]
        for k in range(g.start[v], g.start[v + 1]):
            room = min(room, g.weight[k] - f.potential[v] - f.potential[g.neighbour[k]])
        f.potential[v] += room
        for k in range(g.start[v], g.start[v + 1]):
            u = g.neighbour[k]
            if f.match_in[u] < 0 and g.weight[k] == f.potential[v] + f.potential[u]:
                f.match_in[v], f.match_out[v] = v, u
                f.match_in[u], f.match_out[u] = u, v
                break


@njit(cache=True, nogil=True)
def _search(g, f, root, spare):
    """Grow a tree from a single vertex until an augmenting path is found, and augment; False if there is none.

    Events wait in a heap under the time they happen at: edges (a place of g) become tight, odd blossoms (the number
    of places plus the node) run out of dual. What has changed meanwhile is noticed when an event comes up.
    """
    n_places = len(g.owner)
    heap = [(np.int64(0), np.int64(0))]
    heap.pop()
    touched = [np.int64(root)]
    set_label(f, root, 1, 0)
    queue_edges(g, f, heap, root, 0)
    found = False
    while len(heap) > 0:
        now, event = heappop(heap)
        if event >= n_places:
            node = event - n_places
            if f.parent[node] < 0 and f.label[node] == -1 and f.dual[node] == now - f.since[node]:
                open_odd(g, f, heap, touched, spare, node, now)
            continue
        u, v = g.owner[event], g.neighbour[event]
        if f.label[f.outer[u]] != 1:
            u, v = v, u
        even, other = f.outer[u], f.outer[v]
        if even == other or f.label[even] != 1 or f.label[other] == -1:
            continue
        if g.weight[event] != potential_at(f, u, now) + potential_at(f, v, now):
            continue
        if f.label[other] == 1:
            shrink(g, f, heap, touched, spare, u, v, now)
        elif f.match_in[other] < 0:
            augment(f, u, v)
            found = True
            break
        else:
            f.up_in[other], f.up_out[other] = v, u
            set_odd(g, f, heap, other, now)
            mate = f.outer[f.match_out[other]]
            set_label(f, mate, 1, now)
            touched.append(other)
            touched.append(mate)
            queue_edges(g, f, heap, mate, now)
    if found:
        for node in touched:
            settle(f, node, now)
            f.label[node] = 0
    return found
