"""The chain file keeps what it was given, whatever happens to the process, the disk or the other readers."""

import errno
import itertools
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

import mc.chain_lock
import mc.chain_writer
from mc.chain import ChainError, create_chain, open_chain, resume_chain
from mc.chain_layout import chunk_of
from mc.hamiltonian import Hamiltonian
from mc.lattice import Lattice

N_CHAINS, BETAS, N_SPINS = 3, np.array([0.3, 0.44]), 16
POSTERIOR = {
    "energy": ({}, np.float64),
    "overlap": ({"pair": np.array([10, 11, 12])}, np.float32),
    "correlation": ({"pair": np.array([10, 11, 12]), "distance": 2}, np.float64, "dimensionless"),
}
SAMPLE_STATS = {"accepted": ({}, bool), "log_q": ({}, np.float64), "n_swaps": ({}, np.int32)}


def square_lattice() -> Hamiltonian:
    lattice = Lattice((4, 4), (True, True))
    return Hamiltonian(N_SPINS, [(lattice.bonds, np.ones(len(lattice.bonds)))], lattice=lattice, name="ising")


def new_chain(path, **changes):
    settings = {
        "mode": "metropolis",
        "command": "nmcmc run --mode metropolis ising L=4",
        "config": {"L": 4, "beta": BETAS},
        "rng_seed": 7,
        "hamiltonian": square_lattice(),
        "betas": BETAS,
        "n_chains": N_CHAINS,
        "posterior": POSTERIOR,
        "sample_stats": SAMPLE_STATS,
        "spins_every": 3,
    }
    return create_chain(path, **{**settings, **changes})


def draws(first: int, stop: int) -> tuple:
    """The arguments of append for draws first .. stop - 1; what a draw holds depends on its number only."""
    posterior = {name: [] for name in POSTERIOR}
    stats = {name: [] for name in SAMPLE_STATS}
    spins = []
    for draw in range(first, max(stop, first + 1)):  # one too many for an empty block, cut off below
        rng = np.random.default_rng(draw)
        shape = (N_CHAINS, 1, len(BETAS))
        posterior["energy"].append(rng.normal(size=shape))
        posterior["overlap"].append(rng.normal(size=(*shape, 3)).astype(np.float32))
        posterior["correlation"].append(rng.normal(size=(*shape, 3, 2)))
        stats["accepted"].append(rng.random(shape) < 0.5)
        stats["log_q"].append(np.where(rng.random(shape) < 0.1, np.nan, rng.normal(size=shape)))
        stats["n_swaps"].append(rng.integers(0, 1000, shape, dtype=np.int32))
        if draw % 3 == 0 and draw < stop:
            spins.append(rng.choice(np.array([-1, 1], np.int8), (N_CHAINS, 1, len(BETAS), N_SPINS)))
    stored = np.array([draw for draw in range(first, stop) if draw % 3 == 0], dtype=np.int64)
    spins = np.concatenate([np.zeros((N_CHAINS, 0, len(BETAS), N_SPINS), np.int8), *spins], axis=1)
    n_draws = stop - first
    joined = [
        {name: np.concatenate(rows, axis=1)[:, :n_draws] for name, rows in group.items()}
        for group in (posterior, stats)
    ]
    return (*joined, spins, stored)


def assert_holds(path, n_draws: int) -> None:
    """The file at `path` holds exactly the draws 0 .. n_draws - 1."""
    chain = open_chain(path)
    assert chain.n_draws == n_draws
    if n_draws == 0:
        assert all(values.shape[1] == 0 for values in chain.posterior.values())
        return
    posterior, stats, spins, stored = draws(0, n_draws)
    for expected, found in ((posterior, chain.posterior), (stats, chain.sample_stats)):
        assert set(expected) == set(found)
        for name, values in expected.items():
            assert found[name].dtype == values.dtype
            np.testing.assert_array_equal(found[name], values)
    np.testing.assert_array_equal(chain.spins, spins)
    np.testing.assert_array_equal(chain.spin_draws, stored)


def leftovers(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.suffix in (".part", ".lock"))


# --- what goes in comes out -------------------------------------------------------------------------------------


