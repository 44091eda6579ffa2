"""Which ranks go: what holds for all importances, and one worked case of each."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from beamlora_mini import ranks
from beamlora_mini.ranks import budget_mask

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


def test_ties_do_not_cost_ranks_of_the_budget():
    scores = {"a": torch.zeros(3), "b": torch.tensor([2.0, 0.0])}
    masks = budget_mask(scores, 3)
    assert {name: mask.tolist() for name, mask in masks.items()} == {
        "a": [False, False, True],
        "b": [False, True],
    }
    assert all(not mask.any() for mask in budget_mask(scores, 5).values())
    assert all(mask.all() for mask in budget_mask(scores, 0).values())
    for budget in (-1, 6, 2.0):
        with pytest.raises(ValueError, match=r"budget=.* from 0 to 5"):
            budget_mask(scores, budget)


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
