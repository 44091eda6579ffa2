"""The loss of a causal language model on answers alone."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .batches import IGNORED
from .layers import unwrap


def answer_loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Mean cross-entropy, in nats per token, over the tokens whose label is not -100.

    batch: input_ids, attention_mask and labels, each (batch, length); the label at a position is
    that position's own token. Without any such label it is 0.
    """
    losses, counted = token_losses(model, batch)
    return losses.sum() / counted.sum().clamp(min=1)


def token_losses(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Cross-entropy of each label of the last positions, 0 where the label is -100, and a mask of
    the others; both (batch, positions).

    Logits are computed from the first answer in the batch on: a vocabulary of 50,000 makes them a
    good part of a small model's work.
    """
    labels = batch["labels"]
    answered = (labels != IGNORED).any(0).nonzero().flatten().tolist()
    first = max(1, answered[0]) if answered else labels.shape[1]  # nothing predicts position 0
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    wanted = torch.arange(first - 1, labels.shape[1] - 1, device=labels.device)
    if "logits_to_keep" in inspect.signature(unwrap(model).forward).parameters:
        logits = model(**inputs, logits_to_keep=wanted, use_cache=False).logits
    else:
        logits = model(**inputs, use_cache=False).logits[:, wanted]
    wanted_ids = labels[:, first:]
    losses = F.cross_entropy(
        logits.float().flatten(0, 1), wanted_ids.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return losses.view(wanted_ids.shape), wanted_ids != IGNORED
