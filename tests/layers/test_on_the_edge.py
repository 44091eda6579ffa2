"""Restarts, arithmetic and models in places where something had gone wrong, each once."""

import copy

import pytest
import torch
from sora import SoRA
from torch import nn

import beamlora_mini as bl
from beamlora_mini.methods.adalora import orthogonality
from beamlora_mini.ranks import reset_ranks_
from tests.helpers import FAMILY, close, every_method, net, run_of, step_

FIT = {"steps": 8, "lr": 4e-3, "batch_size": 4, "progress": False}


# --- restarts ---


@pytest.mark.parametrize("size", [1e-2, 1e-4])
def test_a_restart_beside_bfloat16_keeps_small_rounds(size):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64, bias=False).double().bfloat16())
    layer = bl.attach(model, bl.ReLoRA(r=4))["0"]
    base = copy.deepcopy(layer.base)
    layer.lora_B.data.normal_(std=size)
    x = torch.randn(500, 64).bfloat16()
    before, delta = model(x), layer.delta_weight()
    layer.restart(torch.Generator().manual_seed(0))
    close(layer.delta_weight(), delta, 1e-7)
    assert torch.equal(model(x), before)
    assert size < 1e-3 or not torch.equal(base(x), before)


def test_w_of_a_later_round_is_made_whatever_the_mode():
    runs = [run_of(FAMILY["relora"]) for _ in range(2)]
    for run in runs:
        step_(run, 20)
    saved = copy.deepcopy(runs[1].model.state_dict())
    runs[1].model.load_state_dict(saved)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        runs[1].model(torch.randn(3, 24))
    step_(runs[0], 3, first=20)
    step_(runs[1], 3, first=20)
    for a, b in zip(*(run.model.parameters() for run in runs), strict=True):
        assert torch.equal(a, b)


def test_an_unfrozen_weight_learns_after_a_restart_too():
    model = net()
    layer = bl.attach(model, bl.ReLoRA(r=2))["0"]
    layer.base.weight.requires_grad_(True)
    layer.lora_B.data.normal_()
    layer.restart(torch.Generator())
    model(torch.randn(5, 24)).square().sum().backward()
    assert layer.base.weight.grad.any() and layer.lora_B.grad.any()


# --- arithmetic ---


@every_method
def test_an_empty_batch(method):
    model = net()
    model[0].register_forward_hook(lambda *_: None)
    bl.attach(model, method)
    y = model(torch.zeros(0, 24))
    y.sum().backward()
    assert y.shape == (0, 12)


@every_method
def test_merging_under_autocast_is_merging(method):
    run = run_of(method)
    step_(run, 4)
    layer = bl.adapter_layers(run.model)["2"]
    wanted = layer.delta_weight()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        close(layer.delta_weight(), wanted, 1e-6)
        layer.merge()
    close(layer.merged_weight, layer.frozen_weight + wanted, 1e-6)


def test_orthogonality_under_autocast_keeps_its_digits():
    q, _ = torch.linalg.qr(torch.randn(32, 4))
    pairs = [(q.T + 1e-4, q)]
    wanted = orthogonality(pairs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(orthogonality(pairs), wanted, rtol=1e-3, atol=0)


def test_dora_in_half_precision_starts_from_short_rows():
    model = nn.Sequential(nn.Linear(24, 40, bias=False))
    with torch.no_grad():
        model[0].weight *= 0.005 / model[0].weight.norm(dim=1, keepdim=True)
    bl.attach(model, bl.DoRA(r=2))
    layer = bl.adapter_layers(model.half())["0"]
    assert ((layer.magnitude / layer.row_norm()) == 1).all()


# --- models ---


def test_a_wrapped_model_is_wrapped_too_early(tmp_path):
    store = f"file://{tmp_path}/meet"
    torch.distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    try:
        parallel = nn.parallel.DistributedDataParallel(net())
        with pytest.raises(TypeError, match="attach first, then wrap"):
            bl.attach(parallel, bl.LoRA(r=2))
    finally:
        torch.distributed.destroy_process_group()
    assert not bl.adapter_layers(parallel)


def test_a_weight_that_an_unknown_hook_makes_is_refused():
    model = net()
    nn.utils.spectral_norm(model[0])
    with pytest.raises(TypeError, match="a hook makes its weight"):
        bl.attach(model, bl.LoRA(r=2))
    assert not bl.adapter_layers(model) and model[2].weight.requires_grad


def test_a_pruned_bias_is_no_pruned_weight():
    model = net()
    nn.utils.prune.l1_unstructured(model[0], "bias", 0.5)
    x = torch.randn(3, 24)
    bl.attach(model, bl.LoRA(r=2))
    before = model(x)
    bl.merge_and_unload(model)
    close(model(x), before, 1e-5)


def test_loading_into_a_merged_model_unmerges_it():
    model, other = net(), net()
    for each in (model, other):
        bl.attach(each, bl.LoRA(r=2)), nn.init.normal_(each[0].lora_B)
    x = torch.randn(3, 24)
    bl.merge(model.eval())
    model.load_state_dict(other.state_dict())
    close(model(x), other.eval()(x), 1e-5)


def test_flags_come_back_after_tensors_were_exchanged():
    model = net()
    bl.attach(model, bl.LoRA(r=2))
    model.load_state_dict(copy.deepcopy(model.state_dict()), assign=True)
    bl.detach(model)
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("method", [bl.AdaLoRA(r=4, target_r=2), SoRA(r=4)])
def test_a_rank_that_weighs_nothing_is_not_started_anew(method):
    run = run_of(method)
    layer = bl.adapter_layers(run.model)["0"]
    with torch.no_grad():
        layer.rank_weights()[1] = 0
    with pytest.raises(ValueError, match=r"slots=\[1\].*weight is not zero"):
        reset_ranks_(layer, run.optimizer, [1])
    reset_ranks_(layer, run.optimizer, [1], init="zero")
