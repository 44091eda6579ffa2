"""A run's state: a copy, whole, of one run alone; and what a run refuses."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

import beamlora_mini as bl
from tests.helpers import FAMILY, GROW, adamw, every_method, net, run_of, step_, train_

FIT = {"steps": 8, "lr": 4e-3, "batch_size": 4, "progress": False}


@every_method
def test_a_state_is_a_copy_and_serves_twice(method):
    run = run_of(method)
    step_(run, 4)
    state = run.state_dict()
    first = step_(run, 30, first=4)
    after = copy.deepcopy(run.model.state_dict())
    for _ in range(2):
        again = run_of(method)
        again.load_state_dict(state)
        assert again.n == 4 and step_(again, 30, first=4) == first
        assert all(torch.equal(t, after[n]) for n, t in again.model.state_dict().items())


@pytest.mark.parametrize("name", ["lora", "relora", "adalora", "increlora"])
def test_a_run_inside_a_checkpoint_wrapper_resumes(name):
    """Its parameters have other names than its state_dict."""

    def begin():
        torch.manual_seed(0)
        model = net()
        bl.attach(model, FAMILY[name])
        wrapped = nn.Sequential(checkpoint_wrapper(model))
        return bl.Run(wrapped, steps=60, lr=1e-2)

    run = begin()
    step_(run, 25)
    state = run.state_dict()
    again = begin()
    again.load_state_dict(state)
    assert step_(again, 10, first=25) == step_(run, 10, first=25)
    theirs = bl.adapter_layers(run.model)
    for layer_name, layer in bl.adapter_layers(again.model).items():
        assert torch.equal(layer.delta_weight(), theirs[layer_name].delta_weight())
        assert layer.delta_weight().any()


def test_increlora_may_load_the_model_before_its_schedule():
    grown = run_of(GROW)
    step_(grown, 20)
    state = grown.state_dict()
    model = net()
    bl.attach(model, GROW)
    optimizer = adamw(model)
    schedule = GROW.schedule(model, optimizer, 60)
    model.load_state_dict(grown.model.state_dict())
    schedule.load_state_dict(state["schedule"])
    assert [la.r for la in schedule.layers.values()] == [
        la.r for la in grown.schedule.layers.values()
    ]
    trained = {p for group in optimizer.param_groups for p in group["params"]}
    assert trained == {p for p in model.parameters() if p.requires_grad}
    optimizer.load_state_dict(state["optimizer"])
    train_(model, optimizer, schedule, 3, first=21)


def test_a_refused_state_has_let_nothing_grow():
    grown = run_of(GROW)
    step_(grown, 20)
    state = grown.state_dict()
    fresh = run_of(GROW)
    state["tensors"]["head.weight"] = torch.zeros(2)
    with pytest.raises(ValueError, match=r"another model: 1 tensors differ.*head\.weight"):
        fresh.load_state_dict(state)
    assert [layer.r for layer in fresh.schedule.layers.values()] == [1, 1]
    assert not fresh.schedule.growth.grown and fresh.n == 0


def test_an_optimizer_of_ones_own_is_part_of_a_runs_identity():
    runs = []
    for rate in (0.1, 0.01):
        model = net()
        bl.attach(model, bl.LoRA(r=2))
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=rate)
        runs.append(bl.Run(model, steps=4, optimizer=optimizer))
    with pytest.raises(ValueError, match=r"^optimizer=.*0\.01.*begun with.*0\.1"):
        runs[1].load_state_dict(runs[0].state_dict())
    with pytest.raises(ValueError, match=r"does not train 0\.lora_A"):
        bl.Run(runs[0].model, steps=4, optimizer=torch.optim.SGD(nn.Linear(2, 2).parameters()))


def test_numbers_and_notes_of_any_kind_can_be_resumed(tiny, tmp_path):
    """A checkpoint is read without running what it holds: NumPy's numbers and devices are not in it."""
    history = bl.RankHistory(every=2)
    history.info = {
        "torch": torch.__version__,
        "device": torch.device("cpu"),
        "rate": np.float64(2),
    }
    settings = {"steps": 4, "batch_size": 4, "progress": False, "checkpoint_dir": tmp_path}
    method = bl.LoRA(r=2)
    first = bl.fit(
        copy.deepcopy(tiny[0]), "subtraction", method=method, lr=np.float64(1e-3),
        history=history, **settings,
    )  # fmt: skip
    again = bl.RankHistory(every=2)
    second = bl.fit(
        tiny[0], "subtraction", method=method, lr=1e-3, history=again, resume=True, **settings
    )
    assert second.losses == first.losses and again.info["device"] == "cpu"
    history.save(tmp_path / "run.parquet")


def test_a_method_that_leaves_parameters_out_is_told():
    class OnlyB(bl.LoRA):
        def parameter_groups(self, parameters, lr):
            return [{"params": [p for name, p in parameters.items() if name.endswith("lora_B")]}]

    with pytest.raises(ValueError, match=r"does not train 0\.lora_A"):
        run_of(OnlyB(r=2))


@pytest.mark.parametrize("method", ["lora", bl.LoRA, None, 3])
def test_what_is_no_method_is_told(tiny, method):
    with pytest.raises(TypeError, match="method=.*with its settings, as in LoRA"):
        bl.attach(tiny[0], method)
    with pytest.raises(TypeError, match="model=tuple: allowed is a torch"):
        bl.attach(tiny, bl.LoRA())
    if method is not None:
        with pytest.raises(TypeError, match="method=.*with its settings"):
            bl.fit(tiny[0], "subtraction", method=method, **FIT)
    assert not bl.adapter_layers(tiny[0])


def test_a_rate_beside_an_optimizer_is_told():
    model = net()
    bl.attach(model, bl.LoRA(r=2))
    with pytest.raises(ValueError, match=r"lr=0\.01: allowed is None beside an optimizer"):
        bl.Run(model, steps=3, lr=0.01, optimizer=adamw(model))


def test_a_run_ends():
    run = run_of(bl.LoRA(r=2), steps=3)
    step_(run, 3)
    with pytest.raises(RuntimeError, match=r"step 4: the run was made for steps=3"):
        run.update()


def test_a_set_of_targets_is_the_same_method_everywhere():
    one, other = (bl.LoRA(target_modules=set(names)) for names in ("abc", "cab"))
    assert repr(one) == repr(other) and one.target_modules == ("a", "b", "c")
