"""One look for every picture of the series, and pictures that a screen reader can tell."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import HTML, Image, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Safe for colour-blind readers (Okabe and Ito's palette), and told apart by shape or label too.
SOURCE, PRUNED, REST = "#0072B2", "#D55E00", "#8C8C8C"

STYLE = {
    "figure.figsize": (6, 3.5),
    "figure.dpi": 110,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "axes.prop_cycle": plt.cycler(color=[SOURCE, PRUNED, "#009E73", "#CC79A7", REST])
    + plt.cycler(linestyle=["-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1))]),
    "font.size": 10,
}


def figure(columns: int = 1, width: float = 6, height: float = 3.5) -> tuple[Figure, list[Axes]]:
    """A figure in the style of the series: `columns` axes side by side, sizes in inches."""
    with plt.rc_context(STYLE):
        drawn, axes = plt.subplots(1, columns, figsize=(width, height), squeeze=False)
    return drawn, list(axes[0])


def show(drawn: Figure, alt: str, caption: str = "") -> None:
    """Display a figure as PNG with an alternative text and a caption, and close it."""
    if not alt.strip():
        raise ValueError("alt='': say in words what the picture shows")
    drawn.tight_layout()
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png", dpi=STYLE["figure.dpi"])
    plt.close(drawn)
    display(Image(buffer.getvalue(), alt=alt))
    if caption:
        display(HTML(f"<p><em>{caption}</em></p>"))


def measured_table(rows: Sequence[Mapping[str, object]], caption: str = "") -> None:
    """Display measurements as a table. Its cells may differ from machine to machine: the class
    `measured`, like the word `measured:` before a printed line, says that to the notebook tests."""
    frame = pd.DataFrame(list(rows))
    html = frame.to_html(index=False, border=0, na_rep="", classes="measured")
    display(HTML(html + (f"<p><em>{caption}</em></p>" if caption else "")))
