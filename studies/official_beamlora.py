"""The official BeamLoRA code as it executes, faults included: `OfficialBeamLoRA`.

From gccnlp/BeamLoRA at 2610c6a. Where it does not do what the paper (arXiv 2502.13604) describes:

- the copy of the optimizer's moments is written to a temporary and lost, so they never change;
- the snapshot is taken before the step counter is raised, and so one step late;
- an odd period never takes a snapshot, and the first event fails;
- its cap on what a module loses is called for evaluation_method="first_order" alone, never for the
  scores: a source can be a pruned slot itself;
- which copy goes to which slot is drawn at random;
- the choice runs in the adapter's dtype: in bfloat16 the running sums are rounded, and fewer ranks
  are pruned: a few per cent at p = .95, a good fifth at p = .99 (notebook 09a).

`bl.BeamLoRA.as_published` sets what can be said by settings; here is the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import beamlora_mini as bl
from beamlora_mini.checks import require
from beamlora_mini.methods.beamlora import BeamSchedule
from beamlora_mini.ranks import expand_ranks_, score_importance, top_p_mask


class OfficialSchedule(BeamSchedule):
    def choose(self, n, importances, p):
        """In the adapter's dtype, all modules together, without a cap."""
        in_dtype = {
            name: score_importance(layer.scores.detach().cpu(), self.method.temperature)
            for name, layer in self.layers.items()
        }
        dtype = next(iter(in_dtype.values())).dtype
        return top_p_mask(in_dtype, p, "global", max_prune_fraction=1.0, dtype=dtype)

    def replace(self, layer, slots, sources):
        """A and B of the snapshot; its moments are lost."""
        expand_ranks_(layer, self.optimizer, slots, sources, self.snapshot, copy_moments=False)


@dataclass(frozen=True)
class OfficialBeamLoRA(bl.BeamLoRA):
    """The official code. (`bl.BeamLoRA.as_published(...)` is the same with its choice in float64.)"""

    copy_moments: bool = False
    max_prune_fraction: float = 1.0
    pairing: str = "random"

    Schedule: ClassVar = OfficialSchedule

    def __post_init__(self):
        super().__post_init__()
        require(self.period % 2 == 0, "period", self.period, "an even number")
        if self.snapshot_lag is None:
            object.__setattr__(self, "snapshot_lag", self.period // 2 - 1)
