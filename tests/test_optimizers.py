"""AdamW and Muon: who updates which weights, steps of one size, resumed bit for bit, and a lower free energy."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import mc
from mc.exact import exact
from nmcmc.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from nmcmc.objectives import SelfDistillation
from nmcmc.optimizers import OPTIMIZERS, Together, make_optimizer
from nmcmc.recipe import NetSettings, build_sampler
from nmcmc.training import TrainSettings, train

BETA = 0.44068679350977
NET = NetSettings(patch=(2, 2), width=16, heads=2, layers=2)
QUICK = TrainSettings(steps=10, batch=24, warmup=3, validate_every=5, validation_draws=100, seed=5)
IN_BLOCKS = {"qkv", "project", "expand", "contract"}


def torus():
    return mc.models.ising(L=4)


def glass():
    return mc.models.ea3d(L=2, J="gaussian", boundary="open", seed=1)


def names_in(optimizer, network):
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return [names[id(p)] for group in optimizer.param_groups for p in group["params"]]


@pytest.mark.parametrize(
    ("build", "net", "hidden"),
    [
        (torus, replace(NET, head="tree"), set()),
        (torus, replace(NET, head="softmax"), set()),
        (glass, replace(NET, patch=(2, 2, 2), head="spin", prior="belief"), {"from_features"}),
        (glass, replace(NET, patch=(2, 2, 2), head="spin", prior="belief", window=1), {"from_features"}),
    ],
)
def test_muon_has_the_matrices_between_hidden_features_and_adamw_the_rest(build, net, hidden):
    network = build_sampler(build(), BETA, net).network
    both = make_optimizer(torch.nn.ModuleDict({"network": network}), replace(QUICK, optimizer="muon"))
    muon, adamw = both.optimizers
    assert isinstance(muon, torch.optim.Muon)
    assert isinstance(adamw, torch.optim.AdamW)
    of_muon, of_adamw = names_in(muon, network), names_in(adamw, network)
    assert sorted(of_muon + of_adamw) == sorted(name for name, _ in network.named_parameters())
    in_blocks = {name for name in of_muon if ".blocks." in name}
    assert {name.split(".")[-2] for name in in_blocks} == IN_BLOCKS
    assert len(in_blocks) == 2 * len(IN_BLOCKS)
    assert set(of_muon) - in_blocks == hidden
    assert not any(".blocks." in name and name.endswith("weight") and "norm" not in name for name in of_adamw)


def test_a_linear_residual_knows_adamw_only():
    sampler = build_sampler(torus(), BETA, NetSettings(net="linear", prior="lookahead", window=1))
    optimizer = make_optimizer(sampler, replace(QUICK, optimizer="muon"))
    assert isinstance(optimizer, torch.optim.AdamW)
    assert names_in(optimizer, sampler.network) == [name for name, _ in sampler.network.named_parameters()]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weights_decay_in_matrices_only(name):
    sampler = build_sampler(torus(), BETA, NET)
    for group in make_optimizer(sampler, replace(QUICK, optimizer=name, weight_decay=0.02)).param_groups:
        assert all(group["weight_decay"] == (0.02 if p.dim() >= 2 else 0.0) for p in group["params"])


def test_an_optimizer_that_is_not_known_is_refused(nmcmc):
    sampler = build_sampler(torus(), BETA, NET)
    with pytest.raises(ValueError, match=r"train\.optimizer=sgd: adamw or muon"):
        make_optimizer(sampler, replace(QUICK, optimizer="sgd"))
    run = nmcmc("run", "--mode", "train", "ising", "L=4", "beta=0.4", "train.optimizer=sgd", code=2)
    assert "train.optimizer=sgd" in run.err
    assert len(run.err.strip().splitlines()) == 1


def test_a_learning_rate_means_steps_of_the_same_size():
    # The first step of AdamW moves every weight by the rate; over a training it moves by 0.2 to 0.4 of it.
    sampler = build_sampler(torus(), BETA, NET)
    optimizer = make_optimizer(sampler, replace(QUICK, optimizer="muon", learning_rate=1e-2, weight_decay=0.0))
    generator = torch.Generator().manual_seed(1)
    before = {name: p.detach().clone() for name, p in sampler.network.named_parameters()}
    for parameter in sampler.network.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizer.step()
    moved = {name: (p - before[name]).square().mean().sqrt().item() for name, p in sampler.network.named_parameters()}
    for name in names_in(optimizer.optimizers[0], sampler.network):
        assert 0.1e-2 < moved[name] < 0.3e-2
    for name in names_in(optimizer.optimizers[1], sampler.network):
        assert moved[name] == pytest.approx(1e-2, rel=1e-3)


def test_several_optimizers_are_used_as_one():
    sampler = build_sampler(torus(), BETA, NET)
    optimizer = make_optimizer(sampler, replace(QUICK, optimizer="muon"))
    assert isinstance(optimizer, Together)
    for group in optimizer.param_groups:
        group["lr"] = 0.125
    assert all(group["lr"] == 0.125 for part in optimizer.optimizers for group in part.param_groups)
    for parameter in sampler.network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.zero_grad(set_to_none=True)
    assert all(parameter.grad is None for parameter in sampler.network.parameters())


def stop_at(step):
    reached = [0]

    def report(training, steps):
        reached[0] = training.step

    return {"report": report, "stop": lambda: reached[0] >= step}


@pytest.mark.parametrize(("build", "net"), [(torus, NET), (glass, NetSettings(width=16, heads=2, prior="belief"))])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_training_resumed_from_a_file_is_the_one_that_was_not_stopped(name, build, net, tmp_path):
    settings = replace(QUICK, optimizer=name)
    samplers = [build_sampler(build(), BETA, net, seed=seed) for seed in (1, 1, 9)]
    straight = train(samplers[0], SelfDistillation(samplers[0]), settings)
    half = train(samplers[1], SelfDistillation(samplers[1]), settings, **stop_at(4))
    assert half.step == 4
    path = tmp_path / "half.pt"
    save_checkpoint(path, Checkpoint(build(), BETA, net, {}, half))
    resumed = train(samplers[2], SelfDistillation(samplers[2]), settings, load_checkpoint(path).training)
    assert resumed.step == straight.step == 10
    assert all(torch.equal(resumed.weights[key], weights) for key, weights in straight.weights.items())
    assert resumed.history["free_energy"] == straight.history["free_energy"]
    assert np.isfinite(straight.history["free_energy"]).all()


def test_muon_brings_the_4x4_torus_nearer_to_its_free_energy():
    sampler = build_sampler(torus(), BETA, replace(NET, prior="none", layers=1))
    settings = replace(QUICK, steps=60, batch=40, optimizer="muon", learning_rate=1e-2, validation_draws=600)
    free_energy = train(sampler, SelfDistillation(sampler), replace(settings, validate_every=30)).history[
        "free_energy"
    ]
    assert free_energy[2] < free_energy[0] - 0.5 * (free_energy[0] - exact(torus(), BETA).free_energy)
