"""The same numbers as peft and loralib: forward, gradients, merge, five AdamW steps.

Weights are copied across, never seeded: the libraries draw random numbers in another order. Single
layers are compared in float32. Whole models are compared in float64: thirty layers and AdamW, which
divides a gradient by its own size, would make the last digits of float32 the subject of the test.
"""

import copy

import loralib
import peft
import pytest
import torch
from torch import nn

import beamlora_mini as bl

R, ALPHA = 8, 16


def close(a, b, tolerance):
    """Equal to `tolerance`, meant relative to the tensor's size where that is above one."""
    size = b.detach().abs().max().clamp(min=1)
    torch.testing.assert_close(a / size, b / size, rtol=tolerance, atol=tolerance)


def peft_twin(model, adapted, use_rslora=False):
    """`model` under peft, with the adapter weights of `adapted`; {name: (ours, peft's)} layers."""
    config = peft.LoraConfig(
        r=R, lora_alpha=ALPHA, use_rslora=use_rslora,
        target_modules=[name.rsplit(".", 1)[-1] for name in bl.adapter_layers(adapted)],
    )  # fmt: skip
    twin = peft.get_peft_model(copy.deepcopy(model), config)
    pairs = {}
    for name, layer in bl.adapter_layers(adapted).items():
        theirs = twin.base_model.model.get_submodule(name)
        with torch.no_grad():
            theirs.lora_A["default"].weight.copy_(layer.lora_A)
            theirs.lora_B["default"].weight.copy_(layer.lora_B)
        pairs[name] = (layer, theirs)
    return twin, pairs


@pytest.fixture(params=["tiny", "smollm2"])
def models(request):
    model, tokenizer = request.getfixturevalue(request.param)
    torch.manual_seed(0)
    ids = torch.randint(0, len(tokenizer), (2, 16))
    return copy.deepcopy(model).double(), ids


def attach_random(model, **settings):
    adapted = copy.deepcopy(model)
    bl.attach(adapted, bl.LoRA(r=R, lora_alpha=ALPHA, **settings))
    for layer in bl.adapter_layers(adapted).values():
        nn.init.normal_(layer.lora_B, std=0.02)
    return adapted


def gradients(layer, A, B, x, grad_y):
    x = x.clone().requires_grad_()
    layer(x).backward(grad_y)
    return x.grad, A.grad, B.grad


@pytest.mark.parametrize("use_rslora", [False, True])
@pytest.mark.parametrize("name", ["tiny", "smollm2"])
def test_single_layers_in_float32_against_peft_and_loralib(request, name, use_rslora):
    model, _ = request.getfixturevalue(name)
    block = copy.deepcopy(model.model.layers[0])
    ours = attach_random(block, use_rslora=use_rslora)
    _, peft_pairs = peft_twin(block, ours, use_rslora)
    _, loralib_pairs = loralib_twin(block, ours)
    assert len(peft_pairs) == len(loralib_pairs) == 7
    for path, (layer, peft_layer) in peft_pairs.items():
        lib = loralib_pairs[path][1]
        lib.scaling = layer.scaling  # loralib knows no rank-stabilised scaling
        x = torch.randn(2, 16, layer.in_features)
        grad_y = torch.randn(2, 16, layer.out_features) / layer.out_features
        wanted = layer(x), *gradients(layer, layer.lora_A, layer.lora_B, x, grad_y)
        adapters = peft_layer.lora_A["default"].weight, peft_layer.lora_B["default"].weight
        for theirs, A, B in ((peft_layer, *adapters), (lib, lib.lora_A, lib.lora_B)):
            for got, value in zip((theirs(x), *gradients(theirs, A, B, x, grad_y)), wanted):
                close(got, value, 1e-6)
        close(layer.delta_weight(), peft_layer.get_delta_weight("default"), 1e-6)


