"""Paths run through the means of their runs, in the order of the settings."""

import pytest
import torch

from beamlora_mini import plots
from tests.test_plots import numbers, shown  # noqa: F401, a fixture


def test_paths_run_through_the_means_and_end_at_the_last_setting(shown):  # noqa: F811
    x, y = torch.tensor([[0.1, 0.5], [0.3, 0.7]]), torch.tensor([[1.0, 4.0], [2.0, 8.0]])
    plots.paths({"one": (x, y), "two": ([0.2], [3.0])}, xlabel="new", ylabel="old", alt="x",
                upright={"here": 0.4})  # fmt: skip
    (page,), (drawn,) = shown
    lines = [line.get_xydata().tolist() for line in drawn.axes[0].get_lines()]
    means = [[0.2, 1.5], [0.6, 6.0]]
    assert lines[1] == [pytest.approx(place) for place in means]
    assert lines[2] == [pytest.approx(means[-1])]
    labels = [text.get_text() for text in drawn.axes[0].get_legend().get_texts()]
    assert labels == ["one", "two", "here"]
    table = numbers(page)
    assert table.series.tolist() == ["one", "one", "two"]
    assert table.highest.tolist()[:2] == [2.0, 8.0] and table.old.tolist()[2] == 3.0


def test_paths_need_pairs():
    with pytest.raises(ValueError, match="'one': x is"):
        plots.paths({"one": ([1, 2], [1])}, xlabel="x", ylabel="y", alt="x")
