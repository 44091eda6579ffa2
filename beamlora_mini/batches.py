"""From rows of prompts and answers to the batches of a run.

The prompt goes through the tokenizer's chat template where it has one.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .checks import is_unicode, require, require_whole
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
    """Training or evaluation mode, and afterwards the mode that each module had."""
    modes = [(module, module.training) for module in model.modules()]
    model.train(train)
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@dataclass(frozen=True)
class Room:
    """How long a sequence a model takes and how many token ids it knows; None where it sets no
    limit."""

    positions: int | None = None
    vocabulary: int | None = None

    @classmethod
    def of(cls, model: nn.Module) -> Room:
        inner: Any = unwrap(model)
        config = getattr(inner, "config", None)
        text = config.get_text_config() if hasattr(config, "get_text_config") else config
        embeddings = getattr(inner, "get_input_embeddings", lambda: None)()
        positions = getattr(text, "max_position_embeddings", None) or 0
        for name, module in inner.named_modules():  # RoBERTa's begin after the padding's
            if (
                name.endswith("position_embeddings")
                and getattr(module, "padding_idx", None) is not None
            ):
                positions -= module.padding_idx + 1
        return cls(
            positions if positions > 0 else None,  # some configs say -1 for no limit
            getattr(embeddings, "num_embeddings", None),
        )

    def check(self, where: str, ids: list[int], more: int = 0) -> None:
        """ValueError, beginning with `where`, unless ids and `more` tokens after them fit."""
        if self.positions is not None and len(ids) + more > self.positions:
            raise ValueError(
                f"{where}: {len(ids) + more} tokens: allowed are {self.positions}, the model's "
                f"positions; shorten it, or truncate with max_length={self.positions}"
            )
        if self.vocabulary is not None and ids and max(ids) >= self.vocabulary:
            raise ValueError(
                f"{where}: token id {max(ids)}: allowed are ids below {self.vocabulary}, the model's "
                "vocabulary; resize_token_embeddings, or use the model's own tokenizer"
            )

    def check_max_length(self, max_length: int | None) -> None:
        require_whole("max_length", max_length, 2, or_none=True)
        if max_length is not None and self.positions is not None:
            allowed = f"at most {self.positions}, the model's positions"
            require(max_length <= self.positions, "max_length", max_length, allowed)


def padding_id(tokenizer: Tokenizer, room: Room) -> int:
    """The token that fills rows up. Which it is changes nothing, since it is masked everywhere; so
    another will do where there is none, or the model does not know it."""
    tokens = [tokenizer.pad_token_id, tokenizer.eos_token_id]
    known = [t for t in tokens if t is not None and not (room.vocabulary and t >= room.vocabulary)]
    return known[0] if known else 0


def end_id(tokenizer: Tokenizer) -> int:
    """The token that ends an answer."""
    if tokenizer.eos_token_id is None:
        raise ValueError(
            "tokenizer: eos_token=None: allowed is one with an end token, which ends every answer; "
            "set tokenizer.eos_token to a token of its vocabulary"
        )
    return tokenizer.eos_token_id


def encode_prompts(
    tokenizer: Tokenizer, prompts: Sequence[str], numbers: Sequence[int] | None = None
) -> list[list[int]]:
    """Token ids of each prompt, ready for the answer to follow: what a tokenizer puts in front is
    there, what it puts at an end is not. An empty prompt becomes the token that starts a text.

    ValueError for a prompt that is no text, with its row's number (`numbers`, if the rows have
    others than 0, 1, ...)."""
    numbers = numbers or range(len(prompts))
    _require_texts("prompt", prompts, numbers)
    if tokenizer.chat_template is not None:
        chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
        texts = tokenizer.apply_chat_template(chats, add_generation_prompt=True, tokenize=False)
        return tokenizer(texts, add_special_tokens=False)["input_ids"]
    encoded = tokenizer(list(prompts), add_special_tokens=False)["input_ids"] if prompts else []
    some = next((i for i, ids in enumerate(encoded) if ids), None)
    if some is not None:
        in_front = _put_in_front(tokenizer, prompts[some], encoded[some])
        encoded = [in_front + ids for ids in encoded]
    if not all(encoded):
        starts = (tokenizer.bos_token_id, tokenizer.eos_token_id)
        start = next((token for token in starts if token is not None), None)
        if start is None:
            raise ValueError(
                f"prompt of row {numbers[encoded.index([])]}: it is empty, and the tokenizer has no token that "
                "starts or ends a text: allowed is a prompt of at least one token"
            )
        encoded = [ids or [start] for ids in encoded]
    return encoded


def _put_in_front(tokenizer: Tokenizer, text: str, bare: list[int]) -> list[int]:
    """The tokens that a tokenizer of its own accord puts before `text`, whose ids are `bare`."""
    dressed = tokenizer(text)["input_ids"]
    starts = range(len(dressed) - len(bare) + 1)
    return next((dressed[:i] for i in starts if dressed[i : i + len(bare)] == bare), [])


def encode_answers(
    tokenizer: Tokenizer, answers: Sequence[str], numbers: Sequence[int] | None = None
) -> list[list[int]]:
    """Token ids of each answer, the end of the text included. ValueError for an answer that is no
    text, and for a tokenizer without an end token."""
    _require_texts("answer", answers, numbers or range(len(answers)))
    end = end_id(tokenizer)
    encoded = tokenizer(list(answers), add_special_tokens=False)["input_ids"]
    return [[*ids, end] for ids in encoded]


def _require_texts(column: str, texts: Sequence[str], numbers: Sequence[int]) -> None:
    for row, text in zip(numbers, texts):
        valid = isinstance(text, str) and is_unicode(text)
        require(valid, f"{column} of row {row}", text, "a text (without lone surrogates)")


def encode_examples(
    tokenizer: Tokenizer,
    rows: Dataset,
    room: Room = Room(),
    max_length: int | None = None,
    numbers: Sequence[int] | None = None,
) -> list[Example]:
    """(prompt ids, answer ids) of every row. max_length: longer rows lose the beginning of the prompt,
    and the end of an answer that is itself too long. ValueError, with the row's number (`numbers`,
    if the rows have others), for one that does not fit in `room`."""
    prompts = encode_prompts(tokenizer, rows["prompt"], numbers)
    answers = encode_answers(tokenizer, rows["answer"], numbers)
    if max_length is not None:
        answers = [answer[: max_length - 1] for answer in answers]
        prompts = [p[-(max_length - len(a)) :] for p, a in zip(prompts, answers)]
    for number, prompt, answer in zip(numbers or range(len(rows)), prompts, answers):
        room.check(f"row {number}", prompt + answer)
    return list(zip(prompts, answers))


def plan_batches(
    rows: Dataset,
    tokenizer: Tokenizer,
    steps: int,
    batch_size: int,
    seed: int,
    room: Room = Room(),
    max_length: int | None = None,
) -> list[list[Example]]:
    """The examples of every step's batch: shuffled epochs of the rows, batches of similar length,
    drawn in random order so that length is no curriculum. room, max_length: see `encode_examples`."""
    shuffle = random.Random(seed)
    order: list[int] = []
    while len(order) < steps * batch_size:
        order += shuffle.sample(range(len(rows)), len(rows))
    order = order[: steps * batch_size]
    used = sorted(set(order))
    encoded = encode_examples(tokenizer, rows.select(used), room, max_length, used)
    examples = dict(zip(used, encoded))
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
