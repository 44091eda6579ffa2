"""The frozen layer is called, never read: hooks, offloading, pruning and half precision keep working."""

import copy

import pytest
import torch
from accelerate import cpu_offload
from sora import SoRA
from torch import nn
from torch.nn.utils import prune
from transformers import GPT2Config, GPT2LMHeadModel

import beamlora_mini as bl
from beamlora_mini.layers import add_low_rank
from beamlora_mini.ranks.choosing import to_cpu
from tests.helpers import ALPHA, FAMILY, R, close, move_, net

METHODS = {**FAMILY, "sora": SoRA(r=R, lora_alpha=ALPHA)}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
STARTS_AT_ZERO = [
    m for n, m in METHODS.items() if n not in ("pissa", "pissa, niter", "milora", "increlora")
]


@pytest.mark.parametrize("method", STARTS_AT_ZERO, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_start_is_the_base_to_the_bit(method, bias, dtype):
    model = net(bias, dtype)
    for shape in ((7, 24), (2, 5, 24), (24,)):
        x = torch.randn(shape, dtype=dtype)
        before = model(x)
        bl.attach(model, method)
        assert torch.equal(model(x), before)
        with torch.no_grad():
            assert torch.equal(model(x), before)
        bl.detach(model)


@every_method
def test_calling_the_base_and_the_quick_path_are_one_function(method):
    quick, called = net(), net()
    called[0].register_forward_hook(lambda module, inputs, output: None)
    outputs = []
    for model in (quick, called):
        torch.manual_seed(3)
        bl.attach(model, method)
        move_(model)
        x = torch.randn(6, 24, generator=torch.Generator().manual_seed(2), requires_grad=True)
        y = model(x)
        y.square().sum().backward()
        trained = [p.grad for p in model.parameters() if p.requires_grad]
        outputs.append([y, x.grad, *trained])
    assert len(outputs[0]) >= 6
    for one, other in zip(*outputs, strict=True):
        close(one, other, 1e-5)


@every_method
def test_hooks_put_on_a_layer_fire_before_and_after(method):
    model, calls = net(), []
    model[0].register_forward_pre_hook(lambda *_: calls.append("before"))
    model[0].register_forward_hook(lambda module, inputs, output: output * 2)
    x = torch.randn(3, 24)
    doubled = model(x)
    layer = bl.attach(model, method)["0"]
    close(model(x), doubled, 1e-5)
    assert calls == ["before"] * 2
    model[2].base.register_full_backward_hook(lambda *_: calls.append("back"))
    model(x).sum().backward()
    assert calls[-1] == "back"
    calls.clear()
    if hasattr(layer, "restart"):
        layer.restart(torch.Generator())
        close(model(x), doubled, 1e-5)
        assert calls == ["before"]
    bl.merge(model.eval())
    close(model(x), doubled, 1e-5)


@every_method
def test_a_base_kept_elsewhere_gives_its_own_numbers_or_is_refused(method):
    model = net()
    x = torch.randn(3, 24)
    before = model(x)
    bl.attach(model, method)
    cpu_offload(model, execution_device="cpu")
    assert model[0].base.weight.is_meta
    # DoRA needs W's rows again at every step; accelerate does not look into IncreLoRA's blocks.
    if isinstance(method, bl.DoRA | bl.IncreLoRA):
        with pytest.raises(ValueError, match="not in memory"):
            model(x)
    else:
        close(model(x), before, 1e-5)
    other = net()
    cpu_offload(other, execution_device="cpu")
    with pytest.raises(ValueError, match="not in memory.*first, then offload"):
        bl.attach(other, method)
    assert not bl.adapter_layers(other)
    close(other(x), before, 1e-6)


@every_method
@pytest.mark.parametrize(
    "made", [lambda m: prune.l1_unstructured(m, "weight", 0.5), nn.utils.weight_norm]
)
def test_a_weight_that_a_hook_makes(method, made):
    model = net()
    made(model[0])
    x = torch.randn(3, 24)
    before = model(x)
    bl.attach(model, method)
    close(model(x), before, 1e-5)
    move_(model)
    adapted = model(x)
    assert (adapted - before).abs().max() > 0.005
    bl.merge(model.eval())
    close(model(x), adapted, 1e-5)
    bl.unmerge(model)
    bl.merge_and_unload(model)
    close(model(x), adapted, 1e-5)
    assert "weight" in dict(model[0].named_parameters()) and not model[0]._forward_pre_hooks


@every_method
def test_what_is_unfrozen_beside_an_adapter_learns(method):
    model = net()
    bl.attach(model, method)
    model[0].base.bias.requires_grad_(True)
    model[2].base.weight.requires_grad_(True)
    model(torch.randn(5, 24)).square().sum().backward()
    assert model[0].base.bias.grad.any() and model[2].base.weight.grad.any()


@every_method
@pytest.mark.parametrize("outside", [True, False])
def test_backward_inside_autocast(method, outside):
    model = net()
    bl.attach(model, method)
    move_(model)
    x = torch.randn(5, 24)
    if outside:
        y = model(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y.float().square().sum().backward()
    else:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            model(x).float().square().sum().backward()
    for p in model.parameters():
        assert not p.requires_grad or (p.grad.dtype == torch.float32 and p.grad.isfinite().all())


@pytest.mark.parametrize("method", STARTS_AT_ZERO, ids=lambda m: type(m).__name__)
def test_a_cast_after_attach_keeps_the_start(method):
    """DoRA's magnitude, rounded to eight bits beside a norm that was not, stretched every row."""
    model = net()
    model[0].bias.data.zero_()  # whose own rounding is not the question
    bl.attach(model, method)
    model.to(torch.bfloat16)
    x = torch.randn(50, 24, dtype=torch.bfloat16)
    base = net()
    base[0].bias.data.zero_()
    close(model(x), base.to(torch.bfloat16)(x), 2**-7)
    for layer in bl.adapter_layers(model).values():
        assert layer.delta_weight().abs().max() == 0


@pytest.mark.parametrize("method", [bl.LoRA(r=4), bl.PiSSA(r=4), bl.MiLoRA(r=4)])
@pytest.mark.parametrize("size", [1e-2, 1e-3, 1e-4])
def test_small_changes_survive_a_bfloat16_base(method, size):
    model = nn.Sequential(nn.Linear(64, 64, bias=False).bfloat16())
    layer = bl.attach(model, method)["0"]
    if isinstance(method, bl.LoRA):
        with torch.no_grad():
            layer.lora_B.normal_()
        start = layer.lora_A.detach().clone(), layer.lora_B.detach().clone()
        layer.lora_A.data.zero_()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in (layer.lora_A, layer.lora_B):
            p.add_(size * torch.randn(p.shape, generator=generator))
    delta = layer.delta_weight().double()
    if not isinstance(method, bl.LoRA):
        exact = layer.lora_B.double() @ layer.lora_A.double()
        exact -= layer.initial_B.double() @ layer.initial_A.double()
        close(delta, layer.scaling * exact, 1e-5 * size)
        start = None
    # What the forward pass makes of it, with the frozen product taken away.
    x = torch.randn(256, 64, generator=generator).bfloat16()
    A, B = layer.plain()
    zero = torch.zeros(256, 64, dtype=torch.bfloat16)
    seen = add_low_rank(zero, x, A, B, layer.scaling).double()
    wanted = x.double() @ delta.T
    assert (seen - wanted).norm() < 0.01 * wanted.norm()
    assert start is None or len(start) == 2


def test_the_randomised_start_leaves_every_generator_alone(monkeypatch):
    model = net()
    monkeypatch.setattr(
        torch, "manual_seed", lambda seed: pytest.fail("it seeds the user's generators")
    )
    state = torch.get_rng_state()
    bl.attach(model, bl.PiSSA(r=4, niter=2))
    assert torch.equal(torch.get_rng_state(), state)


def test_relora_keeps_no_second_model_in_what_is_saved_or_sent():
    model = net(dtype=torch.bfloat16)
    layers = bl.attach(model, bl.ReLoRA(r=2))
    for layer in layers.values():
        layer.lora_B.data.normal_()
        layer.restart(torch.Generator())
        assert layer.round_weight is None
        assert layer.rounds_A.shape == (2, layer.in_features)
    assert not list(model.buffers())
    assert not any("round_weight" in name for name in model.state_dict())


@every_method
def test_ddp_sends_next_to_nothing_before_a_forward(method):
    model = net()
    bl.attach(model, method)
    sent = sum(b.numel() for b in model.buffers())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert sent <= 2 * 4 * len(bl.adapter_layers(model)) < trained / 20


def test_importances_on_several_devices_come_together():
    """Devices that are not here are stood in for by dtypes' fellow: a fake one."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True):
        tensors = [torch.ones(3), torch.ones(2, device="cuda"), torch.ones(1)]
        assert [(len(t), t.device.type) for t in to_cpu(tensors)] == [
            (3, "cpu"),
            (2, "cpu"),
            (1, "cpu"),
        ]
    mixed = [torch.tensor([1.0, 2.0]), torch.tensor([3.0])]
    assert [t.tolist() for t in to_cpu(mixed)] == [[1.0, 2.0], [3.0]]


def test_sharded_adapters_are_refused_with_a_sentence():
    model = net()
    layers = bl.attach(model, bl.LoRA(r=2))
    type(layers["0"].lora_A.data).full_tensor = property(lambda t: t)  # what DTensor has
    try:
        with pytest.raises(TypeError, match="'0' is sharded.*ignored_params"):
            bl.Run(model, steps=3, lr=1e-3)
    finally:
        del torch.Tensor.full_tensor


@every_method
def test_conv1d_under_hooks(method):
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=32, n_head=4, vocab_size=50)).eval()
    ids = torch.arange(1, 21).reshape(2, 10)
    before = model(ids).logits
    seen = []
    model.transformer.h[0].attn.c_attn.register_forward_hook(lambda *_: seen.append(1))
    bl.attach(model, method)
    close(model(ids).logits, before, 1e-5)
    assert len(seen) == 1
    twin = copy.deepcopy(model)
    bl.merge_and_unload(twin)
    close(twin(ids).logits, before, 1e-5)
