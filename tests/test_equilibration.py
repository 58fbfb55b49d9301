"""Verdicts on runs that are in equilibrium, drift, are stuck or too short; the identity by enumeration."""

import math

import numpy as np
import pytest

import mc
from mc.equilibration import (
    chains_agree,
    energy_overlap_identity,
    equilibrated,
    identity_refusal,
    log_binned,
    steady,
)
from mc.kernels import local_field, metropolis
from mc.kernels.random_streams import streams
from tests.enumerated import law
from tests.test_statistics import autoregressive

SAMPLES = 300


def metropolis_energies(hamiltonian, beta, chains, draws, seed):
    """Energies (chain, draw) of a sweep a draw, from draw 0 on, half of the chains from all up, half from random."""
    arrays = local_field.kernel_arrays(hamiltonian.table)
    typical = local_field.typical_fields(*arrays[:2])
    random = np.random.default_rng(seed)
    spins = (2 * random.integers(0, 2, size=(chains, hamiltonian.n_spins)) - 1).astype(np.int8)
    spins[: chains // 2] = 1
    energies, own = hamiltonian.energy(spins), streams(seed, count=chains)
    found = np.empty((chains, draws))
    for draw in range(draws):
        found[:, draw] = energies
        metropolis.sweep(spins, energies, np.full(chains, beta), own, *arrays, typical, 1)
    return found


@pytest.mark.statistical
@pytest.mark.parametrize(("rho", "chains", "draws"), [(0.5, 4, 2000), (0.9, 8, 3000), (0.0, 2, 400)])
def test_stationary_chains_pass(rho, chains, draws):
    # A "no" is a difference of 4 sigma: at most one in 200 runs, counting the noise of the errors themselves; a "not
    # shown" comes in one of a hundred. Ten or more of 100 "not shown", or three "no": below 1e-4.
    runs = autoregressive(rho, 100 * chains, draws, seed=1).reshape(100, chains, draws)
    verdicts = [equilibrated({"energy": x, "q2": x**2}).status for x in runs]
    assert verdicts.count("no") < 3
    assert verdicts.count("yes") > 90


@pytest.mark.statistical
@pytest.mark.parametrize("chains", [4, 32])
def test_a_drift_of_all_chains_is_seen(chains):
    # Relaxation in the logarithm of time, as of a glass: an amplitude of two fluctuations a factor e.
    draws = 4000
    x = autoregressive(0.5, chains, draws, seed=2) - 2.0 * np.log(1.0 + np.arange(draws))
    verdict = steady("energy", x)
    assert verdict.status == "no"
    assert "energy: means over the last half" in verdict.reason
    assert equilibrated({"q2": autoregressive(0.5, chains, draws, seed=3), "energy": x}) == verdict


@pytest.mark.statistical
def test_a_transient_that_is_over_before_the_last_eighths_does_no_harm():
    draws = 4000
    x = autoregressive(0.5, 8, draws, seed=4) + 50.0 * np.exp(-np.arange(draws) / 20.0)
    assert equilibrated({"energy": x}).status == "yes"


def test_log_binned_means():
    x = np.arange(32.0)[None] * [[1.0], [2.0]]
    assert log_binned(x).tolist() == [[23.5, 11.5, 5.5], [47.0, 23.0, 11.0]]


@pytest.mark.statistical
def test_chains_in_different_valleys_disagree():
    x = autoregressive(0.5, 4, 2000, seed=5)
    assert chains_agree("energy", x).status == "yes"
    x[1] += 1.0  # each steady by itself, and R-hat says no more than that they differ
    assert steady("energy", x).status != "no"
    verdict = equilibrated({"energy": x})
    assert verdict.status == "no"
    assert "energy: means of 4 chains" in verdict.reason
    frozen = np.repeat([[1.0], [2.0]], 100, axis=1)
    assert chains_agree("energy", frozen).status == "no"
    assert "more than 37" in equilibrated({"energy": frozen}).reason


@pytest.mark.statistical
def test_what_is_too_little_shows_nothing():
    good = autoregressive(0.5, 4, 2000, seed=6)
    cases = {
        "10 draws a chain": good[:, :10],
        "one chain": good[:1],
        "every draw of the last half is the same": np.full((4, 2001), 0.1),
        "tau_int": autoregressive(0.99, 4, 1000, seed=7),
    }
    for reason, x in cases.items():
        verdict = equilibrated({"energy": x})
        assert verdict.status == "not shown"
        assert reason in verdict.reason
    assert equilibrated({"energy": good, "q2": good[:, ::-1] ** 2}).status == "yes"
    with pytest.raises(ValueError, match="one shape"):
        equilibrated({"energy": good, "q2": good[:, :9]})


def test_the_advised_length_is_enough():
    x = autoregressive(0.95, 4, 40_000, seed=8)
    reason = equilibrated({"energy": x[:, :400]}).reason
    enough = int(reason.split("at least ")[1])
    assert 400 < enough < 5000
    assert equilibrated({"energy": x[:, : 4 * enough]}).status == "yes"


@pytest.mark.statistical
def test_metropolis_on_a_glass_hot_and_cold():
    glass = mc.models.ea2d(L=8, J="gaussian", seed=1)
    hot = metropolis_energies(glass, 0.5, 8, 2000, seed=1)
    assert equilibrated({"energy": hot}).status == "yes"
    # Cold, half from all up and half from random states: every chain has an energy of its own.
    cold = [equilibrated({"energy": metropolis_energies(glass, 5.0, 8, 2000, seed)}).status for seed in range(2, 6)]
    assert "yes" not in cold
    assert "no" in cold


def exact_means(hamiltonian, beta):
    """<E> per bond and mean over bonds of <s_i s_j>^2, by enumeration."""
    states, p = law(hamiltonian, beta)
    sites, couplings = hamiltonian.bonds
    correlation = p @ (states[:, sites[:, 0]] * states[:, sites[:, 1]]).astype(float)
    return -(couplings @ correlation) / len(couplings), np.mean(correlation**2)


def ensemble(build):
    return [build(seed) for seed in range(SAMPLES)]


def thermal(models, beta):
    """Energies per bond and link overlaps, (samples,) each."""
    return np.array([exact_means(model, beta) for model in models]).T


ENSEMBLES = {
    "open 3x3": (lambda seed: mc.models.ea2d(L=3, boundary="open", J="gaussian", seed=seed), 1.0),
    "torus": (lambda seed: mc.models.ea2d(L=3, J="gaussian", seed=seed), 1.0),
    "SK": (lambda seed: mc.models.sk(N=8, seed=seed), 1 / 8),
    "random graphs": (lambda seed: mc.models.rrg(N=8, J="gaussian", seed=seed), 1.0),
}


@pytest.mark.statistical
@pytest.mark.parametrize("name", ENSEMBLES)
def test_identity_of_gaussian_couplings(name):
    build, variance = ENSEMBLES[name]
    models = ensemble(build)
    assert identity_refusal(models, variance) == ""
    for beta in (0.4 / math.sqrt(variance), 0.9 / math.sqrt(variance)):
        energy, link = thermal(models, beta)
        z, verdict = energy_overlap_identity(energy, link, beta, variance)
        assert abs(z) < 4  # 6e-5 each
        assert verdict.status == ("yes" if abs(z) <= 3 else "not shown")
        for wrong, sign in ((0.8, -1), (1.25, 1)):
            z, verdict = energy_overlap_identity(energy, link, wrong * beta, variance)
            assert sign * z > 4
            assert verdict.status == "no"


@pytest.mark.statistical
def test_identity_sees_samples_that_are_too_hot():
    build, variance = ENSEMBLES["torus"]
    energy, link = thermal(ensemble(build), 0.7)
    z, verdict = energy_overlap_identity(energy, link, 1.0, variance)  # meant to be at 1.0
    assert z > 5
    assert verdict.status == "no"


def test_identity_does_not_hold_for_other_couplings_and_they_are_refused():
    def bimodal(seed):
        return mc.models.ea2d(L=3, boundary="open", seed=seed)

    models = ensemble(bimodal)
    energy, link = thermal(models, 1.2)
    assert abs(energy_overlap_identity(energy, link, 1.2, 1.0)[0]) > 5  # in exact equilibrium
    assert "+-J" in identity_refusal(models, 1.0)
    gaussian = [ENSEMBLES["torus"][0](seed) for seed in range(50)]
    assert identity_refusal(gaussian, 1.0) == ""
    assert "not Gaussian of mean 0 and variance 2" in identity_refusal(gaussian, 2.0)
    assert "20 are needed" in identity_refusal(gaussian[:19], 1.0)
    assert "are the same" in identity_refusal([*gaussian, gaussian[0]], 1.0)
    in_a_field = [mc.models.ea2d(L=3, J="gaussian", h=0.1, seed=seed) for seed in range(50)]
    assert "without fields" in identity_refusal(in_a_field, 1.0)
    smaller = [*gaussian, ENSEMBLES["open 3x3"][0](99)]
    assert "number of bonds" in identity_refusal(smaller, 1.0)
    shifted = [mc.Hamiltonian(9, [(model.bonds[0], model.bonds[1] + 0.5)]) for model in gaussian]
    assert "not Gaussian" in identity_refusal(shifted, 1.0)


def test_identity_with_a_large_error_shows_nothing():
    random = np.random.default_rng(9)
    link = np.full(30, 0.5)
    energy = -0.5 + 0.4 * random.normal(size=30)
    z, verdict = energy_overlap_identity(energy, link, 1.0, 1.0)
    assert abs(z) < 3
    assert verdict.status == "not shown"
    assert "too coarse" in verdict.reason
    assert energy_overlap_identity(np.full(30, -0.5), link, 1.0, 1.0)[0] == 0.0
    assert energy_overlap_identity(np.full(30, -0.4), link, 1.0, 1.0)[0] > 37


def test_identity_refuses_what_it_cannot_judge():
    ones = np.ones(30)
    with pytest.raises(ValueError, match="19 disorder samples"):
        energy_overlap_identity(ones[:19], ones[:19], 1.0, 1.0)
    with pytest.raises(ValueError, match="link overlaps"):
        energy_overlap_identity(ones, ones[:29], 1.0, 1.0)
    for energy, variance in ((ones * np.nan, 1.0), (ones, 0.0)):
        with pytest.raises(ValueError, match="not finite"):
            energy_overlap_identity(energy, ones, 1.0, variance)
