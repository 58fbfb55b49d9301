"""ESS of the two-dimensional +-J glass at beta = 0.6 and 0.9, several samples, beside a published figure.

Bialas, Korcyl, Stebel, Stefanski and Zapolski, arXiv:2604.27738, figure 6: five samples of 64 x 64 on the torus, a
patch transformer trained for 48 hours each: ESS 0.7 to 0.8 at beta = 0.6, at most 0.3 at beta = 0.9. Here a prior
from physics and no training: the rows still to come as boundary matrix-product states (`prior=boundary-mps`).

    python examples/glass_two_temperatures.py            L = 32 and 64, five samples each; 3 CPU minutes
    python examples/glass_two_temperatures.py --small    L = 16, three samples

The ESS of draws cannot see a mode that is never drawn, but ln <w> would fall short of the exact ln Z (Pfaffians) by
-ln(1 - its weight). Found at L = 64: ESS 0.997 to 0.998 at beta = 0.6, 0.945 to 0.979 at beta = 0.9, 12 and 27 CPU ms
a draw and 3 and 5 s to build; ln Z agrees in all 20 samples together with p = 0.60.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from scipy import stats

import mc
import nmcmc
from mc.exact import exact
from mc.weighted import effective_sample_size, log_mean_weight

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--small", action="store_true", help="L = 16, three samples: seconds")
parser.add_argument("--out", help="file of the figure (default: examples/figures/NAME.png; none with --small)")
parser.add_argument("--seed", type=int, default=1, help="number of the first sample")
options = parser.parse_args()
torch.set_num_threads(1)

SAMPLES, DRAWS = (3, {16: 512}) if options.small else (5, {32: 512, 64: 256})
BONDS = {0.6: 8, 0.9: 12}  # chi of the prior
PUBLISHED = {0.6: (0.7, 0.8), 0.9: (0.0, 0.3)}  # L = 64; "at most" for the colder one

found, deviations = {}, []
print(" L  beta  chi  sample     ESS     ln<w> - ln Z (error)     z   s to build   ms a draw   (CPU)")
for L, draws in DRAWS.items():
    for beta, chi in BONDS.items():
        for seed in range(options.seed, options.seed + SAMPLES):
            glass = mc.models.ea2d(L=L, seed=seed)
            began = time.process_time()
            net = nmcmc.NetSettings(prior="boundary-mps", chi=chi, net="none")
            sampler = nmcmc.build_sampler(glass, beta, net)
            built = time.process_time()
            spins, log_q = sampler.sample(draws, torch.Generator().manual_seed(seed))
            drawn = time.process_time()
            log_weight = -beta * glass.energy(spins) - log_q
            ess, (log_z, error) = effective_sample_size(log_weight), log_mean_weight(log_weight)
            short = log_z - exact(glass, beta).log_z
            found.setdefault((L, beta), []).append(ess)
            deviations.append(short / error)
            print(
                f"{L:2d} {beta:5.1f} {chi:4d} {seed:7d} {ess:7.3f} {short:16.4f} ({error:.4f}) {short / error:9.1f} "
                f"{built - began:12.1f} {1e3 * (drawn - built) / draws:11.1f}", flush=True,
            )  # fmt: skip
            assert ess > PUBLISHED[beta][1]
            assert abs(short) < 4.5 * error + 0.005  # a few hundred draws hardly show the tail of w where ESS is one
p_value = stats.chi2.sf((np.array(deviations) ** 2).sum(), len(deviations))
print(f"ln Z against Pfaffians: chi2 of {len(deviations)} samples has p = {p_value:.2f}")
for beta in BONDS:
    ours = ", ".join(f"{min(found[L, beta]):.3f} to {max(found[L, beta]):.3f} (L = {L})" for L in DRAWS)
    low, high = PUBLISHED[beta]
    published = f"{low} to {high}" if low else f"at most {high}"
    print(f"beta = {beta}: ESS {ours}; published at L = 64: {published}")

out = options.out or (None if options.small else Path(__file__).parent / "figures" / "glass_two_temperatures.png")
try:
    import matplotlib.pyplot as plt
except ImportError:
    print("no figure: matplotlib is missing; pip install 'nmcmc[plot]'")
    out = None
if out:
    plt.rcParams.update({"font.size": 8, "legend.frameon": False, "lines.linewidth": 1.2, "lines.markersize": 4})
    figure, axes = plt.subplots(1, 2, figsize=(178 / 25.4, 60 / 25.4), layout="constrained", sharey=True)
    for ax, beta in zip(axes, BONDS, strict=True):
        ax.axhspan(*PUBLISHED[beta], color="#DDDDDD", label="published, L = 64, 48 h of training")
        for L, color, marker in zip(DRAWS, ("#0072B2", "#D55E00"), "os", strict=False):
            sample = np.arange(options.seed, options.seed + SAMPLES)
            ax.plot(sample, found[L, beta], marker, color=color, label=f"L = {L}, no training")
        ax.set(xlabel="sample", ylim=(0, 1.05), title=rf"$\pm J$ torus, beta = {beta}")
        ax.set_xticks(sample)
    axes[0].set_ylabel("ESS")
    axes[1].legend(loc="center right")
    figure.savefig(out, dpi=200)
    print(f"figure: {out}")
