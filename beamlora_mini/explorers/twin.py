"""The arena's runs by the package: what the engine in the browser has to agree with.

The worlds and the numbers drawn by chance are those of worlds.js and draws.js, the adapters, the optimizer and what
happens to ranks are the package's own, in float64.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..events import RankEvent
from ..history import RankHistory
from ..layers import attach
from ..methods import METHODS, BeamLoRA, Method
from ..methods.beamlora import BeamSchedule
from ..ranks import effective_rank, reset_ranks_
from ..run import Run
from .settings import complete

WEIGHT, CHANGE, BATCH, START, RESTART, GROW, FRESH, NET = range(1, 9)  # streams of draws
WIDE = torch.float64


def mix(*parts: int) -> int:
    """A 32-bit mix of whole numbers (the finalizer of murmur3 after each)."""
    h = 0x9E3779B9
    for part in parts:
        h = ((h ^ part) * 0x85EBCA6B) & 0xFFFFFFFF
        h = ((h ^ (h >> 13)) * 0xC2B2AE35) & 0xFFFFFFFF
        h ^= h >> 16
    return h


class Draws:
    """Numbers of one stream, the same in the browser: mulberry32, and normal ones by Box and Muller."""

    def __init__(self, *stream: int):
        self.state = mix(*stream)

    def uniform(self) -> float:
        self.state = (self.state + 0x6D2B79F5) & 0xFFFFFFFF
        t = self.state
        t = ((t ^ (t >> 15)) * (t | 1)) & 0xFFFFFFFF
        t ^= (t + (((t ^ (t >> 7)) * (t | 61)) & 0xFFFFFFFF)) & 0xFFFFFFFF
        return (t ^ (t >> 14)) / 2**32

    def normal(self) -> float:
        radius = math.sqrt(-2 * math.log(1 - self.uniform()))
        return radius * math.cos(2 * math.pi * self.uniform())

    def normals(self, rows: int, columns: int, scale: float = 1.0) -> Tensor:
        return self._matrix(rows, columns, lambda: scale * self.normal())

    def uniforms(self, rows: int, columns: int, bound: float = 1.0) -> Tensor:
        return self._matrix(rows, columns, lambda: bound * (2 * self.uniform() - 1))

    def _matrix(self, rows: int, columns: int, draw) -> Tensor:
        return torch.tensor([[draw() for _ in range(columns)] for _ in range(rows)], dtype=WIDE)


# --- worlds: a model, batches, a loss, what is left to learn ---


class MatrixWorld:
    """A frozen layer, and a hidden change of rank true_rank for the adapter to find."""

    def __init__(self, settings: dict):
        self.settings = settings
        size, seed = settings["size"], settings["seed"]
        layer = nn.Linear(size, size, bias=False, dtype=WIDE)
        with torch.no_grad():
            layer.weight.copy_(Draws(seed, WEIGHT).normals(size, size, 1 / math.sqrt(size)))
        self.W = layer.weight.detach().clone()
        self.model = nn.Sequential(layer)
        self.turn(0)

    def turn(self, k: int) -> None:
        """The k-th hidden change: singular values that fall in a line from 2."""
        size, rank = self.settings["size"], self.settings["true_rank"]
        draws = Draws(self.settings["seed"], CHANGE, k)
        left, right = (orthonormal(draws.normals(rank, size)) for _ in range(2))
        falling = torch.tensor([2 * (rank - i) / rank for i in range(rank)], dtype=WIDE)
        self.change = left.T * falling @ right

    def batch(self, n: int) -> tuple[Tensor, Tensor]:
        size, batch, noise, seed = (self.settings[k] for k in ("size", "batch", "noise", "seed"))
        draws = Draws(seed, BATCH, n)
        x = draws.normals(batch, size)
        return x, x @ (self.W + self.change).T + noise * draws.normals(batch, size)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(self.model(x), y)

    @torch.no_grad()
    def left(self) -> float:
        """The share of the change that is still missing."""
        delta: Any = self.model[0]
        return float((self.change - delta.delta_weight()).norm() / self.change.norm())


def orthonormal(rows: Tensor) -> Tensor:
    """Rows made orthonormal, one after the other."""
    done: list[Tensor] = []
    for row in rows:
        for other in done:
            row = row - (row @ other) * other
        done.append(row / row.norm())
    return torch.stack(done)


def inside(pattern: str, x: float, y: float) -> bool:
    """Is the point (x, y) of the square from -1 to 1 inside the pattern?"""
    if pattern == "circle":
        return x * x + y * y < 0.42
    if pattern == "corners":
        return x * y > 0
    if pattern == "stripes":
        return math.sin(5 * (x + y)) > 0
    return math.sin(math.atan2(y, x) + 5 * math.sqrt(x * x + y * y)) > 0


class PlaneWorld:
    """A net of four layers, trained on one pattern and frozen; its two middle layers are adapted to
    another."""

    def __init__(self, settings: dict):
        self.settings = settings
        size, seed = settings["size"], settings["seed"]
        shapes = [(2, size), (size, size), (size, size), (size, 1)]
        layers = [nn.Linear(*shape, dtype=WIDE) for shape in shapes]
        with torch.no_grad():
            for k, layer in enumerate(layers):
                rows, columns = layer.weight.shape
                draws = Draws(seed, NET, k)
                layer.weight.copy_(draws.normals(rows, columns, math.sqrt(1.5 / columns)))
                layer.bias.zero_()
        self.model = nn.Sequential(
            layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2], nn.Tanh(), layers[3]
        )
        self._pretrain()
        points = [((i - 11.5) / 12, (j - 11.5) / 12) for i in range(24) for j in range(24)]
        self.grid = torch.tensor(points, dtype=WIDE)
        self.turn(0)

    def _pretrain(self) -> None:
        optimizer = torch.optim.Adam(self.model.parameters(), lr=0.01)
        for n in range(1, 301):
            draws = Draws(self.settings["seed"], BATCH, 1_000_000 + n)
            self.loss(*draw_points(draws, 64, self.settings["base"], 0.0)).backward()
            optimizer.step()
            optimizer.zero_grad()

    def turn(self, k: int) -> None:
        """The pattern to learn; after a switch the one it began with, and so to and fro."""
        self.pattern = self.settings["base" if k % 2 else "pattern"]
        self.wanted = torch.tensor([inside(self.pattern, *point) for point in self.grid.tolist()])

    def batch(self, n: int) -> tuple[Tensor, Tensor]:
        draws = Draws(self.settings["seed"], BATCH, n)
        return draw_points(draws, self.settings["batch"], self.pattern, self.settings["noise"])

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(self.model(x)[:, 0], y)

    @torch.no_grad()
    def left(self) -> float:
        """The share of a grid of 24 by 24 points that it puts on the wrong side."""
        chosen = self.model(self.grid)[:, 0] > 0
        return float((chosen != self.wanted).double().mean())


def draw_points(draws: Draws, count: int, pattern: str, noise: float) -> tuple[Tensor, Tensor]:
    x, y = [], []
    for _ in range(count):
        u, v = (2 * draws.uniform() - 1 for _ in range(2))
        x.append([u + noise * draws.normal(), v + noise * draws.normal()])
        y.append(float(inside(pattern, u, v)))
    return torch.tensor(x, dtype=WIDE), torch.tensor(y, dtype=WIDE)


# --- the method, and the numbers it would draw itself ---


class FreshSchedule(BeamSchedule):
    """BeamLoRA whose slots are filled with fresh ranks instead of copies."""

    def replace(self, layer, slots: list[int], sources: list[int]) -> None:
        reset_ranks_(layer, self.optimizer, slots)

    def step(self, n: int) -> list[RankEvent]:
        return [event._replace(source=None) for event in super().step(n)]


class FreshBeamLoRA(BeamLoRA):
    Schedule = FreshSchedule


def method_of(settings: dict) -> Method:
    """The package's method for complete settings of the arena."""
    name = settings["method"]
    kind = FreshBeamLoRA if settings.get("fill") == "fresh" else METHODS[name.lower()]
    own = {key: value for key, value in settings.items() if key in kind.__dataclass_fields__}
    middle = r"0" if settings["world"] == "matrix" else r"2|4"
    return kind(**own, lora_alpha=settings["alpha"], target_modules=middle)