def test_a_chain_returns_what_was_appended(tmp_path):
    path = tmp_path / "run.h5"
    with new_chain(path) as writer:
        assert writer.committed_draws == 0
        assert_holds(path, 0)
        writer.append(*draws(0, 20))
        assert writer.pending_draws == 20
        assert writer.pending_bytes > 0
        assert_holds(path, 0)
        writer.commit()
        assert writer.committed_draws == 20
        assert writer.seconds_of_last_commit > 0
        writer.append(*draws(20, 25))
        writer.commit(complete=True)
        assert writer.complete
    chain = open_chain(path)
    assert_holds(path, 25)
    assert chain.complete
    assert chain.config == {"L": 4, "beta": [0.3, 0.44]}
    assert (chain.mode, chain.n_chains, chain.n_spins, chain.rng_seed) == ("metropolis", N_CHAINS, N_SPINS, 7)
    np.testing.assert_array_equal(chain.betas, BETAS)
    assert "numpy" in chain.attributes["versions"]
    assert chain.posterior["correlation"].shape == (N_CHAINS, 25, 2, 3, 2)
    assert leftovers(tmp_path) == []


def test_the_blocks_a_chain_came_in_leave_no_trace(tmp_path):
    contents = []
    for number, cuts in enumerate(([0, 30], range(31), [0, 7, 20, 30], [0, 0, 23, 23, 30])):
        path = tmp_path / f"{number}.h5"
        with new_chain(path) as writer:
            for first, stop in itertools.pairwise(cuts):
                writer.append(*draws(first, stop))
                if number % 2:
                    writer.commit()
        found = {}
        with h5py.File(path) as file:
            file.visititems(
                lambda name, item, found=found: found.update(
                    {name: item[()]} if isinstance(item, h5py.Dataset) else {}
                )
            )
        contents.append(found)
        assert_holds(path, 30)
    for other in contents[1:]:
        assert set(other) == set(contents[0])
        for name, values in contents[0].items():
            np.testing.assert_array_equal(other[name], values)


def test_a_resumed_chain_goes_on_behind_its_last_draw(tmp_path):
    path = tmp_path / "run.h5"
    with new_chain(path) as writer:
        writer.append(*draws(0, 10))
        writer.commit(complete=True)
    with resume_chain(path) as writer:
        assert (writer.committed_draws, writer.n_chains, writer.complete) == (10, N_CHAINS, True)
        assert writer.config == {"L": 4, "beta": [0.3, 0.44]}
        writer.set_group("diagnostics", {"ess": 0.5})
        writer.commit()
        assert writer.complete  # a late analysis does not reopen the run
        writer.append(*draws(10, 13))
        writer.set_config({"draws": 13}, command="again")
        writer.commit()
        assert not writer.complete
        assert writer.config == {"draws": 13}
    assert_holds(path, 13)
    assert open_chain(path).command == "again"


def test_a_block_that_does_not_fit_is_refused_and_changes_nothing(tmp_path):
    with new_chain(tmp_path / "run.h5") as writer:
        posterior, stats, spins, stored = draws(0, 4)
        wrong = [
            ({**posterior, "extra": posterior["energy"]}, stats, spins, stored, "extra"),
            ({"energy": posterior["energy"]}, stats, spins, stored, "overlap"),
            ({**posterior, "energy": posterior["energy"][:, :3]}, stats, spins, stored, "number of draws"),
            ({**posterior, "energy": posterior["energy"][..., 0]}, stats, spins, stored, "energy"),
            (posterior, {**stats, "n_swaps": stats["n_swaps"] + 0.5}, spins, stored, "float64"),
            (posterior, stats, spins[..., :5], stored, "spins have shape"),
            (posterior, stats, spins * 0, stored, r"\+1 and -1"),
            (posterior, stats, spins, stored + 100, "spin_draws"),
            (posterior, stats, spins, stored[::-1], "spin_draws"),
            (posterior, stats, spins, None, "together"),
        ]
        for *arguments, message in wrong:
            with pytest.raises(ValueError, match=message):
                writer.append(*arguments)
        assert writer.pending_draws == 0


def test_appended_arrays_may_be_used_again(tmp_path):
    with new_chain(tmp_path / "run.h5") as writer:
        posterior, stats, spins, stored = draws(0, 5)
        writer.append(posterior, stats, spins, stored)
        posterior["energy"][:] = 0
        spins[:] = 1
        writer.commit()
    assert_holds(tmp_path / "run.h5", 5)


def test_no_arguments_of_create_are_taken_that_cannot_be_kept(tmp_path):
    path = tmp_path / "run.h5"
    for changes, message in (
        ({"posterior": {"draw": ({}, float)}}, "draw"),
        ({"posterior": {"a": ({"beta": 2}, float)}}, "beta"),
        ({"posterior": {"a": ({"r": 2}, float), "b": ({"r": 3}, float)}}, "'r'"),
        ({"posterior": {"a": ({}, complex)}}, "complex128"),
        ({"betas": np.zeros(0)}, "betas"),
        ({"n_chains": 0}, "n_chains"),
        ({"rng_seed": 2**64}, "64 bits"),
        ({"config": {"x": object()}}, "JSON"),
    ):
        with pytest.raises(ValueError, match=message):
            new_chain(path, **changes)
    assert list(tmp_path.iterdir()) == []


