"""Any-order networks from the command line: their defaults, what they learn from, and networks of many betas."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from cli.arguments import Target
from cli.errors import UserError
from mc.equilibrium import ladder_states
from mc.hamiltonian import Hamiltonian
from nmcmc.anyorder.family import Family, with_field
from nmcmc.anyorder.recipe import DEFAULTS, NETS, ORDERS
from nmcmc.anyorder.sampler import AnyOrderSampler
from nmcmc.objectives import ANY_ORDER, OBJECTIVES
from nmcmc.objectives.base import Objective
from nmcmc.recipe import FITTED_STATES, NetSettings
from nmcmc.training import TrainSettings

STEPS, BATCH, RATE = 1500, 64, 2e-3
FEWEST_VALUES = 3  # of a temperature or field that a network is to serve in between
FEWEST_OF_A_MEMBER = 2000  # states of each temperature of a shared network
ONLY_FOR_THEM = ("net.order", "net.shared", "net.fields", "train.any")


def with_defaults(
    given: dict[str, Any], net: dict[str, Any], train: dict[str, Any], target: Target, rng_seed: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of network and training, given ones included; UserError for those that do not go together."""
    kind = net.get("net", "transformer")
    if kind not in NETS:
        asked = [key for key in ONLY_FOR_THEM if given.get(key) not in (None, "no")]
        if asked or train.get("objective") in ANY_ORDER:
            said = f"{asked[0]}=" if asked else f"train.objective={train['objective']}"
            raise UserError(f"{said} is for net=anyorder or net=mlp; add one of them")
        return net, train
    objective = train.get("objective", "any-order")
    if objective not in ANY_ORDER:
        raise UserError(f"train.objective={objective}: net={kind} takes {' or '.join(ANY_ORDER)}")
    net = DEFAULTS[kind] | {"order": given.get("net.order") or ORDERS[0]} | net
    if net["order"] == "random":
        net["order_seed"] = rng_seed
    if given.get("net.shared") == "yes":
        if kind != "anyorder":
            raise UserError("net.shared=yes: net=mlp is made for one temperature; use net=anyorder")
        net["betas"] = (min(target.betas), max(target.betas))
        if "net.fields" in given:
            if len(set(given["net.fields"])) < len(given["net.fields"]):
                raise UserError("net.fields: a field is given twice; give each once")
            net["fields"] = (min(given["net.fields"]), max(given["net.fields"]))
            for h in given["net.fields"]:
                field_refused(target.hamiltonian, h)
            own, (low, high) = target.hamiltonian.parameters.get("h", 0.0), net["fields"]
            if isinstance(own, str) or not low <= own <= high:
                raise UserError(f"net.fields: the run itself is at h={own}, which is not in {low:.6g} to {high:.6g}; "
                                "give a number h= in between, or other fields")  # fmt: skip
    elif "net.fields" in given:
        raise UserError("net.fields= goes with net.shared=yes, one network for all temperatures and fields")
    train = {"steps": STEPS, "batch": BATCH, "learning_rate": RATE} | train | {"objective": objective}
    return net, train


def field_refused(hamiltonian: Hamiltonian, h: float) -> None:
    """UserError where a model cannot be put into a field."""
    try:
        with_field(hamiltonian, h)
    except ValueError as error:
        raise UserError(f"net.fields: {error}") from None


def family(target: Target, net: NetSettings, fields: tuple[float, ...] | None, seed: int) -> Family:
    """The samplers at all temperatures of a run, and at all fields a network is to serve, with one network."""
    targets = list(itertools.product(target.betas, fields or (None,)))
    return Family(target.hamiltonian, targets, net, seed)


def sparse(target: Target, fields: tuple[float, ...] | None) -> list[str]:
    """A line for each input of a shared network that has too few values to be learned between them."""
    given = {"temperatures": target.betas} | ({"fields": fields} if fields else {})
    return [
        f"{len(values)} {name} are too few to learn those between; give {FEWEST_VALUES} or more"
        for name, values in given.items()
        if len(values) < FEWEST_VALUES
    ]


def objective_of(
    sampler: AnyOrderSampler | Family,
    settings: TrainSettings,
    states_of: Callable[[float, int], np.ndarray],
    say: Callable[[str], None],
    stop: Callable[[], bool],
    seconds: float,
) -> Objective:
    """What an any-order network minimises; UserError when stopped, or out of time, before there are states.

    states_of(beta, n): n states of the target of a single sampler. seconds: wall time for states of a family.
    """
    members = list(sampler.members) if isinstance(sampler, Family) else [sampler]
    if settings.objective == "marginal-kl":
        return OBJECTIVES["marginal-kl"](members)
    total = settings.states or FITTED_STATES
    if isinstance(sampler, Family):
        states = states_of_family(
            members, max(FEWEST_OF_A_MEMBER, total // len(members)), settings.seed, say, stop, seconds
        )
    else:
        states = [states_of(sampler.beta, total)]
    if not all(len(some) for some in states):
        code = 130 if stop() else 1
        raise UserError(
            "stopped before there were states to learn from; give more time, the same command begins anew", code
        )
    return OBJECTIVES["any-order"](members, states, settings.any_order)


def states_of_family(
    members: list[AnyOrderSampler],
    n: int,
    seed: int,
    say: Callable[[str], None],
    stop: Callable[[], bool],
    seconds: float,
) -> list[np.ndarray]:
    """n states of each member's target, (n, N) int8: one simulation of all temperatures for every field."""
    end = time.monotonic() + seconds
    fields: dict[str, list[int]] = {}
    for index, member in enumerate(members):
        fields.setdefault(member.hamiltonian.fingerprint, []).append(index)
    found: list[np.ndarray] = [np.zeros((0, 0), np.int8)] * len(members)
    for indices in fields.values():
        one = members[indices[0]].hamiltonian
        betas = np.array([members[index].beta for index in indices])
        states, name = ladder_states(one, betas, n, seed, stop=lambda: stop() or time.monotonic() > end)
        for index, some in zip(indices, states, strict=True):
            found[index] = some
    where = f"{len(members)} temperatures" if len(fields) == 1 else f"{len(members)} temperatures and fields"
    say(f"states to learn from: {min(map(len, found))} at each of {where}, by {name}")
    return found


def span_words(net: NetSettings) -> str:
    """The temperatures of a shared network, for names of files."""
    return "-".join(f"{beta:.6g}" for beta in net.betas) if net.betas else ""
