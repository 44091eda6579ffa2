"""merge, unmerge, merge_and_unload: the same function, and a way back."""

import pytest
import torch

import beamlora_mini as bl
from tests.helpers import IDS, close, randomize_


def test_merge_keeps_the_function_and_unmerge_is_exact(tiny):
    model, _ = tiny
    bl.attach(model, bl.LoRA(r=4))
    randomize_(model)
    adapted = model(IDS).logits
    state = {n: t.clone() for n, t in model.state_dict().items()}
    bl.merge(model)
    bl.merge(model)
    close(model(IDS).logits, adapted, 1e-4)
    assert not torch.equal(model(IDS).logits, adapted)  # another way round: rounding differs
    assert model.state_dict().keys() == state.keys()  # saving a merged model saves no second copy
    bl.unmerge(model)
    assert torch.equal(model(IDS).logits, adapted)
    assert all(torch.equal(t, state[n]) for n, t in model.state_dict().items())


def test_training_while_merged_is_refused(tiny):
    model, _ = tiny
    bl.attach(model, bl.LoRA(r=2))
    bl.merge(model)
    model.train()
    with pytest.raises(RuntimeError, match=r"unmerge\(model\)"):
        model(IDS)
    bl.unmerge(model)
    model(IDS).logits.sum().backward()


def test_merge_and_unload_gives_a_plain_model_with_the_same_function(tiny):
    model, _ = tiny
    plain = [type(m) for m in model.modules()]
    bl.attach(model, bl.LoRA(r=4))
    randomize_(model)
    adapted = model(IDS).logits
    assert bl.merge_and_unload(model) is model
    assert [type(m) for m in model.modules()] == plain
    assert all(p.requires_grad for p in model.parameters())
    close(model(IDS).logits, adapted, 1e-4)


def test_a_tied_head_can_be_adapted_without_moving_the_embedding(tiny, tmp_path):
    model, _ = tiny
    embedding = model.get_input_embeddings().weight.clone()
    bl.attach(model, bl.LoRA(r=4, target_modules=["lm_head"]))
    randomize_(model)
    adapted = model(IDS).logits
    bl.merge(model)
    close(model(IDS).logits, adapted, 1e-4)
    bl.unmerge(model)
    assert model.lm_head.base.weight is model.get_input_embeddings().weight
    bl.merge_and_unload(model)
    assert torch.equal(model.get_input_embeddings().weight, embedding)
    close(model(IDS).logits, adapted, 1e-4)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()
    close(again(IDS).logits, adapted, 1e-4)
