"""The local prior, an exact sum over the strip of patches still to come in the row, a guess of what is below.

The patches to the right of the current one in its row couple to it through one column only. Summing them out is a
product of small matrices over column states, computed once per patch row from right to left:

    m_c[l, f] = sum_u exp(base_c(u) + W_c[l, left(u)]) m_{c+1}[right(u), f]

l = right column of patch c-1, f = left column of the row's first patch (the periodic closure), base_c(u) = the
patch's own energy, its bonds to the row above and, in the last row of a periodic lattice, to the first row. The free
lattice below a patch enters as phi(bottom row): ln of row transfer matrices of the patch's own columns, applied to 1.

    logits_c(u) = local_c(u) + phi(bottom(u)) + ln m_{c+1}[right(u), f]

Everything beyond is left to the network. Applies to nearest-neighbour models on two-dimensional lattices, with any
couplings, fields and edges.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import logsumexp
from torch import Tensor
from torch.nn import functional

from mc.hamiltonian import Hamiltonian
from nmcmc.networks.heads import SMALLEST
from nmcmc.patch_energy import PatchEnergy, site_rows
from nmcmc.priors.base import Prior, PriorState, bits_value
from nmcmc.tokens import Tokens

MAX_TABLE = 2**18  # numbers of one patch's strip table; 2x4 needs 2^12, 3x4 needs 2^14
ROWS_BELOW = 2


def lookahead_refusal(hamiltonian: Hamiltonian, tokens: Tokens) -> str:
    """Why the prior does not apply to this model and order; "" where it does."""
    if tokens.patch is None or hamiltonian.lattice is None or hamiltonian.lattice.dimension != 2:
        return "prior=lookahead needs a two-dimensional lattice"
    if not hamiltonian.is_nearest_neighbour:
        return "prior=lookahead needs nearest-neighbour bonds only"
    if 4 ** sum(tokens.patch) > MAX_TABLE:
        return f"prior=lookahead: a patch of {tokens.patch[0]}x{tokens.patch[1]} needs too large a table"
    return ""


class LookaheadPrior(Prior):
    """See the module docstring. Raises ValueError, with the remedy, where it does not apply."""

    def __init__(self, hamiltonian: Hamiltonian, tokens: Tokens, beta: float):
        super().__init__(tokens)
        refusal = lookahead_refusal(hamiltonian, tokens)
        if refusal:
            raise ValueError(f"{refusal}; use prior=local")
        self.local = PatchEnergy(hamiltonian, tokens, beta, around="past")
        strip = strip_tables(hamiltonian, tokens, beta)
        self.rows, self.columns = strip.rows, strip.columns
        self.column_states = strip.left_bond.shape[-1]
        for name in ("below", "kernel", "left_bond", "closure", "above_sites", "under_sites", "offset", "stride"):
            self.register_buffer(name, torch.from_numpy(getattr(strip, name)), persistent=False)
        left, right, n = torch.from_numpy(strip.left_of), torch.from_numpy(strip.right_of), self.column_states
        self.register_buffer("left_of", left, persistent=False)
        # One-hot maps from column states to patch values: a matrix product beats a gather by a wide margin.
        self.register_buffer("spread_right", functional.one_hot(right, n).T.float(), persistent=False)
        self.register_buffer("spread_both", functional.one_hot(right * n + left, n * n).T.float(), persistent=False)

    def patch_logits(self, state: PriorState, j: int) -> Tensor:
        row, column = divmod(j, self.columns)
        logits = self.local.of_token(state.rows, j).add_(self.below[j])
        if self.columns == 1:
            return logits
        if column == 0:
            # (C, batch, l, f) of this row only
            messages = self._messages(state.rows, slice(row, row + 1))[0]
            state.notes["messages"] = messages
            return self._add_both(logits, messages[1])
        if column == 1:
            closed = self.left_of[bits_value(state.rows[self.sites[j - 1]].T)]
            state.notes["closed"] = close_row(state.notes["messages"], closed)
        if column + 1 < self.columns:
            logits.addmm_(state.notes["closed"][column + 1], self.spread_right)
        return logits

    def patch_logits_of(self, spins: Tensor) -> Tensor:
        rows = site_rows(spins)
        logits = self.local.of_all(rows).add_(self.below[:, None])
        if self.columns == 1:
            return logits
        messages = self._messages(rows, slice(0, self.rows))  # (R, C, batch, l, f)
        by_row = logits.unflatten(0, (self.rows, self.columns))
        first = self.left_of[
            self.token_values(spins).unflatten(1, (self.rows, self.columns))[:, :, 0]
        ].T  # (R, batch)
        for row in range(self.rows):
            self._add_both(by_row[row, 0], messages[row, 1])
            if self.columns > 2:
                later = close_row(messages[row, 2:], first[row])  # (C - 2, batch, l)
                by_row[row, 1:-1].flatten(0, 1).addmm_(later.flatten(0, 1), self.spread_right)
        return logits

    def _add_both(self, logits: Tensor, message: Tensor) -> Tensor:
        """Add ln m[right(u), left(u)] to logits (batch, V) of a row's first patch, in place."""
        if message.shape[-1] == 1:
            return logits.addmm_(message[..., 0], self.spread_right)
        return logits.addmm_(message.flatten(1), self.spread_both)

    def _messages(self, spin_rows: Tensor, rows: slice) -> Tensor:
        """ln m_c[l, f] of the given patch rows, (R', C, batch, l, f); entry c = 0 is a place-holder.

        Scaled jointly over (l, f): their ratios are physical, the overall scale is not.
        """
        index = bits_of_rows(spin_rows, self.above_sites[rows]) * self.stride[rows][..., None]
        index += bits_of_rows(spin_rows, self.under_sites[rows]) + self.offset[rows][..., None]  # (R', C, batch)
        left_bond, closure = self.left_bond[rows], self.closure[rows]
        message = closure[:, None].expand(-1, index.shape[2], -1, -1)  # (R', batch, r, f)
        found = [message.clamp_min(SMALLEST).log_()]
        for c in range(self.columns - 1, 0, -1):
            kernel = self.kernel[index[:, c]]  # (R', batch, left, right)
            message = (left_bond[:, c, None] @ (kernel @ message)).clamp_min_(SMALLEST)
            message = message / message.amax((-2, -1), keepdim=True)
            found.append(message.clamp_min(SMALLEST).log_())
        # found[0] belongs to column C (a row's end), found[-1] to column 1.
        return torch.stack([found[0], *found[:0:-1]], dim=1)


