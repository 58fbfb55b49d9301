"""The driver of vector spins in equilibrium: laws by quadrature, tempering, steps that adapt, reproducibility."""

import itertools
import math

import numba
import numpy as np
import pytest
from scipy import stats

from mc.models import vector
from mc.stepping_stone import stepping_stones
from mc.vector.driver import FIRST_STEP, OF_PAIRS, PROPOSALS, VectorDriver
from mc.vector.hamiltonian import VectorHamiltonian
from mc.vector.overlap_matrix import frobenius_overlaps, pair_values
from mc.vector.starts import WORDS
from tests.enumerated import FALSE_ALARM, combined_p_value
from tests.test_tempering import assert_same, contents
from tests.vector_laws import (
    TwoSpins,
    cosine_moments,
    law_p_value,
    log_z_one,
    plane_of,
    radius,
    vmf_p_value,
    z_values,
)

BETAS = np.array([0.0, 0.5, 2.0, 8.0])
RULES = [("heatbath", "local"), *(("metropolis", proposal) for proposal in PROPOSALS)]


def one_spin(dimension, norm, seed=0):
    """A spin in a field of this norm."""
    x = np.random.default_rng(seed).normal(size=(1, dimension))
    return VectorHamiltonian(norm * x / np.linalg.norm(x), np.zeros((1, 1)))


def pair(dimension, bond, seed=0, norms=(0.0, 0.0)):
    """Two spins with an asymmetric bond of which equilibrium knows K, and fields of these norms."""
    x = np.random.default_rng(seed).normal(size=(2, dimension))
    x *= np.array(norms)[:, None] / np.linalg.norm(x, axis=1, keepdims=True)
    return VectorHamiltonian(x, np.array([[0.3, bond + 0.4], [bond - 0.4, -0.2]]))


def final_spins(hamiltonian, betas, chains, sweeps, seed, **settings):
    """One draw of each of many independent chains, (chain, beta, N, D), after the warm-up and `sweeps` more."""
    driver = VectorDriver(hamiltonian, betas, n_chains=chains, seed=seed, thin=sweeps, **settings)
    driver.warm_up(sweeps)
    return driver.block(1).spins[:, 0].astype(np.float64)


# --- the law at every beta -----------------------------------------------------------------------------------------


@pytest.mark.statistical
@pytest.mark.parametrize(("rule", "proposal"), RULES)
@pytest.mark.parametrize("exchange", [False, True])
def test_one_spin_in_a_field(rule, proposal, exchange):
    # One draw of each of 600 independent chains, in three, five and 32 dimensions: the cosine to the field against
    # its density at each beta. False alarm 1e-4 a case.
    p_values = []
    for seed, (dimension, norm) in enumerate([(3, 1.0), (5, 0.7), (32, 1.5)]):
        hamiltonian = one_spin(dimension, norm, seed)
        spins = final_spins(hamiltonian, BETAS, 600, 300, seed, rule=rule, proposal=proposal, exchange=exchange,
                            init="field")  # fmt: skip
        assert np.linalg.norm(spins, axis=-1) == pytest.approx(radius(dimension), rel=1e-6)
        cosines = spins[:, :, 0] @ hamiltonian.fields[0] / (norm * radius(dimension))
        p_values += [vmf_p_value(cosines[:, b], beta * radius(dimension) * norm, dimension)
                     for b, beta in enumerate(BETAS)]  # fmt: skip
    assert combined_p_value(p_values) > FALSE_ALARM, np.round(p_values, 5)


@pytest.mark.statistical
@pytest.mark.parametrize(("rule", "proposal", "overrelax"), [
    ("heatbath", "local", 0), ("heatbath", "local", 2), ("metropolis", "local", 1), ("metropolis", "mixed", 0),
])  # fmt: skip
@pytest.mark.parametrize("exchange", [False, True])
def test_the_angle_of_a_pair(rule, proposal, overrelax, exchange):
    # Without fields s_1.s_2 / R^2 is distributed as the cosine of a spin in the field K s_1. False alarm 1e-4 a case.
    p_values = []
    for seed, (dimension, bond) in enumerate([(3, 1.2), (8, -0.6)]):
        hamiltonian = pair(dimension, bond, seed)
        spins = final_spins(hamiltonian, BETAS, 600, 150, seed, rule=rule, proposal=proposal, overrelax=overrelax,
                            exchange=exchange, init="up")  # fmt: skip
        square = radius(dimension) ** 2
        cosines = (spins[:, :, 0] * spins[:, :, 1]).sum(axis=-1) / square
        p_values += [vmf_p_value(cosines[:, b], beta * bond * square, dimension) for b, beta in enumerate(BETAS)]
    assert combined_p_value(p_values) > FALSE_ALARM, np.round(p_values, 5)


