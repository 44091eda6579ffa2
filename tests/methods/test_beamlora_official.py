"""BeamLoRA against the official code's numbers (tests/vectors).

The vectors come from the official BeamLoRA code (gccnlp/BeamLoRA at 2610c6a) in float64, its random
pairing replaced by the identity. It says gate for scores.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

import beamlora_mini as bl
from tests.helpers import close

VECTORS = Path(__file__).parents[1] / "vectors"
PART = {"A": "lora_A", "B": "lora_B", "gate": "scores"}


def vectors(name):
    with np.load(VECTORS / f"{name}.npz") as file:
        return {
            key: torch.from_numpy(file[key]) for key in file if file[key].dtype.kind not in "US"
        }


def texts(name, key):
    return np.load(VECTORS / f"{name}.npz")[key]


@torch.no_grad()
def fill(layer, A, B, scores):
    layer.lora_A.copy_(A)
    layer.lora_B.copy_(B)
    layer.scores.copy_(scores.flatten())


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


def test_as_published_is_the_official_code_as_it_executes():
    method = bl.BeamLoRA.as_published(period=10, r=64)
    assert (method.snapshot_lag, method.max_prune_fraction, method.pairing) == (4, 1.0, "random")
    assert not method.copy_moments
    with pytest.raises(ValueError, match="period=7"):
        bl.BeamLoRA.as_published(period=7)
