"""fit and evaluate: what a step does, what is repeatable, what is refused."""

import copy
import math
from collections import Counter

import pytest
import torch
from datasets import Dataset, DatasetDict
from torch import nn

import beamlora_mini as bl
from beamlora_mini.batches import collate, encode_answers, encode_prompts, plan_batches
from beamlora_mini.evaluation import final_answer, generate_answers, is_right
from beamlora_mini.loss import answer_loss

RUN = {"steps": 6, "lr": 4e-3, "batch_size": 8, "progress": False}


@pytest.fixture(scope="module")
def task():
    return bl.load_task("subtraction")


def adapter_state(model):
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


def test_a_short_run_learns_and_leaves_the_base_alone(tiny, task):
    model, _ = tiny
    before = {n: t.clone() for n, t in model.state_dict().items()}
    base_loss = bl.evaluate(model, task, limit=100, progress=False)["loss"]
    history = bl.fit(model, task, method=bl.LoRA(r=8), **RUN | {"steps": 60})
    after = bl.evaluate(model, task, limit=100, progress=False)["loss"]
    assert after < 0.7 * base_loss
    assert len(history.losses) == len(history.learning_rates) == 60
    assert history.tokens_per_second > 0 and not model.training
    bl.detach(model)
    assert equal(model.state_dict(), before)


def test_the_learning_rate_warms_up_and_falls_along_a_cosine(tiny, task):
    rates = bl.fit(tiny[0], task, method=bl.LoRA(r=1), warmup=0.2, **RUN | {"steps": 10})
    expected = [0, 0.5] + [0.5 * (1 + math.cos(math.pi * k / 8)) for k in range(8)]
    assert rates.learning_rates == pytest.approx([4e-3 * e for e in expected], abs=1e-9)


def test_the_same_seed_is_the_same_run_and_another_is_not(tiny, task):
    runs = []
    for seed in (3, 3, 4):
        model = copy.deepcopy(tiny[0])
        losses = bl.fit(model, task, method=bl.LoRA(r=2, lora_dropout=0.1), seed=seed, **RUN).losses
        runs.append((losses, adapter_state(model)))
    assert runs[0][0] == runs[1][0] and equal(runs[0][1], runs[1][1])
    assert runs[0][0] != runs[2][0]


def test_without_a_method_everything_trainable_is_trained(tiny, task):
    model, _ = tiny
    before = adapter_state(model)
    bl.fit(model, task, **RUN)
    assert all(not torch.equal(t, before[n]) for n, t in adapter_state(model).items())


def test_an_attached_method_is_used_again_and_another_is_refused(tiny, task):
    model, _ = tiny
    method = bl.LoRA(r=2)
    layers = bl.attach(model, method)
    bl.fit(model, task, method=method, **RUN)
    bl.fit(model, task, **RUN)
    assert bl.adapter_layers(model) == layers
    with pytest.raises(ValueError, match="already has 28 adapters"):
        bl.fit(model, task, method=bl.LoRA(r=3), **RUN)


@pytest.mark.parametrize(
    ("argument", "value"),
    [("steps", 0), ("batch_size", 0), ("lr", 0.0), ("warmup", 1.0), ("steps", 1.5)],
)
def test_bad_settings_change_nothing(tiny, task, argument, value):
    model, _ = tiny
    with pytest.raises(ValueError, match=f"{argument}={value!r}"):
        bl.fit(model, task, method=bl.LoRA(), **RUN | {argument: value})
    assert not bl.adapter_layers(model) and all(p.requires_grad for p in model.parameters())


def test_nothing_to_train_no_tokenizer_and_wrong_tasks_are_refused(tiny, task):
    model, _ = tiny
    with pytest.raises(ValueError, match="prompt and answer"):
        bl.fit(model, Dataset.from_dict({"text": ["a"]}), **RUN)
    with pytest.raises(ValueError, match="'train' split is empty"):
        bl.fit(model, task["train"].select([]), **RUN)
    with pytest.raises(ValueError, match="allowed are subtraction"):
        bl.fit(model, "no such task", **RUN)
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="attach a method first"):
        bl.fit(model, task, **RUN)
    del model.tokenizer
    with pytest.raises(ValueError, match="tokenizer"):
        bl.evaluate(model, task)


# --- what a step is made of ---


def test_the_loss_is_on_the_answer_alone_and_equals_transformers(tiny, task):
    model, tokenizer = tiny
    rows = task["train"].select(range(7))
    prompts, answers = (
        encode_prompts(tokenizer, rows["prompt"]),
        encode_answers(tokenizer, rows["answer"]),
    )
    batch = collate(list(zip(prompts, answers)), tokenizer.pad_token_id, model.device)
    assert int((batch["labels"] != -100).sum()) == sum(map(len, answers))
    assert all(ids[-1] == tokenizer.eos_token_id for ids in answers)
    torch.testing.assert_close(answer_loss(model, batch), model(**batch).loss)


