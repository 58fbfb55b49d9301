"""Vector spins on the command line: what a run leaves in its file, how it goes on, and what is refused."""

import json
import math
import re
from pathlib import Path

import h5py
import numpy as np
import pandas
import pytest
import xarray

import cli.main
import cli.output
import mc
from mc.chain import ChainError, open_chain
from mc.models import build, vector
from mc.vector.hamiltonian import VectorHamiltonian
from tests.archives import arrays_of
from tests.test_cli import assert_same_chain
from tests.test_cli_refusals import call, contents
from tests.vector_laws import cosine_moments, log_z_one, radius

GLASS = ("vector", "N=5", "D=4", "seed=2")
RUNS = {
    "heatbath": (*GLASS, "beta=0.5,2"),
    "heatbath with replicas": (*GLASS, "beta=0.5,2", "replicas=3", "overrelax=1", "spins.every=2"),
    "metropolis": (*GLASS, "beta=0.5,2", "proposal=mixed"),
    "metropolis of loss": (*GLASS, "beta=1", "energy=loss", "proposal=perpendicular"),
    "pt": (*GLASS, "beta=0:2:3", "replicas=2"),
    "pt tuned": (*GLASS, "beta=0.5,1,2", "ladder=tuned", "rule=metropolis"),
    "pt of loss": (*GLASS, "beta=1:3:3", "energy=loss"),
    "kinetic": (*GLASS, "beta=0.5,2", "lags=4"),
}


def run_words(case, *more):
    return ("run", "--mode", case.split()[0], *RUNS[case], "--chains", 2, "--warmup", 110, "--thin", 2, *more)


def npz(path, x, J):
    np.savez(path, x=x, J=J)
    return f"path={path}"


def tree(dimension=6):
    """Three spins in a row without fields: the bonds times R^2, and the arrays of a file."""
    bonds = np.array([1.6, -0.9])
    strengths = np.zeros((3, 3))
    strengths[0, 1], strengths[2, 1] = 2 * bonds  # equilibrium takes half of one direction
    return np.abs(bonds) * radius(dimension) ** 2, dict(x=np.zeros((3, dimension)), J=strengths)


# --- runs that go on -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", RUNS)
def test_a_run_in_parts_is_the_run_in_one_go(nmcmc, case):
    words = run_words(case)
    straight = nmcmc(*words, "--draws", 40, "--out", "straight.h5")
    assert "result: straight.h5; look at it with: nmcmc analyze straight.h5" in straight.out.splitlines()[-1]
    nmcmc(*words, "--draws", 13, "--out", "parts.h5")
    assert "complete: 13 draws a chain are there" in nmcmc(*words, "--draws", 13, "--out", "parts.h5").out
    more = nmcmc(*words, "--draws", 40, "--out", "parts.h5", "--json")
    assert "going on from draw 13" in more.out
    assert (more.json["draws"], more.json["complete"]) == (40, True)
    assert_same_chain("straight.h5", "parts.h5")
    one, other = open_chain("straight.h5"), open_chain("parts.h5")
    for name, array in one.state().items():
        assert other.state()[name].tobytes() == array.tobytes(), name
    assert one.betas.tobytes() == other.betas.tobytes()


@pytest.mark.parametrize("case", ["pt tuned", "metropolis of loss", "kinetic"])
def test_a_run_stopped_anywhere_is_the_run_in_one_go(nmcmc, monkeypatch, case):
    words = run_words(case, "--draws", 9)
    nmcmc(*words, "--out", "straight.h5")
    asked = iter(range(10**6))
    monkeypatch.setattr(cli.output.Stopper, "__call__", lambda self: next(asked) % 2 == 1)
    for _ in range(40):
        nmcmc(*words, "--out", "parts.h5", "--quiet")
        if open_chain("parts.h5").complete:
            break
    assert open_chain("parts.h5").complete
    assert_same_chain("straight.h5", "parts.h5")
    assert (open_chain("parts.h5").betas == open_chain("straight.h5").betas).all()


def test_a_time_limit_ends_a_run_that_the_same_command_continues(nmcmc, monkeypatch):
    words = ("run", "--mode", "kinetic", "vector", "N=32", "D=16", "beta=1", "--warmup", 5, "spins.every=0")
    nmcmc(*words, "--draws", 1, "--out", "compiled.h5")
    words = (*words, "--draws", 10**7, "--out", "run.h5", "--json")
    monkeypatch.setattr(cli.output.Stopper, "__call__", lambda self: len(asked.append(self) or asked) % 12 == 0)
    asked = []
    first = nmcmc(*words)
    assert first.json["complete"] is False
    assert 0 < first.json["draws"] < 10**7
    assert re.search(r"the time limit came first: \d+ of 10000000 draws are committed in run.h5; the same", first.out)
    second = nmcmc(*words)
    assert f"going on from draw {first.json['draws']}" in second.out
    assert second.json["draws"] > first.json["draws"]


