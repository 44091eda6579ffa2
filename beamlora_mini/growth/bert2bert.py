"""bert2BERT (Chen et al., arXiv 2110.07143): a larger transformer that starts with what a smaller
one knows.

FPI (function-preserving initialization) is the law of `units.py` on every weight of a transformer.
The residual stream is one set of units for the whole model, so one map serves every layer that
writes or reads it; heads are copied whole. AKI (advanced knowledge initialization) takes the added
units of layer l from layer l + 1 instead: copies no longer have twins, and the function changes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..checks import require
from . import units

TIED_HEAD = re.compile(r"(decoder|lm_head)\.weight$")
LAST_NORM = re.compile(r"(^|\.)(transform\.LayerNorm|norm)\.\w+$")  # what the head reads


@dataclass(frozen=True)
class Growth:
    """How a model was grown, and what that did to its function.

    maps: the old unit that each unit copies; layers: the old layer that each layer started as;
    max_deviation: the largest change of an output (logit, or hidden state where there is no head)
    on the probe; deviation: root mean square of the changes over that of the outputs.
    """

    mode: str
    maps: units.Units
    layers: tuple[int, ...]
    max_deviation: float
    deviation: float

    @property
    def is_uniform(self) -> bool:
        """Whether every unit of the residual stream has equally many copies: if not, a norm takes
        its mean over another mixture of units, and FPI is exact only up to that."""
        return len(self.maps.hidden.bincount().unique()) == 1


@torch.no_grad()
def bert2bert(
    model: PreTrainedModel,
    *,
    hidden_size: int | None = None,
    intermediate_size: int | None = None,
    num_attention_heads: int | None = None,
    num_hidden_layers: int | None = None,
    mode: str = "fpi",
    hidden_map: Sequence[int] | Tensor | None = None,
    probe: Tensor | None = None,
) -> PreTrainedModel:
    """A larger model of the same class that starts from `model`, which stays as it is.

    For BERT (BertModel, BertForMaskedLM) and Llama-style models (llama, mistral, qwen2). A size
    that is None stays; without num_attention_heads, heads grow with hidden_size. The size of a head
    stays, and so does the number of query heads to a key. mode: "fpi" or "aki". hidden_map:
    (hidden_size,), the residual stream's map; None draws one, as for heads and inner units.
    More layers are the old ones stacked from the bottom again, which changes the function
    (`net2net.insert_block` does not). Tied embeddings stay tied: the last norm's gain is shared out
    in the head's place.

    The result's `growth` attribute is a `Growth`: maps, and the deviation from `model` measured on
    probe, (batch, length) token ids; None takes random ones.

    Raises ValueError for another kind of model or a size that does not fit; the message says which.
    """
    axes = units.weight_axes(model, ("bert", *units.LLAMA_LIKE))
    require(mode in ("fpi", "aki"), "mode", mode, "'fpi' or 'aki'")
    config, old = model.config, units.count_units(model.config)
    hidden = _size(config, "hidden_size", hidden_size)
    inner = _size(config, "intermediate_size", intermediate_size)
    depth = _size(config, "num_hidden_layers", num_hidden_layers)
    groups = _groups(config, hidden, num_attention_heads)
    if hidden_map is None:
        hidden_map = units.draw_map(old.hidden, hidden)
    hidden_map = units.check_map(hidden_map, old.hidden, hidden, "hidden_map")
    drawn = units.draw_map(old.groups, groups), units.draw_map(old.inner, inner)
    maps = units.Units(hidden_map, *drawn)
    axis_maps, changes = units.plan_growth(config, maps)

    head = model.get_output_embeddings()
    if head is not None and head.weight is model.get_input_embeddings().weight:
        axes = {name: axis for name, axis in axes.items() if not TIED_HEAD.search(name)}
        axes |= {name: ("hidden/",) for name in axes if LAST_NORM.search(name)}
    state = model.state_dict()
    state = {name: units.grow_weight(state[name], axes[name], axis_maps) for name in axes}
    if mode == "aki":
        state = _take_from_next_layer(state, axes, axis_maps)
    layers = tuple(i % config.num_hidden_layers for i in range(depth))
    grown = units.rebuild(model, state, layers, **changes)
    grown.growth = Growth(mode, maps, layers, *_deviation(model, grown, hidden_map, probe))
    return grown


def _size(config, name: str, wanted: int | None) -> int:
    present = getattr(config, name)
    whole = wanted is None or (isinstance(wanted, int) and wanted >= present)
    require(whole, name, wanted, f"an integer of at least {present}, the present size")
    return wanted or present


def _groups(config, hidden_size: int, num_attention_heads: int | None) -> int:
    """How many groups of heads the grown model has; ValueError where they would not be whole."""
    hidden, groups, _ = units.count_units(config)
    heads = config.num_attention_heads
    if num_attention_heads is None:
        step = hidden // math.gcd(hidden, groups)
        rule = f"a multiple of {step}, so that whole heads go with it"
        require(hidden_size % step == 0, "hidden_size", hidden_size, rule)
        return hidden_size * groups // hidden
    new_heads = _size(config, "num_attention_heads", num_attention_heads)
    if config.model_type == "bert":  # its heads make up the hidden size
        fits, rule = new_heads * hidden == heads * hidden_size, f"{hidden_size * heads / hidden:g}"
    else:
        fits = new_heads * groups % heads == 0 and hidden_size % new_heads == 0
        rule = f"a multiple of {heads // groups} that divides hidden_size={hidden_size}"
    require(fits, "num_attention_heads", new_heads, rule)
    return new_heads * groups // heads


def _take_from_next_layer(
    state: dict[str, Tensor], axes: dict[str, tuple[str, ...]], maps: dict[str, Tensor]
) -> dict[str, Tensor]:
    """AKI: the rows of every layer's added units, weights and biases, are those of the next layer.
    Norms, embeddings and the last layer stay as FPI made them."""
    mixed = dict(state)
    for name, weight in state.items():
        next_name = units.LAYER.sub(lambda layer: f".{int(layer[1]) + 1}.", name)
        if next_name != name and next_name in state and "norm" not in name.lower():
            rows = units.added(maps[axes[name][0]]).to(weight.device)
            mixed[name] = weight.clone()
            mixed[name][rows] = state[next_name][rows]
    return mixed


def _deviation(
    model: PreTrainedModel, grown: PreTrainedModel, hidden_map: Tensor, probe: Tensor | None
) -> tuple[float, float]:
    """(largest, relative root mean square) change of the outputs on the probe."""
    if probe is None:
        generator = torch.Generator().manual_seed(0)
        length = min(32, model.config.max_position_embeddings)
        probe = torch.randint(model.config.vocab_size, (4, length), generator=generator)
    outputs = []
    for one in (model, grown):
        was_training = one.training
        outputs.append(one.eval()(input_ids=probe.to(one.device))[0].double())
        one.train(was_training)
    before, after = outputs
    if model.get_output_embeddings() is None:
        before = before[..., hidden_map.to(before.device)]
    change = after - before
    return change.abs().max().item(), (change.norm() / before.norm()).item()
