"""The ordered Markov boundary: against a search through the future, known sizes, and the enumerated law itself."""

import numpy as np
import pytest

import mc
from mc.markov_boundary import ordered_boundary
from tests.enumerated import all_states, law, state_numbers

BETA = 0.6


def by_search(hamiltonian, order):
    """The boundaries by the definition: past spins met when walking from a spin through the future."""
    n_spins = hamiltonian.n_spins
    place = np.empty(n_spins, int)
    place[order] = np.arange(n_spins)
    joined = [set() for _ in range(n_spins)]
    for sites, _ in hamiltonian.interactions.values():
        for cluster in place[sites]:
            for a in cluster:
                joined[a] |= set(cluster.tolist()) - {int(a)}
    found = []
    for n in range(n_spins):
        met, stack, walked = set(), [n], {n}
        while stack:
            for other in joined[stack.pop()]:
                if other < n:
                    met.add(other)
                elif other not in walked:
                    walked.add(other)
                    stack.append(other)
        found.append(sorted(met))
    return found


def mixed(n_spins, seed):
    """Generic interactions of orders 1 to 4 on some spins, and parts that nothing joins."""
    rng = np.random.default_rng(seed)
    half = n_spins // 2
    clusters = {1: [], 2: [], 3: [], 4: []}
    for part in (np.arange(half), np.arange(half, n_spins)):
        for k, count in ((1, len(part)), (2, len(part)), (3, 2), (4, 1)):
            clusters[k] += [rng.choice(part, k, replace=False) for _ in range(count) if k <= len(part)]
    return mc.Hamiltonian(n_spins, [(np.array(c), rng.normal(size=len(c))) for c in clusters.values() if c])


GRAPHS = {
    "open square": lambda: mc.models.ea2d(L=4, boundary="open", J="gaussian", seed=1),
    "torus": lambda: mc.models.ea2d(L=4, J="gaussian", seed=1),
    "cylinder": lambda: mc.models.ising(Lx=3, Ly=5, boundary="open,periodic"),
    "open cube": lambda: mc.models.ea3d(L=3, boundary="open", seed=1),
    "torus in three dimensions": lambda: mc.models.ea3d(L=3, seed=1),
    "SK": lambda: mc.models.sk(N=10, seed=1),
    "random regular graph": lambda: mc.models.rrg(N=20, seed=1),
    "p-spin": lambda: mc.models.pspin(N=8, p=3, seed=1),
    "mixed, in two parts": lambda: mixed(11, 1),
    "no interactions": lambda: mc.Hamiltonian(5, []),
    "one spin": lambda: mc.Hamiltonian(1, [(np.array([[0]]), np.array([0.3]))]),
}


@pytest.mark.parametrize("graph", GRAPHS)
def test_elimination_finds_what_a_search_through_the_future_finds(graph):
    hamiltonian = GRAPHS[graph]()
    n_spins = hamiltonian.n_spins
    orders = [np.arange(n_spins), np.arange(n_spins)[::-1]]
    orders += [np.random.default_rng(seed).permutation(n_spins) for seed in range(4)]
    for order in orders:
        boundary = ordered_boundary(hamiltonian, order)
        assert [boundary.of(n).tolist() for n in range(n_spins)] == by_search(hamiltonian, order)
        assert boundary.start.shape == (n_spins + 1,)
        assert boundary.start.dtype == boundary.past.dtype == np.int64


@pytest.mark.parametrize("L", [3, 6, 9])
def test_open_square_in_rows_needs_the_last_L_sites(L):
    boundary = ordered_boundary(mc.models.ising(L=L, boundary="open"), np.arange(L * L))
    for n in range(L, L * (L - 1)):
        assert boundary.of(n).tolist() == list(range(n - L, n))
    assert boundary.sizes.max() == L


