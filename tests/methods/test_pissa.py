"""PiSSA and MiLoRA: peft's numbers where peft has the method, else the definition."""

import copy

import peft
import pytest
import torch
from torch import nn

import beamlora_mini as bl
from beamlora_mini.methods.milora import minor_part
from beamlora_mini.methods.pissa import principal_part
from tests.helpers import ALPHA, IDS, R, close_in_size, move_, net


@pytest.mark.parametrize("niter", [None, 4])
def test_pissa_against_peft(tiny, niter):
    model, _ = tiny
    init = "pissa" if niter is None else f"pissa_niter_{niter}"
    config = peft.LoraConfig(
        r=R, lora_alpha=ALPHA, init_lora_weights=init, target_modules="all-linear"
    )
    twin = peft.get_peft_model(copy.deepcopy(model), config)
    for name, layer in bl.attach(model, bl.PiSSA(r=R, lora_alpha=ALPHA, niter=niter)).items():
        theirs = twin.base_model.model.get_submodule(name)
        if niter is not None:  # once more, from W and with our random directions
            theirs.base_layer.weight.data = layer.frozen_weight.detach().clone()
            torch.manual_seed(0)
            theirs.pissa_init("default", init)
        product = layer.scaling * layer.lora_B @ layer.lora_A
        close_in_size(product, theirs.get_delta_weight("default"), 1e-5)
        close_in_size(layer.residual, theirs.weight, 1e-5)
        close_in_size(layer.residual + product, layer.frozen_weight, 1e-6)
        close_in_size(theirs.weight + theirs.get_delta_weight("default"), layer.frozen_weight, 1e-6)


def test_pissa_has_pefts_gradients(tiny):
    """With peft's A, B and residual, the layers are one function and learn alike."""
    model, _ = tiny
    config = peft.LoraConfig(
        r=R, lora_alpha=ALPHA, init_lora_weights="pissa", target_modules="all-linear"
    )
    twin = peft.get_peft_model(copy.deepcopy(model), config)
    layers = bl.attach(model, bl.PiSSA(r=R, lora_alpha=ALPHA))
    model, twin = model.double(), twin.double()
    pairs = [(layer, twin.base_model.model.get_submodule(n)) for n, layer in layers.items()]
    with torch.no_grad():
        for layer, theirs in pairs:
            layer.initial_A.copy_(theirs.lora_A["default"].weight)
            layer.initial_B.copy_(theirs.lora_B["default"].weight)
            theirs.base_layer.weight.copy_(layer.residual)
            for mine, other in ((layer.lora_A, "lora_A"), (layer.lora_B, "lora_B")):
                weight = getattr(theirs, other)["default"].weight
                weight.add_(0.01 * torch.randn_like(weight))
                mine.copy_(weight)
    for each in (model, twin):
        each(IDS, labels=IDS).loss.backward()
    for layer, theirs in pairs:
        close_in_size(layer.lora_A.grad, theirs.lora_A["default"].weight.grad, 1e-6)
        close_in_size(layer.lora_B.grad, theirs.lora_B["default"].weight.grad, 1e-6)
        assert layer.lora_A.grad.abs().sum() > 0  # at once, unlike LoRA


def test_the_randomised_split_is_near_the_exact_one_and_always_the_same():
    torch.manual_seed(0)
    U, S, Vh = torch.linalg.svd(torch.randn(60, 40), full_matrices=False)
    weight = U * (S[0] * 0.8 ** torch.arange(40)) @ Vh
    state = torch.get_rng_state()
    U, S, Vh = principal_part(weight, 4, niter=4)
    assert torch.equal(torch.get_rng_state(), state)
    singular = torch.linalg.svdvals(weight)
    close_in_size(S / singular[0], singular[:4] / singular[0], 0.01)
    assert (weight - U * S @ Vh).norm() < 1.01 * singular[4:].norm()  # the least there is
    torch.manual_seed(5)
    assert all(torch.equal(a, b) for a, b in zip(principal_part(weight, 4, niter=4), (U, S, Vh)))


def test_milora_is_the_minor_part_and_pissa_the_principal_one():
    model = net()
    singular = {
        n: torch.linalg.svdvals(m.weight) for n, m in model.named_modules() if n in "02" and n
    }
    for method, part in ((bl.MiLoRA, slice(-R, None)), (bl.PiSSA, slice(R))):
        for name, layer in bl.attach(model, method(r=R, lora_alpha=ALPHA)).items():
            product = layer.scaling * layer.lora_B @ layer.lora_A
            values = singular[name]
            close_in_size(torch.linalg.svdvals(product)[:R], values[part], 1e-5)
            close_in_size(product.norm(), values[part].norm(), 1e-5)
            close_in_size(layer.residual + product, layer.frozen_weight, 1e-6)
            close_in_size(layer.rank_importance() * layer.scaling, values[part], 1e-5)
        bl.detach(model)
    U, S, Vh = minor_part(model[0].weight, 24)  # all there are: the whole weight
    close_in_size(U * S @ Vh, model[0].weight, 1e-6)


@pytest.mark.parametrize("method", [bl.PiSSA, bl.MiLoRA])
@pytest.mark.parametrize("lora_alpha", [1, 4, 64])
def test_a_plain_lora_of_twice_the_rank_is_the_same_update(method, lora_alpha):
    model = net()
    layers = bl.attach(model, method(r=R, lora_alpha=lora_alpha))
    move_(model)
    plain = net()
    twins = bl.attach(plain, bl.LoRA(r=2 * R, lora_alpha=2 * lora_alpha))
    for name, layer in layers.items():
        A, B = layer.plain()
        with torch.no_grad():
            twins[name].lora_A.copy_(A)
            twins[name].lora_B.copy_(B)
        close_in_size(twins[name].delta_weight(), layer.delta_weight(), 1e-5)
    x = torch.randn(5, 24)
    close_in_size(plain(x), model(x), 1e-5)


@pytest.mark.parametrize("method", [bl.PiSSA(r=13), bl.PiSSA(r=13, niter=2), bl.MiLoRA(r=13)])
def test_a_rank_above_the_smaller_side_is_refused(method):
    model = net()
    with pytest.raises(ValueError, match=r"r=13: allowed is an integer up to 12.*\(12, 40\)"):
        bl.attach(model, method)
    assert not bl.adapter_layers(model) and all(p.requires_grad for p in model.parameters())
    bl.attach(model, type(method)(r=12))


@pytest.mark.parametrize("method", [bl.PiSSA, bl.MiLoRA])
def test_dropout_is_warned_of_and_reaches_the_adapter_alone(method):
    with pytest.warns(UserWarning, match=r"lora_dropout=0.5.*does not start") as warned:
        method = method(r=R, lora_dropout=0.5)
    assert warned[0].filename == __file__
    model = nn.Sequential(nn.Linear(24, 40))
    x = torch.randn(50, 24)
    before = model(x)
    layer = bl.attach(model, method)["0"]
    assert not torch.allclose(model(x), before, atol=1e-4)
    torch.manual_seed(0)
    got = model(x)
    torch.manual_seed(0)
    dropped = layer.dropout(x)
    by_hand = x @ layer.residual.T + layer.bias
    close_in_size(got, by_hand + layer.scaling * dropped @ layer.lora_A.T @ layer.lora_B.T, 1e-5)
    model.eval()
    close_in_size(model(x), before, 1e-6)


@pytest.mark.parametrize("niter", [-1, 1.5, "4"])
def test_bad_niter(niter):
    with pytest.raises(ValueError, match=f"niter={niter!r}"):
        bl.PiSSA(niter=niter)
