"""Parallel dynamics of vector spins: its steady state, correlations and entropy production by other ways."""

import itertools
import math

import numba
import numpy as np
import pytest
from scipy import stats

import mc
from mc.models import vector
from mc.vector.hamiltonian import VectorHamiltonian
from mc.vector.kinetic import KineticDriver
from tests.enumerated import FALSE_ALARM, combined_p_value
from tests.test_tempering import assert_same, contents
from tests.vector_laws import (
    TwoSpins,
    cosine_moments,
    cosine_p_value,
    log_z_one,
    plane_of,
    radius,
    vmf_p_value,
    z_values,
)


def dealt(n_spins, dimension, seed, symmetric=False):
    rng = np.random.default_rng(seed)
    x, strengths = rng.normal(size=(n_spins, dimension)), rng.normal(size=(n_spins, n_spins)) / math.sqrt(n_spins)
    return VectorHamiltonian(x, (strengths + strengths.T) / 2 if symmetric else strengths)


# --- one step ------------------------------------------------------------------------------------------------------


@pytest.mark.statistical
@pytest.mark.parametrize("thin", [1, 3])
def test_a_spin_alone_is_drawn_anew_at_each_step(thin):
    # 1000 draws of each of four chains against the law of the cosine to the field, and their direction around it, a
    # cosine in D - 1 dimensions; C(lag) has the mean A(k)^2. False alarm 1e-4, abs z < 4.
    dimension, norm, betas = 5, 0.9, np.array([0.0, 0.5, 3.0, 20.0])
    x = np.random.default_rng(1).normal(size=(1, dimension))
    x *= norm / np.linalg.norm(x)
    driver = KineticDriver(VectorHamiltonian(x, np.zeros((1, 1))), betas, n_chains=4, seed=2, thin=thin, lags=3)
    block = driver.block(1000)
    spins = block.spins[:, :, :, 0].astype(np.float64)
    cosines = spins @ x[0] / (norm * radius(dimension))
    k = betas * radius(dimension) * norm
    across = spins - cosines[..., None] * radius(dimension) * x[0] / norm
    axis = np.eye(dimension)[0] - x[0, 0] * x[0] / norm**2
    around = across @ axis / np.linalg.norm(across, axis=-1) / np.linalg.norm(axis)
    p_values = [vmf_p_value(cosines[:, :, b].ravel(), k[b], dimension) for b in range(4)]
    p_values += [cosine_p_value(around[:, :, b].ravel(), np.zeros_like, dimension - 1) for b in range(4)]
    assert combined_p_value(p_values) > FALSE_ALARM, p_values
    assert block.posterior["alignment"] == pytest.approx(cosines, abs=1e-6)
    assert (block.posterior["entropy_production"] == 0).all()
    mean = cosine_moments(k, dimension)[0]
    found = block.posterior["correlation"].reshape(-1, 4, 3)[::5]  # so that products share no draw
    assert (np.abs(z_values(found, mean[:, None] ** 2)) < 4).all()


@pytest.mark.statistical
def test_each_spin_is_drawn_in_its_driving_field_of_the_state_before():
    # In three dimensions the cosine w to the field f = x + J s of the state before has the cumulative law
    # (e^kw - e^-k) / (e^k - e^-k): uniform numbers, for the first step and for the second. False alarm 1e-4.
    hamiltonian, betas = dealt(6, 3, 3), np.array([0.4, 2.0, 9.0])
    driver = KineticDriver(hamiltonian, betas, n_chains=400, seed=1, lags=0)
    start = driver.state()["spins"]
    block = driver.block(2)
    states = [start, *np.moveaxis(block.spins.astype(np.float64), 1, 0)]
    p_values = []
    for before, after in itertools.pairwise(states):
        field = hamiltonian.fields + np.einsum("ij,cbjk->cbik", hamiltonian.couplings, before)
        norm = np.linalg.norm(field, axis=-1)
        k = betas[:, None] * radius(3) * norm
        w = (after * field).sum(axis=-1) / norm / radius(3)
        uniform = (np.exp(k * (w - 1.0)) - np.exp(-2.0 * k)) / (1.0 - np.exp(-2.0 * k))
        p_values += [stats.kstest(uniform[:, b, i], stats.uniform.cdf).pvalue for b in range(3) for i in range(6)]
        # Spins of one state do not know of each other.
        for i in range(5):
            p_values += [stats.pearsonr(uniform[:, b, i], uniform[:, b, i + 1]).pvalue for b in range(3)]
    assert combined_p_value(p_values) > FALSE_ALARM, np.round(p_values, 5)