def test_another_run_is_not_continued(nmcmc):
    words = run_words("metropolis", "--draws", 4, "--out", "a.h5")
    nmcmc(*words)
    for change, said in (("seed=3", "seed is 2, not 3"), ("h=0.5", "h is not given, not 0.5"),
                         ("proposal=local", "proposal is mixed, not local"), ("overrelax=1", "overrelax is 0, not 1"),
                         ("coupling=symmetric", "coupling is asymmetric, not symmetric")):  # fmt: skip
        key = change.split("=")[0]
        refused = nmcmc(*[w for w in words if not str(w).startswith(f"{key}=")], change, code=2)
        assert f"a.h5 holds another run ({said}); use --restart" in refused.err


# --- the file ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", RUNS)
def test_a_file_says_what_was_sampled(nmcmc, case):
    nmcmc(*run_words(case), "--draws", 12, "--out", "a.h5")
    chain = open_chain("a.h5")
    hamiltonian = chain.hamiltonian()
    asked = dict(word.split("=") for word in RUNS[case] if word.partition("=")[0] in ("N", "D", "seed", "energy"))
    expected = vector(**{key: int(value) if value.isdigit() else value for key, value in asked.items()})
    assert isinstance(hamiltonian, VectorHamiltonian)
    assert hamiltonian.fingerprint == expected.fingerprint
    assert (hamiltonian.fields == expected.fields).all()
    assert (hamiltonian.couplings == expected.couplings).all()
    assert (hamiltonian.form, hamiltonian.name) == (expected.form, "vector")
    assert build("vector", hamiltonian.parameters).fingerprint == expected.fingerprint
    replicas = {"heatbath with replicas": 3, "pt": 2}.get(case, 0)
    every = 2 if "spins.every=2" in RUNS[case] else 1
    own = ("replica",) if replicas else ()
    with xarray.open_datatree("a.h5", engine="h5netcdf") as tree:
        spins = tree["configurations"]["spins"]
        assert spins.dims == ("chain", "spin_draw", "beta", *own, "site", "component")
        assert spins.dtype == np.float32
        assert spins.shape[-2:] == (5, 4)
        assert tree["configurations"]["spin_draw"].values.tolist() == list(range(0, 12, every))
        stored = tree["hamiltonian"]
        assert stored["couplings"].dims == ("site", "partner")
        assert stored["fields"].dims == ("site", "component")
        assert (stored["couplings"].values == expected.couplings).all()
        assert tree["posterior"]["energy"].dims == ("chain", "draw", "beta", *own)
        if case == "kinetic":
            assert tree["posterior"]["correlation"].dims == ("chain", "draw", "beta", "lag")
            assert tree["posterior"]["lag"].values.tolist() == [2, 4, 8, 16]
            assert tree["observables/correlation"]["mean"].dims == ("beta", "lag")
        if replicas == 3:
            assert tree["posterior"]["overlap"].dims == ("chain", "draw", "beta", "pair")
            assert tree["posterior"]["overlap_norm"].dims == ("chain", "draw", "beta", "pair")
    norms = np.linalg.norm(chain.spins, axis=-1)
    if hamiltonian.form == "bilinear":
        assert norms == pytest.approx(radius(4), rel=1e-6)
    energy = chain.posterior["energy"][:, chain.spin_draws]
    assert energy == pytest.approx(hamiltonian.energy(chain.spins), abs=1e-4)
    if case != "kinetic":
        lowest = chain.diagnostics["lowest_state"]
        assert lowest.shape == (5, 4)
        assert hamiltonian.energy(lowest) == pytest.approx(chain.diagnostics["lowest_energy"])
        assert chain.diagnostics["lowest_energy"] <= chain.posterior["energy"].min() + 1e-12


def test_a_coupling_that_was_changed_is_found(nmcmc):
    nmcmc(*run_words("heatbath"), "--draws", 2, "--out", "a.h5")
    with h5py.File("a.h5", "r+") as file:
        file["hamiltonian/couplings"][0, 1] += 1e-15
    with pytest.raises(ChainError, match="the Hamiltonian is not the one stored"):
        open_chain("a.h5").hamiltonian()


def test_fewer_spins_are_kept_where_they_would_be_large(nmcmc, monkeypatch):
    monkeypatch.setattr("cli.run_file.MOST_SPINS", 4 * 5 * 4 * 2 * 3 * 10)  # float32, 2 chains, 3 replicas
    nmcmc("run", "--mode", "heatbath", *GLASS, "beta=1", "replicas=3", "--chains", 2, "--warmup", 1, "--draws", 40)
    assert open_chain("vector-N=5-D=4-seed=2-beta=1-heatbath.h5").spin_draws.tolist() == list(range(0, 40, 4))


