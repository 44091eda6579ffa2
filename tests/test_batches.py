"""Which rows a step sees, and what of them the model is given."""

from collections import Counter

from datasets import Dataset

from beamlora_mini.batches import encode_prompts, plan_batches


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
