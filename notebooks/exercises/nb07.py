"""The exercises of 07_growing_networks."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from beamlora_mini.growth import hyperclone

from .common import exercise, expect, is_close


@exercise(
    "07.1",
    solution="""
        def widen_unevenly(W_in, W_out, unit, share):
            wide_in = torch.cat([W_in, W_in[unit : unit + 1]])
            wide_out = torch.cat([W_out, (1 - share) * W_out[:, unit : unit + 1]], dim=1)
            wide_out[:, unit] *= share
            return wide_in, wide_out
    """,
    wrong=[
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
)
def widen_unevenly(answer):
    """One more unit, a copy that takes over a part of what the old one sends."""
    generator = torch.Generator().manual_seed(0)
    W_in, W_out = (torch.randn(*s, generator=generator) for s in ((4, 3), (2, 4)))
    x = torch.randn(6, 3, generator=generator)
    kept = W_in.clone(), W_out.clone()
    for unit, share in ((1, 0.25), (3, 0.9)):
        got = answer(W_in, W_out, unit, share)
        expect(got is not None, "widen_unevenly returned None; return W_in and W_out")
        wide_in, wide_out = got
        unharmed = torch.equal(W_in, kept[0]) and torch.equal(W_out, kept[1])
        expect(unharmed, "the weights that were handed in have changed")
        shapes = tuple(wide_in.shape), tuple(wide_out.shape)
        expect(shapes == ((5, 3), (2, 5)), f"for four units the shapes are {shapes}")
        before, after = (x @ W_in.T).relu() @ W_out.T, (x @ wide_in.T).relu() @ wide_out.T
        expect(is_close(after, before), "the function has changed")
        expect(is_close(wide_in[4], W_in[unit]), f"the last unit is no copy of unit {unit}")
        old_sends = is_close(wide_out[:, unit], share * W_out[:, unit])
        expect(old_sends, f"with share={share}, the old unit does not send that part")


@exercise(
    "07.2",
    solution="""
        def tie_again(clone, times):
            clone.lm_head.weight = clone.model.embed_tokens.weight
            clone.model.norm.weight.data /= times
    """,
    wrong=[
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
)
def tie_again(answer):
    """A cloned Llama whose head is its embedding again, with the same logits."""
    for times in (2, 3):
        torch.manual_seed(0)
        config = LlamaConfig(
            hidden_size=16, intermediate_size=24, num_hidden_layers=1, vocab_size=10,
            num_attention_heads=2, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2,
            initializer_range=0.5,
        )  # fmt: skip
        clone = hyperclone(LlamaForCausalLM(config), times)
        ids = torch.arange(8)[None]
        embedding = clone.model.embed_tokens.weight.detach().clone()
        with torch.no_grad():
            before = clone(ids).logits
            answer(clone, times)
            after = clone(ids).logits
        tied = clone.lm_head.weight is clone.model.embed_tokens.weight
        expect(tied, "head and embedding are still two weights")
        same = torch.equal(clone.model.embed_tokens.weight, embedding)
        expect(same, "the embedding has changed; whoever else reads it hears something new")
        expect(is_close(after, before), f"with times={times}, the logits have changed")


@exercise(
    "07.3",
    solution="""
        def copy_into(A, B, slot, source):
            g = torch.arange(len(A))
            g[slot] = source
            return A[g], B[:, g] / g.bincount(minlength=len(A))[g]
    """,
    wrong=[
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
)
def copy_into(answer):
    """A rank's place taken by a copy of another, which shares its contribution with it."""
    generator = torch.Generator().manual_seed(0)
    A, B = (torch.randn(*s, generator=generator) for s in ((4, 6), (5, 4)))
    kept = A.clone(), B.clone()
    for slot, source in ((0, 2), (3, 1)):
        got = answer(A, B, slot, source)
        expect(got is not None, "copy_into returned None; return A and B")
        new_A, new_B = got
        unharmed = torch.equal(A, kept[0]) and torch.equal(B, kept[1])
        expect(unharmed, "the A and B that were handed in have changed")
        shapes = new_A.shape == A.shape and new_B.shape == B.shape
        expect(shapes, "the adapter should have as many ranks as before")
        expect(is_close(new_A[slot], A[source]), "the slot does not receive what the source does")
        wanted = B @ A - torch.outer(B[:, slot], A[slot])
        expect(
            is_close(new_B @ new_A, wanted),
            "the update should be what it was, without what the pruned rank added",
        )