def close_row(messages: Tensor, first_column: Tensor) -> Tensor:
    """Messages (C, batch, l, f) at the f that the row's first patch has drawn, (batch,): (C, batch, l)."""
    if messages.shape[-1] == 1:
        return messages[..., 0]
    chosen = first_column[None, :, None, None].expand(*messages.shape[:3], 1)
    return messages.gather(3, chosen)[..., 0]


def bits_of_rows(spin_rows: Tensor, sites: Tensor) -> Tensor:
    """Spins at `sites` (R', C, c) read as bits, 0 where a site is n_spins (no row there): (R', C, batch)."""
    present = (sites < len(spin_rows) - 1)[..., None]
    weights = (1 << torch.arange(sites.shape[-1], device=sites.device))[:, None]
    return (((spin_rows[sites] > 0) & present) * weights).sum(-2)


@dataclass(frozen=True)
class StripTables:
    """Small tables of every patch, float32 ready for the device.

    below (T, V): phi of the patch's bottom row. kernel (entries, 2^r, 2^r): sum over patch values of given left and
    right column of exp(base), scaled to maximum 1; the entry of patch (R, c) is offset[R, c] + above * stride[R, c] +
    under, above and under the values of the fixed rows at above_sites and under_sites (n_spins where there is none).
    left_bond (R, C, 2^r, 2^r): exp W_c[l, left]. closure (R, 2^r, f): bonds round the row.
    """

    rows: int
    columns: int
    below: np.ndarray
    kernel: np.ndarray
    left_bond: np.ndarray
    closure: np.ndarray
    above_sites: np.ndarray
    under_sites: np.ndarray
    offset: np.ndarray
    stride: np.ndarray
    left_of: np.ndarray
    right_of: np.ndarray


