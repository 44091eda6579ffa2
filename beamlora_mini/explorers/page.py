"""One self-contained page of an explorer's modules: it opens from disk, and asks the network for nothing."""

from __future__ import annotations

import html
import json
import re
from importlib import resources

# A module's imports, and comments, which a page can do without.
LEFT_OUT = re.compile(
    r'^import [^\n]* from "\./[\w.]+";\n|^ *//[^\n]*\n|^ */\*\*.*?\*/\n', re.MULTILINE | re.DOTALL
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


def framed(title: str, text: str, png: str, alt: str, height: int = 900) -> str:
    """A page as HTML for a notebook's output: a frame, and a picture (PNG in base64) where frames are taken out.

    Whoever takes frames out (a notebook that is not trusted, GitHub) takes the style out as well, which else hides
    the picture.
    """
    frame = (
        f'<iframe class="page" title="{html.escape(title)}" srcdoc="{html.escape(text)}" width="100%" '
        f'height="{height}" style="border:1px solid #ccc;border-radius:8px" loading="lazy"></iframe>'
    )
    image = f'<img alt="{html.escape(alt)}" style="max-width:100%;background:#fff" src="data:image/png;base64,{png}">'
    words = f"<figcaption>{html.escape(alt)}</figcaption>"
    return (
        f"<style>iframe.page + figure.picture {{ display: none }}</style>{frame}"
        f'<figure class="picture" style="margin:0">{image}{words}</figure>'
    )
