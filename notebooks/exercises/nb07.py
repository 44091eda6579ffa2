"""The exercises of 07_growing_networks."""

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from beamlora_mini.growth import hyperclone

from .common import exercise, expect, is_close, several, tensor


@exercise(
    "07.1",
    asked="W_in and W_out",
    solution="""
        def widen_unevenly(W_in, W_out, unit, share):
            wide_in = torch.cat([W_in, W_in[unit : unit + 1]])
            wide_out = torch.cat([W_out, (1 - share) * W_out[:, unit : unit + 1]], dim=1)
            wide_out[:, unit] *= share
            return wide_in, wide_out
    """,
    right=[
        """
        def widen_unevenly(W_in, W_out, unit, share):
            rows = W_in.tolist() + [W_in[unit].tolist()]
            columns = W_out.double().T.tolist()
            columns.append([(1 - share) * sent for sent in columns[unit]])
            columns[unit] = [share * sent for sent in columns[unit]]
            return [rows, torch.tensor(columns).T.numpy()]
        """,
        """
        def widen_unevenly(W_in, W_out, unit, share):
            g = [*range(len(W_in)), unit]
            parts = torch.ones(len(g))
            parts[unit], parts[-1] = share, 1 - share
            return W_in[g], W_out[:, g] * parts
        """,
    ],
    wrong={
        "The old unit still sends all that it sent.": """
        def widen_unevenly(W_in, W_out, unit, share):
            twin = slice(unit, unit + 1)
            return torch.cat([W_in, W_in[twin]]), torch.cat([W_out, W_out[:, twin]], 1)
        """,
        "This shares in halves, whatever the share.": """
        def widen_unevenly(W_in, W_out, unit, share):
            wide_in = torch.cat([W_in, W_in[unit : unit + 1]])
            wide_out = torch.cat([W_out, W_out[:, unit : unit + 1] / 2], 1)
            wide_out[:, unit] /= 2
            return wide_in, wide_out
        """,
        "`share` is the old unit's part, not the copy's.": """
        def widen_unevenly(W_in, W_out, unit, share):
            wide_in = torch.cat([W_in, W_in[unit : unit + 1]])
            wide_out = torch.cat([W_out, share * W_out[:, unit : unit + 1]], dim=1)
            wide_out[:, unit] *= 1 - share
            return wide_in, wide_out
        """,
        "The copy belongs last, not next to its unit.": """
        def widen_unevenly(W_in, W_out, unit, share):
            g = [*range(unit + 1), *range(unit, len(W_in))]
            wide_out = W_out[:, g]
            wide_out[:, unit] *= share
            wide_out[:, unit + 1] *= 1 - share
            return W_in[g], wide_out
        """,
        "you changed the input `W_out`": """
        def widen_unevenly(W_in, W_out, unit, share):
            copy = (1 - share) * W_out[:, unit : unit + 1]
            W_out[:, unit] *= share
            return torch.cat([W_in, W_in[unit : unit + 1]]), torch.cat([W_out, copy], 1)
        """,
        "What a unit receives is not shared, only what it sends.": """
        def widen_unevenly(W_in, W_out, unit, share):
            wide_in = torch.cat([W_in, (1 - share) * W_in[unit : unit + 1]])
            wide_in[unit] *= share
            return wide_in, torch.cat([W_out, W_out[:, unit : unit + 1]], dim=1)
        """,
    },
)
def widen_unevenly(answer):
    """One more unit, a copy that takes over a part of what the old one sends."""

    def read(got):
        wide_in, wide_out = several(got, 2, "W_in and W_out")
        return tensor(wide_in, "W_in"), tensor(wide_out, "W_out")

    answer.read = read
    for inputs, units, outputs, unit, share in (
        (3, 4, 2, 1, 0.25),
        (2, 5, 3, 4, 0.9),
        (4, 3, 2, 0, 0.6),
    ):
        W_in, W_out = torch.randn(units, inputs), torch.randn(outputs, units)
        wide_in, wide_out = read(answer(W_in=W_in, W_out=W_out, unit=unit, share=share))
        shapes = tuple(wide_in.shape), tuple(wide_out.shape)
        wanted = (units + 1, inputs), (outputs, units + 1)
        expect(shapes == wanted, f"the shapes should be {wanted}, not {shapes}")
        given = f"unit={unit} of {units}, share={share}"
        received = is_close(wide_in[:units], W_in) and is_close(wide_in[units], W_in[unit])
        expect(
            received,
            f"{given}: W_in should be what it was, with a copy of row {unit} as its last row",
        )
        x = torch.randn(6, inputs).double()
        before = (x @ W_in.double().T).relu() @ W_out.double().T
        after = (x @ wide_in.T).relu() @ wide_out.T
        expect(is_close(after, before), f"{given}: the function has changed")
        sent = is_close(wide_out[:, unit], share * W_out[:, unit])
        expect(sent, f"{given}: the old unit should send {share} of what it sent")


