"""AdaLoRA and IncreLoRA: peft's AdaLoRA step by step, else the definition."""

import copy
import math
from types import SimpleNamespace

import peft
import pytest
import torch
from accelerate import Accelerator
from peft.tuners.adalora.layer import RankAllocator
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, LambdaLR
from torch.utils.checkpoint import checkpoint

import beamlora_mini as bl
from beamlora_mini.methods.adalora import orthogonality, rank_budget
from beamlora_mini.ranks import (
    add_noise_,
    budget_mask,
    expand_ranks_,
    frobenius_importance,
    reset_ranks_,
    split_ranks_,
    take_snapshot,
)

RUN = {"lr": 4e-3, "batch_size": 8, "progress": False}


def close(a, b, tolerance):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(24, 40), nn.ReLU(), nn.Linear(40, 12))


def adamw(model, lr=1e-2):
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr)


def train_(model, optimizer, schedule, steps, first=1):
    """Steps of a regression on random numbers; returns the events."""
    events = []
    for n in range(first, first + steps):
        generator = torch.Generator().manual_seed(n)
        x, y = (torch.randn(16, size, generator=generator) for size in (24, 12))
        loss = (model(x) - y).square().mean() + schedule.loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        events += schedule.step(n)
    return events


# --- AdaLoRA ---


@pytest.mark.parametrize("settings", [(40, 5, 10), (40, 0, 0), (100, 9, 50), (13, 4, 1)])
def test_budget_is_pefts_at_every_step(settings):
    total, tinit, tfinal = settings
    config = SimpleNamespace(tinit=tinit, tfinal=tfinal, total_step=total, deltaT=3)
    theirs = SimpleNamespace(peft_config=config, init_bgt=168, target_bgt=84)
    budgets = [rank_budget(t, total, tinit, tfinal, 168, 84) for t in range(total)]
    assert budgets == [RankAllocator.budget_schedule(theirs, t)[0] for t in range(total)]
    assert budgets == sorted(budgets, reverse=True)


def peft_twin(model, layers, method, total):
    """`model` under peft's AdaLoRA, started from the same numbers as `layers`."""
    config = peft.AdaLoraConfig(
        init_r=method.r, target_r=method.target_r, lora_alpha=method.lora_alpha,
        tinit=method.tinit, tfinal=method.tfinal, deltaT=method.deltaT, total_step=total,
        beta1=method.beta1, beta2=method.beta2, orth_reg_weight=method.orth_reg_weight,
        target_modules=sorted({name.rsplit(".", 1)[-1] for name in layers}),
    )  # fmt: skip
    twin = peft.get_peft_model(model, config).double()
    pairs = {name: (la, twin.base_model.model.get_submodule(name)) for name, la in layers.items()}
    with torch.no_grad():
        for layer, theirs in pairs.values():
            theirs.lora_A["default"].copy_(layer.lora_A)
            theirs.lora_B["default"].copy_(layer.lora_B)
            theirs.ranknum["default"].requires_grad_(False)  # the divisor, which it would train
            layer.scaling = method.lora_alpha / (method.r + 1e-5)  # as peft rounds it up
    return twin, pairs


def test_adalora_is_pefts_through_the_whole_schedule(tiny):
    total = 36
    method = bl.AdaLoRA(r=6, target_r=3, lora_alpha=12, tinit=4, tfinal=9, deltaT=3)
    model = tiny[0].double()
    ours = copy.deepcopy(model)
    layers = bl.attach(ours, method)
    twin, pairs = peft_twin(model, layers, method, total)
    mine, theirs = adamw(ours), adamw(twin)
    schedule = method.schedule(ours, mine, total)
    chosen = []
    for n in range(1, total + 1):
        ids = torch.randint(1, 40, (2, 10), generator=torch.Generator().manual_seed(n))
        losses = ours(ids, labels=ids).loss + schedule.loss(), twin.base_model(ids, labels=ids).loss
        close(*(loss.double() for loss in losses), 1e-6)
        for loss, optimizer in zip(losses, (mine, theirs)):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        events = schedule.step(n)
        twin.base_model.update_and_allocate(n - 1)
        pattern = twin.peft_config["default"].rank_pattern
        due = n - 1 == total - 9 or (4 < n - 1 < total - 9 and (n - 1) % 3 == 0)
        assert due or not events
        chosen += [n] * due
        for name, (layer, peft_layer) in pairs.items():
            close(layer.lora_E, peft_layer.lora_E["default"].flatten(), 1e-6)
            close(layer.lora_A, peft_layer.lora_A["default"], 1e-6)
            close(layer.lora_B, peft_layer.lora_B["default"], 1e-6)
            if pattern:
                assert schedule.kept[name].tolist() == pattern[f"{name}.lora_E.default"], n
        if due:
            assert sum(int(kept.sum()) for kept in schedule.kept.values()) == schedule.budget(n)
    assert len(chosen) == 8 and pattern
    assert sum(int((layer.lora_E != 0).sum()) for layer in layers.values()) == 3 * len(layers)


