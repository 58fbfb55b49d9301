"""`nmcmc export`: in every format the draws are those of the chain file, bit for bit, and only committed ones."""

import errno
import json
import os
import zipfile

import arviz
import h5netcdf
import h5py
import numpy as np
import pandas
import pytest
import xarray

import mc
from cli.export import FORMATS
from mc.chain import create_chain
from mc.chain_layout import extend
from mc.statistics import estimate
from tests.archives import arrays_of

RUN = ("run", "--mode", "pt", "ea2d", "L=4", "seed=1", "beta=0.5,1.0", "replicas=2", "--chains", 2, "--draws", 12,
       "--warmup", 100, "--thin", 1, "--quiet")  # fmt: skip
NIS = ("run", "--mode", "nis", "ising", "L=4", "beta=0.3", "prior=local", "net=none", "--chains", 2, "--draws", 40,
       "--quiet")  # fmt: skip
GROUPS = ("posterior", "sample_stats")


@pytest.fixture(scope="module")
def of_tempering(tmp_path_factory):
    """A chain file with replicas, with three draws beyond the committed ones."""
    hamiltonian = mc.models.ea2d(L=4, seed=1)
    path = tmp_path_factory.mktemp("export") / "run.h5"
    rng = np.random.default_rng(5)
    axes = {"replica": 2}
    with create_chain(
        path, mode="pt", command="", config={"mode": "pt", "model": "ea2d", "parameters": {"L": 4, "J": "bimodal"}},
        rng_seed=3, hamiltonian=hamiltonian, betas=np.array([0.5, 1.0]), n_chains=2,
        posterior={"energy": (axes, np.float64), "overlap": ({}, np.float64)},
        sample_stats={"accepted": ({}, bool), "tries": ({}, np.int64), "seen": ({}, np.float32),
                      "swap_accepted": ({}, np.float64)},
        spins_every=2, spin_axes=axes,
    ) as writer:  # fmt: skip
        spins = rng.choice(np.array([-1, 1], np.int8), (2, 6, 2, 2, 16))
        swaps = rng.random((2, 12, 2))
        swaps[:, :, -1] = np.nan
        writer.append(
            {"energy": rng.normal(size=(2, 12, 2, 2)) / 3, "overlap": rng.normal(size=(2, 12, 2))},
            {"accepted": rng.random((2, 12, 2)) < 0.5, "tries": rng.integers(0, 9, (2, 12, 2)),
             "seen": rng.random((2, 12, 2)).astype(np.float32), "swap_accepted": swaps},
            spins, np.arange(0, 12, 2),
        )  # fmt: skip
    with h5py.File(path, "r+") as file:
        for group in GROUPS:
            for name in (
                ("energy", "overlap") if group == "posterior" else ("accepted", "tries", "seen", "swap_accepted")
            ):
                dataset = file[group][name]
                extend(dataset, 12, np.ones((2, 3, *dataset.shape[2:]), dataset.dtype))
            extend(file[group]["draw"], 12, np.arange(12, 15))
        extend(file["configurations/spins"], 6, np.ones((2, 1, 2, 2, 16), np.int8))
        extend(file["configurations/spin_draw"], 6, np.array([12]))
    return path


def same(values, expected):
    """The same bits in the same type."""
    values = np.ascontiguousarray(values)
    return (
        values.dtype == expected.dtype and values.shape == expected.shape and values.tobytes() == expected.tobytes()
    )


def test_a_csv_gives_every_draw_back_bit_for_bit(nmcmc, of_tempering):
    said = nmcmc("export", of_tempering, "--to", "csv", "--out", "x.csv").out
    assert "result: x.csv (2 chains x 12 draws x 2 temperatures)" in said
    assert "pandas.read_csv('x.csv')" in said
    table, chain = pandas.read_csv("x.csv"), mc.open_chain(of_tempering)
    assert len(table) == 2 * 12 * 2
    assert list(table.columns[:3]) == ["chain", "draw", "beta"]
    assert same(table["chain"].to_numpy(), np.repeat(np.arange(2), 24))
    assert same(table["draw"].to_numpy(), np.tile(np.repeat(np.arange(12), 2), 2))
    assert same(table["beta"].to_numpy(), np.tile(chain.betas, 24))
    for group in GROUPS:
        for name, values in getattr(chain, group).items():
            if values.ndim == 3:
                read = table[name].to_numpy().reshape(values.shape)
                assert same(read.astype(values.dtype), values), name
            else:
                for i in range(2):
                    assert same(table[f"{name}[{i}]"].to_numpy().reshape(2, 12, 2), values[..., i].copy())


