"""HyperCloning: four tiles on a doubled stream, and why a tied head has to part from its embedding."""

from .draw import Picture


def draw() -> Picture:
    picture = Picture("Twice as wide, the same output", 526)
    tiles(picture)
    head(picture)
    return picture


def tiles(picture: Picture) -> None:
    left, top, wide, high = 56, 110, 138, 84
    for row in range(2):
        for column in range(2):
            x, y = left + column * (wide + 6), top + row * (high + 6)
            sign, kind = ("+", "fresh") if column == 0 else ("−", "other")
            picture.block(x, y, wide, high, kind)
            picture.text(
                x + wide / 2, y + high / 2 + 7, f"W/2 {sign} N_{row + 1}", size=19, bold=True
            )
    middle = top + high + 3
    for x, words in ((384, "x"), (476, "W x")):
        for part in range(2):
            y = top + part * (high + 6) + 14
            picture.cells(x, y, ["trained"] * 3)
            picture.text(x + 26, y + 34, words, size=17, anchor="start")
    picture.text(363, middle + 7, "×", size=22)
    picture.text(446, middle + 8, "=", size=24)
    picture.text(640, middle - 44, "N cancels\nin every sum.", size=16, ink="soft")
    picture.text(
        640, middle + 28, "Without N, the\ntwins stay equal\nfor ever.", size=16, ink="soft"
    )
    picture.brace((left + 2 * wide + 6, top + 2 * high + 14), (left, top + 2 * high + 14))
    picture.text(
        left + wide + 3,
        top + 2 * high + 44,
        "each row of tiles adds up to W x",
        size=15,
        ink="soft",
    )


def head(picture: Picture) -> None:
    top = 372
    picture.line((40, 344), (720, 344), ink="grey", width=1)
    picture.text(
        40,
        top + 4,
        "One weight cannot do both, so a tied head gets its own",
        size=17,
        anchor="start",
        bold=True,
    )
    for x, tile, words in (
        (150, "E", "the embedding writes: copy"),
        (462, "E/2", "the head reads: copy, halve"),
    ):
        for part in range(2):
            picture.block(x + part * 76, top + 44, 72, 60, "trained")
            picture.text(x + part * 76 + 36, top + 81, tile, size=19, bold=True)
        picture.text(x + 74, top + 126, words, size=15)
    picture.arrow((312, top + 74), (448, top + 74), width=2.4)
    picture.text(380, top + 64, "stream", size=15, ink="soft")
    picture.text(380, top + 104, "≠", size=26, ink="vermilion", bold=True)
