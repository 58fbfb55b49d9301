"""`nmcmc compare`: what it says of runs whose law is known, and what it refuses.

The chain files hold independent draws from enumerated laws of 3 x 3 lattices: no kernel samples anything. Seeds are
fixed; where runs of one law must agree, they are called different with a probability below 0.01.
"""

import shlex

import h5py
import numpy as np
import pytest

import mc
from mc.chain import create_chain
from mc.comparison import LEVEL
from mc.exact import exact
from tests.enumerated import law

ISING = mc.models.ising(L=3)
BETA = 0.4


@pytest.fixture
def chain_file(tmp_path):
    """Makes chain files of draws from exact laws: chain_file(name, seed, ...) -> its path."""

    def make(name, seed, mode="metropolis", hamiltonian=ISING, betas=(BETA,), of=None, draws=800, chains=4,
             pairs=False, seconds=None, model="ising", too_large=0.0, noise=0.0, stay=1):  # fmt: skip
        # of: the betas of the laws that are really drawn from; noise: of the log weights, in a sampler that is not
        # perfect; stay: draws for which a state is kept
        random, cells = np.random.default_rng(seed), []
        for beta in of or betas:
            states, probabilities = law(hamiltonian, beta)
            cells.append(states[random.choice(len(states), (2, chains, draws), p=probabilities)])
        spins = np.stack(cells, axis=3)  # (2, chain, draw, beta, site)
        spins = np.repeat(spins[:, :, ::stay], stay, axis=2)[:, :, :draws]
        first = spins[0]
        posterior = {"energy": hamiltonian.energy(first).astype(float), "magnetization": first.mean(axis=-1)}
        stats = {}
        if pairs:
            posterior["overlap"] = (spins[0] * spins[1]).mean(axis=-1)[..., None]
        if mode in ("nis", "prior"):  # a perfect sampler: all weights are Z
            log_z = np.array([exact(hamiltonian, beta).log_z for beta in betas]) + too_large
            stats = {"log_weight": log_z + noise * random.normal(size=first.shape[:3])}
            stats["log_q"] = -np.array(betas) * posterior["energy"] - stats["log_weight"]
        number = ({}, np.float64)
        writer = create_chain(
            tmp_path / name, mode=mode, command="made by a test", config={"model": model, "parameters":
            hamiltonian.parameters}, rng_seed=seed, hamiltonian=hamiltonian, betas=np.array(betas), n_chains=chains,
            posterior={key: ({"pair": 1} if key == "overlap" else {}, np.float64) for key in posterior},
            sample_stats=dict.fromkeys(stats, number), spins_every=1,
        )  # fmt: skip
        with writer:
            if draws:
                writer.append(posterior, stats, first, np.arange(draws))
            if seconds:
                writer.set_seconds(**seconds)
            writer.commit(complete=True)
        return tmp_path / name

    return make


def line_with(text, words):
    found = [line for line in text.splitlines() if words in line]
    assert len(found) == 1, text
    return found[0]


def test_runs_of_one_law_agree_and_the_cheaper_wins(nmcmc, chain_file):
    a = chain_file("a.h5", 1, seconds={"build": 0.0, "train": 0.0, "sample": 1.0})
    b = chain_file("b.h5", 2, mode="nis", seconds={"build": 5.0, "train": 30.0, "sample": 0.25})
    found = nmcmc("compare", a, b, "--json")
    assert "A and B: agree" in found.out
    pair, cost = found.json["pairs"][0], found.json["costs"][0]
    assert pair["agree"]
    assert {"energy", "abs_magnetization", "m2", "P(energy)", "P(|m|)"} <= pair["results"][0].keys()
    assert all(abs(off["off_exact"]["energy"][0]) < 4 for off in found.json["files"])
    # As many independent draws in a quarter of the time: half of the error. With 35 s of training it is six times it.
    ratio = cost["files"][1]["one_second"] / cost["files"][0]["one_second"]
    assert ratio == pytest.approx(0.5, rel=0.15)
    total = cost["files"][1]["one_second_total"] / cost["files"][0]["one_second_total"]
    assert total == pytest.approx(np.sqrt(35.25), rel=0.15)
    assert cost["files"][1]["per_sample"] == pytest.approx(0.25 / 3200)
    assert "best, sampling alone: B (nis)" in found.out
    assert "best, building and training counted: A (metropolis)" in found.out
    assert found.out.splitlines()[-2].endswith(f"nmcmc analyze {a}")


def test_a_run_at_another_temperature_is_found_and_the_exact_energy_says_which(nmcmc, chain_file):
    right, wrong = chain_file("right.h5", 1), chain_file("wrong.h5", 2, of=(0.37,))
    found = nmcmc("compare", right, wrong, "--json")
    verdict = line_with(found.out, "A and B: ")
    assert verdict.startswith("A and B: differ: ")
    assert "at beta 0.4 by" in verdict
    assert "A is right within" in verdict
    assert "B is off by" in verdict
    assert "(wrong)" in line_with(found.out, "errors from the exact energy")
    assert not found.json["pairs"][0]["agree"]


