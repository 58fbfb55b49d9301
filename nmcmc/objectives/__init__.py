"""What training minimises: each objective makes the states of a step, then a loss for any part of them."""

from __future__ import annotations

from nmcmc.objectives.any_order import AnyOrderLikelihood
from nmcmc.objectives.likelihood import Likelihood, SoftLikelihood
from nmcmc.objectives.marginal_kl import MarginalKL
from nmcmc.objectives.refined import Refined, RefinedGradient
from nmcmc.objectives.reverse_kl import ReverseKL, RewardToGo
from nmcmc.objectives.self_distillation import SelfDistillation

OBJECTIVES = {
    "soft-distillation": SelfDistillation,
    "soft-likelihood": SoftLikelihood,
    "likelihood": Likelihood,
    "reverse-kl": ReverseKL,
    "rtgs": RewardToGo,
    "refined": Refined,
    "modified-gradient": RefinedGradient,
    "any-order": AnyOrderLikelihood,
    "marginal-kl": MarginalKL,
}

ANY_ORDER = ("any-order", "marginal-kl")  # for samplers that condition on any known spins, and for no others

__all__ = [
    "ANY_ORDER",
    "OBJECTIVES",
    "AnyOrderLikelihood",
    "Likelihood",
    "MarginalKL",
    "Refined",
    "RefinedGradient",
    "ReverseKL",
    "RewardToGo",
    "SelfDistillation",
    "SoftLikelihood",
]
