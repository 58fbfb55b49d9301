"""Many disorder samples: each is the run it would be alone, whatever happens to the process that asked for them."""

import contextlib
import errno
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

import cli.main
from cli import instances, workers
from cli.errors import UserError
from mc.chain import open_chain
from mc.chain_layout import axes_of
from mc.chain_lock import ChainError, WriterLock
from mc.chain_tree import Source, tree
from mc.disorder import disorder_average, row_of, summarise
from mc.ensemble import create_ensemble, extract, is_ensemble, join, open_ensemble, read_numbers, spelled

ROOT = Path(cli.main.__file__).parents[1]
MODEL = ("ea3d", "L=3", "beta=0.2:1:3")
BASE = ("run", "--mode", "pt", *MODEL, "--warmup", 20, "--thin", 1, "--rng-seed", 5)
LONG = ("run", "--mode", "pt", "ea3d", "L=4", "beta=0.2:1:4", "--warmup", 20, "--thin", 200, "spins.every=10")


def run_main(folder, *words):
    """`nmcmc words...` in a folder, in this process; the exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["nmcmc", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main.main()
    return ended.value.code


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An ensemble of four instances, done in one go."""
    folder = tmp_path_factory.mktemp("whole")
    assert run_main(folder, *BASE, "instances=0:4", "--draws", 40, "--out", "whole.h5", "--quiet") == 0
    assert [path.name for path in folder.iterdir()] == ["whole.h5"]
    return folder / "whole.h5"


def assert_same_draws(one, other):
    """Bit for bit, in all that was sampled; two chain trees."""
    assert one.attrs["committed_draws"] == other.attrs["committed_draws"] > 0
    for group in ("posterior", "sample_stats", "configurations"):
        assert set(one[group]) == set(other[group])
        for name in one[group]:
            assert one[group][name][()].tobytes() == other[group][name][()].tobytes(), f"{group}/{name}"


def assert_same_ensemble(one, other):
    with h5py.File(one) as a, h5py.File(other) as b:
        assert list(a["instances"]) == list(b["instances"]) != []
        for name in a["instances"]:
            assert_same_draws(a["instances"][name], b["instances"][name])


# --- what is in the file -------------------------------------------------------------------------------------------


def test_an_instance_is_the_run_that_its_command_says(whole, nmcmc):
    with h5py.File(whole) as file:
        command = shlex.split(file["instances/000002"].attrs["command"])
        assert "seed=2" in command
        nmcmc(*command[1:], "--out", "alone.h5")
        with h5py.File("alone.h5") as alone:
            there = file["instances/000002"]
            assert_same_draws(there, alone)
            assert set(there) == set(alone)
            for name, value in alone.attrs.items():
                own = ("run_id", "command", "cpu_seconds_sample")
                assert name in own or np.array_equal(there.attrs[name], value), name
            for name in ("state", "hamiltonian", "observables/energy", "diagnostics"):
                assert set(there[name]) == set(alone[name])
                for array in alone[name]:
                    assert there[name][array][()].tobytes() == alone[name][array][()].tobytes()
                    assert axes_of(there[name][array]) == axes_of(alone[name][array])


