"""The recorded runs in data/ are whole, and small, and say how they were made."""

import json
from pathlib import Path

import pytest

import beamlora_mini as bl

DATA = Path(__file__).resolve().parent.parent / "data"
STUDIES = {
    file: json.loads((DATA / "results" / f"{file}.json").read_text(encoding="utf-8"))
    for file in ("beamlora_study", "budget_study")
}


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


@pytest.mark.parametrize(("file", "setting"), [(f, name) for f in STUDIES for name in STUDIES[f]])
def test_the_studies_compare_on_paired_fresh_seeds(file, setting):
    study = STUDIES[file][setting]
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


@pytest.mark.parametrize("setting", STUDIES["budget_study"])
def test_every_allocation_of_the_budget_study_has_the_same_total(setting):
    study = STUDIES["budget_study"][setting]
    for row in study["rows"]:
        assert len(row["ranks"]) == len(study["modules"]) == 28
        assert sum(row["ranks"]) == 28 * study["target_r"], row
        if row["variant"] == "LoRA" or row["variant"].endswith("even"):
            assert set(row["ranks"]) == {study["target_r"]}
