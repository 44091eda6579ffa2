"""The laboratories in a browser: what they show is what the package does."""

import math
import random

import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from torch import nn

import beamlora_mini as bl
from beamlora_mini import ranks
from beamlora_mini.explorers.lab import LABS
from beamlora_mini.explorers.page import picture_file
from beamlora_mini.explorers.settings import complete
from beamlora_mini.explorers.twin import Draws, MatrixWorld, method_of, start
from beamlora_mini.layers import attach
from beamlora_mini.ranks import Snapshot

FRESH = 7  # the stream that noise is drawn from


@pytest.fixture
def lab(open_page, tmp_path):
    """lab(name, fragment, weight=..., **options of the page): the page, opened."""

    def open_(name, fragment="", weight=None, **options):
        path = tmp_path / f"{name}.html"
        bl.lab(name, weight=weight).save(path)
        return open_page(path, fragment, **options)

    return open_


def state(page):
    return page.evaluate("lab.state()")


class Watched:
    """A run of the package in the arena's matrix world, step by step."""

    def __init__(self, **given):
        self.settings = complete(**given)
        self.world = MatrixWorld(self.settings)
        (self.layer,) = attach(self.world.model.train(), method_of(self.settings)).values()
        start(self.layer, 0, self.settings)
        self.run = bl.Run(self.world.model, steps=self.settings["steps"], lr=self.settings["lr"])
        self.left = [self.world.left()]
        self.rates = []

    def to(self, n):
        while self.run.n < n:
            self.rates.append(self.run.optimizer.param_groups[0]["lr"])
            self.world.loss(*self.world.batch(self.run.n)).backward()
            self.run.update()
            self.left.append(self.world.left())
        return self

    def cosine(self, slot, source):
        of = [(self.layer.lora_A[i], self.layer.lora_B[:, i]) for i in (slot, source)]
        (a, b), (c, d) = of
        return (torch.cosine_similarity(a, c, 0) * torch.cosine_similarity(b, d, 0)).item()


# --- what they show ---


@pytest.mark.parametrize("kind", [bl.PiSSA, bl.MiLoRA])
def test_spectrum_takes_what_the_method_takes(lab, kind):
    weight = torch.randn(20, 12, generator=torch.Generator().manual_seed(0))
    page = lab("spectrum", weight=weight)
    for r in (1, 4, 12):
        page.evaluate("given => lab.set(given)", {"r": r, "method": kind.__name__})
        model = nn.Sequential(nn.Linear(12, 20, bias=False))
        model[0].weight.data = weight.clone()
        layer = bl.attach(model, kind(r=r, lora_alpha=r))["0"]
        seen = state(page)
        taken = layer.scaling * layer.lora_B @ layer.lora_A
        torch.testing.assert_close(
            torch.tensor(seen["taken"], dtype=torch.float32), taken.detach(), atol=1e-5, rtol=0
        )
        torch.testing.assert_close(
            torch.tensor(seen["left"], dtype=torch.float32),
            weight - taken.detach(),
            atol=1e-5,
            rtol=0,
        )
        assert seen["share"] == pytest.approx((taken.norm() / weight.norm()).item() ** 2, abs=1e-5)


def test_pruning_chooses_as_the_package_chooses(lab):
    page = lab("pruning")
    draw = random.Random(0)
    for _ in range(12):
        scores = {f"score{m}{i}": round(draw.uniform(-1, 1), 2) for m in range(2) for i in range(6)}
        given = {"temperature": draw.choice([0.05, 0.3, 1.2]), "p": draw.choice([0.6, 0.9, 1]),
                 "scope": draw.choice(["global", "module"]), "max_prune_fraction": draw.choice([0.17, 0.5, 1])}  # fmt: skip
        page.evaluate("given => lab.set(given)", scores | given)
        of = torch.tensor([*scores.values()], dtype=torch.double).reshape(2, 6)
        weights = {m: ranks.score_importance(of[m], given["temperature"]) for m in range(2)}
        masks = ranks.top_p_mask(
            weights,
            given["p"],
            scope=given["scope"],
            max_prune_fraction=given["max_prune_fraction"],
        )
        seen = state(page)
        torch.testing.assert_close(
            torch.tensor(seen["weights"], dtype=torch.double), torch.stack([*weights.values()])
        )
        assert seen["mask"] == [mask.tolist() for mask in masks.values()]


