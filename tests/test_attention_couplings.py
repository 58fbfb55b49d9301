"""Couplings of an attention block: loops, the layer of PyTorch, and what asymmetry is of known matrices."""

import math

import numpy as np
import pytest
import torch

from mc.models.attention import asymmetry, attention_couplings, tokens_of_norm
from mc.models.vector import vector
from mc.vector.hamiltonian import VectorHamiltonian


def weights(N, D, d_k, seed):
    """Tokens (N, D), W_Q and W_K (D, d_k), all Gaussian."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(N, D)), *rng.normal(size=(2, D, d_k))


@pytest.mark.parametrize("mask", ["none", "causal"])
@pytest.mark.parametrize("scale", [True, False])
def test_couplings_are_those_of_loops(scale, mask):
    N, D, d_k = 5, 4, 3
    x, W_Q, W_K = weights(N, D, d_k, seed=1)
    found = attention_couplings(x, W_Q, W_K, scale, mask)
    for i in range(N):
        seen = range(i + 1) if mask == "causal" else range(N)
        score = {j: sum((x[i] @ W_Q)[k] * (x[j] @ W_K)[k] for k in range(d_k)) for j in seen}
        weight = {j: math.exp(s / math.sqrt(d_k) if scale else s) for j, s in score.items()}
        expected = [weight.get(j, 0.0) / sum(weight.values()) for j in range(N)]
        assert found[i] == pytest.approx(np.array(expected), rel=1e-12)
    assert found.sum(axis=1) == pytest.approx(np.ones(N), abs=1e-14)


@pytest.mark.parametrize("mask", ["none", "causal"])
@pytest.mark.parametrize("bias", [True, False])
def test_couplings_of_a_real_layer(bias, mask):
    # Every head of a torch layer, its weights taken as the docstring of the module says.
    torch.manual_seed(2)
    E, heads, N = 12, 3, 7
    layer = torch.nn.MultiheadAttention(E, heads, bias=bias, batch_first=True, dtype=torch.float64)
    if bias:
        torch.nn.init.normal_(layer.in_proj_bias)  # of queries, keys and values
    tokens = 2.0 * torch.randn(1, N, E, dtype=torch.float64)
    hidden = torch.triu(torch.ones(N, N, dtype=torch.bool), 1) if mask == "causal" else None
    with torch.no_grad():
        _, expected = layer(tokens, tokens, tokens, attn_mask=hidden, average_attn_weights=False)
    x, d = tokens[0].numpy(), E // heads
    W_Q, W_K, _ = (w.T.detach().numpy() for w in layer.in_proj_weight.chunk(3))
    for a in range(heads):
        columns = slice(a * d, (a + 1) * d)
        bias_Q = layer.in_proj_bias.detach().numpy()[columns] if bias else None
        found = attention_couplings(x, W_Q[:, columns], W_K[:, columns], mask=mask, bias_Q=bias_Q)
        assert found == pytest.approx(expected[0, a].numpy(), rel=1e-12)


def test_the_block_of_a_layer_is_the_field_that_spins_feel():
    # With W_V and the output projection set to one, x + attention(x) is f_i = x_i + sum_j J_ij x_j.
    torch.manual_seed(3)
    E, N = 8, 6
    layer = torch.nn.MultiheadAttention(E, 1, bias=False, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        layer.in_proj_weight[2 * E :] = torch.eye(E)
        layer.out_proj.weight[:] = torch.eye(E)
    W = layer.in_proj_weight.detach().numpy()
    x = tokens_of_norm(np.random.default_rng(4).normal(size=(N, E)))
    batch = torch.from_numpy(x)[None]
    with torch.no_grad():
        output = batch + layer(batch, batch, batch, need_weights=False)[0]
    hamiltonian = VectorHamiltonian(x, attention_couplings(x, W[:E].T, W[E : 2 * E].T))
    assert hamiltonian.driving_fields(x) == pytest.approx(output[0].numpy(), rel=1e-12)


def test_large_scores_stay_finite():
    x, W_Q, W_K = weights(6, 4, 4, seed=5)
    J = attention_couplings(300.0 * x, W_Q, W_K)
    assert J.sum(axis=1) == pytest.approx(np.ones(6))
    assert (J.argmax(axis=1) == ((x @ W_Q) @ (x @ W_K).T).argmax(axis=1)).all()


def test_asymmetry_of_known_matrices():
    rng = np.random.default_rng(6)
    A = rng.normal(size=(200, 200))
    assert asymmetry(A + A.T) == pytest.approx(0.0, abs=1e-15)
    assert asymmetry(A - A.T) == pytest.approx(1.0)
    # E |J_odd|^2 = |J|^2 / 2 with a relative error of 1 / N: 0.05 is 14 of its own deviations
    assert asymmetry(A) == pytest.approx(math.sqrt(0.5), abs=0.05)
    assert asymmetry(np.tril(A)) == pytest.approx(math.sqrt(0.5))
    assert asymmetry(1e-20 * A + 1e6 * np.eye(200)) == pytest.approx(asymmetry(A))
    assert asymmetry(np.diag(A[0])) == asymmetry(np.ones((1, 1))) == 0.0
    odd = sum((A[i, j] - A[j, i]) ** 2 / 4 for i in range(20) for j in range(20))
    whole = sum(A[i, j] ** 2 for i in range(20) for j in range(20) if i != j)
    assert asymmetry(A[:20, :20]) == pytest.approx(math.sqrt(odd / whole))


def test_asymmetry_of_attention():
    # Equal weights of queries and keys make scores symmetric, not couplings, as each row has its own norm; no weights
    # make J = 1/N; the causal mask leaves one of each pair.
    x, W_Q, W_K = weights(20, 8, 8, seed=7)
    assert asymmetry(attention_couplings(x, 0.0 * W_Q, W_K)) == pytest.approx(0.0, abs=1e-14)
    assert asymmetry(attention_couplings(x, W_Q, W_K, mask="causal")) == pytest.approx(math.sqrt(0.5))
    scores = x @ W_Q @ W_Q.T @ x.T / math.sqrt(8)
    J = attention_couplings(x, W_Q, W_Q)
    norms = np.exp(np.diag(scores)) / np.diag(J)
    assert asymmetry(norms[:, None] * J / norms.max()) == pytest.approx(0.0, abs=1e-12)
    assert asymmetry(J) > 0.01


def test_tokens_of_norm_keep_their_directions():
    tokens = weights(9, 6, 4, seed=8)[0]
    x = tokens_of_norm(tokens)
    assert np.linalg.norm(x, axis=1) == pytest.approx(np.full(9, math.sqrt(6 / 2 - 1)))
    assert x / tokens == pytest.approx(np.repeat((x / tokens)[:, :1], 6, axis=1))
    assert (x / tokens > 0).all()
    for wrong, words in ((tokens[:, :2], "at least 3 components"), (np.eye(5, 4), "zero")):
        with pytest.raises(ValueError, match=words):
            tokens_of_norm(wrong)


def test_the_model_with_a_file_of_weights(tmp_path):
    tokens, W_Q, W_K = weights(9, 6, 4, seed=10)
    np.savez(tmp_path / "layer.npz", x=tokens, W_Q=W_Q, W_K=W_K)
    hamiltonian = vector(path=str(tmp_path / "layer.npz"))
    x = tokens_of_norm(tokens)
    assert (hamiltonian.fields == x).all()
    assert (hamiltonian.couplings == attention_couplings(x, W_Q, W_K)).all()
    np.savez(tmp_path / "half.npz", x=tokens, W_Q=W_Q)
    with pytest.raises(ValueError, match="W_K"):
        vector(path=str(tmp_path / "half.npz"))


def test_attention_of_a_seed_has_the_tokens_of_the_glass_and_tame_couplings():
    N, D = 40, 16
    hamiltonian = vector(N=N, D=D, J="attention", seed=3)
    J = hamiltonian.couplings
    assert (hamiltonian.fields == vector(N=N, D=D, seed=3).fields).all()
    assert J.sum(axis=1) == pytest.approx(np.ones(N), abs=N * 2.0**-33)
    assert (np.round(J * 2.0**32) == J * 2.0**32).all()  # so that a last bit of exp cannot change the fingerprint
    assert vector(N=N, D=D, J="attention", seed=3).fingerprint == hamiltonian.fingerprint
    assert vector(N=N, D=D, J="attention", seed=4).fingerprint != hamiltonian.fingerprint


@pytest.mark.statistical
def test_scores_of_a_random_block_have_the_variance_of_its_weights():
    # ln J is the score up to a number a row; of variance R^4 / D^2 with W_Q, W_K of variance 1/D, and scaled. Scores
    # of one seed are dependent, so seeds are the sample; 5 of its errors are a false alarm of 1e-6.
    N, D, found = 30, 24, []
    for seed in range(60):
        logs = np.log(vector(N=N, D=D, J="attention", seed=seed).couplings)
        np.fill_diagonal(logs, np.nan)
        rows = logs - np.nanmean(logs, axis=1, keepdims=True)
        found.append(np.nansum(rows**2) / (N * (N - 2)))
    error = np.std(found, ddof=1) / math.sqrt(len(found))
    expected = (D / 2 - 1) ** 2 / D**2
    assert abs(np.mean(found) - expected) < 5 * error
    assert error < 0.05 * expected


def test_what_does_not_fit_is_refused():
    x, W_Q, W_K = weights(5, 4, 3, seed=9)
    for call, words in (
        (lambda: attention_couplings(x, W_Q, W_K, mask="sliding"), "mask=sliding: none or causal"),
        (lambda: attention_couplings(x, W_Q[:3], W_K), "W_Q .3, 3."),
        (lambda: attention_couplings(x, W_Q, W_K[:, :2]), "W_K .4, 2."),
        (lambda: attention_couplings(x[0], W_Q, W_K), ".4,."),
        (lambda: attention_couplings(x * np.nan, W_Q, W_K), "finite"),
    ):
        with pytest.raises(ValueError, match=words) as told:
            call()
        assert "\n" not in str(told.value)
