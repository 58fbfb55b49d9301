"""Vector spins: energies against literal loops, the model that deals couplings, and exact values by quadrature."""

import json
import math

import numpy as np
import pytest

from mc.exact import ExactRefused, exact, exact_or_none
from mc.models import build, vector
from mc.models.attention import asymmetry
from mc.vector.hamiltonian import VectorHamiltonian
from tests.vector_laws import TwoSpins, cosine_moments, log_sphere, log_z_one, radius

KINDS = [("bilinear", "once"), ("bilinear", "ordered"), ("loss", "once")]


def dealt(n_spins, dimension, seed, form="bilinear", pairs="once"):
    """A Hamiltonian without a name, its diagonal not zero."""
    rng = np.random.default_rng(seed)
    x, strengths = rng.normal(size=(n_spins, dimension)), rng.normal(size=(n_spins, n_spins))
    return VectorHamiltonian(x, strengths, form, pairs), rng


def literal(hamiltonian, spins):
    """The energy of one state, sum by sum as it is written down."""
    x, strengths = hamiltonian.fields, hamiltonian.couplings
    n_spins, dimension = x.shape
    energy = 0.0
    for i in range(n_spins):
        if hamiltonian.form == "loss":
            target = [x[i, k] + sum(strengths[i, j] * spins[j, k] for j in range(n_spins)) for k in range(dimension)]
            scale = math.sqrt(dimension / 2 - 1) / math.sqrt(sum(f * f for f in target))
            energy += 0.5 * sum((spins[i, k] - scale * target[k]) ** 2 for k in range(dimension))
            continue
        energy -= sum(x[i, k] * spins[i, k] for k in range(dimension))
        for j in range(n_spins):
            product = sum(spins[i, k] * spins[j, k] for k in range(dimension))
            if hamiltonian.pairs == "ordered" and i != j:
                energy -= strengths[i, j] * product
            elif i < j:
                energy -= 0.5 * (strengths[i, j] + strengths[j, i]) * product
    return energy


# --- the energy ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("form", "pairs"), KINDS)
@pytest.mark.parametrize(("n_spins", "dimension"), [(1, 3), (2, 5), (6, 4)])
def test_energies_are_the_sums_as_written(form, pairs, n_spins, dimension):
    hamiltonian, rng = dealt(n_spins, dimension, 7, form, pairs)
    spins = rng.normal(size=(3, 2, n_spins, dimension))
    expected = [[literal(hamiltonian, state) for state in row] for row in spins]
    assert hamiltonian.energy(spins) == pytest.approx(np.array(expected), rel=1e-12)
    assert float(hamiltonian.energy(spins[0, 0].astype(np.float32))) == pytest.approx(expected[0][0], rel=1e-5)
    for site in range(n_spins):
        new = rng.normal(size=(3, 2, dimension))
        moved = spins.copy()
        moved[:, :, site] = new
        change = [[literal(hamiltonian, a) - literal(hamiltonian, b) for a, b in zip(*rows, strict=True)]
                  for rows in zip(moved, spins, strict=True)]  # fmt: skip
        assert hamiltonian.energy_change(spins, site, new) == pytest.approx(np.array(change), rel=1e-10, abs=1e-12)


@pytest.mark.parametrize(("pairs", "factor"), [("once", 1.0), ("ordered", 2.0)])
def test_the_local_field_is_minus_the_slope_of_the_energy(pairs, factor):
    hamiltonian, rng = dealt(5, 4, 3, "bilinear", pairs)
    spins, step = rng.normal(size=(5, 4)), 1e-5
    slope = np.zeros((5, 4))
    for place in np.ndindex(5, 4):
        up, down = spins.copy(), spins.copy()
        up[place] += step
        down[place] -= step
        slope[place] = (literal(hamiltonian, up) - literal(hamiltonian, down)) / (2 * step)
    assert hamiltonian.local_fields(spins) == pytest.approx(-slope, abs=1e-8)
    # Symmetric couplings without a diagonal: the field of the kinetic rule is the local one, of pairs once.
    symmetric = hamiltonian.couplings + hamiltonian.couplings.T
    np.fill_diagonal(symmetric, 0.0)
    same = VectorHamiltonian(hamiltonian.fields, symmetric, pairs=pairs)
    found = same.local_fields(spins) - same.fields
    assert found == pytest.approx(factor * (same.driving_fields(spins) - same.fields))
    assert same.is_symmetric
    assert not hamiltonian.is_symmetric


