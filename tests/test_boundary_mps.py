"""Boundary-mps prior: exact with a large bond, a normalised law with any, and safe where truncation goes wrong."""

from functools import cache

import numpy as np
import pytest
import torch

import mc
from mc.exact import exact
from mc.square import square_couplings
from mc.weighted import log_mean_weight, weighted_estimate
from nmcmc.environment.build import Environment, build_environment
from nmcmc.networks.heads import TreeHead
from nmcmc.priors import boundary_mps, make_prior, prior_refusal
from nmcmc.priors.boundary_mps import BoundaryMPS
from nmcmc.recipe import NetSettings, build_sampler, resolved
from nmcmc.sampler import AutoregressiveSampler
from nmcmc.tokens import tokens_for
from tests.enumerated import FALSE_ALARM, all_states, chi_square_p, combined_p_value, law, state_numbers

TORUS, ALONG_X, ALONG_Y, OPEN = "periodic", "periodic,open", "open,periodic", "open"


def glass(Lx, Ly, boundary, h="gauss:0.5"):
    return mc.models.ea2d(Lx=Lx, Ly=Ly, J="gaussian", h=h, boundary=boundary, seed=4)


def ferromagnet(Lx, Ly, boundary):
    return mc.models.ising(Lx=Lx, Ly=Ly, boundary=boundary)  # rings of equal columns


def made(hamiltonian, beta, chi, form="two-leg", dtype=torch.float64):
    environment = build_environment(square_couplings(hamiltonian), beta, chi, form)
    return BoundaryMPS(hamiltonian, tokens_for(hamiltonian, rows=True), beta, environment, dtype)


def alone(hamiltonian, beta, prior, canonical=None):
    """The prior as a sampler."""
    tokens = prior.tokens
    return AutoregressiveSampler(hamiltonian, beta, tokens, prior, TreeHead(tokens.vocabulary), None, canonical)


def random_states(n, n_spins, seed=6):
    return np.random.default_rng(seed).choice(np.array([-1, 1], np.int8), size=(n, n_spins))


def odds_of(prior, states):
    return prior.log_odds_of(torch.from_numpy(states).float()).double().numpy()


def log_law(prior, states):
    """ln q (n,) of all conditionals of states, without the Z2 frame."""
    odds = prior.log_odds_of(torch.from_numpy(states).float()).double()
    return torch.nn.functional.logsigmoid(odds * torch.from_numpy(states)).sum(1).numpy()


def exact_log_odds(hamiltonian, beta):
    """Log-odds (2^N, N) of every spin given those before it, for all states in the order of `all_states`."""
    _, p = law(hamiltonian, beta)
    n_spins = hamiltonian.n_spins
    found, number = np.empty((len(p), n_spins)), np.arange(len(p))
    for n in range(n_spins):
        minus, plus = np.log(p.reshape(-1, 2, 2**n).sum(0))
        found[:, n] = (plus - minus)[number % 2**n]
    return found


# With a large bond

EXACT = [
    # build, Lx, Ly, boundary
    *((glass, *size, boundary) for size in ((3, 3), (4, 3), (3, 4)) for boundary in (OPEN, ALONG_X, ALONG_Y, TORUS)),
    *((ferromagnet, Lx, Ly, boundary) for Lx, Ly in ((3, 3), (4, 3)) for boundary in (ALONG_X, TORUS)),
    *((glass, Lx, Ly, OPEN) for Lx, Ly in ((1, 1), (1, 6), (6, 1), (1, 2), (2, 1), (2, 2), (2, 4), (4, 2))),
    *((glass, Lx, Ly, ALONG_X) for Lx, Ly in ((5, 1), (4, 2))),
    *((glass, Lx, Ly, ALONG_Y) for Lx, Ly in ((1, 5), (2, 4))),
]


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.5])
@pytest.mark.parametrize(("build", "Lx", "Ly", "boundary"), EXACT)
def test_with_a_large_bond_log_odds_are_the_exact_conditionals(build, Lx, Ly, boundary, beta):
    # All bonds are 4 at most, those of row 0 apart. The ring of three sites loses, unrolled, what only so short a
    # ring can see: 2e-5 at beta = 0.5, 1e-3 at beta = 1.5 (measured), with four rows that do not meet again.
    hamiltonian = build(Lx, Ly, boundary)
    prior = made(hamiltonian, beta, chi=4)
    found = odds_of(prior, all_states(Lx * Ly))
    assert found.shape == (2 ** (Lx * Ly), Lx * Ly)
    assert prior.replaced == 0
    near = 3e-3 if (Lx, Ly, boundary) == (3, 4, ALONG_X) else 1e-9
    assert np.abs(found - exact_log_odds(hamiltonian, beta)).max() < near


