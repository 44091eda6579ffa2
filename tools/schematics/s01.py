"""LoRA to scale: a weight of the tiny model, and the two thin matrices beside it."""

from .draw import Picture

OUT, IN, RANK, ALPHA = 352, 128, 4, 8
PIXEL = 0.75  # for one row or column
HEIGHT, BREADTH, THIN = PIXEL * OUT, PIXEL * IN, PIXEL * RANK
TOP = 112


def draw() -> Picture:
    picture = Picture("A frozen weight, and two thin matrices that train", 470)
    equation(picture)
    lens(picture)
    counts(picture)
    return picture


def equation(picture: Picture) -> None:
    picture.block(76, TOP, BREADTH, HEIGHT, "frozen")
    picture.text(76 + BREADTH / 2, TOP + HEIGHT / 2 + 8, "W", size=26, bold=True, halo=True)
    picture.text(76 + BREADTH / 2, TOP - 10, f"{IN} in", size=15, ink="soft")
    picture.text(64, TOP + HEIGHT / 2, f"{OUT} out", size=15, ink="soft", turn=-90)
    picture.text(196, TOP + HEIGHT / 2 + 8, "+", size=26)
    picture.text(242, TOP + HEIGHT / 2 + 8, "α / r  ×", size=20)
    left = 340
    picture.block(left, TOP, BREADTH, HEIGHT, "absent")
    picture.text(left + BREADTH / 2, TOP + HEIGHT / 2 + 7, "B A", size=20, ink="soft")
    picture.box(left - THIN - 8, TOP, THIN, HEIGHT, "blue", round=0)
    picture.box(left, TOP - THIN - 8, BREADTH, THIN, "blue", round=0)
    picture.text(left - 22, TOP + 40, "B", size=20, ink="blue", bold=True)
    picture.text(left + BREADTH / 2, TOP - 18, "A", size=20, ink="blue", bold=True)


def lens(picture: Picture) -> None:
    """The corner where B and A meet, enlarged: four columns, four rows."""
    left, top, thick, long = 572, 196, 13, 120
    picture.arrow((340 + BREADTH + 16, top + 60), (left - 90, top + 60), ink="soft")
    picture.block(left, top, long, long, "absent")
    for k in range(RANK):
        solid = k == 1
        across = 17 * (RANK - k) + 4
        picture.block(left - across, top, thick, long, "trained", solid, round=2)
        picture.block(left, top - across, long, thick, "trained", solid, round=2)
    picture.text(left + long / 2, top + long / 2 - 4, "rank 2 adds", size=15)
    picture.text(left + long / 2, top + long / 2 + 18, "b_2 a_2", size=18, bold=True)
    picture.text(left - 36, top + long + 24, "4 columns", size=15, ink="blue")
    picture.text(left - 36, top + long + 43, "start: 0", size=15, ink="soft")
    picture.text(left + long / 2, top - 84, "4 rows; start: random", size=15, ink="blue")


def counts(picture: Picture) -> None:
    y, trained = TOP + HEIGHT + 44, RANK * (OUT + IN)
    share = trained / (OUT * IN)
    for x, big, small, ink in (
        (124, f"{OUT * IN:,}", "numbers, frozen", "grey"),
        (384, f"{trained:,}", f"numbers train: {share:.1%}", "blue"),
        (626, f"× {ALPHA / RANK:g}", f"fixed: α / r = {ALPHA} / {RANK}", "ink"),
    ):
        picture.text(x, y, big, size=24, ink=ink, bold=True)
        picture.text(x, y + 24, small, size=15, ink=ink)
