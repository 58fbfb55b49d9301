"""Chains of one target from several runs, side by side in one chain file.

Chains that share their random numbers are one chain told twice and would make errors too small, so two runs are only
joined when their streams differ: other runs, and other seeds (a run numbers its chains from 0, so runs of one seed
overlap). The file that is made has no sampler state. Its root attribute `merged_from` says where the chains are from:
a JSON list, in the order of the chains, of {"file", "run_id", "rng_seed", "chains"}.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import h5py
import numpy as np

from mc import chain_layout as layout
from mc.chain import ChainWriter, create_chain
from mc.chain_hamiltonian import read_hamiltonian, spin_axes
from mc.chain_lock import ChainError
from mc.chain_reader import committed_lengths
from mc.chain_tables import is_bare_axis
from mc.chain_tree import Source, axes_in, tree

NO_SEED = -1  # `rng_seed` of a file with chains of several
PENDING_BYTES = 128 << 20  # of draws in memory


@dataclass(frozen=True)
class Member:
    """What is known of a chain tree before its draws are read.

    origins: as in `merged_from`; of a run that was not merged its own entry. merged: whether it was. draws, chains:
    numbers of them. seconds: CPU seconds of its parts.
    """

    source: Source
    run_id: str
    mode: str
    fingerprint: str
    n_spins: int
    betas: np.ndarray
    config: dict[str, Any]
    rng_seed: int
    chains: int
    draws: int
    complete: bool
    origins: tuple[dict[str, Any], ...]
    seconds: dict[str, float]

    @property
    def merged(self) -> bool:
        return self.rng_seed == NO_SEED


def member_of(source: Source) -> Member:
    """Read all but the draws; ChainError for what is no chain tree."""
    with tree(source) as group:
        root = group.attrs
        chains = len(group["posterior/chain"])
        own = {"file": source.path.name, "run_id": root["run_id"], "rng_seed": int(root["rng_seed"]),
               "chains": chains}  # fmt: skip
        origins = json.loads(root["merged_from"]) if "merged_from" in root else [own]
        return Member(
            source, root["run_id"], root["mode"], group["hamiltonian"].attrs["fingerprint"],
            int(group["hamiltonian"].attrs["n_spins"]), group["posterior/beta"][()], json.loads(root["config"]),
            int(root["rng_seed"]), chains, committed_lengths(group)[0], bool(root["complete"]), tuple(origins),
            layout.seconds_of(root),
        )  # fmt: skip


def shared_streams(one: Member, other: Member) -> str:
    """ "run_id" or "rng_seed" when chains of the two have the same random numbers, else ""."""
    for key in ("run_id", "rng_seed"):
        if {origin[key] for origin in one.origins} & {origin[key] for origin in other.origins}:
            return key
    return ""


def merge_chains(members: Sequence[Member], path: str | os.PathLike, command: str) -> int:
    """Make a chain file of the chains of members with one law, one after another; returns its number of draws.

    All are cut to the shortest. Spins are kept of those draws whose spins are kept everywhere. The caller looks after
    the law being one; results (/observables, /diagnostics) are left to it, too.

    Raises ChainError for shared random streams, variables that differ, or a file that cannot be written.
    """
    for i, member in enumerate(members):
        for earlier in members[:i]:
            if shared_streams(earlier, member):
                raise ChainError(f"{earlier.source} and {member.source} have the same random streams; chains told "
                                 "twice make errors too small, so give each run another --rng-seed")  # fmt: skip
    draws = min(member.draws for member in members)
    with tree(members[0].source) as group:
        hamiltonian = read_hamiltonian(group["hamiltonian"])
        variables = [_variables(group[name]) for name in layout.SAMPLED_GROUPS]
        tail_of_first = group["configurations/spins"].shape[2:]  # (beta, own axes ..., site, component)
        names = axes_in(group["configurations"])["spins"]
        of_a_state = spin_axes(hamiltonian)
        own_axes = {n: k for n, k in zip(names[3:], tail_of_first[1:], strict=True) if n not in of_a_state}
    for member in members[1:]:
        with tree(member.source) as group:
            theirs = [_variables(group[name]) for name in layout.SAMPLED_GROUPS]
            tail = group["configurations/spins"].shape[2:]
        if _comparable(theirs) != _comparable(variables) or tail != tail_of_first:
            raise ChainError(f"{members[0].source} and {member.source} have recorded different variables")
    stored = reduce(np.intersect1d, [_spin_draws(member, draws) for member in members])
    origins = [origin for member in members for origin in member.origins]
    chains = sum(member.chains for member in members)
    config = members[0].config | {"chains": chains, "rng_seed": None}
    writer = create_chain(
        path, mode=members[0].mode, command=command, config=config, rng_seed=NO_SEED, hamiltonian=hamiltonian,
        betas=members[0].betas, n_chains=chains, posterior=variables[0], sample_stats=variables[1],
        spin_axes=own_axes,
        spins_every=int(stored[1] - stored[0]) if len(stored) > 1 else len(stored), overwrite=True,
    )  # fmt: skip
    try:
        _fill(writer, members, draws, stored)
        writer.set_asked(draws)
        # Draws that are left out have cost something, too, but not these.
        share = {"sample": [draws / max(member.draws, 1) for member in members]}
        parts = {part: [member.seconds[part] for member in members] for part in layout.PARTS_OF_A_RUN}
        writer.set_seconds(**{part: float(np.dot(values, share.get(part, np.ones(len(members)))))
                              for part, values in parts.items()})  # fmt: skip
        writer.commit(complete=True)
    finally:
        writer.close()
    with h5py.File(path, "r+", locking=False) as file:
        file.attrs["merged_from"] = layout.to_json(origins, "the origins")
    return draws


def _variables(group: h5py.Group) -> dict[str, tuple]:
    """{name: (own axes, dtype, units)} of the sampled variables of a group."""
    found = {}
    for name, axes in axes_in(group).items():
        dataset = group[name]
        if dataset.is_scale:
            continue
        own = {axis: len(group[axis]) if is_bare_axis(group[axis]) else group[axis][()] for axis in axes[3:]}
        dtype = np.dtype(bool) if dataset.attrs.get("dtype") == "bool" else dataset.dtype
        found[name] = (own, dtype, dataset.attrs["units"])
    return found


def _comparable(variables: list[dict[str, tuple]]) -> list[dict[str, Any]]:
    """The same without arrays, which have no one answer to ==."""
    return [
        {name: ({axis: np.asarray(values).tolist() for axis, values in own.items()}, *rest)
         for name, (own, *rest) in found.items()}
        for found in variables
    ]  # fmt: skip


def _spin_draws(member: Member, draws: int) -> np.ndarray:
    with tree(member.source) as group:
        numbers = group["configurations/spin_draw"][: committed_lengths(group)[1]]
    return numbers[numbers < draws]


def _fill(writer: ChainWriter, members: Sequence[Member], draws: int, stored: np.ndarray) -> None:
    """Append the draws of all members, block by block."""
    with tree(members[0].source) as group:
        spins = group["configurations/spins"]
        row = math.prod(spins.shape[2:]) * spins.dtype.itemsize + 64 * len(writer.betas)  # bytes, about
    block = max(1, PENDING_BYTES // (row * writer.n_chains))
    for first in range(0, draws, block):
        stop = min(first + block, draws)
        kept = stored[(stored >= first) & (stored < stop)]
        parts = [_block(member, first, stop, kept) for member in members]
        posterior, stats = (
            {name: np.concatenate([part[k][name] for part in parts]) for name in parts[0][k]} for k in (0, 1)
        )
        writer.append(posterior, stats, np.concatenate([part[2] for part in parts]), kept)
        if writer.pending_bytes > PENDING_BYTES:
            writer.commit()


def _block(member: Member, first: int, stop: int, kept: np.ndarray) -> tuple[Mapping, Mapping, np.ndarray]:
    """Draws first to stop - 1 of all chains of a member, and the spins of the draws `kept`."""
    with tree(member.source) as group:
        sampled = [
            {name: layout.load(group[kind][name], np.s_[:, first:stop]) for name in layout.sampled_names(group[kind])}
            for kind in layout.SAMPLED_GROUPS
        ]
        spins, numbers = group["configurations/spins"], group["configurations/spin_draw"][()]
        if not len(kept):
            return *sampled, np.zeros((spins.shape[0], 0, *spins.shape[2:]), spins.dtype)
        low, high = np.searchsorted(numbers, (kept[0], kept[-1] + 1))
        rows = spins[:, low:high]
        return *sampled, rows[:, np.isin(numbers[low:high], kept)]
