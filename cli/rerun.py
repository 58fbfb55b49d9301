"""`nmcmc rerun`: the run of a chain file once more, from the configuration stored in it.

Everything that the old run resolved by default (sweeps between draws, kernel, prior, network, training) is given
explicitly, so that neither new defaults nor a pilot can make another run of it. What the words resolve to is compared
with the stored configuration before any work. The new draws are compared with the old ones bit for bit at the end.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import typer

from cli.arguments import parse
from cli.configuration import first_difference
from cli.ensemble_results import is_ensemble
from cli.ensemble_results import opened as opened_ensemble
from cli.errors import UserError
from cli.options import Options
from cli.output import Screen
from cli.results import as_json as to_json
from cli.results import judged, opened
from cli.run import check_before_work, run
from cli.run_file import configuration, spins_every
from cli.settings import CLASSICAL, COOLED, LEARNING, MODES, SCHEDULED, SETTINGS, VECTOR, acting
from cli.work import Run
from mc import models
from mc.chain import Chain, ChainError
from mc.chain_layout import load
from mc.chain_layout import to_json as json_of
from mc.export.snapshot import bytes_a_draw, pieces, snapshot

MADE = ("population", "anneal.betas")  # settings of a configuration that no key sets
LADDER = ("anneal.steps", "anneal.ladder")


@dataclass(frozen=True)
class Again:
    """A run as one would ask for it today: its mode, its words (model, key=value ...) and its options."""

    mode: str
    words: tuple[str, ...]
    options: Options

    def argv(self) -> list[str]:
        """The command line."""
        options, argv = self.options, ["nmcmc", "run", "--mode", self.mode, *self.words]
        given = {"out": options.out, "warmup": options.warmup, "thin": options.thin, "rng-seed": options.rng_seed,
                 "checkpoint": options.checkpoint, "time-limit": options.time_limit}  # fmt: skip
        if self.mode not in LEARNING:
            given |= {"draws": options.draws, "chains": options.chains}
        if options.device != "auto":
            given["device"] = options.device
        for name, value in given.items():
            argv += [] if value is None else [f"--{name}", str(value)]
        return argv + ["--check"] * options.check


def rerun(file: Path, out: Path | None, quiet: bool, as_json: bool) -> int:
    """Do the run again; the exit code of the run, or 1 where the draws are not the same.

    UserError where that cannot be the same run, before anything is written.
    """
    began = time.monotonic()
    if is_ensemble(file):
        command = opened_ensemble(file).command
        raise UserError(
            f"{file} is an ensemble of many runs; do them again by its command and another --out: {command}"
        )
    chain = opened(file)
    out = out or file.with_name(f"{file.stem}-rerun.h5")
    if os.path.exists(out) and os.path.samefile(out, file):
        raise UserError(f"--out {out} is the file to be repeated, which is never touched; use another --out")
    screen = Screen(quiet)
    again = asked_again(chain, replace(Options(), out=out, quiet=quiet))
    target, given = parse(again.words, again.mode)
    difference = first_difference(chain.config, resolved_today(again, target, given, out))
    if difference:
        why = f"today this would be another run ({difference})"
        raise UserError(
            f"{file} cannot be run again: {why}; use the version of nmcmc that wrote it, or begin a new run"
        )
    argv = again.argv()
    screen.say(f"again: {shlex.join(argv)}")
    with command_line(argv):
        code = run("rerun", target, again.mode, given, again.options, began)
    apart = first_apart(chain.path, out)
    if apart:
        screen.warn(f"the draws of {out} are not those of {file}: {apart}{other_libraries(chain, opened(out))}")
    elif common := min(chain.n_draws, opened(out).n_draws):
        screen.say(f"the same {common} draws a chain as in {file}, bit for bit")
    if as_json:
        now = opened(out)
        content = json.loads(to_json("rerun", now, judged(now), now.seconds))
        print(json.dumps(content | {"rerun_of": str(file), "same": not apart}), flush=True)
    return code or (1 if apart else 0)


def asked_again(chain: Chain, options: Options) -> Again:
    """The words and options that make the run of a chain file; UserError where the file does not tell them."""
    config, path = chain.config, chain.path
    if "merged_from" in chain.attributes:
        names = ", ".join(origin["file"] for origin in json.loads(chain.attributes["merged_from"]))
        raise UserError(f"{path} was merged from several runs ({names}); rerun these and merge again")
    mode, model = config.get("mode"), config.get("model")
    if mode not in MODES or model not in models.MODELS or not {"parameters", "beta", "settings"} <= config.keys():
        raise UserError(f"{path} was not made by nmcmc run (mode {mode}, model {model}); do it again by the program "
                        "that made it")  # fmt: skip
    spoken = options_spoken(chain.attributes.get("command", ""))
    offers = "neural" in config["settings"]
    checkpoint = spoken.get("checkpoint") if mode in ("nmcmc", "nis") or offers else None
    if checkpoint is not None:
        checkpoint = found_again(Path(checkpoint), path)
    elif mode in ("nmcmc", "nis") and config.get("asked") == {} and config["settings"].get("move") != "block":
        raise UserError(f"{path} was sampled with a checkpoint, and its command does not say which; use nmcmc run "
                        "with --checkpoint")  # fmt: skip
    draws = chain.asked_draws if chain.asked_draws > 0 else chain.n_draws or spoken.get("draws") or options.draws
    keeps_warmup = mode not in (*LEARNING, COOLED, "nis", "prior", *SCHEDULED)
    options = replace(
        options,
        draws=config["settings"].get("population", draws),
        chains=config["chains"],
        warmup=config["warmup"] if keeps_warmup else None,
        thin=config["thin"] if mode in CLASSICAL else None,
        rng_seed=config["rng_seed"],
        checkpoint=checkpoint,
        device=spoken.get("device") or "auto",
        time_limit=spoken.get("time_limit"),
        check=bool(spoken.get("check")) and mode not in CLASSICAL,
    )
    found = models.MODELS[model].found  # which no word says
    words = [model, *(written(key, value) for key, value in config["parameters"].items() if key not in found)]
    words += [f"beta={betas}" for betas in [betas_of(config)] if betas]
    words += [written(key, value) for key, value in settings_of(config, path, checkpoint is not None).items()]
    return Again(mode, tuple(words), options)


def betas_of(config: dict[str, Any]) -> str:
    """The temperatures as written; of a mode that cools, its ladder unless keys of their own say it."""
    betas = config["beta"]
    if config["mode"] == COOLED and not says_ladder(config["settings"]):
        betas = config["settings"].get("anneal.betas", betas)
    return ",".join(map(repr, betas))


def says_ladder(settings: dict[str, Any]) -> bool:
    """Whether keys say the ladder, which no list of temperatures may do beside them."""
    return any(settings.get(key, SETTINGS[key].default) != SETTINGS[key].default for key in LADDER)


def settings_of(config: dict[str, Any], path: Path, from_checkpoint: bool) -> dict[str, Any]:
    """{key: value} of all settings of a run, those of its sampler included; UserError for one that is gone."""
    settings = {key: value for key, value in config["settings"].items() if key not in MADE and value is not None}
    odd = next((key for key in settings if key not in SETTINGS), None)
    if odd is not None:
        raise UserError(f"{path} cannot be run again: its setting {odd}= is not known any more; use the code of its "
                        "time")  # fmt: skip
    if config["mode"] == COOLED and not says_ladder(settings):
        settings = {key: value for key, value in settings.items() if key not in LADDER}
    if settings.get("move") == "block":
        block = {key: settings[key] for key in ("move", "spins.every") if key in settings}
        return block | {"prior.chi": config["net"]["chi"]}
    chosen = {key: settings[key] for key in ("neural",) if key in settings}
    act = acting(config["mode"], chosen, config["model"] == VECTOR)
    if "kernel" in config and "kernel" in act:
        settings["kernel"] = config["kernel"]
    if "net" in config and not from_checkpoint:
        settings |= {key: value for key, value in sampler_of(config).items() if key in act and value is not None}
    return settings


def sampler_of(config: dict[str, Any]) -> dict[str, Any]:
    """Settings of the sampler and of its training as they were resolved."""
    from cli.plan import NET_KEYS, TRAIN_KEYS

    net, train = config["net"], config.get("train", {})
    found = {key: net.get(field) for key, field in NET_KEYS.items()}
    found |= {key: train.get(field) for key, field in TRAIN_KEYS.items()}
    if "distill" in config:  # whose sweeps have a default of their own
        found["train.sweeps"] = config["distill"]["sweeps"]
    return found | {"train.data": train.get("data"), "train.recipe": config.get("asked", {}).get("train.recipe")}


def written(key: str, value: Any) -> str:
    """key=value as on the command line."""
    if isinstance(value, list | tuple):
        return f"{key}={'x'.join(map(str, value))}"
    return f"{key}={value!r}" if isinstance(value, float) else f"{key}={value}"


def options_spoken(command: str) -> dict[str, Any]:
    """The options of a stored command line; {} where it is none of today's."""
    from cli.main import app

    try:
        _, name, *rest = shlex.split(command)
        commands = typer.main.get_command(app).commands
        return commands[name].make_context(name, rest).params if name in ("run", "train") else {}
    except (ValueError, typer.TyperException):
        return {}


