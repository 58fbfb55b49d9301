"""The optimisers of a training: AdamW for everything, or Muon for the matrices between hidden features.

Muon (Jordan et al., 2024) replaces the gradient of a matrix by the nearest orthogonal one. Embeddings, positions,
heads, biases, norms and linear residuals, whose rows are no directions of one space, stay with AdamW.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

OPTIMIZERS = ("adamw", "muon")


class Together:
    """Several optimisers of different parameters, used as one."""

    def __init__(self, *optimizers: torch.optim.Optimizer):
        self.optimizers = optimizers

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def step(self) -> None:
        for optimizer in self.optimizers:
            optimizer.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return {str(number): optimizer.state_dict() for number, optimizer in enumerate(self.optimizers)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for number, optimizer in enumerate(self.optimizers):
            optimizer.load_state_dict(state[str(number)])


def make_optimizer(sampler: nn.Module, settings) -> torch.optim.Optimizer | Together:
    """What updates `sampler.network`, by the optimizer, learning_rate, betas and weight_decay of TrainSettings.

    Weights decay in matrices only. Muon's steps are scaled to the size of AdamW's, so that a learning rate means the
    same for both (Liu et al., arXiv:2502.16982). Raises ValueError for a name that is none of `OPTIMIZERS`.
    """
    if settings.optimizer not in OPTIMIZERS:
        raise ValueError(f"train.optimizer={settings.optimizer}: {' or '.join(OPTIMIZERS)} is needed")
    hidden = list(hidden_matrices(sampler.network)) if settings.optimizer == "muon" else []
    of_muon = {id(parameter) for parameter in hidden}
    rest = [parameter for parameter in sampler.network.parameters() if id(parameter) not in of_muon]
    groups = [
        {"params": [p for p in rest if p.dim() >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in rest if p.dim() < 2], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.betas)
    if not hidden:
        return adamw
    muon = torch.optim.Muon(
        hidden, lr=settings.learning_rate, weight_decay=settings.weight_decay, adjust_lr_fn="match_rms_adamw"
    )
    return Together(muon, adamw)


def hidden_matrices(network: nn.Module) -> Iterator[nn.Parameter]:
    """The matrices that take hidden features to hidden features: of the blocks of a trunk, of the head of spins."""
    trunk = getattr(network, "trunk", None)
    if trunk is not None:
        yield from (parameter for parameter in trunk.blocks.parameters() if parameter.dim() == 2)
    if hasattr(network, "from_features"):
        yield network.from_features
