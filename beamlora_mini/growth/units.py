"""The law behind every function-preserving growth, and where it applies inside a transformer.

A map g names, for each unit of the grown layer, the old unit that it copies; c[u] is the number of
copies of u. Copies receive what the original received, so they carry the same value, and whoever
reads them shares its weight out among them:

    W_in'[i] = W_in[g(i)]        W_out'[:, i] = W_out[:, g(i)] / c[g(i)]
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from ..checks import require

Axes = tuple[str, ...]

# {end of a module's name: the units along each axis of its weight}. "" is an axis that keeps its
# size; "hidden/" marks an axis that reads the hidden units, along which the copies are shared out.
BERT = {
    **dict.fromkeys(
        ("word_embeddings", "position_embeddings", "token_type_embeddings"), ("", "hidden")
    ),
    "LayerNorm": ("hidden",),
    "self.query": ("query", "hidden/"),
    **dict.fromkeys(("self.key", "self.value"), ("key", "hidden/")),
    "attention.output.dense": ("hidden", "query/"),
    "intermediate.dense": ("inner", "hidden/"),
    "output.dense": ("hidden", "inner/"),
    **dict.fromkeys(("pooler.dense", "transform.dense"), ("hidden", "hidden/")),
    "decoder": ("", "hidden/"),
    "predictions": ("",),
}
LLAMA = {
    "embed_tokens": ("", "hidden"),
    **dict.fromkeys(("input_layernorm", "post_attention_layernorm", "norm"), ("hidden",)),
    "q_proj": ("query", "hidden/"),
    **dict.fromkeys(("k_proj", "v_proj"), ("key", "hidden/")),
    "o_proj": ("hidden", "query/"),
    **dict.fromkeys(("gate_proj", "up_proj"), ("inner", "hidden/")),
    "down_proj": ("hidden", "inner/"),
    "lm_head": ("", "hidden/"),
}
GPT2 = {  # Conv1D keeps its weight as (in, out)
    **dict.fromkeys(("wte", "wpe"), ("", "hidden")),
    **dict.fromkeys(("ln_1", "ln_2", "ln_f"), ("hidden",)),
    "attn.c_attn": ("hidden/", "query key value"),
    "attn.c_proj": ("query/", "hidden"),
    "mlp.c_fc": ("hidden/", "inner"),
    "mlp.c_proj": ("inner/", "hidden"),
    "lm_head": ("", "hidden/"),
}
LLAMA_LIKE = ("llama", "mistral", "qwen2")
FAMILIES = {"bert": BERT, **dict.fromkeys(LLAMA_LIKE, LLAMA), "gpt2": GPT2}
LAYER = re.compile(r"\.(\d+)\.")  # the first number in a parameter's name is its layer


def draw_map(old: int, new: int) -> Tensor:
    """(new,) a map that keeps the old units and copies random ones behind them, none twice before
    every other has been copied once. At a multiple of `old` all have equally many copies."""
    copies = [torch.randperm(old) for _ in range(-(-new // old) - 1)]
    return torch.cat([torch.arange(old), *copies])[:new]


def check_map(mapping: Sequence[int] | Tensor, old: int, new: int, argument: str) -> Tensor:
    """The map as an int64 tensor; ValueError unless it names an old unit `new` times, each once
    or more: a unit left out would change the function."""
    checked = torch.as_tensor(mapping).cpu()
    valid = checked.shape == (new,) and not (checked.is_floating_point() or checked.is_complex())
    valid = valid and torch.equal(checked.unique(), torch.arange(old))
    require(valid, argument, mapping, f"{new} integers that name each of the units 0 to {old - 1}")
    return checked.long()


def added(mapping: Tensor) -> Tensor:
    """(new,) bool: False for the first copy of each old unit, True for the further ones."""
    place = torch.arange(len(mapping))
    first = torch.full((int(mapping.max()) + 1,), len(mapping))
    return first.scatter_reduce(0, mapping, place, "amin")[mapping] != place


def in_blocks(mapping: Tensor, size: int) -> Tensor:
    """The map of single units, where each mapped thing (a head, a channel) is `size` of them."""
    return (mapping[:, None] * size + torch.arange(size)).flatten()


def copy_units(weight: Tensor, mapping: Tensor, dim: int, share: bool = False) -> Tensor:
    """W' with W'[.., i, ..] = W[.., g(i), ..] along `dim`; with `share`, divided by c[g(i)]."""
    mapping = mapping.to(weight.device)
    grown = weight.index_select(dim, mapping)
    if share:
        counts = mapping.bincount()[mapping].to(weight.dtype)
        grown /= counts.view([-1 if d == dim else 1 for d in range(weight.dim())])
    return grown


def grow_weight(weight: Tensor, axes: Axes, maps: Mapping[str, Tensor]) -> Tensor:
    """`weight` with the units of every axis copied by their map; always a tensor of its own."""
    grown = weight
    for dim, axis in enumerate(axes):
        if units := axis.rstrip("/"):
            grown = copy_units(grown, maps[units], dim, share=axis.endswith("/"))
    return grown.clone() if grown is weight else grown


def weight_axes(model: PreTrainedModel, kinds: Sequence[str]) -> dict[str, Axes]:
    """{parameter name: its axes} of a model of one of these kinds; ValueError for another."""
    config = getattr(model, "config", None)
    kind = getattr(config, "model_type", type(model).__name__)
    require(kind in kinds, "model", kind, f"a transformers model of type {', '.join(kinds)}")
    crossed = getattr(config, "add_cross_attention", False)
    require(not crossed, "add_cross_attention", crossed, "False")
    axes = {}
    for name in model.state_dict():
        module, _, parameter = name.rpartition(".")
        found = [axes for end, axes in FAMILIES[kind].items() if f".{module}".endswith(f".{end}")]
        require(
            bool(found), "model", name, f"a plain {kind}, with its language model head or none, "
            "and no adapters (use detach or merge_and_unload)",
        )  # fmt: skip
        axes[name] = found[0]
        if parameter == "bias" and len(found[0]) > 1:  # one number for each unit that is written
            axes[name] = tuple(axis for axis in found[0] if not axis.endswith("/"))
    return axes


class Units(NamedTuple):
    """The units of a transformer, by kind: how many, or the map that grows them. Heads count in
    groups, those that share one key-value head: whole groups are copied."""

    hidden: int | Tensor
    groups: int | Tensor
    inner: int | Tensor


def count_units(config: PreTrainedConfig) -> Units:
    hidden, heads = config.hidden_size, config.num_attention_heads
    inner = getattr(config, "intermediate_size", None) or config.n_inner or 4 * hidden
    return Units(hidden, getattr(config, "num_key_value_heads", None) or heads, inner)


def plan_growth(config: PreTrainedConfig, maps: Units) -> tuple[dict[str, Tensor], dict[str, int]]:
    """({units: map} for every axis of the family's weights, the config's new sizes)."""
    hidden, groups, _ = count_units(config)
    queries = config.num_attention_heads // groups  # heads in a group
    head_dim = getattr(config, "head_dim", None) or hidden // config.num_attention_heads
    query, key = in_blocks(maps.groups, queries * head_dim), in_blocks(maps.groups, head_dim)
    axes = {"hidden": maps.hidden, "inner": maps.inner, "query": query, "key": key}
    axes["query key value"] = torch.cat([query + i * hidden for i in range(3)])
    changes = {"hidden_size": len(maps.hidden), "num_attention_heads": len(maps.groups) * queries}
    if hasattr(config, "num_key_value_heads"):
        changes |= {"num_key_value_heads": len(maps.groups), "head_dim": head_dim}
    inner = "intermediate_size" if hasattr(config, "intermediate_size") else "n_inner"
    return axes, changes | {inner: len(maps.inner)}


def rebuild(
    model: PreTrainedModel, state: Mapping[str, Tensor], layers: Sequence[int], **changes
) -> PreTrainedModel:
    """A new model of the same class, its config the model's with `changes`, its layer i with the
    weights that `state` has for layer layers[i]. The tensors of `state` become its parameters."""
    config = copy.deepcopy(model.config)
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        config.layer_types = [kinds[layer] for layer in layers]
    # SmolLM2 says here that its file was quantized; the weights in memory are not.
    config.__dict__.pop("quantization_config", None)
    for name, value in {"num_hidden_layers": len(layers), **changes}.items():
        setattr(config, name, value)
    stacked = {}
    for name, weight in state.items():
        layer = LAYER.search(name)
        for i, source in enumerate(layers):
            if layer is None:
                stacked[name] = weight
            elif source == int(layer[1]):
                again = layers.index(source) < i
                stacked[LAYER.sub(f".{i}.", name, count=1)] = weight.clone() if again else weight
    grown, report = type(model).from_pretrained(
        None, config=config, state_dict=stacked, dtype=model.dtype,
        attn_implementation=model.config._attn_implementation, output_loading_info=True,
    )  # fmt: skip
    wrong = sorted(map(str, {*report["missing_keys"], *report["mismatched_keys"]}))
    require(not wrong, "model", type(model).__name__, f"one that also has {', '.join(wrong)}")
    grown.generation_config = copy.deepcopy(getattr(model, "generation_config", None))
    return grown.to(model.device).train(model.training)
