"""A short pilot: which prior, which bond, and whether a fitted residual can pay.

Every choice here follows from the model, the size of the run and draws with a fixed seed, never from a clock, so that
the same command makes the same chain on another machine.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from mc.hamiltonian import Hamiltonian
from mc.weighted import effective_sample_size, log_mean_weight
from nmcmc.linear_fit import EXCESS
from nmcmc.priors import SPINWISE
from nmcmc.recipe import NetSettings, resolved
from nmcmc.sampler import AutoregressiveSampler

LADDER = (4, 8, 12, 16, 20, 24, 32)  # bonds tried, from the smallest upwards
FIRST_OF_LARGE = 16  # bond to begin with beyond 100 x 100
GOOD_ENOUGH = 0.5  # expected ESS from which the cost of a run may end the climb
HOPELESS = 0.9  # share of conditionals from local fields from which no bond will help
LONGEST_SAMPLING = 1800.0  # nominal seconds of drawing beyond which a larger bond is not taken
SPINS_OF_A_PILOT = 2**20
SPINS_OF_A_FIT = 2**24  # of all states of a linear fit together
EXCESS_OF_A_FIT = 0.02  # nats that too few states may cost, where memory allows more
FEWEST_STATES = 2000
LARGEST_TRAINED = 1024  # spins up to which a transformer is worth its training on a CPU


@dataclass(frozen=True)
class Pilot:
    """What a few draws of a prior say. expected_ess: the lesser of their ESS and that of Gaussian log weights.

    spread: standard deviation of ln w. replaced: share of conditionals that the local field decided. seconds: wall
    time a draw, for the eye only.
    """

    net: NetSettings
    draws: int
    ess: float
    spread: float
    log_z: float
    replaced: float
    seconds: float = field(compare=False)

    @property
    def expected_ess(self) -> float:
        return min(self.ess, math.exp(-(self.spread**2)))

    def line(self) -> str:
        name = self.net.prior
        if name == "boundary-mps":
            name += f" chi={self.net.chi} ({self.net.form})"
        kept = f", {self.replaced:.2g} of the conditionals from local fields" if self.replaced else ""
        found = f"ESS {self.ess:.3f}, sd of ln w {self.spread:.2f}{kept}"
        return f"pilot of {self.draws} draws: {name}: {found}, {1e3 * self.seconds:.3g} ms each"


def run_pilot(sampler: AutoregressiveSampler, net: NetSettings, seed: int) -> Pilot:
    """`pilot_draws` of the prior alone."""
    sampler = sampler.prior_alone()
    n = pilot_draws(sampler.tokens.n_spins)
    began = time.monotonic()
    spins, log_q = sampler.sample(n, torch.Generator().manual_seed(seed))
    seconds = (time.monotonic() - began) / n
    log_weight = -sampler.beta * sampler.hamiltonian.energy(spins) - log_q
    decided = max(getattr(sampler.prior, "decided", 0), 1)
    replaced = getattr(sampler.prior, "replaced", 0) / decided
    ess, log_z = float(effective_sample_size(log_weight)), float(log_mean_weight(log_weight)[0])
    return Pilot(net, n, ess, float(np.std(log_weight)), log_z, replaced, seconds)


def pilot_draws(n_spins: int) -> int:
    """As many as make about a million spins, 64 to 1024."""
    return int(min(1024, max(64, SPINS_OF_A_PILOT // n_spins)))


def nominal_seconds(hamiltonian: Hamiltonian, net: NetSettings) -> float:
    """Seconds to draw a state from a boundary-mps prior on one core of the machine this was fitted on."""
    legs = 2 if net.form == "two-leg" and hamiltonian.lattice.periodic[0] else 1
    if hamiltonian.lattice.periodic[1]:
        return hamiltonian.n_spins * (1.5e-6 + 1.1e-9 * legs * net.chi**3)
    return hamiltonian.n_spins * (0.7e-6 + 1.5e-9 * legs * net.chi**2)


def choose_prior(
    hamiltonian: Hamiltonian,
    net: NetSettings,
    target_ess: float,
    states: int,
    seconds: float,
    seed: int,
    build: Callable[[NetSettings], AutoregressiveSampler],
    report: Callable[[str], None],
    bonds: tuple[int, ...] = LADDER,
) -> Pilot:
    """The prior that applies; of boundary-mps the smallest of `bonds` whose ESS may reach target_ess.

    states: that the run will draw. seconds: wall time that they may take. A larger bond is not tried once drawing
    would take longer than that (nominally); without a limit of time, not before the ESS is one half. build(net) makes
    a sampler. report() is told each pilot.
    """
    net = resolved(hamiltonian, net)
    if net.prior != "boundary-mps":
        pilot = run_pilot(build(net), net, seed)
        report(pilot.line())
        return pilot
    if hamiltonian.n_spins > 10_000:
        bonds = tuple(chi for chi in bonds if chi >= FIRST_OF_LARGE) or bonds
    best: Pilot | None = None
    spent = 0.0
    for chi in bonds:
        trial = replace(net, chi=chi)
        one = nominal_seconds(hamiltonian, trial)
        spent += pilot_draws(hamiltonian.n_spins) * one
        costly = max(states * one, spent) > min(seconds, LONGEST_SAMPLING)
        if best is not None and costly and (best.expected_ess >= GOOD_ENOUGH or seconds < math.inf):
            break
        pilot = run_pilot(build(trial), trial, seed)
        report(pilot.line())
        # Below a few effective draws the ESS is noise; the spread of ln w still tells which is better.
        if best is None or pilot.expected_ess >= best.expected_ess or pilot.spread < best.spread:
            best = pilot
        if pilot.expected_ess >= target_ess or pilot.replaced > HOPELESS:
            break
    return best


@dataclass(frozen=True)
class Choice:
    """Settings of the sampler, equilibrium states for a linear fit (None where there is none), and why, in words."""

    net: NetSettings
    states: int | None
    why: str


def choose_network(hamiltonian: Hamiltonian, pilot: Pilot, target_ess: float) -> Choice:
    """The network that can help a prior whose expected ESS is below target_ess.

    A linear residual costs EXCESS x weights / states nats (the sample-size law of its fit). It is taken, with as
    many states as memory and time allow, where that is less than half of what the prior lacks. Priors of whole
    patches have the transformer.
    """
    ess, lack = pilot.expected_ess, 0.5 * pilot.spread**2
    alone = replace(pilot.net, net="none")
    if ess >= target_ess:
        return Choice(alone, None, f"no training: the prior alone reaches {ess:.3f}, target_ess={target_ess:g}")
    n_spins = hamiltonian.n_spins
    if pilot.net.prior in SPINWISE:
        trial = resolved(hamiltonian, replace(pilot.net, net="linear"))
        price = EXCESS * n_spins * (4 * trial.window + 5)  # times one over the states
        wanted = min(0.25 * max(lack, 1e-6), EXCESS_OF_A_FIT)
        states = int(min(max(price / wanted, FEWEST_STATES), SPINS_OF_A_FIT // n_spins))
        why = f"the prior lacks about {lack:.2g} nats, a fit to {states} states would cost {price / states:.2g}"
        if states >= FEWEST_STATES and price / states < 0.5 * lack:
            return Choice(trial, states, f"a linear residual is fitted: {why}")
        return Choice(alone, None, f"no training: {why}")
    if n_spins <= LARGEST_TRAINED:
        return Choice(replace(pilot.net, net="transformer"), None, "a transformer is trained")
    return Choice(alone, None, f"no training: {n_spins} spins are too many for a transformer on a CPU")
