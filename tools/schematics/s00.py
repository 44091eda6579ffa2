"""The series in one glance: a detour of ranks beside a frozen weight, its river, and the stops."""

from .draw import Picture
from .river import river

RANKS = {"1": "blue", "2": "purple", "3": "grey", "4": "green", "5": "grey"}
COPIES = {"1 again": "blue", "4 again": "green"}
ORDER = ("1", "1 again", "2", "3", "4", "4 again", "5")
START, FIRST, SECOND, END = 348, 450, 575, 700
FRAMES = [  # x, and the width of each stream
    (START, dict.fromkeys(RANKS, 1)),
    (START + 36, dict.fromkeys(RANKS, 1)),
    (FIRST, {"1": 1.6, "2": 1, "3": 0.12, "4": 1.4, "5": 0.9}),
    (FIRST + 44, {"1": 0.9, "1 again": 0.9, "2": 0.9, "4": 1.6, "5": 0.7}),
    (SECOND, {"1": 1, "1 again": 1.1, "2": 0.9, "4": 2, "5": 0.12}),
    (SECOND + 44, {"1": 1, "1 again": 1.1, "2": 0.8, "4": 1.1, "4 again": 1.1}),
    (END, {"1": 0.9, "1 again": 1.3, "2": 0.8, "4": 0.9, "4 again": 1.3}),
]
STOPS = (
    "LoRA\nby hand", "better\nstarts", "turn and\nrestart", "rank\nbudgets", "what one\nis worth",
    "pruning", "growing", "copies\nthat part", "BeamLoRA", "a real\nmodel", "a fair\nrace",
    "take it\nhome", "which\nsettings", "what\nis lost",
)  # fmt: skip


def draw() -> Picture:
    picture = Picture("Ranks start alike. Then some die, and some multiply.", 570)
    layer(picture)
    stream(picture)
    stops(picture)
    return picture


def layer(picture: Picture) -> None:
    for k, ink in enumerate(RANKS.values()):
        y = 124 + 5 * k
        picture.path(f"M70 226C70 {y} 84 {y} 108 {y}H186C218 {y} 238 {y} 238 209", ink, 2.4)
    picture.text(147, 104, "a detour of r ranks")
    picture.text(42, 232, "x", size=19)
    picture.arrow((56, 226), (98, 226), width=2.4)
    picture.block(100, 170, 94, 112, "frozen")
    picture.text(147, 234, "W", size=24, bold=True, halo=True)
    picture.text(147, 306, "frozen", ink="grey")
    picture.arrow((194, 226), (221, 226), width=2.4)
    picture.sign(238, 226, "+")
    picture.arrow((255, 226), (280, 226), width=2.4)
    picture.text(292, 232, "y", size=19)


def stream(picture: Picture) -> None:
    top, height = 100, 186
    picture.arrow((240, 134), (START - 32, 134), ink="soft", width=1.6)
    inks = {name: (RANKS | COPIES)[name] for name in ORDER}
    edges = river(picture, top, height, FRAMES, inks)
    for name, edge in edges.items():
        for (x, upper, lower), away in ((edge[0], -13), (edge[-1], 13)):
            if lower > upper:
                picture.text(x + away, (upper + lower) / 2 + 6, name[0], ink="soft")
    for name, x in (("3", FIRST), ("5", SECOND)):
        _, upper, lower = next(edge for edge in edges[name] if edge[0] == x)
        picture.cross(x + 16, (upper + lower) / 2)
    picture.arrow((START, 308), (END, 308), ink="soft", width=1.6)
    picture.text((START + END) / 2, 330, "training; width = weight of a rank", ink="soft")


def stops(picture: Picture) -> None:
    left, pitch, first, second = 72, 103, 384, 496
    turn = first + 72
    right = left + 6 * pitch
    picture.path(
        f"M{left} {first}H{right + 16}Q{right + 40} {first} {right + 40} {first + 24}V{turn - 20}"
        f"Q{right + 40} {turn} {right + 20} {turn}H52Q32 {turn} 32 {turn + 20}Q32 {second} 52 {second}H{right}",
        "blue", 5,
    )  # fmt: skip
    for k, name in enumerate(STOPS):
        x, y = left + k % 7 * pitch, (first, second)[k // 7]
        picture.dot(x, y, 16, "paper", "blue", 3)
        picture.text(x, y + 5.5, f"{k + 1:02}", size=15, bold=True)
        picture.text(x, y + 36, name, size=15, halo=True)