# --- the steady state ----------------------------------------------------------------------------------------------


@pytest.mark.statistical
@pytest.mark.parametrize("dimension", [3, 6])
def test_the_steady_state_of_two_spins_with_a_symmetric_bond(dimension):
    # exp(beta (x_1.s_1 + x_2.s_2)) Z(beta R |x_1 + J s_2|) Z(beta R |x_2 + J s_1|) is a product: each spin is
    # distributed as in equilibrium, but independently of the other. abs z < 4 of 15 numbers, from 64
    # chains: false alarm 3e-3.
    bond, betas = 0.8, np.array([0.5, 1.5, 4.0])
    x = np.random.default_rng(dimension).normal(size=(2, dimension)) / math.sqrt(dimension)
    hamiltonian = VectorHamiltonian(x, np.array([[0.0, bond], [bond, 0.0]]))
    driver = KineticDriver(hamiltonian, betas, n_chains=64, seed=7, lags=0)
    driver.warm_up(100)
    block = driver.block(300)
    spins = block.spins.astype(np.float64)
    for b, beta in enumerate(betas):
        means = []
        for first in (0, 1):
            fields = x[[first, 1 - first]]
            expected = TwoSpins(fields, bond, beta).spin_mean()
            found = spins[:, :, b, first] @ plane_of(fields).T
            assert (np.abs(z_values(found.mean(axis=1), expected)) < 4).all()
            means.append(expected @ plane_of(fields))
        products = (spins[:, :, b, 0] * spins[:, :, b, 1]).sum(axis=-1).mean(axis=1)
        assert abs(z_values(products, means[0] @ means[1])) < 4


@pytest.mark.statistical
def test_the_steady_state_of_two_spins_with_a_diagonal():
    # Without fields the cosine c of the two has the density (1 - c^2)^((D-3)/2) Z(beta R |f_1|) Z(beta R |f_2|), with
    # |f_i|^2 / R^2 = J_ii^2 + J_12^2 + 2 J_ii J_12 c. One draw of each of 1500 chains; false alarm 1e-4.
    bond, own, betas, p_values = 0.6, (0.9, 0.4), np.array([0.5, 2.0, 6.0]), []
    grid = np.linspace(-1.0, 1.0, 2001)
    for dimension in (3, 5):
        square = radius(dimension) ** 2
        hamiltonian = VectorHamiltonian(np.zeros((2, dimension)), np.array([[own[0], bond], [bond, own[1]]]))
        driver = KineticDriver(hamiltonian, betas, n_chains=1500, seed=dimension, lags=0)
        driver.warm_up(200)
        spins = driver.block(1).spins[:, 0].astype(np.float64)
        cosines = (spins[:, :, 0] * spins[:, :, 1]).sum(axis=-1) / square
        for b, beta in enumerate(betas):
            total = sum(log_z_one(beta * square * np.sqrt(np.maximum(d**2 + bond**2 + 2 * d * bond * grid, 0.0)),
                                  dimension) for d in own)  # fmt: skip
            p_values.append(cosine_p_value(cosines[:, b], lambda w, t=total: np.interp(w, grid, t), dimension))
    assert combined_p_value(p_values) > FALSE_ALARM, p_values


@pytest.mark.statistical
def test_the_equilibrium_law_is_another_one():
    # The same cosine under exp(-beta E) is that of a spin in a field: the parallel dynamics does not have it.
    dimension, beta = 3, 2.0
    hamiltonian = VectorHamiltonian(np.zeros((2, dimension)), np.array([[0.9, 0.6], [0.6, 0.9]]))
    driver = KineticDriver(hamiltonian, [beta], n_chains=1500, seed=1, lags=0)
    driver.warm_up(200)
    spins = driver.block(1).spins[:, 0, 0].astype(np.float64)
    cosines = (spins[:, 0] * spins[:, 1]).sum(axis=-1) / radius(dimension) ** 2
    assert vmf_p_value(cosines, beta * 0.6 * radius(dimension) ** 2, dimension) < FALSE_ALARM


