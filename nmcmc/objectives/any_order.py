"""Any-order likelihood: conditionals of random subsets, with the heat-bath law of each spin as its label.

Every state of the target comes with an order of its own, random or the stored one, and all conditionals along it are
fitted at once (order-agnostic autoregressive likelihood, as of Uria et al., 2014, and Liu et al., arXiv:2310.12920).
The label of a spin is its law given all others: on average over states that is the law given those before it, so the
gradient keeps its mean and loses noise. The marginal head is fitted to the sums of the conditionals' logs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from nmcmc.anyorder.sampler import AnyOrderSampler
from nmcmc.objectives.base import Batch, StepRandomness

MARGINAL_WEIGHT = 0.3  # of the marginal head's error, absolute beyond 1 nat, in the loss of a state that shows it
MARGINAL_EVERY = 4  # states, of which one also trains the marginal head


@dataclass(frozen=True)
class OrderedBatch(Batch):
    """rank (n, N) int32: place of each site in the order of a state. member (n,): whose target a state is of.

    cut (n,): a number of spins, 1 to N, up to which the marginal is fitted.
    """

    rank: np.ndarray | None = None
    member: np.ndarray | None = None
    cut: np.ndarray | None = None

    def part(self, where: slice) -> OrderedBatch:
        return OrderedBatch(*(None if values is None else values[where] for values in vars(self).values()))


class AnyOrderLikelihood:
    """members: samplers that share a network, or one. states: for each, states (n, N) int8 of its target.

    share: of the states that come with a random order; the others take the stored one, in which proposals are drawn.
    Raises ValueError for no states, or a share outside 0 to 1.
    """

    period = 1

    def __init__(self, members: list[AnyOrderSampler], states: list[np.ndarray], share: float = 0.25):
        if len(states) != len(members) or not all(len(some) for some in states):
            raise ValueError("any-order likelihood: states of every temperature are needed")
        if not 0.0 <= share <= 1.0:
            raise ValueError(f"train.any={share}: a share from 0 to 1 is needed")
        self.members, self.states, self.share = members, states, share
        self.sampler = members[0]
        self.labels = [soft_labels(*pair) for pair in zip(members, states, strict=True)]

    def batch(self, n: int, randomness: StepRandomness) -> OrderedBatch:
        rng, n_spins = randomness.numpy, self.sampler.tokens.n_spins
        member = np.sort(rng.integers(len(self.members), size=n))
        chosen = [(m, rng.integers(len(self.states[m]))) for m in member]
        spins = np.stack([self.states[m][i] for m, i in chosen]).astype(np.float32)
        labels = np.stack([self.labels[m][i] for m, i in chosen])
        rank = np.where(
            rng.random(n)[:, None] < self.share, rng.random((n, n_spins)).argsort(axis=1), self.sampler.rank
        ).astype(np.int32)
        cut = rng.integers(1, n_spins + 1, size=n)
        device = self.sampler.device
        on_device = (torch.from_numpy(values).to(device) for values in (spins, labels))
        spins, labels = on_device
        return OrderedBatch(spins, None, None, labels, rank, member, cut)

    def loss(self, part: OrderedBatch) -> Tensor:
        if not self.sampler.network.one_pass:  # of one target only
            return self.loss_of_subsets(self.sampler, part.spins, part.labels, part.rank, part.cut)
        odds = self._of_members(part.member, lambda one, rows: one.prior_along(part.spins[rows], part.rank[rows]))
        conditions = self._conditions(part.member)
        odds = self.sampler.corrected_along(part.spins, part.rank, odds, conditions)
        loss = (functional.softplus(odds) - part.labels * odds).sum(dtype=torch.float64)
        log_q = functional.logsigmoid(odds.detach().double() * part.spins)
        return loss + self.marginal_loss(part, log_q)

    def marginal_loss(self, part: OrderedBatch, log_q: Tensor) -> Tensor:
        """Error of the marginal head on the first `cut` spins of some states; wanted are sums of log q (n, N)."""
        shown = np.arange(0, len(part.cut), MARGINAL_EVERY)
        member, (own, which) = part.member[shown], np.unique(part.member[shown], return_inverse=True)
        known = torch.from_numpy(part.rank[shown] < part.cut[shown, None]).to(part.spins.device)
        where = torch.from_numpy(shown).to(part.spins.device)
        wanted = (log_q[where] * known).sum(1)
        partial = part.spins[where] * known
        spins = torch.cat([partial, torch.zeros_like(partial[: len(own)])])  # and of each member nothing known
        member = np.concatenate([member, own])
        odds = self._of_members(member, lambda one, rows: one.prior_given(spins[rows]))
        found = self.sampler.marginal_with(spins, odds, self._conditions(member))
        nothing = found[len(shown) :][torch.from_numpy(which).to(found.device)]
        error = found[: len(shown)] - nothing - wanted
        return MARGINAL_WEIGHT * functional.smooth_l1_loss(error, torch.zeros_like(error), reduction="sum")

    def _of_members(self, member: np.ndarray, of: Callable[[AnyOrderSampler, np.ndarray], Tensor]) -> Tensor:
        """(n, N) float32 from what each member says of its rows."""
        found = torch.empty(len(member), self.sampler.tokens.n_spins, device=self.sampler.device)
        for m in np.unique(member):
            rows = np.flatnonzero(member == m)
            found[torch.from_numpy(rows).to(found.device)] = of(self.members[m], rows)
        return found

    def _conditions(self, member: np.ndarray) -> Tensor | None:
        """(n, C) of states of these members."""
        if self.sampler.condition is None:
            return None
        return torch.stack([one.condition for one in self.members])[torch.from_numpy(member).to(self.sampler.device)]

    def loss_of_subsets(
        self, sampler: AnyOrderSampler, spins: Tensor, labels: Tensor, rank: np.ndarray, cut: np.ndarray
    ) -> Tensor:
        """For networks that see one subset a pass: d spins are known, d random, and all others are asked.

        Weighted N / (N - d), which makes it an unbiased sum over d; the marginal is fitted by self-consistency, one
        more spin at a time.
        """
        n_spins = spins.shape[1]
        place = torch.from_numpy(rank.astype(np.int64)).to(spins.device)
        known = torch.from_numpy(cut - 1).to(spins.device)[:, None]
        partial = spins * (place < known)
        odds = sampler.odds_given(partial)
        own = torch.from_numpy((rank == sampler.rank).all(axis=1)).to(spins.device)[:, None]
        asked = torch.where(own, (place == known) * float(n_spins), (place >= known) * (n_spins / (n_spins - known)))
        loss = (asked * (functional.softplus(odds) - labels * odds)).sum(dtype=torch.float64)
        step = (functional.logsigmoid(odds.detach() * spins).double() * (place == known)).sum(1)
        error = sampler.marginal_of(spins * (place <= known)) - sampler.marginal_of(partial) - step
        return loss + MARGINAL_WEIGHT * n_spins * functional.smooth_l1_loss(
            error, torch.zeros_like(error), reduction="sum"
        )


def soft_labels(sampler: AnyOrderSampler, states: np.ndarray) -> np.ndarray:
    """p(s_i = +1 | all other spins) (n, N) float32 of states (n, N)."""
    odds = 2.0 * sampler.beta * sampler.fields.given(states)
    return (1.0 / (1.0 + np.exp(-odds))).astype(np.float32)
