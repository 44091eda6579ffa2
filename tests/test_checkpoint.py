"""Stop and resume: a run that went on is the run that did not stop; another run is refused."""

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

import beamlora_mini as bl
from tests.helpers import RUN, adapter_state, equal


def test_a_resumed_run_is_the_run_that_did_not_stop(tiny, task, crash_and_resume):
    method, run = bl.LoRA(r=2, lora_dropout=0.2), RUN | {"steps": 8, "checkpoint_every": 3}
    whole = copy.deepcopy(tiny[0])
    history = bl.fit(whole, task, method=method, **run)

    resumed, again = crash_and_resume(tiny[0], task, 6, method=method, **run)
    assert again.losses == history.losses and again.tokens == history.tokens
    assert equal(adapter_state(resumed), adapter_state(whole))


def test_foreign_and_damaged_checkpoints_change_nothing(tiny, task, tmp_path):
    model, other = tiny[0], copy.deepcopy(tiny[0])
    run = RUN | {"steps": 6}
    bl.fit(model, task, method=bl.LoRA(r=2), checkpoint_dir=tmp_path, **run)
    bl.attach(other, bl.LoRA(r=3))
    resume = {"checkpoint_dir": tmp_path, "resume": True}
    with pytest.raises(ValueError, match=r"method\.r=3: .*method\.r=2"):
        bl.fit(other, task, **run, **resume)
    shorter = copy.deepcopy(tiny[0])
    bl.detach(shorter)
    shorter.model.layers = shorter.model.layers[:3]
    with pytest.raises(ValueError, match="another model"):
        bl.fit(shorter, task, method=bl.LoRA(r=2), **run, **resume)
    assert not bl.adapter_layers(shorter)
    bl.detach(other)
    bl.attach(other, bl.LoRA(r=2))
    before = adapter_state(other)
    with pytest.raises(ValueError, match=r"seed=1: .* seed=0"):
        bl.fit(other, task, seed=1, **run, **resume)
    file = tmp_path / "checkpoint.pt"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        bl.fit(other, task, **run, **resume)
    assert equal(adapter_state(other), before)
    bare = copy.deepcopy(tiny[0])
    bl.detach(bare)
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        bl.fit(bare, task, method=bl.LoRA(r=2), **run, **resume)
    assert not bl.adapter_layers(bare)
    with pytest.raises(ValueError, match="checkpoint_dir=None"):
        bl.fit(other, task, resume=True, **run)


@pytest.mark.parametrize("reset", ["zero", "random"])
def test_relora_resumes_over_restarts(tiny, tmp_path, crash_and_resume, reset):
    task = bl.load_task("subtraction")
    method = bl.ReLoRA(
        r=2, merge_every=3, restart_warmup=1, reset=reset, keep=0.1, lora_dropout=0.1
    )
    run = RUN | {"steps": 11, "checkpoint_every": 5}
    whole = copy.deepcopy(tiny[0])
    history = bl.fit(whole, task, method=method, **run)
    assert len(history.events) == 3 * 28 and history.learning_rates[3] == 0

    # a checkpoint at 5, a restart at 6 that must be done again
    resumed, again = crash_and_resume(tiny[0], task, 9, method=method, **run)
    assert again.losses == history.losses and again.events == history.events
    state = whole.state_dict()
    assert all(torch.equal(t, state[n]) for n, t in resumed.state_dict().items())
    other = copy.deepcopy(tiny[0])
    with pytest.raises(ValueError, match=r"method\.merge_every=4"):
        longer = dataclasses.replace(method, merge_every=4)
        bl.fit(other, task, method=longer, checkpoint_dir=tmp_path, resume=True, **run)
    assert not bl.adapter_layers(other)


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


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(tiny, tmp_path):
    model, _ = tiny
    task = bl.load_task("subtraction")
    method = bl.BeamLoRA(r=4, period=10, p_start=0.7)
    run = RUN | {"steps": 40}
    whole = copy.deepcopy(model)
    record = bl.RankHistory(every=5)
    wanted = bl.fit(whole, task, method=method, history=record, **run)
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
        bl.fit(broken, task, method=method, history=Crash(every=5), **run, **again)
    resumed = copy.deepcopy(model)
    second = bl.RankHistory(every=5)
    got = bl.fit(resumed, task, method=method, resume=True, history=second, **run, **again)
    assert got.losses == wanted.losses
    assert got.events == wanted.events
    for name, layer in bl.adapter_layers(whole).items():
        other = bl.adapter_layers(resumed)[name]
        assert torch.equal(layer.lora_A, other.lora_A) and torch.equal(layer.scores, other.scores)
    assert second.to_pandas().equals(record.to_pandas())
    assert second.lineage().equals(record.lineage())


@dataclasses.dataclass(frozen=True)
class Noted(bl.LoRA):
    note: Path = Path("somewhere")


def test_settings_of_any_type_resume(tiny, task, tmp_path):
    numbers = {name: np.int64(value) for name, value in {"batch_size": 8, "seed": 1}.items()}
    settings = {"lr": np.float32(1e-3), "betas": (np.float64(0.9), 0.99), "progress": False}
    settings |= {"checkpoint_dir": tmp_path, "method": Noted(r=np.int64(2)), **numbers}
    first = bl.fit(tiny[0], task, steps=np.int64(3), **settings)
    again = copy.deepcopy(tiny[0])
    assert bl.fit(again, task, steps=np.int64(3), resume=True, **settings).losses == first.losses
    with pytest.raises(ValueError, match=r"method\.note=.*elsewhere"):
        other = settings | {"method": Noted(r=2, note=Path("elsewhere"))}
        bl.detach(again)
        bl.fit(again, task, steps=3, resume=True, **other)


def test_to_resume_from_nothing_is_told(tiny, task, tmp_path):
    with pytest.warns(UserWarning, match=r"resume=True: there is no .*checkpoint\.pt: .*anew"):
        bl.fit(
            tiny[0], task, method=bl.LoRA(r=2), steps=1, checkpoint_dir=tmp_path, resume=True, **RUN
        )