def test_h_scales_the_fields_of_a_file(nmcmc):
    random = np.random.default_rng(1)
    x, J = random.normal(size=(3, 6)), random.normal(size=(3, 3))
    path = npz("mine.npz", x, J)
    run = nmcmc("run", "--mode", "heatbath", "vector", path, "h=0.5", "T=2", "--draws", 3, "--warmup", 2)
    assert run.out.startswith("out: vector-h=0.5-path=mine.npz-T=2-heatbath.h5\n")
    hamiltonian = open_chain("vector-h=0.5-path=mine.npz-T=2-heatbath.h5").hamiltonian()
    assert hamiltonian.fields == pytest.approx(0.5 * x / radius(6))
    assert (hamiltonian.couplings == J).all()


# --- results -------------------------------------------------------------------------------------------------------


def test_the_json_has_the_observables(nmcmc):
    run = nmcmc(*run_words("heatbath with replicas"), "--draws", 60, "--json", "--out", "a.h5")
    names = {"energy", "heat_capacity", "alignment", "alignment_of_mean", "q", "abs_overlap", "q2"}
    for row in run.json["results"]:
        assert names <= row.keys()
        assert all(math.isfinite(row[name]["mean"]) and row[name]["error"] > 0 for name in names - {"q"})
    assert run.json["diagnostics"]["acceptance"] == [1.0, 1.0]
    assert run.json["diagnostics"]["asymmetry"] > 0
    assert len(run.json["equilibrated"]) == 2
    chain = open_chain("a.h5")
    assert run.json["results"][1]["energy"]["mean"] == pytest.approx(chain.posterior["energy"][:, :, 1].mean())
    # alignment is the average of cosines, alignment_of_mean the cosine of the average: the latter is far larger here.
    hot = run.json["results"][0]
    assert hot["alignment_of_mean"]["mean"] > hot["alignment"]["mean"] + 0.3
    square = chain.posterior["overlap_norm"][:, :, 0] ** 2
    assert hot["chi_sg"]["mean"] == pytest.approx(chain.n_spins * square.mean())
    n = chain.hamiltonian().n_components ** 2
    assert hot["overlap_binder"]["mean"] == pytest.approx((n + 2 - n * (square**2).mean() / square.mean() ** 2) / 2)
    assert "binder_overlap" not in hot
    kinetic = nmcmc(*run_words("kinetic"), "--draws", 60, "--json", "--out", "k.h5")
    assert {"energy", "alignment", "entropy_production", "q"} <= kinetic.json["results"][0].keys()
    assert "heat_capacity" not in kinetic.json["results"][0]
    table = open_chain("k.h5").observables["correlation"]
    assert table["mean"] == pytest.approx(open_chain("k.h5").posterior["correlation"].mean(axis=(0, 1)))
    assert table["lag"].tolist() == [2, 4, 8, 16]


def test_a_ladder_that_does_not_exchange_is_no_good_one(nmcmc):
    words = ("run", "--mode", "pt", "vector", "N=16", "D=8", "seed=1", "energy=loss", "--draws", 60, "--warmup", 40)
    said = nmcmc(*words, "beta=0.5:4:8", "--out", "broken.h5").out
    assert re.search(r"^broken ladder: beta 0.5 and 1 swap \S+ % of their tries.*ladder=tuned$", said, re.M)
    assert "nothing to object" not in said
    assert "broken ladder" not in nmcmc(*words, "beta=3:4:8", "--out", "whole.h5").out


def test_what_tunes_no_steps_is_said(nmcmc):
    words = ("run", *GLASS, "beta=1", "--draws", 5, "--out")
    note = "note: the steps of moves are tuned in the warm-up, and there is none"
    assert note in nmcmc(*words, "a.h5", "--mode", "metropolis", "--warmup", 0).out
    assert note not in nmcmc(*words, "b.h5", "--mode", "metropolis", "--warmup", 5).out
    assert note not in nmcmc(*words, "c.h5", "--mode", "heatbath", "--warmup", 0).out


def test_equilibrium_of_asymmetric_couplings_is_said_to_be_that_of_their_symmetric_part(nmcmc):
    short = ("--draws", 2, "--warmup", 100, "--quiet")
    common = ("vector", "N=3", "D=4", "beta=0.5,1", *short[:-1])
    said = "J is asymmetric, and energies know its symmetric part"
    for mode in ("heatbath", "metropolis", "pt"):
        assert said in nmcmc("run", "--mode", mode, *common, "--out", f"{mode}.h5").out
        assert said not in nmcmc("run", "--mode", mode, *common, "coupling=symmetric", "--out", f"s{mode}.h5").out
    assert said not in nmcmc("run", "--mode", "kinetic", *common).out
    assert said not in nmcmc("run", "--mode", "metropolis", *common, "energy=loss", "--out", "l.h5").out
    assert nmcmc("run", "--mode", "heatbath", *common, "--quiet", "--out", "q.h5").out == ""


