"""What `instances=` asks for: the numbers of disorder samples, and all that they share. Nothing is done yet."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cli.arguments import Target, default_out, parse, split_words
from cli.errors import UserError
from cli.options import Options
from cli.run_file import MOST_SPINS, bytes_of_a_state
from cli.settings import COOLED, LEARNING, MEAN_FIELD, TRAINED, of_ensemble
from mc import models
from mc.chain_layout import to_json
from mc.vector.hamiltonian import VectorHamiltonian

ABOUT = "instead of seed=: many disorder samples, 0:100 or a comma list, side by side (nmcmc run)"
KEY, PLACE = "instances", "{instance}"
MOST_INSTANCES = 100_000
MOST_SPINS_TOGETHER = 10 * MOST_SPINS  # kept by default, all draws of all instances
SEEDS_TO_TRY = 8  # of which two must differ, or the model has no disorder
STREAMS_OF_INSTANCES = 0x696E7374  # keeps their seeds apart from other uses of --rng-seed
LEFT_OPEN = ("warmup", "thin")  # options without a value until the kernel is known
# Options that do not decide what is drawn, or not what all instances share.
FREE = ("out", "draws", "checkpoint", "device", "time_limit", "restart", "check", "quiet", "json", "scheduler")


@dataclass
class Asked:
    """What was asked for: words of the model and settings without instances=, and the numbers of the instances.

    target, given: of the first instance. config: what all instances share, JSON types. out: the ensemble file, or
    the pattern of the files. began: of time.monotonic().
    """

    command: str
    words: tuple[str, ...]
    mode: str
    options: Options
    numbers: tuple[int, ...]
    target: Target
    given: dict[str, Any]
    out: Path
    config: dict[str, Any]
    began: float

    @property
    def apart(self) -> bool:
        """Whether each instance has a file of its own."""
        return PLACE in str(self.out)

    @property
    def spins_every(self) -> int:
        return self.config["settings"]["spins.every"]

    def keep_spins_as(self, every: int) -> None:
        """Spins are kept as in what is there already, unless the words say how often."""
        if "spins.every" not in self.given:
            self.config["settings"]["spins.every"] = every

    def settle(self, options: Options) -> None:
        """Take over what was left open and hangs on the kernel, so that it is the same for all instances."""
        self.config |= {name: getattr(options, name) for name in LEFT_OPEN}

    def fingerprint_of(self, number: int) -> str:
        """Of the Hamiltonian of an instance."""
        return models.build(self.target.model, self.target.parameters | {"seed": number}).fingerprint


def wanted(words: Sequence[str], options: Options) -> bool:
    """Whether instances are asked for; UserError for what goes with nothing else."""
    if any(word.startswith(f"{KEY}=") for word in words):
        return True
    for option, given in (
        ("--scheduler", options.scheduler is not None),
        (f"--out {PLACE}", PLACE in str(options.out)),
    ):
        if given:
            raise UserError(f"{option} is for many disorder samples; give {KEY}=LOW:HIGH, or leave it out")
    return False


def parse_asked(command: str, words: Sequence[str], mode: str, options: Options, began: float) -> Asked:
    """From the words of the command line; UserError naming the word that does not fit."""
    name, given = split_words(words)
    numbers = parse_numbers(given[KEY])
    if "seed" in given:
        raise UserError(f"seed= and {KEY}= both say which couplings are dealt; give one of them")
    if name in models.MODELS and "seed" not in models.MODELS[name].keys:
        raise UserError(
            f"{KEY}={given[KEY]}: model {name} has no random disorder, there is no seed= to count through"
        )
    if "path" in given:
        raise UserError(
            f"{KEY}={given[KEY]}: path= brings one set of couplings along, there is no seed= to count through"
        )
    if mode in LEARNING:
        raise UserError(f"{KEY}={given[KEY]}: mode {mode} draws nothing; train for one Hamiltonian, with seed=")
    if mode == MEAN_FIELD:
        raise UserError(f"{KEY}={given[KEY]}: mode {mode} draws nothing; give one seed= after the other")
    if mode == COOLED:
        raise UserError(f"{KEY}={given[KEY]}: mode {mode} cools one Hamiltonian; give seed=, or use --mode anneal")
    if options.checkpoint is not None:
        raise UserError(f"--checkpoint is for one Hamiltonian, {KEY}= are many; leave one of them out")
    trains = mode in TRAINED and given.get("net") != "none" and given.get("move") != "block"
    if options.scheduler is not None and trains:
        raise UserError(f"--scheduler: mode {mode} may train, and a sampler would be left behind on its worker; "
                        "give net=none, or leave --scheduler out")  # fmt: skip
    if given.get("ladder") == "tuned":
        raise UserError("ladder=tuned gives every instance temperatures of its own, and no averages over them; "
                        f"write temperatures in beta=, or give one seed= instead of {KEY}=")  # fmt: skip
    odd = re.search(r"\{\w*\}", str(options.out or ""))
    if odd and odd.group() != PLACE:
        raise UserError(f"--out {options.out}: {odd.group()} is no place for a number; write {PLACE}")
    rest = tuple(word for word in words if not word.startswith(f"{KEY}="))
    target, settings = parse([*rest, f"seed={numbers[0]}"], mode)
    require_disorder(target, given[KEY])
    resolved = options.resolved(mode, settings.get("move"))
    out = options.out or default_name(target, mode)
    config = shared_config(target, mode, settings, resolved, len(numbers))
    return Asked(command, rest, mode, options, numbers, target, settings, out, config, began)


def parse_numbers(text: str) -> tuple[int, ...]:
    """lo:hi (hi is not in it), or a comma list of numbers and such ranges; UserError otherwise."""
    said = f"{KEY}={text}"
    numbers: list[int] = []
    for word in text.split(","):
        found = re.fullmatch(r"(\d{1,18})(?::(\d{1,18}))?", word)
        if not found or ("," not in text and found[2] is None):
            raise UserError(f"{said}: LOW:HIGH or a comma list of seeds is needed, such as 0:100 (HIGH is not in it)")
        low, high = int(found[1]), int(found[2] or int(found[1]) + 1)
        if high <= low:
            raise UserError(f"{said}: {word} is empty; LOW:HIGH runs from LOW to HIGH - 1")
        if len(numbers) + high - low > MOST_INSTANCES:
            raise UserError(f"{said}: at most {MOST_INSTANCES} instances can be done in one call")
        numbers += range(low, high)
    if len(set(numbers)) != len(numbers):
        raise UserError(f"{said}: an instance is given twice")
    return tuple(sorted(numbers))


def require_disorder(target: Target, text: str) -> None:
    """UserError for a model whose couplings are the same for every seed."""
    for seed in range(SEEDS_TO_TRY):
        other = models.build(target.model, target.parameters | {"seed": seed})
        if other.fingerprint != target.hamiltonian.fingerprint:
            return
    raise UserError(f"{KEY}={text}: the couplings of this {target.model} are the same for every seed=; "
                    "give random ones, J=bimodal, J=gaussian or h=gauss:SIGMA")  # fmt: skip


def default_name(target: Target, mode: str) -> Path:
    """./MODEL-KEYS-MODE-instances.h5, whichever instances, so that more of them extend the file."""
    words = tuple(word for word in target.words if not word.startswith("seed="))
    return default_out(dataclasses.replace(target, words=words), f"{mode}-{KEY}")


def shared_config(target: Target, mode: str, given: dict[str, Any], options: Options, n: int) -> dict[str, Any]:
    """All that decides the draws of all instances, as JSON types. options: resolved for the mode."""
    settings = of_ensemble(mode, given, isinstance(target.hamiltonian, VectorHamiltonian))
    if settings["spins.every"] is None:
        total = bytes_of_a_state(target.hamiltonian) * len(target.betas) * options.chains * max(options.draws, 1)
        settings["spins.every"] = max(1, -(-total // MOST_SPINS), -(-total * n // MOST_SPINS_TOGETHER))
    parameters = {key: value for key, value in target.hamiltonian.parameters.items() if key != "seed"}
    decide = {f.name: getattr(options, f.name) for f in dataclasses.fields(options) if f.name not in FREE}
    if mode == "population":  # its size is no number of draws that could grow
        settings["population"] = options.draws
    config = {"mode": mode, "model": target.model, "parameters": parameters, "beta": list(target.betas),
              "settings": settings}  # fmt: skip
    return json.loads(to_json(config | decide, "the configuration"))


def seed_of(rng_seed: int, instance: int) -> int:
    """The --rng-seed of one instance: 63 bits from NumPy's SeedSequence, of --rng-seed and its number alone."""
    sequence = np.random.SeedSequence(rng_seed, spawn_key=(STREAMS_OF_INSTANCES, instance))
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))
