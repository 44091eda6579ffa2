"""The exact test of paired differences."""

import itertools

import pytest
import torch

from beamlora_mini.paired import sign_flip_p


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
