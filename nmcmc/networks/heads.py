"""From the network's outputs and the prior's patch logits to a normalised law of the next token.

A head turns outputs into log q in three ways that agree: draw a token, score a given token, and the cross entropy
with a soft label. All take `prior`, (..., V) unnormalised log weights of the token's 2^k values.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

IMPOSSIBLE = -1e4  # a log-odds or logit of this size is probability 0 exactly, in float32 and float64
SMALLEST = 1e-37  # subtree weights below this (relative to the largest leaf) count as this


class TreeHead:
    """A token drawn spin by spin down a binary tree: V - 1 node log-odds, prior + network at every node.

    Node 2^l - 1 + u decides bit l after the lower bits read u. Equivalent to a softmax over 2^k values, but each
    spin needs one number of the prior only, and the network's part cannot unbalance what is normalised already.
    """

    name = "tree"

    def __init__(self, vocabulary: int):
        self.n_outputs = vocabulary - 1
        self.k = vocabulary.bit_length() - 1

    def forbid_first_bit(self, outputs: Tensor) -> Tensor:
        """Outputs (n_outputs,) of a token whose first spin must be -1."""
        mask = torch.zeros_like(outputs)
        mask[0] = IMPOSSIBLE
        return outputs + mask

    def forbid_first_bit_of_label(self, label: Tensor) -> Tensor:
        """Label logits (..., V) of a token whose first spin must be -1."""
        return _forbid_odd(label)

    def _levels(self, log_weights: Tensor) -> list[Tensor]:
        """Subtree weights, level l (..., 2^(l+1)) indexed by the bits 0..l, scaled by the largest leaf."""
        weights = (log_weights - log_weights.amax(-1, keepdim=True)).exp_()
        levels = [weights]
        for level in range(self.k - 1, 0, -1):
            half = 1 << level
            weights = weights[..., :half] + weights[..., half:]
            levels.append(weights)
        return levels[::-1]

    def node_log_odds(self, log_weights: Tensor) -> Tensor:
        """Log-odds of every node, (..., V - 1), from unnormalised log weights (..., V) of the leaves."""
        odds = log_weights.new_empty(*log_weights.shape[:-1], self.n_outputs)
        for level, weights in enumerate(self._levels(log_weights)):
            half = 1 << level
            logs = weights.clamp_min(SMALLEST).log_()
            torch.sub(logs[..., half:], logs[..., :half], out=odds[..., half - 1 : 2 * half - 1])
        return odds

    def draw(self, prior: Tensor, outputs: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """prior (n, V), outputs (n, V-1), uniform (n, k) float64 -> tokens (n,) int64, log q (n,) float64."""
        log_odds = self.node_log_odds(prior).add_(outputs)
        threshold = torch.logit(uniform)  # u < sigmoid(o) is logit(u) < o
        token = torch.zeros(len(prior), 1, dtype=torch.int64, device=prior.device)
        for level in range(self.k):
            half = 1 << level
            up = log_odds.gather(1, token + (half - 1)) > threshold[:, level : level + 1]
            token.add_(up, alpha=half)
        nodes, signs = self._path(token[:, 0])
        return token[:, 0], functional.logsigmoid(signs * log_odds.gather(1, nodes).double()).sum(-1)

    def log_prob(self, prior: Tensor, outputs: Tensor, tokens: Tensor) -> Tensor:
        """log q (...) float64 of tokens (...), with gradients to outputs (..., V-1)."""
        nodes, signs = self._path(tokens)
        log_odds = self.node_log_odds(prior).gather(-1, nodes) + outputs.gather(-1, nodes)
        return functional.logsigmoid(signs * log_odds.double()).sum(-1)

    def _path(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Nodes (..., k) passed on the way to tokens (...), and the spins (..., k) chosen there."""
        bits = torch.arange(self.k, device=tokens.device)
        below = (1 << bits) - 1
        chosen = tokens[..., None]
        return below + (chosen & below), 2 * ((chosen >> bits) & 1) - 1

    def cross_entropy(self, prior: Tensor, outputs: Tensor, label: Tensor) -> Tensor:
        """- sum_a p(a) ln [q(a) / q_prior(a)] summed over everything else, p = softmax(label), label (..., V).

        A float64 scalar with gradients to `outputs` (..., V - 1): the cross entropy of q less that of the prior, so 0
        for a network that adds nothing and negative, in nats, for what it has learned.
        """
        up, _ = self._up_and_reach(prior)
        right, reach = self._up_and_reach(label)
        return _NodeCrossEntropy.apply(outputs, up, right, reach)

    def _up_and_reach(self, log_weights: Tensor) -> tuple[Tensor, Tensor]:
        """Of every node, (..., V - 1): the chance to turn to +1 there, and the chance to come there."""
        above = log_weights.new_empty(*log_weights.shape[:-1], self.n_outputs)
        reach = torch.empty_like(above)
        levels = self._levels(log_weights)
        torch.sum(levels[0], -1, keepdim=True, out=reach[..., :1])
        for level, weights in enumerate(levels):
            half = 1 << level
            above[..., half - 1 : 2 * half - 1] = weights[..., half:]
            if level + 1 < self.k:
                reach[..., 2 * half - 1 : 4 * half - 1] = weights
        above.div_(reach.clamp_min_(SMALLEST))
        return above, reach.div_(reach[..., :1].clone())


