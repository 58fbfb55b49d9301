"""kill -9 at random instants: nothing committed is lost, and the finished chain is that of an uninterrupted run.

    python benchmarks/kill_test.py --kills 20

Two cases, each killed that often: Neural MCMC with its training, and parallel tempering. A run is killed and called
again in the same folder, five times or until it ends by itself; it is compared, bit for bit, with one that was left
alone, and the next begins in a new folder.
"""

import argparse
import collections
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py

from nmcmc.checkpoint import load_checkpoint

ROOT = Path(__file__).parents[1]
CASES = {
    "nmcmc": ("--mode", "nmcmc", "ising", "L=8", "train.steps=50", "--draws", "2000"),
    "pt": ("--mode", "pt", "ea3d", "L=4", "beta=0.2:1.2:8", "--draws", "8000", "spins.every=20"),
}
KILLS_A_RUN = 5
BEFORE_IT_WRITES = 0.15  # share of the kills that come while the process still starts
TIMEOUT = 300.0


def start(words: tuple[str, ...], folder: Path) -> subprocess.Popen:
    command = [sys.executable, "-u", "-m", "cli.main", "run", *words, "--out", "run.h5"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def left_alone(words: tuple[str, ...], folder: Path) -> tuple[float, float]:
    """An uninterrupted run; seconds until it says where it writes, and from then to its end."""
    began = time.monotonic()
    process = start(words, folder)
    first = process.stdout.readline()
    said = time.monotonic()
    rest = process.communicate(timeout=TIMEOUT)[0]
    if process.returncode != 0 or first != "out: run.h5\n":
        raise SystemExit(f"exit code {process.returncode}\n{first}{rest}")
    return said - began, time.monotonic() - said


def run_until(words: tuple[str, ...], folder: Path, early: float | None, late: float) -> str | None:
    """Start, kill `early` seconds after the start, or `late` seconds after it said where it writes.

    Returns all it said when it ended by itself before, None when it was killed.
    """
    process = start(words, folder)
    said = ""
    if early is None:
        said = process.stdout.readline()
    try:
        said += process.communicate(timeout=late if early is None else early)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return None
    if process.returncode != 0:
        raise SystemExit(f"exit code {process.returncode}\n{said}")
    return said


def inspect(folder: Path, reference: Path) -> tuple[str, int]:
    """What a kill left: the phase it fell into and the draws committed; AssertionError when something is broken."""
    import arviz
    import xarray

    for path in folder.glob("*.pt"):
        load_checkpoint(path)
    path = folder / "run.h5"
    if not path.exists():
        return "before the file", 0
    with h5py.File(path) as file, h5py.File(reference / "run.h5") as whole:
        draws, asked = int(file.attrs["committed_draws"]), int(whole.attrs["committed_draws"])
        complete = bool(file.attrs["complete"])
        for name in (f"{group}/{name}" for group in ("posterior", "sample_stats") for name in file[group]):
            if file[name].ndim > 1:
                assert file[name].shape[1] >= draws
                assert file[name][:, :draws].tobytes() == whole[name][:, :draws].tobytes(), name
    with xarray.open_datatree(path, engine="h5netcdf") as tree:
        assert tree["posterior/energy"].sizes["draw"] >= draws
    data = arviz.from_netcdf(path)
    assert data.posterior["energy"].sizes["draw"] >= draws
    data.close()
    trained = [load_checkpoint(path).training.finished for path in folder.glob("*.pt")]
    if list(reference.glob("*.pt")) and not all(trained or [False]):
        return "training", draws
    if draws < asked:
        return "sampling", draws
    return ("finished" if complete else "results"), draws


def assert_same(folder: Path, reference: Path) -> None:
    """The chain, and the weights if there are any, bit for bit."""
    with h5py.File(folder / "run.h5") as file, h5py.File(reference / "run.h5") as whole:
        assert file.attrs["complete"]
        assert file.attrs["committed_draws"] == whole.attrs["committed_draws"]
        for group in ("posterior", "sample_stats", "configurations"):
            assert set(file[group]) == set(whole[group])
            for name in whole[group]:
                assert file[group][name][()].tobytes() == whole[group][name][()].tobytes(), f"{group}/{name}"
    names = {path.name for path in reference.glob("*.pt")}
    assert names == {path.name for path in folder.glob("*.pt")}
    for name in names:
        mine, theirs = (load_checkpoint(place / name).training for place in (folder, reference))
        for kind in ("weights", "best_weights"):
            a, b = getattr(mine, kind), getattr(theirs, kind)
            assert set(a) == set(b)
            assert all(a[key].numpy().tobytes() == b[key].numpy().tobytes() for key in b), kind
    left = {path.name for path in folder.iterdir()} - names - {"run.h5"}
    assert not left, f"left behind: {sorted(left)}"


def kill_often(words: tuple[str, ...], kills: int, seed: int, root: Path) -> collections.Counter:
    """Kill a run `kills` times in all; how many kills fell into which phase, and how many runs were compared.

    Every second run finds the trained sampler, so that sampling gets its share of the kills.
    """
    instants = random.Random(seed)
    reference, again = root / "reference", root / "again"
    reference.mkdir()
    pace = [left_alone(words, reference)]
    weights = list(reference.glob("*.pt"))
    if weights:
        pace.append(left_alone(words, begin(again, weights)))
        assert_same(again, reference)
    counts: collections.Counter = collections.Counter()
    left, number = kills, 0
    while left > 0:
        trained = number % len(pace)
        folder = begin(root / str(number), weights if trained else [])
        startup, work = pace[trained]
        number += 1
        draws, here = 0, min(left, KILLS_A_RUN)
        while True:
            early, late = None, TIMEOUT
            if here > 0:
                early = instants.uniform(0.0, startup) if instants.random() < BEFORE_IT_WRITES else None
                late = instants.uniform(0.0, work)
            if run_until(words, folder, early, late) is not None:
                break
            phase, now = inspect(folder, reference)
            assert now >= draws, f"{draws} draws were committed, {now} are left"
            draws = now
            counts[phase] += 1
            left, here = left - 1, here - 1
        assert_same(folder, reference)
        counts["runs compared"] += 1
    return counts


def begin(folder: Path, weights: list[Path]) -> Path:
    """A new folder with copies of some checkpoints."""
    folder.mkdir()
    for path in weights:
        shutil.copy(path, folder)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="of each case")
    parser.add_argument("--seed", type=int, default=1, help="of the instants")
    options = parser.parse_args()
    for case, words in CASES.items():
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            counts = kill_often(words, options.kills, options.seed, Path(folder))
        compared = counts.pop("runs compared")
        where = ", ".join(f"{count} {phase}" for phase, count in counts.most_common())
        print(f"{case}: {sum(counts.values())} kills ({where}); {compared} finished runs equal the uninterrupted one "
              f"bit for bit; {time.monotonic() - began:.0f} s", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
