"""One event of BeamLoRA in five frames, and the river that it interrupts."""

import math
from collections.abc import Sequence
from itertools import accumulate

from .draw import Picture
from .river import river

WEIGHTS = (1.5, 0.4, 1.2, 1.3, 0.3, 1.3)  # of six ranks; they add up to six
STRONGEST_FIRST = sorted(range(len(WEIGHTS)), key=lambda i: -WEIGHTS[i])
P = 0.9
LEFT, PITCH, FOOT, SCALE, BAR, GAP = 40, 142, 258, 56, 13, 5  # of the frames and their bars


def pruned() -> list[int]:
    """From the first rank on at which the running sum exceeds p of the total, in ascending order."""
    held = accumulate(WEIGHTS[i] for i in STRONGEST_FIRST)
    return sorted(i for i, total in zip(STRONGEST_FIRST, held) if total > P * sum(WEIGHTS))


def pairs() -> list[tuple[int, int]]:
    """(slot, source): the pruned in ascending order, and the strongest."""
    return list(zip(pruned(), STRONGEST_FIRST))


def shared() -> list[float]:
    """The weights after the event. Slot and source share the mean of their scores; a weight is an
    exponential of a score, so that is the geometric mean, and then the sum is r again."""
    weights = list(WEIGHTS)
    for slot, source in pairs():
        weights[slot] = weights[source] = math.sqrt(WEIGHTS[slot] * WEIGHTS[source])
    return [weight * len(weights) / sum(weights) for weight in weights]


def draw() -> Picture:
    picture = Picture("One event: the weak make room for copies of the strong", 580)
    for k, words in enumerate(("weigh", "cut", "prune", "copy", "share")):
        x = LEFT + PITCH * k
        picture.dot(x + 11, 88, 12, "blue-tint", "blue", 1.6)
        picture.text(x + 11, 93.5, f"{k + 1}", size=15, ink="blue", bold=True)
        picture.text(x + 30, 94, words, anchor="start", bold=True)
        picture.line((x - 4, FOOT), (x + 106, FOOT), width=1.4)
    frames(picture)
    stream(picture)
    return picture


def ranks(picture: Picture, k: int, weights: Sequence[float], kinds: dict[int, str]) -> list[float]:
    """The ranks of frame k as bars, in the order of `kinds`; the middle of each, from rank 1."""
    x, values = LEFT + PITCH * k, [weights[i] for i in kinds]
    tops = picture.bars(x, FOOT, values, [*kinds.values()], SCALE, BAR, GAP)
    middles = dict(zip(kinds, (middle for middle, _ in tops)))
    for i, middle in middles.items():
        picture.text(middle, FOOT + 19, f"{i + 1}", size=14, ink="soft")
    return [middles[i] for i in sorted(middles)]


def frames(picture: Picture) -> None:
    everyone, slots = range(len(WEIGHTS)), pruned()
    kept = dict.fromkeys(everyone, "trained")
    left = [0 if i in slots else weight for i, weight in enumerate(WEIGHTS)]
    ranks(picture, 0, WEIGHTS, kept)

    ranks(picture, 1, WEIGHTS, {i: "pruned" if i in slots else "trained" for i in STRONGEST_FIRST})
    cut = LEFT + PITCH + (BAR + GAP) * (len(WEIGHTS) - len(slots)) - GAP / 2
    share = f"p = {P:g}".replace("0.", ".")
    picture.line((cut, 140), (cut, FOOT + 24), ink="vermilion", dashed=True)
    picture.text(cut + 6, 154, share, size=14, ink="vermilion", anchor="start")

    middles = ranks(picture, 2, left, kept)
    for i in slots:
        picture.arrow((middles[i], FOOT - 34), (middles[i], FOOT - 6), ink="vermilion")

    middles = ranks(picture, 3, left, kept)
    x, fresh = LEFT + PITCH * 3, ["fresh"] * len(WEIGHTS)
    picture.text(x + 51, 130, "snapshot", size=14, ink="green")
    picture.cells(x, 138, fresh, BAR, GAP, across=True, solid=False)
    for slot, source in pairs():
        start, end = middles[source], middles[slot]
        way = (start, 151), (start, 163), (end, 163), (end, FOOT - 6)
        picture.arrow(*way, ink="green", width=2.2)

    ranks(picture, 4, shared(), {i: "fresh" if i in slots else "trained" for i in everyone})


def stream(picture: Picture) -> None:
    left, then, event, right, top, high = 60, 250, 430, 700, 320, 174
    order = {"1": "blue", "2 new": "blue", "2": "vermilion", "3": "purple", "4": "green", "5 new": "green",
             "5": "vermilion", "6": "grey"}  # fmt: skip
    before = {f"{i + 1}": w for i, w in enumerate(WEIGHTS)}
    after = {(f"{i + 1} new" if i in pruned() else f"{i + 1}"): w for i, w in enumerate(shared())}
    middle = {name: (1 + w) / 2 for name, w in before.items()}
    dying = before | {"2": 0.1, "5": 0.1}
    frames = [
        (left, dict.fromkeys(before, 1)),
        (then, middle),
        (event - 40, before),
        (event, dying),
        (event + 50, after),
        (right, after),
    ]
    edges = river(picture, top, high, frames, order)
    first = {f"{slot + 1} new": f"{source + 1}" for slot, source in pairs()}
    for name, edge in edges.items():  # by the rank that each descends from
        for (x, upper, lower), away in ((edge[0], -14), (edge[-1], 14)):
            if lower > upper:
                picture.text(
                    x + away, (upper + lower) / 2 + 5, first.get(name, name), size=15, ink="soft"
                )
    for x, words in ((then, "snapshot"), (event, "event")):
        picture.line((x, top - 8), (x, top + high + 8), width=1.4, dashed=True)
        picture.text(x, top + high + 28, words, size=15)
    picture.brace((event, top + high + 38), (then, top + high + 38))
    picture.text((then + event) / 2, top + high + 64, "half a period", size=15, ink="soft")