@torch.no_grad()
def start(layer: Any, index: int, settings: dict) -> None:
    """What the package would draw at the start, from the arena's streams; and the dead ranks."""
    draws = Draws(settings["seed"], START, index)
    method, r, dead = settings["method"], settings["r"], settings["dead"]
    if method == "IncreLoRA":
        rows = [small(draws, layer) for _ in range(r + 1)]
        for block, of in ((0, rows[:-1]), (1, rows[-1:])):
            layer.blocks_A[block].copy_(torch.cat([a for a, _ in of]))
            layer.blocks_B[block].copy_(torch.cat([b for _, b in of]).T)
    elif method == "AdaLoRA":
        rows = [small(draws, layer) for _ in range(r)]
        layer.lora_A.copy_(torch.cat([a for a, _ in rows]))
        layer.lora_B.copy_(torch.cat([b for _, b in rows]).T)
    elif method not in ("PiSSA", "MiLoRA"):
        layer.lora_A.copy_(fresh_rows(draws, r, layer))
    if dead:
        for part, axis in (("lora_A", 0), ("lora_B", 1), ("initial_A", 0), ("initial_B", 1)):
            if hasattr(layer, part):
                getattr(layer, part).movedim(axis, 0)[r - dead :] = 0


def small(draws: Draws, layer: Any) -> tuple[Tensor, Tensor]:
    a = draws.normals(1, layer.in_features, 0.02)
    return a, draws.normals(1, layer.out_features, 0.02)