def test_driving_fields_take_the_couplings_as_they_are():
    hamiltonian, rng = dealt(4, 3, 5)
    spins = rng.normal(size=(2, 4, 3))
    for state, found in zip(spins, hamiltonian.driving_fields(spins), strict=True):
        for i in range(4):
            expected = hamiltonian.fields[i] + sum(hamiltonian.couplings[i, j] * state[j] for j in range(4))
            assert found[i] == pytest.approx(expected)


def test_the_diagonal_is_a_constant_of_the_bilinear_energy_only():
    hamiltonian, rng = dealt(4, 3, 6)
    bare = VectorHamiltonian(hamiltonian.fields, hamiltonian.couplings - np.diag(np.diag(hamiltonian.couplings)))
    spins = rng.normal(size=(4, 3))
    assert bare.energy(spins) == hamiltonian.energy(spins)
    assert bare.fingerprint != hamiltonian.fingerprint  # the kinetic rule knows it
    assert not np.diag(hamiltonian.exchange).any()
    with pytest.raises(ValueError, match="read-only"):
        hamiltonian.exchange[0, 1] = 1.0


def test_a_target_that_is_zero_counts_as_zero():
    hamiltonian = VectorHamiltonian(np.zeros((2, 4)), np.array([[0.0, 0.0], [1.0, 0.0]]), "loss")
    spins = np.array([[3.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0]])
    assert hamiltonian.energy(spins) == pytest.approx(0.5 * 9 + 0.5 * (4 + hamiltonian.radius**2))


def test_properties():
    hamiltonian, _ = dealt(3, 6, 1)
    assert (hamiltonian.n_spins, hamiltonian.n_components) == (3, 6)
    assert hamiltonian.radius**2 == pytest.approx(6 / 2 - 1)
    assert hamiltonian.has_fields
    assert not hamiltonian.is_z2_symmetric
    free = VectorHamiltonian(np.zeros((3, 6)), hamiltonian.couplings)
    assert free.is_z2_symmetric
    assert free.log_states == pytest.approx(3 * log_sphere(6, radius(6)))
    for dimension in (3, 4, 33):
        one = VectorHamiltonian(np.zeros((1, dimension)), np.zeros((1, 1)))
        assert one.log_states == pytest.approx(log_sphere(dimension, radius(dimension)))
    assert dealt(3, 6, 1, "loss")[0].log_states == math.inf
    assert "3 spins in R^6" in repr(hamiltonian)


def test_a_hamiltonian_cannot_be_changed():
    x, strengths = np.ones((2, 3)), np.ones((2, 2))
    hamiltonian = VectorHamiltonian(x, strengths)
    before = hamiltonian.fingerprint
    x[:] = 5.0
    strengths[:] = 5.0
    assert (hamiltonian.fields == 1.0).all()
    assert (hamiltonian.couplings == 1.0).all()
    for array in (hamiltonian.fields, hamiltonian.couplings):
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 2.0
    with pytest.raises(AttributeError):
        hamiltonian.form = "loss"
    assert VectorHamiltonian(np.ones((2, 3)), np.ones((2, 2))).fingerprint == before


def test_the_fingerprint_knows_all_that_matters_and_no_name():
    x, strengths = dealt(3, 4, 2)[0].fields, dealt(3, 4, 2)[0].couplings
    base = VectorHamiltonian(x, strengths)
    same = VectorHamiltonian(np.asfortranarray(x), strengths.T.copy().T, name="other", parameters={"N": 3})
    assert same.fingerprint == base.fingerprint
    assert len(base.fingerprint) == 64
    changed = [VectorHamiltonian(x, strengths, "loss"), VectorHamiltonian(x, strengths, pairs="ordered"),
               VectorHamiltonian(x, strengths.T), VectorHamiltonian(-x, strengths)]  # fmt: skip
    for place in np.ndindex(3, 3):
        other = strengths.copy()
        other[place] = np.nextafter(other[place], np.inf)
        changed.append(VectorHamiltonian(x, other))
    for place in np.ndindex(3, 4):
        other = x.copy()
        other[place] = np.nextafter(other[place], np.inf)
        changed.append(VectorHamiltonian(other, strengths))
    fingerprints = {one.fingerprint for one in changed}
    assert len(fingerprints) == len(changed)
    assert base.fingerprint not in fingerprints


