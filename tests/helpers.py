"""What many tests share: comparisons, small models, every method, ways to train."""

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

import beamlora_mini as bl

R, ALPHA = 4, 12
FAMILY = {
    "lora": bl.LoRA(r=R, lora_alpha=ALPHA),
    "pissa": bl.PiSSA(r=R, lora_alpha=ALPHA),
    "pissa, niter": bl.PiSSA(r=R, lora_alpha=ALPHA, niter=4),
    "milora": bl.MiLoRA(r=R, lora_alpha=ALPHA),
    "dora": bl.DoRA(r=R, lora_alpha=ALPHA),
    "relora": bl.ReLoRA(r=R, lora_alpha=ALPHA, merge_every=20, restart_warmup=4),
    "adalora": bl.AdaLoRA(r=R, lora_alpha=ALPHA, target_r=2),
    "increlora": bl.IncreLoRA(r=2, lora_alpha=ALPHA, target_r=R),
    "beamlora": bl.BeamLoRA(r=R, lora_alpha=ALPHA, period=10, p_start=0.7),
}
every_method = pytest.mark.parametrize("method", FAMILY.values(), ids=FAMILY)
GROW = bl.IncreLoRA(r=1, target_r=3, lora_alpha=6, top_h=1, init_warmup=4, incre_interval=3)

IDS = torch.arange(1, 21).reshape(2, 10)
RUN = {"lr": 4e-3, "batch_size": 8, "progress": False}  # for fit, beside its steps


def close(a, b, tolerance):
    """Equal to `tolerance`, meant relative to an entry's size where that is above one."""
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def close_in_size(a, b, tolerance):
    """Equal to `tolerance`, meant relative to the largest entry's size where that is above one."""
    size = b.detach().abs().max().clamp(min=1)
    torch.testing.assert_close(a / size, b / size, rtol=0, atol=tolerance)


def net(bias=True, dtype=torch.float32):
    """Two linear layers, "0" and "2": (..., 24) -> (..., 12)."""
    torch.manual_seed(0)
    layers = nn.Linear(24, 40, bias=bias), nn.ReLU(inplace=True), nn.Linear(40, 12, bias=bias)
    return nn.Sequential(*layers).to(dtype)


def tiny_gpt2():
    torch.manual_seed(0)
    config = GPT2Config(n_layer=2, n_embd=32, n_head=4, vocab_size=50, n_positions=32)
    return GPT2LMHeadModel(config).eval()


def randomize_(model):
    """Move B away from zero, so that the adapter changes the function."""
    for layer in bl.adapter_layers(model).values():
        nn.init.normal_(layer.lora_B, std=0.1)


def move_(model):
    """What training does, in one go: every trainable number moves."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))


def adamw(model, lr=1e-2):
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr)


def train_(model, optimizer, schedule, steps, first=1):
    """Steps of a regression of net() on random numbers; returns the events."""
    events = []
    for n in range(first, first + steps):
        generator = torch.Generator().manual_seed(n)
        x, y = (torch.randn(16, size, generator=generator) for size in (24, 12))
        loss = (model(x) - y).square().mean() + schedule.loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        events += schedule.step(n)
    return events


def step_(run, n=1, first=0):
    """Steps of a Run of net() on random numbers; returns the events."""
    events = []
    for k in range(first, first + n):
        generator = torch.Generator().manual_seed(k)
        x, y = (torch.randn(16, size, generator=generator) for size in (24, 12))
        ((run.model(x) - y).square().mean() + run.loss()).backward()
        events += run.update()
    return events


def run_of(method, steps=60, **settings):
    torch.manual_seed(0)
    model = net()
    bl.attach(model, method)
    return bl.Run(model, steps=steps, lr=1e-2, **settings)


def adapter_state(model):
    """{name: copy} of what is trained."""
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def equal(a, b):
    """Two {name: tensor}, to the bit."""
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)
