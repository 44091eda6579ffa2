"""What grows under an optimizer: when, in which groups, at which learning rate."""

import math

import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, LambdaLR

import beamlora_mini as bl
from tests.helpers import GROW, RUN, adamw, close, net, train_


def test_a_reachable_target_is_planned_without_settings():
    for steps in (20, 60, 300, 1000):
        model = nn.Sequential(*(nn.Linear(8, 8) for _ in range(7)))
        method = bl.IncreLoRA()
        bl.attach(model, method)
        schedule = method.schedule(model, adamw(model), steps)
        last = None
        for n in range(1, steps + 1):
            last = n if schedule.step(n) else last
        assert last <= steps // 2 and not schedule.missing


@pytest.mark.parametrize("settings", [{"incre_interval": 20}, {"top_h": 1}, {"init_warmup": 29}])
def test_a_target_out_of_reach_is_refused_and_changes_nothing(tiny, settings):
    model = tiny[0]
    with pytest.raises(ValueError, match=r"^target_r=8: allowed is what \d+ growths of"):
        bl.fit(model, "subtraction", method=bl.IncreLoRA(**settings), steps=30, **RUN)
    assert not bl.adapter_layers(model) and all(p.requires_grad for p in model.parameters())


def test_what_grows_is_clipped_and_has_the_options_of_the_adapters(tiny, monkeypatch):
    counts, clip = [], nn.utils.clip_grad_norm_

    def counting(parameters, most):
        counts.append(len(parameters))
        return clip(parameters, most)

    method = bl.IncreLoRA(r=1, target_r=2, top_h=28, init_warmup=2, incre_interval=3)
    with monkeypatch.context() as patch:
        patch.setattr(nn.utils, "clip_grad_norm_", counting)
        bl.fit(tiny[0], "subtraction", method=method, steps=8, **RUN)
    assert counts == [5 * 28] * 5 + [8 * 28] * 3
    model = net()
    bl.attach(model, bl.IncreLoRA(target_r=3))
    head = nn.Linear(3, 3)
    own = {"params": [p for p in model.parameters() if p.requires_grad], "weight_decay": 0.0}
    optimizer = torch.optim.AdamW([{"params": head.parameters(), "lr": 1e-5}, own], lr=0.1)
    method.schedule(model, optimizer, 40)
    assert len(optimizer.param_groups) > 2
    for group in optimizer.param_groups[2:]:
        assert group["lr"] == 0.1 and group["weight_decay"] == 0.0
    with pytest.raises(ValueError, match="^optimizer: it does not train the model's adapters"):
        method.schedule(model, torch.optim.AdamW(head.parameters()), 40)


def test_a_skipped_or_failed_step_leaves_no_trace():
    model = net()
    bl.attach(model, GROW)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    schedule = GROW.schedule(model, optimizer, 40)
    train_(model, optimizer, schedule, 7)
    (model(torch.randn(4, 24)).sum() * math.inf).backward()  # too large: the step is left out
    optimizer.zero_grad()
    train_(model, optimizer, schedule, 1, first=8)
    assert schedule.scores.isfinite().all() and (schedule.scores > 0).all()

    def fail(*_):
        raise RuntimeError("the optimizer's step failed")

    hook = optimizer.register_step_pre_hook(fail)
    with pytest.raises(RuntimeError, match="step failed"):
        optimizer.step()
    hook.remove()
    assert min(group["lr"] for group in optimizer.param_groups) < 0.1  # what grew after step 7
    train_(model, optimizer, schedule, 1, first=9)
    assert {group["lr"] for group in optimizer.param_groups} == {0.1}


def test_under_accelerate():
    model, method = net(), bl.IncreLoRA(target_r=3)
    bl.attach(model, method)
    optimizer = adamw(model)
    wrapped = Accelerator(cpu=True).prepare(optimizer)
    schedule = method.schedule(model, wrapped, 40)
    assert len(optimizer.param_groups) == 1 + schedule.growth.count
    train_(model, wrapped, schedule, 40)
    assert not schedule.missing


@pytest.mark.parametrize("order", ["rate first", "schedule first"])
@pytest.mark.parametrize(
    "make", [lambda o: LambdaLR(o, lambda k: 1 / (k + 1)), lambda o: ExponentialLR(o, 0.9),
             lambda o: CosineAnnealingLR(o, 40)], ids=["lambda", "exponential", "cosine"],
)  # fmt: skip
def test_new_parameters_warm_up_under_any_scheduler(make, order):
    """Plain gradient descent with gradients of one: what a step moves is its learning rate."""
    model = net()
    method = bl.IncreLoRA(
        r=1, target_r=2, top_h=1, init_warmup=2, incre_interval=3, growth_warmup=4
    )
    layers = bl.attach(model, method)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    schedule = method.schedule(model, optimizer, 20)
    rate = make(optimizer)
    born, moved = {}, []
    for n in range(1, 16):
        full = rate.get_last_lr()[0]
        parameters = [p for p in model.parameters() if p.requires_grad]
        before = [p.detach().clone() for p in parameters]
        for p in parameters:
            p.grad = torch.ones_like(p)
        optimizer.step()
        for p, old in zip(parameters, before):
            ramp = min(1, (n - born[p]) / 4) if p in born else 1
            close(old - p.detach(), torch.full_like(p, full * ramp), 1e-6)
            moved.append(ramp)
        assert optimizer.param_groups[-1]["lr"] == full  # what the scheduler goes on from
        known = set(model.parameters())
        frozen = {p for p in known if not p.requires_grad}
        if order == "rate first":
            rate.step()
        schedule.step(n)
        if order == "schedule first":
            rate.step()
        for p in model.parameters():
            if p.requires_grad and (p not in known or p in frozen):
                born[p] = n
    assert len(born) == 2 * 3 and {0.25, 0.5, 0.75, 1} == set(moved)
    assert sum(layer.r for layer in layers.values()) == 4


def test_a_scheduler_made_too_early_is_refused():
    model = net()
    bl.attach(model, GROW)
    optimizer = adamw(model)
    LambdaLR(optimizer, lambda k: 1.0)
    with pytest.raises(ValueError, match=r"^optimizer: a learning-rate scheduler has counted"):
        GROW.schedule(model, optimizer, 40)
    assert len(optimizer.param_groups) == 1
