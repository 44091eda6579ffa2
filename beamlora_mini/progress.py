"""Progress bars, and one switch for all of them: the environment variable TQDM_DISABLE=1."""

from __future__ import annotations

import os
from functools import partialmethod

from tqdm.auto import tqdm

SILENT = os.environ.get("TQDM_DISABLE", "") not in ("", "0")

if SILENT:  # tqdm's notebook bars do not heed the variable; transformers draws some while loading
    tqdm.__init__ = partialmethod(tqdm.__init__, disable=True)


def progress_bar(total: int, description: str, show: bool, initial: int = 0) -> tqdm:
    """A bar over `total` steps, drawn if `show` and not switched off."""
    return tqdm(total=total, desc=description, initial=initial, disable=SILENT or not show)
