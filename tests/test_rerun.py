"""`nmcmc rerun`: the same draws bit for bit from the configuration in a file; another run is refused, naming why."""

import json
import os
import shutil

import h5py
import numpy as np
import pytest

import mc
from cli.configuration import first_difference

COMMON = ("--chains", 2, "--draws", 20, "--rng-seed", 5, "--quiet", "--out", "a.h5")
RUNS = {
    "metropolis": ("metropolis", "ising", "L=4", "beta=0.3,0.5"),
    "wolff": ("wolff", "ising", "L=6"),
    "tempering with replicas": ("pt", "ea2d", "L=4", "seed=1", "T=0.5:2:3", "replicas=2", "--warmup", 100),
    "population": ("population", "ea2d", "L=4", "seed=1", "beta=0:1:4"),
    "importance sampling": ("nis", "ising", "L=4", "beta=0.4", "prior=local", "net=none"),
}
TRAINED = ("nmcmc", "ising", "L=4", "beta=0.4", "prior=local", "train.steps=6", "train.batch=16", "net.width=8",
           "net.heads=2", "--warmup", 5)  # fmt: skip


def assert_same_draws(one, other):
    a, b = mc.open_chain(one), mc.open_chain(other)
    assert a.n_draws == b.n_draws > 0
    assert a.betas.tobytes() == b.betas.tobytes()
    for group in ("posterior", "sample_stats"):
        first, second = getattr(a, group), getattr(b, group)
        assert first.keys() == second.keys()
        for name in first:
            assert first[name].tobytes() == second[name].tobytes(), name


@pytest.fixture
def edited():
    """edited(path, command=..., config=...): attributes of a chain file changed; config is updated entry by entry."""

    def change(path, config=None, **attributes):
        with h5py.File(path, "r+") as file:
            for name, value in attributes.items():
                file.attrs[name] = value
            if config:
                file.attrs["config"] = json.dumps(json.loads(file.attrs["config"]) | config)

    return change


@pytest.mark.parametrize("words", RUNS.values(), ids=RUNS)
def test_a_run_done_again_draws_the_same_bits(nmcmc, words, tmp_path):
    nmcmc("run", "--mode", *words, *COMMON)
    before = (tmp_path / "a.h5").read_bytes()
    said = nmcmc("rerun", "a.h5").out
    assert "the same 20 draws a chain as in a.h5, bit for bit" in said
    assert "result: a-rerun.h5" in said
    assert_same_draws("a.h5", "a-rerun.h5")
    assert (tmp_path / "a.h5").read_bytes() == before
    mine, new = mc.open_chain("a.h5"), mc.open_chain("a-rerun.h5")
    assert first_difference(mine.config, new.config) == ""
    # What is left can be done again in its turn: the file says the whole command.
    assert new.attributes["command"].startswith("nmcmc run --mode")
    assert "--out a-rerun.h5" in new.attributes["command"]


def test_a_training_done_again_makes_the_same_weights_and_draws(nmcmc, tmp_path):
    """In another folder the sampler is trained anew; beside the first file its checkpoint is found."""
    nmcmc("run", "--mode", *TRAINED, *COMMON)
    (tmp_path / "other").mkdir()
    said = nmcmc("rerun", "a.h5", "--out", "other/a.h5").out
    assert "training into other/" in said
    assert_same_draws("a.h5", "other/a.h5")
    assert "trained before, 6 steps" in nmcmc("rerun", "a.h5").out
    assert_same_draws("a.h5", "a-rerun.h5")


def test_what_a_pilot_chose_is_not_chosen_again(nmcmc):
    """Its choice rests on measured times; the prior, the bond and the network are taken from the file."""
    nmcmc("run", "--mode", "nis", "ising", "L=4", "beta=0.3", *COMMON)
    said = nmcmc("rerun", "a.h5").out
    assert "pilot" not in said
    assert f"prior={mc.open_chain('a.h5').config['net']['prior']}" in said
    assert_same_draws("a.h5", "a-rerun.h5")


def test_a_run_with_a_checkpoint_needs_that_checkpoint(nmcmc, tmp_path):
    nmcmc("run", "--mode", *TRAINED, *COMMON)
    weights = next(tmp_path.glob("*.pt")).rename(tmp_path / "w.pt")
    nmcmc("run", "--mode", "nis", "ising", "L=4", "beta=0.4", "--checkpoint", "w.pt", *COMMON[:-1], "b.h5")
    nmcmc("rerun", "b.h5")
    assert_same_draws("b.h5", "b-rerun.h5")
    weights.rename(tmp_path / "v.pt")
    refused = nmcmc("rerun", "b.h5", "--out", "c.h5", code=2).err
    assert "sampled with --checkpoint w.pt, which is not there" in refused
    assert not os.path.exists("c.h5")


