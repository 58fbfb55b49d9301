"""`--mode sequential`: populations down a ladder of temperatures, with a sampler that learns at each."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from cli import neural
from cli.environments import Environments
from cli.errors import UserError
from cli.plan import make_plan
from cli.work import Run
from nmcmc.anyorder.recipe import NETS as ANY_ORDER_NETS
from nmcmc.recipe import build_sampler
from nmcmc.sampler import AutoregressiveSampler
from nmcmc.sequential import SequentialDriver

LADDER = "mode sequential needs a ladder of temperatures that rises in beta, such as beta=0.2:1:9"


def sequential_driver(work: Run) -> SequentialDriver:
    """The driver, its samplers in work.plan; UserError for what cannot be done."""
    if work.given.get("net") in ANY_ORDER_NETS:
        raise UserError(f"mode sequential: net={work.given['net']} learns from states of any order; use net=linear")
    target, options = work.target, work.options
    if len(target.betas) < 2:
        raise UserError(LADDER)
    if any(high <= low for low, high in zip(target.betas, target.betas[1:], strict=False)):
        raise UserError(f"{LADDER}; turn beta= around, or use --mode pt")
    if options.draws < 2:
        raise UserError(f"--draws {options.draws}: the members of a population; at least 2 are needed")
    clock = time.process_time()
    work.environments = Environments(work.out.parent, work.screen)
    asked = replace(work, given={"net": "linear"} | work.given)  # a fit of seconds at every beta
    plan = make_plan(asked, work.environments)
    work.plan = replace(plan, train=replace(plan.train, objective="soft-likelihood"))
    work.out_said = asked.out_said
    work.seconds["build"] += time.process_time() - clock

    def build(beta: float) -> AutoregressiveSampler:
        environment = work.environments.get(target.hamiltonian, beta, work.plan.net)
        sampler = build_sampler(target.hamiltonian, beta, work.plan.net, options.rng_seed, environment)
        return sampler.to(work.plan.device)

    neural.compile_kernels()
    try:
        driver = SequentialDriver(
            target.hamiltonian, np.array(target.betas), build, work.plan.train, options.chains, options.draws,
            options.rng_seed, work.settings["moves"], thin=options.thin or 1, spins_every=work.spins_every,
            kernel=work.settings["kernel"], report=work.screen.say,
        )  # fmt: skip
    except ValueError as error:
        raise UserError(str(error)) from None
    work.options = options.settled(work.mode, driver.engine.kernel)
    driver.thin = work.options.thin
    return driver
