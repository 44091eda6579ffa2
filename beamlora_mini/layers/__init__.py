"""A frozen layer with an adapter beside it: its arithmetic, its place in a model, merging."""

from .attach import (
    adapter_layers,
    attach,
    attached_method,
    count_parameters,
    detach,
    require_adapters,
    trainable_parameters,
    unwrap,
)
from .kernel import add_low_rank, low_rank_linear, without_autocast
from .layer import AdapterLayer
from .merge import merge, merge_and_unload, unmerge

__all__ = [
    "AdapterLayer",
    "adapter_layers",
    "add_low_rank",
    "attach",
    "attached_method",
    "count_parameters",
    "detach",
    "low_rank_linear",
    "merge",
    "merge_and_unload",
    "require_adapters",
    "trainable_parameters",
    "unmerge",
    "unwrap",
    "without_autocast",
]
