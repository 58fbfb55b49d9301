"""Patch tokens: the published bit convention, raster order, defaults, refusals."""

import itertools

import numpy as np
import pytest

import mc
from mc.lattice import Lattice
from nmcmc.recipe import NetSettings, resolved
from nmcmc.tokens import MAX_SPINS_A_TOKEN, Tokens, group_tokens, patch_tokens, tokens_for


def box(*shape):
    return Lattice(shape, (False,) * len(shape))


def rows_of(spins):
    return " / ".join("".join("+" if s > 0 else "-" for s in row) for row in spins)


@pytest.mark.parametrize(
    ("value", "picture"),
    [
        (0, "---- / ----"),
        (1, "+--- / ----"),
        (2, "-+-- / ----"),
        (4, "--+- / ----"),
        (31, "++++ / +---"),
        (255, "++++ / ++++"),
    ],
)
def test_token_values_of_a_2x4_patch_are_the_published_little_endian_ones(value, picture):
    tokens = patch_tokens(box(2, 4), (2, 4))
    assert tokens.n_tokens == 1
    assert rows_of(tokens.decode(np.array([value])).reshape(2, 4)) == picture
    assert rows_of(tokens.table[value].reshape(2, 4)) == picture


ORDERS = {
    "2x4 patches of 4x8": lambda: patch_tokens(box(4, 8), (2, 4)),
    "1x3 patches of 3x6": lambda: patch_tokens(box(3, 6), (1, 3)),
    "single spins of 3x3": lambda: patch_tokens(box(3, 3), (1, 1)),
    "2x2x2 patches of 4x4x2": lambda: patch_tokens(box(4, 4, 2), (2, 2, 2)),
    "2x4 patches of 2x4x4": lambda: patch_tokens(box(2, 4, 4), (2, 4)),
    "groups of 3 of 12": lambda: group_tokens(12, 3),
    "3x4 patches of 6x4": lambda: patch_tokens(box(6, 4), (3, 4)),
}


@pytest.mark.parametrize("name", ORDERS)
def test_encode_and_decode_are_inverse(name):
    tokens = ORDERS[name]()
    rng = np.random.default_rng(1)
    spins = rng.choice(np.array([-1, 1], np.int8), size=(3, 5, tokens.n_spins))
    values = tokens.encode(spins)
    assert values.shape == (3, 5, tokens.n_tokens)
    assert values.dtype == np.int64
    assert values.min() >= 0
    assert values.max() < tokens.vocabulary
    back = tokens.decode(values)
    assert back.dtype == np.int8
    assert (back == spins).all()
    drawn = rng.integers(tokens.vocabulary, size=(50, tokens.n_tokens))
    assert (tokens.encode(tokens.decode(drawn)) == drawn).all()
    assert (tokens.encode(spins[0, 0]) == values[0, 0]).all()


@pytest.mark.parametrize("name", ORDERS)
def test_bit_m_of_token_j_is_the_spin_at_sites_j_m(name):
    tokens = ORDERS[name]()
    down = -np.ones(tokens.n_spins, np.int8)
    assert (tokens.encode(down) == 0).all()
    for j, m in itertools.product(range(tokens.n_tokens), range(tokens.k)):
        one_up = down.copy()
        one_up[tokens.sites[j, m]] = 1
        expected = np.zeros(tokens.n_tokens, int)
        expected[j] = 2**m
        assert (tokens.encode(one_up) == expected).all()


@pytest.mark.parametrize(
    ("shape", "patch"),
    [((4, 6), (2, 3)), ((4, 8), (2, 4)), ((3, 3), (1, 3)), ((4, 4, 6), (2, 2, 3)), ((2, 4, 4), (1, 2, 4))],
)
def test_patches_follow_each_other_in_raster_order_and_are_filled_row_major(shape, patch):
    tokens = patch_tokens(box(*shape), patch)
    corners = itertools.product(*(range(0, length, p) for length, p in zip(shape, patch, strict=True)))
    expected = [
        [
            int(np.ravel_multi_index(np.add(corner, inside), shape))
            for inside in itertools.product(*(range(p) for p in patch))
        ]
        for corner in corners
    ]
    assert tokens.sites.tolist() == expected
    assert tokens.first_site == 0
    assert tokens.patch == patch
    assert (tokens.k, tokens.n_tokens, tokens.vocabulary) == (np.prod(patch), len(expected), 2 ** np.prod(patch))


