"""The schematics of the series, drawn by code: `python -m tools.schematics` writes notebooks/pictures.

`draw.py` is the vocabulary, `ink.py` the colours, `alt.py` says each picture in words, and `s00.py` to
`s14.py` draw one picture each. A notebook shows one with `markdown("01")`.
"""

from importlib import import_module
from pathlib import Path

from .alt import ALT

PICTURES = Path(__file__).resolve().parents[2] / "notebooks" / "pictures"

__all__ = ["ALT", "PICTURES", "markdown", "svg"]


def svg(name: str) -> str:
    """The schematic of a notebook, given by its number: "01". An SVG file as text."""
    module = import_module(f".s{name}", __package__)
    return module.draw().svg(ALT[name])


def markdown(name: str) -> str:
    """The line that shows the schematic in its notebook."""
    return f"![{ALT[name]}](pictures/{name}.svg)"
