"""The documentation: it builds, loads nothing from elsewhere, and what it prints works."""

import math
import os
import re
import subprocess
import sys

import pytest
import typer

import cli.main
import mc.engine
import mc.models
from cli.export import FORMATS
from cli.figures import FIGURES, OF_SEVERAL
from cli.settings import MODES, SETTINGS
from mc.models import MODELS
from tests.printed import ROOT, blocks, commands, lines, require_accepted

DOCS = ROOT / "docs"
PAGES = sorted(path.name for path in DOCS.glob("*.md"))
WORKED = ("tutorial.md", "analysis.md", "finite-size.md", "alloys.md", "any-order.md", "vector-spins.md",
          "python.md", "chain-file.md",
          "add-a-model.md", "add-a-prior.md", "add-a-network.md")  # fmt: skip
ALONE = ("add-a-kernel.md",)  # in a process of their own: a compilation cache must not hold what a page defines
PATHS = re.compile(r"`((?:mc|nmcmc|cli|tests|examples|benchmarks|docs)/[\w./-]*)`")
SETTING = re.compile(r"(?<![\w.])((?:prior|net|train|anneal|distill|spins|neural)\.[a-z_]+)=")


def text_of(page):
    return (DOCS / page).read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_site_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("mkdocs")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = list(tmp_path.glob("*.html"))
    assert {f"{name[:-3]}.html" for name in PAGES} <= {page.name for page in pages}
    for page in pages:
        html = page.read_text(encoding="utf-8")
        for tag in re.findall(r"<(?:script|link|img|iframe|source)\b[^>]*>", html):
            assert not re.search(r"(?:src|href)=[\"']?(?:https?:)?//", tag), f"{page.name}: {tag}"
    for sheet in tmp_path.rglob("*.css"):
        assert not re.search(r"url\([\"']?(?:https?:)?//|@import", sheet.read_text(encoding="utf-8")), sheet


def test_the_pages_name_commands():
    assert sum(len(commands(text_of(page))) for page in PAGES) > 100


@pytest.mark.parametrize("page", PAGES)
def test_every_command_on_a_page_is_one_that_the_command_line_takes(page):
    for command in commands(text_of(page)):
        require_accepted(command)


@pytest.mark.parametrize("page", PAGES)
def test_files_settings_and_pictures_that_a_page_names_exist(page):
    text = text_of(page)
    for path in PATHS.findall(text):
        assert "NAME" in path or (ROOT / path).exists(), f"{page}: no {path}"
    for setting in SETTING.findall(text):
        assert setting in SETTINGS, f"{page}: no setting {setting}"
    for picture in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text):
        assert (DOCS / picture).is_file(), f"{page}: no picture {picture}"


def test_a_wrong_command_is_noticed():
    for wrong in ("nmcmc run --mode nmcm ising L=4", "nmcmc run --mode pt ising L=4 bta=1", "nmcmc plott x.h5",
                  "nmcmc run --mode wolff ising L=4 --drws 3", "python examples/none.py",
                  "nmcmc run --mode wolff ising L=4 net=none"):  # fmt: skip
        with pytest.raises(Exception):  # noqa: B017, PT011 - of several kinds
            require_accepted(wrong)


def test_no_mode_model_command_figure_or_format_is_left_out():
    everything = "".join(map(text_of, PAGES))
    named = (*MODES, *MODELS, *FIGURES, *OF_SEVERAL, *FORMATS)
    named += tuple(f"nmcmc {name}" for name in typer.main.get_command(cli.main.app).commands)
    for name in named:
        assert re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", everything), f"{name} is named nowhere"


@pytest.fixture
def restored():
    """Registries that pages add to."""
    saved = [(registry, dict(registry)) for registry in (mc.models.MODELS, mc.engine.KERNELS)]
    yield
    for registry, entries in saved:
        registry.clear()
        registry.update(entries)


@pytest.mark.slow
@pytest.mark.parametrize("page", WORKED)
def test_a_page_works_from_top_to_bottom(page, nmcmc, restored):
    if "arviz" in text_of(page) or "xarray" in text_of(page):
        for module in ("xarray", "h5netcdf", "arviz"):
            pytest.importorskip(module)
    if "nmcmc plot" in text_of(page):
        pytest.importorskip("matplotlib")
    namespace = {"__name__": page}
    printed = ""
    for language, block in re.findall(r"```(bash|python|text)\n(.*?)```", text_of(page), re.S):
        if language == "python" and not block.startswith("# not run:"):
            exec(compile(block, page, "exec"), namespace)
        elif language == "bash":
            long = [command for command, comment in lines(block) if "minute" in comment]
            short = [command for command, _ in lines(block) if command.startswith("nmcmc ") and command not in long]
            printed = "" if long else "\n".join(nmcmc(*command.split()[1:]).out for command in short)
        elif language == "text" and printed:
            missing = shapes(block) - shapes(printed)
            assert not missing, f"{page} shows what is not printed: {missing}"
            shown, found = rows(block), rows(printed)
            for row in shown.keys() & found.keys():
                (one, its_error), (other, error) = shown[row], found[row]
                assert abs(one - other) < 6 * math.hypot(its_error, error), f"{page}: {row} is {other}, not {one}"


def rows(text):
    """{(beta, observable): (mean, error)} of the tables of a run."""
    found = re.findall(r"^ *(\S+) +([a-z]\w+) +([-+.\de]+) +([.\de-]+) ", text, re.M)
    return {(beta, name): (float(mean), float(error)) for beta, name, mean, error in found if error != "-"}


def test_numbers_that_a_page_shows_are_read():
    text = "      beta  observable      mean   error  tau_int\n       0.5  energy   -12.80001   0.11  0.513(32)\n"
    assert rows(text + "       0.5  q   0.035   -   -\n") == {("0.5", "energy"): (-12.80001, 0.11)}


def shapes(text):
    """The lines of an output with # for numbers, which differ between machines."""
    number = re.compile(r"(?<![\w=])[-+]?\d+(\.\d+)?(e[-+]?\d+)?")
    return {" ".join(number.sub("#", line).replace("#(#)", "#").split()) for line in text.splitlines()} - {""}


def test_what_a_page_shows_is_told_from_other_output():
    shown = shapes("out: slow.h5\n 0.44 energy -371.8 0.64 0.837(45) 4778 1.0002 exact -371.98 (+0.2 sigma)")
    assert shown <= shapes("out: slow.h5\n0.44  energy  -372.1  0.8  1.292(88)  3097  1.0 exact -371.98 (-0.2 sigma)")
    assert shown - shapes("out: other.h5\n0.44  energy  -372.1  0.8") == shown


@pytest.mark.slow
@pytest.mark.parametrize("page", ALONE)
def test_a_page_that_is_a_program_runs(page, tmp_path):
    program = []
    for block in blocks(text_of(page), "python"):
        name = re.match(r"# file: (\S+)", block)
        (tmp_path / (name[1] if name else "page.py")).write_text(block)
        program += [] if name else [block]
    (tmp_path / "page.py").write_text("\n".join(program))
    cache = tmp_path / "cache"
    cache.mkdir()
    around = os.environ | {"NUMBA_CACHE_DIR": str(cache), "NUMBA_OPT": "0", "PYTHONPATH": f"{ROOT}:{tmp_path}"}
    done = subprocess.run([sys.executable, "page.py"], cwd=tmp_path, env=around, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
