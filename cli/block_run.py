"""`--mode nmcmc ... move=block`: a chain of block moves, whose proposals are built anew for every kept row."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

import cli.threads  # noqa: F401  (one for torch)
from cli.errors import UserError
from cli.work import Run
from nmcmc.block_move import BlockDriver, block_refusal, seconds_a_move

CHI = 16
USED = ("move", "prior", "prior.chi", "spins.every")  # settings that act
SHOWN = 1.0  # seconds a move from which they are announced


@dataclass(frozen=True)
class BlockPlan:
    """chi: bond of the environments."""

    chi: int
    asked: dict[str, Any] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        return {"net": {"prior": "boundary-mps", "chi": self.chi}}


def block_driver(work: Run) -> BlockDriver:
    """The driver; UserError for a model, prior or option that does not go with the move."""
    hamiltonian, options = work.target.hamiltonian, work.options
    refusal = block_refusal(hamiltonian)
    if refusal:
        raise UserError(refusal)
    prior = work.given.get("prior", "boundary-mps")
    if prior not in ("auto", "boundary-mps"):
        raise UserError(f"prior={prior}: move=block draws from prior=boundary-mps; leave prior= out")
    odd = next((key for key in work.given if key not in USED), None)
    if odd is not None:
        raise UserError(f"{odd}= has no place in move=block, which trains nothing; leave it out")
    if options.checkpoint is not None or options.check:
        raise UserError("move=block has no checkpoint and no --check; leave them out")
    if options.device == "cuda":
        raise UserError("--device cuda: move=block runs on the CPU; leave --device out")
    work.plan = BlockPlan(work.given.get("prior.chi", CHI))
    betas = np.array(work.target.betas)
    work.say_out()
    seconds = seconds_a_move(hamiltonian, float(betas.max()), work.plan.chi, options.chains)
    work.extra["seconds_a_move"] = seconds / options.chains
    if seconds > SHOWN:
        moves = (options.draws + options.warmup) * len(betas)
        work.screen.say(f"a move of {options.chains} chains takes about {seconds:.1f} s; {moves} are asked for")
    return BlockDriver(
        hamiltonian, betas, options.chains, options.rng_seed, work.plan.chi, spins_every=work.spins_every
    )
