"""The cache of compiled kernels: one folder a version of the source, never a reason not to start."""

import os
import time
from pathlib import Path

import numba
import pytest

import mc
from mc.compiled import digest, sources, use_own_cache


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


def test_the_version_is_that_of_the_files_compiled_code_depends_on(tmp_path):
    """Kernels and what they import, in one line or in parentheses; a file that only reads chains changes nothing."""
    files = {
        "kernel.py": "from mc.tables import (\n    WIDTH,\n)\nfrom numba import njit\nfrom mc import words\n",
        "tables.py": "import mc.deeper\n",
        "words.py": "",
        "deeper.py": "",
        "reader.py": "from mc.kernel import sweep\n",
    }
    (tmp_path / "mc").mkdir()
    for name, text in files.items():
        (tmp_path / "mc" / name).write_text(text)
    found = [path.name for path in sources(tmp_path)]
    assert found == ["deeper.py", "kernel.py", "tables.py", "words.py"]
    assert {"batch.py", "wolff.py", "hamiltonian.py"} <= {path.name for path in sources(Path(mc.__file__).parents[1])}
