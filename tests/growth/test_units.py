"""What every growth of a transformer refuses, and what it takes along."""

import copy

import pytest
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    OPTConfig,
    OPTForCausalLM,
)

import beamlora_mini as bl
from beamlora_mini.growth import bert2bert, hyperclone
from beamlora_mini.growth.net2net import insert_block
from tests.growth.models import SIZES, build


def test_models_that_are_something_else_are_refused():
    with pytest.raises(ValueError, match="model='Linear'"):
        hyperclone(nn.Linear(3, 3))
    opt = OPTForCausalLM(OPTConfig(hidden_size=16, num_hidden_layers=1, ffn_dim=16, num_attention_heads=2, vocab_size=50, word_embed_proj_dim=16))  # fmt: skip
    with pytest.raises(ValueError, match="model='opt': allowed is .* llama, mistral, qwen2, gpt2"):
        hyperclone(opt)
    with pytest.raises(ValueError, match="model='bert'"):
        hyperclone(build("bert-mlm"))
    with pytest.raises(ValueError, match=r"classifier\.weight.*a plain bert"):
        bert2bert(BertForSequenceClassification(BertConfig(**SIZES)))
    adapted = build("llama")
    bl.attach(adapted, bl.LoRA(r=2))
    for grow in (hyperclone, bert2bert, lambda model: insert_block(model, 0)):
        with pytest.raises(ValueError, match=r"no adapters \(use detach or merge_and_unload\)"):
            grow(adapted)
    crossed = GPT2Config(n_embd=32, n_layer=1, n_head=4, vocab_size=50, add_cross_attention=True)
    with pytest.raises(ValueError, match="add_cross_attention=True"):
        hyperclone(GPT2LMHeadModel(crossed))
    without_pooler = BertModel(BertConfig(**SIZES), add_pooling_layer=False)
    with pytest.raises(ValueError, match=r"pooler\.dense"):
        bert2bert(without_pooler, hidden_size=96)


def test_training_mode_and_generation_config_come_along():
    model = build("llama").train()
    model.generation_config.max_new_tokens = 7
    for grown in (hyperclone(model), bert2bert(model, hidden_size=96), insert_block(model, 0)):
        assert grown.training and grown.generation_config.max_new_tokens == 7
        assert grown.generation_config is not model.generation_config
    assert copy.deepcopy(bert2bert(model, hidden_size=96)).growth.mode == "fpi"
