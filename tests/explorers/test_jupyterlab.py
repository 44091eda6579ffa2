"""JupyterLab opened as a reader opens it: the tour, and the playground with its kernel."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
PLAY = """import beamlora_mini as bl
p = bl.playground(steps=60, period=20, snapshot_lag=2, r=4, compare={"method": "LoRA"})
p"""
EXPORT = """p.history("a").save("run.parquet")
print("exported", bl.RankHistory.load("run.parquet").steps[-1])"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a server on copies of the notebooks."""
    folder = tmp_path_factory.mktemp("lab")
    shutil.copy(NOTEBOOKS / "00_tour.ipynb", folder)
    cells = [new_code_cell(PLAY), new_code_cell(EXPORT)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=cells, metadata=kernel), folder / "play.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {
        f"JUPYTER_{name}_DIR": str(folder / f".{name}") for name in ("CONFIG", "DATA", "RUNTIME")
    }
    environment = {k: v for k, v in os.environ.items() if k != "BEAMLORA_WIDGETS"} | own
    environment |= {
        "JUPYTERLAB_SETTINGS_DIR": str(folder / ".settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / ".spaces"),
    }
    subprocess.run(
        [sys.executable, "-m", "nbformat.sign", folder / "00_tour.ipynb"],
        env=environment,
        check=True,
    )
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        f"--port={port}",
        "--allow-root",
        "--IdentityProvider.token=",
    ]
    log = (folder / "log").open("w")
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log) as server:
        address = f"http://127.0.0.1:{port}/lab/tree"
        for _ in range(120):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api", timeout=1)
                break
            except OSError:
                time.sleep(0.5)
        yield address
        server.terminate()


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    context.set_default_timeout(180_000)
    yield context.new_page()
    context.close()


def run_cell(page, k):
    """Once the kernel is there: a cell that is run before is forgotten."""
    page.get_by_text("| Idle").wait_for()
    page.locator(".jp-Notebook .jp-CodeCell").nth(k).click()
    page.keyboard.press("Control+Enter")


def test_the_tour_opens_with_an_arena_that_runs_before_a_cell_does(lab, page):
    page.goto(f"{lab}/00_tour.ipynb?reset")
    arena = page.frame_locator("iframe").first
    arena.get_by_role("button", name="play", exact=True).click(timeout=180_000)
    frame = next(frame for frame in page.frames if frame.url == "about:srcdoc")
    frame.wait_for_function("arena.state().n > 5")
    slider = arena.locator('[data-name="lr"]')
    slider.scroll_into_view_if_needed()
    before = frame.evaluate("arena.state().a.settings.lr")
    box = slider.bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.9, box["y"] + box["height"] / 2)
    assert frame.evaluate("arena.given('a').lr") > before


def test_the_playground_is_started_paused_and_exported(lab, page):
    page.goto(f"{lab}/play.ipynb?reset")
    run_cell(page, 0)
    start = page.locator(".playground > header .play")
    start.click(timeout=180_000)
    page.wait_for_function(
        "document.querySelector('.playground .count span').textContent !== '0'", timeout=180_000
    )
    start.click()
    page.wait_for_function(
        "document.querySelector('.playground > header .play').textContent.includes('go on')",
        timeout=180_000,
    )
    start.click()
    page.wait_for_function(
        "document.querySelector('.playground .count span').textContent === '60'", timeout=180_000
    )
    assert page.locator(".playground section[aria-label='second lane'] canvas").count() > 2
    run_cell(page, 1)
    page.get_by_text("exported 60").wait_for(timeout=180_000)
