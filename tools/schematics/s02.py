"""One spectrum, three starts: which singular values an adapter takes over."""

from .draw import Picture

SPECTRUM = (10, 7.6, 6.3, 5.5, 4.9, 4.5, 4.1, 3.8, 3.5, 3.2, 2.9, 2.6, 2.3, 1.9, 1.5, 1.0)
RANK = 4
WIDTH, GAP, APART = 7, 3, 18
FOOT, SCALE = 268, 13


def draw() -> Picture:
    picture = Picture("One weight, three ways to start", 386)
    frozen, trained = ["frozen"] * len(SPECTRUM), ["trained"] * RANK
    rest = frozen[RANK:]
    panel(picture, 36, "LoRA", "nothing of W", [(SPECTRUM, frozen), ((0,) * RANK, trained)])
    panel(picture, 312, "PiSSA", "the head", [(SPECTRUM[:RANK], trained), (SPECTRUM[RANK:], rest)])
    panel(
        picture, 549, "MiLoRA", "the tail", [(SPECTRUM[:-RANK], rest), (SPECTRUM[-RANK:], trained)]
    )
    picture.text(
        380, 356, "Bars: singular values of W, largest first. All three start as the model you had.",
        size=15, ink="soft",
    )  # fmt: skip
    return picture


def panel(picture: Picture, x: float, name: str, takes: str, parts: list) -> None:
    left = x
    for values, kinds in parts:
        right = x + len(values) * (WIDTH + GAP) - GAP
        picture.bars(x, FOOT, values, kinds, SCALE, WIDTH, GAP)
        picture.line((x - 2, FOOT), (right + 2, FOOT), width=1.6)
        picture.brace((right, FOOT + 10), (x, FOOT + 10), depth=10)
        ink, word = ("blue", "trains") if kinds[0] == "trained" else ("grey", "frozen")
        picture.text((x + right) / 2, FOOT + 42, word, ink=ink, bold=ink == "blue")
        if not any(values):
            for k in range(RANK):
                middle = x + k * (WIDTH + GAP) + WIDTH / 2
                picture.arrow((middle, FOOT - 8), (middle, FOOT - 34), ink="blue", width=1.4)
            picture.text((x + right) / 2, FOOT - 46, "0", ink="blue", bold=True)
        x = right + APART
    middle = (left + x - APART) / 2
    picture.text(middle, 96, name, size=19, bold=True)
    picture.text(middle, 119, takes, ink="soft")
