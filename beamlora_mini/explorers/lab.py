"""`lab`: pages that show one idea each."""

from __future__ import annotations

import base64
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checks import require, require_choice
from .arena import ENGINE
from .page import bundle, framed, page

LABS = {
    "spectrum": "Spectrum: what PiSSA and MiLoRA take out of a weight, and what is left.",
    "pruning": "Pruning: scores become weights, weights a running sum, and the sum says who falls.",
    "twins": "Twins: whether a copied rank parts from its source, by its vectors and Adam's moments, now or then.",
    "direction": "Direction: how far LoRA and DoRA turn the rows of a weight, and how much longer they make them.",
    "budget": "Budgets: how many ranks AdaLoRA and IncreLoRA keep in each of two layers, step by step.",
    "restarts": "Restarts: ReLoRA's learning rates, and how the rank of the sum of its rounds grows.",
}
SHOWN = 48  # rows and columns of the spectrum's maps


class LabView:
    """A laboratory with settings to begin with: shown in a notebook, or saved as a page."""

    def __init__(self, name: str, settings: dict[str, Any], data: dict[str, Any] | None):
        self.name, self.settings, self.data = name, settings, data

    def page(self) -> str:
        """The page: HTML that needs nothing else."""
        modules = (
            *ENGINE,
            "look.js",
            "numbers.js",
            "canvas.js",
            "inputs.js",
            "event.js",
            "lane.js",
        )
        script = bundle(*modules, f"lab_{self.name}.js", "lab.js")
        script += "\nconst mount = (root, given) => mountLab(LAB, root, given);\n"
        return page(LABS[self.name], script, "lab", {"given": self.settings, "data": self.data})

    def save(self, path: str | Path) -> None:
        """Write the page to a file; it opens from disk, without a network."""
        Path(path).write_text(self.page(), encoding="utf-8")

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        png = base64.b64encode(picture(self.name).read_bytes()).decode()
        alt = f"{LABS[self.name]} A page to play with, which is not run here; instead, a picture of how it opens."
        return {
            "text/html": framed(LABS[self.name], self.page(), png, alt, height=720),
            "image/png": png,
            "text/plain": repr(self),
        }

    def __repr__(self) -> str:
        return f"<the laboratory {self.name!r}: a page to play with>"


def picture(name: str) -> Path:
    """Where the picture of a laboratory lies, PNG: how its page opens (tools/make_pages.py draws it)."""
    return Path(str(resources.files(__package__) / "pictures" / f"{name}.png"))


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
    packed = {
        key: base64.b64encode(of.contiguous().numpy().tobytes()).decode()
        for key, of in parts.items()
    }
    return packed | {"shape": list(weight.shape), "name": title}
