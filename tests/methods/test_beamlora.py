"""BeamLoRA: what its schedule promises."""

import copy
import dataclasses
import warnings

import pytest
import torch
from torch import nn

import beamlora_mini as bl
from beamlora_mini import ranks
from tests.helpers import RUN, adamw, close, net


@pytest.mark.parametrize("r", [3, 8, 49])
def test_with_scores_zero_it_is_lora_to_the_bit(r):
    torch.manual_seed(0)
    base, x, grad = nn.Linear(20, 12), torch.randn(5, 20), torch.randn(5, 12)
    pair = []
    for method in (bl.LoRA(r=r, lora_alpha=10), bl.BeamLoRA(r=r, lora_alpha=10)):
        layer = bl.attach(nn.Sequential(copy.deepcopy(base)), method)["0"]
        generator = torch.Generator().manual_seed(1)
        for parameter in (layer.lora_A, layer.lora_B):
            nn.init.normal_(parameter, generator=generator)
        layer(x).backward(grad)
        pair.append(layer)
    lora, beam = pair
    assert torch.equal(lora(x), beam(x))
    assert torch.equal(lora.lora_A.grad, beam.lora_A.grad)
    assert torch.equal(lora.lora_B.grad, beam.lora_B.grad)
    assert torch.equal(lora.delta_weight(), beam.delta_weight())


def run_steps(model, method, total, stop=None, optimizer=torch.optim.AdamW, ids=None):
    """A few steps on random tokens; returns (schedule, optimizer, events)."""
    if not bl.adapter_layers(model):
        bl.attach(model, method)
    opt = optimizer([p for p in model.parameters() if p.requires_grad], lr=0.02)
    schedule = method.schedule(model, opt, total)
    torch.manual_seed(0)
    ids = torch.randint(3, 40, (total, 2, 8)) if ids is None else ids
    events = []
    for n in range(1, (stop or total) + 1):
        model(input_ids=ids[n - 1], labels=ids[n - 1]).loss.backward()
        opt.step()
        events += schedule.step(n)
        opt.zero_grad()
    return schedule, opt, events


@pytest.fixture
def beam():
    return bl.BeamLoRA(r=6, period=4, p_start=0.6)


@pytest.mark.parametrize(
    "settings, at",
    [
        ({"period": 4}, [4, 8, 12, 16]),
        ({"period": 5}, [5, 10, 15]),  # odd: the official code fails
        ({"period": 4, "first_event": 9}, [12, 16]),
        ({"period": 4, "snapshot_lag": 0}, [4, 8, 12, 16]),
        ({"period": 4, "end_step": 8}, [4, 8]),
        ({"period": 11}, []),
    ],
)
def test_when_events_happen(tiny, settings, at):
    method = bl.BeamLoRA(r=6, p_start=0.6, **{"end_step": 20} | settings)
    _, _, events = run_steps(tiny[0], method, 20)
    assert sorted({event.step for event in events}) == at


def test_an_event_leaves_all_else_to_the_bit(tiny, beam):
    model, _ = tiny
    schedule, optimizer, _ = run_steps(model, beam, 20, stop=3)
    snapshot = schedule.snapshot
    before = {name: copy.deepcopy(layer) for name, layer in schedule.layers.items()}
    moments = {
        name: optimizer.state[layer.lora_A]["exp_avg"].clone()
        for name, layer in schedule.layers.items()
    }
    events = schedule.step(4)
    pruned = {name: {} for name in before}
    for event in events:
        pruned[event.module][event.slot] = event.source
    assert any(pruned.values())
    for name, layer in schedule.layers.items():
        slots, old = pruned[name], snapshot.tensors[name]
        assert len(slots) <= 3  # half of six
        kept = [i for i in range(6) if i not in slots]
        assert torch.equal(layer.lora_A[kept], before[name].lora_A[kept])
        assert torch.equal(layer.lora_B[:, kept], before[name].lora_B[:, kept])
        moment = optimizer.state[layer.lora_A]["exp_avg"]
        assert torch.equal(moment[kept], moments[name][kept])
        for slot, source in slots.items():
            assert torch.equal(layer.lora_A[slot], old["lora_A"][source])
            assert torch.equal(moment[slot], old["lora_A.exp_avg"][source])
            assert not torch.equal(layer.lora_A[slot], layer.lora_A[source])
        others = [i for i in kept if i not in slots.values()]
        assert torch.equal(layer.scores[others], before[name].scores[others])
        assert not optimizer.state[layer.scores]["exp_avg"].any()


