"""evaluate: which answers count, and that a batch changes none of them."""

import pytest
from datasets import Dataset, DatasetDict

import beamlora_mini as bl
from beamlora_mini.evaluation import final_answer, generate_answers, is_right


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
