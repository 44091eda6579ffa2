"""Two budgets over time: prune from many, or grow from few, to the same total."""

from .draw import Picture

LAYERS, TARGET = 7, 14
PRUNING = ((4,) * LAYERS, (2, 4, 4, 2, 1, 2, 3), (1, 3, 4, 2, 0, 1, 3))  # ranks at three moments
GROWING = ((1,) * LAYERS, (1, 1, 3, 1, 1, 1, 3), (1, 2, 4, 2, 1, 1, 3))
GROWTHS = ((0.2, 9), (0.35, 11), (0.6, 13), (0.75, 14))  # share of the run, ranks from there on
WIDE, LOW, HIGH = 306, 252, 4.6  # of a panel; the foot and the unit of the curve


def draw() -> Picture:
    picture = Picture("Prune from many, or grow from few: the same total", 486)
    fall = [(t / 100, budget(t / 100)) for t in range(101)]
    stairs = [(0, LAYERS)]
    for start, ranks in GROWTHS:
        stairs += [(start, stairs[-1][1]), (start, ranks)]
    stairs.append((1, TARGET))
    panel(picture, 44, "AdaLoRA prunes", fall, PRUNING, "pruned")
    panel(picture, 414, "IncreLoRA grows", stairs, GROWING, "fresh")
    picture.text(
        44, 462, "A column is a layer, a cell a rank:", size=15, ink="soft", anchor="start"
    )
    for x, kind, word in (
        (334, "trained", "kept"),
        (414, "pruned", "pruned"),
        (512, "fresh", "grown"),
    ):
        picture.block(x, 448, 12, 17, kind, True, 2)
        picture.text(x + 20, 462, word, size=15, ink="soft", anchor="start")
    return picture


def budget(t: float, first: float = 0.1, last: float = 0.5) -> float:
    """Ranks that all layers may keep after a share t of the run: AdaLoRA's cubic."""
    left = 1 - min(max((t - first) / (last - first), 0), 1)
    return TARGET + (4 * LAYERS - TARGET) * left**3


def panel(
    picture: Picture, x: float, words: str, curve: list, moments: tuple, changed: str
) -> None:
    picture.text(x, 92, words, size=18, anchor="start", bold=True)
    target = LOW - HIGH * TARGET
    picture.line((x, target), (x + WIDE, target), ink="soft", width=1.4, dashed=True)
    picture.arrow((x, LOW), (x + WIDE, LOW), width=1.4)
    picture.text(x + WIDE, LOW + 20, "training", size=15, ink="soft", anchor="end")
    picture.line(*((x + WIDE * t, LOW - HIGH * n) for t, n in curve), ink="blue", width=3.5)
    picture.text(
        x + WIDE, target - 10, f"budget: {TARGET} ranks", size=15, ink="soft", anchor="end"
    )
    for k, ranks in enumerate(moments):
        columns(picture, x + k * 110, ranks, moments[k - 1] if k else ranks, changed)
        picture.text(x + k * 110 + 43, 404, f"{sum(ranks)}", size=18, ink="blue", bold=True)
        picture.text(x + k * 110 + 43, 424, ("start", "on the way", "end")[k], size=15, ink="soft")


def columns(picture: Picture, x: float, ranks: tuple, before: tuple, changed: str) -> None:
    """A column for each layer, a cell for each rank, and what has changed."""
    for i, (now, old) in enumerate(zip(ranks, before)):
        for level in range(max(now, old)):
            kept = level < min(now, old)
            picture.block(
                x + 12.5 * i, 356 - 22 * level, 10, 19, "trained" if kept else changed, True, 2
            )
    picture.line((x - 2, 378), (x + 88, 378), width=1.4)
