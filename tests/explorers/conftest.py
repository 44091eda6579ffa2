"""A browser for the pages: any Chromium that is there."""

import os
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

NAMES = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "msedge",
)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
HOW = "no Chromium to open the pages with: install one, or run `python -m playwright install chromium`"


@pytest.fixture(scope="session")
def browser():
    """Skips where there is none, but where BEAMLORA_BROWSER=required says that there has to be one."""
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
        found = next(filter(None, map(shutil.which, NAMES)), own if Path(own).exists() else None)
        if found is None and os.environ.get("BEAMLORA_BROWSER") == "required":
            pytest.fail(HOW)
        if found is None:
            pytest.skip(HOW)
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser):
    """open_page(path, fragment, **options of the browser's context): a page with the network cut. A test
    ends well only if no script failed and nothing was asked of a network."""
    contexts, wrong = [], []

    def open_(path: Path, fragment: str = "", **options):
        context = browser.new_context(**options)
        contexts.append(context)
        context.set_offline(True)
        context.set_default_timeout(120_000)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: said.type == "error" and wrong.append(said.text))
        page.on(
            "request",
            lambda asked: (
                asked.url.startswith(("file:", "data:", "about:")) or wrong.append(asked.url)
            ),
        )
        page.goto(path.as_uri() + fragment)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert not wrong