def test_the_summary_is_that_of_the_instances(whole):
    there = open_ensemble(whole)
    assert there.complete
    assert there.instances == there.asked == [0, 1, 2, 3]
    assert there.summary.draws.tolist() == [40] * 4
    with h5py.File(whole) as file:
        mean = np.array([file[f"instances/00000{k}/observables/energy/mean"][()] for k in range(4)])
        r_hat = np.array([file[f"instances/00000{k}/observables/energy/r_hat"][()] for k in range(4)])
        np.testing.assert_array_equal(file["summary/energy/mean"], mean)
        np.testing.assert_array_equal(file["summary/energy/r_hat"], r_hat)
        assert axes_of(file["summary/energy/mean"]) == ("instance", "beta")
        assert file["summary/energy/mean"].attrs["units"] == "J"
        np.testing.assert_allclose(file["average/energy/mean"], mean.mean(axis=0))
        np.testing.assert_allclose(file["average/energy/error"], mean.std(axis=0, ddof=1) / 2)
        assert file["average/energy/samples"][()].tolist() == [4, 4, 4]
        fingerprints = [file[f"instances/00000{k}/hamiltonian"].attrs["fingerprint"] for k in range(4)]
    assert list(there.summary.fingerprints) == fingerprints
    assert (
        len(set(fingerprints)) == len(set(there.summary.run_ids)) == len(set(there.summary.rng_seeds.tolist())) == 4
    )
    worst = there.summary.worst()
    assert worst.r_hat == max(np.nanmax(columns["r_hat"]) for columns in there.summary.observables.values())
    row = there.instances.index(worst.instance)
    assert worst.r_hat in there.summary.observables[worst.observable]["r_hat"][row]


def test_xarray_opens_the_file_as_it_is(whole):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    with xarray.open_datatree(whole, engine="h5netcdf") as data:
        assert data["summary/energy/mean"].dims == ("instance", "beta")
        assert data["average/energy/mean"].sizes == {"beta": 3}
        assert data["instances/000003/posterior/energy"].sizes == {"chain": 4, "draw": 40, "beta": 3}
        assert str(data["summary/run_id"].values[0]) == open_ensemble(whole).summary.run_ids[0]


def test_analyze_and_status_know_an_ensemble(whole, nmcmc):
    run = nmcmc("analyze", whole, "--json")
    first = f"{whole}: ensemble, mode pt, 4 instances (0:4), 4 chains x 40 draws x 3 temperatures, complete\n"
    assert run.out.startswith(first)
    energy = open_ensemble(whole).summary.averages()["energy"]
    assert [row["energy"]["mean"] for row in run.json["results"]] == pytest.approx(energy.mean)
    assert [row["energy"]["error"] for row in run.json["results"]] == pytest.approx(energy.error)
    assert [row["instance"] for row in run.json["instances"]] == [0, 1, 2, 3]
    assert {row["draws"] for row in run.json["instances"]} == {40}
    status = nmcmc("status", whole, "--json")
    assert status.out.startswith(first)
    assert status.json == {"command": "status", "out": str(whole), "mode": "pt", "instances": 4, "asked": 4,
                           "complete": True}  # fmt: skip


def test_averages_over_samples():
    values = np.array([[1.0, np.nan], [2.0, 5.0], [6.0, np.inf]])
    average = disorder_average(values)
    assert average.mean.tolist() == [3.0, 5.0]
    assert average.samples.tolist() == [3, 1]
    assert average.spread[0] == pytest.approx(np.std([1, 2, 6], ddof=1))
    assert average.error[0] == pytest.approx(np.std([1, 2, 6], ddof=1) / np.sqrt(3))
    assert np.isnan(average.error[1])


def test_numbers_in_few_words():
    for numbers, text in (([0, 1, 2], "0:3"), ([5], "5"), ([0, 1, 4, 7, 8], "0:2,4,7:9"), ([], "")):
        assert spelled(numbers) == text
        assert read_numbers(text) == numbers
    assert instances.parse_numbers("3,0:2,7") == (0, 1, 3, 7)


def test_seeds_of_instances_are_what_they_were():
    """Files of today must be extended by versions to come: these numbers may not change."""
    assert instances.seed_of(0, 0) == 7841313412201360367
    assert instances.seed_of(0, 3) == 2888001347173329394
    assert instances.seed_of(2**62, 99_999) == 89896995517272754
    assert instances.seed_of(5, 0) == 3121974850552718336
    seeds = {instances.seed_of(base, number) for base in range(3) for number in range(400)}
    assert len(seeds) == 1200
    assert all(0 <= seed < 2**63 for seed in seeds)


# --- going on ------------------------------------------------------------------------------------------------------


