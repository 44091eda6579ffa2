"""ReLoRA: restarts without a jump, the moments, the learning rate."""

import copy
import math

import pytest
import torch
from torch import nn

import beamlora_mini as bl
from tests.helpers import RUN, close_in_size, net


def rounds(model, method, steps, x=None):
    """Train on noise; returns the schedule's events and the largest jump at a restart."""
    x = torch.randn(16, 24) if x is None else x
    target = torch.randn(16, 12)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    schedule = method.schedule(model, optimizer, steps)
    events, jump = [], 0.0
    for n in range(1, steps + 1):
        (model(x) - target).square().mean().backward()
        optimizer.step()
        before = model(x).detach()
        events += schedule.step(n)
        jump = max(jump, (model(x).detach() - before).abs().max().item())
        optimizer.zero_grad()
    return events, jump, optimizer


@pytest.mark.parametrize("reset", ["zero", "random", "magnitude"])
def test_relora_restarts_without_a_jump_and_the_sum_has_more_rank(reset):
    method = bl.ReLoRA(r=2, merge_every=10, restart_warmup=2, reset=reset, keep=0.1)
    model = net()
    layers = bl.attach(model, method)
    events, jump, _ = rounds(model, method, 30)
    assert [(e.step, e.kind, e.module, e.slot) for e in events] == [
        (n, "restart", name, None) for n in (10, 20) for name in ("0", "2")
    ]  # none after the last step
    assert jump < 1e-6
    for layer in layers.values():
        assert torch.linalg.matrix_rank(layer.lora_B @ layer.lora_A) == 2
        assert torch.linalg.matrix_rank(layer.delta_weight(), rtol=1e-4) == 6


def test_relora_starts_a_round_like_lora_and_the_same_on_every_process():
    method = bl.ReLoRA(r=2, merge_every=5, restart_warmup=2)
    starts = []
    for seed in (0, 1):
        model = net()
        layer = bl.attach(model, method)["0"]
        torch.manual_seed(seed)  # the processes have seen other data
        before = layer.lora_A.detach().clone()
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
        method.schedule(model, optimizer, 100).step(5)
        assert not layer.lora_B.any() and not torch.equal(layer.lora_A, before)
        assert layer.lora_A.abs().max() <= 24**-0.5 and layer.lora_A.abs().max() > 0.8 * 24**-0.5
        starts.append(layer.lora_A.detach().clone())
    assert torch.equal(*starts)


@pytest.mark.parametrize(("reset", "keep"), [("zero", 0.25), ("random", 0.25), ("magnitude", 0.25)])
def test_relora_resets_moments_and_keeps_the_step_counter(reset, keep):
    method = bl.ReLoRA(r=4, merge_every=6, restart_warmup=2, reset=reset, keep=keep)
    model = net()
    layers = bl.attach(model, method)
    *_, optimizer = rounds(model, method, 5)
    old = {p: {k: v.clone() for k, v in optimizer.state[p].items()} for p in optimizer.state}
    method.schedule(model, optimizer, 100).step(6)
    for layer in layers.values():
        for p in (layer.lora_A, layer.lora_B):
            state = optimizer.state[p]
            assert state["step"] == old[p]["step"] == 5
            kept = state["exp_avg"] != 0
            assert torch.equal(kept, state["exp_avg_sq"] != 0)  # together
            assert kept.sum() == (0 if reset == "zero" else round(keep * p.numel()))
            for key in ("exp_avg", "exp_avg_sq"):
                assert torch.equal(state[key][kept], old[p][key][kept])
            if reset == "magnitude":
                size = old[p]["exp_avg"].abs()
                assert size[kept].min() >= size[~kept].max()
            if reset == "random":
                order = old[p]["exp_avg"].abs().flatten().argsort(descending=True)
                assert not kept.flatten()[order[: kept.sum()]].all()


@pytest.mark.parametrize("warmup_steps", [0, 7])
def test_relora_learning_rate_at_every_step(warmup_steps):
    total, every, again, lr = 100, 30, 6, 0.5
    method = bl.ReLoRA(merge_every=every, restart_warmup=again)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    rate = method.lr_scheduler(optimizer, warmup_steps, total)
    got = []
    for _ in range(total):
        got.append(rate.get_last_lr()[0] / lr)
        optimizer.step()
        rate.step()

    def cosine(k):
        return 0.5 * (1 + math.cos(math.pi * (k - warmup_steps) / (total - warmup_steps)))

    wanted = [k / warmup_steps for k in range(warmup_steps)]
    wanted += [cosine(k) for k in range(warmup_steps, every)]
    for start in (30, 60, 90):
        wanted += [j / again * cosine(start + again) for j in range(again)]
        wanted += [cosine(k) for k in range(start + again, min(start + every, total))]
    assert got == pytest.approx(wanted, abs=1e-12)
    assert got[30] == 0 and got[29] > 0.7


def test_relora_without_a_restart_is_lora(tiny):
    task = bl.load_task("subtraction")
    losses = []
    for method in (bl.LoRA(r=2), bl.ReLoRA(r=2, merge_every=50)):
        losses.append(bl.fit(copy.deepcopy(tiny[0]), task, method=method, steps=6, **RUN).losses)
    assert losses[0] == losses[1]


def test_relora_schedule_refuses_foreign_models_and_states():
    method = bl.ReLoRA(r=2)
    model, plain = net(), net()
    bl.attach(model, method)
    bl.attach(plain, bl.LoRA(r=2))
    optimizer = torch.optim.AdamW(model.parameters())
    with pytest.raises(TypeError, match=r"LoRALinear.*ReLoRALinear"):
        method.schedule(plain, optimizer, 10)
    schedule = method.schedule(model, optimizer, 10)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="ReLoRASchedule keeps no state"):
        schedule.load_state_dict({"round_weights": {}})
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


def test_small_updates_add_up_beside_a_bfloat16_weight():
    """Rounded to bfloat16 after each round, an update below half a step of W would vanish."""
    model = nn.Sequential(nn.Linear(8, 8, bias=False).bfloat16())
    nn.init.ones_(model[0].weight)
    layer = bl.attach(model, bl.ReLoRA(r=1, lora_alpha=1))["0"]
    for _ in range(10):
        nn.init.constant_(layer.lora_A, 1)
        nn.init.constant_(layer.lora_B, 0.001)
        layer.restart(torch.Generator().manual_seed(0))
    close_in_size(layer.delta_weight(), torch.full((8, 8), 0.01), 1e-5)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("merge_every", 0), ("merge_every", 2.5), ("restart_warmup", -1), ("restart_warmup", 100),
        ("reset", "none"), ("keep", 1.5), ("keep", "all"), ("seed", -1),
    ],
)  # fmt: skip
def test_bad_relora_settings(argument, value):
    with pytest.raises(ValueError) as error:
        bl.ReLoRA(**{argument: value})
    assert f"{argument}={value!r}" in str(error.value)
