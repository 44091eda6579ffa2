"""What every notebook of the series must be, beyond running: nbval runs it and compares its outputs."""

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import nbformat
import pytest
from nbval.plugin import find_comment_markers, metadata_tags

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted(
    path
    for path in (ROOT / "notebooks").rglob("*.ipynb")
    if ".ipynb_checkpoints" not in path.parts and "-Copy" not in path.name
)
REQUIRED = [
    "00_tour",
    "01_lora_from_scratch",
    "02_better_starts",
    "03_direction_and_restarts",
    "04_rank_budgets",
    "05_not_all_ranks_are_equal",
    "06_pruning",
    "07_growing_networks",
    "08_expansion_from_history",
    "09_beamlora",
    "10_real_model",
]

# Cells that nbval may skip, ignore or let fail: {(notebook, marker): reason}.
ALLOWED = {}

# Plausible wrong answers, which a checker must turn down: {"01.1": ["code", ...]}.
WRONG = {
    "00.1": [
        "def strongest_rank(importance):\n    return 'b'",
        "def strongest_rank(importance):\n    return 'a', 1",
        """
def strongest_rank(importance):  # the strongest module in all
    module = max(importance, key=lambda name: importance[name].mean())
    return module, int(importance[module].argmax())
""",
        """
def strongest_rank(importance):
    module = max(importance, key=lambda name: importance[name].max())
    return module, int(importance[module].argmin())
""",
    ],
    "00.2": [
        """
def ranks_for_share(importance, p):  # one too few
    values = torch.cat(list(importance.values())).sort(descending=True).values
    return int((values.cumsum(0) < p * values.sum()).sum())
""",
        """
def ranks_for_share(importance, p):  # the weakest first
    values = torch.cat(list(importance.values())).sort().values
    return int((values.cumsum(0) < p * values.sum()).sum()) + 1
""",
        "def ranks_for_share(importance, p):\n    return round(p * 4)",
    ],
    "01.1": [
        "def rank_for_budget(inputs, outputs, budget):\n    return budget // (inputs * outputs)",
        "def rank_for_budget(inputs, outputs, budget):\n    return budget / (inputs + outputs)",
        "def rank_for_budget(inputs, outputs, budget):\n    return max(1, budget // (inputs + outputs))",
    ],
    "01.2": [
        """
gradients_at_the_start = {
    "A random, B zero": {"A", "B"},
    "A zero, B random": {"A", "B"},
    "both zero": set(),
}
""",
        """
gradients_at_the_start = {
    "A random, B zero": {"A"},
    "A zero, B random": {"B"},
    "both zero": set(),
}
""",
    ],
    "01.3": [
        """
def merge_two(weight, first, second):  # changes what it was given
    for layer in (first, second):
        weight += (layer.scaling * layer.lora_B @ layer.lora_A).detach()
    return weight
""",
        """
def merge_two(weight, first, second):  # forgets the scaling
    return weight + first.lora_B @ first.lora_A + second.lora_B @ second.lora_A
""",
        """
def merge_two(weight, first, second):  # one scaling for both
    scaling = first.scaling
    return weight + scaling * (first.lora_B @ first.lora_A + second.lora_B @ second.lora_A)
""",
    ],
    "02.1": [
        """
def rank_for_share(weight, p):  # one too few
    squares = torch.linalg.svdvals(weight).square()
    return int((squares.cumsum(0) < p * squares.sum()).sum())
""",
        """
def rank_for_share(weight, p):  # the values, not their squares
    values = torch.linalg.svdvals(weight)
    return int((values.cumsum(0) < p * values.sum()).sum()) + 1
""",
        "def rank_for_share(weight, p):\n    return round(p * min(weight.shape))",
    ],
    "02.2": [
        """
def middle_start(weight, first, r, scaling):  # the scaling is missing
    U, S, Vh = torch.linalg.svd(weight, full_matrices=False)
    part = slice(first, first + r)
    root = S[part].sqrt()
    return root[:, None] * Vh[part], U[:, part] * root
""",
        """
def middle_start(weight, first, r, scaling):  # always the first
    U, S, Vh = torch.linalg.svd(weight, full_matrices=False)
    root = (S[:r] / scaling).sqrt()
    return root[:, None] * Vh[:r], U[:, :r] * root
""",
        """
def middle_start(weight, first, r, scaling):  # all of it in B
    U, S, Vh = torch.linalg.svd(weight, full_matrices=False)
    part = slice(first, first + r)
    return Vh[part], U[:, part] * S[part] / scaling
""",
    ],
    "02.3": [
        """
def plain_lora(layer, r, lora_alpha):  # alpha not doubled
    A = torch.cat([layer.lora_A, layer.initial_A])
    B = torch.cat([layer.lora_B, -layer.initial_B], dim=1)
    return {"lora_A": A, "lora_B": B, "r": 2 * r, "lora_alpha": lora_alpha}
""",
        """
def plain_lora(layer, r, lora_alpha):  # both signs turned: the product's is lost
    A = torch.cat([layer.lora_A, -layer.initial_A])
    B = torch.cat([layer.lora_B, -layer.initial_B], dim=1)
    return {"lora_A": A, "lora_B": B, "r": 2 * r, "lora_alpha": 2 * lora_alpha}
""",
        """
def plain_lora(layer, r, lora_alpha):  # the difference of the factors
    A, B = layer.lora_A - layer.initial_A, layer.lora_B - layer.initial_B
    return {"lora_A": A, "lora_B": B, "r": r, "lora_alpha": lora_alpha}
""",
    ],
    "03.1": [
        """
def stretch(weight, A, B, scaling, magnitude):  # NaN for a row of zeros
    return magnitude / (weight + scaling * B @ A).norm(dim=1)
""",
        """
def stretch(weight, A, B, scaling, magnitude):  # columns
    return magnitude / (weight + scaling * B @ A).norm(dim=0).mean()
""",
        """
def stretch(weight, A, B, scaling, magnitude):  # the square of the scaling is missing
    squares = weight.square().sum(1) + 2 * scaling * ((weight @ A.T) * B).sum(1)
    norm = (squares + ((B @ (A @ A.T)) * B).sum(1)).clamp(min=0).sqrt()
    return torch.where(norm > 0, magnitude / norm, torch.ones_like(norm))
""",
    ],
    "03.2": [
        "def highest_rank(total, every, r, outputs, inputs):\n    return total // every * r",
        "def highest_rank(total, every, r, outputs, inputs):\n    return -(-total // every) * r",
        """
def highest_rank(total, every, r, outputs, inputs):  # a round too many after the last step
    return min((total // every + 1) * r, outputs, inputs)
""",
    ],
    "03.3": [
        "def reset_moments(exp_avg, exp_avg_sq, keep):\n    return exp_avg * 0, exp_avg_sq * 0",
        """
def reset_moments(exp_avg, exp_avg_sq, keep):  # each moment by its own size
    def largest(values):
        size = values.abs().flatten()
        mask = torch.zeros_like(size)
        mask[size.topk(round(keep * size.numel())).indices] = 1
        return values * mask.view_as(values)
    return largest(exp_avg), largest(exp_avg_sq)
""",
        """
def reset_moments(exp_avg, exp_avg_sq, keep):  # the smallest stay
    size = exp_avg.abs().flatten()
    mask = torch.zeros_like(size)
    mask[(-size).topk(round(keep * size.numel())).indices] = 1
    mask = mask.view_as(exp_avg)
    return exp_avg * mask, exp_avg_sq * mask
""",
    ],
    "04.1": [
        """
def kept_ranks(scores, budget):  # a threshold: ties cost ranks
    values = torch.cat(list(scores.values())).sort(descending=True).values
    limit = values[budget] if budget < len(values) else -1.0
    return {name: int((s > limit).sum()) for name, s in scores.items()}
""",
        """
def kept_ranks(scores, budget):  # ties are all kept
    values = torch.cat(list(scores.values())).sort(descending=True).values
    return {name: int((s >= values[budget - 1]).sum()) for name, s in scores.items()}
""",
        """
def kept_ranks(scores, budget):  # the same for every layer
    share = budget // len(scores)
    return {name: min(share, len(s)) for name, s in scores.items()}
""",
    ],
    "04.2": [
        """
def half_pruned(total, tinit, tfinal, first, last):  # as if it fell along a line
    return tinit + (total - tfinal - tinit) // 2
""",
        """
def half_pruned(total, tinit, tfinal, first, last):  # forgets the quiet start
    for t in range(total):
        left = max(0.0, 1 - t / (total - tfinal))
        if int((first - last) * left**3 + last) <= (first + last) / 2:
            return t
""",
        """
def half_pruned(total, tinit, tfinal, first, last):  # half of the ranks, not of the pruning
    for t in range(total):
        left = max(0.0, 1 - max(0, t - tinit) / (total - tfinal - tinit))
        if int((first - last) * left**3 + last) <= first / 2:
            return t
""",
    ],
    "04.3": [
        """
def surviving_lora(layer):  # E is lost
    kept = layer.lora_E != 0
    return layer.lora_A[kept], layer.lora_B[:, kept]
""",
        """
def surviving_lora(layer):  # the pruned ranks are still there
    return layer.lora_A, layer.lora_B * layer.lora_E
""",
        """
def surviving_lora(layer):  # only positive E survive
    kept = layer.lora_E > 0
    return layer.lora_A[kept], layer.lora_B[:, kept] * layer.lora_E[kept]
""",
        """
def surviving_lora(layer):  # E twice
    kept = layer.lora_E != 0
    E = layer.lora_E[kept]
    return E[:, None] * layer.lora_A[kept], layer.lora_B[:, kept] * E
""",
    ],
    "05.1": [
        "def same_path(lr, old, new, optimizer):\n    return lr * new / old",
        "def same_path(lr, old, new, optimizer):\n    return lr * old / new",
        """
def same_path(lr, old, new, optimizer):  # SGD: forgets that the gradient changes as well
    return lr if optimizer == "adam" else lr * new / old
""",
    ],
    "05.2": [
        "zero_for_an_idle_rank = {'activation'}",
        "zero_for_an_idle_rank = {'activation', 'gradient', 'sensitivity'}",
        "zero_for_an_idle_rank = set()",
    ],
    "05.3": [
        """
def norm_of_two(A, B, i, j):  # the sum of the two norms
    return B[:, i].norm() * A[i].norm() + B[:, j].norm() * A[j].norm()
""",
        """
def norm_of_two(A, B, i, j):  # as if they were at right angles
    squared = B.norm(dim=0).square() * A.norm(dim=1).square()
    return (squared[i] + squared[j]).sqrt()
""",
        """
def norm_of_two(A, B, i, j):  # adds the vectors, not the products
    return (B[:, i] + B[:, j]).norm() * (A[i] + A[j]).norm()
""",
    ],
    "06.1": [
        "def p_for(importance, k):\n    return k / len(importance)",
        """
def p_for(importance, k):  # forgets to sort
    return float(importance[:k].sum() / importance.sum())
""",
        """
def p_for(importance, k):  # as if the rank that exceeds p were kept
    ordered = importance.sort(descending=True).values
    return float(ordered[: k - 1].sum() / ordered.sum()) + 1e-6
""",
        """
def p_for(importance, k):  # enough, but not the smallest
    ordered = importance.sort(descending=True).values
    return float(ordered[:k].sum() / ordered.sum()) + 1e-3
""",
    ],
    "06.2": [
        """
def shrink(layer, mask):  # the old lora_alpha over the new r
    return layer.lora_A[~mask], layer.lora_B[:, ~mask], 8
""",
        """
def shrink(layer, mask):  # keeps the pruned ones
    A, B = layer.lora_A[mask], layer.lora_B[:, mask]
    return A, B, layer.scaling * len(A)
""",
        """
def shrink(layer, mask):  # zeros take part as before
    return layer.lora_A * ~mask[:, None], layer.lora_B * ~mask, 8
""",
    ],
    "06.3": [
        """
def top_k_with_a_floor(importances, total):  # no floor
    pool = torch.cat(list(importances.values())).sort(descending=True).values
    return {name: values < pool[total - 1] for name, values in importances.items()}
""",
        """
def top_k_with_a_floor(importances, total):  # a floor on top: one too many
    pool = torch.cat(list(importances.values())).sort(descending=True).values
    masks = {name: values < pool[total - 1] for name, values in importances.items()}
    for name, values in importances.items():
        masks[name][values.argmax()] = False
    return masks
""",
        """
def top_k_with_a_floor(importances, total):  # overwrites what it was given
    for values in importances.values():
        values[values.argmax()] = float("inf")
    pool = torch.cat(list(importances.values())).sort(descending=True).values
    return {name: values < pool[total - 1] for name, values in importances.items()}
""",
    ],
    "07.1": [
        """
def widen_unevenly(W_in, W_out, unit, share):  # nobody sends less
    return torch.cat([W_in, W_in[unit : unit + 1]]), torch.cat([W_out, W_out[:, unit : unit + 1]], 1)
""",
        """
def widen_unevenly(W_in, W_out, unit, share):  # halves, whatever the share
    wide_in = torch.cat([W_in, W_in[unit : unit + 1]])
    wide_out = torch.cat([W_out, W_out[:, unit : unit + 1] / 2], 1)
    wide_out[:, unit] /= 2
    return wide_in, wide_out
""",
        """
def widen_unevenly(W_in, W_out, unit, share):  # changes what it was given
    copy = (1 - share) * W_out[:, unit : unit + 1]
    W_out[:, unit] *= share
    return torch.cat([W_in, W_in[unit : unit + 1]]), torch.cat([W_out, copy], 1)
""",
    ],
    "07.2": [
        """
def tie_again(clone, times):  # the logits are `times` as large
    clone.lm_head.weight = clone.model.embed_tokens.weight
""",
        """
def tie_again(clone, times):  # the wrong one gives way
    clone.model.embed_tokens.weight = clone.lm_head.weight
""",
        """
def tie_again(clone, times):  # equal is not the same
    clone.lm_head.weight.data.copy_(clone.model.embed_tokens.weight)
    clone.model.norm.weight.data /= times
""",
        """
def tie_again(clone, times):  # always two
    clone.lm_head.weight = clone.model.embed_tokens.weight
    clone.model.norm.weight.data /= 2
""",
    ],
    "07.3": [
        """
def copy_into(A, B, slot, source):  # the source counts twice
    A, B = A.clone(), B.clone()
    A[slot], B[:, slot] = A[source], B[:, source]
    return A, B
""",
        """
def copy_into(A, B, slot, source):  # halves both sides: a quarter each
    A, B = A.clone(), B.clone()
    A[slot], B[:, slot] = A[source], B[:, source]
    for rank in (slot, source):
        A[rank] /= 2
        B[:, rank] /= 2
    return A, B
""",
        """
def copy_into(A, B, slot, source):  # in place
    A[slot] = A[source]
    B[:, source] /= 2
    B[:, slot] = B[:, source]
    return A, B
""",
    ],
    "08.1": [
        """
twins_part = {  # another memory would not matter
    "AdamW, moments copied from the source": False,
    "AdamW, moments kept": False,
    "plain SGD, no moments": False,
    "AdamW with decay, moments copied from the source": False,
    "AdamW, moments copied, b of both halved": False,
    "AdamW, moments copied, b of the slot negated": True,
}
""",
        """
twins_part = {  # a negated twin would follow its source
    "AdamW, moments copied from the source": False,
    "AdamW, moments kept": True,
    "plain SGD, no moments": False,
    "AdamW with decay, moments copied from the source": False,
    "AdamW, moments copied, b of both halved": False,
    "AdamW, moments copied, b of the slot negated": False,
}
""",
        """
twins_part = {  # decay would part them
    "AdamW, moments copied from the source": False,
    "AdamW, moments kept": True,
    "plain SGD, no moments": False,
    "AdamW with decay, moments copied from the source": True,
    "AdamW, moments copied, b of both halved": False,
    "AdamW, moments copied, b of the slot negated": True,
}
""",
    ],
    "08.2": [
        """
def split_apart(A, B, slot, source, noise):  # only one gets noise: the function changes
    A, B = A.clone(), B.clone()
    A[slot] = A[source] + noise
    B[:, source] = B[:, source] / 2
    B[:, slot] = B[:, source]
    return A, B
""",
        """
def split_apart(A, B, slot, source, noise):  # a plain split
    A, B = A.clone(), B.clone()
    A[slot] = A[source]
    B[:, source] = B[:, source] / 2
    B[:, slot] = B[:, source]
    return A, B
""",
        """
def split_apart(A, B, slot, source, noise):  # the noise is silent: b = 0
    A, B = A.clone(), B.clone()
    A[slot] = A[source] + noise
    B[:, slot] = 0
    return A, B
""",
        """
def split_apart(A, B, slot, source, noise):  # counts the source twice
    A, B = A.clone(), B.clone()
    A[slot], A[source] = A[source] + noise, A[source] - noise
    B[:, slot] = B[:, source]
    return A, B
""",
        """
def split_apart(A, B, slot, source, noise):  # changes what it was given
    A[slot] = A[source] + noise
    A[source] = A[source] - noise
    B[:, source] = B[:, source] / 2
    B[:, slot] = B[:, source]
    return A, B
""",
    ],
    "08.3": [
        "def surge(n, k, beta1=0.9, beta2=0.999):\n    return 1.0",
        """
def surge(n, k, beta1=0.9, beta2=0.999):  # no correction
    return (1 - beta1**k) / (1 - beta2**k) ** 0.5
""",
        """
def surge(n, k, beta1=0.9, beta2=0.999):  # the counter stands still
    m_hat = (1 - beta1**k) / (1 - beta1 ** (n + 1))
    return m_hat / ((1 - beta2**k) / (1 - beta2 ** (n + 1))) ** 0.5
""",
    ],
    "09.1": [
        """
def threshold(step, end_step, p_start):  # counts the steps from 0
    done = min(step, end_step)
    return 1 - (1 - p_start) * (1 + math.cos(math.pi * done / end_step)) / 2
""",
        """
def threshold(step, end_step, p_start):  # swings back after the end
    return 1 - (1 - p_start) * (1 + math.cos(math.pi * (step - 1) / end_step)) / 2
""",
    ],
    "09.2": [
        """
def ancestors(r, events):  # one copy after the other
    now = list(range(r))
    for pairs in events:
        for slot, source in pairs:
            now[slot] = now[source]
    return now
""",
        """
def ancestors(r, events):  # the parent, not the ancestor
    now = list(range(r))
    for pairs in events:
        for slot, source in pairs:
            now[slot] = source
    return now
""",
    ],
    "09.3": [
        "def pair_weight(w_slot, w_source):\n    return w_slot + w_source",
        "def pair_weight(w_slot, w_source):\n    return (w_slot * w_source) ** 0.5",
        "def pair_weight(w_slot, w_source):\n    return w_source",
    ],
    "10.1": [
        "def result(answer):\n    return answer.split('####')[-1].strip()",
        "import re\ndef result(answer):\n    return re.findall(r'-?[0-9,]+', answer)[-1].replace(',', '')",
        """
import re
def result(answer):  # loses the sign
    _, mark, tail = answer.rpartition("####")
    number = re.search(r"[0-9][0-9,]*", tail) if mark else None
    return number and number.group().replace(",", "")
""",
    ],
    "10.2": [
        """
def adapter_size(config, r):  # k and v as wide as q
    hidden, inner = config.hidden_size, config.intermediate_size
    return config.num_hidden_layers * r * (4 * 2 * hidden + 3 * (hidden + inner))
""",
        """
def adapter_size(config, r):  # the size of the weights
    hidden, inner = config.hidden_size, config.intermediate_size
    return config.num_hidden_layers * (4 * hidden * hidden + 3 * hidden * inner)
""",
    ],
    "10.3": [
        "def with_examples(rows, prompt):\n    return prompt",
        """
def with_examples(rows, prompt):  # the answers are missing
    return "\\n\\n".join([*(row["prompt"] for row in rows), prompt])
""",
        """
def with_examples(rows, prompt):  # the new question first
    shown = [f"{row['prompt']}\\n{row['answer']}" for row in rows]
    return "\\n\\n".join([prompt, *shown])
""",
        """
def with_examples(rows, prompt):  # nothing between the parts
    return "".join([*(row["prompt"] + row["answer"] for row in rows), prompt])
""",
    ],
}


