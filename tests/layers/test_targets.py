"""What gets an adapter, what is trained whole beside it, and what is passed by with a word."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    MixtralConfig,
    MixtralForCausalLM,
)

import beamlora_mini as bl
from tests.helpers import every_method, net

SMALL = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "vocab_size": 64}
SMALL |= {"num_attention_heads": 2}


def classifier(kind="llama"):
    torch.manual_seed(0)
    if kind == "bert":
        return BertForSequenceClassification(BertConfig(**SMALL, num_labels=5))
    return LlamaForSequenceClassification(LlamaConfig(**SMALL, num_labels=5, pad_token_id=0))


def trained_whole(model):
    return {n for n, p in model.named_parameters() if p.requires_grad and "lora_" not in n}


def test_the_head_of_a_task_is_neither_frozen_nor_adapted_unasked():
    model = classifier("bert")
    layers = bl.attach(model, bl.LoRA(r=2))
    assert "classifier" not in layers and "bert.pooler.dense" in layers
    assert trained_whole(model) == {"classifier.weight", "classifier.bias"}
    bl.detach(model)
    assert all(p.requires_grad for p in model.parameters())
    model.classifier.requires_grad_(False)
    bl.attach(model, bl.LoRA(r=2))
    assert not trained_whole(model)  # as trainable as it was


@every_method
def test_a_new_head_learns_beside_every_method(method):
    model = classifier()
    bl.attach(model, method)
    head = model.score.weight.detach().clone()
    run = bl.Run(model.train(), steps=60, lr=1e-2, warmup=0)
    for _ in range(2):
        loss = model(input_ids=torch.tensor([[3, 4, 5]]), labels=torch.tensor([1])).loss
        (loss + run.loss()).backward()
        run.update()
    assert not torch.equal(model.score.weight, head)


def test_modules_to_save_names_what_is_trained_whole():
    model = classifier("bert")
    model.requires_grad_(False)
    bl.attach(model, bl.LoRA(r=2, modules_to_save=["classifier", "word_embeddings"]))
    words = "bert.embeddings.word_embeddings.weight"
    assert trained_whole(model) == {"classifier.weight", "classifier.bias", words}
    bl.detach(model)
    bl.attach(model, bl.LoRA(r=2, modules_to_save=[]))
    assert not trained_whole(model) and "classifier" not in bl.adapter_layers(model)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"modules_to_save": ["head"]}, r"'head' matches no module.*classifier"),
        ({"modules_to_save": ["pooler"], "target_modules": ["query", "dense"]}, r"pooler.*one of the two"),
    ],
)  # fmt: skip
def test_what_can_not_be_trained_whole_changes_nothing(settings, words):
    model = classifier("bert")
    with pytest.raises(ValueError, match=words):
        bl.attach(model, bl.LoRA(r=2, **settings))
    assert not bl.adapter_layers(model) and all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("value", ["classifier", [1], 3])
def test_modules_to_save_is_a_list_of_names(value):
    with pytest.raises(ValueError, match="modules_to_save="):
        bl.LoRA(modules_to_save=value)


def test_the_head_can_be_given_an_adapter_by_name():
    model = classifier()
    assert "score" in bl.attach(model, bl.LoRA(r=2, target_modules=["q_proj", "score"]))
    assert not trained_whole(model)


def test_fused_experts_are_named_with_their_share():
    sizes = {"num_key_value_heads": 2, "num_local_experts": 4}
    model = MixtralForCausalLM(MixtralConfig(**SMALL, **sizes))
    total = sum(p.numel() for p in model.parameters())
    experts = sum(p.numel() for n, p in model.named_parameters() if ".experts." in n)
    router = sum(p.numel() for n, p in model.named_parameters() if n.endswith("mlp.gate.weight"))
    share = f"{(experts + router) / total:.0%}"
    with pytest.warns(UserWarning, match=rf"passes by {share}.*experts\.gate_up_proj \(Mixtral"):
        assert len(bl.attach(model, bl.LoRA(r=2))) == 4
    bl.detach(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bl.attach(model, bl.LoRA(r=2, target_modules=["q_proj"]))  # as asked


@pytest.mark.parametrize(
    ("odd", "name"),
    [(weight_norm(nn.Linear(4, 4)), "original"), (nn.LSTM(40, 40), "weight_hh_l"),
     (type("Mine", (nn.Linear,), {})(4, 4), "Mine"), (nn.MultiheadAttention(16, 2), "in_proj")],
    ids=["parametrized", "recurrent", "a subclass", "attention"],
)  # fmt: skip
def test_other_matrices_are_named(odd, name):
    with pytest.warns(UserWarning, match=rf"passes by .*{name}"):
        layers = bl.attach(nn.Sequential(net(), odd), bl.LoRA(r=2))
    assert list(layers)[:2] == ["0.0", "0.2"]


def test_ordinary_models_are_not_warned_about(tiny):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bl.attach(tiny[0], bl.LoRA(r=2))
        bl.attach(classifier("bert"), bl.LoRA(r=2))


@pytest.mark.parametrize("target", ["first", "second.0", "0", r"second\.0"])
def test_a_module_in_two_places_is_found_by_either_name(target):
    shared = nn.Linear(4, 4)
    model = nn.ModuleDict({"first": shared, "second": nn.Sequential(shared, nn.Linear(4, 4))})
    targets = target if "\\" in target else [target]
    layers = bl.attach(model, bl.LoRA(r=2, target_modules=targets))
    assert list(layers) == list(bl.adapter_layers(model)) == ["first"]
