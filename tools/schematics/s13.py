"""Where settings act: on a step, in a block, in memory."""

from .draw import Picture


def draw() -> Picture:
    picture = Picture("Three places where settings act", 560)
    step(picture)
    block(picture)
    memory(picture)
    return picture


def title(picture: Picture, x: float, y: float, words: str) -> None:
    picture.text(x, y, words, anchor="start", bold=True)


def step(picture: Picture) -> None:
    title(picture, 40, 92, "How far a step goes")
    y = 158
    picture.text(40, y + 6, "gradient", anchor="start", ink="soft")
    picture.arrow((112, y), (160, y))
    picture.text(136, y - 14, "Adam", size=15, ink="soft")
    for x, words, name in ((168, "× rate", "learning rate"), (436, "× α / r", "alpha, rank")):
        picture.box(x, y - 24, 96, 48, "vermilion-tint", "vermilion", round=24)
        picture.text(x + 48, y + 6, words, bold=True, ink="vermilion")
        picture.text(x + 48, y + 48, name, size=15, ink="soft")
    picture.arrow((268, y), (306, y))
    picture.block(320, y - 34, 12, 68, "trained", True)
    picture.block(338, y - 34, 56, 12, "trained", True)
    picture.text(366, y + 14, "B A", ink="blue", bold=True)
    picture.arrow((400, y), (430, y))
    picture.arrow((536, y), (574, y))
    picture.block(586, y - 36, 62, 72, "frozen")
    picture.text(617, y + 7, "W", bold=True, halo=True)
    picture.text(670, y + 6, "y", size=19)
    picture.arrow((650, y), (664, y), width=1.6)


def block(picture: Picture) -> None:
    title(picture, 40, 262, "Where adapters sit")
    for x, name, parts in ((40, "attention", "q k v o"), (232, "MLP", "gate up down")):
        wide = 172 if name == "attention" else 162
        picture.box(x, 284, wide, 190, "paper", "soft", round=10)
        picture.text(x + wide / 2, 308, name, ink="soft")
        for k, part in enumerate(parts.split()):
            y = 326 + 35 * k
            picture.block(x + 50, y, 60, 26, "frozen")
            picture.text(x + 40, y + 18, part, size=15, anchor="end")
            picture.block(x + 116, y, 5, 26, "trained", True, 1)
            picture.block(x + 124, y, 26, 5, "trained", True, 1)


def memory(picture: Picture) -> None:
    title(picture, 440, 262, "What memory holds")
    rows = (("weights", "frozen", 1, 1), ("gradients", "trained", 1, 0.04), ("moments", "trained", 2, 0.08), ("activations", "other", 1.3, 1.2))
    for k, (name, kind, full, lora) in enumerate(rows):
        y = 304 + 46 * k
        picture.text(532, y + 24, name, size=15, anchor="end")
        picture.block(544, y, 84 * full, 15, kind, True)
        picture.block(544, y + 18, 84 * lora, 15, kind)
