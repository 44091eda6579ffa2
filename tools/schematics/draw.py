"""The vocabulary of the schematics: a picture on a paper card, and what can be drawn on it.

Lengths are in pixels of a picture 760 wide; y runs downwards. An ink is a name from `ink.py`, never a
colour, so that every picture works on light and on dark paper. Whatever an ink says, a hatch, an outline
or a word beside it says too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from xml.sax.saxutils import escape, quoteattr

from .ink import STYLE

WIDTH = 760
SMALLEST = 13  # pixels: letters of a subscript
Point = tuple[float, float]
KINDS = {  # of things that are made of numbers: (ink, hatched, dashed)
    "frozen": ("grey", True, False),
    "trained": ("blue", False, False),
    "pruned": ("vermilion", True, False),
    "fresh": ("green", False, False),
    "other": ("purple", False, False),
    "absent": (None, False, True),
}


def number(value: float) -> str:
    """At most one decimal: as fine as anyone can see, and the same on every machine."""
    shown = f"{value:.1f}".removesuffix(".0")
    return "0" if shown == "-0" else shown


def path_through(points: Iterable[Point]) -> str:
    return "M" + "L".join(f"{number(x)} {number(y)}" for x, y in points)


def level_curve(points: Sequence[Point]) -> str:
    """Through the points, level at each of them."""
    steps = [" ".join(map(number, points[0]))]
    for (x0, y0), (x1, y1) in pairwise(points):
        middle = (x0 + x1) / 2
        steps.append("C" + " ".join(map(number, (middle, y0, middle, y1, x1, y1))))
    return "".join(steps)


def hatching(x: float, y: float, width: float, height: float, step: float = 8) -> str:
    """Rising lines that fill a rectangle, clipped to it."""
    lines, start = [], step
    while start < width + height:
        left, right = max(0.0, start - height), min(start, width)
        lines.append(path_through([(x + left, y + start - left), (x + right, y + start - right)]))
        start += step
    return "".join(lines)


def spans(words: str, size: float) -> str:
    """Words as SVG's text; b_i and b_{ij} become subscripts."""
    drop, small = number(0.28 * size), number(max(SMALLEST, 0.72 * size))
    plain, *rest = re.split(r"_(\{[^}]*\}|\w(?!\w))", words)
    parts = [escape(plain)]
    for low, after in zip(rest[::2], rest[1::2]):
        parts.append(f'<tspan dy="{drop}" font-size="{small}">{escape(low.strip("{}"))}</tspan>')
        parts.append(f'<tspan dy="-{drop}">{escape(after)}</tspan>' if after else "")
    return "".join(parts)