@exercise(
    "07.2",
    solution="""
        def tie_again(clone, times):
            clone.lm_head.weight = clone.model.embed_tokens.weight
            clone.model.norm.weight.data /= times
    """,
    right=[
        """
        def tie_again(clone, times):
            norm = clone.model.norm
            norm.weight = torch.nn.Parameter(norm.weight.detach() * torch.tensor(1 / times))
            clone.lm_head.weight = clone.model.embed_tokens.weight
            return clone
        """,
        """
        def tie_again(clone, times):
            with torch.no_grad():
                for k in range(len(clone.model.norm.weight)):
                    clone.model.norm.weight[k] = clone.model.norm.weight[k] / times
            clone.get_output_embeddings().weight = clone.get_input_embeddings().weight
        """,
    ],
    wrong={
        "the logits are 2.00 times as large": """
        def tie_again(clone, times):
            clone.lm_head.weight = clone.model.embed_tokens.weight
        """,
        "the embedding has changed": """
        def tie_again(clone, times):
            clone.model.embed_tokens.weight = clone.lm_head.weight
        """,
        "are equal, but still two weights": """
        def tie_again(clone, times):
            clone.lm_head.weight.data.copy_(clone.model.embed_tokens.weight)
            clone.model.norm.weight.data /= times
        """,
        "the logits are 1.50 times as large": """
        def tie_again(clone, times):
            clone.lm_head.weight = clone.model.embed_tokens.weight
            clone.model.norm.weight.data /= 2
        """,
        "the logits have other proportions": """
        def tie_again(clone, times):
            clone.lm_head.weight = clone.model.embed_tokens.weight
            clone.model.norm.weight.data.fill_(1 / times)
        """,
        "the logits are 4.00 times as large": """
        def tie_again(clone, times):
            clone.lm_head.weight = clone.model.embed_tokens.weight
            clone.model.norm.weight.data *= times
        """,
        "head and embedding are still two weights": """
        def tie_again(clone, times):
            clone.model.norm.weight.data /= times
        """,
    },
)
def tie_again(answer):
    """A cloned Llama whose head is its embedding again, with the same logits."""
    for times in (2, 3):
        config = LlamaConfig(
            hidden_size=16, intermediate_size=24, num_hidden_layers=1, vocab_size=10,
            num_attention_heads=2, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2,
            initializer_range=0.5,
        )  # fmt: skip
        model = LlamaForCausalLM(config)
        nn.init.uniform_(model.model.norm.weight, 0.5, 1.5)
        clone = hyperclone(model, times)
        ids = torch.randint(10, (2, 8))
        embedding = clone.model.embed_tokens.weight.detach().clone()
        with torch.no_grad():
            before = clone(ids).logits
        answer.function(clone, times)  # in place, so not with copies
        with torch.no_grad():
            after = clone(ids).logits
        head, embed = clone.lm_head.weight, clone.model.embed_tokens.weight
        same = embed.shape == embedding.shape and torch.equal(embed, embedding)
        expect(same, "the embedding has changed; whoever else reads it hears something new")
        words = (
            "are equal, but still two weights"
            if torch.equal(head, embed)
            else "are still two weights"
        )
        expect(head is embed, f"head and embedding {words}")
        factor = (after / before).median()
        proportional = is_close(after, factor * before)
        changed = f"are {factor:.2f} times as large" if proportional else "have other proportions"
        expect(is_close(after, before), f"with times={times}, the logits {changed}")


