"""The drawn schematics: the files are what the code draws, whole, readable and shown."""

import json
import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest
import torch

from beamlora_mini import ranks
from tools.schematics import ALT, PICTURES, ink, markdown, s04, s06, s09, svg
from tools.schematics.draw import SMALLEST, WIDTH, number

SVG = "{http://www.w3.org/2000/svg}"
each = pytest.mark.parametrize("name", ALT)


def contrast(one, other):
    """WCAG's contrast ratio of two colours such as #0072B2."""

    def luminance(colour):
        shares = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
        return sum(w * s for w, s in zip((0.2126, 0.7152, 0.0722), linear))

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@each
def test_the_file_is_what_the_code_draws(name):
    """If not: python -m tools.schematics"""
    assert (PICTURES / f"{name}.svg").read_text(encoding="utf-8") == svg(name)


def test_no_other_file_lies_beside_them():
    assert {file.name for file in PICTURES.iterdir()} == {f"{name}.svg" for name in ALT}


@each
def test_it_is_told_to_those_who_do_not_see_it(name):
    root = ElementTree.fromstring(svg(name))
    assert root.get("role") == "img"
    title, desc = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert root.get("aria-labelledby").split() == [title.get("id"), desc.get("id")]
    assert 10 < len(title.text) < 70 and desc.text == ALT[name]
    assert 100 < len(ALT[name]) < 600 and not re.search(r"[\[\]*_<>`$]", ALT[name])


@each
def test_it_stands_alone_and_is_small(name):
    text = svg(name)
    assert not re.search(r"href|<script|url\(|@import|<image|font-face|\bon\w+=", text)
    assert re.findall(r"https?:[^\"]*", text) == ["http://www.w3.org/2000/svg"]
    assert len(text.encode()) < 40_000


@each
def test_it_can_be_read_at_the_width_of_a_notebook(name):
    root = ElementTree.fromstring(svg(name))
    assert (
        root.get("width") == str(WIDTH)
        and root.get("viewBox") == f"0 0 {WIDTH} {root.get('height')}"
    )
    for words in root.iter(f"{SVG}text"):
        assert "".join(words.itertext()).strip() and float(words.get("font-size")) >= 14
    assert all(
        float(part.get("font-size", SMALLEST)) >= SMALLEST for part in root.iter(f"{SVG}tspan")
    )


@each
def test_colours_come_from_the_style_alone_on_light_and_on_dark(name):
    root = ElementTree.fromstring(svg(name))
    style = root.find(f"{SVG}style").text
    light, dark = style.split("@media (prefers-color-scheme: dark)")
    known = set(re.findall(r"\.([\w-]+)\{", light))
    assert known - {"halo"} <= set(re.findall(r"\.([\w-]+)\{", dark))
    for element in root.iter():
        assert set(element.get("class", "").split()) <= known
        assert element.get("fill") in (None, "none") and not element.get("stroke")
        assert element.get("style") is None


@pytest.mark.parametrize("scheme", [ink.LIGHT, ink.DARK], ids=["light", "dark"])
def test_words_stand_out_from_paper_and_from_tints(scheme):
    for name in ink.INKS:
        _, tint, word = scheme[name]
        assert contrast(word, scheme["paper"]) >= 4.5 and contrast(word, tint) >= 4.5, name
        assert contrast(scheme["ink"][2], tint) >= 4.5, name


def test_numbers_are_short_and_never_minus_zero():
    assert [number(v) for v in (3, 2.04, 2.06, -0.01, -0.2, 10.0)] == [
        "3",
        "2",
        "2.1",
        "0",
        "-0.2",
        "10",
    ]


@pytest.mark.parametrize("scope", ["module", "global"])
@pytest.mark.parametrize("way", ["top-k", "top-p"])
def test_the_ranks_of_06_are_those_that_the_package_keeps(way, scope):
    importances = {name: torch.tensor(values) for name, values in s06.IMPORTANCES.items()}
    if way == "top-k":
        masks = ranks.top_k_mask(importances, k=s06.K, scope=scope)
    else:
        masks = ranks.top_p_mask(importances, p=s06.P, scope=scope)
    shown = {rank for pool in s06.groups(scope) for rank in pool[: s06.kept(pool, way)]}
    right = {(value, name) for name, values in s06.IMPORTANCES.items()
             for value, out in zip(values, masks[name].tolist()) if not out}  # fmt: skip
    assert shown == right


def test_the_event_of_09_is_the_one_that_the_package_makes():
    weights = torch.tensor(s09.WEIGHTS)
    assert ranks.top_p_mask({"": weights}, p=s09.P)[""].nonzero().flatten().tolist() == s09.pruned()
    scores = weights.log()
    for slot, source in s09.pairs():
        scores[[slot, source]] = scores[[slot, source]].mean()
    torch.testing.assert_close(torch.tensor(s09.shared()), ranks.score_importance(scores, 1.0))


def test_the_river_of_09_ends_in_the_first_ranks_that_its_streams_descend_from():
    sources = {slot: source for slot, source in s09.pairs()}
    wanted = [str(sources.get(i, i) + 1) for i in range(len(s09.WEIGHTS))]
    root = ElementTree.fromstring(svg("09"))
    words = [(float(of.get("x")), float(of.get("y")), of.text) for of in root.iter(f"{SVG}text")]
    right = max(x for x, *_ in words)
    assert [text for x, _, text in sorted(words, key=lambda of: of[1]) if x == right] == wanted


def test_the_budgets_of_04_meet_and_no_rank_comes_from_nowhere():
    for moments, way in ((s04.PRUNING, 1), (s04.GROWING, -1)):
        assert all(len(ranks) == s04.LAYERS for ranks in moments) and sum(moments[-1]) == s04.TARGET
        for before, after in pairwise(moments):
            assert all(way * old >= way * new for old, new in zip(before, after))
    totals = [sum(ranks) for ranks in s04.GROWING]
    assert {*totals} <= {s04.LAYERS, *(total for _, total in s04.GROWTHS)}


@each
def test_a_notebook_shows_it_with_its_words(name):
    """If not: a markdown cell with what tools.schematics.markdown(name) returns."""
    files = list(PICTURES.parent.glob(f"{name}_*.ipynb"))
    assert len(files) == 1, f"there is no notebook {name}"
    cells = json.loads(files[0].read_text(encoding="utf-8"))["cells"]
    lines = "\n".join(
        "".join(c["source"]) for c in cells if c["cell_type"] == "markdown"
    ).splitlines()
    assert markdown(name) in lines, f"{files[0].name} does not show it"
