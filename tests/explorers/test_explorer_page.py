"""The rank explorer in a browser: what it shows is what was recorded."""

import copy
import re

import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

import beamlora_mini as bl
from beamlora_mini.machine import data_folder


@pytest.fixture(scope="module")
def history(loaded_tiny):
    history = bl.RankHistory(every=2)
    method = bl.BeamLoRA(r=4, period=10, p_start=0.7)
    bl.fit(
        copy.deepcopy(loaded_tiny[0]), "subtraction", method=method, steps=40, lr=8e-3, history=history,
        progress=False,
    )  # fmt: skip
    assert {event.step for event in history.events} == {10, 20}
    return history


@pytest.fixture(scope="module")
def saved(history, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "explorer.html"
    bl.explore(history).save(path)
    return path


@pytest.fixture
def explorer(saved, open_page):
    return lambda fragment="", **options: open_page(saved, fragment, **options)


def state(page):
    return page.evaluate("explorer.state()")


def test_every_step_shows_what_was_recorded(explorer, history):
    page = explorer()
    for step, of in zip(history.steps, history.importance):
        page.evaluate("step => explorer.go(step)", step)
        seen = state(page)
        assert seen["step"] == step and seen["importance"].keys() == of.keys()
        for name, values in of.items():
            assert seen["importance"][name] == pytest.approx(values.tolist(), rel=1e-6)
    page.evaluate("explorer.go(17)")  # not recorded: the record before it
    assert state(page)["step"] == 16


def test_families_are_those_of_the_lineage(explorer, history):
    page = explorer()
    last = history.lineage().query("step == step.max()").set_index("module")
    for name in list(history.importance[0])[::5]:
        page.evaluate("name => explorer.choose(name)", name)
        assert state(page)["founders"] == last.ancestor[name].nunique()
        words = page.locator(".ranks + p").inner_text()
        assert f"{last.ancestor[name].nunique()} of 4 first ranks have descendants" in words


def test_a_rank_lights_up_its_line(explorer, history):
    event = next(event for event in history.events if event.step == 20)
    page = explorer("#step=40")
    page.evaluate("name => explorer.choose(name)", event.module)
    page.evaluate("explorer.go(20)")
    before = page.locator("canvas").nth(2).screenshot()
    page.locator(".ranks").get_by_role("button").nth(event.slot).click()
    words = page.locator(".ranks + p").inner_text()
    assert f"copied into slot {event.slot} at step 20" in words
    assert page.locator("canvas").nth(2).screenshot() != before
    page.locator(".ranks").get_by_role("button").nth(event.slot).click()
    assert state(page)["rank"] is None


def test_an_event_says_who_fell_and_why(explorer, history):
    page = explorer("#step=20")
    fallen = sum(event.step == 20 for event in history.events)
    p = next(event.threshold for event in history.events if event.step == 20)
    words = page.locator("section", has_text="How the event chose").inner_text()
    assert (
        f"{fallen} of the {28 * 4} ranks of all modules fell" in words
        and f"{100 * p:.1f} %" in words
    )
    assert "not recorded" not in words
    pool = page.evaluate("explorer.pool(20)")
    values = torch.cat([*history.before[20].values()]).sort(descending=True).values
    assert pool["values"] == pytest.approx(values.tolist(), rel=1e-6)
    first = pool["fell"].index(True)
    assert values[: first + 1].sum() > p * values.sum() > values[:first].sum()


def test_play_slider_and_keys_move_it(explorer):
    page = explorer("#step=0")
    page.get_by_role("button", name="play", exact=True).click()
    page.wait_for_function(
        "explorer.state().step === 40 && !explorer.state().playing", timeout=20_000
    )
    page.locator("h1").click()
    for key, step in (("Home", 0), ("ArrowRight", 2), ("End", 40), ("ArrowLeft", 38)):
        page.keyboard.press(key)
        assert state(page)["step"] == step
    module = state(page)["module"]
    page.keyboard.press("ArrowUp" if state(page)["shown"][-1] == module else "ArrowDown")
    assert state(page)["module"] != module
    page.get_by_label("recorded step").focus()
    page.keyboard.press("Home")
    assert state(page)["step"] == 0
    page.get_by_role("button", name="one record on").click()
    assert state(page)["step"] == 2


def test_sort_and_filter(explorer, history):
    page = explorer("#step=30")
    page.get_by_role("combobox", name="kind").select_option("q_proj")
    assert {name.rsplit(".", 1)[-1] for name in state(page)["shown"]} == {"q_proj"}
    page.get_by_role("combobox", name="block").select_option("2")
    assert state(page)["shown"] == ["model.layers.2.self_attn.q_proj"]
    page = explorer("#step=30")
    page.get_by_role("combobox", name="sort").select_option("most uneven first")
    of = history.importance[history.steps.index(30)]
    spreads = {name: (values.max() - values.min()).item() for name, values in of.items()}
    assert state(page)["shown"][0] == max(spreads, key=lambda name: spreads[name])
    page.get_by_role("combobox", name="sort").select_option("most replaced first")
    counts = [sum(e.module == name for e in history.events) for name in state(page)["shown"]]
    assert counts == sorted(counts, reverse=True)


def test_a_click_on_the_map_chooses_a_module(explorer):
    page = explorer()
    box = page.locator("canvas").nth(1).bounding_box()
    page.mouse.click(box["x"] + box["width"] - 30, box["y"] + box["height"] - 6)
    assert state(page)["module"] == "model.layers.3.mlp.down_proj"


def test_the_address_holds_the_view(explorer):
    page = explorer("#step=20&module=model.layers.1.mlp.up_proj&sort=kind&kind=up_proj&shape=lines")
    seen = state(page)
    assert (
        seen["module"] == "model.layers.1.mlp.up_proj"
        and seen["step"] == 20
        and len(seen["shown"]) == 4
    )
    assert state(explorer(seen["fragment"])) == seen
    assert state(explorer("#module=nobody&step=x&sort=y"))["step"] == 0


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_to_mend(explorer, theme):
    page = explorer("#step=20", color_scheme=theme)
    page.locator("summary").click()
    page.locator(".ranks button").first.click()
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize("width", [380, 3840])
def test_it_fits_a_phone_and_a_wall(explorer, width):
    page = explorer("#step=20", viewport={"width": width, "height": 900})
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width


def test_words_and_table_say_what_the_pictures_show(explorer, history):
    page = explorer("#step=20")
    seen = state(page)
    values = seen["importance"][seen["module"]]
    page.locator("summary").click()
    expect(page.locator("table")).to_contain_text(f"{values[0]:.3f}"[:4])
    names = page.evaluate(
        "[...document.querySelectorAll('canvas')].map(c => c.getAttribute('aria-label'))"
    )
    assert len(names) == 4 and all(names)
    assert re.search(rf"The widest is rank {values.index(max(values))}\b", " ".join(names))


def test_the_recorded_run_is_quick_and_small(open_page, tmp_path):
    history = bl.RankHistory.load(data_folder() / "runs" / "smollm2_beamlora.parquet")
    path = tmp_path / "run.html"
    bl.explore(history).save(path)
    assert path.stat().st_size < 3_000_000
    page = open_page(path)
    costs = page.evaluate(
        """steps => steps.map((step) => {
            const start = performance.now();
            explorer.go(step);
            return performance.now() - start;
        })""",
        history.steps[1:],
    )
    assert sorted(costs)[len(costs) // 2] < 50, costs


def test_other_histories_are_shown_too(open_page, loaded_tiny, tmp_path):
    for method in (bl.AdaLoRA(r=4, target_r=2, tinit=2, tfinal=8, deltaT=2), bl.ReLoRA(r=3, merge_every=8, restart_warmup=2),
                   bl.IncreLoRA(r=1, target_r=2, init_warmup=2, incre_interval=2), bl.LoRA(r=2)):  # fmt: skip
        history = bl.RankHistory(every=4)
        model = copy.deepcopy(loaded_tiny[0])
        bl.fit(
            model, "subtraction", method=method, steps=30, lr=4e-3, history=history, progress=False
        )
        bl.explore(history).save(tmp_path / "run.html")
        page = open_page(tmp_path / "run.html")
        for step, of in zip(history.steps, history.importance):
            page.evaluate("step => explorer.go(step)", step)
            for name, values in of.items():
                assert state(page)["importance"][name] == pytest.approx(values.tolist(), rel=1e-6)
        page.get_by_role("button", name="lines").click()


def test_bad_arguments_are_named(history):
    with pytest.raises(ValueError, match="modules='nobody'"):
        bl.explore(history, modules=["nobody"])
    with pytest.raises(ValueError, match="nothing is recorded"):
        bl.explore(bl.RankHistory())


def test_a_part_of_the_modules_is_shown_with_the_pool_of_all(open_page, history, tmp_path):
    names = [name for name in history.importance[0] if name.endswith("q_proj")]
    view = bl.explore(history, modules=names)
    view.save(tmp_path / "part.html")
    page = open_page(tmp_path / "part.html", "#step=20")
    assert list(state(page)["importance"]) == names
    assert len(page.evaluate("explorer.pool(20)")["values"]) == 28 * 4
    shown = view._repr_mimebundle_()
    assert (
        set(shown) == {"text/html", "image/png", "text/plain"} and "<iframe" in shown["text/html"]
    )
