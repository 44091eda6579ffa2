"""Tokens with their loss mask, and small networks: what is shown is what was handed over."""

import html
import re
import sys

import pytest
import torch

from beamlora_mini import plots
from beamlora_mini.plots import style


class Letters:
    """A tokenizer of single characters."""

    def decode(self, ids):
        return "".join(map(chr, ids))


@pytest.fixture
def pages(monkeypatch):
    shown = []
    for place in (style, sys.modules["beamlora_mini.plots.tokens"]):
        monkeypatch.setattr(place, "display", lambda out: shown.append(out.data))
    return shown


def test_tokens_with_a_label_are_underlined_and_no_others(pages):
    text = "<b> &\na"
    ids = torch.tensor([[ord(letter) for letter in text]])
    labels = ids.clone()
    labels[0, :4] = -100
    plots.tokens(Letters(), ids, labels, alt='says "b"', caption="x < y")
    (page,) = pages
    assert page.startswith('<figure class="picture"')
    assert html.unescape(re.search(r'aria-label="([^"]*)"', page)[1]) == 'says "b"'
    picture = page.split("<figcaption>")[0]
    assert [html.unescape(of) for of in re.findall(r"<u .*?>(.*?)</u>", picture)] == ["&", "↵", "a"]
    read = [html.unescape(of) for of in re.findall(r"<span .*?>(.*?)</span>", picture)]
    assert read == ["<", "b", ">", "·"] and picture.count("<br>") == 1
    assert "3 of 7 tokens. x &lt; y" in page
    rows = re.findall(r"<tr>\s*<td.*?>(.*?)</td>\s*<td>(\d+)</td>\s*<td>(\w+)</td>", page)
    assert [int(number) for _, number, _ in rows] == ids[0].tolist()
    assert [learned == "True" for *_, learned in rows] == (labels[0] != -100).tolist()


def test_tokens_takes_lists_and_refuses_other_shapes_and_no_words(pages):
    plots.tokens(Letters(), [65, 66], [-100, 66], alt="x")
    plots.tokens(Letters(), [65], [65], alt="x")
    assert len(pages) == 2
    for ids, labels in (([65, 66], [66]), ([[65], [66]], [[65], [66]])):
        with pytest.raises(ValueError, match="allowed are two of"):
            plots.tokens(Letters(), ids, labels, alt="x")
    with pytest.raises(ValueError, match="say in words"):
        plots.tokens(Letters(), [65], [65], alt=" ")


def test_a_network_is_drawn_with_a_line_for_each_weight(pages, monkeypatch):
    figures = []
    png = style._png
    monkeypatch.setattr(style, "_png", lambda drawn: figures.append(drawn) or png(drawn))
    W_in, W_out = (
        torch.tensor([[1.0, -2.0], [0.5, 3.0], [1.5, 1.0]]),
        torch.tensor([[1.0, -1.5, 2.0]]),
    )
    plots.network({"one": (W_in, W_out)}, marked={"one": [2]}, alt="x")
    (drawn,) = figures
    lines = [line for line in drawn.axes[0].get_lines() if line.get_marker() != "o"]
    wanted = [*W_in.T.flatten().tolist(), *W_out.T.flatten().tolist()]
    assert [line.get_linewidth() for line in lines] == [2 * abs(w) for w in wanted]
    assert [line.get_linestyle() == "--" for line in lines] == [w < 0 for w in wanted]
    assert [text.get_text() for text in drawn.axes[0].texts] == ["+1", "-1.5", "+2"]
    circles = [line for line in drawn.axes[0].get_lines() if line.get_marker() == "o"]
    filled = [circle.get_markerfacecolor() != "white" for circle in circles]
    assert filled == [False, False, False, False, True, False]
    assert "[0.5, 3.0]" in pages[0]