@pytest.mark.parametrize("beta", [0.5, 1.5])
@pytest.mark.parametrize("build", [glass, ferromagnet])
def test_one_leg_on_a_torus_knows_row_0_only_in_the_last_row(build, beta):
    hamiltonian = build(3, 4, TORUS)
    prior = made(hamiltonian, beta, chi=4, form="one-leg")
    assert prior.last_meets_first
    assert not prior.two_legs
    states = all_states(12)
    found, expected = odds_of(prior, states), exact_log_odds(hamiltonian, beta)
    assert np.abs(found - expected)[:, 9:].max() < 1e-9
    assert np.abs(found[:, :9] - expected[:, :9]).max() > 0.1
    log_q = log_law(prior, states)
    assert np.isfinite(log_q).all()
    assert np.exp(log_q).sum() == pytest.approx(1.0, abs=1e-9)


def test_forms_are_one_where_rows_do_not_meet_again():
    for boundary in (OPEN, ALONG_X):
        hamiltonian = glass(3, 4, boundary)
        states = random_states(10, 12)
        two, one = (odds_of(made(hamiltonian, 0.7, 2, form), states) for form in ("two-leg", "one-leg"))
        assert (two == one).all()


def test_float32_is_near_to_float64():
    states = random_states(30, 36)
    for boundary in (OPEN, TORUS):
        hamiltonian = glass(6, 6, boundary)
        single = odds_of(made(hamiltonian, 0.4, 8, dtype=torch.float32), states)
        assert single == pytest.approx(odds_of(made(hamiltonian, 0.4, 8), states), abs=2e-4)


def test_low_temperatures_and_strong_fields_are_reckoned_in_float64():
    hamiltonian, tokens = mc.models.ea2d(L=4, seed=1), tokens_for(mc.models.ea2d(L=4, seed=1), rows=True)
    for beta, dtype in ((0.5, torch.float32), (1.2, torch.float32), (1.3, torch.float64)):
        assert make_prior("boundary-mps", hamiltonian, tokens, beta, chi=2).rest.dtype == dtype
    in_a_field = mc.models.ea2d(L=4, h=5.0, seed=1)
    assert make_prior("boundary-mps", in_a_field, tokens, 0.5, chi=2).rest.dtype == torch.float64


# Drawing and scoring

WAYS = [
    (glass, 6, 5, TORUS, "two-leg"),
    (glass, 6, 5, TORUS, "one-leg"),
    (ferromagnet, 5, 6, TORUS, "two-leg"),
    (glass, 6, 5, ALONG_X, "two-leg"),
    (glass, 6, 5, ALONG_Y, "two-leg"),
    (glass, 6, 5, ALONG_Y, "one-leg"),
    (glass, 5, 6, OPEN, "two-leg"),
    (glass, 1, 6, OPEN, "two-leg"),
    (glass, 6, 1, OPEN, "two-leg"),
    (glass, 9, 1, ALONG_X, "two-leg"),
]


@pytest.mark.parametrize(
    ("dtype", "near", "rows_at_once"),
    [(torch.float32, 1e-4, 100), (torch.float64, 1e-9, 1), (torch.float64, 1e-9, 2)],
)
@pytest.mark.parametrize(("build", "Lx", "Ly", "boundary", "form"), WAYS)
def test_drawing_says_what_given_states_say(build, Lx, Ly, boundary, form, dtype, near, rows_at_once, monkeypatch):
    hamiltonian, chi, n = build(Lx, Ly, boundary), 3, 7
    prior = made(hamiltonian, 0.6, chi, form, dtype)
    numbers = rows_at_once * Lx * n * chi * (4 * chi if prior.ring else 2)
    monkeypatch.setattr(boundary_mps, "NUMBERS_AT_ONCE", numbers)
    states = torch.from_numpy(random_states(n, Lx * Ly)).float()
    at_once = prior.log_odds_of(states)
    assert at_once.shape == (n, Lx * Ly)
    assert prior.decided == n * Lx * Ly
    state = prior.start(n)
    for i in range(Lx * Ly):
        odds = prior.log_odds(state, i)
        assert odds.shape == (n,)
        assert odds.dtype == dtype
        assert odds.numpy() == pytest.approx(at_once[:, i].numpy(), abs=near)
        prior.advance(state, i, states[:, i])
    assert torch.equal(state.rows[:-1].T, states)
    assert prior.decided == 2 * n * Lx * Ly