@pytest.mark.statistical
@pytest.mark.parametrize(("rule", "proposal", "overrelax"), [
    ("heatbath", "local", 0), ("heatbath", "local", 1), ("metropolis", "local", 0), ("metropolis", "global", 1),
    ("metropolis", "flip", 0), ("metropolis", "perpendicular", 0), ("metropolis", "mixed", 1),
])  # fmt: skip
def test_the_energy_of_two_spins_in_fields(rule, proposal, overrelax):
    # 800 independent energies at each beta against their law in three dimensions. False alarm 1e-4 a case.
    bond, betas = 0.8, np.array([0.3, 1.5, 5.0])
    hamiltonian = pair(3, bond, 5, norms=(0.9, 1.4))
    spins = final_spins(hamiltonian, betas, 800, 50, 1, rule=rule, proposal=proposal, overrelax=overrelax)
    energies = hamiltonian.energy(spins)
    laws = [TwoSpins(hamiltonian.fields, bond, beta) for beta in betas]
    p_values = [law.energy_p_value(energies[:, b]) for b, law in enumerate(laws)]
    assert combined_p_value(p_values) > FALSE_ALARM, np.round(p_values, 5)


@pytest.mark.statistical
@pytest.mark.parametrize("exchange", [False, True])
@pytest.mark.parametrize("rule", ["heatbath", "metropolis"])
@pytest.mark.parametrize("dimension", [3, 8, 32])
def test_energies_and_means_of_two_spins_by_quadrature(rule, dimension, exchange):
    # abs z < 4 for <E>, for the mean square of E around the exact <E>, and for both components of <s_1>, at three
    # betas: a false alarm in 12 of 10^4 times a case. Errors are those of 64 independent chains.
    bond, betas = 0.7, np.array([0.4, 1.0, 3.0])
    hamiltonian = pair(dimension, bond, dimension, norms=(1.0, 0.6))
    driver = VectorDriver(hamiltonian, betas, n_chains=64, seed=dimension, rule=rule, exchange=exchange, thin=3,
                          proposal="mixed", spins_every=1)  # fmt: skip
    driver.warm_up(200)
    block = driver.block(200)
    first = block.spins[:, :, :, 0].astype(np.float64) @ plane_of(hamiltonian.fields).T
    for b, beta in enumerate(betas):
        law = TwoSpins(hamiltonian.fields, bond, beta)
        mean, variance = law.energy()
        energy = block.posterior["energy"][:, :, b]
        assert abs(z_values(energy.mean(axis=1), mean)) < 4
        assert abs(z_values(((energy - mean) ** 2).mean(axis=1), variance)) < 4
        assert (np.abs(z_values(first[:, :, b].mean(axis=1), law.spin_mean())) < 4).all()


@pytest.mark.statistical
@pytest.mark.parametrize("pairs", ["once", "ordered"])
def test_ordered_pairs_double_the_bond(pairs):
    # False alarm 1e-4 a case.
    beta, bond = 2.0, 0.5
    hamiltonian = VectorHamiltonian(np.zeros((2, 4)), np.array([[0.0, 2 * bond], [0.0, 0.0]]), pairs=pairs)
    spins = final_spins(hamiltonian, beta, 1500, 20, 3)
    cosines = (spins[:, 0, 0] * spins[:, 0, 1]).sum(axis=-1) / radius(4) ** 2
    factor = 2.0 if pairs == "ordered" else 1.0
    assert vmf_p_value(cosines, factor * beta * bond * radius(4) ** 2, 4) > FALSE_ALARM


# --- the loss energy -----------------------------------------------------------------------------------------------


