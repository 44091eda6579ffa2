"""What holds for every relative of LoRA, and PiSSA, MiLoRA, DoRA and ReLoRA in detail: peft's numbers
where peft has the method, else the definition."""

import copy
import math
from dataclasses import replace

import peft
import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

import beamlora_mini as bl
from beamlora_mini.methods.milora import minor_part
from beamlora_mini.methods.pissa import principal_part

R, ALPHA = 4, 12
FAMILY = {
    "pissa": bl.PiSSA(r=R, lora_alpha=ALPHA),
    "pissa, niter": bl.PiSSA(r=R, lora_alpha=ALPHA, niter=4),
    "milora": bl.MiLoRA(r=R, lora_alpha=ALPHA),
    "dora": bl.DoRA(r=R, lora_alpha=ALPHA),
    "relora": bl.ReLoRA(r=R, lora_alpha=ALPHA, merge_every=20, restart_warmup=4),
    "adalora": bl.AdaLoRA(r=R, lora_alpha=ALPHA, target_r=2),
    "increlora": bl.IncreLoRA(r=2, lora_alpha=ALPHA, target_r=R),
}
every_method = pytest.mark.parametrize("method", FAMILY.values(), ids=FAMILY)
IDS = torch.arange(1, 21).reshape(2, 10)
RUN = {"steps": 6, "lr": 4e-3, "batch_size": 8, "progress": False}


def close(a, b, tolerance):
    """Equal to `tolerance`, meant relative to the tensor's size where that is above one."""
    size = b.detach().abs().max().clamp(min=1)
    torch.testing.assert_close(a / size, b / size, rtol=tolerance, atol=tolerance)


def net(bias=True, dtype=torch.float32):
    torch.manual_seed(0)
    layers = nn.Linear(24, 40, bias=bias), nn.ReLU(inplace=True), nn.Linear(40, 12, bias=bias)
    return nn.Sequential(*layers).to(dtype)


