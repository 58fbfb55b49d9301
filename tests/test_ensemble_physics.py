"""Ratios of averaged moments and the energy-overlap identity of an ensemble file, on the command line and off it."""

import numpy as np
import pytest

from cli.ensemble_physics import physics_lines
from mc.ensemble import open_ensemble
from mc.spin_glass import glass_binder
from mc.statistics import jackknife


@pytest.fixture
def ensemble(nmcmc, tmp_path):
    """Makes an ensemble of short runs of 3 x 3 x 3 glasses: (J, samples) -> its path."""

    def make(J, samples):
        files = []
        for seed in range(samples):
            files.append(str(tmp_path / f"{J}-{seed}.h5"))
            model = ("ea3d", "L=3", f"J={J}", f"seed={seed}", "beta=0.3,0.6,0.9", "replicas=2")
            size = ("--draws", "150", "--chains", "2", "--rng-seed", str(seed))
            nmcmc("run", "--mode", "pt", *model, *size, "--out", files[-1], "--quiet")
        path = tmp_path / f"{J}.h5"
        nmcmc("merge", *files, "--out", str(path))
        return path

    return make


@pytest.mark.statistical
def test_gaussian_samples_fulfil_the_identity_and_have_ratios_of_averages(nmcmc, ensemble):
    path = ensemble("gaussian", 22)
    there = open_ensemble(path)
    lines = physics_lines(there)
    # Samples this few and small may leave it open, but they are in equilibrium: 1 in 16000 for a "no".
    assert lines[-1].startswith("equilibrated, by the energy-overlap identity: ")
    assert "identity: no " not in lines[-1]
    assert "from the link overlap" in lines[-1]
    assert lines[0].split() == ["of", "the", "averaged", "moments", "g", "error", "xi/L", "error"]
    values = {name: there.summary.observables[name]["mean"][:, 1, None] for name in ("q2", "q4")}
    g, error = jackknife(glass_binder, values, 22)
    row = [float(word) for word in lines[2].split()]
    assert row[:3] == pytest.approx([0.6, g, error], rel=0.02)
    assert 0 < row[3] < 1
    assert lines[-1] in nmcmc("analyze", str(path)).out


def test_hot_samples_without_a_correlation_length_leave_a_gap(nmcmc, tmp_path):
    files = [str(tmp_path / f"{seed}.h5") for seed in range(3)]
    for seed, path in enumerate(files):
        model = ("ea3d", "L=3", f"seed={seed}", "beta=0,0.1", "replicas=2")
        nmcmc("run", "--mode", "pt", *model, "--draws", "20", "--rng-seed", str(seed), "--out", path, "--quiet")
    nmcmc("merge", *files, "--out", str(tmp_path / "all.h5"))
    assert "of the averaged moments" in nmcmc("analyze", str(tmp_path / "all.h5")).out


def test_other_samples_are_not_asked(ensemble):
    line = physics_lines(open_ensemble(ensemble("bimodal", 20)))[-1]
    assert line.startswith("energy-overlap identity: not asked (couplings are +-J")
    few = physics_lines(open_ensemble(ensemble("gaussian", 3)))
    assert "3 disorder samples" in few[-1]
    assert np.isfinite(float(few[1].split()[1]))