def test_more_instances_and_more_draws_extend(whole, nmcmc):
    first = nmcmc(*BASE, "instances=0:2", "--draws", 15, "--out", "e.h5")
    assert first.out.startswith("out: e.h5\ninstances: 0:2 (2) by ")
    assert "instance 1: 15 draws, worst R-hat " in first.out
    assert first.out.splitlines()[-1] == "result: e.h5; look at it with: nmcmc analyze e.h5"
    more = nmcmc(*BASE, "instances=0:4", "--draws", 15, "--out", "e.h5", "--json")
    assert "instances: 0:4 (4, 2 of them there)" in more.out
    assert "instance 1:" not in more.out
    assert [row["instance"] for row in more.json["instances"]] == [0, 1, 2, 3]
    assert more.json["complete"] is True
    assert more.json["seconds"]["sample"] > 0
    longer = nmcmc(*BASE, "instances=0:4", "--draws", 40, "--out", "e.h5")
    assert longer.out.count(": 40 draws, worst R-hat ") == 4
    assert_same_ensemble("e.h5", whole)
    assert [path.name for path in Path().iterdir()] == ["e.h5"]
    before = Path("e.h5").stat().st_mtime_ns
    again = nmcmc(*BASE, "instances=0:4", "--draws", 40, "--out", "e.h5")
    assert again.out.startswith(
        "out: e.h5\ncomplete: 4 instances of 40 draws a chain are there\ndisorder averages of 4"
    )
    fewer = nmcmc(*BASE, "instances=1,3", "--draws", 20, "--out", "e.h5")
    assert "complete: 2 instances of 20 draws" in fewer.out
    assert Path("e.h5").stat().st_mtime_ns == before


def test_the_same_hamiltonians_in_other_words_are_the_same_ensemble(whole, nmcmc):
    shutil.copy(whole, "e.h5")
    words = ("run", "--mode", "pt", "ea3d", "Lx=3", "Ly=3", "Lz=3", "beta=0.2:1:3", "--warmup", 20, "--thin", 1,
             "--rng-seed", 5)  # fmt: skip
    assert "complete: 4" in nmcmc(*words, "instances=0:4", "--draws", 40, "--out", "e.h5").out


def test_one_file_each(whole, nmcmc):
    words = (*BASE, "--out", "run_{instance}.h5")
    first = nmcmc(*words, "instances=0:2", "--draws", 40)
    assert first.out.splitlines()[-1] == "result: 'run_{instance}.h5'; the first is run_0.h5"
    times = {path.name: path.stat().st_mtime_ns for path in Path().iterdir()}
    assert set(times) == {"run_0.h5", "run_1.h5"}
    more = nmcmc(*words, "instances=0:4", "--draws", 40, "--json")
    assert "instances: 0:4 (4, 2 of them there)" in more.out
    assert {path.name: path.stat().st_mtime_ns for path in Path().iterdir()}.items() >= times.items()
    with h5py.File(whole) as file:
        for number in range(4):
            with h5py.File(f"run_{number}.h5") as alone:
                assert_same_draws(file[f"instances/{number:06d}"], alone)
    energy = open_ensemble(whole).summary.averages()["energy"]
    assert [row["energy"]["mean"] for row in more.json["results"]] == pytest.approx(energy.mean)
    refused = nmcmc(*words, "instances=0:4", "--draws", 40, "--thin", 2, code=2)
    assert "run_0.h5 holds another run (--thin is 1, not 2)" in refused.err


def test_restart_begins_anew(nmcmc):
    words = ("run", "--mode", "metropolis", "ea2d", "L=3", "beta=0.5", "--draws", 5, "--warmup", 2, "--out", "e.h5")
    nmcmc(*words, "instances=0:3")
    ids = open_ensemble("e.h5").summary.run_ids
    refused = nmcmc(*words, "instances=1:2", "J=gaussian", code=2)
    assert "e.h5 holds another ensemble (J is bimodal, not gaussian); use --restart to replace it" in refused.err
    nmcmc(*words, "instances=1:2", "J=gaussian", "--restart")
    there = open_ensemble("e.h5")
    assert there.instances == [1]
    assert not {*ids} & {*there.summary.run_ids}
    alone = nmcmc("analyze", "e.h5")
    assert "one instance has no scatter" in alone.out


