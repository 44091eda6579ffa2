"""What training takes of memory: `training_memory`, before anything is trained or even loaded."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional

from .checks import require_number, require_whole
from .layers import attach, unwrap
from .methods import Method

ADAM = 2  # moments for each trained number


@torch.enable_grad()
def training_memory(
    model: nn.Module,
    method: Method | None = None,
    *,
    batch_size: int,
    length: int,
    states: float = ADAM,
) -> dict[str, int]:
    """Bytes that a step of training holds, for a causal language model of transformers, with `method`
    attached, or as it is: with the adapters it has, or everything that requires a gradient.

    Returns {"frozen weights", "trained weights", "gradients", "optimizer", "activations"}. The first
    four are counted: a gradient is as large as its weight, the optimizer keeps `states` numbers for
    each (Adam's two moments; SGD none). activations: what one forward pass over (batch_size, length)
    tokens, some of them padding, with the loss of all of them, keeps for its backward pass, each storage once. All runs on
    shapes alone: the model stays as it is and may be on the meta device, without any weights. What
    comes and goes within a step (the backward's own intermediates, a kernel's workspace) and what an
    allocator holds back is not in it.

    Raises ValueError for a number out of range, or a model with nothing to train.
    """
    batch_size = require_whole("batch_size", batch_size, 1)
    length = require_whole("length", length, 2)
    require_number("states", states, "a number of at least 0", least=0)
    with FakeTensorMode(allow_non_fake_inputs=True):
        shadow = _shadow(unwrap(model)).train()
        if method is not None:
            attach(shadow, method)
        trained = [p for p in shadow.parameters() if p.requires_grad]
        if not trained:
            raise ValueError("model: nothing in it requires a gradient: name a method")
        trained_bytes = sum(p.nbytes for p in trained)
        fixed = [*(p for p in shadow.parameters() if not p.requires_grad), *shadow.buffers()]
        ids = torch.zeros(batch_size, length, dtype=torch.long)
        return {
            "frozen weights": sum(t.nbytes for t in fixed),
            "trained weights": trained_bytes,
            "gradients": trained_bytes,
            "optimizer": round(states * trained_bytes),
            "activations": kept_for_backward(shadow, ids, ids + 1),
        }


def kept_for_backward(model: nn.Module, ids: Tensor, mask: Tensor) -> int:
    """Bytes that a forward pass over token ids, masked where they are padding, both (batch, length), keeps for
    its backward pass: each storage once, parameters and buffers left out."""
    own = {t.untyped_storage()._cdata for t in [*model.parameters(), *model.buffers()]}
    kept: dict[int, torch.UntypedStorage] = {}  # held, so that no number is given twice

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = model(ids, attention_mask=mask, use_cache=False).logits
        functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten())
    return sum(storage.nbytes() for storage in kept.values())


def _shadow(model: nn.Module) -> nn.Module:
    """The model with tensors of the same shapes and no contents, under FakeTensorMode."""
    memo: dict[int, Tensor] = {}
    for tensor in [*model.parameters(), *model.buffers()]:
        empty = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
        if isinstance(tensor, nn.Parameter):
            empty = nn.Parameter(empty, requires_grad=tensor.requires_grad)
        memo[id(tensor)] = empty
    return copy.deepcopy(model, memo)
