"""The exercises of 14_what_is_lost."""

from itertools import pairwise

import torch

from .common import compare, exercise, number


def _rotation(n: int) -> torch.Tensor:
    return torch.linalg.qr(torch.randn(n, n))[0]


def _nearest(before: torch.Tensor, after: torch.Tensor, k: int) -> list[float]:
    """For each of the first k left singular vectors of `after` the largest |cosine| with one of `before`."""
    old, new = (torch.linalg.svd(w.double(), full_matrices=False).U for w in (before, after))
    return [max(abs(float(v @ u)) for u in old.T) for v in new.T[:k]]


def _drawn(outputs: int, inputs: int, new: int, k: int) -> dict:
    """A weight, the same with `new` strong directions, and a threshold that lies between cosines."""
    values = torch.linspace(3, 1, min(outputs, inputs)) + torch.rand(min(outputs, inputs)) / 20
    U, V = _rotation(outputs)[:, : len(values)], _rotation(inputs)[:, : len(values)]
    before = U * values @ V.T
    u, v = _rotation(outputs)[:, :new], _rotation(inputs)[:, :new]
    after = before + 0.2 * torch.randn(outputs, inputs) + u * torch.linspace(5, 3, new) @ v.T
    after += 6 * torch.outer(U[:, -1], V[:, -1])  # and an old weak one made strong
    ordered = sorted(_nearest(before, after, k))
    gaps = [high - low for low, high in pairwise(ordered)]
    at = gaps.index(max(gaps))
    threshold = round((ordered[at] + ordered[at + 1]) / 2, 3)
    return {"before": before, "after": after, "k": k, "threshold": threshold}


@exercise(
    "14.1",
    asked="a whole number",
    solution="""
        def count_intruders(before, after, k, threshold):
            weights = (before, after)
            old, new = (torch.linalg.svd(w, full_matrices=False).U for w in weights)
            nearest = (old.T @ new[:, :k]).abs().amax(0)
            return int((nearest < threshold).sum())
    """,
    right=[
        """
        def count_intruders(before, after, k, threshold):
            U = torch.svd(before.double())[0].numpy()
            V = torch.svd(after.double())[0].numpy()
            cosines = abs(V.T[:k] @ U)
            return (cosines.max(axis=1) < threshold).sum()
        """,
        """
        def count_intruders(before, after, k, threshold):
            old, _, _ = torch.linalg.svd(before, full_matrices=False)
            new, _, _ = torch.linalg.svd(after, full_matrices=False)
            count = 0
            for v in new.T[:k]:
                cosines = [torch.nn.functional.cosine_similarity(u, v, dim=0) for u in old.T]
                count += all(abs(cosine) < threshold for cosine in cosines)
            return torch.tensor(count)
        """,
    ],
    wrong={
        "These are the right singular vectors, the rows of Vh; take the left ones.": """
        def count_intruders(before, after, k, threshold):
            weights = (before, after)
            old, new = (torch.linalg.svd(w, full_matrices=False).Vh.T for w in weights)
            nearest = (old.T @ new[:, :k]).abs().amax(0)
            return int((nearest < threshold).sum())
        """,
        "A singular vector has no sign of its own: take |cosine|.": """
        def count_intruders(before, after, k, threshold):
            weights = (before, after)
            old, new = (torch.linalg.svd(w, full_matrices=False).U for w in weights)
            return int(((old.T @ new[:, :k]).amax(0) < threshold).sum())
        """,
        "This compares with the vector in the same place alone.": """
        def count_intruders(before, after, k, threshold):
            weights = (before, after)
            old, new = (torch.linalg.svd(w, full_matrices=False).U for w in weights)
            return int(((old * new).sum(0).abs()[:k] < threshold).sum())
        """,
        "This compares with the first k of the old ones alone.": """
        def count_intruders(before, after, k, threshold):
            weights = (before, after)
            old, new = (torch.linalg.svd(w, full_matrices=False).U[:, :k] for w in weights)
            return int(((old.T @ new).abs().amax(0) < threshold).sum())
        """,
        "This counts among all new vectors, not the first k.": """
        def count_intruders(before, after, k, threshold):
            weights = (before, after)
            old, new = (torch.linalg.svd(w, full_matrices=False).U for w in weights)
            return int(((old.T @ new).abs().amax(0) < threshold).sum())
        """,
        "This counts old vectors that have gone, not new ones that have come.": """
        def count_intruders(before, after, k, threshold):
            weights = (before, after)
            old, new = (torch.linalg.svd(w, full_matrices=False).U for w in weights)
            return int(((old[:, :k].T @ new).abs().amax(1) < threshold).sum())
        """,
        "These are vectors of the update; take those of the new weight.": """
        def count_intruders(before, after, k, threshold):
            weights = (before, after - before)
            old, new = (torch.linalg.svd(w, full_matrices=False).U for w in weights)
            return int(((old.T @ new[:, :k]).abs().amax(0) < threshold).sum())
        """,
        "These are the old acquaintances; an intruder is below the threshold.": """
        def count_intruders(before, after, k, threshold):
            weights = (before, after)
            old, new = (torch.linalg.svd(w, full_matrices=False).U for w in weights)
            return int(((old.T @ new[:, :k]).abs().amax(0) >= threshold).sum())
        """,
        "This is a share; return how many.": """
        def count_intruders(before, after, k, threshold):
            weights = (before, after)
            old, new = (torch.linalg.svd(w, full_matrices=False).U for w in weights)
            return ((old.T @ new[:, :k]).abs().amax(0) < threshold).float().mean().item()
        """,
        "These are all pairs below the threshold; a vector needs one near neighbour.": """
        def count_intruders(before, after, k, threshold):
            weights = (before, after)
            old, new = (torch.linalg.svd(w, full_matrices=False).U for w in weights)
            return int(((old.T @ new[:, :k]).abs() < threshold).sum())
        """,
        "you changed the input `after`": """
        def count_intruders(before, after, k, threshold):
            old = torch.linalg.svd(before, full_matrices=False).U
            new = torch.linalg.svd(after.sub_(before).add_(before).mul_(2), full_matrices=False).U
            return int(((old.T @ new[:, :k]).abs().amax(0) < threshold).sum())
        """,
    },
)
def count_intruders(answer):
    """How many of the first k left singular vectors are unlike all that were there."""
    cases = [_drawn(12, 9, 3, 6), _drawn(9, 12, 2, 5), _drawn(16, 16, 4, 8), _drawn(10, 7, 2, 4)]
    # A direction in which the old weight had no output, though out = in + 1: only one is left.
    tall = torch.cat([torch.diag(torch.tensor([5.0, 4, 3, 2])), torch.zeros(1, 4)])
    other = tall.clone()
    other[4, 1] = 9
    cases += [{"before": tall, "after": other, "k": k, "threshold": 0.6} for k in (1, 2)]
    # |cosine| of exactly 1 is not below a threshold of 1.
    cases.append({"before": tall, "after": tall * 2, "k": 3, "threshold": 1.0})

    def truth(before, after, k, threshold):
        return sum(cosine < threshold - 1e-9 for cosine in _nearest(before, after, k))

    compare(answer, cases, truth, number)


