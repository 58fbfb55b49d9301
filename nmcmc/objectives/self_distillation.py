"""Softened self-distillation: Monte Carlo teaches the sampler, no outside data.

States are drawn from q, moved by a few heat-bath sweeps, by a random symmetry of the Hamiltonian, and then serve as
configurations of the softened likelihood. q = p is a fixed point, since every move leaves p invariant.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mc.kernels.heatbath import sweep
from mc.symmetry import LatticeSymmetries
from nmcmc.objectives.base import Batch, StepRandomness, draw_in_parts
from nmcmc.objectives.likelihood import label_energy, soft_label_loss
from nmcmc.sampler import AutoregressiveSampler


class SelfDistillation:
    """sweeps: heat-bath sweeps of each drawn state."""

    def __init__(self, sampler: AutoregressiveSampler, sweeps: int = 2):
        self.sampler, self.sweeps = sampler, sweeps
        self.label = label_energy(sampler)
        self.symmetries = LatticeSymmetries(sampler.hamiltonian)

    def batch(self, n: int, randomness: StepRandomness) -> Batch:
        drawn, _ = draw_in_parts(self.sampler, n, randomness.torch)
        spins = drawn.to(torch.int8).cpu().numpy()
        spins = self.moved(spins, randomness.numpy)
        return Batch(torch.from_numpy(spins.astype(np.float32)).to(self.sampler.device))

    def moved(self, spins: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Heat-bath sweeps and a random symmetry applied to states (n, N)."""
        n = len(spins)
        spins = np.ascontiguousarray(spins)
        streams = rng.integers(1, 2**64, size=(n, 4), dtype=np.uint64)
        betas = np.full(n, self.sampler.beta)
        sweep(spins, np.zeros(n), betas, streams, *self.sampler.hamiltonian.table, self.sweeps)
        if not self.symmetries.trivial:
            spins = np.take_along_axis(spins, self.symmetries.random_sites(n, rng), axis=1)
        return spins

    def loss(self, part: Batch) -> Tensor:
        return soft_label_loss(self.sampler, self.label, part.spins)
