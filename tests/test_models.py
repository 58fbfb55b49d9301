"""Models: disorder that never changes, normalisations, files."""

import json
from pathlib import Path

import numpy as np
import pytest

import mc
from mc.models import build
from mc.models.couplings import normals, raw_words, signs
from tests.archives import arrays_of

REFERENCE = Path(__file__).parent / "data" / "reference"

FROZEN = [
    (mc.models.ea2d(L=8, seed=1), "5a57b234275275c8f9952df760adb665c96a5e70f73563d8454137f3bc2d6e4d"),
    (
        mc.models.ea3d(L=4, J="gaussian", h="gauss:0.3", seed=2),
        "ae3a6adb3e61be3dd2b5048e29b8c7d32b32a076b607100c54e4b2060fb11ffc",
    ),
    (mc.models.sk(N=20, seed=3), "39a0ab6c330b738b560e0eee02b36b38a13e8c4a81c406091a572b7b280cccdf"),
    (mc.models.rrg(N=32, seed=4), "79aa145913ed05a86ef0f3c1318bf17f0d36b8d79a696f7eddb32a4cd6219578"),
    (mc.models.pspin(N=8, seed=5), "e430e87435800d44e621a0b6a8f4f165165852be68194c53fc08cf84c464e9c0"),
]


@pytest.mark.parametrize(("hamiltonian", "fingerprint"), FROZEN, ids=[h.name for h, _ in FROZEN])
def test_the_disorder_of_a_seed_never_changes(hamiltonian, fingerprint):
    """These samples may be quoted in papers: a change of this test is a break of a promise."""
    assert hamiltonian.fingerprint == fingerprint


def test_disorder_has_the_stated_law():
    """Mean and variance of 10^5 numbers within five standard errors: a false alarm once in 10^6."""
    n = 100_000
    for values, fourth in ((signs(raw_words(0, 0, n)), 1.0), (normals(raw_words(0, 1, n)), 3.0)):
        assert abs(values.mean()) < 5 / np.sqrt(n)
        assert abs((values**2).mean() - 1.0) <= 5 * np.sqrt((fourth - 1.0) / n)


def test_another_seed_gives_another_sample_and_fields_have_their_own_stream():
    assert mc.models.ea2d(L=6, seed=1).fingerprint != mc.models.ea2d(L=6, seed=2).fingerprint
    plain, in_field = mc.models.ea2d(L=6, seed=1), mc.models.ea2d(L=6, seed=1, h="gauss:1")
    assert np.array_equal(plain.bonds[1], in_field.bonds[1])
    assert abs(np.corrcoef(in_field.fields, in_field.bonds[1][:36])[0, 1]) < 0.6


def test_sk_couplings_have_variance_one_over_n():
    couplings = mc.models.sk(N=200, seed=1).bonds[1]
    assert len(couplings) == 200 * 199 // 2
    assert (couplings**2).mean() * 200 == pytest.approx(1.0, abs=5 * np.sqrt(2 / len(couplings)))


@pytest.mark.parametrize(("n", "degree"), [(10, 3), (20, 4), (12, 11), (50, 8)])
def test_every_site_of_a_random_regular_graph_has_the_same_degree(n, degree):
    bonds = mc.models.rrg(N=n, degree=degree, seed=7).bonds[0]
    assert (np.bincount(bonds.ravel()) == degree).all()
    assert len(np.unique(bonds, axis=0)) == n * degree // 2


def test_parameters_rebuild_the_model():
    for hamiltonian in (mc.models.ising(Lx=4, Ly=6, J=-0.5, h=0.1), mc.models.sk(N=9, seed=2, J="bimodal")):
        assert build(hamiltonian.name, hamiltonian.parameters).fingerprint == hamiltonian.fingerprint


def test_boundary_words_are_in_the_order_x_y():
    lattice = mc.models.ising(Lx=4, Ly=3, boundary="periodic,open").lattice
    assert lattice.shape == (3, 4)
    assert lattice.periodic == (False, True)


@pytest.mark.parametrize("name", ["ea2d_L4_pm_per", "ea2d_L6_gauss_open_hgauss0.5", "ea3d_L4_gauss_openzperxy"])
def test_the_edges_of_a_file_are_read_from_its_bonds(name):
    records = json.loads((REFERENCE / "values.json").read_text())["instances"]
    record = next(record for record in records if record["name"] == name)
    path = REFERENCE / "instances" / f"{name}.npz"
    hamiltonian = mc.models.from_file(str(path), shape="x".join(map(str, record["dims"])))
    assert hamiltonian.lattice.periodic == tuple(record["periodic"])
    assert hamiltonian.is_nearest_neighbour
    data = arrays_of(path)
    spins = np.random.default_rng(0).choice(np.array([-1, 1], np.int8), size=(20, record["N"]))
    J, h = data["J"].astype(float), data["h"].astype(float)
    energies = -(J * spins[:, data["i"]] * spins[:, data["j"]]).sum(-1) - (h * spins).sum(-1)
    assert hamiltonian.energy(spins) == pytest.approx(energies)


def test_a_file_may_hold_any_order(tmp_path):
    sites, couplings = np.array([[0, 1, 2], [1, 2, 3]]), np.array([1.0, -0.5])
    np.savez(tmp_path / "x.npz", sites_3=sites, couplings_3=couplings, h=np.ones(4))
    hamiltonian = mc.models.from_file(str(tmp_path / "x.npz"))
    assert (
        hamiltonian.fingerprint
        == mc.Hamiltonian(4, [(sites, couplings), (np.arange(4)[:, None], np.ones(4))]).fingerprint
    )


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"i": [0], "j": [1]}, "no array J"),
        ({"i": [0], "j": [0], "J": [1.0]}, "with itself"),
        ({"i": [0], "j": [5], "J": [1.0], "h": [0.0, 0.0]}, "outside"),
        ({"i": [0], "j": [-1], "J": [1.0]}, "outside"),
        ({"i": [0], "j": [1], "J": [float("inf")]}, "NaN or infinite"),
        ({"i": [0, 1], "j": [1], "J": [1.0]}, "differ in length"),
        ({"i": [0.5], "j": [1.0], "J": [1.0]}, "integers"),
        ({"x": [1]}, "neither"),
    ],
)
def test_files_that_make_no_sense_are_refused(arrays, complaint, tmp_path):
    np.savez(tmp_path / "x.npz", **{name: np.array(values) for name, values in arrays.items()})
    with pytest.raises(ValueError, match=complaint):
        mc.models.from_file(str(tmp_path / "x.npz"))


def test_pickles_in_a_file_are_not_opened(tmp_path):
    np.savez(tmp_path / "x.npz", J=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="not a readable"):
        mc.models.from_file(str(tmp_path / "x.npz"))
