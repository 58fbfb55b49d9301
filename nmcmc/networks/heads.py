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
LARGEST_OUTPUT = 80.0  # beyond this a network's log-odds have the gradient they have there: e^80 still fits float32


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

    def _children(self, log_weights: Tensor) -> tuple[Tensor, Tensor]:
        """Weights of the children of every node, relative to the largest leaf: of -1 and of +1, each (..., V - 1)."""
        minus = log_weights.new_empty(*log_weights.shape[:-1], self.n_outputs)
        plus = torch.empty_like(minus)
        for level, weights in enumerate(self._levels(log_weights)):
            half = 1 << level
            nodes = slice(half - 1, 2 * half - 1)
            minus[..., nodes], plus[..., nodes] = weights[..., :half], weights[..., half:]
        return minus, plus

    def node_log_odds(self, log_weights: Tensor) -> Tensor:
        """Log-odds of every node, (..., V - 1), from unnormalised log weights (..., V) of the leaves."""
        minus, plus = (weights.clamp_min_(SMALLEST).log_() for weights in self._children(log_weights))
        return plus.sub_(minus)

    def draw(self, prior: Tensor, outputs: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """prior (n, V), outputs (n, V-1), uniform (n, k) float64 -> tokens (n,) int64, log q (n,) float64."""
        log_odds = self.node_log_odds(prior).add_(outputs)
        # u < sigmoid(o) is logit(u) < o. The bound keeps u = 0 from drawing what is impossible.
        threshold = torch.logit(uniform).clamp_min_(IMPOSSIBLE / 10)
        token = torch.zeros(len(prior), 1, dtype=torch.int64, device=prior.device)
        for level in range(self.k):
            half = 1 << level
            up = log_odds.gather(1, token + (half - 1)) > threshold[:, level : level + 1]
            token.add_(up, alpha=half)
        nodes, signs = self.path(token[:, 0])
        return token[:, 0], functional.logsigmoid(signs * log_odds.gather(1, nodes).double()).sum(-1)

    def log_prob(self, prior: Tensor, outputs: Tensor, tokens: Tensor) -> Tensor:
        """log q (...) float64 of tokens (...), with gradients to outputs (..., V-1)."""
        nodes, signs = self.path(tokens)
        log_odds = self.node_log_odds(prior).gather(-1, nodes) + outputs.gather(-1, nodes)
        return functional.logsigmoid(signs * log_odds.double()).sum(-1)

    def path(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
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
        minus, plus = (weights.clamp_min_(SMALLEST) for weights in self._children(prior))
        label_minus, label_plus = self._children(label)
        everything = label_minus[..., :1] + label_plus[..., :1]  # the children of node 0
        label_minus.div_(everything)
        return _NodeCrossEntropy.apply(outputs, minus, plus, label_minus, label_plus.div_(everything))


class _NodeCrossEntropy(torch.autograd.Function):
    """sum over nodes of (l- + l+) ln[(w- + w+ e^o) / (w- + w+)] - l+ o.

    Its gradient is (l- + l+) w+ e^o / (w- + w+ e^o) - l+.

    o: the network's part of the node's log-odds; w, l: weights of the node's children under the prior and the label.
    Written out because the generic graph keeps five arrays and reads each twice; in weights rather than chances,
    because 1 - chance would lose a network that argues against a certain prior.
    """

    @staticmethod
    def forward(ctx, outputs, minus, plus, label_minus, label_plus):
        raised = outputs.clamp(max=LARGEST_OUTPUT).exp_().mul_(plus)
        total = raised + minus
        reach = label_minus.add_(label_plus)
        gradient = raised.div_(total).mul_(reach).sub_(label_plus)
        gain = total.div_(minus.add_(plus)).log_()
        loss = torch.dot(gain.flatten(), reach.flatten()).double()
        loss -= torch.dot(outputs.flatten(), label_plus.flatten()).double()
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    def backward(ctx, upstream):
        (gradient,) = ctx.saved_tensors
        return gradient * upstream.to(gradient.dtype), None, None, None, None


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
        # Weights that are not finite would point behind the last value; training and sampling then say so.
        token = torch.searchsorted(cumulative, target, right=True).clamp_max_(cumulative.shape[-1] - 1)
        return token[:, 0], log_q.gather(1, token)[:, 0]

    def log_prob(self, prior: Tensor, outputs: Tensor, tokens: Tensor) -> Tensor:
        logits = prior + outputs
        return logits.gather(-1, tokens[..., None])[..., 0].double() - torch.logsumexp(logits.double(), -1)

    def cross_entropy(self, prior: Tensor, outputs: Tensor, label: Tensor) -> Tensor:
        gain = torch.log_softmax(prior + outputs, -1) - torch.log_softmax(prior, -1)
        return -(torch.softmax(label, -1) * gain).sum(dtype=torch.float64)


class SpinHead:
    """Spin by spin, without a vocabulary: the network itself corrects the log-odds of each spin.

    Its outputs are none; see `nmcmc.networks.spin_transformer`.
    """

    name = "spin"
    n_outputs = 0


Head = TreeHead | SoftmaxHead | SpinHead
HEADS = {"tree": TreeHead, "softmax": SoftmaxHead}
