"""The command line: chain files that continue, extend and refuse, and what a user sees of it."""

import csv
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

import cli.main
import cli.neural
import cli.neural_run
import cli.output
from cli import arguments, configuration, settings, tables, values
from mc.analysis import Results
from mc.chain import ChainWriter, open_chain
from mc.chain_lock import WriterLock
from mc.statistics import Estimate
from nmcmc.checkpoint import load_checkpoint

ROOT = Path(cli.main.__file__).parents[1]
SMALL = ("train.steps=6", "train.batch=16")  # a training of a second


STARTED = []


@pytest.fixture(autouse=True)
def nothing_left_running():
    """A test that fails half way must not leave a run of ten million draws behind."""
    yield
    while STARTED:
        process = STARTED.pop()
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stdout.close()
        process.stderr.close()


def start(*words, folder):
    """The command in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-u", "-m", "cli.main", *map(str, words)]
    STARTED.append(
        subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    )
    return STARTED[-1]


def assert_same_chain(one, other):
    """Bit for bit, in all that was sampled."""
    with h5py.File(one) as a, h5py.File(other) as b:
        assert a.attrs["committed_draws"] == b.attrs["committed_draws"] > 0
        for group in ("posterior", "sample_stats", "configurations"):
            assert set(a[group]) == set(b[group])
            for name in a[group]:
                assert a[group][name][()].tobytes() == b[group][name][()].tobytes(), f"{group}/{name}"


# --- a run that goes on --------------------------------------------------------------------------------------------

MODES = {
    "metropolis": ("ising", "L=4", "beta=0.2,0.6"),
    "heatbath": ("rrg", "N=10", "beta=0.5", "h=gauss:0.3"),
    "wolff": ("ising", "L=4"),
    "swendsen-wang": ("ising", "L=4"),
    "pt": ("ea2d", "L=3", "beta=0.2:1.4:4"),
    "pt with replicas": ("ea3d", "L=3", "J=gaussian", "beta=0:1.4:4", "replicas=2"),
    "anneal": ("sk", "N=9", "beta=0.5,1,3"),
    "prior": ("ea2d", "L=4", "beta=0.3,0.7"),
    "nis": ("ising", "L=4", *SMALL),
    "nmcmc": ("ising", "L=4", *SMALL),
    "nmcmc with sweeps": ("ising", "L=4", "local=1", *SMALL),
}


@pytest.mark.parametrize("case", MODES)
def test_a_run_in_parts_is_the_run_in_one_go(nmcmc, case):
    words = ("run", "--mode", case.split()[0], *MODES[case], "--warmup", 20, "--rng-seed", 3)
    straight = nmcmc(*words, "--draws", 70, "--out", "straight.h5")
    assert straight.out.startswith("out: straight.h5\n")
    assert "result: straight.h5; look at it with: nmcmc analyze straight.h5" in straight.out.splitlines()[-1]
    nmcmc(*words, "--draws", 25, "--out", "parts.h5")
    again = nmcmc(*words, "--draws", 25, "--out", "parts.h5", "--json")
    assert "complete: 25 draws a chain are there; more with a larger --draws" in again.out
    assert again.json["draws"] == 25
    assert again.json["complete"] is True
    more = nmcmc(*words, "--draws", 70, "--out", "parts.h5", "--json")
    assert "going on from draw 25" in more.out
    assert more.json["draws"] == 70
    assert_same_chain("straight.h5", "parts.h5")
    assert "--draws 70" in open_chain("parts.h5").command
    fewer = nmcmc(*words, "--draws", 10, "--out", "parts.h5")
    assert "complete: 70 draws" in fewer.out
    assert sorted(path.name for path in Path().iterdir() if path.suffix != ".pt") == ["parts.h5", "straight.h5"]


def test_a_run_stopped_anywhere_is_the_run_in_one_go(nmcmc, monkeypatch):
    """Interrupts after every block and every part of the warm-up."""
    words = ("run", "--mode", "pt", "ea2d", "L=3", "beta=0.2:1.4:4", "--warmup", 25, "--draws", 12)
    nmcmc(*words, "--out", "straight.h5")
    asked = iter(range(10**6))
    monkeypatch.setattr(cli.output.Stopper, "__call__", lambda self: next(asked) % 2 == 1)
    for _ in range(50):
        nmcmc(*words, "--out", "parts.h5", "--json")
        if open_chain("parts.h5").complete:
            break
    assert open_chain("parts.h5").complete
    assert_same_chain("straight.h5", "parts.h5")


def test_restart_replaces_the_run(nmcmc):
    words = ("run", "--mode", "metropolis", "ising", "--draws", 20, "--warmup", 5, "--out", "run.h5")
    nmcmc(*words, "L=4")
    refused = nmcmc(*words, "L=5", code=2)
    assert "run.h5 holds another run (L is 4, not 5); use --restart to replace it, or another --out" in refused.err
    nmcmc(*words, "L=5", "--restart")
    assert open_chain("run.h5").n_spins == 25
    assert open_chain("run.h5").complete


def test_the_same_hamiltonian_in_other_words_is_the_same_run(nmcmc):
    words = ("run", "--mode", "metropolis", "ising", "--warmup", 5, "--out", "run.h5")
    nmcmc(*words, "L=4", "--draws", 20)
    assert "going on from draw 20" in nmcmc(*words, "Lx=4", "Ly=4", "J=1", "boundary=periodic", "--draws", 30).out


def test_spins_are_kept_as_the_file_has_it_when_a_run_is_extended(nmcmc, monkeypatch):
    monkeypatch.setattr("cli.run_file.MOST_SPINS", 16 * 4 * 20)
    words = ("run", "--mode", "metropolis", "ising", "L=4", "--warmup", 5, "--out", "run.h5")
    nmcmc(*words, "--draws", 40)
    nmcmc(*words, "--draws", 200)
    np.testing.assert_array_equal(open_chain("run.h5").spin_draws, np.arange(0, 200, 2))
    nmcmc(*words, "--draws", 200, "spins.every=0", "--restart")
    assert len(open_chain("run.h5").spin_draws) == 0


def test_a_chain_goes_on_from_the_spins_of_another(nmcmc):
    words = ("run", "--mode", "metropolis", "ising", "L=4", "beta=0.6", "--draws", 5, "--out")
    nmcmc(*words, "a.h5", "--warmup", 0, "init=up")
    nmcmc(*words, "b.h5", "--warmup", 0, "init=a.h5")
    assert open_chain("b.h5").config["settings"]["init"] == "a.h5"


def test_the_default_name_says_what_is_inside(nmcmc):
    words = ("--draws", 2, "--warmup", 0)
    run = nmcmc("run", "--mode", "metropolis", "ising", "beta=0.3,0.4", "L=4", *words)
    assert run.out.startswith("out: ising-L=4-beta=0.3,0.4-metropolis.h5\n")  # whatever the order of the keys
    Path("instances").mkdir()
    np.savez("instances/chain 1.npz", i=[0, 1], j=[1, 2], J=[1.0, -1.0])
    run = nmcmc("run", "--mode", "heatbath", "file", "path=instances/chain 1.npz", "T=2.5", *words)
    assert run.out.startswith("out: file-path=chain_1.npz-T=2.5-heatbath.h5\n")
    assert run.out.splitlines()[-1].endswith("nmcmc analyze file-path=chain_1.npz-T=2.5-heatbath.h5")
    betas = ",".join(f"{beta:.3f}" for beta in np.linspace(0.1, 1, 60))
    run = nmcmc("run", "--mode", "heatbath", "ising", "L=3", f"beta={betas}", *words)
    (path,) = Path().glob("ising-L=3-*-heatbath.h5")
    assert len(path.name) < 160
    assert open_chain(path).betas == pytest.approx(np.linspace(0.1, 1, 60), abs=1e-3)


# --- time limits and interrupts ------------------------------------------------------------------------------------


def test_a_time_limit_ends_a_run_that_the_next_call_continues(nmcmc):
    words = ("run", "--mode", "metropolis", "ising", "L=16", "--warmup", 10, "--out", "run.h5", "spins.every=0")
    nmcmc(*words, "--draws", 1, "--out", "compiled.h5")
    began = time.monotonic()
    first = nmcmc(*words, "--draws", 10**7, "--time-limit", 0.5, "--json")
    assert time.monotonic() - began < 20
    assert first.json["complete"] is False
    assert 0 < first.json["draws"] < 10**7
    assert re.search(r"the time limit came first: \d+ of 10000000 draws are committed in run.h5; the same", first.out)
    second = nmcmc(*words, "--draws", 10**7, "--time-limit", 0.5, "--json")
    assert f"going on from draw {first.json['draws']}" in second.out
    assert second.json["draws"] > first.json["draws"]


def test_a_time_limit_leaves_training_the_time_that_draws_do_not_need(nmcmc):
    words = ("run", "--mode", "nmcmc", "ising", "L=4", "train.steps=1000000", "train.batch=16")
    began = time.monotonic()
    run = nmcmc(*words, "--draws", 200, "--time-limit", 6, "--json")
    assert time.monotonic() - began < 25
    assert run.json["complete"] is True
    assert re.search(r"the time limit ended the training at step \d+ of 1000000", run.out)
    # What a time limit ended is finished: the chain hangs on these weights.
    more = nmcmc(*words, "--draws", 300, "--json")
    assert re.search(r"trained before, \d+ of 1000000 steps; remove it", more.out)
    assert more.json["draws"] == 300


def test_a_time_limit_too_short_for_anything(nmcmc):
    words = ("run", "--mode", "nmcmc", "ising", "L=4", *SMALL, "--draws", 10)
    first = nmcmc(*words, "--time-limit", 1e-9, "--json")
    assert first.json["complete"] is False
    assert first.json["draws"] == 0
    assert "0 of 10 draws" in first.out
    assert nmcmc(*words, "--json").json["complete"] is True


@pytest.mark.slow
def test_an_interrupt_commits_and_says_how_to_go_on(tmp_path):
    words = ("run", "--mode", "metropolis", "ising", "L=32", "--draws", 10**7, "--out", "run.h5", "spins.every=0")
    process = start(*words, folder=tmp_path)
    assert process.stdout.readline() == "out: run.h5\n"
    wait_for(lambda: open_chain(tmp_path / "run.h5").n_draws > 0)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 130, err
    assert "stopping after this block" in err
    draws = open_chain(tmp_path / "run.h5").n_draws
    last = f"interrupted: {draws} of 10000000 draws are committed in run.h5; the same command again goes on"
    assert out.splitlines()[-1] == last
    assert list(tmp_path.iterdir()) == [tmp_path / "run.h5"]
    process = start(*words, "--time-limit", 15, "--json", folder=tmp_path)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert f"going on from draw {draws}\n" in out
    assert json.loads(out.splitlines()[-1])["draws"] > draws


@pytest.mark.slow
def test_an_interrupt_in_training_keeps_it(tmp_path):
    words = ("run", "--mode", "nis", "ising", "L=6", "prior=lookahead", "train.steps=1000000", "train.batch=16",
             "--out", "run.h5")  # fmt: skip
    process = start(*words, folder=tmp_path)
    assert process.stdout.readline() == "out: run.h5\n"
    assert process.stdout.readline().startswith("sampler: training into ising-")
    wait_for(lambda: any(tmp_path.glob("*.pt")))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 130, err
    assert out.splitlines()[-1] == "interrupted: the training is kept in run.h5; the same command again goes on"
    (path,) = tmp_path.glob("*.pt")
    training = load_checkpoint(path).training
    assert training.step > 0
    assert not training.finished
    assert not open_chain(tmp_path / "run.h5").complete


def wait_for(happened, seconds=240.0):
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_a_training_cut_anywhere_ends_with_the_same_weights(nmcmc, monkeypatch):
    """The second Ctrl-C, which leaves no time to save, at several steps; saves come between any two periods."""
    words = ("train", "ising", "L=4", "train.steps=20", "train.batch=16", "train.reuse=3")
    nmcmc(*words, "--checkpoint", "straight.pt", "--out", "straight.h5")
    train, cuts = cli.neural.train, [2, 5, 9, 10, 17, 10**6]

    def cut_training(*arguments, report, **options):
        def cutting_report(training, steps):
            report(training, steps)
            if training.step >= cuts[0]:
                cuts.pop(0)
                raise KeyboardInterrupt

        return train(*arguments, report=cutting_report, **options | {"save_every": 0.0})

    monkeypatch.setattr(cli.neural, "train", cut_training)
    calls = 0
    while len(cuts) > 1:
        assert "interrupted" in nmcmc(*words, "--checkpoint", "parts.pt", "--out", "parts.h5", code=130).err
        calls += 1
    last = nmcmc(*words, "--checkpoint", "parts.pt", "--out", "parts.h5")
    assert "training goes on from parts.pt, step 15" in last.out
    assert calls == 5
    one, other = (load_checkpoint(name).training for name in ("straight.pt", "parts.pt"))
    assert one.step == other.step == 20
    for name, weights in one.best_weights.items():
        assert weights.numpy().tobytes() == other.best_weights[name].numpy().tobytes()
    for name in ("loss", "free_energy", "ess"):
        np.testing.assert_array_equal(one.history[name], other.history[name])


def test_a_training_can_be_watched_in_the_chain_file(nmcmc, monkeypatch):
    """Steps grow from commit to commit, before the first draw; of two betas the second follows the first."""
    train, commit, seen = cli.neural.train, ChainWriter.commit, []

    def saving_train(*arguments, **options):
        return train(*arguments, **options | {"save_every": 0.0})

    def seen_commit(self, *arguments, **options):
        commit(self, *arguments, **options)
        chain = open_chain(self.path)
        assert chain.asked_draws == 5
        if chain.n_draws == 0 and "step" in chain.training:
            seen.append((int(chain.training["step"][-1]), np.isfinite(chain.training["ess"]).any(axis=0).sum()))

    monkeypatch.setattr(cli.neural, "train", saving_train)
    monkeypatch.setattr(ChainWriter, "commit_is_due", lambda self, seconds: True)
    monkeypatch.setattr(ChainWriter, "commit", seen_commit)
    nmcmc("run", "--mode", "nmcmc", "ising", "L=4", "beta=0.3,0.4", *SMALL, "--draws", 5, "--out", "run.h5")
    first = [step for step, known in seen if known == 1]
    assert len(set(first)) > 1
    assert first == sorted(first)
    assert seen[-1][1] == 2


def test_draws_wait_in_memory_for_a_disk_that_takes_them(nmcmc, monkeypatch):
    """Commits that fail are told and tried again; nothing is lost."""
    words = ("run", "--mode", "metropolis", "ising", "L=4", "--draws", 40, "--warmup", 5)
    nmcmc(*words, "--out", "straight.h5")
    commit, failures = ChainWriter.commit, iter(range(10**6))

    def failing(self, complete=None):
        if next(failures) < 3:
            raise cli.run.ChainError("run.h5: 7 draws could not be committed (No space left on device)")
        return commit(self, complete)

    monkeypatch.setattr(ChainWriter, "commit", failing)
    monkeypatch.setattr("mc.record.RETRY_SECONDS", 0.0)
    run = nmcmc(*words, "--out", "run.h5")
    assert run.err == 3 * "nmcmc: run.h5: 7 draws could not be committed (No space left on device)\n"
    assert_same_chain("straight.h5", "run.h5")
    failures = iter(range(10**6))
    monkeypatch.setattr("mc.record.GIVE_UP_SECONDS", -1.0)
    run = nmcmc(*words, "--out", "lost.h5", code=1)
    assert run.err.count("\n") == 1


def test_a_state_of_another_sampler_is_refused(nmcmc, monkeypatch):
    words = ("run", "--mode", "metropolis", "ising", "L=4", "--warmup", 5, "--out", "run.h5")
    nmcmc(*words, "--draws", 10)

    def restore(self, state):
        raise ValueError("state: streams is missing")

    monkeypatch.setattr("mc.simulate.LocalDriver.restore", restore)
    monkeypatch.setattr("cli.run.compile_driver", lambda driver: None)
    refused = nmcmc(*words, "--draws", 20, code=1)
    assert refused.err == (
        "nmcmc: run.h5 was left by another sampler (state: streams is missing); use --restart or another --out\n"
    )
    assert open_chain("run.h5").n_draws == 10


# --- trained samplers ----------------------------------------------------------------------------------------------


def test_a_second_run_finds_the_checkpoint_of_the_first(nmcmc):
    words = ("ising", "L=4", *SMALL)
    first = nmcmc("run", "--mode", "nmcmc", *words, "--draws", 20, "--json")
    (path,) = Path().glob("*.pt")
    assert f"sampler: training into {path}\n" in first.out
    assert path.name.startswith(f"ising-{open_chain(first.json['out']).hamiltonian().fingerprint[:10]}-beta0.44068")
    second = nmcmc("run", "--mode", "nis", *words, "--draws", 20, "--rng-seed", 5)
    assert f"sampler: {path} (trained before, 6 steps; remove it to train anew)\n" in second.out
    other = nmcmc("run", "--mode", "nis", "ising", "L=4", "train.steps=3", "train.batch=16", "--out", "o.h5")
    assert "training into" in other.out
    assert len(list(Path().glob("*.pt"))) == 2


def test_train_then_run_with_its_checkpoint(nmcmc):
    words = ("ising", "L=4", "beta=0.4", "net.width=16", "net.heads=2", *SMALL)
    trained = nmcmc("train", *words, "--checkpoint", "w.pt", "--json")
    assert trained.json["command"] == "train"
    assert 0 < trained.json["diagnostics"]["ess"] <= 1
    assert 0 < trained.json["diagnostics"]["prior_ess"] <= 1
    last = trained.out.splitlines()[-2]
    assert last.startswith("result: w.pt (history in ising-L=4-beta=0.4-train.h5); sample with: nmcmc run")
    history = open_chain("ising-L=4-beta=0.4-train.h5").training
    np.testing.assert_array_equal(history["step"], [0, 6])
    # The same as a mode, whatever draws and chains a training has no use for.
    again = nmcmc("run", "--mode", "train", *words, "--checkpoint", "w.pt", "--chains", 2)
    assert "sampler: w.pt (trained before, 6 steps; remove it to train anew)" in again.out
    anew = nmcmc("train", *words, "--checkpoint", "w.pt", "--restart")
    assert "sampler: training into w.pt" in anew.out
    run = nmcmc("run", "--mode", "nmcmc", "ising", "L=4", "beta=0.4", "--checkpoint", "w.pt", "--draws", 20, "--json")
    assert "sampler: w.pt (trained before, 6 steps)" in run.out
    config = open_chain(run.json["out"]).config
    assert config["net"]["width"] == 16  # that of the checkpoint
    assert config["train"]["steps"] == 6
    Path("w.pt").rename("moved.pt")
    more = ("run", "--mode", "nmcmc", "ising", "L=4", "beta=0.4", "--checkpoint", "moved.pt", "--draws", 30)
    assert "going on from draw 20" in nmcmc(*more).out
    nmcmc("train", *words, "--checkpoint", "moved.pt", "--restart", "--rng-seed", 1)
    refused = nmcmc(*more[:-1], 40, code=2)
    assert "was begun with other weights" in refused.err


def test_several_betas_have_a_checkpoint_each(nmcmc):
    words = ("run", "--mode", "nmcmc", "ising", "L=4", "T=2.5,4", *SMALL, "--draws", 20, "--json")
    run = nmcmc(*words)
    assert [row["beta"] for row in run.json["results"]] == [0.4, 0.25]
    assert len(list(Path().glob("*.pt"))) == 2
    for name in ("ess", "log_z", "acceptance", "prior_ess", "rescore_error", "longest_rejection"):
        assert len(run.json["diagnostics"][name]) == 2
    assert isinstance(run.json["diagnostics"]["lowest_energy"], float)
    training = open_chain(run.json["out"]).training
    assert training["ess"].shape == (2, 2)
    assert np.isfinite(training["ess"]).all()


def test_a_checkpoint_that_another_run_trains_is_refused_before_anything_is_written(nmcmc):
    words = ("ising", "L=4", *SMALL)
    Path("elsewhere").mkdir()
    nmcmc("train", *words, "--out", "elsewhere/t.h5")
    (name,) = (path.name for path in Path("elsewhere").glob("*.pt"))
    lock = WriterLock(Path(name).resolve())
    refused = nmcmc("run", "--mode", "nmcmc", *words, "--out", "run.h5", code=2)
    assert f"{name} is being written by process {os.getpid()}" in refused.err
    assert not Path("run.h5").exists()
    lock.release()


def test_nothing_trained_is_the_prior(nmcmc):
    nmcmc("run", "--mode", "nis", "ising", "L=4", "net=none", "--draws", 30, "--out", "a.h5")
    nmcmc("run", "--mode", "nis", "ising", "L=4", "train.steps=0", "--draws", 30, "--out", "b.h5")
    nmcmc("run", "--mode", "prior", "ising", "L=4", "--draws", 30, "--out", "c.h5")
    assert_same_chain("a.h5", "c.h5")
    one, other = open_chain("a.h5").sample_stats["log_q"], open_chain("b.h5").sample_stats["log_q"]
    np.testing.assert_allclose(one, other, atol=1e-4)


def test_learning_from_a_chain(nmcmc):
    nmcmc("run", "--mode", "metropolis", "ising", "L=4", "--draws", 50, "--out", "mc.h5")
    for objective in ("likelihood", "soft-likelihood"):
        words = ("ising", "L=4", f"train.objective={objective}", "train.data=mc.h5", *SMALL)
        assert 0 < nmcmc("train", *words, "--json").json["diagnostics"]["ess"] <= 1
        Path("ising-L=4-train.h5").unlink()


def test_the_published_recipe(nmcmc):
    words = ("ising", "L=4", "train.recipe=published", "train.steps=2", "train.batch=16", "--draws", 5)
    run = nmcmc("run", "--mode", "nmcmc", *words)
    config = open_chain(run.out.split()[1]).config
    assert config["net"]["width"] == 128
    assert config["train"]["objective"] == "reverse-kl"
    refused = nmcmc("run", "--mode", "nmcmc", "ising", "L=4", "train.steps=2", "train.batch=16", code=2)
    assert "holds another run" in refused.err


def test_check_judges_the_sampler_on_monte_carlo_states(nmcmc):
    for words, name in ((("ising", "L=4"), "Wolff"), (("ea2d", "L=4", "beta=0.6"), "parallel tempering")):
        run = nmcmc("run", "--mode", "prior", *words, "prior=lookahead", "--draws", 200, "--check", "--json")
        assert f"check: log q on 4096 states of {name}" in run.out
        found = run.json["diagnostics"]
        assert found["ess_mc"] == pytest.approx(found["ess"], abs=0.15)
        assert found["kl_forward"] > 0
    again = nmcmc("run", "--mode", "prior", "ising", "L=4", "prior=lookahead", "--draws", 200, "--check")
    assert "check: " in again.out  # also of a chain that is complete


# --- what is said --------------------------------------------------------------------------------------------------


def test_the_object_of_json_has_all_that_was_promised(nmcmc):
    words = ("run", "--mode", "nmcmc", "ising", "L=4", "beta=0.3", *SMALL, "--draws", 50, "--check", "--json")
    run = nmcmc(*words, "--quiet")
    assert run.out.count("\n") == 1
    assert run.err == ""
    data = run.json
    assert {name: data[name] for name in ("command", "mode", "model", "complete")} == {
        "command": "run", "mode": "nmcmc", "model": "ising", "complete": True,
    }  # fmt: skip
    assert Path(data["out"]).name == "ising-L=4-beta=0.3-nmcmc.h5"
    (row,) = data["results"]
    assert row["beta"] == 0.3
    expected = {"energy", "magnetization", "abs_magnetization", "m2", "m4", "binder", "heat_capacity",
                "susceptibility", "log_z", "free_energy", "entropy"}  # fmt: skip
    assert set(row) == expected | {"beta"}
    for name in expected:
        assert set(row[name]) == {"mean", "error", "tau_int", "tau_int_error", "n_eff", "r_hat", "status"}
        assert row[name]["error"] > 0
    assert row["log_z"]["tau_int"] is None  # NaN is null
    assert set(data["diagnostics"]) >= {
        "ess", "dF", "ess_mc", "kl_forward", "acceptance", "log_z", "log_z_error", "log_z_exact", "log_z_sigma",
        "prior_ess", "lowest_energy", "longest_rejection", "rescore_error",
    }  # fmt: skip
    assert all(isinstance(value, float | int) for value in data["diagnostics"].values())
    assert set(data["seconds"]) == {"build", "train", "sample", "wall"}
    assert all(value >= 0 for value in data["seconds"].values())
    assert data["seconds"]["train"] > 0
    stored = open_chain(data["out"])
    assert stored.observables["energy"]["mean"][0] == row["energy"]["mean"]
    assert stored.diagnostics["ess_mc"][0] == data["diagnostics"]["ess_mc"]


def test_quiet_says_nothing(nmcmc):
    run = nmcmc("run", "--mode", "wolff", "ising", "L=4", "--draws", 5, "--quiet")
    assert (run.out, run.err) == ("", "")


def test_analyze_and_status_of_a_run(nmcmc):
    nmcmc("run", "--mode", "pt", "ea2d", "L=4", "beta=0.1:1:6", "--draws", 60, "--out", "run.h5")
    run = nmcmc("analyze", "run.h5", "--json")
    assert run.out.startswith("run.h5: mode pt, 4 chains x 60 draws x 6 temperatures, complete\n")
    assert run.out.count("  energy  ") == 6
    assert [row["beta"] for row in run.json["results"]] == pytest.approx(np.linspace(0.1, 1, 6))
    assert run.json["command"] == "analyze"
    status = nmcmc("status", "run.h5", "run.h5", "--json")
    assert status.out.count("run.h5: mode pt, 4 chains x 60 draws x 6 temperatures, complete") == 2
    assert {"command": "status", "out": "run.h5", "mode": "pt", "draws": 60, "chains": 4,
            "complete": True}.items() <= status.json.items()  # fmt: skip


def test_analyze_says_the_same_as_values_and_cites(nmcmc):
    nmcmc("run", "--mode", "nis", "ising", "L=4", "beta=0.3,0.4", "net=none", "--draws", 50, "--out", "run.h5")
    rows = list(csv.DictReader(nmcmc("analyze", "run.h5", "--csv").out.splitlines()))
    known = nmcmc("analyze", "run.h5", "--json").json["results"]
    for row in rows:
        (found,) = [entry[row["observable"]] for entry in known if entry["beta"] == float(row["beta"])]
        assert [float(row["mean"]), float(row["error"])] == [found["mean"], found["error"]]
        assert row["status"] == found["status"]
    assert len(rows) == sum(len(entry) - 1 for entry in known)
    assert {"entropy", "log_z", "free_energy", "binder", "heat_capacity"} <= {row["observable"] for row in rows}
    cited = nmcmc("analyze", "run.h5", "--cite").out
    assert cited.count("@article{") == cited.count("\n}") > 1
    assert "nicoli2020" in cited
    refused = nmcmc("analyze", "run.h5", "--csv", "--json", code=2)
    assert "give one of them" in refused.err


def test_exact_values(nmcmc):
    run = nmcmc("exact", "ising", "L=4", "beta=0.2:0.4:3", "--json")
    assert [row["beta"] for row in run.json["results"]] == pytest.approx([0.2, 0.3, 0.4])
    assert run.out.count("ln Z") == 3
    assert nmcmc("exact", "sk", "N=6", "T=2", "--json").json["results"][0]["method"] == "enumeration"


def test_models_lists_every_model_and_setting(nmcmc):
    out = nmcmc("models").out
    for name in ("ising", "ea2d", "ea3d", "sk", "pspin", "rrg", "file", *settings.SETTINGS):
        assert name in out
    assert all(len(line) < 120 for line in out.splitlines())


def test_frozen_chains_do_not_look_converged(nmcmc):
    words = ("run", "--mode", "metropolis", "ising", "L=8", "beta=5", "--draws", 100, "init=random", "--json")
    run = nmcmc(*words)
    row = run.json["results"][0]
    assert row["magnetization"]["status"] == "not converged"
    assert row["magnetization"]["error"] > 0.1
    assert row["magnetization"]["r_hat"] is None or row["magnetization"]["r_hat"] > 1.5
    (line,) = [line for line in run.out.splitlines() if line.startswith("not converged: ")]
    assert line.startswith("not converged: 4 chains disagree: R-hat ")
    assert "use --mode pt" in line
    assert "nothing to object" not in run.out


def test_options_without_effect_are_named(nmcmc):
    run = nmcmc("run", "--mode", "prior", "ising", "L=4", "local=3", "--thin", 7, "--warmup", 9, "--draws", 5)
    for name in ("local=", "--thin", "--warmup"):
        assert f"note: {name} has no effect in mode prior\n" in run.out
    assert "complete: 5 draws" in nmcmc("run", "--mode", "prior", "ising", "L=4", "--draws", 5).out


def test_progress_lines_in_a_log(nmcmc, monkeypatch):
    monkeypatch.setattr(cli.output, "LINE_EVERY", 0.0)
    run = nmcmc("run", "--mode", "nmcmc", "ising", "L=4", "prior=lookahead", *SMALL, "--draws", 50)
    lines = run.err.splitlines()
    assert re.match(r"training beta=0.440687: 1 of 6, [\d.]+/s, about .* left, ESS 0.", lines[0])
    rest = r"[\d.e+]+/s, about \d+ s left, E/N -1.\d+ J, acceptance [\d.]+, ESS [\d.]+"
    assert any(re.fullmatch(rf"sampling: \d+ of 50, {rest}", line) for line in lines)
    assert re.fullmatch(rf"sampling: 50 of 50, {rest}", lines[-1])


def test_a_bar_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with cli.output.Screen().progress("sampling", 10, 3) as update:
        update(7, "ESS 0.5")
    assert "sampling" in capsys.readouterr().err


def test_a_reader_that_leaves_early_is_no_error(tmp_path):
    process = start("models", folder=tmp_path)
    process.stdout.close()
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) in (0, 1)


# --- parts ---------------------------------------------------------------------------------------------------------


def test_temperatures_are_linear_in_the_variable_named():
    assert values.betas("beta", "0.1:0.5:3") == pytest.approx((0.1, 0.3, 0.5))
    assert values.betas("T", "1:2:3") == pytest.approx((1.0, 1 / 1.5, 0.5))
    assert values.betas("beta", "0.5:0.1:2") == pytest.approx((0.5, 0.1))
    assert values.betas("T", "2,4") == (0.5, 0.25)
    assert values.betas("beta", "0") == (0.0,)


def test_ising_has_a_default_temperature_and_other_models_none():
    assert arguments.parse(["ising", "L=4"])[0].betas == pytest.approx((0.44068679350977,), rel=1e-13)
    assert arguments.parse(["ising", "L=4", "dim=3"])[0].betas == (0.221654626,)


def test_what_differs_is_said_in_the_words_of_the_command_line():
    difference = configuration.first_difference
    assert difference({"a": 1}, {"a": 1}) == ""
    assert difference({"beta": [0.1, 0.2]}, {"beta": [0.1]}) == "beta is 0.1,0.2, not 0.1"
    assert difference({"train": {"learning_rate": 1e-3}}, {"train": {"learning_rate": 3e-3}}) == (
        "train.lr is 0.001, not 0.003"
    )
    assert difference({"parameters": {"L": 4}, "fingerprint": "a"}, {"parameters": {"L": 5}, "fingerprint": "b"}) == (
        "L is 4, not 5"
    )
    assert difference({"parameters": {"L": 4}, "fingerprint": "a"}, {"parameters": {}, "fingerprint": "a"}) == ""
    assert difference({}, {"train": {"steps": 1}}) == "train is not given, not given"


def test_tables_keep_their_columns_whatever_the_numbers():
    odd = Estimate(-1.234567e10, 1.2e100, 1e7, math.nan, 1e12, 826.7555, 10, "not converged", "do something")
    good = Estimate(1.0, 0.1, 0.5, 0.1, 100.0, 1.0, 100)
    found = Results(np.array([0.1, 0.2]), {"energy": [odd, good], "magnetization": [good, odd]})
    lines = tables.table(found)
    assert all(len(line.split()) >= 7 for line in lines)
    for line in lines:  # numbers end where their column does, and a blank follows
        assert [line[end] != " " and line[end + 1 : end + 2].strip() for end in (9, 43, 53, 65, 74, 83)] == [""] * 6
    assert tables.verdict(found) == ["not converged: energy, magnetization at beta 0.1, 0.2: do something"]
    assert tables.short_table(found)[1].endswith("not converged")
    assert tables.verdict(Results(np.array([0.1]), {"energy": [good]})) == [tables.GOOD]


def test_the_verdict_names_what_no_error_bar_shows():
    good = Estimate(1.0, 0.1, 0.5, 0.1, 100.0, 1.0, 100)
    found = Results(np.array([0.1, 0.2]), {"log_z": [good, good]}, {"log_z_exact": [1.3, 1.6]})
    (line,) = tables.verdict(found)
    assert line.startswith("wrong: log_z at beta 0.2 is over 5 sigma off its exact value")
    found = Results(np.array([0.1]), {"log_z": [good]}, {"ess": [0.9], "ess_mc": [0.1]})
    (line,) = tables.verdict(found)
    assert line.startswith("dropped modes: ESS is 0.900 on the sampler's own draws but 0.100 on Monte Carlo states")


# --- what is not imported ------------------------------------------------------------------------------------------

WITHOUT_TORCH = """
import sys
import cli.main
def call(*words):
    sys.argv = ["nmcmc", *words]
    try:
        cli.main.main()
    except SystemExit as ended:
        assert not ended.code, words
call("--help")
call("run", "--help")
assert not {"torch", "numpy", "numba"} & set(sys.modules), "help"
call("models")
call("exact", "ising", "L=4")
call("run", "--mode", "metropolis", "ising", "L=4", "--draws", "5", "--out", "run.h5", "--json")
call("run", "--mode", "pt", "ising", "L=4", "beta=0.1,0.2", "--draws", "5")
call("analyze", "run.h5")
call("status", "run.h5")
assert "torch" not in sys.modules
"""


def test_classical_commands_never_import_torch(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", WITHOUT_TORCH]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