class _NodeCrossEntropy(torch.autograd.Function):
    """sum over nodes of reach [ln(1 - u + u e^o) - p o], gradient reach [u e^o / (1 - u + u e^o) - p].

    o: the network's part of the node's log-odds, u: the prior's chance of +1, p: the label's, reach: the label's
    chance to come to the node. Written out because the generic graph keeps five arrays and reads each twice.
    """

    @staticmethod
    def forward(ctx, outputs, up, right, reach):
        raised = outputs.exp().mul_(up)
        total = raised + up.neg_().add_(1.0)
        gradient = raised.div_(total).sub_(right).mul_(reach)
        loss = torch.dot(total.log_().flatten(), reach.flatten()).double()
        loss -= torch.dot(outputs.flatten(), right.mul_(reach).flatten()).double()
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    def backward(ctx, upstream):
        (gradient,) = ctx.saved_tensors
        return gradient * upstream.to(gradient.dtype), None, None, None


def _forbid_odd(logits: Tensor) -> Tensor:
    """Logits (..., V) with every value whose lowest bit is 1 (first spin +1) made impossible."""
    mask = torch.zeros_like(logits)
    mask[..., 1::2] = IMPOSSIBLE
    return logits + mask


class SoftmaxHead:
    """The plain softmax over the 2^k values: V logits, prior + network (arXiv:2604.27738 eq. 15)."""

    name = "softmax"

    def __init__(self, vocabulary: int):
        self.n_outputs = vocabulary

    def forbid_first_bit(self, outputs: Tensor) -> Tensor:
        return _forbid_odd(outputs)

    def forbid_first_bit_of_label(self, label: Tensor) -> Tensor:
        return _forbid_odd(label)

    def draw(self, prior: Tensor, outputs: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """prior and outputs (n, V), uniform (n, k) float64 (the first is used) -> tokens (n,), log q (n,) float64."""
        log_q = torch.log_softmax((prior + outputs).double(), -1)
        cumulative = log_q.exp().cumsum(-1)
        target = uniform[:, :1] * cumulative[:, -1:]
        token = torch.searchsorted(cumulative, target, right=True)
        return token[:, 0], log_q.gather(1, token)[:, 0]

    def log_prob(self, prior: Tensor, outputs: Tensor, tokens: Tensor) -> Tensor:
        logits = prior + outputs
        return logits.gather(-1, tokens[..., None])[..., 0].double() - torch.logsumexp(logits.double(), -1)

    def cross_entropy(self, prior: Tensor, outputs: Tensor, label: Tensor) -> Tensor:
        gain = torch.log_softmax(prior + outputs, -1) - torch.log_softmax(prior, -1)
        return -(torch.softmax(label, -1) * gain).sum(dtype=torch.float64)


HEADS = {"tree": TreeHead, "softmax": SoftmaxHead}