def read(path: Path):
    return nbformat.read(path, as_version=4)


def text(value) -> str:
    return "".join(value) if isinstance(value, list) else value


def code_cells(path: Path):
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def outputs(path: Path):
    return [output for cell in code_cells(path) for output in cell.outputs]


def markdown(path: Path) -> str:
    return "\n\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")


every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def test_required_notebooks_exist():
    assert set(REQUIRED) - {path.stem for path in NOTEBOOKS} == set()


# Run and compared


def test_every_code_cell_is_collected():
    """By pytest as `make test` calls it: without a path."""
    collect = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "--collect-only",
            "-q",
            "-p",
            "no:xdist",
            "--ignore=tests",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    found = Counter(
        line.split("::")[0] for line in collect.stdout.splitlines() if "::Cell " in line
    )
    there = {path.relative_to(ROOT).as_posix(): len(code_cells(path)) for path in NOTEBOOKS}
    assert found == there, collect.stdout + collect.stderr


def test_make_test_runs_everything_strictly():
    recipe = subprocess.run(["make", "-n", "test"], cwd=ROOT, capture_output=True, text=True).stdout
    (command,) = [line for line in recipe.splitlines() if "-m pytest" in line]
    arguments = command.split("-m pytest")[1].split()
    # A path would leave out the others; anything about nbval would override pyproject.toml.
    assert not [a for a in arguments if (ROOT / a).exists() or "nbval" in a or a in ("-k", "-m")]


