"""Runs of the binary alloy: kelvin, what a chain file holds beside the energy, both ensembles against enumeration."""

import h5py
import numpy as np
import pytest

import mc
from cli.values import betas
from mc import models
from mc.analysis import analyse, kelvin
from mc.exact import boltzmann_distribution, enumerate_exact, enumerate_states, state_spins
from mc.models.alloy import order_parameter, x_points
from mc.simulate import LocalDriver
from mc.stepping_stone import stepping_stones
from mc.tempering import TemperingDriver

K_B = models.alloy().k_B
LARGEST_Z = 4.0  # of Gaussian errors: a false alarm in 16,000 comparisons


def require_definitions(path, h=0.0, stored=None):
    """Every variable of a file is what its stored spins say."""
    chain = mc.open_chain(path)
    hamiltonian, spins = chain.hamiltonian(), chain.spins
    n_spins, kept = hamiltonian.n_spins, chain.spin_draws
    assert len(kept) == (stored or chain.n_draws)
    up = (spins > 0).mean(axis=-1)
    expected = {
        "energy": hamiltonian.energy(spins),
        "magnetization": 2 * up - 1,
        "formation_energy": models.alloy(hamiltonian.parameters["cell"]).energy(spins),
        "x_Au": up,
        "l10": order_parameter(x_points(hamiltonian), spins),
    }
    assert {name for name in chain.posterior if "overlap" not in name} == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(chain.posterior[name][:, kept], values, atol=1e-12, err_msg=name)
    np.testing.assert_allclose(
        expected["energy"], expected["formation_energy"] - h * n_spins * (2 * up - 1), atol=1e-12
    )
    with h5py.File(path) as file:
        units = {name: file["posterior"][name].attrs["units"] for name in expected}
    assert units.pop("energy") == units.pop("formation_energy") == "eV"
    assert set(units.values()) == {"dimensionless"}
    return chain


RUNS = [
    ("metropolis", ("T=500,800", "h=0.02", "kernel=replicas"), 0.02),
    ("heatbath", ("T=800", "spins.every=3"), 0.0),
    ("pt", ("T=500,800,1200", "h=-0.01", "replicas=2"), -0.01),
    ("metropolis", ("T=500", "composition=0.25"), 0.0),
    ("population", ("beta=0,5,10", "composition=0.5"), 0.0),
    ("anneal", ("h=0.01",), 0.01),
    ("prior", ("T=1200", "h=0.01"), 0.01),
    ("nis", ("T=1200", "net=none", "prior=none"), 0.0),
    ("nmcmc", ("T=1200,2000", "net=none", "local=1", "h=0.01"), 0.01),
]


@pytest.mark.parametrize(("mode", "words", "h"), RUNS, ids=[f"{mode} {' '.join(words)}" for mode, words, _ in RUNS])
def test_variables_are_what_the_spins_say(mode, words, h, nmcmc, tmp_path):
    options = ("--draws", 12, "--warmup", 20, "--chains", 2, "--out", "run.h5", "--quiet", "--json")
    if mode in ("population", "anneal", "prior", "nis"):
        options = (*options[:2], *options[4:])  # without a warm-up
    found = nmcmc("run", "--mode", mode, "alloy", "cell=2x2x4", *words, *options).json
    chain = require_definitions(tmp_path / "run.h5", h, stored=4 if "spins.every=3" in words else None)
    for row, beta in zip(found["results"], chain.betas, strict=True):
        assert {"formation_energy", "x_Au", "l10"} <= row.keys()
        assert row["T"] == (pytest.approx(1.0 / (K_B * beta)) if beta else None)


def test_a_ferromagnet_records_what_it_did(nmcmc, tmp_path):
    found = nmcmc("run", "--mode", "metropolis", "ising", "L=4", "kernel=replicas", "--draws", 5, "--warmup", 5,
                  "--out", "i.h5", "--quiet", "--json").json  # fmt: skip
    assert set(mc.open_chain(tmp_path / "i.h5").posterior) == {"energy", "magnetization", "magnetization_k2"}
    assert "T" not in found["results"][0]


