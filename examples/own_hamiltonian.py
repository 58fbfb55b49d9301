"""Your own Hamiltonian and your own observable, by parallel tempering and by neural importance sampling.

The model: an Ising magnet with an added four-spin coupling on every plaquette,

    E = - J sum_<ij> s_i s_j - K sum_plaquettes s s s s

and the observable is the mean plaquette. Every sampler of the package takes the same Hamiltonian object.
"""

import sys

import numpy as np
import torch

import mc
import nmcmc
from mc.exact import exact_or_none
from mc.statistics import estimate
from mc.tempering import TemperingDriver
from mc.weighted import log_mean_weight, weighted_estimate
from nmcmc.objectives import SelfDistillation
from nmcmc.training import TrainSettings, train

small = "--small" in sys.argv
L, draws, steps = (4, 2000, 40) if small else (8, 20000, 300)
beta, J, K = 0.35, 1.0, 0.3

lattice = mc.Lattice((L, L), (True, True))
y, x = lattice.coordinates.T
corners = ((0, 0), (0, 1), (1, 0), (1, 1))
plaquettes = np.stack([lattice.site(np.stack([(y + b) % L, (x + a) % L], axis=-1)) for b, a in corners], axis=1)
hamiltonian = mc.Hamiltonian(
    lattice.n_sites,
    [(lattice.bonds, np.full(len(lattice.bonds), J)), (plaquettes, np.full(len(plaquettes), K))],
    lattice=lattice,
    name="plaquette",
)


def mean_plaquette(spins):
    """(..., N) -> (...)."""
    return np.prod(spins[..., plaquettes], axis=-1, dtype=np.float64).mean(axis=-1)


tempering = TemperingDriver(hamiltonian, np.linspace(0.1, beta, 6), n_chains=4)
tempering.warm_up(1000)
block = tempering.block(draws // 4)
classical = estimate(mean_plaquette(block.spins[:, :, -1]))  # (chain, draw) at the last beta
print(f"parallel tempering : <plaquette> = {classical.mean:.5f} +- {classical.error:.5f}")

sampler = nmcmc.build_sampler(hamiltonian, beta, nmcmc.NetSettings())
train(sampler, SelfDistillation(sampler), TrainSettings(steps=steps))
spins, log_q = sampler.sample(draws, torch.Generator().manual_seed(1))
log_weight = -beta * hamiltonian.energy(spins) - log_q
neural = weighted_estimate(mean_plaquette(spins), log_weight)
log_z, error = log_mean_weight(log_weight)
print(f"neural sampling    : <plaquette> = {neural.mean:.5f} +- {neural.error:.5f}, ESS {neural.n_eff / draws:.2f}")
print(f"                     ln Z = {log_z:.4f} +- {error:.4f}")
exact = exact_or_none(hamiltonian, beta)
if exact is not None:
    print(f"exact              : ln Z = {exact.log_z:.4f}")
difference = abs(classical.mean - neural.mean) / np.hypot(classical.error, neural.error)
print(f"the two differ by {difference:.1f} standard errors")