@pytest.mark.statistical
def test_a_ladder_finds_the_ln_z_of_quadrature(nmcmc):
    # Trees have exact values: ln Z and energies of a run are within four of its errors, by its own count.
    scales, arrays = tree()
    run = nmcmc("run", "--mode", "pt", "vector", npz("tree.npz", **arrays), "beta=0:1:4", "--draws", 500, "--thin", 2,
                "--warmup", 100, "--json")  # fmt: skip
    betas = np.linspace(0.0, 1.0, 4)
    expected = log_z_one(np.outer(betas, [*scales, 0.0]), 6).sum(axis=1)
    found = run.json["diagnostics"]
    assert found["log_z_exact"] == pytest.approx(expected, abs=1e-8)
    assert found["log_z"][0] == pytest.approx(expected[0])
    assert max(abs(z) for z in found["log_z_sigma"][1:]) < 4
    energies = -(cosine_moments(np.outer(betas, scales), 6)[0] * scales).sum(axis=1)
    assert found["energy_exact"] == pytest.approx(energies, abs=1e-8)
    for row, energy in zip(run.json["results"], energies, strict=True):
        assert abs(row["energy"]["mean"] - energy) < 4 * row["energy"]["error"]
    exact = nmcmc("exact", "vector", "path=tree.npz", "beta=1", "--json").json["results"][0]
    assert exact["log_z"] == pytest.approx(expected[-1], abs=1e-8)
    assert exact["energy"] == pytest.approx(energies[-1], abs=1e-8)
    refused = nmcmc("exact", *GLASS, "beta=1", code=2).err
    assert "exact values only without couplings, or for trees of bonds without fields" in refused


def test_kinetic_dynamics_is_not_judged_by_exact_values_of_equilibrium(nmcmc):
    _, arrays = tree()
    run = nmcmc("run", "--mode", "kinetic", "vector", npz("tree.npz", **arrays), "beta=1", "--draws", 400, "--json")
    assert run.json["diagnostics"]["energy_exact"] is None
    assert "sigma)" not in run.out
    assert "wrong:" not in run.out


def test_acceptance_is_known_where_some_sweeps_try_no_step(nmcmc):
    # One spin under mixed proposals: most sweeps have no small displacement, and some chains no draw with one.
    words = ("vector", "N=1", "D=3", "beta=4", "energy=loss", "proposal=mixed", "--thin", 1, "--draws", 400)
    run = nmcmc("run", "--mode", "metropolis", *words, "--json", "--out", "a.h5")
    assert np.isnan(open_chain("a.h5").sample_stats["accepted"]).any()
    assert run.json["diagnostics"]["acceptance"] == pytest.approx(0.4, abs=0.15)
    assert "acceptance 0." in nmcmc("status", "a.h5").out


def test_a_tuned_ladder_is_in_the_file(nmcmc):
    run = nmcmc("run", "--mode", "pt", "vector", "N=16", "D=8", "beta=0.1,0.12,0.14,2", "ladder=tuned",
                "--warmup", 200, "--draws", 5, "--out", "a.h5")  # fmt: skip
    betas = open_chain("a.h5").betas
    assert (betas[0], betas[-1]) == (0.1, 2.0)
    assert betas[2] > 0.3
    assert f"{betas[2]:.6g}" in run.out


# --- starts --------------------------------------------------------------------------------------------------------


def test_a_start_from_a_field_or_another_file(nmcmc):
    words = ("run", "--mode", "heatbath", *GLASS, "beta=0.5,2", "replicas=2", "--warmup", 0, "--chains", 2)
    nmcmc(*words, "--draws", 5, "init=field", "--out", "a.h5")
    nmcmc(*words, "--draws", 5, "init=a.h5", "--out", "b.h5")
    Path("a.h5").unlink()
    nmcmc(*words, "--draws", 9, "init=a.h5", "--out", "b.h5")  # goes on from its own state
    assert open_chain("b.h5").n_draws == 9
    assert (
        "init=a.h5: random, up, field or a chain file is needed (a.h5: no such file)"
        in nmcmc(*words, "--draws", 9, "init=a.h5", "--out", "c.h5", code=2).err
    )
    nmcmc("run", "--mode", "kinetic", *GLASS, "h=0", "beta=1", "init=field", "--draws", 2, "--warmup", 0)
    other = nmcmc(*words, "--draws", 2, "init=b.h5", "--chains", 3, "--out", "c.h5", code=2).err
    assert "which the run needs" in other
    assert not Path("c.h5").exists()


# --- what reads files ----------------------------------------------------------------------------------------------


