"""What a rank is worth: each measure against its definition."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from beamlora_mini import ranks


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=40), st.floats(0.01, 10))
def test_score_importance_is_positive_and_sums_to_r(scores, temperature):
    scores = torch.tensor(scores).double()
    importance = ranks.score_importance(scores, temperature)
    torch.testing.assert_close(importance.sum(), torch.tensor(float(len(scores))).double())
    softmax = len(scores) * torch.softmax(scores / temperature, 0)
    torch.testing.assert_close(importance, softmax)


def test_the_sum_of_the_weights_can_t_be_changed_by_training():
    scores = torch.randn(6, dtype=torch.double, requires_grad=True)
    ranks.score_importance(scores, 0.3).sum().backward()
    assert scores.grad.abs().max() < 1e-12


def test_frobenius_is_the_norm_of_what_a_rank_adds(adapted):
    _, layer, _, _ = adapted
    wanted = [torch.outer(layer.lora_B[:, i], layer.lora_A[i]).norm() for i in range(4)]
    torch.testing.assert_close(
        ranks.frobenius_importance(layer.lora_A, layer.lora_B), torch.stack(wanted)
    )


@given(st.integers(1, 5), st.integers(0, 99), st.floats(0.01, 100))
def test_k_equal_directions_have_effective_rank_k_at_any_size(k, seed, size):
    draw = torch.Generator().manual_seed(seed)
    U, _ = torch.linalg.qr(torch.randn(7, 5, dtype=torch.double, generator=draw))
    V, _ = torch.linalg.qr(torch.randn(6, 5, dtype=torch.double, generator=draw))
    matrix = size * U[:, :k] @ V[:, :k].T
    assert ranks.effective_rank(matrix) == pytest.approx(k)
    assert ranks.effective_rank(matrix.bfloat16()) == pytest.approx(k, rel=0.05)


def test_nothing_has_effective_rank_zero_and_a_weak_direction_counts_less_than_one():
    assert ranks.effective_rank(torch.zeros(3, 4)) == 0
    assert 1 < ranks.effective_rank(torch.diag(torch.tensor([1.0, 0.01]))) < 1.1


def test_activation_is_the_size_of_what_a_rank_adds_to_the_outputs(adapted):
    _, layer, x, _ = adapted
    wanted = [
        torch.outer(x @ layer.lora_A[i], layer.lora_B[:, i]).square().sum(1).mean().sqrt()
        for i in range(4)
    ]
    got = ranks.activation_importance(layer.lora_A, layer.lora_B, x)
    torch.testing.assert_close(got, torch.stack(wanted))


def test_gradient_importance_is_the_slope_of_the_loss_along_a_rank(adapted):
    _, layer, x, grad = adapted
    got = ranks.gradient_importance(layer.lora_B, layer.lora_B.grad)
    from_A = ranks.gradient_importance(layer.lora_A.T, layer.lora_A.grad.T)
    torch.testing.assert_close(got, from_A)
    for i in range(4):  # the loss is linear in the layer's output: the estimate is exact
        less = copy.deepcopy(layer)
        with torch.no_grad():
            less.lora_B[:, i] = 0
        change = ((layer(x) - less(x)) * grad).sum().abs()
        torch.testing.assert_close(got[i], change.detach(), rtol=1e-4, atol=1e-5)


def test_sensitivity_is_smoothed_and_weighed_by_its_uncertainty(adapted):
    _, layer, _, _ = adapted
    smoothed = ranks.SmoothedSensitivity(0.5, 0.9)
    steady = torch.tensor([1.0, 2.0])
    assert torch.allclose(smoothed.update(steady), steady * 0.5 * 0.1 * steady * 0.5)
    for _ in range(60):
        score = smoothed.update(steady)
    torch.testing.assert_close(smoothed.mean, steady)
    assert score.max() < 0.01  # what is certain is no longer worth watching
    entries = [(p * p.grad).abs() for p in (layer.lora_A, layer.lora_B)]
    got = ranks.sensitivity_importance(layer.lora_A, layer.lora_B, *entries)
    assert torch.allclose(got[2], entries[0][2].mean() + entries[1][:, 2].mean())
    with pytest.raises(ValueError, match="score_A.*allowed is"):
        ranks.sensitivity_importance(layer.lora_A, layer.lora_B, entries[1], entries[1])
