"""The life of a copy: a state from before, put in the place of a weak rank; then twins."""

from .draw import Picture

BEGIN, THEN, EVENT, END = 60, 210, 400, 716  # x
STATE = 176  # y: where the source was at the snapshot


def draw() -> Picture:
    picture = Picture("A copy from history: softer to take in, and able to part", 500)
    lives(picture)
    reasons(picture)
    return picture


def lives(picture: Picture) -> None:
    """A rank's state as a height: the source climbs, the slot is thrown out and taken over."""
    for x, words in ((THEN, "step n − lag: snapshot"), (EVENT, "step n: event")):
        picture.line((x, 96), (x, 286), ink="soft", width=1.2, dashed=True)
        picture.text(x, 314, words, size=15)
    picture.arrow((BEGIN, 290), (END, 290), ink="soft", width=1.6)
    picture.path(
        f"M{BEGIN} 206C{BEGIN + 60} 200 {THEN - 50} 192 {THEN} {STATE}"
        f"S{EVENT - 60} 136 {EVENT} 128S620 112 {END} 108", "blue", 5,
    )  # fmt: skip
    picture.path(f"M{BEGIN} 262C{THEN} 246 {EVENT - 90} 270 {EVENT} 256", "grey", 3)
    picture.cross(EVENT, 256)
    picture.path(
        f"M{EVENT} {STATE}C{EVENT + 90} {STATE + 4} 600 {STATE + 40} {END} {STATE + 46}", "green", 5
    )
    picture.arrow((THEN + 12, STATE), (EVENT - 10, STATE), ink="green", dashed=True)
    picture.dot(THEN, STATE, 8, "paper", "green", 3)
    picture.dot(EVENT, STATE, 8, "paper", "green", 3)
    picture.text(BEGIN, 184, "source", ink="blue", anchor="start", bold=True)
    picture.text(BEGIN, 246, "weak slot", ink="grey", anchor="start")
    picture.text((THEN + EVENT) / 2, STATE + 24, "copied", ink="green", halo=True)
    picture.text(END, 96, "source", ink="blue", anchor="end", bold=True)
    picture.text(END, STATE + 72, "its twin", ink="green", anchor="end", bold=True)


def reasons(picture: Picture) -> None:
    for y, what, effect in (
        (384, "a, b from then", "a smaller\njump"),
        (452, "Adam's moments\nfrom then", "the twins\npart"),
    ):
        picture.box(48, y - 34, 176, 52, "green-tint", "green", round=8)
        picture.text(136, y - 3 - 10 * what.count("\n"), what)
        picture.arrow((232, y - 8), (278, y - 8), ink="green", width=2.6)
        picture.text(288, y - 13, effect, anchor="start", bold=True)
    left, top, wide, high = 444, 372, 140, 84
    picture.line((left, top), (left, top + high), (left + wide, top + high), width=1.4)
    picture.path(f"M{left} {top + 12}H{left + wide}", "soft", 3, dashed=True)
    picture.path(
        f"M{left} {top + 12}C{left + 50} {top + 16} {left + 80} {top + 52} {left + wide} {top + 62}",
        "green",
        3.5,
    )
    picture.text(left + wide + 10, top + 17, "moments of now", size=15, ink="soft", anchor="start")
    picture.text(
        left + wide + 10, top + 68, "moments\nfrom then", size=15, ink="green", anchor="start"
    )
    picture.text(left - 6, top - 10, "cosine of the twins", size=15, anchor="start")
    picture.text(left + 66, top + high + 20, "steps (schematic)", size=15, ink="soft")