def test_missing_leading_axes_of_a_patch_count_one():
    short, full = patch_tokens(box(2, 4, 4), (2, 2)), patch_tokens(box(2, 4, 4), (1, 2, 2))
    assert short.patch == full.patch == (1, 2, 2)
    assert (short.sites == full.sites).all()


def test_groups_of_a_graph_are_consecutive_spins():
    tokens = group_tokens(12, 4)
    assert tokens.sites.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert tokens.patch is None
    assert tokens.lattice is None


@pytest.mark.parametrize(
    ("shape", "patch"),
    [((16, 16), (2, 4)), ((4, 4), (2, 4)), ((2, 2), (2, 2)), ((6, 6), (2, 3)), ((3, 3), (1, 3)), ((7, 7), (1, 7)),
     ((11, 11), (1, 1)), ((4, 2), (4, 2)), ((4, 4, 4), (2, 2, 2)), ((3, 3, 3), (1, 1, 3)), ((180, 180), (2, 4))],
)  # fmt: skip
def test_default_patch_of_a_lattice(shape, patch):
    hamiltonian = mc.Hamiltonian(int(np.prod(shape)), [], lattice=box(*shape))
    assert tokens_for(hamiltonian).patch == patch


def test_default_patch_holds_as_many_spins_as_fit_in_eight_and_is_no_taller_than_wide():
    for length in range(1, 25):
        hamiltonian = mc.Hamiltonian(length**2, [], lattice=box(length, length))
        rows, columns = tokens_for(hamiltonian).patch
        divisors = [d for d in range(1, 9) if length % d == 0]
        assert rows * columns == max(a * b for a in divisors for b in divisors if a * b <= 8)
        assert rows <= columns


@pytest.mark.parametrize(("n_spins", "k"), [(16, 8), (12, 6), (7, 7), (11, 1), (30, 6), (1, 1)])
def test_default_group_of_a_graph(n_spins, k):
    assert tokens_for(mc.Hamiltonian(n_spins, [])).k == k


def test_an_asked_patch_is_taken():
    assert tokens_for(mc.models.ising(L=4), (4, 1)).patch == (4, 1)
    assert tokens_for(mc.models.sk(N=12, seed=1), (3,)).k == 3


@pytest.mark.parametrize(
    ("hamiltonian", "patch", "complaint"),
    [
        (mc.models.ising(L=4), (3, 2), "patch=3x2 does not divide the 4x4 lattice"),
        (mc.models.ising(L=4), (2, 8), "does not divide"),
        (mc.models.ising(L=4), (2, 2, 2), "does not divide"),
        (mc.models.ising(L=4), (0, 2), "does not divide"),
        (mc.models.ising(L=4), (-2, 2), "does not divide"),
        (mc.models.ising(L=4), (4, 4), r"2\^16 outputs; at most 12 spins"),
        (mc.models.sk(N=12, seed=1), (5,), "patch=5 does not divide the 12 spins"),
        (mc.models.sk(N=12, seed=1), (0,), "does not divide"),
        (mc.models.sk(N=12, seed=1), (2, 2), "a graph takes one number"),
        (mc.models.sk(N=26, seed=1), (13,), r"2\^13 outputs"),
    ],
)
def test_patches_that_do_not_fit_are_refused(hamiltonian, patch, complaint):
    with pytest.raises(ValueError, match=complaint):
        resolved(hamiltonian, NetSettings(patch=patch, head="tree"))


def test_sites_that_are_no_permutation_are_refused_and_twelve_spins_a_token_are_not():
    for sites in ([[0, 1], [1, 2]], [[0, 1], [2, 4]], [0, 1, 2]):
        with pytest.raises(ValueError, match="every spin once"):
            Tokens(np.array(sites))
    assert group_tokens(MAX_SPINS_A_TOKEN, MAX_SPINS_A_TOKEN).vocabulary == 4096


def test_the_generation_order_cannot_be_changed_afterwards():
    tokens = group_tokens(4, 2)
    with pytest.raises(ValueError, match="read-only"):
        tokens.sites[0, 0] = 3
