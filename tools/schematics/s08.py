"""The life of a copy: a state from before, put in the place of a weak rank; then twins."""

from .draw import Picture

THEN, EVENT, END = 210, 430, 712
SOURCE, SLOT = 132, 226


def draw() -> Picture:
    picture = Picture("A copy from history: softer to take in, and able to part", 500)
    lives(picture)
    reasons(picture)
    return picture


def lives(picture: Picture) -> None:
    picture.path(f"M60 {SOURCE}C{THEN} {SOURCE - 34} 330 {SOURCE + 8} {EVENT} {SOURCE}S620 {SOURCE - 12} {END} {SOURCE - 8}", "blue", 6)
    picture.path(f"M60 {SLOT}C200 {SLOT - 16} 320 {SLOT + 20} {EVENT - 14} {SLOT}", "grey", 3)
    picture.cross(EVENT - 12, SLOT)
    picture.path(f"M{EVENT} {SLOT}C520 {SLOT - 30} 620 {SLOT - 52} {END} {SLOT - 44}", "green", 6)
    picture.text(60, SOURCE - 22, "source, strong", ink="blue", anchor="start", bold=True)
    picture.text(60, SLOT + 32, "slot, weak", ink="grey", anchor="start")
    picture.arrow((THEN, SOURCE + 6), (EVENT - 2, SLOT - 8), ink="green", width=2.4, bend=-26, dashed=True)
    picture.dot(THEN, SOURCE - 10, 9, "paper", "green", 3)
    picture.dot(EVENT, SLOT, 9, "paper", "green", 3)
    picture.text(END, SLOT - 2, "its twin", ink="green", anchor="end", bold=True)
    for x, words in ((THEN, "n − lag: snapshot"), (EVENT, "n: event")):
        picture.line((x, 98), (x, 270), ink="soft", width=1.2, dashed=True)
        picture.text(x, 290, words, size=15, halo=True)
    picture.arrow((60, 304), (END, 304), ink="soft", width=1.6)


def reasons(picture: Picture) -> None:
    for y, what, effect in ((362, "a, b from then", "a smaller jump"), (428, "Adam's moments from then", "the twins part")):
        picture.box(40, y - 26, 210, 40, "green-tint", "green", round=8)
        picture.text(145, y, what, bold=True)
        picture.arrow((256, y - 6), (300, y - 6), ink="green", width=2.6)
        picture.text(310, y, effect, anchor="start", bold=True)
    left, top, wide, high = 486, 340, 150, 96
    picture.line((left, top), (left, top + high), (left + wide, top + high), width=1.4)
    picture.path(f"M{left} {top + 20}H{left + wide}", "soft", 3, dashed=True)
    picture.path(f"M{left} {top + 20}C{left + 50} {top + 24} {left + 90} {top + 58} {left + wide} {top + 74}", "green", 3.5)
    picture.text(left + wide + 8, top + 25, "of now", size=15, ink="soft", anchor="start")
    picture.text(left + wide + 8, top + 80, "from then", size=15, ink="green", anchor="start")
    picture.text(left + 12, top + 6, "cosine of the twins, by moments", size=15, anchor="start")
    picture.text(left + 75, top + high + 22, "steps after (schematic)", size=15, ink="soft")
