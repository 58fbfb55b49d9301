"""What training minimises: each objective makes the states of a step, then a loss for any part of them."""

from __future__ import annotations

from nmcmc.objectives.any_order import AnyOrderLikelihood
from nmcmc.objectives.likelihood import Likelihood, SoftLikelihood
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
}

__all__ = [
    "OBJECTIVES",
    "AnyOrderLikelihood",
    "Likelihood",
    "Refined",
    "RefinedGradient",
    "ReverseKL",
    "RewardToGo",
    "SelfDistillation",
    "SoftLikelihood",
]