def test_nbval_compares_every_output(pytestconfig):
    assert pytestconfig.option.nbval
    assert not pytestconfig.option.nbval_lax
    assert pytestconfig.option.nbval_current_env
    assert pytestconfig.getini("testpaths") == ["tests", "notebooks"]


@every_notebook
def test_executed_in_order(path):
    counts = [cell.execution_count for cell in code_cells(path) if cell.source.strip()]
    assert counts == list(range(1, len(counts) + 1))


@every_notebook
def test_no_stored_errors(path):
    assert [o for o in outputs(path) if o.output_type == "error"] == []


def markers(path: Path) -> set[str]:
    found = set()
    for cell in code_cells(path):
        found |= {tag for tag in cell.metadata.get("tags", []) if tag in metadata_tags}
        found |= {line.strip("# ") for line in cell.source.splitlines() if any(find_comment_markers(line))}  # fmt: skip
    return found


def test_no_cell_escapes_the_comparison():
    found = {(path.stem, marker) for path in NOTEBOOKS for marker in markers(path)}
    assert found == set(ALLOWED)
    assert all(ALLOWED.values()), "each exception says why"


# Fit to read


@every_notebook
def test_small(path):
    assert path.stat().st_size <= 1_000_000


@every_notebook
def test_no_widget_state(path):
    assert "widgets" not in read(path).metadata


