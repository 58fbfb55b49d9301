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
from nmcmc.spinwise import spin_log_odds


class Likelihood:
    """- sum_j ln q(t_j | t_<j) on equilibrium configurations.

    configurations: (n, N) int8 drawn from the target by another sampler. ValueError when there are none.
    """

    period = 1

    def __init__(self, sampler: AutoregressiveSampler, configurations: np.ndarray | None = None):
        if configurations is None or not len(configurations):
            raise ValueError("this objective learns from configurations; give train.data=CHAIN.h5")
        self.sampler = sampler
        self.configurations = configurations

    def batch(self, n: int, randomness: StepRandomness) -> Batch:
        chosen = self.configurations[randomness.numpy.integers(len(self.configurations), size=n)]
        return Batch(torch.from_numpy(chosen.astype(np.float32)).to(self.sampler.device))

    def loss(self, part: Batch) -> Tensor:
        return -self.sampler.token_log_probs(part.spins).sum()


class SoftLikelihood(Likelihood):
    """The same with each label replaced by the heat-bath law of the token given all other spins.

    Rao-Blackwellised forward KL: E[p(a | rest) | past] = p(a | past), so the gradient keeps its mean and loses most
    of its noise.
    """

    def __init__(self, sampler: AutoregressiveSampler, configurations: np.ndarray | None = None):
        super().__init__(sampler, configurations)
        self.label = label_energy(sampler)

    def loss(self, part: Batch) -> Tensor:
        return soft_label_loss(self.sampler, self.label, part.spins)


def label_energy(sampler: AutoregressiveSampler) -> PatchEnergy | None:
    """- beta E of every value of every token given all other spins; None for samplers that go spin by spin."""
    if sampler.spinwise:
        return None
    energy = PatchEnergy(sampler.hamiltonian, sampler.tokens, sampler.beta, around="all")
    return energy.to(sampler.device)


def soft_label_loss(sampler: AutoregressiveSampler, label: PatchEnergy | None, spins: Tensor) -> Tensor:
    """Cross entropy of q with the heat-bath laws of the tokens, summed over states and tokens.

    Spin by spin for samplers that go so: with the laws of the spins given their past in the row and all other rows.
    """
    spins = sampler.to_canonical(spins)
    if label is None:
        return spin_label_loss(sampler, spins)
    tokens = sampler.prior.token_values(spins)
    with torch.no_grad():
        labels = label.of_all(site_rows(spins))
        if sampler.canonical:
            labels[0] = sampler.head.forbid_first_bit_of_label(labels[0])
        prior = sampler.prior.patch_logits_of(spins)
    return sampler.head.cross_entropy(prior, sampler.forward_outputs(tokens), labels)


def spin_label_loss(sampler: AutoregressiveSampler, spins: Tensor) -> Tensor:
    """Cross entropy with `row_labels` of states in the canonical frame, the first spin of that frame left out."""
    labels = row_labels(sampler.hamiltonian, sampler.beta, spins.to(torch.int8).cpu().numpy())
    labels = torch.from_numpy(labels).to(sampler.device)[:, sampler.prior.sites.view(-1)]
    first = 1 if sampler.canonical else 0
    odds = spin_log_odds(sampler, spins)[:, first:]
    return (functional.softplus(odds) - labels[:, first:] * odds).sum(dtype=torch.float64)
