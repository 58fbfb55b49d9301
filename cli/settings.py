"""The dotted settings of the command line: one table of names, parsers, defaults and what they say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cli import values

LOCAL = ("metropolis", "heatbath")
CLUSTER = ("wolff", "swendsen-wang")
SCHEDULED = ("population", "anneal", "sequential")  # one pass through a schedule of temperatures
KINETIC, MEAN_FIELD = "kinetic", "mean-field"  # of vector spins only
CLASSICAL = (*LOCAL, *CLUSTER, "pt", *SCHEDULED, KINETIC)
LEARNING = ("train", "distill")  # end with a checkpoint, without draws
COOLED = "neural-anneal"  # its draws are those of the coldest temperature
TAUGHT = ("train", "nmcmc", "nis")
TRAINED = (*TAUGHT, "distill", COOLED)
NEURAL = (*TRAINED, "prior")
MODES = (*CLASSICAL, MEAN_FIELD, *NEURAL)
VECTOR = "vector"  # the model whose spins are vectors
OF_VECTORS = (*LOCAL, "pt", KINETIC, MEAN_FIELD)  # modes that it takes


@dataclass(frozen=True)
class Setting:
    """parse(key, text) -> value; default None means that the recipe or the model decides. modes: where it acts.

    spins: on which it acts, "ising", "vector" or "any".
    """

    parse: Callable[[str, str], Any]
    default: Any
    modes: tuple[str, ...]
    about: str
    spins: str = "ising"


SETTINGS: dict[str, Setting] = {
    "patch": Setting(values.shape, None, NEURAL, "spins drawn together: 2x4 on a lattice, a number on a graph"),
    "prior": Setting(
        values.one_of("auto", "none", "local", "lookahead", "belief", "boundary-mps"),
        None, NEURAL, "physics before the network; auto: a pilot chooses it, its bond and whether to train",
    ),
    "prior.chi": Setting(values.at_least(1), None, NEURAL, "bond of boundary-mps"),
    "prior.form": Setting(values.one_of("two-leg", "one-leg"), None, NEURAL, "of boundary-mps on a torus"),
    "prior.sweeps": Setting(values.at_least(0), None, NEURAL, "sweeps of belief, 0 for one hop"),
    "target_ess": Setting(values.fraction, 0.95, NEURAL, "ESS of a pilot that needs no larger bond and no training"),
    "net": Setting(
        values.one_of("transformer", "linear", "anyorder", "mlp", "none"),
        None, TRAINED, "what corrects the prior: transformer, linear (a convex fit), anyorder, mlp (its baseline)",
    ),
    "net.window": Setting(
        values.at_least(1), None, TRAINED, "sites to each side that linear, or anyorder, looks at"
    ),
    "net.order": Setting(
        values.one_of("rows", "random"), None, TAUGHT, "anyorder, mlp: order in which proposals draw [rows]"
    ),
    "net.shared": Setting(
        values.one_of("yes", "no"), "no", TAUGHT, "anyorder: one network for all temperatures of the run"
    ),
    "net.fields": Setting(
        values.numbers, None, TAUGHT, "with net.shared=yes: fields h it is trained at, a,b,c or low:high:n"
    ),
    "net.width": Setting(values.at_least(1), None, TRAINED, "width of the transformer"),
    "net.layers": Setting(values.at_least(1), None, TRAINED, "number of blocks"),
    "net.heads": Setting(values.at_least(0), None, TRAINED, "attention heads; anyorder: 0 for none"),
    "net.mask": Setting(
        values.text, None, TRAINED, "past that a token sees: full, boundary, window:W (W sites) or window:W+first"
    ),
    "net.position": Setting(
        values.one_of("additive", "concatenated", "rotary", "rotary-1d", "additive+rotary"),
        None, TRAINED, "how the transformer knows a token's place; rotary alone knows displacements only",
    ),
    "net.backend": Setting(
        values.one_of("auto", "reference", "sdpa", "blocks", "flex", "varlen", "flash"),
        None, TRAINED, "what computes attention; auto: the cheapest that fits",
    ),
    "net.precision": Setting(values.one_of("float32", "bf16"), None, TRAINED, "of the transformer's blocks"),
    "net.head": Setting(
        values.one_of("tree", "softmax", "spin"), None, NEURAL,
        "how a token is drawn: whole, or spin by spin (spin, for belief and groups of any size)",
    ),
    "train.recipe": Setting(values.one_of("default", "published"), "default", TAUGHT, "a set of defaults"),
    "train.steps": Setting(values.at_least(0), None, (*TAUGHT, "distill"), "weight updates"),
    "train.batch": Setting(values.at_least(2), None, TRAINED, "states a weight update"),
    "train.microbatch": Setting(values.at_least(1), None, TRAINED, "states whose gradients fit in memory at once"),
    "train.lr": Setting(values.positive, None, TRAINED, "highest learning rate"),
    "train.optimizer": Setting(
        values.one_of("adamw", "muon"), None, TRAINED, "adamw, or muon for the matrices between hidden features"
    ),
    "train.objective": Setting(
        values.one_of(
            "soft-distillation", "soft-likelihood", "likelihood", "reverse-kl", "rtgs", "refined",
            "modified-gradient", "any-order", "marginal-kl",
        ),
        None, (*TAUGHT, COOLED), "what is minimised",
    ),
    "train.weight": Setting(
        values.positive, None, (*TAUGHT, COOLED), "of the likelihood of refined states in refined, modified-gradient"
    ),
    "train.data": Setting(
        values.text, None, TAUGHT,
        "what likelihoods and net=linear learn from: a chain file, self (own draws); default: tempering",
    ),
    "train.states": Setting(
        values.at_least(100), None, (*TAUGHT, "distill"), "states that likelihoods, net=linear, distill learn from"
    ),
    "train.any": Setting(
        values.share, None, TAUGHT, "any-order: share of states that come in random orders [0.25]"
    ),
    "train.sweeps": Setting(
        values.at_least(0), None, (*TAUGHT, "distill"), "Monte Carlo sweeps of a distilled or refined state"
    ),
    "train.reuse": Setting(values.at_least(1), None, TAUGHT, "steps that one draw of states serves in distillation"),
    "move": Setting(
        values.one_of("global", "block"), "global", ("nmcmc",),
        "whole configurations, or all rows but one of a two-dimensional lattice",
    ),
    "local": Setting(
        values.at_least(0), 0, ("nmcmc", COOLED), "Metropolis sweeps after each neural step, or of a batch that cools"
    ),
    "anneal.steps": Setting(values.at_least(2), 32, (COOLED,), "temperatures of the ladder"),
    "anneal.updates": Setting(values.at_least(1), 4, (COOLED,), "weight updates at each"),
    "anneal.warmup": Setting(values.at_least(0), 20, (COOLED,), "weight updates at the highest before"),
    "anneal.ladder": Setting(values.one_of("log", "linear"), "log", (COOLED,), "temperatures equidistant in it"),
    "anneal.last": Setting(
        values.one_of("cool", "pt"), "cool", (COOLED,), "the last draws are cooled once more, or also tempered"
    ),
    "distill.rounds": Setting(values.at_least(1), 4, ("distill",), "of drawing, refining and training"),
    "distill.from": Setting(
        values.one_of("sweeps", "pt"), "sweeps", ("distill",), "what refines: sweeps at beta, or a short tempering"
    ),
    "init": Setting(
        values.text, "random", (*LOCAL, *CLUSTER, "pt", KINETIC),
        "random, up, field (vector spins), or a chain file to start from", "any",
    ),
    "spins.every": Setting(
        values.at_least(0), None, (*CLASSICAL, *NEURAL), "keep the spins of every K-th draw, 0 for none", "any"
    ),
    "kernel": Setting(
        values.one_of("auto", "packed", "bit-planes", "lanes", "dense", "graph", "replicas", "fields", "swaps"),
        "auto", (*LOCAL, "pt", *SCHEDULED), "what moves the spins; auto: the fastest that fits",
    ),
    "ladder": Setting(
        values.one_of("fixed", "tuned"), "fixed", ("pt",),
        "fixed: the betas written are the betas sampled; tuned: the warm-up moves the inner ones",
        "any",
    ),
    "replicas": Setting(
        values.at_least(1), 1, ("pt",), "ladders of a chain; overlaps need two", "any"
    ),
    "houdayer": Setting(
        values.one_of("auto", "off"), "auto", ("pt",), "cluster moves between replicas, where they do not percolate"
    ),
    "neural": Setting(
        values.one_of("off", "coldest", "all"), None, ("pt",),
        "temperatures whose replicas are offered states of a sampler, as of nmcmc [off]",
    ),
    "moves": Setting(values.at_least(1), 4, ("sequential",), "rounds of a global move and sweeps at each beta"),
    "neural.every": Setting(values.at_least(1), None, ("pt",), "rounds from one such offer to the next [10]"),
    "rule": Setting(
        values.one_of("heatbath", "metropolis"), None, ("pt",),
        "vector: what moves the spins [heatbath; metropolis for energy=loss]", VECTOR,
    ),
    "proposal": Setting(
        values.one_of("local", "global", "flip", "perpendicular", "mixed"), "local", ("metropolis", "pt"),
        "vector: Metropolis moves; all but local: half of them, beside small displacements", VECTOR,
    ),
    "overrelax": Setting(
        values.at_least(0), 0, (*LOCAL, "pt"), "vector: over-relaxation sweeps after each sweep", VECTOR
    ),
    "lags": Setting(
        values.at_least(0), 7, (KINETIC,), "vector: lags 1, 2, 4, ... draws of the two-time correlation", VECTOR
    ),
    "method": Setting(
        values.one_of("nmf", "tap", "tap_onsager"), "nmf", (MEAN_FIELD,), "vector: the mean-field equations", VECTOR
    ),
    "bessel": Setting(
        values.one_of("large-D", "exact"), "large-D", (MEAN_FIELD,), "vector: mean of one spin in a field", VECTOR
    ),
    "scheme": Setting(
        values.one_of("substitution", "time-steps", "anderson"), "substitution", (MEAN_FIELD,),
        "vector: how a solution is looked for", VECTOR,
    ),
    "damping": Setting(
        values.below_one, None, (MEAN_FIELD,),
        "vector: share of the state before in the next [0, 0.6 for tap]", VECTOR
    ),
}  # fmt: skip
OFFER_EVERY = 10  # rounds
# Settings of a training that learns from what the run itself makes, and of a pilot that chooses a network.
NOT_SEQUENTIAL = ("train.recipe", "train.data", "train.objective", "train.sweeps", "train.reuse")


def acting(mode: str, given: dict[str, Any], vector: bool = False) -> dict[str, Any]:
    """{setting: value, given or default} of all that act in a mode; tempering with neural moves has a sampler.

    vector: whether the spins are vectors.
    """
    if vector:
        more = {"replicas"} if mode in LOCAL else set()
        return {key: given.get(key, setting.default) for key, setting in SETTINGS.items()
                if setting.spins in (VECTOR, "any") and (mode in setting.modes or key in more)}  # fmt: skip
    given = {key: value for key, value in given.items() if SETTINGS[key].spins != VECTOR}
    offers = mode == "pt" and given.get("neural", "off") != "off"
    found = {key: given.get(key, setting.default) for key, setting in SETTINGS.items()
             if setting.spins != VECTOR and (
                 mode in setting.modes or ((offers or mode == "sequential") and "nis" in setting.modes))}  # fmt: skip
    if mode == "sequential":
        return {key: value for key, value in found.items() if key not in NOT_SEQUENTIAL}
    if offers:
        return found | {"neural.every": given.get("neural.every", OFFER_EVERY)}
    return {key: value for key, value in found.items() if not key.startswith("neural")}


def of_ensemble(mode: str, given: dict[str, Any], vector: bool = False) -> dict[str, Any]:
    """The same for all instances of an ensemble; those of neural moves are there whether any are made or not."""
    if vector:
        return acting(mode, given, vector)
    return {key: given.get(key, setting.default) for key, setting in SETTINGS.items()
            if mode in setting.modes and setting.spins != VECTOR}  # fmt: skip


def idle(mode: str, given: dict[str, Any], vector: bool = False) -> list[str]:
    """Settings that were given and have no effect, as they are to be named."""
    found = [key for key in given if key not in acting(mode, given, vector) and (key, mode) != ("neural", "pt")]
    needs = {key for key in found if mode == "pt" and (key == "neural.every" or "nis" in SETTINGS[key].modes)}
    return [f"{key}= (without neural=coldest or all)" if key in needs else f"{key}=" for key in found]