def fresh_rows(draws: Draws, count: int, layer: Any) -> Tensor:
    return draws.uniforms(count, layer.in_features, 1 / math.sqrt(layer.in_features))


@torch.no_grad()
def redraw(layers: dict[str, Any], events: list, settings: dict) -> None:
    """What the package drew at these events, drawn anew from the arena's streams."""
    for index, (name, layer) in enumerate(layers.items()):
        own = [event for event in events if event.module == name]
        if not own:
            continue
        kind, n = own[0].kind, own[0].step
        if kind == "restart":
            draws = Draws(settings["seed"], RESTART, index, n)
            layer.lora_A.copy_(fresh_rows(draws, layer.r, layer))
        elif kind == "grow":
            a, b = small(Draws(settings["seed"], GROW, index, n), layer)
            layer.blocks_A[-1].copy_(a)
            layer.blocks_B[-1].copy_(b.T)
        elif settings.get("fill") == "fresh":
            draws = Draws(settings["seed"], FRESH, index, n)
            for event in own:
                layer.lora_A[event.slot] = fresh_rows(draws, 1, layer)[0]


def simulate(history: RankHistory | None = None, **settings: Any) -> dict[str, Any]:
    """The run that the arena makes in a browser, by this package in float64.

    Settings as for `arena`; history: records what every rank was worth. Returns losses (one a step,
    of its batch before it), left (before the first step and after each: the share of the hidden change that is missing, or of the plane on the wrong
    side), events [{step, kind, module, slot, source}], and of the end singular_values and
    effective_rank of each module's update.
    """
    settings = complete(**settings)
    world = (MatrixWorld if settings["world"] == "matrix" else PlaneWorld)(settings)
    layers = attach(world.model.train(), method_of(settings))
    for index, layer in enumerate(layers.values()):
        start(layer, index, settings)
    run = Run(world.model, steps=settings["steps"], lr=settings["lr"])
    places = {name: index for index, name in enumerate(layers)}
    losses, left, events, turns = [], [world.left()], [], 0
    for n in range(settings["steps"]):
        loss = world.loss(*world.batch(n))
        (loss + run.loss()).backward()
        happened = run.update()
        redraw(layers, happened, settings)
        if history is not None:
            history.record(world.model, run.n, happened, loss.item(), run.schedule.before)
        events += [
            {"step": e.step, "kind": e.kind, "module": places[e.module], "slot": e.slot, "source": e.source}
            for e in happened
        ]  # fmt: skip
        if n + 1 in settings["switches"]:
            turns += 1
            world.turn(turns)
        losses.append(loss.item())
        left.append(world.left())
    updates = [layer.delta_weight().detach() for layer in layers.values()]
    return {
        "settings": settings,
        "losses": losses,
        "left": left,
        "events": events,
        "singular_values": [torch.linalg.svdvals(of).tolist() for of in updates],
        "effective_rank": [effective_rank(of) for of in updates],
    }
