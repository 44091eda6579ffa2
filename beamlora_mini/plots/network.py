"""Small networks as circles and lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from .charts import _array
from .style import REST, SOURCE, figure, show


def network(
    nets: Mapping[str, tuple[Any, Any]],
    *,
    alt: str,
    caption: str = "",
    marked: Mapping[str, Sequence[int]] | None = None,
) -> None:
    """Networks with one hidden layer side by side, {title: (W_in, W_out)}: a line for each weight, as
    wide as the weight is large, dashed where it is negative; at each line to the outputs its weight.

    W_in: (hidden, in), what each hidden unit receives; W_out: (out, hidden), what it sends; a handful
    of units. marked: {title: hidden units that are filled}.
    """
    drawn, axes = figure(len(nets), width=3.75 * len(nets), height=3.2)
    rows = []
    for axis, (title, weights) in zip(axes, nets.items()):
        W_in, W_out = map(_array, weights)
        filled = (marked or {}).get(title, ())
        sizes = W_in.shape[1], W_in.shape[0], W_out.shape[0]
        layers = [[(x, y - (n - 1) / 2) for y in range(n)] for x, n in enumerate(sizes)]
        for W, starts, ends in ((W_in, layers[0], layers[1]), (W_out, layers[1], layers[2])):
            for i, (x, y) in enumerate(starts):
                for j, (x2, y2) in enumerate(ends):
                    style = "-" if W[j, i] > 0 else "--"
                    axis.plot([x, x2], [y, y2], ls=style, lw=2 * abs(W[j, i]), color=REST, zorder=1)
                    if x == 1:
                        box = {"fc": "white", "ec": "none", "pad": 1}
                        at = (1.4, y + 0.4 * (y2 - y))
                        axis.text(*at, f"{W[j, i]:+g}", ha="center", va="center", bbox=box)
        for x, layer in enumerate(layers):
            for k, place in enumerate(layer):
                color = SOURCE if x == 1 and k in filled else "white"
                axis.plot(*place, "o", ms=18, mfc=color, mec="black", zorder=3)
        high = max(sizes) / 2
        axis.set(title=title, xticks=range(3), yticks=[], xlim=(-0.3, 2.3), ylim=(-high, high))
        axis.set_xticklabels(["inputs", "hidden", "outputs"])
        axis.grid(False)
        axis.spines[:].set_visible(False)
        rows += [
            {
                "network": title,
                "unit": k,
                "receives": W_in[k].tolist(),
                "sends": W_out[:, k].tolist(),
            }
            for k in range(len(W_in))
        ]
    show(drawn, alt, caption, pd.DataFrame(rows))


__all__ = ["network"]
