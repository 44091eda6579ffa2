"""Usage: python tools/make_pages.py

Writes the pages of docs/ that come from the package, and their pictures (which takes a Chromium, as the tests do).
"""

import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

import beamlora_mini as bl

DOCS = Path(__file__).resolve().parent.parent / "docs"
VIEW = {"width": 1280, "height": 800}


def pages() -> dict[str, str]:
    """{name: text} of every page."""
    return {"arena.html": bl.arena(method="BeamLoRA").page()}


def main(chromium: str | None = None) -> None:
    for name, text in pages().items():
        (DOCS / name).write_text(text, encoding="utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport=VIEW)
        page.goto((DOCS / "arena.html").as_uri() + "#method=BeamLoRA&b.method=LoRA&n=165")
        page.screenshot(path=DOCS / "arena.png")
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
