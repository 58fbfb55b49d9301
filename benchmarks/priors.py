"""What each prior is worth, alone and with what is learned on top; one row a target, instance and sampler.

    python benchmarks/priors.py                     every row (hours); the table and benchmarks/results/priors.json
    python benchmarks/priors.py ising-32 sk         rows whose name contains one of the words
    python benchmarks/priors.py --table             the table of what was measured so far
    python benchmarks/priors.py --classical         the last column again, with the Monte Carlo engine of today

ESS and dF = ln Z - <ln w> (reverse KL, nats) from draws of the sampler; KLf = <ln p/q> (forward KL) and ess_mc =
Z/<w> from states of Wolff or parallel tempering, which see modes that draws miss; sigma = (ln<w> - ln Z) in errors,
ln Z exact (Kaufman, Pfaffian) where there is one, else the sampler's own. Seconds are CPU seconds of one thread. The
last two columns: relative error of the energy from the draws, and of the classical method in the same CPU time
(building and fitting included; run for CLASSICAL_SECONDS and scaled by the square root of time).
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

import mc
from cli.options import default_thin
from mc.equilibrium import equilibrium_driver, equilibrium_states
from mc.exact import ExactRefused, exact
from mc.statistics import estimate
from mc.weighted import effective_sample_size, log_mean_weight, weighted_estimate
from nmcmc.block_move import BlockDriver
from nmcmc.linear_fit import choose_window
from nmcmc.linear_training import train_linear
from nmcmc.recipe import NetSettings, build_sampler
from nmcmc.sampler import AutoregressiveSampler

RESULTS = Path(__file__).parent / "results" / "priors.json"
BETA_C = mc.models.critical_beta(mc.models.ising(L=8))
DRAWS, STATES = 4096, 1024
CLASSICAL_SECONDS = 10.0
SEED = 11
COLUMNS = ("ess", "dF", "KLf", "ess_mc", "sigma", "build", "fit", "ms", "MB", "error", "classical")


# Of the present target, so that its samplers are judged alike and it is simulated once.
TARGET_STATES: dict[tuple[str, int], np.ndarray] = {}
CLASSICAL: dict[str, float] = {}


@dataclass(frozen=True)
class Row:
    """states: of the target for a linear fit, 0 for none. moves: of a block chain instead of draws."""

    name: str
    build: Callable[[], mc.Hamiltonian]
    beta: float
    net: NetSettings
    states: int = 0
    draws: int = DRAWS
    moves: int = 0
    sweeps_between: int = 10
    judged: bool = True  # on equilibrium states; not where tempering does not reach equilibrium in minutes


def mps(chi: int, form: str = "two-leg") -> NetSettings:
    return NetSettings(prior="boundary-mps", chi=chi, form=form, net="none")


def ea(L: int, seed: int, J: str = "bimodal", boundary: str = "periodic") -> Callable[[], mc.Hamiltonian]:
    return lambda: mc.models.ea2d(L=L, seed=seed, J=J, boundary=boundary)


def rows() -> list[Row]:
    """Every row of the table; three instances of disorder."""
    belief = NetSettings(prior="belief", net="none")
    found = []
    for L, bonds, draws in ((32, (4, 8), DRAWS), (64, (8, 12), DRAWS), (128, (16,), DRAWS), (180, (16,), DRAWS // 4)):
        found += [Row(f"ising-{L}", lambda L=L: mc.models.ising(L=L), BETA_C, mps(chi), draws=draws) for chi in bonds]
    found += [Row("ising-32", lambda: mc.models.ising(L=32), BETA_C, mps(4), states=16_000)]
    for seed in (1, 2, 3):
        for L, states in ((16, 36_000), (32, 16_000)):
            one_leg = mps(8, "one-leg")
            found += [Row(f"ea-{L}-0.9/{seed}", ea(L, seed), 0.9, one_leg, n) for n in (0, states)]
            found += [Row(f"ea-{L}-0.9/{seed}", ea(L, seed), 0.9, mps(12))]
        found += [Row(f"ea-64-0.6/{seed}", ea(64, seed), 0.6, mps(8))]
        found += [
            Row(f"ea-64-0.9/{seed}", ea(64, seed), 0.9, mps(chi)) for chi in ((8, 12, 16) if seed == 1 else (12,))
        ]
        found += [Row(f"ea-16-2/{seed}", ea(16, seed), 2.0, mps(chi)) for chi in (8, 16, 24)]
        found += [Row(f"ea-16-2/{seed}", ea(16, seed), 2.0, mps(8, "one-leg"), n) for n in (0, 16_000)]
        found += [Row(f"ea-32-2/{seed}", ea(32, seed), 2.0, mps(32))]
        found += [Row(f"ea-32-2-block/{seed}", ea(32, seed), 2.0, mps(16), moves=500 if seed == 1 else 150)]
        found += [Row(f"ea-64-0.9-block/{seed}", ea(64, seed), 0.9, mps(8), moves=100)]
        for J, beta in ((J, beta) for J in ("bimodal", "gaussian") for beta in (0.9, 2.0, 3.0)):
            chi = 8 if beta < 1 else 16 if beta < 3 or J == "bimodal" else 24
            found += [Row(f"ea-64-open-{J}-{beta:g}/{seed}", ea(64, seed, J, "open"), beta, mps(chi), judged=False)]
        for N, beta in ((64, 0.6), (64, 1.0), (256, 0.5)):
            found += [Row(f"sk-{N}-{beta:g}/{seed}", lambda N=N, s=seed: mc.models.sk(N=N, seed=s), beta, belief)]
        for beta in (0.3, 0.5, 0.6):
            cube = Row(f"ea3d-4-{beta:g}/{seed}", lambda s=seed: mc.models.ea3d(L=4, seed=s), beta, belief)
            found += [cube, replace(cube, states=64_000)] if beta > 0.3 else [cube]
    found += [Row("ising-64-block", lambda: mc.models.ising(L=64), BETA_C, mps(8), moves=100)]
    found += [Row("ising-180-block", lambda: mc.models.ising(L=180), BETA_C, mps(8), moves=25)]
    return found


def measured(row: Row) -> dict:
    """All columns of a row."""
    hamiltonian = row.build()
    if row.moves:
        return block(row, hamiltonian)
    clock = time.process_time()
    net = row.net
    if row.states:
        window = net.window or choose_window(row.states, hamiltonian)
        net = replace(net, net="linear", window=window)
    sampler = build_sampler(hamiltonian, row.beta, net)
    build = time.process_time() - clock
    fit = math.nan
    if row.states:
        states, _ = equilibrium_states(hamiltonian, row.beta, row.states, SEED + 1, row.sweeps_between)
        clock = time.process_time()
        train_linear(sampler, states, 1024, SEED)
        fit = time.process_time() - clock
    generator = torch.Generator().manual_seed(SEED)
    clock = time.process_time()
    spins, log_q = sampler.sample(row.draws, generator)
    seconds = time.process_time() - clock
    energy = hamiltonian.energy(spins)
    log_weight = -row.beta * energy - log_q
    log_mean, log_error = log_mean_weight(log_weight)
    log_z, energy_exact = exact_values(hamiltonian, row.beta)
    sigma = (log_mean - log_z) / log_error
    log_z = log_z if math.isfinite(log_z) else log_mean
    mean = weighted_estimate(energy, log_weight)
    total = build + (0.0 if math.isnan(fit) else fit) + seconds
    prior = sampler.prior
    stored = sum(buffer.numel() * buffer.element_size() for buffer in sampler.buffers())
    return {
        "ess": effective_sample_size(log_weight), "dF": log_z - log_weight.mean(), "sigma": sigma,
        **on_states(row, sampler, log_z), "build": build, "fit": fit, "ms": 1e3 * seconds / row.draws,
        "MB": stored / 2**20, "peak_MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "error": mean.error / abs(mean.mean), "classical": classical_error(row, hamiltonian, total),
        "energy": mean.mean, "energy_error": mean.error, "energy_exact": energy_exact,
        "replaced": getattr(prior, "replaced", 0) / max(getattr(prior, "decided", 0), 1),
        "log_z": log_mean, "log_z_error": log_error, "window": net.window,
    }  # fmt: skip


def on_states(row: Row, sampler: AutoregressiveSampler, log_z: float) -> dict[str, float]:
    """KLf and ess_mc on equilibrium states."""
    if not row.judged:
        return {"KLf": math.nan, "ess_mc": math.nan}
    n = STATES if sampler.tokens.n_spins <= 32**2 else STATES // 4
    states = TARGET_STATES.get((row.name, n))
    if states is None:
        states, _ = equilibrium_states(sampler.hamiltonian, row.beta, n, SEED + 2, row.sweeps_between)
        TARGET_STATES.clear()
        TARGET_STATES[row.name, n] = states
    log_ratio = -row.beta * sampler.hamiltonian.energy(states) - sampler.log_prob(states) - log_z
    top = log_ratio.max()
    return {"KLf": log_ratio.mean(), "ess_mc": math.exp(-top) / np.exp(log_ratio - top).mean()}


def exact_values(hamiltonian: mc.Hamiltonian, beta: float) -> tuple[float, float]:
    try:
        found = exact(hamiltonian, beta)
        return found.log_z, found.energy
    except ExactRefused:
        return math.nan, math.nan


def classical_error(row: Row, hamiltonian: mc.Hamiltonian, seconds: float) -> float:
    """Relative error of the energy from Wolff or parallel tempering in `seconds` of CPU time, warm-up included."""
    if row.name not in CLASSICAL:
        driver, _, place = equilibrium_driver(hamiltonian, row.beta, SEED)
        kernel = driver.engine.kernel
        driver.thin, driver.spins_every = 1 if kernel == "clusters" else default_thin(kernel), 0
        driver.block(1)  # compiles
        began = time.process_time()
        while time.process_time() - began < 0.2 * CLASSICAL_SECONDS:
            driver.warm_up(16)
        energies = []
        while time.process_time() - began < CLASSICAL_SECONDS:
            energies.append(driver.block(64).posterior["energy"][:, :, place])
        mean = estimate(np.concatenate(energies, 1))
        CLASSICAL[row.name] = mean.error / abs(mean.mean) * math.sqrt(time.process_time() - began)
    return CLASSICAL[row.name] / math.sqrt(seconds)


def seconds_of(row: Row, found: dict) -> float:
    """CPU seconds that a measured row took: to build, to fit and to draw."""
    if row.moves:
        return 4e-3 * found["ms"] * row.moves
    return found["build"] + (found["fit"] or 0.0) + 1e-3 * found["ms"] * row.draws


def block(row: Row, hamiltonian: mc.Hamiltonian) -> dict:
    """A chain of block moves: acceptance, tau_int of the energy and |m| a move, seconds a move of one chain."""
    driver = BlockDriver(hamiltonian, np.array([row.beta]), 4, SEED, row.net.chi, spins_every=0)
    driver.warm_up(10)
    clock = time.process_time()
    made = driver.block(row.moves)
    seconds = time.process_time() - clock
    energy = estimate(made.posterior["energy"][:, :, 0])
    order = estimate(np.abs(made.posterior["magnetization"][:, :, 0]))
    energy_exact = exact_values(hamiltonian, row.beta)[1]
    return {
        "acceptance": float(made.sample_stats["accepted"].mean()), "tau_energy": energy.tau_int,
        "tau_abs_m": order.tau_int, "ms": 1e3 * seconds / (4 * row.moves), "energy": energy.mean,
        "energy_error": energy.error, "energy_exact": energy_exact,
        "sigma": (energy.mean - energy_exact) / energy.error, "r_hat": energy.r_hat,
        "error": energy.error / abs(energy.mean), "classical": classical_error(row, hamiltonian, seconds),
    }  # fmt: skip


def key_of(row: Row) -> str:
    prior = row.net.prior if row.net.prior != "boundary-mps" else f"{row.net.form} chi={row.net.chi}"
    return f"{row.name} | {'block move, chi=' + str(row.net.chi) if row.moves else prior}" + (
        f" + linear ({row.states} states)" if row.states else "")  # fmt: skip


def table(results: dict[str, dict]) -> str:
    lines = ["| target / instance | sampler | " + " | ".join(COLUMNS) + " |", "| --- " * (2 + len(COLUMNS)) + "|"]
    for key, found in results.items():
        cells = [f"{found[name]:.3g}" if found.get(name) is not None else "" for name in COLUMNS]
        if "acceptance" in found:
            cells[0] = f"acceptance {found['acceptance']:.3f}"
            cells[1] = f"tau_E {found['tau_energy']:.2f}, tau_m {found['tau_abs_m']:.2f} moves"
        lines.append(f"| {key} | " + " | ".join("" if cell == "nan" else cell for cell in cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--classical", action="store_true", help="measure the last column of known rows again")
    parser.add_argument("--again", action="store_true", help="also rows that are measured already")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)

    def known() -> dict[str, dict]:
        return json.loads(options.results.read_text()) if options.results.exists() else {}

    if options.table:
        print(table(known()))
        return
    for row in sorted(rows(), key=lambda row: row.name):  # the samplers of a target together
        asked = not options.words or any(word in row.name for word in options.words)
        if options.classical:
            if asked and key_of(row) in known():
                found = known()[key_of(row)]
                found["classical"] = classical_error(row, row.build(), seconds_of(row, found))
                options.results.write_text(json.dumps(known() | {key_of(row): found}, indent=1) + "\n")
                print(f"{key_of(row)}: {found['error']:.3g}, classical {found['classical']:.3g}", flush=True)
            continue
        if not asked or (key_of(row) in known() and not options.again):
            continue
        found = {name: None if isinstance(value, float) and not math.isfinite(value) else value
                 for name, value in measured(row).items()}  # fmt: skip
        found["machine"] = f"{platform.machine()}, torch {torch.__version__}, one thread"
        options.results.parent.mkdir(exist_ok=True)
        options.results.write_text(json.dumps(known() | {key_of(row): found}, indent=1) + "\n")
        print(table({key_of(row): found}).splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
