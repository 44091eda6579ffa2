"""Growing networks: what must stay the same, what may not, and what is refused."""

import copy
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)
from transformers.models.llama.modeling_llama import LlamaRMSNorm

import beamlora_mini as bl
from beamlora_mini.growth import bert2bert, hyperclone, net2deeper, net2wider, units
from beamlora_mini.growth.net2net import insert_block

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
IDS = torch.arange(3, 27).reshape(2, 12)


def build(name, dtype=torch.float64):
    """A model with weights large enough to matter, norms and biases included."""
    torch.manual_seed(0)
    model = BUILD[name]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return model.to(dtype)


@torch.no_grad()
def output(model, ids=IDS):
    return model(ids)[0]


def exact(name):
    """How exact a model in float64 can be: a Llama's norms compute in float32 all the same."""
    return 1e-10 if name.startswith(("bert", "gpt2")) else 5e-6


def same(a, b, tolerance):
    """Equal to `tolerance`, meant relative to the tensor's size where that is above one."""
    size = b.detach().abs().max().clamp(min=1)
    torch.testing.assert_close(a / size, b / size, rtol=0, atol=tolerance)


def state_of(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def unchanged(model, state):
    return all(torch.equal(t, state[name]) for name, t in model.state_dict().items())


# Net2Net


@st.composite
def maps(draw, most=5):
    """(old, a map of old units onto some larger number that leaves none out)."""
    old = draw(st.integers(1, most))
    more = draw(st.lists(st.integers(0, old - 1), max_size=most))
    return old, draw(st.permutations([*range(old), *more]))


def pairs(old):
    """{name: (fc1, what is between, fc2, input)} for every supported pair."""
    flat = nn.Sequential(nn.MaxPool2d(2), nn.ReLU(), nn.Flatten())
    images = torch.randn(3, 2, 6, 6)
    return {
        "linear": (nn.Linear(3, old), nn.GELU(), nn.Linear(old, 4), torch.randn(2, 7, 3)),
        "no-bias": (nn.Linear(3, old, bias=False), nn.Tanh(), nn.Linear(old, 4), torch.randn(5, 3)),
        "conv": (
            nn.Conv2d(2, old, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(old, 3, 2), images,
        ),
        "conv-linear": (nn.Conv2d(2, old, 3), flat, nn.Linear(old * 4, 3), images),
    }  # fmt: skip


@pytest.mark.parametrize("kind", pairs(1))
@given(maps(), st.integers(0, 2**16))
@settings(max_examples=30, deadline=None)
def test_net2wider_keeps_the_function_for_any_map(kind, old_and_map, seed):
    old, mapping = old_and_map
    torch.manual_seed(seed)
    fc1, between, fc2, x = pairs(old)[kind]
    before = fc2(between(fc1(x)))
    wide1, wide2 = net2wider(fc1, fc2, len(mapping), mapping)
    assert type(wide1) is type(fc1) and type(wide2) is type(fc2)
    assert len(wide1.weight) == len(mapping)
    same(wide2(between(wide1(x))), before, 1e-6)
    assert torch.equal(wide1.weight, fc1.weight[torch.tensor(mapping)])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", ["linear", "conv"])
@given(maps(), st.integers(0, 2**16))
@settings(max_examples=15, deadline=None)
def test_net2wider_takes_a_batchnorm_along(kind, training, old_and_map, seed):
    old, mapping = old_and_map
    torch.manual_seed(seed)
    fc1, between, fc2, x = pairs(old)[kind]
    x = torch.randn(9, 3) if kind == "linear" else x
    norm = (nn.BatchNorm1d if kind == "linear" else nn.BatchNorm2d)(old)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    norm(fc1(x))  # running statistics
    wide1, wide_norm, wide2 = net2wider(fc1, fc2, len(mapping), mapping, norm=norm)
    for one in (norm, wide_norm):
        one.train(training)
    same(wide2(between(wide_norm(wide1(x)))), fc2(between(norm(fc1(x)))), 1e-5)
    assert wide_norm.num_features == len(mapping) == len(wide_norm.running_var)


def test_net2wider_draws_a_map_and_leaves_the_arguments_alone():
    torch.manual_seed(0)
    fc1, fc2 = nn.Linear(3, 4), nn.Linear(4, 2)
    fc1.weight.requires_grad_(False)
    before = state_of(fc1), state_of(fc2)
    wide1, wide2 = net2wider(fc1, fc2, 10)
    assert unchanged(fc1, before[0]) and unchanged(fc2, before[1])
    assert torch.equal(wide1.weight[:4], fc1.weight)  # the old units stay in front
    assert repr(wide1) == repr(nn.Linear(3, 10)) and repr(wide2) == repr(nn.Linear(10, 2))
    assert not wide1.weight.requires_grad and wide2.weight.requires_grad
    copies = (wide1.weight[:, None] == fc1.weight).all(-1).sum(0)
    assert sorted(copies.tolist()) == [2, 2, 3, 3]  # none twice before each has been copied once


def test_net2wider_noise_parts_the_copies_and_costs_exactness():
    torch.manual_seed(0)
    fc1, fc2, x = nn.Linear(30, 20), nn.Linear(20, 5), torch.randn(8, 30)
    mapping = [*range(20)] * 2
    wide1, wide2 = net2wider(fc1, fc2, 40, mapping, noise=0.01)
    assert torch.equal(wide1.weight[:20], fc1.weight)
    moved = (wide1.weight[20:] - fc1.weight) / fc1.weight.std()
    assert 0.008 < moved.std() < 0.012
    change = (wide2(wide1(x).relu()) - fc2(fc1(x).relu())).abs().max()
    assert 1e-5 < change < 0.1


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"fc1": nn.Conv1d(2, 4, 3)}, TypeError, ["Conv1d", "Conv2d to Linear"]),
        ({"fc2": nn.Conv2d(4, 2, 1)}, TypeError, ["fc1=Linear, fc2=Conv2d"]),
        ({"fc2": nn.Linear(8, 2)}, ValueError, ["fc2=8", "4 inputs"]),
        ({"fc1": nn.Conv2d(2, 4, 1, groups=2)}, ValueError, ["groups=[2, 1]"]),
        ({"fc1": nn.Conv2d(2, 4, 1), "fc2": nn.Linear(6, 2)}, ValueError, ["multiple of 4"]),
        ({"new_width": 3}, ValueError, ["new_width=3", "at least 4"]),
        ({"new_width": 6.0}, ValueError, ["new_width=6.0"]),
        ({"noise": -1}, ValueError, ["noise=-1"]),
        ({"mapping": [0, 1, 2, 3]}, ValueError, ["mapping", "6 integers"]),
        ({"mapping": [0, 1, 2, 2, 1, 0]}, ValueError, ["mapping", "each of the units 0 to 3"]),
        ({"mapping": [0, 1, 2, 3, 4, 0]}, ValueError, ["mapping"]),
        ({"mapping": [0, 1, 2, 3, 0.0, 1]}, ValueError, ["mapping"]),
        ({"norm": nn.LayerNorm(4)}, TypeError, ["LayerNorm", "BatchNorm1d"]),
        ({"norm": nn.BatchNorm1d(5)}, ValueError, ["norm=5", "4 features"]),
    ],
)
def test_net2wider_says_what_it_supports(change, kind, words):
    arguments = {"fc1": nn.Linear(3, 4), "fc2": nn.Linear(4, 2), "new_width": 6} | change
    if isinstance(arguments["fc1"], nn.Conv2d) and arguments["fc2"].in_features == 4:
        arguments["fc2"] = nn.Conv2d(4, 2, 1)
    with pytest.raises(kind) as error:
        net2wider(**arguments)
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.ReLU6(), nn.Hardtanh(), nn.Identity()])
def test_net2deeper_puts_an_identity_behind_an_idempotent_activation(activation):
    torch.manual_seed(0)
    for layer, x in (
        (nn.Linear(4, 6), 5 * torch.randn(9, 4)),
        (nn.Conv2d(2, 5, (3, 1), stride=2), 5 * torch.randn(2, 2, 9, 9)),
    ):
        deeper = net2deeper(layer, activation)
        before = activation(layer(x))
        same(activation(deeper(before)), before, 1e-6)
        activation(deeper(before)).sum().backward()
        assert deeper.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "activation", [None, nn.GELU(), nn.Tanh(), nn.LeakyReLU(), nn.PReLU(), nn.Softmax(-1)]
)
def test_net2deeper_refuses_other_activations(activation):
    with pytest.raises(ValueError, match=r"activation=.*f\(f\(x\)\) = f\(x\), such as nn\.ReLU"):
        net2deeper(nn.Linear(4, 6), activation)


