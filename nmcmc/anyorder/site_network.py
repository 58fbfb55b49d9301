"""The any-order network: a query of one site looks at the masked tokens of its window.

A token is a spin, or the mask where nothing is known. The query begins with a linear embedding of its window; every
block lets it attend to the known tokens, by rotary angles of their displacement, and then transforms it. Tokens are
not transformed by each other, so what is known of a site never has to be computed again when another becomes known:
all N conditionals of an order take one pass, and drawing takes one query a spin. (In the published form, Liu et al.,
arXiv:2310.12920, and Du et al., arXiv:2603.14695, all tokens are, and drawing takes N passes over N tokens.)

Nothing but displacements enters where all sites are alike, so the weights fit every multiple of the trained lattice.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from nmcmc.anyorder.window import Window

ATTENDED = 32  # tokens, the nearest of a window
HIDDEN = -30.0  # added to the score of a mask
LARGEST_ODDS = 20.0  # of the prior as an input
LN2 = math.log(2.0)


class WindowAttention(nn.Module):
    """Heads that look at the nearest known tokens.

    Keys are rotated by the displacement, values have a table of displacements. Only the nearest `ATTENDED` tokens are
    looked at: the embedding has seen all of the window, and more cost a CPU more than they gain.
    """

    def __init__(self, window: Window, width: int, heads: int):
        super().__init__()
        if width % (2 * heads):
            raise ValueError(f"net.width={width}: a multiple of twice net.heads={heads} is needed, for rotary planes")
        self.heads, head, self.seen = heads, width // heads, min(window.size, ATTENDED)
        self.norm, self.query, self.project = nn.LayerNorm(width), nn.Linear(width, width), nn.Linear(width, width)
        self.key = nn.Parameter(torch.empty(2, heads, head))  # of any known token, and what its sign adds
        self.bias = nn.Parameter(torch.zeros(heads, self.seen))
        self.value = nn.Parameter(torch.empty(2, heads, self.seen, head))
        angles = slot_angles(window, head // 2)[: self.seen]
        self.register_buffer("turns", torch.stack([angles.cos(), angles.sin()]), persistent=False)

    def keys(self) -> Tensor:
        """(2, heads, head width, M): the two keys turned by each displacement."""
        (cos, sin), (one, other) = self.turns, self.key[..., None, :].chunk(2, -1)
        return torch.cat([one * cos - other * sin, one * sin + other * cos], -1).transpose(-1, -2)

    def forward(self, x: Tensor, spins: Tensor, known: Tensor) -> Tensor:
        """x (rows, width), spins (rows, M) of +-1 and 0, known (rows, M) of 1 and 0 -> (rows, width)."""
        spins, known = spins[:, : self.seen], known[:, : self.seen]
        q = self.query(self.norm(x)).view(len(x), self.heads, -1).transpose(0, 1)
        of_known, of_sign = self.keys()
        scale = 1.0 / math.sqrt(q.shape[-1])
        score = (torch.bmm(q, of_known) + spins * torch.bmm(q, of_sign)) * scale + self.bias[:, None]
        weight = torch.softmax(score + HIDDEN * (1.0 - known), -1) * known
        seen = torch.bmm(weight, self.value[0]) + torch.bmm(weight * spins, self.value[1])
        return self.project(seen.transpose(0, 1).flatten(1))


def slot_angles(window: Window, planes: int) -> Tensor:
    """Angles (M, planes) of the displacements, planes shared out to the axes in turn.

    Multiples of 2 pi / n along a periodic axis of n sites, so that a displacement and the one around the torus are
    the same, on every multiple of n too; of pi / n along an open one.
    """
    axes = [axis for axis, length in enumerate(window.shape) if length > 1]
    angles = torch.zeros(window.size, planes)
    for plane in range(planes if axes else 0):
        axis, turn = axes[plane % len(axes)], 1 + plane // len(axes)
        step = (2.0 if window.periodic[axis] else 1.0) * math.pi / window.shape[axis]
        angles[:, plane] = torch.from_numpy(window.displacements[:, axis]).float() * step * turn
    return angles


class Block(nn.Module):
    """x + attention(x), then x + MLP(x), both after a norm; heads=0 leaves the attention out."""

    def __init__(self, window: Window, width: int, heads: int):
        super().__init__()
        self.attention = WindowAttention(window, width, heads) if heads else None
        self.norm, self.expand, self.contract = (
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width),
        )  # fmt: skip

    def forward(self, x: Tensor, spins: Tensor, known: Tensor) -> Tensor:
        if self.attention is not None:
            x = x + self.attention(x, spins, known)
        return x + self.contract(functional.gelu(self.expand(self.norm(x))))


class SiteNetwork(nn.Module):
    """Conditional and marginal head over queries of sites.

    window: what a query looks at. sites: number of sites where they are not alike, each of which then has a learned
    embedding; 0 where they are. conditions: numbers a state comes with (beta, field), each from -1 to 1. odd: an
    energy that a global flip leaves alone; the network then sees every window in the frame of the nearest known
    spin, so that conditionals turn around with it exactly. generator: of the weights; the conditional head begins at
    zero, so that an untrained network is the prior.
    """

    one_pass = True  # all conditionals of an order in one pass

    def __init__(
        self, window: Window, *, width: int, layers: int, heads: int, sites: int = 0, conditions: int = 0,
        odd: bool = False, generator: torch.Generator,
    ):  # fmt: skip
        super().__init__()
        self.window, self.odd, self.conditions = window, odd, conditions
        self.embed = nn.Linear(2 * window.size + 2, width)
        self.own = nn.Parameter(torch.empty(2, width))
        self.place = nn.Parameter(torch.empty(sites, width)) if sites else None
        self.condition = (
            nn.Sequential(nn.Linear(4 * conditions, width), nn.GELU(), nn.Linear(width, width))
            if conditions
            else None
        )
        self.blocks = nn.ModuleList(Block(window, width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.conditional, self.marginal = nn.Linear(width, 1), nn.Linear(width, 1)
        with torch.no_grad():
            for name, weight in self.named_parameters():
                if weight.dim() == 1 and "norm" not in name:
                    weight.zero_()
                elif weight.dim() > 1 and not name.endswith("bias"):
                    fan_in = weight.shape[-1] if name.endswith("weight") else 16
                    weight.normal_(0.0, 1.0 / math.sqrt(fan_in), generator=generator)
            for block in self.blocks:
                if block.attention is not None:
                    block.attention.project.weight.zero_()
            self.conditional.weight.zero_()
            self.marginal.weight.zero_()

    @property
    def silent(self) -> bool:
        """Whether the conditionals are those of the prior, as before any training."""
        return not bool(self.conditional.weight.any() or self.conditional.bias.any())

    def features(
        self, spins: Tensor, odds: Tensor, site: Tensor | None, condition: Tensor | None, own: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Features (rows, width) of queries, and the frames (rows,) they are seen in.

        spins (rows, M): tokens of the windows, 0 for a mask. odds (rows,): log-odds of the prior. site (rows,):
        where sites differ. condition (rows, C). own (rows,): the query's own token, for the marginal.
        """
        known = spins.abs()
        if self.odd:
            # 0 where nothing is known, as where there is nothing to look at
            frame = spins.gather(1, known.argmax(1, keepdim=True))[:, 0] if spins.shape[1] else torch.zeros_like(odds)
            if own is not None:
                frame = torch.where(own != 0, own, frame)
        else:
            frame = torch.ones_like(odds)
        spins, seen = spins * frame[:, None], (odds * frame).clamp(-LARGEST_ODDS, LARGEST_ODDS)
        x = self.embed(torch.cat([spins, known, seen[:, None] / LARGEST_ODDS, torch.tanh(seen / 2)[:, None]], 1))
        if own is not None:
            x = x + own.abs()[:, None] * self.own[0] + (own * frame)[:, None] * self.own[1]
        if self.place is not None:
            x = x + self.place[site]
        if self.condition is not None:
            turned = torch.cat(
                [condition, condition**2, torch.sin(math.pi * condition), torch.cos(math.pi * condition)], 1
            )
            x = x + self.condition(turned)
        for block in self.blocks:
            x = block(x, spins, known)
        return self.norm(x), frame

    def odds(self, spins: Tensor, odds: Tensor, site: Tensor | None, condition: Tensor | None) -> Tensor:
        """Log-odds (rows,) of queries with windows `spins` (rows, M): prior + network."""
        x, frame = self.features(spins, odds, site, condition)
        return odds + frame * self.conditional(x)[:, 0]

    def log_marginal(
        self, spins: Tensor, own: Tensor, odds: Tensor, site: Tensor | None, condition: Tensor | None
    ) -> Tensor:
        """What each query adds to the log of the unnormalised marginal, (rows,): - ln 2 a known spin at the start."""
        x, _ = self.features(spins, odds, site, condition, own)
        return self.marginal(x)[:, 0] - LN2 * own.abs()
