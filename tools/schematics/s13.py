"""Where settings act: on a step, in a block, in memory."""

from .draw import Picture

MEMORY = (  # in units of the weights: all weights trained, LoRA
    ("weights", "frozen", 1, 1),
    ("gradients", "trained", 1, 0.08),
    ("Adam's moments", "fresh", 2, 0.12),
    ("activations", "other", 1.2, 1.15),
)


def draw() -> Picture:
    picture = Picture("Three places where settings act", 520)
    step(picture)
    block(picture)
    memory(picture)
    return picture


def step(picture: Picture) -> None:
    """From a gradient to the output, and the two factors on the way."""
    y = 156
    picture.text(40, 92, "How far a step goes", anchor="start", bold=True)
    picture.text(40, y + 6, "gradient", anchor="start")
    picture.arrow((114, y), (168, y))
    picture.text(140, y - 12, "Adam", size=15, ink="soft")
    for x, words, name in ((176, "× rate", "learning rate"), (424, "× α / r", "alpha and rank")):
        picture.box(x, y - 22, 96, 44, "vermilion-tint", "vermilion", round=22)
        picture.text(x + 48, y + 6, words, bold=True, ink="vermilion")
        picture.text(x + 48, y + 46, name, size=15, ink="soft")
    picture.arrow((276, y), (318, y))
    picture.block(328, y - 30, 10, 60, "trained", True, 2)
    picture.block(344, y - 30, 48, 10, "trained", True, 2)
    picture.text(368, y + 12, "B A", ink="blue", bold=True)
    picture.arrow((394, y), (420, y))
    picture.arrow((524, y), (560, y))
    picture.sign(578, y, "+")
    picture.text(606, y + 6, "W x", anchor="start")


def block(picture: Picture) -> None:
    """The seven linear layers of a block, each with the detour it may get."""
    picture.text(40, 254, "Where adapters sit", anchor="start", bold=True)
    for x, name, layers in ((40, "attention", "q k v o"), (220, "MLP", "gate up down")):
        picture.box(x, 274, 170, 214, "paper", "soft", round=10)
        picture.text(x + 85, 300, name, ink="soft")
        pitch = 168 / len(layers.split())
        for k, layer in enumerate(layers.split()):
            y = 312 + pitch * (k + 0.5)
            picture.text(x + 54, y + 5, layer, size=15, anchor="end")
            picture.block(x + 64, y - 15, 48, 30, "frozen")
            picture.block(x + 120, y - 15, 6, 30, "trained", True, 1)
            picture.block(x + 130, y - 15, 26, 6, "trained", True, 1)


def memory(picture: Picture) -> None:
    """Two stacks, and what lies in them."""
    picture.text(430, 254, "What memory holds", anchor="start", bold=True)
    for column, name in enumerate(("all train", "LoRA")):
        x, foot = 576 + 84 * column, 462
        picture.text(x + 31, foot + 22, name, size=15)
        for what, kind, *sizes in MEMORY:
            high = 35 * sizes[column]
            foot -= high
            picture.block(x, foot, 62, high - 2, kind, True, 2)
            if not column:
                picture.text(x - 12, foot + high / 2 + 4, what, size=15, anchor="end")