def test_net2deeper_refuses_other_layers():
    with pytest.raises(TypeError, match="layer=LayerNorm: allowed are Linear, Conv2d and a Llama"):
        net2deeper(nn.LayerNorm(4), nn.ReLU())
    with pytest.raises(TypeError, match="BertLayer"):  # its norms come after the residual sum
        net2deeper(build("bert").encoder.layer[0])
    with pytest.raises(ValueError, match=r"kernel_size=\(2, 2\).*odd"):
        net2deeper(nn.Conv2d(2, 2, 2), nn.ReLU())


def test_net2deeper_silences_a_copied_block():
    model = build("llama-grouped")
    block = model.model.layers[1]
    silent = net2deeper(block)
    x, position = torch.randn(2, 7, 48).double(), torch.arange(7)[None]
    rotary = model.model.rotary_emb(x, position)
    assert not torch.allclose(block(x, position_embeddings=rotary), x)
    assert torch.equal(silent(x, position_embeddings=rotary), x)
    assert torch.equal(silent.mlp.up_proj.weight, block.mlp.up_proj.weight)
    assert silent.mlp.up_proj.weight is not block.mlp.up_proj.weight


@pytest.mark.parametrize("name", [n for n in CAUSAL if not n.startswith("gpt2")])
def test_insert_block(name, tmp_path):
    model = build(name)
    before, state = output(model), state_of(model)
    for index in range(3):
        deeper = insert_block(model, index)
        assert torch.equal(output(deeper), before)
        assert len(deeper.base_model.layers) == deeper.config.num_hidden_layers == 4
        assert [b.self_attn.layer_idx for b in deeper.base_model.layers] == [0, 1, 2, 3]
    if name != "llama-no-head":  # the cache knows the new layer
        made = deeper.generate(IDS[:, :4], max_new_tokens=5, do_sample=False)
        assert torch.equal(made, model.generate(IDS[:, :4], max_new_tokens=5, do_sample=False))
    with torch.no_grad():
        for parameter in deeper.parameters():
            parameter.zero_()
    assert unchanged(model, state)  # no tensor is shared
    for index in (3, -1, 1.0):
        with pytest.raises(ValueError, match=f"index={index}.*0 to 2"):
            insert_block(model, index)


