"""The exact test of paired differences."""

import itertools

import pytest
import torch

from beamlora_mini.paired import compare, holm, sign_flip_p


def test_the_p_value_counts_signs():
    assert sign_flip_p(torch.ones(8)) == 2 / 256
    assert sign_flip_p(torch.tensor([3.0, -3.0])) == 1
    assert sign_flip_p(torch.tensor([5.0])) == 1
    values = [0.3, -0.1, 0.5, 0.2, -0.4]
    flips = [
        sum(s * v for s, v in zip(signs, values)) for signs in itertools.product((-1, 1), repeat=5)
    ]
    expected = sum(abs(total) >= abs(sum(values)) - 1e-9 for total in flips) / 32
    assert sign_flip_p(torch.tensor(values)) == expected == sign_flip_p(-torch.tensor(values))


@pytest.mark.parametrize("n", [0, 21])
def test_too_few_and_too_many(n):
    with pytest.raises(ValueError, match=f"length {n}: allowed is 1 to 20"):
        sign_flip_p(torch.ones(n))


def test_holm_multiplies_by_how_many_are_left():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([0.02]) == [0.02] and holm([]) == []
    assert holm([0.01, 0.011, 0.5])[1] == pytest.approx(0.03), "never below an earlier one"


def test_compare_has_a_row_for_each_label():
    table = compare({"up": torch.ones(8), "mixed": [1.0, -1.0, 2.0]})
    assert table.loc["up"].tolist() == [1, 1, 1, "8 of 8", 2 / 256, 4 / 256]
    assert table.loc["mixed", "low"] == -1 and table.loc["mixed", "above"] == "2 of 3"
    assert table.holm["mixed"] == sign_flip_p(torch.tensor([1.0, -1.0, 2.0]))
