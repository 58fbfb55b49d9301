"""The local prior, plus an exact sum over the strip of patches still to come in the row, plus a guess of what is below.

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

from mc.hamiltonian import Hamiltonian
from nmcmc.networks.heads import SMALLEST
from nmcmc.patch_energy import PatchEnergy, pad_with_one
from nmcmc.priors.base import Prior, PriorState
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
        for name, index in (("left_of", strip.left_of), ("right_of", strip.right_of)):
            self.register_buffer(name, torch.from_numpy(index), persistent=False)
        self.register_buffer("both_of", self.right_of * self.column_states + self.left_of, persistent=False)
        self.register_buffer("weights_row", 1 << torch.arange(tokens.patch[1]), persistent=False)

    def patch_logits(self, state: PriorState, j: int) -> Tensor:
        row, column = divmod(j, self.columns)
        logits = self.local.of_token(state.padded, j) + self.below[j]
        if self.columns == 1:
            return logits
        if column == 0:
            # (batch, 1, C, l, f): one row at a time while sampling
            state.notes["messages"] = self._messages(state.padded, slice(row, row + 1))[:, 0]
            return logits + state.notes["messages"][:, 1].flatten(1)[:, self.both_of]
        if column == 1:
            token = self._token_value(state.padded, j - 1)
            closed = self.left_of[token][:, None, None, None]
            messages = state.notes["messages"]
            state.notes["messages"] = messages.gather(3, closed.expand(*messages.shape[:3], 1))[..., 0]
        if column + 1 < self.columns:
            logits = logits + state.notes["messages"][:, column + 1][:, self.right_of]
        return logits

    def patch_logits_of(self, spins: Tensor) -> Tensor:
        padded = pad_with_one(spins)
        logits = (self.local.of_all(padded) + self.below).unflatten(1, (self.rows, self.columns))
        if self.columns == 1:
            return logits.flatten(1, 2)
        messages = self._messages(padded, slice(0, self.rows))  # (batch, R, C, l, f)
        logits[:, :, 0] += messages[:, :, 1].flatten(2)[..., self.both_of]
        if self.columns > 2:
            first = self.token_values(spins).unflatten(1, (self.rows, self.columns))[:, :, 0]
            closed = self.left_of[first][:, :, None, None, None]
            later = messages[:, :, 2:].gather(4, closed.expand(*messages[:, :, 2:].shape[:4], 1))[..., 0]
            logits[:, :, 1:-1] += later[..., self.right_of]
        return logits.flatten(1, 2)

    def _token_value(self, padded: Tensor, j: int) -> Tensor:
        bits = (padded[:, self.sites[j]] > 0).long()
        return (bits << torch.arange(self.tokens.k, device=bits.device)).sum(-1)

    def _messages(self, padded: Tensor, rows: slice) -> Tensor:
        """ln m_c[l, f] for the given patch rows, (batch, R', C, l, f); entry c = 0 is not used and left at zero.

        Scaled jointly over (l, f): their ratios are physical, the overall scale is not.
        """
        above, under = self.above_sites[rows], self.under_sites[rows]  # (R', C, c)
        index = (
            self.offset[rows] + self._row_value(padded, above) * self.stride[rows] + self._row_value(padded, under)
        )
        left_bond, closure = self.left_bond[rows], self.closure[rows]
        message = closure.expand(len(padded), *closure.shape)  # (batch, R', r, f)
        found = [torch.log(message.clamp_min(SMALLEST))]
        for c in range(self.columns - 1, 0, -1):
            kernel = self.kernel[index[:, :, c]]  # (batch, R', left, right)
            message = left_bond[:, c] @ (kernel @ message)
            message = message / message.amax((-2, -1), keepdim=True)
            found.append(torch.log(message.clamp_min(SMALLEST)))
        # found[0] belongs to column C, found[-1] to column 1; entry 0 is a place-holder
        return torch.stack([found[0], *found[:0:-1]], dim=2)

    def _row_value(self, padded: Tensor, sites: Tensor) -> Tensor:
        """Value of the spins at `sites` (R', C, c) read as bits, 0 where there is no row: (batch, R', C)."""
        present = sites < self.tokens.n_spins
        return (((padded[:, sites] > 0) & present).long() * self.weights_row).sum(-1)


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
            if R == rows - 1 and periodic_y and rows > 1:
                under_sites[R, C] = grid[0, span]
                under = (row_states * coupling(under_sites[R, C], bottom[span])) @ patch[:, -1].T
            if C > 0:
                left_bond[R, C] = np.exp(_column_bonds(grid, coupling, R * r, r, C * c - 1, C * c, column_states))
            log_weight = (base + below[R * columns + C])[None, None] + above[:, None] + under[None, :]
            kernels.append(_fold(log_weight.reshape(-1, len(base)), left_of, right_of, 2**r))
            offset[R, C], stride[R, C] = filled, len(under)
            filled += len(kernels[-1])
        if periodic_x and columns > 1:
            closure[R] = np.exp(_column_bonds(grid, coupling, R * r, r, width - 1, 0, column_states))
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
    """beta sum_y J s_y t_y between two columns of a patch row, (2^r, 2^r) over their states."""
    rows = slice(top, top + r)
    return (states * coupling(grid[rows, x_left], grid[rows, x_right])) @ states.T


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