def test_a_chain_without_spins_has_the_axis_with_length_zero(tmp_path):
    path = tmp_path / "run.h5"
    with new_chain(path, spins_every=0) as writer:
        writer.append(*draws(0, 4)[:2])
    chain = open_chain(path)
    assert chain.spins.shape == (N_CHAINS, 0, 2, N_SPINS)
    assert chain.spin_draws.shape == (0,)


# --- sampler state and tables ------------------------------------------------------------------------------------


def test_the_state_in_a_file_belongs_to_its_last_draw(tmp_path):
    path = tmp_path / "run.h5"
    with new_chain(path) as writer:
        assert writer.state() == {}
        writer.append(*draws(0, 4))
        writer.set_state({"generator": b"four\x00\x01", "spins": np.full((N_CHAINS, 5), 4), "beta": np.float64(0.5)})
        writer.append(*draws(4, 9))
        with pytest.raises(ValueError, match="set_state"):
            writer.commit(complete=True)
        writer.commit()  # only as far as a state reaches
        assert (writer.committed_draws, writer.pending_draws) == (4, 5)
        assert_holds(path, 4)
        state = writer.state()
        assert state["generator"] == b"four\x00\x01"
        np.testing.assert_array_equal(state["spins"], np.full((N_CHAINS, 5), 4))
        assert state["beta"] == 0.5
        writer.set_state({"generator": b"nine", "frozen": np.array([True, False])})
        writer.commit()
        state = open_chain(path).state()
        assert set(state) == {"generator", "frozen"}
        assert state["generator"] == b"nine"
        assert state["frozen"].dtype == bool
        assert_holds(path, 9)
        with pytest.raises(ValueError, match="cannot be stored"):
            writer.set_state({"text": np.array(["a"])})
    with resume_chain(path) as writer:
        assert writer.state()["generator"] == b"nine"
        writer.append(*draws(9, 10))
        writer.set_state({"generator": b""})
    assert open_chain(path).state() == {"generator": b""}


def test_draws_without_their_state_are_not_dropped_silently(tmp_path):
    path = tmp_path / "run.h5"
    with new_chain(path) as writer:
        writer.append(*draws(0, 4))
        writer.set_state({"generator": b"4"})
    writer = resume_chain(path)
    writer.append(*draws(4, 6))
    with pytest.raises(ValueError, match="draws from 4 on have no state"):
        writer.commit()
    writer.set_state({"generator": b"6"})
    writer.append(*draws(6, 8))
    with pytest.raises(ValueError, match="last 2 draws have no state"):
        writer.__exit__(None, None, None)
    assert_holds(path, 6)
    assert leftovers(tmp_path) == []


def test_result_groups_are_replaced_whole(tmp_path):
    path = tmp_path / "run.h5"
    names = ("mean", "error", "tau_int", "n_eff", "r_hat")
    with new_chain(path) as writer:
        for length in (3, 3, 5):
            writer.set_group("observables/energy", {name: np.arange(2.0) * length for name in names})
            writer.set_group("training", {"step": np.arange(length), "loss": np.full(length, np.nan)})
            writer.set_group(
                "diagnostics",
                {"ess": np.array([0.1, 0.2]), "scan": (("chain", "time"), np.ones((N_CHAINS, length)))},
                {"converged": False, "note": f"after {length}"},
            )
            writer.commit()
        chain = open_chain(path)
        np.testing.assert_array_equal(chain.observables["energy"]["mean"], [0.0, 5.0])
        assert set(chain.training) == {"step", "loss"}
        np.testing.assert_array_equal(chain.training["step"], np.arange(5))
        assert chain.diagnostics["scan"].shape == (N_CHAINS, 5)
        assert chain.group_attributes("diagnostics")["note"] == "after 5"
        assert chain.group_attributes("diagnostics")["converged"] == 0
        with h5py.File(path) as file:
            table = file["observables/energy"]
            assert "0.5 = uncorrelated" in table["tau_int"].attrs["definition"]
            assert table["mean"].attrs["units"] == "J"
            assert table["r_hat"].attrs["units"] == "dimensionless"
            assert table["mean"].dims[0][0] == table["beta"]
        for name in ("state", "posterior", "observables", "observables/a/b", "hamiltonian", ""):
            with pytest.raises(ValueError, match="set_group"):
                writer.set_group(name, {})
        with pytest.raises(ValueError, match="entries"):
            writer.set_group("training", {"step": np.arange(3), "loss": np.arange(4)})
        with pytest.raises(ValueError, match="entries"):
            writer.set_group("diagnostics", {"ess": (("beta",), np.arange(3))})
        with pytest.raises(ValueError, match="cannot be stored"):
            writer.set_group("diagnostics", {"ess": 1}, {"none": None})


