"""The baseline of marginalisation models: multilayer perceptrons of the whole lattice, for one lattice only.

Two residual networks on the one-hot tokens of all sites, one for all conditionals and one for the marginal (Liu et
al., arXiv:2310.12920, whose networks have 2048 units and 4 layers). One pass gives the conditionals of one set of
known spins, so an order takes N passes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class WholeNetwork(nn.Module):
    """n_spins: N. conditions: numbers a state comes with. generator: of the weights; it begins as the prior."""

    one_pass, place = False, None

    def __init__(self, n_spins: int, *, width: int, layers: int, conditions: int = 0, generator: torch.Generator):
        super().__init__()
        if conditions:
            raise ValueError("net=mlp is made for one temperature and field; use net=anyorder")
        self.of_conditionals = Residual(3 * n_spins, width, layers, n_spins, generator)
        self.of_marginal = Residual(3 * n_spins, width, layers, 1, generator)

    @property
    def silent(self) -> bool:
        """Whether the conditionals are those of the prior, as before any training."""
        return not bool(self.of_conditionals.last.weight.any() or self.of_conditionals.last.bias.any())

    def odds(self, partial: Tensor, odds: Tensor) -> Tensor:
        """Log-odds (n, N) of all spins given those known in partial (n, N), prior log-odds (n, N) or (n, 1)."""
        return odds + self.of_conditionals(one_hot(partial))

    def odds_at(self, partial: Tensor, odds: Tensor, site: int) -> Tensor:
        """The same at one site, (n,)."""
        return odds + self.of_conditionals(one_hot(partial))[:, site]

    def odds_along(self, spins: Tensor, rank: Tensor, odds: Tensor) -> Tensor:
        """Log-odds (n, N) of every spin given those of lower rank (n, N): one pass for each place of the order."""
        found = torch.empty_like(odds)
        sites = rank.argsort(1)
        for place in range(rank.shape[1]):
            site = sites[:, place : place + 1]
            before = rank < rank.gather(1, site)
            found = found.scatter(1, site, self.odds(spins * before, odds).gather(1, site))
        return found

    def log_marginal(self, partial: Tensor, odds: Tensor) -> Tensor:
        """ln of the unnormalised marginal (n,) of partial states (n, N)."""
        return self.of_marginal(one_hot(partial))[:, 0] - math.log(2.0) * partial.abs().sum(1)


def one_hot(partial: Tensor) -> Tensor:
    """(n, 3 N): unknown, down, up."""
    return torch.cat([partial == 0, partial < 0, partial > 0], 1).float()


class Residual(nn.Module):
    """x -> W x, then `layers` times x + GELU(V x), then the outputs, which begin at zero."""

    def __init__(self, inputs: int, width: int, layers: int, outputs: int, generator: torch.Generator):
        super().__init__()
        self.first, self.last = nn.Linear(inputs, width), nn.Linear(width, outputs)
        self.inner = nn.ModuleList(nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width)) for _ in range(layers))
        with torch.no_grad():
            for linear in (self.first, *(pair[1] for pair in self.inner)):
                linear.weight.normal_(0.0, 1.0 / math.sqrt(linear.in_features), generator=generator)
                linear.bias.zero_()
            self.last.weight.zero_()
            self.last.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for pair in self.inner:
            x = x + functional.gelu(pair(x))
        return self.last(x)
