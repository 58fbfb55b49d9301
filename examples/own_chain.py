"""A Markov chain of your own around a trained sampler.

    nmcmc train ising L=8 --checkpoint ising8.pt
    python examples/own_chain.py ising8.pt

Without a checkpoint (and with --small) a sampler of a 4 x 4 lattice is trained first, in a few seconds.
"""

import sys

import numpy as np
import torch

import mc
import nmcmc
from mc.statistics import estimate


def metropolis(p, steps, generator, rng):
    """Independence Metropolis: propose whole states from p, accept on the ratio of weights; energies of one chain."""
    proposals, log_q = p.sample(steps, generator)
    energies = p.hamiltonian.energy(proposals)
    log_weight = -p.beta * energies - log_q
    now, chain, accepted = 0, np.empty(steps), 0
    for step in range(steps):
        if np.log(rng.random()) < log_weight[step] - log_weight[now]:
            now, accepted = step, accepted + 1
        chain[step] = energies[now]
    return chain, accepted / steps


def small_sampler():
    """A sampler of the 4 x 4 lattice at the critical point, trained for fifty steps."""
    from nmcmc.objectives import SelfDistillation
    from nmcmc.training import TrainSettings, train

    hamiltonian = mc.models.ising(L=4)
    p = nmcmc.build_sampler(hamiltonian, mc.models.critical_beta(hamiltonian), nmcmc.NetSettings())
    train(p, SelfDistillation(p), TrainSettings(steps=50))
    return p


files = [word for word in sys.argv[1:] if not word.startswith("--")]
p = nmcmc.load(files[0]) if files else small_sampler()
chains = [metropolis(p, 4000, torch.Generator().manual_seed(s), np.random.default_rng(s)) for s in range(4)]
energy = estimate(np.array([chain for chain, _ in chains]))
print(f"acceptance {np.mean([rate for _, rate in chains]):.3f}, tau_int {energy.tau_int:.2f}")
print(f"<E> = {energy.mean:.3f} +- {energy.error:.3f} at beta = {p.beta:.6f}  (R-hat {energy.r_hat:.4f})")
