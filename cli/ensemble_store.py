"""Where the chain files of instances lie: in one ensemble file at the end, or one file each.

A store knows what is there: `missing` are the instances that are not complete, `todo` those to be worked on, `begun`
says whether anything was there, `whole` whether all is done and in its place. Everything is looked at, and refused,
before anything is written.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from cli.configuration import first_difference
from cli.errors import UserError
from cli.instances import KEY, PLACE, Asked, seed_of
from mc.chain_lock import ChainError, WriterLock, part_of, reason, writable_target
from mc.chain_tree import Source, tree
from mc.disorder import Row, Summary, row_of, summarise
from mc.ensemble import Ensemble, create_ensemble, join, open_ensemble, place_of, spelled
from mc.merge import Member, member_of

HOW = "use --restart to replace it, or another --out"


class Apart:
    """One file each."""

    warning: str | None = None

    def __init__(self, asked: Asked):
        self.asked = asked
        self.where = shlex.quote(str(asked.out))
        self.missing: set[int] = set()
        self.begun = False
        for number in asked.numbers:
            path = self.place_of(number)[0]
            writable_target(path)
            state = None if asked.options.restart else state_of(path)
            if state is not None:
                require_same(asked, number, state, adopt=not self.begun)
                self.begun = True
            if state is None or not is_done(asked, state):
                self.missing.add(number)
        self.todo = sorted(self.missing)
        self.whole = not self.missing

    def place_of(self, number: int) -> tuple[Path, None]:
        return Path(str(self.asked.out).replace(PLACE, str(number))), None

    def begin(self) -> None:
        """Nothing needs to be made."""

    def join(self) -> None:
        """They stay apart."""

    def summary(self) -> Summary:
        """Of the complete ones."""
        there = (number for number in self.asked.numbers if number not in self.missing)
        return summarise([row_at(number, Source(self.place_of(number)[0])) for number in there])


class Together:
    """One ensemble file, and a folder beside it for the chain files that are not in it yet."""

    warning: str | None = None  # where the file system knows no locks

    def __init__(self, asked: Asked):
        self.asked = asked
        self.folder = asked.out.with_name(asked.out.name + ".parts")
        self.where = shlex.quote(str(self.folder))
        self.there = self._ensemble_there()
        self._in_file: dict[int, int] = {}  # draws of the instances in the ensemble file
        if self.there is not None:
            self._in_file = dict(zip(self.there.instances, self.there.summary.draws.tolist(), strict=True))
            self._require_extension(self.there)
        self._parts: set[int] = set()  # instances that are further in the folder than in the file
        self.missing: set[int] = set()
        for number in asked.numbers:
            draws = self._in_file.get(number, -1)
            state = None if asked.options.restart else state_of(self._part(number))
            if state is not None and state.draws > draws:
                require_same(asked, number, state, adopt=self.there is None and not self._parts)
                self._parts.add(number)
                done = is_done(asked, state)
            else:
                done = draws >= asked.options.draws
            if not done:
                self.missing.add(number)
        self.todo = sorted(self.missing)
        self.begun = bool(self._in_file or self._parts)
        self.whole = not self.missing and not self._parts and self.there is not None and self.there.complete
        merged = self.missing & set(self.there.merged if self.there else ())
        if merged:
            raise UserError(f"instance {min(merged)} of {asked.out} was merged from several runs and cannot go on; "
                            "extend those and merge again")  # fmt: skip

    def _part(self, number: int) -> Path:
        return self.folder / f"{number:06d}.h5"

    def _ensemble_there(self) -> Ensemble | None:
        if not os.path.exists(self.asked.out):
            return None
        try:
            there = open_ensemble(self.asked.out)
        except ChainError as error:  # not replaced even by --restart
            raise UserError(f"{error}; remove it, or use another --out") from None
        return None if self.asked.options.restart else there

    def _require_extension(self, there: Ensemble) -> None:
        """UserError when the file holds another ensemble, or what is asked for does not contain it."""
        asked, out, draws = self.asked, self.asked.out, self._in_file
        if there.config.get("rng_seed") is None:
            raise UserError(f"{out} was merged from runs with several --rng-seed and cannot go on; use another --out")
        asked.keep_spins_as(there.config["settings"].get("spins.every"))
        number = min(draws, default=None)
        difference = difference_to(asked, there.config, asked.config, number, there.summary.fingerprints[:1])
        if difference:
            raise UserError(f"{out} holds another ensemble ({difference}); {HOW}")
        mine = set(asked.numbers)
        more = any(draws[number] < asked.options.draws for number in mine & draws.keys())
        if draws.keys() <= mine or (mine <= draws.keys() and not more):
            return
        every = spelled(mine | draws.keys())
        raise UserError(f"{out} holds instances {spelled(draws)}; {KEY}={every} extends it, or {HOW}")

    def place_of(self, number: int) -> tuple[Path, list[str] | None]:
        """Its chain file, and from where that must be taken first."""
        if number in self._in_file and number not in self._parts:
            return self._part(number), [str(self.asked.out), place_of(number)]
        return self._part(number), None

    def begin(self) -> None:
        """An ensemble without instances, and the folder; with --restart, what was there is gone."""
        asked = self.asked
        try:
            if self.there is None:
                if asked.options.restart:
                    self._remove(self.folder.glob("*.h5"))
                create_ensemble(asked.out, command=command(), config=asked.config, asked=asked.numbers,
                                overwrite=asked.options.restart)  # fmt: skip
            if self.todo:
                self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(f"{self.folder} cannot be used ({reason(error)}); choose another --out") from None
        except ChainError as error:
            raise UserError(str(error)) from None

    def join(self) -> None:
        """All that is complete into the file, and only then away with the parts."""
        asked, fresh = self.asked, {}
        for number in asked.numbers:
            state = state_of(self._part(number))
            if state is not None and state.draws > self._in_file.get(number, -1):
                fresh[number] = Source(self._part(number))
        if fresh or self.there is None or not self.there.complete:
            every = sorted(set(asked.numbers) | self._in_file.keys())
            try:
                join(asked.out, fresh, command=command(), config=asked.config, asked=every, complete=True)
            except ChainError as error:
                raise UserError(str(error), code=1) from None
        self._remove(self._part(number) for number in asked.numbers)
        with contextlib.suppress(OSError):  # what is not ours stays, such as trained samplers
            self.folder.rmdir()

    def _remove(self, paths: Iterable[Path]) -> None:
        for path in paths:
            for leftover in (path, part_of(path), path.with_name(path.name + ".lock")):
                leftover.unlink(missing_ok=True)

    def summary(self) -> Summary:
        """Of the ensemble, or of what is complete so far."""
        if not self.missing:
            return open_ensemble(self.asked.out).summary
        rows = []
        for number in sorted(set(self.asked.numbers) - self.missing):
            part = self._part(number)
            rows.append(row_at(number, Source(part) if part.exists() else self.there.source(number)))
        return summarise(rows)


Store = Together | Apart


@contextlib.contextmanager
def opened(asked: Asked) -> Iterator[Store]:
    """The store of a run; of one file it holds the lock. UserError for what is there and does not fit."""
    with contextlib.ExitStack() as stack:
        try:
            if asked.apart:
                store = Apart(asked)
            else:
                lock = WriterLock(writable_target(asked.out))
                stack.callback(lock.release)
                store = Together(asked)
                store.warning = lock.warning
        except ChainError as error:
            raise UserError(str(error)) from None
        yield store


def command() -> str:
    return shlex.join(["nmcmc", *sys.argv[1:]])


def row_at(number: int, source: Source) -> Row:
    with tree(source) as group:
        return row_of(number, group)


def state_of(path: Path) -> Member | None:
    """What is known of a chain file; None when there is none, UserError when it is another kind of file."""
    if not os.path.exists(path):
        return None
    try:
        return member_of(Source(path))
    except ChainError as error:
        raise UserError(f"{error}; remove it, or use another --out") from None


def is_done(asked: Asked, state: Member) -> bool:
    return state.complete and state.draws >= asked.options.draws


def difference_to(
    asked: Asked, old: dict[str, Any], new: dict[str, Any], number: int | None, fingerprints: tuple[str, ...]
) -> str:
    """ "key is A, not B" for the first entry that differs; the same Hamiltonian in other words is no difference.

    number, fingerprints: an instance that is there, and its fingerprint; none when there is no instance.
    """
    difference = first_difference(old, new)
    if difference and fingerprints and asked.fingerprint_of(number) == fingerprints[0]:
        same = {"fingerprint": fingerprints[0]}
        difference = first_difference(old | same, new | same)
    return difference


def require_same(asked: Asked, number: int, state: Member, adopt: bool) -> None:
    """UserError when a chain file holds anything but this instance of this ensemble.

    adopt: let it decide how often spins are kept, unless that was said.
    """
    if state.merged:
        raise UserError(f"{state.source} was merged from several runs and cannot go on; {HOW}")
    if adopt:
        asked.keep_spins_as(state.config["settings"].get("spins.every"))
    seeds = {"rng_seed": seed_of(asked.options.rng_seed, number)}
    new = asked.config | seeds | {"parameters": asked.config["parameters"] | {"seed": number}}
    old = {key: state.config.get(key) for key in new}
    # A neural run has resolved its settings; it compares them itself when it goes on.
    old["settings"] = {key: state.config["settings"].get(key, value) for key, value in new["settings"].items()}
    difference = difference_to(asked, old, new, number, (state.fingerprint,))
    if difference:
        raise UserError(f"{state.source} holds another run ({difference}); {HOW}")