@pytest.mark.statistical
@pytest.mark.parametrize("exchange", [False, True])
@pytest.mark.parametrize("proposal", PROPOSALS)
def test_triangular_couplings_of_the_loss_energy_make_gaussians(proposal, exchange):
    # With J_ij = 0 for j <= i the targets of i need later spins only, so the shifts s_i - R f_i / |f_i| are
    # independent normal numbers of variance 1 / beta, and 2 beta E is chi-squared. False alarm 1e-4 a case.
    betas, p_values = np.array([0.5, 2.0, 10.0]), []
    for seed, (n_spins, dimension) in enumerate([(1, 3), (5, 4)]):
        rng = np.random.default_rng(seed)
        x, strengths = rng.normal(size=(n_spins, dimension)), np.triu(rng.normal(size=(n_spins, n_spins)), 1)
        hamiltonian = VectorHamiltonian(x, strengths, "loss")
        spins = final_spins(hamiltonian, betas, 500, 200, seed, rule="metropolis", proposal=proposal,
                            exchange=exchange)  # fmt: skip
        driving = x + np.einsum("ij,cbjk->cbik", strengths, spins)
        targets = radius(dimension) * driving / np.linalg.norm(driving, axis=-1, keepdims=True)
        shifts = (spins - targets) * np.sqrt(betas)[:, None, None]
        for b in range(len(betas)):
            p_values.append(stats.kstest((shifts[:, b] ** 2).sum(axis=(-2, -1)), stats.chi2(x.size).cdf).pvalue)
            p_values.append(stats.kstest(shifts[:, b].ravel(), stats.norm.cdf).pvalue)
    assert combined_p_value(p_values) > FALSE_ALARM, np.round(p_values, 5)


@pytest.mark.statistical
@pytest.mark.parametrize("strength", [0.7, -0.7])
def test_a_diagonal_coupling_of_the_loss_energy(strength):
    # Without a field the target of a spin is its own direction or the opposite one: the norm r has the density
    # r^(D-1) exp(-beta (r -+ R)^2 / 2), and R' = sqrt(D/2 - 1) is all that is left of J. False alarm 1e-4 a case.
    betas, dimension = np.array([0.7, 5.0]), 5
    hamiltonian = VectorHamiltonian(np.zeros((1, dimension)), np.array([[strength]]), "loss")
    spins = final_spins(hamiltonian, betas, 1000, 150, 2, rule="metropolis", proposal="mixed")
    norms, target = np.linalg.norm(spins[:, :, 0], axis=-1), math.copysign(radius(dimension), strength)

    def log_density(r, beta):
        return (dimension - 1) * np.log(np.maximum(r, 1e-300)) - 0.5 * beta * (r - target) ** 2

    p_values = [law_p_value(norms[:, b], lambda r, beta=beta: log_density(r, beta), 0.0, 12.0)
                for b, beta in enumerate(betas)]  # fmt: skip
    assert combined_p_value(p_values) > FALSE_ALARM, p_values


@pytest.mark.statistical
@pytest.mark.parametrize("proposal", PROPOSALS)
def test_two_spins_of_the_loss_energy_by_quadrature(proposal):
    # Without fields E depends on |s_1|, |s_2| and their cosine: a grid of three numbers. abs z < 4 for <E> and <|s|>
    # at two betas, from 64 independent chains: a false alarm in 4 of 10^4 times a case.
    dimension, betas = 3, np.array([1.0, 4.0])
    strengths = np.array([[0.5, 0.8], [-0.3, 0.9]])
    hamiltonian = VectorHamiltonian(np.zeros((2, dimension)), strengths, "loss")
    driver = VectorDriver(hamiltonian, betas, n_chains=64, seed=4, rule="metropolis", proposal=proposal, thin=8)
    driver.warm_up(500)
    block = driver.block(200)
    nodes, weights = np.polynomial.legendre.leggauss(60)
    r, w = 4.0 * (nodes + 1.0), nodes
    one, two, cosine = np.meshgrid(r, r, w, indexing="ij")
    base = np.einsum("i,j,k->ijk", weights * r ** (dimension - 1), weights * r ** (dimension - 1), weights)
    base = base * (1.0 - cosine**2) ** ((dimension - 3) / 2)
    energy = 0.0
    for i, (own, other) in enumerate(((one, two), (two, one))):
        a, c = strengths[i, i], strengths[i, 1 - i]
        norm = np.sqrt(a**2 * own**2 + c**2 * other**2 + 2 * a * c * own * other * cosine)
        along = (a * own**2 + c * own * other * cosine) / norm
        energy = energy + 0.5 * (own**2 - 2.0 * radius(dimension) * along + radius(dimension) ** 2)
    for b, beta in enumerate(betas):
        law = base * np.exp(-beta * (energy - energy.min()))
        law /= law.sum()
        for name, expected in (("energy", energy), ("norm", (one + two) / (2 * radius(dimension)))):
            found = block.posterior[name][:, :, b].mean(axis=1)
            assert abs(z_values(found, (law * expected).sum())) < 4, (name, beta)


