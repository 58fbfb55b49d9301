"""Parallel tempering with neural moves: the law at every beta for any proposal, bookkeeping, resuming, refusals."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import mc
from benchmarks import neural_tempering as benchmark
from mc.chain import open_chain
from mc.tempering import TemperingDriver
from nmcmc.recipe import NetSettings, build_sampler
from nmcmc.tempering import NeuralTemperingDriver
from tests.enumerated import FALSE_ALARM, all_states, combined_p_value, law, law_p_value, state_numbers

BETAS = np.array([0.0, 0.3, 0.7, 1.2])
MODELS = [
    lambda: mc.models.ea2d(L=3, seed=4),
    lambda: mc.models.sk(N=6, h="gauss:0.4", seed=4),
    lambda: mc.models.pspin(N=6, p=3, seed=5),
]


class Table:
    """A Proposal with a given law over all states of a small system."""

    tokens = None

    def __init__(self, hamiltonian, beta, probabilities, max_batch=512):
        self.hamiltonian, self.beta, self.max_batch = hamiltonian, float(beta), max_batch
        self.probabilities = np.asarray(probabilities) / np.sum(probabilities)
        self.states = all_states(hamiltonian.n_spins)
        with np.errstate(divide="ignore"):
            self.log_q = np.log(self.probabilities)

    def sample(self, n, generator):
        uniform = torch.rand(n, generator=generator, dtype=torch.float64).numpy()
        numbers = np.searchsorted(self.probabilities.cumsum(), uniform, side="right")
        numbers = np.minimum(numbers, len(self.states) - 1)
        return self.states[numbers], self.log_q[numbers]

    def log_prob(self, spins):
        return self.log_q[state_numbers(spins)]


def good(hamiltonian, beta):
    return Table(hamiltonian, beta, law(hamiltonian, beta)[1])


def poor(hamiltonian, beta):
    """Far from the target, and a quarter of the states is never proposed."""
    random = np.random.default_rng(hamiltonian.n_spins)
    weights = random.exponential(size=2**hamiltonian.n_spins)
    weights[random.random(len(weights)) < 0.25] = 0.0
    return Table(hamiltonian, beta, weights)


def proposals_at(where, make, hamiltonian, betas=BETAS):
    return [make(hamiltonian, beta) if b in where else None for b, beta in enumerate(betas)]


def contents(block):
    return [*block.posterior.values(), *block.sample_stats.values(), block.spins, block.spin_draws]


def assert_same(ours, theirs):
    for mine, other in zip(ours, theirs, strict=True):
        assert np.array_equal(mine, other, equal_nan=mine.dtype.kind == "f")


@pytest.mark.statistical
@pytest.mark.parametrize("make", [good, poor])
@pytest.mark.parametrize("where", [(3,), (0, 1, 2, 3)], ids=["coldest", "all"])
def test_every_beta_has_its_law(where, make):
    # One draw of each of 1200 independent ladders, which start all up; false alarm 1e-4 a case. With a move every
    # round the poor proposal decides as much as the sweeps do, so a wrong weight would show.
    p_values = []
    for seed, build in enumerate(MODELS):
        hamiltonian = build()
        proposals = proposals_at(where, make, hamiltonian)
        driver = NeuralTemperingDriver(hamiltonian, BETAS, proposals, 1, n_chains=1200, seed=seed, init="up")
        driver.warm_up(40 + seed)
        spins = driver.block(1).spins
        p_values += [law_p_value(hamiltonian, beta, spins[:, 0, b]) for b, beta in enumerate(BETAS)]
    assert combined_p_value(p_values) > FALSE_ALARM, np.round(p_values, 5)


@pytest.mark.statistical
def test_the_law_holds_without_sweeps_that_help():
    # Two betas, exact start, one round: neural moves and one sweep must keep the law as it is (20,000 ladders). A
    # move that ignored the weight of the present state would fail at once.
    hamiltonian, betas = MODELS[1](), np.array([0.4, 1.5])
    random = np.random.default_rng(3)
    start = np.stack([all_states(6)[random.choice(64, size=20_000, p=law(hamiltonian, b)[1])] for b in betas], axis=1)
    p_values = []
    for seed, make in enumerate((good, poor)):
        driver = NeuralTemperingDriver(
            hamiltonian,
            betas,
            proposals_at((0, 1), make, hamiltonian, betas),
            1,
            n_chains=20_000,
            seed=seed,
            init=start,
        )
        block = driver.block(1)
        assert (block.sample_stats["neural_accepted"] == 1).all() == (make is good)
        p_values += [law_p_value(hamiltonian, beta, block.spins[:, 0, b]) for b, beta in enumerate(betas)]
    assert combined_p_value(p_values) > FALSE_ALARM, p_values


@pytest.mark.statistical
def test_replicas_of_a_chain_get_proposals_of_their_own():
    # The overlap of two replicas at the coldest beta, each proposed to at every round, against the product law.
    hamiltonian = MODELS[0]()
    driver = NeuralTemperingDriver(
        hamiltonian, BETAS, proposals_at((3,), good, hamiltonian), 1, n_chains=1500, seed=2, replicas=2, houdayer=True
    )
    driver.warm_up(30)
    block = driver.block(1)
    spins = block.spins[:, 0, 3]
    _, probability = law(hamiltonian, BETAS[3])
    p_values = [law_p_value(hamiltonian, BETAS[3], spins[:, replica]) for replica in range(2)]
    states = all_states(9)
    q_squared = ((states.astype(float) @ states.T) / 9) ** 2
    mean = probability @ q_squared @ probability
    error = np.sqrt((probability @ q_squared**2 @ probability - mean**2) / 1500)
    assert abs((block.posterior["overlap"][:, 0, 3] ** 2).mean() - mean) < 4 * error  # false alarm 6e-5
    assert combined_p_value(p_values) > FALSE_ALARM


@pytest.mark.parametrize("kernel", ["bit-planes", "graph", "replicas"])
@pytest.mark.parametrize(("thin", "every"), [(3, 1), (3, 5), (4, 10), (7, 7)])
def test_blocks_and_states_continue_bit_for_bit(thin, every, kernel):
    hamiltonian = MODELS[0]()

    def fresh():
        proposals = proposals_at((1, 3), poor, hamiltonian)
        for proposal in proposals[1::2]:
            proposal.max_batch = 12  # two moves a batch of three chains with two replicas
        return NeuralTemperingDriver(hamiltonian, BETAS, proposals, every, n_chains=3, seed=3, thin=thin,
                                     spins_every=2, replicas=2, kernel=kernel, digest=b"abc")  # fmt: skip

    whole, parts, other = fresh(), fresh(), fresh()
    for driver in (whole, parts):
        driver.warm_up(5)
        driver.warm_up(6)
    long = whole.block(12)
    blocks = [parts.block(1), parts.block(4)]
    state = parts.state()
    blocks += [parts.block(7)]
    other.block(3)  # elsewhere
    other.restore({name: np.array(array) for name, array in state.items()})
    assert_same(contents(blocks[-1]), contents(other.block(7)))
    joined = [
        np.concatenate(p, axis=min(p[0].ndim - 1, 1))
        for p in zip(*(contents(block) for block in blocks), strict=True)
    ]
    assert_same(contents(long), joined)
    assert_same(list(whole.state().values()), list(parts.state().values()))


def test_bookkeeping_of_a_run():
    hamiltonian = mc.models.ea2d(L=4, J="gaussian", seed=1, h=0.1)
    sampler = build_sampler(hamiltonian, BETAS[3], NetSettings(prior="belief", net="none"))
    driver = NeuralTemperingDriver(
        hamiltonian, BETAS, [None, None, None, sampler], 6, n_chains=3, seed=2, thin=4, spins_every=3
    )
    driver.warm_up(9)
    block = driver.block(30)
    assert driver.stat_names == tuple(block.sample_stats)
    energy = block.posterior["energy"]
    assert energy[:, ::3] == pytest.approx(hamiltonian.energy(block.spins), abs=1e-9)
    assert block.posterior["magnetization"][:, ::3] == pytest.approx(block.spins.mean(axis=-1))
    assert energy.shape == (3, 30, 4)
    moved, weight = block.sample_stats["neural_accepted"], block.sample_stats["log_weight_proposed"]
    assert np.isnan(moved[:, :, :3]).all()
    assert (np.isnan(moved) == np.isnan(weight)).all()
    # Rounds 9 to 128; draw d has rounds 9 + 4 d to 12 + 4 d, and moves come before rounds 12, 18, 24, ...
    due = [any(r % 6 == 0 for r in range(9 + 4 * d, 13 + 4 * d)) for d in range(30)]
    assert (~np.isnan(moved[0, :, 3])).tolist() == due
    assert 0.3 < np.nanmean(moved) < 1.0
    swaps = block.sample_stats["swap_accepted"]
    assert np.isfinite(swaps[:, :, :3]).all()  # four rounds a draw: both parities, whatever pieces they came in
    assert (swaps[:, :, :3].mean(axis=(0, 1)) > 0.05).all()
    assert driver.lowest.energy <= energy.min()
    assert hamiltonian.energy(driver.lowest.spins) == pytest.approx(driver.lowest.energy)


def test_without_an_accepted_move_it_is_parallel_tempering():
    # The proposal has all its weight on one state, which it believes to be far too likely: nothing is ever taken.
    hamiltonian = MODELS[0]()
    never = Table(hamiltonian, BETAS[3], np.r_[1.0, np.zeros(2**9 - 1)])
    never.log_q = np.r_[1e6, np.full(2**9 - 1, -10.0)]
    arguments = dict(n_chains=2, seed=4, thin=5, spins_every=1, replicas=2)
    neural = NeuralTemperingDriver(hamiltonian, BETAS, [None, None, None, never], 3, **arguments)
    plain = TemperingDriver(hamiltonian, BETAS, **arguments)
    for driver in (neural, plain):
        driver.warm_up(20)
    ours, theirs = neural.block(8), plain.block(8)
    assert np.nanmax(ours.sample_stats["neural_accepted"]) == 0.0
    for name, values in theirs.sample_stats.items():
        assert np.array_equal(ours.sample_stats[name], values, equal_nan=True)
    for name, values in theirs.posterior.items():
        assert np.array_equal(ours.posterior[name], values)
    assert np.array_equal(neural.round_trips, plain.round_trips)


def test_a_replacement_ends_a_round_trip():
    hamiltonian = MODELS[0]()
    arguments = dict(n_chains=2, seed=4, thin=5)
    plain = TemperingDriver(hamiltonian, BETAS, **arguments)
    always = NeuralTemperingDriver(hamiltonian, BETAS, proposals_at((3,), good, hamiltonian), 1, **arguments)
    for driver in (plain, always):
        driver.block(300)
    assert plain.round_trips.sum() > 10 * always.round_trips.sum()


def test_one_beta_one_replica_one_chain_and_beta_zero():
    hamiltonian = MODELS[2]()
    for beta in (0.0, 0.8):
        driver = NeuralTemperingDriver(hamiltonian, [beta], [good(hamiltonian, beta)], 2, n_chains=1, seed=1)
        stats = driver.block(4).sample_stats
        assert stats["neural_accepted"][0, :, 0].tolist() == pytest.approx([1, np.nan, 1, np.nan], nan_ok=True)
        log_z = np.log(np.exp(-beta * hamiltonian.energy(all_states(6))).sum())
        assert stats["log_weight_proposed"][0, 0, 0] == pytest.approx(log_z)


def test_wrong_proposals_and_states_are_refused():
    hamiltonian = MODELS[0]()
    proposals = proposals_at((3,), good, hamiltonian)
    with pytest.raises(ValueError, match="every=0"):
        NeuralTemperingDriver(hamiltonian, BETAS, proposals, 0)
    with pytest.raises(ValueError, match="one or None a beta"):
        NeuralTemperingDriver(hamiltonian, BETAS, proposals[1:])
    with pytest.raises(ValueError, match="another Hamiltonian or temperature"):
        NeuralTemperingDriver(hamiltonian, BETAS, proposals[::-1])
    with pytest.raises(ValueError, match="another Hamiltonian or temperature"):
        NeuralTemperingDriver(mc.models.ea2d(L=3, seed=5), BETAS, proposals)
    with pytest.raises(ValueError, match="would move away"):
        NeuralTemperingDriver(hamiltonian, BETAS, proposals_at((1, 3), good, hamiltonian), tuned=True)
    NeuralTemperingDriver(hamiltonian, BETAS, proposals, tuned=True)
    driver = NeuralTemperingDriver(hamiltonian, BETAS, proposals, digest=b"a")
    with pytest.raises(ValueError, match="other weights"):
        driver.restore(NeuralTemperingDriver(hamiltonian, BETAS, proposals, digest=b"b").state())
    broken = good(hamiltonian, BETAS[3])
    broken.log_prob = lambda spins: np.full(len(spins), np.nan)
    with pytest.raises(FloatingPointError, match="not a number"):
        NeuralTemperingDriver(hamiltonian, BETAS, [None, None, None, broken]).block(1)


GLASS = ("run", "--mode", "pt", "ea2d", "L=4", "seed=1", "beta=0.4,0.8,1.2", "--warmup", 100, "--thin", 5)


@pytest.mark.parametrize("where", ["coldest", "all"])
def test_the_command_line(nmcmc, where):
    words = (*GLASS, f"neural={where}", "neural.every=4", "prior=belief", "net=none", "--chains", 40)
    run = nmcmc(*words, "--draws", 80, "--json")
    assert "a replica that takes a neural move begins its round trip anew" in run.out
    found = run.json["diagnostics"]
    offered = [True] * 3 if where == "all" else [False, False, True]
    for name in ("neural_acceptance", "ess", "log_z_proposals", "rescore_error"):
        assert [value is not None for value in found[name]] == offered
    assert found["neural_acceptance"][2] > 0.3
    hamiltonian = mc.models.ea2d(L=4, seed=1)
    for b, beta in enumerate((0.4, 0.8, 1.2)):
        target = mc.exact.exact(hamiltonian, beta)
        energy = run.json["results"][b]["energy"]
        assert abs(energy["mean"] - target.energy) < 5 * energy["error"]
        if offered[b]:
            assert abs(found["log_z_proposals"][b] - target.log_z) < 5 * found["log_z_proposals_error"][b]
    chain = open_chain("ea2d-L=4-seed=1-beta=0.4,0.8,1.2-pt.h5")
    assert {"neural_accepted", "log_weight_proposed", "swap_accepted"} <= set(chain.sample_stats)


def test_a_run_goes_on_with_the_sampler_it_began_with(nmcmc):
    words = (*GLASS, "neural=coldest", "net=linear", "prior=local", "train.states=400", "--chains", 1)
    nmcmc(*words, "--draws", 60, "--out", "straight.h5")
    (checkpoint,) = Path().glob("*.pt")
    told = nmcmc(*words, "--draws", 30, "--out", "parts.h5").out
    assert "fitted before" in told  # of one name with the sampler of nmcmc
    nmcmc(*words, "--draws", 60, "--out", "parts.h5")
    straight, parts = open_chain("straight.h5"), open_chain("parts.h5")
    for name in straight.sample_stats:
        assert np.array_equal(straight.sample_stats[name], parts.sample_stats[name], equal_nan=True)
    assert (straight.posterior["energy"] == parts.posterior["energy"]).all()
    by_name = (*GLASS, "neural=coldest", "--checkpoint", checkpoint, "--chains", 1)
    nmcmc(*by_name, "--draws", 60, "--out", "named.h5")
    assert (open_chain("named.h5").posterior["energy"] == straight.posterior["energy"]).all()
    checkpoint.unlink()
    nmcmc(*words[:-3], "train.states=500", "--chains", 1, "--draws", 30, "--out", "other.h5")
    (checkpoint,) = Path().glob("*.pt")
    error = nmcmc(*by_name[:-3], checkpoint, "--chains", 1, "--draws", 90, "--out", "parts.h5", code=2).err
    assert "parts.h5 holds another run" in error


def test_the_pilot_decides_where_nothing_is_said(nmcmc):
    run = nmcmc(*GLASS, "neural=coldest", "--draws", 20, "--out", "x.h5")
    assert "sampler: prior=boundary-mps" in run.out
    assert "pilot of" not in nmcmc(*GLASS, "neural=coldest", "--draws", 40, "--out", "x.h5").out


def test_plain_tempering_is_as_it_was(nmcmc):
    run = nmcmc(*GLASS, "net=none", "neural.every=3", "--draws", 20, "--out", "off.h5")
    for key in ("net=", "neural.every="):
        assert f"note: {key} (without neural=coldest or all) has no effect in mode pt" in run.out
    assert "sampler" not in run.out
    assert not [key for key in open_chain("off.h5").config["settings"] if key.startswith(("neural", "net"))]
    assert "complete" in nmcmc(*GLASS, "neural=off", "--draws", 20, "--out", "off.h5").out


REFUSED = [
    (("neural=some",), "neural=some"),
    (("neural=all", "neural.every=0"), "neural.every=0"),
    (("neural=all", "ladder=tuned"), "use neural=coldest, or ladder=fixed"),
    (("neural=all", "--checkpoint", "x.pt"), "use neural=coldest, or leave --checkpoint out"),
    (("neural=coldest", "--checkpoint", "x.pt"), "x.pt"),
    (("neural=coldest", "patch=3x3"), "patch"),
]


@pytest.mark.parametrize(("words", "said"), REFUSED)
def test_what_cannot_be_done_is_refused_before_any_work(nmcmc, words, said):
    error = nmcmc(*GLASS, *words, "--draws", 20, code=2).err
    assert said in error
    assert error.count("\n") == 1
    assert not list(Path().iterdir())


@pytest.mark.slow
def test_the_benchmark_says_whether_it_pays(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["neural_tempering.py", "--small"])
    benchmark.main()
    out = capsys.readouterr().out
    assert "L=3, 0.2 to 0.8 (4 T), beta 0.8 every 2: no: an independent sample costs" in out
    rows = [line.split(" | ") for line in out.splitlines() if line.startswith("| L=3")]
    assert [row[1] for row in rows] == ["tempering alone", "+ belief", "+ belief and linear"]
    assert all(abs(float(row[-1].rstrip(" |"))) < 5 for row in rows[1:])  # <q^2> with and without the moves, in sigma
