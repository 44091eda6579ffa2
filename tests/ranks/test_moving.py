"""One rank in the place of another: what moves with it, and what stays."""

import copy

import pytest
import torch
from torch import nn

import beamlora_mini as bl
from beamlora_mini import ranks
from beamlora_mini.ranks import add_noise_, expand_ranks_, reset_ranks_, split_ranks_, take_snapshot
from tests.helpers import adamw, close, net, train_


@pytest.fixture
def trained(adapted):
    model, layer, *_ = adapted
    optimizer = torch.optim.AdamW([layer.lora_A, layer.lora_B], lr=0.1)
    optimizer.step()
    return model, layer, optimizer


def parts(layer, optimizer):
    return {
        f"{name}.{key}": t.clone()
        for name in ("lora_A", "lora_B")
        for key, t in {"": getattr(layer, name).detach()}.items()
        | optimizer.state[getattr(layer, name)].items()
    }


def test_a_snapshot_taken_now_makes_plain_copies(trained):
    model, layer, optimizer = trained
    before = parts(layer, optimizer)
    ranks.expand_ranks_(layer, optimizer, [1, 3], [2, 0], ranks.take_snapshot(model, optimizer))
    after = parts(layer, optimizer)
    for key in before:
        if key.endswith("step"):
            assert after[key] == before[key]
            continue
        old, new = (t.T if key.startswith("lora_B") else t for t in (before[key], after[key]))
        assert torch.equal(new[[0, 1, 2, 3]], old[[0, 2, 2, 0]])


def test_a_split_keeps_the_function(trained):
    _, layer, optimizer = trained
    ranks.reset_ranks_(layer, optimizer, [1], init="zero")
    before = layer.delta_weight()
    ranks.split_ranks_(layer, optimizer, [1], [2])
    torch.testing.assert_close(layer.delta_weight(), before)
    assert torch.equal(layer.lora_A[1], layer.lora_A[2])


def test_a_split_keeps_the_function_whatever_the_scores():
    torch.manual_seed(0)
    layer = bl.attach(nn.Sequential(nn.Linear(7, 5)), bl.BeamLoRA(r=4))["0"]
    nn.init.normal_(layer.lora_B)
    nn.init.normal_(layer.scores, std=0.05)
    optimizer = torch.optim.AdamW([layer.lora_A, layer.lora_B])
    without = layer.delta_weight() - layer.scaling * layer.rank_weights()[1] * torch.outer(
        layer.lora_B[:, 1], layer.lora_A[1]
    )
    ranks.split_ranks_(layer, optimizer, [1], [2])
    torch.testing.assert_close(layer.delta_weight(), without)


@pytest.mark.parametrize("slots, sources", [([0, 1], [2, 2]), ([0], [0]), ([0, 1], [1, 2])])
def test_a_split_needs_different_ranks(trained, slots, sources):
    _, layer, optimizer = trained
    before = parts(layer, optimizer)
    with pytest.raises(ValueError, match=r"slots=.*different ranks"):
        ranks.split_ranks_(layer, optimizer, slots, sources)
    assert all(torch.equal(t, before[key]) for key, t in parts(layer, optimizer).items())


def test_a_snapshot_of_the_start_copies_moments_of_zero(adapted):
    model, layer, *_ = adapted
    optimizer = torch.optim.AdamW([layer.lora_A, layer.lora_B])
    snapshot = ranks.take_snapshot(model, optimizer)
    optimizer.step()
    ranks.expand_ranks_(layer, optimizer, [1], [2], snapshot)
    moments = [optimizer.state[layer.lora_A][key] for key in ("exp_avg", "exp_avg_sq")]
    assert not any(moment[1].any() for moment in moments)
    assert all(moment[[0, 2, 3]].any() for moment in moments)


def test_a_reset_rank_adds_nothing_and_can_learn_again_unless_it_is_zeroed(trained):
    _, layer, optimizer = trained
    for init, learns in (("kaiming", True), ("zero", False)):
        ranks.reset_ranks_(layer, optimizer, [2], init, torch.Generator().manual_seed(0))
        assert not layer.lora_B[:, 2].any()
        assert not optimizer.state[layer.lora_B]["exp_avg"][:, 2].any()
        assert bool(layer.lora_A[2].any()) is learns


def test_noise_touches_only_its_ranks(trained):
    _, layer, _ = trained
    before = layer.lora_A.detach().clone()
    ranks.add_noise_(layer, [0], 0.1, torch.Generator().manual_seed(0))
    assert torch.equal(layer.lora_A[1:], before[1:])
    change = (layer.lora_A[0] - before[0]).norm() / before[0].norm()
    assert 0.02 < change < 0.3


@pytest.mark.parametrize(
    "slots, sources", [([0], [4]), ([-1], [0]), ([0, 1], [2]), ([1, 1], [2, 3])]
)
def test_bad_indices_change_nothing(trained, slots, sources):
    model, layer, optimizer = trained
    before, snapshot = parts(layer, optimizer), ranks.take_snapshot(model, optimizer)
    with pytest.raises(ValueError, match=r"slots|sources"):
        ranks.expand_ranks_(layer, optimizer, slots, sources, snapshot)
    assert all(torch.equal(t, before[key]) for key, t in parts(layer, optimizer).items())


def test_a_snapshot_of_another_model_is_refused(trained):
    model, layer, optimizer = trained
    snapshot = ranks.take_snapshot(copy.deepcopy(model), optimizer)
    with pytest.raises(ValueError, match="snapshot"):
        ranks.expand_ranks_(layer, optimizer, [0], [1], snapshot)


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
