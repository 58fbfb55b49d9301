"""One network for a range of temperatures and fields: `family.at(beta, h)` is a Proposal, trained once for all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from mc import models
from mc.analysis import kelvin
from mc.hamiltonian import Hamiltonian
from nmcmc.anyorder.recipe import build, with_network
from nmcmc.anyorder.sampler import AnyOrderSampler
from nmcmc.recipe import NetSettings, resolved


class Family(nn.Module):
    """Any-order samplers that share a network.

    hamiltonian: the model at any field of the range. targets: (beta, h) of the members it is trained at, h None for
    the field of `hamiltonian`; their spans are the ranges it serves. settings: of the network. seed: of its weights.

    members: the samplers of these targets. Raises ValueError for no targets, and as `build_sampler` does.
    """

    def __init__(
        self,
        hamiltonian: Hamiltonian,
        targets: list[tuple[float, float | None]],
        settings: NetSettings,
        seed: int = 0,
    ):
        super().__init__()
        if not targets:
            raise ValueError("a family of samplers needs at least one temperature")
        betas = [beta for beta, _ in targets]
        fields = [h for _, h in targets if h is not None]
        settings = replace(settings, betas=(min(betas), max(betas)), fields=span(fields))
        self.settings = resolved(hamiltonian, settings)
        self.hamiltonian, self.beta = hamiltonian, float(np.mean(betas))
        first = build(with_field(hamiltonian, targets[0][1]), targets[0][0], self.settings, seed)
        self.network, self.tokens, self.max_batch = first.network, first.tokens, first.max_batch
        self.members = nn.ModuleList(self.at(beta, h) for beta, h in targets)

    @property
    def device(self) -> torch.device:
        return self.members[0].device

    def at(self, beta: float, h: float | None = None) -> AnyOrderSampler:
        """The sampler at inverse temperature beta and field h (None: that of the model); ValueError out of range."""
        hamiltonian = with_field(self.hamiltonian, h)
        refusal = out_of_range(self.settings, hamiltonian, beta)
        if refusal:
            raise ValueError(refusal)
        device = next(self.network.parameters()).device
        return with_network(hamiltonian, beta, self.settings, self.network).to(device)

    def states_within(self, numbers: int) -> int:
        return self.members[0].states_within(numbers)

    def prior_alone(self) -> PriorsAlone:
        """The members without the network."""
        return PriorsAlone([member.prior_alone() for member in self.members])


class PriorsAlone:
    """members: samplers without a network."""

    def __init__(self, members: list[AnyOrderSampler]):
        self.members = members


def span(values: list[float]) -> tuple[float, float] | None:
    """Smallest and largest, None of nothing."""
    return (min(values), max(values)) if values else None


def with_field(hamiltonian: Hamiltonian, h: float | None) -> Hamiltonian:
    """The same model in another field; ValueError for a model that has none."""
    if h is None or hamiltonian.parameters.get("h") == h:
        return hamiltonian
    if hamiltonian.name not in models.MODELS or "h" not in models.MODELS[hamiltonian.name].keys:
        raise ValueError(f"{hamiltonian.name}: a model with a field h= is needed for a range of fields")
    kept = {
        key: value for key, value in hamiltonian.parameters.items() if key in models.MODELS[hamiltonian.name].keys
    }
    return models.build(hamiltonian.name, kept | {"h": h})


def out_of_range(settings: NetSettings, hamiltonian: Hamiltonian, beta: float) -> str:
    """Why a network of some temperatures and fields does not serve a target, "" if it does."""
    slack = 1e-9
    if settings.betas is not None:
        low, high = settings.betas
        if not low * (1 - slack) <= beta <= high * (1 + slack):
            outside = f"beta={beta:.10g} is outside {low:.10g} to {high:.10g}"
            if hamiltonian.k_B != 1.0:
                T, hot, cold = kelvin([beta, low, high], hamiltonian.k_B)
                outside += f" (T={T:.6g} outside {cold:.6g} to {hot:.6g} K)"
            return f"{outside}, for which the network was trained"
    if settings.fields is not None:
        (low, high), h = settings.fields, hamiltonian.parameters.get("h", 0.0)
        if isinstance(h, str):
            return f"h={h} is no number from {low:.6g} to {high:.6g}, for which the network was trained"
        if not low - slack <= h <= high + slack:
            return f"h={h:.6g} is outside {low:.6g} to {high:.6g}, for which the network was trained"
    return ""
