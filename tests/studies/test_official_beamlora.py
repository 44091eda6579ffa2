"""What the official code does wrong is done wrong in the studies, by two overridden hooks."""

import copy

import torch
from torch import nn

import beamlora_mini as bl
from studies.official_beamlora import OfficialBeamLoRA
from tests.helpers import adamw

SETTINGS = {"r": 8, "period": 4, "p_start": 0.7, "end_step": 1000}


def layers_after_an_event(method, dtype=torch.float32, modules=2):
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(16, 16) for _ in range(modules)))
    layers = bl.attach(model, method)
    generator = torch.Generator().manual_seed(1)
    for layer in layers.values():
        layer.to(dtype)
    optimizer = adamw(model)
    schedule = method.schedule(model, optimizer, 100)
    events, before = [], {}
    for n in range(1, 5):
        x = torch.randn(4, 16, generator=generator).to(dtype)
        model(x).square().sum().backward()
        optimizer.step()
        if n == 4:
            with torch.no_grad():
                for layer in layers.values():
                    layer.scores.copy_(0.05 * torch.randn(layer.r, generator=generator))
            before = {
                name: copy.deepcopy(optimizer.state[la.lora_A]) for name, la in layers.items()
            }
        events += schedule.step(n)
        optimizer.zero_grad()
    return layers, optimizer, events, before


def test_in_float32_it_is_as_published_and_the_moments_are_lost():
    mine = layers_after_an_event(OfficialBeamLoRA(**SETTINGS, snapshot_lag=1, pairing="random"))
    door = layers_after_an_event(bl.BeamLoRA.as_published(**SETTINGS))
    assert [e[:5] for e in mine[2]] == [e[:5] for e in door[2]] and mine[2]
    for name, layer in mine[0].items():
        assert torch.equal(layer.lora_A, door[0][name].lora_A)
        assert torch.equal(mine[1].state[layer.lora_A]["exp_avg"], mine[3][name]["exp_avg"])
    intended = layers_after_an_event(bl.BeamLoRA(**SETTINGS, max_prune_fraction=1.0))
    changed = [
        not torch.equal(intended[1].state[la.lora_A]["exp_avg"], intended[3][name]["exp_avg"])
        for name, la in intended[0].items()
    ]
    assert all(changed)


def test_in_bfloat16_its_sum_loses_digits_and_it_prunes_fewer():
    counts = []
    settings = SETTINGS | {"r": 16, "p_start": 0.95}
    for method in (OfficialBeamLoRA(**settings), bl.BeamLoRA(**settings, max_prune_fraction=1.0)):
        counts.append(len(layers_after_an_event(method, torch.bfloat16, modules=224)[2]))
    assert 0 < counts[0] < 0.99 * counts[1]
