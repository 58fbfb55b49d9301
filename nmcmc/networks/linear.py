"""A residual that is linear in few spins, spin by spin: what a prior misses, fitted by `nmcmc.linear_fit`.

Given its past a spin depends on the drawn spins that still have a bond to undrawn ones, and on nothing else. Those
near it, and three bounded functions of the prior's own log-odds 2 a, correct these log-odds:

    2 a_n -> 2 a_n + w_n . (spins, tanh a_n, tanh 3 a_n, a_n between -3 and 3, 1 if there are fields).

The functions let a fit take back what a prior is wrongly certain of. Everything but the 1 is odd, so with Z2 symmetry
no weight favours either sign.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from mc.hamiltonian import Hamiltonian
from mc.square import square_refusal
from nmcmc.tokens import Tokens

FUNCTIONS = 3  # of the prior's log-odds
LARGEST_FIELD = 3.0  # beyond this a enters as this
NUMBERS_AT_ONCE = 2**23  # spins gathered for whole states: 32 MB


class LinearResidual(nn.Module):
    """Log-odds of spins from those of a prior; n counts spins in generation order.

    window: how many spins enter. On a square lattice drawn row by row: columns at most this far away, in the
    frontier (this row left of the spin, the row above from its column on) and, where the last row meets it, in the
    first row. Elsewhere: up to 2 (2 window + 1) drawn spins, the nearest along bonds through undrawn spins.

    weight (N, P): zero at the start, which is the prior. neighbours (N, spins): sites, N where there is none;
    present (N, P): 0 for features that are missing, whose weights do not count.

    Raises ValueError for a window below 0 or tokens of another size.
    """

    spinwise = True

    def __init__(self, hamiltonian: Hamiltonian, tokens: Tokens, window: int):
        super().__init__()
        if window < 0:
            raise ValueError(f"residual: window={window}: at least 0 is needed")
        if tokens.n_spins != hamiltonian.n_spins:
            raise ValueError(f"residual: tokens of {tokens.n_spins} spins, the model has {hamiltonian.n_spins}")
        self.window = window
        self.row = 0 if hamiltonian.lattice is None else hamiltonian.lattice.shape[-1]  # spins, for grouping
        order = tokens.sites.reshape(-1)
        near = past_neighbours(hamiltonian, tokens, window)
        self.n_spins, self.n_near = near.shape
        self.biased = not hamiltonian.is_z2_symmetric
        present = np.ones((self.n_spins, self.n_near + FUNCTIONS + self.biased), np.float32)
        present[:, : self.n_near] = near < self.n_spins
        if not self.biased:
            present[0] = 0.0  # the first spin of a Z2-symmetric model has nothing to learn
        sites = np.append(order, self.n_spins)[near]
        self.weight = nn.Parameter(torch.zeros(present.shape))
        self.register_buffer("present", torch.from_numpy(present), persistent=False)
        self.register_buffer("neighbours", torch.from_numpy(sites), persistent=False)
        self.register_buffer("order", torch.from_numpy(order.copy()), persistent=False)

    @property
    def silent(self) -> bool:
        """Whether it adds nothing to the prior."""
        return not self.weight.any()

    def start(self, batch: int) -> None:
        """Nothing is kept from spin to spin."""

    def correct(self, drawing: None, odds: Tensor, rows: Tensor, n: int) -> Tensor:
        """Log-odds (batch,) of the n-th spin from the prior's (batch,) and the drawn spins.

        drawing: what `start` gave. rows: (N + 1, batch) float, sites in rows, of which those drawn before n are read;
        the last row is read too and does not count.
        """
        weight = self.weight[n] * self.present[n]
        linear = weight[: self.n_near] @ rows.index_select(0, self.neighbours[n])
        return odds + linear + self._of_odds(odds, weight[self.n_near :])

    def correct_all(self, odds: Tensor, spins: Tensor) -> Tensor:
        """Log-odds (batch, N) from the prior's, both in generation order, and states (batch, N) in site order."""
        weight = self.weight * self.present
        rows = torch.cat([spins.T.to(weight.dtype), torch.ones(1, len(spins), device=spins.device)])
        most = max(1, NUMBERS_AT_ONCE // (max(self.n_near, 1) * len(spins)))
        linear = []
        for start in range(0, self.n_spins, most):
            part = slice(start, start + most)
            linear.append(torch.bmm(weight[part, None, : self.n_near], rows[self.neighbours[part]])[:, 0])
        return odds + torch.cat(linear).T + self._of_odds(odds, weight[:, self.n_near :].T)

    def _of_odds(self, odds: Tensor, weight: Tensor) -> Tensor:
        a = 0.5 * odds
        result = weight[0] * torch.tanh(a) + weight[1] * torch.tanh(3.0 * a)
        result = result + weight[2] * a.clamp(-LARGEST_FIELD, LARGEST_FIELD)
        return result + weight[3] if self.biased else result

    def features(self, n: int, odds: Tensor, rows: Tensor) -> Tensor:
        """What `weight[n]` multiplies, (P, batch), 0 where missing; arguments as of `correct`, n as there."""
        a = 0.5 * odds
        parts = [rows[self.neighbours[n]].to(odds.dtype), torch.stack([torch.tanh(a), torch.tanh(3.0 * a)])]
        parts.append(a.clamp(-LARGEST_FIELD, LARGEST_FIELD)[None])
        if self.biased:
            parts.append(torch.ones_like(a)[None])
        return torch.cat(parts) * self.present[n, :, None]


def past_neighbours(hamiltonian: Hamiltonian, tokens: Tokens, window: int) -> np.ndarray:
    """Which earlier spins the residual of each spin reads, (N, spins) int64 in generation order, N where none."""
    if square_refusal(hamiltonian) == "":
        (height, width), periodic = hamiltonian.lattice.shape, hamiltonian.lattice.periodic
        rows = tokens.sites.reshape(height, width)
        first = int(rows[0, 0]) // width
        in_rows = np.array_equal(rows, np.roll(np.arange(rows.size).reshape(rows.shape), -first, axis=0))
        if in_rows and (first == 0 or periodic[0]):
            return frontier(height, width, window, periodic)
    return nearest_drawn(hamiltonian, tokens.sites.reshape(-1), 2 * (2 * window + 1))


def frontier(height: int, width: int, window: int, periodic: tuple[bool, bool]) -> np.ndarray:
    """Frontier and first row of every spin of a lattice drawn row by row; see `LinearResidual`."""
    torus, ring = periodic
    offsets = np.arange(-window, window + 1) if 2 * window + 1 <= width or not ring else np.arange(width) - width // 2
    k, j = np.arange(height)[:, None, None], np.arange(width)[:, None]
    column = j + offsets  # (W, offsets)
    inside = (column >= 0) & (column < width) | ring
    column = column % width
    row = k - (column >= j)  # this row left of the spin, else the row above: (H, W, offsets)
    none = height * width
    near = np.where(inside & (row >= 0), row * width + column, none)
    if torus:
        near = np.concatenate([near, np.where(inside & (row >= 1), column, none)], axis=2)
    return near.reshape(none, -1)


def nearest_drawn(hamiltonian: Hamiltonian, order: np.ndarray, most: int) -> np.ndarray:
    """For each spin the drawn spins that it reaches through undrawn ones, at most `most`, nearest first.

    Among those equally far away the strongest bond counts. They include every drawn spin on which it depends.
    """
    n_spins = len(order)
    start, near, strength = _neighbour_lists(hamiltonian, order)
    found = np.full((n_spins, most), n_spins)
    for n in range(n_spins):
        seen = np.zeros(n_spins, bool)
        seen[n] = True
        front, count = np.array([n]), 0
        while len(front) and count < most:
            links = np.concatenate([np.arange(start[i], start[i + 1]) for i in front])
            links = links[~seen[near[links]]]
            links = links[np.argsort(-strength[links], kind="stable")]
            new, place = np.unique(near[links], return_index=True)
            new = new[np.argsort(place)]  # the strongest first
            seen[new] = True
            past = new[new < n][: most - count]
            found[n, count : count + len(past)] = past
            count += len(past)
            front = new[new > n]
    widest = int((found < n_spins).sum(1).max(initial=0))
    return found[:, :widest]


def _neighbour_lists(hamiltonian: Hamiltonian, order: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """start (N + 1,), neighbours and |J| of each spin, spins numbered in generation order."""
    table, n_spins = hamiltonian.table, hamiltonian.n_spins
    place = np.empty(n_spins, np.int64)
    place[order] = np.arange(n_spins)
    owner = np.repeat(np.arange(n_spins), np.diff(table.start))
    owner, strength = (np.repeat(values, table.others.shape[1]) for values in (owner, np.abs(table.coupling)))
    other = table.others.reshape(-1)
    real = other >= 0
    owner, near, strength = place[owner[real]], place[other[real]], strength[real]
    by_owner = np.argsort(owner, kind="stable")
    start = np.append(0, np.cumsum(np.bincount(owner, minlength=n_spins)))
    return start, near[by_owner], strength[by_owner]
