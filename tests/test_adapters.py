"""attach, detach, merge: what they do to a model, and what they refuse."""

import copy
import re

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

import beamlora_mini as bl
from beamlora_mini.layers import attached_method, low_rank_linear


def randomize_(model: nn.Module) -> None:
    """Move B away from zero, so that the adapter changes the function."""
    for layer in bl.adapter_layers(model).values():
        nn.init.normal_(layer.lora_B, std=0.1)


def same(a, b, tolerance=1e-6):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.fixture
def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4, bias=False))


@pytest.fixture
def gpt2():
    torch.manual_seed(0)
    config = GPT2Config(n_layer=2, n_embd=32, n_head=4, vocab_size=50, n_positions=32)
    return GPT2LMHeadModel(config).eval()


IDS = torch.arange(1, 21).reshape(2, 10)


def test_attach_starts_from_the_base_function_and_freezes_the_rest(tiny):
    model, _ = tiny
    before = model(IDS).logits
    layers = bl.attach(model, bl.LoRA(r=4))
    assert len(layers) == 4 * 7 and layers == bl.adapter_layers(model)
    assert torch.equal(model(IDS).logits, before)
    trainable = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trainable == {f"{n}.lora_{x}" for n in layers for x in "AB"}
    expected = sum(4 * (la.in_features + la.out_features) for la in layers.values())
    assert bl.count_parameters(model)[0] == expected


def test_all_linear_leaves_the_head_alone_and_counts_tied_weights_once(tiny):
    model, _ = tiny
    total = bl.count_parameters(model)[1]
    assert model.lm_head.weight is model.get_input_embeddings().weight
    layers = bl.attach(model, bl.LoRA(r=1))
    assert type(model.lm_head) is nn.Linear and "lm_head" not in layers
    assert bl.count_parameters(model)[1] - bl.count_parameters(model)[0] == total


@pytest.mark.parametrize(
    ("targets", "pattern"),
    [
        (["q_proj", "v_proj"], r".*\.(q|v)_proj"),
        (["self_attn.o_proj"], r".*\.o_proj"),
        (["model.layers.1.mlp.up_proj"], r"model\.layers\.1\.mlp\.up_proj"),
        (r".*\.layers\.[02]\..*_proj", r".*\.layers\.[02]\..*_proj"),
    ],
)
def test_targets_by_ending_and_by_regex(tiny, targets, pattern):
    model, _ = tiny
    linear = [n for n, m in model.named_modules() if type(m) is nn.Linear]
    layers = bl.attach(model, bl.LoRA(r=2, target_modules=targets))
    assert list(layers) == [n for n in linear if re.fullmatch(pattern, n)]


@pytest.mark.parametrize(
    ("targets", "kind", "words"),
    [
        (["q_porj"], ValueError, ["q_porj", "q_proj"]),
        (["q_proj", "nothing"], ValueError, ["nothing", "down_proj"]),
        ("q_proj", ValueError, ["q_proj", "regular expression"]),
        (["self_attn"], TypeError, ["self_attn", "LlamaAttention", "Linear"]),
        (["embed_tokens"], TypeError, ["embed_tokens", "Embedding"]),
    ],
)
def test_unknown_targets_name_the_closest_and_change_nothing(tiny, targets, kind, words):
    model, _ = tiny
    flags = [p.requires_grad for p in model.parameters()]
    modules = list(model.modules())
    with pytest.raises(kind) as error:
        bl.attach(model, bl.LoRA(target_modules=targets))
    assert all(word in str(error.value) for word in words)
    assert list(model.modules()) == modules
    assert [p.requires_grad for p in model.parameters()] == flags


def test_a_layer_that_fails_to_build_leaves_the_model_alone(mlp):
    class Broken(bl.LoRA):
        def wrap(self, base):
            if base.in_features == 5:
                raise ValueError("r too large")
            return super().wrap(base)

    with pytest.raises(ValueError, match="r too large"):
        bl.attach(mlp, Broken(r=2))
    assert not bl.adapter_layers(mlp) and all(p.requires_grad for p in mlp.parameters())


@pytest.mark.parametrize("where", ["model", "part", "layer"])
def test_repeated_and_nested_attach_are_refused(tiny, where):
    model, _ = tiny
    layers = bl.attach(model, bl.LoRA(r=2, target_modules=["q_proj"]))
    place = {
        "model": model,
        "part": model.model.layers[0].self_attn,
        "layer": next(iter(layers.values())),
    }[where]
    with pytest.raises(ValueError, match="already has"):
        bl.attach(place, bl.LoRA(r=2))
    assert list(bl.adapter_layers(model)) == list(layers)


