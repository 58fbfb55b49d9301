"""From settings to a sampler: the default recipe, the published one, and how a sampler is put together."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace

import torch

from mc.hamiltonian import Hamiltonian
from nmcmc.anyorder import recipe as anyorder
from nmcmc.environment.build import FORMS, Environment
from nmcmc.linear_fit import choose_window
from nmcmc.networks.attention import BACKENDS
from nmcmc.networks.heads import HEADS, SpinHead
from nmcmc.networks.linear import LinearResidual
from nmcmc.networks.positions import Positions
from nmcmc.networks.spin_transformer import SpinTransformer
from nmcmc.networks.transformer import Transformer
from nmcmc.networks.trunk import PRECISIONS, Trunk, backend_on
from nmcmc.networks.visibility import make_visibility
from nmcmc.priors import SPINWISE, STRONGEST_FIRST, make_prior, prior_refusal
from nmcmc.sampler import AutoregressiveSampler
from nmcmc.tokens import Tokens, tokens_for
from nmcmc.training import TrainSettings

NETS = ("transformer", "linear", *anyorder.NETS, "none")
FITTED_STATES = 16_000  # equilibrium states of a linear fit, by default
OF_ANY_ORDER = ("order", "order_seed", "betas", "fields", "cell")  # settings that came with these networks


@dataclass(frozen=True)
class NetSettings:
    """What the sampler is made of.

    patch: sizes of a token, None for a sensible one. prior: a name of `nmcmc.priors`, None for the best that applies.
    chi, form: bond and form of boundary-mps. sweeps: of belief, None for its default.
    net: "transformer", "linear", or "none" for the prior alone. window: columns to each side that a linear residual
    looks at, None for what its samples can pay. head: how a token is drawn, "tree", "softmax" or "spin"; None for
    spin with priors that go spin by spin, else tree. zero_head: start as the prior exactly.
    mask: the past that a token sees in each layer: "full", "boundary" (tokens with a spin of its ordered Markov
    boundary), "window:W" (the last W sites) or "window:W+first" (and the first row or layer). position: a name of
    `positions.POSITIONS`. backend: "auto" or a name of `attention.BACKENDS`. precision: "float32" or "bf16".

    Of net "anyorder" and "mlp", which condition on any known spins (`nmcmc.anyorder`): window: largest displacement
    along an axis, None for the whole lattice. order: in which proposals draw, "rows" or "random", the permutation of
    order_seed. betas, fields: lowest and highest beta and field h that one network serves, None for one target.
    cell: shape of the lattice that the network is made for, None for that of the model.
    """

    patch: tuple[int, ...] | None = None
    prior: str | None = None
    chi: int = 16
    form: str = "two-leg"
    sweeps: int | None = None
    net: str = "transformer"
    window: int | None = None
    head: str | None = None
    width: int = 64
    layers: int = 1
    heads: int = 4
    zero_head: bool = True
    mask: str = "full"
    position: str = "additive"
    backend: str = "auto"
    precision: str = "float32"
    order: str = "rows"
    order_seed: int = 0
    betas: tuple[float, float] | None = None
    fields: tuple[float, float] | None = None
    cell: tuple[int, ...] | None = None


def default_steps(n_spins: int) -> int:
    """Weight updates of the default recipe: enough for an ESS above 0.9 on the critical torus up to L = 16."""
    return 500 if n_spins <= 64 else 800


def build_sampler(
    hamiltonian: Hamiltonian,
    beta: float,
    settings: NetSettings,
    seed: int = 0,
    environment: Environment | None = None,
) -> AutoregressiveSampler:
    """An untrained sampler on the CPU; ValueError for settings that do not fit the model.

    environment: of the boundary-mps prior, where it is known already.
    """
    settings = resolved(hamiltonian, settings)
    if settings.net in anyorder.NETS:
        return anyorder.build(hamiltonian, beta, settings, seed)
    tokens = tokens_of(hamiltonian, settings)
    prior = make_prior(
        settings.prior, hamiltonian, tokens, beta, chi=settings.chi, form=settings.form, sweeps=settings.sweeps,
        environment=environment,
    )  # fmt: skip
    head = SpinHead() if settings.head == "spin" else HEADS[settings.head](tokens.vocabulary)
    network, generator = None, torch.Generator().manual_seed(seed)
    if settings.net == "transformer":
        trunk = trunk_of(hamiltonian, tokens, settings)
        if settings.head == "spin":
            linear = None if settings.window is None else LinearResidual(hamiltonian, tokens, settings.window)
            network = SpinTransformer(hamiltonian, tokens, beta, trunk, linear, generator)
        else:
            network = Transformer(
                trunk, tokens.vocabulary, head.n_outputs, zero_head=settings.zero_head, generator=generator
            )
    elif settings.net == "linear":
        network = LinearResidual(hamiltonian, tokens, settings.window)
    return AutoregressiveSampler(hamiltonian, beta, tokens, prior, head, network)


def retargeted(
    sampler: AutoregressiveSampler, settings: NetSettings, beta: float, environment: Environment | None = None
) -> AutoregressiveSampler:
    """The same weights, shared, under the prior of another temperature; arguments as of `build_sampler`."""
    settings = resolved(sampler.hamiltonian, settings)
    prior = make_prior(
        settings.prior, sampler.hamiltonian, sampler.tokens, beta, chi=settings.chi, form=settings.form,
        sweeps=settings.sweeps, environment=environment,
    ).to(sampler.device)  # fmt: skip
    network = sampler.network
    if isinstance(network, SpinTransformer):
        network = network.at(beta)
    return AutoregressiveSampler(
        sampler.hamiltonian, beta, sampler.tokens, prior, sampler.head, network, sampler.canonical, sampler.max_batch
    )


def trunk_of(hamiltonian: Hamiltonian, tokens: Tokens, settings: NetSettings) -> Trunk:
    """The transformer between inputs and head; ValueError for a mask, position or width that does not fit."""
    return Trunk(
        tokens.n_tokens,
        width=settings.width,
        layers=settings.layers,
        heads=settings.heads,
        visibility=make_visibility(settings.mask, hamiltonian, tokens),
        positions=Positions(
            settings.position, tokens.n_tokens, width=settings.width, heads=settings.heads, tokens=tokens
        ),
        backend=settings.backend,
        precision=settings.precision,
    )


def tokens_of(hamiltonian: Hamiltonian, settings: NetSettings) -> Tokens:
    """The generation order; parts of rows by default for the priors that go spin by spin."""
    return tokens_for(hamiltonian, settings.patch, rows=settings.prior in SPINWISE)


def resolved(hamiltonian: Hamiltonian, settings: NetSettings) -> NetSettings:
    """The same settings with patch, prior and window spelled out; ValueError for those that do not fit the model.

    The prior is the strongest that applies.
    """
    if hamiltonian.n_up is not None:
        raise ValueError(
            "neural samplers draw every composition; leave composition= out, or use --mode metropolis or pt"
        )
    if settings.net in anyorder.NETS:
        return anyorder.resolved(hamiltonian, settings)
    of_patches = settings.head == "softmax"
    applicable = [prior for prior in STRONGEST_FIRST if not (of_patches and prior in SPINWISE)]
    for prior in (settings.prior,) if settings.prior else applicable:
        settings = replace(settings, prior=prior)
        tokens = tokens_of(hamiltonian, settings)
        refusal = prior_refusal(prior, hamiltonian, tokens, settings.chi)
        if not refusal:
            break
    if refusal:
        raise ValueError(refusal)
    if settings.form not in FORMS:
        raise ValueError(f"prior.form={settings.form}: {' or '.join(FORMS)} is needed")
    if settings.head is None:
        by_spin = prior in SPINWISE or settings.net == "linear"
        settings = replace(settings, head="spin" if by_spin else "tree")
    if settings.head not in (*HEADS, "spin"):
        raise ValueError(f"net.head={settings.head}: {', '.join(HEADS)} or spin is needed")
    if settings.head == "softmax" and (prior in SPINWISE or settings.net == "linear"):
        raise ValueError("net.head=softmax needs a prior of whole patches; use net.head=tree")
    if settings.head != "spin" or prior not in SPINWISE:
        _ = tokens.vocabulary  # ValueError where it is too large
    if settings.net not in NETS:
        raise ValueError(f"net={settings.net}: {', '.join(NETS[:-1])} or {NETS[-1]} is needed")
    if settings.net == "transformer" and settings.heads < 1:
        raise ValueError("net.heads=0: net=transformer needs at least 1; net=anyorder goes without attention, too")
    if settings.net == "transformer" and settings.width % settings.heads:
        raise ValueError(f"net.heads={settings.heads} does not divide net.width={settings.width}")
    if settings.net == "transformer":
        check_transformer(hamiltonian, tokens, settings)
    if settings.net == "linear" and settings.window is None:
        settings = replace(settings, window=choose_window(FITTED_STATES, hamiltonian))
    return replace(settings, patch=tokens.patch or (tokens.k,))


def check_transformer(hamiltonian: Hamiltonian, tokens: Tokens, settings: NetSettings) -> None:
    """ValueError, one line, for settings of the transformer that no device could follow."""
    make_visibility(settings.mask, hamiltonian, tokens)
    Positions(settings.position, tokens.n_tokens, width=settings.width, heads=settings.heads, tokens=tokens)
    if settings.backend not in ("auto", *BACKENDS):
        raise ValueError(f"net.backend={settings.backend}: auto, {', '.join(BACKENDS)} is needed")
    if settings.precision not in PRECISIONS:
        raise ValueError(f"net.precision={settings.precision}: {' or '.join(PRECISIONS)} is needed")


def require_backend(hamiltonian: Hamiltonian, settings: NetSettings, device: torch.device) -> None:
    """ValueError, one line, where the attention that resolved settings ask for cannot run on a device."""
    if settings.net == "transformer":
        visibility = make_visibility(settings.mask, hamiltonian, tokens_of(hamiltonian, settings))
        backend_on(device, visibility, settings.backend, settings.precision, settings.width // settings.heads)


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
    """Settings as JSON types, without those of any-order networks where there is none."""
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(settings).items()}
    if isinstance(settings, NetSettings) and settings.net not in anyorder.NETS:
        return {key: value for key, value in plain.items() if key not in OF_ANY_ORDER}
    if isinstance(settings, TrainSettings) and settings.objective != "any-order":
        plain.pop("any_order")
    return plain


def net_from_plain(plain: dict) -> NetSettings:
    """The inverse of `as_plain` for NetSettings."""
    return NetSettings(**{key: tuple(value) if isinstance(value, list) else value for key, value in plain.items()})
