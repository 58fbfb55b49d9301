"""The dotted settings of the command line: one table of names, parsers, defaults and what they say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cli import values

LOCAL = ("metropolis", "heatbath")
CLUSTER = ("wolff", "swendsen-wang")
SCHEDULED = ("population", "anneal")  # one pass through a schedule of temperatures
CLASSICAL = (*LOCAL, *CLUSTER, "pt", *SCHEDULED)
NEURAL = ("train", "nmcmc", "nis", "prior")
TRAINED = ("train", "nmcmc", "nis")
MODES = (*CLASSICAL, *NEURAL)


@dataclass(frozen=True)
class Setting:
    """parse(key, text) -> value; default None means that the recipe or the model decides. modes: where it acts."""

    parse: Callable[[str, str], Any]
    default: Any
    modes: tuple[str, ...]
    about: str


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
        values.one_of("transformer", "linear", "none"),
        None, TRAINED, "what corrects the prior: transformer, linear (a convex fit), or none",
    ),
    "net.window": Setting(values.at_least(1), None, TRAINED, "columns to each side that a linear residual looks at"),
    "net.width": Setting(values.at_least(1), None, TRAINED, "width of the transformer"),
    "net.layers": Setting(values.at_least(1), None, TRAINED, "number of blocks"),
    "net.heads": Setting(values.at_least(1), None, TRAINED, "attention heads"),
    "net.head": Setting(values.one_of("tree", "softmax"), None, NEURAL, "how a token is drawn"),
    "train.recipe": Setting(values.one_of("default", "published"), "default", TRAINED, "a set of defaults"),
    "train.steps": Setting(values.at_least(0), None, TRAINED, "weight updates"),
    "train.batch": Setting(values.at_least(2), None, TRAINED, "states a weight update"),
    "train.microbatch": Setting(values.at_least(1), None, TRAINED, "states whose gradients fit in memory at once"),
    "train.lr": Setting(values.positive, None, TRAINED, "highest learning rate"),
    "train.objective": Setting(
        values.one_of("soft-distillation", "soft-likelihood", "likelihood", "reverse-kl", "rtgs"),
        None, TRAINED, "what is minimised",
    ),
    "train.data": Setting(
        values.text, None, TRAINED, "a chain file with spins, for likelihoods and net=linear, or self: its own draws"
    ),
    "train.states": Setting(values.at_least(100), None, TRAINED, "equilibrium states that net=linear is fitted to"),
    "train.sweeps": Setting(values.at_least(0), None, TRAINED, "heat-bath sweeps of a distilled state"),
    "train.reuse": Setting(values.at_least(1), None, TRAINED, "steps that one draw of states serves in distillation"),
    "move": Setting(
        values.one_of("global", "block"), "global", ("nmcmc",),
        "whole configurations, or all rows but one of a two-dimensional lattice",
    ),
    "local": Setting(values.at_least(0), 0, ("nmcmc",), "Metropolis sweeps after each neural step"),
    "init": Setting(values.text, "random", (*LOCAL, *CLUSTER, "pt"), "random, up, or a chain file to start from"),
    "spins.every": Setting(values.at_least(0), None, MODES, "keep the spins of every K-th draw, 0 for none"),
    "kernel": Setting(
        values.one_of("auto", "packed", "bit-planes", "lanes", "dense", "graph", "replicas"),
        "auto", (*LOCAL, "pt", "population", "anneal"), "what moves the spins; auto: the fastest that fits",
    ),
    "ladder": Setting(
        values.one_of("fixed", "tuned"), "fixed", ("pt",),
        "fixed: the betas written are the betas sampled; tuned: the warm-up moves the inner ones",
    ),
    "replicas": Setting(values.at_least(1), 1, ("pt",), "ladders of a chain; overlaps need two"),
    "houdayer": Setting(
        values.one_of("auto", "off"), "auto", ("pt",), "cluster moves between replicas, where they do not percolate"
    ),
}  # fmt: skip