@pytest.mark.parametrize("kind", ["lattice", "p-spin", "alloy", "nothing", "large"])
def test_the_hamiltonian_comes_back_with_its_fingerprint(tmp_path, kind):
    rng = np.random.default_rng(3)
    triples = np.array([rng.choice(N_SPINS, 3, replace=False) for _ in range(50)])
    hamiltonian = {
        "lattice": square_lattice,
        "p-spin": lambda: Hamiltonian(
            N_SPINS,
            [(triples, rng.normal(size=50)), (np.array([[3], [5]]), np.array([0.1, -0.2]))],
            constant=0.1,
            parameters={"p": 3, "seed": np.int64(5), "J": np.array([1.0])},
        ),
        "alloy": lambda: Hamiltonian(N_SPINS, {2: ([[0, 1]], [0.25])}, energy_unit="eV", k_B=8.617330e-5),
        "nothing": lambda: Hamiltonian(N_SPINS, []),
        "large": lambda: Hamiltonian(300, [(np.stack(np.triu_indices(300, 1), axis=1), rng.normal(size=44850))]),
    }[kind]()
    path = tmp_path / "run.h5"
    new_chain(path, hamiltonian=hamiltonian).close()
    found = open_chain(path).hamiltonian()
    assert found.fingerprint == hamiltonian.fingerprint
    assert (found.name, found.lattice) == (hamiltonian.name, hamiltonian.lattice)
    assert (found.energy_unit, found.k_B, found.constant) == (
        hamiltonian.energy_unit,
        hamiltonian.k_B,
        hamiltonian.constant,
    )
    assert list(found.parameters) == list(hamiltonian.parameters)
    with h5py.File(path) as file:
        assert file["posterior/energy"].attrs["units"] == hamiltonian.energy_unit
        for order, (sites, couplings) in hamiltonian.interactions.items():
            assert file[f"hamiltonian/sites_{order}"].shape == sites.shape
            assert file[f"hamiltonian/sites_{order}"].dtype == np.int32
            np.testing.assert_array_equal(file[f"hamiltonian/couplings_{order}"][()], couplings)


def test_a_small_run_is_a_small_file_and_many_commits_do_not_swell_it(tmp_path):
    sizes = []
    for n_commits in (1, 40):
        path = tmp_path / f"{n_commits}.h5"
        with new_chain(path) as writer:
            for block in np.array_split(np.arange(200), n_commits):
                writer.append(*draws(block[0], block[-1] + 1))
                writer.set_group("training", {"step": np.arange(block[0]), "loss": np.arange(block[0])})
                writer.set_state({"spins": np.zeros((N_CHAINS, N_SPINS), np.int8)})
                writer.commit()
        sizes.append(path.stat().st_size)
    assert sizes[0] < 300_000
    assert sizes[1] < 2 * sizes[0]


def test_chunks_are_neither_tiny_nor_huge():
    assert chunk_of(4, (1,), 8) == (1, 1024, 1)
    assert chunk_of(4, (32,), 8) == (1, 256, 32)
    assert chunk_of(4, (1, 32768), 1) == (1, 32, 1, 32768)
    assert chunk_of(4, (20, 180 * 180), 1)[1] == 1
    assert chunk_of(4096, (1,), 8) == (256, 512, 1)


# --- whole or not at all -----------------------------------------------------------------------------------------


def failing(*arguments, **keywords):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("place", ["copy", "reserve", "write", "sync", "replace"])
def test_a_commit_that_fails_leaves_the_file_and_keeps_the_draws(tmp_path, monkeypatch, place):
    path = tmp_path / "run.h5"
    with new_chain(path) as writer:
        writer.append(*draws(0, 10))
        writer.set_state({"generator": b"10"})
        writer.commit()
        before = path.read_bytes()
        writer.append(*draws(10, 14))
        writer.set_state({"generator": b"14"})
        with monkeypatch.context() as patch:
            target, name = {
                "copy": (mc.chain_lock.shutil, "copy"),
                "reserve": (os, "posix_fallocate"),
                "write": (h5py.Dataset, "__setitem__"),
                "sync": (os, "fsync"),
                "replace": (os, "replace"),
            }[place]
            patch.setattr(target, name, failing)
            with pytest.raises(ChainError, match="No space left") as caught:
                writer.commit()
        assert "\n" not in str(caught.value)
        assert path.read_bytes() == before
        assert leftovers(tmp_path) == ["run.h5.lock"]
        assert (writer.committed_draws, writer.pending_draws) == (10, 4)
        writer.append(*draws(14, 15))
        writer.set_state({"generator": b"15"})
        writer.commit()
        assert_holds(path, 15)
        assert writer.state() == {"generator": b"15"}


