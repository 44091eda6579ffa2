"""The exercises of 09_beamlora."""

import torch

import beamlora_mini as bl

from .common import compare, exercise, expect, number


@exercise(
    "09.1",
    asked="a number",
    solution="""
        def threshold(step, end_step, p_start):
            done = min(step - 1, end_step)
            return 1 - (1 - p_start) * (1 + math.cos(math.pi * done / end_step)) / 2
    """,
    right=[
        """
        def threshold(step, end_step, p_start):
            if step > end_step:
                return 1
            half = torch.tensor(math.pi * (step - 1) / end_step / 2, dtype=torch.float64)
            return p_start + (1 - p_start) * half.sin() ** 2
        """,
    ],
    wrong={
        "Count the steps that are done: step - 1.": """
        def threshold(step, end_step, p_start):
            done = min(step, end_step)
            return 1 - (1 - p_start) * (1 + math.cos(math.pi * done / end_step)) / 2
        """,
        "After the end it swings back; it should stay at 1.": """
        def threshold(step, end_step, p_start):
            return 1 - (1 - p_start) * (1 + math.cos(math.pi * (step - 1) / end_step)) / 2
        """,
        "This rises along a line.": """
        def threshold(step, end_step, p_start):
            return p_start + (1 - p_start) * min(step - 1, end_step) / end_step
        """,
        "This rises from 0, not from p_start.": """
        def threshold(step, end_step, p_start):
            done = min(step - 1, end_step)
            return 1 - (1 + math.cos(math.pi * done / end_step)) / 2
        """,
        "This falls from 1 to p_start.": """
        def threshold(step, end_step, p_start):
            done = min(step - 1, end_step)
            return p_start + (1 - p_start) * (1 + math.cos(math.pi * done / end_step)) / 2
        """,
        "This is a quarter of a period; take half of one.": """
        def threshold(step, end_step, p_start):
            done = min(step - 1, end_step)
            return 1 - (1 - p_start) * math.cos(math.pi / 2 * done / end_step)
        """,
    },
)
def threshold(answer):
    """The share of all weight that survives at a step."""
    cases = [
        {"step": step, "end_step": end_step, "p_start": p_start}
        for end_step, p_start in ((10, 0.9), (7, 0.6), (25, 0.75))
        for step in (4, 1, 2, end_step, end_step + 1, end_step + 3, 3 * end_step)
    ]
    compare(answer, cases, bl.ranks.top_p_threshold, number)


@exercise(
    "09.2",
    asked="a list",
    solution="""
        def ancestors(r, events):
            now = list(range(r))
            for pairs in events:
                before = list(now)
                for slot, source in pairs:
                    now[slot] = before[source]
            return now
    """,
    right=[
        """
        def ancestors(r, events):
            now = torch.arange(r)
            for pairs in events:
                if pairs:
                    slots, sources = torch.tensor(pairs).T
                    now[slots] = now[sources]
            return now
        """,
        """
        def ancestors(r, events):
            def founder(rank, event):
                if event < 0:
                    return float(rank)
                return founder(dict(events[event]).get(rank, rank), event - 1)
            return (founder(rank, len(events) - 1) for rank in range(r))
        """,
        """
        def ancestors(r, events):
            if not events:
                return range(r)
            now = torch.arange(r).numpy()
            for pairs in events:
                parents = [dict(pairs).get(rank, rank) for rank in range(r)]
                now = now[parents]
            return now
        """,
    ],
    wrong={
        "The copies of one event happen at once, not one after the other.": """
        def ancestors(r, events):
            now = list(range(r))
            for pairs in events:
                for slot, source in pairs:
                    now[slot] = now[source]
            return now
        """,
        "This is the parent, not the first rank of the line.": """
        def ancestors(r, events):
            now = list(range(r))
            for pairs in events:
                for slot, source in pairs:
                    now[slot] = source
            return now
        """,
        "A pair is (slot, source): the slot gets the source's line.": """
        def ancestors(r, events):
            now = list(range(r))
            for pairs in events:
                before = list(now)
                for source, slot in pairs:
                    now[slot] = before[source]
            return now
        """,
        "The events count from the first to the last.": """
        def ancestors(r, events):
            now = list(range(r))
            for pairs in events[::-1]:
                before = list(now)
                for slot, source in pairs:
                    now[slot] = before[source]
            return now
        """,
        "This knows the last event only.": """
        def ancestors(r, events):
            now = list(range(r))
            for slot, source in events[-1] if events else []:
                now[slot] = source
            return now
        """,
        "you changed the input `events`": """
        def ancestors(r, events):
            now = list(range(r))
            while events:
                before = list(now)
                for slot, source in events.pop(0):
                    now[slot] = before[source]
            return now
        """,
    },
)
def ancestors(answer):
    """The first rank from which each rank descends."""
    cases = [
        {"r": 4, "events": [[(1, 0), (2, 1)], [(3, 1)]]},  # at once: rank 2 gets the old rank 1
        {"r": 4, "events": []},
        {"r": 3, "events": [[(0, 1), (1, 0)], [(2, 0)]]},
    ]
    for r in (4, 5, 8):
        events = []
        for _ in range(4):
            slots, sources = torch.randperm(r)[: r // 2].tolist(), torch.randint(r, (r // 2,))
            events.append(list(zip(slots, sources.tolist())))
        cases.append({"r": r, "events": events})

    def truth(r, events):
        now = list(range(r))
        for pairs in events:
            parents = dict(pairs)
            now = [now[parents.get(rank, rank)] for rank in range(r)]
        return now

    def read(got):
        expect(hasattr(got, "__len__"), f"return a list, not {type(got).__name__}")
        return [int(number(rank)) for rank in got]

    compare(answer, cases, truth, read)


@exercise(
    "09.3",
    asked="a number",
    solution="""
        def pair_weight(w_slot, w_source):
            return 2 * (w_slot * w_source) ** 0.5
    """,
    right=[
        """
        def pair_weight(w_slot, w_source):
            mean = (math.log(w_slot) + math.log(w_source)) / 2
            return math.exp(mean) + math.exp(mean)
        """,
        """
        def pair_weight(w_slot, w_source):
            temperature = 0.5
            scores = temperature * torch.tensor([w_slot, w_source]).log()
            return 2 * (scores.mean() / temperature).exp()
        """,
    ],
    wrong={
        "This is what they weighed before.": """
        def pair_weight(w_slot, w_source):
            return w_slot + w_source
        """,
        "This is one of the two; add both.": """
        def pair_weight(w_slot, w_source):
            return (w_slot * w_source) ** 0.5
        """,
        "This is the source's weight as it was.": """
        def pair_weight(w_slot, w_source):
            return w_source
        """,
        "This is 2 whatever the weights.": """
        def pair_weight(w_slot, w_source):
            return 2.0
        """,
        "The mean of two scores is the root of the product.": """
        def pair_weight(w_slot, w_source):
            return 2 * w_slot * w_source
        """,
        "This is twice the source's weight.": """
        def pair_weight(w_slot, w_source):
            return 2 * w_source
        """,
    },
)
def pair_weight(answer):
    """What slot and source weigh together after their scores are averaged."""
    pairs = [(0.4, 1.7), (2.0, 0.5), (1.0, 1.0), *(2 * torch.rand(8, 2) + 0.02).tolist()]

    def truth(w_slot, w_source):
        scores = 0.05 * torch.tensor([w_slot, w_source]).double().log()
        return 2 * (scores.mean() / 0.05).exp()

    compare(answer, [{"w_slot": a, "w_source": b} for a, b in pairs], truth, number)
