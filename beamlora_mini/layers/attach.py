"""Putting a method's layers into a model and taking them out again; finding them in between."""

from __future__ import annotations

import difflib
import re
from typing import Any

from torch import nn

from ..machine import progress_bar
from . import frozen
from .layer import AdapterLayer


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside torch.compile's and the data-parallel wrappers; itself where there is none."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif "_orig_mod" in model._modules:
            model = model.get_submodule("_orig_mod")
        else:
            return model


def attach(model: nn.Module, method: Any) -> dict[str, AdapterLayer]:
    """Put `method`'s adapter on the linear layers it names, in place, and freeze all else.

    `method.target_modules` is "all-linear" (every linear layer but the model's output head), a
    list of name endings such as ["q_proj", "v_proj"], or one regular expression that must match
    the whole module name. Returns {qualified name: layer}. A linear module that the model uses in
    two places gets one adapter; modules that merely share a weight get one each.

    Raises ValueError if the model already has adapters, or if a target matches nothing (the
    message names the closest modules), TypeError if it names a module that is not a linear layer.
    Whatever raises, the model is as it was.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model={type(model).__name__}: allowed is a torch.nn.Module, by itself")
    if isinstance(method, type) or not hasattr(method, "wrap"):
        raise TypeError(
            f"method={method!r}: allowed is a method with its settings, as in LoRA(r=8)"
        )
    if isinstance(model, nn.parallel.DistributedDataParallel):
        raise TypeError(
            "model: DistributedDataParallel has counted its parameters already, and would never "
            "average an adapter's gradients: attach first, then wrap"
        )
    model = unwrap(model)
    present = list(adapter_layers(model))
    if present:
        raise ValueError(
            f"model already has {len(present)} adapters, the first on {present[0]!r}: "
            "use detach(model) or merge_and_unload(model) before attaching again"
        )
    targets = find_targets(model, method.target_modules)
    flags = {p: p.requires_grad for p in model.parameters()}
    trainable = set(trainable_parameters(model))
    layers = {}
    try:
        # Singular values of a real model's weights take minutes: then a bar shows.
        with progress_bar(len(targets), "attach", delay=3) as bar:
            for name, module in targets.items():
                layers[name] = method.wrap(module)
                bar.update()
    except BaseException:
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)
        raise
    model.requires_grad_(False)
    replace_modules(
        model, {targets[name]: layer.train(model.training) for name, layer in layers.items()}
    )
    model.__dict__["_trainable_before_attach"] = trainable
    return layers


def find_targets(model: nn.Module, target_modules: str | tuple[str, ...]) -> dict[str, nn.Module]:
    """{qualified name: linear module} for a `target_modules` value; errors as in `attach`."""
    modules = {name: module for name, module in model.named_modules() if name}
    inside = tuple(f"{n}." for n, m in modules.items() if isinstance(m, nn.MultiheadAttention))
    linear = {
        name: module
        for name, module in modules.items()
        # MultiheadAttention reads its projection's weight and never calls it.
        if frozen.is_adaptable(module) and not (inside and name.startswith(inside))
    }
    if isinstance(target_modules, str):
        if target_modules == "all-linear":
            head = getattr(model, "get_output_embeddings", lambda: None)()
            chosen = {name: module for name, module in linear.items() if module is not head}
        else:
            chosen = {n: m for n, m in linear.items() if re.fullmatch(target_modules, n)}
        if not chosen:
            raise ValueError(_no_match(target_modules, linear))
        return chosen
    chosen = {}
    for target in target_modules:
        named = [n for n in modules if n == target or n.endswith(f".{target}")]
        if not named:
            raise ValueError(_no_match(target, linear))
        for name in named:
            if name not in linear:
                raise TypeError(
                    f"target_modules entry {target!r} names {name!r}, a "
                    f"{type(modules[name]).__name__}: allowed are {frozen.KINDS} "
                    "outside MultiheadAttention"
                )
            chosen[name] = linear[name]
    return {name: module for name, module in linear.items() if name in chosen}


def _no_match(target: str, linear: dict[str, nn.Module]) -> str:
    if not linear:
        return f"target_modules={target!r}: the model has no linear layer that an adapter fits on"
    endings = {name.rsplit(".", 1)[-1]: name for name in linear} | {name: name for name in linear}
    near = difflib.get_close_matches(target, endings, n=3, cutoff=0.5) or sorted(
        {name.rsplit(".", 1)[-1] for name in linear}
    )
    return (
        f"target_modules={target!r} matches no linear layer: closest are {', '.join(near)}. "
        'Allowed: "all-linear", a list of name endings, or a regular expression for whole names'
    )


def replace_modules(model: nn.Module, replacements: dict[nn.Module, nn.Module]) -> None:
    """Put {old: new} modules into the model, in every place where an old one is."""
    for parent in list(model.modules()):
        for attribute, child in list(parent._modules.items()):
            if child in replacements:
                setattr(parent, attribute, replacements[child])


def detach(model: nn.Module) -> dict[str, AdapterLayer]:
    """Take every adapter off, in place: the model is as before `attach`. Returns the adapters."""
    layers = require_adapters(model)
    replace_modules(model, {layer: layer.base for layer in layers.values()})
    for module in model.modules():  # the one that was attached to may lie inside `model`
        trainable = module.__dict__.pop("_trainable_before_attach", None)
        if trainable is not None:
            for name, parameter in module.named_parameters():
                parameter.requires_grad_(name in trainable)
    return layers


def adapter_layers(model: nn.Module) -> dict[str, AdapterLayer]:
    """{qualified name: layer} of every adapter in the model, in module order; {} if none."""
    return {name: m for name, m in model.named_modules() if isinstance(m, AdapterLayer)}


def require_adapters(model: nn.Module) -> dict[str, AdapterLayer]:
    """As `adapter_layers`, but a model without any is a ValueError."""
    layers = adapter_layers(model)
    if not layers:
        raise ValueError("model has no adapters: call attach(model, method) first")
    return layers


def attached_method(model: nn.Module) -> Any:
    """The method whose adapters the model carries, wherever in it they sit; None if there are none."""
    return next((layer.method for layer in adapter_layers(model).values()), None)


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """{name: parameter} of what requires a gradient now; some methods add to it in training."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def remembered_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """{name: parameter} of what adapters keep from step to step without training it."""
    return {
        f"{prefix}.{name}" if prefix else name: p
        for prefix, layer in adapter_layers(model).items()
        for name, p in layer.named_parameters()
        if not p.requires_grad and not name.startswith("base.")
    }


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """(trainable, total) number of parameters, each shared one counted once. What adapters only
    remember is neither."""
    remembered = set(remembered_parameters(model).values())
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters() if p not in remembered]
    return sum(n for n, trainable in sizes if trainable), sum(n for n, _ in sizes)