def test_a_part_with_adapters_makes_the_whole_refuse_and_detach_finds_it(tiny):
    model, _ = tiny
    bl.attach(model.model.layers[1], bl.LoRA(r=2))
    with pytest.raises(ValueError, match=r"already has 7 adapters.*model\.layers\.1"):
        bl.attach(model, bl.LoRA(r=2))
    bl.detach(model)
    assert not bl.adapter_layers(model) and all(p.requires_grad for p in model.parameters())


def test_detach_restores_modules_flags_and_function(tiny):
    model, _ = tiny
    model.model.norm.weight.requires_grad_(False)
    before, modules = model(IDS).logits, list(model.modules())
    flags = [p.requires_grad for p in model.parameters()]
    bl.attach(model, bl.LoRA(r=2))
    randomize_(model)
    assert not torch.equal(model(IDS).logits, before)
    bl.detach(model)
    assert list(model.modules()) == modules and attached_method(model) is None
    assert [p.requires_grad for p in model.parameters()] == flags
    assert torch.equal(model(IDS).logits, before)
    with pytest.raises(ValueError, match="no adapters"):
        bl.detach(model)


def test_merge_keeps_the_function_and_unmerge_is_exact(tiny):
    model, _ = tiny
    bl.attach(model, bl.LoRA(r=4))
    randomize_(model)
    adapted = model(IDS).logits
    state = {n: t.clone() for n, t in model.state_dict().items()}
    bl.merge(model)
    bl.merge(model)
    same(model(IDS).logits, adapted, 1e-4)
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
    same(model(IDS).logits, adapted, 1e-4)


def test_a_tied_head_can_be_adapted_without_moving_the_embedding(tiny, tmp_path):
    model, _ = tiny
    embedding = model.get_input_embeddings().weight.clone()
    bl.attach(model, bl.LoRA(r=4, target_modules=["lm_head"]))
    randomize_(model)
    adapted = model(IDS).logits
    bl.merge(model)
    same(model(IDS).logits, adapted, 1e-4)
    bl.unmerge(model)
    assert model.lm_head.base.weight is model.get_input_embeddings().weight
    bl.merge_and_unload(model)
    assert torch.equal(model.get_input_embeddings().weight, embedding)
    same(model(IDS).logits, adapted, 1e-4)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()
    same(again(IDS).logits, adapted, 1e-4)


def test_one_module_in_two_places_gets_one_adapter():
    shared = nn.Linear(4, 4)
    model = nn.ModuleDict({"first": shared, "second": nn.Sequential(shared, nn.Linear(4, 4))})
    layers = bl.attach(model, bl.LoRA(r=2))
    assert list(layers) == ["first", "second.1"]
    assert model["first"] is model["second"][0] is layers["first"]
    bl.detach(model)
    assert model["first"] is shared and model["second"][0] is shared


def test_gpt2_conv1d(gpt2):
    before = gpt2(IDS).logits
    layers = bl.attach(gpt2, bl.LoRA(r=4))
    assert len(layers) == 2 * 4
    layer = layers["transformer.h.0.attn.c_attn"]
    assert layer.weight.shape == (96, 32) and layer.lora_A.shape == (4, 32)
    same(gpt2(IDS).logits, before)
    randomize_(gpt2)
    adapted = gpt2(IDS).logits
    assert not torch.allclose(adapted, before, atol=1e-3)
    bl.merge(gpt2)
    same(gpt2(IDS).logits, adapted, 1e-5)
    bl.merge_and_unload(gpt2)
    same(gpt2(IDS).logits, adapted, 1e-5)
    assert gpt2.transformer.h[0].attn.c_attn.weight.is_contiguous()


def test_multihead_attention_is_left_out_and_refused_by_name():
    model = nn.TransformerEncoderLayer(8, 2, 16)
    assert list(bl.attach(model, bl.LoRA(r=2))) == ["linear1", "linear2"]
    bl.detach(model)
    with pytest.raises(TypeError, match="MultiheadAttention"):
        bl.attach(model, bl.LoRA(r=2, target_modules=["out_proj"]))


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_the_fused_step_equals_plain_autograd(dropout, weighted, biased):
    torch.manual_seed(0)
    x, A, B = (torch.randn(*s).double().requires_grad_() for s in [(2, 7, 6), (3, 6), (5, 3)])
    W, b, grad = (torch.randn(*s).double() for s in [(5, 6), (5,), (2, 7, 5)])
    b = b if biased else None
    weights = torch.tensor([0.5, 2.0, 0.1]).double().requires_grad_() if weighted else None
    mask = (torch.rand(2, 7, 6) > dropout).double()
    dropped = x * mask if dropout else None
    leaves = [x, A, B] + ([weights] if weighted else [])
    y = low_rank_linear(x, W, b, A, B, 1.7, weights, x_adapter=dropped)
    z = (x if dropped is None else dropped) @ A.T
    plain = x @ W.T + (b if biased else 0) + 1.7 * (z * (weights if weighted else 1)) @ B.T
    same(y, plain, 1e-12)
    ours = torch.autograd.grad(y, leaves, grad, retain_graph=True)
    for got, wanted in zip(ours, torch.autograd.grad(plain, leaves, grad)):
        same(got, wanted, 1e-12)