def test_the_same_seed_gives_the_same_events_whatever_torch_s_generator(tiny):
    runs = {}
    for seed, noise in ((0, 1), (0, 2), (5, 1)):
        model = copy.deepcopy(tiny[0])
        method = bl.BeamLoRA(r=6, period=4, p_start=0.6, pairing="random", seed=seed)
        torch.manual_seed(7)
        bl.attach(model, method)
        opt = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.02)
        schedule = method.schedule(model, opt, 12)
        ids = torch.randint(3, 40, (2, 8))
        events = []
        for n in range(1, 13):
            model(input_ids=ids, labels=ids).loss.backward()
            opt.step()
            torch.manual_seed(noise)
            events += schedule.step(n)
            opt.zero_grad()
        runs[seed, noise] = events
    assert runs[0, 1] == runs[0, 2]
    assert runs[0, 1] != runs[5, 1]


def test_snapshots_on_the_cpu_change_nothing(tiny, beam):
    other = dataclasses.replace(beam, snapshot_device="cpu")
    results = []
    for method in (beam, other):
        model = copy.deepcopy(tiny[0])
        torch.manual_seed(3)
        results.append(run_steps(model, method, 12)[2])
    assert results[0] == results[1] and results[0]


def test_selection_is_in_float64_even_for_bfloat16_scores(tiny):
    model = tiny[0].bfloat16()
    method = bl.BeamLoRA(r=6, period=4, p_start=0.6)
    layers = bl.attach(model, method)
    for layer in layers.values():
        layer.bfloat16()
    _, _, events = run_steps(model, method, 8)
    assert events and all(layer.lora_A.isfinite().all() for layer in layers.values())


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9),
        lambda p, lr: torch.optim.SGD(p, lr=lr),
        lambda p, lr: torch.optim.AdamW(p, lr=lr, amsgrad=True, fused=True),
        lambda p, lr: torch.optim.RMSprop(p, lr=lr),
        lambda p, lr: torch.optim.NAdam(p, lr=lr),
    ],
)
def test_optimizers_with_entrywise_states(tiny, beam, optimizer):
    _, _, events = run_steps(tiny[0], beam, 12, optimizer=optimizer)
    assert events


def test_an_optimizer_that_can_t_be_split_is_refused_after_the_first_step(tiny, beam):
    with pytest.raises(TypeError, match="Adafactor.*row_var"):
        run_steps(tiny[0], beam, 12, optimizer=lambda p, lr: torch.optim.Adafactor(p, lr=lr))


def test_eight_bit_states_are_refused(tiny, beam):
    """As bitsandbytes keeps them: blocks of bytes, without the parameter's shape."""

    class EightBit(torch.optim.SGD):
        def step(self):
            for group in self.param_groups:
                for p in group["params"]:
                    self.state[p]["state1"] = torch.zeros(p.numel(), dtype=torch.uint8)

    with pytest.raises(TypeError, match="EightBit.*'state1'.*uint8"):
        run_steps(tiny[0], beam, 12, optimizer=lambda p, lr: EightBit(p, lr=lr))


def test_frozen_parameters_and_missing_gradients(tiny, beam):
    model, _ = tiny
    layers = bl.attach(model, beam)
    first, second, *_ = layers.values()
    first.lora_A.requires_grad_(False)
    second.requires_grad_(False)
    _, _, events = run_steps(model, beam, 12)
    assert events


def test_scores_that_are_not_finite_stop_it_before_anything_changes(tiny, beam):
    model, _ = tiny
    schedule, optimizer, _ = run_steps(model, beam, 20, stop=3)
    name, layer = list(schedule.layers.items())[5]
    with torch.no_grad():
        layer.scores[2] = float("nan")
    state = copy.deepcopy((model.state_dict(), optimizer.state_dict()["state"]))
    with pytest.raises(ValueError, match=f"{name}.*nan"):
        schedule.step(4)
    now = (model.state_dict(), optimizer.state_dict()["state"])
    torch.testing.assert_close(now, state, rtol=0, atol=0, equal_nan=True)


