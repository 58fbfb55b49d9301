"""Windows of displacements, networks on larger lattices, and one network for many temperatures and fields."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import mc
from mc.geometry import Geometry
from nmcmc.anyorder.family import Family, span, with_field
from nmcmc.anyorder.recipe import build, order_of, with_network
from nmcmc.anyorder.window import Window, is_homogeneous, places_of
from nmcmc.recipe import NetSettings, build_sampler, resolved
from tests.anyorder_systems import NETS, SYSTEMS, crystal, random_partial, random_sampler, stirred
from tests.enumerated import all_states

ROUNDING = 1e-5


# --- windows ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 3), (4, 4), (2, 5), (6,), (2, 2, 3), (1, 4), (2,)])
def test_on_its_own_torus_a_window_is_every_other_site_once(shape):
    places = Geometry(shape, (True,) * len(shape))
    window = Window(shape, places.periodic)
    neighbours = window.neighbours(places)
    assert window.size == places.n_sites - 1
    for site, others in enumerate(neighbours):
        assert sorted([site, *others]) == list(range(places.n_sites))
    squares = (window.displacements**2).sum(axis=1)
    assert (np.diff(squares) >= 0).all(), "the nearest come first"


@pytest.mark.parametrize("periodic", [(False, False), (True, False)])
def test_beyond_an_open_edge_there_is_no_site(periodic):
    places = Geometry((4, 3), periodic)
    window = Window(places.shape, periodic)
    for site, others in enumerate(window.neighbours(places)):
        inside = others[others < places.n_sites]
        assert sorted([site, *inside]) == list(range(places.n_sites))
        for displacement, other in zip(window.displacements, others, strict=True):
            target = places.coordinates[site] + displacement
            target = np.where(periodic, target % places.shape, target)
            there = ((target >= 0) & (target < places.shape)).all()
            assert other == (np.flatnonzero((places.coordinates == target).all(axis=1))[0] if there else 12)


@pytest.mark.parametrize(("periodic", "radius"), [((True, True), 1), ((True, True), 2), ((False, False), 2)])
def test_a_radius_bounds_every_axis(periodic, radius):
    window = Window((7, 5), periodic, radius)
    assert window.size == (2 * radius + 1) ** 2 - 1
    assert np.abs(window.displacements).max() == radius
    assert len(np.unique(window.displacements, axis=0)) == window.size


def test_sites_are_alike_only_on_a_torus_that_every_shift_leaves_the_same():
    alike = {name: is_homogeneous(make()) for name, make in SYSTEMS.items()}
    assert {name for name, same in alike.items() if same} == {"torus 3x3", "torus 3x3 in a field"}
    assert is_homogeneous(crystal())
    assert not is_homogeneous(mc.models.ising(L=3, boundary="open"))
    assert not is_homogeneous(mc.models.ea2d(L=3, J="bimodal", boundary="periodic", seed=1))
    assert places_of(SYSTEMS["SK"]()) == Geometry((7,), (True,))


# --- larger lattices ----------------------------------------------------------------------------------------------


def tiled(partial, small, large):
    """States (n, small sites) repeated over a larger torus, (n, large sites)."""
    home = np.ravel_multi_index(tuple((large.coordinates % small.shape).T), small.shape)
    return partial[:, home], home


def grown_from(small, large, settings):
    """A random sampler of the small lattice, and one of the large lattice with its network."""
    settings = resolved(small, settings)
    sampler = random_sampler(small, settings)
    return sampler, with_network(large, sampler.beta, resolved(large, settings), sampler.network)


@pytest.mark.parametrize("prior", ["none", "local"])
@pytest.mark.parametrize(
    ("net", "small", "large"), [("attention", 3, 6), ("attention", 4, 8), ("no attention", 3, 6)]
)
def test_a_state_repeated_over_a_larger_torus_has_the_same_conditionals(net, small, large, prior):
    small, large = mc.models.ising(L=small, h=0.2), mc.models.ising(L=large, h=0.2)
    sampler, grown = grown_from(small, large, replace(NETS[net], prior=prior))
    assert grown.network is sampler.network
    partial, _ = random_partial(6, small.n_spins, seed=3)
    whole, home = tiled(partial, places_of(small), places_of(large))
    with torch.no_grad():
        expected = sampler.odds_given(torch.from_numpy(partial).float()).numpy()
        found = grown.odds_given(torch.from_numpy(whole).float()).numpy()
    assert np.abs(found - expected[:, home]).max() < ROUNDING


@pytest.mark.parametrize(
    ("net", "small", "large"),
    [("attention", crystal((2, 2, 3)), crystal((4, 2, 6))), ("attention", mc.models.ising(L=4), mc.models.ising(L=8)),
     ("no attention", mc.models.ising(L=3), mc.models.ising(Lx=4, Ly=7)),
     ("window of 1", mc.models.ising(L=5), mc.models.ising(Lx=10, Ly=5))],
)  # fmt: skip
def test_a_site_sees_nothing_but_its_window(net, small, large):
    # Without a prior, which may know of sites beyond the window.
    sampler, grown = grown_from(small, large, replace(NETS[net], prior="none"))
    partial, _ = random_partial(6, small.n_spins, seed=3)
    outside, _ = random_partial(6, large.n_spins, seed=4)
    with torch.no_grad():
        expected = sampler.odds_given(torch.from_numpy(partial).float()).numpy()
        for site, other in ((0, 0), (1, large.n_spins - 2)):
            around = outside.copy()
            around[:, grown.neighbours[other]] = partial[:, sampler.neighbours[site]]
            found = grown.odds_given(torch.from_numpy(around).float()).numpy()
            assert np.abs(found[:, other] - expected[:, site]).max() < ROUNDING


def test_a_grown_sampler_records_its_own_density():
    settings = replace(NETS["attention"], prior="local", order="random")
    _, grown = grown_from(mc.models.ising(L=3), mc.models.ising(Lx=3, Ly=6), settings)
    spins, log_q = grown.sample(200, torch.Generator().manual_seed(0))
    assert np.abs(log_q - grown.log_prob(spins)).max() < 2 * ROUNDING
    assert sorted(grown.order) == list(range(18))


@pytest.mark.parametrize(
    ("net", "model", "said"),
    [
        ("attention", mc.models.ising(L=5), "multiples of its sizes"),
        ("no attention", mc.models.ising(L=2, boundary="open"), "periodic lattices"),
        ("attention", mc.models.ising(L=6, boundary="open"), "periodic lattices"),
        ("attention", mc.models.ising(dim=3, L=3), "as many axes"),
        ("attention", mc.models.ea2d(L=6, J="bimodal", boundary="periodic", seed=1), "all alike"),
        ("mlp", mc.models.ising(L=6), "made for one lattice"),
    ],
)
def test_lattices_that_a_network_does_not_fit_are_refused(net, model, said):
    settings = resolved(mc.models.ising(L=3), NETS[net])
    with pytest.raises(ValueError, match=said):
        resolved(model, settings)


def test_a_network_does_not_shrink():
    settings = resolved(mc.models.ising(L=6), NETS["no attention"])
    with pytest.raises(ValueError, match="to larger lattices, not to 3x3"):
        resolved(mc.models.ising(L=3), settings)


@pytest.mark.parametrize(
    ("change", "said"),
    [({"prior": "boundary-mps"}, "prior=local or prior=none"), ({"order": "spiral"}, "net.order=spiral"),
     ({"width": 18, "heads": 4}, "multiple of twice net.heads=4")],
)  # fmt: skip
def test_settings_that_do_not_fit_are_refused(change, said):
    with pytest.raises(ValueError, match=said):
        build_sampler(mc.models.ising(L=3), 0.4, replace(NETS["attention"], **change))


def test_orders_are_permutations_that_the_seed_alone_makes():
    hamiltonian = mc.models.ising(L=4)
    random = NetSettings(net="anyorder", order="random", order_seed=5)
    assert (order_of(hamiltonian, NETS["attention"]) == np.arange(16)).all()
    assert sorted(order_of(hamiltonian, random)) == list(range(16))
    assert (order_of(hamiltonian, random) == order_of(hamiltonian, random)).all()
    assert (order_of(hamiltonian, random) != order_of(hamiltonian, replace(random, order_seed=6))).any()


# --- many temperatures and fields ---------------------------------------------------------------------------------

TARGETS = [(0.2, -0.1), (0.2, 0.3), (0.6, -0.1), (0.6, 0.3)]


def family(prior="local", net="attention"):
    made = Family(mc.models.ising(L=3), TARGETS, replace(NETS[net], prior=prior))
    stirred(made.network)
    return made


@pytest.mark.parametrize("prior", ["local", "none"])
@pytest.mark.parametrize("net", ["attention", "no attention"])
def test_every_member_of_a_family_is_normalised_and_shares_the_weights(prior, net):
    made = family(prior, net)
    for sampler in [*made.members, made.at(0.35, 0.1)]:
        assert sampler.network is made.network
        assert np.exp(sampler.log_prob(all_states(9))).sum() == pytest.approx(1.0, abs=ROUNDING)
    assert made.settings.betas == (0.2, 0.6)
    assert made.settings.fields == (-0.1, 0.3)
    assert [(m.beta, m.hamiltonian.parameters["h"]) for m in made.members] == TARGETS


def test_the_network_knows_temperature_and_field():
    made = family(prior="none")
    laws = [made.at(*target).log_prob(all_states(9)) for target in [(0.2, 0.3), (0.6, 0.3), (0.2, -0.1), (0.4, 0.1)]]
    for index, one in enumerate(laws):
        for other in laws[:index]:
            assert np.abs(one - other).max() > 0.01
    low, high = made.at(0.2, -0.1), made.at(0.6, 0.3)
    assert low.condition.tolist() == [-1.0, -1.0]
    assert high.condition.tolist() == [1.0, 1.0]
    assert made.at(0.4, 0.1).condition.tolist() == pytest.approx([0.0, 0.0], abs=1e-6)


def test_a_member_is_the_sampler_of_its_target_with_these_weights():
    made = family()
    alone = build(with_field(mc.models.ising(L=3), 0.3), 0.6, made.settings)
    alone.network.load_state_dict(made.network.state_dict())
    states = all_states(9)
    assert (alone.log_prob(states) == made.members[3].log_prob(states)).all()


@pytest.mark.parametrize(("fields", "h"), [((0.0, 0.3), 0.0), ((0.0, 0.3), 0.15), ((-0.1, 0.0), 0.0)])
def test_a_network_of_several_fields_is_the_same_at_each_of_them(fields, h):
    plain = mc.models.ising(L=3)
    made = Family(plain, [(0.5, field) for field in fields], NETS["no attention"])
    stirred(made.network)
    alone = build(with_field(plain, h), 0.5, made.settings)
    alone.network.load_state_dict(made.network.state_dict())
    states = all_states(9)
    assert (alone.log_prob(states) == made.at(0.5, h).log_prob(states)).all()
    assert np.abs(alone.log_prob(states) - alone.log_prob(-states)).max() > 0.01  # free to follow the field


def test_a_network_without_a_field_keeps_the_symmetry():
    for fields in (None, 0.0):
        made = Family(mc.models.ising(L=3), [(0.2, fields), (0.6, fields)], NETS["no attention"])
        stirred(made.network)
        states = all_states(9)
        assert (made.at(0.4).log_prob(states) == made.at(0.4).log_prob(-states)).all()


def test_targets_out_of_range_are_refused():
    made = family()
    for target, said in (((0.61, 0.0), "beta=0.61 is outside 0.2 to 0.6"), ((0.19, 0.0), "beta=0.19"),
                         ((0.3, 0.31), "h=0.31 is outside -0.1 to 0.3")):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            made.at(*target)
    with pytest.raises(ValueError, match="at least one temperature"):
        Family(mc.models.ising(L=3), [], NETS["attention"])
    with pytest.raises(ValueError, match="for one temperature"):
        Family(mc.models.ising(L=3), TARGETS, NETS["mlp"])
    with pytest.raises(ValueError, match="a model with a field"):
        with_field(SYSTEMS["even orders"](), 0.2)


def test_the_model_in_another_field_is_the_model_with_that_field():
    plain, field = mc.models.ising(L=3), mc.models.ising(L=3, h=0.25)
    assert with_field(plain, 0.25).fingerprint == field.fingerprint
    assert with_field(field, None) is field
    assert span([0.4, 0.2, 0.3]) == (0.2, 0.4)
    assert span([]) is None
