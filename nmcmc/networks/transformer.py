"""The network of the tree and softmax heads: patch tokens in, numbers of the head out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nmcmc.networks.trunk import Cache, Trunk, reset


class Transformer(nn.Module):
    """Head outputs of every token given the tokens before it.

    The content at position j >= 1 is the embedding of token j-1; the outputs of token 0 are parameters of their own
    (arXiv:2604.27738 eq. 12).

    n_outputs: numbers the head wants a token. zero_head: start with outputs exactly 0, so that step 0 is the prior.
    """

    spinwise = False

    def __init__(self, trunk: Trunk, vocabulary: int, n_outputs: int, *, zero_head: bool, generator: torch.Generator):
        super().__init__()
        self.trunk = trunk
        self.embedding = nn.Embedding(vocabulary, trunk.content_width)
        self.head = nn.Linear(trunk.width, n_outputs)
        self.first = nn.Parameter(torch.zeros(n_outputs))
        reset(self, generator, ("head",) if zero_head else ())
        if not zero_head:
            nn.init.uniform_(self.first, generator=generator)

    @property
    def silent(self) -> bool:
        """Whether it adds nothing to the prior."""
        return not (self.head.weight.any() or self.first.any())

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (batch, n_tokens) int64 -> outputs (n_tokens - 1, batch, n_outputs) of tokens 1, 2, ...

        The outputs of token 0 are the parameter `first`.
        """
        return self.head(self.trunk(self.embedding(tokens[:, :-1])).transpose(0, 1))

    def start(self, batch: int) -> Cache:
        """An empty cache for `batch` configurations."""
        return self.trunk.start(batch)

    def step(self, cache: Cache, previous: Tensor, j: int) -> Tensor:
        """Outputs (batch, n_outputs) of token j >= 1; `previous` (batch,) is token j-1."""
        return self.head(self.trunk.step(cache, self.embedding(previous), j))
