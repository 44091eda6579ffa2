"""evaluate: which answers count, and that a batch changes none of them."""

import copy
import random

import pytest
import torch
from datasets import Dataset, DatasetDict
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    MambaConfig,
    MambaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    RecurrentGemmaConfig,
    RecurrentGemmaForCausalLM,
)

import beamlora_mini as bl
from beamlora_mini.evaluation import (
    accuracy,
    exam_batch,
    final_answer,
    generate_answers,
    is_right,
)


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("3 * 4 = 12\n#### 12", "12"), ("so #### 1,234 dollars", "1234"), ("#### -7.50", "-7.5"),
        ("#### 18.00", "18"), ("first 3, then 45.", "45"), ("####", None), ("no idea", None),
        ("#### 5\n#### 6", "6"), ("It costs $20", "20"), ("100", "100"),
    ],
)  # fmt: skip
def test_final_answer(text, result):
    assert final_answer(text) == result


def test_worked_answers_count_by_their_result_others_by_their_text():
    assert is_right("whatever, 12", "3 * 4 = 12\n#### 12")
    assert not is_right("3 * 4 = 12\n#### 13", "3 * 4 = 12\n#### 12")
    assert not is_right("no idea", "#### 1")
    assert is_right(" abc ", "abc") and not is_right("abcd", "abc")


def test_generation_is_the_same_alone_and_padded_in_a_batch(tiny):
    model, _ = tiny
    prompts = ["C abc=", "C badge=", "R abcde=", "46+12="]
    alone = [generate_answers(model, [p], max_new_tokens=8, progress=False)[0] for p in prompts]
    together = generate_answers(model, prompts, max_new_tokens=8, progress=False)
    assert together == alone
    assert together[1] == "badge"


def test_exact_match_counts_right_answers(tiny):
    model, _ = tiny
    rows = Dataset.from_dict(
        {"prompt": ["40+12=", "40+13=", "40+14="], "answer": ["52", "53", "0"]}
    )
    result = bl.evaluate(model, rows, progress=False)
    assert result["exact_match"] == pytest.approx(2 / 3) and result["loss"] > 0
    assert bl.evaluate(model, rows, limit=2, progress=False)["exact_match"] == 1
    with pytest.raises(ValueError, match="limit=0"):
        bl.evaluate(model, rows, limit=0)
    assert bl.evaluate(model, DatasetDict(test=rows), progress=False) == result


HOSTILE = {
    "penalty": {"repetition_penalty": 5.0},
    "no repeats": {"no_repeat_ngram_size": 1},
    "sampling": {"do_sample": True, "temperature": 9.0},
    "a minimum": {"min_new_tokens": 6},
    "another end": {"eos_token_id": "of the answers"},
    "no end": {"eos_token_id": None},
    "suppressed": {"suppress_tokens": "of the answers"},
    "words": {"bad_words_ids": "of the answers"},
}


@pytest.mark.parametrize("fault", HOSTILE)
def test_the_generation_config_has_no_say(tiny, fault):
    model, tokenizer = tiny
    prompts = ["C abca=", "C badge=", "R abcde=", "46+12=", "C hahaha="]
    wanted = generate_answers(model, prompts, max_new_tokens=8, progress=False)
    assert wanted[1] == "badge"
    users = model.generation_config
    ids = tokenizer("abde")["input_ids"]
    of_the_answers = {
        "eos_token_id": ids[0],
        "suppress_tokens": ids,
        "bad_words_ids": [[i] for i in ids],
    }
    for name, value in HOSTILE[fault].items():
        setattr(users, name, of_the_answers[name] if value == "of the answers" else value)
    # By itself, transformers obeys.
    padded = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")
    obeyed = model.generate(**padded, max_new_tokens=8)[:, padded["input_ids"].shape[1] :]
    assert tokenizer.batch_decode(obeyed, skip_special_tokens=True) != wanted or fault == "no end"
    assert generate_answers(model, prompts, max_new_tokens=8, progress=False) == wanted
    assert model.generation_config is users


