"""Physics before any network: what is known of the next spins given the past. One file a prior.

`none` knows nothing, `local` the energy with spins already fixed, `lookahead` also the rest of the row, `belief` the
cavity fields of a graph, `boundary-mps` all that is still to come on a square lattice.
"""

from __future__ import annotations

from mc.hamiltonian import Hamiltonian
from mc.square import square_couplings
from nmcmc.environment.build import Environment, build_environment
from nmcmc.priors.base import Prior, SpinPrior
from nmcmc.priors.belief import BeliefPrior, belief_refusal
from nmcmc.priors.boundary_mps import BoundaryMPS, boundary_mps_refusal
from nmcmc.priors.local import LocalPrior
from nmcmc.priors.lookahead import LookaheadPrior, lookahead_refusal
from nmcmc.priors.none import NoPrior
from nmcmc.tokens import Tokens

PRIORS = ("none", "local", "lookahead", "belief", "boundary-mps")
SPINWISE = ("belief", "boundary-mps")  # know single spins, not whole patches
STRONGEST_FIRST = ("boundary-mps", "lookahead", "belief", "local")

__all__ = [
    "PRIORS",
    "SPINWISE",
    "STRONGEST_FIRST",
    "BeliefPrior",
    "BoundaryMPS",
    "LocalPrior",
    "LookaheadPrior",
    "NoPrior",
    "Prior",
    "SpinPrior",
    "make_prior",
    "prior_refusal",
]


def prior_refusal(name: str, hamiltonian: Hamiltonian, tokens: Tokens, chi: int = 1) -> str:
    """Why the prior called `name` does not apply, with the remedy; "" where it does."""
    if name not in PRIORS:
        return f"prior={name}: {', '.join(PRIORS)} is needed"
    if name == "lookahead":
        refusal = lookahead_refusal(hamiltonian, tokens)
        return f"{refusal}; use prior=local" if refusal else ""
    if name == "boundary-mps":
        return boundary_mps_refusal(hamiltonian, tokens, chi)
    return belief_refusal(hamiltonian) if name == "belief" else ""


def make_prior(
    name: str,
    hamiltonian: Hamiltonian,
    tokens: Tokens,
    beta: float,
    *,
    chi: int = 16,
    form: str = "two-leg",
    sweeps: int | None = None,
    environment: Environment | None = None,
) -> SpinPrior:
    """The prior called `name`; ValueError for another name, or where it does not apply.

    chi, form, environment: of boundary-mps; the environment is built here unless it is given. sweeps: of belief.
    """
    refusal = prior_refusal(name, hamiltonian, tokens, chi)
    if refusal:
        raise ValueError(refusal)
    if name == "none":
        return NoPrior(tokens)
    if name == "local":
        return LocalPrior(hamiltonian, tokens, beta)
    if name == "lookahead":
        return LookaheadPrior(hamiltonian, tokens, beta)
    if name == "belief":
        return BeliefPrior(hamiltonian, tokens, beta, sweeps)
    environment = environment or build_environment(square_couplings(hamiltonian), beta, chi, form)
    return BoundaryMPS(hamiltonian, tokens, beta, environment)
