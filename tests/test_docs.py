"""What the README and the docs show runs, and is what it says."""

import re
from pathlib import Path

import make_pages
import torch
from transformers import AutoModelForCausalLM

import beamlora_mini as bl

ROOT = Path(__file__).resolve().parent.parent


def blocks(file):
    return re.findall(r"```python\n(.*?)```", (ROOT / file).read_text(encoding="utf-8"), re.DOTALL)


def test_the_ninth_method_of_the_docs_is_the_one_that_is_tested():
    assert blocks("docs/add_a_method.md") == [
        (ROOT / "docs" / "sora.py").read_text(encoding="utf-8")
    ]


def test_the_pages_of_the_docs_are_what_the_package_makes():
    for name, text in make_pages.pages().items():
        assert (ROOT / "docs" / name).read_text(encoding="utf-8") == text, (
            "python tools/make_pages.py"
        )


def test_the_readme_runs(tmp_path, monkeypatch):
    """On the tiny model, and not as long."""
    monkeypatch.chdir(tmp_path)
    first, own_loop = blocks("README.md")
    shorter = {"smollm2": "tiny", "word_problems": "subtraction", "steps=100": "steps=5",
               "limit=100": "limit=10", "period=200": "period=2", "every=10": "every=1"}  # fmt: skip
    for long, short in shorter.items():
        assert long in first + own_loop
        first, own_loop = first.replace(long, short), own_loop.replace(long, short)
    names = {}
    exec(first, names)
    assert names["history"].losses and not bl.adapter_layers(names["model"])
    ids = torch.arange(1, 21).reshape(2, 10)
    kept = AutoModelForCausalLM.from_pretrained("merged")
    torch.testing.assert_close(kept(ids).logits, names["model"](ids).logits)
    adapted = AutoModelForCausalLM.from_pretrained("adapter")
    torch.testing.assert_close(adapted(ids).logits, kept(ids).logits, rtol=1e-4, atol=1e-4)
    names["batches"] = [{"input_ids": ids, "labels": ids}] * 6
    exec(own_loop, names)
    assert names["run"].n == 6 and bl.RankHistory.load("run.parquet").steps == [1, 2, 3, 4, 5, 6]


def test_every_file_that_the_docs_name_is_there():
    for file in ("README.md", "CONTRIBUTING.md", "docs/add_a_method.md"):
        text = (ROOT / file).read_text(encoding="utf-8")
        for link in re.findall(r"\]\((?!http|#)([^)]+)\)", text):
            assert ((ROOT / file).parent / link).exists(), (file, link)
