"""Moves a second of vector spins beside recomputing the energy for each move, O(N^2 D): N = 64, D = 32, one replica.

    python benchmarks/vector_moves.py            the table (a minute)
    python benchmarks/vector_moves.py --write    and benchmarks/results/vector_moves.json
    python benchmarks/vector_moves.py --small    a few moves only, to see that it runs

Rivals make the same small displacements of the same model at the same beta, with normal numbers of the same kernel,
compiled by Numba too, and recompute the energy of all spins for each. `published` does what public code does
(beerch/ST_MCMC,
VectorMC.py): it copies the state, and takes the energies of both states with the product J s by BLAS. `product` keeps
the energy of its state, so that one product a move is enough; `loops` is the same with plain loops. They take turns
by CPU time, one thread, and the median counts. All must find the same energy of one state, and accept the same share
of moves. Heat bath, which draws each spin from its law, has no rival of its own: it stands beside those of the
bilinear energy.

A move under the loss energy takes the products of the displacement with all spins and all targets, 2 N D
multiplications, accepted or not. So `product`, whose N^2 D come from a library that keeps the processor busy, stays
within a factor N / 2 = 32, and normal numbers, roots and accepted moves cost as much again.

Ends with exit code 1 where Metropolis is less than 20 times as fast as `published`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import time
from pathlib import Path
from statistics import median

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when NumPy and SciPy are imported, hence before

import numpy as np
from numba import njit

from mc.kernels import loss_energy, sphere
from mc.kernels.gaussian import FAST, fill_normals
from mc.kernels.random_streams import streams

RESULTS = Path(__file__).parent / "results" / "vector_moves.json"
N, D, BETA, SEED = 64, 32, 1.0, 1
RADIUS = math.sqrt(D / 2 - 1)
STEPS = {"bilinear": 0.38, "loss": 0.27}  # with about 40 % accepted, where the warm-up of the drivers leaves them
ROUNDS = 9
SWEEPS = {"ours": 1000, "loops": 10, "product": 60, "published": 30}  # a round
NEEDED = 20.0  # ratio
ALIKE = 0.05  # shares of accepted moves
SHARES = np.array([1.0, 0.0, 0.0, 0.0])  # displacements only


@njit(fastmath=FAST)
def bilinear_loops(spins, fields, couplings, work):
    energy = 0.0
    for i in range(spins.shape[0]):
        for k in range(spins.shape[1]):
            energy -= fields[i, k] * spins[i, k]
        for j in range(i):
            product = 0.0
            for k in range(spins.shape[1]):
                product += spins[i, k] * spins[j, k]
            energy -= couplings[i, j] * product
    return energy


@njit(fastmath=FAST)
def bilinear_product(spins, fields, couplings, work):
    np.dot(couplings, spins, work)
    energy = 0.0
    for i in range(spins.shape[0]):
        for k in range(spins.shape[1]):
            energy -= spins[i, k] * (0.5 * work[i, k] + fields[i, k])
    return energy


@njit(fastmath=FAST)
def squared_distances(spins, targets):
    """Twice the loss energy, with targets f."""
    total = 0.0
    for i in range(spins.shape[0]):
        square, along, length = 0.0, 0.0, 0.0
        for k in range(spins.shape[1]):
            square += targets[i, k] * targets[i, k]
            along += targets[i, k] * spins[i, k]
            length += spins[i, k] * spins[i, k]
        total += length + RADIUS * RADIUS - 2.0 * RADIUS * along / math.sqrt(square)
    return total


@njit(fastmath=FAST)
def loss_loops(spins, fields, couplings, work):
    for i in range(spins.shape[0]):
        for k in range(spins.shape[1]):
            work[i, k] = fields[i, k]
        for j in range(spins.shape[0]):
            for k in range(spins.shape[1]):
                work[i, k] += couplings[i, j] * spins[j, k]
    return 0.5 * squared_distances(spins, work)


@njit(fastmath=FAST)
def loss_product(spins, fields, couplings, work):
    np.dot(couplings, spins, work)
    for i in range(spins.shape[0]):
        for k in range(spins.shape[1]):
            work[i, k] += fields[i, k]
    return 0.5 * squared_distances(spins, work)


def rival(energy_of, fixed_norm):
    """A function that runs sweeps with one energy function; returns the share of accepted moves."""

    def run(spins, fields, couplings, work, step, state, sweeps):
        energy, accepted, new = energy_of(spins, fields, couplings, work), 0, np.empty(D)
        for _ in range(sweeps):
            for site in range(N):
                kept = spins[site].copy()
                fill_normals(new, state)
                new = kept + step * new
                if fixed_norm:
                    new *= RADIUS / math.sqrt(np.sum(new * new))
                spins[site] = new
                proposed = energy_of(spins, fields, couplings, work)
                if sphere.accepts(BETA * (proposed - energy), state):
                    energy = proposed
                    accepted += 1
                else:
                    spins[site] = kept
        return accepted / (sweeps * N)

    return njit(run)


def published(energy_of, fixed_norm):
    """The same, with both energies anew for each move, and the state copied."""

    @njit
    def run(spins, fields, couplings, work, step, state, sweeps):
        accepted, noise = 0, np.empty(D)
        for _ in range(sweeps):
            for site in range(N):
                new = spins.copy()
                fill_normals(noise, state)
                new[site] += step * noise
                if fixed_norm:
                    new[site] *= RADIUS / math.sqrt(np.sum(new[site] * new[site]))
                change = energy_of(new, fields, couplings, work) - energy_of(spins, fields, couplings, work)
                if sphere.accepts(BETA * change, state):
                    spins[:] = new
                    accepted += 1
        return accepted / (sweeps * N)

    return run


@njit
def ours(spins, local, couplings, step, state, scratch, sweeps, form):
    """Sweeps of the kernels: form 0 bilinear, 1 loss, 2 heat bath; returns the share of accepted moves."""
    accepted = 0
    for _ in range(sweeps):
        if form == 0:
            counts = sphere.metropolis_sweep(spins, local, couplings, BETA, RADIUS, step, SHARES, state, scratch)
            accepted += counts[1]
        elif form == 1:
            counts = loss_energy.metropolis_sweep(spins, local, couplings, BETA, RADIUS, step, SHARES, state)
            accepted += counts[1]
        else:
            sphere.heatbath_sweep(spins, local, couplings, BETA, RADIUS, state, scratch)
            accepted += N
    return accepted / (sweeps * N)


def model():
    """(fields, J asymmetric with a diagonal, K symmetric): Gaussian, J of variance 1/N, fields of norm R."""
    random = np.random.default_rng(SEED)
    fields = random.normal(size=(N, D))
    fields *= RADIUS / np.linalg.norm(fields, axis=1, keepdims=True)
    couplings = random.normal(size=(N, N)) / math.sqrt(N)
    upper = np.triu(couplings, 1)
    return fields, couplings, upper + upper.T


def measured(form, sweeps, equilibration):
    """moves a second of all contenders of an energy, and shares accepted, by name."""
    fields, couplings, exchange = model()
    loss = form == "loss"
    matrix = couplings if loss else exchange
    step = STEPS[form]
    loops, product = (loss_loops, loss_product) if loss else (bilinear_loops, bilinear_product)
    # The kernel's step on the sphere is in units of R / sqrt(D).
    rivals = {"loops": rival(loops, not loss), "product": rival(product, not loss),
              "published": published(product, not loss)}  # fmt: skip
    own_step = step if loss else step * math.sqrt(D) / RADIUS
    own_matrix = np.ascontiguousarray(couplings.T) if loss else exchange
    names = ["metropolis", *rivals] + ["heatbath"] * (not loss)
    states = dict(zip(names, streams(SEED, count=len(names)), strict=True))

    spins, scratch = fields.copy(), np.empty(D)
    local = fields + matrix @ spins
    ours(spins, local, own_matrix, own_step, states["metropolis"], scratch, equilibration, int(loss))
    found = {one.__name__: one(spins, fields, matrix, np.empty((N, D))) for one in (loops, product)}
    kernel = loss_energy.loss_energy(spins, local, RADIUS) if loss else sphere.bilinear_energy(spins, fields, local)
    if max(abs(energy - kernel) for energy in found.values()) > 1e-9 * N:
        sys.exit(f"vector_moves: energies of the {form} model differ: {kernel} and {found}")

    own = {name: (spins.copy(), local.copy()) for name in names}
    seconds, accepted = {name: [] for name in names}, {name: [] for name in names}
    for turn in range(ROUNDS + 1):
        for name in names:
            spins, local = own[name]
            kind = {"metropolis": int(loss), "heatbath": 2}.get(name)
            count = sweeps.get(name, sweeps["ours"])
            clock = time.process_time()
            if kind is None:
                share = rivals[name](spins, fields, matrix, local, step, states[name], count)
            else:
                share = ours(spins, local, own_matrix, own_step, states[name], scratch, count, kind)
            clock = time.process_time() - clock
            if turn > 0:  # the first one compiles
                seconds[name].append(clock / (count * N))
                accepted[name].append(share)
    return {name: {"moves_per_second": 1.0 / median(seconds[name]), "accepted": float(np.mean(accepted[name]))}
            for name in names}  # fmt: skip


def rows(sweeps, equilibration):
    """All figures, by row."""
    result = {}
    for form in ("bilinear", "loss"):
        found = measured(form, sweeps, equilibration)
        shares = {name: one["accepted"] for name, one in found.items() if name != "heatbath"}
        if max(shares.values()) - min(shares.values()) > ALIKE and sweeps is SWEEPS:
            sys.exit(f"vector_moves: contenders accept different shares of moves of the {form} model: {shares}")
        speeds = {name: one["moves_per_second"] for name, one in found.items()}
        for name in ("metropolis", "heatbath"):
            if name in found:
                result[f"{name}, {form}"] = {
                    "moves_per_second": speeds[name],
                    "accepted": found[name]["accepted"],
                    "loops": speeds["loops"],
                    "product": speeds["product"],
                    "published": speeds["published"],
                    "ratio": speeds[name] / speeds["published"],
                }
    return result


def table(found):
    lines = [
        f"N = {N}, D = {D}, beta = {BETA:g}, one thread; moves a second",
        "| row | ours | loops | product | published | ratio to published | to product | accepted |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, one in found.items():
        speeds = " | ".join(f"{one[key]:.3g}" for key in ("moves_per_second", "loops", "product", "published"))
        ratios = f"{one['ratio']:.1f} | {one['moves_per_second'] / one['product']:.1f}"
        lines.append(f"| {name} | {speeds} | {ratios} | {one['accepted']:.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    found = rows({"ours": 20, "loops": 1, "product": 2, "published": 1}, 20) if options.small else rows(SWEEPS, 2000)
    print(table(found))
    if options.write and not options.small:
        machine = f"{platform.machine()}, one thread"
        RESULTS.write_text(
            json.dumps({"machine": machine, "N": N, "D": D, "beta": BETA, "rows": found}, indent=1) + "\n"
        )
    slow = [name for name, one in found.items() if name.startswith("metropolis") and one["ratio"] < NEEDED]
    if slow and not options.small:
        sys.exit(f"vector_moves: less than {NEEDED:g} times as fast as the published form: {', '.join(slow)}")


if __name__ == "__main__":
    main()