@pytest.mark.parametrize(("arguments", "said"), [
    ((np.zeros((2, 3)), np.zeros((2, 2)), "los"), "energy=los: bilinear or loss is needed"),
    ((np.zeros((2, 3)), np.zeros((2, 2)), "loss", "twice"), "pairs=twice: once or ordered is needed"),
    ((np.zeros(3), np.zeros((1, 1))), r"fields: shape \(3,\), \(N, D\) is needed"),
    ((np.zeros((0, 3)), np.zeros((0, 0))), "fields: shape"),
    ((np.zeros((2, 3)), np.zeros((2, 3))), r"couplings: shape \(2, 3\), \(2, 2\) is needed"),
    ((np.zeros((2, 3)), np.zeros((3, 3))), r"couplings: shape \(3, 3\), \(2, 2\) is needed"),
    ((np.zeros((2, 2)), np.zeros((2, 2))), "D=2: at least 3 components"),
    ((np.full((2, 3), np.nan), np.zeros((2, 2))), "fields: NaN or infinite"),
    ((np.zeros((2, 3)), np.full((2, 2), np.inf)), "couplings: NaN or infinite"),
])  # fmt: skip
def test_what_is_no_hamiltonian_is_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        VectorHamiltonian(*arguments)


def test_states_of_another_shape_are_refused():
    hamiltonian, _ = dealt(3, 4, 2)
    with pytest.raises(ValueError, match=r"states of shape \(4, 3\)"):
        hamiltonian.energy(np.zeros((4, 3)))


# --- the model -----------------------------------------------------------------------------------------------------


def test_dealt_couplings_and_fields():
    hamiltonian = vector(60, 20, seed=3)
    strengths, x = hamiltonian.couplings, hamiltonian.fields
    # 3600 numbers of variance 1/60: five standard errors of their mean and of their mean square
    assert abs(strengths.mean()) < 5 / 60 / math.sqrt(60)
    assert abs((strengths**2).mean() * 60 - 1) < 5 * math.sqrt(2 / 3600)
    assert np.diag(strengths).all()
    assert np.linalg.norm(x, axis=1) == pytest.approx(hamiltonian.radius, rel=1e-8)
    assert abs(x.mean()) < 5 * x.std() / math.sqrt(x.size)
    assert asymmetry(strengths) == pytest.approx(1 / math.sqrt(2), abs=0.05)
    assert (vector(60, 20, seed=4).couplings != strengths).all()
    assert np.abs(vector(9, 3, J="bimodal").couplings) == pytest.approx(1 / 3)
    assert vector(9, 3, J=-2.0).couplings == pytest.approx(-2 / 3)


def test_symmetric_mirrors_the_upper_triangle_and_clears_the_diagonal():
    asymmetric, symmetric = vector(12, 5, seed=1), vector(12, 5, seed=1, coupling="symmetric")
    assert (symmetric.fields == asymmetric.fields).all()
    for i in range(12):
        assert symmetric.couplings[i, i] == 0
        for j in range(i + 1, 12):
            assert symmetric.couplings[i, j] == symmetric.couplings[j, i] == asymmetric.couplings[i, j]
    assert symmetric.is_symmetric
    assert (symmetric.exchange == symmetric.couplings).all()


@pytest.mark.parametrize("h", [0.0, 0.5, 2.5])
def test_h_is_the_norm_of_the_fields(h):
    plain, scaled = vector(7, 10, seed=2), vector(7, 10, seed=2, h=h)
    assert np.linalg.norm(scaled.fields, axis=1) == pytest.approx(h, rel=1e-8)
    assert scaled.fields == pytest.approx(plain.fields * h / plain.radius, rel=1e-14)
    assert (scaled.couplings == plain.couplings).all()
    assert scaled.has_fields == (h > 0)


@pytest.mark.parametrize("parameters", [
    dict(N=5, D=4), dict(N=5, D=3, seed=9, h=1.5), dict(N=4, D=6, J="bimodal", coupling="symmetric"),
    dict(N=4, D=6, energy="loss", J=0.5), dict(N=4, D=6, pairs="ordered", h=0.0), dict(N=6, D=8, J="attention"),
])  # fmt: skip
def test_parameters_rebuild_the_model(parameters):
    hamiltonian = vector(**parameters)
    stored = json.loads(json.dumps(hamiltonian.parameters))
    again = build("vector", stored)
    assert again.fingerprint == hamiltonian.fingerprint
    assert again.parameters == hamiltonian.parameters
    assert {**stored, **parameters} == stored  # what was asked is among them
    for key in ("seed", "h", "coupling", "energy", "pairs"):
        other = {"seed": 77, "h": 3.25, "coupling": "symmetric", "energy": "loss", "pairs": "ordered"}[key]
        if parameters.get(key) != other:
            assert vector(**parameters | {key: other}).fingerprint != hamiltonian.fingerprint, key