def test_an_inserted_block_learns_from_its_output_projections_on():
    deeper = insert_block(build("llama"), 1)
    deeper(IDS, labels=IDS).loss.backward()
    moving = {n for n, p in deeper.model.layers[2].named_parameters() if p.grad.abs().sum() > 0}
    assert moving == {"self_attn.o_proj.weight", "mlp.down_proj.weight"}


# bert2BERT


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
    same(output(grown), before, exact(name))
    assert unchanged(model, state) and type(grown) is type(model) and not grown.training
    head, inputs = grown.get_output_embeddings(), grown.get_input_embeddings()
    tied = model.config.tie_word_embeddings and head is not None
    assert (head is not None and head.weight is inputs.weight) == tied
    grown.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()
    same(output(again), before, exact(name))
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
    grown = bert2bert(model, **settings, probe=IDS)
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
    same(output(grown), output(model), exact("llama"))  # the residual stream has not grown
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
    assert grown.generate(IDS[:, :4], max_new_tokens=3, do_sample=False).shape == (2, 7)


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


# HyperCloning


@pytest.mark.parametrize("snr_db", [None, 10.0])
@pytest.mark.parametrize("times", [2, 3])
@pytest.mark.parametrize("name", CAUSAL)
def test_hyperclone_keeps_the_logits(name, times, snr_db, tmp_path):
    model = build(name)
    before, state, old = output(model), state_of(model), model.config
    grown = hyperclone(model, times, snr_db)
    if model.get_output_embeddings() is None:
        before = before.repeat(1, 1, times)
    same(output(grown), before, exact(name))
    new = grown.config
    assert new.hidden_size == times * old.hidden_size
    assert new.num_attention_heads == times * old.num_attention_heads
    attention = next(m for n, m in grown.named_modules() if n.endswith(("self_attn", "attn")))
    assert attention.head_dim == getattr(old, "head_dim", 8)
    assert unchanged(model, state) and type(grown) is type(model)
    if (head := grown.get_output_embeddings()) is not None:
        assert not new.tie_word_embeddings
        assert head.weight is not grown.get_input_embeddings().weight
    grown.save_pretrained(tmp_path)
    again, report = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    same(output(again.eval()), before, exact(name))


@given(
    st.sampled_from([1, 3]), st.integers(1, 3), st.sampled_from([2, 4, 6]), st.integers(1, 9),
    st.sampled_from([2, 3]), st.booleans(), st.sampled_from([None, 0.0, 20.0]),
)  # fmt: skip
@settings(max_examples=15, deadline=None)
def test_hyperclone_for_any_grouping(groups, queries, head_dim, inner, times, tied, snr_db):
    config = LlamaConfig(
        hidden_size=18, num_hidden_layers=1, num_attention_heads=groups * queries,
        num_key_value_heads=groups, head_dim=head_dim, intermediate_size=inner,
        vocab_size=VOCABULARY, tie_word_embeddings=tied, initializer_range=0.3, **SPECIAL,
    )  # fmt: skip
    model = LlamaForCausalLM(config).double().eval()
    same(output(hyperclone(model, times, snr_db)), output(model), exact("llama"))