def test_a_csv_is_written_in_blocks(nmcmc, of_tempering, monkeypatch):
    nmcmc("export", of_tempering, "--to", "csv", "--out", "whole.csv")
    monkeypatch.setattr("mc.export.snapshot.BLOCK_BYTES", 100)
    nmcmc("export", of_tempering, "--to", "csv", "--out", "parts.csv")
    nmcmc("export", of_tempering, "--to", "npz", "--out", "parts.npz")
    with open("whole.csv", "rb") as whole, open("parts.csv", "rb") as parts:
        assert whole.read() == parts.read()
    assert same(arrays_of("parts.npz")["posterior/energy"], mc.open_chain(of_tempering).posterior["energy"])


def test_an_npz_holds_every_array_of_the_chain_in_its_type(nmcmc, of_tempering):
    nmcmc("export", of_tempering, "--to", "npz", "--out", "x.npz")
    archive, chain = arrays_of("x.npz"), mc.open_chain(of_tempering)
    for group in GROUPS:
        for name, values in getattr(chain, group).items():
            assert same(archive[f"{group}/{name}"], values), name
    assert same(archive["spins"], chain.spins)
    assert same(archive["spin_draws"], chain.spin_draws)
    assert same(archive["betas"], chain.betas)
    assert json.loads(str(archive["config"])) == chain.config
    assert json.loads(str(archive["attributes"]))["mode"] == "pt"
    sites, couplings = chain.hamiltonian().interactions[2]
    assert same(archive["hamiltonian/sites_2"], sites)
    assert same(archive["hamiltonian/couplings_2"], couplings)


def test_a_netcdf_opens_in_xarray_arviz_and_h5netcdf(nmcmc, of_tempering):
    nmcmc("export", of_tempering, "--to", "netcdf", "--out", "x.nc")
    chain = mc.open_chain(of_tempering)
    with xarray.open_datatree("x.nc") as tree:
        for group in GROUPS:
            for name, values in getattr(chain, group).items():
                assert same(tree[group][name].values, values), name
            assert tree[group].sizes["draw"] == 12
        assert tree["posterior"]["energy"].dims == ("chain", "draw", "beta", "replica")
        assert same(tree["configurations"]["spins"].values, chain.spins)
        assert same(tree["configurations"]["spin_draw"].values, chain.spin_draws)
        assert "state" not in tree.children
        assert tree.attrs["exported_from"] == "run.h5"
    with h5netcdf.File("x.nc") as file:
        assert file["posterior/energy"].dimensions == ("chain", "draw", "beta", "replica")
    inference = arviz.from_netcdf("x.nc")
    assert same(inference.posterior["energy"].values, chain.posterior["energy"])


def test_alps_files_hold_the_draws_their_means_and_errors(nmcmc, of_tempering):
    """Names, types and attributes as those of alps::alea::mcdata; pyalps read such files when this was written."""
    said = nmcmc("export", of_tempering, "--to", "alps", "--out", "x.h5").out
    assert "result: x.task1.out.h5 to x.task2.out.h5" in said
    chain = mc.open_chain(of_tempering)
    for b, beta in enumerate(chain.betas):
        with h5py.File(f"x.task{b + 1}.out.h5") as file:
            parameters, results = file["parameters"], file["simulation/results"]
            assert parameters["BETA"][()] == beta
            assert parameters["T"][()] == 1 / beta
            assert parameters["J"].asstr()[()] == "bimodal"
            for name, series in (
                ("overlap", chain.posterior["overlap"][:, :, b]),
                ("energy[1]", chain.posterior["energy"][:, :, b, 1]),
            ):
                found, expected = results[name], estimate(series)
                assert same(found["timeseries/data"][()], series.ravel())
                assert found["timeseries/data"].attrs["binsize"] == 1
                assert found["count"][()] == 24
                assert found["mean/value"].shape == ()
                assert found["mean/value"][()] == expected.mean
                assert found["mean/error"][()] == expected.error
                assert found["tau/value"][()] == expected.tau_int - 0.5
            assert "timeseries" not in results["heat_capacity"]


def test_alps_means_of_weighted_draws_come_without_a_series(nmcmc):
    nmcmc(*NIS, "--out", "nis.h5")
    assert "(2 chains x 40 draws x 1 temperature)" in nmcmc("export", "nis.h5", "--to", "alps").out
    chain = mc.open_chain("nis.h5")
    weight = np.exp(chain.sample_stats["log_weight"] - chain.sample_stats["log_weight"].max())
    mean = np.sum(weight * chain.posterior["energy"]) / np.sum(weight)
    with h5py.File("nis.task1.out.h5") as file:
        energy = file["simulation/results/energy"]
        assert energy["mean/value"][()] == pytest.approx(mean, rel=1e-12)
        assert "timeseries" not in energy


