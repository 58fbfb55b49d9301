"""Distillation, and the watch for modes that a sampler has dropped."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import mc
from mc.chain import open_chain
from nmcmc.checkpoint import load_checkpoint
from nmcmc.collapse import compare, states_to_watch, watch
from nmcmc.distillation import Distilled, DistillSettings, distill_linear, refined_states
from nmcmc.recipe import NetSettings, build_sampler
from nmcmc.training import Training, TrainSettings, train
from tests.enumerated import law
from tests.test_training import same, stop_at

BETA = 1.2
LINEAR = NetSettings(prior="local", net="linear", window=4)
SMALL = NetSettings(prior="belief", width=16, heads=2, sweeps=0)
QUICK = TrainSettings(steps=12, batch=24, microbatch=8, warmup=3, validate_every=4, validation_draws=100, seed=5)


def glass():
    return mc.models.sk(N=10, seed=1)


def divergences(sampler):
    """(KL(q|p), KL(p|q)) in nats, by enumeration."""
    states, p = law(sampler.hamiltonian, sampler.beta)
    log_q, log_p = sampler.log_prob(states), np.log(p)
    return float((np.exp(log_q) * (log_q - log_p)).sum()), float((p * (log_p - log_q)).sum())


@pytest.mark.parametrize("source", ["sweeps", "pt"])
def test_the_loop_of_fits_lowers_both_divergences(source):
    sampler = build_sampler(glass(), BETA, LINEAR)
    before, told = divergences(sampler), []
    settings = DistillSettings(rounds=3, states=1500, source=source)
    training = distill_linear(sampler, settings, 500, 1, report=lambda turn, ess: told.append((turn, ess)))
    after = divergences(sampler)
    assert training.finished
    assert training.step == 3
    assert training.history["step"] == [0, 1, 2, 3]
    assert [turn for turn, _ in told] == [1, 2, 3]
    assert after[0] < 0.5 * before[0]
    assert after[1] < 0.5 * before[1]
    assert training.history["ess"][-1] > training.prior_ess == training.history["ess"][0]


def test_the_loop_of_steps_learns_and_resumes_bit_for_bit():
    settings, train_settings = DistillSettings(rounds=3, states=200), replace(QUICK, steps=30, learning_rate=1e-2)

    def run(training, seed, **how):
        sampler = build_sampler(glass(), BETA, SMALL, seed=seed)
        objective = Distilled(sampler, settings, 30, 5, training.notes)
        return sampler, train(sampler, objective, train_settings, training, **how)

    sampler, straight = run(Training(), 1)
    start = build_sampler(glass(), BETA, SMALL, seed=1)
    assert divergences(sampler)[1] < divergences(start)[1]
    assert int(straight.notes["round"]) == 2
    for step in (4, 17):  # in the midst of a round
        report, stop = stop_at(step)
        _, half = run(Training(), 1, report=report, stop=stop)
        assert (half.step, half.finished) == (step, False)
        _, resumed = run(half, 9)
        assert same(resumed.weights, straight.weights)
        assert same(resumed.history["free_energy"], straight.history["free_energy"])


def test_states_of_a_round_depend_on_seed_and_round():
    sampler = build_sampler(glass(), BETA, LINEAR)
    for source in ("sweeps", "pt"):
        settings = DistillSettings(states=40, source=source, sweeps=20)
        first = refined_states(sampler, settings, 0, 1)
        assert first.shape == (40, 10)
        assert np.array_equal(refined_states(sampler, settings, 0, 1), first)
        assert not np.array_equal(refined_states(sampler, settings, 1, 1), first)
        assert not np.array_equal(refined_states(sampler, settings, 0, 2), first)


@pytest.mark.parametrize("change", [{"rounds": 0}, {"states": 1}, {"source": "thin air"}, {"sweeps": 0}])
def test_settings_that_cannot_be_are_refused(change):
    with pytest.raises(ValueError, match="distill"):
        DistillSettings(**change)


# Modes


class OneValley:
    """The law of the target without the states of an overlap with `valley` below zero, and their mirror images."""

    def __init__(self, hamiltonian, beta, keep):
        self.hamiltonian, self.beta = hamiltonian, beta
        self.states, p = law(hamiltonian, beta)
        self.p = np.where(keep(self.states), p, 1e-12)
        self.p /= self.p.sum()

    def sample(self, n, generator):
        chosen = torch.multinomial(torch.from_numpy(self.p), n, replacement=True, generator=generator).numpy()
        return self.states[chosen], np.log(self.p[chosen])

    def log_prob(self, spins):
        return np.log(self.p[(spins > 0) @ (1 << np.arange(spins.shape[1]))])


def two_valleys():
    """Two ferromagnetic halves with a weak bond between them: aligned and opposed valleys, nearly alike."""
    bonds = [(i, j) for i in range(5) for j in range(i)] + [(i + 5, j + 5) for i in range(5) for j in range(i)]
    sites, couplings = np.array([*bonds, (0, 5)]), np.array([1.0] * len(bonds) + [0.05])
    return mc.Hamiltonian(10, [(sites, couplings)])


def aligned(states):
    return states[:, :5].sum(1) * states[:, 5:].sum(1) > 0


def test_a_valley_that_is_left_out_is_missed_and_said():
    hamiltonian, beta = two_valleys(), 1.0
    whole = watch(OneValley(hamiltonian, beta, lambda states: np.ones(len(states), bool)), 1)
    assert whole.reasons == []
    assert whole.line().startswith("draws agree with refined states")
    assert whole.gap == pytest.approx(0.0, abs=1e-9)  # ln w is a constant
    one = watch(OneValley(hamiltonian, beta, aligned), 1)
    assert len(one.reasons) == 2
    assert one.line().startswith("modes are missing: refined states have ln w")
    assert "distill.from=pt" in one.line()
    # By enumeration: half of the states of the target are in the other valley.
    states, p = law(hamiltonian, beta)
    lost = p[~aligned(states)].sum()
    assert one.unseen == pytest.approx(lost, abs=0.15)
    assert one.gap == pytest.approx(lost * math.log(1e12), rel=0.4)
    assert one.reverse == pytest.approx(0.0, abs=1e-6)  # what q's own draws see is perfect
    overlap = (states.astype(float) @ states.T / 10) ** 2
    assert abs(one.overlap_refined - p @ overlap @ p) < 5 * one.overlap_refined_error + 0.02
    kept = np.where(aligned(states), p, 0.0) / p[aligned(states)].sum()
    assert abs(one.overlap_draws - kept @ overlap @ kept) < 5 * one.overlap_draws_error


def test_reverse_kl_that_begins_in_one_valley_stays_there_and_is_caught():
    # Weights that make the halves parallel: exp(-20) of q is left for the other valley, which no draw ever sees.
    hamiltonian = two_valleys()
    net = NetSettings(prior="local", net="linear", window=2)
    sampler = build_sampler(hamiltonian, 1.0, net)
    network = sampler.network
    where = (network.neighbours[5] == network.order[0]).nonzero()
    with torch.no_grad():
        network.weight[5, where[0, 0]] = 20.0
    from nmcmc.objectives import Refined

    settings = replace(QUICK, steps=20, batch=64, microbatch=64, validate_every=20)
    train(sampler, Refined(sampler, 0, 0.0), settings)
    found = watch(sampler, 1)
    assert found.reverse < 0.5  # so its own draws would praise it
    assert found.reasons
    distill_linear(sampler, DistillSettings(rounds=3, states=1500, source="pt"), 500, 1)
    # The fit on tempered states brings the valley back wherever the better score takes it.
    assert watch(sampler, 2).gap < found.gap


def test_rough_is_not_collapsed():
    found = watch(build_sampler(glass(), 1.5, NetSettings(prior="local", net="none")), 1)
    assert found.reverse > 0.2
    assert not found.reasons
    assert found.gap_error > 0


def test_too_few_and_not_finite():
    with pytest.raises(ValueError, match="at least 64"):
        watch(build_sampler(glass(), 1.0, LINEAR), 1, states=10)
    ones = np.ones((4, 3, 10), np.int8)
    with pytest.raises(FloatingPointError, match=r"train\.lr="):
        compare(ones[0], np.array([0.0, np.nan, 0.0]), ones, np.zeros((4, 3)))
    assert states_to_watch(10**6) == 64
    assert states_to_watch(10) == 512


# The command line


def test_a_distilled_checkpoint_serves_nis(nmcmc, tmp_path):
    words = ("sk", "N=10", "seed=1", "beta=1.2")
    for net, how in (
        ("linear", ()),
        ("transformer", ("train.steps=6", "train.batch=16", "net.width=16", "net.heads=2")),
    ):
        run = nmcmc(
            "run", "--mode", "distill", *words, f"net={net}", *how, "distill.rounds=2", "train.states=200",
            "distill.from=pt", "--checkpoint", f"{net}.pt", "--out", f"{net}.h5", "--json",
        )  # fmt: skip
        assert "2 rounds of 200 own states, refined by 200 rounds of tempering" in run.out
        assert "modes: " in run.out
        assert run.json["diagnostics"]["collapse_gap"] is not None
        assert load_checkpoint(f"{net}.pt").training.finished
        assert not load_checkpoint(f"{net}.pt").training.notes
        assert len(open_chain(f"{net}.h5").training["step"]) >= 2
        nis = nmcmc(
            "run", "--mode", "nis", *words, "--checkpoint", f"{net}.pt", "--draws", 200, "--out", f"{net}-nis.h5",
            "--json",
        )  # fmt: skip
        assert abs(nis.json["diagnostics"]["log_z_sigma"]) < 6
        again = nmcmc("run", "--mode", "distill", *words, f"net={net}", *how, "distill.rounds=2", "train.states=200",
                      "distill.from=pt", "--checkpoint", f"{net}.pt", "--out", f"{net}.h5")  # fmt: skip
        assert "remove it to train anew" in again.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("net=none",), "net=none"),
        (("train.sweeps=0",), "train.sweeps=0: mode distill learns from refined states"),
        (("distill.rounds=0",), "distill.rounds=0: an integer of at least 1"),
        (("distill.from=air",), "distill.from=air: sweeps or pt is needed"),
    ],
)
def test_refused_before_any_work(nmcmc, tmp_path, words, said):
    run = nmcmc("run", "--mode", "distill", "sk", "N=10", "seed=1", "beta=1", *words, code=2)
    assert said in run.err
    assert not list(tmp_path.iterdir())