def test_what_fit_teaches_as_the_end_ends_an_answer(tiny):
    """Copying, which the model can do, with another token at the end than its config names."""
    model, tokenizer = copy.deepcopy(tiny[0]), copy.deepcopy(tiny[1])
    tokenizer.eos_token = "C"
    letters = random.Random(0)
    words = ["".join(letters.choices("abcdefgh", k=4)) for _ in range(300)]
    rows = Dataset.from_dict({"prompt": [f"C {word}=" for word in words], "answer": words})
    bl.fit(
        model, rows.select(range(200)), method=bl.LoRA(r=8), steps=60, lr=4e-3, tokenizer=tokenizer,
        progress=False,
    )  # fmt: skip
    test, settings = rows.select(range(200, 300)), {"max_new_tokens": 8, "progress": False}
    assert bl.evaluate(model, test, tokenizer=tokenizer, **settings)["exact_match"] > 0.8
    assert bl.evaluate(model, test, **settings)["exact_match"] < 0.2
    answers = generate_answers(model, test["prompt"], tokenizer=tokenizer, **settings)
    assert sum("C" in answer for answer in answers) == 0


def test_batch_size_and_order_change_nothing(tiny):
    model, _ = tiny
    letters = random.Random(0)
    words = ["".join(letters.choices("abcdefgh", k=letters.randint(1, 9))) for _ in range(60)]
    rows = Dataset.from_dict({"prompt": [f"C {word}=" for word in words], "answer": words})
    wanted = bl.evaluate(model, rows, progress=False)
    assert 0.1 < wanted["exact_match"] <= 1
    turned = rows.select(list(reversed(range(60))))
    for data, size in ((rows, 1), (rows, 7), (turned, 64), (turned, 13)):
        found = bl.evaluate(model, data, batch_size=size, progress=False)
        assert found["exact_match"] == wanted["exact_match"]
        assert found["loss"] == pytest.approx(wanted["loss"], rel=1e-5)


@pytest.mark.parametrize("argument", ["batch_size", "max_new_tokens"])
def test_bad_settings_are_refused_by_name(tiny, argument):
    with pytest.raises(ValueError, match=f"{argument}=0"):
        generate_answers(tiny[0], ["1"], **{argument: 0})


@pytest.mark.parametrize("kind", ["recurrent gemma", "mamba", "gpt2", "opt"])
def test_padding_changes_nothing_whatever_the_architecture(tiny, kind):
    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "bos_token_id": 1, "eos_token_id": 1}
    model = {
        "recurrent gemma": lambda: RecurrentGemmaForCausalLM(
            RecurrentGemmaConfig(
                hidden_size=32, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2,
                lru_width=32, head_dim=16, pad_token_id=0, **sizes,
            )
        ),
        "mamba": lambda: MambaForCausalLM(
            MambaConfig(hidden_size=16, state_size=4, num_hidden_layers=2, **sizes)
        ),
        "gpt2": lambda: GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=2, **sizes)),
        "opt": lambda: OPTForCausalLM(
            OPTConfig(
                hidden_size=32, ffn_dim=32, num_hidden_layers=2, num_attention_heads=2,
                word_embed_proj_dim=32, pad_token_id=0, **sizes,
            )
        ),
    }[kind]().eval()  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    prompts = ["C abc=", "C badge=", "R abcde=", "46+12=", "11", "C aaaaaaaaaa=", "12"]
    settings = {"tokenizer": tiny[1], "max_new_tokens": 8, "progress": False}
    alone = [generate_answers(model, [p], **settings)[0] for p in prompts]
    assert len(set(alone)) > 3
    assert generate_answers(model, prompts, **settings) == alone
    turned = generate_answers(model, prompts[::-1], batch_size=3, **settings)
    assert turned[::-1] == alone


def test_prompts_are_a_list(tiny):
    assert generate_answers(tiny[0], [], progress=False) == []
    assert len(generate_answers(tiny[0], (p for p in ["1", "2"]), progress=False)) == 2
    with pytest.raises(ValueError, match="prompts='hello': allowed is a list of texts"):
        generate_answers(tiny[0], "hello", progress=False)


def test_accuracy_is_the_exact_match_of_greedy_answers(tiny):
    model, tokenizer = tiny
    bl.fit(
        model, "subtraction", method=bl.LoRA(r=8, lora_alpha=16), steps=150, lr=5e-3, progress=False
    )
    rows = bl.load_task("subtraction")["test"].select(range(100))
    batch = exam_batch(tokenizer, rows)
    answers = generate_answers(model.eval(), rows["prompt"], progress=False)
    written = sum(said == wanted for said, wanted in zip(answers, rows["answer"])) / 100
    assert 0 < written < 1 and accuracy(model, batch) == pytest.approx(written)
