"""The exercises of 03_direction_and_restarts."""

import torch

from .common import compare, exercise, expect, number, several, tensor, watch_products


@exercise(
    "03.1",
    asked="a tensor",
    solution="""
        def stretch(weight, A, B, scaling, magnitude):
            squares = weight.square().sum(1) + 2 * scaling * ((weight @ A.T) * B).sum(1)
            squares = squares + scaling**2 * ((B @ (A @ A.T)) * B).sum(1)
            norm = squares.clamp(min=0).sqrt()
            return torch.where(norm > 0, magnitude / norm, torch.ones_like(norm))
    """,
    right=[
        """
        def stretch(weight, A, B, scaling, magnitude):  # row by row
            factors = []
            for row, b, m in zip(weight, B, magnitude):
                norm = float((row + scaling * b @ A).double().norm())
                factors.append(float(m) / norm if norm else 1.0)
            return factors
        """,
        """
        def stretch(weight, A, B, scaling, magnitude):
            weight, A, B = weight.double(), A.double(), B.double()
            squares = weight.norm(dim=1) ** 2 + 2 * scaling * torch.einsum("oi,ri,or->o", weight, A, B)
            squares = squares + scaling**2 * torch.einsum("or,rs,os->o", B, A @ A.T, B)
            factor = magnitude / squares.abs().sqrt()
            factor[squares == 0] = 1
            return factor.numpy()
        """,
    ],
    wrong={
        "A row of zeros gives NaN": """
        def stretch(weight, A, B, scaling, magnitude):
            squares = weight.square().sum(1) + 2 * scaling * ((weight @ A.T) * B).sum(1)
            squares = squares + scaling**2 * ((B @ (A @ A.T)) * B).sum(1)
            return magnitude / squares.sqrt()
        """,
        "`nan_to_num` leaves": """
        def stretch(weight, A, B, scaling, magnitude):
            squares = weight.square().sum(1) + 2 * scaling * ((weight @ A.T) * B).sum(1)
            squares = squares + scaling**2 * ((B @ (A @ A.T)) * B).sum(1)
            return (magnitude / squares.sqrt()).nan_to_num(1.0)
        """,
        "without building a matrix of W's shape": """
        def stretch(weight, A, B, scaling, magnitude):
            norm = (weight + scaling * B @ A).norm(dim=1)
            return torch.where(norm > 0, magnitude / norm, torch.ones_like(norm))
        """,
        "one number for each row": """
        def stretch(weight, A, B, scaling, magnitude):
            return magnitude.mean() / (weight + scaling * B @ A).norm(dim=0)
        """,
        "The last term carries the square of the scaling.": """
        def stretch(weight, A, B, scaling, magnitude):
            squares = weight.square().sum(1) + 2 * scaling * ((weight @ A.T) * B).sum(1)
            norm = (squares + ((B @ (A @ A.T)) * B).sum(1)).clamp(min=0).sqrt()
            return torch.where(norm > 0, magnitude / norm, torch.ones_like(norm))
        """,
        "The term with W and the adapter comes twice.": """
        def stretch(weight, A, B, scaling, magnitude):
            squares = weight.square().sum(1) + scaling * ((weight @ A.T) * B).sum(1)
            squares = squares + scaling**2 * ((B @ (A @ A.T)) * B).sum(1)
            norm = squares.clamp(min=0).sqrt()
            return torch.where(norm > 0, magnitude / norm, torch.ones_like(norm))
        """,
        "This is the factor's inverse.": """
        def stretch(weight, A, B, scaling, magnitude):
            squares = weight.square().sum(1) + 2 * scaling * ((weight @ A.T) * B).sum(1)
            squares = squares + scaling**2 * ((B @ (A @ A.T)) * B).sum(1)
            return torch.where(squares > 0, squares.clamp(min=0).sqrt() / magnitude, 1.0)
        """,
    },
)
def stretch(answer):
    """DoRA's factor m / ||V|| for each row."""
    cases = []
    for outputs, inputs, r, scaling in ((40, 30, 2, 1.5), (8, 11, 3, 0.4)):
        weight, A, B = torch.randn(outputs, inputs), torch.randn(r, inputs), torch.randn(outputs, r)
        magnitude = torch.rand(outputs) + 0.5
        weight[5], B[5] = weight[5] / 50, B[5] / 50  # a short row, and two of zeros
        weight[2], B[2] = 0, 0
        weight[6], B[6], magnitude[6] = 0, 0, 0
        cases.append({"weight": weight, "A": A, "B": B, "scaling": scaling, "magnitude": magnitude})

    def read(got):
        return tensor(got, "the factors")

    formed = ""
    for case in cases:
        with watch_products(case["weight"].numel(), of_memory=False) as watch:
            got = read(answer(**case))
        formed = formed or watch.how
        rows = len(case["weight"])
        expect(
            got.shape == (rows,),
            f"return one number for each row, shape ({rows},), not {tuple(got.shape)}",
        )
        expect(not got.isnan().any(), "A row of zeros gives NaN; its factor should be 1")
        huge = bool((got[[2, 6]] > 1e9).any())
        expect(
            not huge,
            "a row of zeros should have the factor 1, not infinity; `nan_to_num` leaves magnitude / 0 huge",
        )
        zeros = got[[2, 6]].tolist()
        expect(zeros == [1, 1], f"the factors of two rows of zeros should be 1, not {zeros}")

    def truth(weight, A, B, scaling, magnitude):
        norm = (weight + scaling * B @ A).double().norm(dim=1)
        return torch.where(norm > 0, magnitude / norm, 1.0)

    answer.tried.clear()
    compare(answer, cases, truth, read)
    expect(
        not formed,
        "the factors are right, but find them without building a matrix of W's shape from B and A "
        f"({formed})",
    )


