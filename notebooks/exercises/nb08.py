"""The exercises of 08_expansion_from_history."""

import torch
from torch import nn

import beamlora_mini as bl
from beamlora_mini import ranks

from .common import compare, exercise, expect, is_close, number, several, tensor

_TWINS = {  # each with what to think of
    "AdamW, moments copied from the source": "both have the same gradients and the same memory",
    "AdamW, moments kept": "the slot's memory is that of the rank it was",
    "plain SGD, no moments": "both have the same gradients, and there is no memory",
    "AdamW with decay, moments copied from the source": "decay shrinks both alike",
    "AdamW, moments copied, b of both halved": "both are halved alike",
    "AdamW, moments copied, b of the slot negated": "the gradient of the slot's a turns round",
}


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


_TABLE = """
    twins_part = {
        "AdamW, moments copied from the source": False,
        "AdamW, moments kept": True,
        "plain SGD, no moments": False,
        "AdamW with decay, moments copied from the source": False,
        "AdamW, moments copied, b of both halved": False,
        "AdamW, moments copied, b of the slot negated": True,
    }
"""


@exercise(
    "08.1",
    solution=_TABLE,
    right=[
        _TABLE.replace("True", "1").replace("False", "0"),
        _TABLE.replace("True", "torch.tensor(True)").replace("False", "0.0"),
        _TABLE.replace("True", "torch.ones(1).numpy()[0] > 0"),
        _TABLE + "    twins_part = dict(reversed(twins_part.items()))",
    ],
    wrong={
        "'AdamW, moments copied from the source': both": (
            _TABLE + "    twins_part['AdamW, moments copied from the source'] = True"
        ),
        "'AdamW, moments kept': the slot's memory": (
            _TABLE + "    twins_part['AdamW, moments kept'] = False"
        ),
        "and there is no memory": _TABLE + "    twins_part['plain SGD, no moments'] = True",
        "decay shrinks both alike": (
            _TABLE + "    twins_part['AdamW with decay, moments copied from the source'] = True"
        ),
        "both are halved alike": (
            _TABLE + "    twins_part['AdamW, moments copied, b of both halved'] = True"
        ),
        "the gradient of the slot's a turns round": (
            _TABLE + "    twins_part['AdamW, moments copied, b of the slot negated'] = False"
        ),
        "the line 'plain SGD, no moments' is still open": (
            _TABLE + "    del twins_part['plain SGD, no moments']"
        ),
        "answer True or False, not": _TABLE.replace("True", "'yes'").replace("False", "'no'"),
        "fill in all six lines": "twins_part = {}",
    },
)
def twins_part(answer):
    """Which exact copies of a rank training pulls apart."""
    filled = answer if isinstance(answer, dict) else {}
    open_lines = [line for line in _TWINS if filled.get(line) is None or filled[line] is ...]
    expect(len(open_lines) < len(_TWINS), "fill in all six lines")
    for line, reason in _TWINS.items():
        expect(line not in open_lines, f"the line {line!r} is still open")
        said = answer[line]
        clear = not isinstance(said, str) and said in (0, 1)
        expect(clear, f"{line!r}: answer True or False, not {said!r}")
        expect(bool(said) == _copies_part(line), f"{line!r}: {reason}")


@exercise(
    "08.2",
    asked="A and B",
    solution="""
        def split_apart(A, B, slot, source, noise):
            A, B = A.clone(), B.clone()
            A[slot] = A[source] + noise
            A[source] = A[source] - noise
            B[:, source] = B[:, source] / 2
            B[:, slot] = B[:, source]
            return A, B
    """,
    right=[
        """
        def split_apart(A, B, slot, source, noise):  # the noise the other way, and more of it
            A, B = A.double().numpy().copy(), B.clone()
            A[slot] = A[source] - 2 * noise.numpy()
            A[source] += 2 * noise.numpy()
            B[:, source] *= 0.5
            B[:, slot] = B[:, source]
            return [A, B]
        """,
        """
        def split_apart(A, B, slot, source, noise):  # a quarter and three quarters
            rows, columns = A.tolist(), B.T.tolist()
            rows[slot] = [a + 3 * n for a, n in zip(rows[source], noise.tolist())]
            rows[source] = [a - n for a, n in zip(rows[source], noise.tolist())]
            columns[slot] = [b / 4 for b in columns[source]]
            columns[source] = [3 * b / 4 for b in columns[source]]
            return torch.tensor(rows), torch.tensor(columns).T
        """,
    ],
    wrong={
        "Only one of the two gets noise.": """
        def split_apart(A, B, slot, source, noise):
            A, B = A.clone(), B.clone()
            A[slot] = A[source] + noise
            B[:, source] = B[:, source] / 2
            B[:, slot] = B[:, source]
            return A, B
        """,
        "rows of A are the same": """
        def split_apart(A, B, slot, source, noise):
            A, B = A.clone(), B.clone()
            A[slot] = A[source]
            B[:, source] = B[:, source] / 2
            B[:, slot] = B[:, source]
            return A, B
        """,
        "the slot has no b": """
        def split_apart(A, B, slot, source, noise):
            A, B = A.clone(), B.clone()
            A[slot] = A[source] + noise
            B[:, slot] = 0
            return A, B
        """,
        "The source counts twice.": """
        def split_apart(A, B, slot, source, noise):
            A, B = A.clone(), B.clone()
            A[slot], A[source] = A[source] + noise, A[source] - noise
            B[:, slot] = B[:, source]
            return A, B
        """,
        "you changed the input `B`": """
        def split_apart(A, B, slot, source, noise):
            A = A.clone()
            A[slot] = A[source] + noise
            A[source] = A[source] - noise
            B[:, source] = B[:, source] / 2
            B[:, slot] = B[:, source]
            return A, B
        """,
        "multiple of noise": """
        def split_apart(A, B, slot, source, noise):
            A, B = A.clone(), B.clone()
            A[slot], A[source] = A[source] * 1.5, A[source] * 0.5
            B[:, source] = B[:, source] / 2
            B[:, slot] = B[:, source]
            return A, B
        """,
        "the other ranks have changed": """
        def split_apart(A, B, slot, source, noise):
            A, B = A.clone(), B / 2
            A[slot] = A[source] + noise
            A[source] = A[source] - noise
            B[:, slot] = B[:, source]
            return A, B
        """,
    },
)
def split_apart(answer):
    """Split a rank such that the twins differ and the function does not."""

    def read(got):
        A, B = several(got, 2, "A and B")
        return tensor(A, "A"), tensor(B, "B")

    answer.read = read
    for r, inputs, outputs, slot, source in ((4, 6, 5, 1, 3), (5, 4, 7, 2, 0)):
        A, B, noise = torch.randn(r, inputs), torch.randn(outputs, r), torch.randn(inputs)
        got = answer(A=A, B=B, slot=slot, source=source, noise=noise)
        new_A, new_B = read(got)
        given = f"slot={slot}, source={source} of {r} ranks"
        shapes = new_A.shape == A.shape and new_B.shape == B.shape
        expect(shapes, f"{given}: A and B should have the shapes they had")
        others = [k for k in range(r) if k not in (slot, source)]
        same = is_close(new_A[others], A[others]) and is_close(new_B[:, others], B[:, others])
        expect(same, f"{given}: the other ranks have changed")
        for name, rank in (("slot", slot), ("source", source)):
            sends = bool(new_B[:, rank].norm() > 1e-3)
            expect(sends, f"{given}: the {name} has no b left, so it is no twin")
        pair = [slot, source]
        expect(
            is_close(new_B[:, pair] @ new_A[pair], torch.outer(B[:, source], A[source])),
            f"{given}: slot and source together do not add what the source added",
        )
        apart = new_A[slot] - new_A[source]
        expect(apart.norm() > 1e-3, f"{given}: the rows of A are the same, they will never part")
        along = (apart @ noise.double()) / (noise @ noise)
        expect(
            is_close(apart, along * noise),
            f"{given}: the rows of A should differ by a multiple of noise",
        )