def test_ties_do_not_cost_ranks_of_the_budget():
    scores = {"a": torch.zeros(3), "b": torch.tensor([2.0, 0.0])}
    masks = budget_mask(scores, 3)
    assert {name: mask.tolist() for name, mask in masks.items()} == {
        "a": [False, False, True],
        "b": [False, True],
    }
    assert all(not mask.any() for mask in budget_mask(scores, 5).values())
    assert all(mask.all() for mask in budget_mask(scores, 0).values())
    for budget in (-1, 6, 2.0):
        with pytest.raises(ValueError, match=r"budget=.* from 0 to 5"):
            budget_mask(scores, budget)


def test_without_a_gradient_all_ranks_tie_and_the_budget_is_still_met():
    model = net()
    method = bl.AdaLoRA(r=4, target_r=2, tinit=0, tfinal=2, deltaT=1)
    layers = bl.attach(model, method)
    schedule = method.schedule(model, adamw(model), 6)
    for n in range(1, 7):
        schedule.step(n)
        assert sum(int(kept.sum()) for kept in schedule.kept.values()) == schedule.budget(n)
    assert schedule.budget(6) == 2 * len(layers)


def test_scores_are_the_triplets():
    model = net()
    method = bl.AdaLoRA(r=4, target_r=2, tinit=5, tfinal=2, beta1=0.8, beta2=0.6)
    layer = bl.attach(model, method)["0"]
    optimizer = adamw(model)
    schedule = method.schedule(model, optimizer, 20)
    mean, uncertainty = {}, {}
    for n in range(1, 6):
        train_(model, optimizer, schedule, 1, first=n)
        score = {}
        for part in ("lora_A", "lora_B", "lora_E"):
            parameter = getattr(layer, part)
            now = (parameter * parameter.grad).abs().detach()
            mean[part] = 0.8 * mean.get(part, 0) + 0.2 * now
            uncertainty[part] = 0.6 * uncertainty.get(part, 0) + 0.4 * (now - mean[part]).abs()
            score[part] = mean[part] * uncertainty[part]
        triplet = score["lora_E"] + score["lora_A"].mean(1) + score["lora_B"].mean(0)
        torch.testing.assert_close(layer.rank_importance(), triplet, rtol=1e-5, atol=0)
    assert triplet.min() > 0


def test_a_pruned_rank_may_come_back_until_the_choice_is_final():
    model = net()
    method = bl.AdaLoRA(r=8, target_r=4, tinit=2, tfinal=20, deltaT=2)
    layers = bl.attach(model, method)
    optimizer = adamw(model)
    schedule = method.schedule(model, optimizer, 60)
    events = train_(model, optimizer, schedule, 39)
    between = {name: layer.lora_E.detach()[~schedule.kept[name]] for name, layer in layers.items()}
    assert sum(map(len, between.values())) == 8
    train_(model, optimizer, schedule, 1, first=40)  # t = 39 is odd: trained on, not yet chosen
    revived = [layers[name].lora_E.detach()[~schedule.kept[name]] for name in layers]
    assert torch.cat(revived).abs().min() > 0
    scores = {name: layer.rank_importance().clone() for name, layer in layers.items()}
    events += train_(model, optimizer, schedule, 20, first=41)
    assert all(torch.equal(layer.rank_importance(), scores[n]) for n, layer in layers.items())
    assert {event.kind for event in events} == {"prune", "revive"}
    assert max(event.step for event in events) <= 41
    alive = {(name, i) for name in layers for i in range(8)}
    for event in events:
        (alive.remove if event.kind == "prune" else alive.add)((event.module, event.slot))
        assert (event.score_before >= event.threshold) == (event.kind == "revive")
    nonzero = {(m, i) for m, la in layers.items() for i in range(8) if la.lora_E[i] != 0}
    assert nonzero == alive and len(alive) == 8


