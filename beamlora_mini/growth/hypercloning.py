"""Scaling Smart (Samragh et al., arXiv 2409.12903): HyperCloning, a model made n times as wide with
every output unchanged.

The law of `units.py` with the simplest of maps, all units n times over: a weight becomes n x n tiles
of W / n, what feeds the norms and the norms themselves tile as they are, so that every mean they
take stays the same. Query and key heads tile together, so a query still finds its key.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..checks import require
from .units import LLAMA_LIKE, Units, count_units, grow_weight, plan_growth, rebuild, weight_axes


@torch.no_grad()
def hyperclone(
    model: PreTrainedModel, times: int = 2, snr_db: float | None = None
) -> PreTrainedModel:
    """A new model, `times` (2 or 3) as wide in hidden size, heads and inner units, same logits.

    For Llama-style models (llama, mistral, qwen2; grouped and single keys too) and GPT-2. The size
    of a head stays; a tied output head becomes a weight of its own, because it divides by `times`
    and the embedding does not. snr_db: adds noise to every weight that reads copies, this many
    decibels below the weight, with a sum of zero over the copies, so that the logits still stay:
    W / 2 + N and W / 2 - N for two. Without it, copies receive equal gradients and stay copies.

    Raises ValueError for another kind of model or setting.
    """
    axes = weight_axes(model, (*LLAMA_LIKE, "gpt2"))
    require(times in (2, 3), "times", times, "2 or 3")
    finite = snr_db is None or (isinstance(snr_db, int | float) and math.isfinite(snr_db))
    require(finite, "snr_db", snr_db, "None or a finite number of decibels")
    tiles = Units(*(torch.arange(count).repeat(times) for count in count_units(model.config)))
    maps, changes = plan_growth(model.config, tiles)
    state = {}
    for name, weight in model.state_dict().items():
        state[name] = grow_weight(weight, axes[name], maps)
        reads = [dim for dim, axis in enumerate(axes[name]) if axis.endswith("/")]
        if reads and snr_db is not None:
            _add_noise_(state[name], reads[0], times, snr_db)
    layers = [*range(model.config.num_hidden_layers)]
    return rebuild(model, state, layers, tie_word_embeddings=False, **changes)


def _add_noise_(weight: Tensor, dim: int, times: int, snr_db: float) -> None:
    copies = weight.unflatten(dim, (times, -1))
    noise = torch.randn_like(copies)
    noise -= noise.mean(dim, keepdim=True)
    size = weight.square().mean().sqrt() * 10 ** (-snr_db / 20)
    copies += noise * (size / noise.square().mean().sqrt())