class Picture:
    """Elements in the order in which they are drawn. `heading` says the one idea of the picture."""

    def __init__(self, heading: str, height: int):
        self.heading, self.height = heading, height
        self.elements: list[str] = []
        self.text(32, 46, heading, size=21, anchor="start", bold=True)

    def svg(self, alt: str) -> str:
        """The whole file; `alt` says the same to those who do not see it."""
        size = f'viewBox="0 0 {WIDTH} {self.height}" width="{WIDTH}" height="{self.height}"'
        card = f'width="{WIDTH - 2}" height="{self.height - 2}" rx="18"'
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title desc">',
            f'<title id="title">{escape(self.heading)}</title>',
            f'<desc id="desc">{escape(alt)}</desc>',
            f"<style>\n{STYLE}\n</style>",
            f'<rect class="card" x="1" y="1" {card}/>',
            *self.elements,
            "</svg>\n",
        ]
        return "\n".join(lines)

    def element(self, tag: str, classes: str, content: str = "", **attributes: object) -> None:
        """One element of SVG. In the names of attributes _ stands for -; None leaves one out."""
        written = [f"<{tag} class={quoteattr(classes)}"]
        for name, value in attributes.items():
            if value is not None:
                shown = number(value) if isinstance(value, int | float) else str(value)
                written.append(f"{name.replace('_', '-')}={quoteattr(shown)}")
        self.elements.append(" ".join(written) + (f">{content}</{tag}>" if content else "/>"))

    # Words

    def text(
        self, x: float, y: float, words: str, size: float = 16, ink: str = "ink",
        anchor: str = "middle", bold: bool = False, halo: bool = False, turn: float | None = None,
    ) -> None:  # fmt: skip
        """Words, the first baseline at y; a new line for each \\n; marks as in `spans`. halo: paper around the
        letters, to stand on lines. turn: degrees."""
        for line in words.split("\n"):
            self.element(
                "text", f"{ink}-word halo" if halo else f"{ink}-word", spans(line, size),
                x=x, y=y, font_size=size, text_anchor=anchor, font_weight=600 if bold else None,
                transform=turn and f"rotate({number(turn)} {number(x)} {number(y)})",
            )  # fmt: skip
            y += 1.3 * size

    # Lines

    def path(
        self, path: str, ink: str = "ink", width: float = 2, dashed: bool = False, fill: str = "",
    ) -> None:  # fmt: skip
        """A path in SVG's own words. fill: a class such as blue or blue-tint; width 0 leaves only that."""
        classes = " ".join(filter(None, (width and f"{ink}-line", fill)))
        self.element(
            "path", classes, d=path, fill=None if fill else "none", stroke_width=width or None,
            stroke_dasharray=f"{number(2.5 * width)} {number(2.5 * width)}" if dashed else None,
        )  # fmt: skip

    def line(
        self, *points: Point, ink: str = "ink", width: float = 2, dashed: bool = False
    ) -> None:
        self.path(path_through(points), ink, width, dashed)

    def arrow(
        self, *points: Point, ink: str = "ink", width: float = 2, dashed: bool = False
    ) -> None:
        """Through the points to the last."""
        (x0, y0), (x, y) = points[-2:]
        length, size = math.hypot(x - x0, y - y0), 5 + 2 * width
        ahead = (size * (x - x0) / length, size * (y - y0) / length)
        foot = (x - ahead[0], y - ahead[1])
        left, right = (
            (foot[0] - side * ahead[1], foot[1] + side * ahead[0]) for side in (0.45, -0.45)
        )
        self.line(*points[:-1], foot, ink=ink, width=width, dashed=dashed)
        self.path(path_through([left, (x, y), right]) + "Z", width=0, fill=ink)

    def brace(self, start: Point, end: Point, depth: float = 9, ink: str = "soft") -> None:
        """A brace from start to end, its tip to the left of the way there."""
        (x0, y0), (x1, y1) = start, end
        length = math.hypot(x1 - x0, y1 - y0)
        turn = depth / 2 / length  # of the rounded ends, as a share of the length

        def at(share: float, out: float) -> str:
            aside = out * depth / length
            x = x0 + share * (x1 - x0) + aside * (y1 - y0)
            y = y0 + share * (y1 - y0) - aside * (x1 - x0)
            return f"{number(x)} {number(y)}"

        self.path(
            f"M{at(0, 0)}Q{at(0, 0.5)} {at(turn, 0.5)}L{at(0.5 - turn, 0.5)}Q{at(0.5, 0.5)} {at(0.5, 1)}"
            f"Q{at(0.5, 0.5)} {at(0.5 + turn, 0.5)}L{at(1 - turn, 0.5)}Q{at(1, 0.5)} {at(1, 0)}", ink, 1.6,
        )  # fmt: skip

    def cross(self, x: float, y: float, size: float = 6, ink: str = "vermilion") -> None:
        for way in (1, -1):
            self.line((x - size, y - way * size), (x + size, y + way * size), ink=ink, width=2.6)

    # Areas

    def box(
        self, x: float, y: float, width: float, height: float, fill: str, ink: str = "",
        line: float = 1.6, round: float = 4, dashed: bool = False,
    ) -> None:  # fmt: skip
        self.element(
            "rect", f"{fill} {ink}-line" if ink else fill, x=x, y=y, width=width, height=height,
            rx=min(round, width / 2, height / 2), stroke_width=line if ink else None,
            stroke_dasharray="5 4" if dashed else None,
        )  # fmt: skip

    def block(
        self, x: float, y: float, width: float, height: float, kind: str, solid: bool = False,
        round: float = 4,
    ) -> None:  # fmt: skip
        """A matrix, a bar or a cell of one of the KINDS; solid: in full colour, for thin ones."""
        ink, hatched, dashed = KINDS[kind]
        fill = "paper" if ink is None else ink if solid and not hatched else f"{ink}-tint"
        self.box(x, y, width, height, fill, ink or "soft", round=round, dashed=dashed)
        if hatched:
            self.path(hatching(x, y, width, height), ink or "soft", 0.8)

    def cells(
        self, x: float, y: float, kinds: Sequence[str], size: float = 16, gap: float = 3,
        across: bool = False, solid: bool = True,
    ) -> None:  # fmt: skip
        """A vector, one cell for each kind, downwards or across."""
        for i, kind in enumerate(kinds):
            way = i * (size + gap)
            self.block(x + way * across, y + way * (not across), size, size, kind, solid, round=3)

    def bars(
        self, x: float, foot: float, values: Sequence[float], kinds: Sequence[str], scale: float,
        width: float = 16, gap: float = 6,
    ) -> list[Point]:  # fmt: skip
        """Bars that stand on y = foot; the middle of each one's upper edge."""
        tops = []
        for i, (value, kind) in enumerate(zip(values, kinds, strict=True)):
            left = x + i * (width + gap)
            if value:
                self.block(left, foot - value * scale, width, value * scale, kind, True, round=2)
            tops.append((left + width / 2, foot - value * scale))
        return tops

    def ribbon(self, edges: Sequence[tuple[float, float, float]], ink: str) -> None:
        """A stream: at each (x, upper, lower) it lies between upper and lower. Paper parts it from others."""
        upper = [(x, top) for x, top, _ in edges]
        lower = [(x, bottom) for x, _, bottom in reversed(edges)]
        path = f"M{level_curve(upper)}L{level_curve(lower)}Z"
        self.element("path", f"{ink} cut", d=path, stroke_width=2.5)

    def dot(
        self, x: float, y: float, radius: float, fill: str, ink: str = "", line: float = 2,
        dashed: bool = False, opacity: float | None = None,
    ) -> None:  # fmt: skip
        self.element(
            "circle", f"{fill} {ink}-line" if ink else fill, cx=x, cy=y, r=radius,
            stroke_width=line if ink else None, stroke_dasharray="6 5" if dashed else None,
            fill_opacity=opacity,
        )  # fmt: skip

    def sign(self, x: float, y: float, words: str, radius: float = 17, ink: str = "ink") -> None:
        """A small circle with a sign in it: + or ×."""
        self.dot(x, y, radius, "paper", ink)
        self.text(x, y + 7, words, size=20, ink=ink)