def test_orthogonality_is_the_mean_distance_from_the_identity():
    q, _ = torch.linalg.qr(torch.randn(10, 4))
    assert orthogonality([(q.T, q)]) < 1e-5
    pairs = [(torch.randn(4, 10), torch.randn(7, 4)), (torch.randn(2, 5), torch.randn(6, 2))]
    norms = [(A @ A.T - torch.eye(len(A))).square().sum().sqrt() for A, _ in pairs]
    norms += [(B.T @ B - torch.eye(B.shape[1])).square().sum().sqrt() for _, B in pairs]
    torch.testing.assert_close(orthogonality(pairs), torch.stack(norms).mean())


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


@pytest.mark.parametrize("step", [5, 17, 28])  # before pruning, while pruning, after it
def test_adalora_resumes(tiny, tmp_path, crash_and_resume, step):
    method = bl.AdaLoRA(r=4, target_r=2, tinit=6, tfinal=10, deltaT=2)
    settings = {"method": method, "steps": 30, "checkpoint_every": 4, **RUN}
    whole = copy.deepcopy(tiny[0])
    records = [bl.RankHistory(every=1), bl.RankHistory(every=1)]
    history = bl.fit(whole, "subtraction", history=records[0], **settings)
    resumed, other = crash_and_resume(tiny[0], "subtraction", step, history=records[1], **settings)
    assert other.losses == history.losses and other.events == history.events
    for name, layer in bl.adapter_layers(whole).items():
        assert torch.equal(layer.lora_E, bl.adapter_layers(resumed)[name].lora_E)
    assert records[0].to_pandas().equals(records[1].to_pandas())


@pytest.mark.parametrize(
    ("argument", "value"),
    [("target_r", 12), ("target_r", 0), ("target_r", 2.5), ("tinit", -1), ("tfinal", 1.5),
     ("tfinal", 0), ("deltaT", 0), ("beta1", 1.0), ("beta2", 0.0), ("beta1", None), ("r", 1),
     ("orth_reg_weight", -0.1), ("orth_reg_weight", math.inf), ("orth_reg_weight", None)],
)  # fmt: skip
def test_bad_adalora_settings(argument, value):
    with pytest.raises(ValueError, match=rf"^{argument}={value!r}: allowed is"):
        bl.AdaLoRA(**{argument: value})


def test_a_schedule_that_does_not_fit_into_the_run_changes_nothing(tiny):
    model = tiny[0]
    method = bl.AdaLoRA(tinit=10, tfinal=20)
    with pytest.raises(
        ValueError, match=r"tinit \+ tfinal=30: allowed is less than total_steps=30"
    ):
        bl.fit(model, "subtraction", method=method, steps=30, **RUN)
    assert not bl.adapter_layers(model) and all(p.requires_grad for p in model.parameters())


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


def test_the_start_and_the_plan_of_adalora():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(200, 200))
    method = bl.AdaLoRA()
    layer = bl.attach(model, method)["0"]
    assert method.target_r == 8 and layer.r == 12 and layer.scaling == 16 / 12
    for factor in (layer.lora_A, layer.lora_B):
        assert abs(factor.std() - 0.02) < 0.002 and abs(factor.mean()) < 0.002
    assert not layer.lora_E.any() and not layer.rank_importance().any()
    schedule = method.schedule(model, adamw(model), 200)
    assert (schedule.tinit, schedule.tfinal) == (20, 100)


@pytest.mark.parametrize("tfinal", [1, 7])
def test_the_target_is_met_at_the_end(tfinal):
    model = net()
    method = bl.AdaLoRA(r=6, target_r=2, tinit=3, tfinal=tfinal, deltaT=5)
    layers = bl.attach(model, method)
    optimizer = adamw(model)
    schedule = method.schedule(model, optimizer, 30)
    train_(model, optimizer, schedule, 30)
    assert sum(int((layer.lora_E != 0).sum()) for layer in layers.values()) == 4
    assert not schedule.sensitivity  # what only the choices needed is given back


