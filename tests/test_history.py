"""RankHistory: what is recorded, saved, loaded, and where a rank comes from."""

import copy

import pytest
import torch

import beamlora_mini as bl
from beamlora_mini.events import RankEvent
from beamlora_mini.plots.river import _lives
from tests.helpers import RUN


@pytest.fixture(scope="module")
def history(loaded_tiny):
    """Of one run, which the tests only look at."""
    history = bl.RankHistory(every=10)
    bl.fit(
        copy.deepcopy(loaded_tiny[0]), "subtraction", method=bl.BeamLoRA(r=4, period=15, p_start=0.7),
        steps=60, lr=8e-3, history=history, progress=False,
    )  # fmt: skip
    history.info = {"device": "a machine"}
    return history


def test_history_survives_saving(history, tmp_path):
    history.save(tmp_path / "run.parquet")
    again = bl.RankHistory.load(tmp_path / "run.parquet")
    assert again.info == history.info and again.every == 10
    assert again.steps == history.steps == [0, 10, 20, 30, 40, 50, 60]
    assert again.to_pandas().equals(history.to_pandas())
    assert again.lineage().equals(history.lineage())
    for mine, theirs in zip(history.events, again.events, strict=True):
        assert mine[:5] == theirs[:5] and theirs[5:] == pytest.approx(mine[5:])
    assert again.losses[1:] == pytest.approx(history.losses[1:], rel=1e-6)


def test_lineage_follows_the_events(history):
    assert {event.step for event in history.events} == {15, 30}
    lineage = history.lineage().set_index(["step", "module", "rank"]).ancestor
    at_0 = lineage.loc[0]
    assert (at_0 == at_0.index.get_level_values("rank")).all()
    for step, before in ((15, 0), (30, 15)):
        copied = {(e.module, e.slot): e.source for e in history.events if e.step == step}
        for module, rank in at_0.index:
            source = copied.get((module, rank), rank)
            assert lineage[step, module, rank] == lineage[before, module, source]


def test_a_fresh_rank_founds_a_line_of_its_own():
    history = bl.RankHistory()
    history.steps, history.importance = [0, 9], [{"m": torch.ones(3)}, {"m": torch.ones(3)}]
    history.events = [
        RankEvent(3, "expand", "m", 2),
        RankEvent(6, "expand", "m", 0, source=2),
        RankEvent(9, "expand", "m", 1),
    ]
    last = history.lineage().query("step == 9")
    assert last.ancestor.tolist() == [3, 4, 3]
    assert [life.founder for life in _lives(history, "m")[0] if life.died is None] == [4, 3, 3]


def test_importances_of_beamlora_sum_to_r(history):
    sums = history.to_pandas().groupby(["step", "module"]).importance.sum()
    assert sums.sub(4).abs().max() < 1e-4


def test_a_foreign_file_is_no_history(tmp_path, history):
    (tmp_path / "a.parquet").write_text("nothing")
    with pytest.raises(ValueError, match="not a saved RankHistory"):
        bl.RankHistory.load(tmp_path / "a.parquet")
    history.to_pandas().to_parquet(tmp_path / "b.parquet")
    with pytest.raises(ValueError, match="not a saved RankHistory"):
        bl.RankHistory.load(tmp_path / "b.parquet")
    with pytest.raises(FileNotFoundError, match="no such file"):
        bl.RankHistory.load(tmp_path / "c.parquet")


def test_a_rank_history_is_recorded_along_the_way(tiny, task):
    model, _ = tiny
    history = bl.RankHistory(every=4)
    bl.fit(model, task, method=bl.LoRA(r=3), history=history, steps=9, **RUN)
    assert history.steps == [0, 4, 8]
    frame = history.to_pandas()
    assert list(frame.columns) == ["step", "module", "rank", "importance"]
    assert len(frame) == 3 * 28 * 3
    assert (frame[frame.step == 0].importance == 0).all()  # B is zero
    assert (frame[frame.step == 8].importance > 0).all()
    with pytest.raises(ValueError, match="every=0"):
        bl.RankHistory(every=0)
    with pytest.raises(ValueError, match="no adapters"):
        bl.RankHistory().record(torch.nn.Linear(2, 2), 0)


