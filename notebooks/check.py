"""The checkers of the exercises: `import check`, then call the one that the exercise names.

Each takes the reader's answer, prints what it found, and returns whether the answer is right. An
answer that is still a stub, or that raises, is wrong like any other: the notebook goes on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

import beamlora_mini as bl
from beamlora_mini import ranks
from beamlora_mini.growth import hyperclone
from beamlora_mini.methods.adalora import rank_budget


class _Wrong(Exception):
    """What is wrong with an answer, in words that help."""


def _checker(examine: Callable[[object], None]) -> Callable[[object], bool]:
    @wraps(examine)
    def check(answer: object) -> bool:
        try:
            examine(answer)
        except _Wrong as wrong:
            print(f"not yet: {wrong}")
            return False
        except Exception as error:
            print(f"not yet: your code raised {type(error).__name__}: {error}")
            return False
        print("right!")
        return True

    return check


def _expect(condition: bool, otherwise: str) -> None:
    if not condition:
        raise _Wrong(otherwise)


def _is_close(a: object, b: torch.Tensor) -> bool:
    return isinstance(a, torch.Tensor) and a.shape == b.shape and torch.allclose(a, b, atol=1e-5)


@_checker
def strongest_rank(answer):
    """00.1: the module and index of the strongest rank."""
    importance = {"a": torch.tensor([1.0, 3.0]), "b": torch.tensor([0.5, 2.0, 4.0, 1.0])}
    got = answer(importance)
    _expect(got is not None, "strongest_rank returned None; return a name and an index")
    _expect(len(got) == 2, "return two things: the module's name and the rank's index")
    _expect(got[0] == "b", f"the strongest rank has importance 4.0; you said it is in {got[0]!r}")
    _expect(int(got[1]) == 2, f"in module 'b' it is the rank of index 2, you said {got[1]}")


@_checker
def ranks_for_share(answer):
    """00.2: how many of the strongest ranks hold a share p of all importance."""
    importance = {"a": torch.tensor([1.0, 4.0]), "b": torch.tensor([2.0, 1.0])}
    for p, wanted in ((0.4, 1), (0.6, 2), (0.8, 3), (0.99, 4)):
        got = answer(importance, p)
        _expect(got is not None, "ranks_for_share returned None; return a number")
        _expect(got == wanted, f"importances 4, 2, 1, 1 and p={p}: {wanted} ranks, you said {got}")


@_checker
def rank_for_budget(answer):
    """01.1: the largest rank whose adapter has at most `budget` parameters."""
    got = answer(128, 352, 10_000)
    _expect(got is not None, "rank_for_budget returned None; return a number")
    _expect(got == 20, f"for 128 -> 352 and 10,000 parameters you said {got}")
    _expect(answer(128, 352, 9_600) == 20, "a budget that is met exactly should be used in full")
    _expect(answer(128, 352, 479) == 0, "a budget too small for rank 1 should give 0")


@_checker
def gradients_at_the_start(answer):
    """01.2: which of A and B get a gradient in the first step, for each of three starts."""
    _expect(isinstance(answer, dict) and None not in answer.values(), "fill in all three lines")
    truth = {}
    for start in ("A random, B zero", "A zero, B random", "both zero"):
        torch.manual_seed(0)
        layer = bl.attach(nn.Sequential(nn.Linear(4, 3)), bl.LoRA(r=2))["0"]
        a, b = start.split(", ") if start != "both zero" else ("A zero", "B zero")
        (nn.init.zeros_ if a == "A zero" else nn.init.normal_)(layer.lora_A)
        (nn.init.zeros_ if b == "B zero" else nn.init.normal_)(layer.lora_B)
        layer(torch.randn(5, 4)).square().sum().backward()
        named = {"A": layer.lora_A, "B": layer.lora_B}
        truth[start] = {name for name, p in named.items() if p.grad.abs().sum() > 0}
    for start, learns in truth.items():
        _expect(start in answer, f"the line {start!r} is missing")
        _expect(set(answer[start]) == learns, f"{start!r}: look at dA = B^T dY^T x again")


@_checker
def merge_two(answer):
    """01.3: one weight that does the work of two adapters on the same layer."""
    torch.manual_seed(0)
    weight = torch.randn(6, 5)
    first, second = (
        bl.attach(nn.Sequential(nn.Linear(5, 6)), bl.LoRA(r=r, lora_alpha=8))["0"] for r in (2, 3)
    )
    for layer in (first, second):
        nn.init.normal_(layer.lora_B)
    kept = weight.clone()
    got = answer(weight, first, second)
    _expect(got is not None, "merge_two returned None; return a weight")
    _expect(torch.equal(weight, kept), "the weight that was handed in has changed")
    _expect(
        _is_close(got, weight + first.delta_weight() + second.delta_weight()),
        "the weight does not do what both adapters do; does each keep its own scaling?",
    )


@_checker
def rank_for_share(answer):
    """02.1: the least rank whose best approximation keeps a share p of a weight, in squares."""
    torch.manual_seed(0)
    U, V = (torch.linalg.qr(torch.randn(n, 4))[0] for n in (9, 6))
    weight = U @ torch.diag(torch.tensor([3.0, 2.0, 1.5, 0.5])) @ V.T  # squares 9, 4, 2.25, 0.25
    for p, wanted in ((0.5, 1), (0.62, 2), (0.8, 2), (0.9, 3), (0.995, 4)):
        got = answer(weight, p)
        _expect(got is not None, "rank_for_share returned None; return a number")
        _expect(
            got == wanted, f"singular values 3, 2, 1.5, 0.5 and p={p}: {wanted}, you said {got}"
        )


@_checker
def middle_start(answer):
    """02.2: an adapter for r singular directions in the middle of a weight."""
    torch.manual_seed(0)
    weight = torch.randn(9, 6)
    U, S, Vh = torch.linalg.svd(weight, full_matrices=False)
    for first, r, scaling in ((0, 2, 1.0), (1, 3, 2.0), (4, 2, 0.5)):
        got = answer(weight, first, r, scaling)
        _expect(got is not None, "middle_start returned None; return (A, B)")
        A, B = got
        shapes = (tuple(A.shape), tuple(B.shape))
        _expect(
            shapes == ((r, 6), (9, r)), f"A and B should be {(r, 6)} and {(9, r)}, not {shapes}"
        )
        part = slice(first, first + r)
        _expect(
            _is_close(scaling * B @ A, U[:, part] * S[part] @ Vh[part]),
            f"first={first}, r={r}, scaling={scaling}: scaling * B @ A is not that part of the weight",
        )
        _expect(_is_close(B.norm(dim=0), A.norm(dim=1)), "share the singular values evenly")


@_checker
def plain_lora(answer):
    """02.3: a plain LoRA, relative to the original weight, of a trained PiSSA layer."""
    torch.manual_seed(0)
    base = nn.Linear(7, 9, bias=False)
    layer = bl.attach(nn.Sequential(base), bl.PiSSA(r=3, lora_alpha=12))["0"]
    with torch.no_grad():
        layer.lora_A += torch.randn(3, 7)
        layer.lora_B += torch.randn(9, 3)
    got = answer(layer, 3, 12)
    _expect(got is not None, "plain_lora returned None; return a dictionary")
    missing = {"lora_A", "lora_B", "r", "lora_alpha"} - set(got)
    _expect(not missing, f"the dictionary has no {', '.join(sorted(missing))}")
    _expect(got["lora_A"].shape[0] == got["lora_B"].shape[1] == got["r"], "r is A's number of rows")
    update = got["lora_alpha"] / got["r"] * got["lora_B"] @ got["lora_A"]
    _expect(
        _is_close(update, layer.delta_weight()), "it does not turn W into what the layer computes"
    )


@_checker
def stretch(answer):
    """03.1: DoRA's factor m / ||V|| for each row."""
    torch.manual_seed(0)
    weight, A, B = torch.randn(6, 5), torch.randn(2, 5), torch.randn(6, 2)
    magnitude = torch.rand(6) + 0.5
    got = answer(weight, A, B, 1.5, magnitude)
    _expect(got is not None, "stretch returned None; return a tensor")
    wanted = magnitude / (weight + 1.5 * B @ A).norm(dim=1)
    _expect(
        _is_close(got, wanted), "it is not magnitude / ||weight + scaling * B @ A||, row by row"
    )
    weight[2], B[2], magnitude[2] = 0, 0, 0
    got = answer(weight, A, B, 1.5, magnitude)
    _expect(not got.isnan().any(), "a row of zeros gives NaN")
    _expect(got[2] == 1, f"the factor of a row of zeros should be 1, not {got[2]:.3g}")