def test_a_full_disk_ends_a_commit_and_not_the_process(tmp_path):
    # A file size limit is the full disk that a test can have; HDF5 itself would die of it (segmentation fault).
    path = tmp_path / "run.h5"
    rng = np.random.default_rng(1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with new_chain(path, posterior={"energy": ({}, float)}, sample_stats={}) as writer:
        values = rng.normal(size=(N_CHAINS, 50_000, 2))
        for limit in (1_000, 30_000, 1_000_000, 4_500_000):
            if not writer.pending_draws:
                writer.append({"energy": values}, {})
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            try:
                with pytest.raises(ChainError, match="File too large"):
                    writer.commit()
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            assert open_chain(path).n_draws == 0
        writer.commit()
    np.testing.assert_array_equal(open_chain(path).posterior["energy"], values)


def test_an_interrupt_after_the_rename_does_not_double_the_draws(tmp_path, monkeypatch):
    path = tmp_path / "run.h5"
    with new_chain(path) as writer:
        writer.append(*draws(0, 5))
        sync = mc.chain_lock._sync

        def interrupted(where):
            sync(where)
            if where.is_dir():
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(mc.chain_lock, "_sync", interrupted)
            with pytest.raises(KeyboardInterrupt):
                writer.commit()
        assert_holds(path, 5)
        writer.append(*draws(5, 8))
        writer.commit()
    assert_holds(path, 8)


def test_what_lies_beyond_the_committed_draws_is_ignored_and_cut_off(tmp_path):
    path = tmp_path / "run.h5"
    with new_chain(path) as writer:
        writer.append(*draws(0, 10))
    with h5py.File(path, "r+") as file:
        for group in ("posterior", "sample_stats"):
            for dataset in file[group].values():
                if dataset.maxshape[0] is None:
                    dataset.resize(17, axis=0)
                elif dataset.ndim > 1:
                    dataset.resize(17, axis=1)
                    dataset[:, 10:] = 99
        file["configurations/spins"].resize(9, axis=1)
    assert_holds(path, 10)
    with resume_chain(path) as writer:
        assert writer.committed_draws == 10
        writer.append(*draws(10, 12))
    assert_holds(path, 12)
    with h5py.File(path) as file:
        assert file["posterior/energy"].shape[1] == len(file["posterior/draw"]) == 12
        assert file["configurations/spins"].shape[1] == len(file["configurations/spin_draw"]) == 4


def test_commits_are_spaced_by_what_they_cost(tmp_path, monkeypatch):
    with new_chain(tmp_path / "run.h5") as writer:
        now = time.monotonic()
        monkeypatch.setattr(mc.chain_writer, "time", SimpleNamespace(monotonic=lambda: now))
        writer.append(*draws(0, 2))
        writer.commit()
        writer.seconds_of_last_commit = 2.0
        now += 30.0
        assert not writer.commit_is_due(min_seconds=10.0)
        now += 11.0
        assert writer.commit_is_due(min_seconds=10.0)
        assert not writer.commit_is_due(min_seconds=100.0)
        monkeypatch.setattr(os, "replace", failing)
        writer.append(*draws(2, 3))
        with pytest.raises(ChainError):
            writer.commit()
        assert not writer.commit_is_due(min_seconds=10.0)  # a full disk is not tried at every block
        monkeypatch.undo()


def test_a_link_stays_a_link_and_permissions_stay(tmp_path):
    real = tmp_path / "real.h5"
    link = tmp_path / "link.h5"
    link.symlink_to(real)
    with new_chain(link) as writer:
        real.chmod(0o640)
        writer.append(*draws(0, 3))
    assert link.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    assert_holds(real, 3)


# --- other processes ---------------------------------------------------------------------------------------------

# A process that has everything imported forks a fresh one for every job: "commit PATH" commits draws without end,
# "read PATH" and "write PATH" hold the file open. The forked process says when it has begun.
NURSERY = """
import os, sys, time
import h5py, numpy as np
from test_chain import draws, new_chain
from mc.chain import resume_chain

def commit(path):
    with new_chain(path) as writer:
        begin()
        while True:
            first = writer.committed_draws
            writer.append(*draws(first, first + 2))
            writer.set_state({"draws": np.array(first + 2)})
            writer.commit()

def read(path):
    with h5py.File(path, "r") as file:
        rows = file["posterior/energy"]
        begin()
        time.sleep(60)

def write(path):
    with resume_chain(path) as writer:
        begin()
        time.sleep(60)

def begin():
    os.write(1, f"{os.getpid()}\\n".encode())

for line in sys.stdin:
    job, path = line.split()
    if (pid := os.fork()) == 0:
        {"commit": commit, "read": read, "write": write}[job](path)
    os.waitpid(pid, 0)
    os.write(1, b"ended\\n")
"""


class Nursery:
    def __init__(self, process):
        self.process = process
        self.pid = None

    def start(self, job: str, path: Path) -> int:
        self.process.stdin.write(f"{job} {path}\n")
        self.process.stdin.flush()
        self.pid = int(self.process.stdout.readline())
        return self.pid

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        assert self.process.stdout.readline() == "ended\n"
        self.pid = None


@pytest.fixture(scope="module")
def nursery():
    here = Path(__file__).resolve().parent
    process = subprocess.Popen(
        [sys.executable, "-c", NURSERY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(here.parent), str(here)])},
    )
    with process:
        nursery = Nursery(process)
        yield nursery
        if nursery.pid is not None:
            nursery.kill()
        process.stdin.close()


