"""Soft labels: the law of a spin given more than its past, which averages to its law given the past.

On a lattice the more is every other row (line along the last axis): what remains is a chain along the row, summed
exactly. Fits to such labels need about five times fewer states than fits to the spins themselves. Elsewhere it is all
other spins.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from mc.hamiltonian import Hamiltonian

NUMBERS_AT_ONCE = 2**20  # spins, or products of spins, of the states handled together


def row_labels(hamiltonian: Hamiltonian, beta: float, spins: np.ndarray) -> np.ndarray:
    """p(s_i = +1 | the spins left of i in its row, all other rows) of states (n, N), (n, N) float32, site by site.

    Such labels suit every generation order in which the drawn spins of a row are those left of i: all patches do.
    For Hamiltonians that are not nearest-neighbour models of a lattice: p(s_i = +1 | all other spins).
    beta: in 1 / energy unit. ValueError for states of another size.
    """
    spins = np.asarray(spins)
    if spins.ndim != 2 or spins.shape[1] != hamiltonian.n_spins:
        raise ValueError(f"row_labels: states {spins.shape}, (n, {hamiltonian.n_spins}) are needed")
    labels = np.empty(spins.shape, np.float32)
    rows = lattice_rows(hamiltonian, beta)
    terms = max((len(J) for _, J in hamiltonian.interactions.values()), default=1)
    most = max(1, NUMBERS_AT_ONCE // max(hamiltonian.n_spins, terms))
    for start in range(0, len(spins), most):
        part = spins[start : start + most]
        if rows is not None:
            odds = _chain_odds(rows, part)
        else:
            odds = torch.from_numpy(2.0 * beta * local_fields(hamiltonian, part))
        labels[start : start + most] = torch.sigmoid(odds).float().numpy()
    return labels


def local_fields(hamiltonian: Hamiltonian, spins: np.ndarray) -> np.ndarray:
    """The field that all other spins of states (n, N) put on each, (n, N) float64 in the energy unit."""
    result = np.zeros(spins.shape)
    for order, (sites, couplings) in hamiltonian.interactions.items():
        products = spins[:, sites[:, 0]].astype(np.float64)
        for column in range(1, order):
            products *= spins[:, sites[:, column]]
        terms = np.repeat(np.arange(len(sites)), order)
        member = csr_matrix((np.repeat(couplings, order), (terms, sites.reshape(-1))), (len(sites), spins.shape[1]))
        result += products @ member
    return spins * result  # each product has its own spin once too often


class Rows(NamedTuple):
    """A nearest-neighbour model as chains along the last axis, in units of 1 / beta.

    along (rows, W): bond from each site to the next of its row, the last one to the first on a ring, else 0. across:
    (N, N) sparse, the bonds between rows. field (N,).
    """

    along: Tensor
    across: csr_matrix
    field: np.ndarray
    ring: bool


def lattice_rows(hamiltonian: Hamiltonian, beta: float) -> Rows | None:
    """The rows of a model of nearest neighbours on a lattice, None for others."""
    lattice, n_spins = hamiltonian.lattice, hamiltonian.n_spins
    if lattice is None or not hamiltonian.is_nearest_neighbour:
        return None
    width = lattice.shape[-1]
    sites, couplings = hamiltonian.bonds
    (one, other), couplings = sites.T.astype(np.int64), beta * couplings
    in_row = one // width == other // width
    # Sites of a bond are sorted, so a bond that is not one step ahead is the wrap, which starts at the second site.
    start = np.where(other == one + 1, one, other)
    along = np.zeros(n_spins)
    along[start[in_row]] = couplings[in_row]
    one, other, couplings = one[~in_row], other[~in_row], couplings[~in_row]
    both = (np.concatenate([one, other]), np.concatenate([other, one]))
    across = csr_matrix((np.tile(couplings, 2), both), (n_spins, n_spins))
    grid = torch.from_numpy(along).view(-1, width)
    return Rows(grid, across, beta * hamiltonian.fields, lattice.periodic[-1])


def _chain_odds(rows: Rows, spins: np.ndarray) -> Tensor:
    """Log-odds (n, N) float64 along the rows; the fields m that spins right of j put on it come from the right."""
    (height, width), ring, n = rows.along.shape, rows.ring, len(spins)

    def by_column(values: np.ndarray) -> Tensor:  # (N, n) as (W, rows, n)
        return torch.from_numpy(values).view(height, width, n).transpose(0, 1).contiguous()

    s = by_column(spins.T.astype(np.float64))
    h = by_column(rows.across @ spins.T.astype(np.float64) + rows.field[:, None])
    K = rows.along.T[:, :, None]  # bond from column j to the next
    odds = torch.empty_like(h)
    # On a ring the last bond meets the first spin: one message for each of its values, and how their sums compare.
    first = torch.tensor([-1.0, 1.0], dtype=h.dtype)[:, None, None] if ring else torch.zeros(1, 1, 1, dtype=h.dtype)
    m, log_sum = (K[-1] * first).expand(-1, height, n), 0.0
    for j in range(width - 1, 0, -1):
        own = torch.where(s[0] > 0, m[-1], m[0])
        odds[j] = 2.0 * (h[j] + K[j - 1] * s[j - 1] + own)
        up, down_ = log_2cosh(h[j] + m + K[j - 1]), log_2cosh(h[j] + m - K[j - 1])
        m, log_sum = 0.5 * (up - down_), log_sum + 0.5 * (up + down_)
    if ring:  # m here is the field on the first spin given its own value
        odds[0] = 2.0 * h[0] + (log_sum + m * first).diff(dim=0)[0]
    else:
        odds[0] = 2.0 * (h[0] + m[0])
    return odds.transpose(0, 1).reshape(-1, n).T


def log_2cosh(x: Tensor) -> Tensor:
    """ln(2 cosh x), which does not overflow."""
    size = x.abs()
    return size + torch.log1p(torch.exp(-2.0 * size))
