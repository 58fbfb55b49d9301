"""The pilot: the smallest bond that does, no further than a run can pay, and the network that can help."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import mc
from mc.exact import exact
from nmcmc import pilot as pilots
from nmcmc.pilot import LADDER, Pilot, choose_network, choose_prior, nominal_seconds, run_pilot
from nmcmc.recipe import NetSettings, build_sampler, resolved

ALONE = NetSettings(prior="boundary-mps", net="none")
INF = math.inf


def glass(L=6, seed=1):
    return mc.models.ea2d(L=L, seed=seed)


def told(chi, ess, spread=0.1, prior="boundary-mps", hamiltonian=None, replaced=0.0):
    """What a pilot may say."""
    net = NetSettings(prior=prior, chi=chi)
    return Pilot(net if hamiltonian is None else resolved(hamiltonian, net), 100, ess, spread, 0.0, replaced, 0.001)


def scripted(monkeypatch, ess, spread=lambda chi: 0.0):
    """Pilots whose ESS and spread are given functions of the bond; returns the bonds tried."""
    tried = []

    def say(sampler, net, seed):
        assert sampler is net  # what build made of these very settings
        tried.append(net.chi)
        return Pilot(net, 100, ess(net.chi), spread(net.chi), 0.0, 0.0, 0.001)

    monkeypatch.setattr(pilots, "run_pilot", say)
    return tried


def choose(hamiltonian, target=0.9, states=1000, seconds=INF, net=ALONE, report=lambda line: None, **options):
    return choose_prior(hamiltonian, net, target, states, seconds, 0, lambda net: net, report, **options)


# The climb


@pytest.mark.parametrize("enough", LADDER)
def test_the_smallest_bond_that_reaches_the_target_is_taken(enough, monkeypatch):
    tried = scripted(monkeypatch, lambda chi: 0.95 if chi >= enough else 0.3 + 0.01 * chi)
    lines = []
    found = choose(glass(), report=lines.append)
    assert found.net.chi == enough
    assert found.ess == 0.95
    assert tried == [chi for chi in LADDER if chi <= enough]
    assert len(lines) == len(tried)
    assert f"chi={enough}" in lines[-1]


def test_the_target_itself_is_enough(monkeypatch):
    tried = scripted(monkeypatch, lambda chi: 0.5)
    assert choose(glass(), target=0.5).net.chi == LADDER[0]
    assert tried == [LADDER[0]]


def test_a_target_out_of_reach_takes_the_best(monkeypatch):
    tried = scripted(monkeypatch, lambda chi: {20: 0.8}.get(chi, 0.6))
    assert choose(glass()).net.chi == 20
    assert tried == list(LADDER)


def test_the_spread_of_log_weights_decides_where_the_ess_is_noise(monkeypatch):
    # The ESS of a few effective draws may well fall from one bond to the next.
    scripted(monkeypatch, lambda chi: 0.02 / chi, spread=lambda chi: 40.0 / chi)
    assert choose(glass()).net.chi == LADDER[-1]


@pytest.mark.parametrize("bonds", [(7,), (3, 5), (2, 6, 40)])
def test_only_the_bonds_that_are_given_are_tried(bonds, monkeypatch):
    tried = scripted(monkeypatch, lambda chi: 0.1 + 0.001 * chi)
    assert choose(glass(), bonds=bonds).net.chi == bonds[-1]
    assert tried == list(bonds)


def test_form_and_patch_stay_as_they_were_asked(monkeypatch):
    scripted(monkeypatch, lambda chi: 0.95)
    net = replace(ALONE, form="one-leg", patch=(1, 3))
    assert choose(glass(), net=net).net == replace(net, chi=LADDER[0], head="spin")


def test_large_lattices_begin_with_a_larger_bond(monkeypatch):
    tried = scripted(monkeypatch, lambda chi: 0.95)
    choose(mc.models.ising(L=100))
    choose(mc.models.ising(Lx=101, Ly=100))
    choose(mc.models.ising(Lx=101, Ly=100), bonds=(2,))  # asked for
    assert tried == [LADDER[0], pilots.FIRST_OF_LARGE, 2]


# What a run can pay


def too_many(hamiltonian, chi, seconds=pilots.LONGEST_SAMPLING):
    """States that take just too long with this bond."""
    return math.ceil(1.001 * seconds / nominal_seconds(hamiltonian, replace(ALONE, chi=chi)))


@pytest.mark.parametrize("chi", LADDER[1:])
def test_a_run_too_long_for_a_larger_bond_keeps_a_smaller_one_that_is_good_enough(chi, monkeypatch):
    hamiltonian = glass(32)
    tried = scripted(monkeypatch, lambda chi: 0.6 + 0.001 * chi)
    found = choose(hamiltonian, states=too_many(hamiltonian, chi))
    assert tried == [bond for bond in LADDER if bond < chi]
    assert found.net.chi == tried[-1]


def test_a_useless_bond_is_not_kept_for_its_price(monkeypatch):
    # Below an ESS of one half a larger bond pays for itself, as long as there is no time limit.
    hamiltonian = glass(32)
    tried = scripted(monkeypatch, lambda chi: 0.49 if chi < 16 else 0.7)
    assert choose(hamiltonian, states=10**9).net.chi == 16
    assert tried == [4, 8, 12, 16]


@pytest.mark.parametrize("ess", [0.05, 0.6])
def test_a_time_limit_ends_the_climb_whatever_the_ess(ess, monkeypatch):
    hamiltonian, seconds = glass(32), 20.0
    tried = scripted(monkeypatch, lambda chi: ess)
    found = choose(hamiltonian, states=too_many(hamiltonian, 12, seconds), seconds=seconds)
    assert tried == [4, 8]
    assert found.net.chi == 8


def test_the_first_bond_is_tried_at_any_price(monkeypatch):
    tried = scripted(monkeypatch, lambda chi: 0.05)
    assert choose(glass(32), states=10**12, seconds=1.0).net.chi == LADDER[0]
    assert tried == [LADDER[0]]


def test_the_nominal_price_of_a_state_grows_as_the_sweeps_do():
    torus, cylinder = glass(16), mc.models.ea2d(L=16, boundary="open,periodic", seed=1)
    upright = mc.models.ea2d(L=16, boundary="periodic,open", seed=1)

    def price(hamiltonian, chi, form="two-leg"):
        return nominal_seconds(hamiltonian, replace(ALONE, chi=chi, form=form))

    for hamiltonian in (torus, cylinder, upright):
        assert price(hamiltonian, 4) < price(hamiltonian, 16) < price(hamiltonian, 32)
        larger = mc.models.ea2d(L=32, boundary=hamiltonian.parameters["boundary"], seed=1)
        assert price(larger, 8) == pytest.approx(4 * price(hamiltonian, 8))
    assert price(torus, 400) / price(torus, 200) == pytest.approx(8, rel=0.01)  # matrices
    assert price(cylinder, 4000) / price(cylinder, 2000) == pytest.approx(4, rel=0.01)  # vectors
    assert price(torus, 16, "one-leg") < price(torus, 16)  # one leg is for tori and upright cylinders to choose
    assert price(upright, 16, "one-leg") == price(upright, 16)


# Real draws


def built(hamiltonian, beta):
    return lambda net: build_sampler(hamiltonian, beta, replace(net, net="none"))


def test_a_pilot_says_what_its_draws_say():
    hamiltonian, beta = glass(), 0.8
    net = resolved(hamiltonian, replace(ALONE, chi=4))
    found = run_pilot(built(hamiltonian, beta)(net), net, seed=3)
    spins, log_q = built(hamiltonian, beta)(net).sample(1024, torch.Generator().manual_seed(3))
    log_weight = -beta * hamiltonian.energy(spins) - log_q
    weight = np.exp(log_weight - log_weight.max())
    assert found.draws == 1024
    assert found.ess == pytest.approx(weight.mean() ** 2 / (weight**2).mean(), rel=1e-9)
    assert found.spread == pytest.approx(log_weight.std(), rel=1e-9)
    assert found.log_z == pytest.approx(exact(hamiltonian, beta).log_z, abs=0.05)
    assert found.replaced == 0.0
    assert found.expected_ess == pytest.approx(min(found.ess, math.exp(-(found.spread**2))))


def test_a_pilot_leaves_the_network_out():
    # Its random weights would spoil the draws of the prior.
    hamiltonian, beta = glass(), 0.8
    net = resolved(hamiltonian, replace(ALONE, chi=4, net="transformer", zero_head=False, width=16))
    with_network = run_pilot(build_sampler(hamiltonian, beta, net), net, seed=3)
    assert with_network.ess == run_pilot(built(hamiltonian, beta)(net), net, seed=3).ess


@pytest.mark.parametrize(("L", "draws"), [(4, 1024), (33, 962), (64, 256), (130, 64)])
def test_pilots_draw_about_a_million_spins(L, draws):
    class Still:
        def __init__(self):
            self.beta, self.hamiltonian = 0.1, mc.models.ising(L=L)
            self.tokens, self.prior = type("Tokens", (), {"n_spins": L * L}), object()

        def prior_alone(self):
            return self

        def sample(self, n, generator):
            return np.ones((n, L * L), np.int8), np.linspace(-2.0, -1.0, n)

    assert run_pilot(Still(), ALONE, 0).draws == draws


@pytest.mark.parametrize(("target", "chi"), [(0.3, 2), (0.97, 4), (0.9999, 8)])
def test_the_bond_of_a_6x6_glass_follows_its_target(target, chi):
    # Expected ESS at seed 0 (measured): 0.76 for chi=2, 0.995 for chi=4, 0.99999 for chi=8.
    hamiltonian, beta = glass(), 0.8
    found = choose_prior(
        hamiltonian, ALONE, target, 1000, INF, 0, built(hamiltonian, beta), lambda line: None, (2, 4, 8)
    )
    assert found.net.chi == chi
    assert found.expected_ess >= target


def test_the_same_seed_makes_the_same_choice():
    hamiltonian, beta = glass(), 0.8
    lines, found = [], []
    for seed in (5, 5, 6):
        said = []
        found.append(
            choose_prior(hamiltonian, ALONE, 0.9, 1000, INF, seed, built(hamiltonian, beta), said.append, (2, 3, 4))
        )
        lines.append([line.rpartition(", ")[0] for line in said])  # without the time it took
    assert found[0] == found[1]
    assert lines[0] == lines[1]
    assert found[0].ess != found[2].ess


@pytest.mark.parametrize(
    ("build", "net", "prior"),
    [
        (lambda: mc.models.pspin(N=9, p=3, seed=1), NetSettings(), "local"),
        (lambda: mc.models.sk(N=12, seed=1), NetSettings(), "belief"),
        (lambda: mc.models.ising(L=4), NetSettings(prior="lookahead"), "lookahead"),
    ],
)
def test_other_priors_have_one_pilot(build, net, prior):
    hamiltonian, lines, asked = build(), [], []

    def make(net):
        asked.append(net)
        return build_sampler(hamiltonian, 0.3, replace(net, net="none"))

    found = choose_prior(hamiltonian, net, 0.99, 1000, INF, 0, make, lines.append)
    assert found.net == resolved(hamiltonian, net)
    assert found.net.prior == prior
    assert len(lines) == len(asked) == 1
    assert lines[0] == found.line()
    assert f"{prior}: ESS" in lines[0]


def test_what_a_pilot_says():
    said = "pilot of 100 draws: boundary-mps chi=8 (two-leg): ESS 0.900, sd of ln w 0.25, 1 ms each"
    assert told(8, 0.9, 0.25).line() == said
    assert ", 0.034 of the conditionals from local fields, " in told(8, 0.9, replaced=0.034).line()
    assert told(8, 0.9, prior="local").line().startswith("pilot of 100 draws: local: ESS 0.900")


def test_few_large_weights_do_not_make_an_ess():
    assert told(8, 0.9, spread=2.0).expected_ess == pytest.approx(math.exp(-4.0))
    assert told(8, 0.2, spread=0.1).expected_ess == 0.2


# The network


@pytest.mark.parametrize("prior", ["boundary-mps", "belief", "local", "lookahead"])
def test_a_prior_that_reaches_the_target_needs_no_network(prior):
    hamiltonian = glass(8)
    choice = choose_network(hamiltonian, told(8, 0.95, 0.1, prior, hamiltonian), 0.9)
    assert (choice.net.net, choice.net.prior, choice.states) == ("none", prior, None)
    assert choice.why == "no training: the prior alone reaches 0.950, target_ess=0.9"


def fit_of(hamiltonian, lack, prior="boundary-mps"):
    """The choice for a prior that lacks `lack` nats, and the price of a fit to one state."""
    choice = choose_network(hamiltonian, told(8, 0.2, math.sqrt(2 * lack), prior, hamiltonian), 0.9)
    window = resolved(hamiltonian, NetSettings(prior=prior, net="linear")).window
    return choice, window, pilots.EXCESS * hamiltonian.n_spins * (4 * window + 5)


@pytest.mark.parametrize("prior", ["boundary-mps", "belief"])
def test_a_fit_has_the_states_that_a_quarter_of_what_is_missing_asks_for(prior):
    hamiltonian = glass(8)
    for lack in (0.02, 0.04):
        choice, window, price = fit_of(hamiltonian, lack, prior)
        assert (choice.net.net, choice.net.prior, choice.net.chi) == ("linear", prior, 8)
        assert choice.net.window == window
        assert choice.states == pytest.approx(4 * price / lack, rel=1e-3)
        assert choice.why.startswith(f"a linear residual is fitted: the prior lacks about {lack:.2g} nats")
        assert f"{choice.states} states would cost {lack / 4:.2g}" in choice.why
    choice, _, price = fit_of(hamiltonian, 50.0, prior)
    assert choice.states == pytest.approx(price / pilots.EXCESS_OF_A_FIT, rel=1e-3)  # hopeless, so fitted well


def test_a_fit_has_to_cost_less_than_half_of_what_is_missing():
    hamiltonian = glass(8)
    most = pilots.SPINS_OF_A_FIT // 64
    _, _, price = fit_of(hamiltonian, 1.0)
    for share, net, states in ((2.1, "linear", most), (1.9, "none", None)):
        choice, window, _ = fit_of(hamiltonian, share * price / most)
        assert (choice.net.net, choice.states) == (net, states)
        assert choice.net.window == (window if net == "linear" else None)
        assert f"{most} states" in choice.why
        assert choice.why.startswith("a linear residual is fitted" if net == "linear" else "no training")


@pytest.mark.parametrize(("L", "net"), [(88, "linear"), (92, "none")])
def test_a_lattice_too_large_for_enough_states_is_not_fitted(L, net):
    assert (pilots.SPINS_OF_A_FIT // L**2 >= pilots.FEWEST_STATES) == (net == "linear")
    assert fit_of(glass(L), 100.0)[0].net.net == net


def test_the_settings_that_are_chosen_make_a_sampler():
    hamiltonian = glass(6)
    for prior in ("boundary-mps", "belief"):
        choice, window, _ = fit_of(hamiltonian, 3.0, prior)
        assert build_sampler(hamiltonian, 0.5, choice.net).network.window == window


def test_priors_of_whole_patches_have_a_transformer():
    small, large = mc.models.pspin(N=12, p=3, seed=1), mc.models.ising(L=33)
    choice = choose_network(small, told(4, 0.3, 1.0, "local", small), 0.9)
    assert (choice.net.net, choice.states, choice.why) == ("transformer", None, "a transformer is trained")
    choice = choose_network(large, told(4, 0.3, 1.0, "local", large), 0.9)
    assert (choice.net.net, choice.states) == ("none", None)
    assert choice.why == "no training: 1089 spins are too many for a transformer on a CPU"