@pytest.mark.parametrize("snr_db", [None, 20.0])
@pytest.mark.parametrize("name", ["tiny", "smollm2"])
def test_hyperclone_of_real_models_in_float32(request, name, snr_db):
    model, tokenizer = request.getfixturevalue(name)
    ids = tokenizer("12+34=46" if name == "tiny" else "The capital of France is", return_tensors="pt").input_ids  # fmt: skip
    grown = hyperclone(model, snr_db=snr_db)
    same(output(grown, ids), output(model, ids), 1e-5)
    if name == "smollm2":
        assert 500e6 < bl.count_parameters(grown)[1] < 600e6
    made = grown.generate(ids, max_new_tokens=3, do_sample=False)
    assert torch.equal(made, model.generate(ids, max_new_tokens=3, do_sample=False))


@pytest.mark.parametrize("name", ["llama-grouped", "gpt2"])
@pytest.mark.parametrize("times", [2, 3])
def test_noise_has_the_size_it_should_and_sums_to_zero(name, times):
    model = build(name)
    clean, noisy = hyperclone(model, times), hyperclone(model, times, snr_db=12)
    axes = units.weight_axes(clean, ("llama", "gpt2"))
    compared = 0
    for key, weight in clean.state_dict().items():
        noise = noisy.state_dict()[key] - weight
        reads = [dim for dim, axis in enumerate(axes[key]) if axis.endswith("/")]
        if not reads:
            assert noise.abs().max() == 0, key
            continue
        decibels = 20 * torch.log10(weight.square().mean().sqrt() / noise.square().mean().sqrt())
        assert decibels == pytest.approx(12, abs=1e-6)
        assert noise.unflatten(reads[0], (times, -1)).sum(reads[0]).abs().max() < 1e-12
        compared += 1
    assert compared == 3 * 7 + 1 if name == "llama-grouped" else 2 * 4 + 1


def twin_difference(model, times=2):
    """How far the copies of each weight are apart, at most, relative to the weights' size."""
    apart = 0.0
    axes = units.weight_axes(model, ("llama", "gpt2"))
    for name, weight in model.state_dict().items():
        for dim, axis in enumerate(axes[name]):
            blocks = 3 if axis == "query key value" else 1
            if axis.strip("/"):
                first, *others = weight.unflatten(dim, (blocks, times, -1)).unbind(dim + 1)
                apart = max(apart, *((first - o).abs().max().item() for o in others))
    return apart


@pytest.mark.parametrize("name", ["llama-tied", "llama-grouped", "gpt2"])
def test_without_noise_copies_never_part_and_with_it_they_do(name):
    apart = {}
    for snr_db in (None, 30.0):
        torch.manual_seed(0)
        grown = hyperclone(build(name), snr_db=snr_db)
        optimizer = torch.optim.SGD(grown.parameters(), lr=0.05, momentum=0.9)
        for _ in range(5):
            optimizer.zero_grad()
            grown(IDS, labels=IDS).loss.backward()
            optimizer.step()
        with torch.no_grad():  # what the training did, without the noise that was there before
            torch.manual_seed(0)
            start = hyperclone(build(name), snr_db=snr_db).state_dict()
            for key, weight in grown.state_dict().items():
                weight -= start[key]
        apart[snr_db] = twin_difference(grown)
    assert apart[None] < 1e-5 and apart[30.0] > 1e-4, apart


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"times": 1}, ["times=1", "2 or 3"]),
        ({"times": 4}, ["times=4"]),
        ({"snr_db": float("nan")}, ["snr_db=nan", "finite"]),
        ({"snr_db": "20"}, ["snr_db='20'"]),
    ],
)
def test_hyperclone_says_what_it_supports(arguments, words):
    with pytest.raises(ValueError) as error:
        hyperclone(build("gpt2"), **arguments)
    assert all(word in str(error.value) for word in words), error.value


def test_training_mode_and_generation_config_come_along():
    model = build("llama").train()
    model.generation_config.max_new_tokens = 7
    for grown in (hyperclone(model), bert2bert(model, hidden_size=96), insert_block(model, 0)):
        assert grown.training and grown.generation_config.max_new_tokens == 7
        assert grown.generation_config is not model.generation_config
    assert copy.deepcopy(bert2bert(model, hidden_size=96)).growth.mode == "fpi"
