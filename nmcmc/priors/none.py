"""No physics: every value of a token has the same weight."""

from __future__ import annotations

from torch import Tensor

from nmcmc.priors.base import Prior, PriorState


class NoPrior(Prior):
    def patch_logits(self, state: PriorState, j: int) -> Tensor:
        return state.padded.new_zeros(len(state.padded), self.tokens.vocabulary)

    def patch_logits_of(self, spins: Tensor) -> Tensor:
        return self.values.new_zeros(len(spins), self.tokens.n_tokens, self.tokens.vocabulary)