def test_ln_z_is_compared(nmcmc, chain_file):
    """Weights that are all too large by a thousandth shift ln Z, known to rounding, and nothing else."""
    a, b = chain_file("a.h5", 1, mode="nis"), chain_file("b.h5", 2, mode="prior")
    c = chain_file("c.h5", 3, mode="nis", too_large=1e-3)
    same, off, _ = nmcmc("compare", a, b, c, "--json").json["pairs"]
    assert same["results"][0]["log_z"]["p_value"] == 1.0
    assert off["results"][0]["log_z"]["p_value"] == 0.0
    assert "A and C: differ: ln Z at beta 0.4 by more than rounding" in nmcmc("compare", a, b, c).out


def test_overlaps_of_replicas_and_of_neural_draws_agree(nmcmc, chain_file):
    glass = mc.models.ea2d(L=3, seed=1)
    a = chain_file("a.h5", 1, mode="pt", hamiltonian=glass, pairs=True, model="ea2d")
    b = chain_file("b.h5", 2, mode="nis", hamiltonian=glass, model="ea2d")
    cold = chain_file("c.h5", 3, mode="nis", hamiltonian=glass, of=(0.8,), model="ea2d")
    found = nmcmc("compare", a, b, cold, "--json").json
    first, *others = found["pairs"]
    assert {"q2", "abs_overlap", "P(|q|)"} <= first["results"][0].keys()
    assert first["agree"]
    assert all(not pair["agree"] and pair["results"][0]["P(|q|)"]["p_value"] < 0.01 for pair in others)
    assert {cost["observable"] for cost in found["costs"]} == {"energy", "q2"}


def test_of_many_betas_the_furthest_is_shown(nmcmc, chain_file):
    betas = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
    a = chain_file("a.h5", 1, mode="pt", betas=betas)
    b = chain_file("b.h5", 2, mode="pt", betas=betas, of=(0.1, 0.2, 0.25, 0.4, 0.5, 0.6))
    found = nmcmc("compare", a, b)
    assert "differ: " in line_with(found.out, "A and B: ")
    assert "at beta 0.3 by" in line_with(found.out, "A and B: ")
    assert len([line for line in found.out.splitlines() if line.startswith("A - B")]) == 1


def test_only_common_betas_are_compared(nmcmc, chain_file):
    a = chain_file("a.h5", 1, mode="pt", betas=(0.2, 0.4, 0.6))
    b = chain_file("b.h5", 2, betas=(0.4, 0.5))
    found = nmcmc("compare", a, b, "--json").json
    assert [row["beta"] for row in found["pairs"][0]["results"]] == [0.4]
    other = chain_file("c.h5", 3, betas=(0.5,))
    refused = nmcmc("compare", a, other, code=2)
    assert "no beta is in all files" in refused.err
    assert "0.2,0.4,0.6" in refused.err
    assert len(refused.err.splitlines()) == 1


def test_more_than_four_files_are_compared_with_the_first(nmcmc, chain_file):
    files = [chain_file(f"{seed}.h5", seed) for seed in range(1, 6)]
    pairs = nmcmc("compare", *files, "--json").json["pairs"]
    assert [(pair["a"], pair["b"]) for pair in pairs] == [("A", letter) for letter in "BCDE"]
    assert len(nmcmc("compare", *files[:3], "--json").json["pairs"]) == 3


def test_files_without_seconds_are_said_and_have_no_columns(nmcmc, chain_file):
    a, b = chain_file("a.h5", 1), chain_file("b.h5", 2)
    found = nmcmc("compare", a, b)
    assert "no CPU seconds are known of A, B" in found.out
    assert "err*sqrt(s)" not in found.out
    assert "best" not in found.out
    c = chain_file("c.h5", 3, seconds={"build": 0.0, "train": 0.0, "sample": 1.0})
    found = nmcmc("compare", a, c)
    assert "no CPU seconds are known of A " in found.out
    assert "best, sampling alone: B (metropolis)" in found.out


def test_a_stuck_run_never_wins(nmcmc, chain_file):
    """Frozen at beta 20: its error is zero, its energy wrong."""
    good = chain_file("good.h5", 1, seconds={"build": 0.0, "train": 0.0, "sample": 1.0})
    stuck = chain_file("stuck.h5", 2, of=(20.0,), seconds={"build": 0.0, "train": 0.0, "sample": 0.1})
    found = nmcmc("compare", good, stuck)
    assert "A and B: differ: " in found.out
    assert "[B is constant: " in found.out
    assert "best, sampling alone: A (metropolis)" in found.out
    assert "(without B, whose errors are not to be trusted)" in found.out


def test_the_same_random_numbers_are_noted(nmcmc, chain_file):
    a, b = chain_file("a.h5", 1), chain_file("b.h5", 1)
    assert "same --rng-seed" in line_with(nmcmc("compare", a, b).out, "note: A and B")
    assert "note: " not in nmcmc("compare", a, chain_file("c.h5", 2)).out
    assert "note: " not in nmcmc("compare", a, chain_file("d.h5", 1, mode="nis")).out


