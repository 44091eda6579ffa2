"""The fused step of a layer and its adapter against plain autograd."""

import pytest
import torch
from torch import nn

import beamlora_mini as bl
from beamlora_mini.layers import low_rank_linear
from tests.helpers import close


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_the_fused_step_equals_plain_autograd(dropout, weighted, biased):
    torch.manual_seed(0)
    x, A, B = (torch.randn(*s).double().requires_grad_() for s in [(2, 7, 6), (3, 6), (5, 3)])
    W, b, grad = (torch.randn(*s).double() for s in [(5, 6), (5,), (2, 7, 5)])
    b = b if biased else None
    weights = torch.tensor([0.5, 2.0, 0.1]).double().requires_grad_() if weighted else None
    mask = (torch.rand(2, 7, 6) > dropout).double()
    dropped = x * mask if dropout else None
    leaves = [x, A, B] + ([weights] if weighted else [])
    y = low_rank_linear(x, W, b, A, B, 1.7, weights, x_adapter=dropped)
    z = (x if dropped is None else dropped) @ A.T
    plain = x @ W.T + (b if biased else 0) + 1.7 * (z * (weights if weighted else 1)) @ B.T
    close(y, plain, 1e-12)
    ours = torch.autograd.grad(y, leaves, grad, retain_graph=True)
    for got, wanted in zip(ours, torch.autograd.grad(plain, leaves, grad)):
        close(got, wanted, 1e-12)


def test_an_in_place_activation_may_follow():
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(inplace=True))
    bl.attach(model, bl.LoRA(r=2))
    model(torch.randn(3, 6)).sum().backward()
    model(torch.randn(2, 3, 6)).sum().backward()


def test_a_second_derivative_is_refused_rather_than_wrong():
    x, A, B, W = (torch.randn(*s) for s in [(4, 6), (3, 6), (5, 3), (5, 6)])
    y = low_rank_linear(x, W, None, A.requires_grad_(), B, 1.5)
    (grad,) = torch.autograd.grad(y.square().sum(), A, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()