@pytest.mark.parametrize("use_rslora", [False, True])
def test_forward_gradients_and_merge_against_peft(models, use_rslora):
    model, ids = models
    ours = attach_random(model, use_rslora=use_rslora)
    twin, pairs = peft_twin(model, ours, use_rslora)
    outputs, theirs = ours(ids, labels=ids), twin(ids, labels=ids)
    close(outputs.logits, theirs.logits, 1e-6)
    close(outputs.loss, theirs.loss, 1e-6)
    outputs.loss.backward()
    theirs.loss.backward()
    for layer, peft_layer in pairs.values():
        close(layer.lora_A.grad, peft_layer.lora_A["default"].weight.grad, 1e-6)
        close(layer.lora_B.grad, peft_layer.lora_B["default"].weight.grad, 1e-6)
        close(layer.delta_weight(), peft_layer.get_delta_weight("default"), 1e-6)
    bl.merge_and_unload(ours)
    merged = twin.merge_and_unload().state_dict()
    for name, tensor in ours.state_dict().items():
        close(tensor, merged[name], 1e-6)


def five_steps(model, ids, parameters):
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)
    for _ in range(5):
        model(ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def test_five_adamw_steps_against_peft(models):
    model, ids = models
    ours = attach_random(model)
    twin, pairs = peft_twin(model, ours)
    for each in (ours, twin):
        five_steps(each, ids, [p for p in each.parameters() if p.requires_grad])
    for layer, peft_layer in pairs.values():
        close(layer.lora_A, peft_layer.lora_A["default"].weight, 1e-5)
        close(layer.lora_B, peft_layer.lora_B["default"].weight, 1e-5)


def loralib_twin(model, adapted):
    twin = copy.deepcopy(model)
    pairs = {}
    for name, layer in bl.adapter_layers(adapted).items():
        theirs = loralib.Linear(
            layer.in_features, layer.out_features, r=R, lora_alpha=ALPHA, merge_weights=False,
            bias=layer.bias is not None, dtype=layer.weight.dtype,
        )  # fmt: skip
        with torch.no_grad():
            theirs.weight.copy_(layer.weight)
            theirs.lora_A.copy_(layer.lora_A)
            theirs.lora_B.copy_(layer.lora_B)
            if layer.bias is not None:
                theirs.bias.copy_(layer.bias)
        twin.set_submodule(name, theirs)
        pairs[name] = (layer, theirs)
    loralib.mark_only_lora_as_trainable(twin)
    return twin, pairs


def test_forward_gradients_and_five_steps_against_loralib(models):
    model, ids = models
    ours = attach_random(model)
    twin, pairs = loralib_twin(model, ours)
    close(ours(ids).logits, twin(ids).logits, 1e-6)
    ours(ids, labels=ids).loss.backward()
    twin(ids, labels=ids).loss.backward()
    for layer, lib in pairs.values():
        close(layer.lora_A.grad, lib.lora_A.grad, 1e-6)
        close(layer.lora_B.grad, lib.lora_B.grad, 1e-6)
    ours.zero_grad()
    twin.zero_grad()
    five_steps(ours, ids, [p for p in ours.parameters() if p.requires_grad])
    five_steps(twin, ids, [p for p in twin.parameters() if p.requires_grad])
    for layer, lib in pairs.values():
        close(layer.lora_A, lib.lora_A, 1e-5)
        close(layer.lora_B, lib.lora_B, 1e-5)


def test_merge_against_loralib():
    torch.manual_seed(0)
    theirs = loralib.Linear(12, 7, r=3, lora_alpha=6)
    nn.init.normal_(theirs.lora_B)
    plain = nn.Linear(12, 7)
    plain.load_state_dict({"weight": theirs.weight, "bias": theirs.bias})
    ours = bl.attach(nn.Sequential(plain), bl.LoRA(r=3, lora_alpha=6))["0"]
    with torch.no_grad():
        ours.lora_A.copy_(theirs.lora_A)
        ours.lora_B.copy_(theirs.lora_B)
    theirs.eval()  # merges
    ours.merge()
    close(ours.merged_weight, theirs.weight.detach(), 1e-6)
