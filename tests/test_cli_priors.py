"""The command line with priors, residuals and block moves: what the pilot decides, and that runs go on with it."""

import numpy as np
import pytest

import cli.plan
from mc.chain import open_chain
from mc.exact import exact
from mc.models import build


def near(results, name, value, sigmas=5.0):
    """Whether an observable agrees with its exact value."""
    row = results["results"][0][name]
    return abs(row["mean"] - value) < sigmas * row["error"]


def test_the_pilot_takes_the_smallest_bond_that_does_and_trains_nothing(nmcmc):
    run = nmcmc("run", "--mode", "nmcmc", "ising", "L=8", "--draws", 500, "--json")
    assert "pilot of 1024 draws: boundary-mps chi=4 (two-leg): ESS " in run.out
    assert "no training: the prior alone reaches" in run.out
    assert "sampler: prior=boundary-mps prior.chi=4 prior.form=two-leg net=none" in run.out
    assert run.json["diagnostics"]["ess"] > 0.95
    assert near(run.json, "log_z", run.json["diagnostics"]["log_z_exact"])
    assert open_chain("ising-L=8-nmcmc.h5").config["net"]["chi"] == 4


def test_a_run_that_goes_on_asks_no_pilot_again(nmcmc, monkeypatch):
    words = ("run", "--mode", "nmcmc", "ea2d", "L=6", "beta=0.9", "--chains", 2)
    nmcmc(*words, "--draws", 600, "--out", "straight.h5")
    nmcmc(*words, "--draws", 300, "--out", "parts.h5")

    def never(*args, **kwargs):
        raise AssertionError("a pilot")

    monkeypatch.setattr(cli.plan, "choose_prior", never)
    nmcmc(*words, "--draws", 600, "--out", "parts.h5")
    straight, parts = open_chain("straight.h5"), open_chain("parts.h5")
    assert (straight.posterior["energy"] == parts.posterior["energy"]).all()
    assert (straight.sample_stats["log_weight"] == parts.sample_stats["log_weight"]).all()


def test_what_is_asked_for_is_not_decided_by_the_pilot(nmcmc):
    asked = ("prior=boundary-mps", "prior.chi=2", "net=none")
    run = nmcmc("run", "--mode", "nis", "ising", "L=6", *asked, "--draws", 50)
    assert "pilot" not in run.out
    config = open_chain("ising-L=6-nis.h5").config["net"]
    assert (config["prior"], config["chi"], config["net"]) == ("boundary-mps", 2, "none")


@pytest.mark.parametrize("data", ["self", None])
def test_a_linear_residual_is_fitted_kept_and_used(nmcmc, data):
    words = ["run", "--mode", "nis", "ea2d", "L=6", "seed=1", "beta=0.9", "prior=local", "net=linear",
             "train.states=2000", *([f"train.data={data}"] if data else [])]  # fmt: skip
    run = nmcmc(*words, "--draws", 500, "--json")
    assert "nats gained on unseen ones" in run.out
    found = run.json["diagnostics"]
    assert found["ess"] > 2 * found["prior_ess"]
    target = exact(build("ea2d", {"L": 6, "seed": 1}), 0.9)
    assert near(run.json, "log_z", target.log_z)
    assert near(run.json, "energy", target.energy)
    again = nmcmc(*words, "--draws", 700)
    assert "fitted before" in again.out


def test_a_transformer_learns_on_top_of_a_spinwise_prior(nmcmc):
    weak = ("prior.form=one-leg", "prior.chi=1")
    learner = ("net=transformer", "net.width=16", "train.steps=150", "train.batch=128")
    target = ("ea2d", "L=4", "seed=2", "beta=0.8")
    run = nmcmc("run", "--mode", "nis", *target, *weak, *learner, "--draws", 500, "--json")
    found = run.json["diagnostics"]
    assert found["ess"] > found["prior_ess"] + 0.05
    assert near(run.json, "log_z", exact(build("ea2d", {"L": 4, "seed": 2}), 0.8).log_z)


def test_block_moves_make_a_chain_that_goes_on(nmcmc):
    words = ("run", "--mode", "nmcmc", "ea2d", "L=6", "seed=3", "beta=1.5", "move=block", "prior.chi=4")
    run = nmcmc(*words, "--draws", 300, "--out", "straight.h5", "--json")
    assert near(run.json, "energy", exact(build("ea2d", {"L": 6, "seed": 3}), 1.5).energy)
    assert run.json["diagnostics"]["acceptance"] > 0.5
    assert "ess" not in run.json["diagnostics"]  # a block move has no weight of a whole configuration
    nmcmc(*words, "--draws", 120, "--out", "parts.h5")
    nmcmc(*words, "--draws", 300, "--out", "parts.h5")
    straight, parts = open_chain("straight.h5"), open_chain("parts.h5")
    for name in ("accepted", "log_ratio"):
        assert (np.asarray(straight.sample_stats[name]) == np.asarray(parts.sample_stats[name])).all()
    assert (straight.posterior["energy"] == parts.posterior["energy"]).all()


def test_environments_are_kept_beside_the_chain_and_a_damaged_one_is_built_anew(nmcmc, tmp_path, monkeypatch):
    monkeypatch.setattr("cli.environments.WORTH_KEEPING", 0.0)
    words = ("run", "--mode", "prior", "ising", "L=6", "prior=boundary-mps", "prior.chi=3", "--draws", 50)
    nmcmc(*words, "--out", "one.h5")
    (kept,) = list(open_chain("one.h5").path.resolve().parent.glob("*environment*.npz"))
    kept.write_bytes(kept.read_bytes()[:100])
    nmcmc(*words, "--out", "two.h5")
    one, two = open_chain("one.h5"), open_chain("two.h5")
    assert (one.sample_stats["log_q"] == two.sample_stats["log_q"]).all()


def test_exact_values_of_a_torus_glass_and_its_lost_digits(nmcmc):
    run = nmcmc("exact", "ea2d", "L=12", "seed=1", "beta=1", "--json")
    assert "digits cancelled]" in run.out
    assert run.json["results"][0]["method"] == "pfaffian"
    assert run.json["results"][0]["lost_digits"] >= 0
