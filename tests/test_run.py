"""One Run, whatever drives it: its order, wrappers around the model, what a resumed run must share."""

import copy
import re
import warnings

import pytest
import torch
from sora import SoRA
from torch import nn

import beamlora_mini as bl
from beamlora_mini.batches import collate, plan_batches
from beamlora_mini.loss import answer_loss
from tests.helpers import net

RUN = {"steps": 12, "lr": 4e-3, "batch_size": 8, "progress": False}
METHODS = {
    "lora": bl.LoRA(r=2, lora_dropout=0.1),
    "pissa": bl.PiSSA(r=2),
    "milora": bl.MiLoRA(r=2),
    "dora": bl.DoRA(r=2, lora_dropout=0.1),
    "relora": bl.ReLoRA(r=2, merge_every=3, restart_warmup=1, reset="random", keep=0.1),
    "adalora": bl.AdaLoRA(r=4, target_r=2, tinit=2, tfinal=4, deltaT=2),
    "increlora": bl.IncreLoRA(
        r=1, target_r=2, top_h=7, init_warmup=2, incre_interval=2, growth_warmup=4
    ),
    "beamlora": bl.BeamLoRA(r=4, period=4, p_start=0.7, pairing="random", score_lr_ratio=0.5),
    "sora": SoRA(r=2, sparsity=20.0),
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


def test_a_loop_of_ones_own_is_fit(tiny):
    """With three passes to a step it sees the same gradient in thirds."""
    model, tokenizer = tiny
    method = METHODS["beamlora"]
    by_fit = copy.deepcopy(model)
    log = bl.fit(by_fit, "subtraction", method=method, **RUN)
    torch.manual_seed(0)
    batches = plan_batches(bl.load_task("subtraction")["train"], tokenizer, 12, 8, seed=0)
    bl.attach(model, method)
    run = bl.Run(model.train(), steps=12, lr=4e-3)
    events, rates = [], []
    for examples in batches:
        batch = collate(examples, tokenizer.pad_token_id, "cpu")
        for _ in range(2):
            ((answer_loss(model, batch) + run.loss()) / 2).backward()
        rates.append(run.lr)
        events += run.update()
    assert run.n == 12 and rates == log.learning_rates
    assert [e[:5] for e in events] == [e[:5] for e in log.events] and events
    for name, layer in bl.adapter_layers(model).items():
        other = bl.adapter_layers(by_fit)[name]
        torch.testing.assert_close(layer.lora_B, other.lora_B, rtol=1e-4, atol=1e-5)


def test_the_order_of_an_update(tiny, monkeypatch):
    bl.attach(tiny[0], bl.LoRA(r=2))
    run = bl.Run(tiny[0], steps=5, lr=1e-3)
    done = []

    def note(owner, name):
        original = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *a, **k: (done.append(name), original(*a, **k))[1])

    note(nn.utils, "clip_grad_norm_")
    for owner, name in ((run.optimizer, "step"), (run.optimizer, "zero_grad")):
        note(owner, name)
    monkeypatch.setattr(run.schedule, "step", lambda n: (done.append(f"ranks {n}"), ["event"])[1])
    original = run.rate.step
    monkeypatch.setattr(run.rate, "step", lambda: (done.append("rate"), original())[1])
    ids = torch.arange(1, 21).reshape(2, 10)
    tiny[0](ids, labels=ids).loss.backward()
    assert run.update() == ["event"]
    assert done == ["clip_grad_norm_", "step", "ranks 1", "rate", "zero_grad"]
    done.clear()
    run.max_grad_norm = None
    run.update()
    assert done == ["step", "ranks 2", "rate", "zero_grad"]


def test_an_optimizer_of_ones_own(tiny):
    model, _ = tiny
    bl.attach(model, METHODS["beamlora"])
    parameters = [p for p in model.parameters() if p.requires_grad]
    run = bl.Run(model, steps=4, optimizer=torch.optim.SGD(parameters, lr=0.1, momentum=0.9))
    ids = torch.arange(1, 21).reshape(2, 10)
    model(ids, labels=ids).loss.backward()
    run.update()
    assert run.lr < 0.1 and any(run.optimizer.state.values())


