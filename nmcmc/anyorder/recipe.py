"""From settings to an any-order sampler: window, order, network, and the temperatures and fields it serves."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from mc.hamiltonian import Hamiltonian
from nmcmc.anyorder.sampler import AnyOrderSampler
from nmcmc.anyorder.site_network import SiteNetwork
from nmcmc.anyorder.whole_network import WholeNetwork
from nmcmc.anyorder.window import Window, is_homogeneous, places_of

if TYPE_CHECKING:
    from nmcmc.recipe import NetSettings

NETS = ("anyorder", "mlp")
PRIORS = ("local", "none")
ORDERS = ("rows", "random")
# Of width, layers and heads by default. Attention is left out: the window's embedding alone reaches about the same in
# half the CPU time (benchmarks/any_order.py, rows ising-10, ising-20).
DEFAULTS = {"anyorder": {"layers": 2, "heads": 0}, "mlp": {"width": 512, "layers": 3}}


def resolved(hamiltonian: Hamiltonian, settings: NetSettings) -> NetSettings:
    """The same settings spelled out; ValueError, one line, for those that do not fit."""
    prior = settings.prior or "local"
    if prior not in PRIORS:
        raise ValueError(
            f"prior={prior}: net={settings.net} takes prior={' or prior='.join(PRIORS)}, of any known spins"
        )
    if settings.order not in ORDERS:
        raise ValueError(f"net.order={settings.order}: {' or '.join(ORDERS)} is needed")
    if settings.net == "anyorder" and settings.heads and settings.width % (2 * settings.heads):
        raise ValueError(f"net.width={settings.width}: a multiple of twice net.heads={settings.heads} is needed")
    if settings.window is not None and settings.window < 1:
        raise ValueError(f"net.window={settings.window}: at least 1 site to each side is needed")
    places = places_of(hamiltonian)
    settings = replace(settings, prior=prior, patch=(1,), head="spin", cell=settings.cell or places.shape)
    if settings.cell != places.shape:
        refusal = "net=mlp is made for one lattice; use net=anyorder"
        if settings.net == "anyorder":
            refusal = window_of(settings, places.periodic).refusal(places, turns=settings.heads > 0)
        if not refusal and not is_homogeneous(hamiltonian):
            refusal = "a network grows to lattices whose sites are all alike"
        if refusal:
            raise ValueError(refusal)
    return settings


def window_of(settings: NetSettings, periodic: tuple[bool, ...]) -> Window:
    """The window of resolved settings."""
    return Window(tuple(settings.cell), periodic, settings.window)


def order_of(hamiltonian: Hamiltonian, settings: NetSettings) -> np.ndarray:
    """The generation order (N,): row by row, or a permutation that the stored seed makes."""
    if settings.order == "rows":
        return np.arange(hamiltonian.n_spins)
    return np.random.default_rng(settings.order_seed).permutation(hamiltonian.n_spins)


def condition_of(settings: NetSettings, hamiltonian: Hamiltonian, beta: float) -> torch.Tensor | None:
    """Where beta, and the field, lie in the ranges a network serves, each from -1 to 1; None for a network of one."""
    numbers = []
    if settings.betas is not None:
        numbers.append(scaled(beta, settings.betas))
    if settings.fields is not None:
        numbers.append(scaled(float(hamiltonian.parameters.get("h", 0.0)), settings.fields))
    return torch.tensor(numbers, dtype=torch.float32) if numbers else None


def scaled(value: float, span: tuple[float, float]) -> float:
    """-1 at the lower end of a range, 1 at the upper."""
    low, high = span
    return 0.0 if high == low else 2.0 * (value - low) / (high - low) - 1.0


def build(hamiltonian: Hamiltonian, beta: float, settings: NetSettings, seed: int = 0) -> AnyOrderSampler:
    """An untrained sampler of resolved settings on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    places = places_of(hamiltonian)
    conditions = sum(span is not None for span in (settings.betas, settings.fields))
    common = dict(width=settings.width, layers=settings.layers, conditions=conditions, generator=generator)
    if settings.net == "mlp":
        network = WholeNetwork(hamiltonian.n_spins, **common)
    else:
        network = SiteNetwork(
            window_of(settings, places.periodic), heads=settings.heads, odd=is_odd(hamiltonian, settings),
            sites=0 if is_homogeneous(hamiltonian) else hamiltonian.n_spins, **common,
        )  # fmt: skip
    return with_network(hamiltonian, beta, settings, network)


def is_odd(hamiltonian: Hamiltonian, settings: NetSettings) -> bool:
    """Whether a global flip leaves the energy alone at all fields that a network serves.

    Not at the field of the Hamiltonian only: the network of a range is built anew at any field of it.
    """
    return hamiltonian.is_z2_symmetric and not any(settings.fields or ())


def with_network(
    hamiltonian: Hamiltonian, beta: float, settings: NetSettings, network: torch.nn.Module
) -> AnyOrderSampler:
    """A sampler of resolved settings with given weights, shared: another temperature, field or size of a family."""
    condition = condition_of(settings, hamiltonian, beta)
    order = order_of(hamiltonian, settings)
    return AnyOrderSampler(hamiltonian, beta, network, order, settings.prior == "local", condition)