def move_(model):
    """What training does, in one go: every trainable number moves."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))


def restart_(model):
    for layer in bl.adapter_layers(model).values():
        if hasattr(layer, "restart"):
            layer.restart(torch.Generator().manual_seed(0))


# --- what holds for each of them ---


@every_method
def test_starts_from_the_base_function_and_gives_the_base_back(method):
    model = net()
    x = torch.randn(3, 5, 24)
    base = copy.deepcopy(model.state_dict())
    before = model(x)
    layers = bl.attach(model, method)
    close(model(x), before, 1e-6)
    for layer in layers.values():
        close(layer.delta_weight(), torch.zeros_like(layer.weight), 1e-6)
    move_(model)
    restart_(model)
    move_(model)
    assert (model(x) - before).abs().max() > 0.1
    bl.detach(model)
    assert torch.equal(model(x), before)
    assert all(torch.equal(t, base[n]) for n, t in model.state_dict().items())


@every_method
@pytest.mark.parametrize("bias", [True, False])
def test_the_base_weight_and_the_delta_make_the_merged_weight(method, bias):
    model = net(bias).eval()
    x = torch.randn(5, 24)
    layers = bl.attach(model, method)
    move_(model)
    restart_(model)
    move_(model)
    adapted = model(x)
    deltas = {name: layer.delta_weight().detach() for name, layer in layers.items()}
    weights = {name: layer.base.weight.detach() + deltas[name] for name, layer in layers.items()}
    bl.merge(model)
    close(model(x), adapted, 2e-6)
    assert all(torch.equal(la.merged_weight, weights[name]) for name, la in layers.items())
    bl.unmerge(model)
    assert torch.equal(model(x), adapted)
    bl.merge_and_unload(model)
    close(model(x), adapted, 2e-6)
    assert type(model[0]) is nn.Linear and torch.equal(model[2].weight, weights["2"])


@every_method
def test_a_tied_head_does_not_move_the_embedding(tiny, method):
    model, _ = tiny
    embedding = model.get_input_embeddings().weight
    before = embedding.detach().clone()
    bl.attach(model, replace(method, target_modules=["lm_head"]))
    move_(model)
    restart_(model)
    adapted = model(IDS).logits
    assert torch.equal(embedding, before) and model.lm_head.base.weight is embedding
    bl.merge_and_unload(model)
    close(model(IDS).logits, adapted, 1e-5)
    assert torch.equal(model.get_input_embeddings().weight, before)


@every_method
def test_gpt2_conv1d(method):
    torch.manual_seed(0)
    config = GPT2Config(n_layer=2, n_embd=32, n_head=4, vocab_size=50, n_positions=32)
    model = GPT2LMHeadModel(config).eval()
    before = model(IDS).logits
    layers = bl.attach(model, method)
    close(model(IDS).logits, before, 1e-5)
    assert layers["transformer.h.0.attn.c_attn"].delta_weight().shape == (96, 32)
    move_(model)
    restart_(model)
    adapted = model(IDS).logits
    bl.merge_and_unload(model)
    close(model(IDS).logits, adapted, 1e-5)


@every_method
def test_a_bfloat16_base_is_started_from_and_given_back_exactly(method):
    model = net(dtype=torch.bfloat16).eval()
    x = torch.randn(6, 24, dtype=torch.bfloat16)
    before = model(x)
    layers = bl.attach(model, method)
    for layer in layers.values():
        assert layer.lora_A.dtype == layer.lora_B.dtype == torch.float32
        assert layer.delta_weight().abs().max() < 1e-7  # IncreLoRA's reserve is not nothing
    y = model(x)
    assert y.dtype == torch.bfloat16
    close(y, before, 2**-7)  # the last digit: the bias is added to a rounded product
    y.float().sum().backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert len(trained) >= 4 and all(p.grad.dtype == torch.float32 for p in trained)
    move_(model)
    restart_(model)
    adapted = model(x).float()
    bl.merge(model)
    close(model(x).float(), adapted, 0.05)
    bl.detach(model)
    assert torch.equal(model(x), before)


@every_method
def test_under_autocast(method):
    model = net().eval()
    bl.attach(model, method)
    move_(model)
    x = torch.randn(6, 24)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = model(x)
    assert y.dtype == torch.bfloat16
    close(y.float(), model(x), 0.05)


@every_method
def test_under_compile(method):
    model = net().eval()
    bl.attach(model, method)
    move_(model)
    x = torch.randn(3, 24)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    close(compiled(x), model(x), 1e-6)


@every_method
def test_state_dict_carries_the_whole_layer(method):
    model, other = net(), net()
    for each in (model, other):
        bl.attach(each, method)
    move_(model)
    restart_(model)
    move_(model)
    x = torch.randn(3, 24)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(x), model(x))


@every_method
def test_fit_learns_and_leaves_the_base_alone(tiny, method):
    model, task = tiny[0], bl.load_task("subtraction")
    before = {n: t.clone() for n, t in model.state_dict().items()}
    svd_shaped = isinstance(method, bl.AdaLoRA | bl.IncreLoRA)  # E starts at zero, A and B small
    rate = 2e-2 if svd_shaped else 4e-3
    history = bl.fit(model, task, method=method, **RUN | {"steps": 40, "lr": rate})
    assert sum(history.losses[-5:]) < 0.8 * sum(history.losses[1:6])
    bl.detach(model)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


@pytest.mark.parametrize("name", bl.METHODS)
def test_one_loop_runs_all_eight(tiny, name, tmp_path):
    model, (x, labels) = tiny[0], (IDS, IDS.flip(1))
    method = bl.METHODS[name]()
    layers = bl.attach(model, method)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    schedule = method.schedule(model, optimizer, 60)
    rate, history = method.lr_scheduler(optimizer, 5, 60), bl.RankHistory(every=10)
    losses = []
    for n in range(1, 61):
        optimizer.zero_grad()
        loss = model(x, labels=labels).loss
        (loss + schedule.loss()).backward()
        optimizer.step()
        rate.step()
        history.record(model, n, schedule.step(n), loss.item())
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    for layer in layers.values():
        assert layer.lora_A.shape == (layer.r, layer.in_features)
        assert layer.lora_B.shape == (layer.out_features, layer.r)
        assert layer.rank_importance().shape == (layer.r,)
    history.save(tmp_path / "run.parquet")
    assert bl.RankHistory.load(tmp_path / "run.parquet").steps == [10, 20, 30, 40, 50, 60]
    model.eval()
    before = model(x).logits
    bl.merge(model)
    close(model(x).logits, before, 1e-4)
    bl.unmerge(model)
    assert torch.equal(model(x).logits, before)
    bl.merge_and_unload(model)
    close(model(x).logits, before, 1e-4)
    assert not bl.adapter_layers(model)


# --- PiSSA and MiLoRA ---


@pytest.mark.parametrize("niter", [None, 4])
def test_pissa_against_peft(tiny, niter):
    model, _ = tiny
    init = "pissa" if niter is None else f"pissa_niter_{niter}"
    config = peft.LoraConfig(
        r=R, lora_alpha=ALPHA, init_lora_weights=init, target_modules="all-linear"
    )
    twin = peft.get_peft_model(copy.deepcopy(model), config)
    for name, layer in bl.attach(model, bl.PiSSA(r=R, lora_alpha=ALPHA, niter=niter)).items():
        theirs = twin.base_model.model.get_submodule(name)
        if niter is not None:  # once more, from W and with our random directions
            theirs.base_layer.weight.data = layer.weight.detach().clone()
            torch.manual_seed(0)
            theirs.pissa_init("default", init)
        product = layer.scaling * layer.lora_B @ layer.lora_A
        close(product, theirs.get_delta_weight("default"), 1e-5)
        close(layer.residual, theirs.weight, 1e-5)
        close(layer.residual + product, layer.weight, 1e-6)
        close(theirs.weight + theirs.get_delta_weight("default"), layer.weight, 1e-6)


def test_pissa_has_pefts_gradients(tiny):
    """With peft's A, B and residual, the layers are one function and learn alike."""
    model, _ = tiny
    config = peft.LoraConfig(
        r=R, lora_alpha=ALPHA, init_lora_weights="pissa", target_modules="all-linear"
    )
    twin = peft.get_peft_model(copy.deepcopy(model), config)
    layers = bl.attach(model, bl.PiSSA(r=R, lora_alpha=ALPHA))
    model, twin = model.double(), twin.double()
    pairs = [(layer, twin.base_model.model.get_submodule(n)) for n, layer in layers.items()]
    with torch.no_grad():
        for layer, theirs in pairs:
            layer.initial_A.copy_(theirs.lora_A["default"].weight)
            layer.initial_B.copy_(theirs.lora_B["default"].weight)
            theirs.base_layer.weight.copy_(layer.residual)
            for mine, other in ((layer.lora_A, "lora_A"), (layer.lora_B, "lora_B")):
                weight = getattr(theirs, other)["default"].weight
                weight.add_(0.01 * torch.randn_like(weight))
                mine.copy_(weight)
    for each in (model, twin):
        each(IDS, labels=IDS).loss.backward()
    for layer, theirs in pairs:
        close(layer.lora_A.grad, theirs.lora_A["default"].weight.grad, 1e-6)
        close(layer.lora_B.grad, theirs.lora_B["default"].weight.grad, 1e-6)
        assert layer.lora_A.grad.abs().sum() > 0  # at once, unlike LoRA


