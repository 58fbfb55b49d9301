"""The sum over everything still to come, from a boundary matrix-product state; see `nmcmc.environment`.

For nearest-neighbour models on two-dimensional lattices with any couplings, fields and edges. Exact as chi grows,
except for the one-leg form of a torus. Spins are drawn row by row, so a token is a part of a row.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mc.hamiltonian import Hamiltonian
from mc.square import square_couplings, square_refusal
from nmcmc.environment.build import Environment
from nmcmc.environment.sweep import RowSweep
from nmcmc.priors.base import PriorState, SpinPrior
from nmcmc.tokens import Tokens

NUMBERS_AT_ONCE = 2**24  # of the right products of a sweep: 64 MB in float32
LOW_TEMPERATURE = 1.2  # beta times the strongest bond; beyond, weights cancel and float32 is not enough


def boundary_mps_refusal(hamiltonian: Hamiltonian, tokens: Tokens, chi: int = 1) -> str:
    """Why the prior does not apply to this model, order and bond; "" where it does."""
    refusal = square_refusal(hamiltonian)
    if refusal:
        return f"prior=boundary-mps: {refusal}; use prior=belief, or prior=local"
    if tokens.patch is None or tokens.patch[0] != 1:
        shape = "x".join(map(str, tokens.patch or ()))
        return f"prior=boundary-mps draws row by row, patch={shape} is taller; use patch=1x4, or prior=lookahead"
    if chi < 1:
        return f"prior.chi={chi}: an integer of at least 1 is needed"
    return ""


class BoundaryMPS(SpinPrior):
    """environment: from `build_environment` for the same couplings and beta. dtype: of the sampling, float32 or 64.

    Raises ValueError, with the remedy, where `boundary_mps_refusal` says why not.
    """

    def __init__(
        self, hamiltonian: Hamiltonian, tokens: Tokens, beta: float, environment: Environment,
        dtype: torch.dtype | None = None,
    ):  # fmt: skip
        super().__init__(tokens)
        refusal = boundary_mps_refusal(hamiltonian, tokens)
        if refusal:
            raise ValueError(refusal)
        couplings = square_couplings(hamiltonian)
        self.height, self.width = couplings.shape
        self.ring, torus = couplings.periodic[1], couplings.periodic[0]
        strongest = beta * max((float(np.abs(J).max()) for _, J in hamiltonian.interactions.values()), default=0.0)
        dtype = dtype or (torch.float64 if strongest > LOW_TEMPERATURE else torch.float32)
        arrays = {"right": couplings.right, "down": couplings.down, "field": couplings.field}
        for name, values in arrays.items():
            self.register_buffer(name, torch.from_numpy(beta * values).to(dtype), persistent=False)
        self.register_buffer("first", torch.from_numpy(environment.first).to(dtype), persistent=False)
        self.register_buffer("rest", torch.from_numpy(environment.rest).to(dtype), persistent=False)
        self.two_legs = self.rest.shape[3] == 2
        self.last_meets_first = torus and not self.two_legs
        self.replaced, self.decided = 0, 0

    @property
    def chi(self) -> int:
        return self.rest.shape[-1]

    def batch(self) -> int:
        """States that a sweep handles at once in a modest amount of memory."""
        chi, first = self.chi, self.first.shape[-1]
        numbers = 4 * max(chi * chi, first * first // 2) if self.ring else 2 * max(chi, first)
        return int(min(512, max(8, NUMBERS_AT_ONCE // (self.width * numbers))))

    def log_odds(self, state: PriorState, n: int) -> Tensor:
        k, j = divmod(n, self.width)
        if j == 0:
            state.notes["row"] = self._row(state.rows[: k * self.width], k)
        return state.notes["row"].log_odds()[0]

    def advance(self, state: PriorState, n: int, spin: Tensor) -> None:
        super().advance(state, n, spin)
        row = state.notes["row"]
        row.advance((spin > 0)[None])
        if row.j == self.width:
            self._count(row)

    def log_odds_of(self, spins: Tensor) -> Tensor:
        """All rows stand side by side, so L steps do."""
        rows = spins.to(self.right.dtype).T.reshape(self.height, self.width, -1)  # (H, W, batch)
        most = max(1, NUMBERS_AT_ONCE // (self.width * rows.shape[2] * self.chi * (4 * self.chi if self.ring else 2)))
        found = [self._score(rows, range(0, 1))]
        for k in range(1, self.height, most):
            found.append(self._score(rows, range(k, min(k + most, self.height))))
        return torch.cat(found).permute(2, 0, 1).flatten(1)

    def _row(self, above: Tensor, k: int) -> RowSweep:
        """The sweep of row k given the sites before it, (k W, batch)."""
        width, dtype = self.width, self.right.dtype
        h = self.field[k, :, None]
        if k == 0:
            return RowSweep(self.first, h[None].repeat(1, 1, above.shape[1]), self.right[:1], None, self.ring)
        h = h + self.down[k - 1, :, None] * above[-width:].to(dtype)
        if k == self.height - 1 and self.last_meets_first:
            h = h + self.down[k, :, None] * above[:width].to(dtype)
        first = above[:width] > 0 if self.two_legs else None
        return RowSweep(self.rest[k - 1 : k], h[None], self.right[k : k + 1], first, self.ring)

    def _score(self, rows: Tensor, which: range) -> Tensor:
        """Log-odds (rows, W, batch) of all spins of some rows of given states (H, W, batch)."""
        part = slice(which.start, which.stop)
        h = self.field[part, :, None].expand(-1, -1, rows.shape[2])
        if which.start == 0:
            sweep = RowSweep(self.first, h, self.right[:1], None, self.ring)
        else:
            before = slice(which.start - 1, which.stop - 1)
            h = h + self.down[before, :, None] * rows[before]
            if which.stop == self.height and self.last_meets_first:
                h = torch.cat([h[:-1], h[-1:] + self.down[-1, :, None] * rows[0]])
            sweep = RowSweep(
                self.rest[before], h, self.right[part], rows[0] > 0 if self.two_legs else None, self.ring
            )
        up, odds = rows[part] > 0, []
        for j in range(self.width):
            odds.append(sweep.log_odds())
            sweep.advance(up[:, j])
        self._count(sweep)
        return torch.stack(odds, 1)

    def _count(self, sweep: RowSweep) -> None:
        self.replaced += sweep.replaced
        self.decided += sweep.h.numel()
