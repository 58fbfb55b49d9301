"""The same sampler in plain PyTorch, to measure against: the ferromagnetic Ising model on an L x L torus.

One network, one law, one gradient, written the direct way: keys, values and tokens grow by `torch.cat`, a
`Categorical` is made at every step, the head is a softmax over the 2^k values of a patch, energies of all values are
recomputed by broadcasting (batch, 2^k, side of the patch) or, if asked, by matrix products, strip sums add up
exp(energy) over all values for every configuration, and the gradient takes a second, full pass. What depends on
nothing but the model (the patches, their inner energies, one-hot columns, the weights of free rows below) is computed
once, as anyone would.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Categorical
from torch.nn import functional

from mc.hamiltonian import Hamiltonian
from mc.kernels.heatbath import sweep
from mc.symmetry import LatticeSymmetries

ROWS_BELOW = 2  # rows of free lattice that the strip prior looks at below a patch, as in nmcmc.priors.lookahead


class PlainBlock(nn.Module):
    """Pre-LN block: attention, then an MLP of four times the width."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.expand, self.contract = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, past: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """x (batch, length, width), with keys and values of earlier positions if there are any."""
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
                   for part in self.qkv(self.norm_attention(x)).chunk(3, dim=-1))  # fmt: skip
        if past is not None:
            k, v = torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)
        seen = functional.scaled_dot_product_attention(q, k, v, is_causal=x.shape[1] > 1)
        x = x + self.project(seen.transpose(1, 2).flatten(2))
        return x + self.contract(functional.gelu(self.expand(self.norm_mlp(x)))), (k, v)


class PlainNetwork(nn.Module):
    """Causal transformer over patches; the outputs of the first patch are parameters."""

    def __init__(self, n_tokens: int, vocabulary: int, width: int, layers: int, heads: int):
        super().__init__()
        self.embedding, self.position = nn.Embedding(vocabulary, width), nn.Embedding(n_tokens, width)
        self.blocks = nn.ModuleList(PlainBlock(width, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary)
        self.first = nn.Parameter(torch.zeros(vocabulary))
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        nn.init.zeros_(self.head.weight)

    def forward(self, tokens: Tensor, pasts: list | None = None) -> tuple[Tensor, list]:
        """tokens (batch, length), the last ones only when `pasts` is given -> outputs of the tokens that follow."""
        seen = 0 if pasts is None else pasts[0][0].shape[2]
        x = self.embedding(tokens) + self.position.weight[seen + 1 : seen + 1 + tokens.shape[1]]
        presents = []
        for i, block in enumerate(self.blocks):
            x, present = block(x, None if pasts is None else pasts[i])
            presents.append(present)
        return self.head(self.norm(x)), presents


class PlainSampler(nn.Module):
    """q(s) over states (batch, L, L): softmax(prior + network) patch by patch, in the frame where s[0, 0] = -1.

    patch: (r, c), at least two of them each way. prior: "none", "local" or "lookahead". matmul: energies of the
    values of a patch by matrix products in place of broadcasting, a stronger opponent.
    """

    def __init__(
        self, L: int, beta: float, patch: tuple[int, int], prior: str,
        *, width: int, layers: int, heads: int, matmul: bool = False,
    ):  # fmt: skip
        super().__init__()
        self.L, self.beta, self.prior, self.matmul = L, beta, prior, matmul
        (r, c), self.R, self.C = patch, L // patch[0], L // patch[1]
        self.r, self.c, self.n_tokens, self.vocabulary = r, c, self.R * self.C, 2 ** (r * c)
        self.register_buffer("bits", 1 << torch.arange(r * c))
        self.register_buffer("values", all_states(r * c).view(-1, r, c))
        v = self.values
        inner = (v[:, 1:] * v[:, :-1]).sum((1, 2)) + (v[:, :, 1:] * v[:, :, :-1]).sum((1, 2))
        self.register_buffer("inner", beta * inner)
        # One-hot left and right columns of every value, and the bond weights between two columns.
        left, right = (functional.one_hot((column > 0).long() @ self.bits[:r], 2**r).float()
                       for column in (v[:, :, 0], v[:, :, -1]))  # fmt: skip
        self.register_buffer("left", left)
        self.register_buffer("right", right)
        self.register_buffer("bonds", (beta * all_states(r) @ all_states(r).T).exp())
        self.register_buffer("below", torch.stack([self.rows_below(R) for R in range(self.R)]))
        mask = torch.zeros(self.vocabulary)
        mask[1::2] = -torch.inf
        self.register_buffer("mask", mask)
        self.network = PlainNetwork(self.n_tokens, self.vocabulary, width, layers, heads)

    def rows_below(self, R: int) -> Tensor:
        """ln of the weight of the free rows below a patch of patch row R, its own columns only, for every value."""
        states = all_states(self.c)
        across = self.beta * states @ states.T
        along = self.beta * (states[:, 1:] * states[:, :-1]).sum(1)
        weight = torch.zeros(len(states))
        for _ in range(min(ROWS_BELOW, (self.R - 1 - R) * self.r)):
            weight = torch.logsumexp(across + along + weight, dim=1)
        bottom = (self.values[:, -1] > 0).long() @ self.bits[: self.c]
        return weight[bottom]

    def side(self, spins: Tensor, edge: Tensor) -> Tensor:
        """beta sum of spins (..., m) times an edge (2^k, m) of the patch, for all values: (..., 2^k)."""
        if self.matmul:
            return self.beta * (spins @ edge.T)
        return self.beta * (spins[..., None, :] * edge).sum(-1)

    def patch_logits(self, grid: Tensor, j: int, messages: list | None) -> tuple[Tensor, list | None]:
        """Prior logits (batch, 2^k) of patch j given the patches before it in `grid`."""
        if self.prior == "none":
            return grid.new_zeros(len(grid), self.vocabulary), None
        (R, C), (r, c), v = divmod(j, self.C), (self.r, self.c), self.values
        y, x = R * r, C * c
        rows, columns = slice(y, y + r), slice(x, x + c)
        logits = self.inner.expand(len(grid), -1)
        if R > 0:
            logits = logits + self.side(grid[:, y - 1, columns], v[:, 0])
        if C > 0:
            logits = logits + self.side(grid[:, rows, x - 1], v[:, :, 0])
        if C == self.C - 1:
            logits = logits + self.side(grid[:, rows, 0], v[:, :, -1])
        if R == self.R - 1:
            logits = logits + self.side(grid[:, 0, columns], v[:, -1])
        if self.prior == "local":
            return logits, None
        logits = logits + self.below[R]
        if C == 0:
            above = grid[:, y - 1] if R > 0 else None
            under = grid[:, 0] if R == self.R - 1 else None
            messages = self.strip(above, under, R)
            return logits + self.ahead(messages[1], None), messages
        if C < self.C - 1:
            first = (grid[:, rows, 0] > 0).long() @ self.bits[:r]
            logits = logits + self.ahead(messages[C + 1], first)
        return logits, messages

    def strip(self, above: Tensor | None, under: Tensor | None, R: int) -> list:
        """ln of the summed weight of patches C.. of a row given the columns before C and of patch 0: [C] (.., l, f).

        above, under: the fixed rows (batch, L) next to it, None where there is none.
        """
        batch = next((len(row) for row in (above, under) if row is not None), 1)
        message, messages = self.bonds.expand(batch, -1, -1), [None] * self.C
        pairs = (self.left[:, :, None] * self.right[:, None, :]).flatten(1)  # (2^k, left x right)
        for C in range(self.C - 1, 0, -1):
            columns = slice(C * self.c, C * self.c + self.c)
            base = self.inner + self.below[R]
            if above is not None:
                base = base + self.side(above[:, columns], self.values[:, 0])
            if under is not None:
                base = base + self.side(under[:, columns], self.values[:, -1])
            base = base.expand(batch, -1)
            weight = torch.exp(base - base.amax(-1, keepdim=True))
            kernel = (weight @ pairs).unflatten(1, (len(self.bonds), len(self.bonds)))
            message = self.bonds @ kernel @ message
            message = message / message.amax((1, 2), keepdim=True)
            messages[C] = message.log()
        return messages

    def ahead(self, message: Tensor, first: Tensor | None) -> Tensor:
        """Messages (batch, l, f) at the columns of every value; `first` is f, None for the first patch itself."""
        if first is None:
            return message.flatten(1) @ (self.right[:, :, None] * self.left[:, None, :]).flatten(1).T
        return message.expand(len(first), -1, -1)[torch.arange(len(first)), :, first] @ self.right.T

    def all_patch_logits(self, grid: Tensor) -> Tensor:
        """Prior logits (batch, n_tokens, 2^k) of all patches of given states."""
        (R, C), v = (self.R, self.C), self.values
        if self.prior == "none":
            return grid.new_zeros(len(grid), self.n_tokens, self.vocabulary)
        patches = self.patches(grid)  # (batch, R, C, r, c)
        logits = self.inner.expand(len(grid), R, C, -1).clone()
        logits[:, 1:] += self.side(patches[:, :-1, :, -1], v[:, 0])
        logits[:, :, 1:] += self.side(patches[:, :, :-1, :, -1], v[:, :, 0])
        logits[:, :, -1] += self.side(patches[:, :, 0, :, 0], v[:, :, -1])
        logits[:, -1] += self.side(patches[:, 0, :, 0], v[:, -1])
        if self.prior == "lookahead":
            logits += self.below[:, None]
            first = (patches[:, :, 0, :, 0] > 0).long() @ self.bits[: self.r]
            for row in range(R):
                above = grid[:, row * self.r - 1] if row > 0 else None
                messages = self.strip(above, grid[:, 0] if row == R - 1 else None, row)
                logits[:, row, 0] += self.ahead(messages[1], None)
                for column in range(1, C - 1):
                    logits[:, row, column] += self.ahead(messages[column + 1], first[:, row])
        return logits.flatten(1, 2)

    def heat_bath_logits(self, grid: Tensor) -> Tensor:
        """- beta E (batch, n_tokens, 2^k) of every value of every patch given all other spins."""
        patches, v = self.patches(grid), self.values
        logits = self.inner + self.side(patches.roll(1, 1)[..., -1, :], v[:, 0])
        logits = logits + self.side(patches.roll(-1, 1)[..., 0, :], v[:, -1])
        logits = logits + self.side(patches.roll(1, 2)[..., -1], v[:, :, 0])
        logits = logits + self.side(patches.roll(-1, 2)[..., 0], v[:, :, -1])
        return logits.flatten(1, 2)

    def patches(self, grid: Tensor) -> Tensor:
        return grid.unflatten(2, (self.C, self.c)).unflatten(1, (self.R, self.r)).transpose(2, 3)

    @torch.no_grad()
    def sample(self, n: int) -> tuple[Tensor, Tensor]:
        """States (n, L, L) and their log q (n,)."""
        grid, log_q = torch.zeros(n, self.L, self.L), torch.zeros(n, dtype=torch.float64)
        tokens, pasts, messages = torch.empty(n, 0, dtype=torch.int64), None, None
        for j in range(self.n_tokens):
            logits, messages = self.patch_logits(grid, j, messages)
            if j == 0:
                logits = logits + self.network.first + self.mask
            else:
                outputs, pasts = self.network(tokens[:, -1:], pasts)
                logits = logits + outputs[:, 0]
            law = Categorical(logits=logits)
            token = law.sample()
            log_q = log_q + law.log_prob(token)
            tokens = torch.cat([tokens, token[:, None]], dim=1)
            y, x = j // self.C * self.r, j % self.C * self.c
            grid[:, y : y + self.r, x : x + self.c] = self.values[token]
        flip = torch.where(torch.rand(n, 1, 1) < 0.5, 1.0, -1.0)
        return grid * flip, log_q - math.log(2)

    def logits(self, grid: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (batch, n_tokens, 2^k) of all patches of states with s[0, 0] = -1, by a full pass; their tokens."""
        tokens = (self.patches(grid) > 0).flatten(1, 2).flatten(2).long() @ self.bits
        outputs, _ = self.network(tokens[:, :-1])
        first = (self.network.first + self.mask).expand(len(grid), 1, -1)
        return self.all_patch_logits(grid) + torch.cat([first, outputs], dim=1), tokens

    def log_prob(self, grid: Tensor) -> Tensor:
        """log q (batch,) of states (batch, L, L)."""
        logits, tokens = self.logits(-grid * grid[:, :1, :1])
        return Categorical(logits=logits).log_prob(tokens).double().sum(1) - math.log(2)