@_checker
def highest_rank(answer):
    """03.2: the rank that restarts can reach."""
    cases = ((90, 30, 2, 128, 128, 6), (100, 30, 2, 128, 64, 8), (20, 50, 4, 64, 64, 4))
    for *settings, wanted in (*cases, (1000, 10, 8, 300, 200, 200)):
        got = answer(*settings)
        _expect(got is not None, "highest_rank returned None; return a number")
        total, every, r, outputs, inputs = settings
        _expect(
            got == wanted,
            f"total={total}, every={every}, r={r}, weight ({outputs}, {inputs}): {wanted}, you said {got}",
        )


@_checker
def reset_moments(answer):
    """03.3: a reset of Adam's moments that keeps the largest."""
    torch.manual_seed(0)
    first, second = torch.randn(4, 5), torch.rand(4, 5) + 0.1
    kept = first.clone(), second.clone()
    for keep, count in ((0.25, 5), (0.0, 0), (1.0, 20)):
        got = answer(first, second, keep)
        _expect(got is not None, "reset_moments returned None; return both moments")
        _expect(
            torch.equal(first, kept[0]) and torch.equal(second, kept[1]), "what was given changed"
        )
        mask = first.abs() >= first.abs().flatten().sort(descending=True).values[max(count - 1, 0)]
        mask = mask if count else torch.zeros_like(mask)
        left = int((got[0] != 0).sum())
        _expect(left == count, f"keep={keep} of 20 entries: {count} should stay, {left} did")
        _expect(_is_close(got[0], first * mask), "the largest in absolute value should stay")
        _expect(_is_close(got[1], second * mask), "both moments of an entry stay or go together")