def test_kelvin():
    assert betas("T", "500,1000", K_B) == (1.0 / (K_B * 500.0), 1.0 / (K_B * 1000.0))
    assert betas("T", "0.5,4") == (2.0, 0.25)
    assert betas("beta", "20", K_B) == (20.0,)
    np.testing.assert_allclose(kelvin(np.array([1.0 / (K_B * 680.0), 0.0]), K_B), [680.0, np.inf])


def test_exact_prints_kelvin(nmcmc):
    answer = nmcmc("exact", "alloy", "cell=2x2x4", "T=500,680", "--json")
    assert [line.split()[:3] for line in answer.out.splitlines()[:2]] == [["T", "500", "K"], ["T", "680", "K"]]
    for row, T in zip(answer.json["results"], (500.0, 680.0), strict=True):
        assert row["T"] == pytest.approx(T)
        assert row["log_z"] == pytest.approx(enumerate_exact(models.alloy(), 1.0 / (K_B * T)).log_z, abs=1e-10)
    assert "T" not in nmcmc("exact", "ising", "L=3", "--json").json["results"][0]


def test_tables_have_a_column_of_kelvin(nmcmc):
    out = nmcmc("run", "--mode", "metropolis", "alloy", "T=500", "composition=0.5", "--draws", 9, "--warmup", 9).out
    head = next(line for line in out.splitlines() if "observable" in line)
    assert head.split()[:3] == ["T", "(K)", "beta"]
    assert any(line.split()[:3] == ["500", f"{1 / (K_B * 500):.6g}", "energy"] for line in out.splitlines())


def test_a_composition_goes_through_a_file(nmcmc, tmp_path):
    words = ("run", "--mode", "metropolis", "alloy", "cell=2x2x4", "T=700", "composition=0.25", "--warmup", 20)
    nmcmc(*words, "--draws", 20, "--out", "a.h5", "--quiet")
    chain, wanted = mc.open_chain(tmp_path / "a.h5"), models.alloy("2x2x4", composition=0.25)
    assert chain.hamiltonian().n_up == 4
    assert chain.hamiltonian().fingerprint == wanted.fingerprint != models.alloy("2x2x4").fingerprint
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["hamiltonian"].attrs["n_up"] == 4
    results = analyse(chain)
    for name, value in (("magnetization", -0.5), ("x_Au", 0.25)):
        assert results.observables[name][0].status == "ok"
        assert (results.observables[name][0].mean, results.observables[name][0].error) == (value, 0.0)
    assert "binder" not in results.observables
    nmcmc(*words, "--draws", 40, "--out", "a.h5", "--quiet")  # goes on
    nmcmc("rerun", "a.h5", "--out", "b.h5", "--quiet")
    require_definitions(tmp_path / "b.h5", stored=40)
    nmcmc(*words, "--draws", 9, "--out", "started.h5", "--quiet", f"init={tmp_path / 'a.h5'}")
    nmcmc(*words, "--draws", 40, "--out", "c.h5", "--rng-seed", 1, "--quiet")
    nmcmc("merge", "a.h5", "c.h5", "--out", "m.h5", "--quiet")
    require_definitions(tmp_path / "m.h5", stored=40)
    nmcmc("export", "a.h5", "--to", "alps")
    (exported,) = tmp_path.glob("*.out.h5")
    with h5py.File(exported) as file:
        assert file["parameters/T"][()] == pytest.approx(700.0)
        assert file["simulation/results/x_Au/mean/value"][()] == 0.25
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["hamiltonian"].attrs["n_up"] = 5
    with pytest.raises(mc.ChainError, match="the Hamiltonian is not the one stored"):
        mc.open_chain(tmp_path / "a.h5").hamiltonian()


REFUSED = [
    ("metropolis", "T=500 cell=2x2", "cell=2x2: three sizes"),
    ("metropolis", "T=500 composition=0.3", "use 0.25 or 0.3125"),
    ("metropolis", "T=500 composition=1.3", "composition=1.3: a number from 0 to 1"),
    ("metropolis", "T=500 h=strong", "h=strong: a finite number"),
    ("metropolis", "T=500 h=0.1 composition=0.5", "not both"),
    ("metropolis", "T=500 path=none.json", "none.json: no such file"),
    ("metropolis", "T=0", "T=0: numbers above 0"),
    ("metropolis", "", "alloy: no temperature"),
    ("metropolis", "T=500 composition=0.5 init=up", "init=up: 8 of 16 spins are up"),
    ("metropolis", "T=500 composition=0.5 kernel=replicas", "which is fixed"),
    ("heatbath", "T=500 composition=0.5", "mode heatbath: flips change the number of spins up"),
    ("wolff", "T=500", "mode wolff: a ferromagnet is needed"),
    ("nis", "T=500 composition=0.5", "a neural sampler draws all compositions"),
    ("nmcmc", "T=500 composition=0.5 net=none", "a neural sampler draws all compositions"),
    ("sequential", "beta=1,2 composition=0.5", "a neural sampler draws all compositions"),
    ("pt", "beta=1,2 composition=0.5 neural=all", "a neural sampler draws all compositions"),
]


