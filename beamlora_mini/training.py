"""Train and measure: `fit`, `evaluate`, and what they are made of.

An example is a prompt and an answer. The prompt goes through the tokenizer's chat template where it
has one; the loss is on the answer's tokens alone.
"""

from __future__ import annotations

import inspect
import random
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from datasets import Dataset, DatasetDict
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase as Tokenizer

from . import checkpoints
from .adapters import attach, attached_method, detach, trainable_parameters
from .history import RankHistory
from .machine import progress_bar
from .methods.base import Method, require
from .tasks import load_task

Task = str | Path | Dataset | DatasetDict
IGNORED = -100  # the label that cross-entropy leaves out
POOL = 16  # batches whose examples are sorted by length together


@dataclass
class History:
    """What a run of `fit` did, one entry a step: losses, learning rates, events of the method's
    schedule; and in total: seconds, tokens seen (padding not counted)."""

    losses: list[float] = field(default_factory=list)
    learning_rates: list[float] = field(default_factory=list)
    events: list = field(default_factory=list)
    seconds: float = 0.0
    tokens: int = 0

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0


def fit(
    model: nn.Module,
    task: Task,
    *,
    method: Method | None = None,
    steps: int,
    lr: float,
    batch_size: int = 16,
    tokenizer: Tokenizer | None = None,
    weight_decay: float = 0.0,
    betas: tuple[float, float] = (0.9, 0.999),
    warmup: float = 0.05,
    max_grad_norm: float = 1.0,
    seed: int = 0,
    history: RankHistory | None = None,
    progress: bool = True,
    checkpoint_dir: str | Path | None = None,
    checkpoint_every: int = 100,
    resume: bool = False,
) -> History:
    """Fine-tune a causal language model on a task's train split, in place.

    method: attached first, unless the model already carries it; without one, and without adapters,
    every parameter that requires a gradient is trained. AdamW; the learning rate rises linearly for
    the first `warmup` fraction of the steps and falls to zero along a cosine. Each step sees
    `batch_size` examples of similar length. The same seed gives the same run on one machine.
    history: records what every rank is worth, before the first step and along the way.

    checkpoint_dir: where the run is saved every `checkpoint_every` steps and at the end; with
    resume=True it goes on from there, as if it had not stopped.

    Raises ValueError for a setting out of range, a model with nothing to train, or a checkpoint of
    another model or run.
    """
    require(isinstance(steps, int) and steps >= 1, "steps", steps, "an integer of at least 1")
    require(
        isinstance(batch_size, int) and batch_size >= 1,
        "batch_size", batch_size, "an integer of at least 1",
    )  # fmt: skip
    require(lr > 0, "lr", lr, "a number above 0")
    require(0 <= warmup < 1, "warmup", warmup, "a fraction in [0, 1)")
    require(not resume or checkpoint_dir, "checkpoint_dir", checkpoint_dir, "a folder, to resume")
    tokenizer = _tokenizer_of(model, tokenizer)
    rows = _split(task, "train")
    torch.manual_seed(seed)
    batches = plan_batches(rows, tokenizer, steps, batch_size, seed)
    present = attached_method(model)
    attaching = method is not None and method != present
    if attaching:
        attach(model, method)
    method = method or present
    parameters = trainable_parameters(model)
    if not parameters:
        raise ValueError("model has no parameter that requires a gradient: attach a method first")

    plan = method or Method()  # without a method: one group, warm-up and cosine, no events
    record = History()
    settings = {"steps": steps, "lr": lr, "batch_size": batch_size, "seed": seed, "rows": len(rows)}
    settings["method"] = repr(method)
    try:
        optimizer = torch.optim.AdamW(
            plan.parameter_groups(parameters, lr),
            lr=lr, betas=betas, weight_decay=weight_decay, fused=True,
        )  # fmt: skip
        schedule = plan.schedule(model, optimizer, steps)  # first: it may add parameter groups
        rate = plan.lr_scheduler(optimizer, round(warmup * steps), steps)
        run = checkpoints.Run(model, optimizer, rate, schedule, record, history)
        done = checkpoints.load(checkpoint_dir, run, settings) if resume else 0
    except ValueError:
        if attaching:
            detach(model)
        raise

    if history is not None and not done:
        history.record(model, 0)
    was_training = model.training
    model.train()
    bar = progress_bar(steps, "fit", progress, initial=done)
    for n in range(done + 1, steps + 1):
        started = time.perf_counter()
        batch = collate(batches[n - 1], tokenizer.pad_token_id, model.device)
        loss = answer_loss(model, batch)
        (loss + schedule.loss()).backward()
        nn.utils.clip_grad_norm_(
            [p for group in optimizer.param_groups for p in group["params"]], max_grad_norm
        )
        record.learning_rates.append(rate.get_last_lr()[0])
        optimizer.step()
        rate.step()
        events = schedule.step(n)
        record.events += events
        optimizer.zero_grad()
        record.losses.append(loss.item())
        record.tokens += int(batch["attention_mask"].sum())
        record.seconds += time.perf_counter() - started
        if history is not None:
            history.record(model, n, events, record.losses[-1])
        bar.update()
        bar.set_postfix(loss=f"{record.losses[-1]:.3f}")
        if checkpoint_dir and (n % checkpoint_every == 0 or n == steps):
            checkpoints.save(checkpoint_dir, run, settings, n)
    bar.close()
    model.train(was_training)
    return record