def test_runs_with_other_seeds_are_merged(nmcmc):
    words = run_words("kinetic")
    for seed, draws in ((1, 12), (2, 15)):
        nmcmc(*words, "--rng-seed", seed, "--draws", draws, "--out", f"{seed}.h5")
    run = nmcmc("merge", "1.h5", "2.h5", "--out", "all.h5", "--json")
    assert (run.json["chains"], run.json["draws"]) == (4, 12)
    parts, merged = [open_chain(f"{seed}.h5") for seed in (1, 2)], open_chain("all.h5")
    for name, values in merged.posterior.items():
        assert values.tobytes() == np.concatenate([part.posterior[name][:, :12] for part in parts]).tobytes(), name
    assert merged.spins.dtype == np.float32
    assert merged.spins.tobytes() == np.concatenate([part.spins[:, :12] for part in parts]).tobytes()
    assert merged.hamiltonian().fingerprint == parts[0].hamiltonian().fingerprint
    assert merged.own_axes("correlation")["lag"].tolist() == [2, 4, 8, 16]
    assert "correlation" in merged.observables
    nmcmc(*run_words("heatbath"), "--rng-seed", 3, "--draws", 12, "--out", "h.h5")
    assert "cannot be merged" in nmcmc("merge", "1.h5", "h.h5", "--out", "no.h5", code=2).err
    for seed in (1, 2):
        nmcmc(*run_words("heatbath with replicas"), "--rng-seed", seed, "--draws", 6, "--out", f"r{seed}.h5")
    nmcmc("merge", "r1.h5", "r2.h5", "--out", "r.h5")
    expected = np.concatenate([open_chain(f"r{seed}.h5").spins for seed in (1, 2)])
    assert open_chain("r.h5").spins.tobytes() == expected.tobytes()


@pytest.mark.parametrize("case", ["heatbath with replicas", "kinetic"])
def test_exports_hold_the_same_draws(nmcmc, case):
    nmcmc(*run_words(case), "--draws", 7, "--out", "a.h5")
    chain = open_chain("a.h5")
    for form, ending in (("npz", "npz"), ("csv", "csv"), ("netcdf", "nc")):
        assert "result: " in nmcmc("export", "a.h5", "--to", form, "--out", f"x.{ending}").out
    arrays = arrays_of("x.npz")
    for name, values in chain.posterior.items():
        assert arrays[f"posterior/{name}"].tobytes() == values.tobytes()
    assert arrays["spins"].tobytes() == chain.spins.tobytes()
    table = pandas.read_csv("x.csv")
    assert len(table) == 2 * 7 * 2
    if case == "kinetic":
        assert (table["energy"].to_numpy() == chain.posterior["energy"].ravel()).all()
    with xarray.open_datatree("x.nc") as tree:
        assert (tree["posterior"]["energy"].values == chain.posterior["energy"]).all()


def test_figures_and_reports_are_made(nmcmc):
    pytest.importorskip("matplotlib")
    nmcmc(*run_words("pt"), "--draws", 40, "--out", "p.h5")
    nmcmc(*run_words("kinetic"), "--draws", 40, "--out", "k.h5")
    nmcmc("plot", "p.h5", "--out", "figures")
    nmcmc("plot", "k.h5", "--out", "figures")
    there = {path.stem for path in Path("figures").iterdir()}
    assert {f"p-{name}" for name in ("energy", "autocorrelation", "overlap", "swaps", "ladder")} <= there
    assert {"k-energy", "k-autocorrelation"} <= there
    assert not {name for name in there if "magnetization" in name or "configurations" in name}
    nmcmc("report", "k.h5", "--out", "k.html")
    page = Path("k.html").read_text()
    assert "alignment_of_mean" in page
    assert "entropy_production" in page


def test_the_overlap_of_a_figure_has_a_grid_of_its_own(nmcmc):
    pytest.importorskip("matplotlib")
    from cli.figures import draw, style
    from cli.figures.drawn import Drawn

    nmcmc(*run_words("pt"), "--draws", 40, "--out", "p.h5")
    with style.paper():
        figure = draw("overlap", Drawn(open_chain("p.h5")))
    x, y = figure.axes[0].lines[0].get_data()
    assert len(x) > 20  # not the six values of five Ising spins
    assert np.trapezoid(y, x) == pytest.approx(1.0, abs=0.05)


@pytest.mark.statistical
def test_runs_of_one_law_are_compared(nmcmc):
    """Runs of one law are called different in less than 1 of 100 pairs (`mc.comparison.LEVEL`); two pairs."""
    words = ("run", "--mode", "pt", *GLASS, "beta=0.3:1.5:3", "replicas=2", "--thin", 2, "--draws", 150)
    nmcmc(*words, "--out", "a.h5")
    nmcmc(*words, "rule=metropolis", "--thin", 10, "--rng-seed", 1, "--out", "b.h5")
    found = nmcmc("compare", "a.h5", "b.h5").out
    assert "A and B: agree" in found
    assert all(name in found for name in ("energy", "alignment", "|q|", "q2", "P(energy)", "P(|q|)"))
    nmcmc(*run_words("kinetic"), "--draws", 150, "--out", "k.h5")
    nmcmc(*run_words("kinetic"), "--draws", 150, "--rng-seed", 1, "--out", "l.h5")
    assert "A and B: agree" in nmcmc("compare", "k.h5", "l.h5").out
    nmcmc("run", "--mode", "heatbath", *GLASS, "beta=0.5,2", "--draws", 20, "--out", "h.h5")
    assert "a law of its own" in nmcmc("compare", "k.h5", "h.h5", code=2).err
    nmcmc(*run_words("metropolis of loss"), "--draws", 20, "--out", "o.h5")
    assert "different models" in nmcmc("compare", "h.h5", "o.h5", code=2).err


