"""BeamLoRA against the official code's numbers (tests/vectors), and what its schedule promises.

The vectors come from the official BeamLoRA code (gccnlp/BeamLoRA at 2610c6a) in float64, its random
pairing replaced by the identity. It says gate for scores.
"""

import copy
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

import beamlora_mini as bl
from beamlora_mini import ranks

VECTORS = Path(__file__).parent / "vectors"
PART = {"A": "lora_A", "B": "lora_B", "gate": "scores"}
RUN = {"steps": 40, "lr": 4e-3, "batch_size": 8, "progress": False}


def vectors(name):
    with np.load(VECTORS / f"{name}.npz") as file:
        return {
            key: torch.from_numpy(file[key]) for key in file if file[key].dtype.kind not in "US"
        }


def texts(name, key):
    return np.load(VECTORS / f"{name}.npz")[key]


def close(a, b, tolerance):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@torch.no_grad()
def fill(layer, A, B, scores):
    layer.lora_A.copy_(A)
    layer.lora_B.copy_(B)
    layer.scores.copy_(scores.flatten())


# Against the official code


@pytest.mark.parametrize("case", range(3))
def test_forward_backward_and_merge(case):
    v = {k.split("|")[1]: t for k, t in vectors("forward").items() if k.startswith(f"case{case}|")}
    inputs, outputs, r, alpha = vectors("forward")["shapes"][case].tolist()
    base = nn.Linear(inputs, outputs, bias="bias" in v).double()
    base.load_state_dict({"weight": v["W"]} | ({"bias": v["bias"]} if "bias" in v else {}))
    layer = bl.attach(nn.Sequential(base), bl.BeamLoRA(r=r, lora_alpha=alpha))["0"]
    fill(layer, v["A"], v["B"], v["gate"])
    x = v["x"].requires_grad_()
    y = layer(x)
    y.backward(v["grad_y"])
    close(y, v["y"], 1e-12)
    close(layer.delta_weight(), v["delta"], 1e-12)
    close(x.grad, v["x.grad"], 1e-12)
    for theirs, ours in PART.items():
        close(getattr(layer, ours).grad, v[f"{theirs}.grad"].view_as(getattr(layer, ours)), 1e-12)
    layer.merge()
    close(layer.merged_weight, v["W_merged"], 1e-12)
    layer.eval()
    close(layer(x), v["y_merged"], 1e-12)


def event_model(v, names):
    """Bare linear layers under the vectors' names, with the adapters and Adam as before the event."""
    model = nn.Module()
    for name in names:
        inputs, outputs = v[f"{name}|A|before"].shape[1], v[f"{name}|B|before"].shape[0]
        parent = model
        *path, last = name.split(".")
        for part in path:
            if not hasattr(parent, part):
                parent.add_module(part, nn.Module())
            parent = getattr(parent, part)
        parent.add_module(last, nn.Linear(inputs, outputs).double())
    return model


def put(layer, optimizer, v, name, moment):
    fill(layer, *(v[f"{name}|{part}|{moment}"] for part in PART))
    for theirs, ours in PART.items():
        parameter = getattr(layer, ours)
        states = {
            key: v[f"{name}|{theirs}.{key}|{moment}"].clone()
            for key in ("exp_avg", "exp_avg_sq", "step")
        }
        optimizer.state[parameter] = {
            key: t if key == "step" else t.view_as(parameter) for key, t in states.items()
        }


@pytest.mark.parametrize("copy_moments", [False, True])
@pytest.mark.parametrize("vector", ["prune_expand_a", "prune_expand_c"])
def test_one_event(vector, copy_moments):
    v, names = vectors(vector), texts(vector, "module_names")
    model = event_model(v, names)
    p = v["p"].item()
    method = bl.BeamLoRA(
        r=8, period=2, p_start=p, end_step=10**9, max_prune_fraction=1, copy_moments=copy_moments
    )
    layers = bl.attach(model, method)
    assert list(layers) == list(names)
    optimizer = torch.optim.AdamW(q for q in model.parameters() if q.requires_grad)
    schedule = method.schedule(model, optimizer, 4)
    for name, layer in layers.items():
        put(layer, optimizer, v, name, "snapshot")
    assert schedule.step(1) == []
    for name, layer in layers.items():
        put(layer, optimizer, v, name, "before")
        close(layer.rank_importance(), v[f"{name}|importance"].flatten(), 1e-12)
    events = schedule.step(2)

    for name, layer in layers.items():
        mine = [event for event in events if event.module == name]
        assert [e.slot for e in mine] == v[f"{name}|mask"].flatten().nonzero().flatten().tolist()
        assert [e.source for e in mine] == v[f"{name}|sources"].tolist()[: len(mine)]
        for theirs, ours in PART.items():
            parameter = getattr(layer, ours)
            close(parameter, v[f"{name}|{theirs}|after"].view_as(parameter), 1e-12)
            state = optimizer.state[parameter]
            for key in ("exp_avg", "exp_avg_sq"):
                outcome = "intended" if copy_moments and theirs != "gate" else "after"
                wanted = v[f"{name}|{theirs}.{key}|{outcome}"]
                close(state[key], wanted.view_as(parameter), 1e-12)
            assert state["step"] == v[f"{name}|{theirs}.step|after"]
    assert 0 < len(events) < 14 * 8