@pytest.mark.parametrize(("mode", "words", "said"), REFUSED)
def test_refusals_come_before_work_in_one_line(mode, words, said, nmcmc, tmp_path):
    answer = nmcmc("run", "--mode", mode, "alloy", *words.split(), code=2)
    assert answer.err.startswith("nmcmc: ")
    assert answer.err.count("\n") == 1
    assert said in answer.err
    assert not list(tmp_path.iterdir())


# --- the law -------------------------------------------------------------------------------------------------------


def z_values(hamiltonian, driver, beta_index, n_draws):
    """(estimate - enumerated) / error of energy, x_Au and l10 at one beta."""
    weight = boltzmann_distribution(hamiltonian, float(driver.betas[beta_index]))
    states = state_spins(np.arange(2**16), 16)
    energies = np.where(weight > 0, enumerate_states(hamiltonian), 0.0)
    exact = {"energy": weight @ energies, "l10": weight @ order_parameter(x_points(hamiltonian), states)}
    exact |= {"magnetization": weight @ states.mean(axis=1)} if hamiltonian.n_up is None else {}
    driver.warm_up(300)
    block = driver.block(n_draws)
    found = {name: mc.statistics.estimate(block.posterior[name][:, :, beta_index]) for name in exact}
    return {name: (found[name].mean - value) / found[name].error for name, value in exact.items()}


@pytest.mark.statistical
@pytest.mark.parametrize("given", [{"h": 0.01}, {"composition": 0.5}, {"composition": 0.25}])
def test_metropolis_and_tempering_sample_the_enumerated_law(given):
    # 4 or 6 z-values of a Gaussian error each; false alarm 6e-5 a value. Fixed seeds.
    hamiltonian = models.alloy("2x2x4", **given)
    kernel = "replicas" if "h" in given else "auto"
    hot, ladder = 1.0 / (K_B * 800.0), 1.0 / (K_B * np.array([1500.0, 900.0, 600.0]))
    local = LocalDriver(hamiltonian, [hot], 8, seed=11, thin=5, kernel=kernel)
    z = z_values(hamiltonian, local, 0, 1500)
    tempered = TemperingDriver(hamiltonian, ladder, 8, seed=12, thin=3, kernel=kernel)
    z |= {f"{name} in pt": value for name, value in z_values(hamiltonian, tempered, 2, 1500).items()}
    assert max(map(abs, z.values())) < LARGEST_Z, z


@pytest.mark.statistical
def test_log_z_of_a_composition_starts_from_its_number_of_states():
    hamiltonian = models.alloy("2x2x4", composition=0.5)
    driver = TemperingDriver(hamiltonian, np.linspace(0.0, 12.0, 7), 4, seed=3, thin=3)
    driver.warm_up(300)
    energy = driver.block(2000).posterior["energy"]
    found = stepping_stones(energy, driver.betas, hamiltonian.log_states)
    assert found.log_z[0] == pytest.approx(enumerate_exact(hamiltonian, 0.0).log_z, abs=1e-12)
    assert abs(found.log_z[-1] - enumerate_exact(hamiltonian, 12.0).log_z) < LARGEST_Z * found.error[-1]


def test_annealing_finds_the_ground_state(nmcmc):
    found = nmcmc("run", "--mode", "anneal", "alloy", "cell=2x2x4", "composition=0.5", "--draws", 10, "--chains", 2,
                  "--out", "a.h5", "--quiet", "--json").json  # fmt: skip
    lowest = enumerate_exact(models.alloy("2x2x4"), 1.0).ground_energy
    assert found["diagnostics"]["lowest_energy"] == pytest.approx(lowest, abs=1e-12)
