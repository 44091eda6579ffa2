"""What holds for every method."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

import beamlora_mini as bl
from beamlora_mini.methods.adalora import orthogonality
from tests.helpers import IDS, RUN, close_in_size, every_method, move_, net, tiny_gpt2


def restart_(model):
    for layer in bl.adapter_layers(model).values():
        if hasattr(layer, "restart"):
            layer.restart(torch.Generator().manual_seed(0))


@every_method
def test_starts_from_the_base_function_and_gives_the_base_back(method):
    model = net()
    x = torch.randn(3, 5, 24)
    base = copy.deepcopy(model.state_dict())
    before = model(x)
    layers = bl.attach(model, method)
    close_in_size(model(x), before, 1e-6)
    for layer in layers.values():
        close_in_size(layer.delta_weight(), torch.zeros_like(layer.frozen_weight), 1e-6)
    move_(model)
    restart_(model)
    move_(model)
    assert (model(x) - before).abs().max() > 0.1
    bl.detach(model)
    assert torch.equal(model(x), before)
    assert all(torch.equal(t, base[n]) for n, t in model.state_dict().items())


@every_method
@pytest.mark.parametrize("bias", [True, False])
def test_the_base_weight_and_the_delta_make_the_merged_weight(method, bias):
    model = net(bias).eval()
    x = torch.randn(5, 24)
    layers = bl.attach(model, method)
    move_(model)
    restart_(model)
    move_(model)
    adapted = model(x)
    deltas = {name: layer.delta_weight().detach() for name, layer in layers.items()}
    weights = {name: layer.base.weight.detach() + deltas[name] for name, layer in layers.items()}
    bl.merge(model)
    close_in_size(model(x), adapted, 2e-6)
    assert all(torch.equal(la.merged_weight, weights[name]) for name, la in layers.items())
    bl.unmerge(model)
    assert torch.equal(model(x), adapted)
    bl.merge_and_unload(model)
    close_in_size(model(x), adapted, 2e-6)
    assert type(model[0]) is nn.Linear and torch.equal(model[2].weight, weights["2"])


@every_method
def test_a_tied_head_does_not_move_the_embedding(tiny, method):
    model, _ = tiny
    embedding = model.get_input_embeddings().weight
    before = embedding.detach().clone()
    bl.attach(model, replace(method, target_modules=["lm_head"]))
    move_(model)
    restart_(model)
    adapted = model(IDS).logits
    assert torch.equal(embedding, before) and model.lm_head.base.weight is embedding
    bl.merge_and_unload(model)
    close_in_size(model(IDS).logits, adapted, 1e-5)
    assert torch.equal(model.get_input_embeddings().weight, before)


@every_method
def test_gpt2_conv1d(method):
    model = tiny_gpt2()
    before = model(IDS).logits
    layers = bl.attach(model, method)
    close_in_size(model(IDS).logits, before, 1e-5)
    assert layers["transformer.h.0.attn.c_attn"].delta_weight().shape == (96, 32)
    move_(model)
    restart_(model)
    adapted = model(IDS).logits
    bl.merge_and_unload(model)
    close_in_size(model(IDS).logits, adapted, 1e-5)


@every_method
def test_a_bfloat16_base_is_started_from_and_given_back_exactly(method):
    model = net(dtype=torch.bfloat16).eval()
    x = torch.randn(6, 24, dtype=torch.bfloat16)
    before = model(x)
    layers = bl.attach(model, method)
    for layer in layers.values():
        assert layer.lora_A.dtype == layer.lora_B.dtype == torch.float32
        assert layer.delta_weight().abs().max() < 1e-7  # IncreLoRA's reserve is not nothing
    y = model(x)
    assert y.dtype == torch.bfloat16
    close_in_size(y, before, 2**-7)  # the last digit: the bias is added to a rounded product
    y.float().sum().backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert len(trained) >= 4 and all(p.grad.dtype == torch.float32 for p in trained)
    move_(model)
    restart_(model)
    adapted = model(x).float()
    bl.merge(model)
    close_in_size(model(x).float(), adapted, 0.05)
    bl.detach(model)
    assert torch.equal(model(x), before)


@every_method
def test_under_autocast(method):
    model = net().eval()
    bl.attach(model, method)
    move_(model)
    x = torch.randn(6, 24)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = model(x)
    assert y.dtype == torch.bfloat16
    close_in_size(y.float(), model(x), 0.05)


@every_method
def test_under_compile(method):
    model = net().eval()
    bl.attach(model, method)
    move_(model)
    x = torch.randn(3, 24)
    torch.compiler.reset()  # it counts what it compiled for the other methods
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    close_in_size(compiled(x), model(x), 1e-6)


@every_method
def test_state_dict_carries_the_whole_layer(method):
    model, other = net(), net()
    for each in (model, other):
        bl.attach(each, method)
    move_(model)
    restart_(model)
    move_(model)
    x = torch.randn(3, 24)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(x), model(x))


@every_method
def test_fit_learns_and_leaves_the_base_alone(tiny, method):
    model, task = tiny[0], bl.load_task("subtraction")
    before = {n: t.clone() for n, t in model.state_dict().items()}
    svd_shaped = isinstance(method, bl.AdaLoRA | bl.IncreLoRA)  # E starts at zero, A and B small
    rate = 2e-2 if svd_shaped else 4e-3
    history = bl.fit(model, task, method=method, steps=40, **RUN | {"lr": rate})
    assert sum(history.losses[-5:]) < 0.8 * sum(history.losses[1:6])
    bl.detach(model)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


@pytest.mark.parametrize("name", bl.METHODS)
def test_one_loop_runs_all_eight(tiny, name, tmp_path):
    model, (x, labels) = tiny[0], (IDS, IDS.flip(1))
    method = bl.METHODS[name]()
    layers = bl.attach(model, method)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    schedule = method.schedule(model, optimizer, 60)
    rate, history = method.lr_scheduler(optimizer, 5, 60), bl.RankHistory(every=10)
    losses = []
    for n in range(1, 61):
        optimizer.zero_grad()
        loss = model(x, labels=labels).loss
        (loss + schedule.loss()).backward()
        optimizer.step()
        rate.step()
        history.record(model, n, schedule.step(n), loss.item())
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    for layer in layers.values():
        assert layer.lora_A.shape == (layer.r, layer.in_features)
        assert layer.lora_B.shape == (layer.out_features, layer.r)
        assert layer.rank_importance().shape == (layer.r,)
    history.save(tmp_path / "run.parquet")
    assert bl.RankHistory.load(tmp_path / "run.parquet").steps == [10, 20, 30, 40, 50, 60]
    model.eval()
    before = model(x).logits
    bl.merge(model)
    close_in_size(model(x).logits, before, 1e-4)
    bl.unmerge(model)
    assert torch.equal(model(x).logits, before)
    bl.merge_and_unload(model)
    close_in_size(model(x).logits, before, 1e-4)
    assert not bl.adapter_layers(model)


@pytest.mark.parametrize(
    "method", [bl.AdaLoRA(r=3, target_r=2), bl.IncreLoRA(r=1, target_r=2, top_h=7)]
)
def test_the_extra_loss_trains_and_is_not_reported(tiny, method):
    runs = []
    for weight in (0.0, 5.0):
        model = copy.deepcopy(tiny[0])
        weighted = type(method)(**vars(method) | {"orth_reg_weight": weight})
        history = bl.fit(model, "subtraction", method=weighted, steps=30, **RUN)
        layers = bl.adapter_layers(model).values()
        runs.append((history.losses, orthogonality((la.lora_A, la.lora_B) for la in layers)))
    assert runs[1][1] < 0.8 * runs[0][1]
    assert runs[0][0][0] == runs[1][0][0]


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(
    "method",
    [bl.AdaLoRA(r=4, target_r=2, tinit=2, tfinal=5, deltaT=2), bl.IncreLoRA(r=1, target_r=2)],
)
def test_a_step_that_overflowed_leaves_no_trace_in_any_score(method, fused):
    """GradScaler skips it; with a fused optimizer the other gradients then stay scaled."""
    seen = []
    for overflow in (False, True):
        model = net()
        bl.attach(model, method)
        parameters = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=1e-2, fused=fused)
        schedule = method.schedule(model, optimizer, 30)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=1000)
        for n in range(1, 5):
            generator = torch.Generator().manual_seed(n)
            x, y = (torch.randn(16, size, generator=generator) for size in (24, 12))
            loss = (model(x) - y).square().mean() + schedule.loss()
            if overflow and n == 3:
                loss = loss * 1e38
            scaler.scale(loss).backward()
            before = [p.detach().clone() for p in parameters]
            scaler.step(optimizer)
            skipped = all(torch.equal(a, b) for a, b in zip(before, parameters))
            assert skipped == (overflow and n == 3)
            scaler.update()
            schedule.step(n)
            optimizer.zero_grad()
            if n == 2 or (n == 3 and overflow):
                layers = bl.adapter_layers(model).values()
                ada = isinstance(method, bl.AdaLoRA)
                scores = [la.rank_scores.clone() for la in layers] if ada else [schedule.scores]
                seen.append(torch.cat(scores))
    assert torch.equal(seen[1], seen[2]) and seen[1].any()