@pytest.mark.parametrize("vector", ["trajectory", "trajectory_intended"])
def test_sixty_steps(vector):
    v, names = vectors(vector), texts(vector, "module_names")
    config = LlamaConfig(**json.loads(str(texts(vector, "config_json"))))
    config._attn_implementation = "eager"
    model = LlamaForCausalLM(config).double()
    model.load_state_dict({k.split("|")[1]: t for k, t in v.items() if k.startswith("base|")})
    plan = json.loads(str(texts(vector, "schedule_json")))
    method = bl.BeamLoRA(
        r=8, lora_alpha=16, period=10, p_start=plan["p_start"], end_step=plan["end_step"],
        max_prune_fraction=1, copy_moments=vector == "trajectory_intended",
    )  # fmt: skip
    layers = bl.attach(model, method)
    assert list(layers) == list(names)
    for name, layer in layers.items():
        fill(layer, *(v[f"{name}|{part}|init"] for part in PART))
    optimizer = torch.optim.AdamW(
        [q for q in model.parameters() if q.requires_grad], lr=plan["lr"], weight_decay=0
    )
    schedule = method.schedule(model, optimizer, plan["total"])
    for n, (ids, wanted) in enumerate(zip(v["batches"], v["loss"]), start=1):
        loss = model(input_ids=ids, labels=ids).loss
        close(loss.double(), wanted, 2e-6)
        loss.backward()
        optimizer.step()
        events = schedule.step(n)
        optimizer.zero_grad()
        if n in (10, 20, 30, 40, 50):
            assert events[0].threshold == pytest.approx(v["event_p"][n // 10 - 1].item(), abs=1e-7)
            for name in names:
                slots = {e.slot: e.source for e in events if e.module == name}
                assert sorted(slots) == v[f"{name}|mask|{n}"].flatten().nonzero().flatten().tolist()
                assert list(slots.values()) == v[f"{name}|sources|{n}"].tolist()[: len(slots)]
        else:
            assert events == []
    for name, layer in layers.items():
        for theirs, ours in PART.items():
            parameter = getattr(layer, ours)
            close(parameter, v[f"{name}|{theirs}|final"].view_as(parameter), 1e-7)
        close(layer.delta_weight(), v[f"{name}|delta|final"], 1e-7)
    with torch.no_grad():
        close(model(v["eval_ids"]).logits.double(), v["logits_adapter"].double(), 2e-6)
        bl.merge_and_unload(model)
        close(model(v["eval_ids"]).logits.double(), v["logits_merged"].double(), 2e-6)


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


# The schedule


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


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(tiny, tmp_path):
    model, _ = tiny
    task = bl.load_task("subtraction")
    method = bl.BeamLoRA(r=4, period=10, p_start=0.7)
    whole = copy.deepcopy(model)
    record = bl.RankHistory(every=5)
    wanted = bl.fit(whole, task, method=method, history=record, **RUN)
    assert wanted.events

    class Stop(Exception):
        pass

    class Crash(bl.RankHistory):
        def record(self, model, step, *rest, **more):
            super().record(model, step, *rest, **more)
            if step == 18:  # between a snapshot and its event
                raise Stop

    broken = copy.deepcopy(model)
    again = {"checkpoint_dir": tmp_path, "checkpoint_every": 16}
    with pytest.raises(Stop):
        bl.fit(broken, task, method=method, history=Crash(every=5), **RUN, **again)
    resumed = copy.deepcopy(model)
    second = bl.RankHistory(every=5)
    got = bl.fit(resumed, task, method=method, resume=True, history=second, **RUN, **again)
    assert got.losses == wanted.losses
    assert got.events == wanted.events
    for name, layer in bl.adapter_layers(whole).items():
        other = bl.adapter_layers(resumed)[name]
        assert torch.equal(layer.lora_A, other.lora_A) and torch.equal(layer.scores, other.scores)
    assert second.to_pandas().equals(record.to_pandas())
    assert second.lineage().equals(record.lineage())


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
    run = bl.fit(model, bl.load_task("subtraction"), method=method, **RUN)
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


def test_as_published_is_the_official_code_as_it_executes():
    method = bl.BeamLoRA.as_published(period=10, r=64)
    assert (method.snapshot_lag, method.max_prune_fraction, method.pairing) == (4, 1.0, "random")
    assert not method.copy_moments
    with pytest.raises(ValueError, match="period=7"):
        bl.BeamLoRA.as_published(period=7)


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


# Two processes


def train_in_one_of_two(rank, folder):
    """One of two DDP processes: its own batches, its own state of torch's generator."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    torch.set_num_threads(1)
    model, _ = bl.load_model("tiny", device="cpu")
    torch.manual_seed(0)
    method = bl.BeamLoRA(r=6, period=4, p_start=0.6, pairing="random")
    bl.attach(model, method)
    parallel = nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.02)
    schedule = method.schedule(model, optimizer, 12)
    torch.manual_seed(rank)
    events = []
    for n in range(1, 13):
        ids = torch.randint(3, 40, (2, 8))
        parallel(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        events += schedule.step(n)
        optimizer.zero_grad()
    parameters = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
    torch.save((parameters, [tuple(event) for event in events]), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_decide_alike_without_a_word(tmp_path):
    torch.multiprocessing.spawn(train_in_one_of_two, (str(tmp_path),), nprocs=2)
    (first, events), (second, other_events) = (torch.load(tmp_path / f"{i}.pt") for i in range(2))
    assert events == other_events and events
    assert all(torch.equal(t, second[name]) for name, t in first.items())