def answer_loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Mean cross-entropy, in nats per token, over the tokens whose label is not -100.

    batch: input_ids, attention_mask and labels, each (batch, length); the label at a position is
    that position's own token.
    """
    losses, counted = token_losses(model, batch)
    return losses.sum() / counted.sum()


def token_losses(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Cross-entropy of each label of the last positions, 0 where the label is -100, and a mask of
    the others; both (batch, positions).

    Logits are computed from the first answer in the batch on: a vocabulary of 50,000 makes them a
    good part of a small model's work.
    """
    labels = batch["labels"]
    first = max(1, int((labels != IGNORED).any(0).nonzero()[0]))  # nothing predicts position 0
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    wanted = torch.arange(first - 1, labels.shape[1] - 1, device=labels.device)
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        logits = model(**inputs, logits_to_keep=wanted, use_cache=False).logits
    else:
        logits = model(**inputs, use_cache=False).logits[:, wanted]
    wanted_ids = labels[:, first:]
    losses = F.cross_entropy(
        logits.float().transpose(1, 2), wanted_ids, ignore_index=IGNORED, reduction="none"
    )
    return losses, wanted_ids != IGNORED


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
    require(limit is None or limit >= 1, "limit", limit, "None or an integer of at least 1")
    tokenizer = _tokenizer_of(model, tokenizer)
    rows = _split(task, "test")
    rows = rows.select(range(min(limit or len(rows), len(rows))))
    max_new_tokens = max_new_tokens or longest_answer(tokenizer, rows)
    answers = generate_answers(
        model, rows["prompt"], tokenizer=tokenizer, batch_size=batch_size,
        max_new_tokens=max_new_tokens, progress=progress,
    )  # fmt: skip
    right = sum(is_right(given, wanted) for given, wanted in zip(answers, rows["answer"]))
    return {"exact_match": right / len(rows), "loss": _loss_on(model, rows, tokenizer, batch_size)}


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
    tokenizer = _tokenizer_of(model, tokenizer)
    encoded = encode_prompts(tokenizer, prompts)
    by_length = sorted(range(len(prompts)), key=lambda i: len(encoded[i]))
    answers = [""] * len(prompts)
    was_training = model.training
    model.eval()
    bar = progress_bar(len(prompts), "generate", progress)
    for start in range(0, len(prompts), batch_size):
        chosen = by_length[start : start + batch_size]
        width = len(encoded[chosen[-1]])
        # Padding on the left, so that every prompt ends where its answer begins.
        ids = [[tokenizer.pad_token_id] * (width - len(encoded[i])) + encoded[i] for i in chosen]
        mask = [[0] * (width - len(encoded[i])) + [1] * len(encoded[i]) for i in chosen]
        out = model.generate(
            input_ids=torch.tensor(ids, device=model.device),
            attention_mask=torch.tensor(mask, device=model.device),
            max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
        texts = tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)
        for i, text in zip(chosen, texts):
            answers[i] = text.strip()
        bar.update(len(chosen))
    bar.close()
    model.train(was_training)
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


def longest_answer(tokenizer: Tokenizer, rows: Dataset) -> int:
    return max(len(ids) for ids in encode_answers(tokenizer, rows["answer"]))


def plan_batches(
    rows: Dataset, tokenizer: Tokenizer, steps: int, batch_size: int, seed: int
) -> list[list[tuple[list[int], list[int]]]]:
    """The (prompt ids, answer ids) of every step's batch: shuffled epochs of the rows, batches of
    similar length, drawn in random order so that length is no curriculum."""
    shuffle = random.Random(seed)
    order: list[int] = []
    while len(order) < steps * batch_size:
        order += shuffle.sample(range(len(rows)), len(rows))
    order = order[: steps * batch_size]
    used = sorted(set(order))
    chosen = rows.select(used)
    prompts = encode_prompts(tokenizer, chosen["prompt"])
    answers = encode_answers(tokenizer, chosen["answer"])
    examples = dict(zip(used, zip(prompts, answers)))
    batches = []
    for start in range(0, len(order), POOL * batch_size):
        pool = [examples[i] for i in order[start : start + POOL * batch_size]]
        pool.sort(key=lambda example: len(example[0]) + len(example[1]))
        sliced = [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
        batches += shuffle.sample(sliced, len(sliced))
    return batches


def collate(
    examples: list[tuple[list[int], list[int]]], pad_id: int, device: torch.device
) -> dict[str, Tensor]:
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


def _loss_on(model: nn.Module, rows: Dataset, tokenizer: Tokenizer, batch_size: int) -> float:
    prompts = encode_prompts(tokenizer, rows["prompt"])
    answers = encode_answers(tokenizer, rows["answer"])
    examples = sorted(zip(prompts, answers), key=lambda e: len(e[0]) + len(e[1]))
    was_training = model.training
    model.eval()
    total = tokens = 0
    for start in range(0, len(examples), batch_size):
        chosen = examples[start : start + batch_size]
        count = sum(len(answer) for _, answer in chosen)
        batch = collate(chosen, tokenizer.pad_token_id, model.device)
        total += answer_loss(model, batch).item() * count
        tokens += count
    model.train(was_training)
    return total / tokens


def _tokenizer_of(model: nn.Module, tokenizer: Tokenizer | None) -> Tokenizer:
    tokenizer = tokenizer or getattr(model, "tokenizer", None)
    if tokenizer is None:
        raise ValueError("tokenizer=None: the model carries none; load it with load_model, or pass")
    return tokenizer


def _split(task: Task, split: str) -> Dataset:
    """A task's named split; a Dataset is its own split."""
    task = load_task(task) if isinstance(task, str | Path) else task
    rows = task[split] if isinstance(task, DatasetDict) else task
    if not isinstance(rows, Dataset) or not {"prompt", "answer"} <= set(rows.column_names):
        raise ValueError(
            f"task={type(task).__name__}: allowed is a task's name, a Dataset with the columns "
            f"prompt and answer, or a DatasetDict of them with the split {split!r}"
        )
    if len(rows) == 0:
        raise ValueError(f"task: its {split!r} split is empty")
    return rows