def test_a_killed_writer_leaves_its_committed_draws(tmp_path, nursery):
    instants = random.Random(5)
    reached, torn = [], 0
    for number in range(10):
        path = tmp_path / f"{number}.h5"
        nursery.start("commit", path)
        n_commits, seen = instants.randrange(5), {path.stat().st_mtime_ns}
        while len(seen) <= n_commits:  # every commit is a new file
            seen.add(path.stat().st_mtime_ns)
            time.sleep(0.001)
        time.sleep(instants.uniform(0.0, 0.06))
        nursery.kill()
        torn += (tmp_path / f".{number}.h5.part").exists()
        with h5py.File(path) as file:
            n_draws = int(file.attrs["committed_draws"])
            assert file["posterior/energy"].shape[1] == n_draws
        assert_holds(path, n_draws)
        if n_draws:
            assert open_chain(path).state()["draws"] == n_draws
        with resume_chain(path) as writer:  # the lock died with its holder
            assert not (tmp_path / f".{number}.h5.part").exists()
            writer.append(*draws(n_draws, n_draws + 3))
            writer.set_state({"draws": np.array(n_draws + 3)})
        assert_holds(path, n_draws + 3)
        reached.append(n_draws)
    assert max(reached) > 2
    assert torn > 0  # at least one was struck in the middle of a commit
    assert leftovers(tmp_path) == []


def test_a_reader_does_not_stand_in_the_way_of_the_writer(tmp_path, nursery):
    path = tmp_path / "run.h5"
    with new_chain(path) as writer:
        writer.append(*draws(0, 5))
        writer.commit()
        nursery.start("read", path)
        with h5py.File(path, "r") as held:
            chain = open_chain(path)
            writer.append(*draws(5, 9))
            writer.commit()
            assert held["posterior/energy"].shape[1] == 5
        nursery.kill()
        assert_holds(path, 9)
        assert chain.n_draws == 5  # a view does not grow under its user
        assert chain.posterior["energy"].shape[1] == 5
        with pytest.raises(ChainError, match="has grown"):
            chain.state()


def test_a_view_notices_that_another_run_took_the_place(tmp_path):
    path = tmp_path / "run.h5"
    with new_chain(path) as writer:
        writer.append(*draws(0, 5))
    chain = open_chain(path)
    with pytest.raises(ChainError, match="there already"):
        new_chain(path)
    with new_chain(path, overwrite=True) as writer:
        writer.append(*draws(0, 6))
    with pytest.raises(ChainError, match="replaced"):
        chain.posterior["energy"]


def test_a_writer_notices_that_its_file_is_gone(tmp_path):
    path = tmp_path / "run.h5"
    other = tmp_path / "other.h5"
    new_chain(other).close()
    with new_chain(path) as writer:
        writer.append(*draws(0, 5))
        moved = path.rename(tmp_path / "moved.h5")
        with pytest.raises(ChainError, match="could not be committed"):
            writer.commit()
        assert not path.exists()
        other.rename(path)
        with pytest.raises(ChainError, match="another run"):
            writer.commit()
        moved.rename(path)
        writer.commit()
    assert_holds(path, 5)


