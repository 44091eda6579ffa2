"""Folding adapters into the weights: for a while, or for good."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from . import frozen
from .attach import detach, require_adapters, unwrap
from .targets import head_of


def merge(model: nn.Module) -> None:
    """Fold every adapter into its layer: the same outputs at the frozen model's speed.

    Costs one more copy of the adapted weights until `unmerge`, which is exact. Computed in the
    adapter's dtype, then rounded to the weight's.
    """
    layers = require_adapters(model).values()
    # All of it first: where one can't be merged, none is.
    for layer, weight in [(layer, layer.merged()) for layer in layers]:
        layer.merged_weight = weight


def unmerge(model: nn.Module) -> None:
    """Undo `merge`, to the bit."""
    for layer in require_adapters(model).values():
        layer.unmerge()


@torch.no_grad()
def merge_and_unload(model: nn.Module) -> nn.Module:
    """Write W + delta_weight() into the model's own layers, take the adapters off, return it.

    A weight shared with a module that has no adapter (a tied output head) is replaced, not
    overwritten; a transformers config then says `tie_word_embeddings=False`.
    """
    layers = require_adapters(model)
    # All of it first: where one can't be merged, none is.
    merged = {layer: layer.merged() for layer in layers.values()}
    detach(model)
    for layer in layers.values():
        frozen.assign(layer.base, merged.pop(layer))
    inner: Any = unwrap(model)
    if head_of(inner) in [la.base for la in layers.values()]:
        inner.config.tie_word_embeddings = False
    return model
