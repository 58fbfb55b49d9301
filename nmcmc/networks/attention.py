"""Attention behind one call: every backend gives the same numbers for the same mask, up to rounding.

Shapes are (batch, heads, rows, head width); row q is a query, key i is visible to it as `Visibility` says.

One definition of a window: `Visibility.window` keys are visible, the query's own included. Libraries whose windows
count the keys to the left only, and always add the query's own, are given window - 1.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from nmcmc.networks import attention_cuda
from nmcmc.networks.visibility import BLOCK, Visibility

BACKENDS = ("reference", "sdpa", "blocks", "flex", "varlen", "flash")
ON_CUDA = ("flex", "varlen", "flash")
WORTH_BLOCKS = 256  # rows, below which a mask of all keys costs less than going by blocks
MOST_RUNS = 4  # of keys, that are joined by copying slices and not by an index


def attend(q: Tensor, k: Tensor, v: Tensor, visibility: Visibility, backend: str) -> Tensor:
    """Softmax attention of all rows, (batch, heads, rows, head width).

    Under a full mask any number of rows will do; others need all rows of the mask (ValueError).
    """
    if q.shape[2] != visibility.rows and not visibility.is_full:
        raise ValueError(f"attention: {q.shape[2]} rows, but the mask has {visibility.rows}")
    return _FULL[backend](q, k, v, visibility)


def attend_step(q: Tensor, keys: Tensor, values: Tensor, seen: Tensor | None) -> Tensor:
    """Attention of one query (batch, heads, width) to the slots of a cache (batch, heads, slots, width).

    seen: (1, slots) bool, which slots count; None for all. Slots that do not count must hold finite numbers.
    """
    return scaled_dot_product_attention(q[:, :, None], keys, values, attn_mask=seen)[:, :, 0]


def _reference(q: Tensor, k: Tensor, v: Tensor, visibility: Visibility) -> Tensor:
    """The definition, in float32 at least."""
    kind = torch.promote_types(q.dtype, torch.float32)
    rows = q.shape[2]
    with torch.autocast(q.device.type, enabled=False):
        scores = q.to(kind) @ k.to(kind).transpose(-1, -2) / q.shape[-1] ** 0.5
        scores = scores.masked_fill(~allowed(visibility, q.device)[:rows, :rows], -torch.inf)
        return (scores.softmax(-1) @ v.to(kind)).to(v.dtype)


def _sdpa(q: Tensor, k: Tensor, v: Tensor, visibility: Visibility) -> Tensor:
    if visibility.is_full:
        return scaled_dot_product_attention(q, k, v, is_causal=True)
    return scaled_dot_product_attention(q, k, v, attn_mask=allowed(visibility, q.device))


def _blocks(q: Tensor, k: Tensor, v: Tensor, visibility: Visibility) -> Tensor:
    """By blocks of queries, each over the keys that any of them sees: time and memory O(rows (block + keys))."""
    if visibility.is_full:
        return _sdpa(q, k, v, visibility)
    parts = []
    name, make = f"blocks {q.dtype}", lambda: _block_tensors(visibility, q.device, q.dtype)
    for (begin, end), keys, bias in visibility.on(q.device, name, make):
        parts.append(
            scaled_dot_product_attention(q[:, :, begin:end], _chosen(k, keys), _chosen(v, keys), attn_mask=bias)
        )
    return torch.cat(parts, 2)


def _block_tensors(visibility: Visibility, device: torch.device, dtype: torch.dtype) -> list[tuple]:
    """(queries, runs or indices of keys, 0 where a key is seen and -inf elsewhere) of every block."""
    found, biases = [], {}
    for block in visibility.blocks():
        keys: tuple | Tensor = block.runs
        if len(keys) > MOST_RUNS:
            keys = torch.cat([torch.arange(begin, end) for begin, end in keys]).to(device)
        bias = None
        if block.seen is not None:
            same = (block.seen.shape, block.seen.tobytes())  # on a lattice most blocks share one mask
            if same not in biases:
                hidden = torch.from_numpy(~block.seen)
                biases[same] = torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, -torch.inf).to(device)
            bias = biases[same]
        found.append((block.queries, keys, bias))
    return found


def _chosen(x: Tensor, keys: tuple[tuple[int, int], ...] | Tensor) -> Tensor:
    """Some of the rows of x (batch, heads, rows, head width)."""
    if isinstance(keys, Tensor):
        return x.index_select(2, keys)
    if len(keys) == 1:
        return x[:, :, keys[0][0] : keys[0][1]]
    return torch.cat([x[:, :, begin:end] for begin, end in keys], 2)


def allowed(visibility: Visibility, device: torch.device) -> Tensor:
    """The mask of all rows, (rows, rows) bool."""
    return visibility.on(device, "allowed", lambda: torch.from_numpy(visibility.allowed()).to(device))


_FULL = {
    "reference": _reference,
    "sdpa": _sdpa,
    "blocks": _blocks,
    "flex": attention_cuda.flex,
    "varlen": attention_cuda.varlen,
    "flash": attention_cuda.flash,
}


def choose_backend(
    name: str, device: torch.device, dtype: torch.dtype, visibility: Visibility, head_width: int | None = None
) -> tuple[str, str]:
    """(backend, why) for a setting; "auto" decides by arithmetic, never by a clock.

    dtype: of queries and keys. ValueError, one line, when a backend that is asked for cannot do this.
    """
    if name != "auto":
        if name not in BACKENDS:
            raise ValueError(f"net.backend={name}: auto, {', '.join(BACKENDS[:-1])} or {BACKENDS[-1]} is needed")
        refusal = attention_cuda.refusal(name, device, dtype, visibility, head_width) if name in ON_CUDA else ""
        if refusal:
            raise ValueError(f"net.backend={name}: {refusal}")
        return name, "as asked"
    if visibility.is_full:
        return "sdpa", "every token sees all before it"
    if device.type == "cuda":
        for kernel in ("flash", "varlen"):
            if not attention_cuda.refusal(kernel, device, dtype, visibility, head_width):
                return kernel, f"a window of {visibility.window} keys in {str(dtype).removeprefix('torch.')}"
    rows = visibility.rows
    at_once = min(visibility.cache.capacity + BLOCK, rows)  # keys that a block of queries sees, at most
    if rows < WORTH_BLOCKS or 2 * at_once > rows:
        return "sdpa", f"{rows} rows, of which a token sees up to {visibility.widest}: a plain mask costs least"
    return "blocks", f"a token sees up to {visibility.widest} of {rows} rows"
