"""What a picture shows is what it was handed, and it says so in words and numbers."""

import copy
import html
import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

import beamlora_mini as bl
from beamlora_mini import plots
from beamlora_mini.plots import river, style


@pytest.fixture
def shown(monkeypatch):
    """The HTML of what is displayed, and the figures that were drawn."""
    pages, figures = [], []
    monkeypatch.setattr(style, "display", lambda out: pages.append(out.data))
    png = style._png
    monkeypatch.setattr(style, "_png", lambda drawn: figures.append(drawn) or png(drawn))
    return pages, figures


def numbers(page: str) -> pd.DataFrame:
    """The table below a picture."""
    rows = re.findall(r"<tr.*?>(.*?)</tr>", page, re.DOTALL)
    cells = [re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row) for row in rows]
    table = pd.DataFrame(cells[1:], columns=[html.unescape(cell) for cell in cells[0]])
    return table.map(lambda cell: float(cell) if re.fullmatch(r"-?[\d.e+-]+", cell) else cell)


def in_legend(drawn) -> list[str]:
    (legend,) = drawn.legends
    return [text.get_text() for text in legend.get_texts()]


@pytest.fixture(scope="module")
def history(loaded_tiny):
    method = bl.BeamLoRA(r=4, period=15, p_start=0.7, temperature=0.1)
    history = bl.RankHistory(every=10)
    model = copy.deepcopy(loaded_tiny[0])
    bl.fit(model, "subtraction", method=method, steps=60, lr=8e-3, history=history, progress=False)
    return history


def test_a_picture_says_what_it_shows(shown):
    drawn, _ = plots.figure()
    plots.show(drawn, alt='a "b" <c> & d', caption="x < y", table=pd.DataFrame({"n": [1.23456]}))
    (page,), _ = shown
    assert page.startswith('<figure class="picture"') and page.count("<img") == 1
    assert html.unescape(re.search(r'alt="([^"]*)"', page)[1]) == 'a "b" <c> & d'
    assert "x &lt; y" in page and numbers(page).n[0] == 1.23
    for alt in ("", "  "):
        with pytest.raises(ValueError, match="say in words"):
            plots.show(plots.figure()[0], alt=alt)


def test_curves_draw_the_mean_and_the_range_of_the_seeds(shown):
    of = torch.tensor([[1.0, 2.0, 3.0], [3.0, 4.0, 8.0]])
    plots.curves({"one": of, "two": [0, 1, 2]}, xlabel="step", ylabel="loss", alt="x", events=[2])
    (page,), (drawn,) = shown
    lines = {line.get_label(): line for line in drawn.axes[0].get_lines()}
    assert lines["one"].get_ydata().tolist() == [2, 3, 5.5]
    assert lines["one"].get_linestyle() != lines["two"].get_linestyle()
    assert in_legend(drawn) == ["one", "two"]
    table = numbers(page).set_index(["series", "step"])
    assert table.loc[("one", 3)].tolist()[:3] == [5.5, 3.0, 8.0]


def test_a_long_table_keeps_both_ends_of_each_series(shown):
    values = {"a": np.arange(500.0), "b": -np.arange(500.0)}
    plots.curves(values, xlabel="step", ylabel="y", alt="x")
    table = numbers(shown[0][0])
    assert len(table) <= 60
    for label, last in (("a", 499), ("b", -499)):
        of = table[table.series == label].value
        assert of.iloc[0] == 0 and of.iloc[-1] == last