def test_a_scaler_skips_a_step_and_the_run_goes_on(tiny):
    model, _ = tiny
    bl.attach(model, METHODS["adalora"])
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20)
    run = bl.Run(model, steps=12, lr=1e-3, scaler=scaler)
    ids = torch.arange(1, 21).reshape(2, 10)
    before = copy.deepcopy(run.tensors())
    skipped = 0
    for _ in range(12):
        with torch.autocast("cpu", dtype=torch.float16):
            loss = model(ids, labels=ids).loss + run.loss()
        scaler.scale(loss).backward()
        run.update()
        skipped += scaler.get_scale() < 2.0 ** (20 - skipped)
    assert 0 < skipped < 12
    after = run.tensors()
    assert all(t.isfinite().all() for t in after.values())
    assert not torch.equal(
        after["model.layers.0.mlp.up_proj.lora_A"], before["model.layers.0.mlp.up_proj.lora_A"]
    )


def test_a_scaler_s_scale_is_in_no_score(tiny):
    """IncreLoRA looks at gradients before they are unscaled."""
    scores = []
    for scale in (None, 2.0**10):
        model = copy.deepcopy(tiny[0])
        torch.manual_seed(0)
        bl.attach(model, METHODS["increlora"])
        scaler = scale and torch.amp.GradScaler("cpu", init_scale=scale)
        run = bl.Run(model, steps=12, lr=1e-3, scaler=scaler)
        ids = torch.arange(1, 21).reshape(2, 10)
        for _ in range(3):
            loss = model(ids, labels=ids).loss + run.loss()
            (scaler.scale(loss) if scaler else loss).backward()
            run.update()
        scores.append(run.schedule.scores)
    torch.testing.assert_close(*scores, rtol=1e-3, atol=0)
    assert scores[0].min() > 0


@every_method
@pytest.mark.parametrize("how", ["compiled", "inner", "parallel"])
def test_the_method_is_found_wherever_it_sits(tiny, how, method):
    model = tiny[0]
    plain = copy.deepcopy(model)
    wanted = bl.fit(plain, "subtraction", method=method, **RUN)
    torch.manual_seed(0)
    bl.attach(model.model if how == "inner" else model, method)
    given = model
    if how == "compiled":
        given = torch.compile(model, backend="eager")
    if how == "parallel":
        given = nn.DataParallel(model)  # on a CPU it passes everything on
    before = torch.get_rng_state()
    got = bl.fit(given, "subtraction", **RUN)
    assert got.events == wanted.events or "dropout" in repr(before)
    assert got.learning_rates == wanted.learning_rates
    if method.lora_dropout == 0 and how != "inner":
        assert len(got.losses) == len(wanted.losses)
    bl.detach(given)
    assert not bl.adapter_layers(model) and all(p.requires_grad for p in model.parameters())


@every_method
def test_a_copy_of_a_run_goes_on_by_itself(tiny, method):
    model, _ = tiny
    bl.attach(model.train(), method)
    run = bl.Run(model, steps=20, lr=4e-3)
    generator = torch.Generator().manual_seed(0)
    batches = torch.randint(3, 40, (20, 4, 8), generator=generator)

    def go(run, first, last):
        torch.manual_seed(1)
        events = []
        for ids in batches[first:last]:
            (run.model(ids, labels=ids).loss + run.loss()).backward()
            events += run.update()
        return events

    go(run, 0, 6)
    twin = copy.deepcopy(run)
    assert go(run, 6, 14) == go(twin, 6, 14)
    state = run.model.state_dict()
    assert run.model is not twin.model
    assert all(torch.equal(t, state[n]) for n, t in twin.model.state_dict().items())


# --- going on ---


@every_method
def test_killed_anywhere_it_goes_on_as_if_nothing_had_happened(tiny, crash_and_resume, method):
    whole = copy.deepcopy(tiny[0])
    histories = [bl.RankHistory(every=1) for _ in range(12)]
    settings = {"method": method, "checkpoint_every": 1, **RUN}
    log = bl.fit(whole, "subtraction", history=histories[0], **settings)
    wanted = whole.state_dict()
    for step in (2, 5, 9):
        resumed, again = crash_and_resume(
            tiny[0], "subtraction", step, history=histories[step], **settings
        )
        assert again.losses == log.losses and again.events == log.events
        assert again.learning_rates == log.learning_rates
        state = resumed.state_dict()
        assert state.keys() == wanted.keys()
        assert all(torch.equal(state[n], wanted[n]) for n in state)
        assert histories[step].to_pandas().equals(histories[0].to_pandas())


