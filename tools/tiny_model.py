"""The tiny model: its tokenizer, its shape, and how it is pre-trained."""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch
from datasets import Dataset
from tiny_tasks import (
    CHARACTERS,
    FINE_TUNING_TASKS,
    Problem,
    make_pretraining_problems,
    make_splits,
)
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from beamlora_mini import evaluate, fit

TRAIN_ROWS = 256_000
STEPS = 3200
BATCH_SIZE = 128
LEARNING_RATE = 3e-3
HELD_OUT = 500  # prompts of each pre-training task that training never sees
PAD, EOS, UNKNOWN = "<pad>", "<eos>", "<unk>"


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token for each character; any character outside the alphabet is `<unk>`."""
    vocabulary = {token: i for i, token in enumerate([PAD, EOS, UNKNOWN, *CHARACTERS])}
    characters = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    characters.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    characters.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=characters,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNKNOWN,
        clean_up_tokenization_spaces=False,
    )


def make_model(tokenizer: PreTrainedTokenizerFast, seed: int = 0) -> LlamaForCausalLM:
    """An untrained Llama of 0.8 M parameters for sequences of up to 128 characters."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=128,
        rope_theta=1000.0,
        initializer_range=0.08,  # about 1/sqrt(width), where the usual 0.02 starts slowly
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    return LlamaForCausalLM(config)


def to_dataset(problems: list[Problem]) -> Dataset:
    prompts, answers = zip(*problems, strict=True)
    return Dataset.from_dict({"prompt": prompts, "answer": answers})


def build_tiny(folder: Path) -> None:
    """Pre-train the tiny model, measure it and save all of it in `folder`.

    The same seed gives the same weights on one machine only: sums of floats depend on the
    processor and on the number of threads.
    """
    train, held_out = make_pretraining_problems(TRAIN_ROWS, HELD_OUT)
    tokenizer = make_tokenizer()
    model = make_model(tokenizer)
    started = time.perf_counter()
    fit(
        model,
        to_dataset(train),
        tokenizer=tokenizer,
        steps=STEPS,
        lr=LEARNING_RATE,
        batch_size=BATCH_SIZE,
        betas=(0.9, 0.98),
        weight_decay=0.05,
    )
    minutes = (time.perf_counter() - started) / 60
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)

    def exact_match(problems: list[Problem]) -> float:
        rows = to_dataset(problems)
        return evaluate(model, rows, tokenizer=tokenizer, progress=False)["exact_match"]

    metrics = {
        "parameters": model.num_parameters(),
        "pretraining_steps": STEPS,
        "pretraining_minutes": round(minutes, 1),
        "prompts_per_task": HELD_OUT,
        "pretraining_tasks": {task: exact_match(rows) for task, rows in held_out.items()},
        "fine_tuning_tasks": {
            task: exact_match(make_splits(task)[1]) for task in FINE_TUNING_TASKS
        },
    }
    text = json.dumps(metrics, indent=2) + "\n"
    (folder / "metrics.json").write_text(text, encoding="utf-8", newline="\n")
    print(text)
