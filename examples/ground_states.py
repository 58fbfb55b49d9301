"""Ground states by simulated annealing, of spin glasses whose ground-state energies are known exactly.

The set: two- and three-dimensional Edwards-Anderson glasses, +-J and Gaussian, with and without fields, and
Sherrington-Kirkpatrick glasses of 16 to 144 spins. `--small` takes those up to 64 spins.
"""

import json
import sys
import time
from pathlib import Path

import mc
from mc.annealing import AnnealingDriver, default_schedule

small = "--small" in sys.argv
folder = Path(__file__).parent.parent / "tests" / "data" / "reference"
records = json.loads((folder / "values.json").read_text())["instances"]
wanted = [record for record in records if record["N"] <= (64 if small else 144) and record["E0"] is not None]

missed = []
for record in sorted(wanted, key=lambda record: (record["N"], record["name"])):
    shape = {} if record["name"].startswith("sk") else {"shape": "x".join(map(str, record["dims"]))}
    hamiltonian = mc.models.from_file(path=str(folder / "instances" / f"{record['name']}.npz"), **shape)
    began = time.process_time()
    driver = AnnealingDriver(hamiltonian, default_schedule(hamiltonian), n_chains=1, seed=1, thin=20, spins_every=0)
    lowest, runs, hits = float("inf"), 0, 0
    while lowest > record["E0"] + 1e-9 and runs < 64 * 200:
        energies = driver.block(64).posterior["energy"].min(axis=-1)
        lowest, runs = min(lowest, energies.min()), runs + 64
        hits = int((energies <= record["E0"] + 1e-9).sum())
    found = lowest <= record["E0"] + 1e-9
    missed += [] if found else [record["name"]]
    print(
        f"{record['name']:<32} N {record['N']:>4}  E0 {record['E0']:>14.8f}  lowest {lowest:>14.8f}  "
        f"{hits:>3} of the last 64 runs, {runs:>5} runs, {time.process_time() - began:6.2f} s, {driver.engine.name}"
    )
print(f"found {len(wanted) - len(missed)} of {len(wanted)}" + (f"; missed {', '.join(missed)}" if missed else ""))
assert not missed
