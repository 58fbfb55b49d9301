"""A stream of proposals whose n-th batch depends on its number alone, so that stopped runs repeat it exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from nmcmc.sampler import Proposal

PROPOSALS = 3  # this use of a seed; 0 to 2 are the streams of the drivers
BATCH = 512  # states drawn at once, over all chains, from a Proposal that does not say (max_batch) what suits it


@dataclass(frozen=True)
class ProposalBatch:
    """Proposals of consecutive draws, (chain, draw): spins (..., N) int8, energy, log_q, log_weight, uniform."""

    spins: np.ndarray
    energy: np.ndarray
    log_q: np.ndarray
    log_weight: np.ndarray  # -beta E - log q
    uniform: np.ndarray  # one number in [0, 1) for the acceptance of each


class ProposalStream:
    """Batches of draws for every chain from one Proposal; batch number b is a function of (seed, b) alone.

    A proposal that several processes draw from says how many batches it draws at once (batches_at_once) and how
    (sample_batches); see `nmcmc.distributed.SharedProposal`.
    """

    def __init__(self, proposal: Proposal, n_chains: int, seed: int, beta_index: int):
        self.proposal, self.n_chains = proposal, n_chains
        self.draws_a_batch = max(getattr(proposal, "max_batch", BATCH) // n_chains, 1)
        self.batches_at_once = getattr(proposal, "batches_at_once", 1)
        self._seed = (seed, beta_index)
        self._cached: dict[int, ProposalBatch] = {}

    def batch(self, number: int) -> ProposalBatch:
        """Batch `number` >= 0 (those drawn last are kept, since blocks need not end where batches do)."""
        if number not in self._cached:
            first = number - number % self.batches_at_once
            numbers = range(first, first + self.batches_at_once)
            self._cached = dict(zip(numbers, self._draw(numbers), strict=True))
        return self._cached[number]

    def take(self, first: int, count: int) -> ProposalBatch:
        """Proposals of draws first ... first + count - 1."""
        parts = []
        while count > 0:
            number, offset = divmod(first, self.draws_a_batch)
            n = min(count, self.draws_a_batch - offset)
            batch = self.batch(number)
            parts.append(ProposalBatch(*(values[:, offset : offset + n] for values in vars(batch).values())))
            first, count = first + n, count - n
        return ProposalBatch(
            *(np.concatenate(column, axis=1) for column in zip(*(vars(p).values() for p in parts), strict=True))
        )

    def _draw(self, numbers: Sequence[int]) -> list[ProposalBatch]:
        seed, beta_index = self._seed
        words = [np.random.SeedSequence(seed, spawn_key=(PROPOSALS, beta_index, number)) for number in numbers]
        rngs = [np.random.Generator(np.random.PCG64(word)) for word in words]
        seeds, n = [int(rng.integers(2**63)) for rng in rngs], self.n_chains * self.draws_a_batch
        if self.batches_at_once > 1:
            drawn = self.proposal.sample_batches(n, seeds)
        else:
            drawn = [self.proposal.sample(n, torch.Generator().manual_seed(one)) for one in seeds]
        return [self._batch(*states, rng) for states, rng in zip(drawn, rngs, strict=True)]

    def _batch(self, spins: np.ndarray, log_q: np.ndarray, rng: np.random.Generator) -> ProposalBatch:
        shape = (self.n_chains, self.draws_a_batch)
        energy = self.proposal.hamiltonian.energy(spins)
        if not np.isfinite(log_q).all():
            raise FloatingPointError(
                "the proposal returned a log q that is not finite; train again with a smaller train.lr="
            )
        log_weight = -self.proposal.beta * energy - log_q
        flat = (energy.reshape(shape), log_q.reshape(shape), log_weight.reshape(shape), rng.random(shape))
        return ProposalBatch(spins.reshape(*shape, -1), *flat)


def rescore_error(proposal: Proposal, n: int, seed: int) -> float:
    """Largest |log_prob(s) - log q recorded while sampling s| over n fresh draws, in nats."""
    spins, log_q = proposal.sample(n, torch.Generator().manual_seed(seed))
    return float(np.abs(proposal.log_prob(spins) - log_q).max())
