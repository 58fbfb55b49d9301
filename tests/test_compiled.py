"""The cache of compiled kernels: one folder a version of the source, never a reason not to start."""

import os
import time

import numba
import pytest

from mc.compiled import digest, use_own_cache


@pytest.fixture
def own(monkeypatch):
    """No folder asked for, and Numba's setting put back afterwards."""
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")


def test_the_folder_is_named_after_the_source_and_old_ones_go(own, tmp_path):
    old, young = tmp_path / "0123", tmp_path / "4567"
    for folder in (old, young):
        (folder / "deep").mkdir(parents=True)
    os.utime(old, (time.time() - 40 * 86400,) * 2)
    folder = use_own_cache(tmp_path)
    assert folder == tmp_path / digest()
    assert str(folder) == numba.config.CACHE_DIR
    assert folder.is_dir()
    assert young.is_dir()
    assert not old.exists()
    assert use_own_cache(tmp_path) == folder


def test_the_environment_and_a_place_that_cannot_be_written_leave_numba_alone(own, tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert use_own_cache(blocked) is None
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert use_own_cache(tmp_path) is None
    assert numba.config.CACHE_DIR == ""
