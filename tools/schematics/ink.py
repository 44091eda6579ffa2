"""The inks of the schematics, on light paper and on dark.

Okabe and Ito's colours, which colour-blind readers can tell apart. Each has three shades: `solid` for lines
and fills, `tint` for areas that carry words, `word` for words (contrast 4.5 : 1 or more, on paper and on tint).
"""

from __future__ import annotations

SHADES = ("solid", "tint", "word")
LIGHT = {
    "paper": "#FDFCFA",
    "edge": "#DAD8D2",
    "ink": ("#33383F", "#ECECEA", "#1F2328"),  # words and axes
    "soft": ("#8C8C8C", "#ECECEA", "#555A61"),  # what is said in passing
    "blue": ("#0072B2", "#D5E8F5", "#00598C"),  # source, kept, A and B
    "vermilion": ("#D55E00", "#FBE2D2", "#A34700"),  # pruned, changed
    "green": ("#009E73", "#D0EEE4", "#00684B"),  # fresh
    "purple": ("#CC79A7", "#F6E0EC", "#94376F"),  # another
    "grey": ("#8C8C8C", "#E9E8E5", "#55585C"),  # frozen
}
DARK = {
    "paper": "#16181D",
    "edge": "#363A42",
    "ink": ("#D5D8DC", "#2A2D34", "#F0F1F2"),
    "soft": ("#8C9097", "#2A2D34", "#B5BAC1"),
    "blue": ("#56B4E9", "#173C55", "#8CCDF4"),
    "vermilion": ("#F08A48", "#4C2812", "#FFB184"),
    "green": ("#33BF96", "#103F31", "#6BDDBB"),
    "purple": ("#D98FBC", "#4A2439", "#EFB4D5"),
    "grey": ("#8C9097", "#2C3037", "#BCC0C6"),
}
INKS = tuple(name for name in LIGHT if name not in ("paper", "edge"))


def _rules(scheme: dict[str, str | tuple[str, str, str]]) -> str:
    paper = scheme["paper"]
    rules = [f".card{{fill:{paper};stroke:{scheme['edge']}}}", f".paper{{fill:{paper}}}"]
    rules += [f".cut{{stroke:{paper}}}", f".halo{{stroke:{paper}}}"]
    for ink in INKS:
        solid, tint, word = scheme[ink]
        rules += [f".{ink}{{fill:{solid}}}", f".{ink}-tint{{fill:{tint}}}"]
        rules += [f".{ink}-line{{stroke:{solid}}}", f".{ink}-word{{fill:{word}}}"]
    return "\n".join(rules)


STYLE = f"""text{{font-family:system-ui,sans-serif}}
path,rect,circle{{stroke-linecap:round;stroke-linejoin:round}}
.halo{{paint-order:stroke;stroke-width:5px;stroke-linejoin:round}}
{_rules(LIGHT)}
@media (prefers-color-scheme: dark){{
{_rules(DARK)}
}}"""