@pytest.mark.parametrize("case", ["heatbath with replicas", "metropolis of loss", "pt tuned", "kinetic"])
def test_a_run_done_again_draws_the_same_bits(nmcmc, case):
    nmcmc(*run_words(case), "--draws", 8, "--rng-seed", 4, "--out", "a.h5")
    assert "the same 8 draws a chain as in a.h5, bit for bit" in nmcmc("rerun", "a.h5").out
    assert_same_chain("a.h5", "a-rerun.h5")


@pytest.mark.parametrize("case", ["metropolis", "pt", "pt of loss", "kinetic"])
def test_reading_a_file_again_says_the_same(nmcmc, case):
    run = nmcmc(*run_words(case), "--draws", 25, "--out", "a.h5", "--json")
    again = nmcmc("analyze", "a.h5", "--json").json
    assert again["results"] == run.json["results"]
    lowest = [found["diagnostics"].pop("lowest_energy") for found in (again, run.json)]  # added up in other orders
    assert lowest[0] == pytest.approx(lowest[1], rel=1e-12)
    assert again["diagnostics"] == run.json["diagnostics"]
    assert f"a.h5: mode {case.split()[0]}, 2 chains x 25 draws" in nmcmc("status", "a.h5").out
    lines = nmcmc("analyze", "a.h5", "--csv").out.splitlines()
    assert {line.split(",")[2] for line in lines[1:]} >= {"energy", "alignment", "q"}


def test_many_instances_are_averaged(nmcmc):
    run = nmcmc("run", "--mode", "heatbath", "vector", "N=3", "D=3", "beta=0.5,1", "instances=0:2", "replicas=2",
                "--draws", 6, "--warmup", 5, "--chains", 2, "--out", "h.h5")  # fmt: skip
    assert "disorder averages of 2 instances" in run.out
    assert "alignment" in nmcmc("analyze", "h.h5").out
    refused = nmcmc("run", "--mode", "mean-field", "vector", "N=3", "D=3", "beta=1", "instances=0:2", code=2)
    assert "mode mean-field draws nothing" in refused.err


def test_the_model_is_among_those_listed(nmcmc):
    assert "vector" in nmcmc("models").out


# --- mean field ----------------------------------------------------------------------------------------------------


def test_mean_field_has_its_results_in_the_file(nmcmc):
    words = ("run", "--mode", "mean-field", "vector", "N=8", "D=6", "seed=1", "beta=0.5,1", "--out", "m.h5")
    run = nmcmc(*words, "--json")
    hamiltonian = vector(8, 6, seed=1)
    chain = open_chain("m.h5")
    assert (chain.mode, chain.complete, chain.n_draws) == ("mean-field", True, 0)
    m = chain.observables["m"]["mean"]
    assert m.shape == (2, 8, 6)
    for b, beta in enumerate((0.5, 1.0)):
        theta = hamiltonian.fields + hamiltonian.couplings @ m[b]
        gamma = np.sqrt(1 + beta**2 * (theta**2).sum(axis=1, keepdims=True) / hamiltonian.radius**2)
        assert m[b] == pytest.approx(beta * theta / (1 + gamma), abs=1e-6)
        row = run.json["results"][b]
        assert row["q"]["mean"] == pytest.approx((m[b] ** 2).sum() / 8 / hamiltonian.radius**2)
        cosines = (m[b] * hamiltonian.fields).sum(axis=1) / np.linalg.norm(m[b], axis=1) / hamiltonian.radius
        assert row["A"]["mean"] == pytest.approx(cosines.mean())
        assert row["q"]["status"] == "ok"
    assert run.json["diagnostics"]["converged"] == [1.0, 1.0]
    assert "note: bessel=large-D overstates the answer to weak fields by D/(D-2) = " in run.out
    assert "--restart solves them again" in nmcmc(*words).out
    assert nmcmc("analyze", "m.h5", "--json").json["results"] == run.json["results"]
    assert "complete" in nmcmc("status", "m.h5").out
    others = (("compare", "m.h5", "m.h5"), ("merge", "m.h5", "m.h5", "--out", "n.h5"))
    for words in (("plot", "m.h5", "--out", "f"), ("report", "m.h5"), ("export", "m.h5", "--to", "csv"), *others):
        refused = nmcmc(*words, code=2).err
        assert refused.count("\n") == 1
        assert "is a mean field and has no draws; look at it with nmcmc analyze" in refused
    nmcmc("export", "m.h5", "--to", "npz")
    assert "result: m-rerun.h5" in nmcmc("rerun", "m.h5").out
    assert (open_chain("m-rerun.h5").observables["m"]["mean"] == m).all()


def test_a_published_tap_that_does_not_settle_is_reported(nmcmc):
    data = Path(__file__).parent / "data" / "spin_transformer.npz"
    run = nmcmc("run", "--mode", "mean-field", "vector", f"path={data}", "beta=5", "method=tap", "--out", "t.h5",
                "--json")  # fmt: skip
    assert run.json["results"][0]["q"]["status"] == "not converged"
    assert run.json["diagnostics"]["converged"] in (0.0, [0.0])
    assert "not converged" in run.out


