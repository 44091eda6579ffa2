"""What is lost: skills that overlap in one weight, and a new task that pushes it."""

import math

from .draw import Picture


def draw() -> Picture:
    picture = Picture("A step towards the new can leave the old", 440)
    skills(picture)
    losses(picture)
    return picture


def skills(picture: Picture) -> None:
    """In the plane of two weights: where each skill is still there, and where the new one would be."""
    x, y = 186, 252
    for ink, dx, dy, name in (
        ("blue", -28, -28, "add"),
        ("green", 28, -32, "copy"),
        ("purple", -26, 34, "reverse"),
        ("soft", 34, 28, "sort"),
    ):
        picture.dot(x + dx, y + dy, 106, f"{ink}-tint", ink, opacity=0.6)
        out = 1 + 114 / math.hypot(dx, dy)
        side = "end" if dx < 0 else "start"
        picture.text(x + dx * out, y + dy * out + 6, name, ink=ink, bold=True, anchor=side)
    picture.dot(418, 210, 74, "vermilion-tint", "vermilion", dashed=True, opacity=0.7)
    picture.text(428, 182, "new task", ink="vermilion", bold=True)
    picture.arrow((x - 6, y), (x + 56, y - 8), width=2.6)
    picture.arrow((x + 62, y - 9), (402, 212), width=2.6, dashed=True)
    picture.dot(x - 14, y + 1, 8, "ink")
    picture.text(x - 28, y + 7, "W", anchor="end", bold=True, size=18)
    picture.text(x + 46, y + 18, "near", size=15)
    picture.text(408, 240, "far", size=15)


def losses(picture: Picture) -> None:
    left, top, wide, high = 520, 130, 190, 230
    picture.line((left, top), (left, top + high), (left + wide, top + high), width=1.4)
    picture.path(
        f"M{left} {top + 30}C{left + 50} {top + 150} {left + 90} {top + 196} {left + wide} {top + 204}",
        "vermilion",
        3.5,
        dashed=True,
    )
    picture.path(
        f"M{left} {top + 206}C{left + 90} {top + 206} {left + 120} {top + 150} {left + wide} {top + 40}",
        "blue",
        3.5,
    )
    picture.text(left + 28, top + 34, "new task", size=15, ink="vermilion", anchor="start")
    picture.text(left + wide - 38, top + 62, "old skills", size=15, ink="blue", anchor="end")
    picture.text(left - 6, top - 14, "loss (schematic)", size=15, anchor="start")
    picture.text(left + wide / 2, top + high + 24, "size of the update", size=15)
