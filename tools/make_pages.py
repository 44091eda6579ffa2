"""Usage: python tools/make_pages.py

Writes the pages of docs/ that come from the package, and their pictures (which takes a Chromium, as the tests do).
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import sync_playwright

import beamlora_mini as bl
from beamlora_mini.explorers.lab import LABS, picture
from beamlora_mini.machine import data_folder

DOCS = Path(__file__).resolve().parent.parent / "docs"
VIEW = {"width": 1280, "height": 800}


def pages() -> dict[str, str]:
    """{name: text} of every page."""
    labs = {f"lab_{name}.html": bl.lab(name).page() for name in LABS}
    return {"arena.html": bl.arena(method="BeamLoRA").page()} | labs


def main(chromium: str | None = None) -> None:
    for name, text in pages().items():
        (DOCS / name).write_text(text, encoding="utf-8")
    recorded = bl.RankHistory.load(data_folder() / "runs" / "smollm2_beamlora.parquet")
    with sync_playwright() as playwright, TemporaryDirectory() as folder:
        explorer = Path(folder) / "explorer.html"
        bl.explore(recorded).save(explorer)
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])

        def draw(path: Path, fragment: str, picture: Path, size: dict) -> None:
            page = browser.new_page(viewport=size)
            page.goto(path.as_uri() + fragment)
            page.wait_for_timeout(500)
            page.screenshot(path=picture)

        draw(DOCS / "arena.html", "#method=BeamLoRA&b.method=LoRA&n=165", DOCS / "arena.png", VIEW)
        draw(explorer, "#step=80", DOCS / "explorer.png", {"width": 1280, "height": 1100})
        for name in LABS:
            draw(DOCS / f"lab_{name}.html", "", picture(name), {"width": 1000, "height": 640})
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
