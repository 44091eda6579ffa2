"""One rank reads, multiplies and writes; five meters say what it is worth."""

import math

from .draw import Picture

MIDDLE = 252  # the height of the way from x to the output


def draw() -> Picture:
    picture = Picture("One rank, and five meters on it", 460)
    picture.brace((132, 166), (536, 166), depth=14)
    meter(picture, 62, 108, "Frobenius:\n‖a‖ ‖b‖", 0.62)
    meter(picture, 372, 108, "sensitivity: |p · ∂L/∂p|\nof all entries p, over many steps", 0.52)
    way(picture)
    for x, start, foot, turn, words, value in (
        (62, 316, 30, 334, "activation:\n‖b‖ · rms of a·x", 0.45),
        (300, 404, 25, 352, "learned score:\nthe weight w itself", 0.75),
        (542, 518, 72, 346, "gradient:\n|b · ∂L/∂b|", 0.3),
    ):
        picture.line(
            (start, MIDDLE + foot), (start, turn), (x, turn), (x, 368), ink="soft", width=1.4
        )
        meter(picture, x, 402, words, value)
    return picture


def way(picture: Picture) -> None:
    picture.cells(46, MIDDLE - 56, ["frozen"] * 6)
    picture.text(54, MIDDLE - 68, "x", size=18)
    picture.arrow((72, MIDDLE), (122, MIDDLE))
    picture.cells(132, MIDDLE - 8, ["trained"] * 6, across=True)
    picture.text(186, MIDDLE - 20, "a", size=18, ink="blue", bold=True)
    picture.text(186, MIDDLE + 34, "read", ink="soft")
    picture.arrow((252, MIDDLE), (287, MIDDLE))
    picture.dot(316, MIDDLE, 25, "paper", "ink")
    picture.text(316, MIDDLE + 6, "a·x", size=17)
    picture.arrow((344, MIDDLE), (380, MIDDLE))
    picture.sign(404, MIDDLE, "×", 20, "blue")
    picture.text(404, MIDDLE - 32, "w", size=18, ink="blue", bold=True)
    picture.arrow((427, MIDDLE), (498, MIDDLE))
    picture.cells(510, MIDDLE - 66, ["trained"] * 7)
    picture.text(546, MIDDLE - 30, "b", size=18, ink="blue", bold=True)
    picture.text(538, MIDDLE + 28, "write", ink="soft", anchor="start")
    picture.arrow((538, MIDDLE), (602, MIDDLE))
    picture.text(612, MIDDLE + 6, "added to W x", anchor="start")
    picture.arrow((650, MIDDLE + 54), (538, MIDDLE + 54), ink="vermilion", dashed=True)
    picture.text(660, MIDDLE + 60, "∂L/∂b", ink="vermilion", anchor="start")


def meter(picture: Picture, x: float, y: float, words: str, value: float) -> None:
    """A small dial, its needle at a share of the way, and what it reads."""
    radius, angle = 20, math.pi * (1 - value)
    picture.path(f"M{x - radius} {y}A{radius} {radius} 0 0 1 {x + radius} {y}", "ink", 2.4)
    picture.line(
        (x, y), (x + 15 * math.cos(angle), y - 15 * math.sin(angle)), ink="vermilion", width=2.6
    )
    picture.dot(x, y, 3, "ink")
    picture.text(x + radius + 12, y - 10, words, anchor="start")
