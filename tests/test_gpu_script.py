"""`benchmarks/gpu.py` with tiny sizes on the CPU: all sections run, and say what they found or could not."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mc.models import ea2d
from nmcmc.networks.visibility import make_visibility
from nmcmc.recipe import NetSettings, build_sampler

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def imported(name):
    """A module of benchmarks/, which is no package; its neighbours are found as when it runs as a script."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", BENCHMARKS / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def gpu():
    return imported("gpu")


def run_script(*words):
    command = [sys.executable, BENCHMARKS / "gpu.py", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=500, env=ENVIRONMENT)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What a small run wrote."""
    out = tmp_path_factory.mktemp("gpu") / "gpu.json"
    done = run_script("--device", "cpu", "--small", "--out", str(out))
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(out.read_text())


@pytest.mark.slow
class TestSmallRun:
    def test_every_section_is_there_and_nothing_failed(self, found, gpu):
        assert set(gpu.SECTIONS) <= set(found)
        assert found["failed"] == []
        assert "error" not in json.dumps([found[name] for name in ("agreement", "throughput", "4,096-spin steps")])

    def test_what_needs_cuda_is_said_not_to_be_measured(self, found):
        machine, speed = found["hardware"]["machine"], found["speed-ups"]
        for said in (
            machine["gpu"], found["hardware"]["peaks"]["tf32_flops"], speed["CUDA graphs"]["replay_seconds"],
            speed["torch.compile"]["compiled_seconds"], speed["bf16 and float32"]["bf16"],
        ):  # fmt: skip
            assert said == "not measured: needs CUDA"

    def test_float32_agrees(self, found):
        rows = [row for name, row in found["agreement"].items() if isinstance(row, dict) and "float32" in row]
        assert len(rows) == 4
        assert all(row["float32"]["drawn_and_scored"] < 1e-4 for row in rows)

    def test_rates_are_positive_and_fractions_below_one(self, found):
        rows = [row for row in found["throughput"].values() if isinstance(row, dict)]
        assert len(rows) == 5
        for row in rows:
            assert row["samples_a_second"] > 0
            assert row["training"]["steps_a_second"] > 0
            assert 0 < row["draw"]["of_peak_flops"] < 1
            assert 0 < row["training"]["fit"]["of_peak_flops"] < 1

    def test_compiling_changes_no_loss(self, found):
        row = found["speed-ups"]["torch.compile"]
        assert row["compiled_loss"] == pytest.approx(row["eager_loss"], rel=1e-5)

    def test_overlaps_come_with_a_verdict(self, found):
        rows = [row for name, row in found["P(q) of ea3d"].items() if name.startswith("T=")]
        assert [row["T"] for row in rows] == [1.92, 1.28, 0.64, 0.1]
        assert all(row["verdict"] for row in rows)
        assert 0 < rows[0]["ess"] <= 1
        assert rows[0]["mean_abs_q"] < rows[-1]["mean_abs_q"]

    def test_free_energies_are_near_kaufmans(self, found):
        rows = [row for row in found["ESS reached"].values() if isinstance(row, dict)]
        assert len(rows) == 2
        for row in rows:  # 16 draws
            assert abs(row["log_z"] - row["log_z_exact"]) < 6 * row["log_z_error"]
            assert row["steps"] == 4


class TestRunning:
    def job(self, found):
        def run(seconds):
            if isinstance(found, Exception):
                raise found
            return found

        return run

    def run(self, gpu, monkeypatch, sections, seconds=10.0, out=None):
        monkeypatch.setattr(
            gpu, "SECTIONS", {name: (1.0, lambda bench, j=jobs: j) for name, jobs in sections.items()}
        )
        report = gpu.Report(out)
        gpu.run(gpu.Bench(torch.device("cpu"), True), report, list(sections), seconds)
        return report

    def test_a_failure_is_kept_and_the_rest_goes_on(self, gpu, monkeypatch, tmp_path, capsys):
        out = tmp_path / "results" / "gpu.json"
        jobs = {"bad": self.job(ValueError("no such thing\nsecond line")), "good": self.job({"x": np.float64(2.0)})}
        report = self.run(gpu, monkeypatch, {"one": jobs, "two": {"late": self.job({"y": math.nan})}}, out=out)
        found = json.loads(out.read_text())
        assert report.failed == found["failed"] == ["one / bad"]
        assert found["one"]["bad"] == {"error": "ValueError: no such thing"}
        assert found["one"]["good"] == {"x": 2.0}
        assert found["two"]["late"] == {"y": None}
        assert "no such thing" in capsys.readouterr().err

    def test_without_time_rows_are_said_not_to_be_measured(self, gpu, monkeypatch):
        report = self.run(gpu, monkeypatch, {"one": {"row": self.job({})}}, seconds=-1.0)
        assert report.figures["one"]["row"] == "not measured: out of time"
        assert report.failed == []

    def test_each_job_is_told_its_share(self, gpu, monkeypatch):
        told = []
        jobs = {str(i): lambda seconds: told.append(seconds) or {} for i in range(4)}
        self.run(gpu, monkeypatch, {"one": jobs, "two": {}}, seconds=8.0)
        assert told[0] == pytest.approx(1.0, abs=0.1)  # half of the time, a quarter of it
        assert told[-1] == pytest.approx(4.0, abs=1.0)  # the others left theirs

    def test_batches_are_halved_until_they_fit(self, gpu):
        def job(n):
            if n > 5:
                raise torch.cuda.OutOfMemoryError("too large")
            return 10 * n

        bench = gpu.Bench(torch.device("cpu"), True)
        assert bench.halved_until_it_fits(job, 16) == (4, 40)
        with pytest.raises(MemoryError, match="not even one"):
            bench.halved_until_it_fits(lambda n: job(6), 2)

    @pytest.mark.parametrize("words", [("--minutes", "0"), ("--minutes", "60"), ("--sections", "tea")])
    def test_refusals(self, gpu, monkeypatch, capsys, words):
        monkeypatch.setattr(sys, "argv", ["gpu.py", "--device", "cpu", *words])
        with pytest.raises(SystemExit) as stopped:
            gpu.main()
        assert stopped.value.code == 2
        assert words[1] in capsys.readouterr().err

    @pytest.mark.skipif(torch.cuda.is_available(), reason="a machine without CUDA")
    def test_no_cuda_is_said_at_once(self, gpu, monkeypatch, capsys):
        monkeypatch.setattr(sys, "argv", ["gpu.py"])
        with pytest.raises(SystemExit) as stopped:
            gpu.main()
        assert stopped.value.code == 2
        assert "--device cpu --small" in capsys.readouterr().err


class TestCounts:
    @pytest.mark.parametrize("mask", ["full", "window:20", "window:20+first", "boundary", "window:64"])
    def test_visible_keys(self, mask):
        rows = imported("gpu_rows")
        hamiltonian = ea2d(L=8, seed=1)
        sampler = build_sampler(hamiltonian, 0.5, NetSettings(patch=(1, 2), prior="local"))
        visibility = make_visibility(mask, hamiltonian, sampler.tokens)
        assert rows.visible_keys(visibility) == visibility.allowed().sum()

    def test_flops_of_a_pass_are_those_that_torch_counts(self):
        """The formula against a counter of matrix products and attention; drawing has as many as a pass."""
        from torch.utils.flop_counter import FlopCounterMode

        rows = imported("gpu_rows")
        net = NetSettings(patch=(2, 2), prior="local", width=32, layers=2, backend="reference")
        sampler = build_sampler(ea2d(L=8, seed=1), 0.5, net)
        tokens = torch.zeros(3, sampler.tokens.n_tokens, dtype=torch.int64)
        with FlopCounterMode(display=False) as counter:
            sampler.network(tokens)
        counted = counter.get_total_flops() / 3
        flops, bytes_ = rows.drawing_counts(sampler, 3)
        hidden = 4 * 32 * 2 * (sampler.tokens.n_tokens - 2) * (sampler.tokens.n_tokens - 1) / 2  # masked, computed
        assert counted == pytest.approx(flops + hidden, rel=1e-12)
        assert bytes_ > 0
        assert rows.training_counts(sampler)[0] == pytest.approx(3 * flops)

    def test_verdicts(self):
        physics = imported("gpu_physics")
        assert physics.verdict(0.001, 4096).startswith("useless")
        assert physics.verdict(0.006, 4096).startswith("poor")
        assert physics.verdict(0.5, 4096).startswith("usable")
        assert physics.distinct(np.array([[1, -1, 1], [-1, 1, -1], [1, 1, 1]], np.int8)) == 2
        betas = physics.ladder(False)
        assert (np.diff(betas) > 0).all()
        for T in physics.TEMPERATURES:
            assert np.abs(betas * T - 1).min() < 1e-6

    def test_a_cut_off_run_keeps_what_it_has(self, gpu, monkeypatch, tmp_path):
        left = []
        monkeypatch.setattr(gpu, "os", SimpleNamespace(_exit=left.append))
        report = gpu.Report(tmp_path / "gpu.json")
        report.add("one", "row", {"x": 1})
        gpu.cut_off(report)
        found = json.loads((tmp_path / "gpu.json").read_text())
        assert found["one"] == {"row": {"x": 1}}
        assert found["failed"] == ["cut off: out of time"]
        assert left == [1]
