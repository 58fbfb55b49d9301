"""Exact values, one file a method, and the choice between them.

`exact` takes the cheapest method that can do it, `exact_or_none` only if it is quick. `ground_state` stands apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from mc.exact.enumeration import (
    BLOCK_BITS,
    MAX_SPINS,
    boltzmann_distribution,
    enumerate_exact,
    enumerate_states,
    state_index,
    state_spins,
)
from mc.exact.frontier import MAX_WIDTH, best_plan, frontier_width
from mc.exact.kaufman import kaufman_torus
from mc.exact.matching import ground_state
from mc.exact.pfaffian import estimated_seconds as pfaffian_seconds
from mc.exact.pfaffian import pfaffian_exact, pfaffian_refusal
from mc.exact.result import ExactRefused, ExactResult, checked_beta
from mc.exact.transfer_matrix import MAX_SECONDS, estimated_seconds, transfer_exact
from mc.exact.vector_spins import vector_exact, vector_refusal
from mc.hamiltonian import Hamiltonian
from mc.square import square_refusal
from mc.vector.hamiltonian import VectorHamiltonian

__all__ = [
    "METHODS",
    "ExactRefused",
    "ExactResult",
    "boltzmann_distribution",
    "enumerate_exact",
    "enumerate_states",
    "exact",
    "exact_or_none",
    "frontier_width",
    "ground_state",
    "kaufman_torus",
    "pfaffian_exact",
    "state_index",
    "state_spins",
    "transfer_exact",
]

METHODS = ("kaufman", "enumeration", "transfer-matrix", "pfaffian")
ALWAYS_ENUMERATE = 20  # spins: 30 ms, and the ground state comes with it
SECONDS_PER_STATE = 3e-8  # of an enumeration; the same per block and interaction


def exact(hamiltonian: Hamiltonian | VectorHamiltonian, beta: float, method: str | None = None) -> ExactResult:
    """Exact ln Z, <E>, heat capacity (and, where found, the ground state) at inverse temperature `beta`.

    method: one of METHODS, or None: Kaufman for a uniform two-dimensional torus without field, else enumeration up
    to 20 spins (it finds the ground state too), else the cheapest of enumeration (up to 24 spins), Pfaffians
    (two-dimensional lattices without field) and the transfer matrix (frontier up to 26 spins), an hour at most; the
    next where that one finds `beta` too large.

    Raises ExactRefused, in one line, when the method cannot do it or none can; ValueError for an unknown method or a
    beta that is negative or not finite.
    """
    beta = checked_beta(beta)
    if isinstance(hamiltonian, VectorHamiltonian):
        return vector_exact(hamiltonian, beta)
    if method is None:
        offers = _offers(hamiltonian)
        if offers:
            return _first_that_does(offers, beta)
        # Nothing can do it: let the method that comes closest say why.
        method = "transfer-matrix" if hamiltonian.is_pairwise and hamiltonian.n_up is None else "enumeration"
        if not square_refusal(hamiltonian) and 1 not in hamiltonian.interactions:
            method = "pfaffian"
    if method == "kaufman":
        if _torus_coupling(hamiltonian) is None:
            raise ExactRefused(
                f"Kaufman torus: {hamiltonian.name} is not equal bonds on a two-dimensional torus without field; "
                "use method enumeration or transfer-matrix"
            )
        return _kaufman(hamiltonian, beta)
    if method == "enumeration":
        return enumerate_exact(hamiltonian, beta)
    if method == "transfer-matrix":
        return transfer_exact(hamiltonian, beta)
    if method == "pfaffian":
        return pfaffian_exact(hamiltonian, beta)
    raise ValueError(f"method={method}: not one of {', '.join(METHODS)}")


def exact_or_none(hamiltonian: Hamiltonian, beta: float, max_seconds: float = 10.0) -> ExactResult | None:
    """`exact` if some method is estimated to need at most `max_seconds`, else None; the estimate itself is quick."""
    beta = checked_beta(beta)
    offers = [offer for offer in _offers(hamiltonian) if offer.seconds <= max_seconds]
    try:
        return _first_that_does(offers, beta) if offers else None
    except ExactRefused:
        return None


@dataclass(frozen=True)
class _Offer:
    """A method that can do it, at its estimated price."""

    seconds: float
    run: Callable[[float], ExactResult]


def _first_that_does(offers: list[_Offer], beta: float) -> ExactResult:
    """The first result; a method may find only when at work that beta is too large. Raises the first refusal."""
    refusals = []
    for offer in offers:
        try:
            return offer.run(beta)
        except ExactRefused as refusal:
            refusals.append(refusal)
    raise refusals[0]


def _offers(hamiltonian: Hamiltonian) -> list[_Offer]:
    """The methods that can do it, cheapest first."""
    if isinstance(hamiltonian, VectorHamiltonian):
        return [] if vector_refusal(hamiltonian) else [_Offer(0.01, partial(vector_exact, hamiltonian))]
    n_spins = hamiltonian.n_spins
    coupling = _torus_coupling(hamiltonian)
    if coupling is not None and (coupling > 0 or not any(side % 2 for side in hamiltonian.lattice.shape)):
        return [_Offer(0.01, partial(_kaufman, hamiltonian))]
    offers = []
    if n_spins <= MAX_SPINS:
        n_clusters = sum(len(couplings) for _, couplings in hamiltonian.interactions.values())
        work = 2.0**n_spins + 2.0 ** max(n_spins - BLOCK_BITS, 0) * n_clusters
        offers.append(_Offer(SECONDS_PER_STATE * work, partial(enumerate_exact, hamiltonian)))
    if n_spins > ALWAYS_ENUMERATE and hamiltonian.is_pairwise and hamiltonian.n_up is None:
        plan = best_plan(hamiltonian, MAX_WIDTH)
        seconds = estimated_seconds(hamiltonian, plan) if plan else math.inf
        if seconds <= MAX_SECONDS:
            offers.append(_Offer(seconds, partial(transfer_exact, hamiltonian, plan=plan)))
    if n_spins > ALWAYS_ENUMERATE and not pfaffian_refusal(hamiltonian):
        offers.append(_Offer(pfaffian_seconds(hamiltonian), partial(pfaffian_exact, hamiltonian)))
    return sorted(offers, key=lambda offer: offer.seconds)


def _kaufman(hamiltonian: Hamiltonian, beta: float) -> ExactResult:
    """Kaufman's torus with the constant of the Hamiltonian."""
    Ly, Lx = hamiltonian.lattice.shape
    bare, constant = kaufman_torus(Lx, Ly, _torus_coupling(hamiltonian), beta), hamiltonian.constant
    return replace(
        bare,
        log_z=bare.log_z - beta * constant,
        energy=bare.energy + constant,
        ground_energy=bare.ground_energy + constant,
    )


def _torus_coupling(hamiltonian: Hamiltonian) -> float | None:
    """J if the Hamiltonian is equal bonds on all nearest neighbours of a two-dimensional torus and nothing else."""
    lattice = hamiltonian.lattice
    if lattice is None or lattice.dimension != 2 or not all(lattice.periodic) or set(hamiltonian.interactions) != {2}:
        return None
    if hamiltonian.n_up is not None:
        return None
    sites, couplings = hamiltonian.bonds
    if len(sites) != 2 * lattice.n_sites or (couplings != couplings[0]).any():
        return None
    expected = np.sort(lattice.bonds, axis=1)
    same = np.array_equal(expected[np.lexsort((expected[:, 1], expected[:, 0]))], sites)  # sites are sorted already
    return float(couplings[0]) if same else None