# --- more than one place -------------------------------------------------------------------------------------------


@pytest.mark.statistical
@pytest.mark.parametrize("exchange", [False, True])
def test_replicas_are_independent_and_have_the_law(exchange):
    # Three replicas of a spin in a field: each has the law of the cosine, and their overlaps have the mean A(k)^2.
    # False alarm 1e-4 for the laws, abs z < 4 for the overlaps.
    dimension, norm, betas = 4, 0.8, np.array([0.0, 1.0, 4.0])
    hamiltonian = one_spin(dimension, norm, 3)
    driver = VectorDriver(hamiltonian, betas, n_chains=600, seed=6, thin=20, replicas=3, exchange=exchange)
    driver.warm_up(20)
    block = driver.block(1)
    spins = block.spins[:, 0].astype(np.float64)  # (chain, beta, replica, site, component)
    assert spins.shape == (600, 3, 3, 1, dimension)
    k = betas * radius(dimension) * norm
    cosines = spins[..., 0, :] @ hamiltonian.fields[0] / (norm * radius(dimension))
    p_values = [vmf_p_value(cosines[:, b, replica], k[b], dimension) for b in range(3) for replica in range(3)]
    assert combined_p_value(p_values) > FALSE_ALARM, p_values
    overlap = block.posterior["overlap"][:, 0]
    for number, (a, b) in enumerate(itertools.combinations(range(3), 2)):
        expected = (spins[:, :, a] * spins[:, :, b]).sum(axis=(-2, -1)) / radius(dimension) ** 2
        assert overlap[..., number] == pytest.approx(expected, abs=1e-6)
    means = cosine_moments(k, dimension)[0]
    assert (np.abs(z_values(overlap, means[:, None] ** 2)) < 4).all()


@pytest.mark.statistical
def test_the_spin_glass_susceptibility_of_a_bond_is_exact():
    # N <sum q^{mu nu 2}> = (1/N) sum_ij <s_i.s_j>^2 / R^4 of independent replicas: 1 + A(k)^2. False alarm 2e-4.
    dimension, betas = 4, np.array([0.0, 1.0, 3.0])
    bond = VectorHamiltonian(np.zeros((2, dimension)), np.array([[0.0, 1.2], [1.2, 0.0]]))
    driver = VectorDriver(bond, betas, n_chains=800, seed=8, thin=20, replicas=3, exchange=True)
    driver.warm_up(40)
    norm = driver.block(1).posterior["overlap_norm"][:, 0]
    expected = 1.0 + cosine_moments(betas * 1.2 * radius(dimension) ** 2, dimension)[0] ** 2
    assert (np.abs(z_values(2.0 * (norm**2).mean(axis=-1), expected)) < 4).all()


@pytest.mark.statistical
def test_log_z_of_a_ladder_is_that_of_quadrature():
    # A spin in a field, and a tree of three without: abs z < 4 at every beta above 0, and the anchor exactly.
    dimension, betas = 6, np.array([0.0, 0.15, 0.4, 0.8, 1.5])
    strengths = np.zeros((3, 3))
    strengths[0, 1], strengths[2, 1] = 1.6, -0.9
    square = radius(dimension) ** 2
    cases = [
        (one_spin(dimension, 1.2), [radius(dimension) * 1.2]),
        (VectorHamiltonian(np.zeros((3, dimension)), strengths), [0.8 * square, 0.45 * square, 0.0]),
    ]
    for hamiltonian, scales in cases:
        exact = log_z_one(np.outer(betas, scales), dimension).sum(axis=1)
        driver = VectorDriver(hamiltonian, betas, n_chains=8, seed=3, exchange=True, thin=2, spins_every=0)
        driver.warm_up(100)
        stones = stepping_stones(driver.block(2000).posterior["energy"], betas, hamiltonian.log_states)
        assert stones.log_z[0] == pytest.approx(exact[0])
        assert (np.abs(stones.log_z - exact)[1:] < 4 * stones.error[1:]).all()