def all_states(n: int) -> Tensor:
    """All states of n spins, (2^n, n) of +-1, the first spin in the lowest bit."""
    return 2.0 * (torch.arange(2**n)[:, None] >> torch.arange(n) & 1) - 1.0


class PlainReverseKL:
    """REINFORCE with the batch mean: <(S - <S>) grad ln q>, S = ln q + beta E."""

    def __init__(self, sampler: PlainSampler, hamiltonian: Hamiltonian):
        self.sampler = sampler

    def batch(self, n: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        spins, log_q = self.sampler.sample(n)
        bonds = (spins * spins.roll(1, 1) + spins * spins.roll(1, 2)).sum((1, 2))
        action = log_q - self.sampler.beta * bonds
        return spins, action - action.mean()

    def loss(self, spins: Tensor, advantage: Tensor) -> Tensor:
        return (advantage * self.sampler.log_prob(spins)).sum()


class PlainSelfDistillation:
    """Draws moved by heat-bath sweeps and a random symmetry; soft labels: the heat-bath law of every patch."""

    def __init__(self, sampler: PlainSampler, hamiltonian: Hamiltonian, sweeps: int = 2):
        self.sampler, self.hamiltonian, self.sweeps = sampler, hamiltonian, sweeps
        self.symmetries = LatticeSymmetries(hamiltonian)

    def batch(self, n: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        drawn, log_q = self.sampler.sample(n)
        spins = drawn.flatten(1).to(torch.int8).numpy()
        streams = rng.integers(1, 2**64, size=(n, 4), dtype=np.uint64)
        betas = np.full(n, self.sampler.beta)
        sweep(spins, np.zeros(n), betas, streams, *self.hamiltonian.table, self.sweeps)
        spins = np.take_along_axis(spins, self.symmetries.random_sites(n, rng), axis=1)
        return torch.from_numpy(spins).float().view_as(drawn), log_q

    def loss(self, spins: Tensor, _) -> Tensor:
        spins = -spins * spins[:, :1, :1]
        labels = self.sampler.heat_bath_logits(spins)
        labels[:, 0] += self.sampler.mask
        logits, _ = self.sampler.logits(spins)
        # The mask is -inf: leave out the impossible values, 0 times -inf.
        log_q = torch.log_softmax(logits, -1).clamp_min(-1e4)
        return -(torch.softmax(labels, -1) * log_q).sum()


PLAIN_OBJECTIVES = {"reverse-kl": PlainReverseKL, "soft-distillation": PlainSelfDistillation}


def plain_step(objective, optimizer, batch: int, microbatch: int, clip: float, rng: np.random.Generator) -> float:
    """One weight update, gradients accumulated over parts of the batch; returns the loss a state."""
    spins, weights = objective.batch(batch, rng)
    optimizer.zero_grad(set_to_none=True)
    total = 0.0
    for start in range(0, batch, microbatch):
        part = slice(start, start + microbatch)
        loss = objective.loss(spins[part], weights[part]) / batch
        loss.backward()
        total += loss.item()
    nn.utils.clip_grad_norm_(objective.sampler.network.parameters(), clip)
    optimizer.step()
    return total
