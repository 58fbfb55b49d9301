"""Swendsen-Wang cluster updates of ferromagnets on any graph: all J > 0, two-spin interactions, no field.

Bonds between parallel spins are open with probability 1 - exp(-2 beta J); each cluster of sites joined by open bonds
takes a new random sign. Swendsen and Wang, Phys. Rev. Lett. 58, 86 (1987).

An update passes over the system three times:

* `join`: each site takes the label of one earlier neighbour (a smaller site number) behind an open bond, or its own
  number where it has none. Pairs of labels that meet are written down, without a branch that depends on spins or
  random numbers: such branches would be predicted wrong every third time;
* `merge`: labels that met are united, as trees in which every label points to a smaller one;
* `new_signs`: in ascending order, a label that points to itself draws a sign and any other site copies one.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from mc.hamiltonian import InteractionTable
from mc.kernels.metropolis import below_exp
from mc.kernels.random_streams import advance, uniform
from mc.kernels.wolff import FOUR, U0, U1, U2, U3, all_equal, open_bonds, threshold

U15, U16, U63 = (np.uint64(number) for number in (15, 16, 63))


def bond_arrays(table: InteractionTable) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(start (N + 1,) int64, coupling (bonds,) float64, earlier (bonds,) int32): each bond at its larger site.

    The bonds of site i are start[i]:start[i + 1], to the sites `earlier` < i, ascending.
    """
    owner = np.repeat(np.arange(len(table.start) - 1), np.diff(table.start))
    earlier = table.others[:, 0]
    kept = earlier < owner
    owner, earlier, coupling = owner[kept], earlier[kept], table.coupling[kept]
    order = np.lexsort((earlier, owner))
    start = np.searchsorted(owner[order], np.arange(len(table.start)))
    return start, coupling[order], earlier[order]


@njit(cache=True, nogil=True)
def room(start, earlier):
    """Elements of the int32 work array of `update_replica`: labels of sites, pairs of them, and bytes for spins."""
    n_spins = start.shape[0] - 1
    return n_spins + 2 * earlier.shape[0] + 2 + n_spins // 4 + 1


@njit(cache=True, nogil=True)
def join(spins, limit, start, earlier, label, pairs, s0, s1, s2, s3):
    """Labels of the sites and the pairs of labels that met: (end of pairs, s0, s1, s2, s3).

    limit: `threshold` of the coupling, the same for all bonds; start, earlier: see `bond_arrays`; label (N,) and
    pairs (2 bonds + 2,) int32 are filled here.
    """
    end = U0
    for site in range(np.uint64(spins.shape[0])):
        spin = spins[site]
        own = np.uint32(site)
        bonds, s0, s1, s2, s3 = open_bonds(limit, FOUR, s0, s1, s2, s3)
        bonds >>= U15
        term, last = np.uint64(start[site]), np.uint64(start[site + U1])
        if (
            last - term == U2
        ):  # the usual case by itself: all is read before anything is written, and so need not wait for it
            first, second = np.uint32(earlier[term]), np.uint32(earlier[term + U1])
            open_1 = bonds & np.uint64(spins[first] == spin)
            open_2 = (bonds >> U16) & np.uint64(spins[second] == spin)
            label_1, label_2 = np.uint32(label[first]), np.uint32(label[second])
            pairs[end], pairs[end + U1] = label_1, label_2
            end += (open_1 & open_2 & np.uint64(label_1 != label_2)) << U1
            mine = label_2 if open_2 else own
            label[site] = label_1 if open_1 else mine
            continue
        mine = own
        alone = U1  # no bond has been open so far
        for t in range(term, last):
            if (t - term) & U3 == U0 and t != term:
                bonds, s0, s1, s2, s3 = open_bonds(limit, FOUR, s0, s1, s2, s3)
                bonds >>= U15
            other = np.uint32(earlier[t])
            is_open = bonds & U1 & np.uint64(spins[other] == spin)
            bonds >>= U16
            its = np.uint32(label[other])
            pairs[end], pairs[end + U1] = mine, its
            end += (is_open & ~alone & np.uint64(mine != its)) << U1
            mine = its if is_open & alone else mine
            alone &= ~is_open
        label[site] = mine
    return end, s0, s1, s2, s3


@njit(cache=True, nogil=True)
def join_uneven(spins, beta, start, coupling, earlier, label, pairs, s0, s1, s2, s3):
    """As `join`, for couplings that differ."""
    end = U0
    for site in range(np.uint64(spins.shape[0])):
        mine = np.uint32(site)
        for t in range(np.uint64(start[site]), np.uint64(start[site + U1])):
            other = np.uint32(earlier[t])
            if spins[other] == spins[site]:
                word, s0, s1, s2, s3 = advance(s0, s1, s2, s3)
                if not below_exp(uniform(word), 2.0 * beta * coupling[t]):
                    its = np.uint32(label[other])
                    if mine == site:
                        mine = its
                    elif mine != its:
                        pairs[end], pairs[end + U1] = mine, its
                        end += U2
        label[site] = mine
    return end, s0, s1, s2, s3


