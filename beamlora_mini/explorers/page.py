"""One self-contained page of an explorer's modules: it opens from disk, and asks the network for nothing."""

from __future__ import annotations

import base64
import html
import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

# A module's imports, and what a page can do without: comments and indentation.
LEFT_OUT = re.compile(
    r'^import [^;]* from "\./[\w.]+";\n|^ *//[^\n]*\n|^ */\*\*.*?\*/\n|^ +',
    re.MULTILINE | re.DOTALL,
)


def bundle(*modules: str) -> str:
    """ES modules of this folder as one: in the order given, each after what it imports."""
    folder = resources.files(__package__)
    texts = [(folder / name).read_text(encoding="utf-8") for name in modules]
    return "\n".join(LEFT_OUT.sub("", text) for text in texts)


def page(title: str, script: str, name: str, settings: dict) -> str:
    """A page whose body is what `mount` of the script makes; its API is `window.<name>`."""
    given = json.dumps(settings).replace("<", "\\u003c")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>html {{ color-scheme: light dark; }} html {{ scroll-padding-bottom: 6rem; }} body {{ margin: 0; }}</style>
</head>
<body>
<div id="{name}"></div>
<noscript>This page computes in the browser: it needs JavaScript.</noscript>
<script type="module">
{script}
const root = document.getElementById({json.dumps(name)});
window.{name} = mount(root, {{ settings: {given}, fragment: location.hash }});
window.{name}.onstate((fragment) => location.protocol !== "about:" && history.replaceState(null, "", fragment));
window.addEventListener("hashchange", () => window.{name}.load(location.hash));
</script>
</body>
</html>
"""


def in_base64(given: bytes | np.ndarray) -> str:
    """Bytes, or the numbers of an array as they lie in memory."""
    return base64.b64encode(given if isinstance(given, bytes) else given.tobytes()).decode()


def picture_file(name: str) -> Path:
    """Where the picture of how a page opens lies, PNG (tools/make_pages.py draws it)."""
    return Path(str(resources.files(__package__) / "pictures" / f"{name}.png"))


def stored_picture(name: str) -> str:
    """The picture of how a page opens, PNG in base64."""
    return in_base64(picture_file(name).read_bytes())


def figure(png: str, alt: str) -> str:
    """A picture (PNG in base64) that stands for a page, with what it shows."""
    said = html.escape(alt)
    return (
        f'<figure class="picture" style="margin:0"><img alt="{said}" style="max-width:100%;background:#fff" '
        f'src="data:image/png;base64,{png}"><figcaption>{said}</figcaption></figure>'
    )


class PageView:
    """What `arena`, `explore` and `lab` return: a page, shown in a notebook or saved as a file.

    title: of the page; alt: what its picture shows, which stands where pages do not run; height: of the frame, in
    CSS pixels.
    """

    title: str
    alt: str
    height = 900

    def page(self) -> str:
        """The page: HTML that needs nothing else."""
        raise NotImplementedError

    def picture(self) -> str:
        """The picture that stands for it, PNG in base64."""
        raise NotImplementedError

    def save(self, path: str | Path) -> None:
        """Write the page to a file; it opens from disk, without a network."""
        Path(path).write_text(self.page(), encoding="utf-8")

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        """The page in a frame, and a figure that is hidden unless frames are taken out: whoever takes them out (a
        notebook that is not trusted, GitHub) takes the style out as well."""
        png, title = self.picture(), html.escape(self.title)
        look = "border:1px solid #ccc;border-radius:8px"
        shown = (
            "<style>iframe.page + figure.picture { display: none }</style>"
            f'<iframe class="page" title="{title}" srcdoc="{html.escape(self.page())}" width="100%" '
            f'height="{self.height}" style="{look}" loading="lazy"></iframe>'
            + figure(png, self.alt)
        )
        return {"text/html": shown, "image/png": png, "text/plain": repr(self)}

    def __repr__(self) -> str:
        return f"<{self.title}: a page to play with>"
