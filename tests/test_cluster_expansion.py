"""Cluster expansions from JSON: one written by hand, and every way in which a file can be wrong."""

import copy
import json
import math

import numpy as np
import pytest

from mc import models
from mc.hamiltonian import Hamiltonian
from mc.models.alloy import CUAU, companions
from mc.models.cluster_expansion import read_cluster_expansion

EXPANSION = json.loads(CUAU.read_text())


def test_another_expansion(tmp_path):
    path = tmp_path / "other.json"
    chain = {
        "eci": {"c0": 0.5, "c1_0": 0.25, "bond": -1.0},
        "orbits_containing_origin": {"bond": [[[0, 0, 0], [2, 0, 0]], [[-2, 0, 0], [0, 0, 0]]]},
        "primitive_vectors_half_a": [[2, 0, 0], [0, 2, 0], [0, 0, 2]],
        "reference_energies_eV_per_site": {"Ni": -0.25, "Al": -0.75},
        "spin": "Al = -1, Ni = +1",
        "kB_eV_per_K": 1e-4,
    }
    path.write_text(json.dumps(chain))
    hamiltonian = models.alloy("6x1x1", path=str(path))
    # E / N = 1/2 + <s> / 4 - <s s'>, less that of the pure crystals, (e_Al + e_Ni) / 2 + <s> (e_Ni - e_Al) / 2.
    expected = Hamiltonian(6, [([[i, (i + 1) % 6] for i in range(6)], np.ones(6))], 6.0, k_B=1e-4)
    assert hamiltonian.fingerprint == expected.fingerprint
    assert list(companions(hamiltonian)) == ["formation_energy", "x_Ni"]
    assert hamiltonian.parameters["path"] == str(path)


def changed(path, value):
    """The expansion with one entry replaced, `path` a tuple of keys; None leaves the entry out."""

    def change(content):
        *above, last = path
        for key in above:
            content = content[key]
        if value is None:
            del content[last]
        else:
            content[last] = value

    return change


ORBIT = ("orbits_containing_origin", "c2_d0001_0_00")
BAD = {
    "no eci": (changed(("eci",), None), "no key eci"),
    "no k_B": (changed(("kB_eV_per_K",), None), "no key kB_eV_per_K"),
    "no c0": (changed(("eci", "c0"), None), "eci: no c0"),
    "no number": (changed(("eci", "c0"), "much"), "eci: c0: much, a finite number"),
    "NaN": (changed(("eci", "c3_d0000_0_000"), math.nan), "eci: c3_d0000_0_000: nan, a finite number"),
    "infinite": (changed(("reference_energies_eV_per_site", "Au"), -math.inf), "_per_site: Au: -inf"),
    "true": (changed(("kB_eV_per_K",), True), "kB_eV_per_K: True"),
    "cold": (changed(("kB_eV_per_K",), 0.0), "kB_eV_per_K: 0, a number above 0"),
    "eci without clusters": (changed(ORBIT, None), "eci: c2_d0001_0_00 has no clusters"),
    "clusters without eci": (changed(("eci", ORBIT[1]), None), "c2_d0001_0_00 has no number in eci"),
    "no list": (changed(ORBIT, "none"), "c2_d0001_0_00: n x n x 3 whole numbers"),
    "eci is a list": (changed(("eci",), [1.0]), "eci: {name: ...}"),
    "empty": (changed(ORBIT, []), "c2_d0001_0_00: n x n x 3 whole numbers"),
    "ragged": (changed(ORBIT, [[[0, 0, 0], [2, 0, 0]], [[0, 0, 0]]]), "c2_d0001_0_00: lists of unequal"),
    "one site": (changed(ORBIT, [[[0, 0, 0]]]), "c2_d0001_0_00: clusters of at least two"),
    "no origin": (changed((*ORBIT, 1), [[2, 0, 0], [4, 0, 0]]), "c2_d0001_0_00: a cluster does not contain"),
    "no integers": (changed((*ORBIT, 1), [[0, 0, 0], [0, 1.5, 0]]), "c2_d0001_0_00: whole numbers"),
    "off the lattice": (changed((*ORBIT, 1), [[0, 0, 0], [1, 0, 0]]), "c2_d0001_0_00: a site is not on the lattice"),
    "twice the site": (changed((*ORBIT, 1), [[0, 0, 0], [0, 0, 0]]), "c2_d0001_0_00: a cluster holds a site twice"),
    "twice the cluster": (changed((*ORBIT, 1), [[0, 0, 0], [-2, 0, 0]]), "c2_d0001_0_00: a cluster is listed twice"),
    "not all": (changed((*ORBIT, 1), [[0, 0, 0], [4, 0, 0]]), "c2_d0001_0_00: of a cluster and its translations"),
    "one element": (changed(("reference_energies_eV_per_site", "Cu"), None), "1 elements, a binary alloy has two"),
    "three elements": (changed(("reference_energies_eV_per_site", "Ag"), 0.1), "3 elements, a binary alloy has two"),
    "who is who": (changed(("spin",), "Au=+1, Cu=+1"), "spin: which of"),
    "others": (changed(("spin",), "Ag=+1, Cu=-1"), "spin: which of"),
    "two vectors": (changed(("primitive_vectors_half_a",), [[0, 1, 1], [1, 0, 1]]), "_half_a: 3 x 3 whole"),
    "flat": (changed(("primitive_vectors_half_a", 2), [1, 1, 2]), "primitive_vectors_half_a: the three vectors lie"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_in_one_line_that_names_file_and_key(name, tmp_path):
    change, said = BAD[name]
    content, path = copy.deepcopy(EXPANSION), tmp_path / "bad.json"
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"^alloy: path=") as refused:
        read_cluster_expansion(path)
    assert said in str(refused.value)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("text", "said"), [(None, "no such file"), ("{", "is not a readable JSON file"),
                                            ("[1]", "with keys eci")])  # fmt: skip
def test_files_that_are_no_expansion(text, said, tmp_path):
    path = tmp_path / "bad.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=said) as refused:
        models.alloy(path=str(path))
    assert str(path) in str(refused.value)
