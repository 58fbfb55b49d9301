"""The main job with fresh seeds: `nmcmc run --mode nmcmc ising L=8|16 --check`, training included.

    python benchmarks/main_job.py --L 8 16 --seeds 1 2 3

One row a run: CPU seconds of training and sampling, ESS of the proposals, ess_mc (the same judged on Wolff states),
the prior's own ESS, acceptance, tau_int of the energy, its deviation from the exact value in errors; then the row of
a Wolff chain of as many draws. Medians at the end.
"""

import argparse
import contextlib
import io
import json
import statistics
import sys
import tempfile
from pathlib import Path

from cli.main import main as nmcmc


def run(*words: str) -> dict:
    """The JSON object of `nmcmc run` with these words."""
    printed = io.StringIO()
    sys.argv = ["nmcmc", "run", *words, "--json"]
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        nmcmc()
    return json.loads(printed.getvalue().strip().splitlines()[-1])


def row(name: str, result: dict) -> None:
    energy, d, seconds = result["results"][0]["energy"], result["diagnostics"], result["seconds"]
    z = (energy["mean"] - d["energy_exact"]) / energy["error"]
    numbers = [d.get(key, float("nan")) for key in ("ess", "ess_mc", "prior_ess", "acceptance")]
    cells = " ".join(f"{x:8.3f}" for x in (*numbers, energy["tau_int"], z))
    print(f"{name:<18} {seconds['train']:8.1f} {seconds['sample']:8.1f} {cells}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--L", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--draws", type=int, default=10_000)
    parser.add_argument("settings", nargs="*", help="further settings, such as train.steps=300")
    options = parser.parse_intermixed_args()
    print(f"{'run':<18} {'train s':>8} {'sample s':>8}      ESS   ess_mc    prior   accept  tau_int        z")
    for L in options.L:
        found = []
        for seed in options.seeds:
            with tempfile.TemporaryDirectory() as folder:
                common = ["ising", f"L={L}", "--rng-seed", str(seed), "--draws", str(options.draws)]
                out = str(Path(folder) / "neural.h5")
                found.append(run("--mode", "nmcmc", *common, *options.settings, "--check", "--out", out))
                row(f"L={L} nmcmc seed {seed}", found[-1])
                classical = run("--mode", "wolff", *common, "--out", str(Path(folder) / "wolff.h5"))
                row(f"L={L} wolff seed {seed}", classical)
        ess, ess_mc = ([f["diagnostics"][key] for f in found] for key in ("ess", "ess_mc"))
        train = [f["seconds"]["train"] for f in found]
        print(f"L={L}: ESS median {statistics.median(ess):.3f}, worst {min(ess):.3f}, worst ess_mc {min(ess_mc):.3f}")
        print(f"L={L}: training median {statistics.median(train):.0f} CPU s, worst {max(train):.0f}")


if __name__ == "__main__":
    main()
