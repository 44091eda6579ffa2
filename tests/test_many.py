"""Runs side by side are the runs that `fit` makes one by one."""

import copy

import pytest
import torch

import beamlora_mini as bl
from beamlora_mini.many import Trial, fit_many

SETTINGS = {"steps": 24, "batch_size": 8, "progress": False}
BEAM = bl.BeamLoRA(r=4, period=6, p_start=0.7)


@pytest.mark.parametrize("beams", [False, True])
def test_side_by_side_equals_one_by_one(tiny, beams):
    model, _ = tiny
    before = {name: t.clone() for name, t in model.state_dict().items()}
    trials = [Trial(bl.LoRA(r=4), 4e-3, 0), Trial(bl.LoRA(r=4, lora_alpha=4), 1e-3, 7)]
    if beams:
        trials += [Trial(BEAM, 4e-3, 1), Trial(bl.BeamLoRA(r=4, score_lr_ratio=0.1), 2e-3, 2)]
    outcomes = fit_many(model, "subtraction", trials, **SETTINGS)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    for outcome in outcomes:
        trial, alone = outcome.trial, copy.deepcopy(model)
        run = bl.fit(
            alone, "subtraction", method=trial.method, lr=trial.lr, seed=trial.seed, **SETTINGS
        )
        assert outcome.losses == pytest.approx(run.losses, rel=1e-3)
        assert [e[:5] for e in outcome.events] == [e[:5] for e in run.events]
        mine, theirs = bl.adapter_layers(outcome.model), bl.adapter_layers(alone)
        for name, layer in mine.items():
            torch.testing.assert_close(layer.lora_B, theirs[name].lora_B, rtol=1e-2, atol=2e-4)
    if beams:
        assert outcomes[2].events
    one = bl.evaluate(outcomes[0].model, "subtraction", limit=50, progress=False)
    assert one["loss"] < bl.evaluate(model, "subtraction", limit=50, progress=False)["loss"]


@pytest.mark.parametrize(
    "trials, message",
    [
        ([], "trials"),
        ([Trial(bl.LoRA(r=2), 1e-3), Trial(bl.LoRA(r=3), 1e-3)], "r=3: allowed is one rank"),
        ([Trial(bl.LoRA(r=2, lora_dropout=0.1), 1e-3)], "without dropout"),
    ],
)
def test_what_is_refused(tiny, trials, message):
    with pytest.raises(ValueError, match=message):
        fit_many(tiny[0], "subtraction", trials, **SETTINGS)