@pytest.mark.parametrize(
    ("vectors", "moments", "lag", "noise"),
    [("now", "now", 0, 0), ("then", "then", 20, 0), ("then", "now", 10, 0), ("now", "then", 40, 0),
     ("then", "zero", 5, 0), ("now", "zero", 20, 0), ("then", "then", 20, 0.1)],
)  # fmt: skip
def test_twins_part_as_they_do_in_the_package(lab, vectors, moments, lag, noise):
    given = {"vectors": vectors, "moments": moments, "lag": lag, "noise": noise, "seed": 3}
    page = lab("twins")
    page.evaluate("given => lab.set(given)", given)
    seen = state(page)
    slot, source = seen["slot"], seen["source"]
    run = Watched(method="LoRA", seed=3, r=6, true_rank=8, lr=0.02, steps=160, alpha=6).to(60 - lag)
    then = ranks.take_snapshot(run.world.model, run.run.optimizer).of(run.layer)
    run.to(60)
    now = ranks.take_snapshot(run.world.model, run.run.optimizer).of(run.layer)
    of = {part: (now if vectors == "now" else then)[part] for part in ("lora_A", "lora_B")}
    if moments != "zero":
        memory = now if moments == "now" else then
        of |= {part: value for part, value in memory.items() if "." in part}
    mixed = Snapshot({"0": of}, {run.layer: "0"})
    ranks.expand_ranks_(run.layer, run.run.optimizer, [slot], [source], mixed)
    if noise:
        draws = Draws(3, FRESH, 0, 60, slot)
        for row in (run.layer.lora_A.data[slot], run.layer.lora_B.data[:, slot]):
            size = row.square().mean().sqrt()
            row += noise * size * draws.normals(1, len(row), 1.0)[0]
    run.left[-1] = run.world.left()
    cosines = [run.cosine(slot, source)]
    for n in range(61, 161):
        cosines.append(run.to(n).cosine(slot, source))
    assert seen["curve"] == pytest.approx(run.left, abs=1e-6)
    assert seen["cosines"] == pytest.approx(cosines, abs=1e-5)
    assert seen["jump"] == pytest.approx(run.left[60] - seen["curve"][59], abs=1e-6)


def test_direction_measures_the_package_s_rows(lab):
    page = lab("direction", "#step=60&r=3&seed=2")
    for lane in state(page)["lanes"]:
        run = Watched(**lane["given"]).to(60)
        before = run.layer.base.weight.detach()
        after = before + run.layer.delta_weight().detach()
        turns = torch.rad2deg(torch.cosine_similarity(before, after).clamp(-1, 1).acos())
        longer = 100 * (after.norm(dim=1) / before.norm(dim=1) - 1)
        assert [row["turn"] for row in lane["rows"]] == pytest.approx(turns.tolist(), abs=1e-4)
        assert [row["longer"] for row in lane["rows"]] == pytest.approx(longer.tolist(), abs=1e-4)
        tie = torch.corrcoef(torch.stack([turns, longer.abs()]))[0, 1].item()
        assert lane["tie"] == pytest.approx(tie, abs=1e-6)


@pytest.mark.parametrize(
    "fragment", ["#method=AdaLoRA&seed=2", "#method=IncreLoRA&target_r=3&seed=1"]
)
def test_budget_counts_the_package_s_ranks(lab, fragment):
    seen = state(lab("budget", fragment))
    given = seen["given"]
    ours = bl.arena.simulate(world="plane", steps=200, **given)
    alive = [[given["r"]] * 2]
    for n in range(1, 201):
        now = list(alive[-1])
        for event in ours["events"]:
            if event["step"] == n:
                now[event["module"]] += -1 if event["kind"] == "prune" else 1
        alive.append(now)
    assert seen["ranks"] == alive
    assert seen["left"] == pytest.approx(ours["left"][-1], abs=1e-6)
    assert sum(seen["ranks"][-1]) == 2 * given["target_r"] == seen["budget"][-1]


