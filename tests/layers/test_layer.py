"""An adapted layer under whatever else torch does to it: narrow dtypes, autocast, compile, copies."""

import copy

import pytest
import torch
from torch import nn

import beamlora_mini as bl
from tests.helpers import IDS, close, net, randomize_, tiny_gpt2


def test_half_precision_base_keeps_the_adapter_in_float32():
    layer = next(iter(bl.attach(nn.Sequential(nn.Linear(8, 8).bfloat16()), bl.LoRA(r=2)).values()))
    assert layer.lora_A.dtype == torch.float32
    x = torch.randn(3, 8, dtype=torch.bfloat16, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert y.dtype == x.grad.dtype == torch.bfloat16 and layer.lora_B.grad.dtype == torch.float32


@pytest.mark.parametrize("name", ["tiny", "gpt2"])
def test_under_autocast(tiny, name):
    model = tiny[0] if name == "tiny" else tiny_gpt2()
    bl.attach(model, bl.LoRA(r=4))
    randomize_(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(IDS).logits
        loss = logits.float().square().mean()
    loss.backward()
    close(logits.float(), model(IDS).logits, 0.3)
    for layer in bl.adapter_layers(model).values():
        assert layer.lora_A.grad.dtype == torch.float32 and layer.lora_A.grad.abs().sum() > 0


def gradients(model):
    model.train()
    model.zero_grad()
    model(IDS, labels=IDS).loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("reentrant", [False, True])
def test_under_gradient_checkpointing(tiny, reentrant):
    model, _ = tiny
    bl.attach(model, bl.LoRA(r=4))
    randomize_(model)
    plain = gradients(model)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    if reentrant:  # it needs an input with a gradient, and the embedding is frozen
        model.enable_input_require_grads()
    checkpointed = gradients(model)
    assert plain.keys() == checkpointed.keys()
    for name, grad in plain.items():
        close(checkpointed[name], grad, 1e-6)


def test_under_deepcopy(tiny):
    model, _ = tiny
    bl.attach(model, bl.LoRA(r=4))
    randomize_(model)
    bl.merge(model)
    twin = copy.deepcopy(model)
    assert torch.equal(twin(IDS).logits, model(IDS).logits)
    bl.unmerge(twin)
    for layer in bl.adapter_layers(twin).values():
        nn.init.zeros_(layer.lora_B)
    assert not torch.equal(twin(IDS).logits, model(IDS).logits)
    bl.detach(twin)
    assert len(bl.adapter_layers(model)) == 28 and not bl.adapter_layers(twin)


def test_under_compile():
    model = net()
    bl.attach(model, bl.LoRA(r=2))
    randomize_(model)
    x = torch.randn(3, 24)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    close(compiled(x), model(x), 1e-6)
    compiled(x).sum().backward()
    grads = [p.grad.clone() for p in model.parameters() if p.requires_grad]
    model.zero_grad()
    model(x).sum().backward()
    for grad, parameter in zip(grads, (p for p in model.parameters() if p.requires_grad)):
        close(grad, parameter.grad, 1e-6)


def test_rank_importance_is_the_norm_of_each_ranks_matrix():
    model = net()
    layer = bl.attach(model, bl.LoRA(r=3))["0"]
    randomize_(model)
    one_by_one = [torch.outer(layer.lora_B[:, i], layer.lora_A[i]).norm() for i in range(3)]
    close(layer.rank_importance(), torch.stack(one_by_one).detach(), 1e-6)
