"""A row's length and direction (DoRA), and a run of three rounds (ReLoRA)."""

import math

from .draw import Picture

TOTAL, EVERY, FIRST_WARMUP, WARMUP = 90, 30, 4, 6  # steps, as in notebook 03


def draw() -> Picture:
    picture = Picture("Turn without stretching; restart and add up", 522)
    picture.line((336, 84), (336, 490), ink="grey", width=1)
    turning(picture, 96, "LoRA turns and stretches", dora=False)
    turning(picture, 306, "DoRA: the length is set apart", dora=True)
    picture.text(366, 96, "ReLoRA merges and starts again", anchor="start", bold=True)
    for k in range(3):
        one_round(picture, 366 + 120 * k, k)
    rates(picture)
    return picture


def turning(picture: Picture, top: float, words: str, dora: bool) -> None:
    """A row of W, the row of the update, and where they lead."""
    x, y = 70, top + 150
    row, moved = (x + 128, y - 52), (x + 178, y - 118)
    length = math.hypot(128, 52)
    share = length / math.hypot(178, 118)
    picture.text(32, top, words, anchor="start", bold=True)
    if dora:
        picture.path(f"M{x + length:.1f} {y}A{length:.1f} {length:.1f} 0 0 0 {x + 0.35 * length:.1f} "
                     f"{y - math.sqrt(1 - 0.35**2) * length:.1f}", "soft", 1.4, dashed=True)  # fmt: skip
        picture.line((x, y), moved, ink="soft", width=1.4, dashed=True)
        tip = (x + 178 * share, y - 118 * share)
        picture.arrow((x, y), tip, ink="blue", width=4)
        for way in (1, -1):
            start = (tip[0] - 7, tip[1] - 11)
            picture.arrow(
                start, (start[0] + way * 29, start[1] - way * 19), ink="vermilion", width=2
            )
        picture.text(tip[0] - 18, tip[1] - 20, "m", size=19, ink="vermilion", bold=True, halo=True)
    else:
        picture.arrow((x, y), moved, ink="blue", width=4)
        picture.arrow(row, moved, ink="vermilion", width=2.4)
        picture.text(row[0] + 38, row[1] - 26, "s B A", ink="vermilion", anchor="start")
    picture.arrow((x, y), row, ink="grey", width=3)
    picture.text(row[0] + 8, row[1] + 18, "W", ink="grey", bold=True, halo=True)
    picture.text(moved[0] + 14, moved[1], "V", ink="soft" if dora else "blue", bold=not dora)
    picture.dot(x, y, 4, "ink")


def one_round(picture: Picture, x: float, k: int) -> None:
    """Round k: W with what the rounds before have left in it, and a new adapter."""
    top, width, height = 142, 56, 76
    picture.block(x + 14, top, width, height, "frozen")
    for old in range(k):
        picture.block(x + 14, top + 8 + 18 * old, width, 10, "trained", True, round=0)
    picture.text(x + 14 + width / 2, top + 64, "W", bold=True, halo=True)
    picture.block(x, top, 7, height, "trained", True, round=1)
    picture.block(x + 14, top - 14, width, 7, "trained", True, round=1)
    if k < 2:
        picture.arrow((x + 80, top + 34), (x + 112, top + 34), ink="blue", width=2)
        picture.text(x + 95, top + height + 20, "merge", size=14, ink="blue")
    foot = 310
    picture.bars(x + 18, foot, [k + 1], ["trained"], 18, width=48)
    for level in range(1, k + 1):
        picture.line((x + 18, foot - 18 * level), (x + 66, foot - 18 * level), width=1)
    picture.text(x + 42, foot + 20, ("rank r", "up to 2 r", "up to 3 r")[k], size=15)


def multiplier(done: int) -> float:
    """The learning rate's factor at a step: a cosine, from zero again after each restart."""

    def cosine(step: int) -> float:
        return 0.5 * (1 + math.cos(math.pi * (step - FIRST_WARMUP) / (TOTAL - FIRST_WARMUP)))

    since = done % EVERY
    if done < FIRST_WARMUP:
        return done / FIRST_WARMUP
    if done >= EVERY and since < WARMUP:
        return since / WARMUP * cosine(done - since + WARMUP)
    return cosine(done)


def rates(picture: Picture) -> None:
    left, foot, step = 366, 462, 360 / TOTAL
    points = [(left + step * n, foot - 90 * multiplier(n)) for n in range(TOTAL)]
    picture.line((left, foot), (left + 352, foot), width=1.4)
    picture.line(*points, ink="blue", width=3)
    picture.text(left + 176, foot + 26, "learning rate: from zero in each round", size=15)
