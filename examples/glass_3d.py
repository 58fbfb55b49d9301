"""The three-dimensional Edwards-Anderson glass: energies of single samples, and the transition from xi/L.

Parallel tempering with two replicas. Energies of 3 x 3 x 3 (and 4 x 4 x 4) samples are compared with exact ones, and
the correlation lengths of the overlap in units of L, averaged over disorder samples, cross near T_c: 1.102(3) for
couplings +-J (Baity-Jesi et al., Phys. Rev. B 88, 224416 (2013)), 0.951(9) for Gaussian ones (Katzgraber, Korner and
Young, Phys. Rev. B 73, 224432 (2006)). Sizes this small cross somewhat above.

    python examples/glass_3d.py            L = 4, 6, 8, 200 samples each; some minutes
    python examples/glass_3d.py --small    L = 4, 6, 8 samples each
"""

import itertools
import sys

import numpy as np

import mc
from mc.exact import exact
from mc.spin_glass import correlation_length
from mc.statistics import estimate, jackknife
from mc.tempering import TemperingDriver

small = "--small" in sys.argv
sizes, samples, draws = ((4, 6), 8, 200) if small else ((4, 6, 8), 200, 2000)
temperatures = np.linspace(0.9, 2.0, 12)
betas = 1.0 / temperatures


def tempered(J, L, seed, draws, betas=betas, n_chains=1):
    driver = TemperingDriver(
        mc.models.ea3d(L=L, J=J, seed=seed),
        betas,
        n_chains,
        seed=seed,
        thin=10,
        spins_every=0,
        replicas=2,
        houdayer=True,
    )
    driver.warm_up(5 * draws)
    return driver.block(draws).posterior


worst, compared = 0.0, 0
for J in ("bimodal", "gaussian"):
    for L in (3,) if small else (3, 4):
        for seed in (1, 2):
            some = np.array([0.3, 0.6, 0.9, 1.2])
            energy = tempered(J, L, seed, 4000, some, n_chains=4)["energy"].mean(axis=-1)  # over both replicas
            for b, beta in enumerate(some):
                known = exact(mc.models.ea3d(L=L, J=J, seed=seed), beta).energy
                one = estimate(energy[:, :, b])
                worst, compared = max(worst, abs(one.mean - known) / one.error), compared + 1
print(f"energies: largest deviation from the exact values {worst:.1f} errors, of {compared}")
assert worst < 4.5

for J, transition in (("bimodal", 1.102), ("gaussian", 0.951)):
    curves = {}
    print(f"\n{J}: xi/L of the overlap, {samples} samples\n    T " + "".join(f"{f'L = {L}':>16}" for L in sizes))
    for L in sizes:
        q2, mode = np.zeros((samples, len(betas))), np.zeros((samples, len(betas)))
        for sample in range(samples):
            found = tempered(J, L, 1000 * L + sample, draws)
            q2[sample], mode[sample] = (found["overlap"] ** 2).mean((0, 1)), found["overlap_k2"].mean((0, 1))
        curves[L] = [
            jackknife(
                lambda m, L=L: correlation_length(m, L) / L, {"q2": q2[:, b, None], "mode": mode[:, b, None]}, samples
            )
            for b in range(len(betas))
        ]
    for b, T in enumerate(temperatures):
        print(f"{T:6.2f}" + "".join(f"{curves[L][b][0]:10.4f}({curves[L][b][1]:.4f})" for L in sizes))
    for one, two in itertools.pairwise(sizes):
        gap = np.array([b[0] - a[0] for a, b in zip(curves[one], curves[two], strict=True)])
        at = np.flatnonzero(np.sign(gap[:-1]) > np.sign(gap[1:]))
        where = temperatures[at] + gap[at] / (gap[at] - gap[at + 1]) * (temperatures[1] - temperatures[0])
        found = ", ".join(f"{T:.2f}" for T in where) or "nowhere in this range"
        print(f"L = {one} and {two} cross at T = {found} (T_c = {transition})")