def test_adalora_may_go_back_over_the_freeze():
    """A state from before the final choice, loaded after it, gives the same run again."""
    model = net()
    method = bl.AdaLoRA(r=6, target_r=2, tinit=3, tfinal=10, deltaT=2)
    bl.attach(model, method)
    optimizer = adamw(model)
    schedule = method.schedule(model, optimizer, 30)
    train_(model, optimizer, schedule, 15)
    saved = copy.deepcopy(
        {"m": model.state_dict(), "o": optimizer.state_dict(), "s": schedule.state_dict()}
    )
    first = train_(model, optimizer, schedule, 15, first=16)
    after = copy.deepcopy(model.state_dict())
    model.load_state_dict(saved["m"])
    optimizer.load_state_dict(saved["o"])
    schedule.load_state_dict(saved["s"])
    assert train_(model, optimizer, schedule, 15, first=16) == first
    assert all(torch.equal(t, after[n]) for n, t in model.state_dict().items())


def test_a_rank_of_adalora_is_a_triplet_and_moves_as_one():
    model = net()
    layer = bl.attach(model, bl.AdaLoRA(r=4, target_r=2))["0"]
    optimizer = adamw(model)
    train_(model, optimizer, bl.AdaLoRA(r=4, target_r=2).schedule(model, optimizer, 40), 3)
    expand_ranks_(layer, optimizer, [0], [1], take_snapshot(model, optimizer))
    assert layer.lora_E[0] == layer.lora_E[1] != 0
    assert layer.rank_scores[0] == layer.rank_scores[1]
    moment = optimizer.state[layer.lora_E]["exp_avg"]
    assert moment[0] == moment[1] != 0
    reset_ranks_(layer, optimizer, [3], init="zero")
    before = layer.delta_weight()
    split_ranks_(layer, optimizer, [3], [2])
    close(layer.delta_weight(), before, 1e-6)


def test_ranks_in_blocks_are_not_moved():
    model = net()
    layer = bl.attach(model, bl.IncreLoRA(r=2, target_r=3))["0"]
    optimizer = adamw(model)
    for move in (
        lambda: expand_ranks_(layer, optimizer, [0], [1], None),
        lambda: split_ranks_(layer, optimizer, [0], [1]),
        lambda: reset_ranks_(layer, optimizer, [0]),
        lambda: add_noise_(layer, [0], 0.1),
    ):
        with pytest.raises(TypeError, match=r"^layer=IncreLoRALinear: allowed is one that says"):
            move()


# --- IncreLoRA ---

GROW = bl.IncreLoRA(r=1, target_r=3, lora_alpha=6, top_h=1, init_warmup=4, incre_interval=3)


def test_growing_keeps_the_function_and_the_scaling():
    model = net()
    layer = bl.attach(model, GROW)["0"]
    optimizer = adamw(model)
    train_(model, optimizer, GROW.schedule(model, optimizer, 40), 3)
    x = torch.randn(50, 24)
    before, delta = model(x), layer.delta_weight()
    new = layer.grow()
    close(model(x), before, 1e-6)
    close(layer.delta_weight(), delta, 1e-6)
    assert layer.r == 2 and layer.scaling == 2 and layer.lora_A.shape == (2, 24)
    assert [p.requires_grad for p in layer.blocks_E] == [True, True, False]
    assert {id(p) for p in new} == {
        id(p) for p in (layer.blocks_E[1], layer.blocks_A[2], layer.blocks_B[2])
    }


def test_the_reserve_is_trained_in_advance():
    model = net()
    layer = bl.attach(model, bl.IncreLoRA(orth_reg_weight=0.0))["0"]
    with torch.no_grad():
        layer.blocks_E[0].fill_(0.1)
    start = [
        block[-1].detach().clone() for block in (layer.blocks_A, layer.blocks_B, layer.blocks_E)
    ]
    optimizer = adamw(model)
    schedule = bl.IncreLoRA(orth_reg_weight=0.0, target_r=2).schedule(model, optimizer, 40)
    train_(model, optimizer, schedule, 3)
    assert (layer.blocks_A[-1] - start[0]).abs().min() > 1e-5
    assert (layer.blocks_B[-1] - start[1]).abs().min() > 1e-5
    assert torch.equal(layer.blocks_E[-1], start[2]) and layer.rank_importance().shape == (1,)