def test_an_interrupted_run_is_done_again_to_the_draws_it_asked_for(nmcmc, edited):
    nmcmc("run", "--mode", *RUNS["metropolis"], *COMMON)
    edited("a.h5", asked_draws=30)
    said = nmcmc("rerun", "a.h5").out
    assert "the same 20 draws" in said
    assert mc.open_chain("a-rerun.h5").n_draws == 30
    shutil.copy("a-rerun.h5", "whole.h5")
    assert "complete: 30 draws a chain are there" in nmcmc("rerun", "a.h5").out  # the rules of run: nothing to do
    assert_same_draws("whole.h5", "a-rerun.h5")


def test_defaults_of_another_day_make_no_other_run(nmcmc, monkeypatch):
    """Sweeps between draws and before the first are those of the file, whatever they would be today."""
    nmcmc("run", "--mode", "metropolis", "ising", "L=4", "--chains", 2, "--draws", 10, "--out", "a.h5", "--quiet")
    monkeypatch.setattr("cli.options.THIN_OF", {"packed": 3, "bit-planes": 3, "lanes": 3})
    monkeypatch.setattr("cli.options.THIN", 3)
    monkeypatch.setattr("cli.options.WARMUP_CLASSICAL", 7)
    nmcmc("rerun", "a.h5")
    assert_same_draws("a.h5", "a-rerun.h5")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"fingerprint": "0" * 64}, "the Hamiltonian is"),
        ({"kernel": "abacus"}, "kernel=abacus"),
        ({"settings": {"init": "random"}}, "spins.every is not given, not 1"),
        ({"settings": {"init": "random", "spins.every": 1, "colour": "red"}}, "its setting colour= is not known"),
        ({"model": "potts"}, "was not made by nmcmc run"),
    ],
)
def test_what_would_be_another_run_today_is_refused_naming_it(nmcmc, edited, change, named):
    nmcmc("run", "--mode", *RUNS["metropolis"], *COMMON)
    edited("a.h5", config=change)
    refused = nmcmc("rerun", "a.h5", code=2).err
    assert named in refused
    assert refused.count("\n") == 1
    assert not os.path.exists("a-rerun.h5")


def test_couplings_that_changed_in_their_file_are_noticed(nmcmc, tmp_path):
    bonds = dict(i=np.array([0, 1, 2]), j=np.array([1, 2, 3]), J=np.array([1.0, -1.0, 1.0]))
    np.savez("j.npz", **bonds)
    nmcmc("run", "--mode", "metropolis", "file", "path=j.npz", "beta=0.5", *COMMON)
    nmcmc("rerun", "a.h5")
    assert_same_draws("a.h5", "a-rerun.h5")
    np.savez("j.npz", **(bonds | {"J": np.array([1.0, 1.0, 1.0])}))
    assert "the Hamiltonian is" in nmcmc("rerun", "a.h5", "--out", "b.h5", code=2).err
    (tmp_path / "j.npz").unlink()
    assert "j.npz" in nmcmc("rerun", "a.h5", "--out", "b.h5", code=2).err


def test_draws_that_are_not_the_same_are_told(nmcmc):
    """One bit of one energy in the old file: exit code 1, with the draw and the variable; nothing is hidden."""
    nmcmc("run", "--mode", *RUNS["metropolis"], *COMMON)
    with h5py.File("a.h5", "r+") as file:
        energy = file["posterior/energy"]
        energy[1, 13, 0] = np.nextafter(energy[1, 13, 0], np.inf)
    told = nmcmc("rerun", "a.h5", code=1).err
    assert "posterior/energy differs from draw 13 on" in told


def test_json_is_the_last_line_and_says_whether_the_draws_are_the_same(nmcmc):
    nmcmc("run", "--mode", *RUNS["wolff"], *COMMON)
    found = nmcmc("rerun", "a.h5", "--quiet", "--json").json
    assert (found["command"], found["out"], found["rerun_of"], found["same"]) == ("rerun", "a-rerun.h5", "a.h5", True)
    assert found["results"][0]["energy"]["mean"] == mc.open_chain("a.h5").posterior["energy"].mean()


def test_files_of_several_runs_are_refused_with_a_remedy(nmcmc):
    for seed in (1, 2):
        nmcmc("run", "--mode", "wolff", "ising", "L=4", "--rng-seed", seed, "--draws", 10, "--chains", 2,
              "--out", f"{seed}.h5", "--quiet")  # fmt: skip
    nmcmc("merge", "1.h5", "2.h5", "--out", "m.h5")
    refused = nmcmc("rerun", "m.h5", code=2).err
    assert "merged from several runs (1.h5, 2.h5); rerun these and merge again" in refused
    nmcmc("run", "--mode", "metropolis", "ea2d", "L=4", "instances=0:2", "beta=0.5", "--chains", 1, "--draws", 5,
          "--out", "e.h5", "--quiet")  # fmt: skip
    refused = nmcmc("rerun", "e.h5", code=2).err
    assert "is an ensemble of many runs" in refused
    assert "nmcmc run --mode metropolis" in refused
    assert "never touched" in nmcmc("rerun", "1.h5", "--out", "1.h5", code=2).err
