"""How a trunk knows where it is: learned tables, added or set beside the content, and rotations of queries and keys.

Position j draws token j, and its content is that of token j - 1. The table names the token to be drawn. Rotary
positions (arXiv:2104.09864) turn a query by the place of the token to be drawn and a key by the place of the token
whose content it holds, so that scores depend on the displacement on the lattice between the two. Displacements alone
cannot tell one place from another: with disorder, or open edges, a table is needed besides (additive+rotary).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from nmcmc.tokens import Tokens

POSITIONS = ("additive", "concatenated", "rotary", "rotary-1d", "additive+rotary")
NUMBERS_A_SPIN = 2  # of a concatenated content (arXiv:2606.22984, eq. 14-15)


class Positions(nn.Module):
    """Places of tokens, as one of `POSITIONS`.

    additive: a learned table (n_tokens, width) is added to contents. concatenated: contents have 2 numbers a spin and
    a learned table fills the rest of the width. rotary: by the lattice coordinates of tokens, in one dimension on a
    graph; rotary-1d: by the place in the order. Along a periodic axis of n tokens angles are multiples of 2 pi / n,
    so that displacements are right across the edge; elsewhere the slowest of the angles is pi / n a token.

    content_width: numbers that contents have. Raises ValueError where a width is too small for what is asked.
    """

    def __init__(self, kind: str, n_tokens: int, *, width: int, heads: int, tokens: Tokens | None = None):
        super().__init__()
        if kind not in POSITIONS:
            raise ValueError(f"net.position={kind}: {', '.join(POSITIONS[:-1])} or {POSITIONS[-1]} is needed")
        self.kind, self.content_width = kind, width
        if kind == "concatenated":
            self.content_width = NUMBERS_A_SPIN * (tokens.k if tokens else 1)
            if width <= self.content_width:
                raise ValueError(
                    f"net.position=concatenated: net.width={width} leaves no room beside the {self.content_width} "
                    f"numbers of a token; more than {self.content_width} is needed, or smaller tokens (patch=)"
                )
            self.weight = nn.Parameter(torch.empty(n_tokens, width - self.content_width))
        elif kind.startswith("additive"):
            self.weight = nn.Parameter(torch.empty(n_tokens, width))
        else:
            self.weight = None
        self.rotates = kind.endswith(("rotary", "rotary-1d"))
        if self.rotates:
            places, sizes, periodic = _places(kind, n_tokens, tokens)
            angles = torch.from_numpy(_angles(kind, places, sizes, periodic, width // heads))
            turns = torch.stack([angles.cos(), angles.sin()]).float()  # (2, n_tokens, head width / 2)
            self.register_buffer("turns", turns, persistent=False)

    def join(self, content: Tensor, at: slice | int | Tensor) -> Tensor:
        """Contents (..., content_width) of positions `at` with what their table says, (..., width).

        at: a slice of positions (a dimension of the content), one, or a tensor (1,) that holds one.
        """
        if self.weight is None:
            return content
        place = self.weight.index_select(0, at) if isinstance(at, Tensor) else self.weight[at]
        if self.kind == "concatenated":
            return torch.cat([content, place.expand(*content.shape[:-1], -1)], -1)
        return content + place

    def rotated(self, q: Tensor, k: Tensor, at: slice | int | Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys of positions `at`, both (..., head width), turned by their places."""
        if not self.rotates:
            return q, k
        if isinstance(at, slice):
            before = slice(at.start - 1, at.stop - 1)
            of_q, of_k = self.turns[:, at], self.turns[:, before]
        elif isinstance(at, Tensor):
            of_q, of_k = self.turns.index_select(1, at), self.turns.index_select(1, at - 1)
        else:
            of_q, of_k = self.turns[:, at], self.turns[:, at - 1]
        return _turn(q, of_q), _turn(k, of_k)


def _turn(x: Tensor, turns: Tensor) -> Tensor:
    """The two halves of x (..., head width) as coordinates of planes, turned; in the type of x."""
    (cos, sin), (one, other) = turns, x.chunk(2, -1)
    return torch.cat([one * cos - other * sin, one * sin + other * cos], -1).to(x.dtype)


def _places(kind: str, n_tokens: int, tokens: Tokens | None) -> tuple[np.ndarray, list[int], list[bool]]:
    """Coordinates of tokens (n_tokens, axes), tokens along each axis and whether it is periodic."""
    lattice = tokens.lattice if tokens is not None else None
    if kind == "rotary-1d" or lattice is None:
        return np.arange(n_tokens)[:, None], [n_tokens], [False]
    patch = np.array(tokens.patch)
    places = lattice.coordinates[tokens.sites[:, 0]] // patch
    return places, [length // p for length, p in zip(lattice.shape, patch, strict=True)], list(lattice.periodic)


def _angles(kind: str, places: np.ndarray, sizes: list[int], periodic: list[bool], head_width: int) -> np.ndarray:
    """Angles (n_tokens, head width / 2) of the planes of a head, shared out to the axes in turn."""
    axes = [axis for axis, size in enumerate(sizes) if size > 1]
    planes = head_width // 2
    if head_width % 2 or planes < len(axes):
        raise ValueError(
            f"net.position={kind}: heads of width {head_width} cannot turn along {len(axes)} axes; net.width= over "
            f"net.heads= must be even and at least {2 * max(len(axes), 1)}"
        )
    angles = np.zeros((len(places), planes))
    for turn, axis in enumerate(axes):
        mine = np.arange(turn, planes, len(axes))
        rates = _rates(sizes[axis], periodic[axis], len(mine))
        angles[:, mine] = places[:, axis, None] * rates
    return angles


def _rates(size: int, periodic: bool, n: int) -> np.ndarray:
    """n angles a token along an axis of `size` tokens."""
    if periodic:
        return 2.0 * np.pi / size * (1 + np.arange(n) % max(size // 2, 1))
    slowest = np.pi / size
    return np.geomspace(slowest, max(1.0, slowest), n) if n > 1 else np.array([slowest])