def test_a_second_writer_is_refused_with_the_number_of_the_first(tmp_path, nursery):
    path = tmp_path / "run.h5"
    new_chain(path).close()
    pid = nursery.start("write", path)
    for attempt in (lambda: resume_chain(path), lambda: new_chain(path, overwrite=True)):
        with pytest.raises(ChainError, match=f"is being written by process {pid} on ") as caught:
            attempt()
        assert "--out" in str(caught.value)
    assert open_chain(path).n_draws == 0
    nursery.kill()
    assert leftovers(tmp_path) == ["run.h5.lock"]  # left behind, and in nobody's way
    with resume_chain(path), pytest.raises(ChainError, match=f"process {os.getpid()} on "):
        resume_chain(path)
    assert leftovers(tmp_path) == []


def test_one_lock_has_one_holder_also_while_its_file_comes_and_goes(tmp_path):
    holders, most, wins = 0, 0, 0
    guard = threading.Lock()

    def contend():
        nonlocal holders, most, wins
        for _ in range(150):
            try:
                lock = mc.chain_lock.WriterLock(tmp_path / "run.h5")
            except ChainError:
                continue
            with guard:
                holders += 1
                most, wins = max(most, holders), wins + 1
            time.sleep(0)
            with guard:
                holders -= 1
            lock.release()

    threads = [threading.Thread(target=contend) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wins > 0
    assert most == 1


def test_a_file_system_without_locks_gives_a_warning_only(tmp_path, monkeypatch):
    def unsupported(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(mc.chain_lock.fcntl, "flock", unsupported)
    with new_chain(tmp_path / "run.h5") as writer:
        assert "no file locks" in writer.warning
        writer.append(*draws(0, 2))
    assert_holds(tmp_path / "run.h5", 2)
    assert leftovers(tmp_path) == []


# --- files that cannot be used -----------------------------------------------------------------------------------


def spoil(path: Path, how: str) -> None:
    if how == "missing":
        return
    if how == "folder":
        path.mkdir()
        return
    if how in ("text", "empty"):
        path.write_text("energy\n1.0\n" * (how == "text"))
        return
    if how == "foreign":
        with h5py.File(path, "w") as file:
            file["energy"] = np.arange(3)
        return
    with new_chain(path) as writer:
        writer.append(*draws(0, 30))
    if how == "newer":
        with h5py.File(path, "r+") as file:
            file.attrs["schema_version"] = 2
    elif how == "ensemble":
        with h5py.File(path, "r+") as file:
            file.attrs["schema"] = "nmcmc-ensemble"
    elif how == "without energy":
        with h5py.File(path, "r+") as file:
            del file["posterior"]
    elif how == "too few draws":
        with h5py.File(path, "r+") as file:
            file["posterior/energy"].resize(7, axis=1)
    else:
        size = path.stat().st_size
        os.truncate(path, {"cut": size // 2, "cut short": size - 1, "cut to the head": 100}[how])


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", "no such file"),
        ("folder", "is a folder"),
        ("text", "is no nmcmc chain file"),
        ("empty", "is no nmcmc chain file"),
        ("foreign", "is no nmcmc chain file"),
        ("ensemble", "is no nmcmc chain file.*nmcmc-ensemble"),
        ("newer", "is no nmcmc chain file.*version 2"),
        ("cut", "is no nmcmc chain file.*truncated"),
        ("cut short", "is no nmcmc chain file.*truncated"),
        ("cut to the head", "is no nmcmc chain file.*truncated"),
        ("without energy", "damaged"),
        ("too few draws", "7 of 30.*damaged"),
    ],
)
def test_a_file_that_is_no_chain_is_refused_in_one_line(tmp_path, how, message):
    path = tmp_path / "run.h5"
    spoil(path, how)
    for reader in (open_chain, resume_chain):
        with pytest.raises(ChainError, match=message) as caught:
            reader(path)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)
    assert leftovers(tmp_path) == []


def test_a_damaged_block_is_an_error_and_not_a_number(tmp_path):
    path = tmp_path / "run.h5"
    with new_chain(path) as writer:
        writer.append(*draws(0, 30))
    with h5py.File(path) as file:
        where = file["posterior/energy"].id.get_chunk_info(0).byte_offset
    with open(path, "r+b") as file:
        file.seek(where + 40)
        byte = file.read(1)
        file.seek(where + 40)
        file.write(bytes([byte[0] ^ 8]))
    chain = open_chain(path)
    with pytest.raises(ChainError, match="damaged") as caught:
        chain.posterior["energy"]
    assert "\n" not in str(caught.value)
    assert chain.sample_stats["log_q"].shape == (N_CHAINS, 30, 2)


def test_a_place_that_cannot_be_written_is_refused_before_any_work(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    cases = [
        (tmp_path / "file" / "run.h5", "not a folder"),
        (tmp_path / "file" / "deeper" / "run.h5", "no folder"),
        (tmp_path / "absent" / "run.h5", "no folder"),
        (tmp_path, "is a folder"),
        (tmp_path / ("long" * 100), "File name too long"),
    ]
    for path, message in cases:
        with pytest.raises(ChainError, match=message) as caught:
            new_chain(path)
        assert "\n" not in str(caught.value)
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda *arguments, **keywords: False)
        with pytest.raises(ChainError, match="no permission"):
            new_chain(tmp_path / "run.h5")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", failing)
        with pytest.raises(ChainError, match=r"cannot be written.*No space left"):
            new_chain(tmp_path / "run.h5")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file"]


# --- other people's tools ----------------------------------------------------------------------------------------


def grown_file(path: Path, n_draws: int) -> Path:
    with new_chain(path) as writer:
        for first in range(0, n_draws, 20):
            writer.append(*draws(first, first + 20))
            writer.set_state({"generator": bytes(first), "spins": np.ones((N_CHAINS, N_SPINS), np.int8)})
            writer.set_group("observables/energy", {"mean": BETAS, "tau_int": BETAS})
            writer.set_group(
                "training", {"step": np.arange(first), "loss": np.ones(first), "seconds": np.ones(first)}
            )
            writer.set_group("diagnostics", {"ess": BETAS, "acceptance": 0.5, "ok": np.array([True, False])})
            writer.commit()
    return path


@pytest.mark.parametrize("n_draws", [0, 60])
def test_every_axis_of_every_array_has_a_scale(tmp_path, n_draws):
    bare = []

    def look(name, item):
        if isinstance(item, h5py.Dataset) and not item.is_scale:
            bare.extend(f"{name}[{axis}]" for axis in range(item.ndim) if len(item.dims[axis]) != 1)
            if "units" not in item.attrs:
                bare.append(f"{name} has no units")
            if item.chunks is not None and not item.fletcher32:
                bare.append(f"{name} has no checksum")

    with h5py.File(grown_file(tmp_path / "run.h5", n_draws)) as file:
        file.visititems(look)
    assert bare == []


@pytest.mark.parametrize("n_draws", [0, 60])
def test_xarray_reads_the_file_as_it_is(tmp_path, n_draws):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    path = grown_file(tmp_path / "run.h5", n_draws)
    chain = open_chain(path)
    with xarray.open_datatree(path, engine="h5netcdf") as tree:
        for name, values in {**chain.posterior}.items():
            assert tree["posterior"][name].dims == ("chain", "draw", "beta", *POSTERIOR[name][0])
            np.testing.assert_array_equal(tree["posterior"][name].values, values)
        for name, values in {**chain.sample_stats}.items():
            np.testing.assert_array_equal(tree["sample_stats"][name].values, values)
        assert tree["sample_stats/accepted"].dtype == bool
        np.testing.assert_array_equal(tree["posterior/beta"].values, BETAS)
        np.testing.assert_array_equal(tree["posterior/draw"].values, np.arange(n_draws))
        np.testing.assert_array_equal(tree["posterior/pair"].values, [10, 11, 12])
        assert tree["configurations/spins"].dims == ("chain", "spin_draw", "beta", "site")
        np.testing.assert_array_equal(tree["configurations/spins"].values, chain.spins)
        np.testing.assert_array_equal(tree["configurations/spin_draw"].values, chain.spin_draws)
        assert tree["hamiltonian/sites_2"].shape == (32, 2)
        if n_draws:
            np.testing.assert_array_equal(tree["observables/energy/mean"].sel(beta=0.44).values, 0.44)
            np.testing.assert_array_equal(tree["training/seconds"].values, np.ones(40))
            assert tree["training/loss"].dims == ("step",)
            assert tree["state/generator"].shape == (40,)


@pytest.mark.slow
def test_arviz_reads_the_file_as_it_is(tmp_path):
    arviz = pytest.importorskip("arviz")
    for n_draws in (0, 60):
        path = grown_file(tmp_path / f"{n_draws}.h5", n_draws)
        data = arviz.from_netcdf(path)
        np.testing.assert_array_equal(data.posterior["energy"].values, open_chain(path).posterior["energy"])
        np.testing.assert_array_equal(data.sample_stats["accepted"].values, open_chain(path).sample_stats["accepted"])
        data.close()
    summary = arviz.summary(data, var_names=["energy"])
    assert list(summary.index) == ["energy[0.3]", "energy[0.44]"]
    assert np.isfinite(summary["ess_bulk"]).all()