def test_a_history_of_growth_is_saved_and_has_its_lineage(tiny, tmp_path):
    history = bl.RankHistory(every=5)
    method = bl.IncreLoRA(r=1, target_r=2, init_warmup=2, incre_interval=2)
    bl.fit(tiny[0], "subtraction", method=method, steps=30, history=history, **RUN)
    history.save(tmp_path / "run.parquet")
    loaded = bl.RankHistory.load(tmp_path / "run.parquet")
    assert loaded.events == [
        e._replace(threshold=pytest.approx(e.threshold)) for e in history.events
    ]
    assert len(loaded.to_pandas()) == len(history.to_pandas())
    last = history.lineage().query("step == step.max()")
    assert len(last) == 56 and (last["rank"] == last.ancestor).all()
    late = bl.RankHistory(every=5)  # first recorded when some have grown
    late.events, late.steps, late.importance = history.events, [10, 30], history.importance[2::4]
    assert len(late.importance) == 2 and len(late.lineage().query("step == step.max()")) == 56


def test_an_empty_history_says_so(tmp_path):
    for use in (bl.RankHistory().lineage, lambda: bl.RankHistory().save(tmp_path / "x.parquet")):
        with pytest.raises(ValueError, match="nothing is recorded"):
            use()
    assert not (tmp_path / "x.parquet").exists()


def test_measures_are_recorded_saved_and_loaded(tiny, tmp_path):
    measures = {
        "size of b": lambda layer: layer.lora_B.norm(dim=0),
        "one": lambda layer: torch.ones(3),
    }
    history = bl.RankHistory(every=4, measures=measures)
    bl.fit(tiny[0], "subtraction", method=bl.LoRA(r=3), history=history, steps=9, **RUN)
    frame = history.to_pandas()
    assert list(frame.columns[4:]) == ["size of b", "one"] and (frame.one == 1).all()
    name, layer = next(iter(bl.adapter_layers(tiny[0]).items()))
    rows = frame[(frame.step == 8) & (frame.module == name)]
    assert len(rows) == 3 and not torch.equal(
        layer.lora_B.norm(dim=0), history.measured[-1]["one"][name]
    )
    history.save(tmp_path / "run.parquet")
    again = bl.RankHistory.load(tmp_path / "run.parquet")
    assert again.to_pandas().equals(frame)


@pytest.mark.parametrize("measures", [{"a": 3}, {"rank": len}, {"importance": len}, {1: len}])
def test_a_measure_is_a_function_with_a_name_of_its_own(measures):
    with pytest.raises(ValueError, match="measures="):
        bl.RankHistory(measures=measures)


def test_a_measure_of_another_shape_is_named_and_nothing_is_kept(tiny):
    bl.attach(tiny[0], bl.LoRA(r=3))
    history = bl.RankHistory(every=1, measures={"wrong": lambda layer: layer.lora_A})
    with pytest.raises(ValueError, match=r"'wrong' of '.*q_proj' is of shape .* allowed is \(3,\)"):
        history.record(tiny[0], 1, [bl.RankEvent(1, "prune", "x")])
    assert history.steps == history.events == history.losses == []


def test_both_sides_of_an_event_are_kept(history, tmp_path):
    assert sorted(history.before) == [15, 30]
    for event in history.events:
        w = history.before[event.step][event.module]
        assert w.sum() == pytest.approx(4, abs=1e-5)
        assert w[event.slot] < w[event.source]  # the weak one makes room
    history.save(tmp_path / "run.parquet")
    again = bl.RankHistory.load(tmp_path / "run.parquet")
    assert again.to_pandas("before").equals(history.to_pandas("before"))