@_checker
def kept_ranks(answer):
    """04.1: how many ranks each layer keeps when all share a budget."""
    cases = (
        ({"a": [3.0, 1.0, 2.0], "b": [5.0, 4.0]}, 3, {"a": 1, "b": 2}),
        ({"a": [3.0, 1.0, 2.0], "b": [5.0, 4.0]}, 1, {"a": 0, "b": 1}),
        ({"a": [0.0, 0.0, 0.0], "b": [2.0, 0.0]}, 3, {"a": 2, "b": 1}),
        ({"a": [0.5, 0.5], "b": [0.5, 0.1]}, 4, {"a": 2, "b": 2}),
    )
    for scores, budget, wanted in cases:
        got = answer({name: torch.tensor(values) for name, values in scores.items()}, budget)
        _expect(got is not None, "kept_ranks returned None; return a dictionary")
        _expect(set(got) == set(wanted), "every layer has an entry, also one that keeps nothing")
        got = {name: int(count) for name, count in got.items()}
        total = sum(got.values())
        _expect(total == budget, f"scores {scores}: {total} ranks stay, the budget is {budget}")
        _expect(got == wanted, f"scores {scores}, budget {budget}: {wanted}, you said {got}")


@_checker
def half_pruned(answer):
    """04.2: the step at which half of the pruning is done."""
    for settings in ((1000, 100, 500, 168, 84), (300, 30, 150, 168, 84), (200, 0, 0, 120, 20)):
        total, tinit, tfinal, first, last = settings
        budgets = [rank_budget(t, *settings) for t in range(total)]
        wanted = next(t for t, b in enumerate(budgets) if first - b >= (first - last) / 2)
        got = answer(*settings)
        _expect(got is not None, "half_pruned returned None; return a step")
        _expect(
            got == wanted,
            f"total {total}, tinit {tinit}, tfinal {tfinal}, from {first} to {last}: {wanted}, you "
            f"said {got}",
        )


@_checker
def surviving_lora(answer):
    """04.3: a plain LoRA of the ranks that AdaLoRA kept."""
    torch.manual_seed(0)
    method = bl.AdaLoRA(r=5, target_r=3, lora_alpha=10)
    layer = bl.attach(nn.Sequential(nn.Linear(7, 9)), method)["0"]
    with torch.no_grad():
        layer.lora_E.copy_(torch.tensor([0.3, 0.0, -0.2, 0.0, 0.7]))
    got = answer(layer)
    _expect(got is not None, "surviving_lora returned None; return A and B")
    A, B = got
    _expect(A.shape == (3, 7) and B.shape == (9, 3), "three ranks are left: A (3, 7), B (9, 3)")
    _expect(
        torch.allclose(layer.scaling * B @ A, layer.delta_weight(), rtol=1e-4, atol=1e-9),
        "scaling * B @ A is not the layer's update: E belongs into A or B, once, and scaling into neither",
    )


