"""Soft labels: the law of a spin given more than its past, which averages to its law given the past.

On a square lattice the more is every other row: what remains is a chain along the row, summed exactly. Fits to such
labels need about five times fewer states than fits to the spins themselves. Elsewhere it is all other spins.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from mc.hamiltonian import Hamiltonian
from mc.square import SquareCouplings, square_couplings, square_refusal

NUMBERS_AT_ONCE = 2**20  # spins, or products of spins, of the states handled together


def row_labels(hamiltonian: Hamiltonian, beta: float, spins: np.ndarray) -> np.ndarray:
    """p(s_i = +1 | the spins left of i in its row, all other rows) of states (n, N), (n, N) float32, site by site.

    Such labels suit every generation order in which the drawn spins of a row are those left of i: all patches do.
    For Hamiltonians that are not nearest-neighbour models of a square lattice: p(s_i = +1 | all other spins).
    beta: in 1 / energy unit. ValueError for states of another size.
    """
    spins = np.asarray(spins)
    if spins.ndim != 2 or spins.shape[1] != hamiltonian.n_spins:
        raise ValueError(f"row_labels: states {spins.shape}, (n, {hamiltonian.n_spins}) are needed")
    labels = np.empty(spins.shape, np.float32)
    square = square_refusal(hamiltonian) == ""
    couplings = square_couplings(hamiltonian) if square else None
    terms = max((len(J) for _, J in hamiltonian.interactions.values()), default=1)
    most = max(1, NUMBERS_AT_ONCE // max(hamiltonian.n_spins, terms))
    for start in range(0, len(spins), most):
        part = spins[start : start + most]
        if square:
            odds = _chain_odds(couplings, beta, part)
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


def _chain_odds(couplings: SquareCouplings, beta: float, spins: np.ndarray) -> Tensor:
    """Log-odds (n, N) float64 along the rows; the fields m that spins right of j put on it come from the right."""
    (height, width), (torus, ring) = couplings.shape, couplings.periodic
    right, down, field = (
        torch.from_numpy(beta * grid) for grid in (couplings.right, couplings.down, couplings.field)
    )
    s = torch.from_numpy(spins).double().view(-1, height, width).permute(2, 1, 0).contiguous()  # (W, H, n)
    h = (field.T[:, :, None] + torch.zeros_like(s)).contiguous()
    J = down.T[:, :, None]
    h[:, 1:] += J[:, :-1] * s[:, :-1]
    h[:, :-1] += J[:, :-1] * s[:, 1:]
    if torus:
        h[:, 0] += J[:, -1] * s[:, -1]
        h[:, -1] += J[:, -1] * s[:, 0]
    K = right.T[:, :, None]  # bond from column j to the next
    odds = torch.empty_like(h)
    # On a ring the last bond meets the first spin: one message for each of its values, and how their sums compare.
    first = torch.tensor([-1.0, 1.0], dtype=h.dtype)[:, None, None] if ring else torch.zeros(1, 1, 1, dtype=h.dtype)
    m, log_sum = (K[-1] * first).expand(-1, height, s.shape[2]), 0.0
    for j in range(width - 1, 0, -1):
        own = torch.where(s[0] > 0, m[-1], m[0])
        odds[j] = 2.0 * (h[j] + K[j - 1] * s[j - 1] + own)
        up, down_ = log_2cosh(h[j] + m + K[j - 1]), log_2cosh(h[j] + m - K[j - 1])
        m, log_sum = 0.5 * (up - down_), log_sum + 0.5 * (up + down_)
    if ring:  # m here is the field on the first spin given its own value
        odds[0] = 2.0 * h[0] + (log_sum + m * first).diff(dim=0)[0]
    else:
        odds[0] = 2.0 * (h[0] + m[0])
    return odds.permute(2, 1, 0).reshape(len(spins), -1)


def log_2cosh(x: Tensor) -> Tensor:
    """ln(2 cosh x), which does not overflow."""
    size = x.abs()
    return size + torch.log1p(torch.exp(-2.0 * size))
