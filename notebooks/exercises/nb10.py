"""The exercises of 10_real_model."""

from transformers import LlamaConfig, LlamaForCausalLM

import beamlora_mini as bl

from .common import compare, exercise, expect, number


@exercise(
    "10.1",
    solution=r"""
        import re


        def result(answer):
            _, mark, tail = answer.rpartition("####")
            number = re.search(r"-?\d[\d,]*", tail) if mark else None
            return number and number.group().replace(",", "")
    """,
    right=[
        r"""
        def result(answer):
            if "####" not in answer:
                return None
            digits = ""
            for character in answer.split("####")[-1]:
                if character.isdigit() or (character == "-" and not digits):
                    digits += character
                elif digits and character != ",":
                    break
            return digits
        """,
    ],
    wrong={
        "Only the number, without what stands around it.": """
        def result(answer):
            return answer.split("####")[-1].strip().replace(",", "") if "####" in answer else None
        """,
        "Without the mark there is no result.": r"""
        import re
        def result(answer):
            return re.search(r"-?\d[\d,]*", answer.split("####")[-1]).group().replace(",", "")
        """,
        "The sign is lost.": r"""
        import re
        def result(answer):
            _, mark, tail = answer.rpartition("####")
            number = re.search(r"\d[\d,]*", tail) if mark else None
            return number and number.group().replace(",", "")
        """,
        "The last mark counts, not the first.": r"""
        import re
        def result(answer):
            _, mark, tail = answer.partition("####")
            number = re.search(r"-?\d[\d,]*", tail) if mark else None
            return number and number.group().replace(",", "")
        """,
        "The commas are still there.": r"""
        import re
        def result(answer):
            _, mark, tail = answer.rpartition("####")
            number = re.search(r"-?\d[\d,]*", tail) if mark else None
            return number and number.group()
        """,
        "It is the first number behind the mark, not the last.": r"""
        import re
        def result(answer):
            _, mark, tail = answer.rpartition("####")
            return re.findall(r"-?\d[\d,]*", tail)[-1].replace(",", "") if mark else None
        """,
        "A string is asked for, not a number.": r"""
        import re
        def result(answer):
            _, mark, tail = answer.rpartition("####")
            number = re.search(r"-?\d[\d,]*", tail) if mark else None
            return number and int(number.group().replace(",", ""))
        """,
    },
)
def result(answer):
    """The number behind the last #### of an answer."""
    cases = {
        "2 * 3 = 6\n#### 6": "6",
        "#### 5 was wrong\n#### 7": "7",
        "#### 1,250 dollars": "1250",
        "10 - 14 = -4\n#### -4": "-4",
        "#### The answer is 12,345,678.": "12345678",
        "3 dozen\n####36 of 40 eggs": "36",
        "the result is 9": None,
        "# 8\n### 9": None,
    }
    texts = [{"answer": text} for text in cases]
    compare(answer, texts, cases.get, lambda got: got)


@exercise(
    "10.2",
    asked="a number",
    solution="""
        def adapter_size(config, r):
            hidden, inner = config.hidden_size, config.intermediate_size
            heads = config.num_attention_heads * config.head_dim
            kv = config.num_key_value_heads * config.head_dim
            attention = (hidden + heads) + 2 * (hidden + kv) + (heads + hidden)
            return config.num_hidden_layers * r * (attention + 3 * (hidden + inner))
    """,
    right=[
        """
        def adapter_size(config, r):
            hidden, inner, d = config.hidden_size, config.intermediate_size, config.head_dim
            q, kv = config.num_attention_heads * d, config.num_key_value_heads * d
            shapes = [(hidden, q), (hidden, kv), (hidden, kv), (q, hidden)]
            shapes += [(hidden, inner), (hidden, inner), (inner, hidden)]
            total = 0.0
            for _ in range(config.num_hidden_layers):
                for shape in shapes:
                    total += r * sum(shape)
            return torch.tensor(total)
        """,
    ],
    wrong={
        "k and v are narrower than q.": """
        def adapter_size(config, r):
            hidden, inner = config.hidden_size, config.intermediate_size
            heads = config.num_attention_heads * config.head_dim
            return config.num_hidden_layers * r * (4 * (hidden + heads) + 3 * (hidden + inner))
        """,
        "The heads together need not be as wide as hidden_size.": """
        def adapter_size(config, r):
            hidden, inner = config.hidden_size, config.intermediate_size
            kv = config.num_key_value_heads * config.head_dim
            attention = 4 * hidden + 2 * (hidden + kv)
            return config.num_hidden_layers * r * (attention + 3 * (hidden + inner))
        """,
        "This counts the weights, not the adapter.": """
        def adapter_size(config, r):
            hidden, inner, d = config.hidden_size, config.intermediate_size, config.head_dim
            heads = config.num_attention_heads + config.num_key_value_heads
            return config.num_hidden_layers * (2 * hidden * heads * d + 3 * hidden * inner)
        """,
        "This is one block; there are num_hidden_layers.": """
        def adapter_size(config, r):
            hidden, inner, d = config.hidden_size, config.intermediate_size, config.head_dim
            heads = config.num_attention_heads + config.num_key_value_heads
            return r * (4 * hidden + 2 * heads * d + 3 * (hidden + inner))
        """,
        "The MLP is missing.": """
        def adapter_size(config, r):
            hidden, d = config.hidden_size, config.head_dim
            heads = config.num_attention_heads + config.num_key_value_heads
            return config.num_hidden_layers * r * (4 * hidden + 2 * heads * d)
        """,
        "The MLP has three layers: gate, up and down.": """
        def adapter_size(config, r):
            hidden, inner, d = config.hidden_size, config.intermediate_size, config.head_dim
            heads = config.num_attention_heads + config.num_key_value_heads
            attention = 4 * hidden + 2 * heads * d
            return config.num_hidden_layers * r * (attention + 2 * (hidden + inner))
        """,
        "you changed the input `config`": """
        def adapter_size(config, r):
            hidden, inner, d = config.hidden_size, config.intermediate_size, config.head_dim
            config.num_attention_heads += config.num_key_value_heads
            attention = 4 * hidden + 2 * config.num_attention_heads * d
            return config.num_hidden_layers * r * (attention + 3 * (hidden + inner))
        """,
    },
)
def adapter_size(answer):
    """The number of parameters of an adapter on every linear layer of a Llama."""
    answer.read = number
    for heads, kv_heads, head_dim, layers, r in (
        (6, 2, 12, 3, 2),
        (4, 4, 8, 1, 3),
        (4, 1, 16, 2, 5),
    ):
        config = LlamaConfig(
            hidden_size=48, intermediate_size=80, num_hidden_layers=layers, vocab_size=10,
            num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=head_dim,
        )  # fmt: skip
        got = number(answer(config=config, r=r))
        model = LlamaForCausalLM(config)
        bl.attach(model, bl.LoRA(r=r))
        wanted, _ = bl.count_parameters(model)
        expect(
            got == wanted,
            f"with {layers} blocks of {heads} heads of {head_dim}, {kv_heads} key-value heads and "
            f"r={r} it is {wanted}, you said {got:g}",
        )