@_checker
def same_path(answer):
    """05.1: the learning rate of the scores that keeps the path of the weights."""
    for optimizer, power in (("adam", 1), ("sgd", 2)):
        for old, new in ((0.05, 0.1), (0.5, 0.1)):
            got = answer(4e-3, old, new, optimizer)
            _expect(got is not None, "same_path returned None; return a learning rate")
            wanted = 4e-3 * (new / old) ** power
            _expect(
                math.isclose(got, wanted, rel_tol=1e-6),
                f"{optimizer}, from temperature {old} to {new}: with lr={got:.4g} in place of 0.004 "
                "the weights take another path",
            )


@_checker
def zero_for_an_idle_rank(answer):
    """05.2: the measures that are zero for a rank that no input excites."""
    _expect(isinstance(answer, set), "answer with a set of names, such as {'Frobenius'}")
    torch.manual_seed(0)
    layer = bl.attach(nn.Sequential(nn.Linear(6, 5)), bl.LoRA(r=2))["0"]
    nn.init.normal_(layer.lora_B)
    x = torch.randint(-3, 4, (20, 3)).float().repeat(1, 2)  # whole numbers: no rounding
    layer.lora_A.data[0] = torch.tensor([1.0, 2.0, 3.0, -1.0, -2.0, -3.0])
    layer(x).square().sum().backward()
    A, B = layer.lora_A, layer.lora_B
    measures = {
        "Frobenius": ranks.frobenius_importance(A, B),
        "activation": ranks.activation_importance(A, B, x),
        "gradient": ranks.gradient_importance(B, B.grad),
        "sensitivity": ranks.sensitivity_importance(A, B, (A * A.grad).abs(), (B * B.grad).abs()),
    }
    zero = {name for name, importance in measures.items() if importance[0] == 0}
    _expect(answer <= measures.keys(), f"the names are {', '.join(measures)}")
    for name in measures:
        _expect((name in answer) == (name in zero), f"look at {name} again")


@_checker
def norm_of_two(answer):
    """05.3: the size of what two ranks add together."""
    torch.manual_seed(0)
    A, B = torch.randn(4, 7), torch.randn(5, 4)
    got = answer(A, B, 1, 3)
    _expect(got is not None, "norm_of_two returned None; return a number")
    both = (B[:, [1, 3]] @ A[[1, 3]]).norm()
    _expect(_is_close(torch.as_tensor(got), both), f"it is {both:.3f}, you said {float(got):.3f}")
    A[3], B[:, 3] = A[1], -B[:, 1]
    got = torch.as_tensor(answer(A, B, 1, 3))
    _expect(bool(got.abs() < 1e-2), "a rank and its mirror image together add nothing")


@_checker
def p_for(answer):
    """06.1: the smallest share with which top-p keeps k ranks."""
    importance = torch.tensor([1.0, 8.0, 2.0, 4.0, 17.0])  # sums that floats hold exactly
    for k, wanted in ((1, 17 / 32), (2, 25 / 32), (4, 31 / 32)):
        got = answer(importance, k)
        _expect(got is not None, "p_for returned None; return a number")
        mask = ranks.top_p_mask({"layer": importance}, got)["layer"]
        kept = int((~mask).sum())
        _expect(kept == k, f"k={k}: with p={got:.4f}, {kept} ranks are kept")
        _expect(abs(got - wanted) < 1e-6, f"k={k}: p={got:.4f} will do, but a smaller one as well")


@_checker
def shrink(answer):
    """06.2: the A, B and lora_alpha of a layer without the pruned ranks."""
    torch.manual_seed(0)
    layer = bl.attach(nn.Sequential(nn.Linear(6, 5)), bl.LoRA(r=4, lora_alpha=8))["0"]
    nn.init.normal_(layer.lora_B)
    mask = torch.tensor([True, False, False, True])
    got = answer(layer, mask)
    _expect(got is not None, "shrink returned None; return A, B and lora_alpha")
    A, B, lora_alpha = got
    _expect(A.shape == (2, 6) and B.shape == (5, 2), "A should be (2, 6) and B (5, 2) here")
    _expect(layer.lora_A.shape == (4, 6), "the layer that was handed in has changed")
    wanted = layer.scaling * layer.lora_B[:, ~mask] @ layer.lora_A[~mask]
    _expect(_is_close(lora_alpha / 2 * B @ A, wanted), "the update has another size than before")


