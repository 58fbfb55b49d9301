"""The one energy function that every sampler of this package shares.

E(s) = constant - sum over interactions c of J_c prod_{i in c} s_i, s_i = +1 or -1, each interaction once. A field
is an interaction of one site, a bond one of two, a plaquette one of four.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from mc.lattice import Lattice


class InteractionTable(NamedTuple):
    """The interactions seen from each site, in the flat arrays that Numba kernels read.

    The terms of site i are start[i]:start[i+1]; term t couples i to the sites others[t] (padded with -1) with
    strength coupling[t]. A field is a term without other sites.
    """

    start: np.ndarray  # (n_spins + 1,) int64
    coupling: np.ndarray  # (n_terms,) float64
    others: np.ndarray  # (n_terms, max order - 1, at least 1) int32


def canonical_interactions(
    n_spins: int, interactions: Iterable[tuple[np.ndarray, np.ndarray]]
) -> tuple[float, dict[int, tuple[np.ndarray, np.ndarray]]]:
    """Reduce interactions to their unique form; returns (constant part of sum J prod s, {order: (sites, J)}).

    Sites inside an interaction are sorted, pairs of the same site cancel (s_i^2 = 1), equal clusters are merged,
    zero couplings are dropped and clusters are sorted, so that equal energy functions give equal arrays.
    """
    constant = 0.0
    merged: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
    for given_sites, given_couplings in interactions:
        couplings = np.asarray(given_couplings, dtype=np.float64).reshape(-1)
        sites = np.asarray(given_sites)
        if sites.size == 0 and couplings.size == 0:
            continue
        if sites.ndim != 2 or len(sites) != len(couplings):
            raise ValueError(f"interactions: sites {sites.shape} and couplings {couplings.shape} do not match")
        if not np.issubdtype(sites.dtype, np.integer):
            raise ValueError(f"interactions: sites are {sites.dtype}, integers are needed")
        if not np.isfinite(couplings).all():
            raise ValueError("interactions: a coupling is NaN or infinite")
        if sites.size and (sites.min() < 0 or sites.max() >= n_spins):
            raise ValueError(f"interactions: a site index is outside 0..{n_spins - 1}")
        sites = np.sort(sites.astype(np.int64), axis=1)
        repeated = (sites[:, 1:] == sites[:, :-1]).any(axis=1)
        merged.setdefault(sites.shape[1], []).append((sites[~repeated], couplings[~repeated]))
        for cluster, coupling in zip(sites[repeated], couplings[repeated], strict=True):
            values, counts = np.unique(cluster, return_counts=True)
            odd = values[counts % 2 == 1]
            merged.setdefault(len(odd), []).append((odd[None, :], np.array([coupling])))
    result: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for order in sorted(merged):
        sites = np.concatenate([s for s, _ in merged[order]])
        couplings = np.concatenate([c for _, c in merged[order]])
        if order == 0:
            constant += float(couplings.sum())
            continue
        unique, inverse = np.unique(sites, axis=0, return_inverse=True)
        total = np.zeros(len(unique))
        np.add.at(total, inverse.reshape(-1), couplings)
        kept = total != 0.0
        if kept.any():
            result[order] = (np.ascontiguousarray(unique[kept].astype(np.int32)), total[kept])
    return constant, result


@dataclass(frozen=True, eq=False)
class Hamiltonian:
    """An energy function of n_spins Ising spins; immutable.

    n_spins: number of spins N.
    interactions: pairs (sites (n, k) integers, couplings (n,)), any k >= 0, in any order; brought to canonical
        form here (see `canonical_interactions`). Mapping {k: (sites, couplings)} is accepted too.
    constant: energy added to every state, in `energy_unit`.
    lattice: the lattice the spins live on, or None for a graph.
    name, parameters: rebuild it (`mc.models.build(name, parameters)`) where that is possible.
    energy_unit, k_B: "J" and 1, or "eV" and 8.617330e-5.
    n_up: only states with so many spins +1 are states (the canonical ensemble of an alloy); None for all 2^N.

    Raises ValueError for sites out of range, non-finite couplings, a lattice of another size, or n_up outside 0..N.
    """

    n_spins: int
    interactions: Mapping[int, tuple[np.ndarray, np.ndarray]] | Iterable[tuple[np.ndarray, np.ndarray]]
    constant: float = 0.0
    lattice: Lattice | None = None
    name: str = "custom"
    parameters: Mapping[str, Any] | None = None
    energy_unit: str = "J"
    k_B: float = 1.0
    n_up: int | None = None

    def __post_init__(self):
        if self.n_spins < 1:
            raise ValueError(f"Hamiltonian: {self.n_spins} spins; at least 1 is needed")
        if self.lattice is not None and self.lattice.n_sites != self.n_spins:
            raise ValueError(f"Hamiltonian: lattice of {self.lattice.n_sites} sites for {self.n_spins} spins")
        if not np.isfinite(self.constant):
            raise ValueError("Hamiltonian: the constant is not finite")
        if self.n_up is not None and not 0 <= self.n_up <= self.n_spins:
            raise ValueError(f"Hamiltonian: n_up={self.n_up}: 0 to {self.n_spins} spins up are possible")
        given = self.interactions
        pairs = given.values() if isinstance(given, Mapping) else given
        shift, canonical = canonical_interactions(self.n_spins, pairs)
        for sites, couplings in canonical.values():
            sites.setflags(write=False)
            couplings.setflags(write=False)
        object.__setattr__(self, "interactions", canonical)
        object.__setattr__(self, "constant", float(self.constant) - shift)
        object.__setattr__(self, "parameters", dict(self.parameters or {}))

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(c)} of order {k}" for k, (_, c) in self.interactions.items()) or "none"
        return f"Hamiltonian({self.name}, {self.n_spins} spins, interactions: {counts})"

    @property
    def max_order(self) -> int:
        return max(self.interactions, default=0)

    @cached_property
    def fields(self) -> np.ndarray:
        """Field on every site, shape (n_spins,)."""
        h = np.zeros(self.n_spins)
        if 1 in self.interactions:
            sites, couplings = self.interactions[1]
            h[sites[:, 0]] = couplings
        return h

    @property
    def bonds(self) -> tuple[np.ndarray, np.ndarray]:
        """Pair interactions: sites (n, 2) int32 with i < j, couplings (n,)."""
        return self.interactions.get(2, (np.zeros((0, 2), np.int32), np.zeros(0)))

    @property
    def is_pairwise(self) -> bool:
        """No interaction of more than two spins."""
        return self.max_order <= 2

    @property
    def is_z2_symmetric(self) -> bool:
        """E(-s) = E(s) for all states: every interaction has an even number of spins, and any number may be up."""
        return self.n_up is None and all(order % 2 == 0 for order in self.interactions)

    @property
    def is_plus_minus_j(self) -> bool:
        """Bonds only, all of one strength, either sign."""
        return set(self.interactions) == {2} and len(np.unique(np.abs(self.bonds[1]))) == 1

    @property
    def is_ferromagnet(self) -> bool:
        """Bonds only, none negative: what the Wolff algorithm asks for."""
        return set(self.interactions) <= {2} and bool((self.bonds[1] > 0).all())

    @property
    def n_components(self) -> int:
        """Components of a spin."""
        return 1

    @property
    def log_states(self) -> float:
        """ln of the number of states, ln Z at beta = 0: N ln 2, or ln binomial(N, n_up)."""
        if self.n_up is None:
            return self.n_spins * math.log(2.0)
        return math.log(math.comb(self.n_spins, self.n_up))

    @cached_property
    def is_nearest_neighbour(self) -> bool:
        """Pairwise, on a lattice, with bonds only between nearest neighbours of it."""
        if self.lattice is None or not self.is_pairwise:
            return False
        allowed = {tuple(sorted(bond)) for bond in self.lattice.bonds.tolist()}
        return all(tuple(bond) in allowed for bond in self.bonds[0].tolist())

    @property
    def is_planar(self) -> bool:
        """An open two-dimensional lattice with nearest-neighbour bonds and no field (a sufficient condition)."""
        return (
            self.is_nearest_neighbour
            and self.lattice.dimension == 2
            and not any(self.lattice.periodic)
            and 1 not in self.interactions
        )

    def energy(self, spins: np.ndarray) -> np.ndarray:
        """Total energies of states (..., n_spins) of +1 and -1; shape (...), float64."""
        spins = np.asarray(spins)
        if spins.shape[-1] != self.n_spins:
            raise ValueError(f"energy: states of {spins.shape[-1]} spins, the Hamiltonian has {self.n_spins}")
        total = np.full(spins.shape[:-1], self.constant)
        for sites, couplings in self.interactions.values():
            product = spins[..., sites[:, 0]].astype(np.int8)
            for column in range(1, sites.shape[1]):
                product = product * spins[..., sites[:, column]]
            total -= product @ couplings
        return total

    def energy_change(self, spins: np.ndarray, site: int) -> np.ndarray:
        """Energy change when `site` is flipped in states (..., n_spins); shape (...)."""
        spins = np.asarray(spins)
        table = self.table
        field = np.zeros(spins.shape[:-1])
        for term in range(table.start[site], table.start[site + 1]):
            others = table.others[term]
            field += table.coupling[term] * np.prod(spins[..., others[others >= 0]], axis=-1, dtype=np.float64)
        return 2.0 * spins[..., site] * field

    @cached_property
    def table(self) -> InteractionTable:
        """Interactions seen from each site, for Numba kernels."""
        width = max(self.max_order - 1, 1)
        owners, couplings, others = [], [], []
        for order, (sites, strengths) in self.interactions.items():
            for column in range(order):
                rest = np.full((len(sites), width), -1, dtype=np.int32)
                rest[:, : order - 1] = np.delete(sites, column, axis=1)
                owners.append(sites[:, column])
                couplings.append(strengths)
                others.append(rest)
        if not owners:
            empty = np.zeros(self.n_spins + 1, np.int64)
            return InteractionTable(empty, np.zeros(0), np.zeros((0, 1), np.int32))
        owner = np.concatenate(owners)
        order = np.argsort(owner, kind="stable")
        start = np.zeros(self.n_spins + 1, dtype=np.int64)
        np.cumsum(np.bincount(owner, minlength=self.n_spins), out=start[1:])
        return InteractionTable(start, np.concatenate(couplings)[order], np.concatenate(others)[order])

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the energy function in canonical form, 64 hexadecimal digits.

        Names and lattices do not enter: two Hamiltonians with equal energies and states have equal fingerprints.
        """
        digest = hashlib.sha256()
        head = {"n_spins": self.n_spins, "constant": float(self.constant).hex(), "k_B": float(self.k_B).hex()}
        if self.n_up is not None:
            head["n_up"] = int(self.n_up)
        digest.update(json.dumps(head, sort_keys=True).encode())
        for order, (sites, couplings) in self.interactions.items():
            digest.update(f"order {order}: {len(sites)}".encode())
            digest.update(np.ascontiguousarray(sites, dtype="<i4").tobytes())
            digest.update(np.ascontiguousarray(couplings, dtype="<f8").tobytes())
        return digest.hexdigest()

    def permuted(self, permutation: np.ndarray) -> Hamiltonian:
        """The Hamiltonian after relabelling site i as permutation[i]."""
        permutation = np.asarray(permutation)
        moved = [(permutation[sites], couplings) for sites, couplings in self.interactions.values()]
        kept = {"energy_unit": self.energy_unit, "k_B": self.k_B, "n_up": self.n_up}
        return Hamiltonian(self.n_spins, moved, self.constant, self.lattice, **kept)