def test_the_batch_does_not_matter():
    hamiltonian = glass(6, 6, TORUS)
    sampler = alone(hamiltonian, 0.6, made(hamiltonian, 0.6, 3))
    states = random_states(40, 36)
    expected = sampler.log_prob(states)
    for batch in (1, 7, 64):
        sampler.max_batch = batch
        assert sampler.log_prob(states) == pytest.approx(expected, abs=1e-9)


def test_a_spin_does_not_know_what_comes_later():
    hamiltonian = glass(4, 4, TORUS)
    prior, states = made(hamiltonian, 0.6, 2), random_states(12, 16)
    before = odds_of(prior, states)
    for n in range(16):
        other = states.copy()
        other[:, n:] *= -1
        assert odds_of(prior, other)[:, : n + 1] == pytest.approx(before[:, : n + 1], abs=1e-9)


@pytest.mark.parametrize("boundary", [TORUS, ALONG_X, ALONG_Y, OPEN])
def test_without_a_field_all_log_odds_turn_round_with_the_spins(boundary):
    # What makes the Z2 frame cost nothing: the compressed environments keep the symmetry.
    hamiltonian = glass(4, 5, boundary, h=0.0)
    prior, states = made(hamiltonian, 0.8, 3), random_states(12, 20)
    odds = odds_of(prior, states)
    assert np.abs(odds[:, 0]).max() < 1e-6
    assert odds_of(prior, -states) == pytest.approx(-odds, abs=1e-5)


# The law of a small bond

SMALL = [
    (glass, 3, 4, TORUS, "two-leg"),
    (glass, 3, 4, TORUS, "one-leg"),
    (glass, 4, 3, ALONG_X, "two-leg"),
    (glass, 3, 4, ALONG_Y, "two-leg"),
    (glass, 3, 4, OPEN, "two-leg"),
    (ferromagnet, 3, 3, TORUS, "two-leg"),
]


@cache
def small(build, Lx, Ly, boundary, form, chi, beta=0.7):
    """A sampler, ln q of all states, and the Boltzmann law; float64."""
    hamiltonian = build(Lx, Ly, boundary)
    sampler = alone(hamiltonian, beta, made(hamiltonian, beta, chi, form))
    states, p = law(hamiltonian, beta)
    return sampler, sampler.log_prob(states), p


@pytest.mark.parametrize("chi", [1, 2])
@pytest.mark.parametrize("case", SMALL)
def test_law_sums_to_one_and_its_weights_to_z(case, chi):
    sampler, log_q, _ = small(*case, chi)
    hamiltonian, beta = sampler.hamiltonian, sampler.beta
    assert np.isfinite(log_q).all()  # no state is out of reach
    assert np.exp(log_q).sum() == pytest.approx(1.0, abs=1e-9)
    log_weight = -beta * hamiltonian.energy(all_states(hamiltonian.n_spins)) - log_q
    log_z = exact(hamiltonian, beta).log_z
    assert np.exp(log_q) @ np.exp(log_weight - log_z) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("case", [case for case in SMALL if case[-1] == "two-leg"])
def test_a_larger_bond_is_nearer_to_boltzmann(case):
    divergence = [float(p @ (np.log(p) - log_q)) for _, log_q, p in (small(*case, chi) for chi in (1, 2, 4))]
    assert divergence[0] > 1e-3
    assert divergence[1] < 0.5 * divergence[0]
    assert abs(divergence[2]) < 1e-8


@pytest.mark.statistical
@pytest.mark.parametrize("chi", [1, 2])
@pytest.mark.parametrize("case", SMALL)
def test_sampled_states_have_the_scored_law(case, chi):
    # 3 seeds, combined; false alarm 1e-4 a case.
    sampler, log_q, _ = small(*case, chi)
    p_values = []
    for seed in range(3):
        spins, recorded = sampler.sample(4000, torch.Generator().manual_seed(seed))
        numbers = state_numbers(spins)
        assert np.abs(recorded - log_q[numbers]).max() < 1e-9
        p_values.append(chi_square_p(np.bincount(numbers, minlength=len(log_q)), np.exp(log_q), len(spins)))
    assert combined_p_value(p_values) > FALSE_ALARM, np.round(p_values, 5)