@every_notebook
def test_every_picture_has_alt_text(path):
    for output in outputs(path):
        for kind in ("image/png", "image/jpeg"):
            if kind in output.get("data", {}):
                alt = output.metadata.get(kind, {}).get("alt", "")
                assert alt.strip(), "show pictures with plots.show(figure, alt=...)"
        for tag in re.findall(r"<img\b[^>]*>", text(output.get("data", {}).get("text/html", ""))):
            assert re.search(r"""\balt=(["'])\s*[^"'\s]""", tag), tag
    prose = markdown(path)
    assert re.findall(r"!\[\s*\]", prose) == []
    for tag in re.findall(r"<img\b[^>]*>", prose):
        assert re.search(r"""\balt=(["'])\s*[^"'\s]""", tag), tag


MACHINE = re.compile(
    r"\b0x[0-9a-f]{6,}"  # memory addresses
    r"|(?<![\w.:/<~-])/(home|root|Users|tmp|usr|opt|var|mnt|private|content)/\S+"
    r"|\b[A-Z]:\\\S+",
    re.IGNORECASE,
)


@every_notebook
def test_outputs_name_no_place_on_one_machine(path):
    shown = []
    for output in outputs(path):
        data = output.get("data", {})
        shown += [output.get("text", ""), *(v for k, v in data.items() if k.startswith("text/"))]
    for value in map(text, shown):
        assert not (found := MACHINE.search(value)), found.group()
        assert str(ROOT) not in value


