"""attach and detach: what they do to a model, and what they refuse."""

import re

import pytest
import torch
from torch import nn

import beamlora_mini as bl
from beamlora_mini.layers import attached_method
from tests.helpers import IDS, net, randomize_


def test_attach_starts_from_the_base_function_and_freezes_the_rest(tiny):
    model, _ = tiny
    before = model(IDS).logits
    layers = bl.attach(model, bl.LoRA(r=4))
    assert len(layers) == 4 * 7 and layers == bl.adapter_layers(model)
    assert torch.equal(model(IDS).logits, before)
    trainable = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trainable == {f"{n}.lora_{x}" for n in layers for x in "AB"}
    expected = sum(4 * (la.in_features + la.out_features) for la in layers.values())
    assert bl.count_parameters(model)[0] == expected


def test_all_linear_leaves_the_head_alone_and_counts_tied_weights_once(tiny):
    model, _ = tiny
    total = bl.count_parameters(model)[1]
    assert model.lm_head.weight is model.get_input_embeddings().weight
    layers = bl.attach(model, bl.LoRA(r=1))
    assert type(model.lm_head) is nn.Linear and "lm_head" not in layers
    assert bl.count_parameters(model)[1] - bl.count_parameters(model)[0] == total


@pytest.mark.parametrize(
    ("targets", "pattern"),
    [
        (["q_proj", "v_proj"], r".*\.(q|v)_proj"),
        (["self_attn.o_proj"], r".*\.o_proj"),
        (["model.layers.1.mlp.up_proj"], r"model\.layers\.1\.mlp\.up_proj"),
        (r".*\.layers\.[02]\..*_proj", r".*\.layers\.[02]\..*_proj"),
    ],
)
def test_targets_by_ending_and_by_regex(tiny, targets, pattern):
    model, _ = tiny
    linear = [n for n, m in model.named_modules() if type(m) is nn.Linear]
    layers = bl.attach(model, bl.LoRA(r=2, target_modules=targets))
    assert list(layers) == [n for n in linear if re.fullmatch(pattern, n)]


@pytest.mark.parametrize(
    ("targets", "kind", "words"),
    [
        (["q_porj"], ValueError, ["q_porj", "q_proj"]),
        (["q_proj", "nothing"], ValueError, ["nothing", "down_proj"]),
        ("q_proj", ValueError, ["q_proj", "regular expression"]),
        (["self_attn"], TypeError, ["self_attn", "LlamaAttention", "Linear"]),
        (["embed_tokens"], TypeError, ["embed_tokens", "Embedding"]),
    ],
)
def test_unknown_targets_name_the_closest_and_change_nothing(tiny, targets, kind, words):
    model, _ = tiny
    flags = [p.requires_grad for p in model.parameters()]
    modules = list(model.modules())
    with pytest.raises(kind) as error:
        bl.attach(model, bl.LoRA(target_modules=targets))
    assert all(word in str(error.value) for word in words)
    assert list(model.modules()) == modules
    assert [p.requires_grad for p in model.parameters()] == flags


def test_a_layer_that_fails_to_build_leaves_the_model_alone():
    model = net()

    class Broken(bl.LoRA):
        def wrap(self, base):
            if base.in_features == 40:
                raise ValueError("r too large")
            return super().wrap(base)

    with pytest.raises(ValueError, match="r too large"):
        bl.attach(model, Broken(r=2))
    assert not bl.adapter_layers(model) and all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("where", ["model", "part", "layer"])
def test_repeated_and_nested_attach_are_refused(tiny, where):
    model, _ = tiny
    layers = bl.attach(model, bl.LoRA(r=2, target_modules=["q_proj"]))
    place = {
        "model": model,
        "part": model.model.layers[0].self_attn,
        "layer": next(iter(layers.values())),
    }[where]
    with pytest.raises(ValueError, match="already has"):
        bl.attach(place, bl.LoRA(r=2))
    assert list(bl.adapter_layers(model)) == list(layers)


def test_a_part_with_adapters_makes_the_whole_refuse_and_detach_finds_it(tiny):
    model, _ = tiny
    bl.attach(model.model.layers[1], bl.LoRA(r=2))
    with pytest.raises(ValueError, match=r"already has 7 adapters.*model\.layers\.1"):
        bl.attach(model, bl.LoRA(r=2))
    bl.detach(model)
    assert not bl.adapter_layers(model) and all(p.requires_grad for p in model.parameters())


def test_detach_restores_modules_flags_and_function(tiny):
    model, _ = tiny
    model.model.norm.weight.requires_grad_(False)
    before, modules = model(IDS).logits, list(model.modules())
    flags = [p.requires_grad for p in model.parameters()]
    bl.attach(model, bl.LoRA(r=2))
    randomize_(model)
    assert not torch.equal(model(IDS).logits, before)
    bl.detach(model)
    assert list(model.modules()) == modules and attached_method(model) is None
    assert [p.requires_grad for p in model.parameters()] == flags
    assert torch.equal(model(IDS).logits, before)
    with pytest.raises(ValueError, match="no adapters"):
        bl.detach(model)


def test_one_module_in_two_places_gets_one_adapter():
    shared = nn.Linear(4, 4)
    model = nn.ModuleDict({"first": shared, "second": nn.Sequential(shared, nn.Linear(4, 4))})
    layers = bl.attach(model, bl.LoRA(r=2))
    assert list(layers) == ["first", "second.1"]
    assert model["first"] is model["second"][0] is layers["first"]
    bl.detach(model)
    assert model["first"] is shared and model["second"][0] is shared


def test_every_layer_keeps_its_mode(tiny):
    model, _ = tiny
    model.model.layers[1].train()
    layers = bl.attach(model, bl.LoRA(r=2))
    assert {name for name, la in layers.items() if la.training} == {n for n in layers if ".1." in n}
