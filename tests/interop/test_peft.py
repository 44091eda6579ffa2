"""save_adapter: PEFT and transformers load the folder, and compute the same."""

import copy
import json

import peft
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForMaskedLM,
    RobertaConfig,
    RobertaForSequenceClassification,
    Trainer,
    TrainingArguments,
)

import beamlora_mini as bl
from tests.helpers import IDS, adapter_state, close, every_method, move_, tiny_gpt2
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
    assert (model(IDS).logits - clean(IDS).logits).abs().max() > 0.001
    close(peft.PeftModel.from_pretrained(clean, tmp_path)(IDS).logits, model(IDS).logits, 1e-6)


@torch.no_grad()
def test_a_model_that_does_not_generate_is_not_called_one_that_does(tmp_path):
    sizes = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 24}
    config = BertConfig(**sizes, num_hidden_layers=1, num_attention_heads=2)
    torch.manual_seed(0)
    clean = BertForMaskedLM(config).eval()
    model = trained(copy.deepcopy(clean), bl.LoRA(r=2))
    bl.save_adapter(model, tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["task_type"] is None
    close(peft.PeftModel.from_pretrained(clean, tmp_path)(IDS).logits, model(IDS).logits, 1e-6)


@torch.no_grad()
def loads_alike(clean, model, folder):
    model.save_pretrained(folder)
    assert (model(IDS).logits - clean(IDS).logits).abs().max() > 0.001
    close(peft.PeftModel.from_pretrained(clean, folder)(IDS).logits, model(IDS).logits, 1e-5)
    return json.loads((folder / "adapter_config.json").read_text())


@pytest.mark.parametrize("names", [["embed_tokens"], ["embed_tokens", "lm_head"], ["norm"]])
def test_what_is_trained_whole_is_in_the_folder_and_so_is_what_is_tied_to_it(tiny, tmp_path, names):
    model, _ = tiny
    clean = copy.deepcopy(model)
    config = loads_alike(clean, trained(model, bl.LoRA(r=2, modules_to_save=names)), tmp_path)
    assert ("lm_head" in config["modules_to_save"]) == (names != ["norm"])


def test_a_head_that_is_partly_adapted_or_frozen(tmp_path):
    sizes = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
    torch.manual_seed(0)
    clean = RobertaForSequenceClassification(RobertaConfig(**sizes, num_attention_heads=2)).eval()
    model = trained(copy.deepcopy(clean), bl.LoRA(r=2, target_modules=["query", "dense"]))
    assert "classifier.dense" in bl.adapter_layers(model)
    model.classifier.out_proj.requires_grad_(True)
    config = loads_alike(copy.deepcopy(clean), model, tmp_path / "both")
    assert config["modules_to_save"] == ["classifier.out_proj"]
    clean.requires_grad_(False)
    config = loads_alike(clean, trained(copy.deepcopy(clean), bl.LoRA(r=2)), tmp_path / "frozen")
    assert config["modules_to_save"] is None


def test_ranks_and_strengths_that_differ_are_patterns(tiny, tmp_path):
    model, _ = tiny
    clean = copy.deepcopy(model)
    other = copy.deepcopy(clean)
    layers = list(bl.attach(model, bl.IncreLoRA(r=1, target_r=4)).values())
    for layer in layers[::2]:
        layer.grow(torch.Generator().manual_seed(0))
    move_(model)
    config = loads_alike(copy.deepcopy(clean), model.eval(), tmp_path / "grown")
    assert len(config["rank_pattern"]) == len(config["alpha_pattern"]) == 14
    bl.attach(other.model.layers[0], bl.LoRA(r=2, lora_alpha=2))
    bl.attach(other.model.layers[1], bl.LoRA(r=2, lora_alpha=64))
    move_(other)
    config = loads_alike(copy.deepcopy(clean), other, tmp_path / "strengths")
    assert {config["lora_alpha"], *config["alpha_pattern"].values()} == {2, 64}
    bl.detach(other.model.layers[1])
    bl.attach(other.model.layers[1], bl.DoRA(r=2))
    with pytest.raises(ValueError, match="DoRA and other adapters"):
        bl.save_adapter(other, tmp_path / "mixed")


def test_conv1d_is_said_to_lie_the_other_way_round(tmp_path):
    bl.save_adapter(trained(tiny_gpt2(), bl.LoRA(r=2)), tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["fan_in_fan_out"] is True


def test_what_the_folder_can_not_hold_is_refused(tiny, tmp_path):
    model, _ = tiny
    with pytest.raises(ValueError, match="no adapters"):
        bl.save_adapter(model, tmp_path / "new")
    layer = bl.attach(model, bl.LoRA(r=2))["model.layers.0.self_attn.q_proj"]
    with pytest.raises(ValueError, match="push_to_hub=True"):
        model.save_pretrained(tmp_path / "new", push_to_hub=True)
    model.save_pretrained(tmp_path / "new", is_main_process=False)
    layer.base.weight.requires_grad_(True)
    with pytest.raises(ValueError, match=r"q_proj\.weight is trained under an adapter"):
        model.save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("method", [bl.LoRA(r=2), bl.BeamLoRA(r=2)], ids=["lora", "beamlora"])
def test_transformers_trainer_resumes_an_adapted_model(loaded_tiny, tmp_path, method):
    rows = [{"input_ids": IDS[0], "labels": IDS[0]}] * 16
    finals = []
    for resume in (False, True):
        model = copy.deepcopy(loaded_tiny[0])
        torch.manual_seed(0)
        bl.attach(model, method)
        settings = TrainingArguments(
            str(tmp_path / "run"), max_steps=4, save_steps=2, per_device_train_batch_size=2,
            learning_rate=1e-2, report_to=[], use_cpu=True, disable_tqdm=True, seed=0,
        )  # fmt: skip
        start = str(tmp_path / "run" / "checkpoint-2") if resume else None
        Trainer(model, settings, train_dataset=rows).train(resume_from_checkpoint=start)
        finals.append(adapter_state(model))
    for name, tensor in finals[0].items():
        close(finals[1][name], tensor, 1e-6)


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