@exercise(
    "07.3",
    asked="A and B",
    solution="""
        def copy_into(A, B, slot, source):
            g = torch.arange(len(A))
            g[slot] = source
            return A[g], B[:, g] / g.bincount(minlength=len(A))[g]
    """,
    right=[
        """
        def copy_into(A, B, slot, source):
            A, B = A.double().numpy().copy(), B.clone()
            A[slot] = A[source]
            B[:, source] /= 2
            B[:, slot] = B[:, source]
            return [A, B]
        """,
        """
        def copy_into(A, B, slot, source):  # shares unevenly
            rows, columns = A.tolist(), B.T.tolist()
            rows[slot] = rows[source]
            columns[slot] = [0.25 * b for b in columns[source]]
            columns[source] = [0.75 * b for b in columns[source]]
            return rows, torch.tensor(columns).T
        """,
    ],
    wrong={
        "The source counts twice.": """
        def copy_into(A, B, slot, source):
            A, B = A.clone(), B.clone()
            A[slot], B[:, slot] = A[source], B[:, source]
            return A, B
        """,
        "the slot should receive what the source does": """
        def copy_into(A, B, slot, source):
            A, B = A.clone(), B.clone()
            for rank in (slot, source):
                A[rank], B[:, rank] = A[source] / 2, B[:, source] / 2
            return A, B
        """,
        "you changed the input `B`": """
        def copy_into(A, B, slot, source):
            A = A.clone()
            A[slot] = A[source]
            B[:, source] /= 2
            B[:, slot] = B[:, source]
            return A, B
        """,
        "the slot sends nothing": """
        def copy_into(A, B, slot, source):
            A, B = A.clone(), B.clone()
            A[slot], B[:, slot] = A[source], 0
            return A, B
        """,
        "the source sends nothing": """
        def copy_into(A, B, slot, source):
            A, B = A.clone(), B.clone()
            A[slot], B[:, slot], B[:, source] = A[source], B[:, source], 0
            return A, B
        """,
        "What the slot sent before is still there.": """
        def copy_into(A, B, slot, source):
            A = A.clone()
            A[slot] = A[source]
            return A, B
        """,
        "the other ranks have changed": """
        def copy_into(A, B, slot, source):
            A = A.clone()
            A[slot] = A[source]
            B = B / 2
            B[:, slot] = B[:, source]
            return A, B
        """,
    },
)
def copy_into(answer):
    """A rank's place taken by a copy of another, which shares its contribution with it."""

    def read(got):
        A, B = several(got, 2, "A and B")
        return tensor(A, "A"), tensor(B, "B")

    answer.read = read
    for r, inputs, outputs, slot, source in ((4, 6, 5, 0, 2), (5, 3, 7, 4, 1)):
        A, B = torch.randn(r, inputs), torch.randn(outputs, r)
        new_A, new_B = read(answer(A=A, B=B, slot=slot, source=source))
        given = f"slot={slot}, source={source} of {r} ranks"
        shapes = new_A.shape == A.shape and new_B.shape == B.shape
        expect(shapes, f"{given}: A and B should have the shapes they had")
        received = is_close(new_A[slot], A[source]) and is_close(new_A[source], A[source])
        expect(received, f"{given}: the slot should receive what the source does, its row of A")
        others = [k for k in range(r) if k not in (slot, source)]
        same = is_close(new_A[others], A[others]) and is_close(new_B[:, others], B[:, others])
        expect(same, f"{given}: the other ranks have changed")
        for name, rank in (("slot", slot), ("source", source)):
            sends = bool(new_B[:, rank].norm() > 1e-3)
            expect(sends, f"{given}: the {name} sends nothing; each should send a part")
        expect(
            is_close(new_B[:, slot] + new_B[:, source], B[:, source]),
            f"{given}: slot and source together should add what the source added alone",
        )
