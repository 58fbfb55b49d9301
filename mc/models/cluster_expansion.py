"""Cluster expansions of binary crystals, read from JSON: the energy of a site from the clusters of sites around it.

E / N = c0 + c1 <s> + sum over orbits k of ECI_k CF_k, s = +1 for one element and -1 for the other; CF_k is the mean
over all clusters of orbit k of the product of their spins. An orbit is what symmetry makes of one cluster; the file
lists those of its clusters that contain the origin. Sanchez, Ducastelle and Gratias, Physica A 128, 334 (1984).
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

EMPTY, POINT = "c0", "c1_0"  # names of the terms without an orbit
KEYS = ("eci", "orbits_containing_origin", "primitive_vectors_half_a", "reference_energies_eV_per_site", "spin",
        "kB_eV_per_K")  # fmt: skip


@dataclass(frozen=True)
class Orbit:
    """Clusters of m sites that symmetry makes equal.

    eci: effective cluster interaction, eV per site. clusters: (n, m, 3) int64, the cells of the sites of one cluster
    of each set that translations make equal. per_site: clusters of the orbit that contain a given site, n m.
    """

    name: str
    eci: float
    clusters: np.ndarray

    @property
    def per_site(self) -> int:
        return self.clusters.shape[0] * self.clusters.shape[1]


@dataclass(frozen=True)
class ClusterExpansion:
    """What a file says: eV per site.

    vectors: (3, 3) int64, rows are the primitive vectors in units of a / 2. down, up: the elements of spin -1 and +1.
    references: energies per site of the two pure crystals, (down, up). k_B: eV per K.
    """

    vectors: np.ndarray
    empty: float
    point: float
    orbits: tuple[Orbit, ...]
    down: str
    up: str
    references: tuple[float, float]
    k_B: float


def positions(vectors: np.ndarray, cell: tuple[int, int, int]) -> np.ndarray:
    """Places of the sites of n1 x n2 x n3 primitive cells, (N, 3) int64 in a / 2, cells numbered row-major."""
    return np.stack(np.unravel_index(np.arange(math.prod(cell)), cell), axis=1) @ np.asarray(vectors, np.int64)


def interactions(
    expansion: ClusterExpansion, cell: tuple[int, int, int]
) -> tuple[float, list[tuple[np.ndarray, np.ndarray]]]:
    """(constant, interactions) of the formation energy of a periodic cell, for a `Hamiltonian`: total, eV.

    The formation energy is E - N (1 - x) e_down - N x e_up, x the fraction of spins up. In a small cell a cluster may
    hold a site twice, or the same sites as another; the Hamiltonian reduces and merges them.
    """
    n_sites = math.prod(cell)
    cells = np.stack(np.unravel_index(np.arange(n_sites), cell), axis=1)
    below, above = expansion.references
    point = expansion.point - 0.5 * (above - below)
    terms = [(np.arange(n_sites)[:, None], np.full(n_sites, -point))]
    for orbit in expansion.orbits:
        count, order = orbit.clusters.shape[:2]
        members = (cells[:, None, None, :] + orbit.clusters) % np.array(cell)  # (N, n, m, 3)
        sites = np.ravel_multi_index(tuple(np.moveaxis(members, -1, 0)), cell).reshape(-1, order)
        terms.append((sites, np.full(len(sites), -orbit.eci / count)))
    return n_sites * (expansion.empty - 0.5 * (above + below)), terms


def read_cluster_expansion(path: str | Path) -> ClusterExpansion:
    """The cluster expansion of a JSON file; see `mc/models/cuau.json` for the format.

    Keys: `eci` {c0, c1_0, orbit: number, eV per site}; `orbits_containing_origin` {orbit: [[[x, y, z] of each site]
    of each cluster]}, whole numbers in units of a / 2; `primitive_vectors_half_a`, in the same units;
    `reference_energies_eV_per_site` {element: energy}; `spin`, which element is which, as "Au=+1, Cu=-1";
    `kB_eV_per_K`. Others are not read.

    Raises ValueError, in one line that names file and key, for a file that is none of this.
    """
    content = _content(path)
    try:
        vectors = _integers(content["primitive_vectors_half_a"], "primitive_vectors_half_a", (3, 3))
        if round(np.linalg.det(vectors)) == 0:
            raise ValueError("primitive_vectors_half_a: the three vectors lie in a plane")
        eci = _table(content["eci"], "eci")
        eci = {name: _number(value, f"eci: {name}") for name, value in eci.items()}
        missing = [name for name in (EMPTY, POINT) if name not in eci]
        if missing:
            raise ValueError(f"eci: no {missing[0]}")
        listed = _table(content["orbits_containing_origin"], "orbits_containing_origin")
        without = sorted(set(eci) - {EMPTY, POINT} - set(listed))
        if without:
            raise ValueError(f"eci: {without[0]} has no clusters in orbits_containing_origin")
        without = sorted(set(listed) - set(eci))
        if without:
            raise ValueError(f"orbits_containing_origin: {without[0]} has no number in eci")
        orbits = tuple(
            Orbit(name, eci[name], _clusters(clusters, f"orbits_containing_origin: {name}", vectors))
            for name, clusters in listed.items()
        )
        down, up, references = _elements(content["spin"], content["reference_energies_eV_per_site"])
        k_B = _number(content["kB_eV_per_K"], "kB_eV_per_K")
        if k_B <= 0:
            raise ValueError(f"kB_eV_per_K: {k_B:g}, a number above 0 is needed")
    except ValueError as error:
        raise ValueError(f"alloy: path={path}: {error}") from None
    return ClusterExpansion(vectors, eci[EMPTY], eci[POINT], orbits, down, up, references, k_B)


def _content(path: str | Path) -> dict[str, Any]:
    if not Path(path).is_file():
        raise ValueError(f"alloy: path={path}: no such file")
    try:
        content = json.loads(Path(path).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"alloy: path={path} is not a readable JSON file ({error})") from None
    if not isinstance(content, dict):
        raise ValueError(f"alloy: path={path}: {{...}} with keys {', '.join(KEYS)} is needed")
    missing = [key for key in KEYS if key not in content]
    if missing:
        raise ValueError(f"alloy: path={path}: no key {missing[0]}; a cluster expansion has {', '.join(KEYS)}")
    return content


def _table(value: Any, key: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{key}: {{name: ...}} is needed")
    return value


def _number(value: Any, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e300 < value < 1e300:
        raise ValueError(f"{key}: {str(value)[:40]}, a finite number is needed")
    return float(value)


def _integers(value: Any, key: str, shape: tuple[int | None, ...]) -> np.ndarray:
    """An array of whole numbers; None in shape: any length of at least 1."""
    try:
        array = np.array(value, dtype=object if isinstance(value, str) else None)
    except ValueError:
        raise ValueError(f"{key}: lists of unequal lengths") from None
    fits = (
        array.ndim == len(shape)
        and array.size
        and all(n in (None, m) for n, m in zip(shape, array.shape, strict=True))
    )
    if not fits:
        needed = " x ".join("n" if n is None else str(n) for n in shape)
        raise ValueError(f"{key}: {needed} whole numbers are needed")
    if array.dtype.kind != "i" or np.abs(array).max() > 10**6:
        raise ValueError(f"{key}: whole numbers are needed")
    return array.astype(np.int64)


def _clusters(value: Any, key: str, vectors: np.ndarray) -> np.ndarray:
    """One cluster of each set that translations make equal, (n, m, 3) in cells; all m of each must be listed."""
    listed = _integers(value, key, (None, None, 3))
    order = listed.shape[1]
    if order < 2:
        raise ValueError(f"{key}: clusters of at least two sites are needed")
    if not (listed == 0).all(axis=-1).any(axis=1).all():
        raise ValueError(f"{key}: a cluster does not contain the origin")
    cells = np.rint(listed @ np.linalg.inv(vectors)).astype(np.int64)
    if (cells @ vectors != listed).any():
        raise ValueError(f"{key}: a site is not on the lattice of primitive_vectors_half_a")
    shapes: dict[bytes, list[bytes]] = {}
    for cluster in cells:
        ordered = cluster[np.lexsort(cluster.T[::-1])]
        if (ordered[1:] == ordered[:-1]).all(axis=1).any():
            raise ValueError(f"{key}: a cluster holds a site twice")
        shapes.setdefault((ordered - ordered[0]).tobytes(), []).append(ordered.tobytes())
    for places in shapes.values():
        if len(set(places)) < len(places):
            raise ValueError(f"{key}: a cluster is listed twice")
        if len(places) < order:
            raise ValueError(f"{key}: of a cluster and its translations through the origin not all are listed")
    return np.stack([np.frombuffer(shape, np.int64).reshape(order, 3) for shape in shapes])


def _elements(spin: Any, energies: Any) -> tuple[str, str, tuple[float, float]]:
    """Names of the elements of spin -1 and +1, and their energies in that order."""
    key = "reference_energies_eV_per_site"
    energies = _table(energies, key)
    if len(energies) != 2:
        raise ValueError(f"{key}: {len(energies)} elements, a binary alloy has two")
    signs = dict(re.findall(r"(\w+)\s*=\s*([+-]1)\b", spin)) if isinstance(spin, str) else {}
    if sorted(signs.values()) != ["+1", "-1"] or set(signs) != set(energies):
        names = list(energies)
        raise ValueError(f'spin: which of {names[0]} and {names[1]} is which, as "{names[0]}=+1, {names[1]}=-1"')
    down, up = (next(name for name, sign in signs.items() if sign == wanted) for wanted in ("-1", "+1"))
    return down, up, tuple(_number(energies[name], f"{key}: {name}") for name in (down, up))
