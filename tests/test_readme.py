"""The README: its two quick-start commands, and everything it prints under everyday use, work as they stand."""

import re
from pathlib import Path

import pytest

from tests.printed import ROOT, blocks, commands, lines, require_accepted

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
START = TEXT[TEXT.index("## Quick start") : TEXT.index("## Why")]
INSTALL = "python3 -m venv .venv && .venv/bin/pip install -c constraints.txt "


def test_it_begins_with_two_commands_one_for_the_job_and_one_for_the_tests():
    first, second = (block.strip() for block in blocks(START, "bash"))
    assert first == f"{INSTALL}. && .venv/bin/nmcmc run --mode nmcmc ising L=32"
    assert second == f'{INSTALL}-e ".[test]" && .venv/bin/python -m pytest -n auto --maxprocesses 4 --dist loadfile'
    assert len(TEXT[: TEXT.index("## Quick start")].splitlines()) < 10


@pytest.mark.slow
def test_the_job_of_the_quick_start_leaves_its_file(nmcmc):
    command = blocks(START, "bash")[0].partition("nmcmc ")[2].split()
    assert nmcmc(*command, "--draws", 4, "--warmup", 0, "--json").json["results"]
    assert re.search(r"`(ising-L=32-nmcmc\.h5)`", START)
    assert Path("ising-L=32-nmcmc.h5").is_file()


def test_every_command_is_one_that_the_command_line_takes():
    found = commands(TEXT)
    assert len(found) > 20
    for command in found:
        require_accepted(command)


def test_links_and_pictures_lead_to_files():
    targets = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert len(targets) > 5
    for target in targets:
        assert (ROOT / target).is_file(), target
    assert len(re.findall(r"!\[[^\]]+\]\(", TEXT)) == 1


@pytest.mark.slow
def test_everyday_use_works_in_order_and_leaves_what_it_names(nmcmc):
    pytest.importorskip("matplotlib")
    everyday = TEXT[TEXT.index("## Everyday use") :]
    made = 0
    for command, comment in lines(blocks(everyday, "bash")[0]):
        words = command.split()[1:]
        # Minutes become seconds by the promise that a run stops in time, commits what it has and ends well.
        done = nmcmc(*words, *(["--time-limit", 15] if "minute" in comment else []))
        named = words[words.index("--out") + 1] if "--out" in words else None
        if words[0] == "run":
            named = re.search(r"^out: (.*)$", done.out, re.M)[1]
        if named:
            assert Path(named).exists(), command
            made += 1
    assert made > 8
    exec(compile(blocks(everyday, "python")[0], "README.md", "exec"), {})