@_checker
def top_k_with_a_floor(answer):
    """06.3: global top-k that leaves each layer its strongest rank."""
    importances = {
        "a": torch.tensor([9.0, 3.0, 8.0]),
        "b": torch.tensor([0.1, 0.2, 0.3]),
        "c": torch.tensor([5.0, 7.0, 4.0]),
    }
    given = {name: values.clone() for name, values in importances.items()}
    for total, kept in ((3, "a0 b2 c1"), (5, "a0 a2 b2 c0 c1"), (7, "a0 a1 a2 b2 c0 c1 c2")):
        got = answer(importances, total)
        _expect(isinstance(got, dict), "return a dict of masks, one for each layer")
        left = " ".join(f"{n}{i}" for n, m in got.items() for i in range(len(m)) if not m[i])
        _expect(left == kept, f"total={total}: kept should be {kept}, with you it is {left}")
    same = all(torch.equal(importances[name], given[name]) for name in given)
    _expect(same, "the importances that were handed in have changed")


@_checker
def widen_unevenly(answer):
    """07.1: one more unit, a copy that takes over a part of what the old one sends."""
    generator = torch.Generator().manual_seed(0)
    W_in, W_out = (torch.randn(*s, generator=generator) for s in ((4, 3), (2, 4)))
    x = torch.randn(6, 3, generator=generator)
    kept = W_in.clone(), W_out.clone()
    for unit, share in ((1, 0.25), (3, 0.9)):
        got = answer(W_in, W_out, unit, share)
        _expect(got is not None, "widen_unevenly returned None; return W_in and W_out")
        wide_in, wide_out = got
        unharmed = torch.equal(W_in, kept[0]) and torch.equal(W_out, kept[1])
        _expect(unharmed, "the weights that were handed in have changed")
        shapes = tuple(wide_in.shape), tuple(wide_out.shape)
        _expect(shapes == ((5, 3), (2, 5)), f"for four units the shapes are {shapes}")
        before, after = (x @ W_in.T).relu() @ W_out.T, (x @ wide_in.T).relu() @ wide_out.T
        _expect(_is_close(after, before), "the function has changed")
        _expect(_is_close(wide_in[4], W_in[unit]), f"the last unit is no copy of unit {unit}")
        old_sends = _is_close(wide_out[:, unit], share * W_out[:, unit])
        _expect(old_sends, f"with share={share}, the old unit does not send that part")


@_checker
def tie_again(answer):
    """07.2: a cloned Llama whose head is its embedding again, with the same logits."""
    for times in (2, 3):
        torch.manual_seed(0)
        config = LlamaConfig(
            hidden_size=16, intermediate_size=24, num_hidden_layers=1, vocab_size=10,
            num_attention_heads=2, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2,
            initializer_range=0.5,
        )  # fmt: skip
        clone = hyperclone(LlamaForCausalLM(config), times)
        ids = torch.arange(8)[None]
        embedding = clone.model.embed_tokens.weight.detach().clone()
        with torch.no_grad():
            before = clone(ids).logits
            answer(clone, times)
            after = clone(ids).logits
        tied = clone.lm_head.weight is clone.model.embed_tokens.weight
        _expect(tied, "head and embedding are still two weights")
        same = torch.equal(clone.model.embed_tokens.weight, embedding)
        _expect(same, "the embedding has changed; whoever else reads it hears something new")
        _expect(_is_close(after, before), f"with times={times}, the logits have changed")


@_checker
def copy_into(answer):
    """07.3: a rank's place taken by a copy of another, which shares its contribution with it."""
    generator = torch.Generator().manual_seed(0)
    A, B = (torch.randn(*s, generator=generator) for s in ((4, 6), (5, 4)))
    kept = A.clone(), B.clone()
    for slot, source in ((0, 2), (3, 1)):
        got = answer(A, B, slot, source)
        _expect(got is not None, "copy_into returned None; return A and B")
        new_A, new_B = got
        unharmed = torch.equal(A, kept[0]) and torch.equal(B, kept[1])
        _expect(unharmed, "the A and B that were handed in have changed")
        shapes = new_A.shape == A.shape and new_B.shape == B.shape
        _expect(shapes, "the adapter should have as many ranks as before")
        _expect(_is_close(new_A[slot], A[source]), "the slot does not receive what the source does")
        wanted = B @ A - torch.outer(B[:, slot], A[slot])
        _expect(
            _is_close(new_B @ new_A, wanted),
            "the update should be what it was, without what the pruned rank added",
        )


