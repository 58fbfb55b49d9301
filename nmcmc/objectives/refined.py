"""Gradients with the help of Monte Carlo: draws of q, and the same draws refined by sweeps at the target beta.

`RefinedGradient` is the published one (Zhong et al., arXiv:2606.22984, eq. 10): everything on the refined states s,

    (1/M) sum_m [ (L(s_m) - <L>) grad ln q(s_m) - w grad ln q(s_m) ],     L = beta E + ln q.

The s_m are no draws of q, so its first term is not the gradient of the variational free energy, nor of anything else.
`Refined` keeps the two apart. Its gradient is that of

    KL(q|p) on the draws themselves  +  w x cross entropy of q with soft labels on the refined states,

a descent in both directions: the first sees what q has too much of, the second what q lacks of the refined states.

Sum of the two divergences after 150 updates with the prior local (nats, exact by enumeration, means over instances),
w = 0 being reverse KL, and the published gradient: SK N=14, beta 2 (three): 0.14; 0.06 at w = 1, 0.06 at w = 3;
published 0.10, 0.11. Beta 4 (two): 1.14; 0.49, 0.33, and 0.31 at w = 10; published 0.42, 0.34. 4x4 Gaussian
glass, beta 3, no prior (two): 10.1; 7.2, 5.4, 4.2; published 8.4, 4.0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nmcmc.objectives.base import Batch, StepRandomness, draw_in_parts
from nmcmc.objectives.likelihood import label_energy, soft_label_loss
from nmcmc.refine import Refiner
from nmcmc.sampler import LN2, AutoregressiveSampler

WEIGHT = 3.0
SWEEPS = 10


@dataclass(frozen=True)
class RefinedBatch(Batch):
    """refined (n, N) float32: the drawn states after the sweeps. action (n,) float64: beta E + ln q of `spins`."""

    refined: Tensor | None = None
    action: Tensor | None = None

    def part(self, where: slice) -> RefinedBatch:
        return RefinedBatch(*(None if values is None else values[where] for values in vars(self).values()))


class Refined:
    """Reverse KL on draws of q plus `weight` times the soft likelihood of the same draws after `sweeps` sweeps.

    weight=0 is plain reverse KL, for every kind of sampler. Raises ValueError for weight < 0 or sweeps < 0.
    """

    period = 1

    def __init__(self, sampler: AutoregressiveSampler, sweeps: int = SWEEPS, weight: float = WEIGHT):
        if weight < 0 or sweeps < 0:
            raise ValueError(f"train.weight={weight}, train.sweeps={sweeps}: at least 0 is needed")
        self.sampler, self.sweeps, self.weight = sampler, sweeps, weight
        self.refiner = Refiner(sampler.hamiltonian)
        self.label = label_energy(sampler) if weight else None

    @torch.no_grad()
    def batch(self, n: int, randomness: StepRandomness) -> RefinedBatch:
        spins, log_q = draw_in_parts(self.sampler, n, randomness)
        action = self.action(spins, log_q.sum(1))
        return RefinedBatch(spins, centred(action), refined=self.refined(spins, randomness), action=action)

    def refined(self, spins: Tensor, randomness: StepRandomness) -> Tensor:
        """States (n, N) float32 after the sweeps, on the device of `spins`."""
        moved = self.moved(spins.to(torch.int8).cpu().numpy(), randomness.numpy)
        return torch.from_numpy(moved.astype(np.float32)).to(spins.device)

    def moved(self, spins: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """States (n, N) int8 after the sweeps at the beta of the target."""
        return self.refiner(spins, self.sampler.beta, self.sweeps, rng)

    def action(self, spins: Tensor, log_q: Tensor) -> Tensor:
        """L = beta E + ln q (n,) float64 of states from their log q, which lacks the ln 2 of the Z2 frame."""
        energy = self.sampler.hamiltonian.energy(spins.to(torch.int8).cpu().numpy())
        action = log_q + self.sampler.beta * torch.from_numpy(energy).to(log_q.device)
        return action - LN2 if self.sampler.canonical else action

    def loss(self, part: RefinedBatch) -> Tensor:
        loss = (part.advantage * self.sampler.token_log_probs(part.spins)).sum()
        if self.weight:
            loss = loss + self.weight * soft_label_loss(self.sampler, self.label, part.refined)
        return loss


class RefinedGradient(Refined):
    """The published modified gradient; `spins` of its batches are the refined states."""

    @torch.no_grad()
    def batch(self, n: int, randomness: StepRandomness) -> RefinedBatch:
        spins, _ = draw_in_parts(self.sampler, n, randomness)
        refined = self.refined(spins, randomness)
        log_q = [self.sampler.token_log_probs(part).sum(1) for part in torch.split(refined, self.sampler.max_batch)]
        action = self.action(refined, torch.cat(log_q))
        return RefinedBatch(refined, centred(action), refined=refined, action=action)

    def loss(self, part: RefinedBatch) -> Tensor:
        return ((part.advantage - self.weight) * self.sampler.token_log_probs(part.spins)).sum()


def centred(action: Tensor) -> Tensor:
    """L - <L> of each state, (n, 1) float64: the weight of grad ln q of all its tokens."""
    return (action - action.mean())[:, None]
