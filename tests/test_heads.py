"""Heads: one normalised law of a token, whichever way it is asked for."""

import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax

from nmcmc.networks.heads import HEADS
from tests.enumerated import FALSE_ALARM, chi_square_p, combined_p_value

BITS = (1, 2, 3, 4)


def case(name, k, batch=(5,), prior_size=2.0, output_size=1.0, seed=0):
    """(head, prior (*batch, V), outputs (*batch, n_outputs)), random float32."""
    generator = torch.Generator().manual_seed(seed + 100 * k)
    head = HEADS[name](2**k)
    prior = prior_size * torch.randn(*batch, 2**k, generator=generator)
    return head, prior, output_size * torch.randn(*batch, head.n_outputs, generator=generator)


def all_log_probs(head, prior, outputs):
    """ln q of every value, (..., V) float64."""
    values = 2**head.k if hasattr(head, "k") else prior.shape[-1]
    shape = (*prior.shape[:-1], values, -1)
    tokens = torch.arange(values).expand(shape[:-1])
    return head.log_prob(prior[..., None, :].expand(shape), outputs[..., None, :].expand(shape), tokens)


def enumerated_law(name, prior, outputs):
    """q (V,) of one row, float64, by the definition of the head, number by number."""
    prior, outputs = prior.double().numpy(), outputs.double().numpy()
    if name == "softmax":
        return np.exp(log_softmax(prior + outputs))
    k = len(prior).bit_length() - 1
    weight = np.exp(prior - prior.max())
    law = np.ones(2**k)
    for value in range(2**k):
        for level in range(k):
            below = value % 2**level
            agree = [v for v in range(2**k) if v % 2**level == below]
            plus = sum(weight[v] for v in agree if v >> level & 1)
            minus = sum(weight[v] for v in agree if not v >> level & 1)
            up = expit(np.log(plus / minus) + outputs[2**level - 1 + below])
            law[value] *= up if value >> level & 1 else 1.0 - up
    return law


@pytest.mark.parametrize("k", [*BITS, 8])
@pytest.mark.parametrize("name", HEADS)
def test_law_of_a_token_is_normalised(name, k):
    head, prior, outputs = case(name, k, batch=(3, 4))
    total = all_log_probs(head, prior, outputs).exp().sum(-1)
    assert total.dtype == torch.float64
    assert total.numpy() == pytest.approx(np.ones((3, 4)), abs=1e-9)


@pytest.mark.parametrize("k", BITS)
@pytest.mark.parametrize("name", HEADS)
def test_law_of_a_token_is_the_enumerated_one(name, k):
    head, prior, outputs = case(name, k)
    found = all_log_probs(head, prior, outputs).exp().numpy()
    for row in range(len(prior)):
        assert found[row] == pytest.approx(enumerated_law(name, prior[row], outputs[row]), abs=1e-6)


@pytest.mark.parametrize("k", [*BITS, 8])
@pytest.mark.parametrize("name", HEADS)
def test_law_without_outputs_is_the_softmax_of_the_prior(name, k):
    head, prior, outputs = case(name, k, output_size=0.0)
    expected = log_softmax(prior.double().numpy(), axis=-1)
    assert all_log_probs(head, prior, outputs).numpy() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("k", [*BITS, 8])
@pytest.mark.parametrize("name", HEADS)
def test_law_does_not_depend_on_the_zero_of_the_prior(name, k):
    head, prior, outputs = case(name, k)
    moved = all_log_probs(head, prior + 64.0, outputs)
    assert moved.numpy() == pytest.approx(all_log_probs(head, prior, outputs).numpy(), abs=2e-4)


def cross_entropy_by_enumeration(head, prior, outputs, label):
    """- sum p ln (q / q without outputs), by ln q of every value; differentiable."""
    weights = torch.softmax(label.double(), -1)
    bare = all_log_probs(head, prior, torch.zeros_like(outputs))
    return -(weights * (all_log_probs(head, prior, outputs) - bare)).sum()