# --- what can happen -----------------------------------------------------------------------------------------------


def with_the_package(**more):
    """The environment of a process that is to find the package under test."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": path} | more


def start(folder, *words):
    """The command in a process of its own, with Ctrl-C as a terminal would have it."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "cli.main", *map(str, words)], cwd=folder, env=with_the_package(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hear_interrupts,
    )  # fmt: skip
    STARTED.append(process)
    return process


STARTED = []


def hear_interrupts():
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def nothing_left_running():
    yield
    while STARTED:
        process = STARTED.pop()
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stdout.close()
        process.stderr.close()


def wait_for(happened, seconds=120.0):
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def committed(folder):
    """Draws in all chain files of a folder."""
    total = 0
    for path in Path(folder).glob("*.h5"):
        with contextlib.suppress(ChainError):
            total += open_chain(path).n_draws
    return total


@pytest.mark.slow
def test_an_ensemble_interrupted_and_killed_is_the_one_left_alone(nmcmc, tmp_path):
    """Ctrl-C, then kill -9 of the parent, then to the end: the same bits as in one go."""
    words = (*LONG, "instances=0:3", "--out", "e.h5", "--draws")
    process = start(tmp_path, *words, 10**8)
    wait_for(lambda: committed("e.h5.parts") > 0)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert err == "stopping after this block (again: at once, up to the last commit)\n"
    assert out.splitlines()[-1] == (
        "interrupted: 0 of 3 instances are complete in e.h5.parts; the same command again goes on"
    )
    assert not open_ensemble("e.h5").complete
    assert "no instance yet, incomplete: 3 were asked for, " in nmcmc("status", "e.h5").out
    there = committed("e.h5.parts")
    process = start(tmp_path, *words, 10**8)
    wait_for(lambda: committed("e.h5.parts") > there)
    process.kill()
    process.communicate()
    # At once, while the processes of the one that was killed are still ending; with draws for a second or two more.
    draws = max(open_chain(path).n_draws for path in Path("e.h5.parts").glob("*.h5"))
    draws += draws // 2
    last = nmcmc(*words, draws)
    assert last.err == ""
    assert open_ensemble("e.h5").complete
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e.h5"]
    nmcmc(*LONG, "instances=0:3", "--out", "alone.h5", "--draws", draws)
    assert_same_ensemble("e.h5", "alone.h5")


def test_a_time_limit_ends_with_what_is_committed(nmcmc):
    words = (*LONG, "instances=0:2", "--out", "e.h5", "--draws", 10**7)
    run = nmcmc(*words, "--time-limit", 10, "--json")
    assert run.json["complete"] is False
    assert "the time limit came first: 0 of 2 instances are complete in e.h5.parts" in run.out
    assert committed("e.h5.parts") > 0


def test_a_lost_process_is_replaced_and_its_instance_done_again(whole, nmcmc, monkeypatch):
    send, lost = workers.Worker.send, []

    def killing(self, message):
        send(self, message)
        if "do" in message and message["do"]["instance"] == 1 and not lost:
            lost.append(self.pid)
            os.kill(self.pid, signal.SIGKILL)

    monkeypatch.setattr(workers.Worker, "send", killing)
    run = nmcmc(*BASE, "instances=0:4", "--draws", 40, "--out", "e.h5")
    assert len(lost) == 1
    assert run.err.startswith("nmcmc: instance 1: its process was lost (killed by SIGKILL")
    assert run.err.count("\n") == 1
    assert_same_ensemble("e.h5", whole)