# --- refusals ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """A folder with files of couplings, good and bad, and one chain."""
    folder = tmp_path_factory.mktemp("vectors")
    x, J = np.ones((3, 4)), np.eye(3)
    np.savez(folder / "good.npz", x=x, J=J)
    np.savez(folder / "nan.npz", x=x, J=np.full((3, 3), np.nan))
    np.savez(folder / "infinite.npz", x=np.full((3, 4), np.inf), J=J)
    np.savez(folder / "no_J.npz", x=x)
    np.savez(folder / "wide.npz", x=x, J=np.ones((3, 2)))
    np.savez(folder / "thin.npz", x=np.ones((3, 2)), J=J)
    (folder / "junk.npz").write_text("no arrays")
    words = "run --mode heatbath vector N=3 D=4 beta=1 --draws 3 --warmup 1 --chains 2 --quiet --out chain.h5"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("sys.argv", ["nmcmc", *words.split()])
        with pytest.raises(SystemExit):
            cli.main.main()
    return folder


V = ("vector", "N=3", "D=4", "beta=1")
TWO = ("vector", "N=3", "D=4", "beta=1,2")
OTHER_MODES = ("wolff", "swendsen-wang", "nmcmc", "nis", "prior", "anneal", "neural-anneal", "population",
               "sequential", "train", "distill")  # fmt: skip
REFUSED = [
    *(
        (mode, V, (f"mode {mode}: model vector has vector spins; use --mode metropolis or heatbath",))
        for mode in OTHER_MODES
    ),
    *(
        (mode, words, (f"mode {mode}: {words[0]} has Ising spins", "use model vector"))
        for mode in ("kinetic", "mean-field")
        for words in (("ising", "L=4"), ("sk", "N=4", "beta=1"))
    ),
    ("heatbath", ("vector", "N=3", "D=2", "beta=1"), ("D=2: an integer of at least 3",)),
    ("heatbath", ("vector", "N=3", "beta=1"), ("no size; give N= and D=, or path=FILE.npz (D is missing)",)),
    ("heatbath", ("vector", "N=3", "D=4"), ("vector: no temperature; give beta= or T=",)),
    ("heatbath", ("vector", "N=0", "D=4", "beta=1"), ("N=0: an integer of at least 1",)),
    ("heatbath", ("vector", "N=10000", "D=4", "beta=1"), ("dense couplings do not fit",)),
    ("heatbath", (*V, "coupling=foo"), ("coupling=foo: symmetric or asymmetric is needed",)),
    ("heatbath", (*V, "h=-1"), ("h=-1.0: a finite number of at least 0",)),
    ("heatbath", (*V, "h=nan"), ("h=nan: a finite number is needed",)),
    ("heatbath", (*V, "J=gauss"), ("J=gauss: gaussian, bimodal, ferro, attention or a number",)),
    ("heatbath", (*V, "energy=los"), ("energy=los: bilinear or loss is needed",)),
    ("heatbath", (*V, "pairs=2"), ("pairs=2: once or ordered is needed",)),
    ("heatbath", (*V, "L=4"), ("unknown key L", "vector takes N, D, J, coupling, h")),
    ("heatbath", (*V, "beta=2"), ("beta is given twice",)),
    ("heatbath", ("vector", "N=3", "D=4", "beta=1,1"), ("a temperature is given twice",)),
    ("heatbath", (*V, "energy=loss"), ("mode heatbath: the loss energy has no heat bath; use metropolis",)),
    ("kinetic", (*V, "energy=loss"), ("kinetic: spins of fixed norm", "leave energy=loss out")),
    ("mean-field", (*V, "energy=loss"), ("mode mean-field", "leave energy=loss out")),
    ("metropolis", (*V, "energy=loss", "overrelax=1"), ("overrelax=1: reflections keep the bilinear energy only",)),
    ("metropolis", ("vector", "N=3", "D=4", "energy=loss", "beta=0,1"), ("no bound at beta = 0", "above 0")),
    ("pt", ("vector", "N=3", "D=4", "energy=loss", "beta=0,1"), ("no bound at beta = 0",)),
    ("pt", (*TWO, "energy=loss", "rule=heatbath"), ("the loss energy has no heat bath; use metropolis",)),
    ("metropolis", (*V, "proposal=far"), ("proposal=far: local or global or flip or perpendicular or mixed",)),
    ("pt", (*TWO, "rule=wolff"), ("rule=wolff: heatbath or metropolis is needed",)),
    ("pt", V, ("mode pt: at least two temperatures are needed",)),
    ("pt", ("vector", "N=3", "D=4", "beta=1,3,2"), ("a ladder rises or falls",)),
    ("pt", (*TWO, "ladder=tuned", "--warmup", "9"), ("ladder=tuned", "--warmup 100")),
    ("pt", (*TWO, "neural=all"), ("neural=all: samplers draw Ising spins",)),
    ("heatbath", (*V, "replicas=0"), ("replicas=0: an integer of at least 1",)),
    ("heatbath", (*V, "overrelax=-1"), ("overrelax=-1: an integer of at least 0",)),
    ("kinetic", (*V, "lags=-1"), ("lags=-1: an integer of at least 0",)),
    ("heatbath", (*V, "--device", "cuda"), ("--device cuda: mode heatbath runs on the CPU",)),
    ("heatbath", (*V, "init=down"), ("init=down: random, up, field or a chain file is needed",)),
    ("heatbath", (*V, "init=chain.h5"), ("init=chain.h5 has no stored spins (chain, beta, N, D) = (4, 1, 3, 4)",)),
    ("heatbath", ("vector", "N=4", "D=4", "beta=1", "--chains", "2", "init=chain.h5"), ("= (2, 1, 4, 4)",)),
    (
        "pt",
        (*TWO, "--chains", "2", "replicas=2", "init=chain.h5"),
        ("replica, N, D) = (2, 2, 2, 3, 4)",),
    ),
    ("metropolis", ("ising", "L=4", "init=chain.h5"), ("init=chain.h5 has no stored spins",)),
    ("mean-field", (*V, "method=tapp"), ("method=tapp", "did you mean tap?")),
    ("mean-field", (*V, "method=tap", "bessel=exact"), ("bessel=exact", "method=tap")),
    ("mean-field", (*V, "damping=2"), ("damping=2: a number of at least 0 and below 1 is needed",)),
    ("mean-field", (*V, "damping=1"), ("damping=1: a number of at least 0 and below 1 is needed",)),
    ("heatbath", ("vector", "path=nowhere.npz", "beta=1"), ("path=nowhere.npz: no such file",)),
    ("heatbath", ("vector", "path=junk.npz", "beta=1"), ("path=junk.npz is not a readable .npz file",)),
    ("heatbath", ("vector", "path=nan.npz", "beta=1"), ("path=nan.npz: J: NaN or infinite",)),
    ("heatbath", ("vector", "path=infinite.npz", "h=1", "beta=1"), ("path=infinite.npz: x: NaN or infinite",)),
    ("heatbath", ("vector", "path=no_J.npz", "beta=1"), ("path=no_J.npz has no array J",)),
    ("heatbath", ("vector", "path=wide.npz", "beta=1"), ("path=wide.npz", "(3, 3) is needed")),
    ("heatbath", ("vector", "path=thin.npz", "h=1", "beta=1"), ("path=thin.npz: D=2: at least 3",)),
    ("heatbath", ("vector", "path=good.npz", "N=3", "beta=1"), ("path= brings x and J along; leave N= out",)),
    ("heatbath", ("vector", "path=good.npz", "seed=1", "beta=1"), ("leave seed= out",)),
    ("heatbath", ("vector", "path=good.npz", "instances=0:2", "beta=1"), ("instances=0:2: path= brings one set",)),
    ("kinetic", ("vector", "N=3", "D=4", "beta=1", "--out", "chain.h5"), ("chain.h5 holds another run",)),
]


