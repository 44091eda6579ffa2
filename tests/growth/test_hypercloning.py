"""HyperCloning: the same logits, noise that sums to zero, copies that never part."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

import beamlora_mini as bl
from beamlora_mini.growth import hyperclone, units
from tests.growth.models import (
    CAUSAL,
    SPECIAL,
    TOKENS,
    VOCABULARY,
    build,
    exact,
    output,
    state_of,
    unchanged,
)
from tests.helpers import close_in_size


@pytest.mark.parametrize("snr_db", [None, 10.0])
@pytest.mark.parametrize("times", [2, 3])
@pytest.mark.parametrize("name", CAUSAL)
def test_hyperclone_keeps_the_logits(name, times, snr_db, tmp_path):
    model = build(name)
    before, state, old = output(model), state_of(model), model.config
    grown = hyperclone(model, times, snr_db)
    if model.get_output_embeddings() is None:
        before = before.repeat(1, 1, times)
    close_in_size(output(grown), before, exact(name))
    new = grown.config
    assert new.hidden_size == times * old.hidden_size
    assert new.num_attention_heads == times * old.num_attention_heads
    attention = next(m for n, m in grown.named_modules() if n.endswith(("self_attn", "attn")))
    assert attention.head_dim == getattr(old, "head_dim", 8)
    assert unchanged(model, state) and type(grown) is type(model)
    if (head := grown.get_output_embeddings()) is not None:
        assert not new.tie_word_embeddings
        assert head.weight is not grown.get_input_embeddings().weight
    grown.save_pretrained(tmp_path)
    again, report = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    close_in_size(output(again.eval()), before, exact(name))


@given(
    st.sampled_from([1, 3]), st.integers(1, 3), st.sampled_from([2, 4, 6]), st.integers(1, 9),
    st.sampled_from([2, 3]), st.booleans(), st.sampled_from([None, 0.0, 20.0]),
)  # fmt: skip
@settings(max_examples=15, deadline=None)
def test_hyperclone_for_any_grouping(groups, queries, head_dim, inner, times, tied, snr_db):
    config = LlamaConfig(
        hidden_size=18, num_hidden_layers=1, num_attention_heads=groups * queries,
        num_key_value_heads=groups, head_dim=head_dim, intermediate_size=inner,
        vocab_size=VOCABULARY, tie_word_embeddings=tied, initializer_range=0.3, **SPECIAL,
    )  # fmt: skip
    model = LlamaForCausalLM(config).double().eval()
    close_in_size(output(hyperclone(model, times, snr_db)), output(model), exact("llama"))


@pytest.mark.parametrize("snr_db", [None, 20.0])
@pytest.mark.parametrize("name", ["tiny", "smollm2"])
def test_hyperclone_of_real_models_in_float32(request, name, snr_db):
    model, tokenizer = request.getfixturevalue(name)
    ids = tokenizer("12+34=46" if name == "tiny" else "The capital of France is", return_tensors="pt").input_ids  # fmt: skip
    grown = hyperclone(model, snr_db=snr_db)
    close_in_size(output(grown, ids), output(model, ids), 1e-5)
    if name == "smollm2":
        assert 500e6 < bl.count_parameters(grown)[1] < 600e6
    made = grown.generate(ids, max_new_tokens=3, do_sample=False)
    assert torch.equal(made, model.generate(ids, max_new_tokens=3, do_sample=False))


@pytest.mark.parametrize("name", ["llama-grouped", "gpt2"])
@pytest.mark.parametrize("times", [2, 3])
def test_noise_has_the_size_it_should_and_sums_to_zero(name, times):
    model = build(name)
    clean, noisy = hyperclone(model, times), hyperclone(model, times, snr_db=12)
    axes = units.weight_axes(clean, ("llama", "gpt2"))
    compared = 0
    for key, weight in clean.state_dict().items():
        noise = noisy.state_dict()[key] - weight
        reads = [dim for dim, axis in enumerate(axes[key]) if axis.endswith("/")]
        if not reads:
            assert noise.abs().max() == 0, key
            continue
        decibels = 20 * torch.log10(weight.square().mean().sqrt() / noise.square().mean().sqrt())
        assert decibels == pytest.approx(12, abs=1e-6)
        assert noise.unflatten(reads[0], (times, -1)).sum(reads[0]).abs().max() < 1e-12
        compared += 1
    assert compared == 3 * 7 + 1 if name == "llama-grouped" else 2 * 4 + 1


def twin_difference(model, times=2):
    """How far the copies of each weight are apart, at most, relative to the weights' size."""
    apart = 0.0
    axes = units.weight_axes(model, ("llama", "gpt2"))
    for name, weight in model.state_dict().items():
        for dim, axis in enumerate(axes[name]):
            blocks = 3 if axis == "query key value" else 1
            if axis.strip("/"):
                first, *others = weight.unflatten(dim, (blocks, times, -1)).unbind(dim + 1)
                apart = max(apart, *((first - o).abs().max().item() for o in others))
    return apart


@pytest.mark.parametrize("name", ["llama-tied", "llama-grouped", "gpt2"])
def test_without_noise_copies_never_part_and_with_it_they_do(name):
    apart = {}
    for snr_db in (None, 30.0):
        torch.manual_seed(0)
        grown = hyperclone(build(name), snr_db=snr_db)
        optimizer = torch.optim.SGD(grown.parameters(), lr=0.05, momentum=0.9)
        for _ in range(5):
            optimizer.zero_grad()
            grown(TOKENS, labels=TOKENS).loss.backward()
            optimizer.step()
        with torch.no_grad():  # what the training did, without the noise that was there before
            torch.manual_seed(0)
            start = hyperclone(build(name), snr_db=snr_db).state_dict()
            for key, weight in grown.state_dict().items():
                weight -= start[key]
        apart[snr_db] = twin_difference(grown)
    assert apart[None] < 1e-5 and apart[30.0] > 1e-4, apart


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"times": 1}, ["times=1", "2 or 3"]),
        ({"times": 4}, ["times=4"]),
        ({"snr_db": float("nan")}, ["snr_db=nan", "finite"]),
        ({"snr_db": "20"}, ["snr_db='20'"]),
    ],
)
def test_hyperclone_says_what_it_supports(arguments, words):
    with pytest.raises(ValueError) as error:
        hyperclone(build("gpt2"), **arguments)
    assert all(word in str(error.value) for word in words), error.value