# --- two times -----------------------------------------------------------------------------------------------------


@pytest.mark.statistical
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_decay_and_entropy_production_of_a_pair(sign):
    # Without fields, s_1,t follows J_12 s_2,t-1 and s_2,t follows J_21 s_1,t-1, |J_12| = |J_21| = a: the mean of a
    # spin is A(beta a R^2) times the direction of the other one before, up to signs. Hence C(2n) = (+-A^2)^n,
    # C(odd) = 0, and sigma = 4 beta a R^2 A for antisymmetric J, 0 for symmetric. abs z < 4, from 64 chains.
    dimension, bond, betas = 4, 0.7, np.array([0.8, 2.0, 5.0])
    square = radius(dimension) ** 2
    hamiltonian = VectorHamiltonian(np.zeros((2, dimension)), np.array([[0.0, bond], [sign * bond, 0.0]]))
    driver = KineticDriver(hamiltonian, betas, n_chains=64, seed=3, lags=3)
    driver.warm_up(50)
    found = {name: values.mean(axis=1) for name, values in driver.block(400).posterior.items()}
    ratio = cosine_moments(betas * bond * square, dimension)[0]
    expected = np.stack([np.zeros(3), sign * ratio**2, ratio**4], axis=1)  # lags 1, 2, 4
    assert (np.abs(z_values(found["correlation"], expected)) < 4).all()
    if sign > 0:
        assert found["entropy_production"] == pytest.approx(0.0, abs=1e-12)
    else:
        assert (np.abs(z_values(found["entropy_production"], 4 * betas * bond * square * ratio)) < 4).all()


@pytest.mark.statistical
def test_persistent_spins_decay_exponentially():
    # J = d 1: each spin follows itself, C(lag) = A(beta d R^2)^lag, the lag in steps of which `thin` make a draw.
    dimension, own, beta, thin = 5, 1.5, 2.0, 2
    hamiltonian = VectorHamiltonian(np.zeros((3, dimension)), own * np.eye(3))
    driver = KineticDriver(hamiltonian, [beta], n_chains=64, seed=3, thin=thin, lags=4)
    driver.warm_up(10)
    assert driver.posterior_axes["correlation"]["lag"].tolist() == [2, 4, 8, 16]
    block = driver.block(300)
    ratio = cosine_moments(beta * own * radius(dimension) ** 2, dimension)[0]
    expected = float(ratio) ** np.array([2, 4, 8, 16])
    found = block.posterior["correlation"][:, :, 0].mean(axis=1)
    assert (np.abs(z_values(found, expected)) < 4).all()


def transition(hamiltonian, beta, new, old):
    """ln p(new | old) of states (..., N, D), as the rule is written; without the constant of the sphere."""
    driving = hamiltonian.fields + np.einsum("ij,...jk->...ik", hamiltonian.couplings, old)
    k = beta * hamiltonian.radius * np.linalg.norm(driving, axis=-1)
    return beta * (new * driving).sum(axis=(-2, -1)) - log_z_one(k, hamiltonian.n_components).sum(axis=-1)