def test_an_instance_that_fails_leaves_the_others_alone(whole, nmcmc, monkeypatch):
    """One is refused by its run, another loses its process every time."""
    send = workers.Worker.send

    def spoiling(self, message):
        number = message["do"]["instance"] if "do" in message else None
        if number == 1:
            message = {"do": message["do"] | {"words": [*message["do"]["words"][:-2], "L=2"]}}
        send(self, message)
        if number == 2:
            os.kill(self.pid, signal.SIGKILL)

    words = (*BASE, "instances=0:4", "--draws", 40, "--out", "e.h5")
    monkeypatch.setattr(workers.Worker, "send", spoiling)
    run = nmcmc(*words, code=1)
    assert "nmcmc: instance 1: L is given twice" in run.err
    assert "nmcmc: instance 2: its process was lost 3 times (killed by SIGKILL" in run.err
    assert "disorder averages of 2 instances" in run.out
    assert run.out.splitlines()[-1] == (
        "2 instances failed (1:3): 2 of 4 instances are complete in e.h5.parts; the same command again goes on"
    )
    monkeypatch.setattr(workers.Worker, "send", send)
    again = nmcmc(*words)
    assert "instances: 0:4 (4, 2 of them there)" in again.out
    assert_same_ensemble("e.h5", whole)


def test_a_full_disk_costs_nothing(whole, nmcmc, monkeypatch):
    """The chain files stay until the joined one is in its place."""
    words = (*BASE, "instances=0:4", "--draws", 40, "--out", "e.h5")
    Path("e.h5.parts").mkdir()
    for number in range(4):
        extract(open_ensemble(whole).source(number), f"e.h5.parts/{number:06d}.h5")

    def full(path, extra):
        raise OSError(errno.ENOSPC, "")

    with monkeypatch.context() as patch:
        patch.setattr("mc.chain_lock._reserve", full)
        run = nmcmc(*words, code=1)
    assert run.err.startswith(
        "nmcmc: e.h5 could not be written (No space left on device); it is as before, and so are"
    )
    assert len(list(Path("e.h5.parts").glob("*.h5"))) == 4
    assert not open_ensemble("e.h5").complete
    nmcmc(*words)
    assert_same_ensemble("e.h5", whole)
    assert not Path("e.h5.parts").exists()
    # A process killed between the rename and the removal of the parts.
    Path("e.h5.parts").mkdir()
    extract(open_ensemble(whole).source(1), "e.h5.parts/000001.h5")
    assert "complete: 4 instances" in nmcmc(*words).out
    assert not Path("e.h5.parts").exists()


def test_what_is_not_ours_stays_in_the_folder(whole, nmcmc):
    shutil.copy(whole, "e.h5")
    Path("e.h5.parts").mkdir()
    Path("e.h5.parts/weights.pt").write_text("trained")
    nmcmc(*BASE, "instances=0:4", "--draws", 40, "--out", "e.h5")
    assert Path("e.h5.parts/weights.pt").read_text() == "trained"


# --- refusals ------------------------------------------------------------------------------------------------------

