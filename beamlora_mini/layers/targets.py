"""Which modules of a model get an adapter, which stay as they are, and what is passed by."""

from __future__ import annotations

import difflib
import re
import warnings

from torch import nn

from . import frozen

TASK_HEADS = ("classifier", "classification_head", "qa_outputs", "score")
NOTEWORTHY = 0.1  # share of a model's weights that "all-linear" does not pass by in silence

# What nobody expects "all-linear" to reach.
NOT_LINEAR = (
    nn.Embedding, nn.EmbeddingBag, nn.modules.conv._ConvNd, nn.LayerNorm, nn.modules.batchnorm._NormBase
)  # fmt: skip


def find_targets(
    model: nn.Module, target_modules: str | tuple[str, ...], kept: tuple[str, ...] = ()
) -> dict[str, nn.Module]:
    """{qualified name: linear module} for a `target_modules` value, a module in two places by its
    first name; errors as in `attach`. kept: names of modules that "all-linear" leaves alone, with
    all inside them."""
    first_name = {module: name for name, module in reversed(list(model.named_modules()))}
    modules = {n: m for n, m in model.named_modules(remove_duplicate=False) if n}
    linear = {name: module for name, module in modules.items() if frozen.is_adaptable(module)}
    if isinstance(target_modules, str):
        if target_modules == "all-linear":
            head = head_of(model)
            chosen = {n: m for n, m in linear.items() if m is not head and not _is_inside(n, kept)}
        else:
            chosen = {n: m for n, m in linear.items() if re.fullmatch(target_modules, n)}
        if not chosen:
            raise ValueError(_no_match(target_modules, linear))
    else:
        chosen = {}
        for target in target_modules:
            named = [n for n in modules if n == target or n.endswith(f".{target}")]
            if not named:
                raise ValueError(_no_match(target, linear))
            for name in named:
                if name not in linear:
                    raise TypeError(
                        f"target_modules entry {target!r} names {name!r}, a "
                        f"{type(modules[name]).__name__}: allowed are {frozen.KINDS}"
                    )
                chosen[name] = linear[name]
    found = set(chosen.values())
    return {first_name[m]: m for m in dict.fromkeys(linear.values()) if m in found}


def find_kept(model: nn.Module, modules_to_save: tuple[str, ...] | None) -> dict[str, nn.Module]:
    """{qualified name: module} of what stays outside the adapters: the modules whose name ends in an
    entry of `modules_to_save`; for None, the head that a task has put on a transformers model
    (what lies outside its base model, which knows no such head), where it has one.

    ValueError for an entry that names nothing.
    """
    if modules_to_save is None:
        base = getattr(model, "base_model", None)
        if not isinstance(base, nn.Module) or head_of(model) is not None:
            return {}
        parts = {n: m for n, m in model.named_children() if m is not base}
        if base is model:  # a body without a name of its own, as T5's
            parts = {n: m for n, m in parts.items() if n in TASK_HEADS}
        return {n: m for n, m in parts.items() if next(m.parameters(), None) is not None}
    kept = {}
    for entry in modules_to_save:
        named = {n: m for n, m in model.named_modules() if n == entry or n.endswith(f".{entry}")}
        if not named or entry == "":
            raise ValueError(
                f"modules_to_save entry {entry!r} matches no module: allowed are name endings such "
                f"as {', '.join(n for n, _ in list(model.named_children())[-2:])}"
            )
        kept |= named
    return kept


def warn_passed_by(
    model: nn.Module, targets: dict[str, nn.Module], kept: dict[str, nn.Module]
) -> None:
    """Say which matrices "all-linear" does not reach, where they are a good share of the model or a
    linear layer of a type that no adapter fits on. Embeddings, convolutions, norms and heads are not
    counted."""
    reached = [*targets.values(), *kept.values(), head_of(model)]
    known = {id(p) for m in reached if m is not None for p in m.parameters()}
    unfit = any(
        isinstance(module, nn.Linear) and any(id(p) not in known for p in module.parameters())
        for module in model.modules()
    )
    passed: dict[str, int] = {}
    for name, module in model.named_modules():
        if isinstance(module, NOT_LINEAR):
            known |= {id(p) for p in module.parameters()}  # a parametrized one's lie deeper
            continue
        for part, parameter in module.named_parameters(name, recurse=False):
            if parameter.dim() > 1 and id(parameter) not in known:
                known.add(id(parameter))
                place = f"{re.sub(r'[0-9]+', '*', part)} ({type(module).__name__})"
                passed[place] = passed.get(place, 0) + parameter.numel()
    share = sum(passed.values()) / max(1, sum(p.numel() for p in model.parameters()))
    if share >= NOTEWORTHY or unfit:
        largest = sorted(passed, key=lambda place: -passed[place])
        more = f" and {len(largest) - 4} more" if len(largest) > 4 else ""
        warnings.warn(
            f'target_modules="all-linear" passes by {share:.0%} of the model\'s weights, which are not '
            f"in {frozen.KINDS} and stay frozen: {', '.join(largest[:4])}{more}",
            stacklevel=3,
        )


def head_of(model: nn.Module) -> nn.Module | None:
    """A language model's output layer."""
    try:
        return getattr(model, "get_output_embeddings", lambda: None)()
    except NotImplementedError:
        return None


def _is_inside(name: str, places: tuple[str, ...]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)


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
