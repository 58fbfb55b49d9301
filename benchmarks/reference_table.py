"""Energies and ln Z of exactly known instances by parallel tempering and the neural modes, against their errors.

    python benchmarks/reference_table.py pt       every instance with N <= 144, every beta
    python benchmarks/reference_table.py neural   4x4 to 8x8, SK N <= 24, 3D L = 3 and open L = 4, beta = 0.6 and 0.9

Each row is one `nmcmc run` read back from its --json line. Columns: deviation
from the exact value in units of the quoted error (z), and the quoted error relative to the exact value. `--only TEXT`
picks instances, `--folder DIR` keeps the chain files and checkpoints.
"""

import argparse
import contextlib
import io
import json
import sys
import tempfile
from pathlib import Path

from cli.main import main as nmcmc

REFERENCE = Path(__file__).parent.parent / "tests" / "data" / "reference"
LADDER = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.4, 1.6, 1.8, 2.0)


def run(*words: str) -> dict:
    """The JSON object of `nmcmc run` with these words."""
    printed = io.StringIO()
    sys.argv = ["nmcmc", "run", *words, "--json", "--quiet"]
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        nmcmc()
    return json.loads(printed.getvalue().strip().splitlines()[-1])


def model_words(record: dict) -> list[str]:
    """The `file` model of a reference instance."""
    words = ["file", f"path={REFERENCE / 'instances' / (record['name'] + '.npz')}"]
    if not record["name"].startswith("sk"):
        words.append("shape=" + "x".join(map(str, record["dims"])))
    return words


def score(estimate: dict, exact: float) -> tuple[float, float]:
    """(z, relative error); an estimate without an error scores NaN."""
    if estimate["error"] is None:
        return float("nan"), float("nan")
    return (estimate["mean"] - exact) / estimate["error"], abs(estimate["error"] / exact)


def tempering(record: dict, folder: Path, draws: int) -> list[tuple]:
    betas = sorted({value["beta"] for value in record["values"]} | set(LADDER))
    out = folder / f"{record['name']}-pt.h5"
    words = [*model_words(record), "beta=" + ",".join(map(str, betas)), "spins.every=0"]
    result = run(*words, "--mode", "pt", "--draws", str(draws), "--warmup", str(draws // 10), "--out", str(out))
    by_beta = {round(row["beta"], 9): row for row in result["results"]}
    cpu = result["seconds"]["sample"]
    return [
        (record["name"], "pt", value["beta"], *score(by_beta[round(value["beta"], 9)]["energy"], value["U"]), cpu)
        for value in record["values"]
    ]


def neural(record: dict, folder: Path, draws: int, extra: list[str]) -> list[tuple]:
    rows = []
    for value in record["values"]:
        if value["beta"] not in (0.6, 0.9):
            continue
        for mode in ("nis", "nmcmc"):
            out = folder / f"{record['name']}-{value['beta']}-{mode}.h5"
            words = [*model_words(record), f"beta={value['beta']}", "spins.every=0", *extra]
            result = run(*words, "--mode", mode, "--draws", str(draws), "--out", str(out))
            row, diagnostics = result["results"][0], result["diagnostics"]
            z_energy, relative = score(row["energy"], value["U"])
            z_log, relative_log = score(row["log_z"], value["lnZ"])
            ess, prior = diagnostics["ess"], diagnostics["prior_ess"]
            train = result["seconds"]["train"]
            found = (z_energy, relative, z_log, relative_log, ess, prior, train)
            rows.append((record["name"], mode, value["beta"], *found))
    return rows


def suits_neural(record: dict) -> bool:
    name, dims = record["name"], record["dims"]
    if name.startswith("ea3d"):
        return dims[0] == 3 or (dims[0] == 4 and "_open" in name and "zperxy" not in name)
    return name.startswith("sk") or (name.startswith("ea2d") and max(dims) <= 8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("pt", "neural"))
    parser.add_argument("--only", default="")
    parser.add_argument("--draws", type=int, help="draws a chain; by default more for small systems")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("settings", nargs="*", help="settings for the neural runs, such as train.steps=300")
    options = parser.parse_intermixed_args()
    folder = options.folder or Path(tempfile.mkdtemp())
    records = json.loads((REFERENCE / "values.json").read_text())["instances"]
    rows = []
    for record in records:
        if record["N"] > 144 or options.only not in record["name"] or not record["values"]:
            continue
        # The relative width of the energy goes as 1/sqrt(N), and small systems are cheap: they get more draws.
        if options.what == "pt":
            draws = options.draws or min(200_000, max(80_000, 50_000 * 48**2 // record["N"] ** 2))
            new = tempering(record, folder, draws)
        elif suits_neural(record):
            draws = options.draws or min(200_000, 12_500 * 64**2 // record["N"] ** 2)
            new = neural(record, folder, draws, options.settings)
        else:
            continue
        rows += new
        for row in new:
            numbers = " ".join(f"{x:>10.3g}" for x in row[2:])
            print(f"{row[0]:<28} {row[1]:<6} {numbers}", flush=True)
    if options.what == "pt":
        worst_z, worst_error = max(abs(r[3]) for r in rows), max(r[4] for r in rows)
    else:
        worst_z = max(max(abs(r[3]), abs(r[5])) for r in rows)
        worst_error = max(max(r[4], r[6]) for r in rows)
        slowest, smallest = max(row[9] for row in rows), min(row[7] for row in rows)
        print(f"largest training time {slowest:.0f} CPU s, smallest ESS {smallest:.3f}")
    print(f"{len(rows)} rows: largest |z| {worst_z:.2f}, largest relative error {worst_error:.2g}")


if __name__ == "__main__":
    main()