def test_swaps_are_counted_and_every_replica_has_a_place():
    hamiltonian = vector(8, 4, seed=1)
    driver = VectorDriver(hamiltonian, [0.2, 0.4, 0.7, 1.0], n_chains=3, exchange=True, replicas=2, thin=1)
    driver.warm_up(5)
    block = driver.block(301)
    swaps = block.sample_stats["swap_accepted"]
    assert np.isnan(swaps[:, :, -1]).all()
    # Even pairs in one round and odd ones in the next; the fifth round of the warm-up was even.
    assert (np.isnan(swaps[:, 0]) == [True, False, True, True]).all()
    assert (np.isnan(swaps[:, 1]) == [False, True, False, True]).all()
    assert set(np.unique(swaps[~np.isnan(swaps)])) <= {0.0, 0.5, 1.0}  # mean over two ladders
    assert (np.nanmean(swaps[:, :, :-1], axis=(0, 1)) > 0.05).all()
    holder = driver.state()["holder"]
    assert (np.sort(holder.reshape(3, -1), axis=1) == np.arange(8)).all()
    assert (np.sort(holder[:, 1], axis=1) == np.arange(4, 8)).all()  # ladders do not mix
    assert driver.round_trips.sum() > 0
    assert (np.diff(block.posterior["energy"].mean(axis=(0, 1, 3))) < 0).all()


@pytest.mark.statistical
def test_a_falling_ladder_is_a_rising_one_backwards():
    # abs z < 4 of three means, each of 20 chains a side: false alarm 1e-3.
    hamiltonian, betas = vector(6, 4, seed=1), [0.3, 0.6, 1.2]
    means = []
    for ladder in (betas, betas[::-1]):
        driver = VectorDriver(hamiltonian, ladder, n_chains=20, exchange=True, thin=2, spins_every=0)
        driver.warm_up(100)
        energy = driver.block(200).posterior["energy"].mean(axis=1)
        means.append((energy.mean(axis=0), energy.std(axis=0) / math.sqrt(20)))
    (up, up_error), (down, down_error) = means
    assert (np.abs(up - down[::-1]) < 4 * np.hypot(up_error, down_error[::-1])).all()


# --- what a draw holds ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("energy", "replicas", "exchange"), [
    ("bilinear", 1, False), ("bilinear", 2, True), ("bilinear", 3, False), ("loss", 1, True), ("loss", 2, False),
])  # fmt: skip
def test_draws_are_those_of_their_spins(energy, replicas, exchange):
    hamiltonian = vector(5, 4, seed=2, energy=energy)
    x = hamiltonian.fields.copy()
    x[3] = 0.0  # a site without a field has no cosine
    hamiltonian = VectorHamiltonian(x, hamiltonian.couplings, energy)
    driver = VectorDriver(hamiltonian, [0.5, 1.0], n_chains=2, rule="metropolis", replicas=replicas, thin=2,
                          exchange=exchange, spins_every=3, proposal="mixed")  # fmt: skip
    driver.warm_up(20)
    driver.block(4)
    block = driver.block(30)  # draws 4 to 33
    own = (replicas,) if replicas > 1 else ()
    assert block.spin_draws.tolist() == [6, 9, 12, 15, 18, 21, 24, 27, 30, 33]
    assert block.spins.dtype == np.float32
    assert block.spins.shape == (2, 10, 2, *own, 5, 4)
    names = {"energy", "alignment"} | ({"norm"} if energy == "loss" else set()) | set(OF_PAIRS if own else ())
    assert set(block.posterior) == set(driver.posterior_axes) == names
    for name, axes in driver.posterior_axes.items():
        assert block.posterior[name].shape == (2, 30, 2, *axes.values())
    assert {name: len(values) for name, values in block.sample_stats.items()} == dict.fromkeys(driver.stat_names, 2)
    spins = block.spins.astype(np.float64)
    norms = np.linalg.norm(spins, axis=-1)
    kept = {name: values[:, block.spin_draws - 4] for name, values in block.posterior.items()}
    assert kept["energy"] == pytest.approx(hamiltonian.energy(spins), abs=1e-4)
    cosines = (spins * x).sum(axis=-1)[..., [0, 1, 2, 4]] / norms[..., [0, 1, 2, 4]] / radius(4)
    assert kept["alignment"] == pytest.approx(cosines.mean(axis=-1), abs=1e-6)
    if energy == "loss":
        assert kept["norm"] == pytest.approx(norms.mean(axis=-1) / radius(4), rel=1e-6)
    else:
        assert norms == pytest.approx(radius(4), rel=1e-6)
    if own:
        pairs = itertools.combinations(range(replicas), 2)
        overlaps = [(spins[..., a, :, :] * spins[..., b, :, :]).sum(axis=(-2, -1)) for a, b in pairs]
        expected = np.stack(overlaps, axis=-1) / (5 * radius(4) ** 2)
        assert kept["overlap"].reshape(expected.shape) == pytest.approx(expected, abs=1e-5)
        norms = pair_values(frobenius_overlaps(spins, radius(4)))
        assert kept["overlap_norm"].reshape(norms.shape) == pytest.approx(norms, abs=1e-5)
    assert hamiltonian.energy(driver.lowest.spins) == pytest.approx(driver.lowest.energy, rel=1e-12)
    assert driver.lowest.energy <= block.posterior["energy"].min()


