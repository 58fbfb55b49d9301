"""Vector spins behind the transformer: Monte Carlo against mean field, alignment, autocorrelation and heat capacity.

The instance of N = 64 spins in R^32 with asymmetric couplings and fields of norm R (tests/data/spin_transformer.npz).
First the distance of naive mean field, published TAP and its Onsager form to the magnetisation of kinetic Monte
Carlo; then the alignment with the field over beta, by both estimators: the average of cosines (what the thesis plots
of its Monte Carlo) and the cosine of the average (what mean field knows); last what slows down and where the heat
capacity lies.

    python examples/spin_transformer.py            CPU minutes: see the last line
    python examples/spin_transformer.py --small    few betas and draws: seconds

Thesis: Honkoop, "Statistical Physics of Transformers" (Leiden 2025), figure 4.1 and appendix B.3;
docs/vector-spins.md.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

import mc
from mc.statistics import R_HAT_LIMIT
from mc.vector.alignment import cosine_of_average, mean_square
from mc.vector.driver import VectorDriver
from mc.vector.kinetic import KineticDriver
from mc.vector.mean_field import solve

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--small", action="store_true", help="few betas and draws: seconds")
parser.add_argument("--out", help="file of the figure (default: examples/figures/NAME.png; none with --small)")
parser.add_argument("--seed", type=int, default=1, help="of the random numbers")
options = parser.parse_args()

began = time.process_time()
instance = Path(__file__).parent.parent / "tests" / "data" / "spin_transformer.npz"
stored = json.loads(instance.with_suffix(".json").read_text())  # distances found by another program
METHODS = ("nmf", "tap", "tap_onsager")
CHAINS = 4
DRAWS = 200 if options.small else 2000  # a chain
TABLE = (1.0, 2.0, 5.0) if options.small else (0.1, 0.3, 1.0, 2.0, 5.0)
BETAS = np.logspace(-1, 3, 5 if options.small else 33)


def kinetic(hamiltonian, betas):
    """(driver, block) of the parallel dynamics after its warm-up."""
    driver = KineticDriver(hamiltonian, betas, CHAINS, options.seed, thin=2, spins_every=0, lags=0)
    driver.warm_up(500)
    return driver, driver.block(DRAWS)


def means_of(driver):
    """Time averages (beta, chain, N, D) of the spins of all draws."""
    N, D = driver.hamiltonian.fields.shape
    return np.moveaxis(driver.state()["spin_sums"].reshape(CHAINS, -1, N, D), 1, 0) / DRAWS


print("distance of m to that of kinetic Monte Carlo, rms over spins, in units of R; its own noise in the last column")
print(f"{'J':>11}{'beta':>6}" + "".join(f"{name:>23}" for name in METHODS) + f"{'q of Monte Carlo':>20}{'noise':>8}")
worst = 0.0
for coupling in ("asymmetric", "symmetric"):
    hamiltonian = mc.models.vector(path=instance, coupling=coupling)
    driver, _ = kinetic(hamiltonian, np.array(TABLE))
    for beta, means in zip(TABLE, means_of(driver), strict=True):
        m, R, N = means.mean(axis=0), hamiltonian.radius, hamiltonian.n_spins
        noise = np.sqrt(means.var(axis=0, ddof=1).sum() / CHAINS / N) / R
        row = f"{coupling:>11}{beta:>6g}"
        for method in METHODS:
            found = solve(hamiltonian.fields, hamiltonian.couplings, beta, method)
            distance = np.sqrt(((found.m - m) ** 2).sum() / N) / R
            mark = " " if found.converged else "*"
            row += f"{distance:>9.4f} q {found.q:.4f}{mark:<3}".rjust(23)
            one = next(one for one in stored if (one["coupling"], one["beta"]) == (coupling, beta))
            worst = max(worst, abs(distance - one[method]["rms"]))
            assert found.converged == one[method]["converged"]
        q = mean_square(means, R)
        print(row + f"{q.value:>11.4f}({q.error:.4f}){noise:>8.4f}")
print(f"* did not converge; at most {worst:.4f} from the distances that another program found\n")
assert options.small or worst < 0.02  # the noise of few draws alone is more

hamiltonian = mc.models.vector(path=instance, coupling="asymmetric")
loss = mc.models.vector(path=instance, coupling="asymmetric", energy="loss")
fields, N = hamiltonian.fields, hamiltonian.n_spins
snapshot, averaged, heat, tau = {}, {}, {}, {}  # {curve: (beta, 2): value and error}
apart = {}  # betas at which the chains disagree

driver, block = kinetic(hamiltonian, BETAS)
runs = {"kinetic": (driver, block)}
for name, target, rule in (("equilibrium", hamiltonian, "heatbath"), ("loss energy", loss, "metropolis")):
    driver = VectorDriver(target, BETAS, CHAINS, options.seed, rule, thin=2, spins_every=0)
    driver.warm_up(500 if options.small else 4000)
    runs[name] = (driver, driver.block(DRAWS))
for name, (driver, block) in runs.items():
    found = [mc.statistics.estimate(block.posterior["alignment"][:, :, b], "alignment") for b in range(len(BETAS))]
    snapshot[name] = np.array([(e.mean, e.error) for e in found])
    apart[name] = [f"{beta:.3g}" for e, beta in zip(found, BETAS, strict=True) if not e.r_hat < R_HAT_LIMIT]
    found = [cosine_of_average(means, fields) for means in means_of(driver)]
    averaged[name] = np.array([(e.value, e.error) for e in found])
    if name == "kinetic":
        continue
    for b, beta in enumerate(BETAS):
        table = mc.observables.summarize_one({"energy": block.posterior["energy"][:, :, b]}, N, beta)
        row = table["heat_capacity"].mean / N, table["heat_capacity"].error / N
        heat.setdefault(name, []).append(row)
        tau.setdefault(name, []).append((2 * table["energy"].tau_int, 2 * table["energy"].tau_int_error))

solved = {name: [solve(fields, hamiltonian.couplings, beta, name) for beta in BETAS] for name in METHODS}
A = {name: np.array([one.alignment for one in found]) for name, found in solved.items()}
settled = {name: np.array([one.converged for one in found]) for name, found in solved.items()}

print("alignment with the field, mean over sites of cos(., x_i)")
heads = [*(f"snapshot {name}" for name in runs), *(f"<s> {name}" for name in runs), *METHODS]
print(f"{'beta':>8}" + "".join(f"{head:>22}" for head in heads))
for b, beta in enumerate(BETAS):
    row = "".join(f"{table[name][b, 0]:>22.4f}" for table in (snapshot, averaged) for name in runs)
    row += "".join(f"{A[name][b]:>21.4f}{' ' if settled[name][b] else '*'}" for name in METHODS)
    print(f"{beta:>8.4g}{row}")
print("* did not converge")
for name, betas in apart.items():
    print(f"{name}: chains " + (f"disagree (R-hat) at beta {' '.join(betas)}" if betas else "agree at every beta"))
hot, cold = 0, len(BETAS) - 1
assert averaged["kinetic"][hot, 0] > 0.9 > 0.2 > snapshot["kinetic"][hot, 0]  # the two estimators at high temperature
assert max(abs(t["kinetic"][cold, 0] - A["nmf"][cold]) for t in (snapshot, averaged)) < 0.02  # at low all agree
assert not settled["tap"][cold]

print("\nheat capacity / N and tau_int of the energy (in sweeps)")
print(f"{'beta':>8}" + "".join(f"{name:>34}" for name in heat))
for b, beta in enumerate(BETAS):
    cells = "".join(f"{heat[n][b][0]:>14.3f}({heat[n][b][1]:.3f}){tau[n][b][0]:>11.2f}" for n in heat)
    print(f"{beta:>8.4g}{cells}")

out = options.out or (None if options.small else Path(__file__).parent / "figures" / "spin_transformer.png")
try:
    import matplotlib.pyplot as plt
except ImportError:
    print("no figure: matplotlib is missing; pip install 'nmcmc[plot]'")
    out = None
if out:
    plt.rcParams.update({"font.size": 8, "legend.frameon": False, "lines.linewidth": 1.1, "lines.markersize": 3})
    figure, axes = plt.subplots(2, 2, figsize=(178 / 25.4, 130 / 25.4), sharex=True, layout="constrained")
    colours = {"kinetic": "#0072B2", "equilibrium": "#009E73", "loss energy": "#D55E00"}
    for ax, table, label in (
        (axes[0, 0], snapshot, "average of cosines"),
        (axes[0, 1], averaged, "cosine of the average"),
    ):
        for name, values in table.items():
            ax.errorbar(BETAS, *values.T, color=colours[name], marker="o", label=f"Monte Carlo, {name}")
        for name, style in zip(METHODS, ("k-", "k--", "k:"), strict=True):
            ax.plot(BETAS, A[name], style, lw=0.9, label=name)
        ax.plot(BETAS, np.abs(A["tap"]), "--", color="0.7", lw=0.9, label="|tap|")
        ax.set(title=label, ylim=(-1.05, 1.05), ylabel="alignment with the field")
        for edge in (1.0, 10.0):
            ax.axvline(edge, color="0.85", lw=0.8, zorder=0)
    axes[0, 0].legend(fontsize=6, loc="lower right")
    for name in heat:
        axes[1, 0].errorbar(BETAS, *np.array(heat[name]).T, color=colours[name], marker="o", label=name)
        axes[1, 1].errorbar(BETAS, *np.array(tau[name]).T, color=colours[name], marker="o", label=name)
    axes[1, 0].set(ylabel="heat capacity / N", xscale="log", xlabel=r"$\beta$")
    axes[1, 1].set(ylabel=r"$\tau_{int}$ of the energy (sweeps)", yscale="log", xlabel=r"$\beta$")
    figure.savefig(out, dpi=200)
    print(f"figure: {out}")
print(f"{time.process_time() - began:.0f} CPU s")
