"""What training adds to the belief prior on SK and three-dimensional glasses; one row a target, instance and recipe.

    python benchmarks/spin_glasses.py               every row; the table and benchmarks/results/spin_glasses.json
    python benchmarks/spin_glasses.py sk-64 L4      rows whose name contains one of the words
    python benchmarks/spin_glasses.py --table       the table of what was measured so far
    python benchmarks/spin_glasses.py --small       a quick pass over small sizes, nothing written

ESS and dF = ln Z - <ln w> (nats) from 4096 draws; KLf = <ln p/q> and ess_mc = Z/<w> from 4096 states of tempering
that nothing was fitted to; sigma = (ln<w> - ln Z) in errors, ln Z exact (transfer matrix, enumeration) or, at L = 6
and SK N = 64, along a ladder of tempering from beta = 0, whose error counts too. CPU seconds of one thread: data
(tempering), train (log-odds of the prior, fit or weight updates), ms a draw. error: of the energy from the draws;
classical: of tempering in the same CPU time, all of it included.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
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
from mc.stepping_stone import stepping_stones
from mc.tempering import TemperingDriver
from mc.weighted import effective_sample_size, log_mean_weight, weighted_estimate
from nmcmc.linear_fit import choose_window
from nmcmc.linear_training import ROUNDS, own_states, train_linear
from nmcmc.objectives import OBJECTIVES
from nmcmc.objectives.likelihood import Likelihood
from nmcmc.recipe import NetSettings, build_sampler
from nmcmc.sampler import AutoregressiveSampler
from nmcmc.training import TrainSettings, train

RESULTS = Path(__file__).parent / "results" / "spin_glasses.json"
DRAWS, STATES, AT_ONCE = 4096, 4096, 50_000
CLASSICAL_SECONDS = 10.0
EXACT_SECONDS = 60.0
SEED = 21
COLUMNS = ("ess", "dF", "KLf", "ess_mc", "sigma", "data", "train", "steps", "ms", "error", "classical")
LADDERS: dict[tuple[str, float], tuple[float, float]] = {}  # ln Z and its error, by target
CLASSICAL: dict[tuple[str, float], float] = {}
UNSEEN: dict[tuple[str, float], np.ndarray] = {}


@dataclass(frozen=True)
class Row:
    """states: of tempering to learn from. seconds: CPU time of the training. draws: of the sampler."""

    name: str
    build: Callable[[], mc.Hamiltonian]
    beta: float
    net: NetSettings
    states: int = 0
    seconds: float = 0.0
    objective: str = "soft-likelihood"
    draws: int = DRAWS

    @property
    def recipe(self) -> str:
        prior = self.net.prior
        if self.net.net == "none":
            return prior
        patch = f" {'x'.join(map(str, self.net.patch))}" if self.net.patch else ""
        if self.net.net == "linear":
            source = "states" if self.objective == "soft-likelihood" else "own draws"
            return f"{prior} + linear, {self.states} {source}"
        return f"{prior} + transformer{patch}, {self.objective}, {self.seconds:g} s"


def rows() -> list[Row]:
    """Every row of the table."""
    alone = NetSettings(prior="belief", net="none")
    linear = NetSettings(prior="belief", net="linear")
    found = []
    for N in (20, 24):
        for beta in (0.6, 0.9, 2.0):
            for net, states in ((alone, 0), (linear, 64_000)):
                found.append(Row(f"sk-{N} beta {beta:g}", reference(f"sk_N{N}"), beta, net, states, draws=10**6))
    for seed in (1, 2, 3):
        glass = NetSettings(prior="belief", net="transformer", layers=2)

        def sk(seed: int = seed) -> mc.Hamiltonian:
            return mc.models.sk(N=64, seed=seed)

        for beta in (1.5, 2.0):
            name = f"sk-64 beta {beta:g}/{seed}"
            found += [Row(name, sk, beta, alone), Row(name, sk, beta, linear, 64_000),
                      Row(name, sk, beta, replace(glass, patch=(8,)), 64_000, 60.0)]  # fmt: skip

        def cube(L: int, seed: int = seed) -> Callable[[], mc.Hamiltonian]:
            return lambda: mc.models.ea3d(L=L, seed=seed)

        groups = replace(glass, patch=(2, 2, 2))
        name, model = f"ea3d-L4 beta 0.9/{seed}", cube(4)
        found += [
            Row(name, model, 0.9, alone),
            Row(name, model, 0.9, linear, 64_000),
            Row(name, model, 0.9, groups, 64_000, 40.0),
            Row(name, model, 0.9, linear, 32_000, objective="own"),
        ]
        if seed == 1:
            plain = NetSettings(prior="none", net="transformer", layers=2)
            found += [
                Row(name, model, 0.9, groups, 0, 75.0, "soft-distillation"),
                Row(name, model, 0.9, groups, 0, 50.0, "reverse-kl"),
                Row(name, model, 0.9, plain, 0, 55.0, "reverse-kl"),
            ]
        for beta, states in ((0.5, 40_000), (0.9, 80_000)):
            name, model = f"ea3d-L6 beta {beta:g}/{seed}", cube(6)
            found += [Row(name, model, beta, alone), Row(name, model, beta, replace(linear, patch=(2, 2, 2)), states)]
            if seed == 1:
                found.append(Row(name, model, beta, groups, 40_000, 60.0 if beta < 0.9 else 110.0))
    for kind in ("pm", "gauss"):
        model = reference(f"ea3d_L4_{kind}_openzperxy")
        name = f"ea3d-L4 open z {kind} beta 2"
        found += [Row(name, model, 2.0, alone), Row(name, model, 2.0, linear, 64_000),
                  Row(name, model, 2.0, groups, 64_000, 40.0)]  # fmt: skip
    return found


def small_rows() -> list[Row]:
    """What a quick pass goes through."""
    model = reference("ea3d_L3_pm_per")
    nets = (NetSettings(prior="belief", net="none"), NetSettings(prior="belief", net="linear"),
            NetSettings(prior="belief", layers=1, width=32, patch=(1, 1, 3)))  # fmt: skip
    return [
        Row("ea3d-L3 beta 0.9", model, 0.9, net, 2000 if net.net != "none" else 0, 4.0, draws=512) for net in nets
    ]


def reference(name: str) -> Callable[[], mc.Hamiltonian]:
    """One of the exactly solved instances that the tests have."""
    return lambda: instance(name)


def instance(name: str) -> mc.Hamiltonian:
    folder = Path(__file__).parents[1] / "tests" / "data" / "reference"
    with np.load(folder / "instances" / f"{name}.npz") as archive:
        arrays = dict(archive)
    records = {record["name"]: record for record in json.loads((folder / "values.json").read_text())["instances"]}
    record = records[name]
    lattice = mc.Lattice(tuple(record["dims"]), tuple(record["periodic"])) if len(record["dims"]) > 1 else None
    interactions = {2: (np.stack([arrays["i"], arrays["j"]], 1).astype(int), arrays["J"].astype(float))}
    return mc.Hamiltonian(record["N"], interactions, 0.0, lattice, name, {})


def measured(row: Row, steps: int | None = None) -> dict:
    """All columns of a row."""
    hamiltonian = row.build()
    net = row.net
    if net.net == "linear":
        net = replace(net, window=choose_window(row.states, hamiltonian))
    sampler = build_sampler(hamiltonian, row.beta, net)
    data, training, updates = prepared(row, sampler)
    clock = time.process_time()
    energies, log_q = [], []
    generator = torch.Generator().manual_seed(SEED)
    for start in range(0, row.draws, AT_ONCE):
        spins, some = sampler.sample(min(AT_ONCE, row.draws - start), generator)
        energies.append(hamiltonian.energy(spins))
        log_q.append(some)
    energy, log_q = np.concatenate(energies), np.concatenate(log_q)
    seconds = time.process_time() - clock
    log_weight = -row.beta * energy - log_q
    log_mean, log_error = log_mean_weight(log_weight)
    log_z, log_z_error = log_z_of(row, hamiltonian)
    mean = weighted_estimate(energy, log_weight)
    total = data + training + seconds
    free, exact_free = -log_mean / row.beta, -log_z / row.beta
    return {
        "ess": effective_sample_size(log_weight), "dF": log_z - log_weight.mean(), **on_states(row, sampler, log_z),
        "sigma": (log_mean - log_z) / math.hypot(log_error, log_z_error), "data": data, "train": training,
        "steps": updates, "ms": 1e3 * seconds / row.draws, "error": mean.error / abs(mean.mean),
        "classical": classical_error(row, hamiltonian) / math.sqrt(total),
        "log_z": log_mean, "log_z_error": log_error, "log_z_reference": log_z, "log_z_reference_error": log_z_error,
        "relative_F_error": abs(free / exact_free - 1.0), "relative_F_q": (log_z - log_weight.mean()) / abs(log_z),
        "draws": row.draws, "window": net.window,
    }  # fmt: skip


def prepared(row: Row, sampler: AutoregressiveSampler) -> tuple[float, float, int]:
    """CPU seconds of the data and of the training, and weight updates; the sampler is trained afterwards."""
    if row.net.net == "none":
        return 0.0, 0.0, 0
    data, states = 0.0, None
    if row.states and row.objective == "soft-likelihood":
        clock = time.process_time()
        states, _ = equilibrium_states(sampler.hamiltonian, row.beta, row.states, SEED + 1)
        data = time.process_time() - clock
    clock = time.process_time()
    if row.net.net == "linear":
        for turn in range(1 if states is not None else ROUNDS):
            generator = torch.Generator().manual_seed(SEED + turn)
            train_linear(sampler, own_states(sampler, row.states, generator) if states is None else states, 512, SEED)
        return data, time.process_time() - clock, 0
    kind = OBJECTIVES[row.objective]
    objective = kind(sampler, states) if issubclass(kind, Likelihood) else kind(sampler)
    before = time.process_time() - clock
    settings = TrainSettings(
        objective=row.objective, steps=10**6, learning_rate=2e-3 if row.objective == "reverse-kl" else 3e-3,
        batch=256, clip=5.0, validate_every=200, validation_draws=512,
    )  # fmt: skip
    result = train(sampler, objective, settings, seconds=row.seconds, clock=time.process_time)
    return data, before + result.cpu_seconds, result.step


def on_states(row: Row, sampler: AutoregressiveSampler, log_z: float) -> dict[str, float]:
    """KLf and ess_mc on unseen states of tempering."""
    if (row.name, row.beta) not in UNSEEN:
        UNSEEN.clear()
        states = equilibrium_states(sampler.hamiltonian, row.beta, STATES, SEED + 2, sweeps_between=20)[0]
        UNSEEN[row.name, row.beta] = states
    states = UNSEEN[row.name, row.beta]
    log_ratio = -row.beta * sampler.hamiltonian.energy(states) - sampler.log_prob(states) - log_z
    top = log_ratio.max()
    return {"KLf": log_ratio.mean(), "ess_mc": math.exp(-top) / np.exp(log_ratio - top).mean()}


def log_z_of(row: Row, hamiltonian: mc.Hamiltonian) -> tuple[float, float]:
    """ln Z, exact (error 0) or along a ladder of tempering."""
    key = row.name, row.beta
    if key not in LADDERS:
        LADDERS.clear()
        try:
            if hamiltonian.n_spins > 64:
                raise ExactRefused("a ladder is quicker")
            LADDERS[key] = exact(hamiltonian, row.beta).log_z, 0.0
        except ExactRefused:
            LADDERS[key] = ladder_log_z(hamiltonian, row.beta)
    return LADDERS[key]


def ladder_log_z(hamiltonian: mc.Hamiltonian, beta: float) -> tuple[float, float]:
    driver = TemperingDriver(hamiltonian, np.linspace(0.0, beta, 33), 8, SEED + 3, thin=20, spins_every=0)
    driver.warm_up(20_000)
    energy = driver.block(5000).posterior["energy"]
    found = stepping_stones(energy, driver.betas, hamiltonian.log_states)
    return float(found.log_z[-1]), float(found.error[-1])


def classical_error(row: Row, hamiltonian: mc.Hamiltonian) -> float:
    """Relative error of the energy times root of CPU seconds, of tempering, warm-up included."""
    key = row.name, row.beta
    if key not in CLASSICAL:
        driver, _, place = equilibrium_driver(hamiltonian, row.beta, SEED)
        driver.thin, driver.spins_every = default_thin(driver.engine.kernel), 0
        driver.block(1)  # compiles
        began = time.process_time()
        while time.process_time() - began < 0.2 * CLASSICAL_SECONDS:
            driver.warm_up(16)
        energies = []
        while time.process_time() - began < CLASSICAL_SECONDS:
            energies.append(driver.block(64).posterior["energy"][:, :, place])
        mean = estimate(np.concatenate(energies, 1))
        CLASSICAL[key] = mean.error / abs(mean.mean) * math.sqrt(time.process_time() - began)
    return CLASSICAL[key]


def table(results: dict[str, dict]) -> str:
    lines = ["| target / instance | sampler | " + " | ".join(COLUMNS) + " |", "| --- " * (2 + len(COLUMNS)) + "|"]
    for key, found in results.items():
        cells = ["" if found.get(name) is None else f"{found[name]:.3g}" for name in COLUMNS]
        lines.append(f"| {key} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--again", action="store_true", help="also rows that are measured already")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)

    def known() -> dict[str, dict]:
        return json.loads(options.results.read_text()) if options.results.exists() else {}

    if options.table:
        print(table(known()))
        return
    for row in small_rows() if options.small else sorted(rows(), key=lambda row: row.name):
        key = f"{row.name} | {row.recipe}"
        asked = not options.words or any(word in row.name for word in options.words)
        if not asked or (key in known() and not options.again and not options.small):
            continue
        found = {name: None if isinstance(value, float) and not math.isfinite(value) else value
                 for name, value in measured(row).items()}  # fmt: skip
        found["machine"] = f"{platform.machine()}, torch {torch.__version__}, one thread"
        if not options.small:
            options.results.parent.mkdir(exist_ok=True)
            options.results.write_text(json.dumps(known() | {key: found}, indent=1) + "\n")
        print(table({key: found}).splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