@pytest.mark.statistical
@pytest.mark.parametrize(("symmetric", "n_spins"), [(True, 4), (False, 4), (False, 7)])
def test_entropy_production_is_the_mean_of_log_ratios(symmetric, n_spins):
    # Draw by draw it differs from ln p(s_t | s_t-1) - ln p(s_t-1 | s_t) by a difference of states, which adds up to
    # its ends: sums agree to the rounding of stored spins when the ends are added.
    hamiltonian, betas = dealt(n_spins, 4, 2, symmetric), np.array([0.3, 1.0, 3.0])
    driver = KineticDriver(hamiltonian, betas, n_chains=16, seed=3, lags=0)
    driver.warm_up(50)
    block = driver.block(201)
    spins = block.spins.astype(np.float64)
    production = block.posterior["entropy_production"]
    odd = hamiltonian.couplings - hamiltonian.couplings.T
    new, old = spins[:, 1:], spins[:, :-1]
    flux = betas * np.einsum("ij,cdbik,cdbjk->cdb", odd, new, old)
    assert production[:, 1:] == pytest.approx(flux, abs=1e-4)
    for b, beta in enumerate(betas):
        forward = transition(hamiltonian, beta, new[:, :, b], old[:, :, b])
        backward = transition(hamiltonian, beta, old[:, :, b], new[:, :, b])
        ends = spins[:, :, b][:, [-1, 0]]
        k = beta * hamiltonian.radius * np.linalg.norm(hamiltonian.driving_fields(ends), axis=-1)
        potential = beta * (hamiltonian.fields * ends).sum(axis=(-2, -1)) + log_z_one(k, 4).sum(axis=-1)
        literal = (forward - backward).sum(axis=1) - potential[:, 0] + potential[:, 1]
        assert production[:, 1:, b].sum(axis=1) == pytest.approx(literal, abs=2e-3)
        mean = production[:, :, b].mean(axis=1)
        if symmetric:
            assert (np.abs(production[:, :, b]) < 1e-10).all()
        else:
            assert mean.mean() > 4 * mean.std(ddof=1) / math.sqrt(16)


def test_correlations_and_energies_are_those_of_the_stored_spins():
    hamiltonian = dealt(5, 4, 8)
    for thin in (1, 3):
        driver = KineticDriver(hamiltonian, [0.5, 2.0], n_chains=2, seed=1, thin=thin, lags=4)
        driver.warm_up(7)
        first = driver.block(20)
        second = driver.block(30)
        spins = np.concatenate([first.spins, second.spins], axis=1).astype(np.float64)
        posterior = {name: np.concatenate([first.posterior[name], second.posterior[name]], axis=1)
                     for name in first.posterior}  # fmt: skip
        assert posterior["energy"] == pytest.approx(hamiltonian.energy(spins), abs=1e-4)
        assert driver.posterior_axes["correlation"]["lag"].tolist() == [thin, 2 * thin, 4 * thin, 8 * thin]
        for number, lag in enumerate((1, 2, 4, 8)):
            expected = (spins[:, lag:] * spins[:, :-lag]).sum(axis=(-2, -1)) / (5 * radius(4) ** 2)
            assert posterior["correlation"][:, lag:, :, number] == pytest.approx(expected, abs=1e-6)
            assert (np.abs(posterior["correlation"][..., number]) <= 1 + 1e-6).all()
            assert (posterior["correlation"][:, :lag, :, number] != 0).all()  # with states from before the draws
        assert driver.state()["spin_sums"] == pytest.approx(spins.sum(axis=1), abs=1e-4)


def test_sites_without_a_field_have_no_cosine():
    x = dealt(4, 3, 1).fields.copy()
    x[2] = 0.0
    driver = KineticDriver(VectorHamiltonian(x, dealt(4, 3, 1).couplings), [1.0], n_chains=2)
    block = driver.block(5)
    kept = [0, 1, 3]
    cosines = (block.spins * x).sum(axis=-1)[..., kept] / np.linalg.norm(x[kept], axis=1) / radius(3)
    assert block.posterior["alignment"] == pytest.approx(cosines.mean(axis=-1), abs=1e-6)
    assert set(KineticDriver(vector(4, 3, h=0.0), [1.0], lags=0).block(2).posterior) == {
        "energy", "entropy_production",
    }  # fmt: skip


@pytest.mark.statistical
def test_infinite_temperature_forgets_at_once():
    # A standard deviation from 1000 independent draws, known to 2.2 %: 10 % is 4.5 errors, false alarm 1e-5.
    driver = KineticDriver(dealt(30, 8, 1), [0.0], n_chains=20)
    block = driver.block(50)
    assert (block.posterior["entropy_production"] == 0).all()
    # of variance 1 / (N D)
    found = block.posterior["correlation"][:, :, 0, 0]
    assert found.std() == pytest.approx(1 / math.sqrt(30 * 8), rel=0.1)


