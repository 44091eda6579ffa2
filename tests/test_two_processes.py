"""Two processes decide alike, and do what one would do with the whole batch: the eight and a ninth."""

from datetime import timedelta
from pathlib import Path

import pytest
import torch
from sora import SoRA
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

import beamlora_mini as bl

STEPS = 16
METHODS = {
    "lora": bl.LoRA(r=4),
    "pissa": bl.PiSSA(r=4),
    "milora": bl.MiLoRA(r=4),
    "dora": bl.DoRA(r=4),
    "relora": bl.ReLoRA(r=4, merge_every=5, restart_warmup=2),
    "adalora": bl.AdaLoRA(r=4, target_r=2, tinit=2, tfinal=6, deltaT=2),
    "increlora": bl.IncreLoRA(r=1, target_r=3, top_h=5, init_warmup=2, incre_interval=2),
    "beamlora": bl.BeamLoRA(r=6, period=4, p_start=0.6, pairing="random"),
    "sora": SoRA(r=4, sparsity=20.0),
}
WITH_EVENTS = {"relora", "adalora", "increlora", "beamlora", "sora"}


def start(method):
    config = LlamaConfig(
        vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=2, attn_implementation="eager",
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).double()
    bl.attach(model, method)
    return model


def train(model, rows):
    """The run of one process on its rows (a slice) of every batch: parameters and events."""
    run = bl.Run(model, steps=STEPS, lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    events = []
    for _ in range(STEPS):
        ids = torch.randint(3, 40, (4, 8), generator=generator)[rows]
        (model(input_ids=ids, labels=ids).loss + run.loss()).backward()
        events += run.update()
    inner = run.model
    return {
        n: p.detach() for n, p in inner.named_parameters() if ".lora_" in n or ".blocks_" in n
    }, events


def one_of_two(rank, folder):
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meet",
        rank=rank,
        world_size=2,
        timeout=timedelta(minutes=2),
    )
    torch.set_num_threads(1)
    results = {}
    for name, method in METHODS.items():
        model = nn.parallel.DistributedDataParallel(start(method))
        torch.manual_seed(rank)  # whatever else a process draws
        results[name] = train(model, slice(rank, None, 2))
    model, _ = bl.load_model("tiny", device="cpu")
    bl.attach(model, METHODS["beamlora"])
    settings = {"steps": 8, "lr": 1e-2, "batch_size": 2, "progress": False}
    parallel = nn.parallel.DistributedDataParallel(model)
    log = bl.fit(
        parallel,
        "subtraction",
        tokenizer=model.tokenizer,
        checkpoint_dir=f"{folder}/kept",
        **settings,
    )
    assert [file.name for file in Path(folder, "kept").iterdir()] == ["checkpoint.pt"]
    results["fit"] = ({}, log.events)
    torch.save(results, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    torch.multiprocessing.spawn(one_of_two, (str(folder),), nprocs=2)
    with torch.serialization.safe_globals([bl.RankEvent]):
        return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def test_fit_finds_the_method_in_its_wrapper_and_writes_one_checkpoint(both):
    events = [results["fit"][1] for results in both]
    assert events[0] == events[1] and events[0]


@pytest.mark.parametrize("name", METHODS)
def test_two_processes_decide_alike(both, name):
    (first, events), (second, other_events) = (results[name] for results in both)
    assert events == other_events and bool(events) == (name in WITH_EVENTS)
    assert first.keys() == second.keys()
    assert all(torch.equal(t, second[n]) for n, t in first.items())


@pytest.mark.parametrize("name", METHODS)
def test_two_processes_are_one_with_the_whole_batch(both, name):
    parameters, events = both[0][name]
    wanted, alone = train(start(METHODS[name]), slice(None))
    if (
        name == "increlora"
    ):  # scores are averages over processes: not quite those of the whole batch
        assert len(events) == len(alone) and parameters.keys() != {}
        return
    assert [e[:5] for e in events] == [e[:5] for e in alone]
    for key, tensor in wanted.items():
        torch.testing.assert_close(parameters[key], tensor, rtol=1e-7, atol=1e-7)
