"""`nmcmc bench`: what it prints and refuses, and that rivals run our couplings. Nothing here depends on speed."""

import json
import math
import sys
from dataclasses import replace

import numba
import numpy as np
import pytest

from cli import bench as command
from cli import bench_rivals, bench_rows
from cli.bench import bench
from cli.errors import UserError
from mc import models

KEYS = ["kernel", "model", "updates_per_ns", "rival", "rival_updates_per_ns", "ratio", "must"]
TINY = 1e-4


@pytest.fixture
def no_rivals(monkeypatch):
    """As where nothing but the package is installed."""
    for rival in bench_rivals.RIVALS:
        monkeypatch.setitem(sys.modules, rival, None)


def counting(n):
    """A contender that takes some time."""
    return float(len([0 for _ in range(100 * n)]))


def last_line(capsys):
    out = capsys.readouterr().out
    return json.loads(out.splitlines()[-1]), out


def test_json_without_rivals(no_rivals, capsys):
    threads = numba.get_num_threads()
    bench("mc", only="one replica", seconds=TINY, as_json=True)
    data, out = last_line(capsys)
    assert data["command"] == "bench"
    assert [row["model"] for row in data["rows"]] == [
        f"3D EA {J}, L=10, T=1.1, one replica" for J in ("gaussian", "bimodal")
    ]
    for row in data["rows"]:
        assert list(row) == KEYS
        assert row["kernel"] == "graph"
        assert row["must"] == 1.0
        assert row["updates_per_ns"] > 0
        assert row["rival"] is row["rival_updates_per_ns"] is row["ratio"] is None
    assert "pip install peapods==0.2.0\n" in out
    assert numba.get_num_threads() == threads


def test_rows_have_the_rates_of_both(monkeypatch, capsys):
    """A fast kernel against the plain one needs no rival, and its ratio is that of the rates."""
    row = next(row for row in bench_rows.all_rows() if row.rival == "replicas")
    row = replace(row, ours=lambda: counting, theirs=lambda: [counting], must=1e-9)
    monkeypatch.setattr(command, "all_rows", lambda: [row])
    bench("mc", seconds=TINY, as_json=True, only="/ replicas")
    (result,) = last_line(capsys)[0]["rows"]
    assert result["rival"] == "replicas"
    assert result["ratio"] == pytest.approx(result["updates_per_ns"] / result["rival_updates_per_ns"])


def test_lost_vectorisation_fails_after_the_json(monkeypatch, capsys):
    slow = bench_rows.Row("lanes", "a model", "replicas", lambda: counting, lambda: [counting], must=math.inf)
    monkeypatch.setattr(command, "all_rows", lambda: [slow])
    with pytest.raises(UserError, match="lost vectorisation: lanes: a model") as raised:
        bench("mc", only="a model", seconds=TINY, as_json=True)
    assert raised.value.code == 1
    assert last_line(capsys)[0]["rows"][0]["ratio"] < math.inf


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("nc",), "unknown benchmark nc, did you mean mc"),
        (("mc", "lannes"), "--only lannes: in the name of no row, did you mean lanes"),
        (("mc", "lanes", 0.0), "--seconds 0: a finite number above 0 is needed"),
        (("mc", "lanes", math.nan), "--seconds nan: a finite number above 0 is needed"),
    ],
)
def test_wrong_words_are_refused_before_any_work(words, says, capsys):
    with pytest.raises(UserError) as raised:
        bench(*words)
    assert raised.value.code == 2
    assert str(raised.value).startswith(says)
    assert capsys.readouterr().out == ""


def test_only_chooses_by_kernel_model_and_rival():
    rows, others = command.chosen("Packed: ")
    assert {row.kernel for row in rows} == {"packed"}
    assert others == []
    assert {row.rival for row in command.chosen("openjij")[0]} == {"openjij"}
    assert [row.must for row in command.chosen("SK N=256")[0]] == [1.2]
    assert command.chosen("measuring") == ([], [*(f"measuring: {name}" for name in bench_rows.MEASURED)])
    everything = command.chosen(None)
    assert len(everything[0]) == len(bench_rows.all_rows())
    assert len(everything[1]) == 3


