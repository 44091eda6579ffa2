"""Measuring a model: exact match of its answers, and the loss of the right ones.

An example is a prompt and an answer; see `batches`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .batches import (
    Example,
    Room,
    collate,
    device_of,
    encode_examples,
    encode_prompts,
    in_mode,
    padding_id,
    tokenizer_of,
)
from .checks import require, require_whole
from .layers import unwrap
from .loss import answer_loss
from .machine import progress_bar
from .tasks import Task, split_of

if TYPE_CHECKING:
    from datasets import Dataset
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
    max_length: int | None = None,
    progress: bool = True,
) -> dict[str, float]:
    """Measure a model on a task's test split (its first `limit` rows).

    Returns {"exact_match": fraction of prompts whose greedy answer ends in the right result,
    "loss": mean cross-entropy of the right answers, in nats per token}. What counts as the result
    is said in `final_answer`. max_new_tokens: None for the length of the longest right answer;
    max_length as in `fit`. Whatever the model's generation_config says is not heard; see
    `generate_answers`.

    Raises ValueError for a setting out of range, a row that is no text or too long for the model,
    and a tokenizer without an end token.
    """
    limit = require_whole("limit", limit, 1, or_none=True)
    batch_size = require_whole("batch_size", batch_size, 1)
    most = require_whole("max_new_tokens", max_new_tokens, 1, or_none=True)
    tokenizer = tokenizer_of(model, tokenizer)
    rows = split_of(task, "test")
    rows = rows.select(range(min(limit or len(rows), len(rows))))
    room = Room.of(model)
    room.check_max_length(max_length)
    examples = encode_examples(tokenizer, rows, room, max_length)
    most = most or max(len(answer) for _, answer in examples)
    prompts = [prompt for prompt, _ in examples]
    answers = _generate(model, tokenizer, prompts, batch_size, most, room, progress)
    right = sum(is_right(given, wanted) for given, wanted in zip(answers, rows["answer"]))
    return {
        "exact_match": right / len(rows),
        "loss": _mean_loss(model, examples, padding_id(tokenizer, room), batch_size),
    }


def exam_batch(tokenizer: Tokenizer, rows: Dataset) -> dict[str, Tensor]:
    """Rows of prompts and answers as one batch on the CPU, for `accuracy`."""
    return collate(encode_examples(tokenizer, rows), padding_id(tokenizer, Room()), "cpu")


@torch.no_grad()
def accuracy(model: nn.Module, batch: Mapping[str, Tensor]) -> float:
    """The share of a batch's rows whose whole answer, end token included, is the likeliest: one
    forward pass, in the mode that the model is in. Whoever has said the right answer so far is asked
    for the next token, so that this is the exact match of greedy answers written as the tokenizer
    writes them.

    batch: input_ids, attention_mask and labels (rows, tokens), labels -100 where nothing is asked.
    """
    batch = {name: values.to(device_of(model)) for name, values in batch.items()}
    logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    said, wanted = logits[:, :-1].argmax(-1), batch["labels"][:, 1:]
    return ((said == wanted) | (wanted == -100)).all(1).float().mean().item()


@torch.no_grad()
def generate_answers(
    model: nn.Module,
    prompts: Sequence[str],
    *,
    tokenizer: Tokenizer | None = None,
    batch_size: int = 64,
    max_new_tokens: int = 64,
    max_length: int | None = None,
    progress: bool = True,
) -> list[str]:
    """The model's greedy answer to each prompt: the likeliest token, again and again, up to the
    tokenizer's end token, which is what `fit` teaches, to `max_new_tokens`, or to the model's last
    position.

    Nothing else has a say: not the penalties, beams, lengths and end tokens of the model's
    generation_config. max_length: a prompt loses its beginning where it and `max_new_tokens` are
    longer.

    Raises ValueError for a prompt that leaves the model no room for an answer.
    """
    batch_size = require_whole("batch_size", batch_size, 1)
    max_new_tokens = require_whole("max_new_tokens", max_new_tokens, 1)
    require(not isinstance(prompts, str), "prompts", prompts, "a list of texts")
    tokenizer, room = tokenizer_of(model, tokenizer), Room.of(model)
    room.check_max_length(max_length)
    encoded = encode_prompts(tokenizer, list(prompts))
    if max_length is not None:
        left = max_length - max_new_tokens
        allowed = f"a number below max_length={max_length}"
        require(left > 0, "max_new_tokens", max_new_tokens, allowed)
        encoded = [ids[-left:] for ids in encoded]
    return _generate(model, tokenizer, encoded, batch_size, max_new_tokens, room, progress)


def _generate(
    model: nn.Module,
    tokenizer: Tokenizer,
    encoded: list[list[int]],
    batch_size: int,
    max_new_tokens: int,
    room: Room,
    progress: bool,
) -> list[str]:
    for i, ids in enumerate(encoded):
        room.check(f"prompt {i} and a token after it", ids, 1)
    pad, end = padding_id(tokenizer, room), tokenizer.eos_token_id
    answers = [""] * len(encoded)
    with (
        in_mode(model, train=False),
        _greedy(unwrap(model), pad, end) as generate,
        progress_bar(len(encoded), "generate", progress) as bar,
    ):
        positions = room.positions or max(map(len, encoded), default=0) + max_new_tokens
        # Up to this length, a prompt has room for a whole answer behind it, whatever its neighbours.
        together = 0 if _keeps_a_state(model) else positions - max_new_tokens
        for chosen in _of_similar_length(encoded, batch_size, together):
            width = len(encoded[chosen[-1]])
            # Padding on the left, so that every prompt ends where its answer begins.
            ids = [[pad] * (width - len(encoded[i])) + encoded[i] for i in chosen]
            mask = [[0] * (width - len(encoded[i])) + [1] * len(encoded[i]) for i in chosen]
            out = generate(
                input_ids=torch.tensor(ids, device=device_of(model)),
                attention_mask=torch.tensor(mask, device=device_of(model)),
                max_new_tokens=min(max_new_tokens, positions - width),
            )
            for i, new in zip(chosen, out[:, width:].tolist()):
                answer = new[: new.index(end)] if end in new else new
                answers[i] = tokenizer.decode(answer, skip_special_tokens=True).strip()
            bar.update(len(chosen))
    return answers


def _of_similar_length(
    encoded: list[list[int]], batch_size: int, together: int
) -> Iterator[list[int]]:
    """The prompts' numbers in batches, short ones first. Lengths up to `together` share batches, longer
    prompts only those of their own length: their answers may depend on it."""

    def group(i: int) -> int:
        return max(len(encoded[i]), together)

    by_length = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
    for alike in (list(alike) for _, alike in groupby(by_length, key=group)):
        for start in range(0, len(alike), batch_size):
            yield alike[start : start + batch_size]


def _keeps_a_state(model: nn.Module) -> bool:
    """Whether it is recurrent, as transformers says: some of those do not mask padding out."""
    return bool(getattr(unwrap(model), "_is_stateful", False))


@contextmanager
def _greedy(model: Any, pad: int, end: int | None):
    """The model's `generate` with these settings alone; what the user has set is back afterwards.
    (What a call leaves open, transformers looks up in the model's generation_config.)"""
    from transformers import GenerationConfig

    users = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield partial(model.generate, do_sample=False, pad_token_id=pad, eos_token_id=end)
    finally:
        model.generation_config = users


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


def _mean_loss(model: nn.Module, examples: list[Example], pad: int, batch_size: int) -> float:
    by_length = sorted(examples, key=lambda e: len(e[0]) + len(e[1]))
    total = tokens = 0
    with in_mode(model, train=False):
        for start in range(0, len(by_length), batch_size):
            chosen = by_length[start : start + batch_size]
            count = sum(len(answer) for _, answer in chosen)
            batch = collate(chosen, pad, device_of(model))
            total += answer_loss(model, batch).item() * count
            tokens += count
    return total / tokens