def test_restarts_follow_the_package_s_rates_and_rounds(lab):
    page = lab("restarts", "#merge_every=40&restart_warmup=8&r=2&lr=0.1")
    seen = state(page)
    for lane in (seen["relora"], seen["plain"]):
        ours = bl.arena.simulate(**lane["given"])
        assert lane["left"] == pytest.approx(ours["left"][-1], abs=1e-6)
    given = seen["relora"]["given"]
    ours = bl.arena.simulate(**given)
    assert seen["relora"]["values"] == pytest.approx(ours["singular_values"][0], abs=1e-5)
    assert seen["relora"]["rank"] == pytest.approx(ours["effective_rank"][0], abs=1e-5)
    method = bl.ReLoRA(merge_every=40, restart_warmup=8)
    rates = [0.1 * method.lr_factor(n, 10, 200) for n in range(201)]
    assert seen["relora"]["rates"] == pytest.approx(rates, abs=1e-12)
    values = [2, 5 / 3, 4 / 3, 1, 2 / 3, 1 / 3]
    floor = math.hypot(*values[2:]) / math.hypot(*values)
    assert seen["floors"][0] == pytest.approx(floor) and seen["rounds"] == 5


# --- how they are used ---


@pytest.mark.parametrize("name", LABS)
def test_every_control_moves_and_the_words_follow(lab, name):
    page = lab(name)
    live = page.locator("[aria-live]")
    for key in ("ArrowRight", "ArrowLeft"):
        for slider in page.locator("input[data-name]").all():
            before = state(page)["settings"], live.inner_text()
            slider.focus()
            page.keyboard.press(key)
            control = slider.get_attribute("data-name")
            moved = state(page)["settings"][control] != before[0][control]
            ends = ("0", slider.get_attribute("max"))
            assert moved or slider.evaluate("e => e.value") in ends, control
            assert page.evaluate("document.activeElement.dataset.name") == control
    for chip in page.locator(".chips button[data-name]").all():
        chip.click()
        assert chip.get_attribute("aria-pressed") == "true"
    assert page.locator(".error").inner_text() == ""
    page.get_by_role("button", name="as at the start").click()
    first = state(lab(name))
    assert state(page) == first
    assert len(live.inner_text()) > 40


@pytest.mark.parametrize("name", LABS)
def test_a_lab_asks_answers_keeps_its_address_and_fits_a_phone(lab, name):
    page = lab(name, viewport={"width": 380, "height": 700})
    assert "?" in page.locator(".ask").inner_text()
    page.get_by_role("button", name="I have a guess").click()
    answer = page.get_by_role("status").inner_text()
    assert len(answer) > 60 and "NaN" not in answer and "undefined" not in answer
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 380
    page.evaluate(
        "lab.set(Object.fromEntries([Object.entries(lab.state().settings).find(([k, v]) => k === 'r' || k === 'temperature')].map(([k]) => [k, k === 'r' ? 3 : .5])))"
    )
    assert state(lab(name, state(page)["fragment"])) == state(page)
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_scores_are_dragged(lab):
    page = lab("pruning")
    canvas = page.locator("canvas").first
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.5 / 12, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.5 / 12, box["y"] + 12)
    page.mouse.up()
    assert state(page)["settings"]["score00"] > 0.9


def test_in_a_notebook_a_lab_is_a_frame_and_a_picture():
    for name in LABS:
        shown = bl.lab(name)._repr_mimebundle_()
        assert set(shown) == {"text/html", "image/png", "text/plain"}
        assert (
            LABS[name].split(":")[0] in shown["text/html"]
            and picture_file(name).stat().st_size < 150_000
        )


def test_bad_arguments_are_named(lab):
    with pytest.raises(ValueError, match="name='spectra'"):
        bl.lab("spectra")
    with pytest.raises(ValueError, match="weight"):
        bl.lab("twins", weight=torch.eye(3))
    for weight in (torch.zeros(3), torch.full((2, 2), math.nan)):
        with pytest.raises(ValueError, match="a matrix"):
            bl.lab("spectrum", weight=weight)
    assert "r=40" in lab("spectrum", "#r=40", weight=torch.eye(4)).locator(".error").inner_text()
