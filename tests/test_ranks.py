"""Importance, choosing and moving: what holds for all inputs, and one worked case of each."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import beamlora_mini as bl
from beamlora_mini import ranks

positive = st.floats(min_value=1e-3, max_value=1e3)


@st.composite
def importances(draw, equal_sums=False):
    r = draw(st.integers(1, 12))
    modules = {}
    for name in draw(st.lists(st.sampled_from("abcdef"), min_size=1, unique=True)):
        values = torch.tensor(draw(st.lists(positive, min_size=r, max_size=r))).double()
        modules[name] = values * r / values.sum() if equal_sums else values
    return modules


scopes = st.sampled_from(["global", "module"])


# Importance


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=40), st.floats(0.01, 10))
def test_score_importance_is_positive_and_sums_to_r(scores, temperature):
    scores = torch.tensor(scores).double()
    importance = ranks.score_importance(scores, temperature)
    torch.testing.assert_close(importance.sum(), torch.tensor(float(len(scores))).double())
    softmax = len(scores) * torch.softmax(scores / temperature, 0)
    torch.testing.assert_close(importance, softmax)


def test_the_sum_of_the_weights_can_t_be_changed_by_training():
    scores = torch.randn(6, dtype=torch.double, requires_grad=True)
    ranks.score_importance(scores, 0.3).sum().backward()
    assert scores.grad.abs().max() < 1e-12


@pytest.fixture
def adapted():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(7, 5))
    layer = bl.attach(model, bl.LoRA(r=4))["0"]
    nn.init.normal_(layer.lora_B)
    x, grad = torch.randn(9, 7), torch.randn(9, 5)
    layer(x).backward(grad)
    return model, layer, x, grad


def test_frobenius_is_the_norm_of_what_a_rank_adds(adapted):
    _, layer, _, _ = adapted
    wanted = [torch.outer(layer.lora_B[:, i], layer.lora_A[i]).norm() for i in range(4)]
    torch.testing.assert_close(
        ranks.frobenius_importance(layer.lora_A, layer.lora_B), torch.stack(wanted)
    )


def test_activation_is_the_size_of_what_a_rank_adds_to_the_outputs(adapted):
    _, layer, x, _ = adapted
    wanted = [
        torch.outer(x @ layer.lora_A[i], layer.lora_B[:, i]).square().sum(1).mean().sqrt()
        for i in range(4)
    ]
    got = ranks.activation_importance(layer.lora_A, layer.lora_B, x)
    torch.testing.assert_close(got, torch.stack(wanted))


def test_gradient_importance_is_the_slope_of_the_loss_along_a_rank(adapted):
    _, layer, x, grad = adapted
    got = ranks.gradient_importance(layer.lora_B, layer.lora_B.grad)
    from_A = ranks.gradient_importance(layer.lora_A.T, layer.lora_A.grad.T)
    torch.testing.assert_close(got, from_A)
    for i in range(4):  # the loss is linear in the layer's output: the estimate is exact
        less = copy.deepcopy(layer)
        with torch.no_grad():
            less.lora_B[:, i] = 0
        change = ((layer(x) - less(x)) * grad).sum().abs()
        torch.testing.assert_close(got[i], change.detach(), rtol=1e-4, atol=1e-5)


def test_sensitivity_is_smoothed_and_weighed_by_its_uncertainty(adapted):
    _, layer, _, _ = adapted
    smoothed = ranks.SmoothedSensitivity(0.5, 0.9)
    steady = torch.tensor([1.0, 2.0])
    assert torch.allclose(smoothed.update(steady), steady * 0.5 * 0.1 * steady * 0.5)
    for _ in range(60):
        score = smoothed.update(steady)
    torch.testing.assert_close(smoothed.mean, steady)
    assert score.max() < 0.01  # what is certain is no longer worth watching
    entries = [(p * p.grad).abs() for p in (layer.lora_A, layer.lora_B)]
    got = ranks.sensitivity_importance(layer.lora_A, layer.lora_B, *entries)
    assert torch.allclose(got[2], entries[0][2].mean() + entries[1][:, 2].mean())
    with pytest.raises(ValueError, match="score_A.*allowed is"):
        ranks.sensitivity_importance(layer.lora_A, layer.lora_B, entries[1], entries[1])


# Choosing


@given(importances(), scopes)
def test_p_of_one_prunes_nothing(modules, scope):
    assert not any(mask.any() for mask in ranks.top_p_mask(modules, 1.0, scope).values())


@given(importances(), st.floats(0.05, 1), st.floats(0.05, 1), scopes)
def test_masks_shrink_as_p_grows(modules, one, other, scope):
    small, large = sorted((one, other))
    more, fewer = (ranks.top_p_mask(modules, p, scope) for p in (small, large))
    assert all((fewer[name] <= more[name]).all() for name in modules)


@given(importances(), st.floats(0.05, 0.99), st.floats(0, 1), scopes)
def test_the_cap_holds_and_spares_the_most_important(modules, p, most, scope):
    free = ranks.top_p_mask(modules, p, scope)
    capped = ranks.top_p_mask(modules, p, scope, max_prune_fraction=most)
    for name, mask in capped.items():
        allowed = int(most * len(mask))
        assert mask.sum() == min(allowed, int(free[name].sum()))
        assert (mask <= free[name]).all()
        if mask.any() and not mask.all():
            assert modules[name][mask].max() <= modules[name][~mask].min()


@given(importances(equal_sums=True), st.floats(0.05, 0.99))
def test_what_survives_holds_at_most_the_share(modules, p):
    masks = ranks.top_p_mask(modules, p)
    kept = sum(values[~masks[name]].sum() for name, values in modules.items())
    total = sum(values.sum() for values in modules.values())
    assert kept <= p * total * (1 + 1e-9)
    lost = torch.cat([values[masks[name]] for name, values in modules.items()])
    assert kept + lost.max() > p * total * (1 - 1e-9)


@given(importances(), st.integers(0, 14))
def test_top_k_keeps_k(modules, k):
    for name, mask in ranks.top_k_mask(modules, k).items():
        assert (~mask).sum() == min(k, len(modules[name]))
    kept = sum(int((~mask).sum()) for mask in ranks.top_k_mask(modules, k, "global").values())
    assert kept == min(k * len(modules), sum(map(len, modules.values())))


def test_ties_are_broken_by_module_and_index():
    modules = {"a": torch.ones(4), "b": torch.ones(4)}
    masks = ranks.top_p_mask(modules, 0.8)  # 6.4 of 8: six survive
    assert masks["a"].tolist() == [False] * 4 and masks["b"].tolist() == [False, False, True, True]
    assert ranks.pair_ranks(modules["b"], masks["b"]) == ([2, 3], [0, 1])
    assert ranks.top_k_mask(modules, 3)["a"].tolist() == [False, False, False, True]


def test_pairs_are_sorted_or_random():
    importance = torch.tensor([3.0, 0.1, 2.0, 0.2, 5.0])
    mask = torch.tensor([False, True, False, True, False])
    assert ranks.pair_ranks(importance, mask) == ([1, 3], [4, 0])
    drawn = {
        tuple(ranks.pair_ranks(importance, mask, "random", torch.Generator().manual_seed(seed))[1])
        for seed in range(20)
    }
    assert drawn == {(4, 0), (0, 4)}


def test_the_threshold_rises_along_a_cosine_and_stays_at_one():
    values = [ranks.top_p_threshold(step, 10, 0.9) for step in range(1, 16)]
    assert values[0] == pytest.approx(0.9) and values[5] == pytest.approx(0.95)
    assert values == sorted(values) and values[11:] == [1.0] * 4


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda m: ranks.top_p_mask(m, 0), "p=0: allowed"),
        (lambda m: ranks.top_p_mask(m, 0.5, "layer"), "scope='layer'"),
        (lambda m: ranks.top_p_mask(m, 0.5, max_prune_fraction=2), "max_prune_fraction=2"),
        (lambda m: ranks.top_p_mask(m | {"b": torch.tensor([1.0, -2.0])}, 0.5), "'b' has -2.0 at rank 1"),
        (lambda m: ranks.top_p_mask({"a": torch.tensor([torch.inf])}, 0.5), "'a' has inf at rank 0"),
        (lambda m: ranks.top_k_mask(m, -1), "k=-1"),
        (lambda m: ranks.pair_ranks(m["a"], m["a"] > 0, "best"), "pairing='best'"),
        (lambda m: ranks.top_p_threshold(1, 0, 0.9), "end_step=0"),
    ],
)  # fmt: skip
def test_bad_values(call, message):
    with pytest.raises(ValueError, match=message):
        call({"a": torch.tensor([1.0, 2.0])})


# Moving


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


# History


@pytest.fixture
def history(tiny):
    history = bl.RankHistory(every=10)
    bl.fit(
        tiny[0], bl.load_task("subtraction"), method=bl.BeamLoRA(r=4, period=15, p_start=0.7),
        steps=60, lr=8e-3, history=history, progress=False,
    )  # fmt: skip
    return history


def test_history_survives_saving(history, tmp_path):
    history.info = {"device": "a machine"}
    history.save(tmp_path / "run.parquet")
    again = bl.RankHistory.load(tmp_path / "run.parquet")
    assert again.info == history.info and again.every == 10
    assert again.steps == history.steps == [0, 10, 20, 30, 40, 50, 60]
    assert again.to_pandas().equals(history.to_pandas())
    assert again.lineage().equals(history.lineage())
    for mine, theirs in zip(history.events, again.events, strict=True):
        assert mine[:5] == theirs[:5] and theirs[5:] == pytest.approx(mine[5:])
    assert again.losses[1:] == pytest.approx(history.losses[1:], rel=1e-6)


def test_lineage_follows_the_events(history):
    assert {event.step for event in history.events} == {15, 30}
    lineage = history.lineage().set_index(["step", "module", "rank"]).ancestor
    at_0 = lineage.loc[0]
    assert (at_0 == at_0.index.get_level_values("rank")).all()
    for step, before in ((15, 0), (30, 15)):
        copied = {(e.module, e.slot): e.source for e in history.events if e.step == step}
        for module, rank in at_0.index:
            source = copied.get((module, rank), rank)
            assert lineage[step, module, rank] == lineage[before, module, source]


def test_importances_of_beamlora_sum_to_r(history):
    sums = history.to_pandas().groupby(["step", "module"]).importance.sum()
    assert sums.sub(4).abs().max() < 1e-4


def test_a_foreign_file_is_no_history(tmp_path, history):
    (tmp_path / "a.parquet").write_text("nothing")
    with pytest.raises(ValueError, match="not a saved RankHistory"):
        bl.RankHistory.load(tmp_path / "a.parquet")
    history.to_pandas().to_parquet(tmp_path / "b.parquet")
    with pytest.raises(ValueError, match="not a saved RankHistory"):
        bl.RankHistory.load(tmp_path / "b.parquet")
    with pytest.raises(FileNotFoundError, match="no such file"):
        bl.RankHistory.load(tmp_path / "c.parquet")
