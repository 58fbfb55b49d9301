"""Neural proposals of spin configurations and their coupling to Monte Carlo.

`p = nmcmc.load(FILE)`; `spins, log_q = p.sample(n, generator)`; `p.log_prob(spins)`.
"""

from __future__ import annotations

import os

from mc.hamiltonian import Hamiltonian
from nmcmc.anyorder.sampler import AnyOrderSampler
from nmcmc.checkpoint import CheckpointError, load_checkpoint, retargeted
from nmcmc.recipe import NetSettings, build_sampler
from nmcmc.sampler import AutoregressiveSampler, Proposal

__all__ = [
    "AnyOrderSampler",
    "AutoregressiveSampler",
    "CheckpointError",
    "NetSettings",
    "Proposal",
    "build_sampler",
    "load",
]


def load(
    path: str | os.PathLike, beta: float | None = None, hamiltonian: Hamiltonian | None = None
) -> AutoregressiveSampler | AnyOrderSampler:
    """The trained sampler in a checkpoint: a Proposal bound to its Hamiltonian and beta, on the CPU.

    beta, hamiltonian: another target that it serves, of an any-order network: an inverse temperature or field of the
    range it was trained for, or the same model on a larger lattice.

    Raises CheckpointError for a file that is none, and for a target that it does not serve.
    """
    checkpoint = load_checkpoint(path)
    if beta is not None or hamiltonian is not None:
        target = checkpoint.hamiltonian if hamiltonian is None else hamiltonian
        checkpoint = retargeted(path, checkpoint, target, checkpoint.beta if beta is None else beta)
    return checkpoint.sampler()
