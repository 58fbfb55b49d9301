"""Variational annealing: the ladder, the lowest energy, runs in parts, and the mode on the command line."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import cli.output
import mc
from cli.anneal_run import ground_energy
from mc.chain import open_chain
from mc.exact import exact
from nmcmc.annealing import AnnealSettings, anneal, default_ladder, last_cooling
from nmcmc.checkpoint import load_checkpoint
from nmcmc.recipe import NetSettings, build_sampler
from nmcmc.training import TrainSettings
from tests.enumerated import all_states
from tests.test_cli import assert_same_chain
from tests.test_training import same, stop_at

NET = NetSettings(prior="local", net="linear", window=2)
QUICK = TrainSettings(objective="refined", batch=16, learning_rate=0.05, schedule="constant", warmup=2, seed=3)
LADDER = AnnealSettings((0.2, 0.5, 1.0, 2.0), warmup=1, updates=2, local=2)
RUN = ("run", "--mode", "neural-anneal", "sk", "N=10", "seed=1")
SMALL = ("anneal.steps=5", "anneal.updates=1", "anneal.warmup=1", "train.batch=8", "--draws", 20)


def glass():
    return mc.models.sk(N=10, seed=2)


def cooled(net=NET, settings=LADDER, training=QUICK, **how):
    sampler = build_sampler(glass(), settings.betas[-1], net, seed=1)
    return anneal(sampler, net, settings, training, **how)


@pytest.mark.parametrize("objective", ["refined", "modified-gradient", "reverse-kl"])
@pytest.mark.parametrize(
    "net", [NET, NetSettings(prior="belief", width=16, heads=2), NetSettings(prior="local", width=16, head="tree")]
)
def test_every_sampler_and_objective_cools_and_keeps_the_lowest(net, objective):
    sampler, training, record = cooled(net, training=replace(QUICK, objective=objective))
    assert sampler.beta == 2.0
    assert training.finished
    assert training.step == LADDER.steps == 9
    assert training.history["at_beta"] == [0.2] * 3 + [0.5] * 2 + [1.0] * 2 + [2.0] * 2
    assert record.energy == pytest.approx(glass().energy(record.spins), abs=1e-9)
    assert record.energy <= min(training.history["lowest"])
    before = record.energy
    drawn, last = last_cooling(sampler, LADDER, 64, 1, record)
    assert record.energy == min(before, drawn, last, record.energy)
    assert record.energy == pytest.approx(glass().energy(all_states(10)).min(), abs=1e-9)  # of 1024 states


def test_without_sweeps_only_draws_count():
    settings = replace(LADDER, local=0)
    sampler, training, record = cooled(settings=settings, training=replace(QUICK, objective="reverse-kl"))
    assert record.energy == min(training.history["lowest"])
    drawn, last = last_cooling(sampler, settings, 20, 1, record)
    assert drawn == last


def test_annealing_lowers_the_energy_of_what_the_network_draws():
    net = NetSettings(prior="belief", net="linear", window=2)
    settings = AnnealSettings(default_ladder(glass(), 12), warmup=5, updates=4, local=20)
    sampler, training, _ = cooled(net, settings, replace(QUICK, batch=64))
    generator = torch.Generator().manual_seed(1)
    energies = [
        glass().energy(one.sample(400, generator)[0]).mean() for one in (sampler, build_sampler(glass(), 0.3, net))
    ]
    lowest = glass().energy(all_states(10)).min()
    assert energies[0] < 0.8 * lowest < energies[1]
    # F_q bounds F from above at every temperature, up to the noise of 64 draws.
    for row in range(4, settings.steps, 4):
        beta = training.history["at_beta"][row]
        noise = 6 * max(abs(lowest), 10 / beta) / 8
        assert training.history["free_energy"][row] > exact(glass(), beta).free_energy - noise


def test_stopped_anywhere_it_is_the_annealing_in_one_go():
    straight, whole, record = cooled()
    report, stop = stop_at(4)
    sampler = build_sampler(glass(), 2.0, NET, seed=1)
    _, half, _ = anneal(sampler, NET, LADDER, QUICK, report=report, stop=stop)
    assert (half.step, half.finished) == (4, False)
    other = build_sampler(glass(), 2.0, NET, seed=9)
    resumed, rest, again = anneal(other, NET, LADDER, QUICK, half)
    assert same(rest.weights, whole.weights)
    assert same(resumed.network.state_dict(), straight.network.state_dict())
    for name, values in whole.history.items():
        assert name == "seconds" or same(rest.history[name], values), name
    assert (again.energy, again.spins.tolist()) == (record.energy, record.spins.tolist())


def test_a_loss_that_is_not_finite_says_where_and_leaves_what_was_saved(monkeypatch):
    kept = []
    how = dict(save=lambda now: kept.append((now.step, now.weights["weight"].clone())), save_every=0.0)
    calls = iter(range(100))
    true = torch.Tensor.item
    monkeypatch.setattr(torch.Tensor, "item", lambda self: float("nan") if next(calls) == 10 else true(self))
    with pytest.raises(FloatingPointError, match=r"annealing, step \d+, beta=.*nan.*smaller train.lr="):
        cooled(**how)
    assert kept
    assert all(weights.isfinite().all() for _, weights in kept)


@pytest.mark.parametrize("betas", [(1.0, 0.5), (0.5, 0.5), (), (0.0,), (-1.0, 1.0), (0.1, np.inf)])
def test_ladders_that_do_not_cool_are_refused(betas):
    with pytest.raises(ValueError, match="anneal"):
        AnnealSettings(betas)


def test_default_ladders():
    hamiltonian = mc.models.ea3d(L=3, seed=1)
    for spacing, even in (("linear", lambda t: np.diff(t)), ("log", lambda t: np.diff(np.log(t)))):
        temperatures = 1 / np.array(default_ladder(hamiltonian, 9, spacing))
        assert even(temperatures) == pytest.approx(even(temperatures)[0])
        assert temperatures[[0, -1]] == pytest.approx([3 * 6**0.5, 0.1 * 6**0.5])
    assert default_ladder(hamiltonian, 5, coldest=3.0)[-1] == 3.0
    for wrong in ({"steps": 1}, {"spacing": "cubic"}, {"coldest": 0.01}, {"coldest": 0.0}):
        with pytest.raises(ValueError, match=r"T=|at least 2"):
            default_ladder(hamiltonian, **{"steps": 5} | wrong)


def test_exact_ground_states_by_every_method():
    glasses = (
        mc.models.sk(N=12, seed=1),  # enumeration
        mc.models.ea2d(L=4, J="gaussian", seed=1, boundary="open"),  # matching
        mc.models.ea2d(Lx=3, Ly=7, J="gaussian", seed=1),  # transfer matrix
    )
    assert ground_energy(glasses[0]) == exact(glasses[0], 1.0, "enumeration").ground_energy
    for hamiltonian in glasses[1:]:
        found = exact(hamiltonian, 1.0, "enumeration").ground_energy
        assert ground_energy(hamiltonian) == pytest.approx(found, abs=1e-9)
    assert ground_energy(mc.models.pspin(N=30, p=3, seed=1)) is None
    assert ground_energy(mc.models.sk(N=40, seed=1)) is None


# The command line


def test_the_mode_finds_the_ground_state_and_says_so(nmcmc):
    run = nmcmc(*RUN, *SMALL, "--out", "a.h5", "--json")
    found, chain = run.json["diagnostics"], open_chain("a.h5")
    assert chain.mode == "neural-anneal"
    assert found["residual"] == 0.0
    assert found["lowest_energy"] == pytest.approx(found["ground_energy"])
    assert chain.hamiltonian().energy(chain.diagnostics["lowest_state"]) == pytest.approx(found["lowest_energy"])
    assert found["lowest_energy_drawn"] >= found["lowest_energy"] - 1e-9
    assert "the ground state at" in run.out
    assert "modes: " in run.out
    assert "last 256 draws: lowest energy" in run.out
    assert len(chain.betas) == 1
    assert chain.posterior["energy"].shape == (4, 20, 1)
    log_weight = -chain.betas[0] * chain.posterior["energy"] - chain.sample_stats["log_q"]
    assert chain.sample_stats["log_weight"] == pytest.approx(log_weight)
    assert chain.training["at_beta"][-1] == pytest.approx(chain.betas[0])
    assert len(chain.training["step"]) == 6
    again = nmcmc(*RUN, *SMALL, "--out", "a.h5", "--json").json["diagnostics"]
    assert (again["lowest_energy"], again["residual"]) == (found["lowest_energy"], 0.0)


def test_the_mode_in_parts_is_the_mode_in_one_go(nmcmc, monkeypatch, tmp_path):
    words = (*RUN, *SMALL[1:], "T=3:0.3:4")
    nmcmc(*words, "--out", "straight.h5")
    (path,) = tmp_path.glob("*.pt")
    straight = load_checkpoint(path).training
    path.unlink()
    asked = iter(range(10**6))
    monkeypatch.setattr(cli.output.Stopper, "__call__", lambda self: next(asked) % 3 == 2)
    for _ in range(20):
        nmcmc(*words, "--out", "parts.h5")
        if open_chain("parts.h5").complete:
            break
    assert same(load_checkpoint(path).training.weights, straight.weights)
    assert_same_chain("straight.h5", "parts.h5")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("T=1,2,3",), "T=1,2,3: an annealing ladder must cool"),
        (("beta=2:0.1:5",), "must cool, from high T (low beta) to low T (high beta); reverse it"),
        (("beta=0",), "T=inf is above T="),
        (("T=50",), "T=50 is above T="),
        (("T=2,1", "anneal.steps=9"), "anneal.steps= both say the ladder"),
        (("prior=boundary-mps",), "every temperature would build its environment anew"),
        (("train.objective=soft-likelihood",), "neural-anneal takes refined or modified-gradient or reverse-kl"),
        (("net=none",), "net=none: a prior alone has nothing to train"),
        (("anneal.steps=1",), "anneal.steps=1: an integer of at least 2"),
        (("anneal.ladder=cubic",), "anneal.ladder=cubic"),
        (("train.weight=0",), "train.weight=0: a number above 0"),
    ],
)
def test_refused_before_any_work(nmcmc, words, said, tmp_path):
    assert said in nmcmc(*RUN, *words, code=2).err
    assert not list(tmp_path.iterdir())


def test_many_instances_are_refused(nmcmc):
    words = ("run", "--mode", "neural-anneal", "sk", "N=10", "instances=1:4")
    assert "cools one Hamiltonian" in nmcmc(*words, code=2).err