@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_score_is_the_sensitivity_of_the_whole_update(passes, dropout):
    torch.manual_seed(0)
    layer = bl.attach(
        nn.Sequential(nn.Linear(6, 5)).double(), bl.IncreLoRA(target_r=4, lora_dropout=dropout)
    )["0"].train()
    nn.init.normal_(layer.blocks_E[0])
    layer.gradient.on = True
    xs = [torch.randn(2, 7, 6, dtype=torch.float64) for _ in range(passes)]
    delta = layer.delta_weight().detach().requires_grad_()
    for i, x in enumerate(xs):
        torch.manual_seed(i)
        layer(x).square().sum().backward()
        torch.manual_seed(i)
        dropped = layer.dropout(x)
        (x @ layer.weight.T + layer.bias + dropped @ delta.T).square().sum().backward()
    expected = (delta * delta.grad).abs().sum() / math.sqrt(30)
    assert expected > 0.01
    close(layer.take_score(), expected.detach(), 1e-9)
    assert layer.take_score() == 0  # taken once


@pytest.mark.parametrize("top_h", [1, 2, 3, 5, 40])
def test_the_total_is_met_exactly(tiny, top_h):
    model, history = tiny[0], bl.RankHistory(every=5)
    method = bl.IncreLoRA(r=1, target_r=2, top_h=top_h, init_warmup=1, incre_interval=1)
    run = bl.fit(model, "subtraction", method=method, steps=40, history=history, **RUN)
    layers = bl.adapter_layers(model)
    assert sum(layer.r for layer in layers.values()) == 2 * len(layers) == 56
    assert len(run.events) == 28 and {event.kind for event in run.events} == {"grow"}
    at_once = min(top_h, 28)
    by_step = [sum(e.step == n for e in run.events) for n in sorted({e.step for e in run.events})]
    assert by_step == [at_once] * (28 // at_once) + [28 % at_once] * (28 % at_once > 0)
    grown = dict.fromkeys(layers, 1)
    for event in run.events:
        assert event.slot == grown[event.module]
        grown[event.module] += 1
    assert grown == {name: layer.r for name, layer in layers.items()}
    watches = [layer.gradient for layer in layers.values()]
    assert not any(watch.on or watch.total is not None for watch in watches)
    assert [len(v) for v in history.importance[-1].values()] == list(grown.values())


def test_the_modules_with_the_highest_scores_grow():
    model = nn.Sequential(*(nn.Linear(8, 8) for _ in range(4)))
    bl.attach(model, GROW)
    optimizer = adamw(model)
    method = bl.IncreLoRA(r=1, target_r=3, top_h=2, init_warmup=1, incre_interval=1)
    schedule = method.schedule(model, optimizer, 40)
    means, spread = torch.zeros(4), torch.zeros(4)
    for n, taken in enumerate([[3.0, 1.0, 2.0, 0.5], [0.1, 1.0, 2.0, 9.0]], start=1):
        for layer, value in zip(bl.adapter_layers(model).values(), taken):
            layer.take_score = lambda value=value: torch.tensor(value)
        means = 0.85 * means + 0.15 * torch.tensor(taken)
        spread = 0.85 * spread + 0.15 * (torch.tensor(taken) - means).abs()
        events = schedule.step(n)
    torch.testing.assert_close(schedule.scores, means * spread)
    best = (means * spread).topk(2)
    assert [int(e.module) for e in events] == sorted(best.indices.tolist())
    assert events[0].threshold == pytest.approx(best.values.min().item())


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


def fresh():
    model = net()
    bl.attach(model, bl.IncreLoRA(target_r=3))
    return model


def test_when_and_how_it_grows():
    model = net()
    layers = bl.attach(model, GROW)
    optimizer = adamw(model)
    schedule = GROW.schedule(model, optimizer, 40)
    events = train_(model, optimizer, schedule, 40)
    assert [event.step for event in events] == [7, 10, 13, 16]
    for layer in layers.values():
        A, B, E = layer.lora_A, layer.lora_B, layer.lora_E
        torch.testing.assert_close(layer.rank_importance(), frobenius_importance(A, B) * E.abs())
        assert (layer.rank_importance() > 0).all()
    model = fresh()
    plan = bl.IncreLoRA(target_r=3).schedule(model, adamw(model), 200)
    assert plan.plan == (20, 4, 1, 4, 200) and plan.growth.warmup == 4


def test_the_reserve_is_kept_apart_from_the_others():
    model = fresh()
    schedule = bl.IncreLoRA(target_r=3).schedule(model, adamw(model), 40)
    schedule.loss().backward()
    for layer in bl.adapter_layers(model).values():
        assert layer.blocks_A[-1].grad.any() and layer.blocks_B[-1].grad.any()


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
    model = fresh()
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


@pytest.mark.parametrize("reentrant", [True, False])
def test_scores_under_activation_checkpointing(reentrant):
    scores = []
    for checkpointed in (False, True):
        model = net()
        bl.attach(model, GROW)
        schedule = GROW.schedule(model, adamw(model), 40)
        schedule.step(1)
        x = torch.randn(16, 24, generator=torch.Generator().manual_seed(0), requires_grad=True)
        y = checkpoint(model, x, use_reentrant=reentrant) if checkpointed else model(x)
        y.square().sum().backward()
        scores.append([layer.take_score() for layer in bl.adapter_layers(model).values()])
    torch.testing.assert_close(*scores)
    assert min(scores[0]) > 0


def test_a_relu_in_place_after_a_watched_layer():
    scores = []
    for inplace in (False, True):
        model = net()
        model[1] = nn.ReLU(inplace=inplace)
        bl.attach(model, GROW)
        GROW.schedule(model, adamw(model), 40).step(1)
        model(torch.ones(5, 24)).square().sum().backward()
        scores.append([layer.take_score() for layer in bl.adapter_layers(model).values()])
    torch.testing.assert_close(*scores)
    assert min(scores[0]) > 0


def test_under_accelerate():
    model = fresh()
    optimizer = adamw(model)
    wrapped = Accelerator(cpu=True).prepare(optimizer)
    schedule = bl.IncreLoRA(target_r=3).schedule(model, wrapped, 40)
    assert len(optimizer.param_groups) == 1 + schedule.growth.count
    train_(model, wrapped, schedule, 40)
    assert not schedule.missing


def test_a_grown_model_is_not_the_one_to_resume_on(tiny, tmp_path):
    model = tiny[0]
    method = bl.IncreLoRA(r=1, target_r=2, top_h=7, init_warmup=1, incre_interval=2)
    settings = {"steps": 12, "checkpoint_dir": tmp_path, **RUN}
    bl.fit(model, "subtraction", method=method, **settings)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"began with other .*detach\(model\)"):
        bl.fit(model, "subtraction", method=method, resume=True, **settings)
    after = model.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[n], before[n]) for n in before)
    assert not any(layer.gradient.on for layer in bl.adapter_layers(model).values())
    bl.detach(model)
    assert bl.fit(model, "subtraction", method=method, resume=True, **settings).losses
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


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


