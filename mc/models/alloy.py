"""Binary alloys on a crystal, by a cluster expansion: CuAu, or another one from a JSON file.

Semi-grand (a field h, half the difference of the chemical potentials) or canonical (a fixed composition).
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from mc.hamiltonian import Hamiltonian
from mc.models.cluster_expansion import ClusterExpansion, interactions, positions, read_cluster_expansion

CUAU = Path(__file__).with_name("cuau.json")
MAX_CLUSTERS = 10_000_000  # beyond, the tables do not fit a laptop
WHOLE = 1e-6  # as far as a composition may be from a whole number of sites, per site


def alloy(
    cell: str = "2x2x4", *, h: float = 0.0, composition: float | None = None, path: str | None = None
) -> Hamiltonian:
    """E = E_form - h sum_i s_i of a periodic cell, total, in eV; beta is in 1/eV.

    cell: numbers of primitive cells along the primitive vectors, "4x4x8"; sites are numbered row-major. h: eV a site,
    the field on spin +1. composition: the fraction of spins +1 (Au of CuAu), which then is fixed (`n_up`). path: JSON
    of another cluster expansion (`mc.models.cluster_expansion`); the one of CuAu otherwise.

    E_form = E - N (1 - x) e_Cu - N x e_Au is the formation energy. The parameters say what rebuilds the Hamiltonian,
    and the elements (spin -1, spin +1) and primitive vectors of the expansion.

    Raises ValueError for a cell that is none, an h that is not finite, a composition that is no whole number of
    sites, both at once, or a bad file.
    """
    shape = _shape(cell)
    if isinstance(h, bool) or not isinstance(h, int | float) or not math.isfinite(h):
        raise ValueError(f"alloy: h={h}: a finite number (eV a site) is needed")
    n_sites = math.prod(shape)
    n_up = None if composition is None else sites_up(composition, n_sites)
    if n_up is not None and h != 0:
        raise ValueError("alloy: h= does nothing at a fixed composition; give h= or composition=, not both")
    expansion = read_cluster_expansion(CUAU if path is None else path)
    terms = sum(len(orbit.clusters) for orbit in expansion.orbits) * n_sites
    if terms > MAX_CLUSTERS:
        raise ValueError(f"alloy: cell={cell}: {terms} clusters; at most {MAX_CLUSTERS} fit, choose a smaller cell")
    constant, given = interactions(expansion, shape)
    given.append((np.arange(n_sites)[:, None], np.full(n_sites, float(h))))
    return Hamiltonian(
        n_sites,
        given,
        constant,
        None,
        "alloy",
        _parameters(shape, h, composition, path, expansion),
        "eV",
        expansion.k_B,
        n_up,
    )


def sites_up(composition: float, n_sites: int) -> int:
    """Sites of spin +1 at a composition.

    ValueError, naming the nearest possible compositions, unless that is a whole number.
    """
    if not 0 <= composition <= 1:
        raise ValueError(f"alloy: composition={composition:g}: a fraction from 0 to 1 is needed")
    exact = composition * n_sites
    n_up = round(exact)
    if abs(exact - n_up) > WHOLE * n_sites:
        low = math.floor(exact)
        nearest = " or ".join(f"{k / n_sites:.8g}" for k in (low, low + 1))
        raise ValueError(f"alloy: composition={composition:g} of {n_sites} sites is {exact:.6g} sites; use {nearest}")
    return n_up


def companions(hamiltonian: Hamiltonian) -> dict[str, tuple[float, float, float]]:
    """What stands beside the energy E and the magnetization m of an alloy: {name: (a, b, c)} for a E + b m + c.

    `formation_energy` (total, eV) and `x_Au`, the fraction of spins +1 by the name of the element; {} for others.
    """
    if hamiltonian.name != "alloy" or "elements" not in hamiltonian.parameters:
        return {}
    h, (_, up) = hamiltonian.parameters["h"], hamiltonian.parameters["elements"]
    return {"formation_energy": (1.0, h * hamiltonian.n_spins, 0.0), f"x_{up}": (0.0, 0.5, 0.5)}


def fixed_variables(hamiltonian: Hamiltonian) -> tuple[str, ...]:
    """Variables that all states have alike: with a fixed number of spins up the magnetization, and what it makes."""
    if hamiltonian.n_up is None:
        return ()
    return ("magnetization", *(name for name, (energy, _, _) in companions(hamiltonian).items() if energy == 0))


def x_points(hamiltonian: Hamiltonian) -> np.ndarray:
    """Signs (-1)^n of each site, n its coordinate in a / 2 along each axis that allows it, (axes, N) int8.

    exp(2 pi i x / a) at the sites of an fcc crystal, the waves of its L1_0 order, one for each axis along which the
    periods of the cell are even in a / 2. (0, N) where there is none, and for all but fcc alloys.
    """
    none = np.zeros((0, hamiltonian.n_spins), np.int8)
    if hamiltonian.name != "alloy" or "vectors" not in hamiltonian.parameters:
        return none
    vectors = np.array(hamiltonian.parameters["vectors"], np.int64)
    if (vectors.sum(axis=1) % 2).any() or abs(round(np.linalg.det(vectors))) != 2:
        return none  # fcc: all whole numbers of even sum
    shape = _shape(hamiltonian.parameters["cell"])
    fits = (np.array(shape)[:, None] * vectors % 2 == 0).all(axis=0)
    return (1 - 2 * (positions(vectors, shape)[:, fits].T % 2)).astype(np.int8)


def order_parameter(signs: np.ndarray, spins: np.ndarray) -> np.ndarray:
    """L1_0 order of states (..., N) of +1 and -1, (...): the largest |sum_i s_i sign_i| / N over the rows of signs.

    signs: of `x_points`, at least one row. 1 in L1_0, 1/2 in L1_2, of the order N^(-1/2) in a random alloy.
    """
    spins = np.asarray(spins)
    sums = [np.abs((spins * row).sum(axis=-1, dtype=np.int64)) for row in signs]
    return np.max(sums, axis=0) / signs.shape[1]


def _shape(cell: str) -> tuple[int, int, int]:
    sizes = tuple(int(size) for size in str(cell).split("x") if size.isascii() and size.isdigit())
    if str(cell).count("x") != 2 or len(sizes) != 3 or min(sizes) < 1:
        raise ValueError(f"alloy: cell={cell}: three sizes of at least 1 joined by x are needed, such as 2x2x4")
    return sizes


def _parameters(shape, h: float, composition: float | None, path: str | None, expansion: ClusterExpansion) -> dict:
    found = {"cell": "x".join(map(str, shape)), "h": float(h)}
    found |= {} if composition is None else {"composition": float(composition)}
    found |= {} if path is None else {"path": str(path)}
    return found | {"elements": [expansion.down, expansion.up], "vectors": expansion.vectors.tolist()}
