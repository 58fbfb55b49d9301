"""A training that goes wrong ends at once, says at which step, and leaves what was kept before as it was."""

import functools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import cli.neural
import mc
from nmcmc.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from nmcmc.objectives import SelfDistillation
from nmcmc.recipe import NetSettings, build_sampler
from nmcmc.training import TrainSettings, microbatch_of, train

BETA = 0.44068679350977
NET = NetSettings(patch=(2, 2), width=16, heads=2)
SETTINGS = TrainSettings(steps=12, batch=24, warmup=3, validate_every=4, validation_draws=100, seed=5)


class Injected(SelfDistillation):
    """Self-distillation whose step number `step` goes wrong in a way."""

    def __init__(self, sampler, step, way):
        super().__init__(sampler)
        self.wrong, self.way, self.step = step, way, 0

    def batch(self, n, randomness):
        self.step = randomness.step
        return super().batch(n, randomness)

    def loss(self, part):
        loss = super().loss(part)
        if self.step != self.wrong:
            return loss
        if self.way == "loss":
            return loss * math.nan
        if self.way == "infinite loss":
            return loss - math.inf
        if self.way == "gradient":  # the derivative of a square root at 0
            return loss + torch.sqrt(0.0 * self.sampler.network.first.sum())
        with torch.no_grad():  # what an update would do that overflows
            self.sampler.network.head.bias.fill_(math.inf)
        return loss


@pytest.mark.parametrize("way", ["loss", "infinite loss", "gradient", "weights"])
def test_what_is_not_finite_ends_the_training_and_never_reaches_the_checkpoint(way, tmp_path):
    path = tmp_path / "a.pt"
    sampler = build_sampler(mc.models.ising(L=4), BETA, NET)
    saved = []

    def save(training):
        save_checkpoint(path, Checkpoint(sampler.hamiltonian, BETA, NET, {}, training))
        saved.append((training.step, path.read_bytes()))

    with pytest.raises(FloatingPointError) as caught:
        train(sampler, Injected(sampler, 6, way), SETTINGS, save=save, save_every=0.0)
    at = 7 if way == "weights" else 6  # weights are seen to be wrong before they are kept
    assert str(caught.value).startswith(f"training, step {at}: ")
    assert str(caught.value).endswith("what was kept is of step 6; use a smaller train.lr=")
    assert [step for step, _ in saved] == list(range(7))
    assert path.read_bytes() == saved[-1][1]
    training = load_checkpoint(path).training
    assert training.step == 6
    assert not training.finished
    for weights in (training.weights, training.best_weights):
        assert all(values.isfinite().all() for values in weights.values())
    # It goes on from there, as if nothing had been.
    other = build_sampler(mc.models.ising(L=4), BETA, NET, seed=3)
    resumed = train(other, SelfDistillation(other), SETTINGS, training)
    straight = build_sampler(mc.models.ising(L=4), BETA, NET)
    straight = train(straight, SelfDistillation(straight), SETTINGS)
    assert all(torch.equal(resumed.weights[name], values) for name, values in straight.weights.items())


def test_a_training_that_fails_before_anything_was_kept_says_so():
    sampler = build_sampler(mc.models.ising(L=4), BETA, NET)
    with pytest.raises(FloatingPointError, match=r"step 2: the loss became nan; nothing was kept; .*train\.lr="):
        train(sampler, Injected(sampler, 2, "loss"), SETTINGS)


def test_the_command_ends_with_code_1_and_one_line_and_the_checkpoint_samples(nmcmc, tmp_path, monkeypatch):
    words = ("ising", "L=4", "beta=0.44", "patch=2x2", "net=transformer", "net.width=16", "net.heads=2",
             "train.steps=30", "train.batch=24", "train.objective=soft-distillation")  # fmt: skip
    monkeypatch.setattr(cli.neural, "train", functools.partial(train, save_every=0.0))
    right = cli.neural.make_objective

    def make_objective(sampler, *others):
        return Injected(right(sampler, *others).sampler, 10, "loss")

    monkeypatch.setattr(cli.neural, "make_objective", make_objective)
    run = nmcmc("train", *words, "--checkpoint", "a.pt", "--quiet", code=1)
    assert len(run.err.strip().splitlines()) == 1
    assert "step 10: the loss became nan; what was kept is of step 10; use a smaller train.lr=" in run.err
    before = load_checkpoint(tmp_path / "a.pt").training
    assert (before.step, before.finished) == (10, False)
    again = nmcmc("train", *words, "--checkpoint", "a.pt", "--quiet", code=1)  # the same random numbers
    assert "step 10: the loss became nan; what was kept is of step 10" in again.err
    after = load_checkpoint(tmp_path / "a.pt").training
    assert after.step == 10
    assert all(torch.equal(after.weights[name], values) for name, values in before.weights.items())
    model = [word for word in words if not word.startswith("train.")]
    sampled = nmcmc("run", "--mode", "nmcmc", *model, "--checkpoint", "a.pt", "--draws", "200", "--quiet", "--json")
    assert np.isfinite(sampled.json["diagnostics"]["ess"])


def test_the_microbatch_grows_neither_with_spins_nor_with_values_of_a_token():
    def default(L, patch, prior="lookahead", head=None):
        net = replace(NET, patch=patch, prior=prior, head=head)
        sampler = build_sampler(mc.models.ising(L=L), BETA, net)
        return microbatch_of(SETTINGS, sampler), sampler

    assert default(8, (2, 2))[0] == 256
    assert default(16, (2, 4))[0] == 64
    for L, patch in ((24, (3, 4)), (36, (3, 4))):
        states, sampler = default(L, patch)
        numbers = sampler.tokens.n_tokens * sampler.tokens.vocabulary
        assert states * numbers <= 2**21 < (states + 1) * numbers
    assert microbatch_of(replace(SETTINGS, microbatch=7), sampler) == 7
    # A head that goes spin by spin over a prior that does so has no values of tokens.
    assert default(24, (3, 4), prior="belief", head="spin")[0] == 2**14 // 24**2
