"""bert2BERT: exact where every unit is copied equally often, and what else costs."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from beamlora_mini.growth import bert2bert
from tests.growth.models import BERT2BERT, TOKENS, build, exact, output, state_of, unchanged
from tests.helpers import close_in_size


@pytest.mark.parametrize("name", BERT2BERT)
def test_fpi_keeps_the_function_where_every_unit_is_copied_equally_often(name, tmp_path):
    model = build(name)
    before, state = output(model), state_of(model)
    grown = bert2bert(model, hidden_size=96, intermediate_size=101)
    config = grown.config
    assert (config.hidden_size, config.intermediate_size) == (96, 101)
    assert config.num_attention_heads == 12 and config.num_hidden_layers == 3
    assert grown.growth.is_uniform and grown.growth.deviation < exact(name)
    if model.get_output_embeddings() is None:
        before = before[..., grown.growth.maps.hidden]
    close_in_size(output(grown), before, exact(name))
    assert unchanged(model, state) and type(grown) is type(model) and not grown.training
    head, inputs = grown.get_output_embeddings(), grown.get_input_embeddings()
    tied = model.config.tie_word_embeddings and head is not None
    assert (head is not None and head.weight is inputs.weight) == tied
    grown.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()
    close_in_size(output(again), before, exact(name))
    if not name.startswith("bert"):
        assert again.config.head_dim == getattr(model.config, "head_dim", 8)


def test_fpi_in_float32():
    model = build("llama-tied", torch.float32)
    assert bert2bert(model, hidden_size=144).growth.deviation < 5e-6


@given(st.sampled_from(BERT2BERT), st.integers(40, 90), st.randoms(use_true_random=False))
@settings(max_examples=12, deadline=None)
def test_fpi_is_exact_for_any_inner_size_and_any_uniform_map(name, inner, random):
    model = build(name)
    hidden_map = [*range(48), *range(48)]
    random.shuffle(hidden_map)
    grown = bert2bert(model, hidden_size=96, intermediate_size=inner, hidden_map=hidden_map)
    assert grown.growth.maps.hidden.tolist() == hidden_map
    assert grown.growth.deviation < exact(name)


@given(st.lists(st.integers(0, 47), min_size=16, max_size=16))
@settings(max_examples=10, deadline=None)
def test_what_an_uneven_map_costs_is_the_norms_alone_and_is_reported(more):
    model = build("llama-tied")
    settings = {"hidden_size": 64, "num_attention_heads": 8, "hidden_map": [*range(48), *more]}
    grown = bert2bert(model, **settings, probe=TOKENS)
    change = output(grown) - output(model)
    assert not grown.growth.is_uniform
    assert grown.growth.max_deviation == pytest.approx(change.abs().max().item())
    assert grown.growth.deviation == pytest.approx((change.norm() / output(model).norm()).item())
    assert grown.growth.deviation > 1e-3
    with pytest.MonkeyPatch.context() as patch:  # without its mean, a norm is the law's
        patch.setattr(LlamaRMSNorm, "forward", lambda self, x: 0.1 * self.weight * x)
        assert bert2bert(model, **settings).growth.deviation < 1e-9


@pytest.mark.parametrize("name", BERT2BERT)
def test_aki_takes_the_added_units_from_the_next_layer(name):
    model = build(name)
    torch.manual_seed(1)
    fpi = bert2bert(model, hidden_size=96, intermediate_size=60)
    torch.manual_seed(1)
    aki = bert2bert(model, hidden_size=96, intermediate_size=60, mode="aki")
    assert aki.growth.mode == "aki" and aki.growth.deviation > 0.01
    wanted, got = fpi.state_dict(), aki.state_dict()
    layer, moved = re.compile(r"\.([01])\."), set()  # of three layers, all but the last
    for key, weight in got.items():
        if layer.search(key) is None or "norm" in key.lower():
            assert torch.equal(weight, wanted[key]), key
            continue
        following = wanted[layer.sub(lambda found: f".{int(found[1]) + 1}.", key)]
        old = 40 if len(weight) == 60 else len(weight) // 2
        assert torch.equal(weight[:old], wanted[key][:old])
        assert torch.equal(weight[old:], following[old:])
        moved.add(key)
    linear = [n for n, m in aki.named_modules() if isinstance(m, nn.Linear) and layer.search(n)]
    assert moved >= {f"{n}.weight" for n in linear} and len(linear) == 2 * (
        6 if name.startswith("bert") else 7
    )


def test_heads_are_copied_whole_and_keys_stay_with_their_queries():
    model = build("llama-grouped")
    grown = bert2bert(model, num_attention_heads=8)
    config = grown.config
    assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (8, 4, 8)
    close_in_size(output(grown), output(model), exact("llama"))  # the residual stream has not grown
    groups = grown.growth.maps.groups
    old, new = model.model.layers[0].self_attn, grown.model.layers[0].self_attn
    keys = old.k_proj.weight.view(3, 8, 48)[groups]
    queries = old.q_proj.weight.view(3, 2, 8, 48)[groups]
    assert torch.equal(new.k_proj.weight.view(4, 8, 48), keys)
    assert torch.equal(new.q_proj.weight.view(4, 2, 8, 48), queries)


def test_depth_stacks_the_layers_again_and_reports_the_change():
    model = build("qwen2")
    grown = bert2bert(model, num_hidden_layers=5)
    assert grown.growth.layers == (0, 1, 2, 0, 1) and grown.growth.deviation > 0.1
    assert len(grown.config.layer_types) == grown.config.num_hidden_layers == 5
    a, b = grown.model.layers[0].mlp.up_proj.weight, grown.model.layers[3].mlp.up_proj.weight
    assert torch.equal(a, b) and a is not b and a.data_ptr() != b.data_ptr()
    assert grown.generate(TOKENS[:, :4], max_new_tokens=3, do_sample=False).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("bert", {"mode": "random"}, ["mode='random'", "'fpi' or 'aki'"]),
        ("bert", {"hidden_size": 40}, ["hidden_size=40", "at least 48"]),
        ("bert", {"hidden_size": 50}, ["hidden_size=50", "multiple of 8"]),
        ("bert", {"hidden_size": 96, "num_attention_heads": 6}, ["num_attention_heads=6", "12"]),
        ("llama-grouped", {"hidden_size": 72}, ["hidden_size=72", "multiple of 16"]),
        ("llama-grouped", {"num_attention_heads": 9}, ["num_attention_heads=9", "multiple of 2"]),
        ("llama-grouped", {"num_attention_heads": 10}, ["divides hidden_size=48"]),
        ("llama", {"intermediate_size": 39.5}, ["intermediate_size=39.5", "at least 40"]),
        ("llama", {"num_hidden_layers": 2}, ["num_hidden_layers=2", "at least 3"]),
        ("llama", {"hidden_map": [0] * 48}, ["hidden_map", "0 to 47"]),
        ("gpt2", {"hidden_size": 64}, ["model='gpt2'", "bert, llama, mistral, qwen2"]),
    ],
)
def test_bert2bert_says_what_it_supports(name, arguments, words):
    with pytest.raises(ValueError) as error:
        bert2bert(build(name), **arguments)
    assert all(word in str(error.value) for word in words), error.value
