"""`nmcmc status`: how far a run is, told without a lock and without standing in the way of a writer."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

import mc
from cli.status import progress, writer_of
from mc.chain import create_chain, resume_chain
from mc.chain_lock import WriterLock

RUN = ("run", "--mode", "metropolis", "ising", "L=4", "beta=0.4", "--chains", 2, "--warmup", 10, "--thin", 1,
       "--out", "run.h5", "--quiet")  # fmt: skip


def objects(out):
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


@pytest.fixture
def half_done(tmp_path):
    """A writer that has committed 40 of 100 draws of 2 chains in 4 CPU seconds."""
    writer = create_chain(
        tmp_path / "half.h5", mode="nmcmc", command="", config={}, rng_seed=0, hamiltonian=mc.models.ising(L=4),
        betas=np.array([0.3, 0.4]), n_chains=2, posterior={"energy": ({}, np.float64)},
        sample_stats=dict.fromkeys(("accepted", "log_weight_proposed"), ({}, np.float64)),
    )  # fmt: skip
    shape = (2, 40, 2)
    accepted = np.zeros(shape)
    accepted[:, ::4] = 1.0
    log_weight = np.zeros(shape)
    log_weight[:, ::2, 1] = np.log(3.0)
    writer.append({"energy": np.zeros(shape)}, {"accepted": accepted, "log_weight_proposed": log_weight})
    writer.set_asked(100)
    writer.set_seconds(build=0.5, train=1.5, sample=4.0)
    writer.commit()
    yield writer
    writer.close()


def test_a_run_half_way_says_how_far_it_is_and_what_is_left(nmcmc, half_done):
    """20 draws of two chains a CPU second, 120 left; a quarter accepted; ESS of weights 1 and 3: (4/2)^2 / (10/2)."""
    said = nmcmc("status", "half.h5", "--json")
    line = said.out.splitlines()[0]
    assert line.startswith("half.h5: mode nmcmc, 2 chains x 40 draws x 2 temperatures, incomplete; ")
    assert "40 of 100 draws (40 %)" in line
    assert f"process {os.getpid()} is writing" in line
    assert "6 CPU s; 20 draws/CPU s; about 6 s of CPU left" in line
    assert "acceptance 0.25" in line
    assert "ESS 0.8 to 1" in line
    found = said.json
    assert (found["draws"], found["asked"], found["running"], found["complete"]) == (40, 100, True, False)
    assert (found["seconds"], found["rate"], found["left"]) == (6.0, 20.0, 6.0)
    assert found["recent"]["ESS"] == pytest.approx([1.0, 0.8])
    assert 0 <= found["last_commit"] < 600


def test_asking_takes_no_lock(half_done, monkeypatch):
    """Whoever asks touches neither the chain file nor its lock, so that no writer that starts then can fail."""
    half_done.close()
    path = half_done.path
    before = (path.stat().st_mtime_ns, sorted(os.listdir(path.parent)))
    monkeypatch.setattr("mc.chain_lock.fcntl.flock", lambda *arguments: pytest.fail("a lock was asked for"))
    progress(mc.open_chain(path))
    assert (path.stat().st_mtime_ns, sorted(os.listdir(path.parent))) == before


def test_a_writer_is_seen_while_it_holds_its_lock_and_not_after(half_done):
    path = half_done.path
    assert writer_of(path) == (f"process {os.getpid()}", False)
    half_done.close()
    assert writer_of(path) == ("", False)
    lock = WriterLock(path)
    assert writer_of(path)[0]
    lock.release()
    assert writer_of(path) == ("", False)


def test_a_lock_file_left_by_a_killed_writer_is_no_writer(half_done):
    half_done.close()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    lock = half_done.path.with_name("half.h5.lock")
    lock.write_text(f"{gone.pid} {socket.gethostname()}\n")
    assert writer_of(half_done.path) == ("", False)
    lock.write_text("nonsense")
    assert writer_of(half_done.path) == ("", False)
    lock.write_text("")
    assert writer_of(half_done.path) == ("", False)


def test_a_writer_on_another_machine_may_have_died(nmcmc, half_done):
    half_done.close()
    half_done.path.with_name("half.h5.lock").write_text("17 elsewhere.example\n")
    line = nmcmc("status", "half.h5").out
    assert "process 17 on elsewhere.example is writing, if it is still alive" in line


def test_acceptance_is_that_of_the_last_draws(half_done):
    """Of the last 200: 500 draws that accept everything leave nothing of the quarter before."""
    shape = (2, 500, 2)
    half_done.append(
        {"energy": np.zeros(shape)}, {"accepted": np.ones(shape), "log_weight_proposed": np.zeros(shape)}
    )
    half_done.commit()
    assert progress(mc.open_chain(half_done.path)).recent["acceptance"].tolist() == [1.0, 1.0]


def test_a_run_that_is_done_has_nothing_left(nmcmc):
    nmcmc(*RUN, "--draws", 40)
    said = nmcmc("status", "run.h5", "--json")
    assert "40 of 40 draws (100 %)" in said.out
    assert "complete" in said.out
    assert "writing" not in said.out
    assert "left" not in said.out.splitlines()[0]
    assert said.json["left"] == 0
    assert said.json["running"] is False


def test_a_run_that_stopped_early_says_that_nobody_writes(nmcmc, half_done):
    half_done.close()
    said = nmcmc("status", "half.h5", "--json")
    assert "nobody is writing" in said.out
    assert said.json["running"] is False


def test_training_shows_its_steps_and_ess(nmcmc, tmp_path):
    """While there are no draws; of several files each has its line and its object."""
    writer = create_chain(
        tmp_path / "t.h5", mode="nis", command="", config={}, rng_seed=0, hamiltonian=mc.models.ising(L=4),
        betas=np.array([0.4]), n_chains=1, posterior={"energy": ({}, np.float64)},
        sample_stats={"log_weight": ({}, np.float64)},
    )  # fmt: skip
    writer.set_asked(10)
    writer.set_group("training", {"step": np.array([0, 50, 100]), "ess": np.array([0.1, 0.5, 0.75])})
    writer.commit()
    writer.close()
    with resume_chain(tmp_path / "t.h5"):
        said = nmcmc("status", "t.h5", "t.h5", "--json")
    lines = said.out.splitlines()
    assert "100 training steps" in lines[0]
    assert "0 of 10 draws (0 %)" in lines[0]
    assert "ESS 0.75 in training" in lines[0]
    assert "is writing" in lines[0]
    assert [found["training_steps"] for found in objects(said.out)] == [100, 100]
    assert objects(said.out)[0]["training_ess"] == [0.75]
