"""Softened self-distillation: Monte Carlo teaches the sampler, no outside data.

States are drawn from q, moved by a few heat-bath sweeps, by a random symmetry of the Hamiltonian, and then serve as
configurations of the softened likelihood. q = p is a fixed point, since every move leaves p invariant.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mc.kernels.heatbath import sweep
from mc.kernels.local_field import kernel_arrays
from mc.symmetry import LatticeSymmetries
from nmcmc.objectives.base import Batch, StepRandomness, draw_in_parts
from nmcmc.objectives.likelihood import label_energy, soft_label_loss
from nmcmc.sampler import AutoregressiveSampler


class SelfDistillation:
    """sweeps: heat-bath sweeps of each drawn state, before each step that uses it.

    reuse: steps that one draw serves. The later ones move the same states on, by as many sweeps and another random
    symmetry: Monte Carlo is several times cheaper than drawing anew.
    """

    def __init__(self, sampler: AutoregressiveSampler, sweeps: int = 2, reuse: int = 1):
        self.sampler, self.sweeps, self.period = sampler, sweeps, reuse
        self.label = label_energy(sampler)
        self.symmetries = LatticeSymmetries(sampler.hamiltonian)
        self._interactions = kernel_arrays(sampler.hamiltonian.table)
        self._states: np.ndarray | None = None

    def batch(self, n: int, randomness: StepRandomness) -> Batch:
        if randomness.step % self.period == 0 or self._states is None:
            drawn, _ = draw_in_parts(self.sampler, n, randomness)
            self._states = drawn.to(torch.int8).cpu().numpy()
        self._states = self.moved(self._states, randomness.numpy)
        return Batch(torch.from_numpy(self._states.astype(np.float32)).to(self.sampler.device))

    def moved(self, spins: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Heat-bath sweeps and a random symmetry applied to states (n, N)."""
        n = len(spins)
        spins = np.ascontiguousarray(spins)
        streams = rng.integers(1, 2**64, size=(n, 4), dtype=np.uint64)
        betas = np.full(n, self.sampler.beta)
        sweep(spins, np.zeros(n), betas, streams, *self._interactions, self.sweeps)
        if not self.symmetries.trivial:
            spins = np.take_along_axis(spins, self.symmetries.random_sites(n, rng), axis=1)
        return spins

    def loss(self, part: Batch) -> Tensor:
        return soft_label_loss(self.sampler, self.label, part.spins)
