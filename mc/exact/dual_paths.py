"""Shortest paths on the faces of a planar lattice, as far as the matching of frustrated faces asks for them.

The graph is given by rows: the places start[a]:start[a + 1] of `owner` (a itself), `neighbour` (faces), `bond` (the
bond crossed) and `length` belong to face a. Every search is Dijkstra's, from one face at a time, and stops as soon as
it can; `distance` (n_faces,) int64 is -1 wherever no search has been.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np
from numba import njit


class FaceGraph(NamedTuple):
    """Rows of the dual lattice, arrays int64; bonds with the same face on both sides are left out."""

    start: np.ndarray
    owner: np.ndarray
    neighbour: np.ndarray
    bond: np.ndarray
    length: np.ndarray


def face_graph(n_faces: int, faces: np.ndarray, lengths: np.ndarray) -> FaceGraph:
    """The graph of faces (n_bonds, 2) on both sides of each bond, with lengths (n_bonds,) int64 of at least 0."""
    crossed = np.flatnonzero(faces[:, 0] != faces[:, 1])
    owner, neighbour = faces[crossed].T.ravel(), faces[crossed, ::-1].T.ravel()
    order = np.argsort(owner, kind="stable")
    start = np.zeros(n_faces + 1, np.int64)
    np.cumsum(np.bincount(owner, minlength=n_faces), out=start[1:])
    bond = np.tile(crossed, 2)[order]
    return FaceGraph(start, owner[order], neighbour[order], bond, lengths[bond])


@njit(cache=True, nogil=True)
def _relax(graph, distance, seen, heap, face, before):
    """Hand the distance of `face` on to its neighbours, and in `before` the place of the step taken."""
    for k in range(graph.start[face], graph.start[face + 1]):
        other = graph.neighbour[k]
        reached = distance[face] + graph.length[k]
        if distance[other] < 0 or reached < distance[other]:
            if distance[other] < 0:
                seen.append(other)
            distance[other] = reached
            before[other] = k
            heappush(heap, (reached, other))


@njit(cache=True, nogil=True)
def nearest_pairs(graph, terminals, number, n_nearest):
    """Pairs of terminals at short distance, and each even terminal with the next one, which makes a perfect matching.

    terminals (n,) int64 faces, n even; number (n_faces,): which terminal a face is, or -1. Returns (pairs, distances)
    as lists: the n_nearest terminals of each, in no order.
    """
    pairs, lengths = [(np.int64(0), np.int64(0))], [np.int64(0)]
    pairs.pop(), lengths.pop()
    distance, before = np.full(len(number), -1), np.full(len(number), -1)
    for u in range(len(terminals)):
        distance[terminals[u]] = 0
        seen, heap = [terminals[u]], [(np.int64(0), terminals[u])]
        missing, partner_found = n_nearest, u % 2 == 1
        while len(heap) > 0 and (missing > 0 or not partner_found):
            reached, face = heappop(heap)
            if reached > distance[face]:
                continue
            v = number[face]
            if v >= 0 and v != u:
                if missing > 0 or v == u + 1:
                    pairs.append((np.int64(u), v))
                    lengths.append(reached)
                missing -= 1
                partner_found = partner_found or v == u + 1
            _relax(graph, distance, seen, heap, face, before)
        for face in seen:
            distance[face] = -1
    return pairs, lengths


@njit(cache=True, nogil=True)
def _common_dual(u, v, dual, parent, depth):
    """Sum of the duals of the blossoms that hold both vertices."""
    while u != v:
        if depth[u] < depth[v]:
            u, v = v, u
        u = parent[u]
        if u < 0:
            return np.int64(0)
    total = np.int64(0)
    while u >= 0:
        total += dual[u]
        u = parent[u]
    return total


@njit(cache=True, nogil=True)
def negative_pairs(graph, terminals, number, potential, dual, parent, most):
    """Pairs (u < v) whose slack 2 d - p_u - p_v + 2 z is negative, at most `most` for each u; (pairs, distances).

    None means that the matching with these duals (see mc.exact.blossom) is the best one of all pairs: a pair with a
    negative slack has 2 d < p_u + p_v, so a search from u need not go further than (p_u + max p) / 2.
    """
    pairs, lengths = [(np.int64(0), np.int64(0))], [np.int64(0)]
    pairs.pop(), lengths.pop()
    distance, before = np.full(len(number), -1), np.full(len(number), -1)
    depth = np.zeros(len(parent), np.int64)
    for node in range(len(parent)):
        above = parent[node]
        while above >= 0:
            depth[node] += 1
            above = parent[above]
    largest = potential.max()
    for u in range(len(terminals)):
        distance[terminals[u]] = 0
        seen, heap = [terminals[u]], [(np.int64(0), terminals[u])]
        found = 0
        while len(heap) > 0 and found < most:
            reached, face = heappop(heap)
            if 2 * reached >= potential[u] + largest:
                break
            if reached > distance[face]:
                continue
            v = number[face]
            if v > u and 2 * reached < potential[u] + potential[v]:
                slack = 2 * reached - potential[u] - potential[v] + 2 * _common_dual(u, v, dual, parent, depth)
                if slack < 0:
                    pairs.append((np.int64(u), v))
                    lengths.append(reached)
                    found += 1
            _relax(graph, distance, seen, heap, face, before)
        for face in seen:
            distance[face] = -1
    return pairs, lengths


@njit(cache=True, nogil=True)
def crossed_bonds(graph, ends, n_bonds):
    """The bonds crossed an odd number of times by shortest paths between pairs of faces `ends` (n, 2); (n_bonds,)."""
    crossed = np.zeros(n_bonds, np.bool_)
    n_faces = len(graph.start) - 1
    distance, before = np.full(n_faces, -1), np.full(n_faces, -1)
    for pair in range(len(ends)):
        source, target = ends[pair, 0], ends[pair, 1]
        distance[source] = 0
        seen, heap = [source], [(np.int64(0), source)]
        while True:
            reached, face = heappop(heap)
            if face == target:
                break
            if reached == distance[face]:
                _relax(graph, distance, seen, heap, face, before)
        while face != source:
            k = before[face]
            crossed[graph.bond[k]] = not crossed[graph.bond[k]]
            face = graph.owner[k]
        for face in seen:
            distance[face] = -1
    return crossed