def test_sums_are_those_of_all_draws():
    hamiltonian = vector(4, 3, seed=1)
    driver = VectorDriver(hamiltonian, [0.5, 1.0], n_chains=2, replicas=2, exchange=True)
    driver.warm_up(7)
    spins = np.concatenate([driver.block(n).spins for n in (3, 5)], axis=1).astype(np.float64)
    assert driver.state()["spin_sums"] == pytest.approx(spins.sum(axis=1).swapaxes(1, 2), abs=1e-5)


def test_without_fields_there_is_no_alignment():
    driver = VectorDriver(vector(4, 3, h=0.0), [0.5])
    assert set(driver.block(2).posterior) == {"energy"}


def test_overrelaxation_alone_would_keep_the_energy():
    # Heat bath at beta = 0 forgets it; reflections after it do not change what it left.
    hamiltonian = vector(6, 5, seed=4)
    plain, more = (VectorDriver(hamiltonian, [0.0], n_chains=2, seed=1, overrelax=n) for n in (0, 3))
    one, other = plain.block(1), more.block(1)
    assert other.posterior["energy"] == pytest.approx(one.posterior["energy"], rel=1e-10)
    assert (one.spins != other.spins).any()


# --- starts --------------------------------------------------------------------------------------------------------


def start(driver):
    return driver.state()["spins"]


@pytest.mark.parametrize("energy", ["bilinear", "loss"])
def test_starts(energy):
    x = vector(4, 5, seed=3).fields.copy()
    x[1] = 0.0
    hamiltonian = VectorHamiltonian(x, np.zeros((4, 4)), energy)
    common = dict(betas=[0.5, 1.0], n_chains=3, rule="metropolis")
    up = np.full((4, 5), radius(5) / math.sqrt(5))
    assert start(VectorDriver(hamiltonian, init="up", **common)) == pytest.approx(np.broadcast_to(up, (3, 2, 4, 5)))
    along = x * radius(5) / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-300)
    along[1] = up[1]
    assert start(VectorDriver(hamiltonian, init="field", **common)) == pytest.approx(
        np.broadcast_to(along, (3, 2, 4, 5))
    )
    random = start(VectorDriver(hamiltonian, init="random", **common))
    assert np.linalg.norm(random, axis=-1) == pytest.approx(radius(5))
    assert len(np.unique(random.reshape(6, -1), axis=0)) == 6
    assert (start(VectorDriver(hamiltonian, init="random", seed=1, **common)) != random).all()
    given = np.random.default_rng(0).normal(size=(3, 2, 4, 5))
    scale = 1.0 if energy == "loss" else radius(5) / np.linalg.norm(given, axis=-1, keepdims=True)
    assert start(VectorDriver(hamiltonian, init=given, **common)) == pytest.approx(given * scale)
    assert given.std() != 0  # untouched
    replicas = np.random.default_rng(1).normal(size=(3, 2, 2, 4, 5)).astype(np.float32)
    driver = VectorDriver(hamiltonian, init=replicas, replicas=2, **common)
    by_place = start(driver).reshape(3, 2, 2, 4, 5)  # (chain, replica, beta, ...)
    expected = replicas.swapaxes(1, 2).astype(np.float64)
    scale = 1.0 if energy == "loss" else radius(5) / np.linalg.norm(expected, axis=-1, keepdims=True)
    assert by_place == pytest.approx(expected * scale)


@pytest.mark.parametrize(("init", "said"), [
    ("down", f"init=down: {', '.join(WORDS)}"),
    (np.ones((2, 5)), "do not broadcast"),
    (np.full((4, 3), np.nan), "not finite"),
    (np.zeros((4, 3)), "a spin is zero"),
])  # fmt: skip
def test_starts_that_do_not_fit_are_refused(init, said):
    with pytest.raises(ValueError, match=said):
        VectorDriver(vector(4, 3), [1.0], init=init)