def test_two_threads_make_a_row(capsys):
    bench("mc", only="threads", seconds=TINY, as_json=True)
    data, out = last_line(capsys)
    (row,) = data["rows"]
    assert list(row) == KEYS
    assert row["rival"] == "one thread"
    assert row["must"] in (command.MUST_THREADS, None)
    assert (row["must"] is None) == ("unmeasurable" in out)


def test_contenders_are_timed_in_turn():
    """With a clock of our own: each costs what it costs, and none has all its runs before the other."""
    now, order = [0.0], []

    def contender(cost, updates):
        def run(n):
            now[0] += cost * n
            order.append(cost)
            return updates * n

        return run

    slow, fast = bench_rivals.timed([contender(0.02, 3.0), contender(0.001, 5.0)], 1.0, lambda: now[0], runs=5)
    assert slow == pytest.approx((0.02, 3.0))
    assert fast == pytest.approx((0.001, 5.0))
    assert order[-10:] == [0.02, 0.001] * 5


def test_difference_of_two_rivals(monkeypatch):
    """A move that is only made with a sweep is charged with the time that it adds."""
    found = [bench_rivals.Timed(1e-6, 3000.0), bench_rivals.Timed(5e-6, 1000.0), bench_rivals.Timed(4e-6, 1000.0)]
    monkeypatch.setattr(command, "timed", lambda contenders, seconds, pick: found)
    row = bench_rows.Row("clusters", "a model", "replicas", lambda: counting, lambda: [counting] * 2, must=2.0)
    result = command.race(row, 1.0)
    assert result["updates_per_ns"] == pytest.approx(3.0)
    assert result["rival_updates_per_ns"] == pytest.approx(1.0)
    assert result["ratio"] == pytest.approx(3.0)
    found[2] = bench_rivals.Timed(6e-6, 1000.0)
    assert command.race(row, 1.0)["ratio"] is None


@pytest.mark.parametrize("model", [models.ising(Lx=5, Ly=3), models.ea3d(Lx=3, Ly=4, Lz=5, J="gaussian", seed=2)])
def test_couplings_given_to_peapods(model):
    forward = bench_rivals.forward_couplings(model)
    spins = np.random.default_rng(0).choice([-1, 1], (7, *model.lattice.shape))
    axes = range(model.lattice.dimension)
    satisfied = sum(forward[..., axis] * spins * np.roll(spins, -1, axis + 1) for axis in axes)
    assert -satisfied.reshape(7, -1).sum(axis=1) == pytest.approx(model.energy(spins.reshape(7, -1)))


def test_couplings_given_to_openjij():
    model = models.sk(9, seed=4)
    matrix = bench_rivals.dense_matrix(model)[:-1, :-1]
    spins = np.random.default_rng(0).choice([-1, 1], (7, 9))
    assert np.einsum("ri,ij,rj->r", spins, matrix, spins) == pytest.approx(model.energy(spins))


def test_openjij_has_our_energy():
    core = pytest.importorskip("openjij.cxxjij")
    model = models.sk(9, seed=4)
    graph = core.graph.Dense(9)
    graph.set_interaction_matrix(bench_rivals.dense_matrix(model))
    spins = np.random.default_rng(1).choice([-1, 1], 9)
    assert graph.calc_energy(spins.tolist()) == pytest.approx(model.energy(spins))


def test_wolff_counts_flipped_sites():
    """At low temperature a cluster is the whole system, at infinite temperature it is one site."""
    run, size = bench_rivals.wolff(models.ising(8), 3.0)
    assert size == pytest.approx(64.0)
    assert run(50) == pytest.approx(50 * 64.0)
    _, small = bench_rivals.wolff(models.ising(8), 0.0)
    assert small == 1.0


def test_the_command(nmcmc):
    assert nmcmc("bench", "mc", "--only", "threads", "--seconds", TINY, "--json").json["command"] == "bench"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nc"], "nmcmc: unknown benchmark nc, did you mean mc?"),
        (["mc", "--only", "lannes"], "nmcmc: --only lannes: in the name of no row"),
        (["mc", "--seconds", "-1"], "nmcmc: --seconds -1: a finite number above 0"),
    ],
)
def test_the_command_refuses_wrong_words(words, says, nmcmc):
    refused = nmcmc("bench", *words, code=2)
    assert refused.err.startswith(says)
    assert refused.out == ""