def test_panels_and_groups(shown):
    values = {"left": {"a": [1, 2], "b": [2, 3]}, "right": {"a": [5, 6], "b": [7, 8]}}
    plots.curves(values, xlabel="x", ylabel="y", alt="x", x=[1, 8], logx=True, lines={"half": 0.5})
    plots.dots(values, ylabel="y", alt="x")
    plots.dots({"a": [1, 2], "b": [5, 5]}, ylabel="y", alt="x", lines={"none": 0})
    _, (two, grouped, plain) = shown
    assert [axis.get_title() for axis in two.axes] == ["left", "right"]
    assert [t.get_text() for t in grouped.axes[0].get_xticklabels()] == ["left", "right"]
    assert in_legend(two) == ["a", "b", "half"] and in_legend(grouped) == ["a", "b"]
    assert [t.get_text() for t in plain.axes[0].get_xticklabels()] == ["a", "b"]
    assert numbers(shown[0][1])["mean"].tolist() == [1.5, 2.5, 5.5, 7.5]


def test_a_legend_stands_above_the_panels(shown):
    values = {f"a long name, number {k}": [k, k + 1] for k in range(7)}
    plots.curves({"left": values, "right": values}, xlabel="x", ylabel="y", alt="x")
    (drawn,) = shown[1]
    drawn.canvas.draw()
    box = drawn.legends[0].get_window_extent()
    assert box.x0 >= 0 and box.x1 <= drawn.bbox.width and box.y1 <= drawn.bbox.height
    assert all(axis.get_window_extent().y1 < box.y0 for axis in drawn.axes)


def test_panels_share_a_scale_unless_they_measure_different_things(shown):
    values = {"left": {"a": [1, 2], "b": [0, 2]}, "right": {"b": [50, 60], "c": [70, 80]}}
    plots.curves(values, xlabel="x", ylabel="y", alt="x")
    plots.curves(values, xlabel="x", ylabel=("y", "z"), alt="x")
    one, two = shown[1]
    assert one.axes[0].get_ylim() == one.axes[1].get_ylim()
    assert two.axes[0].get_ylim()[1] < 3 and two.axes[1].get_ylim()[0] > 40
    assert [axis.get_ylabel() for axis in two.axes] == ["y", "z"]
    (_, left), (right, _) = (axis.get_lines() for axis in two.axes)
    assert left.get_color() == right.get_color(), "one look for a label in all panels"
    with pytest.raises(ValueError, match="one text, or one for each panel"):
        plots.curves(values, xlabel="x", ylabel=("y",), alt="x")


def test_lines_that_hide_each_other_are_named(shown):
    values = {"a": [0, 1, 2], "b": [0.001, 1, 2], "c": [0, 1, 1.7]}
    plots.curves(values, xlabel="x", ylabel="y", alt="x", caption="Three.")
    assert "Three. \u201ca\u201d and \u201cb\u201d lie on each other.<" in shown[0][0]


def test_a_map_of_ratios_is_as_far_from_one_on_both_sides(shown):
    plots.heatmap(np.array([[0.25, 1, 2]]), center=1, label="times", alt="x")
    plots.heatmap(np.array([[-1, 3]]), center=1, label="y", alt="x")
    ratios, plain = (drawn.axes[0].images[0] for drawn in shown[1])
    assert np.allclose(ratios.get_clim(), (0.25, 4)) and plain.get_clim() == (-1, 3)
    assert np.isclose(ratios.norm(1), 0.5) and np.isclose(ratios.norm(2), 1 - ratios.norm(0.5))


def test_a_map_says_where_its_scale_ends_and_where_nothing_is(shown):
    plots.heatmap(np.array([[1, 2], [np.nan, 9]]), label="y", vmax=3, alt="x")
    plots.heatmap(np.array([[1, 2]]), label="y", alt="x")
    capped, plain = shown[1]
    assert capped.axes[0].images[0].colorbar.extend == "max"
    assert plain.axes[0].images[0].colorbar.extend == "neither"
    assert capped.axes[0].patch.get_hatch() and len(capped.axes[0].texts) == 3


