"""`nmcmc merge FILES... --out X`: chains of one target side by side in a chain file, others into an ensemble."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cli.configuration import first_difference
from cli.ensemble_results import as_json as ensemble_json
from cli.ensemble_results import is_ensemble, lines_of
from cli.ensemble_results import opened as opened_ensemble
from cli.errors import UserError
from cli.output import Screen
from cli.results import as_json, judged, opened, refuse_mean_field, store
from cli.tables import diagnostics, table, verdict
from mc.chain import resume_chain
from mc.chain_lock import ChainError, WriterLock, reason, replacement, writable_target
from mc.chain_tree import Source
from mc.disorder import shared_part
from mc.ensemble import create_ensemble, join
from mc.merge import Member, member_of, merge_chains, shared_streams


def merge(files: Sequence[Path], out: Path, screen: Screen, json_too: bool) -> None:
    """Join files into `out`; UserError for what does not belong together, before anything is written."""
    try:
        with contextlib.ExitStack() as stack:
            lock = WriterLock(writable_target(out))
            stack.callback(lock.release)
            if os.path.exists(out):
                raise UserError(f"{out} is there already; choose another --out")
            any_ensemble = any(is_ensemble(path) for path in files)
            found = members(files)
            require_one_law(found)
            same_target = len({member.fingerprint for _, member in found}) == 1
            screen.say(f"out: {out}")
            if same_target and not any_ensemble:
                merge_into_chain([member for _, member in found], out, screen, json_too)
            else:
                merge_into_ensemble(found, files, out, screen, json_too)
    except ChainError as error:
        raise UserError(str(error)) from None
    except OSError as error:
        raise UserError(f"{out} cannot be written ({reason(error)}); choose another --out", code=1) from None


def members(files: Sequence[Path]) -> list[tuple[int | None, Member]]:
    """(number of the instance, what is known of it) of all chain trees in the files; None where it has no number."""
    found: list[tuple[int | None, Member]] = []
    for path in files:
        if is_ensemble(path):
            there = opened_ensemble(path)
            if not there.instances:
                raise UserError(f"{path} has no instances; leave it out")
            found += [(number, member_of(there.source(number))) for number in there.instances]
        else:
            member = member_of(Source(Path(path)))
            found.append((member.config.get("parameters", {}).get("seed"), member))
    if len(found) < 2:
        raise UserError(f"{files[0]} alone is nothing to merge; give several chain or ensemble files")
    for _, member in found:
        refuse_mean_field(member.source, member.mode)
        if not member.draws:
            raise UserError(f"{member.source} has no draws; go on with it, or leave it out")
    return found


def require_one_law(found: list[tuple[int | None, Member]]) -> None:
    """UserError unless all differ in nothing but couplings, random numbers, and how many chains there are."""
    first = found[0][1]
    for _, member in found[1:]:
        one, other = (shared_part(m.config) | {"fingerprint": m.fingerprint} for m in (first, member))
        if one["fingerprint"] != other["fingerprint"]:
            one.pop("fingerprint"), other.pop("fingerprint")
        difference = first_difference(one, other)
        if not difference and first.n_spins != member.n_spins:
            difference = f"the number of spins is {first.n_spins}, not {member.n_spins}"
        if not difference and not np.array_equal(first.betas, member.betas):
            difference = "their tuned temperatures differ"
        if difference:
            raise UserError(f"{first.source} and {member.source} cannot be merged ({difference}); "
                            "merge what was run alike")  # fmt: skip


def merge_into_chain(found: list[Member], out: Path, screen: Screen, json_too: bool) -> None:
    """All chains of one target into a chain file, with results."""
    with replacement(writable_target(out), fresh=True) as part:
        draws = merged(found, part)
    say_cut(found, draws, screen)
    chain = opened(out)
    results = judged(chain)
    screen.say(f"{sum(member.chains for member in found)} chains x {draws} draws of {len(found)} files")
    for line in table(results) + verdict(results) + diagnostics(results):
        screen.say(line)
    screen.say(f"result: {shlex.quote(str(out))}; look at it with: nmcmc analyze {shlex.quote(str(out))}")
    if json_too:
        print(as_json("merge", chain, results, {}), flush=True)


def merged(found: Sequence[Member], path: Path) -> int:
    """A chain file of members with one target, results included; returns its number of draws."""
    draws = merge_chains(found, path, command())
    results = judged(opened(path), called="the merged chain")
    with contextlib.closing(resume_chain(path)) as writer:
        store(writer, results)
        writer.commit(complete=True)
    return draws


def say_cut(found: Sequence[Member], draws: int, screen: Screen) -> None:
    for member in found:
        if member.draws > draws:
            screen.say(f"note: {member.source} is cut from {member.draws} to {draws} draws, those of the shortest")


def merge_into_ensemble(
    found: list[tuple[int | None, Member]], files: Sequence[Path], out: Path, screen: Screen, json_too: bool
) -> None:
    """All instances into an ensemble; chains of the same instance from different streams come side by side."""
    together = by_instance(found, screen)
    config = shared_config([member for _, member in found], files)
    numbers = sorted(together)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=writable_target(out).parent) as folder:
        sources = {}
        for number in numbers:
            chains = together[number]
            sources[number] = chains[0].source
            if len(chains) > 1:
                path = Path(folder) / f"{number:06d}.h5"
                say_cut(chains, merged(chains, path), screen)
                sources[number] = Source(path)
        hidden = Path(folder) / out.name
        about = dict(command=command(), config=config, asked=numbers)
        create_ensemble(hidden, **about)
        join(hidden, sources, **about, complete=True)
        os.replace(hidden, writable_target(out))
    summary = opened_ensemble(out).summary
    for line in lines_of(summary):
        screen.say(line)
    screen.say(f"result: {shlex.quote(str(out))}; look at it with: nmcmc analyze {shlex.quote(str(out))}")
    if json_too:
        print(ensemble_json("merge", str(out), config, summary, True, {}, {}), flush=True)


def by_instance(found: list[tuple[int | None, Member]], screen: Screen) -> dict[int, list[Member]]:
    """{instance: its chain trees}, no chain twice; those without a number get one.

    UserError when a number means two Hamiltonians, or trees have some chains in common and others not.
    """
    together: dict[int, list[Member]] = {}
    for number, member in found:
        if number is None:
            same = next((n for n, there in together.items() if there[0].fingerprint == member.fingerprint), None)
            number = same if same is not None else max(together, default=-1) + 1
        there = together.setdefault(number, [])
        if there and there[0].fingerprint != member.fingerprint:
            raise UserError(f"{there[0].source} and {member.source} are both instance {number}, with different "
                            "couplings; merge them into files of their own")  # fmt: skip
        twice = next((one for one in there if shared_streams(one, member)), None)
        if twice is not None:
            kept, left_out = (twice, member) if holds_all_of(twice, member) else (member, twice)
            if not holds_all_of(kept, left_out):
                raise UserError(f"{twice.source} and {member.source} have the same random streams in part; "
                                "merge the runs that they were made of")  # fmt: skip
            screen.say(f"note: instance {number} of {left_out.source.path} is left out: {kept.source.path} has the "
                       "same random streams")  # fmt: skip
            there.remove(twice)
            member = kept
        there.append(member)
    warn_of_shared_seeds(together, screen)
    return together


def holds_all_of(one: Member, other: Member) -> bool:
    """Whether every chain of the other is in one, at least as long."""
    seeds = {origin["rng_seed"]: origin["chains"] for origin in one.origins}
    inside = all(seeds.get(origin["rng_seed"], 0) >= origin["chains"] for origin in other.origins)
    return inside and one.draws >= other.draws


def warn_of_shared_seeds(together: dict[int, list[Member]], screen: Screen) -> None:
    seeds: dict[int, int] = {}
    for number, there in together.items():
        for origin in (origin for member in there for origin in member.origins):
            other = seeds.setdefault(origin["rng_seed"], number)
            if other != number:
                screen.warn(f"instances {other} and {number} were run with the same --rng-seed: their random numbers "
                            "are the same, and the error of an average may be too small")  # fmt: skip
                return


def shared_config(found: Sequence[Member], files: Sequence[Path]) -> dict[str, Any]:
    """The configuration of an ensemble of these: that of `nmcmc run`, which can extend it, if all are from one."""
    if all(is_ensemble(path) for path in files):
        configs = [opened_ensemble(path).config for path in files]
        if all(not first_difference(configs[0], config) for config in configs):
            return configs[0]
    chains = {member.chains for member in found}
    shared = shared_part(found[0].config) | {"chains": chains.pop() if len(chains) == 1 else None, "rng_seed": None}
    return shared


def command() -> str:
    return shlex.join(["nmcmc", *sys.argv[1:]])
