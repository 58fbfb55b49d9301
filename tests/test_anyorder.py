"""Any-order samplers: normalised laws, draws that follow them, conditionals of any subset, and their symmetries."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from mc.geometry import geometry
from nmcmc.anyorder.known_fields import KnownFields
from nmcmc.anyorder.sampler import consistency
from nmcmc.recipe import NetSettings, build_sampler
from tests.anyorder_systems import BETA, NETS, SYSTEMS, crystal, random_partial, random_sampler
from tests.enumerated import (
    FALSE_ALARM,
    all_states,
    chi_square_p,
    combined_p_value,
    law,
    state_numbers,
)

ROUNDING = 1e-5  # of float32 log-odds, summed over at most ten spins


def every_case():
    """(system, net, prior, order): all systems, nets and priors, the orders in turn."""
    cases = itertools.product(SYSTEMS, NETS, ("none", "local"))
    return [(*case, ("rows", "random")[index % 2]) for index, case in enumerate(cases)]


def sampler_of(system, net, prior, order="rows", **changes):
    settings = replace(NETS[net], prior=prior, order=order, order_seed=3, **changes)
    return random_sampler(SYSTEMS[system](), settings)


SOME_CASES = [
    ("torus 3x3", "attention", "local", "rows"),
    ("torus 3x3 in a field", "no attention", "none", "random"),
    ("open glass 2x4", "window of 1", "local", "random"),
    ("SK", "mlp", "local", "random"),
    ("orders 1 to 4", "attention", "none", "random"),
    ("even orders", "attention", "local", "random"),
]
FEW_CASES = [SOME_CASES[0], SOME_CASES[2], SOME_CASES[3], SOME_CASES[4]]


@pytest.mark.parametrize(("system", "net", "prior", "order"), every_case())
def test_probabilities_of_all_states_sum_to_one(system, net, prior, order):
    sampler = sampler_of(system, net, prior, order)
    log_q = sampler.log_prob(all_states(sampler.tokens.n_spins))
    assert log_q.dtype == np.float64
    assert np.exp(log_q).sum() == pytest.approx(1.0, abs=ROUNDING)
    assert log_q.std() > 0.1, "the random network must not be a trivial one"


@pytest.mark.parametrize(("system", "net", "prior", "order"), SOME_CASES)
def test_recorded_log_q_is_that_of_the_state(system, net, prior, order):
    sampler = sampler_of(system, net, prior, order)
    spins, log_q = sampler.sample(300, torch.Generator().manual_seed(1))
    assert spins.dtype == np.int8
    assert log_q.dtype == np.float64
    assert np.abs(log_q - sampler.log_prob(spins)).max() < ROUNDING
    tokens, of_tokens = sampler.draw_tokens(50, torch.Generator().manual_seed(1))
    in_order = sampler.token_log_probs(tokens).detach().numpy()[:, sampler.order]
    assert np.abs(of_tokens.numpy() - in_order).max() < ROUNDING


@pytest.mark.statistical
def test_draws_follow_the_enumerated_law_of_the_sampler():
    # 6 samplers, 3 seeds, 20,000 draws each; 18 p-values combined, false alarm 1e-4.
    p_values = []
    for case in SOME_CASES:
        sampler = sampler_of(*case)
        n_spins = sampler.tokens.n_spins
        q = np.exp(sampler.log_prob(all_states(n_spins)))
        for seed in range(3):
            spins, _ = sampler.sample(20_000, torch.Generator().manual_seed(seed))
            counts = np.bincount(state_numbers(spins), minlength=2**n_spins)
            p_values.append(chi_square_p(counts, q / q.sum(), len(spins)))
    assert combined_p_value(p_values) > FALSE_ALARM, np.round(p_values, 5)


@pytest.mark.statistical
@pytest.mark.parametrize("system", SYSTEMS)
def test_an_untrained_network_is_its_prior_and_weights_average_to_one(system):
    # 7 systems, 4000 draws; |z| > 4.5 comes once in 1.5e5 for a Gaussian. F_q is at least F, by enumeration.
    hamiltonian = SYSTEMS[system]()
    sampler = build_sampler(hamiltonian, BETA, replace(NETS["attention"], prior="local"))
    assert sampler.network.silent
    states, _ = law(hamiltonian, BETA)
    log_q, log_p = sampler.log_prob(states), -BETA * hamiltonian.energy(states)
    assert np.abs(log_q - sampler.prior_alone().log_prob(states)).max() < ROUNDING
    log_z = np.logaddexp.reduce(log_p)
    assert (np.exp(log_q) * (log_q - log_p)).sum() > -log_z
    spins, recorded = sampler.sample(4000, torch.Generator().manual_seed(5))
    weights = np.exp(-BETA * hamiltonian.energy(spins) - recorded - log_z)
    assert abs(weights.mean() - 1) < 4.5 * weights.std() / np.sqrt(len(weights))


# --- any subset ---------------------------------------------------------------------------------------------------


def completions(partial):
    """All whole states that agree with one partial state (N,)."""
    unknown = np.flatnonzero(partial == 0)
    found = np.repeat(partial[None], 2 ** len(unknown), axis=0)
    found[:, unknown] = all_states(len(unknown))
    return found


def log_q_of_completions(sampler, partial):
    """All completions of one partial state and their ln q given it: conditionals one at a time, by `odds_given`."""
    whole = completions(partial)
    seen, log_q = np.repeat(partial[None], len(whole), axis=0).astype(np.float32), np.zeros(len(whole))
    for site in sampler.order[partial[sampler.order] == 0]:
        with torch.no_grad():
            odds = sampler.odds_given(torch.from_numpy(seen)).double().numpy()[:, site]
        log_q -= np.logaddexp(0.0, -odds * whole[:, site])
        seen[:, site] = whole[:, site]
    return whole, log_q


@pytest.mark.parametrize(("system", "net", "prior", "order"), SOME_CASES)
def test_fill_keeps_what_is_known_and_reports_the_product_of_conditionals(system, net, prior, order):
    sampler = sampler_of(system, net, prior, order)
    partial, _ = random_partial(60, sampler.tokens.n_spins, seed=2)
    partial[7] = partial[3]
    whole, log_q = sampler.fill(partial, torch.Generator().manual_seed(0))
    assert (np.abs(whole) == 1).all()
    assert (whole == partial)[partial != 0].all()
    for given, found, recorded in zip(partial, whole, log_q, strict=True):
        states, expected = log_q_of_completions(sampler, given)
        assert np.exp(expected).sum() == pytest.approx(1.0, abs=ROUNDING)
        assert recorded == pytest.approx(expected[(states == found).all(axis=1)][0], abs=ROUNDING)


@pytest.mark.statistical
def test_fill_follows_the_law_of_the_completions():
    # Two patterns mixed in one call, 10,000 draws of each, 4 samplers; 8 p-values combined, false alarm 1e-4.
    p_values = []
    for case in FEW_CASES:
        sampler = sampler_of(*case)
        partial, _ = random_partial(2, sampler.tokens.n_spins, seed=11, known=0.4)
        drawn, _ = sampler.fill(np.tile(partial, (10_000, 1)), torch.Generator().manual_seed(6))
        for index, given in enumerate(partial):
            _, log_q = log_q_of_completions(sampler, given)
            found = drawn[index::2][:, given == 0]
            counts = np.bincount(state_numbers(found), minlength=len(log_q))
            p_values.append(chi_square_p(counts, np.exp(log_q) / np.exp(log_q).sum(), len(found)))
    assert combined_p_value(p_values) > FALSE_ALARM, np.round(p_values, 5)


def test_fill_of_whole_states_and_of_none():
    sampler = sampler_of("SK", "attention", "local")
    _, spins = random_partial(5, 7, seed=1)
    whole, log_q = sampler.fill(spins, torch.Generator())
    assert (whole == spins).all()
    assert (log_q == 0).all()
    whole, log_q = sampler.fill(np.zeros((0, 7)), torch.Generator())
    assert whole.shape == (0, 7)
    assert len(log_q) == 0


@pytest.mark.parametrize("call", ["fill", "log_marginal", "log_known"])
@pytest.mark.parametrize(
    ("partial", "said"), [(np.full((2, 7), 2), r"\+1, -1 and 0"), (np.full((2, 7), 0.5), r"\+1, -1 and 0"),
                          (np.full((2, 7), np.nan), r"\+1, -1 and 0"), (np.zeros((2, 6)), r"\(n, 7\) is needed")],
)  # fmt: skip
def test_bad_partial_states_are_refused(call, partial, said):
    sampler = sampler_of("SK", "attention", "local")
    words = (torch.Generator(),) if call == "fill" else ()
    with pytest.raises(ValueError, match=said):
        getattr(sampler, call)(partial, *words)


@pytest.mark.parametrize(("system", "net", "prior", "order"), SOME_CASES)
def test_all_ways_to_ask_for_a_conditional_agree(system, net, prior, order):
    sampler = sampler_of(system, net, prior, order)
    n_spins, random = sampler.tokens.n_spins, np.random.default_rng(4)
    _, spins = random_partial(8, n_spins, seed=4)
    rank = random.permuted(np.tile(np.arange(n_spins), (8, 1)), axis=1)
    with torch.no_grad():
        along = sampler.odds_along(torch.from_numpy(spins).float(), rank).numpy()
        own = sampler.odds_along(torch.from_numpy(spins).float()).numpy()
        for site in range(n_spins):
            for ranks, found in ((rank, along), (np.tile(sampler.rank, (8, 1)), own)):
                seen = np.where(ranks < ranks[:, [site]], spins, 0)
                given = sampler.odds_given(torch.from_numpy(seen).float()).numpy()[:, site]
                at = sampler.odds_at(torch.from_numpy(seen).float(), np.full(8, site)).numpy()
                assert np.abs(found[:, site] - given).max() < ROUNDING
                assert np.abs(at - given).max() < ROUNDING
        partial, _ = random_partial(8, n_spins, seed=5)
        sites = random.integers(n_spins, size=8)
        at = sampler.odds_at(torch.from_numpy(partial).float(), sites).numpy()
        given = sampler.odds_given(torch.from_numpy(partial).float()).numpy()
    assert np.abs(at - given[np.arange(8), sites]).max() < ROUNDING


@pytest.mark.parametrize(("system", "net", "prior", "order"), SOME_CASES)
def test_known_spins_have_the_probability_of_their_part_of_the_order(system, net, prior, order):
    sampler = sampler_of(system, net, prior, order)
    n_spins = sampler.tokens.n_spins
    states = all_states(n_spins)
    log_q = sampler.log_prob(states)
    assert np.abs(sampler.log_known(states) - log_q).max() < ROUNDING
    first = np.where(sampler.rank < n_spins - 2, states, 0)  # the two that are drawn last are summed over
    exact = np.log([np.exp(log_q[(states * (row != 0) == row).all(axis=1)]).sum() for row in first[::37]])
    assert np.abs(sampler.log_known(first[::37]) - exact).max() < ROUNDING
    partial, _ = random_partial(4, n_spins, seed=9)
    for row in partial:  # known ones that are not the first of the order: one conditional at a time
        seen, expected = np.zeros((1, n_spins), np.float32), 0.0
        for site in sampler.order[row[sampler.order] != 0]:
            with torch.no_grad():
                odds = float(sampler.odds_given(torch.from_numpy(seen))[0, site])
            expected -= np.logaddexp(0.0, -odds * row[site])
            seen[0, site] = row[site]
        assert sampler.log_known(row)[0] == pytest.approx(expected, abs=ROUNDING)


def test_the_marginal_head_is_relative_to_nothing_known_and_starts_at_one_half_a_spin():
    fresh = build_sampler(SYSTEMS["torus 3x3"](), BETA, replace(NETS["attention"], prior="none"))
    partial, spins = random_partial(20, 9, seed=3)
    assert np.abs(fresh.log_marginal(partial) + np.log(2) * np.abs(partial).sum(axis=1)).max() < ROUNDING
    assert consistency(fresh, spins, torch.Generator().manual_seed(0)) < ROUNDING  # both uniform
    sampler = sampler_of("torus 3x3", "attention", "local")
    assert sampler.log_marginal(np.zeros(9))[0] == 0
    assert sampler.log_marginal(partial) == pytest.approx(sampler.log_marginal(-partial), abs=ROUNDING)
    assert consistency(sampler, spins, torch.Generator().manual_seed(0)) > 0.1
    with pytest.raises(ValueError, match="no marginal head"):
        sampler.prior_alone().log_marginal(partial)


# --- symmetries ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("net", ["attention", "no attention", "window of 1"])
@pytest.mark.parametrize("system", ["torus 3x3", "SK", "even orders"])
def test_a_global_flip_leaves_log_q_alone_exactly(system, net):
    sampler = sampler_of(system, net, "local", "random")
    states = all_states(sampler.tokens.n_spins)
    assert (sampler.log_prob(states) == sampler.log_prob(-states)).all()


@pytest.mark.parametrize("net", ["attention", "no attention"])
@pytest.mark.parametrize("make", [SYSTEMS["torus 3x3"], SYSTEMS["torus 3x3 in a field"], crystal])
def test_conditionals_move_with_the_known_spins_where_all_sites_are_alike(make, net):
    hamiltonian = make()
    sampler = random_sampler(hamiltonian, replace(NETS[net], prior="local"))
    places = geometry(hamiltonian)
    partial, _ = random_partial(6, places.n_sites, seed=8)
    with torch.no_grad():
        odds = sampler.odds_given(torch.from_numpy(partial).float()).numpy()
        for moved in places.shifted(places.coordinates).T:  # every translation: site -> moved[site]
            shifted = np.empty_like(partial)
            shifted[:, moved] = partial
            found = sampler.odds_given(torch.from_numpy(shifted).float()).numpy()
            assert np.abs(found[:, moved] - odds).max() < ROUNDING


@pytest.mark.parametrize("prior", ["none", "local"])
def test_a_spin_that_nothing_is_known_beside_is_free_without_a_field(prior):
    sampler = sampler_of("torus 3x3", "attention", prior)
    with torch.no_grad():
        assert (sampler.odds_given(torch.zeros(1, 9)) == 0).all()


# --- fields of known spins ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SYSTEMS)
def test_known_fields_are_energy_differences_of_the_terms_that_are_known(name):
    hamiltonian = SYSTEMS[name]()
    fields, n_spins = KnownFields(hamiltonian), hamiltonian.n_spins
    partial, spins = random_partial(12, n_spins, seed=6, known=0.7)
    whole = fields.given(spins)
    for site in range(n_spins):
        assert 2 * whole[:, site] * spins[:, site] == pytest.approx(hamiltonian.energy_change(spins, site), abs=1e-12)
        assert (fields.at(partial, site) == fields.given(partial)[:, site]).all()
    expected = np.zeros(partial.shape)
    for sites, couplings in hamiltonian.interactions.values():
        for cluster, coupling in zip(sites, couplings, strict=True):
            for site in cluster:
                others = [other for other in cluster if other != site]
                expected[:, site] += coupling * partial[:, others].prod(axis=1)
    assert fields.given(partial) == pytest.approx(expected, abs=1e-12)
    rank = np.random.default_rng(2).permuted(np.tile(np.arange(n_spins), (12, 1)), axis=1)
    along = fields.along(spins, rank)
    for site in range(n_spins):
        seen = np.where(rank < rank[:, [site]], spins, 0).astype(np.int8)
        assert along[:, site] == pytest.approx(fields.given(seen)[:, site], abs=1e-12)


def test_the_prior_of_the_last_spin_is_its_heat_bath_law():
    hamiltonian = SYSTEMS["orders 1 to 4"]()
    sampler = build_sampler(hamiltonian, BETA, NetSettings(net="anyorder", prior="local", width=8, layers=1, heads=2))
    states, p = law(hamiltonian, BETA)
    flipped = states.copy()
    last = sampler.order[-1]
    flipped[:, last] *= -1
    conditional = p / (p + p[state_numbers(flipped)])
    with torch.no_grad():
        log_q = sampler.token_log_probs(torch.from_numpy(states).float()).numpy()[:, last]
    assert np.exp(log_q) == pytest.approx(conditional, rel=1e-5)
