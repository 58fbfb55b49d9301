"""Boundary matrix-product states: compression, the sums over the rows below, their file, and how much memory fits."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import numpy as np
import pytest
import torch

import cli.environments
import mc
from cli.errors import UserError
from mc.square import square_couplings
from nmcmc.environment import build
from nmcmc.environment import compress as compression
from nmcmc.environment.build import Environment, build_below, build_environment, estimate, has_equal_columns
from nmcmc.environment.cache import environment_key, environment_path, load_environment, save_environment
from nmcmc.environment.compress import compress, singular_values, triangle
from nmcmc.priors.boundary_mps import BoundaryMPS
from nmcmc.recipe import NetSettings
from nmcmc.tokens import tokens_for
from tests.enumerated import all_states

BOUNDARIES = ("periodic", "periodic,open", "open,periodic", "open")
FORMS = ("two-leg", "one-leg")


def unit(x):
    """Rows of norm 1."""
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def amplitudes(T, ring, length=None):
    """The whole state (G, all physical indices), site after site, of T (n, G, a, s, t, b)."""
    D = T.shape[2]
    total = np.broadcast_to(np.eye(D)[: D if ring else 1], (T.shape[1], 1, D if ring else 1, D))
    for j in range(length or len(T)):
        total = np.einsum("gpea,gastb->gpsteb", total, T[j % len(T)])
        total = total.reshape(len(total), -1, *total.shape[-2:])
    return np.einsum("gpee->gp", total) if ring else total[:, :, 0, 0]


def random_state(n, D, legs, seed, decay=0.0):
    """Two random states (n, 2, D, 2, legs, D), the k-th index of every bond smaller by exp(-k decay)."""
    weight = np.exp(-0.5 * decay * np.arange(D))
    T = np.random.default_rng(seed).normal(size=(n, 2, D, 2, legs, D))
    return weight[:, None, None, None] * T * weight


def widened(T, D, ring, seed):
    """The same states with bonds of D, most of whose indices say nothing new."""
    n, G, d = T.shape[:3]
    Q = np.random.default_rng(seed).normal(size=(n, G, d, D))  # Q P = 1 is put into every bond
    P = np.linalg.pinv(Q)
    if not ring:
        Q[0], P[0] = np.eye(d, D), np.eye(D, d)
    left = (P @ T.reshape(n, G, d, -1)).reshape(n, G, D, *T.shape[3:])
    return left @ np.roll(Q, -1, axis=0)[:, :, None, None]


# Compression


@pytest.mark.parametrize("n", [2, 3, 5, 6])
@pytest.mark.parametrize("legs", [1, 2])
@pytest.mark.parametrize("ring", [False, True])
def test_a_state_that_needs_no_more_is_reproduced(ring, legs, n):
    T = random_state(n, 3, legs, seed=n)
    wide = widened(T, 5, ring, seed=1)
    exact = unit(amplitudes(T, ring))
    assert unit(amplitudes(wide, ring)) == pytest.approx(exact, abs=1e-9)
    found = compress(wide, 3, ring, n)
    assert found.shape[2] <= 3
    assert np.abs(found).max(axis=(2, 3, 4, 5)) == pytest.approx(np.ones((n, 2)))
    assert unit(amplitudes(found, ring)) == pytest.approx(exact, abs=1e-10)  # of the same sign, too


@pytest.mark.parametrize("ring", [False, True])
def test_bonds_that_are_allowed_to_be_wide_stay_exact(ring):
    T = random_state(5, 4, 2, seed=2)
    assert unit(amplitudes(compress(T, 100, ring, 5), ring)) == pytest.approx(unit(amplitudes(T, ring)), abs=1e-10)


@pytest.mark.parametrize("length", [3, 6])
def test_one_site_stands_for_a_ring_of_equal_ones(length):
    T = random_state(1, 3, 2 if length == 3 else 1, seed=length)
    found = compress(widened(T, 6, True, seed=1), 3, True, length)
    assert found.shape[:3] == (1, 2, 3)
    assert unit(amplitudes(found, True, length)) == pytest.approx(unit(amplitudes(T, True, length)), abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("n", "legs", "chi"), [(4, 1, 2), (6, 1, 2), (6, 1, 4), (4, 2, 2), (4, 2, 4), (6, 2, 4)])
def test_a_truncated_chain_is_as_near_as_the_singular_values_allow(n, legs, chi, seed):
    # No state of these bonds is nearer than the worst cut; cutting all bonds costs at most the sum over the cuts when
    # it is done one after the other. The factor is for doing it at once (measured: 1).
    T = random_state(n, 8, legs, seed, decay=0.8)
    exact, found = unit(amplitudes(T, False)), unit(amplitudes(compress(T, chi, False, n), False))
    error = 1.0 - (exact * found).sum(1) ** 2
    cuts = [np.linalg.svd(exact.reshape(2, (2 * legs) ** j, -1), compute_uv=False) for j in range(1, n)]
    discarded = np.array([(S[:, chi:] ** 2).sum(1) for S in cuts])
    assert (discarded.max(0) > 1e-10).all()
    assert (error > 0.999 * discarded.max(0) - 1e-12).all()
    assert (error < 1.05 * discarded.sum(0)).all()


def test_a_truncated_ring_comes_nearer_as_its_bond_grows():
    T = random_state(6, 8, 1, seed=3, decay=0.8)
    exact = unit(amplitudes(T, True))
    errors = [
        1.0 - (exact * unit(amplitudes(compress(T, chi, True, 6), True))).sum(1) ** 2 for chi in (1, 2, 3, 4, 6, 8)
    ]
    assert (np.diff(errors[:-1], axis=0) < 0).all()
    assert errors[-1] == pytest.approx(0.0, abs=1e-12)


def test_two_workers_make_the_same_state():
    T = random_state(5, 6, 2, seed=4)
    with ThreadPoolExecutor(2) as pool:
        assert (compress(T, 3, True, 5, pool) == compress(T, 3, True, 5)).all()


def test_states_side_by_side_do_not_disturb_each_other():
    T = random_state(5, 6, 2, seed=4, decay=0.5)
    T[:, 1] *= 1e-3
    for ring in (False, True):
        both = compress(T, 3, ring, 5)
        for g in range(2):
            assert compress(T[:, g : g + 1], 3, ring, 5)[:, 0] == pytest.approx(both[:, g], abs=1e-10)


def test_a_state_that_is_zero_stays_finite():
    assert (compress(np.zeros((4, 1, 3, 2, 1, 3)), 2, True, 4) == 0.0).all()


def test_the_triangular_factor_has_the_metric_of_what_lies_left():
    rng = np.random.default_rng(5)
    X, site = rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 4, 2, 2, 4))
    R = triangle(X, site)
    assert np.abs(np.tril(R, -1)).max() == 0.0
    assert (np.diagonal(R, axis1=1, axis2=2) >= 0).all()
    assert np.abs(R).max(axis=(1, 2)) == pytest.approx(np.ones(2))
    whole = (X @ site.reshape(2, 4, -1)).reshape(2, -1, 4)
    metric, found = whole.swapaxes(1, 2) @ whole, R.swapaxes(1, 2) @ R
    scale = np.trace(metric, axis1=1, axis2=2) / np.trace(found, axis1=1, axis2=2)
    assert scale[:, None, None] * found == pytest.approx(metric, rel=1e-9, abs=1e-12)


def test_singular_values_without_divide_and_conquer(monkeypatch):
    M = np.random.default_rng(6).normal(size=(3, 5, 4))
    expected = singular_values(M)
    T = random_state(4, 6, 2, seed=7)
    state = compress(T, 3, True, 4)
    calls = []

    def refuse(*_, **__):
        calls.append(1)
        raise np.linalg.LinAlgError("SVD did not converge")

    monkeypatch.setattr(np.linalg, "svd", refuse)
    U, S, V = singular_values(M)
    assert calls
    assert (U.shape, S.shape, V.shape) == ((3, 5, 4), (3, 4), (3, 4, 4))
    assert pytest.approx(expected[1], rel=1e-12) == S
    assert U * S[:, None] @ V == pytest.approx(M, abs=1e-12)
    assert unit(amplitudes(compress(T, 3, True, 4), True)) == pytest.approx(unit(amplitudes(state, True)), abs=1e-10)


# Environments


def glass(Lx, Ly, boundary, h="gauss:0.5"):
    return mc.models.ea2d(Lx=Lx, Ly=Ly, J="gaussian", h=h, boundary=boundary, seed=4)


def sums_below(couplings, beta, form):
    """Phi_k (s_k, s_0) of every row k, (2^W, 2^W), states in the order of `all_states`; summed row by row."""
    height, width = couplings.shape
    s = all_states(width).astype(float)
    last = np.ones((len(s), len(s)))
    if couplings.periodic[0] and form == "two-leg":
        last = np.exp(beta * (s * couplings.down[-1]) @ s.T)
    found = [last]
    for k in range(height - 1, 0, -1):
        row = (s * np.roll(s, -1, axis=1)) @ couplings.right[k] + s @ couplings.field[k]
        found.append(np.exp(beta * ((s * couplings.down[k - 1]) @ s.T + row)) @ found[-1])
    return found[::-1]


def dense(A, width, ring):
    """A (n, 2, t, a, b) contracted to (states of the row, states of row 0, or one of them)."""
    legs = A.shape[2]
    whole = amplitudes(A.transpose(0, 3, 1, 2, 4)[:, None], ring, width)[0].reshape((2, legs) * width)
    # The first site is the slowest index here and the lowest bit in `all_states`.
    order = [2 * j for j in reversed(range(width))] + [2 * j + 1 for j in reversed(range(width))]
    return whole.transpose(order).reshape(2**width, legs**width)


def check_sums(couplings, beta, form, environment, rel):
    height, width = couplings.shape
    expected, ring = sums_below(couplings, beta, form), couplings.periodic[1]
    both = couplings.periodic[0] and form == "two-leg"
    for k in range(height):
        found = dense(environment.first[0] if k == 0 else environment.rest[k - 1], width, ring)
        phi = expected[k] if both else expected[k][:, :1]
        if both and k == 0:
            phi = np.diag(phi)[:, None]
        assert found.shape == phi.shape
        assert (found > 0).all()
        assert found / found.sum() == pytest.approx(phi / phi.sum(), rel=rel)


SHAPES = [(4, 4), (3, 5), (5, 3)]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize(("Lx", "Ly"), SHAPES)
def test_with_a_large_bond_environments_are_the_sums_over_the_rows_below(Lx, Ly, boundary, form):
    couplings = square_couplings(glass(Lx, Ly, boundary))
    for beta in (0.0, 0.7):
        done = []
        environment = build_environment(couplings, beta, 16, form, report=done.append)
        assert done == list(range(1, Ly))
        legs = 2 if form == "two-leg" and couplings.periodic[0] else 1
        assert environment.rest.shape == (Ly - 1, Lx, 2, legs, 16, 16)
        assert environment.first.shape[:4] == (1, Lx, 2, 1)
        # A ring of three sites, unrolled, loses what only so short a ring can see (measured: 2e-4; 2e-8 for Lx = 4).
        check_sums(couplings, beta, form, environment, rel=1e-3 if Lx == 3 and couplings.periodic[1] else 1e-6)


@pytest.mark.parametrize(
    ("Lx", "Ly", "boundary"),
    [(1, 1, "open"), (1, 4, "open"), (4, 1, "open"), (2, 3, "open"), (3, 2, "open"), (1, 4, "open,periodic"),
     (2, 3, "open,periodic"), (4, 1, "periodic,open"), (3, 2, "periodic,open")],
)  # fmt: skip
def test_environments_of_narrow_lattices(Lx, Ly, boundary):
    couplings = square_couplings(glass(Lx, Ly, boundary))
    check_sums(couplings, 0.9, "two-leg", build_environment(couplings, 0.9, 8), rel=1e-7)


@pytest.mark.parametrize("form", FORMS)
def test_the_environments_of_equal_columns_need_one_site(form):
    # Rows may differ from each other, columns not.
    lattice = mc.models.ising(Lx=4, Ly=5).lattice
    rng = np.random.default_rng(8)
    across, along, field = (rng.normal(size=5) for _ in range(3))
    rows = lattice.bonds[:, 0] // 4
    horizontal = rows == lattice.bonds[:, 1] // 4
    fields = (np.arange(20)[:, None], np.repeat(field, 4))
    hamiltonian = mc.Hamiltonian(
        20, [(lattice.bonds, np.where(horizontal, across[rows], along[rows])), fields], lattice=lattice
    )
    couplings = square_couplings(hamiltonian)
    assert has_equal_columns(couplings)
    environment = build_environment(couplings, 0.5, 16, form)
    assert environment.rest.shape[1] == environment.first.shape[1] == 1
    check_sums(couplings, 0.5, form, environment, rel=1e-6)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_which_columns_are_equal(boundary):
    ring = boundary in ("periodic", "periodic,open")
    assert has_equal_columns(square_couplings(mc.models.ising(Lx=4, Ly=3, h=0.2, boundary=boundary))) == ring
    assert not has_equal_columns(square_couplings(glass(4, 3, boundary)))
    assert not has_equal_columns(square_couplings(mc.models.ising(Lx=4, Ly=3, h="gauss:1", boundary=boundary)))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("boundary", ["periodic", "periodic,open"])
def test_a_ring_of_equal_columns_has_the_log_odds_of_the_general_way(boundary, form, monkeypatch):
    # chi=4 cuts the rows short, so that the two ways agree in what they leave out too. Rings are unrolled by many
    # sites, because the general way, which unrolls them by a few more site after site, has to see the same metric.
    monkeypatch.setattr(compression, "FEWEST", 400)
    monkeypatch.setattr(compression, "UNROLLED", 400)
    hamiltonian = mc.models.ising(Lx=6, Ly=8, boundary=boundary, h=0.02)
    tokens, couplings, beta = tokens_for(hamiltonian, rows=True), square_couplings(hamiltonian), 0.44
    states = torch.from_numpy(np.random.default_rng(9).choice([-1.0, 1.0], size=(20, 48)))
    odds = []
    for equal in (True, False):
        monkeypatch.setattr(build, "has_equal_columns", lambda _, equal=equal: equal)
        environment = build_environment(couplings, beta, 4, form)
        assert environment.rest.shape[1] == (1 if equal else 6)
        odds.append(BoundaryMPS(hamiltonian, tokens, beta, environment, torch.float64).log_odds_of(states).numpy())
    assert np.abs(odds[0] - odds[1]).max() < 1e-6
    monkeypatch.undo()
    better = BoundaryMPS(hamiltonian, tokens, beta, build_environment(couplings, beta, 12, form), torch.float64)
    assert np.abs(odds[0] - better.log_odds_of(states).numpy()).max() > 1e-4


@pytest.mark.parametrize("ring", [False, True])
def test_environments_of_lattices_whose_first_row_is_known(ring):
    boundary = "periodic" if ring else "open,periodic"
    couplings, beta = square_couplings(glass(4, 5, boundary)), 0.8
    bottom = np.array([[1, -1, -1, 1], [-1, -1, 1, -1], [1, 1, 1, 1]])
    grids = [np.broadcast_to(beta * grid, (3, 5, 4)) for grid in (couplings.right, couplings.down, couplings.field)]
    found = build_below(*grids, bottom, ring, 8)
    assert found.shape == (4, 4, 3, 2, 1, 8, 8)
    numbers = (bottom > 0) @ (1 << np.arange(4))
    for k, phi in enumerate(sums_below(couplings, beta, "two-leg")[1:]):
        for g in range(3):
            sums, expected = dense(found[k][:, g], 4, ring)[:, 0], phi[:, numbers[g]]
            assert sums / sums.sum() == pytest.approx(expected / expected.sum(), rel=1e-7)


def test_truncation_errors_of_log_sums_fall_with_the_bond():
    couplings, beta = square_couplings(glass(5, 6, "periodic")), 0.7
    expected = np.log(sums_below(couplings, beta, "two-leg")[1])
    errors = []
    for chi in (1, 2, 4, 8):
        found = dense(build_environment(couplings, beta, chi).rest[0], 5, True)
        weight = np.exp(expected) / np.exp(expected).sum()
        errors.append(np.abs(found / found.sum() - weight).sum())
    assert (np.diff(np.log(errors)) < -0.5).all(), errors


# The file


@pytest.fixture
def kept(tmp_path):
    """A path where an environment is kept, its key, and the environment."""
    hamiltonian = glass(3, 4, "periodic")
    environment = build_environment(square_couplings(hamiltonian), 0.5, 3)
    key = environment_key(hamiltonian, 0.5, 3, "two-leg")
    path = environment_path(tmp_path, "glass", 3, "two-leg")
    assert save_environment(path, key, environment)
    return path, key, environment


def test_an_environment_comes_back_from_its_file(kept):
    path, key, environment = kept
    found = load_environment(path, key)
    assert (found.first == environment.first).all()
    assert (found.rest == environment.rest).all()
    assert found.first.dtype == found.rest.dtype == np.float64
    assert [p.name for p in path.parent.iterdir()] == ["glass-environment-two-leg-chi3.npz"]


def test_an_environment_of_something_else_is_not_taken():
    chains = [mc.models.ising(Lx=x, Ly=y, boundary="open") for x, y in ((1, 12), (12, 1))]
    assert chains[0].fingerprint == chains[1].fingerprint  # only their lattices tell them apart
    models = [*chains, glass(3, 4, "periodic"), glass(3, 4, "open")]
    keys = {
        environment_key(hamiltonian, beta, chi, form)
        for hamiltonian, beta, chi, form in itertools.product(models, (0.5, 0.5 + 1e-15), (3, 33), FORMS)
    }
    assert len(keys) == 4 * 2 * 2 * 2


def test_another_key_and_no_file_give_nothing(kept, tmp_path):
    path, key, _ = kept
    assert load_environment(path, key + " ") is None
    assert load_environment(tmp_path / "nothing.npz", key) is None
    assert load_environment(tmp_path, key) is None


def test_a_file_cut_short_anywhere_gives_nothing(kept):
    path, key, _ = kept
    whole = path.read_bytes()
    for length in [0, 1, 10, *range(100, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:length])
        assert load_environment(path, key) is None


def test_a_file_with_a_wrong_byte_gives_nothing_or_the_same(kept):
    path, key, environment = kept
    whole, rng = path.read_bytes(), np.random.default_rng(1)
    nothing = 0
    for position in np.sort(rng.choice(len(whole), size=300, replace=False)):
        damaged = bytearray(whole)
        damaged[position] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        found = load_environment(path, key)
        nothing += found is None
        assert found is None or ((found.first == environment.first).all() and (found.rest == environment.rest).all())
    assert nothing > 250


@pytest.mark.parametrize("flag", [1, 8, 99])
def test_a_file_whose_compression_makes_no_sense_gives_nothing(kept, flag):
    path, key, _ = kept
    damaged = bytearray(path.read_bytes())
    entry = damaged.find(b"PK\x01\x02")
    position = entry + (8 if flag == 1 else 10)  # encrypted, or an unknown method
    damaged[position] = flag
    path.write_bytes(damaged)
    assert load_environment(path, key) is None


def write_text(path, key):
    path.write_text("no environment, and no archive either")


def write_array(path, key):
    with open(path, "wb") as file:
        np.save(file, np.zeros(3))


def write_pickle(path, key):
    objects = np.array([{"what": "a pickle"}], dtype=object).reshape((1,) * 6)
    np.savez(path, key=np.array(key), first=objects, rest=objects, allow_pickle=True)


def write_pickled_key(path, key):
    np.savez(path, key=np.array({"key": key}, dtype=object), first=np.zeros((1,) * 6), rest=np.zeros((1,) * 6))


def write_part(path, key):
    np.savez(path, key=np.array(key), first=np.zeros((1,) * 6))


def write_other_shapes(path, key):
    np.savez(path, key=np.array(key), first=np.zeros((1,) * 6), rest=np.zeros((2, 3)))


def write_nan(path, key):
    np.savez(path, key=np.array(key), first=np.zeros((1,) * 6), rest=np.full((1,) * 6, np.nan))


@pytest.mark.parametrize(
    "write",
    [write_text, write_array, write_pickle, write_pickled_key, write_part, write_other_shapes, write_nan],
)
def test_what_is_no_environment_gives_nothing(kept, write):
    path, key, _ = kept
    path.unlink()
    write(path, key)
    assert path.exists()
    assert load_environment(path, key) is None


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(kept, tmp_path):
    path, key, environment = kept
    for folder in (tmp_path / "missing", path):  # a file is no folder
        assert not save_environment(environment_path(folder, "glass", 3, "two-leg"), key, environment)
    (tmp_path / "taken.npz").mkdir()  # cannot be replaced by a file
    assert not save_environment(tmp_path / "taken.npz", key, environment)
    assert not list(tmp_path.glob(".*.part"))
    assert load_environment(path, key) is not None


# Memory


def memory(monkeypatch, size):
    monkeypatch.setattr(cli.environments, "memory_at_hand", lambda: size)


def needed(hamiltonian, chi, form="two-leg"):
    return estimate(square_couplings(hamiltonian), chi, form, trial=False)[1]


@pytest.mark.parametrize("form", FORMS)
def test_too_large_an_environment_is_refused_with_the_bond_that_fits(form, monkeypatch):
    hamiltonian = mc.models.ea2d(L=40, seed=1)
    memory(monkeypatch, 1.0001 * needed(hamiltonian, 23, form) / cli.environments.SHARE_OF_MEMORY)
    cli.environments.check_memory(hamiltonian, NetSettings(prior="boundary-mps", chi=23, form=form))
    with pytest.raises(UserError) as raised:
        cli.environments.check_memory(hamiltonian, NetSettings(prior="boundary-mps", chi=64, form=form))
    message = str(raised.value)
    assert message.startswith("prior.chi=64: its environment needs about ")
    assert message.endswith(" GB are at hand; prior.chi=23 would fit")
    assert "\n" not in message
    assert raised.value.code == 2


def test_another_prior_is_the_remedy_where_no_bond_fits(monkeypatch):
    memory(monkeypatch, 1000.0)
    with pytest.raises(UserError, match=r"prior\.chi=4: .* use prior=local$"):
        cli.environments.check_memory(mc.models.ea2d(L=8, seed=1), NetSettings(prior="boundary-mps", chi=4))


def test_memory_grows_with_the_bond_and_covers_what_is_stored():
    hamiltonian = mc.models.ea2d(L=8, seed=1)
    sizes = [needed(hamiltonian, chi) for chi in (1, 2, 4, 8)]
    assert (np.diff(sizes) > 0).all()
    environment = build_environment(square_couplings(hamiltonian), 0.5, 8)
    assert environment.first.nbytes + environment.rest.nbytes < sizes[-1]
    assert build.memory_at_hand() > 2**20
    seconds, size = estimate(square_couplings(hamiltonian), 4, "two-leg")
    assert size == sizes[2]
    assert 0.0 < seconds < 60.0


class Silent:
    """A screen that keeps what it is told."""

    def __init__(self):
        self.said = []

    def say(self, text=""):
        self.said.append(text)

    def progress(self, what, total):
        return nullcontext(lambda done, note="": None)


def test_environments_are_built_once_and_kept_where_that_takes_long(tmp_path, monkeypatch):
    hamiltonian, net = glass(3, 4, "periodic"), NetSettings(prior="boundary-mps", chi=3)
    built = []

    def counted(*arguments, **options):
        built.append(1)
        return build_environment(*arguments, **options)

    monkeypatch.setattr(cli.environments, "build_environment", counted)
    monkeypatch.setattr(cli.environments, "WORTH_KEEPING", 0.0)
    environments = cli.environments.Environments(tmp_path, Silent())
    assert environments.get(hamiltonian, 0.5, NetSettings(prior="local")) is None
    first = environments.get(hamiltonian, 0.5, net)
    assert isinstance(first, Environment)
    assert environments.get(hamiltonian, 0.5, net) is first
    assert len(built) == 1
    again = cli.environments.Environments(tmp_path, Silent()).get(hamiltonian, 0.5, net)
    assert len(built) == 1
    assert (again.rest == first.rest).all()
    other = cli.environments.Environments(tmp_path, Silent()).get(hamiltonian, 0.6, net)
    assert len(built) == 2
    assert not np.allclose(other.rest, first.rest)
