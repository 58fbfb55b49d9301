"""Which past tokens a token sees: the masks of attention, and where a cache keeps what can still be seen.

A trunk's position j = 1, ..., n_tokens - 1 gives the features of token j. Row q = j - 1 of a mask is its query, and
key i holds the content of token i <= q: token q itself, the last one drawn, is always visible.

A mask limits one layer. In a stack each layer looks that far again, and what priors and contents know is not masked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from heapq import heappop, heappush

import numpy as np
import torch
from torch import Tensor

from mc.hamiltonian import Hamiltonian
from mc.markov_boundary import ordered_boundary
from nmcmc.tokens import Tokens

BLOCK = 128  # queries that are looked at together: measured on a CPU, 64 to 256 differ little
FORMS = "full, boundary, window:W or window:W+first"


@dataclass(frozen=True)
class Block:
    """Consecutive queries and the union of the keys that they see.

    queries: (first, last + 1). runs: (first, last + 1) of consecutive keys. seen: (queries, keys) bool, or None when
    all of these queries see all of these keys.
    """

    queries: tuple[int, int]
    runs: tuple[tuple[int, int], ...]
    seen: np.ndarray | None


@dataclass(frozen=True)
class CachePlan:
    """Slots of keys, each used again once no later token can see what is in it.

    capacity: number of slots. write: (rows,) slot that row q fills. used: (rows,) leading slots that hold something
    then. seen: (rows, capacity) bool, which slots row q sees; None when it is always all that are in use.
    """

    capacity: int
    write: np.ndarray
    used: np.ndarray
    seen: np.ndarray | None


@dataclass(frozen=True, eq=False)
class Visibility:
    """Which keys every query sees; rows = n_tokens - 1.

    name: as asked for. window: keys that a query sees up to and including its own token's predecessor, None without a
    window. first: leading keys that stay visible besides. start (rows + 1,), keys (nnz,): those of row q are
    keys[start[q]:start[q + 1]], ascending; None where the window says it all. left_out: see `left_out_by`.
    """

    name: str
    n_tokens: int
    window: int | None = None
    first: int = 0
    start: np.ndarray | None = None
    keys: np.ndarray | None = None
    left_out: int = 0
    _tensors: dict = field(default_factory=dict, repr=False)

    @property
    def rows(self) -> int:
        return self.n_tokens - 1

    @cached_property
    def is_full(self) -> bool:
        """Whether every query sees all keys up to its own."""
        if self.keys is not None:
            return len(self.keys) == self.rows * (self.rows + 1) // 2
        return self.window is None or self.first + self.window >= self.rows

    @property
    def is_window(self) -> bool:
        """Whether a window alone says it all: what kernels with a window can do."""
        return self.keys is None and (self.is_full or self.first == 0)

    def seen_by(self, q: int) -> np.ndarray:
        """Keys that row q sees, ascending."""
        if self.keys is not None:
            return self.keys[self.start[q] : self.start[q + 1]]
        if self.is_full:
            return np.arange(q + 1)
        low = max(q + 1 - self.window, 0)
        return np.concatenate([np.arange(min(self.first, low)), np.arange(low, q + 1)])

    @cached_property
    def widest(self) -> int:
        """The most keys that a query sees."""
        if self.keys is not None:
            return int(np.diff(self.start).max(initial=0))
        return self.rows if self.is_full else min(self.window + self.first, self.rows)

    def allowed(self, rows: slice = slice(None)) -> np.ndarray:
        """(rows, rows) bool, True where a query (row) sees a key (column); of some rows only, if asked."""
        chosen = np.arange(self.rows)[rows]
        if self.keys is None:
            key, query = np.arange(self.rows), chosen[:, None]
            seen = key <= query
            return seen if self.is_full else seen & ((key > query - self.window) | (key < self.first))
        seen = np.zeros((len(chosen), self.rows), bool)
        counts = np.diff(self.start)[chosen]
        if len(chosen):
            seen[np.repeat(np.arange(len(chosen)), counts), np.concatenate([self.seen_by(q) for q in chosen])] = True
        return seen

    def blocks(self) -> Iterator[Block]:
        """The mask by blocks of queries; memory of them all is O(rows (block + keys of a query))."""
        for begin in range(0, self.rows, BLOCK):
            end = min(begin + BLOCK, self.rows)
            seen = self.allowed(slice(begin, end))
            columns = np.flatnonzero(seen.any(0))
            breaks = np.flatnonzero(np.diff(columns) > 1) + 1
            runs = tuple((int(run[0]), int(run[-1]) + 1) for run in np.split(columns, breaks))
            part = seen[:, columns]
            yield Block((begin, end), runs, None if part.all() else part)

    @cached_property
    def cache(self) -> CachePlan:
        """Where a step writes its key and which slots it reads."""
        rows = self.rows
        if self.is_full:
            return CachePlan(max(rows, 1), np.arange(rows), np.arange(1, rows + 1), None)
        last_seen = np.zeros(rows, np.int64)  # the last row that sees each key
        for q in range(rows):
            last_seen[self.seen_by(q)] = q
        slot_of, write, used = np.empty(rows, np.int64), np.empty(rows, np.int64), np.empty(rows, np.int64)
        free: list[int] = []
        leaving: list[list[int]] = [[] for _ in range(rows + 1)]
        capacity = 0
        for q in range(rows):
            for slot in leaving[q]:
                heappush(free, slot)
            if not free:
                heappush(free, capacity)
                capacity += 1
            slot_of[q] = write[q] = heappop(free)
            used[q] = capacity
            leaving[last_seen[q] + 1].append(write[q])
        seen = np.zeros((rows, capacity), bool)
        for q in range(rows):
            seen[q, slot_of[self.seen_by(q)]] = True
        all_used = np.array_equal(seen.sum(1), used)
        return CachePlan(capacity, write, used, None if all_used else seen)

    def on(self, device: torch.device, name: str, make) -> Tensor | list:
        """Tensors that `make()` builds from this mask, kept for each device."""
        key = (str(device), name)
        if key not in self._tensors:
            self._tensors[key] = make()
        return self._tensors[key]


def full_visibility(n_tokens: int) -> Visibility:
    """Every token sees all before it."""
    return Visibility("full", n_tokens)


def make_visibility(mask: str, hamiltonian: Hamiltonian, tokens: Tokens) -> Visibility:
    """The mask of a setting; ValueError for what cannot be.

    full: all past tokens. boundary: those that hold a spin of the ordered Markov boundary of any spin of the token.
    window:W: the last ceil(W / k) tokens, so that the first spin of a token of k sees at least the last W sites, and
    with single spins exactly these. +first: besides, the tokens with a site of the first row (first layer in three
    dimensions), where a periodic slowest axis needs them.
    """
    n_tokens, k = tokens.n_tokens, tokens.k
    if mask == "full":
        return full_visibility(n_tokens)
    if mask == "boundary":
        start, keys = _boundary_keys(hamiltonian, tokens)
        return Visibility(mask, n_tokens, start=start, keys=keys)
    asked = re.fullmatch(r"window:(-?\d+)(\+first)?", mask, re.ASCII)
    if not asked:
        raise ValueError(f"net.mask={mask}: not understood; {FORMS} is needed, W a number of sites")
    n_sites = int(asked[1])
    if not 1 <= n_sites <= tokens.n_spins:
        raise ValueError(
            f"net.mask={mask}: a window of {n_sites} sites; between 1 and the {tokens.n_spins} spins of the model is "
            "needed"
        )
    first = 0
    if asked[2]:
        if tokens.lattice is None:
            raise ValueError(f"net.mask={mask}: a graph has no first row; use net.mask=boundary, or leave +first out")
        first = int(np.flatnonzero((tokens.lattice.coordinates[tokens.sites][..., 0] == 0).any(1)).max()) + 1
    window = -(-n_sites // k)
    return Visibility(mask, n_tokens, window, first, left_out=left_out_by(window, first, hamiltonian, tokens))


def left_out_by(window: int, first: int, hamiltonian: Hamiltonian, tokens: Tokens) -> int:
    """Pairs of a token and a spin of its ordered Markov boundary that a window hides; 0 for an exact mask."""
    token, spin = _boundary_pairs(hamiltonian, tokens)
    holder = spin // tokens.k
    return int(((holder < token - window) & (holder >= first)).sum())


def mask_warning(visibility: Visibility) -> str:
    """One line about the boundary that a mask hides, or nothing."""
    if not visibility.left_out:
        return ""
    a_token = visibility.left_out / max(visibility.rows, 1)
    return (
        f"net.mask={visibility.name} hides {a_token:.3g} boundary spins a token (mean), so one layer cannot "
        "be exact; net.mask=boundary hides none"
    )


def _boundary_pairs(hamiltonian: Hamiltonian, tokens: Tokens) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and the spins in earlier tokens that they depend on, each pair once: two arrays (pairs,)."""
    boundary = ordered_boundary(hamiltonian, tokens.sites.reshape(-1))
    token = np.repeat(np.arange(tokens.n_spins) // tokens.k, boundary.sizes)
    earlier = boundary.past // tokens.k < token
    pairs = np.unique(token[earlier] * tokens.n_spins + boundary.past[earlier])
    return np.divmod(pairs, tokens.n_spins)


def _boundary_keys(hamiltonian: Hamiltonian, tokens: Tokens) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the boundary mask: starts (rows + 1,) and keys (nnz,)."""
    token, spin = _boundary_pairs(hamiltonian, tokens)
    n_tokens, rows = tokens.n_tokens, np.arange(tokens.n_tokens - 1)
    pairs = np.concatenate([(token - 1) * n_tokens + spin // tokens.k, rows * n_tokens + rows])
    query, key = np.divmod(np.unique(pairs), n_tokens)
    return np.searchsorted(query, np.arange(n_tokens)), key
