"""From settings to a sampler: the default recipe, the published one, and how a sampler is put together."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace

import torch

from mc.hamiltonian import Hamiltonian
from nmcmc.networks.heads import HEADS
from nmcmc.networks.transformer import Transformer
from nmcmc.priors import default_prior, make_prior
from nmcmc.sampler import AutoregressiveSampler
from nmcmc.tokens import tokens_for
from nmcmc.training import TrainSettings

RECIPES = ("default", "published")


@dataclass(frozen=True)
class NetSettings:
    """What the sampler is made of.

    patch: sizes of a token, None for a sensible one. prior: a name of `nmcmc.priors`, None for the best that applies.
    net: "transformer", or "none" for the prior alone. zero_head: start as the prior exactly.
    """

    patch: tuple[int, ...] | None = None
    prior: str | None = None
    net: str = "transformer"
    head: str = "tree"
    width: int = 64
    layers: int = 1
    heads: int = 4
    zero_head: bool = True


def default_steps(n_spins: int) -> int:
    """Weight updates of the default recipe: enough for an ESS above 0.9 on the critical torus up to L = 16."""
    return 500 if n_spins <= 64 else 800


def build_sampler(
    hamiltonian: Hamiltonian, beta: float, settings: NetSettings, seed: int = 0
) -> AutoregressiveSampler:
    """An untrained sampler on the CPU; ValueError for settings that do not fit the model."""
    tokens = tokens_for(hamiltonian, settings.patch)
    prior = make_prior(settings.prior or default_prior(hamiltonian, tokens), hamiltonian, tokens, beta)
    if settings.head not in HEADS:
        raise ValueError(f"net.head={settings.head}: {', '.join(HEADS)} is needed")
    head = HEADS[settings.head](tokens.vocabulary)
    network = None
    if settings.net == "transformer":
        network = Transformer(
            tokens.n_tokens, tokens.vocabulary, head.n_outputs, width=settings.width, layers=settings.layers,
            heads=settings.heads, zero_head=settings.zero_head, generator=torch.Generator().manual_seed(seed),
        )  # fmt: skip
    elif settings.net != "none":
        raise ValueError(f"net={settings.net}: transformer or none is needed")
    return AutoregressiveSampler(hamiltonian, beta, tokens, prior, head, network)


def resolved(hamiltonian: Hamiltonian, settings: NetSettings) -> NetSettings:
    """The same settings with patch and prior spelled out."""
    tokens = tokens_for(hamiltonian, settings.patch)
    patch = tokens.patch or (tokens.k,)
    return replace(settings, patch=patch, prior=settings.prior or default_prior(hamiltonian, tokens))


def published(net: NetSettings, train: TrainSettings) -> tuple[NetSettings, TrainSettings]:
    """The recipe of Bialas et al., arXiv:2604.27738, tables A.2 and A.3, for every setting they state.

    Width 128, weights N(0, 0.02), the local prior, REINFORCE with the batch mean, AdamW at a constant 1e-3. The
    neighbours beyond a periodic edge are kept in the prior: an improvement that costs nothing.
    """
    net = replace(net, width=128, layers=1, heads=4, head="softmax", zero_head=False, prior=net.prior or "local")
    train = replace(
        train, objective="reverse-kl", learning_rate=1e-3, schedule="constant", warmup=0, clip=math.inf,
        betas=(0.9, 0.95), batch=4096,
    )  # fmt: skip
    return net, train


def as_plain(settings: NetSettings | TrainSettings) -> dict:
    """Settings as JSON types."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(settings).items()}


def net_from_plain(plain: dict) -> NetSettings:
    """The inverse of `as_plain` for NetSettings."""
    return NetSettings(**(plain | {"patch": tuple(plain["patch"]) if plain["patch"] else None}))