@_checker
def result(answer):
    """10.1: the number behind the last #### of an answer."""
    cases = {
        "2 * 3 = 6\n#### 6": "6",
        "#### 5 was wrong\n#### 7": "7",
        "#### 1,250 dollars": "1250",
        "#### -4": "-4",
        "the result is 9": None,
    }
    for text, wanted in cases.items():
        got = answer(text)
        _expect(got == wanted, f"for {text!r} you returned {got!r}, wanted is {wanted!r}")


@_checker
def adapter_size(answer):
    """10.2: the number of parameters of an adapter on every linear layer of a Llama."""
    for heads, kv_heads, head_dim in ((4, 4, 8), (6, 2, 8), (4, 1, 16)):
        config = LlamaConfig(
            hidden_size=48, intermediate_size=80, num_hidden_layers=2, vocab_size=10,
            num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=head_dim,
        )  # fmt: skip
        model = LlamaForCausalLM(config)
        bl.attach(model, bl.LoRA(r=3))
        wanted, _ = bl.count_parameters(model)
        got = answer(config, 3)
        _expect(got is not None, "adapter_size returned None; return a number")
        _expect(
            got == wanted,
            f"with {heads} heads of {head_dim} and {kv_heads} key-value heads it is {wanted}, "
            f"you said {got}",
        )


@_checker
def with_examples(answer):
    """10.3: a prompt that shows worked examples before the question."""
    rows = [{"prompt": "One?", "answer": "#### 1"}, {"prompt": "Two?", "answer": "#### 2"}]
    got = answer(rows, "Three?")
    _expect(isinstance(got, str), f"return one text, not {type(got).__name__}")
    parts = ["One?", "#### 1", "Two?", "#### 2", "Three?"]
    places = [got.find(part) for part in parts]
    _expect(-1 not in places, "a question or an answer is missing")
    _expect(places == sorted(places), "each answer follows its question, the new question is last")
    _expect(got.rstrip().endswith("Three?"), "the prompt should end with the new question")
    _expect("One?#" not in got and "1Two" not in got, "leave white space between the parts")


@_checker
def twins_part(answer):
    """08.1: which exact copies of a rank training pulls apart."""
    _expect(isinstance(answer, dict) and None not in answer.values(), "fill in all six lines")
    for line, parts in {line: _copies_part(line) for line in _TWINS}.items():
        _expect(line in answer, f"the line {line!r} is missing")
        _expect(answer[line] is parts, f"{line!r}: follow both ranks through one step again")


_TWINS = (
    "AdamW, moments copied from the source",
    "AdamW, moments kept",
    "plain SGD, no moments",
    "AdamW with decay, moments copied from the source",
    "AdamW, moments copied, b of both halved",
    "AdamW, moments copied, b of the slot negated",
)


def _copies_part(line: str) -> bool:
    """Train a small adapter, copy rank 0 into rank 1, train on: have |a| and |b| parted?"""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5)).double()
    layer = bl.attach(model, bl.LoRA(r=3))["0"]
    parameters = [layer.lora_A, layer.lora_B]
    nn.init.normal_(layer.lora_B)
    x, y = torch.randn(40, 6).double(), torch.randn(40, 5).double()
    if "SGD" in line:
        optimizer = torch.optim.SGD(parameters, lr=0.01)
    else:
        optimizer = torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1 * ("decay" in line))
    for step in range(10):
        if step == 5:
            snapshot = ranks.take_snapshot(model, optimizer)
            ranks.expand_ranks_(layer, optimizer, [1], [0], snapshot, "copied" in line)
            with torch.no_grad():
                layer.lora_B[:, :2] *= 0.5 if "halved" in line else 1
                layer.lora_B[:, 1] *= -1 if "negated" in line else 1
        optimizer.zero_grad()
        (layer(x) - y).square().mean().backward()
        optimizer.step()
    return not torch.allclose(layer.lora_A[0], layer.lora_A[1], atol=1e-9)


