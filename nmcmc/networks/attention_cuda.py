"""Attention kernels for CUDA: FlexAttention, torch's variable-length kernel, and flash-attn where it is installed.

Shapes and masks as in `attention`. Windows of flash-attn and varlen count the keys to the left of the query's own and
always include that one: `Visibility.window` keys are a left window of window - 1.
"""

from __future__ import annotations

import inspect
from functools import cache
from importlib import import_module

import torch
from torch import Tensor

from nmcmc.networks.visibility import Visibility

HALF = (torch.float16, torch.bfloat16)
SMALLEST_HEAD = {"flex": 16, "varlen": 8, "flash": 8}


def refusal(
    name: str, device: torch.device, dtype: torch.dtype, visibility: Visibility, head_width: int | None
) -> str:
    """Why a kernel cannot do this, with the remedy; empty where it can."""
    if device.type != "cuda":
        return "runs on CUDA only; use --device cuda, or net.backend=auto"
    if name in ("varlen", "flash"):
        if dtype not in HALF:
            return f"computes in half precision, not {str(dtype).removeprefix('torch.')}; set net.precision=bf16"
        if not visibility.is_window:
            return f"knows windows only, not net.mask={visibility.name}; use net.mask=window:W, or net.backend=blocks"
    least = SMALLEST_HEAD[name]
    if head_width is not None and (head_width % least or head_width > 256):
        return (
            f"heads of width {head_width}, multiples of {least} up to 256 are needed; change net.width= or net.heads="
        )
    if name == "flash" and flash_function() is None:
        return "flash-attn is not installed; pip install 'nmcmc[flash]' (built with nvcc), or net.backend=varlen"
    if name == "varlen" and varlen_function() is None:
        have = f"torch {torch.__version__} has no varlen attention with windows"
        return f"{have}; use torch 2.12 or later, or net.backend=blocks"
    return ""


def left_window(visibility: Visibility) -> int:
    """Keys to the left of a query's own in the window; -1 for all."""
    return -1 if visibility.is_full else visibility.window - 1


def flash_function():
    """`flash_attn_func` of flash-attn 2, or of 4 where only that is installed; None without either."""
    for module in ("flash_attn", "flash_attn.cute"):
        try:
            return import_module(module).flash_attn_func
        except (ImportError, AttributeError):
            continue
    return None


def flash_cache_function():
    """`flash_attn_with_kvcache` of flash-attn 2; None without it."""
    try:
        return import_module("flash_attn").flash_attn_with_kvcache
    except (ImportError, AttributeError):
        return None


def varlen_function():
    """`varlen_attn` of torch, None where it has none with windows."""
    try:
        found = import_module("torch.nn.attention.varlen").varlen_attn
    except (ImportError, AttributeError):
        return None
    return found if "window_size" in inspect.signature(found).parameters else None


def flash(q: Tensor, k: Tensor, v: Tensor, visibility: Visibility) -> Tensor:
    """flash-attn, whose layout is (batch, rows, heads, head width)."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    out = flash_function()(q, k, v, causal=True, window_size=(left_window(visibility), 0))
    return (out[0] if isinstance(out, tuple) else out).transpose(1, 2)  # version 4 adds the log-sum-exp


def flash_step(q: Tensor, keys: Tensor, values: Tensor, used: Tensor) -> Tensor:
    """One query (batch, heads, width) over the leading `used` (batch,) int32 slots of a cache; flash-attn 2.

    The cache of a window holds exactly what is visible, and attention does not mind the order of its slots, so no
    window is given here.
    """
    out = flash_cache_function()(
        q[:, None], keys.transpose(1, 2), values.transpose(1, 2), cache_seqlens=used, causal=False
    )
    return out[:, 0]


def varlen(q: Tensor, k: Tensor, v: Tensor, visibility: Visibility) -> Tensor:
    """torch's variable-length attention: configurations of equal length, packed one after the other."""
    batch, heads, rows, width = q.shape
    packed = [x.transpose(1, 2).reshape(batch * rows, heads, width) for x in (q, k, v)]
    bounds = torch.arange(0, (batch + 1) * rows, rows, dtype=torch.int32, device=q.device)
    out = varlen_function()(*packed, bounds, bounds, rows, rows, window_size=(left_window(visibility), 0))
    return out.view(batch, rows, heads, width).transpose(1, 2)


def flex(q: Tensor, k: Tensor, v: Tensor, visibility: Visibility) -> Tensor:
    """FlexAttention with a block-sparse mask; compiled on CUDA, where the first call may take a minute."""
    from torch.nn.attention.flex_attention import flex_attention

    mask = visibility.on(q.device, f"flex {q.shape[2]}", lambda: flex_mask(visibility, q.shape[2], q.device))
    attention = _compiled_flex() if q.is_cuda else flex_attention
    return attention(q, k, v, block_mask=mask)


def flex_mask(visibility: Visibility, rows: int, device: torch.device):
    """The BlockMask of a mask."""
    from torch.nn.attention.flex_attention import create_block_mask

    if visibility.is_full:

        def seen(b, h, q, k):
            return k <= q

    elif visibility.keys is None:
        window, first = visibility.window, visibility.first

        def seen(b, h, q, k):
            return (k <= q) & ((k > q - window) | (k < first))

    else:
        table = torch.from_numpy(visibility.allowed()).to(device)

        def seen(b, h, q, k):
            return table[q, k]

    return create_block_mask(seen, None, None, rows, rows, device=device)


@cache
def _compiled_flex():
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)
