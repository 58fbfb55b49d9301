"""Energy-based training of marginalisation models: reverse KL of the marginal head, tied to the conditionals.

One pass gives ln p_theta(x) = m(x) - m(nothing known) of a whole state by the marginal head m, so the gradient of
KL(p_theta || exp(-beta E) / Z), the mean of r grad ln p_theta(x), takes one pass instead of one for each spin. The
conditionals learn from self-consistency alone: m(S) + ln p(x_d | S) = m(S and d) for a random set S and a random next
site d (Liu, Ramadge, Adams, arXiv:2310.12920).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from nmcmc.anyorder.sampler import AnyOrderSampler
from nmcmc.objectives.any_order import OrderedBatch
from nmcmc.objectives.base import StepRandomness

FLOOR = 0.1  # nats: r is divided by its standard deviation where that is larger


class MarginalKL:
    """members: samplers that share a network, or one. alpha: weight of N x (error of self-consistency)^2.

    gibbs: sites of each kept state that every step redraws, with the conditionals, in a random order of its own.
    refresh: steps after which all states are drawn anew in the stored order.

    r = ln p_theta + beta E is centred over a member's states of a step and divided by its standard deviation. The
    published form divides always; at the optimum all r are equal, and it would go on with noise of unit size, so the
    division ends at FLOOR. The published term that ties m(nothing) to a constant is left out: m counts by differences
    alone here, a shift of all m changes nothing, and the sum of r, which multiplies m(nothing), is zero.

    What it reaches: KL in nats of the proposal (the conditionals' product, not p_theta) on the Ising torus, after CPU
    seconds of one thread, beside `AnyOrderLikelihood`, which learns from Monte Carlo states and trains N conditionals
    of a state in a step where this trains one. 4 x 4, one layer with attention, width 32, batch 128, rate 5e-3,
    prior local: beta 0.3 0.013 in 40 s (0.006 in 20 s), beta 0.44 0.041 in 40 s (0.004 in 30 s). 10 x 10, beta 0.3,
    no attention, batch 64, rate 2e-3: from 9.7 of prior none to 2.8 in 90 s (0.04 in 45 s); of prior local, 0.61,
    it goes up to 1.2 in 90 s (0.03 in 45 s). The mlp of width 256, prior none, is still at 9.7 after 60 s (batch 128,
    rate 1e-3).

    Raises ValueError for no members, and for alpha, gibbs or refresh out of range.
    """

    def __init__(self, members: list[AnyOrderSampler], alpha: float = 4.0, gibbs: int = 4, refresh: int = 20):
        if not members:
            raise ValueError("marginal-kl: at least one sampler is needed")
        n_spins = members[0].tokens.n_spins
        if not alpha > 0.0:
            raise ValueError(f"marginal-kl: alpha={alpha}: the conditionals need a weight above 0 to learn")
        if gibbs < 0 or refresh < 1:
            raise ValueError(f"marginal-kl: gibbs={gibbs}, refresh={refresh}: at least 0 and 1 are needed")
        self.members, self.alpha, self.gibbs, self.period = members, alpha, min(gibbs, n_spins), refresh
        self.sampler = members[0]
        self._spins: np.ndarray | None = None  # (n, N) int8, states kept within a period
        self._member: np.ndarray | None = None  # (n,) whose they are, ascending

    def batch(self, n: int, randomness: StepRandomness) -> OrderedBatch:
        """States, r as `advantage` (n, 1), a set S and a next site d of each: the first `cut` sites are S and d."""
        rng, n_spins = randomness.numpy, self.sampler.tokens.n_spins
        if randomness.step % self.period == 0 or self._spins is None:
            self._member = np.arange(n) * len(self.members) // n
            self._spins = np.concatenate(
                [self.members[m].sample(int((self._member == m).sum()), randomness.torch)[0] for m in self.own()]
            )
        else:
            for m in self.own():
                of_it = self._member == m
                self._spins[of_it] = redrawn(self.members[m], self._spins[of_it], self.gibbs, rng)
        spins = torch.from_numpy(self._spins.astype(np.float32)).to(self.sampler.device)
        advantage = np.concatenate([self.advantage(m) for m in self.own()])
        rank = rng.random((n, n_spins)).argsort(axis=1).argsort(axis=1).astype(np.int32)
        cut = rng.integers(1, n_spins + 1, size=n)
        advantage = torch.from_numpy(advantage[:, None]).to(self.sampler.device)
        return OrderedBatch(spins, advantage, None, None, rank, self._member.copy(), cut)

    def own(self) -> np.ndarray:
        """Members that have states."""
        return np.unique(self._member)

    def advantage(self, m: int) -> np.ndarray:
        """r (n,) float64 of a member's states."""
        sampler, spins = self.members[m], self._spins[self._member == m]
        r = sampler.log_marginal(spins) + sampler.beta * sampler.hamiltonian.energy(spins)
        return (r - r.mean()) / max(r.std(), FLOOR)

    def loss(self, part: OrderedBatch) -> Tensor:
        total = torch.zeros((), dtype=torch.float64, device=self.sampler.device)
        for m in np.unique(part.member):
            of_it = np.flatnonzero(part.member == m)
            where = torch.from_numpy(of_it).to(self.sampler.device)
            spins, r = part.spins[where], part.advantage[where, 0]
            error = inconsistency(self.members[m], spins, part.rank[of_it], part.cut[of_it])
            weight = self.alpha * self.sampler.tokens.n_spins
            total = total + (r * self.members[m].marginal_of(spins)).sum() + weight * (error**2).sum()
        return total


def inconsistency(sampler: AnyOrderSampler, spins: Tensor, rank: np.ndarray, cut: np.ndarray) -> Tensor:
    """m(S) + ln p(x_d | S) - m(S and d) (n,) float64 in nats, with gradients.

    spins (n, N) whole states; S: the cut - 1 sites of lowest rank (n, N); d: the site of rank cut - 1.
    """
    ranks = torch.from_numpy(rank.astype(np.int64)).to(spins.device)
    last = torch.from_numpy(cut - 1).to(spins.device)[:, None]
    before, after = spins * (ranks < last), spins * (ranks <= last)
    site = np.flatnonzero(rank == cut[:, None] - 1) % rank.shape[1]
    own = spins.gather(1, torch.from_numpy(site).to(spins.device)[:, None])[:, 0]
    step = functional.logsigmoid(sampler.odds_at(before, site).double() * own)
    of_before, of_after = sampler.marginal_of(torch.cat([before, after])).chunk(2)
    return of_before + step - of_after


@torch.no_grad()
def redrawn(sampler: AnyOrderSampler, spins: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """States (n, N) int8 with `count` random sites of each forgotten and drawn again, one after the other."""
    n, n_spins = spins.shape
    sites = rng.random((n, n_spins)).argsort(axis=1)[:, :count]
    threshold = rng.logistic(size=(n, count))  # ln u / (1 - u) < odds is u < p(+1)
    partial = torch.from_numpy(spins.astype(np.float32)).to(sampler.device)
    partial.scatter_(1, torch.from_numpy(sites).to(sampler.device), 0.0)
    for column, site in enumerate(sites.T):
        odds = sampler.odds_at(partial, site).double()
        up = torch.from_numpy(threshold[:, column]).to(sampler.device) < odds
        partial.scatter_(
            1, torch.from_numpy(site.copy()).to(sampler.device)[:, None], (2.0 * up - 1.0)[:, None].float()
        )
    return partial.cpu().numpy().astype(np.int8)
