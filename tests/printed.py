"""What README and documentation print: fenced blocks, and whether the command line would take a line as it stands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import typer

import cli.main
from cli.arguments import parse, parse_mode
from cli.instances import KEY
from cli.settings import VECTOR, idle

ROOT = Path(__file__).parents[1]
SCRIPT = re.compile(r"(?:^|&& )(?:\S*/)?python (\S+\.py)")
PLACEHOLDER = re.compile(r"\b[A-Z]{3,}\b|\.\.\.")  # NAME, MODE, FILE


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.S)


def lines(block: str) -> list[tuple[str, str]]:
    """(command, comment) of each line that is a command."""
    found = []
    for line in block.splitlines():
        command, _, comment = line.partition(" #")
        if command.strip() and not command.startswith("#"):
            found.append((command.strip(), comment.strip()))
    return found


def commands(text: str) -> list[str]:
    """All commands of a page: lines of bash blocks, and inline code, without those that hold placeholders."""
    found = [command for block in blocks(text, "bash") for command, _ in lines(block)]
    prose = re.sub(r"```.*?```", "", text, flags=re.S)
    found += [code for code in re.findall(r"`([^`\n]+)`", prose) if re.match(r"(nmcmc|python) \S", code)]
    return [command for command in found if not PLACEHOLDER.search(command)]


def require_accepted(command: str) -> None:
    """Fail where the command line would refuse a line, or a script that it runs is not there."""
    for script in SCRIPT.findall(command):
        assert (ROOT / script).is_file(), f"{command}: no {script}"
    start = command.find("nmcmc ")
    if start < 0 or not (start == 0 or command[start - 1] in "/ "):
        return
    words = shlex.split(command[start:])[1:]
    app = typer.main.get_command(cli.main.app)
    name, arguments = words[0], words[1:]
    assert name in app.commands, f"{command}: no command {name}"
    if "--help" in arguments or not arguments:  # prose may name a command alone
        return
    given = app.commands[name].make_context(name, list(arguments)).params
    if name not in ("run", "train", "exact"):
        return
    mode = {"run": given.get("mode"), "train": "train", "exact": None}[name]
    asked = ["seed=0" if word.startswith(f"{KEY}=") else word for word in given["words"]]
    if any(word.startswith("path=") for word in asked):
        return
    if name == "exact":
        ground = ["beta=1"] if given["ground"] and not any(w.startswith(("beta=", "T=")) for w in asked) else []
        parse([*asked, *ground])
        return
    target, settings = parse(asked, parse_mode(mode))
    without_effect = idle(mode, settings, target.model == VECTOR)
    assert not without_effect, f"{command}: {without_effect} without effect"
