"""Drawing or scoring rows of spins from their environments: one sweep from the right, one from the left.

For the row below given spins, with h the fields of those spins and of the sites, K the horizontal bonds (times beta),

    R_j(s') = sum_s exp(K s' s + h_j s) C_j(s),   C_j(s) = A_j(s) R_{j+1}(s)                     from right to left,
    p(s_j | s_<j) ~ exp(K s_{j-1} s_j + h_j s_j) tr[ L_j C_j(s_j) ],   L_{j+1} = L_j A_j(s_j)    from left to right.

On a ring R, C and L are matrices closed by the trace, and R, C are kept for both values of the row's first spin,
which the last bond meets again; on a chain they are vectors. The batch is the last axis everywhere, so that a step is
one matrix product for all samples of a row; rows with environments of their own stand side by side on the first axis.
"""

from __future__ import annotations

import torch
from torch import Tensor

RESCALE = 4  # sites between rescalings: fewer than float32 needs to overflow


class RowSweep:
    """The conditional laws of the spins of R rows at once, B samples each, from left to right.

    A: environments (R, n, 2, t, a, b), n sites or 1. h, K: (R, W, B) and (R, W). above: spins of row 0 as booleans
    (W, B), for environments with that leg. ring: whether the row is periodic.

    `log_odds()` is ln p(+)/p(-) of the present spin, (R, B); `advance(up)` fixes it, (R, B) booleans, and goes on.
    Where truncation has made a weight zero or negative the spin's local field decides instead: certain and wrong is
    the one thing that a proposal must not be. `replaced` counts those.
    """

    def __init__(self, A: Tensor, h: Tensor, K: Tensor, above: Tensor | None, ring: bool):
        self.A, self.h, self.K, self.above, self.ring = A, h, K, above, ring
        self.up, self.down = torch.exp(K), torch.exp(-K)
        self.j, self.replaced = 0, 0
        self.C = self._right_products()
        self.left = self.first = self.previous = None

    def _site(self, j: int) -> Tensor:
        return self.A[:, j % self.A.shape[1]]

    def _choose(self, products: Tensor, j: int) -> Tensor:
        """(R, 2, t, ...) at the value of the second leg that each sample has: (R, 2, ...)."""
        if products.shape[2] == 1:
            return products[:, :, 0]
        return torch.where(self.above[j], products[:, :, 1], products[:, :, 0])

    def _right_products(self) -> list[Tensor]:
        """C_j of every site, (R, 2, a, f, e, B); f: first spin of the row, e: the bond that closes the ring."""
        rows, width, batch = self.h.shape
        chi, closed = self.A.shape[-1], self.ring
        f, e = (2, chi) if closed else (1, 1)
        end = torch.zeros(rows, 2, chi, f, e, 1, dtype=self.A.dtype, device=self.A.device)
        index = torch.arange(e, device=self.A.device)
        for s in range(2):
            for g in range(f):
                weight = (self.up if s == g else self.down)[:, -1:] if closed else 1.0
                end[:, s, index, g, index, 0] = weight
        R = end.expand(-1, -1, -1, -1, -1, batch)
        found: list[Tensor] = [None] * width  # type: ignore[list-item]
        for j in range(width - 1, -1, -1):
            site = self._site(j)
            legs = site.shape[2]
            products = torch.matmul(site.flatten(2, 3), R.flatten(3)).view(rows, 2, legs, chi, f, e, batch)
            C = self._choose(products, j)
            if j % RESCALE == 0:
                C /= C.abs().amax((1, 2, 3, 4), keepdim=True)
            found[j] = C
            if j:
                R = self._behind(C, j)
        return found

    def _behind(self, C: Tensor, j: int) -> Tensor:
        """R_j from C_j, both (R, 2, a, f, e, B): the sum over the spin at j, for each value of the one before."""
        bond, field = self.K[:, j - 1, None], self.h[:, j]
        R = torch.empty_like(C)
        for before, sign in enumerate((-1.0, 1.0)):
            minus, plus = torch.exp(-sign * bond - field), torch.exp(sign * bond + field)
            torch.mul(C[:, 0], minus[:, None, None, None], out=R[:, before])
            R[:, before].addcmul_(C[:, 1], plus[:, None, None, None])
        return R

    def log_odds(self) -> Tensor:
        j = self.j
        C = self.C[j]
        if j == 0:
            if self.ring:  # the first spin is the one that the closing bond meets
                weights = [torch.diagonal(C[:, s, :, s], dim1=1, dim2=2).sum(-1) for s in range(2)]
            else:
                weights = [C[:, s, 0, 0, 0] for s in range(2)]
            minus, plus = weights
        else:
            C = (
                torch.where(self.first[:, None, None, None], C[:, :, :, -1], C[:, :, :, 0])
                if self.ring
                else C[:, :, :, 0]
            )
            minus, plus = (self.left[:, None] * C).sum((2, 3)).unbind(1)
            up, down = self.up[:, j - 1, None], self.down[:, j - 1, None]
            minus = minus * torch.where(self.previous, down, up)
            plus = plus * torch.where(self.previous, up, down)
        odds = torch.log(plus / minus) + 2 * self.h[:, j]
        sound = (minus > 0) & (plus > 0) & odds.isfinite()
        if not sound.all():
            self.replaced += int((~sound).sum())
            odds = torch.where(sound, odds, self._local())
        return odds

    def _local(self) -> Tensor:
        """Log-odds from fields and fixed neighbours alone."""
        j = self.j
        field = self.h[:, j]
        if j:
            field = field + self.K[:, j - 1, None] * (2 * self.previous.to(field.dtype) - 1)
        if self.ring and j == self.h.shape[1] - 1 and j:
            field = field + self.K[:, j, None] * (2 * self.first.to(field.dtype) - 1)
        return 2 * field

    def advance(self, up: Tensor) -> None:
        """Fix the present spin of every sample."""
        j = self.j
        self.C[j] = None  # type: ignore[call-overload]
        self.previous, self.j = up, j + 1
        if self.j == self.h.shape[1]:
            return
        site = self._site(j).transpose(3, 4)  # (R, 2, t, b, a)
        rows, _, legs, chi, _ = site.shape
        if j == 0:
            self.first = up
            e = chi if self.ring else 1
            products = site[..., :e, None].expand(-1, -1, -1, -1, -1, up.shape[-1])
        else:
            e = self.left.shape[2]
            products = torch.matmul(site.flatten(1, 3), self.left.flatten(2)).view(rows, 2, legs, chi, e, -1)
        products = self._choose(products, j)
        self.left = torch.where(up[:, None, None], products[:, 1], products[:, 0])
        if j % RESCALE == 0:
            self.left = self.left / self.left.abs().amax((1, 2), keepdim=True)
