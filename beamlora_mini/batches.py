"""From rows of prompts and answers to the batches of a run.

The prompt goes through the tokenizer's chat template where it has one.
"""

from __future__ import annotations

import hashlib
import json
import random
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .layers import unwrap

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase as Tokenizer

IGNORED = -100  # the label that cross-entropy leaves out
POOL = 16  # batches whose examples are sorted by length together
Example = tuple[list[int], list[int]]  # token ids of the prompt and of the answer


def tokenizer_of(model: nn.Module, tokenizer: Tokenizer | None = None) -> Tokenizer:
    """The tokenizer given, else the one that the model carries."""
    tokenizer = tokenizer or getattr(unwrap(model), "tokenizer", None)
    if tokenizer is None:
        raise ValueError("tokenizer=None: the model carries none; load it with load_model, or pass")
    return tokenizer


def device_of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


@contextmanager
def in_mode(model: nn.Module, train: bool):
    """Training or evaluation mode, and afterwards the mode that there was."""
    was_training = model.training
    model.train(train)
    try:
        yield
    finally:
        model.train(was_training)


def encode_prompts(tokenizer: Tokenizer, prompts: list[str]) -> list[list[int]]:
    """Token ids of each prompt, ready for the answer to follow."""
    if tokenizer.chat_template is None:
        return tokenizer(list(prompts))["input_ids"]
    chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
    texts = tokenizer.apply_chat_template(chats, add_generation_prompt=True, tokenize=False)
    return tokenizer(texts, add_special_tokens=False)["input_ids"]


def encode_answers(tokenizer: Tokenizer, answers: list[str]) -> list[list[int]]:
    """Token ids of each answer, the end of the text included."""
    encoded = tokenizer(list(answers), add_special_tokens=False)["input_ids"]
    return [ids + [tokenizer.eos_token_id] for ids in encoded]


def encode_examples(tokenizer: Tokenizer, rows: Dataset) -> list[Example]:
    """(prompt ids, answer ids) of every row."""
    prompts = encode_prompts(tokenizer, rows["prompt"])
    return list(zip(prompts, encode_answers(tokenizer, rows["answer"])))


def plan_batches(
    rows: Dataset, tokenizer: Tokenizer, steps: int, batch_size: int, seed: int
) -> list[list[Example]]:
    """The examples of every step's batch: shuffled epochs of the rows, batches of similar length,
    drawn in random order so that length is no curriculum."""
    shuffle = random.Random(seed)
    order: list[int] = []
    while len(order) < steps * batch_size:
        order += shuffle.sample(range(len(rows)), len(rows))
    order = order[: steps * batch_size]
    used = sorted(set(order))
    examples = dict(zip(used, encode_examples(tokenizer, rows.select(used))))
    batches = []
    for start in range(0, len(order), POOL * batch_size):
        pool = [examples[i] for i in order[start : start + POOL * batch_size]]
        pool.sort(key=lambda example: len(example[0]) + len(example[1]))
        sliced = [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
        batches += shuffle.sample(sliced, len(sliced))
    return batches


def digest(batches: list[list[Example]]) -> str:
    """What tells one run's rows, in their order and as token ids, from another's."""
    return hashlib.sha256(json.dumps(batches).encode()).hexdigest()[:16]


def collate(examples: list[Example], pad_id: int, device: torch.device | str) -> dict[str, Tensor]:
    """Pad examples on the right into input_ids, attention_mask and labels, each (batch, length)
    int64; labels are -100 outside the answers."""
    width = max(len(prompt) + len(answer) for prompt, answer in examples)
    ids = torch.full((len(examples), width), pad_id)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
    for i, (prompt, answer) in enumerate(examples):
        end = len(prompt) + len(answer)
        ids[i, :end] = torch.tensor(prompt + answer)
        mask[i, :end] = 1
        labels[i, len(prompt) : end] = torch.tensor(answer)
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    return {name: tensor.to(device) for name, tensor in batch.items()}
