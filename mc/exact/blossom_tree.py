"""The alternating tree of a matching search: its nodes, and what is done to them.

g is a MatchingGraph, f (for forest) a SearchState, `now` the time of the search. Words and signs are those of
mc.exact.blossom: nodes, blossoms, even, odd and free, potentials and duals.
"""

from __future__ import annotations

from heapq import heappush
from typing import NamedTuple

import numpy as np
from numba import njit


class MatchingGraph(NamedTuple):
    """Edges seen from each vertex v: the places start[v]:start[v + 1] of the other arrays."""

    start: np.ndarray
    owner: np.ndarray
    neighbour: np.ndarray
    weight: np.ndarray  # doubled


class SearchState(NamedTuple):
    """All that changes; int64. The first three are over vertices, the others over nodes."""

    potential: np.ndarray  # as of the time `since` of the outermost node
    outer: np.ndarray  # outermost node
    leaf_next: np.ndarray  # vertices of a node: from first[node] along leaf_next to last[node]
    first: np.ndarray
    last: np.ndarray
    dual: np.ndarray
    label: np.ndarray
    since: np.ndarray
    parent: np.ndarray
    match_in: np.ndarray  # matched edge of an outermost node: its end inside, its end outside; -1 without one
    match_out: np.ndarray
    up_in: np.ndarray  # edge of an odd node towards the root
    up_out: np.ndarray
    following: np.ndarray  # the cycle of a blossom: next node, previous node, and the edge to the next node
    previous: np.ndarray
    edge_from: np.ndarray
    edge_to: np.ndarray
    mark: np.ndarray


def initial_state(n: int) -> SearchState:
    """n single vertices, no blossom, no tree."""
    n_nodes = n + n // 2  # nested or disjoint odd sets of at least three vertices: fewer than n / 2
    zeros = [np.zeros(n_nodes, np.int64) for _ in range(4)]
    nowhere = [np.full(n_nodes, -1, np.int64) for _ in range(9)]
    vertices = np.zeros(n, np.int64), np.arange(n), np.full(n, -1)
    return SearchState(*vertices, np.arange(n_nodes), np.arange(n_nodes), *zeros[:3], *nowhere, zeros[3])


@njit(cache=True, nogil=True)
def potential_at(f, v, now):
    """The potential of a vertex, with what its outermost node has gained or lost since it has its label."""
    node = f.outer[v]
    return f.potential[v] + f.label[node] * (now - f.since[node])


@njit(cache=True, nogil=True)
def set_label(f, node, label, now):
    """Label a settled node."""
    f.label[node] = label
    f.since[node] = now


@njit(cache=True, nogil=True)
def set_odd(g, f, heap, node, now):
    """Label a settled node odd; if it is a blossom, queue the moment when its dual is used up."""
    set_label(f, node, -1, now)
    if node >= len(f.outer):
        heappush(heap, (now + f.dual[node], len(g.owner) + node))


@njit(cache=True, nogil=True)
def settle(f, node, now):
    """Write down what the label has done to potentials and dual so far; a label of 0 has done nothing."""
    change = f.label[node] * (now - f.since[node])
    f.since[node] = now
    if change == 0:
        return
    if node >= len(f.outer):
        f.dual[node] += change
    v = f.first[node]
    while True:
        f.potential[v] += change
        if v == f.last[node]:
            return
        v = f.leaf_next[v]


@njit(cache=True, nogil=True)
def _set_outer(f, node, outer):
    """Tell all vertices of a node which outermost node they now lie in."""
    v = f.first[node]
    while True:
        f.outer[v] = outer
        if v == f.last[node]:
            return
        v = f.leaf_next[v]


