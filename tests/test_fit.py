"""fit: what a run does, what is repeatable, what is refused."""

import copy
import math
import sys

import pytest
import torch
from datasets import Dataset

import beamlora_mini as bl
from beamlora_mini.loss import answer_loss
from tests.helpers import RUN, adapter_state, equal


def test_a_short_run_learns_and_leaves_the_base_alone(tiny, task):
    model, _ = tiny
    before = {n: t.clone() for n, t in model.state_dict().items()}
    base_loss = bl.evaluate(model, task, limit=100, progress=False)["loss"]
    history = bl.fit(model, task, method=bl.LoRA(r=8), steps=60, **RUN)
    after = bl.evaluate(model, task, limit=100, progress=False)["loss"]
    assert after < 0.7 * base_loss
    assert len(history.losses) == len(history.learning_rates) == 60
    assert history.tokens_per_second > 0 and not model.training
    bl.detach(model)
    assert equal(model.state_dict(), before)


def test_the_learning_rate_warms_up_and_falls_along_a_cosine(tiny, task):
    rates = bl.fit(tiny[0], task, method=bl.LoRA(r=1), warmup=0.2, steps=10, **RUN)
    expected = [0, 0.5] + [0.5 * (1 + math.cos(math.pi * k / 8)) for k in range(8)]
    assert rates.learning_rates == pytest.approx([4e-3 * e for e in expected], abs=1e-9)


def test_the_same_seed_is_the_same_run_and_another_is_not(tiny, task):
    runs = []
    for seed in (3, 3, 4):
        model = copy.deepcopy(tiny[0])
        losses = bl.fit(
            model, task, method=bl.LoRA(r=2, lora_dropout=0.1), seed=seed, steps=6, **RUN
        ).losses
        runs.append((losses, adapter_state(model)))
    assert runs[0][0] == runs[1][0] and equal(runs[0][1], runs[1][1])
    assert runs[0][0] != runs[2][0]


def test_without_a_method_everything_trainable_is_trained(tiny, task):
    model, _ = tiny
    before = adapter_state(model)
    bl.fit(model, task, steps=6, **RUN)
    assert all(not torch.equal(t, before[n]) for n, t in adapter_state(model).items())


def test_an_attached_method_is_used_again_and_another_is_refused(tiny, task):
    model, _ = tiny
    method = bl.LoRA(r=2)
    layers = bl.attach(model, method)
    bl.fit(model, task, method=method, steps=6, **RUN)
    bl.fit(model, task, steps=6, **RUN)
    assert bl.adapter_layers(model) == layers
    with pytest.raises(ValueError, match="already has 28 adapters"):
        bl.fit(model, task, method=bl.LoRA(r=3), steps=6, **RUN)


@pytest.mark.parametrize(
    ("argument", "value"),
    [("steps", 0), ("batch_size", 0), ("lr", 0.0), ("warmup", 1.0), ("steps", 1.5)],
)
def test_bad_settings_change_nothing(tiny, task, argument, value):
    model, _ = tiny
    with pytest.raises(ValueError, match=f"{argument}={value!r}"):
        bl.fit(model, task, method=bl.LoRA(), **RUN | {"steps": 6, argument: value})
    assert not bl.adapter_layers(model) and all(p.requires_grad for p in model.parameters())


def test_nothing_to_train_no_tokenizer_and_wrong_tasks_are_refused(tiny, task):
    model, _ = tiny
    with pytest.raises(ValueError, match="prompt and answer"):
        bl.fit(model, Dataset.from_dict({"text": ["a"]}), steps=6, **RUN)
    with pytest.raises(ValueError, match="'train' split is empty"):
        bl.fit(model, task["train"].select([]), steps=6, **RUN)
    with pytest.raises(ValueError, match="allowed are subtraction"):
        bl.fit(model, "no such task", steps=6, **RUN)
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="attach a method first"):
        bl.fit(model, task, steps=6, **RUN)
    del model.tokenizer
    with pytest.raises(ValueError, match="tokenizer"):
        bl.evaluate(model, task)


@pytest.mark.parametrize("step", [1, 3])
def test_a_loss_that_is_not_finite_stops_the_run(tiny, task, monkeypatch, step):
    model, _ = tiny
    calls = []

    def broken(model, batch):
        calls.append(1)
        return answer_loss(model, batch) * (float("nan") if len(calls) == step else 1)

    monkeypatch.setattr(sys.modules["beamlora_mini.fit"], "answer_loss", broken)
    words = rf"step {step}: the loss is nan .*first prompt is '\d+-\d+='.*Lower lr=0.004"
    with pytest.raises(FloatingPointError, match=words):
        bl.fit(model, task, method=bl.LoRA(r=2), steps=4, **RUN)
    # What has been learned so far is not thrown away.
    assert len(bl.adapter_layers(model)) == (0 if step == 1 else 28)
    assert all(p.isfinite().all() for p in model.parameters()) and not model.training
    # To follow the advice is safe: nothing of the step that broke off is left.
    assert all(p.grad is None for p in model.parameters())
    assert all(map(math.isfinite, bl.fit(model, task, steps=2, **RUN | {"lr": 1e-4}).losses))


def test_gradients_from_before_have_no_part_in_a_run(tiny, task):
    runs = []
    for stale in (False, True):
        model = copy.deepcopy(tiny[0])
        for p in model.parameters() if stale else ():
            p.grad = torch.full_like(p, float("nan"))
        runs.append(bl.fit(model, task, steps=2, **RUN).losses)
    assert runs[0] == runs[1]


def test_what_fails_in_the_first_step_leaves_the_model_as_it_was(tiny, task, monkeypatch):
    model, _ = tiny
    before, modes = adapter_state(model), [m.training for m in model.modules()]

    def broken(model, batch):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(sys.modules["beamlora_mini.fit"], "answer_loss", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        bl.fit(model, task, method=bl.BeamLoRA(r=2), steps=60, **RUN)
    assert not bl.adapter_layers(model) and equal(adapter_state(model), before)
    assert [m.training for m in model.modules()] == modes


def test_a_history_holds_nothing_of_a_run_that_did_not_begin(tiny, task, monkeypatch):
    history = bl.RankHistory(every=1)
    with monkeypatch.context() as patch, pytest.raises(TypeError):
        patch.setattr(sys.modules["beamlora_mini.fit"], "answer_loss", None)
        bl.fit(tiny[0], task, method=bl.LoRA(r=2), steps=2, history=history, **RUN)
    bl.fit(tiny[0], task, method=bl.LoRA(r=2), steps=2, history=history, **RUN)
    assert history.steps == [0, 1, 2]


def test_a_wrong_history_is_refused_first(tiny, task):
    with pytest.raises(ValueError, match="history=5: allowed is None or a RankHistory"):
        bl.fit(tiny[0], task, method=bl.LoRA(), steps=2, history=5, **RUN)
    assert not bl.adapter_layers(tiny[0])
