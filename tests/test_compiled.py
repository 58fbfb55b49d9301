"""The cache of compiled kernels: one folder a version of the source, never a reason not to start."""

import os
import subprocess
import sys
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


SCRIPT = """
import sys
import numba, numpy as np
from numba.core import types
sys.path.insert(0, {folder!r})
import mc
import shared
if {own}:
    import own_type
    print(shared.second(own_type.Pair(1, 2)))
print(shared.second((3, 4)))
"""


def test_a_type_of_a_script_does_not_stop_other_programs(tmp_path):
    """A named tuple from a module that the next program cannot import, in the index of a function both use."""
    (tmp_path / "home").mkdir()
    (tmp_path / "shared.py").write_text(
        "import numba\n@numba.njit(cache=True)\ndef second(pair):\n    return pair[1]\n"
    )
    (tmp_path / "own_type.py").write_text("import collections\nPair = collections.namedtuple('Pair', 'a b')\n")
    environment = os.environ | {
        "PYTHONPATH": str(Path(mc.__file__).parents[1]),
        "NUMBA_CACHE_DIR": str(tmp_path / "home"),
    }
    for own in (True, False):
        if not own:
            (tmp_path / "own_type.py").unlink()
        program = SCRIPT.format(folder=str(tmp_path), own=own)
        done = subprocess.run([sys.executable, "-B", "-c", program], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split()[-1] == "4"
