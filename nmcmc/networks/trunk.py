"""The causal transformer between inputs and head: positions, pre-LN blocks, a preallocated cache for drawing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from nmcmc.networks import attention, attention_cuda
from nmcmc.networks.cuda_step import Replays
from nmcmc.networks.positions import Positions
from nmcmc.networks.visibility import Visibility, full_visibility

PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16}

Heads = Callable[[Tensor, Tensor, Tensor], Tensor]  # queries, keys and values of all heads to what they saw


class Block(nn.Module):
    """x + attention(LN x), then x + MLP(LN x); MLP width 4 d, GELU (arXiv:2604.27738, appendix A)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)

    def mlp(self, x: Tensor) -> Tensor:
        return self.contract(functional.gelu(self.expand(self.norm_mlp(x))))

    def forward(self, x: Tensor, attend: Heads) -> Tensor:
        """x (batch, length, width) -> the same; attend works on (batch, heads, length, head width)."""
        batch, length, width = x.shape
        qkv = self.qkv(self.norm_attention(x)).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        x = x + self.project(attend(q, k, v).transpose(1, 2).reshape(batch, length, width))
        return x + self.mlp(x)

    def step(self, x: Tensor, attend: Heads) -> Tensor:
        """x (batch, width) of one position; attend works on (batch, heads, head width) and knows the past."""
        batch, width = x.shape
        q, k, v = self.qkv(self.norm_attention(x)).view(batch, 3, self.heads, width // self.heads).unbind(1)
        x = x + self.project(attend(q, k, v).reshape(batch, width))
        return x + self.mlp(x)


@dataclass
class Cache:
    """Keys and values (batch, heads, slots, head width) of every layer, allocated once for a whole configuration."""

    layers: list[tuple[Tensor, Tensor]]


class Trunk(nn.Module):
    """From contents of tokens to features of the next ones.

    Position j = 1, ..., n_tokens - 1 takes the content of token j - 1 and gives features for token j, whose place it
    knows.

    visibility: which past tokens each sees, all by default. positions: how it knows the place, by an added table by
    default. backend: a name of `attention.BACKENDS`, or auto. precision: float32, or bf16 for the blocks; weights,
    norms and features are float32 either way. content_width: numbers that a content has.

    Raises ValueError when heads do not divide the width, or for an unknown precision; on its first use on a device,
    when the backend cannot do what is asked there.
    """

    def __init__(
        self,
        n_tokens: int,
        *,
        width: int,
        layers: int,
        heads: int,
        visibility: Visibility | None = None,
        positions: Positions | None = None,
        backend: str = "auto",
        precision: str = "float32",
    ):
        super().__init__()
        if width % heads:
            raise ValueError(f"net.heads={heads} does not divide net.width={width}")
        if precision not in PRECISIONS:
            raise ValueError(f"net.precision={precision}: {' or '.join(PRECISIONS)} is needed")
        self.width, self.heads, self.n_tokens = width, heads, n_tokens
        self.visibility = visibility or full_visibility(n_tokens)
        self.position = positions or Positions("additive", n_tokens, width=width, heads=heads)
        self.content_width = self.position.content_width
        self.backend, self.precision = backend, precision
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self._chosen: dict[torch.device, tuple[str, str]] = {}
        self._replays = Replays()

    @property
    def device(self) -> torch.device:
        return self.norm.weight.device

    def choice(self) -> tuple[str, str]:
        """The backend on the present device and why; ValueError when what is asked cannot be done there."""
        device = self.device
        if device not in self._chosen:
            self._chosen[device] = backend_on(
                device, self.visibility, self.backend, self.precision, self.width // self.heads
            )
        return self._chosen[device]

    def backend_line(self) -> str:
        """What attention is computed with, in a line for the one who runs it."""
        backend, why = self.choice()
        slots = self.visibility.cache.capacity
        return (
            f"attention: net.backend={backend} ({why}), net.mask={self.visibility.name}, a cache of {slots} keys, "
            f"{self.precision} on {self.device.type}"
        )

    def forward(self, content: Tensor) -> Tensor:
        """Contents (batch, length, content_width) of positions 1, 2, ... -> features (batch, length, width)."""
        at, (backend, _) = slice(1, content.shape[1] + 1), self.choice()

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            q, k = self.position.rotated(q, k, at)
            return attention.attend(q, k, v, self.visibility, backend)

        x = self.position.join(content, at)
        with self._autocast():
            for block in self.blocks:
                x = block(x, attend)
        return self.norm(x.float())

    def start(self, batch: int) -> Cache:
        """An empty cache for `batch` configurations."""
        like = self.norm.weight
        shape = (batch, self.heads, self.visibility.cache.capacity, self.width // self.heads)
        kind = PRECISIONS[self.precision] if self.precision != "float32" else like.dtype
        # Zeros, since slots that a mask hides are multiplied by zero: nothing there may be infinite.
        return Cache([(like.new_zeros(shape, dtype=kind), like.new_zeros(shape, dtype=kind)) for _ in self.blocks])

    def step(self, cache: Cache, content: Tensor, j: int) -> Tensor:
        """Features (batch, width) of token j >= 1 from the content (batch, content_width) of position j."""
        if content.is_cuda and not torch.is_grad_enabled():
            return self._replays.step(self, cache, content, j)
        plan = self.visibility.cache
        slot, used = int(plan.write[j - 1]), int(plan.used[j - 1])
        seen = None if plan.seen is None else self._seen_slots()[j - 1 : j, :used]

        def read(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            return attention.attend_step(q, keys[:, :, :used], values[:, :, :used], seen)

        def write(slots: Tensor, x: Tensor) -> None:
            slots[:, :, slot] = x

        return self._step(cache, content, j, write, read)

    def step_fixed(self, cache: Cache, content: Tensor, j: Tensor) -> Tensor:
        """As `step`, with j a tensor (1,) int64 on the device and shapes that are always the same.

        Nothing here depends on j but through tensors, so that a CUDA graph of one step serves all.
        """
        row = j - 1
        slot, used = (self._plan_tensor(name).index_select(0, row) for name in ("write", "used"))
        if self.visibility.cache.seen is not None:
            seen = self._seen_slots().index_select(0, row)
        else:
            seen = torch.arange(self.visibility.cache.capacity, device=j.device)[None] < used
        flash = self.choice()[0] == "flash" and attention_cuda.flash_cache_function() is not None

        def read(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            if flash:
                return attention_cuda.flash_step(q, keys, values, used.int().expand(len(q)).contiguous())
            return attention.attend_step(q, keys, values, seen)

        def write(slots: Tensor, x: Tensor) -> None:
            slots.index_copy_(2, slot, x[:, :, None])

        return self._step(cache, content, j, write, read)

    def _step(self, cache: Cache, content: Tensor, j: int | Tensor, write, read) -> Tensor:
        x = self.position.join(content, j)
        with self._autocast():
            for block, (keys, values) in zip(self.blocks, cache.layers, strict=True):

                def attend(q: Tensor, k: Tensor, v: Tensor, keys: Tensor = keys, values: Tensor = values) -> Tensor:
                    q, k = self.position.rotated(q, k, j)
                    write(keys, k)
                    write(values, v)
                    return read(q, keys, values)

                x = block.step(x, attend)
        return self.norm(x.float())

    def _autocast(self):
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, PRECISIONS[self.precision], cache_enabled=torch.is_grad_enabled())

    def _plan_tensor(self, name: str) -> Tensor:
        plan, device = self.visibility.cache, self.device
        return self.visibility.on(device, name, lambda: torch.from_numpy(getattr(plan, name)).to(device))

    def _seen_slots(self) -> Tensor:
        return self._plan_tensor("seen")


def backend_on(
    device: torch.device, visibility: Visibility, backend: str, precision: str, head_width: int
) -> tuple[str, str]:
    """(backend, why) for a trunk on a device; ValueError, one line, for what cannot be done there."""
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ValueError("net.precision=bf16: this CUDA device has no bfloat16; use net.precision=float32")
    return attention.choose_backend(backend, device, PRECISIONS[precision], visibility, head_width)


def reset(module: nn.Module, generator: torch.Generator, zero: tuple[str, ...] = ()) -> None:
    """Weights N(0, 0.02), biases 0, norms as they are; parameters whose name begins with one of `zero` at 0."""
    for name, parameter in module.named_parameters():
        if "norm" in name:
            continue
        if parameter.dim() == 1 or name.startswith(zero):
            nn.init.zeros_(parameter)
        else:
            nn.init.normal_(parameter, std=0.02, generator=generator)
