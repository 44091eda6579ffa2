"""Layers whose weight other code reads instead of calling them."""

import pytest
import torch
from torch import nn
from transformers import MambaConfig, MambaForCausalLM

import beamlora_mini as bl
from tests.helpers import FAMILY, close, every_method, move_, net


def encoder():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    return nn.TransformerEncoder(layer, 1)


def mamba():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "vocab_size": 64}
    return MambaForCausalLM(MambaConfig(**sizes, state_size=4, time_step_rank=4))


@every_method
def test_torchs_encoder_is_the_adapted_one_in_every_mode(method):
    model = encoder()
    layers = bl.attach(model, method)
    assert {name.rsplit(".", 1)[1] for name in layers} == {"out_proj", "linear1", "linear2"}
    move_(model)
    x = torch.randn(2, 5, 16)
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    with torch.no_grad():
        seen = model.train()(x, src_key_padding_mask=padding)[~padding]
        close(model.eval()(x, src_key_padding_mask=padding)[~padding], seen, 1e-4)
    trained = model.train()(x)
    trained.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters() if p.requires_grad)
    with torch.no_grad():
        close(model.eval()(x), trained, 1e-4)
        bl.merge(model)
        close(model(x), trained, 1e-4)
        bl.unmerge(model)
        merged = bl.merge_and_unload(model)
        close(merged(x), trained, 1e-4)
    assert type(merged.layers[0].self_attn.out_proj) is not nn.Linear


@every_method
def test_a_state_space_model_learns_in_all_its_layers_and_merges(method):
    model = mamba()
    assert any(name.endswith("dt_proj") for name in bl.attach(model, method))
    move_(model)
    x = torch.arange(14).reshape(2, 7)
    model.train()(x, labels=x).loss.backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters() if p.requires_grad)
    with torch.no_grad():
        before = model.eval()(x).logits
        close(bl.merge_and_unload(model)(x).logits, before, 1e-4)


def test_increlora_scores_a_layer_that_is_read_as_one_that_is_called():
    taken = []
    x = torch.randn(6, 24)
    for read in (False, True):
        model = net()
        layer = bl.attach(model, FAMILY["increlora"])["0"]
        move_(model)
        layer.gradient.on = True
        y = nn.functional.linear(x, layer.weight, layer.bias) if read else layer(x)
        if read:  # at a second place too, which adds nothing
            y = y + 0 * nn.functional.linear(x, layer.weight)
        y.square().sum().backward()
        taken.append(layer.take_score())
    assert taken[0] > 0
    close(taken[1] / taken[0], torch.tensor(1.0), 1e-5)


def test_to_ask_for_the_dtype_computes_nothing(monkeypatch):
    layer = bl.attach(net(dtype=torch.bfloat16), bl.LoRA(r=2))["0"]
    with monkeypatch.context() as patch, torch.no_grad():
        patch.setattr(type(layer), "delta_weight", None)
        weight = layer.weight
        assert isinstance(weight, torch.Tensor) and weight.dtype is torch.bfloat16
        assert weight.shape == (40, 24) and weight.size(0) == len(weight) == 40
        assert weight.device == layer.base.weight.device and weight.ndim == 2
    move_(layer)
    with torch.no_grad():
        assert torch.equal(weight + 0, layer.merged())
    assert str(weight).startswith("WeightToRead(")


def test_who_goes_round_torchs_functions_does_not_get_the_frozen_weight():
    layer = bl.attach(net(), bl.LoRA(r=2))["0"]
    with torch.no_grad(), torch._C.DisableTorchFunctionSubclass():
        assert layer.weight.data_ptr() == 0
        with pytest.raises(RuntimeError, match="data pointer"):
            layer.weight.untyped_storage().data_ptr()


def test_a_weight_read_while_merged_is_the_merged_one_and_does_not_train():
    model = net()
    layer = bl.attach(model, bl.LoRA(r=2))["0"]
    move_(model)
    bl.merge(model)
    with torch.no_grad():
        assert torch.equal(layer.weight + 0, layer.merged_weight)
    with pytest.raises(RuntimeError, match=r"unmerge\(model\)"):
        layer.train().weight.sum()


def test_a_head_with_an_adapter_can_be_tied_again(tiny):
    model, _ = tiny
    layer = bl.attach(model, bl.LoRA(r=2, target_modules=["lm_head"]))["lm_head"]
    model.tie_weights()
    assert model.lm_head is layer and layer.base.weight is model.get_input_embeddings().weight


class Product(torch.autograd.Function):
    """As fused kernels are written."""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return x @ weight.T

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        return gradient @ weight, gradient.T @ x


@every_method
def test_a_function_with_a_backward_of_its_own_reaches_the_adapter(method):
    x, gradients = torch.randn(4, 24), []
    for product in (nn.functional.linear, Product.apply):
        layer = bl.attach(net(bias=False), method)["0"]
        move_(layer)
        y = product(x, layer.weight)
        y.square().sum().backward()
        with torch.no_grad():
            close(product(x, layer.weight), layer(x), 1e-5)
        gradients.append([p.grad for p in layer.parameters() if p.requires_grad])
    assert gradients[0] and all(g is not None and g.any() for g in gradients[1])
    close(gradients[1], gradients[0], 1e-4)
