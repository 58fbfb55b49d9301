"""Two processes do what one does: the same draws, the same gradient up to the order of sums, the same chain."""

import math
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import mc
from nmcmc.distributed import ALONE, SharedProposal, Team, TeamError, join, lay, serve
from nmcmc.importance import ImportanceDriver
from nmcmc.metropolis import NeuralDriver
from nmcmc.objectives import ANY_ORDER, OBJECTIVES
from nmcmc.objectives.base import StepRandomness, draw_in_parts
from nmcmc.parts import PARTS, joined, numbered_parts, split_evenly, uniforms
from nmcmc.recipe import NetSettings, build_sampler
from nmcmc.training import TrainSettings, train, training_step

ORDERED = [name for name in OBJECTIVES if name not in ANY_ORDER]  # for samplers of one order
BETA = 0.25  # hot enough that no state is drawn twice by chance
NET = NetSettings(patch=(2, 2), width=16, heads=2, prior="lookahead")
NETS = {
    "tree": NET,
    "softmax": replace(NET, head="softmax"),
    "spin": replace(NET, head="spin", prior="belief"),
}
FEW = TrainSettings(steps=5, batch=50, warmup=2, validate_every=5, validation_draws=100, seed=5)
PATIENCE = 300  # seconds for two processes that share a busy machine
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:torch.distributed")


# What one process does alone and two do together


def sampler_of(net, seed=1):
    """An untrained sampler with weights that matter."""
    sampler = build_sampler(mc.models.ising(L=6), BETA, net)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in sampler.network.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return sampler


def objective_of(name, sampler):
    if "likelihood" in name:
        states = np.random.default_rng(0).integers(0, 2, size=(80, sampler.tokens.n_spins))
        return OBJECTIVES[name](sampler, (2 * states - 1).astype(np.int8))
    return OBJECTIVES[name](sampler)


def draw_and_count(team, desk, sampler, n, max_batch):
    """The states of a step, and how many of them all processes drew."""
    drawn, draw, sampler.max_batch = [], sampler.draw_tokens, max_batch
    sampler.draw_tokens = lambda size, parts: drawn.append(size) or draw(size, parts)
    spins, log_q = draw_in_parts(sampler, n, StepRandomness.of(7, 3, team))
    return spins, log_q, int(team.total(torch.tensor(sum(drawn)))), max(drawn, default=0)


def gradient(team, net, name, batch):
    sampler = sampler_of(net)
    objective = objective_of(name, sampler)
    team.tell(lay, "objective", objective)
    optimizer = torch.optim.SGD(sampler.network.parameters(), lr=0.0)
    settings = replace(FEW, batch=batch, microbatch=9, clip=math.inf)
    loss = training_step(sampler, objective, optimizer, settings, StepRandomness.of(1, 0, team))
    return loss, torch.cat([p.grad.flatten() for p in sampler.network.parameters()])


def trained(team, settings, reuse):
    sampler = sampler_of(NET)
    losses = []
    objective = OBJECTIVES["soft-distillation"](sampler, 2, reuse)
    training = train(sampler, objective, settings, report=lambda now, steps: losses.append(now.step), team=team)
    return training.history["loss"], training.history["free_energy"], training.weights


def chain(team, sampler, driver):
    """Two blocks of a chain, and a third by a driver that goes on from the state after the first."""

    def proposals():
        return [SharedProposal(team, sampler, 0)] if team.size > 1 else [sampler]

    sampler.max_batch = 64
    one = driver(proposals())
    one.warm_up(10)
    blocks = [one.block(20)]
    state = one.state()
    blocks.append(one.block(70))
    other = driver(proposals())
    other.restore(state)
    again = other.block(70)
    assert all((again.sample_stats[key] == values).all() for key, values in blocks[1].sample_stats.items())
    return [{**block.posterior, **block.sample_stats, "spins": block.spins} for block in blocks]


DRIVERS = {
    "nmcmc": lambda proposals: NeuralDriver(proposals, 4, seed=3),
    "nmcmc with sweeps": lambda proposals: NeuralDriver(proposals, 4, seed=3, local=1),
    "nis": lambda proposals: ImportanceDriver(proposals, 4, seed=3),
}


def linear_sampler():
    sampler = build_sampler(mc.models.ising(L=6), BETA, NetSettings(net="linear", prior="lookahead", window=1))
    with torch.no_grad():
        sampler.network.weight.add_(0.1 * torch.randn(sampler.network.weight.shape,
                                                      generator=torch.Generator().manual_seed(2)))  # fmt: skip
    return sampler


def everything(team):
    results = {}
    for name, net in NETS.items():
        for n, most in ((70, 512), (70, 9), (1, 512)):
            sampler = sampler_of(net)
            team.tell(draw_and_count, sampler, n, most)
            results["draw", name, n, most] = draw_and_count(team, {}, sampler, n, most)
        for objective in ORDERED if name != "softmax" else ("rtgs",):
            results["gradient", name, objective] = gradient(team, net, objective, 50)
    results["gradient", "one state", "likelihood"] = gradient(team, NET, "likelihood", 1)
    for name, reuse in (("adamw", 1), ("adamw", 2), ("muon", 1)):
        results["train", name, reuse] = trained(team, replace(FEW, optimizer=name), reuse)
    for name, driver in DRIVERS.items():
        results["chain", name] = chain(team, sampler_of(NET), driver)
    results["chain", "linear"] = chain(team, linear_sampler(), DRIVERS["nmcmc"])
    return results


