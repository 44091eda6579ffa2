"""One look for every picture of the series. Each function draws what a reader hands it, displays it with its
alternative text, and keeps the numbers one click away; values of one seed are (n,), of several (seeds, n)."""

from .charts import curves, dots, paired, scatter, stacked
from .maps import by_place, heatmap, short_name
from .network import network
from .paths import paths
from .river import rank_river, rank_rivers
from .style import (
    COLORS,
    PRUNED,
    REST,
    SOURCE,
    figure,
    finding,
    measured_table,
    show,
    spread,
)
from .tokens import tokens

__all__ = [
    "COLORS",
    "PRUNED",
    "REST",
    "SOURCE",
    "by_place",
    "curves",
    "dots",
    "figure",
    "finding",
    "heatmap",
    "measured_table",
    "network",
    "paired",
    "paths",
    "rank_river",
    "rank_rivers",
    "scatter",
    "short_name",
    "show",
    "spread",
    "stacked",
    "tokens",
]