def found_again(checkpoint: Path, chain: Path) -> Path:
    """The checkpoint a run was made with, where its command says or beside the chain file."""
    for place in (checkpoint, chain.parent / checkpoint.name):
        if place.exists():
            return place
    raise UserError(f"{chain} was sampled with --checkpoint {checkpoint}, which is not there; put it back there, or "
                    "beside the chain file")  # fmt: skip


def resolved_today(again: Again, target, given: dict[str, Any], out: Path) -> dict[str, Any]:
    """The configuration that `cli.run_file` would store, as JSON gives it back; UserError for what cannot be done."""
    mode, settings = again.mode, acting(again.mode, given, target.model == VECTOR)
    if mode == COOLED:
        from cli.anneal_run import cooled

        target, settings["anneal.betas"] = cooled(target, given, settings)
    options = again.options.resolved(mode, settings.get("move"), "neural" in settings)
    every = spins_every(target, settings, options, None)
    began = time.monotonic()
    work = Run("rerun", target, mode, given, settings, options, Screen(quiet=True), out, every, began)
    driver = check_before_work(work)
    config = configuration(work)
    if mode in CLASSICAL:
        config["kernel"] = driver.engine.kernel
    return json.loads(json_of(config, "the configuration"))


@contextlib.contextmanager
def command_line(argv: list[str]) -> Iterator[None]:
    """The command line that a run writes into its file: the one that would make it."""
    before, sys.argv = sys.argv, argv
    try:
        yield
    finally:
        sys.argv = before