def test_couplings_and_fields_from_a_file(tmp_path):
    hamiltonian, _ = dealt(4, 6, 8)
    path = str(tmp_path / "glass.npz")
    np.savez(path, x=hamiltonian.fields, J=hamiltonian.couplings, unused=np.zeros(2))
    read = vector(path=path)
    assert read.fingerprint == hamiltonian.fingerprint
    assert build("vector", read.parameters).fingerprint == read.fingerprint
    half = vector(path=path, h=hamiltonian.radius / 2)
    assert half.fields == pytest.approx(hamiltonian.fields / 2)
    symmetric = vector(path=path, coupling="symmetric").couplings
    assert (symmetric == np.triu(hamiltonian.couplings, 1) + np.triu(hamiltonian.couplings, 1).T).all()
    np.savez(path, x=np.ones((2, 3), np.int64), J=np.ones((2, 2), np.float32))
    assert vector(path=path, energy="loss").fields.dtype == np.float64


FILES = {
    "no_x": (dict(J=np.zeros((2, 2))), "has no array x; x .* and J .* are needed"),
    "no_J": (dict(x=np.zeros((2, 3))), "has no array J"),
    "half_attention": (dict(x=np.ones((2, 3)), W_Q=np.ones((3, 3))), "has no array J"),
    "flat": (dict(x=np.zeros(6), J=np.zeros((2, 2))), r"x is float64 \(6,\), real numbers \(N, D\) are needed"),
    "wide": (dict(x=np.zeros((2, 3)), J=np.zeros((2, 3))), r"J is \(2, 3\), \(2, 2\) is needed for 2 spins"),
    "large": (dict(x=np.zeros((2, 3)), J=np.zeros((3, 3))), r"J is \(3, 3\), \(2, 2\)"),
    "both": (
        dict(x=np.ones((2, 3)), J=np.zeros((2, 2)), W_Q=np.ones((3, 3)), W_K=np.ones((3, 3))),
        "leave one of them",
    ),
    "nan_token": (dict(x=np.full((2, 3), np.nan), W_Q=np.ones((3, 3)), W_K=np.ones((3, 3))), "x: NaN"),
    "huge": (dict(x=np.full((2, 3), 1e200), J=np.zeros((2, 2))), r"beyond 1e\+100"),
    "thin": (dict(x=np.zeros((2, 2)), J=np.zeros((2, 2))), "D=2: at least 3 components"),
    "complex": (dict(x=np.zeros((2, 3), complex), J=np.zeros((2, 2))), "x is complex128"),
    "words": (dict(x=np.full((2, 3), "a"), J=np.zeros((2, 2))), "x is <U1"),
    "nan_x": (dict(x=np.full((2, 3), np.nan), J=np.zeros((2, 2))), "x: NaN or infinite numbers"),
    "inf_J": (dict(x=np.zeros((2, 3)), J=np.full((2, 2), np.inf)), "J: NaN or infinite numbers"),
    "zero_token": (dict(x=np.zeros((2, 3)), W_Q=np.ones((3, 3)), W_K=np.ones((3, 3))), "none of them zero"),
    "odd_weights": (dict(x=np.ones((2, 3)), W_Q=np.ones((4, 3)), W_K=np.ones((4, 3))), "attention: x"),
}


