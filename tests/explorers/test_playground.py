"""The playground: its runs are `fit`'s, the kernel stays free, and its page follows."""

import asyncio
import copy
import json
from concurrent.futures import ThreadPoolExecutor

import make_pages
import pytest
import torch
from axe_playwright_python.sync_playwright import Axe

import beamlora_mini as bl
from beamlora_mini.explorers.live import LiveRun, method_of
from beamlora_mini.explorers.playground import LANE
from beamlora_mini.explorers.settings import METHODS

SHORT = {"steps": 12, "period": 4, "snapshot_lag": 2, "r": 4, "batch_size": 8}


@pytest.mark.parametrize("name", METHODS)
def test_a_live_run_is_what_fit_does(loaded_tiny, name):
    method = method_of(LANE | {"method": name, "period": 4, "snapshot_lag": 2, "r": 4}, 12)
    random = torch.random.get_rng_state()
    live = LiveRun(loaded_tiny[0], "subtraction", method, steps=12, lr=4e-3, batch_size=8, seed=3)
    while live.n < live.steps:
        live.step()
    assert torch.equal(torch.random.get_rng_state(), random)
    assert not bl.adapter_layers(loaded_tiny[0])
    fitted, history = copy.deepcopy(loaded_tiny[0]), bl.RankHistory(every=2)
    bl.fit(
        fitted,
        "subtraction",
        method=method,
        steps=12,
        lr=4e-3,
        batch_size=8,
        seed=3,
        history=history,
        progress=False,
    )
    assert live.history.events == history.events and live.history.losses[1:] == history.losses[1:]
    for one, other in zip(live.history.importance, history.importance, strict=True):
        assert all(torch.equal(values, other[module]) for module, values in one.items())


