"""What every rank did, step by step."""

from __future__ import annotations

import pandas as pd
from torch import Tensor, nn

from .adapters import require_adapters
from .methods.base import require


class RankHistory:
    """The importance of every rank of every adapter, recorded every `every` optimizer steps.

    Hand it to `fit`, or call `record` after each step of your own loop.
    """

    def __init__(self, every: int = 10):
        require(isinstance(every, int) and every >= 1, "every", every, "an integer of at least 1")
        self.every = every
        self.steps: list[int] = []
        self.importance: list[dict[str, Tensor]] = []

    def record(self, model: nn.Module, step: int) -> None:
        """Keep {module: (r,) importance} of this step, if it is one of every `every`."""
        if step % self.every == 0:
            layers = require_adapters(model)
            self.steps.append(step)
            self.importance.append(
                {name: layer.rank_importance().float().cpu() for name, layer in layers.items()}
            )

    def to_pandas(self) -> pd.DataFrame:
        """One row for each step, module and rank: columns step, module, rank, importance."""
        rows = [
            (step, module, rank, value)
            for step, modules in zip(self.steps, self.importance)
            for module, values in modules.items()
            for rank, value in enumerate(values.tolist())
        ]
        return pd.DataFrame(rows, columns=["step", "module", "rank", "importance"])
