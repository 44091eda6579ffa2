"""The recorded runs in data/ are whole, and small, and say how they were made."""

import json
from pathlib import Path

import pytest

import beamlora_mini as bl

DATA = Path(__file__).resolve().parent.parent / "data"
STUDY = json.loads((DATA / "results" / "beamlora_study.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def history():
    return bl.RankHistory.load(DATA / "runs" / "smollm2_beamlora.parquet")


def test_the_recorded_run_says_how_it_was_made(history):
    assert {"command", "device", "versions", "method", "steps", "before", "after"} <= set(
        history.info
    )
    assert (DATA / "runs" / "smollm2_beamlora.parquet").stat().st_size < 3_000_000


def test_the_recorded_run_is_a_run_of_beamlora(history):
    r = history.info["method"]["r"]
    frame = history.to_pandas()
    assert frame.module.nunique() == 210
    assert frame.groupby(["step", "module"]).importance.sum().sub(r).abs().max() < 1e-3
    period, total = history.info["method"]["period"], history.info["steps"]
    assert {event.step % period for event in history.events} == {0}
    assert max(event.step for event in history.events) <= total - period
    thresholds = history.to_pandas("events").drop_duplicates("step").threshold
    assert thresholds.is_monotonic_increasing and thresholds.iloc[0] > 0.95
    assert (history.lineage().groupby(["step", "module"]).ancestor.nunique() <= r).all()


@pytest.mark.parametrize("setting", STUDY)
def test_the_study_compares_on_paired_fresh_seeds(setting):
    study = STUDY[setting]
    assert {"command", "device", "versions"} <= set(study)
    seeds, rates = {}, {}
    for row in study["rows"]:
        seeds.setdefault((row["phase"], row["variant"]), []).append(row["seed"])
        rates.setdefault((row["phase"], row["variant"]), set()).add(row["lr"])
    tuned = {variant for phase, variant in seeds if phase == "tuning"}
    assert {variant for phase, variant in seeds if phase == "fresh"} == tuned
    for (phase, variant), of_variant in seeds.items():
        if phase != "tuning":
            assert sorted(of_variant) == list(range(8)), variant
            assert len(rates[phase, variant]) == 1
    for variant in tuned:  # the rate is the one that was best on the tuning seeds
        assert not set(seeds["tuning", variant]) & set(seeds["fresh", variant])
        means = {}
        for row in study["rows"]:
            if (row["phase"], row["variant"]) == ("tuning", variant):
                means.setdefault(row["lr"], []).append(row["exact_match"])
        assert len(means) >= 3
        best = max(means, key=lambda rate: sum(means[rate]))
        assert rates["fresh", variant] == {best}