@pytest.mark.statistical
@pytest.mark.parametrize("chi", [1, 2])
@pytest.mark.parametrize("case", SMALL)
def test_weighted_energies_and_ln_z_are_exact(case, chi):
    # Within 4 errors each; false alarm 6e-5 a number.
    sampler, _, p = small(*case, chi)
    hamiltonian = sampler.hamiltonian
    spins, log_q = sampler.sample(4000, torch.Generator().manual_seed(11))
    energy = hamiltonian.energy(spins)
    log_weight = -sampler.beta * energy - log_q
    found = weighted_estimate(energy, log_weight)
    assert found.status == "ok"
    assert abs(found.mean - p @ hamiltonian.energy(all_states(hamiltonian.n_spins))) < 4 * found.error
    log_z, error = log_mean_weight(log_weight)
    assert abs(log_z - exact(hamiltonian, sampler.beta).log_z) < 4 * error


@pytest.mark.statistical
def test_divergence_from_a_6x6_glass_falls_as_the_bond_grows():
    # w - 1 - ln w over 1000 draws of q, whose mean is KL(q | p) and none of which is negative. Each bond is nearer by
    # more than 8 errors (measured: 1.1, 0.19, 2.5e-3, 2.7e-6); false alarm below 1e-14.
    hamiltonian, beta = mc.models.ea2d(L=6, seed=1), 0.8
    log_z = exact(hamiltonian, beta).log_z
    mean, error = [], []
    for chi in (1, 2, 4, 8):
        sampler = alone(hamiltonian, beta, made(hamiltonian, beta, chi))
        spins, log_q = sampler.sample(1000, torch.Generator().manual_seed(chi))
        log_weight = -beta * hamiltonian.energy(spins) - log_q - log_z
        gap = np.expm1(log_weight) - log_weight
        mean.append(gap.mean())
        error.append(gap.std() / np.sqrt(len(gap)))
    for worse, better in ((0, 1), (1, 2), (2, 3)):
        assert mean[worse] - mean[better] > 8 * np.hypot(error[worse], error[better]), mean
    assert mean[3] < 1e-5


# Where truncation goes wrong


def corrupted(hamiltonian, beta, chi, form, share, seed):
    """An environment some of whose matrices have the wrong sign, row 0 among them."""
    environment = build_environment(square_couplings(hamiltonian), beta, chi, form)
    rng = np.random.default_rng(seed)

    def flipped(A):
        return A * np.where(rng.random(A.shape[:4]) < share, -1.0, 1.0)[..., None, None]

    return Environment(flipped(environment.first), flipped(environment.rest))


def contracted(A, width, ring):
    """What A (n, 2, t, a, b) says of all states of the row and of row 0, as nested loops: (2^W, t^W)."""
    table = np.empty((2**width, A.shape[2] ** width))
    row, first = (all_states(width) > 0).astype(int), (all_states(width) > 0).astype(int)
    for n, s in enumerate(row):
        for m in range(table.shape[1]):
            product = np.eye(A.shape[3])
            for j in range(width):
                product = product @ A[j % len(A), s[j], first[m, j] if A.shape[2] == 2 else 0]
            table[n, m] = np.trace(product) if ring else product[0, 0]
    return table


def expected_log_odds(hamiltonian, beta, environment, states):
    """Log-odds (n, N) from weights summed over all ends of the row, the local field where one is not positive.

    Also (n, N) whether it was.
    """
    couplings = square_couplings(hamiltonian)
    height, width = couplings.shape
    ring, torus, two = couplings.periodic[1], couplings.periodic[0], environment.rest.shape[3] == 2
    tensors = [environment.first[0], *environment.rest]
    tables = [contracted(A, width, ring) for A in tensors]
    ends, result, replaced = all_states(width).astype(float), np.empty(states.shape), np.zeros(states.shape, bool)
    for b, state in enumerate(states):
        rows = state.reshape(height, width)
        for k in range(height):
            field = couplings.field[k].copy()
            if k:
                field += couplings.down[k - 1] * rows[k - 1]
            if torus and not two and k == height - 1:
                field += couplings.down[k] * rows[0]
            along = (ends * np.roll(ends, -1, axis=1)) @ couplings.right[k]
            column = int(state_numbers(rows[0])) if two and k else 0
            weight = np.exp(beta * (ends @ field + along)) * tables[k][:, column]
            for j in range(width):
                alike = (ends[:, :j] == rows[k, :j]).all(axis=1)
                plus, minus = (weight[alike & (ends[:, j] == s)].sum() for s in (1, -1))
                local = field[j] + (couplings.right[k, j - 1] * rows[k, j - 1] if j else 0.0)
                if ring and j == width - 1:
                    local += couplings.right[k, j] * rows[k, 0]
                sound = plus > 0 and minus > 0
                result[b, k * width + j] = np.log(plus / minus) if sound else 2.0 * beta * local
                replaced[b, k * width + j] = not sound
    return result, replaced


