"""What `training_memory` says is what a step of training holds."""

import copy

import pytest
import torch
from transformers import AutoModelForCausalLM

import beamlora_mini as bl
from beamlora_mini.memory import kept_for_backward
from tests.helpers import RUN

METHODS = {
    "lora": bl.LoRA(r=8),
    "dropout": bl.LoRA(r=8, lora_dropout=0.1),
    "pissa": bl.PiSSA(r=8),
    "dora": bl.DoRA(r=8),
    "relora": bl.ReLoRA(r=4, merge_every=20),
    "adalora": bl.AdaLoRA(r=8, target_r=4),
    "increlora": bl.IncreLoRA(r=1, target_r=2),
    "beamlora": bl.BeamLoRA(r=8),
    "attention": bl.LoRA(r=8, target_modules=["q_proj", "v_proj"]),
    "everything": None,
}


@pytest.mark.parametrize("name", METHODS)
def test_it_says_what_a_real_forward_pass_keeps(tiny, name):
    model, method = tiny[0], METHODS[name]
    before = {n: p.clone() for n, p in model.named_parameters()}
    told = bl.training_memory(model, method, batch_size=3, length=11)
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    assert not bl.adapter_layers(model)
    if method is not None:
        bl.attach(model, method)
        assert bl.training_memory(model, batch_size=3, length=11) == told
    ids = torch.randint(0, 30, (3, 11))
    mask = torch.ones_like(ids)
    mask[0, -1] = 0  # where no row has padding, transformers leaves the mask out
    assert told["activations"] == kept_for_backward(model.train(), ids, mask) > 0
    trainable, total = bl.count_parameters(model)
    assert told["trained weights"] == told["gradients"] == 4 * trainable
    assert told["frozen weights"] >= 4 * (total - trainable)


def test_gradients_and_moments_are_as_large_as_it_says(tiny):
    model = tiny[0]
    bl.attach(model, bl.DoRA(r=4))
    told = bl.training_memory(model, batch_size=2, length=8)
    run = bl.Run(model.train(), steps=1, lr=1e-3)
    ids = torch.randint(0, 30, (2, 8))
    model(ids, labels=ids).loss.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert sum(g.nbytes for g in gradients) == told["gradients"]
    run.update()
    moments = [t for of in run.optimizer.state.values() for t in of.values() if t.dim()]
    assert sum(t.nbytes for t in moments) == told["optimizer"]
    assert bl.training_memory(model, batch_size=2, length=8, states=0)["optimizer"] == 0


def test_a_model_without_weights_will_do(tiny):
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(tiny[0].config)
    method = bl.LoRA(r=8)
    told = bl.training_memory(empty, method, batch_size=2, length=9)
    assert told == bl.training_memory(tiny[0], method, batch_size=2, length=9)


def test_longer_and_more_take_more(tiny):
    def activations(batch_size, length):
        return bl.training_memory(tiny[0], batch_size=batch_size, length=length)["activations"]

    assert activations(4, 9) > 1.9 * activations(2, 9) and activations(2, 30) > activations(2, 9)


@pytest.mark.parametrize(
    "wrong", [{"batch_size": 0}, {"length": 1}, {"length": 2.5}, {"states": -1}]
)
def test_bad_settings_are_named(tiny, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        bl.training_memory(tiny[0], **{"batch_size": 2, "length": 9} | wrong)
    frozen = copy.deepcopy(tiny[0]).requires_grad_(False)
    with pytest.raises(ValueError, match="nothing in it requires a gradient"):
        bl.training_memory(frozen, batch_size=2, length=9)


def test_training_goes_on_as_if_nobody_had_asked(tiny, task):
    one, two = tiny[0], copy.deepcopy(tiny[0])
    wanted = bl.fit(one, task, method=bl.LoRA(r=2, lora_dropout=0.1), steps=2, **RUN).losses
    bl.attach(two, bl.LoRA(r=2, lora_dropout=0.1))
    bl.training_memory(two, batch_size=2, length=9)
    bl.detach(two)
    assert bl.fit(two, task, method=bl.LoRA(r=2, lora_dropout=0.1), steps=2, **RUN).losses == wanted
