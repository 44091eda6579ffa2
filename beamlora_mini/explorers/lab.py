"""`lab`: pages that show one idea each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..checks import require, require_choice
from .arena import ENGINE
from .page import PageView, bundle, in_base64, page, stored_picture

LABS = {
    "spectrum": "Spectrum: what PiSSA and MiLoRA take out of a weight, and what is left",
    "pruning": "Pruning: scores become weights, weights a running sum, and the sum says who falls",
    "twins": "Twins: whether a copied rank parts from its source, by its vectors and Adam's moments, now or then",
    "direction": "Direction: how far LoRA and DoRA turn the rows of a weight, and how much longer they make them",
    "budget": "Budgets: how many ranks AdaLoRA and IncreLoRA keep in each of two layers, step by step",
    "restarts": "Restarts: ReLoRA's learning rates, and how the rank of the sum of its rounds grows",
}
SHOWN = 48  # rows and columns of the spectrum's maps


class LabView(PageView):
    """A laboratory with settings to begin with."""

    height = 720

    def __init__(self, name: str, settings: dict[str, Any], data: dict[str, Any] | None):
        self.name, self.settings, self.data = name, settings, data
        self.title = LABS[name]
        self.alt = f"{LABS[name]}. It is a page to play with, which is not run here; instead, a picture of how it opens."

    def page(self) -> str:
        given = {"given": self.settings, "data": self.data}
        return page(self.title, script(self.name), "lab", given)

    def picture(self) -> str:
        return stored_picture(self.name)


def script(name: str) -> str:
    """The modules of a laboratory, with the `mount` that a page calls."""
    shared = ("look.js", "numbers.js", "canvas.js", "inputs.js", "event.js", "lane.js")
    mount = "\nconst mount = (root, given) => mountLab(LAB, root, given);\n"
    return bundle(*ENGINE, *shared, f"lab_{name}.js", "lab.js") + mount


def lab(name: str, weight: Tensor | None = None, **settings: Any) -> LabView:
    """A page with one idea, a few controls and pictures that follow; it runs without a kernel or a network.

    name: "spectrum", "pruning", "twins", "direction", "budget" or "restarts". weight: for "spectrum",
    the (out, in) matrix that is taken apart; the tiny model's first value projection unless given. settings: what its
    controls begin with, by their names. Spectrum's numbers are the package's (float32), all others are
    computed in the page by the arena's engine, which the tests compare with the package.

    ValueError for another name, a weight that is no matrix of finite numbers, or where none is used.
    """
    require_choice("name", name, LABS)
    if name == "spectrum":
        data = spectrum(weight)
        most = min(data["shape"])
        return LabView(name, {"r": min(8, most), "most": most} | settings, data)
    require(weight is None, "weight", "a tensor", "none, except for the laboratory 'spectrum'")
    return LabView(name, settings, None)


def spectrum(weight: Tensor | None) -> dict[str, Any]:
    """The singular values and vectors of a weight, as the page reads them."""
    title = "the weight"
    if weight is None:
        from ..models import load_model

        title = "model.layers.0.self_attn.v_proj"
        weight = load_model("tiny", device="cpu")[0].get_submodule(title).weight
    weight = weight.detach().cpu().float()
    good = weight.ndim == 2 and weight.numel() > 0 and bool(weight.isfinite().all())
    require(good, "weight", tuple(weight.shape), "a matrix (out, in) of finite numbers")
    U, S, Vh = torch.linalg.svd(weight, full_matrices=False)
    parts = {"U": U[:SHOWN], "S": S, "V": Vh.T[:SHOWN]}
    packed = {key: in_base64(of.contiguous().numpy()) for key, of in parts.items()}
    return packed | {"shape": list(weight.shape), "name": title}
