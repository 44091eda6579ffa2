"""The same layers under peft and under loralib, with our A and B."""

import copy

import loralib
import peft
import torch

import beamlora_mini as bl


def peft_twin(model, adapted, **settings):
    """`model` under peft, with the adapter weights of `adapted`; {name: (ours, peft's)} layers.

    settings: LoraConfig's, r and lora_alpha among them."""
    layers = bl.adapter_layers(adapted)
    targets = [name.rsplit(".", 1)[-1] for name in layers]
    config = peft.LoraConfig(target_modules=targets, **settings)
    twin = peft.get_peft_model(copy.deepcopy(model), config)
    pairs = {}
    for name, layer in layers.items():
        theirs = twin.base_model.model.get_submodule(name)
        with torch.no_grad():
            theirs.lora_A["default"].weight.copy_(layer.lora_A)
            theirs.lora_B["default"].weight.copy_(layer.lora_B)
            if settings.get("use_dora"):
                theirs.lora_magnitude_vector["default"].weight.copy_(layer.magnitude)
        pairs[name] = (layer, theirs)
    return twin, pairs


def loralib_twin(model, adapted, **settings):
    """`model` with loralib's layers, as `peft_twin`; settings: loralib.Linear's."""
    twin = copy.deepcopy(model)
    pairs = {}
    for name, layer in bl.adapter_layers(adapted).items():
        theirs = loralib.Linear(
            layer.in_features, layer.out_features, merge_weights=False,
            bias=layer.bias is not None, dtype=layer.frozen_weight.dtype, **settings,
        )  # fmt: skip
        with torch.no_grad():
            theirs.weight.copy_(layer.frozen_weight)
            theirs.lora_A.copy_(layer.lora_A)
            theirs.lora_B.copy_(layer.lora_B)
            if layer.bias is not None:
                theirs.bias.copy_(layer.bias)
        twin.set_submodule(name, theirs)
        pairs[name] = (layer, theirs)
    loralib.mark_only_lora_as_trainable(twin)
    return twin, pairs
