"""Which ranks stay: top-k and top-p, in each module and globally, on the example of notebook 06."""

from itertools import accumulate, chain

from .draw import Picture

IMPORTANCES = {"a": (3.0, 8.0, 0.5, 1.0), "b": (0.9, 0.7, 0.8, 0.75)}
K, P = 2, 0.9
PITCH, SCALE = 37, 11
Rank = tuple[float, str]  # importance, module


def groups(scope: str) -> list[list[Rank]]:
    """The ranks that are compared with each other, the most important first."""
    named = [[(value, name) for value in values] for name, values in IMPORTANCES.items()]
    pools = named if scope == "module" else [[*chain(*named)]]
    return [sorted(pool, key=lambda rank: -rank[0]) for pool in pools]


def kept(pool: list[Rank], way: str) -> int:
    """How many of a sorted pool stay: k a module, or those whose running sum is at most p of the total."""
    values = [value for value, _ in pool]
    if way == "top-k":
        return K * len({name for _, name in pool})
    return sum(held <= P * sum(values) for held in accumulate(values))


def draw() -> Picture:
    picture = Picture("The same eight ranks, four ways to choose", 512)
    share, layers = f"{P:.0%}", len(IMPORTANCES)
    panel(picture, 40, 86, "top-k", f"{K} in each layer", "module")
    panel(picture, 410, 86, "top-k", f"{K} a layer on average: {K * layers} in all", "global")
    panel(picture, 40, 278, "top-p", f"{share} of each layer's sum", "module")
    panel(picture, 410, 278, "top-p", f"{share} of the whole sum", "global")
    picture.text(
        40, 486, "a, b: the layer of a rank. Under top-p: running share of the sum, in %.",
        size=15, ink="soft", anchor="start",
    )  # fmt: skip
    return picture


def panel(picture: Picture, x: float, top: float, way: str, rule: str, scope: str) -> None:
    picture.text(x, top + 10, way, size=18, anchor="start", bold=True)
    picture.text(x + 66, top + 10, rule, size=15, ink="soft", anchor="start")
    foot = top + 128
    for pool in groups(scope):
        values, stays = [value for value, _ in pool], kept(pool, way)
        kinds = ["trained"] * stays + ["pruned"] * (len(pool) - stays)
        tops = picture.bars(x, foot, values, kinds, SCALE, PITCH - 9, 9)
        for (middle, upper), (value, name), held in zip(tops, pool, accumulate(values)):
            picture.text(middle, upper - 6, f"{value:g}".removeprefix("0"), size=14)
            picture.text(middle, foot + 20, name, bold=True)
            if way == "top-p":
                picture.text(
                    middle, foot + 40, f"{held / sum(values):.0%}"[:-1], size=14, ink="soft"
                )
        cut = x + stays * PITCH - 4.5
        picture.line((cut, foot - 62), (cut, foot + 26), ink="vermilion", dashed=True)
        x += len(pool) * PITCH + 18