@_checker
def split_apart(answer):
    """08.2: split a rank such that the twins differ and the function does not."""
    torch.manual_seed(0)
    A, B, noise = torch.randn(4, 6), torch.randn(5, 4), torch.randn(6)
    kept = A.clone(), B.clone()
    wanted = B @ A - torch.outer(B[:, 1], A[1])
    got = answer(A, B, 1, 3, noise)
    _expect(got is not None, "split_apart returned None; return A and B")
    new_A, new_B = got
    _expect(torch.equal(A, kept[0]) and torch.equal(B, kept[1]), "change copies of A and B")
    _expect(_is_close(new_B @ new_A, wanted), "slot and source do not add what the source added")
    _expect(new_B[:, [1, 3]].norm(dim=0).min() > 0, "one of the two has no b left: it is no twin")
    apart = new_A[1] - new_A[3]
    along = (apart @ noise) / (noise @ noise)
    _expect(apart.norm() > 1e-3, "the twins' rows of A are the same: they will never part")
    _expect(_is_close(apart, along * noise), "the rows of A should differ by a multiple of noise")
    others = [0, 2]
    _expect(
        torch.equal(new_A[others], A[others]) and torch.equal(new_B[:, others], B[:, others]),
        "the other ranks have changed",
    )


@_checker
def surge(answer):
    """08.3: the k-th Adam update of a rank whose moments were zeroed after step n."""
    for n, k, betas in ((0, 3, (0.9, 0.999)), (100, 1, (0.9, 0.999)), (5000, 12, (0.8, 0.99))):
        p = torch.zeros(1, dtype=torch.double, requires_grad=True)
        optimizer = torch.optim.Adam([p], lr=1.0, betas=betas, eps=0.0)
        p.grad = torch.ones_like(p)
        optimizer.step()
        state = optimizer.state[p]
        state["step"].fill_(n)
        state["exp_avg"].zero_()
        state["exp_avg_sq"].zero_()
        for _ in range(k):
            before = p.item()
            optimizer.step()
        wanted, got = before - p.item(), answer(n, k, *betas)
        _expect(got is not None, "surge returned None; return a number")
        _expect(
            abs(got - wanted) < 1e-6,
            f"update {k} after step {n} with betas {betas}: {wanted:.4f}, you said {got:.4f}",
        )


@_checker
def threshold(answer):
    """09.1: the share of all weight that survives at a step."""
    for step, end_step, p_start in ((1, 10, 0.9), (6, 10, 0.9), (11, 10, 0.9), (40, 10, 0.8)):
        got = answer(step, end_step, p_start)
        wanted = bl.ranks.top_p_threshold(step, end_step, p_start)
        _expect(got is not None, "threshold returned None; return a number")
        _expect(
            abs(got - wanted) < 1e-9,
            f"step {step}, end_step {end_step}, p_start {p_start}: {wanted:.4f}, you said {got:.4f}",
        )


@_checker
def ancestors(answer):
    """09.2: the first rank from which each rank descends."""
    cases = {
        (): [0, 1, 2, 3],
        (((1, 0),),): [0, 0, 2, 3],
        (((1, 0),), ((3, 1),)): [0, 0, 2, 0],
        (((1, 0), (2, 1)),): [0, 0, 1, 3],  # at once: rank 2 gets the old rank 1
    }
    for events, wanted in cases.items():
        got = answer(4, [list(pairs) for pairs in events])
        _expect(got is not None, "ancestors returned None; return a list")
        _expect(list(got) == wanted, f"four ranks, events {events}: {wanted}, you said {got}")


@_checker
def pair_weight(answer):
    """09.3: what slot and source weigh together after their scores are averaged."""
    for w_slot, w_source in ((1.0, 1.0), (0.25, 4.0), (0.5, 2.0)):
        temperature = 0.05
        mean = temperature * (torch.tensor(w_slot).log() + torch.tensor(w_source).log()) / 2
        wanted = 2 * (mean / temperature).exp().item()
        got = answer(w_slot, w_source)
        _expect(got is not None, "pair_weight returned None; return a number")
        _expect(abs(got - wanted) < 1e-4, f"weights {w_slot} and {w_source}: you said {got:.3f}")