@exercise(
    "10.3",
    asked="one text",
    solution=r"""
        def with_examples(rows, prompt):
            shown = [f"{row['prompt']}\n{row['answer']}" for row in rows]
            return "\n\n".join([*shown, prompt])
    """,
    right=[
        r"""
        def with_examples(rows, prompt):
            text = ""
            for row in rows:
                text += "Question: " + row["prompt"] + "\nAnswer: " + row["answer"] + "\n\n"
            return text + "Question: " + prompt
        """,
        r"""
        def with_examples(rows, prompt):
            return " ".join([part for row in rows for part in row.values()] + [prompt])
        """,
    ],
    wrong={
        "The examples are missing.": """
        def with_examples(rows, prompt):
            return prompt
        """,
        "the answer '#### 11' is missing": r"""
        def with_examples(rows, prompt):
            return "\n\n".join([*(row["prompt"] for row in rows), prompt])
        """,
        "The new question comes last.": r"""
        def with_examples(rows, prompt):
            shown = [f"{row['prompt']}\n{row['answer']}" for row in rows]
            return "\n\n".join([prompt, *shown])
        """,
        "leave white space between": """
        def with_examples(rows, prompt):
            return "".join([*(row["prompt"] + row["answer"] for row in rows), prompt])
        """,
        "The answer belongs behind its question.": r"""
        def with_examples(rows, prompt):
            shown = [f"{row['answer']}\n{row['prompt']}" for row in rows]
            return "\n\n".join([*shown, prompt])
        """,
        "This shows the first example only.": r"""
        def with_examples(rows, prompt):
            return f"{rows[0]['prompt']}\n{rows[0]['answer']}\n\n{prompt}"
        """,
        "should end with the new question": r"""
        def with_examples(rows, prompt):
            shown = [f"{row['prompt']}\n{row['answer']}" for row in rows]
            return "\n\n".join([*shown, prompt, "####"])
        """,
        "return one text, not list": """
        def with_examples(rows, prompt):
            return [*rows, prompt]
        """,
        "you changed the input `rows`": r"""
        def with_examples(rows, prompt):
            rows.append({"prompt": prompt, "answer": ""})
            return "\n\n".join(f"{row['prompt']}\n{row['answer']}" for row in rows)
        """,
    },
)
def with_examples(answer):
    """A prompt that shows worked examples before the question."""
    rows = [
        {"prompt": f"{word} what?", "answer": f"#### {k}"}
        for k, word in enumerate(("One", "Two", "Six"), 11)
    ]
    for count in (2, 3, 1):
        got = answer(rows=rows[:count], prompt="Last what?")
        expect(isinstance(got, str), f"return one text, not {type(got).__name__}")
        parts = [(kind, row[kind]) for row in rows[:count] for kind in ("prompt", "answer")]
        for kind, part in parts:
            word = "question" if kind == "prompt" else "answer"
            expect(part in got, f"with {count} examples, the {word} {part!r} is missing")
        expect("Last what?" in got, "the new question is missing")
        places = [got.find(part) for _, part in parts] + [got.find("Last what?")]
        expect(
            places == sorted(places),
            f"with {count} examples the order is wrong: each answer follows its question, the new "
            "question comes last",
        )
        at_the_end = got.rstrip().endswith("Last what?")
        expect(at_the_end, f"the prompt should end with the new question, not with {got[-12:]!r}")
        apart = all(got[place - 1].isspace() for place in places[1:])
        expect(apart, f"leave white space between the parts; here it is {got[:24]!r}")