def test_a_chain_that_is_also_in_a_merged_file_is_noted(nmcmc, chain_file, tmp_path):
    a, b, merged = chain_file("a.h5", 1), chain_file("b.h5", 2), tmp_path / "merged.h5"
    nmcmc("merge", a, b, "--out", merged)
    for files in ((merged, b), (b, merged)):
        assert "hold chains of one run" in line_with(nmcmc("compare", *files).out, "note: A and B")
    again = chain_file("again.h5", 2)
    assert "same --rng-seed" in line_with(nmcmc("compare", merged, again).out, "note: A and B")
    assert "note: " not in nmcmc("compare", merged, chain_file("c.h5", 3)).out


def test_a_short_single_chain_is_compared_by_its_means(nmcmc, chain_file):
    """60 draws of 6 states are one block: no p-value of a distribution, but of the energy."""
    short, long = chain_file("short.h5", 1, chains=1, draws=60, stay=10), chain_file("long.h5", 2)
    for files in ((short, long), (long, short)):
        pair = nmcmc("compare", *files, "--json").json["pairs"][0]
        row = pair["results"][0]
        for name in ("P(energy)", "P(|m|)"):
            assert row[name]["status"] == "short"
            assert row[name]["p_value"] is row[name]["distance"] is None
        means = [row[name]["p_value"] for name in ("energy", "abs_magnetization", "m2")]
        assert pair["p_value"] == pytest.approx(min(1.0, 3 * min(means)))


def test_one_draw_alone_is_not_compared(nmcmc, chain_file):
    one, other = (chain_file(name, seed, chains=1, draws=1) for name, seed in (("one.h5", 1), ("other.h5", 3)))
    long = chain_file("long.h5", 2)
    found = nmcmc("compare", one, long, "--json")
    assert found.json["pairs"][0]["agree"] is None
    assert line_with(found.out, "A and B: ").startswith("A and B: nothing can be compared: A is short: run at least")
    assert nmcmc("compare", one, other, "--json").json["pairs"][0]["agree"] is None


def test_a_run_that_knows_nothing_agrees_with_nobody(nmcmc, chain_file):
    """Log weights that scatter by 5: a few of 800 draws carry them all."""
    poor, good = chain_file("poor.h5", 1, mode="prior", chains=1, noise=5.0), chain_file("good.h5", 2)
    found = nmcmc("compare", poor, good, "--json")
    verdict = line_with(found.out, "A and B: ")
    assert verdict.startswith("A and B: cannot be told apart: A is too few effective draws: one draw carries ")
    assert "B is" not in verdict
    assert found.json["pairs"][0]["agree"] is None
    assert found.json["pairs"][0]["p_value"] > LEVEL


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [("posterior/energy", np.nan, "nan"), ("sample_stats/log_weight", -np.inf, "zero")],
    ids=["energy not a number", "all weights zero"],
)
def test_draws_that_cannot_be_judged_are_refused_in_one_line(nmcmc, chain_file, name, value, words):
    a, b = chain_file("a.h5", 1), chain_file("b.h5", 2, mode="nis")
    with h5py.File(b, "r+") as file:
        file[name][...] = value
    refused = nmcmc("compare", a, b, code=2)
    assert len(refused.err.splitlines()) == 1
    assert str(b) in refused.err
    assert words in refused.err.replace(str(b), "")


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (dict(hamiltonian=mc.models.ising(Lx=3, Ly=4)), "(9 and 12 spins)"),
        (dict(hamiltonian=mc.models.ising(L=3, J=0.5)), "(J="),
        (dict(hamiltonian=mc.models.ea2d(L=3, seed=1), model="ea2d"), "(ising and ea2d)"),
        (dict(mode="anneal"), "mode anneal"),
        (dict(draws=0), "has no draws"),
    ],
    ids=["size", "couplings", "model", "no temperature", "no draws"],
)
def test_what_cannot_be_compared_is_refused_in_one_line(nmcmc, chain_file, other, words):
    a, b = chain_file("a.h5", 1), chain_file("b.h5", 2, **other)
    refused = nmcmc("compare", a, b, code=2)
    assert words in refused.err
    assert len(refused.err.splitlines()) == 1
    assert not refused.out


def test_one_file_or_none_that_is_a_chain_is_refused(nmcmc, chain_file, tmp_path):
    a = chain_file("a.h5", 1)
    assert "alone is nothing to compare" in nmcmc("compare", a, code=2).err
    assert "no such file" in nmcmc("compare", a, tmp_path / "none.h5", code=2).err


def test_an_ensemble_is_refused(nmcmc, chain_file, tmp_path):
    from mc.chain_tree import Source
    from mc.ensemble import create_ensemble, join

    a, ensemble = chain_file("a.h5", 1), tmp_path / "of samples.h5"
    about = dict(command="made by a test", config={}, asked=[0])
    create_ensemble(ensemble, **about)
    join(ensemble, {0: Source(a)}, **about, complete=True)
    refused = nmcmc("compare", a, ensemble, code=2)
    assert "ensemble" in refused.err
    assert f"nmcmc analyze {shlex.quote(str(ensemble))}" in refused.err
