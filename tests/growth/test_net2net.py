"""Net2Net: wider and deeper without changing an output."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from beamlora_mini.growth import net2deeper, net2wider
from beamlora_mini.growth.net2net import insert_block
from tests.growth.models import CAUSAL, TOKENS, build, output, state_of, unchanged
from tests.helpers import close_in_size


@st.composite
def maps(draw, most=5):
    """(old, a map of old units onto some larger number that leaves none out)."""
    old = draw(st.integers(1, most))
    more = draw(st.lists(st.integers(0, old - 1), max_size=most))
    return old, draw(st.permutations([*range(old), *more]))


def pairs(old):
    """{name: (fc1, what is between, fc2, input)} for every supported pair."""
    flat = nn.Sequential(nn.MaxPool2d(2), nn.ReLU(), nn.Flatten())
    images = torch.randn(3, 2, 6, 6)
    return {
        "linear": (nn.Linear(3, old), nn.GELU(), nn.Linear(old, 4), torch.randn(2, 7, 3)),
        "no-bias": (nn.Linear(3, old, bias=False), nn.Tanh(), nn.Linear(old, 4), torch.randn(5, 3)),
        "conv": (
            nn.Conv2d(2, old, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(old, 3, 2), images,
        ),
        "conv-linear": (nn.Conv2d(2, old, 3), flat, nn.Linear(old * 4, 3), images),
    }  # fmt: skip


@pytest.mark.parametrize("kind", pairs(1))
@given(maps(), st.integers(0, 2**16))
@settings(max_examples=30, deadline=None)
def test_net2wider_keeps_the_function_for_any_map(kind, old_and_map, seed):
    old, mapping = old_and_map
    torch.manual_seed(seed)
    fc1, between, fc2, x = pairs(old)[kind]
    before = fc2(between(fc1(x)))
    wide1, wide2 = net2wider(fc1, fc2, len(mapping), mapping)
    assert type(wide1) is type(fc1) and type(wide2) is type(fc2)
    assert len(wide1.weight) == len(mapping)
    close_in_size(wide2(between(wide1(x))), before, 1e-6)
    assert torch.equal(wide1.weight, fc1.weight[torch.tensor(mapping)])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", ["linear", "conv"])
@given(maps(), st.integers(0, 2**16))
@settings(max_examples=15, deadline=None)
def test_net2wider_takes_a_batchnorm_along(kind, training, old_and_map, seed):
    old, mapping = old_and_map
    torch.manual_seed(seed)
    fc1, between, fc2, x = pairs(old)[kind]
    x = torch.randn(9, 3) if kind == "linear" else x
    norm = (nn.BatchNorm1d if kind == "linear" else nn.BatchNorm2d)(old)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    norm(fc1(x))  # running statistics
    wide1, wide_norm, wide2 = net2wider(fc1, fc2, len(mapping), mapping, norm=norm)
    for one in (norm, wide_norm):
        one.train(training)
    close_in_size(wide2(between(wide_norm(wide1(x)))), fc2(between(norm(fc1(x)))), 1e-5)
    assert wide_norm.num_features == len(mapping) == len(wide_norm.running_var)


def test_net2wider_draws_a_map_and_leaves_the_arguments_alone():
    torch.manual_seed(0)
    fc1, fc2 = nn.Linear(3, 4), nn.Linear(4, 2)
    fc1.weight.requires_grad_(False)
    before = state_of(fc1), state_of(fc2)
    wide1, wide2 = net2wider(fc1, fc2, 10)
    assert unchanged(fc1, before[0]) and unchanged(fc2, before[1])
    assert torch.equal(wide1.weight[:4], fc1.weight)  # the old units stay in front
    assert repr(wide1) == repr(nn.Linear(3, 10)) and repr(wide2) == repr(nn.Linear(10, 2))
    assert not wide1.weight.requires_grad and wide2.weight.requires_grad
    copies = (wide1.weight[:, None] == fc1.weight).all(-1).sum(0)
    assert sorted(copies.tolist()) == [2, 2, 3, 3]  # none twice before each has been copied once


def test_net2wider_noise_parts_the_copies_and_costs_exactness():
    torch.manual_seed(0)
    fc1, fc2, x = nn.Linear(30, 20), nn.Linear(20, 5), torch.randn(8, 30)
    mapping = [*range(20)] * 2
    wide1, wide2 = net2wider(fc1, fc2, 40, mapping, noise=0.01)
    assert torch.equal(wide1.weight[:20], fc1.weight)
    moved = (wide1.weight[20:] - fc1.weight) / fc1.weight.std()
    assert 0.008 < moved.std() < 0.012
    change = (wide2(wide1(x).relu()) - fc2(fc1(x).relu())).abs().max()
    assert 1e-5 < change < 0.1


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"fc1": nn.Conv1d(2, 4, 3)}, TypeError, ["Conv1d", "Conv2d to Linear"]),
        ({"fc2": nn.Conv2d(4, 2, 1)}, TypeError, ["fc1=Linear, fc2=Conv2d"]),
        ({"fc2": nn.Linear(8, 2)}, ValueError, ["fc2=8", "4 inputs"]),
        ({"fc1": nn.Conv2d(2, 4, 1, groups=2)}, ValueError, ["groups=[2, 1]"]),
        ({"fc1": nn.Conv2d(2, 4, 1), "fc2": nn.Linear(6, 2)}, ValueError, ["multiple of 4"]),
        ({"new_width": 3}, ValueError, ["new_width=3", "at least 4"]),
        ({"new_width": 6.0}, ValueError, ["new_width=6.0"]),
        ({"noise": -1}, ValueError, ["noise=-1"]),
        ({"mapping": [0, 1, 2, 3]}, ValueError, ["mapping", "6 integers"]),
        ({"mapping": [0, 1, 2, 2, 1, 0]}, ValueError, ["mapping", "each of the units 0 to 3"]),
        ({"mapping": [0, 1, 2, 3, 4, 0]}, ValueError, ["mapping"]),
        ({"mapping": [0, 1, 2, 3, 0.0, 1]}, ValueError, ["mapping"]),
        ({"norm": nn.LayerNorm(4)}, TypeError, ["LayerNorm", "BatchNorm1d"]),
        ({"norm": nn.BatchNorm1d(5)}, ValueError, ["norm=5", "4 features"]),
    ],
)
def test_net2wider_says_what_it_supports(change, kind, words):
    arguments = {"fc1": nn.Linear(3, 4), "fc2": nn.Linear(4, 2), "new_width": 6} | change
    if isinstance(arguments["fc1"], nn.Conv2d) and arguments["fc2"].in_features == 4:
        arguments["fc2"] = nn.Conv2d(4, 2, 1)
    with pytest.raises(kind) as error:
        net2wider(**arguments)
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.ReLU6(), nn.Hardtanh(), nn.Identity()])
def test_net2deeper_puts_an_identity_behind_an_idempotent_activation(activation):
    torch.manual_seed(0)
    for layer, x in (
        (nn.Linear(4, 6), 5 * torch.randn(9, 4)),
        (nn.Conv2d(2, 5, (3, 1), stride=2), 5 * torch.randn(2, 2, 9, 9)),
    ):
        deeper = net2deeper(layer, activation)
        before = activation(layer(x))
        close_in_size(activation(deeper(before)), before, 1e-6)
        activation(deeper(before)).sum().backward()
        assert deeper.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "activation", [None, nn.GELU(), nn.Tanh(), nn.LeakyReLU(), nn.PReLU(), nn.Softmax(-1)]
)
def test_net2deeper_refuses_other_activations(activation):
    with pytest.raises(ValueError, match=r"activation=.*f\(f\(x\)\) = f\(x\), such as nn\.ReLU"):
        net2deeper(nn.Linear(4, 6), activation)


def test_net2deeper_refuses_other_layers():
    with pytest.raises(TypeError, match="layer=LayerNorm: allowed are Linear, Conv2d and a Llama"):
        net2deeper(nn.LayerNorm(4), nn.ReLU())
    with pytest.raises(TypeError, match="BertLayer"):  # its norms come after the residual sum
        net2deeper(build("bert").encoder.layer[0])
    with pytest.raises(ValueError, match=r"kernel_size=\(2, 2\).*odd"):
        net2deeper(nn.Conv2d(2, 2, 2), nn.ReLU())


def test_net2deeper_silences_a_copied_block():
    model = build("llama-grouped")
    block = model.model.layers[1]
    silent = net2deeper(block)
    x, position = torch.randn(2, 7, 48).double(), torch.arange(7)[None]
    rotary = model.model.rotary_emb(x, position)
    assert not torch.allclose(block(x, position_embeddings=rotary), x)
    assert torch.equal(silent(x, position_embeddings=rotary), x)
    assert torch.equal(silent.mlp.up_proj.weight, block.mlp.up_proj.weight)
    assert silent.mlp.up_proj.weight is not block.mlp.up_proj.weight


@pytest.mark.parametrize("name", [n for n in CAUSAL if not n.startswith("gpt2")])
def test_insert_block(name, tmp_path):
    model = build(name)
    before, state = output(model), state_of(model)
    for index in range(3):
        deeper = insert_block(model, index)
        assert torch.equal(output(deeper), before)
        assert len(deeper.base_model.layers) == deeper.config.num_hidden_layers == 4
        assert [b.self_attn.layer_idx for b in deeper.base_model.layers] == [0, 1, 2, 3]
    if name != "llama-no-head":  # the cache knows the new layer
        made = deeper.generate(TOKENS[:, :4], max_new_tokens=5, do_sample=False)
        assert torch.equal(made, model.generate(TOKENS[:, :4], max_new_tokens=5, do_sample=False))
    with torch.no_grad():
        for parameter in deeper.parameters():
            parameter.zero_()
    assert unchanged(model, state)  # no tensor is shared
    for index in (3, -1, 1.0):
        with pytest.raises(ValueError, match=f"index={index}.*0 to 2"):
            insert_block(model, index)


def test_an_inserted_block_learns_from_its_output_projections_on():
    deeper = insert_block(build("llama"), 1)
    deeper(TOKENS, labels=TOKENS).loss.backward()
    moving = {n for n, p in deeper.model.layers[2].named_parameters() if p.grad.abs().sum() > 0}
    assert moving == {"self_attn.o_proj.weight", "mlp.down_proj.weight"}