def test_the_randomised_split_is_near_the_exact_one_and_always_the_same():
    torch.manual_seed(0)
    U, S, Vh = torch.linalg.svd(torch.randn(60, 40), full_matrices=False)
    weight = U * (S[0] * 0.8 ** torch.arange(40)) @ Vh
    state = torch.get_rng_state()
    U, S, Vh = principal_part(weight, 4, niter=4)
    assert torch.equal(torch.get_rng_state(), state)
    singular = torch.linalg.svdvals(weight)
    close(S / singular[0], singular[:4] / singular[0], 0.01)
    assert (weight - U * S @ Vh).norm() < 1.01 * singular[4:].norm()  # the least there is
    torch.manual_seed(5)
    assert all(torch.equal(a, b) for a, b in zip(principal_part(weight, 4, niter=4), (U, S, Vh)))


def test_milora_is_the_minor_part_and_pissa_the_principal_one():
    model = net()
    singular = {
        n: torch.linalg.svdvals(m.weight) for n, m in model.named_modules() if n in "02" and n
    }
    for method, part in ((bl.MiLoRA, slice(-R, None)), (bl.PiSSA, slice(R))):
        for name, layer in bl.attach(model, method(r=R, lora_alpha=ALPHA)).items():
            product = layer.scaling * layer.lora_B @ layer.lora_A
            values = singular[name]
            close(torch.linalg.svdvals(product)[:R], values[part], 1e-5)
            close(product.norm(), values[part].norm(), 1e-5)
            close(layer.residual + product, layer.weight, 1e-6)
            close(layer.rank_importance() * layer.scaling, values[part], 1e-5)
        bl.detach(model)
    U, S, Vh = minor_part(model[0].weight, 24)  # all there are: the whole weight
    close(U * S @ Vh, model[0].weight, 1e-6)