@pytest.mark.parametrize(("mode", "words", "said"), REFUSED, ids=[f"{m} {' '.join(w)}"[:70] for m, w, _ in REFUSED])
def test_what_does_not_fit_is_refused_in_one_line(mode, words, said, workshop, monkeypatch, capsys):
    monkeypatch.chdir(workshop)
    before = contents(workshop)
    code, out, err = call(("run", "--mode", mode, *words), monkeypatch, capsys)
    assert code == 2, err
    assert err.startswith("nmcmc: ")
    assert err.count("\n") == 1
    for text in said:
        assert text in err
    assert all(line.startswith("out: ") for line in out.splitlines())
    assert contents(workshop) == before


def test_settings_of_other_spins_have_no_effect_and_are_named(nmcmc):
    short = ("--draws", 2, "--warmup", 1)
    said = nmcmc("run", "--mode", "heatbath", *V, "kernel=packed", "proposal=flip", "patch=2", *short).out
    for key in ("kernel=", "proposal=", "patch="):
        assert f"note: {key} has no effect in mode heatbath" in said
    said = nmcmc("run", "--mode", "metropolis", "ising", "L=4", "overrelax=2", "proposal=flip", *short).out
    for key in ("overrelax=", "proposal="):
        assert f"note: {key} has no effect in mode metropolis" in said
    settings = open_chain("ising-L=4-metropolis.h5").config["settings"]
    assert not {"overrelax", "proposal", "rule", "lags"} & settings.keys()


def test_the_python_functions_read_the_file(nmcmc):
    nmcmc(*run_words("kinetic"), "--draws", 30, "--out", "k.h5")
    results = mc.analyse(mc.open_chain("k.h5"))
    assert results.profiles["correlation"].values.tolist() == [2, 4, 8, 16]
    assert json.dumps(results.diagnostics["asymmetry"])