def test_torus_needs_the_first_row_and_the_last_L_sites():
    L = 5
    boundary = ordered_boundary(mc.models.ising(L=L), np.arange(L * L))
    for n in range(2 * L, L * (L - 1)):
        assert boundary.of(n).tolist() == [*range(L), *range(n - L, n)]


def test_open_cube_in_layers_needs_the_last_L_squared_sites():
    L = 4
    boundary = ordered_boundary(mc.models.ising(L=L, dim=3, boundary="open"), np.arange(L**3))
    for n in range(L * L, L * L * (L - 1)):
        assert boundary.of(n).tolist() == list(range(n - L * L, n))


def test_long_range_model_needs_the_whole_past():
    assert ordered_boundary(mc.models.sk(N=9), np.arange(9)).sizes.tolist() == list(range(9))


def test_a_tree_drawn_from_its_root_needs_the_parent_only():
    edges = np.array([[(n - 1) // 2, n] for n in range(1, 15)])
    boundary = ordered_boundary(mc.Hamiltonian(15, [(edges, np.ones(14))]), np.arange(15))
    assert [boundary.of(n).tolist() for n in range(1, 15)] == [[(n - 1) // 2] for n in range(1, 15)]


def test_sixteen_cubed_takes_no_time():
    boundary = ordered_boundary(mc.models.ising(L=16, dim=3, boundary="open"), np.arange(4096))
    assert boundary.sizes.max() == 256
    assert len(boundary.past) < 4096 * 256


@pytest.mark.parametrize("order", [np.arange(8), np.zeros(9, int), np.arange(1, 10), np.arange(9)[None]])
def test_an_order_that_is_none_is_refused(order):
    with pytest.raises(ValueError, match="every one of the 9 sites"):
        ordered_boundary(mc.models.sk(N=9), order)


def conditionals(hamiltonian, order):
    """p(s_n = + | past) for every n and every past: arrays (2^n,), bit i of the past is the i-th spin drawn."""
    _, p = law(hamiltonian, BETA)
    n_spins = hamiltonian.n_spins
    states = np.empty((2**n_spins, n_spins), np.int8)
    states[:, order] = all_states(n_spins)  # bit i of a row's number is the i-th spin drawn
    joint, found = p[state_numbers(states)], []
    for n in range(n_spins - 1, -1, -1):
        joint = joint.reshape(2, 2**n)
        found.append(joint[1] / joint.sum(0))
        joint = joint.sum(0)
    return found[::-1]


GENERIC = {
    "open square": lambda: mc.models.ea2d(L=3, boundary="open", J="gaussian", seed=1),
    "torus in a field": lambda: mc.models.ea2d(L=3, J="gaussian", h="gauss:0.4", seed=2),
    "open bar": lambda: mc.models.ea3d(Lx=2, Ly=2, Lz=3, boundary="open", J="gaussian", h="gauss:0.4", seed=3),
    "SK": lambda: mc.models.sk(N=9, seed=4),
    "random regular graph": lambda: mc.models.rrg(N=12, J="gaussian", seed=5),
    "p-spin in a field": lambda: mc.models.pspin(N=8, p=3, h="gauss:0.4", seed=6),
    "mixed, in two parts": lambda: mixed(12, 7),
}


@pytest.mark.parametrize("graph", GENERIC)
def test_the_exact_conditional_depends_on_the_boundary_and_on_nothing_else(graph):
    hamiltonian = GENERIC[graph]()
    n_spins = hamiltonian.n_spins
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(n_spins) if seed else np.arange(n_spins)
        boundary, exact = ordered_boundary(hamiltonian, order), conditionals(hamiltonian, order)
        for n in range(n_spins):
            past = np.arange(2**n)
            for spin in range(n):
                change = np.abs(exact[n] - exact[n][past ^ (1 << spin)]).max()
                if spin in boundary.of(n):
                    assert change > 1e-9, f"spin {n} does not depend on {spin} of its boundary"
                else:
                    assert change < 1e-12, f"spin {n} depends on {spin}, which is not in its boundary"