@every_notebook
def test_shape(path):
    first, *_ = read(path).cells
    assert first.cell_type == "markdown"
    assert first.source.startswith("# ")
    assert re.search(r"\bminutes?\b", first.source), "the first cell says how long it takes"
    headings = re.findall(r"^#+ +(.+?)\s*$", markdown(path), re.MULTILINE)
    assert any("recap" in heading.lower() for heading in headings)
    assert headings[-1] == "Sources"


# Exercises: a heading cell, a stub, a checker, and a cell that unfolds a hint and a solution


class Exercise:
    def __init__(self, path, cells, at):
        self.path, self.heading = path, cells[at].source
        self.stub, self.checker, self.answers = (cells[at + i] for i in (1, 2, 3))
        self.number = re.search(r"^### Exercise (\S+?):", self.heading, re.MULTILINE)[1]
        self.imports = next(c.source for c in cells if c.cell_type == "code")

    @property
    def solution(self) -> str:
        return re.search(
            r"<summary>Solution.*?```python\n(.*?)```", self.answers.source, re.DOTALL
        )[1]

    def verdict(self, answer: str):
        """What the checker cell says to an answer, in a kernel that has run only the first code cell."""
        namespace = {}
        for source in (self.imports, answer):
            exec(re.sub(r"^%.*$", "", source, flags=re.MULTILINE), namespace)
        *before, last = ast.parse(self.checker.source).body
        exec(compile(ast.Module(before, []), "checker", "exec"), namespace)
        return eval(compile(ast.Expression(last.value), "checker", "eval"), namespace)