def test_the_scores_can_have_a_learning_rate_of_their_own(tiny):
    model, _ = tiny
    method = bl.BeamLoRA(r=4, score_lr_ratio=0.1)
    bl.attach(model, method)
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    others, scores = method.parameter_groups(parameters, 1e-3)
    assert scores["lr"] == pytest.approx(1e-4) and len(scores["params"]) == 28
    assert len(others["params"]) == 56
    run = bl.fit(model, bl.load_task("subtraction"), method=method, steps=40, **RUN)
    assert len(run.losses) == 40


def test_a_pair_that_preserves_weight_adds_what_the_source_added():
    """With a plain copy the least-squares share is exactly one half."""
    torch.manual_seed(0)
    method = bl.BeamLoRA(
        r=4, period=2, snapshot_lag=0, p_start=0.5, share="preserve", max_prune_fraction=0.25
    )
    model = nn.Sequential(nn.Linear(6, 5))
    layer = bl.attach(model, method)["0"]
    nn.init.normal_(layer.lora_B)
    with torch.no_grad():
        layer.scores.copy_(torch.tensor([0.2, 0.0, 0.01, 0.05]))
    optimizer = torch.optim.SGD([layer.lora_A, layer.lora_B, layer.scores], lr=0.1)
    (event, *_) = method.schedule(model, optimizer, 4).step(2)
    weights = layer.rank_weights()
    before = bl.ranks.score_importance(torch.tensor([0.2, 0.0, 0.01, 0.05]), 0.05)
    pair, untouched = weights[[event.slot, event.source]], weights[3]
    assert event.source == 0
    close(pair[0], pair[1], 1e-6)
    close(pair.sum() / untouched, before[0] / before[3], 1e-5)


@pytest.mark.parametrize(
    "settings, names",
    [
        ({"temperature": 0.0}, "temperature=0.0"),
        ({"period": 0}, "period=0"),
        ({"p_start": 1.5}, "p_start=1.5"),
        ({"snapshot_lag": 50}, "snapshot_lag=50.*49"),
        ({"scope": "layer"}, "scope='layer'.*'global' or 'module'"),
        ({"pairing": "best"}, "pairing='best'"),
        ({"max_prune_fraction": -0.1}, "max_prune_fraction=-0.1"),
        ({"end_step": 0}, "end_step=0"),
        ({"first_event": 0}, "first_event=0"),
        ({"score_lr_ratio": 0}, "score_lr_ratio=0"),
        ({"share": "half"}, "share='half'"),
    ],
)
def test_bad_settings(settings, names):
    with pytest.raises(ValueError, match=names):
        bl.BeamLoRA(**settings)


def test_another_model_or_method_is_refused(tiny, beam):
    bl.attach(tiny[0], bl.LoRA(r=2))
    with pytest.raises(TypeError, match="LoRALinear"):
        beam.schedule(tiny[0], torch.optim.SGD(tiny[0].parameters(), lr=1), 10)


def test_a_missed_step_is_told(tiny, beam):
    schedule, *_ = run_steps(tiny[0], beam, 20, stop=1)
    with pytest.raises(RuntimeError, match="call step"):
        schedule.step(4)
    with pytest.raises(ValueError, match="state"):
        schedule.load_state_dict({"snapshots": 1})
    assert ranks.take_snapshot(tiny[0], schedule.optimizer).tensors.keys() == schedule.layers.keys()


def test_a_run_too_short_for_an_event_is_told():
    model = net()
    method = bl.BeamLoRA(r=2, period=50)
    bl.attach(model, method)
    with pytest.warns(UserWarning, match=r"period=50, .*no event falls into total_steps=99"):
        method.schedule(model, adamw(model), 99)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        method.schedule(model, adamw(model), 100)


def test_snapshots_go_to_a_device():
    with pytest.raises(ValueError, match="snapshot_device='gpu': allowed is None or a device"):
        bl.BeamLoRA(snapshot_device="gpu")
