"""Runs of the command line against exactly known instances; `benchmarks/reference_table.py` does all of them.

Each row asks for |z| < 4 of a Gaussian error: a false alarm once in 16,000 rows. Seeds are fixed.
"""

import json
import sys
from pathlib import Path

import pytest

from cli.main import main

REFERENCE = Path(__file__).parent / "data" / "reference"
RECORDS = {record["name"]: record for record in json.loads((REFERENCE / "values.json").read_text())["instances"]}


def run(capsys, monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["nmcmc", "run", *map(str, words), "--json", "--quiet"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    return json.loads(capsys.readouterr().out.strip().splitlines()[-1])


def model(name):
    words = ["file", f"path={REFERENCE / 'instances' / (name + '.npz')}"]
    return words if name.startswith("sk") else [*words, "shape=" + "x".join(map(str, RECORDS[name]["dims"]))]


def check(estimate, exact):
    assert estimate["error"] < 5e-3 * abs(exact)
    assert abs(estimate["mean"] - exact) < 4 * estimate["error"]


@pytest.mark.statistical
@pytest.mark.parametrize("name", ["ea2d_L8_gauss_per", "ea2d_L6_gauss_open_hgauss0.5", "sk_N16_hgauss0.3"])
def test_tempering_reproduces_exact_energies_at_every_beta(name, tmp_path, capsys, monkeypatch):
    values = RECORDS[name]["values"]
    betas = sorted({0.1, 0.3, 0.45, 0.75, 1.2, 1.6} | {value["beta"] for value in values})
    words = [*model(name), "beta=" + ",".join(map(str, betas)), "--mode", "pt", "--draws", 10_000]
    result = run(capsys, monkeypatch, *words, "--out", tmp_path / "pt.h5")
    rows = {row["beta"]: row for row in result["results"]}
    assert values
    for value in values:
        check(rows[value["beta"]]["energy"], value["U"])


@pytest.mark.slow
@pytest.mark.statistical
@pytest.mark.parametrize(("name", "beta"), [("ea2d_L4_pm_per", 0.6), ("sk_N16", 0.9), ("ea3d_L3_gauss_per", 0.6)])
def test_neural_modes_reproduce_exact_energies_and_log_z(name, beta, tmp_path, capsys, monkeypatch):
    exact = next(value for value in RECORDS[name]["values"] if value["beta"] == beta)
    for mode in ("nis", "nmcmc"):
        words = [*model(name), f"beta={beta}", "train.steps=100", "train.batch=128", "--draws", 10_000]
        result = run(capsys, monkeypatch, *words, "--mode", mode, "--out", tmp_path / f"{mode}.h5")
        check(result["results"][0]["energy"], exact["U"])
        check(result["results"][0]["log_z"], exact["lnZ"])
        assert result["diagnostics"]["rescore_error"] < 1e-3
        assert abs(result["diagnostics"]["log_z_sigma"]) < 4
