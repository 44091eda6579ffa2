"""A method of one's own is one file: docs/sora.py, of which the package has never heard, is served by
all that serves the eight."""

import copy
from pathlib import Path

import pytest
import torch
from sora import SoRA

import beamlora_mini as bl
from beamlora_mini.many import Trial, fit_many
from beamlora_mini.ranks import expand_ranks_, reset_ranks_, split_ranks_, take_snapshot

DOCS = Path(__file__).resolve().parent.parent / "docs"

METHOD = SoRA(r=4, sparsity=8.0)
RUN = {"steps": 40, "lr": 8e-3, "batch_size": 8, "progress": False}


@pytest.fixture
def trained(tiny):
    history = bl.RankHistory(every=10)
    log = bl.fit(tiny[0], "subtraction", method=METHOD, history=history, **RUN)
    return tiny[0], log, history


def test_it_fits_on_a_page_and_the_package_does_not_know_it():
    assert len((DOCS / "sora.py").read_text().splitlines()) <= 40
    assert len(bl.METHODS) == 8
    for file in Path(bl.__file__).parent.rglob("*.py"):
        assert "sora" not in file.read_text(encoding="utf-8").lower(), file


def test_fit_trains_and_closes_gates(trained):
    model, log, history = trained
    assert log.losses[-1] < 0.9 * log.losses[0]
    assert log.events and {event.kind for event in log.events} == {"prune"}
    assert history.events == log.events
    closed = sum(int((layer.gate == 0).sum()) for layer in bl.adapter_layers(model).values())
    last = history.importance[-1]
    assert closed == sum(int((values == 0).sum()) for values in last.values()) > 0


def test_it_merges_and_comes_off(trained):
    model, *_ = trained
    ids = torch.arange(1, 21).reshape(2, 10)
    before = model(ids).logits
    bl.merge(model)
    torch.testing.assert_close(model(ids).logits, before, rtol=1e-4, atol=1e-4)
    bl.unmerge(model)
    assert torch.equal(model(ids).logits, before)
    bl.merge_and_unload(model)
    torch.testing.assert_close(model(ids).logits, before, rtol=1e-4, atol=1e-4)


def test_it_runs_beside_others(tiny):
    model, _ = tiny
    trials = [Trial(METHOD, 8e-3, 3), Trial(bl.LoRA(r=2), 4e-3)]
    settings = RUN | {"steps": 20}
    del settings["lr"]
    mine, _ = fit_many(model, "subtraction", trials, **settings)
    alone = bl.fit(model, "subtraction", method=METHOD, lr=8e-3, seed=3, **settings)
    assert mine.losses == pytest.approx(alone.losses, rel=2e-3)
    assert [e[:4] for e in mine.events] == [e[:4] for e in alone.events]


def test_its_ranks_move_whole_and_can_be_pruned(trained):
    model, *_ = trained
    layer = bl.adapter_layers(model)["model.layers.0.mlp.up_proj"]
    run = bl.Run(model, steps=10, lr=1e-3)
    ids = torch.arange(1, 21).reshape(2, 10)
    model(ids, labels=ids).loss.backward()
    run.update()
    with torch.no_grad():
        layer.gate.copy_(torch.tensor([0.5, 0.0, 2.0, 1.0]))
        layer.open.copy_(layer.gate != 0)
    snapshot = take_snapshot(model, run.optimizer)
    expand_ranks_(layer, run.optimizer, [1], [2], snapshot)
    assert layer.gate.tolist() == [0.5, 2.0, 2.0, 1.0] and layer.open[1]
    moments = run.optimizer.state[layer.gate]["exp_avg"]
    assert torch.equal(layer.lora_A[1], layer.lora_A[2]) and moments[1] == moments[2]
    reset_ranks_(layer, run.optimizer, [0], init="zero")
    before = layer.delta_weight()
    split_ranks_(layer, run.optimizer, [0], [3])
    torch.testing.assert_close(layer.delta_weight(), before)
    assert layer.gate[0] == 1


@pytest.mark.parametrize("step", [7, 23, 38])
def test_it_goes_on_after_a_crash(tiny, crash_and_resume, step):
    method = SoRA(r=4, sparsity=8.0, lora_dropout=0.1)
    whole = copy.deepcopy(tiny[0])
    settings = {"method": method, "checkpoint_every": 5, **RUN}
    log = bl.fit(whole, "subtraction", **settings)
    resumed, again = crash_and_resume(tiny[0], "subtraction", step, **settings)
    assert again.losses == log.losses and again.events == log.events
    state, wanted = resumed.state_dict(), whole.state_dict()
    assert state.keys() == wanted.keys() and all(torch.equal(state[n], wanted[n]) for n in state)
    assert any("open" in name for name in state)
