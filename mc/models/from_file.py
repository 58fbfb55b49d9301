"""Couplings brought by the user in an .npz file."""

from __future__ import annotations

import numpy as np

from mc.hamiltonian import Hamiltonian
from mc.lattice import Lattice
from mc.models.npz import read_npz


def from_file(path: str | None = None, *, shape: str | None = None) -> Hamiltonian:
    """The Hamiltonian of an .npz file with `i, j, J` (bonds) and `h` (fields), or `sites_k, couplings_k` for any k.

    The number of spins is the length of `h`, else `n_spins` in the file, else the largest site + 1. shape: "64x64"
    says that the sites are a lattice, row-major (slowest axis first); whether an axis is periodic is read from the
    bonds. Nothing is unpickled. Raises ValueError for a missing, truncated or inconsistent file, non-finite
    couplings, sites out of range and bonds of a site with itself.
    """
    if path is None:
        raise ValueError("file: no path; give path=FILE.npz")
    arrays = read_npz("file", path)
    interactions = {}
    if {"i", "j", "J"} & set(arrays):
        missing = {"i", "j", "J"} - set(arrays)
        if missing:
            raise ValueError(f"file: {path} has bonds but no array {', '.join(sorted(missing))}")
        if not len(np.ravel(arrays["i"])) == len(np.ravel(arrays["j"])) == len(np.ravel(arrays["J"])):
            raise ValueError(f"file: {path}: arrays i, j, J differ in length")
        interactions[2] = (
            np.stack([_sites(path, "i", arrays), _sites(path, "j", arrays)], axis=-1),
            arrays["J"],
        )
    for key in arrays:
        if key.startswith("sites_") and key[6:].isdigit() and int(key[6:]) > 0:
            order = int(key[6:])
            if f"couplings_{order}" not in arrays or order in interactions:
                raise ValueError(f"file: {path}: {key} needs couplings_{order}, and bonds are given only once")
            sites = _sites(path, key, arrays)
            if sites.ndim != 2 or sites.shape[1] != order:
                raise ValueError(f"file: {path}: {key} has shape {sites.shape}, (n, {order}) is needed")
            interactions[order] = (sites, arrays[f"couplings_{order}"])
    if not interactions and "h" not in arrays:
        raise ValueError(f"file: {path} holds neither i, j, J nor sites_k, couplings_k nor h")
    for order, (sites, strengths) in interactions.items():
        if len(sites) != len(np.ravel(strengths)):
            raise ValueError(f"file: {path}: {len(sites)} interactions of order {order}, {strengths.size} couplings")
        ordered = np.sort(sites, axis=1)
        if (ordered[:, 1:] == ordered[:, :-1]).any():
            raise ValueError(f"file: {path}: a bond joins a site with itself")
    largest = max((int(sites.max()) for sites, _ in interactions.values() if sites.size), default=-1)
    n_spins = len(arrays["h"]) if "h" in arrays else int(arrays.get("n_spins", largest + 1))
    if largest >= n_spins or any(sites.size and sites.min() < 0 for sites, _ in interactions.values()):
        raise ValueError(f"file: {path}: a site index is outside 0..{n_spins - 1}")
    given = list(interactions.values())
    if "h" in arrays:
        given.append((np.arange(n_spins)[:, None], arrays["h"]))
    try:
        lattice = _lattice(shape, n_spins, interactions.get(2, (np.zeros((0, 2), int), None))[0])
        parameters = {"path": str(path)} | ({"shape": shape} if shape else {})
        return Hamiltonian(n_spins, given, 0.0, lattice, "file", parameters)
    except ValueError as error:
        raise ValueError(f"file: {path}: {error}") from None


def _sites(path: str, key: str, arrays: dict[str, np.ndarray]) -> np.ndarray:
    values = arrays[key]
    if not np.issubdtype(values.dtype, np.integer):
        raise ValueError(f"file: {path}: {key} is {values.dtype}, integers are needed")
    return values.astype(np.int64)


def _lattice(shape: str | None, n_spins: int, bonds: np.ndarray) -> Lattice | None:
    if shape is None:
        return None
    words = shape.split("x")
    if not all(word.isdigit() and int(word) > 0 for word in words):
        raise ValueError(f"shape={shape}: sizes joined by x are needed, such as 64x64")
    lengths = tuple(int(word) for word in words)
    if np.prod(lengths) != n_spins:
        raise ValueError(f"shape={shape} has {np.prod(lengths)} sites, the file {n_spins} spins")
    coordinates = Lattice(lengths, (False,) * len(lengths)).coordinates
    distance = np.abs(coordinates[bonds[:, 0]] - coordinates[bonds[:, 1]])
    along = distance > 0
    # A bond that spans a whole axis and nothing else is the wrap of a periodic axis.
    wraps = [
        bool(length > 2 and ((along.sum(axis=1) == 1) & (distance[:, axis] == length - 1)).any())
        for axis, length in enumerate(lengths)
    ]
    return Lattice(lengths, tuple(wraps))