@exercise(
    "08.3",
    asked="a number",
    solution="""
        def surge(n, k, beta1=0.9, beta2=0.999):
            m_hat = (1 - beta1**k) / (1 - beta1 ** (n + k))
            v_hat = (1 - beta2**k) / (1 - beta2 ** (n + k))
            return m_hat / v_hat**0.5
    """,
    right=[
        """
        def surge(n, k, beta1=0.9, beta2=0.999):
            m = v = 0.0
            for _ in range(k):
                m, v = beta1 * m + (1 - beta1), beta2 * v + (1 - beta2)
            v_hat = torch.tensor(v / (1 - beta2 ** (n + k)), dtype=torch.float64)
            return m / (1 - beta1 ** (n + k)) / v_hat.sqrt()
        """,
    ],
    wrong={
        "It is not 1.": """
        def surge(n, k, beta1=0.9, beta2=0.999):
            return 1.0
        """,
        "The correction by the counter is missing.": """
        def surge(n, k, beta1=0.9, beta2=0.999):
            return (1 - beta1**k) / (1 - beta2**k) ** 0.5
        """,
        "The counter goes on: n + k at the k-th update.": """
        def surge(n, k, beta1=0.9, beta2=0.999):
            m_hat = (1 - beta1**k) / (1 - beta1 ** (n + 1))
            return m_hat / ((1 - beta2**k) / (1 - beta2 ** (n + 1))) ** 0.5
        """,
        "The counter is n + k, not n + k - 1.": """
        def surge(n, k, beta1=0.9, beta2=0.999):
            m_hat = (1 - beta1**k) / (1 - beta1 ** max(n + k - 1, 1))
            return m_hat / ((1 - beta2**k) / (1 - beta2 ** max(n + k - 1, 1))) ** 0.5
        """,
        "The second moment's root is missing.": """
        def surge(n, k, beta1=0.9, beta2=0.999):
            m_hat = (1 - beta1**k) / (1 - beta1 ** (n + k))
            return m_hat / ((1 - beta2**k) / (1 - beta2 ** (n + k)))
        """,
        "The update is divided by the root of the second moment.": """
        def surge(n, k, beta1=0.9, beta2=0.999):
            return (1 - beta1**k) / (1 - beta1 ** (n + k))
        """,
    },
)
def surge(answer):
    """The k-th Adam update of a rank whose moments were zeroed after step n."""
    settings = ((100, 1), (40, 7, 0.8, 0.99), (0, 3), (5000, 12, 0.8, 0.99), (7, 5, 0.95, 0.98))

    def truth(n, k, beta1=0.9, beta2=0.999):
        p = torch.zeros(1, dtype=torch.double, requires_grad=True)
        optimizer = torch.optim.Adam([p], lr=1.0, betas=(beta1, beta2), eps=0.0)
        p.grad = torch.ones_like(p)
        optimizer.step()
        state = optimizer.state[p]
        state["step"].fill_(n)
        state["exp_avg"].zero_()
        state["exp_avg_sq"].zero_()
        for _ in range(k):
            before = p.item()
            optimizer.step()
        return before - p.item()

    cases = [dict(zip(("n", "k", "beta1", "beta2"), setting)) for setting in settings]
    compare(answer, cases, truth, number)