def strip_tables(hamiltonian: Hamiltonian, tokens: Tokens, beta: float) -> StripTables:
    """Tables of the strip sums of every patch row."""
    (height, width), (r, c) = hamiltonian.lattice.shape, tokens.patch
    periodic_y, periodic_x = hamiltonian.lattice.periodic
    rows, columns, n_spins = height // r, width // c, tokens.n_spins
    grid = np.arange(n_spins).reshape(height, width)
    coupling = _bond_lookup(hamiltonian, beta)
    patch = tokens.table.reshape(-1, r, c).astype(np.float64)  # (V, r, c)
    column_states = _states(r)
    left_of, right_of = (
        _value(tokens.table.reshape(-1, r, c)[:, :, 0]),
        _value(tokens.table.reshape(-1, r, c)[:, :, -1]),
    )
    row_states = _states(c)
    inside = PatchEnergy(hamiltonian, tokens, beta, around="past").inside.double().numpy()
    below = np.zeros((tokens.n_tokens, tokens.vocabulary))
    left_bond = np.ones((rows, columns, 2**r, 2**r))
    closure = np.ones((rows, 2**r, 2**r if periodic_x else 1))
    above_sites = np.full((rows, columns, c), n_spins)
    under_sites = np.full((rows, columns, c), n_spins)
    offset, stride = np.zeros((2, rows, columns), dtype=np.int64)
    kernels, filled = [], 0
    for R in range(rows):
        top, bottom = grid[R * r], grid[R * r + r - 1]
        for C in range(columns):
            span = slice(C * c, C * c + c)
            base = inside[R * columns + C].copy()
            phi = _free_lattice_below(grid, coupling, beta * hamiltonian.fields, R * r + r - 1, span)
            below[R * columns + C] = phi[_value(patch[:, -1] > 0)]
            above = np.zeros((1, len(base)))
            under = np.zeros((1, len(base)))
            if R > 0:
                above_sites[R, C] = grid[R * r - 1, span]
                above = (row_states * coupling(above_sites[R, C], top[span])) @ patch[:, 0].T
            if rows - 1 == R and periodic_y and rows > 1:
                under_sites[R, C] = grid[0, span]
                under = (row_states * coupling(under_sites[R, C], bottom[span])) @ patch[:, -1].T
            if C > 0:
                left_bond[R, C] = _column_bonds(grid, coupling, R * r, r, C * c - 1, C * c, column_states)
            log_weight = (base + below[R * columns + C])[None, None] + above[:, None] + under[None, :]
            kernels.append(_fold(log_weight.reshape(-1, len(base)), left_of, right_of, 2**r))
            offset[R, C], stride[R, C] = filled, len(under)
            filled += len(kernels[-1])
        if periodic_x and columns > 1:
            closure[R] = _column_bonds(grid, coupling, R * r, r, width - 1, 0, column_states)
    single = np.float32
    return StripTables(
        rows, columns, below.astype(single), np.concatenate(kernels).astype(single), left_bond.astype(single),
        closure.astype(single), above_sites, under_sites, offset, stride, left_of, right_of,
    )  # fmt: skip


def _states(n: int) -> np.ndarray:
    """All states of n spins, (2^n, n) of +-1, the first spin in the lowest bit."""
    return 2.0 * (np.arange(2**n)[:, None] >> np.arange(n) & 1) - 1.0


def _value(spins: np.ndarray) -> np.ndarray:
    """Value of spins (..., n) read as bits, first spin lowest."""
    return (spins > 0) @ (1 << np.arange(spins.shape[-1]))


def _bond_lookup(hamiltonian: Hamiltonian, beta: float):
    """A function (sites a, sites b) -> beta J_ab, elementwise; 0 where there is no bond."""
    sites, strengths = hamiltonian.bonds
    n = hamiltonian.n_spins
    keys = sites[:, 0].astype(np.int64) * n + sites[:, 1]  # sorted: bonds are in canonical order

    def coupling(a, b):
        wanted = np.minimum(a, b).astype(np.int64) * n + np.maximum(a, b)
        if not len(keys):
            return np.zeros(wanted.shape)
        place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return np.where(keys[place] == wanted, beta * strengths[place], 0.0)

    return coupling


def _column_bonds(grid, coupling, top: int, r: int, x_left: int, x_right: int, states: np.ndarray) -> np.ndarray:
    """exp(beta sum_y J s_y t_y) between two columns of a patch row, (2^r, 2^r) over their states, at most 1."""
    rows = slice(top, top + r)
    log_weight = (states * coupling(grid[rows, x_left], grid[rows, x_right])) @ states.T
    return np.exp(log_weight - log_weight.max())


def _free_lattice_below(grid, coupling, fields, y: int, span: slice) -> np.ndarray:
    """phi over the states of row y in the columns `span`: ln of up to ROWS_BELOW row transfer matrices applied to 1.

    Bonds that leave the columns sideways are dropped; each is the network's to learn.
    """
    states = _states(span.stop - span.start)
    value = np.zeros(len(states))
    for below in range(min(y + ROWS_BELOW, len(grid) - 1), y, -1):
        row = grid[below, span]
        own = states @ fields[row] + (states[:, 1:] * states[:, :-1]) @ coupling(row[1:], row[:-1])
        across = (states * coupling(grid[below - 1, span], row)) @ states.T  # (upper state, lower state)
        value = logsumexp(across + (own + value)[None, :], axis=1)
        value -= value.max()
    return value


def _fold(log_weight: np.ndarray, left_of: np.ndarray, right_of: np.ndarray, n_columns: int) -> np.ndarray:
    """Sum exp(log_weight) (entries, V) over patch values of equal left and right column: (entries, left, right)."""
    weight = np.exp(log_weight - log_weight.max(axis=1, keepdims=True))
    folded = np.zeros((n_columns, n_columns, len(weight)))
    np.add.at(folded, (left_of, right_of), weight.T)
    folded = np.moveaxis(folded, 2, 0)
    return folded / folded.max(axis=(1, 2), keepdims=True)
