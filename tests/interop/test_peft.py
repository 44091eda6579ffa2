"""save_adapter: PEFT and transformers load the folder, and compute the same."""

import copy
import json

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, BertConfig, BertForMaskedLM

import beamlora_mini as bl
from tests.helpers import IDS, close, every_method, move_, tiny_gpt2
from tests.layers.test_targets import classifier


def trained(model, method):
    bl.attach(model, method)
    move_(model)
    if isinstance(method, bl.ReLoRA):
        for layer in bl.adapter_layers(model).values():
            layer.restart(torch.Generator())
        move_(model)
    return model.eval()


@every_method
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@torch.no_grad()
def test_peft_computes_the_same(loaded_tiny, tmp_path, method, kind):
    clean = copy.deepcopy(loaded_tiny[0]) if kind == "llama" else tiny_gpt2()
    model = trained(copy.deepcopy(clean), method)
    bl.save_adapter(model, tmp_path)
    before, wanted = clean(IDS).logits, model(IDS).logits
    assert (wanted - before).abs().max() > 0.05
    loaded = peft.PeftModel.from_pretrained(clean, tmp_path)
    close(loaded(IDS).logits, wanted, 1e-5)
    close(loaded.merge_and_unload()(IDS).logits, wanted, 1e-4)


@every_method
@torch.no_grad()
def test_save_pretrained_with_adapters_on_is_what_transformers_loads(tiny, tmp_path, method):
    model = trained(tiny[0], method)
    model.save_pretrained(tmp_path)
    assert not (tmp_path / "config.json").exists()
    close(AutoModelForCausalLM.from_pretrained(tmp_path)(IDS).logits, model(IDS).logits, 1e-5)


@torch.no_grad()
def test_adapters_on_a_part_are_found_by_the_whole(tiny, tmp_path):
    model, _ = tiny
    clean = copy.deepcopy(model)
    trained(model.model, bl.LoRA(r=2))
    copy.deepcopy(model).save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(clean, tmp_path)
    close(loaded(IDS).logits, model(IDS).logits, 1e-5)
    bl.detach(model.model)
    model.save_pretrained(tmp_path / "whole")
    assert (tmp_path / "whole" / "model.safetensors").exists()


@torch.no_grad()
def test_a_head_that_is_trained_whole_is_in_the_folder(tmp_path):
    clean = classifier("bert").eval()
    model = trained(copy.deepcopy(clean), bl.LoRA(r=2))
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["modules_to_save"] == [
        "classifier"
    ]
    assert (model(IDS).logits - clean(IDS).logits).abs().max() > 0.01
    close(peft.PeftModel.from_pretrained(clean, tmp_path)(IDS).logits, model(IDS).logits, 1e-6)


@torch.no_grad()
def test_a_model_that_does_not_generate_is_not_called_one_that_does(tmp_path):
    sizes = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 24}
    config = BertConfig(**sizes, num_hidden_layers=1, num_attention_heads=2)
    clean = BertForMaskedLM(config).eval()
    model = trained(copy.deepcopy(clean), bl.LoRA(r=2))
    bl.save_adapter(model, tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["task_type"] is None
    close(peft.PeftModel.from_pretrained(clean, tmp_path)(IDS).logits, model(IDS).logits, 1e-6)


def test_what_the_folder_can_not_hold_is_refused(tiny, tmp_path):
    model, _ = tiny
    with pytest.raises(ValueError, match="no adapters"):
        bl.save_adapter(model, tmp_path / "new")
    bl.attach(model, bl.LoRA(r=2))
    model.model.norm.weight.requires_grad_(True)
    with pytest.raises(ValueError, match=r"model\.norm\.weight is trained beside"):
        model.save_pretrained(tmp_path / "new")
    with pytest.raises(ValueError, match="push_to_hub=True"):
        model.save_pretrained(tmp_path / "new", push_to_hub=True)
    assert not (tmp_path / "new").exists()


@torch.no_grad()
def test_a_vocabulary_grows_under_adapters_unless_one_is_on_the_head(tiny):
    model, _ = tiny
    size = model.get_input_embeddings().num_embeddings
    bl.attach(model, bl.LoRA(r=2))
    model.resize_token_embeddings(size + 3)
    assert model(IDS).logits.shape[-1] == size + 3
    bl.detach(model)
    bl.attach(model, bl.LoRA(r=2, target_modules=["lm_head"]))
    with pytest.raises(RuntimeError, match="resize first"):
        model.resize_token_embeddings(size + 4)
    assert model.get_input_embeddings().num_embeddings == size + 3