BROKEN = [
    (3, 4, TORUS, "two-leg"),
    (3, 4, TORUS, "one-leg"),
    (3, 4, ALONG_X, "two-leg"),
    (4, 3, ALONG_Y, "two-leg"),
    (4, 3, OPEN, "two-leg"),
]


@pytest.mark.parametrize("h", [0.0, "gauss:0.5"])
@pytest.mark.parametrize(("Lx", "Ly", "boundary", "form"), BROKEN)
def test_where_weights_are_negative_the_local_field_decides(Lx, Ly, boundary, form, h):
    hamiltonian, beta = glass(Lx, Ly, boundary, h), 0.6
    environment = corrupted(hamiltonian, beta, 4, form, share=0.25, seed=3)
    tokens = tokens_for(hamiltonian, rows=True)
    prior = BoundaryMPS(hamiltonian, tokens, beta, environment, torch.float64)
    states = random_states(25, 12)
    expected, replaced = expected_log_odds(hamiltonian, beta, environment, states)
    assert 0.1 < replaced.mean() < 0.95  # otherwise the test would test one of the two alone
    assert odds_of(prior, states) == pytest.approx(expected, abs=1e-8)
    assert prior.replaced == replaced.sum()
    assert prior.decided == replaced.size
    # Still one normalised law, and the one that is drawn.
    sampler = alone(hamiltonian, beta, prior)
    log_q = sampler.log_prob(all_states(12))
    assert np.isfinite(log_q).all()
    assert np.exp(log_q).sum() == pytest.approx(1.0, abs=1e-9)
    prior.replaced = prior.decided = 0
    spins, recorded = sampler.sample(200, torch.Generator().manual_seed(1))
    assert recorded == pytest.approx(log_q[state_numbers(spins)], abs=1e-8)
    assert prior.decided == 200 * 12
    assert 0 < prior.replaced < prior.decided


@pytest.mark.parametrize("wrong", [0.0, np.nan, np.inf])
def test_an_environment_of_nonsense_leaves_the_local_field(wrong):
    hamiltonian, beta = glass(3, 4, TORUS), 0.6
    tokens = tokens_for(hamiltonian, rows=True)
    environment = Environment(np.full((1, 3, 2, 1, 4, 4), wrong), np.full((3, 3, 2, 1, 4, 4), wrong))
    prior = BoundaryMPS(hamiltonian, tokens, beta, environment)
    log_q = log_law(prior, all_states(12))
    assert prior.replaced == prior.decided
    assert np.exp(log_q).sum() == pytest.approx(1.0, abs=1e-5)
    # The last spin has no other: its local field is all there is to know.
    assert np.abs(odds_of(prior, all_states(12)) - exact_log_odds(hamiltonian, beta))[:, -1].max() < 1e-5


# Low temperatures


def test_low_temperature_ln_z_of_a_6x6_glass():
    # beta = 3, chi = 16 (measured: |ln <w> - ln Z| = 9e-9, sd of ln w 2e-7, no weight at or below zero).
    hamiltonian, beta = mc.models.ea2d(L=6, seed=1), 3.0
    prior = make_prior("boundary-mps", hamiltonian, tokens_for(hamiltonian, rows=True), beta, chi=16)
    assert prior.rest.dtype == torch.float64
    sampler = alone(hamiltonian, beta, prior)
    spins, log_q = sampler.sample(150, torch.Generator().manual_seed(2))
    assert np.isfinite(log_q).all()
    assert sampler.log_prob(spins) == pytest.approx(log_q, abs=1e-6)
    log_weight = -beta * hamiltonian.energy(spins) - log_q
    assert abs(log_mean_weight(log_weight)[0] - exact(hamiltonian, beta).log_z) < 1e-6
    assert prior.replaced == 0
    assert np.isfinite(sampler.log_prob(random_states(50, 36))).all()