def test_a_map_reads_what_it_is_given(shown, history):
    last = history.importance[-1]
    plots.heatmap(last, label="weight", alt="x")
    plots.heatmap({name: values[0] for name, values in last.items()}, label="w", alt="x")
    plots.heatmap({"one": torch.eye(2), "two": torch.ones(2, 2)}, rows="ab", label="w", alt="x")
    _, (ranks, places, panels) = shown
    assert np.allclose(ranks.axes[0].images[0].get_array(), torch.stack(list(last.values())))
    assert ranks.axes[0].get_yticklabels()[0].get_text() == "0 q_proj"
    assert places.axes[0].images[0].get_array().shape == (4, 7)
    assert panels.axes[0].images[0].get_clim() == panels.axes[1].images[0].get_clim() == (0, 1)
    with pytest.raises(ValueError, match="'q' is in no numbered block"):
        plots.by_place({"q": 1.0})


def test_by_place_puts_each_number_at_its_layer():
    table = plots.by_place({"m.0.mlp.up": 1.0, "m.0.attn.q": 2.0, "m.10.mlp.up": 3.0})
    assert table.loc[10, "up"] == 3 and table.loc[0, "q"] == 2 and np.isnan(table.loc[10, "q"])


def test_paired_differences_come_with_their_corrected_p(shown):
    table = plots.paired({"real": [1.0] * 8, "none": [1.0, -1.0] * 4}, xlabel="d", alt="x")
    assert table.holm.tolist() == [2 * 2 / 256, 1.0]
    words = [text.get_text() for text in shown[1][0].axes[0].texts]
    assert words[0] == "p 0.016 *" and words[1] == "p 1"


def test_a_stack_shows_each_part_and_the_sum(shown):
    plots.stacked({"one": {"a": 1, "b": 2}, "two": {"a": 4}}, xlabel="GiB", alt="x")
    (page,), (drawn,) = shown
    axis = drawn.axes[0]
    assert [text.get_text() for text in axis.texts] == [" 3", " 4"]
    assert [patch.get_width() for patch in axis.patches] == [1, 4, 2, 0]
    assert numbers(page).b.tolist() == [2, 0]
    plots.stacked({"one": {"a": 0.4, "b": 0.6}, "two": {"a": 1.0}}, xlabel="share", alt="x")
    assert not shown[1][1].axes[0].texts, "a sum that is always the same says nothing"


def test_spread_finding_and_table(shown):
    assert plots.spread(torch.tensor([0.1, 0.2, 0.6])) == "0.30 (0.10 to 0.60)"
    plots.finding("a < b")
    plots.measured_table(pd.DataFrame({"a": [1.0]}, index=pd.Index(["x"], name="who")), "c < d")
    pages, _ = shown
    assert pages[0].startswith('<p class="finding"') and "a &lt; b" in pages[0]
    assert "who" in pages[1] and 'class="dataframe measured"' in pages[1] and "c &lt; d" in pages[1]


def test_a_table_has_even_decimals_and_text_on_the_left(shown):
    plots.measured_table([{"who": "a", "x": 0.953, "y": 1e-7, "z": 2.0, "n": 1500},
                          {"who": "<b>", "x": 0.96, "y": 1234.5, "z": None, "n": 2}])  # fmt: skip
    rows = re.findall(r"<td( style=.*?)?>(.*?)</td>", shown[0][0])
    cells = [cell for _, cell in rows]
    assert cells == ["a", "0.953", "1e-07", "2", "1500", "&lt;b&gt;", "0.960", "1234", "", "2"]
    assert [bool(look) for look, _ in rows[:5]] == [True, False, False, False, False]


# The river


