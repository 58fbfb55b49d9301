"""The critical point of the square-lattice Ising model: energy and heat capacity over beta, and where curves cross.

Clusters sample tori of several sizes; energies and heat capacities are compared with the exact finite-torus values
(Kaufman, Phys. Rev. 76, 1232 (1949)), and the Binder cumulants and correlation lengths of two sizes cross near
beta_c = ln(1 + sqrt 2) / 2 = 0.4406868. `--small` takes a minute less.
"""

import itertools
import sys

import numpy as np

import mc
from mc.exact import exact
from mc.observables import summarize
from mc.simulate import LocalDriver

small = "--small" in sys.argv
sizes, draws = ((8, 16), 4000) if small else ((8, 16, 32), 20_000)
betas = np.array([0.38, 0.42, 0.43, 0.435, 0.44, 0.445, 0.45, 0.46, 0.50])
critical = 0.5 * np.log(1.0 + np.sqrt(2.0))

binder, ratio, worst = {}, {}, 0.0
for L in sizes:
    hamiltonian = mc.models.ising(L=L)
    driver = LocalDriver(hamiltonian, betas, n_chains=4, seed=L, rule="swendsen-wang", spins_every=0)
    driver.warm_up(200)
    table = summarize(driver.block(draws).posterior, L * L, betas, length=L)
    binder[L] = np.array([e.mean for e in table["binder"]])
    ratio[L] = np.array([e.mean for e in table["xi_over_length"]])
    print(f"L = {L}\n   beta     energy/N      exact     z      C/N     exact     z")
    for b, beta in enumerate(betas):
        known = exact(hamiltonian, beta)
        energy, heat = table["energy"][b], table["heat_capacity"][b]
        z = ((energy.mean - known.energy) / energy.error, (heat.mean - known.heat_capacity) / heat.error)
        worst = max(worst, *map(abs, z))
        e, c = energy.mean / L**2, heat.mean / L**2
        exact_e, exact_c = known.energy / L**2, known.heat_capacity / L**2
        print(f"{beta:7.3f} {e:12.6f} {exact_e:10.6f} {z[0]:5.1f} {c:8.4f} {exact_c:9.4f} {z[1]:5.1f}")


def crossing(one, two):
    """Where the difference of two curves over beta changes sign, by linear interpolation."""
    gap = two - one
    at = np.flatnonzero(np.sign(gap[:-1]) != np.sign(gap[1:]))[0]
    return betas[at] - gap[at] * (betas[at + 1] - betas[at]) / (gap[at + 1] - gap[at])


for one, two in itertools.pairwise(sizes):
    for name, curves in (("Binder", binder), ("xi/L", ratio)):
        found = crossing(curves[one], curves[two])
        print(f"{name:>6} of L = {one} and {two} cross at beta = {found:.4f} (beta_c = {critical:.4f})")
        assert abs(found - critical) < 0.01
print(f"largest deviation from the exact values: {worst:.1f} errors, of {2 * len(betas) * len(sizes)}")
assert worst < 4.5
