"""The exercises of 01_lora_from_scratch."""

import torch
from torch import nn

import beamlora_mini as bl

from .common import exercise, expect, is_close


@exercise(
    "01.1",
    solution="""
        def rank_for_budget(inputs, outputs, budget):
            return budget // (inputs + outputs)
    """,
    wrong=[
        """
        def rank_for_budget(inputs, outputs, budget):
            return budget // (inputs * outputs)
        """,
        """
        def rank_for_budget(inputs, outputs, budget):
            return budget / (inputs + outputs)
        """,
        """
        def rank_for_budget(inputs, outputs, budget):
            return max(1, budget // (inputs + outputs))
        """,
    ],
)
def rank_for_budget(answer):
    """The largest rank whose adapter has at most `budget` parameters."""
    got = answer(128, 352, 10_000)
    expect(got is not None, "rank_for_budget returned None; return a number")
    expect(got == 20, f"for 128 -> 352 and 10,000 parameters you said {got}")
    expect(answer(128, 352, 9_600) == 20, "a budget that is met exactly should be used in full")
    expect(answer(128, 352, 479) == 0, "a budget too small for rank 1 should give 0")


@exercise(
    "01.2",
    solution="""
        gradients_at_the_start = {
            "A random, B zero": {"B"},
            "A zero, B random": {"A"},
            "both zero": set(),
        }
    """,
    wrong=[
        """
        gradients_at_the_start = {
            "A random, B zero": {"A", "B"},
            "A zero, B random": {"A", "B"},
            "both zero": set(),
        }
        """,
        """
        gradients_at_the_start = {
            "A random, B zero": {"A"},
            "A zero, B random": {"B"},
            "both zero": set(),
        }
        """,
    ],
)
def gradients_at_the_start(answer):
    """Which of A and B get a gradient in the first step, for each of three starts."""
    expect(isinstance(answer, dict) and None not in answer.values(), "fill in all three lines")
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
        expect(start in answer, f"the line {start!r} is missing")
        expect(set(answer[start]) == learns, f"{start!r}: look at dA = B^T dY^T x again")


@exercise(
    "01.3",
    solution="""
        def merge_two(weight, first, second):
            for layer in (first, second):
                weight = weight + layer.scaling * layer.lora_B @ layer.lora_A
            return weight
    """,
    wrong=[
        """
        def merge_two(weight, first, second):  # changes what it was given
            for layer in (first, second):
                weight += (layer.scaling * layer.lora_B @ layer.lora_A).detach()
            return weight
        """,
        """
        def merge_two(weight, first, second):  # forgets the scaling
            return weight + first.lora_B @ first.lora_A + second.lora_B @ second.lora_A
        """,
        """
        def merge_two(weight, first, second):  # one scaling for both
            scaling = first.scaling
            return weight + scaling * (first.lora_B @ first.lora_A + second.lora_B @ second.lora_A)
        """,
    ],
)
def merge_two(answer):
    """One weight that does the work of two adapters on the same layer."""
    torch.manual_seed(0)
    weight = torch.randn(6, 5)
    first, second = (
        bl.attach(nn.Sequential(nn.Linear(5, 6)), bl.LoRA(r=r, lora_alpha=8))["0"] for r in (2, 3)
    )
    for layer in (first, second):
        nn.init.normal_(layer.lora_B)
    kept = weight.clone()
    got = answer(weight, first, second)
    expect(got is not None, "merge_two returned None; return a weight")
    expect(torch.equal(weight, kept), "the weight that was handed in has changed")
    expect(
        is_close(got, weight + first.delta_weight() + second.delta_weight()),
        "the weight does not do what both adapters do; does each keep its own scaling?",
    )
