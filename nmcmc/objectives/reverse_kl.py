"""Reverse KL divergence by REINFORCE: the variational free energy beta F_q = < ln q + beta E >_q."""

from __future__ import annotations

import torch
from torch import Tensor

from nmcmc.objectives.base import Batch, StepRandomness, draw_in_parts
from nmcmc.patch_energy import PatchEnergy, site_rows
from nmcmc.sampler import AutoregressiveSampler


class ReverseKL:
    """Full sum with the batch mean as baseline: < (S - <S>) grad ln q >, S = ln q + beta E.

    Wu, Wang, Zhang, PRL 122, 080602 (2019); its variance vanishes at the optimum.
    """

    period = 1

    def __init__(self, sampler: AutoregressiveSampler):
        self.sampler = sampler
        self.energy = PatchEnergy(sampler.hamiltonian, sampler.tokens, sampler.beta, around="past").to(sampler.device)

    @torch.no_grad()
    def batch(self, n: int, randomness: StepRandomness) -> Batch:
        spins, log_q = draw_in_parts(self.sampler, n, randomness)
        rewards = []
        for part in torch.split(spins, self.sampler.max_batch):
            canonical = self.sampler.to_canonical(part)
            tokens = self.sampler.prior.token_values(canonical)
            rewards.append(self.energy.of_given(site_rows(canonical), tokens).double())  # - beta E
        # S = sum over tokens of ln q(t_j | past) + beta E_j(t_j | past), up to a constant
        return Batch(spins, self.advantages(log_q - torch.cat(rewards)))

    def advantages(self, terms: Tensor) -> Tensor:
        """Weights of grad ln q of every token, (n, n_tokens), from the terms r_j of S."""
        total = terms.sum(1, keepdim=True)
        return (total - total.mean()).expand_as(terms)

    def loss(self, part: Batch) -> Tensor:
        return (part.advantage * self.sampler.token_log_probs(part.spins)).sum()


class RewardToGo(ReverseKL):
    """Reward to go with the past as a control variate: A_j = R_j - c_j P_j.

    R_j = sum_{i>=j} r_i, P_j = sum_{i<j} r_i, both centred over the batch, c_j = cov(R_j, P_j) / var(P_j).
    c = 0 is plain reward-to-go, c = -1 the full sum; the measured c is never much worse than either.
    """

    def advantages(self, terms: Tensor) -> Tensor:
        past = terms.cumsum(1) - terms
        to_go = terms.sum(1, keepdim=True) - past
        past, to_go = past - past.mean(0), to_go - to_go.mean(0)
        variance = (past * past).mean(0)
        control = (to_go * past).mean(0) / variance.clamp_min(1e-300)
        return to_go - torch.where(variance > 0, control, 0.0) * past
