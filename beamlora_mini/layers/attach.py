"""Putting a method's layers into a model and taking them out again; finding them in between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from ..machine import progress_bar
from .layer import AdapterLayer
from .targets import find_kept, find_targets, warn_passed_by

after_attach: list[Callable[[], None]] = []  # what else is to happen once there are adapters


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

    `method.target_modules` is "all-linear" (every linear layer but the model's head), a list of
    name endings such as ["q_proj", "v_proj"], or one regular expression that must match the whole
    module name. Returns {qualified name: layer}. A linear module that the model uses in two places
    gets one adapter; modules that merely share a weight get one each.

    `method.modules_to_save` names modules that are trained whole beside the adapters, by their
    endings, and `detach` does not undo that. With None it is the head that a task has put on a
    transformers model (a classifier), which stays as trainable as it was: it may be new and random.

    Warns where "all-linear" passes by a good part of the weights. Raises ValueError if the model
    already has adapters, or if an entry matches nothing (the message names the closest modules) or
    both gets an adapter and is to be trained whole, TypeError if it names a module that is not a
    linear layer. Whatever raises, the model is as it was.
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
    kept = find_kept(model, method.modules_to_save)
    spared = {**find_kept(model, None), **kept}
    targets = find_targets(model, method.target_modules, tuple(spared))
    whole = [p for module in kept.values() for p in module.parameters()]
    if method.modules_to_save is not None:
        _require_apart(targets, kept)
    else:  # a target that lies in the head is meant
        adapted = {p for module in targets.values() for p in module.parameters()}
        whole = [p for p in whole if p.requires_grad and p not in adapted]
    if method.target_modules == "all-linear":
        warn_passed_by(model, targets, spared)
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
    for parameter in whole:
        parameter.requires_grad_(True)
    replace_modules(
        model, {targets[name]: la.train(targets[name].training) for name, la in layers.items()}
    )
    for do in after_attach:
        do()
    model.__dict__["_trainable_before_attach"] = trainable
    return layers


def _require_apart(targets: dict[str, nn.Module], kept: dict[str, nn.Module]) -> None:
    whole = {inner: name for name, module in kept.items() for inner in module.modules()}
    for name, module in targets.items():
        if module in whole:
            raise ValueError(
                f"modules_to_save: {whole[module]!r} is to be trained whole, and target_modules puts an "
                f"adapter on {name!r} in it: allowed is one of the two"
            )


def replace_modules(model: nn.Module, replacements: dict[nn.Module, nn.Module]) -> None:
    """Put {old: new} modules into the model, in every place where an old one is."""
    for parent in list(model.modules()):
        for attribute, child in list(parent._modules.items()):
            if child in replacements:
                setattr(parent, attribute, replacements[child])


def detach(model: nn.Module) -> dict[str, AdapterLayer]:
    """Take every adapter off, in place: the model is as before `attach`, but for what was trained
    whole beside them. Returns the adapters."""
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
