"""The kinds of frozen layer that an adapter can sit on."""

import torch

import beamlora_mini as bl
from tests.helpers import IDS, close, randomize_, tiny_gpt2


def test_gpt2_conv1d():
    model = tiny_gpt2()
    before = model(IDS).logits
    layers = bl.attach(model, bl.LoRA(r=4))
    assert len(layers) == 2 * 4
    layer = layers["transformer.h.0.attn.c_attn"]
    assert layer.frozen_weight.shape == (96, 32) and layer.lora_A.shape == (4, 32)
    close(model(IDS).logits, before, 1e-6)
    randomize_(model)
    adapted = model(IDS).logits
    assert not torch.allclose(adapted, before, atol=1e-3)
    bl.merge(model)
    close(model(IDS).logits, adapted, 1e-5)
    bl.merge_and_unload(model)
    close(model(IDS).logits, adapted, 1e-5)
    assert model.transformer.h[0].attn.c_attn.weight.is_contiguous()
