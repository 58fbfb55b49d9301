"""`nmcmc phase-diagram`: its cells against the chain files it leaves, its words, and going on."""

import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import mc
from cli.phase_diagram import ladder
from mc.exact.vector_glass import glass_of

SMALL = ("phase-diagram", "vector", "N=6", "D=4", "coupling=symmetric", "seed=2", "--draws", 60, "--warmup", 200)


def test_a_ladder_has_the_temperatures_asked_for_and_steps_that_swap():
    asked = [1.0, 0.01, 0.3]
    found = ladder(asked, 20, 8)
    assert found == sorted(found, reverse=True)
    assert set(asked) <= set(found)
    capacity = 20 * (8 - 1) / 2  # of cold spins
    assert max(math.log(hot / cold) for hot, cold in pairwise(found)) * math.sqrt(capacity) < 1.3 + 1e-12


def test_cells_are_those_of_the_chain_files_and_a_second_call_adds_nothing(nmcmc):
    words = (*SMALL, "T=0.1,1", "h=0,2", "replicas=3", "--out", "phases", "--json")
    found = nmcmc(*words).json
    assert [(cell["h"], cell["T"]) for cell in found["cells"]] == [(0, 0.1), (0, 1), (2, 0.1), (2, 1)]
    for cell in found["cells"]:
        chain = mc.open_chain(f"phases/h={cell['h']:g}.h5")
        b = int(np.argmin(np.abs(chain.betas - 1 / cell["T"])))
        q = chain.posterior["overlap"][0, :, b]
        assert q.shape == (60, 3)
        assert cell["mean"] == pytest.approx(np.mean([abs(value) for row in q for value in row]))
        assert cell["spread"] == pytest.approx(np.mean([np.std(row) for row in q]))
        tensors = chain.posterior["overlap_norm"][0, :, b]
        assert cell["chi_sg"] == pytest.approx(6 * np.mean([value**2 for row in tensors for value in row]))
        assert cell["below_line"] == glass_of(chain.hamiltonian()).is_unstable(cell["T"], cell["h"])
        last, radius = chain.spins[0, -1, b].astype(float), chain.hamiltonian().radius
        literal = [[(one * other).sum() / (6 * radius**2) for other in last] for one in last]
        assert np.array(cell["matrix"]) == pytest.approx(np.array(literal), abs=1e-6)
        assert cell["rotation"] <= 1 + 1e-6
    assert json.loads(Path("phases/phase-diagram.json").read_text())["cells"] == found["cells"]
    assert [cell["below_line"] for cell in found["cells"]] == [True, False, False, False]  # T_c 0.25, h_AT(0) 0.66
    field = {cell["T"]: cell["mean"] for cell in found["cells"] if cell["h"] == 2}
    assert field[0.1] > field[1]  # colder replicas lie more alike along their fields
    again = nmcmc(*words)
    assert again.json["cells"] == found["cells"]


def test_a_time_limit_stops_it_and_the_same_command_goes_on(nmcmc):
    words = (*SMALL, "T=0.1,1", "h=0,2", "replicas=2", "--out", "phases")
    stopped = nmcmc(*words, "--time-limit", 0.001, "--json")
    assert "stopped at h=0 (0 of 60 draws are there); the same command again goes on" in stopped.out
    assert (stopped.json["complete"], stopped.json["cells"]) == (False, [])
    assert not Path("phases/phase-diagram.json").exists()
    assert len(nmcmc(*words, "--json").json["cells"]) == 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("phase-diagram", "ising", "T=1,2", "h=0"), "use model vector"),
        (("phase-diagram", "vector", "N=6", "D=4", "h=0"), "no T="),
        (("phase-diagram", "vector", "N=6", "D=4", "T=1,2"), "no h="),
        (("phase-diagram", "vector", "N=6", "D=4", "T=1", "h=0"), "two or more different temperatures"),
        (("phase-diagram", "vector", "N=6", "D=4", "T=1,-2", "h=0"), "above 0"),
        (("phase-diagram", "vector", "N=6", "D=4", "T=1,2", "h=-1"), "at least 0"),
        (("phase-diagram", "vector", "N=6", "D=4", "T=1,2", "h=1e200"), "beyond 1e+100"),
        (("phase-diagram", "vector", "N=6", "D=4", "T=1e-200,1e200", "h=0"), "too far apart for a ladder"),
        (("phase-diagram", "vector", "N=6", "D=4", "T=1,2", "h=0", "replicas=1"), "at least 2"),
        (("phase-diagram", "vector", "N=6", "D=4", "T=1,2", "h=0", "ladder=tuned"), "ladder"),
        (("phase-diagram", "vector", "N=6", "D=2", "T=1,2", "h=0"), "D=2"),
        (("phase-diagram", "vector", "N=6", "D=4", "T=1,2", "h=0", "energy=loss"), "no fixed norm"),
        (("phase-diagram", "vector", "N=6", "D=4", "T=1,2", "h=0", "instances=0:2"), "of one seed="),
        (("phase-diagram", "vector", "N=6", "D=4", "T=1,2", "h=0", "spins.every=3"), "leave spins.every= out"),
    ],
)
def test_words_that_do_not_fit_are_refused_in_one_line(nmcmc, tmp_path, words, said):
    err = nmcmc(*words, code=2).err
    assert said in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
