"""Which rows a step sees, and what of them the model is given."""

import copy
from collections import Counter

import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from tokenizers.processors import TemplateProcessing
from torch import nn
from transformers import (
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForCausalLM,
    XLNetConfig,
    XLNetLMHeadModel,
)

import beamlora_mini as bl
from beamlora_mini.batches import Room, encode_examples, encode_prompts, in_mode, plan_batches
from beamlora_mini.evaluation import generate_answers
from beamlora_mini.many import Trial, fit_many
from tests.helpers import RUN, adapter_state, equal


def rows(*pairs):
    prompts, answers = zip(*pairs)
    return Dataset.from_dict({"prompt": prompts, "answer": answers})


@pytest.fixture
def tokenizer(loaded_tiny):
    return copy.deepcopy(loaded_tiny[1])


def test_batches_cover_every_row_once_an_epoch_and_are_of_similar_length(tiny):
    _, tokenizer = tiny
    many = Dataset.from_dict(
        {
            "prompt": ["a" * (1 + i % 13) + "=" for i in range(96)],
            "answer": [str(i) for i in range(96)],
        }
    )
    batches = plan_batches(many, tokenizer, steps=24, batch_size=8, seed=0)
    assert len(batches) == 24 and all(len(batch) == 8 for batch in batches)
    seen = Counter(tokenizer.decode(answer[:-1]) for batch in batches for _, answer in batch)
    assert seen == dict.fromkeys(many["answer"], 2)  # two epochs
    spread = [max(map(len, p)) - min(map(len, p)) for p in ([e[0] for e in b] for b in batches)]
    assert sum(spread) / len(spread) <= 2
    lengths = [len(batch[0][0]) for batch in batches[:12]]
    assert lengths != sorted(lengths)  # length is no curriculum
    assert batches == plan_batches(many, tokenizer, steps=24, batch_size=8, seed=0)


def test_chat_models_get_their_template(smollm2):
    _, tokenizer = smollm2
    text = tokenizer.decode(encode_prompts(tokenizer, ["What is 2 + 3?"])[0])
    assert text.endswith("<|im_start|>user\nWhat is 2 + 3?<|im_end|>\n<|im_start|>assistant\n")


# --- tokenizers of all kinds ---


@pytest.mark.parametrize(
    ("template", "in_front"),
    [("$A <eos>", []), ("<unk> $A", [2]), ("<unk> $A <eos>", [2]), ("<unk> <unk> $A <eos> <eos>", [2, 2])],
)  # fmt: skip
def test_what_a_tokenizer_puts_at_the_end_does_not_come_between(tokenizer, template, in_front):
    bare = tokenizer(["12-3=", "4", "="])["input_ids"]
    special = [("<eos>", 1), ("<unk>", 2)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=template, special_tokens=special
    )
    assert tokenizer("4")["input_ids"] != bare[1]
    assert encode_prompts(tokenizer, ["12-3=", "4", "="]) == [in_front + ids for ids in bare]
    ((prompt, answer),) = encode_examples(tokenizer, rows(("12-3=", "9")))
    assert prompt == in_front + bare[0] and answer[1:] == [1]


def test_a_vocabulary_of_digits_has_its_start_too():
    plain = Tokenizer(WordLevel({"<s>": 0, "1": 1, "2": 2}))
    plain.pre_tokenizer = Split("", "isolated")
    plain.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, bos_token="<s>")
    assert encode_prompts(tokenizer, ["", "12", "2"]) == [[0], [0, 1, 2], [0, 2]]


def test_without_a_padding_token_all_is_the_same(tiny, task, tokenizer):
    lacking = copy.deepcopy(tokenizer)
    lacking.pad_token = None
    beyond = copy.deepcopy(tokenizer)
    beyond.add_special_tokens({"pad_token": "<new>"})
    assert beyond.pad_token_id == 64  # one more than the model has
    found = []
    for kind in (tokenizer, lacking, beyond):
        model = copy.deepcopy(tiny[0])
        losses = bl.fit(model, task, method=bl.LoRA(r=2), steps=3, tokenizer=kind, **RUN).losses
        measured = bl.evaluate(model, task, limit=30, tokenizer=kind, progress=False)
        found.append((losses, measured, adapter_state(model)))
    for losses, measured, state in found[1:]:
        assert losses == found[0][0] and measured == found[0][1] and equal(state, found[0][2])


@pytest.mark.parametrize("what", ["fit", "evaluate", "fit_many"])
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("no end", "eos_token=None"),
        ("long", "row 12: 201 tokens: allowed are 128, the model's positions"),
        ("foreign", "row 1: token id 64: allowed are ids below 64"),
        ("none", "answer of row 2=None: allowed is a text"),
        ("half a pair", r"prompt of row 1='.*ud83d': allowed is a text"),
        ("number", "prompt of row 0=7: allowed is a text"),
        ("max_length", "max_length=200: allowed is at most 128"),
    ],
)
def test_what_can_not_be_read_is_refused_before_anything_happens(
    tiny, tokenizer, monkeypatch, what, fault, words
):
    model, _ = tiny
    model.model.layers[1].train()  # a mode of its own
    model.model.norm.weight.requires_grad_(False)
    data = rows(*[(f"{i + 10}-{i}=", "10") for i in range(16)])
    settings = {"tokenizer": tokenizer, "progress": False}
    if fault == "no end":
        tokenizer.eos_token = None
    elif fault == "long":
        data = rows(*zip(data["prompt"][:12], data["answer"]), ("1" * 100, "2" * 100), ("1", "1"))
    elif fault == "foreign":
        tokenizer.add_tokens(["@"])
        data = rows(("1", "1"), ("1", "@"))
    elif fault == "none":
        data = rows(("1", "1"), ("2", "1"), ("3", None))
    elif fault == "half a pair":
        monkeypatch.setattr(Dataset, "__getitem__", lambda rows, _: ["1", "\ud83d"])
    elif fault == "number":
        data = Dataset.from_dict({"prompt": [7, 8], "answer": ["1", "2"]})
    else:
        settings["max_length"] = 200
    flags = [p.requires_grad for p in model.parameters()]
    modes = [m.training for m in model.modules()]
    with pytest.raises(ValueError, match=words):
        if what == "fit":
            bl.fit(model, data, method=bl.LoRA(r=2), steps=2, lr=1e-3, **settings)
        elif what == "evaluate":
            bl.evaluate(model, data, **settings)
        else:
            fit_many(model, data, [Trial(bl.LoRA(r=2), 1e-3)], steps=2, **settings)
    assert not bl.adapter_layers(model)
    assert [p.requires_grad for p in model.parameters()] == flags
    assert [m.training for m in model.modules()] == modes