@pytest.mark.parametrize("k", [*BITS, 8])
@pytest.mark.parametrize("name", HEADS)
def test_cross_entropy_and_its_gradient_are_the_sums_over_all_values(name, k):
    head, prior, outputs = case(name, k, batch=(3, 20), seed=7)
    label = 1.5 * torch.randn(prior.shape, generator=torch.Generator().manual_seed(k))
    ours, theirs = outputs.clone().requires_grad_(), outputs.clone().requires_grad_()
    found = head.cross_entropy(prior, ours, label)
    expected = cross_entropy_by_enumeration(head, prior, theirs, label)
    assert found.dtype == torch.float64
    assert found.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-4)
    (2.5 * found).backward()
    expected.backward()
    assert (ours.grad / 2.5).numpy() == pytest.approx(theirs.grad.numpy(), abs=3e-6)
    assert theirs.grad.abs().max() > 0.05


@pytest.mark.parametrize("sure_of", [1, 0])
@pytest.mark.parametrize("name", HEADS)
def test_a_network_can_overrule_a_prior_that_is_sure_by_25_nats(name, sure_of):
    # Such priors are common at low temperature. The gradient has to vanish where the network has mended the prior.
    head = HEADS[name](2)
    prior = torch.zeros(1, 9, 2)
    prior[..., sure_of] = 25.0
    against = torch.linspace(-33.0, -17.0, 9)[None, :, None]
    outputs = torch.cat([torch.zeros_like(against), against], -1) if name == "softmax" else against
    if sure_of == 0:
        outputs = -outputs
    ours, theirs = outputs.clone().requires_grad_(), outputs.clone().requires_grad_()
    label = torch.zeros(1, 9, 2)
    found = head.cross_entropy(prior, ours, label)
    expected = cross_entropy_by_enumeration(head, prior, theirs, label)
    found.backward()
    expected.backward()
    assert ours.grad.numpy() == pytest.approx(theirs.grad.numpy(), abs=1e-4)
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("name", HEADS)
def test_cross_entropy_without_outputs_is_zero_and_its_gradient_vanishes_where_the_label_is_the_law(name):
    head, prior, outputs = case(name, 3, batch=(2, 6), output_size=0.0)
    outputs.requires_grad_()
    loss = head.cross_entropy(prior, outputs, prior.clone())
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-5)
    assert outputs.grad.abs().max() < 1e-6


@pytest.mark.statistical
@pytest.mark.parametrize("forbidden", [False, True])
@pytest.mark.parametrize("name", HEADS)
def test_drawn_tokens_have_the_scored_law(name, forbidden):
    # 5000 draws of each of 4 rows for each k; false alarm 1e-4 a head and case.
    p_values = []
    for k in BITS:
        head, prior, outputs = case(name, k, batch=(4,), prior_size=1.0, seed=3)
        if forbidden:
            outputs = torch.stack([head.forbid_first_bit(row) for row in outputs])
        expected = all_log_probs(head, prior, outputs).exp().numpy()
        many = [array.repeat_interleave(5000, 0) for array in (prior, outputs)]
        uniform = torch.rand(20_000, k, generator=torch.Generator().manual_seed(k), dtype=torch.float64)
        tokens, log_q = head.draw(*many, uniform)
        assert tokens.dtype == torch.int64
        assert log_q.dtype == torch.float64
        assert (log_q - head.log_prob(*many, tokens)).abs().max() < 1e-5
        for row, drawn in enumerate(tokens.reshape(4, 5000).numpy()):
            p_values.append(chi_square_p(np.bincount(drawn, minlength=2**k), expected[row], 5000))
    assert combined_p_value(p_values) > FALSE_ALARM, np.round(p_values, 5)


