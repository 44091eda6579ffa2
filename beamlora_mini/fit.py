"""`fit`: the whole of training on one screen."""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from . import checkpoint
from .batches import (
    Room,
    collate,
    device_of,
    digest,
    in_mode,
    padding_id,
    plan_batches,
    tokenizer_of,
)
from .checks import require, require_whole
from .history import History, RankHistory
from .layers import attach, attached_method, detach
from .loss import answer_loss
from .machine import progress_bar
from .methods import Method
from .run import Run
from .tasks import Task, split_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer


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
    max_grad_norm: float | None = 1.0,
    seed: int = 0,
    history: RankHistory | None = None,
    progress: bool = True,
    checkpoint_dir: str | Path | None = None,
    checkpoint_every: int = 100,
    resume: bool = False,
    max_length: int | None = None,
) -> History:
    """Fine-tune a causal language model on a task's train split, in place.

    method: attached first, unless the model already carries it; without one, and without adapters,
    every parameter that requires a gradient is trained. AdamW; the learning rate rises linearly for
    the first `warmup` fraction of the steps and falls to zero along a cosine. Each step sees
    `batch_size` examples of similar length. The same seed gives the same run on one machine.
    history: records what every rank is worth, before the first step and along the way. max_length:
    rows of more tokens lose the beginning of their prompt (an answer longer than that, its end).

    checkpoint_dir: where the run is saved every `checkpoint_every` steps and at the end; with
    resume=True it goes on from there, as if it had not stopped.

    Raises ValueError for a setting out of range, a row that is no text or too long for the model, a
    tokenizer without an end token, a model with nothing to train, or a checkpoint of another model
    or run; FloatingPointError where the loss is not finite. What raises before the first step is done
    leaves the model as it was.
    """
    steps = require_whole("steps", steps, 1)
    batch_size = require_whole("batch_size", batch_size, 1)
    checkpoint_every = require_whole("checkpoint_every", checkpoint_every, 1)
    seed = require_whole("seed", seed, 0)
    require(not resume or checkpoint_dir, "checkpoint_dir", checkpoint_dir, "a folder, to resume")
    recorded = history is None or isinstance(history, RankHistory)
    require(recorded, "history", history, "None or a RankHistory")
    tokenizer, room = tokenizer_of(model, tokenizer), Room.of(model)
    room.check_max_length(max_length)
    rows = split_of(task, "train")
    torch.manual_seed(seed)
    batches = plan_batches(rows, tokenizer, steps, batch_size, seed, room, max_length)
    pad = padding_id(tokenizer, room)
    log = History()
    with attached(model, method, log):
        run = Run(
            model, steps=steps, lr=lr, betas=betas, weight_decay=weight_decay, warmup=warmup,
            max_grad_norm=max_grad_norm,
            settings={"batch_size": batch_size, "seed": seed, "rows": digest(batches)},
        )  # fmt: skip
        if resume:
            checkpoint.load(checkpoint_dir, run, log, history)

        with in_mode(model, train=True), progress_bar(steps, "fit", progress, run.n) as bar:
            for examples in batches[run.n :]:
                started = time.perf_counter()
                batch = collate(examples, pad, device_of(model))
                loss = answer_loss(model, batch)
                total = loss + run.loss()
                if not math.isfinite(total.item()):
                    raise FloatingPointError(
                        _diverged(run, total, tokenizer.decode(examples[0][0]))
                    )
                total.backward()
                if history is not None and run.n == 0:
                    history.record(run.model, 0)
                value = loss.item()
                rate, events = run.lr, run.update()
                log.add(value, rate, events, int(batch["attention_mask"].sum()))
                log.seconds += time.perf_counter() - started
                if history is not None:
                    history.record(run.model, run.n, events, value, run.schedule.before)
                bar.update()
                bar.set_postfix(loss=f"{value:.3f}")
                if checkpoint_dir and (run.n % checkpoint_every == 0 or run.n == steps):
                    checkpoint.save(checkpoint_dir, run, log, history)
    return log


def _diverged(run: Run, loss: Tensor, prompt: str) -> str:
    return (
        f"step {run.n + 1}: the loss is {loss.item()} on the batch whose first prompt is {prompt[:60]!r}; the "
        f"weights are those after step {run.n}. Lower lr={run.settings['lr']:g}, lengthen the warmup, "
        "or compute in a wider dtype (float16 overflows where bfloat16 and float32 do not)"
    )


@contextmanager
def attached(model: nn.Module, method: Method | None, log: History):
    """Attach a method that the model does not carry yet; take it off again if not one step comes to
    its end."""
    attaching = method is not None and method != attached_method(model)
    if attaching:
        attach(model, method)
    try:
        yield
    except BaseException:
        model.zero_grad()  # half a step's gradients, perhaps not finite, are nobody's
        if attaching and not log.losses:
            detach(model)
        raise