@pytest.mark.parametrize("method", [bl.PiSSA, bl.MiLoRA])
@pytest.mark.parametrize("lora_alpha", [1, 4, 64])
def test_a_plain_lora_of_twice_the_rank_is_the_same_update(method, lora_alpha):
    model = net()
    layers = bl.attach(model, method(r=R, lora_alpha=lora_alpha))
    move_(model)
    plain = net()
    twins = bl.attach(plain, bl.LoRA(r=2 * R, lora_alpha=2 * lora_alpha))
    for name, layer in layers.items():
        A, B = layer.plain()
        with torch.no_grad():
            twins[name].lora_A.copy_(A)
            twins[name].lora_B.copy_(B)
        close(twins[name].delta_weight(), layer.delta_weight(), 1e-5)
    x = torch.randn(5, 24)
    close(plain(x), model(x), 1e-5)


@pytest.mark.parametrize("method", [bl.PiSSA(r=13), bl.PiSSA(r=13, niter=2), bl.MiLoRA(r=13)])
def test_a_rank_above_the_smaller_side_is_refused(method):
    model = net()
    with pytest.raises(ValueError, match=r"r=13: allowed is an integer up to 12.*\(12, 40\)"):
        bl.attach(model, method)
    assert not bl.adapter_layers(model) and all(p.requires_grad for p in model.parameters())
    bl.attach(model, type(method)(r=12))


@pytest.mark.parametrize("method", [bl.PiSSA, bl.MiLoRA])
def test_dropout_is_warned_of_and_reaches_the_adapter_alone(method):
    with pytest.warns(UserWarning, match=r"lora_dropout=0.5.*does not start") as warned:
        method = method(r=R, lora_dropout=0.5)
    assert warned[0].filename == __file__
    model = nn.Sequential(nn.Linear(24, 40))
    x = torch.randn(50, 24)
    before = model(x)
    layer = bl.attach(model, method)["0"]
    assert not torch.allclose(model(x), before, atol=1e-4)
    torch.manual_seed(0)
    got = model(x)
    torch.manual_seed(0)
    dropped = layer.dropout(x)
    by_hand = x @ layer.residual.T + layer.bias
    close(got, by_hand + layer.scaling * dropped @ layer.lora_A.T @ layer.lora_B.T, 1e-5)
    model.eval()
    close(model(x), before, 1e-6)


@pytest.mark.parametrize("niter", [-1, 1.5, "4"])
def test_bad_niter(niter):
    with pytest.raises(ValueError, match=f"niter={niter!r}"):
        bl.PiSSA(niter=niter)


# --- DoRA ---


def peft_dora(model, layers):
    """`model` under peft's DoRA with our numbers; {name: (ours, peft's)} layers."""
    targets = [name.rsplit(".", 1)[-1] for name in layers]
    config = peft.LoraConfig(r=R, lora_alpha=ALPHA, use_dora=True, target_modules=targets)
    twin = peft.get_peft_model(copy.deepcopy(model), config)
    pairs = {}
    for name, layer in layers.items():
        theirs = twin.base_model.model.get_submodule(name)
        with torch.no_grad():
            theirs.lora_A["default"].weight.copy_(layer.lora_A)
            theirs.lora_B["default"].weight.copy_(layer.lora_B)
            theirs.lora_magnitude_vector["default"].weight.copy_(layer.magnitude)
        pairs[name] = (layer, theirs)
    return twin, pairs


