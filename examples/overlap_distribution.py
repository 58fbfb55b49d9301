"""P(|q|) of three-dimensional Edwards-Anderson glasses: neural draws against parallel tempering.

After the test of Zhong et al., arXiv:2606.22984 ("FlashVAN"), and of Del Bono, Ricci-Tersenghi and Zamponi,
arXiv:2510.19544 (global annealing): one Gaussian L = 10 sample at four temperatures from 1.92 to 0.1, seen by eye.
Here L = 4 and 6 at T = 1.92 and 1.11, and a distance with a p-value (`mc.overlap_distance`).

    python examples/overlap_distribution.py            L = 4 and 6; 80 CPU seconds
    python examples/overlap_distribution.py --small    L = 4, fewer states and draws

The belief prior gets a linear residual, fitted to tempering states. Its draws are weighted (nis), or proposals of a
neural Markov chain (nmcmc). Tempering to compare with has random numbers of its own. Much colder, at L = 6 and
T = 0.5, one draw misses modes, and neural moves belong inside tempering (`python benchmarks/overlaps.py`).
Found: four distances of 0.0007 to 0.0031, as large as chance makes them, combined p = 0.53.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from scipy.stats import combine_pvalues

import mc
import nmcmc
from mc.equilibrium import equilibrium_states
from mc.overlap_distance import compare_overlaps, folded, overlap_blocks
from mc.tempering import TemperingDriver
from mc.weighted import effective_sample_size
from mc.weighted_overlaps import pair_overlaps
from nmcmc.linear_training import train_linear
from nmcmc.metropolis import NeuralDriver

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--small", action="store_true", help="L = 4 with fewer states and draws: seconds")
parser.add_argument("--out", help="file of the figure (default: examples/figures/NAME.png; none with --small)")
parser.add_argument("--seed", type=int, default=1, help="of the random numbers; the samples stay")
options = parser.parse_args()
torch.set_num_threads(1)

CHAINS, THIN, WARMUP = 4, 20, 8000
BETAS, WINDOWS = (0.52, 0.9), {4: 32, 6: 12}
STATES = {4: 3000} if options.small else {4: 16_000, 6: 8000}
DRAWS, TEMPERED = (512, 1000) if options.small else (2048, 4000)  # a chain


def neural(hamiltonian, L, beta, seed):
    """P(q) with its blocks, the name of the method, and what its proposals are worth: ESS or acceptance."""
    net = nmcmc.NetSettings(prior="belief", net="linear", window=WINDOWS[L])
    sampler = nmcmc.build_sampler(hamiltonian, beta, net)
    train_linear(sampler, equilibrium_states(hamiltonian, beta, STATES[L], seed)[0], 256, seed)
    if (L, beta) == (4, 0.9):
        driver = NeuralDriver([sampler], CHAINS, seed + 1)
        driver.warm_up(200)
        block = driver.block(2 * DRAWS)
        return pair_overlaps(block.spins[:, :, 0], hamiltonian).blocks, "nmcmc", block.sample_stats["accepted"].mean()
    spins, log_q = sampler.sample(CHAINS * DRAWS, torch.Generator().manual_seed(seed + 1))
    log_weight = (-beta * hamiltonian.energy(spins) - log_q).reshape(CHAINS, DRAWS)
    pairs = pair_overlaps(spins.reshape(CHAINS, DRAWS, -1), hamiltonian, log_weight)
    return pairs.blocks, "nis", effective_sample_size(log_weight)


def tempered(hamiltonian, L, beta, seed):
    """P(q) of plain tempering with two replicas, from betas that exchange a sixth of the time and more."""
    betas = np.linspace(0.1, beta, max(4, round((8 if L == 4 else 12) * beta)))
    driver = TemperingDriver(hamiltonian, betas, CHAINS, seed + 2, thin=THIN, replicas=2, spins_every=0)
    driver.warm_up(WARMUP)
    return overlap_blocks(driver.block(TEMPERED).posterior["overlap"][:, :, -1], hamiltonian.n_spins)


panels, p_values = [], []
print("L    T   method   ESS or acceptance   distance (error)   by chance    p     CPU s: neural, tempering")
for L in STATES:
    hamiltonian = mc.models.ea3d(L=L, J="gaussian", seed=1)
    for beta in BETAS:
        seed = 10_000 * options.seed + 100 * L + 10 * BETAS.index(beta)
        began = time.process_time()
        one, method, worth = neural(hamiltonian, L, beta, seed)
        between = time.process_time()
        other = tempered(hamiltonian, L, beta, seed)
        ended = time.process_time()
        found = compare_overlaps(one, other, seed)
        p_values.append(found.p_value)
        panels.append((L, beta, method, one, other, found))
        print(
            f"{L} {1 / beta:6.2f}  {method:>5} {worth:14.3f} {found.distance:18.4f} ({found.error:.4f}) "
            f"{found.noise:9.4f} {found.p_value:8.2f} {between - began:10.1f} {ended - between:8.1f}"
            + ("" if found.status == "ok" else f"  {found.status}"), flush=True,
        )  # fmt: skip
        assert found.status == "ok"
        assert found.distance < 0.03  # of one: what is drawn is the P(|q|) of tempering, and
combined = combine_pvalues(p_values).pvalue
print(f"combined p = {combined:.2f} of {len(p_values)} comparisons")
assert combined > 1e-3  # within its errors

out = options.out or (None if options.small else Path(__file__).parent / "figures" / "overlap_distribution.png")
try:
    import matplotlib.pyplot as plt
except ImportError:
    print("no figure: matplotlib is missing; pip install 'nmcmc[plot]'")
    out = None
if out:
    plt.rcParams.update({"font.size": 8, "legend.frameon": False, "lines.linewidth": 1.2, "lines.markersize": 3})
    figure, axes = plt.subplots(len(STATES), 2, figsize=(178 / 25.4, 55 / 25.4 * len(STATES)), layout="constrained")
    for ax, (L, beta, method, one, other, found) in zip(np.ravel(axes), panels, strict=True):
        N = L**3
        for run, color, line, label in (
            (other, "#0072B2", "-", "tempering"),
            (one, "#D55E00", "--", method),
        ):
            density = folded(run.probability) * N / 2
            error = np.sqrt((folded(run.pulls) ** 2).sum(axis=0)) * N / 2
            q = 2 * np.arange(len(density)) / N  # N is even: |q| from 0 in steps of 2 / N
            density[0], error[0] = 2 * density[0], 2 * error[0]  # q = 0 has no mirror image
            ax.plot(q, density, color=color, ls=line, label=label)
            ax.fill_between(q, density - error, density + error, color=color, alpha=0.25, lw=0)
        ax.set(xlabel="|q|", ylabel="P(|q|)", xlim=(0, 1), ylim=(0, None))
        ax.set_title(
            f"L = {L}, T = {1 / beta:.2f}: distance {found.distance:.4f}, p = {found.p_value:.2f}", fontsize=8
        )
        ax.legend()
    figure.savefig(out, dpi=200)
    print(f"figure: {out}")
