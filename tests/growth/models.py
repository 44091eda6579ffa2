"""Small transformers of every family that can grow, and how their outputs are compared."""

import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

VOCABULARY = 50
SPECIAL = {"bos_token_id": 1, "eos_token_id": 2}
SIZES = {
    "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 6, "intermediate_size": 40,
    "vocab_size": VOCABULARY, **SPECIAL,
}  # fmt: skip
BUILD = {
    "bert": lambda: BertModel(BertConfig(**SIZES)),
    "bert-mlm": lambda: BertForMaskedLM(BertConfig(**SIZES)),
    "bert-mlm-untied": lambda: BertForMaskedLM(BertConfig(**SIZES, tie_word_embeddings=False)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
    "llama-tied": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=True)),
    "llama-grouped": lambda: LlamaForCausalLM(
        LlamaConfig(**SIZES, num_key_value_heads=3, attention_bias=True, mlp_bias=True)
    ),
    "llama-one-key": lambda: LlamaForCausalLM(
        LlamaConfig(**SIZES, num_key_value_heads=1, head_dim=16)
    ),
    "llama-no-head": lambda: LlamaModel(LlamaConfig(**SIZES, num_key_value_heads=2)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SIZES, num_key_value_heads=2)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES, num_key_value_heads=2)),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=VOCABULARY, n_positions=32, **SPECIAL)
    ),
    "gpt2-inner": lambda: GPT2LMHeadModel(
        GPT2Config(
            n_embd=32, n_layer=2, n_head=4, n_inner=72, vocab_size=VOCABULARY, n_positions=32,
            **SPECIAL,
        )
    ),
}  # fmt: skip
CAUSAL = [name for name in BUILD if not name.startswith("bert")]
BERT2BERT = [name for name in BUILD if not name.startswith("gpt2")]
TOKENS = torch.arange(3, 27).reshape(2, 12)


def build(name, dtype=torch.float64):
    """A model with weights large enough to matter, norms and biases included."""
    torch.manual_seed(0)
    model = BUILD[name]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return model.to(dtype)


def output(model, ids=TOKENS):
    return model(ids)[0]


def exact(name):
    """How exact a model in float64 can be: a Llama's norms compute in float32 all the same."""
    return 1e-10 if name.startswith(("bert", "gpt2")) else 5e-6


def state_of(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def unchanged(model, state):
    return all(torch.equal(t, state[name]) for name, t in model.state_dict().items())