@exercise(
    "14.2",
    asked="a number",
    solution="""
        def kept_share(before, after):
            shares = [after[name] / before[name] for name in before if before[name] > 0]
            return sum(shares) / len(shares)
    """,
    right=[
        """
        def kept_share(before, after):
            names = sorted(name for name in before if before[name])
            could = torch.tensor([before[name] for name in names], dtype=torch.double)
            can = torch.tensor([after[name] for name in names], dtype=torch.double)
            return (can / could).mean()
        """,
        """
        def kept_share(before, after):
            total = count = 0
            for name, could in before.items():
                if could != 0:
                    total, count = total + after[name] / could, count + 1
            return total / count
        """,
    ],
    wrong={
        "This is a share of all accuracy together; each task counts alike.": """
        def kept_share(before, after):
            names = [name for name in before if before[name] > 0]
            return sum(after[name] for name in names) / sum(before[name] for name in names)
        """,
        "A task that was at 0 had nothing to keep: leave it out, of the count as well.": """
        def kept_share(before, after):
            shares = [after[name] / before[name] for name in before if before[name] > 0]
            return sum(shares) / len(before)
        """,
        "A task that was at 0 is left out, not kept whole.": """
        def kept_share(before, after):
            shares = [after[n] / before[n] if before[n] > 0 else 1 for n in before]
            return sum(shares) / len(shares)
        """,
        "The accuracy of before is what can be kept: it belongs below.": """
        def kept_share(before, after):
            shares = [before[n] / after[n] if after[n] > 0 else 0.0 for n in before if before[n] > 0]
            return sum(shares) / len(shares)
        """,
        "This is the mean accuracy that is left, not a share of what was there.": """
        def kept_share(before, after):
            left = [after[name] for name in before if before[name] > 0]
            return sum(left) / len(left)
        """,
        "This is the share that is lost.": """
        def kept_share(before, after):
            shares = [1 - after[name] / before[name] for name in before if before[name] > 0]
            return sum(shares) / len(shares)
        """,
        "This is a difference of accuracies, not a share.": """
        def kept_share(before, after):
            changes = [after[name] - before[name] for name in before if before[name] > 0]
            return 1 + sum(changes) / len(changes)
        """,
        "The dicts need not be in one order: match the tasks by name.": """
        def kept_share(before, after):
            pairs = zip(before.values(), after.values())
            shares = [can / could for could, can in pairs if could > 0]
            return sum(shares) / len(shares)
        """,
        "A task that became better counts more than 1.": """
        def kept_share(before, after):
            shares = [min(1.0, after[n] / before[n]) for n in before if before[n] > 0]
            return sum(shares) / len(shares)
        """,
        "you changed the input `before`": """
        def kept_share(before, after):
            for name in list(before):
                if before[name] == 0:
                    del before[name]
            return sum(after[name] / before[name] for name in before) / len(before)
        """,
    },
)
def kept_share(answer):
    """The mean over tasks of what is left of an accuracy."""
    names = ["addition", "copy", "reverse", "sort", "successor", "maximum"]
    cases = []
    for count in (3, 5, 6, 4):
        could = (torch.randint(20, 80, (count,)) / 100).tolist()
        can = [round(c * float(share), 2) for c, share in zip(could, torch.rand(count))]
        can[1] = could[1] + 0.15  # one became better
        could[2], can[0] = 0.0, 0.0  # one was at 0, another came there
        before, after = dict(zip(names, could)), dict(zip(names, can))
        order = torch.randperm(count).tolist()
        cases.append(
            {"before": before, "after": {names[i]: after[names[i]] for i in order}},
        )

    def truth(before, after):
        kept = [after[name] / could for name, could in before.items() if could > 0]
        return sum(kept) / len(kept)

    compare(answer, cases, truth, number)
