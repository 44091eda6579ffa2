"""load_model: what it loads, and what it says when it can't."""

import copy
import json
import shutil
from pathlib import Path

import gguf
import pytest
import torch
import transformers

import beamlora_mini as bl
from beamlora_mini import models


def test_tiny_is_shipped(tiny):
    model, tokenizer = tiny
    assert 0.7e6 < bl.count_parameters(model)[1] < 0.9e6
    assert model.tokenizer is not None and not model.training
    assert tokenizer.decode(tokenizer("46+12=")["input_ids"]) == "46+12="


def test_smollm2_comes_from_the_installed_package(smollm2):
    model, tokenizer = smollm2
    assert models.find_smollm2() is not None
    assert bl.count_parameters(model)[1] == 134_515_008
    assert model.dtype == torch.float32 and tokenizer.chat_template
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    assert tokenizer.decode(model(ids).logits[0, -1].argmax()) == " Paris"


def test_smollm2_is_an_ordinary_model(smollm2, tmp_path):
    """Nothing of the file's quantization stays: its first two layers can be saved and loaded again."""
    model = copy.deepcopy(smollm2[0])
    left = ("hf_quantizer", "quantization_method", "is_quantized", "quantization_config")
    assert not any(getattr(m, name, None) for m in (model, model.config) for name in left)
    model.model.layers = model.model.layers[:2]
    model.config.num_hidden_layers = 2
    model.save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    again, _ = bl.load_model(tmp_path, device="cpu")
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(again(ids).logits, model(ids).logits)


def test_a_file_is_read_once_while_it_is_loaded():
    arguments = gguf.MODEL_ARCH.LLAMA, 2
    with models._gguf_asked_once():
        assert gguf.get_tensor_name_map(*arguments) is gguf.get_tensor_name_map(*arguments)
    assert gguf.get_tensor_name_map(*arguments) is not gguf.get_tensor_name_map(*arguments)


def test_loading_goes_without_the_cache_where_it_does_not_fit(monkeypatch):
    def load(*_, **__):
        if not isinstance(gguf.GGUFReader, type):
            raise TypeError("isinstance() arg 2 must be a type")
        return "model", {}

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda *_, **__: "tokenizer")
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", load)
    loaded = models._from_pretrained("folder", {"gguf_file": "a.gguf"}, torch.float32)
    assert loaded == ("tokenizer", "model", {})


def test_smollm2_falls_back_to_the_hub(monkeypatch):
    monkeypatch.setattr(models, "find_smollm2", lambda: None)
    assert models._source("smollm2") == ("HuggingFaceTB/SmolLM2-135M-Instruct", {})


def test_dtype_and_device_can_be_forced():
    model, _ = bl.load_model("tiny", device="cpu", dtype="bfloat16")
    assert model.dtype == torch.bfloat16 and model.device.type == "cpu"
    for dtype in ("float99", "int8", torch.int32):
        with pytest.raises(ValueError, match="dtype="):
            bl.load_model("tiny", dtype=dtype)
    for device in ("nonsense", "cuda:99"):
        with pytest.raises(ValueError, match=f"device='{device}'"):
            bl.load_model("tiny", device=device)


def test_a_folder_by_name(tiny, tmp_path):
    model, tokenizer = tiny
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again, _ = bl.load_model(str(tmp_path), device="cpu")
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(again(ids).logits, model(ids).logits)


def test_missing_folders_and_foreign_names(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        bl.load_model(str(tmp_path))
    names = ("no-such-model", str(tmp_path / "nothing"), "a/b/c", "./here/there", "~/model")
    for name in (*names, Path("missing")):
        with pytest.raises(FileNotFoundError, match=f"name='{name}'.*no such folder"):
            bl.load_model(name)


def test_no_network_is_one_clear_line():
    with pytest.raises(OSError, match="not on this machine and could not be fetched") as error:
        bl.load_model("nobody/no-such-model")
    assert "\n" not in str(error.value) and "nobody/no-such-model" in str(error.value)


@pytest.mark.parametrize("damage", ["cut", "other shape", "no weights"])
def test_corrupt_files_are_one_clear_line(tmp_path, damage):
    folder = tmp_path / "copy"
    shutil.copytree(models.data_folder() / "tiny", folder)
    weights = folder / "model.safetensors"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:100_000])
    elif damage == "no weights":
        weights.unlink()
    else:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 5}))
    with pytest.raises(OSError, match="load_model") as error:
        bl.load_model(str(folder))
    assert "\n" not in str(error.value)


def test_a_corrupt_gguf_is_one_clear_line(tmp_path, monkeypatch):
    (tmp_path / models.SMOLLM2_FILE).write_bytes(b"GGUF" + bytes(200))
    monkeypatch.setattr(models, "find_smollm2", lambda: tmp_path / models.SMOLLM2_FILE)
    before = gguf.GGUFReader, gguf.get_tensor_name_map
    with pytest.raises(OSError, match="load_model") as error:
        bl.load_model("smollm2")
    assert "\n" not in str(error.value)
    assert (gguf.GGUFReader, gguf.get_tensor_name_map) == before
