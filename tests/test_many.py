"""Runs side by side are the runs that `fit` makes one by one."""

import copy
import math

import pytest
import torch
from transformers import MambaConfig, MambaForCausalLM

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


EVERY = {
    "lora": bl.LoRA(r=3),
    "pissa": bl.PiSSA(r=4),
    "milora": bl.MiLoRA(r=2, target_modules=["q_proj", "down_proj"]),
    "relora": bl.ReLoRA(r=4, merge_every=8, restart_warmup=2),
    "adalora": bl.AdaLoRA(r=4, target_r=2, tinit=2, tfinal=8, deltaT=3),
    "increlora": bl.IncreLoRA(r=1, target_r=2, top_h=7, init_warmup=3, incre_interval=2),
    "beamlora": BEAM,
}


def test_all_methods_of_any_rank_and_target_together(tiny):
    model, _ = tiny
    trials = [Trial(method, 4e-3, seed) for seed, method in enumerate(EVERY.values())]
    outcomes = fit_many(model, "subtraction", trials, **SETTINGS)
    for name, outcome in zip(EVERY, outcomes):
        alone = copy.deepcopy(model)
        run = bl.fit(
            alone, "subtraction", method=EVERY[name], lr=4e-3, seed=outcome.trial.seed, **SETTINGS
        )
        assert outcome.losses == pytest.approx(run.losses, rel=2e-3), name
        assert [e[:4] for e in outcome.events] == [e[:4] for e in run.events], name
        assert bool(outcome.events) == (name in ("relora", "adalora", "increlora", "beamlora"))
    assert not any(p.requires_grad for p in model.parameters())  # shared, and frozen


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_other_dtypes(dtype):
    model, _ = bl.load_model("tiny", device="cpu", dtype=dtype)
    outcomes = fit_many(
        model, "subtraction", [Trial(BEAM, 4e-3), Trial(bl.PiSSA(r=2), 1e-3)], **SETTINGS
    )
    for outcome in outcomes:
        alone = copy.deepcopy(model)
        run = bl.fit(
            alone, "subtraction", method=outcome.trial.method, lr=outcome.trial.lr, **SETTINGS
        )
        assert outcome.losses == pytest.approx(run.losses, rel=0.1 if dtype == "bfloat16" else 1e-5)


@pytest.mark.parametrize(
    "trials, message",
    [
        ([], "trials"),
        (
            [Trial(bl.LoRA(r=2), 1e-3), Trial(bl.DoRA(r=2), 1e-3)],
            "DoRA stretches whole rows.*no pair of thin factors",
        ),
        (
            [Trial(bl.LoRA(r=2, lora_dropout=0.1), 1e-3)],
            "lora_dropout=0.1: allowed is 0 in fit_many",
        ),
        ([Trial(bl.LoRA(r=2), 0.0)], "lr=0.0"),
        ([Trial(bl.LoRA(r=2, modules_to_save=["norm"]), 1e-3)], r"modules_to_save=\('norm',\)"),
        ([Trial(bl.LoRA(r=2), 1e-3), Trial(bl.PiSSA(r=200), 1e-3)], "r=200"),
    ],
)
def test_what_is_refused(tiny, trials, message):
    with pytest.raises((ValueError, TypeError), match=message):
        fit_many(tiny[0], "subtraction", trials, **SETTINGS)
    assert all(p.requires_grad for p in tiny[0].parameters())


def test_a_layer_in_two_places_is_so_for_many(tiny):
    model, _ = tiny
    model.model.layers[1].mlp.up_proj = model.model.layers[0].mlp.up_proj
    alone = bl.fit(copy.deepcopy(model), "subtraction", method=bl.LoRA(r=2), lr=4e-3, **SETTINGS)
    (outcome,) = fit_many(model, "subtraction", [Trial(bl.LoRA(r=2), 4e-3)], **SETTINGS)
    assert outcome.losses == pytest.approx(alone.losses, rel=1e-3)
    assert not outcome.model.training


def test_taking_one_outcome_apart_leaves_the_shared_weights_frozen(tiny):
    trials = [Trial(bl.LoRA(r=2), 4e-3), Trial(bl.LoRA(r=3), 4e-3)]
    first, second = fit_many(tiny[0], "subtraction", trials, **SETTINGS)
    before = bl.count_parameters(second.model)
    bl.merge_and_unload(first.model)
    assert bl.count_parameters(second.model) == before


def test_a_layer_with_a_forward_of_its_own_does_not_run_beside_others(tiny):
    class Louder(bl.AdapterLayer):
        def forward(self, x):
            return 2 * super().forward(x)

    class Loud(bl.LoRA):
        Layer = Louder

    with pytest.raises(TypeError, match=r"method=.*Loud\(.*does more than add factors"):
        fit_many(tiny[0], "subtraction", [Trial(Loud(r=2), 1e-3)], **SETTINGS)
    assert all(p.requires_grad for p in tiny[0].parameters())


def test_a_model_that_reads_its_weights_is_refused_and_left_as_it_was(tiny):
    sizes = {"vocab_size": 64, "hidden_size": 16, "state_size": 4, "num_hidden_layers": 1}
    model = MambaForCausalLM(MambaConfig(**sizes))
    settings = SETTINGS | {"tokenizer": tiny[1]}
    with pytest.raises(TypeError, match="fit_many: the model reads a layer's weight"):
        fit_many(model, "subtraction", [Trial(bl.LoRA(r=2), 1e-3)], **settings)
    assert all(p.requires_grad for p in model.parameters())


def test_a_trial_that_diverges_stops_alone_and_is_named(tiny):
    calm = Trial(bl.LoRA(r=2), 4e-3)
    (alone,) = fit_many(tiny[0], "subtraction", [calm], **SETTINGS)
    wild = Trial(bl.LoRA(r=2), 1e25)
    with pytest.warns(UserWarning, match=r"the loss of Trial\(.*lr=1e\+25.* is nan"):
        wild, calm = fit_many(tiny[0], "subtraction", [wild, calm], **SETTINGS)
    assert calm.losses == pytest.approx(alone.losses, rel=1e-3) and calm.diverged is None
    first = next(n for n, loss in enumerate(wild.losses, start=1) if not math.isfinite(loss))
    assert wild.diverged == first and len(wild.losses) == SETTINGS["steps"]
    assert all(p.grad is None for p in wild.model.parameters())