@pytest.mark.parametrize(("energy", "settings", "said"), [
    ("bilinear", dict(rule="wolff"), "rule=wolff: vector spins take heatbath or metropolis"),
    ("bilinear", dict(rule="metropolis", proposal="far"), "proposal=far: local, global, flip, perpendicular, mixed"),
    ("bilinear", dict(betas=[-1.0]), "betas="), ("bilinear", dict(betas=[np.nan]), "betas="),
    ("bilinear", dict(betas=[]), "betas="),
    ("bilinear", dict(betas=[0.1, 0.5, 0.3], exchange=True), "a ladder rises or falls"),
    ("bilinear", dict(betas=[0.5, 0.5], exchange=True), "with no beta twice"),
    ("bilinear", dict(n_chains=0), "n_chains=0"), ("bilinear", dict(thin=0), "thin=0"),
    ("bilinear", dict(replicas=0), "replicas=0"), ("bilinear", dict(spins_every=-1), "spins_every=-1"),
    ("bilinear", dict(overrelax=-1), "overrelax=-1"),
    ("loss", dict(rule="heatbath"), "the loss energy has no heat bath; use metropolis"),
    ("loss", dict(rule="metropolis", overrelax=1), "reflections keep the bilinear energy only"),
    ("loss", dict(rule="metropolis", betas=[0.0, 1.0]), "no bound at beta = 0"),
])  # fmt: skip
def test_settings_that_do_not_fit_are_refused(energy, settings, said):
    with pytest.raises(ValueError, match=said) as refused:
        VectorDriver(vector(3, 3, energy=energy), **{"betas": [1.0], **settings})
    assert "\n" not in str(refused.value)


# --- steps and ladders that adapt ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("energy", "proposal"), [
    *itertools.product(["bilinear"], PROPOSALS), ("loss", "local"), ("loss", "perpendicular"), ("loss", "mixed"),
])  # fmt: skip
def test_steps_follow_the_acceptance_in_the_warm_up_only(energy, proposal):
    # The acceptance is that of 600 draws of 16 moves each, known to 0.005: 0.06 is the tuning, not chance.
    hamiltonian = vector(16, 8, seed=1, energy=energy)
    driver = VectorDriver(hamiltonian, [4.0, 30.0, 300.0], n_chains=2, rule="metropolis", proposal=proposal)
    assert (driver.state()["steps"] == FIRST_STEP).all()
    driver.warm_up(400)
    tuned = driver.state()["steps"]
    assert (np.diff(tuned[:, 0], axis=1) < 0).all()  # smaller where it is colder
    accepted = driver.block(300).sample_stats["accepted"]
    assert np.nanmean(accepted, axis=(0, 1)) == pytest.approx(0.4, abs=0.06)
    assert (driver.state()["steps"] == tuned).all()


def test_a_step_of_hot_spins_grows_until_every_move_is_taken():
    driver = VectorDriver(vector(4, 3), [0.0], n_chains=1, rule="metropolis")
    driver.warm_up(2000)
    assert np.isfinite(driver.state()["steps"]).all()
    assert (driver.block(10).sample_stats["accepted"] == 1.0).all()
    assert np.isfinite(start(driver)).all()


def test_heat_bath_accepts_everything_and_has_no_step():
    driver = VectorDriver(vector(4, 3), [1.0], n_chains=1)
    driver.warm_up(20)
    assert (driver.block(5).sample_stats["accepted"] == 1.0).all()


def test_a_tuned_ladder_keeps_its_ends_and_evens_out_the_swaps():
    hamiltonian = vector(32, 8, seed=2, coupling="symmetric")
    betas = np.array([0.1, 0.12, 0.14, 0.16, 0.18, 2.0])

    def spread(tuned):
        driver = VectorDriver(hamiltonian, betas, n_chains=4, exchange=True, tuned=tuned, thin=1, spins_every=0)
        driver.warm_up(1600)
        swaps = np.nanmean(driver.block(400).sample_stats["swap_accepted"][..., :-1], axis=(0, 1))
        return driver, np.ptp(swaps)

    fixed, before = spread(False)
    tuned, after = spread(True)
    assert (fixed.betas == betas).all()
    assert (tuned.betas[0], tuned.betas[-1]) == (betas[0], betas[-1])
    assert (np.diff(tuned.betas) > 0).all()
    assert (tuned.betas[1:-1] != betas[1:-1]).all()
    assert before > 0.5
    assert after < 0.25
    kept = tuned.betas.copy()
    tuned.block(200)
    assert (tuned.betas == kept).all()


