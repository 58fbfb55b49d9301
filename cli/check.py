"""--check: log q on states of a Monte Carlo chain, because draws of q cannot show the modes that q dropped."""

from __future__ import annotations

import math
import time

import numpy as np

from cli.output import Screen, Stopper
from mc.equilibrium import equilibrium_driver
from nmcmc.sampler import Proposal

STATES, CHAINS = 4096, 4
BLOCKS = 32  # in which the states come: how soon Ctrl-C is heard
WARMUP = 1000


def check_on_monte_carlo(
    proposal: Proposal, seconds: float, log_z: float, seed: int, screen: Screen, stop: Stopper
) -> dict[str, float]:
    """log q on equilibrium states of a cluster or tempering chain that runs for about `seconds`.

    ess_mc = Z / <w>_p and kl_forward = <ln p/q>_p. Both see modes that the proposal dropped, which the ESS of its own
    draws cannot. log_z: exact, or the sampler's estimate. NaN when stopped before there are states.
    """
    hamiltonian, beta = proposal.hamiltonian, proposal.beta
    driver, name, row = equilibrium_driver(hamiltonian, beta, seed)
    driver.thin = 1
    driver.warm_up(WARMUP // 2)
    began = time.monotonic()
    driver.warm_up(WARMUP // 2)
    a_sweep = max(time.monotonic() - began, 1e-6) / (WARMUP // 2)
    draws = STATES // CHAINS
    driver.thin = max(1, int(0.8 * seconds / a_sweep / draws))
    spins = []
    for _ in range(BLOCKS):
        if stop.interrupted:
            break
        spins.append(driver.block(draws // BLOCKS).spins[:, :, row])
    if not spins:
        return {"ess_mc": math.nan, "kl_forward": math.nan}
    states = np.concatenate(spins, axis=1).reshape(-1, hamiltonian.n_spins)
    sweeps = len(spins) * draws // BLOCKS * driver.thin
    screen.say(f"check: log q on {len(states)} states of {name}, {CHAINS} chains of {sweeps} sweeps")
    log_ratio = -beta * hamiltonian.energy(states) - proposal.log_prob(states) - log_z  # ln p/q
    top = log_ratio.max()
    log_mean = top + math.log(np.exp(log_ratio - top).mean())
    return {"ess_mc": math.exp(-log_mean), "kl_forward": float(log_ratio.mean())}
