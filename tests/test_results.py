"""The recorded runs in data/ are whole, and small, and say how they were made; the studies in
studies/ are those that made them."""

import sys
from pathlib import Path

import pandas as pd
import pytest

import beamlora_mini as bl
from studies import beamlora, budget, common

DATA = Path(__file__).resolve().parent.parent / "data"
STUDIES = {
    file: pd.read_parquet(DATA / "results" / f"{file}.parquet")
    for file in ("beamlora_study", "budget_study")
}
SETTINGS = [(file, setting) for file, table in STUDIES.items() for setting in table.attrs]


def runs_of(file: str, setting: str, *columns: str) -> tuple[pd.DataFrame, tuple]:
    """A setting's runs, and what these columns hold in each of them."""
    runs = STUDIES[file][STUDIES[file].setting == setting]
    (same,) = runs[list(columns)].drop_duplicates().itertuples(index=False, name=None)
    return runs, same


def variants_by_phase(runs: pd.DataFrame) -> dict[str, set[str]]:
    return {phase: set(variants) for phase, variants in runs.groupby("phase").variant}


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


@pytest.mark.parametrize(("file", "setting"), SETTINGS)
def test_the_studies_compare_on_paired_fresh_seeds(file, setting):
    made = STUDIES[file].attrs[setting]
    assert {"command", "device", "versions", "cpu_seconds"} == set(made)
    assert f'"{setting}"' in made["command"]
    runs = STUDIES[file][STUDIES[file].setting == setting]
    tuning, fresh = (runs[runs.phase == phase] for phase in ("tuning", "fresh"))
    for (phase, variant), group in runs[runs.phase != "tuning"].groupby(["phase", "variant"]):
        assert sorted(group.seed) == list(common.FRESH), (phase, variant)
        assert group.lr.nunique() == 1
    rates = fresh.groupby("variant").lr.first()
    assert set(tuning.variant) == set(rates.index)
    for variant, group in tuning.groupby("variant"):
        assert not set(group.seed) & set(common.FRESH)
        means = group.groupby("lr").exact_match.mean()
        assert len(means) >= 3
        assert rates[variant] == means.idxmax()  # the best on the tuning seeds


@pytest.mark.parametrize("file", ["copies_study", "settings_study", "forgetting_study"])
def test_every_variant_of_a_study_runs_once_on_each_of_its_seeds(file):
    runs = pd.read_parquet(DATA / "results" / f"{file}.parquet")
    for setting, made in runs.attrs.items():
        assert {"command", "device", "versions", "cpu_seconds"} == set(made)
        assert f'"{setting}"' in made["command"] or made["command"].endswith(setting)
    assert set(runs.attrs) == set(runs.setting)
    facts = [c for c in ("setting", "variant", "r", "rows", "period", "lag", "lr") if c in runs]
    seeds = runs.groupby(facts, dropna=False).seed.agg(["count", "nunique"])
    assert (seeds["count"] == seeds["nunique"]).all() and seeds["count"].min() >= 3
    assert runs.exact_match.between(0, 1).all() and (runs.test_loss > 0).all()


@pytest.mark.parametrize("setting", list(STUDIES["budget_study"].attrs))
def test_every_allocation_of_the_budget_study_has_the_same_total(setting):
    runs, (target_r,) = runs_of("budget_study", setting, "target_r")
    for run in runs.itertuples():
        assert len(run.ranks) == len(run.modules) == 28
        assert sum(run.ranks) == 28 * target_r, run
        if run.variant == "LoRA" or run.variant.endswith("even"):
            assert set(run.ranks) == {target_r}


@pytest.mark.parametrize("setting", list(STUDIES["budget_study"].attrs))
def test_placed_runs_have_the_counts_of_their_method_and_the_rate_of_lora(setting):
    runs, _ = runs_of("budget_study", setting, "target_r")
    runs = {
        key: of.iloc[0] for key, of in runs[runs.phase != "tuning"].groupby(["variant", "seed"])
    }
    for variant, (name, elsewhere) in budget.PLACED.items():
        for seed in common.FRESH:
            run, method = runs[variant, seed], runs[name, seed]
            counts = list(method.ranks)
            assert list(run.ranks) == (budget.permuted(counts, seed) if elsewhere else counts)
            assert run.lr == runs["LoRA", seed].lr


# --- the studies that made them -------------------------------------------------------------------


def test_the_beamlora_study_is_the_one_in_the_code():
    assert set(beamlora.SETTINGS) == set(STUDIES["beamlora_study"].attrs)
    for name, setting in beamlora.SETTINGS.items():
        runs, same = runs_of("beamlora_study", name, "task", "r", "steps")
        assert same == (setting.task, setting.r, setting.steps)
        tuned = set(beamlora.variants(setting.r, setting.steps))
        expected = {"tuning": tuned, "fresh": tuned}
        if setting.with_ablations:
            expected["ablation"] = set(beamlora.ablations(setting.r, setting.steps))
        assert variants_by_phase(runs) == expected
        assert set(runs.lr) == set(beamlora.RATES)


def test_the_budget_study_is_the_one_in_the_code():
    assert set(budget.SETTINGS) == set(STUDIES["budget_study"].attrs)
    for name, task in budget.SETTINGS.items():
        runs, same = runs_of("budget_study", name, "task", "target_r", "steps")
        assert same == (task, budget.TARGET, budget.STEPS)
        tuned = set(budget.VARIANTS)
        placed = set(budget.PLACED)
        assert variants_by_phase(runs) == {"tuning": tuned, "fresh": tuned, "placed": placed}
        for variant, tried in runs[runs.phase == "tuning"].groupby("variant").lr:
            assert set(tried) == set(budget.RATES[variant])


def test_a_study_saves_its_settings_and_keeps_the_others(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(common, "RESULTS", tmp_path / "results")

    def run(settings: dict, *named: str) -> pd.DataFrame:
        monkeypatch.setattr(sys, "argv", ["somewhere/toy.py", *named])
        study = lambda n: [{"seed": seed, "lr": 0.1 * n, "ranks": [n, seed]} for seed in range(2)]
        common.main("A toy.", "toy.parquet", settings, study)
        return pd.read_parquet(tmp_path / "results" / "toy.parquet")

    first = run({"one": 1, "the other": 2})
    assert first.setting.tolist() == ["one", "one", "the other", "the other"]
    again = run({"one": 3, "the other": 4}, "one")  # only this one, and in its old place
    assert again.setting.tolist() == first.setting.tolist()
    assert again.lr.tolist() == [0.1 * 3, 0.1 * 3, 0.2, 0.2]
    assert [list(ranks) for ranks in again.ranks] == [[3, 0], [3, 1], [2, 0], [2, 1]]
    assert again.attrs["the other"] == first.attrs["the other"]
    assert again.attrs["one"]["command"] == 'python -m studies.toy "one"'
    with pytest.raises(SystemExit):
        run({"one": 1}, "none")
    assert "unknown setting 'none'; there are one" in capsys.readouterr().err
