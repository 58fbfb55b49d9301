"""`nmcmc merge`: chains of one target side by side, others into an ensemble, nothing counted twice."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from cli import instances
from cli.options import Options
from mc.chain import open_chain
from mc.chain_tree import Source
from mc.ensemble import create_ensemble, join, open_ensemble
from mc.merge import NO_SEED

PT = ("run", "--mode", "pt", "ea3d", "L=3", "beta=0.2:1:3", "--warmup", 10, "--thin", 1, "--quiet")


@pytest.fixture
def ran(nmcmc):
    """ran(path, seed=..., words...): a finished chain file, by 12 draws."""

    def run(path, *words, seed=0, draws=12):
        nmcmc(*PT, *words, f"seed={seed}", "--draws", draws, "--out", path)
        return path

    return run


@pytest.fixture
def gathered(ran, monkeypatch):
    """gathered(path, numbers, base): the ensemble that instances= would make, without processes."""

    def gather(path, numbers, base=0, draws=12):
        asked = instances.parse_asked(
            "run", [*PT[3:6], f"instances={','.join(map(str, numbers))},{numbers[-1] + 1}"], "pt",
            Options(out=Path(path), draws=draws, warmup=10, thin=1, rng_seed=base), 0.0,
        )  # fmt: skip
        sources = {}
        for number in numbers:
            seed = instances.seed_of(base, number)
            part = ran(f"{path}.{number}", "--rng-seed", seed, "spins.every=1", seed=number, draws=draws)
            sources[number] = Source(Path(part))
        about = {"command": "made by hand", "config": asked.config, "asked": numbers}
        create_ensemble(path, **about)
        join(path, sources, **about, complete=True)
        return path

    return gather


def arrays_of(tree):
    """{group/name: array} of all that was sampled."""
    names = [f"{group}/{name}" for group in ("posterior", "sample_stats") for name in tree[group]]
    return {name: tree[name][()] for name in names if tree[name].ndim > 1} | {
        "spins": tree["configurations/spins"][()], "spin_draw": tree["configurations/spin_draw"][()],
    }  # fmt: skip


# --- one target ----------------------------------------------------------------------------------------------------


def test_chains_of_one_target_come_side_by_side(nmcmc, ran):
    ran("a.h5", "--rng-seed", 1, "--chains", 2)
    ran("b.h5", "--rng-seed", 2, draws=20)
    ran("c.h5", "--rng-seed", 3, "spins.every=2")
    run = nmcmc("merge", "a.h5", "b.h5", "c.h5", "--out", "all.h5", "--json")
    assert run.out.startswith("out: all.h5\nnote: b.h5 is cut from 20 to 12 draws, those of the shortest\n")
    assert "10 chains x 12 draws of 3 files" in run.out
    assert "result: all.h5; look at it with: nmcmc analyze all.h5" in run.out
    assert run.json["command"] == "merge"
    assert (run.json["chains"], run.json["draws"], run.json["complete"]) == (10, 12, True)
    assert sorted(path.name for path in Path().iterdir()) == ["a.h5", "all.h5", "b.h5", "c.h5"]
    with h5py.File("all.h5") as merged, h5py.File("a.h5") as a, h5py.File("b.h5") as b, h5py.File("c.h5") as c:
        for group in ("posterior", "sample_stats"):
            assert set(merged[group]) == set(a[group])
            for name in merged[group]:
                if merged[group][name].ndim < 2:
                    continue
                expected = np.concatenate([file[group][name][:, :12] for file in (a, b, c)])
                assert merged[group][name][()].tobytes() == expected.tobytes()
        assert merged["configurations/spin_draw"][()].tolist() == [0, 2, 4, 6, 8, 10]
        expected = np.concatenate(
            [file["configurations/spins"][:, :12:step] for file, step in ((a, 2), (b, 2))]
            + [c["configurations/spins"][:, :6]]
        )
        assert merged["configurations/spins"][()].tobytes() == expected.tobytes()
        origins = json.loads(merged.attrs["merged_from"])
        assert [(o["file"], o["rng_seed"], o["chains"]) for o in origins] == [
            ("a.h5", 1, 2), ("b.h5", 2, 4), ("c.h5", 3, 4),
        ]  # fmt: skip
        assert [o["run_id"] for o in origins] == [file.attrs["run_id"] for file in (a, b, c)]
    chain = open_chain("all.h5")
    assert chain.complete
    assert chain.rng_seed == NO_SEED
    assert chain.state() == {}
    parts = [open_chain(name) for name in ("a.h5", "b.h5", "c.h5")]
    cost = sum(part.seconds["sample"] * 12 / part.n_draws for part in parts)
    assert cost > 0
    assert chain.seconds["sample"] == pytest.approx(cost)
    assert chain.hamiltonian().fingerprint == open_chain("a.h5").hamiltonian().fingerprint
    assert chain.command == "nmcmc merge a.h5 b.h5 c.h5 --out all.h5 --json"
    means = chain.posterior["energy"].mean(axis=(0, 1))
    np.testing.assert_allclose(chain.observables["energy"]["mean"], means)
    analysed = nmcmc("analyze", "all.h5", "--json")
    assert [row["energy"]["mean"] for row in analysed.json["results"]] == pytest.approx(means)


def test_a_merged_file_cannot_go_on_and_is_not_harmed(nmcmc, ran):
    ran("a.h5", "--rng-seed", 1)
    ran("b.h5", "--rng-seed", 2)
    nmcmc("merge", "a.h5", "b.h5", "--out", "all.h5")
    before = Path("all.h5").read_bytes()
    for words in (("--chains", 8), ("--draws", 99), ()):
        refused = nmcmc(*PT, "seed=0", "--out", "all.h5", *words, code=2)
        assert refused.err.startswith(
            "nmcmc: all.h5 was merged from several runs and cannot go on; use another --out"
        )
    assert Path("all.h5").read_bytes() == before


def test_merged_files_are_merged_again(nmcmc, ran):
    for number in range(4):
        ran(f"{number}.h5", "--rng-seed", number, "--chains", 2)
    nmcmc("merge", "0.h5", "1.h5", "--out", "01.h5")
    nmcmc("merge", "01.h5", "2.h5", "--out", "012.h5")
    nmcmc("merge", "0.h5", "1.h5", "2.h5", "--out", "straight.h5")
    with h5py.File("012.h5") as one, h5py.File("straight.h5") as other:
        for name, array in arrays_of(one).items():
            assert array.tobytes() == arrays_of(other)[name].tobytes(), name
        assert one.attrs["merged_from"] == other.attrs["merged_from"]
    refused = nmcmc("merge", "01.h5", "1.h5", "3.h5", "--out", "twice.h5", code=2)
    assert "01.h5 and 1.h5 have the same random streams" in refused.err
    assert not Path("twice.h5").exists()


def test_draws_with_weights_are_merged_too(nmcmc):
    words = ("run", "--mode", "prior", "ising", "L=3", "beta=0.4", "--draws", 30, "--quiet")
    nmcmc(*words, "--rng-seed", 1, "--out", "a.h5")
    nmcmc(*words, "--rng-seed", 2, "--out", "b.h5")
    run = nmcmc("merge", "a.h5", "b.h5", "--out", "all.h5", "--json")
    weights = open_chain("all.h5").sample_stats["log_weight"]
    assert weights.shape == (8, 30, 1)
    assert run.json["diagnostics"]["log_z"] == pytest.approx(np.log(np.exp(weights).mean()))


# --- what is refused -----------------------------------------------------------------------------------------------


def test_what_does_not_belong_together_is_refused(nmcmc, ran):
    ran("a.h5", "--rng-seed", 1)
    ran("same.h5", "--rng-seed", 1)
    ran("thin.h5", "--rng-seed", 2, "--thin", 2)
    ran("warm.h5", "--rng-seed", 2, "init=up")
    ran("open.h5", "--rng-seed", 2, "boundary=open", seed=3)
    nmcmc(*PT[:5], "beta=0.3:1:3", *PT[6:], "--draws", 12, "--rng-seed", 2, "--out", "beta.h5")
    nmcmc(*PT[:4], "L=4", *PT[5:], "--draws", 12, "--rng-seed", 2, "--out", "large.h5")
    nmcmc("run", "--mode", "metropolis", *PT[3:], "--draws", 12, "--rng-seed", 2, "--out", "local.h5")
    Path("junk.h5").write_text("no chain")
    before = {path: path.stat().st_mtime_ns for path in Path().iterdir()}
    for files, said in (
        (("a.h5", "a.h5"), "a.h5 and a.h5 have the same random streams; chains told twice make errors too small"),
        (("a.h5", "same.h5"), "a.h5 and same.h5 have the same random streams"),
        (("a.h5", "thin.h5"), "a.h5 and thin.h5 cannot be merged (--thin is 1, not 2)"),
        (("a.h5", "warm.h5"), "a.h5 and warm.h5 cannot be merged (init is random, not up)"),
        (("a.h5", "open.h5"), "cannot be merged (boundary is periodic, not open)"),
        (("a.h5", "beta.h5"), "cannot be merged (beta is 0.2,0.6,1, not 0.3,0.65,1)"),
        (("a.h5", "large.h5"), "cannot be merged (L is 3, not 4)"),
        (("a.h5", "local.h5"), "cannot be merged (--mode is pt, not metropolis)"),
        (("a.h5",), "a.h5 alone is nothing to merge"),
        (("a.h5", "junk.h5"), "junk.h5 is no nmcmc chain file"),
        (("a.h5", "missing.h5"), "missing.h5: no such file"),
    ):
        refused = nmcmc("merge", *files, "--out", "new.h5", code=2)
        assert said in refused.err
        assert refused.err.count("\n") == 1
    assert "thin.h5 is there already" in nmcmc("merge", "a.h5", "b.h5", "--out", "thin.h5", code=2).err
    assert "there is no folder" in nmcmc("merge", "a.h5", "thin.h5", "--out", "nowhere/x.h5", code=2).err
    assert "--out" in nmcmc("merge", "a.h5", "same.h5", code=2).err
    assert {path: path.stat().st_mtime_ns for path in Path().iterdir()} == before


# --- several targets -----------------------------------------------------------------------------------------------


def test_chains_of_several_targets_make_an_ensemble(nmcmc, ran):
    for number in (3, 1, 7):
        ran(f"{number}.h5", "--rng-seed", number, seed=number)
    ran("more.h5", "--rng-seed", 9, seed=3, draws=15)
    run = nmcmc("merge", "3.h5", "1.h5", "7.h5", "more.h5", "--out", "e.h5", "--json")
    assert run.err == ""
    assert "note: more.h5 is cut from 15 to 12 draws" in run.out
    there = open_ensemble("e.h5")
    assert there.complete
    assert there.instances == [1, 3, 7]
    assert there.summary.chains.tolist() == [4, 8, 4]
    assert there.merged == [3]
    energies = [open_chain(f"{k}.h5").observables["energy"]["mean"] for k in (1, 7)]
    np.testing.assert_array_equal(there.summary.observables["energy"]["mean"][[0, 2]], energies)
    assert [row["energy"]["instances"] for row in run.json["results"]] == [3, 3, 3]
    with (
        h5py.File("e.h5") as file,
        h5py.File("1.h5") as alone,
        h5py.File("3.h5") as three,
        h5py.File("more.h5") as more,
    ):
        for name, array in arrays_of(file["instances/000001"]).items():
            assert array.tobytes() == arrays_of(alone)[name].tobytes()
        assert "merged_from" in file["instances/000003"].attrs
        assert file["instances/000003/posterior/energy"][:4].tobytes() == three["posterior/energy"][()].tobytes()
        assert file["instances/000003/posterior/energy"][4:].tobytes() == more["posterior/energy"][:, :12].tobytes()
        assert file["instances/000003/observables/energy/mean"].dims[0][0].name == (
            "/instances/000003/observables/energy/beta"
        )
    assert sorted(path.name for path in Path().iterdir()) == ["1.h5", "3.h5", "7.h5", "e.h5", "more.h5"]
    refused = nmcmc(*PT, "instances=0:9", "--out", "e.h5", code=2)
    assert "e.h5 was merged from runs with several --rng-seed and cannot go on" in refused.err


def test_different_targets_with_the_same_random_numbers_are_warned_of(nmcmc, ran):
    ran("1.h5", seed=1)
    ran("2.h5", seed=2)
    run = nmcmc("merge", "1.h5", "2.h5", "--out", "e.h5")
    assert "nmcmc: instances 1 and 2 were run with the same --rng-seed" in run.err
    assert open_ensemble("e.h5").instances == [1, 2]


def test_ensembles_of_several_machines_become_one(nmcmc, gathered):
    gathered("a.h5", [0, 1])
    gathered("b.h5", [1, 4])
    run = nmcmc("merge", "a.h5", "b.h5", "--out", "e.h5")
    assert run.err == ""
    assert "note: instance 1 of b.h5 is left out: a.h5 has the same random streams" in run.out
    there = open_ensemble("e.h5")
    assert there.instances == there.asked == [0, 1, 4]
    assert there.summary.run_ids[:2] == open_ensemble("a.h5").summary.run_ids
    assert there.config == open_ensemble("a.h5").config
    # All from one --rng-seed: a run may extend it.
    assert "complete: 3 instances" in nmcmc(*PT[:-1], "instances=0,1,4", "--draws", 12, "--out", "e.h5").out
    refused = nmcmc(*PT, "instances=0:2", "--draws", 15, "--out", "e.h5", code=2)
    assert "e.h5 holds instances 0:2,4; instances=0:2,4 extends it" in refused.err


def test_the_longer_of_two_with_the_same_streams_stays(nmcmc, gathered):
    gathered("a.h5", [0, 1])
    gathered("b.h5", [1], draws=14)
    nmcmc("merge", "a.h5", "b.h5", "--out", "e.h5")
    assert open_ensemble("e.h5").summary.draws.tolist() == [12, 14]


def test_instances_with_other_streams_come_side_by_side(nmcmc, gathered, ran):
    gathered("a.h5", [0, 1])
    gathered("b.h5", [1, 2], base=8)
    alone = ran("c.h5", "--rng-seed", 77, "spins.every=1", seed=2)
    nmcmc("merge", "a.h5", "b.h5", alone, "--out", "e.h5")
    there = open_ensemble("e.h5")
    assert there.summary.chains.tolist() == [4, 8, 8]
    assert there.merged == [1, 2]
    refused = nmcmc("merge", "e.h5", "b.h5", "--out", "f.h5")
    assert "note: instance 1 of b.h5 is left out: e.h5 has the same random streams" in refused.out
    assert open_ensemble("f.h5").summary.chains.tolist() == [4, 8, 8]
    for number in (1, 2):
        ran(f"new{number}.h5", "--rng-seed", 80 + number, seed=1)
    nmcmc("merge", "a.h5.1", "new1.h5", "--out", "one.h5")
    nmcmc("merge", "a.h5.1", "new2.h5", "--out", "other.h5")
    refused = nmcmc("merge", "one.h5", "other.h5", "--out", "g.h5", code=2)
    assert "one.h5 and other.h5 have the same random streams" in refused.err
    refused = nmcmc("merge", "a.h5", "one.h5", "other.h5", "--out", "g.h5", code=2)
    assert "have the same random streams in part; merge the runs that they were made of" in refused.err


def test_couplings_from_files_are_numbered_as_they_come(nmcmc):
    rng = np.random.default_rng(1)
    for number in range(3):
        np.savez(f"{number}.npz", i=[0, 1, 2], j=[1, 2, 3], J=rng.normal(size=3))
        words = ("file", f"path={number}.npz", "beta=0.5", "--draws", 10, "--warmup", 2, "--quiet")
        nmcmc("run", "--mode", "metropolis", *words, "--rng-seed", number, "--out", f"{number}.h5")
    nmcmc("merge", "2.h5", "0.h5", "--out", "e.h5")
    there = open_ensemble("e.h5")
    assert there.instances == [0, 1]
    assert there.summary.rng_seeds.tolist() == [2, 0]
    nmcmc("merge", "e.h5", "1.h5", "2.h5", "--out", "f.h5")
    assert open_ensemble("f.h5").summary.rng_seeds.tolist() == [2, 0, 1]
