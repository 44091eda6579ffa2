"""What a rank schedule did: `RankEvent`."""

from __future__ import annotations

from typing import NamedTuple


class RankEvent(NamedTuple):
    """One thing that a schedule did to one rank.

    step: the optimizer step after which it happened, from 1; kind: "expand" (a copy of `source`
    took the place of `slot`; without a source a fresh rank), "prune", "revive", "grow" or "restart"; module: the layer's qualified
    name; slot: the rank's index, None where it is the whole layer; source: the index copied from;
    threshold: what decided (each method says); score_before and score_after: of the slot.
    """

    step: int
    kind: str
    module: str
    slot: int | None = None
    source: int | None = None
    threshold: float | None = None
    score_before: float | None = None
    score_after: float | None = None