@pytest.mark.parametrize("to", ["csv", "netcdf", "npz", "alps"])
def test_an_interrupted_run_exports_its_committed_draws(nmcmc, of_tempering, to):
    """The file holds three draws beyond the committed twelve; no format shows them."""
    nmcmc("export", of_tempering, "--to", to, "--out", "x.h5")
    if to == "csv":
        draws = pandas.read_csv("x.h5")["draw"].max() + 1
    elif to == "npz":
        draws = arrays_of("x.h5")["posterior/energy"].shape[1]
    else:
        with h5py.File("x.task1.out.h5" if to == "alps" else "x.h5") as file:
            series = file["simulation/results/overlap/timeseries/data"] if to == "alps" else None
            draws = len(series) // 2 if to == "alps" else file["posterior/energy"].shape[1]
    assert draws == 12


@pytest.mark.parametrize("to", ["csv", "netcdf", "npz", "alps"])
def test_an_export_replaces_an_earlier_one_and_nothing_else(nmcmc, of_tempering, to, tmp_path):
    out = "x.task1.out.h5" if to == "alps" else "x"
    nmcmc("export", of_tempering, "--to", to, "--out", "x")
    nmcmc("export", of_tempering, "--to", to, "--out", "x")
    assert not list(tmp_path.glob(".*"))  # temporary files
    (tmp_path / out).write_text("my thesis")
    refused = nmcmc("export", of_tempering, "--to", to, "--out", "x", code=2)
    assert "is there already and is no earlier export" in refused.err
    assert "--out" in refused.err
    assert (tmp_path / out).read_text() == "my thesis"


def test_a_chain_file_and_foreign_archives_are_never_replaced(nmcmc, of_tempering, tmp_path):
    before = of_tempering.read_bytes()
    refused = nmcmc("export", of_tempering, "--to", "netcdf", "--out", of_tempering, code=2)
    assert "no earlier export" in refused.err
    assert of_tempering.read_bytes() == before
    with zipfile.ZipFile("mine.npz", "w") as archive:
        archive.writestr("a.txt", "mine")
    assert "no earlier export" in nmcmc("export", of_tempering, "--to", "npz", "--out", "mine.npz", code=2).err


def test_a_place_that_cannot_be_written_is_the_users_error_and_a_full_disk_is_not(
    nmcmc, of_tempering, tmp_path, monkeypatch
):
    """Exit code 2 is for what is known before any work, 1 for what happens on the way."""
    long = nmcmc("export", of_tempering, "--to", "csv", "--out", "x" * 250 + ".csv", code=2).err
    assert "cannot be written (File name too long); choose another --out" in long
    os.mkfifo("pipe")
    assert "no earlier export" in nmcmc("export", of_tempering, "--to", "csv", "--out", "pipe", code=2).err
    nmcmc("export", of_tempering, "--to", "csv", "--out", "x.csv")
    before = (tmp_path / "x.csv").read_bytes()

    def full(file, out):
        out.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setitem(FORMATS, "csv", FORMATS["csv"]._replace(write=full))
    err = nmcmc("export", of_tempering, "--to", "csv", "--out", "x.csv", code=1).err
    assert err == "nmcmc: x.csv cannot be written (No space left on device); choose another --out\n"
    assert (tmp_path / "x.csv").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pipe", "x.csv"]


def test_what_cannot_be_exported_is_refused_in_one_line(nmcmc, of_tempering):
    refused = nmcmc("export", of_tempering, "--to", "netcfd", code=2).err
    assert "did you mean netcdf?" in refused
    assert refused.count("\n") == 1
    assert "no such file" in nmcmc("export", "none.h5", "--to", "csv", code=2).err
    assert "there is no folder" in nmcmc("export", of_tempering, "--to", "csv", "--out", "no/x.csv", code=2).err
    nmcmc("run", "--mode", "train", "ising", "L=4", "train.steps=1", "train.batch=8", "net.width=4", "net.heads=1",
          "--out", "t.h5", "--quiet")  # fmt: skip
    assert "has no draws yet" in nmcmc("export", "t.h5", "--to", "csv", code=2).err
    nmcmc("export", "t.h5", "--to", "npz")
    assert arrays_of("t.npz")["training/step"][-1] == 1


def test_of_an_ensemble_the_summary_becomes_a_csv(nmcmc):
    nmcmc("run", "--mode", "metropolis", "ea2d", "L=4", "instances=0:3", "beta=0.4,0.8", "--chains", 2, "--draws", 40,
          "--out", "e.h5", "--quiet")  # fmt: skip
    nmcmc("export", "e.h5", "--to", "csv")
    table, summary = pandas.read_csv("e.csv"), mc.open_ensemble("e.h5").summary
    assert same(table["instance"].to_numpy(), np.repeat(summary.instances, 2))
    for name in ("energy", "binder"):
        for column, ending in (("mean", ""), ("error", "_error"), ("r_hat", "_r_hat")):
            expected = np.ascontiguousarray(summary.observables[name][column]).ravel()
            assert same(table[name + ending].to_numpy(), expected), name
    refused = nmcmc("export", "e.h5", "--to", "npz", code=2).err
    assert "is an ensemble" in refused
    assert "--to csv" in refused
