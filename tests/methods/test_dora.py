"""DoRA: peft's numbers, and the algebra of magnitude and direction."""

import copy

import pytest
import torch
from torch import nn

import beamlora_mini as bl
from tests.helpers import ALPHA, IDS, R, close_in_size, move_, net
from tests.methods.twins import peft_twin

DORA = {"r": R, "lora_alpha": ALPHA, "use_dora": True}


@pytest.mark.parametrize("bias", [True, False])
def test_dora_layers_against_peft_in_float32(bias):
    model = net(bias)
    model[1] = nn.Tanh()
    ours = copy.deepcopy(model)
    layers = bl.attach(ours, bl.DoRA(r=R, lora_alpha=ALPHA))
    _, pairs = peft_twin(model, ours, **DORA)
    for layer, theirs in pairs.values():
        close_in_size(layer.magnitude, theirs.weight.norm(dim=1), 1e-6)
    move_(ours)
    twin, pairs = peft_twin(model, ours, **DORA)
    x = torch.randn(2, 9, 24)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    outputs = ours(inputs[0]), twin(inputs[1])
    close_in_size(*outputs, 1e-6)
    grad = torch.randn_like(outputs[0]) / 10
    for output in outputs:
        output.backward(grad)
    close_in_size(inputs[0].grad, inputs[1].grad, 1e-6)
    for layer, theirs in pairs.values():
        close_in_size(layer.lora_A.grad, theirs.lora_A["default"].weight.grad, 1e-6)
        close_in_size(layer.lora_B.grad, theirs.lora_B["default"].weight.grad, 1e-6)
        close_in_size(
            layer.magnitude.grad, theirs.lora_magnitude_vector["default"].weight.grad, 1e-6
        )
    merged = twin.merge_and_unload()
    bl.merge_and_unload(ours)
    for name in layers:
        close_in_size(ours.get_submodule(name).weight, merged.get_submodule(name).weight, 1e-6)


def test_dora_on_the_model_against_peft_and_five_steps(tiny):
    model = tiny[0].double()
    ours = copy.deepcopy(model)
    layers = bl.attach(ours, bl.DoRA(r=R, lora_alpha=ALPHA))
    for layer in layers.values():
        nn.init.normal_(layer.lora_B, std=0.02)
    twin, pairs = peft_twin(model, ours, **DORA)
    for each in (ours, twin):
        each(IDS, labels=IDS).loss.backward()
    for layer, theirs in pairs.values():
        close_in_size(
            layer.magnitude.grad, theirs.lora_magnitude_vector["default"].weight.grad, 1e-6
        )
        close_in_size(layer.lora_A.grad, theirs.lora_A["default"].weight.grad, 1e-6)
    for each in (ours, twin):
        optimizer = torch.optim.AdamW([p for p in each.parameters() if p.requires_grad], lr=1e-3)
        for _ in range(5):
            optimizer.zero_grad()
            each(IDS, labels=IDS).loss.backward()
            optimizer.step()
    for layer, theirs in pairs.values():
        close_in_size(layer.magnitude, theirs.lora_magnitude_vector["default"].weight, 1e-5)
        close_in_size(layer.lora_A, theirs.lora_A["default"].weight, 1e-5)
        close_in_size(layer.lora_B, theirs.lora_B["default"].weight, 1e-5)


def test_dora_row_norm_is_that_of_the_whole_matrix():
    layer = bl.attach(net(), bl.DoRA(r=R, lora_alpha=ALPHA))["0"]
    nn.init.normal_(layer.lora_B)
    V = layer.frozen_weight + layer.scaling * layer.lora_B @ layer.lora_A
    close_in_size(layer.row_norm(), V.norm(dim=1), 1e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        close_in_size(layer.row_norm(), V.norm(dim=1), 1e-6)


def test_dora_scales_the_product_and_not_the_bias():
    layer = bl.attach(net(), bl.DoRA(r=R))["0"]
    x = torch.randn(5, 24)
    product = layer(x) - layer.bias
    with torch.no_grad():
        layer.magnitude *= 3
    close_in_size(layer(x), 3 * product + layer.bias, 1e-6)
    close_in_size(layer.delta_weight(), 2 * layer.frozen_weight, 1e-6)


def test_dora_with_a_row_of_zeros_stays_finite_and_learns():
    model = net()
    nn.init.zeros_(model[0].weight[3:5])
    nn.init.ones_(model[0].bias[3:5])  # so that the ReLU lets a gradient through
    before = model(x := torch.randn(8, 24))
    layer = bl.attach(model, bl.DoRA(r=R))["0"]
    assert torch.equal(model(x), before)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(3):
        (model(x) - 1).square().sum().backward()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
        optimizer.step()
        optimizer.zero_grad()
    assert model(x).isfinite().all() and layer.delta_weight().isfinite().all()
    assert layer.delta_weight()[3:5].abs().sum() > 0
