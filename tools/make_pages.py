"""Usage: python tools/make_pages.py

Writes the pages of docs/ that come from the package, and their pictures (which takes a Chromium, as the tests do).
"""

import asyncio
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

import beamlora_mini as bl
from beamlora_mini.explorers.lab import LABS
from beamlora_mini.explorers.page import picture_file
from beamlora_mini.machine import data_folder

DOCS = Path(__file__).resolve().parent.parent / "docs"
VIEW = {"width": 1280, "height": 800}


def pages() -> dict[str, str]:
    """{name: text} of every page."""
    labs = {f"lab_{name}.html": bl.lab(name).page() for name in LABS}
    return {"arena.html": bl.arena(method="BeamLoRA").page()} | labs


def replayed(widget: Any) -> str:
    """A page that shows what the playground's page is told in a whole run, without a kernel."""
    told: list[dict] = []
    widget.send = told.append

    async def run() -> None:
        widget.start()
        while widget.status["running"]:
            await asyncio.sleep(0.01)

    with ThreadPoolExecutor(1) as thread:  # whose event loop is nobody else's
        thread.submit(asyncio.run, run()).result()
    state = {"settings": widget.settings, "status": widget.status, "tasks": widget.tasks}
    script = widget._esm.replace("export default { render };", "")
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>Playground</title><body style="margin:0"><main id="root"></main>
<script type="module">
{script}
const state = {json.dumps(state)};
const heard = {{}};
const model = {{
  get: (name) => state[name], set: (name, value) => {{ state[name] = value; heard[`change:${{name}}`]?.(); }}, save_changes() {{}},
  on: (name, listener) => {{ heard[name] = listener; }}, off() {{}}, send: (message) => window.sent.push(message),
}};
window.sent = [];
window.model = model;
render({{ model, el: document.getElementById("root") }});
for (const message of {json.dumps(told)}) heard["msg:custom"](message);
</script></body></html>"""


def main(chromium: str | None = None) -> None:
    for name, text in pages().items():
        (DOCS / name).write_text(text, encoding="utf-8")
    recorded = bl.RankHistory.load(data_folder() / "runs" / "smollm2_beamlora.parquet")
    played = replayed(bl.playground(steps=80, compare={"method": "LoRA"}))
    with sync_playwright() as playwright, TemporaryDirectory() as folder:
        explorer = Path(folder) / "explorer.html"
        bl.explore(recorded).save(explorer)
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])

        def draw(path: Path, fragment: str, picture: Path, size: dict) -> None:
            page = browser.new_page(viewport=size)
            page.goto(path.as_uri() + fragment)
            page.wait_for_timeout(500)
            page.screenshot(path=picture)
            few = Image.open(picture).convert("RGB").quantize(64, Image.Quantize.MEDIANCUT)
            few.save(picture, optimize=True)

        replay = Path(folder) / "playground.html"
        replay.write_text(played, encoding="utf-8")
        draw(replay, "", picture_file("playground"), {"width": 1000, "height": 900})
        draw(DOCS / "arena.html", "#method=BeamLoRA&b.method=LoRA&n=165", DOCS / "arena.png", VIEW)
        draw(explorer, "#step=80", DOCS / "explorer.png", {"width": 1280, "height": 1100})
        for name in LABS:
            draw(DOCS / f"lab_{name}.html", "", picture_file(name), {"width": 1000, "height": 640})
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
