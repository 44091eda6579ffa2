"""Adapters in the format of the PEFT library: a folder that it, transformers and others load."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from ..layers import AdapterLayer, require_adapters, saving, trainable_parameters, unwrap
from ..layers.frozen import is_conv1d
from ..layers.targets import find_kept
from ..methods import DoRA

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def save_adapter(model: nn.Module, folder: str | Path) -> None:
    """Write what the adapters add to the frozen model as a PEFT LoRA folder: adapter_config.json and
    adapter_model.safetensors, to use; to go on training, save a checkpoint.

    Every method's update is LoRA's of some rank: BeamLoRA's with its weights folded in, AdaLoRA's and
    IncreLoRA's of other ranks in other modules, PiSSA's and MiLoRA's of rank 2r relative to the
    original weights, ReLoRA's of all its rounds together; DoRA's is PEFT's own. What is trained whole
    beside the adapters (`modules_to_save`) is in the folder too.

    Raises ValueError for a model without adapters, and where something else is trained that such a
    folder can't hold. An existing folder's other files stay.
    """
    model = unwrap(model)
    layers = require_adapters(model)
    method = next(iter(layers.values())).method
    kept = find_kept(model, method.modules_to_save)
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    for name, layer in layers.items():
        tensors |= {f"{name}.{part}": tensor for part, tensor in _factors(layer).items()}
        ranks[name] = len(tensors[f"{name}.lora_A.weight"])
    for name, module in kept.items():
        tensors |= {f"{name}.{part}": p for part, p in module.named_parameters()}
    own = {id(p) for layer in layers.values() for p in layer.parameters() if p is not None}
    base = {id(p) for layer in layers.values() for p in layer.base.parameters()}
    whole = {id(p) for module in kept.values() for p in module.parameters()}
    for name, parameter in trainable_parameters(model).items():
        if id(parameter) not in (own - base) | whole:
            raise ValueError(
                f"model: {name} is trained beside the adapters, and a LoRA folder can't hold it: allowed "
                "are adapters and the modules of modules_to_save; call merge_and_unload(model), then "
                "save the whole model"
            )
    config = _config(model, layers, ranks, [name for name, m in kept.items() if _is_trained(m)])
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    ready = {f"base_model.model.{n}": t.detach().cpu().contiguous() for n, t in tensors.items()}
    save_file(ready, folder / f"{WEIGHTS}.new", metadata={"format": "pt"})
    (folder / f"{CONFIG}.new").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for file in (WEIGHTS, CONFIG):
        os.replace(folder / f"{file}.new", folder / file)


saving.write_adapters = save_adapter  # what transformers' save_pretrained does with adapters on


def _is_trained(module: nn.Module) -> bool:
    return any(p.requires_grad for p in module.parameters())


def _factors(layer: AdapterLayer) -> dict[str, Tensor]:
    if isinstance(layer.method, DoRA):
        parts = {"lora_A.weight": layer.lora_A, "lora_B.weight": layer.lora_B}
        return parts | {"lora_magnitude_vector.weight": layer.magnitude}
    A, B = layer.plain()
    return {"lora_A.weight": A, "lora_B.weight": B}


def _task_type(model: Any) -> str | None:
    """What PEFT wraps the model as: its wrappers for language models ask for `generate`."""
    if type(model).__name__.endswith("ForSequenceClassification"):
        return "SEQ_CLS"
    if not getattr(model, "can_generate", bool)():
        return None
    return "SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM"


def _config(
    model: Any, layers: dict[str, AdapterLayer], ranks: dict[str, int], kept: list[str]
) -> dict[str, Any]:
    layer = next(iter(layers.values()))
    r = max(set(ranks.values()), key=list(ranks.values()).count)
    others = {name: rank for name, rank in ranks.items() if rank != r}
    return {
        "peft_type": "LORA",
        "task_type": _task_type(model),
        "base_model_name_or_path": getattr(getattr(model, "config", None), "_name_or_path", None),
        "r": r,
        "lora_alpha": layer.scaling * r,  # PEFT divides by the rank again
        "rank_pattern": others,
        "alpha_pattern": {name: layers[name].scaling * rank for name, rank in others.items()},
        "lora_dropout": layer.dropout.p,
        "target_modules": list(layers),
        "modules_to_save": kept or None,
        "use_dora": isinstance(layer.method, DoRA),
        "fan_in_fan_out": is_conv1d(layer.base),
        "bias": "none",
        "inference_mode": True,
    }