def test_rows_are_cut_where_that_is_asked_for(tiny, tokenizer):
    data = rows(("123456=", "7"), ("12=", "3"), ("1=", "23456789"))
    cut = encode_examples(tokenizer, data, max_length=6)
    texts = [(tokenizer.decode(p), tokenizer.decode(a)) for p, a in cut]
    assert texts == [("456=", "7<eos>"), ("12=", "3<eos>"), ("=", "23456")]
    long = rows(*[("1" * 150 + "=", "2")] * 4)
    losses = bl.fit(tiny[0], long, method=bl.LoRA(r=2), steps=2, max_length=128, **RUN).losses
    assert all(map(torch.isfinite, torch.tensor(losses)))
    assert bl.evaluate(tiny[0], long, max_length=128, progress=False)["loss"] > 0
    with pytest.raises(ValueError, match=r"prompt 0 and a token after it: 152 tokens"):
        generate_answers(tiny[0], long["prompt"], max_new_tokens=5, progress=False)
    with pytest.raises(
        ValueError, match="max_new_tokens=9: allowed is a number below max_length=9"
    ):
        generate_answers(tiny[0], ["1"], max_new_tokens=9, max_length=9, progress=False)


@pytest.mark.parametrize(("prompt", "answer"), [("12-3=", ""), ("", "ab"), ("", "")])
def test_empty_texts_are_texts(tiny, tokenizer, prompt, answer):
    data = rows(*[(prompt, answer)] * 4)
    history = bl.fit(tiny[0], data, method=bl.LoRA(r=2), steps=2, **RUN)
    measured = bl.evaluate(tiny[0], data, progress=False)
    assert all(map(torch.isfinite, torch.tensor([*history.losses, *measured.values()])))
    ((ids, _),) = encode_examples(tokenizer, rows((prompt, answer)))
    assert ids == (tokenizer(prompt)["input_ids"] or [tokenizer.eos_token_id])


def test_rows_are_named_by_their_own_numbers(tokenizer):
    texts = ["1"] * 63 + [None]
    data = Dataset.from_dict({"prompt": ["1"] * 64, "answer": texts})
    with pytest.raises(ValueError, match="answer of row 63=None"):  # of which half are looked at
        for seed in range(20):
            plan_batches(data, tokenizer, steps=4, batch_size=8, seed=seed)
    data = rows(*[("1", "1")] * 63, ("1" * 200, "2"))
    with pytest.raises(ValueError, match="row 63: 202 tokens"):
        for seed in range(20):
            plan_batches(data, tokenizer, 4, 8, seed, Room(128, 64))


def test_every_row_that_fits_is_measured_whole(tiny):
    """A long prompt with a short answer, and a short prompt with a long one."""
    data = rows(("1" * 110 + "=", "2"), ("1=", "2" * 90))
    assert bl.evaluate(tiny[0], data, progress=False)["loss"] > 0
    together = generate_answers(tiny[0], data["prompt"], max_new_tokens=91, progress=False)
    alone = [
        generate_answers(tiny[0], [p], max_new_tokens=91, progress=False)[0] for p in data["prompt"]
    ]
    assert together == alone


def test_an_empty_prompt_needs_a_token_to_start_with(tokenizer):
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="prompt of row 1: it is empty"):
        encode_prompts(tokenizer, ["1", ""])


def test_room_is_what_the_config_and_the_embeddings_say(tiny):
    assert Room.of(tiny[0]) == Room(128, 64)
    assert Room.of(nn.Linear(2, 2)) == Room(None, None)
    config = RobertaConfig(
        vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=8, max_position_embeddings=34, pad_token_id=1, is_decoder=True,
    )  # fmt: skip
    model = RobertaForCausalLM(config)
    assert Room.of(model) == Room(32, 50)
    model(torch.full((1, 32), 5))
    with pytest.raises((IndexError, RuntimeError)):
        model(torch.full((1, 33), 5))
    config = XLNetConfig(vocab_size=50, d_model=8, n_layer=1, n_head=2, d_inner=8)
    assert Room.of(XLNetLMHeadModel(config)).positions is None  # its config says -1


def test_every_module_gets_its_own_mode_back(tiny):
    model, _ = tiny
    model.model.layers[2].train()
    modes = [m.training for m in model.modules()]
    with pytest.raises(KeyError), in_mode(model, train=True):
        assert all(m.training for m in model.modules())
        raise KeyError
    assert [m.training for m in model.modules()] == modes
