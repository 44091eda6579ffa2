"""The exercises of 08_expansion_from_history."""

import torch
from torch import nn

import beamlora_mini as bl
from beamlora_mini import ranks

from .common import exercise, expect, is_close

_TWINS = (
    "AdamW, moments copied from the source",
    "AdamW, moments kept",
    "plain SGD, no moments",
    "AdamW with decay, moments copied from the source",
    "AdamW, moments copied, b of both halved",
    "AdamW, moments copied, b of the slot negated",
)


def _copies_part(line: str) -> bool:
    """Train a small adapter, copy rank 0 into rank 1, train on: have |a| and |b| parted?"""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5)).double()
    layer = bl.attach(model, bl.LoRA(r=3))["0"]
    parameters = [layer.lora_A, layer.lora_B]
    nn.init.normal_(layer.lora_B)
    x, y = torch.randn(40, 6).double(), torch.randn(40, 5).double()
    if "SGD" in line:
        optimizer = torch.optim.SGD(parameters, lr=0.01)
    else:
        optimizer = torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1 * ("decay" in line))
    for step in range(10):
        if step == 5:
            snapshot = ranks.take_snapshot(model, optimizer)
            ranks.expand_ranks_(layer, optimizer, [1], [0], snapshot, "copied" in line)
            with torch.no_grad():
                layer.lora_B[:, :2] *= 0.5 if "halved" in line else 1
                layer.lora_B[:, 1] *= -1 if "negated" in line else 1
        optimizer.zero_grad()
        (layer(x) - y).square().mean().backward()
        optimizer.step()
    return not torch.allclose(layer.lora_A[0], layer.lora_A[1], atol=1e-9)


@exercise(
    "08.1",
    solution="""
        twins_part = {
            "AdamW, moments copied from the source": False,
            "AdamW, moments kept": True,
            "plain SGD, no moments": False,
            "AdamW with decay, moments copied from the source": False,
            "AdamW, moments copied, b of both halved": False,
            "AdamW, moments copied, b of the slot negated": True,
        }
    """,
    wrong=[
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
)
def twins_part(answer):
    """Which exact copies of a rank training pulls apart."""
    expect(isinstance(answer, dict) and None not in answer.values(), "fill in all six lines")
    for line, parts in {line: _copies_part(line) for line in _TWINS}.items():
        expect(line in answer, f"the line {line!r} is missing")
        expect(answer[line] is parts, f"{line!r}: follow both ranks through one step again")


@exercise(
    "08.2",
    solution="""
        def split_apart(A, B, slot, source, noise):
            A, B = A.clone(), B.clone()
            A[slot] = A[source] + noise
            A[source] = A[source] - noise
            B[:, source] = B[:, source] / 2
            B[:, slot] = B[:, source]
            return A, B
    """,
    wrong=[
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
)
def split_apart(answer):
    """Split a rank such that the twins differ and the function does not."""
    torch.manual_seed(0)
    A, B, noise = torch.randn(4, 6), torch.randn(5, 4), torch.randn(6)
    kept = A.clone(), B.clone()
    wanted = B @ A - torch.outer(B[:, 1], A[1])
    got = answer(A, B, 1, 3, noise)
    expect(got is not None, "split_apart returned None; return A and B")
    new_A, new_B = got
    expect(torch.equal(A, kept[0]) and torch.equal(B, kept[1]), "change copies of A and B")
    expect(is_close(new_B @ new_A, wanted), "slot and source do not add what the source added")
    expect(new_B[:, [1, 3]].norm(dim=0).min() > 0, "one of the two has no b left: it is no twin")
    apart = new_A[1] - new_A[3]
    along = (apart @ noise) / (noise @ noise)
    expect(apart.norm() > 1e-3, "the twins' rows of A are the same: they will never part")
    expect(is_close(apart, along * noise), "the rows of A should differ by a multiple of noise")
    others = [0, 2]
    expect(
        torch.equal(new_A[others], A[others]) and torch.equal(new_B[:, others], B[:, others]),
        "the other ranks have changed",
    )


@exercise(
    "08.3",
    solution="""
        def surge(n, k, beta1=0.9, beta2=0.999):
            m_hat = (1 - beta1**k) / (1 - beta1 ** (n + k))
            v_hat = (1 - beta2**k) / (1 - beta2 ** (n + k))
            return m_hat / v_hat**0.5
    """,
    wrong=[
        """
        def surge(n, k, beta1=0.9, beta2=0.999):
            return 1.0
        """,
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
)
def surge(answer):
    """The k-th Adam update of a rank whose moments were zeroed after step n."""
    for n, k, betas in ((0, 3, (0.9, 0.999)), (100, 1, (0.9, 0.999)), (5000, 12, (0.8, 0.99))):
        p = torch.zeros(1, dtype=torch.double, requires_grad=True)
        optimizer = torch.optim.Adam([p], lr=1.0, betas=betas, eps=0.0)
        p.grad = torch.ones_like(p)
        optimizer.step()
        state = optimizer.state[p]
        state["step"].fill_(n)
        state["exp_avg"].zero_()
        state["exp_avg_sq"].zero_()
        for _ in range(k):
            before = p.item()
            optimizer.step()
        wanted, got = before - p.item(), answer(n, k, *betas)
        expect(got is not None, "surge returned None; return a number")
        expect(
            abs(got - wanted) < 1e-6,
            f"update {k} after step {n} with betas {betas}: {wanted:.4f}, you said {got:.4f}",
        )
