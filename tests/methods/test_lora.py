"""The same numbers as peft and loralib: forward, gradients, merge, five AdamW steps.

Weights are copied across, never seeded: the libraries draw random numbers in another order. Single
layers are compared in float32. Whole models are compared in float64: many layers and AdamW, which
divides a gradient by its own size, would make the last digits of float32 the subject of the test.
"""

import copy

import loralib
import pytest
import torch
from torch import nn

import beamlora_mini as bl
from tests.helpers import close_in_size
from tests.methods.twins import loralib_twin, peft_twin

SETTINGS = {"r": 8, "lora_alpha": 16}


@pytest.fixture(scope="module", params=["tiny", "smollm2"])
def models(request):
    """(model, ids) in float64, shared by the tests; of SmolLM2 the first four blocks."""
    name = "loaded_tiny" if request.param == "tiny" else "smollm2"
    model, tokenizer = request.getfixturevalue(name)
    ids = torch.randint(0, len(tokenizer), (2, 16), generator=torch.Generator().manual_seed(0))
    return first_blocks(model, 4).double(), ids


def first_blocks(model, n):
    """A copy of a Llama's first n blocks, its embedding and its head."""
    blocks = model.model.layers
    model.model.layers = blocks[:n]
    try:
        short = copy.deepcopy(model)
    finally:
        model.model.layers = blocks
    short.config.num_hidden_layers = n
    return short


def attach_random(model, **settings):
    torch.manual_seed(0)
    adapted = copy.deepcopy(model)
    bl.attach(adapted, bl.LoRA(**SETTINGS, **settings))
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
    _, peft_pairs = peft_twin(block, ours, use_rslora=use_rslora, **SETTINGS)
    _, loralib_pairs = loralib_twin(block, ours, **SETTINGS)
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
                close_in_size(got, value, 1e-6)
        close_in_size(layer.delta_weight(), peft_layer.get_delta_weight("default"), 1e-6)


@pytest.mark.parametrize("use_rslora", [False, True])
def test_forward_gradients_and_merge_against_peft(models, use_rslora):
    model, ids = models
    ours = attach_random(model, use_rslora=use_rslora)
    twin, pairs = peft_twin(model, ours, use_rslora=use_rslora, **SETTINGS)
    outputs, theirs = ours(ids, labels=ids), twin(ids, labels=ids)
    close_in_size(outputs.logits, theirs.logits, 1e-6)
    close_in_size(outputs.loss, theirs.loss, 1e-6)
    outputs.loss.backward()
    theirs.loss.backward()
    for layer, peft_layer in pairs.values():
        close_in_size(layer.lora_A.grad, peft_layer.lora_A["default"].weight.grad, 1e-6)
        close_in_size(layer.lora_B.grad, peft_layer.lora_B["default"].weight.grad, 1e-6)
        close_in_size(layer.delta_weight(), peft_layer.get_delta_weight("default"), 1e-6)
    bl.merge_and_unload(ours)
    merged = twin.merge_and_unload().state_dict()
    for name, tensor in ours.state_dict().items():
        close_in_size(tensor, merged[name], 1e-6)


def five_steps(model, ids, parameters):
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)
    for _ in range(5):
        model(ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def test_five_adamw_steps_against_peft(models):
    model, ids = models
    ours = attach_random(model)
    twin, pairs = peft_twin(model, ours, **SETTINGS)
    for each in (ours, twin):
        five_steps(each, ids, [p for p in each.parameters() if p.requires_grad])
    for layer, peft_layer in pairs.values():
        close_in_size(layer.lora_A, peft_layer.lora_A["default"].weight, 1e-5)
        close_in_size(layer.lora_B, peft_layer.lora_B["default"].weight, 1e-5)


def test_forward_gradients_and_five_steps_against_loralib(models):
    model, ids = models
    ours = attach_random(model)
    twin, pairs = loralib_twin(model, ours, **SETTINGS)
    close_in_size(ours(ids).logits, twin(ids).logits, 1e-6)
    ours(ids, labels=ids).loss.backward()
    twin(ids, labels=ids).loss.backward()
    for layer, lib in pairs.values():
        close_in_size(layer.lora_A.grad, lib.lora_A.grad, 1e-6)
        close_in_size(layer.lora_B.grad, lib.lora_B.grad, 1e-6)
    ours.zero_grad()
    twin.zero_grad()
    five_steps(ours, ids, [p for p in ours.parameters() if p.requires_grad])
    five_steps(twin, ids, [p for p in twin.parameters() if p.requires_grad])
    for layer, lib in pairs.values():
        close_in_size(layer.lora_A, lib.lora_A, 1e-5)
        close_in_size(layer.lora_B, lib.lora_B, 1e-5)


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
    close_in_size(ours.merged_weight, theirs.weight.detach(), 1e-6)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("r", 0), ("r", 2.0), ("r", True), ("lora_alpha", 0), ("lora_alpha", float("nan")),
        ("lora_alpha", "16"), ("lora_dropout", 1.0), ("lora_dropout", -0.1),
        ("target_modules", []), ("target_modules", [1]), ("target_modules", "(["),
    ],
)  # fmt: skip
def test_bad_settings_name_the_argument_and_the_value(argument, value):
    with pytest.raises(ValueError) as error:
        bl.LoRA(**{argument: value})
    assert argument in str(error.value) and repr(value) in str(error.value)


def test_rslora_scales_by_the_root():
    assert bl.LoRA(r=16, lora_alpha=32).scaling == 2
    assert bl.LoRA(r=16, lora_alpha=32, use_rslora=True).scaling == 8
