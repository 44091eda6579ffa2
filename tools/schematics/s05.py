"""One rank reads, multiplies and writes; five meters say what it is worth."""

from .draw import Picture

MIDDLE = 226  # the height of the way from x to the output


def draw() -> Picture:
    picture = Picture("One rank, and five meters on it", 520)
    way(picture)
    meter(picture, 296, 96, "1  Frobenius: ‖a‖ ‖b‖", 0.62)
    picture.brace((132, 150), (536, 150), depth=14)
    meter(picture, 118, 366, "2  activation:\n‖b‖ · rms of a·x", 0.45)
    picture.line((316, MIDDLE + 30), (316, 318), (150, 318), (150, 340), ink="soft", width=1.4)
    meter(picture, 352, 366, "5  learned score:\nthe weight w itself", 0.75)
    picture.line((404, MIDDLE + 24), (404, 340), ink="soft", width=1.4)
    meter(picture, 574, 366, "3  gradient:\n| b · ∂L/∂b |", 0.3)
    picture.line((518, 312), (518, 326), (606, 326), (606, 340), ink="soft", width=1.4)
    picture.brace((536, 446), (132, 446), depth=12)
    meter(picture, 150, 486, "4  sensitivity: | p · ∂L/∂p | of all entries, over many steps", 0.52)
    return picture


def way(picture: Picture) -> None:
    picture.cells(46, MIDDLE - 56, ["frozen"] * 6)
    picture.text(54, MIDDLE - 68, "x", size=18)
    picture.arrow((72, MIDDLE), (118, MIDDLE))
    picture.cells(132, MIDDLE - 8, ["trained"] * 6, across=True)
    picture.text(186, MIDDLE - 20, "a", size=18, ink="blue", bold=True)
    picture.text(186, MIDDLE + 34, "read", ink="soft")
    picture.arrow((252, MIDDLE), (288, MIDDLE))
    picture.dot(316, MIDDLE, 25, "paper", "ink")
    picture.text(316, MIDDLE + 6, "a·x", size=17)
    picture.arrow((344, MIDDLE), (380, MIDDLE))
    picture.sign(404, MIDDLE, "×", 20, "blue")
    picture.text(404, MIDDLE - 32, "w", size=18, ink="blue", bold=True)
    picture.arrow((427, MIDDLE), (494, MIDDLE))
    picture.cells(510, MIDDLE - 66, ["trained"] * 7)
    picture.text(544, MIDDLE - 34, "b", size=18, ink="blue", bold=True)
    picture.text(556, MIDDLE + 48, "write", ink="soft")
    picture.arrow((540, MIDDLE), (606, MIDDLE))
    picture.text(616, MIDDLE + 6, "added to W x", anchor="start")


def meter(picture: Picture, x: float, y: float, words: str, value: float) -> None:
    """A small dial and what it reads."""
    import math

    radius = 20
    picture.path(f"M{x - radius} {y + 8}A{radius} {radius} 0 0 1 {x + radius} {y + 8}", "ink", 2.4)
    angle = math.pi * (1 - value)
    picture.line((x, y + 8), (x + 15 * math.cos(angle), y + 8 - 15 * math.sin(angle)), ink="vermilion", width=2.6)
    picture.dot(x, y + 8, 3, "ink")
    picture.text(x + radius + 12, y + (6 if "\n" not in words else -4), words, anchor="start")
