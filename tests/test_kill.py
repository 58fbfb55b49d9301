"""kill -9 at random instants, twenty times in all; `benchmarks/kill_test.py` does more of it."""

import pytest

from benchmarks.kill_test import CASES, kill_often

pytest.importorskip("arviz")
pytest.importorskip("h5netcdf")


@pytest.mark.slow
@pytest.mark.parametrize(("case", "more", "kills"), [("nmcmc", ("train.batch=64",), 8), ("pt", (), 12)])
def test_killed_runs_lose_nothing_and_end_as_if_left_alone(case, more, kills, tmp_path):
    counts = kill_often(CASES[case] + more, kills, seed=3, root=tmp_path)
    assert counts.pop("runs compared") >= 1
    assert sum(counts.values()) == kills
