"""The gradient of a frozen weight seen in passing, by the scores that IncreLoRA makes of it."""

import math

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import beamlora_mini as bl
from tests.helpers import GROW, adamw, close, net


@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_score_is_the_sensitivity_of_the_whole_update(passes, dropout):
    torch.manual_seed(0)
    layer = bl.attach(
        nn.Sequential(nn.Linear(6, 5)).double(), bl.IncreLoRA(target_r=4, lora_dropout=dropout)
    )["0"].train()
    nn.init.normal_(layer.blocks_E[0])
    layer.gradient.on = True
    xs = [torch.randn(2, 7, 6, dtype=torch.float64) for _ in range(passes)]
    delta = layer.delta_weight().detach().requires_grad_()
    for i, x in enumerate(xs):
        torch.manual_seed(i)
        layer(x).square().sum().backward()
        torch.manual_seed(i)
        dropped = layer.dropout(x)
        (x @ layer.frozen_weight.T + layer.bias + dropped @ delta.T).square().sum().backward()
    expected = (delta * delta.grad).abs().sum() / math.sqrt(30)
    assert expected > 0.01
    close(layer.take_score(), expected.detach(), 1e-9)
    assert layer.take_score() == 0  # taken once


@pytest.mark.parametrize("reentrant", [True, False])
def test_scores_under_activation_checkpointing(reentrant):
    scores = []
    for checkpointed in (False, True):
        model = net()
        bl.attach(model, GROW)
        schedule = GROW.schedule(model, adamw(model), 40)
        schedule.step(1)
        x = torch.randn(16, 24, generator=torch.Generator().manual_seed(0), requires_grad=True)
        y = checkpoint(model, x, use_reentrant=reentrant) if checkpointed else model(x)
        y.square().sum().backward()
        scores.append([layer.take_score() for layer in bl.adapter_layers(model).values()])
    torch.testing.assert_close(*scores)
    assert min(scores[0]) > 0


def test_a_relu_in_place_after_a_watched_layer():
    scores = []
    for inplace in (False, True):
        model = net()
        model[1] = nn.ReLU(inplace=inplace)
        bl.attach(model, GROW)
        GROW.schedule(model, adamw(model), 40).step(1)
        model(torch.ones(5, 24)).square().sum().backward()
        scores.append([layer.take_score() for layer in bl.adapter_layers(model).values()])
    torch.testing.assert_close(*scores)
    assert min(scores[0]) > 0