@pytest.mark.parametrize("k", [*BITS, 8])
@pytest.mark.parametrize("name", HEADS)
def test_a_forbidden_first_bit_has_probability_exactly_zero(name, k):
    # Even where the prior favours it by 60 nats.
    head, prior, outputs = case(name, k, batch=(40,))
    prior[20:, 1::2] += 60.0
    outputs = torch.stack([head.forbid_first_bit(row) for row in outputs])
    law = all_log_probs(head, prior, outputs).exp().numpy()
    assert (law[:, 1::2] == 0.0).all()
    assert law.sum(-1) == pytest.approx(np.ones(40), abs=1e-9)
    uniform = torch.rand(40, k, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    uniform[:3], uniform[3:6] = 2.0**-53, 1.0 - 2.0**-53
    tokens, log_q = head.draw(prior, outputs, uniform)
    assert (tokens % 2 == 0).all()
    assert torch.isfinite(log_q).all()


@pytest.mark.parametrize("name", HEADS)
def test_a_forbidden_first_bit_is_not_drawn_by_the_uniform_number_zero_either(name):
    head, prior, outputs = case(name, 2, batch=(4,))
    outputs = torch.stack([head.forbid_first_bit(row) for row in outputs])
    tokens, _ = head.draw(prior, outputs, torch.zeros(4, 2, dtype=torch.float64))
    assert (tokens % 2 == 0).all()


@pytest.mark.parametrize("name", HEADS)
def test_a_masked_label_trains_the_masked_law(name):
    head, prior, outputs = case(name, 3, batch=(1, 30))
    first = head.forbid_first_bit(outputs[0, 0]).expand(1, 30, -1)
    label = torch.randn(1, 30, 8, generator=torch.Generator().manual_seed(2))
    masked = head.forbid_first_bit_of_label(label)
    assert (torch.softmax(masked, -1)[..., 1::2] == 0.0).all()
    ours, theirs = first.clone().requires_grad_(), first.clone().requires_grad_()
    found = head.cross_entropy(prior, ours, masked)
    expected = -(torch.softmax(masked.double(), -1) * all_log_probs(head, prior, theirs).clamp_min(-1e3)).sum()
    found.backward()
    expected.backward()
    assert torch.isfinite(found)
    assert ours.grad.numpy() == pytest.approx(theirs.grad.numpy(), abs=1e-5)


@pytest.mark.parametrize("k", [*BITS, 8])
@pytest.mark.parametrize("name", HEADS)
def test_priors_that_differ_by_200_nats_give_finite_normalised_laws(name, k):
    head, prior, outputs = case(name, k, batch=(2, 50))
    generator = torch.Generator().manual_seed(4)
    prior = prior + 200.0 * (torch.rand(prior.shape, generator=generator) < 0.3)
    law = all_log_probs(head, prior, outputs)
    assert torch.isfinite(law).all()
    assert law.exp().sum(-1).numpy() == pytest.approx(np.ones((2, 50)), abs=1e-9)
    uniform = torch.rand(50, k, generator=generator, dtype=torch.float64)
    tokens, log_q = head.draw(prior[0], outputs[0], uniform)
    assert torch.isfinite(log_q).all()
    assert log_q.numpy() == pytest.approx(head.log_prob(prior[0], outputs[0], tokens).numpy(), abs=1e-5)
    # Labels of the other side: what the prior excludes is true.
    outputs.requires_grad_()
    loss = head.cross_entropy(prior, outputs, -prior)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(outputs.grad).all()


@pytest.mark.parametrize("name", HEADS)
def test_the_surest_draws_are_made_at_both_ends_of_the_uniform_numbers(name):
    head, prior, outputs = case(name, 3, batch=(2,))
    uniform = torch.tensor([[0.0] * 3, [1.0 - 2.0**-53] * 3], dtype=torch.float64)
    tokens, log_q = head.draw(prior, outputs, uniform)
    assert ((tokens >= 0) & (tokens < 8)).all()
    assert torch.isfinite(log_q).all()
