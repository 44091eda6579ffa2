"""One event of BeamLoRA in five frames, and the river that it interrupts."""

import math
from itertools import accumulate

from .draw import Picture
from .river import river

WEIGHTS = (1.5, 0.4, 1.2, 1.3, 0.3, 1.3)  # of six ranks; they add up to six
P = 0.9
PITCH, WIDE, FOOT, SCALE = 142, 106, 258, 56


def pruned() -> list[int]:
    """From the first rank on at which the running sum exceeds p of the total, in ascending order."""
    order = sorted(range(len(WEIGHTS)), key=lambda i: -WEIGHTS[i])
    held = accumulate(WEIGHTS[i] for i in order)
    return sorted(i for i, total in zip(order, held) if total > P * sum(WEIGHTS))


def pairs() -> list[tuple[int, int]]:
    """(slot, source): the pruned in ascending order, and the strongest."""
    slots = pruned()
    return list(zip(slots, sorted(range(len(WEIGHTS)), key=lambda i: -WEIGHTS[i])))


def shared() -> list[float]:
    """The weights after the event. Slot and source share the mean of their scores; a weight is an
    exponential of a score, so that is the geometric mean, and then the sum is r again."""
    weights = list(WEIGHTS)
    for slot, source in pairs():
        weights[slot] = weights[source] = math.sqrt(WEIGHTS[slot] * WEIGHTS[source])
    return [weight * len(weights) / sum(weights) for weight in weights]


def draw() -> Picture:
    picture = Picture("One event: the weak make room for copies of the strong", 552)
    for k, words in enumerate(("weigh", "cut", "prune", "copy", "share")):
        x = 40 + PITCH * k
        picture.dot(x + 11, 88, 12, "blue-tint", "blue", 1.6)
        picture.text(x + 11, 93.5, f"{k + 1}", size=15, ink="blue", bold=True)
        picture.text(x + 30, 94, words, anchor="start", bold=True)
        picture.line((x - 4, FOOT), (x + WIDE, FOOT), width=1.4)
    frames(picture)
    stream(picture)
    return picture


def ranks(
    picture: Picture, k: int, weights: tuple | list, kinds: list[str], names: str = "123456"
) -> list:
    tops = picture.bars(40 + PITCH * k, FOOT, weights, kinds, SCALE, 13, 5)
    for (x, _), name in zip(tops, names):
        picture.text(x, FOOT + 19, name, size=14, ink="soft")
    return tops


def frames(picture: Picture) -> None:
    slots, kept = pruned(), ["trained"] * len(WEIGHTS)
    marked = ["pruned" if i in slots else "trained" for i in range(len(WEIGHTS))]
    ranks(picture, 0, WEIGHTS, kept)
    order = sorted(range(len(WEIGHTS)), key=lambda i: -WEIGHTS[i])
    ranks(
        picture,
        1,
        [WEIGHTS[i] for i in order],
        [marked[i] for i in order],
        "".join(f"{i + 1}" for i in order),
    )
    cut = 40 + PITCH + 18 * (len(WEIGHTS) - len(slots)) - 2.5
    picture.line((cut, 140), (cut, FOOT + 24), ink="vermilion", dashed=True)
    picture.text(
        cut + 6, 154, f"p = {P:g}".replace("0.", "."), size=14, ink="vermilion", anchor="start"
    )
    ranks(picture, 2, [0 if i in slots else w for i, w in enumerate(WEIGHTS)], kept)
    tops = ranks(picture, 3, [0 if i in slots else w for i, w in enumerate(WEIGHTS)], kept)
    for i in slots:
        x = 40 + PITCH * 2 + 18 * i + 6.5
        picture.arrow((x, FOOT - 34), (x, FOOT - 6), ink="vermilion")
    picture.text(40 + PITCH * 3 + 51, 130, "snapshot", size=14, ink="green")
    picture.cells(
        40 + PITCH * 3, 138, ["fresh"] * len(WEIGHTS), size=13, gap=5, across=True, solid=False
    )
    for slot, source in pairs():
        picture.arrow(
            (tops[source][0], 151),
            (tops[source][0], 163),
            (tops[slot][0], 163),
            (tops[slot][0], FOOT - 6),
            ink="green",
            width=2.2,
        )
    after = ["fresh" if i in slots else "trained" for i in range(len(WEIGHTS))]
    ranks(picture, 4, shared(), after)


def stream(picture: Picture) -> None:
    left, then, event, right, top, high = 60, 250, 430, 700, 320, 146
    order = {"1": "blue", "2 new": "blue", "2": "grey-tint", "3": "purple", "4": "green", "5 new": "green",
             "5": "grey-tint", "6": "grey"}  # fmt: skip
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
    for name, edge in edges.items():
        for (x, upper, lower), away in ((edge[0], -14), (edge[-1], 14)):
            if lower > upper:
                picture.text(x + away, (upper + lower) / 2 + 5, name[0], size=15, ink="soft")
    for x, words in ((then, "snapshot"), (event, "event")):
        picture.line((x, top - 8), (x, top + high + 8), width=1.4, dashed=True)
        picture.text(x, top + high + 28, words, size=15)
    picture.brace((event, top + high + 38), (then, top + high + 38))
    picture.text((then + event) / 2, top + high + 64, "half a period", size=15, ink="soft")