def vanish(team, desk):
    os._exit(0)


def meet_someone_who_is_gone(team):
    """The last thing that rank 0 does: the other vanishes before a sum."""
    team.tell(vanish)
    try:
        while True:
            team.total(torch.zeros(10))
    except TeamError as error:
        return str(error)


def process(rank, port, task, path):
    """What each of two processes runs."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    team = join(cuda=False)
    if team.rank:
        serve(team, torch.device("cpu"))
    torch.save(task(team), path)
    team.leave()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def two_processes(task, path):
    context, port = multiprocessing.get_context("spawn"), free_port()
    both = [context.Process(target=process, args=(rank, port, task, path)) for rank in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join(PATIENCE)
    codes = [one.exitcode for one in both]
    for one in both:
        if one.is_alive():
            one.kill()
    return codes


def all_tasks(team):
    return everything(team) | {"gone": meet_someone_who_is_gone(team)}


@pytest.fixture(scope="module")
def alone():
    return everything(ALONE)


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    path = tmp_path_factory.mktemp("two") / "results.pt"
    assert two_processes(all_tasks, path) == [0, 0]
    return torch.load(path, weights_only=False)


DRAWS = [("draw", name, n, most) for name in NETS for n, most in ((70, 512), (70, 9), (1, 512))]
GRADIENTS = [("gradient", name, objective) for name in ("tree", "spin") for objective in ORDERED]
GRADIENTS += [("gradient", "softmax", "rtgs"), ("gradient", "one state", "likelihood")]


@pytest.mark.parametrize("key", DRAWS, ids=str)
def test_two_processes_draw_the_states_that_one_draws_and_none_twice(key, alone, together):
    # A log-odds may differ in its last bit by the states drawn beside it; at these seeds no spin hangs on that.
    (spins, log_q, count, largest), (same, same_log_q, same_count, same_largest) = alone[key], together[key]
    _, _, n, most = key
    assert count == same_count == n
    assert largest <= most
    assert same_largest <= max(1, 0.6 * n)  # about half
    assert torch.equal(spins, same)
    assert (log_q - same_log_q).abs().max() < 1e-5
    assert len(spins.unique(dim=0)) == n


@pytest.mark.parametrize("key", GRADIENTS, ids=str)
def test_two_processes_find_the_gradient_that_one_finds(key, alone, together):
    (loss, whole), (same_loss, summed) = alone[key], together[key]
    assert whole.abs().max() > 1e-3
    assert same_loss == pytest.approx(loss, rel=1e-5, abs=1e-6)
    assert (summed - whole).norm() < 1e-5 * whole.norm()


@pytest.mark.parametrize(("optimizer", "reuse"), [("adamw", 1), ("adamw", 2), ("muon", 1)])
def test_two_processes_train_to_the_weights_of_one(optimizer, reuse, alone, together):
    (loss, free_energy, weights), (same_loss, same_free_energy, same_weights) = (
        results["train", optimizer, reuse] for results in (alone, together)
    )
    assert len(loss) == 2
    assert same_loss[1:] == pytest.approx(loss[1:], rel=1e-4)
    assert same_free_energy == pytest.approx(free_energy, rel=1e-5)
    for name, values in weights.items():
        difference = (same_weights[name] - values).abs()
        if name.endswith("qkv.bias"):  # no loss depends on a bias of keys: AdamW makes whole steps of rounding errors
            difference = torch.cat(difference.chunk(3)[::2])
        # Muon makes its matrices orthogonal in bfloat16, which enlarges the rounding of sums in another order.
        assert difference.max() < {"adamw": 1e-5, "muon": 1e-4}[optimizer], name


@pytest.mark.parametrize("name", [*DRIVERS, "linear"])
def test_a_chain_of_two_processes_is_that_of_one_bit_for_bit(name, alone, together):
    for block, same in zip(alone["chain", name], together["chain", name], strict=True):
        assert block.keys() == same.keys()
        for key, values in block.items():
            assert np.array_equal(values, same[key]), key


def test_rank_0_hears_that_a_helper_has_gone(together):
    assert together["gone"].startswith("another process of this run has ended")
    assert "\n" not in together["gone"]


def leave(team):
    os._exit(3)


def test_a_helper_ends_when_rank_0_has_gone(tmp_path):
    assert two_processes(leave, tmp_path / "nothing") == [3, 0]


# Parts of a batch


def test_parts_add_up_and_their_numbers_depend_on_seed_key_and_number_alone():
    for n, most in ((1, 5), (31, 512), (256, 512), (5000, 100), (100, 3)):
        parts = numbered_parts(n, most, 1, 2)
        assert sum(part.states for part in parts) == n
        assert all(1 <= part.states <= most for part in parts)
        assert len(parts) >= min(n, PARTS)
        for group in joined(parts, most):
            assert sum(part.states for part in group) <= most
        assert [part for group in joined(parts, most) for part in group] == parts
    first = uniforms(64, 3, numbered_parts(64, 512, 1, 2))
    assert first.shape == (64, 3)
    assert len(first.unique()) == first.numel()
    assert torch.equal(first, uniforms(64, 3, numbered_parts(64, 512, 1, 2)))
    middle = numbered_parts(64, 512, 1, 2)[5:9]
    assert torch.equal(first[10:18], uniforms(8, 3, middle))
    for seed, key in ((2, (2,)), (1, (3,)), (1, (2, 0))):
        assert not np.isin(first, uniforms(64, 3, numbered_parts(64, 512, seed, *key))).any()


def test_shares_cover_everything_once_and_rank_0_has_some():
    for size in (1, 2, 3, 8):
        for n in (1, 2, 7, 32):
            shares = [range(n)[Team(rank, size).share(n)] for rank in range(size)]
            assert [i for share in shares for i in share] == list(range(n))
            assert len(shares[0]) == max(map(len, shares)) >= 1
            assert [len(share) for share in shares] == split_evenly(n, size)


def test_a_team_of_one_needs_nobody():
    values = torch.arange(3)
    assert ALONE.total(values) is values
    ALONE.tell(vanish)
    ALONE.dismiss()


# The command


@pytest.mark.parametrize("words", [("pt", "ising"), ("metropolis", "ising"), ("nmcmc", "ising", "move=block"),
                                   ("nmcmc", "ea2d", "instances=0:4")])  # fmt: skip
def test_what_one_process_alone_can_do_is_refused_under_torchrun(words, nmcmc, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    mode, model, *more = words
    run = nmcmc("run", "--mode", mode, model, "L=4", "beta=0.4", *more, code=2)
    assert "start this run without it" in run.err
    assert len(run.err.strip().splitlines()) == 1


MODEL = ("ising", "L=6", "beta=0.44", "patch=2x2", "prior=lookahead", "net.width=16", "net.heads=2",
         "train.batch=64", "spins.every=10", "net=transformer")  # fmt: skip


def command(folder, *words, processes=1):
    launcher = [sys.executable, "-m"]
    if processes > 1:
        launcher += ["torch.distributed.run", "--nproc-per-node", str(processes), "--master-port", str(free_port()),
                     "-m"]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*launcher, "cli.main", *words], cwd=folder, env=environment, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip


def content(path):
    with h5py.File(path) as file:
        return {f"{group}/{name}": file[group][name][()] for group in ("posterior", "sample_stats")
                for name in file[group] if isinstance(file[group][name], h5py.Dataset)}  # fmt: skip


@pytest.mark.slow
def test_torchrun_leaves_the_chain_of_one_process_and_speaks_once(tmp_path):
    def done(*words, processes):
        out, err = (run := command(tmp_path, *words, processes=processes)).communicate(timeout=PATIENCE)
        assert run.returncode == 0, err
        return out

    scores = []
    for processes, weights in ((1, "a.pt"), (2, "b.pt")):
        out = done("train", *MODEL, "train.steps=20", "--checkpoint", weights, processes=processes)
        assert out.count(f"sampler: training into {weights}") == 1
        scores.append(torch.load(tmp_path / weights, weights_only=True)["training"]["history"]["free_energy"])
        draw = ("run", "--mode", "nmcmc", *MODEL, "--checkpoint", "a.pt", "--draws", "300")
        assert done(*draw, "--out", f"{processes}.h5", processes=processes).count("rescore_error") == 1
    assert scores[1] == pytest.approx(scores[0], rel=1e-5)
    one, two = (content(tmp_path / f"{processes}.h5") for processes in (1, 2))
    assert one.keys() == two.keys()
    assert {"posterior/energy", "sample_stats/log_q"} <= one.keys()
    assert all(np.array_equal(values, two[name]) for name, values in one.items())


@pytest.mark.slow
def test_an_interrupt_keeps_the_training_and_leaves_no_process(tmp_path):
    words = ("train", *MODEL, "train.steps=100000", "--checkpoint", "a.pt")
    run = command(tmp_path, *words, processes=2)
    began = time.monotonic()
    while not (tmp_path / "a.pt").exists() and time.monotonic() - began < PATIENCE:
        time.sleep(0.2)
    ranks = [int(path.name) for path in Path("/proc").glob("[0-9]*") if parent_of(path) == run.pid]
    assert len(ranks) == 2
    run.send_signal(signal.SIGINT)
    out, _ = run.communicate(timeout=PATIENCE)
    assert "the same command again goes on" in out
    assert not any(Path(f"/proc/{rank}").exists() for rank in ranks)
    training = torch.load(tmp_path / "a.pt", weights_only=True)["training"]
    assert training["step"] > 0
    assert not training["finished"]


def parent_of(path):
    try:
        return int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return None
