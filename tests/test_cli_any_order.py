"""Any-order networks from the command line: training, ranges of temperatures and fields, larger lattices, refusals.

Deviations from exact values are bounded by 5 errors: a false alarm of 6e-7 each, for normal errors.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

import nmcmc as package
from mc.exact import enumerate_states, exact, state_spins
from mc.models import build

SMALL = ("net.width=32", "train.states=2000", "train.steps=150", "--draws", 400)


def only_checkpoint() -> str:
    (found,) = Path().glob("*.pt")
    return str(found)


@pytest.mark.parametrize(
    "model",
    [
        ("ising", "L=4", "beta=0.4"),
        ("ising", "L=3", "beta=0.4", "h=0.2", "net.order=random", "net.heads=2"),
        ("ea2d", "L=4", "seed=1", "beta=0.7", "boundary=open", "prior=none", "net.order=random"),
        ("sk", "N=10", "beta=0.8"),
        ("ising", "L=4", "beta=0.3", "net=mlp"),
    ],
)
@pytest.mark.parametrize("mode", ["nis", "nmcmc"])
def test_a_network_is_trained_kept_and_used(nmcmc, mode, model):
    words = ("run", "--mode", mode, *model, *(() if "net=mlp" in model else ("net=anyorder",)), *SMALL, "--json")
    run = nmcmc(*words)
    keys = dict(word.split("=") for word in model[1:] if word[:3] not in ("net", "pri"))
    beta = float(keys.pop("beta"))
    values = {k: int(v) if k in ("L", "N", "seed") else float(v) if k == "h" else v for k, v in keys.items()}
    target = exact(build(model[0], values), beta)
    row = run.json["results"][0]["energy"]
    assert abs(row["mean"] - target.energy) < 5.0 * row["error"]
    assert run.json["diagnostics"]["ess"] > 0.6
    assert run.json["diagnostics"]["rescore_error"] < 1e-4
    sampler = package.load(only_checkpoint())
    every = state_spins(np.arange(2**sampler.tokens.n_spins), sampler.tokens.n_spins)
    assert np.exp(sampler.log_prob(every)).sum() == pytest.approx(1.0, abs=1e-4)
    again = nmcmc(*words[:-3], "--draws", 500, "--json")
    assert again.json["draws"] == 500
    assert "trained before" in again.out


def test_one_network_for_a_range_of_temperatures_and_fields(nmcmc):
    words = ("run", "--mode", "nis", "ising", "L=4", "beta=0.2,0.3,0.4", "net=anyorder", "net.shared=yes",
             "net.fields=-0.1,0,0.1", *SMALL, "--json")  # fmt: skip
    run = nmcmc(*words)
    assert len(run.json["results"]) == 3
    assert min(run.json["diagnostics"]["ess"]) > 0.8
    file = only_checkpoint()
    for mode in ("nis", "nmcmc"):  # between the temperatures and fields that it was trained at
        there = nmcmc("run", "--mode", mode, "ising", "L=4", "beta=0.25,0.37", "h=0.05", "--checkpoint", file,
                      "--draws", 2000, "--json")  # fmt: skip
        for row in there.json["results"]:
            target = exact(build("ising", {"L": 4, "h": 0.05}), row["beta"])
            assert abs(row["energy"]["mean"] - target.energy) < 5.0 * row["energy"]["error"]
        assert min(there.json["diagnostics"]["ess"]) > 0.7
    for keys, said in (
        (("beta=0.5",), "beta=0.5 is outside 0.2 to 0.4"),
        (("beta=0.3", "h=0.3"), "h=0.3 is outside -0.1 to 0.1"),
        (("beta=0.3", "J=-1"), "is for another Hamiltonian"),
        (("beta=0.3", "net.width=64"), "net.width=32"),
    ):
        refused = nmcmc("run", "--mode", "nis", "ising", "L=4", *keys, "--checkpoint", file, code=2)
        assert said in refused.err
        assert refused.err.count("\n") == 1
    one = package.load(file, beta=0.31, hamiltonian=build("ising", {"L": 4, "h": -0.1}))
    spins, log_q = one.sample(2000, torch.Generator().manual_seed(1))
    weight = np.exp(-0.31 * one.hamiltonian.energy(spins) - log_q - exact(one.hamiltonian, 0.31).log_z)
    assert abs(weight.mean() - 1.0) < 5.0 * weight.std() / np.sqrt(2000)
    with pytest.raises(package.CheckpointError, match=r"beta=0.5 is outside"):
        package.load(file, beta=0.5)


def test_a_network_grows_to_larger_lattices(nmcmc):
    nmcmc("run", "--mode", "train", "ising", "L=4", "beta=0.4", "net=anyorder", "net.heads=2", *SMALL[:-2])
    file = only_checkpoint()
    grown = nmcmc("run", "--mode", "nis", "ising", "L=8", "beta=0.4", "--checkpoint", file, "--draws", 1000, "--json")
    row = grown.json["results"][0]["log_z"]
    assert abs(row["mean"] - grown.json["diagnostics"]["log_z_exact"]) < 5.0 * row["error"]
    assert 0.05 < grown.json["diagnostics"]["ess"] < 0.98
    for size, said in (
        ("L=6", "grows to multiples of its sizes"),
        ("L=2", "2 sites"),
        ("Lz=8 Lx=8 Ly=8", "as many axes"),
    ):
        refused = nmcmc("run", "--mode", "nis", "ising", *size.split(), "beta=0.4", "--checkpoint", file, code=2)
        assert said in refused.err
        assert refused.err.count("\n") == 1


def test_without_attention_it_grows_to_any_larger_lattice(nmcmc):
    nmcmc("run", "--mode", "train", "ising", "L=4", "beta=0.3", "net=anyorder", *SMALL[:-2])
    words = ("run", "--mode", "nis", "ising", "beta=0.3", "--checkpoint", only_checkpoint())
    grown = nmcmc(*words, "Lx=5", "Ly=6", "--draws", 1000, "--json")
    row = grown.json["results"][0]["log_z"]
    assert abs(row["mean"] - exact(build("ising", {"Lx": 5, "Ly": 6}), 0.3).log_z) < 5.0 * row["error"]
    assert "grows to larger lattices, not to 3x8" in nmcmc(*words, "Lx=8", "Ly=3", code=2).err


def test_an_interrupted_training_goes_on_exactly(nmcmc, monkeypatch):
    words = (
        "train",
        "ising",
        "L=3",
        "beta=0.4",
        "net=anyorder",
        "net.width=16",
        "train.states=500",
        "train.steps=60",
    )
    nmcmc(*words, "--out", "straight.h5", "--checkpoint", "straight.pt")
    import nmcmc.training as training

    real, calls = training.training_step, []

    def stopping(*arguments):
        calls.append(1)
        if len(calls) == 25:
            raise KeyboardInterrupt
        return real(*arguments)

    # Saved at step 20 by a clock that is always due; then interrupted.
    monkeypatch.setattr(training, "training_step", stopping)
    monkeypatch.setattr(training, "train", training.train)
    nmcmc(*words, "--out", "parts.h5", "--checkpoint", "parts.pt", code=130)
    monkeypatch.setattr(training, "training_step", real)
    nmcmc(*words, "--out", "parts.h5", "--checkpoint", "parts.pt")
    one, other = (package.load(name).network.state_dict() for name in ("straight.pt", "parts.pt"))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("net.order=random",), "net.order= is for net=anyorder or net=mlp"),
        (("net.shared=yes",), "net.shared= is for net=anyorder"),
        (("train.objective=any-order",), "train.objective=any-order is for net=anyorder"),
        (("net=anyorder", "train.objective=rtgs"), "net=anyorder takes any-order or marginal-kl"),
        (("net=anyorder", "prior=belief"), "prior=belief: net=anyorder takes prior=local or prior=none"),
        (("net=anyorder", "net.width=20", "net.heads=4"), "a multiple of twice net.heads=4"),
        (("net=mlp", "net.shared=yes"), "net=mlp is made for one temperature"),
        (("net=anyorder", "net.fields=0,1"), "net.fields= goes with net.shared=yes"),
        (("net=anyorder", "net.shared=yes", "net.fields=1,0,1"), "a field is given twice"),
        (("net=anyorder", "net.shared=yes", "net.fields=0.1,1"), "the run itself is at h=0.0"),
        (("net=anyorder", "train.any=1.5"), "a number from 0 to 1"),
        (("net=anyorder", "net.shared=yes", "train.data=x.h5"), "makes its own states"),
        (("net=anyorder", "train.data=self"), "train.data=self"),
        (("net=transformer", "net.heads=0"), "net.heads=0: net=transformer needs at least 1"),
    ],
)
def test_what_does_not_go_together_is_refused_before_any_work(nmcmc, words, said):
    refused = nmcmc("run", "--mode", "nis", "ising", "L=4", "beta=0.4", *words, code=2)
    assert said in refused.err
    assert refused.err.count("\n") == 1
    assert not list(Path().iterdir())


def test_fields_of_a_model_without_one_are_refused(nmcmc):
    np.savez("own.npz", i=[0, 1], j=[1, 2], J=[1.0, 1.0])
    words = ("file", "path=own.npz", "beta=0.4", "net=anyorder", "net.shared=yes", "net.fields=0,1")
    assert "a model with a field h= is needed" in nmcmc("run", "--mode", "nis", *words, code=2).err


def test_enumeration_is_what_the_marginal_head_learns(nmcmc):
    nmcmc("train", "ising", "L=3", "beta=0.3", "h=0.1", "net=anyorder", "net.width=32", "train.steps=600",
          "train.any=1", "train.states=4000")  # fmt: skip
    sampler = package.load(only_checkpoint())
    energies = enumerate_states(sampler.hamiltonian)
    law = np.exp(-sampler.beta * (energies - energies.min()))
    law /= law.sum()
    every = state_spins(np.arange(512), 9)
    rng = np.random.default_rng(3)
    partial = np.where(rng.random((40, 9)) < 0.5, every[rng.integers(512, size=40)], 0)
    known = [np.log(law[((every == row) | (row == 0)).all(axis=1)].sum()) for row in partial]
    assert np.sqrt(np.square(sampler.log_marginal(partial) - known).mean()) < 0.4  # of an untrained one: 1.2
    assert np.sqrt(np.square(sampler.log_known(partial) - known).mean()) < 0.15


def test_modes_that_learn_otherwise_refuse_it(nmcmc):
    for mode in ("sequential", "distill"):
        refused = nmcmc("run", "--mode", mode, "ising", "L=4", "beta=0.2", "net=anyorder", code=2)
        assert f"mode {mode}: net=anyorder learns from states of any order" in refused.err