@exercise(
    "03.2",
    asked="a number",
    solution="""
        def highest_rank(total, every, r, outputs, inputs):
            rounds = -(-total // every)
            return min(rounds * r, outputs, inputs)
    """,
    right=[
        """
        def highest_rank(total, every, r, outputs, inputs):
            rank = 0
            for step in range(total):
                if step % every == 0:
                    rank += r
            return float(min(rank, inputs, outputs))
        """,
        """
        def highest_rank(total, every, r, outputs, inputs):
            rounds = torch.tensor(total / every).ceil()
            return (rounds * r).clamp(max=min(outputs, inputs))
        """,
    ],
    wrong={
        "The last, shorter round counts too.": """
        def highest_rank(total, every, r, outputs, inputs):
            return min(total // every * r, outputs, inputs)
        """,
        "No matrix has more rank than its smaller side.": """
        def highest_rank(total, every, r, outputs, inputs):
            return -(-total // every) * r
        """,
        "The number of outputs bounds the rank too.": """
        def highest_rank(total, every, r, outputs, inputs):
            return min(-(-total // every) * r, inputs)
        """,
        "The number of inputs bounds the rank too.": """
        def highest_rank(total, every, r, outputs, inputs):
            return min(-(-total // every) * r, outputs)
        """,
        "It never merges after the last step, so no round begins there.": """
        def highest_rank(total, every, r, outputs, inputs):
            return min((total // every + 1) * r, outputs, inputs)
        """,
        "Every round adds r, not 1.": """
        def highest_rank(total, every, r, outputs, inputs):
            return min(-(-total // every), outputs, inputs)
        """,
    },
)
def highest_rank(answer):
    """The rank that restarts can reach."""
    cases = [
        (90, 30, 2, 128, 128),
        (100, 30, 2, 128, 64),
        (20, 50, 4, 64, 64),
        (900, 10, 8, 60, 99),
    ]
    for total, every, r, outputs, inputs in torch.randint(1, 100, (12, 5)).tolist():
        cases += [(3 * total, every, r % 8 + 1, 9 + outputs, 9 + inputs)]
    names = ("total", "every", "r", "outputs", "inputs")
    compare(
        answer,
        [dict(zip(names, case)) for case in cases],
        lambda total, every, r, outputs, inputs: min(
            len(range(0, total, every)) * r, outputs, inputs
        ),
        number,
    )


