"""Physics before any network: what is known of the next spins given the past. One file a prior.

`none` knows nothing, `local` the energy with spins already fixed, `lookahead` also the rest of the row.
"""

from __future__ import annotations

from mc.hamiltonian import Hamiltonian
from nmcmc.priors.base import Prior
from nmcmc.priors.local import LocalPrior
from nmcmc.priors.lookahead import LookaheadPrior, lookahead_refusal
from nmcmc.priors.none import NoPrior
from nmcmc.tokens import Tokens

PRIORS = ("none", "local", "lookahead")

__all__ = ["PRIORS", "LocalPrior", "LookaheadPrior", "NoPrior", "Prior", "default_prior", "make_prior"]


def default_prior(hamiltonian: Hamiltonian, tokens: Tokens) -> str:
    """`lookahead` where it applies, else `local`."""
    return "local" if lookahead_refusal(hamiltonian, tokens) else "lookahead"


def make_prior(name: str, hamiltonian: Hamiltonian, tokens: Tokens, beta: float) -> Prior:
    """The prior called `name`; ValueError for another name, or where it does not apply."""
    if name == "none":
        return NoPrior(tokens)
    if name == "local":
        return LocalPrior(hamiltonian, tokens, beta)
    if name == "lookahead":
        return LookaheadPrior(hamiltonian, tokens, beta)
    raise ValueError(f"prior={name}: {', '.join(PRIORS)} is needed")
