"""Adapters in the format of the PEFT library: a folder that it, transformers and others load."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from ..layers import AdapterLayer, adapter_layers, require_adapters, unwrap
from ..layers.frozen import is_conv1d
from ..methods import DoRA

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def save_adapter(model: nn.Module, folder: str | Path) -> None:
    """Write what the adapters add to the frozen model as a PEFT LoRA folder: adapter_config.json and
    adapter_model.safetensors, to use; to go on training, save a checkpoint.

    Every method's update is LoRA's of some rank: BeamLoRA's with its weights folded in, AdaLoRA's and
    IncreLoRA's of other ranks in other modules, PiSSA's and MiLoRA's of rank 2r relative to the
    original weights, ReLoRA's of all its rounds together; DoRA's is PEFT's own. Modules with something
    trained whole beside the adapters are in the folder too, as PEFT's modules_to_save.

    Raises ValueError for a model without adapters, for DoRA beside other methods, and where a weight or
    bias under an adapter is trained, which such a folder can't hold. Other files in the folder stay.
    """
    model = unwrap(model)
    layers = require_adapters(model)
    for name, layer in layers.items():
        for part, parameter in layer.base.named_parameters():
            if parameter.requires_grad:
                raise ValueError(
                    f"model: {name}.{part} is trained under an adapter, and a LoRA folder can't hold it: "
                    "allowed is a frozen one; call merge_and_unload(model), then save the whole model"
                )
    kept = _trained_whole(model)
    factors = {name: _factors(layer) for name, layer in layers.items()}
    config = _config(model, layers, {n: len(f["lora_A.weight"]) for n, f in factors.items()}, kept)
    tensors = {f"{name}.{part}": t for name, own in factors.items() for part, t in own.items()}
    for name, module in kept.items():
        tensors |= {
            f"{name}.{part}": p.clone() for part, p in module.named_parameters(recurse=False)
        }
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    ready = {f"base_model.model.{n}": t.detach().cpu().contiguous() for n, t in tensors.items()}
    save_file(ready, folder / f"{WEIGHTS}.new", metadata={"format": "pt"})
    (folder / f"{CONFIG}.new").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for file in (WEIGHTS, CONFIG):
        os.replace(folder / f"{file}.new", folder / file)


def save_for_trainer(state: dict[str, Tensor], folder: str | Path) -> None:
    """Write an adapted model's own tensors where transformers' Trainer looks when it resumes: the
    folder's adapter alone would not bring back what a method remembers."""
    once = {t.data_ptr(): (name, t) for name, t in reversed(state.items())}
    tensors = {name: tensor.contiguous() for name, tensor in once.values()}
    save_file(tensors, Path(folder) / "model.safetensors", metadata={"format": "pt"})


def _trained_whole(model: nn.Module) -> dict[str, nn.Module]:
    """{name: module} of the modules outside the adapters that hold something trained, and of those
    tied to them."""
    inside = {m for layer in adapter_layers(model).values() for m in layer.modules()}
    outside = {name: module for name, module in model.named_modules() if module not in inside}
    own = {name: list(module.parameters(recurse=False)) for name, module in outside.items()}
    trained = {p for parameters in own.values() for p in parameters if p.requires_grad}
    return {name: outside[name] for name, parameters in own.items() if trained & set(parameters)}


def _factors(layer: AdapterLayer) -> dict[str, Tensor]:
    if isinstance(layer.method, DoRA):
        parts = {"lora_A.weight": layer.lora_A, "lora_B.weight": layer.lora_B}
        return parts | {"lora_magnitude_vector.weight": layer.magnitude}
    A, B = layer.plain()
    return {"lora_A.weight": A, "lora_B.weight": B}


def _task_type(model: Any, kept: Collection[str]) -> str | None:
    """What PEFT wraps the model as: its wrappers for language models ask for `generate`, the one for
    classifiers saves the whole head."""
    if {"classifier", "score"} & set(kept):
        return "SEQ_CLS"
    if not getattr(model, "can_generate", bool)():
        return None
    return "SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM"


def _config(
    model: Any, layers: dict[str, AdapterLayer], ranks: dict[str, int], kept: Collection[str]
) -> dict[str, Any]:
    layer = next(iter(layers.values()))
    dora = {isinstance(layer.method, DoRA) for layer in layers.values()}
    if len(dora) > 1:
        raise ValueError(
            "model: it carries DoRA and other adapters: allowed is one kind in a folder"
        )
    # PEFT divides alpha by the rank again. What most layers have is the config's, the rest patterns.
    kinds = {name: (ranks[name], layer.scaling * ranks[name]) for name, layer in layers.items()}
    r, alpha = max(set(kinds.values()), key=list(kinds.values()).count)
    others = {name: kind for name, kind in kinds.items() if kind != (r, alpha)}
    return {
        "peft_type": "LORA",
        "task_type": _task_type(model, kept),
        "modules_to_save": list(kept) or None,
        "base_model_name_or_path": getattr(getattr(model, "config", None), "_name_or_path", None),
        "r": r,
        "lora_alpha": alpha,
        "rank_pattern": {name: rank for name, (rank, _) in others.items()},
        "alpha_pattern": {name: alpha for name, (_, alpha) in others.items()},
        "lora_dropout": layer.dropout.p,
        "target_modules": list(layers),
        "use_dora": dora.pop(),
        "fan_in_fan_out": is_conv1d(layer.base),
        "bias": "none",
        "inference_mode": True,
    }
