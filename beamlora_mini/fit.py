"""`fit`: the whole of training on one screen."""

from __future__ import annotations

import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from . import checkpoint
from .batches import collate, device_of, digest, in_mode, plan_batches, tokenizer_of
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
    require_whole("steps", steps, 1)
    require_whole("batch_size", batch_size, 1)
    require_whole("checkpoint_every", checkpoint_every, 1)
    require_whole("seed", seed, 0)
    require(not resume or checkpoint_dir, "checkpoint_dir", checkpoint_dir, "a folder, to resume")
    tokenizer = tokenizer_of(model, tokenizer)
    rows = split_of(task, "train")
    torch.manual_seed(seed)
    batches = plan_batches(rows, tokenizer, steps, batch_size, seed)
    log = History()
    with attached(model, method):
        run = Run(
            model, steps=steps, lr=lr, betas=betas, weight_decay=weight_decay, warmup=warmup,
            max_grad_norm=max_grad_norm,
            settings={"batch_size": batch_size, "seed": seed, "rows": digest(batches)},
        )  # fmt: skip
        if resume:
            checkpoint.load(checkpoint_dir, run, log, history)
    if history is not None and run.n == 0:
        history.record(run.model, 0)

    with in_mode(model, train=True), progress_bar(steps, "fit", progress, initial=run.n) as bar:
        for examples in batches[run.n :]:
            started = time.perf_counter()
            batch = collate(examples, tokenizer.pad_token_id, device_of(model))
            loss = answer_loss(model, batch)
            (loss + run.loss()).backward()
            log.learning_rates.append(run.lr)
            events = run.update()
            log.events += events
            log.losses.append(loss.item())
            log.tokens += int(batch["attention_mask"].sum())
            log.seconds += time.perf_counter() - started
            if history is not None:
                history.record(run.model, run.n, events, log.losses[-1])
            bar.update()
            bar.set_postfix(loss=f"{log.losses[-1]:.3f}")
            if checkpoint_dir and (run.n % checkpoint_every == 0 or run.n == steps):
                checkpoint.save(checkpoint_dir, run, log, history)
    return log


@contextmanager
def attached(model: nn.Module, method: Method | None):
    """Attach a method that the model does not carry yet; take it off again if what follows can't
    begin."""
    attaching = method is not None and method != attached_method(model)
    if attaching:
        attach(model, method)
    try:
        yield
    except BaseException:
        if attaching:
            detach(model)
        raise