def test_an_in_place_activation_may_follow():
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(inplace=True))
    bl.attach(model, bl.LoRA(r=2))
    model(torch.randn(3, 6)).sum().backward()
    model(torch.randn(2, 3, 6)).sum().backward()


def test_a_second_derivative_is_refused_rather_than_wrong():
    x, A, B, W = (torch.randn(*s) for s in [(4, 6), (3, 6), (5, 3), (5, 6)])
    y = low_rank_linear(x, W, None, A.requires_grad_(), B, 1.5)
    (grad,) = torch.autograd.grad(y.square().sum(), A, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def test_half_precision_base_keeps_the_adapter_in_float32():
    layer = next(iter(bl.attach(nn.Sequential(nn.Linear(8, 8).bfloat16()), bl.LoRA(r=2)).values()))
    assert layer.lora_A.dtype == torch.float32
    x = torch.randn(3, 8, dtype=torch.bfloat16, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert y.dtype == x.grad.dtype == torch.bfloat16 and layer.lora_B.grad.dtype == torch.float32


@pytest.mark.parametrize("name", ["tiny", "gpt2"])
def test_under_autocast(request, name):
    model = request.getfixturevalue(name)
    model = model[0] if isinstance(model, tuple) else model
    bl.attach(model, bl.LoRA(r=4))
    randomize_(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(IDS).logits
        loss = logits.float().square().mean()
    loss.backward()
    same(logits.float(), model(IDS).logits, 0.3)
    for layer in bl.adapter_layers(model).values():
        assert layer.lora_A.grad.dtype == torch.float32 and layer.lora_A.grad.abs().sum() > 0


def gradients(model):
    model.train()
    model.zero_grad()
    model(IDS, labels=IDS).loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("reentrant", [False, True])
def test_under_gradient_checkpointing(tiny, reentrant):
    model, _ = tiny
    bl.attach(model, bl.LoRA(r=4))
    randomize_(model)
    plain = gradients(model)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    if reentrant:  # it needs an input with a gradient, and the embedding is frozen
        model.enable_input_require_grads()
    checkpointed = gradients(model)
    assert plain.keys() == checkpointed.keys()
    for name, grad in plain.items():
        same(checkpointed[name], grad)


def test_under_deepcopy(tiny):
    model, _ = tiny
    bl.attach(model, bl.LoRA(r=4))
    randomize_(model)
    bl.merge(model)
    twin = copy.deepcopy(model)
    assert torch.equal(twin(IDS).logits, model(IDS).logits)
    bl.unmerge(twin)
    for layer in bl.adapter_layers(twin).values():
        nn.init.zeros_(layer.lora_B)
    assert not torch.equal(twin(IDS).logits, model(IDS).logits)
    bl.detach(twin)
    assert len(bl.adapter_layers(model)) == 28 and not bl.adapter_layers(twin)


def test_under_compile(mlp):
    bl.attach(mlp, bl.LoRA(r=2))
    randomize_(mlp)
    x = torch.randn(3, 6)
    compiled = torch.compile(mlp, fullgraph=True, backend="aot_eager")
    same(compiled(x), mlp(x))
    compiled(x).sum().backward()
    grads = [p.grad.clone() for p in mlp.parameters() if p.requires_grad]
    mlp.zero_grad()
    mlp(x).sum().backward()
    for grad, parameter in zip(grads, (p for p in mlp.parameters() if p.requires_grad)):
        same(grad, parameter.grad)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("r", 0), ("r", 2.0), ("r", True), ("lora_alpha", 0), ("lora_alpha", float("nan")),
        ("lora_alpha", "16"), ("lora_dropout", 1.0), ("lora_dropout", -0.1),
        ("target_modules", []), ("target_modules", [1]), ("target_modules", "(["),
    ],
)  # fmt: skip
def test_bad_settings_name_the_argument_and_the_value(argument, value):
    with pytest.raises(ValueError) as error:
        bl.LoRA(**{argument: value})
    assert argument in str(error.value) and repr(value) in str(error.value)


def test_rslora_scales_by_the_root():
    assert bl.LoRA(r=16, lora_alpha=32).scaling == 2
    assert bl.LoRA(r=16, lora_alpha=32, use_rslora=True).scaling == 8


def test_rank_importance_is_the_norm_of_each_ranks_matrix(mlp):
    layer = bl.attach(mlp, bl.LoRA(r=3))["0"]
    randomize_(mlp)
    one_by_one = [torch.outer(layer.lora_B[:, i], layer.lora_A[i]).norm() for i in range(3)]
    same(layer.rank_importance(), torch.stack(one_by_one).detach())
