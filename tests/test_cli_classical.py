"""The classical modes on the command line: what they say, what they leave in the file, and how they go on."""

from pathlib import Path

import numpy as np
import pytest

import cli.output
from mc.chain import open_chain
from tests.test_cli import assert_same_chain

GLASS = ("run", "--mode", "pt", "ea2d", "L=3", "seed=2")


def test_tempering_with_replicas_says_and_keeps_what_it_found(nmcmc):
    run = nmcmc(*GLASS, "beta=0:1.2:6", "replicas=2", "--draws", 120, "--out", "a.h5", "--json")
    assert "kernel: bit planes (fastest of " in run.out
    assert "Houdayer moves: at beta" in run.out
    assert "equilibrated: " in run.out
    assert run.json["equilibrated"][0].keys() == {"status", "reason"}
    found = run.json["diagnostics"]
    assert found["log_z"][0] == pytest.approx(9 * np.log(2))
    assert found["log_z_sigma"][0] is None
    assert max(abs(z) for z in found["log_z_sigma"][1:]) < 6
    assert found["round_trips"] > 0
    row = run.json["results"][-1]
    for name in ("overlap_binder", "chi_sg", "link_overlap", "entropy", "log_z", "q2"):
        assert row[name]["mean"] is not None
    chain = open_chain("a.h5")
    assert chain.posterior["energy"].shape == (4, 120, 6, 2)
    assert chain.spins.shape == (4, 120, 6, 2, 9)
    assert chain.posterior["overlap"] == pytest.approx(
        (chain.spins[..., 0, :] * chain.spins[..., 1, :]).mean(axis=-1)
    )
    distribution = chain.observables["overlap_distribution"]
    assert distribution["mean"].sum(axis=1) == pytest.approx(1.0)
    assert distribution["mean"][-1] @ distribution["q"] ** 2 == pytest.approx(row["q2"]["mean"])
    lowest = chain.diagnostics["lowest_state"]
    assert chain.hamiltonian().energy(lowest) == found["lowest_energy"] <= chain.posterior["energy"].min()
    assert "equilibrated: " in nmcmc("analyze", "a.h5").out


def test_a_tuned_ladder_is_in_the_file_and_stopped_anywhere_it_is_the_same(nmcmc, monkeypatch):
    words = (*GLASS, "beta=0.1,0.2,0.3,1.5", "ladder=tuned", "--warmup", 300, "--draws", 12)
    straight = nmcmc(*words, "--out", "straight.h5")
    chain = open_chain("straight.h5")
    assert (chain.betas[0], chain.betas[-1]) == (0.1, 1.5)
    assert chain.betas[2] > 0.4
    assert f"{chain.betas[2]:.6g}" in straight.out
    asked = iter(range(10**6))
    monkeypatch.setattr(cli.output.Stopper, "__call__", lambda self: next(asked) % 2 == 1)
    for _ in range(60):
        nmcmc(*words, "--out", "parts.h5")
        if open_chain("parts.h5").complete:
            break
    assert_same_chain("straight.h5", "parts.h5")
    assert (open_chain("parts.h5").betas == chain.betas).all()


def test_a_population_is_whole_or_refused(nmcmc, monkeypatch):
    words = ("run", "--mode", "population", "sk", "N=10", "seed=1", "beta=0:1:6", "--draws", 40)
    run = nmcmc(*words, "--out", "a.h5", "--json")
    found = run.json["diagnostics"]
    assert found["family_entropy"][0] == pytest.approx(np.log(40))
    assert found["rho_t"][0] == pytest.approx(1.0)
    assert abs(found["log_z_sigma"][-1]) < 6
    assert "holds another run (--draws is 40, not 50)" in nmcmc(*words[:-1], 50, "--out", "a.h5", code=2).err
    asked = iter(range(10**6))
    monkeypatch.setattr(cli.output.Stopper, "__call__", lambda self: next(asked) % 2 == 1)
    for _ in range(60):
        nmcmc(*words, "--out", "parts.h5")
        if open_chain("parts.h5").complete:
            break
    assert_same_chain("a.h5", "parts.h5")


def test_annealing_needs_no_temperature(nmcmc):
    run = nmcmc("run", "--mode", "anneal", "sk", "N=12", "seed=1", "--draws", 30, "--out", "a.h5", "--json")
    exact = nmcmc("exact", "sk", "N=12", "seed=1", "beta=1", "--json").json["results"][0]
    assert run.json["diagnostics"]["lowest_energy"] == pytest.approx(exact["ground_energy"])
    assert len(run.json["results"]) == 48
    assert run.json["equilibrated"] == []


def test_a_start_from_another_file_is_needed_once(nmcmc):
    words = ("run", "--mode", "pt", "ea2d", "L=3", "beta=0.2,0.6", "replicas=2", "--warmup", 20)
    nmcmc(*words, "--draws", 5, "--out", "a.h5")
    nmcmc(*words, "--draws", 5, "init=a.h5", "--out", "b.h5")
    Path("a.h5").unlink()
    nmcmc(*words, "--draws", 9, "init=a.h5", "--out", "b.h5")
    assert open_chain("b.h5").n_draws == 9
    assert "init=a.h5" in nmcmc(*words, "--draws", 9, "init=a.h5", "--out", "c.h5", code=2).err
    assert not Path("c.h5").exists()


def test_the_kernel_by_name_is_the_same_run_as_the_kernel_by_choice(nmcmc):
    words = ("run", "--mode", "metropolis", "ea2d", "L=4", "beta=0.5", "--draws", 5, "--thin", 3, "--warmup", 5)
    words = (*words, "--out", "a.h5")
    nmcmc(*words)
    assert "complete: 5 draws" in nmcmc(*words, "kernel=bit-planes").out
    assert "kernel is bit-planes, not graph" in nmcmc(*words, "kernel=graph", code=2).err