def in_a_loop(coroutine):
    """In a thread of its own: a browser that is open keeps a loop in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()


def told(widget):
    messages = []
    widget.send = messages.append
    return messages


async def until(done):
    for _ in range(2000):
        if done():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it takes too long")


def test_start_pause_go_on_and_reset():
    widget = bl.playground(**SHORT, compare={"method": "LoRA"})
    messages = told(widget)

    async def use():
        widget.hear({"do": "start"})
        assert widget.status["running"]
        await until(lambda: widget.status["step"] >= 4)
        ticks = 0
        while ticks < 3:  # the loop is free in between
            await asyncio.sleep(0)
            ticks += 1
        widget.hear({"do": "pause"})
        await asyncio.sleep(0.3)
        paused = widget.status["step"]
        await asyncio.sleep(0.3)
        assert widget.status["step"] == paused < 12 and not widget.status["running"]
        widget.hear({"do": "start"})
        await until(lambda: not widget.status["running"])

    in_a_loop(use())
    assert widget.status == {"running": False, "step": 12, "error": ""}
    history = widget.history("a")
    assert isinstance(history, bl.RankHistory) and history.steps[-1] == 12 and history.events
    assert widget.history("b").losses[-1] > 0
    begins = [m["lane"] for m in messages if "record" in m]
    steps = [
        s for m in messages if m.get("lane") == "a" for s in m.get("record", m.get("more"))["steps"]
    ]
    assert begins == ["a", "b"] and steps == history.steps
    widget.hear({"do": "reset"})
    assert messages[-1] == {"clear": True} and widget.status["step"] == 0
    with pytest.raises(KeyError):
        widget.history("a")


def test_a_finished_run_that_is_started_again_is_shown_anew():
    widget = bl.playground(**SHORT)
    messages = told(widget)

    async def use():
        for _ in "12":
            widget.start()
            await until(lambda: not widget.status["running"])

    in_a_loop(use())
    begins = [k for k, message in enumerate(messages) if "record" in message]
    assert len(begins) == 2 and {"clear": True} in messages[begins[0] : begins[1]]
    again = [s for m in messages[begins[1] :] for s in m.get("record", m.get("more"))["steps"]]
    assert again == widget.history().steps


def test_a_page_that_comes_later_is_told_everything():
    widget = bl.playground(**SHORT)
    messages = told(widget)

    async def use():
        widget.start()
        await until(lambda: not widget.status["running"])

    in_a_loop(use())
    messages.clear()
    widget.hear({"do": "hello"})
    assert [m["record"]["steps"] for m in messages] == [widget.history().steps]
    json.dumps(messages)


def test_a_run_whose_page_is_gone_pauses(monkeypatch):
    monkeypatch.setattr("beamlora_mini.explorers.widget.PATIENCE", -1)
    widget = bl.playground(**SHORT)
    told(widget)

    async def use():
        widget.start()
        await until(lambda: not widget.status["running"])

    in_a_loop(use())
    assert widget.status["step"] == 0


def test_other_settings_begin_anew_and_what_can_t_be_is_said():
    widget = bl.playground(**SHORT)
    told(widget)

    async def use():
        widget.start()
        await until(lambda: not widget.status["running"])
        widget.settings = {**widget.settings, "a": {**widget.settings["a"], "lr": 1e30}}
        assert widget.status["step"] == 0 and not widget.runs
        widget.start()
        await until(lambda: not widget.status["running"])
        assert "the loss is" in widget.status["error"]
        widget.settings = {
            **widget.settings,
            "a": {**widget.settings["a"], "lr": 1e-3, "snapshot_lag": 9},
        }
        widget.start()
        await until(lambda: not widget.status["running"])
        assert "snapshot_lag=9" in widget.status["error"]

    in_a_loop(use())
    with (
        ThreadPoolExecutor(1) as thread,
        pytest.raises(RuntimeError, match="no running event loop"),
    ):
        thread.submit(widget.start).result()
    for wrong in (
        {"rank": 3},
        {"method": "QLoRA"},
        {"task": "word_problems"},
        {"compare": {"steps": 3}},
    ):
        with pytest.raises(ValueError, match="allowed"):
            bl.playground(**wrong)


def test_it_is_shown_by_a_picture_where_widgets_are_off(monkeypatch):
    monkeypatch.delenv("BEAMLORA_WIDGETS", raising=False)
    assert "application/vnd.jupyter.widget-view+json" in bl.playground()._repr_mimebundle_()[0]
    monkeypatch.setenv("BEAMLORA_WIDGETS", "off")
    shown = bl.playground()._repr_mimebundle_()
    assert set(shown) == {"text/html", "text/plain"} and "<img alt=" in shown["text/html"]
    assert repr(bl.playground()) == repr(bl.playground()) == shown["text/plain"]


@pytest.fixture(scope="module")
def replay(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "playground.html"
    widget = bl.playground(**SHORT, compare={"method": "LoRA"})
    path.write_text(make_pages.replayed(widget), encoding="utf-8")
    return path, widget


def test_its_page_shows_the_runs_and_sends_what_the_reader_wants(replay, open_page):
    path, widget = replay
    page = open_page(path)
    assert page.locator(".count").first.inner_text() == "12 of 12 steps"
    assert (
        page.locator("section[aria-label='second lane'] h2").first.inner_text()
        == "Second lane: LoRA"
    )
    loss = widget.history("a").losses[-1]
    assert f"{loss:.3f}" in page.locator(".head span").first.inner_text()
    page.locator("button.play").first.click()
    page.get_by_role("button", name="reset").click()
    assert page.evaluate("sent.map(m => m.do)") == ["hello", "start", "reset"]
    for name in ("lr", "r", "steps", "temperature"):
        slider = page.locator(f'[data-name="{name}"]')
        before = page.evaluate("JSON.stringify(model.get('settings'))")
        slider.focus()
        page.keyboard.press("ArrowRight" if name == "steps" else "ArrowLeft")
        assert page.evaluate("JSON.stringify(model.get('settings'))") != before
        assert page.evaluate("document.activeElement.dataset.name") == name
    page.get_by_role("button", name="second lane").click()
    page.locator('[data-name="method-DoRA"]').click()
    assert page.evaluate("model.get('settings').b.method") == "DoRA"
    page.get_by_role("button", name="one lane").click()
    assert page.evaluate("model.get('settings').b") is None


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_to_mend(replay, open_page, theme):
    page = open_page(replay[0], color_scheme=theme, viewport={"width": 1300, "height": 900})
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert (
        open_page(replay[0], viewport={"width": 380, "height": 700}).evaluate(
            "document.scrollingElement.scrollWidth"
        )
        <= 380
    )
