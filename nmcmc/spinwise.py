"""Drawing and scoring spin by spin: priors that know one spin at a time, and networks that correct their log-odds.

logit q(s_n = + | past) = prior log-odds + what the network adds. A transformer's outputs of a token are the nodes of
the binary tree over its spins, of which only those on the drawn path are needed; a linear residual corrects the
log-odds of each spin by itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from nmcmc.networks.heads import IMPOSSIBLE
from nmcmc.parts import Part, uniforms


@torch.no_grad()
def draw_spins(sampler, n: int, generator: torch.Generator | Sequence[Part]) -> tuple[Tensor, Tensor]:
    """As `AutoregressiveSampler.draw_tokens`: spins (n, N) float32 and log q of each token (n, n_tokens) float64."""
    prior, network, tokens = sampler.prior, sampler.network, sampler.tokens
    by_spin = network is not None and network.spinwise
    uniform = uniforms(n, tokens.n_spins + 1, generator).to(sampler.device)
    # u < sigmoid(o) is logit(u) < o. The bound keeps u = 0 from drawing what is impossible.
    threshold = torch.logit(uniform[:, :-1]).T.clamp_min(IMPOSSIBLE / 10).contiguous()
    state = prior.start(n)
    drawing = network.start(n) if network is not None else None
    log_q = torch.zeros(tokens.n_tokens, n, dtype=torch.float64, device=sampler.device)
    token = None
    for j in range(tokens.n_tokens):
        outputs = None
        if network is not None and not by_spin:
            outputs = network.first.expand(n, -1) if j == 0 else network.step(drawing, token, j)
        token = torch.zeros(n, dtype=torch.int64, device=sampler.device)
        for m in range(tokens.k):
            i = j * tokens.k + m
            odds = prior.log_odds(state, i)
            if outputs is not None:
                odds = odds + outputs.gather(1, (token + (1 << m) - 1)[:, None])[:, 0]
            elif by_spin:
                odds = network.correct(drawing, odds, state.rows, i)
            if i == 0 and sampler.canonical:
                odds = torch.full_like(odds, IMPOSSIBLE)
            odds = odds.double()
            up = threshold[i] < odds
            log_q[j] += functional.logsigmoid(torch.where(up, odds, -odds))
            prior.advance(state, i, 2.0 * up - 1.0)
            token += up.long() << m
    spins = state.rows[:-1].T
    if sampler.canonical:
        spins = torch.where(uniform[:, -1:] < 0.5, spins, -spins)
    return spins, log_q.T


def spin_log_odds(sampler, spins: Tensor) -> Tensor:
    """Log-odds of q of every spin (batch, N), in generation order, of states in the canonical frame.

    With gradients to the network.
    """
    with torch.no_grad():
        odds = sampler.prior.log_odds_of(spins)
    return corrected(sampler, odds, spins)


def corrected(sampler, odds: Tensor, spins: Tensor) -> Tensor:
    """Prior log-odds (batch, N) of states (batch, N), both known, with what the network adds."""
    network, tokens = sampler.network, sampler.tokens
    if network is not None and network.spinwise:
        odds = network.correct_all(odds, spins)
    elif network is not None:
        values = sampler.prior.token_values(spins)
        nodes, _ = sampler.head.path(values)
        first = network.first.expand(1, len(spins), -1)
        outputs = torch.cat([first, network(values)]) if tokens.n_tokens > 1 else first
        odds = odds + outputs.transpose(0, 1).gather(-1, nodes).flatten(1)
    if sampler.canonical:
        odds = torch.cat([torch.full_like(odds[:, :1], IMPOSSIBLE), odds[:, 1:]], 1)
    return odds


def spin_log_probs(odds: Tensor, spins: Tensor, order: Tensor) -> Tensor:
    """log q of every spin (batch, N) float64 from log-odds (batch, N) of states (batch, N) in site order."""
    return functional.logsigmoid(odds.double() * spins[:, order])