PT = ("run", "--mode", "pt", "ea3d", "L=3", "beta=0.2:1:3", "--rng-seed", 5, "--thin", 1)
REFUSED = [
    ((*PT, "seed=1", "instances=0:4"), "seed= and instances= both say which couplings are dealt"),
    ((*PT, "instances="), "instances=: LOW:HIGH or a comma list of seeds is needed"),
    ((*PT, "instances=4"), "instances=4: LOW:HIGH or a comma list of seeds is needed, such as 0:100"),
    ((*PT, "instances=4:4"), "instances=4:4: 4:4 is empty"),
    ((*PT, "instances=0:2:3"), "instances=0:2:3: LOW:HIGH"),
    ((*PT, "instances=-1:3"), "instances=-1:3: LOW:HIGH"),
    ((*PT, "instances=1,0:2"), "instances=1,0:2: an instance is given twice"),
    ((*PT, "instances=0:1000000"), "at most 100000 instances"),
    ((*PT, "instance=0:4"), "unknown key instance, did you mean instances?"),
    ((*PT, "instances=0:4", "instances=0:4"), "instances is given twice"),
    ((*PT, "instances=0:4", "J=ferro"), "the couplings of this ea3d are the same for every seed="),
    (("run", "--mode", "metropolis", "ising", "L=4", "instances=0:4"), "the couplings of this ising are the same"),
    (("run", "--mode", "metropolis", "file", "path=x", "beta=1", "instances=0:4"), "file has no random disorder"),
    (("train", "ea2d", "L=4", "beta=1", "instances=0:4"), "mode train draws nothing"),
    ((*PT, "instances=0:4", "--checkpoint", "w.pt"), "--checkpoint is for one Hamiltonian"),
    ((*PT, "instances=0:4", "--out", "run_{number}.h5"), "{number} is no place for a number; write {instance}"),
    ((*PT, "--out", "run_{instance}.h5"), "--out {instance} is for many disorder samples"),
    ((*PT, "--scheduler", "local"), "--scheduler is for many disorder samples"),
    (
        ("run", "--mode", "nis", "ea2d", "L=4", "beta=1", "instances=0:4", "--scheduler", "local"),
        "mode nis may train",
    ),
    (
        ("run", "--mode", "pt", *MODEL, "ladder=tuned", "instances=0:4"),
        "ladder=tuned gives every instance temperatures",
    ),
    ((*PT, "scheduler=local"), "did you mean the option --scheduler?"),
    (("run", "--mode", "wolff", "ea2d", "L=4", "beta=1", "instances=0:4"), "mode wolff: a ferromagnet is needed"),
    (("run", "--mode", "pt", "ea3d", "L=3", "beta=1", "instances=0:4"), "at least two temperatures"),
    ((*PT, "instances=0:4", "--out", "junk.h5"), "junk.h5 is no nmcmc ensemble file: it is not an HDF5 file"),
    ((*PT, "instances=0:4", "--out", "junk.h5", "--restart"), "remove it, or use another --out"),
    ((*PT, "instances=0:4", "--out", "chain.h5"), "chain.h5 is no nmcmc ensemble file: its schema is 'nmcmc-chain'"),
    ((*PT, "seed=1", "--out", "whole.h5"), "whole.h5 is no nmcmc chain file: its schema is 'nmcmc-ensemble'"),
    ((*PT, "instances=0:4", "--out", "nowhere/e.h5"), "nowhere/e.h5 cannot be written: there is no folder"),
    ((*PT, "instances=0:4", "--out", "nowhere/{instance}.h5"), "nowhere/0.h5 cannot be written: there is no folder"),
    ((*BASE, "instances=2:6", "--draws", 40, "--out", "whole.h5"), "whole.h5 holds instances 0:4; instances=0:6 ext"),
    ((*BASE, "instances=0:2", "--draws", 50, "--out", "whole.h5"), "holds instances 0:4; instances=0:4 extends it"),
    ((*PT, "instances=0:4", "--warmup", 9, "--out", "whole.h5"), "holds another ensemble (--warmup is 20, not 9)"),
    ((*BASE[:-1], 6, "instances=0:4", "--out", "whole.h5"), "holds another ensemble (--rng-seed is 5, not 6)"),
    ((*BASE, "spins.every=7", "instances=0:4", "--out", "whole.h5"), "another ensemble (spins.every is 1, not 7)"),
    ((*BASE, "instances=0:5", "--out", "stale.h5"), "stale.h5.parts/000001.h5 holds another run (seed is 2, not 1)"),
]


@pytest.fixture(scope="module")
def workshop(whole, tmp_path_factory):
    folder = tmp_path_factory.mktemp("workshop")
    shutil.copy(whole, folder / "whole.h5")
    (folder / "junk.h5").write_text("no chain")
    (folder / "stale.h5.parts").mkdir()
    extract(open_ensemble(whole).source(2), folder / "stale.h5.parts" / "000001.h5")
    assert run_main(folder, *PT, "seed=1", "--draws", 5, "--warmup", 2, "--out", "chain.h5", "--quiet") == 0
    return folder


