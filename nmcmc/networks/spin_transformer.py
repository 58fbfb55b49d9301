"""A transformer over groups of spins with a small network for each spin of a group: no vocabulary of 2^k values.

The features of a group come from all groups before it; inside the group a spin also knows the spins drawn before it.
What is added to the prior's log-odds 2 a of spin m of group g is

    f = w_m . gelu(W_m x_g + sum_{m' < m} u_{m m'} s_{m'} + V_m (tanh a, tanh 3a, tanh beta h)) + b_m,

x_g the features of the trunk, h the field of the spins drawn so far. It starts at exactly 0, which is the prior.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mc.hamiltonian import Hamiltonian
from nmcmc.networks.linear import LinearResidual
from nmcmc.networks.trunk import Cache, Trunk, reset
from nmcmc.tokens import Tokens

HIDDEN = 16  # numbers of the network of one spin
INPUTS = 3  # functions of the prior's log-odds and of the field of the past


@dataclass
class Drawing:
    """While states are drawn: the cache of the trunk, and the part of the head that a group's spins share."""

    cache: Cache
    shared: Tensor | None = None  # (k, batch, hidden)


class SpinTransformer(nn.Module):
    """Corrections to the log-odds of a prior, spin by spin.

    trunk: over the groups of `tokens`. linear: a linear residual whose corrections are added, or None. beta: of the
    fields that are inputs.
    """

    spinwise = True

    def __init__(
        self,
        hamiltonian: Hamiltonian,
        tokens: Tokens,
        beta: float,
        trunk: Trunk,
        linear: LinearResidual | None,
        generator: torch.Generator,
    ):
        super().__init__()
        k, width = tokens.k, trunk.width
        self.n_groups, self.k, self.beta = tokens.n_tokens, k, float(beta)
        self.trunk, self.linear = trunk, linear
        self.spins = nn.Linear(k, trunk.content_width)
        self.fields = nn.Linear(k, trunk.content_width, bias=False)
        self.first = nn.Parameter(torch.zeros(width))  # features of the first group
        self.from_features = nn.Parameter(torch.empty(k * HIDDEN, width))
        self.from_spins = nn.Parameter(torch.empty(k * HIDDEN, k))
        self.from_odds = nn.Parameter(torch.empty(k, HIDDEN, INPUTS))
        self.bias = nn.Parameter(torch.zeros(k * HIDDEN))
        self.out = nn.Parameter(torch.zeros(k, HIDDEN))
        self.out_bias = nn.Parameter(torch.zeros(k))
        reset(self, generator, ("out",))
        with torch.no_grad():  # by the numbers that come in, as gelu works best on numbers of order one
            self.from_features.mul_(50.0 / width**0.5)
            self.from_spins.mul_(50.0 / k**0.5)
            self.from_odds.mul_(50.0 / INPUTS**0.5)
        earlier = torch.ones(k, k).tril(-1).repeat_interleave(HIDDEN, 0)
        self.register_buffer("earlier", earlier, persistent=False)
        order = torch.from_numpy(tokens.sites.reshape(-1).copy())
        self.register_buffer("order", order, persistent=False)
        of_spin, of_group = past_couplings(hamiltonian, tokens)
        self.register_buffer("past_of_spin", of_spin, persistent=False)
        self.register_buffer("past_of_group", of_group, persistent=False)

    @property
    def silent(self) -> bool:
        """Whether it adds nothing to the prior."""
        return not (self.out.any() or self.out_bias.any()) and (self.linear is None or self.linear.silent)

    def at(self, beta: float) -> SpinTransformer:
        """The same weights, shared, with the fields of another temperature as inputs."""
        other = copy.copy(self)
        other.beta = float(beta)
        return other

    def start(self, batch: int) -> Drawing:
        """Before anything of `batch` states is drawn."""
        return Drawing(self.trunk.start(batch))

    def correct(self, drawing: Drawing, odds: Tensor, rows: Tensor, n: int) -> Tensor:
        """Log-odds (batch,) of the n-th spin from the prior's (batch,) and the spins drawn before it.

        rows: (N + 1, batch) float, sites in rows; those not drawn yet are read and do not count.
        """
        g, m = divmod(n, self.k)
        group = self.order[g * self.k : (g + 1) * self.k]
        if m == 0:
            drawing.shared = self._shared(drawing.cache, rows, g)
        hidden = slice(m * HIDDEN, (m + 1) * HIDDEN)
        own = (self.from_spins * self.earlier)[hidden] @ rows[group]
        inputs = self._inputs(odds[None], (self.past_of_spin[n] @ rows[:-1])[None])[0]
        x = functional.gelu(drawing.shared[m] + own.T + inputs @ self.from_odds[m].T)
        added = x @ self.out[m] + self.out_bias[m]
        base = odds if self.linear is None else self.linear.correct(None, odds, rows, n)
        return base + added

    def _shared(self, cache: Cache, rows: Tensor, g: int) -> Tensor:
        """What the features of group g give every spin of it, (k, batch, hidden)."""
        batch = rows.shape[1]
        if g == 0:
            features = self.first.expand(batch, -1)
        else:
            before = rows[self.order[(g - 1) * self.k : g * self.k]].T
            pull = torch.tanh(self.beta * (self.past_of_group[g * self.k : (g + 1) * self.k] @ rows[:-1])).T
            features = self.trunk.step(cache, self.spins(before) + self.fields(pull), g)
        shared = features @ self.from_features.T + self.bias
        return shared.view(batch, self.k, HIDDEN).transpose(0, 1)

    def correct_all(self, odds: Tensor, spins: Tensor) -> Tensor:
        """Log-odds (batch, N) from the prior's, both in generation order, and states (batch, N) in site order."""
        batch, spins = len(spins), spins.to(self.out.dtype)
        groups = spins[:, self.order].view(batch, self.n_groups, self.k)
        features = self.first.expand(batch, 1, -1)
        if self.n_groups > 1:
            pull = torch.tanh(self.beta * (spins @ self.past_of_group.T)).view(batch, self.n_groups, self.k)
            content = self.spins(groups[:, :-1]) + self.fields(pull[:, 1:])
            features = torch.cat([features, self.trunk(content)], 1)
        x = features @ self.from_features.T + groups @ (self.from_spins * self.earlier).T + self.bias
        inputs = self._inputs(odds, spins @ self.past_of_spin.T).view(batch, self.n_groups, self.k, INPUTS)
        x = x.view(batch, self.n_groups, self.k, HIDDEN) + torch.einsum("bgki,khi->bgkh", inputs, self.from_odds)
        added = (functional.gelu(x) * self.out).sum(-1) + self.out_bias
        base = odds if self.linear is None else self.linear.correct_all(odds, spins)
        return base + added.view(batch, -1)

    def _inputs(self, odds: Tensor, pull: Tensor) -> Tensor:
        a = 0.5 * odds
        return torch.stack([torch.tanh(a), torch.tanh(3.0 * a), torch.tanh(self.beta * pull)], -1)


def past_couplings(hamiltonian: Hamiltonian, tokens: Tokens) -> tuple[Tensor, Tensor]:
    """J between spins and those drawn before them, (N, N) float32 twice: rows in order, columns by site.

    In the first matrix drawn before the spin itself, in the second before the first spin of its group. Bonds only.
    """
    n_spins = tokens.n_spins
    place = np.empty(n_spins, np.int64)
    place[tokens.sites.reshape(-1)] = np.arange(n_spins)
    sites, couplings = hamiltonian.bonds
    one, other = np.concatenate([sites, sites[:, ::-1]]).T
    row, couplings = place[one], np.concatenate([couplings, couplings])
    matrices = []
    for begin in (row, row // tokens.k * tokens.k):
        matrix, drawn = np.zeros((n_spins, n_spins), np.float32), place[other] < begin
        matrix[row[drawn], other[drawn]] = couplings[drawn]
        matrices.append(torch.from_numpy(matrix))
    return matrices[0], matrices[1]