# --- bit for bit ---------------------------------------------------------------------------------------------------

DRIVERS = {
    "heat bath": dict(),
    "heat bath, overrelax": dict(overrelax=2, replicas=3),
    "metropolis": dict(rule="metropolis", proposal="mixed", thin=3),
    "tempering": dict(exchange=True, replicas=2, rule="metropolis", proposal="perpendicular"),
    "tuned": dict(exchange=True, tuned=True),
    "loss": dict(rule="metropolis", proposal="mixed", replicas=2),
    "loss, tempering": dict(rule="metropolis", exchange=True, tuned=True),
}


@pytest.mark.parametrize("name", DRIVERS)
def test_blocks_states_and_threads_continue_bit_for_bit(name):
    hamiltonian = vector(7, 5, seed=1, energy="loss" if name.startswith("loss") else "bilinear")
    betas, threads = [0.3, 0.6, 1.1], numba.get_num_threads()

    def fresh(seed=3):
        return VectorDriver(hamiltonian, betas, n_chains=3, seed=seed, spins_every=2, **DRIVERS[name])

    whole, parts, other = fresh(), fresh(), fresh(seed=8)
    try:
        numba.set_num_threads(1)
        whole.warm_up(130)
        long = whole.block(17)
        numba.set_num_threads(threads)
        parts.warm_up(130)
        first, state = parts.block(6), parts.state()
        kept = {key: array.copy() for key, array in state.items()}
        other.restore({key: np.array(array) for key, array in state.items()})
        second, again = parts.block(10), other.block(10)
        third = parts.block(1)
    finally:
        numba.set_num_threads(threads)
    assert_same(contents(second), contents(again))
    for key, array in state.items():  # a state is a copy
        assert (array == kept[key]).all()
    for key in long.posterior:
        joined = np.concatenate([block.posterior[key] for block in (first, second, third)], axis=1)
        assert joined.tobytes() == long.posterior[key].tobytes(), key
    for key in long.sample_stats:
        joined = np.concatenate([block.sample_stats[key] for block in (first, second, third)], axis=1)
        assert np.array_equal(joined, long.sample_stats[key], equal_nan=True), key
    assert np.concatenate([b.spins for b in (first, second, third)], axis=1).tobytes() == long.spins.tobytes()
    assert np.concatenate([b.spin_draws for b in (first, second, third)]).tolist() == long.spin_draws.tolist()
    other.block(1)
    for key, array in whole.state().items():
        assert parts.state()[key].tobytes() == array.tobytes(), key
        assert other.state()[key].tobytes() == parts.state()[key].tobytes(), key
    assert (whole.betas == parts.betas).all()


def test_a_warm_up_in_parts_that_was_stopped_goes_on_bit_for_bit():
    hamiltonian = vector(6, 4, seed=1)

    def fresh(seed=1):
        return VectorDriver(hamiltonian, [0.3, 0.9], 2, seed, rule="metropolis", exchange=True, tuned=True)

    one, other = fresh(), fresh(seed=5)
    one.warm_up(70)
    other.restore(one.state())
    for driver in (one, other):
        driver.warm_up(70)
    assert_same(contents(one.block(5)), contents(other.block(5)))
    assert (one.betas == other.betas).all()


@pytest.mark.parametrize(("changed", "said"), [
    (dict(holder=None), "holder is missing"),
    (dict(spins=np.zeros((1, 2, 3, 4))), "state: spins is"),
    (dict(holder=np.zeros((2, 1, 2), np.int64)), "holder does not name each replica once"),
])  # fmt: skip
def test_states_of_another_driver_are_refused(changed, said):
    driver = VectorDriver(vector(4, 3), [0.3, 0.9], n_chains=2)
    state = driver.state() | changed
    state = {key: array for key, array in state.items() if array is not None}
    before = driver.state()
    with pytest.raises(ValueError, match=said):
        driver.restore(state)
    for key, array in driver.state().items():
        assert (array == before[key]).all()


def test_many_components_and_cold_spins_stay_on_the_sphere():
    hamiltonian = vector(16, 32, seed=3)
    driver = VectorDriver(hamiltonian, [1e3, 1e6], n_chains=2, overrelax=1, thin=10)
    driver.warm_up(50)
    block = driver.block(20)
    assert np.linalg.norm(block.spins, axis=-1) == pytest.approx(radius(32), rel=1e-6)
    assert block.posterior["energy"] == pytest.approx(hamiltonian.energy(block.spins), rel=1e-6)
