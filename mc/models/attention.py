"""One attention block as a vector-spin glass: tokens are fields, softmax(Q K^T) are couplings, spins are read out.

A single head with a residual and no norm or feed-forward layer maps tokens x to x + J x W_V, J = softmax(x W_Q (x
W_K)^T); with the spins themselves as values this is the local field x_i + sum_j J_ij s_j of vector spins (Honkoop,
"Statistical Physics of Transformers", Leiden 2025, eq. 2.13 and table 2.1). Rows of J add up to 1, and J_ij is not
J_ji.

Head k of a torch.nn.MultiheadAttention with batch_first=True, D = embed_dim and d_k = D / num_heads has its weights
of

    W_Q, W_K, _ = (w.T.detach().numpy() for w in layer.in_proj_weight.chunk(3))

in columns k d_k to (k + 1) d_k of each, and its b_Q in these entries of layer.in_proj_bias.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import softmax

MASKS = ("none", "causal")


def attention_couplings(
    x: np.ndarray,
    W_Q: np.ndarray,
    W_K: np.ndarray,
    scale: bool = True,
    mask: str = "none",
    bias_Q: np.ndarray | None = None,
) -> np.ndarray:
    """J (N, N) of tokens x (N, D): softmax over j of (x_i W_Q + b_Q).(x_j W_K) / sqrt(d_k).

    W_Q, W_K: (D, d_k). bias_Q: (d_k,); a bias of the keys is the same for a whole row, which softmax does not see.
    scale: whether to divide by sqrt(d_k), which eq. 2.13 leaves out. mask: "causal" looks at j <= i only.
    Raises ValueError for shapes that do not match, numbers that are not finite, or another mask.
    """
    x, W_Q, W_K = (np.asarray(a, np.float64) for a in (x, W_Q, W_K))
    if x.ndim != 2 or W_Q.shape != W_K.shape or W_Q.ndim != 2 or len(W_Q) != x.shape[1]:
        raise ValueError(f"attention: x {x.shape}, W_Q {W_Q.shape} and W_K {W_K.shape}; (N, D), (D, d_k) twice fit")
    if mask not in MASKS:
        raise ValueError(f"attention: mask={mask}: {' or '.join(MASKS)} is needed")
    queries = x @ W_Q
    if bias_Q is not None:
        if np.shape(bias_Q) != queries.shape[1:]:
            raise ValueError(f"attention: bias_Q {np.shape(bias_Q)}; (d_k,) = {queries.shape[1:]} is needed")
        queries = queries + bias_Q
    scores = queries @ (x @ W_K).T
    if scale:
        scores /= math.sqrt(W_Q.shape[1])
    if not np.isfinite(scores).all():
        raise ValueError("attention: tokens or weights that are not finite, or too large")
    if mask == "causal":
        scores = np.where(np.tri(len(x), dtype=bool), scores, -np.inf)
    return softmax(scores, axis=1)


def asymmetry(couplings: np.ndarray) -> float:
    """|J_odd|_F / |J|_F off the diagonal, J_odd = (J - J^T) / 2: 0 for symmetric couplings, 1 for antisymmetric ones.

    Independent couplings of zero mean have 1 / sqrt(2). Without couplings 0.
    """
    off = np.array(couplings, np.float64)
    np.fill_diagonal(off, 0.0)
    norm = np.linalg.norm(off)
    return float(np.linalg.norm(off - off.T) / (2.0 * norm)) if norm > 0 else 0.0


def tokens_of_norm(x: np.ndarray) -> np.ndarray:
    """Tokens (N, D) brought to norm R = sqrt(D/2 - 1), as fields of vector spins; ValueError for a token zero."""
    x = np.asarray(x, np.float64)
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    if x.shape[1] < 3 or not (norms > 0).all():
        raise ValueError(f"attention: tokens {x.shape} of at least 3 components, none of them zero, are needed")
    return x * (math.sqrt(0.5 * x.shape[1] - 1.0) / norms)