# --- bit for bit ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("thin", "lags"), [(1, 7), (3, 3), (2, 0)])
def test_blocks_states_and_threads_continue_bit_for_bit(thin, lags):
    hamiltonian, threads = dealt(6, 5, 4), numba.get_num_threads()

    def fresh(seed=3):
        return KineticDriver(hamiltonian, [0.3, 1.1], n_chains=3, seed=seed, thin=thin, lags=lags, spins_every=2)

    whole, parts, other, late = fresh(), fresh(), fresh(seed=8), fresh(seed=9)
    try:
        numba.set_num_threads(1)
        whole.warm_up(30)
        long = whole.block(40)
        numba.set_num_threads(threads)
        parts.warm_up(10)
        late.restore(parts.state())  # within the warm-up
        for driver in (parts, late):
            driver.warm_up(20)
        first, state = parts.block(13), parts.state()
        other.restore({name: np.array(array) for name, array in state.items()})
        second, again = parts.block(26), other.block(26)
        third = parts.block(1)
        other.block(1)
        late.block(40)
    finally:
        numba.set_num_threads(threads)
    assert_same(contents(second), contents(again))
    for name in long.posterior:
        joined = np.concatenate([block.posterior[name] for block in (first, second, third)], axis=1)
        assert joined.tobytes() == long.posterior[name].tobytes(), name
    assert np.concatenate([b.spins for b in (first, second, third)], axis=1).tobytes() == long.spins.tobytes()
    assert np.concatenate([b.spin_draws for b in (first, second, third)]).tolist() == long.spin_draws.tolist()
    for name, array in whole.state().items():
        for driver in (parts, other, late):
            assert driver.state()[name].tobytes() == array.tobytes(), name


def test_a_draw_that_is_taken_back_leaves_no_trace():
    # As the command line does, which draws once so that Numba compiles.
    hamiltonian = dealt(4, 3, 4)
    one, other = (KineticDriver(hamiltonian, [0.7], n_chains=2, thin=2) for _ in range(2))
    state = one.state()
    one.thin = 1
    one.block(1)
    one.restore(state)
    one.thin = 2
    for driver in (one, other):
        driver.warm_up(5)
    assert_same(contents(one.block(9)), contents(other.block(9)))


@pytest.mark.parametrize(("settings", "said"), [
    (dict(betas=[-0.5]), "betas="), (dict(betas=[math.inf]), "betas="), (dict(lags=-1), "lags=-1"),
    (dict(thin=0), "thin=0"), (dict(n_chains=0), "n_chains=0"), (dict(init="left"), "init=left"),
    (dict(init=np.ones((3, 3))), "do not broadcast"),
])  # fmt: skip
def test_settings_that_do_not_fit_are_refused(settings, said):
    with pytest.raises(ValueError, match=said) as refused:
        KineticDriver(dealt(4, 3, 1), **{"betas": [1.0], **settings})
    assert "\n" not in str(refused.value)


def test_the_loss_energy_and_foreign_states_are_refused():
    with pytest.raises(ValueError, match="kinetic: spins of fixed norm are needed; leave energy=loss out"):
        KineticDriver(vector(4, 3, energy="loss"), [1.0])
    driver = KineticDriver(dealt(4, 3, 1), [1.0])
    with pytest.raises(ValueError, match="state: history is"):
        driver.restore(KineticDriver(dealt(4, 3, 1), [1.0], lags=2).state())


def test_lags_are_in_steps_with_and_without_thin(nmcmc):
    for name, thin in (("default", ()), ("three", ("--thin", 3))):
        words = ("run", "--mode", "kinetic", "vector", "N=4", "D=4", "beta=1", "lags=3", "--draws", 20, "--warmup", 5)
        found = nmcmc(*words, *thin, "--out", f"{name}.h5", "--json").json
        step = thin[1] if thin else 1
        assert found["profiles"]["correlation"]["lag"] == [step, 2 * step, 4 * step]
        assert mc.open_chain(f"{name}.h5").own_axes("correlation")["lag"].tolist() == [step, 2 * step, 4 * step]
