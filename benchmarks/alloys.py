"""Monte Carlo of the CuAu alloy beside mchammer (icet): ns a trial, flips and swaps, and their ratio.

    python benchmarks/alloys.py               every row (two minutes); the table and benchmarks/results/alloys.json
    python benchmarks/alloys.py "4x4x8 680"   rows whose name contains one of the words, the others as measured
    python benchmarks/alloys.py --table       the table of what was measured so far

One replica, one thread, CPU time, in one process: both start from the same equilibrated state of the same cell, then
take turns. flips: any composition (mchammer's SemiGrandCanonicalEnsemble); swaps: half of each element (its
CanonicalEnsemble). icet's cluster space of the same cutoffs has the same orbits; its parameters are fitted to our
energies, and random states that the fit has not seen must have equal energies. Its warning of self-interaction means
pairs of sites that meet twice around the cell, which both count twice. At 1200 K our flips take the heat bath (beta
times the typical field is small, see `mc.kernels.metropolis`), hence the lower acceptance; at 680 K phases live
longer than these runs. Ends with exit code 1 where a ratio is below 20.

Angqvist et al., Adv. Theory Simul. 2, 1900015 (2019) describe icet; `pip install icet` where it is missing.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

import mc
from mc.engine import Engine

try:
    import icet
    from ase import Atoms
    from mchammer.calculators import ClusterExpansionCalculator
    from mchammer.ensembles import CanonicalEnsemble, SemiGrandCanonicalEnsemble
except ImportError:
    icet = None

RESULTS = Path(__file__).parent / "results" / "alloys.json"
LATTICE_CONSTANT = 3.8  # angstrom
CUTOFFS = (6.0, 4.5, 4.5)  # of pairs, triples and quadruples, in angstrom
VECTORS = LATTICE_CONSTANT / 2 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])
ELEMENTS = np.array(["Cu", "Au"])  # spin -1, spin +1
SEED = 1
EQUILIBRATION = 20_000  # sweeps
ROUNDS, COUNTED = 5, 2000
OURS, THEIRS = 500_000, 40_000  # trials a round
NEEDED = 20.0  # ratio
FITTED, CHECKED = 200, 50  # random states
EQUAL = 1e-10  # eV a site


@dataclass(frozen=True)
class Row:
    kind: str  # flips or swaps
    cell: str
    temperature: float  # K

    @property
    def name(self) -> str:
        return f"{self.kind} {self.cell} {self.temperature:g} K"


ROWS = [Row(kind, cell, T) for cell in ("4x4x4", "4x4x8") for kind in ("flips", "swaps") for T in (680.0, 1200.0)]


def crystal(cell: str, spins: np.ndarray) -> Atoms:
    """The cell in ASE, atoms numbered as our sites."""
    shape = [int(length) for length in cell.split("x")]
    places = np.stack(np.unravel_index(np.arange(np.prod(shape)), shape), axis=1)
    box = VECTORS * np.array(shape)[:, None]
    return Atoms(list(ELEMENTS[(spins > 0).astype(int)]), positions=places @ VECTORS, cell=box, pbc=True)


def expansion(hamiltonian: mc.Hamiltonian, cell: str) -> icet.ClusterExpansion:
    """icet's cluster expansion with our energies per site; SystemExit where energies of other states differ."""
    space = icet.ClusterSpace(Atoms("Au", cell=VECTORS, pbc=True), list(CUTOFFS), sorted(ELEMENTS))
    random = np.random.default_rng(SEED)
    states = np.where(random.random((FITTED + CHECKED, hamiltonian.n_spins)) < random.random((FITTED + CHECKED, 1)),
                      1, -1)  # fmt: skip
    vectors = np.array([space.get_cluster_vector(crystal(cell, spins)) for spins in states])
    energies = hamiltonian.energy(states) / hamiltonian.n_spins
    parameters = np.linalg.lstsq(vectors[:FITTED], energies[:FITTED], rcond=None)[0]
    worst = np.abs(vectors[FITTED:] @ parameters - energies[FITTED:]).max()
    if worst > EQUAL:
        sys.exit(f"alloys: energies of icet and ours differ by {worst:.2g} eV a site in cell {cell}")
    return icet.ClusterExpansion(space, parameters)


