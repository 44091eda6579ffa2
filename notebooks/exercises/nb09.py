"""The exercises of 09_beamlora."""

import torch

import beamlora_mini as bl

from .common import exercise, expect


@exercise(
    "09.1",
    solution="""
        def threshold(step, end_step, p_start):
            done = min(step - 1, end_step)
            return 1 - (1 - p_start) * (1 + math.cos(math.pi * done / end_step)) / 2
    """,
    wrong=[
        """
        def threshold(step, end_step, p_start):  # counts the steps from 0
            done = min(step, end_step)
            return 1 - (1 - p_start) * (1 + math.cos(math.pi * done / end_step)) / 2
        """,
        """
        def threshold(step, end_step, p_start):  # swings back after the end
            return 1 - (1 - p_start) * (1 + math.cos(math.pi * (step - 1) / end_step)) / 2
        """,
    ],
)
def threshold(answer):
    """The share of all weight that survives at a step."""
    for step, end_step, p_start in ((1, 10, 0.9), (6, 10, 0.9), (11, 10, 0.9), (40, 10, 0.8)):
        got = answer(step, end_step, p_start)
        wanted = bl.ranks.top_p_threshold(step, end_step, p_start)
        expect(got is not None, "threshold returned None; return a number")
        expect(
            abs(got - wanted) < 1e-9,
            f"step {step}, end_step {end_step}, p_start {p_start}: {wanted:.4f}, you said {got:.4f}",
        )


@exercise(
    "09.2",
    solution="""
        def ancestors(r, events):
            now = list(range(r))
            for pairs in events:
                before = list(now)
                for slot, source in pairs:
                    now[slot] = before[source]
            return now
    """,
    wrong=[
        """
        def ancestors(r, events):  # one copy after the other
            now = list(range(r))
            for pairs in events:
                for slot, source in pairs:
                    now[slot] = now[source]
            return now
        """,
        """
        def ancestors(r, events):  # the parent, not the ancestor
            now = list(range(r))
            for pairs in events:
                for slot, source in pairs:
                    now[slot] = source
            return now
        """,
    ],
)
def ancestors(answer):
    """The first rank from which each rank descends."""
    cases = {
        (): [0, 1, 2, 3],
        (((1, 0),),): [0, 0, 2, 3],
        (((1, 0),), ((3, 1),)): [0, 0, 2, 0],
        (((1, 0), (2, 1)),): [0, 0, 1, 3],  # at once: rank 2 gets the old rank 1
    }
    for events, wanted in cases.items():
        got = answer(4, [list(pairs) for pairs in events])
        expect(got is not None, "ancestors returned None; return a list")
        expect(list(got) == wanted, f"four ranks, events {events}: {wanted}, you said {got}")


@exercise(
    "09.3",
    solution="""
        def pair_weight(w_slot, w_source):
            return 2 * (w_slot * w_source) ** 0.5
    """,
    wrong=[
        """
        def pair_weight(w_slot, w_source):
            return w_slot + w_source
        """,
        """
        def pair_weight(w_slot, w_source):
            return (w_slot * w_source) ** 0.5
        """,
        """
        def pair_weight(w_slot, w_source):
            return w_source
        """,
    ],
)
def pair_weight(answer):
    """What slot and source weigh together after their scores are averaged."""
    for w_slot, w_source in ((1.0, 1.0), (0.25, 4.0), (0.5, 2.0)):
        temperature = 0.05
        mean = temperature * (torch.tensor(w_slot).log() + torch.tensor(w_source).log()) / 2
        wanted = 2 * (mean / temperature).exp().item()
        got = answer(w_slot, w_source)
        expect(got is not None, "pair_weight returned None; return a number")
        expect(abs(got - wanted) < 1e-4, f"weights {w_slot} and {w_source}: you said {got:.3f}")