EXERCISES = [
    Exercise(path, cells, at)
    for path in NOTEBOOKS
    for cells in [read(path).cells]
    for at, cell in enumerate(cells)
    if cell.cell_type == "markdown" and re.search(r"^### Exercise \S+:", cell.source, re.MULTILINE)
]
every_exercise = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.number)


@pytest.fixture
def in_notebooks(monkeypatch):
    monkeypatch.chdir(ROOT / "notebooks")
    monkeypatch.syspath_prepend(str(ROOT / "notebooks"))
    monkeypatch.setenv("MPLBACKEND", "agg")


@every_notebook
def test_exercises_are_numbered(path):
    numbers = [e.number for e in EXERCISES if e.path == path]
    assert numbers == [f"{path.stem[:2]}.{k}" for k in range(1, len(numbers) + 1)]
    assert len(re.findall("exercise", "\n".join(re.findall(r"^###.*", markdown(path), re.MULTILINE)), re.IGNORECASE)) == len(numbers)  # fmt: skip


@every_exercise
def test_exercise_is_complete(exercise):
    assert re.search(r"\bdifficulty [1-5]/5\b", exercise.heading)
    assert re.search(r"\b\d+ minutes?\b", exercise.heading)
    assert exercise.stub.cell_type == exercise.checker.cell_type == "code"
    assert "check." in exercise.checker.source
    assert exercise.answers.cell_type == "markdown"
    assert re.search(r"<details>\s*<summary>Hint", exercise.answers.source)
    assert re.search(r"<details>\s*<summary>Solution", exercise.answers.source)
    assert exercise.solution.strip()


@every_exercise
def test_checker_accepts_the_solution(exercise, in_notebooks):
    assert exercise.verdict(exercise.solution) is True


@every_exercise
def test_checker_turns_down_the_stub(exercise, in_notebooks):
    assert exercise.verdict(exercise.stub.source) is False


@every_exercise
def test_checker_turns_down_wrong_answers(exercise, in_notebooks):
    assert WRONG.get(exercise.number), "WRONG names at least one plausible wrong answer"
    for answer in WRONG[exercise.number]:
        assert exercise.verdict(answer) is False, answer


def test_every_wrong_answer_belongs_to_an_exercise():
    assert set(WRONG) <= {exercise.number for exercise in EXERCISES}