def first_apart(one: Path, other: Path) -> str:
    """Where the draws of two chain files first differ, in words; "" when those that both have are the same bits."""
    try:
        with snapshot(one) as a, snapshot(other) as b:
            left, right = a.sampled(), b.sampled()
            if left.keys() != right.keys():
                return f"they hold other variables ({', '.join(sorted(left.keys() ^ right.keys()))})"
            if a.file["posterior/beta"][()].tobytes() != b.file["posterior/beta"][()].tobytes():
                return "the betas differ"
            if a.chains != b.chains:
                return f"{a.chains} chains, and {b.chains}"
            found = [
                (draw, name)
                for name in left
                if (draw := _first_draw_apart(left[name], right[name], min(a.draws, b.draws))) is not None
            ]
    except ChainError as error:
        raise UserError(str(error)) from None
    if not found:
        return ""
    draw, name = min(found)
    return f"{name} differs from draw {draw} on"


def _first_draw_apart(a, b, draws: int) -> int | None:
    for part in pieces(draws, a.shape[0] * bytes_a_draw(a)):
        one, other = (load(dataset, (slice(None), part)) for dataset in (a, b))
        if one.tobytes() != other.tobytes():
            for draw in range(one.shape[1]):
                if one[:, draw].tobytes() != other[:, draw].tobytes():
                    return part.start + draw
    return None


def other_libraries(old: Chain, new: Chain) -> str:
    """What was computed with other versions than then, "" when nothing was."""
    then, now = (json.loads(chain.attributes.get("versions", "{}")) for chain in (old, new))
    changed = [
        f"{name} {then[name]} then, {now[name]} now" for name in then if now.get(name, then[name]) != then[name]
    ]
    return f" ({', '.join(changed)})" if changed else ""
