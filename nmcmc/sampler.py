"""The neural proposal: a generation order, a physics prior and a network make a normalised law q(s)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from mc.hamiltonian import Hamiltonian
from nmcmc.networks.heads import Head
from nmcmc.networks.linear import LinearResidual
from nmcmc.networks.spin_transformer import SpinTransformer
from nmcmc.networks.transformer import Transformer
from nmcmc.parts import Part, uniforms
from nmcmc.priors.base import SpinPrior
from nmcmc.spinwise import draw_spins, spin_log_odds, spin_log_probs
from nmcmc.tokens import Tokens

LN2 = math.log(2.0)
NUMBERS_AT_ONCE = 2**22  # in an array while states are scored: 16 MB


class Proposal(Protocol):
    """Whole configurations with their exact log-probability, bound to one target and one generation order."""

    hamiltonian: Hamiltonian
    beta: float
    tokens: Tokens

    def sample(self, n: int, generator: torch.Generator) -> tuple[np.ndarray, np.ndarray]:
        """n independent states: spins (n, N) int8 and log q (n,) float64."""

    def log_prob(self, spins: np.ndarray) -> np.ndarray:
        """log q (n,) float64 of states (n, N)."""


class AutoregressiveSampler(nn.Module):
    """q(s) = prod_j q(t_j | t_<j), each factor prior x network, normalised by the head.

    hamiltonian, beta: the target (beta in 1/J, k_B = 1).
    tokens, prior, head: as their classes say. network: one of those below, or None for the prior alone. A prior that
    knows single spins only, and the networks that correct single spins, are drawn spin by spin, without softmax.
    canonical: the Z2 frame: the first spin is drawn as -1, then the whole state is flipped with probability 1/2,
    log q = log q(canonical) - ln 2. Default: on for Z2-symmetric Hamiltonians; ValueError for others.
    max_batch: most states handled at once, larger requests are split; None for about 2^19 spins, at most 512 states.
    """

    def __init__(
        self,
        hamiltonian: Hamiltonian,
        beta: float,
        tokens: Tokens,
        prior: SpinPrior,
        head: Head,
        network: Transformer | SpinTransformer | LinearResidual | None = None,
        canonical: bool | None = None,
        max_batch: int | None = None,
    ):
        super().__init__()
        canonical = hamiltonian.is_z2_symmetric if canonical is None else canonical
        if canonical and not hamiltonian.is_z2_symmetric:
            raise ValueError("the Z2 frame needs E(-s) = E(s); this Hamiltonian has fields or odd interactions")
        self.hamiltonian, self.beta, self.tokens, self.head = hamiltonian, float(beta), tokens, head
        self.prior, self.network, self.canonical = prior, network, canonical
        self.spinwise = prior.spinwise or head.name == "spin" or (network is not None and network.spinwise)
        if self.spinwise and head.name == "softmax":
            raise ValueError("net.head=softmax needs a prior of whole patches; use net.head=tree")
        self.max_batch = max_batch or prior.batch()

    @property
    def device(self) -> torch.device:
        return self.prior.sites.device

    def states_within(self, numbers: int) -> int:
        """Most states, at least 1, for which an array of a full pass has at most so many numbers.

        The largest are over all values of all tokens; where nothing looks at these, over all spins.
        """
        by_values = not self.prior.spinwise or (self.network is not None and not self.network.spinwise)
        a_state = self.tokens.n_tokens * self.tokens.vocabulary if by_values else self.tokens.n_spins
        return max(1, numbers // a_state)

    def prior_alone(self) -> AutoregressiveSampler:
        """The same without the network."""
        return AutoregressiveSampler(
            self.hamiltonian, self.beta, self.tokens, self.prior, self.head, None, self.canonical, self.max_batch
        )

    def sample(self, n: int, generator: torch.Generator) -> tuple[np.ndarray, np.ndarray]:
        """n independent states: spins (n, N) int8 and log q (n,) float64."""
        spins = np.empty((n, self.tokens.n_spins), dtype=np.int8)
        log_q = np.empty(n)
        for start in range(0, n, self.max_batch):
            part = slice(start, min(start + self.max_batch, n))
            drawn, log = self.draw_tokens(part.stop - part.start, generator)
            spins[part], log_q[part] = drawn.to(torch.int8).cpu().numpy(), log.sum(1).cpu().numpy()
        return spins, log_q - (LN2 if self.canonical else 0.0)

    @torch.no_grad()
    def draw_tokens(self, n: int, generator: torch.Generator | Sequence[Part]) -> tuple[Tensor, Tensor]:
        """n states in one batch, on the device: spins (n, N) float32 and log q of each token (n, n_tokens) float64.

        generator: of all their random numbers, or the numbered parts that make up the n states.
        log q comes in float64 from the very log-odds that decided each spin. In the canonical frame it lacks - ln 2.
        """
        if self.spinwise:
            return draw_spins(self, n, generator)
        uniform = uniforms(n, self.tokens.n_spins + 1, generator).to(self.device)
        state = self.prior.start(n)
        cache = self.network.start(n) if self.network is not None else None
        log_q = torch.empty(n, self.tokens.n_tokens, dtype=torch.float64, device=self.device)
        token = None
        k = self.tokens.k
        for j in range(self.tokens.n_tokens):
            outputs = self._outputs(cache, token, j, n)
            prior = self.prior.patch_logits(state, j)
            token, log_q[:, j] = self.head.draw(prior, outputs, uniform[:, j * k : (j + 1) * k])
            self.prior.fix(state, j, token)
        spins = state.rows[:-1].T
        if self.canonical:
            spins = torch.where(uniform[:, -1:] < 0.5, spins, -spins)
        return spins, log_q

    def _outputs(self, cache, token: Tensor | None, j: int, n: int) -> Tensor:
        if j == 0 or cache is None:
            return self._outputs_alone(j).expand(n, -1)
        return self.network.step(cache, token, j)

    def _outputs_alone(self, j: int) -> Tensor:
        """Outputs (n_outputs,) that do not depend on the state: those of token 0, or of no network."""
        if self.network is None:
            outputs = torch.zeros(self.head.n_outputs, device=self.device)
        else:
            outputs = self.network.first
        return self.head.forbid_first_bit(outputs) if j == 0 and self.canonical else outputs

    def log_prob(self, spins: np.ndarray) -> np.ndarray:
        """log q (n,) float64 of states (n, N), by a full pass; equal to what `sample` recorded up to rounding."""
        spins = np.asarray(spins)
        result = np.empty(len(spins))
        at_once = min(self.max_batch, self.states_within(NUMBERS_AT_ONCE))
        with torch.no_grad():
            for start in range(0, len(spins), at_once):
                part = torch.from_numpy(spins[start : start + at_once].astype(np.float32)).to(self.device)
                result[start : start + at_once] = self.token_log_probs(part).sum(-1).cpu().numpy()
        return result - (LN2 if self.canonical else 0.0)

    def to_canonical(self, spins: Tensor) -> Tensor:
        """Flip states (batch, N) whose first spin is +1, if the sampler works in the canonical frame."""
        return -spins * spins[:, self.tokens.first_site, None] if self.canonical else spins

    def forward_outputs(self, tokens: Tensor) -> Tensor:
        """Head outputs (n_tokens, batch, n_outputs) of given tokens (batch, n_tokens)."""
        batch, n_tokens = tokens.shape
        first = self._outputs_alone(0).expand(1, batch, -1)
        if n_tokens == 1:
            return first
        if self.network is None:
            return torch.cat([first, self._outputs_alone(1).expand(n_tokens - 1, batch, -1)])
        return torch.cat([first, self.network(tokens)])

    def token_log_probs(self, spins: Tensor) -> Tensor:
        """log q of every token (batch, n_tokens) float64 of states (batch, N); without the ln 2 of the Z2 frame."""
        spins = self.to_canonical(spins)
        if self.spinwise:
            log_q = spin_log_probs(spin_log_odds(self, spins), spins, self.prior.sites.view(-1))
            return log_q.unflatten(1, (self.tokens.n_tokens, -1)).sum(-1)
        tokens = self.prior.token_values(spins)
        with torch.no_grad():
            prior = self.prior.patch_logits_of(spins)
        return self.head.log_prob(prior, self.forward_outputs(tokens), tokens.T).T