@pytest.mark.parametrize("bias", [True, False])
def test_dora_layers_against_peft_in_float32(bias):
    model = net(bias)
    model[1] = nn.Tanh()
    ours = copy.deepcopy(model)
    layers = bl.attach(ours, bl.DoRA(r=R, lora_alpha=ALPHA))
    _, pairs = peft_dora(model, layers)
    for layer, theirs in pairs.values():
        close(layer.magnitude, theirs.weight.norm(dim=1), 1e-6)
    move_(ours)
    twin, pairs = peft_dora(model, layers)
    x = torch.randn(2, 9, 24)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    outputs = ours(inputs[0]), twin(inputs[1])
    close(*outputs, 1e-6)
    grad = torch.randn_like(outputs[0]) / 10
    for output in outputs:
        output.backward(grad)
    close(inputs[0].grad, inputs[1].grad, 1e-6)
    for layer, theirs in pairs.values():
        close(layer.lora_A.grad, theirs.lora_A["default"].weight.grad, 1e-6)
        close(layer.lora_B.grad, theirs.lora_B["default"].weight.grad, 1e-6)
        close(layer.magnitude.grad, theirs.lora_magnitude_vector["default"].weight.grad, 1e-6)
    merged = twin.merge_and_unload()
    bl.merge_and_unload(ours)
    for name in layers:
        close(ours.get_submodule(name).weight, merged.get_submodule(name).weight, 1e-6)


def test_dora_on_the_model_against_peft_and_five_steps(tiny):
    model = tiny[0].double()
    ours = copy.deepcopy(model)
    layers = bl.attach(ours, bl.DoRA(r=R, lora_alpha=ALPHA))
    for layer in layers.values():
        nn.init.normal_(layer.lora_B, std=0.02)
    twin, pairs = peft_dora(model, layers)
    for each in (ours, twin):
        each(IDS, labels=IDS).loss.backward()
    for layer, theirs in pairs.values():
        close(layer.magnitude.grad, theirs.lora_magnitude_vector["default"].weight.grad, 1e-6)
        close(layer.lora_A.grad, theirs.lora_A["default"].weight.grad, 1e-6)
    for each in (ours, twin):
        optimizer = torch.optim.AdamW([p for p in each.parameters() if p.requires_grad], lr=1e-3)
        for _ in range(5):
            optimizer.zero_grad()
            each(IDS, labels=IDS).loss.backward()
            optimizer.step()
    for layer, theirs in pairs.values():
        close(layer.magnitude, theirs.lora_magnitude_vector["default"].weight, 1e-5)
        close(layer.lora_A, theirs.lora_A["default"].weight, 1e-5)
        close(layer.lora_B, theirs.lora_B["default"].weight, 1e-5)


