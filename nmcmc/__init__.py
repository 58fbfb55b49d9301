"""Neural proposals of spin configurations and their coupling to Monte Carlo.

`p = nmcmc.load(FILE)`; `spins, log_q = p.sample(n, generator)`; `p.log_prob(spins)`.
"""

from __future__ import annotations

import os

from nmcmc.checkpoint import CheckpointError, load_checkpoint
from nmcmc.recipe import NetSettings, build_sampler
from nmcmc.sampler import AutoregressiveSampler, Proposal

__all__ = ["AutoregressiveSampler", "CheckpointError", "NetSettings", "Proposal", "build_sampler", "load"]


def load(path: str | os.PathLike) -> AutoregressiveSampler:
    """The trained sampler in a checkpoint: a Proposal bound to its Hamiltonian and beta, on the CPU.

    Raises CheckpointError for a file that is none.
    """
    return load_checkpoint(path).sampler()