@njit(cache=True, nogil=True)
def merge(label, pairs, end):
    """Unite the trees of each pair of labels.

    Rem's algorithm (Dijkstra, A Discipline of Programming, 1976; Patwary, Blair and Manne, Lect. Notes Comput. Sci.
    6049, 411 (2010)): climb from the side whose label is larger, and point it to the smaller one on the way.
    """
    for pair in range(U0, end, U2):
        a, b = np.uint32(pairs[pair]), np.uint32(pairs[pair + U1])
        up_a, up_b = np.uint32(label[a]), np.uint32(label[b])
        while up_a != up_b:
            if up_a < up_b:
                a, b, up_a, up_b = b, a, up_b, up_a
            label[a] = up_b
            if a == up_a:
                break
            a = up_a
            up_a = np.uint32(label[a])


@njit(cache=True, nogil=True)
def new_signs(spins, label, s0, s1, s2, s3):
    """A random sign for each cluster: (number of clusters, s0, s1, s2, s3)."""
    clusters = 0
    word = U0
    for site in range(np.uint64(spins.shape[0])):
        if site & U63 == U0:
            word, s0, s1, s2, s3 = advance(s0, s1, s2, s3)
        up = np.uint32(label[site])
        copied = spins[up]
        drawn = np.int8(np.int64((word & U1) << U1) - 1)
        word >>= U1
        is_root = up == np.uint32(site)
        spins[site] = drawn if is_root else copied
        clusters += np.int64(is_root)
    return clusters, s0, s1, s2, s3


@njit(cache=True, nogil=True)
def update_replica(spins, beta, stream, start, coupling, earlier, work, n_updates):
    """n_updates updates of one replica (N,) int8 in place, all clusters of the system in each.

    beta: >= 0, in 1 / energy unit; stream (4,) uint64; start, coupling, earlier: see `bond_arrays`; work: int32 of
    at least `room` elements. Returns (number of clusters, summed over the updates, spins flipped by the last one).
    The caller makes sure that the model is a ferromagnet (`is_ferromagnet`).
    """
    s0, s1, s2, s3 = stream[0], stream[1], stream[2], stream[3]
    even = all_equal(coupling)
    limit = threshold(beta, coupling[0]) if coupling.shape[0] else U0
    n_spins, n_pairs = spins.shape[0], 2 * earlier.shape[0] + 2
    label, pairs, before = work[:n_spins], work[n_spins : n_spins + n_pairs], work[n_spins + n_pairs :].view(np.int8)
    clusters = 0
    for number in range(n_updates):
        if even:
            end, s0, s1, s2, s3 = join(spins, limit, start, earlier, label, pairs, s0, s1, s2, s3)
        else:
            end, s0, s1, s2, s3 = join_uneven(spins, beta, start, coupling, earlier, label, pairs, s0, s1, s2, s3)
        merge(label, pairs, end)
        if number == n_updates - 1:
            for site in range(n_spins):
                before[site] = spins[site]
        found, s0, s1, s2, s3 = new_signs(spins, label, s0, s1, s2, s3)
        clusters += found
    stream[0], stream[1], stream[2], stream[3] = s0, s1, s2, s3
    flipped = 0
    for site in range(n_spins if n_updates > 0 else 0):
        flipped += before[site] != spins[site]
    return clusters, flipped


@njit(cache=True, nogil=True)
def bond_energy(spins, constant, start, coupling, earlier):
    """Energy of one state (N,) int8, float64, from the arrays of `bond_arrays`."""
    total = constant
    for site in range(spins.shape[0]):
        field = 0.0
        for t in range(start[site], start[site + 1]):
            field += coupling[t] * np.float64(spins[np.uint32(earlier[t])])
        total -= np.float64(spins[site]) * field
    return total


@njit(cache=True, nogil=True, parallel=True)
def update(spins, energies, betas, streams, constant, start, coupling, earlier, n_updates):
    """n_updates updates of every replica, in place, replicas shared among threads.

    spins (R, N) int8; energies (R,) float64, computed anew at the end; betas (R,) >= 0; streams (R, 4) uint64;
    constant: of the Hamiltonian; start, coupling, earlier: see `bond_arrays`. Returns the number of clusters of each
    replica, summed over the updates, (R,) int64. The result does not depend on the number of threads.
    """
    clusters = np.zeros(spins.shape[0], np.int64)
    for replica in prange(spins.shape[0]):
        work = np.empty(room(start, earlier), np.int32)
        found, _ = update_replica(
            spins[replica], betas[replica], streams[replica], start, coupling, earlier, work, n_updates
        )
        clusters[replica] = found
        energies[replica] = bond_energy(spins[replica], constant, start, coupling, earlier)
    return clusters
