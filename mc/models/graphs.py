"""Spin glasses without a lattice: Sherrington-Kirkpatrick, p-spin, random regular graph."""

from __future__ import annotations

import math
from itertools import chain, combinations

import numpy as np

from mc.hamiltonian import Hamiltonian
from mc.models import couplings

MAX_CLUSTERS = 5_000_000  # a p-spin model beyond this does not fit the tables of a laptop


def _glass(name: str, n_spins: int, sites: np.ndarray, J: str | float, scale: float, h, seed, parameters):
    if J == "ferro" or not isinstance(J, str):
        raise ValueError(f"{name}: J={J}: bimodal or gaussian is needed")
    strengths = couplings.deal(J, seed, len(sites), scale)
    # Multiples of 2^-32, as Gaussian couplings are: 1/sqrt(N) must not depend on anybody's math library.
    strengths = np.round(strengths / couplings.RESOLUTION) * couplings.RESOLUTION
    field = couplings.field_interaction(h, seed, n_spins)
    return Hamiltonian(n_spins, [(sites, strengths), field], name=name, parameters=parameters)


def _require(name: str, key: str, value: int | None, least: int) -> int:
    if value is None:
        raise ValueError(f"{name}: no size; give {key}=")
    if value < least:
        raise ValueError(f"{name}: {key}={value}: an integer of at least {least} is needed")
    return value


def sk(N: int | None = None, *, J: str | float = "gaussian", h: str | float = 0.0, seed: int = 0) -> Hamiltonian:
    """E = - sum_{i<j} J_ij s_i s_j - sum_i h_i s_i, J_ij of mean 0 and variance 1/N.

    Sherrington and Kirkpatrick, PRL 35, 1792 (1975). Raises ValueError for a missing size or another J.
    """
    N = _require("sk", "N", N, 2)
    pairs = np.stack(np.triu_indices(N, 1), axis=1)
    return _glass("sk", N, pairs, J, 1.0 / math.sqrt(N), h, seed, dict(N=N, J=J, h=h, seed=seed))


def pspin(
    N: int | None = None, *, p: int = 3, J: str | float = "gaussian", h: str | float = 0.0, seed: int = 0
) -> Hamiltonian:
    """E = - sum over all p-subsets J_c prod s - sum h s, J_c of variance p! / (2 N^(p-1)).

    Gross and Mezard, Nucl. Phys. B 240, 431 (1984). Raises ValueError for sizes that do not fit, or too many subsets.
    """
    N = _require("pspin", "N", N, 2)
    if not 2 <= p <= N:
        raise ValueError(f"pspin: p={p}: an integer from 2 to N={N} is needed")
    if math.comb(N, p) > MAX_CLUSTERS:
        raise ValueError(
            f"pspin: {math.comb(N, p)} interactions; at most {MAX_CLUSTERS} fit, choose a smaller N or p"
        )
    clusters = np.fromiter(chain.from_iterable(combinations(range(N), p)), np.int64).reshape(-1, p)
    scale = math.sqrt(math.factorial(p) / (2.0 * N ** (p - 1)))
    return _glass("pspin", N, clusters, J, scale, h, seed, dict(N=N, p=p, J=J, h=h, seed=seed))


def rrg(
    N: int | None = None, *, degree: int = 3, J: str | float = "bimodal", h: str | float = 0.0, seed: int = 0
) -> Hamiltonian:
    """E = - sum over edges J_ij s_i s_j - sum h s on a random graph in which every site has `degree` neighbours."""
    N = _require("rrg", "N", N, 3)
    if not 2 <= degree < N or N * degree % 2:
        raise ValueError(f"rrg: degree={degree}: 2 to N-1 is needed, with N*degree even (N={N})")
    edges = random_regular_edges(N, degree, seed)
    return _glass("rrg", N, edges, J, 1.0, h, seed, dict(N=N, degree=degree, J=J, h=h, seed=seed))


def random_regular_edges(n_sites: int, degree: int, seed: int) -> np.ndarray:
    """Edges (n_sites * degree / 2, 2) of a simple regular graph: half-edges joined at random, clashes re-joined.

    A loop or a double edge is mended by exchanging ends with an edge drawn at random, which keeps every degree
    (the switching idea of McKay and Wormald 1990; nearly, not exactly, uniform over simple graphs).
    """
    if 2 * degree > n_sites - 1:  # switching gets stuck in dense graphs: take what a sparse one leaves out
        pairs = np.stack(np.triu_indices(n_sites, 1), axis=1)
        left_out = random_regular_edges(n_sites, n_sites - 1 - degree, seed)
        return pairs[~np.isin(pairs @ [n_sites, 1], left_out @ [n_sites, 1])]
    if degree == 0:
        return np.zeros((0, 2), dtype=np.int64)
    stubs = np.repeat(np.arange(n_sites), degree)
    order = np.argsort(couplings.raw_words(seed, couplings.GRAPH, len(stubs)), kind="stable")
    edges = stubs[order].reshape(-1, 2)
    words = iter(couplings.raw_words(seed, couplings.GRAPH, 100_000 + len(stubs))[len(stubs) :].tolist())
    while True:
        edges.sort(axis=1)
        _, first, counts = np.unique(edges, axis=0, return_index=True, return_counts=True)
        clash = np.ones(len(edges), bool)
        clash[first[counts == 1]] = False
        clash |= edges[:, 0] == edges[:, 1]
        clash[first[(counts > 1) & (edges[first, 0] != edges[first, 1])]] = False
        bad = np.flatnonzero(clash)
        if not len(bad):
            return edges[np.lexsort((edges[:, 1], edges[:, 0]))]
        word = next(words, None)
        if word is None:
            raise ValueError(f"rrg: no simple graph found for N={n_sites}, degree={degree}; another seed= may do")
        other = word % len(edges)
        end = (word >> 32) % 2
        edges[bad[0], 1], edges[other, end] = edges[other, end], edges[bad[0], 1]