@njit(cache=True, nogil=True)
def queue_edges(g, f, heap, node, now):
    """Queue the edges that leave the vertices of a node (even or free, inside a blossom or not) and will be tight."""
    v = f.first[node]
    top = f.outer[v]
    while True:
        potential = potential_at(f, v, now)
        for k in range(g.start[v], g.start[v + 1]):
            u = g.neighbour[k]
            rate = f.label[top] + f.label[f.outer[u]]
            if rate > 0 and f.outer[u] != top:
                slack = g.weight[k] - potential - potential_at(f, u, now)
                heappush(heap, (now + slack // rate, np.int64(k)))
        if v == f.last[node]:
            return
        v = f.leaf_next[v]


@njit(cache=True, nogil=True)
def augment(f, u, v):
    """Match the single vertex v with vertex u of an even node, and change over the path from there to the root."""
    f.match_in[f.outer[v]], f.match_out[f.outer[v]] = v, u
    while True:
        even = f.outer[u]
        old = f.match_out[even]
        f.match_in[even], f.match_out[even] = u, v
        if old < 0:
            return
        odd = f.outer[old]
        u, v = f.up_out[odd], f.up_in[odd]
        f.match_in[odd], f.match_out[odd] = v, u


@njit(cache=True, nogil=True)
def _link(f, node, following, edge_from, edge_to):
    """Neighbours on the cycle of a blossom to be, and the edge between them."""
    f.following[node], f.previous[following] = following, node
    f.edge_from[node], f.edge_to[node] = edge_from, edge_to


@njit(cache=True, nogil=True)
def _meeting(f, one, other):
    """The first even node on both paths to the root; the paths are walked in turn, to stay near the start."""
    seen = [one]
    f.mark[one] = 1
    one, other = other, one
    while True:
        if one >= 0:
            if f.mark[one]:
                break
            f.mark[one] = 1
            seen.append(one)
        if other >= 0:
            other = -1 if f.match_out[other] < 0 else f.outer[f.up_out[f.outer[f.match_out[other]]]]
        one, other = other, one
    for node in seen:
        f.mark[node] = 0
    return one


@njit(cache=True, nogil=True)
def shrink(g, f, heap, touched, spare, u, v, now):
    """Make an even blossom of the cycle that the tight edge (u, v) closes in the tree."""
    blossom = spare.pop()
    top = _meeting(f, f.outer[u], f.outer[v])
    _link(f, f.outer[u], f.outer[v], u, v)
    node = f.outer[u]
    while node != top:
        odd = f.outer[f.match_out[node]]
        _link(f, odd, node, f.match_out[node], f.match_in[node])
        node = f.outer[f.up_out[odd]]
        _link(f, node, odd, f.up_out[odd], f.up_in[odd])
    node = f.outer[v]
    while node != top:
        odd = f.outer[f.match_out[node]]
        _link(f, node, odd, f.match_in[node], f.match_out[node])
        node = f.outer[f.up_out[odd]]
        _link(f, odd, node, f.up_in[odd], f.up_out[odd])
    f.match_in[blossom], f.match_out[blossom] = f.match_in[top], f.match_out[top]
    f.dual[blossom], f.parent[blossom] = 0, -1
    set_label(f, blossom, 1, now)
    f.first[blossom], f.last[blossom] = f.first[top], f.last[top]
    were_odd = [top]
    were_odd.pop()
    node = top
    while True:
        if f.label[node] == -1:
            were_odd.append(node)
        settle(f, node, now)
        f.label[node] = 0
        f.parent[node] = blossom
        _set_outer(f, node, blossom)
        if node != top:
            f.leaf_next[f.last[blossom]] = f.first[node]
            f.last[blossom] = f.last[node]
        node = f.following[node]
        if node == top:
            break
    touched.append(blossom)
    for node in were_odd:
        queue_edges(g, f, heap, node, now)


@njit(cache=True, nogil=True)
def _child(f, blossom, vertex):
    """The node on the cycle of a blossom that holds a vertex."""
    node = vertex
    while f.parent[node] != blossom:
        node = f.parent[node]
    return node


@njit(cache=True, nogil=True)
def match_inside(f, blossom):
    """Match the nodes of a blossom's cycle around the one that is matched outside, and return that one."""
    base = _child(f, blossom, f.match_in[blossom])
    f.match_in[base], f.match_out[base] = f.match_in[blossom], f.match_out[blossom]
    node = f.following[base]
    while node != base:
        mate = f.following[node]
        f.match_in[node], f.match_out[node] = f.edge_from[node], f.edge_to[node]
        f.match_in[mate], f.match_out[mate] = f.edge_to[node], f.edge_from[node]
        node = f.following[mate]
    return base


@njit(cache=True, nogil=True)
def open_odd(g, f, heap, touched, spare, blossom, now):
    """Take an odd blossom without dual apart; the even-length way round its cycle takes its place in the tree."""
    settle(f, blossom, now)
    f.label[blossom] = 0
    spare.append(blossom)
    base = match_inside(f, blossom)
    node, up_in, up_out = _child(f, blossom, f.up_in[blossom]), f.up_in[blossom], f.up_out[blossom]
    child = base
    while True:
        f.parent[child] = -1
        _set_outer(f, child, child)
        child = f.following[child]
        if child == base:
            break
    forward = f.outer[f.match_out[node]] == f.following[node]
    while True:
        f.up_in[node], f.up_out[node] = up_in, up_out
        set_odd(g, f, heap, node, now)
        touched.append(node)
        if node == base:
            break
        even = f.following[node] if forward else f.previous[node]
        set_label(f, even, 1, now)
        touched.append(even)
        if forward:
            node, up_in, up_out = f.following[even], f.edge_to[even], f.edge_from[even]
        else:
            node = f.previous[even]
            up_in, up_out = f.edge_from[node], f.edge_to[node]
    while True:
        if f.label[child] >= 0:
            queue_edges(g, f, heap, child, now)
        child = f.following[child]
        if child == base:
            break
