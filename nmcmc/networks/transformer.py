"""A causal transformer over patch tokens: pre-LN blocks, additive learnable positions, a preallocated KV cache."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


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

    def forward(self, x: Tensor) -> Tensor:
        """x (batch, length, width) -> the same, each position seeing itself and what came before."""
        batch, length, width = x.shape
        qkv = self.qkv(self.norm_attention(x)).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (batch, heads, length, head width)
        seen = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.project(seen.transpose(1, 2).reshape(batch, length, width))
        return x + self.mlp(x)

    def step(self, x: Tensor, cache: tuple[Tensor, Tensor], position: int) -> Tensor:
        """x (batch, width) at `position`; keys and values of earlier positions come from the cache, its own go in."""
        batch, width = x.shape
        keys, values = cache  # (batch, heads, capacity, head width)
        q, k, v = self.qkv(self.norm_attention(x)).view(batch, 3, self.heads, width // self.heads).unbind(1)
        keys[:, :, position], values[:, :, position] = k, v
        past = slice(0, position + 1)
        seen = functional.scaled_dot_product_attention(q[:, :, None], keys[:, :, past], values[:, :, past])
        x = x + self.project(seen.reshape(batch, width))
        return x + self.mlp(x)


@dataclass
class Cache:
    """Keys and values of every layer, allocated once for a whole configuration."""

    layers: list[tuple[Tensor, Tensor]]


class Transformer(nn.Module):
    """Head outputs of every token given the tokens before it.

    The input at position j >= 1 is the embedding of token j-1 plus the position j; the outputs of token 0 are
    parameters of their own (arXiv:2604.27738 eq. 12).

    n_outputs: numbers the head wants a token. zero_head: start with outputs exactly 0, so that step 0 is the prior.
    Raises ValueError when heads do not divide the width.
    """

    def __init__(
        self,
        n_tokens: int,
        vocabulary: int,
        n_outputs: int,
        *,
        width: int,
        layers: int,
        heads: int,
        zero_head: bool,
        generator: torch.Generator,
    ):
        super().__init__()
        if width % heads:
            raise ValueError(f"net.heads={heads} does not divide net.width={width}")
        self.width, self.heads = width, heads
        self.embedding = nn.Embedding(vocabulary, width)
        self.position = nn.Embedding(n_tokens, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, n_outputs)
        self.first = nn.Parameter(torch.zeros(n_outputs))
        self.reset(zero_head, generator)

    def reset(self, zero_head: bool, generator: torch.Generator) -> None:
        """Weights N(0, 0.02), biases 0; head and first token at 0 if asked, else N(0, 0.02) and U(0, 1)."""
        for name, parameter in self.named_parameters():
            if "norm" in name:
                continue
            if name == "first":
                nn.init.zeros_(parameter) if zero_head else nn.init.uniform_(parameter, generator=generator)
            elif parameter.dim() == 1 or (zero_head and name.startswith("head")):
                nn.init.zeros_(parameter)
            else:
                nn.init.normal_(parameter, std=0.02, generator=generator)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (batch, n_tokens) int64 -> outputs (n_tokens - 1, batch, n_outputs) of tokens 1, 2, ...

        The outputs of token 0 are the parameter `first`.
        """
        length = tokens.shape[1]
        x = self.embedding(tokens[:, :-1]) + self.position.weight[1:length]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).transpose(0, 1))

    def start(self, batch: int) -> Cache:
        """An empty cache for `batch` configurations."""
        capacity = self.position.num_embeddings
        shape = (batch, self.heads, capacity, self.width // self.heads)
        like = self.first
        return Cache([(like.new_empty(shape), like.new_empty(shape)) for _ in self.blocks])

    def step(self, cache: Cache, previous: Tensor, j: int) -> Tensor:
        """Outputs (batch, n_outputs) of token j >= 1; `previous` (batch,) is token j-1."""
        x = self.embedding(previous) + self.position.weight[j]
        for block, layer in zip(self.blocks, cache.layers, strict=True):
            x = block.step(x, layer, j - 1)
        return self.head(self.norm(x))
