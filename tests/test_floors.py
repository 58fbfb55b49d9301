"""The direction of the house: cli -> nmcmc -> mc, never up; and every floor is in the package."""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ABOVE = {"mc": {"torch", "nmcmc", "cli"}, "nmcmc": {"cli"}}


def imported(path: Path) -> set[str]:
    """Top-level names of all packages that a file imports, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.split(".")[0])
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            names |= {arg.value.split(".")[0] for arg in node.args if isinstance(arg, ast.Constant)}
    return names


@pytest.mark.parametrize("floor", ABOVE)
def test_no_floor_imports_what_is_above_it(floor):
    files = sorted((ROOT / floor).rglob("*.py"))
    assert len(files) > 10
    for path in files:
        above = imported(path) & ABOVE[floor]
        assert not above, f"{path.relative_to(ROOT)} imports {', '.join(sorted(above))}"


def test_the_walk_sees_imports_of_every_kind(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(
        "import a.b as c\ndef f():\n    from d.e import g\n    importlib.import_module('h.i')\nfrom . import j\n"
    )
    assert imported(path) == {"a", "d", "h"}


def test_every_folder_with_modules_is_a_package_that_is_installed():
    folders = {path.parent for floor in ("mc", "nmcmc", "cli") for path in (ROOT / floor).rglob("*.py")}
    expected = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    find_packages = pytest.importorskip("setuptools").find_packages
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    assert set(find_packages(str(ROOT), **settings)) == expected
