"""Free energies of Sherrington-Kirkpatrick glasses, after Zhong et al., arXiv:2606.22984 ("FlashVAN").

They let F/N at beta = 0.5 tend to -1.5112 at N = 64, 128 and 256, and compare N = 30 with enumeration over beta:
relative errors of 1e-6 to 1e-4. Here ln Z comes from weighted draws of the belief prior, without any training.

    python examples/sk_free_energy.py            24 samples a size, N = 20 over beta; one CPU minute
    python examples/sk_free_energy.py --small    4 samples a size, three betas of N = 20

Above the transition more is known than the limit -ln 2 / beta - beta / 4: ln Z / N differs between samples, with mean
ln 2 + (beta^2 (N - 1) / 4 - v / 2) / N, hence the slope in 1/N, and variance v / N^2, where
v = -(ln(1 - beta^2) + beta^2) / 2 (Aizenman, Lebowitz and Ruelle, Commun. Math. Phys. 112, 3 (1987)). Found:
F/N = -1.5079(9), -1.5100(4), -1.5105(2) at N = 64, 128, 256 (their law: -1.5090, -1.5102, -1.5107), -1.5113(4) at
1/N = 0; the weights have an ESS above 0.999, so that one sample is known to 2e-5. N = 20: deviations of 3e-8 to 4e-5.
"""

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from scipy import stats

import mc
import nmcmc
from mc.exact import exact
from mc.finite_size import fit_limit
from mc.weighted import effective_sample_size, log_mean_weight

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--small", action="store_true", help="fewer samples and draws: seconds")
parser.add_argument(
    "--out", help="file of the figure (default: examples/figures/sk_free_energy.png; none with --small)"
)
parser.add_argument("--seed", type=int, default=1)
options = parser.parse_args()
torch.set_num_threads(1)

BETA, SIZES = 0.5, (64, 128, 256)
SAMPLES, DRAWS = (4, 256) if options.small else (24, 512)
BETAS = (0.3, 0.9, 1.5) if options.small else (0.3, 0.5, 0.7, 0.9, 1.1, 1.3, 1.5, 1.7, 2.0)
DRAWS_OF_20 = 20_000 if options.small else 200_000
PUBLISHED = -1.5112


def log_z_of(hamiltonian, beta, draws, seed):
    """ln Z, its error, and the ESS of the weights."""
    sampler = nmcmc.build_sampler(hamiltonian, beta, nmcmc.NetSettings(prior="belief", net="none"))
    spins, log_q = sampler.sample(draws, torch.Generator().manual_seed(1000 * options.seed + seed))
    log_weight = -beta * hamiltonian.energy(spins) - log_q
    return *log_mean_weight(log_weight), effective_sample_size(log_weight)


limit = -math.log(2.0) / BETA - BETA / 4.0
v = -0.5 * (math.log(1.0 - BETA**2) + BETA**2)
free, predicted, errors = {}, {}, {}
print(
    f"SK, beta = {BETA}: F/N of {SAMPLES} samples\n"
    "   N      mean (error)     predicted   spread  predicted  worst ESS  error of one"
)
for N in SIZES:
    found = [log_z_of(mc.models.sk(N=N, seed=seed), BETA, DRAWS, seed) for seed in range(SAMPLES)]
    log_z, error, ess = np.array(found).T
    free[N] = -log_z / (BETA * N)
    predicted[N] = limit + (BETA**2 / 4 + v / 2) / (BETA * N)
    spread = math.sqrt(v) / (BETA * N)
    errors[N] = spread / math.sqrt(SAMPLES)
    print(
        f"{N:4d}  {free[N].mean():9.5f} ({errors[N]:.5f})  {predicted[N]:9.5f}  {free[N].std(ddof=1):.5f}"
        f"    {spread:.5f}  {ess.min():9.4f}  {error.max() / (BETA * N):.1e}"
    )
    assert ess.min() > 0.9
    assert abs(free[N].mean() - predicted[N]) < 4 * errors[N]
    # The spread of the samples is that of the law, which holds up to O(1/N): chi-square, at a rate of 1e-4.
    chi2 = (SAMPLES - 1) * free[N].var(ddof=1) / spread**2
    assert 5e-5 < stats.chi2.cdf(chi2, SAMPLES - 1) < 1 - 5e-5
fit = fit_limit(SIZES, [free[N].mean() for N in SIZES], [errors[N] for N in SIZES], omega=1.0)
print(f"1/N -> 0: {fit.value:.5f} ({fit.error:.5f}); exact {limit:.5f}, published {PUBLISHED}")
assert abs(fit.value - limit) < 4 * fit.error

glass, rows = mc.models.sk(N=20, seed=options.seed), []
print("N = 20, against enumeration\n beta          F       exact   relative   error     z     ESS")
for k, beta in enumerate(BETAS):
    log_z, error, ess = log_z_of(glass, beta, DRAWS_OF_20, k)
    known = exact(glass, beta).log_z
    rows.append((beta, abs(log_z / known - 1.0), error / known))
    z = (log_z - known) / error
    print(
        f"{beta:5.1f} {-log_z / beta:10.5f} {-known / beta:11.5f}   {rows[-1][1]:.1e}   {rows[-1][2]:.1e} {z:5.1f}"
        f"  {ess:.4f}"
    )
    assert abs(z) < 4.5
assert max(row[1] for row in rows) < 1e-3

out = options.out or (None if options.small else Path(__file__).parent / "figures" / "sk_free_energy.png")
try:
    import matplotlib.pyplot as plt
except ImportError:
    print("no figure: matplotlib is missing; pip install 'nmcmc[plot]'")
    out = None
if out:
    plt.rcParams.update({"font.size": 8, "legend.frameon": False, "lines.linewidth": 1.2, "lines.markersize": 3})
    figure, (left, right) = plt.subplots(1, 2, figsize=(178 / 25.4, 65 / 25.4), layout="constrained")
    line = np.linspace(0.0, 1 / 60, 2)
    for N in SIZES:
        left.plot(np.full(SAMPLES, 1 / N), free[N], "o", color="#56B4E9", ms=2, label="samples" if N == 64 else None)
    means, bars = [free[N].mean() for N in SIZES], [errors[N] for N in SIZES]
    left.errorbar(1 / np.array(SIZES), means, bars, fmt="s", color="#0072B2", capsize=2, label="mean of the samples")
    left.plot(line, limit + (BETA**2 / 4 + v / 2) / BETA * line, "-", color="#000000", label="Aizenman et al.")
    left.plot(0, PUBLISHED, "*", color="#D55E00", ms=7, clip_on=False, label="published limit")
    left.set(xlabel="1/N", ylabel="F/N", title=f"SK, beta = {BETA}", xlim=(0, None))
    left.set_xticks([0, *(1 / N for N in SIZES)], ["0", *(f"1/{N}" for N in SIZES)])
    left.set_ylim(top=limit + 0.03)  # room for the legend
    left.legend(loc="upper left")
    beta, deviation, error = np.array(rows).T
    right.axhspan(1e-6, 1e-4, color="#EEEEEE", label="published, N = 30")
    right.plot(beta, deviation, "s-", color="#0072B2", label="deviation")
    right.plot(beta, error, "^--", color="#D55E00", label="its standard error")
    right.set(yscale="log", xlabel="beta", ylabel="relative error of F", title="N = 20, against enumeration")
    right.legend()
    figure.savefig(out, dpi=200)
    print(f"figure: {out}")
