"""The exercises of 10_real_model."""

from transformers import LlamaConfig, LlamaForCausalLM

import beamlora_mini as bl

from .common import exercise, expect


@exercise(
    "10.1",
    solution=r"""
        import re


        def result(answer):
            _, mark, tail = answer.rpartition("####")
            number = re.search(r"-?\d[\d,]*", tail) if mark else None
            return number and number.group().replace(",", "")
    """,
    wrong=[
        """
        def result(answer):
            return answer.split('####')[-1].strip()
        """,
        """
        import re
        def result(answer):
            return re.findall(r'-?[0-9,]+', answer)[-1].replace(',', '')
        """,
        """
        import re
        def result(answer):  # loses the sign
            _, mark, tail = answer.rpartition("####")
            number = re.search(r"[0-9][0-9,]*", tail) if mark else None
            return number and number.group().replace(",", "")
        """,
    ],
)
def result(answer):
    """The number behind the last #### of an answer."""
    cases = {
        "2 * 3 = 6\n#### 6": "6",
        "#### 5 was wrong\n#### 7": "7",
        "#### 1,250 dollars": "1250",
        "#### -4": "-4",
        "the result is 9": None,
    }
    for text, wanted in cases.items():
        got = answer(text)
        expect(got == wanted, f"for {text!r} you returned {got!r}, wanted is {wanted!r}")


@exercise(
    "10.2",
    solution="""
        def adapter_size(config, r):
            hidden, inner = config.hidden_size, config.intermediate_size
            heads = config.num_attention_heads * config.head_dim
            kv = config.num_key_value_heads * config.head_dim
            attention = (hidden + heads) + 2 * (hidden + kv) + (heads + hidden)
            return config.num_hidden_layers * r * (attention + 3 * (hidden + inner))
    """,
    wrong=[
        """
        def adapter_size(config, r):  # k and v as wide as q
            hidden, inner = config.hidden_size, config.intermediate_size
            return config.num_hidden_layers * r * (4 * 2 * hidden + 3 * (hidden + inner))
        """,
        """
        def adapter_size(config, r):  # the size of the weights
            hidden, inner = config.hidden_size, config.intermediate_size
            return config.num_hidden_layers * (4 * hidden * hidden + 3 * hidden * inner)
        """,
    ],
)
def adapter_size(answer):
    """The number of parameters of an adapter on every linear layer of a Llama."""
    for heads, kv_heads, head_dim in ((4, 4, 8), (6, 2, 8), (4, 1, 16)):
        config = LlamaConfig(
            hidden_size=48, intermediate_size=80, num_hidden_layers=2, vocab_size=10,
            num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=head_dim,
        )  # fmt: skip
        model = LlamaForCausalLM(config)
        bl.attach(model, bl.LoRA(r=3))
        wanted, _ = bl.count_parameters(model)
        got = answer(config, 3)
        expect(got is not None, "adapter_size returned None; return a number")
        expect(
            got == wanted,
            f"with {heads} heads of {head_dim} and {kv_heads} key-value heads it is {wanted}, "
            f"you said {got}",
        )


@exercise(
    "10.3",
    solution=r"""
        def with_examples(rows, prompt):
            shown = [f"{row['prompt']}\n{row['answer']}" for row in rows]
            return "\n\n".join([*shown, prompt])
    """,
    wrong=[
        """
        def with_examples(rows, prompt):
            return prompt
        """,
        r"""
        def with_examples(rows, prompt):  # the answers are missing
            return "\n\n".join([*(row["prompt"] for row in rows), prompt])
        """,
        r"""
        def with_examples(rows, prompt):  # the new question first
            shown = [f"{row['prompt']}\n{row['answer']}" for row in rows]
            return "\n\n".join([prompt, *shown])
        """,
        """
        def with_examples(rows, prompt):  # nothing between the parts
            return "".join([*(row["prompt"] + row["answer"] for row in rows), prompt])
        """,
    ],
)
def with_examples(answer):
    """A prompt that shows worked examples before the question."""
    rows = [{"prompt": "One?", "answer": "#### 1"}, {"prompt": "Two?", "answer": "#### 2"}]
    got = answer(rows, "Three?")
    expect(isinstance(got, str), f"return one text, not {type(got).__name__}")
    parts = ["One?", "#### 1", "Two?", "#### 2", "Three?"]
    places = [got.find(part) for part in parts]
    expect(-1 not in places, "a question or an answer is missing")
    expect(places == sorted(places), "each answer follows its question, the new question is last")
    expect(got.rstrip().endswith("Three?"), "the prompt should end with the new question")
    expect("One?#" not in got and "1Two" not in got, "leave white space between the parts")