@exercise(
    "03.3",
    asked="both moments",
    solution="""
        def reset_moments(exp_avg, exp_avg_sq, keep):
            size = exp_avg.abs().flatten()
            mask = torch.zeros_like(size)
            mask[size.topk(round(keep * size.numel())).indices] = 1
            mask = mask.view_as(exp_avg)
            return exp_avg * mask, exp_avg_sq * mask
    """,
    right=[
        """
        def reset_moments(exp_avg, exp_avg_sq, keep):
            first, second = exp_avg.tolist(), exp_avg_sq.tolist()
            places = [(i, j) for i in range(len(first)) for j in range(len(first[0]))]
            places.sort(key=lambda place: abs(first[place[0]][place[1]]))
            for i, j in places[: len(places) - round(keep * len(places))]:
                first[i][j] = second[i][j] = 0
            return [first, second]
        """,
        """
        def reset_moments(exp_avg, exp_avg_sq, keep):
            ranking = exp_avg.abs().flatten().argsort(descending=True).argsort().view_as(exp_avg)
            stays = ranking < round(keep * exp_avg.numel())
            return torch.where(stays, exp_avg, 0.0).double().numpy(), exp_avg_sq * stays
        """,
    ],
    wrong={
        "This keeps nothing.": """
        def reset_moments(exp_avg, exp_avg_sq, keep):
            return exp_avg * 0, exp_avg_sq * 0
        """,
        "both moments of an entry stay or go together": """
        def reset_moments(exp_avg, exp_avg_sq, keep):
            def largest(values):
                size = values.abs().flatten()
                mask = torch.zeros_like(size)
                mask[size.topk(round(keep * size.numel())).indices] = 1
                return values * mask.view_as(values)
            return largest(exp_avg), largest(exp_avg_sq)
        """,
        "This keeps the smallest.": """
        def reset_moments(exp_avg, exp_avg_sq, keep):
            size = exp_avg.abs().flatten()
            mask = torch.zeros_like(size)
            mask[(-size).topk(round(keep * size.numel())).indices] = 1
            mask = mask.view_as(exp_avg)
            return exp_avg * mask, exp_avg_sq * mask
        """,
        "Large means large in absolute value, so negative entries can stay.": """
        def reset_moments(exp_avg, exp_avg_sq, keep):
            size = exp_avg.flatten()
            mask = torch.zeros_like(size)
            mask[size.topk(round(keep * size.numel())).indices] = 1
            mask = mask.view_as(exp_avg)
            return exp_avg * mask, exp_avg_sq * mask
        """,
        "The first moment chooses, not the second.": """
        def reset_moments(exp_avg, exp_avg_sq, keep):
            size = exp_avg_sq.flatten()
            mask = torch.zeros_like(size)
            mask[size.topk(round(keep * size.numel())).indices] = 1
            mask = mask.view_as(exp_avg)
            return exp_avg * mask, exp_avg_sq * mask
        """,
        "you changed the input `exp_avg`": """
        def reset_moments(exp_avg, exp_avg_sq, keep):
            size = exp_avg.abs().flatten()
            mask = torch.zeros_like(size)
            mask[size.topk(round(keep * size.numel())).indices] = 1
            exp_avg *= mask.view_as(exp_avg)
            return exp_avg, exp_avg_sq * mask.view_as(exp_avg)
        """,
    },
)
def reset_moments(answer):
    """A reset of Adam's moments that keeps the largest."""

    def read(got):
        first, second = several(got, 2, "exp_avg and exp_avg_sq")
        return tensor(first, "exp_avg"), tensor(second, "exp_avg_sq")

    answer.read = read
    for shape, keep in (
        ((4, 5), 0.25),
        ((6, 4), 0.5),
        ((4, 5), 0.0),
        ((5, 4), 1.0),
        ((2, 10), 0.15),
    ):
        first, second = torch.randn(shape), torch.rand(shape) + 0.1
        new_first, new_second = read(answer(exp_avg=first, exp_avg_sq=second, keep=keep))
        expect(
            new_first.shape == new_second.shape == first.shape, f"both moments have shape {shape}"
        )
        count = round(keep * first.numel())
        left = int((new_first != 0).sum())
        given = f"keep={keep} of {first.numel()} entries"
        expect(left == count, f"{given}: {count} should stay, {left} did")
        mask = torch.zeros(first.numel())
        mask[first.abs().flatten().argsort(descending=True)[:count]] = 1
        mask = mask.view(shape).double()
        stay = torch.equal(new_first, first * mask)
        expect(
            stay, f"{given}: those with the largest first moment, in absolute value, should stay"
        )
        together = torch.equal(new_second, second * mask)
        expect(together, f"{given}: both moments of an entry stay or go together")
