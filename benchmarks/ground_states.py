"""Ground states by variational annealing, beside parallel tempering and simulated annealing: 20 instances a system.

    python benchmarks/ground_states.py              what is missing in benchmarks/results/ground_states.json
    python benchmarks/ground_states.py sk ea3d      systems whose name contains one of the words
    python benchmarks/ground_states.py --table      the table of what was measured so far
    python benchmarks/ground_states.py --small      two instances of two systems, nothing written

Exact ground states: matching for open lattices, else the transfer matrix, whose mean energy at beta = 1e8 is the
lowest energy to all digits; they stay in the results file, as some take ten seconds. Couplings are Gaussian.
Residual: (E - E0) / |E0| of the lowest energy found; `solved` is the share of instances with 0. `local` is
`--mode neural-anneal` with its sweeps, `bare` the same training with local=0, draws of the network alone, by reverse
KL; `then PT` is anneal.last=pt, where a short tempering takes over from the cooled draws. Tempering and simulated
annealing from scratch run until they have the exact energy, at most LIMIT seconds. All seconds are CPU seconds of one
thread, compilation left out; medians over instances.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

import mc
from cli.anneal_run import COLD, LAST_DRAWS
from cli.plan import ANNEALED_BATCH, ANNEALED_RATE, ANNEALED_WINDOW
from mc.annealing import AnnealingDriver, default_schedule
from mc.exact import ExactRefused, exact, ground_state
from mc.tempering import TemperingDriver
from nmcmc.annealing import AnnealSettings, anneal, default_ladder, last_cooling
from nmcmc.recipe import NetSettings, build_sampler
from nmcmc.training import TrainSettings

RESULTS = Path(__file__).parent / "results" / "ground_states.json"
INSTANCES = 20
LIMIT = 3.0  # CPU seconds of tempering and of simulated annealing
EQUAL = 1e-9  # relative
LADDER = 24  # temperatures of the tempering, as of the annealing


@dataclass(frozen=True)
class System:
    """updates: weight updates at each of `steps` temperatures. local: sweeps."""

    name: str
    build: Callable[[int], mc.Hamiltonian]
    steps: int = 24
    updates: int = 1
    local: int = 100
    prior: str = "local"


def ea(L: int, boundary: str) -> Callable[[int], mc.Hamiltonian]:
    return lambda seed: mc.models.ea2d(L=L, seed=seed, J="gaussian", boundary=boundary)


SYSTEMS = (
    System("sk-24", lambda seed: mc.models.sk(N=24, seed=seed)),
    System("ea2d-open-8", ea(8, "open")),
    System("ea2d-open-12", ea(12, "open")),
    System("ea2d-open-16", ea(16, "open")),
    System("ea2d-periodic-8", ea(8, "periodic")),
    System("ea2d-periodic-12", ea(12, "periodic"), local=200),
    System("ea3d-4", lambda seed: mc.models.ea3d(L=4, seed=seed, J="gaussian")),
)


def exact_ground(hamiltonian: mc.Hamiltonian) -> float:
    """The exact lowest energy."""
    try:
        return ground_state(hamiltonian)[0]
    except ExactRefused:
        return exact(hamiltonian, COLD, "transfer-matrix").energy


def neural(system: System, hamiltonian: mc.Hamiltonian, seed: int, local: int) -> tuple[float, float, float, float]:
    """(lowest energy, with last=pt, lowest energy that the network itself drew, CPU seconds but last=pt)."""
    began = time.process_time()
    net = NetSettings(prior=system.prior, net="linear", window=ANNEALED_WINDOW)
    settings = AnnealSettings(default_ladder(hamiltonian, system.steps), 5, system.updates, local)
    training = TrainSettings(
        objective="refined" if local else "reverse-kl", batch=ANNEALED_BATCH, learning_rate=ANNEALED_RATE,
        schedule="constant", warmup=5, seed=seed,
    )  # fmt: skip
    sampler = build_sampler(hamiltonian, settings.betas[-1], net, seed)
    sampler, trained, record = anneal(sampler, net, settings, training)
    drawn, _ = last_cooling(sampler, settings, LAST_DRAWS, seed, record)
    seconds, lowest = time.process_time() - began, record.energy
    if local:
        last_cooling(sampler, replace(settings, last="pt"), LAST_DRAWS, seed, record)
    return lowest, record.energy, min([drawn, *trained.history["lowest"]]), seconds


def tempering(hamiltonian: mc.Hamiltonian, target: float, seed: int) -> tuple[float, float]:
    """(lowest energy, CPU seconds) of parallel tempering until it has the target, 64 replicas or more."""
    betas = np.array(default_ladder(hamiltonian, LADDER))
    driver = TemperingDriver(hamiltonian, betas, 4, seed, thin=10, spins_every=0)
    return _until(driver, target)


def annealing(hamiltonian: mc.Hamiltonian, target: float, seed: int) -> tuple[float, float]:
    """(lowest energy, CPU seconds) of simulated annealing, 64 anneals at once and again, until it has the target."""
    driver = AnnealingDriver(hamiltonian, default_schedule(hamiltonian), 4, seed, thin=20, spins_every=0)
    return _until(driver, target, 16)


def _until(driver, target: float, draws: int = 1) -> tuple[float, float]:
    state = driver.state()
    driver.block(1)  # compiles
    driver.restore(state)
    began = time.process_time()
    while time.process_time() - began < LIMIT:
        driver.block(draws)
        if driver.lowest.energy <= target + EQUAL * abs(target):
            break
    return driver.lowest.energy, time.process_time() - began


def measured(system: System, seed: int, known: dict) -> dict:
    """All of one instance."""
    hamiltonian = system.build(seed)
    ground = known["ground_energy"] if "ground_energy" in known else exact_ground(hamiltonian)

    def residual(energy: float) -> float:
        off = (energy - ground) / abs(ground)
        return 0.0 if abs(off) < EQUAL else off

    lowest, then_pt, drawn, seconds = neural(system, hamiltonian, seed, system.local)
    bare, _, _, bare_seconds = neural(system, hamiltonian, seed, 0)
    pt, pt_seconds = tempering(hamiltonian, ground, seed)
    sa, sa_seconds = annealing(hamiltonian, ground, seed)
    return known | {
        "ground_energy": ground, "local": residual(lowest), "then_pt": residual(then_pt),
        "local_drawn": residual(drawn), "local_seconds": seconds,
        "bare": residual(bare), "bare_seconds": bare_seconds, "pt": residual(pt), "pt_seconds": pt_seconds,
        "sa": residual(sa), "sa_seconds": sa_seconds,
    }  # fmt: skip


def table(results: dict[str, dict]) -> str:
    """One line a system, and in words who wins."""
    lines = [
        "| system | instances | local: solved | then PT | residual, mean | of its draws, median | s "
        "| bare: solved | residual, median | s | PT: solved | s | SA: solved | s | PT faster by |",
        "| --- " * 15 + "|",
    ]
    for system in SYSTEMS:
        rows = [row for key, row in results.items() if key.split("/")[0] == system.name and "local" in row]
        if not rows:
            continue

        def median(name: str, rows: list[dict] = rows) -> float:
            return float(np.median([row[name] for row in rows]))

        def solved(name: str, rows: list[dict] = rows) -> str:
            found = [row.get(name, row["local"]) for row in rows]
            return f"{np.mean(np.array(found) == 0):.2f}"

        faster = median("local_seconds") / max(median("pt_seconds"), 1e-4)
        cells = [
            system.name, len(rows), solved("local"), solved("then_pt"),
            f"{np.mean([row['local'] for row in rows]):.1e}",
            f"{median('local_drawn'):.1e}", f"{median('local_seconds'):.2g}", solved("bare"), f"{median('bare'):.1e}",
            f"{median('bare_seconds'):.2g}", solved("pt"), f"{median('pt_seconds'):.2g}", solved("sa"),
            f"{median('sa_seconds'):.2g}", f"{faster:.0f}",
        ]  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--again", action="store_true", help="also instances that are measured already")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.small:
        systems = [system for system in SYSTEMS if system.name in ("sk-24", "ea2d-open-8")]
        print(table({f"{s.name}/{seed}": measured(s, seed, {}) for s in systems for seed in (1, 2)}))
        return

    def known() -> dict[str, dict]:
        return json.loads(options.results.read_text()) if options.results.exists() else {}

    if not options.table:
        machine = f"{platform.machine()}, torch {torch.__version__}, one thread"
        for system in SYSTEMS:
            if options.words and not any(word in system.name for word in options.words):
                continue
            neural(system, system.build(1), 0, 10)  # compiles
            for seed in range(1, INSTANCES + 1):
                key = f"{system.name}/{seed}"
                before = known().get(key, {})
                if ("then_pt" in before or before.get("local") == 0.0) and not options.again:
                    continue
                found = measured(system, seed, before) | {"machine": machine}
                options.results.parent.mkdir(exist_ok=True)
                options.results.write_text(json.dumps(known() | {key: found}, indent=1) + "\n")
            print(table(known()).splitlines()[-1], flush=True)
    print(table(known()))
    print(
        "Parallel tempering finds the same states in far less time; the network is a demonstration, not a tool, here."
    )


if __name__ == "__main__":
    main()
