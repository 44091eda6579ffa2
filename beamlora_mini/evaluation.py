"""Measuring a model: exact match of its answers, and the loss of the right ones.

An example is a prompt and an answer; see `batches`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch
from torch import nn

from .batches import (
    Example,
    collate,
    device_of,
    encode_examples,
    encode_prompts,
    in_mode,
    tokenizer_of,
)
from .checks import require_whole
from .layers import unwrap
from .loss import answer_loss
from .machine import progress_bar
from .tasks import Task, split_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer


@torch.no_grad()
def evaluate(
    model: nn.Module,
    task: Task,
    *,
    tokenizer: Tokenizer | None = None,
    limit: int | None = None,
    batch_size: int = 64,
    max_new_tokens: int | None = None,
    progress: bool = True,
) -> dict[str, float]:
    """Measure a model on a task's test split (its first `limit` rows).

    Returns {"exact_match": fraction of prompts whose greedy answer ends in the right result,
    "loss": mean cross-entropy of the right answers, in nats per token}. What counts as the result
    is said in `final_answer`; max_new_tokens as in `generate_answers`.
    """
    require_whole("limit", limit, 1, or_none=True)
    tokenizer = tokenizer_of(model, tokenizer)
    rows = split_of(task, "test")
    rows = rows.select(range(min(limit or len(rows), len(rows))))
    examples = encode_examples(tokenizer, rows)
    max_new_tokens = max_new_tokens or max(len(answer) for _, answer in examples)
    answers = generate_answers(
        model, rows["prompt"], tokenizer=tokenizer, batch_size=batch_size,
        max_new_tokens=max_new_tokens, progress=progress,
    )  # fmt: skip
    right = sum(is_right(given, wanted) for given, wanted in zip(answers, rows["answer"]))
    return {
        "exact_match": right / len(rows),
        "loss": _mean_loss(model, examples, tokenizer, batch_size),
    }


@torch.no_grad()
def generate_answers(
    model: nn.Module,
    prompts: list[str],
    *,
    tokenizer: Tokenizer | None = None,
    batch_size: int = 64,
    max_new_tokens: int = 64,
    progress: bool = True,
) -> list[str]:
    """The model's greedy answer to each prompt, of at most `max_new_tokens` tokens."""
    tokenizer = tokenizer_of(model, tokenizer)
    encoded = encode_prompts(tokenizer, prompts)
    by_length = sorted(range(len(prompts)), key=lambda i: len(encoded[i]))
    answers = [""] * len(prompts)
    with in_mode(model, train=False), progress_bar(len(prompts), "generate", progress) as bar:
        for start in range(0, len(prompts), batch_size):
            chosen = by_length[start : start + batch_size]
            width = len(encoded[chosen[-1]])
            # Padding on the left, so that every prompt ends where its answer begins.
            ids = [
                [tokenizer.pad_token_id] * (width - len(encoded[i])) + encoded[i] for i in chosen
            ]
            mask = [[0] * (width - len(encoded[i])) + [1] * len(encoded[i]) for i in chosen]
            out = unwrap(model).generate(
                input_ids=torch.tensor(ids, device=device_of(model)),
                attention_mask=torch.tensor(mask, device=device_of(model)),
                max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id,
            )  # fmt: skip
            texts = tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)
            for i, text in zip(chosen, texts):
                answers[i] = text.strip()
            bar.update(len(chosen))
    return answers


def final_answer(text: str) -> str | None:
    """The result that a worked answer arrives at: what follows "####"; without that mark, the last
    number in it; None if there is neither."""
    _, mark, tail = text.rpartition("####")
    numbers = re.findall(r"-?\d[\d,]*(?:\.\d+)?", tail if mark else text)
    if not numbers:
        return None
    number = (numbers[0] if mark else numbers[-1]).replace(",", "")
    return number.rstrip("0").rstrip(".") if "." in number else number


def is_right(given: str, wanted: str) -> bool:
    """Whether an answer is right: the same final answer where the wanted text is a worked one
    (it has "####"), else the same text."""
    if "####" in wanted:
        return final_answer(given) == final_answer(wanted)
    return given.strip() == wanted.strip()


def _mean_loss(
    model: nn.Module, examples: list[Example], tokenizer: Tokenizer, batch_size: int
) -> float:
    by_length = sorted(examples, key=lambda e: len(e[0]) + len(e[1]))
    total = tokens = 0
    with in_mode(model, train=False):
        for start in range(0, len(by_length), batch_size):
            chosen = by_length[start : start + batch_size]
            count = sum(len(answer) for _, answer in chosen)
            batch = collate(chosen, tokenizer.pad_token_id, device_of(model))
            total += answer_loss(model, batch).item() * count
            tokens += count
    return total / tokens
