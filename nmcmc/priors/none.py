"""No physics: every value of a token has the same weight."""

from __future__ import annotations

from torch import Tensor

from nmcmc.priors.base import Prior, PriorState


class NoPrior(Prior):
    def patch_logits(self, state: PriorState, j: int) -> Tensor:
        return state.rows.new_zeros(state.rows.shape[1], self.tokens.vocabulary)

    def patch_logits_of(self, spins: Tensor) -> Tensor:
        return self.values.new_zeros(self.tokens.n_tokens, len(spins), self.tokens.vocabulary)