def test_a_river_is_as_wide_as_the_ranks_on_both_sides_of_an_event(history):
    modules = {event.module for event in history.events}
    assert modules
    for module in modules:
        points, widths, lives, events = river._widths(history, module)
        assert np.allclose(widths.sum(0), 4, atol=1e-5), "no notch"
        smooth = river._interpolate(points, widths, np.linspace(0, 60, 301))
        assert np.allclose(smooth.sum(0), 4, atol=1e-5)
        slots = np.array([life.slot for life in lives])
        for step in events:
            before = widths[:, points == step][:, 0]
            wanted = history.before[step][module].numpy()
            for slot in range(4):
                assert np.isclose(before[slots == slot].sum(), wanted[slot], atol=1e-6)
        for step, of_step in zip(history.steps, history.importance):
            if step not in events:
                now = widths[:, points == step][:, 0]
                for slot in range(4):
                    assert np.isclose(now[slots == slot].sum(), of_step[module][slot], atol=1e-6)


def test_a_copy_flows_beside_its_source_and_bears_its_colour(history):
    lineage = history.lineage()
    last = lineage[lineage.step == lineage.step.max()]
    for module, of in last.groupby("module"):
        lives, steps, eras = river._lives(history, module)
        alive = [life for life in lives if life.died is None]
        assert {life.slot: life.founder for life in alive} == dict(zip(of["rank"], of.ancestor))
        founders = [life.founder for life in lives]
        assert founders == sorted(founders), "descendants lie together"
        assert len(eras) == len(steps) + 1


def test_numbers_stand_in_their_bands_and_apart(shown, history):
    for module in history.importance[0]:
        drawn, lives = river.river_figure(history, module)
        drawn.canvas.draw()
        boxes = [text.get_window_extent() for text in drawn.axes[0].texts]
        plt.close(drawn)
        assert boxes and all(
            not one.overlaps(other) for k, one in enumerate(boxes) for other in boxes[:k]
        )
        bands = [band.get_paths() for band in drawn.axes[0].collections]
        place = drawn.axes[0].transData.inverted()
        of = [life.founder for life in lives]
        for text, box in zip(drawn.axes[0].texts, boxes):
            corners = place.transform([(x, y) for x in (box.x0, box.x1) for y in (box.y0, box.y1)])
            around = [any(p.contains_points(corners).all() for p in band) for band in bands]
            assert any(inside and str(n) == text.get_text() for inside, n in zip(around, of))


def test_a_river_names_its_widest_band_as_it_is_numbered(shown, history):
    for module in history.importance[0]:
        lives, *_ = river._lives(history, module)
        last = history.importance[-1][module]
        strongest = int(last.argmax())
        lineage = history.lineage()
        end = lineage[(lineage.step == lineage.step.max()) & (lineage.module == module)]
        founder = end.ancestor[end["rank"] == strongest].item()
        words = river._in_words(history, module, lives)
        assert words.endswith(f"the widest descends from {founder}, {last[strongest]:.2f} wide.")


def test_what_rivers_need_and_refuse(shown, history):
    plots.rank_river(history)
    plots.rank_rivers(history)
    plots.rank_rivers(history, list(history.importance[0])[:3])
    pages, figures = shown
    assert "ranks were replaced by copies" in pages[0] and len(figures) == 3
    assert numbers(pages[1]).shape[0] == 28
    with pytest.raises(ValueError, match="module='q': allowed is one of the 28 recorded"):
        plots.rank_river(history, "q")
    with pytest.raises(ValueError, match="nothing is recorded"):
        plots.rank_river(bl.RankHistory())
    with pytest.raises(ValueError, match="nothing is recorded"):
        plots.rank_rivers(bl.RankHistory())


@pytest.mark.parametrize("method", [bl.LoRA(r=3), bl.AdaLoRA(r=3, target_r=2), bl.IncreLoRA(r=1, target_r=2, init_warmup=2, incre_interval=2)], ids=lambda m: type(m).__name__)  # fmt: skip
def test_other_methods_have_rivers_too(shown, tiny, method):
    history = bl.RankHistory(every=5)
    bl.fit(
        tiny[0], "subtraction", method=method, steps=20, lr=4e-3, history=history, progress=False
    )
    plots.rank_river(history)
    plots.rank_rivers(history, list(history.importance[0])[:6])
    assert len(shown[1]) == 2