@pytest.mark.parametrize(("words", "said"), REFUSED, ids=[" ".join(map(str, words))[-50:] for words, _ in REFUSED])
def test_bad_input_is_refused_in_one_line_and_nothing_is_written(words, said, workshop, capsys):
    before = {path: path.stat().st_mtime_ns for path in workshop.rglob("*")}
    assert run_main(workshop, *words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("nmcmc: ")
    assert err.count("\n") == 1
    assert said in err
    assert {path: path.stat().st_mtime_ns for path in workshop.rglob("*")} == before


def test_one_writer_of_an_ensemble(whole, nmcmc):
    shutil.copy(whole, "e.h5")
    lock = WriterLock(Path("e.h5").resolve())
    refused = nmcmc(*BASE, "instances=0:9", "--out", "e.h5", code=2)
    assert f"e.h5 is being written by process {os.getpid()} on " in refused.err
    lock.release()


def test_a_file_takes_no_run_twice_and_one_ladder_only(whole, tmp_path):
    there = open_ensemble(whole)
    about = {"command": "", "config": {}, "asked": range(2)}
    create_ensemble(tmp_path / "e.h5", **about)
    with pytest.raises(ChainError, match="is there already"):
        create_ensemble(tmp_path / "e.h5", **about)
    with pytest.raises(ChainError, match="instances 0 and 7 are one and the same run"):
        join(tmp_path / "e.h5", {0: there.source(1), 7: there.source(1)}, **about, complete=True)
    with pytest.raises(ChainError, match=r"instance 9 of .* is not there"):
        join(tmp_path / "e.h5", {0: Source(whole, "instances/000009")}, **about, complete=True)
    assert open_ensemble(tmp_path / "e.h5").instances == []
    assert [path.name for path in tmp_path.iterdir()] == ["e.h5"]
    with tree(there.source(0)) as group:
        row = row_of(0, group)
    with pytest.raises(ValueError, match="other temperatures"):
        summarise([row, row._replace(instance=1, betas=row.betas + 1)])
    with pytest.raises(ValueError, match="twice"):
        summarise([row, row])
    assert is_ensemble(whole)
    assert not is_ensemble(tmp_path / "nothing.h5")


# --- clusters ------------------------------------------------------------------------------------------------------


def test_without_dask_it_is_said_how_to_get_it(nmcmc, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    refused = nmcmc(*BASE, "instances=0:2", "--scheduler", "local", code=2)
    assert refused.err == (
        "nmcmc: --scheduler local: Dask is not installed; pip install 'nmcmc[cluster]' brings it "
        "(or: pip install distributed)\n"
    )
    assert list(Path().iterdir()) == []


CLUSTER = """
import json, os, signal, subprocess, sys, time
import distributed

def main():
    about = dict(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None)
    with distributed.LocalCluster(**about) as cluster:
        with distributed.Client(cluster, set_as_default=False) as client:
            pids = list(client.run(os.getpid).values())
            command = [sys.executable, "-m", "cli.main", *sys.argv[1:], "--scheduler", cluster.scheduler_address]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            children = []
            while len(children) < 2:  # both workers are at an instance
                time.sleep(0.05)
                children = [c for p in pids for c in open(f"/proc/{p}/task/{p}/children").read().split()]
                children += [c for p in pids for t in os.listdir(f"/proc/{p}/task") if int(t) != p
                             for c in open(f"/proc/{p}/task/{t}/children").read().split()]
            time.sleep(float(os.environ["BEFORE_THE_KILL"]))
            os.kill(pids[0], signal.SIGKILL)
            out, err = process.communicate(timeout=200)
            now = list(client.run(os.getpid).values())
            print(json.dumps({"code": process.returncode, "out": out, "err": err,
                              "lost": pids[0] not in now and pids[1] in now}))

if __name__ == "__main__":
    main()
"""


@pytest.mark.slow
def test_a_cluster_that_loses_a_worker_counts_nothing_twice(nmcmc, tmp_path):
    """A worker process is killed in the midst of its instance: the other, or its successor, does it again."""
    pytest.importorskip("distributed")
    words = (*LONG, "instances=0:4", "--out", "e.h5", "--draws", 3_000)
    Path("cluster.py").write_text(CLUSTER)
    environment = with_the_package(BEFORE_THE_KILL="1.5")
    command = [sys.executable, "cluster.py", *map(str, words)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout.splitlines()[-1])
    assert told["code"] == 0, told["err"]
    assert told["lost"]
    assert told["err"] == ""
    for number in range(4):
        assert told["out"].count(f"\ninstance {number}: 3000 draws") == 1
    there = open_ensemble("e.h5")
    assert there.complete
    assert there.instances == [0, 1, 2, 3]
    assert len(set(there.summary.run_ids)) == 4
    nmcmc(*words[:-4], "--out", "alone.h5", "--draws", 3_000)
    assert_same_ensemble("e.h5", "alone.h5")


@pytest.mark.slow
def test_a_cluster_extends_what_is_there_and_says_what_fails(nmcmc, tmp_path, whole):
    """The chains that a worker goes on from travel to it, and come back."""
    pytest.importorskip("distributed")
    nmcmc(*BASE, "instances=0:4", "--draws", 15, "--out", "e.h5", "--quiet")
    words = (*BASE, "instances=0:4", "--draws", 40, "--out", "e.h5", "--scheduler", "local")
    process = start(tmp_path, *words)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert "instances: 0:4 (4) by a Dask cluster (local)" in out
    assert_same_ensemble("e.h5", whole)


def test_an_address_where_nobody_answers(nmcmc, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("cli.scheduler.CONNECT_SECONDS", 1)
    refused = nmcmc(*BASE, "instances=0:2", "--scheduler", "tcp://127.0.0.1:9", code=2)
    assert "--scheduler tcp://127.0.0.1:9: no Dask scheduler answers there" in refused.err
    assert refused.err.count("\n") == 1
    assert list(Path().iterdir()) == []


class FakeClient:
    """A client whose cluster is this process: it counts what is handed in, loses some, and answers others twice."""

    def __init__(self, lost=()):
        self.lost, self.keys = lost, []

    def submit(self, function, job, content, event, key, retries, pure):
        self.keys.append(key)
        return FakeFuture(job, content, job["instance"] in self.lost)

    def scheduler_info(self):
        return {"workers": {"one": {}}}


class FakeFuture:
    def __init__(self, job, content, lost):
        self.status = "error" if lost else "finished"
        self._answer = workers.answer_of(job["instance"], complete=True, draws=1), b"bytes", ["a warning"]

    def add_done_callback(self, call):
        call(self)
        call(self)

    def result(self):
        return self._answer

    def exception(self):
        return type("KilledWorker", (Exception,), {})("gone")

    def release(self):
        pass


def test_answers_of_a_cluster_are_known_by_their_instance(tmp_path, monkeypatch):
    """Without Dask: an answer that comes twice is one, and a lost one is said in words."""
    from cli import scheduler

    module = type("distributed", (), {"Event": lambda name, client: type("E", (), {"name": name})()})
    monkeypatch.setitem(sys.modules, "distributed", module)
    jobs = [{"instance": n, "path": str(tmp_path / f"{n}.h5"), "extract": None, "options": {"restart": False}}
            for n in range(3)]  # fmt: skip
    client, warned = FakeClient(lost=(1,)), []
    answers = list(scheduler.do_jobs(client, jobs, lambda: False, warned.append))
    assert [answer["instance"] for answer in answers] == [0, 1, 2]
    assert [answer["error"] for answer in answers] == [
        None, "its Dask workers were lost again and again (want of memory?)", None,
    ]  # fmt: skip
    assert len(set(client.keys)) == 3
    assert warned == ["instance 0: a warning", "instance 2: a warning"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.h5", "2.h5"]


def test_words_that_are_no_instances_raise_in_python_too():
    with pytest.raises(UserError, match="given twice"):
        instances.parse_numbers("1,1")
