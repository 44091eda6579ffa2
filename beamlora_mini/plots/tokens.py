"""What a model reads, token by token, and which tokens it learns to write."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd
import torch
from IPython.display import HTML, display
from torch import Tensor

from ..batches import IGNORED
from .style import in_html

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

# Half-transparent, so that they do on a light page and on a dark one; the text keeps the page's colour.
_TOKEN = "border:1px solid rgba(128,128,128,.45);border-radius:3px;padding:0 1px;margin:0 1px"
_LEARNED = f"{_TOKEN};background:rgba(0,114,178,.3);text-decoration:underline 2px"


def tokens(
    tokenizer: Tokenizer,
    input_ids: Tensor | Sequence[int],
    labels: Tensor | Sequence[int],
    *,
    alt: str,
    caption: str = "",
) -> None:
    """Display one text as its tokens, those that carry loss underlined and on blue, a dot for each
    space and an arrow for each new line; its numbers are one click away.

    input_ids, labels: (length,) or (1, length); a label of -100 carries no loss. ValueError without an
    alt text, and for other shapes.
    """
    if not alt.strip():
        raise ValueError("alt='': say in words what the picture shows")
    ids, wanted = (torch.as_tensor(of).cpu() for of in (input_ids, labels))
    if ids.dim() == 2 and len(ids) == 1:
        ids, wanted = ids[0], wanted.squeeze(0)
    if ids.dim() != 1 or ids.shape != wanted.shape:
        shapes = f"{tuple(ids.shape)} and {tuple(wanted.shape)}"
        raise ValueError(f"input_ids and labels: shapes {shapes}: allowed are two of (length,)")
    learned = (wanted != IGNORED).tolist()
    texts = [str(tokenizer.decode([i])) for i in ids.tolist()]
    marks = [
        f'<u style="{_LEARNED}">{_visible(text)}</u>'
        if on
        else f'<span style="{_TOKEN}">{_visible(text)}</span>'
        for text, on in zip(texts, learned)
    ]
    shown = "".join(m + "<br>" * text.count("\n") for m, text in zip(marks, texts))
    below = f"Underlined, on blue: carries loss, {sum(learned)} of {len(ids)} tokens. {caption}"
    table = pd.DataFrame({"token": map(repr, texts), "id": ids.tolist(), "carries loss": learned})
    display(
        HTML(
            f'<figure class="picture" style="margin:0"><div role="img" aria-label="{html.escape(alt)}" '
            f'style="font-family:monospace;line-height:1.9">{shown}</div>'
            f"<figcaption><em>{html.escape(below.strip())}</em></figcaption><details><summary>The "
            f"numbers</summary>{in_html(table)}</details></figure>"
        )
    )


def _visible(text: str) -> str:
    return html.escape(text).replace(" ", "·").replace("\n", "↵")


__all__ = ["tokens"]