def test_dora_row_norm_is_that_of_the_whole_matrix():
    layer = bl.attach(net(), bl.DoRA(r=R, lora_alpha=ALPHA))["0"]
    nn.init.normal_(layer.lora_B)
    V = layer.weight + layer.scaling * layer.lora_B @ layer.lora_A
    close(layer.row_norm(), V.norm(dim=1), 1e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        close(layer.row_norm(), V.norm(dim=1), 1e-6)


def test_dora_scales_the_product_and_not_the_bias():
    layer = bl.attach(net(), bl.DoRA(r=R))["0"]
    x = torch.randn(5, 24)
    product = layer(x) - layer.bias
    with torch.no_grad():
        layer.magnitude *= 3
    close(layer(x), 3 * product + layer.bias, 1e-6)
    close(layer.delta_weight(), 2 * layer.weight, 1e-6)


def test_dora_with_a_row_of_zeros_stays_finite_and_learns():
    model = net()
    nn.init.zeros_(model[0].weight[3:5])
    nn.init.ones_(model[0].bias[3:5])  # so that the ReLU lets a gradient through
    before = model(x := torch.randn(8, 24))
    layer = bl.attach(model, bl.DoRA(r=R))["0"]
    assert torch.equal(model(x), before)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(3):
        (model(x) - 1).square().sum().backward()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
        optimizer.step()
        optimizer.zero_grad()
    assert model(x).isfinite().all() and layer.delta_weight().isfinite().all()
    assert layer.delta_weight()[3:5].abs().sum() > 0


# --- ReLoRA ---


def rounds(model, method, steps, x=None):
    """Train on noise; returns the schedule's events and the largest jump at a restart."""
    x = torch.randn(16, 24) if x is None else x
    target = torch.randn(16, 12)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    schedule = method.schedule(model, optimizer, steps)
    events, jump = [], 0.0
    for n in range(1, steps + 1):
        (model(x) - target).square().mean().backward()
        optimizer.step()
        before = model(x).detach()
        events += schedule.step(n)
        jump = max(jump, (model(x).detach() - before).abs().max().item())
        optimizer.zero_grad()
    return events, jump, optimizer


@pytest.mark.parametrize("reset", ["zero", "random", "magnitude"])
def test_relora_restarts_without_a_jump_and_the_sum_has_more_rank(reset):
    method = bl.ReLoRA(r=2, merge_every=10, restart_warmup=2, reset=reset, keep=0.1)
    model = net()
    layers = bl.attach(model, method)
    events, jump, _ = rounds(model, method, 30)
    assert [(e.step, e.kind, e.module, e.slot) for e in events] == [
        (n, "restart", name, None) for n in (10, 20) for name in ("0", "2")
    ]  # none after the last step
    assert jump < 1e-6
    for layer in layers.values():
        assert torch.linalg.matrix_rank(layer.lora_B @ layer.lora_A) == 2
        assert torch.linalg.matrix_rank(layer.delta_weight(), rtol=1e-4) == 6


def test_relora_starts_a_round_like_lora_and_the_same_on_every_process():
    method = bl.ReLoRA(r=2, merge_every=5, restart_warmup=2)
    starts = []
    for seed in (0, 1):
        model = net()
        layer = bl.attach(model, method)["0"]
        torch.manual_seed(seed)  # the processes have seen other data
        before = layer.lora_A.detach().clone()
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
        method.schedule(model, optimizer, 100).step(5)
        assert not layer.lora_B.any() and not torch.equal(layer.lora_A, before)
        assert layer.lora_A.abs().max() <= 24**-0.5 and layer.lora_A.abs().max() > 0.8 * 24**-0.5
        starts.append(layer.lora_A.detach().clone())
    assert torch.equal(*starts)


@pytest.mark.parametrize(("reset", "keep"), [("zero", 0.25), ("random", 0.25), ("magnitude", 0.25)])
def test_relora_resets_moments_and_keeps_the_step_counter(reset, keep):
    method = bl.ReLoRA(r=4, merge_every=6, restart_warmup=2, reset=reset, keep=keep)
    model = net()
    layers = bl.attach(model, method)
    *_, optimizer = rounds(model, method, 5)
    old = {p: {k: v.clone() for k, v in optimizer.state[p].items()} for p in optimizer.state}
    method.schedule(model, optimizer, 100).step(6)
    for layer in layers.values():
        for p in (layer.lora_A, layer.lora_B):
            state = optimizer.state[p]
            assert state["step"] == old[p]["step"] == 5
            kept = state["exp_avg"] != 0
            assert torch.equal(kept, state["exp_avg_sq"] != 0)  # together
            assert kept.sum() == (0 if reset == "zero" else round(keep * p.numel()))
            for key in ("exp_avg", "exp_avg_sq"):
                assert torch.equal(state[key][kept], old[p][key][kept])
            if reset == "magnitude":
                size = old[p]["exp_avg"].abs()
                assert size[kept].min() >= size[~kept].max()
            if reset == "random":
                order = old[p]["exp_avg"].abs().flatten().argsort(descending=True)
                assert not kept.flatten()[order[: kept.sum()]].all()


@pytest.mark.parametrize("warmup_steps", [0, 7])
def test_relora_learning_rate_at_every_step(warmup_steps):
    total, every, again, lr = 100, 30, 6, 0.5
    method = bl.ReLoRA(merge_every=every, restart_warmup=again)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    rate = method.lr_scheduler(optimizer, warmup_steps, total)
    got = []
    for _ in range(total):
        got.append(rate.get_last_lr()[0] / lr)
        optimizer.step()
        rate.step()

    def cosine(k):
        return 0.5 * (1 + math.cos(math.pi * (k - warmup_steps) / (total - warmup_steps)))

    wanted = [k / warmup_steps for k in range(warmup_steps)]
    wanted += [cosine(k) for k in range(warmup_steps, every)]
    for start in (30, 60, 90):
        wanted += [j / again * cosine(start + again) for j in range(again)]
        wanted += [cosine(k) for k in range(start + again, min(start + every, total))]
    assert got == pytest.approx(wanted, abs=1e-12)
    assert got[30] == 0 and got[29] > 0.7


def test_relora_without_a_restart_is_lora(tiny):
    task = bl.load_task("subtraction")
    losses = []
    for method in (bl.LoRA(r=2), bl.ReLoRA(r=2, merge_every=50)):
        losses.append(bl.fit(copy.deepcopy(tiny[0]), task, method=method, **RUN).losses)
    assert losses[0] == losses[1]


@pytest.mark.parametrize("reset", ["zero", "random"])
def test_relora_resumes_over_restarts(tiny, tmp_path, crash_and_resume, reset):
    task = bl.load_task("subtraction")
    method = bl.ReLoRA(
        r=2, merge_every=3, restart_warmup=1, reset=reset, keep=0.1, lora_dropout=0.1
    )
    run = RUN | {"steps": 11, "checkpoint_every": 5}
    whole = copy.deepcopy(tiny[0])
    history = bl.fit(whole, task, method=method, **run)
    assert len(history.events) == 3 * 28 and history.learning_rates[3] == 0

    # a checkpoint at 5, a restart at 6 that must be done again
    resumed, again = crash_and_resume(tiny[0], task, 9, method=method, **run)
    assert again.losses == history.losses and again.events == history.events
    state = whole.state_dict()
    assert all(torch.equal(t, state[n]) for n, t in resumed.state_dict().items())
    other = copy.deepcopy(tiny[0])
    with pytest.raises(ValueError, match=r"method=.ReLoRA\(.*merge_every=4"):
        longer = bl.ReLoRA(r=2, merge_every=4, restart_warmup=1)
        bl.fit(other, task, method=longer, checkpoint_dir=tmp_path, resume=True, **run)
    assert not bl.adapter_layers(other)


def test_relora_schedule_refuses_foreign_models_and_states():
    method = bl.ReLoRA(r=2)
    model, plain = net(), net()
    bl.attach(model, method)
    bl.attach(plain, bl.LoRA(r=2))
    optimizer = torch.optim.AdamW(model.parameters())
    with pytest.raises(TypeError, match=r"LoRALinear.*ReLoRALinear"):
        method.schedule(plain, optimizer, 10)
    schedule = method.schedule(model, optimizer, 10)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="ReLoRASchedule keeps no state"):
        schedule.load_state_dict({"round_weights": {}})
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


def test_small_updates_add_up_beside_a_bfloat16_weight():
    """Rounded to bfloat16 after each round, an update below half a step of W would vanish."""
    model = nn.Sequential(nn.Linear(8, 8, bias=False).bfloat16())
    nn.init.ones_(model[0].weight)
    layer = bl.attach(model, bl.ReLoRA(r=1, lora_alpha=1))["0"]
    for _ in range(10):
        nn.init.constant_(layer.lora_A, 1)
        nn.init.constant_(layer.lora_B, 0.001)
        layer.restart(torch.Generator().manual_seed(0))
    close(layer.delta_weight(), torch.full((8, 8), 0.01), 1e-5)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("merge_every", 0), ("merge_every", 2.5), ("restart_warmup", -1), ("restart_warmup", 100),
        ("reset", "none"), ("keep", 1.5), ("keep", "all"), ("seed", -1),
    ],
)  # fmt: skip
def test_bad_relora_settings(argument, value):
    with pytest.raises(ValueError) as error:
        bl.ReLoRA(**{argument: value})
    assert f"{argument}={value!r}" in str(error.value)
