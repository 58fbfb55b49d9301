"""In which order the spins enter and leave the frontier of the transfer matrix, and how wide it becomes.

Spins enter one by one. A spin that has met all its neighbours is summed out; those still waiting for a neighbour
are the frontier, and each has a slot, a bit of the number of a frontier state. The work is 2^width, so orders are
compared before anything is computed (finding the best one, the pathwidth of the graph, is NP-hard).

In a component of the graph without a field the global flip makes one spin redundant: the first one to enter is
pinned to +1, its bonds act as fields on its neighbours, and ln 2 is added to ln Z. It takes no slot.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mc.hamiltonian import Hamiltonian

MAX_WIDTH = 26  # three vectors of 2^26 float64 are 1.5 GiB


@dataclass(frozen=True)
class Step:
    """One spin enters the frontier, and the spins that are then complete leave it.

    slot: the slot of the new spin. If `replaces`, a complete spin leaves it and is summed over in the same pass.
    field: field on the new spin, from pinned neighbours too. links: couplings to slots, {slot: J}, seen before the
    change. width: occupied slots after the spin has entered. drops: slots then summed out one after the other, each
    filled by moving the spin of the last slot into it.
    """

    slot: int
    replaces: bool
    field: float
    links: dict[int, float]
    width: int
    drops: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """order: the sites as they enter. pinned: the spins held at +1. width: slots at the widest. work: sum over all
    passes of the number of frontier states."""

    order: np.ndarray
    pinned: frozenset[int]
    width: int
    work: float


def frontier_width(hamiltonian: Hamiltonian) -> int:
    """Largest number of spins the transfer matrix keeps at once in the best order known; ValueError if not pairwise.

    2L - 1 for an L x L torus, L for an open one; for graphs an upper bound found by a greedy search.
    """
    return best_plan(hamiltonian).width


def best_plan(hamiltonian: Hamiltonian, limit: int | None = None) -> Plan | None:
    """The cheapest order out of a few; None if every one is wider than `limit` slots (none stops there by default).

    Lattices: row by row, for every order of the axes. Everything: greedy orders, from a few first sites.
    Raises ValueError for interactions of more than two spins.
    """
    if not hamiltonian.is_pairwise:
        raise ValueError(f"frontier: interactions of order {hamiltonian.max_order}; the transfer matrix takes pairs")
    n_spins, sites = hamiltonian.n_spins, hamiltonian.bonds[0]
    if limit is not None and np.bincount(sites.ravel(), minlength=n_spins).min() > limit + 1:
        return None  # whatever the order, the first complete spin leaves all its neighbours in the frontier
    neighbours = _neighbours(hamiltonian)
    labels = _components(hamiltonian)
    best = None
    for order in _simple_orders(hamiltonian):
        best = _cheaper(best, _plan(hamiltonian, neighbours, labels, order, limit))
    # The search takes about bonds x width steps; a wide frontier is only of interest for a message.
    widest = limit if limit is not None else max(MAX_WIDTH, 500_000 // max(len(sites), 1))
    for first in np.linspace(0, n_spins, max(1, min(8, n_spins, 4000 // n_spins)), endpoint=False, dtype=int):
        order = _greedy_order(neighbours, int(first), min(best.width, widest) if best else widest)
        if order is not None:
            best = _cheaper(best, _plan(hamiltonian, neighbours, labels, order, limit))
    return best


def _cheaper(one: Plan | None, other: Plan | None) -> Plan | None:
    return min((plan for plan in (one, other) if plan is not None), key=lambda plan: plan.work, default=None)


def _plan(hamiltonian, neighbours, labels, order: np.ndarray, limit: int | None) -> Plan | None:
    """What an order costs, or None once it is wider than `limit`."""
    pinned = _pinned(hamiltonian, labels, order)
    width, work = 0, 0.0
    for step in elimination(hamiltonian, neighbours, order, pinned):
        width = max(width, step.width)
        if limit is not None and width > limit:
            return None
        work += sum(2.0 ** min(step.width - k, 1000) for k in range(len(step.drops) + 1))
    return Plan(order, pinned, width, work)


def elimination(
    hamiltonian: Hamiltonian, neighbours: list[dict[int, float]], order: np.ndarray, pinned: frozenset[int]
) -> Iterator[Step]:
    """The steps of the spins in `order`; pinned spins enter without one."""
    missing = [len(links) for links in neighbours]  # neighbours that have not entered yet
    slot_of: dict[int, int] = {}
    slots: list[int] = []  # the spin in each slot
    for site in order.tolist():
        for other in neighbours[site]:
            missing[other] -= 1
        if site in pinned:
            continue
        field, links, leaving = float(hamiltonian.fields[site]), {}, []
        for other, coupling in neighbours[site].items():
            if other in slot_of:
                links[slot_of[other]] = coupling
                if missing[other] == 0:
                    leaving.append(other)
            elif other in pinned:  # it is the first of its component, so it has entered
                field += coupling
        replaces = bool(leaving)
        if replaces:
            slot = slot_of.pop(leaving.pop(0))
            slots[slot] = site
        else:
            slot = len(slots)
            slots.append(site)
        slot_of[site] = slot
        width = len(slots)
        if missing[site] == 0:
            leaving.append(site)
        drops = []
        for spin in leaving:
            freed, last = slot_of.pop(spin), slots.pop()
            if last != spin:
                slots[freed], slot_of[last] = last, freed
            drops.append(freed)
        yield Step(slot, replaces, field, links, width, tuple(drops))


def plan_steps(hamiltonian: Hamiltonian, plan: Plan) -> Iterator[Step]:
    """The steps of a plan."""
    return elimination(hamiltonian, _neighbours(hamiltonian), plan.order, plan.pinned)


def _neighbours(hamiltonian: Hamiltonian) -> list[dict[int, float]]:
    """{neighbour: coupling} of every site."""
    found: list[dict[int, float]] = [{} for _ in range(hamiltonian.n_spins)]
    sites, couplings = hamiltonian.bonds
    for (i, j), coupling in zip(sites.tolist(), couplings.tolist(), strict=True):
        found[i][j] = found[j][i] = coupling
    return found


def _components(hamiltonian: Hamiltonian) -> np.ndarray:
    """Label of the connected component of every site, shape (n_spins,)."""
    sites, _ = hamiltonian.bonds
    shape = (hamiltonian.n_spins, hamiltonian.n_spins)
    return connected_components(coo_array((np.ones(len(sites)), sites.T), shape), directed=False)[1]


def _pinned(hamiltonian: Hamiltonian, labels: np.ndarray, order: np.ndarray) -> frozenset[int]:
    """The first site of every component without a field."""
    with_field = set(labels[hamiltonian.fields != 0].tolist())
    components, first = np.unique(labels[order], return_index=True)
    return frozenset(
        int(site) for label, site in zip(components.tolist(), order[first], strict=True) if label not in with_field
    )


def _simple_orders(hamiltonian: Hamiltonian) -> Iterator[np.ndarray]:
    """Row by row along every order of the axes of a lattice; the order of the numbers for a graph."""
    if hamiltonian.lattice is None:
        yield np.arange(hamiltonian.n_spins)
        return
    coordinates = hamiltonian.lattice.coordinates
    for axes in permutations(range(hamiltonian.lattice.dimension)):
        yield np.lexsort(coordinates[:, axes].T)


def _greedy_order(neighbours: list[dict[int, float]], first: int, limit: int) -> np.ndarray | None:
    """Always the spin that leaves the smallest frontier behind, then the one with the fewest neighbours to come.

    Candidates are the neighbours of the frontier, oldest frontier spin first; when it is empty, `first` or the spin
    with the fewest neighbours. None once the frontier is wider than `limit`.
    """
    missing = [len(links) for links in neighbours]
    waiting = iter(sorted(range(len(neighbours)), key=lambda site: (site != first, missing[site])))
    entered: set[int] = set()
    frontier: dict[int, None] = {}  # an ordered set
    order = []
    while len(order) < len(neighbours):
        completes: dict[int, int] = {}  # candidate: spins that need only it
        for spin in frontier:
            for other in neighbours[spin]:
                if other not in entered:
                    completes[other] = completes.get(other, 0) + (missing[spin] == 1)
        if completes:
            site = min(completes, key=lambda c: (-completes[c] - (missing[c] == 0), missing[c]))
        else:
            site = next(site for site in waiting if site not in entered)
        order.append(site)
        entered.add(site)
        frontier[site] = None
        for other in neighbours[site]:
            missing[other] -= 1
        for spin in (site, *neighbours[site]):
            if missing[spin] == 0:
                frontier.pop(spin, None)
        if len(frontier) > limit + 1:  # one more than slots: a pinned spin takes none
            return None
    return np.array(order)
