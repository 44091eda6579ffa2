"""AdaLoRA: peft's numbers step by step, else the definition."""

import copy
import math
from types import SimpleNamespace

import peft
import pytest
import torch
from peft.tuners.adalora.layer import RankAllocator
from torch import nn

import beamlora_mini as bl
from beamlora_mini.methods.adalora import orthogonality, rank_budget
from tests.helpers import RUN, adamw, close, net, train_


@pytest.mark.parametrize("settings", [(40, 5, 10), (40, 0, 0), (100, 9, 50), (13, 4, 1)])
def test_budget_is_pefts_at_every_step(settings):
    total, tinit, tfinal = settings
    config = SimpleNamespace(tinit=tinit, tfinal=tfinal, total_step=total, deltaT=3)
    theirs = SimpleNamespace(peft_config=config, init_bgt=168, target_bgt=84)
    budgets = [rank_budget(t, total, tinit, tfinal, 168, 84) for t in range(total)]
    assert budgets == [RankAllocator.budget_schedule(theirs, t)[0] for t in range(total)]
    assert budgets == sorted(budgets, reverse=True)


def adalora_twin(model, layers, method, total):
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
    twin, pairs = adalora_twin(model, layers, method, total)
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


def test_foreign_states_and_models_leave_the_schedule_as_it_was():
    model, method = net(), bl.AdaLoRA(r=4, target_r=2)
    bl.attach(model, method)
    schedule = method.schedule(model, adamw(model), 40)
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
    bl.attach(other := net(), bl.IncreLoRA(r=1, target_r=3))
    with pytest.raises(TypeError, match=r"carries a IncreLoRALinear.*AdaLoRALinear"):
        method.schedule(other, adamw(other), 40)