@pytest.mark.parametrize("beta", [0.0, 8.0, 40.0, 100.0, 200.0])
@pytest.mark.parametrize("J", ["bimodal", "gaussian"])
@pytest.mark.parametrize(
    ("boundary", "form"), [(TORUS, "two-leg"), (TORUS, "one-leg"), (ALONG_X, "two-leg"), (OPEN, "two-leg")]
)
def test_log_q_stays_finite_from_infinite_to_the_lowest_temperature(boundary, form, J, beta):
    hamiltonian = mc.models.ea2d(L=6, J=J, boundary=boundary, seed=1)
    tokens = tokens_for(hamiltonian, rows=True)
    prior = make_prior("boundary-mps", hamiltonian, tokens, beta, chi=4, form=form)
    sampler = alone(hamiltonian, beta, prior)
    spins, log_q = sampler.sample(30, torch.Generator().manual_seed(3))
    assert np.isfinite(log_q).all()
    assert sampler.log_prob(spins) == pytest.approx(log_q, abs=1e-3 * max(beta, 1.0))
    assert np.isfinite(sampler.log_prob(random_states(100, 36))).all()  # states that are never drawn, too
    if beta == 0.0:
        assert log_q == pytest.approx(np.full(30, -36 * np.log(2.0)), abs=1e-4)


# Refusals


def next_nearest():
    lattice = mc.models.ising(L=4).lattice
    return mc.Hamiltonian(16, [(np.array([[0, 1], [0, 5]]), np.ones(2))], lattice=lattice)


@pytest.mark.parametrize(
    ("build", "patch", "complaint"),
    [
        (lambda: mc.models.ising(L=4, dim=3), (1, 1, 4), "two-dimensional lattice is needed; use prior=belief, or"),
        (lambda: mc.models.sk(N=8, seed=1), (4,), "two-dimensional lattice is needed; use prior=belief"),
        (lambda: mc.models.pspin(N=9, p=3, seed=1), (3,), "two-dimensional lattice is needed"),
        (next_nearest, (1, 4), "nearest-neighbour bonds only are needed; use prior=belief, or prior=local"),
        (lambda: mc.models.ising(L=8), (2, 4), "patch=2x4 is taller; use patch=1x4, or prior=lookahead"),
        (lambda: mc.models.ising(L=8), (8, 1), "patch=8x1 is taller"),
    ],
)
def test_what_the_prior_cannot_do_is_refused_with_the_remedy(build, patch, complaint):
    hamiltonian = build()
    tokens = tokens_for(hamiltonian, patch)
    assert prior_refusal("boundary-mps", hamiltonian, tokens).startswith("prior=boundary-mps")
    with pytest.raises(ValueError, match=complaint):
        make_prior("boundary-mps", hamiltonian, tokens, 0.5)
    environment = build_environment(square_couplings(mc.models.ising(L=4)), 0.5, 1)
    with pytest.raises(ValueError, match=complaint):
        BoundaryMPS(hamiltonian, tokens, 0.5, environment)
    with pytest.raises(ValueError, match=complaint):
        resolved(hamiltonian, NetSettings(prior="boundary-mps", patch=patch))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"chi": 0}, "prior.chi=0: an integer of at least 1"),
        ({"chi": -3}, "prior.chi=-3: an integer of at least 1"),
        ({"form": "three-leg"}, "prior.form=three-leg: two-leg or one-leg"),
        ({"head": "softmax"}, "net.head=softmax needs a prior of whole patches; use net.head=tree"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        resolved(mc.models.ising(L=4), NetSettings(prior="boundary-mps", **changes))


@pytest.mark.parametrize("patch", [(1, 1), (1, 2), (1, 6)])
def test_any_part_of_a_row_is_a_token(patch):
    hamiltonian, states = glass(6, 4, TORUS), random_states(10, 24)
    net = NetSettings(patch=patch, prior="boundary-mps", chi=2, net="none")
    sampler = build_sampler(hamiltonian, 0.5, net)
    assert sampler.network is None
    whole = build_sampler(hamiltonian, 0.5, NetSettings(patch=(1, 3), prior="boundary-mps", chi=2, net="none"))
    assert sampler.log_prob(states) == pytest.approx(whole.log_prob(states), abs=1e-5)
    spins, log_q = sampler.sample(20, torch.Generator().manual_seed(1))
    assert (spins == whole.sample(20, torch.Generator().manual_seed(1))[0]).all()
    assert sampler.log_prob(spins) == pytest.approx(log_q, abs=1e-4)