@pytest.mark.parametrize("step", [4, 13, 18, 27])  # before, amid and after the growth
def test_increlora_resumes_over_growth(tiny, tmp_path, crash_and_resume, step):
    method = bl.IncreLoRA(
        r=1, target_r=2, top_h=6, init_warmup=5, incre_interval=3, growth_warmup=5
    )
    settings = {"method": method, "steps": 30, "checkpoint_every": 3, **RUN}
    whole = copy.deepcopy(tiny[0])
    history = bl.fit(whole, "subtraction", **settings)
    resumed, other = crash_and_resume(tiny[0], "subtraction", step, **settings)
    assert other.losses == history.losses and other.events == history.events
    assert other.learning_rates == history.learning_rates
    state, wanted = resumed.state_dict(), whole.state_dict()
    assert state.keys() == wanted.keys() and all(torch.equal(state[n], wanted[n]) for n in state)


def test_every_process_grows_the_same():
    grown = []
    for seed in (0, 1):
        model = net()
        bl.attach(model, GROW)
        optimizer = adamw(model)
        schedule = GROW.schedule(model, optimizer, 40)
        torch.manual_seed(seed)  # what else was drawn makes no difference
        train_(model, optimizer, schedule, 20)
        grown.append(model.state_dict())
    assert all(torch.equal(grown[0][n], grown[1][n]) for n in grown[0]) and len(grown[0]) > 20


def test_a_grown_state_fits_a_fresh_model():
    grown, fresh = net(), net()
    for model in (grown, fresh):
        bl.attach(model, GROW)
    optimizer = adamw(grown)
    train_(grown, optimizer, GROW.schedule(grown, optimizer, 40), 25)
    fresh.load_state_dict(grown.state_dict())
    ranks = [layer.r for layer in bl.adapter_layers(grown).values()]
    assert sum(ranks) == 6 == sum(layer.r for layer in bl.adapter_layers(fresh).values())
    x = torch.randn(9, 24)
    assert torch.equal(fresh(x), grown(x))
    trainable = [[p.requires_grad for p in m.parameters()] for m in (fresh, grown)]
    assert trainable[0] == trainable[1]
    delta = {n: la.delta_weight() for n, la in bl.adapter_layers(grown).items()}
    y = grown(x)
    bl.merge_and_unload(grown)
    close(grown(x), y, 1e-5)
    assert all((d != 0).any() for d in delta.values())


