"""CuAu through its order-disorder transition: energy, composition, L1_0 order and specific heat over temperature.

Parallel tempering of a cluster expansion of copper and gold (`docs/alloys.md`) in cells of 64 (4x4x4) and 128 atoms
(4x4x8): semi-grand at h = 0, where the composition is free, and canonical at one half. Beside it values of another
program's replica exchange (64 atoms, h = 0), the energy of L1_0, and where CuAu orders in experiment, 683 K.

    python examples/cuau_order.py            90 CPU seconds
    python examples/cuau_order.py --small    few draws: 8 CPU seconds

Found, seed 1: the specific heat is largest at 705.0(4) K with 2.98(2) k_B an atom (64 atoms), at 690.1(2) K with
5.48(2) (128 atoms), and at 734.7(6) K with 3.74(2) (64 atoms, half gold). On curves from histogram reweighting the
parabola is off by at most 0.3 K. Of 24 energies and compositions none is more than 2.8 errors from the other
program's, chi^2 25.7. Gold is rarest near the transition, 0.463 (64 atoms) and 0.470 (128). R-hat is below 1.001.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

import mc
from mc.models.alloy import companions, fixed_variables, x_points
from mc.observables import summarize
from mc.statistics import R_HAT_LIMIT, jackknife
from mc.tempering import TemperingDriver

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--small", action="store_true", help="few draws: seconds")
parser.add_argument("--out", help="file of the figure (default: examples/figures/NAME.png; none with --small)")
parser.add_argument("--seed", type=int, default=1, help="of the random numbers")
options = parser.parse_args()

T = np.array([450, 500, 540, 580, 620, 640, *range(660, 770, 10), 780, 860, 1000, 1200])  # K
CHAINS, THIN = 4, 10
DRAWS, WARMUP = (300, 500) if options.small else (5000, 5000)
SYSTEMS = (("4x4x4", None), ("4x4x8", None), ("4x4x4", 0.5))  # cell, composition
LOWEST = -0.0361824881  # eV an atom: the L1_0 structure
ORDERING = 683.0  # K, experiment
NEAR_TOP = 0.9  # of the largest C: temperatures that the parabola is laid through
folder = Path(__file__).parent.parent / "tests" / "data" / "reference"
reference = np.array(json.loads((folder / "cuau_4x4x4.json").read_text())["values"])
reference = reference[np.isin(reference[:, 0], T)]  # T, formation energy and error, C, x_Au and error


def top(energy, betas, N):
    """Where C / N of energies (chain, draw, beta) is largest and how large: ((K, error), (k_B, error)).

    A parabola through C near its largest value; errors by leaving out each of 64 blocks of the chains.
    """
    C = betas**2 * energy.var(axis=(0, 1))
    largest = int(np.argmax(C))
    near = np.union1d(np.flatnonzero(C / C.max() > NEAR_TOP), np.arange(largest - 1, largest + 2))
    shifted = energy - energy.mean(axis=(0, 1))
    series = {f"{name}{b}": shifted[:, :, b] ** power for b in near for name, power in (("e", 1), ("square", 2))}

    def parabola(means):
        heat = [betas[b] ** 2 * (means[f"square{b}"] - means[f"e{b}"] ** 2) / N for b in near]
        return np.polyfit(T[near] - T[largest], heat, 2)

    def where(means):
        curvature, slope, _ = parabola(means)
        return T[largest] - 0.5 * slope / curvature

    def height(means):
        curvature, slope, middle = parabola(means)
        return middle - 0.25 * slope**2 / curvature

    return jackknife(where, series), jackknife(height, series)


curves, tops = [], []
for cell, composition in SYSTEMS:
    began = time.process_time()
    hamiltonian = mc.models.alloy(cell, composition=composition)
    N, betas = hamiltonian.n_spins, 1.0 / (hamiltonian.k_B * T)
    driver = TemperingDriver(hamiltonian, betas, CHAINS, options.seed, THIN, spins_every=0)
    driver.warm_up(WARMUP)
    found = driver.block(DRAWS).posterior
    for name, (a, b, c) in companions(hamiltonian).items():
        found[name] = a * found["energy"] + b * found["magnetization"] + c
    table = summarize(found, N, betas, fixed=fixed_variables(hamiltonian))
    tops.append(top(found["energy"], betas, N))
    unit = {"formation_energy": N, "heat_capacity": N, "x_Au": 1, "l10": 1}
    curve = {k: np.array([(e.mean, e.error) for e in table[k]]) / n for k, n in unit.items()}
    curves.append(curve)
    kind = "h = 0" if composition is None else f"composition {composition}"
    print(f"\n{cell}, {kind}; seed {options.seed}, {CHAINS} chains, {time.process_time() - began:.0f} CPU s")
    print(f"    T{'E_form/N (eV)':>20}{'x_Au':>17}{'L1_0 order':>17}{'C/N (k_B)':>16}   largest R-hat")
    for row, kelvin in enumerate(T):
        e, x, order, C = (curve[name][row] for name in ("formation_energy", "x_Au", "l10", "heat_capacity"))
        worst = max(table[name][row].r_hat for name in unit if table[name][row].error)
        verdict = "" if worst < R_HAT_LIMIT else "  not converged"
        print(f"{kelvin:5}{e[0]:12.6f}({e[1]:.6f}){x[0]:9.4f}({x[1]:.4f}){order[0]:9.4f}({order[1]:.4f})"
              f"{C[0]:8.3f}({C[1]:.3f}){worst:11.4f}{verdict}")  # fmt: skip
    l10 = hamiltonian.energy(x_points(hamiltonian)[0]) / N
    print(f"lowest energy met {driver.lowest.energy / N:.10f} eV an atom; L1_0 {l10:.10f}, published {LOWEST:.10f}")
    assert abs(l10 - LOWEST) < 1e-9
    assert driver.lowest.energy / N > LOWEST - 1e-9  # nothing lies lower

print(f"\n64 atoms, h = 0, against replica exchange, in errors\n    T{'E_form':>9}{'x_Au':>9}{'C/N':>9}  beside")
at, first = np.searchsorted(T, reference[:, 0]), curves[0]
off = np.stack([
    (first[name][at, 0] - reference[:, k]) / np.hypot(first[name][at, 1], reference[:, k + 1])
    for name, k in (("formation_energy", 1), ("x_Au", 4))
])  # fmt: skip
for row, (e, x) in enumerate(off.T):
    C = first["heat_capacity"][at[row], 0]
    print(f"{reference[row, 0]:5.0f}{e:9.1f}{x:9.1f}{C:9.3f}{reference[row, 3]:8.3f}")
print(f"largest deviation {np.abs(off).max():.1f} errors, of {off.size}; chi^2 {np.sum(off**2):.1f}")
assert np.abs(off).max() < 4.5

print(f"\nwhere C is largest (CuAu orders at {ORDERING:.0f} K)")
for (cell, composition), (where, height) in zip(SYSTEMS, tops, strict=True):
    kind = "h = 0" if composition is None else f"composition {composition}"
    print(f"{cell}, {kind:16} T = {where[0]:.1f}({where[1]:.1f}) K, C/N = {height[0]:.3f}({height[1]:.3f}) k_B")
assert 680 < tops[0][0][0] < 720

out = options.out or (None if options.small else Path(__file__).parent / "figures" / "cuau_order.png")
try:
    import matplotlib.pyplot as plt
except ImportError:
    print("no figure: matplotlib is missing; pip install 'nmcmc[plot]'")
    out = None
if out:
    plt.rcParams.update({"font.size": 8, "legend.frameon": False, "lines.linewidth": 1.2, "lines.markersize": 3})
    figure, axes = plt.subplots(2, 2, figsize=(178 / 25.4, 120 / 25.4), sharex=True, layout="constrained")
    panels = (
        ("formation_energy", "formation energy (eV / atom)", 1),
        ("heat_capacity", "specific heat ($k_B$ / atom)", 3),
        ("l10", "$L1_0$ order", None),
        ("x_Au", "fraction of gold", 4),
    )
    labels = ("64 atoms, h = 0", "128 atoms, h = 0", "64 atoms, half gold")
    for ax, (name, label, column) in zip(axes.flat, panels, strict=True):
        for curve, color, line, run in zip(curves, ("#0072B2", "#D55E00", "#009E73"), "os^", labels, strict=True):
            ax.errorbar(T, *curve[name].T, color=color, marker=line, lw=0.8, label=run)
        if column:
            ax.plot(reference[:, 0], reference[:, column], "kx", ms=5, label="64 atoms, other program")
        ax.axvline(ORDERING, color="0.6", ls=":", label="ordering, experiment")
        ax.set(ylabel=label)
    axes[0, 0].axhline(LOWEST, color="0.6", lw=0.8, label="$L1_0$")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    for ax in axes[1]:
        ax.set(xlabel="T (K)")
    figure.savefig(out, dpi=200)
    print(f"figure: {out}")