@pytest.mark.parametrize("coupling", ["symmetric", "asymmetric"])
@pytest.mark.parametrize("h", [None, 1.0])
@pytest.mark.parametrize("name", FILES)
def test_files_that_do_not_fit_are_refused_in_one_line(name, h, coupling, tmp_path):
    arrays, said = FILES[name]
    path = str(tmp_path / f"{name}.npz")
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=said) as refused:
        vector(path=path, h=h, coupling=coupling)
    assert str(refused.value).startswith("vector: ")
    assert path in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("parameters", "said"), [
    (dict(), "no size; give N= and D=, or path=FILE.npz"),
    (dict(N=4), "D is missing"),
    (dict(D=4), "N is missing"),
    (dict(N=0, D=3), "N=0: an integer of at least 1"),
    (dict(N=3, D=2), "D=2: an integer of at least 3"),
    (dict(N=10_000, D=3), "dense couplings do not fit"),
    (dict(N=3, D=3, coupling="foo"), "coupling=foo: symmetric or asymmetric is needed"),
    (dict(N=3, D=3, h=-1.0), "h=-1.0: a finite number of at least 0"),
    (dict(N=3, D=3, h=math.nan), "h=nan"),
    (dict(N=3, D=3, h=1e200), r"fields: .* beyond 1e\+100"),
    (dict(N=3, D=3, J="gauss"), "J=gauss"),
    (dict(N=3, D=3, energy="heat"), "energy=heat: bilinear or loss"),
    (dict(N=3, D=3, pairs="all"), "pairs=all: once or ordered"),
    (dict(path="x.npz", N=3), "path= brings x and J along; leave N= out"),
    (dict(path="x.npz", D=3), "leave D= out"),
    (dict(path="x.npz", J="bimodal"), "leave J= out"),
    (dict(path="x.npz", seed=1), "leave seed= out"),
    (dict(path="nowhere.npz"), "path=nowhere.npz: no such file"),
])  # fmt: skip
def test_parameters_that_do_not_fit_are_refused(parameters, said):
    with pytest.raises(ValueError, match=said) as refused:
        vector(**parameters)
    assert "\n" not in str(refused.value)


def test_an_unknown_key_is_refused():
    with pytest.raises(ValueError, match="unknown key L"):
        build("vector", {"N": 3, "D": 3, "L": 4})


# --- exact values --------------------------------------------------------------------------------------------------

BETAS = [0.0, 1e-6, 0.3, 2.0, 40.0]


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("dimension", [3, 4, 32])
def test_spins_without_bonds(dimension, beta):
    x = np.random.default_rng(4).normal(size=(3, dimension)) / math.sqrt(dimension)
    x[1] = 0.0
    hamiltonian = VectorHamiltonian(x, np.diag([1.0, 2.0, 3.0]))
    scale = radius(dimension) * np.linalg.norm(x, axis=1)
    mean, variance = cosine_moments(beta * scale, dimension)
    found = exact(hamiltonian, beta)
    assert found.log_z == pytest.approx(log_z_one(beta * scale, dimension).sum(), abs=1e-9)
    assert found.energy == pytest.approx(-(scale * mean).sum(), abs=1e-9)
    assert found.heat_capacity == pytest.approx(((beta * scale) ** 2 * variance).sum(), abs=1e-7)
    assert found.ground_energy == pytest.approx(-scale.sum())
    assert exact_or_none(hamiltonian, beta).log_z == found.log_z


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize(("dimension", "pairs"), [(3, "once"), (8, "ordered")])
def test_trees_without_fields(dimension, pairs, beta):
    # 0 - 1 - 2 and 3 - 4, and 5 alone. Bonds of a tree are independent: each is a spin in the field of its neighbour.
    strengths = np.zeros((6, 6))
    bonds = {(0, 1): 0.7, (1, 2): -1.3, (4, 3): 0.4}
    for place, strength in bonds.items():
        strengths[place] = strength
    hamiltonian = VectorHamiltonian(np.zeros((6, dimension)), strengths, pairs=pairs)
    factor = radius(dimension) ** 2 * (1.0 if pairs == "ordered" else 0.5)
    scale = np.concatenate([factor * np.abs(list(bonds.values())), np.zeros(3)])
    mean, variance = cosine_moments(beta * scale, dimension)
    found = exact(hamiltonian, beta)
    assert found.log_z == pytest.approx(log_z_one(beta * scale, dimension).sum(), abs=1e-9)
    assert found.energy == pytest.approx(-(scale * mean).sum(), abs=1e-9)
    assert found.heat_capacity == pytest.approx(((beta * scale) ** 2 * variance).sum(), abs=1e-7)
    assert found.ground_energy == pytest.approx(-scale.sum())


@pytest.mark.parametrize("beta", [0.2, 1.0, 7.0])
def test_a_bond_by_quadrature_over_both_spins(beta):
    # The two spins of the test laws, with fields so small that they do not matter.
    pair = TwoSpins(1e-9 * np.eye(2, 5), 0.8, beta)
    found = exact(VectorHamiltonian(np.zeros((2, 5)), np.array([[0.0, 0.8], [0.8, 0.0]])), beta)
    assert found.log_z == pytest.approx(pair.log_z, abs=1e-7)
    mean, variance = pair.energy()
    assert found.energy == pytest.approx(mean, abs=1e-7)
    assert found.heat_capacity == pytest.approx(beta**2 * variance, abs=1e-6)


