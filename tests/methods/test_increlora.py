"""IncreLoRA: the reserve, the scores, which modules grow."""

import pytest
import torch
from torch import nn

import beamlora_mini as bl
from beamlora_mini.ranks import frobenius_importance
from tests.helpers import GROW, RUN, adamw, close, net, train_


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
    model, method = net(), bl.IncreLoRA(target_r=3)
    bl.attach(model, method)
    plan = method.schedule(model, adamw(model), 200)
    assert plan.plan == (20, 4, 1, 4, 200) and plan.growth.warmup == 4


def test_the_reserve_is_kept_apart_from_the_others():
    model, method = net(), bl.IncreLoRA(target_r=3)
    bl.attach(model, method)
    schedule = method.schedule(model, adamw(model), 40)
    schedule.loss().backward()
    for layer in bl.adapter_layers(model).values():
        assert layer.blocks_A[-1].grad.any() and layer.blocks_B[-1].grad.any()


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


def test_foreign_states_leave_the_schedule_as_it_was():
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
    bl.attach(other := net(), bl.AdaLoRA(r=4, target_r=2))
    with pytest.raises(TypeError, match=r"AdaLoRALinear.*IncreLoRALinear"):
        GROW.schedule(other, adamw(other), 40)


@pytest.mark.parametrize(
    ("argument", "value"),
    [("target_r", 1), ("target_r", 2.5), ("top_h", 0), ("init_warmup", -1), ("growth_warmup", -1),
     ("incre_interval", 0), ("beta1", 0.0), ("beta2", 1.0), ("orth_reg_weight", -1), ("seed", -1)],
)  # fmt: skip
def test_bad_increlora_settings(argument, value):
    with pytest.raises(ValueError, match=rf"^{argument}={value!r}: allowed is"):
        bl.IncreLoRA(**{argument: value})