def test_foreign_states_leave_the_schedule_as_it_was(tiny, tmp_path):
    model = net()
    layers = bl.attach(model, GROW)
    schedule = GROW.schedule(model, adamw(model), 40)
    state = schedule.state_dict()
    growth = state["growth"]
    for bad in (
        {"x": 1},
        state | {"growth": growth | {"grown": [(7, ["0", "nowhere"])]}},
        state | {"growth": growth | {"grown": [(7, ["0"] * 5)]}},
        state | {"growth": growth | {"grown": [(n, ["0"]) for n in range(9)]}},
        state | {"growth": growth | {"began": {"0": (1, 40, 24), "2": (2, 12, 40)}}},
    ):
        with pytest.raises(ValueError, match="^state"):
            schedule.load_state_dict(bad)
        assert [layer.r for layer in layers.values()] == [1, 1] and not schedule.growth.grown
    ada = bl.AdaLoRA(r=4, target_r=2)
    bl.attach(other := net(), ada)
    schedule = ada.schedule(other, adamw(other), 40)
    sensitivity = schedule.sensitivity
    wide = [torch.zeros(40, 4)] * 6
    for bad in (
        {"x": 1},
        {"sensitivity": {"mean": wide, "uncertainty": wide}},
        {"sensitivity": sensitivity | {"uncertainty": sensitivity["mean"][:5]}},
    ):
        with pytest.raises(ValueError, match="^state"):
            schedule.load_state_dict(bad)
        assert schedule.sensitivity is sensitivity
    with pytest.raises(TypeError, match="carries a IncreLoRALinear|carries a AdaLoRALinear"):
        ada.schedule(model, adamw(model), 40)
    with pytest.raises(TypeError, match="AdaLoRALinear"):
        GROW.schedule(other, adamw(other), 40)


@pytest.mark.parametrize(
    ("argument", "value"),
    [("target_r", 1), ("target_r", 2.5), ("top_h", 0), ("init_warmup", -1), ("growth_warmup", -1),
     ("incre_interval", 0), ("beta1", 0.0), ("beta2", 1.0), ("orth_reg_weight", -1), ("seed", -1)],
)  # fmt: skip
def test_bad_increlora_settings(argument, value):
    with pytest.raises(ValueError, match=rf"^{argument}={value!r}: allowed is"):
        bl.IncreLoRA(**{argument: value})


@pytest.mark.parametrize("settings", [{"incre_interval": 20}, {"top_h": 1}, {"init_warmup": 29}])
def test_a_target_out_of_reach_is_refused_and_changes_nothing(tiny, settings):
    model = tiny[0]
    with pytest.raises(ValueError, match=r"^target_r=8: allowed is what \d+ growths of"):
        bl.fit(model, "subtraction", method=bl.IncreLoRA(**settings), steps=30, **RUN)
    assert not bl.adapter_layers(model) and all(p.requires_grad for p in model.parameters())


def test_a_history_of_growth_is_saved_and_has_its_lineage(tiny, tmp_path):
    history = bl.RankHistory(every=5)
    method = bl.IncreLoRA(r=1, target_r=2, init_warmup=2, incre_interval=2)
    bl.fit(tiny[0], "subtraction", method=method, steps=30, history=history, **RUN)
    history.save(tmp_path / "run.parquet")
    loaded = bl.RankHistory.load(tmp_path / "run.parquet")
    assert loaded.events == [
        e._replace(threshold=pytest.approx(e.threshold)) for e in history.events
    ]
    assert len(loaded.to_pandas()) == len(history.to_pandas())
    last = history.lineage().query("step == step.max()")
    assert len(last) == 56 and (last["rank"] == last.ancestor).all()
    late = bl.RankHistory(every=5)  # first recorded when some have grown
    late.events, late.steps, late.importance = history.events, [10, 30], history.importance[2::4]
    assert len(late.importance) == 2 and len(late.lineage().query("step == step.max()")) == 56