def measured(row: Row) -> dict[str, float | str]:
    """All figures of a row."""
    swaps = row.kind == "swaps"
    hamiltonian = mc.models.alloy(cell=row.cell, composition=0.5 if swaps else None)
    n_spins, beta = hamiltonian.n_spins, 1.0 / (hamiltonian.k_B * row.temperature)
    engine = Engine(hamiltonian, np.array([[beta]]), SEED, (0,), "metropolis")
    start = np.where(np.random.default_rng(SEED).permutation(n_spins) < n_spins // 2, 1, -1)
    engine.set_spins(start.reshape(1, 1, -1))
    sweep, batch = engine.module.sweep, engine.batch
    sweep(batch, 0, EQUILIBRATION, True)
    state = engine.spins()[0, 0]
    calculator = ClusterExpansionCalculator(crystal(row.cell, state), expansion(hamiltonian, row.cell))
    common = {"structure": crystal(row.cell, state), "calculator": calculator, "temperature": row.temperature,
              "boltzmann_constant": hamiltonian.k_B, "random_seed": SEED, "ensemble_data_write_interval": THEIRS,
              "trajectory_write_interval": 10**9}  # fmt: skip
    if swaps:
        rival = CanonicalEnsemble(**common)
    else:
        rival = SemiGrandCanonicalEnsemble(chemical_potentials=dict.fromkeys(ELEMENTS.tolist(), 0.0), **common)
    per_sweep = (n_spins + 1) // 2 if swaps else n_spins
    sweeps = OURS // per_sweep
    ours, theirs, accepted = [], [], 0.0
    for _ in range(ROUNDS):
        clock = time.process_time()
        sweep(batch, 0, sweeps, True)
        ours.append((time.process_time() - clock) / (sweeps * per_sweep))
        clock = time.process_time()
        rival.run(THEIRS)
        theirs.append((time.process_time() - clock) / THEIRS)
    for _ in range(COUNTED):
        sweep(batch, 0, 2, True)
        accepted += batch.flipped[0] / (n_spins * COUNTED)
    ratios = rival.data_container.get("acceptance_ratio")
    return {
        "kernel": engine.kernel,
        "ours_ns": 1e9 * median(ours),
        "mchammer_ns": 1e9 * median(theirs),
        "ratio": median(theirs) / median(ours),
        "accepted": accepted,
        "mchammer_accepted": float(np.mean(ratios[1:])),
        "machine": f"{platform.machine()}, icet {icet.__version__}, one thread",
    }


def table(results: dict[str, dict]) -> str:
    lines = [
        "| row | kernel | ours, ns a trial | mchammer, ns a trial | ratio | accepted | mchammer accepted |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, found in results.items():
        times = f"{found['ours_ns']:.3g} | {found['mchammer_ns']:.3g} | {found['ratio']:.3g}"
        accepted = f"{found['accepted']:.3f} | {found['mchammer_accepted']:.3f}"
        lines.append(f"| {name} | {found['kernel']} | {times} | {accepted} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    known = json.loads(options.results.read_text()) if options.results.exists() else {}
    if not options.table:
        if icet is None:
            sys.exit("alloys: icet is not installed; pip install icet")
        for row in ROWS:
            if not options.words or any(word in row.name for word in options.words):
                known[row.name] = measured(row)
                print(table({row.name: known[row.name]}).splitlines()[-1], flush=True)
                options.results.parent.mkdir(exist_ok=True)
                options.results.write_text(json.dumps(known, indent=1) + "\n")
    print(table(known) if known else "nothing measured yet")
    slow = [name for name, found in known.items() if found["ratio"] < NEEDED]
    if slow:
        sys.exit(f"alloys: less than {NEEDED:g} times as fast as mchammer: {', '.join(slow)}")


if __name__ == "__main__":
    main()
