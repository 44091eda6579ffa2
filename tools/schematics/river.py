"""Ranks over time as a river: the width of a stream is the weight of a rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .draw import Picture

Frame = tuple[float, Mapping[str, float]]  # x, and the width of each stream there


def river(
    picture: Picture, top: float, height: float, frames: Sequence[Frame], inks: Mapping[str, str]
) -> dict[str, list[tuple[float, float, float]]]:
    """Draw the streams in the order of `inks`; together they fill the height at every frame. A stream
    that is missing in a frame has no width there. Returns each one's (x, upper, lower)."""
    edges: dict[str, list[tuple[float, float, float]]] = {name: [] for name in inks}
    for x, widths in frames:
        y, scale = top, height / sum(widths.values())
        for name in inks:
            edges[name].append((x, y, y + widths.get(name, 0) * scale))
            y = edges[name][-1][2]
    for name, ink in inks.items():
        shown = [
            edge
            for before, edge, after in zip(
                [None, *edges[name]], edges[name], [*edges[name][1:], None]
            )
            if any(e and e[2] - e[1] > 0.1 for e in (before, edge, after))
        ]
        picture.ribbon(shown, ink)
    return edges