OTHER = {
    "lr": 1e-3, "betas": (0.9, 0.99), "weight_decay": 0.1, "warmup": 0.2, "max_grad_norm": 0.5,
    "seed": 1, "batch_size": 4, "steps": 13,
    "method": bl.BeamLoRA(r=4, period=4, p_start=0.7, pairing="random", temperature=0.06),
}  # fmt: skip


@pytest.fixture(scope="module")
def begun(loaded_tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("begun")
    settings = {"method": METHODS["beamlora"], "checkpoint_dir": folder, **RUN}
    bl.fit(copy.deepcopy(loaded_tiny[0]), "subtraction", **settings)
    return settings


@pytest.mark.parametrize("name", OTHER)
def test_another_setting_is_refused_by_its_name(tiny, begun, name):
    model, _ = tiny
    said = "method.temperature" if name == "method" else name
    with pytest.raises(ValueError, match=rf"^{said}=.*begun with {said}="):
        bl.fit(model, "subtraction", resume=True, **begun | {name: OTHER[name]})
    assert not bl.adapter_layers(model) and all(p.requires_grad for p in model.parameters())


def test_other_rows_are_refused(tiny, begun):
    rows = bl.load_task("subtraction")["train"]
    other = rows.select([*range(1, len(rows)), 0])
    with pytest.raises(ValueError, match="^rows="):
        bl.fit(tiny[0], other, resume=True, **begun)
    bl.fit(tiny[0], rows, resume=True, **begun)


# --- what is refused ---


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": True}, "steps=True: allowed is an integer of at least 1"),
        ({"lr": None}, "lr=None"),
        ({"warmup": 1}, "warmup=1"),
        ({"max_grad_norm": 0}, "max_grad_norm=0: allowed is None or a number above 0"),
    ],
)
def test_bad_settings(tiny, settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        bl.Run(tiny[0], **{"steps": 5, "lr": 1e-3} | settings)


def test_a_bool_is_no_number(tiny):
    for make in (
        lambda: bl.LoRA(lora_alpha=True),
        lambda: bl.BeamLoRA(period=True),
        lambda: bl.ReLoRA(seed=False),
        lambda: bl.AdaLoRA(target_r=True),
        lambda: bl.IncreLoRA(top_h=True),
        lambda: bl.PiSSA(niter=True),
        lambda: bl.fit(tiny[0], "subtraction", **RUN | {"batch_size": True}),
        lambda: bl.RankHistory(every=True),
    ):
        with pytest.raises(ValueError, match=r"=(True|False): allowed is"):
            make()


# --- adapters that nobody hears ---


class PartlyUsed(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.unused, self.cut = (nn.Linear(8, 8) for _ in range(3))

    def forward(self, x):
        return self.used(x) + 0 * self.cut(x)


@every_method
def test_adapters_without_a_gradient_are_named_after_the_first_steps(method):
    model = PartlyUsed()
    bl.attach(model, method)
    run = bl.Run(model, steps=12, lr=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            model(torch.randn(4, 8)).square().sum().backward()
            run.update()
    model(torch.randn(4, 8)).square().sum().backward()
    with pytest.warns(UserWarning, match="2 of 3 adapters got no gradient in 3 steps.*'unused'"):
        run.update()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(torch.randn(4, 8)).square().sum().backward()
        run.update()  # once is enough


@every_method
def test_fit_says_nothing_where_all_adapters_learn(tiny, method):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bl.fit(
            tiny[0], "subtraction", method=method, lr=1e-3, steps=12, batch_size=2, progress=False
        )


@pytest.mark.parametrize("betas", [0.9, (0.9,), (0.9, 1.0), ("a", "b"), (0.9, float("nan"))])
def test_betas_are_two_numbers_below_one(betas):
    model = net()
    bl.attach(model, bl.LoRA(r=2))
    with pytest.raises(ValueError, match="betas="):
        bl.Run(model, steps=3, lr=1e-3, betas=betas)