@pytest.mark.parametrize("beta", [0.5, 3.0, 30.0, 1e3, 1e5, 1e8])
def test_energy_and_heat_capacity_are_derivatives_of_log_z(beta):
    hamiltonian = VectorHamiltonian(np.eye(4, 32), np.zeros((4, 4)))
    step = 1e-3 * beta
    low, middle, high = (exact(hamiltonian, b) for b in (beta - step, beta, beta + step))
    # ln Z + beta E_0, whose digits are not lost at large beta
    above = [one.log_z + b * one.ground_energy for one, b in ((low, beta - step), (high, beta + step))]
    slope = (above[1] - above[0]) / (2 * step)
    tolerance = 1e-6 * abs(middle.energy - middle.ground_energy) + 1e-14 * abs(low.log_z) / step
    assert middle.energy - middle.ground_energy == pytest.approx(-slope, abs=tolerance)
    capacity = -(beta**2) * (high.energy - low.energy) / (2 * step)
    assert middle.heat_capacity == pytest.approx(capacity, rel=1e-5, abs=1e-13 * beta**2 / step)


def test_far_from_every_field_equipartition_holds():
    # At large beta each spin has D - 1 harmonic directions.
    found = exact(VectorHamiltonian(np.eye(4, 32), np.zeros((4, 4))), 1e9)
    assert found.heat_capacity == pytest.approx(4 * 31 / 2, rel=1e-6)


def test_many_components_at_small_fields():
    # Bessel functions of order 500 underflow here; ln Z = ln(area) + k^2 / (2 D) + ...
    dimension = 1000
    hamiltonian = VectorHamiltonian(np.eye(1, dimension), np.zeros((1, 1)))
    for beta in (1e-3, 1e-1):
        k = beta * radius(dimension)
        found = exact(hamiltonian, beta)
        growth = k**2 / (2 * dimension) - k**4 / (4 * dimension**2 * (dimension + 2))
        assert found.log_z - hamiltonian.log_states == pytest.approx(growth, rel=1e-6, abs=1e-11)
        assert found.energy == pytest.approx(-radius(dimension) * k / dimension, rel=1e-3)


@pytest.mark.parametrize(("fields", "strengths", "form", "said"), [
    (np.ones((1, 3)), np.zeros((1, 1)), "loss", "no exact values of the loss energy"),
    (np.eye(2, 3), np.array([[0.0, 1.0], [0.0, 0.0]]), "bilinear", "only without couplings, or for trees"),
    (np.zeros((3, 3)), np.ones((3, 3)), "bilinear", "only without couplings, or for trees"),
    (np.zeros((5, 3)), np.kron(np.eye(2, dtype=int), np.ones((3, 3)))[:5, :5], "bilinear", "for trees"),
])  # fmt: skip
def test_what_has_no_exact_values_is_refused(fields, strengths, form, said):
    hamiltonian = VectorHamiltonian(fields, strengths, form)
    with pytest.raises(ExactRefused, match=said) as refused:
        exact(hamiltonian, 1.0)
    assert "\n" not in str(refused.value)
    assert exact_or_none(hamiltonian, 1.0) is None


def test_antisymmetric_couplings_are_none_in_equilibrium():
    strengths = np.array([[0.0, 1.0], [-1.0, 0.0]])
    found = exact(VectorHamiltonian(np.eye(2, 3), strengths), 1.0)
    assert found.log_z == exact(VectorHamiltonian(np.eye(2, 3), np.zeros((2, 2))), 1.0).log_z


def test_a_beta_that_is_none_is_refused():
    for beta in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="beta"):
            exact(vector(2, 3, h=1.0, J=0.0), beta)


def test_exact_values_hold_in_very_strong_fields():
    # A cold spin is D - 1 oscillators about its ground state: E = -f R + (D - 1) / (2 beta), C = (D - 1) / 2.
    hamiltonian = vector(N=1, D=6, h=1.0)
    norm, beta = float(np.linalg.norm(hamiltonian.fields)), 1e10
    found = exact(hamiltonian, beta)
    assert found.energy == pytest.approx(-norm * hamiltonian.radius + 2.5 / beta, rel=1e-12)
    assert found.heat_capacity == pytest.approx(2.5, rel=1e-6)
    assert math.isfinite(found.log_z)