def test_a_model_without_logits_to_keep_has_the_same_loss(tiny):
    class Plain(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, input_ids, attention_mask, use_cache):
            return self.model(input_ids, attention_mask, use_cache=use_cache)

    model, tokenizer = tiny
    batch = collate([([5, 6, 7], [8, 9]), ([5], [6])], tokenizer.pad_token_id, model.device)
    torch.testing.assert_close(answer_loss(Plain(model), batch), answer_loss(model, batch))


def test_batches_cover_every_row_once_an_epoch_and_are_of_similar_length(tiny):
    _, tokenizer = tiny
    rows = Dataset.from_dict(
        {
            "prompt": ["a" * (1 + i % 13) + "=" for i in range(96)],
            "answer": [str(i) for i in range(96)],
        }
    )
    batches = plan_batches(rows, tokenizer, steps=24, batch_size=8, seed=0)
    assert len(batches) == 24 and all(len(batch) == 8 for batch in batches)
    seen = Counter(tokenizer.decode(answer[:-1]) for batch in batches for _, answer in batch)
    assert seen == dict.fromkeys(rows["answer"], 2)  # two epochs
    spread = [max(map(len, p)) - min(map(len, p)) for p in ([e[0] for e in b] for b in batches)]
    assert sum(spread) / len(spread) <= 2
    lengths = [len(batch[0][0]) for batch in batches[:12]]
    assert lengths != sorted(lengths)  # length is no curriculum
    assert batches == plan_batches(rows, tokenizer, steps=24, batch_size=8, seed=0)


def test_chat_models_get_their_template(smollm2):
    _, tokenizer = smollm2
    text = tokenizer.decode(encode_prompts(tokenizer, ["What is 2 + 3?"])[0])
    assert text.endswith("<|im_start|>user\nWhat is 2 + 3?<|im_end|>\n<|im_start|>assistant\n")


# --- evaluate ---


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


# --- checkpoints ---


def test_a_resumed_run_is_the_run_that_did_not_stop(tiny, task, crash_and_resume):
    method, run = bl.LoRA(r=2, lora_dropout=0.2), RUN | {"steps": 8, "checkpoint_every": 3}
    whole = copy.deepcopy(tiny[0])
    history = bl.fit(whole, task, method=method, **run)

    resumed, again = crash_and_resume(tiny[0], task, 6, method=method, **run)
    assert again.losses == history.losses and again.tokens == history.tokens
    assert equal(adapter_state(resumed), adapter_state(whole))


def test_foreign_and_damaged_checkpoints_change_nothing(tiny, task, tmp_path):
    model, other = tiny[0], copy.deepcopy(tiny[0])
    bl.fit(model, task, method=bl.LoRA(r=2), checkpoint_dir=tmp_path, **RUN)
    bl.attach(other, bl.LoRA(r=3))
    before = adapter_state(other)
    resume = {"checkpoint_dir": tmp_path, "resume": True}
    with pytest.raises(ValueError, match=r"method=.LoRA\(r=3"):
        bl.fit(other, task, **RUN, **resume)
    shorter = copy.deepcopy(tiny[0])
    bl.detach(shorter)
    shorter.model.layers = shorter.model.layers[:3]
    with pytest.raises(ValueError, match="another model"):
        bl.fit(shorter, task, method=bl.LoRA(r=2), **RUN, **resume)
    assert not bl.adapter_layers(shorter)
    bl.detach(other)
    bl.attach(other, bl.LoRA(r=2))
    before = adapter_state(other)
    with pytest.raises(ValueError, match=r"seed=1: .* seed=0"):
        bl.fit(other, task, seed=1, **RUN, **resume)
    file = tmp_path / "checkpoint.pt"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        bl.fit(other, task, **RUN, **resume)
    assert equal(adapter_state(other), before)
    bare = copy.deepcopy(tiny[0])
    bl.detach(bare)
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        bl.fit(bare, task, method=bl.LoRA(r=2), **RUN, **resume)
    assert not bl.adapter_layers(bare)
    with pytest.raises(ValueError, match="checkpoint_dir=None"):
        bl.fit(other, task, resume=True, **RUN)


def test_a_rank_history_is_recorded_along_the_way(tiny, task):
    model, _ = tiny
    history = bl.RankHistory(every=4)
    bl.fit(model, task, method=bl.LoRA(r=3), history=history, **RUN | {"steps": 9})
    assert history.steps == [0, 4, 8]
    frame = history.to_pandas()
    assert list(frame.columns) == ["step", "module", "rank", "importance"]
    assert len(frame) == 3 * 28 * 3
    assert (frame[frame.step == 0].importance == 0).all()  # B is zero
    assert (frame[frame.step == 8].importance > 0).all()
    with pytest.raises(ValueError, match="every=0"):
        bl.RankHistory(every=0)
    with pytest.raises(ValueError, match="no adapters"):
        bl.RankHistory().record(torch.nn.Linear(2, 2), 0)
