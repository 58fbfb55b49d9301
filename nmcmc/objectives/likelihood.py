"""Likelihood on given configurations: the forward KL divergence, with hard or softened labels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from nmcmc.objectives.base import Batch, StepRandomness
from nmcmc.patch_energy import PatchEnergy, site_rows
from nmcmc.row_labels import row_labels
from nmcmc.sampler import AutoregressiveSampler
from nmcmc.spinwise import corrected, spin_log_odds


class Likelihood:
    """- sum_j ln q(t_j | t_<j) on equilibrium configurations.

    configurations: (n, N) int8 drawn from the target by another sampler. ValueError when there are none. The prior's
    log-odds of samplers that go spin by spin are found once and stored beside them.
    """

    period = 1

    def __init__(self, sampler: AutoregressiveSampler, configurations: np.ndarray | None = None):
        if configurations is None or not len(configurations):
            raise ValueError("this objective learns from configurations; give train.data=CHAIN.h5")
        self.sampler = sampler
        self.configurations = configurations
        self.odds = prior_log_odds(sampler, configurations) if sampler.spinwise else None
        self.labels: Tensor | None = None

    def batch(self, n: int, randomness: StepRandomness) -> Batch:
        chosen = randomness.numpy.integers(len(self.configurations), size=n)
        device = self.sampler.device
        spins = torch.from_numpy(self.configurations[chosen].astype(np.float32)).to(device)
        stored = [None if values is None else values[chosen].to(device) for values in (self.odds, self.labels)]
        return Batch(spins, None, *stored)

    def loss(self, part: Batch) -> Tensor:
        if part.odds is None:
            return -self.sampler.token_log_probs(part.spins).sum()
        spins = self.sampler.to_canonical(part.spins)
        labels = 0.5 + 0.5 * spins[:, self.sampler.prior.sites.view(-1)]
        return label_loss(self.sampler, corrected(self.sampler, part.odds, spins), labels)


class SoftLikelihood(Likelihood):
    """The same with each label replaced by the law of the token, or spin, given more than its past.

    Tokens: given all other spins. Spins: see `nmcmc.row_labels`. Rao-Blackwellised forward KL: these laws average to
    those given the past, so the gradient keeps its mean and loses most of its noise.
    """

    def __init__(self, sampler: AutoregressiveSampler, configurations: np.ndarray | None = None):
        super().__init__(sampler, configurations)
        self.label = label_energy(sampler)
        if sampler.spinwise:
            self.labels = spin_labels(sampler, self.configurations)

    def loss(self, part: Batch) -> Tensor:
        if part.odds is None:
            return soft_label_loss(self.sampler, self.label, part.spins)
        odds = corrected(self.sampler, part.odds, self.sampler.to_canonical(part.spins))
        return label_loss(self.sampler, odds, part.labels)


@torch.no_grad()
def prior_log_odds(sampler: AutoregressiveSampler, configurations: np.ndarray) -> Tensor:
    """Log-odds (n, N) float32 of the prior, in generation order, of states (n, N), on the CPU."""
    found = []
    for start in range(0, len(configurations), sampler.max_batch):
        part = torch.from_numpy(configurations[start : start + sampler.max_batch].astype(np.float32))
        found.append(sampler.prior.log_odds_of(sampler.to_canonical(part.to(sampler.device))).float().cpu())
    return torch.cat(found)


def spin_labels(sampler: AutoregressiveSampler, configurations: np.ndarray) -> Tensor:
    """Soft labels (n, N) float32, in generation order, of states (n, N) brought into the canonical frame."""
    if sampler.canonical:
        configurations = -configurations * configurations[:, sampler.tokens.first_site, None]
    labels = row_labels(sampler.hamiltonian, sampler.beta, configurations)
    return torch.from_numpy(labels[:, sampler.tokens.sites.reshape(-1)])


def label_energy(sampler: AutoregressiveSampler) -> PatchEnergy | None:
    """- beta E of every value of every token given all other spins; None for samplers that go spin by spin."""
    if sampler.spinwise:
        return None
    energy = PatchEnergy(sampler.hamiltonian, sampler.tokens, sampler.beta, around="all")
    return energy.to(sampler.device)


def soft_label_loss(sampler: AutoregressiveSampler, label: PatchEnergy | None, spins: Tensor) -> Tensor:
    """Cross entropy of q with the heat-bath laws of the tokens, summed over states and tokens.

    Spin by spin for samplers that go so, with the laws of `spin_labels`.
    """
    spins = sampler.to_canonical(spins)
    if label is None:
        labels = spin_labels(sampler, spins.to(torch.int8).cpu().numpy()).to(sampler.device)
        return label_loss(sampler, spin_log_odds(sampler, spins), labels)
    tokens = sampler.prior.token_values(spins)
    with torch.no_grad():
        labels = label.of_all(site_rows(spins))
        if sampler.canonical:
            labels[0] = sampler.head.forbid_first_bit_of_label(labels[0])
        prior = sampler.prior.patch_logits_of(spins)
    return sampler.head.cross_entropy(prior, sampler.forward_outputs(tokens), labels)


def label_loss(sampler: AutoregressiveSampler, odds: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of log-odds (n, N) with labels p(+1) (n, N), both in generation order, summed in float64.

    In the canonical frame without its first spin, which is not drawn.
    """
    first = 1 if sampler.canonical else 0
    odds, labels = odds[:, first:], labels[:, first:]
    return (functional.softplus(odds) - labels * odds).sum(dtype=torch.float64)
