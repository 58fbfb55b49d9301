"""The contracts of priors: spin by spin, or in weights of whole patches with the per-spin view of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from nmcmc.networks.heads import TreeHead
from nmcmc.tokens import Tokens


@dataclass
class PriorState:
    """What has been drawn so far: float spins (n_spins + 1, batch), a row a site, 1 where nothing is drawn yet.

    notes: whatever a prior wants to keep between tokens (messages of the current row).
    """

    rows: Tensor
    notes: dict[str, Any] = field(default_factory=dict)


class SpinPrior(nn.Module):
    """ln p(+)/p(-) of each spin given the spins before it, along the generation order; no gradient flows through it.

    States here are in site order; n counts spins in generation order. A subclass offers `log_odds` (one spin, while
    sampling) and `log_odds_of` (all spins of given states), and they must agree up to rounding.
    """

    spinwise = True  # knows spins one at a time, not the 2^k values of a token

    def __init__(self, tokens: Tokens):
        super().__init__()
        self.tokens = tokens
        self.order: list[int] = tokens.sites.reshape(-1).tolist()  # numbers: a tensor would wait for its device
        self.register_buffer("sites", torch.from_numpy(tokens.sites.copy()), persistent=False)

    def batch(self) -> int:
        """Most states that are drawn or scored at once in a modest amount of memory."""
        return min(512, max(8, 2**19 // self.tokens.n_spins))

    def start(self, batch: int) -> PriorState:
        """The state before anything is drawn."""
        return PriorState(torch.ones(self.tokens.n_spins + 1, batch, device=self.sites.device))

    def log_odds(self, state: PriorState, n: int) -> Tensor:
        """ln p(+)/p(-) of the n-th spin of the order given the spins before it, (batch,)."""
        raise NotImplementedError

    def advance(self, state: PriorState, n: int, spin: Tensor) -> None:
        """Fix the n-th spin of the order to `spin` (batch,) of +-1."""
        state.rows[self.order[n]] = spin.float()

    def log_odds_of(self, spins: Tensor) -> Tensor:
        """Log-odds (batch, n_spins) of every spin of given states, in generation order."""
        raise NotImplementedError

    def token_values(self, spins: Tensor) -> Tensor:
        """Token values (batch, n_tokens) int64 of states (batch, n_spins)."""
        return bits_value(spins[:, self.sites])


class Prior(SpinPrior):
    """ln p of the values of the next token given the past, up to a constant; no gradient flows through it.

    A subclass offers `patch_logits` (one token, while sampling) and `patch_logits_of` (all tokens of given states)
    and they must agree. The per-spin view follows from them: a sum over the subtrees of a patch.
    """

    spinwise = False

    def __init__(self, tokens: Tokens):
        super().__init__(tokens)
        self.register_buffer("values", torch.from_numpy(tokens.table.astype("float32")), persistent=False)  # (V, k)

    def fix(self, state: PriorState, j: int, token: Tensor) -> None:
        """Write token j, (batch,) values, into the state."""
        state.rows[self.sites[j]] = self.values[token].T

    def patch_logits(self, state: PriorState, j: int) -> Tensor:
        """(batch, V) given tokens 0..j-1 in the state."""
        raise NotImplementedError

    def patch_logits_of(self, spins: Tensor) -> Tensor:
        """(n_tokens, batch, V) for states (batch, n_spins), each token given those before it."""
        raise NotImplementedError

    def log_odds(self, state: PriorState, n: int) -> Tensor:
        j, m = divmod(n, self.tokens.k)
        odds = TreeHead(self.tokens.vocabulary).node_log_odds(self.patch_logits(state, j))
        below = bits_value(state.rows[self.sites[j, :m]].T)
        return odds.gather(1, (below + (1 << m) - 1)[:, None])[:, 0]

    def log_odds_of(self, spins: Tensor) -> Tensor:
        head = TreeHead(self.tokens.vocabulary)
        odds = head.node_log_odds(self.patch_logits_of(spins)).transpose(0, 1)  # (batch, T, V - 1)
        nodes, _ = head.path(self.token_values(spins))
        return odds.gather(-1, nodes).flatten(1)


def bits_value(spins: Tensor) -> Tensor:
    """Spins (..., m) of +-1 read as bits, the first lowest: (...) int64."""
    return ((spins > 0).long() << torch.arange(spins.shape[-1], device=spins.device)).sum(-1)
